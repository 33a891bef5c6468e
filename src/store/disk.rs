//! Opens the store, replays the journal, and runs the thread that writes.

use super::Condition;
use super::Keeper;
use super::Lane;
use super::NewPiece;
use super::Params;
use super::Piece;
use super::Put;
use super::Record;
use super::StoreError;
use super::Usage;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use std::sync::Arc;

/// The store of one directory, locked for this process. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens (or makes) the store, takes its lock, cuts a torn journal tail, sweeps temporary
    /// files, drops contents no record names, and hands every surviving record to `each` in order.
    /// Records whose pack is missing or short are left out.
    pub fn open(_params: &Params, _each: &mut dyn FnMut(Record)) -> Result<Self, StoreError> {
        todo!()
    }

    /// Starts the writing thread. Until then appends stay in memory.
    pub fn start(&self, _keeper: Arc<dyn Keeper>) {
        todo!()
    }

    /// A lane of its own for a large body; fails with `NoRoom` like [`append`](Self::append).
    pub fn lane(&self) -> Result<Lane, StoreError> {
        todo!()
    }

    /// Appends pieces to the lane's open pack (`None`: the shared lane), all to the same pack, and
    /// returns their places at once; the write to disk comes later. Never waits for the disk: when
    /// too many sealed packs wait to be written it fails with `NoRoom`.
    pub fn append(
        &self,
        _lane: Option<&mut Lane>,
        _sequence: Sequence,
        _key: PrimaryKey,
        _pieces: &[NewPiece],
    ) -> Result<Vec<Location>, StoreError> {
        todo!()
    }

    /// Ends a lane: its open pack is written now.
    pub fn finish(&self, _lane: Lane) {
        todo!()
    }

    /// Journals `put` once every pack it names is on disk and if its entry is still wanted then.
    pub fn record_put(&self, _put: Put) {
        todo!()
    }

    /// Journals a removal, soon.
    pub fn record_remove(&self, _sequence: Sequence) {
        todo!()
    }

    /// Journals a purge and returns when the record is written (not before).
    pub async fn record_purge(
        &self,
        _sequence: Sequence,
        _selector: Selector,
    ) -> Result<(), StoreError> {
        todo!()
    }

    /// Writes the open packs now and returns when they and their records are written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Reads bytes back, from the open pack or from disk; not checked: callers know the digest.
    /// Blocking: call it off the request's thread unless the pack is open.
    pub fn read(&self, _location: Location) -> Result<Bytes, StoreError> {
        todo!()
    }

    /// Reads bytes back without blocking, when they are still in memory.
    pub fn read_open(&self, _location: Location) -> Option<Bytes> {
        todo!()
    }

    /// Reads the table at the end of a sealed pack. Blocking.
    pub fn pieces(&self, _pack: PackId) -> Result<Vec<Piece>, StoreError> {
        todo!()
    }

    /// Deletes a pack's file. Readers that hold it open finish. Blocking.
    pub fn drop_pack(&self, _pack: PackId) {
        todo!()
    }

    /// Starts a new journal and writes a snapshot: `next` hands out the live puts, some at a time,
    /// until it returns an empty vector. Blocking; run it on a thread of its own.
    pub fn snapshot(&self, _next: &mut dyn FnMut() -> Vec<Put>) -> Result<(), StoreError> {
        todo!()
    }

    /// Is the journal long enough for a snapshot to pay?
    pub fn wants_snapshot(&self) -> bool {
        todo!()
    }

    /// Counts a failed check, for metrics.
    pub fn count_corrupt(&self) {
        todo!()
    }

    /// The condition of the disk.
    pub fn condition(&self) -> Condition {
        todo!()
    }

    /// Sizes and counts.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Sealed packs and their allocated bytes.
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        todo!()
    }

    /// Writes what is pending and stops the thread.
    pub fn close(&self) {
        todo!()
    }
}
