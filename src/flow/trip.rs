//! A trip to the origin that many requests share, and that none of them owns.
//!
//! ```text
//!            ┌─ 304 ─► freshened and kept ─► Landing::Stored   everybody is served from the store
//! exchange ──┼─ storable ─► Fill ──────────► Landing::Fill     everybody reads while it is written
//!            ├─ not storable ──────────────► Landing::Private  one takes it, the others go alone
//!            └─ failed ────────────────────► Landing::Failed   one tries again, the others give up
//! ```

use super::Engine;
use super::ask::Ask;
use super::fill::Fill;
use super::fill::Writer;
use super::lookup::Glance;
use super::origin::Exchange;
use super::origin::FetchError;
use super::shelf::NotKept;
use super::shelf::Stored;
use super::shelf::lock;
use super::slices::Own;
use super::slices::Slices;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::cache_status::Detail;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Fetch;
use crate::rules::part::Part;
use crate::rules::part::RangePolicy;
use crate::rules::part::SLICE_BYTES;
use crate::rules::part::as_incomplete;
use crate::rules::range::Span;
use crate::rules::storable::BodyEnd;
use crate::rules::storable::NotStorable;
use crate::rules::storable::Storable;
use crate::rules::stored::StoredResponse;
use crate::rules::stored::withheld_fields;
use crate::rules::validation::selects;
use crate::rules::validation::supersedes;
use crate::rules::validation::unconditional;
use crate::upstream::Body;
use bytes::BytesMut;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header::RANGE;
use http::response::Parts;
use http_body::Body as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::SystemTime;
use tokio::sync::watch;

/// What requests share a trip by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TripKey {
    pub(super) key: PrimaryKey,
    /// As far as it is known.
    pub(super) variant: VariantKey,
    /// It is for those whom a part does not help.
    pub(super) whole: bool,
    /// Who came when the site was served otherwise shares nothing with who comes now.
    pub(super) era: u64,
}

impl TripKey {
    /// For one slice of an incomplete response.
    pub(super) fn of_slice(key: PrimaryKey, era: u64) -> Self {
        Self {
            key,
            variant: VariantKey::ONLY,
            whole: false,
            era,
        }
    }
}

/// A trip under way, or how it ended.
#[derive(Debug)]
pub(super) struct Trip {
    number: u64,
    landing: watch::Sender<Landing>,
    private: Mutex<Option<Private>>,
    /// Fields for the one who leads, which are not in what is shared.
    withheld: Mutex<HeaderMap>,
    retried: AtomicBool,
}

/// Where a trip has come to.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    Failed(FetchError),
    Fill(Arc<Fill>, Arc<str>),
    Private,
    Stored(Stored, Arc<str>),
    Underway,
}

/// A response that only one client may have.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) backend: Arc<str>,
    pub(super) detail: Detail,
    /// What it answers.
    pub(super) fetch: Fetch,
}

/// One trip's errand.
pub(super) struct Errand {
    ask: Ask,
    /// The stale response to validate or to replace.
    stale: Option<Stored>,
    /// The sequence of a second entry for what it brings, if there is to be one.
    second: Option<Sequence>,
    fetch: Fetch,
    key: TripKey,
}

impl Trip {
    pub(super) fn new(number: u64) -> Arc<Self> {
        Arc::new(Self {
            number,
            landing: watch::Sender::new(Landing::Underway),
            private: Mutex::default(),
            withheld: Mutex::default(),
            retried: AtomicBool::new(false),
        })
    }

    /// Waits until it is known what the trip brings.
    pub(super) async fn landed(&self) -> Landing {
        let mut landing = self.landing.subscribe();
        let landed = landing
            .wait_for(|landing| !matches!(landing, Landing::Underway))
            .await;
        landed.map_or(Landing::Failed(FetchError::Abandoned), |l| l.clone())
    }

    /// Is it known already?
    pub(super) fn has_landed(&self) -> bool {
        !matches!(*self.landing.borrow(), Landing::Underway)
    }

    /// Hands the private response to the first who asks.
    pub(super) fn take_private(&self) -> Option<Private> {
        lock(&self.private).take()
    }

    /// Hands the fields that are not shared to the one who leads.
    pub(super) fn take_withheld(&self) -> HeaderMap {
        std::mem::take(&mut lock(&self.withheld))
    }

    /// Says to one of those who shared a failed trip that it may try again.
    pub(super) fn may_retry(&self) -> bool {
        !self.retried.swap(true, Ordering::Relaxed)
    }
}

impl PartialEq for Trip {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Errand {
    /// For whoever asks.
    pub(super) fn new(ask: &Ask, stale: Option<&Stored>, fetch: Fetch, key: TripKey) -> Self {
        let ask = ask.clone();
        Self {
            ask: Ask {
                request: ask.request.into_get(),
                ..ask
            },
            stale: stale.cloned(),
            second: None,
            fetch,
            key,
        }
    }
}

/// Takes the trip out of the table at its end, and lands it as failed if nothing else did.
pub(super) struct Ending {
    engine: Arc<Engine>,
    pub(super) trip: Arc<Trip>,
    pub(super) key: TripKey,
}

impl Ending {
    pub(super) fn new(engine: &Arc<Engine>, trip: Arc<Trip>, key: TripKey) -> Self {
        Self {
            engine: Arc::clone(engine),
            trip,
            key,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        lock(&self.engine.trips).finish(&self.key, &self.trip);
        self.trip.landing.send_if_modified(|landing| {
            let open = matches!(landing, Landing::Underway);
            if open {
                *landing = Landing::Failed(FetchError::Abandoned);
            }
            open
        });
    }
}

impl Engine {
    /// Makes a trip on a task of its own.
    pub(super) fn depart(self: &Arc<Self>, trip: Arc<Trip>, mut errand: Errand) {
        let by_language = errand.ask.site().key.best_language;
        // Taken before the request goes out, as the first is.
        errand.second = by_language.then(|| self.shelf.next_sequence());
        let ending = Ending::new(self, trip, errand.key);
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            engine.travel(&ending.trip, &errand).await;
            drop(ending);
        });
    }

    /// Tells those who wait. Only a fill can still be joined then: whoever comes after anything
    /// else makes a trip of its own.
    pub(super) fn land(&self, trip: &Arc<Trip>, key: &TripKey, landing: Landing) {
        let mut trips = lock(&self.trips);
        match landing {
            Landing::Fill(..) => trips.open(key, trip),
            Landing::Failed(_) | Landing::Private | Landing::Stored(..) | Landing::Underway => {
                trips.finish(key, trip);
            }
        }
        drop(trips);
        trip.landing.send_replace(landing);
    }

    async fn travel(self: &Arc<Self>, trip: &Arc<Trip>, errand: &Errand) {
        let ask = &errand.ask;
        let mut headers = self.forwarded_fields(ask);
        unconditional(&mut headers);
        let whole = headers.clone();
        // The sequence is taken before the request goes out: a purge from here on covers it.
        let sequence = self.shelf.next_sequence();
        // A purge before has taken the stale response away: then it must not come back by a 304.
        let stale = errand.stale.as_ref();
        let stale = stale.filter(|stale| self.shelf.contains(stale));
        let mut conditional = headers.clone();
        let validating = stale.and_then(|stale| stale.response.validators.as_ref());
        if let Some(validators) = validating {
            validators.condition(&mut conditional);
        }
        if let Some(range) = errand.fetch.field() {
            headers.insert(RANGE, range.clone());
            conditional.insert(RANGE, range);
        }
        let request_time = clock::now();
        let first = self.exchange(ask, &Method::GET, &conditional).await;
        let exchanged = match (first, stale) {
            (Ok(exchange), Some(stale))
                if validating.is_some()
                    && exchange.response.status() == StatusCode::NOT_MODIFIED =>
            {
                let (head, _) = exchange.response.into_parts();
                if selects(&head, &stale.response) {
                    let backend = exchange.backend;
                    *lock(&trip.withheld) = withheld_fields(&head.headers, &ask.site().store);
                    let landing = self
                        .freshened(ask, stale, &head, sequence, request_time, backend)
                        .await;
                    return self.land(trip, &errand.key, landing);
                }
                // It speaks of another response: ask for that.
                self.exchange(ask, &Method::GET, &headers).await
            }
            (Ok(exchange), _)
                if matches!(errand.fetch, Fetch::Rest(_))
                    && exchange.response.status() == StatusCode::PARTIAL_CONTENT =>
            {
                // What is stored has no strong validator, so the two cannot be combined.
                self.exchange(ask, &Method::GET, &whole).await
            }
            (first, _) => first,
        };
        match exchanged {
            Err(error) => self.land(trip, &errand.key, Landing::Failed(error)),
            Ok(exchange) => {
                let status = exchange.response.status();
                if stale.is_some_and(|stale| self.covers(ask, status, stale)) {
                    return self.land(
                        trip,
                        &errand.key,
                        Landing::Failed(FetchError::Status(status)),
                    );
                }
                self.take_in(trip, errand, exchange, sequence, request_time)
                    .await;
            }
        }
    }

    /// Keeps what a 304 made of a stored response.
    async fn freshened(
        self: &Arc<Self>,
        ask: &Ask,
        stale: &Stored,
        head: &Parts,
        sequence: Sequence,
        request_time: SystemTime,
        backend: Arc<str>,
    ) -> Landing {
        let now = clock::now();
        let mut fresh = self.freshen(ask, &stale.response, head, request_time, now);
        let own = !self.speaks_for_all(ask, &fresh.headers);
        if own {
            fresh.condemn();
        }
        let fresh = Arc::new(fresh);
        let unkept = Stored {
            response: Arc::clone(&fresh),
            ..stale.clone()
        };
        if own {
            return Landing::Stored(unkept, backend);
        }
        self.freshen_others(ask, stale.found, head, request_time, sequence)
            .await;
        if !fresh.worth_keeping(now) {
            self.shelf.remove(stale.found);
            return Landing::Stored(unkept, backend);
        }
        let kept = self.shelf.keep_head(sequence, stale, fresh).await;
        Landing::Stored(kept.unwrap_or(unkept), backend)
    }

    async fn take_in(
        self: &Arc<Self>,
        trip: &Arc<Trip>,
        errand: &Errand,
        exchange: Exchange,
        sequence: Sequence,
        request_time: SystemTime,
    ) {
        let ask = &errand.ask;
        let (head, body) = exchange.response.into_parts();
        let backend = exchange.backend;
        let Some((verdict, body)) = self
            .judge(ask, errand.fetch, &head, body, sequence, request_time)
            .await
        else {
            lock(&self.hit_for_miss).mark(ask.key, clock::now());
            return self.land(trip, &errand.key, Landing::Private);
        };
        let (detail, remember) = match verdict {
            Storable::Store(mut response) => {
                match self.refuse_size(&response, &body, Glance::Use) {
                    None => {
                        response.names = ask.names(&response.headers);
                        self.name(ask, &mut response);
                        self.note_crowd(ask, &response);
                        lock(&self.hit_for_miss).clear(ask.key);
                        *lock(&trip.withheld) = withheld_fields(&head.headers, &ask.site().store);
                        return self
                            .fill(trip, errand, *response, body, sequence, backend)
                            .await;
                    }
                    Some(detail) => (detail, detail == Detail::BodyTooLarge),
                }
            }
            Storable::Refuse(reason) => (
                Detail::NotStorable(reason),
                !reason.is_of_request()
                    && !head.status.is_server_error()
                    // It answers one request's range; the next one may be for all.
                    && head.status != StatusCode::RANGE_NOT_SATISFIABLE,
            ),
        };
        if remember {
            lock(&self.hit_for_miss).mark(ask.key, clock::now());
        }
        if let Some(stale) = errand.stale.as_ref()
            && remember
            && supersedes(head.status)
        {
            self.shelf.remove(stale.found);
        }
        *lock(&trip.private) = Some(Private {
            head,
            body,
            backend,
            detail,
            fetch: errand.fetch,
        });
        self.land(trip, &errand.key, Landing::Private);
    }

    /// Why a body is too long to be stored, if its length is known. A slice never is.
    pub(super) fn refuse_size(
        &self,
        response: &StoredResponse,
        body: &Body,
        glance: Glance,
    ) -> Option<Detail> {
        let bytes = body.length()?;
        let admits = || match glance {
            Glance::Look => self.shelf.would_admit(response.key, bytes),
            Glance::Use => self.shelf.admit(response.key, bytes),
        };
        if bytes > self.shelf.body_bytes_max(response.key) {
            Some(Detail::BodyTooLarge)
        } else if response.part.is_none() && !admits() {
            Some(Detail::FirstRequest)
        } else {
            None
        }
    }

    /// May what came be stored? `None` when it is a part that cannot be used, nor be passed on.
    pub(super) async fn judge(
        &self,
        ask: &Ask,
        fetch: Fetch,
        head: &Parts,
        body: Body,
        sequence: Sequence,
        request_time: SystemTime,
    ) -> Option<(Storable, Body)> {
        let end = BodyEnd::of(body.framed());
        let response_time = clock::now();
        let decide = |head: &Parts| {
            Storable::decide(
                ask.key,
                &ask.request,
                head,
                end,
                &ask.site().store,
                request_time,
                response_time,
            )
        };
        if head.status != StatusCode::PARTIAL_CONTENT || fetch == Fetch::Whole {
            let verdict = match decide(head) {
                Storable::Store(response) if self.leads_back(ask, head, &response) => {
                    Storable::Refuse(NotStorable::RedirectToItself)
                }
                verdict @ (Storable::Store(_) | Storable::Refuse(_)) => verdict,
            };
            return Some((verdict, body));
        }
        let (body, bytes) = self.measured(body).await?;
        let verdict = match decide(&as_incomplete(head)) {
            Storable::Store(response) => fetch.place(*response, &head.headers, bytes, sequence),
            refused @ Storable::Refuse(_) => refused,
        };
        Some((verdict, body))
    }

    async fn fill(
        self: &Arc<Self>,
        trip: &Arc<Trip>,
        errand: &Errand,
        response: StoredResponse,
        mut body: Body,
        sequence: Sequence,
        backend: Arc<str>,
    ) {
        let (fill, mut writer) = self.start_fill(sequence, response, body.length());
        let _active = Active::new(self);
        // Out of the table before the fill counts as ended.
        let _ending = Ending::new(self, Arc::clone(trip), errand.key);
        // A small body has often come with its head: then the readers get all of it at once.
        match pour_ready(&mut writer, &mut body).await {
            Pour::Failed => return self.land(trip, &errand.key, Landing::Fill(fill, backend)),
            Pour::Complete => {
                self.kept(errand, &fill, writer.finish().await).await;
                return self.land(trip, &errand.key, Landing::Fill(fill, backend));
            }
            Pour::Pending => {
                let landing = Landing::Fill(Arc::clone(&fill), backend);
                self.land(trip, &errand.key, landing);
            }
        }
        let complete = pour(&mut writer, &mut body).await;
        if writer.not_kept() == Some(NotKept::BodyTooLarge) {
            // The next one is not to push everything else out of the store again.
            lock(&self.hit_for_miss).mark(errand.ask.key, clock::now());
        }
        if complete {
            self.kept(errand, &fill, writer.finish().await).await;
        }
    }

    /// Adds to a response that was kept what belongs to it: the rest of a short one, and a second
    /// entry if the site wants one. Why a response was not kept, if so, is in the store's own counts.
    async fn kept(
        self: &Arc<Self>,
        errand: &Errand,
        fill: &Arc<Fill>,
        kept: Result<Stored, NotKept>,
    ) {
        let Ok(stored) = kept else {
            return;
        };
        self.complete_short(&errand.ask, fill);
        let Some(second) = errand.second else {
            return;
        };
        let request_headers = errand.ask.request.headers();
        if let Some(response) = stored.response.by_language(request_headers) {
            let response = Arc::new(response);
            drop(self.shelf.keep_head(second, &stored, response).await);
        }
    }

    /// The body of a 206 and its length. One that does not declare it is taken in first: without a
    /// length a part has no place. `None` when it does not come, is longer than what is asked for
    /// at a time, or there is no memory for it.
    pub(super) async fn measured(&self, mut body: Body) -> Option<(Body, u64)> {
        if let Some(bytes) = body.length() {
            return Some((body, bytes));
        }
        let bytes_max = u32::try_from(SLICE_BYTES).ok()?;
        let _permit = self.budget.try_acquire_many(bytes_max).ok()?;
        let mut taken = BytesMut::new();
        loop {
            let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            match frame.await {
                None => break,
                Some(frame) => {
                    taken.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default())
                }
            }
            if taken.len() as u64 > SLICE_BYTES {
                return None;
            }
        }
        let bytes = taken.len() as u64;
        Some((Body::bytes(taken.freeze()), bytes))
    }

    /// Starts a fill, which is kept unless the disk has failed.
    pub(super) fn start_fill(
        &self,
        sequence: Sequence,
        response: StoredResponse,
        length: Option<u64>,
    ) -> (Arc<Fill>, Writer) {
        let shelf = self.shelf.home(response.key, sequence);
        let not_kept = shelf.pass_through().map(|_| NotKept::StoreFailed);
        Fill::start(&shelf, &self.budget, sequence, response, length, not_kept)
    }

    /// Fetches the rest of a short representation of which a part has come.
    fn complete_short(self: &Arc<Self>, ask: &Ask, fill: &Arc<Fill>) {
        let short = |part: &Part| part.complete <= SHORT_BYTES_MAX;
        let Some(part) = fill.response.part.filter(short) else {
            return;
        };
        let by_size = ask.site().range_fetch == RangePolicy::BySize;
        let whole = Span::new(0, u64::MAX, part.complete).filter(|_| by_size);
        let own = Own::Fill(Arc::clone(fill));
        if let Some(slices) = whole.and_then(|whole| Slices::new(self, ask, own, whole)) {
            tokio::spawn(slices.complete());
        }
    }
}

/// Counts a fill for as long as it lasts.
pub(super) struct Active<'a>(&'a Engine);

impl<'a> Active<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        engine.fills_active.fetch_add(1, Ordering::Relaxed);
        Self(engine)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fills_active.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Pour {
    Complete,
    Failed,
    Pending,
}

/// Takes what has arrived already, at most a few frames.
async fn pour_ready(writer: &mut Writer, body: &mut Body) -> Pour {
    let mut taken = 0;
    for look in 0..READY_LOOKS {
        if look > 0 {
            // Lets the connection's own task hand over what it has read.
            tokio::task::yield_now().await;
        }
        loop {
            let frame = std::future::poll_fn(|context| {
                Poll::Ready(Pin::new(&mut *body).poll_frame(context))
            });
            match frame.await {
                Poll::Pending => break,
                Poll::Ready(None) => return Pour::Complete,
                Poll::Ready(Some(Err(_))) => return Pour::Failed,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        taken += data.len();
                        if writer.push(data).await.is_err() {
                            return Pour::Failed;
                        }
                        if taken > READY_BYTES_MAX {
                            return Pour::Pending;
                        }
                    }
                }
            }
        }
    }
    Pour::Pending
}

/// Takes the rest; `false` when it did not come whole or nobody wants it.
pub(super) async fn pour(writer: &mut Writer, body: &mut Body) -> bool {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        match frame.await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && writer.push(data).await.is_err()
                {
                    return false;
                }
            }
        }
    }
}

/// The variant of `fields` that a request selects.
pub(super) fn selects_variant(response: &StoredResponse, request_headers: &HeaderMap) -> bool {
    response.vary.is_empty() || VariantKey::new(&response.vary, request_headers) == response.variant
}

/// The longest representation that is fetched whole when a part of it is wanted (8 MiB).
const SHORT_BYTES_MAX: u64 = 8 << 20;
/// How often a fill looks for a body that came with its head before it shows the head.
const READY_LOOKS: usize = 3;
/// A body this large is shown as it comes.
const READY_BYTES_MAX: usize = 64 << 10;
