//! The command line: what an operator types and reads.

use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::larder;
use crate::scene::url;

/// A running scene where `/a` and `/b` are stored, and a config that names its admin listener.
fn stored() -> (Scene, String) {
    let scene = Scene::usual();
    for target in ["/a", "/b"] {
        scene.origin.says(target, Reply::ok(target).fresh());
        scene.get(target).stored();
    }
    let config = scene.found_config();
    (scene, config)
}

#[test]
fn purge_takes_urls_and_prints_the_receipt() {
    let (scene, config) = stored();
    let purged = scene.larder(&["purge", "--config", &config, &url("/a")]);
    purged.exits(0).prints("sequence");
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("hit");
}

#[test]
fn purge_takes_everything_when_told_so() {
    let (scene, config) = stored();
    scene
        .larder(&["purge", "--config", &config, "--all"])
        .exits(0);
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("uri-miss");
}

#[test]
fn purge_without_an_aim_is_a_usage_error() {
    let (scene, config) = stored();
    scene.larder(&["purge", "--config", &config]).exits(2);
    scene
        .larder(&["purge", "--config", &config, "--all", &url("/a")])
        .exits(2);
    scene.get("/a").by("hit");
}

#[test]
fn purge_says_so_when_nobody_listens() {
    let (mut scene, config) = stored();
    scene.kill9();
    let purged = scene.larder(&["purge", "--config", &config, "--all"]);
    purged.fails();
    assert!(!purged.stderr.is_empty());
}

#[test]
fn help_and_version_need_no_config() {
    let dir = tempfile::tempdir().unwrap();
    let help = larder(dir.path(), &["--help"]);
    for command in ["serve", "check", "purge", "reload", "store", "completions"] {
        help.exits(0).prints(command);
    }
    larder(dir.path(), &["--version"])
        .exits(0)
        .prints(env!("CARGO_PKG_VERSION"));
    larder(dir.path(), &["serve", "--help"])
        .exits(0)
        .prints("--config");
    let store = larder(dir.path(), &["store", "--help"]);
    for word in [
        "stat", "list", "verify", "export", "--config", "--dir", "--json",
    ] {
        store.exits(0).prints(word);
    }
    larder(dir.path(), &["store", "verify", "--help"])
        .exits(0)
        .prints("--rate");
    larder(dir.path(), &["store", "export", "--help"])
        .exits(0)
        .prints("KEY|URL");
}

#[test]
fn completions_are_written_for_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = larder(dir.path(), &["completions", shell]);
        script.exits(0);
        // Every command, and what belongs to those of the store.
        for word in [
            "check",
            "completions",
            "purge",
            "serve",
            "store",
            "stat",
            "list",
            "verify",
            "export",
            "rate",
            "json",
            "dir",
        ] {
            script.prints(word);
        }
    }
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    larder(dir.path(), &["serf"]).exits(2).complains("serf");
    larder(dir.path(), &[]).exits(2);
}
