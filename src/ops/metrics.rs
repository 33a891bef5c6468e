//! Counts what happens, under names from one table.
//!
//! Counters come from [`Report`]s and from what `cli` passes on of the net room's events; sizes
//! come from [`Stats`]. [`expose`](Metrics::expose) writes both for Prometheus, and
//! [`render`](Metrics::render) as JSON: a name `a.b` is key `b` of object `a`. Renaming one breaks
//! whoever reads them, so tests hold both tables.

pub mod exposition;
mod families;
mod process;
mod tally;

use self::exposition::Form;
use self::tally::Handled;
use self::tally::Tally;
use self::tally::Totals;

use crate::flow::DirStats;
use crate::flow::Eviction;
use crate::flow::Report;
use crate::flow::Stats;
use crate::flow::meter::Reading;
use crate::state::curve::Told;
use crate::state::orders;
use http::HeaderName;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

/// A number that only grows. Relaxed: no other memory hangs on it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by a label from a fixed vocabulary, for what happens too rarely to matter for speed.
#[derive(Debug)]
struct Labelled<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Labelled<K> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Ord + Copy + ToString> Labelled<K> {
    fn count(&self, label: K) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(label).or_default();
        *count = count.saturating_add(1);
    }

    fn read(&self) -> BTreeMap<String, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter();
        counts
            .map(|(label, count)| (label.to_string(), *count))
            .collect()
    }
}

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $field:ident = $name:literal; )+) => {
        /// Every counter of the process.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $( $(#[doc = $doc])+ pub $field: Counter, )+
            /// Requests that ended, however they ended.
            requests: Tally,
            /// Requests refused before anything was looked up, by the refusal's token.
            refused: Labelled<&'static str>,
            /// Bytes that were no request, by the status hyper answered with; 0: none.
            malformed: Labelled<u16>,
            /// Responses that are errors of ours, by their type in RFC 9209.
            errors: Labelled<&'static str>,
            /// TLS handshakes that failed, by the reason's token.
            handshake_failures: Labelled<&'static str>,
            /// Connections without the PROXY header they needed, by the reason's token.
            unintroduced: Labelled<&'static str>,
        }

        impl Metrics {
            /// Lists the plain counters by name.
            fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field.value())),+]
            }
        }
    };
}

counters! {
    /// Configs that were taken up while running.
    reloads_done = "reloads.done";
    /// Configs that were not: something is wrong with them, or needs another process.
    reloads_refused = "reloads.refused";
    /// Connections accepted.
    connections_accepted = "connections.accepted";
    /// Connections that ended.
    connections_closed = "connections.closed";
    /// Request heads and bodies that took too long.
    timeouts_request = "timeouts.request";
    /// Clients that did not read in time.
    timeouts_write = "timeouts.write";
    /// Connections that a proxy introduced by the PROXY protocol.
    introductions_taken = "proxy_protocol.taken";
    /// Connections cut because they had to be introduced and were not.
    introductions_refused = "proxy_protocol.refused";
    /// Times that another process was to take over, and this one went on instead.
    takeovers_failed = "takeovers.failed";
    /// TLS handshakes that failed.
    handshakes_failed = "handshakes.failed";
    /// TLS handshakes with a new session.
    handshakes_full = "handshakes.full";
    /// TLS handshakes that only asked for a proof of a name (RFC 8737).
    handshakes_proofs = "handshakes.proofs";
    /// TLS handshakes with a session from before.
    handshakes_resumed = "handshakes.resumed";
    /// HTTP/2 connections cut because the client sent too much beside requests.
    floods = "floods";
    /// Spans that a collector has taken.
    spans_sent = "traces.sent";
    /// Spans that were lost: the queue was full, or no collector took them.
    spans_dropped = "traces.dropped";
    /// Access log lines given up because the writer could not follow.
    access_log_dropped = "access_log.dropped";
}

impl Metrics {
    /// Counts one request.
    pub fn count(&self, report: &Report) {
        self.requests.count(report);
        if let Some(refusal) = report.refusal {
            self.refused.count(refusal.token());
        }
        if let Some(error) = report.error {
            self.errors.count(error.token());
        }
    }

    /// Counts bytes that were no request, by the status they were answered with; 0: none.
    pub fn count_malformed(&self, status: u16) {
        self.malformed.count(status);
    }

    /// Counts a TLS handshake that failed, by the token of the reason.
    pub fn count_handshake_failure(&self, reason: &'static str) {
        self.handshakes_failed.add(1);
        self.handshake_failures.count(reason);
    }

    /// Counts a connection that should have begun with a PROXY header, by the token of the reason.
    pub fn count_unintroduced(&self, reason: &'static str) {
        self.introductions_refused.add(1);
        self.unintroduced.count(reason);
    }

    /// Writes all counters and sizes for scrapers.
    pub fn expose(
        &self,
        form: Form,
        stats: &Stats,
        certificates: &Certificates,
        curve: &Told,
    ) -> String {
        families::page(form, self, stats, certificates, curve)
    }

    /// What was counted of requests, in short.
    pub fn in_short(&self) -> Short {
        let totals = self.requests.read();
        let took = Handled::ALL.iter().zip(totals.took);
        Short {
            stale: totals.requests(|handled| handled == Handled::HitStale),
            collapsed: totals.collapsed,
            errors: totals.statuses(5),
            took: took.map(|(handled, took)| (handled.word(), took)).collect(),
        }
    }

    /// Writes all counters and sizes as one JSON object.
    pub fn render(&self, stats: &Stats, certificates: &Certificates, now: SystemTime) -> Value {
        let mut root = Map::new();
        let totals = requests(&self.requests.read());
        for (name, value) in totals.into_iter().chain(self.counters()) {
            put(&mut root, name, json!(value));
        }
        let accepted = self.connections_accepted.value();
        let open = accepted.saturating_sub(self.connections_closed.value());
        put(&mut root, "connections.open", json!(open));
        put(&mut root, "refused", json!(self.refused.read()));
        put(&mut root, "malformed", json!(self.malformed.read()));
        put(&mut root, "errors", json!(self.errors.read()));
        let failures = self.handshake_failures.read();
        put(&mut root, "handshakes.failures", json!(failures));
        let reasons = self.unintroduced.read();
        put(&mut root, "proxy_protocol.refusals", json!(reasons));
        for (name, value) in certificates.sizes(now) {
            put(&mut root, name, value);
        }
        if let Some(acme) = &certificates.acme {
            for (name, value) in acme.sizes(now) {
                put(&mut root, name, value);
            }
        }
        for (name, value) in sizes(stats) {
            put(&mut root, name, value);
        }
        Value::Object(root)
    }
}

/// What was counted of requests, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// Hits that were stale.
    pub stale: u64,
    /// Shared another's trip to the origin.
    pub collapsed: u64,
    /// Responses with a 5xx status.
    pub errors: u64,
    /// By outcome, from arrival to the last byte.
    pub took: Vec<(&'static str, Reading)>,
}

/// The certificates that TLS listeners show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// All of them.
    pub all: Vec<Certificate>,
    /// Changed files that were taken up.
    pub files_taken: u64,
    /// Changed files that could not be used; the old stayed.
    pub files_refused: u64,
    /// Where more are obtained, if they are.
    pub acme: Option<Acme>,
}

/// The certificates that are obtained from an ACME authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory.
    pub directory: String,
    /// Every name that is looked after.
    pub names: Vec<orders::Told>,
    /// Orders that were fulfilled.
    pub issued: u64,
    /// Orders that failed.
    pub failed: u64,
    /// Names that clients asked for and got no order.
    pub refused: u64,
    /// How often the authority failed in a row.
    pub outages: u32,
    /// No order is made before, because it failed.
    pub resume_at: Option<SystemTime>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where it came from.
    pub source: String,
    /// The DNS names it is for.
    pub names: Vec<String>,
    /// When it expires.
    pub not_after: SystemTime,
    /// An OCSP response is stapled.
    pub stapled: bool,
    /// What is wrong with its files, if anything.
    pub trouble: Option<String>,
}

impl Certificate {
    fn render(&self, now: SystemTime) -> Value {
        json!({
            "source": self.source,
            "names": self.names,
            "not_after": date(self.not_after),
            "expires_in_s": seconds(now, self.not_after),
            "stapled": self.stapled,
            "trouble": self.trouble,
        })
    }
}

impl Acme {
    fn sizes(&self, now: SystemTime) -> Vec<(&'static str, Value)> {
        let under_way = self.names.iter().filter(|name| name.under_way).count();
        let troubled = self.names.iter().filter(|name| name.trouble.is_some());
        vec![
            ("acme.names", json!(self.names.len())),
            ("acme.under_way", json!(under_way)),
            ("acme.troubled", json!(troubled.count())),
            ("acme.issued", json!(self.issued)),
            ("acme.failed", json!(self.failed)),
            ("acme.refused", json!(self.refused)),
            ("acme.outages", json!(self.outages)),
            (
                "acme.resume_in_s",
                json!(self.resume_at.map(|then| seconds(now, then))),
            ),
        ]
    }

    fn render(&self, now: SystemTime) -> Value {
        let names = self.names.iter().map(|told| {
            json!({
                "name": told.name,
                "asked_for": told.asked,
                "under_way": told.under_way,
                "next_order": told.due.map(date),
                "next_order_in_s": told.due.map(|due| seconds(now, due)),
                "failures": told.failures,
                "trouble": told.trouble,
            })
        });
        json!({
            "directory": self.directory,
            "outages": self.outages,
            "resume_in_s": self.resume_at.map(|then| seconds(now, then)),
            "names": names.collect::<Vec<_>>(),
        })
    }
}

impl Certificates {
    /// Writes each of them, and each name that one is obtained for, as one JSON object.
    pub fn render(&self, now: SystemTime) -> Value {
        let all = self.all.iter().map(|certificate| certificate.render(now));
        json!({
            "certificates": all.collect::<Vec<_>>(),
            "acme": self.acme.as_ref().map(|acme| acme.render(now)),
        })
    }

    /// Lists them by name: how many, those that expire first, and how long the first has.
    fn sizes(&self, now: SystemTime) -> Vec<(&'static str, Value)> {
        let mut all: Vec<&Certificate> = self.all.iter().collect();
        all.sort_by_key(|certificate| certificate.not_after);
        let first = all.first().map(|first| seconds(now, first.not_after));
        let told = all.iter().take(CERTIFICATES_TOLD);
        let told = told.map(|certificate| certificate.render(now));
        let troubled = all
            .iter()
            .filter(|certificate| certificate.trouble.is_some());
        vec![
            ("tls.certificates", json!(all.len())),
            ("tls.troubled", json!(troubled.count())),
            ("tls.expires_in_s", json!(first)),
            ("tls.expire_first", told.collect()),
            ("tls.files_taken", json!(self.files_taken)),
            ("tls.files_refused", json!(self.files_refused)),
        ]
    }
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Seconds from `now` to `then`; negative when it is over.
fn seconds(now: SystemTime, then: SystemTime) -> i64 {
    let signed = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match then.duration_since(now) {
        Ok(left) => signed(left),
        Err(over) => -signed(over.duration()),
    }
}

/// How many certificates are named, those that expire first.
const CERTIFICATES_TOLD: usize = 100;

/// Lists what was counted of requests by name.
fn requests(totals: &Totals) -> Vec<(&'static str, u64)> {
    let requests = |wanted| totals.requests(|handled| handled == wanted);
    let hits = totals.requests(Handled::is_hit);
    let all = totals.requests(|_| true);
    vec![
        ("requests", all),
        ("hits", hits),
        ("misses", all - hits - requests(Handled::Own)),
        ("stale_served", requests(Handled::HitStale)),
        ("stored", totals.stored),
        ("collapsed", totals.collapsed),
        ("incomplete", totals.incomplete),
        ("body_bytes", totals.bytes()),
        ("duration_us", totals.took_us()),
        ("forwarded.bypass", requests(Handled::Bypass)),
        ("forwarded.method", requests(Handled::Method)),
        ("forwarded.uri-miss", requests(Handled::UriMiss)),
        ("forwarded.vary-miss", requests(Handled::VaryMiss)),
        ("forwarded.miss", requests(Handled::Miss)),
        ("forwarded.partial", requests(Handled::Partial)),
        ("forwarded.stale", requests(Handled::Stale)),
        ("forwarded.request", requests(Handled::Request)),
        ("responses.2xx", totals.statuses(2)),
        ("responses.3xx", totals.statuses(3)),
        ("responses.4xx", totals.statuses(4)),
        ("responses.5xx", totals.statuses(5)),
    ]
}

/// Lists the engine's sizes by name.
fn sizes(stats: &Stats) -> Vec<(&'static str, Value)> {
    let backends = stats.backends.iter();
    let evicted = [Eviction::Room, Eviction::Lost].map(|reason| stats.upkeep.evicted(reason));
    let evicted: u64 = evicted.iter().sum();
    let interim: u64 = backends.clone().map(|backend| backend.interim).sum();
    let backends =
        backends.map(|backend| json!({"name": backend.name.as_ref(), "usable": backend.usable}));
    let crowds = stats.crowds.iter().map(|crowd| {
        let vary: Vec<&str> = crowd.vary.iter().map(HeaderName::as_str).collect();
        json!({"target": crowd.target, "vary": vary, "pushed_out": crowd.pushed_out})
    });
    vec![
        ("fills_active", json!(stats.fills_active)),
        ("fill.bytes", json!(stats.fill_bytes)),
        ("memory.bytes", json!(stats.memory_bytes)),
        ("interim_responses", json!(interim)),
        ("upgrades.open", json!(stats.tunnels.open)),
        ("upgrades.opened", json!(stats.tunnels.opened)),
        (
            "upgrades.bytes_from_clients",
            json!(stats.tunnels.from_clients),
        ),
        ("upgrades.bytes_to_clients", json!(stats.tunnels.to_clients)),
        ("store.entries", json!(stats.entries)),
        ("store.bodies", json!(stats.bodies)),
        ("store.live_bytes", json!(stats.live_bytes)),
        ("store.bytes", json!(stats.disk.allocated)),
        ("store.limit", json!(stats.disk.limit)),
        ("store.packs", json!(stats.disk.packs)),
        ("store.journaled", json!(stats.disk.journaled)),
        ("store.corrupt", json!(stats.disk.corrupt)),
        ("store.evicted", json!(evicted)),
        ("store.read_errors", json!(stats.disk.read_errors)),
        ("store.write_errors", json!(stats.disk.write_errors)),
        ("store.packs_dropped", json!(stats.upkeep.dropped)),
        ("store.packs_emptied", json!(stats.upkeep.emptied)),
        ("store.snapshots", json!(stats.upkeep.snapshots)),
        ("store.appended_bytes", json!(stats.disk.appended)),
        ("store.moved_bytes", json!(stats.upkeep.moved_bytes)),
        ("store.packs_written_bytes", json!(stats.disk.packs_written)),
        (
            "store.journal_written_bytes",
            json!(stats.disk.journal_written),
        ),
        ("variants.pushed_out", json!(stats.variants_pushed_out)),
        ("variants.crowded", crowds.collect()),
        ("store.pass_through", json!(stats.pass_through.as_deref())),
        ("store.dirs", stats.dirs.iter().map(dir).collect()),
        ("backends", backends.collect()),
    ]
}

fn dir(dir: &DirStats) -> Value {
    json!({
        "path": dir.path.display().to_string(),
        "usable": dir.out.is_none(),
        "reason": dir.out.as_deref(),
        "taken_out": dir.outs,
        "entries": dir.entries,
        "bytes": dir.usage.allocated,
        "limit": dir.usage.limit,
        "packs": dir.usage.packs,
        "read_errors": dir.usage.read_errors,
        "write_errors": dir.usage.write_errors,
    })
}

/// Puts a value under its name; `a.b` is key `b` of object `a`.
fn put(root: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((group, key)) = name.split_once('.') else {
        root.insert(name.to_owned(), value);
        return;
    };
    let group = root
        .entry(group)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(group) = group {
        group.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::BackendStats;
    use crate::ops::access_log::tests::report;
    use crate::rules::cache_status::Forward;
    use crate::rules::cache_status::Outcome;
    use std::sync::Arc;

    const BORN: SystemTime = SystemTime::UNIX_EPOCH;

    fn render(metrics: &Metrics) -> Value {
        metrics.render(&Stats::default(), &Certificates::default(), BORN)
    }

    fn flat(prefix: &str, value: &Value, names: &mut Vec<String>) {
        let Value::Object(fields) = value else {
            names.push(prefix.trim_end_matches('.').to_owned());
            return;
        };
        for (key, value) in fields {
            flat(&format!("{prefix}{key}."), value, names);
        }
    }

    #[test]
    fn names_stay_what_they_are() {
        let mut names = Vec::new();
        flat("", &render(&Metrics::default()), &mut names);
        assert_eq!(
            names.join(" "),
            "access_log.dropped backends body_bytes collapsed connections.accepted \
             connections.closed connections.open duration_us fill.bytes fills_active floods \
             forwarded.bypass forwarded.method forwarded.miss forwarded.partial forwarded.request \
             forwarded.stale forwarded.uri-miss forwarded.vary-miss handshakes.failed \
             handshakes.full handshakes.proofs handshakes.resumed hits incomplete \
             interim_responses memory.bytes misses proxy_protocol.refused proxy_protocol.taken \
             reloads.done reloads.refused \
             requests responses.2xx responses.3xx responses.4xx responses.5xx stale_served \
             store.appended_bytes store.bodies store.bytes store.corrupt store.dirs \
             store.entries \
             store.evicted store.journal_written_bytes store.journaled store.limit \
             store.live_bytes store.moved_bytes store.packs store.packs_dropped \
             store.packs_emptied store.packs_written_bytes store.pass_through store.read_errors \
             store.snapshots store.write_errors stored takeovers.failed timeouts.request \
             timeouts.write \
             tls.certificates tls.expire_first tls.expires_in_s tls.files_refused tls.files_taken \
             tls.troubled traces.dropped traces.sent upgrades.bytes_from_clients upgrades.bytes_to_clients upgrades.open \
             upgrades.opened variants.crowded variants.pushed_out"
        );
    }

    #[test]
    fn a_hit_is_counted_as_a_hit() {
        let metrics = Metrics::default();
        metrics.count(&report());
        let stats = render(&metrics);
        assert_eq!(stats["requests"], 1);
        assert_eq!(stats["hits"], 1);
        assert_eq!(stats["misses"], 0);
        assert_eq!(stats["body_bytes"], 2326);
        assert_eq!(stats["responses"]["2xx"], 1);
        assert_eq!(stats["incomplete"], 0);
    }

    #[test]
    fn a_stale_hit_is_counted_as_both() {
        let metrics = Metrics::default();
        let mut stale = report();
        stale.outcome.ttl = Some(-4);
        metrics.count(&stale);
        let stats = render(&metrics);
        assert_eq!(stats["hits"], 1);
        assert_eq!(stats["stale_served"], 1);
    }

    #[test]
    fn a_miss_is_counted_under_its_reason() {
        let metrics = Metrics::default();
        let mut miss = report();
        miss.outcome = Outcome {
            fwd: Some(Forward::VaryMiss),
            stored: true,
            collapsed: true,
            ..Outcome::default()
        };
        metrics.count(&miss);
        let stats = render(&metrics);
        assert_eq!(stats["hits"], 0);
        assert_eq!(stats["misses"], 1);
        assert_eq!(stats["forwarded"]["vary-miss"], 1);
        assert_eq!(stats["stored"], 1);
        assert_eq!(stats["collapsed"], 1);
    }

    #[test]
    fn labels_appear_once_they_are_counted() {
        let metrics = Metrics::default();
        metrics.count_malformed(431);
        metrics.count_malformed(431);
        let stats = render(&metrics);
        assert_eq!(stats["malformed"], json!({"431": 2}));
        assert_eq!(stats["refused"], json!({}));
    }

    #[test]
    fn open_connections_are_the_accepted_less_the_closed() {
        let metrics = Metrics::default();
        metrics.connections_accepted.add(3);
        metrics.connections_closed.add(1);
        assert_eq!(render(&metrics)["connections"]["open"], 2);
    }

    fn backend(name: &str, usable: bool) -> BackendStats {
        BackendStats {
            upstream: "main".to_owned(),
            name: Arc::from(name),
            usable,
            ..BackendStats::default()
        }
    }

    #[test]
    fn backends_are_listed_with_their_condition() {
        let stats = Stats {
            backends: vec![backend("http://a:1", true), backend("http://b:1", false)],
            ..Stats::default()
        };
        assert_eq!(
            Metrics::default().render(&stats, &Certificates::default(), BORN)["backends"],
            json!([{"name": "http://a:1", "usable": true}, {"name": "http://b:1", "usable": false}])
        );
    }

    #[test]
    fn handshakes_that_fail_are_counted_by_reason_and_together() {
        let metrics = Metrics::default();
        metrics.count_handshake_failure("timeout");
        metrics.count_handshake_failure("alpn");
        let stats = render(&metrics);
        assert_eq!(stats["handshakes"]["failed"], 2);
        assert_eq!(
            stats["handshakes"]["failures"],
            json!({"alpn": 1, "timeout": 1})
        );
    }

    fn acme() -> Acme {
        let told = |name: &str, trouble: Option<&str>| orders::Told {
            name: name.to_owned(),
            asked: false,
            under_way: trouble.is_none(),
            due: Some(BORN + Duration::from_secs(60)),
            failures: 2,
            trouble: trouble.map(str::to_owned),
        };
        Acme {
            directory: "https://acme.example/dir".to_owned(),
            names: vec![told("a.test", Some("no")), told("b.test", None)],
            issued: 3,
            failed: 4,
            refused: 5,
            outages: 1,
            resume_at: Some(BORN + Duration::from_secs(30)),
        }
    }

    #[test]
    fn orders_are_counted_under_names_that_stay_what_they_are() {
        let certificates = Certificates {
            acme: Some(acme()),
            ..Certificates::default()
        };
        let stats = Metrics::default().render(&Stats::default(), &certificates, BORN);
        assert_eq!(
            stats["acme"],
            json!({
                "failed": 4, "issued": 3, "names": 2, "outages": 1, "refused": 5,
                "resume_in_s": 30, "troubled": 1, "under_way": 1,
            })
        );
    }

    #[test]
    fn every_certificate_and_every_name_is_told_in_full() {
        let certificates = Certificates {
            all: vec![certificate("a.test", 200)],
            acme: Some(acme()),
            ..Certificates::default()
        };
        let told = certificates.render(BORN);
        assert_eq!(told["certificates"][0]["names"], json!(["a.test"]));
        assert_eq!(told["acme"]["directory"], "https://acme.example/dir");
        assert_eq!(
            told["acme"]["names"][0],
            json!({
                "name": "a.test", "asked_for": false, "under_way": false,
                "next_order": "1970-01-01T00:01:00Z", "next_order_in_s": 60,
                "failures": 2, "trouble": "no",
            })
        );
    }

    fn certificate(name: &str, not_after: u64) -> Certificate {
        Certificate {
            source: format!("{name}.pem"),
            names: vec![name.to_owned()],
            not_after: BORN + Duration::from_secs(not_after),
            stapled: false,
            trouble: None,
        }
    }

    #[test]
    fn the_certificate_that_expires_first_is_told_first() {
        let certificates = Certificates {
            all: vec![certificate("a.test", 200), certificate("b.test", 100)],
            ..Certificates::default()
        };
        let now = BORN + Duration::from_secs(150);
        let stats = Metrics::default().render(&Stats::default(), &certificates, now);
        let tls = &stats["tls"];
        assert_eq!(tls["certificates"], 2);
        assert_eq!(tls["expires_in_s"], -50);
        assert_eq!(tls["expire_first"][0]["names"][0], "b.test");
        assert_eq!(tls["expire_first"][0]["not_after"], "1970-01-01T00:01:40Z");
        assert_eq!(tls["expire_first"][1]["expires_in_s"], 50);
    }

    #[test]
    fn no_more_certificates_are_named_than_the_bound() {
        let all = (0..2 * CERTIFICATES_TOLD).map(|_| certificate("a.test", 1));
        let certificates = Certificates {
            all: all.collect(),
            ..Certificates::default()
        };
        let stats = Metrics::default().render(&Stats::default(), &certificates, BORN);
        let told = stats["tls"]["expire_first"].as_array().unwrap().len();
        assert_eq!(told, CERTIFICATES_TOLD);
    }
}
