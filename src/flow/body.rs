//! The body of a response on its way to a client, and the report that ends with it.

use super::fill::Reader;
use super::report::Report;
use super::report::Sink;
use super::shelf::Pins;
use super::shelf::Shelf;
use super::slices::Slices;
use super::tunnel::Tunnel;
use crate::clock;
use crate::rules::address::Segment;
use crate::state::index::Found;
use crate::upstream;
use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Instant;

/// A response body. Hands in its [`Report`] when it has been sent or dropped.
#[derive(Debug)]
pub struct Body {
    source: Source,
    left: Option<u64>,
    /// A failure that waits until what came before it has gone out.
    fault: Option<BodyError>,
    log: Option<Box<Log>>,
}

/// Where the bytes come from. A response is moved several times on its way out, so what is large is
/// boxed.
#[derive(Debug)]
pub(super) enum Source {
    Empty,
    /// One after the other.
    Chain(VecDeque<Self>),
    Fill(Box<Reader>),
    Origin(Box<upstream::Body>),
    Segments(Box<Segments>),
    Slices(Box<Slices>),
    /// Nothing, and then a connection.
    Tunnel(Box<Tunnel>),
    Whole(Bytes),
    /// So many bytes, behind so many others.
    Window(Box<upstream::Body>, u64, u64),
}

/// The rest of the response cannot be had; the transfer must be cut.
#[derive(Debug, thiserror::Error)]
#[error("the response body could not be completed: {0}")]
pub struct BodyError(pub(super) String);

/// Parts of a stored body, read one after the other.
#[derive(Debug)]
pub struct Segments {
    shelf: Arc<Shelf>,
    /// The entry they belong to; forgotten when one of them cannot be read.
    found: Found,
    segments: Arc<[Segment]>,
    /// Kept so that no part goes away before it is read.
    _pins: Arc<Pins>,
    next: usize,
    /// Bytes to leave out at the start.
    skip: u64,
    left: u64,
    part: Part,
}

/// The part of a stored body that goes next.
enum Part {
    Due,
    Here(Option<Bytes>),
    Reading(Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>),
}

/// What is handed in at the end.
pub(super) struct Log {
    pub(super) report: Report,
    sink: Arc<dyn Sink>,
    started: Instant,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::new(Source::Empty, Some(0))
    }

    /// These bytes.
    pub fn whole(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self::new(Source::Whole(bytes), Some(left))
    }

    /// What the origin sends, to this client only.
    pub fn origin(body: upstream::Body) -> Self {
        let left = body.length();
        Self::new(Source::Origin(Box::new(body)), left)
    }

    /// What a source brings; `left` when its length is known.
    pub(super) fn new(source: Source, left: Option<u64>) -> Self {
        Self {
            source,
            left,
            fault: None,
            log: None,
        }
    }

    /// Has the report handed to `sink` when the body ends.
    pub fn report_to(mut self, sink: Arc<dyn Sink>, report: Report, started: Instant) -> Self {
        let log = Box::new(Log {
            report,
            sink,
            started,
        });
        if let Source::Tunnel(tunnel) = &mut self.source {
            tunnel.report_to(log);
        } else {
            self.log = Some(log);
        }
        self
    }

    /// Takes out the connection that a 101 leads to, which then hands in the report.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        if !matches!(self.source, Source::Tunnel(_)) {
            return None;
        }
        let Source::Tunnel(tunnel) = std::mem::replace(&mut self.source, Source::Empty) else {
            return None;
        };
        Some(*tunnel)
    }

    /// Gets the first bytes, when they come from disk or have to be fetched. `false` when they cannot
    /// be had: nothing has been sent yet, so the response can still be another one.
    pub async fn prime(&mut self) -> bool {
        self.source.prime().await
    }

    /// How many bytes are left, when that is known.
    pub fn bytes(&self) -> Option<u64> {
        self.left
    }
}

impl Source {
    pub(super) async fn prime(&mut self) -> bool {
        match self {
            Self::Segments(segments) => segments.prime().await,
            Self::Slices(slices) => Box::pin(slices.prime()).await,
            Self::Chain(sources) => {
                for source in sources {
                    if !Box::pin(source.prime()).await {
                        return false;
                    }
                }
                true
            }
            Self::Empty
            | Self::Fill(_)
            | Self::Origin(_)
            | Self::Tunnel(_)
            | Self::Whole(_)
            | Self::Window(..) => true,
        }
    }

    /// The next frame; `None` at the end.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                let frame = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                Poll::Ready(frame)
            }
            Self::Fill(reader) => Poll::Ready(ready!(reader.poll_next(context)).map(|next| {
                next.map(Frame::data)
                    .map_err(|cut| BodyError(cut.to_string()))
            })),
            Self::Segments(segments) => {
                Poll::Ready(ready!(segments.poll_next(context)).map(|next| {
                    next.map(Frame::data)
                        .ok_or_else(|| BodyError("a stored part cannot be read".to_owned()))
                }))
            }
            Self::Slices(slices) => slices.poll_next(context),
            Self::Chain(sources) => {
                while let Some(first) = sources.front_mut() {
                    match ready!(first.poll(context)) {
                        Some(frame) => return Poll::Ready(Some(frame)),
                        None => drop(sources.pop_front()),
                    }
                }
                Poll::Ready(None)
            }
            Self::Origin(body) => Poll::Ready(ready!(poll_origin(body, context))),
            Self::Window(body, skip, left) => {
                while *left > 0 {
                    let Some(frame) = ready!(poll_origin(body, context)) else {
                        let error = BodyError("the origin sent less than it said".to_owned());
                        return Poll::Ready(Some(Err(error)));
                    };
                    let mut bytes = frame?.into_data().unwrap_or_default();
                    let skipped =
                        usize::try_from(*skip).map_or(bytes.len(), |s| s.min(bytes.len()));
                    drop(bytes.split_to(skipped));
                    *skip -= skipped as u64;
                    bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= bytes.len() as u64;
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Poll::Ready(None)
            }
        }
    }
}

fn poll_origin(
    body: &mut upstream::Body,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let frame = ready!(http_body::Body::poll_frame(Pin::new(body), context));
    Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError(error.to_string()))))
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let frame = ready!(self.source.poll(context));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(bytes);
                }
                if let Some(log) = &mut self.log {
                    log.report.body_bytes += bytes;
                }
            }
            Some(Err(_)) => {
                // hyper drops what it has not sent yet when the body fails: pausing once sends it,
                // so that the client sees a response cut short and not a lost connection.
                self.fault = frame.and_then(Result::err);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                if let Some(log) = &mut self.log {
                    log.report.complete = true;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Tunnel(_) => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Origin(body) => http_body::Body::is_end_stream(&**body),
            Source::Chain(_)
            | Source::Fill(_)
            | Source::Segments(_)
            | Source::Slices(_)
            | Source::Window(..) => self.left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(mut log) = self.log.take() {
            // hyper need not poll past the last byte of a known length.
            log.report.complete |= self.left == Some(0);
            log.hand_in();
        }
    }
}

impl Log {
    /// Hands the report in.
    pub(super) fn hand_in(mut self: Box<Self>) {
        self.report.took = clock::instant().duration_since(self.started);
        self.sink.take(self.report);
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.report.fmt(f)
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Due => "Due",
            Self::Here(_) => "Here",
            Self::Reading(_) => "Reading",
        })
    }
}

impl Segments {
    /// Reads `bytes` bytes from `offset` on.
    pub fn new(
        shelf: &Arc<Shelf>,
        found: Found,
        segments: &Arc<[Segment]>,
        pins: &Arc<Pins>,
        offset: u64,
        bytes: u64,
    ) -> Self {
        let mut skip = offset;
        let mut next = 0;
        for segment in segments.iter() {
            let length = u64::from(segment.location.bytes);
            if skip < length {
                break;
            }
            skip -= length;
            next += 1;
        }
        Self {
            shelf: Arc::clone(shelf),
            found,
            segments: Arc::clone(segments),
            _pins: Arc::clone(pins),
            next,
            skip,
            left: bytes,
            part: Part::Due,
        }
    }

    /// Reads the first part ahead; `false` when it cannot be read or fails its check.
    async fn prime(&mut self) -> bool {
        if self.left > 0 && matches!(self.part, Part::Due) {
            self.part = Part::Here(self.read_next(false).await);
        }
        !matches!(self.part, Part::Here(None))
    }

    /// `None` at the end; `Some(None)` when a part cannot be read or fails its check.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Option<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if matches!(self.part, Part::Due) {
            self.part = Part::Reading(Box::pin(self.read_next(true)));
        }
        let bytes = match &mut self.part {
            Part::Here(bytes) => bytes.take(),
            Part::Reading(reading) => ready!(reading.as_mut().poll(context)),
            Part::Due => None,
        };
        self.part = Part::Due;
        let part = bytes.and_then(|bytes| {
            let skip = usize::try_from(std::mem::take(&mut self.skip)).ok()?;
            let mut part = (skip < bytes.len()).then(|| bytes.slice(skip..))?;
            part.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= part.len() as u64;
            Some(part)
        });
        Poll::Ready(Some(part))
    }

    /// Reads the next segment, whole; forgets the entry when that fails. When the response has `begun`
    /// it is cut then, and the next one would be too: whatever the reason, the entry goes.
    fn read_next(&mut self, begun: bool) -> impl Future<Output = Option<Bytes>> + Send + use<> {
        let segment = self.segments.get(self.next).copied();
        self.next += 1;
        let (shelf, found) = (Arc::clone(&self.shelf), self.found);
        async move {
            match shelf.read_segment(segment?, begun).await {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    if begun || !error.may_pass() {
                        shelf.forget(found, &error);
                    }
                    None
                }
            }
        }
    }
}
