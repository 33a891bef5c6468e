//! TLS at the front: one handshake, from a socket to a stream, a protocol and a client's identity.
//!
//! ```text
//! ClientHello ─► a proof that a name is ours is wanted ─► that, and the end: see `proof`
//!      ─► name asked for ─┬─ no certificate, and one may be obtained ─► wait for it
//!                         ├─ none of ours, and such are refused ──────► alert
//!                         └─ a place among the handshakes
//!      ─► the site's rules for clients ─► a rustls config ─► table: the certificate ─► Secured
//! ```
//!
//! TLS 1.2 and 1.3 with rustls's own choice of suites and X25519MLKEM768 before other key
//! exchanges. HTTP starts above; what a request then may ask for is `rules::identity`'s. A site
//! that asks for client certificates has a rustls config of its own that resumes nothing: each
//! connection is verified against the authorities of today, and no ticket from elsewhere stands in
//! for a certificate.

pub mod certificate;
mod clients;
mod files;
mod proof;
pub mod table;
mod tickets;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::CipherSuite;
use rustls::ProtocolVersion;
use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::Acceptor;
use rustls::server::NoClientAuth;
use rustls::server::NoServerSessionStorage;
use rustls::server::ProducesTickets;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::NetError;
use crate::net::io::Carrier;
use crate::net::io::Socket;
use crate::net::tls::certificate::Certificate;
use crate::net::tls::certificate::CertificateError;
use crate::net::tls::files::Stamp;
use crate::net::tls::files::Watched;
use crate::net::tls::proof::Proofs;
use crate::net::tls::table::Table;
use crate::rules::identity::CertificatePolicy;
use crate::rules::identity::Identity;
use crate::rules::request::Cipher;
use crate::rules::route::Routes;
use crate::rules::route::SiteId;

pub use crate::net::tls::clients::ClientRules;
pub use crate::net::tls::files::Files;
pub use crate::net::tls::files::Refreshed;
pub use crate::net::tls::proof::Demand;
pub use crate::net::tls::proof::OnDemand;
pub use crate::net::tls::tickets::INTERVAL_MAX;

/// What TLS listeners are to be.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where certificates are; the first is shown to whom no other fits.
    pub certificates: Vec<Files>,
    /// More will be obtained while it runs, so there may be none to begin with.
    pub obtains: bool,
    /// What becomes of clients that ask for no name, or for one that no certificate is for.
    pub unknown_name: UnknownName,
    /// What is offered by ALPN, the preferred first.
    pub alpn: Vec<Protocol>,
    /// The oldest version that is spoken.
    pub version_min: Version,
    /// How long a key of session tickets is used; zero: there are no tickets.
    pub ticket_rotation: Duration,
    /// Most handshakes under way past the ClientHello; more wait within their time limit.
    pub handshakes_max: usize,
    /// Names to sites.
    pub routes: Routes,
    /// The sites that ask clients for certificates.
    pub clients: Vec<(SiteId, ClientRules)>,
}

/// What becomes of clients that no certificate fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// They are shown the first certificate.
    #[default]
    First,
    /// They are refused with the alert `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

/// What is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// Its name in ALPN (RFC 7301 §6).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A finished handshake.
pub(super) struct Secured {
    /// What to speak HTTP over.
    pub(super) stream: TlsStream<Socket>,
    /// What HTTP to speak.
    pub(super) protocol: Protocol,
    /// What the client is, where the site it asked for has rules for that.
    pub(super) identity: Option<Arc<Identity>>,
    /// What it agreed on.
    pub(super) cipher: Option<Cipher>,
    /// The client came back with a ticket.
    pub(super) resumed: bool,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeFailure {
    /// The client gave up with an alert: mostly it does not trust the certificate.
    Alert,
    /// The client speaks none of the protocols by ALPN.
    Alpn,
    /// The client's certificate is missing, cannot be verified or has no usable name.
    ClientCertificate,
    /// The connection ended.
    Closed,
    /// There was no place among the handshakes in time.
    Crowded,
    /// No version, suite or key exchange in common.
    Incompatible,
    /// Bytes that are no TLS.
    Malformed,
    /// The client broke the protocol, or its handshake failed in another way.
    Protocol,
    /// The client took too long.
    Timeout,
    /// No certificate is for the name, and such names are refused.
    UnknownName,
}

impl HandshakeFailure {
    /// The fixed word that names the reason in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Alpn => "alpn",
            Self::ClientCertificate => "client-certificate",
            Self::Closed => "closed",
            Self::Crowded => "crowded",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::UnknownName => "unknown-name",
        }
    }

    fn of(error: &io::Error) -> Self {
        let inner = error.get_ref();
        let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() == io::ErrorKind::TimedOut {
                true => Self::Timeout,
                false => Self::Closed,
            };
        };
        if matches!(error, rustls::Error::AlertReceived(_)) {
            Self::Alert
        } else if matches!(error, rustls::Error::NoApplicationProtocol) {
            Self::Alpn
        } else if matches!(error, rustls::Error::PeerIncompatible(_)) {
            Self::Incompatible
        } else if matches!(error, rustls::Error::InvalidMessage(_)) {
            Self::Malformed
        } else if matches!(
            error,
            rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)
        ) {
            Self::ClientCertificate
        } else {
            Self::Protocol
        }
    }
}

/// A certificate as people are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it came from.
    pub source: String,
    /// The DNS names it is for.
    pub names: Vec<String>,
    /// When it expires.
    pub not_after: SystemTime,
    /// An OCSP response is stapled.
    pub stapled: bool,
    /// What is wrong with the files it came from, if anything.
    pub trouble: Option<String>,
}

/// What TLS listeners share: certificates, rules for clients, the keys of session tickets.
pub struct Front {
    provider: Arc<CryptoProvider>,
    /// Certificates by name. Whoever obtains some at run time puts them here.
    table: Arc<Table>,
    /// A handshake goes by the one it began with.
    setup: ArcSwap<Setup>,
    /// Whoever holds it may change the setup.
    watched: Mutex<Watch>,
    proofs: Proofs,
    taken: AtomicU64,
    refused: AtomicU64,
}

/// What the params come to.
#[derive(Clone)]
struct Setup {
    params: Params,
    tickets: Option<Arc<dyn ProducesTickets>>,
    /// For clients of sites that ask for no certificate.
    open: Arc<ServerConfig>,
    closed: Closed,
    places: Arc<Semaphore>,
}

/// Other params, with everything read that they name.
pub struct Next {
    setup: Setup,
    watch: Watch,
}

/// Configs for the sites that ask for certificates.
type Closed = HashMap<SiteId, (Arc<ServerConfig>, CertificatePolicy)>;

/// The files, as they were last seen.
struct Watch {
    certificates: Watched,
    /// Of each site's authorities, in the order of the params, with what is wrong with them.
    authorities: Vec<(Stamp, Option<String>)>,
}

impl Front {
    /// Reads all files.
    pub fn new(params: Params, now: SystemTime) -> Result<Self, NetError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let table = Arc::new(Table::default());
        let Next { setup, watch } = Next::read(params, &provider, &table, None)?;
        let front = Self {
            provider,
            table,
            setup: ArcSwap::from_pointee(setup),
            watched: Mutex::new(watch),
            proofs: Proofs::default(),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        front.show(&lock(&front.watched).certificates);
        front.refresh(false, now);
        Ok(front)
    }

    /// Reads all files that other params name, and changes nothing.
    pub fn prepare(&self, params: Params) -> Result<Next, NetError> {
        let before = self.setup.load_full();
        Next::read(params, &self.provider, &self.table, Some(&before))
    }

    /// Goes by other params from the next handshake on. Certificates that did not come from files
    /// stay, and so do sessions, unless the rotation of their keys has changed. Lists the files whose
    /// certificate is not the one they held before.
    pub fn adopt(&self, next: Next, now: SystemTime) -> Vec<String> {
        let before = self.table.all();
        let read = next.setup.params.certificates.len() + next.setup.params.clients.len();
        let mut watch = lock(&self.watched);
        *watch = next.watch;
        // Whoever finds the new rules finds the certificates for them.
        self.show(&watch.certificates);
        self.setup.store(Arc::new(next.setup));
        drop(watch);
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        self.refresh(false, now);
        let mut renewed = self.table.all();
        renewed.retain(|now| {
            let mut before = before.iter();
            before.any(|then| then.source() == now.source() && then.key().cert != now.key().cert)
        });
        let sources = renewed.iter().map(|now| now.source().to_owned());
        sources.collect()
    }

    /// The certificates by name, for whoever adds some at run time.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Makes a certificate for the table of a chain, the server's own certificate first, and its
    /// key. `source` says to people where it came from.
    pub fn certificate(
        &self,
        source: String,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certificate, CertificateError> {
        Certificate::new(source, chain, key, &self.provider)
    }

    /// Shows a certificate to whoever asks for a proof of `name` (RFC 8737), until it is cleared.
    pub fn show_proof(
        &self,
        name: String,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), CertificateError> {
        let shown = self.proofs.show(name, certificate, key, &self.provider);
        shown.map_err(CertificateError::Tls)
    }

    /// Shows no proof of `name` any longer.
    pub fn clear_proof(&self, name: &str) {
        self.proofs.clear(name);
    }

    /// Asks for certificates that clients want and are not there; or no longer.
    pub fn ask_from_now_on(&self, whom: Option<OnDemand>) {
        self.proofs.ask_from_now_on(whom);
    }

    /// Takes up files that have changed, or reads every file if `all`. What cannot be used is
    /// logged, counted and left alone: the old stays in use. Connections are not touched. Blocks.
    pub fn refresh(&self, all: bool, now: SystemTime) -> Refreshed {
        let mut watch = lock(&self.watched);
        let mut refreshed = watch.certificates.refresh(all, now, &self.provider);
        // A response that was taken off because it is over counts as nothing, but shows.
        self.show(&watch.certificates);
        let setup = self.setup.load_full();
        for (number, (site, rules)) in setup.params.clients.iter().enumerate() {
            let stamp = files::stamp(&rules.authorities);
            let Some(seen) = watch.authorities.get_mut(number) else {
                continue;
            };
            if all || stamp != seen.0 {
                let read = self.take_authorities(*site, rules);
                match &read {
                    Ok(()) => refreshed.taken += 1,
                    Err(_) => refreshed.refused += 1,
                }
                *seen = (stamp, read.err().map(|error| error.to_string()));
            }
        }
        drop(watch);
        if let Some(tickets) = &setup.tickets {
            tickets::rotate(tickets.as_ref());
        }
        self.taken.fetch_add(refreshed.taken, Ordering::Relaxed);
        self.refused.fetch_add(refreshed.refused, Ordering::Relaxed);
        refreshed
    }

    /// Lists the certificates.
    pub fn certificates(&self) -> Vec<Status> {
        let watch = lock(&self.watched);
        let troubles: HashMap<&str, &str> = watch
            .certificates
            .current()
            .filter_map(|(certificate, trouble)| Some((certificate.source(), trouble?)))
            .collect();
        let all = self.table.all();
        let status = |certificate: &Arc<Certificate>| Status {
            source: certificate.source().to_owned(),
            names: certificate.names().to_vec(),
            not_after: certificate.not_after(),
            stapled: certificate.staple_until().is_some(),
            trouble: troubles
                .get(certificate.source())
                .map(|why| (*why).to_owned()),
        };
        all.iter().map(status).collect()
    }

    /// How often changed files were taken up and could not be.
    pub fn refreshed(&self) -> Refreshed {
        Refreshed {
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Does a handshake within `limit`; none when it was only for a proof of a name. Dropping this
    /// half-way drops the connection.
    pub(super) async fn accept(
        &self,
        socket: Socket,
        limit: Duration,
    ) -> Result<Option<Secured>, HandshakeFailure> {
        let deadline = Instant::now() + limit;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let mut start = within(deadline, hello).await?;
        let hello = start.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if let Some(config) = self.proofs.asked(&hello, name.as_deref()) {
            let mut stream = within(deadline, start.into_stream(config)).await?;
            drop(timeout_at(deadline, stream.shutdown()).await);
            return Ok(None);
        }
        let known = match &name {
            Some(name) => self.table.knows(name) || self.obtain(name, deadline).await,
            None => false,
        };
        let setup = self.setup.load_full();
        let refuses = setup.params.unknown_name == UnknownName::Refuse || self.table.is_empty();
        if !known && refuses {
            let said = async {
                start.io.write_all(UNRECOGNIZED_NAME).await?;
                start.io.shutdown().await
            };
            drop(timeout_at(deadline, said).await);
            return Err(HandshakeFailure::UnknownName);
        }
        let place = timeout_at(deadline, setup.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(HandshakeFailure::Crowded);
        };
        // Who asks for no name gets the rules of the site for every host.
        let site = setup
            .params
            .routes
            .site(name.as_deref().unwrap_or_default());
        let rules = site.and_then(|site| setup.closed.get(&site).cloned());
        let (config, policy) = match rules {
            Some((config, policy)) => (config, Some(policy)),
            None => (Arc::clone(&setup.open), None),
        };
        let stream = within(deadline, start.into_stream(config)).await?;
        let (_, session) = stream.get_ref();
        Ok(Some(Secured {
            protocol: match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
            identity: policy.map(|policy| identify(policy, session)).transpose()?,
            cipher: cipher(session),
            resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            stream,
        }))
    }

    /// Has a certificate obtained for a name that has none, if that may be, and says whether there
    /// is one now.
    async fn obtain(&self, name: &str, deadline: Instant) -> bool {
        let Some(answer) = self.proofs.demand(name) else {
            return false;
        };
        // Ends when the other side is dropped: whether there is one now, the table knows.
        drop(timeout_at(deadline, answer).await);
        self.table.knows(name)
    }

    /// Puts the certificates from files into use.
    fn show(&self, watched: &Watched) {
        let current = watched.current();
        let current = current.map(|(certificate, _)| Arc::clone(certificate));
        self.table.replace(FILES, current.collect());
    }

    fn take_authorities(&self, site: SiteId, rules: &ClientRules) -> Result<(), NetError> {
        let before = self.setup.load_full();
        let make = Make {
            params: &before.params,
            provider: &self.provider,
            table: &self.table,
        };
        let config = rules
            .verifier(&self.provider)
            .and_then(|verifier| make.config(verifier, None));
        match config {
            Ok(config) => {
                let mut setup = Setup::clone(&before);
                setup.closed.insert(site, (config, rules.policy.clone()));
                self.setup.store(Arc::new(setup));
                let file = rules.authorities.display();
                tracing::info!(%file, "read the authorities for client certificates again");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the old authorities stay in use");
                Err(error)
            }
        }
    }
}

impl Next {
    /// Reads all files. Keys of tickets and places of handshakes are those of `before`, unless it
    /// had others in mind.
    fn read(
        params: Params,
        provider: &Arc<CryptoProvider>,
        table: &Arc<Table>,
        before: Option<&Setup>,
    ) -> Result<Self, NetError> {
        let certificates = Watched::new(&params.certificates, provider)?;
        let first = params.certificates.first();
        let file = first.map_or(Path::new(""), |files| &files.cert);
        if first.is_none() && !params.obtains {
            return Err(files::refuse(file, "none is given"));
        }
        let rotation = params.ticket_rotation;
        let same = before.filter(|before| before.params.ticket_rotation == rotation);
        let tickets = match same {
            Some(before) => before.tickets.clone(),
            None if rotation.is_zero() => None,
            None => {
                let keys = tickets::rotating(rotation);
                Some(keys.map_err(|error| files::refuse(file, &error))?)
            }
        };
        let places = params.handshakes_max.min(Semaphore::MAX_PERMITS);
        let same = before.filter(|before| before.params.handshakes_max == params.handshakes_max);
        let places = match same {
            Some(before) => Arc::clone(&before.places),
            None => Arc::new(Semaphore::new(places)),
        };
        let make = Make {
            params: &params,
            provider,
            table,
        };
        let open = make.config(Arc::new(NoClientAuth), tickets.as_ref())?;
        let mut closed = Closed::new();
        let mut authorities = Vec::new();
        for (site, rules) in &params.clients {
            authorities.push((files::stamp(&rules.authorities), None));
            let config = make.config(rules.verifier(provider)?, None)?;
            closed.insert(*site, (config, rules.policy.clone()));
        }
        Ok(Self {
            watch: Watch {
                certificates,
                authorities,
            },
            setup: Setup {
                params,
                tickets,
                open,
                closed,
                places,
            },
        })
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front")
            .field("params", &self.setup.load().params)
            .finish_non_exhaustive()
    }
}

impl Carrier for TlsStream<Socket> {
    fn socket(&self) -> &Socket {
        self.get_ref().0
    }
}

/// Reads a certificate's files and says what is wrong with them; an OCSP response that is not good
/// is wrong too.
pub fn check_files(files: &Files) -> Result<(), NetError> {
    let loaded = files.load(&aws_lc_rs::default_provider())?;
    loaded.trouble.map_or(Ok(()), Err)
}

/// Reads a file of authorities for client certificates and says what is wrong with it.
pub fn check_authorities(rules: &ClientRules) -> Result<(), NetError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    rules.verifier(&provider).map(|_| ())
}

/// What rustls configs are made of.
struct Make<'f> {
    params: &'f Params,
    provider: &'f Arc<CryptoProvider>,
    table: &'f Arc<Table>,
}

impl Make<'_> {
    /// Makes a config. Without tickets it resumes nothing at all.
    fn config(
        &self,
        clients: Arc<dyn ClientCertVerifier>,
        tickets: Option<&Arc<dyn ProducesTickets>>,
    ) -> Result<Arc<ServerConfig>, NetError> {
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        const NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
        let versions = match self.params.version_min {
            Version::Tls12 => BOTH,
            Version::Tls13 => NEWEST,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(self.provider))
            .with_protocol_versions(versions)
            .map_err(|error| files::refuse("", &error))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(self.table) as _);
        let names = self.params.alpn.iter().map(|protocol| protocol.as_str());
        config.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).collect();
        // The suites are all good, and ours come with the fastest first.
        config.ignore_client_order = true;
        // Secrets of sessions are with clients, in tickets, or nowhere.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match tickets {
            Some(tickets) => config.ticketer = Arc::clone(tickets),
            None => config.send_tls13_tickets = 0,
        }
        Ok(Arc::new(config))
    }
}

/// Waits for a step of a handshake.
async fn within<T>(
    deadline: Instant,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, HandshakeFailure> {
    match timeout_at(deadline, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(HandshakeFailure::of(&error)),
        Err(_) => Err(HandshakeFailure::Timeout),
    }
}

/// Says who a client is that has passed `policy`. Who shows a certificate must have a name.
fn identify(
    policy: CertificatePolicy,
    session: &rustls::ServerConnection,
) -> Result<Arc<Identity>, HandshakeFailure> {
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let name = shown.map(|certificate| clients::name(certificate));
    let name = match name {
        Some(None) => return Err(HandshakeFailure::ClientCertificate),
        Some(name) => name,
        None if policy.required => return Err(HandshakeFailure::ClientCertificate),
        None => None,
    };
    let site = policy.site;
    Ok(Arc::new(Identity { site, name }))
}

/// Names what a handshake agreed on.
fn cipher(session: &rustls::ServerConnection) -> Option<Cipher> {
    let version = match session.protocol_version()? == ProtocolVersion::TLSv1_3 {
        true => "TLSv1.3",
        // There are no older ones here.
        false => "TLSv1.2",
    };
    let suite = session.negotiated_cipher_suite()?.suite();
    let named = SUITES.iter().find(|(known, _)| *known == suite);
    let suite = named.map(|(_, name)| *name).or(suite.as_str());
    Some(Cipher {
        version,
        suite: suite.unwrap_or("unknown"),
    })
}

fn lock(watched: &Mutex<Watch>) -> std::sync::MutexGuard<'_, Watch> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The owner of the certificates that come from files.
const FILES: &str = "files";

/// The suites whose names IANA writes otherwise than `rustls`.
const SUITES: [(CipherSuite, &str); 3] = [
    (
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        "TLS_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
];

/// A record with the fatal alert 112 (RFC 8446 §6, RFC 6066 §3).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use std::fs;
    use std::path::PathBuf;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject;
    use tempfile::TempDir;
    use tokio::net::TcpStream;

    pub(super) const BORN: SystemTime = SystemTime::UNIX_EPOCH;

    /// A client that offers HTTP/2 and HTTP/1.1 and trusts one front's certificate.
    pub(in crate::net) struct Client(tokio_rustls::TlsConnector);

    impl Client {
        pub(in crate::net) async fn connect(
            &self,
            tcp: TcpStream,
        ) -> tokio_rustls::client::TlsStream<TcpStream> {
            let name = ServerName::try_from("a.test").unwrap();
            let stream = self.0.connect(name, tcp).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            stream
        }
    }

    /// Makes a front for `a.test` and a client for it.
    pub(in crate::net) fn front_and_client() -> (Arc<Front>, Client) {
        let dir = TempDir::new().unwrap();
        let files = issue(&dir, &["a.test"]);
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&files.cert).unwrap())
            .unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let front = Front::new(params(vec![files]), BORN).unwrap();
        (Arc::new(front), Client(Arc::new(config).into()))
    }

    pub(super) fn params(certificates: Vec<Files>) -> Params {
        Params {
            certificates,
            obtains: false,
            unknown_name: UnknownName::First,
            alpn: vec![Protocol::Http1],
            version_min: Version::Tls12,
            ticket_rotation: Duration::from_secs(60),
            handshakes_max: 10,
            routes: Routes::default(),
            clients: Vec::new(),
        }
    }

    /// Writes a certificate for `names` and its key.
    pub(super) fn issue(dir: &TempDir, names: &[&str]) -> Files {
        let stem = names[0].replace('*', "any");
        let issued = rcgen::generate_simple_self_signed(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let cert = dir.path().join(format!("{stem}.pem"));
        let key = dir.path().join(format!("{stem}.key"));
        fs::write(&cert, issued.cert.pem()).unwrap();
        fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        Files {
            cert,
            key,
            staple: None,
        }
    }

    fn refusal(cert: &Path, key: &Path) -> String {
        let files = Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
            staple: None,
        };
        check_files(&files).unwrap_err().to_string()
    }

    fn pair(dir: &TempDir, name: &str) -> (PathBuf, PathBuf) {
        let files = issue(dir, &[name]);
        (files.cert, files.key)
    }

    #[test]
    fn a_certificate_with_its_key_is_taken() {
        let dir = TempDir::new().unwrap();
        assert!(check_files(&issue(&dir, &["a.test"])).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = pair(&dir, "a.test");
        let missing = dir.path().join("missing.pem");
        assert!(refusal(&missing, &key).contains("missing.pem: No such file"));
        assert!(refusal(&cert, &missing).contains("missing.pem: No such file"));
    }

    #[test]
    fn a_file_without_what_is_looked_for_is_named() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = pair(&dir, "a.test");
        assert!(refusal(&key, &key).contains("a.test.key: no certificate in it"));
        assert!(refusal(&cert, &cert).contains("no unencrypted private key in it"));
    }

    #[test]
    fn a_broken_certificate_is_refused_without_a_panic() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = pair(&dir, "a.test");
        for text in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&cert, text).unwrap();
            assert!(refusal(&cert, &key).starts_with("could not use certificate"));
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dir = TempDir::new().unwrap();
        let (cert, _) = pair(&dir, "a.test");
        let (_, key) = pair(&dir, "b.test");
        assert!(refusal(&cert, &key).contains("b.test.key is not its key"));
    }

    #[test]
    fn no_certificate_at_all_is_an_error_unless_some_are_obtained() {
        assert!(Front::new(params(Vec::new()), BORN).is_err());
        let obtains = Params {
            obtains: true,
            ..params(Vec::new())
        };
        assert!(Front::new(obtains, BORN).is_ok());
    }

    /// A certificate for `name` and its key.
    fn pair_of(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = issued.signing_key.serialize_der();
        (issued.cert.der().clone(), PrivateKeyDer::Pkcs8(key.into()))
    }

    /// What a client that offers these protocols is shown for `name`, and what the front says of it.
    async fn meet(
        front: &Front,
        name: &str,
        offered: &[&[u8]],
    ) -> (
        Option<CertificateDer<'static>>,
        Result<bool, HandshakeFailure>,
    ) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (served, _) = listener.accept().await.unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = tokio_rustls::TlsConnector::from(Arc::new(config));
        let client = client.connect(name, tcp);
        let served = Socket::new(served, Duration::from_secs(9));
        let (came, said) = tokio::join!(client, front.accept(served, Duration::from_secs(9)));
        let shown = came.ok().and_then(|stream| {
            let chain = stream.get_ref().1.peer_certificates()?;
            chain.first().cloned()
        });
        (shown, said.map(|secured| secured.is_some()))
    }

    #[derive(Debug)]
    struct Trusting;

    impl rustls::client::danger::ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            let provider = aws_lc_rs::default_provider();
            provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    #[tokio::test]
    async fn a_proof_is_for_who_asks_for_nothing_else() {
        let (front, _) = front_and_client();
        let (proof, key) = pair_of("a.test");
        let own = front.table().all()[0].key().cert[0].clone();
        front
            .show_proof("a.test".to_owned(), proof.clone(), key)
            .unwrap();
        let asked: &[&[u8]] = &[b"acme-tls/1"];
        assert_eq!(
            meet(&front, "a.test", asked).await,
            (Some(proof), Ok(false))
        );
        let alpn = Err(HandshakeFailure::Alpn);
        assert_eq!(meet(&front, "b.test", asked).await, (None, alpn));
        let both: &[&[u8]] = &[b"http/1.1", b"acme-tls/1"];
        assert_eq!(
            meet(&front, "a.test", both).await,
            (Some(own.clone()), Ok(true))
        );
        assert_eq!(meet(&front, "a.test", &[]).await, (Some(own), Ok(true)));
        front.clear_proof("a.test");
        assert_eq!(meet(&front, "a.test", asked).await, (None, alpn));
    }

    #[tokio::test]
    async fn a_handshake_waits_for_the_certificate_it_asks_for() {
        let obtains = Params {
            obtains: true,
            unknown_name: UnknownName::Refuse,
            ..params(Vec::new())
        };
        let front = Front::new(obtains, BORN).unwrap();
        let (ask, mut asked) = tokio::sync::mpsc::channel(9);
        let allowed = [("*.shops.test".to_owned(), SiteId(0))];
        let allowed = Arc::new(Routes::new(allowed).unwrap());
        front.ask_from_now_on(Some(OnDemand { allowed, ask }));
        let (certificate, key) = pair_of("a.shops.test");
        let obtaining = async {
            let demand = asked.recv().await.unwrap();
            assert_eq!(demand.name, "a.shops.test");
            let chain = vec![certificate.clone()];
            let made = front.certificate("test".to_owned(), chain, key).unwrap();
            front.table().replace("test", vec![Arc::new(made)]);
            drop(demand.answered);
        };
        let (met, ()) = tokio::join!(meet(&front, "a.shops.test", &[]), obtaining);
        assert_eq!(met, (Some(certificate), Ok(true)));
        let giving_up = async { drop(asked.recv().await) };
        let (met, ()) = tokio::join!(meet(&front, "b.shops.test", &[]), giving_up);
        assert_eq!(met, (None, Err(HandshakeFailure::UnknownName)));
    }

    #[test]
    fn every_failure_has_a_word_of_its_own() {
        let io = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let alert = rustls::AlertDescription::UnknownCA;
        for (error, token) in [
            (io(rustls::Error::AlertReceived(alert)), "alert"),
            (io(rustls::Error::NoApplicationProtocol), "alpn"),
            (
                io(rustls::Error::NoCertificatesPresented),
                "client-certificate",
            ),
            (
                io(rustls::PeerIncompatible::NoCipherSuitesInCommon.into()),
                "incompatible",
            ),
            (
                io(rustls::InvalidMessage::InvalidContentType.into()),
                "malformed",
            ),
            (io(rustls::Error::DecryptError), "protocol"),
            (io::ErrorKind::UnexpectedEof.into(), "closed"),
            (io::ErrorKind::TimedOut.into(), "timeout"),
        ] {
            assert_eq!(HandshakeFailure::of(&error).token(), token, "{error}");
        }
    }

    #[tokio::test]
    async fn who_gets_no_place_in_time_is_turned_away() {
        let (front, client) = front_and_client();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = tokio::spawn(async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("a.test").unwrap();
            client.0.connect(name, tcp).await.is_ok()
        });
        let setup = front.setup.load_full();
        let all = u32::try_from(setup.params.handshakes_max).unwrap();
        let _held = setup.places.acquire_many(all).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let socket = Socket::new(tcp, Duration::from_secs(9));
        let refused = front.accept(socket, Duration::from_millis(300)).await.err();
        assert_eq!(refused, Some(HandshakeFailure::Crowded));
        assert!(!asking.await.unwrap());
    }

    #[test]
    fn post_quantum_key_exchange_is_preferred() {
        let groups = aws_lc_rs::default_provider().kx_groups;
        assert_eq!(groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
