//! What do Cache-Control and its kin say? (RFC 9111 §5.2, RFC 5861, RFC 8246)
//!
//! One byte-level reader turns every line of a field into members, `name[=argument]`, by the
//! grammar of RFC 9110 §5.6 and nothing looser. What can be said in more ways than one (sections
//! are RFC 9111's unless another is named):
//!
//! - `MAX-AGE=60`: names are "compared case-insensitively" (§5.2).
//! - `max-age="60"`: "recipients ought to accept both forms" (§5.2).
//! - `x`, `y="no-store"`: a cache "MUST ignore unrecognized cache directives" (§5.2.3), and a
//!   quoted-string is one value (RFC 9110 §5.6.4).
//! - `,,no-store`, or a second line: empty members are ignored (RFC 9110 §5.6.1.2), and the lines of
//!   a field are one list (RFC 9110 §5.3).
//! - `max-age=9, max-age=5`: "either the first occurrence should be used or the response should be
//!   considered stale" (§4.2.1). The shortest counts, which is at any age one or the other.
//! - `public, no-store`: "the most restrictive directive should be honored" (§4.2.1).
//! - `max-age=x`: invalid freshness information is better taken for stale (§4.2.1), so it is zero.
//! - `no-store=1`, `public=1`: with an argument it does not have, what restricts counts and what
//!   loosens does not.
//! - `max-age =60`, `x="`: the grammar is broken, and what follows in the line may have been
//!   `no-store`: [`malformed`](ResponseDirectives::malformed).
//!
//! Fields that speak to some caches only are read in [`targeted`](super::targeted); whether to
//! store and how long to reuse is decided in [`storable`](super::storable),
//! [`freshness`](super::freshness) and [`reuse`](super::reuse).

use http::HeaderMap;
use http::HeaderName;
use http::header::CACHE_CONTROL;
use http::header::PRAGMA;
use std::borrow::Cow;
use std::time::Duration;

/// Response directives (RFC 9111 §5.2.2, RFC 5861, RFC 8246). Repeats: the most restrictive wins.
///
/// A directive with seconds that cannot be read counts as zero seconds: RFC 9111 §4.2.1 encourages
/// caches to take invalid freshness information for stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `max-age`, at most [`DELTA_SECONDS_MAX`].
    pub max_age: Option<Duration>,
    /// `s-maxage`, at most [`DELTA_SECONDS_MAX`]; stands before `max-age` in a shared cache.
    pub s_maxage: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, and what it covers.
    pub no_cache: Cover,
    /// `private`, and what it covers.
    pub private: Cover,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Some line broke the grammar, so that any directive may have been lost.
    pub malformed: bool,
    /// Read from a targeted field, so that Expires does not count (RFC 9213 §2.2).
    pub targeted: bool,
}

/// How much of a response `no-cache` or `private` covers (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cover {
    /// The directive is absent.
    #[default]
    Nothing,
    /// Only these fields; at least one.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Whole,
}

/// Request directives (RFC 9111 §5.2.1), and `Pragma` where there is no Cache-Control.
///
/// A request whose Cache-Control breaks the grammar counts as `no-store, no-cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `no-cache`.
    pub no_cache: bool,
    /// `max-age`; zero when unreadable.
    pub max_age: Option<Duration>,
    /// `min-fresh`; [`DELTA_SECONDS_MAX`] when unreadable.
    pub min_fresh: Option<Duration>,
    /// `max-stale`; `Duration::MAX` when it names no limit, zero when unreadable.
    pub max_stale: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); zero when unreadable.
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads all Cache-Control lines of a response.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for member in Members::new(line.as_bytes()) {
                match member {
                    Ok(member) => member.add_to(&mut directives),
                    Err(Malformed) => directives.malformed = true,
                }
            }
        }
        directives
    }

    /// Returns whether the response may be stored although its request carried Authorization
    /// (RFC 9111 §3.5).
    pub fn allow_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Returns whether the response must not be served stale: `s-maxage` says what
    /// `proxy-revalidate` says (RFC 9111 §5.2.2.10).
    pub fn forbid_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }

    /// Returns whether the field called `name` may not be kept: `private` or `no-cache` lists it.
    ///
    /// Fields that `no-cache` lists could be kept and validated before use; leaving them out needs
    /// no second kind of stored field and serves the same responses.
    pub fn withhold(&self, name: &HeaderName) -> bool {
        self.private.lists(name) || self.no_cache.lists(name)
    }

    /// Takes in one directive; `name` in lower case.
    pub(super) fn add(&mut self, name: &[u8], argument: &impl Argument) {
        match name {
            b"max-age" => shorten(&mut self.max_age, argument.seconds()),
            b"s-maxage" => shorten(&mut self.s_maxage, argument.seconds()),
            b"stale-while-revalidate" => {
                shorten(&mut self.stale_while_revalidate, argument.seconds());
            }
            b"stale-if-error" => shorten(&mut self.stale_if_error, argument.seconds()),
            b"no-cache" => self.no_cache.widen(argument.cover()),
            b"private" => self.private.widen(argument.cover()),
            b"no-store" => self.no_store = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"no-transform" => self.no_transform = true,
            // These loosen, so they count only in the one form they are defined in.
            b"public" => self.public |= argument.is_absent(),
            b"must-understand" => self.must_understand |= argument.is_absent(),
            b"immutable" => self.immutable |= argument.is_absent(),
            _ => {}
        }
    }
}

impl Cover {
    /// Returns whether the directive covers the whole response.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    fn lists(&self, name: &HeaderName) -> bool {
        matches!(self, Self::Fields(fields) if fields.contains(name))
    }

    fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Fields(fields), Self::Fields(more)) => fields.extend(more),
            (Self::Nothing, other) | (Self::Fields(_), other @ Self::Whole) => *self = other,
            (Self::Fields(_), Self::Nothing) | (Self::Whole, _) => {}
        }
    }
}

impl RequestDirectives {
    /// Reads all Cache-Control lines of a request.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            directives.no_cache = pragma_no_cache(headers);
            return directives;
        }
        for line in headers.get_all(CACHE_CONTROL) {
            for member in Members::new(line.as_bytes()) {
                match member {
                    Ok(member) => directives.add(&member),
                    Err(Malformed) => {
                        directives.no_store = true;
                        directives.no_cache = true;
                    }
                }
            }
        }
        directives
    }

    fn add(&mut self, member: &Member<'_>) {
        match member.lower_name(&mut [0; NAME_BYTES_MAX]) {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => shorten(&mut self.max_age, member.seconds()),
            b"min-fresh" => {
                let wanted = member.seconds().unwrap_or(DELTA_SECONDS_MAX);
                self.min_fresh = Some(self.min_fresh.map_or(wanted, |most| most.max(wanted)));
            }
            b"max-stale" if member.argument.is_none() => {
                shorten(&mut self.max_stale, Some(Duration::MAX));
            }
            b"max-stale" => shorten(&mut self.max_stale, member.seconds()),
            b"stale-if-error" => shorten(&mut self.stale_if_error, member.seconds()),
            _ => {}
        }
    }
}

/// Reads `delta-seconds` (RFC 9111 §1.2.2): digits only, larger values become
/// [`DELTA_SECONDS_MAX`]; `None` when there is anything else, or nothing.
pub fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0_u64, |seconds, digit| {
        seconds
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_secs(seconds).min(DELTA_SECONDS_MAX))
}

/// What a directive was given as its argument, in whatever grammar.
pub(super) trait Argument {
    /// There is none.
    fn is_absent(&self) -> bool;

    /// It is a number of seconds, at most [`DELTA_SECONDS_MAX`].
    fn seconds(&self) -> Option<Duration>;

    /// It lists fields. No list, one that names no field, or anything else, covers the whole
    /// response.
    fn cover(&self) -> Cover;
}

/// One `name[=argument]` of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    name: &'a [u8],
    /// Without quotes and quoted-pairs.
    pub(super) argument: Option<Cow<'a, [u8]>>,
    /// The one device it is meant for, where the grammar allows that.
    pub(super) device: Option<&'a [u8]>,
}

/// A line broke the grammar here; nothing after this place can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the members of one line; ends after the first break of the grammar.
pub(super) struct Members<'a> {
    rest: &'a [u8],
    /// A member may end in `;device` (Edge Architecture §2.3).
    devices: bool,
}

impl<'a> Member<'a> {
    pub(super) fn with_argument(name: &'a [u8], argument: &'a [u8]) -> Self {
        Self {
            name,
            argument: Some(Cow::Borrowed(argument)),
            device: None,
        }
    }

    /// Is it called `name`? Names match in any case (RFC 9111 §5.2).
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn add_to(&self, directives: &mut ResponseDirectives) {
        directives.add(self.lower_name(&mut [0; NAME_BYTES_MAX]), self);
    }

    /// The name in lower case; empty when it is longer than any that is known.
    fn lower_name<'b>(&self, buffer: &'b mut [u8; NAME_BYTES_MAX]) -> &'b [u8] {
        let Some(lower) = buffer.get_mut(..self.name.len()) else {
            return &[];
        };
        lower.copy_from_slice(self.name);
        lower.make_ascii_lowercase();
        lower
    }
}

impl Argument for Member<'_> {
    fn is_absent(&self) -> bool {
        self.argument.is_none()
    }

    fn seconds(&self) -> Option<Duration> {
        delta_seconds(self.argument.as_deref()?)
    }

    fn cover(&self) -> Cover {
        self.argument.as_deref().map_or(Cover::Whole, field_list)
    }
}

impl<'a> Members<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        let devices = false;
        Self {
            rest: line,
            devices,
        }
    }

    pub(super) fn with_devices(line: &'a [u8]) -> Self {
        let devices = true;
        Self {
            rest: line,
            devices,
        }
    }

    fn member(&mut self) -> Result<Member<'a>, Malformed> {
        let name = self.token()?;
        let argument = match self.rest.split_first() {
            Some((b'=', rest)) => {
                self.rest = rest;
                Some(self.argument()?)
            }
            _ => None,
        };
        let device = match self.rest.split_first() {
            Some((b';', rest)) if self.devices => {
                self.rest = rest;
                Some(self.token()?)
            }
            _ => None,
        };
        self.skip(is_ows);
        match self.rest.first() {
            None | Some(b',') => Ok(Member {
                name,
                argument,
                device,
            }),
            Some(_) => Err(Malformed),
        }
    }

    fn argument(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        match self.rest.split_first() {
            Some((b'"', rest)) => {
                self.rest = rest;
                self.quoted()
            }
            _ => self.token().map(Cow::Borrowed),
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let token = self.skip(is_tchar);
        if token.is_empty() {
            return Err(Malformed);
        }
        Ok(token)
    }

    /// Reads the rest of a quoted-string, its first quote already taken (RFC 9110 §5.6.4).
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        let plain = self.skip(|byte| byte != b'"' && byte != b'\\');
        if let Some((b'"', rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => return Ok(Cow::Owned(text)),
                b'\\' => {
                    let (&escaped, rest) = rest.split_first().ok_or(Malformed)?;
                    self.rest = rest;
                    text.push(escaped);
                }
                _ => text.push(byte),
            }
        }
        Err(Malformed)
    }

    /// Takes the longest run of bytes that are `wanted`.
    fn skip(&mut self, wanted: fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte));
        let (run, rest) = self
            .rest
            .split_at_checked(end.unwrap_or(self.rest.len()))
            .unwrap_or((self.rest, &[]));
        self.rest = rest;
        run
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // Empty members say nothing (RFC 9110 §5.6.1.2).
        self.skip(|byte| is_ows(byte) || byte == b',');
        if self.rest.is_empty() {
            return None;
        }
        let member = self.member();
        if member.is_err() {
            self.rest = &[];
        }
        Some(member)
    }
}

/// Reads a list of field names; one that names none, or anything that is none, covers the whole
/// response.
pub(super) fn field_list(list: &[u8]) -> Cover {
    let names = list
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .map(HeaderName::from_bytes)
        .collect::<Result<Vec<_>, _>>();
    match names {
        Ok(names) if !names.is_empty() => Cover::Fields(names),
        _ => Cover::Whole,
    }
}

/// `Pragma: no-cache` (RFC 9111 §5.4); an unreadable Pragma asks for nothing.
fn pragma_no_cache(headers: &HeaderMap) -> bool {
    headers
        .get_all(PRAGMA)
        .iter()
        .flat_map(|line| Members::new(line.as_bytes()))
        .any(|member| member.is_ok_and(|member| member.is_named(b"no-cache")))
}

/// Keeps the shorter of two times; an unreadable one is zero.
fn shorten(slot: &mut Option<Duration>, seconds: Option<Duration>) {
    let seconds = seconds.unwrap_or(Duration::ZERO);
    *slot = Some(slot.map_or(seconds, |shortest| shortest.min(seconds)));
}

fn is_ows(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// No known directive has a longer name.
const NAME_BYTES_MAX: usize = "stale-while-revalidate".len();

/// The longest time a directive or Age can name: 2^31 seconds, 68 years (RFC 9111 §1.2.2).
pub const DELTA_SECONDS_MAX: Duration = Duration::from_secs(1 << 31);

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn fields(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn response(value: &str) -> ResponseDirectives {
        ResponseDirectives::read(&fields(&[("cache-control", value.as_bytes())]))
    }

    fn request(value: &str) -> RequestDirectives {
        RequestDirectives::read(&fields(&[("cache-control", value.as_bytes())]))
    }

    fn names(list: &[&'static str]) -> Cover {
        Cover::Fields(list.iter().map(|n| HeaderName::from_static(n)).collect())
    }

    #[test]
    fn nothing_said_is_nothing_read() {
        assert_eq!(
            ResponseDirectives::read(&HeaderMap::new()),
            ResponseDirectives::default()
        );
        assert_eq!(response(""), ResponseDirectives::default());
    }

    #[test]
    fn every_response_directive_is_known() {
        let all = response(
            "max-age=1, s-maxage=2, no-store, no-cache, private, public, must-revalidate, \
             proxy-revalidate, must-understand, no-transform, immutable, \
             stale-while-revalidate=3, stale-if-error=4",
        );
        let wanted = ResponseDirectives {
            max_age: Some(secs(1)),
            s_maxage: Some(secs(2)),
            no_store: true,
            no_cache: Cover::Whole,
            private: Cover::Whole,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            stale_while_revalidate: Some(secs(3)),
            stale_if_error: Some(secs(4)),
            malformed: false,
            targeted: false,
        };
        assert_eq!(all, wanted);
    }

    #[test]
    fn names_match_in_any_case() {
        let said = response("No-Store, MAX-AGE=60, PRIVATE");
        assert!(said.no_store && said.private.is_whole());
        assert_eq!(said.max_age, Some(secs(60)));
    }

    #[test]
    fn all_lines_count() {
        let headers = fields(&[
            ("cache-control", b"max-age=60"),
            ("cache-control", b"private"),
        ]);
        let said = ResponseDirectives::read(&headers);
        assert_eq!(said.max_age, Some(secs(60)));
        assert!(said.private.is_whole());
    }

    #[test]
    fn empty_members_and_whitespace_between_members_are_allowed() {
        let said = response(" ,\t, max-age=60 ,,\tno-store\t,");
        assert_eq!(said.max_age, Some(secs(60)));
        assert!(said.no_store && !said.malformed);
    }

    #[test]
    fn quoted_seconds_are_accepted() {
        assert_eq!(response("max-age=\"60\"").max_age, Some(secs(60)));
        assert_eq!(response("max-age=\"6\\0\"").max_age, Some(secs(60)));
    }

    #[test]
    fn a_directive_inside_quotes_is_text() {
        let said = response("ext=\"no-store, max-age=9, \\\"private\", max-age=60");
        assert_eq!(
            said,
            ResponseDirectives {
                max_age: Some(secs(60)),
                ..ResponseDirectives::default()
            }
        );
    }

    #[test]
    fn unknown_directives_hide_nothing() {
        let said = response("x, y=1, max-age=60, z=\"a,b\", no-store");
        assert_eq!(said.max_age, Some(secs(60)));
        assert!(said.no_store && !said.malformed);
    }

    #[test]
    fn unreadable_seconds_are_zero() {
        for value in [
            "max-age=a60",
            "max-age=60a",
            "max-age=-1",
            "max-age=1.5",
            "max-age",
        ] {
            assert_eq!(response(value).max_age, Some(secs(0)), "{value}");
        }
        assert_eq!(response("max-age=\" 60\"").max_age, Some(secs(0)));
    }

    #[test]
    fn seconds_too_large_to_count_are_the_largest() {
        for digits in [
            "2147483649",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            assert_eq!(delta_seconds(digits.as_bytes()), Some(DELTA_SECONDS_MAX));
        }
    }

    #[test]
    fn the_smallest_of_repeated_seconds_wins() {
        assert_eq!(response("max-age=60, max-age=5").max_age, Some(secs(5)));
        assert_eq!(response("max-age=5, max-age=60").max_age, Some(secs(5)));
        assert_eq!(response("max-age=60, max-age=x").max_age, Some(secs(0)));
    }

    #[test]
    fn a_broken_grammar_is_reported() {
        let broken = [
            "max-age=\"60",
            "max-age =60",
            "max-age= 60",
            "max-age=",
            "=60",
            "max-age=60; public",
            "max-age=60 public",
            "\"no-store\"",
            "x=\"a\"b",
            "x=\"\\",
            "max-age=6\u{e9}",
        ];
        for value in broken {
            assert!(response(value).malformed, "{value}");
        }
    }

    #[test]
    fn directives_before_the_break_still_count() {
        assert!(response("no-store, x=\"").no_store);
    }

    #[test]
    fn private_and_no_cache_may_name_fields() {
        let said = response("private=\"X-User, set-cookie\", no-cache=x-token");
        assert_eq!(said.private, names(&["x-user", "set-cookie"]));
        assert_eq!(said.no_cache, names(&["x-token"]));
        assert!(said.withhold(&HeaderName::from_static("set-cookie")));
        assert!(said.withhold(&HeaderName::from_static("x-token")));
        assert!(!said.withhold(&HeaderName::from_static("x-other")));
    }

    #[test]
    fn a_list_of_no_or_impossible_names_covers_the_whole_response() {
        for value in [
            "private=\"\"",
            "private=\" , \"",
            "private=\"a b\"",
            "private=\"x,@\"",
        ] {
            assert_eq!(response(value).private, Cover::Whole, "{value}");
        }
    }

    #[test]
    fn the_unqualified_form_wins_over_named_fields() {
        assert_eq!(response("private=\"a\", private").private, Cover::Whole);
        assert_eq!(response("private, private=\"a\"").private, Cover::Whole);
        assert_eq!(
            response("private=\"a\", private=\"b\"").private,
            names(&["a", "b"])
        );
    }

    #[test]
    fn loosening_directives_count_only_without_an_argument() {
        let said = response("public=1, must-understand=\"x\", immutable=0");
        assert_eq!(said, ResponseDirectives::default());
    }

    #[test]
    fn tightening_directives_count_with_any_argument() {
        let said = response("no-store=0, must-revalidate=no");
        assert!(said.no_store && said.must_revalidate);
    }

    #[test]
    fn every_request_directive_is_known() {
        let all = request(
            "no-store, no-cache, only-if-cached, max-age=1, min-fresh=2, max-stale=3, \
             stale-if-error=4",
        );
        let wanted = RequestDirectives {
            no_store: true,
            only_if_cached: true,
            no_cache: true,
            max_age: Some(secs(1)),
            min_fresh: Some(secs(2)),
            max_stale: Some(secs(3)),
            stale_if_error: Some(secs(4)),
        };
        assert_eq!(all, wanted);
    }

    #[test]
    fn max_stale_without_a_limit_accepts_any_staleness() {
        assert_eq!(request("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(request("max-stale=x").max_stale, Some(secs(0)));
        assert_eq!(request("max-stale, max-stale=5").max_stale, Some(secs(5)));
    }

    #[test]
    fn repeated_min_fresh_asks_for_the_most() {
        assert_eq!(request("min-fresh=9, min-fresh=5").min_fresh, Some(secs(9)));
    }

    #[test]
    fn a_broken_request_is_neither_stored_nor_answered_from_the_store() {
        let said = request("max-age=\"");
        assert!(said.no_store && said.no_cache);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let alone = fields(&[("pragma", b"x=1, No-Cache")]);
        assert!(RequestDirectives::read(&alone).no_cache);
        let beside = fields(&[("pragma", b"no-cache"), ("cache-control", b"max-age=1")]);
        assert!(!RequestDirectives::read(&beside).no_cache);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in any::<Vec<u8>>()) {
            let count = Members::new(&line).count();
            prop_assert!(count <= line.len());
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.append(CACHE_CONTROL, value);
                let said = ResponseDirectives::read(&headers);
                prop_assert!(said.max_age.is_none_or(|age| age <= DELTA_SECONDS_MAX));
                let _asked = RequestDirectives::read(&headers);
            }
        }

        #[test]
        fn a_well_formed_unknown_member_changes_nothing(
            text in "[ -!#-\\[\\]-~]{0,20}",
            age in any::<u32>(),
        ) {
            let plain = response(&format!("max-age={age}"));
            prop_assert_eq!(&response(&format!("x=\"{text}\", max-age={age}")), &plain);
            prop_assert_eq!(&response(&format!("max-age={age}, x=\"{text}\"")), &plain);
        }
    }
}
