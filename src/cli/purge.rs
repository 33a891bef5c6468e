//! `larder purge`: asks a running larder, over its admin listener, to purge.

use super::ask::Listener;
use super::print;
use http::StatusCode;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Purges and prints one receipt a line; fails when any purge was refused.
pub(super) fn run(config: &Path, all: bool, urls: &[String]) -> anyhow::Result<ExitCode> {
    let listener = Listener::of(config)?;
    let bodies = if all {
        vec![json!({"all": true})]
    } else {
        calls(urls)
            .iter()
            .map(|urls| json!({"urls": urls}))
            .collect()
    };
    let mut code = ExitCode::SUCCESS;
    for body in bodies {
        let reply = listener.post("/purge", body.to_string())?;
        let status = reply.status;
        let text = reply.text()?;
        if status == StatusCode::OK {
            print(text.as_bytes())?;
        } else {
            let (status, reason) = (status.as_u16(), text.trim());
            eprintln!("larder: the purge was refused ({status}): {reason}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Splits URLs into what one call takes, by number and by bytes.
fn calls(urls: &[String]) -> Vec<Vec<&str>> {
    let mut calls: Vec<Vec<&str>> = Vec::new();
    let mut bytes = 0_usize;
    for url in urls {
        // In JSON a byte takes at most six.
        bytes = bytes.saturating_add(url.len().saturating_mul(6));
        match calls.last_mut() {
            Some(call) if bytes <= URL_BYTES_A_CALL && call.len() < URLS_A_CALL => call.push(url),
            Some(_) | None => {
                bytes = url.len().saturating_mul(6);
                calls.push(vec![url]);
            }
        }
    }
    calls
}

/// Most URLs the engine takes in one purge.
const URLS_A_CALL: usize = 1000;
/// Most bytes of URLs in one call: the admin listener takes 1 MiB, of which quotes need some.
const URL_BYTES_A_CALL: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_long_urls_take_several_calls_in_order() {
        let lengths = |urls: &[String]| calls(urls).iter().map(Vec::len).collect::<Vec<_>>();
        let short: Vec<String> = (0..2001).map(|n| format!("http://a/{n}")).collect();
        assert_eq!(lengths(&short), [1000, 1000, 1]);
        assert_eq!(calls(&short).concat(), short);
        let long = vec!["a".repeat(60_000); 5];
        assert_eq!(lengths(&long), [2, 2, 1]);
        for call in calls(&vec!["\u{1}".repeat(1000); 1000]) {
            assert!(json!({"urls": call}).to_string().len() <= 1 << 20);
        }
    }
}
