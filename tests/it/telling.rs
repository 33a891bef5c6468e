//! What Cache-Status and Proxy-Status say, line by line, for every way a request can go
//! (RFC 9211, RFC 9209).

use std::thread;

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::ClosedPort;
use crate::scene::Scene;

/// The answer's Cache-Status is just this, at most half a minute later.
#[track_caller]
fn says(answer: &Answer, line: &str) {
    assert_eq!(answer.all("cache-status").len(), 1, "{answer}");
    ends_with(answer, line);
}

/// What we say in the answer's Cache-Status is this, at most half a minute later.
#[track_caller]
fn ends_with(answer: &Answer, line: &str) {
    let said = answer.all("cache-status").pop().unwrap_or_default();
    let ttl = |line: &str| {
        let value = line.split("; ttl=").nth(1)?.split(';').next()?;
        value.parse::<i64>().ok()
    };
    let timely = match (ttl(said), ttl(line)) {
        (Some(said), Some(wanted)) => (wanted - 30..=wanted).contains(&said),
        (said, wanted) => said == wanted,
    };
    let bare = |line: &str| match ttl(line) {
        Some(ttl) => line.replace(&ttl.to_string(), "…"),
        None => line.to_owned(),
    };
    assert!(timely, "{said} is not {line}");
    assert_eq!(bare(said), bare(line), "{answer}");
}

/// A reply that was fresh for a minute and is `age` seconds past that.
fn stale(age: u64) -> Reply {
    Reply::ok("v1")
        .tagged("\"v1\"")
        .cache("max-age=60, stale-while-revalidate=1000, stale-if-error=1000")
        .aged(60 + age)
}

#[test]
fn a_miss_a_hit_and_a_response_nobody_has() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").cache("max-age=6000"));
    says(&scene.get("/a"), "larder; fwd=uri-miss; stored; ttl=6000");
    says(&scene.get("/a"), "larder; hit; ttl=6000");
    says(&scene.head("/a"), "larder; hit; ttl=6000");
    scene.origin.says("/mine", Reply::ok("v1").cache("private"));
    says(&scene.get("/mine"), "larder; fwd=uri-miss; detail=private");
    says(
        &scene.get("/mine"),
        "larder; fwd=uri-miss; detail=hit-for-miss",
    );
    let varied = Reply::ok("v1").cache("max-age=6000").header("Vary", "X-A");
    scene.origin.says("/varied", varied);
    scene.get("/varied").stored();
    says(
        &scene.get_with("/varied", &[("X-A", "1")]),
        "larder; fwd=vary-miss; stored; ttl=6000",
    );
}

#[test]
fn requests_that_are_not_for_the_store() {
    let scene = Scene::usual();
    scene.origin.does("*", |_| Reply::ok("v1").fresh());
    let ask = |method, fields: &[_], body: &[u8]| scene.ask(method, "/a", fields, body);
    says(&ask("PUT", &[], b"x"), "larder; fwd=method");
    says(&ask("OPTIONS", &[], b""), "larder; fwd=method");
    says(
        &ask("GET", &[], b"x"),
        "larder; fwd=bypass; detail=request-body",
    );
    says(
        &ask("GET", &[("Cache-Control", "no-store")], b""),
        "larder; fwd=uri-miss; detail=request-no-store",
    );
    says(
        &ask("HEAD", &[], b""),
        "larder; fwd=uri-miss; detail=method",
    );
    says(
        &ask("OPTIONS", &[("Max-Forwards", "0")], b""),
        "larder; detail=synthetic",
    );
    says(&ask("TRACE", &[], b""), "larder; detail=trace-method");
}

#[test]
fn stale_responses_and_what_became_of_them() {
    let scene = Scene::usual();
    scene.origin.says("/behind", stale(40));
    scene.get("/behind").stored();
    let gate = Gate::new();
    scene.origin.says("/behind", stale(40).held(&gate));
    says(
        &scene.get("/behind"),
        "larder; hit; ttl=-40; detail=stale-while-revalidate",
    );
    gate.open();

    let tagged = || Reply::ok("v1").tagged("\"v1\"");
    scene
        .origin
        .says("/stands", tagged().cache("max-age=60").aged(100));
    scene.get("/stands").stored();
    scene.origin.says("/stands", tagged().cache("max-age=6000"));
    says(
        &scene.get("/stands"),
        "larder; fwd=stale; fwd-status=304; stored; ttl=6000",
    );

    let lax = || tagged().cache("max-age=60, stale-if-error=1000").aged(100);
    scene.origin.says("/fails", lax());
    scene.get("/fails").stored();
    scene.origin.says("/fails", Reply::status(503));
    let answer = scene.get("/fails");
    answer.is(200).sees("v1").lacks("Proxy-Status");
    says(
        &answer,
        "larder; fwd=stale; fwd-status=503; ttl=-40; detail=stale-if-error",
    );
}

#[test]
fn directives_of_requests_where_they_count() {
    let scene = Scene::new()
        .site("client_cache_control", "\"honour\"")
        .start();
    let reply = Reply::ok("v1").tagged("\"v1\"").cache("max-age=6000");
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    says(
        &scene.get_with("/a", &[("Cache-Control", "no-cache")]),
        "larder; fwd=request; fwd-status=304; stored; ttl=6000; detail=request-no-cache",
    );
    let nothing = scene.get_with("/b", &[("Cache-Control", "only-if-cached")]);
    says(nothing.is(504), "larder; detail=only-if-cached");
    nothing.proxy_error("proxy_internal_response");
}

#[test]
fn those_who_shared_a_trip_say_so() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let reply = Reply::ok("v1").cache("max-age=6000");
    scene.origin.says("/a", reply.held(&gate));
    thread::scope(|scope| {
        let first = scope.spawn(|| scene.get("/a"));
        scene.origin.await_requests("/a", 1);
        let mut second = scene.connect();
        second.get("/a");
        scene.fence();
        gate.open();
        says(
            &first.join().unwrap(),
            "larder; fwd=uri-miss; stored; ttl=6000",
        );
        says(
            &second.answer("GET"),
            "larder; fwd=uri-miss; stored; collapsed; ttl=6000",
        );
    });
}

#[test]
fn origins_that_give_nothing() {
    let nobody = ClosedPort::new();
    let backends = format!("[{:?}]", nobody.url());
    let scene = Scene::new().upstream("backends", &backends).start();
    let refused = scene.get("/a");
    says(refused.is(502), "larder; fwd=uri-miss; detail=origin-error");
    refused.proxy_error("connection_refused");
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::raw("HTTP/1.1 nonsense\r\n\r\n"));
    let broken = scene.get("/a");
    says(
        broken.is(502),
        "larder; fwd=uri-miss; detail=origin-protocol",
    );
    broken.proxy_error("http_protocol_error");
}

#[test]
fn a_host_that_nobody_serves() {
    let scene = Scene::new().site("hosts", "[\"scene.test\"]").start();
    let answer = scene.get_with("/a", &[("Host", "other.test")]);
    says(answer.is(421), "larder; detail=synthetic");
    answer.proxy_error("destination_not_found");
}

#[test]
fn caches_nearer_the_origin_come_first() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::ok("v1")
            .cache("max-age=6000")
            .header("Cache-Status", "inner; hit")
            .header("Proxy-Status", "inner; details=\"all is well\""),
    );
    for line in [
        "larder; fwd=uri-miss; stored; ttl=6000",
        "larder; hit; ttl=6000",
    ] {
        let answer = scene.get("/a");
        assert_eq!(answer.all("cache-status")[0], "inner; hit");
        ends_with(&answer, line);
        assert_eq!(
            answer.all("proxy-status"),
            ["inner; details=\"all is well\""]
        );
    }
}
