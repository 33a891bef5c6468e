//! Responses to POST that answer later GETs (RFC 9110 §9.3.3, RFC 9111 §3, §4.4).

use std::thread;

use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

/// What a POST brings that is the target's own next representation.
fn posted(body: &str) -> Reply {
    Reply::ok(body)
        .fresh()
        .header("Content-Location", "/note")
        .header("X-From", "post")
}

#[test]
fn a_posts_answer_with_freshness_and_its_own_location_answers_later_gets() {
    let scene = Scene::usual();
    scene.origin.says("/note", posted("v2"));
    scene
        .ask("POST", "/note", &[], b"change")
        .is(200)
        .sees("v2")
        .by("method")
        .stored();
    scene
        .get("/note")
        .sees("v2")
        .by("hit")
        .has("X-From", "post");
    scene.head("/note").by("hit").has("Content-Length", "2");
    scene.origin.saw("/note", 1);
}

#[test]
fn what_was_stored_before_is_replaced_and_stays_replaced_after_a_crash() {
    let mut scene = Scene::usual();
    scene
        .origin
        .does("/note", |request| match request.method.as_str() {
            "POST" => posted("v2"),
            _ => Reply::ok("v1").fresh(),
        });
    scene.get("/note").sees("v1").stored();
    scene.ask("POST", "/note", &[], b"change").stored();
    scene.get("/note").sees("v2").by("hit");
    scene.await_durable(1);
    scene.kill9_and_start();
    scene.get("/note").sees("v2").by("hit");
    scene.origin.saw("/note", 2);
}

#[test]
fn a_post_is_never_answered_from_the_store() {
    let scene = Scene::usual();
    scene.origin.says("/note", posted("v2"));
    scene.ask("POST", "/note", &[], b"one").is(200);
    scene.ask("POST", "/note", &[], b"two").is(200).by("method");
    scene.ask("POST", "/note", &[], b"").is(200).by("method");
    scene.origin.saw("/note", 3);
}

#[test]
fn a_post_without_all_that_it_takes_is_not_stored() {
    let scene = Scene::usual();
    let plain = || Reply::ok("v2").header("Content-Location", "/note");
    let replies = [
        (
            "no freshness",
            plain().header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ),
        ("no location", Reply::ok("v2").fresh()),
        (
            "another path",
            Reply::ok("v2").fresh().header("Content-Location", "/other"),
        ),
        (
            "another query",
            Reply::ok("v2")
                .fresh()
                .header("Content-Location", "/note?q"),
        ),
        (
            "another host",
            Reply::ok("v2")
                .fresh()
                .header("Content-Location", "http://other.test/note"),
        ),
        (
            "two locations",
            posted("v2").header("Content-Location", "/note"),
        ),
        ("private", plain().cache("private, max-age=60")),
        ("no-store", plain().cache("no-store, max-age=60")),
        ("cookies", posted("v2").header("Set-Cookie", "a=b")),
        (
            "created",
            Reply::status(201)
                .fresh()
                .header("Content-Location", "/note"),
        ),
        (
            "an error",
            Reply::status(404)
                .fresh()
                .header("Content-Location", "/note"),
        ),
    ];
    for (what, reply) in replies {
        scene.origin.says_once("/note", reply);
        let answer = scene.ask("POST", "/note", &[], b"change");
        assert!(answer.cache_status("stored").is_none(), "{what}: {answer}");
        scene
            .origin
            .says_once("/note", Reply::ok("got").cache("no-store"));
        scene.get("/note").sees("got").by("uri-miss");
    }
}

#[test]
fn any_explicit_freshness_will_do() {
    let scene = Scene::usual();
    let located = || Reply::ok("v2").header("Content-Location", "/note");
    for reply in [
        located().cache("s-maxage=60"),
        located().header("Expires", "Fri, 31 Dec 2100 23:59:59 GMT"),
        located()
            .header("CDN-Cache-Control", "max-age=60")
            .cache("no-store"),
    ] {
        scene.origin.says("/note", reply);
        scene.ask("POST", "/note", &[], b"change").stored();
        scene.get("/note").by("hit");
    }
}

#[test]
fn a_posts_request_may_forbid_storing() {
    let scene = Scene::usual();
    scene.origin.says("/note", posted("v2"));
    let quiet = [("Cache-Control", "no-store")];
    scene.ask("POST", "/note", &quiet, b"change").not_stored();
    let secret = [("Authorization", "Basic YTpi")];
    scene.ask("POST", "/note", &secret, b"change").not_stored();
    scene.get("/note").by("uri-miss");
}

#[test]
fn the_client_has_the_answer_while_it_is_written() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let body = noise(51, 300_000);
    scene.origin.says(
        "/note",
        Reply::ok(body.clone())
            .fresh()
            .header("Content-Location", "/note")
            .chunked()
            .held_after(100_000, &gate),
    );
    let mut client = scene.connect();
    let mut reading = client.ask("POST", "/note", &[], b"change").begin("POST");
    reading.up_to(100_000);
    gate.open();
    reading.finish().is(200).sees(&body);
    scene.get("/note").sees(&body).by("hit");
}

#[test]
fn a_posts_answer_that_breaks_off_is_cut_and_not_stored() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/note", posted("0123456789").cut_after(4));
    let mut client = scene.connect();
    client.ask("POST", "/note", &[], b"change");
    client.answer("POST").is_cut();
    scene.origin.says("/note", Reply::ok("whole").fresh());
    scene.get("/note").sees("whole").by("uri-miss");
}

#[test]
fn a_posts_answer_is_kept_by_the_fields_that_it_varies_by() {
    let scene = Scene::usual();
    scene.origin.does("/note", |request| {
        posted(request.header("Accept-Language").unwrap_or("none"))
            .header("Vary", "Accept-Language")
    });
    let german = [("Accept-Language", "de")];
    scene.ask("POST", "/note", &german, b"change").stored();
    scene.get_with("/note", &german).sees("de").by("hit");
    scene.get("/note").sees("none").by("vary-miss");
}

#[test]
fn a_purge_while_a_post_is_under_way_covers_its_answer() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says("/note", posted("v2").held(&gate));
    thread::scope(|scope| {
        let posting = scope.spawn(|| scene.ask("POST", "/note", &[], b"change"));
        scene.origin.await_requests("/note", 1);
        scene.purge(&["/note"]);
        gate.open();
        posting.join().unwrap().is(200).sees("v2").not_stored();
    });
    scene.get("/note").by("uri-miss");
}

#[test]
fn a_posts_answer_outlives_its_own_invalidation_of_a_group_and_no_other() {
    let scene = Scene::usual();
    let grouped = |reply: Reply| reply.header("Cache-Groups", "\"notes\"");
    let list = grouped(Reply::ok("list").fresh());
    scene.origin.says("/list", list);
    let renewed = grouped(posted("v2")).header("Cache-Group-Invalidation", "\"notes\"");
    scene.origin.says("/note", renewed);
    scene.get("/list").stored();
    scene.ask("POST", "/note", &[], b"change").stored();
    scene.get("/list").stored();
    scene.get("/note").sees("v2").by("hit");
    let others = Reply::ok("done").header("Cache-Group-Invalidation", "\"notes\"");
    scene.origin.says("/other", others);
    scene.ask("POST", "/other", &[], b"change").not_stored();
    scene.get("/note").stored();
}

#[test]
fn a_method_that_nobody_knows_makes_the_target_invalid() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    for method in ["BREW", "MKCOL", "get"] {
        scene.get("/a").is(200);
        scene.get("/a").by("hit");
        scene.ask(method, "/a", &[], b"").is(200).by("method");
        scene.get("/a").by("uri-miss");
    }
}

#[test]
fn a_posts_answer_that_hangs_on_what_is_not_in_the_key_is_not_stored() {
    let drops = ("key_query_drop", "[\"evil\"]", "/note?evil=1");
    for (key, value, target) in [drops, ("key_query", "\"sort\"", "/note?b&a")] {
        let scene = Scene::new().site(key, value).start();
        let reply = posted("v2").instead("Content-Location", target);
        scene.origin.says(target, reply);
        scene.origin.says("/note?a&b", Reply::ok("v1").fresh());
        scene.origin.says("/note", Reply::ok("v1").fresh());
        let answer = scene.ask("POST", target, &[], b"change");
        answer.is(200).sees("v2").not_stored();
        scene.get(target).sees("v1").by("uri-miss");
    }
}
