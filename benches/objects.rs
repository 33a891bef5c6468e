//! What a stored object costs: bytes on disk, bytes in memory, time to store, to close and to open.
//!
//! `cargo bench --bench objects` stores 100,000 and then 1,000,000 responses of 1 KB with the memory
//! tier off, prints the figures of both, and what 10,000,000 would take by the slope between them.
//! `cargo bench --bench objects -- 50000 200000` takes other numbers. The store is made below
//! `TMPDIR`.
//!
//! Each step runs in a process of its own, as does each opening, so that what an earlier one left in
//! the allocator counts for none. What the store is given is made in batches outside of the time
//! that is measured; the rate on one core counts the processor time of all threads.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first fault"
)]

use bytes::Bytes;
use http::HeaderMap;
use larder::clock;
use larder::flow::shelf::Shelf;
use larder::rules::address::Digest;
use larder::rules::freshness::Timing;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::stored::StaleWindow;
use larder::rules::stored::StoredResponse;
use larder::rules::tag::Names;
use larder::state::index::Lookup;
use larder::store::Params;
use larder::store::head;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [word, objects, dir] if word == "fill" => fill(objects.parse().unwrap(), Path::new(dir)),
        [word, objects, dir] if word == "open" => open(objects.parse().unwrap(), Path::new(dir)),
        words => {
            let given: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
            compare(if given.is_empty() {
                &[100_000, 1_000_000]
            } else {
                &given
            });
        }
    }
}

/// Figures of one step, by name.
type Figures = Vec<(String, f64)>;

fn compare(steps: &[u64]) {
    let measured: Vec<(u64, Figures)> = steps.iter().map(|step| (*step, measure(*step))).collect();
    let mut columns: Vec<String> = steps.iter().map(u64::to_string).collect();
    if steps.len() > 1 {
        columns.push(format!("{FORESEEN} by slope"));
    }
    print!("{:34}", "objects");
    columns.iter().for_each(|column| print!("{column:>20}"));
    println!();
    let Some((last, figures)) = measured.last() else {
        return;
    };
    for (place, (name, value)) in figures.iter().enumerate() {
        print!("{name:34}");
        for (_, figures) in &measured {
            print!(
                "{:>20.3}",
                figures.get(place).map_or(0.0, |figure| figure.1)
            );
        }
        if let Some((first, before)) = measured.first().filter(|(first, _)| first != last) {
            let grows = !["an object", "a second", "longest"]
                .iter()
                .any(|word| name.contains(word));
            let slope = (value - before.get(place).map_or(0.0, |figure| figure.1))
                / (*last as f64 - *first as f64);
            if grows {
                print!("{:>20.3}", value + slope * (FORESEEN as f64 - *last as f64));
            }
        }
        println!();
    }
}

fn measure(objects: u64) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut figures = run("fill", objects, &store);
    figures.extend(run("open", objects, &store));
    figures
}

/// Runs one half of a step in a process of its own and reads what it prints.
fn run(word: &str, objects: u64, dir: &Path) -> Figures {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([word, &objects.to_string()])
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn tell(name: &str, value: f64) {
    println!("{name}\t{value}");
}

fn params(dir: &Path) -> Params {
    Params {
        dir: dir.to_path_buf(),
        disk_bytes_max: 64 << 30,
    }
}

fn fill(objects: u64, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let shelf = Shelf::open(&params(dir), 0, 128 << 20).unwrap();
    let mut batch: Vec<(Arc<StoredResponse>, Bytes)> = given(0..BATCH).collect();
    let encoded: usize = batch
        .iter()
        .map(|(response, _)| head::encode(shelf.next_sequence(), response).len())
        .sum();
    let per_object = 1024.0 + encoded as f64 / batch.len() as f64;
    let empty = resident();
    let (mut wall, mut cpu, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut timed = 0;
    for first in (0..objects.div_ceil(BATCH)).map(|n| n * BATCH) {
        batch.clear();
        batch.extend(given(first..objects.min(first + BATCH)));
        // Some batches are looked at closely, which takes time itself.
        let closely = first / BATCH % 8 == 7;
        let (start, worked) = (clock::instant(), mine());
        runtime.block_on(async {
            for (response, body) in batch.drain(..) {
                let sequence = shelf.next_sequence();
                let keep = shelf.keep(sequence, response, body);
                let kept = if closely {
                    let (kept, took) = watched(keep).await;
                    longest = longest.max(took);
                    kept
                } else {
                    keep.await
                };
                assert!(kept.is_ok(), "not kept: {kept:?}");
            }
        });
        if !closely {
            timed += batch_of(first, objects);
            wall += clock::instant().duration_since(start);
            cpu += mine().saturating_sub(worked);
        }
    }
    let full = resident();
    let number = objects as f64;
    // The store's own threads work on while the next batch is made.
    let others = processor().saturating_sub(mine());
    let cpu = cpu + others.mul_f64(timed as f64 / number);
    tell(
        "stored, objects a second",
        timed as f64 / wall.as_secs_f64(),
    );
    tell(
        "stored, objects a second of a core",
        timed as f64 / cpu.as_secs_f64(),
    );
    tell("longest store, ms", longest.as_secs_f64() * 1e3);
    let grown = full.saturating_sub(empty) as f64;
    tell("resident, filled, bytes an object", grown / number);
    tell("resident, filled, MB", grown / 1e6);
    close(&shelf, dir, number, per_object);
}

fn close(shelf: &Shelf, dir: &Path, number: f64, per_object: f64) {
    let start = clock::instant();
    shelf.close();
    let closed = clock::instant().duration_since(start);
    let disk = allocated(dir);
    tell("closed in, s", closed.as_secs_f64());
    tell("body + head, bytes an object", per_object);
    tell("on disk, bytes an object", disk as f64 / number);
    tell(
        "on disk, parts an object's bytes",
        disk as f64 / number / per_object,
    );
    tell("pack files", files(&dir.join("content-v2")) as f64);
    tell(
        "bodies and heads by 4 MiB",
        number * per_object / f64::from(4 << 20),
    );
}

fn batch_of(first: u64, objects: u64) -> u64 {
    BATCH.min(objects - first)
}

/// Waits for `work`, and tells how long its longest step held the thread: the time for which the
/// thread was ready and other processes had the core is not its own.
async fn watched<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = std::pin::pin!(work);
    let mut longest = Duration::ZERO;
    let done = std::future::poll_fn(|context| {
        let (began, waited) = (clock::instant(), waited());
        let step = work.as_mut().poll(context);
        longest = longest.max(own(began, waited));
        step
    })
    .await;
    (done, longest)
}

fn own(began: Instant, waited_before: Duration) -> Duration {
    let took = clock::instant().duration_since(began);
    took.saturating_sub(waited().saturating_sub(waited_before))
}

/// How long this thread has been ready without a core.
fn waited() -> Duration {
    schedstat(1)
}

fn open(objects: u64, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let empty = resident();
    let start = clock::instant();
    let shelf = Shelf::open(&params(dir), 0, 128 << 20).unwrap();
    let opened = clock::instant().duration_since(start);
    let worked = processor();
    let found = match shelf.lookup([key(objects / 2)], &HeaderMap::new()) {
        Lookup::Found(found) => found,
        Lookup::UriMiss | Lookup::VaryMiss => panic!("an object is missing"),
    };
    assert!(runtime.block_on(shelf.load(found)).is_some());
    let hit = clock::instant().duration_since(start);
    let full = resident();
    assert_eq!(shelf.entries() as u64, objects);
    let looked_up = longest_lookup(&shelf, objects);
    let number = objects as f64;
    tell("opened in, s", opened.as_secs_f64());
    tell("opened in, s of a core", worked.as_secs_f64());
    tell("first hit after, s", hit.as_secs_f64());
    tell("longest lookup, ms", looked_up.as_secs_f64() * 1e3);
    tell(
        "resident, opened, bytes an object",
        full.saturating_sub(empty) as f64 / number,
    );
    tell(
        "resident, opened, MB",
        full.saturating_sub(empty) as f64 / 1e6,
    );
    shelf.close();
}

/// The longest of many lookups.
fn longest_lookup(shelf: &Shelf, objects: u64) -> Duration {
    let of = |number| {
        let key = key(number);
        let (began, waited) = (clock::instant(), waited());
        let found = shelf.lookup([key], &HeaderMap::new());
        let took = own(began, waited);
        assert!(matches!(found, Lookup::Found(_)));
        took
    };
    (0..objects).step_by(10).map(of).max().unwrap_or_default()
}

fn given(numbers: std::ops::Range<u64>) -> impl Iterator<Item = (Arc<StoredResponse>, Bytes)> {
    numbers.map(|number| {
        let body = body_of(number);
        (Arc::new(response(number, &body)), body)
    })
}

fn body_of(number: u64) -> Bytes {
    let mut body = vec![0; 1024];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut body);
    Bytes::from(body)
}

fn key(number: u64) -> PrimaryKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    PrimaryKey(key)
}

fn response(number: u64, body: &Bytes) -> StoredResponse {
    let now = clock::now();
    let fields = [
        ("content-type", "application/octet-stream"),
        ("cache-control", "public, max-age=86400"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"0123456789abcdef\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("server", "origin"),
        ("vary", ""),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("x-request-id", "0123456789"),
    ];
    StoredResponse {
        key: key(number),
        variant: VariantKey::ONLY,
        vary: Vec::new(),
        names: Names::default(),
        status: http::StatusCode::OK,
        headers: fields
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect(),
        timing: Timing {
            request_time: now,
            response_time: now,
            date_value: now,
            age_value: Duration::ZERO,
        },
        lifetime: Duration::from_secs(86_400),
        stale: StaleWindow::default(),
        validate_always: false,
        must_revalidate: false,
        validators: None,
        body_bytes: 1024,
        body: Digest::of(body),
        part: None,
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Processor time of this thread.
fn mine() -> Duration {
    schedstat(0)
}

fn schedstat(field: usize) -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').nth(field).unwrap().parse().unwrap())
}

/// Processor time of all threads of this process, those that have ended left out.
fn processor() -> Duration {
    let spent = fs::read_dir("/proc/self/task").unwrap().map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat"));
        let text = text.unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        first.parse().unwrap_or(0)
    });
    Duration::from_nanos(spent.sum())
}

fn allocated(dir: &Path) -> u64 {
    walk(dir)
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

fn files(dir: &Path) -> usize {
    walk(dir).filter(|path| path.is_file()).count()
}

fn walk(dir: &Path) -> Box<dyn Iterator<Item = std::path::PathBuf>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    Box::new(entries.flat_map(|path| -> Box<dyn Iterator<Item = _>> {
        let below = if path.is_dir() {
            walk(&path)
        } else {
            Box::new(std::iter::empty())
        };
        Box::new(std::iter::once(path).chain(below))
    }))
}

/// How many are made at once.
const BATCH: u64 = 1000;
const FORESEEN: u64 = 10_000_000;
