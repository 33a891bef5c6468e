//! The thread that takes up certificate files that have changed, and says what there is.
//!
//! It looks every so often, and at once when it is asked; reading is done here, so that no worker
//! waits for a disk. What a changed file comes to is decided in `net::tls`.

use crate::clock;
use crate::net::tls::Front;
use crate::ops::metrics::Acme;
use crate::ops::metrics::Certificate;
use crate::ops::metrics::Certificates;
use anyhow::Context;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

/// A running watcher.
pub(super) struct Watcher {
    thread: JoinHandle<()>,
    ask: mpsc::SyncSender<()>,
}

impl Watcher {
    /// Looks at the files of `front` every `interval` from now on.
    pub(super) fn start(front: Arc<Front>, interval: Duration) -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::sync_channel(1);
        let watch = move || {
            loop {
                let all = match asked.recv_timeout(interval) {
                    Ok(()) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                front.refresh(all, clock::now());
            }
        };
        let thread = thread::Builder::new().name("certificates".to_owned());
        let thread = thread
            .spawn(watch)
            .context("could not start the thread that watches certificates")?;
        Ok(Self { thread, ask })
    }

    /// Has every file read now.
    pub(super) fn look(&self) {
        if self.ask.try_send(()).is_err() {
            tracing::debug!("certificates are about to be read anyway");
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        drop(self.ask);
        if self.thread.join().is_err() {
            tracing::error!("the thread that watches certificates ended badly");
        }
    }
}

/// Tells of the certificates of a front.
pub(super) fn tell(front: Option<&Front>, acme: Option<Acme>) -> Certificates {
    let Some(front) = front else {
        return Certificates::default();
    };
    let refreshed = front.refreshed();
    let all = front.certificates().into_iter().map(|status| Certificate {
        source: status.source,
        names: status.names,
        not_after: status.not_after,
        stapled: status.stapled,
        trouble: status.trouble,
    });
    Certificates {
        all: all.collect(),
        files_taken: refreshed.taken,
        files_refused: refreshed.refused,
        acme,
    }
}
