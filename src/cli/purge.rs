//! `larder purge`: asks a running larder, over its admin listener, to purge.
//!
//! What is named goes in as few calls as they take, each with a receipt. A site beside tags or regular
//! expressions narrows them; without them it is purged itself.

use super::ask::Listener;
use super::print;
use anyhow::Context;
use clap::Args;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// What to purge, and how.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("items").required(true).multiple(true))]
pub(super) struct Purge {
    /// Absolute URLs, each with all its variants
    #[arg(value_name = "URL", group = "items")]
    urls: Vec<String>,
    /// The same
    #[arg(long = "url", value_name = "URL", group = "items")]
    more_urls: Vec<String>,
    /// All that bears a tag
    #[arg(long = "tag", value_name = "TAG", group = "items")]
    tags: Vec<String>,
    /// All whose host and path begin so, such as www.example.com/blog/
    #[arg(long = "prefix", value_name = "PREFIX", group = "items")]
    prefixes: Vec<String>,
    /// All of a host
    #[arg(long = "host", value_name = "HOST", group = "items")]
    hosts: Vec<String>,
    /// All whose host, path and query a regular expression finds something in
    #[arg(long = "regex", value_name = "REGEX", group = "items")]
    regexes: Vec<String>,
    /// All of a site, by the first of its hosts; with --tag or --regex: only there
    #[arg(long = "site", value_name = "SITE", group = "items")]
    sites: Vec<String>,
    /// Everything
    #[arg(long, group = "items", conflicts_with_all = [
        "urls", "more_urls", "tags", "prefixes", "hosts", "regexes", "sites", "refresh",
    ])]
    all: bool,
    /// Make it stale instead of removing it
    #[arg(long)]
    soft: bool,
    /// Fetch up to so many of the URLs anew, in the background
    #[arg(long, value_name = "N", default_value_t = 0)]
    refresh: usize,
    /// Wait until it is counted how much each purge covered, and what it refreshes is there
    #[arg(long)]
    wait: bool,
}

/// What counts of a receipt.
#[derive(Deserialize)]
struct Receipt {
    id: String,
    entries: Option<u64>,
    refresh: Option<Refresh>,
}

#[derive(Deserialize)]
struct Refresh {
    waiting: u64,
}

impl Purge {
    /// Purges and prints one receipt a line; fails when any purge was refused.
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<ExitCode> {
        let bodies = self.bodies()?;
        let listener = Listener::of(config)?;
        let mut code = ExitCode::SUCCESS;
        for body in bodies {
            let reply = listener.post("/purge", body.to_string())?;
            let status = reply.status;
            let text = reply.text()?;
            if status != StatusCode::OK {
                let (status, reason) = (status.as_u16(), text.trim());
                eprintln!("larder: the purge was refused ({status}): {reason}");
                code = ExitCode::FAILURE;
                continue;
            }
            let told = match self.wait {
                true => settled(&listener, text)?,
                false => text,
            };
            print(told.as_bytes())?;
        }
        Ok(code)
    }

    /// The bodies of the calls that it takes.
    fn bodies(&self) -> anyhow::Result<Vec<Value>> {
        if self.all {
            return Ok(vec![json!({"all": true, "soft": self.soft})]);
        }
        let narrowed = !self.tags.is_empty() || !self.regexes.is_empty();
        let (site, sites) = match (narrowed, self.sites.as_slice()) {
            (true, [site]) => (Some(site), &[][..]),
            (true, [_, _, ..]) => anyhow::bail!("tags and regular expressions take one --site"),
            (true, []) => (None, &[][..]),
            (false, sites) => (None, sites),
        };
        let named = [
            ("urls", [self.urls.as_slice(), &self.more_urls].concat()),
            ("tags", self.tags.clone()),
            ("prefixes", self.prefixes.clone()),
            ("hosts", self.hosts.clone()),
            ("regexes", self.regexes.clone()),
            ("sites", sites.to_vec()),
        ];
        let items = named.into_iter().flat_map(|(kind, names)| {
            let names = names.into_iter();
            names.map(move |name| (kind, name))
        });
        let mut refresh = self.refresh;
        let calls = calls(items.collect());
        let bodies = calls.into_iter().map(|call| {
            let mut body = Map::new();
            for (kind, name) in call {
                let list = body.entry(kind).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    list.push(Value::String(name));
                }
            }
            if self.soft {
                body.insert("soft".to_owned(), json!(true));
            }
            if let Some(site) = site.filter(|_| has(&body, "tags") || has(&body, "regexes")) {
                body.insert("site".to_owned(), json!(site));
            }
            let urls = body.get("urls").and_then(Value::as_array);
            let here = urls.map_or(0, Vec::len).min(refresh);
            refresh = refresh.saturating_sub(here);
            if here > 0 {
                body.insert("refresh".to_owned(), json!(here));
            }
            Value::Object(body)
        });
        Ok(bodies.collect())
    }
}

fn has(body: &Map<String, Value>, kind: &str) -> bool {
    body.contains_key(kind)
}

/// Asks for a receipt until there is nothing more to come. Blocking.
fn settled(listener: &Listener, mut text: String) -> anyhow::Result<String> {
    loop {
        let receipt: Receipt = serde_json::from_str(&text).context("the receipt cannot be read")?;
        let refreshed = receipt.refresh.is_none_or(|refresh| refresh.waiting == 0);
        if receipt.entries.is_some() && refreshed {
            return Ok(text);
        }
        thread::sleep(ASK_AGAIN);
        let reply = listener.get(&format!("/purges/{}", receipt.id))?;
        let status = reply.status;
        let told = reply.text()?;
        if status != StatusCode::OK {
            anyhow::bail!(
                "{} is not told of any more ({status}): {}",
                receipt.id,
                told.trim()
            );
        }
        text = told;
    }
}

/// Splits items into what one call takes, by number and by bytes.
fn calls(items: Vec<(&str, String)>) -> Vec<Vec<(&str, String)>> {
    let mut calls: Vec<Vec<(&str, String)>> = Vec::new();
    let mut bytes = 0_usize;
    for item in items {
        // In JSON a byte takes at most six.
        let own = item.1.len().saturating_mul(6);
        bytes = bytes.saturating_add(own);
        match calls.last_mut() {
            Some(call) if bytes <= BYTES_A_CALL && call.len() < ITEMS_A_CALL => call.push(item),
            Some(_) | None => {
                bytes = own;
                calls.push(vec![item]);
            }
        }
    }
    calls
}

/// Most items the engine takes in one purge.
const ITEMS_A_CALL: usize = 1000;
/// Most bytes of items in one call: the admin listener takes 1 MiB, of which quotes need some.
const BYTES_A_CALL: usize = 1_000_000;
/// How long after a receipt that is not complete it is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        purge: Purge,
    }

    fn purge(arguments: &[&str]) -> Purge {
        Line::try_parse_from([&["purge"], arguments].concat())
            .unwrap()
            .purge
    }

    fn bodies(arguments: &[&str]) -> Vec<Value> {
        purge(arguments).bodies().unwrap()
    }

    #[test]
    fn items_of_all_kinds_make_one_call() {
        let body = bodies(&[
            "http://a/",
            "--url",
            "http://b/",
            "--tag",
            "t",
            "--prefix",
            "a/b",
            "--host",
            "h",
            "--regex",
            "r",
            "--site",
            "s",
            "--soft",
            "--refresh",
            "9",
        ]);
        let expected = json!({
            "urls": ["http://a/", "http://b/"], "tags": ["t"], "prefixes": ["a/b"], "hosts": ["h"],
            "regexes": ["r"], "site": "s", "soft": true, "refresh": 2,
        });
        assert_eq!(body, [expected]);
    }

    #[test]
    fn a_site_alone_is_purged_itself() {
        assert_eq!(
            bodies(&["--site", "a", "--site", "b"]),
            [json!({"sites": ["a", "b"]})]
        );
        assert!(
            purge(&["--site", "a", "--site", "b", "--tag", "t"])
                .bodies()
                .is_err()
        );
    }

    #[test]
    fn everything_is_purged_in_one_call() {
        assert_eq!(bodies(&["--all"]), [json!({"all": true, "soft": false})]);
        assert_eq!(
            bodies(&["--all", "--soft"]),
            [json!({"all": true, "soft": true})]
        );
    }

    #[test]
    fn many_and_long_urls_take_several_calls_in_order() {
        let named = |urls: &[String]| urls.iter().map(|url| ("urls", url.clone())).collect();
        let lengths = |urls: &[String]| {
            let calls = calls(named(urls));
            calls.iter().map(Vec::len).collect::<Vec<_>>()
        };
        let short: Vec<String> = (0..2001).map(|n| format!("http://a/{n}")).collect();
        assert_eq!(lengths(&short), [1000, 1000, 1]);
        let in_order: Vec<_> = calls(named(&short)).concat();
        let expected: Vec<(&str, String)> = named(&short);
        assert_eq!(in_order, expected);
        let long = vec!["a".repeat(60_000); 5];
        assert_eq!(lengths(&long), [2, 2, 1]);
        for call in calls(named(&vec!["\u{1}".repeat(1000); 1000])) {
            let urls: Vec<String> = call.into_iter().map(|(_, url)| url).collect();
            assert!(json!({"urls": urls}).to_string().len() <= 1 << 20);
        }
    }

    #[test]
    fn what_is_to_be_refreshed_is_shared_out_over_calls() {
        let urls: Vec<String> = (0..1500).map(|n| format!("http://a/{n}")).collect();
        let mut arguments = vec!["--refresh", "1200"];
        arguments.extend(urls.iter().map(String::as_str));
        let wanted: Vec<Value> = bodies(&arguments)
            .iter()
            .map(|body| body["refresh"].clone())
            .collect();
        assert_eq!(wanted, [json!(1000), json!(200)]);
    }
}
