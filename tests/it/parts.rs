//! Responses stored in part: completed, combined, and never mixed (RFC 9110 §14, §15.3.7,
//! RFC 9111 §3.3, §3.4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;

const SLICE: usize = 1 << 20;

/// A scene whose site fetches no more than what is wanted.
fn slices() -> Setup {
    Scene::new().site("range_fetch", "\"slices\"")
}

/// An origin that knows ranges has `bytes` bytes at `/a`.
fn ranged(scene: &Scene, bytes: usize) -> Arc<Vec<u8>> {
    let body = Arc::new(noise(7, bytes));
    let served = Arc::clone(&body);
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v1\""));
    body
}

/// The answer, when what it brought has been stored as well.
fn ask(scene: &Scene, range: &str) -> Answer {
    let answer = scene.get_with("/a", &[("Range", range)]);
    scene.await_stat("fills_active", |fills| fills == 0);
    answer
}

/// The Range fields that the origin was sent, in order; "-" where there was none.
fn asked(scene: &Scene) -> Vec<String> {
    let seen = scene.origin.seen("/a");
    seen.iter()
        .map(|seen| seen.header("Range").unwrap_or("-").to_owned())
        .collect()
}

#[test]
fn a_range_of_something_short_brings_and_stores_the_whole() {
    let scene = Scene::usual();
    let body = ranged(&scene, 1000);
    ask(&scene, "bytes=10-19")
        .is(206)
        .sees(&body[10..20])
        .by("uri-miss")
        .stored()
        .has("Content-Range", "bytes 10-19/1000");
    scene.get("/a").is(200).sees(&*body).by("hit");
    scene.head("/a").is(200).has("Content-Length", "1000");
    assert_eq!(asked(&scene), ["bytes=0-1048575"]);
}

#[test]
fn a_range_of_something_large_brings_its_slice_only() {
    let scene = slices().start();
    let body = ranged(&scene, 5 * SLICE);
    let at = 3 * SLICE + 5;
    let range = format!("bytes={at}-{}", at + 9);
    ask(&scene, &range)
        .is(206)
        .sees(&body[at..at + 10])
        .by("uri-miss")
        .stored();
    ask(&scene, &range)
        .is(206)
        .sees(&body[at..at + 10])
        .by("hit");
    let near = format!("bytes={}-{}", at + 100, at + 200);
    ask(&scene, &near)
        .sees(&body[at + 100..=at + 200])
        .by("hit");
    assert_eq!(asked(&scene), ["bytes=3145728-4194303"]);
}

#[test]
fn who_may_not_store_a_slice_does_not_take_away_what_is_stored() {
    for field in [
        ("Cache-Control", "no-store"),
        ("Authorization", "Basic eA=="),
    ] {
        let scene = slices().start();
        let body = ranged(&scene, 3 * SLICE);
        ask(&scene, "bytes=0-9").sees(&body[..10]).stored();
        let second = &body[SLICE..SLICE + 10];
        let range = format!("bytes={SLICE}-{}", SLICE + 9);
        let fields = [("Range", range.as_str()), field];
        scene
            .get_with("/a", &fields)
            .is(206)
            .sees(second)
            .not_stored();
        ask(&scene, "bytes=0-9").sees(&body[..10]).by("hit");
        ask(&scene, &range).sees(second).by("partial").stored();
    }
}

#[test]
fn an_error_that_says_nothing_of_the_representation_takes_nothing_away() {
    let scene = slices().start();
    let body = Arc::new(noise(7, 3 * SLICE));
    let (served, refusing) = (Arc::clone(&body), Arc::new(AtomicBool::new(false)));
    let refuses = Arc::clone(&refusing);
    scene
        .origin
        .does("/a", move |seen| match refuses.load(Ordering::SeqCst) {
            true => Reply::status(429),
            false => Reply::ranged(seen, &served, "\"v1\""),
        });
    ask(&scene, "bytes=0-9").stored();
    let range = format!("bytes={SLICE}-{}", SLICE + 9);
    refusing.store(true, Ordering::SeqCst);
    ask(&scene, &range).is(429);
    ask(&scene, "bytes=0-9").sees(&body[..10]).by("hit");
    refusing.store(false, Ordering::SeqCst);
    ask(&scene, &range)
        .sees(&body[SLICE..SLICE + 10])
        .by("partial");
}

#[test]
fn what_is_stored_in_part_is_completed_and_then_serves_everything() {
    let scene = slices().start();
    let body = ranged(&scene, 3 * SLICE + 17);
    ask(&scene, "bytes=1048570-1048585")
        .is(206)
        .sees(&body[1_048_570..1_048_586])
        .by("uri-miss");
    scene.get("/a").is(200).sees(&*body).by("partial");
    scene.get("/a").is(200).sees(&*body).by("hit");
    let mut ranges = asked(&scene);
    ranges.sort();
    let slices = [
        "bytes=0-1048575",
        "bytes=1048576-2097151",
        "bytes=2097152-3145727",
        "bytes=3145728-3145744",
    ];
    assert_eq!(ranges, slices, "each byte was asked for once");
    let later = scene.origin.seen("/a").split_off(1);
    assert!(
        later
            .iter()
            .all(|seen| seen.header("If-Range") == Some("\"v1\""))
    );
}

#[test]
fn a_short_rest_is_fetched_behind_the_client() {
    let scene = Scene::usual();
    let body = ranged(&scene, 2 * SLICE + 5);
    ask(&scene, "bytes=0-9").is(206).sees(&body[..10]);
    scene.origin.await_requests("/a", 3);
    scene.await_stat("store.entries", |entries| entries == 3);
    scene.get("/a").is(200).sees(&*body).by("hit");
    scene.origin.saw("/a", 3);
}

#[test]
fn a_short_suffix_is_asked_for_as_it_is() {
    let scene = slices().start();
    let body = ranged(&scene, 2 * SLICE);
    let end = body.len();
    ask(&scene, "bytes=-10")
        .is(206)
        .sees(&body[end - 10..])
        .by("uri-miss");
    ask(&scene, "bytes=-5")
        .is(206)
        .sees(&body[end - 5..])
        .by("hit");
    scene.get("/a").is(200).sees(&*body).by("partial");
    let mut ranges = asked(&scene);
    ranges.sort();
    let rest = "bytes=1048576-2097141";
    assert_eq!(ranges, ["bytes=-10", "bytes=0-1048575", rest]);
}

#[test]
fn a_site_can_fetch_the_whole() {
    let scene = Scene::new().site("range_fetch", "\"whole\"").start();
    let body = ranged(&scene, 2 * SLICE);
    ask(&scene, "bytes=-10")
        .is(206)
        .sees(&body[body.len() - 10..]);
    scene.get("/a").sees(&*body).by("hit");
    assert_eq!(asked(&scene), ["-"]);
}

#[test]
fn an_origin_that_knows_no_ranges_is_asked_once() {
    let scene = Scene::usual();
    let body = noise(3, 3 * SLICE);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    ask(&scene, "bytes=2000000-2000009")
        .is(206)
        .sees(&body[2_000_000..2_000_010])
        .by("uri-miss");
    ask(&scene, "bytes=-10")
        .is(206)
        .sees(&body[body.len() - 10..])
        .by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn many_who_want_different_ranges_at_once_fetch_each_byte_once() {
    let scene = slices().start();
    let body = ranged(&scene, 6 * SLICE);
    let front = scene.front();
    let clients: Vec<_> = (0..24_usize)
        .map(|client| {
            let body = Arc::clone(&body);
            thread::spawn(move || {
                let first = (client * 277_000) % (5 * SLICE);
                let last = first + 400_000;
                let range = format!("bytes={first}-{last}");
                let mut client = crate::client::Client::connect(front);
                client.ask("GET", "/a", &[("Range", range.as_str())], b"");
                client.answer("GET").is(206).sees(&body[first..=last]);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client that saw what it should");
    }
    let mut times = BTreeMap::new();
    for range in asked(&scene) {
        *times.entry(range).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}

#[test]
fn parts_survive_a_restart() {
    let mut scene = slices().start();
    let body = ranged(&scene, 2 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    scene.get("/a").sees(&*body).by("partial");
    scene.restart();
    scene.get("/a").sees(&*body).by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_purge_takes_all_slices_away() {
    let scene = slices().start();
    let body = ranged(&scene, 2 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    scene.get("/a").sees(&*body).by("partial");
    scene.purge(&["/a"]);
    let other = noise(8, 2 * SLICE);
    let served = other.clone();
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v1\""));
    scene.get("/a").is(200).sees(&other).by("uri-miss");
}

#[test]
fn parts_of_two_representations_are_never_mixed() {
    let scene = slices().start();
    let old = ranged(&scene, 3 * SLICE);
    ask(&scene, "bytes=0-9").is(206).sees(&old[..10]);
    let new = Arc::new(noise(9, 3 * SLICE));
    let served = Arc::clone(&new);
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v2\""));
    // Found out when the rest is asked for, before a byte of the old one is sent.
    scene.get("/a").is(200).sees(&*new);
    ask(&scene, "bytes=2000000-2000009").sees(&new[2_000_000..2_000_010]);
}

#[test]
fn a_response_whose_rest_changes_while_it_is_sent_is_cut() {
    let scene = slices().start();
    let old = Arc::new(noise(7, 8 * SLICE));
    let new = Arc::new(noise(8, 8 * SLICE));
    let (first, then) = (Arc::clone(&old), Arc::clone(&new));
    scene.origin.does("/a", move |seen| {
        let changed = seen
            .header("Range")
            .is_some_and(|range| range.starts_with("bytes=5242880"));
        match changed || seen.header("Range").is_none() {
            true => Reply::ranged(seen, &then, "\"v2\""),
            false => Reply::ranged(seen, &first, "\"v1\""),
        }
    });
    let answer = ask(&scene, "bytes=10-");
    answer.is_cut();
    assert_eq!(answer.status, 206);
    assert_eq!(
        answer.body,
        old[10..10 + answer.body.len()],
        "old bytes only"
    );
    scene.get("/a").is(200).sees(&*new).by("uri-miss");
}

#[test]
fn a_slice_in_another_coding_is_not_taken() {
    let scene = slices().start();
    let body = Arc::new(noise(7, 3 * SLICE));
    let served = Arc::clone(&body);
    scene.origin.does("/a", move |seen| {
        let reply = Reply::ranged(seen, &served, "\"v1\"");
        match seen.header("Range") {
            Some("bytes=0-1048575") => reply.header("Content-Encoding", "x-noise"),
            _ => reply,
        }
    });
    ask(&scene, "bytes=0-9")
        .is(206)
        .has("Content-Encoding", "x-noise");
    let answer = scene.get("/a");
    answer.is(200).sees(&*body).lacks("Content-Encoding");
}

#[test]
fn a_range_of_what_has_changed_since_is_fetched_anew() {
    let scene = slices().start();
    ranged(&scene, 3 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    let new = Arc::new(noise(9, 3 * SLICE));
    let served = Arc::clone(&new);
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v2\""));
    ask(&scene, "bytes=2000000-2000009")
        .is(206)
        .sees(&new[2_000_000..2_000_010]);
    ask(&scene, "bytes=0-9").is(206).sees(&new[..10]);
}

#[test]
fn a_part_without_a_strong_validator_answers_only_for_itself() {
    for tag in ["W/\"1\"", ""] {
        let scene = slices().start();
        let body = Arc::new(noise(5, 2 * SLICE));
        let served = Arc::clone(&body);
        scene
            .origin
            .does("/a", move |seen| match seen.header("Range") {
                None => Reply::ok(served.to_vec()).fresh(),
                Some(_) => {
                    let part = Reply::part(&served, 0, SLICE - 1).fresh();
                    if tag.is_empty() {
                        part
                    } else {
                        part.tagged(tag)
                    }
                }
            });
        ask(&scene, "bytes=0-9")
            .is(206)
            .sees(&body[..10])
            .by("uri-miss");
        ask(&scene, "bytes=20-29")
            .is(206)
            .sees(&body[20..30])
            .by("hit");
        ask(&scene, "bytes=1500000-1500009")
            .is(206)
            .sees(&body[1_500_000..1_500_010])
            .by("partial");
        scene.get("/a").is(200).sees(&*body).by("hit");
        assert_eq!(asked(&scene), ["bytes=0-1048575", "-"]);
    }
}

#[test]
fn a_stale_part_is_validated_and_goes_on() {
    let scene = slices().start();
    let body = Arc::new(noise(7, 2 * SLICE));
    let served = Arc::clone(&body);
    scene.origin.does("/a", move |seen| {
        let reply = Reply::ranged(seen, &served, "\"v1\"");
        match seen.header("If-None-Match") {
            Some(_) => reply,
            None => reply.aged(100),
        }
    });
    ask(&scene, "bytes=0-9").is(206).sees(&body[..10]);
    ask(&scene, "bytes=0-9")
        .is(206)
        .sees(&body[..10])
        .by("stale");
    let last = scene.origin.last("/a");
    assert_eq!(last.header("If-None-Match"), Some("\"v1\""));
    scene.get("/a").is(200).sees(&*body).by("partial");
    scene.origin.saw("/a", 3);
}

#[test]
fn a_stale_whole_that_has_changed_is_not_fetched_whole_for_a_range() {
    let scene = slices().start();
    let old = noise(1, 3 * SLICE);
    scene
        .origin
        .says_once("/a", Reply::ok(old).tagged("\"v1\"").fresh().aged(100));
    scene.get("/a").is(200);
    let new = Arc::new(noise(2, 3 * SLICE));
    let served = Arc::clone(&new);
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v2\""));
    ask(&scene, "bytes=5-9")
        .is(206)
        .sees(&new[5..10])
        .by("stale");
    assert_eq!(asked(&scene)[1], "bytes=0-1048575");
    scene.get("/a").is(200).sees(&*new).by("partial");
}

#[test]
fn a_range_of_what_may_not_be_stored_is_cut_out_or_asked_for_as_it_is() {
    let scene = Scene::usual();
    let body = Arc::new(noise(7, 3 * SLICE));
    let served = Arc::clone(&body);
    scene.origin.does("/a", move |seen| {
        Reply::ranged(seen, &served, "\"v1\"").cache("no-store")
    });
    ask(&scene, "bytes=5-9")
        .is(206)
        .sees(&body[5..10])
        .has("Content-Range", "bytes 5-9/3145728")
        .detail("no-store")
        .not_stored();
    ask(&scene, "bytes=5-9")
        .is(206)
        .sees(&body[5..10])
        .detail("hit-for-miss");
    assert_eq!(asked(&scene), ["bytes=0-1048575", "bytes=5-9"]);
}

#[test]
fn a_part_that_does_not_say_where_it_belongs_is_passed_on_but_not_stored() {
    for range in ["bytes 0-9/*", "lines 0-9/100", "bytes 0-8/100"] {
        let scene = Scene::usual();
        let part = Reply::part(&noise(1, 100), 0, 9).fresh();
        let part = part.instead("Content-Range", range);
        scene.origin.says("/a", part);
        let answer = ask(&scene, "bytes=0-9");
        answer.is(206).has("Content-Range", range).not_stored();
        assert_eq!(answer.body.len(), 10);
        assert_eq!(asked(&scene).last().map(String::as_str), Some("bytes=0-9"));
    }
}

#[test]
fn a_body_shorter_than_its_content_range_answers_for_the_bytes_there_are() {
    let scene = Scene::usual();
    let part = Reply::part(b"abcdefghij", 4, 8).fresh();
    let part = part
        .instead("Content-Range", "bytes 4-9/10")
        .tagged("\"1\"");
    scene.origin.says("/a", part);
    ask(&scene, "bytes=-5")
        .is(206)
        .sees("efghi")
        .has("Content-Range", "bytes 4-9/10");
    ask(&scene, "bytes=-5")
        .is(206)
        .sees("efghi")
        .by("hit")
        .has("Content-Range", "bytes 4-8/9");
    ask(&scene, "bytes=6-8").is(206).sees("ghi").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_part_without_a_length_is_stored_as_well() {
    let scene = slices().start();
    let body = Arc::new(noise(7, 2 * SLICE));
    let served = Arc::clone(&body);
    scene.origin.does("/a", move |seen| {
        Reply::ranged(seen, &served, "\"v1\"").chunked()
    });
    ask(&scene, "bytes=5-9").is(206).sees(&body[5..10]).stored();
    scene.get("/a").is(200).sees(&*body).by("partial");
    scene.get("/a").is(200).sees(&*body).by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn a_part_that_is_cut_short_is_not_stored() {
    let scene = slices().start();
    let body = noise(7, 2 * SLICE);
    let part = Reply::part(&body, 0, SLICE - 1).tagged("\"v1\"").fresh();
    scene.origin.says_once("/a", part.cut_after(5000));
    let served = body.clone();
    scene
        .origin
        .does("/a", move |seen| Reply::ranged(seen, &served, "\"v1\""));
    let answer = ask(&scene, "bytes=0-9999");
    answer.is_cut();
    assert_eq!((answer.status, answer.body.len()), (206, 5000));
    ask(&scene, "bytes=0-9")
        .is(206)
        .sees(&body[..10])
        .by("uri-miss");
}

#[test]
fn a_slice_is_streamed_while_it_arrives() {
    let scene = slices().start();
    let body = Arc::new(noise(7, 2 * SLICE));
    let gate = Gate::new();
    let (served, held) = (Arc::clone(&body), gate.clone());
    scene.origin.does("/a", move |seen| {
        Reply::ranged(seen, &served, "\"v1\"").held_after(SLICE / 2, &held)
    });
    let mut client = scene.connect();
    client.ask("GET", "/a", &[("Range", "bytes=100-")], b"");
    let mut reading = client.begin("GET");
    assert_eq!(reading.up_to(1000)[..1000], body[100..1100]);
    gate.open();
    reading.finish().is(206).sees(&body[100..]);
}

#[test]
fn only_if_cached_is_refused_when_a_byte_is_missing() {
    let scene = slices().start();
    let body = ranged(&scene, 2 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    let only = ("Cache-Control", "only-if-cached");
    scene.get_with("/a", &[only]).is(504);
    scene
        .get_with("/a", &[only, ("Range", "bytes=5-9")])
        .is(206)
        .sees(&body[5..10]);
    scene.origin.saw("/a", 1);
}

#[test]
fn an_origin_that_is_down_leaves_what_is_stored() {
    let scene = slices().start();
    let body = ranged(&scene, 2 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    scene.origin.close();
    ask(&scene, "bytes=100-109")
        .is(206)
        .sees(&body[100..110])
        .by("hit");
    ask(&scene, "bytes=1500000-1500009").is(502);
}

#[test]
fn several_ranges_come_as_multipart() {
    let scene = Scene::usual();
    let reply = Reply::ok("0123456789")
        .fresh()
        .header("Content-Type", "text/x");
    scene.origin.says("/a", reply);
    for how in ["uri-miss", "hit"] {
        let answer = ask(&scene, "bytes=7-,0-1,1-2");
        answer.is(206).by(how).lacks("Content-Range");
        let parts = parts(&answer);
        assert_eq!(
            parts[0].0,
            "Content-Type: text/x\r\nContent-Range: bytes 7-9/10"
        );
        assert_eq!(parts[0].1, "789");
        assert_eq!(
            parts[1].0,
            "Content-Type: text/x\r\nContent-Range: bytes 0-2/10"
        );
        assert_eq!(parts[1].1, "012");
        assert_eq!(parts.len(), 2);
        let length = answer.body.len().to_string();
        answer.has("Content-Length", &length);
    }
    scene.origin.saw("/a", 1);
}

#[test]
fn several_ranges_of_something_stored_in_part_are_completed() {
    let scene = slices().start();
    let body = ranged(&scene, 4 * SLICE);
    ask(&scene, "bytes=0-9").is(206);
    let answer = ask(&scene, "bytes=2-3,3000000-3000003");
    answer.is(206).by("partial");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let parts = parts(&answer);
    assert_eq!(parts[0].1, text(&body[2..4]));
    assert_eq!(parts[1].1, text(&body[3_000_000..3_000_004]));
    assert_eq!(asked(&scene), ["bytes=0-1048575", "bytes=2097152-3145727"]);
}

#[test]
fn too_many_ranges_are_answered_with_the_whole() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok(noise(1, 100)).fresh());
    let ranges = |count: usize| {
        let ranges: Vec<String> = (0..count).map(|n| format!("{0}-{0}", n * 2)).collect();
        format!("bytes={}", ranges.join(","))
    };
    ask(&scene, &ranges(16)).is(206);
    ask(&scene, &ranges(17)).is(200).sees(noise(1, 100));
}

#[test]
fn two_responses_in_parts_have_different_boundaries() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("0123456789").fresh());
    let boundaries = Mutex::new(Vec::new());
    for _ in 0..2 {
        let answer = ask(&scene, "bytes=0-0,9-9");
        let content_type = answer.header("Content-Type").expect("a type").to_owned();
        boundaries.lock().expect("no panic").push(content_type);
    }
    let boundaries = boundaries.into_inner().expect("no panic");
    assert_ne!(boundaries[0], boundaries[1]);
}

/// The parts of a multipart body: head and content.
fn parts(answer: &Answer) -> Vec<(String, String)> {
    let content_type = answer.header("Content-Type").expect("a type");
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("several parts");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let text = text
        .strip_suffix(&format!("\r\n--{boundary}--\r\n"))
        .expect("an end");
    text.split(&format!("\r\n--{boundary}\r\n"))
        .skip(1)
        .map(|part| {
            let (head, content) = part.split_once("\r\n\r\n").expect("a head");
            (head.to_owned(), content.to_owned())
        })
        .collect()
}
