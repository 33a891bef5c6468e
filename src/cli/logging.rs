//! Events to standard error, in colour only on a terminal.

use crate::config::plan::Level;
use std::io;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;

/// The events of the process.
#[derive(Debug)]
pub(super) struct Logging(Handle<LevelFilter, Registry>);

impl Logging {
    /// Starts logging for the whole process.
    pub(super) fn start(level: Level) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(level));
        let events = fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        tracing_subscriber::registry()
            .with(filter)
            .with(events)
            .try_init()
            .map_err(|error| anyhow::anyhow!("could not start logging: {error}"))?;
        Ok(Self(handle))
    }

    /// Logs from another level on.
    pub(super) fn set(&self, level: Level) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::error!(%error, "the log level stays as it was");
        }
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
