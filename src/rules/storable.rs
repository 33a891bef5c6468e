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
use super::key::PrimaryKey;
use super::key::VariantKey;
use super::key::Vary;
use super::request::NormalRequest;
use super::request::RequestBody;
use super::stored::StaleWindow;
use super::stored::StoredResponse;
use super::stored::kept_fields;
use http::HeaderName;
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
    /// Fields that stand before Cache-Control and Expires, first one first (RFC 9213 §2.2).
    pub targeted: Vec<HeaderName>,
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
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
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
    /// The request's method is not GET.
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
    pub const ALL: [Self; 14] = [
        Self::Authorization,
        Self::CloseDelimited,
        Self::Malformed,
        Self::Method,
        Self::MustUnderstand,
        Self::NoCache,
        Self::NoFreshness,
        Self::NoStore,
        Self::Private,
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
            Self::Authorization | Self::Method | Self::RequestBody | Self::RequestNoStore
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
        let refusal = refused_by_request(request)
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
        };
        let granted = stored.judge(&directives, policy);
        match refused_as_useless(&stored, granted) {
            Some(reason) => Self::Refuse(reason),
            None => Self::Store(Box::new(stored)),
        }
    }
}

/// "the request method is understood by the cache" (RFC 9111 §3). Only GET is: HEAD brings no
/// body, and a request body is not part of the key.
fn refused_by_request(request: &NormalRequest) -> Option<NotStorable> {
    if *request.method() != Method::GET {
        return Some(NotStorable::Method);
    }
    if request.body() != RequestBody::Empty {
        return Some(NotStorable::RequestBody);
    }
    RequestDirectives::read(request.headers())
        .no_store
        .then_some(NotStorable::RequestNoStore)
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
        || directives.max_age.is_some()
        || directives.s_maxage.is_some()
        || (response.headers.contains_key(EXPIRES) && !directives.targeted)
        || heuristically_cacheable(response.status);
    (!allowed).then_some(NotStorable::NoFreshness)
}

/// Refuses what could never be used, and what nobody gave a lifetime.
///
/// A validator alone does not do: a page without a word on caching is as likely as not a personal
/// one. `no-cache` with a validator does: the origin asked for just that.
fn refused_as_useless(stored: &StoredResponse, granted: bool) -> Option<NotStorable> {
    if stored.validate_always {
        return stored.validators.is_none().then_some(NotStorable::NoCache);
    }
    let useful = granted && stored.worth_keeping(stored.timing.response_time);
    (!useful).then_some(NotStorable::NoFreshness)
}

/// Statuses whose caching requirements are implemented here; 206 and 304 are handled apart.
fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300..=303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    )
}
