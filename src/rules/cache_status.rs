//! How a response was handled, as `Cache-Status` tells it (RFC 9211).
//!
//! `flow` fills in an [`Outcome`]; this file only writes it down. The parameters come in one fixed
//! order (`hit`, `fwd`, `fwd-status`, `stored`, `collapsed`, `ttl`, `key`, `detail`) and `detail` is one
//! word of a fixed vocabulary, so that a line can be searched for and counted.
//!
//! ```text
//! Cache-Status: larder; hit; ttl=59
//! Cache-Status: larder; fwd=uri-miss; stored
//! Cache-Status: larder; fwd=stale; fwd-status=304; ttl=60
//! ```

use super::request::Refusal;
use super::reuse::NotReusable;
use super::storable::NotStorable;
use bytes::Bytes;
use http::HeaderValue;
use http::StatusCode;
use std::time::Duration;

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured not to handle this request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// There was nothing for the target.
    UriMiss,
    /// There was something, but not for these header fields.
    VaryMiss,
    /// There was nothing, and it is not known which of the two above it was.
    Miss,
    /// The request's own directives required it.
    Request,
    /// There was something, but it was stale.
    Stale,
    /// There was only a part of what was asked for.
    Partial,
}

impl Forward {
    /// Every reason there is, for the tables of counters.
    pub const ALL: &'static [Self] = &[
        Self::Bypass,
        Self::Method,
        Self::UriMiss,
        Self::VaryMiss,
        Self::Miss,
        Self::Request,
        Self::Stale,
        Self::Partial,
    ];

    /// The word on the wire.
    pub fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What happened to a request, in the words of RFC 9211.
///
/// `hit` and `fwd` exclude each other (RFC 9211 §2.1); where both are set, `fwd` is not written.
/// A response of ours without the origin, such as a refusal, has neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Satisfied from the store without forwarding.
    pub hit: bool,
    /// Forwarded, and why.
    pub fwd: Option<Forward>,
    /// The origin's status, where it differs from the one sent.
    pub fwd_status: Option<StatusCode>,
    /// The response was stored.
    pub stored: bool,
    /// The request was collapsed with another.
    pub collapsed: bool,
    /// Remaining freshness in seconds; negative when served stale.
    pub ttl: Option<i64>,
    /// One of a fixed vocabulary.
    pub detail: Option<Detail>,
}

/// The fixed vocabulary of `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// The response's body is longer than the store takes.
    BodyTooLarge,
    /// Too many waited for the same fill, so this request went alone.
    CollapseFull,
    /// The fill that this request waited for failed.
    FillFailed,
    /// A body this long is stored at its second request.
    FirstRequest,
    /// The target is known not to be storable, so nobody waited.
    HitForMiss,
    /// Served stale because the client accepts that (RFC 9111 §5.2.1.2).
    MaxStale,
    /// No backend may be asked.
    NoBackend,
    /// The store has no room for it.
    NoRoom,
    /// What is stored may not be served unasked, for this reason.
    NotReusable(NotReusable),
    /// The response may not be stored, for this reason.
    NotStorable(NotStorable),
    /// `only-if-cached`, and nothing was (RFC 9111 §5.2.1.7).
    OnlyIfCached,
    /// The origin could not be asked.
    OriginError,
    /// The origin broke the protocol.
    OriginProtocol,
    /// The origin did not answer in time.
    OriginTimeout,
    /// A purge covered the response while it was being filled.
    PurgedDuringFill,
    /// The request was refused, for this reason.
    Refused(Refusal),
    /// The request has a body, so the store was not asked.
    RequestBody,
    /// What is stored is stale because it was purged softly.
    SoftPurged,
    /// Served stale because the origin failed (RFC 5861 §4).
    StaleIfError,
    /// Served stale while the origin is asked (RFC 5861 §3).
    StaleWhileRevalidate,
    /// The store failed to take it.
    StoreFailed,
    /// A response of ours.
    Synthetic,
    /// An upgrade was asked for, so the store was not asked.
    Upgrade,
}

impl Detail {
    /// Every word of its own, for the tables of counters; beside these there are those of
    /// [`NotReusable::ALL`], [`NotStorable::ALL`] and [`Refusal::ALL`].
    pub const ALL: &'static [Self] = &[
        Self::BodyTooLarge,
        Self::CollapseFull,
        Self::FillFailed,
        Self::FirstRequest,
        Self::HitForMiss,
        Self::MaxStale,
        Self::NoBackend,
        Self::NoRoom,
        Self::OnlyIfCached,
        Self::OriginError,
        Self::OriginProtocol,
        Self::OriginTimeout,
        Self::PurgedDuringFill,
        Self::RequestBody,
        Self::SoftPurged,
        Self::StaleIfError,
        Self::StaleWhileRevalidate,
        Self::StoreFailed,
        Self::Synthetic,
        Self::Upgrade,
    ];

    /// The token on the wire.
    pub fn token(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body-too-large",
            Self::CollapseFull => "collapse-full",
            Self::FillFailed => "fill-failed",
            Self::FirstRequest => "first-request",
            Self::HitForMiss => "hit-for-miss",
            Self::MaxStale => "max-stale",
            Self::NoBackend => "no-backend",
            Self::NoRoom => "no-room",
            Self::NotReusable(reason) => reason.token(),
            Self::NotStorable(reason) => reason.token(),
            Self::OnlyIfCached => "only-if-cached",
            Self::OriginError => "origin-error",
            Self::OriginProtocol => "origin-protocol",
            Self::OriginTimeout => "origin-timeout",
            Self::PurgedDuringFill => "purged-during-fill",
            Self::Refused(refusal) => refusal.token(),
            Self::RequestBody => "request-body",
            Self::SoftPurged => "soft-purged",
            Self::StaleIfError => "stale-if-error",
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StoreFailed => "store-failed",
            Self::Synthetic => "synthetic",
            Self::Upgrade => "upgrade",
        }
    }
}

impl Outcome {
    /// Writes the field value, `identifier` first. A `key` that is too long, or has what a string
    /// cannot hold, is left out rather than changed.
    pub fn field_value(&self, identifier: &str, key: Option<&str>) -> HeaderValue {
        let mut item = Item::new(identifier);
        if self.hit {
            item.flag("hit");
        } else if let Some(fwd) = self.fwd {
            item.token("fwd", fwd.token());
        }
        if let Some(status) = self.fwd_status {
            item.token("fwd-status", status.as_str());
        }
        if self.stored {
            item.flag("stored");
        }
        if self.collapsed {
            item.flag("collapsed");
        }
        if let Some(ttl) = self.ttl {
            item.integer("ttl", ttl);
        }
        if let Some(key) = key {
            item.string("key", key);
        }
        if let Some(detail) = self.detail {
            item.token("detail", detail.token());
        }
        item.finish()
    }
}

/// Whole seconds of a remaining lifetime, as `ttl` carries it.
pub fn ttl_seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).map_or(INTEGER_MAX, |seconds| seconds.min(INTEGER_MAX))
}

/// A name and its parameters, written as a structured field (RFC 8941 §3.1.2, §3.3).
#[derive(Debug)]
pub struct Item {
    text: Vec<u8>,
}

impl Item {
    /// Begins with a name: a token where it can be one, else a string.
    pub fn new(name: &str) -> Self {
        let mut text = Vec::with_capacity(LINE_BYTES);
        if is_token(name) {
            text.extend_from_slice(name.as_bytes());
        } else {
            text.push(b'"');
            for character in name.chars() {
                match u8::try_from(character) {
                    Ok(quoted @ (b'"' | b'\\')) => text.extend_from_slice(&[b'\\', quoted]),
                    Ok(plain @ b' '..=b'~') => text.push(plain),
                    // A string holds visible ASCII only (RFC 8941 §3.3.3).
                    _ => text.push(b'?'),
                }
            }
            text.push(b'"');
        }
        Self { text }
    }

    /// Adds a parameter that is true.
    pub fn flag(&mut self, key: &str) {
        self.text.extend_from_slice(b"; ");
        self.text.extend_from_slice(key.as_bytes());
    }

    /// Adds a parameter whose value is a token, or an integer written already.
    pub fn token(&mut self, key: &str, value: &str) {
        self.flag(key);
        self.text.push(b'=');
        self.text.extend_from_slice(value.as_bytes());
    }

    /// Adds a parameter whose value is a string, if it can be one as it is.
    pub fn string(&mut self, key: &str, value: &str) {
        let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if value.len() <= STRING_BYTES_MAX && value.bytes().all(fits) {
            self.flag(key);
            self.text.extend_from_slice(b"=\"");
            self.text.extend_from_slice(value.as_bytes());
            self.text.push(b'"');
        }
    }

    /// Adds a parameter whose value is an integer; one outside RFC 8941's bounds is the bound.
    pub fn integer(&mut self, key: &str, value: i64) {
        let value = value.clamp(-INTEGER_MAX, INTEGER_MAX);
        self.flag(key);
        self.text.push(b'=');
        if value < 0 {
            self.text.push(b'-');
        }
        // Fifteen digits at most, last one first.
        let mut digits = [0_u8; 15];
        let mut rest = value.unsigned_abs();
        let mut written = 0;
        for digit in &mut digits {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            written += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.text.extend(digits.iter().take(written).rev());
    }

    /// Returns the field value.
    pub fn finish(self) -> HeaderValue {
        // Only visible ASCII and spaces were written; the empty value is never reached.
        HeaderValue::from_maybe_shared(Bytes::from(self.text))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Whether a text can be written as a token (RFC 8941 §3.3.4).
fn is_token(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = |byte: u8| byte.is_ascii_alphabetic() || byte == b'*';
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    bytes.next().is_some_and(begins) && bytes.all(goes_on)
}

/// The largest integer of a structured field (RFC 8941 §3.3.1).
const INTEGER_MAX: i64 = 999_999_999_999_999;

/// The longest string that a line has room for, in bytes: long lines are cut or refused on the way.
const STRING_BYTES_MAX: usize = 1024;

/// Room for nearly every line, in bytes, so that writing one allocates once.
const LINE_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(outcome: &Outcome) -> HeaderValue {
        outcome.field_value("larder", None)
    }

    #[test]
    fn a_hit_says_what_remains_of_its_lifetime() {
        let outcome = Outcome {
            hit: true,
            ttl: Some(59),
            ..Outcome::default()
        };
        assert_eq!(line(&outcome), "larder; hit; ttl=59");
    }

    #[test]
    fn a_stale_hit_has_a_negative_ttl() {
        let outcome = Outcome {
            hit: true,
            ttl: Some(-10),
            detail: Some(Detail::StaleWhileRevalidate),
            ..Outcome::default()
        };
        let expected = "larder; hit; ttl=-10; detail=stale-while-revalidate";
        assert_eq!(line(&outcome), expected);
    }

    #[test]
    fn a_miss_says_that_it_was_stored() {
        let outcome = Outcome {
            fwd: Some(Forward::UriMiss),
            stored: true,
            ..Outcome::default()
        };
        assert_eq!(line(&outcome), "larder; fwd=uri-miss; stored");
    }

    #[test]
    fn the_parameters_come_in_one_order() {
        let outcome = Outcome {
            hit: false,
            fwd: Some(Forward::Stale),
            fwd_status: Some(StatusCode::NOT_MODIFIED),
            stored: true,
            collapsed: true,
            ttl: Some(0),
            detail: Some(Detail::Synthetic),
        };
        let expected =
            "larder; fwd=stale; fwd-status=304; stored; collapsed; ttl=0; detail=synthetic";
        assert_eq!(line(&outcome), expected);
    }

    #[test]
    fn a_hit_is_never_forwarded() {
        let outcome = Outcome {
            hit: true,
            fwd: Some(Forward::Stale),
            ..Outcome::default()
        };
        assert_eq!(line(&outcome), "larder; hit");
    }

    #[test]
    fn a_key_is_a_string() {
        let outcome = Outcome {
            hit: true,
            ttl: Some(5),
            detail: Some(Detail::Synthetic),
            ..Outcome::default()
        };
        let line = outcome.field_value("larder", Some("http://a.test/b?c"));
        let expected = "larder; hit; ttl=5; key=\"http://a.test/b?c\"; detail=synthetic";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_key_that_no_string_can_hold_is_left_out() {
        let long = "a".repeat(STRING_BYTES_MAX + 1);
        for key in ["http://a.test/\u{e9}", "http://a.test/\"", "a\\b", &long] {
            let line = Outcome::default().field_value("larder", Some(key));
            assert_eq!(line, "larder", "{key}");
        }
        let longest = "a".repeat(STRING_BYTES_MAX);
        let line = Outcome::default().field_value("larder", Some(&longest));
        assert_eq!(line, format!("larder; key=\"{longest}\""));
    }

    #[test]
    fn nothing_to_say_leaves_the_name() {
        assert_eq!(line(&Outcome::default()), "larder");
    }

    #[test]
    fn a_refusal_says_why() {
        let outcome = Outcome {
            detail: Some(Detail::Refused(Refusal::BadHost)),
            ..Outcome::default()
        };
        assert_eq!(line(&outcome), "larder; detail=bad-host");
    }

    #[test]
    fn a_name_that_is_a_token_stays_bare() {
        let value = Outcome::default().field_value("edge-1.example/a:b", None);
        assert_eq!(value, "edge-1.example/a:b");
    }

    #[test]
    fn a_name_that_is_no_token_is_quoted() {
        for (name, written) in [
            ("", "\"\""),
            ("1st", "\"1st\""),
            ("two words", "\"two words\""),
            ("say \"hi\\\"", "\"say \\\"hi\\\\\\\"\""),
            ("caf\u{e9}\n", "\"caf??\""),
        ] {
            assert_eq!(Outcome::default().field_value(name, None), written);
        }
    }

    #[test]
    fn ttl_is_in_whole_seconds_begun_and_ended() {
        assert_eq!(ttl_seconds(Duration::from_millis(59_999)), 59);
    }

    #[test]
    fn a_huge_ttl_is_the_largest_integer_of_a_field() {
        assert_eq!(ttl_seconds(Duration::MAX), 999_999_999_999_999);
    }

    #[test]
    fn every_detail_has_a_word_of_its_own() {
        let mut words: Vec<_> = Detail::ALL.iter().map(|detail| detail.token()).collect();
        words.extend(Refusal::ALL.iter().map(|refusal| refusal.token()));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn every_word_is_in_kebab_case() {
        let words = Detail::ALL.iter().map(|detail| detail.token());
        let words = words.chain(Forward::ALL.iter().map(|forward| forward.token()));
        for word in words.chain(Refusal::ALL.iter().map(|refusal| refusal.token())) {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            assert!(word.bytes().all(fits), "{word}");
        }
    }

    #[test]
    fn the_readme_lists_every_word() {
        let readme = include_str!("../../README.md");
        let words = Detail::ALL.iter().map(|detail| detail.token());
        let words = words.chain(Refusal::ALL.iter().map(|refusal| refusal.token()));
        let words = words.chain(NotReusable::ALL.iter().map(|reason| reason.token()));
        for word in words.chain(NotStorable::ALL.iter().map(|reason| reason.token())) {
            assert!(readme.contains(&format!("`{word}`")), "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_ttl_reads_back_within_the_bounds(ttl: i64) {
            let outcome = Outcome { ttl: Some(ttl), ..Outcome::default() };
            let clamped = ttl.clamp(-INTEGER_MAX, INTEGER_MAX);
            prop_assert_eq!(line(&outcome), format!("larder; ttl={clamped}"));
        }

        #[test]
        fn any_name_makes_a_value(name in "\\PC{0,20}") {
            prop_assert!(!Outcome::default().field_value(&name, None).is_empty());
        }
    }
}
