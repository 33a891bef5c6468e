//! The way to the origin: kept connections, several backends, and what is sent along.

use crate::origin::Gate;
use crate::origin::Origin;
use crate::origin::Reply;
use crate::scene::ClosedPort;
use crate::scene::Scene;
use crate::scene::eventually;

#[test]
fn connections_to_the_origin_are_kept_and_used_again() {
    let scene = Scene::usual();
    scene
        .origin
        .does("*", |_| Reply::ok("v1").cache("no-store"));
    let mut client = scene.connect();
    for n in 0..5 {
        client.get(&format!("/{n}")).answer("GET").is(200);
    }
    assert_eq!(scene.origin.last("/4").connection, 1);
}

#[test]
fn a_kept_connection_that_has_gone_is_replaced_without_a_word() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    for _ in 0..3 {
        scene.get("/a").is(200).sees("v1");
        scene.origin.hang_up_on_everyone();
    }
    scene.get("/a").is(200).sees("v1");
}

#[test]
fn a_get_on_a_kept_connection_is_tried_once_more() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    let mut client = scene.connect();
    client.get("/a").answer("GET").is(200);
    scene.origin.says_once("/a", Reply::nothing());
    client.get("/a").answer("GET").is(200).sees("v1");
    scene.origin.saw("/a", 3);
}

#[test]
fn a_post_is_never_sent_twice() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    let mut client = scene.connect();
    client.get("/a").answer("GET").is(200);
    scene.origin.says("/post", Reply::nothing());
    client
        .ask("POST", "/post", &[], b"once")
        .answer("POST")
        .is(502);
    scene.origin.saw("/post", 1);
}

#[test]
fn backends_take_turns() {
    let other = Origin::new();
    let setup = Scene::new();
    let backends = format!("[{:?}, {:?}]", setup.origin().url(), other.url());
    let scene = setup
        .server("workers", "1")
        .upstream("backends", &backends)
        .start();
    for origin in [&scene.origin, &other] {
        origin.does("*", |_| Reply::ok("v1").cache("no-store"));
    }
    for n in 0..10 {
        scene.get(&format!("/{n}")).is(200);
    }
    assert_eq!((scene.origin.requests(), other.requests()), (5, 5));
}

#[test]
fn a_backend_that_refuses_is_passed_over() {
    let setup = Scene::new();
    let dead = ClosedPort::new();
    let backends = format!("[{:?}, {:?}]", dead.url(), setup.origin().url());
    let scene = setup.upstream("backends", &backends).start();
    scene
        .origin
        .does("*", |_| Reply::ok("v1").cache("no-store"));
    for n in 0..6 {
        scene.get(&format!("/{n}")).is(200).sees("v1");
    }
}

#[test]
fn an_origin_that_was_down_is_found_again() {
    let port = ClosedPort::new();
    let backends = format!("[{:?}]", port.url());
    let scene = Scene::new().upstream("backends", &backends).start();
    for _ in 0..5 {
        scene.get("/a").is_one_of(&[502, 503]);
    }
    let back = Origin::on(port.listen());
    back.says("/a", Reply::ok("v1").fresh());
    eventually("the origin to be found again", || {
        scene.get("/a").status == 200
    });
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn no_more_connections_are_opened_than_a_backend_may_have() {
    let scene = Scene::new().upstream("connections_max", "2").start();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    scene.get("/a").not_stored();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("no-store").held(&gate));
    let crowd = scene.crowd(10, "/a");
    scene.origin.await_requests("/a", 3);
    gate.open();
    for answer in crowd.answers() {
        answer.is(200).sees("v1");
    }
    let connections = scene
        .origin
        .seen("/a")
        .iter()
        .map(|seen| seen.connection)
        .max();
    assert!(connections <= Some(2), "{connections:?} connections");
}

#[test]
fn a_full_queue_turns_the_next_away() {
    let setup = Scene::new()
        .upstream("connections_max", "1")
        .upstream("queue_max", "1");
    let scene = setup.start();
    let gate = Gate::new();
    let held = gate.clone();
    scene
        .origin
        .does("*", move |_| Reply::ok("v1").cache("no-store").held(&held));
    let mut first = scene.connect();
    first.get("/1");
    scene.origin.await_requests("/1", 1);
    let mut second = scene.connect();
    second.get("/2");
    // One is served, one waits: whoever of these two comes later is told at once.
    scene.get("/3").is(503).not_stored();
    gate.open();
    first.answer("GET").is(200);
    second.answer("GET").is(200);
}

#[test]
fn fields_of_one_connection_go_no_further() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1")
        .fresh()
        .header("Connection", "X-Hop")
        .header("X-Hop", "origin's");
    scene.origin.says(
        "/a",
        reply
            .header("Keep-Alive", "timeout=5")
            .header("X-End", "kept"),
    );
    let headers = [
        ("Connection", "X-Mine, close"),
        ("X-Mine", "client's"),
        ("Keep-Alive", "300"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic eA=="),
        ("X-End", "kept"),
    ];
    let answer = scene.get_with("/a", &headers);
    answer
        .is(200)
        .lacks("X-Hop")
        .lacks("Keep-Alive")
        .has("X-End", "kept");
    let seen = scene.origin.last("/a");
    for name in ["X-Mine", "Keep-Alive", "TE", "Proxy-Authorization"] {
        assert_eq!(seen.header(name), None, "{name} reached the origin");
    }
    assert_eq!(seen.header("X-End"), Some("kept"));
    scene
        .get("/a")
        .by("hit")
        .lacks("X-Hop")
        .has("X-End", "kept");
}

#[test]
fn the_origin_is_told_the_host_and_who_asks() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene
        .get_with("/a", &[("Host", "shop.test"), ("User-Agent", "scene")])
        .is(200);
    let seen = scene.origin.last("/a");
    assert_eq!(seen.header("Host"), Some("shop.test"));
    assert_eq!(seen.header("User-Agent"), Some("scene"));
    let hosts = seen
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .count();
    assert_eq!(hosts, 1);
}
