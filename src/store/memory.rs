//! The memory tier: hot heads and bodies, ready to serve, under a byte limit.
//!
//! What stays is decided by use (CLOCK-PRO, from quick_cache). It knows neither freshness nor
//! purges: the index decides whether an entry may be served, and asks here with its sequence.

use crate::rules::address::Sequence;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::Validators;
use bytes::Bytes;
use quick_cache::DefaultHashBuilder;
use quick_cache::OptionsBuilder;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use quick_cache::sync::DefaultLifecycle;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A stored response in memory.
#[derive(Clone, Debug)]
pub struct Hot {
    /// Its head.
    pub response: Arc<StoredResponse>,
    /// Its whole body, when it is small enough to be kept in memory.
    pub body: Option<Bytes>,
    /// No mark up to this one covers it, but for what shows in its head.
    pub checked: Sequence,
}

impl Hot {
    /// One that no mark was looked at for.
    pub fn new(response: Arc<StoredResponse>, body: Option<Bytes>) -> Self {
        Self {
            response,
            body,
            checked: Sequence(0),
        }
    }
}

/// Hot responses by the sequence that names their entry.
#[derive(Debug)]
pub struct Memory {
    /// None when it could not be made for a tier of any size.
    cache: Option<Cache<u64, Weighed, ByWeight>>,
    bytes_max: AtomicU64,
}

impl Memory {
    /// Makes an empty tier of at most `bytes_max` bytes, heads and bookkeeping included. With 0
    /// nothing is kept.
    pub fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ITEM_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(whole(bytes_max))
            // Ghosts of what was evicted take memory too: a bound on those.
            .estimated_items_capacity(items.clamp(32 * SHARDS, ITEMS_MAX))
            .shards(SHARDS)
            .build();
        let cache = options.ok().map(|options| {
            let hasher = DefaultHashBuilder::default();
            Cache::with_options(options, ByWeight, hasher, DefaultLifecycle::default())
        });
        Self {
            cache,
            bytes_max: AtomicU64::new(bytes_max),
        }
    }

    /// Changes the limit. What is over a lower one goes, what is least used first and a little at a
    /// time, so that no request waits long for a lock.
    pub fn resize(&self, bytes_max: u64) {
        let before = self.bytes_max.swap(bytes_max, Ordering::Relaxed);
        let Some(cache) = self.cache.as_ref().filter(|_| before != bytes_max) else {
            return;
        };
        let step = (before.saturating_sub(bytes_max) / RESIZE_STEPS).max(1);
        for number in 1..RESIZE_STEPS {
            let limit = before.saturating_sub(step.saturating_mul(number));
            if limit > bytes_max {
                cache.set_capacity(whole(limit));
            }
        }
        cache.set_capacity(whole(bytes_max));
    }

    /// Finds a response; marks it as used.
    pub fn get(&self, sequence: Sequence) -> Option<Hot> {
        let weighed = self.cache.as_ref()?.get(&sequence.0)?;
        Some(weighed.hot)
    }

    /// Finds a response without marking it as used.
    pub fn peek(&self, sequence: Sequence) -> Option<Hot> {
        let weighed = self.cache.as_ref()?.peek(&sequence.0)?;
        Some(weighed.hot)
    }

    /// Keeps a response, in place of an earlier one with the same sequence. A body over an eighth
    /// of the tier is left out; so is a response that does not fit without its body.
    pub fn insert(&self, sequence: Sequence, hot: Hot) {
        let Some(cache) = &self.cache else {
            return;
        };
        let body = hot
            .body
            .filter(|body| bytes_of(body) <= self.body_bytes_max());
        let weight = weight(&hot.response, body.as_ref());
        let hot = Hot { body, ..hot };
        cache.insert(sequence.0, Weighed { hot, weight });
    }

    /// Forgets a response.
    pub fn remove(&self, sequence: Sequence) {
        if let Some(cache) = &self.cache {
            cache.remove(&sequence.0);
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    /// The largest body worth inserting, in bytes.
    pub fn body_bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed) / 8
    }

    /// Bytes held, heads by estimate.
    pub fn bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weight)
    }
}

#[derive(Clone, Debug)]
struct Weighed {
    hot: Hot,
    weight: u64,
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<u64, Weighed> for ByWeight {
    fn weight(&self, _sequence: &u64, weighed: &Weighed) -> u64 {
        weighed.weight
    }
}

/// What a response takes in memory, the cache's own bookkeeping included, by estimate.
fn weight(response: &StoredResponse, body: Option<&Bytes>) -> u64 {
    let fields: u64 = response
        .headers
        .iter()
        .map(|(name, value)| FIELD_BYTES + bytes_of(name.as_ref()) + bytes_of(value.as_bytes()))
        .sum();
    let validators = match &response.validators {
        None => 0,
        Some(Validators::ETag(one) | Validators::LastModified(one)) => bytes_of(one.as_bytes()),
        Some(Validators::Both {
            etag,
            last_modified,
        }) => bytes_of(etag.as_bytes()) + bytes_of(last_modified.as_bytes()),
    };
    let vary = FIELD_BYTES.saturating_mul(response.vary.len().try_into().unwrap_or(u64::MAX));
    let tags = TAG_BYTES.saturating_mul(response.names.tags.len().try_into().unwrap_or(u64::MAX));
    let names = tags.saturating_add(bytes_of(response.names.url.as_bytes()));
    let body = body.map_or(0, |body| bytes_of(body));
    [fields, validators, vary, names, body]
        .into_iter()
        .fold(HEAD_BYTES, u64::saturating_add)
}

fn bytes_of(bytes: &[u8]) -> u64 {
    bytes.len().try_into().unwrap_or(u64::MAX)
}

/// So much of a limit as is shared out evenly.
fn whole(bytes_max: u64) -> u64 {
    bytes_max - bytes_max % SHARDS_U64
}

/// Each shard is bounded alone, so a body of an eighth of the tier must fit into one.
const SHARDS: usize = 4;
const SHARDS_U64: u64 = 4;
/// In how many steps the limit is lowered.
const RESIZE_STEPS: u64 = 64;
/// A guess at the average response, to size the memory of what was evicted.
const ITEM_BYTES: u64 = 8 << 10;
const ITEMS_MAX: usize = 1 << 20;
/// A head without its fields, its `Arc`, and the cache's slot for it.
const HEAD_BYTES: u64 = 640;
/// One tag.
const TAG_BYTES: u64 = 16;
/// A field's places in the header map, without its text.
const FIELD_BYTES: u64 = 120;

#[cfg(test)]
mod tests {
    use super::super::head::tests::sample;
    use super::*;

    fn hot(body_bytes: usize) -> Hot {
        Hot::new(Arc::new(sample()), Some(Bytes::from(vec![1; body_bytes])))
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let memory = Memory::new(1 << 20);
        memory.insert(Sequence(1), hot(1000));
        assert_eq!(memory.get(Sequence(1)).unwrap().body.unwrap().len(), 1000);
        assert!(memory.peek(Sequence(1)).is_some() && memory.peek(Sequence(2)).is_none());
        assert!(memory.bytes() > 1000);
        memory.remove(Sequence(1));
        assert!(memory.get(Sequence(1)).is_none());
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn a_body_over_an_eighth_is_left_out_and_its_head_kept() {
        let memory = Memory::new(1 << 20);
        let most = usize::try_from(memory.body_bytes_max()).unwrap();
        memory.insert(Sequence(1), hot(most));
        memory.insert(Sequence(2), hot(most + 1));
        assert!(memory.get(Sequence(1)).unwrap().body.is_some());
        assert!(memory.get(Sequence(2)).unwrap().body.is_none());
    }

    #[test]
    fn the_tier_stays_under_its_limit() {
        for bytes_max in [0, 1, 1000, 100_000, 1 << 20] {
            let memory = Memory::new(bytes_max);
            for number in 0..2000_u32 {
                memory.insert(Sequence(number.into()), hot(number as usize * 7 % 5000));
                assert!(memory.bytes() <= bytes_max);
            }
        }
    }

    #[test]
    fn a_tier_that_shrinks_keeps_what_fits_and_one_that_grows_keeps_everything() {
        let memory = Memory::new(1 << 20);
        for number in 0..500 {
            memory.insert(Sequence(number), hot(1000));
        }
        let held = memory.bytes();
        memory.resize(4 << 20);
        assert_eq!(memory.bytes(), held);
        assert_eq!(memory.body_bytes_max(), 512 << 10);
        memory.resize(100_000);
        assert!(
            (50_000..=100_000).contains(&memory.bytes()),
            "{}",
            memory.bytes()
        );
        memory.resize(0);
        memory.insert(Sequence(1000), hot(0));
        assert_eq!(memory.bytes(), 0);
        memory.resize(1 << 20);
        memory.insert(Sequence(1000), hot(1000));
        assert!(memory.get(Sequence(1000)).is_some());
    }

    #[test]
    fn a_tier_of_nothing_keeps_nothing() {
        let memory = Memory::new(0);
        memory.insert(Sequence(1), hot(0));
        assert!(memory.get(Sequence(1)).is_none());
        memory.clear();
    }
}
