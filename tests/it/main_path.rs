//! The main job: a miss fills, a hit serves, a purge empties, and the store outlives the process.

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

#[test]
fn the_second_request_is_a_hit() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200).sees("v1").by("uri-miss").stored();
    let hit = scene.get("/a");
    hit.is(200).sees("v1").by("hit").has("Content-Length", "2");
    assert!((50..=60).contains(&hit.ttl()), "{hit}");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_hit_has_every_field_line_of_the_miss_and_an_age() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1").fresh().header("Content-Type", "text/plain");
    let reply = reply
        .header("Link", "</one>")
        .header("X-Own", "kept")
        .header("Link", "</two>");
    scene.origin.says("/a", reply);
    for (answer, how) in [(scene.get("/a"), "uri-miss"), (scene.get("/a"), "hit")] {
        answer
            .by(how)
            .has("Content-Type", "text/plain")
            .has("X-Own", "kept");
        assert_eq!(answer.all("Link"), ["</one>", "</two>"], "{answer}");
        assert_eq!(answer.all("Date").len(), 1, "{answer}");
    }
    let age: u64 = scene.get("/a").header("Age").unwrap().parse().unwrap();
    assert!(age <= 10, "age {age}");
}

#[test]
fn a_chunked_response_is_stored_and_served_with_its_length() {
    let scene = Scene::usual();
    let body = noise(3, 300_000);
    scene
        .origin
        .says("/a", Reply::ok(body.clone()).fresh().chunked());
    scene.get("/a").sees(&body).by("uri-miss").stored();
    scene
        .get("/a")
        .sees(&body)
        .by("hit")
        .has("Content-Length", "300000")
        .lacks("Transfer-Encoding");
}

#[test]
fn an_empty_body_is_stored_like_any_other() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("").fresh());
    scene.get("/a").is(200).sees("").stored();
    scene
        .get("/a")
        .is(200)
        .sees("")
        .by("hit")
        .has("Content-Length", "0");
}

#[test]
fn a_not_found_with_a_lifetime_is_stored() {
    let scene = Scene::usual();
    scene.origin.says("/gone", Reply::status(404).fresh());
    scene.get("/gone").is(404).by("uri-miss").stored();
    scene.get("/gone").is(404).by("hit");
    scene.origin.saw("/gone", 1);
}

#[test]
fn a_redirect_is_stored_and_passed_on_as_it_is() {
    let scene = Scene::usual();
    let moved = Reply::status(301).header("Location", "/new").fresh();
    scene.origin.says("/old", moved);
    scene.get("/old").is(301).has("Location", "/new").stored();
    scene.get("/old").is(301).has("Location", "/new").by("hit");
}

#[test]
fn targets_that_differ_only_in_the_query_are_different() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a?x=1", Reply::ok("one").fresh())
        .says("/a?x=2", Reply::ok("two").fresh());
    scene.get("/a?x=1").sees("one").by("uri-miss");
    scene.get("/a?x=2").sees("two").by("uri-miss");
    scene.get("/a?x=1").sees("one").by("hit");
}

#[test]
fn hosts_are_told_apart_but_not_by_case_or_default_port() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        Reply::ok(
            request
                .header("Host")
                .unwrap_or_default()
                .to_ascii_lowercase(),
        )
        .fresh()
    });
    let ask = |host: &str| scene.get_with("/a", &[("Host", host)]);
    ask("one.test").by("uri-miss");
    ask("two.test").by("uri-miss");
    ask("ONE.test").by("hit");
    ask("one.test:80").by("hit");
    ask("one.test:8080").by("uri-miss");
}

#[test]
fn an_escaped_slash_is_not_a_slash() {
    let scene = Scene::usual();
    scene
        .origin
        .does("*", |request| Reply::ok(request.target.clone()).fresh());
    scene.get("/a%2Fb").sees("/a%2Fb").by("uri-miss");
    scene.get("/a/b").sees("/a/b").by("uri-miss");
    scene.get("/a%2Fb").sees("/a%2Fb").by("hit");
}

#[test]
fn a_restart_keeps_what_is_stored() {
    let mut scene = Scene::usual();
    let large = noise(4, 3_000_000);
    scene
        .origin
        .says("/small", Reply::ok("v1").fresh().header("X-Own", "kept"));
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.get("/small").stored();
    scene.get("/large").stored();
    scene.restart();
    scene
        .get("/small")
        .sees("v1")
        .by("hit")
        .has("X-Own", "kept");
    scene.get("/large").sees(&large).by("hit");
    assert_eq!(scene.origin.requests(), 2);
}

#[test]
fn a_kill_keeps_what_was_journaled() {
    let mut scene = Scene::usual();
    let large = noise(5, 3_000_000);
    scene.origin.says("/small", Reply::ok("v1").fresh());
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.get("/small").stored();
    scene.get("/large").stored();
    scene.await_durable(2);
    scene.kill9_and_start();
    scene.get("/small").sees("v1").by("hit");
    scene.get("/large").sees(&large).by("hit");
    assert_eq!(scene.origin.requests(), 2);
}

#[test]
fn age_goes_on_while_the_process_is_down() {
    let mut scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("max-age=1000").aged(100));
    scene.get("/a").stored();
    scene.restart();
    let hit = scene.get("/a");
    hit.sees("v1").by("hit");
    assert!((800..=900).contains(&hit.ttl()), "{hit}");
}

#[test]
fn bodies_that_are_the_same_are_stored_once() {
    let scene = Scene::usual();
    let body = noise(6, 200_000);
    scene
        .origin
        .does("*", move |_| Reply::ok(body.clone()).fresh());
    for n in 0..10 {
        scene.get(&format!("/copy/{n}")).is(200).stored();
    }
    scene.await_stat("store.entries", |entries| entries == 10);
    scene.await_durable(10);
    let bytes = scene.stat("store.bytes");
    assert!(bytes < 600_000, "ten copies of 200 kB take {bytes} bytes");
    assert_eq!(scene.get("/copy/9").by("hit").body.len(), 200_000);
}
