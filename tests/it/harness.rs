//! The harness alone: what the origin is told to do is what the client sees.

use std::thread;
use std::time::Duration;

use crate::client::Answer;
use crate::client::Client;
use crate::origin::Gate;
use crate::origin::Origin;
use crate::origin::Reply;
use crate::origin::noise;

fn client(origin: &Origin) -> Client {
    let address = origin.url();
    Client::connect(address.trim_start_matches("http://").parse().unwrap())
}

fn get(origin: &Origin, target: &str) -> Answer {
    client(origin).get(target).answer("GET")
}

#[test]
fn the_origin_says_what_it_was_told_and_remembers_what_it_was_asked() {
    let origin = Origin::new();
    origin.says(
        "/a",
        Reply::ok("v1")
            .header("Link", "<one>")
            .header("Link", "<two>"),
    );
    let answer = client(&origin)
        .ask("PUT", "/a", &[("X-Word", "w")], b"body")
        .answer("PUT");
    answer.is(200).sees("v1");
    assert_eq!(answer.all("link"), ["<one>", "<two>"]);
    let seen = origin.last("/a");
    assert_eq!(
        (seen.method.as_str(), seen.body.as_slice()),
        ("PUT", b"body".as_slice())
    );
    assert_eq!(seen.header("x-word"), Some("w"));
    get(&origin, "/b").is(404);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn first_replies_come_in_turn_before_the_standing_one() {
    let origin = Origin::new();
    origin
        .says("/a", Reply::ok("then"))
        .says_once("/a", Reply::ok("1"));
    origin.says_once("/a", Reply::ok("2"));
    let seen: Vec<_> = (0..4).map(|_| get(&origin, "/a").body).collect();
    assert_eq!(
        seen,
        [
            b"1".to_vec(),
            b"2".to_vec(),
            b"then".to_vec(),
            b"then".to_vec()
        ]
    );
}

#[test]
fn bodies_come_whole_however_they_are_framed() {
    let origin = Origin::new();
    let body = noise(1, 100_000);
    origin.says("/length", Reply::ok(body.clone()));
    origin.says(
        "/chunked",
        Reply::ok(body.clone())
            .chunked()
            .dribbled(30_000, Duration::ZERO),
    );
    origin.says("/close", Reply::ok(body.clone()).until_close());
    for target in ["/length", "/chunked", "/close"] {
        get(&origin, target).sees(&body);
    }
}

#[test]
fn a_cut_body_is_seen_as_cut() {
    let origin = Origin::new();
    origin.says("/length", Reply::ok("0123456789").cut_after(4));
    origin.says("/chunked", Reply::ok("0123456789").chunked().cut_after(4));
    origin.says("/claims", Reply::ok("0123456789").claims(20).then_closes());
    get(&origin, "/length").is_cut();
    get(&origin, "/chunked").is_cut();
    assert_eq!(get(&origin, "/claims").is_cut().body, b"0123456789");
}

#[test]
fn a_gate_holds_the_rest_of_a_body_back() {
    let origin = Origin::new();
    let gate = Gate::new();
    origin.says("/a", Reply::ok("firstsecond").held_after(5, &gate));
    let mut client = client(&origin);
    let mut reading = client.get("/a").begin("GET");
    assert_eq!(reading.up_to(5), b"first");
    assert_eq!(reading.so_far().body, b"first");
    gate.open();
    reading.finish().sees("firstsecond");
}

#[test]
fn a_known_entity_tag_is_answered_with_304() {
    let origin = Origin::new();
    origin.says("/a", Reply::ok("v1").tagged("\"v1\""));
    let ask = |tag: &str| {
        client(&origin)
            .ask("GET", "/a", &[("If-None-Match", tag)], b"")
            .answer("GET")
    };
    ask("\"v1\"").is(304).has("etag", "\"v1\"").sees("");
    ask("\"v0\"").is(200).sees("v1");
}

#[test]
fn a_connection_serves_many_requests_until_the_origin_closes_it() {
    let origin = Origin::new();
    origin
        .says("/a", Reply::ok("v1"))
        .says("/last", Reply::ok("end").then_closes());
    let mut client = client(&origin);
    client.get("/a").answer("GET").sees("v1");
    client
        .ask("HEAD", "/a", &[], b"")
        .answer("HEAD")
        .sees("")
        .has("content-length", "2");
    client.get("/last").answer("GET").sees("end");
    assert!(client.is_closed());
    assert_eq!(origin.last("/last").connection, 1);
}

#[test]
fn a_closed_origin_refuses_and_cuts() {
    let origin = Origin::new();
    let gate = Gate::new();
    origin.says("/a", Reply::ok("firstsecond").held_after(5, &gate));
    let mut client = client(&origin);
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    thread::scope(|scope| {
        scope.spawn(|| origin.close());
        reading.finish().is_cut();
    });
    gate.open();
}

#[test]
fn a_request_is_waited_for_as_it_arrives() {
    let origin = Origin::new();
    let gate = Gate::new();
    origin.says("/a", Reply::ok("v1").held(&gate));
    thread::scope(|scope| {
        let asking = scope.spawn(|| get(&origin, "/a"));
        origin.await_requests("/a", 1);
        gate.open();
        asking.join().unwrap().sees("v1");
    });
}
