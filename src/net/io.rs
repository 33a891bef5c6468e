//! The IO wrapper that adds what hyper lacks: read and write timeouts.
