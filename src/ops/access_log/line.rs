//! One request as one line: combined, JSON, or fields that the operator chose.
//!
//! A line holds what the [`Report`] holds, and that has no Authorization, Cookie or Set-Cookie.
//! What clients sent is escaped, so a line is always one line and never moves a terminal's cursor.

use crate::flow::Report;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Outcome;
use http::HeaderValue;
use http::Uri;
use http::Version;
use http::uri::Authority;
use serde::Serialize;
use std::fmt;
use std::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;
use std::time::SystemTime;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Combined Log Format.
    #[default]
    Combined,
    /// One JSON object.
    Json,
    /// Chosen fields, as in the W3C's Extended Log File Format.
    W3c,
}

/// A field that a line in the W3C's format can have.
#[derive(Clone, Copy)]
pub struct Field {
    /// What it is called.
    pub name: &'static str,
    write: fn(&mut String, &Report),
}

impl Field {
    /// Every field there is.
    pub const ALL: &'static [Self] = FIELDS;

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|field| field.name == name).copied()
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Field {}

/// Writes a line without its end.
pub(super) fn write(line: &mut String, format: Format, fields: &[Field], report: &Report) {
    match format {
        Format::Combined => combined(line, report),
        Format::Json => json(line, report),
        Format::W3c => {
            for (number, field) in fields.iter().enumerate() {
                if number > 0 {
                    line.push(' ');
                }
                (field.write)(line, report);
            }
        }
    }
}

/// What a file begins with, if anything: whole lines.
pub(super) fn preamble(format: Format, fields: &[Field]) -> Option<String> {
    if format != Format::W3c {
        return None;
    }
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    let version = env!("CARGO_PKG_VERSION");
    let names = names.join(" ");
    Some(format!(
        "#Version: 1.0\n#Software: larder {version}\n#Fields: {names}\n"
    ))
}

/// Writes a line in the Combined Log Format.
fn combined(line: &mut String, report: &Report) {
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "{} - - [{}] \"",
        report.client.ip(),
        common_time(report.at)
    );
    escape(line, report.method.as_str().as_bytes());
    line.push(' ');
    escape(line, target(&report.uri).as_bytes());
    let (version, status, bytes) = (version(report.version), report.status, report.body_bytes);
    let _ = write!(line, " {version}\" {} {bytes} \"", status.as_u16());
    escape(line, field(report.referer.as_ref()));
    line.push_str("\" \"");
    escape(line, field(report.user_agent.as_ref()));
    line.push('"');
}

/// A line in JSON; the names are an interface.
#[derive(Serialize)]
struct JsonLine<'r> {
    time: String,
    client: String,
    method: &'r str,
    target: String,
    version: &'static str,
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'r str>,
    status: u16,
    bytes: u64,
    complete: bool,
    duration_us: u64,
    head_us: u64,
    cache: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

/// Writes a line as one JSON object.
fn json(line: &mut String, report: &Report) {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let fields = JsonLine {
        time: humantime::format_rfc3339_micros(report.at).to_string(),
        client: match report.client.port() {
            0 => report.client.ip().to_string(),
            _ => report.client.to_string(),
        },
        method: report.method.as_str(),
        target: printable(&target(&report.uri)),
        version: version(report.version),
        host: text(report.host.as_ref()),
        site: report.site.as_deref(),
        status: report.status.as_u16(),
        bytes: report.body_bytes,
        complete: report.complete,
        duration_us: micros(report.took),
        head_us: micros(report.head_after),
        cache: cache(&report.outcome),
        detail: report.outcome.detail.map(Detail::token),
        ttl: report.outcome.ttl,
        stored: report.outcome.stored,
        collapsed: report.outcome.collapsed,
        refused: report.refusal.map(|refusal| refusal.token()),
        error: report.error.map(|error| error.token()),
        backend: report.backend.as_deref(),
        origin_status: report.outcome.fwd_status.map(|status| status.as_u16()),
        tls_version: report.cipher.map(|cipher| cipher.version),
        tls_cipher: report.cipher.map(|cipher| cipher.suite),
        trace_id: report.trace.map(|trace| trace.id.to_string()),
        referer: text(report.referer.as_ref()),
        user_agent: text(report.user_agent.as_ref()),
    };
    // No key or value of these types can fail to serialise.
    line.push_str(&serde_json::to_string(&fields).unwrap_or_default());
}

/// Says in one word how the cache handled a request: `hit`, the reason it was forwarded, or `-`.
fn cache(outcome: &Outcome) -> &'static str {
    match (outcome.hit, outcome.fwd) {
        (true, _) => "hit",
        (false, Some(forward)) => forward.token(),
        (false, None) => "-",
    }
}

/// The fields of the W3C's format. Its own names where it has one, `x-` before ours.
const FIELDS: &[Field] = &[
    of("date", |line, report| {
        let time = humantime::format_rfc3339_seconds(report.at).to_string();
        plain(line, time.split_once('T').map(|(date, _)| date));
    }),
    of("time", |line, report| {
        let time = humantime::format_rfc3339_millis(report.at).to_string();
        let time = time.split_once('T').map(|(_, time)| time);
        plain(line, time.map(|time| time.trim_end_matches('Z')));
    }),
    of("time-taken", |line, report| seconds(line, report.took)),
    of("x-head-taken", |line, report| {
        seconds(line, report.head_after);
    }),
    of("c-ip", |line, report| plain(line, Some(report.client.ip()))),
    of("c-port", |line, report| {
        let port = Some(report.client.port()).filter(|port| *port != 0);
        plain(line, port);
    }),
    of("cs-method", |line, report| {
        word(line, Some(report.method.as_str().as_bytes()));
    }),
    of("cs-uri", |line, report| {
        word(line, Some(target(&report.uri).as_bytes()));
    }),
    of("cs-uri-stem", |line, report| {
        word(line, Some(report.uri.path().as_bytes()));
    }),
    of("cs-uri-query", |line, report| {
        word(line, report.uri.query().map(str::as_bytes));
    }),
    of("cs-version", |line, report| {
        plain(line, Some(version(report.version)));
    }),
    of("cs-host", |line, report| {
        word(line, report.host.as_ref().map(HeaderValue::as_bytes));
    }),
    of("cs(Referer)", |line, report| {
        quoted(line, report.referer.as_ref());
    }),
    of("cs(User-Agent)", |line, report| {
        quoted(line, report.user_agent.as_ref());
    }),
    of("sc-status", |line, report| {
        plain(line, Some(report.status.as_u16()));
    }),
    of("sc-bytes", |line, report| {
        plain(line, Some(report.body_bytes));
    }),
    of("cached", |line, report| flag(line, report.outcome.hit)),
    of("x-complete", |line, report| flag(line, report.complete)),
    of("x-site", |line, report| {
        word(line, report.site.as_deref().map(str::as_bytes));
    }),
    of("x-cache", |line, report| {
        plain(line, Some(cache(&report.outcome)));
    }),
    of("x-cache-detail", |line, report| {
        plain(line, report.outcome.detail.map(Detail::token));
    }),
    of("x-cache-ttl", |line, report| {
        plain(line, report.outcome.ttl);
    }),
    of("x-stored", |line, report| flag(line, report.outcome.stored)),
    of("x-collapsed", |line, report| {
        flag(line, report.outcome.collapsed);
    }),
    of("x-refused", |line, report| {
        plain(line, report.refusal.map(|refusal| refusal.token()));
    }),
    of("x-error", |line, report| {
        plain(line, report.error.map(|error| error.token()));
    }),
    of("x-backend", |line, report| {
        word(line, report.backend.as_deref().map(str::as_bytes));
    }),
    of("x-origin-status", |line, report| {
        let status = report.outcome.fwd_status;
        plain(line, status.map(|status| status.as_u16()));
    }),
    of("x-tls-version", |line, report| {
        plain(line, report.cipher.map(|cipher| cipher.version));
    }),
    of("x-tls-cipher", |line, report| {
        plain(line, report.cipher.map(|cipher| cipher.suite));
    }),
    of("x-trace-id", |line, report| {
        plain(line, report.trace.map(|trace| trace.id));
    }),
];

const fn of(name: &'static str, write: fn(&mut String, &Report)) -> Field {
    Field { name, write }
}

/// Writes what needs no escapes; `-` for nothing.
fn plain(line: &mut String, value: Option<impl Display>) {
    match value {
        // Writing to a String cannot fail.
        Some(value) => {
            let _ = write!(line, "{value}");
        }
        None => line.push('-'),
    }
}

fn flag(line: &mut String, value: bool) {
    line.push(if value { '1' } else { '0' });
}

fn seconds(line: &mut String, span: Duration) {
    plain(
        line,
        Some(format_args!(
            "{}.{:06}",
            span.as_secs(),
            span.subsec_micros()
        )),
    );
}

/// Writes what stands without quotes: everything that could end it is percent-encoded.
fn word(line: &mut String, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        return line.push('-');
    };
    for byte in bytes {
        match byte {
            b'"' => line.push_str("%22"),
            b'!'..=b'~' => line.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(line, "%{byte:02X}");
            }
        }
    }
}

/// Writes text in quotes, with its own quotes doubled.
fn quoted(line: &mut String, value: Option<&HeaderValue>) {
    let Some(value) = value else {
        return line.push('-');
    };
    line.push('"');
    for byte in value.as_bytes() {
        match byte {
            b'"' => line.push_str("\"\""),
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
    line.push('"');
}

/// Writes a time as `10/Oct/2000:13:55:36 +0000`.
fn common_time(at: SystemTime) -> String {
    let date = httpdate::fmt_http_date(at);
    let mut words = date.split(' ').skip(1);
    let mut next = || words.next().unwrap_or("-");
    format!("{}/{}/{}:{} +0000", next(), next(), next(), next())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/3.0",
    }
}

/// Writes a target without the user and password that an absolute one may carry.
fn target(uri: &Uri) -> String {
    let target = uri.to_string();
    let authority = uri.authority().map(Authority::as_str);
    match authority.and_then(|authority| authority.rsplit_once('@')) {
        Some((secret, _)) => target.replacen(&format!("{secret}@"), "", 1),
        None => target,
    }
}

fn field(value: Option<&HeaderValue>) -> &[u8] {
    value.map_or(b"-", HeaderValue::as_bytes)
}

/// Makes text of a field; bytes that are not UTF-8 and control characters become U+FFFD.
fn text(value: Option<&HeaderValue>) -> Option<String> {
    Some(printable(&String::from_utf8_lossy(value?.as_bytes())))
}

/// Puts U+FFFD for control characters, of which a target may have those from U+0080 on.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        })
        .collect()
}

/// Writes bytes so that quotes, backslashes and whatever is not printable ASCII show as `\xHH`.
fn escape(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;
    use crate::rules::cache_status::Forward;
    use crate::rules::request::Cipher;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn combined_line(report: &Report) -> String {
        let mut line = String::new();
        combined(&mut line, report);
        line
    }

    fn json_line(report: &Report) -> String {
        let mut line = String::new();
        json(&mut line, report);
        line
    }

    #[test]
    fn a_client_behind_a_proxy_has_no_port() {
        let mut line = String::new();
        let client = SocketAddr::from(([192, 0, 2, 7], 0));
        json(&mut line, &Report { client, ..report() });
        assert!(line.contains(r#""client":"192.0.2.7","#), "{line}");
    }

    #[test]
    fn a_combined_line_is_what_log_readers_know() {
        assert_eq!(
            combined_line(&report()),
            "192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=c HTTP/1.1\" 200 2326 \
             \"-\" \"curl/8\""
        );
    }

    #[test]
    fn quotes_and_control_characters_cannot_break_a_combined_line() {
        let mut nasty = report();
        nasty.user_agent = Some(HeaderValue::from_bytes(b"a\" \\ \t\xff\x9b1m").unwrap());
        let line = combined_line(&nasty);
        assert!(line.ends_with(r#""a\" \\ \x09\xff\x9b1m""#), "{line}");
    }

    #[test]
    fn a_json_line_says_how_the_cache_handled_it() {
        let mut miss = report();
        miss.outcome = Outcome {
            fwd: Some(Forward::UriMiss),
            stored: true,
            ..Outcome::default()
        };
        miss.backend = Some(Arc::from("http://127.0.0.1:3000"));
        assert_eq!(
            json_line(&miss),
            r#"{"time":"2000-10-10T13:55:36.000000Z","client":"192.0.2.7:4711","method":"GET","target":"/a?b=c","version":"HTTP/1.1","host":"example.com","status":200,"bytes":2326,"complete":true,"duration_us":1500,"head_us":30,"cache":"uri-miss","stored":true,"collapsed":false,"backend":"http://127.0.0.1:3000","user_agent":"curl/8"}"#
        );
    }

    #[test]
    fn control_characters_and_stray_bytes_cannot_break_a_json_line() {
        let mut nasty = report();
        nasty.user_agent = Some(HeaderValue::from_bytes(b"a\"\t\xff\xc2\x9b").unwrap());
        let line = json_line(&nasty);
        assert!(
            line.contains("\"user_agent\":\"a\\\"\u{fffd}\u{fffd}\u{fffd}\""),
            "{line}"
        );
    }

    #[test]
    fn control_characters_in_a_target_cannot_move_a_terminals_cursor() {
        let mut nasty = report();
        nasty.uri = Uri::from_maybe_shared(bytes::Bytes::from("/\u{9b}2J")).unwrap();
        let json = json_line(&nasty);
        assert!(json.contains("\"target\":\"/\u{fffd}2J\""), "{json}");
        let combined = combined_line(&nasty);
        assert!(combined.contains(r"/\xc2\x9b2J"), "{combined}");
    }

    #[test]
    fn a_password_in_a_target_is_not_written() {
        let mut secret = report();
        secret.uri = Uri::from_static("http://user:s3cret@example.com/a@b");
        for line in [combined_line(&secret), json_line(&secret)] {
            assert!(line.contains("http://example.com/a@b"), "{line}");
        }
    }

    fn w3c_line(names: &[&str], report: &Report) -> String {
        let fields: Vec<Field> = names.iter().filter_map(|name| Field::named(name)).collect();
        assert_eq!(fields.len(), names.len(), "{names:?}");
        let mut line = String::new();
        write(&mut line, Format::W3c, &fields, report);
        line
    }

    #[test]
    fn a_w3c_line_has_the_chosen_fields_in_their_order() {
        let names = [
            "date",
            "time",
            "c-ip",
            "cs-method",
            "cs-uri",
            "sc-status",
            "sc-bytes",
        ];
        assert_eq!(
            w3c_line(&names, &report()),
            "2000-10-10 13:55:36.000 192.0.2.7 GET /a?b=c 200 2326"
        );
        let names = [
            "time-taken",
            "x-head-taken",
            "cached",
            "x-cache-ttl",
            "x-backend",
        ];
        assert_eq!(w3c_line(&names, &report()), "0.001500 0.000030 1 59 -");
    }

    #[test]
    fn a_file_of_w3c_lines_begins_with_what_they_have() {
        let fields = ["date", "cs(User-Agent)"]
            .into_iter()
            .filter_map(Field::named);
        let fields: Vec<Field> = fields.collect();
        let begins = preamble(Format::W3c, &fields).unwrap();
        assert!(begins.starts_with("#Version: 1.0\n"), "{begins}");
        assert!(
            begins.ends_with("\n#Fields: date cs(User-Agent)\n"),
            "{begins}"
        );
        assert_eq!(preamble(Format::Combined, &fields), None);
    }

    #[test]
    fn what_a_handshake_agreed_on_is_told() {
        let secured = Report {
            cipher: Some(Cipher {
                version: "TLSv1.3",
                suite: "TLS_AES_128_GCM_SHA256",
            }),
            ..report()
        };
        let names = ["x-tls-version", "x-tls-cipher"];
        assert_eq!(w3c_line(&names, &secured), "TLSv1.3 TLS_AES_128_GCM_SHA256");
        assert_eq!(w3c_line(&names, &report()), "- -");
        let json = json_line(&secured);
        let told = r#""tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256""#;
        assert!(json.contains(told), "{json}");
    }

    #[test]
    fn spaces_and_quotes_cannot_make_a_field_of_a_w3c_line_two() {
        let mut nasty = report();
        nasty.host = Some(HeaderValue::from_static("a b\"c"));
        nasty.referer = Some(HeaderValue::from_bytes(b"say \"hi\" \t\xff").unwrap());
        assert_eq!(
            w3c_line(&["cs-host", "cs(Referer)", "sc-status"], &nasty),
            "a%20b%22c \"say \"\"hi\"\" \\x09\\xff\" 200"
        );
    }

    #[test]
    fn every_field_has_a_name_of_its_own_and_none_is_for_secrets() {
        let mut names: Vec<_> = Field::ALL.iter().map(|field| field.name).collect();
        for name in &names {
            let name = name.to_ascii_lowercase();
            for secret in ["authorization", "cookie"] {
                assert!(!name.contains(secret), "{name}");
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Field::ALL.len());
    }

    #[test]
    fn the_document_lists_every_field() {
        let document = include_str!("../../../docs/logs.md");
        for field in Field::ALL {
            let row = format!("| `{}` |", field.name);
            assert!(document.contains(&row), "docs/logs.md lacks {}", field.name);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_client_sends_a_line_is_printable(bytes: Vec<u8>) {
            let printable = |line: &str| line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            let mut line = String::new();
            escape(&mut line, &bytes);
            assert!(printable(&line));
            line.clear();
            word(&mut line, Some(&bytes));
            assert!(printable(&line) && !line.contains(' '));
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                line.clear();
                quoted(&mut line, Some(&value));
                assert!(printable(&line));
                assert_eq!(line.matches('"').count() % 2, 0);
            }
        }
    }
}
