//! `larder serve`: builds the house from the plan, runs it, and takes it down.
//!
//! ```text
//! plan ─► engine (locks and replays the store) ─► listeners (all bound, or nothing starts)
//!      ─► worker threads ─ net::serve ─► Engine::handle          signals ─► Phase
//!      ─► admin thread   ─ net::serve ─► ops::admin                 SIGHUP ─► certificates
//! ```
//!
//! A worker keeps its runtime until every worker has served its last connection: a fill that runs
//! on one may have readers on another.

use super::certificates;
use super::certificates::Watcher;
use super::logging;
use super::print;
use crate::clock;
use crate::config;
use crate::config::plan;
use crate::config::plan::Plan;
use crate::flow::Client;
use crate::flow::Engine;
use crate::net::Event;
use crate::net::Handshake;
use crate::net::Http2;
use crate::net::Params;
use crate::net::Peer;
use crate::net::Phase;
use crate::net::body::BoxError;
use crate::net::body::RequestBody;
use crate::net::listen;
use crate::net::serve::Front;
use crate::net::serve::serve;
use crate::net::switch::Switch;
use crate::net::tls;
use crate::ops::Observer;
use crate::ops::access_log::AccessLog;
use crate::ops::admin::Admin;
use crate::ops::metrics::Metrics;
use crate::upstream;
use crate::upstream::Upstream;
use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::Empty;
use rustix::process::Resource;
use rustix::process::Rlimit;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;

/// Serves until a signal ends it.
pub(super) fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let (_file, plan) = config::load(config)?;
    logging::start(plan.log.level)?;
    raise_open_files_limit(plan.net.connections_max);

    let metrics = Arc::new(Metrics::default());
    let access_log = AccessLog::open(&plan.log.access, plan.log.format)
        .context("could not open the access log")?
        .map(Arc::new);
    let observer = Arc::new(Observer::new(Arc::clone(&metrics), access_log.clone()));
    let upstreams = plan.upstreams.iter().cloned().map(Upstream::new).collect();
    let engine = Engine::open(plan.flow.clone(), upstreams, &plan.store, observer)
        .context("could not open the store")?;

    let sockets = Sockets::bind(&plan)?;
    let announcement = sockets.announcement();
    let (phase, phases) = watch::channel(Phase::Serve);
    let workers = Workers::start(&plan, &engine, &metrics, sockets.workers, &phases)?;
    let tls = sockets.tls;
    let admin = match plan.admin.clone().zip(sockets.admin) {
        Some((admin, socket)) => {
            let tls = tls.clone();
            let look = Box::new(move || certificates::tell(tls.as_deref()));
            let handler = Admin::new(engine.clone(), metrics, look, admin.token);
            Some(AdminThread::start(handler, socket, &plan.net)?)
        }
        None => None,
    };
    let watcher = tls
        .map(|tls| Watcher::start(tls, plan.files_interval))
        .transpose()?;
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let signals = control.block_on(async { Signals::listen() });
    let signals = signals.context("could not listen for signals")?;
    print(announcement.as_bytes())?;

    let supervised = supervise(signals, &phase, workers, admin.as_ref(), watcher.as_ref());
    control.block_on(supervised);
    if let Some(admin) = admin {
        admin.stop();
    }
    if let Some(watcher) = watcher {
        watcher.stop();
    }
    close(&engine);
    if let Some(log) = access_log {
        log.close();
    }
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Writes what is pending. A disk that hangs is given up: what was not written is lost, as after a
/// kill.
fn close(engine: &Arc<Engine>) {
    let (tell, told) = std::sync::mpsc::channel();
    let closing = Arc::clone(engine);
    thread::spawn(move || {
        closing.close();
        tell.send(())
    });
    if told.recv_timeout(CLOSE_WAIT) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("the disk does not answer; what was not written yet is lost");
    }
}

/// One bound listener, and its TLS if it has some.
struct Socket {
    listener: TcpListener,
    tls: Option<Arc<tls::Front>>,
}

/// Every listener, bound before anything starts.
struct Sockets {
    /// For each worker, its listeners.
    workers: Vec<Vec<Socket>>,
    admin: Option<TcpListener>,
    /// What the TLS listeners share.
    tls: Option<Arc<tls::Front>>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
}

impl Sockets {
    fn bind(plan: &Plan) -> anyhow::Result<Self> {
        let runtimes = match plan.runtime {
            plan::Runtime::PerCore => threads(plan),
            plan::Runtime::Shared => 1,
        };
        let tls = match plan.https.is_empty() {
            true => None,
            false => Some(Arc::new(tls::Front::new(plan.tls().clone(), clock::now())?)),
        };
        let mut workers: Vec<Vec<Socket>> = (0..runtimes).map(|_| Vec::new()).collect();
        let mut bind_all = |addresses: &[SocketAddr], tls: Option<&Arc<tls::Front>>| {
            let mut bound = Vec::new();
            for address in addresses {
                let listeners = listen::bind_each(*address, runtimes)?;
                bound.extend(listeners.first().map(TcpListener::local_addr).transpose()?);
                for (worker, listener) in workers.iter_mut().zip(listeners) {
                    worker.push(Socket {
                        listener,
                        tls: tls.cloned(),
                    });
                }
            }
            anyhow::Ok(bound)
        };
        let http = bind_all(&plan.http, None)?;
        let https = bind_all(&plan.https, tls.as_ref())?;
        let admin = plan
            .admin
            .as_ref()
            .map(|admin| listen::bind(admin.listen, false))
            .transpose()?;
        Ok(Self {
            workers,
            admin,
            tls,
            http,
            https,
        })
    }

    /// Says where the house can be reached; scripts wait for the last line.
    fn announcement(&self) -> String {
        let mut out = String::new();
        for address in &self.http {
            out.push_str(&format!("listening on http://{address}\n"));
        }
        for address in &self.https {
            out.push_str(&format!("listening on https://{address}\n"));
        }
        if let Some(Ok(address)) = self.admin.as_ref().map(TcpListener::local_addr) {
            out.push_str(&format!("admin on http://{address}\n"));
        }
        out.push_str("ready\n");
        out
    }
}

/// The threads that serve clients.
struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Ends when the last worker has served its last connection.
    serving: mpsc::Receiver<Infallible>,
    /// Dropped to let the workers' runtimes go.
    release: watch::Sender<()>,
}

impl Workers {
    fn start(
        plan: &Plan,
        engine: &Arc<Engine>,
        metrics: &Arc<Metrics>,
        sockets: Vec<Vec<Socket>>,
        phase: &watch::Receiver<Phase>,
    ) -> anyhow::Result<Self> {
        let engine = Arc::clone(engine);
        let handler = move |request: Request<RequestBody>, peer: Peer| {
            let engine = Arc::clone(&engine);
            async move {
                let client = Client {
                    address: peer.address,
                    scheme: peer.scheme,
                    identity: peer.identity,
                };
                let mut response = engine.handle(request.map(body), client).await;
                if let Some(tunnel) = response.body_mut().take_tunnel() {
                    let switch = Switch::new(|client| tunnel.run(client));
                    response.extensions_mut().insert(switch);
                }
                response
            }
        };
        let front = Arc::new(Front {
            params: plan.net.clone(),
            handler,
            events: counting(Arc::clone(metrics)),
            connections: Arc::new(Semaphore::new(plan.net.connections_max)),
            now: clock::now,
            phase: phase.clone(),
        });
        let (token, serving) = mpsc::channel(1);
        let (release, released) = watch::channel(());
        let mut threads = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let runtime = worker_runtime(plan)?;
            let (front, token, released) = (Arc::clone(&front), token.clone(), released.clone());
            let work = move || run_to_end(runtime, work(sockets, front, token, released));
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(work).context("could not start a worker")?);
        }
        Ok(Self {
            threads,
            serving,
            release,
        })
    }

    /// Waits for the last connection, then ends the threads. Blocking once the last has gone.
    async fn end(mut self) {
        // No value is ever sent: this returns when every worker has dropped its token.
        if let Some(never) = self.serving.recv().await {
            match never {}
        }
        drop(self.release);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended badly");
            }
        }
    }
}

/// Serves a worker's listeners, then keeps its fills running until every worker is done.
async fn work<H, F, B>(
    sockets: Vec<Socket>,
    front: Arc<Front<H>>,
    token: mpsc::Sender<Infallible>,
    mut released: watch::Receiver<()>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut serving = Vec::new();
    for Socket { listener, tls } in sockets {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => serving.push(tokio::spawn(serve(listener, tls, Arc::clone(&front)))),
            Err(error) => tracing::error!(%error, "could not serve a listener"),
        }
    }
    for listener in serving {
        if let Err(error) = listener.await {
            tracing::error!(%error, "a listener ended badly");
        }
    }
    drop(token);
    // Fails, as it should, when the sender is dropped.
    if released.changed().await.is_ok() {
        tracing::debug!("released early");
    }
}

/// The admin listener's thread.
struct AdminThread {
    thread: JoinHandle<()>,
    handler: Arc<Admin>,
    phase: watch::Sender<Phase>,
}

impl AdminThread {
    fn start(admin: Admin, listener: TcpListener, params: &Params) -> anyhow::Result<Self> {
        let admin = Arc::new(admin);
        let (phase, phases) = watch::channel(Phase::Serve);
        let answering = Arc::clone(&admin);
        let front = Arc::new(Front {
            params: Params {
                drain_timeout: ADMIN_DRAIN_TIMEOUT,
                proxy_protocol_from: Vec::new(),
                http2: Http2 {
                    clear_text: false,
                    ..params.http2.clone()
                },
                ..params.clone()
            },
            handler: move |request: Request<RequestBody>, _peer: Peer| {
                let admin = Arc::clone(&answering);
                async move { admin.handle(request).await }
            },
            events: Arc::new(|_event| {}),
            connections: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            now: clock::now,
            phase: phases,
        });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let work = move || {
            run_to_end(runtime, async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, None, front).await,
                    Err(error) => tracing::error!(%error, "could not serve the admin listener"),
                }
            });
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(work)?;
        Ok(Self {
            thread,
            handler: admin,
            phase,
        })
    }

    /// Ends the listener and waits for its thread.
    fn stop(self) {
        self.phase.send_replace(Phase::Drain);
        if self.thread.join().is_err() {
            tracing::error!("the admin thread ended badly");
        }
    }
}

/// Waits for signals and moves the phase along until every worker has ended.
async fn supervise(
    mut signals: Signals,
    phase: &watch::Sender<Phase>,
    workers: Workers,
    admin: Option<&AdminThread>,
    watcher: Option<&Watcher>,
) {
    let ended = workers.end();
    tokio::pin!(ended);
    loop {
        let asked = tokio::select! {
            () = &mut ended => return,
            asked = signals.next() => asked,
        };
        let now = *phase.borrow();
        match (asked, now) {
            (Asked::Reload, _) => {
                tracing::info!("SIGHUP: reading certificates; restart to read the config");
                if let Some(watcher) = watcher {
                    watcher.look();
                }
            }
            (Asked::End, Phase::Serve) => {
                tracing::info!("draining; signal again to cut what is under way");
                if let Some(admin) = admin {
                    admin.handler.drain();
                }
                phase.send_replace(Phase::Drain);
            }
            (Asked::End, Phase::Drain | Phase::Stop) => {
                tracing::info!("stopping at once");
                phase.send_replace(Phase::Stop);
            }
        }
    }
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from the system's defaults. Needs a runtime around it.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Dropping this half-way loses none.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
        }
    }
}

/// Runs `work`, then ends the runtime even if a name server or a folder hangs.
fn run_to_end(runtime: Runtime, work: impl Future<Output = ()>) {
    runtime.block_on(work);
    runtime.shutdown_timeout(BLOCKED_WAIT_MAX);
}

/// Makes the body that the engine takes; most requests have none, and that costs no allocation.
fn body(body: RequestBody) -> upstream::RequestBody {
    if body.is_end_stream() {
        return Empty::new()
            .map_err(|never: Infallible| match never {})
            .boxed_unsync();
    }
    body.boxed_unsync()
}

/// Counts what only the net room sees.
fn counting(metrics: Arc<Metrics>) -> Arc<dyn Fn(Event) + Send + Sync> {
    Arc::new(move |event| match event {
        Event::Accept => metrics.connections_accepted.add(1),
        Event::Close => metrics.connections_closed.add(1),
        Event::Flood => metrics.floods.add(1),
        Event::Handshake(Handshake::Failed(failure)) => {
            metrics.count_handshake_failure(failure.token());
        }
        Event::Handshake(Handshake::Full) => metrics.handshakes_full.add(1),
        Event::Handshake(Handshake::Resumed) => metrics.handshakes_resumed.add(1),
        Event::Introduced => metrics.introductions_taken.add(1),
        Event::Malformed(status) => metrics.count_malformed(status),
        Event::RequestTimeout => metrics.timeouts_request.add(1),
        Event::Unintroduced(reason) => metrics.count_unintroduced(reason.token()),
        Event::WriteTimeout => metrics.timeouts_write.add(1),
    })
}

fn worker_runtime(plan: &Plan) -> anyhow::Result<Runtime> {
    let mut builder = match plan.runtime {
        plan::Runtime::PerCore => runtime::Builder::new_current_thread(),
        plan::Runtime::Shared => runtime::Builder::new_multi_thread(),
    };
    if plan.runtime == plan::Runtime::Shared {
        builder.worker_threads(threads(plan));
    }
    builder
        .enable_all()
        .build()
        .context("could not start a runtime")
}

/// How many threads serve clients.
fn threads(plan: &Plan) -> usize {
    match plan.workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
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
/// How long a runtime's end waits for names being looked up and files being read for nobody.
/// A disk that works has everything written in much less.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
const BLOCKED_WAIT_MAX: Duration = Duration::from_millis(250);
const ADMIN_CONNECTIONS_MAX: usize = 256;
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_thread_does_not_hold_up_the_end() {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (ended, end) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            run_to_end(runtime, async move {
                drop(tokio::task::spawn_blocking(move || blocked.recv()));
                // Lets the blocking thread take it up.
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            });
            ended.send(()).unwrap();
        });
        let long = Duration::from_secs(20);
        assert!(end.recv_timeout(long).is_ok());
        drop(release);
        thread.join().unwrap();
    }
}
