//! Events to standard error, in colour only on a terminal.

use crate::config::plan::Level;
use std::io;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;

/// Starts logging for the whole process.
pub(super) fn start(level: Level) -> anyhow::Result<()> {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("could not start logging: {error}"))
}
