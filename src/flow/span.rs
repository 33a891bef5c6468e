//! What is told of a traced request: a span for itself, one for the look into the store, and one for each
//! exchange with a backend.
//!
//! Each is handed to the [`Sink`](super::Sink) when it has ended. An exchange may outlast the request that
//! led to it; it is told all the same.

use super::Engine;
use super::ask::Ask;
use super::report::Report;
use crate::clock;
use crate::rules::cache_status::Outcome;
use crate::rules::proxy_status::ProxyError;
use crate::rules::trace::SpanId;
use crate::rules::trace::Trace;
use http::Method;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// One step of a traced request.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace, and the span of the request.
    pub trace: Trace,
    /// Its own id; the request's for a [`Step::Request`].
    pub id: SpanId,
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What it was.
    pub step: Step,
}

/// What a span is of.
#[derive(Clone, Debug)]
pub enum Step {
    /// The request, from arrival to the last byte of its response.
    Request(Box<Report>),
    /// The look into the store.
    Lookup(Outcome),
    /// An exchange with a backend, up to the head of its response.
    Exchange {
        /// The method.
        method: Method,
        /// Whom.
        backend: Arc<str>,
        /// What came of it.
        result: Result<StatusCode, ProxyError>,
    },
}

/// A span that has begun, of a request that is told of.
pub(super) struct Begun {
    trace: Trace,
    id: SpanId,
    at: SystemTime,
    since: Instant,
}

impl Begun {
    /// Its id, for whoever is asked.
    pub(super) fn id(&self) -> SpanId {
        self.id
    }
}

impl Engine {
    /// Begins a span, if the request is traced.
    pub(super) fn begin_span(&self, ask: &Ask) -> Option<Begun> {
        let trace = ask.trace?;
        Some(Begun {
            trace,
            id: SpanId::of(&self.nonce()),
            at: clock::now(),
            since: clock::instant(),
        })
    }

    /// Tells of a span that has ended, if the request is told of.
    pub(super) fn end_span(&self, begun: Option<Begun>, step: impl FnOnce() -> Step) {
        let Some(begun) = begun.filter(|begun| begun.trace.sampled) else {
            return;
        };
        self.sink.tell(Span {
            trace: begun.trace,
            id: begun.id,
            at: begun.at,
            took: clock::instant().duration_since(begun.since),
            step: step(),
        });
    }
}
