//! One line for each request, in the form that was asked for, off the hot path.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::Value;

use crate::dial::Authority;
use crate::dial::Dial;
use crate::origin::DEADLINE;
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

#[test]
fn a_w3c_log_has_the_fields_that_were_chosen() {
    let setup = Scene::new();
    let path = setup.dir().join("access.log");
    let scene = setup
        .set("log", "access", &format!("{path:?}"))
        .set("log", "format", "\"w3c\"")
        .set(
            "log",
            "fields",
            "[\"c-ip\", \"cs-method\", \"cs-uri\", \"sc-status\", \"x-cache\", \"x-cache-detail\", \"cs(User-Agent)\"]",
        )
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let private = Reply::ok("v1").header("Cache-Control", "private");
    scene.origin.says("/p?a=b", private);
    scene.get_with("/a", &[("User-Agent", "a \"b\"")]).is(200);
    scene.get("/a").by("hit");
    scene.get("/p?a=b").is(200);
    let lines = lines(&path, 6);
    assert_eq!(
        lines[2..],
        [
            "#Fields: c-ip cs-method cs-uri sc-status x-cache x-cache-detail cs(User-Agent)",
            "127.0.0.1 GET /a 200 uri-miss - \"a \"\"b\"\"\"",
            "127.0.0.1 GET /a 200 hit - -",
            "127.0.0.1 GET /p?a=b 200 uri-miss private -",
        ]
    );
}

#[test]
fn a_field_that_does_not_exist_is_refused_with_the_nearest() {
    let scene = Scene::new().set("log", "fields", "[\"c-pi\"]").stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked.fails().complains("did you mean \"c-ip\"?");
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew_at_sigusr1() {
    let (scene, path) = logging("json");
    scene.origin.does("*", |_| Reply::ok("v1"));
    scene.get("/before").is(200);
    lines(&path, 1);
    let moved = path.with_extension("1");
    fs::rename(&path, &moved).unwrap();
    scene.signal("USR1");
    eventually("the log to be opened anew", || path.exists());
    scene.get("/after").is(200);
    assert!(lines(&path, 1)[0].contains("\"/after\""));
    let before = lines(&moved, 1);
    assert_eq!(before.len(), 1);
    assert!(before[0].contains("\"/before\""), "{before:?}");
}

#[test]
fn a_syslog_gets_a_datagram_for_each_request() {
    let setup = Scene::new();
    let path = setup.dir().join("syslog");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let scene = setup
        .set("log", "access", &format!("\"syslog:{}\"", path.display()))
        .set("log", "syslog_facility", "\"local3\"")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    let mut buffer = [0; 4096];
    let read = socket.recv(&mut buffer).unwrap();
    let line = String::from_utf8(buffer[..read].to_vec()).unwrap();
    // Local use 3, informational.
    assert!(line.starts_with("<158>1 "), "{line}");
    let head = format!(" larder {} access - 127.0.0.1 - - [", scene.pid());
    assert!(line.contains(&head), "{line}");
    assert!(line.contains("\"GET /a HTTP/1.1\" 200 2"), "{line}");
}

#[test]
fn a_syslog_that_is_not_there_keeps_larder_from_starting() {
    let scene = Scene::new()
        .set("log", "access", "\"syslog:/nowhere/log\"")
        .stopped();
    let served = scene.larder(&["serve", "--config", &scene.config()]);
    served.fails().complains("could not open the access log");
}

#[test]
fn a_json_line_says_what_tls_came_to() {
    let setup = Scene::new()
        .server("https", "[\"127.0.0.1:0\"]")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    let authority = Authority::new("Scene");
    authority.server(&["scene.test"]).write(setup.dir(), "c");
    let path = setup.dir().join("access.log");
    let scene = setup
        .set("log", "access", &format!("{path:?}"))
        .set("log", "format", "\"json\"")
        .start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let line = Dial::new().connect(scene.tls_front(), "scene.test");
    line.expect("a connection")
        .client()
        .get("/a")
        .answer("GET")
        .is(200);
    scene.get("/a").by("hit");
    let lines = lines(&path, 2);
    let [secured, clear] = [0, 1].map(|n| serde_json::from_str::<Value>(&lines[n]).expect("JSON"));
    assert_eq!(secured["tls_version"], "TLSv1.3", "{secured}");
    let cipher = secured["tls_cipher"].as_str().expect("a suite");
    assert!(
        cipher.starts_with("TLS_") && cipher.contains("_SHA"),
        "{cipher}"
    );
    assert!(clear.get("tls_version").is_none(), "{clear}");
    assert_eq!(clear["site"], "*");
}
