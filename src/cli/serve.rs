//! `larder serve`: has the house built, sees to what signals ask for, and takes it down.
//!
//! ```text
//! SIGTERM, SIGINT ─► listeners drain ─► workers end ─► what is pending is written ─► end
//!        again    ─► cut
//! SIGHUP          ─► reload: the config is read again, see `reload`
//! SIGUSR1         ─► the access log is opened anew
//! SIGUSR2         ─► another process takes over, see `takeover`
//! ```

use super::house::House;
use super::house::lock;
use super::listeners::Listeners;
use super::print;
use super::reload::Reloader;
use super::takeover::Succession;
use super::takeover::giver::Estate;
use super::takeover::giver::Program;
use super::takeover::taker::Start;
use super::workers::Workers;
use crate::flow::Engine;
use crate::net::Phase;
use crate::ops::Observer;
use crate::ops::admin::Admin;
use crate::ops::reload::Reloads;
use anyhow::Context;
use sd_notify::NotifyState;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use tokio::runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Serves until a signal ends it, or another process has taken over.
pub(super) fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let program = Program::own();
    let mut start = Start::find()?;
    let ended = live(config, program, &mut start);
    if let Err(error) = &ended {
        start.fail(error);
    }
    ended
}

fn live(config: &Path, program: Program, start: &mut Start) -> anyhow::Result<ExitCode> {
    let (reloads, line) = Reloads::line();
    let (house, workers) = House::build(config, reloads.clone(), start)?;
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let signals = control.block_on(async { Signals::listen() });
    let signals = signals.context("could not listen for signals")?;
    // Scripts wait for the last line.
    let announcement = house.places().join("\n") + "\nready\n";
    let (engine, observer) = (Arc::clone(&house.engine), Arc::clone(&house.observer));
    let estate = Estate {
        program,
        engine: Arc::clone(&engine),
        listeners: Arc::clone(&house.listeners),
        metrics: Arc::clone(&house.metrics),
    };
    let mut serving = Serving {
        listeners: Arc::clone(&house.listeners),
        admin: Arc::clone(&house.admin),
        observer: Arc::clone(&observer),
        succession: Succession::new(estate, reloads.clone(), start.opened(&engine)?),
        reloads,
    };
    let reloader = Reloader::start(house, line)?;
    lock(&serving.listeners).serve();
    let own = NotifyState::MainPid(std::process::id());
    tell_manager(&[own, NotifyState::Ready]);
    print(announcement.as_bytes())?;

    control.block_on(serving.supervise(signals, workers));
    serving.succession.end();
    serving.reloads.end();
    match reloader.end(CLOSE_WAIT) {
        Some(house) => house.close(),
        None => tracing::warn!("a reload that hangs is given up"),
    }
    close(&engine);
    observer.close();
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Tells the service manager, if one asked to be told.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "could not notify the service manager");
    }
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

/// What signals act on.
struct Serving {
    listeners: Arc<Mutex<Listeners>>,
    admin: Arc<Admin>,
    observer: Arc<Observer>,
    reloads: Reloads,
    succession: Succession,
}

impl Serving {
    /// Waits for signals and does what they ask for until every worker has ended.
    async fn supervise(&mut self, mut signals: Signals, workers: Workers) {
        let ended = workers.end();
        tokio::pin!(ended);
        let mut phase = Phase::Serve;
        // Draining because another process serves: to be told to end then is no news.
        let mut handed_over = false;
        loop {
            let asked = tokio::select! {
                () = &mut ended => return,
                asked = signals.next() => asked,
                done = self.succession.handed_over() => {
                    if done && phase == Phase::Serve {
                        tracing::info!("draining; signal twice to cut what is under way");
                        (phase, handed_over) = (Phase::Drain, true);
                        self.admin.drain();
                        lock(&self.listeners).hand_over();
                    }
                    continue;
                }
            };
            match (asked, phase) {
                (Asked::Reload, _) => {
                    if self.reloads.ask().is_none() {
                        tracing::warn!("SIGHUP: too many reloads are waiting");
                    }
                    continue;
                }
                (Asked::Reopen, _) => {
                    tracing::info!("the access log is opened anew");
                    self.observer.reopen();
                    continue;
                }
                (Asked::TakeOver, Phase::Hold | Phase::Serve) => {
                    self.succession.begin();
                    continue;
                }
                (Asked::TakeOver, Phase::Drain | Phase::Stop) => {
                    tracing::warn!("SIGUSR2: this process is about to end");
                    continue;
                }
                (Asked::End, Phase::Hold | Phase::Serve) => {
                    tracing::info!("draining; signal again to cut what is under way");
                    tell_manager(&[NotifyState::Stopping]);
                    self.succession.stop();
                    self.admin.drain();
                    phase = Phase::Drain;
                }
                (Asked::End, Phase::Drain) if std::mem::take(&mut handed_over) => continue,
                (Asked::End, Phase::Drain | Phase::Stop) => {
                    tracing::info!("stopping at once");
                    phase = Phase::Stop;
                }
            }
            lock(&self.listeners).end(phase);
        }
    }
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
    Reopen,
    TakeOver,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes the signals over from the system's defaults. Needs a runtime around it.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal. Dropping this half-way loses none.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.user1.recv() => Asked::Reopen,
            _ = self.user2.recv() => Asked::TakeOver,
        }
    }
}

/// A disk that works has everything written in much less.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
