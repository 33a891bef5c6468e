//! The `larder` command.

use clap::Parser;
use larder::cli::Cli;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Chosen by measurement: a hit and a miss take less time with it than with the system's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
