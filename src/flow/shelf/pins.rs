//! Packs that must not be dropped while somebody reads or fills them.

use super::Shelf;
use super::lock;
use crate::rules::address::PackId;
use std::sync::Arc;

/// Keeps packs from being dropped while somebody reads or fills them.
#[derive(Debug)]
pub struct Pins {
    shelf: Arc<Shelf>,
    packs: Vec<PackId>,
}

impl Shelf {
    pub(super) fn is_pinned(&self, pack: PackId) -> bool {
        lock(&self.pins).contains_key(&pack)
    }

    pub(super) fn pin(self: &Arc<Self>, packs: impl Iterator<Item = PackId>) -> Pins {
        let mut pins = Pins::none(self);
        for pack in packs {
            pins.add(pack);
        }
        pins
    }
}

impl Pins {
    /// Where the packs are.
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    pub(super) fn none(shelf: &Arc<Shelf>) -> Self {
        Self {
            shelf: Arc::clone(shelf),
            packs: Vec::new(),
        }
    }

    /// Pins one pack more; parts of a body that lie side by side count once.
    pub(super) fn add(&mut self, pack: PackId) {
        if self.packs.last() != Some(&pack) {
            *lock(&self.shelf.pins).entry(pack).or_default() += 1;
            self.packs.push(pack);
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = lock(&self.shelf.pins);
        for pack in &self.packs {
            if let Some(count) = pins.get_mut(pack) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(pack);
                }
            }
        }
    }
}
