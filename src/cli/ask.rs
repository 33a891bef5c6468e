//! What the commands that speak with a running larder share: its admin listener, asked over one
//! connection a question.
//!
//! From the `[admin]` section of a config: where it listens and which token it wants. An answer is
//! read as it comes; one that broke off ends in an error. What it means is left to the command.

use crate::config;
use crate::ops::admin::Token;
use anyhow::Context;
use bytes::Buf;
use bytes::Bytes;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::io::Read;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The admin listener of a running larder.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    secret: Option<String>,
}

/// What it answered; the body is read as it comes.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    runtime: Runtime,
    body: Incoming,
    part: Bytes,
}

impl Listener {
    /// Finds it by a config, of which only the `[admin]` section must be right.
    pub(super) fn of(config: &Path) -> anyhow::Result<Self> {
        let admin = config::load_admin(config)?.context("the config has no admin listener")?;
        let secret = admin
            .token_file
            .as_deref()
            .map(Token::read_secret)
            .transpose()?;
        if admin.listen.port() == 0 {
            anyhow::bail!("admin.listen has port 0, so nobody knows where it listens");
        }
        Ok(Self {
            address: reachable(admin.listen),
            secret,
        })
    }

    /// How operators call it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks for what is there and returns when the head of the answer is. Blocking.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.ask(Method::GET, path, String::new())
    }

    /// Sends JSON and returns when the head of the answer is there. Blocking.
    pub(super) fn post(&self, path: &str, body: String) -> anyhow::Result<Reply> {
        self.ask(Method::POST, path, body)
    }

    fn ask(&self, method: Method, path: &str, body: String) -> anyhow::Result<Reply> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start a runtime")?;
        let asked = runtime.block_on(self.send(method, path, body));
        let (status, body) = asked.with_context(|| format!("could not ask {}", self.url()))?;
        Ok(Reply {
            status,
            runtime,
            body,
            part: Bytes::new(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, Incoming)> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream = connecting
            .context("nobody answered in time")?
            .context("could not connect")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the runtime; whether it ended well the body says.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let request = request.body(Full::<Bytes>::from(body))?;
        let response = timeout(REPLY_TIMEOUT, sender.send_request(request))
            .await
            .context("no answer came in time")?
            .context("the answer is not HTTP")?;
        Ok((response.status(), response.into_body()))
    }
}

impl Reply {
    /// The whole body as text that a terminal can show; only for short ones.
    pub(super) fn text(self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        self.take(TEXT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .context("the answer broke off")?;
        // A refusal's reason may quote what was sent.
        let printable = |c: &char| *c == '\n' || !c.is_control();
        Ok(String::from_utf8_lossy(&bytes)
            .chars()
            .filter(printable)
            .collect())
    }
}

impl Read for Reply {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let frame = self.runtime.block_on(async {
                // Made inside: a timer needs the runtime around it.
                timeout(REPLY_TIMEOUT, self.body.frame()).await
            });
            match frame {
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "nothing came in time",
                    ));
                }
                Ok(None) => return Ok(0),
                Ok(Some(Err(error))) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
                Ok(Some(Ok(frame))) => self.part = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.part.len().min(buffer.len());
        if let Some(room) = buffer.get_mut(..count) {
            self.part.copy_to_slice(room);
        }
        Ok(count)
    }
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
const TEXT_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    /// A listener that reads a request and answers with these bytes.
    fn answering(answer: &'static [u8]) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            drop(stream.read(&mut request));
            drop(stream.write_all(answer));
        });
        Listener {
            address,
            secret: Some("s3cret".to_owned()),
        }
    }

    #[test]
    fn a_listener_on_every_address_is_called_on_loopback() {
        let called = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(called("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(called("[::]:1"), "[::1]:1");
        assert_eq!(called("192.0.2.1:1"), "192.0.2.1:1");
    }

    #[test]
    fn a_reply_has_a_status_and_a_body_without_control_characters() {
        let listener = answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\na\x1b[b\n");
        let reply = listener.post("/purge", "{}".to_owned()).unwrap();
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(reply.text().unwrap(), "a[b\n");
    }

    #[test]
    fn what_is_not_http_is_no_reply() {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n"] {
            let error = answering(answer).post("/purge", String::new()).unwrap_err();
            assert!(format!("{error:#}").contains("not HTTP"), "{error:#}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        ] {
            let reply = answering(answer).post("/purge", String::new()).unwrap();
            let error = reply.text().unwrap_err();
            assert!(format!("{error:#}").contains("broke off"), "{error:#}");
        }
    }
}
