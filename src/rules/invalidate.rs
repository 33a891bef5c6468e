//! What a purge covers, and what an unsafe request makes invalid (RFC 9111 §4.4).
//!
//! A purge is the operator's word and covers what its [`Selector`] says. An invalidation is a
//! request's side effect: a non-error response to an unsafe method makes the target's stored
//! responses invalid, and those of the Location and Content-Location it names on the same origin.
//! What the targets' keys are is asked in [`key`](super::key); removing entries is `state/index`'s.

use super::key::PrimaryKey;
use super::request::NormalRequest;
use super::request::Scheme;
use super::request::parse_url;
use super::tag::TagKey;
use super::tag::TagScope;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header;

/// What a purge covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Everything.
    All,
    /// Everything that bears this tag.
    Tag(TagKey),
    /// All variants of one target.
    Url(PrimaryKey),
}

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
) -> Vec<TagKey> {
    if !invalidates(request, status) {
        return Vec::new();
    }
    scope.groups(response_headers, &CACHE_GROUP_INVALIDATION)
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
}
