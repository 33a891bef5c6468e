//! Everything at once on a small store, with real threads; then, when all is quiet, does it add up?
//!
//! What is done is counted, not timed, so that a run under a tool that slows it down ends as well.

use super::Shelf;
use super::Stored;
use super::StoredBody;
use super::lock;
use super::space;
use super::tests::found;
use super::upkeep::Eviction;
use crate::clock;
use crate::rules::address::Digest;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::freshness::Timing;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::stored::StaleWindow;
use crate::rules::stored::StoredResponse;
use crate::rules::tag::Names;
use crate::rules::tag::TagKey;
use crate::state::marks::Verdict;
use bytes::Bytes;
use hashbrown::HashSet;
use http::HeaderMap;
use http::StatusCode;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// xorshift: chance that comes the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What all threads share.
struct Stage {
    shelf: Arc<Shelf>,
    /// By key and by tag: nothing older may be found. Raised when a purge has taken hold.
    keys: Vec<AtomicU64>,
    tags: Vec<AtomicU64>,
    all: AtomicU64,
    ended: AtomicBool,
    hits: AtomicU64,
    kept: AtomicU64,
}

const KEYS: u64 = 120;
const TAGS: u64 = 6;
const LIMIT: u64 = 40 << 20;

/// How often everything is done; more when the environment asks for it.
fn rounds(count: u64) -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a longer run is asked for from outside"
    )]
    let asked = std::env::var("LARDER_STRESS").ok();
    let percent: u64 = asked.and_then(|asked| asked.parse().ok()).unwrap_or(100);
    (count * percent / 100).max(2)
}

fn place(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

fn key(n: u64) -> PrimaryKey {
    PrimaryKey([u8::try_from(n).unwrap(); 16])
}

fn tag(n: u64) -> TagKey {
    TagKey([u8::try_from(n % TAGS + 1).unwrap(); 16])
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// A body that only `n` and its neighbour have, in one of three versions; every eighth is large.
fn body(n: u64, version: u64) -> Bytes {
    let large = n.is_multiple_of(8);
    let bytes = if large {
        700_000 + n * 9000
    } else {
        200 + n * 90
    };
    let mut bytes = vec![0; usize::try_from(bytes).unwrap()];
    let seed = if large { n } else { n / 2 * 2 };
    if !large {
        bytes.truncate(200 + usize::try_from(seed * 90).unwrap());
    }
    let start = [seed.to_le_bytes(), (version % 3).to_le_bytes()].concat();
    blake3::Hasher::new()
        .update(&start)
        .finalize_xof()
        .fill(&mut bytes);
    Bytes::from(bytes)
}

fn response(n: u64, body: &Bytes) -> StoredResponse {
    let now = clock::now();
    StoredResponse {
        key: key(n),
        variant: VariantKey::ONLY,
        vary: Vec::new(),
        names: Names {
            tags: vec![tag(n)],
            ..Names::default()
        },
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        timing: Timing {
            request_time: now,
            response_time: now,
            date_value: now,
            age_value: Duration::ZERO,
        },
        lifetime: Duration::from_secs(3600),
        stale: StaleWindow::default(),
        validate_always: false,
        must_revalidate: false,
        validators: None,
        body_bytes: body.len() as u64,
        body: Digest::of(body),
        part: None,
    }
}

impl Stage {
    fn floor(&self, n: u64) -> u64 {
        let floors = [&self.keys[place(n)], &self.tags[place(n % TAGS)], &self.all];
        floors
            .map(|floor| floor.load(Ordering::SeqCst))
            .into_iter()
            .max()
            .unwrap()
    }

    fn fill(&self, seed: u64) {
        let mut chance = Chance(seed);
        wait(async {
            for version in 0..rounds(700) {
                let n = chance.below(KEYS);
                let body = body(n, version);
                let sequence = self.shelf.next_sequence();
                let response = response(n, &body);
                let kept = if n.is_multiple_of(8) {
                    self.draft(sequence, response, &body).await
                } else {
                    self.shelf
                        .keep(sequence, Arc::new(response), body)
                        .await
                        .is_ok()
                };
                self.kept.fetch_add(u64::from(kept), Ordering::Relaxed);
            }
        });
    }

    async fn draft(&self, sequence: Sequence, response: StoredResponse, body: &Bytes) -> bool {
        let mut draft = self.shelf.draft(sequence, response.key);
        for part in [body.slice(..400_000), body.slice(400_000..)] {
            let Ok(segment) = draft.segment(part.clone()).await else {
                return false;
            };
            // Who joined the fill reads what it has written.
            let read = self.shelf.read_segment(segment, true).await.unwrap();
            assert_eq!(read, part);
        }
        draft.finish(response).await.is_ok()
    }

    fn read(&self, seed: u64) {
        let mut chance = Chance(seed);
        wait(async {
            while !self.ended.load(Ordering::Relaxed) {
                let n = chance.below(KEYS);
                let floor = self.floor(n);
                let Some(found) = found(&self.shelf, key(n)) else {
                    continue;
                };
                let Some(stored) = self.shelf.load(found).await else {
                    continue;
                };
                assert!(found.sequence.0 >= floor, "purged before it was looked up");
                self.check(n, &stored).await;
                self.hits.fetch_add(1, Ordering::Relaxed);
                if chance.below(20) == 0 {
                    // As after a 304.
                    let since = self.shelf.next_sequence();
                    let again = Arc::clone(&stored.response);
                    drop(self.shelf.keep_head(since, &stored, again).await);
                }
            }
        });
    }

    async fn check(&self, n: u64, stored: &Stored) {
        assert_eq!(stored.response.key, key(n), "another key's head");
        let bytes = match &stored.body {
            StoredBody::Memory(bytes) => bytes.clone(),
            StoredBody::Segments(segments, _pins) => {
                let mut whole = Vec::new();
                for segment in segments.iter() {
                    // Checked against its digest; pinned, so it is there.
                    whole.extend(self.shelf.read_segment(*segment, true).await.unwrap());
                }
                Bytes::from(whole)
            }
        };
        assert!(
            (0..3).any(|version| bytes == body(n, version)),
            "a wrong byte"
        );
        assert_eq!(Digest::of(&bytes), stored.response.body);
    }

    fn purge(&self, seed: u64) {
        let mut chance = Chance(seed);
        for round in 0..rounds(120) {
            let n = chance.below(KEYS);
            let (selector, floor) = if round % 40 == 39 {
                (Selector::All, &self.all)
            } else if round % 8 == 7 {
                (Selector::Tag(None, tag(n)), &self.tags[place(n % TAGS)])
            } else {
                (Selector::Url(key(n)), &self.keys[place(n)])
            };
            let mark = self.shelf.purge(std::slice::from_ref(&selector));
            floor.fetch_max(mark.sequence.0, Ordering::SeqCst);
            assert!(wait(self.shelf.record_purge(mark, &[selector])));
        }
    }

    /// Keeps the thread that makes room busy, and writes snapshots beside it.
    fn tend(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            self.shelf.ask_for_room();
            self.shelf.snapshot();
            let usage = self.shelf.usage();
            assert!(
                usage.allocated <= usage.limit && usage.corrupt == 0,
                "{usage:?}"
            );
        }
    }
}

fn puts(shelf: &Shelf) -> Vec<Put> {
    let (mut puts, _) = shelf.read_index().page(0, u32::MAX);
    puts.sort_by_key(|put| put.sequence);
    puts
}

fn on_disk(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    metadata.blocks() * 512 + below.map(|entry| on_disk(&entry.path())).sum::<u64>()
}

fn pack_files(path: &Path) -> usize {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let count = |path: &Path| if path.is_dir() { pack_files(path) } else { 1 };
    below.map(|entry| count(&entry.path())).sum()
}

/// What holds when nothing is under way and the thread that makes room has ended.
fn check_quiet(shelf: &Arc<Shelf>, dir: &Path) {
    wait(shelf.store.flush()).unwrap();
    while shelf.drop_empty_packs() > 0 {}
    wait(shelf.store.flush()).unwrap();
    let index = shelf.read_index();
    assert_eq!(index.check(), [""; 0]);
    let packs: HashSet<PackId> = shelf
        .store
        .packs()
        .into_iter()
        .map(|(pack, _)| pack)
        .collect();
    let unreferred = packs.iter().filter(|pack| index.live(**pack) == 0).count();
    assert_eq!(unreferred, 0, "packs without a referrer");
    drop(index);
    for put in puts(shelf) {
        let there = std::iter::once(put.head).chain(put.parts.locations());
        assert!(
            there.into_iter().all(|at| packs.contains(&at.pack)),
            "a referrer without a pack"
        );
    }
    assert!(lock(&shelf.pins).is_empty() && lock(&shelf.pending).is_empty());
    assert_eq!(shelf.lanes.load(Ordering::Relaxed), 0);
    assert_eq!(pack_files(&dir.join("content-v2")), packs.len());
    let usage = shelf.usage();
    let allocated: u64 = shelf
        .store
        .packs()
        .iter()
        .map(|(_, allocated)| allocated)
        .sum();
    let content = on_disk(&dir.join("content-v2"));
    // The folders that all packs lie in are counted with none of them.
    assert!(
        content.saturating_sub(257 * 4096) <= allocated,
        "{content} on disk, {allocated} counted"
    );
    assert!(
        allocated <= content + packs.len() as u64 * 2 * 4096,
        "{allocated} counted, {content} on disk"
    );
    assert!(on_disk(dir) <= usage.allocated && usage.allocated <= usage.limit);
    assert_eq!(usage.corrupt, 0);
}

#[test]
fn all_at_once_on_a_small_store_adds_up_when_all_is_quiet() {
    let dir = TempDir::new().unwrap();
    let params = crate::store::Params {
        dir: dir.path().to_path_buf(),
        disk_bytes_max: LIMIT,
    };
    let shelf = Shelf::open(&params, 1 << 20, 8 << 20).unwrap();
    shelf.scrub_at(20 << 20);
    let room = space::start(&shelf).unwrap();
    let none = |count: u64| (0..count).map(|_| AtomicU64::new(0)).collect();
    let stage = Stage {
        shelf: Arc::clone(&shelf),
        keys: none(KEYS),
        tags: none(TAGS),
        all: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        hits: AtomicU64::new(0),
        kept: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let stage = &stage;
        let doing: Vec<_> = [
            scope.spawn(|| stage.fill(1)),
            scope.spawn(|| stage.fill(2)),
            scope.spawn(|| stage.purge(3)),
        ]
        .into();
        for seed in 4..7 {
            scope.spawn(move || stage.read(seed));
        }
        scope.spawn(|| stage.tend());
        let ended: Vec<_> = doing
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        stage.ended.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    space::close(&shelf);
    room.join().unwrap();
    assert!(stage.hits.load(Ordering::Relaxed) > 0 && stage.kept.load(Ordering::Relaxed) > 0);
    check_quiet(&shelf, dir.path());
    let (before, marks) = (puts(&shelf), shelf.read_index().marks().all().len());
    println!(
        "{} hits, {} kept, {} evicted, {} left in {} packs",
        stage.hits.load(Ordering::Relaxed),
        stage.kept.load(Ordering::Relaxed),
        shelf.upkeep().done().evicted(Eviction::Room),
        before.len(),
        shelf.usage().packs,
    );
    shelf.close();
    drop((stage, shelf));
    let shelf = Shelf::open(&params, 0, 8 << 20).unwrap();
    assert_eq!(puts(&shelf), before, "the journal says something else");
    assert_eq!(shelf.read_index().marks().all().len(), marks);
    check_quiet(&shelf, dir.path());
    for n in 0..KEYS {
        let Some(found) = found(&shelf, key(n)) else {
            continue;
        };
        if let Some(stored) = wait(shelf.load(found)) {
            let verdict = shelf.verdict(found.sequence, &stored.response);
            assert_eq!(verdict, Verdict::Clear);
        }
    }
}
