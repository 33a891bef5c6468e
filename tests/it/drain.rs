//! How it ends: no new work, what was begun is finished, and not for ever.

use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::client::Client;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::eventually;

#[test]
fn sigterm_lets_a_transfer_finish_and_takes_no_new_clients() {
    let mut scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(71, 300_000);
    scene.origin.says(
        "/a",
        Reply::ok(body.clone()).fresh().held_after(100_000, &gate),
    );
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(100_000);
    let front = scene.front();
    scene.terminate();
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    gate.open();
    reading.finish().is(200).sees(&body);
    assert!(scene.wait().success());
}

#[test]
fn what_was_finished_while_draining_is_stored() {
    let mut scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    let front = scene.front();
    scene.terminate();
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    gate.open();
    reading.finish().sees("firstsecond");
    assert!(scene.wait().success());
    scene.start();
    scene.get("/a").sees("firstsecond").by("hit");
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let mut scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut client = scene.connect();
    client.get("/a").answer("GET").is(200);
    let silent = Client::connect(scene.front());
    let asked = Instant::now();
    scene.terminate();
    assert!(scene.wait().success());
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "it took {:?}",
        asked.elapsed()
    );
    assert!(client.is_closed());
    drop(silent);
}

#[test]
fn draining_ends_at_its_limit() {
    let mut scene = Scene::new().server("drain_timeout", "\"300ms\"").start();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    scene.terminate();
    scene.wait();
    reading.finish().is_cut();
    gate.open();
}

#[test]
fn a_second_sigint_stops_at_once() {
    let mut scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    let front = scene.front();
    scene.signal("INT");
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    let asked = Instant::now();
    scene.signal("INT");
    scene.wait();
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "it took {:?}",
        asked.elapsed()
    );
    reading.finish().is_cut();
    gate.open();
}

#[test]
fn a_draining_process_lives_but_is_not_ready() {
    let mut scene = Scene::usual();
    scene.operate("GET", "/healthz", "").is(200);
    scene.operate("GET", "/readyz", "").is(200);
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    scene.terminate();
    eventually("to be no longer ready", || {
        scene.operate("GET", "/readyz", "").status == 503
    });
    scene.operate("GET", "/healthz", "").is(200);
    gate.open();
    reading.finish().sees("firstsecond");
    assert!(scene.wait().success());
}
