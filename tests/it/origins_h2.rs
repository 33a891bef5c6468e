//! Origins that speak HTTP/2: many requests on few connections, within everybody's limits, and what
//! is said to them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use bytes::Bytes;
use http::Request;
use http::Response;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::client::HOST;
use crate::dial::Authority;
use crate::origin::Origin;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// One request as the origin saw it.
#[derive(Clone)]
struct Asked {
    head: Arc<Request<()>>,
    body: Vec<u8>,
    connection: usize,
}

/// An origin on `h2`'s server.
struct Shared {
    url: String,
    stage: Arc<Stage>,
}

type Answering = dyn Fn(&Asked) -> Response<Bytes> + Send + Sync;

struct Stage {
    answering: Box<Answering>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    /// Requests that wait at the gate or are being answered, and the most there were.
    busy: AtomicUsize,
    busiest: AtomicUsize,
    resets: AtomicUsize,
    gate: watch::Sender<bool>,
    streams_max: u32,
}

impl Shared {
    /// Answers what `answering` says, with TLS if there is a config, and allows so many streams.
    fn with(
        tls: Option<ServerConfig>,
        streams_max: u32,
        answering: impl Fn(&Asked) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let stage = Arc::new(Stage {
            answering: Box::new(answering),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            gate: watch::Sender::new(true),
            streams_max,
        });
        let shared = Arc::clone(&stage);
        thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(accept(listener, tls, shared));
        });
        Self {
            url: format!("{scheme}://{address}"),
            stage,
        }
    }

    fn clear(answering: impl Fn(&Asked) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self::with(None, 100, answering)
    }

    fn setup(&self) -> Setup {
        Scene::new()
            .upstream("backends", &format!("[{:?}]", self.url))
            .upstream("protocol", "\"http2\"")
    }

    fn connections(&self) -> usize {
        self.stage.connections.load(Ordering::SeqCst)
    }

    fn busy(&self) -> usize {
        self.stage.busy.load(Ordering::SeqCst)
    }

    fn busiest(&self) -> usize {
        self.stage.busiest.load(Ordering::SeqCst)
    }

    fn asked(&self) -> Vec<Asked> {
        self.stage.asked.lock().unwrap().clone()
    }

    fn close_gate(&self) {
        self.stage.gate.send_replace(false);
    }

    fn open_gate(&self) {
        self.stage.gate.send_replace(true);
    }
}

async fn accept(listener: std::net::TcpListener, tls: Option<ServerConfig>, stage: Arc<Stage>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    while let Ok((wire, _)) = listener.accept().await {
        let number = stage.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (stage, tls) = (Arc::clone(&stage), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(wire, number, stage).await,
                Some(tls) => {
                    if let Ok(wire) = tls.accept(wire).await {
                        serve(wire, number, stage).await;
                    }
                }
            }
        });
    }
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin>(wire: T, number: usize, stage: Arc<Stage>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(stage.streams_max);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(wire).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, number, Arc::clone(&stage)));
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    connection: usize,
    stage: Arc<Stage>,
) {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(piece)) = incoming.data().await {
        drop(incoming.flow_control().release_capacity(piece.len()));
        body.extend(piece);
    }
    let asked = Asked {
        head: Arc::new(Request::from_parts(head, ())),
        body,
        connection,
    };
    stage.asked.lock().unwrap().push(asked.clone());
    let busy = stage.busy.fetch_add(1, Ordering::SeqCst) + 1;
    stage.busiest.fetch_max(busy, Ordering::SeqCst);
    drop(stage.gate.subscribe().wait_for(|open| *open).await);
    if !say((stage.answering)(&asked), &mut respond).await {
        stage.resets.fetch_add(1, Ordering::SeqCst);
    }
    stage.busy.fetch_sub(1, Ordering::SeqCst);
}

/// Says it all; answers whether it was taken.
async fn say(answer: Response<Bytes>, respond: &mut h2::server::SendResponse<Bytes>) -> bool {
    let (head, mut body) = answer.into_parts();
    let head = Response::from_parts(head, ());
    let Ok(mut stream) = respond.send_response(head, body.is_empty()) else {
        return false;
    };
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = match stream.capacity() {
            0 => std::future::poll_fn(|context| stream.poll_capacity(context)).await,
            room => Some(Ok(room)),
        };
        let Some(Ok(room)) = room else {
            return false;
        };
        let part = body.split_to(room.min(body.len()));
        if stream.send_data(part, body.is_empty()).is_err() {
            return false;
        }
    }
    true
}

/// 200, fresh for a minute.
fn fresh(body: impl Into<Bytes>) -> Response<Bytes> {
    let answer = Response::builder().header("cache-control", "max-age=60");
    answer.body(body.into()).unwrap()
}

/// What only its client gets.
fn private(body: impl Into<Bytes>) -> Response<Bytes> {
    let answer = Response::builder().header("cache-control", "no-store");
    answer.body(body.into()).unwrap()
}

/// The path as a body.
fn echo(asked: &Asked) -> Response<Bytes> {
    fresh(asked.head.uri().path().to_owned())
}

/// TLS with a certificate for the loopback that chooses among these, and its authority's PEM.
fn tls(protocols: &[&str]) -> (ServerConfig, String) {
    let authority = Authority::new("Origins");
    let issued = authority.server(&["127.0.0.1"]);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.der.clone()], issued.key())
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (config, authority.pem)
}

fn trusting(setup: Setup, pem: &str) -> Setup {
    std::fs::write(setup.dir().join("ca.pem"), pem).unwrap();
    setup.upstream("ca", "\"ca.pem\"")
}

#[test]
fn many_misses_at_once_share_one_connection() {
    let origin = Shared::clear(echo);
    origin.close_gate();
    let scene = origin.setup().start();
    let mut clients: Vec<_> = (0..60).map(|_| scene.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/{number}"));
    }
    eventually("all of them", || origin.busy() == 60);
    origin.open_gate();
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer("GET");
        answer.is(200).sees(format!("/{number}")).stored();
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.busiest(), 60);
    for number in 0..60 {
        scene.get(&format!("/{number}")).by("hit");
    }
    assert_eq!(origin.asked().len(), 60);
}

#[test]
fn a_backends_limit_on_streams_holds_from_the_first_request_on() {
    for (connections, expected) in [("1", 1), ("3", 3)] {
        let origin = Shared::with(None, 2, echo);
        origin.close_gate();
        let setup = origin.setup().upstream("connections_max", connections);
        let scene = setup.start();
        let mut clients: Vec<_> = (0..9).map(|_| scene.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.get(&format!("/{number}"));
        }
        eventually("as many as may be", || origin.busy() == 2 * expected);
        origin.open_gate();
        for (number, client) in clients.iter_mut().enumerate() {
            client.answer("GET").is(200).sees(format!("/{number}"));
        }
        assert_eq!(origin.connections(), expected);
        assert_eq!(origin.busiest(), 2 * expected);
    }
}

#[test]
fn our_own_limit_on_streams_holds_too() {
    let origin = Shared::clear(echo);
    origin.close_gate();
    let setup = origin.setup().upstream("streams_max", "3");
    let scene = setup.upstream("connections_max", "2").start();
    let mut clients: Vec<_> = (0..9).map(|_| scene.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/{number}"));
    }
    eventually("as many as may be", || origin.busy() == 6);
    origin.open_gate();
    for client in &mut clients {
        client.answer("GET").is(200);
    }
    assert_eq!((origin.connections(), origin.busiest()), (2, 6));
}

#[test]
fn over_tls_http_2_is_chosen_by_alpn() {
    let (config, pem) = tls(&["h2", "http/1.1"]);
    let origin = Shared::with(Some(config), 100, echo);
    let setup = trusting(origin.setup().without("upstream.main", "protocol"), &pem);
    let scene = setup.start();
    let fields = [("TE", "trailers"), ("Keep-Alive", "x"), ("X-Mine", "1")];
    let answer = scene.get_with("/a?b=c", &fields);
    answer.is(200).sees("/a").by("uri-miss").stored();
    scene.get("/a?b=c").by("hit").sees("/a");
    let asked = origin.asked().remove(0);
    let uri = asked.head.uri();
    assert_eq!(uri.scheme_str(), Some("https"));
    assert_eq!(uri.authority().unwrap(), HOST);
    assert_eq!(uri.path_and_query().unwrap(), "/a?b=c");
    let headers = asked.head.headers();
    assert_eq!(headers.get("x-mine").unwrap(), "1");
    assert!(headers.contains_key("via"));
    for name in [
        "host",
        "te",
        "keep-alive",
        "connection",
        "transfer-encoding",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn an_origin_without_http_2_is_spoken_to_in_http_1_1() {
    for protocols in [&["http/1.1"][..], &[]] {
        let (config, pem) = tls(protocols);
        let setup = trusting(Scene::new().with_origin(Origin::secured(config)), &pem);
        let scene = setup.start();
        let gate = crate::origin::Gate::new();
        for number in 0..5 {
            let reply = Reply::ok("v1").fresh().held(&gate);
            scene.origin.says(&format!("/{number}"), reply);
        }
        let mut clients: Vec<_> = (0..5).map(|_| scene.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.get(&format!("/{number}"));
        }
        // Nobody waits for somebody else's connection.
        for number in 0..5 {
            scene.origin.await_requests(&format!("/{number}"), 1);
        }
        gate.open();
        for client in &mut clients {
            client.answer("GET").is(200).sees("v1").stored();
        }
    }
}

#[test]
fn http_1_1_is_all_that_is_offered_where_that_is_wanted() {
    let (config, pem) = tls(&["h2", "http/1.1"]);
    let setup = trusting(Scene::new().with_origin(Origin::secured(config)), &pem);
    let scene = setup.upstream("protocol", "\"http1\"").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200).sees("v1").stored();
}

#[test]
fn an_origin_without_http_2_is_an_error_where_that_is_wanted() {
    for protocols in [&["http/1.1"][..], &[]] {
        let (config, pem) = tls(protocols);
        let setup = trusting(Scene::new().with_origin(Origin::secured(config)), &pem);
        let scene = setup.upstream("protocol", "\"http2\"").start();
        let answer = scene.get("/a");
        answer.is(502).not_stored();
        let error = answer.header("Proxy-Status").unwrap();
        assert!(error.contains("error=tls_"), "{error}");
        assert_eq!(scene.origin.requests(), 0);
    }
}

#[test]
fn bodies_of_requests_go_through_the_windows_whole() {
    let origin = Shared::clear(|asked| private(asked.body.clone()));
    let scene = origin.setup().start();
    let body = noise(7, 1_000_000);
    scene.ask("POST", "/a", &[], &body).is(200).sees(&body);
    let mut client = scene.connect();
    client.send(
        format!("PUT /b HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
    );
    client.send(b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n");
    client.answer("PUT").is(200).sees("hello");
    let asked = origin.asked();
    let length = |number: usize| asked[number].head.headers().get("content-length").cloned();
    assert_eq!(length(0).unwrap(), "1000000");
    assert_eq!(length(1), None);
    assert_eq!(asked[1].connection, 1);
}

#[test]
fn a_body_larger_than_every_window_is_stored_whole() {
    let body = noise(3, 5_000_000);
    let said = Bytes::from(body.clone());
    let origin = Shared::clear(move |_| fresh(said.clone()));
    let setup = origin.setup().upstream("stream_window_bytes", "\"64KiB\"");
    let scene = setup.start();
    scene.get("/a").is(200).whole().sees(&body);
    scene.get("/a").by("hit").sees(&body);
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn a_slow_reader_does_not_starve_the_others_on_its_connection() {
    let large = Bytes::from(noise(5, 20_000_000));
    let origin = Shared::clear(move |asked| match asked.head.uri().path() {
        "/large" => private(large.clone()),
        path => fresh(path.repeat(20_000)),
    });
    let setup = origin.setup().upstream("stream_window_bytes", "\"64KiB\"");
    let scene = setup.upstream("between_bytes_timeout", "\"60s\"").start();
    // These read nothing; their streams stand still when their windows are full.
    let mut slow: Vec<_> = (0..10).map(|_| scene.connect()).collect();
    for client in &mut slow {
        client.get("/large");
    }
    eventually("all of them", || origin.busy() == 10);
    for number in 0..10 {
        let path = format!("/{number}");
        scene.get(&path).is(200).sees(path.repeat(20_000)).stored();
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.busy(), 10);
}

#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let large = Bytes::from(noise(5, 20_000_000));
    let origin = Shared::clear(move |asked| match asked.head.uri().path() {
        "/large" => private(large.clone()),
        _ => echo(asked),
    });
    let scene = origin.setup().start();
    let mut leaving = scene.connect();
    leaving.get("/large");
    assert_eq!(leaving.begin("GET").up_to(10).len(), 10);
    drop(leaving);
    eventually("the reset", || {
        origin.stage.resets.load(Ordering::SeqCst) == 1
    });
    scene.get("/a").is(200).sees("/a");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_stale_response_is_validated() {
    let origin = Shared::clear(|asked| {
        let known = asked.head.headers().contains_key("if-none-match");
        let answer = Response::builder()
            .status(if known { 304 } else { 200 })
            .header("etag", "\"v1\"")
            .header("age", "60")
            .header("cache-control", "max-age=60");
        answer
            .body(Bytes::from(if known { "" } else { "v1" }))
            .unwrap()
    });
    let scene = origin.setup().start();
    scene.get("/a").is(200).sees("v1").by("uri-miss");
    scene.get("/a").is(200).sees("v1").by("stale");
    assert_eq!(origin.asked().len(), 2);
}

#[test]
fn a_head_is_answered_without_a_body() {
    let origin = Shared::clear(|_| {
        let answer = Response::builder().header("content-length", "5");
        answer.body(Bytes::new()).unwrap()
    });
    let scene = origin.setup().start();
    scene.head("/a").is(200).has("content-length", "5");
    assert_eq!(origin.asked().remove(0).head.method(), "HEAD");
}

#[test]
fn several_workers_may_share_a_connection() {
    let origin = Shared::clear(echo);
    let scene = origin.setup().server("workers", "2").start();
    for number in 0..20 {
        let path = format!("/{number}");
        scene.get(&path).is(200).sees(&path).stored();
    }
    assert!(origin.connections() <= 2);
}

#[test]
fn a_request_to_all_of_an_origin_keeps_its_target() {
    let origin = Shared::clear(|_| private("ok"));
    let scene = origin.setup().start();
    let mut client = scene.connect();
    client
        .send(format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\nMax-Forwards: 5\r\n\r\n").as_bytes());
    client.answer("OPTIONS").is(200).sees("ok");
    let asked = origin.asked().remove(0);
    assert_eq!(asked.head.uri().path(), "*");
}

#[test]
fn what_may_leave_http_goes_by_http_1_1() {
    let (config, pem) = tls(&["h2", "http/1.1"]);
    let setup = trusting(Scene::new().with_origin(Origin::secured(config)), &pem);
    let scene = setup.site("upgrades", "[\"websocket\"]").start();
    scene.origin.says("/a", Reply::ok("not switched"));
    let fields = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    scene.get_with("/a", &fields).is(200).sees("not switched");
    let asked = scene.origin.last("/a");
    assert_eq!(asked.header("Upgrade"), Some("websocket"));
}
