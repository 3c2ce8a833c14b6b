//! What is kept: one SQLite file, of a device or a relay.
