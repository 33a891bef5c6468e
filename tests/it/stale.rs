//! When a stale response is better than waiting or than an error (RFC 5861).

use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// A running scene whose `/a` is stored, says `v1` and is stale by forty seconds; `and` is what its
/// Cache-Control says besides.
fn stale(setup: Setup, and: &str) -> Scene {
    let scene = setup.start();
    let cache = format!("max-age=60{and}");
    scene.origin.says_once(
        "/a",
        Reply::ok("v1").cache(&cache).aged(100).tagged("\"1\""),
    );
    scene.get("/a").sees("v1").stored();
    scene
}

#[test]
fn a_stale_response_is_served_while_the_origin_is_asked_again() {
    let scene = stale(Scene::new(), ", stale-while-revalidate=600");
    scene.origin.says("/a", Reply::ok("v2").fresh());
    let answer = scene.get("/a");
    answer
        .is(200)
        .sees("v1")
        .by("hit")
        .detail("stale-while-revalidate");
    assert!(answer.ttl() <= -40, "{answer}");
    scene.origin.await_requests("/a", 2);
    eventually("the new response", || scene.get("/a").body == b"v2");
    scene.get("/a").sees("v2").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn however_many_ask_meanwhile_the_origin_is_asked_once() {
    let scene = stale(Scene::new(), ", stale-while-revalidate=600");
    let gate = Gate::new();
    let reply = Reply::ok("v1").fresh().tagged("\"1\"");
    scene.origin.says("/a", reply.held(&gate));
    for answer in scene.crowd(20, "/a").answers() {
        answer.sees("v1").by("hit").detail("stale-while-revalidate");
    }
    scene.origin.await_requests("/a", 2);
    for _ in 0..20 {
        scene.get("/a").sees("v1").by("hit");
    }
    scene.origin.saw("/a", 2);
    assert_eq!(
        scene.origin.last("/a").header("If-None-Match"),
        Some("\"1\"")
    );
    gate.open();
    eventually("a fresh response", || scene.get("/a").ttl() > 0);
    scene.origin.saw("/a", 2);
}

#[test]
fn a_request_that_says_no_store_leaves_the_validation_to_the_next() {
    let scene = stale(Scene::new(), ", stale-while-revalidate=600");
    let reply = Reply::ok("v1").fresh().tagged("\"1\"");
    scene.origin.says("/a", reply);
    let no_store = [("Cache-Control", "no-store")];
    scene.get_with("/a", &no_store).sees("v1").by("hit");
    scene.fence();
    scene.origin.saw("/a", 1);
    scene.get("/a").sees("v1").by("hit");
    scene.origin.await_requests("/a", 2);
    eventually("a fresh response", || scene.get("/a").ttl() > 0);
}

#[test]
fn a_validation_behind_the_clients_back_that_fails_changes_nothing() {
    let scene = stale(
        Scene::new(),
        ", stale-while-revalidate=600, stale-if-error=600",
    );
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").sees("v1").by("hit");
    scene.origin.await_requests("/a", 2);
    scene.origin.says("/a", Reply::ok("v2").fresh());
    eventually("the new response", || scene.get("/a").body == b"v2");
}

#[test]
fn a_site_may_serve_stale_while_it_asks_again() {
    let scene = stale(Scene::new().site("stale_while_revalidate", "\"10m\""), "");
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().tagged("\"1\""));
    scene.get("/a").sees("v1").by("hit");
    scene.origin.await_requests("/a", 2);
    eventually("a fresh response", || scene.get("/a").ttl() > 0);
    scene.origin.saw("/a", 2);
}

#[test]
fn a_response_too_stale_is_waited_for() {
    let scene = stale(Scene::new(), ", stale-while-revalidate=10");
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v2").by("stale");
}

#[test]
fn must_revalidate_forbids_serving_stale() {
    let setup = Scene::new().site("stale_while_revalidate", "\"10m\"");
    let scene = stale(setup.site("stale_if_error", "\"10m\""), ", must-revalidate");
    scene.origin.says(
        "/a",
        Reply::ok("v2")
            .cache("max-age=60, must-revalidate")
            .aged(100),
    );
    scene.get("/a").sees("v2").by("stale");
    scene.origin.says("/a", Reply::nothing());
    scene.get("/a").is_one_of(&[502, 504]);
}

#[test]
fn a_stale_response_is_served_when_the_origin_fails() {
    let scene = stale(Scene::new(), ", stale-if-error=600");
    let statuses = [500, 502, 503, 504].map(Reply::status);
    let broken = [Reply::nothing(), Reply::raw("not http\r\n\r\n")];
    for failure in statuses.into_iter().chain(broken) {
        scene.origin.says("/a", failure);
        let answer = scene.get("/a");
        answer.is(200).sees("v1").detail("stale-if-error");
        assert!(answer.ttl() <= -40, "{answer}");
    }
    scene.origin.close();
    scene.get("/a").is(200).sees("v1");
}

#[test]
fn a_stale_response_is_served_when_the_origin_takes_too_long() {
    let setup = Scene::new().upstream("first_byte_timeout", "\"100ms\"");
    let scene = stale(setup, ", stale-if-error=600");
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v2").held(&gate));
    scene.get("/a").is(200).sees("v1").detail("stale-if-error");
    gate.open();
}

#[test]
fn an_answer_that_is_no_failure_is_passed_on_however_bad() {
    for status in [400, 403, 404, 501, 505, 599] {
        let scene = stale(Scene::new(), ", stale-if-error=600");
        scene.origin.says("/a", Reply::status(status));
        scene.get("/a").is(status);
    }
}

#[test]
fn a_response_too_stale_is_no_better_than_an_error() {
    let scene = stale(Scene::new(), ", stale-if-error=30");
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").is(503).sees("status 503");
    scene.origin.close();
    scene.get("/a").is(502);
}

#[test]
fn an_honoured_client_may_prefer_a_stale_response_to_an_error() {
    let scene = stale(Scene::new().site("client_cache_control", "\"honour\""), "");
    scene.origin.says("/a", Reply::status(500));
    let prefers = [("Cache-Control", "stale-if-error=600")];
    scene
        .get_with("/a", &prefers)
        .is(200)
        .sees("v1")
        .detail("stale-if-error");
    scene.get("/a").is(500);
    let ignoring = stale(Scene::new(), "");
    ignoring.origin.says("/a", Reply::status(500));
    ignoring.get_with("/a", &prefers).is(500);
}

#[test]
fn what_the_origin_says_stands_before_what_the_site_says() {
    let site = || {
        Scene::new()
            .site("stale_if_error", "\"10m\"")
            .site("stale_while_revalidate", "\"10m\"")
    };
    let scene = stale(site(), ", stale-if-error=0, stale-while-revalidate=0");
    scene.origin.says("/a", Reply::status(500));
    scene.get("/a").is(500);
    let scene = stale(site(), ", stale-while-revalidate=0");
    scene.origin.says("/a", Reply::status(500));
    scene.get("/a").is(200).sees("v1").detail("stale-if-error");
}

#[test]
fn what_forbids_staleness_wins_over_every_window() {
    let windows = "stale-while-revalidate=600, stale-if-error=600";
    for closed in [
        "must-revalidate",
        "proxy-revalidate",
        "s-maxage=60",
        "no-cache",
    ] {
        let site = Scene::new().site("stale_if_error", "\"10m\"");
        let scene = stale(site, &format!(", {windows}, {closed}"));
        scene.origin.says("/a", Reply::status(503));
        scene.get("/a").is(503);
        scene.origin.says("/a", Reply::nothing());
        scene.get("/a").is(502);
    }
}

#[test]
fn a_site_may_serve_stale_when_the_origin_fails() {
    let scene = stale(Scene::new().site("stale_if_error", "\"10m\""), "");
    scene.origin.close();
    scene.get("/a").is(200).sees("v1");
}

#[test]
fn without_that_leave_an_error_is_an_error() {
    let scene = stale(Scene::new(), "");
    scene.origin.says("/a", Reply::nothing());
    scene.get("/a").is(502);
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").is(503);
}

#[test]
fn an_origin_that_recovers_is_asked_again() {
    let scene = stale(Scene::new(), ", stale-if-error=600");
    scene.origin.says("/a", Reply::status(500));
    scene.get("/a").sees("v1");
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v2").by("stale");
    scene.get("/a").sees("v2").by("hit");
}
