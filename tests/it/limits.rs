//! Limits hold: on disk, in memory, in counts and sizes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::client::Ended;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;

const MIB: u64 = 1024 * 1024;

/// How often the store is measured while it is filled.
const SAMPLE: Duration = Duration::from_millis(5);

/// Bytes the file system has given to everything under `folder`.
fn allocated(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let mut bytes = 0;
    for entry in entries.flatten() {
        // What has gone since it was listed takes no room.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            bytes += allocated(&entry.path());
        }
    }
    bytes
}

/// The most memory the process has had resident so far, in bytes.
fn peak_resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("its peak");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a figure")
        * 1024
}

/// Objects of 256 KiB that are all different, named `/N`.
fn distinct(scene: &Scene) {
    scene.origin.does("*", |request| {
        let seed = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(noise(seed, 256 * 1024)).cache("max-age=3600")
    });
}

#[test]
fn the_store_never_outgrows_its_limit_and_no_request_fails() {
    let limit = 32 * MIB;
    let scene = Scene::new().cache("disk_bytes_max", "\"32MiB\"").start();
    distinct(&scene);
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let store = scene.store();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                peak.fetch_max(allocated(&store), Ordering::SeqCst);
                thread::sleep(SAMPLE); // waits because a file system tells nobody that it grew
            }
        });
        let asking = [0, 1].map(|half| {
            let scene = &scene;
            scope.spawn(move || {
                for n in (0..800).filter(|n| n % 2 == half) {
                    let answer = scene.get(&format!("/{n}"));
                    assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
                    assert!(answer.body == noise(n, 256 * 1024), "a wrong body for /{n}");
                }
            })
        });
        let done = asking.map(|half| half.join());
        over.store(true, Ordering::SeqCst);
        for half in done {
            half.expect("every object");
        }
    });
    let peak = peak.load(Ordering::SeqCst);
    assert!(
        peak <= limit,
        "the store took {peak} bytes, its limit is {limit}"
    );
    assert!(
        peak > limit / 4,
        "the store took only {peak} bytes of {limit}"
    );
    assert!(scene.stat("store.entries") > 20, "{}", scene.stats());
}

#[test]
fn what_the_disk_limit_left_is_served_after_a_restart() {
    let mut scene = Scene::new().cache("disk_bytes_max", "\"32MiB\"").start();
    distinct(&scene);
    for n in 0..200 {
        scene.get(&format!("/{n}")).is(200);
    }
    scene.restart();
    let entries = scene.stat("store.entries");
    assert!(entries > 20, "{entries} entries");
    // From the last to the first: what is fetched again must not push out what is asked for next.
    let hits = (0..200)
        .rev()
        .filter(|n| scene.get(&format!("/{n}")).cache_status("hit").is_some())
        .count();
    assert!(hits > 0, "nothing was left");
    assert!(allocated(&scene.store()) <= 32 * MIB);
}

#[test]
fn a_body_larger_than_the_memory_tier_streams_is_stored_and_served_again() {
    let setup = Scene::new().cache("memory_bytes_max", "\"1MiB\"");
    let scene = setup.cache("disk_bytes_max", "\"8GiB\"").start();
    let body = noise(31, 64 * 1024 * 1024);
    scene.origin.says("/large", Reply::ok(body.clone()).fresh());
    let before = peak_resident(scene.pid());
    scene.get("/large").sees(&body).by("uri-miss").stored();
    scene.get("/large").sees(&body).by("hit");
    let grown = peak_resident(scene.pid()) - before;
    assert!(
        grown < 48 * MIB,
        "a body of 64 MiB took {} MiB of memory",
        grown / MIB
    );
}

#[test]
fn without_a_memory_tier_everything_comes_from_disk() {
    let scene = Scene::new().cache("memory_bytes_max", "\"0B\"").start();
    let body = noise(32, 3_000_000);
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh())
        .says("/b", Reply::ok(body.clone()).fresh());
    scene.get("/a").stored();
    scene.get("/b").stored();
    scene.await_durable(2);
    scene.get("/a").sees("v1").by("hit");
    scene.get("/b").sees(&body).by("hit");
    assert_eq!(scene.stat("memory.bytes"), 0);
}

#[test]
fn the_memory_tier_stays_within_its_limit() {
    let scene = Scene::new().cache("memory_bytes_max", "\"4MiB\"").start();
    distinct(&scene);
    for n in 0..60 {
        scene.get(&format!("/{n}")).is(200);
        scene.get(&format!("/{n}")).is(200);
    }
    let bytes = scene.stat("memory.bytes");
    assert!(bytes <= 4 * MIB, "{bytes} bytes in memory");
}

#[test]
fn a_request_body_over_the_limit_is_413() {
    let scene = Scene::new().server("body_bytes_max", "\"1KiB\"").start();
    scene.origin.says("/a", Reply::ok("taken"));
    scene
        .ask("POST", "/a", &[], &[b'x'; 1024])
        .is(200)
        .sees("taken");
    scene.ask("POST", "/a", &[], &[b'x'; 1025]).is(413);
    scene.origin.saw("/a", 1);
}

#[test]
fn a_chunked_request_body_over_the_limit_is_413() {
    let scene = Scene::new().server("body_bytes_max", "\"1KiB\"").start();
    scene.origin.says("/a", Reply::ok("taken"));
    let mut body = b"1000\r\n".to_vec();
    body.extend_from_slice(&[b'x'; 0x1000]);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = scene.ask("POST", "/a", &[("Transfer-Encoding", "chunked")], &body);
    answer.is(413);
    // The head may have been forwarded before the body grew too long, but never as a whole request.
    scene.origin.saw("/a", 0);
}

#[test]
fn headers_over_the_limits_are_431() {
    let scene = narrow(Scene::new());
    scene.origin.says("/a", Reply::ok("v1"));
    let large = "x".repeat(9000);
    scene.get_with("/a", &[("X-Large", &large)]).is(431);
    let many = vec![("X-Many", "1"); 30];
    scene.get_with("/a", &many).is(431);
    scene.get("/a").is(200);
    scene.origin.saw("/a", 1);
}

fn narrow(setup: Setup) -> Scene {
    setup
        .server("header_bytes_max", "\"8KiB\"")
        .server("headers_max", "20")
        .start()
}

#[test]
fn connections_over_the_limit_wait_or_are_closed_and_the_rest_are_served() {
    let scene = Scene::new().server("connections_max", "4").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut held: Vec<_> = (0..4).map(|_| scene.connect()).collect();
    for client in &mut held {
        client.get("/a").answer("GET").sees("v1");
    }
    let mut fifth = scene.connect();
    fifth.get("/a");
    drop(held);
    // Either it was turned away at once, or it is served now that there is room.
    if let Some(reading) = fifth.try_begin("GET") {
        reading.finish().is_one_of(&[200, 503]);
    }
    scene.get("/a").is(200);
}

#[test]
fn a_body_large_for_the_store_is_stored_at_its_second_request() {
    let setup = Scene::new().cache("disk_bytes_max", "\"32MiB\"");
    let scene = setup.cache("second_request_percent", "1").start();
    for (target, bytes) in [("/large", 400 * 1024), ("/small", 100 * 1024)] {
        scene
            .origin
            .says(target, Reply::ok(noise(1, bytes)).fresh());
    }
    scene.get("/small").by("uri-miss").stored();
    scene.get("/large").by("uri-miss").detail("first-request");
    scene.get("/large").by("uri-miss").stored();
    scene.get("/large").by("hit").sees(noise(1, 400 * 1024));
    assert_eq!(scene.origin.requests(), 3);
}

#[test]
fn a_large_body_that_replaces_a_stored_one_need_not_be_asked_for_twice() {
    let setup = Scene::new().cache("disk_bytes_max", "\"32MiB\"");
    let scene = setup.cache("second_request_percent", "1").start();
    let stale = |seed| {
        let reply = Reply::ok(noise(seed, 400 * 1024)).cache("max-age=0");
        reply.header("ETag", &format!("\"{seed}\""))
    };
    scene.origin.says("/large", stale(1));
    scene.get("/large").detail("first-request");
    scene.get("/large").stored();
    scene.origin.says("/large", stale(2));
    scene
        .get("/large")
        .by("stale")
        .stored()
        .sees(noise(2, 400 * 1024));
}
