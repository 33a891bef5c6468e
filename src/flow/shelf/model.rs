//! The order of the shelf's steps, tried under thousands of schedules that `shuttle` chooses.
//!
//! Index, table of packs and the rules of a start are those that serve; the shelf's steps are written
//! out once more here, since its own locks, threads and files cannot be scheduled. What is changed
//! there belongs here too. Every rule that the shelf keeps can be broken on purpose, and then the
//! same schedules find it out: that is what the flaws are for.

use super::record::Replay;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::tag::Signature;
use crate::state::index::Index;
use crate::state::index::Lookup;
use crate::store::NewPiece;
use crate::store::Piece;
use crate::store::Record;
use crate::store::model::Disk;
use crate::store::model::Line;
use crate::store::model::Paper;
use crate::store::model::Task;
use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::HashSet;
use http::HeaderMap;
use shuttle::Config;
use shuttle::Runner;
use shuttle::rand::Rng;
use shuttle::rand::thread_rng;
use shuttle::scheduler::PctScheduler;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::Mutex;
use shuttle::sync::RwLock;
use shuttle::thread;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::SystemTime;

/// A rule of the shelf, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// None is broken.
    None,
    /// A pack is dropped though somebody reads it.
    DropPinned,
    /// A pack is dropped while somebody is between his append and his index change.
    DropWithoutGate,
    /// A pack is dropped before the new places of what it held are written.
    DropBeforeFlush,
    /// What was lost before it had an entry is not looked for.
    ForgetLoss,
    /// A purge sets no mark for what is under way.
    PurgeWithoutMark,
    /// A removal is not recorded.
    RemoveInSilence,
    /// A start leaves the records of a compaction that was cut short as they are.
    StartInSilence,
    /// A snapshot replaces older records before the packs it names are written.
    SnapshotAtOnce,
    /// A put is written without asking whether it is still wanted.
    WriteUnwanted,
}

/// What must be true, whatever the order.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// Set before anybody is told: of two lookups the later one sees no less.
    purged: HashMap<u8, Sequence>,
    purged_all: Sequence,
    /// Purges whose records are written: they hold after a kill.
    answered: Vec<(Selector, Sequence)>,
    /// Entries that were written once.
    durable: HashSet<Sequence>,
}

impl Truth {
    fn covers(&self, n: u8, sequence: Sequence) -> bool {
        let purged = self.purged.get(&n).copied().unwrap_or_default();
        sequence < purged.max(self.purged_all)
    }
}

struct World {
    flaw: Flaw,
    index: RwLock<Index>,
    paper: Mutex<Paper>,
    /// The writing thread is one: it does one task after the other.
    writer: Mutex<()>,
    gate: RwLock<()>,
    pending: Mutex<HashMap<Sequence, (PrimaryKey, u32)>>,
    pins: Mutex<HashMap<PackId, u32>>,
    sequence: Mutex<u64>,
    truth: Mutex<Truth>,
}

const KEYS: u8 = 3;

fn key(n: u8) -> PrimaryKey {
    PrimaryKey([n; 16])
}

/// Keys 1 and 2 have one body.
fn body(n: u8) -> Bytes {
    Bytes::from(vec![n.max(2), 7, 7])
}

fn head(n: u8, sequence: Sequence) -> Bytes {
    let mut bytes = vec![n; 8];
    bytes.extend_from_slice(&sequence.0.to_le_bytes());
    Bytes::from(bytes)
}

fn chance(of: u32) -> bool {
    thread_rng().gen_range(0..of) == 0
}

impl World {
    /// Starts over what lies on `disk`.
    fn start(flaw: Flaw, disk: Disk) -> Self {
        let mut replay = Replay::default();
        let paper = Paper::start(disk, &mut replay);
        let (index, untold) = replay.finish();
        let newest = paper.newest;
        let world = Self {
            flaw,
            index: RwLock::new(index),
            paper: Mutex::new(paper),
            writer: Mutex::new(()),
            gate: RwLock::new(()),
            pending: Mutex::default(),
            pins: Mutex::default(),
            sequence: Mutex::new(newest.0 + 1),
            truth: Mutex::default(),
        };
        if flaw != Flaw::StartInSilence {
            untold.into_iter().for_each(|put| world.journal(put));
        }
        world.write_all();
        world
    }

    fn next_sequence(&self) -> Sequence {
        let mut next = self.sequence.lock().unwrap();
        *next += 1;
        Sequence(*next - 1)
    }

    /// `Shelf::try_keep` and `Shelf::insert`.
    fn keep(&self, n: u8) {
        let sequence = self.next_sequence();
        thread::yield_now();
        let _gate = (self.flaw != Flaw::DropWithoutGate).then(|| self.gate.read().unwrap());
        let digest = Digest::of(&body(n));
        let known = self.index.read().unwrap().body(digest.name());
        let mut pieces = vec![NewPiece::Head(head(n, sequence))];
        if known.is_none() {
            pieces.push(NewPiece::Segment(digest, body(n)));
        }
        let places = self.paper.lock().unwrap().append(sequence, key(n), &pieces);
        let put = Put {
            sequence,
            key: key(n),
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            head: places[0],
            body: digest.name(),
            parts: known.unwrap_or_else(|| Parts::One(places[1])),
            signature: Signature::default(),
            useless_at: 6000,
        };
        let (gone, put) = {
            let mut index = self.index.write().unwrap();
            let Ok(gone) = index.insert(&put) else {
                return;
            };
            (gone, index.place(put.key, sequence).unwrap())
        };
        for sequence in gone {
            self.record_remove(sequence);
        }
        self.journal(put);
    }

    /// `Shelf::journal`.
    fn journal(&self, put: Put) {
        let mut pending = self.pending.lock().unwrap();
        pending.entry(put.sequence).or_insert((put.key, 0)).1 += 1;
        drop(pending);
        let given_back = self.paper.lock().unwrap().record_put(put);
        let Some(put) = given_back else {
            return;
        };
        self.settle(put.sequence);
        if self.flaw == Flaw::ForgetLoss {
            return;
        }
        let mut index = self.index.write().unwrap();
        if index.place(put.key, put.sequence).as_ref() == Some(&put) {
            index.remove(put.key, put.sequence);
        }
    }

    fn settle(&self, sequence: Sequence) -> PrimaryKey {
        let mut pending = self.pending.lock().unwrap();
        let (key, records) = pending.get_mut(&sequence).unwrap();
        let key = *key;
        *records -= 1;
        if *records == 0 {
            pending.remove(&sequence);
        }
        key
    }

    fn record_remove(&self, sequence: Sequence) {
        if self.flaw != Flaw::RemoveInSilence {
            let line = Line::Record(Record::Remove(sequence));
            self.paper.lock().unwrap().tasks.push_back(Task::Line(line));
        }
    }

    /// One task of the writing thread, and the records after it. False when there was none.
    fn write_one(&self) -> bool {
        let _writer = self.writer.lock().unwrap();
        let task = self.paper.lock().unwrap().next_task();
        match task {
            None => return false,
            Some(Task::Line(line)) => self.paper.lock().unwrap().keep(line),
            Some(Task::Put(put)) => {
                let placed = self.paper.lock().unwrap().place(put);
                self.write_puts(placed);
            }
            Some(Task::Seal(pack)) => {
                if self.paper.lock().unwrap().write_pack(pack) {
                    thread::yield_now();
                    self.paper.lock().unwrap().seal(pack);
                }
                let released = self.paper.lock().unwrap().release(pack);
                self.write_puts(released);
            }
        }
        if chance(2) {
            self.write_records();
        }
        true
    }

    fn write_puts(&self, puts: Vec<(Put, bool)>) {
        for (put, whole) in puts {
            let key = self.settle(put.sequence);
            let wanted = self.index.read().unwrap().contains(key, put.sequence);
            if whole && (wanted || self.flaw == Flaw::WriteUnwanted) {
                let line = Line::Record(Record::Put(put));
                self.paper.lock().unwrap().keep(line);
            }
        }
    }

    fn write_records(&self) {
        let mut truth = self.truth.lock().unwrap();
        let written = self.paper.lock().unwrap().write_records();
        for line in written {
            match line {
                Line::Record(Record::Put(put)) => drop(truth.durable.insert(put.sequence)),
                Line::Record(Record::Purge { mark, selector }) => {
                    truth.answered.push((selector, mark.sequence));
                }
                Line::Record(Record::Remove(_)) | Line::Sealed(..) | Line::Dropped(_) => {}
            }
        }
    }

    fn write_all(&self) {
        while self.write_one() {}
        let _writer = self.writer.lock().unwrap();
        self.write_records();
    }

    fn flush(&self) {
        self.paper.lock().unwrap().close_open();
        self.write_all();
    }

    /// The disk refuses an open pack: `Writer::lose`, then `Witness::lost`.
    fn lose_one(&self) {
        let _writer = self.writer.lock().unwrap();
        let lost = {
            let mut paper = self.paper.lock().unwrap();
            let (known, on_disk) = paper.packs();
            let lost = known.difference(&on_disk).next().copied();
            lost.inspect(|pack| paper.lose(*pack))
        };
        let Some(lost) = lost else {
            return;
        };
        let released = self.paper.lock().unwrap().release(lost);
        self.write_puts(released);
        let packs = HashSet::from_iter([lost]);
        let (residents, _) = self.index.read().unwrap().residents(&packs, 0, u32::MAX);
        for put in residents {
            self.index.write().unwrap().remove(put.key, put.sequence);
        }
    }

    /// `Shelf::lookup`, `Shelf::load` and `Shelf::stored`, of one key.
    fn read(&self, n: u8, may_lose: bool) {
        let truth = self.truth.lock().unwrap().clone();
        let found = self
            .index
            .read()
            .unwrap()
            .lookup([key(n)], &HeaderMap::new());
        let Lookup::Found(found) = found else {
            return;
        };
        assert!(
            !truth.covers(n, found.sequence),
            "purged before it was looked up"
        );
        let mut place = None;
        let whole = (0..4).find_map(|_| {
            let now = self
                .index
                .read()
                .unwrap()
                .place(found.key, found.sequence)?;
            assert!(
                may_lose || place != Some(now.clone()),
                "it lies where nothing is"
            );
            place = Some(now.clone());
            let head = self.paper.lock().unwrap().read(now.head)?;
            let at = now.parts.locations().next().unwrap();
            let body = self.paper.lock().unwrap().read(at)?;
            Some((head, body))
        });
        if let Some((bytes, whole)) = whole {
            assert_eq!(bytes, head(n, found.sequence), "another entry's head");
            assert_eq!(whole, body(n), "another entry's body");
        }
        let at = {
            let index = self.index.read().unwrap();
            let Some(place) = index.place(found.key, found.sequence) else {
                return;
            };
            let at = place.parts.locations().next().unwrap();
            *self.pins.lock().unwrap().entry(at.pack).or_default() += 1;
            at
        };
        for _ in 0..thread_rng().gen_range(1..30) {
            let bytes = self.paper.lock().unwrap().read(at);
            assert!(may_lose || bytes.is_some(), "a pinned pack is gone");
            assert!(bytes.is_none_or(|bytes| bytes == body(n)), "another body");
            thread::yield_now();
        }
        let mut pins = self.pins.lock().unwrap();
        *pins.get_mut(&at.pack).unwrap() -= 1;
        pins.retain(|_, count| *count > 0);
    }

    /// `Shelf::purge`, of one key or of everything, and its record.
    fn purge(&self, n: Option<u8>) {
        let (sequence, selector) = {
            let mut index = self.index.write().unwrap();
            let sequence = self.next_sequence();
            let selector = match n {
                Some(n) if self.flaw == Flaw::PurgeWithoutMark => {
                    while let Lookup::Found(found) = index.lookup([key(n)], &HeaderMap::new()) {
                        index.remove(found.key, found.sequence);
                    }
                    Selector::Url(key(n))
                }
                Some(n) => {
                    drop(index.mark_key(key(n), sequence));
                    Selector::Url(key(n))
                }
                None => {
                    index.mark_all(sequence);
                    Selector::All
                }
            };
            (sequence, selector)
        };
        {
            let mut truth = self.truth.lock().unwrap();
            match n {
                Some(n) => drop(truth.purged.insert(n, sequence)),
                None => truth.purged_all = sequence,
            }
        }
        let mark = Mark::hard(sequence, SystemTime::UNIX_EPOCH);
        let line = Line::Record(Record::Purge { mark, selector });
        self.paper.lock().unwrap().tasks.push_back(Task::Line(line));
    }

    /// What the thread that makes room does, in any order.
    fn make_room(&self) {
        for _ in 0..2 {
            match thread_rng().gen_range(0..4) {
                0 => {
                    let gone = self.index.write().unwrap().evict(0, 1);
                    gone.0
                        .into_iter()
                        .for_each(|sequence| self.record_remove(sequence));
                }
                1 => self.sweep(),
                _ => self.compact(),
            }
        }
    }

    fn sweep(&self) {
        let mut index = self.index.write().unwrap();
        let (gone, _) = index.sweep(0, u32::MAX, 0);
        let mark = index.mark_on_everything();
        drop(index);
        gone.into_iter()
            .filter(|s| *s >= mark)
            .for_each(|s| self.record_remove(s));
        self.drop_empty_packs();
    }

    /// `Shelf::drop_empty_packs`.
    fn drop_empty_packs(&self) {
        let mut empty = self.paper.lock().unwrap().sealed();
        if self.flaw != Flaw::DropWithoutGate {
            let _gate = self.gate.write().unwrap();
            let index = self.index.write().unwrap();
            let pins = self.pins.lock().unwrap();
            let is_pinned =
                |pack: &PackId| self.flaw != Flaw::DropPinned && pins.contains_key(pack);
            empty.retain(|pack| index.live(*pack) == 0 && !is_pinned(pack));
        } else {
            let index = self.index.read().unwrap();
            empty.retain(|pack| index.live(*pack) == 0);
        }
        for pack in empty {
            let removed = self.paper.lock().unwrap().remove(pack);
            if removed {
                self.paper.lock().unwrap().delete(pack);
            }
        }
    }

    /// `Shelf::compact`, of all packs on disk.
    fn compact(&self) {
        let mut moved = Vec::new();
        let mut shared = HashSet::new();
        let packs = self.paper.lock().unwrap().sealed();
        for pack in packs {
            let pieces = self.paper.lock().unwrap().pieces(pack);
            for piece in pieces {
                self.relocate(&piece, &mut moved, &mut shared);
                if chance(4) {
                    // A pack is full, or a second old.
                    self.paper.lock().unwrap().close_open();
                }
            }
        }
        if self.flaw == Flaw::DropBeforeFlush {
            self.drop_empty_packs();
        }
        let mut puts = Vec::new();
        for (key, sequence) in moved {
            puts.extend(self.index.read().unwrap().place(key, sequence));
        }
        let (residents, _) = self.index.read().unwrap().residents(&shared, 0, u32::MAX);
        puts.extend(residents);
        for put in puts {
            self.journal(put);
        }
        self.flush();
        self.drop_empty_packs();
    }

    fn relocate(
        &self,
        piece: &Piece,
        moved: &mut Vec<(PrimaryKey, Sequence)>,
        shared: &mut HashSet<PackId>,
    ) {
        let (Piece::Head {
            sequence,
            key,
            location,
        }
        | Piece::Segment {
            sequence,
            key,
            location,
            ..
        }) = *piece;
        let bytes = self.paper.lock().unwrap().read(location);
        let Some(bytes) = bytes else {
            return;
        };
        let live = match piece {
            Piece::Head { .. } => self.index.read().unwrap().head_at(key, location).is_some(),
            Piece::Segment { digest, .. } => {
                self.index.read().unwrap().segment_at(*digest, location)
            }
        };
        if !live {
            return;
        }
        let piece_again = match piece {
            Piece::Head { .. } => NewPiece::Head(bytes),
            Piece::Segment { digest, .. } => NewPiece::Segment(*digest, bytes),
        };
        let _gate = self.gate.read().unwrap();
        let to: Location = self
            .paper
            .lock()
            .unwrap()
            .append(sequence, key, &[piece_again])[0];
        let mut index = self.index.write().unwrap();
        match piece {
            Piece::Head { .. } => {
                if index.move_head(key, location, to)
                    && let Some(sequence) = index.head_at(key, to)
                {
                    moved.push((key, sequence));
                }
            }
            Piece::Segment { digest, .. } => {
                if index.move_segment(*digest, location, to) {
                    match index.sole_users(key, *digest, to) {
                        Some(users) => moved.extend(users.into_iter().map(|s| (key, s))),
                        None => drop(shared.insert(to.pack)),
                    }
                }
            }
        }
    }

    /// `Store::snapshot` and `Shelf::snapshot`.
    fn snapshot(&self) {
        self.write_all();
        let (before, mut lines) = {
            let _writer = self.writer.lock().unwrap();
            self.write_records();
            self.paper.lock().unwrap().rotate()
        };
        thread::yield_now();
        let (puts, _) = self.index.read().unwrap().page(0, u32::MAX);
        lines.extend(puts.into_iter().map(|put| Line::Record(Record::Put(put))));
        if self.flaw != Flaw::SnapshotAtOnce {
            self.flush();
        }
        self.paper.lock().unwrap().put_in_place(before, lines);
    }

    /// What a kill leaves now, what was true then, and which entries must come back.
    fn kill(&self) -> (Disk, Truth, Vec<Put>) {
        let index = self.index.read().unwrap();
        let truth = self.truth.lock().unwrap();
        let disk = self.paper.lock().unwrap().disk.clone();
        let (mut puts, _) = index.page(0, u32::MAX);
        puts.retain(|put| truth.durable.contains(&put.sequence));
        (disk, truth.clone(), puts)
    }

    /// Holds at any moment when nobody is between two steps.
    fn check(&self) {
        let index = self.index.read().unwrap();
        assert_eq!(index.check(), [""; 0]);
        let paper = self.paper.lock().unwrap();
        let (puts, _) = index.page(0, u32::MAX);
        for put in puts {
            assert_eq!(
                paper.missing(&put),
                [],
                "a referrer without a pack: {put:?}"
            );
            let n = put.key.0[0];
            assert_eq!(paper.read(put.head).unwrap(), head(n, put.sequence));
            let at = put.parts.locations().next().unwrap();
            assert_eq!(paper.read(at).unwrap(), body(n));
        }
    }

    /// Holds when all has been said and done: what is there is referred to, and written.
    fn check_quiet(&self) {
        self.flush();
        self.sweep();
        self.write_all();
        self.check();
        assert!(self.pending.lock().unwrap().is_empty() && self.pins.lock().unwrap().is_empty());
        let (known, on_disk) = self.paper.lock().unwrap().packs();
        assert_eq!(known, on_disk);
        let live = |pack: &PackId| self.index.read().unwrap().live(*pack);
        assert!(
            known.iter().all(|pack| live(pack) > 0),
            "a pack without a referrer"
        );
        let again = Self::start(self.flaw, self.paper.lock().unwrap().disk.clone());
        again.check();
        assert_eq!(again.puts(), self.puts(), "the journal says something else");
    }

    fn puts(&self) -> Vec<Put> {
        let (mut puts, _) = self.index.read().unwrap().page(0, u32::MAX);
        puts.sort_by_key(|put| put.sequence);
        puts
    }
}

/// Starts over what a kill left and looks whether it is what it should be; then goes on, and is
/// started once more.
fn start_again(flaw: Flaw, disk: Disk, truth: &Truth, must: &[Put]) {
    let world = World::start(flaw, disk);
    world.check();
    let puts = world.puts();
    for (selector, sequence) in &truth.answered {
        let covered = |put: &Put| match selector {
            Selector::All => put.sequence < *sequence,
            Selector::Url(key) => put.key == *key && put.sequence < *sequence,
            Selector::Prefix(_) | Selector::Regex(..) | Selector::Site(_) | Selector::Tag(..) => {
                false
            }
        };
        assert!(!puts.iter().any(covered), "a purge was undone by a kill");
    }
    let back: HashSet<Sequence> = puts.iter().map(|put| put.sequence).collect();
    for put in must {
        assert!(
            back.contains(&put.sequence),
            "a kill took what was written: {put:?}"
        );
    }
    world.keep(1);
    world.keep(3);
    world.check_quiet();
}

/// One who does something while the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Fill,
    Lose,
    Purge,
    Read,
    Room,
    Snapshot,
    Write,
}

impl Actor {
    const ALL: [Self; 9] = [
        Self::Fill,
        Self::Fill,
        Self::Lose,
        Self::Purge,
        Self::Read,
        Self::Read,
        Self::Room,
        Self::Snapshot,
        Self::Write,
    ];

    fn act(self, world: &World, may_lose: bool) {
        let any = || thread_rng().gen_range(1..=KEYS);
        match self {
            Self::Fill => (0..2).for_each(|_| world.keep(any())),
            Self::Lose => world.lose_one(),
            Self::Purge => world.purge((!chance(4)).then(any)),
            Self::Read => world.read(any(), may_lose),
            Self::Room => world.make_room(),
            Self::Snapshot => world.snapshot(),
            Self::Write => (0..6).for_each(|_| {
                world.write_one();
            }),
        }
    }
}

/// Lets some of `actors` act at once on a store with something in it, and kills it meanwhile.
fn play(flaw: Flaw, actors: &[Actor]) {
    let world = Arc::new(World::start(flaw, Disk::default()));
    for n in 1..=KEYS {
        world.keep(n);
    }
    world.flush();
    // All are seldom needed, and fewer leave more room to meet.
    let actors = actors.iter().filter(|_| flaw != Flaw::None || !chance(3));
    let actors: Vec<Actor> = actors.copied().collect();
    let may_lose = actors.contains(&Actor::Lose);
    let acting: Vec<_> = actors
        .into_iter()
        .map(|actor| {
            let world = Arc::clone(&world);
            thread::spawn(move || actor.act(&world, may_lose))
        })
        .collect();
    let killed = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            (0..thread_rng().gen_range(0..40)).for_each(|_| thread::yield_now());
            world.kill()
        })
    };
    for actor in acting {
        actor.join().unwrap();
    }
    let (disk, truth, must) = killed.join().unwrap();
    world.read(1, may_lose);
    world.check_quiet();
    start_again(flaw, disk, &truth, if may_lose { &[] } else { &must });
}

/// As many schedules as the environment asks for, else few enough for every run.
fn schedules() -> usize {
    asked().unwrap_or(60)
}

fn asked() -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "more are asked for from outside")]
    let asked = std::env::var("LARDER_SCHEDULES").ok();
    asked.and_then(|asked| asked.parse().ok())
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config
}

fn try_all(flaw: Flaw, actors: &'static [Actor], schedules: usize) {
    let play = move || play(flaw, actors);
    Runner::new(RandomScheduler::new(schedules), config()).run(play);
    Runner::new(PctScheduler::new(3, schedules), config()).run(play);
}

#[test]
fn no_order_of_steps_loses_mixes_up_or_brings_back_anything() {
    try_all(Flaw::None, &Actor::ALL, schedules());
}

/// Each rule, broken, is found out under the same schedules.
#[test]
fn every_rule_of_the_shelf_is_needed() {
    use Actor::Fill;
    use Actor::Lose;
    use Actor::Purge;
    use Actor::Read;
    use Actor::Room;
    use Actor::Snapshot;
    use Actor::Write;
    let flaws: [(Flaw, &[Actor]); 9] = [
        (Flaw::RemoveInSilence, &[Room]),
        (Flaw::PurgeWithoutMark, &[Fill, Purge]),
        (Flaw::ForgetLoss, &[Fill, Lose]),
        (Flaw::DropBeforeFlush, &[Room, Write]),
        (Flaw::DropPinned, &[Read, Read, Room]),
        (Flaw::DropWithoutGate, &[Fill, Fill, Room, Write]),
        (Flaw::SnapshotAtOnce, &[Room, Snapshot]),
        (Flaw::StartInSilence, &[Room, Write]),
        (Flaw::WriteUnwanted, &[Fill, Purge, Snapshot, Write]),
    ];
    // The others take minutes to meet.
    let tried = if asked().is_some() { flaws.len() } else { 3 };
    for (flaw, actors) in flaws.into_iter().take(tried) {
        let noticed = catch_unwind(AssertUnwindSafe(|| {
            try_all(flaw, actors, schedules().max(40_000))
        }));
        let Err(panic) = noticed else {
            panic!("{flaw:?}, and nobody noticed");
        };
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said
            .or(panic.downcast_ref::<&str>().copied())
            .unwrap_or_default();
        let found = FOUND.iter().any(|found| said.contains(found));
        assert!(found, "{flaw:?}: {said}");
    }
}

/// What a broken rule comes to, whichever is met first.
const FOUND: [&str; 8] = [
    "a kill took what was written",
    "a pack without a referrer",
    "a pinned pack is gone",
    "a purge was undone by a kill",
    "a referrer without a pack",
    "it lies where nothing is",
    "purged before it was looked up",
    "the journal says something else",
];
