//! HTTP/2 clients that flood: they are cut, others are served meanwhile, and memory stays bounded.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use crate::frames::*;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

/// The most memory the process has had resident so far, in bytes.
fn peak_resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("its peak")
        * 1024
}

/// A scene with something to ask for.
fn scene() -> Scene {
    let scene = Scene::new().server("h2c", "true").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").sees("v1");
    scene
}

/// Runs `attack` while another client of each version asks again and again; every answer must come,
/// and the process may not grow by more than 32 MiB.
#[track_caller]
fn while_others_are_served<T>(scene: &Scene, attack: impl FnOnce() -> T) -> T {
    let before = peak_resident(scene.pid());
    let over = AtomicBool::new(false);
    let came = thread::scope(|scope| {
        let _over = Over(&over);
        let others = scope.spawn(|| {
            let mut asked = 0;
            while asked < 10 || !over.load(Ordering::Relaxed) {
                scene.get("/a").is(200).sees("v1");
                let mut peer = Peer::connect(scene.front());
                assert_eq!(peer.get(1, "/a"), Ok((200, b"v1".to_vec())));
                asked += 1;
            }
        });
        let came = attack();
        over.store(true, Ordering::Relaxed);
        others.join().expect("answers for the others");
        came
    });
    let grown = peak_resident(scene.pid()) - before;
    assert!(grown < 32 << 20, "it grew by {grown} bytes");
    came
}

/// Tells the others to stop, also when the attack has failed.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends `opening`, then `unit(0)`, `unit(1)` … until the connection is cut; never more than `most`.
#[track_caller]
fn is_cut(scene: &Scene, opening: &[u8], most: u32, unit: impl Fn(u32) -> Vec<u8>) {
    while_others_are_served(scene, || {
        let mut peer = Peer::connect(scene.front());
        peer.send(opening);
        let mut sent = 0;
        while sent < most {
            let batch: Vec<u8> = (sent..sent + 50).flat_map(&unit).collect();
            sent += 50;
            if !peer.send(&batch) {
                break;
            }
        }
        // Nothing, when the reset that follows what was sent in vain has overtaken it.
        let code = peer.farewell();
        assert!([None, Some(ENHANCE_YOUR_CALM)].contains(&code), "{code:?}");
    });
    scene.await_stat("floods", |cut| cut == 1);
}

/// More than any client may send, and 20,000 streams.
const MANY: u32 = 20_000;

#[test]
fn rapid_reset() {
    let scene = scene();
    let gate = Gate::new();
    scene.origin.says("/held", Reply::ok("v1").held(&gate));
    is_cut(&scene, &[], MANY, |n| {
        [get(1 + 2 * n, "/held"), reset(1 + 2 * n, CANCEL)].concat()
    });
    assert!(scene.origin.seen("/held").len() <= 300);
    gate.open();
}

#[test]
fn rapid_reset_that_waits_for_each_request_to_begin() {
    let scene = scene();
    let gate = Gate::new();
    scene.origin.says("*", Reply::ok("v1").held(&gate));
    let reset_at = while_others_are_served(&scene, || {
        let mut peer = Peer::connect(scene.front());
        for n in 0..MANY {
            let stream = 1 + 2 * n;
            peer.send(&get(stream, &format!("/held/{n}")));
            // Its PING comes back when the request has been handed on.
            peer.send(&frame(PING, 0, 0, [0; 8]));
            let back = peer.find(|frame| [PING, GOAWAY].contains(&frame.kind));
            if back.is_none_or(|frame| frame.kind == GOAWAY) {
                return n;
            }
            peer.send(&reset(stream, CANCEL));
        }
        MANY
    });
    assert!(reset_at < 2_000, "cut after {reset_at}");
    gate.open();
}

#[test]
fn streams_that_the_server_is_made_to_reset() {
    let scene = scene();
    let gate = Gate::new();
    scene.origin.says("/held", Reply::ok("v1").held(&gate));
    is_cut(&scene, &[], MANY, |n| {
        // A window too wide is the stream's error (RFC 9113 §6.9.1).
        [
            get(1 + 2 * n, "/held"),
            window_update(1 + 2 * n, 0x7fff_ffff),
        ]
        .concat()
    });
    assert!(scene.origin.seen("/held").len() <= 300);
    gate.open();
}

#[test]
fn streams_beyond_the_limit() {
    let scene = scene();
    let gate = Gate::new();
    scene.origin.says("/held", Reply::ok("v1").held(&gate));
    is_cut(&scene, &[], MANY, |n| get(1 + 2 * n, "/held"));
    gate.open();
}

#[test]
fn pings() {
    is_cut(&scene(), &[], 100_000, |_| frame(PING, 0, 0, [0; 8]));
}

#[test]
fn settings_again_and_again() {
    is_cut(&scene(), &[], 100_000, |n| settings(&[(4, 60_000 + n % 7)]));
}

#[test]
fn empty_data() {
    let post = frame(HEADERS, END_HEADERS, 1, request("POST", "/a", &[]));
    is_cut(&scene(), &post, 100_000, |_| frame(DATA, 0, 1, []));
}

#[test]
fn data_of_one_byte_that_nobody_reads() {
    let scene = scene();
    let gate = Gate::new();
    scene.origin.says("/held", Reply::ok("v1").held(&gate));
    while_others_are_served(&scene, || {
        let mut peer = Peer::connect(scene.front());
        peer.send(&frame(
            HEADERS,
            END_HEADERS,
            1,
            request("POST", "/held", &[]),
        ));
        for _ in 0..1000 {
            let batch = frame(DATA, 0, 1, b"x").repeat(100);
            if !peer.send(&batch) {
                break;
            }
        }
        peer.send(&get(3, "/a"));
        // Read by the origin or refused by the window or the budget: bounded in any case.
        peer.find(|frame| frame.stream == 3 || frame.kind == GOAWAY || frame.kind == RST_STREAM);
    });
    gate.open();
}

#[test]
fn priorities() {
    is_cut(&scene(), &[], 100_000, |n| {
        frame(PRIORITY, 0, 1 + 2 * (n % 1000), [0, 0, 0, 0, 9])
    });
}

#[test]
fn windows_widened_by_one() {
    is_cut(&scene(), &[], 100_000, |_| window_update(0, 1));
}

#[test]
fn frames_of_unknown_types() {
    is_cut(&scene(), &[], 100_000, |n| {
        frame(0x20 + u8::try_from(n % 200).unwrap(), 0, 0, b"x")
    });
}

#[test]
fn continuation_without_end() {
    for piece in [&b""[..], &block(&[("x-a", &"a".repeat(1000))])] {
        let scene = scene();
        let head = frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[]));
        while_others_are_served(&scene, || {
            let mut peer = Peer::connect(scene.front());
            peer.send(&head);
            for _ in 0..MANY {
                if !peer.send(&frame(CONTINUATION, 0, 1, piece)) {
                    break;
                }
            }
            let code = peer.farewell();
            assert!(
                [
                    None,
                    Some(ENHANCE_YOUR_CALM),
                    Some(PROTOCOL_ERROR),
                    Some(COMPRESSION_ERROR)
                ]
                .contains(&code),
                "{code:?}"
            );
        });
    }
}

#[test]
fn a_field_in_the_table_named_ten_thousand_times() {
    let scene = scene();
    while_others_are_served(&scene, || {
        let mut peer = Peer::connect(scene.front());
        // 4,000 bytes into the dynamic table (RFC 7541 §6.2.1), then its index, one byte each.
        let large = block(&[("x-a", &"a".repeat(3_900))]);
        let mut bomb = request("GET", "/a", &[]);
        bomb.push(0x40);
        bomb.extend(&large[1..]);
        bomb.extend([0xbe].repeat(10_000));
        peer.send(&frame(HEADERS, WHOLE, 1, &bomb));
        let end = peer.find(|frame| frame.stream == 1 || frame.kind == GOAWAY);
        assert!(end.is_none_or(|end| end.kind != HEADERS || status(&end.payload) == 431));
    });
}

#[test]
fn windows_of_nothing() {
    let setup = Scene::new().server("h2c", "true");
    let scene = setup.server("write_timeout", "\"500ms\"").start();
    let large = noise(1, 1 << 20);
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/large").sees(&large);
    while_others_are_served(&scene, || {
        let mut peers: Vec<Peer> = (0..10)
            .map(|_| Peer::with(scene.front(), &[(4, 0)]))
            .collect();
        for peer in &mut peers {
            for n in 0..50 {
                peer.send(&get(1 + 2 * n, "/large"));
            }
        }
        for peer in &mut peers {
            assert_eq!(peer.answer(1), Err(CANCEL));
        }
        scene.await_stat("timeouts.write", |late| late == 500);
    });
}

#[test]
fn a_body_taken_byte_by_byte() {
    let scene = scene();
    let large = noise(1, 1 << 20);
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.get("/large").sees(&large);
    while_others_are_served(&scene, || {
        let mut peer = Peer::with(scene.front(), &[(4, 1)]);
        peer.send(&get(1, "/large"));
        let mut taken = 0;
        while let Some(frame) = peer.next() {
            if frame.kind == DATA {
                taken += 1;
                peer.send(&window_update(1, 1));
            }
            if frame.kind == GOAWAY {
                assert_eq!(frame.goaway(), ENHANCE_YOUR_CALM);
                break;
            }
        }
        assert!(taken < 10_000, "{taken}");
    });
}

#[test]
fn a_client_that_only_reads_is_not_a_flood() {
    let scene = scene();
    let large = noise(1, 8 << 20);
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    let mut peer = Peer::connect(scene.front());
    // Two WINDOW_UPDATE for each DATA, and thousands of requests with them.
    assert_eq!(peer.get(1, "/large"), Ok((200, large)));
    for n in 1..3000 {
        assert_eq!(peer.get(1 + 2 * n, "/a"), Ok((200, b"v1".to_vec())));
        peer.send(&window_update(0, 2));
    }
    assert_eq!(scene.stat("floods"), 0);
}
