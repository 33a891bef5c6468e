//! Packs: many segments in one cacache content. The only file that names cacache.
