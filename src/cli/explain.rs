//! `larder explain`: asks a running larder, over its admin listener, what would become of a request,
//! and writes the answer for people to read.
//!
//! What is said comes from [`ops::explain`](crate::ops::explain) as JSON; here it is only laid out.

use super::ask::Listener;
use super::print;
use anyhow::Context;
use clap::Args;
use http::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

/// The request to explain.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// An absolute URL
    #[arg(value_name = "URL")]
    url: String,
    /// A field of the request, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(String, String)>,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Ask the origin too, store nothing, and say whether its answer would be stored
    #[arg(long)]
    fetch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Explains and prints.
pub(super) fn run(config: &Path, request: &Request) -> anyhow::Result<ExitCode> {
    let listener = Listener::of(config)?;
    let reply = listener.post("/explain", question(request).to_string())?;
    let status = reply.status;
    let text = reply.text()?;
    if status != StatusCode::OK {
        let (status, reason) = (status.as_u16(), text.trim());
        eprintln!("larder: the question was refused ({status}): {reason}");
        return Ok(ExitCode::FAILURE);
    }
    let mut told: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    clean(&mut told);
    let out = match request.json {
        true => format!("{told:#}\n"),
        false => {
            let mut page = Page::new(io::stdout().is_terminal());
            page.explain(&told);
            page.text
        }
    };
    print(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Takes out what would move a terminal's cursor: some of it was said by origins.
fn clean(told: &mut Value) {
    match told {
        Value::String(text) => text.retain(|c| !c.is_control()),
        Value::Array(list) => list.iter_mut().for_each(clean),
        Value::Object(members) => members.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The question as the admin listener reads it.
fn question(request: &Request) -> Value {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &request.headers {
        let lines = headers
            .entry(name.to_ascii_lowercase())
            .or_insert(json!([]));
        if let Some(lines) = lines.as_array_mut() {
            lines.push(Value::from(value.as_str()));
        }
    }
    json!({
        "url": request.url,
        "method": request.method,
        "headers": headers,
        "fetch": request.fetch,
    })
}

/// Reads `Name: value`.
fn field(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), value.trim_ascii().to_owned()))
        }
        Some(_) | None => Err("write it as \"Name: value\"".to_owned()),
    }
}

/// A page under way.
struct Page {
    text: String,
    colour: bool,
}

/// How a word is shown where there are colours.
#[derive(Clone, Copy)]
enum Ink {
    Bad = 31,
    Good = 32,
    Middling = 33,
    Faint = 2,
    Strong = 1,
}

impl Page {
    fn new(colour: bool) -> Self {
        Self {
            text: String::new(),
            colour,
        }
    }

    fn explain(&mut self, told: &Value) {
        self.would(told);
        self.request(told);
        let stored = list(told, "/stored");
        match stored.len() {
            0 if told.get("key").is_none_or(Value::is_null) => {}
            0 => self.heading("Stored", "nothing under this key"),
            1 => self.heading("Stored", "1 response"),
            count => self.heading("Stored", &format!("{count} responses")),
        }
        for entry in stored {
            self.entry(entry);
        }
        if let Some(fetched) = told.get("fetched").filter(|fetched| !fetched.is_null()) {
            self.fetched(fetched);
        }
    }

    fn would(&mut self, told: &Value) {
        let act = word(told, "/would/act");
        let ink = match act {
            "hit" => Ink::Good,
            "answer" | "partial" | "redirect" | "revalidate" | "stale-hit" => Ink::Middling,
            _ => Ink::Bad,
        };
        let method = word(told, "/request/method");
        let url = match word(told, "/request/url") {
            "" => word(told, "/request/target"),
            url => url,
        };
        let act = self.ink(ink, act);
        let _ = writeln!(self.text, "{method} {url} would come to: {act}");
        let would = told.get("would").unwrap_or(&Value::Null);
        self.reason(would);
        if let Some(status) = would.get("status").and_then(Value::as_u64) {
            self.line("status", &status.to_string());
        }
        self.line("Cache-Status", word(would, "/cache_status"));
        if would.get("underway") == Some(&Value::Bool(true)) {
            self.line(
                "meanwhile",
                "somebody asks the origin for it now: this request would share that",
            );
        }
    }

    /// A word with what it means.
    fn reason(&mut self, told: &Value) {
        let because = match word(told, "/section") {
            "" => word(told, "/because").to_owned(),
            section => format!("{} ({section})", word(told, "/because")),
        };
        let reason = self.ink(Ink::Strong, word(told, "/reason"));
        self.line("because", &format!("{reason}: {because}"));
        match word(told, "/remedy") {
            "" => {}
            remedy => self.line("to change it", remedy),
        }
    }

    fn request(&mut self, told: &Value) {
        if let Some(site) = told.get("site").filter(|site| !site.is_null()) {
            let (name, pattern) = (word(site, "/name"), word(site, "/pattern"));
            self.heading("Site", name);
            self.line("by the host", pattern);
            self.line("upstream", word(site, "/upstream"));
        }
        let Some(key) = told.get("key").filter(|key| !key.is_null()) else {
            return;
        };
        self.heading("Key", word(key, "/key"));
        for name in ["site", "scheme", "authority", "target"] {
            match word(key, &format!("/parts/{name}")) {
                "" => self.line(name, "does not count"),
                part => self.line(name, part),
            }
        }
        let dropped: Vec<&str> = list(key, "/dropped")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !dropped.is_empty() {
            self.line("left out", &dropped.join(" & "));
        }
        let selecting = list(key, "/selecting");
        if !selecting.is_empty() {
            self.line("and the fields", &fields(selecting));
        }
        if !word(key, "/alike").is_empty() {
            self.line(
                "shared key",
                &format!("{} (No-Vary-Search)", word(key, "/alike")),
            );
        }
    }

    fn entry(&mut self, entry: &Value) {
        let flag = |name: &str| entry.get(name) == Some(&Value::Bool(true));
        let used = match (word(entry, "/state"), flag("chosen"), flag("selected")) {
            ("soft-purged", true, _) => self.ink(Ink::Middling, "this one, though purged softly"),
            ("purged", _, _) => self.ink(Ink::Bad, "purged"),
            ("unreadable", _, _) => self.ink(Ink::Bad, "cannot be read"),
            (_, true, _) => self.ink(Ink::Good, "this one"),
            (_, false, true) => self.ink(Ink::Middling, "selected too, but another goes first"),
            (_, false, false) => self.ink(Ink::Faint, "for other requests"),
        };
        let _ = writeln!(
            self.text,
            "\n  response {}: {used}",
            number(entry, "sequence")
        );
        if entry.get("status").is_none() {
            return;
        }
        self.head(entry);
        if let Some(may) = entry.get("may") {
            self.reason(may);
        }
        self.steps(entry);
    }

    /// What a stored response is, or would be.
    fn head(&mut self, entry: &Value) {
        let mut what = format!("status {}", number(entry, "status"));
        if let Some(bytes) = entry.get("bytes").and_then(Value::as_u64) {
            let _ = write!(what, ", {bytes} bytes");
        }
        if let Some(part) = entry.get("part").filter(|part| !part.is_null()) {
            let (first, last) = (number(part, "first"), number(part, "last"));
            let _ = write!(
                what,
                ", of them {first} to {last} of {}",
                number(part, "of")
            );
        }
        self.line("what", &what);
        let vary = list(entry, "/vary");
        match vary.is_empty() {
            true => self.line("variant", "the only one: it varies by no field"),
            false => self.line(
                "variant",
                &format!("{} by {}", word(entry, "/variant"), fields(vary)),
            ),
        }
        if !word(entry, "/url").is_empty() {
            self.line("purges find it by", word(entry, "/url"));
        }
        if !word(entry, "/soft_purged_at").is_empty() {
            self.line("stale since", word(entry, "/soft_purged_at"));
        }
        for purge in list(entry, "/purges") {
            let manner = match purge["soft"].as_bool() {
                Some(true) => "soft",
                Some(false) | None => "hard",
            };
            let (id, kind) = (word(purge, "/id"), word(purge, "/kind"));
            let at = word(purge, "/at");
            self.line("purged by", &format!("{id}: {kind}, {manner}, {at}"));
        }
        let tags: Vec<&str> = list(entry, "/tags")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !tags.is_empty() {
            self.line("tags", &tags.join(" "));
        }
        for (name, says) in [
            (
                "stale_while_revalidate",
                "seconds it may be served stale while the origin is asked (RFC 5861 §3)",
            ),
            (
                "stale_if_error",
                "seconds it may be served stale when the origin fails (RFC 5861 §4)",
            ),
        ] {
            let seconds = entry.get(name).and_then(Value::as_u64).unwrap_or_default();
            if seconds > 0 {
                self.line(name, &format!("{seconds} {says}"));
            }
        }
        for (name, says) in [
            ("validate_always", "no-cache (RFC 9111 §5.2.2.4)"),
            (
                "must_revalidate",
                "never stale (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10)",
            ),
        ] {
            if entry.get(name) == Some(&Value::Bool(true)) {
                self.line(name, says);
            }
        }
        self.fields(entry);
    }

    fn fields(&mut self, of: &Value) {
        for field in list(of, "/headers") {
            let (name, value) = (word(field, "/0"), field.pointer("/1"));
            match value.and_then(Value::as_str) {
                Some(value) => self.line("field", &format!("{name}: {value}")),
                None => self.line("field", &format!("{name}: (not shown)")),
            }
        }
    }

    /// The arithmetic of age and freshness.
    fn steps(&mut self, entry: &Value) {
        for step in list(entry, "/freshness") {
            let value = match step.get("seconds").and_then(Value::as_f64) {
                Some(seconds) => format!("{seconds} s"),
                None => word(step, "/time").to_owned(),
            };
            let (section, says) = (word(step, "/section"), word(step, "/says"));
            let why = match says {
                "" => section.to_owned(),
                says => format!("{says} ({section})"),
            };
            let why = self.ink(Ink::Faint, &why);
            self.line(word(step, "/name"), &format!("{value:<26}{why}"));
        }
    }

    fn fetched(&mut self, fetched: &Value) {
        if !word(fetched, "/error").is_empty() {
            self.heading("Origin", word(fetched, "/error"));
            self.reason(fetched);
            return;
        }
        let answer = format!(
            "{} answered {} within {} ms",
            word(fetched, "/backend"),
            number(fetched, "status"),
            number(fetched, "took_ms"),
        );
        self.heading("Origin", &answer);
        if !word(fetched, "/range").is_empty() {
            self.line("asked for", word(fetched, "/range"));
        }
        self.fields(fetched);
        match fetched.get("as").filter(|kept| !kept.is_null()) {
            Some(kept) => {
                let stored = self.ink(Ink::Good, "yes");
                self.line("stored", &stored);
                self.head(kept);
                self.steps(kept);
            }
            None => {
                let stored = self.ink(Ink::Bad, "no");
                self.line("stored", &stored);
                self.reason(fetched.get("not_stored").unwrap_or(&Value::Null));
            }
        }
    }

    fn heading(&mut self, name: &str, says: &str) {
        let name = self.ink(Ink::Strong, name);
        let _ = writeln!(self.text, "\n{name}  {says}");
    }

    fn line(&mut self, name: &str, says: &str) {
        let _ = writeln!(self.text, "    {name:<22} {says}");
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{}m{text}\x1b[0m", ink as u8),
            false => text.to_owned(),
        }
    }
}

/// Names of fields with what the request has in them.
fn fields(fields: &[Value]) -> String {
    let field = |field: &Value| {
        let name = word(field, "/field");
        match (
            field.get("present"),
            field.get("value").and_then(Value::as_str),
        ) {
            (Some(Value::Bool(false)), _) => format!("{name} (none)"),
            (_, Some(value)) => format!("{name} ({value})"),
            (_, None) => format!("{name} (there, not shown)"),
        }
    };
    fields.iter().map(field).collect::<Vec<String>>().join(", ")
}

fn word<'v>(value: &'v Value, path: &str) -> &'v str {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    let list = value.pointer(path).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Value {
        json!({
            "request": {"method": "GET", "target": "/a?x=1", "url": "http://a.test/a"},
            "site": {"name": "*", "pattern": "*", "upstream": "main"},
            "key": {
                "key": "00ff", "alike": null, "dropped": ["x=1"],
                "parts": {"site": "*", "scheme": "", "authority": "a.test", "target": "/a"},
                "selecting": [{"field": "cookie s", "present": true, "hidden": true}],
            },
            "would": {
                "act": "hit", "status": 200, "cache_status": "larder; hit; ttl=59",
                "reason": "fresh", "because": "it is fresh", "section": "RFC 9111 §4.2",
                "remedy": null, "underway": false,
            },
            "stored": [{
                "state": "stored", "sequence": 7, "status": 200, "bytes": 2, "part": null,
                "vary": [{"field": "accept", "present": false}], "variant": "12", "chosen": true,
                "freshness": [{"name": "current_age", "seconds": 1.5, "section": "s", "says": "sum"}],
            }],
            "fetched": null,
        })
    }

    fn page(told: &Value, colour: bool) -> String {
        let mut page = Page::new(colour);
        page.explain(told);
        page.text
    }

    #[test]
    fn an_explanation_is_readable() {
        let text = page(&told(), false);
        for line in [
            "GET http://a.test/a would come to: hit",
            "because                fresh: it is fresh (RFC 9111 §4.2)",
            "left out               x=1",
            "scheme                 does not count",
            "and the fields         cookie s (there, not shown)",
            "response 7: this one",
            "variant                12 by accept (none)",
            "current_age            1.5 s                     sum (s)",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn there_are_colours_where_there_is_somebody_to_see_them() {
        let coloured = page(&told(), true);
        assert!(coloured.contains("\x1b[32mhit\x1b[0m"), "{coloured}");
    }

    #[test]
    fn whatever_the_answer_is_it_is_written() {
        for odd in [
            json!(null),
            json!([]),
            json!({"stored": [1], "fetched": {}}),
        ] {
            drop(page(&odd, false));
        }
    }

    #[test]
    fn what_origins_say_moves_no_cursor() {
        let mut told = json!({"a": ["b\u{1b}[2J", {"c": "\u{9b}d\n"}]});
        clean(&mut told);
        assert_eq!(told, json!({"a": ["b[2J", {"c": "d"}]}));
    }

    #[test]
    fn a_field_is_a_name_and_a_value() {
        let read = |text| field(text).ok();
        let accept = Some(("Accept".to_owned(), "a: b".to_owned()));
        assert_eq!(read("Accept:  a: b "), accept);
        assert_eq!(read("Accept"), None);
        assert_eq!(read(": a"), None);
    }

    #[test]
    fn fields_of_one_name_are_sent_together() {
        let request = Request {
            url: "http://a.test/".to_owned(),
            headers: vec![
                ("X-A".to_owned(), "1".to_owned()),
                ("x-a".to_owned(), "2".to_owned()),
            ],
            method: "GET".to_owned(),
            fetch: false,
            json: false,
        };
        assert_eq!(question(&request)["headers"], json!({"x-a": ["1", "2"]}));
    }
}
