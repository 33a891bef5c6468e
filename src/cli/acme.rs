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
use tokio::task;
use tokio::task::JoinError;
use tokio::task::JoinSet;

/// The running thread.
pub(super) struct Acme {
    thread: JoinHandle<()>,
    words: mpsc::Sender<Word>,
    book: Arc<Mutex<Book>>,
}

/// A plan with everything ready that it needs.
pub(super) struct Prepared {
    plan: plan::Acme,
    authority: Authority,
}

/// What the thread is to go by from now on, and whom to tell when it does.
struct Word {
    job: Option<(Prepared, Arc<Front>)>,
    heard: std::sync::mpsc::Sender<()>,
}

impl Prepared {
    /// Opens the folder and reads what is named; changes nothing.
    pub(super) fn new(plan: &plan::Acme) -> Result<Self, AcmeError> {
        let authority = Authority::new(plan.authority.clone(), clock::now)?;
        Ok(Self {
            plan: plan.clone(),
            authority,
        })
    }
}

impl Acme {
    /// Starts the thread; it has nothing to do yet.
    pub(super) fn start(engine: Arc<Engine>) -> anyhow::Result<Self> {
        let (words, heard) = mpsc::channel(1);
        let (ask, demands) = mpsc::channel(DEMANDS_MAX);
        let work = Work::new(engine, ask);
        let book = Arc::clone(&work.book);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            runtime.block_on(work.run(heard, demands));
            // A name server that hangs is nothing to wait for.
            runtime.shutdown_timeout(Duration::ZERO);
        };
        let thread = thread::Builder::new().name("acme".to_owned());
        let thread = thread
            .spawn(run)
            .context("could not start the thread that obtains certificates")?;
        Ok(Self {
            thread,
            words,
            book,
        })
    }

    /// Goes by a plan from now on; none: nothing is obtained or shown any longer. Returns when what
    /// was obtained before is shown, or when reading it takes too long to wait for.
    pub(super) fn adopt(&self, next: Option<Prepared>, front: Option<&Arc<Front>>) {
        let (heard, hear) = std::sync::mpsc::channel();
        let job = next.zip(front.cloned());
        let said = self.words.blocking_send(Word { job, heard });
        if said.is_err() || hear.recv_timeout(ADOPT_WAIT).is_err() {
            tracing::error!("the thread that obtains certificates does not answer");
        }
    }

    /// Returns what tells of the names and their orders, when there are to be some.
    pub(super) fn teller(&self) -> impl Fn() -> Option<metrics::Acme> + Send + Sync + use<> {
        let book = Arc::clone(&self.book);
        move || lock(&book).tell()
    }

    /// Ends the thread and waits for it. Orders under way are given up.
    pub(super) fn stop(self) {
        drop(self.words);
        if self.thread.join().is_err() {
            tracing::error!("the thread that obtains certificates ended badly");
        }
    }
}

/// What is known of orders; the thread writes it and the admin listener reads it.
#[derive(Default)]
struct Book {
    /// None while nothing is to be obtained.
    authority: Option<(String, Orders)>,
    issued: u64,
    failed: u64,
    refused: u64,
}

impl Book {
    fn orders(&mut self) -> Option<&mut Orders> {
        self.authority.as_mut().map(|(_, orders)| orders)
    }

    fn tell(&self) -> Option<metrics::Acme> {
        let (directory, orders) = self.authority.as_ref()?;
        let (outages, resume_at) = orders.outage();
        Some(metrics::Acme {
            directory: directory.clone(),
            names: orders.tell(),
            issued: self.issued,
            failed: self.failed,
            refused: self.refused,
            outages,
            resume_at,
        })
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
    engine: Arc<Engine>,
    job: Option<Job>,
    book: Arc<Mutex<Book>>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    orders: JoinSet<Result<Issued, AcmeError>>,
    /// Which name each of them is for.
    names: HashMap<task::Id, String>,
    waiting: Waiting,
    ask: mpsc::Sender<Demand>,
}

/// From whom, for whom.
#[derive(Clone)]
struct Job {
    plan: plan::Acme,
    authority: Arc<Authority>,
    house: Arc<House>,
}

impl Work {
    fn new(engine: Arc<Engine>, ask: mpsc::Sender<Demand>) -> Self {
        Self {
            engine,
            job: None,
            book: Arc::default(),
            certificates: BTreeMap::new(),
            orders: JoinSet::new(),
            names: HashMap::new(),
            waiting: Waiting::default(),
            ask,
        }
    }

    /// Works until there is nobody left to say otherwise.
    async fn run(mut self, mut words: mpsc::Receiver<Word>, mut demands: mpsc::Receiver<Demand>) {
        loop {
            self.start_due();
            let pause = self.pause();
            tokio::select! {
                word = words.recv() => match word {
                    Some(word) => self.adopt(word),
                    None => return,
                },
                Some(demand) = demands.recv() => self.take(demand),
                Some(done) = self.orders.join_next_with_id() => self.finish(done),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn adopt(&mut self, word: Word) {
        let before = self.job.take();
        if let Some((Prepared { plan, authority }, front)) = word.job {
            let same = before
                .as_ref()
                .filter(|before| before.authority.params() == authority.params());
            // The old one has its account at hand.
            let authority = match same {
                Some(before) => Arc::clone(&before.authority),
                None => Arc::new(authority),
            };
            if same.is_none() {
                self.begin_anew(&plan);
            }
            let engine = Arc::clone(&self.engine);
            let job = Job {
                plan,
                authority,
                house: Arc::new(House { front, engine }),
            };
            self.want(&job);
            self.job = Some(job);
        } else if let Some(Job { house, .. }) = before {
            self.forget_orders();
            lock(&self.book).authority = None;
            self.certificates.clear();
            house.front.table().replace(OWNER, Vec::new());
            house.front.ask_from_now_on(None);
        }
        if word.heard.send(()).is_err() {
            tracing::debug!("who asked has stopped waiting");
        }
    }

    /// Begins with another authority. What the one before issued is shown until this one has issued.
    fn begin_anew(&mut self, plan: &plan::Acme) {
        self.forget_orders();
        let orders = Orders::new(plan.orders.clone());
        lock(&self.book).authority = Some((plan.authority.directory.clone(), orders));
    }

    fn forget_orders(&mut self) {
        self.orders.abort_all();
        self.names.clear();
        self.waiting.0.clear();
    }

    /// Looks after the names of a plan: reads what is kept for them and shows it.
    fn want(&mut self, job: &Job) {
        let (plan, front) = (&job.plan, &job.house.front);
        let names = front.table().left_to(OWNER, &plan.names);
        let allowed = |name: &str| plan.ask.site(name).is_some();
        let left_out = lock(&self.book).orders().map(|orders| {
            orders.limit(plan.orders.clone());
            orders.want(&names, allowed, clock::now())
        });
        let left_out = left_out.unwrap_or_default();
        if let Some(first) = left_out.first() {
            let count = left_out.len();
            tracing::warn!(count, first, "no certificates are ordered beyond names_max");
        }
        let kept = job.authority.kept(plan.orders.names_max);
        let asked = kept.into_iter().filter(|name| allowed(name));
        let wanted = names.iter().cloned().chain(asked).collect::<Vec<_>>();
        for name in wanted {
            let held = lock(&self.book)
                .orders()
                .is_some_and(|orders| orders.holds(&name));
            if held {
                continue;
            }
            match job.authority.read(&name) {
                Ok(Some(issued)) => self.found(job, issued),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a kept certificate is ordered again"),
            }
        }
        self.show(front);
        let asks = !plan.ask.is_empty();
        front.ask_from_now_on(asks.then(|| OnDemand {
            allowed: Arc::clone(&plan.ask),
            ask: self.ask.clone(),
        }));
    }

    /// Takes up a certificate that was kept. One that has expired is better than none.
    fn found(&mut self, job: &Job, issued: Issued) {
        let Some((name, certificate)) = check(job, issued) else {
            return;
        };
        let shown = lock(&self.book)
            .orders()
            .is_some_and(|orders| orders.found(&name, life(&certificate), chance(), clock::now()));
        if shown {
            self.certificates.insert(name, certificate);
        }
    }

    /// Shows the certificates of the names that are looked after.
    fn show(&mut self, front: &Front) {
        if let Some(orders) = lock(&self.book).orders() {
            self.certificates.retain(|name, _| orders.shows(name));
        }
        let all = self.certificates.values().cloned().collect();
        front.table().replace(OWNER, all);
    }

    fn start_due(&mut self) {
        let Some(job) = &self.job else {
            return;
        };
        let next = || lock(&self.book).orders()?.start(clock::now());
        while let Some(name) = next() {
            tracing::info!(name, "ordering a certificate");
            let (authority, house) = (Arc::clone(&job.authority), Arc::clone(&job.house));
            let ordered = name.clone();
            let order = async move { authority.order(&ordered, &*house).await };
            let handle = self.orders.spawn(order);
            self.names.insert(handle.id(), name);
        }
    }

    /// How long to sleep if nothing happens. The wall clock is looked at now and then: it may jump.
    fn pause(&self) -> Duration {
        if self.job.is_none() {
            return IDLE;
        }
        let next = lock(&self.book).orders().and_then(|orders| orders.next());
        let left = next.map(|next| next.duration_since(clock::now()).unwrap_or_default());
        left.unwrap_or(LOOK_AGAIN).clamp(PAUSE_MIN, LOOK_AGAIN)
    }

    fn take(&mut self, demand: Demand) {
        let Demand { name, answered } = demand;
        let answer = lock(&self.book)
            .orders()
            .map(|orders| orders.ask(&name, clock::now()));
        match answer {
            // The client looks again when its sender is dropped.
            None | Some(Ask::Held) => {}
            Some(Ask::Wait) => self.waiting.add(name, answered),
            Some(refused @ (Ask::RefuseFailed | Ask::RefuseFull | Ask::RefuseRate)) => {
                lock(&self.book).refused += 1;
                tracing::debug!(name, ?refused, "no certificate is ordered for a client");
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
        // An order of another authority's has no name any more.
        let Some((name, job)) = self.names.remove(&id).zip(self.job.clone()) else {
            return;
        };
        let issued = done.and_then(|issued| {
            check(&job, issued).ok_or_else(|| AcmeError::Refused {
                reason: "the certificate cannot be used".to_owned(),
                retry_at: None,
            })
        });
        match issued {
            Ok((_, certificate)) => self.issued(&name, certificate),
            Err(error) => self.failed(&name, &error),
        }
        self.show(&job.house.front);
        // Whoever waits looks now.
        self.waiting.0.remove(&name);
    }

    fn issued(&mut self, name: &str, certificate: Arc<Certificate>) {
        let mut book = lock(&self.book);
        book.issued += 1;
        if let Some(orders) = book.orders() {
            orders.issued(name, life(&certificate), chance(), clock::now());
        }
        drop(book);
        let until = humantime::format_rfc3339_seconds(certificate.not_after());
        tracing::info!(name, %until, "obtained a certificate");
        self.certificates.insert(name.to_owned(), certificate);
    }

    fn failed(&mut self, name: &str, error: &AcmeError) {
        let fault = match error.is_authority() {
            true => Fault::Authority,
            false => Fault::Name,
        };
        let now = clock::now();
        let mut book = lock(&self.book);
        book.failed += 1;
        let (why, retry_at) = (error.to_string(), error.retry_at());
        let next = book
            .orders()
            .and_then(|orders| orders.failed(name, fault, why, retry_at, chance(), now));
        drop(book);
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
}

/// Makes a certificate of what was issued, if it is for the name it should be for.
fn check(job: &Job, issued: Issued) -> Option<(String, Arc<Certificate>)> {
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
    match job.house.front.certificate(source, chain, key) {
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

/// Clients in a handshake, by the name they wait for. They look again when they are dropped.
#[derive(Default)]
struct Waiting(HashMap<String, Vec<oneshot::Sender<()>>>);

impl Waiting {
    fn add(&mut self, name: String, client: oneshot::Sender<()>) {
        if self.0.values().map(Vec::len).sum::<usize>() < WAITING_MAX {
            self.0.entry(name).or_default().push(client);
        }
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
/// While there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);
/// A disk that works has everything read in much less.
const ADOPT_WAIT: Duration = Duration::from_secs(10);
/// Where a due order cannot start yet, this keeps the thread from spinning.
const PAUSE_MIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_clients_wait_than_the_bound() {
        let mut waiting = Waiting::default();
        let clients = (0..=WAITING_MAX).map(|n| {
            let (client, answer) = oneshot::channel();
            waiting.add(format!("{}.test", n % 3), client);
            answer
        });
        let mut clients: Vec<_> = clients.collect();
        let mut last = clients.pop().unwrap();
        assert_eq!(last.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let mut first = clients.swap_remove(0);
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        waiting.0.remove("0.test");
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_short_wait_is_told_in_milliseconds() {
        let told =
            |millis| humantime::format_duration(rounded(Duration::from_millis(millis))).to_string();
        assert_eq!(told(85), "85ms");
        assert_eq!(told(61_250), "1m 1s");
    }
}
