//! What purges came to: the latest of them, for whoever asks later.
//!
//! ```text
//! obey ─► purge ─► receipt ─► ledger ─► told again, with what was counted and refreshed meanwhile
//!           └─ by URL, if wanted ─► refresh
//! ```
//!
//! Kept in memory and bounded: a purge holds whether or not it is still told of.

use super::Engine;
use super::Manner;
use super::Purge;
use super::PurgeError;
use super::Receipt;
use super::What;
use super::refresh::Progress;
use super::shelf::lock;
use crate::rules::address::Sequence;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

/// A purge as it is told of.
#[derive(Clone, Debug)]
pub struct Told {
    /// What came of it.
    pub receipt: Receipt,
    /// How many items of which kind it named, in the order of the first of each.
    pub kinds: Vec<(&'static str, usize)>,
    /// What becomes of what it covers.
    pub manner: Manner,
    /// The site on whose front it was asked for; none: operators asked.
    pub front: Option<String>,
    /// How far what it covers has been fetched anew, if that was wanted.
    pub refresh: Option<Arc<Progress>>,
    /// How far what it covers has been counted.
    pub count: Count,
}

/// How far the entries that a purge covered have been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// All of them.
    Complete,
    /// Some could not be looked at: there may be more.
    Partial,
    /// They are looked for: there may be more.
    Underway,
}

/// The latest purges.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<VecDeque<Told>>);

/// What the receipt of a purge goes by.
pub fn receipt_id(sequence: Sequence) -> String {
    format!("p-{}", sequence.0)
}

impl Receipt {
    /// What it goes by.
    pub fn id(&self) -> String {
        receipt_id(self.sequence)
    }

    /// Reads what a receipt goes by.
    pub fn sequence_of(id: &str) -> Option<Sequence> {
        let digits = id.strip_prefix("p-")?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain).map(Sequence)
    }
}

impl Engine {
    /// Purges, fetches up to `refresh` of the URLs that it names anew, and keeps the receipt. `front`
    /// is the site on whose front it was asked for. Dropped half-way, it may hold and be told of
    /// nowhere.
    pub async fn obey(
        &self,
        purge: Purge,
        refresh: usize,
        front: Option<&str>,
    ) -> Result<Told, PurgeError> {
        let (kinds, manner) = (kinds(&purge), purge.manner);
        let urls = match refresh {
            0 => Vec::new(),
            _ => urls(&purge, refresh),
        };
        let receipt = self.purge(purge).await?;
        let sequence = receipt.sequence.0;
        tracing::info!(?kinds, ?manner, sequence, front, "purged");
        let told = Told {
            count: match receipt.entries {
                Some(_) => Count::Complete,
                None => Count::Underway,
            },
            receipt,
            kinds,
            manner,
            front: front.map(str::to_owned),
            refresh: (refresh > 0).then(|| self.refresh_soon(urls)),
        };
        self.ledger.note(told.clone());
        Ok(told)
    }

    /// The latest purges, the newest first.
    pub fn purges(&self, limit: usize) -> Vec<Told> {
        let mut latest = self.ledger.latest(limit);
        latest.iter_mut().for_each(|told| self.count(told));
        latest
    }

    /// One of the latest purges.
    pub fn purge_told(&self, sequence: Sequence) -> Option<Told> {
        let mut told = self.ledger.find(sequence)?;
        self.count(&mut told);
        Some(told)
    }

    /// Adds what has been counted meanwhile.
    fn count(&self, told: &mut Told) {
        if told.count != Count::Underway {
            return;
        }
        match self.covered(told.receipt.sequence) {
            Some(covered) => {
                told.receipt.entries = Some(covered.entries);
                told.count = match (covered.complete, covered.given_up) {
                    (true, _) => Count::Complete,
                    (false, true) => Count::Partial,
                    (false, false) => Count::Underway,
                };
            }
            // Nobody knows any more.
            None => told.count = Count::Partial,
        }
        self.ledger.counted(told);
    }

    /// Is this the name of a site?
    pub fn has_site(&self, name: &str) -> bool {
        let setup = self.setup.load();
        setup.params.sites.iter().any(|site| site.name == name)
    }
}

impl Ledger {
    fn note(&self, told: Told) {
        let mut all = lock(&self.0);
        // Two that come at once may be noted the other way round.
        let later = all.iter().rev();
        let later = later.take_while(|other| other.receipt.sequence > told.receipt.sequence);
        let at = all.len().saturating_sub(later.count());
        all.insert(at, told);
        if all.len() > TOLD_MAX {
            all.pop_front();
        }
    }

    /// Keeps what has been counted.
    fn counted(&self, told: &Told) {
        let mut all = lock(&self.0);
        let at = all.binary_search_by_key(&told.receipt.sequence, |told| told.receipt.sequence);
        if let Some(kept) = at.ok().and_then(|at| all.get_mut(at)) {
            kept.receipt.entries = told.receipt.entries;
            kept.count = told.count;
        }
    }

    fn latest(&self, limit: usize) -> Vec<Told> {
        lock(&self.0).iter().rev().take(limit).cloned().collect()
    }

    fn find(&self, sequence: Sequence) -> Option<Told> {
        let all = lock(&self.0);
        let at = all.binary_search_by_key(&sequence, |told| told.receipt.sequence);
        all.get(at.ok()?).cloned()
    }
}

/// How many items of each kind there are.
fn kinds(purge: &Purge) -> Vec<(&'static str, usize)> {
    let mut kinds: Vec<(&'static str, usize)> = Vec::new();
    for what in &purge.what {
        let kind = match what {
            What::All => "all",
            What::Host(_) => "host",
            What::Prefix(_) => "prefix",
            What::Regex { .. } => "regex",
            What::Site(_) => "site",
            What::Tag { .. } => "tag",
            What::Url(_) => "url",
        };
        match kinds.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => kinds.push((kind, 1)),
        }
    }
    kinds
}

/// The first URLs that are named.
fn urls(purge: &Purge, limit: usize) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    let named = purge.what.iter().filter_map(|what| match what {
        What::Url(url) => Some(url),
        What::All
        | What::Host(_)
        | What::Prefix(_)
        | What::Regex { .. }
        | What::Site(_)
        | What::Tag { .. } => None,
    });
    for url in named {
        // Both are bounded by the items of one purge.
        if urls.len() < limit && !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    urls
}

/// How many purges are told of.
pub const TOLD_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn told(sequence: u64) -> Told {
        Told {
            receipt: Receipt {
                sequence: Sequence(sequence),
                at: SystemTime::UNIX_EPOCH,
                entries: None,
                durable: true,
            },
            kinds: vec![("all", 1)],
            manner: Manner::Hard,
            front: None,
            refresh: None,
            count: Count::Underway,
        }
    }

    fn sequences(ledger: &Ledger, limit: usize) -> Vec<u64> {
        let latest = ledger.latest(limit).into_iter();
        latest.map(|told| told.receipt.sequence.0).collect()
    }

    #[test]
    fn the_newest_purges_are_told_first() {
        let ledger = Ledger::default();
        for sequence in [1, 3, 2, 9] {
            ledger.note(told(sequence));
        }
        assert_eq!(sequences(&ledger, 3), [9, 3, 2]);
        assert!(ledger.find(Sequence(3)).is_some());
        assert!(ledger.find(Sequence(4)).is_none());
    }

    #[test]
    fn what_was_counted_is_kept() {
        let ledger = Ledger::default();
        ledger.note(told(1));
        let mut counted = told(1);
        (counted.receipt.entries, counted.count) = (Some(7), Count::Complete);
        ledger.counted(&counted);
        ledger.counted(&told(2));
        let kept = ledger.find(Sequence(1)).unwrap();
        assert_eq!(
            (kept.receipt.entries, kept.count),
            (Some(7), Count::Complete)
        );
    }

    #[test]
    fn the_oldest_purge_makes_room() {
        let ledger = Ledger::default();
        let most = TOLD_MAX as u64;
        for sequence in 0..=most {
            ledger.note(told(sequence));
        }
        assert_eq!(sequences(&ledger, usize::MAX).len(), TOLD_MAX);
        assert!(ledger.find(Sequence(0)).is_none());
        assert!(ledger.find(Sequence(most)).is_some());
    }

    #[test]
    fn a_receipt_goes_by_its_sequence() {
        let id = told(7).receipt.id();
        assert_eq!(Receipt::sequence_of(&id), Some(Sequence(7)));
        for other in ["", "7", "p-", "p-+7", "p-x", "p-99999999999999999999"] {
            assert_eq!(Receipt::sequence_of(other), None, "{other}");
        }
    }

    #[test]
    fn kinds_are_counted_and_urls_are_taken_once() {
        let url = |text: &str| What::Url(text.to_owned());
        let purge = Purge {
            what: vec![url("a"), What::All, url("b"), url("a"), url("c")],
            manner: Manner::Hard,
        };
        assert_eq!(kinds(&purge), [("url", 4), ("all", 1)]);
        assert_eq!(urls(&purge, 2), ["a", "b"]);
        assert_eq!(urls(&purge, 9), ["a", "b", "c"]);
    }
}
