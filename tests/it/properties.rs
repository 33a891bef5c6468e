//! What holds for any sequence of requests: generated ones, through the real binary.
//!
//! The far end is one object that a careful origin serves: it answers conditions, it may know
//! ranges, and it may be replaced by a new version at any time. Each answer says in `X-Version`
//! which version it is of, so every byte can be checked against the version that it claims. The
//! same sequences come every time.

use std::io;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::Just;
use proptest::prelude::Strategy;
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use crate::client::Answer;
use crate::origin::Reply;
use crate::origin::Seen;
use crate::origin::noise;
use crate::scene::Scene;

const MIB: usize = 1024 * 1024;

/// Sequences a test plays; each is a fresh target.
const CASES: u32 = 40;

#[test]
fn served_bytes_are_the_origins_whatever_is_asked_in_whatever_order() {
    let scene = Scene::usual();
    holds("sequences", CASES, &plays(objects()), |number, play| {
        play_it(&scene, number, play);
    });
}

#[test]
fn served_bytes_are_the_origins_when_they_come_in_slices_and_from_disk() {
    let scene = Scene::new()
        .cache("memory_bytes_max", "\"0B\"")
        .site("range_fetch", "\"slices\"")
        .start();
    holds(
        "sequences from disk",
        CASES,
        &plays(objects()),
        |number, play| {
            play_it(&scene, number, play);
        },
    );
}

#[test]
fn a_version_is_never_mixed_with_another() {
    let scene = Scene::new().site("range_fetch", "\"slices\"").start();
    let step = prop_oneof![
        2 => ranges().prop_map(|ranges| Step::Ask(Wish { ranges, ..Wish::plain() })),
        1 => Just(Step::Change),
    ];
    // Each request finds the version before, and what the origin says of it.
    let changing = (validated_objects(), vec(step, 2..12));
    holds("changing objects", CASES, &changing, |number, play| {
        play_it(&scene, number, play);
    });
}

#[test]
fn any_set_of_ranges_costs_the_origin_no_more_than_the_object() {
    for policy in ["by-size", "slices", "whole"] {
        let scene = Scene::new()
            .site("range_fetch", &format!("{policy:?}"))
            .start();
        let sets = (kept_objects(), vec(ranges(), 1..6), vec(ranges(), 0..5));
        holds(
            &format!("sets of ranges, {policy}"),
            CASES / 2,
            &sets,
            |number, set| {
                costs_at_most_the_object(&scene, number, set);
            },
        );
    }
}

/// Asks for some ranges one after the other and for some at once, then for the whole.
fn costs_at_most_the_object(
    scene: &Scene,
    number: usize,
    (kind, one_by_one, together): &(Kind, Vec<Vec<Span>>, Vec<Vec<Span>>),
) {
    let case = Case::new(scene, number, kind.clone());
    let wish = |ranges: &Vec<Span>| Wish {
        ranges: ranges.clone(),
        ..Wish::plain()
    };
    for ranges in one_by_one {
        case.ask(&wish(ranges));
    }
    case.ask_together(&together.iter().map(wish).collect::<Vec<_>>());
    case.ask(&Wish::plain());
    let object = case.object();
    let (sent, whole) = (object.sent, object.bytes());
    assert!(sent <= whole, "{sent} bytes for an object of {whole}");
}

/// Runs `check` on values of `strategy`, the same ones every time, and says how many.
#[track_caller]
fn holds<S: Strategy>(what: &str, cases: u32, strategy: &S, check: impl Fn(usize, &S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let number = Mutex::new(0);
    let verdict = TestRunner::new_with_rng(config, rng).run(strategy, |value| {
        *lock(&number) += 1;
        let number = *lock(&number);
        check(number, &value);
        Ok(())
    });
    // Written past the test harness, which would keep it to itself when the test passes.
    drop(writeln!(io::stdout(), "{cases} {what}"));
    if let Err(error) = verdict {
        panic!("{error}");
    }
}

/// Plays a sequence on a target of its own.
fn play_it(scene: &Scene, number: usize, (kind, steps): &(Kind, Vec<Step>)) {
    let case = Case::new(scene, number, kind.clone());
    let mut newest = 0;
    for step in steps {
        match step {
            Step::Ask(wish) => {
                let version = case.ask(wish);
                assert!(version >= newest, "{version} came after {newest}: {wish:?}");
                newest = version;
            }
            Step::Together(wishes) => case.ask_together(wishes),
            Step::Change => case.object().version += 1,
        }
    }
}

/// What kind of object it is, and how its origin serves it.
#[derive(Clone, Debug)]
struct Kind {
    bytes: usize,
    cache_control: &'static str,
    chunked: bool,
    tag: Tag,
    knows_ranges: bool,
}

/// What validator each version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    None,
    Strong,
    Weak,
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Ask(Wish),
    Together(Vec<Wish>),
    /// From now on the origin has a new version, which may be of another length.
    Change,
}

/// One request.
#[derive(Clone, Debug)]
struct Wish {
    head: bool,
    ranges: Vec<Span>,
    if_none_match: Option<Named>,
    if_range: Option<Named>,
}

/// A version as a condition names it.
#[derive(Clone, Copy, Debug)]
enum Named {
    Any,
    Current,
    Previous,
}

/// One part that is asked for. Offsets are taken modulo somewhat more than the object, so that they
/// fall inside it, at its end and behind it.
#[derive(Clone, Copy, Debug)]
enum Span {
    From(usize),
    FromTo(usize, usize),
    Suffix(usize),
}

impl Wish {
    fn plain() -> Self {
        Self {
            head: false,
            ranges: Vec::new(),
            if_none_match: None,
            if_range: None,
        }
    }
}

impl Span {
    /// As Range spells it, for an object of about `bytes`.
    fn text(self, bytes: usize) -> String {
        let within = |offset: usize| offset % (bytes + bytes / 8 + 2);
        match self {
            Self::From(first) => format!("{}-", within(first)),
            Self::FromTo(one, other) => {
                let (one, other) = (within(one), within(other));
                format!("{}-{}", one.min(other), one.max(other))
            }
            Self::Suffix(count) => format!("-{}", within(count)),
        }
    }
}

fn objects() -> impl Strategy<Value = Kind> {
    let cached = select(vec![
        "max-age=60",
        "max-age=60",
        "max-age=60",
        "no-cache",
        "max-age=0, must-revalidate",
        "no-store",
    ]);
    kinds(
        cached.boxed(),
        select(vec![Tag::Strong, Tag::Strong, Tag::Weak, Tag::None]).boxed(),
    )
}

/// Objects that may be stored and do not go stale while a test runs.
fn kept_objects() -> impl Strategy<Value = Kind> {
    kinds(Just("max-age=60").boxed(), Just(Tag::Strong).boxed())
}

/// Objects that are asked for again each time.
fn validated_objects() -> impl Strategy<Value = Kind> {
    let cached = select(vec!["no-cache", "max-age=0"]);
    let tags = vec![Tag::Strong, Tag::Strong, Tag::Strong, Tag::Weak];
    kinds(cached.boxed(), select(tags).boxed())
}

fn kinds(
    cache_control: proptest::strategy::BoxedStrategy<&'static str>,
    tag: proptest::strategy::BoxedStrategy<Tag>,
) -> impl Strategy<Value = Kind> {
    let edges = vec![0, 1, 2, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7];
    let bytes = prop_oneof![2 => select(edges), 1 => 0..1000_usize, 1 => 0..3 * MIB];
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.7));
    (bytes, cache_control, tag, flags).prop_map(|(bytes, cache_control, tag, flags)| Kind {
        bytes,
        cache_control,
        chunked: flags.0,
        tag,
        knows_ranges: flags.1,
    })
}

fn ranges() -> impl Strategy<Value = Vec<Span>> {
    let offset = || prop_oneof![2 => 0..4 * MIB, 1 => 0..100_usize, 1 => MIB - 2..MIB + 2];
    let span = prop_oneof![
        4 => (offset(), offset()).prop_map(|(one, other)| Span::FromTo(one, other)),
        // Short parts far apart are what several ranges are for.
        4 => (offset(), 0..2000_usize).prop_map(|(first, more)| Span::FromTo(first, first + more)),
        1 => offset().prop_map(Span::From),
        1 => offset().prop_map(Span::Suffix),
    ];
    prop_oneof![3 => vec(span.clone(), 1), 1 => vec(span, 2..5)]
}

fn wishes() -> impl Strategy<Value = Wish> {
    let named = || select(vec![Named::Current, Named::Current, Named::Previous]);
    let or_any = prop_oneof![5 => named(), 1 => Just(Named::Any)];
    (
        proptest::bool::weighted(0.1),
        prop_oneof![3 => ranges(), 2 => Just(Vec::new())],
        weighted(0.2, or_any),
        weighted(0.2, named()),
    )
        .prop_map(|(head, ranges, if_none_match, if_range)| Wish {
            head,
            ranges,
            if_none_match,
            if_range,
        })
}

fn plays(objects: impl Strategy<Value = Kind>) -> impl Strategy<Value = (Kind, Vec<Step>)> {
    let step = prop_oneof![
        8 => wishes().prop_map(Step::Ask),
        1 => vec(wishes(), 2..4).prop_map(Step::Together),
        1 => Just(Step::Change),
    ];
    (objects, vec(step, 1..10))
}

/// The object at the origin.
struct Object {
    kind: Kind,
    seed: usize,
    version: usize,
    /// Bytes of bodies that were sent.
    sent: usize,
}

impl Object {
    /// How long the present version is.
    fn bytes(&self) -> usize {
        self.bytes_of(self.version)
    }

    /// Every third version is as long as the one before.
    fn bytes_of(&self, version: usize) -> usize {
        self.kind.bytes + version.div_ceil(3) * 3 / 2 * 1000
    }

    fn body_of(&self, version: usize) -> Vec<u8> {
        let seed = u64::try_from(self.seed * 1000 + version).expect("a small number");
        noise(seed, self.bytes_of(version))
    }

    fn tag_of(&self, version: usize) -> Option<String> {
        match self.kind.tag {
            Tag::None => None,
            Tag::Strong => Some(format!("\"{version}\"")),
            Tag::Weak => Some(format!("W/\"{version}\"")),
        }
    }

    /// What the origin says.
    fn reply(&mut self, request: &Seen) -> Reply {
        let body = self.body_of(self.version);
        let range = request.header("Range").filter(|_| {
            let tag = self.tag_of(self.version);
            let same =
                |if_range: &str| self.kind.tag == Tag::Strong && tag.as_deref() == Some(if_range);
            self.kind.knows_ranges
                && request.method == "GET"
                && request.header("If-Range").is_none_or(same)
        });
        let reply = match range.map(|range| one_span(range, body.len())) {
            Some(Some(Err(()))) => {
                let length = format!("bytes */{}", body.len());
                Reply::status(416).header("Content-Range", &length)
            }
            Some(Some(Ok(span))) => Reply::part(&body, span.start, span.end - 1),
            Some(None) | None => Reply::ok(body),
        };
        let mut reply = reply
            .cache(self.kind.cache_control)
            .header("X-Version", &self.version.to_string());
        if let Some(tag) = self.tag_of(self.version) {
            reply = reply.tagged(&tag);
        }
        if self.kind.knows_ranges {
            reply = reply.header("Accept-Ranges", "bytes");
        }
        if self.kind.chunked {
            reply = reply.chunked();
        }
        self.sent += reply.body_bytes(request);
        reply
    }
}

/// The one span of a Range for `bytes`, `Err` when it is behind the end. `None` for anything that
/// this origin does not do, such as several.
fn one_span(range: &str, bytes: usize) -> Option<Result<Range<usize>, ()>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if last.contains(',') {
        return None;
    }
    Some(resolve(first, last, bytes).ok_or(()))
}

fn resolve(first: &str, last: &str, bytes: usize) -> Option<Range<usize>> {
    let span = match (first, last) {
        ("", count) => bytes.saturating_sub(count.parse().ok()?)..bytes,
        (first, "") => first.parse().ok()?..bytes,
        (first, last) => first.parse().ok()?..bytes.min(last.parse::<usize>().ok()? + 1),
    };
    (span.start < span.end).then_some(span)
}

/// One object, asked for through the proxy.
struct Case<'s> {
    scene: &'s Scene,
    target: String,
    object: Arc<Mutex<Object>>,
}

impl<'s> Case<'s> {
    fn new(scene: &'s Scene, number: usize, kind: Kind) -> Self {
        let object = Arc::new(Mutex::new(Object {
            kind,
            seed: number,
            version: 1,
            sent: 0,
        }));
        let target = format!("/{number}");
        let serving = Arc::clone(&object);
        scene
            .origin
            .does(&target, move |seen| lock(&serving).reply(seen));
        Self {
            scene,
            target,
            object,
        }
    }

    fn object(&self) -> MutexGuard<'_, Object> {
        lock(&self.object)
    }

    /// Asks, checks the answer, and tells which version it was of.
    fn ask(&self, wish: &Wish) -> usize {
        let fields = self.fields(wish);
        let method = if wish.head { "HEAD" } else { "GET" };
        let borrowed: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = self.scene.ask(method, &self.target, &borrowed, b"");
        self.check(wish, &fields, &answer)
    }

    fn ask_together(&self, wishes: &[Wish]) {
        thread::scope(|scope| {
            let asking: Vec<_> = wishes
                .iter()
                .map(|wish| scope.spawn(|| self.ask(wish)))
                .collect();
            for asked in asking {
                asked.join().expect("an answer as it should be");
            }
        });
    }

    fn fields(&self, wish: &Wish) -> Vec<(&'static str, String)> {
        let object = self.object();
        let tag = |named: Named| match named {
            Named::Any => "*".to_owned(),
            Named::Current => object
                .tag_of(object.version)
                .unwrap_or_else(|| "\"none\"".to_owned()),
            Named::Previous => object
                .tag_of(object.version - 1)
                .unwrap_or_else(|| "\"none\"".to_owned()),
        };
        let mut fields = Vec::new();
        if !wish.ranges.is_empty() {
            let spans: Vec<_> = wish
                .ranges
                .iter()
                .map(|span| span.text(object.bytes()))
                .collect();
            fields.push(("Range", format!("bytes={}", spans.join(", "))));
        }
        if let Some(named) = wish.if_none_match {
            fields.push(("If-None-Match", tag(named)));
        }
        if let Some(named) = wish.if_range {
            fields.push(("If-Range", tag(named)));
        }
        fields
    }

    /// The answer is one that a server with one of the object's versions may give.
    #[track_caller]
    fn check(&self, wish: &Wish, fields: &[(&str, String)], answer: &Answer) -> usize {
        answer.whole();
        let field = |name: &str| {
            fields
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.as_str())
        };
        let object = self.object();
        if answer.status == 304 {
            let known = field("If-None-Match").expect("a condition behind a 304");
            let tag = answer.header("ETag");
            assert!(
                known == "*" || tag == Some(known),
                "{fields:?} and {answer}"
            );
            return tag.map_or(object.version, |tag| {
                number(tag.trim_matches(['W', '/', '"']))
            });
        }
        // A 416 that we make ourselves need not carry it.
        let version = answer.header("X-Version").map_or(object.version, number);
        let (tag, bytes) = (object.tag_of(version), object.bytes_of(version));
        // What only passes through may come whole: its condition was not for us to decide.
        let kept = ["hit", "stored"]
            .iter()
            .any(|word| answer.cache_status(word).is_some());
        let matches = |known: &str| known == "*" || Some(known) == tag.as_deref();
        assert!(
            !kept || !field("If-None-Match").is_some_and(matches),
            "a matching condition has to be a 304: {fields:?} and {answer}"
        );
        let in_range = field("If-Range")
            .is_none_or(|known| object.kind.tag == Tag::Strong && Some(known) == tag.as_deref());
        let wanted: Vec<_> = field("Range")
            .filter(|_| in_range && !wish.head)
            .map(|range| spans(range, bytes))
            .unwrap_or_default();
        let body = object.body_of(version);
        let strong = object.kind.tag == Tag::Strong;
        drop(object);
        match answer.status {
            200 if wish.head => {
                answer.sees("");
                let length = answer.header("Content-Length");
                assert!(
                    length.is_none_or(|length| number(length) == bytes),
                    "{answer}"
                );
            }
            200 => {
                answer.sees(&body);
            }
            206 => check_parts(kept && strong, &wanted, &body, fields, answer),
            416 => {
                let asked = in_range && field("Range").is_some() && wanted.is_empty();
                assert!(asked, "{fields:?} and {answer}");
                let length = format!("bytes */{bytes}");
                assert!(
                    answer.all("Content-Range").contains(&length.as_str()),
                    "{answer}"
                );
            }
            _ => panic!("{fields:?} and {answer}"),
        }
        version
    }
}

/// Each part is of `body`, and together they are what was `wanted`, or some of it if not the
/// `whole`.
#[track_caller]
fn check_parts(
    whole: bool,
    wanted: &[Range<usize>],
    body: &[u8],
    fields: &[(&str, String)],
    answer: &Answer,
) {
    let parts = parts(answer);
    for (place, bytes) in &parts {
        let right = body.get(place.clone()) == Some(bytes.as_slice());
        assert!(right, "wrong bytes at {place:?} for {fields:?} in {answer}");
    }
    let Some(hull) = hull(wanted) else {
        panic!("a part that nobody asked for: {fields:?} and {answer}");
    };
    // Spans may be joined, but never cut.
    let came = |span: &Range<usize>| {
        let mut places = parts.iter().map(|(place, _)| place);
        places.any(|place| place.start <= span.start && span.end <= place.end)
    };
    // "A server might want to send only a subset of the data requested" (RFC 9110 §15.3.7): what
    // is not kept, or nothing strong holds together, comes one part at a time.
    let enough = match whole {
        true => wanted.iter().all(came),
        false => wanted.iter().any(came),
    };
    assert!(
        enough,
        "not all of {wanted:?} came: {fields:?} and {answer}"
    );
    for (place, _) in &parts {
        let inside = hull.start <= place.start && place.end <= hull.end;
        assert!(
            inside,
            "{place:?} was not asked for: {fields:?} and {answer}"
        );
    }
}

fn hull(spans: &[Range<usize>]) -> Option<Range<usize>> {
    let start = spans.iter().map(|span| span.start).min()?;
    Some(start..spans.iter().map(|span| span.end).max()?)
}

/// What a Range selects of `bytes`, as far as there is anything.
fn spans(range: &str, bytes: usize) -> Vec<Range<usize>> {
    let specs = range.trim_start_matches("bytes=").split(", ");
    let read = |spec: &str| {
        let (first, last) = spec.split_once('-')?;
        resolve(first, last, bytes)
    };
    specs.filter_map(read).collect()
}

/// The parts of a 206, where they belong and what they are.
#[track_caller]
fn parts(answer: &Answer) -> Vec<(Range<usize>, Vec<u8>)> {
    let content_type = answer.header("Content-Type").unwrap_or_default();
    let Some(boundary) = content_type.strip_prefix("multipart/byteranges; boundary=") else {
        let place = answer.header("Content-Range").expect("the part's place");
        return vec![(placed(place), answer.body.clone())];
    };
    answer.lacks("Content-Range");
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut found = Vec::new();
    let mut rest = answer.body.as_slice();
    loop {
        let at = find(rest, delimiter.as_bytes()).expect("another delimiter");
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            return found;
        }
        let end = find(rest, b"\r\n\r\n").expect("the end of a part's head");
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let place = head
            .lines()
            .find_map(|line| line.strip_prefix("content-range:"));
        let place = placed(place.expect("a part's place").trim());
        rest = &rest[end + 4..];
        found.push((place.clone(), rest[..place.len()].to_vec()));
        rest = &rest[place.len()..];
        assert!(rest.starts_with(b"\r\n--"), "a part ends where it says");
    }
}

/// `bytes FIRST-LAST/…` as a range.
#[track_caller]
fn placed(content_range: &str) -> Range<usize> {
    let span = content_range.trim_start_matches("bytes ").split('/').next();
    let (first, last) = span
        .and_then(|span| span.split_once('-'))
        .expect("FIRST-LAST");
    number(first)..number(last) + 1
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[track_caller]
fn number(text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Locks even after a panic elsewhere: the failing check should be the one that speaks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
