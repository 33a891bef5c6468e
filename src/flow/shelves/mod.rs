//! All directories together, for the rest of `flow`: which shelf to store on, and where to look.
//!
//! ```text
//! key ─► state/spread ─┬─► home: the shelf to store on; before it, the key is removed
//!                      └─► sights: the shelves to look on, down to the first that is in use
//! purge ─► a mark in every index, under one sequence ─► every journal ─► receipt
//! watch ─► a directory that fails is taken out, noted in the others' rosters, and comes back
//! ```
//!
//! Everything under one key lies in one directory, its variants too; other keys of a request, as
//! those by No-Vary-Search, are looked for each in its own. Slices have keys of their own, so a large
//! body is spread over all disks. Sequences are common to all directories: of what is found the
//! newest counts, and a purge covers what is older wherever it lies. A directory that is out keeps
//! its index, which goes on to learn what is purged and replaced; its journal is told when it can be
//! written again, before it is used. If the process ends before that, `state/roster` sees to it that
//! the directory begins empty.
//!
//! Locks: `spread` before an index; several indexes only in the order of the directories.

pub mod handover;
#[cfg(test)]
mod tests;
mod watch;

use self::handover::Beside;
use self::watch::Watch;
use super::purge::Manner;
use super::shelf::Common;
use super::shelf::NotKept;
use super::shelf::Shelf;
use super::shelf::Stored;
use super::shelf::catalog::Catalog;
use super::shelf::lock;
use super::shelf::space;
use super::shelf::upkeep::Done;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::stored::StoredResponse;
use crate::state::eviction;
use crate::state::index::Found;
use crate::state::index::Index;
use crate::state::index::Lookup;
use crate::state::marks::Covered;
use crate::state::marks::Verdict;
use crate::state::roster::DirId;
use crate::state::spread::Spread;
use crate::store::StoreError;
use crate::store::Usage;
use http::HeaderMap;
use http::HeaderName;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio::time::timeout_at;

/// What the shelves are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Bytes of hot responses in memory, for all directories.
    pub memory_bytes_max: u64,
    /// Bytes that large bodies may hold on their way to disk, for all directories.
    pub fill_bytes_max: u64,
    /// Bytes read each second to find damage, in all directories; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// Most variants of a target.
    pub variants_max: usize,
    /// What goes first, and what is let in; the bound on sizes is for all directories together.
    pub eviction: eviction::Params,
}

/// The shelves of all directories.
#[derive(Debug)]
pub struct Shelves {
    params: Mutex<Params>,
    common: Common,
    places: Vec<Place>,
    /// One that could be opened: there always is.
    first: Arc<Shelf>,
    spread: RwLock<Spread>,
    /// Told whenever a directory is taken out or in.
    changes: channel::Sender<()>,
    watch: Mutex<Option<Watcher>>,
    /// What the watching thread knows, while it does not run.
    resting: Mutex<Option<Watch>>,
    /// Who else serves the same responses now.
    beside: RwLock<Option<Beside>>,
}

/// One directory.
#[derive(Debug)]
struct Place {
    store: crate::store::Params,
    id: DirId,
    /// None until it could be opened.
    shelf: OnceLock<Arc<Shelf>>,
    space: Mutex<Option<thread::JoinHandle<()>>>,
    /// Why it is out.
    reason: Mutex<Option<Arc<str>>>,
    /// How often it was taken out.
    outs: AtomicU64,
    /// It is out and about to come back: what is purged must be in its journal.
    joins: AtomicBool,
}

/// The thread that takes directories out and in.
#[derive(Debug)]
struct Watcher {
    /// It ends with what it knows.
    thread: thread::JoinHandle<Watch>,
    /// Has it look at once; dropped, it ends.
    poke: mpsc::SyncSender<()>,
}

/// A look at one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirStats {
    /// Its path.
    pub path: PathBuf,
    /// Why it is out, if so.
    pub out: Option<Arc<str>>,
    /// How often it was taken out since start.
    pub outs: u64,
    /// Responses in it.
    pub entries: u64,
    /// Its sizes.
    pub usage: Usage,
}

impl Shelves {
    /// Opens all directories that can be opened; the others are tried again from time to time. An
    /// error when none can, or another process uses one. Starts the threads that keep room in them and that watch over them.
    pub fn open(params: Params, dirs: &[crate::store::Params]) -> Result<Arc<Self>, StoreError> {
        let (watch, shelves) = Watch::open(params, dirs)?;
        shelves.start_watch(watch)?;
        Ok(shelves)
    }

    fn start_watch(&self, watch: Watch) -> Result<(), StoreError> {
        let (poke, pokes) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("larder-dirs".to_owned())
            .spawn(move || watch.run(&pokes));
        let first = self.places.first().map(|place| place.store.dir.as_path());
        let failed = |source| thread_failed(first.unwrap_or(Path::new("")), source);
        let thread = thread.map_err(failed)?;
        *lock(&self.watch) = Some(Watcher { thread, poke });
        Ok(())
    }

    /// Takes the next sequence.
    pub fn next_sequence(&self) -> Sequence {
        self.common.next_sequence()
    }

    /// Finds an entry for one of `keys`, rather one with `Vary`.
    pub fn lookup(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        headers: &HeaderMap,
    ) -> Lookup {
        if let Some(shelf) = self.alone() {
            return shelf.lookup(keys, headers);
        }
        let find = |index: &Index, key| index.lookup([key], headers);
        self.best(keys, find, |index, found| {
            (index.varies(found), found.sequence)
        })
    }

    /// Finds the newest entry for one of `keys`, with or without `Vary`.
    pub fn lookup_newest(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        headers: &HeaderMap,
    ) -> Lookup {
        if let Some(shelf) = self.alone() {
            return shelf.lookup_newest(keys, headers);
        }
        let find = |index: &Index, key| index.lookup_newest([key], headers);
        self.best(keys, find, |_, found| (false, found.sequence))
    }

    /// Finds what [`lookup`](Self::lookup) would, or the newest entry, without marking it as used.
    pub fn peek(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        headers: &HeaderMap,
        newest: bool,
    ) -> Lookup {
        let find = |index: &Index, key| index.peek([key], headers, newest);
        self.best(keys, find, |index, found| {
            (!newest && index.varies(found), found.sequence)
        })
    }

    /// All that is stored under a key and counts, and whether a purge hides it. None is marked as used.
    pub fn held_under(&self, key: PrimaryKey) -> Vec<(Found, bool)> {
        let held = self.sights(key).map(|(shelf, floor)| {
            let mut held = shelf.read_index().held_under(key);
            held.retain(|(found, _)| found.sequence >= floor);
            held
        });
        held.flatten().collect()
    }

    /// Loads what was found as [`load`](Self::load) does, but nothing changes; see
    /// [`Shelf::view`](super::shelf::Shelf::view).
    pub async fn view(&self, found: Found) -> Option<(Stored, Verdict)> {
        let shelf = self.holder(found)?;
        shelf.view(found).await
    }

    fn best(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        find: impl Fn(&Index, PrimaryKey) -> Lookup,
        rank: impl Fn(&Index, Found) -> (bool, Sequence),
    ) -> Lookup {
        let mut best: Option<((bool, Sequence), Found)> = None;
        let mut any = false;
        for key in keys {
            for (shelf, floor) in self.sights(key) {
                let index = shelf.read_index();
                match find(&index, key) {
                    Lookup::Found(found) if found.sequence >= floor => {
                        let rank = rank(&index, found);
                        if best.is_none_or(|(before, _)| before < rank) {
                            best = Some((rank, found));
                        }
                    }
                    Lookup::VaryMiss => any = true,
                    Lookup::Found(_) | Lookup::UriMiss => {}
                }
            }
        }
        match best {
            Some((_, found)) => Lookup::Found(found),
            None if any => Lookup::VaryMiss,
            None => Lookup::UriMiss,
        }
    }

    /// The entries that could answer a request; at most one a variant (RFC 9111 §4.3.4).
    pub fn candidates(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        headers: &HeaderMap,
    ) -> Vec<Found> {
        let mut candidates: Vec<Found> = Vec::new();
        for key in keys {
            for (shelf, floor) in self.sights(key) {
                let found = shelf.candidates([key], headers);
                candidates.extend(found.into_iter().filter(|found| found.sequence >= floor));
            }
        }
        candidates
    }

    /// Loads what was found. `None` when it is gone or fails its check: the request is a miss.
    pub async fn load(&self, found: Found) -> Option<Stored> {
        let shelf = match self.alone() {
            Some(shelf) => Arc::clone(shelf),
            None => self.holder(found)?,
        };
        shelf.load(found).await
    }

    /// Is this entry still here, and not purged?
    pub fn contains(&self, stored: &Stored) -> bool {
        self.holder(stored.found)
            .is_some_and(|shelf| shelf.contains(stored))
    }

    /// The shelf where an entry is and counts.
    fn holder(&self, found: Found) -> Option<Arc<Shelf>> {
        let Found { key, sequence, .. } = found;
        self.sights(key)
            .filter(|(_, floor)| sequence >= *floor)
            .map(|(shelf, _)| shelf)
            .find(|shelf| shelf.read_index().contains(key, sequence))
            .cloned()
    }

    /// Does a mark cover a response by one of its names, so that it is gone or stale?
    pub fn covers(&self, sequence: Sequence, response: &StoredResponse) -> bool {
        self.verdict(sequence, response) != Verdict::Clear
    }

    /// What marks make of a response, as far as its names are concerned.
    pub fn verdict(&self, sequence: Sequence, response: &StoredResponse) -> Verdict {
        let verdicts = self.opened().map(|shelf| shelf.verdict(sequence, response));
        verdicts.fold(Verdict::Clear, Verdict::or)
    }

    /// The marks that cover a response, oldest first.
    pub fn marks_on(&self, sequence: Sequence, response: &StoredResponse) -> Vec<(Mark, Selector)> {
        let shelves = self.opened();
        let marks = shelves.map(|shelf| shelf.marks_on(sequence, response));
        // Each of them has every mark.
        marks.max_by_key(Vec::len).unwrap_or_default()
    }

    /// The field names that responses under `key` vary by, as far as is known.
    pub fn known_vary(&self, key: PrimaryKey) -> Vec<HeaderName> {
        let known = self
            .sights(key)
            .map(|(shelf, _)| shelf.read_index().known_vary(key).to_vec());
        known
            .into_iter()
            .find(|fields| !fields.is_empty())
            .unwrap_or_default()
    }

    /// Would a response push out another variant of its target?
    pub fn is_crowded(&self, response: &StoredResponse) -> bool {
        let shelf = self.chosen(response.key);
        let index = shelf.read_index();
        index.is_crowded(response.key, response.variant, &response.vary)
    }

    /// The largest body that will be kept under `key`.
    pub fn body_bytes_max(&self, key: PrimaryKey) -> u64 {
        self.chosen(key).body_bytes_max()
    }

    /// May a body of so many bytes be stored for `key`? If not, it may at the next request.
    pub fn admit(&self, key: PrimaryKey, body_bytes: u64) -> bool {
        self.chosen(key).admit(key, body_bytes)
    }

    /// Would [`admit`](Self::admit) say yes? Nothing is remembered.
    pub fn would_admit(&self, key: PrimaryKey, body_bytes: u64) -> bool {
        self.chosen(key).would_admit(key, body_bytes)
    }

    fn chosen(&self, key: PrimaryKey) -> &Arc<Shelf> {
        let place = self.read_spread().choose(key).place;
        self.shelf(place).unwrap_or(&self.first)
    }

    /// The shelf to store on what `key` names and a request with this sequence brings. It is removed
    /// from the shelves where it would be looked for first and that cannot take it now: what is
    /// about to be stored replaces it.
    pub fn home(&self, key: PrimaryKey, sequence: Sequence) -> Arc<Shelf> {
        if let Some(shelf) = self.alone() {
            return Arc::clone(shelf);
        }
        let choice = self.read_spread().choose(key);
        let shelf = self.shelf(choice.place).unwrap_or(&self.first);
        let mut diverted = false;
        for place in choice.passed.iter() {
            diverted = true;
            if let Some(passed) = self.shelf(place) {
                passed.give_up_key(key, sequence);
            }
        }
        if diverted {
            // Else what does not count could hide what does.
            shelf.give_up_key(key, choice.floor);
        }
        Arc::clone(shelf)
    }

    /// Keeps a new head for a body that is stored already; see [`Shelf::keep_head`].
    pub async fn keep_head(
        &self,
        sequence: Sequence,
        old: &Stored,
        response: Arc<StoredResponse>,
    ) -> Result<Stored, NotKept> {
        let shelf = self.home(response.key, sequence);
        shelf.keep_head(sequence, old, response).await
    }

    /// Removes one entry, as when a validation withdrew what it allowed.
    pub fn remove(&self, found: Found) {
        self.opened().for_each(|shelf| shelf.remove(found));
    }

    /// Marks all that `selectors` cover, at once; says how many entries those are, where that is known
    /// by now.
    pub fn purge(&self, how: Manner, selectors: &[Selector]) -> (Mark, Option<u64>) {
        let mut indexes = self.write_indexes();
        let (mark, gone, covered) = self.mark(&mut indexes, how, selectors);
        drop(indexes);
        self.tidy(mark, selectors, &gone);
        (mark, covered)
    }

    /// As [`purge`](Self::purge), but not where that would be too many patterns at a time.
    pub fn try_purge(&self, how: Manner, selectors: &[Selector]) -> Option<(Mark, Option<u64>)> {
        let is_pattern = |selector: &&Selector| matches!(selector, Selector::Regex(..));
        let patterns = selectors.iter().filter(is_pattern).count();
        let mut indexes = self.write_indexes();
        let full =
            |(_, index): &(_, RwLockWriteGuard<'_, Index>)| !index.marks().has_room(patterns);
        if patterns > 0 && indexes.iter().any(full) {
            return None;
        }
        let (mark, gone, covered) = self.mark(&mut indexes, how, selectors);
        drop(indexes);
        self.tidy(mark, selectors, &gone);
        Some((mark, covered))
    }

    /// As [`purge`](Self::purge), by a response that was asked for at `since` and is to be kept as
    /// its own target's next one. Returns the purge's mark, and the sequence to keep the response
    /// under; none when another purge has covered it meanwhile.
    pub fn supersede(
        &self,
        selectors: &[Selector],
        heir: &StoredResponse,
        since: Sequence,
    ) -> (Mark, Option<Sequence>) {
        let mut indexes = self.write_indexes();
        let covered = indexes.iter().any(|(_, index)| {
            index.covers(heir.key, since)
                || index.covers(heir.key.family(), since)
                || index.verdict(since, heir.key, &heir.names) != Verdict::Clear
        });
        let (mark, gone, _) = self.mark(&mut indexes, Manner::Hard, selectors);
        let next = (!covered).then(|| self.next_sequence());
        drop(indexes);
        self.tidy(mark, selectors, &gone);
        (mark, next)
    }

    fn write_indexes(&self) -> Vec<(&Arc<Shelf>, RwLockWriteGuard<'_, Index>)> {
        self.opened()
            .map(|shelf| (shelf, shelf.write_index()))
            .collect()
    }

    fn mark(
        &self,
        indexes: &mut [(&Arc<Shelf>, RwLockWriteGuard<'_, Index>)],
        how: Manner,
        selectors: &[Selector],
    ) -> (Mark, Vec<Sequence>, Option<u64>) {
        let (soft, at) = (how == Manner::Soft, clock::now());
        // Taken while they are locked: of two purges the later one's is greater.
        let sequence = self.next_sequence();
        let mark = Mark { sequence, at, soft };
        let (mut gone, mut covered) = (Vec::new(), Some(0));
        for (shelf, index) in indexes {
            let (went, entries) = shelf.mark(index, mark, selectors);
            gone.extend(went);
            covered = covered.zip(entries).map(|(one, other)| one + other);
        }
        (mark, gone, covered)
    }

    /// Drops what a purge took away out of memory, and has the rest looked for.
    fn tidy(&self, mark: Mark, selectors: &[Selector], gone: &[Sequence]) {
        if !mark.soft && selectors.contains(&Selector::All) {
            self.common.memory().clear();
        } else {
            self.forget_hot(gone);
        }
        if !selectors.iter().all(|it| matches!(it, Selector::Url(_))) {
            self.opened().for_each(|shelf| shelf.ask_for_room());
        }
    }

    /// How many entries the purge of this sequence has covered, as far as it is known. `None` when it
    /// was too long ago, or by targets alone.
    pub fn covered(&self, sequence: Sequence) -> Option<Covered> {
        let known = self
            .opened()
            .map(|shelf| shelf.read_index().marks().covered(sequence));
        let mut sum = None;
        for covered in known.flatten() {
            let before = sum.unwrap_or(Covered {
                entries: 0,
                complete: true,
                given_up: false,
            });
            sum = Some(Covered {
                entries: before.entries.saturating_add(covered.entries),
                complete: before.complete && covered.complete,
                given_up: before.given_up || covered.given_up,
            });
        }
        sum
    }

    /// Writes a purge to the journals of all directories; says whether it is durable: in all that
    /// are in use, of which there is one at least, and those that are not are noted to be out.
    /// A disk that hangs is not waited for. Where another process serves beside this one, it has
    /// learnt of the purge, or does not answer.
    pub async fn record_purge(self: &Arc<Self>, mark: Mark, selectors: &[Selector]) -> bool {
        match self.beside() {
            None => self.record_here(mark, selectors).await,
            Some(beside) => self.record_beside(&beside, mark, selectors).await,
        }
    }

    /// As [`record_purge`](Self::record_purge), in this process alone.
    pub async fn record_here(self: &Arc<Self>, mark: Mark, selectors: &[Selector]) -> bool {
        if let Some(shelf) = self.alone() {
            return shelf.record_purge(mark, selectors).await;
        }
        let until = Instant::now() + PURGE_WAIT;
        let selectors: Arc<[Selector]> = selectors.into();
        let writes: Vec<_> = (0..self.places.len())
            .map(|place| {
                let (shelves, selectors) = (Arc::clone(self), Arc::clone(&selectors));
                tokio::spawn(async move { shelves.record_in(place, mark, &selectors, until).await })
            })
            .collect();
        let mut durable = false;
        let mut failed = false;
        for write in writes {
            match write.await.unwrap_or(Recorded::Not) {
                Recorded::Durable => durable = true,
                Recorded::Out => {}
                Recorded::Not => failed = true,
            }
        }
        durable && !failed
    }

    async fn record_in(
        &self,
        place: usize,
        mark: Mark,
        selectors: &[Selector],
        until: Instant,
    ) -> Recorded {
        let mut changes = self.changes.subscribe();
        loop {
            let Some(shelf) = self.shelf(place) else {
                return Recorded::Out;
            };
            if self.is_away(place) {
                // It is handed over all the same, and written before the directory comes back,
                // unless that has begun meanwhile.
                let now = Instant::now();
                shelf.record_purge_until(mark, selectors, now).await;
                if self.is_away(place) {
                    return Recorded::Out;
                }
            }
            let write = shelf.record_purge_until(mark, selectors, until);
            tokio::select! {
                written = write => if written {
                    return Recorded::Durable;
                },
                _ = changes.changed() => continue,
            }
            if Instant::now() >= until {
                return Recorded::Not;
            }
            if self.is_lent() {
                return Recorded::Not;
            }
            // Either it is taken out now, or it has recovered.
            self.poke();
            let soon = until.min(Instant::now() + POKE_WAIT);
            drop(timeout_at(soon, changes.changed()).await);
        }
    }

    /// Is it out, and not about to come back?
    fn is_away(&self, place: usize) -> bool {
        let joins = |place: &Place| place.joins.load(Ordering::SeqCst);
        !self.read_spread().is_in(place) && !self.places.get(place).is_some_and(joins)
    }

    /// Why nothing can be stored now, if so: no directory is in.
    pub fn pass_through(&self) -> Option<Arc<str>> {
        if let Some(shelf) = self.alone() {
            return shelf.pass_through();
        }
        let any = !self.read_spread().members().is_empty();
        (!any).then(|| {
            let first = self.dirs().into_iter().find_map(|dir| dir.out);
            first.unwrap_or_else(|| "no directory can be used".into())
        })
    }

    /// The directories, in the config's order.
    pub fn dirs(&self) -> Vec<DirStats> {
        let dir = |(number, place): (usize, &Place)| {
            let shelf = place.shelf.get();
            let unused = || Usage {
                limit: place.store.disk_bytes_max,
                ..Usage::default()
            };
            let out = if self.read_spread().is_in(number) {
                None
            } else {
                lock(&place.reason).clone()
            };
            DirStats {
                path: place.store.dir.clone(),
                // It may pass through for a moment before it is taken out, or alone.
                out: out.or_else(|| shelf.and_then(|shelf| shelf.pass_through())),
                outs: place.outs.load(Ordering::Relaxed),
                entries: shelf.map_or(0, |shelf| shelf.entries() as u64),
                usage: shelf.map_or_else(unused, |shelf| shelf.usage()),
            }
        };
        self.places.iter().enumerate().map(dir).collect()
    }

    /// What upkeep has done, in all directories.
    pub fn upkeep(&self) -> Done {
        self.opened()
            .map(|shelf| shelf.upkeep().done())
            .fold(Done::default(), Done::and)
    }

    /// Responses, distinct bodies, and bytes alive; a body that two directories have counts twice.
    pub fn held(&self) -> (u64, u64, u64) {
        self.opened()
            .fold((0, 0, 0), |(entries, bodies, live), shelf| {
                let index = shelf.read_index();
                (
                    entries + index.len() as u64,
                    bodies + index.bodies() as u64,
                    live + index.live_bytes(),
                )
            })
    }

    /// How many names purges have left marks on. Every directory has the same, but for what it came back to.
    pub fn purge_marks(&self) -> u64 {
        let held = self.opened().map(|shelf| shelf.read_index().marks().held());
        held.max().unwrap_or_default() as u64
    }

    /// All that is stored in one directory: in the one of this identity, or in any. Blocking.
    pub fn catalog(&self, identity: Option<&str>) -> Option<Catalog> {
        let is_meant = |shelf: &&Arc<Shelf>| {
            identity.is_none_or(|meant| shelf.store.identity().is_ok_and(|own| own == meant))
        };
        self.opened().find(is_meant).map(Catalog::of)
    }

    /// Bytes in the memory tier.
    pub fn memory_bytes(&self) -> u64 {
        self.common.memory().bytes()
    }

    /// Writes everything that is pending, and ends the threads. Blocks for as long as that takes.
    pub fn close(&self) {
        self.rest();
        for shelf in self.opened() {
            shelf.close();
        }
    }

    /// The only shelf, where there is one directory.
    fn alone(&self) -> Option<&Arc<Shelf>> {
        match self.places.as_slice() {
            [place] => place.shelf.get(),
            _ => None,
        }
    }

    fn shelf(&self, place: usize) -> Option<&Arc<Shelf>> {
        self.places.get(place)?.shelf.get()
    }

    fn opened(&self) -> impl Iterator<Item = &Arc<Shelf>> {
        self.places.iter().filter_map(|place| place.shelf.get())
    }

    /// The shelves to look on for `key`, and from which sequence on an entry counts there.
    fn sights(&self, key: PrimaryKey) -> impl Iterator<Item = (&Arc<Shelf>, Sequence)> {
        let sights = self.read_spread().sights(key);
        let several = self.places.len() > 1;
        sights
            .into_iter()
            .filter_map(|(place, floor)| Some((self.shelf(place)?, floor)))
            .filter(move |(shelf, _)| !(several && shelf.reads_hang()))
    }

    fn read_spread(&self) -> RwLockReadGuard<'_, Spread> {
        self.spread.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_hot(&self, gone: &[Sequence]) {
        gone.iter()
            .for_each(|sequence| self.common.memory().remove(*sequence));
    }

    /// Has the directories looked at soon.
    fn poke(&self) {
        if let Some(watcher) = &*lock(&self.watch) {
            let _waits_already = watcher.poke.try_send(());
        }
    }

    /// Puts a shelf in its place and starts the thread that keeps room on it.
    fn install(&self, number: usize, shelf: &Arc<Shelf>) -> Result<(), StoreError> {
        let Some(place) = self.places.get(number) else {
            return Ok(());
        };
        self.start_space(number, shelf)?;
        // Whoever changes the params meanwhile finds the shelf in its place, or comes first.
        let params = lock(&self.params);
        self.direct(place, shelf, &params);
        drop(place.shelf.set(Arc::clone(shelf)));
        drop(params);
        Ok(())
    }

    /// Starts the thread that keeps room on a shelf.
    fn start_space(&self, number: usize, shelf: &Arc<Shelf>) -> Result<(), StoreError> {
        let Some(place) = self.places.get(number) else {
            return Ok(());
        };
        let started = space::start(shelf);
        let dir = &place.store.dir;
        let thread = started.map_err(|source| thread_failed(dir, source))?;
        *lock(&place.space) = Some(thread);
        Ok(())
    }

    /// Goes by other params from now on, but for `fill_bytes_max`.
    pub fn adopt(&self, params: Params) {
        self.common.memory().resize(params.memory_bytes_max);
        let mut current = lock(&self.params);
        if *current == params {
            return;
        }
        *current = params;
        for place in &self.places {
            if let Some(shelf) = place.shelf.get() {
                self.direct(place, shelf, &params);
            }
        }
    }

    fn direct(&self, place: &Place, shelf: &Shelf, params: &Params) {
        shelf.write_index().limit_variants(params.variants_max);
        shelf.choose_by(self.eviction_of(place, params.eviction));
        let dirs = self.places.len().try_into().unwrap_or(u64::MAX);
        shelf.scrub_at(params.scrub_bytes_per_second.div_ceil(dirs));
    }

    /// The bound on sizes is a part of the directory's limit.
    fn eviction_of(&self, place: &Place, given: eviction::Params) -> eviction::Params {
        let limits = self.places.iter().map(|place| place.store.disk_bytes_max);
        let all: u128 = limits.map(u128::from).sum();
        let share = u128::from(given.second_request_over)
            .saturating_mul(place.store.disk_bytes_max.into())
            .checked_div(all);
        eviction::Params {
            second_request_over: share.map_or(0, |share| share.try_into().unwrap_or(u64::MAX)),
            ..given
        }
    }
}

/// What became of a purge in one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// It is in the journal.
    Durable,
    /// The directory is out, and the others know.
    Out,
    /// Nobody knows yet.
    Not,
}

fn thread_failed(dir: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action: "start a thread for",
        path: dir.to_path_buf(),
        source,
    }
}

/// A disk that works answers sooner, also when it is busy.
const PURGE_WAIT: Duration = Duration::from_secs(5);
/// How soon a purge is tried again in a directory that refused it.
const POKE_WAIT: Duration = Duration::from_millis(200);
