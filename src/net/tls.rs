//! TLS at the front: rustls server configs from certificate files.
