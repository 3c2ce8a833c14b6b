//! What is exchanged: frames and sessions, without input or output.
