//! The link over loopback: real sockets, no sleeps.

mod carry;
mod handshake;
mod hostile;
mod pair;
