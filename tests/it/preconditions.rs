//! Conditions and ranges in one request: the order of RFC 9110 §13.2.2, and the fields of what
//! comes of it (§15.3.7, §15.4.5, §15.5.17).

use crate::client::Answer;
use crate::origin::Reply;
use crate::scene::Scene;

const SUNDAY: &str = "Sun, 31 Dec 2023 00:00:00 GMT";
const MONDAY: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
const TUESDAY: &str = "Tue, 02 Jan 2024 00:00:00 GMT";

/// A scene whose `/a` is stored: ten digits, tagged `"1"`, last modified on a Monday long ago.
fn stored() -> Scene {
    let scene = Scene::usual();
    let reply = Reply::ok("0123456789")
        .fresh()
        .tagged("\"1\"")
        .header("Last-Modified", MONDAY)
        .header("Content-Type", "text/plain")
        .header("Content-Location", "/a.txt")
        .header("Content-Language", "en")
        .header("Expires", TUESDAY)
        .header("Vary", "X-Kind")
        .header("Link", "<one>")
        .header("Link", "<two>");
    scene.origin.says("/a", reply);
    scene.get("/a").is(200).stored();
    scene
}

/// The answer to a request for the first byte, with more fields.
fn first_byte(scene: &Scene, fields: &[(&str, &str)]) -> Answer {
    let fields = [&[("Range", "bytes=0-0")], fields].concat();
    scene.get_with("/a", &fields)
}

#[test]
fn who_has_it_gets_a_304_and_no_part() {
    let scene = stored();
    for condition in [
        ("If-None-Match", "\"1\""),
        ("If-None-Match", "W/\"1\""),
        ("If-None-Match", "*"),
        ("If-Modified-Since", MONDAY),
    ] {
        let answer = first_byte(&scene, &[condition]);
        answer.is(304).sees("").lacks("Content-Range").by("hit");
    }
    scene.origin.saw("/a", 1);
}

#[test]
fn who_has_another_gets_the_part() {
    let scene = stored();
    for condition in [
        ("If-None-Match", "\"2\""),
        ("If-Modified-Since", SUNDAY),
        ("If-Modified-Since", "no date"),
    ] {
        first_byte(&scene, &[condition]).is(206).sees("0").by("hit");
    }
}

#[test]
fn a_tag_that_differs_outweighs_a_date_that_does_not_and_the_part_is_sent() {
    let scene = stored();
    let fields = [("If-None-Match", "\"2\""), ("If-Modified-Since", TUESDAY)];
    first_byte(&scene, &fields).is(206).sees("0");
}

#[test]
fn a_matching_if_none_match_comes_before_an_if_range_that_differs() {
    let scene = stored();
    let fields = [("If-None-Match", "\"1\""), ("If-Range", "\"2\"")];
    first_byte(&scene, &fields).is(304).sees("");
}

#[test]
fn an_if_range_that_differs_brings_the_whole_after_a_condition_that_holds() {
    let scene = stored();
    let fields = [("If-None-Match", "\"2\""), ("If-Range", "\"2\"")];
    first_byte(&scene, &fields).is(200).sees("0123456789");
    let fields = [("If-None-Match", "\"2\""), ("If-Range", "\"1\"")];
    first_byte(&scene, &fields).is(206).sees("0");
}

#[test]
fn if_range_takes_a_date_that_is_exactly_the_same() {
    let scene = stored();
    first_byte(&scene, &[("If-Range", MONDAY)])
        .is(206)
        .sees("0");
    for date in [SUNDAY, TUESDAY, "Monday"] {
        let answer = first_byte(&scene, &[("If-Range", date)]);
        answer.is(200).sees("0123456789");
    }
}

#[test]
fn if_range_without_range_means_nothing() {
    let scene = stored();
    let answer = scene.get_with("/a", &[("If-Range", "\"2\"")]);
    answer.is(200).sees("0123456789").by("hit");
}

#[test]
fn a_range_behind_the_end_is_a_304_first_a_whole_second_and_a_416_last() {
    let scene = stored();
    let ask = |fields: &[(&str, &str)]| {
        let fields = [&[("Range", "bytes=10-")], fields].concat();
        scene.get_with("/a", &fields)
    };
    ask(&[("If-None-Match", "\"1\"")]).is(304);
    ask(&[("If-Range", "\"2\"")]).is(200).sees("0123456789");
    ask(&[("If-Range", "\"1\"")]).is(416);
    ask(&[]).is(416);
}

#[test]
fn a_head_knows_conditions_and_no_ranges() {
    let scene = stored();
    let head = |fields: &[(&str, &str)]| scene.ask("HEAD", "/a", fields, b"");
    head(&[("If-None-Match", "\"1\"")]).is(304);
    head(&[("Range", "bytes=0-0")])
        .is(200)
        .has("Content-Length", "10")
        .lacks("Content-Range");
    head(&[("Range", "bytes=10-")]).is(200);
}

/// "Content-Range [...] and Date, Cache-Control, ETag, Expires, Content-Location, and Vary, if the
/// header field would have been sent in a 200 (OK) response to the same request" (§15.3.7).
#[test]
fn a_part_has_the_fields_of_the_whole() {
    let scene = stored();
    let whole = scene.get("/a");
    let part = first_byte(&scene, &[]);
    part.is(206)
        .has("Content-Range", "bytes 0-0/10")
        .has("Content-Length", "1");
    for name in [
        "Cache-Control",
        "Content-Language",
        "Content-Location",
        "Content-Type",
        "Date",
        "ETag",
        "Expires",
        "Last-Modified",
        "Link",
        "Vary",
    ] {
        assert!(!whole.all(name).is_empty(), "{name}");
        assert_eq!(part.all(name), whole.all(name), "{name}");
    }
    assert!(part.header("Age").is_some(), "{part}");
}

/// §15.4.5: what guides caches, and not what describes a representation that is not sent.
#[test]
fn a_304_has_what_caches_need_and_no_more() {
    let scene = stored();
    let answer = scene.get_with("/a", &[("If-None-Match", "\"1\"")]);
    for name in [
        "Cache-Control",
        "Content-Location",
        "Date",
        "ETag",
        "Expires",
        "Vary",
    ] {
        assert_eq!(answer.all(name).len(), 1, "{name} of {answer}");
    }
    for name in [
        "Content-Type",
        "Content-Language",
        "Content-Range",
        "Last-Modified",
    ] {
        answer.lacks(name);
    }
}

/// A 416 is of the request and not of the object: nobody down the line may keep it for another.
#[test]
fn a_416_tells_the_length_and_promises_nothing() {
    let scene = stored();
    let answer = scene.get_with("/a", &[("Range", "bytes=10-")]);
    answer.is(416).sees("").has("Content-Range", "bytes */10");
    for name in [
        "Cache-Control",
        "Content-Type",
        "Expires",
        "Last-Modified",
        "ETag",
    ] {
        answer.lacks(name);
    }
    scene.origin.saw("/a", 1);
}

#[test]
fn a_condition_is_evaluated_against_the_variant_that_is_selected() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        let kind = request.header("X-Kind").unwrap_or("none").to_owned();
        Reply::ok(format!("kind {kind}"))
            .fresh()
            .tagged(&format!("\"{kind}\""))
            .header("Vary", "X-Kind")
    });
    for kind in ["x", "y"] {
        scene.get_with("/a", &[("X-Kind", kind)]).is(200).stored();
    }
    let ask = |kind: &str, tag: &str| {
        let fields = [
            ("X-Kind", kind),
            ("If-None-Match", tag),
            ("Range", "bytes=5-"),
        ];
        scene.get_with("/a", &fields)
    };
    ask("x", "\"x\"").is(304).has("ETag", "\"x\"");
    ask("x", "\"y\"").is(206).sees("x").has("ETag", "\"x\"");
    ask("y", "\"x\", \"y\"").is(304).has("ETag", "\"y\"");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_part_of_what_is_stale_is_sent_once_it_is_validated() {
    let scene = Scene::usual();
    let stale = Reply::ok("0123456789")
        .tagged("\"1\"")
        .cache("max-age=60")
        .aged(100);
    scene.origin.says_once("/a", stale);
    scene
        .origin
        .says("/a", Reply::ok("0123456789").tagged("\"1\"").fresh());
    scene.get("/a").stored();
    first_byte(&scene, &[]).is(206).sees("0").by("stale");
    let asked = scene.origin.last("/a");
    assert_eq!(asked.header("If-None-Match"), Some("\"1\""));
    first_byte(&scene, &[]).is(206).sees("0").by("hit");
}

#[test]
fn a_part_of_what_has_changed_is_of_the_new_one() {
    let scene = Scene::usual();
    let stale = Reply::ok("0123456789")
        .tagged("\"1\"")
        .cache("max-age=60")
        .aged(100);
    scene.origin.says_once("/a", stale);
    scene
        .origin
        .says("/a", Reply::ok("abcdefghijklm").tagged("\"2\"").fresh());
    scene.get("/a").stored();
    let answer = first_byte(&scene, &[("If-Range", "\"1\"")]);
    answer.is(200).sees("abcdefghijklm").has("ETag", "\"2\"");
    let answer = first_byte(&scene, &[("If-Range", "\"2\"")]);
    answer
        .is(206)
        .sees("a")
        .has("Content-Range", "bytes 0-0/13");
}
