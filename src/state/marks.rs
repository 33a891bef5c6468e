//! Which purge covers a stored response that the index alone does not show to be covered: by tag,
//! site, prefix or pattern, and every soft one.
//!
//! ```text
//! set ─► table, by what is covered ─► verdict: Clear, Stale since then, Gone
//!    └─► queue ─► round: swept through everything ─► kept for a while ─► forgotten
//! ```
//!
//! A response is younger than every mark in the common case: one compare with the
//! [`newest`](Marks::newest). Else its names are looked up, each in constant time; prefixes in an
//! ordered table, of which as many steps are taken as there are marks on beginnings of its URL;
//! patterns one by one, of which there are few.
//!
//! Whoever sweeps looks for what the oldest marks in the queue cover, a [`Round`] at a time. What is
//! gone for good needs no mark, so a hard one is forgotten a while later. Puts that were under way
//! then are older than the [`floor`](Marks::floor), and refused. A soft one is kept for days, and then
//! becomes a hard one. A table that is full all the same forgets its older half, for which one mark on
//! everything stands in.

use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Pattern;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::tag::Names;
use crate::rules::tag::Signature;
use crate::rules::tag::TagKey;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;
use std::time::SystemTime;

/// All marks that count.
#[derive(Debug, Default)]
pub struct Marks {
    names: HashMap<Name, Marked>,
    prefixes: BTreeMap<Box<[u8]>, Marked>,
    patterns: Vec<(Option<TagKey>, Pattern, Marked)>,
    /// Soft purges of everything, and what stands in for marks that were forgotten unswept.
    everything: Marked,
    newest: Sequence,
    floor: Sequence,
    /// Not yet swept for, oldest first.
    queue: VecDeque<Task>,
    /// How many have left the queue.
    taken: u64,
    /// Swept for.
    kept: Vec<(Mark, Selector)>,
    counts: VecDeque<Count>,
}

/// What a response is found by, besides its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// Any tag at all, of one site or of any.
    AnyTag(Option<TagKey>),
    Key(PrimaryKey),
    Site(TagKey),
    Tag(Option<TagKey>, TagKey),
}

/// The marks on one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marked {
    hard: Sequence,
    /// The newest soft one, and one that stands for all before it.
    soft: Option<(Sequence, SystemTime)>,
    soft_before: Option<(Sequence, SystemTime)>,
}

/// What marks make of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// None covers it.
    Clear,
    /// It is stale since then, if not before.
    Stale(SystemTime),
    /// It is not to be used.
    Gone,
}

#[derive(Clone, Debug)]
struct Task {
    mark: Mark,
    selector: Selector,
    signature: Signature,
    counted: bool,
}

/// How many entries the purge of a sequence has covered, as far as they were found.
#[derive(Clone, Copy, Debug)]
struct Count {
    sequence: Sequence,
    entries: u64,
    /// Tasks in the queue.
    open: usize,
    /// Some were given up.
    partial: bool,
}

/// How many entries a purge covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Entries that were found so far. One that was replaced before it was looked at may be missing.
    pub entries: u64,
    /// Everything was looked at.
    pub complete: bool,
    /// Something could not be looked at: it will not be complete.
    pub given_up: bool,
}

/// Some purges whose entries are to be looked for, the oldest ones.
#[derive(Debug)]
pub struct Round {
    tasks: Vec<Task>,
    first: u64,
    newest: Sequence,
}

impl Marks {
    /// The newest mark: it covers nothing that is as new.
    pub fn newest(&self) -> Sequence {
        self.newest
    }

    /// No put with a smaller sequence is taken: a mark that would cover it may have been forgotten.
    pub fn floor(&self) -> Sequence {
        self.floor
    }

    /// Nothing older is to be used: it stands in for marks that were forgotten.
    pub fn stand_in(&self) -> Sequence {
        self.everything.hard
    }

    /// How many URLs, tags, prefixes and patterns have marks.
    pub fn held(&self) -> usize {
        let named = self.names.len().saturating_add(self.prefixes.len());
        named.saturating_add(self.patterns.len())
    }

    /// Is there room for so many more patterns?
    pub fn has_room(&self, patterns: usize) -> bool {
        self.patterns.len().saturating_add(patterns) <= PATTERNS_MAX
    }

    /// Sets a mark that was made now.
    pub fn set(&mut self, mark: Mark, selector: &Selector) {
        let open = self
            .counts
            .back_mut()
            .filter(|c| c.sequence == mark.sequence);
        match open {
            Some(count) => count.open = count.open.saturating_add(1),
            None => {
                if self.counts.len() >= COUNTS_MAX {
                    self.counts.pop_front();
                }
                self.counts.push_back(Count {
                    sequence: mark.sequence,
                    entries: 0,
                    open: 1,
                    partial: false,
                });
            }
        }
        self.enter(mark, selector, true);
    }

    /// Sets a mark that was made before; what it covers is looked for, and not counted.
    pub fn restore(&mut self, mark: Mark, selector: &Selector) {
        self.enter(mark, selector, false);
    }

    fn enter(&mut self, mark: Mark, selector: &Selector, counted: bool) {
        self.note(mark, selector);
        // Entries under one key are found by it; see `tidy`.
        if matches!(selector, Selector::Url(_)) {
            if counted {
                self.close(mark.sequence, false);
            }
            self.kept.push((mark, selector.clone()));
            self.limit_kept();
            return;
        }
        if self.queue.len() >= QUEUE_MAX
            && let Some(task) = self.queue.pop_front()
        {
            // It stays in its table until that is full.
            self.taken = self.taken.saturating_add(1);
            if task.counted {
                self.close(task.mark.sequence, true);
            }
        }
        self.queue.push_back(Task {
            mark,
            selector: selector.clone(),
            signature: selector.signature(),
            counted,
        });
    }

    /// Enters a mark into its table.
    fn note(&mut self, mark: Mark, selector: &Selector) {
        self.newest = self.newest.max(mark.sequence);
        match selector {
            // What a hard one covers the index shows.
            Selector::All if mark.soft => self.everything.add(mark),
            Selector::All => {}
            Selector::Url(key) if mark.soft => self.name(Name::Key(*key), mark),
            Selector::Url(_) => {}
            Selector::Site(site) => self.name(Name::Site(*site), mark),
            Selector::Tag(site, tag) => {
                self.name(Name::Tag(*site, *tag), mark);
                self.name(Name::AnyTag(*site), mark);
            }
            Selector::Prefix(begin) => {
                if self.prefixes.len() >= PREFIXES_MAX {
                    self.forget_prefixes();
                }
                let marked = self.prefixes.entry(begin.as_bytes().into()).or_default();
                marked.add(mark);
            }
            Selector::Regex(site, pattern) => self.pattern(*site, pattern, mark),
        }
    }

    fn name(&mut self, name: Name, mark: Mark) {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(&name) {
            let middle = middle(self.names.values());
            let everything = &mut self.everything;
            self.names.retain(|_, marked| {
                let stays = marked.newest() > middle;
                if !stays {
                    everything.absorb(marked);
                }
                stays
            });
        }
        self.names.entry(name).or_default().add(mark);
    }

    fn forget_prefixes(&mut self) {
        let middle = middle(self.prefixes.values());
        let everything = &mut self.everything;
        self.prefixes.retain(|_, marked| {
            let stays = marked.newest() > middle;
            if !stays {
                everything.absorb(marked);
            }
            stays
        });
    }

    fn pattern(&mut self, site: Option<TagKey>, pattern: &Pattern, mark: Mark) {
        let same =
            |known: &&mut (Option<TagKey>, Pattern, Marked)| known.0 == site && known.1 == *pattern;
        if let Some((_, _, marked)) = self.patterns.iter_mut().find(same) {
            marked.add(mark);
            return;
        }
        if self.patterns.len() >= PATTERNS_MAX {
            // Whoever asks is refused before; this one comes from the journal or another process.
            let (_, _, oldest) = self.patterns.remove(0);
            self.everything.absorb(&oldest);
        }
        let mut marked = Marked::default();
        marked.add(mark);
        self.patterns.push((site, pattern.clone(), marked));
    }

    /// What becomes of a response.
    pub fn verdict(&self, sequence: Sequence, key: PrimaryKey, names: &Names) -> Verdict {
        if sequence >= self.newest {
            return Verdict::Clear;
        }
        let mut verdict = self.everything.verdict(sequence);
        let mut look = |name: Name| {
            let marked = self.names.get(&name);
            verdict = verdict.or(marked.map_or(Verdict::Clear, |m| m.verdict(sequence)));
        };
        if !self.names.is_empty() {
            let of_site = [None, Some(names.site)];
            look(Name::Key(key));
            look(Name::Key(key.family()));
            look(Name::Site(names.site));
            for site in of_site.into_iter().filter(|_| names.bears_every()) {
                look(Name::AnyTag(site));
            }
            for tag in &names.tags {
                of_site
                    .into_iter()
                    .for_each(|site| look(Name::Tag(site, *tag)));
            }
        }
        verdict = verdict.or(self.verdict_on_prefixes(sequence, &names.url));
        for (site, pattern, marked) in &self.patterns {
            let worse = marked.verdict(sequence);
            if worse != Verdict::Clear
                && site.is_none_or(|site| site == names.site)
                && pattern.matches(&names.url)
            {
                verdict = verdict.or(worse);
            }
        }
        verdict
    }

    /// Each step looks at the last of the prefixes that do not come behind the URL's beginning: either
    /// it is one of the URL, or all that are have no more in common with the URL than it has.
    fn verdict_on_prefixes(&self, sequence: Sequence, url: &str) -> Verdict {
        let mut verdict = Verdict::Clear;
        let mut rest = url.as_bytes();
        while let Some((begin, marked)) = self
            .prefixes
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(rest)))
            .next_back()
        {
            let common = begin.iter().zip(rest).take_while(|(a, b)| a == b).count();
            let mut end = common;
            if common == begin.len() {
                verdict = verdict.or(marked.verdict(sequence));
                end = common.saturating_sub(1);
            }
            match rest.get(..end) {
                Some(shorter) if end > 0 => rest = shorter,
                Some(_) | None => break,
            }
        }
        verdict
    }

    /// The marks that cover a response, oldest first. Looks at all there are: for people who ask.
    pub fn covering(
        &self,
        sequence: Sequence,
        key: PrimaryKey,
        names: &Names,
    ) -> Vec<(Mark, Selector)> {
        let mut all = self.all();
        all.retain(|(mark, selector)| sequence < mark.sequence && selector.covers(key, names));
        all
    }

    /// All marks that count, oldest first, for a snapshot.
    pub fn all(&self) -> Vec<(Mark, Selector)> {
        let mut all = Vec::new();
        let mut tell = |marked: &Marked, selector: &Selector| {
            all.extend(marked.marks().map(|mark| (mark, selector.clone())));
        };
        tell(&self.everything, &Selector::All);
        for (name, marked) in &self.names {
            let selector = match *name {
                // It follows from the others; what those were that are forgotten is swept.
                Name::AnyTag(_) => continue,
                Name::Key(key) => Selector::Url(key),
                Name::Site(site) => Selector::Site(site),
                Name::Tag(site, tag) => Selector::Tag(site, tag),
            };
            tell(marked, &selector);
        }
        for (begin, marked) in &self.prefixes {
            // They were made of text.
            if let Ok(text) = std::str::from_utf8(begin) {
                tell(marked, &Selector::Prefix(text.into()));
            }
        }
        for (site, pattern, marked) in &self.patterns {
            tell(marked, &Selector::Regex(*site, pattern.clone()));
        }
        all.sort_by_key(|(mark, _)| mark.sequence);
        all
    }

    /// What a mark on everything does to it is done: nothing older is there.
    pub fn forget_before(&mut self, mark: Sequence) {
        let lasts = |marked: &Marked| marked.newest() > mark;
        self.names.retain(|_, marked| lasts(marked));
        self.prefixes.retain(|_, marked| lasts(marked));
        self.patterns.retain(|(_, _, marked)| lasts(marked));
        let epoch = SystemTime::UNIX_EPOCH;
        for soft in [true, false] {
            let (sequence, at) = (mark, epoch);
            self.everything.forget(Mark { sequence, at, soft });
        }
        self.kept.retain(|(kept, _)| kept.sequence > mark);
        self.settle();
    }

    /// Where there are no marks, nothing is older than one.
    fn settle(&mut self) {
        if self.is_empty() {
            self.newest = Sequence::default();
        }
    }

    /// The oldest purges that nobody has looked for.
    pub fn round(&self) -> Option<Round> {
        let tasks: Vec<Task> = self.queue.iter().take(ROUND_MAX).cloned().collect();
        let newest = tasks.iter().map(|task| task.mark.sequence).max()?;
        Some(Round {
            tasks,
            first: self.taken,
            newest,
        })
    }

    /// Notes that an entry was found that the purges of these sequences cover.
    pub fn count(&mut self, sequences: &[Sequence], entries: u64) {
        for count in &mut self.counts {
            if sequences.contains(&count.sequence) {
                count.entries = count.entries.saturating_add(entries);
            }
        }
    }

    /// Counts an entry that a lookup found to be gone, for the purges that nobody has looked for yet.
    pub fn count_gone(&mut self, sequence: Sequence, key: PrimaryKey, names: &Names) {
        let covers = |task: &&Task| {
            let Task { mark, selector, .. } = task;
            task.counted && sequence < mark.sequence && selector.covers(key, names)
        };
        let covering = self.queue.iter().rev().take(ROUND_MAX).filter(covers);
        let mut sequences: Vec<Sequence> = covering.map(|task| task.mark.sequence).collect();
        sequences.dedup();
        self.count(&sequences, 1);
    }

    /// Notes that everything was looked at. What could not be read is looked for in another round.
    pub fn swept(&mut self, round: &Round, missed: bool) {
        let end = round.first.saturating_add(round.tasks.len() as u64);
        while self.taken < end {
            let Some(task) = self.queue.pop_front() else {
                break;
            };
            self.taken = self.taken.saturating_add(1);
            if task.counted {
                self.close(task.mark.sequence, missed);
            }
            if missed {
                let counted = false;
                self.queue.push_back(Task { counted, ..task });
            } else {
                self.kept.push((task.mark, task.selector));
            }
        }
        self.limit_kept();
    }

    fn close(&mut self, sequence: Sequence, partial: bool) {
        let mut counts = self.counts.iter_mut().rev();
        if let Some(count) = counts.find(|count| count.sequence == sequence) {
            count.open = count.open.saturating_sub(1);
            count.partial |= partial;
        }
    }

    /// How many entries the purge of this sequence covered. `None` when it is not known any more.
    pub fn covered(&self, sequence: Sequence) -> Option<Covered> {
        let mut counts = self.counts.iter().rev();
        let count = counts.find(|count| count.sequence == sequence)?;
        Some(Covered {
            entries: count.entries,
            complete: count.open == 0 && !count.partial,
            given_up: count.open == 0 && count.partial,
        })
    }

    /// Forgets marks that were swept for and are old by now. Soft ones become hard: those on targets
    /// are returned, what they cover is found by its key; all others are entered.
    pub fn tidy(&mut self, now: SystemTime) -> Vec<(Mark, PrimaryKey)> {
        let is_old = |mark: &Mark, selector: &Selector| {
            let lasts = match (mark.soft, selector) {
                (true, _) => SOFT_KEPT,
                (false, Selector::Regex(..)) => PATTERN_KEPT,
                (false, _) => HARD_KEPT,
            };
            // One that seems to come from later was made by another clock: it is as old as can be.
            now.duration_since(mark.at).map_or(true, |age| age >= lasts)
        };
        if !self
            .kept
            .iter()
            .any(|(mark, selector)| is_old(mark, selector))
        {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.kept).into_iter();
        let (old, kept): (Vec<_>, Vec<_>) = all.partition(|(mark, s)| is_old(mark, s));
        self.kept = kept;
        let mut targets = Vec::new();
        for (mark, selector) in old {
            self.forget(mark, &selector);
            let hard = Mark::hard(mark.sequence, now);
            match (mark.soft, selector) {
                (false, _) => {}
                (true, Selector::Url(key)) => targets.push((hard, key)),
                (true, selector) => self.restore(hard, &selector),
            }
        }
        self.settle();
        targets
    }

    fn is_empty(&self) -> bool {
        self.everything == Marked::default()
            && self.names.is_empty()
            && self.prefixes.is_empty()
            && self.patterns.is_empty()
    }

    fn forget(&mut self, mark: Mark, selector: &Selector) {
        self.floor = self.floor.max(mark.sequence);
        match selector {
            Selector::All => self.everything.forget(mark),
            Selector::Url(key) => self.forget_name(Name::Key(*key), mark),
            Selector::Site(site) => self.forget_name(Name::Site(*site), mark),
            Selector::Tag(site, tag) => {
                self.forget_name(Name::Tag(*site, *tag), mark);
                self.forget_name(Name::AnyTag(*site), mark);
            }
            Selector::Prefix(begin) => {
                let begin = begin.as_bytes();
                if let Some(marked) = self.prefixes.get_mut(begin) {
                    marked.forget(mark);
                    if *marked == Marked::default() {
                        self.prefixes.remove(begin);
                    }
                }
            }
            Selector::Regex(site, pattern) => {
                for (of, known, marked) in &mut self.patterns {
                    if of == site && known == pattern {
                        marked.forget(mark);
                    }
                }
                self.patterns
                    .retain(|(_, _, marked)| *marked != Marked::default());
            }
        }
    }

    fn forget_name(&mut self, name: Name, mark: Mark) {
        if let Some(marked) = self.names.get_mut(&name) {
            marked.forget(mark);
            if *marked == Marked::default() {
                self.names.remove(&name);
            }
        }
    }

    /// Those that are let go here stay in their tables until those are full.
    fn limit_kept(&mut self) {
        let over = self.kept.len().saturating_sub(QUEUE_MAX);
        self.kept.drain(..over);
    }
}

impl Marked {
    fn add(&mut self, mark: Mark) {
        if !mark.soft {
            self.hard = self.hard.max(mark.sequence);
            return;
        }
        let new = (mark.sequence, mark.at);
        let Some(newest) = self.soft.replace(new) else {
            return;
        };
        let (newest, older) = match newest.0 < new.0 {
            true => (new, newest),
            false => (newest, new),
        };
        // Stale since the first of them: rather too early than too late.
        let before = self.soft_before.unwrap_or(older);
        self.soft_before = Some((before.0.max(older.0), before.1.min(older.1)));
        self.soft = Some(newest);
    }

    /// Stands in for another, too.
    fn absorb(&mut self, other: &Self) {
        for mark in other.marks() {
            self.add(mark);
        }
    }

    fn verdict(&self, sequence: Sequence) -> Verdict {
        let covering = |soft: Option<(Sequence, SystemTime)>| soft.filter(|it| sequence < it.0);
        if sequence < self.hard {
            return Verdict::Gone;
        }
        match covering(self.soft_before).or(covering(self.soft)) {
            Some((_, since)) => Verdict::Stale(since),
            None => Verdict::Clear,
        }
    }

    fn newest(&self) -> Sequence {
        self.hard
            .max(self.soft.map_or(Sequence::default(), |soft| soft.0))
    }

    /// The marks it stands for.
    fn marks(&self) -> impl Iterator<Item = Mark> {
        let hard = Mark::hard(self.hard, SystemTime::UNIX_EPOCH);
        let hard = (self.hard > Sequence::default()).then_some(hard);
        let softs = [self.soft_before, self.soft].into_iter().flatten();
        hard.into_iter().chain(softs.map(|(sequence, at)| Mark {
            sequence,
            at,
            soft: true,
        }))
    }

    /// Forgets a mark and those before it.
    fn forget(&mut self, mark: Mark) {
        if !mark.soft {
            if self.hard <= mark.sequence {
                self.hard = Sequence::default();
            }
            return;
        }
        let is_newer = |soft: &(Sequence, SystemTime)| soft.0 > mark.sequence;
        self.soft = self.soft.filter(is_newer);
        self.soft_before = self.soft_before.filter(is_newer);
    }
}

impl Verdict {
    /// What both make of it.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, _) | (_, Self::Gone) => Self::Gone,
            (Self::Stale(one), Self::Stale(other)) => Self::Stale(one.min(other)),
            (Self::Stale(since), Self::Clear) | (Self::Clear, Self::Stale(since)) => {
                Self::Stale(since)
            }
            (Self::Clear, Self::Clear) => Self::Clear,
        }
    }
}

impl Round {
    /// May one of the purges cover an entry with this sequence and signature?
    pub fn may_cover(&self, sequence: Sequence, signature: Signature) -> bool {
        let may = |task: &Task| sequence < task.mark.sequence && signature.has(task.signature);
        sequence < self.newest && self.tasks.iter().any(may)
    }

    /// Is there a purge of everything among them? The index shows what that covers.
    pub fn covers_everything(&self) -> bool {
        let mut tasks = self.tasks.iter();
        tasks.any(|task| task.selector == Selector::All && !task.mark.soft)
    }

    /// The purges that cover an entry, as far as they are counted, and whether it is to go.
    pub fn covering(
        &self,
        sequence: Sequence,
        key: PrimaryKey,
        names: &Names,
    ) -> (Vec<Sequence>, bool) {
        let covers =
            |task: &&Task| sequence < task.mark.sequence && task.selector.covers(key, names);
        let covering: Vec<&Task> = self.tasks.iter().filter(covers).collect();
        let goes = covering.iter().any(|task| !task.mark.soft);
        let counted = covering.iter().filter(|task| task.counted);
        let mut sequences: Vec<Sequence> = counted.map(|task| task.mark.sequence).collect();
        sequences.dedup();
        (sequences, goes)
    }
}

/// The middle one of the newest marks.
fn middle<'m>(marked: impl Iterator<Item = &'m Marked>) -> Sequence {
    let mut marks: Vec<Sequence> = marked.map(Marked::newest).collect();
    let middle = marks.len() / 2;
    if middle >= marks.len() {
        return Sequence::default();
    }
    *marks.select_nth_unstable(middle).1
}

/// Most names with marks; when there are more, one mark on everything stands in for the older half.
pub const NAMES_MAX: usize = 1 << 16;
/// Most prefixes with marks; more are dealt with as names are.
pub const PREFIXES_MAX: usize = 1 << 12;
/// Most patterns.
pub const PATTERNS_MAX: usize = 64;
/// Most marks that wait to be swept for; of more, what the oldest cover goes when it is asked for.
const QUEUE_MAX: usize = 1 << 16;
/// Marks that are swept for at once: each entry is compared with each.
const ROUND_MAX: usize = 256;
/// Purges whose entries are counted.
const COUNTS_MAX: usize = 1024;
/// How long a mark is kept for puts that were under way when it was set.
const HARD_KEPT: Duration = Duration::from_secs(3600);
/// The same for a pattern, which every look at something older pays for.
const PATTERN_KEPT: Duration = Duration::from_secs(300);
/// What nobody has asked for so long after a soft purge is gone.
const SOFT_KEPT: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PrimaryKey = PrimaryKey([7; 16]);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn hard(sequence: u64) -> Mark {
        Mark::hard(Sequence(sequence), at(sequence))
    }

    /// Made as many seconds after the epoch as its sequence says.
    fn soft(sequence: u64) -> Mark {
        Mark {
            soft: true,
            ..hard(sequence)
        }
    }

    fn text(text: &str) -> TagKey {
        TagKey::of_text(text.as_bytes()).unwrap()
    }

    fn tag(word: &str) -> Selector {
        Selector::Tag(None, text(word))
    }

    fn prefix(text: &str) -> Selector {
        Selector::prefix(text).unwrap()
    }

    fn pattern(text: &str) -> Selector {
        Selector::Regex(None, Pattern::new(text).unwrap())
    }

    fn names(url: &str, tags: &[&str]) -> Names {
        let mut tags: Vec<TagKey> = tags.iter().map(|word| text(word)).collect();
        tags.sort();
        Names {
            site: TagKey::of_site("site"),
            url: url.into(),
            tags,
        }
    }

    /// What becomes of a response of sequence 5 when there is a mark of sequence 9.
    fn after(mark: Mark, selector: &Selector, names: &Names) -> Verdict {
        let mut marks = Marks::default();
        marks.set(mark, selector);
        let verdict = marks.verdict(Sequence(5), KEY, names);
        assert_eq!(marks.verdict(mark.sequence, KEY, names), Verdict::Clear);
        let covers = selector.covers(KEY, names);
        assert_eq!(covers, verdict != Verdict::Clear, "{selector:?}");
        assert!(!covers || names.signature().has(selector.signature()));
        verdict
    }

    #[test]
    fn a_hard_mark_covers_what_its_selector_says_and_is_older() {
        let site = TagKey::of_site("site");
        let other = TagKey::of_site("other");
        let page = names("a.test/b/c?d", &["x", "y"]);
        for selector in [
            tag("x"),
            Selector::Tag(Some(site), text("y")),
            Selector::Site(site),
            prefix("a.test/b/c?d"),
            prefix("a.te"),
            pattern("^a[.]test/.*d$"),
            Selector::Regex(Some(site), Pattern::new("c").unwrap()),
        ] {
            assert_eq!(after(hard(9), &selector, &page), Verdict::Gone);
            assert_eq!(after(soft(9), &selector, &page), Verdict::Stale(at(9)));
        }
        for selector in [
            tag("z"),
            Selector::Tag(Some(other), text("x")),
            Selector::Site(other),
            prefix("a.test/b/d"),
            prefix("a.test/b/c?d&e"),
            pattern("^b"),
            Selector::Regex(Some(other), Pattern::new("c").unwrap()),
        ] {
            assert_eq!(after(hard(9), &selector, &page), Verdict::Clear);
        }
        let everything = after(soft(9), &Selector::All, &page);
        assert_eq!(everything, Verdict::Stale(at(9)));
        let target = after(soft(9), &Selector::Url(KEY), &page);
        assert_eq!(target, Verdict::Stale(at(9)));
        let family = after(soft(9), &Selector::Url(KEY.family()), &page);
        assert_eq!(family, Verdict::Stale(at(9)));
    }

    #[test]
    fn what_bears_every_tag_is_covered_by_any_of_its_site() {
        let every = Names {
            tags: vec![TagKey::EVERY],
            ..names("a.test/", &[])
        };
        assert_eq!(after(hard(9), &tag("x"), &every), Verdict::Gone);
        let own = Selector::Tag(Some(every.site), text("x"));
        assert_eq!(after(hard(9), &own, &every), Verdict::Gone);
        let others = Selector::Tag(Some(TagKey::of_site("other")), text("x"));
        assert_eq!(after(hard(9), &others, &every), Verdict::Clear);
    }

    #[test]
    fn the_longest_and_the_shortest_prefix_of_many_are_found() {
        let mut marks = Marks::default();
        for (n, begin) in ["a", "a.test/", "a.test/b", "a.test/bb", "a.test/c", "b"]
            .iter()
            .enumerate()
        {
            marks.set(hard(10 + n as u64), &prefix(begin));
        }
        let verdict = |sequence, url| marks.verdict(Sequence(sequence), KEY, &names(url, &[]));
        assert_eq!(verdict(12, "a.test/bb/x"), Verdict::Gone);
        assert_eq!(verdict(13, "a.test/bb/x"), Verdict::Clear);
        assert_eq!(verdict(11, "a.test/ba"), Verdict::Gone);
        assert_eq!(verdict(12, "a.test/ba"), Verdict::Clear);
        assert_eq!(verdict(9, "a.b"), Verdict::Gone);
        assert_eq!(verdict(9, "c.test/"), Verdict::Clear);
    }

    #[test]
    fn a_second_soft_mark_does_not_make_stale_what_was_stale_later() {
        let mut marks = Marks::default();
        let verdict =
            |marks: &Marks, sequence| marks.verdict(Sequence(sequence), KEY, &names("a/", &["x"]));
        marks.set(soft(10), &tag("x"));
        marks.set(soft(20), &tag("x"));
        assert_eq!(verdict(&marks, 5), Verdict::Stale(at(10)));
        assert_eq!(verdict(&marks, 15), Verdict::Stale(at(20)));
        marks.set(soft(30), &tag("x"));
        assert_eq!(verdict(&marks, 5), Verdict::Stale(at(10)));
        assert_eq!(verdict(&marks, 25), Verdict::Stale(at(30)));
        assert_eq!(verdict(&marks, 30), Verdict::Clear);
        marks.set(hard(31), &tag("x"));
        assert_eq!(verdict(&marks, 25), Verdict::Gone);
    }

    #[test]
    fn the_marks_of_a_snapshot_make_the_same_of_everything() {
        let mut marks = Marks::default();
        let all = [
            (soft(10), tag("x")),
            (soft(20), tag("x")),
            (hard(15), prefix("a.test/")),
            (hard(16), pattern("b")),
            (soft(17), Selector::All),
            (soft(18), Selector::Url(KEY)),
        ];
        for (mark, selector) in &all {
            marks.set(*mark, selector);
        }
        let mut again = Marks::default();
        for (mark, selector) in marks.all() {
            again.restore(mark, &selector);
        }
        for url in ["a.test/", "b.test/", "c.test/"] {
            for sequence in 5..22 {
                let names = names(url, &["x"]);
                assert_eq!(
                    marks.verdict(Sequence(sequence), KEY, &names),
                    again.verdict(Sequence(sequence), KEY, &names)
                );
            }
        }
        assert_eq!(marks.newest(), again.newest());
    }

    fn sweep(marks: &mut Marks) {
        while let Some(round) = marks.round() {
            marks.swept(&round, false);
        }
    }

    #[test]
    fn a_mark_that_was_swept_for_is_forgotten_after_a_while_but_not_by_what_was_under_way() {
        let mut marks = Marks::default();
        marks.set(hard(9), &tag("x"));
        marks.set(hard(10), &pattern("a"));
        assert_eq!(marks.tidy(at(9) + HARD_KEPT), [], "not swept for yet");
        sweep(&mut marks);
        marks.tidy(at(10) + PATTERN_KEPT);
        assert_eq!((marks.patterns.len(), marks.floor()), (0, Sequence(10)));
        let names = names("a/", &["x"]);
        assert_eq!(marks.verdict(Sequence(5), KEY, &names), Verdict::Gone);
        marks.tidy(at(10) + HARD_KEPT);
        assert_eq!(marks.verdict(Sequence(5), KEY, &names), Verdict::Clear);
        assert!(marks.is_empty() && marks.newest() == Sequence(0));
    }

    #[test]
    fn a_mark_that_was_set_again_outlives_the_older_one() {
        let mut marks = Marks::default();
        marks.set(hard(9), &tag("x"));
        sweep(&mut marks);
        marks.set(hard(5000), &tag("x"));
        marks.tidy(at(9) + HARD_KEPT);
        let names = names("a/", &["x"]);
        assert_eq!(marks.verdict(Sequence(4999), KEY, &names), Verdict::Gone);
    }

    #[test]
    fn a_soft_mark_becomes_a_hard_one_after_a_week() {
        let mut marks = Marks::default();
        marks.set(soft(9), &tag("x"));
        marks.set(soft(9), &Selector::Url(KEY));
        sweep(&mut marks);
        let names = names("a/", &["x"]);
        assert_eq!(marks.tidy(at(8) + SOFT_KEPT), []);
        let stale = marks.verdict(Sequence(5), KEY, &names);
        assert_eq!(stale, Verdict::Stale(at(9)));
        let hardened = marks.tidy(at(9) + SOFT_KEPT);
        assert_eq!(
            hardened,
            [(Mark::hard(Sequence(9), at(9) + SOFT_KEPT), KEY)]
        );
        assert_eq!(marks.verdict(Sequence(5), KEY, &names), Verdict::Gone);
        assert!(marks.round().is_some(), "it is swept for once more");
    }

    #[test]
    fn entries_are_counted_for_each_purge_that_covers_them_once() {
        let mut marks = Marks::default();
        let page = names("a.test/b", &["x", "y"]);
        marks.set(hard(9), &tag("x"));
        marks.set(hard(9), &tag("y"));
        marks.set(soft(10), &prefix("a.test/"));
        let round = marks.round().unwrap();
        assert!(round.may_cover(Sequence(5), page.signature()));
        assert!(!round.may_cover(Sequence(10), page.signature()));
        let (purges, goes) = round.covering(Sequence(5), KEY, &page);
        assert_eq!(
            (purges.as_slice(), goes),
            ([Sequence(9), Sequence(10)].as_slice(), true)
        );
        marks.count(&purges, 1);
        assert_eq!(
            round.covering(Sequence(9), KEY, &page),
            (vec![Sequence(10)], false)
        );
        marks.count_gone(Sequence(5), KEY, &page);
        let covered = |marks: &Marks, sequence| marks.covered(Sequence(sequence));
        let so_far = Covered {
            entries: 2,
            complete: false,
            given_up: false,
        };
        assert_eq!(covered(&marks, 9), Some(so_far));
        marks.swept(&round, false);
        let all = Covered {
            complete: true,
            ..so_far
        };
        assert_eq!(covered(&marks, 9), Some(all));
        assert_eq!(covered(&marks, 10), Some(all));
        assert_eq!(covered(&marks, 11), None);
    }

    #[test]
    fn what_could_not_be_read_is_looked_for_again_and_the_count_stays_incomplete() {
        let mut marks = Marks::default();
        marks.set(hard(9), &tag("x"));
        let round = marks.round().unwrap();
        marks.swept(&round, true);
        let again = marks.round().unwrap();
        let (purges, goes) = again.covering(Sequence(5), KEY, &names("a/", &["x"]));
        assert_eq!((purges, goes), (vec![], true));
        marks.swept(&again, false);
        assert!(marks.round().is_none());
        assert!(!marks.covered(Sequence(9)).unwrap().complete);
    }

    #[test]
    fn names_that_are_forgotten_for_want_of_room_still_cover_what_they_covered() {
        let mut marks = Marks::default();
        let most = NAMES_MAX as u64;
        let word = |n: u64| format!("{n}");
        for n in 0..=most {
            marks.restore(hard(n + 10), &tag(&word(n)));
            assert!(marks.names.len() <= NAMES_MAX);
        }
        for n in (0..=most).step_by(97) {
            let names = names("a/", &[&word(n)]);
            let verdict = |sequence| marks.verdict(Sequence(sequence), KEY, &names);
            assert_eq!(verdict(n + 9), Verdict::Gone, "mark {n}");
            assert_eq!(verdict(most + 10), Verdict::Clear, "mark {n}");
        }
        assert!(marks.queue.len() <= QUEUE_MAX);
        // The newer half is still told apart.
        let other = names("a/", &["other"]);
        assert_eq!(marks.verdict(Sequence(most), KEY, &other), Verdict::Clear);
        assert_eq!(marks.verdict(Sequence(9), KEY, &other), Verdict::Gone);
    }

    #[test]
    fn prefixes_and_patterns_are_bounded_too() {
        let mut marks = Marks::default();
        for n in 0..=PREFIXES_MAX as u64 {
            marks.restore(soft(n + 10), &prefix(&format!("a/{n}/")));
        }
        assert!(marks.prefixes.len() <= PREFIXES_MAX);
        let first = marks.verdict(Sequence(9), KEY, &names("a/0/x", &[]));
        assert_eq!(first, Verdict::Stale(at(10)));
        assert!(marks.has_room(PATTERNS_MAX) && !marks.has_room(PATTERNS_MAX + 1));
        for n in 0..=PATTERNS_MAX as u64 {
            marks.restore(hard(90_000 + n), &pattern(&format!("/{n}x")));
        }
        assert!(!marks.has_room(1));
        assert_eq!(marks.patterns.len(), PATTERNS_MAX);
        let first = marks.verdict(Sequence(89_999), KEY, &names("a/0x", &[]));
        assert_eq!(first, Verdict::Gone);
        // Once more is no more.
        marks.restore(hard(99_999), &pattern("/5x"));
        assert_eq!(marks.patterns.len(), PATTERNS_MAX);
    }

    #[test]
    fn only_the_last_purges_are_counted() {
        let mut marks = Marks::default();
        for n in 0..=COUNTS_MAX as u64 {
            marks.set(hard(n + 1), &tag("x"));
        }
        assert_eq!(marks.counts.len(), COUNTS_MAX);
        assert_eq!(marks.covered(Sequence(1)), None);
        assert!(marks.covered(Sequence(2)).is_some());
        assert_eq!(marks.round().unwrap().tasks.len(), ROUND_MAX);
    }

    #[test]
    fn after_a_purge_of_everything_there_are_no_marks() {
        let mut marks = Marks::default();
        for selector in [tag("x"), prefix("a"), pattern("b"), Selector::All] {
            marks.set(soft(9), &selector);
        }
        marks.forget_before(Sequence(9));
        assert!(marks.is_empty() && marks.newest() == Sequence(0));
        assert_eq!(marks.all(), []);
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            "[ab]{1,3}".prop_map(|word| tag(&word)),
            "[ab]/?[ab]{0,2}/?[ab]{0,2}".prop_filter_map("a prefix", |it| Selector::prefix(&it)),
            "[ab]/[ab]".prop_map(|it| pattern(&it)),
            Just(Selector::All),
            Just(Selector::Url(KEY)),
            Just(Selector::Site(TagKey::of_site("site"))),
        ]
    }

    proptest! {
        #[test]
        fn the_table_says_what_the_selectors_say(
            set in prop::collection::vec((selector(), any::<bool>()), 0..12),
            url in "[ab]/[ab]{0,2}/?[ab]{0,2}",
            word in "[ab]{1,3}",
            sequence in 0_u64..14,
        ) {
            let mut marks = Marks::default();
            let names = names(&url, &[&word]);
            let sequence = Sequence(sequence);
            let mut goes = false;
            let mut is_covered = false;
            for (n, (selector, is_soft)) in set.iter().enumerate() {
                let hides = matches!(selector, Selector::All | Selector::Url(_)) && !is_soft;
                if hides {
                    continue;
                }
                let mark = Mark { soft: *is_soft, ..hard(n as u64 + 1) };
                marks.set(mark, selector);
                let covers = sequence < mark.sequence && selector.covers(KEY, &names);
                goes |= covers && !is_soft;
                is_covered |= covers;
            }
            let verdict = marks.verdict(sequence, KEY, &names);
            prop_assert_eq!(verdict == Verdict::Gone, goes);
            prop_assert_eq!(verdict != Verdict::Clear, is_covered);
        }
    }
}
