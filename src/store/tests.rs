//! The store as its caller sees it: over real files, in folders of their own.

mod lending;

use super::*;
use crate::store::faults::Fault;
use crate::store::faults::Faults;
use crate::store::files::Step;
use crate::store::head::tests::sample;
use crate::store::journal::tests::put;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Condvar;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use tempfile::TempDir;

const KEY: PrimaryKey = PrimaryKey([1; 16]);
const MIB: u64 = 1 << 20;

/// Wants everything but what it was told not to, and remembers what it was told.
#[derive(Default)]
struct Wants {
    unwanted: Mutex<HashSet<Sequence>>,
    told: Mutex<(Vec<PackId>, Vec<PackId>)>,
    losses: AtomicU64,
    news: Condvar,
}

impl Keeper for Wants {
    fn wanted(&self, sequence: Sequence) -> bool {
        !lock(&self.unwanted).contains(&sequence)
    }
    fn lost(&self, packs: &[PackId]) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        lock(&self.told).1.extend(packs);
        self.news.notify_all();
    }
    fn sealed(&self, pack: PackId, allocated: u64) {
        assert!(allocated > 0);
        lock(&self.told).0.push(pack);
        self.news.notify_all();
    }
}

impl Wants {
    fn wait_until(&self, done: impl Fn(&[PackId], &[PackId]) -> bool) {
        let told = lock(&self.told);
        let (_told, waited) = self
            .news
            .wait_timeout_while(told, Duration::from_secs(20), |(sealed, lost)| {
                !done(sealed, lost)
            })
            .unwrap();
        assert!(!waited.timed_out());
    }
}

fn params(dir: &Path, mib: u64) -> Params {
    Params {
        dir: dir.to_path_buf(),
        disk_bytes_max: mib * MIB,
    }
}

fn open(dir: &Path) -> (Store, Vec<Record>) {
    let mut records = Vec::new();
    let store = Store::open(&params(dir, 256), &mut |record| records.push(record)).unwrap();
    (store, records)
}

fn started(dir: &Path) -> (Store, Arc<Wants>) {
    let keeper = Arc::new(Wants::default());
    let (store, _) = open(dir);
    store.start(Arc::clone(&keeper) as Arc<dyn Keeper>);
    (store, keeper)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Waits for what nothing tells: the writing thread sees and mends trouble at its ticks.
fn wait_for(done: impl Fn() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5)); // waits because nothing tells
    }
    panic!("waited in vain");
}

/// Bytes that differ by `seed` and do not compress.
fn bytes(seed: u64, count: usize) -> Bytes {
    let mut out = vec![0; count];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    Bytes::from(out)
}

pub(super) fn hard(sequence: u64) -> Mark {
    Mark::hard(Sequence(sequence), SystemTime::UNIX_EPOCH)
}

/// Stores a head and a body of one segment, and returns the put that was recorded.
fn store_one(store: &Store, sequence: u64, body: &Bytes) -> Put {
    let pieces = [
        NewPiece::Head(head::encode(Sequence(sequence), &sample())),
        NewPiece::Segment(Digest::of(body), body.clone()),
    ];
    let places = store
        .append(None, Sequence(sequence), KEY, &pieces)
        .unwrap();
    let mut put = put(sequence, &places);
    put.body = Digest::of(body).name();
    store.record_put(put.clone());
    put
}

/// Where the one segment of a put's body lies.
fn body_at(put: &Put) -> Location {
    put.parts.locations().next().unwrap()
}

fn puts(records: &[Record]) -> Vec<Put> {
    let put = |record: &Record| match record {
        Record::Put(put) => Some(put.clone()),
        Record::Remove(_) | Record::Purge { .. } => None,
    };
    records.iter().filter_map(put).collect()
}

/// What a `kill -9` at this moment would leave: a copy of all files, without the lock.
fn killed(dir: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

/// What `du` would say.
fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let mut total = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            total += allocated(&entry.path());
        }
    }
    total
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let bodies: Vec<_> = (0..50).map(|seed| bytes(seed, 500 * 40)).collect();
    let stored: Vec<_> = bodies
        .iter()
        .zip(1..)
        .map(|(body, sequence)| store_one(&store, sequence, body))
        .collect();
    store.close();
    drop(store);
    let (store, records) = open(dir.path());
    assert_eq!(puts(&records), stored);
    for (put, body) in stored.iter().zip(&bodies) {
        let head = store.read(put.head).unwrap();
        assert_eq!(head::decode(&head), Some((put.sequence, sample())));
        assert_eq!(store.read(body_at(put)).unwrap(), body);
        assert!(store.read_open(put.head).is_none());
    }
}

#[test]
fn a_head_and_its_segment_are_read_in_one_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let body = bytes(1, 1000);
    let put = store_one(&store, 1, &body);
    let both = Location {
        bytes: put.head.bytes + 1000,
        ..put.head
    };
    let in_memory = store.read_open(both).unwrap();
    wait(store.flush()).unwrap();
    assert!(store.read_open(both).is_none());
    let on_disk = store.read(both).unwrap();
    assert_eq!(in_memory, on_disk);
    assert_eq!(on_disk[put.head.bytes as usize..], body);
}

#[test]
fn appends_stay_readable_before_the_thread_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let body = bytes(1, 1000);
    let put = store_one(&store, 1, &body);
    assert_eq!(store.read(body_at(&put)).unwrap(), body);
    let refused = wait(store.flush());
    assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    let keeper = Arc::new(Wants::default());
    store.start(keeper);
    wait(store.flush()).unwrap();
    assert_eq!(store.usage().packs, 1);
}

#[test]
fn the_shared_pack_is_written_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keeper) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 10));
    keeper.wait_until(|sealed, _| sealed == [put.head.pack]);
}

#[test]
fn bytes_are_readable_at_every_moment_of_their_way_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (told, stored) = std::sync::mpsc::channel::<Put>();
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            let mut known: Vec<Put> = Vec::new();
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                known.extend(stored.try_iter());
                for put in &known {
                    let bytes = store.read(body_at(put)).unwrap();
                    assert_eq!(Digest::of(&bytes).name(), put.body);
                }
            }
        });
        for n in 0..40 {
            told.send(store_one(store, n, &bytes(n, 3000))).unwrap();
            wait(store.flush()).unwrap();
        }
        drop(stop);
    });
}

#[test]
fn a_flush_ends_the_open_packs_of_lanes_and_the_lane_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let mut lane = store.lane().unwrap();
    let mut append = |text: &'static [u8]| {
        let piece = [NewPiece::Segment(
            Digest::of(text),
            Bytes::from_static(text),
        )];
        store
            .append(Some(&mut lane), Sequence(1), KEY, &piece)
            .unwrap()
    };
    let first = append(b"first");
    wait(store.flush()).unwrap();
    let second = append(b"second");
    assert_ne!(first[0].pack, second[0].pack);
    assert_eq!(store.read(first[0]).unwrap(), "first");
    assert_eq!(store.read(second[0]).unwrap(), "second");
}

#[test]
fn a_large_body_fills_packs_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let mut lane = store.lane().unwrap();
    let mut places = Vec::new();
    for seed in 0..9 {
        let segment = bytes(seed, 1 << 20);
        let piece = [NewPiece::Segment(Digest::of(&segment), segment)];
        places.extend(
            store
                .append(Some(&mut lane), Sequence(2), KEY, &piece)
                .unwrap(),
        );
    }
    let small = store_one(&store, 1, &bytes(99, 10));
    store.finish(lane);
    wait(store.flush()).unwrap();
    let packs: HashSet<_> = places.iter().map(|place| place.pack).collect();
    assert_eq!(packs.len(), 3);
    assert!(!packs.contains(&small.head.pack));
    for (place, seed) in places.iter().zip(0..) {
        assert_eq!(store.read(*place).unwrap(), bytes(seed, 1 << 20));
    }
}

#[test]
fn a_lane_that_is_dropped_takes_its_open_pack_along() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let before = store.usage().allocated;
    let mut lane = store.lane().unwrap();
    let piece = [NewPiece::Segment(
        Digest::of(b"x"),
        Bytes::from_static(b"x"),
    )];
    let places = store
        .append(Some(&mut lane), Sequence(1), KEY, &piece)
        .unwrap();
    drop(lane);
    let gone = store.read(places[0]);
    assert!(matches!(gone, Err(StoreError::Missing(_))));
    assert_eq!(store.usage().allocated, before);
}

#[test]
fn puts_that_wait_for_a_pack_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let before = store.usage().allocated;
    let piece = [NewPiece::Head(head::encode(Sequence(1), &sample()))];
    let mut lane = store.lane().unwrap();
    let places = store.append(Some(&mut lane), Sequence(1), KEY, &piece);
    store.record_put(put(1, &places.unwrap()));
    drop(lane);
    let places = store.append(None, Sequence(2), KEY, &piece).unwrap();
    store.record_put(put(2, &places));
    store.drop_pack(places[0].pack);
    wait(store.flush()).unwrap();
    assert_eq!(store.usage().allocated, before);
}

#[test]
fn a_put_with_a_part_in_a_pack_that_is_gone_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let piece = [NewPiece::Head(head::encode(Sequence(1), &sample()))];
    let head = store.append(None, Sequence(1), KEY, &piece).unwrap()[0];
    store.drop_pack(head.pack);
    let body = store.append(None, Sequence(1), KEY, &piece).unwrap()[0];
    // Whichever part is gone, and though another one has to be waited for.
    for places in [[head, body], [body, head]] {
        let put = put(1, &places);
        assert_eq!(store.record_put(put.clone()), Some(put));
    }
    assert_eq!(store.record_put(put(1, &[body, body])), None);
}

#[test]
fn a_pack_that_the_heir_needs_stays_though_what_names_it_was_purged() {
    struct Needs(bool);
    impl Heir for Needs {
        fn take(&mut self, _record: Record) {}
        fn needs(&self, _pack: PackId) -> bool {
            self.0
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    wait(store.record_purge(hard(2), &[Selector::All])).unwrap();
    drop(store);
    for needs in [true, false] {
        let store = Store::open(&params(dir.path(), 32), &mut Needs(needs)).unwrap();
        assert_eq!(store.packs().len(), usize::from(needs));
    }
}

#[test]
fn what_was_moved_is_on_disk_when_it_has_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _wants) = started(dir.path());
    let piece = [NewPiece::Head(bytes(1, 100))];
    store.append(None, Sequence(1), KEY, &piece).unwrap();
    let mut lane = store.moving_lane();
    let append = store.append(Some(&mut lane), Sequence(2), KEY, &piece);
    let moved = append.unwrap()[0];
    store.finish(lane);
    wait(store.settle()).unwrap();
    assert_eq!(store.read_open(moved), None, "it is not in memory any more");
    assert_eq!(store.usage().appended, 200);
    assert!(store.usage().packs_written > 100 && store.usage().journal_written > 0);
    wait(store.flush()).unwrap();
    assert_eq!(store.usage().packs, 2);
}

#[test]
fn lanes_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let lanes: Vec<_> = (0..1000).map_while(|_| store.lane().ok()).collect();
    assert!(lanes.len() < 1000);
    assert!(matches!(store.lane(), Err(StoreError::NoRoom)));
    drop(lanes);
    drop(store.lane().unwrap());
}

#[test]
fn at_most_so_many_packs_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let body = bytes(1, 1 << 20);
    let piece = [NewPiece::Segment(Digest::of(&body), body)];
    let append = |sequence| store.append(None, Sequence(sequence), KEY, &piece);
    let taken = (0..100).take_while(|n| append(*n).is_ok()).count();
    assert_eq!(taken, 27);
    assert!(matches!(append(100), Err(StoreError::NoRoom)));
    assert_eq!(store.room_needed(), 0);
}

#[test]
fn an_append_too_large_for_a_pack_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let large = Bytes::from(vec![0; 4 << 20]);
    let refused = store.append(None, Sequence(1), KEY, &[NewPiece::Head(large)]);
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
}

#[test]
fn after_a_kill_what_was_journaled_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let kept = store_one(&store, 1, &bytes(1, 5000));
    wait(store.flush()).unwrap();
    store_one(&store, 2, &bytes(2, 5000));
    let copy = killed(dir.path());
    let (again, records) = open(copy.path());
    assert_eq!(puts(&records), std::slice::from_ref(&kept));
    assert_eq!(again.read(body_at(&kept)).unwrap(), bytes(1, 5000));
}

#[test]
fn a_journal_cut_at_any_byte_never_stops_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let stored: Vec<_> = (1..4)
        .map(|n| store_one(&store, n, &bytes(n, 100)))
        .collect();
    wait(store.flush()).unwrap();
    wait(store.record_purge(hard(9), &[Selector::Url(PrimaryKey([2; 16]))])).unwrap();
    let journal = dir.path().join("journal/0000000000000001.journal");
    let whole = fs::read(&journal).unwrap();
    let mut most = 0;
    for cut in 0..=whole.len() {
        let copy = killed(dir.path());
        let torn = copy.path().join("journal/0000000000000001.journal");
        fs::write(torn, &whole[..cut]).unwrap();
        let (_, records) = open(copy.path());
        assert_eq!(puts(&records), stored[..puts(&records).len()]);
        most = most.max(records.len());
    }
    assert_eq!(most, 4);
}

#[test]
fn a_changed_byte_in_the_journal_never_stops_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    let whole = fs::read(dir.path().join("journal/0000000000000001.journal")).unwrap();
    for at in 0..whole.len() {
        let copy = killed(dir.path());
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        fs::write(
            copy.path().join("journal/0000000000000001.journal"),
            changed,
        )
        .unwrap();
        let (store, records) = open(copy.path());
        for put in puts(&records) {
            assert!(store.read(put.head).is_ok());
        }
    }
}

#[test]
fn puts_whose_pack_is_missing_or_short_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let mut stored = Vec::new();
    let mut paths = Vec::new();
    for n in 1..4 {
        stored.push(store_one(&store, n, &bytes(n, 100)));
        wait(store.flush()).unwrap();
        let new = files(&dir.path().join("content-v2"));
        paths.push(new.into_iter().find(|path| !paths.contains(path)).unwrap());
    }
    drop(store);
    fs::remove_file(&paths[0]).unwrap();
    let short = fs::read(&paths[1]).unwrap();
    fs::write(&paths[1], &short[..short.len() - 1]).unwrap();
    let (store, records) = open(dir.path());
    assert_eq!(puts(&records), stored[2..]);
    assert_eq!(files(&dir.path().join("content-v2")), paths[2..]);
    assert_eq!(store.packs().len(), 1);
}

#[test]
fn removals_are_heeded_and_purges_come_back_and_both_free_their_packs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    for n in 1..4 {
        store_one(&store, n, &bytes(n, 100));
        wait(store.flush()).unwrap();
    }
    store.record_remove(Sequence(1));
    let url = Selector::Url(PrimaryKey([2; 16]));
    wait(store.record_purge(hard(5), std::slice::from_ref(&url))).unwrap();
    let copy = killed(dir.path());
    let (store, records) = open(copy.path());
    let sequences: Vec<_> = puts(&records).iter().map(|put| put.sequence).collect();
    assert_eq!(sequences, [Sequence(2), Sequence(3)]);
    assert_eq!(records.len(), 3);
    let purge = Record::Purge {
        mark: hard(5),
        selector: url,
    };
    assert_eq!(records[2], purge);
    assert_eq!(store.packs().len(), 1);
    assert_eq!(files(&copy.path().join("content-v2")).len(), 1);
}

#[test]
fn an_entry_that_is_no_longer_wanted_is_not_journaled() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keeper) = started(dir.path());
    lock(&keeper.unwanted).insert(Sequence(1));
    store_one(&store, 1, &bytes(1, 100));
    store_one(&store, 2, &bytes(2, 100));
    drop(store);
    let (_, records) = open(dir.path());
    let sequences: Vec<_> = puts(&records).iter().map(|put| put.sequence).collect();
    assert_eq!(sequences, [Sequence(2)]);
}

/// Lets go of the store when it is told of a pack.
struct LastHandle(Mutex<Option<Arc<Store>>>, std::sync::mpsc::Sender<()>);

impl Keeper for LastHandle {
    fn wanted(&self, _: Sequence) -> bool {
        true
    }
    fn lost(&self, _: &[PackId]) {}
    fn sealed(&self, _: PackId, _: u64) {
        drop(lock(&self.0).take());
        self.1.send(()).unwrap();
    }
}

#[test]
fn a_keeper_may_let_go_of_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).0);
    let (told, gone) = std::sync::mpsc::channel();
    let keeper = LastHandle(Mutex::new(Some(Arc::clone(&store))), told);
    store.start(Arc::new(keeper));
    let put = store_one(&store, 1, &bytes(1, 100));
    drop(store);
    gone.recv().unwrap();
    // The thread ends by itself, and the lock with it.
    wait_for(|| Store::open(&params(dir.path(), 32), &mut |_| {}).is_ok());
    assert_eq!(puts(&open_records(dir.path())), [put]);
}

#[test]
fn pack_numbers_never_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    for n in 1..5 {
        let (store, _) = started(dir.path());
        let put = store_one(&store, n, &bytes(n, 100));
        assert!(Some(put.head.pack) > last);
        last = Some(put.head.pack);
        wait(store.flush()).unwrap();
        store.record_remove(put.sequence);
        store.drop_pack(put.head.pack);
        assert_eq!(files(&dir.path().join("content-v2")), Vec::<PathBuf>::new());
        if n % 2 == 0 {
            store.snapshot(&mut Vec::new).unwrap();
        }
    }
}

#[test]
fn a_dropped_pack_is_gone_in_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let open = store_one(&store, 1, &bytes(1, 100));
    store.drop_pack(open.head.pack);
    assert!(matches!(store.read(open.head), Err(StoreError::Missing(_))));
    let sealed = store_one(&store, 2, &bytes(2, 100));
    wait(store.flush()).unwrap();
    assert_eq!(
        store.read(sealed.head).unwrap().len(),
        sealed.head.bytes as usize
    );
    store.drop_pack(sealed.head.pack);
    assert!(matches!(
        store.read(sealed.head),
        Err(StoreError::Missing(_))
    ));
    assert!(matches!(
        store.pieces(sealed.head.pack),
        Err(StoreError::Missing(_))
    ));
    drop(store);
    assert_eq!(open_records(dir.path()), []);
}

fn open_records(dir: &Path) -> Vec<Record> {
    open(dir).1
}

#[test]
fn a_read_outside_a_pack_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    for (offset, bytes) in [(0, 10), (32, u32::MAX), (u32::MAX, u32::MAX), (1 << 22, 1)] {
        let outside = Location {
            offset,
            bytes,
            ..put.head
        };
        let refused = store.read(outside);
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })));
    }
}

#[test]
fn a_pack_in_another_ones_place_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let mut stored = Vec::new();
    for n in 1..3 {
        stored.push(store_one(&store, n, &bytes(n, 100)));
        wait(store.flush()).unwrap();
    }
    drop(store);
    let paths = files(&dir.path().join("content-v2"));
    let contents: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(contents[0].len(), contents[1].len());
    fs::write(&paths[0], &contents[1]).unwrap();
    fs::write(&paths[1], &contents[0]).unwrap();
    let (store, records) = open(dir.path());
    assert_eq!(puts(&records), stored);
    for put in stored {
        let table = store.pieces(put.head.pack);
        assert!(matches!(table, Err(StoreError::Corrupt { .. })));
        let head = store.read(put.head).unwrap();
        assert_ne!(
            head::decode(&head).map(|(sequence, _)| sequence),
            Some(put.sequence)
        );
        let body = store.read(body_at(&put)).unwrap();
        assert_ne!(Digest::of(&body).name(), put.body);
    }
}

#[test]
fn a_snapshot_replaces_the_journal_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let first: Vec<_> = (1..40)
        .map(|n| store_one(&store, n, &bytes(n, 100)))
        .collect();
    wait(store.flush()).unwrap();
    store.record_remove(Sequence(1));
    let mut batches = first[1..].chunks(7).map(<[Put]>::to_vec);
    let mut meanwhile = None;
    store
        .snapshot(&mut || {
            meanwhile.get_or_insert_with(|| {
                store.record_remove(Sequence(2));
                store_one(&store, 50, &bytes(50, 100))
            });
            let puts = batches.next().unwrap_or_default();
            puts.into_iter().map(Record::Put).collect()
        })
        .unwrap();
    drop(store);
    // Snapshot and journal, each with its copy.
    assert_eq!(files(&dir.path().join("journal")).len(), 4);
    let (_, records) = open(dir.path());
    let mut expected: Vec<_> = first[2..].iter().cloned().map(Record::Put).collect();
    expected.push(Record::Put(meanwhile.unwrap()));
    assert_eq!(records, expected);
}

#[test]
fn a_snapshot_cut_short_leaves_the_journal_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    let mut copy = None;
    store
        .snapshot(&mut || {
            copy.get_or_insert_with(|| killed(dir.path()));
            Vec::new()
        })
        .unwrap();
    let copy = copy.unwrap();
    assert_eq!(puts(&open_records(copy.path())), [put]);
    let left = files(&copy.path().join("journal"));
    assert!(left.iter().all(|path| {
        ["journal", "purges"]
            .iter()
            .any(|end| path.extension().unwrap() == *end)
    }));
}

#[test]
fn a_long_journal_asks_for_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Arc::new(Wants::default());
    let store = Store::open(&params(dir.path(), 32), &mut |_| {}).unwrap();
    store.start(keeper);
    assert!(!store.wants_snapshot());
    for n in 0..40_000 {
        store.record_remove(Sequence(n));
    }
    wait(store.flush()).unwrap();
    assert!(store.wants_snapshot());
    let before = store.usage();
    store.snapshot(&mut Vec::new).unwrap();
    assert!(!store.wants_snapshot());
    assert!(store.usage().allocated < before.allocated);
    assert_eq!(before.journaled, 0, "removals are no entries");
}

#[test]
fn the_limit_is_never_exceeded() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 32 * MIB;
    let keeper = Arc::new(Wants::default());
    let store = Store::open(&params(dir.path(), 32), &mut |_| {}).unwrap();
    store.start(Arc::clone(&keeper) as Arc<dyn Keeper>);
    let body = bytes(7, 300_000);
    let piece = [NewPiece::Segment(Digest::of(&body), body)];
    let mut refused = 0;
    for n in 0..600 {
        while let Err(error) = store.append(None, Sequence(n), KEY, &piece) {
            assert!(matches!(error, StoreError::NoRoom));
            refused += 1;
            match store.packs().into_iter().min() {
                Some((oldest, _)) if store.room_needed() > 0 => assert!(store.drop_pack(oldest)),
                _ => wait(store.flush()).unwrap(),
            }
        }
        if n % 3 == 0 {
            wait(store.flush()).unwrap();
        }
        if n % 10 == 0 {
            let usage = store.usage();
            let on_disk = allocated(dir.path());
            assert!(
                on_disk <= usage.allocated && on_disk <= limit,
                "{on_disk} {usage:?}"
            );
        }
    }
    assert!(refused > 20);
}

#[test]
fn folders_of_many_small_packs_count() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    for n in 0..300 {
        store_one(&store, n, &bytes(n, 10));
        wait(store.flush()).unwrap();
    }
    assert!(allocated(dir.path()) <= store.usage().allocated);
    let packs = store.packs();
    assert_eq!(packs.len(), 300);
    for (pack, _) in packs {
        store.drop_pack(pack);
    }
    assert!(allocated(dir.path()) <= store.usage().allocated);
    assert_eq!(files(&dir.path().join("content-v2")), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_taken_away_is_passed_through_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("store");
    let (store, keeper) = started(&inner);
    let old = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    fs::remove_dir_all(&inner).unwrap();
    // The sealed pack is told lost as a part of the recovery.
    keeper.wait_until(|_, lost| lost == [old.head.pack]);
    assert!(matches!(store.read(old.head), Err(StoreError::Missing(_))));
    wait_for(|| store.condition() == Condition::Healthy);
    assert!(store.wants_snapshot());
    let new = store_one(&store, 2, &bytes(2, 100));
    wait(store.flush()).unwrap();
    store.snapshot(&mut Vec::new).unwrap();
    store.record_put(new.clone());
    drop(store);
    assert_eq!(puts(&open_records(&inner)), [new]);
}

#[test]
fn packs_taken_away_together_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("store");
    let (store, keeper) = started(&inner);
    for sequence in 1..=3 {
        store_one(&store, sequence, &bytes(sequence, 100));
        wait(store.flush()).unwrap();
    }
    fs::remove_dir_all(&inner).unwrap();
    keeper.wait_until(|_, lost| lost.len() == 3);
    assert_eq!(keeper.losses.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_left_of_a_lost_pack_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keeper) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    let contents = dir.path().join("content-v2");
    let [pack] = files(&contents).try_into().unwrap();
    fs::File::options()
        .write(true)
        .open(pack)
        .unwrap()
        .set_len(50)
        .unwrap();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    keeper.wait_until(|_, lost| lost == [put.head.pack]);
    assert_eq!(files(&contents), Vec::<PathBuf>::new());
}

#[test]
fn a_start_on_a_disk_that_takes_no_journal_passes_through_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let old = store_one(&store, 1, &bytes(1, 100));
    drop(store);
    // A folder where the next journal belongs: as good as a full disk.
    let taken = dir.path().join(format!("journal/{}.journal", u64::MAX));
    fs::create_dir(&taken).unwrap();
    let (store, records) = open(dir.path());
    assert_eq!(records, [Record::Put(old.clone())]);
    assert!(matches!(store.condition(), Condition::PassThrough(_)));
    store.start(Arc::new(Wants::default()));
    assert!(store.read(old.head).is_ok());
    assert!(wait(store.record_purge(hard(3), &[Selector::All])).is_err());
    fs::remove_dir(&taken).unwrap();
    wait_for(|| store.condition() == Condition::Healthy);
    drop(store);
    let purge = Record::Purge {
        mark: hard(3),
        selector: Selector::All,
    };
    assert_eq!(open_records(dir.path()), [Record::Put(old), purge]);
}

#[test]
fn a_pack_that_cannot_be_written_is_written_when_the_disk_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keeper) = started(dir.path());
    // A file where a folder belongs: as good as a broken disk, also for root.
    fs::remove_dir(dir.path().join("tmp")).unwrap();
    fs::write(dir.path().join("tmp"), b"").unwrap();
    let late = store_one(&store, 1, &bytes(1, 100));
    assert!(wait(store.flush()).is_err());
    assert!(matches!(store.condition(), Condition::PassThrough(_)));
    assert!(store.read(late.head).is_ok(), "it is in memory");
    let refused = store.append(None, Sequence(2), KEY, &[]);
    assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    wait(store.record_purge(hard(3), &[Selector::All])).unwrap();
    fs::remove_file(dir.path().join("tmp")).unwrap();
    wait_for(|| store.condition() == Condition::Healthy);
    keeper.wait_until(|sealed, lost| sealed == [late.head.pack] && lost.is_empty());
    let kept = store_one(&store, 4, &bytes(4, 100));
    drop(store);
    assert_eq!(puts(&open_records(dir.path())), [late, kept]);
}

#[test]
fn a_purge_during_trouble_is_written_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("store");
    let (store, _) = started(&inner);
    fs::remove_dir_all(&inner).unwrap();
    wait_for(|| store.condition() != Condition::Healthy);
    drop(wait(store.record_purge(hard(3), &[Selector::All])));
    wait_for(|| store.condition() == Condition::Healthy);
    drop(store);
    let purge = Record::Purge {
        mark: hard(3),
        selector: Selector::All,
    };
    assert_eq!(open_records(&inner), [purge]);
}

#[test]
fn contents_that_no_record_names_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let kept = store_one(&store, 1, &bytes(1, 100));
    drop(store);
    let stray = dir.path().join("content-v2/xxh3/aa/bb");
    fs::create_dir_all(&stray).unwrap();
    fs::write(stray.join("0123456789abcdef0123456789ab"), b"stray").unwrap();
    fs::write(dir.path().join("tmp/.tmpabc"), b"half").unwrap();
    assert_eq!(puts(&open_records(dir.path())), [kept]);
    assert_eq!(files(&dir.path().join("content-v2")).len(), 1);
    assert_eq!(files(&dir.path().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_second_store_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let second = Store::open(&params(dir.path(), 32), &mut |_| {});
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn a_closed_store_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let body = bytes(1, 100);
    let put = store_one(&store, 1, &body);
    store.close();
    store.close();
    assert_eq!(store.read(body_at(&put)).unwrap(), body);
    let refused = store.append(None, Sequence(2), KEY, &[]);
    assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    assert!(wait(store.flush()).is_err());
    assert!(wait(store.record_purge(hard(3), &[Selector::All])).is_err());
}

/// Flips one bit of a file.
fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

const PURGED: PrimaryKey = PrimaryKey([2; 16]);

/// A store that was killed after two puts, a purge and one more put.
fn purged_in_the_middle() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    for n in 1..3 {
        store_one(&store, n, &bytes(n, 100));
    }
    wait(store.flush()).unwrap();
    wait(store.record_purge(hard(5), &[Selector::Url(PURGED)])).unwrap();
    store_one(&store, 6, &bytes(6, 100));
    wait(store.flush()).unwrap();
    killed(dir.path())
}

/// Do these records purge [`PURGED`]?
fn purges(records: &[Record]) -> bool {
    records.iter().any(|record| match record {
        Record::Purge { selector, .. } => {
            *selector == Selector::All || *selector == Selector::Url(PURGED)
        }
        Record::Put(_) | Record::Remove(_) => false,
    })
}

#[test]
fn no_flipped_bit_in_the_journal_or_its_copy_undoes_a_purge_and_each_is_counted() {
    let dir = purged_in_the_middle();
    for name in ["0000000000000001.journal", "0000000000000001.purges"] {
        let whole = fs::read(dir.path().join("journal").join(name)).unwrap();
        for bit in (0..whole.len() * 8).step_by(13) {
            let path = dir.path().join("journal").join(name);
            flip(&path, bit);
            let (_, records, damaged) = looked_at(dir.path());
            assert!(purges(&records), "bit {bit} of {name}");
            // The length of the last record, made longer, looks like what a kill leaves.
            assert!(
                damaged == 1 || whole.len() - bit / 8 < 250,
                "bit {bit} of {name}"
            );
            let everything = |record: &Record| {
                let all = Selector::All;
                matches!(record, Record::Purge { selector, .. } if *selector == all)
            };
            assert!(!records.iter().any(everything), "bit {bit} of {name}");
            fs::write(path, &whole).unwrap();
        }
    }
}

/// The records that a start would find, and the damage, without a change to the files.
fn looked_at(dir: &Path) -> (Store, Vec<Record>, u64) {
    let mut records = Vec::new();
    let journal = dir.join("journal");
    let before = files(&journal);
    let store = Store::open(&params(dir, 256), &mut |record| records.push(record)).unwrap();
    for path in files(&journal).iter().filter(|path| !before.contains(path)) {
        fs::remove_file(path).unwrap();
    }
    let damaged = store.usage().corrupt;
    (store, records, damaged)
}

#[test]
fn when_a_journal_and_its_copy_are_damaged_everything_before_is_purged() {
    let dir = purged_in_the_middle();
    for name in ["0000000000000001.journal", "0000000000000001.purges"] {
        flip(&dir.path().join("journal").join(name), 8 * 30);
    }
    let (store, records) = open(dir.path());
    let Some(Record::Purge { mark, selector }) = records.last() else {
        panic!("{records:?}");
    };
    assert_eq!(*selector, Selector::All);
    assert!(mark.sequence > Sequence(6) && mark.sequence <= store.newest());
    assert_eq!(store.usage().corrupt, 2);
    assert_eq!(store.packs(), [], "what is purged is deleted");
    assert!(
        store.wants_snapshot(),
        "a snapshot replaces what is damaged"
    );
}

#[test]
fn a_journal_that_is_gone_leaves_its_purges_in_force() {
    let dir = purged_in_the_middle();
    fs::remove_file(dir.path().join("journal/0000000000000001.journal")).unwrap();
    assert!(purges(&open_records(dir.path())));
}

#[test]
fn a_journal_of_an_older_larder_has_no_copy_and_counts() {
    let dir = purged_in_the_middle();
    fs::remove_file(dir.path().join("journal/0000000000000001.purges")).unwrap();
    let journal = dir.path().join("journal/0000000000000001.journal");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() - 3]).unwrap();
    let (store, records) = open(dir.path());
    assert_eq!(puts(&records).len(), 2);
    assert!(!records.contains(&Record::Purge {
        mark: hard(6),
        selector: Selector::All
    }));
    assert_eq!(store.usage().corrupt, 0, "a kill is no corruption");
    drop(store);
    flip(&journal, 8 * 30);
    assert!(matches!(
        open_records(dir.path()).last(),
        Some(Record::Purge {
            selector: Selector::All,
            ..
        })
    ));
}

#[test]
fn the_marks_of_a_damaged_snapshot_are_in_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    let mark = Record::Purge {
        mark: hard(2),
        selector: Selector::Url(PURGED),
    };
    let mut batch = vec![mark.clone(), Record::Put(put)];
    store.snapshot(&mut || std::mem::take(&mut batch)).unwrap();
    drop(store);
    let snapshot = files(&dir.path().join("journal"))
        .into_iter()
        .find(|path| path.extension().unwrap() == "snapshot");
    let snapshot = snapshot.unwrap();
    let mut whole = fs::read(&snapshot).unwrap();
    whole[20..].fill(0);
    fs::write(&snapshot, whole).unwrap();
    assert_eq!(open_records(dir.path()), [mark]);
}

#[test]
fn the_page_about_the_format_is_about_this_format() {
    let page = include_str!("../../docs/store.md");
    assert!(page.contains(&format!("larder store, format {}\"", folder::FORMAT)));
}

#[test]
fn what_is_left_out_while_a_disk_hangs_undoes_no_purge() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::on(dir.path());
    let (store, _) = started(dir.path());
    store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    faults.begin(&[Step::Write], Fault::Hang);
    store.record_remove(Sequence(7));
    faults.await_strike();
    wait_for(|| store.condition() != Condition::Healthy);
    for _ in 0..=disk::HELD_LINES_MAX {
        store.record_remove(Sequence(7));
    }
    let purge = store.record_purge(hard(8), &[Selector::All]);
    assert!(matches!(wait(purge), Err(StoreError::Slow)));
    faults.end();
    wait_for(|| store.condition() == Condition::Healthy);
    assert!(store.wants_snapshot());
    let late = store_one(&store, 9, &bytes(9, 100));
    wait(store.flush()).unwrap();
    let copy = killed(dir.path());
    assert_eq!(puts(&open_records(copy.path())), [late]);
}

#[test]
fn a_disk_that_hangs_is_passed_through_and_what_was_begun_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::on(dir.path());
    let (store, _) = started(dir.path());
    let before = store_one(&store, 1, &bytes(1, 100));
    faults.begin(&[Step::Create, Step::Write], Fault::Hang);
    wait_for(|| store.condition() != Condition::Healthy);
    assert_eq!(
        store.read(before.head).unwrap().len(),
        before.head.bytes as usize
    );
    let refused = store.append(None, Sequence(2), KEY, &[]);
    assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    assert!(store.usage().write_errors >= 1);
    faults.end();
    wait_for(|| store.condition() == Condition::Healthy);
    let after = store_one(&store, 3, &bytes(3, 100));
    drop(store);
    assert_eq!(puts(&open_records(dir.path())), [before, after]);
}

#[test]
fn a_number_once_given_out_does_not_come_again_though_its_record_is_not_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = started(dir.path());
    let put = store_one(&store, 5, &bytes(5, 100));
    wait(store.flush()).unwrap();
    store.record_remove(Sequence(6));
    store.drop_pack(put.head.pack);
    drop(store);
    let (store, records) = open(dir.path());
    assert_eq!(records, []);
    assert_eq!(store.newest(), Sequence(6));
}

#[test]
fn a_pack_that_cannot_be_deleted_takes_its_room_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::on(dir.path());
    let (store, _) = started(dir.path());
    let put = store_one(&store, 1, &bytes(1, 100));
    wait(store.flush()).unwrap();
    let before = store.usage();
    faults.begin(&[Step::Remove], Fault::Error(Errno::ROFS));
    assert!(!store.drop_pack(put.head.pack));
    assert_eq!(store.usage().allocated, before.allocated);
    faults.end();
    assert!(store.drop_pack(put.head.pack));
    assert_eq!(store.usage().packs, 0);
}
