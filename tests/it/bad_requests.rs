//! Malformed requests: refused with the right status, never seen by the origin, counted by reason.
//!
//! `fixtures/wire/` has one message a file, named by the statuses that fit: `400-no-host.http`,
//! `400-505-version-2.http`. Files that begin with 200 are unusual and right.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::client::Client;
use crate::client::HOST;
use crate::origin::Reply;
use crate::scene::Scene;

/// A raw message and the statuses that are right for it.
struct Message {
    name: String,
    statuses: Vec<u16>,
    bytes: Vec<u8>,
}

fn messages() -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the wire fixtures").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".http") {
            let statuses: Vec<u16> = name
                .split('-')
                .map_while(|word| word.parse().ok())
                .collect();
            assert!(!statuses.is_empty(), "{name} does not begin with a status");
            found.push(Message {
                statuses,
                bytes: fs::read(entry.path()).expect("a fixture"),
                name,
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!found.is_empty(), "no wire fixtures");
    found
}

fn scene() -> Scene {
    let scene = Scene::usual();
    scene
        .origin
        .does("*", |_| Reply::ok("taken").cache("no-store"));
    scene
}

/// What was refused for any reason: by the rules, or as no HTTP at all.
fn refused(scene: &Scene) -> u64 {
    fn total(value: &Value) -> u64 {
        let members = value
            .as_object()
            .map(|members| members.values().map(total).sum());
        members.or_else(|| value.as_u64()).unwrap_or_default()
    }
    let stats = scene.stats();
    total(&stats["refused"]) + total(&stats["malformed"])
}

#[test]
fn malformed_requests_are_refused_and_never_reach_the_origin() {
    let scene = scene();
    let mut wrong = Vec::new();
    let mut sent = 0;
    for message in messages()
        .into_iter()
        .filter(|message| !message.statuses.contains(&200))
    {
        let before = scene.origin.requests();
        let mut client = scene.connect();
        client.send(&message.bytes);
        let Some(reading) = client.try_begin("GET") else {
            wrong.push(format!("{}: closed without an answer", message.name));
            continue;
        };
        // A body that breaks later is a forwarded request's failure, not a refusal.
        if !message.name.contains("-chunk-") {
            sent += 1;
        }
        let answer = reading.finish();
        if !message.statuses.contains(&answer.status) {
            wrong.push(format!("{}: {answer}", message.name));
        }
        if scene.origin.requests() != before {
            wrong.push(format!("{}: reached the origin", message.name));
        }
        if answer.status != 405 && answer.status != 417 && !client.is_closed() {
            wrong.push(format!("{}: the connection was kept", message.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.await_stat("requests", |_| refused(&scene) >= sent);
}

#[test]
fn unusual_requests_that_are_right_are_served() {
    let scene = scene();
    let mut wrong = Vec::new();
    for message in messages()
        .into_iter()
        .filter(|message| message.statuses.contains(&200))
    {
        let mut client = scene.connect();
        client.send(&message.bytes);
        match client.try_begin("GET").map(|reading| reading.finish()) {
            Some(answer) if answer.status == 200 && answer.body == b"taken" => {}
            Some(answer) => wrong.push(format!("{}: {answer}", message.name)),
            None => wrong.push(format!("{}: closed without an answer", message.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_reason_has_a_counter_of_its_own() {
    let scene = scene();
    let mut client = scene.connect();
    client.send(b"GET /a HTTP/1.1\r\n\r\n");
    client.answer("GET").is(400);
    scene.await_stat("refused.host-missing", |count| count == 1);
    scene.ask("TRACE", "/a", &[], b"").is(405);
    scene.await_stat("refused.trace-method", |count| count == 1);
    assert_eq!(scene.stat("refused.host-missing"), 1);
}

#[test]
fn a_target_of_a_hundred_kilobytes_is_414() {
    let scene = Scene::new().server("header_bytes_max", "\"1MiB\"").start();
    let target = format!("/{}", "a".repeat(100_000));
    scene.get(&target).is_one_of(&[414, 431]);
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn what_follows_a_refused_request_is_not_read_as_another() {
    let scene = scene();
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 60\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n",
    ] {
        let mut client = scene.connect();
        let head = format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\n{lengths}\r\n{smuggled}");
        client.send(head.as_bytes());
        client.answer("POST").is_one_of(&[400, 501]);
        assert!(client.is_closed(), "{lengths}");
    }
    scene.origin.saw("/smuggled", 0);
}

#[test]
fn two_framings_in_one_request_end_the_connection() {
    let scene = scene();
    let mut client = scene.connect();
    let head = format!(
        "POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    );
    client.send(head.as_bytes());
    client.answer("POST").is_one_of(&[200, 400]);
    assert!(client.is_closed());
    scene.origin.saw("/smuggled", 0);
}

#[test]
fn a_flood_of_rubbish_leaves_the_next_client_unharmed() {
    let scene = scene();
    for round in 0..50_u64 {
        let mut client = Client::connect(scene.front());
        client.send(&crate::origin::noise(round, 2_000));
        client.send(b"\r\n\r\n");
        drop(client.try_begin("GET").map(|reading| reading.finish()));
    }
    scene.get("/a").is(200).sees("taken");
}
