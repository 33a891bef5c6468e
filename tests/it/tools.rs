//! `larder store` on a running store: what is told is what a stopped one tells, and what goes wrong is
//! said.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::client::Client;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::ClosedPort;
use crate::scene::Finished;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::url;
use crate::store::ENTRIES;
use crate::store::change;
use crate::store::contents;
use crate::store::files;
use crate::store::filled;
use crate::store::hits;
use crate::store::lines;
use crate::store::no_memory;
use crate::store::packs;

/// Runs `larder store` with a config that says where the running larder's admin listener is.
#[track_caller]
fn tool(scene: &Scene, config: &str, arguments: &[&str]) -> Finished {
    scene.larder(&[&["store", "--config", config], arguments].concat())
}

/// A line without what changes as time goes by.
fn timeless(mut line: Value) -> Value {
    if let Some(line) = line.as_object_mut() {
        line.remove("seconds");
    }
    line
}

/// What `list` says, in an order of its own.
#[track_caller]
fn listed(scene: &Scene, config: &str) -> Vec<String> {
    let list = tool(scene, config, &["list", "--json"]);
    let lines = lines(&list.exits(0).stdout).into_iter();
    let mut lines: Vec<String> = lines.map(|line| timeless(line).to_string()).collect();
    lines.sort();
    lines
}

/// What `export` writes, by the names of the files.
#[track_caller]
fn exported(scene: &Scene, config: &str, folder: &str, only: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let out = scene.dir().join(folder);
    let path = out.display().to_string();
    tool(scene, config, &[&["export", &path], only].concat()).exits(0);
    let named = |(path, bytes): (std::path::PathBuf, Vec<u8>)| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = match serde_json::from_slice(&bytes) {
            Ok(head) => timeless(head).to_string().into_bytes(),
            Err(_) => bytes,
        };
        (name, bytes)
    };
    contents(&out).into_iter().map(named).collect()
}

/// Small responses, one of several segments, one of three variants, and one without a body.
fn mixed(setup: Setup) -> Scene {
    let scene = filled(setup);
    scene
        .origin
        .says("/large", Reply::ok(noise(9, 5_000_000)).fresh());
    scene.get("/large").stored();
    scene.origin.does("/varied", |request| {
        let language = request
            .header("accept-language")
            .unwrap_or("none")
            .to_owned();
        Reply::ok(language)
            .fresh()
            .header("Vary", "Accept-Language")
    });
    for language in ["de", "en", "fr"] {
        let said = [("Accept-Language", language)];
        scene.get_with("/varied", &said).stored();
    }
    scene.origin.says("/empty", Reply::ok("").fresh());
    scene.get("/empty").stored();
    scene.await_durable(MIXED);
    scene
}

const MIXED: u64 = ENTRIES + 5;

#[test]
fn a_running_store_tells_the_same_as_a_stopped_one() {
    for setup in [Scene::new(), no_memory()] {
        let mut scene = mixed(setup);
        let config = scene.found_config();
        let figures = |scene: &Scene| {
            let stat = tool(scene, &config, &["stat", "--json"]);
            let stat = lines(&stat.exits(0).stdout).remove(0);
            let same = [
                "entries",
                "bodies",
                "live_bytes",
                "packs_missing",
                "journal_damaged",
            ];
            same.map(|name| stat[name].as_u64().unwrap())
        };
        let verified = |scene: &Scene| {
            let verify = tool(scene, &config, &["verify", "--json", "--rate", "1GiB"]);
            let last = lines(&verify.exits(0).stdout).pop().unwrap();
            (last["sound"].clone(), last["entries"].clone())
        };
        let running = (
            figures(&scene),
            listed(&scene, &config),
            verified(&scene),
            exported(&scene, &config, "running", &[]),
        );
        scene.terminate();
        assert!(scene.wait().success());
        let stopped = (
            figures(&scene),
            listed(&scene, &config),
            verified(&scene),
            exported(&scene, &config, "stopped", &[]),
        );
        assert_eq!(running.0[0], MIXED);
        assert_eq!(running.1.len() as u64, MIXED);
        assert_eq!(running.3.len() as u64, 2 * MIXED);
        assert!(
            running
                .3
                .values()
                .any(|bytes| *bytes == noise(9, 5_000_000))
        );
        assert!(running == stopped, "{running:?}\n{stopped:?}");
    }
}

#[test]
fn a_list_of_many_comes_page_by_page_and_whole() {
    const MANY: u64 = 2_300;
    let scene = Scene::usual();
    scene
        .origin
        .does("*", |request| Reply::ok(request.target.clone()).fresh());
    let mut client = scene.connect();
    for n in 0..MANY {
        client
            .ask("GET", &format!("/{n}"), &[], b"")
            .answer("GET")
            .is(200);
    }
    scene.await_stat("store.entries", |entries| entries == MANY);
    let config = scene.found_config();
    let mut keys = listed(&scene, &config);
    assert_eq!(keys.len() as u64, MANY);
    keys.dedup();
    assert_eq!(keys.len() as u64, MANY);
    let first = scene.operate("POST", "/store/list", "");
    let told = lines(std::str::from_utf8(&first.is(200).body).unwrap());
    let next = told.last().unwrap()["end"]["next"].as_u64().unwrap();
    assert!(told.len() < 1_200, "{} lines at once", told.len());
    let from = format!("{{\"from\":{next}}}");
    let second = scene.operate("POST", "/store/list", &from);
    let again = lines(std::str::from_utf8(&second.is(200).body).unwrap());
    assert!(again[1]["key"].is_string());
    assert!(!told.contains(&again[1]));
}

#[test]
fn what_is_told_on_a_terminal_is_for_people_and_progress_is_for_terminals() {
    let scene = filled(Scene::new());
    let config = scene.found_config();
    let stat = tool(&scene, &config, &["stat"]);
    stat.exits(0)
        .prints("entries                             6");
    assert!(stat.stdout.starts_with("entries"), "in the usual order");
    tool(&scene, &config, &["list"])
        .exits(0)
        .prints("fresh for");
    let verify = tool(&scene, &config, &["verify"]);
    verify.exits(0).prints("sound: ");
    assert!(verify.stderr.is_empty(), "{}", verify.stderr);
}

#[test]
fn one_response_is_exported_by_its_key_or_its_url() {
    let mut scene = mixed(Scene::new());
    let config = scene.found_config();
    for state in ["running", "stopped"] {
        let one = exported(&scene, &config, &format!("url-{state}"), &[&url("/3")]);
        assert_eq!(one.len(), 2);
        assert!(one.values().any(|bytes| *bytes == noise(3, 3_000)));
        let varied = exported(&scene, &config, &format!("all-{state}"), &[&url("/varied")]);
        assert_eq!(varied.len(), 6);
        let name = varied.keys().next().unwrap();
        let name = name.split('.').next().unwrap();
        let one = exported(&scene, &config, &format!("one-{state}"), &[name]);
        assert_eq!(one.len(), 2);
        assert!(one.keys().all(|file| file.starts_with(name)));
        let key = name.split('-').next().unwrap();
        let list = tool(&scene, &config, &["list", key]);
        assert_eq!(list.exits(0).stdout.lines().count(), 3);
        let absent = tool(&scene, &config, &["list", &url("/absent")]);
        absent.exits(1).prints("nothing is stored");
        let out = scene
            .dir()
            .join(format!("none-{state}"))
            .display()
            .to_string();
        tool(&scene, &config, &["export", &out, &url("/absent")])
            .exits(1)
            .complains("nothing is stored")
            .prints("1 not stored");
        let bad = tool(&scene, &config, &["list", "12"]);
        bad.exits(1).complains("not a key: 12");
        if state == "running" {
            scene.terminate();
            assert!(scene.wait().success());
        }
    }
    let store = scene.store().display().to_string();
    scene
        .larder(&["store", "--dir", &store, "list", &url("/3")])
        .exits(1)
        .complains("a URL needs --config");
}

#[test]
fn verify_finds_what_is_damaged_in_a_running_store_and_it_heals() {
    let scene = filled(no_memory());
    let config = scene.found_config();
    let pack = packs(&scene).remove(0);
    change(&pack, |bytes| bytes[1_000] ^= 1);
    let verify = tool(&scene, &config, &["verify", "--json"]);
    let said = lines(&verify.exits(3).stdout);
    assert!(said.iter().any(|line| line["key"].is_string()), "{said:?}");
    assert!(said.iter().any(|line| line["pack"].is_u64()), "{said:?}");
    let last = said.last().unwrap();
    assert_eq!(last["sound"], false);
    assert_eq!(
        (&last["entries_damaged"], &last["packs_damaged"]),
        (&1.into(), &1.into())
    );
    assert!(scene.stat("store.corrupt") >= 1);
    assert!(!pack.exists(), "what is sound has moved out of it");
    assert_eq!(scene.stat("store.entries"), ENTRIES - 1);
    tool(&scene, &config, &["verify"])
        .exits(0)
        .prints("sound: ");
    assert_eq!(hits(&scene), ENTRIES - 1);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn verify_finds_a_pack_that_is_gone_from_a_running_store() {
    let scene = filled(no_memory());
    let config = scene.found_config();
    fs::remove_file(packs(&scene).remove(0)).unwrap();
    let stat = tool(&scene, &config, &["stat", "--json"]);
    assert_eq!(lines(&stat.exits(0).stdout)[0]["packs_missing"], 1);
    let verify = tool(&scene, &config, &["verify", "--json"]);
    let said = lines(&verify.exits(3).stdout);
    assert_eq!(said.last().unwrap()["packs_missing"], 1);
    tool(&scene, &config, &["verify"]).exits(0);
    hits(&scene);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn verify_finds_damage_in_a_running_journal_and_it_is_replaced() {
    let scene = filled(Scene::new());
    let config = scene.found_config();
    let journal = files(&scene.store().join("journal"));
    let journal = journal
        .iter()
        .find(|path| path.extension().unwrap() == "journal");
    let (journal, copy) = (journal.unwrap(), scene.dir().join("copy"));
    // Changed in its place: the running larder has it open.
    fs::copy(journal, &copy).unwrap();
    change(&copy, |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 0x10;
    });
    let bytes = fs::read(&copy).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(journal).unwrap();
    file.write_all(&bytes).unwrap();
    let verify = tool(&scene, &config, &["verify", "--json"]);
    let said = lines(&verify.exits(3).stdout);
    assert_eq!(said.last().unwrap()["journal_damaged"], 1);
    assert_eq!(scene.stat("store.corrupt"), 1);
    crate::scene::eventually("a new journal", || {
        tool(&scene, &config, &["verify"]).code == Some(0)
    });
    assert_eq!(scene.stat("store.corrupt"), 1);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn a_damaged_response_of_a_running_store_is_named_and_left_out() {
    let scene = filled(no_memory());
    let config = scene.found_config();
    let pack = packs(&scene).remove(0);
    change(&pack, |bytes| bytes[1_000] ^= 1);
    let out = scene.dir().join("out");
    let path = out.display().to_string();
    let export = tool(&scene, &config, &["export", &path]);
    export.exits(3).prints("exported 5, left out 1 damaged");
    assert_eq!(files(&out).len(), 10);
    // It was in the body; in a head `list` meets it too.
    change(&pack, |bytes| {
        let magic = |window: &[u8]| window == b"ldr-head";
        let head = bytes.windows(8).rposition(magic).unwrap();
        bytes[head + 40] ^= 1;
    });
    let list = tool(&scene, &config, &["list"]);
    list.exits(3).prints("fail their check");
    tool(&scene, &config, &["list"]).exits(0);
    assert!(hits(&scene) < ENTRIES);
    assert_eq!(hits(&scene), ENTRIES);
}

#[test]
fn verify_keeps_to_its_rate() {
    let scene = filled(no_memory());
    let config = scene.found_config();
    let start = Instant::now();
    tool(&scene, &config, &["verify", "--rate", "20KB"]).exits(0);
    // Six bodies of 3,000 bytes are read twice, alone and with their pack.
    assert!(start.elapsed() > Duration::from_millis(1_700));
    tool(&scene, &config, &["verify", "--rate", "0"]).exits(2);
}

#[test]
fn a_token_is_needed_and_taken_from_the_config() {
    let setup = Scene::new();
    let token = setup.dir().join("token");
    fs::write(&token, "s3cret").unwrap();
    let named = format!("{:?}", token.display().to_string());
    let scene = setup.set("admin", "token_file", &named).start();
    let config = scene.found_config();
    tool(&scene, &config, &["stat"]).exits(0).prints("entries");
    fs::write(&token, "another").unwrap();
    for action in [&["stat"][..], &["list"], &["verify"], &["export", "out"]] {
        tool(&scene, &config, action)
            .exits(1)
            .complains("wants another token than the config's admin.token_file");
    }
}

#[test]
fn a_larder_that_cannot_be_asked_is_named() {
    let scene = Scene::new().set("admin", "listen", "\"\"").start();
    tool(&scene, &scene.config(), &["stat"])
        .exits(1)
        .complains("a larder is running on")
        .complains("no admin listener");
    let store = scene.store().display().to_string();
    scene
        .larder(&["store", "--dir", &store, "stat"])
        .exits(1)
        .complains("give --config FILE");
}

#[test]
fn nobody_at_the_address_and_no_port_are_different_complaints() {
    let scene = Scene::usual();
    tool(&scene, &scene.config(), &["stat"])
        .exits(1)
        .complains("admin.listen has port 0");
    let nobody = ClosedPort::new();
    let config = scene.config_calling(SocketAddr::from(([127, 0, 0, 1], nobody.number())));
    tool(&scene, &config, &["stat"])
        .exits(1)
        .complains("a larder is running on the store")
        .complains("Connection refused");
}

#[test]
fn a_larder_of_another_store_is_not_taken_for_this_ones() {
    let (scene, other) = (Scene::usual(), filled(Scene::new()));
    let config = scene.config_calling(other.admin());
    for action in [&["stat"][..], &["list"], &["verify"], &["export", "out"]] {
        tool(&scene, &config, action)
            .exits(1)
            .complains("runs on another store");
    }
}

/// A listener that reads one request, answers with these bytes and closes.
fn answering(answer: &str) -> SocketAddr {
    let answer = answer.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 65_536];
        drop(stream.read(&mut request));
        drop(stream.write_all(answer.as_bytes()));
    });
    address
}

#[test]
fn an_answer_that_breaks_off_or_makes_no_sense_is_not_taken_for_a_whole_one() {
    let scene = Scene::usual();
    let told = |answer: &str| {
        let config = scene.config_calling(answering(answer));
        let folder = tempfile::tempdir_in(scene.dir()).unwrap();
        let path = folder.path().display().to_string();
        let export = tool(&scene, &config, &["export", &path]);
        assert_eq!(files(Path::new(&path)).len(), 0, "half a response was kept");
        export
    };
    let begun = "{\"key\":\"ab\",\"variant\":\"cd\",\"body_bytes\":9}\n{\"bytes\":9}\nabc";
    let chunk = format!("{:x}\r\n{begun}\r\n", begun.len());
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    told(&format!("{chunked}{chunk}"))
        .exits(1)
        .complains("broke off")
        .complains("0 responses were exported before");
    // Ended as HTTP wants it, and still not at its end.
    for (line, complaint) in [
        ("{\"all\":3}\n", "broke off"),
        ("hello\n", "not a line of JSON"),
        ("{\"failed\":\"a disk\"}\n", "could not go on: a disk"),
    ] {
        let length = line.len();
        told(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{line}"
        ))
        .exits(1)
        .complains(complaint);
    }
    told("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .exits(1)
        .complains("cannot tell of its store");
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let scene = Scene::usual();
    for body in [
        "x",
        "7",
        "{\"form\":1}",
        "{\"from\":-1}",
        "{\"keys\":[\"x\"]}",
    ] {
        scene.operate("POST", "/store/list", body).is(400);
    }
    let many: Vec<String> = (0..1_001).map(|n| format!("{n:032x}")).collect();
    let many = serde_json::json!({ "keys": many }).to_string();
    scene.operate("POST", "/store/list", &many).is(400);
    scene.operate("GET", "/store/list", "").is(405);
    scene.operate("POST", "/store/lists", "").is(404);
}

/// The most memory that a process has had since this was last asked, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    kib
}

#[test]
fn an_export_takes_little_memory_whoever_reads_it() {
    const BODY: usize = 8_000_000;
    let scene = no_memory().start();
    for n in 0..12 {
        let target = format!("/{n}");
        scene
            .origin
            .says(&target, Reply::ok(noise(n, BODY)).fresh());
        scene.get(&target).stored();
    }
    scene.await_durable(12);
    peak_kib(scene.pid());
    let before = peak_kib(scene.pid());
    let config = scene.found_config();
    let written = exported(&scene, &config, "out", &[]);
    assert_eq!(written.len(), 24);
    // Four who hardly read, and no room for a fifth.
    let mut slow: Vec<_> = (0..4).map(|_| Client::connect(scene.admin())).collect();
    for client in &mut slow {
        client
            .ask("POST", "/store/export", &[], b"")
            .begin("POST")
            .up_to(100);
    }
    scene.operate("POST", "/store/list", "").is(503);
    let grown = peak_kib(scene.pid()).saturating_sub(before);
    assert!(grown < 40_000, "{grown} KiB for 96 MB");
    drop(slow);
    crate::scene::eventually("room for a list", || {
        scene.operate("POST", "/store/list", "").status == 200
    });
}

#[test]
fn a_verification_is_one_at_a_time_and_ends_with_the_larder() {
    let mut scene = filled(no_memory());
    let mut client = Client::connect(scene.admin());
    let slow = b"{\"bytes_per_second\":1}";
    let mut reading = client.ask("POST", "/store/verify", &[], slow).begin("POST");
    reading.up_to(10);
    scene.operate("POST", "/store/verify", "").is(503);
    scene.terminate();
    assert!(scene.wait().success());
}
