//! How messages pass through: methods with a reach, expectations, interim responses, trailers,
//! fields of the connection, dates (RFC 9110 §6, §7, §9, §10; RFC 9112).

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::time::Duration;

use crate::client::HOST;
use crate::client::tcp;
use crate::origin::Reply;
use crate::scene::Scene;

/// Everything that comes back on a connection of its own, byte for byte.
fn raw(scene: &Scene, request: &str) -> String {
    let mut wire = tcp(scene.front());
    wire.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).to_ascii_lowercase()
}

/// A request that ends its connection.
fn last(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n")
}

#[test]
fn an_options_without_hops_left_is_answered_here() {
    let scene = Scene::usual();
    for target in ["/a", "*"] {
        scene
            .ask("OPTIONS", target, &[("Max-Forwards", "0")], b"")
            .is(204)
            .has("Allow", "GET, HEAD, OPTIONS")
            .detail("synthetic");
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn an_options_with_hops_left_goes_on_with_one_less() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1"));
    for (received, sent) in [("1", "0"), ("10", "9"), ("5000000000", "4294967295")] {
        let hops = [("Max-Forwards", received)];
        scene.ask("OPTIONS", "/a", &hops, b"").is(200).by("method");
        assert_eq!(scene.origin.last("/a").header("Max-Forwards"), Some(sent));
    }
    let hops = [("Max-Forwards", "0")];
    scene.get_with("/a", &hops).is(200).by("uri-miss");
    assert_eq!(scene.origin.last("/a").header("Max-Forwards"), Some("0"));
}

#[test]
fn an_options_whose_hops_cannot_be_counted_is_refused() {
    let scene = Scene::usual();
    for value in ["many", "-1", "1.5", ""] {
        let hops = [("Max-Forwards", value)];
        let answer = scene.ask("OPTIONS", "/a", &hops, b"");
        answer.is(400).detail("bad-max-forwards");
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn a_trace_is_refused_however_far_it_may_go() {
    let scene = Scene::usual();
    for hops in ["0", "1"] {
        let fields = [("Max-Forwards", hops), ("Cookie", "secret=1")];
        let answer = scene.ask("TRACE", "/a", &fields, b"");
        answer.is(405).has("Allow", "GET, HEAD, OPTIONS");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn an_options_for_the_server_reaches_it_as_one() {
    let scene = Scene::usual();
    scene
        .origin
        .says("*", Reply::status(204).header("Allow", "GET"));
    scene.ask("OPTIONS", "*", &[], b"").is(204).by("method");
    let absolute = format!("http://{HOST}");
    scene.ask("OPTIONS", &absolute, &[], b"").is(204);
    let seen = scene.origin.seen("*");
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("Host") == Some(HOST)));
    scene.get("*").is(400);
}

#[test]
fn a_fragment_reaches_neither_key_nor_origin() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a#one").is(200).stored();
    scene.get("/a#two").by("hit");
    scene.get("/a").by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn an_expectation_is_met_here_and_goes_no_further() {
    let scene = Scene::usual();
    scene.origin.says("/form", Reply::ok("thanks"));
    let mut wire = tcp(scene.front());
    let fields = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    wire.write_all(last("POST", "/form", fields).as_bytes())
        .unwrap();
    let mut interim = [0; 25];
    wire.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.write_all(b"hello").unwrap();
    let mut answer = String::new();
    wire.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = scene.origin.last("/form");
    assert_eq!(seen.header("Expect"), None);
    assert_eq!(seen.body, b"hello");
}

#[test]
fn nobody_is_asked_for_a_body_that_will_not_be_taken() {
    let scene = Scene::new().server("body_bytes_max", "\"1KiB\"").start();
    let fields = "Content-Length: 5000\r\nExpect: 100-continue\r\n";
    let said = raw(&scene, &last("POST", "/form", fields));
    assert!(said.starts_with("http/1.1 413 "), "{said}");
    let said = raw(&scene, &last("POST", "/form", "Expect: the-unexpected\r\n"));
    assert!(said.starts_with("http/1.1 417 "), "{said}");
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn an_expectation_with_a_get_changes_nothing_that_is_stored() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let said = raw(&scene, &last("GET", "/a", "Expect: 100-continue\r\n"));
    assert!(said.starts_with("http/1.1 200 "), "{said}");
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn interim_responses_go_no_further_and_are_counted() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::raw(
            "HTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </hint>; rel=preload\r\nSet-Cookie: hint=1\r\n\r\n\
             HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nv1",
        ),
    );
    let said = raw(&scene, &last("GET", "/a", ""));
    assert!(said.starts_with("http/1.1 200 "), "{said}");
    assert!(!said.contains("hint"), "{said}");
    let hit = scene.get("/a");
    hit.sees("v1").by("hit").lacks("Link").lacks("Set-Cookie");
    assert_eq!(scene.stat("interim_responses"), 2);
}

#[test]
fn interim_responses_without_end_are_cut() {
    let scene = Scene::new()
        .upstream("first_byte_timeout", "\"300ms\"")
        .start();
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </hint>\r\n\r\n";
    scene.origin.says("/storm", Reply::raw(hint.repeat(60_000)));
    scene
        .get("/storm")
        .is(502)
        .proxy_error("http_protocol_error");
    // One now and then does not make the time longer.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let backends = format!("[\"http://{}\"]", listener.local_addr().unwrap());
    let slow = Scene::new()
        .upstream("backends", &backends)
        .upstream("first_byte_timeout", "\"300ms\"")
        .start();
    let origin = std::thread::spawn(move || {
        let (mut wire, _) = listener.accept().unwrap();
        let heard = wire.read(&mut [0; 4096]).unwrap();
        assert!(heard > 0);
        while wire.write_all(hint.as_bytes()).is_ok() {
            std::thread::sleep(Duration::from_millis(20)); // waits because a slow origin is what the scene is about
        }
    });
    slow.get("/a").is(504).proxy_error("http_response_timeout");
    origin.join().unwrap();
}

#[test]
fn a_trailer_never_becomes_a_header() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::raw(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: Set-Cookie, Cache-Control, X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nv1\r\n0\r\nSet-Cookie: a=b\r\n\
             Cache-Control: no-store\r\nX-Sum: 7\r\nETag: \"late\"\r\n\r\n",
        ),
    );
    let says_no_trailer = |said: &str| {
        for word in ["trailer", "set-cookie", "no-store", "x-sum", "late"] {
            assert!(!said.contains(word), "{word} in {said}");
        }
    };
    let first = raw(&scene, &last("GET", "/a", "TE: trailers\r\n"));
    assert!(first.contains("stored"), "{first}");
    says_no_trailer(&first);
    let hit = raw(&scene, &last("GET", "/a", "TE: trailers\r\n"));
    assert!(hit.contains("larder; hit"), "{hit}");
    says_no_trailer(&hit);
}

#[test]
fn a_passed_response_comes_without_its_trailers() {
    let scene = Scene::usual();
    scene.origin.says(
        "/a",
        Reply::raw(
            "HTTP/1.1 200 OK\r\nCache-Control: private\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\nv1\r\n0\r\nX-Sum: 7\r\n\r\n",
        ),
    );
    let said = raw(&scene, &last("GET", "/a", "TE: trailers\r\n"));
    assert!(said.ends_with("2\r\nv1\r\n0\r\n\r\n"), "{said}");
    assert!(!said.contains("x-sum"), "{said}");
}

#[test]
fn a_requests_trailers_reach_no_origin() {
    let scene = Scene::usual();
    scene.origin.says("/form", Reply::ok("thanks").fresh());
    let fields = [
        ("Transfer-Encoding", "chunked"),
        ("Trailer", "Authorization, X-Sum"),
        ("TE", "trailers"),
    ];
    let body = b"5\r\nhello\r\n0\r\nAuthorization: Basic YTpi\r\nX-Sum: 7\r\n\r\n";
    let mut client = scene.connect();
    client.ask("POST", "/form", &fields, body);
    client.answer("POST").is(200).sees("thanks");
    // The connection is good for more, so all of the first request was read.
    client.get("/form").answer("GET").is(200);
    let first = &scene.origin.seen("/form")[0];
    assert_eq!(first.body, b"hello");
    for name in ["Authorization", "X-Sum", "Trailer", "TE"] {
        assert_eq!(first.header(name), None, "{name}");
    }
}

#[test]
fn every_response_has_a_date_that_can_be_read() {
    let scene = Scene::usual();
    scene.origin.says("/none", Reply::ok("v1").cache("private"));
    scene.origin.says(
        "/bad",
        Reply::ok("v1").cache("private").header("Date", "yesterday"),
    );
    let early = "Sun, 06 Nov 1994 08:49:37 GMT";
    scene.origin.says(
        "/good",
        Reply::ok("v1").cache("private").header("Date", early),
    );
    for target in ["/none", "/bad"] {
        for method in ["GET", "POST"] {
            let answer = scene.ask(method, target, &[], b"");
            let dates = answer.is(200).all("date");
            assert_eq!(dates.len(), 1, "{answer}");
            assert!(dates[0].ends_with(" GMT"), "{answer}");
        }
    }
    let answer = scene.get("/good");
    assert_eq!(answer.all("date"), [early]);
}

#[test]
fn what_belongs_to_the_origins_connection_ends_here() {
    let scene = Scene::usual();
    let reply = |cache| {
        Reply::ok("v1")
            .cache(cache)
            .header("Connection", "close, X-Hop")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Upgrade", "h2c")
            .then_closes()
    };
    scene.origin.says("/stored", reply("max-age=60"));
    scene.origin.says("/passed", reply("private"));
    let mut client = scene.connect();
    for target in ["/stored", "/stored", "/passed", "/passed"] {
        let answer = client.get(target).answer("GET");
        answer.is(200).sees("v1");
        for name in [
            "X-Hop",
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Upgrade",
        ] {
            answer.lacks(name);
        }
    }
    assert_eq!(scene.origin.last("/passed").connection, 3);
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let mut client = scene.connect();
    let keep = format!("GET /a HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n");
    for _ in 0..2 {
        client.send(keep.as_bytes());
        client
            .answer("GET")
            .is(200)
            .sees("v1")
            .has("Connection", "keep-alive");
    }
    client.send(format!("GET /a HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes());
    client.answer("GET").is(200).sees("v1");
    assert!(client.is_closed());
    assert_eq!(scene.origin.last("/a").header("Via"), Some("1.0 larder"));
}

#[test]
fn an_origin_that_does_not_read_holds_its_client_back() {
    // Listens, and takes no byte of what comes.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let backends = format!("[\"http://{}\"]", listener.local_addr().unwrap());
    let scene = Scene::new()
        .upstream("backends", &backends)
        .upstream("first_byte_timeout", "\"1s\"")
        .start();
    let mut wire = tcp(scene.front());
    wire.set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let length = 512 << 20;
    let head = last("POST", "/form", &format!("Content-Length: {length}\r\n"));
    wire.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 16];
    let mut taken = 0;
    while taken < length {
        match wire.write(&piece) {
            Ok(bytes) => taken += bytes,
            Err(_) => break,
        }
    }
    // What the system holds for two connections, and no more: none of it piles up here.
    assert!(taken < 64 << 20, "{taken} bytes were taken");
    scene.await_stat("requests", |ended| ended == 1);
    drop(listener);
}

#[test]
fn cache_status_names_the_origins_status_where_it_is_another() {
    let scene = Scene::usual();
    let reply = || Reply::ok("0123456789").header("ETag", "\"x\"").fresh();
    scene.origin.does("*", move |_| reply());
    let known = [("If-None-Match", "\"x\"")];
    let answer = scene.get_with("/known", &known);
    answer.is(304).by("uri-miss").stored();
    assert_eq!(answer.cache_status("fwd-status").as_deref(), Some("200"));
    let answer = scene.get("/plain");
    answer.is(200).by("uri-miss");
    assert_eq!(answer.cache_status("fwd-status"), None);
    let answer = scene.get_with("/plain", &known);
    answer.is(304).by("hit");
    assert_eq!(answer.cache_status("fwd-status"), None);
}

#[test]
fn cache_status_names_the_url_where_the_config_asks_for_it() {
    let scene = Scene::new().server("cache_status_key", "true").start();
    scene.origin.says("/a?b=c", Reply::ok("v1").fresh());
    let url = format!("http://{HOST}/a?b=c");
    for how in ["uri-miss", "hit"] {
        let answer = scene.get("/a?b=c");
        let key = answer.by(how).cache_status("key");
        assert_eq!(key.as_deref(), Some(url.as_str()));
    }
    // It is what a purge takes.
    scene.purge(&["/a?b=c"]);
    scene.get("/a?b=c").by("uri-miss");
    let usual = Scene::usual();
    usual.origin.says("/a", Reply::ok("v1"));
    assert_eq!(usual.get("/a").cache_status("key"), None);
}
