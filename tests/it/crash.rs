//! Broken or foreign stores: a clear word, nothing deleted, nothing wrong served.

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

/// Every file under `folder` with its size.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the store").flatten() {
        let meta = entry.metadata().expect("a file's size");
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.len()));
        }
    }
    found
}

fn journals(scene: &Scene) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        path.strip_prefix(scene.store())
            .is_ok_and(|p| p.to_string_lossy().contains("journal"))
    };
    let found: Vec<_> = files(&scene.store())
        .into_iter()
        .map(|(path, _)| path)
        .filter(named)
        .collect();
    assert!(
        !found.is_empty(),
        "no journal in {:?}",
        files(&scene.store())
    );
    found
}

/// A scene that was killed with ten entries in its store, `/0` to `/9`.
fn killed() -> Scene {
    let mut scene = Scene::usual();
    scene.origin.does("*", |request| {
        let seed = request.target.trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(noise(seed, 50_000)).fresh()
    });
    for n in 0..10 {
        scene.get(&format!("/{n}")).stored();
    }
    scene.await_durable(10);
    scene.kill9();
    scene
}

/// Asks for all ten, each of which must be right, and says how many were hits.
#[track_caller]
fn hits(scene: &Scene) -> usize {
    let right = |n: u64| {
        let answer = scene.get(&format!("/{n}"));
        answer.is(200).sees(noise(n, 50_000));
        answer.cache_status("hit").is_some()
    };
    (0..10).filter(|n| right(*n)).count()
}

#[test]
fn a_folder_of_someone_elses_is_refused_and_left_alone() {
    let scene = Scene::new().stopped();
    let theirs = scene.store().join("thesis.txt");
    fs::create_dir(scene.store()).unwrap();
    fs::write(&theirs, "years of work").unwrap();
    let store = scene.store().display().to_string();
    scene
        .larder(&["serve", "--config", &scene.config()])
        .fails()
        .complains(&store);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "years of work");
    assert_eq!(
        files(&scene.store()).len(),
        1,
        "something was left in a foreign folder"
    );
}

#[test]
fn a_store_that_is_a_file_is_refused() {
    let scene = Scene::new().stopped();
    fs::write(scene.store(), "not a folder").unwrap();
    let store = scene.store().display().to_string();
    scene
        .larder(&["serve", "--config", &scene.config()])
        .fails()
        .complains(&store);
    assert_eq!(fs::read_to_string(scene.store()).unwrap(), "not a folder");
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let store = scene.store().display().to_string();
    scene
        .larder(&["serve", "--config", &scene.config()])
        .fails()
        .complains(&store);
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn a_torn_journal_loses_at_most_its_tail() {
    let mut scene = killed();
    for journal in journals(&scene) {
        let file = OpenOptions::new().write(true).open(&journal).unwrap();
        let bytes = file.metadata().unwrap().len();
        file.set_len(bytes.saturating_sub(3)).unwrap();
    }
    scene.start();
    let hits = hits(&scene);
    assert!(
        hits >= 1,
        "a torn tail cost everything:\n{}",
        scene.stderr()
    );
    scene.restart();
    assert_eq!(self::hits(&scene), 10);
}

/// Starts a killed scene with rubbish at the end of the journal's files that end in one of `ends`.
fn with_rubbish(ends: &[&str]) -> Scene {
    let mut scene = killed();
    let chosen = |path: &PathBuf| ends.iter().any(|end| path.extension().unwrap() == *end);
    for journal in journals(&scene).into_iter().filter(chosen) {
        let mut file = OpenOptions::new().append(true).open(&journal).unwrap();
        file.write_all(&noise(1, 1000)).unwrap();
    }
    scene.start();
    scene
}

#[test]
fn rubbish_behind_the_journal_or_its_copy_costs_nothing() {
    for end in ["journal", "purges"] {
        let scene = with_rubbish(&[end]);
        assert_eq!(hits(&scene), 10);
        assert_eq!(scene.stat("store.corrupt"), 1);
    }
}

#[test]
fn rubbish_that_may_have_been_purges_purges_everything() {
    let mut scene = with_rubbish(&["journal", "purges"]);
    assert!(scene.stderr().contains("what is older is purged"));
    assert_eq!(hits(&scene), 0);
    scene.await_durable(10);
    scene.restart();
    assert_eq!(hits(&scene), 10);
}

#[test]
fn a_flipped_bit_in_a_pack_is_never_served() {
    let setup = Scene::new().cache("memory_bytes_max", "\"0B\"");
    let mut scene = setup.start();
    let body = noise(61, 2_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.kill9();
    let journals = journals(&scene);
    for (path, bytes) in files(&scene.store()) {
        if bytes > 100_000 && !journals.contains(&path) {
            let mut content = fs::read(&path).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            writable(&path);
            fs::write(&path, content).unwrap();
        }
    }
    scene.start();
    let first = scene.get("/a");
    assert!(
        first.body.as_slice() == &body[..first.body.len()],
        "a wrong byte was served"
    );
    scene.get("/a").is(200).sees(&body);
    scene.origin.saw("/a", 2);
}

#[test]
fn a_missing_pack_is_a_miss() {
    let mut scene = killed();
    let journals = journals(&scene);
    for (path, bytes) in files(&scene.store()) {
        if bytes > 100_000 && !journals.contains(&path) {
            fs::remove_file(path).unwrap();
        }
    }
    scene.start();
    assert!(hits(&scene) < 10);
    assert_eq!(hits(&scene), 10);
}

#[test]
fn a_store_that_cannot_be_written_to_still_serves() {
    let mut scene = killed();
    scene.start();
    let store = scene.store();
    let moved = scene.dir().join("moved");
    fs::rename(&store, &moved).unwrap();
    for n in 0..10 {
        scene.get(&format!("/{n}")).is(200).sees(noise(n, 50_000));
    }
    scene.get("/77").is(200).sees(noise(77, 50_000));
    fs::rename(&moved, &store).unwrap();
}

/// Lets the owner write to a file that a store keeps read-only.
fn writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its own file");
}
