//! The journal: an append-only, checksummed log of what is stored, and its snapshot.
