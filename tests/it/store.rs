//! The store's folder as operators and tools see it: looked at, damaged, of another version.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// All files below a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The files of all packs.
pub(crate) fn packs(scene: &Scene) -> Vec<PathBuf> {
    files(&scene.store().join("content-v2"))
}

/// Changes a file, also one that is kept read-only.
pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// What every file holds, by its path: two of these are equal when nothing was changed.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    files(folder).into_iter().map(read).collect()
}

/// How many responses [`filled`] stores.
pub(crate) const ENTRIES: u64 = 6;

/// A scene with entries `/0` to `/5` on disk, running.
pub(crate) fn filled(setup: Setup) -> Scene {
    let scene = setup.start();
    scene.origin.does("*", |request| {
        let seed = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(noise(seed, 3_000)).fresh()
    });
    for n in 0..ENTRIES {
        scene.get(&format!("/{n}")).stored();
    }
    scene.await_durable(ENTRIES);
    scene
}

fn stopped(setup: Setup) -> Scene {
    let mut scene = filled(setup);
    scene.terminate();
    assert!(scene.wait().success());
    scene
}

/// Asks for all, each of which must be right; says how many were hits.
pub(crate) fn hits(scene: &Scene) -> u64 {
    let hit = |n: &u64| {
        let answer = scene.get(&format!("/{n}"));
        answer.is(200).sees(noise(*n, 3_000));
        answer.cache_status("hit").is_some()
    };
    (0..ENTRIES).filter(hit).count() as u64
}

/// A setup without a memory tier: everything comes from disk.
pub(crate) fn no_memory() -> Setup {
    Scene::new().cache("memory_bytes_max", "\"0B\"")
}

/// Each line as JSON.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_stopped_store_can_be_looked_at_and_is_left_as_it_was() {
    let scene = stopped(Scene::new());
    let before = contents(&scene.store());
    let config = scene.config();
    let look = |action: &str| {
        let finished = scene.larder(&["store", "--config", &config, action, "--json"]);
        finished.exits(0);
        lines(&finished.stdout)
    };
    let stat = look("stat");
    assert_eq!(stat[0]["entries"], ENTRIES);
    assert_eq!(stat[0]["journal_damaged"], 0);
    let list = look("list");
    assert_eq!(list.len() as u64, ENTRIES);
    for entry in &list {
        assert_eq!(
            (&entry["status"], &entry["body_bytes"]),
            (&200.into(), &3000.into())
        );
        assert_eq!(entry["fresh"], true);
    }
    assert_eq!(look("verify")[0]["sound"], true);
    let store = scene.store().display().to_string();
    let by_folder = scene.larder(&["store", "--dir", &store, "stat"]);
    by_folder.exits(0).prints("entries");
    assert!(by_folder.stderr.is_empty(), "no progress but on a terminal");
    scene
        .larder(&["store", "--dir", &store, "list"])
        .exits(0)
        .prints("fresh for");
    scene
        .larder(&["store", "--dir", &store, "verify"])
        .exits(0)
        .prints("sound");
    assert_eq!(contents(&scene.store()), before);
}

#[test]
fn an_export_holds_every_body_and_its_fields() {
    let scene = stopped(Scene::new());
    let config = scene.config();
    let out = scene.dir().join("out").display().to_string();
    let export = || scene.larder(&["store", "--config", &config, "export", &out]);
    export().exits(0).prints("exported 6");
    let written = contents(Path::new(&out));
    for n in 0..ENTRIES {
        let body = noise(n, 3_000);
        assert!(written.iter().any(|(_, bytes)| *bytes == body));
    }
    let heads = written
        .iter()
        .filter(|(path, _)| path.extension().unwrap() == "json");
    for (_, head) in heads {
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(head["status"], 200);
        assert!(head["headers"].to_string().contains("cache-control"));
    }
    export().exits(1).complains("not empty");
}

#[test]
fn what_is_no_store_is_not_looked_at() {
    let scene = Scene::new().stopped();
    let config = scene.config();
    let stat = || scene.larder(&["store", "--config", &config, "stat"]);
    stat().exits(1).complains("holds no larder store");
    fs::create_dir(scene.store()).unwrap();
    stat().exits(1).complains("holds no larder store");
    assert_eq!(files(&scene.store()), Vec::<PathBuf>::new());
}

#[test]
fn a_store_of_another_version_is_refused_by_all_and_left_alone() {
    let scene = stopped(Scene::new());
    let marker = scene.store().join("larder-store");
    fs::write(&marker, "larder store, format 7\n").unwrap();
    let before = contents(&scene.store());
    let config = scene.config();
    for arguments in [
        &["serve", "--config", &config][..],
        &["store", "--config", &config, "stat"],
        &["store", "--config", &config, "list"],
        &["store", "--config", &config, "verify"],
        &["store", "--config", &config, "export", "out"],
    ] {
        let refused = scene.larder(arguments);
        refused.exits(1).complains("has store format 7");
    }
    assert_eq!(contents(&scene.store()), before);
}

#[test]
fn a_journal_of_another_version_is_refused_by_all_and_left_alone() {
    let scene = stopped(Scene::new());
    let journal = files(&scene.store().join("journal"));
    for (path, name) in journal
        .iter()
        .map(|path| (path, path.display().to_string()))
    {
        let whole = fs::read(path).unwrap();
        // A header is a magic of eight bytes, the version, a number, and a check of all these.
        change(path, |bytes| {
            bytes[8] = 9;
            let check = crc32fast::hash(&bytes[..16]);
            bytes[16..20].copy_from_slice(&check.to_le_bytes());
        });
        let before = contents(&scene.store());
        let config = scene.config();
        for arguments in [
            &["serve", "--config", &config][..],
            &["store", "--config", &config, "stat"],
            &["store", "--config", &config, "list"],
            &["store", "--config", &config, "verify"],
            &["store", "--config", &config, "export", "out"],
        ] {
            let refused = scene.larder(arguments);
            refused.exits(1).complains("has journal version 9");
            refused.complains(&name);
        }
        assert_eq!(contents(&scene.store()), before);
        change(path, |bytes| *bytes = whole);
    }
    let config = scene.config();
    let stat = scene.larder(&["store", "--config", &config, "stat", "--json"]);
    assert_eq!(lines(&stat.exits(0).stdout)[0]["entries"], ENTRIES);
}

#[test]
fn verify_finds_a_flipped_bit_anywhere_and_list_names_the_entry() {
    let scene = stopped(Scene::new());
    let config = scene.config();
    let verify = || scene.larder(&["store", "--config", &config, "verify", "--json"]);
    let pack = packs(&scene).remove(0);
    let bytes = fs::read(&pack).unwrap();
    for at in [3, 20, 100, bytes.len() / 2, bytes.len() - 3] {
        change(&pack, |bytes| bytes[at] ^= 4);
        let found = verify();
        found.exits(3);
        let said = lines(&found.stdout);
        assert_eq!(said.last().unwrap()["sound"], false, "byte {at}");
        assert!(said.iter().any(|line| line["pack"].is_u64()), "byte {at}");
        change(&pack, |bytes| bytes[at] ^= 4);
    }
    verify().exits(0);
    change(&pack, |bytes| bytes[40] ^= 1);
    let list = scene.larder(&["store", "--config", &config, "list"]);
    list.exits(3).prints("fail their check");
    let out = scene.dir().join("out").display().to_string();
    let export = scene.larder(&["store", "--config", &config, "export", &out]);
    export.exits(3).prints("left out 1 damaged");
    fs::remove_file(&pack).unwrap();
    let gone = verify();
    gone.exits(3);
    assert!(lines(&gone.stdout).last().unwrap()["packs_missing"].as_u64() > Some(0));
}

#[test]
fn flipped_bits_in_packs_and_journals_are_never_served_are_counted_and_heal() {
    for (seed, folder) in [(1, "content-v2"), (2, "journal"), (3, "content-v2")] {
        let mut scene = stopped(no_memory());
        for path in files(&scene.store().join(folder)) {
            change(&path, |bytes| {
                let at = (bytes.len() / 7 * seed).max(40).min(bytes.len() - 1);
                bytes[at] ^= 0x10;
            });
        }
        scene.start();
        let right = hits(&scene);
        assert!(right < ENTRIES, "{folder}: nothing was damaged");
        assert!(scene.stat("store.corrupt") >= 1, "{folder}: not counted");
        assert_eq!(hits(&scene), ENTRIES, "{folder}: not healed");
    }
}

#[test]
fn a_scrub_finds_what_nobody_asks_for() {
    let scene = filled(no_memory().cache("scrub_bytes_per_second", "\"64MiB\""));
    assert_eq!(scene.stat("store.corrupt"), 0);
    let pack = packs(&scene).remove(0);
    change(&pack, |bytes| bytes[1000] ^= 1);
    scene.await_stat("store.corrupt", |corrupt| corrupt >= 1);
    eventually("the damaged pack's end", || !pack.exists());
    assert!(hits(&scene) >= ENTRIES - 2);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn a_short_pack_is_a_miss() {
    let mut scene = stopped(no_memory());
    for pack in packs(&scene) {
        change(&pack, |bytes| bytes.truncate(bytes.len() / 2));
    }
    scene.start();
    assert_eq!(hits(&scene), 0);
    assert_eq!(hits(&scene), ENTRIES);
    assert!(
        scene.stderr().contains("wrong length"),
        "{}",
        scene.stderr()
    );
}

#[test]
fn heads_of_another_version_are_misses_and_the_bodies_of_nobody() {
    let mut scene = stopped(no_memory());
    // A head says its version after eight bytes of magic; its check would fail as well.
    for pack in packs(&scene) {
        change(&pack, |bytes| {
            let heads: Vec<usize> = bytes
                .windows(8)
                .enumerate()
                .filter(|(_, window)| window == b"ldr-head")
                .map(|(at, _)| at)
                .collect();
            for at in heads {
                bytes[at + 8] = 99;
            }
        });
    }
    scene.start();
    assert_eq!(hits(&scene), 0);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn an_empty_folder_becomes_a_store() {
    let mut scene = Scene::new().stopped();
    fs::create_dir(scene.store()).unwrap();
    scene.start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.kill9_and_start();
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn a_disk_that_hangs_is_not_waited_for() {
    let scene = filled(no_memory());
    let pack = packs(&scene).remove(0);
    let aside = scene.dir().join("aside");
    fs::rename(&pack, &aside).unwrap();
    // Whoever opens a pipe waits until there is a writer: as good as a disk that hangs.
    let made = Command::new("mkfifo").arg(&pack).status();
    assert!(made.unwrap().success());
    let store = |n| scene.get_with(&format!("/{n}"), &[("Cache-Control", "no-store")]);
    let answer = store(0);
    answer.is(200).sees(noise(0, 3_000));
    assert!(
        answer.cache_status("fwd").is_some(),
        "it came from the origin"
    );
    assert!(answer.took < Duration::from_secs(15));
    let pipe = pack.clone();
    fs::rename(&aside, scene.dir().join("back")).unwrap();
    // The one that waits gets a writer, reads nothing and finds out.
    drop(fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    fs::rename(scene.dir().join("back"), &pack).unwrap();
    for n in 0..ENTRIES {
        scene.get(&format!("/{n}")).is(200).sees(noise(n, 3_000));
    }
    assert_eq!(hits(&scene), ENTRIES);
}
