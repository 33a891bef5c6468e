//! Several directories, of which some fail: what was purged or replaced never comes back.

mod handover;

use super::*;
use crate::flow::shelf::StoredBody;
use crate::flow::shelf::tests::response;
use crate::rules::tag::Names;
use crate::rules::tag::TagKey;
use crate::store::faults::Fault;
use crate::store::faults::Faults;
use crate::store::files::Step;
use bytes::Bytes;
use rustix::io::Errno;
use std::fs;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::timeout;

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(future)
}

fn dirs(root: &Path, count: usize) -> Vec<crate::store::Params> {
    let dir = |n: usize| crate::store::Params {
        dir: root.join(format!("disk{n}")),
        disk_bytes_max: 64 << 20,
    };
    (0..count).map(dir).collect()
}

fn try_open(dirs: &[crate::store::Params]) -> Result<Arc<Shelves>, StoreError> {
    let params = Params {
        memory_bytes_max: 0,
        fill_bytes_max: 8 << 20,
        scrub_bytes_per_second: 0,
        variants_max: 32,
        eviction: eviction::Params {
            favour: eviction::Favour::Bytes,
            second_request_over: u64::MAX,
        },
    };
    Shelves::open(params, dirs)
}

fn open(dirs: &[crate::store::Params]) -> Arc<Shelves> {
    try_open(dirs).unwrap()
}

fn key(n: u32) -> PrimaryKey {
    let digest = blake3::hash(&n.to_le_bytes());
    PrimaryKey(*digest.as_bytes().first_chunk().unwrap())
}

/// Keys that have their home in a directory.
fn keys_of(shelves: &Shelves, place: usize) -> impl Iterator<Item = PrimaryKey> {
    let first = move |key| shelves.read_spread().order(key).iter().next();
    (0..).map(key).filter(move |key| first(*key) == Some(place))
}

fn keep(shelves: &Shelves, key: PrimaryKey, body: &'static str) -> Result<Stored, NotKept> {
    let sequence = shelves.next_sequence();
    let shelf = shelves.home(key, sequence);
    let response = Arc::new(response(key, body.as_bytes()));
    wait(shelf.keep(sequence, response, Bytes::from_static(body.as_bytes())))
}

/// What is served for a key.
fn served(shelves: &Shelves, key: PrimaryKey) -> Option<String> {
    let Lookup::Found(found) = shelves.lookup([key], &HeaderMap::new()) else {
        return None;
    };
    let StoredBody::Memory(body) = wait(shelves.load(found))?.body else {
        panic!("a small body is loaded at once");
    };
    Some(String::from_utf8(body.to_vec()).unwrap())
}

fn flush(shelves: &Shelves) {
    shelves
        .opened()
        .for_each(|shelf| assert!(shelf.write_all(Duration::from_secs(10))));
}

fn purge(shelves: &Arc<Shelves>, keys: &[PrimaryKey]) -> bool {
    let selectors: Vec<Selector> = keys.iter().copied().map(Selector::Url).collect();
    let (mark, _) = shelves.purge(Manner::Hard, &selectors);
    wait(shelves.record_purge(mark, &selectors))
}

/// Waits until a directory is in, or out.
fn wait_until(shelves: &Shelves, place: usize, is_in: bool) {
    wait(async {
        let mut changes = shelves.changes.subscribe();
        while shelves.read_spread().is_in(place) != is_in {
            shelves.poke();
            drop(timeout(Duration::from_millis(20), changes.changed()).await);
        }
    });
}

/// Has every step in a directory fail until the faults end.
fn fail(dir: &Path) -> Faults {
    let faults = Faults::on(dir);
    let steps = [
        Step::Create,
        Step::List,
        Step::Look,
        Step::MakeFolder,
        Step::Open,
        Step::Read,
        Step::Remove,
        Step::Rename,
        Step::Sync,
        Step::Write,
    ];
    faults.begin(&steps, Fault::Error(Errno::ACCESS));
    faults
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn responses_are_spread_and_found_again_after_a_start() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 3));
    for n in 0..60 {
        keep(&shelves, key(n), "body").unwrap();
    }
    let spread = |shelves: &Shelves| shelves.dirs().iter().map(|dir| dir.entries).collect();
    let before: Vec<u64> = spread(&shelves);
    assert_eq!(before.iter().sum::<u64>(), 60);
    assert!(before.iter().all(|entries| *entries > 5), "{before:?}");
    shelves.close();
    drop(shelves);
    let shelves = open(&dirs(root.path(), 3));
    assert_eq!(spread(&shelves), before);
    assert!((0..60).all(|n| served(&shelves, key(n)).as_deref() == Some("body")));
    // Another order in the config is the same spread.
    shelves.close();
    drop(shelves);
    let mut turned = dirs(root.path(), 3);
    turned.reverse();
    let shelves = open(&turned);
    assert!((0..60).all(|n| served(&shelves, key(n)).is_some()));
    shelves.close();
}

#[test]
fn a_directory_that_fails_is_taken_out_and_comes_back_without_what_was_purged_or_replaced() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 3));
    let keys: Vec<PrimaryKey> = keys_of(&shelves, 1).take(4).collect();
    let others: Vec<PrimaryKey> = keys_of(&shelves, 0).chain_some(&shelves);
    for key in keys.iter().chain(&others) {
        keep(&shelves, *key, "old").unwrap();
    }
    flush(&shelves);
    let faults = fail(&root.path().join("disk1"));
    // A write finds out.
    drop(keep(&shelves, keys[3], "lost"));
    wait_until(&shelves, 1, false);
    let out = &shelves.dirs()[1];
    assert!(out.out.is_some() && out.outs == 1);
    assert_eq!(shelves.pass_through(), None);
    assert!(
        others
            .iter()
            .all(|key| served(&shelves, *key).as_deref() == Some("old"))
    );
    keep(&shelves, keys[0], "new").unwrap();
    assert_eq!(served(&shelves, keys[0]).as_deref(), Some("new"));
    assert!(purge(&shelves, &keys[1..2]), "durable where it can be");
    assert_eq!(served(&shelves, keys[1]), None);
    faults.end();
    wait_until(&shelves, 1, true);
    assert_eq!(shelves.dirs()[1].out, None);
    assert_ne!(served(&shelves, keys[0]).as_deref(), Some("old"));
    assert_eq!(served(&shelves, keys[1]), None);
    assert_eq!(served(&shelves, keys[2]).as_deref(), Some("old"));
    keep(&shelves, keys[1], "newer").unwrap();
    flush(&shelves);
    shelves.close();
    drop(shelves);
    let shelves = open(&dirs(root.path(), 3));
    assert_ne!(served(&shelves, keys[0]).as_deref(), Some("old"));
    assert_eq!(served(&shelves, keys[1]).as_deref(), Some("newer"));
    assert_eq!(served(&shelves, keys[2]).as_deref(), Some("old"));
    shelves.close();
}

/// One key of each directory but the middle one.
trait ChainSome {
    fn chain_some(self, shelves: &Shelves) -> Vec<PrimaryKey>;
}

impl<I: Iterator<Item = PrimaryKey>> ChainSome for I {
    fn chain_some(self, shelves: &Shelves) -> Vec<PrimaryKey> {
        self.take(3).chain(keys_of(shelves, 2).take(3)).collect()
    }
}

#[test]
fn after_a_kill_a_directory_that_was_out_begins_empty() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 3));
    let keys: Vec<PrimaryKey> = keys_of(&shelves, 1).take(3).collect();
    let others: Vec<PrimaryKey> = keys_of(&shelves, 2).take(3).collect();
    for key in keys.iter().chain(&others) {
        keep(&shelves, *key, "old").unwrap();
    }
    flush(&shelves);
    let faults = fail(&root.path().join("disk1"));
    let durable = purge(&shelves, &keys[..1]);
    assert!(durable, "when it is answered the others know who is out");
    assert!(!shelves.read_spread().is_in(1));
    // What a kill at this moment leaves.
    let killed = TempDir::new().unwrap();
    copy(root.path(), killed.path());
    faults.end();
    shelves.close();
    drop(shelves);
    for dir in dirs(root.path(), 3) {
        fs::remove_dir_all(&dir.dir).unwrap();
    }
    copy(killed.path(), root.path());
    let again = open(&dirs(root.path(), 3));
    assert!(keys.iter().all(|key| served(&again, *key).is_none()));
    assert!(others.iter().all(|key| served(&again, *key).is_some()));
    assert_eq!(again.dirs()[1].out, None);
    keep(&again, keys[0], "new").unwrap();
    flush(&again);
    again.close();
    drop(again);
    let again = open(&dirs(root.path(), 3));
    assert_eq!(served(&again, keys[0]).as_deref(), Some("new"));
    again.close();
}

#[test]
fn what_was_stored_elsewhere_is_not_found_when_the_directory_is_out_again() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 2));
    let key = keys_of(&shelves, 0).next().unwrap();
    let disk = root.path().join("disk0");
    keep(&shelves, key, "one").unwrap();
    flush(&shelves);
    for (elsewhere, back) in [("two", "three"), ("four", "five")] {
        let faults = fail(&disk);
        purge(&shelves, &[PrimaryKey([0; 16])]);
        wait_until(&shelves, 0, false);
        assert_ne!(served(&shelves, key).as_deref(), Some("two"));
        keep(&shelves, key, elsewhere).unwrap();
        assert_eq!(served(&shelves, key).as_deref(), Some(elsewhere));
        faults.end();
        wait_until(&shelves, 0, true);
        assert_eq!(served(&shelves, key), None);
        keep(&shelves, key, back).unwrap();
        assert_eq!(served(&shelves, key).as_deref(), Some(back));
    }
    shelves.close();
}

#[test]
fn what_was_stored_elsewhere_is_warm_after_a_start_without_the_directory() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    fs::create_dir_all(&dirs[0].dir).unwrap();
    fs::write(dirs[0].dir.join("thesis.txt"), "words").unwrap();
    let shelves = open(&dirs);
    let key = keys_of(&shelves, 0).next().unwrap();
    keep(&shelves, key, "elsewhere").unwrap();
    shelves.close();
    drop(shelves);
    let shelves = open(&dirs);
    assert_eq!(served(&shelves, key).as_deref(), Some("elsewhere"));
    shelves.close();
}

#[test]
fn a_directory_that_cannot_be_opened_does_not_stop_the_others_and_is_tried_again() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let thesis = dirs[0].dir.join("thesis.txt");
    fs::create_dir_all(&dirs[0].dir).unwrap();
    fs::write(&thesis, "words").unwrap();
    let shelves = open(&dirs);
    let key = keys_of(&shelves, 0).next().unwrap();
    let reason = shelves.dirs()[0].out.clone().unwrap();
    assert!(reason.contains("not a larder store"), "{reason}");
    keep(&shelves, key, "elsewhere").unwrap();
    assert!(purge(&shelves, &[PrimaryKey([0; 16])]));
    let under_way = shelves.next_sequence();
    purge(&shelves, &[key]);
    fs::remove_file(&thesis).unwrap();
    wait_until(&shelves, 0, true);
    // It knows nothing of the purge, and takes in nothing that is older.
    let shelf = shelves.home(key, under_way);
    let late = shelf.keep(under_way, Arc::new(response(key, b"late")), "late".into());
    assert_eq!(wait(late).unwrap_err(), NotKept::Purged);
    keep(&shelves, key, "home").unwrap();
    assert_eq!(shelves.dirs()[0].entries, 1);
    shelves.close();
    drop((shelves, shelf));
    let shelves = open(&dirs);
    assert_eq!(served(&shelves, key).as_deref(), Some("home"));
    shelves.close();
}

#[test]
fn when_no_directory_can_be_opened_it_is_an_error() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    for dir in &dirs {
        fs::create_dir_all(&dir.dir).unwrap();
        fs::write(dir.dir.join("thesis.txt"), "words").unwrap();
    }
    let refused = try_open(&dirs);
    assert!(matches!(refused, Err(StoreError::Foreign { .. })));
}

#[test]
fn a_directory_that_another_larder_uses_stops_a_start() {
    let root = TempDir::new().unwrap();
    let dirs = dirs(root.path(), 2);
    let other = open(&dirs[1..]);
    assert!(matches!(try_open(&dirs), Err(StoreError::Locked { .. })));
    other.close();
}

#[test]
fn a_directory_left_out_of_the_config_for_a_while_begins_empty() {
    let root = TempDir::new().unwrap();
    let both = dirs(root.path(), 2);
    let shelves = open(&both);
    let (here, there) = (
        keys_of(&shelves, 0).next().unwrap(),
        keys_of(&shelves, 1).next().unwrap(),
    );
    keep(&shelves, here, "here").unwrap();
    keep(&shelves, there, "there").unwrap();
    shelves.close();
    drop(shelves);
    let alone = open(&both[..1]);
    assert_eq!(served(&alone, here).as_deref(), Some("here"));
    assert!(purge(&alone, &[there]));
    alone.close();
    drop(alone);
    let shelves = open(&both);
    assert_eq!(served(&shelves, here).as_deref(), Some("here"));
    assert_eq!(served(&shelves, there), None);
    shelves.close();
}

#[test]
fn when_all_fail_nothing_is_durable_and_all_come_back() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 2));
    let keys = [
        keys_of(&shelves, 0).next().unwrap(),
        keys_of(&shelves, 1).next().unwrap(),
    ];
    for key in keys {
        keep(&shelves, key, "old").unwrap();
    }
    flush(&shelves);
    let faults = [
        fail(&root.path().join("disk0")),
        fail(&root.path().join("disk1")),
    ];
    assert!(!purge(&shelves, &keys[..1]));
    wait_until(&shelves, 0, false);
    wait_until(&shelves, 1, false);
    assert!(shelves.pass_through().is_some());
    assert!(keep(&shelves, keys[0], "new").is_err());
    for faults in faults {
        faults.end();
    }
    wait_until(&shelves, 0, true);
    wait_until(&shelves, 1, true);
    assert_eq!(shelves.pass_through(), None);
    assert_eq!(served(&shelves, keys[0]), None);
    assert_eq!(served(&shelves, keys[1]).as_deref(), Some("old"));
    shelves.close();
    drop(shelves);
    let shelves = open(&dirs(root.path(), 2));
    assert_eq!(served(&shelves, keys[0]), None);
    shelves.close();
}

#[test]
fn keys_of_one_request_are_looked_for_where_each_lies() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 2));
    let keys = [
        keys_of(&shelves, 0).next().unwrap(),
        keys_of(&shelves, 1).next().unwrap(),
    ];
    for newest in [keys[0], keys[1], keys[0]] {
        keep(&shelves, newest, "body").unwrap();
        let Lookup::Found(found) = shelves.lookup(keys, &HeaderMap::new()) else {
            panic!("both are stored");
        };
        assert_eq!(found.key, newest);
        assert_eq!(
            shelves.lookup_newest(keys, &HeaderMap::new()),
            Lookup::Found(found)
        );
    }
    assert_eq!(shelves.candidates(keys, &HeaderMap::new()).len(), 2);
    let (mark, _) = shelves.purge(Manner::Hard, &[Selector::All]);
    assert!(wait(shelves.record_purge(mark, &[Selector::All])));
    assert_eq!(shelves.lookup(keys, &HeaderMap::new()), Lookup::UriMiss);
    shelves.close();
}

#[test]
fn what_supersedes_is_kept_unless_a_purge_came_between() {
    let root = TempDir::new().unwrap();
    let shelves = open(&dirs(root.path(), 2));
    let key = key(1);
    let old = keep(&shelves, key, "old").unwrap();
    let tag = TagKey([3; 16]);
    let heir = StoredResponse {
        names: Names {
            tags: [tag].into(),
            ..Names::default()
        },
        ..StoredResponse::clone(&old.response)
    };
    let next = |since| shelves.supersede(&[Selector::Url(key)], &heir, since);
    let purge = |selector| {
        shelves.purge(Manner::Hard, &[selector]);
    };
    let (mark, kept) = next(shelves.next_sequence());
    assert!(!shelves.contains(&old));
    assert!(kept.is_some_and(|kept| kept > mark.sequence));
    let since = shelves.next_sequence();
    purge(Selector::Url(key));
    assert_eq!(next(since).1, None);
    let since = shelves.next_sequence();
    purge(Selector::Tag(None, tag));
    assert_eq!(next(since).1, None);
    let since = shelves.next_sequence();
    purge(Selector::All);
    assert_eq!(next(since).1, None);
    assert!(next(shelves.next_sequence()).1.is_some());
    shelves.close();
}
