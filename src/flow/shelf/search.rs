//! Looks for what purges cover, behind the requests: removes it, and counts it.
//!
//! ```text
//! marks that wait ─► a round ─► entries whose signatures have its bits ─► heads: from memory or disk
//!                                 ─► gone, or counted ─► the marks of the round have done their work
//! ```
//!
//! A turn is short, and as much time is left between two, so that a purge keeps neither the disk from
//! requests nor the thread from making room.

use super::Shelf;
use super::upkeep::Eviction;
use crate::clock;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use crate::rules::tag::Names;
use crate::state::marks::Round;
use crate::store::StoreError;
use crate::store::head;
use std::time::Duration;
use std::time::Instant;

/// How far the search has come.
#[derive(Default)]
pub(super) struct Search {
    round: Option<Round>,
    from: u32,
    /// Some heads could not be read.
    missed: bool,
    /// Not before: a disk that could not be read will most likely not be at once.
    rest_until: Option<Instant>,
}

/// What becomes of the entries of one step.
#[derive(Default)]
struct Findings {
    /// With the purges that cover them.
    gone: Vec<(PrimaryKey, Sequence, Vec<Sequence>)>,
    /// Stale ones: only the purges that cover them.
    stale: Vec<Vec<Sequence>>,
}

impl Search {
    /// Goes on; says whether there is more to do at once.
    pub(super) fn tend(&mut self, shelf: &Shelf, now: Instant) -> bool {
        if self.rest_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.round.is_none() {
            shelf.tidy_marks();
            self.round = shelf.read_index().marks().round();
            (self.from, self.missed, self.rest_until) = (0, false, None);
        }
        let Some(round) = self.round.take() else {
            return false;
        };
        loop {
            if round.covers_everything() {
                shelf.sweep_some(self.from, PLACES);
            }
            let (suspects, next) = {
                let index = shelf.read_index();
                index.suspects(&round, self.from, PLACES, HEADS)
            };
            self.look(shelf, &round, &suspects);
            let Some(next) = next else {
                shelf.write_index().marks_mut().swept(&round, self.missed);
                self.rest_until = self.missed.then(|| now + MISSED_REST);
                return !self.missed;
            };
            self.from = next;
            if clock::instant().saturating_duration_since(now) >= TURN {
                break;
            }
        }
        self.round = Some(round);
        true
    }

    fn look(&mut self, shelf: &Shelf, round: &Round, suspects: &[Put]) {
        let mut findings = Findings::default();
        for put in suspects {
            let names = match shelf.names(put) {
                Ok(Some(names)) => names,
                Ok(None) => continue,
                Err(()) => {
                    self.missed = true;
                    continue;
                }
            };
            let (sequence, key) = (put.sequence, put.key);
            match round.covering(sequence, key, &names) {
                (purges, true) => findings.gone.push((key, sequence, purges)),
                (purges, false) => findings.stale.push(purges),
            }
        }
        shelf.settle_findings(&findings);
    }
}

impl Shelf {
    /// Forgets marks that have done their work, and what becomes of soft ones.
    fn tidy_marks(&self) {
        let gone = {
            let mut index = self.write_index();
            let gone = index.tidy_marks(clock::now());
            self.note_newest(&index);
            gone
        };
        self.forget_hot(&gone);
        for sequence in gone {
            self.store.record_remove(sequence);
        }
    }

    /// The names of an entry. `None` when it is gone; an error when they cannot be read now.
    fn names(&self, put: &Put) -> Result<Option<Names>, ()> {
        if let Some(hot) = self.memory.peek(put.sequence) {
            return Ok(Some(hot.response.names.clone()));
        }
        let mut place = put.clone();
        for _ in 0..LOOKS_MAX {
            let read = self.store.read(place.head).and_then(|bytes| {
                let location = place.head;
                head::decode(&bytes).ok_or(StoreError::Corrupt { location })
            });
            let error = match read {
                Ok((sequence, response)) if sequence == put.sequence => {
                    return Ok(Some(response.names));
                }
                // Its head was replaced where it lies, or it is damaged: whoever loads it finds out.
                Ok(_) => return Err(()),
                Err(error) => error,
            };
            match self.read_index().place(put.key, put.sequence) {
                None => return Ok(None),
                // It was moved to another pack meanwhile: look there.
                Some(moved) if moved.head != place.head => place = moved,
                Some(_) => {
                    tracing::debug!(%error, "a head could not be read to see what purges cover");
                    return Err(());
                }
            }
        }
        Err(())
    }

    fn settle_findings(&self, findings: &Findings) {
        if findings.gone.is_empty() && findings.stale.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        {
            let mut index = self.write_index();
            for (key, sequence, purges) in &findings.gone {
                // A lookup may have found out first, and counted it.
                if index.remove(*key, *sequence) {
                    gone.push(*sequence);
                    index.marks_mut().count(purges, 1);
                }
            }
            for purges in &findings.stale {
                index.marks_mut().count(purges, 1);
            }
        }
        self.forget_hot(&gone);
        self.upkeep.count_evicted(Eviction::Purged, gone.len());
        for sequence in gone {
            self.store.record_remove(sequence);
        }
    }
}

/// Places of the index that are looked at while it is locked.
const PLACES: u32 = 8192;
/// Heads that are read before the time is looked at.
const HEADS: usize = 64;
/// How long a turn takes: room must be made, too.
const TURN: Duration = Duration::from_millis(50);
/// How often an entry that is being moved is followed.
const LOOKS_MAX: usize = 4;
/// How long the search rests when a disk could not be read.
const MISSED_REST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::Stored;
    use super::super::tests::open;
    use super::super::tests::response;
    use super::*;
    use crate::rules::freshness::Timing;
    use crate::rules::invalidate::Selector;
    use crate::rules::stored::StoredResponse;
    use crate::rules::tag::TagKey;
    use crate::state::marks::Covered;
    use crate::state::marks::Verdict;
    use bytes::Bytes;
    use std::sync::Arc;
    use tempfile::TempDir;

    fn tag(text: &str) -> TagKey {
        TagKey::of_text(text.as_bytes()).unwrap()
    }

    /// Keeps a response called `a.test/NUMBER` that bears these tags, twenty of its sixty seconds old.
    async fn keep(shelf: &Arc<Shelf>, n: u8, tags: &[&str]) -> Stored {
        let body = Bytes::from(vec![n; 100]);
        let mut tags: Vec<TagKey> = tags.iter().map(|text| tag(text)).collect();
        tags.sort();
        let born = clock::now() - Duration::from_secs(20);
        let response = StoredResponse {
            timing: Timing {
                request_time: born,
                response_time: born,
                date_value: born,
                age_value: Duration::ZERO,
            },
            names: Names {
                site: TagKey::of_site("site"),
                url: format!("a.test/{n}").into(),
                tags,
            },
            ..response(PrimaryKey([n; 16]), &body)
        };
        let sequence = shelf.next_sequence();
        let kept = shelf.keep(sequence, Arc::new(response), body);
        kept.await.unwrap()
    }

    fn search(shelf: &Shelf) {
        let mut search = Search::default();
        while search.tend(shelf, clock::instant()) {}
    }

    fn covered(shelf: &Shelf, sequence: Sequence) -> Option<(u64, bool)> {
        let covered = shelf.read_index().marks().covered(sequence)?;
        let Covered {
            entries, complete, ..
        } = covered;
        Some((entries, complete))
    }

    #[tokio::test]
    async fn what_purges_cover_is_removed_and_counted_though_nobody_asks_for_it() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        for n in 0..20 {
            let words: &[&str] = if n % 4 == 0 { &["x", "y"] } else { &["y"] };
            keep(&shelf, n, words).await;
        }
        let by_tag = shelf.purge(&[Selector::Tag(None, tag("x"))]);
        let twice = Selector::prefix("a.test/1").unwrap();
        let by_both = shelf.purge(&[twice, Selector::Tag(None, tag("x"))]);
        let none = shelf.purge(&[Selector::prefix("b.test/").unwrap()]);
        assert_eq!(covered(&shelf, by_tag.sequence), Some((0, false)));
        search(&shelf);
        assert_eq!(covered(&shelf, by_tag.sequence), Some((5, true)));
        // 1, 10 to 19, and 0, 4 and 8.
        assert_eq!(covered(&shelf, by_both.sequence), Some((14, true)));
        assert_eq!(covered(&shelf, none.sequence), Some((0, true)));
        assert_eq!(shelf.entries(), 6);
        shelf.close();
        drop(shelf);
        assert_eq!(open(&dir).entries(), 6);
    }

    #[tokio::test]
    async fn what_a_lookup_finds_first_is_counted_once() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let first = keep(&shelf, 1, &["x"]).await;
        keep(&shelf, 2, &["x"]).await;
        let purge = shelf.purge(&[Selector::Tag(None, tag("x"))]);
        assert!(shelf.load(first.found).await.is_none());
        assert_eq!(covered(&shelf, purge.sequence), Some((1, false)));
        search(&shelf);
        assert_eq!(covered(&shelf, purge.sequence), Some((2, true)));
        assert_eq!(shelf.entries(), 0);
    }

    #[tokio::test]
    async fn what_is_purged_softly_is_counted_and_stays() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let kept = keep(&shelf, 1, &["x"]).await;
        let purge = shelf.purge_softly(Some(clock::now()), &[Selector::Tag(None, tag("x"))]);
        search(&shelf);
        assert_eq!(covered(&shelf, purge.sequence), Some((1, true)));
        let stale = shelf.load(kept.found).await.unwrap();
        assert!(shelf.contains(&stale));
        let verdict = shelf.verdict(kept.found.sequence, &stale.response);
        assert!(matches!(verdict, Verdict::Stale(_)));
        let lifetime = stale.response.lifetime;
        assert!((20..59).contains(&lifetime.as_secs()), "{lifetime:?}");
        let again = shelf.load(kept.found).await.unwrap();
        assert_eq!(again.response.lifetime, lifetime);
        let fresh = keep(&shelf, 1, &["x"]).await;
        let fresh = shelf.load(fresh.found).await.unwrap();
        assert_eq!(fresh.response.lifetime, Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_purge_of_everything_is_counted_to_its_end() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        for n in 0..9 {
            keep(&shelf, n, &[]).await;
        }
        let purge = shelf.purge(&[Selector::All]);
        keep(&shelf, 3, &[]).await;
        search(&shelf);
        assert_eq!(covered(&shelf, purge.sequence), Some((9, true)));
        assert_eq!(shelf.entries(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_looked_for_again_later() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        keep(&shelf, 1, &["x"]).await;
        shelf.store.flush().await.unwrap();
        let purge = shelf.purge(&[Selector::Tag(None, tag("x"))]);
        for (pack, _) in shelf.store.packs() {
            assert!(shelf.store.drop_pack(pack));
        }
        let mut search = Search::default();
        let now = clock::instant();
        while search.tend(&shelf, now) {}
        assert_eq!(covered(&shelf, purge.sequence), Some((0, false)));
        assert!(shelf.read_index().marks().round().is_some());
        assert!(!search.tend(&shelf, now), "it rests");
    }
}
