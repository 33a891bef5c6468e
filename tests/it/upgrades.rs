//! Upgrades: WebSocket through both fronts, what is not let through, and where tunnels end.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::StreamOwned;
use tungstenite::Message;
use tungstenite::WebSocket;

use crate::client::Client;
use crate::client::HOST;
use crate::client::tcp;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::origin::DEADLINE;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// An origin that is told at each connection what to do.
struct Far(TcpListener);

impl Far {
    fn new() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"))
    }

    /// The usual scene with this origin and WebSocket let through.
    fn setup(&self) -> Setup {
        let address = self.0.local_addr().expect("an address");
        Scene::new()
            .upstream("backends", &format!("[\"http://{address}\"]"))
            .site("upgrades", "[\"websocket\"]")
    }

    /// The next connection.
    fn accept(&self) -> TcpStream {
        let (wire, _) = self.0.accept().expect("a connection");
        wire.set_nodelay(true).expect("no delay");
        wire.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        wire
    }

    /// The next connection and the head of its first request, in lower case.
    fn asked(&self) -> (TcpStream, String) {
        let mut wire = self.accept();
        let head = head(&mut wire);
        (wire, head.to_ascii_lowercase())
    }

    /// The next connection, switched.
    fn switched(&self) -> TcpStream {
        let (mut wire, _) = self.asked();
        wire.write_all(SWITCHING).expect("a 101");
        wire
    }

    /// Serves WebSocket echoes, a thread each, for ever.
    fn echoes(self) {
        thread::spawn(move || {
            while let Ok((wire, _)) = self.0.accept() {
                thread::spawn(move || {
                    let mut socket = tungstenite::accept(wire).expect("a WebSocket");
                    while let Ok(message) = socket.read() {
                        if message.is_text() || message.is_binary() {
                            socket.send(message).expect("an echo");
                        }
                    }
                });
            }
        });
    }
}

/// Reads up to the end of a head, and not a byte more.
fn head(wire: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).expect("a head");
        bytes.extend(byte);
    }
    String::from_utf8(bytes).expect("text")
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                           Connection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

const ASKING: &[u8] = b"GET /live?a HTTP/1.1\r\nHost: scene.test\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n\r\n";

/// A connection to the front that has been switched, by hand.
fn tunnel(scene: &Scene, far: &Far) -> (TcpStream, TcpStream) {
    let mut near = tcp(scene.front());
    near.write_all(ASKING).expect("a request");
    let far = far.switched();
    let said = head(&mut near);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    (near, far)
}

#[track_caller]
fn carries(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).expect("bytes sent");
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got).expect("bytes carried");
    assert_eq!(got, bytes);
}

/// Whether a connection has ended, in order or not.
fn ended(wire: &mut TcpStream) -> bool {
    match wire.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn speaks<S: Read + Write>(mut socket: WebSocket<S>) -> S {
    socket.send(Message::text("hello")).expect("a message");
    assert_eq!(socket.read().expect("an echo"), Message::text("hello"));
    let large = noise(1, 1 << 20);
    socket
        .send(Message::binary(large.clone()))
        .expect("a large message");
    assert_eq!(socket.read().expect("an echo"), Message::binary(large));
    socket.send(Message::Ping("?".into())).expect("a ping");
    assert_eq!(socket.read().expect("a pong"), Message::Pong("?".into()));
    socket.close(None).expect("a close");
    let closed = loop {
        if let Err(error) = socket.read() {
            break error;
        }
    };
    assert!(matches!(closed, tungstenite::Error::ConnectionClosed));
    socket.into_inner()
}

#[test]
fn a_websocket_passes_through_both_fronts_and_is_counted() {
    let far = Far::new();
    let setup = far
        .setup()
        .server("https", "[\"127.0.0.1:0\"]")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    Authority::new("Scene")
        .server(&[HOST])
        .write(setup.dir(), "c");
    let log = setup.dir().join("access.log");
    let scene = setup.set("log", "access", &format!("{log:?}")).start();
    far.echoes();
    let url = format!("ws://{HOST}/live");
    let (socket, answer) = tungstenite::client(&*url, tcp(scene.front())).expect("a WebSocket");
    let status = answer.headers()["cache-status"].to_str().expect("text");
    assert_eq!(status, "larder; fwd=bypass; detail=upgrade");
    assert_eq!(scene.stat("upgrades.open"), 1);
    speaks(socket);

    let mut session = Dial::offering(&["http/1.1"]).session(HOST);
    let mut wire = tcp(scene.tls_front());
    while session.is_handshaking() {
        session.complete_io(&mut wire).expect("a handshake");
    }
    let wire = StreamOwned::new(session, wire);
    let (socket, _) = tungstenite::client(&*url, wire).expect("a WebSocket");
    let mut wire = speaks(socket);
    wire.conn.send_close_notify();
    wire.flush().expect("an end in order");
    drop(wire);

    scene.await_stat("upgrades.open", |open| open == 0);
    assert_eq!(scene.stat("upgrades.opened"), 2);
    for way in ["from", "to"] {
        let bytes = scene.stat(&format!("upgrades.bytes_{way}_clients"));
        assert!((2 << 20..3 << 20).contains(&bytes), "{way}: {bytes}");
    }
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("the access log", || read().lines().count() == 2);
    for line in read().lines() {
        let (_, rest) = line.split_once("\"GET /live HTTP/1.1\" 101 ").expect(line);
        let bytes = rest.split(' ').next().expect("bytes");
        assert!(bytes.parse::<u64>().expect("bytes") > 1 << 20, "{line}");
    }
    assert_eq!(scene.stat("incomplete"), 0);
    assert_eq!(scene.stat("store.entries"), 0);
}

#[test]
fn the_origin_is_asked_for_one_protocol_and_told_who_asks() {
    let far = Far::new();
    let scene = far.setup().start();
    let mut near = tcp(scene.front());
    let asking = "GET /live?a HTTP/1.1\r\nHost: scene.test\r\nConnection: keep-alive, Upgrade, X-Hop\r\n\
                  Upgrade: h2c, WebSocket;q=1\r\nUpgrade: , WebSocket, other\r\nX-Hop: 1\r\n\
                  HTTP2-Settings: AAMAAABk\r\nSec-WebSocket-Key: a2V5\r\n\r\n";
    near.write_all(asking.as_bytes()).expect("a request");
    let (mut origin, asked) = far.asked();
    assert!(asked.starts_with("get /live?a http/1.1\r\n"), "{asked}");
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-key: a2v5",
        "x-forwarded-for: 127.0.0.1",
        "via: 1.1 larder",
    ] {
        assert!(
            asked.contains(&format!("\r\n{line}\r\n")),
            "{line}: {asked}"
        );
    }
    assert_eq!(asked.matches("upgrade:").count(), 1, "{asked}");
    for name in ["h2c", "other", "http2-settings", "x-hop"] {
        assert!(!asked.contains(name), "{name}: {asked}");
    }
    origin
        .write_all(&[SWITCHING, b"at once"].concat())
        .expect("a 101");
    let said = head(&mut near).to_ascii_lowercase();
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-protocol: chat",
    ] {
        assert!(said.contains(&format!("\r\n{line}\r\n")), "{line}: {said}");
    }
    for name in ["content-length", "transfer-encoding"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
    let mut first = [0; 7];
    near.read_exact(&mut first).expect("the first bytes");
    assert_eq!(&first, b"at once");
}

#[test]
fn a_site_that_says_nothing_lets_nothing_through() {
    let scene = Scene::usual();
    scene.origin.says("/live", Reply::ok("page").fresh());
    let asking = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "a2V5"),
    ];
    let mut client = scene.connect();
    for by in ["uri-miss", "hit"] {
        let answer = client.ask("GET", "/live", &asking, b"").answer("GET");
        answer.is(200).sees("page").by(by).lacks("Upgrade");
    }
    assert_eq!(scene.origin.last("/live").header("Upgrade"), None);
    let unsolicited = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\n\r\n";
    scene.origin.says("/101", Reply::raw(unsolicited));
    let answer = scene.get_with("/101", &asking);
    answer.is(502).proxy_error("http_protocol_error");
    assert_eq!(scene.stat("upgrades.opened"), 0);
}

#[test]
fn what_may_not_ask_for_an_upgrade_is_a_request_like_any_other() {
    let scene = Scene::new().site("upgrades", "[\"websocket\"]").start();
    scene.origin.does("*", |seen| {
        let asked = seen.header("Upgrade").is_some() || seen.header("Connection").is_some();
        Reply::ok(format!("{asked} {}", String::from_utf8_lossy(&seen.body)))
    });
    let cases: [(&str, &str, &str, &str, &str); 7] = [
        (
            "POST",
            "1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "abc",
        ),
        (
            "POST",
            "1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "",
            "",
        ),
        (
            "GET",
            "1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "abc",
        ),
        (
            "GET",
            "1.0",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            "",
            "",
        ),
        ("GET", "1.1", "Upgrade: websocket\r\n", "", ""),
        (
            "GET",
            "1.1",
            "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            "",
            "",
        ),
        (
            "GET",
            "1.1",
            "Connection: upgrade\r\nUpgrade: websocket/13, TLS/1.0\r\n",
            "",
            "",
        ),
    ];
    for (number, (method, version, fields, body, seen)) in cases.into_iter().enumerate() {
        let mut client = scene.connect();
        let framing = match body {
            "" => "",
            _ => "Transfer-Encoding: chunked\r\n",
        };
        let request = format!(
            "{method} /{number} HTTP/{version}\r\nHost: {HOST}\r\n{fields}{framing}\r\n{body}"
        );
        client.send(request.as_bytes());
        client.answer(method).is(200).sees(format!("false {seen}"));
    }
    assert_eq!(scene.stat("upgrades.opened"), 0);
}

#[test]
fn an_upgrade_that_is_not_granted_is_answered_not_stored_and_closes_the_connection() {
    let scene = Scene::new().site("upgrades", "[\"websocket\"]").start();
    scene.origin.says("/live?a", Reply::ok("page").fresh());
    scene.origin.says("/smuggled", Reply::ok("smuggled"));
    let behind = b"GET /smuggled HTTP/1.1\r\nHost: scene.test\r\n\r\n";
    for times in 1..=2 {
        let mut client = scene.connect();
        client.send(&[ASKING, behind].concat());
        let answer = client.answer("GET");
        answer.is(200).sees("page").by("bypass").detail("upgrade");
        answer.not_stored().has("Connection", "close");
        assert!(client.is_closed());
        scene.origin.saw("/live?a", times).saw("/smuggled", 0);
    }
    // Nor is what was stored before an answer to an upgrade.
    scene.get("/live?a").by("uri-miss").stored();
    let mut client = scene.connect();
    client.send(ASKING);
    client.answer("GET").is(200).by("bypass");
    scene.origin.saw("/live?a", 4);
    scene.origin.says("/live?a", Reply::status(426));
    let mut client = scene.connect();
    client.send(ASKING);
    client.answer("GET").is(426).has("Connection", "close");
    assert_eq!(scene.stat("upgrades.opened"), 0);
}

#[test]
fn a_101_that_grants_something_else_is_a_502() {
    let far = Far::new();
    let scene = far.setup().server("tries_max", "1").start();
    let answers = [
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
    ];
    for fields in answers {
        let mut client = scene.connect();
        client.send(ASKING);
        let (mut origin, _) = far.asked();
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        origin.write_all(answer.as_bytes()).expect("a 101");
        let answer = client.answer("GET");
        answer.is(502).proxy_error("http_protocol_error");
        assert!(client.is_closed());
        assert!(ended(&mut origin), "{fields}");
    }
    assert_eq!(scene.stat("upgrades.opened"), 0);
}

#[test]
fn what_a_client_sends_ahead_waits_for_the_101() {
    let far = Far::new();
    let scene = far.setup().start();
    let mut near = tcp(scene.front());
    let ahead = b"GET /smuggled HTTP/1.1\r\nHost: scene.test\r\n\r\n";
    near.write_all(&[ASKING, ahead].concat())
        .expect("a request");
    let (mut origin, _) = far.asked();
    let short = Duration::from_millis(100);
    origin.set_read_timeout(Some(short)).expect("a timeout");
    // That nothing comes can only be waited for.
    let early = origin.read(&mut [0]).expect_err("nothing yet");
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    origin.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    origin.write_all(SWITCHING).expect("a 101");
    let mut got = vec![0; ahead.len()];
    origin.read_exact(&mut got).expect("what was sent ahead");
    assert_eq!(got, ahead);
    head(&mut near);
    carries(&mut origin, &mut near, b"back");
    carries(&mut near, &mut origin, b"forth");
}

#[test]
fn either_side_may_end_and_still_listen() {
    let far = Far::new();
    let scene = far.setup().start();
    for client_first in [true, false] {
        let (mut near, mut origin) = tunnel(&scene, &far);
        let (first, second) = match client_first {
            true => (&mut near, &mut origin),
            false => (&mut origin, &mut near),
        };
        carries(first, second, b"last words");
        first.shutdown(Shutdown::Write).expect("an end");
        assert_eq!(second.read(&mut [0]).expect("an end"), 0);
        carries(second, first, b"and an answer");
        second.shutdown(Shutdown::Write).expect("an end");
        assert_eq!(first.read(&mut [0]).expect("an end"), 0);
        scene.await_stat("upgrades.open", |open| open == 0);
    }
    assert_eq!(scene.stat("incomplete"), 0);
}

#[test]
fn a_side_that_goes_away_takes_the_other_with_it() {
    let far = Far::new();
    let scene = far.setup().start();
    for client_first in [true, false] {
        let (mut near, mut origin) = tunnel(&scene, &far);
        carries(&mut near, &mut origin, b"hello");
        let (gone, mut left) = match client_first {
            true => (near, origin),
            false => (origin, near),
        };
        let socket = socket2::Socket::from(gone);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a reset at the end");
        drop(socket);
        assert!(ended(&mut left));
    }
    scene.await_stat("upgrades.open", |open| open == 0);
    scene.await_stat("incomplete", |cut| cut == 2);
}

#[test]
fn a_reader_that_does_not_read_holds_the_writer_back() {
    let far = Far::new();
    let scene = far.setup().start();
    let (mut near, origin) = tunnel(&scene, &far);
    origin.set_nonblocking(true).expect("a look");
    let (mut origin, sent) = (origin, noise(2, 64 << 20));
    let mut taken = 0;
    eventually("the writer to be held back", || {
        while let Ok(bytes) = origin.write(&sent[taken..]) {
            taken += bytes;
        }
        // The buffers of four sockets, and ours.
        scene.stat("upgrades.bytes_to_clients") > 0
    });
    assert!(taken < sent.len() / 2, "{taken} bytes are on their way");
    origin.set_nonblocking(false).expect("no look");
    let (left, whole) = (sent[taken..].to_vec(), sent);
    let writing = thread::spawn(move || {
        origin.write_all(&left).expect("the rest");
        origin
    });
    let mut got = vec![0; whole.len()];
    near.read_exact(&mut got).expect("all of it");
    assert!(got == whole);
    drop(writing.join());
}

#[test]
fn there_are_so_many_tunnels_and_no_more() {
    let far = Far::new();
    let scene = far.setup().server("upgrades_max", "1").start();
    let (near, origin) = tunnel(&scene, &far);
    let mut refused = scene.connect();
    refused.send(ASKING);
    let answer = refused.answer("GET");
    answer.is(503).proxy_error("connection_limit_reached");
    answer
        .detail("too-many-upgrades")
        .has("Connection", "close");
    assert_eq!(scene.stat("refused.too-many-upgrades"), 1);
    drop((near, origin));
    scene.await_stat("upgrades.open", |open| open == 0);
    tunnel(&scene, &far);
}

#[test]
fn a_tunnel_has_its_place_among_the_connections_to_its_backend() {
    let far = Far::new();
    let scene = far
        .setup()
        .upstream("connections_max", "1")
        .upstream("queue_max", "0")
        .start();
    let (near, origin) = tunnel(&scene, &far);
    scene.get("/a").is(503);
    drop((near, origin));
    scene.await_stat("upgrades.open", |open| open == 0);
    let mut client = scene.connect();
    client.get("/a");
    let (mut origin, _) = far.asked();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    origin.write_all(answer).expect("an answer");
    client.answer("GET").sees("ok");
}

#[test]
fn a_tunnel_that_carries_nothing_is_cut_and_one_that_does_is_not() {
    let far = Far::new();
    let scene = far
        .setup()
        .server("upgrade_idle_timeout", "\"400ms\"")
        .server("idle_timeout", "\"100ms\"")
        .server("header_timeout", "\"100ms\"")
        .start();
    let (mut idle, mut idle_origin) = tunnel(&scene, &far);
    let begun = Instant::now();
    let (mut near, mut origin) = tunnel(&scene, &far);
    // Bytes one way are enough.
    while begun.elapsed() < Duration::from_millis(1200) {
        thread::sleep(Duration::from_millis(50)); // paces what the origin says
        carries(&mut origin, &mut near, b".");
    }
    assert!(ended(&mut idle) && ended(&mut idle_origin));
    carries(&mut near, &mut origin, b"still here");
    assert_eq!(scene.stat("upgrades.open"), 1);
    assert!(ended(&mut near) && ended(&mut origin));
    scene.await_stat("incomplete", |cut| cut == 2);
}

#[test]
fn rules_of_the_site_come_first() {
    let far = Far::new();
    let setup = far
        .setup()
        .server("https", "[\"127.0.0.1:0\"]")
        .site("redirect_https", "true")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    Authority::new("Scene")
        .server(&[HOST])
        .write(setup.dir(), "c");
    let scene = setup.start();
    let mut client = scene.connect();
    client.send(ASKING);
    client.answer("GET").is(308);
    assert_eq!(scene.stat("upgrades.opened"), 0);
}

#[test]
fn an_origin_that_is_away_is_a_502_and_a_folder_has_no_upgrades() {
    let far = Far::new();
    let scene = far.setup().start();
    drop(far);
    let mut client = scene.connect();
    client.send(ASKING);
    client
        .answer("GET")
        .is(502)
        .proxy_error("connection_refused");
    let folder = Scene::new().site("upgrades", "[\"websocket\"]");
    fs::write(folder.dir().join("live"), "page").expect("a file");
    let backends = format!("[\"file:{}\"]", folder.dir().display());
    let scene = folder.upstream("backends", &backends).start();
    let mut client = scene.connect();
    client.send(ASKING);
    client.answer("GET").is(200).sees("page").not_stored();
}

#[test]
fn a_drain_lets_tunnels_end_by_themselves() {
    let far = Far::new();
    let mut scene = far.setup().start();
    let (mut near, mut origin) = tunnel(&scene, &far);
    let front = scene.front();
    scene.terminate();
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    carries(&mut near, &mut origin, b"hello");
    carries(&mut origin, &mut near, b"hello to you");
    drop(near);
    assert!(ended(&mut origin));
    drop(origin);
    assert!(scene.wait().success());
}

#[test]
fn a_drain_ends_tunnels_at_its_limit() {
    let far = Far::new();
    let mut scene = far.setup().server("drain_timeout", "\"300ms\"").start();
    let (mut near, mut origin) = tunnel(&scene, &far);
    scene.terminate();
    assert!(scene.wait().success());
    assert!(ended(&mut near) && ended(&mut origin));
}

#[test]
fn a_stop_cuts_tunnels_at_once() {
    let far = Far::new();
    let mut scene = far.setup().start();
    let (near, origin) = tunnel(&scene, &far);
    let front = scene.front();
    let (tell, told) = mpsc::channel();
    for mut wire in [near, origin] {
        let tell = tell.clone();
        thread::spawn(move || tell.send(ended(&mut wire)));
    }
    scene.terminate();
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    let asked = Instant::now();
    scene.terminate();
    assert!(told.recv_timeout(DEADLINE).expect("an end"));
    assert!(told.recv_timeout(DEADLINE).expect("an end"));
    scene.wait();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(8), "it took {took:?}");
}

#[test]
fn a_balancer_may_introduce_a_websocket() {
    let far = Far::new();
    let scene = far
        .setup()
        .server("proxy_protocol_from", "[\"127.0.0.0/8\"]")
        .start();
    let mut near = tcp(scene.front());
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n";
    near.write_all(&[line, ASKING].concat()).expect("a request");
    let (mut origin, asked) = far.asked();
    assert!(asked.contains("x-forwarded-for: 192.0.2.1\r\n"), "{asked}");
    origin.write_all(SWITCHING).expect("a 101");
    head(&mut near);
    carries(&mut near, &mut origin, b"hello");
    drop(Client::over(near));
}
