//! What is stored, and for how long it serves without a question (RFC 9111 §3, §4.2).

use std::time::Duration;

use crate::origin::Reply;
use crate::scene::Scene;

/// A date long ago, so that anything counted from it is over.
const LONG_AGO: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
/// A date that no test outlives.
const FAR: &str = "Fri, 01 Jan 2100 00:00:00 GMT";
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
fn an_age_is_read_however_it_is_dressed() {
    let scene = Scene::usual();
    let old = ["60, 0", "60;a=1", "60 ; a", " ,60", "99999999999"];
    let new = ["0, 60", "abc", "-60", "60.0", "1 60"];
    for (place, (age, is_old)) in (old.iter().map(|age| (age, true)))
        .chain(new.iter().map(|age| (age, false)))
        .enumerate()
    {
        let target = format!("/{place}");
        let reply = Reply::ok("v1").cache("max-age=60").header("Age", age);
        scene.origin.says(&target, reply);
        scene.get(&target).sees("v1");
        let hit = scene.get(&target).cache_status("hit").is_some();
        assert_eq!(hit, !is_old, "{age}");
    }
}

#[test]
fn an_age_never_grows_past_what_caches_can_count() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1").cache("max-age=99999999999");
    scene
        .origin
        .says("/a", reply.tagged("\"1\"").header("Age", "99999999999"));
    scene.get("/a").sees("v1").has("Age", "2147483648");
    scene
        .origin
        .says("/b", Reply::ok("v1").cache("max-age=99999999999"));
    scene.get("/b").stored();
    let hit = scene.get("/b");
    assert!(
        (2_147_483_600..=2_147_483_648).contains(&hit.by("hit").ttl()),
        "{hit}"
    );
}

#[test]
fn repeated_and_conflicting_directives_are_read_at_their_strictest() {
    kept(Reply::ok("v1").cache("max-age=60, max-age=90"));
    not_kept(Reply::ok("v1").cache("max-age=60, max-age=0"));
    not_kept(Reply::ok("v1").cache("max-age=0").cache("max-age=60"));
    not_kept(Reply::ok("v1").cache("public, max-age=60, no-store"));
    not_kept(Reply::ok("v1").cache("max-age=60, no-cache=\"x\", no-cache"));
    not_kept(
        Reply::ok("v1")
            .header("Expires", FAR)
            .header("Expires", FAR),
    );
}

#[test]
fn directives_are_read_by_their_grammar_and_no_looser() {
    kept(Reply::ok("v1").cache("MAX-age=\"60\""));
    kept(Reply::ok("v1").cache(" , max-age=60 ,, x, y=1, z=\"no-store, \\\" no-store\""));
    for text in [
        "max-age = 60",
        "max-age=60 s",
        "max-age=60; public",
        "max-age='60'",
        "max-age=-60",
        "max-age=60.0",
        "max-age=",
        "max-age",
        "max-age=60, x=\"",
    ] {
        not_kept(Reply::ok("v1").cache(text).header("Expires", FAR));
    }
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
fn a_lifetime_is_guessed_for_every_status_that_allows_it_and_no_other() {
    let scene = Scene::usual();
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let target = format!("/{status}");
        let reply = Reply::status(status).header("Last-Modified", LONG_AGO);
        scene.origin.says(&target, reply);
        scene.get(&target).is(status).stored();
        scene.get(&target).is(status).by("hit");
        scene.origin.saw(&target, 1);
    }
    for status in [
        201, 202, 302, 303, 307, 400, 403, 409, 451, 500, 502, 503, 599,
    ] {
        let target = format!("/{status}");
        let reply = Reply::status(status).header("Last-Modified", LONG_AGO);
        scene.origin.says(&target, reply);
        scene.get(&target).is(status).not_stored();
    }
}

#[test]
fn public_lets_a_lifetime_be_guessed_for_any_status() {
    let scene = Scene::usual();
    let reply = Reply::status(302).cache("public");
    scene
        .origin
        .says("/a", reply.header("Last-Modified", LONG_AGO));
    scene.get("/a").is(302).stored();
    scene.get("/a").is(302).by("hit");
}

#[test]
fn any_final_status_is_stored_when_the_origin_says_for_how_long() {
    let scene = Scene::usual();
    for status in [
        200, 201, 204, 299, 302, 303, 307, 400, 403, 404, 418, 429, 500, 503, 599,
    ] {
        let target = format!("/{status}");
        scene.origin.says(&target, Reply::status(status).fresh());
        scene.get(&target).is(status).stored();
        scene.get(&target).is(status).by("hit");
        scene.origin.saw(&target, 1);
    }
}

#[test]
fn must_understand_takes_the_place_of_no_store_where_the_status_is_understood() {
    let scene = Scene::usual();
    let cache = "must-understand, no-store, max-age=60";
    for status in [200, 403, 404] {
        let target = format!("/{status}");
        scene
            .origin
            .says(&target, Reply::status(status).cache(cache));
        scene.get(&target).is(status).stored();
        scene.get(&target).is(status).by("hit");
    }
    for (status, cache) in [(599, cache), (599, "must-understand, max-age=60")] {
        let reply = Reply::status(status).cache(cache);
        scene.origin.says("/unknown", reply);
        scene.get("/unknown").is(status).not_stored();
    }
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
fn an_honoured_client_bounds_what_it_is_served() {
    let scene = Scene::new()
        .site("client_cache_control", "\"honour\"")
        .start();
    let asked = |target: &str, wish: &str| scene.get_with(target, &[("Cache-Control", wish)]);
    let reply = Reply::ok("v1").cache("max-age=100").aged(40);
    scene.origin.says("/a", reply.tagged("\"1\""));
    scene.get("/a").stored();
    asked("/a", "max-age=60").by("hit");
    asked("/a", "max-age=30").by("request");
    asked("/a", "min-fresh=30").by("hit");
    asked("/a", "min-fresh=90").by("request");
    asked("/a", "no-cache").by("request").sees("v1");
    assert_eq!(
        scene.origin.last("/a").header("If-None-Match"),
        Some("\"1\"")
    );
    let before = scene.origin.seen("/a").len();
    asked("/a", "no-store").by("request").not_stored();
    scene.origin.saw("/a", before + 1);
    scene.get("/a").by("hit");
    scene
        .get_with("/a", &[("Pragma", "no-cache")])
        .by("request");
    let both = [("Pragma", "no-cache"), ("Cache-Control", "max-age=60")];
    scene.get_with("/a", &both).by("hit");
}

#[test]
fn an_honoured_client_may_accept_what_is_stale() {
    let scene = Scene::new()
        .site("client_cache_control", "\"honour\"")
        .start();
    let asked = |target: &str, wish: &str| scene.get_with(target, &[("Cache-Control", wish)]);
    let spent = || Reply::ok("v1").aged(100);
    scene.origin.says("/a", spent().cache("max-age=60"));
    scene.get("/a").sees("v1");
    asked("/a", "max-stale=30").by("stale");
    asked("/a", "max-stale=600").by("hit").sees("v1");
    asked("/a", "max-stale").by("hit").sees("v1");
    asked("/a", "max-stale, max-age=60").by("stale");
    for closed in [
        "must-revalidate, max-age=60",
        "proxy-revalidate, max-age=60",
        "s-maxage=60",
    ] {
        scene
            .origin
            .says("/b", spent().cache(closed).tagged("\"1\""));
        scene.get("/b");
        asked("/b", "max-stale").by("stale");
    }
}

#[test]
fn a_request_that_says_no_store_leaves_nothing_behind() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let no_store = [("Cache-Control", "No-Store")];
    scene.get_with("/a", &no_store).sees("v1").not_stored();
    scene.get("/a").by("uri-miss").stored();
    scene.get_with("/a", &no_store).by("hit");
    assert_eq!(scene.stat("store.entries"), 1);
}

#[test]
fn only_if_cached_is_never_forwarded_even_where_clients_are_ignored() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let only = [("Cache-Control", "only-if-cached")];
    scene.get_with("/a", &only).is(504).detail("only-if-cached");
    scene.get("/a").stored();
    scene.get_with("/a", &only).is(200).by("hit");
    scene.origin.saw("/a", 1);
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
