//! What the store does at its limit: ten times the limit in mixed sizes through the shelf.
//!
//! `cargo bench --bench soak` stores objects of 1 KB to 64 MB, as many bytes of each size, asked for
//! as by Zipf, in a store of 512 MiB, until ten times as much was stored. It prints what lay on disk at
//! the most, how much was written for what was stored, and the longest time a call of the store
//! held its thread. `cargo bench --bench soak -- 1024 20` takes another limit, in MiB, and factor.
//!
//! A thread that has to wait for a core is not held by the store: that time, as the system counts
//! it, is not in the figures.
#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops at the first fault"
)]

use bytes::Bytes;
use http::HeaderMap;
use larder::clock;
use larder::flow::shelf::NotKept;
use larder::flow::shelf::Shelf;
use larder::flow::shelf::StoredBody;
use larder::flow::shelf::space;
use larder::flow::shelf::upkeep::Task;
use larder::rules::address::Digest;
use larder::rules::freshness::Timing;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::stored::StaleWindow;
use larder::rules::stored::StoredResponse;
use larder::rules::tag::Names;
use larder::state::eviction;
use larder::state::eviction::Favour;
use larder::state::index::Found;
use larder::state::index::Lookup;
use larder::store;
use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use std::time::Instant;

const MIB: u64 = 1 << 20;
const SEGMENT: usize = 1 << 20;
/// Objects there are, for each MiB of the limit: about ten times as many bytes.
const OBJECTS: u64 = 930;
const SMALLEST: f64 = 1024.0;
const LARGEST: f64 = 64.0 * 1024.0 * 1024.0;
const ZIPF: f64 = 0.9;
const CLIENTS: usize = 8;

fn main() {
    let mut words = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok());
    let limit = words.next().unwrap_or(512) * MIB;
    let factor = words.next().unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let params = store::Params {
        dir: dir.path().join("store"),
        disk_bytes_max: limit,
    };
    let shelf = Shelf::open(&params, 0, 128 * MIB).unwrap();
    shelf.choose_by(eviction::Params {
        favour: Favour::Bytes,
        second_request_over: u64::MAX,
    });
    let tending = space::start(&shelf).unwrap();
    let soak = Arc::new(Soak {
        shelf: Arc::clone(&shelf),
        popularity: popularity(OBJECTS * limit / MIB),
        noise: noise(),
        until: limit * factor,
        requests: AtomicU64::new(0),
        tally: Mutex::default(),
    });
    let over = AtomicBool::new(false);
    let start = clock::instant();
    let disk = thread::scope(|scope| {
        let sampling = scope.spawn(|| sample(&params.dir, &over));
        soak.run();
        shelf.close();
        over.store(true, Ordering::Relaxed);
        sampling.join().unwrap()
    });
    let took = clock::instant().duration_since(start);
    space::close(&shelf);
    tending.join().unwrap();
    print(&soak, &disk, took);
}

/// What is asked for, and what came of it.
struct Soak {
    shelf: Arc<Shelf>,
    /// Sums of popularity, by object.
    popularity: Vec<f64>,
    noise: Vec<u8>,
    /// Ends when so many bytes were stored.
    until: u64,
    requests: AtomicU64,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    bytes: u64,
    hits: u64,
    hit_bytes: u64,
    stored: u64,
    stored_bytes: u64,
    failed: u64,
    not_kept: BTreeMap<String, u64>,
    /// By call, the longest and what went on meanwhile.
    held: BTreeMap<&'static str, (Duration, Task)>,
}

struct Disk {
    samples: u64,
    peak: u64,
}

impl Soak {
    fn run(self: &Arc<Self>) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let clients = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(self).client()));
            for client in clients.collect::<Vec<_>>() {
                client.await.unwrap();
            }
        });
    }

    async fn client(self: Arc<Self>) {
        while self.tally.lock().unwrap().stored_bytes < self.until {
            let request = self.requests.fetch_add(1, Ordering::Relaxed);
            let object = self.pick(request);
            let bytes = size_of(object);
            let hit = self.ask(object, bytes).await;
            {
                let mut tally = self.tally.lock().unwrap();
                tally.requests += 1;
                tally.bytes += bytes;
                if hit {
                    tally.hits += 1;
                    tally.hit_bytes += bytes;
                }
            }
            if !hit {
                self.store(object, bytes).await;
            }
            tokio::task::yield_now().await;
        }
    }

    fn pick(&self, request: u64) -> u64 {
        let total = self.popularity.last().unwrap();
        let point = fraction(request ^ 0x5eed_0000_0000_0000) * total;
        let object = self.popularity.partition_point(|sum| *sum <= point);
        object.min(self.popularity.len() - 1) as u64
    }

    async fn ask(&self, object: u64, bytes: u64) -> bool {
        let key = key(object);
        let found = self.held("lookup", || self.shelf.lookup([key], &HeaderMap::new()));
        let Lookup::Found(found) = found else {
            return false;
        };
        match self.read(object, bytes, found).await {
            Some(sound) => {
                if !sound {
                    self.tally.lock().unwrap().failed += 1;
                }
                sound
            }
            // It was evicted between look and load.
            None => false,
        }
    }

    async fn read(&self, object: u64, bytes: u64, found: Found) -> Option<bool> {
        let stored = self.polled("load", self.shelf.load(found)).await?;
        match stored.body {
            StoredBody::Memory(body) => Some(body == self.part(object, 0, bytes)),
            StoredBody::Segments(segments, _pins) => {
                let mut at = 0;
                for (segment, number) in segments.iter().zip(0..) {
                    let read = self.polled("read", self.shelf.read_segment(*segment, true));
                    let Ok(part) = read.await else {
                        return Some(false);
                    };
                    if part != self.part(object, number, bytes) {
                        return Some(false);
                    }
                    at += part.len() as u64;
                }
                Some(at == bytes)
            }
        }
    }

    async fn store(&self, object: u64, bytes: u64) {
        let sequence = self.shelf.next_sequence();
        let kept = if bytes <= SEGMENT as u64 {
            let body = self.part(object, 0, bytes);
            let response = Arc::new(response(object, bytes, Digest::of(&body)));
            let kept = self.shelf.keep(sequence, response, body);
            self.polled("keep", kept).await.map(drop)
        } else {
            self.store_large(object, bytes).await
        };
        let mut tally = self.tally.lock().unwrap();
        match kept {
            Ok(()) => {
                tally.stored += 1;
                tally.stored_bytes += bytes;
            }
            Err(why) => *tally.not_kept.entry(format!("{why:?}")).or_default() += 1,
        }
    }

    async fn store_large(&self, object: u64, bytes: u64) -> Result<(), NotKept> {
        let sequence = self.shelf.next_sequence();
        let mut draft = self.shelf.draft(sequence, key(object));
        for number in 0..bytes.div_ceil(SEGMENT as u64) {
            let part = self.part(object, number, bytes);
            self.polled("segment", draft.segment(part)).await?;
            tokio::task::yield_now().await;
        }
        let response = response(object, bytes, Digest([0; 32]));
        self.polled("finish", draft.finish(response))
            .await
            .map(drop)
    }

    /// Segment `number` of an object's body.
    fn part(&self, object: u64, number: u64, bytes: u64) -> Bytes {
        let left = bytes - number * SEGMENT as u64;
        let len = usize::try_from(left).unwrap().min(SEGMENT);
        let mut part = self.noise[..len].to_vec();
        part[..8].copy_from_slice(&object.to_le_bytes());
        part[8..16].copy_from_slice(&number.to_le_bytes());
        Bytes::from(part)
    }

    fn held<T>(&self, call: &'static str, work: impl FnOnce() -> T) -> T {
        let before = Moment::now();
        let done = work();
        self.note(call, &before);
        done
    }

    async fn polled<F: Future>(&self, call: &'static str, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let before = Moment::now();
            let polled: Poll<F::Output> = future.as_mut().poll(context);
            self.note(call, &before);
            polled
        })
        .await
    }

    fn note(&self, call: &'static str, before: &Moment) {
        let held = before.elapsed();
        let doing = self.shelf.upkeep().doing();
        let mut tally = self.tally.lock().unwrap();
        let longest = tally.held.entry(call).or_default();
        if held > longest.0 {
            *longest = (held, doing);
        }
    }
}

/// A point in time, and how long this thread had waited for a core until then.
struct Moment {
    at: Instant,
    waited: Duration,
}

impl Moment {
    fn now() -> Self {
        Self {
            waited: waited(),
            at: clock::instant(),
        }
    }

    fn elapsed(&self) -> Duration {
        let took = clock::instant().duration_since(self.at);
        took.saturating_sub(waited() - self.waited)
    }
}

/// How long this thread has waited for a core, as the scheduler counts.
fn waited() -> Duration {
    thread_local! {
        static SCHEDULER: File = File::open("/proc/thread-self/schedstat").unwrap();
    }
    SCHEDULER.with(|file| {
        let mut text = [0; 64];
        let len = file.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..len]).unwrap();
        let waited = text.split_whitespace().nth(1).unwrap();
        Duration::from_nanos(waited.parse().unwrap())
    })
}

fn sample(dir: &Path, over: &AtomicBool) -> Disk {
    let mut disk = Disk {
        samples: 0,
        peak: 0,
    };
    while !over.load(Ordering::Relaxed) {
        disk.peak = disk.peak.max(allocated(dir));
        disk.samples += 1;
        thread::sleep(Duration::from_millis(2));
    }
    disk
}

/// Bytes the file system has given to everything in `folder`, and to itself.
fn allocated(folder: &Path) -> u64 {
    let own = fs::metadata(folder).map_or(0, |meta| meta.blocks() * 512);
    let Ok(entries) = fs::read_dir(folder) else {
        return own;
    };
    let entries = entries.flatten().map(|entry| {
        // What has gone since it was listed takes no room.
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => allocated(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        }
    });
    own + entries.sum::<u64>()
}

fn print(soak: &Soak, disk: &Disk, took: Duration) {
    let tally = soak.tally.lock().unwrap();
    let usage = soak.shelf.usage();
    let upkeep = soak.shelf.upkeep().done();
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let of = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    println!("limit                 {:.0} MiB", mib(usage.limit));
    println!(
        "requests              {}, failed {}",
        tally.requests, tally.failed
    );
    println!(
        "hit ratio             {:.4} of requests, {:.4} of bytes",
        of(tally.hits, tally.requests),
        of(tally.hit_bytes, tally.bytes)
    );
    println!(
        "stored                {} objects, {:.0} MiB, in {:.1} s; not kept {:?}",
        tally.stored,
        mib(tally.stored_bytes),
        took.as_secs_f64(),
        tally.not_kept
    );
    println!(
        "on disk               {:.1} MiB at most, {:.4} of the limit, in {} samples",
        mib(disk.peak),
        of(disk.peak, usage.limit),
        disk.samples
    );
    println!(
        "alive at the end      {} objects, {:.1} MiB of {:.1} in {} packs",
        soak.shelf.entries(),
        mib(soak.shelf.live_bytes()),
        mib(usage.allocated),
        usage.packs
    );
    println!(
        "written               {:.1} MiB of packs ({:.1} moved), {:.1} MiB of journal",
        mib(usage.packs_written),
        mib(upkeep.moved_bytes),
        mib(usage.journal_written)
    );
    let fills = usage.appended - upkeep.moved_bytes;
    let written = usage.packs_written + usage.journal_written;
    println!("write amplification   {:.3}", of(written, fills));
    println!(
        "upkeep                {} evicted, {} packs emptied, {} dropped, {} snapshots",
        upkeep.evicted, upkeep.emptied, upkeep.dropped, upkeep.snapshots
    );
    for (call, (held, doing)) in &tally.held {
        println!(
            "longest {call:<12}  {:.3} ms while {doing:?}",
            held.as_secs_f64() * 1000.0
        );
    }
}

/// Sums of the popularity of so many objects, as by Zipf.
fn popularity(objects: u64) -> Vec<f64> {
    let mut sum = 0.0;
    let add = |rank: u64| {
        sum += (rank as f64).powf(-ZIPF);
        sum
    };
    (1..=objects).map(add).collect()
}

/// A size between the smallest and the largest; of each doubling there are as many bytes.
fn size_of(object: u64) -> u64 {
    let share = fraction(object.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (SMALLEST / (1.0 - share * (1.0 - SMALLEST / LARGEST))) as u64
}

/// A number from 0 to 1 that looks drawn by chance.
fn fraction(of: u64) -> f64 {
    let hash = blake3::hash(&of.to_le_bytes());
    let (first, _) = hash.as_bytes().split_at(8);
    let bits = u64::from_le_bytes(first.try_into().unwrap()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0; SEGMENT];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

fn key(object: u64) -> PrimaryKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&object.to_le_bytes()).as_bytes()[..16]);
    PrimaryKey(key)
}

fn response(object: u64, bytes: u64, body: Digest) -> StoredResponse {
    let now = clock::now();
    let fields = [
        ("content-type", "application/octet-stream"),
        ("cache-control", "public, max-age=86400"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"0123456789abcdef\""),
        ("server", "origin"),
    ];
    StoredResponse {
        key: key(object),
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
        body_bytes: bytes,
        body,
        part: None,
    }
}
