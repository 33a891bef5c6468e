//! One line a request, written off the request's thread.
//!
//! ```text
//! write(report) ─► bounded queue ─► writer thread: format, buffer, flush when idle ─► file
//!                  full: dropped and said so
//! ```
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
use std::fmt::Write as _;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TryRecvError;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::thread::JoinHandle;
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
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Appended to a file.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
}

/// The handle to the writer thread. Dropped, the thread writes what is queued and ends.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer thread is told.
enum Message {
    /// Writes one line. Boxed: the queue's slots are allocated when it is made.
    Line(Box<Report>),
    /// Flush and end.
    Close,
}

impl AccessLog {
    /// Opens the destination and starts the writer; none when the log is off.
    pub fn open(destination: &Destination, format: Format) -> io::Result<Option<Self>> {
        match destination {
            Destination::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                let file = BufWriter::<File>::with_capacity(BUFFER_BYTES, file);
                Self::start(file, format, QUEUE_LINES).map(Some)
            }
            Destination::Off => Ok(None),
            Destination::Stdout => {
                let stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
                Self::start(stdout, format, QUEUE_LINES).map(Some)
            }
        }
    }

    fn start(out: impl Write + Send + 'static, format: Format, lines: usize) -> io::Result<Self> {
        let (queue, messages) = sync_channel(lines);
        let run = move || write_lines(&messages, out, format);
        let writer = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(run)?;
        Ok(Self {
            queue,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Queues a request's line. Returns false when it was dropped because the queue is full.
    pub fn write(&self, report: Report) -> bool {
        self.queue.try_send(Message::Line(Box::new(report))).is_ok()
    }

    /// Writes what is queued and ends the writer; later lines are dropped. Blocking, but a
    /// destination that takes nothing, such as a full pipe, is given up after a while.
    pub fn close(&self) {
        if !self.close_within(CLOSE_WAIT_MAX) {
            tracing::warn!("the access log takes no lines: the last of them are lost");
        }
    }

    fn close_within(&self, limit: Duration) -> bool {
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(writer) = writer else {
            return true;
        };
        let queue = self.queue.clone();
        let (closed, closing) = sync_channel(1);
        // There is no sending to a full queue and no joining with a time limit.
        let close = thread::Builder::new().spawn(move || {
            // Each fails only when the other end is gone already.
            let _gone = queue.send(Message::Close);
            let _gone = writer.join();
            let _gone = closed.send(());
        });
        close.is_ok() && closing.recv_timeout(limit).is_ok()
    }
}

fn write_lines(messages: &Receiver<Message>, mut out: impl Write, format: Format) {
    let mut line = String::new();
    let mut failing = false;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                note(out.flush(), &mut failing);
                match messages.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        let Message::Line(report) = message else {
            break;
        };
        line.clear();
        match format {
            Format::Combined => combined(&mut line, &report),
            Format::Json => json(&mut line, &report),
        }
        line.push('\n');
        note(out.write_all(line.as_bytes()), &mut failing);
    }
    note(out.flush(), &mut failing);
}

/// Warns when writing begins to fail, not at every line of a full disk.
fn note(result: io::Result<()>, failing: &mut bool) {
    match result {
        Ok(()) => *failing = false,
        Err(error) => {
            if !*failing {
                tracing::warn!(%error, "could not write the access log");
            }
            *failing = true;
        }
    }
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
    status: u16,
    bytes: u64,
    complete: bool,
    duration_us: u64,
    cache: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

/// Writes a line as one JSON object.
fn json(line: &mut String, report: &Report) {
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
        status: report.status.as_u16(),
        bytes: report.body_bytes,
        complete: report.complete,
        duration_us: u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX),
        cache: cache(&report.outcome),
        ttl: report.outcome.ttl,
        stored: report.outcome.stored,
        collapsed: report.outcome.collapsed,
        detail: report.outcome.detail.map(Detail::token),
        refused: report.refusal.map(|refusal| refusal.token()),
        error: report.error.map(|error| error.token()),
        backend: report.backend.as_deref(),
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

/// Lines that may wait for the writer; more are dropped.
const QUEUE_LINES: usize = 65_536;
/// Bytes gathered before they are written, unless the queue runs empty.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long the last lines may take to be written.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rules::cache_status::Forward;
    use http::Method;
    use http::StatusCode;
    use std::net::SocketAddr;
    use std::sync::Arc;

    /// A hit on a page, fit for changes.
    pub(crate) fn report() -> Report {
        Report {
            client: SocketAddr::from(([192, 0, 2, 7], 4711)),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136),
            took: Duration::from_micros(1500),
            method: Method::GET,
            uri: Uri::from_static("/a?b=c"),
            version: Version::HTTP_11,
            host: Some(HeaderValue::from_static("example.com")),
            referer: None,
            user_agent: Some(HeaderValue::from_static("curl/8")),
            site: None,
            key: None,
            status: StatusCode::OK,
            body_bytes: 2326,
            complete: true,
            outcome: Outcome {
                hit: true,
                ttl: Some(59),
                ..Outcome::default()
            },
            refusal: None,
            error: None,
            backend: None,
        }
    }

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
            r#"{"time":"2000-10-10T13:55:36.000000Z","client":"192.0.2.7:4711","method":"GET","target":"/a?b=c","version":"HTTP/1.1","host":"example.com","status":200,"bytes":2326,"complete":true,"duration_us":1500,"cache":"uri-miss","stored":true,"collapsed":false,"backend":"http://127.0.0.1:3000","user_agent":"curl/8"}"#
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

    #[test]
    fn closing_writes_what_is_queued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(&Destination::File(path.clone()), Format::Combined);
        let log = log.unwrap().unwrap();
        for _ in 0..100 {
            assert!(log.write(report()));
        }
        log.close();
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 100);
        assert!(!log.write(report()));
    }

    #[test]
    fn a_full_queue_drops_lines_and_does_not_hold_up_the_end() {
        /// Blocks at the first byte until the other end is dropped.
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = sync_channel(0);
        let log = AccessLog::start(Stuck(stuck), Format::Combined, 16).unwrap();
        let written = (0..100).filter(|_| log.write(report())).count();
        assert!((16..=17).contains(&written));
        assert!(!log.close_within(Duration::from_millis(20)), "it is stuck");
        drop(release);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_client_sends_a_line_is_printable(bytes: Vec<u8>) {
            let mut line = String::new();
            escape(&mut line, &bytes);
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}
