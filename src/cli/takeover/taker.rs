//! A start: alone, with listeners from a service manager, or to take over from a process that runs.
//!
//! ```text
//! Start::find ─► prepared ─(stores may be opened)─► opened ─(may serve)─► follows the other until it ends
//! ```
//!
//! Alone every step goes on at once.

use super::VARIABLE;
use super::wire::Received;
use super::wire::Wire;
use crate::clock;
use crate::flow::Beside;
use crate::flow::Engine;
use crate::net::listen::Inherited;
use crate::rules::address::Sequence;
use crate::state::takeover::Taker;
use crate::state::takeover::TakerAction;
use crate::state::takeover::TakerEvent;
use crate::state::takeover::message::Message;
use anyhow::Context;
use anyhow::anyhow;
use listenfd::ListenFd;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime;
use tokio::runtime::Runtime;

/// How this process starts.
pub(in crate::cli) struct Start {
    inherited: Inherited,
    taking: Option<Taking>,
}

impl Start {
    /// Finds out how; takes the listeners that this process was given. Before any thread is started.
    pub(in crate::cli) fn find() -> anyhow::Result<Self> {
        let mut inherited = Inherited::default();
        if std::env::var_os(VARIABLE).is_some()
            && let Some(wire) = wire().context("could not take up the socket of a take-over")?
        {
            let taking = Taking::begin(wire, &mut inherited)?;
            return Ok(Self {
                inherited,
                taking: Some(taking),
            });
        }
        let mut given = ListenFd::from_env();
        for number in 0..given.len() {
            let added = given
                .take_tcp_listener(number)
                .and_then(|listener| listener.map_or(Ok(()), |one| inherited.add(one, None)));
            if let Err(error) = added {
                eprintln!("larder: an inherited descriptor is of no use: {error}");
            }
        }
        Ok(Self {
            inherited,
            taking: None,
        })
    }

    /// The listeners that this process was given.
    pub(in crate::cli) fn inherited(&mut self) -> Inherited {
        std::mem::take(&mut self.inherited)
    }

    /// Does another process run that this one takes over from?
    pub(in crate::cli) fn takes_over(&self) -> bool {
        self.taking.is_some()
    }

    /// Everything is done that can be done without the stores: waits until they may be opened.
    pub(in crate::cli) fn prepared(&mut self) -> anyhow::Result<()> {
        match &mut self.taking {
            Some(taking) => taking.prepared(),
            None => Ok(()),
        }
    }

    /// The stores are open and everything is ready to serve: waits until it may. Returns whether the
    /// other process lives, as long as it does.
    pub(in crate::cli) fn opened(
        &mut self,
        engine: &Arc<Engine>,
    ) -> anyhow::Result<Arc<AtomicBool>> {
        match self.taking.take() {
            Some(taking) => taking.opened(engine),
            None => Ok(Arc::default()),
        }
    }

    /// Tells the other process why this one ends.
    pub(in crate::cli) fn fail(&self, error: &anyhow::Error) {
        if let Some(taking) = &self.taking {
            // It will find out by the end of the stream too.
            drop(taking.wire.say(&Message::Failed(format!("{error:#}"))));
        }
    }
}

/// The socket to the process that started this one; none when standard input is none. It is moved
/// away from there: nobody else is to read from it.
fn wire() -> io::Result<Option<Wire>> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let Ok(wire) = Wire::of(socket) else {
        return Ok(None);
    };
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Some(wire))
}

/// A take-over under way.
struct Taking {
    machine: Taker,
    begun: Instant,
    wire: Arc<Wire>,
    heard: mpsc::Receiver<TakerEvent>,
    next: Option<Sequence>,
    runtime: Runtime,
}

impl Taking {
    /// Takes up what the other process says first: its listeners.
    fn begin(wire: Wire, inherited: &mut Inherited) -> anyhow::Result<Self> {
        let wire = Arc::new(wire);
        let (events, heard) = mpsc::channel();
        let mut taking = Self {
            machine: Taker::new(WAIT),
            begun: clock::instant(),
            wire: Arc::clone(&wire),
            heard,
            next: None,
            runtime: runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
        };
        loop {
            let left = taking.left();
            let event = match wire.receive(left)? {
                Received::Message(message, listener) => {
                    if let (Message::Listener(asked), Some(listener)) = (&message, listener) {
                        let added = inherited.add(listener, Some(*asked));
                        added.with_context(|| format!("could not take over {asked}"))?;
                    }
                    TakerEvent::Heard(message)
                }
                Received::Nothing => TakerEvent::Tick,
                Received::End => TakerEvent::Ended,
            };
            let action = taking.on(event);
            if let TakerAction::Fail(reason) = action {
                return Err(failed(reason));
            }
            if action == TakerAction::Prepare {
                break;
            }
        }
        wire.listen(move |message| {
            let event = message.map_or(TakerEvent::Ended, TakerEvent::Heard);
            drop(events.send(event));
        })?;
        Ok(taking)
    }

    fn prepared(&mut self) -> anyhow::Result<()> {
        let action = self.on(TakerEvent::Prepared);
        let TakerAction::Open(next) = self.wait_for(action, None)? else {
            return Err(failed("it is out of step"));
        };
        self.next = next;
        Ok(())
    }

    fn opened(mut self, engine: &Arc<Engine>) -> anyhow::Result<Arc<AtomicBool>> {
        if let Some(next) = self.next {
            engine.count_from(next);
        }
        let elder = Arc::clone(&self.wire);
        engine.stand_beside(Some(Beside::Elder(elder)));
        let action = self.on(TakerEvent::Opened);
        self.wait_for(action, Some(engine))?;
        let lives = Arc::new(AtomicBool::new(true));
        let (engine, other) = (Arc::clone(engine), Arc::clone(&lives));
        thread::Builder::new()
            .name("larder-takeover".to_owned())
            .spawn(move || {
                self.follow(&engine);
                other.store(false, Ordering::Relaxed);
            })?;
        Ok(lives)
    }

    /// Does what there is to do until the stores may be opened, or it may serve.
    fn wait_for(
        &mut self,
        mut action: TakerAction,
        engine: Option<&Arc<Engine>>,
    ) -> anyhow::Result<TakerAction> {
        loop {
            match action {
                TakerAction::Open(_) | TakerAction::Serve => return Ok(action),
                TakerAction::Fail(reason) => return Err(failed(reason)),
                TakerAction::Say(message) => {
                    // If it has ended, that is heard next.
                    drop(self.wire.say(&message));
                }
                TakerAction::Heed(purge) => self.heed(purge, engine),
                TakerAction::Wait | TakerAction::Prepare | TakerAction::BeAlone => {}
            }
            let event = match self.left() {
                None => self.heard.recv().ok(),
                Some(left) => match self.heard.recv_timeout(left) {
                    Ok(event) => Some(event),
                    Err(mpsc::RecvTimeoutError::Timeout) => Some(TakerEvent::Tick),
                    Err(mpsc::RecvTimeoutError::Disconnected) => None,
                },
            };
            action = self.on(event.unwrap_or(TakerEvent::Ended));
        }
    }

    /// Heeds the other's purges until it ends.
    fn follow(mut self, engine: &Arc<Engine>) {
        while let Ok(event) = self.heard.recv() {
            let action = self.on(event);
            if action == TakerAction::BeAlone {
                break;
            }
            if let TakerAction::Heed(purge) = action {
                self.heed(purge, Some(engine));
            }
        }
        engine.stand_beside(None);
        tracing::info!("the process before has ended");
    }

    fn heed(&self, purge: Message, engine: Option<&Arc<Engine>>) {
        let Message::Purge {
            number,
            soft,
            selectors,
        } = purge
        else {
            return;
        };
        if let Some(engine) = engine {
            let holds = self.runtime.block_on(engine.heed(soft, &selectors));
            drop(self.wire.say(&Message::Heard { number, holds }));
        }
    }

    fn on(&mut self, event: TakerEvent) -> TakerAction {
        let elapsed = clock::instant().saturating_duration_since(self.begun);
        self.machine.on(event, elapsed)
    }

    fn left(&self) -> Option<Duration> {
        let elapsed = clock::instant().saturating_duration_since(self.begun);
        let until = self.machine.deadline()?;
        Some(until.saturating_sub(elapsed))
    }
}

fn failed(reason: &str) -> anyhow::Error {
    anyhow!("could not take over from the process before: {reason}")
}

/// How long the other process may take for a step: writing what is pending is the longest.
const WAIT: Duration = Duration::from_secs(60);
