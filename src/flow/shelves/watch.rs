//! The thread that takes directories out and in.
//!
//! ```text
//! start ─► rosters say whom to believe ─► open ─┬─► in
//!                                               └─► out ─(tried each second, empty then)─┐
//! in ─ passes through, reads hang ─► the others' rosters ─► out                          │
//!                                                            │                           │
//!                          works again and has written all ◄─┴───────────────────────────┘
//!                                     └─► all rosters ─► in
//! ```
//!
//! Rosters are written before a directory is taken out or in: what follows can only be missed by one
//! that no roster names any more. Whatever touches a disk runs on a thread of its own, at most one a
//! directory and kind, so a disk that hangs keeps nobody else.

use super::Params;
use super::Place;
use super::Shelves;
use crate::clock;
use crate::flow::shelf::Common;
use crate::flow::shelf::Shelf;
use crate::flow::shelf::lock;
use crate::state::roster::Company;
use crate::state::roster::DirId;
use crate::state::roster::Roster;
use crate::state::roster::Verdict;
use crate::state::spread::Spread;
use crate::store::StoreError;
use crate::store::roster;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tokio::sync::watch as channel;

/// What the watching thread knows.
pub(super) struct Watch {
    shelves: Weak<Shelves>,
    company: Company,
    /// All its members have its roster.
    written: bool,
    tries: Vec<Tries>,
}

/// What is tried in one directory.
#[derive(Default)]
struct Tries {
    /// Comes to the shelf that was opened, or to whether an open one has written all.
    trial: Option<thread::JoinHandle<Trial>>,
    /// Not before.
    rest_until: Option<Instant>,
    /// A roster being written.
    roster: Option<thread::JoinHandle<()>>,
    /// It was opened after the others and knows nothing of what was purged before.
    is_new: bool,
}

enum Trial {
    Opened(Result<Arc<Shelf>, StoreError>),
    Written(bool),
}

impl Watch {
    /// Opens all directories that can be opened, believes those that may be, and takes in those
    /// that work.
    pub(super) fn open(
        params: Params,
        dirs: &[crate::store::Params],
    ) -> Result<(Self, Arc<Shelves>), StoreError> {
        let rosters: Vec<Option<Roster>> = dirs
            .iter()
            .map(|dir| Roster::read(&roster::read(&dir.dir)?))
            .collect();
        let verdict = Verdict::of(&rosters, |_| drawn());
        let common = Common::new(params.memory_bytes_max);
        let (places, mut opened) = open_all(params, dirs, &verdict, &common)?;
        let Some((_, first)) = opened.first().cloned() else {
            return Err(none_opened());
        };
        let names = dirs
            .iter()
            .map(|dir| (dir.dir.as_os_str().as_bytes(), dir.disk_bytes_max));
        let mut spread = Spread::new(names);
        let now = common.next_sequence();
        // Whoever is not here was not here before either: then what was stored for it still counts.
        let same = company_of(&places, &opened) == verdict.company.members;
        let floor = if same { verdict.company.since } else { now };
        (0..dirs.len()).for_each(|place| spread.out_since(place, floor));
        let shelves = Arc::new(Shelves {
            params: Mutex::new(params),
            common,
            places,
            first,
            spread: RwLock::new(spread),
            changes: channel::Sender::new(()),
            watch: Mutex::new(None),
        });
        for (number, shelf) in &opened {
            shelves.install(*number, shelf)?;
        }
        let mut watch = Self {
            shelves: Arc::downgrade(&shelves),
            written: verdict.company.number > 0,
            company: verdict.company,
            tries: dirs.iter().map(|_| Tries::default()).collect(),
        };
        opened.retain(|(_, shelf)| shelf.trouble().is_none());
        let members = opened.iter().map(|(number, _)| *number).collect();
        watch.reform(&shelves, members);
        Ok((watch, shelves))
    }

    /// Looks at the directories until told to end.
    pub(super) fn run(mut self, pokes: &mpsc::Receiver<()>) {
        loop {
            match pokes.recv_timeout(TICK) {
                Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let Some(shelves) = self.shelves.upgrade() else {
                return;
            };
            self.tend(&shelves);
        }
    }

    fn tend(&mut self, shelves: &Arc<Shelves>) {
        let before: BTreeSet<usize> = shelves.read_spread().members().into_iter().collect();
        let mut members = before.clone();
        for number in 0..shelves.places.len() {
            let Some(shelf) = shelves.shelf(number) else {
                self.try_to_open(shelves, number);
                continue;
            };
            match shelf.trouble() {
                Some(reason) => {
                    members.remove(&number);
                    note(shelves, number, reason);
                    join(shelves, number, false);
                }
                None if before.contains(&number) => {}
                None => {
                    // Before all is written: purges from here on are waited for.
                    join(shelves, number, true);
                    if self.has_written(number, shelf) {
                        members.insert(number);
                    }
                }
            }
        }
        if members != before {
            self.reform(shelves, members);
        }
    }

    /// Writes the roster of `members` to them all, then takes in who is among them and takes out who
    /// is not. Who cannot write it is no member.
    fn reform(&mut self, shelves: &Shelves, mut members: BTreeSet<usize>) {
        let ids = |members: &BTreeSet<usize>| {
            let places = shelves.places.iter().enumerate();
            let members = places.filter(|(number, _)| members.contains(number));
            sorted(members.map(|(_, place)| place.id))
        };
        while !members.is_empty() {
            // As it was at the end of the process before: its rosters are still true.
            if self.written && ids(&members) == self.company.members {
                break;
            }
            self.company = Company {
                number: self.company.number.saturating_add(1),
                since: shelves.next_sequence(),
                members: ids(&members),
            };
            let failed = self.write_rosters(shelves, &members);
            self.written = failed.is_empty();
            if self.written {
                break;
            }
            for (number, reason) in failed {
                members.remove(&number);
                note(shelves, number, reason);
            }
        }
        self.apply(shelves, &members);
    }

    fn apply(&mut self, shelves: &Shelves, members: &BTreeSet<usize>) {
        let mut spread = shelves
            .spread
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let several = shelves.places.len() > 1;
        for (number, place) in shelves.places.iter().enumerate() {
            let dir = place.store.dir.display();
            match (spread.is_in(number), members.contains(&number)) {
                (false, true) => {
                    // Taken while nobody can choose: whoever has a greater one chooses after this.
                    let now = shelves.next_sequence();
                    spread.take_in(number, now);
                    if let (Some(shelf), Some(tries)) =
                        (place.shelf.get(), self.tries.get_mut(number))
                        && std::mem::take(&mut tries.is_new)
                    {
                        shelf.write_index().mark_all(now);
                    }
                    if lock(&place.reason).take().is_some() && several {
                        tracing::warn!(%dir, "a cache directory is back");
                    }
                }
                (true, false) => {
                    spread.take_out(number);
                    place.outs.fetch_add(1, Ordering::Relaxed);
                    let reason = lock(&place.reason).clone();
                    if several {
                        tracing::warn!(%dir, reason = reason.as_deref(), "a cache directory is out");
                    }
                }
                (true, true) | (false, false) => {}
            }
        }
        drop(spread);
        shelves.changes.send_replace(());
    }

    /// Writes the roster to each member; returns those that could not be written in time, and why.
    fn write_rosters(
        &mut self,
        shelves: &Shelves,
        members: &BTreeSet<usize>,
    ) -> Vec<(usize, Arc<str>)> {
        let until = clock::instant() + ROSTER_WAIT;
        let (done, written) = mpsc::channel();
        let mut missing = members.clone();
        let mut failed = Vec::new();
        for number in members {
            let (Some(place), Some(tries)) =
                (shelves.places.get(*number), self.tries.get_mut(*number))
            else {
                continue;
            };
            if tries
                .roster
                .as_ref()
                .is_some_and(|earlier| !earlier.is_finished())
            {
                continue;
            }
            let roster = Roster {
                own: place.id,
                company: self.company.clone(),
            };
            let (dir, done, number) = (place.store.dir.clone(), done.clone(), *number);
            let spawned = thread::Builder::new()
                .name("larder-roster".to_owned())
                .spawn(move || drop(done.send((number, roster::write(&dir, &roster.text())))));
            tries.roster = spawned.ok();
        }
        drop(done);
        while !missing.is_empty() {
            let left = until.saturating_duration_since(clock::instant());
            let Ok((number, result)) = written.recv_timeout(left) else {
                break;
            };
            missing.remove(&number);
            if let Err(error) = result {
                failed.push((number, told(&error)));
            }
        }
        failed.extend(
            missing
                .into_iter()
                .map(|n| (n, "it does not answer".into())),
        );
        failed
    }

    /// Has an open directory written all that was purged and removed while it was out?
    fn has_written(&mut self, number: usize, shelf: &Arc<Shelf>) -> bool {
        let shelf = Arc::clone(shelf);
        let trial = self.trial(number, move || Trial::Written(shelf.write_all(WRITE_WAIT)));
        matches!(trial, Some(Trial::Written(true)))
    }

    /// Tries to open a directory that could not be opened before. Nothing in it is believed.
    fn try_to_open(&mut self, shelves: &Shelves, number: usize) {
        let Some(place) = shelves.places.get(number) else {
            return;
        };
        let (store, common) = (place.store.clone(), shelves.common.clone());
        let lanes = lanes(&lock(&shelves.params), shelves.places.len());
        let trial = self.trial(number, move || {
            Trial::Opened(Shelf::open_beside(&store, false, &common, lanes))
        });
        let opened = match trial {
            Some(Trial::Opened(Ok(shelf))) => shelves.install(number, &shelf),
            Some(Trial::Opened(Err(error))) => Err(error),
            Some(Trial::Written(_)) | None => return,
        };
        match opened {
            Ok(()) => {
                if let Some(tries) = self.tries.get_mut(number) {
                    tries.is_new = true;
                }
            }
            Err(error) => note(shelves, number, told(&error)),
        }
    }

    /// What a trial came to, when it has ended; begins the next after a rest.
    fn trial(
        &mut self,
        number: usize,
        trial: impl FnOnce() -> Trial + Send + 'static,
    ) -> Option<Trial> {
        let tries = self.tries.get_mut(number)?;
        if let Some(ended) = tries.trial.take_if(|trial| trial.is_finished()) {
            tries.rest_until = Some(clock::instant() + REST);
            return ended.join().ok();
        }
        let rests = tries
            .rest_until
            .is_some_and(|until| clock::instant() < until);
        if tries.trial.is_none() && !rests {
            tries.trial = thread::Builder::new()
                .name("larder-trial".to_owned())
                .spawn(trial)
                .ok();
        }
        None
    }
}

type Opened = Vec<(usize, Arc<Shelf>)>;

/// Opens all directories, one after the other; an error only when none could be opened, or another
/// process uses one.
fn open_all(
    params: Params,
    dirs: &[crate::store::Params],
    verdict: &Verdict,
    common: &Common,
) -> Result<(Vec<Place>, Opened), StoreError> {
    let (mut places, mut opened) = (Vec::new(), Vec::new());
    let mut first_error = None;
    let lanes = lanes(&params, dirs.len());
    for (number, dir) in dirs.iter().enumerate() {
        let believed = verdict.believed.get(number).copied().flatten();
        let mut reason = None;
        match Shelf::open_beside(dir, believed.is_some(), common, lanes) {
            Ok(shelf) => opened.push((number, shelf)),
            // Another larder runs, or is about to end: to begin empty then would be a pity.
            Err(error @ StoreError::Locked { .. }) => return Err(error),
            Err(error) => {
                reason = Some(told(&error));
                if dirs.len() > 1 {
                    let dir = dir.dir.display();
                    tracing::warn!(%dir, reason = reason.as_deref(), "a cache directory is out");
                }
                first_error = first_error.or(Some(error));
            }
        }
        places.push(Place {
            store: dir.clone(),
            id: believed.unwrap_or_else(drawn),
            shelf: OnceLock::new(),
            space: Mutex::new(None),
            reason: Mutex::new(reason),
            outs: AtomicU64::new(0),
            joins: AtomicBool::new(false),
        });
    }
    if opened.is_empty() {
        return Err(first_error.unwrap_or_else(none_opened));
    }
    Ok((places, opened))
}

fn none_opened() -> StoreError {
    StoreError::None {
        dir: PathBuf::new(),
    }
}

fn company_of(places: &[Place], opened: &[(usize, Arc<Shelf>)]) -> Vec<DirId> {
    let here = opened.iter().filter_map(|(number, _)| places.get(*number));
    sorted(here.map(|place| place.id))
}

fn sorted(ids: impl Iterator<Item = DirId>) -> Vec<DirId> {
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The part of what fills may hold that one directory's large bodies may.
fn lanes(params: &Params, dirs: usize) -> u64 {
    params.fill_bytes_max / dirs.max(1).try_into().unwrap_or(u64::MAX)
}

fn note(shelves: &Shelves, number: usize, reason: Arc<str>) {
    if let Some(place) = shelves.places.get(number) {
        *lock(&place.reason) = Some(reason);
    }
}

fn join(shelves: &Shelves, number: usize, joins: bool) {
    if let Some(place) = shelves.places.get(number) {
        place.joins.store(joins, Ordering::SeqCst);
    }
}

/// An error with its cause.
fn told(error: &StoreError) -> Arc<str> {
    let cause = std::error::Error::source(error);
    match cause {
        Some(cause) => format!("{error}: {cause}").into(),
        None => error.to_string().into(),
    }
}

/// A number by chance: each state is seeded anew.
fn drawn() -> DirId {
    DirId(RandomState::new().build_hasher().finish())
}

const TICK: Duration = Duration::from_millis(250);
/// Between two tries to bring a directory back.
const REST: Duration = Duration::from_secs(1);
const ROSTER_WAIT: Duration = Duration::from_secs(2);
const WRITE_WAIT: Duration = Duration::from_secs(10);
