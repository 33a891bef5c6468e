//! Which stored response goes when room is needed, and which large one is let in.
//!
//! ```text
//!        new ─► newcomers (a part of the room) ── asked for again ──► regulars ◄── new, but evicted
//!                  │ not                                               │  ▲        or refused lately
//!                  ▼                                                   │  └ asked for since: on
//!               evicted, remembered for a while                        ▼
//!                                                                   evicted
//! ```
//!
//! What is worth keeping is a matter of how often it was asked for and, when objects are favoured
//! over bytes, of how small it is. The worth is rounded to a *rank*, half a power of two. Newcomers
//! and regulars each have a clock and a queue for every rank: an entry is *due* at the clock's time
//! when it was queued, plus its worth. Thus each queue is in the order of dues, the entry due first
//! is at the end of one of them, and the clock is set to its due when it goes. That is greedy dual
//! with size and frequency, without a heap.
//!
//! A hit only marks: one relaxed atomic store, so that readers need no lock for writing. Marks count
//! when the entry is due. Objects that are asked for once pass through the newcomers and never move
//! the regulars' clock, which is what keeps a scan from emptying the cache.
//!
//! Left to the caller: when to evict, and the exact sum of bytes. Sizes here are rounded to 11
//! bits, so that an entry costs 12 bytes.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// What should be found most often.
    pub favour: Favour,
    /// What has more bytes is let in at its second request.
    pub second_request_over: u64,
}

/// What counts as a good choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Favour {
    /// Bytes served from the store: frequency decides, whatever the size.
    #[default]
    Bytes,
    /// Requests answered from the store: of two asked for as often the smaller one stays.
    Objects,
}

/// What came of the id that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is out of the queues: it is to be evicted.
    Goes(u32),
    /// It had been asked for, and is queued anew.
    Stays,
}

/// The queues. Ids are the caller's: small numbers, reused.
#[derive(Debug)]
pub struct Queues {
    params: Params,
    nodes: Vec<Node>,
    newcomers: Ranks,
    regulars: Ranks,
    ghosts: Ghosts,
}

/// One id's place in a queue.
#[derive(Debug)]
struct Node {
    newer: u32,
    older: u32,
    size: Rounded,
    /// The lowest bits of when it is due, in its rank's [steps](step).
    due: u8,
    state: State,
}

/// Where a node is (2 bits), how often it was asked for (4 bits), and marks since (2 bits).
#[derive(Debug)]
struct State(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Newcomers,
    Out,
    Regulars,
}

/// A number of bytes, of which the first eleven bits are kept: a shift (5 bits) and what is shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rounded(u16);

/// A queue for each rank.
#[derive(Debug)]
struct Ranks {
    queues: Vec<Queue>,
    /// Which queues have something in them.
    used: u128,
    /// When the last victim was due. It wraps: times are compared by how far they are ahead of it.
    clock: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    /// When the oldest is due.
    due: u64,
}

impl Queues {
    /// Makes empty queues that choose by `params`.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            nodes: Vec::new(),
            newcomers: Ranks::new(),
            regulars: Ranks::new(),
            ghosts: Ghosts::new(),
        }
    }

    /// Chooses by `params` from now on. What is in is queued anew, in the order of ids.
    pub fn set_params(&mut self, params: Params) {
        let mut queued = Vec::new();
        for (id, node) in (0..).zip(&self.nodes) {
            if node.state.place() != Place::Out {
                queued.push((id, node.state.place()));
            }
        }
        for (id, _) in &queued {
            self.unlink(*id);
        }
        self.params = params;
        for (id, place) in queued {
            self.push(id, place);
        }
    }

    /// Is something of `bytes` let in at its first request?
    pub fn admits_at_once(&self, bytes: u64) -> bool {
        bytes <= self.params.second_request_over
    }

    /// May something of `bytes` be stored? What is large only when `fingerprint` was refused or
    /// evicted lately; else it is remembered.
    pub fn admit(&mut self, bytes: u64, fingerprint: u64) -> bool {
        if self.admits_at_once(bytes) {
            return true;
        }
        self.ghosts.fit(1);
        let known = self.ghosts.take(fingerprint);
        self.ghosts.add(fingerprint, known.max(1));
        known > 0
    }

    /// Would [`admit`](Self::admit) let it be stored? Nothing is remembered.
    pub fn would_admit(&self, bytes: u64, fingerprint: u64) -> bool {
        self.admits_at_once(bytes) || self.ghosts.has(fingerprint)
    }

    /// Takes in a new id of `bytes`; `fingerprint` names its target, so that one evicted too early
    /// is known when it comes back.
    pub fn insert(&mut self, id: u32, bytes: u64, fingerprint: u64) {
        self.remove(id);
        let len = (id as usize).saturating_add(1);
        if let Some(more) = len.checked_sub(self.nodes.capacity()) {
            // Doubling would cost as much again as all the nodes.
            self.nodes.reserve_exact(more.max(len / 8));
        }
        while self.nodes.len() < len {
            self.nodes.push(Node::out());
        }
        self.ghosts.fit(self.nodes.len());
        let known = self.ghosts.take(fingerprint);
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.size = Rounded::new(bytes);
            node.state.set_frequency(1 + known);
        }
        let place = match known {
            0 => Place::Newcomers,
            _ => Place::Regulars,
        };
        self.push(id, place);
    }

    /// Remembers that `id` was asked for.
    pub fn mark(&self, id: u32) {
        if let Some(node) = self.nodes.get(id as usize) {
            node.state.mark();
        }
    }

    /// Was `id` asked for since it was last looked at?
    pub fn is_marked(&self, id: u32) -> bool {
        let node = self.nodes.get(id as usize);
        node.is_some_and(|node| node.state.marks() > 0)
    }

    /// Forgets that `id` was asked for.
    pub fn unmark(&mut self, id: u32) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.state.unmark();
        }
    }

    /// Forgets `id`.
    pub fn remove(&mut self, id: u32) {
        self.unlink(id);
    }

    /// Picks the id to evict next and takes it out. `fingerprint` tells an id's target.
    pub fn victim(&mut self, fingerprint: impl Fn(u32) -> u64) -> Option<u32> {
        loop {
            if let Due::Goes(id) = self.look(&fingerprint)? {
                return Some(id);
            }
        }
    }

    /// Is this id in one of the queues?
    pub fn holds(&self, id: u32) -> bool {
        let node = self.nodes.get(id as usize);
        node.is_some_and(|node| node.state.place() != Place::Out)
    }

    /// How many are in the queues. Looks at every id there ever was.
    pub fn count(&self) -> usize {
        let is_in = |node: &&Node| node.state.place() != Place::Out;
        self.nodes.iter().filter(is_in).count()
    }

    /// Looks at the id that is due next: takes it out, or takes its marks off and queues it anew.
    /// `None` when there is none.
    pub fn look(&mut self, fingerprint: impl Fn(u32) -> u64) -> Option<Due> {
        let (ranks, rank) = self.next()?;
        let queue = ranks.queues.get(rank)?;
        let id = queue.oldest;
        ranks.clock = queue.due;
        self.unlink(id);
        let node = self.nodes.get_mut(id as usize)?;
        let (marks, frequency) = (node.state.marks(), node.state.frequency());
        if marks == 0 {
            self.ghosts.add(fingerprint(id), frequency);
            return Some(Due::Goes(id));
        }
        node.state.set_frequency(frequency + marks);
        self.push(id, Place::Regulars);
        Some(Due::Stays)
    }

    /// Bytes in all queues, as far as sizes are kept.
    pub fn bytes(&self) -> u64 {
        self.newcomers.bytes + self.regulars.bytes
    }

    /// The queue to look at next: of the newcomers when they have more than their part.
    fn next(&mut self) -> Option<(&mut Ranks, usize)> {
        let parts = match self.params.favour {
            Favour::Bytes => NEWCOMERS_FOR_BYTES,
            Favour::Objects => NEWCOMERS_FOR_OBJECTS,
        };
        let many = self.newcomers.bytes.saturating_mul(parts) > self.bytes();
        match (self.newcomers.first(), self.regulars.first()) {
            (Some(new), Some(old)) if many && new <= old + GAP => Some((&mut self.newcomers, new)),
            (_, Some(old)) => Some((&mut self.regulars, old)),
            (Some(new), None) => Some((&mut self.newcomers, new)),
            (None, None) => None,
        }
    }

    fn rank(&self, node: &Node) -> usize {
        let frequency = u32::from(node.state.frequency());
        // In half powers of two: frequency to the power of one and a half, over the size.
        let often = (frequency * frequency * frequency).max(1).ilog2();
        let small = match self.params.favour {
            Favour::Bytes => 0,
            Favour::Objects => SIZES_MAX - node.size.half_powers(),
        };
        (often + small) as usize
    }

    fn push(&mut self, id: u32, place: Place) {
        let Some(node) = self.nodes.get(id as usize) else {
            return;
        };
        let rank = self.rank(node);
        let Some(ranks) = ranks_at(place, &mut self.newcomers, &mut self.regulars) else {
            return;
        };
        let due = ranks.clock.wrapping_add(worth(rank));
        let Some(queue) = ranks.queues.get_mut(rank) else {
            return;
        };
        let older = std::mem::replace(&mut queue.newest, id);
        if older == NONE {
            queue.oldest = id;
            queue.due = due;
            ranks.used |= 1 << rank;
        }
        if let Some(older) = self.nodes.get_mut(older as usize) {
            older.newer = id;
        }
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.newer = NONE;
            node.older = older;
            node.due = low_bits(due, rank);
            node.state.move_to(place);
            ranks.bytes += node.size.bytes();
        }
    }

    fn unlink(&mut self, id: u32) {
        let Some(node) = self.nodes.get(id as usize) else {
            return;
        };
        let (newer, older, bytes) = (node.newer, node.older, node.size.bytes());
        let (rank, place) = (self.rank(node), node.state.place());
        let Some(ranks) = ranks_at(place, &mut self.newcomers, &mut self.regulars) else {
            return;
        };
        ranks.bytes -= bytes;
        let Some(queue) = ranks.queues.get_mut(rank) else {
            return;
        };
        match self.nodes.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => queue.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => queue.oldest = newer,
        }
        if newer == NONE && older == NONE {
            ranks.used &= !(1 << rank);
        } else if older == NONE
            && let Some(oldest) = self.nodes.get(newer as usize)
        {
            queue.due = when(oldest.due, rank, ranks.clock);
        }
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.state.move_to(Place::Out);
        }
    }
}

fn ranks_at<'a>(
    place: Place,
    newcomers: &'a mut Ranks,
    regulars: &'a mut Ranks,
) -> Option<&'a mut Ranks> {
    match place {
        Place::Newcomers => Some(newcomers),
        Place::Out => None,
        Place::Regulars => Some(regulars),
    }
}

/// How far ahead of the clock something of this rank is due: at least 128 [steps](step), at most
/// 192, so that eight bits of steps tell it for as long as it is queued.
fn worth(rank: usize) -> u64 {
    (128 + 64 * (rank as u64 % 2)) << step(rank)
}

/// The length of a step, as a power of two.
fn step(rank: usize) -> usize {
    rank / 2
}

fn low_bits(due: u64, rank: usize) -> u8 {
    let [lowest, ..] = (due >> step(rank)).to_le_bytes();
    lowest
}

/// When something is due, from the lowest bits: it is not behind the clock.
fn when(due: u8, rank: usize, clock: u64) -> u64 {
    let ahead = u64::from(due.wrapping_sub(low_bits(clock, rank)));
    if ahead == 0 {
        clock
    } else {
        ((clock >> step(rank)).wrapping_add(ahead)) << step(rank)
    }
}

impl Ranks {
    fn new() -> Self {
        let empty = Queue {
            newest: NONE,
            oldest: NONE,
            due: 0,
        };
        Self {
            queues: vec![empty; RANKS],
            used: 0,
            clock: 0,
            bytes: 0,
        }
    }

    /// The rank with the entry that is due first, among equals the lower one.
    fn first(&self) -> Option<usize> {
        let mut left = self.used;
        let ranks = std::iter::from_fn(|| {
            let rank = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (rank < RANKS).then_some(rank)
        });
        ranks.min_by_key(|rank| {
            let queue = self.queues.get(*rank);
            queue.map_or(u64::MAX, |queue| queue.due.wrapping_sub(self.clock))
        })
    }
}

impl Node {
    fn out() -> Self {
        Self {
            newer: NONE,
            older: NONE,
            size: Rounded::new(0),
            due: 0,
            state: State(AtomicU8::new(0)),
        }
    }
}

impl State {
    fn mark(&self) {
        let state = self.0.load(Ordering::Relaxed);
        if state & MARKS_MAX < MARKS_MAX {
            self.0.store(state + 1, Ordering::Relaxed);
        }
    }

    fn marks(&self) -> u8 {
        self.0.load(Ordering::Relaxed) & MARKS_MAX
    }

    /// From 1 to [`FREQUENCY_MAX`].
    fn frequency(&self) -> u8 {
        (self.0.load(Ordering::Relaxed) >> 2) % FREQUENCY_MAX + 1
    }

    fn place(&self) -> Place {
        match self.0.load(Ordering::Relaxed) >> 6 {
            0 => Place::Out,
            1 => Place::Newcomers,
            _ => Place::Regulars,
        }
    }

    fn move_to(&mut self, place: Place) {
        let place = match place {
            Place::Out => 0,
            Place::Newcomers => 1,
            Place::Regulars => 2,
        };
        let state = self.0.get_mut();
        *state = *state & !(3 << 6) | place << 6;
    }

    fn unmark(&mut self) {
        *self.0.get_mut() &= !MARKS_MAX;
    }

    /// Also takes the marks off.
    fn set_frequency(&mut self, frequency: u8) {
        let state = self.0.get_mut();
        *state = *state & (3 << 6) | (frequency.clamp(1, FREQUENCY_MAX) - 1) << 2;
    }
}

impl Rounded {
    fn new(bytes: u64) -> Self {
        let shift = (u64::BITS - bytes.leading_zeros()).saturating_sub(MANTISSA_BITS);
        let bytes = if shift < 1 << (u16::BITS - MANTISSA_BITS) {
            u64::from(shift) << MANTISSA_BITS | bytes >> shift
        } else {
            u64::from(u16::MAX)
        };
        Self(u16::try_from(bytes).unwrap_or(u16::MAX))
    }

    fn bytes(self) -> u64 {
        let mantissa = u64::from(self.0) & ((1 << MANTISSA_BITS) - 1);
        mantissa << (self.0 >> MANTISSA_BITS)
    }

    /// The size in half powers of two, at most [`SIZES_MAX`].
    fn half_powers(self) -> u32 {
        let bytes = self.bytes().max(1);
        let whole = bytes.ilog2();
        whole * 2 + u32::from(bytes << 1 >= 3 << whole)
    }
}

/// Targets evicted or refused lately, and how often they had been asked for. Buckets of four, in
/// each the newest first; a place is 14 bits of the fingerprint and 2 of the frequency.
#[derive(Debug)]
struct Ghosts {
    buckets: Vec<[u16; 4]>,
}

impl Ghosts {
    fn new() -> Self {
        Self {
            buckets: Vec::new(),
        }
    }

    /// Grows to a place for each object.
    fn fit(&mut self, objects: usize) {
        if self.buckets.is_empty() {
            self.buckets = vec![[0; 4]; GHOSTS_MIN / 4];
        }
        while self.buckets.len() * 4 < objects.min(GHOSTS_MAX) {
            // What a bucket holds belongs into it or its new twin: both get it.
            let len = self.buckets.len();
            self.buckets.reserve_exact(len);
            self.buckets.extend_from_within(..);
        }
    }

    fn add(&mut self, fingerprint: u64, frequency: u8) {
        let (bucket, tag) = self.place(fingerprint);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.rotate_right(1);
            let [newest, ..] = bucket;
            *newest = tag | u16::from(frequency.clamp(1, 3));
        }
    }

    /// Is a target known?
    fn has(&self, fingerprint: u64) -> bool {
        let (bucket, tag) = self.place(fingerprint);
        let mut places = self.buckets.get(bucket).into_iter().flatten();
        places.any(|place| *place & !3 == tag && *place & 3 > 0)
    }

    /// Forgets a target; how often it had been asked for, at most 3, or 0 when it is not known.
    fn take(&mut self, fingerprint: u64) -> u8 {
        let (bucket, tag) = self.place(fingerprint);
        let bucket = self.buckets.get_mut(bucket);
        let mut places = bucket.into_iter().flatten();
        match places.find(|place| **place & !3 == tag && **place & 3 > 0) {
            Some(place) => {
                let [frequency, _] = std::mem::take(place).to_le_bytes();
                frequency & 3
            }
            None => 0,
        }
    }

    fn place(&self, fingerprint: u64) -> (usize, u16) {
        let [a, b, c, d, .., g, h] = fingerprint.to_le_bytes();
        let home = u32::from_le_bytes([a, b, c, d]) as usize;
        let tag = u16::from_le_bytes([g, h]) & !3;
        (home & self.buckets.len().saturating_sub(1), tag)
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self::new(Params::default())
    }
}

impl Default for Params {
    /// Favours bytes, and lets everything in.
    fn default() -> Self {
        Self {
            favour: Favour::Bytes,
            second_request_over: u64::MAX,
        }
    }
}

/// No node.
const NONE: u32 = u32::MAX;
/// The newcomers get one part in this many. Measured: more costs bytes, for what is asked for again
/// is pushed out sooner; less costs objects, for the small ones have no time to be asked for.
const NEWCOMERS_FOR_BYTES: u64 = 10;
/// As above.
const NEWCOMERS_FOR_OBJECTS: u64 = 5;
/// A regular that is worth less than a newcomer by more than this, in half powers of two, goes
/// before it: a large one for a small one.
const GAP: usize = 6;
/// How many hits are remembered between two looks.
const MARKS_MAX: u8 = 3;
/// Up to here it counts how often something was asked for.
const FREQUENCY_MAX: u8 = 16;
/// The most half powers of two in a [`Rounded`].
const SIZES_MAX: u32 = 83;
/// Of the sizes, and of sixteen to the power of one and a half.
const RANKS: usize = SIZES_MAX as usize + 12 + 1;
/// Bits of a size that are kept.
const MANTISSA_BITS: u32 = 11;
const GHOSTS_MIN: usize = 1 << 10;
const GHOSTS_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OBJECTS: Params = Params {
        favour: Favour::Objects,
        second_request_over: u64::MAX,
    };

    fn fingerprint(id: u32) -> u64 {
        u64::from(id)
            .wrapping_add(1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn filled(params: Params, ids: std::ops::Range<u32>) -> Queues {
        let mut queues = Queues::new(params);
        for id in ids {
            queues.insert(id, 1024, fingerprint(id));
        }
        queues
    }

    fn victims(queues: &mut Queues) -> Vec<u32> {
        std::iter::from_fn(|| queues.victim(fingerprint)).collect()
    }

    #[test]
    fn an_entry_costs_twelve_bytes() {
        assert_eq!(size_of::<Node>(), 12);
    }

    fn is_regular(queues: &Queues, id: usize) -> bool {
        queues.nodes[id].state.place() == Place::Regulars
    }

    #[test]
    fn the_oldest_unasked_goes_first() {
        for params in [Params::default(), OBJECTS] {
            assert_eq!(victims(&mut filled(params, 0..4)), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn one_that_was_asked_for_stays() {
        let mut queues = filled(Params::default(), 0..4);
        queues.mark(0);
        assert!(queues.is_marked(0));
        assert_eq!(victims(&mut queues), [1, 2, 3, 0]);
    }

    #[test]
    fn one_asked_for_more_often_stays_longer() {
        let mut queues = filled(Params::default(), 0..3);
        for id in [0, 0, 0, 1, 2] {
            queues.mark(id);
        }
        assert_eq!(victims(&mut queues), [1, 2, 0]);
    }

    #[test]
    fn what_was_once_asked_for_often_goes_in_the_end() {
        let mut queues = filled(Params::default(), 0..1);
        for _ in 0..3 {
            queues.mark(0);
        }
        let turns = (1..1000).find(|id| {
            queues.insert(*id, 1024, fingerprint(*id));
            queues.mark(*id);
            queues.victim(fingerprint) == Some(0)
        });
        assert!(turns.is_some());
    }

    #[test]
    fn favouring_objects_the_larger_goes_first_and_favouring_bytes_the_older() {
        let sizes = [100, 100_000, 1000];
        for (params, order) in [(OBJECTS, [1, 2, 0]), (Params::default(), [0, 1, 2])] {
            let mut queues = Queues::new(params);
            for (id, bytes) in (0..).zip(sizes) {
                queues.insert(id, bytes, fingerprint(id));
            }
            assert_eq!(victims(&mut queues), order);
        }
    }

    #[test]
    fn small_ones_that_nobody_asks_for_go_in_the_end() {
        let mut queues = Queues::new(OBJECTS);
        queues.insert(0, 100, fingerprint(0));
        let turns = (1..10_000).find(|id| {
            queues.insert(*id, 2000, fingerprint(*id));
            queues.victim(fingerprint) == Some(0)
        });
        assert!(turns.is_some());
    }

    #[test]
    fn one_evicted_lately_comes_back_as_a_regular() {
        let mut queues = filled(Params::default(), 0..20);
        assert_eq!(queues.victim(fingerprint), Some(0));
        queues.insert(0, 1024, fingerprint(0));
        assert!(is_regular(&queues, 0) && !queues.is_marked(0));
        assert_eq!(victims(&mut queues), (1..20).chain([0]).collect::<Vec<_>>());
    }

    #[test]
    fn a_scan_of_ten_times_the_room_does_not_push_out_what_is_asked_for() {
        for params in [Params::default(), OBJECTS] {
            let mut queues = filled(params, 0..50);
            for id in 0..50 {
                queues.mark(id);
                queues.mark(id);
            }
            for id in 1000..2000 {
                queues.insert(id, 1024, fingerprint(id));
                while queues.bytes() > 100 * 1024 {
                    let victim = queues.victim(fingerprint).unwrap();
                    assert!(victim >= 1000, "the scan evicted {victim}");
                }
            }
        }
    }

    #[test]
    fn what_is_large_is_let_in_at_its_second_request() {
        let mut queues = Queues::new(Params {
            favour: Favour::Bytes,
            second_request_over: 1000,
        });
        assert!(queues.admit(1000, fingerprint(1)));
        for _ in 0..2 {
            // To ask is not to request.
            assert!(!queues.would_admit(1001, fingerprint(2)));
        }
        assert!(!queues.admit(1001, fingerprint(2)));
        assert!(queues.would_admit(1001, fingerprint(2)));
        assert!(!queues.admit(1001, fingerprint(3)));
        assert!(queues.admit(1001, fingerprint(2)));
        queues.insert(0, 1001, fingerprint(2));
        assert!(is_regular(&queues, 0));
    }

    #[test]
    fn what_is_in_is_queued_anew_when_another_choice_is_set() {
        let mut queues = Queues::new(Params::default());
        for (id, bytes) in [(0, 100), (1, 100_000), (2, 1000)] {
            queues.insert(id, bytes, fingerprint(id));
        }
        queues.set_params(OBJECTS);
        assert_eq!(queues.bytes(), 100 + 100_000 / 64 * 64 + 1000);
        assert_eq!(victims(&mut queues), [1, 2, 0]);
    }

    #[test]
    fn what_was_evicted_is_known_until_as_many_others_were() {
        let mut ghosts = Ghosts::new();
        ghosts.fit(1 << 12);
        for id in 0..1 << 10 {
            ghosts.add(fingerprint(id).rotate_left(20), 9);
        }
        ghosts.fit(1 << 13);
        let known = |id: &u32| ghosts.take(fingerprint(*id).rotate_left(20)) == 3;
        assert!((0..1 << 10).filter(known).count() > 1000);
        assert_eq!(ghosts.take(fingerprint(0).rotate_left(20)), 0);
    }

    #[test]
    fn memory_of_what_was_evicted_is_bounded() {
        let mut ghosts = Ghosts::new();
        ghosts.fit(usize::MAX);
        assert_eq!(ghosts.buckets.len() * 4, GHOSTS_MAX);
    }

    proptest! {
        #[test]
        fn a_size_is_kept_to_eleven_bits(bytes in 0u64..1 << 42) {
            let kept = Rounded::new(bytes).bytes();
            prop_assert!(kept <= bytes && bytes - kept <= bytes >> (MANTISSA_BITS - 1));
        }

        #[test]
        fn a_larger_size_is_no_lower_rank(a in any::<u64>(), b in any::<u64>()) {
            let powers = |bytes| Rounded::new(bytes).half_powers();
            prop_assert!(powers(a.max(b)) >= powers(a.min(b)));
            prop_assert!(powers(a) <= SIZES_MAX);
        }

        #[test]
        fn when_it_is_due_is_told_by_eight_bits_to_a_step(
            rank in 0..RANKS, clock in any::<u64>(), part in 0u64..=1000
        ) {
            let ahead = worth(rank) / 1000 * part;
            let due = clock.wrapping_add(ahead);
            // Times wrap: what is compared is how far ahead they are.
            let told = when(low_bits(due, rank), rank, clock).wrapping_sub(clock);
            prop_assert!(ahead.abs_diff(told) < 1 << step(rank));
        }

        #[test]
        fn bytes_are_the_sum_of_what_is_in_and_victims_are_in_whatever_happens(
            objects in any::<bool>(),
            steps in prop::collection::vec((0u8..8, 0u32..32, any::<u64>()), 0..200)
        ) {
            let mut queues = Queues::new(if objects { OBJECTS } else { Params::default() });
            let mut inside = BTreeMap::new();
            for (step, id, bytes) in steps {
                match step {
                    0..3 => {
                        let bytes = bytes >> (id + 20);
                        queues.insert(id, bytes, fingerprint(id));
                        inside.insert(id, Rounded::new(bytes).bytes());
                    }
                    3..5 => queues.mark(id),
                    5 => {
                        queues.remove(id);
                        inside.remove(&id);
                    }
                    6 => queues.unmark(id),
                    _ => {
                        let victim = queues.victim(fingerprint);
                        prop_assert_eq!(victim.is_none(), inside.is_empty());
                        if let Some(victim) = victim {
                            prop_assert!(inside.remove(&victim).is_some());
                        }
                    }
                }
                prop_assert_eq!(queues.bytes(), inside.values().sum::<u64>());
            }
            let mut left = victims(&mut queues);
            left.sort_unstable();
            prop_assert_eq!(left, inside.into_keys().collect::<Vec<_>>());
            prop_assert_eq!(queues.newcomers.used | queues.regulars.used, 0);
        }
    }
}
