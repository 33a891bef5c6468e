//! When a stale response is better than waiting or than an error (RFC 5861).

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
    for failure in [
        Reply::nothing(),
        Reply::status(503),
        Reply::raw("not http\r\n\r\n"),
    ] {
        scene.origin.says("/a", failure);
        let answer = scene.get("/a");
        answer.is(200).sees("v1").detail("stale-if-error");
        assert!(answer.ttl() <= -40, "{answer}");
    }
    scene.origin.close();
    scene.get("/a").is(200).sees("v1");
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
