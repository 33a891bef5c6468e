//! Another config for the running binary: taken up whole or not at all, and no connection ends for it.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::HOST;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::frames::Peer;
use crate::origin::Gate;
use crate::origin::Origin;
use crate::origin::Reply;
use crate::origin::noise;
use crate::pebble::Pebble;
use crate::scene::Scene;
use crate::scene::eventually;
use crate::scene::free_port;
use crate::scene::json;

/// Writes something else into the config.
#[track_caller]
fn edit(scene: &Scene, from: &str, to: &str) {
    let config = fs::read_to_string(scene.config()).unwrap();
    assert!(config.contains(from), "no {from:?} in\n{config}");
    fs::write(scene.config(), config.replace(from, to)).unwrap();
}

/// Adds to the end of the config.
fn add(scene: &Scene, more: &str) {
    let config = fs::read_to_string(scene.config()).unwrap();
    fs::write(scene.config(), config + more).unwrap();
}

/// Has the config read again, and returns what has changed.
#[track_caller]
fn reload(scene: &Scene) -> Value {
    let answer = scene.operate("POST", "/reload", "");
    json(answer.is(200))["reloaded"].clone()
}

/// Has the config read again, and returns why it was not taken up.
#[track_caller]
fn refused(scene: &Scene) -> Vec<String> {
    let answer = scene.operate("POST", "/reload", "");
    let answer = json(answer.is(422));
    let problems = answer["problems"].as_array().expect("problems");
    problems
        .iter()
        .map(|problem| problem.as_str().unwrap().to_owned())
        .collect()
}

/// The address of the newest listener that the log tells of.
#[track_caller]
fn newest_listener(scene: &Scene, scheme: &str) -> SocketAddr {
    let said = scene.stderr();
    let start = format!("listening on {scheme}://");
    let line = said.lines().rfind(|line| line.contains(&start)).unwrap();
    let (_, address) = line.split_once(&start).unwrap();
    address.parse().unwrap()
}

#[test]
fn what_a_site_is_served_by_changes_and_what_is_stored_stays() {
    let scene = Scene::new().site("heuristic_max", "\"10s\"").start();
    let guessed = || Reply::ok("v1").header("Last-Modified", "Mon, 01 Jan 2001 00:00:00 GMT");
    scene.origin.says("/a", guessed()).says("/b", guessed());
    scene.get("/a").is(200).stored();
    assert!(scene.get("/a").by("hit").ttl() <= 10);
    edit(&scene, "heuristic_max = \"10s\"", "heuristic_max = \"1h\"");
    let changed = reload(&scene);
    assert_eq!(changed["sites"]["changed"], json!(["*"]));
    assert_eq!(changed["keys"], json!(["site.*.heuristic_max"]));
    // Its lifetime was computed when it was stored.
    assert!(scene.get("/a").by("hit").ttl() <= 10);
    scene.get("/b").is(200).stored();
    assert!(scene.get("/b").by("hit").ttl() > 3000);
    scene.origin.saw("/a", 1);
    assert_eq!(scene.stat("reloads.done"), 1);
}

#[test]
fn sites_and_upstreams_come_and_go() {
    let scene = Scene::usual();
    let other = Origin::new();
    scene.origin.says("/a", Reply::ok("main").fresh());
    other.says("/a", Reply::ok("other").fresh());
    let ask = |host: &str| scene.get_with("/a", &[("Host", host)]);
    ask("other.test").sees("main");
    let more = format!(
        "[upstream.other]\nbackends = [{:?}]\n[[site]]\nhosts = [\"other.test\"]\nupstream = \"other\"\n",
        other.url()
    );
    add(&scene, &more);
    let changed = reload(&scene);
    assert_eq!(changed["sites"]["added"], json!(["other.test"]));
    assert_eq!(changed["upstreams"]["added"], json!(["other"]));
    // The host has moved: what the other site stored for it is not its.
    ask("other.test").sees("other").by("uri-miss").stored();
    ask("other.test").sees("other").by("hit");
    edit(&scene, &more, "");
    let changed = reload(&scene);
    assert_eq!(changed["sites"]["removed"], json!(["other.test"]));
    assert_eq!(changed["upstreams"]["removed"], json!(["other"]));
    ask("other.test").sees("main").by("hit");
    other.saw("/a", 1);
}

#[test]
fn a_changed_upstream_is_asked_at_once_and_waits_for_nobody() {
    let scene = Scene::usual();
    let (other, gate) = (Origin::new(), Gate::new());
    scene
        .origin
        .says("/a", Reply::ok("old").fresh().held(&gate));
    other.says("/a", Reply::ok("new").fresh());
    let mut waiting = scene.connect();
    waiting.get("/a");
    scene.origin.await_requests("/a", 1);
    edit(&scene, &scene.origin.url(), &other.url());
    let changed = reload(&scene);
    assert_eq!(changed["keys"], json!(["upstream.main.backends"]));
    // The old origin still has the first request: whoever comes now does not share its wait.
    scene.get("/a").sees("new").by("uri-miss");
    gate.open();
    waiting.answer("GET").sees("old");
    other.saw("/a", 1);
    scene.origin.saw("/a", 1);
}

#[test]
fn connections_and_a_fill_under_way_live_on() {
    let scene = Scene::new().server("h2c", "true").start();
    let (gate, body) = (Gate::new(), noise(5, 300_000));
    let slow = Reply::ok(body.clone()).fresh();
    scene
        .origin
        .says("/slow", slow.held_after(100_000, &gate))
        .says("/a", Reply::ok("v1").fresh());
    let (mut http1, mut http2) = (scene.connect(), Peer::connect(scene.front()));
    http1.get("/a").answer("GET").is(200);
    assert_eq!(http2.get(1, "/a"), Ok((200, b"v1".to_vec())));
    let mut filling = scene.connect();
    let mut reading = filling.get("/slow").begin("GET");
    reading.up_to(100_000);
    edit(&scene, "h2c = true", "h2c = true\nidle_timeout = \"50s\"");
    add(&scene, "[[site]]\nhosts = [\"more.test\"]\n");
    reload(&scene);
    http1.get("/a").answer("GET").sees("v1").by("hit");
    assert_eq!(http2.get(3, "/a"), Ok((200, b"v1".to_vec())));
    // One who comes after the change shares the fill from before it.
    let mut later = scene.connect();
    let mut also = later.get("/slow").begin("GET");
    also.up_to(100_000);
    gate.open();
    reading.finish().is(200).sees(&body);
    also.finish().is(200).sees(&body);
    scene.get("/slow").sees(&body).by("hit");
    scene.origin.saw("/slow", 1);
}

#[test]
fn connections_to_an_upstream_that_is_as_before_live_on_and_others_are_closed() {
    let scene = Scene::usual();
    scene.origin.does("*", |_| Reply::ok("v1"));
    scene.get("/1").is(200);
    add(&scene, "[[site]]\nhosts = [\"more.test\"]\n");
    reload(&scene);
    scene.get("/2").is(200);
    assert_eq!(scene.origin.last("/2").connection, 1);
    edit(
        &scene,
        "[upstream.main]",
        "[upstream.main]\nfirst_byte_timeout = \"9s\"",
    );
    reload(&scene);
    scene.get("/3").is(200);
    assert_eq!(scene.origin.last("/3").connection, 2);
}

#[test]
fn a_bad_config_changes_nothing_and_is_told_with_every_problem() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let good = fs::read_to_string(scene.config()).unwrap();
    edit(
        &scene,
        "workers = 1",
        "workers = 1\nidle_timeout = \"never\"",
    );
    edit(&scene, "upstream = \"main\"", "upstream = \"mian\"");
    let config = scene.config();
    let told = refused(&scene);
    let checked = scene.larder(&["check", "--config", &config]);
    let lines: Vec<_> = checked.exits(2).stderr.lines().map(str::to_owned).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told, lines);
    assert!(told[0].starts_with(&format!("{config}:")), "{told:?}");
    scene.get("/a").by("hit");
    scene.get("/b").is(404);
    scene.signal("HUP");
    scene.await_stat("reloads.refused", |refused| refused == 2);
    for problem in told {
        assert!(scene.stderr().contains(&format!("not reloaded: {problem}")));
    }
    fs::write(scene.config(), good).unwrap();
    scene.signal("HUP");
    scene.await_stat("reloads.done", |done| done == 1);
    assert!(scene.stderr().contains("reloaded; nothing has changed"));
}

#[test]
fn the_command_says_what_has_changed_or_everything_that_is_wrong() {
    let scene = Scene::usual();
    let found = scene.found_config();
    let run = || scene.larder(&["reload", "--config", &found]);
    run().exits(0).prints("nothing has changed");
    add(&scene, "[[site]]\nhosts = [\"more.test\"]\n");
    edit(
        &scene,
        "access = \"off\"",
        "access = \"off\"\nlevel = \"warn\"",
    );
    run()
        .exits(0)
        .prints("sites: +more.test\nkeys: log.level\n");
    edit(&scene, "workers = 1", "workers = \"x\"\nh2c = 1");
    let failed = run();
    failed
        .exits(1)
        .complains("server.workers: ")
        .complains("server.h2c: ");
    assert_eq!(failed.stderr.lines().count(), 2, "{}", failed.stderr);
}

#[test]
fn what_needs_another_process_is_refused_by_name_and_nothing_else_is_taken_up() {
    let scene = Scene::new().site("hsts", "\"1d\"").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    edit(&scene, "workers = 1", "workers = 2\nruntime = \"shared\"");
    edit(
        &scene,
        "disk_bytes_max = \"1GiB\"",
        "disk_bytes_max = \"2GiB\"",
    );
    edit(&scene, "dir = ", "fill_bytes_max = \"64MiB\"\ndir = ");
    edit(&scene, "/store\"", "/elsewhere\"");
    add(
        &scene,
        "[[site]]\nhosts = [\"scene.test\"]\npurge_from = [\"127.0.0.1/32\"]\n",
    );
    let told = refused(&scene);
    for key in [
        "server.workers",
        "server.runtime",
        "cache.dir",
        "cache.disk_bytes_max",
        "cache.fill_bytes_max",
    ] {
        let named = |line: &String| line.contains(&format!(": {key}: cannot change while running"));
        assert_eq!(
            told.iter().filter(|line| named(line)).count(),
            1,
            "{key}: {told:?}"
        );
    }
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(!scene.dir().join("elsewhere").exists());
    scene.ask("PURGE", "/a", &[], b"").is_one_of(&[403, 405]);
}

#[test]
fn listeners_come_and_go_and_the_others_are_untouched() {
    let scene = Scene::new().server("workers", "2").start();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").fresh()).says(
        "/slow",
        Reply::ok("firstsecond").fresh().held_after(5, &gate),
    );
    let mut stays = scene.connect();
    stays.get("/a").answer("GET").is(200);
    edit(
        &scene,
        "[\"127.0.0.1:0\"]",
        "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
    );
    let changed = reload(&scene);
    assert_eq!(changed["keys"], json!(["server.http"]));
    let added = newest_listener(&scene, "http");
    assert_ne!(added, scene.front());
    let (mut idle, mut busy) = (Client::connect(added), Client::connect(added));
    idle.get("/a").answer("GET").sees("v1").by("hit");
    let mut reading = busy.get("/slow").begin("GET");
    reading.up_to(5);
    edit(
        &scene,
        "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
        "[\"127.0.0.1:0\"]",
    );
    reload(&scene);
    eventually("the listener to close", || {
        TcpStream::connect(added).is_err()
    });
    assert!(idle.is_closed());
    gate.open();
    reading.finish().is(200).sees("firstsecond");
    assert!(busy.is_closed());
    stays.get("/a").answer("GET").sees("v1").by("hit");
}

#[test]
fn an_address_that_cannot_be_bound_is_a_reason_to_change_nothing() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let gone = "192.0.2.1:1";
    let both = format!("[\"127.0.0.1:0\", \"127.0.0.1:0\", \"{taken}\", \"{gone}\"]");
    // Held, so that nobody else gets the port meanwhile.
    let held = std::net::TcpListener::bind(&taken);
    edit(&scene, "[\"127.0.0.1:0\"]", &both);
    edit(&scene, "hosts = [\"*\"]", "hosts = [\"nobody.test\"]");
    let told = refused(&scene);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains(&format!("could not listen on {taken}: ")),
        "{told:?}"
    );
    assert!(
        told[1].contains(&format!("could not listen on {gone}: ")),
        "{told:?}"
    );
    scene.get("/a").is(200);
    drop(held);
}

#[test]
fn an_access_log_that_was_moved_away_is_begun_anew() {
    let setup = Scene::new();
    let (log, moved) = (setup.dir().join("access.log"), setup.dir().join("access.1"));
    let scene = setup.set("log", "access", &format!("{log:?}")).start();
    let has = |path: &std::path::Path, line: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(line))
    };
    scene.get("/before").is(404);
    eventually("the first line", || has(&log, "GET /before"));
    fs::rename(&log, &moved).unwrap();
    scene.get("/between").is(404);
    reload(&scene);
    scene.get("/after").is(404);
    eventually("the line after", || has(&log, "GET /after"));
    eventually("the line between", || has(&moved, "GET /between"));
    assert!(!has(&log, "GET /between") && !has(&moved, "GET /after"));
    // One that cannot be opened changes nothing.
    edit(&scene, "access.log", "no/access.log");
    let told = refused(&scene);
    assert!(
        told[0].starts_with("could not open the access log: "),
        "{told:?}"
    );
    scene.get("/last").is(404);
    eventually("the last line", || has(&log, "GET /last"));
}

#[test]
fn a_key_policy_that_changes_never_finds_what_another_stored() {
    let scene = Scene::new().site("key_query", "\"drop\"").start();
    scene.origin.does("*", |seen| {
        let said = format!("{} {}", seen.target, seen.header("Cookie").unwrap_or("-"));
        Reply::ok(said).fresh()
    });
    let ask = |target| scene.get_with(target, &[("Cookie", "who=me")]);
    ask("/a?x=1").sees("/a who=me").stored();
    ask("/a?x=2").sees("/a who=me").by("hit");
    edit(&scene, "key_query = \"drop\"", "key_query = \"keep\"");
    reload(&scene);
    ask("/a?x=1").sees("/a?x=1 who=me").by("uri-miss");
    // The origin was asked for this, whatever the policy.
    ask("/a").sees("/a who=me").by("hit");
    edit(&scene, "key_query = \"keep\"", "key_cookies = [\"who\"]");
    reload(&scene);
    ask("/a").sees("/a who=me").by("uri-miss");
    scene
        .get_with("/a", &[("Cookie", "who=you")])
        .sees("/a who=you");
    edit(&scene, "key_cookies = [\"who\"]", "key_scheme = true");
    reload(&scene);
    ask("/a").sees("/a who=me").by("uri-miss");
}

#[test]
fn what_a_path_said_of_its_queries_counts_only_where_the_site_lets_it() {
    let scene = Scene::usual();
    scene.origin.does("*", |seen| {
        Reply::ok(seen.target.clone())
            .fresh()
            .header("No-Vary-Search", "params=(\"x\")")
    });
    scene.get("/a?x=1").sees("/a?x=1").stored();
    scene.get("/a?x=2").sees("/a?x=1").by("hit");
    edit(
        &scene,
        "hosts = [\"*\"]",
        "hosts = [\"*\"]\nno_vary_search = false",
    );
    reload(&scene);
    scene.get("/a?x=2").sees("/a?x=2").by("uri-miss");
    edit(&scene, "no_vary_search = false", "key_query_drop = [\"y\"]");
    reload(&scene);
    scene.get("/a?x=3&y=1").sees("/a?x=1").by("hit");
    scene.get("/a?y=1&z=1").sees("/a?z=1").by("uri-miss");
}

#[test]
fn what_could_not_be_stored_is_stored_as_soon_as_the_site_lets_it() {
    let scene = Scene::new().cache("hit_for_miss", "\"1h\"").start();
    let reply = Reply::ok("v1").fresh().header("Set-Cookie", "a=b");
    scene.origin.says("/a", reply);
    scene.get("/a").not_stored();
    scene.get("/a").detail("hit-for-miss");
    edit(
        &scene,
        "hosts = [\"*\"]",
        "hosts = [\"*\"]\nstore_set_cookie = true",
    );
    reload(&scene);
    scene.get("/a").stored();
    scene.get("/a").by("hit");
}

#[test]
fn the_memory_tier_grows_and_shrinks() {
    let scene = Scene::usual();
    for number in 0..40 {
        let target = format!("/{number}");
        scene
            .origin
            .says(&target, Reply::ok(noise(number, 50_000)).fresh());
        scene.get(&target).stored();
    }
    scene.await_stat("memory.bytes", |bytes| bytes > 2_000_000);
    edit(&scene, "\"64MiB\"", "\"1MiB\"");
    let changed = reload(&scene);
    assert_eq!(changed["keys"], json!(["cache.memory_bytes_max"]));
    let bytes = scene.stat("memory.bytes");
    assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
    edit(&scene, "\"1MiB\"", "\"64MiB\"");
    reload(&scene);
    for number in 0..40 {
        let target = format!("/{number}");
        scene.get(&target).sees(noise(number, 50_000)).by("hit");
    }
    scene.await_stat("memory.bytes", |bytes| bytes > 2_000_000);
}

#[test]
fn operators_are_answered_by_another_token_and_at_another_address() {
    let setup = Scene::new();
    fs::write(setup.dir().join("token"), "first").unwrap();
    let scene = setup.set("admin", "token_file", "\"token\"").start();
    let ask = |address, token: &str| {
        let bearer = format!("Bearer {token}");
        Client::connect(address)
            .ask("POST", "/reload", &[("Authorization", &bearer)], b"")
            .answer("POST")
    };
    let first = scene.admin();
    fs::write(scene.dir().join("token"), "second").unwrap();
    ask(first, "second").is(401);
    ask(first, "first").is(200);
    ask(first, "first").is(401);
    // The answer to the request that moves the listener still comes by the old one.
    edit(
        &scene,
        "listen = \"127.0.0.1:0\"",
        "listen = \"127.0.0.2:0\"",
    );
    ask(first, "second").is(200);
    let said = scene.stderr();
    let line = said
        .lines()
        .rfind(|line| line.contains(" admin on http://"))
        .unwrap();
    let (_, second) = line.split_once("admin on http://").unwrap();
    ask(second.parse().unwrap(), "second").is(200);
    eventually("the old listener to close", || {
        TcpStream::connect(first).is_err()
    });
}

#[test]
fn fewer_connections_are_let_in_and_none_is_cut() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut clients = [scene.connect(), scene.connect(), scene.connect()];
    clients.iter_mut().for_each(|client| {
        client.get("/a").answer("GET").is(200);
    });
    edit(&scene, "workers = 1", "workers = 1\nconnections_max = 2");
    reload(&scene);
    clients.iter_mut().for_each(|client| {
        client.get("/a").answer("GET").by("hit");
    });
    let mut waiting = scene.connect();
    waiting.get("/a");
    let [first, second, _third] = clients;
    drop(first);
    scene.await_stat("connections.open", |open| open == 2);
    drop(second);
    waiting.answer("GET").by("hit");
}

#[test]
fn tls_begins_changes_and_ends_while_connections_live_on() {
    let setup = Scene::new().more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    let authority = Authority::new("Scene");
    let first = authority.server(&[HOST]);
    first.write(setup.dir(), "c");
    let scene = setup.start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    edit(&scene, "http = [", "https = [\"127.0.0.1:0\"]\nhttp = [");
    reload(&scene);
    let front = newest_listener(&scene, "https");
    let line = Dial::new().connect(front, HOST).unwrap();
    assert_eq!(line.certificate(), &first.der);
    let mut client = line.client();
    client.get("/a").answer("GET").sees("v1");
    let second = authority.server(&[HOST]);
    second.write(scene.dir(), "c");
    add(
        &scene,
        "[tls]\nalpn = [\"http/1.1\"]\nunknown_name = \"refuse\"\n",
    );
    let changed = reload(&scene);
    assert_eq!(changed["certificates"]["changed"], json!(["c.pem"]));
    assert_eq!(changed["keys"], json!(["tls.alpn", "tls.unknown_name"]));
    let line = Dial::new().connect(front, HOST).unwrap();
    assert_eq!(line.certificate(), &second.der);
    assert!(Dial::offering(&["h2"]).connect(front, HOST).is_err());
    assert!(Dial::new().connect(front, "other.test").is_err());
    client.get("/a").answer("GET").by("hit");
    // A certificate that is no good keeps all as it is.
    fs::write(scene.dir().join("c.key"), "nothing").unwrap();
    let told = refused(&scene);
    assert!(told[0].contains("tls.certificate[0]"), "{told:?}");
    second.write(scene.dir(), "c");
    edit(&scene, "https = [\"127.0.0.1:0\"]\n", "");
    reload(&scene);
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    assert!(client.is_closed());
}

#[test]
fn the_same_address_is_served_over_tls_from_one_connection_to_the_next() {
    let setup = Scene::new().more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    let authority = Authority::new("Scene");
    authority.server(&[HOST]).write(setup.dir(), "c");
    let front = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = setup.server("http", &format!("[\"{front}\"]"));
    let scene = setup.start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut clear = scene.connect();
    clear.get("/a").answer("GET").sees("v1");
    edit(&scene, "http = ", "http = []\nhttps = ");
    reload(&scene);
    assert!(clear.is_closed());
    eventually("the old socket to close", || {
        Dial::new().connect(front, HOST).is_ok()
    });
    let mut client = Dial::new().connect(front, HOST).unwrap().client();
    client.get("/a").answer("GET").sees("v1").by("hit");
}

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let scene = Scene::new().server("workers", "2").start();
    for number in 0..20 {
        let reply = Reply::ok(noise(number, 2000)).fresh();
        scene.origin.says(&format!("/{number}"), reply);
        scene.get(&format!("/{number}")).stored();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for start in 0..4_u64 {
            let (scene, over) = (&scene, &over);
            scope.spawn(move || {
                let mut client = scene.connect();
                let mut number = start;
                while !over.load(Ordering::Relaxed) {
                    number = (number + 7) % 20;
                    let answer = client.get(&format!("/{number}")).answer("GET");
                    answer.is(200).sees(noise(number, 2000)).by("hit");
                    if number == 0 {
                        client = scene.connect();
                    }
                }
            });
        }
        for number in 0..20 {
            let hsts = match number % 2 {
                0 => ("hosts = [\"*\"]\n", "hosts = [\"*\"]\nhsts = \"1d\"\n"),
                _ => ("hosts = [\"*\"]\nhsts = \"1d\"\n", "hosts = [\"*\"]\n"),
            };
            edit(&scene, hsts.0, hsts.1);
            assert_eq!(reload(&scene)["sites"]["changed"], json!(["*"]));
        }
        over.store(true, Ordering::Relaxed);
    });
    for number in 0..20 {
        scene.origin.saw(&format!("/{number}"), 1);
    }
    assert_eq!(scene.stat("reloads.done"), 20);
}

/// The certificate that a client who asks for this name is shown.
#[track_caller]
fn shown(scene: &Scene, name: &str) -> CertificateDer<'static> {
    let line = Dial::new().connect(scene.tls_front(), name);
    line.expect("a handshake").certificate().clone()
}

#[test]
fn certificates_are_obtained_from_one_reload_to_another() {
    let mut pebble = Pebble::new();
    pebble.start();
    let files = |name: &str| format!("cert = \"{name}.pem\"\nkey = \"{name}.key\"\n");
    let setup = pebble
        .scene(Scene::new())
        .set("tls.acme", "enabled", "false");
    let setup = setup.site("hosts", &format!("[{HOST:?}]"));
    let setup = setup.more(&format!("[[tls.certificate]]\n{}", files("own")));
    let authority = Authority::new("Scene");
    let (own, other) = (authority.server(&[HOST]), authority.server(&["other.test"]));
    own.write(setup.dir(), "own");
    other.write(setup.dir(), "other");
    let scene = setup.start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let line = Dial::new().connect(scene.tls_front(), HOST).unwrap();
    assert_eq!(line.certificate(), &own.der);
    let mut client = line.client();
    client.get("/a").answer("GET").sees("v1");
    // The same reload takes the file for the host away and has a certificate obtained for it.
    edit(&scene, &files("own"), &files("other"));
    edit(&scene, "enabled = false", "enabled = true");
    let changed = reload(&scene);
    assert_eq!(changed["keys"], json!(["tls.acme.enabled"]));
    assert_eq!(changed["certificates"]["removed"], json!(["own.pem"]));
    scene.await_stat("acme.issued", |issued| issued == 1);
    let first = shown(&scene, HOST);
    assert!(first != own.der && first != other.der);
    // A name more is a certificate more; the others stay.
    assert_eq!(shown(&scene, "more.test"), other.der);
    let (one, two) = (format!("[{HOST:?}]"), format!("[{HOST:?}, \"more.test\"]"));
    edit(&scene, &one, &two);
    reload(&scene);
    scene.await_stat("acme.issued", |issued| issued == 2);
    assert_ne!(shown(&scene, "more.test"), other.der);
    assert_eq!(shown(&scene, HOST), first);
    // What cannot be read is a reason to change nothing.
    let good = fs::read_to_string(scene.config()).unwrap();
    fs::write(scene.dir().join("roots.pem"), "nothing").unwrap();
    let ca_file = good.lines().find(|line| line.starts_with("ca_file"));
    edit(&scene, ca_file.unwrap(), "ca_file = \"roots.pem\"");
    edit(&scene, &two, "[\"nobody.test\"]");
    let told = refused(&scene);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("roots.pem"), "{told:?}");
    assert_eq!(shown(&scene, HOST), first);
    client.get("/a").answer("GET").by("hit");
    // Without the authority only the file is left, from the next handshake on.
    fs::write(scene.config(), good).unwrap();
    edit(&scene, "enabled = true", "enabled = false");
    reload(&scene);
    assert_eq!(shown(&scene, HOST), other.der);
    assert_eq!(shown(&scene, "more.test"), other.der);
    // What was kept is shown again at once, and not ordered again.
    edit(&scene, "enabled = false", "enabled = true");
    reload(&scene);
    assert_eq!(shown(&scene, HOST), first);
    client.get("/a").answer("GET").by("hit");
    assert_eq!(pebble.issued(), 2);
    assert_eq!(scene.stat("acme.failed"), 0);
}

#[test]
fn reloads_that_are_asked_for_at_once_are_done_one_after_the_other() {
    let scene = Scene::usual();
    add(&scene, "[[site]]\nhosts = [\"more.test\"]\n");
    let all: Vec<Value> = thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| reload(&scene))).collect();
        let all = asking.into_iter();
        all.map(|asking| asking.join().expect("an answer"))
            .collect()
    });
    // The first has changed everything, and the others find nothing to change.
    let added = |changed: &&Value| changed["sites"]["added"] == json!(["more.test"]);
    assert_eq!(all.iter().filter(added).count(), 1, "{all:?}");
    let none = |changed: &&Value| changed["sites"]["added"] == json!([]);
    assert_eq!(all.iter().filter(none).count(), 3, "{all:?}");
    assert_eq!(scene.stat("reloads.done"), 4);
}

#[test]
fn a_backend_that_is_out_stays_out_unless_its_upstream_has_changed() {
    let (broken, sound) = (Origin::new(), Origin::new());
    broken.does("*", |_| Reply::nothing());
    sound.does("*", |_| Reply::ok("v1"));
    let backends = format!("[{:?}, {:?}]", broken.url(), sound.url());
    let setup = Scene::new().upstream("backends", &backends).own_clock();
    let mut scene = setup.start();
    let ask = |scene: &Scene, part: &str| {
        for number in 0..8 {
            scene.get(&format!("/{part}/{number}")).is(200).sees("v1");
        }
    };
    ask(&scene, "first");
    assert_eq!(broken.requests(), 3);
    // It is out for a second, and that second does not pass.
    scene.clock_moves(-3600);
    add(&scene, "[[site]]\nhosts = [\"more.test\"]\n");
    reload(&scene);
    ask(&scene, "same");
    assert_eq!(broken.requests(), 3);
    let other = "[upstream.main]\nfirst_byte_timeout = \"9s\"";
    edit(&scene, "[upstream.main]", other);
    reload(&scene);
    ask(&scene, "other");
    assert_eq!(broken.requests(), 6);
}
