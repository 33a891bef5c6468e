//! Every family of samples that scrapers get: its name, what it is and where its numbers come from.
//!
//! Names are an interface: `docs/metrics.md` lists them, and a test compares the two. Durations are in
//! seconds, sizes in bytes, sums end in `_total`. Every family is always there, so that a rule about
//! one can be told from a rule about nothing; a family by reason has a sample from the first of its
//! kind on.

use super::Acme;
use super::Certificates;
use super::Metrics;
use super::exposition::Form;
use super::exposition::Kind;
use super::exposition::Kind::Counter;
use super::exposition::Kind::Gauge;
use super::exposition::Kind::Histogram;
use super::exposition::Page;
use super::process;
use super::tally::Handled;
use super::tally::Totals;
use crate::flow::BackendStats;
use crate::flow::DirStats;
use crate::flow::Eviction;
use crate::flow::Stats;
use crate::state::curve::Told;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Writes all of them.
pub(super) fn page(
    form: Form,
    metrics: &Metrics,
    stats: &Stats,
    certificates: &Certificates,
    curve: &Told,
) -> String {
    let mut page = Page::new(form);
    about(&mut page);
    requests(&mut page, &metrics.requests.read());
    troubles(&mut page, metrics);
    connections(&mut page, metrics);
    handshakes(&mut page, metrics);
    certified(&mut page, certificates);
    obtained(&mut page, certificates.acme.as_ref());
    origins(&mut page, &stats.backends);
    origin_connections(&mut page, &stats.backends);
    upgrades(&mut page, stats);
    fills(&mut page, stats);
    held(&mut page, stats);
    sizes(&mut page, curve);
    dirs(&mut page, &stats.dirs);
    upkeep(&mut page, stats);
    events(&mut page, metrics);
    process::families(&mut page);
    page.finish()
}

fn about(page: &mut Page) {
    let help = "1, with what is running as labels.";
    page.family(Gauge, "larder_build_info", help)
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn requests(page: &mut Page, totals: &Totals) {
    let help = "Requests that ended, by how the cache handled them.";
    let mut family = page.family(Counter, "larder_requests", help);
    for (site, counts) in &totals.sites {
        for ((handled, detail), count) in &counts.requests {
            let (outcome, detail) = (handled.word(), *detail);
            let labels = [("site", &**site), ("outcome", outcome), ("detail", detail)];
            family.sample(&labels, count);
        }
    }
    let help = "Body bytes handed to connections.";
    let mut family = page.family(Counter, "larder_response_body_bytes", help);
    for (site, counts) in &totals.sites {
        for (handled, bytes) in &counts.bytes {
            family.sample(&[("site", site), ("outcome", handled.word())], bytes);
        }
    }
    let help = "Responses by the class of their status.";
    let mut family = page.family(Counter, "larder_responses", help);
    for (site, counts) in &totals.sites {
        for (class, count) in CLASSES.iter().zip(&counts.statuses) {
            if *count > 0 {
                family.sample(&[("site", site), ("code", class)], count);
            }
        }
    }
    for (name, help, readings) in [
        (
            "larder_request_duration_seconds",
            "From the arrival of a request to the last byte of its response.",
            &totals.took,
        ),
        (
            "larder_response_head_seconds",
            "From the arrival of a request to the head of its response.",
            &totals.head_after,
        ),
    ] {
        let mut family = page.family(Histogram, name, help);
        for (handled, reading) in Handled::ALL.into_iter().zip(readings) {
            // Most of the page would be steps of nothing.
            if reading.counts.iter().any(|count| *count > 0) || handled == Handled::Hit {
                family.histogram(&[("outcome", handled.word())], reading);
            }
        }
    }
    let stored = "Responses that were stored.";
    page.single(Counter, "larder_responses_stored", stored, totals.stored);
    let collapsed = "Requests that shared the trip of another to the origin.";
    page.single(
        Counter,
        "larder_requests_collapsed",
        collapsed,
        totals.collapsed,
    );
    let cut = "Responses whose body was not sent whole.";
    page.single(
        Counter,
        "larder_responses_incomplete",
        cut,
        totals.incomplete,
    );
}

fn troubles(page: &mut Page, metrics: &Metrics) {
    let help = "Requests refused before anything was looked up.";
    by(
        page,
        Counter,
        "larder_requests_refused",
        help,
        "reason",
        &metrics.refused.read(),
    );
    let help = "Bytes that were no request, by the status they were answered with; 0: none.";
    let malformed = metrics.malformed.read();
    by(
        page,
        Counter,
        "larder_requests_malformed",
        help,
        "code",
        &malformed,
    );
    let help = "Responses that are errors of ours, by their type in RFC 9209.";
    by(
        page,
        Counter,
        "larder_errors",
        help,
        "error",
        &metrics.errors.read(),
    );
    let help = "Clients that were given up because they took too long.";
    let mut family = page.family(Counter, "larder_client_timeouts", help);
    family.sample(
        &[("waiting_for", "request")],
        metrics.timeouts_request.value(),
    );
    family.sample(&[("waiting_for", "reader")], metrics.timeouts_write.value());
}

fn connections(page: &mut Page, metrics: &Metrics) {
    let accepted = metrics.connections_accepted.value();
    let help = "Connections of clients that were accepted.";
    page.single(Counter, "larder_connections_accepted", help, accepted);
    let open = accepted.saturating_sub(metrics.connections_closed.value());
    let help = "Connections of clients that are open.";
    page.single(Gauge, "larder_connections_open", help, open);
    let help = "HTTP/2 connections cut because the client sent too much beside requests.";
    page.single(Counter, "larder_http2_floods", help, metrics.floods.value());
    let help = "Connections that a proxy introduced by the PROXY protocol.";
    let taken = metrics.introductions_taken.value();
    page.single(Counter, "larder_proxy_protocol_connections", help, taken);
    let help = "Connections cut because they had to be introduced and were not.";
    let refused = metrics.unintroduced.read();
    by(
        page,
        Counter,
        "larder_proxy_protocol_refused",
        help,
        "reason",
        &refused,
    );
}

fn handshakes(page: &mut Page, metrics: &Metrics) {
    let help = "TLS handshakes that succeeded: full, resumed, or only for a proof of a name.";
    let mut family = page.family(Counter, "larder_tls_handshakes", help);
    family.sample(&[("kind", "full")], metrics.handshakes_full.value());
    family.sample(&[("kind", "resumed")], metrics.handshakes_resumed.value());
    family.sample(&[("kind", "proof")], metrics.handshakes_proofs.value());
    let help = "TLS handshakes that failed.";
    let failures = metrics.handshake_failures.read();
    by(
        page,
        Counter,
        "larder_tls_handshakes_failed",
        help,
        "reason",
        &failures,
    );
}

fn certified(page: &mut Page, certificates: &Certificates) {
    let all = &certificates.all;
    page.single(
        Gauge,
        "larder_tls_certificates",
        "Certificates that can be shown.",
        all.len(),
    );
    let troubled = all.iter().filter(|one| one.trouble.is_some()).count();
    page.single(
        Gauge,
        "larder_tls_certificates_troubled",
        "Certificates whose files have something wrong with them.",
        troubled,
    );
    let help = "When the first certificate expires, in seconds since 1970; absent without any.";
    let mut family = page.family(
        Gauge,
        "larder_tls_certificate_expiry_timestamp_seconds",
        help,
    );
    if let Some(first) = all.iter().map(|one| one.not_after).min() {
        let since = first.duration_since(SystemTime::UNIX_EPOCH);
        family.sample(&[], since.unwrap_or_default().as_secs());
    }
    let help = "Certificate files that had changed, by whether they were taken up.";
    let mut family = page.family(Counter, "larder_tls_certificate_files", help);
    family.sample(&[("result", "taken")], certificates.files_taken);
    family.sample(&[("result", "refused")], certificates.files_refused);
}

fn obtained(page: &mut Page, acme: Option<&Acme>) {
    let help = "Names that certificates are obtained for.";
    let mut family = page.family(Gauge, "larder_acme_names", help);
    if let Some(acme) = acme {
        family.sample(&[], acme.names.len());
    }
    let help = "Names whose last order failed.";
    let mut family = page.family(Gauge, "larder_acme_names_troubled", help);
    if let Some(acme) = acme {
        let troubled = acme.names.iter().filter(|name| name.trouble.is_some());
        family.sample(&[], troubled.count());
    }
    let help = "Orders at the authority: issued, failed, or refused before they were made.";
    let mut family = page.family(Counter, "larder_acme_orders", help);
    if let Some(acme) = acme {
        family.sample(&[("result", "issued")], acme.issued);
        family.sample(&[("result", "failed")], acme.failed);
        family.sample(&[("result", "refused")], acme.refused);
    }
}

/// The labels of a backend.
fn backend(backend: &BackendStats) -> [(&'static str, &str); 2] {
    [("upstream", &backend.upstream), ("backend", &backend.name)]
}

fn origins(page: &mut Page, backends: &[BackendStats]) {
    let help = "Whether a backend is asked.";
    let mut family = page.family(Gauge, "larder_origin_up", help);
    for each in backends {
        family.sample(&backend(each), u8::from(each.usable));
    }
    let help = "Responses from a backend by the class of their status.";
    let mut family = page.family(Counter, "larder_origin_responses", help);
    for each in backends {
        for (class, count) in CLASSES.iter().zip(&each.answers) {
            if *count > 0 {
                let [upstream, name] = backend(each);
                family.sample(&[upstream, name, ("code", class)], count);
            }
        }
    }
    let help = "Exchanges with a backend that brought no response, by error type of RFC 9209.";
    let mut family = page.family(Counter, "larder_origin_errors", help);
    for each in backends {
        for (error, count) in &each.errors {
            let [upstream, name] = backend(each);
            family.sample(&[upstream, name, ("error", error)], count);
        }
    }
    let help = "From the decision to ask a backend to the head of its response.";
    let mut family = page.family(Histogram, "larder_origin_response_head_seconds", help);
    for each in backends {
        family.histogram(&backend(each), &each.took);
    }
    let help = "Interim (1xx) responses from a backend; they go no further.";
    let mut family = page.family(Counter, "larder_origin_interim_responses", help);
    for each in backends {
        family.sample(&backend(each), each.interim);
    }
}

fn origin_connections(page: &mut Page, backends: &[BackendStats]) {
    let help = "Open connections to a backend.";
    let mut family = page.family(Gauge, "larder_origin_connections_open", help);
    for each in backends {
        family.sample(&backend(each), each.connections.open);
    }
    let help = "Open connections to a backend that carry nothing.";
    let mut family = page.family(Gauge, "larder_origin_connections_idle", help);
    for each in backends {
        family.sample(&backend(each), each.connections.idle);
    }
    let help = "Connections to a backend that were opened.";
    let mut family = page.family(Counter, "larder_origin_connections_opened", help);
    for each in backends {
        family.sample(&backend(each), each.connections.opened);
    }
    let help = "Requests that wait for a connection to a backend.";
    let mut family = page.family(Gauge, "larder_origin_requests_waiting", help);
    for each in backends {
        family.sample(&backend(each), each.connections.waiting);
    }
}

fn upgrades(page: &mut Page, stats: &Stats) {
    let tunnels = &stats.tunnels;
    let help = "Upgraded connections that are open.";
    page.single(Gauge, "larder_upgrades_open", help, tunnels.open);
    let help = "Connections that were upgraded.";
    page.single(Counter, "larder_upgrades", help, tunnels.opened);
    let help = "Bytes over upgraded connections, by who sent them.";
    let mut family = page.family(Counter, "larder_upgrades_bytes", help);
    family.sample(&[("from", "client")], tunnels.from_clients);
    family.sample(&[("from", "origin")], tunnels.to_clients);
}

fn fills(page: &mut Page, stats: &Stats) {
    let help = "Responses that are being stored.";
    page.single(Gauge, "larder_fills_active", help, stats.fills_active);
    let help = "Bytes that fills hold in memory.";
    page.single(Gauge, "larder_fill_memory_bytes", help, stats.fill_bytes);
    let help = "Variants pushed out because their target had too many.";
    let pushed_out = stats.variants_pushed_out;
    page.single(Counter, "larder_variants_pushed_out", help, pushed_out);
}

fn held(page: &mut Page, stats: &Stats) {
    let help = "Bytes of hot responses in memory.";
    page.single(Gauge, "larder_memory_bytes", help, stats.memory_bytes);
    let help = "Distinct bodies in the store.";
    page.single(Gauge, "larder_store_bodies", help, stats.bodies);
    let help = "Bytes of stored heads and bodies that are alive.";
    page.single(Gauge, "larder_store_live_bytes", help, stats.live_bytes);
    let help = "1 while nothing can be stored and requests pass through.";
    let passes = u8::from(stats.pass_through.is_some());
    page.single(Gauge, "larder_store_pass_through", help, passes);
}

fn sizes(page: &mut Page, curve: &Told) {
    let help =
        "Part of the requests that a store of so many times the size would answer, estimated.";
    let mut family = page.family(Gauge, "larder_store_size_hit_ratio", help);
    for point in &curve.points {
        let times = times(point.halves);
        family.sample(&[("times", &times)], point.requests_ratio);
    }
    let help = "Part of the bytes that a store of so many times the size would answer, estimated.";
    let mut family = page.family(Gauge, "larder_store_size_byte_hit_ratio", help);
    for point in &curve.points {
        let times = times(point.halves);
        family.sample(&[("times", &times)], point.bytes_ratio);
    }
}

/// A size next to today's.
fn times(halves: u64) -> String {
    match halves.checked_rem(2) {
        Some(0) => (halves / 2).to_string(),
        Some(_) | None => format!("{}.5", halves / 2),
    }
}

/// A number of each directory: kind, name, help, and where it stands.
type OfDir = (Kind, &'static str, &'static str, fn(&DirStats) -> u64);

fn dirs(page: &mut Page, dirs: &[DirStats]) {
    for (kind, name, help, number) in OF_DIRS {
        let mut family = page.family(*kind, name, help);
        for dir in dirs {
            let path = dir.path.display().to_string();
            family.sample(&[("dir", &path)], number(dir));
        }
    }
}

fn upkeep(page: &mut Page, stats: &Stats) {
    let done = &stats.upkeep;
    let help = "Entries that went from the store unasked: for room, covered by a purge, of no use \
                any more, or with a pack that was lost.";
    let mut family = page.family(Counter, "larder_store_evictions", help);
    for reason in Eviction::ALL {
        family.sample(&[("reason", reason.token())], done.evicted(reason));
    }
    let help = "Packs that were deleted.";
    page.single(Counter, "larder_store_packs_dropped", help, done.dropped);
    let help = "Packs that were emptied by compaction.";
    page.single(Counter, "larder_store_packs_compacted", help, done.emptied);
    let help = "Bytes that compaction has written again.";
    page.single(
        Counter,
        "larder_store_compaction_bytes",
        help,
        done.moved_bytes,
    );
    let help = "Snapshots of the journal that were written.";
    page.single(Counter, "larder_store_snapshots", help, done.snapshots);
}

fn events(page: &mut Page, metrics: &Metrics) {
    let help = "Reloads of the config, by whether it was taken up.";
    let mut family = page.family(Counter, "larder_config_reloads", help);
    family.sample(&[("result", "done")], metrics.reloads_done.value());
    family.sample(&[("result", "refused")], metrics.reloads_refused.value());
    let help = "Times that another process was to take over, and this one went on instead.";
    let failed = metrics.takeovers_failed.value();
    page.single(Counter, "larder_takeovers_failed", help, failed);
    let help = "Spans that a collector has taken.";
    page.single(
        Counter,
        "larder_trace_spans_sent",
        help,
        metrics.spans_sent.value(),
    );
    let help = "Spans that were lost because no collector took them, or not fast enough.";
    let dropped = metrics.spans_dropped.value();
    page.single(Counter, "larder_trace_spans_dropped", help, dropped);
    let help = "Access log lines given up because the writer could not follow or write.";
    let dropped = metrics.access_log_dropped.value();
    page.single(Counter, "larder_access_log_lines_dropped", help, dropped);
}

/// A family with one label, a sample for each of its values that was counted.
fn by(
    page: &mut Page,
    kind: Kind,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    counts: &BTreeMap<String, u64>,
) {
    let mut family = page.family(kind, name, help);
    for (value, count) in counts {
        family.sample(&[(label, value)], count);
    }
}

const OF_DIRS: &[OfDir] = &[
    (
        Gauge,
        "larder_store_dir_up",
        "Whether a directory of the store is used.",
        |dir| u64::from(dir.out.is_none()),
    ),
    (
        Counter,
        "larder_store_dir_outs",
        "Times that a directory was taken out because of its disk.",
        |dir| dir.outs,
    ),
    (Gauge, "larder_store_entries", "Stored responses.", |dir| {
        dir.entries
    }),
    (
        Gauge,
        "larder_store_bytes",
        "Bytes that a directory takes on its disk.",
        |dir| dir.usage.allocated,
    ),
    (
        Gauge,
        "larder_store_limit_bytes",
        "Bytes that a directory may take on its disk.",
        |dir| dir.usage.limit,
    ),
    (Gauge, "larder_store_packs", "Packs on disk.", |dir| {
        dir.usage.packs
    }),
    (
        Counter,
        "larder_store_appended_bytes",
        "Bytes of heads and bodies that were stored, compaction included.",
        |dir| dir.usage.appended,
    ),
    (
        Counter,
        "larder_store_packs_written_bytes",
        "Bytes of packs that were written.",
        |dir| dir.usage.packs_written,
    ),
    (
        Counter,
        "larder_store_journal_entries",
        "Entries whose record was written to the journal.",
        |dir| dir.usage.journaled,
    ),
    (
        Counter,
        "larder_store_journal_written_bytes",
        "Bytes of journals and snapshots that were written.",
        |dir| dir.usage.journal_written,
    ),
    (
        Counter,
        "larder_store_corrupt",
        "Stored pieces that failed their check; they were fetched again.",
        |dir| dir.usage.corrupt,
    ),
    (
        Counter,
        "larder_store_read_errors",
        "Reads that the disk refused or did not answer in time.",
        |dir| dir.usage.read_errors,
    ),
    (
        Counter,
        "larder_store_write_errors",
        "Writes that the disk refused or did not answer in time.",
        |dir| dir.usage.write_errors,
    ),
];

/// The classes of statuses, by their first digit from 1 on.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Report;
    use crate::flow::Tunnels;
    use crate::flow::meter::Reading;
    use crate::ops::access_log::tests::report;
    use crate::ops::metrics::Certificate;
    use crate::rules::proxy_status::ProxyError;
    use crate::rules::request::Refusal;
    use crate::state::curve;
    use crate::state::curve::Curve;
    use crate::state::eviction;
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// Figures with a sample of every family.
    fn everything() -> (Metrics, Stats, Certificates) {
        let metrics = Metrics::default();
        metrics.count(&Report {
            site: Some(Arc::from("a.test")),
            refusal: Some(Refusal::BadHost),
            error: Some(ProxyError::HttpRequestError),
            ..report()
        });
        metrics.count_malformed(400);
        metrics.count_handshake_failure("alpn");
        metrics.count_unintroduced("missing");
        let backend = BackendStats {
            upstream: "main".to_owned(),
            name: Arc::from("http://a:1"),
            answers: [0, 1, 0, 0, 0],
            errors: vec![("dns_error", 1)],
            took: Reading::default(),
            ..BackendStats::default()
        };
        let dir = DirStats {
            path: PathBuf::from("store"),
            ..DirStats::default()
        };
        let stats = Stats {
            backends: vec![backend],
            dirs: vec![dir],
            tunnels: Tunnels::default(),
            ..Stats::default()
        };
        let certificate = Certificate {
            source: "a.pem".to_owned(),
            names: Vec::new(),
            not_after: SystemTime::UNIX_EPOCH,
            stapled: false,
            trouble: None,
        };
        let certificates = Certificates {
            all: vec![certificate],
            acme: Some(Acme::default()),
            ..Certificates::default()
        };
        (metrics, stats, certificates)
    }

    /// What a page has: of each family its name, kind, labels and help, as a row of a table.
    fn rows(page: &str) -> Vec<String> {
        let mut helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
        let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let rows = kinds.map(|told| {
            let (name, kind) = told.split_once(' ').unwrap();
            let help = helps.next().unwrap().strip_prefix(name).unwrap();
            let of_family = |line: &&str| {
                let sample = line.split(['{', ' ']).next().unwrap();
                let suffix = sample.strip_prefix(name);
                suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
            };
            let samples: Vec<&str> = page.lines().filter(of_family).collect();
            assert!(!samples.is_empty(), "{name} has no sample");
            let labels: BTreeSet<&str> = samples.iter().flat_map(|line| labels(line)).collect();
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {kind} | {} |{help} |", labels.join(", "))
        });
        rows.collect()
    }

    fn labels(sample: &str) -> Vec<&str> {
        let within = sample.split_once('{').map_or("", |(_, rest)| rest);
        let names = within
            .split("\",")
            .flat_map(|label| label.split_once("=\""));
        let names = names.map(|(name, _)| name);
        names.filter(|name| *name != "le").collect()
    }

    /// A page of a store that nobody has asked for anything.
    fn page(form: Form, metrics: &Metrics, stats: &Stats, certificates: &Certificates) -> String {
        let params = eviction::Params {
            favour: eviction::Favour::Bytes,
            second_request_over: 0,
        };
        let told = Curve::new(0, params, 2).tell(curve::Totals::default());
        super::page(form, metrics, stats, certificates, &told)
    }

    #[test]
    fn the_document_lists_what_is_served_and_nothing_else() {
        let (metrics, stats, certificates) = everything();
        let served = rows(&page(Form::Text, &metrics, &stats, &certificates));
        let document = include_str!("../../../docs/metrics.md");
        let listed = document.lines().filter(|line| {
            ["| `larder_", "| `process_"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        let listed: Vec<_> = listed.collect();
        assert_eq!(
            listed,
            served,
            "docs/metrics.md should say\n{}",
            served.join("\n")
        );
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let (metrics, stats, certificates) = everything();
        for row in rows(&page(Form::Text, &metrics, &stats, &certificates)) {
            let cells: Vec<_> = row.split(" | ").collect();
            let (name, kind) = (cells[0].trim_matches(['|', ' ', '`']), cells[1]);
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(name.bytes().all(fits), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(!name.contains("_us_") && !name.ends_with("_ms"), "{name}");
        }
    }

    #[test]
    fn both_forms_have_the_same_samples() {
        let (metrics, stats, certificates) = everything();
        let samples = |form| {
            let page = page(form, &metrics, &stats, &certificates);
            let samples = page.lines().filter(|line| !line.starts_with('#'));
            // What the system says changes from one to the next.
            let samples = samples.filter(|line| !line.starts_with("process_"));
            samples.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(Form::Text), samples(Form::OpenMetrics));
    }

    #[test]
    fn no_family_goes_missing_where_nothing_was_counted() {
        let empty = page(
            Form::Text,
            &Metrics::default(),
            &Stats::default(),
            &Certificates::default(),
        );
        let (metrics, stats, certificates) = everything();
        let full = page(Form::Text, &metrics, &stats, &certificates);
        let told = |page: &str| -> Vec<String> {
            let told = page.lines().filter(|line| line.starts_with("# TYPE"));
            told.map(str::to_owned).collect()
        };
        assert_eq!(told(&empty), told(&full));
    }
}
