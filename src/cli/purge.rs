//! `larder purge`: asks a running larder, over its admin listener, to purge.
//!
//! The admin API is plain HTTP/1.1 with small bodies, so one blocking socket with time limits does.

use super::print;
use crate::config;
use crate::ops::admin::Token;
use anyhow::Context;
use serde_json::json;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Purges and prints one receipt a line; fails when any purge was refused.
pub(super) fn run(config: &Path, all: bool, urls: &[String]) -> anyhow::Result<ExitCode> {
    let admin = config::load_admin(config)?.context("the config has no admin listener")?;
    let secret = admin
        .token_file
        .as_deref()
        .map(Token::read_secret)
        .transpose()?;
    let address = reachable(admin.listen);
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
        let reply = post(address, secret.as_deref(), &body.to_string())
            .with_context(|| format!("could not purge at http://{address}"))?;
        if reply.status == 200 {
            print(reply.body.as_bytes())?;
        } else {
            eprintln!(
                "larder: the purge was refused ({}): {}",
                reply.status,
                reply.body.trim()
            );
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

/// What the admin listener answered.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    body: String,
}

/// Returns the address to call: a listener on every address is called on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn post(address: SocketAddr, secret: Option<&str>, body: &str) -> anyhow::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    stream.write_all(request(address, secret, body).as_bytes())?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    Reply::read(&reply).context("the answer is not HTTP")
}

fn request(address: SocketAddr, secret: Option<&str>, body: &str) -> String {
    let length = body.len();
    let authorization = match secret {
        Some(secret) => format!("Authorization: Bearer {secret}\r\n"),
        None => String::new(),
    };
    format!(
        "POST /purge HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

impl Reply {
    /// Reads a whole response whose body ends with the connection.
    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
        // Receipts are one line each; a refusal's reason may quote what was sent.
        let printable = |c: &char| *c == '\n' || !c.is_control();
        let body = body.chars().filter(printable).collect();
        Some(Self {
            status: status.trim().parse().ok()?,
            body,
        })
    }
}

/// Most URLs the engine takes in one purge.
const URLS_A_CALL: usize = 1000;
/// Most bytes of URLs in one call: the admin listener takes 1 MiB, of which quotes need some.
const URL_BYTES_A_CALL: usize = 1_000_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
const REPLY_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_called_on_loopback() {
        let called = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(called("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(called("[::]:1"), "[::1]:1");
        assert_eq!(called("192.0.2.1:1"), "192.0.2.1:1");
    }

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

    #[test]
    fn a_reply_has_a_status_and_a_body() {
        let reply = Reply::read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n").unwrap();
        assert_eq!(
            reply,
            Reply {
                status: 200,
                body: "{}\n".to_owned()
            }
        );
    }

    #[test]
    fn what_is_not_http_is_no_reply() {
        for bytes in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(Reply::read(bytes.as_bytes()), None, "{bytes}");
        }
    }

    #[test]
    fn a_request_carries_the_token_and_the_length() {
        let request = request("127.0.0.1:1".parse().unwrap(), Some("s3cret"), "{}");
        assert!(request.contains("\r\nAuthorization: Bearer s3cret\r\n"));
        assert!(request.ends_with("\r\nContent-Length: 2\r\n\r\n{}"));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
            let _unused = Reply::read(&bytes);
        }
    }
}
