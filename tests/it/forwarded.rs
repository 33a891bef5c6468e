//! Who the client is behind proxies, what origins are told of it, and requests that go in circles
//! (RFC 7239, RFC 8586, RFC 9110 §7.6.3).

use std::fs;

use crate::origin::Reply;
use crate::origin::Seen;
use crate::scene::ClosedPort;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// The usual scene, with this machine as a trusted proxy.
fn behind_a_proxy() -> Setup {
    Scene::new().server("trusted_proxies", "[\"127.0.0.0/8\"]")
}

/// What the origin was told under `name`, line by line.
fn told<'s>(seen: &'s Seen, name: &str) -> Vec<&'s str> {
    let named = seen
        .headers
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// What a client may claim about where it comes from.
const CLAIMS: [(&str, &str); 4] = [
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "claimed.test"),
    ("Forwarded", "for=192.0.2.1;proto=https;host=claimed.test"),
];

#[test]
fn what_a_stranger_claims_reaches_no_origin() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get_with("/a", &CLAIMS).is(200);
    let seen = scene.origin.last("/a");
    assert_eq!(told(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(told(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(told(&seen, "x-forwarded-host"), ["scene.test"]);
    assert!(told(&seen, "forwarded").is_empty());
}

#[test]
fn a_trusted_proxy_is_believed() {
    let scene = behind_a_proxy().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get_with("/a", &CLAIMS).is(200);
    let seen = scene.origin.last("/a");
    assert_eq!(told(&seen, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(told(&seen, "x-forwarded-proto"), ["https"]);
    // The host is the one that was asked for and is in the key.
    assert_eq!(told(&seen, "x-forwarded-host"), ["scene.test"]);
    assert!(told(&seen, "forwarded").is_empty());
}

#[test]
fn the_whole_way_is_told_where_the_config_says_so() {
    let scene = behind_a_proxy()
        .server("forwarded", "\"append\"")
        .server("forwarded_field", "true")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let list = [("X-Forwarded-For", "10.9.9.9, 2001:db8::1, 127.0.0.2")];
    scene.get_with("/a", &list).is(200);
    let seen = scene.origin.last("/a");
    let way = ["2001:db8::1, 127.0.0.2, 127.0.0.1"];
    assert_eq!(told(&seen, "x-forwarded-for"), way);
    let forwarded = "for=\"[2001:db8::1]\";host=\"scene.test\";proto=http, for=127.0.0.2, \
                     for=127.0.0.1";
    assert_eq!(told(&seen, "forwarded"), [forwarded]);
}

#[test]
fn the_scheme_that_a_trusted_proxy_tells_is_the_keys() {
    let scene = behind_a_proxy().site("key_scheme", "true").start();
    scene.origin.does("/a", |request| {
        Reply::ok(request.header("X-Forwarded-Proto").unwrap_or_default()).fresh()
    });
    let https = [("X-Forwarded-Proto", "https")];
    scene.get("/a").sees("http").by("uri-miss");
    scene.get_with("/a", &https).sees("https").by("uri-miss");
    scene.get_with("/a", &https).sees("https").by("hit");
    scene.get("/a").sees("http").by("hit");
}

#[test]
fn a_response_that_varies_by_what_only_origins_are_told_is_not_stored() {
    let scene = Scene::usual();
    for name in ["X-Forwarded-For", "Forwarded", "CDN-Loop", "Via"] {
        let target = format!("/{name}");
        scene
            .origin
            .says(&target, Reply::ok("v1").fresh().header("Vary", name));
        scene.get(&target).is(200).detail("vary-any").not_stored();
    }
}

#[test]
fn a_response_that_varies_by_what_is_in_its_key_is_stored() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        Reply::ok(request.header("X-Forwarded-Host").unwrap_or_default())
            .fresh()
            .header("Vary", "X-Forwarded-Host")
    });
    for host in ["a.test", "b.test"] {
        let host_field = [("Host", host), ("X-Forwarded-Host", "claimed.test")];
        scene.get_with("/a", &host_field).sees(host).stored();
        scene.get_with("/a", &[("Host", host)]).sees(host).by("hit");
    }
}

#[test]
fn purge_from_asks_for_the_client_and_not_for_the_proxy_before_it() {
    let scene = behind_a_proxy()
        .site("purge_from", "[\"127.0.0.0/8\", \"192.0.2.1\"]")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let purge = |list| scene.ask("PURGE", "/a", &[("X-Forwarded-For", list)], b"");
    purge("203.0.113.9").is(405);
    // What the client itself wrote stands further left.
    purge("192.0.2.1, 203.0.113.9").is(405);
    scene.get("/a").by("hit");
    purge("203.0.113.9, 192.0.2.1").is(200);
    scene.get("/a").by("uri-miss");
}

#[test]
fn a_stranger_purges_under_its_own_address_only() {
    let scene = Scene::new().site("purge_from", "[\"192.0.2.1\"]").start();
    let claim = [("X-Forwarded-For", "192.0.2.1")];
    scene.ask("PURGE", "/a", &claim, b"").is(405);
}

#[test]
fn the_access_log_names_the_client_behind_the_proxy() {
    let setup = behind_a_proxy();
    let log = setup.dir().join("access.log");
    let scene = setup.set("log", "access", &format!("{log:?}")).start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene
        .get_with("/a", &[("X-Forwarded-For", "192.0.2.1")])
        .is(200);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("a line", || read().ends_with('\n'));
    assert!(read().starts_with("192.0.2.1 - - ["), "{}", read());
}

#[test]
fn every_request_says_that_it_came_through_here() {
    let scene = Scene::new().server("identifier", "\"edge\"").start();
    scene.origin.says("/a", Reply::ok("v1"));
    let before = [("Via", "1.0 fred"), ("CDN-Loop", "other; id=1")];
    scene.get_with("/a", &before).is(200).lacks("Via");
    let seen = scene.origin.last("/a");
    assert_eq!(told(&seen, "via"), ["1.0 fred", "1.1 edge"]);
    let loops = told(&seen, "cdn-loop");
    assert_eq!(loops[0], "other; id=1");
    assert!(loops[1].starts_with("edge; id="), "{loops:?}");
}

#[test]
fn responses_say_so_where_the_config_asks_for_it() {
    let scene = Scene::new().server("via_response", "true").start();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().header("Via", "1.1 inner"));
    for how in ["uri-miss", "hit"] {
        let answer = scene.get("/a");
        assert_eq!(answer.by(how).all("via"), ["1.1 inner", "1.1 larder"]);
    }
    scene.ask("TRACE", "/a", &[], b"").is(405).lacks("Via");
}

#[test]
fn a_backend_that_leads_back_here_is_found_out_at_once() {
    let closed = ClosedPort::new();
    let port = closed.number();
    let outer = Scene::new()
        .upstream("backends", &format!("[\"http://127.0.0.1:{port}\"]"))
        .start();
    drop(closed);
    // The inner one's backend is the outer one, whose backend is the inner one.
    let _inner = Scene::new()
        .server("http", &format!("[\"127.0.0.1:{port}\"]"))
        .upstream("backends", &format!("[\"http://{}\"]", outer.front()))
        .start();
    for method in ["GET", "POST"] {
        let answer = outer.ask(method, "/a", &[], b"");
        answer.is(508).has("Cache-Control", "no-store").not_stored();
        // Outer, inner, outer: the first word is of the one that refused.
        let said = answer.all("cache-status");
        assert_eq!(said.len(), 3, "{answer}");
        assert_eq!(said[0], "larder; detail=loop-detected");
        assert_eq!(
            answer.all("proxy-status"),
            ["larder; error=proxy_loop_detected"]
        );
    }
}

#[test]
fn caches_of_one_identifier_may_stand_behind_each_other() {
    let inner = Scene::usual();
    inner.origin.says("/a", Reply::ok("v1").fresh());
    let backends = format!("[\"http://{}\"]", inner.front());
    let outer = Scene::new().upstream("backends", &backends).start();
    outer.get("/a").is(200).sees("v1").by("uri-miss").stored();
    outer.get("/a").by("hit");
    inner.origin.saw("/a", 1);
}

#[test]
fn a_request_that_came_through_here_too_often_is_refused() {
    let scene = Scene::new().server("hops_max", "1").start();
    scene.origin.says("/a", Reply::ok("v1"));
    scene.get_with("/a", &[("CDN-Loop", "larder")]).is(200);
    let twice = [("CDN-Loop", "larder;x=\"y\", fred"), ("CDN-Loop", "larder")];
    scene
        .get_with("/a", &twice)
        .is(508)
        .detail("loop-detected")
        .proxy_error("proxy_loop_detected");
    // Nobody can have the field taken off.
    let hidden = [("CDN-Loop", "larder, larder"), ("Connection", "cdn-loop")];
    scene.get_with("/a", &hidden).is(508);
    scene.origin.saw("/a", 1);
}
