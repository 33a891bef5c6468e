//! Purges on an index of ten million entries: `cargo bench --bench purge`.
//!
//! Prints how long each kind takes to be marked, at the most and on the mean, what a look at an older
//! entry pays for it, and how long the sweep takes to find the entries that may be covered. An argument
//! is another number of entries.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first fault")]

use http::HeaderMap;
use larder::rules::address::Digest;
use larder::rules::address::Location;
use larder::rules::address::PackId;
use larder::rules::address::Parts;
use larder::rules::address::Put;
use larder::rules::address::Sequence;
use larder::rules::invalidate::Mark;
use larder::rules::invalidate::Pattern;
use larder::rules::invalidate::Selector;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::tag::Names;
use larder::rules::tag::TagKey;
use larder::state::index::Index;
use larder::state::index::Lookup;
use larder::state::marks::Verdict;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

const ENTRIES: u32 = 10_000_000;
const PURGES: u32 = 50;
const LOOKS: u32 = 100_000;
/// Places that the sweep looks at while it holds the index.
const PLACES: u32 = 8192;

fn key(number: u32) -> PrimaryKey {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    PrimaryKey(key)
}

fn tag(number: u32) -> TagKey {
    TagKey::of_text(format!("tag-{}", number % 10_000).as_bytes()).unwrap()
}

/// Three tags, of ten thousand; a folder of a thousand.
fn names(number: u32) -> Names {
    let mut tags = vec![tag(number), tag(number / 7), tag(number / 1000)];
    tags.sort();
    tags.dedup();
    Names {
        site: TagKey::of_site("www.example.com"),
        url: format!("www.example.com/blog/{}/{number}?page=2", number % 1000).into(),
        tags,
    }
}

fn put(number: u32) -> Put {
    let at = |offset| Location {
        pack: PackId(number / 3000),
        offset,
        bytes: 1024,
    };
    Put {
        sequence: Sequence(u64::from(number) + 1),
        key: key(number),
        variant: VariantKey::ONLY,
        signature: names(number).signature(),
        vary: Vec::new(),
        head: at(0),
        body: Digest::of(&number.to_le_bytes()).name(),
        parts: Parts::One(at(1024)),
        useless_at: u64::from(u32::MAX),
    }
}

/// The most and the mean of so many purges of one kind, each of something else.
fn purge(
    index: &mut Index,
    next: &mut u64,
    kind: &str,
    of: impl Fn(u32) -> (Selector, u32),
    soft: bool,
) {
    let (mut most, mut all) = (Duration::ZERO, Duration::ZERO);
    let mut shown = 0;
    for number in 0..PURGES {
        let (selector, covered) = of(number);
        *next += 1;
        let mark = Mark {
            sequence: Sequence(*next),
            at: SystemTime::UNIX_EPOCH,
            soft,
        };
        let began = Instant::now();
        drop(black_box(index.mark(mark, &selector)));
        let took = began.elapsed();
        most = most.max(took);
        all += took;
        // The next lookup sees it.
        shown += u32::from(is_covered(index, covered));
    }
    assert_eq!(shown, PURGES, "{kind}");
    assert!(most < Duration::from_millis(5), "{kind}: {most:?}");
    println!(
        "purge by {kind:<14} most {most:>10.1?}  mean {:>10.1?}",
        all / PURGES
    );
}

fn is_covered(index: &Index, number: u32) -> bool {
    match index.lookup([key(number)], &HeaderMap::new()) {
        Lookup::UriMiss | Lookup::VaryMiss => true,
        Lookup::Found(found) => {
            let verdict = index.verdict(found.sequence, found.key, &names(number));
            verdict != Verdict::Clear
        }
    }
}

/// What a look at an entry older than the newest mark takes, beside the lookup.
fn look(index: &Index, entries: u32, when: &str) {
    let all: Vec<(u32, Names)> = (0..1000)
        .map(|number| number * (entries / 1000))
        .map(|number| (number, names(number)))
        .collect();
    let began = Instant::now();
    for look in 0..LOOKS {
        let (number, names) = &all[look as usize % all.len()];
        let verdict = index.verdict(Sequence(u64::from(*number) + 1), PrimaryKey([1; 16]), names);
        black_box(verdict);
    }
    println!("a verdict {when:<22} {:>10.1?}", began.elapsed() / LOOKS);
}

/// Goes through everything for a round of purges, as the sweep does, but for reading heads.
fn sweep(index: &mut Index, when: &str) {
    let began = Instant::now();
    let mut suspects = 0;
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    while let Some(round) = index.marks().round() {
        rounds += 1;
        let mut from = 0;
        while from < index.places() {
            let step = Instant::now();
            suspects += index.suspects(&round, from, PLACES).len();
            longest = longest.max(step.elapsed());
            from += PLACES;
        }
        index.marks_mut().swept(&round, false);
    }
    println!(
        "swept for {when:<22} {:>10.1?}  in {rounds} rounds, {suspects} heads to look at, longest step {longest:.1?}",
        began.elapsed()
    );
}

fn main() {
    let entries = std::env::args().filter_map(|argument| argument.parse().ok());
    let entries: u32 = entries.last().unwrap_or(ENTRIES);
    let mut index = Index::new();
    index.reserve(entries);
    let began = Instant::now();
    for number in 0..entries {
        index.insert(&put(number)).unwrap();
    }
    println!("{entries} entries, made in {:.1?}", began.elapsed());
    let mut next = u64::from(entries) + 10;
    look(&index, entries, "without any mark");
    let one = Selector::Tag(None, tag(7));
    next += 1;
    drop(index.mark(Mark::hard(Sequence(next), SystemTime::UNIX_EPOCH), &one));
    look(&index, entries, "with a mark on a tag");
    sweep(&mut index, "one tag");
    for soft in [false, true] {
        let kind = |kind: &str| format!("{kind}{}", if soft { ", soft" } else { "" });
        let of_tag = |number| (Selector::Tag(None, tag(number)), number);
        purge(&mut index, &mut next, &kind("tag"), of_tag, soft);
        let of_prefix = |number| {
            let text = format!("www.example.com/blog/{number}/");
            (Selector::prefix(&text).unwrap(), number)
        };
        purge(&mut index, &mut next, &kind("prefix"), of_prefix, soft);
        look(&index, entries, "after tags, prefixes");
        let of_pattern = |number| {
            let pattern = Pattern::new(&format!("/{number}[?]page=2$")).unwrap();
            (Selector::Regex(None, pattern), number)
        };
        purge(&mut index, &mut next, &kind("regex"), of_pattern, soft);
        look(&index, entries, "with 50 patterns too");
        sweep(&mut index, "all of these");
    }
    let of_site = |number| (Selector::Site(TagKey::of_site("www.example.com")), number);
    purge(&mut index, &mut next, "site", of_site, false);
    purge(
        &mut index,
        &mut next,
        "all, soft",
        |number| (Selector::All, number),
        true,
    );
    purge(
        &mut index,
        &mut next,
        "all",
        |number| (Selector::All, number),
        false,
    );
}
