//! What is stored, and for how long it serves without a question (RFC 9111 §3, §4.2).

use std::time::Duration;

use crate::origin::Reply;
use crate::scene::Scene;

/// A date long ago, so that anything counted from it is over.
const LONG_AGO: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
const A_DAY_LATER: &str = "Tue, 02 Jan 2024 00:00:00 GMT";

/// Asks twice and says whether the second was a hit; each must reach the origin otherwise.
#[track_caller]
fn is_kept(scene: &Scene, reply: Reply, headers: &[(&str, &str)]) -> bool {
    scene.origin.says("/a", reply);
    scene.get_with("/a", headers).is(200).sees("v1");
    let second = scene.get_with("/a", headers);
    second.is(200).sees("v1");
    let hit = second.cache_status("hit").is_some();
    scene.origin.saw("/a", if hit { 1 } else { 2 });
    hit
}

#[track_caller]
fn kept(reply: Reply) {
    assert!(is_kept(&Scene::usual(), reply, &[]), "it should be a hit");
}

#[track_caller]
fn not_kept(reply: Reply) {
    assert!(
        !is_kept(&Scene::usual(), reply, &[]),
        "it should not be a hit"
    );
}

#[test]
fn no_store_is_never_stored_however_it_is_spelled() {
    not_kept(Reply::ok("v1").cache("max-age=60, No-Store"));
}

#[test]
fn private_is_never_stored_in_a_shared_cache() {
    not_kept(Reply::ok("v1").cache("PRIVATE, max-age=60"));
}

#[test]
fn a_second_cache_control_line_counts_too() {
    not_kept(Reply::ok("v1").cache("max-age=60").cache("no-store"));
}

#[test]
fn no_cache_is_asked_for_again_each_time() {
    not_kept(Reply::ok("v1").cache("no-cache, max-age=60"));
}

#[test]
fn s_maxage_overrides_max_age() {
    kept(Reply::ok("v1").cache("max-age=0, s-maxage=60"));
    not_kept(Reply::ok("v1").cache("max-age=60, s-maxage=0"));
}

#[test]
fn cdn_cache_control_overrides_cache_control() {
    kept(
        Reply::ok("v1")
            .cache("no-store")
            .header("CDN-Cache-Control", "max-age=60"),
    );
    not_kept(
        Reply::ok("v1")
            .cache("max-age=60")
            .header("CDN-Cache-Control", "no-store"),
    );
}

#[test]
fn an_expires_in_the_past_is_stale_at_once() {
    not_kept(Reply::ok("v1").header("Expires", LONG_AGO));
}

#[test]
fn an_expires_that_is_no_date_is_stale_at_once() {
    not_kept(Reply::ok("v1").header("Expires", "0"));
}

#[test]
fn an_old_date_makes_a_response_stale_on_arrival() {
    not_kept(Reply::ok("v1").cache("max-age=60").header("Date", LONG_AGO));
}

#[test]
fn an_age_over_the_lifetime_makes_a_response_stale_on_arrival() {
    not_kept(Reply::ok("v1").cache("max-age=60").aged(60));
}

#[test]
fn an_enormous_age_is_old_and_harms_nothing() {
    not_kept(
        Reply::ok("v1")
            .cache("max-age=60")
            .header("Age", "99999999999999999999999999"),
    );
}

#[test]
fn age_of_the_origin_counts_into_ttl_and_age() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("max-age=100").aged(40));
    scene.get("/a").stored();
    let hit = scene.get("/a");
    hit.by("hit");
    assert!((50..=60).contains(&hit.ttl()), "{hit}");
    let age: u64 = hit.header("Age").unwrap().parse().unwrap();
    assert!((40..=50).contains(&age), "{hit}");
}

#[test]
fn a_slow_origin_makes_a_response_older() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::ok("v1").fresh().delayed(Duration::from_millis(1100)),
    );
    scene.get("/a").stored();
    let hit = scene.get("/a");
    let age: u64 = hit.by("hit").header("Age").unwrap().parse().unwrap();
    assert!(age >= 1, "{hit}");
}

#[test]
fn a_page_last_modified_long_ago_is_kept_for_a_while_without_being_told() {
    kept(Reply::ok("v1").header("Last-Modified", LONG_AGO));
}

#[test]
fn heuristic_freshness_ends_at_the_sites_own_limit() {
    let scene = Scene::new().site("heuristic_max", "\"0s\"").start();
    assert!(!is_kept(
        &scene,
        Reply::ok("v1").header("Last-Modified", LONG_AGO),
        &[]
    ));
}

#[test]
fn expires_counts_from_the_origins_own_date() {
    // Both are years ago: the lifetime is a day, the age is years.
    not_kept(
        Reply::ok("v1")
            .header("Date", LONG_AGO)
            .header("Expires", A_DAY_LATER),
    );
}

#[test]
fn a_response_to_a_request_with_authorization_is_stored_only_when_it_says_so() {
    let secret = [("Authorization", "Basic c2NlbmU6c2NlbmU=")];
    let plain = Reply::ok("v1").cache("max-age=60");
    assert!(!is_kept(&Scene::usual(), plain, &secret));
    for allowing in [
        "public, max-age=60",
        "s-maxage=60",
        "must-revalidate, max-age=60",
    ] {
        assert!(
            is_kept(&Scene::usual(), Reply::ok("v1").cache(allowing), &secret),
            "{allowing}"
        );
    }
}

#[test]
fn one_users_answer_is_not_given_to_another() {
    let scene = Scene::usual();
    scene.origin.does("/me", |request| {
        Reply::ok(request.header("Authorization").unwrap_or("nobody")).cache("max-age=60")
    });
    scene
        .get_with("/me", &[("Authorization", "Bearer one")])
        .sees("Bearer one");
    scene
        .get_with("/me", &[("Authorization", "Bearer two")])
        .sees("Bearer two");
    scene.get("/me").sees("nobody");
}

#[test]
fn a_response_that_sets_a_cookie_is_not_stored() {
    not_kept(Reply::ok("v1").fresh().header("Set-Cookie", "id=1"));
}

#[test]
fn a_site_may_store_responses_that_set_cookies() {
    let scene = Scene::new().site("store_set_cookie", "true").start();
    let reply = Reply::ok("v1")
        .fresh()
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2");
    assert!(is_kept(&scene, reply, &[]));
    assert_eq!(scene.get("/a").all("Set-Cookie"), ["a=1", "b=2"]);
}

#[test]
fn every_set_cookie_line_reaches_the_client() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1")
        .fresh()
        .header("Set-Cookie", "a=1")
        .header("Set-Cookie", "b=2");
    scene.origin.says("/a", reply);
    assert_eq!(
        scene.get("/a").not_stored().all("Set-Cookie"),
        ["a=1", "b=2"]
    );
}

#[test]
fn a_body_that_ends_with_the_connection_is_passed_on_but_not_stored() {
    not_kept(Reply::ok("v1").fresh().until_close());
}

#[test]
fn a_site_may_store_bodies_that_end_with_the_connection() {
    let scene = Scene::new().site("store_close_delimited", "true").start();
    assert!(is_kept(&scene, Reply::ok("v1").fresh().until_close(), &[]));
}

#[test]
fn a_clients_no_cache_is_ignored_unless_the_site_honours_it() {
    let no_cache = [("Cache-Control", "no-cache")];
    assert!(is_kept(&Scene::usual(), Reply::ok("v1").fresh(), &no_cache));
    let honouring = Scene::new()
        .site("client_cache_control", "\"honour\"")
        .start();
    assert!(!is_kept(&honouring, Reply::ok("v1").fresh(), &no_cache));
    honouring.get_with("/a", &no_cache).by("request");
}

#[test]
fn only_if_cached_is_never_forwarded_where_clients_are_honoured() {
    let scene = Scene::new()
        .site("client_cache_control", "\"honour\"")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let only = [("Cache-Control", "only-if-cached")];
    scene.get_with("/a", &only).is(504);
    scene.origin.saw("/a", 0);
    scene.get("/a").sees("v1").stored();
    scene.get_with("/a", &only).is(200).sees("v1").by("hit");
}

#[test]
fn uncacheable_answers_never_wait_for_a_store() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    scene.get("/a").sees("v1").by("uri-miss").not_stored();
    scene
        .get("/a")
        .sees("v1")
        .not_stored()
        .detail("hit-for-miss");
    scene.origin.saw("/a", 2);
    assert_eq!(scene.stat("store.entries"), 0);
}

#[test]
fn a_scheme_may_be_part_of_the_key() {
    let scene = Scene::new().site("key_scheme", "true").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss").stored();
    scene.get("/a").by("hit");
}
