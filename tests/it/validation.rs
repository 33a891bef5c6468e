//! Questions with a validator: ours to the origin, and a client's to us (RFC 9111 §4.3).

use crate::origin::Reply;
use crate::scene::Scene;

const MONDAY: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
const TUESDAY: &str = "Tue, 02 Jan 2024 00:00:00 GMT";

/// Stale when it arrives.
fn stale(body: &str) -> Reply {
    Reply::ok(body).cache("max-age=60").aged(100)
}

#[test]
fn a_stale_response_is_freshened_by_a_304() {
    let scene = Scene::usual();
    scene
        .origin
        .says_once("/a", stale("v1").tagged("\"1\"").header("X-Own", "old"));
    scene.origin.says(
        "/a",
        Reply::ok("v1")
            .tagged("\"1\"")
            .fresh()
            .header("X-Own", "new"),
    );
    scene.get("/a").sees("v1").by("uri-miss").stored();
    scene
        .get("/a")
        .is(200)
        .sees("v1")
        .by("stale")
        .has("X-Own", "new");
    assert_eq!(
        scene.origin.last("/a").header("If-None-Match"),
        Some("\"1\"")
    );
    scene
        .get("/a")
        .sees("v1")
        .by("hit")
        .has("X-Own", "new")
        .has("Content-Length", "2");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_date_is_a_validator_too() {
    let scene = Scene::usual();
    scene
        .origin
        .says_once("/a", stale("v1").header("Last-Modified", MONDAY));
    scene.origin.says(
        "/a",
        Reply::ok("v1").header("Last-Modified", MONDAY).fresh(),
    );
    scene.get("/a").stored();
    scene.get("/a").is(200).sees("v1").by("stale");
    assert_eq!(
        scene.origin.last("/a").header("If-Modified-Since"),
        Some(MONDAY)
    );
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn a_changed_response_replaces_the_stale_one() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    scene
        .origin
        .says("/a", Reply::ok("v2").tagged("\"2\"").fresh());
    scene.get("/a").sees("v1").stored();
    scene.get("/a").sees("v2").by("stale").stored();
    scene.get("/a").sees("v2").by("hit").has("ETag", "\"2\"");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_freshened_response_is_still_fresh_after_a_restart() {
    let mut scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    scene
        .origin
        .says("/a", Reply::ok("v1").tagged("\"1\"").fresh());
    scene.get("/a").stored();
    scene.get("/a").by("stale");
    scene.restart();
    scene.get("/a").sees("v1").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn an_origin_that_no_longer_allows_storing_is_heeded() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    scene.origin.says("/a", Reply::ok("v2").cache("no-store"));
    scene.get("/a").stored();
    scene.get("/a").sees("v2").not_stored();
    scene.get("/a").sees("v2").not_stored();
    scene.origin.saw("/a", 3);
}

#[test]
fn a_client_that_has_it_gets_a_304_from_the_store() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1")
        .tagged("\"1\"")
        .header("Last-Modified", MONDAY)
        .fresh();
    scene
        .origin
        .says("/a", reply.header("Content-Type", "text/plain"));
    scene.get("/a").stored();
    let ask = |name: &str, value: &str| scene.get_with("/a", &[(name, value)]);
    let answer = ask("If-None-Match", "\"0\", W/\"1\"");
    answer
        .is(304)
        .sees("")
        .by("hit")
        .has("ETag", "\"1\"")
        .has("Cache-Control", "max-age=60");
    ask("If-None-Match", "*").is(304);
    ask("If-None-Match", "\"2\"").is(200).sees("v1");
    ask("If-Modified-Since", MONDAY).is(304);
    ask("If-Modified-Since", TUESDAY).is(304);
    ask("If-Modified-Since", "Sun, 31 Dec 2023 23:59:59 GMT")
        .is(200)
        .sees("v1");
    ask("If-Modified-Since", "not a date").is(200).sees("v1");
    scene.origin.saw("/a", 1);
}

#[test]
fn an_entity_tag_outweighs_a_date() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1")
        .tagged("\"1\"")
        .header("Last-Modified", MONDAY)
        .fresh();
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    let both = [("If-None-Match", "\"0\""), ("If-Modified-Since", TUESDAY)];
    scene.get_with("/a", &both).is(200).sees("v1").by("hit");
}

#[test]
fn a_condition_on_a_miss_fills_the_store_and_is_then_answered() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").tagged("\"1\"").fresh());
    scene
        .get_with("/a", &[("If-None-Match", "\"1\"")])
        .is(304)
        .sees("")
        .by("uri-miss");
    // The 304 does not wait for the body.
    scene.await_stat("store.entries", |entries| entries == 1);
    scene.get("/a").is(200).sees("v1").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_head_is_answered_from_a_stored_get() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().tagged("\"1\""));
    scene.get("/a").stored();
    scene
        .head("/a")
        .is(200)
        .sees("")
        .by("hit")
        .has("Content-Length", "2")
        .has("ETag", "\"1\"");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_head_on_a_miss_never_leaves_an_empty_body_behind() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.head("/a").is(200).sees("").has("Content-Length", "2");
    scene.get("/a").is(200).sees("v1");
}

#[test]
fn a_failed_precondition_from_the_client_is_told() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().tagged("\"1\""));
    scene.get("/a").stored();
    scene
        .get_with("/a", &[("If-Match", "\"1\"")])
        .is(200)
        .sees("v1");
}

#[test]
fn a_head_that_finds_a_stale_response_brings_the_new_one() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    scene
        .origin
        .says("/a", Reply::ok("two").tagged("\"2\"").fresh());
    scene.get("/a").stored();
    scene
        .head("/a")
        .is(200)
        .sees("")
        .by("stale")
        .has("Content-Length", "3");
    scene.get("/a").sees("two");
    scene.origin.saw("/a", 2);
}

#[test]
fn what_a_validation_with_credentials_brings_is_for_its_client_only() {
    let scene = Scene::usual();
    let page = || Reply::ok("v1").tagged("\"1\"");
    scene
        .origin
        .says_once("/a", page().cache("max-age=60").aged(100));
    scene
        .origin
        .says_once("/a", page().fresh().header("X-Own", "alice"));
    scene
        .origin
        .says("/a", page().fresh().header("X-Own", "nobody"));
    scene.get("/a").stored();
    scene
        .get_with("/a", &[("Authorization", "Basic YTpi")])
        .sees("v1")
        .not_stored()
        .has("X-Own", "alice");
    scene
        .get("/a")
        .sees("v1")
        .by("stale")
        .has("X-Own", "nobody");
    scene.get("/a").by("hit").has("X-Own", "nobody");
}
