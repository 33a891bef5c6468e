//! Which fields belong to one hop, and which would lead an origin astray.
//!
//! [`request`](super::request) takes them off what clients send, [`stored`](super::stored) off what
//! origins answer.

use super::identity::RESERVED;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

/// Takes off every field that must not go further than this hop.
pub(super) fn take_off(headers: &mut HeaderMap) {
    let mut going = connection_options(headers);
    // No sender may name there what belongs to the message and not to the connection.
    going.retain(|name| !belongs_to_message(name.as_str()));
    going.extend(headers.keys().filter(|name| stays_here(name)).cloned());
    for name in going {
        headers.remove(name);
    }
}

/// Lists the fields that Connection names and that are there (RFC 9110 §7.6.1).
pub(super) fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // A long list of absent names must not cost memory.
        .filter(|name| headers.contains_key(name))
        .collect()
}

/// Fields that concern one connection (RFC 9110 §7.6.1) or one proxy (RFC 9111 §3.1).
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Whether a field is for this hop only, or would steer the origin past the key.
fn stays_here(name: &HeaderName) -> bool {
    let name = name.as_str();
    if name.contains('_') {
        // CGI and its heirs cannot tell `X_Original_URL` from `X-Original-URL`.
        let dashed = name.replace('_', "-");
        return ends_here(&dashed) || steers(&dashed);
    }
    ends_here(name) || steers(name)
}

/// Fields that end at this hop (RFC 9110 §7.6.1), those that `NormalRequest` says in another way,
/// and those that only make sense to whoever answers them: us.
fn ends_here(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(
            name,
            "content-length" | "expect" | "host" | "http2-settings"
        )
}

/// Fields that some origins obey before Host, target, method or the connection's own address, or
/// that promise a processing we do not do.
/// None of them is in a key, so a stored answer to one would be served to everybody.
fn steers(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with(RESERVED)
        || matches!(
            name,
            "client-cert"
                | "client-cert-chain"
                | "forwarded"
                | "front-end-https"
                | "proxy"
                | "surrogate-capability"
                | "x-forwarded"
                | "x-host"
                | "x-http-host-override"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-original-host"
                | "x-original-uri"
                | "x-original-url"
                | "x-real-ip"
                | "x-rewrite-url"
                | "x-scheme"
                | "x-script-name"
                | "x-url-scheme"
        )
}

/// Fields that stay whatever Connection says: without them the request means something else.
fn belongs_to_message(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "authorization"
            | "cache-control"
            | "cdn-loop"
            | "content-encoding"
            | "content-range"
            | "content-type"
            | "cookie"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "origin"
            | "pragma"
            | "range"
            | "via"
    )
}

/// Takes off what an origin by CGI's rules cannot tell from one of `names`: its other spellings with
/// `_` and `-`, which are in no key.
pub(super) fn take_off_lookalikes(headers: &mut HeaderMap, names: &[HeaderName]) {
    let lookalike = |name: &&HeaderName| names.iter().any(|meant| looks_like(name, meant));
    let going: Vec<HeaderName> = headers.keys().filter(lookalike).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

fn looks_like(name: &HeaderName, meant: &HeaderName) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let bytes = name.as_str().bytes().map(dashed);
    name != meant && bytes.eq(meant.as_str().bytes().map(dashed))
}

/// Joins the Cookie lines into which HTTP/2 may split one (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.len() < 2 {
        return;
    }
    // Parts of valid values joined by visible characters are a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, joined);
    }
}

pub(super) const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
