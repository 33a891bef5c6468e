//! Many clients, one trip to the origin; and nobody waits who need not.

use std::thread;

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

const CROWD: usize = 100;

/// A crowd asks for `/a` while the origin holds its head back; the gate opens when `ready` returns.
fn crowd_at_a_gate(scene: &Scene, gate: &Gate, ready: impl FnOnce(&Scene)) -> Vec<Answer> {
    thread::scope(|scope| {
        let crowd = scope.spawn(|| scene.crowd(CROWD, "/a"));
        ready(scene);
        gate.open();
        crowd.join().expect("a crowd")
    })
}

#[test]
fn a_crowd_at_a_cold_entry_is_one_request_to_the_origin() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(11, 1_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh().held(&gate));
    let answers = crowd_at_a_gate(&scene, &gate, |scene| {
        scene.origin.await_requests("/a", 1);
        scene.await_stat("requests", |requests| requests >= CROWD as u64);
    });
    for answer in &answers {
        answer.is(200).sees(&body);
    }
    scene.origin.saw("/a", 1);
    let collapsed = answers.iter().filter(|a| a.cache_status("collapsed").is_some()).count();
    assert_eq!(collapsed, CROWD - 1, "all but one say that they were collapsed");
}

#[test]
fn a_crowd_at_an_uncacheable_target_goes_side_by_side() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("first").cache("no-store"));
    scene.get("/a").sees("first").not_stored();
    // Remembered as uncacheable: every one of the crowd must be at the origin before any is
    // answered.
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store").held(&gate));
    let answers = crowd_at_a_gate(&scene, &gate, |scene| {
        scene.origin.await_requests("/a", CROWD + 1);
    });
    for answer in &answers {
        answer.is(200).sees("v1").not_stored();
    }
}

#[test]
fn a_crowd_learns_at_the_head_that_a_target_is_uncacheable() {
    let scene = Scene::usual();
    let head = Gate::new();
    let others = Gate::new();
    scene.origin.says_once("/a", Reply::ok("one's own").cache("private").held(&head));
    scene.origin.says("/a", Reply::ok("one's own").cache("private").held(&others));
    let answers = crowd_at_a_gate(&scene, &others, |scene| {
        scene.origin.await_requests("/a", 1);
        head.open();
        scene.origin.await_requests("/a", CROWD);
    });
    for answer in &answers {
        answer.is(200).sees("one's own").not_stored();
    }
    scene.origin.saw("/a", CROWD);
}

#[test]
fn one_who_comes_late_gets_the_beginning_at_once_and_the_rest_as_it_comes() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(12, 400_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh().held_after(200_000, &gate));
    let mut early = scene.connect();
    let mut early = early.get("/a").begin("GET");
    assert_eq!(early.up_to(200_000), &body[..200_000]);
    let mut late = scene.connect();
    let mut late = late.get("/a").begin("GET");
    assert_eq!(late.up_to(200_000), &body[..200_000]);
    gate.open();
    early.finish().sees(&body);
    late.finish().sees(&body);
    scene.origin.saw("/a", 1);
    scene.get("/a").sees(&body).by("hit");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let scene = Scene::usual();
    let body = noise(13, 24_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    let mut idle = scene.connect();
    let mut idle = idle.get("/a").begin("GET");
    idle.up_to(1);
    scene.get("/a").is(200).sees(&body);
    idle.finish().sees(&body);
    scene.origin.saw("/a", 1);
}

#[test]
fn a_fill_goes_on_when_every_client_has_left() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(14, 2_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh().held_after(100_000, &gate));
    let mut client = scene.connect();
    client.get("/a").begin("GET").up_to(100_000);
    drop(client);
    gate.open();
    scene.await_stat("store.entries", |entries| entries == 1);
    scene.get("/a").sees(&body).by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_client_that_leaves_before_the_head_strands_nobody() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").fresh().held(&gate));
    let mut leader = scene.connect();
    leader.get("/a");
    scene.origin.await_requests("/a", 1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.get("/a"));
        scene.await_stat("requests", |requests| requests >= 2);
        drop(leader);
        gate.open();
        waiting.join().expect("a client").is(200).sees("v1");
    });
    scene.get("/a").sees("v1").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn one_waiting_for_another_variant_goes_for_its_own() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let held = gate.clone();
    scene.origin.does("/a", move |request| {
        let language = request.header("Accept-Language").unwrap_or("none").to_owned();
        Reply::ok(language).fresh().header("Vary", "Accept-Language").held(&held)
    });
    thread::scope(|scope| {
        let ask = |language: &'static str| {
            let scene = &scene;
            scope.spawn(move || scene.get_with("/a", &[("Accept-Language", language)]))
        };
        let english = ask("en");
        scene.origin.await_requests("/a", 1);
        let german = ask("de");
        scene.await_stat("requests", |requests| requests >= 2);
        gate.open();
        english.join().expect("a client").sees("en");
        german.join().expect("a client").sees("de");
    });
    scene.origin.saw("/a", 2);
}

#[test]
fn a_purge_during_a_fill_keeps_its_answer_from_being_served_later() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says_once("/a", Reply::ok("old").fresh().held(&gate));
    scene.origin.says("/a", Reply::ok("new").fresh());
    thread::scope(|scope| {
        let asking = scope.spawn(|| scene.get("/a"));
        scene.origin.await_requests("/a", 1);
        scene.purge(&["/a"]);
        gate.open();
        asking.join().expect("a client").sees("old");
    });
    scene.get("/a").sees("new");
}

#[test]
fn when_the_origin_fails_one_of_the_waiting_tries_again() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says_once("/a", Reply::nothing().held(&gate));
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let answers = crowd_at_a_gate(&scene, &gate, |scene| {
        scene.origin.await_requests("/a", 1);
        scene.await_stat("requests", |requests| requests >= CROWD as u64);
    });
    let well = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(well >= CROWD - 1, "only {well} of {CROWD} were answered");
    for answer in &answers {
        answer.is_one_of(&[200, 502]);
    }
    assert!(scene.origin.requests() <= 3, "{} requests", scene.origin.requests());
}
