//! `GET /live`: everything that `larder top` and the dashboard show of one moment, as JSON.
//!
//! Counts only grow, so who looks each second makes rates of what they grew by. The heaviest URLs
//! are of the last minutes (see [`live`](super::live)), the curve of what it says itself. The names
//! are an interface: those who read it take what they do not find for nothing.

use super::live::Live;
use super::metrics::Metrics;
use crate::flow::Engine;
use crate::flow::Eviction;
use crate::flow::Manner;
use crate::flow::Stats;
use crate::flow::Told;
use crate::flow::meter::BOUNDS;
use crate::flow::meter::Reading;
use crate::state::curve::Point;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;
use std::time::SystemTime;

/// One moment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Picture {
    /// Which larder.
    pub version: String,
    /// When it is of, in milliseconds of Unix time.
    pub at_ms: u64,
    /// When counting began. One that is later than in the picture before: counts began anew.
    pub since_ms: u64,
    /// Counts of requests and bytes.
    pub totals: Totals,
    /// Connections from clients.
    pub connections_open: u64,
    /// How long requests took.
    pub latency: Latency,
    /// Backends.
    pub origins: Vec<Origin>,
    /// What is stored.
    pub store: Store,
    /// URLs that weigh most.
    pub top: Top,
    /// What other sizes of the store would buy.
    pub curve: Curve,
    /// The latest purges, the newest first.
    pub purges: Vec<Purged>,
}

/// Requests for some target, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Totals {
    /// Answered from the store or by the origin.
    pub requests: u64,
    /// From the store.
    pub hits: u64,
    /// Of these, stale.
    pub stale: u64,
    /// Shared another's trip to the origin.
    pub collapsed: u64,
    /// Ended in an error of a server, the origin's or ours.
    pub errors: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Of these, from the store.
    pub hit_bytes: u64,
}

/// From arrival to the last byte: counts by steps, which only grow.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Latency {
    /// The steps: at most so many microseconds.
    pub bounds_us: Vec<u64>,
    /// Counts by outcome.
    pub outcomes: Vec<Took>,
}

/// How long requests of one outcome took.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Took {
    /// In the words of Cache-Status: `hit`, `hit-stale`, why it was forwarded, or `own`.
    pub outcome: String,
    /// One for each step, and behind them those that took longer than the last.
    pub counts: Vec<u64>,
}

/// A backend.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Origin {
    /// The upstream it belongs to.
    pub upstream: String,
    /// How the config calls it.
    pub name: String,
    /// Requests go there.
    pub usable: bool,
    /// Its responses.
    pub answers: u64,
    /// Exchanges without one.
    pub errors: u64,
}

/// Sizes of the store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Store {
    /// Stored responses.
    pub entries: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The most there may be.
    pub limit: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Responses evicted since the start.
    pub evicted: u64,
    /// Fills under way.
    pub fills: u64,
    /// Why it passes through, if it does.
    pub pass_through: Option<String>,
    /// Its directories.
    pub dirs: Vec<Dir>,
}

/// A directory of the store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Dir {
    /// Where.
    pub path: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// The most there may be.
    pub limit: u64,
    /// Why it is out, if it is.
    pub out: Option<String>,
}

/// URLs that weigh most, the heaviest first.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Top {
    /// Of so many seconds.
    pub seconds: u64,
    /// By requests.
    pub requests: Vec<Row>,
    /// By requests that went to the origin.
    pub misses: Vec<Row>,
    /// By bytes sent.
    pub bytes: Vec<Row>,
    /// By requests that went to the origin and left nothing in the store.
    pub not_cached: Vec<Row>,
}

/// A URL and its weight.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Row {
    /// Host and target.
    pub url: String,
    /// Requests, or bytes.
    pub count: u64,
    /// Why it was not stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A purge that was done.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Purged {
    /// What its receipt goes by.
    pub id: String,
    /// When it took hold, in milliseconds of Unix time.
    pub at_ms: u64,
    /// How many items of which kind it named.
    pub kinds: Vec<Kind>,
    /// What it covers is stale and not gone.
    pub soft: bool,
    /// How many entries it covered; not known at once.
    pub entries: Option<u64>,
    /// It holds after a crash.
    pub durable: bool,
}

/// Items of one kind.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Kind {
    /// In the words of receipts.
    pub kind: String,
    /// How many.
    pub items: usize,
}

/// Hit ratios by the size of the store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Curve {
    /// The sizes, the smallest first.
    pub points: Vec<Size>,
    /// One key in so many is in the sample.
    pub one_in: u64,
    /// So many keys are.
    pub keys: usize,
    /// Made from so many requests; older ones count by half or less.
    pub requests: u64,
}

/// One size of the store.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Size {
    /// Next to today's.
    pub times: f64,
    /// In bytes.
    pub bytes: u64,
    /// The part of requests that would be hits, from 0 to 1.
    pub hit_ratio: f64,
    /// The part of bytes.
    pub byte_hit_ratio: f64,
    /// It would be full by now.
    pub full: bool,
}

impl Picture {
    /// Puts together what is known at `now`.
    pub fn new(live: &Live, metrics: &Metrics, engine: &Engine, now: SystemTime) -> Self {
        let stats = &engine.stats();
        let (totals, short) = (live.totals(), metrics.in_short());
        let accepted = metrics.connections_accepted.value();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at_ms: milliseconds(now),
            since_ms: milliseconds(live.since()),
            totals: Totals {
                requests: totals.requests,
                hits: totals.hits,
                stale: short.stale,
                collapsed: short.collapsed,
                errors: short.errors,
                bytes: totals.bytes,
                hit_bytes: totals.hit_bytes,
            },
            connections_open: accepted.saturating_sub(metrics.connections_closed.value()),
            latency: Latency::new(&short.took),
            origins: origins(stats),
            store: Store::new(stats),
            top: Top::new(live, now),
            curve: Curve::new(live),
            purges: engine.purges(PURGES).iter().map(Purged::new).collect(),
        }
    }
}

impl Purged {
    fn new(told: &Told) -> Self {
        let kinds = told.kinds.iter().map(|(kind, items)| Kind {
            kind: (*kind).to_owned(),
            items: *items,
        });
        Self {
            id: told.receipt.id(),
            at_ms: milliseconds(told.receipt.at),
            kinds: kinds.collect(),
            soft: told.manner == Manner::Soft,
            entries: told.receipt.entries,
            durable: told.receipt.durable,
        }
    }
}

impl Latency {
    fn new(took: &[(&'static str, Reading)]) -> Self {
        let outcomes = took.iter().map(|(outcome, reading)| Took {
            outcome: (*outcome).to_owned(),
            counts: reading.counts.to_vec(),
        });
        Self {
            bounds_us: BOUNDS.iter().map(|(nanos, _)| nanos / 1000).collect(),
            outcomes: outcomes.collect(),
        }
    }
}

impl Store {
    fn new(stats: &Stats) -> Self {
        let dirs = stats.dirs.iter().map(|dir| Dir {
            path: dir.path.display().to_string(),
            bytes: dir.usage.allocated,
            limit: dir.usage.limit,
            out: dir.out.as_deref().map(str::to_owned),
        });
        Self {
            entries: stats.entries,
            bytes: stats.disk.allocated,
            limit: stats.disk.limit,
            memory_bytes: stats.memory_bytes,
            evicted: stats.upkeep.evicted(Eviction::Room),
            fills: stats.fills_active,
            pass_through: stats.pass_through.as_deref().map(str::to_owned),
            dirs: dirs.collect(),
        }
    }
}

impl Top {
    fn new(live: &Live, now: SystemTime) -> Self {
        let top = live.top(ROWS, now);
        let rows = |told: Vec<(Arc<str>, u64)>| {
            let rows = told.into_iter().map(|(url, count)| Row {
                url: url.as_ref().to_owned(),
                count,
                reason: String::new(),
            });
            rows.collect()
        };
        let not_cached = top.not_cached.into_iter();
        Self {
            seconds: top.seconds,
            requests: rows(top.requests),
            misses: rows(top.misses),
            bytes: rows(top.bytes),
            not_cached: not_cached
                .map(|(url, reason, count)| Row {
                    url: url.as_ref().to_owned(),
                    count,
                    reason: reason.to_owned(),
                })
                .collect(),
        }
    }
}

impl Curve {
    /// What other sizes of the store would buy.
    pub fn new(live: &Live) -> Self {
        let told = live.curve();
        Self {
            points: told.points.iter().map(Size::new).collect(),
            one_in: told.one_in,
            keys: told.keys,
            requests: told.requests,
        }
    }
}

impl Size {
    fn new(point: &Point) -> Self {
        Self {
            // A half, one, two or four.
            times: u8::try_from(point.halves).map_or(0.0, f64::from) / 2.0,
            bytes: point.bytes,
            hit_ratio: point.requests_ratio,
            byte_hit_ratio: point.bytes_ratio,
            full: point.full,
        }
    }
}

fn origins(stats: &Stats) -> Vec<Origin> {
    let backends = stats.backends.iter();
    let origins = backends.map(|backend| Origin {
        upstream: backend.upstream.clone(),
        name: backend.name.as_ref().to_owned(),
        usable: backend.usable,
        answers: backend.answers.iter().sum(),
        errors: backend.errors.iter().map(|(_, count)| count).sum(),
    });
    origins.collect()
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// How many purges are told.
const PURGES: usize = 20;
/// How many URLs each list has at most.
const ROWS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_read_as_nothing_and_what_is_more_is_left() {
        let text = r#"{"totals": {"hits": 3, "new": 1}, "store": {"limit": 5}, "other": []}"#;
        let picture: Picture = serde_json::from_str(text).unwrap();
        assert_eq!(picture.totals.hits, 3);
        assert_eq!(picture.store.limit, 5);
        assert!(picture.origins.is_empty());
    }

    #[test]
    fn a_picture_is_read_as_it_was_written() {
        let row = Row {
            url: "example.com/".to_owned(),
            count: 7,
            reason: "private".to_owned(),
        };
        let picture = Picture {
            at_ms: 5,
            top: Top {
                not_cached: vec![row],
                ..Top::default()
            },
            ..Picture::default()
        };
        let text = serde_json::to_string(&picture).unwrap();
        assert_eq!(serde_json::from_str::<Picture>(&text).unwrap(), picture);
    }
}
