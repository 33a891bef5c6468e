//! What one request may do to a response in parts that others are served from (RFC 9110 §14,
//! §15.3.7, RFC 9111 §3.3, §4.3.4).

use std::sync::Arc;

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::Seen;
use crate::origin::noise;
use crate::scene::Scene;

const SLICE: usize = 1 << 20;
const EARLY: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const LATE: &str = "Sun, 06 Nov 1994 09:00:00 GMT";

fn slices() -> Scene {
    Scene::new().site("range_fetch", "\"slices\"").start()
}

/// An origin has `bytes` bytes at `/a`; `but` may answer some requests otherwise.
fn ranged(
    scene: &Scene,
    bytes: usize,
    but: impl Fn(&Seen, &[u8]) -> Option<Reply> + Send + Sync + 'static,
) -> Arc<Vec<u8>> {
    let body = Arc::new(noise(7, bytes));
    let served = Arc::clone(&body);
    scene.origin.does("/a", move |seen| {
        but(seen, &served).unwrap_or_else(|| Reply::ranged(seen, &served, "\"v1\""))
    });
    body
}

/// The answer, when what it brought has been stored as well.
fn ask(scene: &Scene, range: &str) -> Answer {
    let answer = scene.get_with("/a", &[("Range", range)]);
    scene.await_stat("fills_active", |fills| fills == 0);
    answer
}

#[test]
fn a_304_under_another_strong_validator_ends_the_series() {
    let mut scene = Scene::new()
        .site("range_fetch", "\"slices\"")
        .own_clock()
        .start();
    let dated = |reply: Reply, date: &str| {
        let reply = reply.tagged("W/\"1\"").fresh();
        reply.header("Last-Modified", date)
    };
    let (old, new) = (noise(1, 3 * SLICE), noise(2, 3 * SLICE));
    let first = Reply::part(&old, 0, SLICE - 1);
    let second = Reply::part(&old, SLICE, 2 * SLICE - 1);
    scene
        .origin
        .says_once("/a", dated(first, EARLY))
        .says_once("/a", dated(second, EARLY));
    ask(&scene, "bytes=0-9").is(206).sees(&old[..10]);
    ask(&scene, "bytes=1048576-1048580").is(206).by("partial");
    scene.clock_moves(100);
    let after = new.clone();
    scene.origin.does("/a", move |seen| {
        let known = seen.header("If-None-Match").is_some();
        let part = seen.header("Range").is_some();
        match (known, part) {
            (true, _) => dated(Reply::status(304), LATE),
            (_, true) => dated(Reply::part(&after, 2 * SLICE, 3 * SLICE - 1), LATE),
            (false, false) => dated(Reply::ok(after.clone()), LATE),
        }
    });
    scene.get("/a").is(200).sees(&new);
}

#[test]
fn who_may_have_nothing_stored_takes_nothing_away() {
    for field in [
        ("Cache-Control", "no-store"),
        ("Authorization", "Basic eDp5"),
    ] {
        let scene = slices();
        let body = ranged(&scene, 3 * SLICE, |_, _| None);
        ask(&scene, "bytes=0-9").is(206).stored();
        let range = ("Range", "bytes=2097152-2097161");
        scene
            .get_with("/a", &[field, range])
            .is(206)
            .sees(&body[2 * SLICE..2 * SLICE + 10])
            .not_stored();
        ask(&scene, "bytes=0-9").is(206).by("hit");
        // What is stored answers it too.
        let known = ("Range", "bytes=5-9");
        scene.get_with("/a", &[field, known]).is(206).by("hit");
    }
}

#[test]
fn an_error_that_is_for_one_client_takes_nothing_away() {
    let scene = slices();
    ranged(&scene, 3 * SLICE, |seen, _| {
        seen.header("Evil").map(|_| Reply::status(403))
    });
    ask(&scene, "bytes=0-9").is(206).stored();
    let evil = [("Evil", "1"), ("Range", "bytes=2097152-2097161")];
    scene.get_with("/a", &evil).is(403);
    ask(&scene, "bytes=0-9").is(206).by("hit");
}

#[test]
fn who_shares_a_slice_that_another_was_refused_gets_it_by_itself() {
    let scene = slices();
    let gate = Gate::new();
    let held = gate.clone();
    let body = ranged(&scene, 6 * SLICE, move |seen, _| {
        let evil = seen.header("Evil").is_some();
        evil.then(|| Reply::status(403).held(&held))
    });
    ask(&scene, "bytes=0-9").is(206).stored();
    let mut evil = scene.connect();
    let last_slice = [("Evil", "1"), ("Range", "bytes=5242880-5242889")];
    evil.ask("GET", "/a", &last_slice, b"");
    scene.origin.await_requests("/a", 2);
    let mut good = scene.connect();
    good.ask("GET", "/a", &[], b"");
    let mut reading = good.begin("GET");
    reading.up_to(4 * SLICE + 1);
    scene.fence();
    gate.open();
    reading.finish().is(200).sees(&*body);
    evil.answer("GET").is(403);
}

#[test]
fn cookies_that_come_with_a_slice_reach_nobody_and_take_nothing_away() {
    let scene = slices();
    let body = ranged(&scene, 2 * SLICE, |seen, body| {
        seen.header("If-Range")
            .map(|_| Reply::ranged(seen, body, "\"v1\"").header("Set-Cookie", "a=b"))
    });
    ask(&scene, "bytes=0-9").is(206).stored();
    let whole = scene.get("/a");
    whole.is(200).sees(&*body).by("partial").lacks("Set-Cookie");
    scene.get("/a").is(200).sees(&*body).by("hit");
}

#[test]
fn a_range_beyond_the_end_is_not_held_against_the_target() {
    let scene = slices();
    let body = ranged(&scene, 2 * SLICE, |_, _| None);
    ask(&scene, "bytes=99999999-").is(416);
    ask(&scene, "bytes=0-9").is(206).sees(&body[..10]).stored();
}

#[test]
fn a_range_beyond_the_end_does_not_count_where_if_range_differs() {
    let scene = slices();
    let body = ranged(&scene, 2 * SLICE, |_, _| None);
    let fields = [("Range", "bytes=99999999-"), ("If-Range", "\"old\"")];
    scene.get_with("/a", &fields).is(200).sees(&*body);
}

#[test]
fn a_part_of_what_is_not_stored_is_not_cut_out_under_a_condition() {
    let scene = slices();
    ranged(&scene, 2 * SLICE, |seen, body| {
        let wrong = seen.header("If-Match").is_some_and(|tag| tag != "\"v1\"");
        let reply = Reply::ranged(seen, body, "\"v1\"").cache("no-store");
        Some(if wrong { Reply::status(412) } else { reply })
    });
    let fields = [("Range", "bytes=5-9"), ("If-Match", "\"old\"")];
    scene.get_with("/a", &fields).is(412);
}

#[test]
fn content_range_is_never_on_several_parts_nor_on_the_whole() {
    let scene = slices();
    let body = ranged(&scene, 2 * SLICE, |seen, body| {
        let first = seen.header("Range")?.starts_with("bytes=0-");
        let reply = Reply::ranged(seen, body, "\"v1\"");
        first.then(|| reply.instead("Content-Range", "Bytes 00-1048575/2097152"))
    });
    ask(&scene, "bytes=0-0,5-9").is(206).lacks("Content-Range");
    scene.get("/a").is(200).sees(&*body).lacks("Content-Range");
    let scene = slices();
    let odd = Reply::ok("0123456789").header("Content-Range", "bytes 0-9/10");
    scene.origin.says("/a", odd.fresh());
    ask(&scene, "bytes=0-0,5-9").is(206).lacks("Content-Range");
}

#[test]
fn an_origin_that_sends_everything_for_each_slice_is_asked_once_more() {
    let scene = slices();
    let body = ranged(&scene, 4 * SLICE, |seen, body| {
        let later = seen.header("Range") != Some("bytes=0-1048575");
        let whole = Reply::part(body, 0, body.len() - 1).tagged("\"v1\"");
        later.then(|| whole.fresh())
    });
    for at in [0, SLICE, 2 * SLICE, 3 * SLICE] {
        let range = format!("bytes={at}-{}", at + 9);
        ask(&scene, &range).is(206).sees(&body[at..at + 10]);
    }
    scene.origin.saw("/a", 3);
}

#[test]
fn a_304_that_was_under_way_changes_nothing_that_was_stored_after_a_purge() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let reply = |text: &str| Reply::ok("v1").tagged("\"1\"").fresh().header("Text", text);
    scene.origin.says_once("/a", reply("old").aged(100));
    scene.get("/a").is(200);
    let stale = Reply::status(304)
        .tagged("\"1\"")
        .fresh()
        .header("Text", "old");
    scene.origin.says_once("/a", stale.held(&gate));
    let mut client = scene.connect();
    client.get("/a");
    scene.origin.await_requests("/a", 2);
    scene.purge(&["/a"]);
    scene.origin.says("/a", reply("new"));
    scene.get("/a").is(200).has("Text", "new");
    gate.open();
    client.answer("GET").is(200);
    scene.get("/a").is(200).by("hit").has("Text", "new");
}

#[test]
fn a_head_that_was_under_way_changes_nothing_that_was_stored_after_a_purge() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let reply = |text: &str| Reply::ok("v1").fresh().header("Text", text);
    // Stored for stale-if-error only: it has no validator.
    let stale = reply("old")
        .instead("Cache-Control", "max-age=1, stale-if-error=1000")
        .aged(100);
    scene.origin.says_once("/a", stale);
    scene.get("/a").is(200);
    scene.origin.says_once("/a", reply("old").held(&gate));
    let mut client = scene.connect();
    client.ask("HEAD", "/a", &[], b"");
    scene.origin.await_requests("/a", 2);
    scene.purge(&["/a"]);
    scene.origin.says("/a", reply("new"));
    scene.get("/a").is(200).has("Text", "new");
    gate.open();
    client.answer("HEAD").is(200);
    scene.get("/a").is(200).by("hit").has("Text", "new");
}

#[test]
fn the_rest_of_what_is_not_kept_is_not_fetched() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let held = gate.clone();
    let body = ranged(&scene, 3 * SLICE, move |seen, body| {
        Some(Reply::ranged(seen, body, "\"v1\"").held_after(SLICE / 2, &held))
    });
    let mut client = scene.connect();
    client.ask("GET", "/a", &[("Range", "bytes=0-1048575")], b"");
    let mut reading = client.begin("GET");
    reading.up_to(100);
    scene.purge(&["/a"]);
    gate.open();
    reading.finish().is(206).sees(&body[..SLICE]);
    scene.fence();
    scene.origin.saw("/a", 1);
}
