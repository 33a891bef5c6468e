//! What goes on now: which URLs weigh most, and what another size of the store would buy.
//!
//! From the [`Report`] of each request. A hit pays for one lock that its thread has nearly always to
//! itself, two looks into small tables and one compare; who looks on merges the tables of all
//! threads. The machines are `state::heavy` and `state::curve`; what is shown of it is left to
//! [`picture`](super::picture).

use crate::flow::Report;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use crate::rules::key::PrimaryKey;
use crate::state::curve::Answered;
use crate::state::curve::Came;
use crate::state::curve::Curve;
use crate::state::curve::Told;
use crate::state::curve::Totals;
use crate::state::eviction;
use crate::state::heavy::Recent;
use crate::state::heavy::Weighed;
use crate::state::heavy::heaviest;
use http::uri::PathAndQuery;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::SystemTime;

/// Takes in every request.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Shard>,
    /// What is zero in a key that the curve samples.
    mask: AtomicU64,
    /// Locked before any shard.
    curve: Mutex<Curve>,
    since: SystemTime,
}

/// What is heaviest, of the last [`PERIOD`] and what has passed of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// How many seconds it covers.
    pub seconds: u64,
    /// By requests.
    pub requests: Vec<(Arc<str>, u64)>,
    /// By requests that went to the origin.
    pub misses: Vec<(Arc<str>, u64)>,
    /// By bytes sent.
    pub bytes: Vec<(Arc<str>, u64)>,
    /// By requests that went to the origin and left nothing in the store, with the reason.
    pub not_cached: Vec<(Arc<str>, &'static str, u64)>,
}

/// One of several threads' tables, on a line of memory of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Tables>);

#[derive(Debug)]
struct Tables {
    totals: Totals,
    requests: Recent<Arc<str>>,
    misses: Recent<Arc<str>>,
    bytes: Recent<Arc<str>>,
    not_cached: Recent<(Arc<str>, &'static str)>,
}

impl Live {
    /// Begins, for a store of so many bytes that chooses by `params`.
    pub fn new(store_bytes: u64, params: eviction::Params, now: SystemTime) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shards = (0..threads.min(SHARDS_MAX)).map(|_| Shard(Mutex::new(Tables::new())));
        let curve = Curve::new(store_bytes, params, SAMPLE_KEYS_MAX);
        Self {
            shards: shards.collect(),
            mask: AtomicU64::new(curve.mask()),
            curve: Mutex::new(curve),
            since: now,
        }
    }

    /// The store chooses by `params` from now on.
    pub fn choose_by(&self, params: eviction::Params) {
        lock(&self.curve).choose_by(params);
    }

    /// Takes in one request.
    pub fn take(&self, report: &Report) {
        let Some(PrimaryKey([a, b, c, d, e, f, g, h, ..])) = report.primary else {
            return;
        };
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let at = seconds(report.at);
        if let Some(shard) = self.shard() {
            lock(&shard.0).count(key, at / PERIOD, report);
        }
        if key & self.mask.load(Ordering::Relaxed) == 0 {
            self.sample(key, at, report);
        }
    }

    /// What is heaviest at `now`, so many of each.
    pub fn top(&self, count: usize, now: SystemTime) -> Top {
        let at = seconds(now);
        let period = at / PERIOD;
        let mut tables: Vec<_> = self.shards.iter().map(|shard| lock(&shard.0)).collect();
        for table in &mut tables {
            table.turn(period);
        }
        let named = |told: Vec<Weighed<Arc<str>>>| {
            let told = told.into_iter();
            told.map(|told| (told.name, told.weight)).collect()
        };
        let requests = tables.iter().flat_map(|table| table.requests.all());
        let misses = tables.iter().flat_map(|table| table.misses.all());
        let bytes = tables.iter().flat_map(|table| table.bytes.all());
        let not_cached = tables.iter().flat_map(|table| table.not_cached.all());
        let begun = seconds(self.since).max(period.saturating_sub(1) * PERIOD);
        Top {
            seconds: at.saturating_sub(begun),
            requests: named(heaviest(requests, count)),
            misses: named(heaviest(misses, count)),
            bytes: named(heaviest(bytes, count)),
            not_cached: heaviest(not_cached, count)
                .into_iter()
                .map(|told| (told.name.0, told.name.1, told.weight))
                .collect(),
        }
    }

    /// What other sizes of the store would buy.
    pub fn curve(&self) -> Told {
        let curve = lock(&self.curve);
        curve.tell(self.totals())
    }

    /// All requests that were for some target.
    pub fn totals(&self) -> Totals {
        let tables = self.shards.iter().map(|shard| lock(&shard.0).totals);
        tables.fold(Totals::default(), Totals::and)
    }

    /// When it began.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// The thread's own shard, where there are as many as threads.
    fn shard(&self) -> Option<&Shard> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let own = OWN.with(|own| *own);
        self.shards.get(own.checked_rem(self.shards.len())?)
    }

    fn sample(&self, key: u64, at: u64, report: &Report) {
        let Some(came) = came(&report.outcome, at) else {
            return;
        };
        let body = report.stored_bytes.unwrap_or(report.body_bytes);
        let answered = Answered {
            key,
            bytes: body.saturating_add(HEAD_BYTES),
            served: report.body_bytes,
            at,
            came,
        };
        let mut curve = lock(&self.curve);
        curve.see(&answered, || self.totals());
        self.mask.store(curve.mask(), Ordering::Relaxed);
    }
}

impl Tables {
    fn new() -> Self {
        Self {
            totals: Totals::default(),
            requests: Recent::new(PLACES),
            misses: Recent::new(PLACES),
            bytes: Recent::new(PLACES),
            not_cached: Recent::new(PLACES),
        }
    }

    fn turn(&mut self, period: u64) {
        self.requests.turn(period);
        self.misses.turn(period);
        self.bytes.turn(period);
        self.not_cached.turn(period);
    }

    fn count(&mut self, key: u64, period: u64, report: &Report) {
        let outcome = &report.outcome;
        let bytes = report.body_bytes;
        let mut made = None;
        let mut name = || Arc::clone(made.get_or_insert_with(|| name_of(report)));
        self.requests.add(period, key, 1, &mut name);
        self.bytes.add(period, key, bytes, &mut name);
        if outcome.hit {
            self.totals.hits = self.totals.hits.saturating_add(1);
            self.totals.hit_bytes = self.totals.hit_bytes.saturating_add(bytes);
        } else if outcome.fwd.is_some() {
            self.misses.add(period, key, 1, &mut name);
            if let Some(reason) = not_cached(outcome) {
                let named = || (name(), reason);
                self.not_cached.add(period, with(key, reason), 1, named);
            }
        } else {
            return;
        }
        self.totals.requests = self.totals.requests.saturating_add(1);
        self.totals.bytes = self.totals.bytes.saturating_add(bytes);
    }
}

/// Why a request left nothing in the store, if it went to the origin and did not.
fn not_cached(outcome: &Outcome) -> Option<&'static str> {
    let forward = outcome.fwd.filter(|_| !outcome.hit && !outcome.stored)?;
    Some(outcome.detail.map_or(forward.token(), Detail::token))
}

/// How an answer came about, as far as the size of the store matters. A key is all that a sample
/// tells apart, so a variant that was missing is not taken for one that would have been there.
fn came(outcome: &Outcome, at: u64) -> Option<Came> {
    let ttl = outcome.ttl.and_then(|ttl| u64::try_from(ttl).ok());
    let fresh_until = at.saturating_add(ttl.unwrap_or_default());
    if outcome.hit {
        return Some(Came::Hit { fresh_until });
    }
    let forward = outcome.fwd?;
    let for_room = matches!(
        outcome.detail,
        Some(Detail::FirstRequest | Detail::NoRoom | Detail::BodyTooLarge)
    );
    if !outcome.stored && !for_room {
        return Some(Came::Passed);
    }
    Some(match forward {
        Forward::Miss | Forward::UriMiss if !outcome.collapsed => Came::Missed { fresh_until },
        Forward::Bypass
        | Forward::Method
        | Forward::Miss
        | Forward::Partial
        | Forward::Request
        | Forward::Stale
        | Forward::UriMiss
        | Forward::VaryMiss => Came::Asked { fresh_until },
    })
}

/// Host and target as they were received, cut to [`NAME_BYTES_MAX`].
fn name_of(report: &Report) -> Arc<str> {
    let host = report.host.as_ref().map(|host| host.as_bytes());
    let host = String::from_utf8_lossy(host.unwrap_or_default());
    let target = report.uri.path_and_query().map(PathAndQuery::as_str);
    let target = target.unwrap_or(report.uri.path());
    // What is shown on a terminal must not command it.
    let printable = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let name = host.chars().chain(target.chars()).map(printable);
    let mut name: String = name.take(NAME_BYTES_MAX).collect();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name.into()
}

/// The same key with another word is another.
fn with(key: u64, word: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    word.bytes().fold(key, step)
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is heaviest is told of so many seconds, and of what has passed since.
pub const PERIOD: u64 = 300;
/// How much of a URL is kept, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Keys in each table; a key that has more than two parts in as many of all is in it.
const PLACES: usize = 512;
/// More threads share tables.
const SHARDS_MAX: usize = 16;
/// Keys in the curve's sample: a few megabytes, and an error of one percent or so.
const SAMPLE_KEYS_MAX: usize = 1 << 14;
/// What a response's head takes in the store, more or less.
const HEAD_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::access_log::tests::report;
    use crate::rules::storable::NotStorable;
    use http::HeaderValue;
    use http::Uri;
    use std::time::Duration;

    const BORN: SystemTime = SystemTime::UNIX_EPOCH;

    fn live() -> Live {
        let params = eviction::Params {
            favour: eviction::Favour::Bytes,
            second_request_over: 1 << 30,
        };
        Live::new(1 << 30, params, BORN)
    }

    /// A hit on `/n`, of 100 bytes.
    fn hit(n: u8) -> Report {
        Report {
            at: BORN + Duration::from_secs(PERIOD + 10),
            primary: Some(PrimaryKey([n; 16])),
            uri: Uri::try_from(format!("/{n}")).unwrap(),
            body_bytes: 100,
            ..report()
        }
    }

    fn missed(n: u8, stored: bool, detail: Option<Detail>) -> Report {
        let outcome = Outcome {
            fwd: Some(Forward::UriMiss),
            stored,
            detail,
            ..Outcome::default()
        };
        Report { outcome, ..hit(n) }
    }

    fn top(live: &Live) -> Top {
        live.top(10, BORN + Duration::from_secs(PERIOD + 30))
    }

    fn told<T>(rows: &[(Arc<str>, T)]) -> Vec<(&str, &T)> {
        rows.iter().map(|(name, count)| (&**name, count)).collect()
    }

    #[test]
    fn urls_are_told_by_requests_misses_bytes_and_reason() {
        let live = live();
        let large = Report {
            body_bytes: 5000,
            ..hit(2)
        };
        let private = Some(Detail::NotStorable(NotStorable::Private));
        for report in [
            hit(1),
            hit(1),
            hit(1),
            large,
            missed(1, true, None),
            missed(3, false, private),
            missed(3, false, private),
            missed(3, false, None),
        ] {
            live.take(&report);
        }
        let top = top(&live);
        assert_eq!(top.seconds, PERIOD + 30);
        let name = |n: u8| format!("example.com/{n}");
        let (one, two, three) = (name(1), name(2), name(3));
        assert_eq!(
            told(&top.requests),
            [(&*one, &4), (&*three, &3), (&*two, &1)]
        );
        assert_eq!(told(&top.misses), [(&*three, &3), (&*one, &1)]);
        assert_eq!(
            told(&top.bytes),
            [(&*two, &5000), (&*one, &400), (&*three, &300)]
        );
        let reasons: Vec<_> = top
            .not_cached
            .iter()
            .map(|(url, why, n)| (&**url, *why, *n))
            .collect();
        assert_eq!(reasons, [(&*three, "private", 2), (&*three, "uri-miss", 1)]);
        let totals = live.totals();
        assert_eq!((totals.requests, totals.hits), (8, 4));
        assert_eq!((totals.bytes, totals.hit_bytes), (5700, 5300));
    }

    #[test]
    fn what_was_not_for_a_target_is_in_no_table() {
        let live = live();
        let refused = Report {
            primary: None,
            ..hit(1)
        };
        live.take(&refused);
        assert!(top(&live).requests.is_empty());
        assert_eq!(live.totals(), Totals::default());
    }

    #[test]
    fn what_all_threads_saw_is_told_together() {
        let live = live();
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| live.take(&hit(1)));
            }
        });
        assert_eq!(told(&top(&live).requests), [("example.com/1", &40)]);
    }

    #[test]
    fn what_is_long_over_is_told_no_more() {
        let live = live();
        live.take(&hit(1));
        let later = live.top(10, BORN + Duration::from_secs(3 * PERIOD));
        assert!(later.requests.is_empty());
        assert_eq!(later.seconds, PERIOD);
    }

    #[test]
    fn a_long_url_is_cut() {
        let mut long = hit(1);
        long.uri = Uri::try_from(format!("/{}", "x".repeat(2000))).unwrap();
        assert_eq!(name_of(&long).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_name_has_nothing_that_commands_a_terminal() {
        let mut odd = hit(1);
        odd.host = Some(HeaderValue::from_bytes("a\u{9b}31m\tb".as_bytes()).unwrap());
        assert_eq!(&*name_of(&odd), "a\u{fffd}31m\u{fffd}b/1");
    }

    #[test]
    fn only_what_room_is_the_matter_of_counts_for_other_sizes() {
        let came = |report: Report| came(&report.outcome, 1000);
        let fresh_until = 1000;
        assert_eq!(came(hit(1)), Some(Came::Hit { fresh_until: 1059 }));
        let miss = missed(1, true, None);
        assert_eq!(came(miss.clone()), Some(Came::Missed { fresh_until }));
        let first = missed(1, false, Some(Detail::FirstRequest));
        assert_eq!(came(first), Some(Came::Missed { fresh_until }));
        assert_eq!(came(missed(1, false, None)), Some(Came::Passed));
        let mut collapsed = miss.clone();
        collapsed.outcome.collapsed = true;
        assert_eq!(came(collapsed), Some(Came::Asked { fresh_until }));
        let mut stale = miss.clone();
        stale.outcome.fwd = Some(Forward::Stale);
        assert_eq!(came(stale), Some(Came::Asked { fresh_until }));
        let mut synthetic = miss;
        synthetic.outcome.fwd = None;
        assert_eq!(came(synthetic), None);
    }

    #[test]
    fn a_sampled_key_reaches_the_curve_with_its_whole_size() {
        let live = live();
        let sampled = Report {
            stored_bytes: Some(7000),
            ..hit(4)
        };
        live.take(&sampled);
        live.take(&hit(1));
        let told = live.curve();
        assert_eq!((told.keys, told.requests), (1, 2));
        assert!((told.points[1].requests_ratio - 1.0).abs() < 1e-9);
    }
}
