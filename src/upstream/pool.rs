//! Connections to one backend: a cap, a wait queue, the most recently used first.
