//! Listening sockets (`SO_REUSEPORT`, one a worker), the accept loop, and its limits.
