//! Traces: what a collector is told, what origins are told, and what it costs when nobody listens.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::origin::Origin;
use crate::origin::Reply;
use crate::scene::ClosedPort;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A scene that tells a collector of every request.
fn traced(collector: &str) -> Setup {
    Scene::new()
        .set("traces", "enabled", "true")
        .set("traces", "endpoint", &format!("\"{collector}/v1/traces\""))
        .set("traces", "one_in", "1")
}

fn collector() -> Origin {
    let collector = Origin::new();
    collector.says("/v1/traces", Reply::ok("{}"));
    collector
}

/// Every span that the collector was told, once there are so many.
#[track_caller]
fn spans(collector: &Origin, wanted: usize) -> Vec<Value> {
    let mut spans = Vec::new();
    eventually("spans", || {
        spans.clear();
        for seen in collector.seen("/v1/traces") {
            assert_eq!(seen.header("content-type"), Some("application/json"));
            let told: Value = serde_json::from_slice(&seen.body).expect("JSON");
            let scopes = told["resourceSpans"][0]["scopeSpans"].as_array().unwrap();
            let told = scopes
                .iter()
                .flat_map(|scope| scope["spans"].as_array().unwrap());
            spans.extend(told.cloned());
        }
        spans.len() >= wanted
    });
    assert_eq!(spans.len(), wanted, "{spans:#?}");
    spans
}

#[track_caller]
fn of_kind(spans: &[Value], kind: u64) -> &Value {
    let mut found = spans.iter().filter(|span| span["kind"] == kind);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no span of kind {kind}"));
    assert!(found.next().is_none(), "more than one of kind {kind}");
    span
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s Value {
    let mut all = span["attributes"].as_array().unwrap().iter();
    all.find(|attribute| attribute["key"] == key)
        .map_or(&Value::Null, |attribute| &attribute["value"])
}

fn nanos(span: &Value, key: &str) -> u128 {
    span[key].as_str().unwrap().parse().unwrap()
}

const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

#[test]
fn a_miss_is_a_request_a_lookup_and_an_exchange_in_the_clients_trace() {
    let collector = collector();
    let scene = traced(&collector.url()).start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let fields = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    scene.get_with("/a?q=secret", &fields).is(404);
    scene.get_with("/a", &fields).by("uri-miss");
    let all = spans(&collector, 6);
    let told = all
        .iter()
        .filter(|span| !span.to_string().contains("\"404\""));
    assert!(told.count() < all.len(), "the status is told");
    assert!(!all.iter().any(|span| span.to_string().contains("secret")));
    let ids: BTreeSet<_> = all.iter().map(|span| span["spanId"].to_string()).collect();
    assert_eq!(ids.len(), 6, "every span has an id of its own");
    assert!(all.iter().all(|span| span["traceId"] == TRACE));
    // The second request's: those under the span that was told with its key.
    let seen = scene.origin.last("/a");
    let told: Vec<_> = seen.header("traceparent").unwrap().split('-').collect();
    assert_eq!((told[0], told[1], told[3]), ("00", TRACE, "01"));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));
    let exchange = all.iter().find(|span| span["spanId"] == told[2]).unwrap();
    let request = &exchange["parentSpanId"];
    let own = |span: &&Value| span["spanId"] == *request || span["parentSpanId"] == *request;
    let of_request: Vec<Value> = all.iter().filter(own).cloned().collect();
    assert_eq!(of_request.len(), 3);
    let (server, lookup) = (of_kind(&of_request, SERVER), of_kind(&of_request, INTERNAL));
    assert_eq!(server["parentSpanId"], PARENT);
    assert_eq!(server["name"], "GET");
    assert_eq!(attribute(server, "url.path")["stringValue"], "/a");
    assert_eq!(
        attribute(server, "http.response.status_code")["intValue"],
        "200"
    );
    assert_eq!(
        attribute(server, "larder.cache.fwd")["stringValue"],
        "uri-miss"
    );
    assert_eq!(lookup["name"], "lookup");
    assert_eq!(attribute(lookup, "larder.cache.hit")["boolValue"], false);
    let backend = &attribute(exchange, "larder.backend")["stringValue"];
    assert_eq!(*backend, scene.origin.url());
    assert_eq!(exchange["kind"], CLIENT);
    for span in [lookup, exchange] {
        let [from, to] = ["startTimeUnixNano", "endTimeUnixNano"];
        assert!(nanos(server, from) <= nanos(span, from), "{span}");
        assert!(nanos(span, from) <= nanos(span, to), "{span}");
        assert!(nanos(span, from) <= nanos(server, to), "{span}");
    }
}

#[test]
fn a_hit_asks_nobody_and_begins_a_trace_of_its_own() {
    let collector = collector();
    let scene = traced(&collector.url()).start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss");
    spans(&collector, 3);
    scene.get("/a").by("hit");
    let all = spans(&collector, 5);
    let traces: BTreeSet<_> = all.iter().map(|span| span["traceId"].to_string()).collect();
    assert_eq!(traces.len(), 2);
    let hit = &all[3..];
    let server = of_kind(hit, SERVER);
    assert_eq!(server["parentSpanId"], "");
    assert_eq!(attribute(server, "larder.cache.hit")["boolValue"], true);
    let lookup = of_kind(hit, INTERNAL);
    assert_eq!(lookup["parentSpanId"], server["spanId"]);
    assert_eq!(attribute(lookup, "larder.cache.hit")["boolValue"], true);
    scene.await_stat("requests", |requests| requests == 2);
    let page = scene.operate("GET", "/metrics", "");
    assert!(String::from_utf8_lossy(&page.body).contains("larder_trace_spans_sent_total 5\n"));
}

#[test]
fn an_exchange_that_fails_says_why() {
    let collector = collector();
    let nobody = ClosedPort::new();
    let backends = format!("[{:?}]", nobody.url());
    let scene = traced(&collector.url())
        .upstream("backends", &backends)
        .start();
    scene.get("/a").is(502);
    let all = spans(&collector, 3);
    for kind in [SERVER, CLIENT] {
        let span = of_kind(&all, kind);
        assert_eq!(span["status"]["code"], 2, "{span}");
        let error = &attribute(span, "error.type")["stringValue"];
        assert_eq!(*error, "connection_refused", "{span}");
    }
}

#[test]
fn a_trusted_proxy_decides_what_is_told_and_origins_hear_of_it() {
    let collector = collector();
    let scene = traced(&collector.url())
        .server("trusted_proxies", "[\"127.0.0.1/32\"]")
        .start();
    scene.origin.does("*", |_| Reply::ok("v1"));
    let ask = |target: &str, flags: &str| {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let fields = [
            ("traceparent", parent.as_str()),
            ("X-Forwarded-For", "192.0.2.1"),
        ];
        scene.get_with(target, &fields).is(200);
        scene
            .origin
            .last(target)
            .header("traceparent")
            .unwrap()
            .to_owned()
    };
    let told = ask("/unsampled", "00");
    assert!(
        told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"),
        "{told}"
    );
    assert!(!told.contains(PARENT), "{told}");
    assert!(ask("/sampled", "01").ends_with("-01"));
    let all = spans(&collector, 3);
    let server = of_kind(&all, SERVER);
    assert_eq!(attribute(server, "url.path")["stringValue"], "/sampled");
}

#[test]
fn nobody_is_told_anything_unless_the_operator_says_so() {
    let scene = Scene::usual();
    scene.origin.does("*", |_| Reply::ok("v1"));
    scene.get("/a").is(200);
    assert_eq!(scene.origin.last("/a").header("traceparent"), None);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    scene.get_with("/b", &[("traceparent", &parent)]).is(200);
    assert_eq!(
        scene.origin.last("/b").header("traceparent"),
        Some(parent.as_str())
    );
}

#[test]
fn a_collector_that_is_not_there_costs_only_the_spans() {
    let nobody = ClosedPort::new();
    let scene = traced(&nobody.url()).start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss");
    scene.get("/a").by("hit");
    let lost = "larder_trace_spans_dropped_total 5\n";
    eventually("spans to be lost", || {
        let page = scene.operate("GET", "/metrics", "");
        String::from_utf8_lossy(&page.body).contains(lost)
    });
    assert!(scene.stderr().contains("traces do not arrive"));
}

#[test]
fn a_reload_begins_and_ends_traces() {
    let collector = collector();
    let scene = traced(&collector.url())
        .set("traces", "enabled", "false")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss");
    let turn = |from: &str, to: &str| {
        let path = scene.config();
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace(from, to)).unwrap();
        scene.operate("POST", "/reload", "").is(200);
    };
    turn("enabled = false", "enabled = true");
    scene.get("/a").by("hit");
    spans(&collector, 2);
    turn("enabled = true", "enabled = false");
    scene.get("/a").by("hit");
    scene.await_stat("requests", |requests| requests == 3);
    spans(&collector, 2);
}

#[test]
fn an_endpoint_that_cannot_be_one_is_refused() {
    for endpoint in ["https://a.test/v1/traces", "a.test:4318", "", "http://"] {
        let scene = Scene::new()
            .set("traces", "enabled", "true")
            .set("traces", "endpoint", &format!("{endpoint:?}"))
            .stopped();
        let checked = scene.larder(&["check", "--config", &scene.config()]);
        checked.fails().complains("traces.endpoint");
    }
}
