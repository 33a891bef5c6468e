//! A raw HTTP/1.1 client: sends what it is told, reads what comes, and judges nothing by itself.
//!
//! [`Answer`] then has one short method for each thing a scene may want to claim; each returns the
//! answer, so that claims read as a sentence.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::origin::DEADLINE;

/// The authority every scene asks for unless it says otherwise.
pub(crate) const HOST: &str = "scene.test";

/// A byte stream to the proxy, with or without TLS.
pub(crate) trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// One connection.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    asked: Instant,
}

impl Client {
    /// Connects in clear text.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(tcp(address))
    }

    /// Speaks over a stream that exists already.
    pub(crate) fn over(wire: impl Wire + 'static) -> Self {
        Self {
            wire: Box::new(wire),
            buffer: Vec::new(),
            asked: Instant::now(),
        }
    }

    /// Sends these bytes and nothing else. That the other side has closed is seen when reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.asked = Instant::now();
        drop(self.wire.write_all(bytes).and_then(|()| self.wire.flush()));
    }

    /// Sends a request, with Host and Content-Length where they are not given.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> &mut Self {
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        if !given("Host") {
            request.push_str(&format!("Host: {HOST}\r\n"));
        }
        if !body.is_empty() && !given("Transfer-Encoding") && !given("Content-Length") {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
        self
    }

    /// Sends a GET without more.
    pub(crate) fn get(&mut self, target: &str) -> &mut Self {
        self.ask("GET", target, &[], &[])
    }

    /// Reads the whole answer to a request of `method`.
    #[track_caller]
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        self.begin(method).finish()
    }

    /// Reads the head of an answer and leaves the body for later.
    #[track_caller]
    pub(crate) fn begin(&mut self, method: &str) -> Reading<'_> {
        self.try_begin(method)
            .expect("an answer, but the connection was closed")
    }

    /// Reads the head of an answer; `None` when the connection ends before there is one.
    pub(crate) fn try_begin(&mut self, method: &str) -> Option<Reading<'_>> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let answer = Answer::parse(&head, self.asked.elapsed());
            if !(100..200).contains(&answer.status) {
                let left = Left::new(method, &answer);
                return Some(Reading {
                    client: self,
                    answer,
                    left,
                });
            }
        }
    }

    /// Whether the other side closes without sending more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Between one and `max` bytes; `None` at the end of the connection.
    fn some(&mut self, max: usize) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.fill() {
            return None;
        }
        let take = max.min(self.buffer.len());
        Some(self.buffer.drain(..take).collect())
    }

    /// Reads once; `false` when the connection has ended, however it did.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.wire.read(&mut piece) {
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                read > 0
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("nothing came for {DEADLINE:?}")
            }
            Err(_) => false,
        }
    }
}

/// Connects to `address`; a read that gets nothing for [`DEADLINE`] fails the scene.
#[track_caller]
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let wire = TcpStream::connect(address).expect("a connection to the proxy");
    wire.set_nodelay(true).expect("no delay");
    wire.set_read_timeout(Some(DEADLINE))
        .expect("a read timeout");
    wire
}

/// An answer whose head has come and whose body is being read.
pub(crate) struct Reading<'c> {
    client: &'c mut Client,
    answer: Answer,
    left: Left,
}

/// What is left of a body.
enum Left {
    Chunk(usize),
    ChunkSize,
    Exactly(usize),
    Nothing,
    UntilClose,
}

impl Left {
    fn new(method: &str, answer: &Answer) -> Self {
        if method == "HEAD" || answer.status == 204 || answer.status == 304 {
            return Self::Nothing;
        }
        if answer.header("Transfer-Encoding").is_some() {
            return Self::ChunkSize;
        }
        match answer.header("Content-Length") {
            Some(length) => Self::Exactly(length.parse().expect("a length")),
            None => Self::UntilClose,
        }
    }
}

impl Reading<'_> {
    /// What is known so far: the head, and the body read up to now.
    pub(crate) fn so_far(&self) -> &Answer {
        &self.answer
    }

    /// Reads on until `bytes` of the body have come, counted from its start.
    #[track_caller]
    pub(crate) fn up_to(&mut self, bytes: usize) -> &[u8] {
        while self.answer.body.len() < bytes {
            assert!(
                self.step(),
                "the body ended after {} bytes",
                self.answer.body.len()
            );
        }
        &self.answer.body[..bytes]
    }

    /// Reads to the end, wherever that is.
    pub(crate) fn finish(mut self) -> Answer {
        while self.step() {}
        self.answer.took = self.client.asked.elapsed();
        self.answer
    }

    /// Reads one piece; `false` at the end, which may have come too early.
    fn step(&mut self) -> bool {
        match self.left {
            Left::Chunk(0) => {
                let closed = self.client.until(b"\r\n").is_none();
                self.left = Left::ChunkSize;
                !self.ends_as_cut_if(closed)
            }
            Left::Chunk(bytes) => match self.client.some(bytes) {
                Some(piece) => {
                    self.left = Left::Chunk(bytes - piece.len());
                    self.take(&piece)
                }
                None => !self.ends_as_cut_if(true),
            },
            Left::ChunkSize => self.chunk_size(),
            Left::Exactly(0) | Left::Nothing => false,
            Left::Exactly(bytes) => match self.client.some(bytes) {
                Some(piece) => {
                    self.left = Left::Exactly(bytes - piece.len());
                    self.take(&piece)
                }
                None => !self.ends_as_cut_if(true),
            },
            Left::UntilClose => self
                .client
                .some(usize::MAX)
                .is_some_and(|piece| self.take(&piece)),
        }
    }

    fn chunk_size(&mut self) -> bool {
        let Some(line) = self.client.until(b"\r\n") else {
            return !self.ends_as_cut_if(true);
        };
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        if size > 0 {
            self.left = Left::Chunk(size);
            return true;
        }
        while self
            .client
            .until(b"\r\n")
            .is_some_and(|trailer| trailer != b"\r\n")
        {}
        false
    }

    fn take(&mut self, piece: &[u8]) -> bool {
        self.answer.body.extend_from_slice(piece);
        true
    }

    fn ends_as_cut_if(&mut self, closed: bool) -> bool {
        if closed {
            self.answer.ended = Ended::Cut;
            self.left = Left::Nothing;
        }
        closed
    }
}

/// Whether all of a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection ended before the body did.
    Cut,
    /// The body ended as its framing says.
    Whole,
}

/// An answer, with claims to make about it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) ended: Ended,
    /// From the request to the head.
    pub(crate) first_byte: Duration,
    /// From the request to the end of the body.
    pub(crate) took: Duration,
}

impl Answer {
    #[track_caller]
    fn parse(head: &[u8], first_byte: Duration) -> Self {
        let head = String::from_utf8_lossy(head).into_owned();
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("not a status line: {status_line:?}")),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
            ended: Ended::Whole,
            first_byte,
            took: first_byte,
        }
    }

    /// The value of the first field called `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// The values of every field called `name`, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a parameter of our own Cache-Status member; empty for one without a value.
    pub(crate) fn cache_status(&self, parameter: &str) -> Option<String> {
        let line = self.all("Cache-Status").join(", ");
        let member = line
            .split(',')
            .rev()
            .map(str::trim)
            .find(|m| m.starts_with("larder"))?;
        member.split(';').skip(1).map(str::trim).find_map(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (name == parameter).then(|| value.trim_matches('"').to_owned())
        })
    }

    /// It has this status and came whole.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "status of {self:#}");
        self.whole()
    }

    /// It has one of these statuses and came whole.
    #[track_caller]
    pub(crate) fn is_one_of(&self, statuses: &[u16]) -> &Self {
        assert!(
            statuses.contains(&self.status),
            "status not among {statuses:?} of {self:#}"
        );
        self.whole()
    }

    /// Its body came whole and is `body`.
    #[track_caller]
    pub(crate) fn sees(&self, body: impl AsRef<[u8]>) -> &Self {
        let expected = body.as_ref();
        let (seen, wanted) = (brief(&self.body), brief(expected));
        assert!(
            self.body == expected,
            "body is {seen}, not {wanted}, in {self:#}"
        );
        self.whole()
    }

    /// All of it came.
    #[track_caller]
    pub(crate) fn whole(&self) -> &Self {
        assert_eq!(self.ended, Ended::Whole, "{self:#}");
        self
    }

    /// The transfer was cut: a client can tell that something is missing.
    #[track_caller]
    pub(crate) fn is_cut(&self) -> &Self {
        assert_eq!(self.ended, Ended::Cut, "{self:#}");
        self
    }

    /// Cache-Status says `hit`, or `fwd=` and this reason.
    #[track_caller]
    pub(crate) fn by(&self, how: &str) -> &Self {
        let actual = match self.cache_status("hit") {
            Some(_) => Some("hit".to_owned()),
            None => self.cache_status("fwd"),
        };
        assert_eq!(actual.as_deref(), Some(how), "Cache-Status of {self:#}");
        self
    }

    /// Cache-Status says that the response was stored.
    #[track_caller]
    pub(crate) fn stored(&self) -> &Self {
        assert!(
            self.cache_status("stored").is_some(),
            "not stored: {self:#}"
        );
        self
    }

    /// Cache-Status does not say that the response was stored.
    #[track_caller]
    pub(crate) fn not_stored(&self) -> &Self {
        assert!(self.cache_status("stored").is_none(), "stored: {self:#}");
        self
    }

    /// Cache-Status gives this detail.
    #[track_caller]
    pub(crate) fn detail(&self, detail: &str) -> &Self {
        assert_eq!(
            self.cache_status("detail").as_deref(),
            Some(detail),
            "detail of {self:#}"
        );
        self
    }

    /// The `ttl` of Cache-Status, negative when served stale.
    #[track_caller]
    pub(crate) fn ttl(&self) -> i64 {
        let ttl = self.cache_status("ttl").and_then(|ttl| ttl.parse().ok());
        ttl.unwrap_or_else(|| panic!("no ttl in {self:#}"))
    }

    /// It has a field `name` with this value.
    #[track_caller]
    pub(crate) fn has(&self, name: &str, value: &str) -> &Self {
        assert!(
            self.all(name).contains(&value),
            "no {name}: {value} in {self:#}"
        );
        self
    }

    /// It has no field `name`.
    #[track_caller]
    pub(crate) fn lacks(&self, name: &str) -> &Self {
        assert_eq!(self.header(name), None, "{name} in {self:#}");
        self
    }

    /// Proxy-Status names this error (RFC 9209).
    #[track_caller]
    pub(crate) fn proxy_error(&self, error: &str) -> &Self {
        let line = self.all("Proxy-Status").join(", ");
        assert!(line.starts_with("larder"), "Proxy-Status of {self:#}");
        let named = line
            .split(';')
            .any(|word| word.trim() == format!("error={error}"));
        assert!(named, "no error={error} in Proxy-Status of {self:#}");
        self
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            out,
            "{} ({:?}, {:?})",
            self.status, self.ended, self.first_byte
        )?;
        for (name, value) in &self.headers {
            writeln!(out, "  {name}: {value}")?;
        }
        write!(out, "  {}", brief(&self.body))
    }
}

/// A body short enough to print, or its length and how it begins.
fn brief(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(&body[..body.len().min(160)]).into_owned();
    match body.len() {
        0..=160 => format!("{start:?}"),
        bytes => format!("{bytes} bytes beginning {start:?}"),
    }
}
