//! Responses that hold a part of their representation: what a 206 brings, what is kept of it, and
//! what to ask the origin for (RFC 9110 §14, §15.3.7, RFC 9111 §3.3, §3.4).
//!
//! ```text
//! client's Range, what is known ─► Fetch ─► origin ─ 206 ─► Part ─ all of it ─► stored as a 200
//!                                                             └──── some ─────► stored as incomplete
//! incomplete, strong validator: the rest comes in slices, one origin request and one entry each
//! incomplete without one:       it answers for what it holds and is combined with nothing
//! ```
//!
//! Slices start at multiples of [`SLICE_BYTES`], so that requests for different ranges ask the
//! origin for the same ones and none of its bytes is fetched twice. Which part of a representation
//! a client gets is selected in [`range`](super::range).

use super::address::Sequence;
use super::key::PrimaryKey;
use super::key::VariantKey;
use super::range::Span;
use super::range::Spec;
use super::range::parse;
use super::range::sole;
use super::range::strong_validator;
use super::storable::NotStorable;
use super::storable::Storable;
use super::stored::StoredResponse;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http::header::IF_RANGE;
use http::header::RANGE;
use http::response::Parts;

/// The part of a representation that a response holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which bytes.
    pub span: Span,
    /// The length of the complete representation in bytes.
    pub complete: u64,
    /// Names the slices it can be completed with; none without a strong validator, which is what
    /// lets parts be combined (RFC 9110 §15.3.7.3).
    pub series: Option<Sequence>,
}

/// What to ask the origin for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fetch {
    /// Everything.
    #[default]
    Whole,
    /// These bytes, or those of them that exist.
    Slice(Span),
    /// As many bytes at the end, as the client put it.
    Suffix(u64),
    /// Everything from this byte on.
    Rest(u64),
}

/// Which ranges are asked for when a client wants one of something that is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangePolicy {
    /// Slices; the rest of a short representation is fetched behind the client's back.
    #[default]
    BySize,
    /// Slices only.
    Slices,
    /// The whole, whatever its size.
    Whole,
}

impl Part {
    /// Reads what a 206 with a body of `body_bytes` holds; `None` when that cannot be told: no
    /// single Content-Range in bytes, a complete length that is not known, or a length that the
    /// body contradicts.
    ///
    /// One contradiction is forgiven: a body shorter than a Content-Range that reaches the end.
    /// The framing has proved the body complete, so it is the arithmetic that is off, and what was
    /// sent ends the representation. Such a part begins behind the first byte, or it would pass for
    /// a complete response, and it gets no [`series`](Self::series): it answers alone.
    pub fn read(headers: &HeaderMap, body_bytes: u64, series: Option<Sequence>) -> Option<Self> {
        let (first, last, complete) = content_range(headers)?;
        let span = Span::new(first, last, complete).filter(|span| span.last() == last)?;
        if body_bytes == span.bytes() {
            return Some(Self {
                span,
                complete,
                series,
            });
        }
        let shorter = body_bytes > 0 && body_bytes < span.bytes();
        if first == 0 || last + 1 != complete || !shorter {
            return None;
        }
        let complete = first + body_bytes;
        Some(Self {
            span: Span::from_to(first, complete - 1),
            complete,
            series: None,
        })
    }

    /// It is not a part but all there is.
    pub fn is_whole(&self) -> bool {
        self.span.bytes() == self.complete
    }

    /// Holds this byte.
    pub fn holds(&self, at: u64) -> bool {
        (self.span.first()..=self.span.last()).contains(&at)
    }

    /// Holds all of these bytes.
    pub fn covers(&self, span: Span) -> bool {
        self.holds(span.first()) && self.holds(span.last())
    }

    /// What to fetch so that `at`, which neither this nor `other` holds, can be served: as much of
    /// its slice as neither of the two has.
    pub fn gap(&self, at: u64, other: Option<Span>) -> Span {
        let slice = slice_around(at, self.complete);
        let (mut first, mut last) = (slice.first(), slice.last());
        for run in [Some(self.span), other].into_iter().flatten() {
            if run.last() < at {
                first = first.max(run.last() + 1);
            } else {
                last = last.min(run.first().saturating_sub(1));
            }
        }
        Span::from_to(first, last)
    }
}

impl Fetch {
    /// What to ask for when `known`, the part that is stored, if any, does not do.
    pub fn decide(request_headers: &HeaderMap, known: Option<&Part>, policy: RangePolicy) -> Self {
        if policy == RangePolicy::Whole {
            return Self::Whole;
        }
        let range = sole(request_headers, &RANGE).and_then(parse);
        let nearest = range.and_then(|specs| nearest(&specs));
        // If-Range is for us to evaluate, and the whole may be what it comes to.
        let conditional = request_headers.contains_key(IF_RANGE);
        match (nearest, known) {
            // Nothing can be combined with a part that has no strong validator, but the origin
            // answers with everything if it is another one's by now (RFC 9111 §3.3).
            (None, Some(part)) if part.span.first() == 0 => Self::Rest(part.span.last() + 1),
            (None, _) | (Some(_), Some(_)) => Self::Whole,
            (Some(Spec::From(at) | Spec::FromTo(at, _)), None) => {
                Self::Slice(slice_around(at, u64::MAX))
            }
            (Some(Spec::Suffix(bytes @ 1..=SLICE_BYTES)), None) if !conditional => {
                Self::Suffix(bytes)
            }
            // The end of something is not found before its length is known.
            (Some(Spec::Suffix(_)), None) => Self::Slice(slice_around(0, u64::MAX)),
        }
    }

    /// The Range field that says so (RFC 9110 §14.2).
    pub fn field(self) -> Option<HeaderValue> {
        let range = match self {
            Self::Whole => return None,
            Self::Slice(span) => format!("bytes={}-{}", span.first(), span.last()),
            Self::Suffix(bytes) => format!("bytes=-{bytes}"),
            Self::Rest(first) => format!("bytes={first}-"),
        };
        HeaderValue::try_from(range).ok()
    }

    /// The client's own words: the origin's answer is an answer to it.
    pub fn is_verbatim(self) -> bool {
        matches!(self, Self::Whole | Self::Suffix(_))
    }

    /// Whether an answer holds nothing but what was asked for, or all there is.
    pub fn admits(self, part: &Part) -> bool {
        part.is_whole()
            || match self {
                Self::Whole => false,
                Self::Slice(span) => {
                    span.first() <= part.span.first() && part.span.last() <= span.last()
                }
                Self::Suffix(bytes) => part.span.bytes() <= bytes,
                Self::Rest(first) => first <= part.span.first(),
            }
    }
}

impl Fetch {
    /// Makes the incomplete response that a 206 is kept as, or the complete one when it brings all
    /// there is. `response` is what [`as_incomplete`] was judged to be.
    pub fn place(
        self,
        mut response: StoredResponse,
        received: &HeaderMap,
        body_bytes: u64,
        sequence: Sequence,
    ) -> Storable {
        let series = strong_validator(&response).map(|_| sequence);
        match Part::read(received, body_bytes, series).filter(|part| self.admits(part)) {
            None => Storable::Refuse(NotStorable::Range),
            Some(part) => {
                response.part = (!part.is_whole()).then_some(part);
                let span = part.span;
                let agrees =
                    content_range(received) == Some((span.first(), span.last(), part.complete));
                if let Some(said) = received.get(CONTENT_RANGE).filter(|_| !agrees) {
                    // For the one whose words it answers: the origin's own words.
                    response.headers.insert(CONTENT_RANGE, said.clone());
                }
                Storable::Store(Box::new(response))
            }
        }
    }
}

/// The one of several specs to begin with: what the origin cannot satisfy near it, it can satisfy
/// nowhere, so that a 416 is the answer to all of them (RFC 9110 §14.1.2).
fn nearest(specs: &[Spec]) -> Option<Spec> {
    if let [only] = specs {
        return Some(*only);
    }
    let start = |spec: &Spec| match spec {
        Spec::From(at) | Spec::FromTo(at, _) => *at,
        Spec::Suffix(_) => 0,
    };
    specs.iter().map(start).min().map(Spec::From)
}

/// The head of a 206 as that of the incomplete 200 it is kept as (RFC 9111 §3.3).
pub fn as_incomplete(head: &Parts) -> Parts {
    let mut head = head.clone();
    head.status = StatusCode::OK;
    head.headers.remove(CONTENT_RANGE);
    head
}

/// Names the slice with the byte `at` of a variant's series.
pub fn slice_key(key: PrimaryKey, variant: VariantKey, series: Sequence, at: u64) -> PrimaryKey {
    let mut hasher = blake3::Hasher::new_derive_key("larder slice");
    hasher.update(&key.0);
    hasher.update(&variant.0.to_le_bytes());
    hasher.update(&series.0.to_le_bytes());
    hasher.update(&(at / SLICE_BYTES).to_le_bytes());
    let mut name = [0; 16];
    hasher.finalize_xof().fill(&mut name);
    PrimaryKey(name)
}

/// The slice with the byte `at` of a representation of `complete` bytes, which must be more.
pub fn slice_around(at: u64, complete: u64) -> Span {
    let first = at - at % SLICE_BYTES;
    let last = first.saturating_add(SLICE_BYTES - 1);
    Span::from_to(first, last.min(complete.saturating_sub(1)))
}

/// Reads `bytes FIRST-LAST/COMPLETE` (RFC 9110 §14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let value = std::str::from_utf8(sole(headers, &CONTENT_RANGE)?).ok()?;
    let (unit, rest) = value.split_once(' ')?;
    let (range, complete) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    Some((number(first)?, number(last)?, number(complete)?))
}

/// Reads `1*DIGIT` that fits in 63 bits, so that sums of offsets fit in 64.
fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok())?
        .filter(|number| *number <= u64::MAX / 2)
}

/// The length of every slice but the last in bytes: one segment, so that a slice is stored, read
/// and checked in one piece.
pub const SLICE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PrimaryKey = PrimaryKey([7; 16]);

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    /// First, last, complete length, and whether it can be completed.
    fn read(value: &str, body_bytes: u64) -> Option<(u64, u64, u64, bool)> {
        let headers = headers(CONTENT_RANGE, value);
        let part = Part::read(&headers, body_bytes, Some(Sequence(1)))?;
        let (first, last) = (part.span.first(), part.span.last());
        Some((first, last, part.complete, part.series.is_some()))
    }

    fn part(first: u64, last: u64, complete: u64) -> Part {
        Part {
            span: Span::new(first, last, complete).unwrap(),
            complete,
            series: None,
        }
    }

    fn fetch(range: &str, known: Option<Part>) -> Fetch {
        Fetch::decide(&headers(RANGE, range), known.as_ref(), RangePolicy::BySize)
    }

    fn asked(range: &str) -> String {
        let field = fetch(range, None).field();
        field.map_or_else(String::new, |field| field.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_content_range_that_agrees_with_the_body_is_a_part() {
        assert_eq!(read("bytes 4-9/10", 6), Some((4, 9, 10, true)));
        assert_eq!(read("BYTES 0-9/10", 10), Some((0, 9, 10, true)));
    }

    #[test]
    fn a_body_shorter_than_a_range_that_reaches_the_end_is_believed() {
        assert_eq!(read("bytes 4-9/10", 5), Some((4, 8, 9, false)));
    }

    #[test]
    fn every_other_disagreement_is_no_part() {
        assert_eq!(read("bytes 4-9/10", 7), None, "longer");
        assert_eq!(read("bytes 4-8/10", 4), None, "shorter, not at the end");
        assert_eq!(read("bytes 0-9/10", 5), None, "it would pass for the whole");
        assert_eq!(read("bytes 4-9/10", 0), None, "empty");
    }

    #[test]
    fn what_is_no_content_range_in_bytes_is_no_part() {
        for value in [
            "bytes 4-9/*",
            "bytes */10",
            "bytes 4-10/10",
            "bytes 9-4/10",
            "lines 4-9/10",
            "bytes=4-9/10",
            "bytes 4-9",
            "bytes +4-9/10",
            "bytes -9/10",
            "bytes 4-/10",
            "bytes 18446744073709551615-18446744073709551615/18446744073709551616",
            "",
        ] {
            assert_eq!(read(value, 6), None, "{value:?}");
        }
        let mut twice = headers(CONTENT_RANGE, "bytes 4-9/10");
        twice.append(CONTENT_RANGE, "bytes 4-9/10".parse().unwrap());
        assert_eq!(Part::read(&twice, 6, None), None);
    }

    #[test]
    fn a_range_is_asked_for_by_the_slice_it_begins_in() {
        assert_eq!(asked("bytes=5-6"), "bytes=0-1048575");
        assert_eq!(asked("bytes=1048576-"), "bytes=1048576-2097151");
        assert_eq!(asked("bytes=1048575-5000000"), "bytes=0-1048575");
        assert_eq!(asked("bytes=7-8, 3000000-"), "bytes=0-1048575");
    }

    #[test]
    fn a_short_suffix_is_asked_for_as_it_is_and_a_long_one_from_the_start() {
        assert_eq!(asked("bytes=-5"), "bytes=-5");
        assert_eq!(asked("bytes=-1048576"), "bytes=-1048576");
        assert_eq!(asked("bytes=-1048577"), "bytes=0-1048575");
        assert_eq!(asked("bytes=-0"), "bytes=0-1048575");
    }

    #[test]
    fn what_is_no_range_asks_for_everything() {
        assert_eq!(asked("bytes=9-1"), "");
        assert_eq!(asked("lines=0-1"), "");
        let none = HeaderMap::new();
        assert_eq!(
            Fetch::decide(&none, None, RangePolicy::BySize),
            Fetch::Whole
        );
    }

    #[test]
    fn of_several_ranges_the_first_in_the_representation_is_asked_for() {
        assert_eq!(
            asked("bytes=9000000-, 2000000-2000001"),
            "bytes=1048576-2097151"
        );
        assert_eq!(asked("bytes=9000000-, -5"), "bytes=0-1048575");
        assert_eq!(asked("bytes=-5, 2000000-2000001"), "bytes=0-1048575");
    }

    #[test]
    fn a_suffix_under_a_condition_is_not_asked_for_as_it_stands() {
        let mut range = headers(RANGE, "bytes=-5");
        range.insert(IF_RANGE, HeaderValue::from_static("\"1\""));
        let fetch = Fetch::decide(&range, None, RangePolicy::BySize);
        assert!(matches!(fetch, Fetch::Slice(_)));
    }

    #[test]
    fn the_policy_can_be_to_fetch_everything() {
        let range = headers(RANGE, "bytes=5-6");
        let whole = Fetch::decide(&range, None, RangePolicy::Whole);
        assert_eq!(whole, Fetch::Whole);
    }

    #[test]
    fn what_begins_a_representation_is_completed_from_its_end() {
        let none = HeaderMap::new();
        let decide = |known| Fetch::decide(&none, Some(&known), RangePolicy::BySize);
        assert_eq!(decide(part(0, 4, 10)), Fetch::Rest(5));
        assert_eq!(decide(part(1, 4, 10)), Fetch::Whole);
        assert_eq!(fetch("bytes=7-", Some(part(0, 4, 10))), Fetch::Whole);
    }

    #[test]
    fn an_answer_is_held_against_what_was_asked_for() {
        let slice = fetch("bytes=5-6", None);
        assert!(slice.admits(&part(0, 1_048_575, 5_000_000)));
        assert!(slice.admits(&part(5, 6, 5_000_000)));
        assert!(!slice.admits(&part(0, 1_048_576, 5_000_000)));
        assert!(slice.admits(&part(0, 4_999_999, 5_000_000)), "all of it");
        assert!(Fetch::Suffix(5).admits(&part(0, 4, 10)));
        assert!(!Fetch::Suffix(5).admits(&part(4, 9, 10)));
        assert!(!Fetch::Rest(5).admits(&part(4, 9, 10)));
        assert!(!Fetch::Whole.admits(&part(4, 9, 10)));
    }

    #[test]
    fn a_gap_is_what_of_the_slice_neither_part_has() {
        let span = Span::from_to;
        let own = part(0, 4, 100);
        assert_eq!(own.gap(7, None), span(5, 99));
        assert_eq!(own.gap(7, Some(span(9, 20))), span(5, 8));
        assert_eq!(own.gap(30, Some(span(9, 20))), span(21, 99));
        let far = part(0, 4, 3 * SLICE_BYTES);
        assert_eq!(
            far.gap(SLICE_BYTES + 9, None),
            span(SLICE_BYTES, 2 * SLICE_BYTES - 1)
        );
    }

    #[test]
    fn slices_of_other_variants_series_and_places_have_other_names() {
        let name = |variant, series, at| slice_key(KEY, VariantKey(variant), Sequence(series), at);
        assert_eq!(name(0, 1, 0), name(0, 1, SLICE_BYTES - 1));
        assert_ne!(name(0, 1, 0), name(0, 1, SLICE_BYTES));
        assert_ne!(name(0, 1, 0), name(0, 2, 0));
        assert_ne!(name(0, 1, 0), name(1, 1, 0));
        assert_ne!(name(0, 1, 0), KEY);
    }

    proptest! {
        #[test]
        fn a_part_that_is_read_lies_in_its_representation(value in "[a-z0-9 /*-]{0,40}", body in 0..100_u64) {
            if let Some(part) = Part::read(&headers(CONTENT_RANGE, &value), body, None) {
                prop_assert!(part.span.last() < part.complete);
                prop_assert_eq!(part.span.bytes(), body);
            }
        }

        #[test]
        fn a_gap_has_the_byte_and_nothing_that_is_there(
            first in 0..200_u64, bytes in 1..200_u64, other in 0..400_u64, at in 0..400_u64,
        ) {
            let own = part(first, (first + bytes - 1).min(399), 400);
            let run = Span::new(other, other + 10, 400);
            let taken = |at: u64| own.holds(at) || run.is_some_and(|run| (run.first()..=run.last()).contains(&at));
            prop_assume!(!taken(at));
            let gap = own.gap(at, run);
            prop_assert!((gap.first()..=gap.last()).contains(&at));
            prop_assert!((gap.first()..=gap.last()).all(|at| !taken(at)));
        }
    }
}
