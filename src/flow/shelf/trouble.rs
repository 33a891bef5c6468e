//! Every step on the file system, made to fail in every way while the shelf does everything it does:
//! no wrong byte, nothing lost that the fault did not destroy, no purge undone, all well afterwards.

use super::NotKept;
use super::Shelf;
use super::Stored;
use super::StoredBody;
use super::tests::found;
use super::trials::COUNT;
use super::trials::PURGED;
use super::trials::body;
use super::trials::closed;
use super::trials::copy;
use super::trials::fill;
use super::trials::key;
use super::trials::wait;
use crate::rules::invalidate::Selector;
use crate::store::Condition;
use crate::store::StoreError;
use crate::store::faults::Fault;
use crate::store::faults::Faults;
use crate::store::files::Step;
use bytes::Bytes;
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

const STEPS: [Step; 10] = [
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

const FAULTS: [Fault; 6] = [
    Fault::Error(Errno::NOSPC),
    Fault::Error(Errno::IO),
    Fault::Error(Errno::ROFS),
    Fault::Error(Errno::ACCESS),
    Fault::Error(Errno::NOENT),
    Fault::Short,
];

/// What the shelf is about when the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Compaction,
    Fill,
    Purge,
    Rotation,
    Serving,
    Snapshot,
    Start,
}

const PHASES: [Phase; 7] = [
    Phase::Compaction,
    Phase::Fill,
    Phase::Purge,
    Phase::Rotation,
    Phase::Serving,
    Phase::Snapshot,
    Phase::Start,
];

/// Stored while the fault lasts, if it may be.
const DURING: u8 = 100;
/// Purged while the fault lasts.
const DOOMED: u8 = 1;
/// A large body, of segments of its own.
const LARGE: u8 = 150;
const SEGMENTS: u8 = 3;

#[derive(Clone, Copy, Debug)]
struct Cell {
    step: Step,
    fault: Fault,
    phase: Phase,
    /// Only one step fails, after so many; else all do until the fault ends.
    once: Option<u64>,
    /// Only on files with this in their path.
    within: &'static str,
}

impl Cell {
    /// May it cost what was stored before? Where the disk says that bytes or files are gone.
    fn destroys(&self) -> bool {
        let says_gone = matches!(self.fault, Fault::Error(Errno::IO | Errno::NOENT));
        says_gone && matches!(self.step, Step::List | Step::Look | Step::Open | Step::Read)
    }

    fn begin(&self, faults: &Faults) {
        match self.once {
            None => faults.begin_within(self.within, &[self.step], self.fault),
            Some(skip) => faults.once(self.within, &[self.step], self.fault, skip),
        }
    }

    fn run(&self, template: &Path) -> u64 {
        let dir = new_dir();
        copy(template, dir.path());
        let faults = Faults::on(dir.path());
        let shelf = if self.phase == Phase::Start {
            self.begin(&faults);
            match open(dir.path()) {
                Ok(shelf) => shelf,
                // What is gone for a moment may look like someone else's.
                Err(StoreError::Io { .. } | StoreError::Foreign { .. }) => {
                    // It says so and changes nothing: the next start is whole.
                    let struck = faults.end();
                    let shelf = open(dir.path()).unwrap();
                    self.check_kept(&shelf, false);
                    return struck;
                }
                Err(other) => panic!("{self:?}: {other}"),
            }
        } else {
            let shelf = open(dir.path()).unwrap();
            self.begin(&faults);
            shelf
        };
        self.act(&shelf);
        let durable = self.purge_one(&shelf);
        if durable {
            self.check_purge(dir.path());
        }
        self.check_right(&shelf);
        let struck = faults.end();
        self.recover(&shelf);
        self.check_kept(&shelf, true);
        self.refill(&shelf);
        shelf.close();
        drop(shelf);
        let shelf = open(dir.path()).unwrap();
        assert!(!sees(&shelf, PURGED), "{self:?} undid a purge");
        let lost: Vec<u8> = keys().filter(|n| !sees(&shelf, *n)).collect();
        assert!(lost.is_empty(), "{self:?}: {lost:?} lost at the next start");
        struck
    }

    /// The step hangs: what is done in memory is not held up, and all goes on afterwards.
    fn hang(&self, template: &Path) {
        let dir = new_dir();
        copy(template, dir.path());
        let faults = Faults::on(dir.path());
        let shelf = open(dir.path()).unwrap();
        self.begin(&faults);
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let acting = scope.spawn(|| self.act(&shelf));
            while faults.struck() == 0 && !acting.is_finished() {
                std::thread::yield_now();
            }
            let other = Arc::clone(&shelf);
            std::thread::spawn(move || {
                let all = keys().all(|n| found(&other, key(n)).is_some());
                other.purge(&[Selector::Url(key(DOOMED))]);
                let gone = found(&other, key(DOOMED)).is_none();
                tell.send(all && gone)
            });
            let answered = told.recv_timeout(Duration::from_secs(20));
            faults.end();
            assert_eq!(answered, Ok(true), "{self:?} holds up what is in memory");
        });
        self.recover(&shelf);
        assert!(!sees(&shelf, DOOMED), "{self:?}: purged and served");
        self.check_kept(&shelf, true);
        self.refill(&shelf);
        shelf.close();
        drop(shelf);
        let shelf = open(dir.path()).unwrap();
        let lost: Vec<u8> = keys().filter(|n| !sees(&shelf, *n)).collect();
        assert!(lost.is_empty(), "{self:?}: {lost:?} lost at the next start");
    }

    /// Does what the phase is about; any of it may be refused, none of it may go wrong.
    fn act(&self, shelf: &Arc<Shelf>) {
        match self.phase {
            Phase::Compaction => {
                let packs: Vec<_> = shelf.store.packs().into_iter().map(|(p, _)| p).collect();
                shelf.compact(&packs);
                shelf.drop_empty_packs();
            }
            Phase::Fill => {
                for n in DURING..DURING + 4 {
                    keep(shelf, n).ok();
                }
                drop(wait(shelf.store.flush()));
                keep_large(shelf, LARGE + 10).ok();
                drop(wait(shelf.store.flush()));
            }
            Phase::Rotation => {
                shelf.snapshot();
            }
            Phase::Snapshot => {
                // The first may begin a new journal: the second has nothing to begin.
                shelf.snapshot();
                shelf.snapshot();
            }
            Phase::Purge | Phase::Serving | Phase::Start => {}
        }
        shelf.store.tick();
    }

    /// Purges one entry: it is gone at once, whatever the disk says.
    fn purge_one(&self, shelf: &Arc<Shelf>) -> bool {
        let selectors = [Selector::Url(key(DOOMED))];
        let mark = shelf.purge(&selectors);
        let durable = wait(shelf.record_purge(mark, &selectors));
        assert!(!sees(shelf, DOOMED), "{self:?}: purged and served");
        durable
    }

    /// A purge that was answered as durable holds after a kill at this moment.
    fn check_purge(&self, dir: &Path) {
        let killed = new_dir();
        copy(dir, killed.path());
        let shelf = open(killed.path()).unwrap();
        assert!(
            !sees(&shelf, DOOMED),
            "{self:?}: a durable purge was undone"
        );
        assert!(!sees(&shelf, PURGED), "{self:?}: an older purge was undone");
    }

    /// While the fault lasts: what is served is right.
    fn check_right(&self, shelf: &Arc<Shelf>) {
        for n in keys() {
            sees(shelf, n);
        }
        shelf.store.tick();
        assert!(!sees(shelf, DOOMED), "{self:?}: purged and served later");
    }

    fn recover(&self, shelf: &Arc<Shelf>) {
        for _ in 0..3 {
            shelf.store.tick();
            if shelf.store.condition() == Condition::Healthy {
                return;
            }
        }
        panic!("{self:?}: {:?}", shelf.store.condition());
    }

    /// What was stored before is still there, but for what the fault destroyed.
    fn check_kept(&self, shelf: &Arc<Shelf>, purged: bool) {
        let lost: Vec<u8> = keys()
            .filter(|n| !(purged && *n == DOOMED))
            .filter(|n| !sees(shelf, *n))
            .collect();
        assert!(
            lost.is_empty() || self.destroys(),
            "{self:?} cost {lost:?} of what was stored"
        );
    }

    /// What is missing can be stored again and is a hit then.
    fn refill(&self, shelf: &Arc<Shelf>) {
        for n in keys().chain([DOOMED]) {
            if sees(shelf, n) {
                continue;
            }
            let kept = keep(shelf, n).or_else(|_| {
                shelf.make_room();
                keep(shelf, n)
            });
            assert!(kept.is_ok(), "{self:?}: {n} cannot be stored again");
            assert!(sees(shelf, n), "{self:?}: {n} is not hit again");
        }
        let flushed = wait(shelf.store.flush());
        assert!(flushed.is_ok(), "{self:?}: {flushed:?}");
    }
}

fn open(dir: &Path) -> Result<Arc<Shelf>, StoreError> {
    let params = crate::store::Params {
        dir: dir.to_path_buf(),
        disk_bytes_max: 64 << 20,
    };
    Shelf::open(&params, 0, 8 << 20)
}

/// A folder in memory where there is such a place: a thousand stores are opened and closed.
fn new_dir() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

fn keys() -> impl Iterator<Item = u8> {
    // Not all, for they are asked for often: some of each pack.
    (0..COUNT).step_by(5).chain([LARGE])
}

fn keep(shelf: &Arc<Shelf>, n: u8) -> Result<Stored, NotKept> {
    if n >= LARGE {
        return keep_large(shelf, n);
    }
    wait(super::tests::try_keep_bytes(shelf, key(n), body(n)))
}

fn segment(n: u8, part: u8) -> Bytes {
    Bytes::from(vec![n ^ part.wrapping_mul(37); 1 << 16])
}

fn keep_large(shelf: &Arc<Shelf>, n: u8) -> Result<Stored, NotKept> {
    wait(async {
        let mut draft = shelf.draft(shelf.next_sequence(), key(n));
        for part in 0..SEGMENTS {
            draft.segment(segment(n, part)).await?;
        }
        draft.finish(super::tests::response(key(n), b"")).await
    })
}

/// Is `n` a hit? Then with the right bytes; like a client, it forgets what cannot be read.
fn sees(shelf: &Arc<Shelf>, n: u8) -> bool {
    if n < LARGE {
        return super::trials::is_hit(shelf, n);
    }
    let Some(found) = found(shelf, key(n)) else {
        return false;
    };
    let Some(stored) = wait(shelf.load(found)) else {
        return false;
    };
    assert_eq!(stored.response.key, key(n), "another key's head");
    let StoredBody::Segments(segments, _pins) = stored.body else {
        panic!("a large body is on disk");
    };
    assert_eq!(segments.len(), usize::from(SEGMENTS));
    for (at, part) in segments.iter().zip(0..) {
        match wait(shelf.read_segment(*at, false)) {
            Ok(bytes) => assert_eq!(bytes, segment(n, part), "a wrong byte"),
            Err(error) => {
                if !error.may_pass() {
                    shelf.forget(found, &error);
                }
                return false;
            }
        }
    }
    true
}

/// A closed store with entries in several packs, a snapshot and a journal after it.
fn template() -> TempDir {
    let dir = new_dir();
    closed(dir.path());
    let shelf = open(dir.path()).unwrap();
    keep_large(&shelf, LARGE).unwrap();
    wait(shelf.store.flush()).unwrap();
    fill(&shelf, 0);
    shelf.close();
    dir
}

/// Runs all cells, some side by side: they mostly wait. Returns how many steps failed.
fn run(cells: &[Cell]) -> u64 {
    let template = template();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut struck = 0;
        while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            struck += cell.run(template.path());
        }
        struck
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    })
}

fn cells(once: &[Option<u64>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for step in STEPS {
        for fault in FAULTS {
            for phase in PHASES {
                let places = ["", "journal", "content-v2"];
                let start = phase == Phase::Start;
                for within in places.into_iter().take(if start { 3 } else { 1 }) {
                    cells.extend(once.iter().map(|once| Cell {
                        step,
                        fault,
                        phase,
                        once: *once,
                        within,
                    }));
                }
            }
        }
    }
    cells
}

#[test]
fn whatever_hangs_holds_up_nothing_in_memory_and_all_is_well_afterwards() {
    let template = template();
    for step in STEPS {
        // A start has nothing to serve yet; serving reads on threads of its own.
        for phase in [
            Phase::Compaction,
            Phase::Fill,
            Phase::Rotation,
            Phase::Snapshot,
        ] {
            let cell = Cell {
                step,
                fault: Fault::Hang,
                phase,
                once: None,
                within: "",
            };
            cell.hang(template.path());
        }
    }
}

#[test]
fn whatever_fails_for_a_while_the_right_bytes_are_served_and_all_is_well_afterwards() {
    assert!(run(&cells(&[None])) > 1000);
}

#[test]
fn whatever_fails_once_the_right_bytes_are_served_and_all_is_well_afterwards() {
    assert!(run(&cells(&[Some(1)])) > 100);
}
