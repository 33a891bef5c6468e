//! Numbered places for values of one size, in blocks, so that growing never copies or doubles.

/// Values under small numbers that are reused once a value is removed.
#[derive(Debug)]
pub(super) struct Slab<T> {
    blocks: Vec<Box<[Option<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One more than the largest number that can be in use.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.blocks.len() * BLOCK).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let (block, place) = split(id);
        self.blocks.get(block)?.get(place)?.as_ref()
    }

    /// All values, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let blocks = self.blocks.iter().flat_map(|block| block.iter());
        (0..)
            .zip(blocks)
            .filter_map(|(id, value)| Some((id, value.as_ref()?)))
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (block, place) = split(id);
        self.blocks.get_mut(block)?.get_mut(place)?.as_mut()
    }

    /// Stores `value` and returns its number; gives the value back when all numbers are in use.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        if self.free.is_empty() {
            let first = self.end();
            let Some(end) = first.checked_add(BLOCK_IDS) else {
                return Err(value);
            };
            self.blocks.push((0..BLOCK).map(|_| None).collect());
            self.free.extend((first..end).rev());
        }
        let Some(id) = self.free.pop() else {
            return Err(value);
        };
        let (block, place) = split(id);
        if let Some(slot) = self
            .blocks
            .get_mut(block)
            .and_then(|block| block.get_mut(place))
        {
            *slot = Some(value);
            self.len += 1;
        }
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let (block, place) = split(id);
        let value = self.blocks.get_mut(block)?.get_mut(place)?.take()?;
        self.free.push(id);
        self.len -= 1;
        Some(value)
    }
}

fn split(id: u32) -> (usize, usize) {
    let id = id as usize;
    (id / BLOCK, id % BLOCK)
}

/// Small in tests: they look at every place, often, and grow it.
const BLOCK_IDS: u32 = if cfg!(test) { 32 } else { 4096 };
const BLOCK: usize = BLOCK_IDS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_number_is_used_again() {
        let mut slab = Slab::new();
        let first = slab.insert('a').unwrap();
        slab.insert('b').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.insert('c'), Ok(first));
        assert_eq!(slab.len(), 2);
    }

    #[test]
    fn growing_keeps_the_numbers() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..10_000).map(|n| slab.insert(n).unwrap()).collect();
        for (n, id) in ids.into_iter().enumerate() {
            assert_eq!(slab.get(id), Some(&n));
        }
    }
}
