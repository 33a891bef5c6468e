//! A request that may be answered from the store: hit, or what the origin must be asked for.
//!
//! ```text
//! look up ─┬─ fresh ──────────────► serve
//!          ├─ stale, in its window ► serve, and validate behind the client's back
//!          └─ stale, or nothing ──► share a trip ─┬─ fill or freshened ─► serve
//!                                                 ├─ not for sharing ───► pass
//!                                                 └─ failed ─► stale-if-error, once more, or error
//! ```

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::deliver;
use super::deliver::Share;
use super::fill::Fill;
use super::fill::Progress;
use super::origin::FetchError;
use super::shelf::NotKept;
use super::shelf::Stored;
use super::shelf::lock;
use super::slices::Reach;
use super::span::Step;
use super::synth;
use super::trip::Errand;
use super::trip::Landing;
use super::trip::Trip;
use super::trip::TripKey;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use crate::rules::cache_status::ttl_seconds;
use crate::rules::freshness::Freshness;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Fetch;
use crate::rules::part::Part;
use crate::rules::proxy_status::ProxyError;
use crate::rules::reuse::NotReusable;
use crate::rules::reuse::Reuse;
use crate::rules::reuse::Weighed;
use crate::rules::storable::NotStorable;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::is_conditional;
use crate::state::collapse::Role;
use crate::state::index::Found;
use crate::state::index::Lookup;
use crate::state::marks::Verdict;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http::header::RANGE;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the store has for a request.
pub(super) enum Finding {
    /// Nothing that could answer it.
    Nothing(Forward),
    /// This, and what was found out about it; `soft` where a soft purge made it stale.
    Stored {
        stored: Stored,
        weighed: Weighed,
        soft: bool,
    },
}

/// What is done about what the store has.
pub(super) enum Next {
    /// The origin is asked.
    Ask(Asking),
    /// It is served.
    Serve(Served),
    /// It is served, and validated behind the client's back.
    ServeAndValidate(Served),
}

/// What is served from the store.
pub(super) struct Served {
    pub(super) stored: Stored,
    /// How old it is (RFC 9111 §4.2.3).
    pub(super) age: Duration,
    /// What that is called.
    pub(super) outcome: Outcome,
}

/// Why the origin is asked.
pub(super) struct Asking {
    pub(super) forward: Forward,
    /// Where that goes not without saying.
    pub(super) detail: Option<Detail>,
    /// What can be validated, or stand in for an error.
    pub(super) stale: Option<Stored>,
}

/// How the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approach {
    /// For this request alone, for this reason; nothing of it is stored.
    Alone(Detail),
    /// As the client asks it, for the head of what is stored.
    Head,
    /// Not at all: the client does not want that.
    Not,
    /// In a trip that all who want the same share.
    Share,
}

/// Whether what is found counts as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// It is only looked at: nothing changes.
    Look,
    /// It is used.
    Use,
}

impl Finding {
    /// What is done about it.
    pub(super) fn next(self) -> Next {
        let (stored, weighed, soft) = match self {
            Self::Nothing(forward) => return Next::Ask(Asking::new(forward)),
            Self::Stored {
                stored,
                weighed,
                soft,
            } => (stored, weighed, soft),
        };
        // That goes before what it comes to: it would be fresh, if it were not for the purge.
        let soft = soft.then_some(Detail::SoftPurged);
        let served = |stored, ttl| Served {
            stored,
            age: weighed.current_age,
            outcome: Outcome {
                hit: true,
                ttl: Some(ttl),
                detail: soft.or(weighed.basis.detail()),
                ..Outcome::default()
            },
        };
        match weighed.reuse(&stored.response) {
            Reuse::Serve { ttl } => Next::Serve(served(stored, ttl_seconds(ttl))),
            Reuse::ServeStaleAndValidate { stale_by } => {
                Next::ServeAndValidate(served(stored, -ttl_seconds(stale_by)))
            }
            Reuse::Validate { .. } | Reuse::Forward { .. } if stored.response.is_by_language() => {
                Next::Ask(Asking::new(Forward::VaryMiss))
            }
            Reuse::Validate { .. } | Reuse::Forward { .. } => {
                let forward = match weighed.freshness {
                    Freshness::Fresh { .. } => Forward::Request,
                    Freshness::Stale { .. } => Forward::Stale,
                };
                let detail = weighed.basis.detail();
                // That is what `fwd=stale` says.
                let detail = detail.filter(|d| *d != Detail::NotReusable(NotReusable::Expired));
                Next::Ask(Asking {
                    forward,
                    detail: soft.or(detail),
                    stale: Some(stored),
                })
            }
        }
    }
}

impl Asking {
    pub(super) fn new(forward: Forward) -> Self {
        Self {
            forward,
            detail: None,
            stale: None,
        }
    }
}

/// Why the origin must be asked, for what, and what there is to validate.
struct Need {
    forward: Forward,
    detail: Option<Detail>,
    stale: Option<Stored>,
    fetch: Fetch,
    /// Shares only what helps those whom a part does not help.
    whole: bool,
    /// Which entry was found in the store.
    seen: Option<Sequence>,
}

/// What came of a shared trip.
enum Shared {
    Answer(Box<Answer>),
    /// Nothing for this request: share another trip, by these fields.
    Again(Vec<HeaderName>),
    /// A part that does not help this request: share a trip for everything.
    Whole,
    /// The store has something else than when this request looked.
    Changed,
}

impl Shared {
    fn answer(answer: Answer) -> Self {
        Self::Answer(Box::new(answer))
    }

    /// With fields that are for this request alone.
    fn with(mut self, fields: HeaderMap) -> Self {
        if let Self::Answer(answer) = &mut self {
            answer.response.headers_mut().extend(fields);
        }
        self
    }
}

impl Engine {
    /// Answers a request that may be answered from the store.
    pub(super) async fn serve(self: &Arc<Self>, ask: Box<Ask>) -> Answer {
        let span = self.begin_span(&ask);
        let looked = self.look_up(&ask).await;
        self.end_span(span, || {
            Step::Lookup(match &looked {
                Ok(answer) => answer.outcome,
                Err(need) => Outcome {
                    fwd: Some(need.forward),
                    ..Outcome::default()
                },
            })
        });
        match looked {
            Ok(answer) => answer,
            // Apart, so that a hit does not carry the room a miss needs.
            Err(need) => Box::pin(self.ask_origin(ask, need)).await,
        }
    }

    /// Answers with what the origin is asked for.
    async fn ask_origin(self: &Arc<Self>, ask: Box<Ask>, mut need: Need) -> Answer {
        let outcome = Outcome {
            fwd: Some(need.forward),
            detail: need.detail,
            ..Outcome::default()
        };
        let alone = |detail| Outcome {
            detail: Some(detail),
            ..outcome
        };
        let stale = need.stale.as_ref().map(|stale| &*stale.response);
        match self.approach(&ask, stale) {
            Approach::Alone(detail) => return self.pass(ask, alone(detail)).await,
            Approach::Head => {
                if let Some(stale) = need.stale.take() {
                    return self.head(ask, stale, outcome).await;
                }
            }
            Approach::Not => {
                return Answer {
                    error: Some(ProxyError::ProxyInternalResponse),
                    ..Answer::new(synth::not_cached(), not_asked())
                };
            }
            Approach::Share => {}
        }
        let (mut key, mut vary) = (ask.shared_key(), self.known_vary(&ask));
        for _ in 0..TRIPS_MAX {
            match self.share_trip(&ask, &need, key, &vary).await {
                Shared::Answer(answer) => return *answer,
                // What others brought was not for this target: from here on by its own key.
                Shared::Again(fields) => (key, vary) = (ask.key, fields),
                Shared::Whole => {
                    need.fetch = Fetch::Whole;
                    need.whole = true;
                }
                Shared::Changed => match self.look_up(&ask).await {
                    Ok(answer) => return answer,
                    Err(other) => need = other,
                },
            }
        }
        self.pass(ask, alone(Detail::CollapseFull)).await
    }

    /// How the origin is asked for a request for which this is stored, if anything.
    pub(super) fn approach(&self, ask: &Ask, stale: Option<&StoredResponse>) -> Approach {
        if ask.directives.only_if_cached {
            return Approach::Not;
        }
        if ask.directives.no_store {
            return Approach::Alone(Detail::NotStorable(NotStorable::RequestNoStore));
        }
        let head = *ask.request.method() == Method::HEAD;
        let is_miss = || lock(&self.hit_for_miss).contains(ask.key, clock::now());
        match stale {
            Some(stale) if head && stale.validators.is_none() => Approach::Head,
            None if head => Approach::Alone(Detail::NotStorable(NotStorable::Method)),
            None if is_miss() => Approach::Alone(Detail::HitForMiss),
            Some(_) | None => Approach::Share,
        }
    }

    /// Answers from the store, or says what is needed.
    async fn look_up(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Need> {
        let seen = self.sight(ask.keys(), ask.request.headers(), Glance::Use);
        let answer = self.answer_with(ask, seen).await;
        answer.map_err(|need| Need {
            seen: seen.sequence(),
            ..need
        })
    }

    /// Answers with what was found in the store, if it does.
    async fn answer_with(self: &Arc<Self>, ask: &Ask, seen: Lookup) -> Result<Answer, Need> {
        match self.find(ask, seen, Glance::Use).await.next() {
            Next::Serve(served) => self.serve_stored(ask, served).await,
            Next::ServeAndValidate(served) => {
                self.validate_behind(ask, &served.stored);
                self.serve_stored(ask, served).await
            }
            Next::Ask(asking) => Err(Need {
                detail: asking.detail,
                ..self.need(ask, asking.forward, asking.stale, None)
            }),
        }
    }

    /// Loads what was found in the store for a request, and finds out what it may do.
    pub(super) async fn find(&self, ask: &Ask, seen: Lookup, glance: Glance) -> Finding {
        let found = match seen {
            Lookup::Found(found) => found,
            Lookup::UriMiss => return Finding::Nothing(Forward::UriMiss),
            Lookup::VaryMiss => return Finding::Nothing(Forward::VaryMiss),
        };
        let Some(stored) = self.load(found, glance).await else {
            return Finding::Nothing(Forward::Miss);
        };
        let stored = self.or_newer(ask, stored, glance).await;
        let client = ask.site().client_cache_control;
        let weighed = Weighed::new(&stored.response, &ask.directives, client, clock::now());
        // Marks are looked at again only where one may be the reason.
        let soft = matches!(weighed.freshness, Freshness::Stale { .. })
            && self.shelf.covers(stored.found.sequence, &stored.response);
        Finding::Stored {
            stored,
            weighed,
            soft,
        }
    }

    /// Looks for an entry for one of `keys`.
    pub(super) fn sight(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        headers: &HeaderMap,
        glance: Glance,
    ) -> Lookup {
        match glance {
            Glance::Look => self.shelf.peek(keys, headers, false),
            Glance::Use => self.shelf.lookup(keys, headers),
        }
    }

    async fn load(&self, found: Found, glance: Glance) -> Option<Stored> {
        match glance {
            Glance::Use => self.shelf.load(found).await,
            Glance::Look => {
                let (stored, verdict) = self.shelf.view(found).await?;
                (verdict != Verdict::Gone).then_some(stored)
            }
        }
    }

    /// A response with `Vary` goes before a newer one without for as long as it is fresh. After that
    /// the newer one counts: the origin may have stopped to vary.
    async fn or_newer(&self, ask: &Ask, stored: Stored, glance: Glance) -> Stored {
        if stored.response.vary.is_empty() || !is_stale(&stored.response) {
            return stored;
        }
        let headers = ask.request.headers();
        let newest = match glance {
            Glance::Look => self.shelf.peek(ask.keys(), headers, true),
            Glance::Use => self.shelf.lookup_newest(ask.keys(), headers),
        };
        match newest {
            Lookup::Found(newest) if newest != stored.found => {
                self.load(newest, glance).await.unwrap_or(stored)
            }
            Lookup::Found(_) | Lookup::UriMiss | Lookup::VaryMiss => stored,
        }
    }

    /// What is needed; `known` is a part that does not do.
    fn need(
        &self,
        ask: &Ask,
        forward: Forward,
        stale: Option<Stored>,
        known: Option<&Part>,
    ) -> Need {
        let fetch = fetch_for(ask, known);
        Need {
            forward,
            detail: None,
            stale,
            fetch,
            whole: false,
            seen: None,
        }
    }

    /// Answers from the store; when the body turns out unreadable before anything was sent, it is a
    /// miss after all.
    async fn serve_stored(self: &Arc<Self>, ask: &Ask, served: Served) -> Result<Answer, Need> {
        let Served {
            stored,
            age,
            outcome,
        } = served;
        let share = Share::of(ask, &stored.response);
        let (part, bytes) = (stored.response.part, stored.response.body_bytes);
        let partial = || Err(self.need(ask, Forward::Partial, None, part.as_ref()));
        let outcome = match self.reach(ask, &stored.response, &share, Glance::Use) {
            Reach::All => outcome,
            Reach::Some if !ask.directives.only_if_cached => Outcome {
                hit: false,
                fwd: Some(Forward::Partial),
                stored: self.ready(),
                ..outcome
            },
            Reach::Some | Reach::None => return partial(),
        };
        let Some(mut response) = deliver::stored(self, ask, stored, &share, age) else {
            // This request cannot have it completed: it is answered as if nothing were stored.
            return Err(self.need(ask, Forward::Partial, None, None));
        };
        if response.body_mut().prime().await {
            return Ok(Answer::new(response, outcome).with_stored_bytes(bytes));
        }
        Err(self.need(ask, Forward::Miss, None, None))
    }

    /// Validates a stale response that has been served; nobody waits.
    fn validate_behind(self: &Arc<Self>, ask: &Ask, stored: &Stored) {
        if ask.directives.no_store {
            // Nothing that comes of this request may be stored; the next one will do it.
            return;
        }
        let key = TripKey {
            key: ask.shared_key(),
            variant: stored.response.variant,
            whole: false,
            era: ask.era(),
        };
        let trip = {
            let mut trips = lock(&self.trips);
            // Else somebody has just validated it.
            let still = self.shelf.contains(stored);
            still.then(|| trips.lead(key, || self.new_trip())).flatten()
        };
        if let Some(trip) = trip {
            let fetch = self.need(ask, Forward::Stale, None, None).fetch;
            let errand = Errand::new(ask, Some(stored), fetch, key);
            self.depart(trip, errand);
        }
    }

    /// Gives a request its part in a trip, unless the store has something else for it now than when
    /// it looked: a trip ends after what it brought is stored, so whoever sees neither makes the first.
    fn join_as_seen(
        &self,
        ask: &Ask,
        need: &Need,
        key: TripKey,
        by_itself: bool,
    ) -> Option<Role<Arc<Trip>>> {
        let mut trips = lock(&self.trips);
        let as_seen = match &need.stale {
            Some(stale) => self.shelf.contains(stale),
            None => {
                let now = self.shelf.lookup(ask.keys(), ask.request.headers());
                now.sequence().is_none_or(|now| need.seen == Some(now))
            }
        };
        as_seen.then(|| match by_itself {
            true => Role::Leader(self.new_trip()),
            false => trips.join(key, || self.new_trip()),
        })
    }

    pub(super) fn join(&self, key: TripKey) -> Role<Arc<Trip>> {
        lock(&self.trips).join(key, || self.new_trip())
    }

    pub(super) fn new_trip(&self) -> Arc<Trip> {
        Trip::new(self.trip_number.fetch_add(1, Ordering::Relaxed))
    }

    async fn share_trip(
        self: &Arc<Self>,
        ask: &Ask,
        need: &Need,
        key: PrimaryKey,
        vary: &[HeaderName],
    ) -> Shared {
        let key = TripKey {
            key,
            variant: VariantKey::new(vary, ask.request.headers()),
            whole: need.whole,
            era: ask.era(),
        };
        let stale = need.stale.as_ref();
        let by_itself = stale.is_some_and(|stale| {
            !is_for_many(&stale.response)
                || lock(&self.hit_for_miss).contains(ask.key, clock::now())
        });
        // Where the answer is not likely to be for others nobody waits for it.
        let Some(role) = self.join_as_seen(ask, need, key, by_itself) else {
            return Shared::Changed;
        };
        let (trip, leads) = match role {
            Role::Alone => {
                let outcome = Outcome {
                    fwd: Some(need.forward),
                    detail: Some(Detail::CollapseFull),
                    ..Outcome::default()
                };
                return Shared::answer(self.pass(Box::new(ask.clone()), outcome).await);
            }
            Role::Follower(trip) => (trip, false),
            Role::Leader(trip) => {
                let errand = Errand::new(ask, need.stale.as_ref(), need.fetch, key);
                self.depart(Arc::clone(&trip), errand);
                (trip, true)
            }
        };
        let outcome = Outcome {
            fwd: Some(need.forward),
            collapsed: !leads,
            detail: need.detail,
            ..Outcome::default()
        };
        let waits = !trip.has_landed();
        let may_have = |response| leads || self.may_share(ask, response, waits);
        let withheld = || match leads {
            true => trip.take_withheld(),
            false => HeaderMap::new(),
        };
        let landing = trip.landed().await;
        if !leads && self.is_invalidated(&landing) {
            lock(&self.trips).finish(&key, &trip);
            return Shared::Again(vary.to_vec());
        }
        match landing {
            Landing::Failed(error) => self.after_failure(ask, need, &trip, leads, &error, outcome),
            Landing::Fill(fill, backend) if may_have(&fill.response) => {
                let verbatim = leads && need.fetch.is_verbatim();
                self.serve_fill(ask, &fill, backend, (leads || waits, verbatim), outcome)
                    .await
                    .with(withheld())
            }
            Landing::Stored(stored, backend) if may_have(&stored.response) => self
                .serve_freshened(ask, stored, backend, outcome)
                .await
                .with(withheld()),
            Landing::Private | Landing::Fill(..) | Landing::Stored(..) => {
                Shared::answer(self.serve_private(ask, &trip, leads, outcome).await)
            }
            // Never seen: `landed` waits for one of the others.
            Landing::Underway => Shared::Again(vary.to_vec()),
        }
    }

    /// Has what a trip brought been purged since, by one of its names, or softly? Then it is for nobody
    /// who may have come after that.
    fn is_invalidated(&self, landing: &Landing) -> bool {
        match landing {
            Landing::Fill(fill, _) => self.shelf.covers(fill.sequence, &fill.response),
            Landing::Stored(stored, _) => {
                self.shelf.covers(stored.found.sequence, &stored.response)
            }
            Landing::Failed(_) | Landing::Private | Landing::Underway => false,
        }
    }

    /// May one who did not lead a trip have what it brought? (RFC 9111 §4) One who waited for it
    /// may, if it is ever used without a question; one who came later, if it may be used now.
    fn may_share(&self, ask: &Ask, response: &StoredResponse, waited: bool) -> bool {
        if waited && is_for_many(response) {
            return true;
        }
        let client = ask.site().client_cache_control;
        matches!(
            Reuse::decide(response, &ask.directives, client, clock::now()),
            Reuse::Serve { .. } | Reuse::ServeStaleAndValidate { .. }
        )
    }

    /// `waited`: it was there before the fill; `verbatim`: its own words were answered.
    async fn serve_fill(
        self: &Arc<Self>,
        ask: &Ask,
        fill: &Arc<Fill>,
        backend: Arc<str>,
        (waited, verbatim): (bool, bool),
        outcome: Outcome,
    ) -> Shared {
        if !self.answers(ask, &fill.response) {
            return Shared::Again(fill.response.vary.clone());
        }
        let now = clock::now();
        let share = Share::of(ask, &fill.response);
        let reach = self.reach(ask, &fill.response, &share, Glance::Use);
        let partial = fill.response.part.is_some();
        let odd = verbatim && partial && fill.response.headers.contains_key(CONTENT_RANGE);
        let response = match deliver::fill(self, ask, fill, now).filter(|_| !odd) {
            Some(mut response) => response.body_mut().prime().await.then_some(response),
            None if verbatim => deliver::own_part(ask, fill),
            None => None,
        };
        let Some(mut response) = response else {
            return match fill.response.part {
                Some(_) => Shared::Whole,
                None => Shared::Again(fill.response.vary.clone()),
            };
        };
        if outcome.collapsed {
            // It was made for another's request (RFC 9111 §4, §5.1).
            deliver::set_age(&mut response, fill.response.timing.current_age(now));
        }
        let late = !waited && matches!(fill.progress(), Progress::Complete(_));
        let came = match fill.response.part {
            Some(_) => StatusCode::PARTIAL_CONTENT,
            None => fill.response.status,
        };
        let outcome = Outcome {
            fwd_status: Some(came).filter(|came| *came != response.status()),
            stored: fill.not_kept.is_none(),
            detail: fill.not_kept.map(not_kept).or(outcome.detail),
            ttl: Some(remaining(&fill.response)),
            ..outcome
        };
        // Complete before this request came to it: that is a hit in all but name.
        let outcome = match (late && outcome.stored, reach) {
            (true, Reach::All) => Outcome {
                hit: true,
                fwd: None,
                fwd_status: None,
                stored: false,
                collapsed: false,
                detail: None,
                ..outcome
            },
            (true, Reach::Some | Reach::None) => Outcome {
                fwd: Some(Forward::Partial),
                collapsed: false,
                ..outcome
            },
            (false, _) => outcome,
        };
        Shared::answer(Answer::new(response, outcome).by(backend))
    }

    async fn serve_freshened(
        self: &Arc<Self>,
        ask: &Ask,
        stored: Stored,
        backend: Arc<str>,
        outcome: Outcome,
    ) -> Shared {
        if !self.answers(ask, &stored.response) {
            return Shared::Again(stored.response.vary.clone());
        }
        let now = clock::now();
        let kept = stored.response.worth_keeping(now) && self.shelf.contains(&stored);
        let outcome = Outcome {
            fwd_status: Some(StatusCode::NOT_MODIFIED),
            stored: kept,
            ttl: Some(remaining(&stored.response)),
            ..outcome
        };
        let share = Share::of(ask, &stored.response);
        let age = stored.response.timing.current_age(now);
        let Some(mut response) = deliver::stored(self, ask, stored, &share, age) else {
            return Shared::Whole;
        };
        if !response.body_mut().prime().await {
            return Shared::Whole;
        }
        Shared::answer(Answer::new(response, outcome).by(backend))
    }

    /// The leader's own response, if it was not for sharing; the others go by themselves.
    async fn serve_private(
        self: &Arc<Self>,
        ask: &Ask,
        trip: &Trip,
        leads: bool,
        outcome: Outcome,
    ) -> Answer {
        let taken = if leads { trip.take_private() } else { None };
        match taken {
            Some(private) => {
                let outcome = Outcome {
                    detail: Some(private.detail),
                    ..outcome
                };
                let response = match private.head.status {
                    StatusCode::PARTIAL_CONTENT if !private.fetch.is_verbatim() => {
                        deliver::trimmed(ask, &private.head, private.body)
                    }
                    // It answers the range we asked for.
                    StatusCode::RANGE_NOT_SATISFIABLE if !asks_for_range_alone(ask) => None,
                    _ => Some(deliver::private(&private.head, private.body)),
                };
                match response {
                    Some(response) => Answer::new(response, outcome).by(private.backend),
                    // What was asked for is more than this client wants, and not all of it.
                    None => self.pass(Box::new(ask.clone()), outcome).await,
                }
            }
            None => {
                let outcome = Outcome {
                    collapsed: false,
                    detail: Some(Detail::HitForMiss),
                    ..outcome
                };
                self.pass(Box::new(ask.clone()), outcome).await
            }
        }
    }

    /// May a stale response be served in place of an answer with this status? (RFC 5861 §4)
    pub(super) fn covers(&self, ask: &Ask, status: StatusCode, stale: &Stored) -> bool {
        let is_error = matches!(
            status,
            StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        is_error && self.stale_if_error(ask, &stale.response).is_some()
    }

    /// May a stored response stand in for one that could not be had? Then for how long it is stale.
    fn stale_if_error(&self, ask: &Ask, stored: &StoredResponse) -> Option<Duration> {
        let client = ask.site().client_cache_control;
        Reuse::stale_if_error(stored, &ask.directives, client, clock::now())
    }

    /// One of those who waited may try again; the others get the stale response, or the error.
    fn after_failure(
        self: &Arc<Self>,
        ask: &Ask,
        need: &Need,
        trip: &Trip,
        leads: bool,
        error: &FetchError,
        outcome: Outcome,
    ) -> Shared {
        let outcome = Outcome {
            fwd_status: match error {
                FetchError::Status(status) => Some(*status),
                FetchError::Abandoned | FetchError::NoBackend | FetchError::Upstream(_) => None,
            },
            ..outcome
        };
        if let Some(stored) = &need.stale
            && let Some(answer) = self.stand_in(ask, stored, outcome)
        {
            return Shared::answer(answer);
        }
        if !leads && trip.may_retry() {
            return Shared::Again(self.known_vary(ask));
        }
        Shared::answer(failed(error, outcome))
    }

    /// The stale response in place of an error, where it may stand in (RFC 5861 §4).
    pub(super) fn stand_in(
        self: &Arc<Self>,
        ask: &Ask,
        stored: &Stored,
        outcome: Outcome,
    ) -> Option<Answer> {
        let now = clock::now();
        let stale_by = self.stale_if_error(ask, &stored.response)?;
        let share = Share::of(ask, &stored.response);
        if self.reach(ask, &stored.response, &share, Glance::Use) != Reach::All {
            return None;
        }
        let age = stored.response.timing.current_age(now);
        let response = deliver::stored(self, ask, stored.clone(), &share, age)?;
        let outcome = Outcome {
            ttl: Some(-ttl_seconds(stale_by)),
            detail: Some(Detail::StaleIfError),
            ..outcome
        };
        Some(Answer::new(response, outcome))
    }
}

/// What to ask the origin for; `known` is a part that does not do.
pub(super) fn fetch_for(ask: &Ask, known: Option<&Part>) -> Fetch {
    match *ask.request.method() == Method::GET {
        true => Fetch::decide(ask.request.headers(), known, ask.site().range_fetch),
        false => Fetch::Whole,
    }
}

/// The client does not want the origin to be asked. Not forwarded, so there is no reason why
/// (RFC 9211 §2.2).
pub(super) fn not_asked() -> Outcome {
    Outcome {
        detail: Some(Detail::OnlyIfCached),
        ..Outcome::default()
    }
}

/// The answer to a request whose fetch failed.
pub(super) fn failed(error: &FetchError, outcome: Outcome) -> Answer {
    let outcome = Outcome {
        // Where nobody may be asked, nothing was forwarded.
        fwd: outcome
            .fwd
            .filter(|_| !matches!(error, FetchError::NoBackend)),
        detail: Some(synth::detail(error)),
        ..outcome
    };
    Answer {
        error: Some(error.proxy_error()),
        ..Answer::new(synth::failed(error), outcome)
    }
}

pub(super) fn not_kept(reason: NotKept) -> Detail {
    match reason {
        NotKept::BodyTooLarge => Detail::BodyTooLarge,
        NotKept::NoRoom => Detail::NoRoom,
        NotKept::Purged => Detail::PurgedDuringFill,
        NotKept::StoreFailed => Detail::StoreFailed,
    }
}

fn freshness(response: &StoredResponse) -> Freshness {
    response.freshness(clock::now())
}

/// Does it have a Range, and no condition under which that does not count?
fn asks_for_range_alone(ask: &Ask) -> bool {
    let headers = ask.request.headers();
    headers.contains_key(RANGE) && !is_conditional(headers)
}

/// Is it ever used without asking the origin? What is not may be one client's own.
fn is_for_many(response: &StoredResponse) -> bool {
    let fresh_at_first = !response.lifetime.is_zero();
    !response.validate_always && (fresh_at_first || !response.stale.while_revalidate.is_zero())
}

fn is_stale(response: &StoredResponse) -> bool {
    matches!(freshness(response), Freshness::Stale { .. })
}

/// What remains of a freshness lifetime, in seconds; negative when there is none left.
pub(super) fn remaining(response: &StoredResponse) -> i64 {
    match freshness(response) {
        Freshness::Fresh { ttl } => ttl_seconds(ttl),
        Freshness::Stale { by } if by == Duration::ZERO => 0,
        Freshness::Stale { by } => -ttl_seconds(by),
    }
}

/// How many trips one request shares before it goes alone.
const TRIPS_MAX: usize = 4;
