//! A hash table that threads its items into chains: the items are the caller's, and so are the links.
//!
//! Linear hashing: for each item one bucket is added, and one old bucket split. So the table has one
//! bucket an item at every size, and no insertion ever moves more than one chain: a table of millions
//! does not stop the world to double.

/// The heads of the chains. Items are the caller's numbers.
#[derive(Debug)]
pub(super) struct Buckets {
    blocks: Vec<Box<[u32]>>,
    /// How many buckets are in use.
    count: u64,
    items: u64,
}

/// What the chains are made of.
pub(super) trait Links {
    /// The hash of an item; never another one while it is in the table.
    fn hash(&self, item: u32) -> u64;
    /// The item that follows in the chain, or [`NONE`].
    fn next(&self, item: u32) -> u32;
    /// Changes what follows.
    fn set_next(&mut self, item: u32, next: u32);
}

impl Buckets {
    pub(super) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            count: 0,
            items: 0,
        }
    }

    /// Makes room for so many items while there are none, so that none is moved to make it.
    pub(super) fn reserve(&mut self, items: u32) {
        if self.items == 0 {
            self.count = self.count.max(items.into());
            while (self.blocks.len() as u64) * BLOCK < self.count {
                self.blocks.push((0..BLOCK).map(|_| NONE).collect());
            }
        }
    }

    /// How many items.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.items).unwrap_or(usize::MAX)
    }

    /// The first item of the chain that holds all items of this hash, among others.
    pub(super) fn first(&self, hash: u64) -> u32 {
        self.head(self.bucket(hash))
    }

    /// Puts an item at the head of its chain.
    pub(super) fn add(&mut self, item: u32, links: &mut impl Links) {
        self.items += 1;
        if self.items > self.count {
            self.grow(links);
        }
        self.push(item, self.bucket(links.hash(item)), links);
    }

    /// Takes an item out of its chain.
    pub(super) fn remove(&mut self, item: u32, links: &mut impl Links) {
        let after = links.next(item);
        if self.redirect(item, after, links) {
            self.items -= 1;
        }
    }

    /// Puts `by` in the place of `item`, which has the same hash.
    pub(super) fn replace(&mut self, item: u32, by: u32, links: &mut impl Links) {
        links.set_next(by, links.next(item));
        self.redirect(item, by, links);
    }

    /// Makes what points to `item` point to `to`.
    fn redirect(&mut self, item: u32, to: u32, links: &mut impl Links) -> bool {
        let bucket = self.bucket(links.hash(item));
        let mut before = self.head(bucket);
        if before == item {
            self.set_head(bucket, to);
            return true;
        }
        while before != NONE {
            let next = links.next(before);
            if next == item {
                links.set_next(before, to);
                return true;
            }
            before = next;
        }
        false
    }

    /// Adds a bucket and hands it its share of the one it is split from.
    fn grow(&mut self, links: &mut impl Links) {
        if self.count == self.blocks.len() as u64 * BLOCK {
            self.blocks.push((0..BLOCK).map(|_| NONE).collect());
        }
        let new = self.count;
        self.count += 1;
        let Some(old) = new.checked_ilog2().map(|level| new - (1 << level)) else {
            return;
        };
        let mut item = self.head(old);
        self.set_head(old, NONE);
        while item != NONE {
            let next = links.next(item);
            self.push(item, self.bucket(links.hash(item)), links);
            item = next;
        }
    }

    fn push(&mut self, item: u32, bucket: u64, links: &mut impl Links) {
        links.set_next(item, self.head(bucket));
        self.set_head(bucket, item);
    }

    fn bucket(&self, hash: u64) -> u64 {
        let whole = self.count.next_power_of_two();
        let bucket = hash & (whole - 1);
        if bucket < self.count {
            bucket
        } else {
            // Not split yet.
            bucket & (whole / 2).saturating_sub(1)
        }
    }

    fn head(&self, bucket: u64) -> u32 {
        let (block, place) = split(bucket);
        let head = self.blocks.get(block).and_then(|block| block.get(place));
        head.copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, bucket: u64, item: u32) {
        let (block, place) = split(bucket);
        let block = self.blocks.get_mut(block);
        if let Some(head) = block.and_then(|block| block.get_mut(place)) {
            *head = item;
        }
    }
}

fn split(bucket: u64) -> (usize, usize) {
    let index = |number| usize::try_from(number).unwrap_or(usize::MAX);
    (index(bucket / BLOCK), index(bucket % BLOCK))
}

/// No item.
pub(super) const NONE: u32 = u32::MAX;
const BLOCK: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Items whose hash is their number times an odd one.
    struct Items(Vec<u32>);

    impl Links for Items {
        fn hash(&self, item: u32) -> u64 {
            hash(item)
        }
        fn next(&self, item: u32) -> u32 {
            self.0[item as usize]
        }
        fn set_next(&mut self, item: u32, next: u32) {
            self.0[item as usize] = next;
        }
    }

    fn hash(item: u32) -> u64 {
        u64::from(item / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7
    }

    fn chain(buckets: &Buckets, items: &Items, hash: u64) -> Vec<u32> {
        let first = Some(buckets.first(hash)).filter(|item| *item != NONE);
        std::iter::successors(first, |item| {
            Some(items.next(*item)).filter(|item| *item != NONE)
        })
        .collect()
    }

    #[test]
    fn every_item_is_found_at_every_size_and_chains_stay_short() {
        let mut items = Items(vec![NONE; 30_000]);
        let mut buckets = Buckets::new();
        for item in (0..30_000).step_by(3) {
            buckets.add(item, &mut items);
        }
        assert_eq!(buckets.len(), 10_000);
        let lengths = (0..30_000).step_by(3).map(|item| {
            let chain = chain(&buckets, &items, hash(item));
            assert!(chain.contains(&item));
            chain.len()
        });
        assert!(lengths.sum::<usize>() < 30_000);
    }

    #[test]
    fn room_made_before_is_used() {
        let mut items = Items(vec![NONE; 30_000]);
        let mut buckets = Buckets::new();
        buckets.reserve(5000);
        for item in (0..30_000).step_by(3) {
            buckets.add(item, &mut items);
        }
        for item in (0..30_000).step_by(3) {
            assert!(chain(&buckets, &items, hash(item)).contains(&item));
        }
        assert_eq!(buckets.count, 10_000);
    }

    #[test]
    fn an_item_can_take_anothers_place() {
        let mut items = Items(vec![NONE; 3]);
        let mut buckets = Buckets::new();
        buckets.add(0, &mut items);
        buckets.add(1, &mut items);
        buckets.replace(0, 2, &mut items);
        assert_eq!(chain(&buckets, &items, hash(2)), [1, 2]);
        assert_eq!(buckets.len(), 2);
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_and_not_taken_out(
            steps in prop::collection::vec((any::<bool>(), 0u32..60), 0..200)
        ) {
            let mut items = Items(vec![NONE; 60]);
            let mut buckets = Buckets::new();
            let mut inside = BTreeSet::new();
            for (add, item) in steps {
                if add && inside.insert(item) {
                    buckets.add(item, &mut items);
                } else if !add && inside.remove(&item) {
                    buckets.remove(item, &mut items);
                }
                prop_assert_eq!(buckets.len(), inside.len());
                for item in 0..60 {
                    let found = chain(&buckets, &items, hash(item)).contains(&item);
                    prop_assert_eq!(found, inside.contains(&item));
                }
            }
        }
    }
}
