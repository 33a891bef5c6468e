//! `larder check`: is this config any good, and what does it come to?

use super::print;
use crate::config;
use crate::config::file;
use std::path::Path;
use std::process::ExitCode;

/// Prints the config in effect; every problem is in the error.
pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let (file, _plan) = config::load(path)?;
    print(file.effective().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints every key with its explanation and default.
pub(super) fn print_default() -> anyhow::Result<ExitCode> {
    print(file::reference().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
