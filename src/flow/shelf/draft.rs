//! A large body on its way to disk.

use super::NotKept;
use super::Shelf;
use super::Stored;
use super::keep::put_of;
use super::patience::Patience;
use super::pins::Pins;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::Parts;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use crate::rules::stored::StoredResponse;
use crate::state::index::Found;
use crate::store::NewPiece;
use crate::store::StoreError;
use crate::store::head;
use crate::store::memory::Hot;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// A large body on its way to disk, segment by segment.
#[derive(Debug)]
pub struct Draft {
    shelf: Arc<Shelf>,
    sequence: Sequence,
    key: PrimaryKey,
    /// `None`: too many lanes are open, it shares the common one.
    lane: Option<crate::store::Lane>,
    hasher: Box<blake3::Hasher>,
    segments: Vec<Segment>,
    bytes: u64,
    pins: Pins,
}

impl Shelf {
    /// Starts a large body.
    pub fn draft(self: &Arc<Self>, sequence: Sequence, key: PrimaryKey) -> Draft {
        let has_lane = self
            .lanes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lanes| {
                (lanes < self.lanes_max).then_some(lanes + 1)
            })
            .is_ok();
        let lane = if has_lane {
            self.store.lane().ok()
        } else {
            None
        };
        if has_lane && lane.is_none() {
            self.lanes.fetch_sub(1, Ordering::Relaxed);
        }
        Draft {
            shelf: Arc::clone(self),
            sequence,
            key,
            lane,
            hasher: Box::new(blake3::Hasher::new()),
            segments: Vec::new(),
            bytes: 0,
            pins: Pins::none(self),
        }
    }
}

impl Draft {
    /// Writes the next segment. Waits while there is no room, within bounds; dropped half-way, the
    /// segment was either written or not and the draft must be given up.
    pub async fn segment(&mut self, bytes: Bytes) -> Result<Segment, NotKept> {
        let length = self.bytes + bytes.len() as u64;
        if length > self.shelf.body_bytes_max() {
            return Err(NotKept::BodyTooLarge);
        }
        let digest = Digest::of(&bytes);
        let piece = [NewPiece::Segment(digest, bytes.clone())];
        let mut patience = Patience::for_part();
        loop {
            match self.append(&piece) {
                Err(StoreError::NoRoom) if patience.wait(&self.shelf).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(location) => {
                    self.hasher.update(&bytes);
                    self.bytes = length;
                    let segment = Segment { digest, location };
                    self.segments.push(segment);
                    return Ok(segment);
                }
            }
        }
    }

    /// Writes the head and takes the response in.
    pub async fn finish(&mut self, mut response: StoredResponse) -> Result<Stored, NotKept> {
        response.detach();
        response.body = Digest(*self.hasher.finalize().as_bytes());
        response.body_bytes = self.bytes;
        let pieces = [NewPiece::Head(head::encode(self.sequence, &response))];
        let mut patience = Patience::for_part();
        let head = loop {
            match self.append(&pieces) {
                Err(StoreError::NoRoom) if patience.wait(&self.shelf).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(location) => break location,
            }
        };
        let segments = std::mem::take(&mut self.segments);
        self.end_lane();
        let parts = Parts::of(response.body, segments);
        let put = put_of(self.sequence, &response, head, parts);
        let put = self.shelf.insert(put, &response.names)?;
        let hot = Hot::new(Arc::new(response), None);
        self.shelf.memory.insert(self.sequence, hot.clone());
        let found = Found {
            sequence: put.sequence,
            key: put.key,
            variant: put.variant,
        };
        self.shelf.stored(found, hot).ok_or(NotKept::Purged)
    }

    /// Ends the draft, finished or not; what it wrote can be read for as long as the pins are held.
    pub fn into_pins(mut self) -> Pins {
        self.end_lane();
        std::mem::replace(&mut self.pins, Pins::none(&self.shelf))
    }

    fn append(&mut self, pieces: &[NewPiece]) -> Result<Location, StoreError> {
        let _gate = self
            .shelf
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let places =
            self.shelf
                .store
                .append(self.lane.as_mut(), self.sequence, self.key, pieces)?;
        let location = *places.first().ok_or(StoreError::NoRoom)?;
        self.pins.add(location.pack);
        Ok(location)
    }

    fn end_lane(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.shelf.store.finish(lane);
            self.shelf.lanes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.end_lane();
    }
}
