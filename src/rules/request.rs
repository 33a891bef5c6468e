//! Turns what hyper or `h2` parsed into a request the rest of the house can trust, or refuses it.
//!
//! ```text
//! Parts ─► version ─► method ─► framing ─► authority ─► target ─► fields ─► NormalRequest
//!             └───────────┴─────────┴───────────┴───────────┴───────┴─────► Refusal
//! ```
//!
//! The byte level (line ends, field syntax, chunk sizes, frames) is theirs. This file adds what they
//! leave open: exactly one valid Host and the absolute form that overrides it (RFC 9112 §3.2),
//! one way to delimit a body (RFC 9112 §6), the four forms of a target (RFC 9112 §3.2),
//! expectations (RFC 9110 §10.1.1), how far an OPTIONS may go (RFC 9110 §7.6.2), and the fields
//! that must not go further (RFC 9110 §7.6.1). A fragment is no part of a target URI (RFC 9110
//! §7.1): `http::Uri` has dropped it before anything here looks.
//!
//! Fields by which a client could steer the origin although no key contains them are taken off as
//! well: every `X-Forwarded-*`, `Forwarded`, `X-Original-URL`, `X-HTTP-Method-Override` and
//! their kin, with `_` for `-` too. What the origin should know about the client is said from the
//! connection, or by proxies that are trusted ([`forwarded`](super::forwarded)), never from the
//! client's word: `X-Forwarded-Proto` here, so that a `Vary` that names it selects by it, the rest
//! when the request is sent on.
//!
//! Which methods and addresses a site admits is asked in [`guard`](super::guard).

use super::authority::host_of;
use super::authority::normal_authority;
use super::fields::join_cookies;
use super::fields::take_off;
use super::fields::take_off_lookalikes;
use super::forwarded::X_FORWARDED_PROTO;
use super::identity::ClientName;
use super::key::KeyPolicy;
use super::upgrade;
use super::upgrade::Protocol;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use http::request::Parts;

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme's name as it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URI of this scheme means when it names none (RFC 9110 §4.2.1, §4.2.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme of an absolute URI; `None` for any but `http` and `https`.
    fn of(uri: &Uri) -> Option<Self> {
        let name = uri.scheme_str()?;
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| scheme.as_str().eq_ignore_ascii_case(name))
    }
}

/// What a TLS handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// The version, as logs have it: `TLSv1.3`.
    pub version: &'static str,
    /// The suite, in IANA's words: `TLS_AES_128_GCM_SHA256`.
    pub suite: &'static str,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Its length is not known beforehand: `Transfer-Encoding: chunked`, or an HTTP/2 stream
    /// without Content-Length. Counting it against [`Params::body_bytes_max`] is left to `flow`.
    Chunked,
    /// There is none.
    Empty,
    /// `Content-Length`, not zero.
    Length(u64),
}

/// Says that an HTTP/2 request's head ended its stream: it has no body.
///
/// The net room puts it among the request's extensions. Without it an HTTP/2 request that has no
/// Content-Length is taken to have a body, so forgetting it costs hits and is never unsafe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnded;

/// Says that a CONNECT over HTTP/2 asks for this protocol on its stream, by `:protocol` (RFC 8441 §4).
///
/// The net room puts it among the request's extensions and keeps what the client then sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedConnect(pub HeaderValue);

/// Bounds on what a request may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Longest accepted request body in bytes; a longer one is refused with 413.
    pub body_bytes_max: u64,
    /// Longest accepted request target in bytes; a longer one is refused with 414.
    pub target_bytes_max: usize,
}

/// A request after normalisation. Private fields, one constructor: to hold one is to know it passed.
#[derive(Clone, Debug)]
pub struct NormalRequest {
    method: Method,
    scheme: Scheme,
    authority: String,
    target: String,
    headers: HeaderMap,
    body: RequestBody,
    version: Version,
    close_after: bool,
    last_hop: bool,
    upgrades: Vec<HeaderValue>,
    connects: bool,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// HTTP/2 `:authority` and Host name different authorities (RFC 9113 §8.3.1).
    #[error("authority and host differ")]
    AuthorityMismatch,
    /// Content-Length is not one number, or its repeats differ (RFC 9112 §6.3).
    #[error("content-length is malformed or contradicts itself")]
    BadContentLength,
    /// Host, or the authority of an absolute target, is not `host[:port]` (RFC 9110 §7.2).
    #[error("host is malformed")]
    BadHost,
    /// Max-Forwards of an OPTIONS is not one number: it could not be counted down (RFC 9110 §7.6.2).
    #[error("max-forwards is malformed")]
    BadMaxForwards,
    /// The target is in none of the forms its method allows (RFC 9112 §3.2).
    #[error("request target is malformed")]
    BadTarget,
    /// CONNECT: this is no tunnel (RFC 9110 §9.3.6).
    #[error("connect is not allowed")]
    ConnectMethod,
    /// The declared body is longer than [`Params::body_bytes_max`].
    #[error("request content is too large")]
    ContentTooLarge,
    /// Expect asks for something other than `100-continue` (RFC 9110 §10.1.1).
    #[error("expectation is not known")]
    ExpectationUnknown,
    /// No Host and no authority in the target (RFC 9112 §3.2).
    #[error("host is missing")]
    HostMissing,
    /// More than one Host line (RFC 9112 §3.2).
    #[error("host is given more than once")]
    HostRepeated,
    /// The request has come through here too often (RFC 8586).
    #[error("the request goes in a circle")]
    LoopDetected,
    /// The connection was set up for another site than the request is for (RFC 9110 §15.5.20).
    #[error("the connection was not set up for this site")]
    MisdirectedRequest,
    /// PURGE from an address that the site does not list.
    #[error("purge is not allowed from this address")]
    PurgeMethod,
    /// The target is longer than [`Params::target_bytes_max`].
    #[error("request target is too long")]
    TargetTooLong,
    /// As many upgraded connections are open as may be.
    #[error("too many upgraded connections are open")]
    TooManyUpgrades,
    /// TRACE would show the client what stands between it and the origin (RFC 9110 §9.3.8).
    #[error("trace is not allowed")]
    TraceMethod,
    /// Transfer-Encoding is anything but exactly one `chunked` (RFC 9112 §6.1).
    #[error("transfer coding is not implemented")]
    TransferCodingUnknown,
    /// Transfer-Encoding outside HTTP/1.1 (RFC 9112 §6.1, RFC 9113 §8.2.2).
    #[error("transfer-encoding does not belong in this version")]
    TransferEncodingMisplaced,
    /// Neither HTTP/1.0, HTTP/1.1 nor HTTP/2.
    #[error("http version is not supported")]
    VersionUnsupported,
}

impl Refusal {
    /// Every refusal there is, for the tables of counters.
    pub const ALL: &'static [Self] = &[
        Self::AuthorityMismatch,
        Self::BadContentLength,
        Self::BadHost,
        Self::BadMaxForwards,
        Self::BadTarget,
        Self::ConnectMethod,
        Self::ContentTooLarge,
        Self::ExpectationUnknown,
        Self::HostMissing,
        Self::HostRepeated,
        Self::LoopDetected,
        Self::MisdirectedRequest,
        Self::PurgeMethod,
        Self::TargetTooLong,
        Self::TooManyUpgrades,
        Self::TraceMethod,
        Self::TransferCodingUnknown,
        Self::TransferEncodingMisplaced,
        Self::VersionUnsupported,
    ];

    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::AuthorityMismatch
            | Self::BadContentLength
            | Self::BadHost
            | Self::BadMaxForwards
            | Self::BadTarget
            | Self::HostMissing
            | Self::HostRepeated
            | Self::TransferEncodingMisplaced => StatusCode::BAD_REQUEST,
            Self::ConnectMethod | Self::PurgeMethod | Self::TraceMethod => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyUpgrades => StatusCode::SERVICE_UNAVAILABLE,
            Self::TransferCodingUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::VersionUnsupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The fixed word that names the reason in metrics, logs and `Cache-Status`.
    pub fn token(self) -> &'static str {
        match self {
            Self::AuthorityMismatch => "authority-mismatch",
            Self::BadContentLength => "bad-content-length",
            Self::BadHost => "bad-host",
            Self::BadMaxForwards => "bad-max-forwards",
            Self::BadTarget => "bad-target",
            Self::ConnectMethod => "connect-method",
            Self::ContentTooLarge => "content-too-large",
            Self::ExpectationUnknown => "expectation-unknown",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::LoopDetected => "loop-detected",
            Self::MisdirectedRequest => "misdirected-request",
            Self::PurgeMethod => "purge-method",
            Self::TargetTooLong => "target-too-long",
            Self::TooManyUpgrades => "too-many-upgrades",
            Self::TraceMethod => "trace-method",
            Self::TransferCodingUnknown => "transfer-coding-unknown",
            Self::TransferEncodingMisplaced => "transfer-encoding-misplaced",
            Self::VersionUnsupported => "version-unsupported",
        }
    }
}

impl NormalRequest {
    /// Normalises and checks a request head; takes hop-by-hop fields off.
    ///
    /// `scheme` is how the client reached us, or the first proxy that is trusted. An absolute target's own scheme must be `http` or
    /// `https` and does not count beyond that: a proxy in front may have ended the TLS.
    pub fn new(parts: Parts, scheme: Scheme, params: &Params) -> Result<Self, Refusal> {
        let Parts {
            mut method,
            uri,
            version,
            mut headers,
            extensions,
            ..
        } = parts;
        if ![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2].contains(&version) {
            return Err(Refusal::VersionUnsupported);
        }
        let connect = extensions.get::<ExtendedConnect>();
        if method == Method::CONNECT {
            if connect.is_none() {
                return Err(Refusal::ConnectMethod);
            }
            // What it asks for in HTTP/1.1 (RFC 8441 §5).
            method = Method::GET;
        }
        // What comes on such a stream is no body.
        let stream_ended = connect.is_some() || extensions.get::<StreamEnded>().is_some();
        let framing = Framing::read(&headers, version, stream_ended)?;
        if matches!(framing.body, RequestBody::Length(bytes) if bytes > params.body_bytes_max) {
            return Err(Refusal::ContentTooLarge);
        }
        let authority = request_authority(&uri, &headers, version, scheme)?;
        let target = request_target(&uri, &method, params.target_bytes_max)?;
        check_expectation(&headers)?;
        let upgrades = match connect {
            Some(ExtendedConnect(protocol)) if framing.body == RequestBody::Empty => {
                vec![protocol.clone()]
            }
            Some(_) => Vec::new(),
            None => upgrade::asked(&method, version, framing.body, &headers),
        };
        let connects = connect.is_some();
        take_off(&mut headers);
        let last_hop = method == Method::OPTIONS && count_hop(&mut headers)?;
        if version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
        Ok(Self {
            method,
            scheme,
            authority,
            target,
            headers,
            body: framing.body,
            version,
            close_after: framing.close_after,
            last_hop,
            upgrades,
            connects,
        })
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request for the whole of what this one, a HEAD, asks the head of.
    #[must_use]
    pub fn into_get(self) -> Self {
        Self {
            method: Method::GET,
            ..self
        }
    }

    /// The request with no more in its target and authority than counts in its key, so that the
    /// origin cannot answer to what no key contains. What may change things keeps both as they are.
    /// Either goes without what looks like the site's selecting fields and is none.
    #[must_use]
    pub fn reduced(mut self, policy: &KeyPolicy) -> Self {
        take_off_lookalikes(&mut self.headers, &policy.selecting);
        if !self.cacheable() {
            return self;
        }
        let reduced = policy.query.reduce(&self.target);
        if reduced != self.target.as_str() {
            self.target = reduced.into_owned();
        }
        let host = policy.authority(&self.authority).len();
        self.authority.truncate(host);
        self
    }

    /// Tells the origin who the client is, in the fields that clients cannot write themselves.
    #[must_use]
    pub fn from_client(mut self, name: &ClientName) -> Self {
        for (field, value) in name.fields() {
            self.headers.insert(field, value.clone());
        }
        self
    }

    /// The URL of the same target by `https` at `port`.
    pub fn https_url(&self, port: u16) -> String {
        let host = self.host();
        let target = self.target.trim_start_matches('*');
        match port == Scheme::Https.default_port() {
            true => format!("https://{host}{target}"),
            false => format!("https://{host}:{port}{target}"),
        }
    }

    /// Whether all of its target and authority counts in its key. What answers a request of which
    /// some does not, and which went to the origin as it is, answers nobody else.
    pub fn counts_whole(&self, policy: &KeyPolicy) -> bool {
        policy.query.reduce(&self.target) == self.target.as_str()
            && policy.authority(&self.authority) == self.authority.as_str()
    }

    /// How the client reached us.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host in lower case, and the port unless it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The authority without its port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    /// Path and query exactly as they will be forwarded; `*` for `OPTIONS *`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The target URI (RFC 9110 §7.1), as [`parse_url`] reads it.
    pub fn url(&self) -> String {
        let scheme = self.scheme.as_str();
        let target = self.target.trim_start_matches('*');
        format!("{scheme}://{}{target}", self.authority)
    }

    /// End-to-end fields, repeats kept, and an `X-Forwarded-Proto` of our own.
    ///
    /// Host, Content-Length, Transfer-Encoding and Expect are not among them:
    /// [`authority`](Self::authority) and [`body`](Self::body) say what the first three said, and
    /// the net room answers the last.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How the body is delimited.
    pub fn body(&self) -> RequestBody {
        self.body
    }

    /// The version of HTTP that the client speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The connection must be closed after the response: the request carried both
    /// Transfer-Encoding and Content-Length, so what follows cannot be trusted (RFC 9112 §6.1).
    pub fn close_after(&self) -> bool {
        self.close_after
    }

    /// An OPTIONS that must go no further: Max-Forwards is 0 (RFC 9110 §7.6.2).
    pub fn last_hop(&self) -> bool {
        self.last_hop
    }

    /// The protocol to ask the origin for, when the client wants one that is among `allowed`.
    pub fn upgrade<'p>(&self, allowed: &'p [Protocol]) -> Option<&'p Protocol> {
        upgrade::choose(&self.upgrades, allowed)
    }

    /// A CONNECT that asks for another protocol on its stream of HTTP/2; its method is GET here.
    pub fn connects(&self) -> bool {
        self.connects
    }

    /// May be answered from the store at all: GET or HEAD without a body (RFC 9111 §3, §4).
    ///
    /// A body with a GET has no meaning but may steer the origin, and it is in no key.
    pub fn cacheable(&self) -> bool {
        self.body == RequestBody::Empty
            && (self.method == Method::GET || self.method == Method::HEAD)
    }
}

/// Splits an absolute URL into scheme, authority and target, normalised as a request for it is.
///
/// A fragment is dropped. The URL is bounded by the 65,534 bytes that `http::Uri` takes.
pub fn parse_url(url: &str) -> Result<(Scheme, String, String), Refusal> {
    let uri: Uri = url.parse().map_err(|_| Refusal::BadTarget)?;
    let scheme = Scheme::of(&uri).ok_or(Refusal::BadTarget)?;
    let authority = uri.authority().ok_or(Refusal::HostMissing)?;
    let authority = normal_authority(authority.as_str().as_bytes(), scheme)?;
    let target = request_target(&uri, &Method::GET, usize::MAX)?;
    Ok((scheme, authority, target))
}

/// What delimits a request's body, and whether the connection can be trusted afterwards.
struct Framing {
    body: RequestBody,
    close_after: bool,
}

impl Framing {
    /// Reads Transfer-Encoding and Content-Length (RFC 9112 §6.3).
    fn read(headers: &HeaderMap, version: Version, stream_ended: bool) -> Result<Self, Refusal> {
        let length = content_length(headers)?;
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            if version != Version::HTTP_11 {
                return Err(Refusal::TransferEncodingMisplaced);
            }
            let coding = coding.as_bytes().trim_ascii();
            if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::TransferCodingUnknown);
            }
            return Ok(Self {
                body: RequestBody::Chunked,
                close_after: length.is_some(),
            });
        }
        let body = match length {
            Some(0) => RequestBody::Empty,
            Some(bytes) => RequestBody::Length(bytes),
            None if version == Version::HTTP_2 && !stream_ended => RequestBody::Chunked,
            None => RequestBody::Empty,
        };
        Ok(Self {
            body,
            close_after: false,
        })
    }
}

/// Reads every Content-Length; equal repeats, as lines or in a list, count as one.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut length = None;
    for line in headers.get_all(header::CONTENT_LENGTH) {
        for member in line.as_bytes().split(|byte| *byte == b',') {
            let bytes = decimal(member.trim_ascii()).ok_or(Refusal::BadContentLength)?;
            if length.replace(bytes).is_some_and(|before| before != bytes) {
                return Err(Refusal::BadContentLength);
            }
        }
    }
    Ok(length)
}

/// Reads `1*DIGIT` that fits in 64 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Finds the request's authority: the absolute target's, else Host (RFC 9112 §3.2.2, §3.3).
fn request_authority(
    uri: &Uri,
    headers: &HeaderMap,
    version: Version,
    scheme: Scheme,
) -> Result<String, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    // An absolute target overrides Host, yet a bad Host is refused all the same (RFC 9112 §3.2).
    let host = match hosts.next() {
        Some(host) => Some(normal_authority(host.as_bytes(), scheme)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Refusal::HostRepeated);
    }
    let Some(named) = uri.authority() else {
        return host.ok_or(Refusal::HostMissing);
    };
    let named = normal_authority(named.as_str().as_bytes(), scheme)?;
    match host {
        None if version == Version::HTTP_11 => Err(Refusal::HostMissing),
        Some(host) if version == Version::HTTP_2 && host != named => {
            Err(Refusal::AuthorityMismatch)
        }
        _ => Ok(named),
    }
}

/// Reads path and query from an origin-form or absolute-form target, or `*` (RFC 9112 §3.2).
fn request_target(uri: &Uri, method: &Method, bytes_max: usize) -> Result<String, Refusal> {
    let absolute = uri.scheme_str().is_some();
    if absolute && Scheme::of(uri).is_none() {
        return Err(Refusal::BadTarget);
    }
    // The authority form, which only CONNECT may use, has no path.
    let target = uri
        .path_and_query()
        .map(http::uri::PathAndQuery::as_str)
        .ok_or(Refusal::BadTarget)?;
    if target.len() > bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Refusal::BadTarget);
    }
    match target.as_bytes().first() {
        // An absolute target without a path asks about the server as a whole (RFC 9112 §3.2.4).
        // `http::Uri` gives it the path `/`, so one that ends in a slash is read the same.
        Some(b'/') if absolute && target == "/" && method == Method::OPTIONS => Ok("*".to_owned()),
        Some(b'/') => Ok(target.to_owned()),
        // An absolute URI may have a query and no path; its path is `/` (RFC 9112 §3.2.1).
        Some(b'?') if absolute => Ok(format!("/{target}")),
        Some(b'*') if target == "*" && method == Method::OPTIONS => Ok(target.to_owned()),
        _ => Err(Refusal::BadTarget),
    }
}

/// Accepts no expectation but `100-continue`, which the net room answers (RFC 9110 §10.1.1).
fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let known = |line: &HeaderValue| {
        let line = line.as_bytes().trim_ascii();
        line.eq_ignore_ascii_case(b"100-continue")
    };
    if headers.get_all(header::EXPECT).iter().all(known) {
        Ok(())
    } else {
        Err(Refusal::ExpectationUnknown)
    }
}

/// Counts Max-Forwards down; answers whether it was 0, so that the request goes no further
/// (RFC 9110 §7.6.2). Requests without the field go as far as they like.
fn count_hop(headers: &mut HeaderMap) -> Result<bool, Refusal> {
    let mut lines = headers.get_all(header::MAX_FORWARDS).iter();
    let Some(line) = lines.next() else {
        return Ok(false);
    };
    let digits = line.as_bytes();
    if lines.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadMaxForwards);
    }
    // What does not fit in 64 bits is more than the most that is sent on.
    let left = decimal(digits).unwrap_or(u64::MAX);
    let next = left.saturating_sub(1).min(MAX_FORWARDS_MAX);
    headers.insert(header::MAX_FORWARDS, HeaderValue::from(next));
    Ok(left == 0)
}

/// The largest Max-Forwards that is sent on.
const MAX_FORWARDS_MAX: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use http::Request;
    use proptest::prelude::*;

    const PARAMS: Params = Params {
        body_bytes_max: 1000,
        target_bytes_max: 100,
    };

    /// A request head: `GET /a`, with `Host: a.test` unless a field says otherwise.
    struct Head {
        method: &'static str,
        target: String,
        version: Version,
        fields: Vec<(&'static str, String)>,
        stream_ended: bool,
    }

    fn get(target: impl Into<String>) -> Head {
        Head {
            method: "GET",
            target: target.into(),
            version: Version::HTTP_11,
            fields: vec![("host", "a.test".to_owned())],
            stream_ended: false,
        }
    }

    impl Head {
        fn method(mut self, method: &'static str) -> Self {
            self.method = method;
            self
        }
        fn version(mut self, version: Version) -> Self {
            self.version = version;
            self
        }
        fn without_host(mut self) -> Self {
            self.fields.clear();
            self
        }
        fn host(self, host: &str) -> Self {
            self.without_host().field("host", host)
        }
        fn field(mut self, name: &'static str, value: &str) -> Self {
            self.fields.push((name, value.to_owned()));
            self
        }
        fn parts(self) -> Parts {
            let mut request = Request::builder()
                .method(self.method)
                .uri(self.target)
                .version(self.version);
            for (name, value) in self.fields {
                request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            if self.stream_ended {
                request = request.extension(StreamEnded);
            }
            request.body(()).unwrap().into_parts().0
        }
        fn over(self, scheme: Scheme) -> Result<NormalRequest, Refusal> {
            NormalRequest::new(self.parts(), scheme, &PARAMS)
        }
        fn passes(self) -> NormalRequest {
            self.over(Scheme::Http).unwrap()
        }
        fn refused(self) -> Refusal {
            self.over(Scheme::Http).unwrap_err()
        }
    }

    #[test]
    fn a_reduced_request_has_no_more_than_its_key() {
        let mut policy = KeyPolicy {
            port: false,
            ..KeyPolicy::default()
        };
        policy.query.drop = vec!["u".to_owned()];
        let reduced = get("/a?u=1&b").host("a.test:1").passes().reduced(&policy);
        assert_eq!((reduced.target(), reduced.authority()), ("/a?b", "a.test"));
        let post = get("/a?u=1&b").host("a.test:1").method("POST");
        let post = post.passes().reduced(&policy);
        assert_eq!((post.target(), post.authority()), ("/a?u=1&b", "a.test:1"));
    }

    /// The names of the fields that came from the client.
    fn of_client(request: &NormalRequest) -> Vec<&HeaderName> {
        let names = request.headers().keys();
        names.filter(|name| *name != X_FORWARDED_PROTO).collect()
    }

    #[test]
    fn the_scheme_is_told_by_the_connection_and_not_by_the_client() {
        for scheme in [Scheme::Http, Scheme::Https] {
            let lied = get("/").field("x-forwarded-proto", "evil");
            let request = lied.over(scheme).unwrap();
            let told: Vec<_> = request
                .headers()
                .get_all(X_FORWARDED_PROTO)
                .iter()
                .collect();
            assert_eq!(told, [scheme.as_str()]);
        }
    }

    #[test]
    fn a_plain_get_passes_with_its_target_untouched() {
        let request = get("/a/../b%2F?q=1;r").passes();
        assert_eq!(request.target(), "/a/../b%2F?q=1;r");
    }

    #[test]
    fn http_3_is_refused() {
        let refusal = get("/").version(Version::HTTP_3).refused();
        assert_eq!(refusal, Refusal::VersionUnsupported);
    }

    #[test]
    fn http_0_9_is_refused() {
        let refusal = get("/").version(Version::HTTP_09).refused();
        assert_eq!(refusal, Refusal::VersionUnsupported);
    }

    #[test]
    fn connect_is_refused() {
        let refusal = get("a.test:443").method("CONNECT").refused();
        assert_eq!(refusal, Refusal::ConnectMethod);
    }

    #[test]
    fn a_connect_for_a_protocol_asks_for_that_protocol_alone() {
        let head = get("http://a.test/live").without_host().method("CONNECT");
        let mut parts = head.version(Version::HTTP_2).parts();
        let websocket = HeaderValue::from_static("websocket");
        parts.extensions.insert(ExtendedConnect(websocket));
        let request = NormalRequest::new(parts, Scheme::Http, &PARAMS).unwrap();
        assert!(request.connects());
        assert_eq!(
            (request.method(), request.target()),
            (&Method::GET, "/live")
        );
        assert_eq!(request.body(), RequestBody::Empty);
        let of = |name| request.upgrade(&[Protocol::new(name).unwrap()]).is_some();
        assert!(of("websocket") && !of("other"));
    }

    #[test]
    fn an_unknown_method_passes() {
        assert_eq!(get("/").method("BREW").passes().method(), "BREW");
    }

    #[test]
    fn an_options_for_an_absolute_target_without_a_path_is_for_the_server() {
        let request = get("http://a.test").method("OPTIONS").passes();
        assert_eq!(request.target(), "*");
        let request = get("http://a.test?q").method("OPTIONS").passes();
        assert_eq!(request.target(), "/?q");
        assert_eq!(get("http://a.test").passes().target(), "/");
        assert_eq!(get("/").method("OPTIONS").passes().target(), "/");
    }

    #[test]
    fn a_fragment_goes_no_further() {
        assert_eq!(get("/a#b").passes().target(), "/a");
        assert_eq!(get("http://a.test/a?q#b").passes().target(), "/a?q");
    }

    #[test]
    fn max_forwards_of_an_options_is_counted_down() {
        for (received, sent) in [
            ("1", "0"),
            ("10", "9"),
            ("007", "6"),
            ("99999999999999999999999", "4294967295"),
        ] {
            let request = get("/a").method("OPTIONS").field("max-forwards", received);
            let request = request.passes();
            assert!(!request.last_hop());
            assert_eq!(request.headers()[header::MAX_FORWARDS], sent);
        }
    }

    #[test]
    fn an_options_without_hops_left_goes_no_further() {
        let request = get("/a").method("OPTIONS").field("max-forwards", "0");
        assert!(request.passes().last_hop());
        let request = get("/a").method("OPTIONS").field("max-forwards", "00");
        assert!(request.passes().last_hop());
        assert!(!get("/a").method("OPTIONS").passes().last_hop());
    }

    #[test]
    fn a_max_forwards_that_cannot_be_counted_down_is_refused() {
        for value in ["", "-1", "+1", "1.0", "0x1", "1, 2", "many"] {
            let request = get("/a").method("OPTIONS").field("max-forwards", value);
            assert_eq!(request.refused(), Refusal::BadMaxForwards, "{value:?}");
        }
        let twice = get("/a").method("OPTIONS").field("max-forwards", "1");
        let twice = twice.field("max-forwards", "1");
        assert_eq!(twice.refused(), Refusal::BadMaxForwards);
    }

    #[test]
    fn max_forwards_of_other_methods_means_nothing() {
        for value in ["0", "5", "many"] {
            let request = get("/a").field("max-forwards", value).passes();
            assert!(!request.last_hop());
            assert_eq!(request.headers()[header::MAX_FORWARDS], value);
        }
    }

    #[test]
    fn a_missing_host_is_refused() {
        assert_eq!(get("/").without_host().refused(), Refusal::HostMissing);
    }

    #[test]
    fn a_missing_host_is_refused_with_an_absolute_target_too() {
        let refusal = get("http://a.test/").without_host().refused();
        assert_eq!(refusal, Refusal::HostMissing);
    }

    #[test]
    fn a_missing_host_is_refused_in_http_1_0() {
        let head = get("/").without_host().version(Version::HTTP_10);
        assert_eq!(head.refused(), Refusal::HostMissing);
    }

    #[test]
    fn http_1_0_may_name_its_authority_in_the_target_alone() {
        let head = get("http://b.test/").without_host();
        let request = head.version(Version::HTTP_10).passes();
        assert_eq!(request.authority(), "b.test");
    }

    #[test]
    fn two_host_lines_are_refused() {
        let refusal = get("/").field("host", "b.test").refused();
        assert_eq!(refusal, Refusal::HostRepeated);
    }

    #[test]
    fn two_equal_host_lines_are_refused() {
        let refusal = get("/").field("host", "a.test").refused();
        assert_eq!(refusal, Refusal::HostRepeated);
    }

    #[test]
    fn two_host_lines_are_refused_in_http_1_0() {
        let head = get("/").field("host", "b.test").version(Version::HTTP_10);
        assert_eq!(head.refused(), Refusal::HostRepeated);
    }

    #[test]
    fn an_absolute_target_overrides_host() {
        let request = get("http://b.test/x").passes();
        assert_eq!((request.authority(), request.target()), ("b.test", "/x"));
    }

    #[test]
    fn an_absolute_target_does_not_excuse_a_malformed_host() {
        let refusal = get("http://b.test/").host("a b").refused();
        assert_eq!(refusal, Refusal::BadHost);
    }

    #[test]
    fn an_absolute_target_with_user_information_is_refused() {
        assert_eq!(get("http://u@b.test/").refused(), Refusal::BadHost);
    }

    #[test]
    fn an_absolute_target_without_a_path_means_the_root() {
        assert_eq!(get("http://b.test").passes().target(), "/");
    }

    #[test]
    fn an_absolute_target_with_only_a_query_gets_the_root_path() {
        assert_eq!(get("http://b.test?q").passes().target(), "/?q");
    }

    #[test]
    fn an_absolute_target_of_another_scheme_is_refused() {
        assert_eq!(get("ftp://a.test/").refused(), Refusal::BadTarget);
    }

    #[test]
    fn the_authority_form_is_refused() {
        assert_eq!(get("a.test:80").refused(), Refusal::BadTarget);
    }

    #[test]
    fn the_asterisk_is_for_options() {
        assert_eq!(get("*").method("OPTIONS").passes().target(), "*");
    }

    #[test]
    fn the_asterisk_is_refused_for_other_methods() {
        assert_eq!(get("*").refused(), Refusal::BadTarget);
    }

    #[test]
    fn a_target_at_the_limit_passes() {
        let target = format!("/{}", "a".repeat(99));
        assert_eq!(get(target.as_str()).passes().target(), target);
    }

    #[test]
    fn a_target_over_the_limit_is_refused() {
        let target = format!("/{}", "a".repeat(100));
        assert_eq!(get(target).refused(), Refusal::TargetTooLong);
    }

    #[test]
    fn host_comes_out_in_lower_case() {
        assert_eq!(get("/").host("A.Test").passes().authority(), "a.test");
    }

    #[test]
    fn the_schemes_own_port_is_dropped() {
        assert_eq!(get("/").host("a.test:80").passes().authority(), "a.test");
    }

    #[test]
    fn the_other_schemes_port_is_kept() {
        let request = get("/").host("a.test:80").over(Scheme::Https).unwrap();
        assert_eq!(request.authority(), "a.test:80");
    }

    #[test]
    fn an_empty_port_is_dropped() {
        assert_eq!(get("/").host("a.test:").passes().authority(), "a.test");
    }

    #[test]
    fn zeros_in_front_of_a_port_are_dropped() {
        let request = get("/").host("a.test:008080").passes();
        assert_eq!(request.authority(), "a.test:8080");
    }

    #[test]
    fn host_without_its_port_is_the_host() {
        assert_eq!(get("/").host("a.test:8080").passes().host(), "a.test");
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets() {
        let request = get("/").host("[2001:DB8:0::1]:8080").passes();
        assert_eq!(request.host(), "[2001:db8::1]");
    }

    #[test]
    fn an_ipv6_host_without_a_port_is_whole() {
        assert_eq!(get("/").host("[::1]").passes().host(), "[::1]");
    }

    #[test]
    fn malformed_hosts_are_refused() {
        for host in [
            "",
            ":80",
            "a b",
            "a\tb",
            "u@a.test",
            "a.test/",
            "a.test?",
            "a.test#",
            "a\\b",
            "a.test:x",
            "a.test:-1",
            "a.test:+80",
            "a.test:65536",
            "a.test:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[a.test]",
            "[fe80::1%25eth0]",
            "a]:80",
            "a%4",
            "a%zz",
            "<a>",
            "\u{e9}.test",
        ] {
            assert_eq!(get("/").host(host).refused(), Refusal::BadHost, "{host:?}");
        }
    }

    #[test]
    fn a_host_over_255_bytes_is_refused() {
        let host = "a".repeat(256);
        assert_eq!(get("/").host(&host).refused(), Refusal::BadHost);
    }

    #[test]
    fn http_2_needs_no_host() {
        let head = get("http://a.test/").without_host();
        assert_eq!(head.version(Version::HTTP_2).passes().authority(), "a.test");
    }

    #[test]
    fn http_2_may_name_its_authority_in_host_alone() {
        let head = get("/").version(Version::HTTP_2);
        assert_eq!(head.passes().authority(), "a.test");
    }

    #[test]
    fn http_2_with_a_contradicting_host_is_refused() {
        let head = get("http://b.test/").version(Version::HTTP_2);
        assert_eq!(head.refused(), Refusal::AuthorityMismatch);
    }

    #[test]
    fn a_request_without_framing_has_no_body() {
        assert_eq!(get("/").passes().body(), RequestBody::Empty);
    }

    #[test]
    fn a_content_length_delimits_the_body() {
        let request = get("/").method("POST").field("content-length", "5");
        assert_eq!(request.passes().body(), RequestBody::Length(5));
    }

    #[test]
    fn a_content_length_of_zero_is_no_body() {
        let request = get("/").field("content-length", "0").passes();
        assert_eq!(request.body(), RequestBody::Empty);
    }

    #[test]
    fn equal_content_lengths_count_as_one() {
        let head = get("/").field("content-length", "5, 05");
        let request = head.field("content-length", "5").passes();
        assert_eq!(request.body(), RequestBody::Length(5));
    }

    #[test]
    fn contradicting_content_lengths_are_refused() {
        let head = get("/").field("content-length", "5");
        let refusal = head.field("content-length", "6").refused();
        assert_eq!(refusal, Refusal::BadContentLength);
    }

    #[test]
    fn malformed_content_lengths_are_refused() {
        for value in [
            "",
            "5, 6",
            "5,",
            "+5",
            "-5",
            "0x5",
            "\"5\"",
            "5 5",
            "18446744073709551616",
        ] {
            let refusal = get("/").field("content-length", value).refused();
            assert_eq!(refusal, Refusal::BadContentLength, "{value:?}");
        }
    }

    #[test]
    fn a_body_at_the_limit_passes() {
        let request = get("/").field("content-length", "1000").passes();
        assert_eq!(request.body(), RequestBody::Length(1000));
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        let refusal = get("/").field("content-length", "1001").refused();
        assert_eq!(refusal, Refusal::ContentTooLarge);
    }

    #[test]
    fn chunked_delimits_the_body_whatever_its_case() {
        let request = get("/").field("transfer-encoding", "Chunked").passes();
        assert_eq!(request.body(), RequestBody::Chunked);
    }

    #[test]
    fn any_other_transfer_coding_is_refused() {
        for coding in [
            "",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "chunked, identity",
            "chun ked",
            "xchunked",
            "chunked;q=1",
            "\"chunked\"",
        ] {
            let refusal = get("/").field("transfer-encoding", coding).refused();
            assert_eq!(refusal, Refusal::TransferCodingUnknown, "{coding:?}");
        }
    }

    #[test]
    fn two_transfer_encoding_lines_are_refused() {
        let head = get("/").field("transfer-encoding", "chunked");
        let refusal = head.field("transfer-encoding", "chunked").refused();
        assert_eq!(refusal, Refusal::TransferCodingUnknown);
    }

    #[test]
    fn transfer_encoding_is_refused_in_http_1_0() {
        let head = get("/").field("transfer-encoding", "chunked");
        let refusal = head.version(Version::HTTP_10).refused();
        assert_eq!(refusal, Refusal::TransferEncodingMisplaced);
    }

    #[test]
    fn transfer_encoding_is_refused_in_http_2() {
        let head = get("/").field("transfer-encoding", "chunked");
        let refusal = head.version(Version::HTTP_2).refused();
        assert_eq!(refusal, Refusal::TransferEncodingMisplaced);
    }

    #[test]
    fn chunked_wins_over_content_length() {
        let head = get("/").field("transfer-encoding", "chunked");
        let request = head.field("content-length", "5").passes();
        assert_eq!(request.body(), RequestBody::Chunked);
    }

    #[test]
    fn chunked_beside_content_length_closes_the_connection() {
        let head = get("/").field("transfer-encoding", "chunked");
        assert!(head.field("content-length", "5").passes().close_after());
    }

    #[test]
    fn chunked_alone_keeps_the_connection() {
        let request = get("/").field("transfer-encoding", "chunked").passes();
        assert!(!request.close_after());
    }

    #[test]
    fn an_http_2_stream_that_goes_on_has_a_body() {
        let request = get("/").version(Version::HTTP_2).passes();
        assert_eq!(request.body(), RequestBody::Chunked);
    }

    #[test]
    fn an_http_2_stream_that_ended_has_no_body() {
        let mut head = get("/").version(Version::HTTP_2);
        head.stream_ended = true;
        assert_eq!(head.passes().body(), RequestBody::Empty);
    }

    #[test]
    fn expecting_100_continue_passes_and_is_not_forwarded() {
        let request = get("/").field("expect", "100-Continue").passes();
        assert!(!request.headers().contains_key("expect"));
    }

    #[test]
    fn expecting_anything_else_is_refused() {
        let refusal = get("/").field("expect", "a-pony").refused();
        assert_eq!(refusal, Refusal::ExpectationUnknown);
    }

    #[test]
    fn fields_of_the_hop_are_taken_off() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
        ] {
            let request = get("/").field(name, "x").passes();
            assert!(of_client(&request).is_empty(), "{name}");
        }
    }

    #[test]
    fn host_is_not_among_the_fields() {
        assert!(of_client(&get("/").passes()).is_empty());
    }

    #[test]
    fn framing_is_not_among_the_fields() {
        let request = get("/").field("content-length", "5").passes();
        assert!(of_client(&request).is_empty());
    }

    #[test]
    fn fields_that_connection_names_are_taken_off() {
        let head = get("/").field("connection", "close, X-Hop");
        let request = head.field("x-hop", "1").passes();
        assert!(of_client(&request).is_empty());
    }

    #[test]
    fn connection_cannot_name_the_host_away() {
        let request = get("/").field("connection", "Host").passes();
        assert_eq!(request.authority(), "a.test");
    }

    #[test]
    fn connection_cannot_name_the_framing_away() {
        let head = get("/").field("connection", "Content-Length");
        let request = head.field("content-length", "5").passes();
        assert_eq!(request.body(), RequestBody::Length(5));
    }

    #[test]
    fn connection_cannot_name_the_messages_own_fields_away() {
        let head = get("/").field("connection", "cache-control, cookie");
        let head = head.field("cache-control", "no-store");
        let request = head.field("cookie", "a=1").passes();
        assert_eq!(of_client(&request).len(), 2);
    }

    #[test]
    fn fields_that_steer_the_origin_are_taken_off() {
        for name in [
            "forwarded",
            "proxy",
            "x-forwarded-anything",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "x-original-uri",
            "x-original-url",
            "x-rewrite-url",
            "x-scheme",
            "x-script-name",
            "x-url-scheme",
        ] {
            let request = get("/").field(name, "evil").passes();
            assert!(of_client(&request).is_empty(), "{name}");
        }
    }

    #[test]
    fn underscores_do_not_bring_steering_fields_back() {
        let request = get("/").field("x_forwarded_host", "evil").passes();
        assert!(of_client(&request).is_empty());
    }

    #[test]
    fn repeated_fields_stay_repeated() {
        let head = get("/").field("accept", "a").field("accept", "b");
        assert_eq!(head.passes().headers().get_all("accept").iter().count(), 2);
    }

    #[test]
    fn cookie_lines_of_http_2_become_one() {
        let head = get("/").version(Version::HTTP_2).field("cookie", "a=1");
        let request = head.field("cookie", "b=2").passes();
        assert_eq!(request.headers()["cookie"], "a=1; b=2");
    }

    #[test]
    fn get_and_head_may_be_answered_from_the_store() {
        assert!(get("/").passes().cacheable());
        assert!(get("/").method("HEAD").passes().cacheable());
    }

    #[test]
    fn other_methods_may_not() {
        assert!(!get("/").method("POST").passes().cacheable());
        assert!(!get("/").method("get").passes().cacheable());
    }

    #[test]
    fn a_get_with_a_body_may_not() {
        assert!(!get("/").field("content-length", "5").passes().cacheable());
        let chunked = get("/").field("transfer-encoding", "chunked");
        assert!(!chunked.passes().cacheable());
    }

    #[test]
    fn a_url_is_split_and_normalised_like_a_request() {
        let (scheme, authority, target) = parse_url("HTTPS://A.Test:443/x?y#z").unwrap();
        assert_eq!(scheme, Scheme::Https);
        assert_eq!((authority.as_str(), target.as_str()), ("a.test", "/x?y"));
    }

    #[test]
    fn what_is_no_absolute_http_url_is_refused() {
        for url in [
            "",
            "/x",
            "a.test",
            "a.test/x",
            "ftp://a.test/",
            "http://",
            "http:///x",
        ] {
            assert_eq!(parse_url(url), Err(Refusal::BadTarget), "{url:?}");
        }
    }

    #[test]
    fn a_url_with_user_information_is_refused() {
        assert_eq!(parse_url("http://u:p@a.test/"), Err(Refusal::BadHost));
    }

    #[test]
    fn every_refusal_is_an_error_with_a_word_of_its_own() {
        let mut words: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.token()).collect();
        assert!(words.is_sorted());
        words.dedup();
        assert_eq!(words.len(), Refusal::ALL.len());
        assert!(Refusal::ALL.iter().all(
            |refusal| refusal.status().is_client_error() || refusal.status().is_server_error()
        ));
    }

    proptest! {
        #[test]
        fn any_number_of_hops_is_one_less_further_on(hops: u64) {
            let request = get("/").method("OPTIONS").field("max-forwards", &hops.to_string());
            let request = request.passes();
            let sent = hops.saturating_sub(1).min(MAX_FORWARDS_MAX);
            prop_assert_eq!(&request.headers()[header::MAX_FORWARDS], &sent.to_string());
            prop_assert_eq!(request.last_hop(), hops == 0);
        }

        #[test]
        fn an_accepted_host_is_clean_and_normal_already(host in "[ -~]{0,30}") {
            if let Ok(normal) = normal_authority(host.as_bytes(), Scheme::Http) {
                prop_assert!(!normal.contains(['@', ' ', '/', '?', '#', '\\']));
                prop_assert_eq!(normal_authority(normal.as_bytes(), Scheme::Http), Ok(normal));
            }
        }

        #[test]
        fn no_bytes_in_a_host_make_it_panic(host in proptest::collection::vec(any::<u8>(), 0..40)) {
            drop(normal_authority(&host, Scheme::Https));
        }

        #[test]
        fn a_url_made_of_a_parsed_url_parses_to_the_same(url in "https?://[a-z.:0-9]{1,12}[!-~]{0,20}") {
            if let Ok((scheme, authority, target)) = parse_url(&url) {
                let again = format!("{}://{authority}{target}", scheme.as_str());
                prop_assert_eq!(parse_url(&again), Ok((scheme, authority, target)));
            }
        }
    }
}
