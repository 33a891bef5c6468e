//! A new binary takes over from the one that runs: nobody is refused, nothing stored is lost, no purge
//! is undone; and when it cannot, the one that runs goes on.

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use bytes::Bytes;
use h2::client::SendRequest;

use crate::client::Client;
use crate::client::HOST;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;
use crate::scene::free_port;
use crate::scene::heir_told;
use crate::scene::is_alive;
use crate::scene::kill;

/// A setup whose disk can be told to hang, and nothing in memory that would hide it.
fn with_a_disk() -> Setup {
    Scene::new().own_disk()
}

/// Changes the config file of a scene.
fn rewrite(scene: &Scene, change: impl Fn(String) -> String) {
    let config = fs::read_to_string(scene.config()).unwrap();
    fs::write(scene.config(), change(config)).unwrap();
}

#[test]
fn what_was_a_hit_before_is_one_after_and_more_is_stored() {
    let mut scene = Scene::usual();
    let large = noise(1, 3_000_000);
    scene.origin.says("/small", Reply::ok("small").fresh());
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.origin.says("/later", Reply::ok("later").fresh());
    scene.get("/small").stored();
    scene.get("/large").stored();
    for _ in 0..3 {
        scene.take_over();
        scene.get("/small").sees("small").by("hit");
        scene.get("/large").sees(&large).by("hit");
        scene.get("/later").sees("later");
    }
    scene.get("/later").by("hit");
    for target in ["/small", "/large", "/later"] {
        scene.origin.saw(target, 1);
    }
    assert_eq!(scene.stat("takeovers.failed"), 0);
}

#[test]
fn nobody_is_refused_or_cut_while_processes_come_and_go() {
    let mut scene = Scene::new().server("workers", "2").start();
    let body = noise(2, 20_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").stored();
    let (front, done, answers) = (scene.front(), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for keeps_alive in [false, false, true, true] {
            let (done, answers, body) = (&done, &answers, &body);
            scope.spawn(move || {
                let mut client = Client::connect(front);
                while !done.load(Ordering::Relaxed) {
                    let answer = client.get("/a").answer("GET");
                    answer.is(200).sees(body).by("hit");
                    answers.fetch_add(1, Ordering::Relaxed);
                    if !keeps_alive || answer.header("connection") == Some("close") {
                        client = Client::connect(front);
                    }
                }
            });
        }
        for _ in 0..4 {
            let before = answers.load(Ordering::Relaxed);
            scene.take_over();
            eventually("more answers", || {
                answers.load(Ordering::Relaxed) > before + 20
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    scene.origin.saw("/a", 1);
}

/// One GET by HTTP/2. `None`: the server has not taken it up and the connection is to be left, so that
/// it can be sent again (RFC 9113 §6.8).
async fn get_h2(client: &SendRequest<Bytes>, path: &str) -> Option<Vec<u8>> {
    let left = |error: h2::Error| {
        let politely = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        // Of a connection that has ended in order nothing more is said.
        assert!(politely || error.is_io(), "{error:?}");
        politely
    };
    let request = http::Request::get(format!("http://{HOST}{path}"));
    let mut client = client.clone().ready().await.ok()?;
    let (answer, _) = client.send_request(request.body(()).unwrap(), true).ok()?;
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => {
            assert!(
                left(error),
                "a request that was sent is answered or refused"
            );
            return None;
        }
    };
    assert_eq!(answer.status(), 200);
    let (mut stream, mut body) = (answer.into_body(), Vec::new());
    while let Some(piece) = stream.data().await {
        let piece = piece.expect("what was begun ends whole");
        stream.flow_control().release_capacity(piece.len()).unwrap();
        body.extend(piece);
    }
    Some(body)
}

#[test]
fn streams_of_http2_end_whole_or_can_be_sent_again() {
    let mut scene = Scene::new().server("h2c", "true").start();
    let body = noise(5, 50_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.get("/a").stored();
    let (front, done, answers) = (scene.front(), AtomicBool::new(false), AtomicUsize::new(0));
    let ask = async {
        while !done.load(Ordering::Relaxed) {
            let tcp = tokio::net::TcpStream::connect(front).await.unwrap();
            let (client, connection) = h2::client::handshake(tcp).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut goes_on = true;
            while goes_on && !done.load(Ordering::Relaxed) {
                let (one, other, third) = tokio::join!(
                    get_h2(&client, "/a"),
                    get_h2(&client, "/a"),
                    get_h2(&client, "/a")
                );
                for answer in [one, other, third] {
                    goes_on &= answer.is_some();
                    if let Some(answer) = answer {
                        assert!(answer == body, "{} bytes", answer.len());
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            connection.abort();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(ask);
        });
        for _ in 0..3 {
            let before = answers.load(Ordering::Relaxed);
            scene.take_over();
            eventually("more answers", || {
                answers.load(Ordering::Relaxed) > before + 20
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    scene.origin.saw("/a", 1);
}

#[test]
fn a_config_that_was_reloaded_is_handed_on_with_its_listeners() {
    let mut scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = format!("http = [\"127.0.0.1:0\", \"{address}\"]");
    rewrite(&scene, |config| {
        config.replace("http = [\"127.0.0.1:0\"]", &listen)
    });
    scene.signal("HUP");
    eventually("the new listener", || TcpStream::connect(address).is_ok());
    let waiting = TcpStream::connect(address).unwrap();
    scene.take_over();
    drop(waiting);
    Client::connect(address).get("/a").answer("GET").by("hit");
    scene.get("/a").by("hit");
}

#[test]
fn a_new_process_may_have_more_workers_or_fewer() {
    let mut scene = Scene::new().server("workers", "3").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    for workers in ["1", "4", "2"] {
        rewrite(&scene, |config| {
            let lines = config
                .lines()
                .map(|line| match line.starts_with("workers") {
                    true => format!("workers = {workers}\n"),
                    false => format!("{line}\n"),
                });
            lines.collect()
        });
        scene.take_over();
        // The system spreads them over all sockets that there are.
        for _ in 0..40 {
            scene.get("/a").sees("v1").by("hit");
        }
    }
}

#[test]
fn a_download_from_the_store_ends_whole_though_it_was_purged_by_the_next() {
    let mut scene = Scene::new().cache("memory_bytes_max", "\"0B\"").start();
    let body = noise(3, 40_000_000);
    scene.origin.says("/large", Reply::ok(body.clone()).fresh());
    scene.get("/large").stored();
    scene.get("/large").by("hit");
    let mut client = scene.connect();
    let mut reading = client.get("/large").begin("GET");
    reading.up_to(1_000_000);
    scene.signal("USR2");
    scene.await_taken_over();
    scene.purge_all();
    eventually("the packs to be deleted", || scene.stat("store.packs") == 0);
    reading.finish().is(200).sees(&body).by("hit");
    scene.await_elders();
}

#[test]
fn a_download_that_the_origin_is_still_sending_ends_whole() {
    let mut scene = Scene::usual();
    let (gate, body) = (Gate::new(), noise(4, 5_000_000));
    scene.origin.says(
        "/a",
        Reply::ok(body.clone()).fresh().held_after(2_000_000, &gate),
    );
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(1_500_000);
    scene.signal("USR2");
    scene.await_taken_over();
    gate.open();
    reading.finish().is(200).sees(&body);
    scene.await_elders();
    scene.origin.says("/a", Reply::ok("again").fresh());
    scene.get("/a").sees("again");
}

#[test]
fn what_a_draining_process_learns_to_be_invalid_is_invalid_at_the_next() {
    let mut scene = Scene::usual();
    scene.origin.does("/a", |seen| match seen.method.as_str() {
        "POST" => Reply::ok("changed"),
        _ => Reply::ok("v1").fresh(),
    });
    scene.get("/a").stored();
    let mut client = scene.connect();
    client.send(
        format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nab").as_bytes(),
    );
    scene.fence();
    scene.signal("USR2");
    scene.await_taken_over();
    scene.get("/a").by("hit");
    client.send(b"cd");
    client.answer("POST").is(200).sees("changed");
    scene.get("/a").by("uri-miss");
    scene.await_elders();
    scene.get("/a").by("hit");
    scene.origin.saw("/a", 3);
}

#[test]
fn what_is_purged_at_the_next_is_not_served_by_the_one_before() {
    let mut scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let gate = Gate::new();
    scene.origin.says("/slow", Reply::ok("slow").held(&gate));
    // One request keeps the connection, and with it the process before, for another one behind it.
    let mut client = scene.connect();
    client.get("/slow");
    scene.origin.await_requests("/slow", 1);
    client.get("/a");
    scene.signal("USR2");
    scene.await_taken_over();
    scene.origin.says("/a", Reply::ok("v2").fresh());
    assert_eq!(scene.purge(&["/a"])["durable"], true);
    gate.open();
    client.answer("GET").sees("slow");
    // It may not be answered any more; but if it is, then not with what was purged.
    if let Some(reading) = client.try_begin("GET") {
        reading.finish().sees("v2");
    }
    scene.get("/a").sees("v2");
    scene.await_elders();
}

#[test]
fn a_config_that_cannot_be_used_leaves_the_old_process_running_and_storing() {
    let mut scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.origin.says("/b", Reply::ok("v2").fresh());
    scene.get("/a").stored();
    let good = fs::read_to_string(scene.config()).unwrap();
    rewrite(&scene, |config| config + "\nnonsense = 1\n");
    scene.signal("USR2");
    scene.await_stat("takeovers.failed", |failed| failed == 1);
    assert!(scene.stderr().contains("nonsense"), "{}", scene.stderr());
    scene.get("/a").by("hit");
    scene.get("/b").stored();
    rewrite(&scene, |_| good.clone());
    scene.take_over();
    scene.get("/a").by("hit");
    scene.get("/b").by("hit");
}

#[test]
fn a_file_that_is_no_program_leaves_the_old_process_running() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("larder");
    fs::copy(env!("CARGO_BIN_EXE_larder"), &program).unwrap();
    let scene = Scene::new().stopped();
    let mut larder = Spawned::start(
        &scene,
        Command::new(&program)
            .args(["serve", "--config"])
            .arg(scene.config()),
    );
    fs::remove_file(&program).unwrap();
    fs::write(&program, "not a program").unwrap();
    larder.signal("USR2");
    let failed = || larder.figures().contains("\"failed\":1");
    eventually("the take-over to fail", failed);
    larder.get("/a");
    // And with a program in its place again, of another file than the one that runs.
    fs::remove_file(&program).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_larder"), &program).unwrap();
    larder.signal("USR2");
    let heir = larder.await_end_of_first();
    assert!(is_alive(heir));
    larder.get("/a");
    kill(heir);
}

#[test]
fn a_new_process_that_is_killed_on_the_way_gives_the_stores_back() {
    let mut scene = with_a_disk().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.origin.says("/b", Reply::ok("v2").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    // Reading the journal is the first thing that the new one does with the store.
    scene.disk_hangs("o");
    scene.signal("USR2");
    let heir = scene.await_heir();
    await_lent(&scene);
    scene.get("/a").by("hit");
    scene.get("/b").not_stored();
    kill(heir);
    scene.disk_works();
    scene.await_stat("takeovers.failed", |failed| failed == 1);
    scene.get("/a").by("hit");
    scene.get("/b").stored();
    scene.take_over();
    scene.get("/a").by("hit");
    scene.get("/b").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn a_purge_in_the_middle_holds_whoever_serves_after_it() {
    for killed in [false, true] {
        let mut scene = with_a_disk().start();
        scene.origin.says("/a", Reply::ok("v1").fresh());
        scene.get("/a").stored();
        scene.await_durable(1);
        scene.disk_hangs("o");
        scene.signal("USR2");
        let heir = scene.await_heir();
        await_lent(&scene);
        thread::scope(|scope| {
            let purging = scope.spawn(|| scene.purge(&["/a"]));
            eventually("the purge to take hold", || {
                scene.stat("store.entries") == 0
            });
            if killed {
                kill(heir);
            }
            scene.disk_works();
            assert_eq!(purging.join().unwrap()["durable"], true);
        });
        if !killed {
            scene.await_taken_over();
            scene.await_elders();
        }
        scene.get("/a").sees("v1").by("uri-miss");
        scene.origin.saw("/a", 2);
        scene.take_over();
        scene.get("/a").by("hit");
    }
}

#[test]
fn a_new_process_that_takes_too_long_is_ended() {
    let mut scene = with_a_disk().server("takeover_timeout", "\"1s\"").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.disk_hangs("o");
    scene.signal("USR2");
    let heir = scene.await_heir();
    eventually("the new process to be ended", || !is_alive(heir));
    scene.disk_works();
    scene.await_stat("takeovers.failed", |failed| failed == 1);
    assert!(scene.stderr().contains("takes too long"));
    scene.get("/a").by("hit");
    scene.take_over();
    scene.get("/a").by("hit");
}

#[test]
fn when_the_old_process_is_killed_on_the_way_the_new_one_serves() {
    let mut scene = with_a_disk().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.disk_hangs("o");
    scene.signal("USR2");
    scene.await_heir();
    await_lent(&scene);
    scene.signal("KILL");
    // Nobody accepts, and nobody is refused.
    let waiting = TcpStream::connect(scene.front()).unwrap();
    scene.disk_works();
    scene.await_taken_over();
    let mut client = Client::over(waiting);
    client.get("/a").answer("GET").sees("v1").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn told_to_end_in_the_middle_it_ends_the_new_process_too_and_loses_nothing() {
    let mut scene = with_a_disk().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.disk_hangs("o");
    scene.signal("USR2");
    let heir = scene.await_heir();
    await_lent(&scene);
    scene.terminate();
    eventually("the new process to be ended", || !is_alive(heir));
    scene.disk_works();
    assert!(scene.wait().success());
    scene.start();
    scene.get("/a").by("hit");
}

#[test]
fn a_second_signal_while_one_is_heeded_does_nothing() {
    let mut scene = with_a_disk().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.await_durable(1);
    scene.disk_hangs("o");
    scene.signal("USR2");
    let heir = scene.await_heir();
    await_lent(&scene);
    scene.signal("USR2");
    eventually("the warning", || {
        scene.stderr().contains("a take-over is under way already")
    });
    scene.disk_works();
    scene.await_taken_over();
    assert_eq!(scene.pid(), heir);
    scene.await_elders();
    scene.get("/a").by("hit");
}

#[test]
fn a_process_that_has_handed_over_is_cut_by_the_second_signal_and_not_the_first() {
    let mut scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    let old = scene.pid();
    scene.signal("USR2");
    scene.await_taken_over();
    // A service manager tells all processes of a service to end.
    let tell = |pid: u32| {
        let told = Command::new("kill").arg(pid.to_string()).status();
        assert!(told.unwrap().success());
    };
    tell(old);
    scene.terminate();
    let heir = scene.pid();
    eventually("the new one to end", || !is_alive(heir));
    assert!(is_alive(old));
    gate.open();
    reading.finish().sees("firstsecond");
    eventually("the old one to end", || !is_alive(old));
}

#[test]
fn several_directories_all_change_hands() {
    let setup = Scene::new()
        .without("cache", "dir")
        .without("cache", "disk_bytes_max");
    let dir = |n: usize| {
        let path = setup.dir().join(format!("disk{n}"));
        format!("{{ path = {path:?}, disk_bytes_max = \"64MiB\" }}")
    };
    let dirs = format!("[{}, {}, {}]", dir(0), dir(1), dir(2));
    let mut scene = setup.cache("dirs", &dirs).start();
    scene
        .origin
        .does("*", |seen| Reply::ok(seen.target.clone()).fresh());
    let targets: Vec<String> = (0..30).map(|n| format!("/{n}")).collect();
    for target in &targets {
        scene.get(target).stored();
    }
    scene.take_over();
    for target in &targets {
        scene.get(target).sees(target).by("hit");
    }
    scene.purge(&["/0", "/1"]);
    scene.take_over();
    scene.get("/0").by("uri-miss");
    scene.get("/1").by("uri-miss");
    scene.get("/2").by("hit");
    assert_eq!(scene.origin.requests(), 32);
}

#[test]
fn listeners_are_taken_from_a_service_manager() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scene = Scene::new()
        .server("http", &format!("[\"{address}\"]"))
        .server("workers", "3")
        .stopped();
    // Somebody has come before the process was started.
    let waiting = TcpStream::connect(address).unwrap();
    let mut larder = Spawned::activated(&scene, listener);
    scene.origin.says("/a", Reply::ok("v1").fresh());
    Client::over(waiting).get("/a").answer("GET").sees("v1");
    for _ in 0..30 {
        Client::connect(address).get("/a").answer("GET").by("hit");
    }
    larder.signal("USR2");
    let heir = larder.await_end_of_first();
    Client::connect(address).get("/a").answer("GET").by("hit");
    kill(heir);
}

#[test]
fn an_inherited_listener_that_the_config_does_not_name_is_told_and_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scene = Scene::new().stopped();
    let mut larder = Spawned::activated(&scene, listener);
    assert!(TcpStream::connect(address).is_err());
    larder.child.kill().unwrap();
    larder.child.wait().unwrap();
    let said = larder.log();
    assert!(said.contains("is not in the config"), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_service_manager_is_told_who_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let scene = Scene::new().stopped();
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    let command = command.args(["serve", "--config"]).arg(scene.config());
    let mut larder = Spawned::start(&scene, command.env("NOTIFY_SOCKET", &path));
    let hears = || {
        let mut bytes = [0; 200];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let first = larder.child.id();
    assert_eq!(hears(), format!("MAINPID={first}\nREADY=1\n"));
    larder.signal("USR2");
    let heir = larder.await_end_of_first();
    assert_eq!(hears(), format!("MAINPID={heir}\nREADY=1\n"));
    let told = Command::new("kill").arg(heir.to_string()).status();
    assert!(told.unwrap().success());
    assert_eq!(hears(), "STOPPING=1\n");
}

/// Waits until the old process has let its store go: the new one cannot open it, for its disk hangs.
#[track_caller]
fn await_lent(scene: &Scene) {
    let lent = || {
        let lock = File::open(scene.store().join("lock")).unwrap();
        lock.try_lock_shared().is_ok()
    };
    eventually("the store to be let go", lent);
}

/// The binary, started in a way of its own.
struct Spawned {
    child: Child,
    front: Option<String>,
    admin: Option<String>,
    log: PathBuf,
}

impl Spawned {
    fn start(scene: &Scene, command: &mut Command) -> Self {
        let log = scene.dir().join("log");
        command.stdout(Stdio::piped());
        command.stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut front, mut admin) = (None, None);
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on http://") {
                front = Some(address.to_owned());
            } else if let Some(address) = line.strip_prefix("admin on http://") {
                admin = Some(address.to_owned());
            } else if line == "ready" {
                break;
            }
        }
        // Read on, so that nobody waits for a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            front,
            admin,
            log,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// With a listener as a service manager passes it: descriptor 3.
    fn activated(scene: &Scene, listener: TcpListener) -> Self {
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                script,
                env!("CARGO_BIN_EXE_larder"),
                "serve",
                "--config",
            ])
            .arg(scene.config())
            .stdin(Stdio::from(OwnedFd::from(listener)));
        Self::start(scene, &mut command)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn get(&self, target: &str) {
        let front = self.front.as_ref().unwrap().parse().unwrap();
        Client::connect(front).get(target).answer("GET");
    }

    fn figures(&self) -> String {
        let admin = self.admin.as_ref().unwrap().parse().unwrap();
        let answer = Client::connect(admin).get("/stats").answer("GET");
        String::from_utf8(answer.body).unwrap()
    }

    /// Waits until the process that was started here has ended; returns the one that took over.
    fn await_end_of_first(&mut self) -> u32 {
        eventually("the first process to end", || {
            self.child.try_wait().unwrap().is_some()
        });
        heir_told(&self.log()).unwrap()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
