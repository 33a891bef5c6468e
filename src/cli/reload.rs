//! Reloads: the thread that does them one after the other, and `larder reload`, which asks for one.
//!
//! SIGHUP and `POST /reload` stand in the same line. Reading files and binding may take a while, so
//! they happen on a thread of their own, and signals are heard meanwhile. What a change is, is the
//! house's business.

use super::ask::Listener;
use super::house::House;
use super::print;
use crate::ops::reload::Changes;
use crate::ops::reload::Order;
use crate::ops::reload::Pause;
use crate::ops::reload::Reloaded;
use anyhow::Context;
use http::StatusCode;
use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// The thread that has the house while it serves.
pub(super) struct Reloader {
    /// Gives the house back at the end.
    house: Receiver<House>,
}

impl Reloader {
    /// Does what the line asks for, until it asks for the end.
    pub(super) fn start(mut house: House, line: Receiver<Order>) -> anyhow::Result<Self> {
        let (give, given) = channel();
        let work = move || {
            loop {
                match line.recv() {
                    // Who asked by a signal does not listen, and others may have left.
                    Ok(Order::Reload(tell)) => drop(tell.send(reload(&mut house))),
                    Ok(Order::Pause(tell)) => {
                        let (pause, end) = Pause::begin();
                        drop(tell.send(pause));
                        end.wait();
                    }
                    Ok(Order::End) | Err(_) => break,
                }
            }
            drop(give.send(house));
        };
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(work)
            .context("could not start the thread for reloads")?;
        Ok(Self { house: given })
    }

    /// Waits for the end, which was asked for. None when a reload takes too long.
    pub(super) fn end(self, limit: Duration) -> Option<House> {
        self.house.recv_timeout(limit).ok()
    }
}

fn reload(house: &mut House) -> Reloaded {
    let reloaded = house.change();
    match &reloaded {
        Ok(changes) => tracing::info!("reloaded; {}", one_line(changes)),
        Err(problems) => {
            for problem in problems {
                tracing::error!("not reloaded: {problem}");
            }
            // Certificates that are in order do not wait for the config to be.
            house.look_at_certificates();
        }
    }
    reloaded
}

fn one_line(changes: &Changes) -> String {
    changes.to_string().replace('\n', "; ")
}

/// What `POST /reload` answers.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Reloaded(Changes),
}

#[derive(Deserialize)]
struct Refusal {
    problems: Vec<String>,
}

/// Asks a running larder to read its config again, and prints what has changed; fails with every
/// reason why nothing has.
pub(super) fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let reply = Listener::of(config)?.post("/reload", String::new())?;
    let status = reply.status;
    let text = reply.text()?;
    if status == StatusCode::OK {
        let Answer::Reloaded(changes) =
            serde_json::from_str(&text).context("the answer cannot be read")?;
        print(format!("{changes}\n").as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    match serde_json::from_str::<Refusal>(&text) {
        Ok(Refusal { problems }) => problems.iter().for_each(|problem| eprintln!("{problem}")),
        Err(_) => {
            let (status, reason) = (status.as_u16(), text.trim());
            eprintln!("larder: the reload was refused ({status}): {reason}");
        }
    }
    Ok(ExitCode::FAILURE)
}
