//! The thread that obtains certificates and keeps them fresh.
//!
//! ```text
//! state::orders ─ which name, when ─► acme::Authority::order ─► file, table ─► state::orders
//!        ▲                                   │ proofs
//!        └─ net::tls: a client asks          └─► net::tls (TLS-ALPN-01), flow (HTTP-01)
//! ```
//!
//! It has a runtime of its own, so that neither a slow authority nor a slow disk holds up a worker.
//! What was obtained before is read and shown before the first client comes.

use crate::acme::AcmeError;
use crate::acme::Authority;
use crate::acme::Challenge;
use crate::acme::Issued;
use crate::acme::Proof;
use crate::acme::Stage;
use crate::clock;
use crate::config::acme as plan;
use crate::flow::Engine;
use crate::net::tls::Demand;
use crate::net::tls::Front;
use crate::net::tls::OnDemand;
use crate::net::tls::certificate::Certificate;
use crate::ops::metrics;
use crate::state::orders::Ask;
use crate::state::orders::Fault;
use crate::state::orders::Life;
use crate::state::orders::Orders;
use anyhow::Context;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task;
use tokio::task::JoinError;
use tokio::task::JoinSet;

/// The running thread.
pub(super) struct Acme {
    thread: JoinHandle<()>,
    plans: watch::Sender<Next>,
    book: Arc<Mutex<Book>>,
}

/// A plan, and the authority that it names, ready for use.
#[derive(Clone)]
pub(super) struct Next {
    plan: plan::Acme,
    authority: Arc<Authority>,
}

impl Next {
    /// Reads what the plan names, and makes its folder.
    pub(super) fn prepare(plan: plan::Acme) -> Result<Self, AcmeError> {
        let authority = Authority::new(plan.authority.clone(), clock::now)?;
        Ok(Self {
            plan,
            authority: Arc::new(authority),
        })
    }
}

impl Acme {
    /// Shows what was obtained before, and obtains from now on what is missing.
    pub(super) fn start(
        next: Next,
        front: Arc<Front>,
        engine: Arc<Engine>,
    ) -> anyhow::Result<Self> {
        let (ask, demands) = mpsc::channel(DEMANDS_MAX);
        let (plans, planned) = watch::channel(next.clone());
        let work = Work::new(next, front, engine, ask);
        let book = Arc::clone(&work.book);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            runtime.block_on(work.run(planned, demands));
            // A name server that hangs is nothing to wait for.
            runtime.shutdown_timeout(Duration::ZERO);
        };
        let thread = thread::Builder::new().name("acme".to_owned());
        let thread = thread
            .spawn(run)
            .context("could not start the thread that obtains certificates")?;
        Ok(Self {
            thread,
            plans,
            book,
        })
    }

    /// Goes by another plan from now on. Certificates in use stay as long as their names are wanted.
    pub(super) fn replace(&self, next: Next) {
        self.plans.send_replace(next);
    }

    /// Tells of the names and their orders.
    pub(super) fn tell(&self) -> metrics::Acme {
        lock(&self.book).tell()
    }

    /// Ends the thread and waits for it. Orders under way are given up, and what was obtained is
    /// no longer shown.
    pub(super) fn stop(self) {
        drop(self.plans);
        if self.thread.join().is_err() {
            tracing::error!("the thread that obtains certificates ended badly");
        }
    }
}

/// What is known of orders; the thread writes it and the admin listener reads it.
struct Book {
    directory: String,
    orders: Orders,
    issued: u64,
    failed: u64,
    refused: u64,
}

impl Book {
    fn tell(&self) -> metrics::Acme {
        let (outages, resume_at) = self.orders.outage();
        metrics::Acme {
            directory: self.directory.clone(),
            names: self.orders.tell(),
            issued: self.issued,
            failed: self.failed,
            refused: self.refused,
            outages,
            resume_at,
        }
    }
}

/// Where proofs are shown: over TLS by the front, over HTTP by the engine.
struct House {
    front: Arc<Front>,
    engine: Arc<Engine>,
}

impl Stage for House {
    fn show(&self, proof: Proof) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match proof {
            Proof::Http { token, answer } => self.engine.prove(&token, Some(&answer)),
            Proof::Tls {
                name,
                certificate,
                key,
            } => self.front.show_proof(name, certificate, key)?,
        }
        Ok(())
    }

    fn clear(&self, challenge: Challenge, what: &str) {
        match challenge {
            Challenge::Http01 => self.engine.prove(what, None),
            Challenge::TlsAlpn01 => self.front.clear_proof(what),
        }
    }
}

/// What the thread works on.
struct Work {
    plan: plan::Acme,
    authority: Arc<Authority>,
    house: Arc<House>,
    book: Arc<Mutex<Book>>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    orders: JoinSet<Result<Issued, AcmeError>>,
    /// Which name each of them is for.
    names: HashMap<task::Id, String>,
    /// Clients in a handshake, by the name they wait for.
    waiting: HashMap<String, Vec<oneshot::Sender<()>>>,
    ask: mpsc::Sender<Demand>,
}

impl Work {
    fn new(next: Next, front: Arc<Front>, engine: Arc<Engine>, ask: mpsc::Sender<Demand>) -> Self {
        let Next { plan, authority } = next;
        let book = Book {
            directory: plan.authority.directory.clone(),
            orders: Orders::new(plan.orders.clone()),
            issued: 0,
            failed: 0,
            refused: 0,
        };
        let mut work = Self {
            plan,
            authority,
            house: Arc::new(House { front, engine }),
            book: Arc::new(Mutex::new(book)),
            certificates: BTreeMap::new(),
            orders: JoinSet::new(),
            names: HashMap::new(),
            waiting: HashMap::new(),
            ask,
        };
        work.want();
        work
    }

    /// Works until there is nobody left to say otherwise.
    async fn run(mut self, mut plans: watch::Receiver<Next>, mut demands: mpsc::Receiver<Demand>) {
        loop {
            self.start_due();
            let pause = self.pause();
            tokio::select! {
                changed = plans.changed() => match changed {
                    Ok(()) => {
                        let next = plans.borrow_and_update().clone();
                        self.replace(next);
                    }
                    Err(_) => break,
                },
                Some(demand) = demands.recv() => self.take(demand),
                Some(done) = self.orders.join_next_with_id() => self.finish(done),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.house.front.ask_from_now_on(None);
        self.house.front.table().replace(OWNER, Vec::new());
    }

    /// Looks after the names of the plan: reads what is kept for them and shows it.
    fn want(&mut self) {
        let table = self.house.front.table();
        let names = table.left_to(OWNER, &self.plan.names);
        let allowed = |name: &str| self.plan.ask.site(name).is_some();
        let left_out = lock(&self.book).orders.want(&names, allowed, clock::now());
        if let Some(first) = left_out.first() {
            let count = left_out.len();
            tracing::warn!(count, first, "no certificates are ordered beyond names_max");
        }
        let kept = self.authority.kept(self.plan.orders.names_max);
        let asked = kept.into_iter().filter(|name| allowed(name));
        let wanted = names.iter().cloned().chain(asked).collect::<Vec<_>>();
        for name in wanted {
            if lock(&self.book).orders.holds(&name) {
                continue;
            }
            match self.authority.read(&name) {
                Ok(Some(issued)) => drop(self.found(issued)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a kept certificate is ordered again"),
            }
        }
        self.show();
        let asks = !self.plan.ask.is_empty();
        self.house.front.ask_from_now_on(asks.then(|| OnDemand {
            allowed: Arc::clone(&self.plan.ask),
            ask: self.ask.clone(),
        }));
    }

    /// Takes up a certificate that was kept. One that has expired is better than none.
    fn found(&mut self, issued: Issued) -> Option<()> {
        let (name, certificate) = self.check(issued)?;
        let room = lock(&self.book)
            .orders
            .found(&name, life(&certificate), chance());
        room.then(|| self.certificates.insert(name, certificate))?;
        Some(())
    }

    /// Makes a certificate of what was issued, if it is for the name it should be for.
    fn check(&self, issued: Issued) -> Option<(String, Arc<Certificate>)> {
        let Issued {
            name,
            source,
            chain,
            key,
            unkept,
        } = issued;
        if let Some(error) = unkept {
            tracing::error!(%error, "a new certificate is good until the end of this process only");
        }
        match self.house.front.certificate(source, chain, key) {
            Ok(certificate) if certificate.names().contains(&name) => {
                Some((name, Arc::new(certificate)))
            }
            Ok(certificate) => {
                let source = certificate.source();
                tracing::warn!(name, source, "a certificate is not for its name");
                None
            }
            Err(error) => {
                tracing::warn!(name, %error, "a certificate cannot be used");
                None
            }
        }
    }

    /// Shows the certificates of the names that are looked after.
    fn show(&mut self) {
        let names = lock(&self.book).orders.tell();
        let mut names = names.into_iter().map(|told| told.name).collect::<Vec<_>>();
        names.sort_unstable();
        self.certificates
            .retain(|name, _| names.binary_search(name).is_ok());
        let all = self.certificates.values().cloned().collect();
        self.house.front.table().replace(OWNER, all);
    }

    fn start_due(&mut self) {
        let now = clock::now();
        loop {
            let Some(name) = lock(&self.book).orders.start(now) else {
                return;
            };
            tracing::info!(name, "ordering a certificate");
            let (authority, house) = (Arc::clone(&self.authority), Arc::clone(&self.house));
            let ordered = name.clone();
            let order = async move { authority.order(&ordered, &*house).await };
            let handle = self.orders.spawn(order);
            self.names.insert(handle.id(), name);
        }
    }

    /// How long to sleep if nothing happens. The wall clock is looked at now and then: it may jump.
    fn pause(&self) -> Duration {
        let next = lock(&self.book).orders.next();
        let left = next.map(|next| next.duration_since(clock::now()).unwrap_or_default());
        left.unwrap_or(LOOK_AGAIN).clamp(PAUSE_MIN, LOOK_AGAIN)
    }

    fn take(&mut self, demand: Demand) {
        let Demand { name, answered } = demand;
        let answer = lock(&self.book).orders.ask(&name, clock::now());
        match answer {
            // The client looks again when its sender is dropped.
            Ask::Held => {}
            Ask::Wait => {
                let waiting: usize = self.waiting.values().map(Vec::len).sum();
                if waiting < WAITING_MAX {
                    self.waiting.entry(name).or_default().push(answered);
                }
            }
            Ask::RefuseFailed | Ask::RefuseFull | Ask::RefuseRate => {
                lock(&self.book).refused += 1;
                tracing::debug!(name, ?answer, "no certificate is ordered for a client");
            }
        }
    }

    fn finish(&mut self, done: Result<(task::Id, Result<Issued, AcmeError>), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, done),
            Err(error) => (
                error.id(),
                Err(AcmeError::Refused {
                    reason: format!("the order ended badly: {error}"),
                    retry_at: None,
                }),
            ),
        };
        let Some(name) = self.names.remove(&id) else {
            return;
        };
        let issued = done.and_then(|issued| {
            self.check(issued).ok_or_else(|| AcmeError::Refused {
                reason: "the certificate cannot be used".to_owned(),
                retry_at: None,
            })
        });
        match issued {
            Ok((name, certificate)) => self.issued(name, certificate),
            Err(error) => self.failed(&name, &error),
        }
        // Whoever waits looks now.
        self.waiting.remove(&name);
    }

    fn issued(&mut self, name: String, certificate: Arc<Certificate>) {
        let life = life(&certificate);
        {
            let mut book = lock(&self.book);
            book.issued += 1;
            book.orders.issued(&name, life, chance(), clock::now());
        }
        let until = humantime::format_rfc3339_seconds(certificate.not_after());
        tracing::info!(name, %until, "obtained a certificate");
        self.certificates.insert(name, certificate);
        self.show();
    }

    fn failed(&mut self, name: &str, error: &AcmeError) {
        let fault = match error.is_authority() {
            true => Fault::Authority,
            false => Fault::Name,
        };
        let now = clock::now();
        let why = error.to_string();
        let next = {
            let mut book = lock(&self.book);
            book.failed += 1;
            let retry_at = error.retry_at();
            book.orders
                .failed(name, fault, why, retry_at, chance(), now)
        };
        let wait = next.and_then(|next| next.duration_since(now).ok());
        let wait = wait.map(|wait| humantime::format_duration(rounded(wait)));
        let held = self.certificates.contains_key(name);
        match wait {
            Some(wait) => {
                tracing::warn!(name, held, %error, "could not obtain a certificate; next try in {wait}");
            }
            None => tracing::warn!(name, held, %error, "could not obtain a certificate"),
        }
    }

    fn replace(&mut self, next: Next) {
        let Next { plan, authority } = next;
        if plan.authority != self.plan.authority {
            self.authority = authority;
            // What another authority issued is shown until this one has issued.
            self.orders.abort_all();
            self.names.clear();
            self.waiting.clear();
            let mut book = lock(&self.book);
            book.directory = plan.authority.directory.clone();
            book.orders = Orders::new(plan.orders.clone());
        }
        lock(&self.book).orders.limit(plan.orders.clone());
        self.plan = plan;
        self.want();
    }
}

fn life(certificate: &Certificate) -> Life {
    Life {
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
    }
}

/// A wait as people want to read it.
fn rounded(wait: Duration) -> Duration {
    match wait.as_secs() {
        0 => Duration::from_millis(u64::from(wait.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    }
}

/// Each state is seeded by chance.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The owner of the certificates in the table.
const OWNER: &str = "acme";
/// Names that clients ask for at the same moment; more get what there is.
const DEMANDS_MAX: usize = 64;
/// Clients that wait in a handshake; more get what there is.
const WAITING_MAX: usize = 1024;
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Where a due order cannot start yet, this keeps the thread from spinning.
const PAUSE_MIN: Duration = Duration::from_millis(50);
