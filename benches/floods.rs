//! What floods over HTTP/2 cost other clients: how long those wait, and how far memory grows.
//!
//! `cargo bench --bench floods` starts the server with a folder as its origin. A client asks for the
//! same small file 500 times a second over one HTTP/1.1 connection, in turns alone, beside another
//! client that asks honestly as fast as it can, and beside one that floods and comes back as soon
//! as it is cut. `-- 60` measures each for 60 seconds instead of 20.
//!
//! The client beside runs at the lowest priority, on the processor time that nobody else wants: it
//! stands for another machine. What the server does for it is done at the server's own priority.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first fault"
)]

use larder::clock;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Everything is measured so often, in turns, and the median counts: the machine is not always the same.
const ROUNDS: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(2);
const OBJECT: usize = 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Frames that go out together.
const BATCH: u32 = 50;
/// Frames on one connection, should nobody cut it.
const FRAMES: u32 = 40_000;

/// The frames of one kind of flood, by number.
type Unit = fn(u32) -> Vec<u8>;

const FLOODS: [(&str, Unit); 6] = [
    ("rapid reset", |n| {
        let cancel = frame(RST_STREAM, 0, 1 + 2 * n, &8_u32.to_be_bytes());
        [get(1 + 2 * n), cancel].concat()
    }),
    ("made to reset", |n| {
        // A window too wide is the stream's error (RFC 9113 §6.9.1).
        let widen = frame(WINDOW_UPDATE, 0, 1 + 2 * n, &0x7fff_ffff_u32.to_be_bytes());
        [get(1 + 2 * n), widen].concat()
    }),
    ("continuation", |n| match n {
        0 => frame(HEADERS, 1, 1, &request()),
        _ => frame(CONTINUATION, 0, 1, &line("x-a", &"a".repeat(100))),
    }),
    ("settings", |n| {
        let window = 60_000 + n % 7;
        frame(
            SETTINGS,
            0,
            0,
            &[&[0, 4], &window.to_be_bytes()[..]].concat(),
        )
    }),
    ("ping", |_| frame(PING, 0, 0, &[0; 8])),
    ("empty continuation", |n| match n {
        0 => frame(HEADERS, 1, 1, &request()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
];

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(20)) / ROUNDS;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.measure(span, |_| 0);
    let floods = FLOODS.map(|(name, unit)| (name, Other::Floods(unit)));
    let others = [("nobody", Other::Nobody), ("an honest client", Other::Asks)];
    let mut rows: Vec<Row> = others.into_iter().chain(floods).map(Row::new).collect();
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let beside = server.measure(span, |over| match row.other {
                Other::Nobody => 0,
                Other::Asks => server.ask_honestly(over),
                Other::Floods(unit) => server.flood(unit, over),
            });
            row.add(beside, server.resident());
        }
    }
    println!("beside               p50 ms   p99 ms   × alone   longest   resident MiB");
    let alone = rows.first().unwrap().p99();
    for row in &rows {
        row.print(alone);
    }
}

/// Whom the client is served beside.
enum Other {
    Nobody,
    Asks,
    Floods(Unit),
}

/// What the client saw, and how much the one beside it did.
struct Beside {
    waits: Vec<Duration>,
    done: u64,
}

/// What was measured beside one other, in all rounds.
struct Row {
    name: &'static str,
    other: Other,
    /// The 50th and 99th percentile of each round, in milliseconds.
    p50: Vec<f64>,
    p99: Vec<f64>,
    longest: f64,
    resident: f64,
    done: u64,
}

impl Row {
    fn new((name, other): (&'static str, Other)) -> Self {
        Self {
            name,
            other,
            p50: Vec::new(),
            p99: Vec::new(),
            longest: 0.0,
            resident: 0.0,
            done: 0,
        }
    }

    fn add(&mut self, mut beside: Beside, resident: f64) {
        beside.waits.sort_unstable();
        let at = |percent: usize| {
            let place = beside.waits.len() * percent / 100;
            let wait = beside.waits.get(place).or(beside.waits.last()).unwrap();
            wait.as_secs_f64() * 1000.0
        };
        self.p50.push(at(50));
        self.p99.push(at(99));
        self.longest = self.longest.max(at(100));
        self.resident = self.resident.max(resident);
        self.done += beside.done;
    }

    fn p99(&self) -> f64 {
        median(&self.p99)
    }

    fn print(&self, alone: f64) {
        println!(
            "{:<20} {:>6.3}   {:>6.3}   {:>7.2}   {:>7.3}   {:>6.1}   {} done",
            self.name,
            median(&self.p50),
            self.p99(),
            self.p99() / alone,
            self.longest,
            self.resident,
            self.done,
        );
    }
}

fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_unstable_by(f64::total_cmp);
    *of.get(of.len() / 2).unwrap()
}

/// The server, until this is dropped.
struct Server {
    process: Child,
    front: String,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let files = dir.join("files");
        fs::create_dir(&files).unwrap();
        fs::write(files.join("a"), [b'a'; OBJECT]).unwrap();
        let config = dir.join("config.toml");
        let text = format!(
            "[server]\nhttp = [\"127.0.0.1:0\"]\nh2c = true\n[log]\naccess = \"off\"\n\
             [cache]\ndir = \"{}\"\n[upstream.main]\nbackends = [\"file:{}\"]\n\
             [[site]]\nhosts = [\"*\"]\nupstream = \"main\"\n",
            dir.join("store").display(),
            files.display(),
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told: Vec<String> = lines
            .map(Result::unwrap)
            .take_while(|line| line != "ready")
            .collect();
        let front = told
            .iter()
            .find_map(|line| line.strip_prefix("listening on http://"));
        let front = front.unwrap().to_owned();
        Self { process, front }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.front).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Asks at even intervals for `span` while `other` does what it does.
    fn measure(&self, span: Duration, other: impl FnOnce(&AtomicBool) -> u64 + Send) -> Beside {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                stand_back();
                other(&over)
            });
            let mut wire = self.connect();
            let start = clock::instant();
            let mut waits = Vec::new();
            let mut due = start;
            while due.duration_since(start) < span {
                thread::sleep(due.saturating_duration_since(clock::instant()));
                let asked = clock::instant();
                ask(&mut wire);
                waits.push(clock::instant().duration_since(asked));
                due += INTERVAL;
            }
            over.store(true, Ordering::Relaxed);
            let done = other.join().unwrap();
            Beside { waits, done }
        })
    }

    /// The most memory it has had resident, in MiB.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<f64>().unwrap() / 1024.0
    }

    /// Asks without a pause; returns how often.
    fn ask_honestly(&self, over: &AtomicBool) -> u64 {
        let mut wire = self.connect();
        let mut asked = 0;
        while !over.load(Ordering::Relaxed) {
            ask(&mut wire);
            asked += 1;
        }
        asked
    }

    /// Floods, on a new connection each time it is cut; returns how many connections it took.
    fn flood(&self, unit: Unit, over: &AtomicBool) -> u64 {
        let connections = AtomicU64::new(0);
        while !over.load(Ordering::Relaxed) {
            connections.fetch_add(1, Ordering::Relaxed);
            let mut wire = self.connect();
            let mut reading = wire.try_clone().unwrap();
            thread::scope(|scope| {
                // What comes back is read, so that only the server's own limits cut this short.
                scope.spawn(move || {
                    stand_back();
                    let mut piece = [0; 16 * 1024];
                    while reading.read(&mut piece).is_ok_and(|read| read > 0) {}
                });
                let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
                let mut open = wire.write_all(&opening).is_ok();
                let mut sent = 0;
                while open && sent < FRAMES && !over.load(Ordering::Relaxed) {
                    let batch: Vec<u8> = (sent..sent + BATCH).flat_map(unit).collect();
                    open = wire.write_all(&batch).is_ok();
                    sent += BATCH;
                }
                // Ends the thread that reads; that the other side was faster is what is wanted.
                match wire.shutdown(std::net::Shutdown::Both) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotConnected),
                }
            });
        }
        connections.into_inner()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Gives this thread the lowest priority.
fn stand_back() {
    rustix::process::setpriority_process(None, 19).unwrap();
}

/// Asks for the file and reads all of the answer.
fn ask(wire: &mut TcpStream) {
    wire.write_all(b"GET /a HTTP/1.1\r\nHost: t.test\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = wire.read(&mut piece).unwrap();
        assert!(read > 0, "no answer");
        answer.extend(piece.get(..read).unwrap());
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + OBJECT) {
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A whole GET in one frame.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, 5, stream, &request())
}

fn request() -> Vec<u8> {
    [
        line(":method", "GET"),
        line(":scheme", "http"),
        line(":authority", "t.test"),
        line(":path", "/a"),
    ]
    .concat()
}

/// A field that is neither compressed nor kept in the table (RFC 7541 §6.2.2), of less than 127
/// bytes each.
fn line(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}
