//! The threads that serve: a runtime each, for clients and for operators.
//!
//! A worker keeps its runtime until every worker has served its last connection: a fill that runs
//! on one may have readers on another.

use super::listeners::Assignment;
use crate::clock;
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
use crate::net::room::Room;
use crate::net::serve::Front;
use crate::net::serve::serve;
use crate::net::switch::Switch;
use crate::ops::admin::Admin;
use crate::ops::metrics::Metrics;
use crate::upstream;
use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::Empty;
use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The threads that serve clients.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Ends when the last worker has served its last connection.
    serving: mpsc::Receiver<Infallible>,
    /// Dropped to let the workers' runtimes go.
    release: watch::Sender<()>,
}

/// Sets what counts for the next connection.
pub(super) type Bounds = Box<dyn Fn(Params) + Send>;

impl Workers {
    /// Starts the threads; they serve what they are told to through the channels, until those end.
    pub(super) fn start(
        plan: &Plan,
        engine: &Arc<Engine>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<(Self, Bounds, Vec<mpsc::Sender<Assignment>>)> {
        let refresher = Arc::clone(engine);
        let engine = Arc::clone(engine);
        let handler = move |request: Request<RequestBody>, peer: Peer| {
            let engine = Arc::clone(&engine);
            async move {
                let client = Client {
                    address: peer.address,
                    scheme: peer.scheme,
                    identity: peer.identity,
                    cipher: peer.cipher,
                };
                let mut response = engine.handle(request.map(body), client).await;
                if let Some(tunnel) = response.body_mut().take_tunnel() {
                    let switch = Switch::new(|client| tunnel.run(client));
                    response.extensions_mut().insert(switch);
                }
                response
            }
        };
        let fronts = Arc::new(ArcSwap::from_pointee(Front {
            room: Room::new(plan.net.connections_max),
            params: plan.net.clone(),
            handler,
            events: counting(Arc::clone(metrics)),
            now: clock::now,
        }));
        let (token, serving) = mpsc::channel(1);
        let (release, released) = watch::channel(());
        let (mut threads, mut assign) = (Vec::new(), Vec::new());
        for number in 0..runtimes(plan) {
            let runtime = worker_runtime(plan)?;
            let (tell, told) = mpsc::channel(ASSIGNMENTS_MAX);
            let (fronts, token, released) = (Arc::clone(&fronts), token.clone(), released.clone());
            let refresher = Arc::clone(&refresher);
            let work = move || {
                // It ends with the runtime.
                runtime.spawn(refresher.refresh_purged());
                run_to_end(runtime, work(told, fronts, token, released));
            };
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(work).context("could not start a worker")?);
            assign.push(tell);
        }
        let workers = Self {
            threads,
            serving,
            release,
        };
        Ok((workers, bounds(fronts), assign))
    }

    /// Waits for the last connection, then ends the threads. Blocking once the last has gone.
    pub(super) async fn end(mut self) {
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

/// Serves what a worker is told to, then keeps its fills running until every worker is done.
async fn work<H, F, B>(
    mut told: mpsc::Receiver<Assignment>,
    fronts: Arc<ArcSwap<Front<H>>>,
    token: mpsc::Sender<Infallible>,
    mut released: watch::Receiver<()>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut serving = JoinSet::new();
    loop {
        let assignment = tokio::select! {
            assignment = told.recv() => assignment,
            Some(ended) = serving.join_next() => {
                note_end(ended);
                continue;
            }
        };
        let Some(Assignment { socket, tls, phase }) = assignment else {
            break;
        };
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => {
                serving.spawn(serve(listener, tls, Arc::clone(&fronts), phase));
            }
            Err(error) => tracing::error!(%error, "could not serve a listener"),
        }
    }
    while let Some(ended) = serving.join_next().await {
        note_end(ended);
    }
    drop(token);
    // Fails, as it should, when the sender is dropped.
    if released.changed().await.is_ok() {
        tracing::debug!("released early");
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a listener ended badly");
    }
}

/// The admin listener's thread.
pub(super) struct AdminThread {
    thread: JoinHandle<()>,
    phase: watch::Sender<Phase>,
    bounds: Bounds,
}

impl AdminThread {
    /// Starts to answer on a listener, in this phase.
    pub(super) fn start(
        admin: &Arc<Admin>,
        listener: TcpListener,
        params: &Params,
        begins: Phase,
    ) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(begins);
        let admin = Arc::clone(admin);
        let handler = move |request: Request<RequestBody>, _peer: Peer| {
            let admin = Arc::clone(&admin);
            async move { admin.handle(request).await }
        };
        let fronts = Arc::new(ArcSwap::from_pointee(Front {
            params: admin_params(params),
            handler,
            events: Arc::new(|_event| {}),
            room: Room::new(ADMIN_CONNECTIONS_MAX),
            now: clock::now,
        }));
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = Arc::clone(&fronts);
        let work = move || {
            run_to_end(runtime, async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, None, served, phases).await,
                    Err(error) => tracing::error!(%error, "could not serve the admin listener"),
                }
            });
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(work)?;
        Ok(Self {
            thread,
            phase,
            bounds: bounds(fronts),
        })
    }

    /// Goes by other bounds from the next connection on.
    pub(super) fn adopt(&self, params: &Params) {
        (self.bounds)(admin_params(params));
    }

    /// Where its phase is set.
    pub(super) fn phase(&self) -> watch::Sender<Phase> {
        self.phase.clone()
    }

    /// Ends the listener; who is being answered is answered to the end.
    pub(super) fn leave(&self) {
        self.phase.send_replace(Phase::Drain);
    }

    /// Has it answered its last?
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the listener and waits for its thread.
    pub(super) fn stop(self) {
        self.leave();
        if self.thread.join().is_err() {
            tracing::error!("the admin thread ended badly");
        }
    }
}

fn bounds<H: Clone + Send + Sync + 'static>(fronts: Arc<ArcSwap<Front<H>>>) -> Bounds {
    Box::new(move |params| {
        let next = fronts.load().with(params);
        fronts.store(Arc::new(next));
    })
}

fn admin_params(params: &Params) -> Params {
    Params {
        connections_max: ADMIN_CONNECTIONS_MAX,
        drain_timeout: ADMIN_DRAIN_TIMEOUT,
        proxy_protocol_from: Vec::new(),
        http2: Http2 {
            clear_text: false,
            ..params.http2.clone()
        },
        ..params.clone()
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
        Event::Handshake(Handshake::Proof) => metrics.handshakes_proofs.add(1),
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

/// How many runtimes serve clients, each with sockets of its own.
pub(super) fn runtimes(plan: &Plan) -> usize {
    match plan.runtime {
        plan::Runtime::PerCore => threads(plan),
        plan::Runtime::Shared => 1,
    }
}

/// As many listeners as a config may have, and as many again.
const ASSIGNMENTS_MAX: usize = 256;
/// How long a runtime's end waits for names being looked up and files being read for nobody.
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
