//! The one builder of scenes: a config, a store in a folder of its own, an origin, and the binary.
//!
//! ```text
//! Scene::new().site("stale_if_error", "\"60s\"").start()
//!     scene.origin.says("/a", Reply::ok("v1").fresh());
//!     scene.get("/a").sees("v1").by("uri-miss").stored();
//! ```
//!
//! Every listener takes a free port; what `serve` prints when it is ready tells which.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::io::Errno;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Answer;
use crate::client::Client;
use crate::client::HOST;
use crate::origin::DEADLINE;
use crate::origin::Origin;

/// A scene being set up.
pub(crate) struct Setup {
    dir: TempDir,
    origin: Origin,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    rest: String,
    clock: bool,
    disk: bool,
}

impl Setup {
    /// Sets a key of a table: `key` and its value as TOML spells it.
    pub(crate) fn set(mut self, table: &str, key: &str, value: &str) -> Self {
        self.sections
            .entry(table.to_owned())
            .or_default()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Leaves a key out.
    pub(crate) fn without(mut self, table: &str, key: &str) -> Self {
        if let Some(keys) = self.sections.get_mut(table) {
            keys.remove(key);
        }
        self
    }

    /// Sets a key of the site.
    pub(crate) fn site(self, key: &str, value: &str) -> Self {
        self.set("[site]", key, value)
    }

    /// Sets a key of `[server]`.
    pub(crate) fn server(self, key: &str, value: &str) -> Self {
        self.set("server", key, value)
    }

    /// Sets a key of `[cache]`.
    pub(crate) fn cache(self, key: &str, value: &str) -> Self {
        self.set("cache", key, value)
    }

    /// Sets a key of the site's upstream.
    pub(crate) fn upstream(self, key: &str, value: &str) -> Self {
        self.set("upstream.main", key, value)
    }

    /// Gives the binary a wall clock of its own, which [`Scene::clock_moves`] sets.
    pub(crate) fn own_clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Gives the binary a disk of its own, which [`Scene::disk_fails`] makes fail.
    pub(crate) fn own_disk(mut self) -> Self {
        self.disk = true;
        self
    }

    /// Puts more TOML behind what is there.
    pub(crate) fn more(mut self, toml: &str) -> Self {
        self.rest.push_str(toml);
        self
    }

    /// The folder of this scene; the store is `store` in it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts another origin in the place of the scene's.
    pub(crate) fn with_origin(self, origin: Origin) -> Self {
        let backends = format!("[{:?}]", origin.url());
        Self { origin, ..self }.upstream("backends", &backends)
    }

    /// The scene's origin, for a config that has to name it.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Starts the binary and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Scene {
        let mut scene = self.stopped();
        scene.start();
        scene
    }

    /// The scene with everything in place but nothing running.
    #[track_caller]
    pub(crate) fn stopped(self) -> Scene {
        let mut config = String::new();
        for (table, keys) in &self.sections {
            // `[site]` is a table of tables: its own brackets come with the name.
            config.push_str(&format!("[{table}]\n"));
            for (key, value) in keys {
                config.push_str(&format!("{key} = {value}\n"));
            }
        }
        config.push_str(&self.rest);
        fs::write(self.dir.path().join("larder.toml"), config).expect("a config file");
        let clock = self.clock.then(|| Clock::new(self.dir.path()));
        let disk = self.disk.then(|| Disk::new(self.dir.path()));
        Scene {
            dir: self.dir,
            origin: self.origin,
            clock,
            disk,
            running: None,
            elders: Vec::new(),
            starts: 0,
        }
    }
}

/// A scene: an origin, a store and, mostly, the binary between them and the client.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) origin: Origin,
    clock: Option<Clock>,
    disk: Option<Disk>,
    running: Option<Running>,
    /// Those before, which have been taken over from and may still run.
    elders: Vec<Process>,
    starts: usize,
}

impl Scene {
    /// One site for every host, small limits, an origin that knows nothing yet.
    #[expect(clippy::new_ret_no_self, reason = "a scene begins as its setup")]
    pub(crate) fn new() -> Setup {
        let dir = tempfile::tempdir().expect("a folder for the scene");
        let origin = Origin::new();
        let store = format!("{:?}", dir.path().join("store"));
        let backends = format!("[{:?}]", origin.url());
        Setup {
            dir,
            origin,
            sections: BTreeMap::new(),
            rest: String::new(),
            clock: false,
            disk: false,
        }
        .server("http", "[\"127.0.0.1:0\"]")
        .server("workers", "1")
        .cache("dir", &store)
        .cache("disk_bytes_max", "\"1GiB\"")
        .cache("memory_bytes_max", "\"64MiB\"")
        .set("admin", "listen", "\"127.0.0.1:0\"")
        .set("log", "access", "\"off\"")
        .upstream("backends", &backends)
        .site("hosts", "[\"*\"]")
        .site("upstream", "\"main\"")
    }

    /// A scene with the usual setup, running.
    #[track_caller]
    pub(crate) fn usual() -> Self {
        Self::new().start()
    }

    /// The folder of this scene; the store is `store` in it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir().join("store")
    }

    /// The config file, as `--config` wants it.
    pub(crate) fn config(&self) -> String {
        self.dir().join("larder.toml").display().to_string()
    }

    /// A config that says where the running binary's admin listener is, as commands want it.
    #[track_caller]
    pub(crate) fn found_config(&self) -> String {
        self.config_calling(self.admin())
    }

    /// The config with another admin listener.
    pub(crate) fn config_calling(&self, admin: SocketAddr) -> String {
        let config = fs::read_to_string(self.config()).expect("the config");
        let chosen = format!("listen = \"{admin}\"");
        let found = self.dir().join("found.toml");
        let changed = config.replace("listen = \"127.0.0.1:0\"", &chosen);
        fs::write(&found, changed).expect("a config file");
        found.display().to_string()
    }

    /// Runs `larder` to its end.
    #[track_caller]
    pub(crate) fn larder(&self, arguments: &[&str]) -> Finished {
        larder(self.dir(), arguments)
    }

    /// Starts the binary and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.starts += 1;
        let stderr = self.dir().join(format!("stderr-{}", self.starts));
        let clock = self.clock.iter().map(|clock| {
            let file = clock.file.clone();
            (&clock.library, vec![("LARDER_TEST_CLOCK", file)])
        });
        let disk = self.disk.iter().map(|disk| {
            let files = vec![
                ("LARDER_TEST_DISK", disk.file.clone()),
                ("LARDER_TEST_DISK_DIR", self.store()),
            ];
            (&disk.library, files)
        });
        let libraries: Vec<Preloaded<'_>> = clock.chain(disk).collect();
        self.running = Some(Running::start(&self.config(), &stderr, &libraries));
    }

    /// Ends the binary as an operator would and starts it again on the same store.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.terminate();
        assert!(self.wait().success(), "it ended well");
        self.start();
    }

    /// Kills the binary without a warning and starts it again on the same store.
    #[track_caller]
    pub(crate) fn kill9_and_start(&mut self) {
        self.kill9();
        self.start();
    }

    /// Kills the binary without a warning.
    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.running.take().expect("something to kill").kill();
    }

    /// Sends SIGTERM and does not wait.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let kill = format!("kill -{name} {pid}");
        let sent = Command::new("sh")
            .args(["-c", &kill])
            .status()
            .expect("a shell");
        assert!(sent.success(), "could not signal {pid}");
    }

    /// Waits until the binary has ended by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let running = self.running.take().expect("something to wait for");
        let Process::Child(mut child) = running.process else {
            panic!("only a child tells how it ended");
        };
        wait(&mut child).unwrap_or_else(|| panic!("it did not end within {DEADLINE:?}"))
    }

    /// Waits until the binary has started another that is to take over; returns its process id.
    #[track_caller]
    pub(crate) fn await_heir(&mut self) -> u32 {
        let own = self.pid();
        let started = || heir_told(&self.stderr()).filter(|heir| *heir != own);
        let mut heir = self.running().heir;
        eventually("another process to be started", || {
            heir = heir.or_else(started);
            heir.is_some()
        });
        self.running.as_mut().expect("a running binary").heir = heir;
        heir.expect("it was found")
    }

    /// Waits until another process has taken over: from now on the scene is about that one.
    #[track_caller]
    pub(crate) fn await_taken_over(&mut self) {
        let heir = self.await_heir();
        let running = self.running.as_mut().expect("a running binary");
        let before = (running.http, running.https, running.admin);
        running.await_ready();
        assert_eq!(before, (running.http, running.https, running.admin));
        running.heir = None;
        let elder = std::mem::replace(&mut running.process, Process::Heir(heir));
        self.elders.push(elder);
    }

    /// Waits until those that were taken over from have ended, and well.
    #[track_caller]
    pub(crate) fn await_elders(&mut self) {
        for mut elder in self.elders.drain(..) {
            match &mut elder {
                Process::Child(child) => {
                    let status = wait(child).expect("it ends in time");
                    assert!(status.success(), "{status}");
                }
                Process::Heir(pid) => eventually("a process to end", || !is_alive(*pid)),
            }
        }
        // The one that took over finds out a moment later.
        let count = |what: &str| self.stderr().matches(what).count();
        eventually("the next process to find itself alone", || {
            count("the process before has ended") >= count("a new process has taken over")
        });
    }

    /// Has a new process take over, and waits until the one before has ended.
    #[track_caller]
    pub(crate) fn take_over(&mut self) {
        self.signal("USR2");
        self.await_taken_over();
        self.await_elders();
    }

    /// Moves the binary's wall clock, forward or back, by seconds.
    #[track_caller]
    pub(crate) fn clock_moves(&mut self, seconds: i64) {
        let clock = self.clock.as_mut().expect("a clock of its own");
        clock.move_by(seconds);
    }

    /// From now on these steps on the store's files fail with an error number (`fixtures/disk.c`
    /// has their letters), until the disk [works](Self::disk_works) again.
    #[track_caller]
    pub(crate) fn disk_fails(&self, steps: &str, errno: Errno) {
        self.disk()
            .says(&format!("{steps} {}", errno.raw_os_error()));
    }

    /// From now on these steps on the store's files wait until the disk [works](Self::disk_works).
    #[track_caller]
    pub(crate) fn disk_hangs(&self, steps: &str) {
        self.disk().says(&format!("{steps} -1"));
    }

    /// The disk does what it is asked for.
    #[track_caller]
    pub(crate) fn disk_works(&self) {
        self.disk().says("");
    }

    #[track_caller]
    fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a disk of its own")
    }

    /// The process id of the binary.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.running().process.id()
    }

    /// Where clients go in clear text.
    #[track_caller]
    pub(crate) fn front(&self) -> SocketAddr {
        self.running().http.expect("a listener in clear text")
    }

    /// Where clients go with TLS.
    #[track_caller]
    pub(crate) fn tls_front(&self) -> SocketAddr {
        self.running().https.expect("a listener with TLS")
    }

    /// Where the operator goes.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running().admin.expect("an admin listener")
    }

    #[track_caller]
    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running binary")
    }

    /// A new connection to the front.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.front())
    }

    /// GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.get_with(target, &[])
    }

    /// GET with more fields.
    #[track_caller]
    pub(crate) fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", target, headers, b"")
    }

    /// HEAD on a connection of its own.
    #[track_caller]
    pub(crate) fn head(&self, target: &str) -> Answer {
        self.ask("HEAD", target, &[], b"")
    }

    /// Any request on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.connect()
            .ask(method, target, headers, body)
            .answer(method)
    }

    /// `clients` of them ask for `target` at once, each on a connection of its own.
    #[track_caller]
    pub(crate) fn crowd(&self, clients: usize, target: &str) -> Crowd {
        let mut clients: Vec<Client> = (0..clients).map(|_| self.connect()).collect();
        for client in &mut clients {
            client.get(target);
        }
        Crowd { clients }
    }

    /// Returns when what was sent before has been taken up, if there is one worker: it serves
    /// connections in the order in which they have something to say.
    #[track_caller]
    pub(crate) fn fence(&self) {
        self.get("/fence");
        self.get("/fence");
    }

    /// A request to the admin listener.
    #[track_caller]
    pub(crate) fn operate(&self, method: &str, target: &str, body: &str) -> Answer {
        let json = [("Content-Type", "application/json")];
        Client::connect(self.admin())
            .ask(method, target, &json, body.as_bytes())
            .answer(method)
    }

    /// Purges these targets of the usual host and returns the receipt.
    #[track_caller]
    pub(crate) fn purge(&self, targets: &[&str]) -> Value {
        let urls: Vec<String> = targets.iter().map(|target| url(target)).collect();
        let answer = self.operate(
            "POST",
            "/purge",
            &serde_json::json!({ "urls": urls }).to_string(),
        );
        json(answer.is(200))
    }

    /// Purges everything and returns the receipt.
    #[track_caller]
    pub(crate) fn purge_all(&self) -> Value {
        json(self.operate("POST", "/purge", "{\"all\":true}").is(200))
    }

    /// All figures.
    #[track_caller]
    pub(crate) fn stats(&self) -> Value {
        json(self.operate("GET", "/stats", "").is(200))
    }

    /// One figure by its dotted name; zero when nothing has counted yet.
    #[track_caller]
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let stats = self.stats();
        let nested = || stats.pointer(&format!("/{}", name.replace('.', "/")));
        stats
            .get(name)
            .or_else(nested)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }

    /// Waits until a figure is what is wanted.
    #[track_caller]
    pub(crate) fn await_stat(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        eventually(&format!("{name}, which is {}", self.stat(name)), || {
            wanted(self.stat(name))
        });
    }

    /// Waits until `entries` stored responses are on disk for good.
    #[track_caller]
    pub(crate) fn await_durable(&self, entries: u64) {
        self.await_stat("store.journaled", |journaled| journaled >= entries);
    }

    /// What the binary has written to standard error since its latest start.
    pub(crate) fn stderr(&self) -> String {
        let path = self.dir().join(format!("stderr-{}", self.starts));
        fs::read(path)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }
}

/// Clients that have asked and not yet read.
pub(crate) struct Crowd {
    clients: Vec<Client>,
}

impl Crowd {
    /// Reads all answers, side by side.
    #[track_caller]
    pub(crate) fn answers(self) -> Vec<Answer> {
        thread::scope(|scope| {
            let reading: Vec<_> = self
                .clients
                .into_iter()
                .map(|mut client| scope.spawn(move || client.answer("GET")))
                .collect();
            reading
                .into_iter()
                .map(|client| client.join().expect("a client"))
                .collect()
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- larder's standard error:\n{}---", self.stderr());
        }
        for elder in self.elders.drain(..) {
            elder.kill();
        }
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

/// The URL of `target` at the host every scene asks for.
pub(crate) fn url(target: &str) -> String {
    format!("http://{HOST}{target}")
}

/// The body of an answer as JSON.
#[track_caller]
pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

/// A port that nobody uses now, for where it must be known before it is listened on. It is below those
/// that the system chooses, so that no connection takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 100).expect("less than a hundred") * 100;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` holds; fails the scene at the deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(POLL); // waits because a figure behind a socket cannot wake us
    }
}

/// A port of the loopback that nobody listens on, and that nobody else is given while this is held.
pub(crate) struct ClosedPort(socket2::Socket);

impl ClosedPort {
    /// Takes a free one.
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // Bound and not listening: whoever connects is refused.
        socket.bind(&any.into()).expect("a port");
        Self(socket)
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        let address = self.0.local_addr().expect("an address");
        address.as_socket().expect("an IP address").port()
    }

    /// What a backend at this port is called in the config.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.number())
    }

    /// Opens it.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(128).expect("a listener");
        self.0.into()
    }
}

/// What came of a run of the binary.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// It ended with this exit code.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        let Self { stdout, stderr, .. } = self;
        assert_eq!(
            self.code,
            Some(code),
            "exit code\nout: {stdout}\nerr: {stderr}"
        );
        self
    }

    /// It failed and was not killed.
    #[track_caller]
    pub(crate) fn fails(&self) -> &Self {
        let Self { stdout, stderr, .. } = self;
        assert!(
            self.code.is_some_and(|c| c != 0),
            "{:?}\n{stdout}\n{stderr}",
            self.code
        );
        self
    }

    /// It said this on standard error.
    #[track_caller]
    pub(crate) fn complains(&self, of: &str) -> &Self {
        assert!(
            self.stderr.contains(of),
            "no {of:?} in standard error:\n{}",
            self.stderr
        );
        self
    }

    /// It said this on standard output.
    #[track_caller]
    pub(crate) fn prints(&self, text: &str) -> &Self {
        assert!(
            self.stdout.contains(text),
            "no {text:?} in standard output:\n{}",
            self.stdout
        );
        self
    }
}

/// Runs `larder` to its end, with what it writes kept in files of a folder of their own in `dir`.
#[track_caller]
pub(crate) fn larder(dir: &Path, arguments: &[&str]) -> Finished {
    let kept = tempfile::tempdir_in(dir).expect("a folder for the output");
    let file = |name: &str| File::create(kept.path().join(name)).expect("a file for the output");
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .expect("the binary");
    let status = wait(&mut child);
    let read = |name: &str| {
        let bytes = fs::read(kept.path().join(name)).expect("the output");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let finished = Finished {
        code: status.and_then(|status| status.code()),
        stdout: read("out"),
        stderr: read("err"),
    };
    assert!(
        status.is_some(),
        "{arguments:?} did not end\n{}",
        finished.stderr
    );
    finished
}

/// The binary while it runs.
struct Running {
    process: Process,
    /// Who was started to take over from it.
    heir: Option<u32>,
    /// Lines of its standard output, and of those that come after it.
    said: Mutex<mpsc::Receiver<String>>,
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// A process of the binary.
enum Process {
    /// Started here.
    Child(Child),
    /// Started by another one of them.
    Heir(u32),
}

impl Process {
    fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Heir(pid) => *pid,
        }
    }

    /// Kills it, and whom it has started to take over.
    fn kill(self) {
        let heir = child_of(self.id());
        match self {
            // One that has ended already is as dead as it should be.
            Self::Child(mut child) => {
                drop(child.kill());
                drop(child.wait());
            }
            Self::Heir(pid) => kill(pid),
        }
        if let Some(heir) = heir {
            kill(heir);
        }
    }
}

/// Kills a process that is not a child, if it lives.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended already is as dead as it should be.
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// What the system says of a process: its state and its parent.
fn look_at(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The living process that a log says was started last to take over.
pub(crate) fn heir_told(log: &str) -> Option<u32> {
    let (_, rest) = log.rsplit_once("handing over to a new process pid=")?;
    let heir = rest.split_whitespace().next()?.parse().ok()?;
    is_alive(heir).then_some(heir)
}

/// Is it there, and not only because nobody has asked how it ended?
pub(crate) fn is_alive(pid: u32) -> bool {
    look_at(pid).is_some_and(|(state, _)| state != 'Z')
}

/// A living child of a process.
fn child_of(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").expect("a list of processes");
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut children =
        pids.filter(|pid| look_at(*pid).is_some_and(|(state, of)| of == parent && state != 'Z'));
    children.next()
}

/// A wall clock that is set by hand: a library that is loaded before libc, and a file that says how
/// far it is from the true time.
struct Clock {
    library: PathBuf,
    file: PathBuf,
    seconds: i64,
}

impl Clock {
    fn new(dir: &Path) -> Self {
        let library = build(dir, "clock");
        let file = dir.join("clock");
        let mut clock = Self {
            library,
            file,
            seconds: 0,
        };
        clock.move_by(0);
        clock
    }

    fn move_by(&mut self, seconds: i64) {
        self.seconds += seconds;
        put(&self.file, &self.seconds.to_string());
    }
}

/// A disk that fails when told to: a library that is loaded before libc, and a file that tells it.
struct Disk {
    library: PathBuf,
    file: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let disk = Self {
            library: build(dir, "disk"),
            file: dir.join("disk"),
        };
        disk.says("");
        disk
    }

    fn says(&self, what: &str) {
        put(&self.file, what);
    }
}

/// Builds a library of `fixtures`.
fn build(dir: &Path, name: &str) -> PathBuf {
    let library = dir.join(name).with_extension("so");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let source = fixtures.join(name).with_extension("c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([library.as_os_str(), source.as_ref(), "-ldl".as_ref()])
        .status()
        .expect("a C compiler");
    assert!(built.success(), "could not build {}", source.display());
    library
}

/// Writes a file that the binary reads meanwhile: renamed, so that it is never read half written.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a file for the binary");
    fs::rename(&new, file).expect("a file for the binary");
}

/// A library, and the variables that name its files.
type Preloaded<'a> = (&'a PathBuf, Vec<(&'static str, PathBuf)>);

impl Running {
    #[track_caller]
    fn start(config: &str, stderr: &Path, libraries: &[Preloaded<'_>]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        let names: Vec<_> = libraries.iter().map(|(l, _)| l.to_string_lossy()).collect();
        if !names.is_empty() {
            command.env("LD_PRELOAD", names.join(":"));
        }
        command.envs(libraries.iter().flat_map(|(_, files)| files.clone()));
        let mut child = command
            .args(["serve", "--config", config])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(stderr).expect("a file for standard error"))
            .spawn()
            .expect("the binary");
        let stdout = child.stdout.take().expect("its standard output");
        let (tell, told) = mpsc::channel();
        // Reads to the end, so that the binary never waits for a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
        let mut running = Self {
            process: Process::Child(child),
            heir: None,
            said: Mutex::new(told),
            http: None,
            https: None,
            admin: None,
        };
        if let Err(error) = running.try_await_ready() {
            running.kill();
            let said = fs::read_to_string(stderr).unwrap_or_default();
            panic!("not ready ({error}):\n{said}");
        }
        running
    }

    /// Waits until it, or who comes after it, says that it is ready.
    #[track_caller]
    fn await_ready(&mut self) {
        self.try_await_ready().expect("it is ready in time");
    }

    fn try_await_ready(&mut self) -> Result<(), mpsc::RecvTimeoutError> {
        loop {
            let said = self.said.get_mut().expect("nobody panicked with it");
            match said.recv_timeout(DEADLINE)?.as_str() {
                "ready" => return Ok(()),
                line => self.heed(line),
            }
        }
    }

    /// Takes an address from a line that gives one.
    fn heed(&mut self, line: &str) {
        let Some((what, url)) = line.rsplit_once(" on ") else {
            return;
        };
        let Some((scheme, address)) = url.split_once("://") else {
            return;
        };
        let Ok(mut address) = address.trim().parse::<SocketAddr>() else {
            return;
        };
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        match (what, scheme) {
            ("listening", "http") => self.http = self.http.or(Some(address)),
            ("listening", "https") => self.https = self.https.or(Some(address)),
            ("admin", _) => self.admin = Some(address),
            _ => {}
        }
    }

    fn kill(self) {
        self.process.kill();
        if let Some(heir) = self.heir {
            kill(heir);
        }
    }
}

/// Waits for a child; `None` when it had to be killed at the deadline.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        thread::sleep(POLL); // waits because std cannot wait for a child with a deadline
    }
    drop(child.kill());
    drop(child.wait());
    None
}

/// How often a condition without a signal is looked at.
const POLL: Duration = Duration::from_millis(10);
