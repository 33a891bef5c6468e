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
fn conditions_for_the_origin_are_not_evaluated_but_no_part_is_mistaken() {
    let scene = Scene::usual();
    let page = Reply::ok("body").fresh().tagged("\"1\"");
    scene
        .origin
        .says("/a", page.header("Last-Modified", TUESDAY));
    scene.get("/a").stored();
    for (name, held, missed) in [
        ("If-Match", "\"1\"", "\"2\""),
        ("If-Unmodified-Since", TUESDAY, MONDAY),
    ] {
        let ask = |value: &str| scene.get_with("/a", &[(name, value)]);
        ask(held).is(200).sees("body").by("hit");
        ask(missed).is(200).sees("body").by("hit");
        let part = |value| scene.get_with("/a", &[(name, value), ("Range", "bytes=0-1")]);
        part(held).is(206).sees("bo");
        part(missed).is(200).sees("body").by("hit");
    }
    scene.origin.saw("/a", 1);
}

#[test]
fn a_date_is_compared_with_the_responses_own_where_it_has_no_other() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::ok("v1")
            .fresh()
            .header("Date", MONDAY)
            .cache("s-maxage=3155760000"),
    );
    scene.get("/a").stored();
    let ask = |since: &str| scene.get_with("/a", &[("If-Modified-Since", since)]);
    ask(MONDAY).is(304).by("hit");
    ask("Monday, 01-Jan-24 00:00:00 GMT").is(304);
    ask("Mon Jan  1 00:00:00 2024").is(304);
    ask(TUESDAY).is(304);
    ask("Sun, 31 Dec 2023 23:59:59 GMT").is(200).sees("v1");
}

#[test]
fn conditions_on_a_head_are_answered_from_the_store_too() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().tagged("\"1\""));
    scene.get("/a").stored();
    let ask = |tag: &str| scene.ask("HEAD", "/a", &[("If-None-Match", tag)], b"");
    ask("\"1\"").is(304).by("hit").has("ETag", "\"1\"");
    ask("\"2\"").is(200).by("hit").has("Content-Length", "2");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_condition_on_a_head_that_misses_is_for_the_origin() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().tagged("\"1\""));
    let ask = |tag: &str| scene.ask("HEAD", "/a", &[("If-None-Match", tag)], b"");
    ask("\"1\"").is(304).sees("").by("uri-miss");
    ask("\"2\"").is(200).sees("").by("uri-miss");
    scene.get("/a").is(200).sees("v1").by("uri-miss");
}

#[test]
fn every_line_of_a_repeated_field_comes_through_store_and_304() {
    let scene = Scene::new().site("store_set_cookie", "true").start();
    let links = ["</a.css>; rel=preload", "</b.css>; rel=preload"];
    let cookies = ["a=1; Path=/", "b=2; Expires=Wed, 01 Jan 2031 00:00:00 GMT"];
    let page = |reply: Reply| {
        let reply = reply
            .tagged("\"1\"")
            .header("Vary", "X-One")
            .header("Vary", "X-Two");
        links
            .iter()
            .fold(reply, |reply, link| reply.header("Link", link))
    };
    let with_cookies = |reply: Reply| {
        cookies
            .iter()
            .fold(reply, |reply, cookie| reply.header("Set-Cookie", cookie))
    };
    scene
        .origin
        .says_once("/a", with_cookies(page(stale("v1"))));
    scene
        .origin
        .says_once("/a", page(Reply::ok("v1").cache("max-age=60").aged(100)));
    scene
        .origin
        .says("/a", with_cookies(page(Reply::ok("v1").fresh())));
    let two = [("X-One", "1"), ("X-Two", "2")];
    for how in ["uri-miss", "stale", "stale", "hit"] {
        let answer = scene.get_with("/a", &two);
        answer.is(200).sees("v1").by(how);
        assert_eq!(answer.all("Link"), links, "{how}");
        assert_eq!(answer.all("Set-Cookie"), cookies, "{how}");
        assert_eq!(answer.all("Vary"), ["X-One", "X-Two"], "{how}");
    }
    scene.get_with("/a", &[("X-One", "1")]).by("vary-miss");
}

#[test]
fn a_304_says_anew_what_the_bytes_mean_but_not_how_they_are_coded() {
    let scene = Scene::usual();
    let page = |reply: Reply| reply.tagged("\"1\"");
    let first = page(stale("v1"))
        .header("Content-Type", "text/plain")
        .header("Content-Encoding", "br");
    scene.origin.says_once("/a", first);
    let second = page(Reply::ok("v1").fresh())
        .header("Content-Type", "text/css")
        .header("Content-Encoding", "gzip")
        .header("Content-Length", "700");
    scene.origin.says("/a", second);
    scene.get("/a").stored();
    for how in ["stale", "hit"] {
        scene
            .get("/a")
            .sees("v1")
            .by(how)
            .has("Content-Type", "text/css")
            .has("Content-Encoding", "br")
            .has("Content-Length", "2");
    }
}

/// A 304 with these fields, whatever was asked.
fn not_modified(fields: &str) -> Reply {
    Reply::raw(format!(
        "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n{fields}\r\n"
    ))
}

#[test]
fn a_304_that_speaks_of_another_response_freshens_nothing() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    let other = not_modified("ETag: \"2\"\r\nCache-Control: max-age=60\r\nX-Own: wrong\r\n");
    scene.origin.says_once("/a", other);
    scene
        .origin
        .says("/a", Reply::ok("v2").fresh().header("ETag", "\"2\""));
    scene.get("/a").stored();
    scene
        .get("/a")
        .is(200)
        .sees("v2")
        .by("stale")
        .lacks("X-Own");
    assert_eq!(scene.origin.last("/a").header("If-None-Match"), None);
    scene.get("/a").sees("v2").by("hit");
    scene.origin.saw("/a", 3);
}

/// `/a` is stored twice, stale and under the same tag: for any language, and for German.
fn twice() -> Scene {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    let german = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nVary: Accept-Language\r\n\
         Cache-Control: max-age=60\r\nAge: 100\r\nContent-Length: 2\r\n\r\nv1";
    scene.origin.says_once("/a", Reply::raw(german));
    scene.get("/a").stored();
    in_german(&scene).by("stale").stored();
    scene.await_stat("store.entries", |entries| entries == 2);
    scene
}

fn in_german(scene: &Scene) -> crate::client::Answer {
    scene.get_with("/a", &[("Accept-Language", "de")])
}

#[test]
fn a_304_freshens_all_that_bear_its_strong_tag_and_could_have_answered() {
    let scene = twice();
    let tagged = "ETag: \"1\"\r\nCache-Control: max-age=60\r\nX-Own: new\r\n";
    scene.origin.says("/a", not_modified(tagged));
    in_german(&scene).sees("v1").by("stale");
    in_german(&scene).sees("v1").by("hit").has("X-Own", "new");
    scene.get("/a").sees("v1").by("hit").has("X-Own", "new");
    scene.origin.saw("/a", 3);
}

#[test]
fn a_304_with_a_weak_tag_freshens_only_the_newest() {
    let scene = twice();
    let tagged = "ETag: W/\"1\"\r\nCache-Control: max-age=60\r\n";
    scene.origin.says("/a", not_modified(tagged));
    in_german(&scene).sees("v1").by("stale");
    in_german(&scene).sees("v1").by("hit");
    scene.get("/a").sees("v1").by("stale");
    scene.origin.saw("/a", 4);
}

#[test]
fn a_304_that_varies_takes_away_what_was_for_everybody() {
    let scene = twice();
    let varying = "ETag: \"1\"\r\nCache-Control: max-age=60\r\nVary: Accept-Language\r\n";
    scene.origin.says("/a", not_modified(varying));
    in_german(&scene).sees("v1").by("stale");
    in_german(&scene).sees("v1").by("hit");
    scene.origin.says("/a", Reply::ok("english").fresh());
    scene.get("/a").sees("english").by("vary-miss");
}

#[test]
fn what_the_origin_has_replaced_is_served_no_more_though_its_window_is_open() {
    for (reply, status) in [
        (Reply::ok("v2").cache("no-store"), 200),
        (Reply::status(404).cache("no-store"), 404),
    ] {
        let scene = Scene::usual();
        let windows = "max-age=60, stale-while-revalidate=600, stale-if-error=600";
        let first = Reply::ok("v1").tagged("\"1\"").cache(windows);
        scene.origin.says_once("/a", first.aged(100));
        scene.origin.says("/a", reply);
        scene.get("/a").sees("v1").stored();
        scene.get("/a").sees("v1").by("hit");
        scene.await_stat("store.entries", |entries| entries == 0);
        scene.get("/a").is(status).by("uri-miss").not_stored();
        scene.origin.says("/a", Reply::status(503));
        scene.get("/a").is(503);
    }
}

#[test]
fn what_a_passing_error_says_leaves_the_stale_response() {
    let scene = Scene::usual();
    let first = Reply::ok("v1")
        .tagged("\"1\"")
        .cache("max-age=60, stale-if-error=600")
        .aged(100);
    scene.origin.says_once("/a", first);
    scene.origin.says_once("/a", Reply::status(429));
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").stored();
    scene.get("/a").is(429).by("stale");
    scene.get("/a").is(200).sees("v1").detail("stale-if-error");
}

#[test]
fn a_5xx_to_a_validation_is_passed_on_and_what_is_stored_stays() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stale("v1").tagged("\"1\""));
    scene.origin.says_once("/a", Reply::status(503));
    scene
        .origin
        .says("/a", Reply::ok("v1").tagged("\"1\"").fresh());
    scene.get("/a").stored();
    scene.get("/a").is(503).by("stale");
    scene.get("/a").is(200).sees("v1").by("stale");
    let asked = scene.origin.last("/a");
    assert_eq!(asked.header("If-None-Match"), Some("\"1\""));
    scene.get("/a").sees("v1").by("hit");
}

/// Stale when it arrives, without a validator, and stored because it may stand in for an error.
fn stand_in(body: &str) -> Reply {
    Reply::ok(body)
        .cache("max-age=60, stale-if-error=600")
        .aged(100)
}

#[test]
fn a_head_freshens_a_stored_response_without_a_validator() {
    let scene = Scene::usual();
    scene.origin.says_once(
        "/a",
        stand_in("v1").header("X-Own", "old").header("X-Kept", "1"),
    );
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().header("X-Own", "new"));
    scene.get("/a").stored();
    scene
        .head("/a")
        .is(200)
        .sees("")
        .by("stale")
        .has("X-Own", "new");
    assert_eq!(scene.origin.last("/a").method, "HEAD");
    scene
        .get("/a")
        .sees("v1")
        .by("hit")
        .has("X-Own", "new")
        .has("X-Kept", "1");
    scene.head("/a").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_head_that_describes_another_response_removes_the_stored_one() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stand_in("v1"));
    scene.origin.says("/a", Reply::ok("longer").fresh());
    scene.get("/a").stored();
    scene
        .head("/a")
        .is(200)
        .by("stale")
        .has("Content-Length", "6");
    scene.get("/a").sees("longer").by("uri-miss").stored();
    scene.origin.says_once("/b", stand_in("v1"));
    scene
        .origin
        .says_once("/b", Reply::ok("v2").fresh().tagged("\"2\""));
    scene.origin.says("/b", Reply::ok("v2").fresh());
    scene.get("/b").stored();
    scene.head("/b").is(200).by("stale");
    scene.get("/b").sees("v2").by("uri-miss");
}

#[test]
fn a_head_that_says_nothing_of_the_stored_response_leaves_it() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stand_in("v1"));
    scene
        .origin
        .says_once("/a", Reply::ok("v1").fresh().chunked());
    scene.origin.says_once("/a", Reply::status(410).fresh());
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").stored();
    scene.head("/a").is(200).by("stale");
    scene.head("/a").is(410).by("stale");
    scene.get("/a").sees("v2").by("stale");
}

#[test]
fn what_a_head_with_credentials_brings_is_for_its_client_only() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stand_in("v1"));
    scene
        .origin
        .says_once("/a", Reply::ok("v1").fresh().header("X-Own", "alice"));
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").stored();
    let alice = [("Authorization", "Basic YTpi")];
    scene
        .ask("HEAD", "/a", &alice, b"")
        .is(200)
        .has("X-Own", "alice");
    scene.get("/a").sees("v2").by("stale");
}

#[test]
fn a_head_gets_the_stale_response_when_the_origin_fails() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stand_in("v1"));
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").stored();
    scene
        .head("/a")
        .is(200)
        .sees("")
        .has("Content-Length", "2")
        .detail("stale-if-error");
    scene.origin.close();
    scene.head("/a").is(200).detail("stale-if-error");
}

#[test]
fn a_head_that_finds_a_stale_response_brings_the_new_one() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", stand_in("v1").tagged("\"1\""));
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
