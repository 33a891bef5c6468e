//! HTTP/2 at the front: the same answers as over HTTP/1.1, and streams that leave each other alone.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use http::Request;
use http::Version;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use crate::client::HOST;
use crate::frames::*;
use crate::origin::DEADLINE;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

fn setup() -> Setup {
    Scene::new().server("h2c", "true")
}

/// Runs a client to its end, within the deadline.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, work).await })
        .expect("an end before the deadline")
}

async fn over(wire: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(wire).await.expect("HTTP/2");
    tokio::spawn(async move {
        // How it ends is seen by the streams.
        drop(connection.await);
    });
    sender
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    over(
        tokio::net::TcpStream::connect(address)
            .await
            .expect("a connection"),
    )
    .await
}

/// What came of a request.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).expect(name).to_str().expect("text")
    }

    #[track_caller]
    fn by(&self, how: &str) -> &Self {
        let found = self.header("cache-status");
        assert!(found.contains(how), "{found}");
        self
    }
}

async fn ask(
    client: &SendRequest<Bytes>,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[&'static [u8]],
) -> Result<Answer, h2::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{HOST}{path}"))
        .version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut client = client.clone().ready().await?;
    let (answer, mut stream) = client.send_request(request.body(()).unwrap(), body.is_empty())?;
    for (number, piece) in body.iter().enumerate() {
        stream.send_data(Bytes::from_static(piece), number + 1 == body.len())?;
    }
    let (head, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend(piece);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

async fn get(client: &SendRequest<Bytes>, path: &str) -> Answer {
    ask(client, "GET", path, &[], &[]).await.expect("an answer")
}

#[test]
fn what_is_stored_over_one_version_is_a_hit_over_the_other() {
    let scene = setup().start();
    let body = noise(1, 3_000_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    scene.origin.says("/b", Reply::ok("v1").fresh());
    scene.get("/b").by("uri-miss");
    run(async {
        let client = connect(scene.front()).await;
        let miss = get(&client, "/a").await;
        assert_eq!((miss.status, &miss.body), (200, &body));
        miss.by("fwd=uri-miss");
        assert_eq!(miss.header("content-length"), "3000000");
        assert!(miss.headers.contains_key("date") && !miss.headers.contains_key("connection"));
        let hit = get(&client, "/a").await;
        assert_eq!(hit.body, body);
        hit.by("; hit");
        get(&client, "/b").await.by("; hit");
    });
    scene.get("/a").sees(&body).by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn the_origin_is_told_how_the_request_came() {
    let setup = setup().server("forwarded_field", "true");
    let scene = setup.start();
    scene.origin.says("/a?q", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    let cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")];
    peer.send(&frame(HEADERS, WHOLE, 1, request("GET", "/a?q", &cookies)));
    assert_eq!(peer.answer(1), Ok((200, b"v1".to_vec())));
    let seen = scene.origin.last("/a?q");
    assert_eq!(seen.header("via"), Some("2 larder"));
    assert_eq!(seen.header("host"), Some(HOST));
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    let forwarded = seen.header("forwarded").expect("Forwarded");
    assert!(
        forwarded.contains("proto=http") && forwarded.contains(HOST),
        "{forwarded}"
    );
    for gone in ["te", "transfer-encoding", "content-length", ":path"] {
        assert_eq!(seen.header(gone), None);
    }
}

#[test]
fn heads_conditions_and_ranges_are_answered_as_ever() {
    let scene = setup().start();
    scene
        .origin
        .says("/a", Reply::ok("0123456789").fresh().tagged("\"v1\""));
    run(async {
        let client = connect(scene.front()).await;
        assert_eq!(get(&client, "/a").await.body, b"0123456789");
        let head = ask(&client, "HEAD", "/a", &[], &[]).await.unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, "10"));
        assert!(head.body.is_empty());
        let known = [("if-none-match", "\"v1\"")];
        let same = ask(&client, "GET", "/a", &known, &[]).await.unwrap();
        assert_eq!((same.status, same.body.len()), (304, 0));
        let range = [("range", "bytes=2-4")];
        let part = ask(&client, "GET", "/a", &range, &[]).await.unwrap();
        assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    });
    scene.origin.saw("/a", 1);
}

#[test]
fn a_body_reaches_the_origin_with_and_without_its_length() {
    let scene = setup().start();
    scene.origin.says("/form", Reply::ok("thanks"));
    run(async {
        let client = connect(scene.front()).await;
        let answer = ask(&client, "POST", "/form", &[], &[b"one", b"two"])
            .await
            .unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"thanks"[..]));
        let seen = scene.origin.last("/form");
        assert_eq!(
            (&seen.body[..], seen.header("content-length")),
            (&b"onetwo"[..], None)
        );
        let sized = [("content-length", "6")];
        ask(&client, "POST", "/form", &sized, &[b"one", b"two"])
            .await
            .unwrap();
        let seen = scene.origin.last("/form");
        assert_eq!(
            (&seen.body[..], seen.header("content-length")),
            (&b"onetwo"[..], Some("6"))
        );
    });
}

#[test]
fn a_body_with_trailers_and_padding_goes_on_without_them() {
    let scene = setup().start();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut peer = Peer::connect(scene.front());
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        request("POST", "/form", &[]),
    ));
    peer.send(&frame(
        DATA,
        PADDED,
        1,
        [&[2][..], b"body", &[0, 0]].concat(),
    ));
    peer.send(&frame(HEADERS, WHOLE, 1, block(&[("x-sum", "1")])));
    assert_eq!(peer.answer(1), Ok((200, b"thanks".to_vec())));
    let seen = scene.origin.last("/form");
    assert_eq!((&seen.body[..], seen.header("x-sum")), (&b"body"[..], None));
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let scene = setup().start();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut peer = Peer::connect(scene.front());
    let waits = [("expect", "100-continue")];
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        request("POST", "/form", &waits),
    ));
    let interim = peer.find(|frame| frame.kind == HEADERS).unwrap();
    assert_eq!(
        (status(&interim.payload), interim.flags & END_STREAM),
        (100, 0)
    );
    peer.send(&frame(DATA, END_STREAM, 1, b"body"));
    assert_eq!(peer.answer(1), Ok((200, b"thanks".to_vec())));
    assert_eq!(scene.origin.last("/form").body, b"body");
}

#[test]
fn a_body_too_large_is_refused_and_the_rest_of_it_not_waited_for() {
    let scene = setup().server("body_bytes_max", "\"1000B\"").start();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut peer = Peer::connect(scene.front());
    let large = [("content-length", "1001")];
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        request("POST", "/form", &large),
    ));
    assert_eq!(peer.answer(1).unwrap().0, 413);
    // It may stop sending (RFC 9113 §8.1).
    let reset = peer.find(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.number()), (1, NO_ERROR));
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        3,
        request("POST", "/form", &[]),
    ));
    peer.send(&frame(DATA, END_STREAM, 3, [0; 1001]));
    assert_eq!(peer.answer(3).unwrap().0, 413);
    assert!(peer.is_alive());
}

#[test]
fn a_body_that_stops_coming_costs_its_stream_only() {
    let scene = setup().server("body_read_timeout", "\"200ms\"").start();
    scene.origin.says("/form", Reply::ok("thanks"));
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        request("POST", "/form", &[]),
    ));
    peer.send(&frame(DATA, 0, 1, b"half"));
    assert_eq!(peer.answer(1).unwrap().0, 408);
    assert_eq!(peer.get(3, "/a"), Ok((200, b"v1".to_vec())));
    assert_eq!(scene.stat("timeouts.request"), 1);
}

#[test]
fn a_response_that_breaks_off_resets_its_stream_only() {
    let scene = setup().start();
    scene
        .origin
        .says("/cut", Reply::ok("0123456789").cut_after(4));
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    const INTERNAL_ERROR: u32 = 2;
    assert_eq!(peer.get(1, "/cut"), Err(INTERNAL_ERROR));
    assert_eq!(peer.get(3, "/a"), Ok((200, b"v1".to_vec())));
}

#[test]
fn a_request_taken_back_is_counted_as_a_client_that_left() {
    let scene = setup().start();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut peer = Peer::connect(scene.front());
    peer.send(&get_frame(1, "/a"));
    assert_eq!(
        peer.find(|frame| frame.kind == DATA).unwrap().payload,
        b"first"
    );
    peer.send(&reset(1, CANCEL));
    scene.await_stat("incomplete", |count| count == 1);
    gate.open();
    // The fill went on without it.
    eventually("the response to be stored", || {
        scene.stat("store.entries") > 0 || scene.stat("entries") > 0
    });
    assert_eq!(peer.get(3, "/a"), Ok((200, b"firstsecond".to_vec())));
    scene.origin.saw("/a", 1);
}

fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    crate::frames::get(stream, path)
}

#[test]
fn many_streams_are_answered_at_once() {
    let scene = setup().start();
    scene.origin.does("*", |seen| {
        Reply::ok(seen.target.clone().repeat(1000)).fresh()
    });
    run(async {
        let client = connect(scene.front()).await;
        let asking: Vec<_> = (0..100)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move { get(&client, &format!("/{n}")).await.body })
            })
            .collect();
        for (n, asked) in asking.into_iter().enumerate() {
            assert_eq!(
                asked.await.unwrap(),
                format!("/{n}").repeat(1000).as_bytes()
            );
        }
    });
}

#[test]
fn a_stream_that_is_not_read_is_reset_and_the_others_are_served() {
    let scene = setup().server("write_timeout", "\"300ms\"").start();
    let large = noise(2, 2_000_000);
    scene
        .origin
        .says("/large", Reply::ok(large.clone()).fresh());
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/large").sees(&large);
    let mut peer = Peer::connect(scene.front());
    // Stream 1 gets its first window and never another; the connection's is wide.
    peer.send(&window_update(0, 100_000_000));
    peer.send(&get_frame(1, "/large"));
    let mut got = 0;
    while got < 65_535 {
        got += peer.find(|frame| frame.kind == DATA).unwrap().payload.len();
    }
    assert_eq!(peer.get(3, "/a"), Ok((200, b"v1".to_vec())));
    assert_eq!(peer.get(5, "/large"), Ok((200, large)));
    assert_eq!(peer.answer(1), Err(CANCEL));
    assert_eq!(peer.get(7, "/a"), Ok((200, b"v1".to_vec())));
    assert_eq!(scene.stat("timeouts.write"), 1);
}

#[test]
fn a_stream_without_a_window_takes_none_of_the_connections() {
    let scene = setup().start();
    let body = noise(3, 200_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    let gate = Gate::new();
    scene.origin.says("/slow", Reply::ok("slow").held(&gate));
    scene.get("/a").sees(&body);
    let mut peer = Peer::with(scene.front(), &[(4, 0)]);
    // Fifty that cannot be sent, and some that wait for the origin.
    for n in 0..50 {
        peer.send(&get_frame(1 + 2 * n, "/a"));
    }
    for n in 50..60 {
        peer.send(&get_frame(1 + 2 * n, "/slow"));
    }
    peer.send(&get_frame(201, "/a"));
    peer.send(&window_update(201, 1_000_000));
    assert_eq!(peer.answer(201), Ok((200, body)));
    gate.open();
}

#[test]
fn an_upload_that_nobody_reads_holds_back_only_itself() {
    let setup = setup().server("http2_stream_window", "\"64KiB\"");
    let scene = setup.start();
    scene.origin.says("/form", Reply::ok("thanks"));
    let gate = Gate::new();
    let held = gate.clone();
    scene
        .origin
        .does("/held", move |_| Reply::ok("late").held(&held));
    let mut peer = Peer::connect(scene.front());
    // The gate holds the answer back and not the reading, so this stream ends when it opens.
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        1,
        request("POST", "/held", &[]),
    ));
    peer.send(&frame(DATA, END_STREAM, 1, b"x"));
    peer.send(&frame(
        HEADERS,
        END_HEADERS,
        3,
        request("POST", "/form", &[]),
    ));
    for _ in 0..4 {
        peer.send(&frame(DATA, 0, 3, vec![7; 16_000]));
    }
    peer.send(&frame(DATA, END_STREAM, 3, b""));
    assert_eq!(peer.answer(3), Ok((200, b"thanks".to_vec())));
    assert_eq!(scene.origin.last("/form").body.len(), 64_000);
    gate.open();
    assert_eq!(peer.answer(1), Ok((200, b"late".to_vec())));
}

#[test]
fn an_idle_connection_is_told_and_closed() {
    let scene = setup().server("idle_timeout", "\"200ms\"").start();
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    assert_eq!(peer.get(1, "/a"), Ok((200, b"v1".to_vec())));
    let goaway = peer.find(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(goaway.goaway(), NO_ERROR);
    // It does not answer the PING that comes with it, and is not waited for.
    peer.farewell();
}

#[test]
fn a_connection_with_an_open_stream_is_not_idle() {
    let scene = setup().server("idle_timeout", "\"100ms\"").start();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").held(&gate));
    let mut peer = Peer::connect(scene.front());
    peer.send(&get_frame(1, "/a"));
    scene.origin.await_requests("/a", 1);
    std::thread::sleep(Duration::from_millis(400)); // waits because the time must pass
    gate.open();
    assert_eq!(peer.answer(1), Ok((200, b"v1".to_vec())));
}

#[test]
fn a_field_block_that_never_ends_is_given_up() {
    let scene = setup().server("header_timeout", "\"200ms\"").start();
    let mut peer = Peer::connect(scene.front());
    peer.send(&frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])));
    assert_eq!(peer.farewell(), Some(NO_ERROR));
    let mut peer = Peer::connect(scene.front());
    peer.send(&get_frame(1, "/a")[..20]);
    assert_eq!(peer.farewell(), Some(NO_ERROR));
    assert_eq!(scene.stat("timeouts.request"), 2);
    scene.origin.saw("/a", 0);
}

#[test]
fn a_client_that_never_begins_is_closed() {
    let scene = setup().server("header_timeout", "\"200ms\"").start();
    for beginning in [&b""[..], b"PRI * HTTP/2.0\r\n", PREFACE] {
        let mut peer = Peer::silent(scene.front());
        peer.send(beginning);
        peer.send(&[]);
        if beginning.len() < PREFACE.len() {
            assert_eq!(peer.farewell(), None);
        }
    }
}

#[test]
fn sigterm_says_goaway_and_lets_streams_finish() {
    let mut scene = setup().start();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").held_after(5, &gate));
    let mut peer = Peer::connect(scene.front());
    peer.send(&get_frame(1, "/a"));
    assert_eq!(
        peer.find(|frame| frame.kind == DATA).unwrap().payload,
        b"first"
    );
    let front = scene.front();
    scene.terminate();
    let goaway = peer.find(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(goaway.goaway(), NO_ERROR);
    eventually("the listener to close", || {
        TcpStream::connect(front).is_err()
    });
    // The PING after it tells that nothing is under way towards us any more.
    let ping = peer.find(|frame| frame.kind == PING).unwrap();
    peer.send(&frame(PING, ACK, 0, ping.payload));
    gate.open();
    assert_eq!(peer.answer(1).unwrap().1, b"second");
    peer.farewell();
    assert!(scene.wait().success());
}

#[test]
fn an_idle_connection_that_answers_nothing_does_not_hold_up_the_end() {
    let mut scene = setup().start();
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    assert_eq!(peer.get(1, "/a"), Ok((200, b"v1".to_vec())));
    let begun = Peer::silent(scene.front());
    let asked = std::time::Instant::now();
    scene.terminate();
    assert!(scene.wait().success());
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    drop((peer, begun));
}

#[test]
fn where_it_is_not_switched_on_it_is_refused_with_505() {
    let scene = Scene::usual();
    let mut client = scene.connect();
    client.send(PREFACE);
    client.begin("GET").finish().is(505);
}

#[test]
fn both_versions_share_a_port() {
    let scene = setup().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").sees("v1");
    assert_eq!(
        Peer::connect(scene.front()).get(1, "/a"),
        Ok((200, b"v1".to_vec()))
    );
    // A method that begins as the preface does, and a head that comes byte by byte.
    for head in [
        "PROPFIND /a HTTP/1.1\r\n",
        "PRI /a HTTP/1.1\r\n",
        "PUT /a HTTP/1.1\r\n",
    ] {
        let mut client = scene.connect();
        for byte in head.bytes() {
            client.send(&[byte]);
        }
        client.send(format!("Host: {HOST}\r\n\r\n").as_bytes());
        client.begin("GET").finish().is(200);
    }
}

#[test]
fn the_access_log_tells_the_version_and_the_path() {
    let setup = setup().set("log", "format", "\"json\"");
    let path = setup.dir().join("access.log");
    let scene = setup.set("log", "access", &format!("{path:?}")).start();
    scene.origin.says("/a?q", Reply::ok("v1"));
    assert_eq!(
        Peer::connect(scene.front()).get(1, "/a?q"),
        Ok((200, b"v1".to_vec()))
    );
    eventually("a line", || {
        fs::read_to_string(&path).is_ok_and(|log| log.ends_with('\n'))
    });
    let line: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["version"], "HTTP/2.0");
    assert_eq!(line["target"], "/a?q");
    assert_eq!(line["host"], HOST);
    assert_eq!(line["complete"], true);
}

#[test]
fn over_tls_the_client_chooses_by_alpn() {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let setup = Scene::new().server("https", "[\"127.0.0.1:0\"]");
    let (cert, key) = (setup.dir().join("cert.pem"), setup.dir().join("key.pem"));
    fs::write(&cert, made.cert.pem()).expect("a certificate file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a key file");
    let table = format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n");
    let scene = setup.more(&table).start();
    let body = noise(4, 1_500_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    let wire = |protocols: &[&[u8]]| {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(HOST).expect("a name");
        let address = scene.tls_front();
        async move {
            let tcp = tokio::net::TcpStream::connect(address)
                .await
                .expect("a connection");
            let wire = TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await;
            let wire = wire.expect("a handshake");
            let chosen = wire.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            (wire, chosen)
        }
    };
    run(async {
        let (wire, chosen) = wire(&[b"http/1.1", b"h2"]).await;
        assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
        let client = over(wire).await;
        assert_eq!(get(&client, "/a").await.body, body);
        let hit = get(&client, "/a").await;
        assert_eq!(hit.by("; hit").body, body);
    });
    run(async {
        let (_wire, chosen) = wire(&[b"http/1.1"]).await;
        assert_eq!(chosen.as_deref(), Some(&b"http/1.1"[..]));
    });
    // What is not negotiated is not spoken: without ALPN it is HTTP/1.1.
    run(async {
        let (mut wire, chosen) = wire(&[]).await;
        assert_eq!(chosen, None);
        let mut said = Vec::new();
        wire.write_all(PREFACE).await.expect("bytes sent");
        // Whether TLS was ended well does not matter here.
        drop(wire.read_to_end(&mut said).await);
        assert!(said.starts_with(b"HTTP/1.1 505"));
    });
}
