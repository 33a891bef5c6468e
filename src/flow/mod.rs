//! The life of a request: from what `net` received to what it sends back.
//!
//! Rooms of floor 2 meet only here, locks stand round the machines of `state` only here, and every
//! request ends in one [`Report`].

use crate::rules::address::Sequence;
use crate::rules::cache_status::Outcome;
use crate::rules::guard::GuardPolicy;
use crate::rules::key::KeyPolicy;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::Refusal;
use crate::rules::request::Scheme;
use crate::rules::reuse::ClientCacheControl;
use crate::rules::route::Routes;
use crate::rules::route::SiteId;
use crate::rules::storable::StorePolicy;
use crate::store::Usage;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// How one site is served.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name: the first of its hosts. Part of every key.
    pub name: String,
    /// The place of its upstream in [`Engine`]'s list.
    pub upstream: usize,
    /// What goes into keys.
    pub key: KeyPolicy,
    /// Who may come in.
    pub guard: GuardPolicy,
    /// What is stored and for how long.
    pub store: StorePolicy,
    /// Whether clients' Cache-Control counts.
    pub client_cache_control: ClientCacheControl,
}

/// What the engine is to be.
#[derive(Clone, Debug)]
pub struct Params {
    /// The name in Cache-Status and Proxy-Status.
    pub identifier: String,
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
    /// Most requests that wait for one fill's head; more go on their own.
    pub followers_max: usize,
    /// How long a target that turned out not storable is fetched without collapsing.
    pub hit_for_miss: Duration,
    /// Tries over all backends for one request.
    pub tries_max: usize,
}

/// The client's end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// How it reached us.
    pub scheme: Scheme,
}

/// What happened to one request. Cache-Status, access log, metrics and stats all render this.
#[derive(Clone, Debug)]
pub struct Report {
    /// The client's address.
    pub client: SocketAddr,
    /// When the request arrived.
    pub at: SystemTime,
    /// From arrival to the last byte handed to the connection.
    pub took: Duration,
    /// Method, as received.
    pub method: Method,
    /// Target, as received.
    pub uri: Uri,
    /// Protocol version.
    pub version: Version,
    /// Host, as received.
    pub host: Option<HeaderValue>,
    /// Referer, as received.
    pub referer: Option<HeaderValue>,
    /// User-Agent, as received.
    pub user_agent: Option<HeaderValue>,
    /// The site it belonged to.
    pub site: Option<SiteId>,
    /// The status sent.
    pub status: StatusCode,
    /// Body bytes handed to the connection.
    pub body_bytes: u64,
    /// The body was sent whole.
    pub complete: bool,
    /// How the cache handled it.
    pub outcome: Outcome,
    /// Why it was refused before anything was looked up.
    pub refusal: Option<Refusal>,
    /// The error of ours it ended in.
    pub error: Option<ProxyError>,
    /// The backend that was asked.
    pub backend: Option<Arc<str>>,
}

/// Takes the reports; called once a request, when its body has ended. Must be quick.
pub trait Sink: Send + Sync {
    /// Takes one.
    fn take(&self, report: Report);
}

/// What to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// Absolute URLs, each with all its variants; at most 1,000.
    Urls(Vec<String>),
}

/// What a purge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place among fills and purges; fills with a smaller one are gone. Names the purge.
    pub sequence: Sequence,
    /// When it took hold.
    pub at: SystemTime,
    /// How many entries it removed at once; unknown for purges that work by a mark.
    pub entries: Option<u64>,
    /// It is in the journal: it holds after a crash. False while the disk has failed.
    pub durable: bool,
}

/// Why a purge was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// Not an absolute http or https URL.
    #[error("not an absolute http or https url: {0}")]
    BadUrl(String),
    /// No site has this host.
    #[error("no site serves {0}")]
    NoSite(String),
    /// Too many in one call.
    #[error("at most {0} urls in one purge")]
    TooMany(usize),
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
    /// Entries evicted to make room.
    pub evicted: u64,
    /// The disk.
    pub disk: Usage,
    /// Why the store passes through, when it does.
    pub pass_through: Option<Arc<str>>,
    /// Backends: name, usable.
    pub backends: Vec<(Arc<str>, bool)>,
}
