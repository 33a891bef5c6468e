//! An incomplete response, completed slice by slice while it is read.
//!
//! ```text
//! a byte that is wanted ─┬─ in the response's own part ──► from there
//!                        ├─ in a stored slice ───────────► from there
//!                        └─ nowhere ─► a trip for what its slice lacks ─► fill ─► from there, and stored
//! ```
//!
//! Each slice is an entry of its own under a key that only its series knows: when the response is
//! purged, replaced or found changed, its slices are out of reach with it. A slice is asked for with
//! If-Range and taken only under the very same strong validator, so that bytes of two
//! representations never meet (RFC 9110 §15.3.7.3).

use super::Engine;
use super::ask::Ask;
use super::body::BodyError;
use super::body::Segments;
use super::body::Source;
use super::deliver::Share;
use super::fill::Fill;
use super::lookup::Glance;
use super::origin::FetchError;
use super::shelf::Stored;
use super::shelf::StoredBody;
use super::shelf::lock;
use super::trip::Active;
use super::trip::Ending;
use super::trip::Landing;
use super::trip::Trip;
use super::trip::TripKey;
use crate::clock;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Fetch;
use crate::rules::part::Part;
use crate::rules::part::as_incomplete;
use crate::rules::part::slice_around;
use crate::rules::part::slice_key;
use crate::rules::range::Span;
use crate::rules::range::strong_validator;
use crate::rules::storable::BodyEnd;
use crate::rules::storable::NotStorable;
use crate::rules::storable::Storable;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::supersedes;
use crate::rules::validation::unconditional;
use crate::state::collapse::Role;
use crate::state::index::Found;
use crate::state::index::Lookup;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header;
use http::response::Parts;
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::SystemTime;

/// Bytes of an incomplete response, some of which may have to be fetched.
pub(super) struct Slices {
    engine: Arc<Engine>,
    base: Arc<Base>,
    at: u64,
    last: u64,
    piece: Piece,
    /// Where the piece began.
    began: u64,
    /// A later piece that is here already, and where it begins.
    ahead: Option<(u64, Source)>,
}

/// The incomplete response.
struct Base {
    /// What asks for the rest.
    ask: Ask,
    response: Arc<StoredResponse>,
    part: Part,
    own: Own,
}

/// Where its own part is.
#[derive(Clone, Debug)]
pub(super) enum Own {
    Fill(Arc<Fill>),
    Stored(Stored),
}

/// The bytes that go next.
enum Piece {
    Due,
    Coming(Pin<Box<dyn Future<Output = Option<Source>> + Send>>),
    Here(Source),
    Lost,
}

/// How much of what a request wants of a response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of it.
    All,
    /// The rest can be had in slices.
    Some,
    /// It is no use for this request.
    None,
}

impl Slices {
    /// The bytes of `span`. `None` when the response is no part that can be completed, or not by
    /// this request.
    pub(super) fn new(engine: &Arc<Engine>, ask: &Ask, own: Own, span: Span) -> Option<Self> {
        let response = Arc::clone(own.response());
        let part = response.part.filter(|part| part.series.is_some())?;
        if !engine.may_complete(ask, &response)
            && engine
                .first_missing(&response, &[span], Glance::Use)
                .is_some()
        {
            return None;
        }
        let ask = ask.clone();
        let base = Base {
            ask: Ask {
                request: ask.request.into_get(),
                ..ask
            },
            response,
            part,
            own,
        };
        Some(Self {
            engine: Arc::clone(engine),
            base: Arc::new(base),
            at: span.first(),
            last: span.last(),
            piece: Piece::Due,
            began: span.first(),
            ahead: None,
        })
    }

    /// Gets the first bytes ahead, and the first that are not stored: a representation that has
    /// changed is found out before a byte of the old one is sent. `false` when they cannot be had.
    pub(super) async fn prime(&mut self) -> bool {
        if let Piece::Due = self.piece {
            let span = Span::new(self.at, self.last, self.base.part.complete);
            let response = &self.base.response;
            let missing =
                span.and_then(|span| self.engine.first_missing(response, &[span], Glance::Use));
            if let Some(at) = missing.filter(|at| *at > self.at) {
                let Some(source) = self.engine.piece(&self.base, at, self.last).await else {
                    return false;
                };
                self.ahead = Some((at, source));
            }
            self.piece = self.next_piece().await.map_or(Piece::Lost, Piece::Here);
        }
        match &mut self.piece {
            Piece::Here(source) => source.prime().await,
            Piece::Coming(_) | Piece::Due => true,
            Piece::Lost => false,
        }
    }

    /// Fetches everything that is not stored; nobody reads it.
    pub(super) async fn complete(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|context| self.poll_next(context)).await {}
    }

    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.piece {
                Piece::Due if self.at > self.last => return Poll::Ready(None),
                Piece::Due => {
                    self.began = self.at;
                    self.piece = match self.ahead.take() {
                        Some((at, source)) if at == self.at => Piece::Here(source),
                        ahead => {
                            self.ahead = ahead;
                            Piece::Coming(Box::pin(self.next_piece()))
                        }
                    };
                }
                Piece::Coming(coming) => {
                    let piece = ready!(coming.as_mut().poll(context));
                    self.piece = piece.map_or(Piece::Lost, Piece::Here);
                }
                Piece::Here(source) => match ready!(source.poll(context)) {
                    Some(Ok(frame)) => {
                        self.at += frame.data_ref().map_or(0, |data| data.len() as u64);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    // A piece without a byte would be asked for again and again.
                    None if self.at == self.began => self.piece = Piece::Lost,
                    None => self.piece = Piece::Due,
                },
                Piece::Lost => {
                    let error = BodyError("the rest of an incomplete response is lost".to_owned());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn next_piece(&self) -> impl Future<Output = Option<Source>> + Send + use<> {
        let (engine, base) = (Arc::clone(&self.engine), Arc::clone(&self.base));
        let (at, last) = (self.at, self.last);
        async move { engine.piece(&base, at, last).await }
    }
}

impl Own {
    pub(super) fn response(&self) -> &Arc<StoredResponse> {
        match self {
            Self::Fill(fill) => &fill.response,
            Self::Stored(stored) => &stored.response,
        }
    }

    /// The bytes of `span`, which must be among its own. `None` when a fill that is not kept has
    /// gone past them.
    pub(super) fn source(&self, span: Span) -> Option<Source> {
        let before = self.response().part.map_or(0, |part| part.span.first());
        let offset = span.first().checked_sub(before)?;
        match self {
            Self::Fill(fill) => fill
                .reader(offset, Some(span.bytes()))
                .map(|reader| Source::Fill(Box::new(reader))),
            Self::Stored(stored) => Some(match &stored.body {
                StoredBody::Memory(whole) => Source::Whole(slice(whole, offset, span.bytes())),
                StoredBody::Segments(segments, pins) => Source::Segments(Box::new(Segments::new(
                    pins.shelf(),
                    stored.found,
                    segments,
                    pins,
                    offset,
                    span.bytes(),
                ))),
            }),
        }
    }
}

impl Base {
    fn slice_key(&self, at: u64) -> Option<PrimaryKey> {
        let series = self.part.series?;
        let (key, variant) = (self.response.key, self.response.variant);
        Some(slice_key(key, variant, series, at))
    }
}

impl Engine {
    /// How much of a share of a response is stored.
    pub(super) fn reach(
        &self,
        ask: &Ask,
        response: &StoredResponse,
        share: &Share,
        glance: Glance,
    ) -> Reach {
        let Some(part) = response.part else {
            return Reach::All;
        };
        let spans = share.spans(ask, part.complete);
        // The length that HEAD and 416 tell is only sure with a series.
        let tells_length = matches!(
            share,
            Share::Whole | Share::Nothing(StatusCode::RANGE_NOT_SATISFIABLE)
        );
        if (part.series.is_some() || !tells_length) && spans.iter().all(|span| part.covers(*span)) {
            return Reach::All;
        }
        if part.series.is_none() {
            return Reach::None;
        }
        match self.first_missing(response, &spans, glance) {
            Some(_) => Reach::Some,
            None => Reach::All,
        }
    }

    /// May what the origin answers to this request be stored for others, as far as that hangs on the
    /// request? If not, a slice it asks for would be for nobody.
    fn may_complete(&self, ask: &Ask, response: &StoredResponse) -> bool {
        !ask.directives.no_store && self.speaks_for_all(ask, &response.headers)
    }

    /// The first byte of `spans` that is in no part that is stored.
    fn first_missing(
        &self,
        response: &StoredResponse,
        spans: &[Span],
        glance: Glance,
    ) -> Option<u64> {
        let part = response.part?;
        let series = part.series?;
        // Ends at the first slice that is not stored, so it is bounded by those that are. Of them
        // there may be many: each is a look of its own, so that changes of the index get in between.
        for span in spans {
            let mut at = span.first();
            while at <= span.last() {
                if part.holds(at) {
                    at = part.span.last() + 1;
                    continue;
                }
                let key = slice_key(response.key, response.variant, series, at);
                match self.sight([key], &HeaderMap::new(), glance) {
                    Lookup::Found(_) => at = slice_around(at, part.complete).last() + 1,
                    Lookup::UriMiss | Lookup::VaryMiss => return Some(at),
                }
            }
        }
        None
    }

    /// Bytes from `at` on, at most to `last`: as many as lie together.
    async fn piece(self: &Arc<Self>, base: &Arc<Base>, at: u64, last: u64) -> Option<Source> {
        if base.part.holds(at) {
            let span = Span::new(at, last.min(base.part.span.last()), base.part.complete)?;
            self.fetch_ahead(base, span.last() + 1, last);
            return base.own.source(span);
        }
        let key = base.slice_key(at)?;
        for _ in 0..LOOKS_MAX {
            let stored = self.stored_slice(key).await;
            let run = stored.as_ref().and_then(|stored| stored.response.part);
            if let (Some(stored), Some(run)) = (&stored, run)
                && run.holds(at)
            {
                let span = Span::new(at, last.min(run.span.last()), run.complete)?;
                self.fetch_ahead(base, span.last() + 1, last);
                return Own::Stored(stored.clone()).source(span);
            }
            if !self.may_complete(&base.ask, &base.response) {
                return None;
            }
            let gap = base.part.gap(at, run.map(|run| run.span));
            let (trip, leads) = self.share_slice(base, key, gap, stored);
            self.fetch_ahead(base, slice_around(at, base.part.complete).last() + 1, last);
            let fill = match trip.landed().await {
                Landing::Fill(fill, _) => fill,
                Landing::Failed(_) | Landing::Private | Landing::Stored(..) | Landing::Underway => {
                    if leads {
                        return None;
                    }
                    // What went wrong may have been the request that led.
                    continue;
                }
            };
            let run = fill.response.part.filter(|run| run.holds(at))?;
            let span = Span::new(at, last.min(run.span.last()), run.complete)?;
            let source = Own::Fill(fill).source(span);
            if source.is_some() {
                return source;
            }
        }
        None
    }

    async fn stored_slice(self: &Arc<Self>, key: PrimaryKey) -> Option<Stored> {
        match self.shelf.lookup([key], &HeaderMap::new()) {
            Lookup::Found(found) => self.shelf.load(found).await,
            Lookup::UriMiss | Lookup::VaryMiss => None,
        }
    }

    /// Has the next slice fetched while this one is read.
    fn fetch_ahead(self: &Arc<Self>, base: &Arc<Base>, at: u64, last: u64) {
        let Some(key) = base
            .slice_key(at)
            .filter(|_| at <= last && !base.part.holds(at))
            .filter(|_| self.may_complete(&base.ask, &base.response))
            // What is not kept would be fetched once more when it is read.
            .filter(|_| self.ready())
        else {
            return;
        };
        let known = self.shelf.lookup([key], &HeaderMap::new());
        if matches!(known, Lookup::UriMiss | Lookup::VaryMiss) {
            let gap = base.part.gap(at, None);
            let trip_key = TripKey::of_slice(key, base.ask.era());
            let trip = lock(&self.trips).lead(trip_key, || self.new_trip());
            if let Some(trip) = trip {
                self.depart_for_slice(trip, base, trip_key, gap, None);
            }
        }
    }

    fn share_slice(
        self: &Arc<Self>,
        base: &Arc<Base>,
        key: PrimaryKey,
        gap: Span,
        run: Option<Stored>,
    ) -> (Arc<Trip>, bool) {
        let trip_key = TripKey::of_slice(key, base.ask.era());
        let role = self.join(trip_key);
        let trip = match role {
            Role::Follower(trip) => return (trip, false),
            Role::Leader(trip) => trip,
            Role::Alone => self.new_trip(),
        };
        self.depart_for_slice(Arc::clone(&trip), base, trip_key, gap, run);
        (trip, true)
    }

    fn depart_for_slice(
        self: &Arc<Self>,
        trip: Arc<Trip>,
        base: &Arc<Base>,
        key: TripKey,
        gap: Span,
        run: Option<Stored>,
    ) {
        let ending = Ending::new(self, trip, key);
        let (engine, base) = (Arc::clone(self), Arc::clone(base));
        tokio::spawn(async move {
            let landed = engine.fetch_slice(&ending, &base, gap, run).await;
            if let Err(error) = landed {
                engine.land(&ending.trip, &ending.key, Landing::Failed(error));
            }
            drop(ending);
        });
    }

    /// Fetches `gap`, and makes one run of it and the run of its slice that is stored.
    async fn fetch_slice(
        self: &Arc<Self>,
        ending: &Ending,
        base: &Base,
        gap: Span,
        run: Option<Stored>,
    ) -> Result<(), FetchError> {
        let fetch = Fetch::Slice(gap);
        let mut headers = self.forwarded_fields(&base.ask);
        unconditional(&mut headers);
        let validator = strong_validator(&base.response).ok_or(FetchError::Abandoned)?;
        headers.extend(fetch.field().map(|range| (header::RANGE, range)));
        headers.insert(header::IF_RANGE, validator.clone());
        let sequence = self.shelf.next_sequence();
        let request_time = clock::now();
        let exchange = self.exchange(&base.ask, &Method::GET, &headers).await?;
        let status = exchange.response.status();
        let changed = || {
            self.forget_base(base);
            FetchError::Status(StatusCode::BAD_GATEWAY)
        };
        if supersedes(status) || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(changed());
        }
        if status != StatusCode::PARTIAL_CONTENT {
            // It speaks of the request or of the origin's state, not of the representation.
            return Err(FetchError::Status(status));
        }
        let (head, body) = exchange.response.into_parts();
        let (mut body, bytes) = self.measured(body).await.ok_or(FetchError::Abandoned)?;
        let (mut response, mut part) = match self.judge_slice(base, head, request_time) {
            Ok((response, headers)) => {
                let part = Part::read(&headers, bytes, None);
                // An origin that answers with everything each time is to be asked once, for
                // everything.
                let part = part.filter(|part| fetch.admits(part) && !part.is_whole());
                let part = part.filter(|part| part.complete == base.part.complete);
                (response, part.ok_or_else(changed)?)
            }
            Err(reason) if reason.is_of_request() => return Err(FetchError::Abandoned),
            Err(_) => return Err(changed()),
        };
        let coding = |response: &StoredResponse| {
            let coding = response.headers.get(header::CONTENT_ENCODING);
            coding.cloned()
        };
        if strong_validator(&response) != Some(validator)
            || coding(&response) != coding(&base.response)
        {
            return Err(changed());
        }
        let (before, after) = neighbours(run, &part);
        let first = part.span.first() - before.len() as u64;
        let last = part.span.last() + after.len() as u64;
        part.span = Span::new(first, last, part.complete).ok_or(FetchError::Abandoned)?;
        response.key = ending.key.key;
        response.variant = VariantKey::ONLY;
        response.vary = Vec::new();
        // The base says it all; a slice only has to be found.
        response.headers = HeaderMap::new();
        response.names = base.response.names.clone();
        response.part = Some(part);
        let (fill, mut writer) = self.start_fill(sequence, *response, Some(part.span.bytes()));
        let _active = Active::new(self);
        // Out of the table before the fill counts as ended.
        let _ending = Ending::new(self, Arc::clone(&ending.trip), ending.key);
        let landing = Landing::Fill(fill, exchange.backend);
        self.land(&ending.trip, &ending.key, landing);
        let poured = writer.push(before).await.is_ok()
            && super::trip::pour(&mut writer, &mut body).await
            && writer.push(after).await.is_ok();
        if poured {
            // Why it was not kept, if so, is in the store's own counts.
            drop(writer.finish().await);
        }
        Ok(())
    }

    /// May what came for a slice be stored? Then as this; also the fields it came with.
    fn judge_slice(
        &self,
        base: &Base,
        mut head: Parts,
        request_time: SystemTime,
    ) -> Result<(Box<StoredResponse>, HeaderMap), NotStorable> {
        // Nothing of its head is kept, so that cookies in it reach nobody.
        head.headers.remove(header::SET_COOKIE);
        let verdict = Storable::decide(
            base.ask.key,
            &base.ask.request,
            &as_incomplete(&head),
            BodyEnd::Framed,
            &base.ask.site().store,
            request_time,
            clock::now(),
        );
        match verdict {
            Storable::Store(response) => Ok((response, head.headers)),
            Storable::Refuse(reason) => Err(reason),
        }
    }

    /// The origin has another representation by now.
    fn forget_base(&self, base: &Base) {
        let found = match &base.own {
            Own::Stored(stored) => stored.found,
            // The series is called after the fill that began it.
            Own::Fill(fill) => Found {
                sequence: base.part.series.unwrap_or_default(),
                key: fill.response.key,
                variant: fill.response.variant,
            },
        };
        self.shelf.remove(found);
    }
}

/// The stored bytes of a slice right before and right after a part that was fetched for it.
fn neighbours(run: Option<Stored>, part: &Part) -> (Bytes, Bytes) {
    let none = (Bytes::new(), Bytes::new());
    let Some((stored, run)) = run.and_then(|run| Some((run.response.part?, run))) else {
        return none;
    };
    // A slice is one segment: it is loaded whole.
    let StoredBody::Memory(bytes) = run.body else {
        return none;
    };
    if stored.span.last() + 1 == part.span.first() {
        (bytes, Bytes::new())
    } else if part.span.last() + 1 == stored.span.first() {
        (Bytes::new(), bytes)
    } else {
        none
    }
}

/// `bytes` bytes from `offset` on, as far as there are any.
pub(super) fn slice(whole: &Bytes, offset: u64, bytes: u64) -> Bytes {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(whole.len());
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes).min(whole.len());
    whole.slice(start..end)
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices")
            .field("at", &self.at)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// How often a slice is looked for before it is given up: each look finds another's fill gone.
const LOOKS_MAX: usize = 3;
