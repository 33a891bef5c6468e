//! The command line: what can be asked for, and where errors become exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 a command line or config that cannot be used, 3 a store in which
//! something is damaged.

mod acme;
mod ask;
mod certificates;
mod check;
mod explain;
mod house;
mod listeners;
mod logging;
mod purge;
mod reload;
mod serve;
mod store;
mod takeover;
mod top;
mod workers;

use crate::config;
use crate::config::ConfigError;
use anyhow::Context;
use clap::Args;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Caching HTTP accelerator: a reverse proxy with a content-addressed store on disk.
#[derive(Debug, Parser)]
#[command(name = "larder", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a config: print what is in effect, or every problem (exit code 2)
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Print every key with its explanation and default, as a config that works
        #[arg(long, conflicts_with = "config")]
        print_default: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Say what would become of a request now and why, by asking a running larder; changes nothing
    Explain {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        request: explain::Request,
    },
    /// Remove responses from a running larder, and print the receipt
    Purge {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        purge: purge::Purge,
    },
    /// Have a running larder read its config again, and print what has changed, or everything that is wrong
    Reload {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Serve until SIGTERM or SIGINT; either one twice cuts what is under way. SIGHUP reloads,
    /// SIGUSR2 has a new binary take over
    Serve {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Look at a store: of a stopped larder without a change, of a running one by asking it
    Store {
        #[command(flatten)]
        config: ConfigArg,
        /// The store's folder, instead of the config's
        #[arg(long, value_name = "DIR", conflicts_with = "config")]
        dir: Option<PathBuf>,
        /// Print JSON, one object a line
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        action: store::Action,
    },
    /// Watch a running larder in a terminal: rates, ratios, the heaviest URLs, other sizes of the store
    Top {
        #[command(flatten)]
        config: ConfigArg,
        /// How long to wait between two looks, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
        interval: u64,
    },
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The config file [default: larder.toml, when there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked for and says how it went.
    pub fn run(self) -> ExitCode {
        match self.command.run() {
            Ok(code) => code,
            Err(error) => match error.downcast_ref::<ConfigError>() {
                Some(error) => {
                    eprintln!("{error}");
                    ExitCode::from(UNUSABLE)
                }
                None => {
                    eprintln!("larder: {error:#}");
                    ExitCode::FAILURE
                }
            },
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check {
                print_default: true,
                ..
            } => check::print_default(),
            Self::Check { config, .. } => match config.path() {
                Some(path) => check::run(&path),
                None => Ok(no_config()),
            },
            Self::Completions { shell } => completions(shell),
            Self::Explain { config, request } => match config.path() {
                Some(path) => explain::run(&path, &request),
                None => Ok(no_config()),
            },
            Self::Purge { config, purge } => match config.path() {
                Some(path) => purge.run(&path),
                None => Ok(no_config()),
            },
            Self::Reload { config } => match config.path() {
                Some(path) => reload::run(&path),
                None => Ok(no_config()),
            },
            Self::Serve { config } => match config.path() {
                Some(path) => serve::run(&path),
                None => Ok(no_config()),
            },
            Self::Store {
                config,
                dir,
                json,
                action,
            } => match (dir, config.path()) {
                (Some(dir), _) => store::run_all(&[dir], None, &action, json),
                (None, Some(path)) => {
                    let (_file, plan) = config::load(&path)?;
                    let dirs = plan.store.into_iter().map(|store| store.dir);
                    let dirs: Vec<PathBuf> = dirs.collect();
                    store::run_all(&dirs, Some((&path, &plan.flow)), &action, json)
                }
                (None, None) => Ok(no_config()),
            },
            Self::Top { config, interval } => match config.path() {
                Some(path) => top::run(&path, Duration::from_secs(interval)),
                None => Ok(no_config()),
            },
        }
    }
}

impl ConfigArg {
    fn path(self) -> Option<PathBuf> {
        self.config.or_else(|| {
            let default = PathBuf::from(DEFAULT_CONFIG);
            default.exists().then_some(default)
        })
    }
}

fn no_config() -> ExitCode {
    eprintln!("larder: give --config FILE (there is no {DEFAULT_CONFIG} in this folder)");
    ExitCode::from(UNUSABLE)
}

fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "larder", &mut script);
    print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output at once.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("could not write to standard output")
}

const DEFAULT_CONFIG: &str = "larder.toml";
/// The exit code for a command line or config that cannot be used; clap's own is the same.
const UNUSABLE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_purge_names_items_or_everything_but_not_both() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["larder", "purge"], args].concat());
        assert!(parse(&["http://a/"]).is_ok());
        assert!(parse(&["--url", "http://a/", "--tag", "t", "--soft", "--wait"]).is_ok());
        assert!(parse(&["--tag", "t", "--site", "a", "--refresh", "3"]).is_ok());
        assert!(parse(&["--all"]).is_ok());
        for wrong in [
            &[][..],
            &["--soft"],
            &["--all", "http://a/"],
            &["--all", "--host", "a"],
            &["--tag", "t", "--refresh", "many"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_check_of_the_defaults_needs_no_config() {
        assert!(Cli::try_parse_from(["larder", "check", "--print-default"]).is_ok());
        assert!(
            Cli::try_parse_from(["larder", "check", "--print-default", "--config", "x"]).is_err()
        );
    }
}
