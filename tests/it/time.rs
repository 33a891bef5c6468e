//! What passes, and what a clock that is set does to it (RFC 9111 §4.2.3).

use crate::client::Answer;
use crate::origin::Reply;
use crate::scene::Scene;

const YEAR: i64 = 365 * 86_400;

fn timed() -> Scene {
    Scene::new().own_clock().start()
}

#[track_caller]
fn age(answer: &Answer) -> i64 {
    answer
        .header("Age")
        .expect("an Age")
        .parse()
        .expect("seconds")
}

#[test]
fn a_response_is_fresh_to_its_last_second_and_no_longer() {
    let mut scene = timed();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.clock_moves(30);
    let hit = scene.get("/a");
    assert!((30..40).contains(&age(hit.by("hit"))), "{hit}");
    assert!((20..=30).contains(&hit.ttl()), "{hit}");
    scene.clock_moves(30);
    scene.get("/a").by("stale");
    scene.get("/a").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn expires_runs_out_as_the_clock_says() {
    let mut scene = timed();
    let reply = Reply::ok("v1").header("Expires", "Thursday, 01-Jan-60 00:00:00 GMT");
    let reply = reply.header("Date", "Sun Nov  6 08:49:37 1994");
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    scene.clock_moves(YEAR);
    scene.get("/a").by("hit");
    scene.clock_moves(40 * YEAR);
    scene.get("/a").by("stale");
}

#[test]
fn a_clock_set_forward_makes_what_is_stored_older() {
    let mut scene = timed();
    let reply = Reply::ok("v1").fresh().tagged("\"1\"");
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    scene.clock_moves(86_400);
    scene.get("/a").by("stale").sees("v1");
    let validated = scene.origin.last("/a");
    assert_eq!(validated.header("If-None-Match"), Some("\"1\""));
    let hit = scene.get("/a");
    assert!(age(hit.by("hit")) < 30, "{hit}");
}

#[test]
fn a_clock_set_back_has_what_is_stored_validated_and_then_counts_anew() {
    let mut scene = timed();
    let reply = Reply::ok("v1").cache("max-age=60, stale-while-revalidate=600");
    scene.origin.says("/a", reply.tagged("\"1\""));
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.clock_moves(-86_400);
    scene.get("/a").by("stale").sees("v1");
    scene.origin.saw("/a", 2);
    assert_eq!(
        scene.origin.last("/a").header("If-None-Match"),
        Some("\"1\"")
    );
    let hit = scene.get("/a");
    assert!((20..=60).contains(&hit.by("hit").ttl()), "{hit}");
    scene.clock_moves(60);
    scene.get("/a").by("hit").detail("stale-while-revalidate");
}

#[test]
fn a_clock_set_back_while_nothing_ran_is_noticed_at_the_next_start() {
    let mut scene = timed();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.clock_moves(-86_400);
    scene.restart();
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v2").by("stale");
    scene.get("/a").sees("v2").by("hit");
}

#[test]
fn what_is_stored_ages_while_nothing_runs() {
    let mut scene = timed();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("max-age=100").aged(10));
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.clock_moves(50);
    scene.restart();
    let hit = scene.get("/a");
    assert!((60..80).contains(&age(hit.by("hit"))), "{hit}");
    scene.clock_moves(40);
    scene.get("/a").by("stale");
}

#[test]
fn the_stale_windows_end_when_they_should() {
    let mut scene = timed();
    let windows = "max-age=60, stale-while-revalidate=100, stale-if-error=1000";
    scene.origin.says_once("/a", Reply::ok("v1").cache(windows));
    scene.origin.says("/a", Reply::status(503));
    scene.get("/a").stored();
    scene.clock_moves(100);
    let stale = scene.get("/a");
    stale.by("hit").detail("stale-while-revalidate").sees("v1");
    assert!((-60..=-40).contains(&stale.ttl()), "{stale}");
    scene.clock_moves(60);
    scene.get("/a").is(200).detail("stale-if-error").sees("v1");
    scene.clock_moves(900);
    scene.get("/a").is(503);
}

#[test]
fn a_guessed_lifetime_is_a_tenth_of_the_time_since_the_modification() {
    let mut scene = timed();
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let reply = Reply::ok("v1").header("Last-Modified", modified);
    // Guesses end after a day, which is far less than a tenth of the time since then.
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    scene.clock_moves(86_000);
    scene.get("/a").by("hit");
    scene.clock_moves(400);
    scene.get("/a").by("stale");
}
