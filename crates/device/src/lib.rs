//! The field side: the library that an application embeds.
