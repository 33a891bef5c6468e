//! Opens connections to backends: names, TCP, time limits.
