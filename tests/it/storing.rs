//! What of a response is stored (RFC 9111 §3.1), seen in what the store serves and in its files.

use std::fs;
use std::path::Path;

use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;

/// Fields that belong to a connection or to a proxy on it.
const FOR_ONE_HOP: [(&str, &str); 10] = [
    ("Connection", "keep-alive, X-Named, x-named-too,, @"),
    ("Keep-Alive", "timeout=needle"),
    ("Proxy-Authenticate", "Basic realm=\"needle\""),
    ("Proxy-Authentication-Info", "needle"),
    ("Proxy-Authorization", "Basic needle"),
    ("Proxy-Connection", "needle"),
    ("TE", "needle"),
    ("Trailer", "needle"),
    ("Upgrade", "needle"),
    ("X-Named", "needle"),
];

/// Is `needle` in any file below `folder`?
fn is_in_files(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_files(&path, needle);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

fn for_one_hop(reply: Reply) -> Reply {
    FOR_ONE_HOP
        .iter()
        .fold(reply, |reply, (name, value)| reply.header(name, value))
        .header("X-Named-Too", "needle")
}

#[test]
fn fields_for_one_hop_are_neither_passed_on_nor_stored() {
    let mut scene = Scene::usual();
    let reply = for_one_hop(Reply::ok("v1").fresh()).header("X-Other", "haystack");
    scene.origin.says("/a", reply);
    let is_clean = |scene: &Scene| {
        let answer = scene.get("/a");
        answer.is(200).sees("v1").has("X-Other", "haystack");
        for (name, value) in FOR_ONE_HOP.iter().chain([&("X-Named-Too", "needle")]) {
            assert!(!answer.all(name).contains(value), "{name} in {answer}");
        }
        answer
    };
    is_clean(&scene).stored();
    is_clean(&scene).by("hit");
    scene.await_durable(1);
    scene.restart();
    is_clean(&scene).by("hit");
    scene.origin.saw("/a", 1);
    assert!(is_in_files(&scene.store(), b"haystack"));
    assert!(!is_in_files(&scene.store(), b"needle"));
}

#[test]
fn a_304_brings_no_fields_for_one_hop_into_the_store() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1").cache("max-age=60").tagged("\"1\"");
    scene.origin.says_once("/a", reply.clone().aged(100));
    scene.get("/a").stored();
    scene
        .origin
        .says("/a", for_one_hop(reply).header("X-Other", "haystack"));
    scene.get("/a").by("stale").sees("v1");
    let hit = scene.get("/a");
    hit.by("hit").has("X-Other", "haystack");
    for (name, value) in &FOR_ONE_HOP {
        assert!(!hit.all(name).contains(value), "{name} in {hit}");
    }
}

#[test]
fn fields_that_directives_withhold_reach_only_the_one_who_asked() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1")
        .cache("max-age=60, private=\"X-User, set-cookie\", no-cache=\"x-token\"")
        .header("X-User", "alice")
        .header("Set-Cookie", "id=1")
        .header("X-Token", "t");
    scene.origin.says("/a", reply);
    let first = scene.get("/a");
    first.sees("v1").stored().has("X-User", "alice");
    first.has("Set-Cookie", "id=1").has("X-Token", "t");
    let hit = scene.get("/a");
    hit.by("hit");
    hit.lacks("X-User").lacks("Set-Cookie").lacks("X-Token");
}

#[test]
fn a_length_that_a_directive_withholds_is_not_told_of_a_part() {
    let scene = Scene::usual();
    let reply = Reply::ok("0123456789").cache("max-age=60, private=\"content-length, age\"");
    scene.origin.says("/a", reply);
    let range = [("Range", "bytes=0-3")];
    let part = scene.ask("GET", "/a", &range, b"");
    part.is(206).sees("0123").has("Content-Length", "4");
    scene.get("/a").by("hit").sees("0123456789");
}

#[test]
fn of_many_who_wait_for_one_response_only_one_gets_what_is_for_one() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let reply = Reply::ok("v1").cache("max-age=60, private=\"set-cookie\"");
    let reply = reply
        .header("Set-Cookie", "id=1")
        .header("Set-Cookie", "x=2");
    scene.origin.says("/a", reply.held(&gate));
    let crowd = scene.crowd(8, "/a");
    scene.origin.await_requests("/a", 1);
    scene.fence();
    gate.open();
    let answers = crowd.answers();
    let told: Vec<_> = answers
        .iter()
        .map(|answer| answer.all("Set-Cookie"))
        .collect();
    let with = told.iter().filter(|cookies| !cookies.is_empty());
    assert_eq!(with.collect::<Vec<_>>(), [&["id=1", "x=2"]]);
    scene.origin.saw("/a", 1);
}

#[test]
fn a_cookie_on_a_304_reaches_only_the_one_who_asked() {
    let scene = Scene::usual();
    let reply = Reply::ok("v1").cache("max-age=60").tagged("\"1\"");
    scene.origin.says_once("/a", reply.clone().aged(100));
    scene.origin.says("/a", reply.header("Set-Cookie", "id=1"));
    scene.get("/a").stored().lacks("Set-Cookie");
    scene
        .get("/a")
        .by("stale")
        .sees("v1")
        .has("Set-Cookie", "id=1");
    scene.get("/a").by("hit").lacks("Set-Cookie");
}

#[test]
fn repeated_lines_come_out_of_the_store_as_they_went_in() {
    let mut scene = Scene::new().site("store_set_cookie", "true").start();
    let reply = Reply::ok("v1")
        .cache("max-age=60")
        .cache("public")
        .header("Link", "<b>")
        .header("Set-Cookie", "a=1")
        .header("Link", "<a>, <c>")
        .header("Set-Cookie", "b=2")
        .tagged("\"1\"");
    scene.origin.says("/a", reply);
    scene.get("/a").stored();
    let check = |scene: &Scene| {
        let hit = scene.get("/a");
        hit.by("hit");
        assert_eq!(hit.all("Cache-Control"), ["max-age=60", "public"]);
        assert_eq!(hit.all("Link"), ["<b>", "<a>, <c>"]);
        assert_eq!(hit.all("Set-Cookie"), ["a=1", "b=2"]);
    };
    check(&scene);
    scene.await_durable(1);
    scene.restart();
    check(&scene);
}

#[test]
fn a_content_range_on_a_whole_response_is_a_field_like_others() {
    let scene = Scene::usual();
    for (target, said) in [("/a", "nonsense"), ("/b", "bytes 0-1/2")] {
        let reply = Reply::ok("v1").fresh().header("Content-Range", said);
        scene.origin.says(target, reply);
        scene.get(target).is(200).sees("v1").stored();
        scene
            .get(target)
            .is(200)
            .by("hit")
            .has("Content-Range", said);
        scene.origin.saw(target, 1);
    }
}

#[test]
fn a_304_replaces_every_line_of_a_field() {
    let scene = Scene::new().site("store_set_cookie", "true").start();
    let first = Reply::ok("v1")
        .cache("max-age=60")
        .aged(100)
        .tagged("\"1\"");
    let first = first.header("Link", "<a>").header("Link", "<b>");
    scene
        .origin
        .says_once("/a", first.header("Set-Cookie", "a=1"));
    let then = Reply::ok("v1").cache("max-age=60").tagged("\"1\"");
    let then = then.header("Link", "<c>").header("Link", "<d>");
    let then = then.header("Set-Cookie", "b=2").header("Set-Cookie", "c=3");
    scene.origin.says("/a", then);
    scene.get("/a").stored();
    scene.get("/a").by("stale").sees("v1");
    let hit = scene.get("/a");
    hit.by("hit");
    assert_eq!(hit.all("Link"), ["<c>", "<d>"]);
    assert_eq!(hit.all("Set-Cookie"), ["b=2", "c=3"]);
}
