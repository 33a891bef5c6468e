//! Configs: every mistake told at once, with its place, and nothing right refused.
//!
//! `fixtures/configs/invalid/` has one mistake a file; its first lines, `# expect: WORDS`, are what
//! must be said about it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::scene::Scene;
use crate::scene::larder;

fn configs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/configs")
        .join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the configs")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no configs");
    found
}

#[test]
fn each_mistake_is_told_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for config in configs("invalid") {
        let name = config.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&config).unwrap();
        let expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
            .collect();
        assert!(!expected.is_empty(), "{name} does not say what to expect");
        let checked = larder(
            dir.path(),
            &["check", "--config", &config.display().to_string()],
        );
        if checked.code != Some(2) {
            wrong.push(format!(
                "{name}: exit code {:?}\n{}",
                checked.code, checked.stderr
            ));
        }
        for words in expected.into_iter().chain([name.as_str()]) {
            if !checked.stderr.contains(words) {
                wrong.push(format!("{name}: no {words:?} in:\n{}", checked.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_right_passes() {
    let dir = tempfile::tempdir().unwrap();
    for config in configs("valid") {
        larder(
            dir.path(),
            &["check", "--config", &config.display().to_string()],
        )
        .exits(0);
    }
}

#[test]
fn check_prints_the_config_in_effect_with_its_defaults() {
    let scene = Scene::new().stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked
        .exits(0)
        .prints("header_timeout")
        .prints("disk_bytes_max")
        .prints("stale_if_error");
}

#[test]
fn what_check_prints_is_a_config_itself() {
    let scene = Scene::new().stopped();
    let printed = scene.larder(&["check", "--config", &scene.config()]).stdout;
    let again = scene.dir().join("printed.toml");
    fs::write(&again, &printed).unwrap();
    let checked = scene.larder(&["check", "--config", &again.display().to_string()]);
    checked.exits(0);
    // The first print marks what nobody had written down.
    assert_eq!(checked.stdout, printed.replace("  # default", ""));
}

#[test]
fn every_mistake_is_told_at_once() {
    let scene = Scene::new()
        .server("header_timeout", "\"soon\"")
        .cache("disk_bytes_max", "\"much\"")
        .site("upstream", "\"nowhere\"")
        .site("stale_if_eror", "\"1m\"")
        .stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked.exits(2);
    for word in [
        "header_timeout",
        "disk_bytes_max",
        "nowhere",
        "stale_if_error",
    ] {
        checked.complains(word);
    }
}

#[test]
fn serve_refuses_a_bad_config_like_check_does() {
    let scene = Scene::new().site("upstream", "\"nowhere\"").stopped();
    scene
        .larder(&["serve", "--config", &scene.config()])
        .exits(2)
        .complains("nowhere");
    assert!(!scene.store().exists(), "a store was made for a bad config");
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing.toml").display().to_string();
    larder(dir.path(), &["check", "--config", &nothing])
        .fails()
        .complains("nothing.toml");
}

#[test]
fn the_example_config_is_right() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    let dir = tempfile::tempdir().unwrap();
    larder(
        dir.path(),
        &["check", "--config", &example.display().to_string()],
    )
    .exits(0);
}

#[test]
fn an_address_in_use_is_named() {
    let scene = Scene::usual();
    let taken = scene.admin();
    let other = Scene::new()
        .set("admin", "listen", &format!("\"{taken}\""))
        .stopped();
    let address = taken.to_string();
    other
        .larder(&["serve", "--config", &other.config()])
        .fails()
        .complains(&address);
}
