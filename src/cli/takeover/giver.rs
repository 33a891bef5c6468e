//! The process that runs, and is asked to hand over.
//!
//! It goes on serving all the time. Its thread here starts the other process, does what
//! `state/takeover` says, and tells the rest of the process only how it came out.

use super::VARIABLE;
use super::wire::Wire;
use crate::cli::house::lock;
use crate::cli::listeners::Listeners;
use crate::clock;
use crate::flow::Beside;
use crate::flow::Engine;
use crate::ops::metrics::Metrics;
use crate::state::takeover::Giver;
use crate::state::takeover::GiverAction;
use crate::state::takeover::GiverEvent;
use crate::state::takeover::message::Message;
use crate::state::takeover::message::VERSION;
use anyhow::Context;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::sync::mpsc as channel;

/// What a process hands over.
pub(in crate::cli) struct Estate {
    /// The program, as it was called.
    pub(in crate::cli) program: Program,
    /// Whoever has the stores.
    pub(in crate::cli) engine: Arc<Engine>,
    /// Every listening socket.
    pub(in crate::cli) listeners: Arc<Mutex<Listeners>>,
    /// Counts how it came out.
    pub(in crate::cli) metrics: Arc<Metrics>,
}

/// How a take-over came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// The other process serves: this one is to accept no more, and to drain.
    HandedOver,
    /// All is as before.
    GivenUp,
}

/// A take-over under way, or one that came out well: then it goes on until this process ends.
pub(in crate::cli) struct Handing {
    events: mpsc::Sender<GiverEvent>,
    thread: JoinHandle<()>,
}

impl Handing {
    /// Starts the other process, and hands over to it. `tell` is told once how it came out.
    pub(in crate::cli) fn begin(
        estate: &Estate,
        tell: channel::UnboundedSender<Outcome>,
    ) -> anyhow::Result<Self> {
        let (listeners, wait) = {
            let listeners = lock(&estate.listeners);
            (listeners.sockets()?, listeners.heir_wait())
        };
        let (wire, other) = Wire::pair().context("could not make a pair of sockets")?;
        let wire = Arc::new(wire);
        let child = estate.program.start(other)?;
        let (events, heard) = mpsc::channel();
        let listener = events.clone();
        let drive = Drive {
            machine: Giver::new(wait),
            begun: clock::instant(),
            wire: Arc::clone(&wire),
            child,
            engine: Arc::clone(&estate.engine),
            metrics: Arc::clone(&estate.metrics),
            runtime: runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            tell,
        };
        wire.listen(move |message| {
            let event = message.map_or(GiverEvent::Ended, GiverEvent::Heard);
            // The last event ends the thread there.
            drop(listener.send(event));
        })?;
        tracing::info!(pid = drive.child.id(), "handing over to a new process");
        // A process that does not listen is found out by its silence.
        if let Err(error) = greet(&wire, &listeners) {
            tracing::warn!(%error, "could not pass on all listeners");
        }
        let thread = thread::Builder::new()
            .name("larder-handover".to_owned())
            .spawn(move || drive.run(&heard))?;
        Ok(Self { events, thread })
    }

    /// Ends a take-over that has not come out yet: this process is to end.
    pub(in crate::cli) fn stop(&self) {
        drop(self.events.send(GiverEvent::Stop));
    }

    /// Waits until everything is as before. Blocking; not after it came out well.
    pub(in crate::cli) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that hands over had panicked");
        }
    }
}

/// Names the version, and passes the listeners on.
fn greet(wire: &Wire, listeners: &[(SocketAddr, TcpListener)]) -> io::Result<()> {
    wire.say(&Message::Hello {
        version: VERSION,
        listeners: u32::try_from(listeners.len()).unwrap_or(u32::MAX),
    })?;
    for (asked, listener) in listeners {
        wire.give(&Message::Listener(*asked), listener)?;
    }
    Ok(())
}

/// What the thread works with.
struct Drive {
    machine: Giver,
    begun: Instant,
    wire: Arc<Wire>,
    child: Child,
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    runtime: Runtime,
    tell: channel::UnboundedSender<Outcome>,
}

impl Drive {
    fn run(mut self, heard: &mpsc::Receiver<GiverEvent>) {
        loop {
            let event = match self.machine.deadline() {
                None => heard.recv().ok(),
                Some(until) => match heard.recv_timeout(until.saturating_sub(self.elapsed())) {
                    Ok(event) => Some(event),
                    Err(mpsc::RecvTimeoutError::Timeout) => Some(GiverEvent::Tick),
                    Err(mpsc::RecvTimeoutError::Disconnected) => None,
                },
            };
            let Some(event) = event else {
                return;
            };
            let mut next = Some(event);
            while let Some(event) = next {
                let action = self.machine.on(event, self.elapsed());
                match self.act(action) {
                    Done::Waits => next = None,
                    Done::Happened(event) => next = Some(event),
                    Done::Ends => return,
                }
            }
        }
    }

    fn act(&mut self, action: GiverAction) -> Done {
        match action {
            GiverAction::Wait => Done::Waits,
            GiverAction::Lend => {
                // Before: a purge that finds the stores lent needs somebody to tell.
                let heir = Arc::clone(&self.wire);
                self.engine.stand_beside(Some(Beside::Heir(heir)));
                let lent = self.engine.lend().map_err(|error| with_cause(&error));
                Done::Happened(GiverEvent::Lent(lent))
            }
            GiverAction::Say(message) => match self.wire.say(&message) {
                Ok(()) => Done::Waits,
                Err(_) => Done::Happened(GiverEvent::Ended),
            },
            GiverAction::HandOver => {
                // It is the message that decides: until it is sent there is a way back.
                if self.wire.say(&Message::Go).is_err() {
                    return self.give_up(true, "it has ended");
                }
                tracing::info!(pid = self.child.id(), "a new process has taken over");
                self.tell(Outcome::HandedOver);
                Done::Waits
            }
            GiverAction::Heed(message) => {
                if let Message::Purge {
                    number,
                    soft,
                    selectors,
                } = message
                {
                    let holds = self.runtime.block_on(self.engine.heed(soft, &selectors));
                    drop(self.wire.say(&Message::Heard { number, holds }));
                }
                Done::Waits
            }
            GiverAction::GiveUp { take_back, reason } => self.give_up(take_back, &reason),
            GiverAction::BeAlone => {
                tracing::warn!("the process that took over has ended");
                Done::Ends
            }
        }
    }

    /// Ends the other process, for good, before anything is taken back from it.
    fn give_up(&mut self, take_back: bool, reason: &str) -> Done {
        tracing::error!(reason, "the take-over failed; going on as before");
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::error!(%error, "could not end the new process");
        }
        if take_back && !self.engine.take_back() {
            tracing::error!("the store could not be taken back yet");
        }
        self.engine.stand_beside(None);
        self.metrics.takeovers_failed.add(1);
        self.tell(Outcome::GivenUp);
        Done::Ends
    }

    fn tell(&self, outcome: Outcome) {
        if self.tell.send(outcome).is_err() {
            tracing::debug!("nobody asks any more how the take-over came out");
        }
    }

    fn elapsed(&self) -> Duration {
        clock::instant().saturating_duration_since(self.begun)
    }
}

/// What an action came to.
enum Done {
    Waits,
    Happened(GiverEvent),
    Ends,
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// How this process was started, to start its successor in the same way.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Program {
    called: Option<OsString>,
    file: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    /// As this process was started. To be asked early: the file may be replaced later.
    pub(in crate::cli) fn own() -> Self {
        let mut arguments = std::env::args_os();
        Self {
            called: arguments.next(),
            file: std::env::current_exe().ok(),
            arguments: arguments.collect(),
        }
    }

    fn start(&self, socket: std::os::fd::OwnedFd) -> anyhow::Result<Child> {
        anyhow::ensure!(
            std::process::id() != 1,
            "as the first process of a container this one must not end"
        );
        let file = self.file_now().context("this program has no path")?;
        let mut command = Command::new(&file);
        command
            .args(&self.arguments)
            .env(VARIABLE, "1")
            // They speak of this process's descriptors.
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("LISTEN_PID")
            .stdin(Stdio::from(socket));
        let started = command.spawn();
        started.with_context(|| format!("could not start {}", file.display()))
    }

    /// The file to start: by the path that this process was called by, since a link there may lead to
    /// another file by now; else where its own file was.
    fn file_now(&self) -> Option<PathBuf> {
        let called = self.called.as_deref().map(Path::new);
        let by_path = called.filter(|path| path.components().count() > 1 && path.is_file());
        let own = self.file.as_deref().map(undeleted);
        by_path.map(Path::to_path_buf).or(own)
    }
}

/// The system says so of a file that was replaced while it ran.
fn undeleted(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let rest = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    PathBuf::from(OsStr::from_bytes(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(called: &str, file: &str) -> Program {
        Program {
            called: Some(called.into()),
            file: Some(file.into()),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn a_program_called_by_a_path_is_found_there_and_by_a_name_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("larder");
        std::fs::write(&link, b"").unwrap();
        let by_path = program(link.to_str().unwrap(), "/opt/old/larder");
        assert_eq!(by_path.file_now(), Some(link.clone()));
        let by_name = program("larder", "/opt/old/larder");
        assert_eq!(by_name.file_now(), Some("/opt/old/larder".into()));
        std::fs::remove_file(link).unwrap();
        assert_eq!(by_path.file_now(), Some("/opt/old/larder".into()));
    }

    #[test]
    fn a_file_that_was_replaced_is_looked_for_where_it_was() {
        let replaced = program("larder", "/opt/larder (deleted)");
        assert_eq!(replaced.file_now(), Some("/opt/larder".into()));
    }
}
