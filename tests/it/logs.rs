//! One line for each request, in the form that was asked for, off the hot path.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::eventually;

/// A running scene that writes its access log in `format`, and where.
fn logging(format: &str) -> (Scene, PathBuf) {
    let setup = Scene::new();
    let path = setup.dir().join("access.log");
    let scene = setup
        .set("log", "access", &format!("{path:?}"))
        .set("log", "format", &format!("{format:?}"))
        .start();
    (scene, path)
}

fn lines(path: &PathBuf, wanted: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    eventually("the access log", || read().lines().count() >= wanted);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn the_combined_format_is_the_one_every_tool_reads() {
    let (scene, path) = logging("combined");
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene
        .get_with(
            "/a",
            &[("User-Agent", "scene/1"), ("Referer", "http://from.test/")],
        )
        .is(200);
    scene.get("/b").is(404);
    let lines = lines(&path, 2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(
        lines[0].contains("\"GET /a HTTP/1.1\" 200 2 "),
        "{}",
        lines[0]
    );
    assert!(
        lines[0].contains("\"http://from.test/\" \"scene/1\""),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].contains("\"GET /b HTTP/1.1\" 404 "),
        "{}",
        lines[1]
    );
}

#[test]
fn every_json_line_is_one_object() {
    let (scene, path) = logging("json");
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    scene.get("/a").is(200);
    for line in lines(&path, 2) {
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["status"], 200, "{line}");
        assert_eq!(line["method"], "GET", "{line}");
    }
}

#[test]
fn a_client_cannot_write_lines_of_its_own() {
    let (scene, path) = logging("combined");
    scene.origin.does("*", |_| Reply::ok("v1"));
    scene.get_with("/a", &[("User-Agent", "x\" 200 0 \"\" \"\u{9b}2J")]);
    let lines = lines(&path, 1);
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains('\u{9b}'), "{}", lines[0]);
    assert!(!lines[0].contains("\"x\" 200"), "{}", lines[0]);
}

#[test]
fn secrets_are_not_logged() {
    let (scene, path) = logging("json");
    let reply = Reply::ok("v1").header("Set-Cookie", "session=secret-one");
    scene.origin.says("/a", reply);
    let headers = [
        ("Authorization", "Bearer secret-two"),
        ("Cookie", "session=secret-three"),
    ];
    scene.get_with("/a", &headers).is(200);
    let text = lines(&path, 1).join("\n") + &scene.stderr();
    assert!(!text.contains("secret"), "{text}");
}
