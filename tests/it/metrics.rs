//! What scrapers get: figures that add up, in formats that hold, with labels no client can add to.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::client::Client;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::exposition::Page;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::ClosedPort;
use crate::scene::Scene;
use crate::scene::eventually;

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";

/// One scrape, in the text format.
#[track_caller]
fn scrape(scene: &Scene) -> Page {
    let answer = scene.operate("GET", "/metrics", "");
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    answer.is(200).has("content-type", kind);
    Page::text(&String::from_utf8_lossy(&answer.body))
}

/// A scrape once so many requests have been counted.
#[track_caller]
fn scrape_after(scene: &Scene, requests: u64) -> Page {
    scene.await_stat("requests", |counted| counted >= requests);
    scrape(scene)
}

#[test]
fn requests_are_counted_by_site_outcome_and_detail() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("four").fresh());
    let private = Reply::ok("v1").header("Cache-Control", "private");
    scene.origin.says("/private", private);
    scene.get("/a").by("uri-miss");
    scene.get("/a").by("hit");
    scene.get("/a").by("hit");
    scene.get("/private").is(200);
    scene.ask("TRACE", "/a", &[], b"").is(405);
    let page = scrape_after(&scene, 5);
    let requests = |labels: &[(&str, &str)]| page.sum("larder_requests_total", labels);
    assert_eq!(requests(&[("site", "*"), ("outcome", "hit")]), 2.0);
    let stored = [("outcome", "uri-miss"), ("detail", "")];
    assert_eq!(requests(&stored), 1.0);
    let private = [("outcome", "uri-miss"), ("detail", "private")];
    assert_eq!(requests(&private), 1.0);
    let refused = [
        ("site", "*"),
        ("outcome", "own"),
        ("detail", "trace-method"),
    ];
    assert_eq!(requests(&refused), 1.0);
    assert_eq!(requests(&[]), 5.0);
    let bytes = [("site", "*"), ("outcome", "hit")];
    assert_eq!(page.sum("larder_response_body_bytes_total", &bytes), 8.0);
    let ok = [("code", "2xx")];
    assert_eq!(page.sum("larder_responses_total", &ok), 4.0);
    assert_eq!(page.sum("larder_responses_stored_total", &[]), 1.0);
    let reason = [("reason", "trace-method")];
    assert_eq!(page.sum("larder_requests_refused_total", &reason), 1.0);
}

#[test]
fn durations_are_counted_by_outcome_and_by_backend() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss");
    scene.get("/a").by("hit");
    let page = scrape_after(&scene, 2);
    for outcome in ["hit", "uri-miss"] {
        let labels = [("outcome", outcome)];
        for name in [
            "larder_request_duration_seconds",
            "larder_response_head_seconds",
        ] {
            assert_eq!(page.sum(&format!("{name}_count"), &labels), 1.0, "{name}");
        }
    }
    let url = scene.origin.url();
    let backend = [("upstream", "main"), ("backend", url.as_str())];
    let name = "larder_origin_response_head_seconds_count";
    assert_eq!(page.sum(name, &backend), 1.0);
    let answers = [backend[0], backend[1], ("code", "2xx")];
    assert_eq!(page.sum("larder_origin_responses_total", &answers), 1.0);
    assert_eq!(page.sum("larder_origin_up", &backend), 1.0);
    assert_eq!(
        page.sum("larder_origin_connections_opened_total", &backend),
        1.0
    );
    assert_eq!(page.sum("larder_origin_connections_open", &backend), 1.0);
}

#[test]
fn what_an_origin_gets_wrong_is_counted_by_reason() {
    let nobody = ClosedPort::new();
    let url = nobody.url();
    let scene = Scene::new()
        .upstream("backends", &format!("[{url:?}]"))
        .start();
    scene.get("/a").is(502);
    let page = scrape_after(&scene, 1);
    let refused = [("backend", url.as_str()), ("error", "connection_refused")];
    assert!(page.sum("larder_origin_errors_total", &refused) >= 1.0);
    let error = [("error", "connection_refused")];
    assert_eq!(page.sum("larder_errors_total", &error), 1.0);
    assert_eq!(page.sum("larder_origin_connections_open", &[]), 0.0);
}

#[test]
fn a_connection_that_waits_for_its_answer_is_open_and_not_idle() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").fresh().held(&gate));
    let mut client = scene.connect();
    client.get("/a");
    scene.origin.await_requests("/a", 1);
    let page = scrape(&scene);
    assert_eq!(page.sum("larder_origin_connections_open", &[]), 1.0);
    assert_eq!(page.sum("larder_origin_connections_idle", &[]), 0.0);
    gate.open();
    client.answer("GET").sees("v1");
    eventually("the connection to be idle", || {
        scrape(&scene).sum("larder_origin_connections_idle", &[]) == 1.0
    });
}

#[test]
fn open_metrics_has_the_same_figures_for_who_asks_for_it() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    let text = scrape_after(&scene, 1);
    let answer = Client::connect(scene.admin())
        .ask("GET", "/metrics", &[("Accept", OPEN_METRICS)], b"")
        .answer("GET");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    answer.is(200).has("content-type", kind);
    let open = Page::open_metrics(&String::from_utf8_lossy(&answer.body));
    assert_eq!(open.kinds.len(), text.kinds.len());
    for name in [
        "larder_requests_total",
        "larder_origin_up",
        "larder_build_info",
    ] {
        assert_eq!(open.sum(name, &[]), text.sum(name, &[]), "{name}");
    }
}

#[test]
fn nothing_a_client_sends_becomes_a_label() {
    let scene = Scene::usual();
    for number in 0..20 {
        let host = format!("host-{number}.example");
        let agent = format!("agent-{number}\"\n");
        let fields = [("Host", host.as_str()), ("User-Agent", agent.trim())];
        scene.get_with(&format!("/path-{number}"), &fields);
        scene.ask(&format!("METHOD{number}"), "/a", &[], b"");
    }
    let page = scrape_after(&scene, 40);
    assert!(
        page.values("site")
            .iter()
            .all(|site| ["*", "(none)"].contains(site))
    );
    for label in [
        "outcome", "detail", "reason", "error", "code", "upstream", "backend",
    ] {
        for value in page.values(label) {
            assert!(
                !value.contains("host-") && !value.contains("METHOD"),
                "{label}={value}"
            );
        }
    }
}

#[test]
fn sites_and_backends_of_another_config_are_counted_apart() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    let path = scene.config();
    let config = fs::read_to_string(&path).unwrap();
    let next = config.replace("hosts = [\"*\"]", "hosts = [\"scene.test\", \"*\"]");
    assert_ne!(config, next);
    fs::write(&path, next).unwrap();
    scene.operate("POST", "/reload", "").is(200);
    scene.get("/a").is(200);
    let page = scrape_after(&scene, 2);
    for site in ["*", "scene.test"] {
        assert_eq!(
            page.sum("larder_requests_total", &[("site", site)]),
            1.0,
            "{site}"
        );
    }
    let done = [("result", "done")];
    assert_eq!(page.sum("larder_config_reloads_total", &done), 1.0);
}

#[test]
fn handshakes_are_counted_by_kind_and_failures_by_reason() {
    let setup = Scene::new()
        .server("https", "[\"127.0.0.1:0\"]")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    let authority = Authority::new("Scene");
    authority.server(&["scene.test"]).write(setup.dir(), "c");
    let scene = setup.start();
    let line = Dial::new().connect(scene.tls_front(), "scene.test");
    line.expect("a connection").client().get("/a").answer("GET");
    Client::connect(scene.tls_front())
        .get("/a")
        .try_begin("GET");
    let failed = "larder_tls_handshakes_failed_total";
    eventually("the failure to be counted", || {
        scrape(&scene).sum(failed, &[]) == 1.0
    });
    let page = scrape(&scene);
    let full = [("kind", "full")];
    assert_eq!(page.sum("larder_tls_handshakes_total", &full), 1.0);
    assert_eq!(page.sum(failed, &[("reason", "malformed")]), 1.0);
    assert_eq!(page.sum("larder_tls_certificates", &[]), 1.0);
    assert!(page.sum("larder_tls_certificate_expiry_timestamp_seconds", &[]) > 0.0);
}

#[test]
fn entries_that_make_room_are_counted_and_so_is_what_the_store_takes() {
    let scene = Scene::new().cache("disk_bytes_max", "\"64MiB\"").start();
    scene.origin.does("*", |seen| {
        // No two bodies are the same one.
        let number = seen.target.trim_start_matches('/').parse();
        Reply::ok(noise(number.unwrap(), 1 << 20)).fresh()
    });
    let evicted = || scrape(&scene).sum("larder_store_evictions_total", &[("reason", "room")]);
    let mut number = 0;
    eventually("something to be evicted", || {
        number += 1;
        scene.get(&format!("/{number}")).is(200);
        evicted() > 0.0
    });
    let page = scrape(&scene);
    let bytes = page.sum("larder_store_bytes", &[]);
    assert!(bytes > 0.0 && bytes <= page.sum("larder_store_limit_bytes", &[]));
    for name in [
        "larder_store_packs",
        "larder_store_entries",
        "larder_store_live_bytes",
    ] {
        assert!(page.sum(name, &[]) > 0.0, "{name}");
    }
    assert!(page.sum("larder_store_packs_dropped_total", &[]) > 0.0);
}

#[test]
fn scrapers_need_the_token_where_there_is_one() {
    let setup = Scene::new().set("admin", "token_file", "\"token\"");
    fs::write(setup.dir().join("token"), "s3cret").unwrap();
    let scene = setup.start();
    scene.operate("GET", "/metrics", "").is(401);
    let bearing = [("Authorization", "Bearer s3cret")];
    let answer = Client::connect(scene.admin())
        .ask("GET", "/metrics", &bearing, b"")
        .answer("GET");
    Page::text(&String::from_utf8_lossy(&answer.is(200).body));
}

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(path)
}

/// The words of an expression that name metrics.
fn metrics_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = |word: &&str| word.starts_with("larder_") || word.starts_with("process_");
    words.filter(ours).collect()
}

#[test]
fn the_dashboard_shows_only_what_is_there() {
    let scene = Scene::usual();
    let known = scrape(&scene).names();
    let text = fs::read_to_string(contrib("grafana/larder.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = Vec::new();
    let mut shown = 0;
    for panel in panels {
        ids.push(panel["id"].as_u64().unwrap());
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let named = metrics_in(expression);
            assert!(!named.is_empty(), "{title}: {expression}");
            for name in named {
                assert!(known.contains(name), "{title}: {name} is not served");
                shown += 1;
            }
        }
    }
    assert!(shown > 20, "only {shown}");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "panels share ids");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"].as_str().map(str::to_owned);
        let query = query.unwrap_or_else(|| variable["query"]["query"].to_string());
        for name in metrics_in(&query) {
            assert!(known.contains(name), "{name} is not served");
        }
    }
}

#[test]
fn alert_rules_ask_only_for_what_is_there_or_what_they_record() {
    let scene = Scene::usual();
    let known = scrape(&scene).names();
    let text = fs::read_to_string(contrib("prometheus/larder.rules.yml")).unwrap();
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let mut alerts = 0;
    for line in &code {
        if line.contains("alert: ") {
            alerts += 1;
        }
        // Names with a colon are what the rules record themselves.
        for name in metrics_in(line)
            .into_iter()
            .filter(|name| !name.contains(':'))
        {
            assert!(known.contains(name), "{name} is not served: {line}");
        }
    }
    assert!(alerts >= 10, "only {alerts}");
    let count = |key: &str| code.iter().filter(|line| line.contains(key)).count();
    assert_eq!(count("summary: "), alerts, "each alert says what is wrong");
    assert_eq!(count("severity: "), alerts, "each alert says how bad it is");
}
