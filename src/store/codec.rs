//! Reads and writes the numbers and runs of bytes that heads, packs and the journal are made of.
//!
//! Little-endian, without padding. Reading never panics: what is not there is `None`, and the
//! caller says what that means.

/// What remains to be read of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes the next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// Takes one byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Takes a number of two bytes.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a number of four bytes.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a number of eight bytes.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a signed number of eight bytes.
    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Takes a number of sixteen bytes.
    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Takes a run that its length of four bytes precedes.
    pub(super) fn run(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(usize::try_from(count).ok()?)
    }

    /// Takes what `read` takes off the front of what remains.
    pub(super) fn read<T>(&mut self, read: impl FnOnce(&mut &'a [u8]) -> Option<T>) -> Option<T> {
        read(&mut self.rest)
    }

    /// How many bytes remain.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Nothing remains.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Writes a run preceded by its length in four bytes. Runs here are header fields and the like,
/// far below 4 GiB; a longer one is cut, and its checksum still holds.
pub(super) fn put_run(out: &mut Vec<u8>, run: &[u8]) {
    let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(
        run.iter()
            .take(usize::try_from(count).unwrap_or(usize::MAX)),
    );
}

/// The length of something that was made to stay below 4 GiB.
pub(super) fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
