//! `larder store`: looks at the store of a stopped larder, and changes nothing in it.
//!
//! What it prints is for people, or with `--json` one JSON object a line. Progress of long work is
//! on standard error, and only on a terminal.

use super::print;
use crate::clock;
use crate::flow::Catalog;
use crate::rules::address::Put;
use crate::rules::freshness::Freshness;
use crate::rules::stored::StoredResponse;
use crate::store::StoreError;
use anyhow::Context;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;
use std::fs;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// What can be asked of a store.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Action {
    /// Print how much is stored
    Stat,
    /// Print every response: key, variant, status, bytes, freshness (URLs are not stored)
    List,
    /// Read and check every bit of every pack, and every response; exit code 3 when any is damaged
    Verify,
    /// Write every response into a new folder: KEY-VARIANT.json and KEY-VARIANT.body
    Export {
        /// The folder; must not exist, or be empty
        folder: PathBuf,
    },
}

/// Does what was asked for in each directory of the store. Of several the path is said before.
pub(super) fn run(dirs: &[PathBuf], action: &Action, json: bool) -> anyhow::Result<ExitCode> {
    if let [dir] = dirs {
        return run_in(dir, action, json);
    }
    let mut worst = ExitCode::SUCCESS;
    for (number, dir) in dirs.iter().enumerate() {
        if json {
            line(&json!({"dir": dir.display().to_string()}))?;
        } else {
            print(format!("{}:\n", dir.display()).as_bytes())?;
        }
        // Two directories may hold different responses under one name.
        let action = match action {
            Action::Export { folder } => Action::Export {
                folder: folder.join(number.to_string()),
            },
            Action::Stat | Action::List | Action::Verify => action.clone(),
        };
        match run_in(dir, &action, json) {
            Ok(code) if code == ExitCode::SUCCESS => {}
            Ok(code) => worst = code,
            // One that cannot be opened does not keep the others from being looked at.
            Err(error) => {
                eprintln!("larder: {error:#}");
                worst = ExitCode::FAILURE;
            }
        }
    }
    Ok(worst)
}

/// Opens the store in `dir` and does what was asked for.
fn run_in(dir: &Path, action: &Action, json: bool) -> anyhow::Result<ExitCode> {
    let catalog = match Catalog::open(dir) {
        Err(error @ StoreError::Locked { .. }) => {
            return Err(error).context(
                "a larder is running on the store: stop it first, or ask its admin listener for /stats",
            );
        }
        opened => opened.context("could not open the store")?,
    };
    match action {
        Action::Stat => stat(&catalog, json),
        Action::List => list(&catalog, json),
        Action::Verify => verify(&catalog, json),
        Action::Export { folder } => export(&catalog, folder, json),
    }
}

fn stat(catalog: &Catalog, as_json: bool) -> anyhow::Result<ExitCode> {
    let survey = catalog.survey();
    let packs = survey.packs();
    let allocated: u64 = packs.iter().map(|(_, _, allocated)| allocated).sum();
    let figures = [
        ("entries", count(catalog.puts().len())),
        ("bodies", count(catalog.bodies())),
        ("live_bytes", catalog.live_bytes()),
        ("packs", count(packs.len())),
        ("pack_bytes", packs.iter().map(|(_, bytes, _)| bytes).sum()),
        ("pack_bytes_allocated", allocated),
        ("packs_missing", count(survey.missing.len())),
        ("journal_bytes", survey.journal_bytes),
        ("journal_damaged", survey.damaged),
    ];
    if as_json {
        let figures = figures
            .iter()
            .map(|(name, n)| ((*name).to_owned(), json!(n)));
        line(&Value::Object(figures.collect()))?;
    } else {
        for (name, n) in figures {
            print(format!("{name:<21}{n:>16}\n").as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(catalog: &Catalog, as_json: bool) -> anyhow::Result<ExitCode> {
    let now = clock::now();
    let mut code = ExitCode::SUCCESS;
    for put in catalog.puts() {
        let said = match catalog.head(&put) {
            Ok(None) => continue,
            Ok(Some(response)) => described(&put, &response, now),
            Err(error) => {
                code = ExitCode::from(DAMAGED);
                json!({"key": hex(&put.key.0), "error": error.to_string()})
            }
        };
        if as_json {
            line(&said)?;
        } else {
            print(as_text(&said).as_bytes())?;
        }
    }
    Ok(code)
}

fn described(put: &Put, response: &StoredResponse, now: SystemTime) -> Value {
    let (fresh, seconds) = match response.freshness(now) {
        Freshness::Fresh { ttl } => (true, ttl.as_secs()),
        Freshness::Stale { by } => (false, by.as_secs()),
    };
    json!({
        "key": hex(&put.key.0),
        "variant": format!("{:016x}", put.variant.0),
        "sequence": put.sequence.0,
        "status": response.status.as_u16(),
        "body_bytes": response.body_bytes,
        "fresh": fresh,
        "seconds": seconds,
        "vary": put.vary.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "segments": put.parts.locations().count(),
    })
}

fn as_text(said: &Value) -> String {
    let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or_default();
    if said.get("error").is_some() {
        return format!("{} {}\n", text("key"), text("error"));
    }
    let fresh = said.get("fresh").and_then(Value::as_bool) == Some(true);
    format!(
        "{} {} {} {:>12} {} {}s\n",
        text("key"),
        text("variant"),
        number("status"),
        number("body_bytes"),
        if fresh { "fresh for" } else { "stale for" },
        number("seconds"),
    )
}

fn verify(catalog: &Catalog, as_json: bool) -> anyhow::Result<ExitCode> {
    let survey = catalog.survey();
    let (packs, puts) = (survey.packs(), catalog.puts());
    let mut progress = Progress::new("checked", packs.len().saturating_add(puts.len()));
    let mut packs_damaged = Vec::new();
    for (pack, _, _) in &packs {
        if !survey.is_intact(*pack)? {
            packs_damaged.push(pack.0);
        }
        progress.step();
    }
    let mut entries_damaged = Vec::new();
    for put in &puts {
        let sound = catalog.head(put).and_then(|response| match response {
            Some(response) => catalog
                .body(put, response.body)
                .try_for_each(|part| part.map(drop)),
            None => Ok(()),
        });
        match sound {
            Ok(()) => {}
            Err(StoreError::Corrupt { .. }) => entries_damaged.push(hex(&put.key.0)),
            Err(error) => return Err(error).context("could not verify the store"),
        }
        progress.step();
    }
    progress.end();
    let missing: Vec<u32> = survey.missing.iter().map(|pack| pack.0).collect();
    let sound = packs_damaged.is_empty()
        && entries_damaged.is_empty()
        && missing.is_empty()
        && survey.damaged == 0;
    if as_json {
        line(&json!({
            "sound": sound,
            "packs": packs.len(),
            "packs_damaged": packs_damaged,
            "packs_missing": missing,
            "entries": puts.len(),
            "entries_damaged": entries_damaged,
            "journal_damaged": survey.damaged,
        }))?;
    } else {
        let word = if sound { "sound" } else { "damaged" };
        let text = format!(
            "{word}: {} packs ({} damaged, {} missing), {} entries ({} damaged), {} damaged places in the journal\n",
            packs.len(),
            packs_damaged.len(),
            missing.len(),
            puts.len(),
            entries_damaged.len(),
            survey.damaged,
        );
        print(text.as_bytes())?;
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGED)
    })
}

fn export(catalog: &Catalog, folder: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let made = || format!("could not make {}", folder.display());
    fs::create_dir_all(folder).with_context(made)?;
    if fs::read_dir(folder).with_context(made)?.next().is_some() {
        anyhow::bail!("{} is not empty; nothing was written", folder.display());
    }
    let now = clock::now();
    let puts = catalog.puts();
    let mut progress = Progress::new("exported", puts.len());
    let (mut exported, mut damaged) = (0_u64, 0_u64);
    for put in &puts {
        match export_one(catalog, put, folder, now)? {
            Exported::Whole => exported = exported.saturating_add(1),
            Exported::Damaged => damaged = damaged.saturating_add(1),
            Exported::Purged => {}
        }
        progress.step();
    }
    progress.end();
    if as_json {
        line(&json!({"exported": exported, "damaged": damaged}))?;
    } else {
        print(format!("exported {exported}, left out {damaged} damaged\n").as_bytes())?;
    }
    Ok(if damaged == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGED)
    })
}

enum Exported {
    Whole,
    Damaged,
    Purged,
}

fn export_one(
    catalog: &Catalog,
    put: &Put,
    folder: &Path,
    now: SystemTime,
) -> anyhow::Result<Exported> {
    let response = match catalog.head(put) {
        Ok(Some(response)) => response,
        Ok(None) => return Ok(Exported::Purged),
        Err(StoreError::Corrupt { .. }) => return Ok(Exported::Damaged),
        Err(error) => return Err(error.into()),
    };
    let name = format!("{}-{:016x}", hex(&put.key.0), put.variant.0);
    let (head, body) = (
        folder.join(format!("{name}.json")),
        folder.join(format!("{name}.body")),
    );
    let failed = |path: &Path| format!("could not write {}", path.display());
    let mut file = File::create(&body).with_context(|| failed(&body))?;
    for part in catalog.body(put, response.body) {
        match part {
            Ok(bytes) => file.write_all(&bytes).with_context(|| failed(&body))?,
            Err(StoreError::Corrupt { .. }) => {
                // Half a body would be taken for a whole one.
                fs::remove_file(&body).with_context(|| failed(&body))?;
                return Ok(Exported::Damaged);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut said = described(put, &response, now);
    let fields: Vec<Value> = response
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    if let Some(said) = said.as_object_mut() {
        said.insert("headers".to_owned(), Value::Array(fields));
    }
    fs::write(&head, format!("{said}\n")).with_context(|| failed(&head))?;
    Ok(Exported::Whole)
}

/// How far long work has come, on a terminal.
struct Progress {
    what: &'static str,
    done: usize,
    all: usize,
    shown: Option<Instant>,
}

impl Progress {
    fn new(what: &'static str, all: usize) -> Self {
        Self {
            what,
            done: 0,
            all,
            shown: io::stderr().is_terminal().then(clock::instant),
        }
    }

    fn step(&mut self) {
        self.done = self.done.saturating_add(1);
        let now = clock::instant();
        if self
            .shown
            .is_some_and(|shown| now.saturating_duration_since(shown) >= REPAINT)
        {
            self.shown = Some(now);
            eprint!("\r{}", self.line());
        }
    }

    fn line(&self) -> String {
        let percent = self.done.saturating_mul(100) / self.all.max(1);
        let filled = percent.min(100) / 5;
        let (bar, rest) = (
            "#".repeat(filled),
            ".".repeat(20_usize.saturating_sub(filled)),
        );
        format!(
            "[{bar}{rest}] {percent:>3} % {} {} of {}",
            self.what, self.done, self.all
        )
    }

    /// Takes the line away.
    fn end(&self) {
        if self.shown.is_some() {
            eprint!("\r{:width$}\r", "", width = self.line().len());
        }
    }
}

fn line(value: &Value) -> anyhow::Result<()> {
    print(format!("{value}\n").as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The exit code for a store in which something is damaged.
const DAMAGED: u8 = 3;
const REPAINT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_bar_of_constant_width() {
        let at = |done, all| {
            let progress = Progress {
                what: "checked",
                done,
                all,
                shown: None,
            };
            progress.line()
        };
        assert_eq!(at(0, 0), "[....................]   0 % checked 0 of 0");
        assert_eq!(at(1, 2), "[##########..........]  50 % checked 1 of 2");
        assert_eq!(at(2, 2), "[####################] 100 % checked 2 of 2");
    }
}
