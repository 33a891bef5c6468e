//! Which directory a response is stored in, and where it may be found.
//!
//! ```text
//! key, names, weights ─► order of directories        rendezvous: the highest draw is first
//! order, who is in    ─► where to store: the first that is in
//!                     ─► where to look: every one down to that, each with its floor
//! ```
//!
//! Each directory draws a number from the key and its own name, so when one is out only its own keys
//! go elsewhere, to the second in their order, and come back with it. The chance to draw the highest
//! is in proportion to the weight.
//!
//! What was stored elsewhere while a directory was out must not be found when it is out the next
//! time: it may have been replaced meanwhile. So an entry counts outside the first directory of its
//! key only if it is at least as new as the *floor*: the moment when each directory before came in
//! last. The other way round, who stores elsewhere first removes the key from the directories
//! before (see [`Choice::passed`]). Then of all that is found the newest is right.

use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;

/// The directories, and which of them are in use.
#[derive(Debug)]
pub struct Spread {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    seed: u64,
    weight: f64,
    is_in: bool,
    /// What is stored elsewhere for it counts from here on.
    floor: Sequence,
}

/// Directories by number, in an order; at most [`DIRS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    places: [u8; DIRS_MAX],
    len: usize,
}

/// Where a response is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The directory.
    pub place: usize,
    /// Those before it, which are out: the key is to be removed from them.
    pub passed: Order,
    /// What is older than this does not count in the directory.
    pub floor: Sequence,
}

impl Spread {
    /// Spreads over directories with these names and weights, all out. More than [`DIRS_MAX`] are
    /// left out; a weight of nothing is taken for one.
    pub fn new<'a>(dirs: impl IntoIterator<Item = (&'a [u8], u64)>) -> Self {
        let node = |(name, weight): (&[u8], u64)| Node {
            seed: leading(blake3::hash(name).as_bytes()),
            weight: as_float(weight.max(1)),
            is_in: false,
            floor: Sequence(0),
        };
        Self {
            nodes: dirs.into_iter().take(DIRS_MAX).map(node).collect(),
        }
    }

    /// Takes a directory in: what was stored elsewhere for it before `now` counts no more.
    pub fn take_in(&mut self, place: usize, now: Sequence) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.is_in = true;
            node.floor = now;
        }
    }

    /// Takes a directory out.
    pub fn take_out(&mut self, place: usize) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.is_in = false;
        }
    }

    /// Says since when a directory has been out that never was in: nothing that was stored
    /// elsewhere from then on has been replaced in it.
    pub fn out_since(&mut self, place: usize, floor: Sequence) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.is_in = false;
            node.floor = floor;
        }
    }

    /// Is this directory in?
    pub fn is_in(&self, place: usize) -> bool {
        self.nodes.get(place).is_some_and(|node| node.is_in)
    }

    /// The numbers of those that are in.
    pub fn members(&self) -> Vec<usize> {
        let places = self.nodes.iter().enumerate();
        places
            .filter_map(|(place, node)| node.is_in.then_some(place))
            .collect()
    }

    /// Where to store what `key` names: in the first directory of its order that is in. When none
    /// is, in the first of all, which will say what is wrong.
    pub fn choose(&self, key: PrimaryKey) -> Choice {
        let order = self.order(key);
        let mut choice = Choice {
            place: order.iter().next().unwrap_or(0),
            passed: Order::default(),
            floor: Sequence(0),
        };
        let mut passed = Order::default();
        let mut floor = Sequence(0);
        for (place, node) in self.along(&order) {
            if node.is_in {
                choice.place = place;
                choice.passed = passed;
                choice.floor = floor;
                break;
            }
            passed.push(place);
            floor = floor.max(node.floor);
        }
        choice
    }

    /// Where to look for what `key` names, and from which sequence on an entry counts there.
    pub fn sights(&self, key: PrimaryKey) -> Vec<(usize, Sequence)> {
        let order = self.order(key);
        let mut sights = Vec::with_capacity(order.len);
        let mut floor = Sequence(0);
        for (place, node) in self.along(&order) {
            sights.push((place, floor));
            if node.is_in {
                break;
            }
            floor = floor.max(node.floor);
        }
        sights
    }

    /// The only directory to look in, when there is just one: the common case.
    pub fn sight(&self, key: PrimaryKey) -> Option<usize> {
        let (first, node) = self.along(&self.order(key)).next()?;
        node.is_in.then_some(first)
    }

    /// The order of the directories for a key.
    pub fn order(&self, key: PrimaryKey) -> Order {
        let mut order = Order::default();
        if self.nodes.len() < 2 {
            (0..self.nodes.len()).for_each(|place| order.push(place));
            return order;
        }
        let mut draws = [(0.0, 0); DIRS_MAX];
        for (draw, (place, node)) in draws.iter_mut().zip(self.nodes.iter().enumerate()) {
            *draw = (node.draw(key), place);
        }
        let Some(draws) = draws.get_mut(..self.nodes.len()) else {
            return order;
        };
        draws.sort_unstable_by(|(one, _), (other, _)| other.total_cmp(one));
        draws.iter().for_each(|(_, place)| order.push(*place));
        order
    }

    fn along<'a>(&'a self, order: &Order) -> impl Iterator<Item = (usize, &'a Node)> + use<'a> {
        let order = *order;
        (0..order.len).filter_map(move |n| {
            let place = usize::from(*order.places.get(n)?);
            Some((place, self.nodes.get(place)?))
        })
    }
}

impl Node {
    /// Draws a number: -w / ln(u), with u between 0 and 1, is the highest of several with a chance
    /// of w out of the sum of their weights.
    fn draw(&self, key: PrimaryKey) -> f64 {
        let (head, tail) = halves(&key);
        let mixed = mix(mix(head ^ self.seed) ^ tail);
        // The upper 52 bits, which a float holds, and a half, so that it is never 0 nor 1.
        let unit = (as_float(mixed >> 12) + 0.5) / as_float(1 << 52);
        -self.weight / unit.ln()
    }
}

impl Order {
    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        self.places.into_iter().take(self.len).map(usize::from)
    }

    fn push(&mut self, place: usize) {
        if let (Some(free), Ok(place)) = (self.places.get_mut(self.len), u8::try_from(place)) {
            *free = place;
            self.len += 1;
        }
    }
}

fn halves(key: &PrimaryKey) -> (u64, u64) {
    let head = key.0.first_chunk().copied().unwrap_or_default();
    let tail = key.0.last_chunk().copied().unwrap_or_default();
    (u64::from_le_bytes(head), u64::from_le_bytes(tail))
}

fn leading(digest: &[u8; 32]) -> u64 {
    u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// Spreads every bit over all others (the finaliser of SplitMix64).
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Exact up to 2⁵³, which is more than bytes on any disk and all that is drawn from.
#[expect(clippy::cast_precision_loss, reason = "a weight is only compared")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// Most directories.
pub const DIRS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> PrimaryKey {
        let digest = blake3::hash(&n.to_le_bytes());
        PrimaryKey(*digest.as_bytes().first_chunk().unwrap())
    }

    /// Directories of these weights, all in since 10.
    fn spread(weights: &[u64]) -> Spread {
        let names: Vec<String> = (0..weights.len()).map(|n| format!("/disk{n}")).collect();
        let dirs = names.iter().map(|name| name.as_bytes());
        let mut spread = Spread::new(dirs.zip(weights.iter().copied()));
        (0..weights.len()).for_each(|place| spread.take_in(place, Sequence(10)));
        spread
    }

    const KEYS: u64 = 20_000;

    fn shares(spread: &Spread) -> Vec<u64> {
        let mut shares = vec![0; spread.nodes.len()];
        (0..KEYS).for_each(|n| shares[spread.choose(key(n)).place] += 1);
        shares
    }

    #[test]
    fn keys_are_spread_in_proportion_to_the_weights() {
        for share in shares(&spread(&[7, 7, 7])) {
            assert!(share.abs_diff(KEYS / 3) < KEYS / 50, "{share}");
        }
        let shares = shares(&spread(&[1 << 30, 2 << 30, 5 << 30]));
        for (share, eighths) in shares.into_iter().zip([1, 2, 5]) {
            assert!(share.abs_diff(KEYS * eighths / 8) < KEYS / 50, "{share}");
        }
    }

    #[test]
    fn only_the_keys_of_a_directory_that_is_out_move_and_they_are_spread_too() {
        let mut spread = spread(&[5, 5, 5, 5]);
        let before: Vec<usize> = (0..KEYS).map(|n| spread.choose(key(n)).place).collect();
        spread.take_out(2);
        let mut to = [0_u64; 4];
        for (n, before) in (0..KEYS).zip(&before) {
            let now = spread.choose(key(n)).place;
            if *before == 2 {
                to[now] += 1;
            } else {
                assert_eq!(now, *before);
            }
        }
        assert_eq!(to[2], 0);
        for share in [to[0], to[1], to[3]] {
            assert!(share.abs_diff(KEYS / 12) < KEYS / 50, "{share}");
        }
        spread.take_in(2, Sequence(20));
        let after = (0..KEYS).map(|n| spread.choose(key(n)).place);
        assert!(after.eq(before));
    }

    #[test]
    fn a_directory_more_takes_its_share_and_moves_no_other_key() {
        let (three, four) = (spread(&[3, 3, 3]), spread(&[3, 3, 3, 3]));
        for n in 0..KEYS {
            let (before, after) = (three.choose(key(n)).place, four.choose(key(n)).place);
            assert!(after == before || after == 3);
        }
    }

    #[test]
    fn keys_that_differ_in_one_half_only_are_spread_too() {
        let spread = spread(&[1, 1]);
        let mut seen = [[false; 2]; 2];
        for n in 0..64_u8 {
            let mut ends = [PrimaryKey([7; 16]); 2];
            ends[0].0[0] = n;
            ends[1].0[15] = n;
            for (seen, key) in seen.iter_mut().zip(ends) {
                seen[spread.choose(key).place] = true;
            }
        }
        assert_eq!(seen, [[true; 2]; 2]);
    }

    #[test]
    fn what_is_stored_elsewhere_counts_from_when_the_directory_was_last_in() {
        let mut spread = spread(&[1, 1, 1]);
        let order: Vec<usize> = spread.order(key(1)).iter().collect();
        let [first, second, third] = order[..] else {
            panic!("{order:?}");
        };
        assert_eq!(spread.sights(key(1)), [(first, Sequence(0))]);
        assert_eq!(spread.sight(key(1)), Some(first));
        spread.take_in(second, Sequence(30));
        spread.take_out(first);
        assert_eq!(spread.sight(key(1)), None);
        let sights = [(first, Sequence(0)), (second, Sequence(10))];
        assert_eq!(spread.sights(key(1)), sights);
        let choice = spread.choose(key(1));
        assert_eq!((choice.place, choice.floor), (second, Sequence(10)));
        assert!(choice.passed.iter().eq([first]));
        spread.take_out(second);
        let choice = spread.choose(key(1));
        assert_eq!((choice.place, choice.floor), (third, Sequence(30)));
        assert!(choice.passed.iter().eq([first, second]));
        spread.take_in(first, Sequence(40));
        spread.take_out(first);
        assert_eq!(spread.choose(key(1)).floor, Sequence(40));
    }

    #[test]
    fn when_all_are_out_the_first_is_asked_and_nothing_is_removed() {
        let mut spread = spread(&[1, 1]);
        spread.take_out(0);
        spread.take_out(1);
        let choice = spread.choose(key(3));
        assert_eq!(spread.order(key(3)).iter().next(), Some(choice.place));
        assert_eq!(choice.passed, Order::default());
        assert_eq!(spread.sights(key(3)).len(), 2);
        assert!(spread.members().is_empty());
    }

    #[test]
    fn there_is_a_bound_on_directories() {
        assert_eq!(
            spread(&[1; DIRS_MAX + 3]).order(key(1)).iter().count(),
            DIRS_MAX
        );
    }
}
