//! A folder served as an origin: content types, validators, no way out of the folder.
