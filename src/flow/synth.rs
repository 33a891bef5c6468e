//! Responses of our own: the only place where a refusal or an error becomes a status.

use super::Receipt;
use super::body::Body;
use super::origin::FetchError;
use crate::rules::cache_status::Detail;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::Refusal;
use crate::upstream::UpstreamError;
use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

/// A request that is not let in. The connection closes: what follows on it cannot be trusted.
pub(super) fn refused(refusal: Refusal) -> Response<Body> {
    let mut response = plain(refusal.status(), refusal.token());
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, ALLOW);
    }
    response
}

/// An OPTIONS that goes no further (RFC 9110 §7.6.2, §9.3.7).
pub(super) fn options() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

/// What an ACME authority asks for (RFC 8555 §8.3).
pub(super) fn proof(answer: &str) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::copy_from_slice(answer.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, OCTETS);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Clear text to a site that wants TLS: the same request again, to `url` (RFC 9110 §15.4.9).
pub(super) fn redirected(url: &str) -> Response<Body> {
    let mut response = plain(StatusCode::PERMANENT_REDIRECT, url);
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    response
}

/// A host that no site serves (RFC 9110 §15.5.20).
pub(super) fn no_site() -> Response<Body> {
    plain(StatusCode::MISDIRECTED_REQUEST, "no site serves this host")
}

/// `only-if-cached`, and nothing was (RFC 9111 §5.2.1.7).
pub(super) fn not_cached() -> Response<Body> {
    plain(StatusCode::GATEWAY_TIMEOUT, "not in the cache")
}

/// A fetch that failed.
pub(super) fn failed(error: &FetchError) -> Response<Body> {
    let mut response = plain(error.status(), error.proxy_error().token());
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A client's body that did not come, or not within its bound. The connection closes.
pub(super) fn bad_body(status: StatusCode) -> Response<Body> {
    let mut response = plain(status, "the request's body did not come as it should");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A purge that was obeyed.
pub(super) fn purged(receipt: &Receipt) -> Response<Body> {
    let id = receipt.id();
    let text = match receipt.entries {
        Some(entries) => format!("purged {entries}, receipt {id}"),
        None => format!("purged, receipt {id}"),
    };
    plain(StatusCode::OK, &text)
}

/// A purge that was not.
pub(super) fn not_purged(status: StatusCode, why: &str) -> Response<Body> {
    plain(status, why)
}

/// The `detail` that an error has in Cache-Status.
pub(super) fn detail(error: &FetchError) -> Detail {
    match error {
        FetchError::Abandoned => Detail::FillFailed,
        FetchError::NoBackend | FetchError::Upstream(UpstreamError::Saturated) => Detail::NoBackend,
        FetchError::Upstream(error) if error.timed_out() => Detail::OriginTimeout,
        FetchError::Upstream(_) if error.proxy_error() == ProxyError::HttpProtocolError => {
            Detail::OriginProtocol
        }
        FetchError::Status(_) | FetchError::Upstream(_) => Detail::OriginError,
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("");
    let line = format!("{} {reason}: {text}\n", status.as_u16());
    let mut response = Response::new(Body::whole(Bytes::from(line)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is allowed on a target is the origin's to say; this names what every target has.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
