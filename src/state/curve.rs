//! What would another size of the store buy? An estimate of the hit ratios at half of today's size,
//! twice and four times it, next to what is.
//!
//! ```text
//! answer ─► is its key sampled? ─ yes ─► four miniatures: ½, 1, 2, 4 times the size
//!           (one compare)                 each as large as the part of keys that is sampled
//! all answers ─► totals ─► what is  +  what another miniature has more than today's  ─► points
//! ```
//!
//! Keys are sampled by their hash (SHARDS): what becomes of a sampled key in a miniature store, whose
//! room is as much smaller as keys are fewer, is what becomes of it in the whole one. Each miniature
//! chooses what goes by the [queues](super::eviction) of the store itself, since a curve of LRU would
//! tell of another cache. The sample is of fixed size: with too many keys in it, half of them leave
//! and each counts twice.
//!
//! Only differences are estimated: how many hits a miniature has more, or fewer, than the one of
//! today's size. So the ratio at today's size is what was counted; a few keys that everybody asks for
//! do not sway it by being in the sample or out; and what is missed for another reason than room (a
//! purge, a restart, a rule) is a hit in all miniatures or in none, and cancels out.
//!
//! The past counts less and less: each [`WINDOW`] answers in the sample weigh half of the next.

use super::eviction;
use super::eviction::Queues;
use hashbrown::HashMap;

/// The estimate, and what it is made from.
#[derive(Debug)]
pub struct Curve {
    bytes: u64,
    keys_max: usize,
    /// One key in two to the power of it is sampled.
    shift: u32,
    half: Miniature,
    today: Miniature,
    double: Miniature,
    fourfold: Miniature,
    /// Answers in the sample since what is told was halved.
    seen: u32,
    /// What was counted in the window, and where counts stood when that was summed up.
    window: Totals,
    summed: Totals,
}

/// One answer in the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// A hash of what was asked for, as good in its lowest bits as anywhere.
    pub key: u64,
    /// What the whole response takes in the store, in bytes.
    pub bytes: u64,
    /// What was sent of it, in bytes.
    pub served: u64,
    /// When, in seconds of any clock.
    pub at: u64,
    /// How it came about.
    pub came: Came,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// From the store, in which it stays fresh until then.
    Hit {
        /// In seconds.
        fresh_until: u64,
    },
    /// From the origin, because nothing was stored; now it is, or might be.
    Missed {
        /// In seconds.
        fresh_until: u64,
    },
    /// From the origin, whatever was stored; now it is, or might be.
    Asked {
        /// In seconds.
        fresh_until: u64,
    },
    /// From the origin, and not to be stored.
    Passed,
}

/// All answers, in the sample or not. Each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub requests: u64,
    /// Of these, from the store.
    pub hits: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Of these, from the store.
    pub hit_bytes: u64,
}

/// What is told of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// The size, in halves of today's.
    pub halves: u64,
    /// The size in bytes.
    pub bytes: u64,
    /// Of the requests, the part that would be answered from the store.
    pub requests_ratio: f64,
    /// Of the bytes.
    pub bytes_ratio: f64,
    /// A store of this size would be full by now; of one that is not, the answer may still change.
    pub full: bool,
}

/// What is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// The sizes, the smallest first.
    pub points: [Point; 4],
    /// One key in so many is in the sample.
    pub one_in: u64,
    /// How many keys are.
    pub keys: usize,
    /// The answers that count, in the sample or not; older ones by half or less.
    pub requests: u64,
}

impl Curve {
    /// Makes an estimate for a store of so many bytes that chooses by `params`, with at most
    /// `keys_max` keys (at least two) in each miniature.
    pub fn new(bytes: u64, params: eviction::Params, keys_max: usize) -> Self {
        Self {
            bytes,
            keys_max: keys_max.max(2),
            shift: SHIFT_MIN,
            half: Miniature::new(1, params),
            today: Miniature::new(2, params),
            double: Miniature::new(4, params),
            fourfold: Miniature::new(8, params),
            seen: 0,
            window: Totals::default(),
            summed: Totals::default(),
        }
    }

    /// Chooses by `params` from now on.
    pub fn choose_by(&mut self, params: eviction::Params) {
        for miniature in self.miniatures() {
            let params = params_of(params, miniature.halves);
            miniature.queues.set_params(params);
        }
    }

    /// What must be zero in a key that is sampled. It changes only in [`see`](Self::see).
    pub fn mask(&self) -> u64 {
        (1 << self.shift) - 1
    }

    /// Takes in an answer, if its key is sampled; `totals` is asked for now and then.
    pub fn see(&mut self, answered: &Answered, totals: impl FnOnce() -> Totals) {
        if answered.key & self.mask() != 0 {
            return;
        }
        let weight = 1 << self.shift;
        let tally = Tally {
            requests: weight,
            bytes: answered.served.saturating_mul(weight),
        };
        let room = self.bytes >> self.shift;
        for miniature in self.miniatures() {
            if miniature.would_hit(answered) {
                miniature.hits.add(tally);
            }
            miniature.keep(answered, room);
        }
        while self.keys() > self.keys_max {
            self.thin_out();
        }
        self.seen = self.seen.saturating_add(1);
        if self.seen >= WINDOW {
            self.halve(totals());
        }
    }

    /// What is told, where counts stand at these totals.
    pub fn tell(&self, totals: Totals) -> Told {
        let window = self.window.and(totals.since(self.summed));
        let today = self.today.hits;
        let point = |miniature: &Miniature| {
            let Tally { requests, bytes } = miniature.hits;
            let hits = window.hits.saturating_add(requests);
            let hit_bytes = window.hit_bytes.saturating_add(bytes);
            let hits = hits.saturating_sub(today.requests);
            let hit_bytes = hit_bytes.saturating_sub(today.bytes);
            Point {
                halves: miniature.halves,
                bytes: halves(self.bytes, miniature.halves),
                requests_ratio: ratio(hits, window.requests),
                bytes_ratio: ratio(hit_bytes, window.bytes),
                full: miniature.full,
            }
        };
        Told {
            points: [&self.half, &self.today, &self.double, &self.fourfold].map(point),
            one_in: 1 << self.shift,
            keys: self.keys(),
            requests: window.requests,
        }
    }

    fn miniatures(&mut self) -> [&mut Miniature; 4] {
        [
            &mut self.half,
            &mut self.today,
            &mut self.double,
            &mut self.fourfold,
        ]
    }

    /// How many keys the miniature has that has most.
    fn keys(&self) -> usize {
        let all = [&self.half, &self.today, &self.double, &self.fourfold];
        let keys = all.iter().map(|miniature| miniature.ids.len());
        keys.max().unwrap_or_default()
    }

    /// Has every other key leave.
    fn thin_out(&mut self) {
        if self.shift >= SHIFT_MAX {
            return;
        }
        self.shift += 1;
        let (mask, room) = (self.mask(), self.bytes >> self.shift);
        for miniature in self.miniatures() {
            miniature.thin_out(mask, room);
        }
    }

    /// Sums up what was counted; from here on it weighs half.
    fn halve(&mut self, totals: Totals) {
        self.seen = 0;
        self.window = self.window.and(totals.since(self.summed)).half();
        self.summed = totals;
        for miniature in self.miniatures() {
            miniature.hits = miniature.hits.half();
        }
    }
}

impl Totals {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            hits: self.hits.saturating_add(other.hits),
            bytes: self.bytes.saturating_add(other.bytes),
            hit_bytes: self.hit_bytes.saturating_add(other.hit_bytes),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            hits: self.hits.saturating_sub(before.hits),
            bytes: self.bytes.saturating_sub(before.bytes),
            hit_bytes: self.hit_bytes.saturating_sub(before.hit_bytes),
        }
    }

    fn half(self) -> Self {
        Self {
            requests: self.requests / 2,
            hits: self.hits / 2,
            bytes: self.bytes / 2,
            hit_bytes: self.hit_bytes / 2,
        }
    }
}

/// Requests, and the bytes sent to them.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    requests: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn half(self) -> Self {
        Self {
            requests: self.requests / 2,
            bytes: self.bytes / 2,
        }
    }
}

/// A store of some size, for the sampled keys only.
#[derive(Debug)]
struct Miniature {
    /// Its size in halves of today's.
    halves: u64,
    queues: Queues,
    ids: HashMap<u64, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    bytes: u64,
    /// Something had to go.
    full: bool,
    /// What it would have answered.
    hits: Tally,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    bytes: u64,
    fresh_until: u64,
}

impl Miniature {
    fn new(halves: u64, params: eviction::Params) -> Self {
        Self {
            halves,
            queues: Queues::new(params_of(params, halves)),
            ids: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            full: false,
            hits: Tally::default(),
        }
    }

    fn would_hit(&self, answered: &Answered) -> bool {
        let slot = self.ids.get(&answered.key);
        let slot = slot.and_then(|id| self.slots.get(*id as usize));
        match answered.came {
            // It was as good as fresh, if the store held it.
            Came::Hit { .. } => slot.is_some(),
            Came::Missed { .. } => slot.is_some_and(|slot| answered.at < slot.fresh_until),
            Came::Asked { .. } | Came::Passed => false,
        }
    }

    /// Holds from now on what was answered, with room for so many bytes in one of today's size.
    fn keep(&mut self, answered: &Answered, room: u64) {
        let (Came::Hit { fresh_until }
        | Came::Missed { fresh_until }
        | Came::Asked { fresh_until }) = answered.came
        else {
            return;
        };
        let slot = Slot {
            key: answered.key,
            bytes: answered.bytes,
            fresh_until,
        };
        if let Some(id) = self.ids.get(&answered.key) {
            self.queues.mark(*id);
            if let Some(held) = self.slots.get_mut(*id as usize) {
                if held.bytes == slot.bytes {
                    held.fresh_until = fresh_until;
                    return;
                }
                // It is another response now.
                self.bytes -= held.bytes;
                *held = slot;
                self.bytes += slot.bytes;
                self.queues.insert(*id, slot.bytes, slot.key);
            }
        } else if self.queues.admit(slot.bytes, slot.key) {
            let id = self.place(slot);
            self.ids.insert(slot.key, id);
            self.bytes += slot.bytes;
            self.queues.insert(id, slot.bytes, slot.key);
        }
        self.shrink(room);
    }

    fn place(&mut self, slot: Slot) -> u32 {
        if let Some(id) = self.free.pop()
            && let Some(place) = self.slots.get_mut(id as usize)
        {
            *place = slot;
            return id;
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Evicts down to its part of the room. A response that is larger stays alone: the whole store,
    /// of which this is a small part, has room for it.
    fn shrink(&mut self, room: u64) {
        let room = halves(room, self.halves);
        while self.bytes > room && self.ids.len() > 1 {
            let slots = &self.slots;
            let key_of = |id: u32| slots.get(id as usize).map_or(0, |slot| slot.key);
            let Some(id) = self.queues.victim(key_of) else {
                return;
            };
            self.full = true;
            self.leave(id);
        }
    }

    fn leave(&mut self, id: u32) {
        if let Some(slot) = self.slots.get(id as usize) {
            self.bytes -= slot.bytes;
            self.ids.remove(&slot.key);
            self.free.push(id);
        }
    }

    fn thin_out(&mut self, mask: u64, room: u64) {
        let leaving = self.ids.iter().filter(|(key, _)| **key & mask != 0);
        let leaving: Vec<u32> = leaving.map(|(_, id)| *id).collect();
        for id in leaving {
            self.queues.remove(id);
            self.leave(id);
        }
        self.shrink(room);
    }
}

fn halves(bytes: u64, halves: u64) -> u64 {
    (bytes / 2).saturating_mul(halves)
}

/// What is large is so next to the size of the store.
fn params_of(params: eviction::Params, halves: u64) -> eviction::Params {
    eviction::Params {
        second_request_over: self::halves(params.second_request_over, halves),
        ..params
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    // Both are far below 2⁵³, and the last digits do not count.
    part.min(whole) as f64 / whole as f64
}

/// At first one key in four is sampled: a hit on another pays for one compare.
const SHIFT_MIN: u32 = 2;
/// Then there are two keys.
const SHIFT_MAX: u32 = 63;
/// After so many answers in the sample all that was counted weighs half.
pub const WINDOW: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::eviction::Favour;

    /// Numbers as good as random ones, the same each time (splitmix64).
    struct Chance(u64);

    impl Chance {
        fn number(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            hash(self.0)
        }

        fn part(&mut self) -> f64 {
            (self.number() >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn hash(seed: u64) -> u64 {
        let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        seed ^ (seed >> 31)
    }

    const FOREVER: u64 = u64::MAX;

    fn params(room: u64) -> eviction::Params {
        eviction::Params {
            favour: Favour::Objects,
            second_request_over: room / 10,
        }
    }

    /// Requests for objects whose popularity falls with the power `alpha` of their rank.
    fn zipf(objects: usize, alpha: f64, requests: usize) -> Vec<u64> {
        let mut sums = Vec::with_capacity(objects);
        let mut sum = 0.0;
        for rank in 1..=objects {
            sum += (rank as f64).powf(-alpha);
            sums.push(sum);
        }
        let mut chance = Chance(7);
        let draw = |_| {
            let at = chance.part() * sum;
            hash(sums.partition_point(|end| *end < at) as u64 + 1)
        };
        (0..requests).map(draw).collect()
    }

    /// From 300 bytes to 30 kB, most of them small.
    fn size(key: u64) -> u64 {
        let part = (hash(key ^ 99) >> 11) as f64 / (1_u64 << 53) as f64;
        (300.0 * 100.0_f64.powf(part * part)) as u64
    }

    /// The whole store, without a sample.
    struct Exact(Miniature, u64);

    impl Exact {
        fn new(room: u64) -> Self {
            Self(Miniature::new(2, params(room)), room)
        }

        fn ask(&mut self, key: u64) -> bool {
            let hit = self.0.ids.contains_key(&key);
            let answered = answered(key, hit);
            self.0.keep(&answered, self.1);
            hit
        }
    }

    fn answered(key: u64, hit: bool) -> Answered {
        let fresh_until = FOREVER;
        Answered {
            key,
            bytes: size(key),
            served: size(key),
            at: 0,
            came: match hit {
                true => Came::Hit { fresh_until },
                false => Came::Missed { fresh_until },
            },
        }
    }

    /// A store of today's size with a curve, and exact ones of the other sizes.
    struct Trial {
        today: Exact,
        others: [Exact; 4],
        curve: Curve,
        totals: Totals,
        exact: [Totals; 4],
    }

    impl Trial {
        fn new(room: u64, keys_max: usize) -> Self {
            Self {
                today: Exact::new(room),
                others: [1, 2, 4, 8].map(|halves| Exact::new(room / 2 * halves)),
                curve: Curve::new(room, params(room), keys_max),
                totals: Totals::default(),
                exact: [Totals::default(); 4],
            }
        }

        fn run(&mut self, trace: &[u64]) {
            for key in trace {
                let hit = self.today.ask(*key);
                count(&mut self.totals, *key, hit);
                let totals = self.totals;
                self.curve.see(&answered(*key, hit), || totals);
                for (other, exact) in self.others.iter_mut().zip(&mut self.exact) {
                    count(exact, *key, other.ask(*key));
                }
            }
        }

        /// By how much the estimate is off at worst, by requests and by bytes.
        fn error(&self) -> (f64, f64) {
            let told = self.curve.tell(self.totals);
            let mut worst = (0.0_f64, 0.0_f64);
            for (point, exact) in told.points.iter().zip(&self.exact) {
                let requests = ratio(exact.hits, exact.requests);
                let bytes = ratio(exact.hit_bytes, exact.bytes);
                worst.0 = worst.0.max((point.requests_ratio - requests).abs());
                worst.1 = worst.1.max((point.bytes_ratio - bytes).abs());
            }
            worst
        }
    }

    fn count(totals: &mut Totals, key: u64, hit: bool) {
        totals.requests += 1;
        totals.bytes += size(key);
        if hit {
            totals.hits += 1;
            totals.hit_bytes += size(key);
        }
    }

    #[test]
    fn the_estimate_is_close_to_what_stores_of_these_sizes_do() {
        let objects = 4_000;
        for (alpha, percent, keys_max) in [(0.7, 10, 1024), (1.0, 4, 512)] {
            let footprint: u64 = (1..=objects as u64).map(|n| size(hash(n))).sum();
            let mut trial = Trial::new(footprint * percent / 100, keys_max);
            trial.run(&zipf(objects, alpha, 20_000));
            let (requests, bytes) = trial.error();
            assert!(requests < 0.02, "{alpha}, {percent} %: requests {requests}");
            assert!(bytes < 0.03, "{alpha}, {percent} %: bytes {bytes}");
        }
    }

    #[test]
    fn the_ratio_at_the_size_of_today_is_the_one_that_was_counted() {
        let mut trial = Trial::new(1 << 20, 512);
        trial.run(&zipf(2_000, 0.8, 5_000));
        let told = trial.curve.tell(trial.totals);
        let counted = ratio(trial.totals.hits, trial.totals.requests);
        assert!((told.points[1].requests_ratio - counted).abs() < 1e-12);
    }

    #[test]
    fn a_larger_store_never_looks_worse_than_a_smaller_one() {
        let mut trial = Trial::new(1 << 20, 512);
        trial.run(&zipf(2_000, 0.8, 10_000));
        let told = trial.curve.tell(trial.totals);
        for pair in told.points.windows(2) {
            assert!(pair[0].requests_ratio <= pair[1].requests_ratio, "{told:?}");
            assert!(pair[0].bytes_ratio <= pair[1].bytes_ratio, "{told:?}");
        }
    }

    #[test]
    fn no_more_keys_are_held_than_the_bound_however_many_come() {
        let mut curve = Curve::new(u64::MAX / 8, params(u64::MAX / 8), 100);
        for n in 0..20_000 {
            curve.see(&answered(hash(n), false), Totals::default);
            for miniature in curve.miniatures() {
                assert!(miniature.ids.len() <= 100);
                assert!(miniature.slots.len() <= 101);
            }
        }
        assert!(curve.shift > 5, "{}", curve.shift);
        let miniature = &curve.fourfold;
        assert!(miniature.ids.capacity() < 1000 && miniature.free.len() <= 101);
    }

    #[test]
    fn a_key_outside_the_sample_changes_nothing() {
        let mut curve = Curve::new(1 << 20, params(1 << 20), 100);
        curve.see(&answered(1, false), || panic!("nothing is due"));
        assert_eq!(curve.tell(Totals::default()).keys, 0);
        curve.see(&answered(4, false), Totals::default);
        assert_eq!(curve.tell(Totals::default()).keys, 1);
        assert_eq!(curve.tell(Totals::default()).one_in, 4);
    }

    /// How many hits, and bytes of them, twice the store has more than today's when a key is asked for
    /// again that only the larger one has room for.
    fn gained(again: Came, at: u64) -> (u64, u64) {
        let mut curve = Curve::new(1000, params(u64::MAX), 100);
        let mut see = |key: u64, came: Came, at: u64| {
            let answered = Answered {
                key,
                bytes: 200,
                served: 150,
                at,
                came,
            };
            curve.see(&answered, Totals::default);
        };
        // A quarter of the keys has a quarter of the room: 250 bytes, 500 in twice the store.
        see(4, Came::Missed { fresh_until: 50 }, 0);
        see(8, Came::Missed { fresh_until: 50 }, 0);
        see(4, again, at);
        let (double, today) = (curve.double.hits, curve.today.hits);
        assert_eq!(today.requests, 0);
        (double.requests, double.bytes)
    }

    #[test]
    fn a_miss_that_a_larger_store_would_hold_is_gained_with_its_bytes() {
        assert_eq!(gained(Came::Missed { fresh_until: 90 }, 49), (4, 600));
    }

    #[test]
    fn what_would_be_stale_or_asked_for_anyhow_is_not_gained() {
        assert_eq!(gained(Came::Missed { fresh_until: 90 }, 50), (0, 0));
        assert_eq!(gained(Came::Asked { fresh_until: 90 }, 10), (0, 0));
        assert_eq!(gained(Came::Passed, 10), (0, 0));
    }

    /// The ratios when each of these keys came about so.
    fn ratios(curve: &mut Curve, answers: &[(u64, bool)]) -> [f64; 4] {
        let mut totals = Totals::default();
        for (key, hit) in answers {
            count(&mut totals, *key, *hit);
            curve.see(&answered(*key, *hit), || totals);
        }
        curve.tell(totals).points.map(|point| point.requests_ratio)
    }

    #[test]
    fn a_miss_for_another_reason_than_room_is_gained_by_no_size() {
        let mut curve = Curve::new(1 << 20, params(1 << 20), 100);
        // Purged between the two.
        assert_eq!(ratios(&mut curve, &[(4, false), (4, false)]), [0.0; 4]);
    }

    #[test]
    fn what_was_stored_before_is_a_hit_in_every_size() {
        let mut curve = Curve::new(1 << 20, params(1 << 20), 100);
        assert_eq!(ratios(&mut curve, &[(4, true), (8, true)]), [1.0; 4]);
    }

    #[test]
    fn what_half_the_store_would_have_pushed_out_is_lost_there() {
        let mut curve = Curve::new(1 << 16, params(u64::MAX), 1000);
        let mut answers: Vec<(u64, bool)> = (1..40).map(|n| (n * 4, false)).collect();
        answers.push((4, true));
        let told = ratios(&mut curve, &answers);
        assert!(curve.half.full);
        assert!(told[0] < told[1], "{told:?}");
    }

    #[test]
    fn the_past_counts_less_and_less() {
        let mut curve = Curve::new(1 << 20, params(1 << 20), 100);
        let mut totals = Totals::default();
        let mut run = |hit: bool, windows: u32| {
            for _ in 0..windows {
                // As if all the others had been before.
                curve.seen = WINDOW - 100;
                for _ in 0..100 {
                    count(&mut totals, 4, hit);
                    curve.see(&answered(4, hit), || totals);
                }
            }
            curve.tell(totals).points[1].requests_ratio
        };
        assert!(run(false, 4) < 0.01);
        assert!(run(true, 3) > 0.85);
    }

    #[test]
    fn a_response_of_another_size_takes_the_place_of_the_one_before() {
        let mut curve = Curve::new(1 << 20, params(1 << 20), 100);
        let mut large = answered(4, false);
        large.bytes = 10_000;
        curve.see(&large, Totals::default);
        large.bytes = 20_000;
        curve.see(&large, Totals::default);
        assert_eq!((curve.today.bytes, curve.today.ids.len()), (20_000, 1));
    }
}
