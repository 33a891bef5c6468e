//! Responses on their way in: appended, indexed, journaled, in that order.

use super::NotKept;
use super::Shelf;
use super::Stored;
use super::StoredBody;
use super::patience::Patience;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::stored::StoredResponse;
use crate::rules::tag::Names;
use crate::state::index::Found;
use crate::state::marks::Verdict;
use crate::store::NewPiece;
use crate::store::StoreError;
use crate::store::head;
use crate::store::memory::Hot;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

impl Shelf {
    /// Keeps a response whose whole body is in memory and at most one segment long.
    /// Dropped half-way, it has either been kept or not.
    pub async fn keep(
        self: &Arc<Self>,
        sequence: Sequence,
        response: Arc<StoredResponse>,
        body: Bytes,
    ) -> Result<Stored, NotKept> {
        let mut patience = Patience::for_whole();
        loop {
            match self.try_keep(sequence, &response, Some(&body)) {
                Err(StoreError::NoRoom) if patience.wait(self).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(put) => {
                    let put = put?;
                    let hot = Hot::new(Arc::clone(&response), Some(body.clone()));
                    self.memory.insert(sequence, hot);
                    return Ok(Stored {
                        found: Found {
                            sequence,
                            key: put.key,
                            variant: put.variant,
                        },
                        response,
                        body: StoredBody::Memory(body),
                        soft: false,
                    });
                }
            }
        }
    }

    /// Keeps a new head for a body that is stored already, as after a 304. The sequence is that of
    /// the request it answers: a purge since then covers it.
    pub async fn keep_head(
        self: &Arc<Self>,
        sequence: Sequence,
        old: &Stored,
        response: Arc<StoredResponse>,
    ) -> Result<Stored, NotKept> {
        if let StoredBody::Memory(body) = &old.body {
            return self.keep(sequence, response, body.clone()).await;
        }
        let mut patience = Patience::for_whole();
        loop {
            match self.try_keep(sequence, &response, None) {
                Err(StoreError::NoRoom) if patience.wait(self).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(put) => {
                    let put = put?;
                    let found = Found {
                        sequence,
                        key: put.key,
                        variant: put.variant,
                    };
                    let hot = Hot::new(response, None);
                    self.memory.insert(sequence, hot.clone());
                    return self.stored(found, hot).ok_or(NotKept::Purged);
                }
            }
        }
    }

    /// Appends a head, and the body unless it is stored already, and takes the response in.
    fn try_keep(
        &self,
        sequence: Sequence,
        response: &StoredResponse,
        body: Option<&Bytes>,
    ) -> Result<Result<Put, NotKept>, StoreError> {
        let mut pieces = Vec::with_capacity(2);
        pieces.push(NewPiece::Head(head::encode(sequence, response)));
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let known = self.read_index().body(response.body.name());
        match (&known, body) {
            // Another body of the same name: what would be read is not what the head says.
            (Some(parts), body) if !may_be(parts, response, body) => {
                return Ok(Err(NotKept::StoreFailed));
            }
            (None, Some(body)) if !body.is_empty() => {
                pieces.push(NewPiece::Segment(response.body, body.clone()));
            }
            (None, None) => return Ok(Err(NotKept::Purged)),
            (Some(_), _) | (None, Some(_)) => {}
        }
        let places = self.store.append(None, sequence, response.key, &pieces)?;
        let (head, parts) = match (places.as_slice(), known) {
            ([head], Some(known)) => (head, known),
            ([head], None) => (head, Parts::None),
            ([head, body], _) => (head, Parts::One(*body)),
            _ => return Err(StoreError::NoRoom),
        };
        let put = put_of(sequence, response, *head, parts);
        Ok(self.insert(put, &response.names))
    }

    pub(super) fn insert(&self, put: Put, names: &Names) -> Result<Put, NotKept> {
        let (gone, put) = {
            let mut index = self.write_index();
            // What a soft mark covers is kept: it is stale when it is loaded.
            if index.verdict(put.sequence, put.key, names) == Verdict::Gone {
                return Err(NotKept::Purged);
            }
            let gone = index.insert(&put).map_err(NotKept::from)?;
            // Another response may have brought the same body: then its place counts.
            let put = index.place(put.key, put.sequence).unwrap_or(put);
            (gone, put)
        };
        self.forget_hot(&gone);
        for sequence in gone {
            // Else it would be back after a start that no longer finds what replaced it.
            self.store.record_remove(sequence);
        }
        if self.journal(put.clone()) {
            Ok(put)
        } else {
            Err(NotKept::StoreFailed)
        }
    }
}

pub(super) fn put_of(
    sequence: Sequence,
    response: &StoredResponse,
    head: Location,
    parts: Parts,
) -> Put {
    let useful = response.lifetime
        + response
            .stale
            .while_revalidate
            .max(response.stale.if_error)
            .max(if response.validators.is_some() {
                VALIDATABLE
            } else {
                Duration::ZERO
            });
    let born = response
        .timing
        .response_time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Put {
        sequence,
        key: response.key,
        variant: response.variant,
        signature: response.names.signature(),
        vary: response.vary.clone(),
        head,
        body: response.body.name(),
        parts,
        useless_at: born.saturating_add(useful).as_secs(),
    }
}

/// May what lies in these parts be the body of the response? One segment is checked against the
/// response's digest when it is read; several only each against its own, so they are looked at now.
fn may_be(parts: &Parts, response: &StoredResponse, body: Option<&Bytes>) -> bool {
    let bytes: u64 = parts.locations().map(|at| u64::from(at.bytes)).sum();
    let (Parts::Many(segments), Some(body)) = (parts, body) else {
        return bytes == response.body_bytes;
    };
    let mut rest = body.as_ref();
    segments.iter().all(|segment| {
        let Some((part, after)) = rest.split_at_checked(segment.location.bytes as usize) else {
            return false;
        };
        rest = after;
        Digest::of(part) == segment.digest
    }) && rest.is_empty()
}

/// How long past its freshness a response with a validator is worth its room.
const VALIDATABLE: Duration = Duration::from_secs(30 * 24 * 3600);
