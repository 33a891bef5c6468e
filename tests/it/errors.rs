//! An origin that refuses, is silent, lies or breaks off: the client is told the truth, and nothing
//! of it is stored (RFC 9209, RFC 9112 §8).

use std::time::Duration;

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::ClosedPort;
use crate::scene::Scene;

/// An answer of our own to an origin's failure.
#[track_caller]
fn told(answer: &Answer, status: u16, error: &str) {
    answer.is(status).proxy_error(error).not_stored();
    assert!(answer.header("Cache-Status").is_some(), "{answer}");
}

#[test]
fn an_origin_that_refuses_is_502() {
    let nobody = ClosedPort::new();
    let backends = format!("[{:?}]", nobody.url());
    let scene = Scene::new().upstream("backends", &backends).start();
    told(&scene.get("/a"), 502, "connection_refused");
}

#[test]
fn an_origin_that_is_silent_is_504() {
    let scene = Scene::new()
        .upstream("first_byte_timeout", "\"200ms\"")
        .start();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").fresh().held(&gate));
    told(&scene.get("/a"), 504, "http_response_timeout");
    gate.open();
    scene.origin.says("/b", Reply::ok("v1").fresh());
    scene.get("/b").is(200).sees("v1");
}

#[test]
fn an_origin_that_hangs_up_without_a_word_is_502() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::nothing());
    told(&scene.get("/a"), 502, "connection_terminated");
}

#[test]
fn an_origin_that_does_not_speak_http_is_502() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::raw("SSH-2.0-OpenSSH\r\n\r\n"));
    told(&scene.get("/a"), 502, "http_protocol_error");
}

#[test]
fn an_origin_with_a_head_without_end_is_502() {
    let scene = Scene::usual();
    let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
    for n in 0..100_000 {
        endless.extend_from_slice(format!("X-Field-{n}: of many\r\n").as_bytes());
    }
    scene.origin.says("/a", Reply::raw(endless));
    scene.get("/a").is(502);
    scene.origin.says("/b", Reply::ok("v1").fresh());
    scene.get("/b").is(200).sees("v1");
}

#[test]
fn an_unasked_switch_of_protocols_is_502() {
    let scene = Scene::usual();
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    scene.origin.says("/a", Reply::raw(switch));
    scene.get("/a").is(502);
}

#[test]
fn a_body_shorter_than_its_length_is_cut_and_not_stored() {
    let scene = Scene::usual();
    let body = noise(21, 100_000);
    scene.origin.says_once(
        "/a",
        Reply::ok(body.clone())
            .fresh()
            .claims(200_000)
            .then_closes(),
    );
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").is_cut();
    scene.get("/a").is(200).sees(&body).by("uri-miss");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_body_that_ends_before_it_begins_is_a_response_cut_short() {
    let scene = Scene::usual();
    for caching in ["no-store", "max-age=60"] {
        scene
            .origin
            .says("/a", Reply::ok("never").cache(caching).cut_after(0));
        for _ in 0..20 {
            // Not a connection that was lost without a word.
            let answer = scene.get("/a");
            assert_eq!(answer.is_cut().status, 200);
        }
    }
}

#[test]
fn a_chunked_body_without_its_end_is_cut_and_not_stored() {
    let scene = Scene::usual();
    let body = noise(22, 100_000);
    let broken = Reply::ok(body.clone())
        .fresh()
        .chunked()
        .dribbled(40_000, Duration::ZERO);
    scene.origin.says_once("/a", broken.cut_after(80_000));
    scene
        .origin
        .says("/a", Reply::ok(body.clone()).fresh().chunked());
    scene.get("/a").is_cut();
    scene.get("/a").is(200).sees(&body).by("uri-miss");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_broken_fill_leaves_nothing_in_the_store() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::ok(noise(23, 3_000_000)).fresh().cut_after(2_500_000),
    );
    scene.get("/a").is_cut();
    scene.get("/a").is_cut();
    scene.await_stat("fills_active", |fills| fills == 0);
    assert_eq!(scene.stat("store.entries"), 0);
    scene.origin.saw("/a", 2);
}

#[test]
fn every_reader_of_a_broken_fill_is_cut() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let reply = Reply::ok(noise(24, 500_000))
        .fresh()
        .held_after(200_000, &gate)
        .cut_after(300_000);
    scene.origin.says("/a", reply);
    let (mut one, mut other) = (scene.connect(), scene.connect());
    let mut one = one.get("/a").begin("GET");
    one.up_to(200_000);
    let mut other = other.get("/a").begin("GET");
    other.up_to(200_000);
    gate.open();
    one.finish().is_cut();
    other.finish().is_cut();
    scene.origin.saw("/a", 1);
}

#[test]
fn an_origin_that_falls_silent_within_a_body_is_cut() {
    let scene = Scene::new()
        .upstream("between_bytes_timeout", "\"200ms\"")
        .start();
    let gate = Gate::new();
    let body = noise(25, 100_000);
    scene.origin.says_once(
        "/a",
        Reply::ok(body.clone()).fresh().held_after(50_000, &gate),
    );
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").is_cut();
    scene.get("/a").is(200).sees(&body).by("uri-miss");
    gate.open();
}

#[test]
fn an_error_of_the_origin_is_passed_on_as_it_is() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::status(500));
    scene.get("/a").is(500).sees("status 500").not_stored();
    scene.get("/a").is(500);
    scene.origin.saw("/a", 2);
}

#[test]
fn an_answer_with_both_framings_never_leaks_into_the_next() {
    let scene = Scene::usual();
    let both = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\
                Transfer-Encoding: chunked\r\n\r\n2\r\nv1\r\n0\r\n\r\n";
    scene.origin.says("/a", Reply::raw(both));
    scene.origin.says("/b", Reply::ok("v1").fresh());
    let answer = scene.get("/a");
    answer.is_one_of(&[200, 502]);
    if answer.status == 200 {
        answer.sees("v1");
        assert_eq!(
            answer.all("Content-Length").len() + answer.all("Transfer-Encoding").len(),
            1
        );
    }
    scene.get("/b").is(200).sees("v1");
}

#[test]
fn two_lengths_that_differ_are_502() {
    let scene = Scene::usual();
    let lying = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nv1x";
    scene.origin.says("/a", Reply::raw(lying));
    scene.get("/a").is(502);
}
