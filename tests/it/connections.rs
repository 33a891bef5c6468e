//! Slow and silent clients lose their connection; the rest never notice.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::client::HOST;
use crate::client::tcp;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

#[test]
fn a_head_that_never_ends_is_given_up() {
    let scene = Scene::new().server("header_timeout", "\"200ms\"").start();
    let mut client = scene.connect();
    client.send(b"GET /a HTTP/1.1\r\nHost: scene.test\r\nX-Slow: ");
    if let Some(reading) = client.try_begin("GET") {
        reading.finish().is(408);
    }
    assert!(client.is_closed());
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn a_head_that_dribbles_is_given_up_all_the_same() {
    let scene = Scene::new().server("header_timeout", "\"300ms\"").start();
    let mut wire = tcp(scene.front());
    let mut client = Client::over(wire.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            for byte in b"GET /a HTTP/1.1\r\nHost: scene.test\r\n".iter().cycle() {
                if wire.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(20)); // waits because slowness is the attack
            }
        });
        if let Some(reading) = client.try_begin("GET") {
            reading.finish().is_one_of(&[400, 408]);
        }
    });
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn an_idle_connection_is_closed() {
    let scene = Scene::new().server("idle_timeout", "\"200ms\"").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut client = scene.connect();
    client.get("/a").answer("GET").sees("v1");
    assert!(client.is_closed());
}

#[test]
fn a_connection_that_never_asks_is_closed() {
    let setup = Scene::new().server("idle_timeout", "\"200ms\"");
    let scene = setup.server("header_timeout", "\"200ms\"").start();
    let mut client = scene.connect();
    if let Some(reading) = client.try_begin("GET") {
        reading.finish().is(408);
    }
    assert!(client.is_closed());
}

#[test]
fn a_request_body_that_stalls_is_given_up() {
    let scene = Scene::new()
        .server("body_read_timeout", "\"200ms\"")
        .start();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut client = scene.connect();
    let head = format!("POST /form HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nhalf");
    client.send(head.as_bytes());
    if let Some(reading) = client.try_begin("POST") {
        reading.finish().is_one_of(&[400, 408]);
    }
    scene.origin.saw("/form", 0);
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let scene = Scene::new().server("write_timeout", "\"300ms\"").start();
    let body = noise(51, 48_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").sees(&body);
    let mut stuck = scene.connect();
    let mut reading = stuck.get("/a").begin("GET");
    reading.up_to(1);
    thread::sleep(Duration::from_millis(1500)); // waits because standing still is the scene
    reading.finish().is_cut();
    scene.get("/a").sees(&body).by("hit");
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_served() {
    let scene = Scene::new().server("write_timeout", "\"2s\"").start();
    let body = noise(52, 12_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").sees(&body);
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    for tenth in 1..=10 {
        reading.up_to(tenth * 100_000);
        thread::sleep(Duration::from_millis(50)); // waits because a slow reader is the scene
    }
    reading.finish().sees(&body).by("hit");
}
