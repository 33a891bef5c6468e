//! WebSocket over HTTP/2 by CONNECT with `:protocol` (RFC 8441).

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;

use tungstenite::handshake::derive_accept_key;

use crate::client::HOST;
use crate::frames::*;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::upgrades::Far;
use crate::upgrades::ended;

fn setup(far: &Far) -> Setup {
    far.setup().server("h2c", "true")
}

/// A CONNECT that asks for `protocol`.
fn connect(stream: u32, protocol: &str, host: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", host),
        (":path", "/live?a"),
        ("sec-websocket-version", "13"),
        ("origin", "http://page.test"),
    ];
    frame(HEADERS, END_HEADERS, stream, block(&fields))
}

/// The origin's answer to a handshake, with the key that was asked with.
fn switching(asked: &str) -> String {
    let key = asked
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let accept = derive_accept_key(key.expect("a key").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// A peer with a tunnel on stream 1, and the origin's end of it.
fn tunnel(scene: &Scene, far: &Far) -> (Peer, TcpStream) {
    let mut peer = Peer::connect(scene.front());
    assert!(peer.is_alive());
    peer.send(&connect(1, "websocket", HOST));
    let (mut origin, asked) = far.asked_exactly();
    let answer = switching(&asked);
    origin.write_all(answer.as_bytes()).expect("a 101");
    assert_eq!(answered(&mut peer, 1), (200, false));
    (peer, origin)
}

/// The status of a stream's answer, and whether that was all.
#[track_caller]
fn answered(peer: &mut Peer, stream: u32) -> (u16, bool) {
    let head = peer.find(|frame| frame.kind == HEADERS && frame.stream == stream);
    let head = head.expect("an answer");
    (status(&head.payload), head.flags & END_STREAM != 0)
}

/// Reads `bytes` bytes of stream 1.
#[track_caller]
fn reads(peer: &mut Peer, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < bytes {
        let frame = peer.find(|frame| frame.kind == DATA && frame.stream == 1);
        let frame = frame.expect("more of it");
        let more = u32::try_from(frame.payload.len()).expect("a length");
        if more > 0 {
            peer.send(&[window_update(0, more), window_update(1, more)].concat());
        }
        got.extend(frame.payload);
    }
    got
}

#[track_caller]
fn hears(origin: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    origin.read_exact(&mut got).expect("bytes carried");
    assert_eq!(got, bytes);
}

#[test]
fn a_stream_carries_a_websocket_beside_other_requests() {
    let far = Far::new();
    let scene = setup(&far).start();
    let mut peer = Peer::silent(scene.front());
    peer.send(&[PREFACE, &settings(&[(1, 0)]), &frame(SETTINGS, ACK, 0, [])].concat());
    let ours = peer.find(|frame| frame.kind == SETTINGS).expect("settings");
    assert!(
        ours.payload
            .windows(6)
            .any(|pair| pair == [0, 8, 0, 0, 0, 1])
    );
    peer.send(&connect(1, "WebSocket", HOST));
    let (mut origin, asked) = far.asked_exactly();
    assert!(asked.starts_with("GET /live?a HTTP/1.1\r\n"), "{asked}");
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        "origin: http://page.test",
        "via: 2 larder",
    ] {
        assert!(
            asked.contains(&format!("\r\n{line}\r\n")),
            "{line}: {asked}"
        );
    }
    assert!(!asked.contains("protocol"), "{asked}");
    let answer = switching(&asked);
    origin.write_all(answer.as_bytes()).expect("a 101");
    assert_eq!(answered(&mut peer, 1), (200, false));
    assert_eq!(scene.stat("upgrades.open"), 1);

    peer.send(&frame(DATA, 0, 1, b"forth"));
    hears(&mut origin, b"forth");
    origin.write_all(b"back").expect("bytes sent");
    assert_eq!(reads(&mut peer, 4), b"back");
    peer.send(&get(3, "/page"));
    let (mut other, _) = far.asked_exactly();
    let page = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
    other.write_all(page).expect("an answer");
    assert_eq!(peer.answer(3), Ok((200, b"page".to_vec())));

    let large = noise(5, 1 << 20);
    let sent = large.clone();
    let sending = std::thread::spawn(move || {
        origin.write_all(&sent).expect("bytes sent");
        origin
    });
    assert!(reads(&mut peer, large.len()) == large);
    let mut origin = sending.join().expect("an origin");

    // Each side ends by itself.
    peer.send(&frame(DATA, END_STREAM, 1, b"!"));
    hears(&mut origin, b"!");
    assert_eq!(origin.read(&mut [0]).expect("an end"), 0);
    origin.write_all(b"last words").expect("bytes sent");
    assert_eq!(reads(&mut peer, 10), b"last words");
    origin.shutdown(Shutdown::Write).expect("an end");
    let end = peer.find(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
    assert_eq!(end.expect("an end").stream, 1);
    scene.await_stat("upgrades.open", |open| open == 0);
    assert_eq!(scene.stat("incomplete"), 0);
    assert!(peer.is_alive());
}

#[test]
fn a_server_of_websocket_takes_the_handshake_for_one() {
    let far = Far::new();
    let scene = setup(&far).start();
    far.echoes();
    let mut peer = Peer::connect(scene.front());
    assert!(peer.is_alive());
    peer.send(&connect(1, "websocket", HOST));
    assert_eq!(answered(&mut peer, 1), (200, false));
    // A text in one frame, masked with zeros (RFC 6455 §5.2).
    peer.send(&frame(DATA, 0, 1, b"\x81\x85\0\0\0\0hello"));
    assert_eq!(reads(&mut peer, 7), b"\x81\x05hello");
}

#[test]
fn a_stream_that_is_reset_ends_the_tunnel_and_a_tunnel_that_is_cut_the_stream() {
    let far = Far::new();
    let scene = setup(&far).start();
    let (mut peer, mut origin) = tunnel(&scene, &far);
    peer.send(&reset(1, CANCEL));
    assert!(ended(&mut origin));
    assert!(peer.is_alive());
    let (mut peer, origin) = tunnel(&scene, &far);
    let socket = socket2::Socket::from(origin);
    let at_once = Some(std::time::Duration::ZERO);
    socket.set_linger(at_once).expect("a reset at the end");
    drop(socket);
    let end = peer.find(|frame| frame.kind == RST_STREAM);
    assert_eq!(end.expect("a reset").number(), CANCEL);
    assert!(peer.is_alive());
    scene.await_stat("upgrades.open", |open| open == 0);
}

#[test]
fn what_the_origin_does_not_grant_is_no_tunnel() {
    let far = Far::new();
    let scene = setup(&far).start();
    let mut peer = Peer::connect(scene.front());
    assert!(peer.is_alive());
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: b3RoZXIga2V5\r\n\r\n",
            502,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            502,
        ),
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403),
    ];
    for (stream, (answer, expected)) in (1..).step_by(2).zip(answers) {
        peer.send(&connect(stream, "websocket", HOST));
        let (mut origin, _) = far.asked_exactly();
        origin.write_all(answer.as_bytes()).expect("an answer");
        let (status, _) = answered(&mut peer, stream);
        assert_eq!(status, expected, "{answer}");
    }
    assert_eq!(scene.stat("upgrades.opened"), 0);
    assert!(peer.is_alive());
}

#[test]
fn only_a_websocket_on_a_site_that_lets_it_through_is_connected() {
    let scene = Scene::new()
        .server("h2c", "true")
        .site("upgrades", "[\"websocket\", \"other\"]")
        .more("[[site]]\nhosts = [\"closed.test\"]\nupstream = \"main\"\n")
        .start();
    let mut peer = Peer::connect(scene.front());
    assert!(peer.is_alive());
    let cases = [
        ("websocket", "closed.test"),
        ("other", HOST),
        ("unknown", HOST),
        ("h2c", HOST),
    ];
    for (stream, (protocol, host)) in (1..).step_by(2).zip(cases) {
        peer.send(&connect(stream, protocol, host));
        let (status, _) = answered(&mut peer, stream);
        assert_eq!(status, 405, "{protocol} {host}");
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn where_no_site_lets_it_through_it_is_not_offered() {
    let scene = Scene::new().server("h2c", "true").start();
    let mut peer = Peer::silent(scene.front());
    peer.send(&[PREFACE, &settings(&[(1, 0)]), &frame(SETTINGS, ACK, 0, [])].concat());
    let ours = peer.find(|frame| frame.kind == SETTINGS).expect("settings");
    assert!(ours.payload.chunks(6).all(|setting| setting[..2] != [0, 8]));
    peer.send(&connect(1, "websocket", HOST));
    assert_eq!(peer.answer(1), Err(PROTOCOL_ERROR));
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn a_stream_whose_client_makes_no_room_is_cut_and_others_go_on() {
    let far = Far::new();
    let scene = setup(&far).server("write_timeout", "\"200ms\"").start();
    let (mut peer, mut origin) = tunnel(&scene, &far);
    let piece = noise(6, 1 << 20);
    while origin.write_all(&piece).is_ok() {}
    let end = peer.find(|frame| frame.kind == RST_STREAM);
    assert_eq!(end.expect("a reset").number(), CANCEL);
    scene.await_stat("timeouts.write", |late| late == 1);
    assert!(peer.is_alive());
}

#[test]
fn a_drain_lets_a_stream_end_by_itself_up_to_its_limit() {
    let far = Far::new();
    let mut scene = setup(&far).server("drain_timeout", "\"1s\"").start();
    let (mut peer, mut origin) = tunnel(&scene, &far);
    scene.terminate();
    assert!(peer.find(|frame| frame.kind == GOAWAY).is_some());
    peer.send(&frame(DATA, 0, 1, b"hello"));
    hears(&mut origin, b"hello");
    assert!(scene.wait().success());
    assert!(ended(&mut origin));
}
