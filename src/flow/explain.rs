//! What would become of a request now, and why.
//!
//! ```text
//! Question ─► arrive ─► find ─► next ─► approach ─► Explanation      nothing changes
//!                         └─ all that is stored under its keys
//! fetch ────► exchange ─► judge ─► Fetched                           one request to the origin, nothing stored
//! ```
//!
//! The functions that decide about requests are asked, and only looked at: nothing is marked as used,
//! taken into memory, counted, learnt or remembered, and no trip is made. How an explanation is
//! written down is left to `ops`, but for the one line that a response carries.

use super::Engine;
use super::Params;
use super::arrive::Arrival;
use super::arrive::Course;
use super::arrive::Turn;
use super::ask::Ask;
use super::deliver::Share;
use super::lookup::Approach;
use super::lookup::Asking;
use super::lookup::Finding;
use super::lookup::Glance;
use super::lookup::Next;
use super::lookup::Served;
use super::lookup::fetch_for;
use super::lookup::not_asked;
use super::refused;
use super::setup::Setup;
use super::shelf::Stored;
use super::shelf::lock;
use super::slices::Reach;
use super::synth;
use super::synthetic;
use super::trip::TripKey;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Item;
use crate::rules::cache_status::Outcome;
use crate::rules::forwarded::Sender;
use crate::rules::freshness::Ages;
use crate::rules::freshness::Freshness;
use crate::rules::freshness::Lifetime;
use crate::rules::identity::Identity;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::KeyParts;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Fetch;
use crate::rules::reason::Meaning;
use crate::rules::request::Refusal;
use crate::rules::request::parse_url;
use crate::rules::reuse::Basis;
use crate::rules::reuse::Weighed;
use crate::rules::route::Pattern;
use crate::rules::selecting::Shown;
use crate::rules::selecting::shown_name;
use crate::rules::storable::NotStorable;
use crate::rules::storable::Storable;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::unconditional;
use crate::state::index::Found;
use crate::state::marks::Verdict;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use http::request::Parts;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// A request that is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// An absolute URL.
    pub url: String,
    /// Its method.
    pub method: Method,
    /// Its fields. Host is taken from the URL where it is not among them.
    pub headers: HeaderMap,
    /// Ask the origin too, and say whether its answer would be stored.
    pub fetch: bool,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// Not an absolute http or https URL.
    #[error("not an absolute http or https url: {0}")]
    BadUrl(String),
    /// Asking the origin might change something there.
    #[error("only what a GET or HEAD without a body would bring can be fetched")]
    Unsafe,
}

/// What would become of a request, and everything that this hangs on.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// When it was looked at.
    pub at: SystemTime,
    /// The method.
    pub method: Method,
    /// Path and query as they were asked for.
    pub asked: String,
    /// The site, unless the request does not come so far.
    pub site: Option<SiteShown>,
    /// The key, unless the request does not come so far.
    pub key: Option<KeyShown>,
    /// What would be done.
    pub act: Act,
    /// What Cache-Status would say, as far as it is known before the origin has answered.
    pub outcome: Outcome,
    /// The status of the answer, where it is known.
    pub status: Option<StatusCode>,
    /// What decided about the stored response that was found.
    pub basis: Option<Basis>,
    /// Somebody asks the origin for the same just now.
    pub underway: bool,
    /// All that is stored under its keys.
    pub variants: Vec<Variant>,
    /// What the origin said, when it was asked.
    pub fetched: Option<Fetched>,
    /// The name in Cache-Status.
    pub identifier: String,
}

/// What would be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is answered here, without store and origin.
    Answer,
    /// It is served from the store, fresh.
    Hit,
    /// The origin is asked, and what it answers may be stored.
    Miss,
    /// No site has its host.
    NoSite,
    /// A part is served from the store, and the origin is asked for the rest.
    Partial,
    /// It is passed to the origin, and nothing is stored.
    Pass,
    /// It purges its target.
    Purge,
    /// It is sent to the same target by `https`.
    Redirect,
    /// It is refused.
    Refuse,
    /// The origin is asked whether what is stored still stands.
    Revalidate,
    /// It is served from the store, stale, and the origin is asked behind the client's back.
    StaleHit,
    /// It is answered with an error, because the origin must not be asked.
    Unavailable,
    /// Its connection is upgraded.
    Upgrade,
}

/// A site, and why it is the one.
#[derive(Clone, Debug)]
pub struct SiteShown {
    /// Its name.
    pub name: String,
    /// The host pattern that matched, as the config has it.
    pub pattern: String,
    /// The name of its upstream.
    pub upstream: String,
}

/// A key, and what is in it.
#[derive(Clone, Debug)]
pub struct KeyShown {
    /// The key of the request's own target.
    pub key: PrimaryKey,
    /// The one it shares with equivalent targets by No-Vary-Search.
    pub alike: Option<PrimaryKey>,
    /// The normalised URL that the origin is asked for.
    pub url: String,
    /// The parts that are hashed: their names and values.
    pub parts: Vec<(&'static str, String)>,
    /// Parameters of the query that do not count.
    pub dropped: Vec<String>,
    /// The fields that the site selects by, and what the request has in them.
    pub selecting: Vec<(String, Shown)>,
}

/// One stored response under a request's keys.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Which entry it is.
    pub found: Found,
    /// What can be said of it.
    pub view: View,
}

/// What a look at a stored response shows.
#[derive(Clone, Debug)]
pub enum View {
    /// A purge of everything, or of all that it is kin to, hides it.
    Hidden,
    /// It cannot be read now.
    Unreadable,
    /// All of it.
    Whole(Box<Whole>),
}

/// A stored response with all numbers that count.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its head.
    pub response: Arc<StoredResponse>,
    /// The fields it varies by, and what the request has in them.
    pub vary: Vec<(String, Shown)>,
    /// The request selects it.
    pub selected: bool,
    /// It is the one that would be used.
    pub chosen: bool,
    /// What purges make of it.
    pub purged: Verdict,
    /// These, oldest first.
    pub marks: Vec<(Mark, Selector)>,
    /// How its age comes about.
    pub ages: Ages,
    /// What its fields say about its lifetime.
    pub lifetime: Option<Lifetime>,
    /// The targeted field that says so; none where it is Cache-Control.
    pub field: Option<HeaderName>,
    /// What it may do for the request.
    pub weighed: Weighed,
}

/// What the origin said, and whether it would be stored.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// A response came.
    Answered(Box<Answered>),
    /// None came: the word for it, and what went wrong.
    Failed(Detail, String),
}

/// A response of the origin's, judged and thrown away.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Who gave it.
    pub backend: Arc<str>,
    /// What was asked for.
    pub fetch: Fetch,
    /// From the request to the head of the response.
    pub took: Duration,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// The length of its body, if it says.
    pub body_bytes: Option<u64>,
    /// What it would be stored as, or why it would not be.
    pub verdict: Result<Box<Kept>, Detail>,
}

/// What a response would be stored as.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The head.
    pub response: StoredResponse,
    /// How old it is.
    pub ages: Ages,
    /// What its fields say about its lifetime.
    pub lifetime: Option<Lifetime>,
    /// The targeted field that says so; none where it is Cache-Control.
    pub field: Option<HeaderName>,
    /// The fields it varies by, and what the request has in them.
    pub vary: Vec<(String, Shown)>,
}

impl Engine {
    /// Explains what would become of a request now. Dropped half-way, nothing has changed.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Unanswerable> {
        let setup = self.setup.load_full();
        let fetch = question.fetch;
        let (parts, sender) = question.arrival(&setup.params)?;
        let (mut explanation, ask) = self.look_ahead(&setup, parts, &sender, None).await;
        if fetch {
            let ask = ask.ok_or(Unanswerable::Unsafe)?;
            explanation.fetched = Some(self.fetch_aside(ask).await);
        }
        Ok(explanation)
    }

    /// Explains a request that has come.
    pub(super) async fn foresee(
        &self,
        setup: &Arc<Setup>,
        parts: Parts,
        sender: &Sender,
        identity: Option<&Identity>,
    ) -> Explanation {
        self.look_ahead(setup, parts, sender, identity).await.0
    }

    /// Explains a request; returns what the origin would be asked for too, where the store is asked.
    async fn look_ahead(
        &self,
        setup: &Arc<Setup>,
        parts: Parts,
        sender: &Sender,
        identity: Option<&Identity>,
    ) -> (Explanation, Option<Ask>) {
        let mut told = Explanation::begin(&parts, &setup.params.identifier);
        let asked = told.asked.clone();
        let (ask, course) = match self.arrive(setup, parts, sender.clone(), identity) {
            Arrival::Admitted(ask, course) => (ask, course),
            Arrival::NoSite => {
                let status = synth::no_site().status();
                return (told.answered(Act::NoSite, status), None);
            }
            Arrival::Proof(answer) => {
                let status = synth::proof(&answer).status();
                return (told.answered(Act::Answer, status), None);
            }
            Arrival::Refused(refusal) => return (told.refused(refusal), None),
            Arrival::TurnedAway(site, request, turn) => {
                told.site = Some(SiteShown::of(
                    setup,
                    setup.site(site).name.as_str(),
                    request.host(),
                ));
                let told = match turn {
                    Turn::Purge => told.by(Act::Purge, synthetic()),
                    Turn::Redirect => told.answered(Act::Redirect, synth::redirected("").status()),
                    Turn::Refuse(refusal) => told.refused(refusal),
                };
                return (told, None);
            }
        };
        told.site = Some(SiteShown::of(setup, &ask.site().name, ask.request.host()));
        told.key = Some(KeyShown::of(&ask, &asked));
        let told = match course {
            Course::Options => told.answered(Act::Answer, synth::options().status()),
            Course::Refuse(refusal) => told.refused(refusal),
            Course::Pass(outcome) => told.by(Act::Pass, outcome),
            Course::Upgrade(_) => {
                let outcome = Outcome {
                    fwd: Some(Forward::Bypass),
                    detail: Some(Detail::Upgrade),
                    ..Outcome::default()
                };
                told.by(Act::Upgrade, outcome)
            }
            Course::Serve => {
                let told = self.look_in_store(told, &ask).await;
                return (told, Some(*ask));
            }
        };
        (told, None)
    }

    async fn look_in_store(&self, mut told: Explanation, ask: &Ask) -> Explanation {
        let seen = self.sight(ask.keys(), ask.request.headers(), Glance::Look);
        let finding = self.find(ask, seen, Glance::Look).await;
        let chosen = match &finding {
            Finding::Nothing(_) => None,
            Finding::Stored {
                stored, weighed, ..
            } => {
                told.basis = Some(weighed.basis);
                Some(stored.found)
            }
        };
        told.variants = self.variants(ask, chosen, told.at).await;
        match finding.next() {
            Next::Serve(served) => self.serving(told, ask, &served, Act::Hit),
            Next::ServeAndValidate(served) => self.serving(told, ask, &served, Act::StaleHit),
            Next::Ask(asking) => self.asking(told, ask, &asking),
        }
    }

    /// What comes of a stored response that may be served: all that is wanted of it, or a part.
    fn serving(&self, told: Explanation, ask: &Ask, served: &Served, act: Act) -> Explanation {
        let Served {
            stored, outcome, ..
        } = served;
        let share = Share::of(ask, &stored.response);
        match self.reach(ask, &stored.response, &share, Glance::Look) {
            Reach::All => Explanation {
                status: Some(share.status(&stored.response)),
                ..told.by(act, *outcome)
            },
            Reach::Some if !ask.directives.only_if_cached => {
                let outcome = Outcome {
                    hit: false,
                    fwd: Some(Forward::Partial),
                    ..*outcome
                };
                told.by(Act::Partial, outcome)
            }
            Reach::Some | Reach::None => self.asking(told, ask, &Asking::new(Forward::Partial)),
        }
    }

    /// What comes of having to ask the origin.
    fn asking(&self, told: Explanation, ask: &Ask, asking: &Asking) -> Explanation {
        let outcome = Outcome {
            fwd: Some(asking.forward),
            detail: asking.detail,
            ..Outcome::default()
        };
        let stale = asking.stale.as_ref().map(|stale| &*stale.response);
        match self.approach(ask, stale) {
            Approach::Alone(detail) => {
                let detail = Some(detail);
                told.by(Act::Pass, Outcome { detail, ..outcome })
            }
            Approach::Head => told.by(Act::Pass, outcome),
            Approach::Not => Explanation {
                status: Some(synth::not_cached().status()),
                ..told.by(Act::Unavailable, not_asked())
            },
            Approach::Share => {
                let key = TripKey {
                    key: ask.shared_key(),
                    variant: VariantKey::new(&self.known_vary(ask), ask.request.headers()),
                    whole: false,
                    era: ask.era(),
                };
                let act = match stale {
                    Some(stale) if stale.validators.is_some() => Act::Revalidate,
                    Some(_) | None => Act::Miss,
                };
                Explanation {
                    underway: lock(&self.trips).is_underway(&key),
                    ..told.by(act, outcome)
                }
            }
        }
    }

    /// Looks at all that is stored under a request's keys.
    async fn variants(&self, ask: &Ask, chosen: Option<Found>, now: SystemTime) -> Vec<Variant> {
        let mut variants = Vec::new();
        for key in ask.keys() {
            for (found, hidden) in self.shelf.held_under(key) {
                let stored = match hidden {
                    true => None,
                    false => self.shelf.view(found).await,
                };
                let view = match stored {
                    None if hidden => View::Hidden,
                    None => View::Unreadable,
                    Some((stored, verdict)) => {
                        let whole = self.whole(ask, &stored, verdict, now);
                        let chosen = chosen == Some(found);
                        View::Whole(Box::new(Whole { chosen, ..whole }))
                    }
                };
                variants.push(Variant { found, view });
            }
        }
        variants
    }

    fn whole(&self, ask: &Ask, stored: &Stored, purged: Verdict, now: SystemTime) -> Whole {
        let (site, headers) = (ask.site(), ask.request.headers());
        let response = Arc::clone(&stored.response);
        let grant = response.grant(&site.store);
        let client = site.client_cache_control;
        Whole {
            vary: shown(&response.vary, headers),
            selected: VariantKey::new(&response.vary, headers) == response.variant,
            chosen: false,
            purged,
            marks: match purged {
                Verdict::Clear => Vec::new(),
                Verdict::Stale(_) | Verdict::Gone => {
                    self.shelf.marks_on(stored.found.sequence, &response)
                }
            },
            ages: response.timing.ages(now),
            lifetime: grant.lifetime,
            field: grant.field.cloned(),
            weighed: Weighed::new(&response, &ask.directives, client, now),
            response,
        }
    }

    /// Asks the origin what a miss would ask it, and judges the answer. Nothing is stored.
    async fn fetch_aside(&self, ask: Ask) -> Fetched {
        let fetch = fetch_for(&ask, None);
        let ask = Ask {
            request: ask.request.into_get(),
            ..ask
        };
        let mut headers = self.forwarded_fields(&ask);
        unconditional(&mut headers);
        if let Some(range) = fetch.field() {
            headers.insert(header::RANGE, range);
        }
        let (request_time, started) = (clock::now(), clock::instant());
        let exchange = match self.exchange(&ask, &Method::GET, &headers).await {
            Ok(exchange) => exchange,
            Err(error) => return Fetched::Failed(synth::detail(&error), error.to_string()),
        };
        let took = clock::instant().saturating_duration_since(started);
        let (head, body) = exchange.response.into_parts();
        let body_bytes = body.length();
        // No part of it is kept, so it begins no series.
        let sequence = Sequence(0);
        let judged = self.judge(&ask, fetch, &head, body, sequence, request_time);
        let verdict = match judged.await {
            None => Err(Detail::NotStorable(NotStorable::Range)),
            Some((Storable::Refuse(reason), _)) => Err(Detail::NotStorable(reason)),
            Some((Storable::Store(response), body)) => {
                match self.refuse_size(&response, &body, Glance::Look) {
                    Some(detail) => Err(detail),
                    None => Ok(Box::new(self.kept_as(&ask, *response))),
                }
            }
        };
        Fetched::Answered(Box::new(Answered {
            backend: exchange.backend,
            fetch,
            took,
            status: head.status,
            headers: head.headers,
            body_bytes,
            verdict,
        }))
    }

    fn kept_as(&self, ask: &Ask, mut response: StoredResponse) -> Kept {
        let (site, headers) = (ask.site(), ask.request.headers());
        response.select_by(&site.key.selecting, headers);
        response.key = self.key_for(ask, &response.headers);
        response.names = ask.names(&response.headers);
        let grant = response.grant(&site.store);
        let (lifetime, field) = (grant.lifetime, grant.field.cloned());
        Kept {
            ages: response.timing.ages(response.timing.response_time),
            lifetime,
            field,
            vary: shown(&response.vary, headers),
            response,
        }
    }
}

impl Question {
    /// The request as it would arrive, and who would have sent it: somebody on this machine.
    fn arrival(self, params: &Params) -> Result<(Parts, Sender), Unanswerable> {
        let bad = || Unanswerable::BadUrl(self.url.clone());
        let (scheme, authority, target) = parse_url(&self.url).map_err(|_| bad())?;
        let uri: Uri = target.parse().map_err(|_| bad())?;
        let mut request = Request::new(());
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = self.headers;
        if let Some(debug) = &params.debug {
            headers.remove(&debug.name);
        }
        if !headers.contains_key(header::HOST) {
            let host = HeaderValue::from_str(&authority);
            headers.insert(
                header::HOST,
                host.map_err(|_| Unanswerable::BadUrl(authority))?,
            );
        }
        let (parts, ()) = request.into_parts();
        let client = IpAddr::from(Ipv4Addr::LOCALHOST);
        let sender = Sender::read(&parts.headers, client, scheme, &params.forwarded.trusted);
        Ok((parts, sender))
    }
}

impl Explanation {
    fn begin(parts: &Parts, identifier: &str) -> Self {
        let asked = parts.uri.path_and_query().map(|target| target.as_str());
        Self {
            at: clock::now(),
            method: parts.method.clone(),
            asked: asked.unwrap_or_default().to_owned(),
            site: None,
            key: None,
            act: Act::Answer,
            outcome: synthetic(),
            status: None,
            basis: None,
            underway: false,
            variants: Vec::new(),
            fetched: None,
            identifier: identifier.to_owned(),
        }
    }

    fn by(self, act: Act, outcome: Outcome) -> Self {
        Self {
            act,
            outcome,
            ..self
        }
    }

    fn answered(self, act: Act, status: StatusCode) -> Self {
        Self {
            status: Some(status),
            ..self.by(act, synthetic())
        }
    }

    fn refused(self, refusal: Refusal) -> Self {
        Self {
            status: Some(refusal.status()),
            ..self.by(Act::Refuse, refused(refusal))
        }
    }

    /// The word for the reason, as Cache-Status has it: its detail, or else why it is forwarded.
    pub fn reason(&self) -> &'static str {
        match (self.outcome.detail, self.outcome.fwd) {
            (Some(detail), _) => detail.token(),
            (None, Some(fwd)) => fwd.token(),
            (None, None) => self.basis.map_or(self.act.token(), Basis::token),
        }
    }

    /// What the reason means.
    pub fn meaning(&self) -> Meaning {
        match (self.outcome.detail, self.outcome.fwd, self.basis) {
            (Some(detail), _, _) => detail.meaning(),
            (None, Some(Forward::Stale | Forward::Request) | None, Some(basis)) => basis.meaning(),
            (None, Some(fwd), _) => fwd.meaning(),
            (None, None, None) => Detail::Synthetic.meaning(),
        }
    }

    /// What would be used, with its numbers.
    pub fn chosen(&self) -> Option<&Whole> {
        self.variants
            .iter()
            .find_map(|variant| match &variant.view {
                View::Whole(whole) if whole.chosen => Some(&**whole),
                View::Hidden | View::Unreadable | View::Whole(_) => None,
            })
    }

    /// The explanation in one line, for a response that came out as `outcome`: what was foreseen, the
    /// reason for what came, and the numbers. At most [`BRIEF_BYTES_MAX`] long; no value of a field.
    pub fn brief(&self, outcome: &Outcome) -> HeaderValue {
        let mut item = Item::new(self.act.token());
        item.token(
            "reason",
            outcome.detail.map_or(self.reason(), Detail::token),
        );
        let because = match outcome.detail {
            Some(detail) => detail.meaning(),
            None => self.meaning(),
        };
        item.string("because", &plain(&because.because));
        if let Some(section) = because.section {
            item.string("section", &plain(section));
        }
        if let Some(site) = &self.site {
            item.string("site", &plain(&site.name));
            item.string("pattern", &plain(&site.pattern));
        }
        if let Some(key) = &self.key {
            item.string("key", &hex(&key.key.0));
            item.string("url", &plain(&key.url));
        }
        let count = i64::try_from(self.variants.len()).unwrap_or(i64::MAX);
        item.integer("variants", count);
        if let Some(chosen) = self.chosen() {
            chosen.brief(&mut item);
        }
        if self.underway {
            item.flag("underway");
        }
        item.finish()
    }
}

impl Whole {
    fn brief(&self, item: &mut Item) {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let response = &self.response;
        item.string("variant", &format!("{:016x}", response.variant.0));
        if !self.vary.is_empty() {
            let names: Vec<&str> = self.vary.iter().map(|(name, _)| name.as_str()).collect();
            item.string("vary", &plain(&names.join(", ")));
        }
        item.integer("age", seconds(self.ages.current_age));
        item.integer("lifetime", seconds(response.lifetime));
        if let Some(lifetime) = &self.lifetime {
            item.token("from", lifetime.source.token());
        }
        match self.weighed.freshness {
            Freshness::Fresh { ttl } => item.integer("fresh-for", seconds(ttl)),
            Freshness::Stale { by } => item.integer("stale-for", seconds(by)),
        }
        let tags = i64::try_from(response.names.tags.len()).unwrap_or(i64::MAX);
        item.integer("tags", tags);
    }
}

impl Act {
    /// The fixed word that names it.
    pub fn token(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::NoSite => "no-site",
            Self::Partial => "partial",
            Self::Pass => "pass",
            Self::Purge => "purge",
            Self::Redirect => "redirect",
            Self::Refuse => "refuse",
            Self::Revalidate => "revalidate",
            Self::StaleHit => "stale-hit",
            Self::Unavailable => "unavailable",
            Self::Upgrade => "upgrade",
        }
    }
}

impl SiteShown {
    /// The site of `host`, by the pattern that matched.
    fn of(setup: &Setup, name: &str, host: &str) -> Self {
        let found = setup.params.routes.find(host);
        let pattern = match found.map(|(_, pattern)| pattern) {
            Some(Pattern::Exact) => host.to_owned(),
            Some(Pattern::Below(suffix)) => format!("*.{suffix}"),
            Some(Pattern::Any) | None => "*".to_owned(),
        };
        let site = found.map(|(site, _)| setup.site(site));
        let upstream = site.and_then(|site| setup.params.upstreams.get(site.upstream));
        Self {
            name: name.to_owned(),
            pattern,
            upstream: upstream.map(|(name, _)| name.clone()).unwrap_or_default(),
        }
    }
}

impl KeyShown {
    fn of(ask: &Ask, asked: &str) -> Self {
        let (site, request) = (ask.site(), &ask.request);
        let (authority, target) = (request.authority(), request.target());
        let parts = KeyParts::new(&site.name, authority, target, request.scheme(), &site.key);
        let dropped = match request.cacheable() {
            true => site.key.query.dropped(asked),
            false => Vec::new(),
        };
        Self {
            key: ask.key,
            alike: ask.alike,
            url: request.url(),
            parts: vec![
                ("site", parts.site.to_owned()),
                ("scheme", parts.scheme.to_owned()),
                ("authority", parts.authority.to_owned()),
                ("target", parts.target.to_owned()),
            ],
            dropped: dropped.into_iter().map(str::to_owned).collect(),
            selecting: shown(&site.key.selecting, request.headers()),
        }
    }
}

/// What a request has in some fields.
fn shown(fields: &[HeaderName], headers: &HeaderMap) -> Vec<(String, Shown)> {
    let show = |name: &HeaderName| (shown_name(name), Shown::of(name, headers));
    fields.iter().map(show).collect()
}

/// A text as a field can carry it, shortened where it is long.
fn plain(text: &str) -> String {
    let fits = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
    let text = text.replace('§', "section ");
    let chars = text.chars().map(|c| if fits(c) { c } else { '\'' });
    chars.take(TEXT_CHARS_MAX).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Longest line that a response carries, in bytes.
pub const BRIEF_BYTES_MAX: usize = 2048;

/// Longest text in it: there are at most six, and the numbers take less than a third of the line.
const TEXT_CHARS_MAX: usize = 220;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::freshness::LifetimeSource;
    use crate::rules::freshness::Timing;
    use crate::rules::reuse::NotReusable;
    use crate::rules::stored::StaleWindow;
    use proptest::prelude::*;

    fn told() -> Explanation {
        let (parts, ()) = Request::new(()).into_parts();
        Explanation::begin(&parts, "larder")
    }

    fn line(told: &Explanation, outcome: &Outcome) -> String {
        told.brief(outcome).to_str().unwrap().to_owned()
    }

    fn whole(vary: &str) -> Whole {
        let timing = Timing {
            request_time: SystemTime::UNIX_EPOCH,
            response_time: SystemTime::UNIX_EPOCH,
            date_value: SystemTime::UNIX_EPOCH,
            age_value: Duration::MAX,
        };
        let mut response = super::super::shelf::tests::response(PrimaryKey([9; 16]), b"body");
        response.lifetime = Duration::MAX;
        response.stale = StaleWindow::default();
        Whole {
            vary: vec![(vary.to_owned(), Shown::Absent)],
            selected: true,
            chosen: true,
            purged: Verdict::Clear,
            marks: Vec::new(),
            ages: timing.ages(SystemTime::UNIX_EPOCH),
            lifetime: Some(Lifetime {
                length: Duration::MAX,
                source: LifetimeSource::Heuristic,
            }),
            field: None,
            weighed: Weighed {
                current_age: Duration::MAX,
                freshness: Freshness::Stale { by: Duration::MAX },
                basis: Basis::NotReusable(NotReusable::Expired),
            },
            response: Arc::new(response),
        }
    }

    #[test]
    fn the_reason_is_the_word_of_cache_status() {
        let miss = Outcome {
            fwd: Some(Forward::UriMiss),
            ..Outcome::default()
        };
        let told = told().by(Act::Miss, miss);
        assert_eq!(told.reason(), "uri-miss");
        let refused = told.clone().refused(Refusal::TraceMethod);
        assert_eq!(refused.reason(), "trace-method");
        let not_stored = Outcome {
            detail: Some(Detail::NotStorable(NotStorable::Private)),
            ..miss
        };
        let line = line(&told, &not_stored);
        assert!(
            line.starts_with("miss; reason=private; because=\"private in"),
            "{line}"
        );
    }

    #[test]
    fn what_is_stale_is_explained_by_what_decided() {
        let stale = Outcome {
            fwd: Some(Forward::Stale),
            ..Outcome::default()
        };
        let told = Explanation {
            basis: Some(Basis::NotReusable(NotReusable::Expired)),
            ..told().by(Act::Revalidate, stale)
        };
        assert_eq!(told.reason(), "stale");
        assert_eq!(told.meaning(), NotReusable::Expired.meaning());
    }

    #[test]
    fn a_section_can_be_written_in_a_field() {
        assert_eq!(plain("RFC 9111 §4.2 \"x\""), "RFC 9111 section 4.2 'x'");
    }

    proptest! {
        #[test]
        fn a_line_is_bounded_whatever_was_asked(text in "\\PC{0,3000}") {
            let shown = SiteShown {
                name: text.clone(),
                pattern: text.clone(),
                upstream: text.clone(),
            };
            let key = KeyShown {
                key: PrimaryKey([255; 16]),
                alike: None,
                url: text.clone(),
                parts: Vec::new(),
                dropped: Vec::new(),
                selecting: Vec::new(),
            };
            let found = Found {
                sequence: Sequence(1),
                key: key.key,
                variant: VariantKey(u64::MAX),
            };
            let view = View::Whole(Box::new(whole(&text)));
            let told = Explanation {
                site: Some(shown),
                key: Some(key),
                underway: true,
                variants: vec![Variant { found, view }],
                ..told()
            };
            let line = line(&told, &told.outcome);
            prop_assert!(line.len() <= BRIEF_BYTES_MAX, "{}", line.len());
        }
    }
}
