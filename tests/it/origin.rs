//! A scripted origin: says per target what it was told to, and remembers all it was asked.
//!
//! One thread accepts, one thread serves each connection, and every socket is blocking, so what a
//! [`Reply`] describes is what goes over the wire, lies included.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::NamedGroup;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;

/// How long anything in a scene is waited for before the scene fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A listening origin. Dropped, it stops listening and closes every connection.
pub(crate) struct Origin {
    address: SocketAddr,
    stage: Arc<Stage>,
}

/// What the origin's threads share.
#[derive(Default)]
struct Stage {
    scripts: Mutex<HashMap<String, Script>>,
    seen: Mutex<Vec<Seen>>,
    arrived: Condvar,
    closed: AtomicBool,
    connections: AtomicUsize,
    sockets: Mutex<Vec<TcpStream>>,
    tls: Option<Arc<ServerConfig>>,
    handshakes: Mutex<Vec<Greeted>>,
}

/// A handshake as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Greeted {
    /// The name asked for.
    pub(crate) name: Option<String>,
    /// An earlier session went on.
    pub(crate) resumed: bool,
    /// The client showed a certificate.
    pub(crate) certified: bool,
    /// The key exchange.
    pub(crate) group: Option<NamedGroup>,
}

/// What an origin reads and writes.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// TLS to a client; says goodbye before it hangs up unless it is to be cut.
struct Secured(StreamOwned<ServerConnection, TcpStream>);

impl Read for Secured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Secured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        // What is not waited for here is not sent before the next read.
        self.0.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What to say for one target: the first replies in turn, then one for ever.
#[derive(Default)]
struct Script {
    first: VecDeque<Reply>,
    then: Option<Arc<Answering>>,
}

type Answering = dyn Fn(&Seen) -> Reply + Send + Sync;

/// One request as the origin received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, counted from one.
    pub(crate) connection: usize,
}

impl Seen {
    /// The value of the first field called `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

impl Origin {
    /// Listens on a free port of the loopback; every target is 404 until something is said of it.
    pub(crate) fn new() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an origin's port"))
    }

    /// Listens here.
    pub(crate) fn on(listener: TcpListener) -> Self {
        Self::staged(listener, Stage::default())
    }

    /// Listens on a free port and speaks TLS.
    pub(crate) fn secured(config: ServerConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an origin's port");
        let tls = Some(Arc::new(config));
        Self::staged(
            listener,
            Stage {
                tls,
                ..Stage::default()
            },
        )
    }

    fn staged(listener: TcpListener, stage: Stage) -> Self {
        let address = listener.local_addr().expect("an origin's address");
        let stage = Arc::new(stage);
        let shared = Arc::clone(&stage);
        thread::spawn(move || accept(&listener, &shared));
        Self { address, stage }
    }

    /// `http://` or `https://` and the address: what a backend is called in the config.
    pub(crate) fn url(&self) -> String {
        match self.stage.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://{}", self.address),
        }
    }

    /// Every handshake that was finished, oldest first.
    pub(crate) fn handshakes(&self) -> Vec<Greeted> {
        lock(&self.stage.handshakes).clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.stage.connections.load(Ordering::SeqCst)
    }

    /// From now on `target` is answered with `reply`.
    pub(crate) fn says(&self, target: &str, reply: Reply) -> &Self {
        self.does(target, move |_| reply.clone())
    }

    /// The next request for `target` gets `reply`; more calls queue up behind each other.
    pub(crate) fn says_once(&self, target: &str, reply: Reply) -> &Self {
        lock(&self.stage.scripts)
            .entry(target.to_owned())
            .or_default()
            .first
            .push_back(reply);
        self
    }

    /// From now on `answering` decides what `target` is answered with; `*` is every other target.
    pub(crate) fn does(
        &self,
        target: &str,
        answering: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> &Self {
        lock(&self.stage.scripts)
            .entry(target.to_owned())
            .or_default()
            .then = Some(Arc::new(answering));
        self
    }

    /// Every request for `target` so far, oldest first.
    pub(crate) fn seen(&self, target: &str) -> Vec<Seen> {
        lock(&self.stage.seen)
            .iter()
            .filter(|seen| seen.target == target)
            .cloned()
            .collect()
    }

    /// The latest request for `target`.
    #[track_caller]
    pub(crate) fn last(&self, target: &str) -> Seen {
        self.seen(target)
            .pop()
            .unwrap_or_else(|| panic!("the origin was never asked for {target}"))
    }

    /// How many requests came in, whatever for.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.stage.seen).len()
    }

    /// Asserts that `target` was asked for exactly `times` times.
    #[track_caller]
    pub(crate) fn saw(&self, target: &str, times: usize) -> &Self {
        let seen = self.seen(target).len();
        assert_eq!(seen, times, "requests the origin saw for {target}");
        self
    }

    /// Waits until `target` has been asked for `times` times.
    #[track_caller]
    pub(crate) fn await_requests(&self, target: &str, times: usize) -> &Self {
        let count = |seen: &[Seen]| seen.iter().filter(|seen| seen.target == target).count();
        let (seen, _) = self
            .stage
            .arrived
            .wait_timeout_while(lock(&self.stage.seen), DEADLINE, |seen| count(seen) < times)
            .unwrap_or_else(PoisonError::into_inner);
        let arrived = count(&seen);
        drop(seen);
        assert!(
            arrived >= times,
            "the origin waited for {times} of {target} and saw {arrived}"
        );
        self
    }

    /// Goes away: refuses new connections and closes the open ones.
    pub(crate) fn close(&self) {
        if self.stage.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        // Wakes the accepting thread, which then sees that it is over and drops the listener.
        let woken = TcpStream::connect(self.address);
        self.hang_up_on_everyone();
        drop(woken);
        // The listener is gone when a connection is refused.
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
    }

    /// Closes every open connection and goes on listening.
    pub(crate) fn hang_up_on_everyone(&self) {
        for socket in lock(&self.stage.sockets).drain(..) {
            // Already closed by the other side is as good.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.close();
    }
}

/// Holds a reply back until a test opens it.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and from now on.
    pub(crate) fn open(&self) {
        let (open, opened) = &*self.inner;
        *lock(open) = true;
        opened.notify_all();
    }

    /// Waits until the gate is open, or for [`DEADLINE`].
    fn wait(&self) {
        let (open, opened) = &*self.inner;
        let waited = opened.wait_timeout_while(lock(open), DEADLINE, |open| !*open);
        drop(waited);
    }
}

/// What the origin says to one request.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<[u8]>,
    framing: Framing,
    delay: Duration,
    held: Option<Gate>,
    held_after: Option<(usize, Gate)>,
    dribble: Option<(usize, Duration)>,
    cut_after: Option<usize>,
    closes: bool,
    raw: Option<Arc<[u8]>>,
}

/// How the body's end is told.
#[derive(Clone, Copy)]
enum Framing {
    Chunked,
    Claims(usize),
    Length,
    UntilClose,
}

impl Reply {
    /// 200 with `body` and its length.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: Arc::from(body.into()),
            framing: Framing::Length,
            delay: Duration::ZERO,
            held: None,
            held_after: None,
            dribble: None,
            cut_after: None,
            closes: false,
            raw: None,
        }
    }

    /// `status` with a body that says so.
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok(format!("status {status}"))
        }
    }

    /// What an origin that knows ranges says of `body`, tagged `tag`: 304 to who has it, 206 to one
    /// range of it, 416 to one beyond it, 200 to everything else and where If-Range differs.
    pub(crate) fn ranged(seen: &Seen, body: &[u8], tag: &str) -> Self {
        if seen.header("If-None-Match") == Some(tag) {
            return Self::status(304).tagged(tag).fresh();
        }
        let differs = seen.header("If-Range").is_some_and(|known| known != tag);
        let range = seen.header("Range").filter(|_| !differs);
        let range = range.and_then(|range| range.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return Self::ok(body).tagged(tag).fresh();
        };
        let end = body.len();
        let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.min(end.saturating_sub(1))),
            (Ok(first), Err(_)) => (first, end.saturating_sub(1)),
            (Err(_), Ok(bytes)) => (end.saturating_sub(bytes), end.saturating_sub(1)),
            (Err(_), Err(_)) => return Self::ok(body).tagged(tag).fresh(),
        };
        if first >= end {
            return Self::status(416).header("Content-Range", &format!("bytes */{end}"));
        }
        Self::part(body, first, last).tagged(tag).fresh()
    }

    /// 206 with the bytes `first..=last` of `body`.
    pub(crate) fn part(body: &[u8], first: usize, last: usize) -> Self {
        let range = format!("bytes {first}-{last}/{}", body.len());
        Self {
            status: 206,
            ..Self::ok(&body[first..=last])
        }
        .header("Content-Range", &range)
    }

    /// These bytes instead of a response, then the connection is closed.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            raw: Some(Arc::from(bytes.into())),
            ..Self::ok("")
        }
    }

    /// No answer at all: the connection is closed.
    pub(crate) fn nothing() -> Self {
        Self::raw("")
    }

    /// Adds a field; the same name may be added again.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a field in the place of one that is there.
    pub(crate) fn instead(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.header(name, value)
    }

    /// Adds a Cache-Control field.
    pub(crate) fn cache(self, value: &str) -> Self {
        self.header("Cache-Control", value)
    }

    /// Fresh for a minute.
    pub(crate) fn fresh(self) -> Self {
        self.cache("max-age=60")
    }

    /// Arrives with an Age: stale from the start when that is over its lifetime.
    pub(crate) fn aged(self, seconds: u64) -> Self {
        self.header("Age", &seconds.to_string())
    }

    /// Carries an entity tag, and becomes a 304 for a request that names it.
    pub(crate) fn tagged(self, tag: &str) -> Self {
        self.header("ETag", tag)
    }

    /// Sends the body chunked.
    pub(crate) fn chunked(self) -> Self {
        Self {
            framing: Framing::Chunked,
            ..self
        }
    }

    /// Sends the body without a length and closes the connection after it.
    pub(crate) fn until_close(self) -> Self {
        Self {
            framing: Framing::UntilClose,
            closes: true,
            ..self
        }
    }

    /// Claims `bytes` as the length, whatever is sent.
    pub(crate) fn claims(self, bytes: usize) -> Self {
        Self {
            framing: Framing::Claims(bytes),
            ..self
        }
    }

    /// Waits before the head.
    pub(crate) fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Waits before the head until `gate` is open.
    pub(crate) fn held(self, gate: &Gate) -> Self {
        Self {
            held: Some(gate.clone()),
            ..self
        }
    }

    /// Waits after `bytes` of the body until `gate` is open.
    pub(crate) fn held_after(self, bytes: usize, gate: &Gate) -> Self {
        Self {
            held_after: Some((bytes, gate.clone())),
            ..self
        }
    }

    /// Sends the body in pieces of `bytes` with a pause between them.
    pub(crate) fn dribbled(self, bytes: usize, pause: Duration) -> Self {
        Self {
            dribble: Some((bytes, pause)),
            ..self
        }
    }

    /// Closes the connection after `bytes` of the body.
    pub(crate) fn cut_after(self, bytes: usize) -> Self {
        Self {
            cut_after: Some(bytes),
            closes: true,
            ..self
        }
    }

    /// Closes the connection after the response without having said so.
    pub(crate) fn then_closes(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// How many bytes of content go out for `request`, when nothing cuts them.
    pub(crate) fn body_bytes(&self, request: &Seen) -> usize {
        let none = request.method == "HEAD"
            || self.status >= 300
            || (self.status == 200 && self.is_known_to(request));
        if none { 0 } else { self.body.len() }
    }

    /// Whether `request` names what this reply would send, so that 304 is the answer.
    fn is_known_to(&self, request: &Seen) -> bool {
        let ours = |name: &str| {
            self.headers
                .iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
        };
        match request.header("If-None-Match") {
            Some(tags) => ours("ETag").is_some_and(|tag| tags.split(',').any(|t| t.trim() == tag)),
            None => {
                let since = request.header("If-Modified-Since");
                since.is_some() && since == ours("Last-Modified")
            }
        }
    }

    /// Says it; answers whether the connection may go on.
    fn send(&self, request: &Seen, wire: &mut dyn Stream) -> io::Result<bool> {
        if !self.delay.is_zero() {
            thread::sleep(self.delay); // waits because a slow origin is what the scene is about
        }
        if let Some(gate) = &self.held {
            gate.wait();
        }
        if let Some(raw) = &self.raw {
            wire.write_all(raw)?;
            return Ok(false);
        }
        if self.status == 200 && self.is_known_to(request) {
            wire.write_all(self.head(304, "").as_bytes())?;
            return Ok(!self.closes);
        }
        let framing = match self.framing {
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Claims(bytes) => format!("Content-Length: {bytes}\r\n"),
            Framing::Length if self.status == 204 => String::new(),
            Framing::Length => format!("Content-Length: {}\r\n", self.body.len()),
            Framing::UntilClose => "Connection: close\r\n".to_owned(),
        };
        wire.write_all(self.head(self.status, &framing).as_bytes())?;
        // RFC 9112 §6.3: these end with their head, and what follows would be the next response.
        if request.method != "HEAD" && !matches!(self.status, 204 | 304) {
            self.send_body(wire)?;
        }
        Ok(!self.closes)
    }

    fn head(&self, status: u16, framing: &str) -> String {
        let fields: String = self
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        format!("HTTP/1.1 {status} Scripted\r\n{fields}{framing}\r\n")
    }

    fn send_body(&self, wire: &mut dyn Stream) -> io::Result<()> {
        let end = self.cut_after.unwrap_or(usize::MAX).min(self.body.len());
        let mut sent = 0;
        while sent < end {
            let mut upto = end;
            if let Some((bytes, pause)) = self.dribble {
                if sent > 0 {
                    thread::sleep(pause); // waits because a slow origin is what the scene is about
                }
                upto = upto.min(sent + bytes);
            }
            match &self.held_after {
                Some((bytes, gate)) if sent == *bytes => gate.wait(),
                Some((bytes, _)) if sent < *bytes => upto = upto.min(*bytes),
                Some(_) | None => {}
            }
            self.send_piece(wire, &self.body[sent..upto])?;
            sent = upto;
        }
        if matches!(self.framing, Framing::Chunked) && self.cut_after.is_none() {
            wire.write_all(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn send_piece(&self, wire: &mut dyn Stream, piece: &[u8]) -> io::Result<()> {
        if !matches!(self.framing, Framing::Chunked) {
            return wire.write_all(piece);
        }
        wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        wire.write_all(piece)?;
        wire.write_all(b"\r\n")
    }
}

/// `bytes` of bytes that look like chance and are the same for the same `seed`.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(bytes);
    body
}

fn accept(listener: &TcpListener, stage: &Arc<Stage>) {
    while let Ok((socket, _)) = listener.accept() {
        if stage.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(handle) = socket.try_clone() else {
            continue;
        };
        lock(&stage.sockets).push(handle);
        let number = stage.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let stage = Arc::clone(stage);
        thread::spawn(move || {
            // The other side going away ends a connection like anything else.
            drop(serve(&stage, &socket, number));
            drop(socket.shutdown(Shutdown::Both));
        });
    }
}

fn serve(stage: &Stage, socket: &TcpStream, number: usize) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(tls) = &stage.tls else {
        let mut wire = socket.try_clone()?;
        return talk(stage, &mut wire, number).map(drop);
    };
    let mut session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
    let mut raw = socket.try_clone()?;
    while session.is_handshaking() {
        session.complete_io(&mut raw)?;
    }
    lock(&stage.handshakes).push(Greeted {
        name: session.server_name().map(str::to_owned),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        certified: session.peer_certificates().is_some(),
        group: session
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
    });
    let mut wire = Secured(StreamOwned::new(session, raw));
    if talk(stage, &mut wire, number)? {
        wire.0.conn.send_close_notify();
        wire.flush()?;
    }
    Ok(())
}

/// Answers requests; says whether the end is one to be told, and not a cut.
fn talk(stage: &Stage, wire: &mut dyn Stream, number: usize) -> io::Result<bool> {
    let mut buffer = Vec::new();
    loop {
        let mut reading = Reading {
            wire: &mut *wire,
            buffer: std::mem::take(&mut buffer),
        };
        let Some(request) = reading.request(number)? else {
            return Ok(true);
        };
        buffer = reading.buffer;
        let reply = stage.reply(&request);
        lock(&stage.seen).push(request.clone());
        stage.arrived.notify_all();
        if !reply.send(&request, &mut *wire)? {
            return Ok(reply.cut_after.is_none());
        }
    }
}

impl Stage {
    fn reply(&self, request: &Seen) -> Reply {
        let mut scripts = lock(&self.scripts);
        for target in [request.target.as_str(), "*"] {
            let Some(script) = scripts.get_mut(target) else {
                continue;
            };
            if let Some(reply) = script.first.pop_front() {
                return reply;
            }
            if let Some(answering) = script.then.clone() {
                drop(scripts);
                return answering(request);
            }
        }
        Reply::status(404)
    }
}

/// Requests off one connection.
struct Reading<'a> {
    wire: &'a mut dyn Stream,
    buffer: Vec<u8>,
}

impl Reading<'_> {
    /// The next request with its whole body, `None` at the end of the connection.
    fn request(&mut self, connection: usize) -> io::Result<Option<Seen>> {
        let Some(head) = self.until(b"\r\n\r\n")? else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut request = Seen {
            method: words.next().unwrap_or_default().to_owned(),
            target: words.next().unwrap_or_default().to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
            connection,
        };
        if request.header("Transfer-Encoding").is_some() {
            request.body = self.chunks()?;
        } else if let Some(length) = request.header("Content-Length") {
            request.body = self.exactly(length.parse().unwrap_or(0))?;
        }
        Ok(Some(request))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(line) = self.until(b"\r\n")? {
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
            if size == 0 {
                return Ok(body);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Everything up to and with `end`; `None` when the connection ended before.
    fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return Ok(Some(self.buffer.drain(..at + end.len()).collect()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < bytes {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        let read = self.wire.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read > 0)
    }
}

/// Locks even after a panic elsewhere: the failing test should be the one that speaks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
