//! The PROXY protocol, versions 1 and 2: balancers that must introduce their connections, and
//! everyone else, who cannot.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;

use rustls::StreamOwned;

use crate::client::Client;
use crate::client::HOST;
use crate::client::tcp;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::frames::*;
use crate::origin::DEADLINE;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// Connections from this machine must be introduced.
fn behind_a_balancer() -> Setup {
    Scene::new().server("proxy_protocol_from", "[\"127.0.0.0/8\"]")
}

/// The same with TLS.
fn encrypted() -> Setup {
    let setup = behind_a_balancer()
        .server("https", "[\"127.0.0.1:0\"]")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    Authority::new("Scene")
        .server(&[HOST])
        .write(setup.dir(), "c");
    setup
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n";

/// A header of version 2.
fn block(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let head: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    [head, &[0x20 | command, family], &length, payload].concat()
}

/// From 192.0.2.1, over TCP.
fn inet(values: &[u8]) -> Vec<u8> {
    let ends = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0x01, 0xbb];
    block(1, 0x11, &[&ends, values].concat())
}

/// From 2001:db8::1, over TCP.
fn inet6() -> Vec<u8> {
    let mut ends = [0; 36];
    ends[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (ends[15], ends[31]) = (1, 2);
    block(1, 0x21, &ends)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes()
}

/// Every request is answered with the X-Forwarded-For that the origin got.
fn tells_the_client(scene: &Scene) {
    scene.origin.does("*", |seen| {
        Reply::ok(seen.header("X-Forwarded-For").unwrap_or_default())
    });
}

/// What a client that begins with `bytes` is taken for.
#[track_caller]
fn taken_for(scene: &Scene, bytes: &[u8]) -> String {
    let mut client = scene.connect();
    client.send(&[bytes, &get("/who")].concat());
    let answer = client.answer("GET");
    String::from_utf8(answer.is(200).body.clone()).expect("an address")
}

#[test]
fn the_address_in_either_version_is_the_clients() {
    let scene = behind_a_balancer().start();
    tells_the_client(&scene);
    assert_eq!(taken_for(&scene, LINE), "192.0.2.1");
    let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n";
    assert_eq!(taken_for(&scene, line), "2001:db8::1");
    assert_eq!(taken_for(&scene, &inet(b"")), "192.0.2.1");
    assert_eq!(taken_for(&scene, &inet6()), "2001:db8::1");
    // A dual-stack balancer shows IPv4 clients so.
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 5000 443\r\n";
    assert_eq!(taken_for(&scene, mapped), "192.0.2.1");
    assert_eq!(scene.stat("proxy_protocol.taken"), 5);
    assert_eq!(scene.stat("proxy_protocol.refused"), 0);
}

#[test]
fn a_balancer_that_speaks_for_itself_or_does_not_know_keeps_its_address() {
    let scene = behind_a_balancer().start();
    tells_the_client(&scene);
    let cases = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ::1 ::2 5000 443\r\n".to_vec(),
        block(0, 0x00, b""),
        block(0, 0x11, &[9; 12]),
        block(1, 0x00, &[9; 12]),
        block(1, 0x12, &[9; 12]),
        block(1, 0x31, &[9; 216]),
    ];
    for bytes in cases {
        let taken = taken_for(&scene, &bytes);
        assert_eq!(taken, "127.0.0.1", "{}", bytes.escape_ascii());
    }
}

#[test]
fn values_behind_the_addresses_are_passed_over_and_a_checksum_is_verified() {
    let scene = behind_a_balancer().start();
    tells_the_client(&scene);
    let authority = b"\x02\0\x0ascene.test\x04\0\x02\0\0";
    assert_eq!(taken_for(&scene, &inet(authority)), "192.0.2.1");
    let mut summed = inet(b"\x03\0\x04\0\0\0\0");
    let sum = crc32c::crc32c(&summed);
    let end = summed.len();
    summed[end - 4..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(taken_for(&scene, &summed), "192.0.2.1");
    summed[end - 1] ^= 1;
    let mut client = scene.connect();
    client.send(&[&summed[..], &get("/who")].concat());
    assert!(client.is_closed());
    assert_eq!(scene.stat("proxy_protocol.refusals.checksum"), 1);
}

#[test]
fn guards_logs_and_trusted_proxies_see_the_address_that_was_told() {
    let setup = behind_a_balancer()
        .server("trusted_proxies", "[\"192.0.2.0/24\"]")
        .site("purge_from", "[\"192.0.2.1\"]");
    let log = setup.dir().join("access.log");
    let scene = setup.set("log", "access", &format!("{log:?}")).start();
    tells_the_client(&scene);
    let ask = |from: &str, request: &str| {
        let mut client = scene.connect();
        let line = format!("PROXY TCP4 {from} 192.0.2.9 5000 80\r\n{request}");
        client.send(line.as_bytes());
        client.answer("GET")
    };
    let purge = "PURGE / HTTP/1.1\r\nHost: scene.test\r\n\r\n";
    ask("192.0.2.1", purge).is(200);
    ask("198.51.100.1", purge).is(405);
    let forwarded = "GET / HTTP/1.1\r\nHost: scene.test\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    ask("192.0.2.1", forwarded).is(200).sees("203.0.113.7");
    ask("198.51.100.1", forwarded).is(200).sees("198.51.100.1");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("the access log", || read().lines().count() >= 4);
    let clients: Vec<String> = read()
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    let expected = ["192.0.2.1", "198.51.100.1", "203.0.113.7", "198.51.100.1"];
    assert_eq!(clients, expected);
}

#[test]
fn what_is_no_header_ends_the_connection_without_an_answer() {
    let scene = encrypted().start();
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'a'; 200]].concat();
    let cases: [(&str, Vec<u8>); 6] = [
        ("missing", get("/")),
        ("missing", PREFACE.to_vec()),
        (
            "malformed",
            [b"PROXY TCP4 a b c d\r\n".to_vec(), get("/")].concat(),
        ),
        ("malformed", [block(2, 0x11, &[0; 12]), get("/")].concat()),
        ("too-large", long),
        ("too-large", block(1, 0x11, &[0; 5000])),
    ];
    for (number, (reason, bytes)) in cases.iter().enumerate() {
        let mut client = scene.connect();
        client.send(bytes);
        assert!(client.is_closed(), "{reason}: {}", bytes.escape_ascii());
        let refused = u64::try_from(number).expect("a number") + 1;
        scene.await_stat("proxy_protocol.refused", |count| count == refused);
    }
    // A handshake at once is none either.
    assert!(Dial::new().connect(scene.tls_front(), HOST).is_err());
    drop(scene.connect());
    scene.await_stat("proxy_protocol.refused", |count| count == 8);
    let refusals = &scene.stats()["proxy_protocol"]["refusals"];
    let expected = serde_json::json!({"closed": 1, "malformed": 2, "missing": 3, "too-large": 2});
    assert_eq!(*refusals, expected);
    assert_eq!(scene.stat("requests"), 0);
    assert_eq!(scene.stat("handshakes.failed"), 0);
}

#[test]
fn nobody_else_can_introduce_himself() {
    let scene = Scene::new()
        .server("proxy_protocol_from", "[\"127.0.0.2\", \"192.0.2.0/24\"]")
        .server("h2c", "true")
        .start();
    tells_the_client(&scene);
    // The client of every scene comes from 127.0.0.1.
    for header in [LINE.to_vec(), inet(b"")] {
        let mut client = scene.connect();
        client.send(&[header, get("/who")].concat());
        client.answer("GET").is(400);
    }
    assert_eq!(scene.get("/who").body, b"127.0.0.1");
    assert_eq!(scene.stat("malformed.400"), 2);
    let mut balancer = Client::over(from(Ipv4Addr::new(127, 0, 0, 2), scene.front()));
    balancer.send(&[LINE, &get("/who")].concat());
    balancer.answer("GET").sees("192.0.2.1");
    // What a header told is no reason to expect another one.
    balancer.get("/who").answer("GET").sees("192.0.2.1");
}

/// A connection from an address of this machine.
fn from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any_port = SocketAddr::from((address, 0));
    socket.bind(&any_port.into()).expect("an address");
    socket.connect(&to.into()).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket.into()
}

#[test]
fn a_header_may_come_byte_by_byte_and_what_follows_it_at_once() {
    let scene = behind_a_balancer().server("h2c", "true").start();
    tells_the_client(&scene);
    for header in [LINE.to_vec(), inet6()] {
        let mut client = scene.connect();
        for byte in [header, get("/who")].concat() {
            client.send(&[byte]);
        }
        client.answer("GET").is(200);
    }
    let mut client = scene.connect();
    client.send(&[LINE, &get("/who"), &get("/who"), &get("/who")].concat());
    for _ in 0..3 {
        client.answer("GET").sees("192.0.2.1");
    }
}

#[test]
fn a_header_may_be_followed_by_http2() {
    let scene = behind_a_balancer().server("h2c", "true").start();
    tells_the_client(&scene);
    let opening = [PREFACE, &settings(&[(1, 0)]), &frame(SETTINGS, ACK, 0, [])].concat();
    let request = super::frames::get(1, "/who");
    for header in [LINE.to_vec(), inet(b"")] {
        let mut peer = Peer::silent(scene.front());
        peer.send(&[&header, &opening[..], &request].concat());
        assert_eq!(peer.answer(1), Ok((200, b"192.0.2.1".to_vec())));
    }
}

#[test]
fn a_header_may_be_followed_by_a_handshake() {
    let scene = encrypted().start();
    tells_the_client(&scene);
    for header in [LINE.to_vec(), inet(b"")] {
        for by_bytes in [false, true] {
            let mut session = Dial::new().session(HOST);
            let mut first = header.clone();
            session.write_tls(&mut first).expect("a ClientHello");
            let mut wire = tcp(scene.tls_front());
            match by_bytes {
                true => first
                    .iter()
                    .for_each(|byte| wire.write_all(&[*byte]).expect("a byte")),
                false => wire.write_all(&first).expect("the first bytes"),
            }
            while session.is_handshaking() {
                session.complete_io(&mut wire).expect("a handshake");
            }
            let mut client = Client::over(StreamOwned::new(session, wire));
            client.get("/who").answer("GET").sees("192.0.2.1");
        }
    }
    assert_eq!(scene.stat("proxy_protocol.taken"), 4);
}

#[test]
fn a_header_has_its_time() {
    let scene = encrypted().server("header_timeout", "\"100ms\"").start();
    for front in [scene.front(), scene.tls_front()] {
        let mut wire = tcp(front);
        wire.write_all(&LINE[..LINE.len() - 1]).expect("most of it");
        assert_eq!(wire.read(&mut [0]).unwrap_or(0), 0);
    }
    scene.await_stat("proxy_protocol.refusals.timeout", |count| count == 2);
}

#[test]
fn a_stop_does_not_wait_for_a_header() {
    let mut scene = behind_a_balancer().start();
    let mut client = scene.connect();
    client.send(&LINE[..9]);
    scene.await_stat("connections.open", |open| open == 1);
    scene.terminate();
    assert!(scene.wait().success());
    assert!(client.is_closed());
}

#[test]
fn the_operator_needs_no_header() {
    let scene = behind_a_balancer().start();
    scene.operate("GET", "/healthz", "").is(200);
}
