//! A stored response, or one being filled, on its way to a client: the client's conditions,
//! ranges, Age.

use super::Engine;
use super::ask::Ask;
use super::body::Body;
use super::body::Source;
use super::fill::Fill;
use super::shelf::Stored;
use super::slices::Own;
use super::slices::Slices;
use crate::clock;
use crate::rules::part::Part;
use crate::rules::range::Selection;
use crate::rules::range::Span;
use crate::rules::range::part_head;
use crate::rules::range::parts_end;
use crate::rules::range::parts_type;
use crate::rules::range::unsatisfied_fields;
use crate::rules::stored::StoredResponse;
use crate::rules::stored::passed_fields;
use crate::rules::validation::Condition;
use crate::rules::validation::is_conditional;
use crate::rules::validation::not_modified_fields;
use crate::rules::validation::permits_part;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::response::Parts;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// What of a response a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Whole,
    Part(Span),
    Several(Vec<Span>),
    Nothing(StatusCode),
}

impl Share {
    /// The bytes it takes of a representation of `complete` bytes.
    pub(super) fn spans(&self, ask: &Ask, complete: u64) -> Vec<Span> {
        match self {
            Self::Part(span) => vec![*span],
            Self::Several(spans) => spans.clone(),
            Self::Whole if *ask.request.method() == Method::GET => {
                Span::new(0, u64::MAX, complete).into_iter().collect()
            }
            Self::Whole | Self::Nothing(_) => Vec::new(),
        }
    }

    /// The status it is answered with.
    pub(super) fn status(&self, response: &StoredResponse) -> StatusCode {
        match self {
            Self::Whole => response.status,
            Self::Part(_) | Self::Several(_) => StatusCode::PARTIAL_CONTENT,
            Self::Nothing(status) => *status,
        }
    }

    /// What a request gets of a response, by its conditions and its Range.
    pub(super) fn of(ask: &Ask, response: &StoredResponse) -> Self {
        let headers = ask.request.headers();
        match Condition::evaluate(headers, response) {
            Condition::NotModified => Self::Nothing(StatusCode::NOT_MODIFIED),
            Condition::Proceed
                if *ask.request.method() == Method::GET && response.status == StatusCode::OK =>
            {
                match Selection::evaluate(headers, response) {
                    Selection::Whole => Self::Whole,
                    Selection::Part(_) | Selection::Several(_) | Selection::Unsatisfiable
                        if !permits_part(headers, response) =>
                    {
                        Self::Whole
                    }
                    Selection::Part(span) => Self::Part(span),
                    Selection::Several(spans) => Self::Several(spans),
                    Selection::Unsatisfiable => Self::Nothing(StatusCode::RANGE_NOT_SATISFIABLE),
                }
            }
            Condition::Proceed => Self::Whole,
        }
    }
}

/// Answers from the store. `None` when it cannot: the response is a part that this share goes
/// beyond and that cannot be completed.
pub(super) fn stored(
    engine: &Arc<Engine>,
    ask: &Ask,
    stored: Stored,
    share: &Share,
    age: Duration,
) -> Option<Response<Body>> {
    let length = Some(stored.response.complete_bytes());
    let mut answer = answer(engine, ask, &Own::Stored(stored), length, share)?;
    set_age(&mut answer, age);
    Some(answer)
}

/// Answers from a fill under way. `None` when the fill cannot serve this request, or not any more.
pub(super) fn fill(
    engine: &Arc<Engine>,
    ask: &Ask,
    fill: &Arc<Fill>,
    now: SystemTime,
) -> Option<Response<Body>> {
    let response = &fill.response;
    let length = response.part.map(|part| part.complete).or(fill.length);
    let share = match length {
        Some(bytes) => share_of_fill(ask, response, bytes),
        // Ranges count from the body's length, which nobody knows.
        None => match Share::of(ask, response) {
            Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE)
            | Share::Part(_)
            | Share::Several(_) => Share::Whole,
            share @ (Share::Nothing(_) | Share::Whole) => share,
        },
    };
    let own = Own::Fill(Arc::clone(fill));
    let mut answer = answer(engine, ask, &own, length, &share)?;
    let age = response.timing.current_age(now);
    if age >= Duration::from_secs(1) {
        set_age(&mut answer, age);
    }
    Some(answer)
}

fn share_of_fill(ask: &Ask, response: &StoredResponse, bytes: u64) -> Share {
    if response.part.is_some() || !ask.request.headers().contains_key(header::RANGE) {
        return Share::of(ask, response);
    }
    let measured = StoredResponse {
        body_bytes: bytes,
        ..response.clone()
    };
    Share::of(ask, &measured)
}

/// The part of a representation that the origin answered with, as it is and in its own words.
pub(super) fn own_part(ask: &Ask, fill: &Arc<Fill>) -> Option<Response<Body>> {
    let part = fill.response.part?;
    let own = Own::Fill(Arc::clone(fill));
    let body = Body::new(own.source(part.span)?, Some(part.span.bytes()));
    let share = Share::Part(part.span);
    let mut response = head(ask, &fill.response, Some(part.complete), &share, body);
    if let Some(said) = fill.response.headers.get(header::CONTENT_RANGE) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, said.clone());
    }
    Some(response)
}

/// The bytes of a response that answer a request: none for a HEAD, and none that cannot be had.
fn answer(
    engine: &Arc<Engine>,
    ask: &Ask,
    own: &Own,
    length: Option<u64>,
    share: &Share,
) -> Option<Response<Body>> {
    let response = own.response();
    let take = |span: Span| match response.part {
        Some(part) if !part.covers(span) => {
            let slices = Slices::new(engine, ask, own.clone(), span)?;
            Some(Source::Slices(Box::new(slices)))
        }
        Some(_) | None => own.source(span),
    };
    let body = match (share, length) {
        (Share::Part(span), _) => Body::new(take(*span)?, Some(span.bytes())),
        (Share::Several(spans), Some(length)) => {
            return several(engine, ask, response, length, spans, take);
        }
        (Share::Whole, _) if *ask.request.method() == Method::GET => match own {
            Own::Fill(fill) if response.part.is_none() => match fill.whole() {
                Some(whole) => Body::whole(whole),
                None => Body::new(Source::Fill(Box::new(fill.reader(0, None)?)), fill.length),
            },
            Own::Fill(_) | Own::Stored(_) => match Span::new(0, u64::MAX, length?) {
                Some(whole) => Body::new(take(whole)?, length),
                None => Body::empty(),
            },
        },
        (Share::Nothing(_) | Share::Several(_) | Share::Whole, _) => Body::empty(),
    };
    Some(head(ask, response, length, share, body))
}

/// Several parts, one after the other (RFC 9110 §15.3.7.2).
fn several(
    engine: &Engine,
    ask: &Ask,
    stored: &StoredResponse,
    length: u64,
    spans: &[Span],
    take: impl Fn(Span) -> Option<Source>,
) -> Option<Response<Body>> {
    let boundary = engine.boundary();
    let content_type = stored.headers.get(header::CONTENT_TYPE);
    let end = parts_end(&boundary);
    let mut bytes = end.len() as u64;
    let mut sources = VecDeque::new();
    for span in spans {
        let part_head = part_head(&boundary, content_type, *span, length);
        bytes += part_head.len() as u64 + span.bytes();
        sources.push_back(Source::Whole(part_head.into()));
        sources.push_back(take(*span)?);
    }
    sources.push_back(Source::Whole(end.into()));
    let body = Body::new(Source::Chain(sources), Some(bytes));
    let share = Share::Several(Vec::new());
    let mut response = head(ask, stored, Some(length), &share, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, parts_type(&boundary));
    // "MUST NOT generate a Content-Range header field in the header section of a multipart response"
    // (RFC 9110 §15.3.7.2); what the origin sent with the whole may have one.
    headers.remove(header::CONTENT_RANGE);
    Some(response)
}

/// Passes a response of the origin's on to the one client that asked for it.
pub(super) fn private(head: &Parts, body: crate::upstream::Body) -> Response<Body> {
    let mut response = Response::new(Body::origin(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = passed_fields(&head.headers, clock::now());
    response
}

/// Passes a response of the origin's on to the client whose request brought it, while it is
/// stored. `None` when its fill can no longer be read from the start.
pub(super) fn filling(head: &Parts, fill: &Arc<Fill>) -> Option<Response<Body>> {
    let mut response = Response::new(Body::new(
        Source::Fill(Box::new(fill.reader(0, None)?)),
        fill.length,
    ));
    *response.status_mut() = head.status;
    *response.headers_mut() = passed_fields(&head.headers, clock::now());
    Some(response)
}

/// The part of a private 206 that its client asked for: the origin was asked for more. `None` when
/// it is not in there.
pub(super) fn trimmed(
    ask: &Ask,
    head: &Parts,
    body: crate::upstream::Body,
) -> Option<Response<Body>> {
    let part = Part::read(&head.headers, body.length()?, None)?;
    let mut ranges = ask.request.headers().get_all(header::RANGE).iter();
    let range = ranges.next()?;
    let Selection::Part(span) = Selection::of(range.as_bytes(), part.complete) else {
        return None;
    };
    if is_conditional(ask.request.headers()) || ranges.next().is_some() || !part.covers(span) {
        return None;
    }
    let skip = span.first() - part.span.first();
    let window = Source::Window(Box::new(body), skip, span.bytes());
    let mut response = Response::new(Body::new(window, Some(span.bytes())));
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    *headers = passed_fields(&head.headers, clock::now());
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_RANGE, span.content_range(part.complete));
    Some(response)
}

fn head(
    ask: &Ask,
    stored: &StoredResponse,
    length: Option<u64>,
    share: &Share,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = share.status(stored);
    let headers = response.headers_mut();
    *headers = match (share, length) {
        (Share::Nothing(StatusCode::NOT_MODIFIED), _) => not_modified_fields(&stored.headers),
        (Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE), Some(length)) => {
            unsatisfied_fields(&stored.headers, length)
        }
        (Share::Nothing(_) | Share::Part(_) | Share::Several(_) | Share::Whole, _) => {
            stored.headers.clone()
        }
    };
    match (share, length) {
        (Share::Part(span), Some(length)) => {
            headers.insert(header::CONTENT_RANGE, span.content_range(length));
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
pub(super) fn set_age(response: &mut Response<Body>, age: Duration) {
    let age = HeaderValue::from(age.as_secs());
    response.headers_mut().insert(header::AGE, age);
}
