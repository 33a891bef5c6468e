//! An origin on loopback that plays a script: what the tests of this room talk to.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

/// One thing an origin does on a connection.
#[derive(Clone)]
pub(crate) enum Act {
    /// Reads a request head and this many bytes of body.
    Hear(usize),
    /// Sends bytes.
    Say(Bytes),
    /// Waits to be told.
    Await(Arc<Notify>),
    /// Tells.
    Tell(Arc<Notify>),
    /// Waits for the other side to close, and tells.
    Farewell(Arc<Notify>),
    /// Resets the connection.
    Reset,
    /// Stays connected and silent.
    Hang,
}

/// Answers one request.
pub(crate) fn answer(bytes: impl Into<Bytes>) -> Vec<Act> {
    vec![Act::Hear(0), Act::Say(bytes.into())]
}

/// A running origin.
pub(crate) struct Origin {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Origin {
    /// Plays the n-th list of acts on the n-th connection, then closes it; further connections
    /// are accepted and closed.
    pub(crate) async fn playing(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all_heard = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut scripts = scripts.into_iter();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let script = scripts.next().unwrap_or_default();
                tokio::spawn(play(stream, script, number, Arc::clone(&all_heard)));
            }
        });
        Self { port, heard }
    }

    /// What was heard: the number of the connection, then the head and body as they came.
    pub(crate) fn heard(&self) -> Vec<(usize, String)> {
        self.heard.lock().unwrap().clone()
    }

    /// The connections on which requests were heard.
    pub(crate) fn connections(&self) -> Vec<usize> {
        self.heard().into_iter().map(|(number, _)| number).collect()
    }

    /// An upstream with this origin as its only backend.
    pub(crate) fn upstream(&self) -> Upstream {
        Upstream::new(self.params())
    }

    pub(crate) fn params(&self) -> Params {
        params(self.port)
    }
}

/// Bounds that no test meets by accident, and a backend on loopback.
pub(crate) fn params(port: u16) -> Params {
    Params {
        backends: vec![Backend::Http {
            host: String::from("127.0.0.1"),
            port,
        }],
        connect_timeout: Duration::from_secs(20),
        first_byte_timeout: Duration::from_secs(20),
        between_bytes_timeout: Duration::from_secs(20),
        connections_max: 8,
        queue_max: 8,
        idle_max: 8,
        refreshes_max: 1,
        idle_timeout: Duration::from_secs(20),
        headers_max: 20,
        header_bytes_max: 4096,
        protocol: Protocol::Auto,
        streams_max: 100,
        stream_window_bytes: 64 * 1024,
        ping_interval: Duration::from_secs(20),
        ping_timeout: Duration::from_secs(20),
    }
}

async fn play(
    mut stream: TcpStream,
    script: Vec<Act>,
    number: usize,
    heard: Arc<Mutex<Vec<(usize, String)>>>,
) {
    for act in script {
        match act {
            Act::Hear(body) => {
                let Some(request) = hear(&mut stream, body).await else {
                    return;
                };
                heard.lock().unwrap().push((number, request));
            }
            Act::Say(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Await(notify) => notify.notified().await,
            Act::Tell(notify) => notify.notify_one(),
            Act::Farewell(notify) => {
                let mut rest = Vec::new();
                let _gone = stream.read_to_end(&mut rest).await;
                notify.notify_one();
            }
            Act::Reset => {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Act::Hang => std::future::pending().await,
        }
    }
}

async fn hear(stream: &mut TcpStream, body: usize) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let mut rest = vec![0; body];
    stream.read_exact(&mut rest).await.ok()?;
    bytes.extend(rest);
    Some(String::from_utf8(bytes).unwrap())
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str) -> Request<RequestBody> {
    with_body(method, path, http_body_util::Empty::new())
}

/// A request with a body.
pub(crate) fn with_body<B>(method: &str, path: &str, body: B) -> Request<RequestBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = RequestBody::new(body.map_err(Into::into));
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "t.test")
        .body(body)
        .unwrap()
}

/// Reads a response's body to its end.
pub(crate) async fn read(response: Response<Body>) -> Result<Bytes, UpstreamError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Sends a GET and reads the whole answer.
pub(crate) async fn get(upstream: &Upstream, path: &str) -> Result<Bytes, UpstreamError> {
    read(upstream.exchange(0, request("GET", path)).await?).await
}
