//! What is stored: keys to variants to entries, bodies by name, and what is alive in each pack.
//!
//! ```text
//! PrimaryKey ─► Entry, Entry …                 one a variant, at most a few
//!                 │ head: Location
//!                 ├─► its body, right behind its head: most entries
//!                 └─► Body (counted) ─► segments ─► packs (live bytes)
//! BodyName ───► the Entry or the Body that has it
//! ```
//!
//! Bodies are shared: two responses with the same bytes point at one body. An entry is small; its
//! head and body are on disk, and in the memory tier while hot. Looking up and marking take
//! `&self`, so hits run side by side under a read lock.
//!
//! Memory: an entry takes 84 bytes, its places in the two tables 8, that in the queues 16; a body
//! that is shared, large, or does not lie behind its head, 36 more. Nothing doubles when it grows.
//!
//! A *mark* on everything makes every entry with a smaller sequence invisible at once; the space comes
//! back as [`sweep`](Index::sweep) goes round. What other marks than those on everything and on keys
//! cover, only heads say: whoever has loaded one asks for its [`verdict`](Index::verdict). An entry has
//! a *signature* of its names, so that of most entries no head is read to find what a mark covers.

mod check;

use super::buckets::Buckets;
use super::buckets::Links;
use super::buckets::NONE;
use super::eviction::Due;
use super::eviction::Params;
use super::eviction::Queues;
use super::marks::Marks;
use super::marks::Round;
use super::marks::Verdict;
use super::slab::Slab;
use crate::rules::address::BodyName;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::selecting::ALIKE;
use crate::rules::selecting::is_own_name;
use crate::rules::tag::Names;
use crate::rules::tag::Signature;
use hashbrown::DefaultHashBuilder;
use hashbrown::HashMap;
use hashbrown::HashSet;
use http::HeaderMap;
use http::HeaderName;
use std::hash::BuildHasher;
use std::num::NonZeroU16;
use std::num::NonZeroU32;
use std::time::SystemTime;

/// The index of one store.
#[derive(Debug)]
pub struct Index {
    entries: Slab<Entry>,
    keys: Buckets,
    bodies: Slab<Body>,
    names: Buckets,
    hasher: DefaultHashBuilder,
    queues: Queues,
    /// Field lists of `Vary`, each once; an entry holds the number.
    varies: Vec<Fields>,
    /// Their places in `varies`.
    vary_places: HashMap<Vec<HeaderName>, usize>,
    /// How many entries are kin.
    kin: usize,
    /// Bytes alive in each pack.
    live: HashMap<PackId, u64>,
    /// Bodies of several segments by the packs they use; small bodies are found by their digest.
    large_in: HashMap<PackId, HashSet<u32>>,
    /// Their segments.
    large: HashMap<u32, Vec<Segment>>,
    live_bytes: u64,
    mark: Sequence,
    /// Marks on single keys, for puts that were under way when the mark was set.
    key_marks: HashMap<PrimaryKey, Sequence>,
    /// Stands in for key marks that were forgotten: no older put is taken.
    key_marks_floor: Sequence,
    /// All others.
    marks: Marks,
    variants_max: usize,
}

/// One stored response. Kept small: there may be many millions.
#[derive(Debug)]
struct Entry {
    sequence: [u8; 8],
    key: PrimaryKey,
    variant: [u8; 8],
    signature: [u8; 8],
    head: Place,
    held: Held,
    /// The next in the chain of its key.
    next: u32,
    /// Minutes since the epoch after which it can serve nothing.
    useless_at: u32,
    /// Place in `varies`, counted from one: the zero that is left over marks a free place.
    vary: NonZeroU16,
}

/// Where an entry's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It is empty.
    Nothing,
    /// Right behind the head, in the same pack, and nobody else has it.
    Behind {
        name: BodyName,
        bytes: [u8; 3],
        /// The next in the chain of its name.
        next: u32,
    },
    /// In `bodies`, under this number.
    Apart(u32),
}

/// A location in ten bytes: no pack is longer than 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    pack: [u8; 4],
    offset: [u8; 3],
    bytes: [u8; 3],
}

/// What entries vary by.
#[derive(Debug, Default)]
struct Fields {
    names: Vec<HeaderName>,
    /// One of them is a field of the request, and no name of our own.
    named: bool,
    /// They are under a key that has a [family](PrimaryKey::family).
    kin: bool,
    /// How many entries have this list; one that none has gives its place to another.
    entries: u32,
}

/// A body that is shared, large, or does not lie behind its entry's head.
#[derive(Debug)]
struct Body {
    name: BodyName,
    references: NonZeroU32,
    /// The next in the chain of its name.
    next: u32,
    segments: Segments,
}

#[derive(Debug)]
enum Segments {
    /// The segment's digest is the body's.
    One(Place),
    /// In `large`, under the body's number.
    Many,
}

/// The entries as the chains of keys see them.
struct ByKey<'a> {
    entries: &'a mut Slab<Entry>,
    hasher: &'a DefaultHashBuilder,
}

impl Links for ByKey<'_> {
    fn hash(&self, item: u32) -> u64 {
        let key = self.entries.get(item).map(|entry| entry.key);
        key.map_or(0, |key| hash(self.hasher, &key.0))
    }

    fn next(&self, item: u32) -> u32 {
        self.entries.get(item).map_or(NONE, |entry| entry.next)
    }

    fn set_next(&mut self, item: u32, next: u32) {
        if let Some(entry) = self.entries.get_mut(item) {
            entry.next = next;
        }
    }
}

/// The entries that have their body behind their head, and the bodies, as the chains of names see
/// them.
struct ByName<'a> {
    entries: &'a mut Slab<Entry>,
    bodies: &'a mut Slab<Body>,
    hasher: &'a DefaultHashBuilder,
}

impl Links for ByName<'_> {
    fn hash(&self, item: u32) -> u64 {
        let name = named(self.entries, self.bodies, item);
        name.map_or(0, |(name, _)| hash(self.hasher, &name.0))
    }

    fn next(&self, item: u32) -> u32 {
        named(self.entries, self.bodies, item).map_or(NONE, |(_, next)| next)
    }

    fn set_next(&mut self, item: u32, to: u32) {
        match Owner::of(item) {
            Owner::Entry(id) => {
                if let Some(Held::Behind { next, .. }) =
                    self.entries.get_mut(id).map(|entry| &mut entry.held)
                {
                    *next = to;
                }
            }
            Owner::Body(id) => {
                if let Some(body) = self.bodies.get_mut(id) {
                    body.next = to;
                }
            }
        }
    }
}

/// Whose body a name names. As an item of the chains, bodies have the topmost bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Entry(u32),
    Body(u32),
}

impl Owner {
    fn of(item: u32) -> Self {
        if item & BODY == 0 {
            Self::Entry(item)
        } else {
            Self::Body(item & !BODY)
        }
    }

    fn item(self) -> u32 {
        match self {
            Self::Entry(id) => id,
            Self::Body(id) => id | BODY,
        }
    }
}

/// An item's name, and what follows in its chain.
fn named(entries: &Slab<Entry>, bodies: &Slab<Body>, item: u32) -> Option<(BodyName, u32)> {
    match Owner::of(item) {
        Owner::Entry(id) => match entries.get(id)?.held {
            Held::Behind { name, next, .. } => Some((name, next)),
            Held::Nothing | Held::Apart(_) => None,
        },
        Owner::Body(id) => bodies.get(id).map(|body| (body.name, body.next)),
    }
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup {
    /// This entry answers the key and the selecting fields.
    Found(Found),
    /// Nothing for the key.
    UriMiss,
    /// Something for the key, but for other selecting fields (RFC 9111 §4.1).
    VaryMiss,
}

impl Lookup {
    /// Names the entry that was found.
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Found(found) => Some(found.sequence),
            Self::UriMiss | Self::VaryMiss => None,
        }
    }
}

/// A found entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Names the entry.
    pub sequence: Sequence,
    /// Its key.
    pub key: PrimaryKey,
    /// Its variant.
    pub variant: VariantKey,
}

/// Why a put could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A mark newer than its sequence covers it.
    Covered,
    /// A table is full, or it does not fit in: it lies outside any pack, or its body has another's
    /// name.
    Full,
    /// A newer entry of the same variant is there already.
    Superseded,
}

impl Index {
    /// Makes an empty index.
    pub fn new() -> Self {
        Self {
            entries: Slab::new(),
            keys: Buckets::new(),
            bodies: Slab::new(),
            names: Buckets::new(),
            hasher: DefaultHashBuilder::default(),
            queues: Queues::default(),
            varies: vec![Fields::default()],
            vary_places: HashMap::from_iter([(Vec::new(), 0)]),
            kin: 0,
            live: HashMap::new(),
            large_in: HashMap::new(),
            large: HashMap::new(),
            live_bytes: 0,
            mark: Sequence(0),
            key_marks: HashMap::new(),
            key_marks_floor: Sequence(0),
            marks: Marks::default(),
            variants_max: VARIANTS_MAX,
        }
    }

    /// Makes room in an empty index for so many entries. Entries may be more, or fewer.
    pub fn reserve(&mut self, entries: u32) {
        self.keys.reserve(entries);
        self.names.reserve(entries);
    }

    /// Sets how many variants a key may have, at least one. A key that has more already loses one
    /// when the next is taken in.
    pub fn limit_variants(&mut self, variants_max: usize) {
        self.variants_max = variants_max.max(1);
    }

    /// Sets what goes first when room is needed, and what is let in.
    pub fn choose_by(&mut self, params: Params) {
        self.queues.set_params(params);
    }

    /// May any response of `bytes` be taken in?
    pub fn admits_at_once(&self, bytes: u64) -> bool {
        self.queues.admits_at_once(bytes)
    }

    /// May a response of `bytes` be taken in under `key`? What is too large for a first request is
    /// remembered for the next; what replaces another is not too large.
    pub fn admit(&mut self, key: PrimaryKey, bytes: u64) -> bool {
        self.chain(key).next().is_some() || self.queues.admit(bytes, fingerprint(key))
    }

    /// Finds an entry for one of `keys` that the request's fields select, and marks it as used: the
    /// newest of those with `Vary`, else the newest. An origin that leaves `Vary` off its default
    /// response does not mean it for those who ask for another (RFC 9111 §4.1).
    pub fn lookup(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Lookup {
        let varies = |entry: &Entry| self.fields(entry).is_some_and(|fields| fields.named);
        self.marked(self.find_best(keys, request_headers, |e| (varies(e), e.sequence())))
    }

    /// Finds the newest entry, with or without `Vary`.
    pub fn lookup_newest(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Lookup {
        self.marked(self.find_best(keys, request_headers, |e| (false, e.sequence())))
    }

    /// Finds what [`lookup`](Self::lookup) would, or the newest entry, without marking it as used.
    pub fn peek(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
        newest: bool,
    ) -> Lookup {
        let varies = |entry: &Entry| self.fields(entry).is_some_and(|fields| fields.named);
        let rank = |e: &Entry| (!newest && varies(e), e.sequence());
        self.find_best(keys, request_headers, rank).1
    }

    /// Marks what was found as used.
    fn marked(&self, (id, lookup): (Option<u32>, Lookup)) -> Lookup {
        if let Some(id) = id {
            self.queues.mark(id);
        }
        lookup
    }

    /// All that is stored under a key, and whether a purge hides it; at most as many as it may have
    /// variants. None is marked as used.
    pub fn held_under(&self, key: PrimaryKey) -> Vec<(Found, bool)> {
        self.chain(key)
            .map(|(_, entry)| (entry.found(), self.is_covered(entry)))
            .collect()
    }

    fn find_best(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
        rank: impl Fn(&Entry) -> (bool, Sequence),
    ) -> (Option<u32>, Lookup) {
        let mut found: Option<(u32, &Entry)> = None;
        let mut any = false;
        // Most variants of a key have the same list of fields: what it selects is computed once.
        let mut selected: Option<(NonZeroU16, VariantKey)> = None;
        for key in keys {
            for (id, entry) in self.chain(key).filter(|(_, e)| !self.is_covered(e)) {
                any = true;
                if found.is_some_and(|(_, best)| rank(best) > rank(entry)) {
                    continue;
                }
                let variant = match selected {
                    Some((vary, variant)) if vary == entry.vary => variant,
                    _ => VariantKey::new(self.vary(entry), request_headers),
                };
                selected = Some((entry.vary, variant));
                if variant == entry.variant() {
                    found = Some((id, entry));
                }
            }
        }
        match found {
            Some((id, entry)) => (Some(id), Lookup::Found(entry.found())),
            None if any => (None, Lookup::VaryMiss),
            None => (None, Lookup::UriMiss),
        }
    }

    /// All entries for `keys` that the request's fields select, whether or not they are the newest;
    /// of each key at most as many as it may have variants. None is marked as used.
    pub fn candidates(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Vec<Found> {
        keys.into_iter()
            .flat_map(|key| self.chain(key))
            .filter(|(_, entry)| !self.is_covered(entry))
            .filter(|(_, entry)| self.selects(entry, request_headers))
            .map(|(_, entry)| entry.found())
            .collect()
    }

    /// Does this entry vary by a field of requests?
    pub fn varies(&self, found: Found) -> bool {
        let entry = self.find(found.key, found.sequence);
        entry
            .and_then(|(_, entry)| self.fields(entry))
            .is_some_and(|fields| fields.named)
    }

    /// The field names that the newest entry for `key` varies by; empty when nothing is known.
    pub fn known_vary(&self, key: PrimaryKey) -> &[HeaderName] {
        self.chain(key)
            .map(|(_, entry)| entry)
            .max_by_key(|entry| entry.sequence())
            .map_or(&[], |entry| self.vary(entry))
    }

    /// Would [`admit`](Self::admit) take a response of `bytes` in? Nothing is remembered.
    pub fn would_admit(&self, key: PrimaryKey, bytes: u64) -> bool {
        self.chain(key).next().is_some() || self.queues.would_admit(bytes, fingerprint(key))
    }

    /// Would one more entry of this variant push out another one of its key?
    pub fn is_crowded(&self, key: PrimaryKey, variant: VariantKey, vary: &[HeaderName]) -> bool {
        let same = |entry: &Entry| entry.variant() == variant && self.vary(entry) == vary;
        !vary.is_empty()
            && self.chain(key).count() >= self.variants_max
            && !self.chain(key).any(|(_, entry)| same(entry))
    }

    /// Where an entry's parts lie.
    pub fn place(&self, key: PrimaryKey, sequence: Sequence) -> Option<Put> {
        let (_, entry) = self.find(key, sequence)?;
        Some(self.put(entry))
    }

    /// Is this entry still here?
    pub fn contains(&self, key: PrimaryKey, sequence: Sequence) -> bool {
        self.find(key, sequence).is_some()
    }

    /// Where a body lies, if it is stored.
    pub fn body(&self, name: BodyName) -> Option<Parts> {
        Some(self.parts(self.owner(name)?))
    }

    /// Takes a new entry in. It replaces one of the same variant; a variant too many pushes out the
    /// oldest that was not asked for lately. Returns the sequences of the entries that went.
    ///
    /// When the body is stored already, its own parts are kept and `put.parts` ignored.
    pub fn insert(&mut self, put: &Put) -> Result<Vec<Sequence>, Refused> {
        let alike = put.vary.contains(&ALIKE);
        let covered = |key| self.covers(key, put.sequence);
        if covered(put.key) || alike && covered(put.key.family()) {
            return Err(Refused::Covered);
        }
        self.take_in(put)
    }

    /// Returns whether a mark covers what was asked for under `key` and this sequence.
    pub fn covers(&self, key: PrimaryKey, sequence: Sequence) -> bool {
        let key_mark = self.key_marks.get(&key).copied().unwrap_or_default();
        let floor = self.key_marks_floor.max(self.marks.floor());
        sequence < self.mark.max(floor).max(key_mark)
    }

    /// Takes entries in from the journal, in order. One that is known already has moved: its new
    /// place counts. One that a purge covers is left out, as is one that a newer one replaces. Tells
    /// of each whether its body has moved under others that use it too: of these the journal says
    /// something else, unless it goes on.
    pub fn restore_all(&mut self, puts: &[Put], mut tell: impl FnMut(&Put, bool)) {
        self.touch(puts);
        for put in puts {
            let moved = self.restore(put);
            tell(put, moved);
        }
    }

    fn restore(&mut self, put: &Put) -> bool {
        let mut moved = false;
        if let Some(owner) = self.owner(put.body)
            && self.parts(owner) != put.parts
        {
            moved = self.has_others(owner, put);
            self.recut(owner, &put.parts);
        }
        // What is refused a purge covers, or a newer response is there already.
        let _refused = if self.remove(put.key, put.sequence) {
            self.take_in(put)
        } else {
            self.insert(put)
        };
        moved
    }

    /// Does another entry than this one use the body?
    fn has_others(&self, owner: Owner, put: &Put) -> bool {
        let mut chain = self.chain(put.key);
        let own = chain.find(|(_, entry)| entry.sequence() == put.sequence);
        match owner {
            Owner::Entry(id) => own.is_none_or(|(own, _)| own != id),
            Owner::Body(id) => {
                let own = own.is_some_and(|(_, entry)| entry.held == Held::Apart(id));
                self.references(put.body) > u32::from(own)
            }
        }
    }

    /// How many entries use a body, those that a mark hides among them.
    pub fn references(&self, name: BodyName) -> u32 {
        match self.owner(name) {
            None => 0,
            Some(Owner::Entry(_)) => 1,
            Some(Owner::Body(id)) => self.bodies.get(id).map_or(0, |body| body.references.get()),
        }
    }

    /// Looks at what [`restore`](Self::restore) will look at. Nothing in it waits for anything else,
    /// so the memory of many entries is fetched at the same time.
    fn touch(&self, puts: &[Put]) {
        let heads: Vec<(u32, u32)> = puts
            .iter()
            .map(|put| {
                let of_key = self.keys.first(hash(&self.hasher, &put.key.0));
                let of_name = self.names.first(hash(&self.hasher, &put.body.0));
                (of_key, of_name)
            })
            .collect();
        let next = heads.iter().map(|(of_key, of_name)| {
            let of_key = self.entries.get(*of_key).map_or(NONE, |entry| entry.next);
            let of_name = named(&self.entries, &self.bodies, *of_name);
            of_key ^ of_name.map_or(NONE, |(_, next)| next)
        });
        std::hint::black_box(next.fold(0, std::ops::BitXor::bitxor));
    }

    fn take_in(&mut self, put: &Put) -> Result<Vec<Sequence>, Refused> {
        let vary = self.vary_number(&put.vary).ok_or(Refused::Full)?;
        let head = Place::new(put.head).ok_or(Refused::Full)?;
        let same = |entry: &Entry| entry.variant() == put.variant && entry.vary == vary;
        if self
            .chain(put.key)
            .any(|(_, entry)| same(entry) && entry.sequence() > put.sequence)
        {
            return Err(Refused::Superseded);
        }
        let held = self.hold(put).ok_or(Refused::Full)?;
        let mut gone = Vec::new();
        let replaced: Vec<u32> = self
            .chain(put.key)
            .filter(|(_, entry)| same(entry))
            .map(|(id, _)| id)
            .collect();
        self.count_hidden(&replaced);
        gone.extend(replaced.into_iter().filter_map(|id| self.remove_id(id)));
        if self.chain(put.key).count() >= self.variants_max {
            gone.extend(self.push_out(put.key));
        }
        let entry = Entry {
            sequence: put.sequence.0.to_le_bytes(),
            key: put.key,
            variant: put.variant.0.to_le_bytes(),
            signature: put.signature.0.to_le_bytes(),
            head,
            held,
            next: NONE,
            useless_at: u32::try_from(put.useless_at.div_ceil(60)).unwrap_or(u32::MAX),
            vary,
        };
        let Ok(id) = self.entries.insert(entry) else {
            if let Held::Apart(body) = held {
                self.release(body);
            }
            return Err(Refused::Full);
        };
        self.link(id);
        self.kin += usize::from(put.vary.contains(&ALIKE));
        if let Some(fields) = self.fields_mut(vary) {
            fields.entries += 1;
        }
        self.add_live(put.head);
        let body_bytes: u64 = put.parts.locations().map(|l| u64::from(l.bytes)).sum();
        self.queues.insert(
            id,
            body_bytes + u64::from(put.head.bytes),
            fingerprint(put.key),
        );
        Ok(gone)
    }

    /// Removes one variant of a key: the oldest of those that were not asked for lately, so that a
    /// flood of values nobody asks for twice leaves those alone that are in use. When all were asked
    /// for it is the oldest, and the others have to be asked for anew.
    fn push_out(&mut self, key: PrimaryKey) -> Option<Sequence> {
        let queues = &self.queues;
        let variants = self.chain(key);
        let (id, _) = variants.min_by_key(|(id, e)| (queues.is_marked(*id), e.sequence()))?;
        if self.queues.is_marked(id) {
            let all: Vec<u32> = self.chain(key).map(|(id, _)| id).collect();
            for id in all {
                self.queues.unmark(id);
            }
        }
        self.remove_id(id)
    }

    /// Removes one entry, also one that a mark hides.
    pub fn remove(&mut self, key: PrimaryKey, sequence: Sequence) -> bool {
        let found = self
            .chain(key)
            .find(|(_, entry)| entry.sequence() == sequence);
        let id = found.map(|(id, _)| id);
        id.and_then(|id| self.remove_id(id)).is_some()
    }

    /// Removes every variant of a key that is older than `mark`, and sees to it that none is taken
    /// in later; returns the sequences of those that went. When the key is a
    /// [family](PrimaryKey::family), what is stored under its keys becomes invisible at once.
    pub fn mark_key(&mut self, key: PrimaryKey, mark: Sequence) -> Vec<Sequence> {
        if self.key_marks.len() >= KEY_MARKS_MAX {
            // What is only hidden must not come to light again.
            self.remove_covered();
            let newest = self.key_marks.values().copied().max();
            self.key_marks_floor = self.key_marks_floor.max(newest.unwrap_or_default());
            self.key_marks.clear();
        }
        let held = self.key_marks.entry(key).or_default();
        *held = mark.max(*held);
        let ids: Vec<u32> = self
            .chain(key)
            .filter(|(_, entry)| entry.sequence() < mark)
            .map(|(id, _)| id)
            .collect();
        ids.into_iter()
            .filter_map(|id| self.remove_id(id))
            .collect()
    }

    /// Sets a mark that was made now; says what went at once, and how many entries it covers, where
    /// that is known.
    pub fn mark(&mut self, mark: Mark, selector: &Selector) -> (Vec<Sequence>, Option<u64>) {
        match selector {
            Selector::All if !mark.soft => {
                self.marks.set(mark, selector);
                self.mark_all(mark.sequence);
                (Vec::new(), None)
            }
            Selector::Url(key) if !mark.soft => {
                let gone = self.mark_key(*key, mark.sequence);
                let covered = gone.len() as u64;
                (gone, Some(covered))
            }
            Selector::Url(key) => {
                let older = self
                    .chain(*key)
                    .filter(|(_, e)| e.sequence() < mark.sequence);
                let covered = older.count() as u64;
                self.marks.set(mark, selector);
                self.marks.count(&[mark.sequence], covered);
                self.heed_stand_in();
                (Vec::new(), Some(covered))
            }
            Selector::All
            | Selector::Prefix(_)
            | Selector::Regex(..)
            | Selector::Site(_)
            | Selector::Tag(..) => {
                self.marks.set(mark, selector);
                self.heed_stand_in();
                (Vec::new(), None)
            }
        }
    }

    /// What stands in for marks that there was no room for is a mark on everything.
    fn heed_stand_in(&mut self) {
        let stand_in = self.marks.stand_in();
        if stand_in > Sequence(0) {
            self.mark_all(stand_in);
        }
    }

    /// Sets a mark that was made before, as the journal tells of it.
    pub fn restore_mark(&mut self, mark: Mark, selector: &Selector) {
        match selector {
            Selector::All if !mark.soft => self.mark_all(mark.sequence),
            Selector::Url(key) if !mark.soft => drop(self.mark_key(*key, mark.sequence)),
            Selector::All
            | Selector::Prefix(_)
            | Selector::Regex(..)
            | Selector::Site(_)
            | Selector::Tag(..)
            | Selector::Url(_) => {
                self.marks.restore(mark, selector);
                self.heed_stand_in();
            }
        }
    }

    /// What marks make of a response with these names that was found.
    pub fn verdict(&self, sequence: Sequence, key: PrimaryKey, names: &Names) -> Verdict {
        self.marks.verdict(sequence, key, names)
    }

    /// The marks that are not on everything or on a key alone.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// As [`marks`](Self::marks), to note what was swept for.
    pub fn marks_mut(&mut self) -> &mut Marks {
        &mut self.marks
    }

    /// Forgets marks that have done their work; returns what goes with those that were soft.
    pub fn tidy_marks(&mut self, now: SystemTime) -> Vec<Sequence> {
        let hardened = self.marks.tidy(now);
        let gone = hardened
            .into_iter()
            .flat_map(|(mark, key)| self.mark_key(key, mark.sequence));
        gone.collect()
    }

    /// Which of the entries in `count` places from `from` on one of a round's purges may cover, at most
    /// so many; and where to go on, `None` after the last place.
    pub fn suspects(
        &self,
        round: &Round,
        from: u32,
        count: u32,
        most: usize,
    ) -> (Vec<Put>, Option<u32>) {
        let end = self.entries.end();
        let to = from.saturating_add(count).min(end);
        let mut suspects = Vec::new();
        let mut next = from;
        while next < to && suspects.len() < most {
            let entry = self.entries.get(next);
            let suspect = entry
                .filter(|entry| round.may_cover(entry.sequence(), entry.signature()))
                .filter(|entry| !self.is_covered(entry));
            suspects.extend(suspect.map(|entry| self.put(entry)));
            next = next.saturating_add(1);
        }
        (suspects, (next < end).then_some(next))
    }

    /// Counts those among some entries that go by which a mark on everything hides.
    fn count_hidden(&mut self, ids: &[u32]) {
        let hidden = ids.iter().filter_map(|id| self.entries.get(*id));
        let hidden = hidden.filter(|entry| entry.sequence() < self.mark).count() as u64;
        if hidden > 0 {
            self.marks.count(&[self.mark], hidden);
        }
    }

    /// Makes every entry older than `mark` invisible.
    pub fn mark_all(&mut self, mark: Sequence) {
        self.mark = self.mark.max(mark);
        // What they covered is covered now.
        self.marks.forget_before(mark);
    }

    /// The newest mark that covers everything.
    pub fn mark_on_everything(&self) -> Sequence {
        self.mark
    }

    /// Evicts entries until no more than `bytes` are alive, but looks at no more than `looks`: whoever
    /// waits for the index gets in between. Returns what went, and whether there is more to do.
    pub fn evict(&mut self, bytes: u64, looks: u32) -> (Vec<Sequence>, bool) {
        let mut gone = Vec::new();
        for _ in 0..looks {
            if self.live_bytes <= bytes {
                return (gone, false);
            }
            let entries = &self.entries;
            let target = |id| entries.get(id).map_or(0, |entry| fingerprint(entry.key));
            match self.queues.look(target) {
                Some(Due::Goes(id)) => gone.extend(self.remove_id(id)),
                Some(Due::Stays) => {}
                None => return (gone, false),
            }
        }
        (gone, self.live_bytes > bytes)
    }

    /// Looks at `count` places from `from` on and removes entries that a mark covers or that can
    /// serve nothing after `now` (seconds since the epoch). Returns what went, and where to go on;
    /// `None` after the last place.
    pub fn sweep(&mut self, from: u32, count: u32, now: u64) -> (Vec<Sequence>, Option<u32>) {
        let end = self.entries.end();
        let to = from.saturating_add(count).min(end);
        let minute = u32::try_from(now / 60).unwrap_or(u32::MAX);
        let gone = (from..to)
            .filter(|id| {
                self.entries
                    .get(*id)
                    .is_some_and(|e| self.is_covered(e) || e.useless_at < minute)
            })
            .collect::<Vec<u32>>();
        self.count_hidden(&gone);
        let gone = gone
            .into_iter()
            .filter_map(|id| self.remove_id(id))
            .collect();
        (gone, (to < end).then_some(to))
    }

    /// The entries in `count` places from `from` on, for a snapshot, and where to go on.
    pub fn page(&self, from: u32, count: u32) -> (Vec<Put>, Option<u32>) {
        let end = self.entries.end();
        let to = from.saturating_add(count).min(end);
        let puts = (from..to)
            .filter_map(|id| self.entries.get(id))
            .filter(|entry| !self.is_covered(entry))
            .map(|entry| self.put(entry))
            .collect();
        (puts, (to < end).then_some(to))
    }

    /// All that is stored under a key; at most as many as it may have variants.
    pub fn variants(&self, key: PrimaryKey) -> Vec<Put> {
        self.chain(key)
            .filter(|(_, entry)| !self.is_covered(entry))
            .map(|(_, entry)| self.put(entry))
            .collect()
    }

    /// Bytes alive in a pack.
    pub fn live(&self, pack: PackId) -> u64 {
        self.live.get(&pack).copied().unwrap_or(0)
    }

    /// The entry whose head lies at `location`.
    pub fn head_at(&self, key: PrimaryKey, location: Location) -> Option<Sequence> {
        let mut chain = self.chain(key);
        let (_, entry) = chain.find(|(_, e)| e.head.location() == location)?;
        Some(entry.sequence())
    }

    /// Is a live segment called `digest` at `location`?
    pub fn segment_at(&self, digest: Digest, location: Location) -> bool {
        self.segment_owner(digest.name(), location).is_some()
    }

    /// The entries under `key` that use the body with a segment called `digest` at `location`.
    /// `None` when entries under other keys use it too.
    pub fn sole_users(
        &self,
        key: PrimaryKey,
        digest: Digest,
        location: Location,
    ) -> Option<Vec<Sequence>> {
        let held = match self.segment_owner(digest.name(), location)? {
            Owner::Entry(id) => {
                let entry = self.entries.get(id).filter(|entry| entry.key == key)?;
                return Some(vec![entry.sequence()]);
            }
            Owner::Body(id) => Held::Apart(id),
        };
        let users: Vec<Sequence> = self
            .chain(key)
            .filter(|(_, entry)| entry.held == held)
            .map(|(_, entry)| entry.sequence())
            .collect();
        let Held::Apart(id) = held else {
            return None;
        };
        let all = self.bodies.get(id)?.references.get() as usize == users.len();
        all.then_some(users)
    }

    /// Points an entry's head at its new place.
    pub fn move_head(&mut self, key: PrimaryKey, from: Location, to: Location) -> bool {
        let found = self.chain(key).find(|(_, e)| e.head.location() == from);
        let (Some(id), Some(place)) = (found.map(|(id, _)| id), Place::new(to)) else {
            return false;
        };
        // The body stays where it is.
        if let Some(Held::Behind { .. }) = self.entries.get(id).map(|entry| entry.held)
            && self.set_apart(id).is_none()
        {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(id) {
            entry.head = place;
        }
        self.add_live(to);
        self.sub_live(from);
        true
    }

    /// Points an entry at the new places of its head and of the body right behind it, which are
    /// side by side again. `false`: it is not at `from`, or the body is not its own.
    pub fn move_both(&mut self, key: PrimaryKey, from: [Location; 2], to: [Location; 2]) -> bool {
        let is_it = |entry: &Entry| {
            let behind = entry.behind();
            behind.is_some_and(|behind| from == [entry.head.location(), behind])
        };
        let found = self.chain(key).find(|(_, entry)| is_it(entry));
        let ([head, body], Some(id)) = (to, found.map(|(id, _)| id)) else {
            return false;
        };
        let (Some(place), true) = (Place::new(head), head.is_before(body)) else {
            return false;
        };
        if let Some(entry) = self.entries.get_mut(id) {
            entry.head = place;
        }
        for (from, to) in from.into_iter().zip(to) {
            self.add_live(to);
            self.sub_live(from);
        }
        true
    }

    /// Points a segment at its new place.
    pub fn move_segment(&mut self, digest: Digest, from: Location, to: Location) -> bool {
        let owner = self.segment_owner(digest.name(), from);
        owner.is_some_and(|owner| self.move_part(owner, from, to))
    }

    fn move_part(&mut self, owner: Owner, from: Location, to: Location) -> bool {
        let id = match owner {
            Owner::Entry(id) => self.set_apart(id),
            Owner::Body(id) => Some(id),
        };
        let (Some(id), Some(place)) = (id, Place::new(to)) else {
            return false;
        };
        let Some(body) = self.bodies.get_mut(id) else {
            return false;
        };
        if let Segments::One(at) = &mut body.segments {
            *at = place;
        } else {
            let segments = self.large.get_mut(&id).into_iter().flatten();
            for segment in segments.filter(|s| s.location == from) {
                segment.location = to;
            }
            self.large_in.entry(to.pack).or_default().insert(id);
            self.forget_large(id, from.pack);
        }
        self.add_live(to);
        self.sub_live(from);
        true
    }

    /// Which of the entries in `count` places from `from` on have a part in one of `packs`, and where
    /// to go on.
    pub fn residents(
        &self,
        packs: &HashSet<PackId>,
        from: u32,
        count: u32,
    ) -> (Vec<Put>, Option<u32>) {
        let is_in = |entry: &Entry| match entry.held {
            Held::Apart(id) => self.locations(id).any(|at| packs.contains(&at.pack)),
            Held::Nothing | Held::Behind { .. } => false,
        };
        let end = self.entries.end();
        let to = from.saturating_add(count).min(end);
        let puts = (from..to)
            .filter_map(|id| self.entries.get(id))
            .filter(|entry| packs.contains(&entry.head.pack()) || is_in(entry))
            .map(|entry| self.put(entry))
            .collect();
        (puts, (to < end).then_some(to))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many distinct bodies.
    pub fn bodies(&self) -> usize {
        self.names.len()
    }

    /// Bytes of heads and bodies alive.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn chain(&self, key: PrimaryKey) -> impl Iterator<Item = (u32, &Entry)> {
        let mut next = self.keys.first(hash(&self.hasher, &key.0));
        let bucket = std::iter::from_fn(move || {
            let id = next;
            let entry = self.entries.get(id)?;
            next = entry.next;
            Some((id, entry))
        });
        bucket.filter(move |(_, entry)| entry.key == key)
    }

    fn find(&self, key: PrimaryKey, sequence: Sequence) -> Option<(u32, &Entry)> {
        self.chain(key)
            .find(|(_, entry)| entry.sequence() == sequence && !self.is_covered(entry))
    }

    /// Is there a mark on everything or on its family that hides it?
    fn is_covered(&self, entry: &Entry) -> bool {
        entry.sequence() < self.mark || (self.is_kin(entry) && self.is_covered_with_kin(entry))
    }

    fn is_covered_with_kin(&self, entry: &Entry) -> bool {
        let mark = self.key_marks.get(&entry.key.family());
        mark.is_some_and(|mark| entry.sequence() < *mark)
    }

    fn is_kin(&self, entry: &Entry) -> bool {
        self.fields(entry).is_some_and(|fields| fields.kin)
    }

    /// Removes what marks on families hide. Looks at every entry, if any is kin.
    fn remove_covered(&mut self) {
        if self.kin == 0 {
            return;
        }
        let covered = |id: &u32| {
            let entry = self.entries.get(*id).filter(|entry| self.is_kin(entry));
            entry.is_some_and(|entry| self.is_covered_with_kin(entry))
        };
        let ids: Vec<u32> = (0..self.entries.end()).filter(covered).collect();
        for id in ids {
            self.remove_id(id);
        }
    }

    fn selects(&self, entry: &Entry, request_headers: &HeaderMap) -> bool {
        let vary = self.vary(entry);
        vary.is_empty() || VariantKey::new(vary, request_headers) == entry.variant()
    }

    fn vary(&self, entry: &Entry) -> &[HeaderName] {
        self.fields(entry)
            .map_or(&[], |fields| fields.names.as_slice())
    }

    fn fields(&self, entry: &Entry) -> Option<&Fields> {
        self.varies.get(usize::from(entry.vary.get()) - 1)
    }

    fn fields_mut(&mut self, vary: NonZeroU16) -> Option<&mut Fields> {
        self.varies.get_mut(usize::from(vary.get()) - 1)
    }

    /// A place for a new list: at the end, or, when there are too many, that of one nobody has.
    fn free_vary(&mut self) -> Option<usize> {
        if self.varies.len() < VARIES_MAX {
            self.varies.push(Fields::default());
            return Some(self.varies.len() - 1);
        }
        // The empty list keeps its place: most responses have it.
        let is_free = |known: &Fields| known.entries == 0 && !known.names.is_empty();
        self.varies.iter().position(is_free)
    }

    fn vary_number(&mut self, vary: &[HeaderName]) -> Option<NonZeroU16> {
        let number = match self.vary_places.get(vary) {
            Some(number) => *number,
            None => {
                let number = self.free_vary()?;
                let fields = self.varies.get_mut(number)?;
                let names = std::mem::replace(&mut fields.names, vary.to_vec());
                fields.named = !vary.iter().all(is_own_name);
                fields.kin = vary.contains(&ALIKE);
                if !names.is_empty() {
                    self.vary_places.remove(&names);
                }
                self.vary_places.insert(vary.to_vec(), number);
                number
            }
        };
        NonZeroU16::new(u16::try_from(number + 1).ok()?)
    }

    fn put(&self, entry: &Entry) -> Put {
        let (body, parts) = match entry.held {
            Held::Nothing => (Digest::of(b"").name(), Parts::None),
            Held::Behind { name, .. } => {
                let behind = entry.behind();
                (name, behind.map_or(Parts::None, Parts::One))
            }
            Held::Apart(id) => {
                let name = self.bodies.get(id).map(|body| body.name);
                let name = name.unwrap_or_else(|| Digest::of(b"").name());
                (name, self.parts(Owner::Body(id)))
            }
        };
        Put {
            sequence: entry.sequence(),
            key: entry.key,
            variant: entry.variant(),
            signature: entry.signature(),
            vary: self.vary(entry).to_vec(),
            head: entry.head.location(),
            body,
            parts,
            useless_at: u64::from(entry.useless_at) * 60,
        }
    }

    /// Puts an entry into the chains of its key and, if it has a body of its own, of its name.
    fn link(&mut self, id: u32) {
        let entries = &mut self.entries;
        let hasher = &self.hasher;
        self.keys.add(id, &mut ByKey { entries, hasher });
        if let Some(behind) = self.entries.get(id).and_then(Entry::behind) {
            let (names, mut links) = self.by_name();
            names.add(id, &mut links);
            self.add_live(behind);
        }
    }

    fn by_name(&mut self) -> (&mut Buckets, ByName<'_>) {
        let links = ByName {
            entries: &mut self.entries,
            bodies: &mut self.bodies,
            hasher: &self.hasher,
        };
        (&mut self.names, links)
    }

    fn remove_id(&mut self, id: u32) -> Option<Sequence> {
        let behind = self.entries.get(id)?.behind();
        if let Some(behind) = behind {
            let (names, mut links) = self.by_name();
            names.remove(id, &mut links);
            self.sub_live(behind);
        }
        let entries = &mut self.entries;
        let hasher = &self.hasher;
        self.keys.remove(id, &mut ByKey { entries, hasher });
        self.queues.remove(id);
        let entry = self.entries.remove(id)?;
        self.kin -= usize::from(self.is_kin(&entry));
        if let Some(fields) = self.fields_mut(entry.vary) {
            fields.entries -= 1;
        }
        self.sub_live(entry.head.location());
        if let Held::Apart(body) = entry.held {
            self.release(body);
        }
        Some(entry.sequence())
    }

    fn owner(&self, name: BodyName) -> Option<Owner> {
        let mut item = self.names.first(hash(&self.hasher, &name.0));
        loop {
            let (found, next) = named(&self.entries, &self.bodies, item)?;
            if found == name {
                return Some(Owner::of(item));
            }
            item = next;
        }
    }

    fn parts(&self, owner: Owner) -> Parts {
        let parts = match owner {
            Owner::Entry(id) => {
                let entry = self.entries.get(id);
                entry.and_then(Entry::behind).map(Parts::One)
            }
            Owner::Body(id) => self.bodies.get(id).map(|body| match body.segments {
                Segments::One(place) => Parts::One(place.location()),
                Segments::Many => Parts::Many(self.large.get(&id).cloned().unwrap_or_default()),
            }),
        };
        parts.unwrap_or(Parts::None)
    }

    /// Where the parts of a body in `bodies` lie.
    fn locations(&self, id: u32) -> impl Iterator<Item = Location> {
        let body = self.bodies.get(id);
        let one = body.and_then(|body| match body.segments {
            Segments::One(place) => Some(place.location()),
            Segments::Many => None,
        });
        let many = if one.is_none() {
            self.large.get(&id)
        } else {
            None
        };
        let many = many.into_iter().flatten().map(|segment| segment.location);
        one.into_iter().chain(many)
    }

    /// Sees to it that a put's body is held for its entry, in one way or another.
    fn hold(&mut self, put: &Put) -> Option<Held> {
        match (self.owner(put.body), &put.parts) {
            (_, Parts::None) => Some(Held::Nothing),
            (Some(Owner::Entry(id)), _) => self.hold_again(id),
            (Some(Owner::Body(id)), parts) => {
                // Segments are checked one by one when they are read, so they must be these.
                if let Some(known) = self.large.get(&id)
                    && !is_cut_alike(parts, known)
                {
                    return None;
                }
                let body = self.bodies.get_mut(id)?;
                body.references = body.references.checked_add(1)?;
                Some(Held::Apart(id))
            }
            (None, Parts::One(at)) if put.head.is_before(*at) => Some(Held::Behind {
                name: put.body,
                bytes: Place::new(*at)?.bytes,
                next: NONE,
            }),
            (None, Parts::One(at)) => self.add_body(put.body, Segments::One(Place::new(*at)?), &[]),
            (None, Parts::Many(segments)) => self.add_body(put.body, Segments::Many, segments),
        }
    }

    /// Counts one more reference to the body that an entry has behind its head.
    fn hold_again(&mut self, id: u32) -> Option<Held> {
        let body = self.set_apart(id)?;
        let held = self.bodies.get_mut(body)?;
        held.references = held.references.checked_add(1)?;
        Some(Held::Apart(body))
    }

    fn add_body(&mut self, name: BodyName, segments: Segments, many: &[Segment]) -> Option<Held> {
        let id = self.new_body(name, segments)?;
        let (names, mut links) = self.by_name();
        names.add(Owner::Body(id).item(), &mut links);
        if !many.is_empty() {
            self.add_large(id, many);
        }
        let locations: Vec<Location> = self.locations(id).collect();
        for location in locations {
            self.add_live(location);
        }
        Some(Held::Apart(id))
    }

    fn new_body(&mut self, name: BodyName, segments: Segments) -> Option<u32> {
        let body = Body {
            name,
            references: NonZeroU32::MIN,
            next: NONE,
            segments,
        };
        let id = self.bodies.insert(body).ok()?;
        (id & BODY == 0).then_some(id)
    }

    /// Gives the body behind an entry's head a place in `bodies`, and says which.
    fn set_apart(&mut self, id: u32) -> Option<u32> {
        let entry = self.entries.get(id)?;
        let Held::Behind { name, .. } = entry.held else {
            return None;
        };
        let place = Place::new(entry.behind()?)?;
        let body = self.new_body(name, Segments::One(place))?;
        let (names, mut links) = self.by_name();
        names.replace(id, Owner::Body(body).item(), &mut links);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.held = Held::Apart(body);
        }
        Some(body)
    }

    /// Points a body at these parts, however it was cut before: all that use it follow.
    fn recut(&mut self, owner: Owner, parts: &Parts) {
        let segments = match parts {
            Parts::None => None,
            Parts::One(at) => Place::new(*at).map(Segments::One),
            Parts::Many(_) => Some(Segments::Many),
        };
        let id = match owner {
            Owner::Entry(id) => self.set_apart(id),
            Owner::Body(id) => Some(id),
        };
        let (Some(segments), Some(id)) = (segments, id) else {
            return;
        };
        let before: Vec<Location> = self.locations(id).collect();
        self.forget_all_large(id, &before);
        if let Some(body) = self.bodies.get_mut(id) {
            body.segments = segments;
        }
        if let Parts::Many(many) = parts {
            self.add_large(id, many);
        }
        for location in parts.locations() {
            self.add_live(location);
        }
        for location in before {
            self.sub_live(location);
        }
    }

    fn add_large(&mut self, id: u32, segments: &[Segment]) {
        self.large.insert(id, segments.to_vec());
        for segment in segments {
            let ids = self.large_in.entry(segment.location.pack).or_default();
            ids.insert(id);
        }
    }

    /// One reference fewer to a body in `bodies`.
    fn release(&mut self, id: u32) {
        let Some(body) = self.bodies.get_mut(id) else {
            return;
        };
        if let Some(rest) = NonZeroU32::new(body.references.get() - 1) {
            body.references = rest;
            return;
        }
        let locations: Vec<Location> = self.locations(id).collect();
        let (names, mut links) = self.by_name();
        names.remove(Owner::Body(id).item(), &mut links);
        self.bodies.remove(id);
        self.forget_all_large(id, &locations);
        for location in locations {
            self.sub_live(location);
        }
    }

    fn segment_owner(&self, name: BodyName, location: Location) -> Option<Owner> {
        let is_there = |owner: &Owner| match *owner {
            Owner::Entry(id) => {
                let entry = self.entries.get(id);
                entry.and_then(Entry::behind) == Some(location)
            }
            Owner::Body(id) => self.locations(id).any(|at| at == location),
        };
        self.owner(name).filter(is_there).or_else(|| {
            let ids = self.large_in.get(&location.pack)?;
            ids.iter().map(|id| Owner::Body(*id)).find(is_there)
        })
    }

    /// A body no longer has segments, which lay there.
    fn forget_all_large(&mut self, id: u32, locations: &[Location]) {
        if self.large.remove(&id).is_some() {
            for location in locations {
                self.not_in(id, location.pack);
            }
        }
    }

    /// A body no longer uses a pack, unless another of its segments does.
    fn forget_large(&mut self, id: u32, pack: PackId) {
        if !self.locations(id).any(|location| location.pack == pack) {
            self.not_in(id, pack);
        }
    }

    fn not_in(&mut self, id: u32, pack: PackId) {
        if let Some(ids) = self.large_in.get_mut(&pack) {
            ids.remove(&id);
            if ids.is_empty() {
                self.large_in.remove(&pack);
            }
        }
    }

    fn add_live(&mut self, location: Location) {
        let bytes = u64::from(location.bytes);
        *self.live.entry(location.pack).or_default() += bytes;
        self.live_bytes += bytes;
    }

    fn sub_live(&mut self, location: Location) {
        let bytes = u64::from(location.bytes);
        self.live_bytes -= bytes;
        if let Some(live) = self.live.get_mut(&location.pack) {
            *live -= bytes;
            if *live == 0 {
                self.live.remove(&location.pack);
            }
        }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    fn sequence(&self) -> Sequence {
        Sequence(u64::from_le_bytes(self.sequence))
    }

    fn variant(&self) -> VariantKey {
        VariantKey(u64::from_le_bytes(self.variant))
    }

    fn signature(&self) -> Signature {
        Signature(u64::from_le_bytes(self.signature))
    }

    fn found(&self) -> Found {
        Found {
            sequence: self.sequence(),
            key: self.key,
            variant: self.variant(),
        }
    }

    /// The place of the body behind the head.
    fn behind(&self) -> Option<Location> {
        let Held::Behind { bytes, .. } = self.held else {
            return None;
        };
        let head = self.head.location();
        Some(Location {
            pack: head.pack,
            offset: head.offset + head.bytes,
            bytes: of_three(bytes),
        })
    }
}

impl Place {
    /// `None`: it is in no pack.
    fn new(location: Location) -> Option<Self> {
        Some(Self {
            pack: location.pack.0.to_le_bytes(),
            offset: in_three(location.offset)?,
            bytes: in_three(location.bytes)?,
        })
    }

    fn pack(self) -> PackId {
        PackId(u32::from_le_bytes(self.pack))
    }

    fn location(self) -> Location {
        Location {
            pack: self.pack(),
            offset: of_three(self.offset),
            bytes: of_three(self.bytes),
        }
    }
}

fn in_three(number: u32) -> Option<[u8; 3]> {
    let [a, b, c, rest] = number.to_le_bytes();
    (rest == 0).then_some([a, b, c])
}

fn of_three([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}

fn is_cut_alike(parts: &Parts, known: &[Segment]) -> bool {
    let Parts::Many(segments) = parts else {
        return false;
    };
    let digests = segments.iter().map(|segment| segment.digest);
    digests.eq(known.iter().map(|segment| segment.digest))
}

/// Whoever chooses URLs and bodies chooses keys and names too: the hasher has a seed.
fn hash(hasher: &DefaultHashBuilder, name: &[u8]) -> u64 {
    hasher.hash_one(word(name.first_chunk()))
}

fn word(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Of both halves: the last is the same for all keys of a family.
fn fingerprint(key: PrimaryKey) -> u64 {
    word(key.0.first_chunk()) ^ word(key.0.last_chunk())
}

/// Says that an item of the chains of names is a body.
const BODY: u32 = 1 << 31;
/// Most variants of one key, unless another limit is set.
pub const VARIANTS_MAX: usize = 32;
/// Most marks on single keys that are remembered; when there are more, puts that were under way
/// when the newest of them was set are not taken.
pub const KEY_MARKS_MAX: usize = 1 << 16;
/// Most different `Vary` lists in one store.
pub const VARIES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header;
    use proptest::prelude::*;

    fn key(n: u8) -> PrimaryKey {
        PrimaryKey([n; 16])
    }

    fn at(pack: u32, offset: u32, bytes: u32) -> Location {
        Location {
            pack: PackId(pack),
            offset,
            bytes,
        }
    }

    pub(super) fn put(sequence: u64, n: u8, body: &[u8]) -> Put {
        let offset = u32::try_from(sequence).unwrap() * 1000;
        Put {
            sequence: Sequence(sequence),
            key: key(n),
            variant: VariantKey::ONLY,
            signature: Signature::default(),
            vary: Vec::new(),
            head: at(1, offset, 100),
            body: Digest::of(body).name(),
            parts: Parts::One(at(1, offset + 100, u32::try_from(body.len()).unwrap())),
            useless_at: 6000,
        }
    }

    /// The one segment of a put's body.
    fn segment(put: &Put, body: &[u8]) -> Segment {
        put.parts.clone().segments(Digest::of(body))[0]
    }

    fn found(lookup: Lookup) -> Option<u64> {
        match lookup {
            Lookup::Found(found) => Some(found.sequence.0),
            Lookup::UriMiss | Lookup::VaryMiss => None,
        }
    }

    #[test]
    fn what_was_put_in_is_found() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        assert_eq!(found(index.lookup([key(1)], &HeaderMap::new())), Some(1));
        assert_eq!(index.lookup([key(2)], &HeaderMap::new()), Lookup::UriMiss);
        assert_eq!(index.place(key(1), Sequence(1)), Some(put(1, 1, b"one")));
    }

    #[test]
    fn what_is_only_looked_at_is_pushed_out_like_what_nobody_asked_for() {
        for looked_at in [true, false] {
            let mut index = Index::new();
            index.limit_variants(2);
            take_variant(&mut index, 1, 1);
            take_variant(&mut index, 2, 2);
            let lookup = match looked_at {
                true => index.peek([key(1)], &accept(1), false),
                false => index.lookup([key(1)], &accept(1)),
            };
            assert_eq!(found(lookup), Some(1));
            let gone = if looked_at { 1 } else { 2 };
            assert_eq!(take_variant(&mut index, 3, 3), [Sequence(gone)]);
        }
    }

    #[test]
    fn what_a_purge_hides_is_told_as_hidden() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        let held = |index: &Index| {
            let held = index.held_under(key(1)).into_iter();
            held.map(|(found, hidden)| (found.sequence.0, hidden))
                .collect::<Vec<_>>()
        };
        assert_eq!(held(&index), [(1, false)]);
        index.mark_all(Sequence(2));
        assert_eq!(held(&index), [(1, true)]);
        assert_eq!(
            index.peek([key(1)], &HeaderMap::new(), true),
            Lookup::UriMiss
        );
        assert!(index.held_under(key(2)).is_empty());
    }

    #[test]
    fn a_newer_response_replaces_the_older_one() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"old")).unwrap();
        assert_eq!(index.insert(&put(2, 1, b"new")), Ok(vec![Sequence(1)]));
        assert_eq!(found(index.lookup([key(1)], &HeaderMap::new())), Some(2));
        assert_eq!(index.insert(&put(1, 1, b"old")), Err(Refused::Superseded));
        assert_eq!((index.len(), index.bodies()), (1, 1));
    }

    #[test]
    fn equal_bodies_are_kept_once_and_outlive_the_first_entry() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"same")).unwrap();
        index.insert(&put(2, 2, b"same")).unwrap();
        assert_eq!(index.bodies(), 1);
        index.remove(key(1), Sequence(1));
        let kept = index.place(key(2), Sequence(2)).unwrap();
        assert_eq!(kept.parts, put(1, 1, b"same").parts);
        index.remove(key(2), Sequence(2));
        assert_eq!((index.bodies(), index.live_bytes()), (0, 0));
    }

    #[test]
    fn variants_are_chosen_by_the_selecting_fields() {
        let mut index = Index::new();
        for (sequence, language) in [(1, "de"), (2, "fr")] {
            let mut request = HeaderMap::new();
            request.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(language));
            let vary = vec![header::ACCEPT_LANGUAGE];
            let variant = VariantKey::new(&vary, &request);
            let put = Put {
                vary,
                variant,
                ..put(sequence, 1, language.as_bytes())
            };
            index.insert(&put).unwrap();
            assert_eq!(found(index.lookup([key(1)], &request)), Some(sequence));
        }
        let mut request = HeaderMap::new();
        request.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static("de"));
        assert_eq!(found(index.lookup([key(1)], &request)), Some(1));
        assert_eq!(index.lookup([key(1)], &HeaderMap::new()), Lookup::VaryMiss);
        assert_eq!(index.known_vary(key(1)), [header::ACCEPT_LANGUAGE]);
    }

    #[test]
    fn one_variant_too_many_pushes_out_the_oldest() {
        let mut index = Index::new();
        for n in 1..=VARIANTS_MAX as u64 + 1 {
            let put = Put {
                vary: vec![header::ACCEPT],
                variant: VariantKey(n),
                ..put(n, 1, &n.to_le_bytes())
            };
            let gone = index.insert(&put).unwrap();
            let pushed_out = n > VARIANTS_MAX as u64;
            assert_eq!(
                gone,
                if pushed_out {
                    vec![Sequence(1)]
                } else {
                    vec![]
                }
            );
        }
        assert_eq!(index.len(), VARIANTS_MAX);
    }

    /// Takes in a variant by Accept: number, sequence.
    fn take_variant(index: &mut Index, n: u64, sequence: u64) -> Vec<Sequence> {
        let put = Put {
            vary: vec![header::ACCEPT],
            variant: VariantKey::new(&[header::ACCEPT], &accept(n)),
            ..put(sequence, 1, &sequence.to_le_bytes())
        };
        index.insert(&put).unwrap()
    }

    fn accept(n: u64) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("a/{n}")).unwrap();
        HeaderMap::from_iter([(header::ACCEPT, value)])
    }

    #[test]
    fn a_flood_of_variants_leaves_those_alone_that_are_in_use() {
        let mut index = Index::new();
        index.limit_variants(4);
        for n in 1..=3 {
            take_variant(&mut index, n, n);
            assert_eq!(found(index.lookup([key(1)], &accept(n))), Some(n));
        }
        take_variant(&mut index, 100, 100);
        for n in 101..200 {
            let variant = VariantKey::new(&[header::ACCEPT], &accept(n));
            assert!(index.is_crowded(key(1), variant, &[header::ACCEPT]));
            assert_eq!(take_variant(&mut index, n, n), [Sequence(n - 1)]);
        }
        for n in 1..=3 {
            assert_eq!(found(index.lookup([key(1)], &accept(n))), Some(n));
        }
    }

    #[test]
    fn when_all_variants_are_in_use_the_oldest_goes() {
        let mut index = Index::new();
        index.limit_variants(2);
        for n in 1..=2 {
            assert!(!index.is_crowded(key(1), VariantKey(n), &[header::ACCEPT]));
            take_variant(&mut index, n, n);
            assert_eq!(found(index.lookup([key(1)], &accept(n))), Some(n));
        }
        assert_eq!(take_variant(&mut index, 3, 3), [Sequence(1)]);
        assert_eq!(take_variant(&mut index, 4, 4), [Sequence(2)]);
        assert_eq!(index.len(), 2);
    }

    /// A key of a family, told by its last bytes.
    fn kin(own: u8, family: u8) -> PrimaryKey {
        let mut key = [own; 16];
        key[8..].fill(family);
        PrimaryKey(key)
    }

    #[test]
    fn the_newest_of_two_keys_is_found() {
        let mut index = Index::new();
        for (sequence, own) in [(1, 1), (2, 2)] {
            let put = put(sequence, 1, b"x");
            let key = kin(own, 9);
            index.insert(&Put { key, ..put }).unwrap();
        }
        for keys in [[kin(1, 9), kin(2, 9)], [kin(2, 9), kin(1, 9)]] {
            assert_eq!(found(index.lookup(keys, &HeaderMap::new())), Some(2));
        }
    }

    #[test]
    fn an_entry_with_vary_goes_before_a_newer_one_without() {
        let mut index = Index::new();
        take_variant(&mut index, 1, 1);
        index.insert(&put(2, 1, b"default")).unwrap();
        let lookup = |accepts| index.lookup([key(1)], &accept(accepts));
        assert_eq!(found(lookup(1)), Some(1));
        assert_eq!(found(lookup(2)), Some(2));
        let newest = index.lookup_newest([key(1)], &accept(1));
        assert_eq!(found(newest), Some(2));
    }

    #[test]
    fn a_mark_on_a_family_hides_what_is_older_and_keeps_out_what_was_under_way() {
        let mut index = Index::new();
        let of = |sequence, own| Put {
            key: kin(own, 9),
            variant: VariantKey::new(&[ALIKE], &HeaderMap::new()),
            vary: vec![ALIKE],
            ..put(sequence, 1, b"x")
        };
        index.insert(&of(1, 1)).unwrap();
        index.insert(&put(2, 1, b"other")).unwrap();
        assert_eq!(index.mark_key(kin(1, 9).family(), Sequence(4)), []);
        assert_eq!(
            index.lookup([kin(1, 9)], &HeaderMap::new()),
            Lookup::UriMiss
        );
        assert!(!index.contains(kin(1, 9), Sequence(1)));
        assert_eq!(index.page(0, u32::MAX).0, [put(2, 1, b"other")]);
        assert_eq!(index.insert(&of(3, 2)), Err(Refused::Covered));
        assert_eq!(index.insert(&of(5, 2)), Ok(vec![]));
        assert_eq!(index.sweep(0, u32::MAX, 0).0, [Sequence(1)]);
        assert_eq!((index.len(), index.kin), (2, 1));
    }

    #[test]
    fn what_a_forgotten_mark_hid_stays_away() {
        let mut index = Index::new();
        let hidden = Put {
            key: kin(1, 9),
            variant: VariantKey::new(&[ALIKE], &HeaderMap::new()),
            vary: vec![ALIKE],
            ..put(1, 1, b"x")
        };
        index.insert(&hidden).unwrap();
        index.mark_key(kin(1, 9).family(), Sequence(2));
        for n in 0..KEY_MARKS_MAX as u64 {
            let mut key = [1; 16];
            key[..8].copy_from_slice(&n.to_le_bytes());
            index.mark_key(PrimaryKey(key), Sequence(3));
        }
        assert_eq!(
            index.lookup([kin(1, 9)], &HeaderMap::new()),
            Lookup::UriMiss
        );
        assert_eq!((index.len(), index.kin), (0, 0));
    }

    #[test]
    fn too_many_vary_lists_are_refused_until_one_is_no_longer_used() {
        let mut index = Index::new();
        let vary = |n: u64| {
            let mut key = [1; 16];
            key[..8].copy_from_slice(&n.to_le_bytes());
            let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            Put {
                key: PrimaryKey(key),
                vary: vec![name],
                ..put(n, 1, b"x")
            }
        };
        let most = VARIES_MAX as u64 - 1;
        for n in 1..=most {
            index.insert(&vary(n)).unwrap();
        }
        assert_eq!(index.insert(&vary(most + 1)), Err(Refused::Full));
        assert_eq!(index.varies.len(), VARIES_MAX);
        index.remove(vary(7).key, Sequence(7));
        index.insert(&vary(most + 1)).unwrap();
        assert_eq!(index.known_vary(vary(most + 1).key), vary(most + 1).vary);
        assert_eq!(index.known_vary(vary(8).key), vary(8).vary);
        assert_eq!(index.insert(&vary(most + 2)), Err(Refused::Full));
        index.insert(&put(most + 3, 1, b"x")).unwrap();
    }

    #[test]
    fn a_mark_hides_what_is_older_and_the_sweep_takes_it_away() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        index.mark_all(Sequence(2));
        index.insert(&put(3, 3, b"three")).unwrap();
        assert_eq!(index.lookup([key(1)], &HeaderMap::new()), Lookup::UriMiss);
        assert_eq!(found(index.lookup([key(3)], &HeaderMap::new())), Some(3));
        assert_eq!(index.insert(&put(1, 1, b"one")), Err(Refused::Covered));
        assert_eq!(index.sweep(0, u32::MAX, 0), (vec![Sequence(1)], None));
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn what_a_mark_hides_can_be_removed() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        index.mark_all(Sequence(2));
        assert!(index.remove(key(1), Sequence(1)));
        assert_eq!((index.len(), index.live_bytes()), (0, 0));
    }

    #[test]
    fn a_put_under_way_when_its_key_was_marked_is_not_taken() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        assert_eq!(index.mark_key(key(1), Sequence(3)), [Sequence(1)]);
        assert_eq!(index.insert(&put(2, 1, b"two")), Err(Refused::Covered));
        assert_eq!(index.insert(&put(4, 1, b"four")), Ok(vec![]));
    }

    fn mark(sequence: u64, soft: bool) -> Mark {
        Mark {
            sequence: Sequence(sequence),
            at: SystemTime::UNIX_EPOCH,
            soft,
        }
    }

    #[test]
    fn what_one_hard_mark_hides_or_removes_is_counted() {
        let mut index = Index::new();
        for n in 1..=3 {
            index.insert(&put(n.into(), n, &[n])).unwrap();
        }
        let url = index.mark(mark(4, false), &Selector::Url(key(1)));
        assert_eq!(url, (vec![Sequence(1)], Some(1)));
        assert_eq!(index.mark(mark(5, false), &Selector::All), (vec![], None));
        assert_eq!(index.insert(&put(6, 2, b"new")), Ok(vec![Sequence(2)]));
        assert_eq!(index.sweep(0, u32::MAX, 0).0, [Sequence(3)]);
        let covered = index.marks().covered(Sequence(5)).unwrap();
        assert_eq!((covered.entries, covered.complete), (2, false));
        let round = index.marks().round().unwrap();
        assert_eq!(index.suspects(&round, 0, u32::MAX, 9), (vec![], None));
        index.marks_mut().swept(&round, false);
        assert!(index.marks().covered(Sequence(5)).unwrap().complete);
    }

    #[test]
    fn a_soft_mark_on_a_target_leaves_it_there_and_says_how_many_variants_it_covers() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        let soft = mark(3, true);
        assert_eq!(index.mark(soft, &Selector::Url(key(1))), (vec![], Some(1)));
        assert!(index.contains(key(1), Sequence(1)));
        let names = Names::default();
        let verdict = |sequence| index.verdict(Sequence(sequence), key(1), &names);
        assert_eq!(verdict(1), Verdict::Stale(soft.at));
        assert_eq!(verdict(3), Verdict::Clear);
        let covered = index.marks().covered(Sequence(3)).unwrap();
        assert_eq!((covered.entries, covered.complete), (1, true));
        index.insert(&put(2, 1, b"two")).unwrap();
    }

    #[test]
    fn a_soft_mark_on_a_target_is_a_hard_one_after_a_week() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        drop(index.mark(mark(3, true), &Selector::Url(key(1))));
        let day = std::time::Duration::from_secs(86_400);
        let at = |days| SystemTime::UNIX_EPOCH + day * days;
        assert_eq!(index.tidy_marks(at(6)), []);
        assert_eq!(index.tidy_marks(at(8)), [Sequence(1)]);
        assert_eq!(index.insert(&put(2, 1, b"two")), Err(Refused::Covered));
    }

    #[test]
    fn only_entries_with_the_bits_of_a_purge_are_suspects() {
        let mut index = Index::new();
        let site = |name: &str| crate::rules::tag::TagKey::of_site(name);
        for (n, name) in [(1, "a"), (2, "b")] {
            let signature = Signature::of(site(name));
            let put = put(n.into(), n, &[n]);
            index.insert(&Put { signature, ..put }).unwrap();
        }
        drop(index.mark(mark(5, false), &Selector::Site(site("b"))));
        let round = index.marks().round().unwrap();
        let (suspects, next) = index.suspects(&round, 0, u32::MAX, 1);
        let (rest, end) = index.suspects(&round, next.unwrap(), u32::MAX, 1);
        assert_eq!((rest, end), (vec![], None));
        let suspects: Vec<u64> = suspects.iter().map(|put| put.sequence.0).collect();
        assert_eq!(suspects, [2]);
    }

    #[test]
    fn forgotten_key_marks_still_keep_older_puts_out() {
        let mut index = Index::new();
        for n in 0..=KEY_MARKS_MAX as u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&n.to_le_bytes());
            index.mark_key(PrimaryKey(key), Sequence(n + 10));
        }
        assert!(index.key_marks.len() <= KEY_MARKS_MAX);
        assert_eq!(index.insert(&put(5, 0, b"old")), Err(Refused::Covered));
        let newer = KEY_MARKS_MAX as u64 + 100;
        assert_eq!(
            index.insert(&Put {
                sequence: Sequence(newer),
                ..put(1, 0, b"new")
            }),
            Ok(vec![])
        );
    }

    #[test]
    fn a_body_that_was_cut_otherwise_before_is_where_its_newest_record_says() {
        let mut index = Index::new();
        let one = put(1, 1, b"body");
        let part = |pack, offset, bytes: &[u8]| Segment {
            digest: Digest::of(bytes),
            location: at(pack, offset, u32::try_from(bytes.len()).unwrap()),
        };
        let two = Put {
            parts: Parts::Many(vec![part(2, 0, b"bo"), part(3, 0, b"dy")]),
            ..put(2, 2, b"body")
        };
        for (first, then) in [(&one, &two), (&two, &one)] {
            index.restore(first);
            index.restore(then);
            for kept in [first, then] {
                let place = index.place(kept.key, kept.sequence).unwrap();
                assert_eq!(place.parts, then.parts);
            }
            let live: u64 = (1..4).map(|pack| index.live(PackId(pack))).sum();
            assert_eq!((live, index.live_bytes()), (204, 204));
            assert!(index.remove(one.key, one.sequence) && index.remove(two.key, two.sequence));
            assert_eq!((index.live_bytes(), index.bodies()), (0, 0));
            assert!(index.large.is_empty());
        }
    }

    #[test]
    fn a_restored_entry_is_where_its_newest_record_says() {
        let mut index = Index::new();
        let first = put(1, 1, b"one");
        index.restore(&first);
        index.restore(&put(2, 2, b"one"));
        let mut moved = first.clone();
        moved.head = at(7, 0, 100);
        moved.parts = Parts::One(at(7, 100, 3));
        index.restore(&moved);
        assert_eq!(index.place(key(1), Sequence(1)), Some(moved.clone()));
        let other = index.place(key(2), Sequence(2)).unwrap();
        assert_eq!(other.parts, moved.parts);
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn the_sweep_takes_what_can_serve_nothing_any_more() {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"one")).unwrap();
        assert_eq!(index.sweep(0, u32::MAX, 6000).0, []);
        assert_eq!(index.sweep(0, u32::MAX, 6060).0, [Sequence(1)]);
    }

    #[test]
    fn moved_parts_are_found_at_their_new_place() {
        let mut index = Index::new();
        let before = put(1, 1, b"one");
        index.insert(&before).unwrap();
        let segment = segment(&before, b"one");
        assert!(index.segment_at(segment.digest, segment.location));
        assert!(index.move_head(key(1), before.head, at(2, 0, 100)));
        assert!(index.move_segment(segment.digest, segment.location, at(2, 100, 3)));
        let after = index.place(key(1), Sequence(1)).unwrap();
        assert_eq!(after.head, at(2, 0, 100));
        assert_eq!(after.parts, Parts::One(at(2, 100, 3)));
        assert_eq!((index.live(PackId(1)), index.live(PackId(2))), (0, 103));
    }

    #[test]
    fn a_body_that_other_keys_use_has_no_sole_users() {
        let mut index = Index::new();
        let first = put(1, 1, b"one");
        let segment = segment(&first, b"one");
        index.insert(&first).unwrap();
        let users = |index: &Index| index.sole_users(key(1), segment.digest, segment.location);
        assert_eq!(users(&index), Some(vec![Sequence(1)]));
        index.insert(&put(2, 2, b"one")).unwrap();
        assert_eq!(users(&index), None);
    }

    #[test]
    fn segments_of_a_large_body_can_move_one_by_one() {
        let mut index = Index::new();
        let segments: Vec<Segment> = (0u32..3)
            .map(|n| Segment {
                digest: Digest::of(&n.to_le_bytes()),
                location: at(n / 2 + 1, n * 1000, 1000),
            })
            .collect();
        let large = Put {
            parts: Parts::Many(segments.clone()),
            ..put(1, 1, b"large")
        };
        index.insert(&large).unwrap();
        let moved = segments[2];
        assert!(index.move_segment(moved.digest, moved.location, at(9, 0, 1000)));
        let after = index.place(key(1), Sequence(1)).unwrap();
        let last = after.parts.locations().last();
        assert_eq!(last, Some(at(9, 0, 1000)));
        assert_eq!(index.live(PackId(2)), 0);
        assert!(index.segment_at(segments[0].digest, segments[0].location));
        let (residents, _) = index.residents(&HashSet::from([PackId(9)]), 0, u32::MAX);
        assert_eq!(residents.len(), 1);
        assert!(index.remove(key(1), Sequence(1)));
        assert!(index.large.is_empty() && index.large_in.is_empty() && index.live.is_empty());
    }

    #[test]
    fn bodies_of_one_name_share_nothing_unless_their_segments_are_the_same() {
        let mut index = Index::new();
        let of = |n: u32| Segment {
            digest: Digest::of(&n.to_le_bytes()),
            location: at(1, n * 1000, 1000),
        };
        let large = |sequence, n, segments: &[u32]| Put {
            parts: Parts::Many(segments.iter().copied().map(of).collect()),
            ..put(sequence, n, b"large")
        };
        assert_eq!(index.insert(&large(1, 1, &[1, 2])), Ok(vec![]));
        assert_eq!(index.insert(&large(2, 2, &[1, 2])), Ok(vec![]));
        assert_eq!(index.insert(&large(3, 3, &[1, 3])), Err(Refused::Full));
        assert_eq!(index.insert(&put(4, 4, b"large")), Err(Refused::Full));
        assert_eq!(index.bodies(), 1);
    }

    #[test]
    fn a_restored_body_is_cut_as_its_newest_record_says() {
        let mut index = Index::new();
        let first = put(1, 1, b"one");
        index.restore(&first);
        index.restore(&put(2, 2, b"one"));
        let halves = [b"o".as_slice(), b"ne"].map(|half| Segment {
            digest: Digest::of(half),
            location: at(
                7,
                u32::from(half[0]) * 100,
                u32::try_from(half.len()).unwrap(),
            ),
        });
        let cut = Put {
            parts: Parts::Many(halves.to_vec()),
            ..first.clone()
        };
        index.restore(&cut);
        for (n, sequence) in [(1, 1), (2, 2)] {
            let place = index.place(key(n), Sequence(sequence)).unwrap();
            assert_eq!(place.parts, cut.parts);
        }
        assert_eq!((index.bodies(), index.live(PackId(7))), (1, 3));
        assert_eq!(index.live(PackId(1)), 200);
        index.restore(&first);
        assert!(index.large.is_empty() && index.large_in.is_empty());
        assert_eq!((index.live(PackId(1)), index.live(PackId(7))), (203, 0));
    }

    #[test]
    fn a_place_outside_any_pack_is_refused() {
        let mut index = Index::new();
        let put = Put {
            head: at(1, 1 << 24, 100),
            ..put(1, 1, b"x")
        };
        assert_eq!(index.insert(&put), Err(Refused::Full));
        assert_eq!((index.len(), index.bodies()), (0, 0));
    }

    #[test]
    fn a_body_behind_its_head_stays_where_it_is_when_the_head_moves() {
        let mut index = Index::new();
        let before = put(1, 1, b"one");
        index.insert(&before).unwrap();
        assert_eq!(index.bodies.len(), 0);
        assert!(index.move_head(key(1), before.head, at(2, 0, 100)));
        let after = index.place(key(1), Sequence(1)).unwrap();
        assert_eq!(after.parts, before.parts);
        assert_eq!((index.bodies(), index.bodies.len()), (1, 1));
        assert!(index.remove(key(1), Sequence(1)));
        assert_eq!((index.bodies(), index.live_bytes()), (0, 0));
    }

    #[test]
    fn an_entry_takes_few_bytes() {
        assert_eq!(size_of::<Option<Entry>>(), 84);
        assert_eq!(size_of::<Option<Body>>(), 36);
    }

    /// A put whose body lies behind its head, elsewhere, or in two segments.
    fn cut(sequence: u64, target: u8, body: u8, how: u8) -> Put {
        let put = put(sequence, target, &[body; 7]);
        let pack = u32::try_from(sequence).unwrap() % 5 + 10;
        let half = |n: u32| Segment {
            digest: Digest::of(&[body, u8::try_from(n).unwrap()]),
            location: at(pack + n, 50_000 * n + put.head.offset, 3 + n),
        };
        let parts = match how % 5 {
            0 | 1 => put.parts,
            2 => Parts::One(at(pack, put.head.offset, 7)),
            3 => Parts::Many(vec![half(0), half(1)]),
            _ => Parts::None,
        };
        let body = match parts {
            Parts::None => Digest::of(b"").name(),
            Parts::One(_) | Parts::Many(_) => put.body,
        };
        Put { parts, body, ..put }
    }

    /// Moves every part of one of the entries to new places, as a compaction does.
    fn move_one(index: &mut Index, chosen: usize, pack: u32) {
        let (puts, _) = index.page(0, u32::MAX);
        let Some(put) = puts.get(chosen % puts.len().max(1)) else {
            return;
        };
        let place =
            |n: usize, from: Location| at(pack, u32::try_from(n).unwrap() * 1000, from.bytes);
        assert!(index.move_head(put.key, put.head, place(1, put.head)));
        let bodies = (0..4).map(|body| Digest::of(&[body; 7]));
        let body = bodies.into_iter().find(|body| body.name() == put.body);
        let segments = put.parts.clone().segments(body.unwrap_or(Digest([0; 32])));
        for (n, segment) in segments.iter().enumerate() {
            let to = place(n + 2, segment.location);
            assert!(index.move_segment(segment.digest, segment.location, to));
        }
    }

    proptest! {
        #[test]
        fn an_index_adds_up_whatever_happens(
            steps in prop::collection::vec((0u8..11, 0u8..6, 0u8..4, any::<u8>()), 0..120)
        ) {
            let mut index = Index::new();
            index.limit_variants(3);
            for (n, (step, target, body, how)) in steps.into_iter().enumerate() {
                let sequence = n as u64 + 1;
                let put = Put {
                    variant: VariantKey(u64::from(how / 16) % 5),
                    vary: if how >= 128 { vec![header::ACCEPT] } else { Vec::new() },
                    ..cut(sequence, target, body, how)
                };
                match step {
                    0..=2 => drop(index.insert(&put)),
                    3 => drop(index.mark_key(key(target), Sequence(sequence))),
                    4 => drop(index.evict(0, 1)),
                    5 => move_one(&mut index, how.into(), u32::try_from(sequence).unwrap() + 100),
                    // From the journal: anew, or an older one at a new place.
                    6 | 7 => {
                        let older = Sequence(sequence.saturating_sub(u64::from(how % 8)));
                        index.restore(&Put { sequence: older, ..put });
                    }
                    8 if how < 16 => index.mark_all(Sequence(sequence)),
                    8 => drop(index.sweep(0, u32::MAX, u64::from(how) * 60)),
                    9 => drop(index.remove(key(target), Sequence(sequence - u64::from(how % 8).min(sequence)))),
                    _ => drop(index.lookup([key(target)], &HeaderMap::new())),
                }
                if n % 12 == 0 {
                    prop_assert_eq!(index.check(), Vec::<String>::new());
                }
            }
            prop_assert_eq!(index.check(), Vec::<String>::new());
            drop(index.sweep(0, u32::MAX, u64::MAX));
            prop_assert_eq!(index.check(), Vec::<String>::new());
            prop_assert_eq!((index.len(), index.bodies(), index.live_bytes()), (0, 0, 0));
            prop_assert!(index.large.is_empty() && index.large_in.is_empty());
        }
    }
}
