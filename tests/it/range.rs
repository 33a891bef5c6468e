//! Parts of a stored response (RFC 9110 §14).

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

/// A scene whose `/a` is stored and is ten digits.
fn stored() -> Scene {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("0123456789").fresh().tagged("\"1\""));
    scene.get("/a").stored();
    scene
}

#[test]
fn a_part_of_a_stored_response_is_served_as_206() {
    let scene = stored();
    let ask = |range: &str| scene.get_with("/a", &[("Range", range)]);
    let part = ask("bytes=2-4");
    part.is(206)
        .sees("234")
        .by("hit")
        .has("Content-Range", "bytes 2-4/10");
    part.has("Content-Length", "3").has("ETag", "\"1\"");
    ask("bytes=7-")
        .is(206)
        .sees("789")
        .has("Content-Range", "bytes 7-9/10");
    ask("bytes=-2")
        .is(206)
        .sees("89")
        .has("Content-Range", "bytes 8-9/10");
    ask("bytes=8-99").is(206).sees("89");
    ask("bytes=-99").is(206).sees("0123456789");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_range_that_starts_behind_the_end_is_416() {
    let scene = stored();
    let answer = scene.get_with("/a", &[("Range", "bytes=10-")]);
    answer.is(416).has("Content-Range", "bytes */10").by("hit");
}

#[test]
fn a_range_that_means_nothing_is_ignored() {
    let scene = stored();
    for range in ["bytes=4-2", "lines=1-2", "bytes=a-b", "bytes=", "bytes"] {
        scene
            .get_with("/a", &[("Range", range)])
            .is(200)
            .sees("0123456789");
    }
}

#[test]
fn if_range_gives_the_part_only_of_the_same_representation() {
    let scene = stored();
    let ask = |tag: &str| scene.get_with("/a", &[("Range", "bytes=0-0"), ("If-Range", tag)]);
    ask("\"1\"").is(206).sees("0");
    ask("\"2\"").is(200).sees("0123456789");
    ask("W/\"1\"").is(200).sees("0123456789");
}

#[test]
fn a_range_has_no_meaning_for_head() {
    let scene = stored();
    scene
        .ask("HEAD", "/a", &[("Range", "bytes=0-0")], b"")
        .is(200)
        .has("Content-Length", "10");
}

#[test]
fn a_range_on_a_miss_gets_its_part_and_never_poisons_the_whole() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("0123456789").fresh());
    let answer = scene.get_with("/a", &[("Range", "bytes=2-4")]);
    answer.is_one_of(&[200, 206]);
    if answer.status == 206 {
        answer.sees("234");
    } else {
        answer.sees("0123456789");
    }
    scene.get("/a").is(200).sees("0123456789");
}

#[test]
fn a_206_of_the_origin_is_never_served_as_the_whole() {
    let scene = Scene::usual();
    scene
        .origin
        .does("/a", |request| match request.header("Range") {
            Some(_) => Reply::status(206)
                .fresh()
                .header("Content-Range", "bytes 0-9/1000"),
            None => Reply::ok("whole").fresh(),
        });
    scene.get_with("/a", &[("Range", "bytes=0-9")]);
    scene.get("/a").is(200).sees("whole");
    scene.get("/a").is(200).sees("whole").by("hit");
}

#[test]
fn a_part_across_segments_is_read_from_disk_byte_for_byte() {
    let mut scene = Scene::new().cache("memory_bytes_max", "\"0B\"").start();
    let body = noise(7, 5_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").sees(&body).stored();
    scene.restart();
    for (first, last) in [
        (0, 0),
        (1_048_570, 1_048_585),
        (999_999, 4_200_000),
        (4_999_999, 4_999_999),
    ] {
        let range = format!("bytes={first}-{last}");
        let answer = scene.get_with("/a", &[("Range", &range)]);
        answer.is(206).by("hit").sees(&body[first..=last]);
    }
}

#[test]
fn a_content_range_on_a_200_means_nothing() {
    let scene = Scene::usual();
    let reply = Reply::ok("0123456789").fresh();
    scene
        .origin
        .says("/a", reply.header("Content-Range", "bytes 0-4/10"));
    scene.get("/a").is(200).sees("0123456789").stored();
    scene.get("/a").is(200).sees("0123456789").by("hit");
    scene
        .get_with("/a", &[("Range", "bytes=2-4")])
        .is(206)
        .sees("234")
        .has("Content-Range", "bytes 2-4/10");
    scene.origin.saw("/a", 1);
}
