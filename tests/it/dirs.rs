//! A store in several directories: spread, within each one's limit, and one of them away for a while.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

const ENTRIES: u64 = 60;
const LIMIT: u64 = 64 << 20;

/// A setup with three directories of so many bytes each, and no memory tier.
fn three(limit: u64) -> Setup {
    let setup = Scene::new().without("cache", "dir");
    let dir = |n: usize| {
        let path = setup.dir().join(format!("disk{n}"));
        format!("{{ path = {path:?}, disk_bytes_max = \"{limit}B\" }}")
    };
    let dirs = format!("[{}, {}, {}]", dir(0), dir(1), dir(2));
    setup
        .without("cache", "disk_bytes_max")
        .cache("memory_bytes_max", "\"0B\"")
        .cache("dirs", &dirs)
}

fn disk(scene: &Scene, n: usize) -> PathBuf {
    scene.dir().join(format!("disk{n}"))
}

fn number(target: &str) -> u64 {
    target.trim_start_matches('/').parse().unwrap_or(u64::MAX)
}

fn body(n: u64, version: u64) -> Vec<u8> {
    noise(n + version * 100_000, 3_000)
}

/// Lets the origin answer every `/n` with its first version.
fn answers(scene: &Scene) {
    scene.origin.does("*", |request| {
        Reply::ok(body(number(&request.target), 1)).fresh()
    });
}

/// Asks for all, each of which must be right; says which were hits.
fn hits(scene: &Scene) -> Vec<u64> {
    let hit = |n: &u64| {
        let answer = scene.get(&format!("/{n}"));
        answer.is(200).sees(body(*n, 1));
        answer.cache_status("hit").is_some()
    };
    (0..ENTRIES).filter(hit).collect()
}

fn dirs(scene: &Scene) -> Vec<Value> {
    let stats = scene.stats();
    let dirs = stats.pointer("/store/dirs").and_then(Value::as_array);
    dirs.cloned().expect("the directories in /stats")
}

fn entries(scene: &Scene) -> Vec<u64> {
    let entries = |dir: &Value| dir["entries"].as_u64().unwrap();
    dirs(scene).iter().map(entries).collect()
}

fn await_usable(scene: &Scene, n: usize, usable: bool) {
    eventually("a directory in or out", || {
        dirs(scene)[n]["usable"].as_bool() == Some(usable)
    });
}

/// Takes a directory away as a disk that is gone: what is in its place is no folder.
fn take_away(scene: &Scene, n: usize) {
    let disk = disk(scene, n);
    fs::rename(&disk, scene.dir().join("away")).unwrap();
    fs::write(disk, "no folder").unwrap();
}

fn put_back(scene: &Scene, n: usize) {
    let disk = disk(scene, n);
    fs::remove_file(&disk).unwrap();
    fs::rename(scene.dir().join("away"), disk).unwrap();
}

/// Bytes that a folder takes up on disk.
fn allocated(folder: &Path) -> u64 {
    let mut bytes = fs::metadata(folder).map_or(0, |meta| meta.blocks() * 512);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        bytes += match entry.metadata() {
            Ok(meta) if meta.is_dir() => allocated(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        };
    }
    bytes
}

#[test]
fn responses_are_spread_and_all_are_warm_after_a_restart() {
    let mut scene = three(LIMIT).start();
    answers(&scene);
    assert!(hits(&scene).is_empty());
    scene.await_durable(ENTRIES);
    let before = entries(&scene);
    assert_eq!(before.iter().sum::<u64>(), ENTRIES);
    assert!(before.iter().all(|entries| *entries > 5), "{before:?}");
    assert_eq!(scene.stat("store.limit"), 3 * LIMIT);
    scene.restart();
    assert_eq!(entries(&scene), before);
    assert_eq!(hits(&scene).len() as u64, ENTRIES);
    scene.origin.saw("/0", 1);
    scene.kill9_and_start();
    assert_eq!(hits(&scene).len() as u64, ENTRIES);
    scene.terminate();
    assert!(scene.wait().success());
    let stat = scene.larder(&["store", "--config", &scene.config(), "stat"]);
    stat.exits(0);
    for n in 0..3 {
        stat.prints(&format!("{}:", disk(&scene, n).display()));
    }
    scene
        .larder(&["store", "--config", &scene.config(), "verify"])
        .exits(0);
    scene
        .larder(&["check", "--config", &scene.config()])
        .exits(0)
        .prints("disk2");
}

#[test]
fn each_directory_keeps_its_limit() {
    const SMALL: u64 = 32 << 20;
    let scene = three(SMALL).start();
    scene.origin.does("*", |request| {
        Reply::ok(noise(number(&request.target), 1_500_000)).fresh()
    });
    for n in 0..100 {
        // The second request is one of those that let a large body in.
        for _ in 0..2 {
            scene
                .get(&format!("/{n}"))
                .is(200)
                .sees(noise(n, 1_500_000));
        }
        for n in 0..3 {
            let bytes = allocated(&disk(&scene, n));
            assert!(bytes <= SMALL, "{bytes} bytes in one directory");
        }
    }
    let used = dirs(&scene);
    let used = used.iter().map(|dir| dir["bytes"].as_u64().unwrap());
    assert!(
        used.clone().all(|bytes| bytes > SMALL / 4),
        "{:?}",
        used.collect::<Vec<_>>()
    );
    assert!(scene.stat("store.evicted") > 0);
}

/// Asks for everything round and round until told to stop; counts what was asked. Every answer must
/// be whole and of a version that may be served.
fn traffic(scene: &Scene, stop: &AtomicBool, oldest: &[AtomicU64], asked: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        for n in 0..ENTRIES {
            let least = oldest[usize::try_from(n).unwrap()].load(Ordering::SeqCst);
            let answer = scene.get(&format!("/{n}"));
            answer.is(200);
            let right = (least..3).any(|version| answer.body == body(n, version));
            assert!(right, "/{n} is not of version {least} or later");
            asked.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_directory_that_goes_away_costs_no_request_and_comes_back_without_what_was_purged() {
    let scene = three(LIMIT).start();
    let oldest: Vec<AtomicU64> = (0..ENTRIES).map(|_| AtomicU64::new(1)).collect();
    let newest: &'static [AtomicU64] = (0..ENTRIES)
        .map(|_| AtomicU64::new(1))
        .collect::<Vec<_>>()
        .leak();
    scene.origin.does("*", |request| {
        let n = number(&request.target);
        let version = usize::try_from(n).ok().and_then(|n| newest.get(n));
        Reply::ok(body(
            n,
            version.map_or(1, |version| version.load(Ordering::SeqCst)),
        ))
        .fresh()
    });
    assert!(hits(&scene).is_empty());
    scene.await_durable(ENTRIES);
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| traffic(&scene, &stop, &oldest, &asked));
        }
        take_away(&scene, 1);
        await_usable(&scene, 1, false);
        let ready = scene.operate("GET", "/readyz", "");
        ready.is(200);
        let text = String::from_utf8_lossy(&ready.body).into_owned();
        assert!(
            text.contains("degraded") && text.contains("disk1"),
            "{text}"
        );
        // A third of all is purged and has another version from now on.
        for n in (0..ENTRIES).step_by(3) {
            let at = usize::try_from(n).unwrap();
            newest[at].store(2, Ordering::SeqCst);
            let receipt = scene.purge(&[&format!("/{n}")]);
            assert_eq!(receipt["durable"], true, "{receipt}");
            oldest[at].store(2, Ordering::SeqCst);
        }
        let before = asked.load(Ordering::SeqCst);
        eventually("two more rounds", || {
            asked.load(Ordering::SeqCst) > before + 4 * ENTRIES
        });
        // Everything is a hit by now, wherever it lies.
        let missed = scene.stat("misses");
        for n in 0..ENTRIES {
            scene.get(&format!("/{n}")).is(200);
        }
        assert_eq!(scene.stat("misses"), missed);
        put_back(&scene, 1);
        await_usable(&scene, 1, true);
        let before = asked.load(Ordering::SeqCst);
        eventually("two more rounds", || {
            asked.load(Ordering::SeqCst) > before + 4 * ENTRIES
        });
        stop.store(true, Ordering::SeqCst);
    });
    assert!(entries(&scene).iter().all(|entries| *entries > 5));
    assert_eq!(dirs(&scene)[1]["taken_out"], 1);
    let log = scene.stderr();
    assert!(log.contains("a cache directory is out") && log.contains("a cache directory is back"));
}

#[test]
fn what_was_purged_while_a_directory_was_away_is_not_back_after_a_kill() {
    let (entries, share, hits) = purge_and_kill(true);
    assert_eq!(entries, 0, "it has missed a purge");
    assert!(hits >= ENTRIES / 2 - share, "{hits}");
}

#[test]
fn what_was_purged_just_as_a_directory_went_away_is_not_back_after_a_kill() {
    // Where the file is open still, the purge may have been written all the same.
    let (entries, share, _hits) = purge_and_kill(false);
    assert!(entries < share, "{entries}");
}

/// Purges every other target while a directory is away, found out or not, kills the binary, and puts
/// the directory back. What was purged must be fetched anew. Returns how many entries were in the
/// directory after the start and before, and how many of all were hits.
fn purge_and_kill(found_out: bool) -> (u64, u64, u64) {
    let mut scene = three(LIMIT).start();
    answers(&scene);
    assert!(hits(&scene).is_empty());
    scene.await_durable(ENTRIES);
    let share = entries(&scene)[1];
    take_away(&scene, 1);
    if found_out {
        await_usable(&scene, 1, false);
    }
    let targets: Vec<String> = (0..ENTRIES).step_by(2).map(|n| format!("/{n}")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    assert_eq!(scene.purge(&targets)["durable"], true);
    scene.kill9();
    put_back(&scene, 1);
    scene.start();
    assert!(dirs(&scene).iter().all(|dir| dir["usable"] == true));
    let after = entries(&scene)[1];
    let hits = hits(&scene);
    assert!(hits.iter().all(|n| n % 2 == 1), "{hits:?}");
    (after, share, hits.len() as u64)
}

#[test]
fn a_directory_that_cannot_be_opened_stops_nobody_and_is_used_when_it_can() {
    let scene = three(LIMIT).stopped();
    fs::write(disk(&scene, 2), "no folder").unwrap();
    let mut scene = scene;
    scene.start();
    answers(&scene);
    assert!(hits(&scene).is_empty());
    assert_eq!(hits(&scene).len() as u64, ENTRIES);
    assert_eq!(dirs(&scene)[2]["usable"], false);
    scene.operate("GET", "/readyz", "").is(200);
    fs::remove_file(disk(&scene, 2)).unwrap();
    await_usable(&scene, 2, true);
    hits(&scene);
    assert_eq!(hits(&scene).len() as u64, ENTRIES);
    assert!(entries(&scene)[2] > 5);
}
