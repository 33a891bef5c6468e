//! `larder store`: looks at a store, of a stopped larder by itself and of a running one by asking it.
//!
//! Either way the same is told (see [`inventory`]) and printed here: for people, or with `--json` one
//! JSON object a line. Progress of long work is on standard error, and only on a terminal.

use super::ask::Listener;
use super::print;
use crate::clock;
use crate::flow;
use crate::flow::Catalog;
use crate::ops::inventory;
use crate::ops::inventory::Question;
use crate::ops::inventory::Said;
use crate::ops::inventory::Topic;
use crate::ops::inventory::Untold;
use crate::store::StoreError;
use crate::store::survey;
use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use clap::Subcommand;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

/// What can be asked of a store.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Action {
    /// Print how much is stored
    Stat,
    /// Print every response: key, variant, status, bytes, freshness, URL
    List {
        #[command(flatten)]
        only: Only,
    },
    /// Read and check every bit of every pack, and every response; exit code 3 when any is damaged
    Verify {
        /// Read at most so much a second [default: 64MiB where a larder is running, else no limit]
        #[arg(long, value_name = "SIZE", value_parser = rate)]
        rate: Option<ByteSize>,
    },
    /// Write every response into a new folder: KEY-VARIANT.json and KEY-VARIANT.body
    Export {
        /// The folder; must not exist, or be empty
        folder: PathBuf,
        #[command(flatten)]
        only: Only,
    },
}

/// Which responses are meant.
#[derive(Args, Clone, Debug)]
pub(super) struct Only {
    /// Only these: KEY or KEY-VARIANT as `list` prints them, or a URL that a site of the config serves
    #[arg(value_name = "KEY|URL")]
    only: Vec<String>,
}

/// Where a store is, and what may help to reach who runs on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'p> {
    pub(super) dir: &'p Path,
    /// The config file and what URLs mean by it, unless the store was named by its folder.
    pub(super) config: Option<(&'p Path, &'p flow::Params)>,
}

/// Does what was asked for in each directory of the store. Of several the path is said before, and
/// one that cannot be looked at does not keep the others from it.
pub(super) fn run_all(
    dirs: &[PathBuf],
    config: Option<(&Path, &flow::Params)>,
    action: &Action,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let [dir] = dirs {
        return run(Place { dir, config }, action, json);
    }
    let mut worst = ExitCode::SUCCESS;
    for (number, dir) in dirs.iter().enumerate() {
        let said = json!({"dir": dir.display().to_string()});
        Out { json }.say(&said, |_| format!("{}:", dir.display()))?;
        let mut action = action.clone();
        if let Action::Export { folder, .. } = &mut action {
            folder.push(number.to_string());
        }
        match run(Place { dir, config }, &action, json) {
            Ok(code) if code == ExitCode::SUCCESS => {}
            Ok(code) => worst = code,
            Err(error) => {
                eprintln!("larder: {error:#}");
                worst = ExitCode::FAILURE;
            }
        }
    }
    Ok(worst)
}

/// Does what was asked for.
fn run(place: Place<'_>, action: &Action, json: bool) -> anyhow::Result<ExitCode> {
    let out = Out { json };
    match action {
        Action::Stat => stat(&Source::open(place)?, out),
        Action::List { only } => {
            let keys = only.keys(place)?;
            list(&Source::open(place)?, &keys, out)
        }
        Action::Verify { rate } => verify(&Source::open(place)?, *rate, out),
        Action::Export { folder, only } => {
            let keys = only.keys(place)?;
            export(&Source::open(place)?, folder, &keys, out)
        }
    }
}

impl Only {
    fn keys(&self, place: Place<'_>) -> anyhow::Result<Vec<String>> {
        if self.only.len() > inventory::KEYS_MAX {
            return Err(Untold::TooMany.into());
        }
        let key = |only: &String| {
            if !only.contains("://") {
                return Ok(only.clone());
            }
            let (_, params) = place.config.context("a URL needs --config")?;
            Ok(inventory::hex(&params.key_of_url(only)?.0))
        };
        self.only.iter().map(key).collect()
    }
}

/// Who tells of the store.
enum Source {
    Stopped(Catalog),
    Running { listener: Listener, store: String },
}

impl Source {
    /// Opens the store, or finds out whom to ask when a larder is running on it.
    fn open(place: Place<'_>) -> anyhow::Result<Self> {
        match Catalog::open(place.dir) {
            Err(StoreError::Locked { .. }) => {}
            opened => {
                let catalog = opened.context("could not open the store")?;
                return Ok(Self::Stopped(catalog));
            }
        }
        let running = || format!("a larder is running on {}", place.dir.display());
        let (config, _) = place
            .config
            .context("give --config FILE, so that it can be asked")
            .with_context(running)?;
        Ok(Self::Running {
            listener: Listener::of(config).with_context(running)?,
            store: survey::identity(place.dir)?,
        })
    }

    /// Asks, and hands on what is told up to the end, which it returns.
    fn ask(
        &self,
        topic: Topic,
        question: Question,
        hear: &mut dyn FnMut(Said) -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        match self {
            Self::Stopped(catalog) => ask_here(catalog, topic, &question, hear),
            Self::Running { listener, store } => {
                let store = Some(store.clone());
                ask_there(listener, topic, &Question { store, ..question }, hear)
            }
        }
    }

    /// Asks page by page; `hear` is told when a page has ended.
    fn ask_all(
        &self,
        topic: Topic,
        keys: &[String],
        hear: &mut dyn FnMut(Option<Said>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut from = 0;
        loop {
            let question = Question {
                from,
                keys: keys.to_vec(),
                ..Question::default()
            };
            let end = self.ask(topic, question, &mut |said| hear(Some(said)))?;
            hear(None)?;
            let next = end.get("next").and_then(Value::as_u64);
            match next.and_then(|next| u32::try_from(next).ok()) {
                Some(next) if next > from => from = next,
                _ => return Ok(()),
            }
        }
    }
}

fn ask_here(
    catalog: &Catalog,
    topic: Topic,
    question: &Question,
    hear: &mut dyn FnMut(Said) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let (mut end, mut heard) = (Value::Null, Ok(()));
    let told = inventory::tell(catalog, topic, question, &mut |said| match said {
        Said::End(said) => {
            end = said;
            true
        }
        said @ (Said::Bytes(_) | Said::Line(_)) => {
            heard = hear(said);
            heard.is_ok()
        }
    });
    heard?;
    told.context("could not look at the store")?;
    Ok(end)
}

fn ask_there(
    listener: &Listener,
    topic: Topic,
    question: &Question,
    hear: &mut dyn FnMut(Said) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let path = match topic {
        Topic::Export => "/store/export",
        Topic::List => "/store/list",
        Topic::Stat => "/store/stat",
        Topic::Verify => "/store/verify",
    };
    let who = format!("the larder at {}", listener.url());
    let reply = listener
        .post(path, serde_json::to_string(question)?)
        .context("a larder is running on the store")?;
    match reply.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            anyhow::bail!("{who} wants another token than the config's admin.token_file has")
        }
        StatusCode::CONFLICT => anyhow::bail!(
            "{who} runs on another store: the config's admin.listen is not that of the larder that \
             runs on this one"
        ),
        StatusCode::NOT_FOUND => anyhow::bail!("{who} cannot tell of its store"),
        status => {
            let (status, reason) = (status.as_u16(), reply.text()?);
            anyhow::bail!("{who} refused ({status}): {}", reason.trim())
        }
    }
    let mut told = BufReader::new(reply);
    loop {
        let said = Said::read(&mut told).map_err(|error| {
            if error.kind() == ErrorKind::UnexpectedEof {
                return anyhow::anyhow!("the answer of {who} broke off");
            }
            anyhow::Error::new(error).context(format!("could not read the answer of {who}"))
        })?;
        match said {
            Said::End(end) => return Ok(end),
            Said::Line(line) if line.get("failed").is_some() => {
                anyhow::bail!("{who} could not go on: {}", text(&line, "failed"))
            }
            said @ (Said::Bytes(_) | Said::Line(_)) => hear(said)?,
        }
    }
}

/// How to print.
#[derive(Clone, Copy)]
struct Out {
    json: bool,
}

impl Out {
    fn say(self, value: &Value, text: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        let line = if self.json {
            value.to_string()
        } else {
            // A terminal obeys some characters.
            text(value).replace(|c: char| c.is_control() && c != '\n', "")
        };
        print(format!("{line}\n").as_bytes())
    }
}

fn stat(source: &Source, out: Out) -> anyhow::Result<ExitCode> {
    let figures = source.ask(Topic::Stat, Question::default(), &mut |_| Ok(()))?;
    out.say(&figures, |figures| {
        let line = |name: &&str| format!("{name:<21}{:>16}", number(figures, name));
        let lines: Vec<String> = FIGURES.iter().map(line).collect();
        lines.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(source: &Source, keys: &[String], out: Out) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    // Where the list itself is on the terminal it shows how far it has come.
    let mut progress = Progress::new("listed", !io::stdout().is_terminal());
    let mut page = Vec::new();
    source.ask_all(Topic::List, keys, &mut |said| {
        match said {
            Some(Said::Line(line)) if line.get("all").is_some() => progress.expect(&line),
            Some(Said::Line(line)) => page.push(line),
            Some(Said::Bytes(_) | Said::End(_)) => {}
            // Only now: a running larder does not wait for who reads this, as a pager does.
            None => {
                for line in page.drain(..) {
                    if let Some(bad) = complaint(&line) {
                        code = bad;
                    }
                    progress.step();
                    out.say(&line, as_text)?;
                }
            }
        }
        Ok(())
    })?;
    progress.end();
    Ok(code)
}

fn as_text(said: &Value) -> String {
    if said.get("absent").is_some() {
        return format!("{} nothing is stored", text(said, "absent"));
    }
    let (key, variant) = (text(said, "key"), text(said, "variant"));
    if said.get("error").is_some() {
        return format!("{key} {variant} {}", text(said, "error"));
    }
    let fresh = said.get("fresh").and_then(Value::as_bool) == Some(true);
    format!(
        "{key} {variant} {} {:>12} {} {}s {}",
        number(said, "status"),
        number(said, "body_bytes"),
        if fresh { "fresh for" } else { "stale for" },
        number(said, "seconds"),
        text(said, "url"),
    )
}

/// The exit code for a line that says what is wrong.
fn complaint(line: &Value) -> Option<ExitCode> {
    if line.get("error").is_some() {
        return Some(ExitCode::from(DAMAGED));
    }
    line.get("absent").map(|_| ExitCode::FAILURE)
}

fn verify(source: &Source, rate: Option<ByteSize>, out: Out) -> anyhow::Result<ExitCode> {
    let question = Question {
        bytes_per_second: rate.map(|rate| rate.as_u64()),
        ..Question::default()
    };
    let mut progress = Progress::new("checked", true);
    let end = source.ask(Topic::Verify, question, &mut |said| {
        let Said::Line(line) = said else {
            return Ok(());
        };
        if line.get("error").is_none() {
            progress.expect(&line);
            progress.reach(number(&line, "done"));
            return Ok(());
        }
        progress.end();
        out.say(&line, |line| match line.get("pack") {
            Some(pack) => format!("pack {pack} {}", text(line, "error")),
            None => as_text(line),
        })
    })?;
    progress.end();
    let sound = end.get("sound").and_then(Value::as_bool) == Some(true);
    out.say(&end, |end| {
        let count = |name| number(end, name);
        format!(
            "{}: {} packs ({} damaged, {} missing), {} entries ({} damaged), {} damaged places in the journal",
            if sound { "sound" } else { "damaged" },
            count("packs"),
            count("packs_damaged"),
            count("packs_missing"),
            count("entries"),
            count("entries_damaged"),
            count("journal_damaged"),
        )
    })?;
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGED)
    })
}

fn export(source: &Source, folder: &Path, keys: &[String], out: Out) -> anyhow::Result<ExitCode> {
    let made = || format!("could not make {}", folder.display());
    fs::create_dir_all(folder).with_context(made)?;
    if fs::read_dir(folder).with_context(made)?.next().is_some() {
        anyhow::bail!("{} is not empty; nothing was written", folder.display());
    }
    let mut export = Export {
        folder,
        progress: Progress::new("exported", true),
        open: None,
        exported: 0,
        damaged: 0,
        absent: 0,
    };
    let told = source.ask_all(Topic::Export, keys, &mut |said| match said {
        Some(said) => export.take(said),
        None => Ok(()),
    });
    export.progress.end();
    // Half a body would be taken for a whole one.
    export.give_up()?;
    told.with_context(|| format!("{} responses were exported before", export.exported))?;
    let figures = json!({
        "exported": export.exported,
        "damaged": export.damaged,
        "absent": export.absent,
    });
    out.say(&figures, |_| {
        let absent = match export.absent {
            0 => String::new(),
            absent => format!(", {absent} not stored"),
        };
        let (exported, damaged) = (export.exported, export.damaged);
        format!("exported {exported}, left out {damaged} damaged{absent}")
    })?;
    Ok(match (export.damaged, export.absent) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(DAMAGED),
    })
}

/// Writes what is told into files.
struct Export<'e> {
    folder: &'e Path,
    progress: Progress,
    open: Option<Exported>,
    exported: u64,
    damaged: u64,
    absent: u64,
}

/// A response of which the body is being written.
struct Exported {
    said: Value,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Export<'_> {
    fn take(&mut self, said: Said) -> anyhow::Result<()> {
        match said {
            Said::Bytes(bytes) => {
                let open = self.open.as_mut().context(ODD)?;
                let written = open.file.write_all(&bytes);
                written.with_context(|| not_written(&open.path))?;
                open.bytes = open.bytes.saturating_add(bytes.len().try_into()?);
            }
            Said::Line(line) if line.get("all").is_some() => self.progress.expect(&line),
            Said::Line(line) if line.get("absent").is_some() => {
                eprintln!("larder: nothing is stored under {}", text(&line, "absent"));
                self.absent = self.absent.saturating_add(1);
            }
            Said::Line(line) if line.get("error").is_some() => {
                self.give_up()?;
                self.damaged = self.damaged.saturating_add(1);
                self.progress.step();
            }
            Said::Line(line) if line.get("whole").is_some() => self.finish()?,
            Said::Line(line) => self.begin(line)?,
            Said::End(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, said: Value) -> anyhow::Result<()> {
        let (key, variant) = (text(&said, "key"), text(&said, "variant"));
        let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hexadecimal(key) || !hexadecimal(variant) || key.is_empty() || self.open.is_some() {
            anyhow::bail!(ODD);
        }
        let path = self.folder.join(format!("{key}-{variant}.body"));
        let file = File::create(&path).with_context(|| not_written(&path))?;
        self.open = Some(Exported {
            said,
            path,
            file,
            bytes: 0,
        });
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let open = self.open.as_ref().context(ODD)?;
        if open.bytes != number(&open.said, "body_bytes") {
            anyhow::bail!(ODD);
        }
        let head = open.path.with_extension("json");
        fs::write(&head, format!("{}\n", open.said)).with_context(|| not_written(&head))?;
        self.open = None;
        self.exported = self.exported.saturating_add(1);
        self.progress.step();
        Ok(())
    }

    /// Takes away what has no end.
    fn give_up(&mut self) -> anyhow::Result<()> {
        match self.open.take() {
            Some(open) => fs::remove_file(&open.path).with_context(|| not_written(&open.path)),
            None => Ok(()),
        }
    }
}

fn not_written(path: &Path) -> String {
    format!("could not write {}", path.display())
}

/// How far long work has come, on a terminal.
struct Progress {
    what: &'static str,
    done: u64,
    all: u64,
    shown: Option<Instant>,
}

impl Progress {
    fn new(what: &'static str, wanted: bool) -> Self {
        let shown = wanted && io::stderr().is_terminal();
        Self {
            what,
            done: 0,
            all: 0,
            shown: shown.then(clock::instant),
        }
    }

    /// Learns how much there is to do.
    fn expect(&mut self, line: &Value) {
        self.all = number(line, "all").max(self.done);
    }

    fn step(&mut self) {
        self.reach(self.done.saturating_add(1));
    }

    fn reach(&mut self, done: u64) {
        self.done = done;
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
        let filled = usize::try_from(percent.min(100) / 5).unwrap_or_default();
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

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Reads how much may be read a second.
fn rate(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(rate) if rate.as_u64() > 0 => Ok(rate),
        Ok(_) => Err("must be more than nothing".to_owned()),
        Err(error) => Err(error),
    }
}

/// What `stat` prints, in order.
const FIGURES: &[&str] = &[
    "entries",
    "bodies",
    "live_bytes",
    "packs",
    "pack_bytes",
    "pack_bytes_allocated",
    "packs_missing",
    "journal_bytes",
    "journal_damaged",
];
const ODD: &str = "the answer makes no sense";
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

    fn heard(pieces: Vec<Said>) -> (anyhow::Result<()>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let mut export = Export {
            folder: folder.path(),
            progress: Progress::new("exported", false),
            open: None,
            exported: 0,
            damaged: 0,
            absent: 0,
        };
        let taken = pieces.into_iter().try_for_each(|said| export.take(said));
        export.give_up().unwrap();
        let files = fs::read_dir(folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        (taken, names)
    }

    #[test]
    fn an_export_keeps_what_is_whole_and_nothing_else() {
        let head = |key: &str| Said::Line(json!({"key": key, "variant": "0", "body_bytes": 2}));
        let bytes = || Said::Bytes("ab".into());
        let whole = || Said::Line(json!({"whole": true}));
        let damaged = Said::Line(json!({"key": "b", "error": "x"}));
        let (taken, files) = heard(vec![
            head("a"),
            bytes(),
            whole(),
            head("b"),
            bytes(),
            damaged,
            head("c"),
            bytes(),
        ]);
        taken.unwrap();
        assert_eq!(files, ["a-0.body", "a-0.json"]);
        for odd in [
            vec![bytes()],
            vec![whole()],
            vec![head("a"), whole()],
            vec![head("a"), head("b")],
            vec![head("../a"), bytes(), whole()],
            vec![head("")],
            vec![Said::Line(json!({}))],
        ] {
            let (taken, files) = heard(odd);
            assert_eq!(taken.unwrap_err().to_string(), ODD);
            assert_eq!(files, [""; 0]);
        }
    }

    #[test]
    fn a_rate_is_a_size_and_more_than_nothing() {
        assert_eq!(rate("1MiB"), Ok(ByteSize(1 << 20)));
        for bad in ["0", "0MiB", "fast", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
