//! Disks that fail while the site is up: full, read-only, forbidden, broken, gone, hanging.
//!
//! Where a file system can be mounted it is a true one that fails, and one that is told to besides;
//! elsewhere only the latter.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

const ENTRIES: u64 = 6;
const BYTES: usize = 200_000;

fn body(n: u64) -> Vec<u8> {
    noise(n, BYTES)
}

/// A scene with entries `/0` to `/5` on disk, running.
fn filled(scene: Scene) -> Scene {
    scene.origin.does("*", |request| {
        let seed = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(body(seed)).fresh()
    });
    for n in 0..ENTRIES {
        scene.get(&format!("/{n}")).stored();
    }
    scene.await_durable(ENTRIES);
    scene
}

fn no_memory() -> Setup {
    Scene::new().cache("memory_bytes_max", "\"0B\"").own_disk()
}

/// Asks for all of them, each of which must be right; says how many were hits.
#[track_caller]
fn hits(scene: &Scene) -> u64 {
    (0..ENTRIES).filter(|n| is_hit(scene, *n)).count() as u64
}

#[track_caller]
fn is_hit(scene: &Scene, n: u64) -> bool {
    let answer = scene.get(&format!("/{n}"));
    answer.is(200).sees(body(n));
    answer.cache_status("hit").is_some()
}

fn ready(scene: &Scene) -> bool {
    scene.operate("GET", "/readyz", "").status == 200
}

fn pass_through(scene: &Scene) -> Value {
    let stats = scene.stats();
    let told = stats.pointer("/store/pass_through");
    told.unwrap_or_else(|| panic!("{stats}")).clone()
}

/// Asks for what is not stored yet until the store tells of its trouble; everything must be right.
#[track_caller]
fn until_trouble_is_told(scene: &Scene) {
    let mut n = 100;
    eventually("the trouble to be told", || {
        n += 1;
        is_hit(scene, n);
        !ready(scene)
    });
    let told = scene.operate("GET", "/readyz", "");
    let text = String::from_utf8_lossy(&told.body).into_owned();
    assert!(text.contains("the store passes through"), "{text}");
    assert!(pass_through(scene).is_string());
    assert!(scene.stat("store.write_errors") >= 1);
}

/// The disk works again: all is as before, without a restart and after one.
#[track_caller]
fn all_is_well(scene: &mut Scene) {
    eventually("the store to recover", || ready(scene));
    assert!(pass_through(scene).is_null());
    eventually("everything to be stored again", || {
        is_hit(scene, 200) && hits(scene) == ENTRIES
    });
    assert_purged(scene);
    scene.restart();
    assert!(is_hit(scene, 200));
    assert_eq!(hits(scene), ENTRIES);
    assert_purged(scene);
}

/// What is purged under a fault is gone at once, and is not said to be on disk.
#[track_caller]
fn purge_in_trouble(scene: &Scene) {
    let receipt = scene.purge(&["/doomed"]);
    assert_eq!(receipt["durable"], false, "{receipt}");
    assert_purged(scene);
}

/// `/doomed` says when it was asked for: what was stored before the purge would be another one.
#[track_caller]
fn assert_purged(scene: &Scene) {
    let seen = scene.get("/doomed");
    seen.is(200).sees("after");
}

#[track_caller]
fn doomed(scene: &Scene) {
    scene.origin.says("/doomed", Reply::ok("before").fresh());
    scene.get("/doomed").stored();
    scene.await_durable(ENTRIES + 1);
    scene.origin.says("/doomed", Reply::ok("after").fresh());
}

/// The whole course of a fault that lets nothing be written, and old responses be read or not.
#[track_caller]
fn course(mut scene: Scene, begin: impl Fn(&Scene), end: impl Fn(&Scene), readable: bool) {
    doomed(&scene);
    begin(&scene);
    until_trouble_is_told(&scene);
    purge_in_trouble(&scene);
    let served = hits(&scene);
    if readable {
        assert_eq!(served, ENTRIES, "what can be read is served");
    }
    let before = scene.origin.requests();
    end(&scene);
    eventually("the store to recover", || ready(&scene));
    assert_eq!(hits(&scene), ENTRIES, "nothing is lost that is still there");
    assert_eq!(scene.origin.requests(), before, "nor fetched again");
    all_is_well(&mut scene);
}

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this process may not mount; scenes then have a disk that is told to fail.
    fn at(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let done = run(&["mount", "-t", "tmpfs", "-o", options, "tmpfs"], path);
        done.then(|| Self(path.to_path_buf()))
    }

    fn again(&self, options: &str) {
        let options = format!("remount,{options}");
        eventually("a remount", || run(&["mount", "-o", &options], &self.0));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(&["umount", "-l"], &self.0);
    }
}

fn run(command: &[&str], path: &Path) -> bool {
    let mut words = command.iter();
    let done = Command::new(words.next().unwrap())
        .args(words)
        .arg(path)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_turns_read_only_serves_what_it_has_and_is_used_again() {
    let begin = |scene: &Scene| scene.disk_fails("cwnum", Errno::ROFS);
    course(filled(no_memory().start()), begin, Scene::disk_works, true);
}

/// Starts on a disk that cannot be written to, which then can.
#[track_caller]
fn start_read_only(mut scene: Scene, begin: impl Fn(&Scene), end: impl Fn(&Scene)) {
    doomed(&scene);
    scene.terminate();
    assert!(scene.wait().success());
    begin(&scene);
    scene.start();
    assert!(!ready(&scene));
    assert_eq!(hits(&scene), ENTRIES);
    scene.get("/300").is(200).sees(body(300)).not_stored();
    purge_in_trouble(&scene);
    end(&scene);
    all_is_well(&mut scene);
}

#[test]
fn a_start_on_a_read_only_disk_serves_what_is_there() {
    start_read_only(
        filled(no_memory().start()),
        |scene| scene.disk_fails("cwnum", Errno::ROFS),
        Scene::disk_works,
    );
    let mut scene = no_memory().stopped();
    // Nothing that is open for writing can be mounted read-only: a start finds it so.
    if let Some(mount) = Mount::at(&scene.store(), "size=64m") {
        scene.start();
        let (ro, rw) = (|_: &Scene| mount.again("ro"), |_: &Scene| mount.again("rw"));
        start_read_only(filled(scene), ro, rw);
    }
}

#[test]
fn a_disk_that_breaks_for_writing_serves_what_it_has_and_is_used_again() {
    let begin = |scene: &Scene| scene.disk_fails("cwns", Errno::IO);
    course(filled(no_memory().start()), begin, Scene::disk_works, true);
}

#[test]
fn a_disk_without_permission_costs_nothing_but_the_time() {
    let begin = |scene: &Scene| scene.disk_fails("ocwnuml", Errno::ACCESS);
    course(filled(no_memory().start()), begin, Scene::disk_works, false);
}

#[test]
fn a_full_disk_is_used_again_when_it_has_room() {
    let mut told = filled(no_memory().start());
    doomed(&told);
    told.disk_fails("cw", Errno::NOSPC);
    until_trouble_is_told(&told);
    purge_in_trouble(&told);
    hits(&told);
    told.disk_works();
    all_is_well(&mut told);

    let mut scene = no_memory().stopped();
    if let Some(_mount) = Mount::at(&scene.store(), "size=48m") {
        scene.start();
        truly_full(filled(scene));
    }
}

fn truly_full(mut scene: Scene) {
    doomed(&scene);
    let ballast = scene.store().join("ballast");
    // As much as there is room for.
    drop(fs::write(&ballast, vec![1; 64 << 20]));
    until_trouble_is_told(&scene);
    hits(&scene);
    let receipt = scene.purge(&["/doomed"]);
    assert!(receipt["durable"].is_boolean());
    assert_purged(&scene);
    fs::remove_file(&ballast).unwrap();
    all_is_well(&mut scene);
}

#[test]
fn what_cannot_be_read_is_fetched_and_stored_anew() {
    let mut scene = filled(no_memory().start());
    doomed(&scene);
    scene.purge(&["/doomed"]);
    scene.disk_fails("r", Errno::IO);
    assert_eq!(hits(&scene), 0);
    assert!(scene.stat("store.read_errors") >= ENTRIES);
    scene.disk_works();
    all_is_well(&mut scene);
}

#[test]
fn a_folder_that_is_deleted_while_it_is_used_is_made_again() {
    let mut scene = filled(no_memory().start());
    doomed(&scene);
    scene.purge(&["/doomed"]);
    fs::remove_dir_all(scene.store()).unwrap();
    assert!(hits(&scene) <= ENTRIES);
    eventually("the store to be made again", || {
        hits(&scene);
        ready(&scene) && scene.stat("store.write_errors") >= 1
    });
    all_is_well(&mut scene);
    scene.kill9_and_start();
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn a_disk_that_hangs_is_passed_through_until_it_answers() {
    let setup = Scene::new()
        .cache("memory_bytes_max", "\"64MiB\"")
        .own_disk();
    let mut scene = filled(setup.start());
    doomed(&scene);
    scene.disk_hangs("ocrwsnuml");
    until_trouble_is_told(&scene);
    let text = scene.operate("GET", "/readyz", "").body;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("does not answer"), "{text}");
    for n in 0..ENTRIES {
        let answer = scene.get(&format!("/{n}"));
        answer.is(200).sees(body(n)).by("hit");
        assert!(answer.took < Duration::from_secs(1), "{:?}", answer.took);
    }
    // Once it is known that the disk hangs, nobody waits for it.
    let answer = scene.get("/300");
    answer.is(200).sees(body(300)).not_stored();
    assert!(answer.took < Duration::from_secs(1), "{:?}", answer.took);
    purge_in_trouble(&scene);
    scene.disk_works();
    all_is_well(&mut scene);
}

#[test]
fn a_response_under_way_waits_for_a_disk_that_hangs() {
    let scene = no_memory().start();
    let large = noise(7, 24 << 20);
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.get("/large").sees(&large).stored();
    scene.await_durable(1);
    let mut client = scene.connect();
    let mut reading = client.get("/large").begin("GET");
    reading.up_to(1000);
    scene.disk_hangs("or");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            scene.await_stat("store.read_errors", |errors| errors >= 1);
            scene.disk_works();
        });
        reading.finish().is(200).sees(&large).by("hit");
    });
    scene.origin.saw("/large", 1);
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_disk_that_hangs() {
    let mut scene = filled(no_memory().start());
    scene.disk_hangs("cwnsum");
    scene.get("/100").is(200).sees(body(100));
    scene.terminate();
    assert!(scene.wait().success());
    scene.disk_works();
    scene.start();
    assert_eq!(hits(&scene), ENTRIES);
}
