//! What a purge covers, and what an unsafe request makes invalid (RFC 9111 §4.4).
//!
//! A purge is the operator's word: it covers what its [`Selector`]s say and is older than its
//! [`Mark`]. An invalidation is a request's side effect: a non-error response to an unsafe method makes
//! the target's stored responses invalid, and those of the Location and Content-Location it names on
//! the same origin. What the targets' keys are is asked in [`key`](super::key); which marks there are
//! is known in `state/marks`, and entries are removed in `state/index`.

use super::address::Sequence;
use super::authority::host_of;
use super::authority::normal_authority;
use super::key::PrimaryKey;
use super::request::NormalRequest;
use super::request::Scheme;
use super::request::parse_url;
use super::tag::Names;
use super::tag::Signature;
use super::tag::TagKey;
use super::tag::TagScope;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header;
use regex::Regex;
use regex::RegexBuilder;
use std::time::Duration;
use std::time::SystemTime;

/// When a purge was made, and what becomes of what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Orders it among fills and purges: what has a smaller one is covered.
    pub sequence: Sequence,
    /// The time, to the microsecond.
    pub at: SystemTime,
    /// What is covered is stale from then on; else it is gone.
    pub soft: bool,
}

/// What a purge covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Everything.
    All,
    /// Everything whose URL begins so.
    Prefix(Box<str>),
    /// Everything whose URL it matches, of one site or of any.
    Regex(Option<TagKey>, Pattern),
    /// Everything of this site.
    Site(TagKey),
    /// Everything that bears this tag, of one site or of any.
    Tag(Option<TagKey>, TagKey),
    /// All variants of one target, or of all targets of a [family](PrimaryKey::family).
    Url(PrimaryKey),
}

/// A regular expression, tried anywhere in a URL: host, path and query. It takes time in proportion
/// to the URL's length, and bounded memory.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    /// None for one from a journal that cannot be used any more.
    program: Option<Regex>,
}

impl Mark {
    /// One that nothing older outlives.
    pub fn hard(sequence: Sequence, at: SystemTime) -> Self {
        Self {
            sequence,
            at,
            soft: false,
        }
    }

    /// Its time in microseconds since the epoch, as it is written down.
    pub fn micros(&self) -> u64 {
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
    }

    /// The time that [`micros`](Self::micros) wrote down.
    pub fn time(micros: u64) -> SystemTime {
        let since = Duration::from_micros(micros);
        let at = SystemTime::UNIX_EPOCH.checked_add(since);
        at.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Selector {
    /// The beginning of host and path that is meant by `text`: `host/path` or a URL. Its host is
    /// written as in requests; one that the text may have cut is only written small.
    pub fn prefix(text: &str) -> Option<Self> {
        let schemes = [("http://", Scheme::Http), ("https://", Scheme::Https)];
        let named = schemes.into_iter().find_map(|(begin, scheme)| {
            let head = text.get(..begin.len())?;
            let rest = text.get(begin.len()..)?;
            head.eq_ignore_ascii_case(begin).then_some((rest, scheme))
        });
        let (text, scheme) = named.unwrap_or((text, Scheme::Http));
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > PREFIX_BYTES_MAX || !visible {
            return None;
        }
        let Some(slash) = text.find('/') else {
            return Some(Self::Prefix(text.to_ascii_lowercase().into()));
        };
        let (authority, path) = text.split_at(slash);
        if authority.ends_with(':') {
            // Another scheme.
            return None;
        }
        let authority = normal_authority(authority.as_bytes(), scheme).ok()?;
        Some(Self::Prefix((authority + path).into()))
    }

    /// All of one host, whatever the port.
    pub fn host(host: &str) -> Option<[Self; 2]> {
        if host_of(host) != host {
            return None;
        }
        let name = normal_authority(host.as_bytes(), Scheme::Http).ok()?;
        Some([format!("{name}/"), format!("{name}:")].map(|begin| Self::Prefix(begin.into())))
    }

    /// The bits that everything it covers has in its signature. Of targets only their keys are known.
    pub fn signature(&self) -> Signature {
        match self {
            Self::All | Self::Url(_) | Self::Regex(None, _) => Signature::default(),
            Self::Prefix(begin) => Signature::of_prefix(begin),
            Self::Regex(Some(site), _) | Self::Site(site) => Signature::of(*site),
            Self::Tag(None, tag) => Signature::of(*tag),
            Self::Tag(Some(site), tag) => Signature::of(*site).and(Signature::of(*tag)),
        }
    }

    /// What it goes by, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Prefix(_) => "prefix",
            Self::Regex(..) => "regex",
            Self::Site(_) => "site",
            Self::Tag(..) => "tag",
            Self::Url(_) => "url",
        }
    }

    /// Does it cover a response that is stored under `key`?
    pub fn covers(&self, key: PrimaryKey, names: &Names) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(begin) => names.url.starts_with(&**begin),
            Self::Regex(site, pattern) => {
                site.is_none_or(|site| site == names.site) && pattern.matches(&names.url)
            }
            Self::Site(site) => *site == names.site,
            Self::Tag(site, tag) => site.is_none_or(|site| site == names.site) && names.bears(*tag),
            Self::Url(target) => *target == key || *target == key.family(),
        }
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::All => out.push(ALL),
            Self::Url(PrimaryKey(key)) => {
                out.push(URL);
                out.extend(key);
            }
            Self::Tag(site, TagKey(tag)) => {
                out.push(TAG);
                write_site(*site, out);
                out.extend(tag);
            }
            Self::Prefix(begin) => {
                out.push(PREFIX);
                write_text(begin, out);
            }
            Self::Regex(site, pattern) => {
                out.push(REGEX);
                write_site(*site, out);
                write_text(&pattern.text, out);
            }
            Self::Site(TagKey(site)) => {
                out.push(SITE);
                out.extend(site);
            }
        }
    }

    /// Reads one off the front of `bytes`; `None` for what is none.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(match take::<1>(bytes)? {
            [ALL] => Self::All,
            [URL] => Self::Url(PrimaryKey(take(bytes)?)),
            [TAG] => Self::Tag(read_site(bytes)?, TagKey(take(bytes)?)),
            [PREFIX] => Self::Prefix(read_text(bytes)?.into()),
            [REGEX] => {
                let site = read_site(bytes)?;
                Self::Regex(site, Pattern::restored(read_text(bytes)?))
            }
            [SITE] => Self::Site(TagKey(take(bytes)?)),
            _ => return None,
        })
    }
}

impl Pattern {
    /// Reads a regular expression; says what is wrong with it, or that it would take too much memory.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(format!("1 to {PATTERN_BYTES_MAX} bytes are possible"));
        }
        let program = compile(text).map_err(|error| error.to_string())?;
        Ok(Self {
            text: text.into(),
            program: Some(program),
        })
    }

    /// As it was when it was written down. One that cannot be used any more matches everything: what
    /// it was to cover must not come back.
    fn restored(text: &str) -> Self {
        Self {
            text: text.into(),
            program: compile(text).ok(),
        }
    }

    /// Is it found in a URL?
    pub fn matches(&self, url: &str) -> bool {
        self.program.as_ref().is_none_or(|it| it.is_match(url))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(PROGRAM_BYTES_MAX)
        .nest_limit(NESTED_MAX)
        .build()
}

fn write_site(site: Option<TagKey>, out: &mut Vec<u8>) {
    out.push(u8::from(site.is_some()));
    out.extend(site.iter().flat_map(|site| site.0));
}

fn read_site(bytes: &mut &[u8]) -> Option<Option<TagKey>> {
    match take(bytes)? {
        [0] => Some(None),
        [1] => Some(Some(TagKey(take(bytes)?))),
        _ => None,
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Those that were read from operators are far shorter.
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(text.bytes());
}

fn read_text<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn take<const BYTES: usize>(bytes: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// The longest beginning of host and path, in bytes.
const PREFIX_BYTES_MAX: usize = 2048;
/// The longest regular expression, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;
/// What a regular expression may take in memory, and once more while it is matched, in bytes.
const PROGRAM_BYTES_MAX: usize = 256 << 10;
/// How deep groups may lie in each other.
const NESTED_MAX: u32 = 64;

// What each begins with when it is written down.
const ALL: u8 = 0;
const URL: u8 = 1;
const TAG: u8 = 2;
const PREFIX: u8 = 3;
const REGEX: u8 = 4;
const SITE: u8 = 5;

/// Path-and-query targets on the request's own authority that a non-error response to an unsafe
/// method invalidates: the target, and same-origin Location and Content-Location.
///
/// At most three, without repeats. Scheme and authority must both be the request's own, or anyone
/// who may write to one origin could empty another's cache (RFC 9111 §4.4). A method that is not
/// known is taken to be unsafe.
pub fn invalidated_targets(
    request: &NormalRequest,
    status: StatusCode,
    response_headers: &HeaderMap,
) -> Vec<String> {
    if !invalidates(request, status) {
        return Vec::new();
    }
    let mut targets = vec![request.target().to_owned()];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let named = named_target(request, response_headers, &name);
        if let Some(target) = named.filter(|target| !targets.contains(target)) {
            targets.push(target);
        }
    }
    targets
}

/// Whether a response's Content-Location names the request's own target URI: then its content is
/// a representation of the target, whatever the method was (RFC 9110 §8.7).
pub(super) fn describes_target(request: &NormalRequest, response_headers: &HeaderMap) -> bool {
    let named = named_target(request, response_headers, &header::CONTENT_LOCATION);
    named.is_some_and(|named| named == request.target())
}

/// The URL that a redirect leads to, as scheme, authority and target, if it is not the request's own.
pub fn redirected_to(
    request: &NormalRequest,
    status: StatusCode,
    response_headers: &HeaderMap,
) -> Option<(Scheme, String, String)> {
    let own = (
        request.scheme(),
        request.authority().to_owned(),
        request.target().to_owned(),
    );
    named_url(request, response_headers, &header::LOCATION)
        .filter(|named| status.is_redirection() && *named != own)
}

/// The groups that a non-error response to an unsafe method invalidates, by its
/// `Cache-Group-Invalidation` (RFC 9875 §3), sorted, without repeats.
///
/// On a response to a safe method the field "MUST be ignored". Nothing else follows: what goes
/// with a group takes no other groups of its own with it (§2.2.1).
pub fn invalidated_groups(
    request: &NormalRequest,
    status: StatusCode,
    response_headers: &HeaderMap,
    scope: &TagScope<'_>,
) -> Vec<Selector> {
    if !invalidates(request, status) {
        return Vec::new();
    }
    let groups = scope.groups(response_headers, &CACHE_GROUP_INVALIDATION);
    let site = scope.site();
    let selectors = groups.into_iter();
    selectors
        .map(|group| Selector::Tag(Some(site), group))
        .collect()
}

/// Returns whether a method is known to change nothing (RFC 9110 §9.2.1).
pub fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// "A non-error response is one with a 2xx (Successful) or 3xx (Redirection) status code"
/// (RFC 9111 §4.4).
fn invalidates(request: &NormalRequest, status: StatusCode) -> bool {
    !is_safe(request.method()) && (status.is_success() || status.is_redirection())
}

/// Returns the target that a field names on the request's own origin.
///
/// A field with more than one line names nothing (RFC 9110 §10.2.2 and §8.7 allow one).
fn named_target(request: &NormalRequest, headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let (scheme, authority, target) = named_url(request, headers, name)?;
    (scheme == request.scheme() && authority == request.authority()).then_some(target)
}

/// Returns the scheme, authority and target of the URL that a field names.
fn named_url(
    request: &NormalRequest,
    headers: &HeaderMap,
    name: &HeaderName,
) -> Option<(Scheme, String, String)> {
    let mut lines = headers.get_all(name).iter();
    let reference = std::str::from_utf8(lines.next()?.as_bytes()).ok()?;
    if lines.next().is_some() {
        return None;
    }
    let url = resolve(request, reference.trim_ascii());
    let (scheme, authority, target) = parse_url(&url).ok()?;
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    Some((scheme, authority, without_dot_segments(path) + query))
}

/// Resolves a reference against the request's URL (RFC 3986 §5.2.2). Dot segments and the fragment
/// are left in it.
fn resolve(request: &NormalRequest, reference: &str) -> String {
    let scheme = request.scheme().as_str();
    let authority = request.authority();
    let target = request.target();
    let base_path = target.split_once('?').map_or(target, |(path, _)| path);
    if has_scheme(reference) {
        return reference.to_owned();
    }
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}");
    }
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, tail) = reference.split_at(end);
    let path = match path {
        // The path stays; so does the query, unless the reference has one of its own.
        "" if tail.starts_with('?') => base_path.to_owned(),
        "" => target.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => {
            let folder = base_path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{relative}")
        }
    };
    format!("{scheme}://{authority}{path}{tail}")
}

/// Whether a reference begins with a scheme: a letter, then letters, digits, `+`, `-` and `.` up to
/// a colon (RFC 3986 §3.1).
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else {
        return false;
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(fits)
}

/// Takes `.` and `..` out of a path that begins with a slash (RFC 3986 §5.2.4).
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::key::KeyPolicy;
    use crate::rules::request::Params;
    use crate::rules::request::Scheme;
    use http::HeaderValue;
    use http::Request;
    use proptest::prelude::*;

    fn request(method: &str, target: &str) -> NormalRequest {
        let request = Request::builder().method(method).uri(target);
        let request = request.header("host", "a.test").body(()).unwrap();
        let params = Params {
            body_bytes_max: 0,
            target_bytes_max: 100,
        };
        NormalRequest::new(request.into_parts().0, Scheme::Http, &params).unwrap()
    }

    fn after(method: &str, status: u16) -> Vec<String> {
        let status = StatusCode::from_u16(status).unwrap();
        invalidated_targets(&request(method, "/d/x?q"), status, &HeaderMap::new())
    }

    /// What a `POST /d/x?q` makes invalid beside its target when it is answered with these fields.
    fn named(lines: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let post = request("POST", "/d/x?q");
        let mut targets = invalidated_targets(&post, StatusCode::CREATED, &headers);
        assert_eq!(targets.remove(0), "/d/x?q");
        targets
    }

    fn location(value: &str) -> Vec<String> {
        named(&[("location", value)])
    }

    fn groups_after(method: &str, status: u16, field: &'static str) -> usize {
        let request = request(method, "/");
        let status = StatusCode::from_u16(status).unwrap();
        let value = HeaderValue::from_static(field);
        let headers = HeaderMap::from_iter([(CACHE_GROUP_INVALIDATION, value)]);
        let policy = KeyPolicy::default();
        let scope = TagScope::new("site", Scheme::Http, "a.test", &policy);
        invalidated_groups(&request, status, &headers, &scope).len()
    }

    #[test]
    fn unsafe_methods_invalidate_the_groups_they_name() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
            assert_eq!(groups_after(method, 204, "\"a\", \"b\""), 2, "{method}");
        }
        assert_eq!(groups_after("POST", 303, "\"a\""), 1);
    }

    #[test]
    fn safe_methods_errors_and_malformed_fields_invalidate_no_group() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(groups_after(method, 200, "\"a\""), 0, "{method}");
        }
        assert_eq!(groups_after("POST", 404, "\"a\""), 0);
        assert_eq!(groups_after("POST", 500, "\"a\""), 0);
        assert_eq!(groups_after("POST", 200, "a"), 0);
    }

    #[test]
    fn unsafe_methods_invalidate_their_target() {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(after(method, 204), ["/d/x?q"], "{method}");
        }
    }

    #[test]
    fn an_unknown_method_is_unsafe() {
        assert_eq!(after("BREW", 200), ["/d/x?q"]);
    }

    #[test]
    fn safe_methods_invalidate_nothing() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(after(method, 200).is_empty(), "{method}");
        }
    }

    #[test]
    fn a_redirect_is_no_error() {
        assert_eq!(after("POST", 303), ["/d/x?q"]);
    }

    #[test]
    fn errors_invalidate_nothing() {
        assert!(after("POST", 404).is_empty());
        assert!(after("POST", 500).is_empty());
    }

    #[test]
    fn location_is_invalidated_too() {
        assert_eq!(location("/y"), ["/y"]);
    }

    #[test]
    fn content_location_is_invalidated_too() {
        assert_eq!(named(&[("content-location", "/y")]), ["/y"]);
    }

    #[test]
    fn both_are_invalidated() {
        let lines = [("location", "/y"), ("content-location", "/z")];
        assert_eq!(named(&lines), ["/y", "/z"]);
    }

    #[test]
    fn nothing_is_named_twice() {
        let lines = [("location", "/y"), ("content-location", "http://a.test/y")];
        assert_eq!(named(&lines), ["/y"]);
        assert!(location("/d/x?q").is_empty());
    }

    #[test]
    fn an_absolute_url_on_the_same_origin_is_invalidated() {
        assert_eq!(location("HTTP://A.test:80/y?z#f"), ["/y?z"]);
    }

    #[test]
    fn another_host_is_left_alone() {
        assert!(location("http://b.test/y").is_empty());
        assert!(location("//b.test/y").is_empty());
    }

    #[test]
    fn another_port_is_left_alone() {
        assert!(location("http://a.test:8080/y").is_empty());
    }

    #[test]
    fn another_scheme_is_left_alone() {
        assert!(location("https://a.test/y").is_empty());
    }

    #[test]
    fn a_host_behind_user_information_is_left_alone() {
        assert!(location("http://a.test@b.test/y").is_empty());
        assert!(location("http://b.test@a.test/y").is_empty());
    }

    #[test]
    fn references_are_resolved_against_the_target() {
        for (reference, target) in [
            ("y", "/d/y"),
            ("./y", "/d/y"),
            ("../y", "/y"),
            ("../../../y", "/y"),
            (".", "/d/"),
            ("..", "/"),
            ("y/./z/../w?a=../b", "/d/y/w?a=../b"),
            ("/a/../y/", "/y/"),
            ("http://a.test/a/../y", "/y"),
            ("/a//y", "/a//y"),
            ("?p", "/d/x?p"),
            ("//a.test/y", "/y"),
            ("y:z/w", ""),
            ("./y:z", "/d/y:z"),
            ("y#f", "/d/y"),
        ] {
            let expected: Vec<&str> = [target].into_iter().filter(|t| !t.is_empty()).collect();
            assert_eq!(location(reference), expected, "{reference}");
        }
    }

    #[test]
    fn an_empty_reference_is_the_target_itself() {
        assert!(location("").is_empty());
        assert!(location("#f").is_empty());
    }

    #[test]
    fn what_is_no_url_names_nothing() {
        assert!(location("/a b").is_empty());
        assert!(location("http://").is_empty());
    }

    #[test]
    fn a_field_with_two_lines_names_nothing() {
        assert!(named(&[("location", "/y"), ("location", "/z")]).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_location_says_at_most_one_target_is_added(value in "[ -~]{0,40}") {
            let added = location(&value);
            prop_assert!(added.len() <= 1);
            prop_assert!(added.iter().all(|target| target.starts_with('/')));
        }

        #[test]
        fn no_dot_segment_is_left_over(path in "(/[a.]{0,3}){1,6}") {
            let clean = without_dot_segments(&path);
            prop_assert!(clean.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }

    fn at(url: &str) -> Names {
        Names {
            url: url.into(),
            ..Names::default()
        }
    }

    fn covers(selector: &Selector, url: &str) -> bool {
        selector.covers(PrimaryKey([7; 16]), &at(url))
    }

    #[test]
    fn a_prefix_is_a_beginning_of_host_and_path_or_of_a_url() {
        for (text, begin) in [
            ("a.test/b", "a.test/b"),
            ("A.Test/B", "a.test/B"),
            ("http://A.test:80/b", "a.test/b"),
            ("HTTPS://a.test:443/", "a.test/"),
            ("https://a.test:80/", "a.test:80/"),
            ("http://a", "a"),
            ("A.te", "a.te"),
        ] {
            let wanted = Selector::Prefix(begin.into());
            assert_eq!(Selector::prefix(text), Some(wanted), "{text}");
        }
        let long = format!("a/{}", "x".repeat(PREFIX_BYTES_MAX));
        for text in [
            "",
            "http://",
            "a b",
            "a/\u{e9}",
            "/a",
            "a@b/",
            "ftp://a/b",
            &long,
        ] {
            assert_eq!(Selector::prefix(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_is_covered_on_every_port_and_no_longer_one_is() {
        let [plain, port] = Selector::host("A.test").unwrap();
        assert!(covers(&plain, "a.test/") && covers(&port, "a.test:81/x"));
        for url in ["a.test.b/", "b.a.test/", "a.tes/"] {
            assert!(!covers(&plain, url) && !covers(&port, url), "{url}");
        }
        let [plain, port] = Selector::host("[::1]").unwrap();
        assert!(covers(&plain, "[::1]/") && covers(&port, "[::1]:81/x"));
        for host in ["", "a:", "a:80", "a:81", "a/b", "a b", "[::1"] {
            assert_eq!(Selector::host(host), None, "{host}");
        }
    }

    #[test]
    fn a_pattern_is_tried_anywhere_and_bounded() {
        let pattern = Pattern::new("/b[0-9]+$").unwrap();
        assert!(pattern.matches("a.test/b12") && !pattern.matches("a.test/b12?c"));
        for text in ["", "(", "a{1000}{1000}{1000}", "\\p{L}{5000}", "(?=a)"] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
        assert!(Pattern::new(&"x".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        let nested = "(".repeat(200) + &")".repeat(200);
        assert!(Pattern::new(&nested).is_err());
    }

    #[test]
    fn a_pattern_that_cannot_be_read_any_more_covers_everything() {
        let mut bytes = Vec::new();
        let pattern = Pattern {
            text: "(".into(),
            program: None,
        };
        Selector::Regex(None, pattern).write(&mut bytes);
        let read = Selector::read(&mut bytes.as_slice()).unwrap();
        assert!(covers(&read, "a.test/"));
    }

    #[test]
    fn a_time_is_written_to_the_microsecond() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let mark = Mark::hard(Sequence(1), at);
        let read = Mark::time(mark.micros());
        assert_eq!(at.duration_since(read).unwrap(), Duration::from_nanos(789));
        assert!(Mark::time(u64::MAX) > at);
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_selectors_than_they_have_room_for(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut rest = bytes.as_slice();
            while let Some(selector) = Selector::read(&mut rest) {
                let mut again = Vec::new();
                selector.write(&mut again);
                prop_assert!(again.len() <= bytes.len());
            }
        }

        #[test]
        fn what_a_prefix_covers_has_its_bits(url in "[ab]{1,2}(:8)?(/[ab]{0,2}){1,5}([?]/a)?", end in 0_usize..20) {
            let prefix = Selector::prefix(&url[..end.min(url.len())]);
            if let Some(prefix) = prefix.filter(|prefix| covers(prefix, &url)) {
                prop_assert!(at(&url).signature().has(prefix.signature()));
            }
        }
    }
}
