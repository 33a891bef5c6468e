//! Many clients, one trip to the origin; and nobody waits who need not.

use std::thread;
use std::time::Duration;

use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::Seen;
use crate::origin::noise;
use crate::scene::Scene;

const CROWD: usize = 100;

#[test]
fn a_crowd_at_a_cold_entry_is_one_request_to_the_origin() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(11, 1_000_000);
    scene
        .origin
        .says("/a", Reply::ok(body.clone()).fresh().held(&gate));
    let crowd = scene.crowd(CROWD, "/a");
    scene.fence();
    gate.open();
    let answers = crowd.answers();
    for answer in &answers {
        answer.is(200).sees(&body);
    }
    scene.origin.saw("/a", 1);
    let collapsed = answers
        .iter()
        .filter(|a| a.cache_status("collapsed").is_some());
    assert_eq!(
        collapsed.count(),
        CROWD - 1,
        "all but the first say that they shared its trip"
    );
}

#[test]
fn a_crowd_that_waited_for_a_small_body_says_that_it_was_collapsed() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("small").fresh().held(&gate));
    let crowd = scene.crowd(CROWD, "/a");
    scene.fence();
    gate.open();
    let answers = crowd.answers();
    let collapsed = answers
        .iter()
        .filter(|a| a.cache_status("collapsed").is_some());
    assert_eq!(collapsed.count(), CROWD - 1);
    let aged = answers.iter().filter(|a| a.header("Age").is_some());
    assert_eq!(aged.count(), CROWD - 1, "it was not made for them");
    scene.get("/a").sees("small").by("hit");
}

#[test]
fn a_crowd_over_several_workers_is_one_request_all_the_same() {
    let scene = Scene::new().server("workers", "4").start();
    let gate = Gate::new();
    let body = noise(15, 300_000);
    scene
        .origin
        .says("/a", Reply::ok(body.clone()).fresh().held(&gate));
    let crowd = scene.crowd(CROWD, "/a");
    scene.origin.await_requests("/a", 1);
    gate.open();
    for answer in crowd.answers() {
        answer.is(200).sees(&body);
    }
    scene.origin.saw("/a", 1);
}

#[test]
fn a_crowd_at_an_uncacheable_target_goes_side_by_side() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("first").cache("no-store"));
    scene.get("/a").sees("first").not_stored();
    // Remembered as uncacheable: all of the crowd must be at the origin before any is answered.
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("no-store").held(&gate));
    let crowd = scene.crowd(CROWD, "/a");
    scene.origin.await_requests("/a", CROWD + 1);
    gate.open();
    for answer in crowd.answers() {
        answer.is(200).sees("v1").not_stored();
    }
}

#[test]
fn a_crowd_learns_at_the_head_that_a_target_is_uncacheable() {
    let scene = Scene::usual();
    let (head, others) = (Gate::new(), Gate::new());
    scene
        .origin
        .says_once("/a", Reply::ok("one's own").cache("private").held(&head));
    scene
        .origin
        .says("/a", Reply::ok("one's own").cache("private").held(&others));
    let crowd = scene.crowd(CROWD, "/a");
    scene.fence();
    scene.origin.await_requests("/a", 1);
    scene.origin.saw("/a", 1);
    head.open();
    scene.origin.await_requests("/a", CROWD);
    others.open();
    for answer in crowd.answers() {
        answer.is(200).sees("one's own").not_stored();
    }
    scene.origin.saw("/a", CROWD);
}

#[test]
fn what_must_be_validated_for_each_request_is_shared_with_nobody() {
    let scene = Scene::usual();
    // An origin that knows its visitors and lets caches keep what they ask about every time.
    let own = |request: &Seen| {
        let name = request.header("Cookie").unwrap_or("nobody").to_owned();
        Reply::ok(name.clone())
            .tagged(&format!("\"{name}\""))
            .cache("no-cache")
            .delayed(Duration::from_millis(100))
    };
    scene.origin.does("/a", own);
    for _ in 0..2 {
        thread::scope(|scope| {
            for name in ["alice", "bob", "carol"] {
                let scene = &scene;
                scope.spawn(move || {
                    scene.get_with("/a", &[("Cookie", name)]).is(200).sees(name);
                });
            }
        });
    }
}

#[test]
fn what_has_gone_stale_while_it_came_is_not_given_to_latecomers() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(19, 400_000);
    scene.origin.says_once(
        "/a",
        Reply::ok(body.clone())
            .cache("max-age=60")
            .aged(59)
            .held_after(200_000, &gate),
    );
    scene.origin.says("/a", Reply::ok("new").fresh());
    let mut early = scene.connect();
    let mut early = early.get("/a").begin("GET");
    assert_eq!(early.up_to(200_000), &body[..200_000]);
    thread::sleep(Duration::from_millis(1100)); // waits because its freshness must run out
    scene.get("/a").sees("new");
    gate.open();
    early.finish().sees(&body);
}

#[test]
fn one_who_comes_late_gets_the_beginning_at_once_and_the_rest_as_it_comes() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(12, 400_000);
    scene.origin.says(
        "/a",
        Reply::ok(body.clone()).fresh().held_after(200_000, &gate),
    );
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
    scene.origin.says(
        "/a",
        Reply::ok(body.clone()).fresh().held_after(100_000, &gate),
    );
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
    let mut waiting = scene.connect();
    waiting.get("/a");
    scene.fence();
    drop(leader);
    scene.fence();
    gate.open();
    waiting.answer("GET").is(200).sees("v1");
    scene.get("/a").sees("v1").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn one_waiting_for_another_variant_goes_for_its_own() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let held = gate.clone();
    scene.origin.does("/a", move |request| {
        let language = request
            .header("Accept-Language")
            .unwrap_or("none")
            .to_owned();
        Reply::ok(language)
            .fresh()
            .header("Vary", "Accept-Language")
            .held(&held)
    });
    let (mut english, mut german) = (scene.connect(), scene.connect());
    english.ask("GET", "/a", &[("Accept-Language", "en")], b"");
    scene.origin.await_requests("/a", 1);
    german.ask("GET", "/a", &[("Accept-Language", "de")], b"");
    scene.fence();
    gate.open();
    english.answer("GET").sees("en");
    german.answer("GET").sees("de");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_purge_during_a_fill_keeps_its_answer_from_being_served_later() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says_once("/a", Reply::ok("old").fresh().held(&gate));
    scene.origin.says("/a", Reply::ok("new").fresh());
    let mut client = scene.connect();
    client.get("/a");
    scene.origin.await_requests("/a", 1);
    scene.purge(&["/a"]);
    gate.open();
    client.answer("GET").sees("old");
    scene.get("/a").sees("new");
}

#[test]
fn when_the_origin_fails_one_of_the_waiting_tries_again() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says_once("/a", Reply::nothing().held(&gate));
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let crowd = scene.crowd(CROWD, "/a");
    scene.fence();
    gate.open();
    let answers = crowd.answers();
    for answer in &answers {
        answer.is_one_of(&[200, 502]);
    }
    let well = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(well >= 1, "nobody tried again");
    let asked = scene.origin.seen("/a").len();
    assert!(asked <= 3, "{asked} requests for one broken answer");
    scene.get("/a").is(200).sees("v1").by("hit");
}

#[test]
fn clients_that_walk_over_the_same_targets_ask_the_origin_once_for_each() {
    const TARGETS: usize = 500;
    let scene = Scene::new().server("workers", "2").start();
    let targets: Vec<String> = (0..TARGETS).map(|n| format!("/{n}")).collect();
    for target in &targets {
        scene.origin.says(target, Reply::ok(target.clone()).fresh());
    }
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = scene.connect();
                for target in &targets {
                    client.get(target).answer("GET").is(200).sees(target);
                }
            });
        }
    });
    for target in &targets {
        scene.origin.saw(target, 1);
    }
}
