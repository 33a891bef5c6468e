//! The `larder` command.

use clap::Parser;
use larder::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run()
}
