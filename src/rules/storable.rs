//! May this response be stored? (RFC 9111 §3, §3.5) If so, with which verdicts?
//!
//! [`Storable::decide`] asks the clauses of §3 in their order, then what a shared cache adds for
//! its own safety: no cookies, no bodies of unknown length, nothing without a freshness lifetime.
//! The first clause that objects names the reason. What passes becomes a
//! [`StoredResponse`], complete but for its body, which is not here yet.

use super::address::Digest;
use super::directives::RequestDirectives;
use super::directives::ResponseDirectives;
use super::freshness::Timing;
use super::freshness::heuristically_cacheable;
use super::invalidate::describes_target;
use super::key::PrimaryKey;
use super::key::VariantKey;
use super::key::Vary;
use super::request::NormalRequest;
use super::request::RequestBody;
use super::stored::StaleWindow;
use super::stored::StoredResponse;
use super::stored::kept_fields;
use super::tag::Names;
use super::targeted::CDN_CACHE_CONTROL;
use super::targeted::Targeted;
use http::Method;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::EXPIRES;
use http::header::SET_COOKIE;
use http::response::Parts;
use std::time::Duration;
use std::time::SystemTime;

/// A site's policy on what to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePolicy {
    /// Store responses that carry Set-Cookie.
    pub set_cookie: bool,
    /// Store bodies that end when the connection closes, which cannot be proven complete.
    pub close_delimited: bool,
    /// Upper bound on a heuristic freshness lifetime (RFC 9111 §4.2.2); zero: no heuristics.
    pub heuristic_max: Duration,
    /// `stale-while-revalidate` for responses that do not say.
    pub stale_while_revalidate: Duration,
    /// `stale-if-error` for responses that do not say.
    pub stale_if_error: Duration,
    /// Store what is stale on arrival and has no validator: a client may accept it by `max-stale`.
    pub spent: bool,
    /// Fields that stand before Cache-Control and Expires, first one first (RFC 9213 §2.2).
    pub targeted: Vec<Targeted>,
}

impl Default for StorePolicy {
    /// No cookies, no bodies of unknown length, guesses of at most a day, nothing stale, and
    /// CDN-Cache-Control.
    fn default() -> Self {
        Self {
            set_cookie: false,
            close_delimited: false,
            heuristic_max: Duration::from_secs(86_400),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            spent: false,
            targeted: vec![Targeted::new(CDN_CACHE_CONTROL, "")],
        }
    }
}

/// How the origin delimited the body, as the upstream room saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// Length or chunked framing: completeness can be proven.
    Framed,
    /// Ends when the connection closes.
    Close,
}

impl BodyEnd {
    /// Framed, or not.
    pub fn of(framed: bool) -> Self {
        match framed {
            true => Self::Framed,
            false => Self::Close,
        }
    }
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Storable {
    /// Store it, as this. `body_bytes` and `body` are filled in when the body is complete.
    Store(Box<StoredResponse>),
    /// Do not, for this reason.
    Refuse(NotStorable),
}

/// Why a response may not be stored; its token appears in Cache-Status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotStorable {
    /// The request carried Authorization and no directive opens the response to others.
    Authorization,
    /// The body ends when the connection closes: it cannot be proven complete.
    CloseDelimited,
    /// Cache-Control could not be read, so it may have forbidden storing.
    Malformed,
    /// The request's method is not GET, nor POST with a response that GET would bring too.
    Method,
    /// `must-understand` with a status whose caching rules are not implemented here.
    MustUnderstand,
    /// `no-cache` without a validator: it could never be used.
    NoCache,
    /// Nothing grants a freshness lifetime, or it is spent and there is no validator.
    NoFreshness,
    /// `no-store` in the response.
    NoStore,
    /// `private` in the response.
    Private,
    /// A 206 that does not say which part of the response it is, or not the one asked for.
    Range,
    /// It redirects to another URL that has its own key, so that it would answer itself.
    RedirectToItself,
    /// The request carried a body, which is not part of the key.
    RequestBody,
    /// `no-store` in the request.
    RequestNoStore,
    /// The response sets cookies.
    SetCookie,
    /// The status is not final, or its response answers one request only.
    Status,
    /// `Vary: *`: it matches no later request.
    VaryAny,
}

impl NotStorable {
    /// Every reason, for tables that need one row each.
    pub const ALL: [Self; 16] = [
        Self::Authorization,
        Self::CloseDelimited,
        Self::Malformed,
        Self::Method,
        Self::MustUnderstand,
        Self::NoCache,
        Self::NoFreshness,
        Self::NoStore,
        Self::Private,
        Self::Range,
        Self::RedirectToItself,
        Self::RequestBody,
        Self::RequestNoStore,
        Self::SetCookie,
        Self::Status,
        Self::VaryAny,
    ];

    /// The fixed word that names the reason.
    pub fn token(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::CloseDelimited => "close-delimited",
            Self::Malformed => "malformed-cache-control",
            Self::Method => "method",
            Self::MustUnderstand => "must-understand",
            Self::NoCache => "no-cache",
            Self::NoFreshness => "no-freshness",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Range => "range",
            Self::RedirectToItself => "redirect-to-itself",
            Self::RequestBody => "request-body",
            Self::RequestNoStore => "request-no-store",
            Self::SetCookie => "set-cookie",
            Self::Status => "status",
            Self::VaryAny => "vary-any",
        }
    }

    /// Returns whether the request, not the response, is the reason: another client's response
    /// for the same target may well be stored, so nothing should be remembered against it.
    pub fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::Authorization
                | Self::Method
                | Self::RedirectToItself
                | Self::RequestBody
                | Self::RequestNoStore
        )
    }
}

impl Storable {
    /// Decides about a final response (`Parts` as received, hop-by-hop fields still on).
    pub fn decide(
        key: PrimaryKey,
        request: &NormalRequest,
        response: &Parts,
        end: BodyEnd,
        policy: &StorePolicy,
        request_time: SystemTime,
        response_time: SystemTime,
    ) -> Self {
        let directives = ResponseDirectives::read_targeted(&response.headers, &policy.targeted);
        let refusal = refused_by_request(request, response, &directives)
            .or_else(|| refused_by_status(response.status, &directives))
            .or_else(|| refused_by_directives(request, &directives))
            .or_else(|| refused_by_content(response, end, &directives, policy));
        if let Some(reason) = refusal {
            return Self::Refuse(reason);
        }
        let Vary::Fields(vary) = Vary::read(&response.headers) else {
            return Self::Refuse(NotStorable::VaryAny);
        };
        let mut stored = StoredResponse {
            key,
            variant: VariantKey::new(&vary, request.headers()),
            vary,
            names: Names::default(),
            status: response.status,
            headers: kept_fields(&response.headers, &directives, response_time),
            timing: Timing::read(&response.headers, request_time, response_time),
            lifetime: Duration::ZERO,
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: None,
            body_bytes: 0,
            body: Digest([0; 32]),
            part: None,
        };
        let granted = stored.judge(&directives, policy);
        match refused_as_useless(&stored, granted, policy) {
            Some(reason) => Self::Refuse(reason),
            None => Self::Store(Box::new(stored)),
        }
    }
}

/// "the request method is understood by the cache" (RFC 9111 §3). GET is, and POST where its
/// response is what GET would bring: HEAD brings no body, and a request body is not part of the key.
fn refused_by_request(
    request: &NormalRequest,
    response: &Parts,
    directives: &ResponseDirectives,
) -> Option<NotStorable> {
    if *request.method() == Method::POST {
        if !stands_for_get(request, response, directives) {
            return Some(NotStorable::Method);
        }
    } else if *request.method() != Method::GET {
        return Some(NotStorable::Method);
    } else if request.body() != RequestBody::Empty {
        return Some(NotStorable::RequestBody);
    }
    RequestDirectives::read(request.headers())
        .no_store
        .then_some(NotStorable::RequestNoStore)
}

/// Whether a response to POST may answer later GETs of the target: it has "explicit freshness
/// information" and "a Content-Location header field that has the same value as the POST's target
/// URI" (RFC 9110 §9.3.3). Of the 2xx statuses only those that would be true of a GET too.
fn stands_for_get(
    request: &NormalRequest,
    response: &Parts,
    directives: &ResponseDirectives,
) -> bool {
    let status = response.status;
    (status == StatusCode::OK || status == StatusCode::NON_AUTHORITATIVE_INFORMATION)
        && explicitly_fresh(response, directives)
        && describes_target(request, &response.headers)
}

/// Explicit freshness information (RFC 9111 §4.2.1), whatever it amounts to.
fn explicitly_fresh(response: &Parts, directives: &ResponseDirectives) -> bool {
    directives.max_age.is_some()
        || directives.s_maxage.is_some()
        || (response.headers.contains_key(EXPIRES) && !directives.targeted)
}

/// "the response status code is final" and, for 206, 304 and `must-understand`, "the cache
/// understands the response status code" (RFC 9111 §3).
///
/// 412 and 416 answer the conditions and ranges of one request, which the key knows nothing of.
fn refused_by_status(status: StatusCode, directives: &ResponseDirectives) -> Option<NotStorable> {
    let final_status = (200..600).contains(&status.as_u16());
    if !final_status || matches!(status.as_u16(), 206 | 304 | 412 | 416) {
        return Some(NotStorable::Status);
    }
    (directives.must_understand && !understood(status)).then_some(NotStorable::MustUnderstand)
}

/// The directives of RFC 9111 §3 that forbid a shared cache to store.
fn refused_by_directives(
    request: &NormalRequest,
    directives: &ResponseDirectives,
) -> Option<NotStorable> {
    if directives.malformed {
        return Some(NotStorable::Malformed);
    }
    // "the cache SHOULD ignore the no-store directive if it understands and implements the status
    // code's caching requirements" (§5.2.2.3); a status that is not understood came no further.
    if directives.no_store && !directives.must_understand {
        return Some(NotStorable::NoStore);
    }
    if directives.private.is_whole() {
        return Some(NotStorable::Private);
    }
    // "... or a response directive is present that explicitly allows shared caching" (§3, §3.5).
    (request.headers().contains_key(AUTHORIZATION) && !directives.allow_authorized())
        .then_some(NotStorable::Authorization)
}

/// What this cache refuses for safety's sake although the RFC would let it pass, and the closing
/// clause of RFC 9111 §3: something in the response must allow it to be stored.
fn refused_by_content(
    response: &Parts,
    end: BodyEnd,
    directives: &ResponseDirectives,
    policy: &StorePolicy,
) -> Option<NotStorable> {
    let cookies = response.headers.contains_key(SET_COOKIE) && !directives.withhold(&SET_COOKIE);
    if cookies && !policy.set_cookie {
        return Some(NotStorable::SetCookie);
    }
    if end == BodyEnd::Close && !policy.close_delimited {
        return Some(NotStorable::CloseDelimited);
    }
    let allowed = directives.public
        || explicitly_fresh(response, directives)
        || heuristically_cacheable(response.status);
    (!allowed).then_some(NotStorable::NoFreshness)
}

/// Refuses what could never be used, and what nobody gave a lifetime.
///
/// A validator alone does not do: a page without a word on caching is as likely as not a personal
/// one. `no-cache` with a validator does: the origin asked for just that.
fn refused_as_useless(
    stored: &StoredResponse,
    granted: bool,
    policy: &StorePolicy,
) -> Option<NotStorable> {
    if stored.validate_always {
        return stored.validators.is_none().then_some(NotStorable::NoCache);
    }
    let acceptable = policy.spent && !stored.must_revalidate;
    let useful = granted && (acceptable || stored.worth_keeping(stored.timing.response_time));
    (!useful).then_some(NotStorable::NoFreshness)
}

/// Statuses of RFC 9110 §15 whose caching requirements are implemented here: most have none but
/// to be told apart. 206 and 304 are handled apart; 407, 408, 421 and 426 speak of a connection or
/// of a proxy on it.
fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=406 | 409..=411 | 413..=415 | 417 | 422 | 500..=505
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::Params;
    use crate::rules::request::Scheme;
    use crate::rules::validation::Validators;
    use http::HeaderMap;
    use http::HeaderName;
    use http::HeaderValue;
    use http::Request;
    use http::Response;
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use std::collections::HashSet;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const EARLY: &str = "Sun, 06 Nov 1994 02:00:00 GMT";
    const ONE_HOUR_LATER: &str = "Sun, 06 Nov 1994 13:00:00 GMT";

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    fn request(method: Method, lines: &[(&'static str, &'static str)]) -> NormalRequest {
        let mut builder = Request::builder().method(method).uri("/a");
        builder = builder.header("host", "example.com");
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        let params = Params {
            body_bytes_max: 100,
            target_bytes_max: 100,
        };
        NormalRequest::new(parts, Scheme::Http, &params).unwrap()
    }

    fn response(status: u16, lines: &[(&'static str, &'static str)]) -> Parts {
        let mut builder = Response::builder().status(status);
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn decide_with(
        request: &NormalRequest,
        response: &Parts,
        end: BodyEnd,
        policy: &StorePolicy,
    ) -> Storable {
        let sent = noon() - secs(1);
        Storable::decide(
            PrimaryKey([1; 16]),
            request,
            response,
            end,
            policy,
            sent,
            noon(),
        )
    }

    fn decide(request: &NormalRequest, response: &Parts) -> Storable {
        decide_with(request, response, BodyEnd::Framed, &StorePolicy::default())
    }

    /// What becomes of a response to a plain GET.
    fn got(status: u16, lines: &[(&'static str, &'static str)]) -> Storable {
        decide(&request(Method::GET, &[]), &response(status, lines))
    }

    fn cached(cache_control: &'static str) -> Storable {
        got(200, &[("cache-control", cache_control)])
    }

    fn stored(verdict: Storable) -> StoredResponse {
        match verdict {
            Storable::Store(stored) => *stored,
            Storable::Refuse(reason) => panic!("refused: {reason:?}"),
        }
    }

    fn refused(verdict: Storable) -> NotStorable {
        match verdict {
            Storable::Store(stored) => panic!("stored: {stored:?}"),
            Storable::Refuse(reason) => reason,
        }
    }

    #[test]
    fn an_explicitly_fresh_response_is_stored() {
        let lines = [("cache-control", "max-age=60"), ("date", NOON)];
        let wanted = StoredResponse {
            key: PrimaryKey([1; 16]),
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            names: Names::default(),
            status: StatusCode::OK,
            headers: response(200, &lines).headers,
            timing: Timing {
                request_time: noon() - secs(1),
                response_time: noon(),
                date_value: noon(),
                age_value: secs(0),
            },
            lifetime: secs(60),
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: None,
            body_bytes: 0,
            body: Digest([0; 32]),
            part: None,
        };
        assert_eq!(stored(got(200, &lines)), wanted);
    }

    #[test]
    fn only_get_is_stored() {
        let fresh = response(200, &[("cache-control", "max-age=60")]);
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
            let verdict = decide(&request(method.clone(), &[]), &fresh);
            assert_eq!(refused(verdict), NotStorable::Method, "{method}");
        }
    }

    fn posted(status: u16, lines: &[(&'static str, &'static str)]) -> Storable {
        decide(&request(Method::POST, &[]), &response(status, lines))
    }

    #[test]
    fn a_posts_response_is_stored_when_it_describes_the_target_and_says_for_how_long() {
        for location in ["/a", "a", "http://example.com/a", "//example.com/./a"] {
            for freshness in [
                ("cache-control", "max-age=60"),
                ("cache-control", "s-maxage=60"),
                ("cdn-cache-control", "max-age=60"),
                ("expires", ONE_HOUR_LATER),
            ] {
                let lines = [("content-location", location), ("date", NOON), freshness];
                assert!(!stored(posted(200, &lines)).lifetime.is_zero());
            }
        }
    }

    #[test]
    fn a_posts_response_is_not_stored_on_a_guess() {
        let located = ("content-location", "/a");
        let old = ("last-modified", EARLY);
        let verdict = posted(200, &[located, old, ("date", NOON)]);
        assert_eq!(refused(verdict), NotStorable::Method);
        let public = ("cache-control", "public");
        let verdict = posted(200, &[located, old, public, ("date", NOON)]);
        assert_eq!(refused(verdict), NotStorable::Method);
    }

    #[test]
    fn a_posts_response_that_describes_something_else_is_not_stored() {
        for location in [
            "/b",
            "/a?q",
            "https://example.com/a",
            "http://a.test/a",
            "?",
        ] {
            let lines = [
                ("content-location", location),
                ("cache-control", "max-age=60"),
            ];
            assert_eq!(
                refused(posted(200, &lines)),
                NotStorable::Method,
                "{location}"
            );
        }
    }

    #[test]
    fn a_posts_response_is_stored_only_with_a_status_that_a_get_would_have() {
        let lines = [("content-location", "/a"), ("cache-control", "max-age=60")];
        for status in [201, 202, 204, 205, 206, 301, 303, 404, 500] {
            assert_eq!(
                refused(posted(status, &lines)),
                NotStorable::Method,
                "{status}"
            );
        }
        assert_eq!(stored(posted(203, &lines)).status.as_u16(), 203);
    }

    #[test]
    fn a_get_with_a_body_is_not_stored() {
        let fresh = response(200, &[("cache-control", "max-age=60")]);
        let with_body = request(Method::GET, &[("content-length", "3")]);
        assert_eq!(
            refused(decide(&with_body, &fresh)),
            NotStorable::RequestBody
        );
    }

    #[test]
    fn statuses_that_are_not_final_or_answer_one_request_are_not_stored() {
        for status in [100, 101, 103, 206, 304, 412, 416, 600, 999] {
            let verdict = got(status, &[("cache-control", "max-age=60")]);
            assert_eq!(refused(verdict), NotStorable::Status, "{status}");
        }
    }

    #[test]
    fn any_other_status_is_stored_when_explicitly_fresh() {
        for status in [200, 204, 299, 301, 302, 404, 410, 500, 503, 599] {
            let verdict = got(status, &[("cache-control", "max-age=60")]);
            assert_eq!(stored(verdict).status.as_u16(), status);
        }
    }

    #[test]
    fn must_understand_refuses_statuses_that_are_not() {
        let lines = [("cache-control", "must-understand, max-age=60")];
        for status in [299, 306, 399, 407, 408, 418, 421, 426, 429, 499, 511, 599] {
            assert_eq!(refused(got(status, &lines)), NotStorable::MustUnderstand);
        }
        for status in [200, 204, 302, 308, 400, 404, 410, 422, 500, 505] {
            assert_eq!(stored(got(status, &lines)).lifetime, secs(60));
        }
    }

    #[test]
    fn must_understand_lifts_no_store_for_statuses_that_are() {
        let lines = [("cache-control", "must-understand, no-store, max-age=60")];
        assert_eq!(stored(got(200, &lines)).lifetime, secs(60));
        assert_eq!(refused(got(599, &lines)), NotStorable::MustUnderstand);
    }

    #[test]
    fn no_store_is_obeyed_in_any_case_and_place() {
        for text in ["no-store", "max-age=60, NO-STORE", "no-store=1, max-age=60"] {
            assert_eq!(refused(cached(text)), NotStorable::NoStore, "{text}");
        }
    }

    #[test]
    fn no_store_in_the_request_is_obeyed() {
        let fresh = response(200, &[("cache-control", "max-age=60")]);
        let asked = request(Method::GET, &[("cache-control", "no-store")]);
        assert_eq!(refused(decide(&asked, &fresh)), NotStorable::RequestNoStore);
    }

    #[test]
    fn private_responses_are_not_stored() {
        for text in [
            "private",
            "PRIVATE, max-age=60",
            "public, private, max-age=60",
        ] {
            assert_eq!(refused(cached(text)), NotStorable::Private, "{text}");
        }
    }

    #[test]
    fn private_fields_are_left_out_of_what_is_stored() {
        let lines = [
            ("cache-control", "private=\"x-user\", max-age=60"),
            ("x-user", "alice"),
        ];
        assert!(!stored(got(200, &lines)).headers.contains_key("x-user"));
    }

    #[test]
    fn what_cannot_be_read_is_not_stored() {
        let verdict = cached("max-age=60, x=\"no end");
        assert_eq!(refused(verdict), NotStorable::Malformed);
    }

    #[test]
    fn authorized_responses_need_permission() {
        let asked = request(Method::GET, &[("authorization", "Basic eA==")]);
        let decide = |text| decide(&asked, &response(200, &[("cache-control", text)]));
        assert_eq!(refused(decide("max-age=60")), NotStorable::Authorization);
        for text in [
            "public, max-age=60",
            "s-maxage=60",
            "must-revalidate, max-age=60",
        ] {
            assert_eq!(stored(decide(text)).lifetime, secs(60), "{text}");
        }
    }

    #[test]
    fn responses_that_set_cookies_are_stored_only_where_the_site_says_so() {
        let sets = response(
            200,
            &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
        );
        let asked = request(Method::GET, &[]);
        assert_eq!(refused(decide(&asked, &sets)), NotStorable::SetCookie);
        let policy = StorePolicy {
            set_cookie: true,
            ..StorePolicy::default()
        };
        let verdict = decide_with(&asked, &sets, BodyEnd::Framed, &policy);
        assert_eq!(stored(verdict).headers.get("set-cookie").unwrap(), "a=b");
    }

    #[test]
    fn cookies_that_the_origin_withholds_do_not_hinder_storing() {
        let lines = [
            ("cache-control", "no-cache=\"Set-Cookie\", max-age=60"),
            ("set-cookie", "a=b"),
        ];
        let stored = stored(got(200, &lines));
        assert!(!stored.headers.contains_key("set-cookie") && !stored.validate_always);
    }

    #[test]
    fn bodies_of_unknown_length_are_stored_only_where_the_site_says_so() {
        let fresh = response(200, &[("cache-control", "max-age=60")]);
        let asked = request(Method::GET, &[]);
        let policy = StorePolicy::default();
        let verdict = decide_with(&asked, &fresh, BodyEnd::Close, &policy);
        assert_eq!(refused(verdict), NotStorable::CloseDelimited);
        let policy = StorePolicy {
            close_delimited: true,
            ..policy
        };
        let verdict = decide_with(&asked, &fresh, BodyEnd::Close, &policy);
        assert_eq!(stored(verdict).lifetime, secs(60));
    }

    #[test]
    fn what_varies_by_everything_is_not_stored() {
        let lines = [
            ("cache-control", "max-age=60"),
            ("vary", "a"),
            ("vary", "*"),
        ];
        assert_eq!(refused(got(200, &lines)), NotStorable::VaryAny);
    }

    #[test]
    fn the_variant_is_that_of_the_request() {
        let lines = [
            ("cache-control", "max-age=60"),
            ("vary", "Accept-Language, a"),
        ];
        let asked = request(Method::GET, &[("accept-language", "de")]);
        let stored = stored(decide(&asked, &response(200, &lines)));
        let names = ["a", "accept-language"].map(HeaderName::from_static);
        assert_eq!(stored.vary, names);
        assert_eq!(stored.variant, VariantKey::new(&names, asked.headers()));
        assert_ne!(stored.variant, VariantKey::ONLY);
    }

    #[test]
    fn a_response_without_a_word_on_caching_is_not_stored() {
        assert_eq!(refused(got(200, &[])), NotStorable::NoFreshness);
        let tagged = got(200, &[("etag", "\"a\"")]);
        assert_eq!(refused(tagged), NotStorable::NoFreshness);
    }

    #[test]
    fn a_heuristically_fresh_response_is_stored() {
        let lines = [("last-modified", EARLY), ("date", NOON)];
        assert_eq!(stored(got(200, &lines)).lifetime, secs(3600));
        assert_eq!(refused(got(302, &lines)), NotStorable::NoFreshness);
    }

    #[test]
    fn expires_makes_any_status_storable() {
        let lines = [("expires", ONE_HOUR_LATER), ("date", NOON)];
        assert_eq!(stored(got(302, &lines)).lifetime, secs(3600));
    }

    #[test]
    fn what_is_spent_on_arrival_needs_a_validator() {
        let zero = ("cache-control", "max-age=0");
        assert_eq!(refused(got(200, &[zero])), NotStorable::NoFreshness);
        let tagged = stored(got(200, &[zero, ("etag", "\"a\"")]));
        assert_eq!(tagged.lifetime, secs(0));
        let old = [("cache-control", "max-age=60"), ("age", "60")];
        assert_eq!(refused(got(200, &old)), NotStorable::NoFreshness);
    }

    #[test]
    fn what_is_spent_on_arrival_is_kept_for_clients_that_may_accept_it() {
        let policy = StorePolicy {
            spent: true,
            ..StorePolicy::default()
        };
        let asked = request(Method::GET, &[]);
        let decide = |text| {
            let spent = response(200, &[("cache-control", text), ("age", "70")]);
            decide_with(&asked, &spent, BodyEnd::Framed, &policy)
        };
        assert_eq!(stored(decide("max-age=60")).lifetime, secs(60));
        for closed in ["max-age=60, must-revalidate", "s-maxage=60"] {
            assert_eq!(refused(decide(closed)), NotStorable::NoFreshness);
        }
        let silent = decide_with(&asked, &response(200, &[]), BodyEnd::Framed, &policy);
        assert_eq!(refused(silent), NotStorable::NoFreshness);
    }

    #[test]
    fn what_is_spent_on_arrival_may_have_a_stale_window() {
        let verdict = stored(cached("max-age=0, stale-while-revalidate=60"));
        assert_eq!(verdict.stale.while_revalidate, secs(60));
        let closed = cached("max-age=0, stale-while-revalidate=60, must-revalidate");
        assert_eq!(refused(closed), NotStorable::NoFreshness);
    }

    #[test]
    fn no_cache_with_a_validator_is_stored_and_always_validated() {
        let lines = [("cache-control", "no-cache"), ("etag", "\"a\"")];
        let stored = stored(got(200, &lines));
        assert!(stored.validate_always);
        let tag = HeaderValue::from_static("\"a\"");
        assert_eq!(stored.validators, Some(Validators::ETag(tag)));
    }

    #[test]
    fn no_cache_without_a_validator_is_not_stored() {
        assert_eq!(
            refused(cached("no-cache, max-age=60")),
            NotStorable::NoCache
        );
    }

    #[test]
    fn a_no_cache_status_must_be_storable_by_itself() {
        let lines = [("cache-control", "no-cache"), ("etag", "\"a\"")];
        assert_eq!(refused(got(302, &lines)), NotStorable::NoFreshness);
    }

    #[test]
    fn the_origin_stands_before_the_policy_on_stale_windows() {
        let policy = StorePolicy {
            stale_while_revalidate: secs(7),
            stale_if_error: secs(8),
            ..StorePolicy::default()
        };
        let asked = request(Method::GET, &[]);
        let windows = |text| {
            let response = response(200, &[("cache-control", text)]);
            stored(decide_with(&asked, &response, BodyEnd::Framed, &policy)).stale
        };
        let of_policy = StaleWindow {
            while_revalidate: secs(7),
            if_error: secs(8),
        };
        assert_eq!(windows("max-age=60"), of_policy);
        let of_origin = StaleWindow {
            while_revalidate: secs(1),
            if_error: secs(0),
        };
        let text = "max-age=60, stale-while-revalidate=1, stale-if-error=x";
        assert_eq!(windows(text), of_origin);
    }

    #[test]
    fn directives_that_forbid_staleness_are_remembered() {
        for text in [
            "must-revalidate, max-age=60",
            "proxy-revalidate, max-age=60",
            "s-maxage=60",
        ] {
            assert!(stored(cached(text)).must_revalidate, "{text}");
        }
        assert!(!stored(cached("max-age=60")).must_revalidate);
    }

    #[test]
    fn a_targeted_field_decides_alone() {
        let lines = [
            ("cache-control", "no-store"),
            ("cdn-cache-control", "max-age=60"),
        ];
        assert_eq!(stored(got(200, &lines)).lifetime, secs(60));
        let lines = [
            ("cache-control", "max-age=60"),
            ("cdn-cache-control", "no-store"),
        ];
        assert_eq!(refused(got(200, &lines)), NotStorable::NoStore);
        let lines = [("expires", ONE_HOUR_LATER), ("cdn-cache-control", "x")];
        assert_eq!(refused(got(200, &lines)), NotStorable::NoFreshness);
    }

    #[test]
    fn a_date_is_added_where_the_origin_sent_none() {
        assert_eq!(
            stored(cached("max-age=60")).headers.get("date").unwrap(),
            NOON
        );
    }

    #[test]
    fn each_reason_has_a_token_of_its_own() {
        let tokens: HashSet<_> = NotStorable::ALL.iter().map(|r| r.token()).collect();
        assert_eq!(tokens.len(), NotStorable::ALL.len());
        let kebab = |token: &str| token.bytes().all(|b| b == b'-' || b.is_ascii_lowercase());
        assert!(tokens.iter().all(|token| kebab(token)));
    }

    proptest! {
        #[test]
        fn no_response_makes_the_decision_panic(
            status in 100_u16..1000,
            lines in vec((0..NAMES.len(), any::<Vec<u8>>()), 0..8),
        ) {
            let mut parts = response(status, &[]);
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(NAMES[name], value);
                }
            }
            parts.headers = headers;
            let _verdict = decide(&request(Method::GET, &[]), &parts);
        }
    }

    const NAMES: [&str; 8] = [
        "age",
        "cache-control",
        "connection",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
    ];
}
