//! A stored response, or one being filled, on its way to a client: the client's conditions,
//! ranges, Age.

use super::ask::Ask;
use super::body::Body;
use super::body::Segments;
use super::fill::Fill;
use super::shelf::Shelf;
use super::shelf::Stored;
use super::shelf::StoredBody;
use crate::rules::range::Selection;
use crate::rules::range::Span;
use crate::rules::range::unsatisfied_range;
use crate::rules::stored::StoredResponse;
use crate::rules::stored::passed_fields;
use crate::rules::validation::Condition;
use crate::rules::validation::not_modified_fields;
use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::response::Parts;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// What of a response a request gets.
enum Share {
    Whole,
    Part(Span),
    Nothing(StatusCode),
}

/// Answers from the store.
pub(super) fn stored(
    shelf: &Arc<Shelf>,
    ask: &Ask,
    stored: &Stored,
    now: SystemTime,
) -> Response<Body> {
    let response = &stored.response;
    let share = share(ask, response);
    let body = |offset: u64, bytes: u64| match &stored.body {
        StoredBody::Memory(whole) => Body::whole(slice(whole, offset, bytes)),
        StoredBody::Segments(segments, pins) => Body::segments(Segments::new(
            shelf,
            stored.found,
            segments,
            pins,
            offset,
            bytes,
        )),
    };
    let body = match &share {
        Share::Part(span) => body(span.first(), span.bytes()),
        Share::Whole if *ask.request.method() == Method::GET => body(0, response.body_bytes),
        Share::Nothing(_) | Share::Whole => Body::empty(),
    };
    let mut answer = answer(ask, response, Some(response.body_bytes), &share, body);
    set_age(&mut answer, response.timing.current_age(now));
    answer
}

/// Answers from a fill under way. `None` when the fill cannot serve this request any more.
pub(super) fn fill(ask: &Ask, fill: &Arc<Fill>, now: SystemTime) -> Option<Response<Body>> {
    let measured;
    let response = match fill.length {
        // Ranges count from the body's length.
        Some(bytes) if ask.request.headers().contains_key(header::RANGE) => {
            measured = StoredResponse {
                body_bytes: bytes,
                ..StoredResponse::clone(&fill.response)
            };
            &measured
        }
        _ => &*fill.response,
    };
    let share = match fill.length {
        None => match share(ask, response) {
            Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE) | Share::Part(_) => Share::Whole,
            share @ (Share::Nothing(_) | Share::Whole) => share,
        },
        Some(_) => share(ask, response),
    };
    let body = match &share {
        Share::Part(span) => Body::fill(
            fill.reader(span.first(), Some(span.bytes()))?,
            Some(span.bytes()),
        ),
        Share::Whole if *ask.request.method() == Method::GET => match fill.whole() {
            Some(whole) => Body::whole(whole),
            None => Body::fill(fill.reader(0, None)?, fill.length),
        },
        Share::Nothing(_) | Share::Whole => Body::empty(),
    };
    let mut answer = answer(ask, response, fill.length, &share, body);
    let age = response.timing.current_age(now);
    if age >= Duration::from_secs(1) {
        set_age(&mut answer, age);
    }
    Some(answer)
}

/// Passes a response of the origin's on to the one client that asked for it.
pub(super) fn private(head: &Parts, body: crate::upstream::Body) -> Response<Body> {
    let mut response = Response::new(Body::origin(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = passed_fields(&head.headers);
    response
}

/// Passes a response of the origin's on to the client whose request brought it, while it is
/// stored. `None` when its fill can no longer be read from the start.
pub(super) fn filling(head: &Parts, fill: &Arc<Fill>) -> Option<Response<Body>> {
    let mut response = Response::new(Body::fill(fill.reader(0, None)?, fill.length));
    *response.status_mut() = head.status;
    *response.headers_mut() = passed_fields(&head.headers);
    Some(response)
}

fn share(ask: &Ask, response: &StoredResponse) -> Share {
    let headers = ask.request.headers();
    match Condition::evaluate(headers, response) {
        Condition::NotModified => Share::Nothing(StatusCode::NOT_MODIFIED),
        Condition::PreconditionFailed => Share::Nothing(StatusCode::PRECONDITION_FAILED),
        Condition::Proceed
            if *ask.request.method() == Method::GET && response.status == StatusCode::OK =>
        {
            match Selection::evaluate(headers, response) {
                Selection::Whole => Share::Whole,
                Selection::Part(span) => Share::Part(span),
                Selection::Unsatisfiable => Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE),
            }
        }
        Condition::Proceed => Share::Whole,
    }
}

fn answer(
    ask: &Ask,
    stored: &StoredResponse,
    length: Option<u64>,
    share: &Share,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = match share {
        Share::Whole => stored.status,
        Share::Part(_) => StatusCode::PARTIAL_CONTENT,
        Share::Nothing(status) => *status,
    };
    let headers = response.headers_mut();
    *headers = match share {
        Share::Nothing(StatusCode::NOT_MODIFIED) => not_modified_fields(&stored.headers),
        Share::Nothing(_) | Share::Part(_) | Share::Whole => stored.headers.clone(),
    };
    match (share, length) {
        (Share::Part(span), Some(length)) => {
            headers.insert(header::CONTENT_RANGE, span.content_range(length));
        }
        (Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE), Some(length)) => {
            headers.insert(header::CONTENT_RANGE, unsatisfied_range(length));
        }
        (Share::Whole, Some(length)) if *ask.request.method() == Method::HEAD => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {}
    }
    response
}

/// Age is for what was not made for this request (RFC 9111 §5.1): what the store answers with, and
/// what caches nearer the origin had kept already.
fn set_age(response: &mut Response<Body>, age: Duration) {
    let age = HeaderValue::from(age.as_secs());
    response.headers_mut().insert(header::AGE, age);
}

fn slice(whole: &Bytes, offset: u64, bytes: u64) -> Bytes {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(whole.len());
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes).min(whole.len());
    whole.slice(start..end)
}
