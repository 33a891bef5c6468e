//! Requests that are not a plain GET: bodies, other methods, other targets (RFC 9110 §9).

use crate::client::Client;
use crate::client::HOST;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

#[test]
fn a_post_goes_through_with_its_body() {
    let scene = Scene::usual();
    scene.origin.says("/form", Reply::ok("thanks").fresh());
    let body = noise(41, 500_000);
    scene
        .ask("POST", "/form", &[], &body)
        .is(200)
        .sees("thanks")
        .by("method")
        .not_stored();
    scene.ask("POST", "/form", &[], &body).is(200).by("method");
    scene.origin.saw("/form", 2);
    assert!(scene.origin.last("/form").body == body);
}

#[test]
fn a_chunked_body_arrives_as_the_same_bytes() {
    let scene = Scene::usual();
    scene.origin.says("/form", Reply::ok("thanks"));
    let body = b"5\r\nhello\r\n1;note=x\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
    scene
        .ask("POST", "/form", &[("Transfer-Encoding", "chunked")], body)
        .is(200);
    assert_eq!(scene.origin.last("/form").body, b"hello world");
}

#[test]
fn a_successful_unsafe_request_invalidates_what_is_stored() {
    let scene = Scene::usual();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        scene.origin.says("/a", Reply::ok("v1").fresh());
        scene.get("/a").is(200);
        scene.get("/a").by("hit");
        scene.ask(method, "/a", &[], b"change").is(200);
        scene.get("/a").by("uri-miss");
    }
}

#[test]
fn a_failed_unsafe_request_leaves_the_store_alone() {
    let scene = Scene::usual();
    scene
        .origin
        .does("/a", |request| match request.method.as_str() {
            "GET" => Reply::ok("v1").fresh(),
            _ => Reply::status(403),
        });
    scene.get("/a").stored();
    scene.ask("POST", "/a", &[], b"change").is(403);
    scene.get("/a").by("hit");
}

#[test]
fn a_get_with_a_body_neither_uses_nor_fills_the_store() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        Reply::ok(if request.body.is_empty() {
            "plain"
        } else {
            "poison"
        })
        .fresh()
    });
    scene
        .ask("GET", "/a", &[], b"x")
        .is(200)
        .sees("poison")
        .not_stored();
    scene.get("/a").sees("plain").by("uri-miss");
    scene.ask("GET", "/a", &[], b"x").is(200).sees("poison");
    scene.get("/a").sees("plain").by("hit");
}

#[test]
fn options_and_unknown_methods_pass_through() {
    let scene = Scene::usual();
    scene
        .origin
        .does("/a", |request| Reply::ok(request.method.clone()).fresh());
    for method in ["OPTIONS", "PROPFIND", "BREW"] {
        scene
            .ask(method, "/a", &[], b"")
            .is(200)
            .sees(method)
            .by("method")
            .not_stored();
    }
}

#[test]
fn an_absolute_target_outweighs_the_host_field() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        Reply::ok(request.header("Host").unwrap_or_default()).fresh()
    });
    let absolute = format!("http://{HOST}/a");
    scene
        .ask("GET", &absolute, &[("Host", "evil.test")], b"")
        .is(200)
        .sees(HOST);
    scene.get("/a").sees(HOST).by("hit");
    scene
        .get_with("/a", &[("Host", "evil.test")])
        .sees("evil.test")
        .by("uri-miss");
}

#[test]
fn one_connection_serves_many_requests_in_order() {
    let scene = Scene::usual();
    for target in ["/1", "/2", "/3"] {
        scene.origin.says(target, Reply::ok(target).fresh());
    }
    let mut client = scene.connect();
    let pipeline: String = ["/1", "/2", "/3"]
        .iter()
        .map(|t| format!("GET {t} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .collect();
    client.send(pipeline.as_bytes());
    for target in ["/1", "/2", "/3"] {
        client.answer("GET").is(200).sees(target);
    }
    client.get("/1").answer("GET").sees("/1").by("hit");
}

#[test]
fn an_http_1_0_client_gets_no_chunks_and_a_closed_connection() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(42, 100_000);
    scene.origin.says(
        "/a",
        Reply::ok(body.clone())
            .fresh()
            .chunked()
            .held_after(1_000, &gate),
    );
    let mut client = scene.connect();
    client.send(format!("GET /a HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes());
    let mut reading = client.begin("GET");
    reading.so_far().lacks("Transfer-Encoding");
    reading.up_to(1_000);
    gate.open();
    reading.finish().is(200).sees(&body);
    assert!(client.is_closed());
}

#[test]
fn a_client_may_say_that_it_is_done() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut client = scene.connect();
    client
        .ask("GET", "/a", &[("Connection", "close")], b"")
        .answer("GET")
        .is(200)
        .sees("v1");
    assert!(client.is_closed());
}

#[test]
fn a_body_that_was_asked_leave_for_gets_it() {
    let scene = Scene::usual();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut client = Client::connect(scene.front());
    let head = format!(
        "POST /form HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    client.send(head.as_bytes());
    // Whoever waits for the 100 gets it; the answer itself comes once the body has.
    client.send(b"hello");
    client.answer("POST").is(200).sees("thanks");
    assert_eq!(scene.origin.last("/form").body, b"hello");
}

#[test]
fn a_site_that_nobody_configured_is_not_found() {
    let scene = Scene::new()
        .site("hosts", "[\"scene.test\", \"*.shop.test\"]")
        .start();
    scene.origin.does("*", |_| Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    scene.get_with("/a", &[("Host", "one.shop.test")]).is(200);
    scene
        .get_with("/a", &[("Host", "other.test")])
        .is_one_of(&[404, 421]);
    assert_eq!(scene.origin.requests(), 2);
}
