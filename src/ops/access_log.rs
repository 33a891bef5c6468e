//! One line a request, written off the request's thread.
//!
//! ```text
//! write(report) ─► bounded queue ─► writer thread: format, buffer, flush when idle ─► destination
//!                  full: dropped, and counted by whoever wrote
//! reopen()      ─► the thread opens the destination anew, and keeps the old one when it cannot
//! ```

mod line;
mod out;

pub use self::line::Field;
pub use self::line::Format;
pub use self::out::Collector;
pub use self::out::Destination;
pub use self::out::Facility;

use self::out::Out;
use super::metrics::Metrics;
use crate::flow::Report;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::TryRecvError;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

/// What is written, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Where the lines go.
    pub destination: Destination,
    /// The form of a line.
    pub format: Format,
    /// What a line in the W3C's format has, in this order.
    pub fields: Vec<Field>,
}

/// The handle to the writer thread. Dropped, the thread writes what is queued and ends.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer thread is told.
enum Message {
    /// Writes one line. Boxed: the queue's slots are allocated when it is made.
    Line(Box<Report>),
    /// Look whether something else is wanted.
    Look,
    /// Flush and end.
    Close,
}

/// What the writer thread has.
struct Writer {
    params: Params,
    out: Out,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    line: String,
    /// Writing fails, and that was said.
    failing: bool,
}

impl AccessLog {
    /// Opens the destination and starts the writer; none when the log is off. Lines that cannot be
    /// written are counted in `metrics`.
    pub fn open(params: &Params, metrics: &Arc<Metrics>) -> io::Result<Option<Self>> {
        let out = Out::open(&params.destination, params.format, &params.fields)?;
        out.map(|out| Self::start(out, params, metrics, QUEUE_LINES))
            .transpose()
    }

    fn start(out: Out, params: &Params, metrics: &Arc<Metrics>, lines: usize) -> io::Result<Self> {
        let (queue, messages) = sync_channel(lines);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            params: params.clone(),
            out,
            reopen: Arc::clone(&reopen),
            metrics: Arc::clone(metrics),
            line: String::new(),
            failing: false,
        };
        let writer = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&messages))?;
        Ok(Self {
            queue,
            reopen,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Queues a request's line. Returns false when it was dropped because the queue is full.
    pub fn write(&self, report: Report) -> bool {
        self.queue.try_send(Message::Line(Box::new(report))).is_ok()
    }

    /// Has the destination opened anew soon: its file may have been moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        // Where the queue is full, the thread looks behind the next line.
        let _woken = self.queue.try_send(Message::Look);
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

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    self.flush();
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => break,
                    }
                }
            };
            match message {
                Message::Close => break,
                Message::Line(report) => self.write(&report),
                Message::Look => {}
            }
            if self.reopen.swap(false, Ordering::Relaxed) {
                self.open_anew();
            }
        }
        self.flush();
    }

    fn write(&mut self, report: &Report) {
        self.line.clear();
        let Params { format, fields, .. } = &self.params;
        line::write(&mut self.line, *format, fields, report);
        let written = self.out.write(report.at, &mut self.line);
        if written.is_err() {
            self.metrics.access_log_dropped.add(1);
        }
        self.note(written);
    }

    fn flush(&mut self) {
        let flushed = self.out.flush();
        self.note(flushed);
    }

    fn open_anew(&mut self) {
        self.flush();
        let Params {
            destination,
            format,
            fields,
        } = &self.params;
        match Out::open(destination, *format, fields) {
            Ok(Some(out)) => self.out = out,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "could not open the access log anew; it goes on as before");
            }
        }
    }

    /// Warns when writing begins to fail, not at every line of a full disk.
    fn note(&mut self, result: io::Result<()>) {
        let Err(error) = result else {
            self.failing = false;
            return;
        };
        if !self.failing {
            tracing::warn!(%error, "could not write the access log");
        }
        self.failing = true;
    }
}

/// Lines that may wait for the writer; more are dropped.
const QUEUE_LINES: usize = 65_536;
/// How long the last lines may take to be written.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rules::cache_status::Outcome;
    use http::HeaderValue;
    use http::Method;
    use http::StatusCode;
    use http::Uri;
    use http::Version;
    use std::fs;
    use std::io::Write;
    use std::net::SocketAddr;
    use std::time::SystemTime;

    /// A hit on a page, fit for changes.
    pub(crate) fn report() -> Report {
        Report {
            client: SocketAddr::from(([192, 0, 2, 7], 4711)),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136),
            head_after: Duration::from_micros(30),
            took: Duration::from_micros(1500),
            method: Method::GET,
            uri: Uri::from_static("/a?b=c"),
            version: Version::HTTP_11,
            host: Some(HeaderValue::from_static("example.com")),
            referer: None,
            user_agent: Some(HeaderValue::from_static("curl/8")),
            cipher: None,
            trace: None,
            site: None,
            primary: None,
            stored_bytes: None,
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

    fn to(destination: Destination, format: Format) -> Params {
        Params {
            destination,
            format,
            fields: ["c-ip", "sc-status"]
                .into_iter()
                .filter_map(Field::named)
                .collect(),
        }
    }

    fn to_file(path: &std::path::Path, format: Format) -> AccessLog {
        let params = to(Destination::File(path.to_owned()), format);
        AccessLog::open(&params, &Arc::default()).unwrap().unwrap()
    }

    #[test]
    fn closing_writes_what_is_queued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = to_file(&path, Format::Combined);
        for _ in 0..100 {
            assert!(log.write(report()));
        }
        log.close();
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 100);
        assert!(!log.write(report()));
    }

    #[test]
    fn a_file_that_was_moved_away_keeps_what_it_has_and_the_next_lines_go_to_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = to_file(&path, Format::W3c);
        assert!(log.write(report()));
        // The line has gone once the queue was found empty behind it.
        while fs::read_to_string(&path).unwrap().lines().count() < 4 {
            thread::yield_now();
        }
        fs::rename(&path, &moved).unwrap();
        log.reopen();
        assert!(log.write(report()));
        log.close();
        for path in [path, moved] {
            let text = fs::read_to_string(path).unwrap();
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines[0], "#Version: 1.0");
            assert_eq!(lines[2..], ["#Fields: c-ip sc-status", "192.0.2.7 200"]);
        }
    }

    #[test]
    fn a_destination_that_cannot_be_opened_anew_goes_on_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let log = to_file(&inner.join("log"), Format::Json);
        let moved = folder.path().join("moved");
        fs::rename(&inner, &moved).unwrap();
        log.reopen();
        assert!(log.write(report()));
        log.close();
        let text = fs::read_to_string(moved.join("log")).unwrap();
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let metrics = Arc::new(Metrics::default());
        let params = to(Destination::Off, Format::Combined);
        let out = Out::Stream(Box::new(Broken));
        let log = AccessLog::start(out, &params, &metrics, 16).unwrap();
        for _ in 0..3 {
            assert!(log.write(report()));
        }
        log.close();
        assert_eq!(metrics.access_log_dropped.value(), 3);
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
        let params = to(Destination::Off, Format::Combined);
        let out = Out::Stream(Box::new(Stuck(stuck)));
        let log = AccessLog::start(out, &params, &Arc::default(), 16).unwrap();
        let written = (0..100).filter(|_| log.write(report())).count();
        assert!((16..=17).contains(&written));
        // There is no room to say so, and no need to.
        log.reopen();
        assert!(!log.close_within(Duration::from_millis(20)), "it is stuck");
        drop(release);
    }
}
