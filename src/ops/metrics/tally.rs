//! Requests, counted by site and outcome on the thread that served them.
//!
//! ```text
//! thread ─► its shard ─┬─ site ─► outcome ─► requests, bytes, requests by detail
//!                      └─ outcome ─► how long
//! read: the shards of all threads, added up
//! ```
//!
//! What is counted for every request is a handful of relaxed additions to memory that no other
//! thread writes, as long as there are as many shards as threads. No lock is taken, but to begin a
//! site. Sites, outcomes and details are from fixed vocabularies, so nothing a client sends becomes
//! a label.

use crate::flow::Report;
use crate::flow::meter::Histogram;
use crate::flow::meter::Reading;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use crate::rules::request::Refusal;
use crate::rules::reuse::NotReusable;
use crate::rules::storable::NotStorable;
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// Counts requests.
#[derive(Debug)]
pub(super) struct Tally {
    shards: Box<[Shard]>,
    sites: ArcSwap<HashMap<Arc<str>, Arc<Site>>>,
    /// Held while a site is begun.
    beginning: Mutex<()>,
    sites_max: usize,
}

/// What one thread counts whatever the site. Apart from others' in memory, so that no two threads
/// write the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    took: [Histogram; HANDLED],
    head_after: [Histogram; HANDLED],
    stored: AtomicU64,
    collapsed: AtomicU64,
    incomplete: AtomicU64,
}

/// What is counted of one site.
#[derive(Debug)]
struct Site(Box<[SiteShard]>);

/// What one thread counts of one site.
#[derive(Debug, Default)]
#[repr(align(128))]
struct SiteShard {
    rows: [Row; HANDLED],
    statuses: [AtomicU64; CLASSES],
}

/// One outcome at one site.
#[derive(Debug, Default)]
struct Row {
    /// Without a detail.
    plain: AtomicU64,
    bytes: AtomicU64,
    /// By detail, in the order of [`DETAILS`].
    details: OnceLock<Box<[AtomicU64]>>,
}

/// What was counted, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// By site.
    pub(super) sites: BTreeMap<Arc<str>, SiteTotals>,
    /// From arrival to the last byte, by outcome.
    pub(super) took: [Reading; HANDLED],
    /// From arrival to the head, by outcome.
    pub(super) head_after: [Reading; HANDLED],
    /// Responses that were stored.
    pub(super) stored: u64,
    /// Requests that shared another's trip.
    pub(super) collapsed: u64,
    /// Responses whose body was not sent whole.
    pub(super) incomplete: u64,
}

/// What was counted of one site, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SiteTotals {
    /// Requests by outcome and detail; without one it is empty.
    pub(super) requests: BTreeMap<(Handled, &'static str), u64>,
    /// Body bytes by outcome.
    pub(super) bytes: BTreeMap<Handled, u64>,
    /// Responses by the first digit of their status, from 1 on.
    pub(super) statuses: [u64; CLASSES],
}

/// How the cache handled a request, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Handled {
    /// From the store, fresh.
    Hit,
    /// From the store, stale.
    HitStale,
    /// Forwarded: the cache was configured not to handle it.
    Bypass,
    /// Forwarded: the method required it.
    Method,
    /// Forwarded: nothing stored for the target or these fields.
    Miss,
    /// Forwarded: only a part of it stored.
    Partial,
    /// Forwarded: the request's directives required it.
    Request,
    /// Forwarded: stored, but stale.
    Stale,
    /// Forwarded: nothing stored for the target.
    UriMiss,
    /// Forwarded: nothing stored for these fields.
    VaryMiss,
    /// Answered by ourselves.
    Own,
}

impl Tally {
    /// Counts with so many shards, at least one, and of at most so many sites by name; what there is
    /// of more of them is counted together.
    pub(super) fn new(shards: usize, sites_max: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
            sites: ArcSwap::default(),
            beginning: Mutex::new(()),
            sites_max,
        }
    }

    /// Counts one request.
    pub(super) fn count(&self, report: &Report) {
        let shard = place() % self.shards.len();
        let handled = Handled::of(&report.outcome);
        if let Some(shard) = self.shards.get(shard) {
            shard.count(report, handled);
        }
        let name = report.site.as_deref().unwrap_or(NO_SITE);
        match self.sites.load().get(name) {
            Some(site) => site.count(shard, report, handled),
            None => self.begin(name).count(shard, report, handled),
        }
    }

    /// Begins to count of a site, unless another thread has by now.
    fn begin(&self, name: &str) -> Arc<Site> {
        let _beginning = self
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sites = self.sites.load_full();
        let name = match sites.len() < self.sites_max || name == NO_SITE {
            true => name,
            false => OTHER_SITES,
        };
        if let Some(site) = sites.get(name) {
            return Arc::clone(site);
        }
        let shards = self.shards.iter().map(|_| SiteShard::default());
        let site = Arc::new(Site(shards.collect()));
        let mut more = HashMap::clone(&sites);
        more.insert(Arc::from(name), Arc::clone(&site));
        self.sites.store(Arc::new(more));
        site
    }

    /// Adds up what was counted so far.
    pub(super) fn read(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            for (sum, histogram) in totals.took.iter_mut().zip(&shard.took) {
                sum.add(&histogram.read());
            }
            for (sum, histogram) in totals.head_after.iter_mut().zip(&shard.head_after) {
                sum.add(&histogram.read());
            }
            totals.stored += read(&shard.stored);
            totals.collapsed += read(&shard.collapsed);
            totals.incomplete += read(&shard.incomplete);
        }
        let sites = self.sites.load();
        let sites = sites
            .iter()
            .map(|(name, site)| (Arc::clone(name), site.read()));
        totals.sites = sites.collect();
        totals
    }
}

impl Default for Tally {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self::new(threads.min(SHARDS_MAX), SITES_MAX)
    }
}

impl Shard {
    fn count(&self, report: &Report, handled: Handled) {
        if let Some(took) = self.took.get(handled as usize) {
            took.record(report.took);
        }
        if let Some(head_after) = self.head_after.get(handled as usize) {
            head_after.record(report.head_after);
        }
        for (happened, count) in [
            (report.outcome.stored, &self.stored),
            (report.outcome.collapsed, &self.collapsed),
            (!report.complete, &self.incomplete),
        ] {
            if happened {
                add(count, 1);
            }
        }
    }
}

impl Site {
    fn count(&self, shard: usize, report: &Report, handled: Handled) {
        let Some(shard) = self.0.get(shard) else {
            return;
        };
        let class = usize::from(report.status.as_u16() / 100);
        if let Some(statuses) = shard.statuses.get(class.saturating_sub(1)) {
            add(statuses, 1);
        }
        let Some(row) = shard.rows.get(handled as usize) else {
            return;
        };
        add(&row.bytes, report.body_bytes);
        let Some(detail) = report.outcome.detail else {
            return add(&row.plain, 1);
        };
        let details = row
            .details
            .get_or_init(|| DETAILS.words.iter().map(|_| AtomicU64::new(0)).collect());
        let place = DETAILS.places.get(&detail).copied().unwrap_or_default();
        if let Some(count) = details.get(place) {
            add(count, 1);
        }
    }

    fn read(&self) -> SiteTotals {
        let mut totals = SiteTotals::default();
        for shard in &self.0 {
            for (sum, count) in totals.statuses.iter_mut().zip(&shard.statuses) {
                *sum += read(count);
            }
            for (handled, row) in Handled::ALL.iter().zip(&shard.rows) {
                row.read(*handled, &mut totals);
            }
        }
        totals
    }
}

impl Row {
    /// Adds what was counted to `totals`, where there is anything.
    fn read(&self, handled: Handled, totals: &mut SiteTotals) {
        let details = self.details.get().map(|details| &**details);
        let details = DETAILS.words.iter().zip(details.unwrap_or_default());
        let counts = details.map(|(word, count)| (*word, read(count)));
        for (word, count) in counts.chain([("", read(&self.plain))]) {
            if count > 0 {
                *totals.requests.entry((handled, word)).or_default() += count;
            }
        }
        let bytes = read(&self.bytes);
        if bytes > 0 {
            *totals.bytes.entry(handled).or_default() += bytes;
        }
    }
}

impl Totals {
    /// All requests, by outcome.
    pub(super) fn requests(&self, wanted: impl Fn(Handled) -> bool) -> u64 {
        let requests = self.sites.values().flat_map(|site| &site.requests);
        let requests = requests.filter(|((handled, _), _)| wanted(*handled));
        requests.map(|(_, count)| count).sum()
    }

    /// All body bytes.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.sites.values().flat_map(|site| site.bytes.values());
        bytes.sum()
    }

    /// All responses whose status begins with this digit.
    pub(super) fn statuses(&self, digit: usize) -> u64 {
        let sites = self.sites.values();
        let statuses = sites.filter_map(|site| site.statuses.get(digit.checked_sub(1)?));
        statuses.sum()
    }

    /// Microseconds that all requests took.
    pub(super) fn took_us(&self) -> u64 {
        let nanos: u64 = self.took.iter().map(|reading| reading.nanos).sum();
        nanos / 1000
    }
}

impl Handled {
    /// Every one, in the order of their numbers.
    pub(super) const ALL: [Self; HANDLED] = [
        Self::Hit,
        Self::HitStale,
        Self::Bypass,
        Self::Method,
        Self::Miss,
        Self::Partial,
        Self::Request,
        Self::Stale,
        Self::UriMiss,
        Self::VaryMiss,
        Self::Own,
    ];

    fn of(outcome: &Outcome) -> Self {
        if outcome.hit {
            return match outcome.ttl.is_some_and(|ttl| ttl < 0) {
                true => Self::HitStale,
                false => Self::Hit,
            };
        }
        outcome.fwd.map_or(Self::Own, Self::from)
    }

    /// The word that names it in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitStale => "hit-stale",
            Self::Bypass => Forward::Bypass.token(),
            Self::Method => Forward::Method.token(),
            Self::Miss => Forward::Miss.token(),
            Self::Partial => Forward::Partial.token(),
            Self::Request => Forward::Request.token(),
            Self::Stale => Forward::Stale.token(),
            Self::UriMiss => Forward::UriMiss.token(),
            Self::VaryMiss => Forward::VaryMiss.token(),
            Self::Own => "own",
        }
    }

    /// From the store.
    pub(super) fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::HitStale)
    }
}

impl From<Forward> for Handled {
    fn from(forward: Forward) -> Self {
        match forward {
            Forward::Bypass => Self::Bypass,
            Forward::Method => Self::Method,
            Forward::Miss => Self::Miss,
            Forward::Partial => Self::Partial,
            Forward::Request => Self::Request,
            Forward::Stale => Self::Stale,
            Forward::UriMiss => Self::UriMiss,
            Forward::VaryMiss => Self::VaryMiss,
        }
    }
}

/// The vocabulary of details, and where each has its place.
struct Details {
    words: Vec<&'static str>,
    places: HashMap<Detail, usize>,
}

impl Details {
    fn new() -> Self {
        let all = Detail::ALL.iter().copied();
        let all = all.chain(NotStorable::ALL.into_iter().map(Detail::NotStorable));
        let all = all.chain(NotReusable::ALL.into_iter().map(Detail::NotReusable));
        let all = all.chain(Refusal::ALL.iter().copied().map(Detail::Refused));
        // What is in no list has the first place.
        let (mut words, mut places) = (vec![OTHER_DETAIL], HashMap::new());
        for detail in all {
            let known = words.iter().position(|word| *word == detail.token());
            let place = known.unwrap_or(words.len());
            if known.is_none() {
                words.push(detail.token());
            }
            places.insert(detail, place);
        }
        Self { words, places }
    }
}

/// The number of the thread that asks, from zero on in the order they first asked.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending has no place any more.
    PLACE.try_with(|place| *place).unwrap_or_default()
}

fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

static DETAILS: LazyLock<Details> = LazyLock::new(Details::new);
/// How many outcomes there are.
pub(super) const HANDLED: usize = 11;
/// The first digits a status can have.
const CLASSES: usize = 5;
/// More threads than this share shards.
const SHARDS_MAX: usize = 64;
/// As many as one config can have.
const SITES_MAX: usize = 1 << 16;
/// What belongs to no site; no host can be called so.
pub(super) const NO_SITE: &str = "(none)";
/// Sites beyond those that are counted by name.
const OTHER_SITES: &str = "(other)";
const OTHER_DETAIL: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::access_log::tests::report;
    use http::StatusCode;

    fn at(site: &str, outcome: Outcome) -> Report {
        Report {
            site: Some(Arc::from(site)),
            outcome,
            ..report()
        }
    }

    fn forwarded(forward: Forward, detail: Option<Detail>) -> Outcome {
        Outcome {
            fwd: Some(forward),
            detail,
            ..Outcome::default()
        }
    }

    #[test]
    fn requests_count_under_their_site_outcome_and_detail() {
        let tally = Tally::new(2, 8);
        let known = Detail::HitForMiss;
        tally.count(&at("a", report().outcome));
        tally.count(&at("a", report().outcome));
        tally.count(&at("b", forwarded(Forward::UriMiss, None)));
        tally.count(&at("b", forwarded(Forward::UriMiss, Some(known))));
        let totals = tally.read();
        assert_eq!(totals.sites["a"].requests[&(Handled::Hit, "")], 2);
        assert_eq!(totals.sites["a"].bytes[&Handled::Hit], 2 * 2326);
        assert_eq!(totals.sites["b"].requests[&(Handled::UriMiss, "")], 1);
        let with_detail = (Handled::UriMiss, "hit-for-miss");
        assert_eq!(totals.sites["b"].requests[&with_detail], 1);
        assert_eq!(totals.requests(|_| true), 4);
        assert_eq!(totals.requests(Handled::is_hit), 2);
        assert_eq!(totals.statuses(2), 4);
    }

    #[test]
    fn what_belongs_to_no_site_counts_too() {
        let tally = Tally::new(1, 8);
        let status = StatusCode::BAD_REQUEST;
        let refused = Report {
            status,
            outcome: Outcome {
                detail: Some(Detail::Refused(Refusal::BadHost)),
                ..Outcome::default()
            },
            ..report()
        };
        tally.count(&refused);
        let totals = tally.read();
        assert_eq!(
            totals.sites[NO_SITE].requests[&(Handled::Own, "bad-host")],
            1
        );
        assert_eq!(totals.statuses(4), 1);
    }

    #[test]
    fn no_more_sites_are_told_apart_than_the_bound() {
        let tally = Tally::new(1, 2);
        for number in 0..5 {
            tally.count(&at(&format!("s{number}"), report().outcome));
        }
        tally.count(&Report {
            site: None,
            ..report()
        });
        let totals = tally.read();
        let names: Vec<_> = totals.sites.keys().map(|name| &**name).collect();
        assert_eq!(names, [NO_SITE, OTHER_SITES, "s0", "s1"]);
        assert_eq!(totals.sites[OTHER_SITES].requests[&(Handled::Hit, "")], 3);
    }

    #[test]
    fn what_threads_count_at_once_adds_up() {
        let tally = Tally::new(2, 8);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..1000 {
                        let site = format!("s{}", number % 4);
                        tally.count(&at(&site, report().outcome));
                    }
                });
            }
        });
        let totals = tally.read();
        assert_eq!(totals.requests(|_| true), 4000);
        assert_eq!(totals.sites["s3"].requests[&(Handled::Hit, "")], 1000);
        let reading = totals.took[Handled::Hit as usize];
        assert_eq!(reading.counts.iter().sum::<u64>(), 4000);
        assert_eq!(totals.took_us(), 4000 * 1500);
    }

    #[test]
    fn stale_hits_are_told_apart() {
        let stale = Outcome {
            ttl: Some(-1),
            ..report().outcome
        };
        assert_eq!(Handled::of(&stale), Handled::HitStale);
        assert!(Handled::of(&stale).is_hit());
    }

    #[test]
    fn every_outcome_has_its_number_and_a_word_of_its_own() {
        let mut words: Vec<_> = Handled::ALL.iter().map(|handled| handled.word()).collect();
        for (number, handled) in Handled::ALL.into_iter().enumerate() {
            assert_eq!(handled as usize, number);
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), HANDLED);
    }

    #[test]
    fn every_detail_has_a_place_under_its_own_word() {
        let details = Details::new();
        for (detail, place) in &details.places {
            assert_eq!(details.words[*place], detail.token());
        }
        assert!(!details.places.values().any(|place| *place == 0));
    }
}
