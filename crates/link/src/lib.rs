//! What is carried: QUIC endpoints with raw public keys.
