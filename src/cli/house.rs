//! The house: everything `serve` runs, built from a plan and rebuilt from another while it stands.
//!
//! ```text
//! build:  plan ─► engine (locks and replays the store) ─► workers ─► listeners (all bound, or nothing starts)
//! change: config ─► plan ─► what cannot change? ─► prepare: logs, TLS, listeners ─► adopt
//!           └─ errors ────────┴─ refused ─────────────┴─ failed ─► every reason; all is as it was
//! ```
//!
//! Nothing is adopted before everything is prepared, and adopting cannot fail. It is not one instant:
//! each request, connection and handshake goes by what it found at its start. Requests come before
//! handshakes, so a site that begins to ask for client certificates lets nobody in without one.

use super::acme;
use super::acme::Acme;
use super::certificates;
use super::certificates::Watcher;
use super::listeners;
use super::listeners::Desk;
use super::listeners::Listeners;
use super::listeners::Wanted;
use super::logging::Logging;
use super::takeover::taker::Start;
use super::workers::AdminThread;
use super::workers::Bounds;
use super::workers::Workers;
use super::workers::runtimes;
use crate::clock;
use crate::config;
use crate::config::changes;
use crate::config::file::File;
use crate::config::plan::Plan;
use crate::flow::Engine;
use crate::net::NetError;
use crate::net::listen::Inherited;
use crate::net::tls;
use crate::ops::Observer;
use crate::ops::access_log::AccessLog;
use crate::ops::access_log::Destination;
use crate::ops::admin::Admin;
use crate::ops::admin::Seen;
use crate::ops::live::Live;
use crate::ops::metrics::Metrics;
use crate::ops::reload::Reloaded;
use crate::ops::reload::Reloads;
use crate::ops::traces;
use crate::ops::traces::Tracer;
use anyhow::Context;
use rustix::process::Resource;
use rustix::process::Rlimit;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;

/// What runs.
pub(super) struct House {
    path: PathBuf,
    file: File,
    plan: Plan,
    logging: Logging,
    pub(super) engine: Arc<Engine>,
    pub(super) metrics: Arc<Metrics>,
    live: Arc<Live>,
    pub(super) observer: Arc<Observer>,
    bounds: Bounds,
    /// Shared with whoever ends them.
    pub(super) listeners: Arc<Mutex<Listeners>>,
    /// Where spans go now.
    traced: Option<traces::Params>,
    tls: Arc<OnceLock<Arc<tls::Front>>>,
    watcher: Option<Watcher>,
    acme: Acme,
    pub(super) admin: Arc<Admin>,
    operators: Option<Operators>,
    /// Of addresses that are gone from the config.
    operators_left: Vec<Operators>,
}

/// Where operators are answered.
struct Operators {
    /// As the config has it.
    listen: SocketAddr,
    bound: SocketAddr,
    thread: AdminThread,
}

/// What a change needs, ready for use.
struct Next {
    access_log: NextLog,
    /// Another, where spans go elsewhere.
    tracer: Option<Option<Tracer>>,
    tls: Option<NextTls>,
    acme: Option<acme::Prepared>,
    /// Another, where the interval is another.
    watcher: Option<Watcher>,
    listeners: listeners::Next,
    /// Others, where they are to be answered elsewhere.
    operators: Option<(Operators, Desk)>,
}

enum NextLog {
    Same,
    Other(Option<AccessLog>),
}

enum NextTls {
    First(Arc<tls::Front>),
    Other(Arc<tls::Front>, Box<tls::Next>),
}

impl House {
    /// Builds everything; nothing is accepted yet. `reloads` is where operators ask for a change.
    /// A process that takes over tries first what may fail, and only then asks for the stores.
    pub(super) fn build(
        path: &Path,
        reloads: Reloads,
        start: &mut Start,
    ) -> anyhow::Result<(Self, Workers)> {
        let (file, plan) = config::load(path)?;
        let logging = Logging::start(plan.log.level)?;
        raise_open_files_limit(plan.net.connections_max);

        let metrics = Arc::new(Metrics::default());
        let access_log = open_log(&plan, &metrics)?;
        let live = Arc::new(live(&plan));
        let observer = Observer::new(Arc::clone(&metrics), Arc::clone(&live), access_log);
        let observer = Arc::new(observer);
        let mut inherited = start.inherited();
        if start.takes_over() {
            rehearse(&plan, &mut inherited)?;
        }
        start.prepared()?;
        let engine = Engine::open(&plan.flow, &plan.store, observer.clone())
            .context("could not open the store")?;
        let tls = Arc::new(OnceLock::<Arc<tls::Front>>::new());
        let shown = Arc::clone(&tls);
        let acme = Acme::start(Arc::clone(&engine))?;
        let told = acme.teller();
        let look = Box::new(move || certificates::tell(shown.get().map(Arc::as_ref), told()));
        let token = plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let seen = Seen {
            metrics: Arc::clone(&metrics),
            live: Arc::clone(&live),
            certificates: look,
        };
        let admin = Admin::new(engine.clone(), seen, reloads, token);
        let (workers, bounds, assign) = Workers::start(&plan, &engine, &metrics)?;
        let mut house = Self {
            path: path.to_owned(),
            file,
            logging,
            engine,
            metrics,
            live,
            observer,
            bounds,
            listeners: Arc::new(Mutex::new(Listeners::new(assign))),
            traced: None,
            tls,
            watcher: None,
            acme,
            admin: Arc::new(admin),
            operators: None,
            operators_left: Vec::new(),
            plan: plan.clone(),
        };
        let next = house.prepare(&plan, NextLog::Same, &mut inherited);
        let next = next.map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
        house.adopt(plan, next);
        for address in inherited.unwanted() {
            tracing::warn!(%address, "an inherited listener is not in the config; it is closed");
        }
        Ok((house, workers))
    }

    /// Reads the config again and goes by it. When it cannot, nothing has changed. Blocking.
    pub(super) fn change(&mut self) -> Reloaded {
        let changed = self.try_change();
        match &changed {
            Ok(_) => self.metrics.reloads_done.add(1),
            Err(_) => self.metrics.reloads_refused.add(1),
        }
        changed
    }

    fn try_change(&mut self) -> Reloaded {
        let in_file = |problems: &[config::Problem]| -> Vec<String> {
            let problems = problems.iter();
            problems
                .map(|problem| problem.in_file(&self.path))
                .collect()
        };
        let loaded = config::load(&self.path);
        let (file, plan) = loaded.map_err(|error| in_file(&error.problems))?;
        let refused = changes::refused(&self.plan, &file, &plan);
        if !refused.is_empty() {
            return Err(in_file(&refused));
        }
        let access_log = self.next_log(&plan);
        let access_log = access_log.map_err(|error| vec![format!("{error:#}")])?;
        let next = self.prepare(&plan, access_log, &mut Inherited::default())?;
        let mut changes = changes::between((&self.file, &self.plan), (&file, &plan));
        self.file = file;
        let before = self.places();
        let renewed = self.adopt(plan, next);
        let now = self.places();
        for place in before.iter().filter(|place| !now.contains(place)) {
            tracing::info!("no longer {place}");
        }
        for place in now.iter().filter(|place| !before.contains(place)) {
            tracing::info!("{place}");
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        for certificate in renewed {
            let source = Path::new(&certificate);
            let name = source.strip_prefix(folder).unwrap_or(source);
            let name = name.display().to_string();
            if !changes.certificates.changed.contains(&name) {
                changes.certificates.changed.push(name);
            }
        }
        Ok(changes)
    }

    /// The access log is opened anew, so that a file which was moved away is left alone.
    fn next_log(&self, plan: &Plan) -> anyhow::Result<NextLog> {
        let (before, log) = (&self.plan.log, &plan.log);
        if log.access.destination == Destination::Stdout && *before == *log {
            return Ok(NextLog::Same);
        }
        open_log(plan, &self.metrics).map(NextLog::Other)
    }

    /// Reads, binds and starts what a plan needs beside what there is; fails with every reason.
    fn prepare(
        &self,
        plan: &Plan,
        access_log: NextLog,
        inherited: &mut Inherited,
    ) -> Result<Next, Vec<String>> {
        let mut errors = Vec::new();
        let tls = self.prepare_tls(plan).map_err(|error| error.to_string());
        let tls = tls.map_err(|error| errors.push(error)).ok().flatten();
        let acme = plan.acme.as_ref().map(acme::Prepared::new).transpose();
        let acme = acme.map_err(|error| errors.push(error.to_string()));
        let acme = acme.ok().flatten();
        let tracer = self.next_tracer(plan);
        let tracer = tracer.map_err(|error| errors.push(format!("could not trace: {error}")));
        let listeners = lock(&self.listeners).prepare(&wanted(plan), inherited);
        let listeners = listeners.map_err(|failed| errors.extend(failed)).ok();
        let operators = self.operators.as_ref();
        let listen = plan.admin.as_ref().map(|admin| admin.listen);
        let listen = listen.filter(|listen| operators.is_none_or(|now| now.listen != *listen));
        let socket = listen.map(|listen| {
            let sockets = inherited.bind_each(listen, 1)?.all;
            // There is one, unless somebody else made several of it.
            Ok(sockets.into_iter().next().map(|socket| (listen, socket)))
        });
        let socket = socket.transpose().map(Option::flatten);
        let socket = socket.map_err(|error: NetError| errors.push(error.to_string()));
        let (Some(listeners), Ok(socket), Ok(tracer), true) =
            (listeners, socket, tracer, errors.is_empty())
        else {
            return Err(errors);
        };
        let threads = || {
            let watcher = self.next_watcher(plan, tls.as_ref())?;
            let operators = socket.map(|(listen, socket)| {
                let begins = lock(&self.listeners).begins();
                let (bound, again) = (socket.local_addr()?, socket.try_clone()?);
                let thread = AdminThread::start(&self.admin, socket, &plan.net, begins)?;
                let desk = Desk {
                    listen,
                    socket: again,
                    phase: thread.phase(),
                };
                let operators = Operators {
                    listen,
                    bound,
                    thread,
                };
                anyhow::Ok((operators, desk))
            });
            anyhow::Ok((watcher, operators.transpose()?))
        };
        let (watcher, operators) = threads().map_err(|error| vec![format!("{error:#}")])?;
        Ok(Next {
            access_log,
            tracer,
            tls,
            acme,
            watcher,
            listeners,
            operators,
        })
    }

    /// Spans go on as before where nothing has changed about them; none go nowhere at first.
    fn next_tracer(&self, plan: &Plan) -> std::io::Result<Option<Option<Tracer>>> {
        if self.traced == plan.traces {
            return Ok(None);
        }
        let traces = plan.traces.as_ref();
        let tracer = traces.map(|params| Tracer::start(params, &self.metrics));
        tracer.transpose().map(Some)
    }

    fn prepare_tls(&self, plan: &Plan) -> Result<Option<NextTls>, NetError> {
        if plan.https.is_empty() {
            return Ok(None);
        }
        let params = plan.tls().clone();
        let next = match self.tls.get() {
            Some(front) => NextTls::Other(Arc::clone(front), Box::new(front.prepare(params)?)),
            None => NextTls::First(Arc::new(tls::Front::new(params, clock::now())?)),
        };
        Ok(Some(next))
    }

    fn next_watcher(&self, plan: &Plan, tls: Option<&NextTls>) -> anyhow::Result<Option<Watcher>> {
        let same = self.plan.files_interval == plan.files_interval;
        let front = match tls {
            Some(NextTls::First(front)) => front,
            Some(NextTls::Other(front, _)) if !same => front,
            Some(NextTls::Other(..)) | None => return Ok(None),
        };
        Watcher::start(Arc::clone(front), plan.files_interval).map(Some)
    }

    /// Goes by a plan for which everything is ready, and lists the certificates that are new in
    /// their files.
    fn adopt(&mut self, plan: Plan, next: Next) -> Vec<String> {
        self.engine.adopt(&plan.flow);
        self.live.choose_by(plan.flow.eviction);
        let mut renewed = Vec::new();
        match next.tls {
            Some(NextTls::First(front)) => drop(self.tls.set(front)),
            Some(NextTls::Other(front, next)) => renewed = front.adopt(*next, clock::now()),
            None => {}
        }
        // What it has is shown before anybody new comes.
        self.acme.adopt(next.acme, self.tls.get());
        if let Some(before) = next.watcher.and_then(|next| self.watcher.replace(next)) {
            before.stop();
        }
        raise_open_files_limit(plan.net.connections_max);
        (self.bounds)(plan.net.clone());
        lock(&self.listeners).adopt(next.listeners, self.tls.get());
        if let NextLog::Other(access_log) = next.access_log {
            self.observer.log_to(access_log);
        }
        if let Some(tracer) = next.tracer {
            self.observer.trace_to(tracer);
            self.traced.clone_from(&plan.traces);
        }
        self.logging.set(plan.log.level);
        self.admin
            .want(plan.admin.as_ref().and_then(|admin| admin.token.clone()));
        lock(&self.listeners).wait_for_heir(plan.takeover_timeout);
        let (operators, desk) = next.operators.unzip();
        if operators.is_some() || plan.admin.is_none() {
            lock(&self.listeners).seat(desk);
            self.operators_left.retain(|left| !left.thread.has_ended());
            if let Some(before) = std::mem::replace(&mut self.operators, operators) {
                before.thread.leave();
                self.operators_left.push(before);
            }
        } else if let Some(operators) = &self.operators {
            operators.thread.adopt(&plan.net);
        }
        self.plan = plan;
        renewed
    }

    /// Has changed certificate files taken up now.
    pub(super) fn look_at_certificates(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.look();
        }
    }

    /// Says where the house can be reached, a line each.
    pub(super) fn places(&self) -> Vec<String> {
        let mut places = Vec::new();
        for (address, tls) in lock(&self.listeners).addresses() {
            let scheme = if tls { "https" } else { "http" };
            places.push(format!("listening on {scheme}://{address}"));
        }
        if let Some(operators) = &self.operators {
            places.push(format!("admin on http://{}", operators.bound));
        }
        places
    }

    /// Ends the threads that look after it all. Clients are not served any more.
    pub(super) fn close(self) {
        for operators in self.operators.into_iter().chain(self.operators_left) {
            operators.thread.stop();
        }
        if let Some(watcher) = self.watcher {
            watcher.stop();
        }
        self.acme.stop();
    }
}

/// Tries what may fail, without a store and without an effect on whoever runs.
fn rehearse(plan: &Plan, inherited: &mut Inherited) -> anyhow::Result<()> {
    if !plan.https.is_empty() {
        drop(tls::Front::new(plan.tls().clone(), clock::now())?);
    }
    if let Some(acme) = &plan.acme {
        drop(acme::Prepared::new(acme)?);
    }
    for wanted in wanted(plan) {
        inherited.ensure(wanted.address, runtimes(plan))?;
    }
    if let Some(admin) = &plan.admin {
        inherited.ensure(admin.listen, 1)?;
    }
    Ok(())
}

fn wanted(plan: &Plan) -> Vec<Wanted> {
    let all = |addresses: &[SocketAddr], tls| {
        let wanted = addresses.iter().map(|address| Wanted {
            address: *address,
            tls,
        });
        wanted.collect::<Vec<_>>()
    };
    [all(&plan.http, false), all(&plan.https, true)].concat()
}

fn live(plan: &Plan) -> Live {
    let store_bytes = plan.store.iter().map(|store| store.disk_bytes_max).sum();
    Live::new(store_bytes, plan.flow.eviction, clock::now())
}

fn open_log(plan: &Plan, metrics: &Arc<Metrics>) -> anyhow::Result<Option<AccessLog>> {
    AccessLog::open(&plan.log.access, metrics).context("could not open the access log")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the soft limit on open files to the hard one, and warns when that is not enough.
fn raise_open_files_limit(connections_max: usize) {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let clients = u64::try_from(connections_max).unwrap_or(u64::MAX);
    let wanted = clients.saturating_add(FILES_BESIDE_CLIENTS);
    if maximum.is_some_and(|maximum| maximum < wanted) {
        tracing::warn!(
            maximum,
            wanted,
            "the limit on open files is low for connections_max"
        );
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "could not raise the limit on open files");
    }
}

/// Files that connections to backends, packs and logs may well need at once.
const FILES_BESIDE_CLIENTS: u64 = 1024;
