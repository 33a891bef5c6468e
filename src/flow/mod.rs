//! The life of a request: from what `net` received to what it sends back.
//!
//! ```text
//! handle ─► rules/request, guard, route ─► lookup ─┬─ hit ──────────────────────► deliver
//!                                                  ├─ miss, stale ─► trip ─► fill ─► deliver
//!                                                  └─ not for the store ─► pass
//! ```
//!
//! Rooms of floor 2 meet only here, locks stand round the machines of `state` only here, every
//! error becomes a response in `synth`, and every request ends in one [`Report`].

mod arrive;
mod ask;
pub mod body;
mod deliver;
pub mod dialect;
pub mod explain;
pub mod fill;
mod freshen;
mod front;
mod handover;
mod keys;
mod ledger;
mod lookup;
pub mod meter;
mod origin;
mod pass;
mod purge;
mod refresh;
mod report;
mod setup;
pub mod shelf;
pub mod shelves;
mod slices;
mod span;
mod synth;
mod trip;
mod tunnel;
mod upload;

use self::arrive::Arrival;
use self::arrive::Course;
use self::arrive::Turn;
use self::ask::Ask;
use self::body::Body;
use self::ledger::Ledger;
use self::refresh::Refreshes;
use self::setup::Setup;
use self::shelf::lock;
use self::shelf::upkeep::Done;
use self::shelves::Shelves;
use self::trip::Trip;
use self::trip::TripKey;
use crate::clock;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Outcome;
use crate::rules::forwarded::ForwardedPolicy;
use crate::rules::forwarded::Sender;
use crate::rules::guard::GuardPolicy;
use crate::rules::identity::Identity;
use crate::rules::key::KeyPolicy;
use crate::rules::part::RangePolicy;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::Cipher;
use crate::rules::request::Refusal;
use crate::rules::request::Scheme;
use crate::rules::reuse::ClientCacheControl;
use crate::rules::route::Routes;
use crate::rules::secret::SecretField;
use crate::rules::storable::StorePolicy;
use crate::rules::tag::TagPolicy;
use crate::rules::trace::Trace;
use crate::rules::trace::TracePolicy;
use crate::rules::upgrade::Protocol;
use crate::state::challenges::Challenges;
use crate::state::collapse::Table;
use crate::state::crowds::Crowd;
use crate::state::crowds::Crowds;
use crate::state::eviction;
use crate::state::hit_for_miss::HitForMiss;
use crate::state::variances::Variances;
use crate::store::Usage;
use crate::upstream;
use crate::upstream::RequestBody;
use arc_swap::ArcSwap;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http::request::Parts;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;

pub use self::ledger::Count;
pub use self::ledger::TOLD_MAX;
pub use self::ledger::Told;
pub use self::ledger::receipt_id;
pub use self::origin::BackendStats;
pub use self::purge::Manner;
pub use self::purge::PURGE_ITEMS_MAX;
pub use self::purge::Purge;
pub use self::purge::PurgeError;
pub use self::purge::Receipt;
pub use self::purge::What;
pub use self::refresh::Progress as RefreshProgress;
pub use self::report::Report;
pub use self::report::Sink;
pub use self::shelf::catalog::Catalog;
pub use self::shelf::catalog::Finding;
pub use self::shelf::catalog::Held;
pub use self::shelf::upkeep::Eviction;
pub use self::shelves::DirStats;
pub use self::shelves::handover::Beside;
pub use self::shelves::handover::Peer;
pub use self::span::Span;
pub use self::span::Step;
pub use self::tunnel::Tunnel;
pub use self::tunnel::Tunnels;
pub use crate::state::marks::Covered;
pub use crate::store::StoreError;

/// How one site is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name: the first of its hosts. Part of every key.
    pub name: String,
    /// The place of its upstream in [`Params::upstreams`].
    pub upstream: usize,
    /// What goes into keys.
    pub key: KeyPolicy,
    /// Who may come in.
    pub guard: GuardPolicy,
    /// Strict-Transport-Security on every response by `https` (RFC 6797), instead of the origin's.
    pub hsts: Option<HeaderValue>,
    /// What is stored and for how long.
    pub store: StorePolicy,
    /// Targeted fields go on to clients.
    pub targeted_pass: bool,
    /// What is taken for tags.
    pub tags: TagPolicy,
    /// Whether clients' Cache-Control counts.
    pub client_cache_control: ClientCacheControl,
    /// What is asked for when a client wants a part of something that is not stored.
    pub range_fetch: RangePolicy,
    /// Protocols that connections may be upgraded to.
    pub upgrades: Vec<Protocol>,
}

impl Site {
    /// Puts on a response what the site says about every one of them, and takes off what it keeps
    /// to itself.
    fn finish(&self, headers: &mut HeaderMap, scheme: Scheme, close_after: bool) {
        if !self.targeted_pass {
            for field in &self.store.targeted {
                headers.remove(field.name());
            }
        }
        if !self.tags.pass {
            for name in self
                .tags
                .fields
                .iter()
                .filter(|name| self.tags.withholds(name))
            {
                headers.remove(name);
            }
        }
        if let Some(hsts) = &self.hsts {
            // One field, and none in clear text (RFC 6797 §7.1, §7.2).
            match scheme {
                Scheme::Http => headers.remove(header::STRICT_TRANSPORT_SECURITY),
                Scheme::Https => headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone()),
            };
        }
        if close_after {
            // What follows on the connection cannot be trusted (RFC 9112 §6.1).
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// What the engine is to be. All of it can change while it runs, but `fill_bytes_max`.
#[derive(Clone, Debug)]
pub struct Params {
    /// The name in Cache-Status, Proxy-Status, Via and CDN-Loop.
    pub identifier: String,
    /// Whom to believe about clients, and what to tell origins of them.
    pub forwarded: ForwardedPolicy,
    /// How many others of our name a request may have come through.
    pub hops_max: usize,
    /// The port that clients reach `https` at, for redirects to it.
    pub https_port: u16,
    /// Responses say in Via that they came through here.
    pub via_response: bool,
    /// Cache-Status names the target that the response is kept under.
    pub cache_status_key: bool,
    /// Who brings this field is told in one of the same name how the response came about.
    pub debug: Option<SecretField>,
    /// Upstreams by name.
    pub upstreams: Vec<(String, upstream::Params)>,
    /// Sites by number.
    pub sites: Vec<Site>,
    /// Hosts to sites.
    pub routes: Routes,
    /// Bounds on requests.
    pub request: crate::rules::request::Params,
    /// Bytes of hot responses in memory.
    pub memory_bytes_max: u64,
    /// Bytes that all fills together may hold in memory.
    pub fill_bytes_max: u64,
    /// Bytes of the store read each second to find damage; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// Most requests that wait for one fill's head; more go on their own.
    pub followers_max: usize,
    /// How long a target that turned out not storable is fetched without collapsing.
    pub hit_for_miss: Duration,
    /// Tries over all backends for one request.
    pub tries_max: usize,
    /// Most upgraded connections at a time.
    pub upgrades_max: usize,
    /// How long an upgraded connection may carry nothing.
    pub upgrade_idle_timeout: Duration,
    /// Which requests are told of step by step, if any.
    pub traces: Option<TracePolicy>,
    /// Most variants of one target; at least one.
    pub variants_max: usize,
    /// What goes first when room is needed, and what is let in.
    pub eviction: eviction::Params,
}

/// The client's end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// How it reached us.
    pub scheme: Scheme,
    /// What its handshake found out about it, where a site asks for certificates.
    pub identity: Option<Arc<Identity>>,
    /// What its handshake agreed on, over TLS.
    pub cipher: Option<Cipher>,
}

/// A look at the engine's sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stored responses.
    pub entries: u64,
    /// Distinct bodies.
    pub bodies: u64,
    /// Bytes of stored bodies and heads that are alive.
    pub live_bytes: u64,
    /// Fills under way.
    pub fills_active: u64,
    /// Bytes that fills hold in memory.
    pub fill_bytes: u64,
    /// Bytes in the memory tier.
    pub memory_bytes: u64,
    /// What its upkeep has done.
    pub upkeep: Done,
    /// Variants pushed out because their target had too many.
    pub variants_pushed_out: u64,
    /// The targets with too many variants, the worst first; at most ten.
    pub crowds: Vec<Crowd>,
    /// The disks, together.
    pub disk: Usage,
    /// Each directory.
    pub dirs: Vec<DirStats>,
    /// How many URLs, tags, prefixes and patterns purges have left marks on.
    pub purge_marks: u64,
    /// Purges that operators asked for: hard and soft.
    pub purges: [u64; 2],
    /// Why the store passes through, when it does: no directory can be used.
    pub pass_through: Option<Arc<str>>,
    /// Upgraded connections.
    pub tunnels: Tunnels,
    /// Backends, those of each upstream one after the other.
    pub backends: Vec<BackendStats>,
}

/// Serves requests. Shared by all workers.
pub struct Engine {
    setup: ArcSwap<Setup>,
    shelf: Arc<Shelves>,
    trips: Mutex<Table<TripKey, Arc<Trip>>>,
    trip_number: AtomicU64,
    /// Keyed at random for each process.
    boundaries: RandomState,
    hit_for_miss: Mutex<HitForMiss>,
    variances: RwLock<Variances>,
    /// Whether there is anything in `variances`.
    any_variance: AtomicBool,
    crowds: Mutex<Crowds>,
    challenges: RwLock<Challenges>,
    /// Bytes that fills may still take into memory.
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    fills_active: AtomicU64,
    tunnels: Arc<tunnel::Counts>,
    /// Purges that were asked for, hard and soft.
    purges: [AtomicU64; 2],
    ledger: Ledger,
    refreshes: Refreshes,
    sink: Arc<dyn Sink>,
}

/// A response, and how it came about.
struct Answer {
    response: Response<Body>,
    outcome: Outcome,
    refusal: Option<Refusal>,
    error: Option<ProxyError>,
    backend: Option<Arc<str>>,
    /// The length of the stored body that it comes from.
    stored_bytes: Option<u64>,
}

impl Answer {
    fn new(response: Response<Body>, outcome: Outcome) -> Self {
        Self {
            response,
            outcome,
            refusal: None,
            error: None,
            backend: None,
            stored_bytes: None,
        }
    }

    /// Not made here: the origin's, whether it comes from the store or from there.
    fn is_of_origin(&self) -> bool {
        self.error.is_none() && (self.outcome.hit || self.outcome.fwd.is_some())
    }

    fn by(self, backend: Arc<str>) -> Self {
        Self {
            backend: Some(backend),
            ..self
        }
    }

    fn with_stored_bytes(self, bytes: u64) -> Self {
        Self {
            stored_bytes: Some(bytes),
            ..self
        }
    }
}

impl Engine {
    /// Opens the store, in one directory or several, and starts the threads that look after it.
    /// Needs no runtime.
    pub fn open(
        params: &Params,
        dirs: &[crate::store::Params],
        sink: Arc<dyn Sink>,
    ) -> Result<Arc<Self>, StoreError> {
        let shelf = Shelves::open(params.shelves(), dirs)?;
        let budget_bytes = usize::try_from(params.fill_bytes_max)
            .unwrap_or(usize::MAX)
            .clamp(FILL_BYTES_MIN, Semaphore::MAX_PERMITS);
        // Each state is seeded by chance.
        let instance = format!("{:016x}", RandomState::new().build_hasher().finish());
        Ok(Arc::new(Self {
            shelf,
            trips: Mutex::new(Table::new(params.followers_max)),
            trip_number: AtomicU64::new(0),
            boundaries: RandomState::new(),
            hit_for_miss: Mutex::new(HitForMiss::new(HIT_FOR_MISS_PLACES, params.hit_for_miss)),
            variances: RwLock::new(Variances::new(VARIANCES_PLACES)),
            any_variance: AtomicBool::new(false),
            crowds: Mutex::new(Crowds::new(CROWDS_PLACES)),
            challenges: RwLock::default(),
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            fills_active: AtomicU64::new(0),
            tunnels: Arc::default(),
            purges: Default::default(),
            ledger: Ledger::default(),
            refreshes: Refreshes::default(),
            sink,
            setup: ArcSwap::from_pointee(Setup::first(params, instance)),
        }))
    }

    /// Serves by other params from the next request on; those under way end as they began. What is
    /// stored, in memory and on its way stays, and so do upstreams that are in both. Whoever calls
    /// sees to it that calls come one after the other.
    pub fn adopt(&self, params: &Params) {
        let before = self.setup.load_full();
        let next = Arc::new(before.next(params));
        let params = &next.params;
        self.shelf.adopt(params.shelves());
        lock(&self.trips).limit(params.followers_max);
        if !next.sites_are_old() || params.hit_for_miss != before.params.hit_for_miss {
            // What could not be stored then may be storable now.
            *lock(&self.hit_for_miss) = HitForMiss::new(HIT_FOR_MISS_PLACES, params.hit_for_miss);
        }
        self.setup.store(Arc::clone(&next));
        for origin in before.origins() {
            if !next.origins().iter().any(|kept| Arc::ptr_eq(kept, origin)) {
                origin.upstream.retire();
            }
        }
    }

    /// Answers one request. Dropped half-way, what others share goes on.
    pub async fn handle(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        client: Client,
    ) -> Response<Body> {
        let started = clock::instant();
        let (mut parts, body) = request.into_parts();
        let setup = self.setup.load_full();
        let debug = setup.params.debug.as_ref();
        // It goes no further, and nobody logs it, whatever it says.
        let debug = debug.filter(|debug| debug.take(&mut parts.headers));
        let trusted = &setup.params.forwarded.trusted;
        let sender = Sender::read(&parts.headers, client.address.ip(), client.scheme, trusted);
        let address = match sender.proxies.is_empty() {
            true => client.address,
            // Nobody says by which port the client reached the proxy.
            false => SocketAddr::new(sender.address, 0),
        };
        let mut report = Report::new(&parts, address, clock::now());
        report.cipher = client.cipher;
        if let Some(policy) = setup.params.traces {
            let peer = client.address.ip().to_canonical();
            let believed = trusted.iter().any(|block| block.contains(peer));
            report.trace = Some(self.trace(&parts.headers, policy, believed));
        }
        let identity = client.identity.as_deref();
        let told = match debug {
            None => None,
            Some(_) => Some(Box::pin(self.foresee(&setup, parts.clone(), &sender, identity)).await),
        };
        // Awaited where it is made: what is kept in between takes its room twice.
        let answer = self
            .answer(&setup, parts, body, sender, identity, &mut report)
            .await;
        let of_origin = answer.is_of_origin();
        let mut response = answer.response;
        report.head_after = clock::instant().duration_since(started);
        report.status = response.status();
        report.outcome = answer.outcome;
        report.refusal = answer.refusal;
        report.error = answer.error;
        report.backend = answer.backend;
        report.stored_bytes = answer.stored_bytes;
        let headers = response.headers_mut();
        // After those of caches nearer the origin (RFC 9211 §2).
        headers.append(
            CACHE_STATUS,
            answer
                .outcome
                .field_value(&setup.params.identifier, report.key.as_deref()),
        );
        if let Some(via) = &setup.via
            && of_origin
        {
            headers.append(header::VIA, via.clone());
        }
        if let Some(error) = answer.error {
            headers.append(PROXY_STATUS, error.field_value(&setup.params.identifier));
        }
        if let (Some(debug), Some(told)) = (debug, told) {
            headers.insert(&debug.name, told.brief(&report.outcome));
        }
        let sink = Arc::clone(&self.sink);
        response.map(|body| body.report_to(sink, report, started))
    }

    /// The engine's sizes.
    pub fn stats(&self) -> Stats {
        let (entries, bodies, live_bytes) = self.shelf.held();
        let dirs = self.shelf.dirs();
        let setup = self.setup.load_full();
        let upstreams = setup.params.upstreams.iter().zip(setup.origins());
        let backends = upstreams.flat_map(|((name, _), origin)| origin.stats(name));
        let crowds = lock(&self.crowds);
        let (variants_pushed_out, crowds) = (crowds.total(), crowds.worst(CROWDS_TOLD));
        Stats {
            variants_pushed_out,
            crowds,
            entries,
            bodies,
            live_bytes,
            fills_active: self.fills_active.load(Ordering::Relaxed),
            fill_bytes: (self.budget_bytes - self.budget.available_permits()) as u64,
            memory_bytes: self.shelf.memory_bytes(),
            upkeep: self.shelf.upkeep(),
            tunnels: self.tunnels.read(),
            disk: dirs
                .iter()
                .map(|dir| dir.usage)
                .fold(Usage::default(), Usage::and),
            dirs,
            pass_through: self.shelf.pass_through(),
            purge_marks: self.shelf.purge_marks(),
            purges: [Manner::Hard, Manner::Soft].map(|manner| {
                let count = self.purges.get(manner as usize);
                count.map_or(0, |count| count.load(Ordering::Relaxed))
            }),
            backends: backends.collect(),
        }
    }

    /// All that is stored in one directory, for tools: in the one that is named so among all stores
    /// of this machine, or in any. None when none of this engine's is. Blocking.
    pub fn catalog(&self, identity: Option<&str>) -> Option<Catalog> {
        self.shelf.catalog(identity)
    }

    /// Answers from now on whoever asks for a proof by this token (RFC 8555 §8.3); or no longer.
    pub fn prove(&self, token: &str, answer: Option<&str>) {
        let challenges = self.challenges.write();
        let mut challenges = challenges.unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) => challenges.put(token.to_owned(), answer),
            None => challenges.remove(token),
        }
    }

    /// Can it serve from a working store? Also from one that another process takes over.
    pub fn ready(&self) -> bool {
        self.shelf.pass_through().is_none() || self.shelf.is_lent()
    }

    /// Writes everything that is pending, and ends the threads. Blocks for as long as that takes.
    pub fn close(&self) {
        self.shelf.close();
    }

    async fn answer(
        self: &Arc<Self>,
        setup: &Arc<Setup>,
        parts: Parts,
        body: RequestBody,
        sender: Sender,
        identity: Option<&Identity>,
        report: &mut Report,
    ) -> Answer {
        // Some of what a purge is asked for by is taken off every request.
        let spoken = dialect::is_spoken(&parts.method).then(|| parts.headers.clone());
        let (mut ask, course) = match self.arrive(setup, parts, sender, identity) {
            Arrival::Admitted(ask, course) => (ask, course),
            Arrival::NoSite => return no_site(),
            Arrival::Proof(answer) => return Answer::new(synth::proof(&answer), synthetic()),
            Arrival::Refused(refusal) => return refuse(refusal),
            Arrival::TurnedAway(site, request, turn) => {
                report.site = setup.name(site);
                let mut answer = match turn {
                    Turn::Redirect => {
                        let url = request.https_url(setup.params.https_port);
                        Answer::new(synth::redirected(&url), synthetic())
                    }
                    Turn::Refuse(refusal) => refuse(refusal),
                    Turn::Purge => {
                        report.key = setup.params.cache_status_key.then(|| request.url());
                        let site = setup.site(site);
                        Box::pin(self.obey_front(site, &request, spoken.as_ref())).await
                    }
                };
                let headers = answer.response.headers_mut();
                let site = setup.site(site);
                site.finish(headers, request.scheme(), request.close_after());
                return answer;
            }
        };
        ask.trace = report.trace;
        report.site = setup.name(ask.site);
        report.primary = Some(ask.key);
        report.key = setup.params.cache_status_key.then(|| ask.request.url());
        let (site, scheme) = (ask.site, ask.request.scheme());
        let close_after = ask.request.close_after();
        let mut answer = self.go(course, ask, body).await;
        let headers = answer.response.headers_mut();
        setup.site(site).finish(headers, scheme, close_after);
        answer
    }

    /// Answers a request that its site lets in.
    async fn go(self: &Arc<Self>, course: Course, ask: Box<Ask>, body: RequestBody) -> Answer {
        match course {
            Course::Serve => self.serve(ask).await,
            Course::Pass(outcome) => Box::pin(self.pass_unsafe(ask, body, outcome)).await,
            Course::Options => Answer::new(synth::options(), synthetic()),
            Course::Refuse(refusal) => refuse(refusal),
            Course::Upgrade(protocol) => Box::pin(self.upgrade(ask, protocol)).await,
        }
    }

    /// The trace that a request belongs to.
    fn trace(&self, headers: &HeaderMap, policy: TracePolicy, trusted: bool) -> Trace {
        let mut chance = [0; 24];
        let bytes = self.nonce().into_iter().chain(self.nonce());
        chance
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        Trace::decide(headers, policy, trusted, chance)
    }

    /// A delimiter that no body can know beforehand (RFC 2046 §5.1.1).
    fn boundary(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.nonce()))
    }

    /// 16 bytes that nobody can know beforehand, and that do not come again.
    fn nonce(&self) -> [u8; 16] {
        let number = self.trip_number.fetch_add(1, Ordering::Relaxed);
        let half = |salt: u8| u128::from(self.boundaries.hash_one((number, salt)));
        (half(0) << 64 | half(1)).to_be_bytes()
    }
}

impl Params {
    fn shelves(&self) -> shelves::Params {
        shelves::Params {
            memory_bytes_max: self.memory_bytes_max,
            fill_bytes_max: self.fill_bytes_max,
            scrub_bytes_per_second: self.scrub_bytes_per_second,
            variants_max: self.variants_max,
            eviction: self.eviction,
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("setup", &self.setup.load())
            .finish_non_exhaustive()
    }
}

/// A request that is refused has neither been looked for nor forwarded.
fn refused(refusal: Refusal) -> Outcome {
    Outcome {
        detail: Some(Detail::Refused(refusal)),
        ..Outcome::default()
    }
}

fn refuse(refusal: Refusal) -> Answer {
    let error = if refusal == Refusal::LoopDetected {
        ProxyError::ProxyLoopDetected
    } else if refusal == Refusal::TooManyUpgrades {
        ProxyError::ConnectionLimitReached
    } else {
        ProxyError::HttpRequestError
    };
    Answer {
        refusal: Some(refusal),
        error: Some(error),
        ..Answer::new(synth::refused(refusal), refused(refusal))
    }
}

fn no_site() -> Answer {
    Answer {
        error: Some(ProxyError::DestinationNotFound),
        ..Answer::new(synth::no_site(), synthetic())
    }
}

fn synthetic() -> Outcome {
    Outcome {
        detail: Some(Detail::Synthetic),
        ..Outcome::default()
    }
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The least memory fills can work with: one segment each for a few of them.
const FILL_BYTES_MIN: usize = 8 << 20;
const HIT_FOR_MISS_PLACES: usize = 1 << 16;
const VARIANCES_PLACES: usize = 1 << 13;
const CROWDS_PLACES: usize = 64;
/// How many of the crowded targets the sizes name.
const CROWDS_TOLD: usize = 10;
