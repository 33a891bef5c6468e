//! Spans on their way to a collector: OTLP as JSON over HTTP, in batches, off the request's thread.
//!
//! ```text
//! tell(span) ─► bounded queue ─► thread: gather for a second or so many ─► POST endpoint
//!               full: dropped, and counted            └─ refused, failed, late: lost, and counted
//! ```
//!
//! What is lost is not sent again: a collector that is down is to cost nothing but the view.

mod otlp;

use super::metrics::Metrics;
use crate::flow::Span;
use bytes::Bytes;
use http::Request;
use http::Uri;
use http::header;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// `http://host:port/path` of the collector.
    pub endpoint: Uri,
    /// What `service.name` says we are.
    pub service: String,
}

/// The handle to the thread that sends. Dropped, it sends what is queued and ends.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread has.
struct Sender {
    params: Params,
    metrics: Arc<Metrics>,
    /// Sending fails, and that was said.
    failing: AtomicBool,
}

/// Why a batch was lost.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("could not connect: {0}")]
    Connect(#[source] io::Error),
    #[error("it did not answer in time")]
    Late,
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("it answered {0}")]
    Refused(http::StatusCode),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
}

impl Tracer {
    /// Starts the thread; connects to nothing yet.
    pub fn start(params: &Params, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (queue, spans) = mpsc::channel(QUEUE_SPANS);
        let sender = Sender {
            params: params.clone(),
            metrics: Arc::clone(metrics),
            failing: AtomicBool::new(false),
        };
        let run = move || runtime.block_on(sender.run(spans));
        let sender = thread::Builder::new()
            .name("traces".to_owned())
            .spawn(run)?;
        Ok(Self {
            queue,
            metrics: Arc::clone(metrics),
            sender: Mutex::new(Some(sender)),
        })
    }

    /// Queues a span, or drops it when the queue is full.
    pub fn tell(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans_dropped.add(1);
        }
    }

    /// Sends what is queued and ends the thread. Blocking, for at most the time that a batch may take.
    pub fn close(self) {
        let sender = self.sender.lock();
        let sender = sender.unwrap_or_else(PoisonError::into_inner).take();
        drop(self.queue);
        if let Some(sender) = sender
            && sender.join().is_err()
        {
            tracing::error!("the thread that sends traces ended badly");
        }
    }
}

impl Sender {
    async fn run(self, mut spans: mpsc::Receiver<Span>) {
        let mut batch = Vec::new();
        while let Some(span) = spans.recv().await {
            batch.push(span);
            // Ends early when there is nobody any more who could tell.
            let gathered = async {
                while batch.len() < BATCH_SPANS
                    && let Some(span) = spans.recv().await
                {
                    batch.push(span);
                }
            };
            let _full = timeout(GATHER, gathered).await;
            self.send(&batch).await;
            batch.clear();
        }
    }

    /// Sends a batch, once. Dropped half-way, it may or may not have arrived.
    async fn send(&self, batch: &[Span]) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let body = otlp::render(&self.params.service, batch);
        let sent = timeout(SEND_WAIT_MAX, self.post(body.into())).await;
        match sent.unwrap_or(Err(Lost::Late)) {
            Ok(()) => {
                self.metrics.spans_sent.add(count);
                self.failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.metrics.spans_dropped.add(count);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let endpoint = &self.params.endpoint;
                    tracing::warn!(%endpoint, %error, "traces do not arrive");
                }
            }
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), Lost> {
        let endpoint = &self.params.endpoint;
        let host = endpoint.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']);
        let port = endpoint.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((bare, port)).await;
        let stream = stream.map_err(Lost::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the exchange, which says what went wrong.
        let connection = tokio::spawn(connection);
        let path = endpoint.path_and_query().map_or("/", |path| path.as_str());
        let authority = endpoint.authority().map_or(host, |name| name.as_str());
        let request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await;
        connection.abort();
        let status = answer?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(Lost::Refused(status)),
        }
    }
}

const USER_AGENT: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));
/// Spans that may wait; more are dropped.
const QUEUE_SPANS: usize = 8192;
/// Spans in one batch.
const BATCH_SPANS: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a batch may take to be taken.
const SEND_WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Step;
    use crate::rules::cache_status::Outcome;
    use crate::rules::trace::SpanId;
    use crate::rules::trace::Trace;
    use crate::rules::trace::TraceId;
    use std::net::TcpListener;
    use std::time::SystemTime;

    fn span() -> Span {
        Span {
            trace: Trace {
                id: TraceId([1; 16]),
                parent: None,
                span: SpanId([2; 8]),
                sampled: true,
            },
            id: SpanId([3; 8]),
            at: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(1),
            step: Step::Lookup(Outcome::default()),
        }
    }

    fn tracer(port: u16) -> (Tracer, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let params = Params {
            endpoint: format!("http://127.0.0.1:{port}/v1/traces")
                .parse()
                .unwrap(),
            service: "larder".to_owned(),
        };
        (Tracer::start(&params, &metrics).unwrap(), metrics)
    }

    #[test]
    fn what_nobody_takes_is_counted_and_holds_nobody_up() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (tracer, metrics) = tracer(port);
        for _ in 0..3 {
            tracer.tell(span());
        }
        tracer.close();
        assert_eq!(metrics.spans_dropped.value(), 3);
        assert_eq!(metrics.spans_sent.value(), 0);
    }

    #[test]
    fn no_more_spans_wait_than_the_bound() {
        let metrics = Arc::new(Metrics::default());
        let (queue, spans) = mpsc::channel(QUEUE_SPANS);
        let tracer = Tracer {
            queue,
            metrics: Arc::clone(&metrics),
            sender: Mutex::new(None),
        };
        for _ in 0..QUEUE_SPANS + 5 {
            tracer.tell(span());
        }
        assert_eq!(metrics.spans_dropped.value(), 5);
        drop(spans);
    }
}
