//! Origins that speak HTTP/2 badly, frame by frame: what was not taken up is sent again, everything
//! else is told to the client as it is, and nothing of it is stored (RFC 9113 §5.4, §8.1.1, §8.7).

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::frames::CANCEL;
use crate::frames::CONTINUATION;
use crate::frames::DATA;
use crate::frames::END_HEADERS;
use crate::frames::END_STREAM;
use crate::frames::FLOW_CONTROL_ERROR;
use crate::frames::GOAWAY;
use crate::frames::HEADERS;
use crate::frames::NO_ERROR;
use crate::frames::PING;
use crate::frames::PUSH_PROMISE;
use crate::frames::Peer;
use crate::frames::REFUSED_STREAM;
use crate::frames::RST_STREAM;
use crate::frames::WHOLE;
use crate::frames::block;
use crate::frames::frame;
use crate::frames::reset;
use crate::frames::window_update;
use crate::origin::DEADLINE;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

/// An origin of frames.
struct Frames {
    url: String,
    connections: Arc<AtomicUsize>,
    /// What it has to tell the scene.
    notes: Arc<Mutex<Vec<String>>>,
}

type Notes = Arc<Mutex<Vec<String>>>;

impl Frames {
    /// Plays `play` on every connection, which are counted from one, with these settings.
    fn with(
        settings: &'static [(u16, u32)],
        play: impl Fn(usize, &mut Peer, &Notes) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let notes = Notes::default();
        let (counting, noting) = (Arc::clone(&connections), Arc::clone(&notes));
        let play = Arc::new(play);
        thread::spawn(move || {
            while let Ok((wire, _)) = listener.accept() {
                let number = counting.fetch_add(1, Ordering::SeqCst) + 1;
                let (play, notes) = (Arc::clone(&play), Arc::clone(&noting));
                wire.set_read_timeout(Some(DEADLINE)).unwrap();
                thread::spawn(move || {
                    if let Some(mut peer) = Peer::accepted(wire, settings) {
                        play(number, &mut peer, &notes);
                    }
                });
            }
        });
        Self {
            url,
            connections,
            notes,
        }
    }

    fn playing(play: impl Fn(usize, &mut Peer, &Notes) + Send + Sync + 'static) -> Self {
        Self::with(&[], play)
    }

    /// Answers every request with the same frames.
    fn saying(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::playing(move |_, peer, _| {
            while let Some(request) = peer.request() {
                peer.send(&answer(request.stream));
            }
        })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    fn setup(&self) -> Setup {
        Scene::new()
            .upstream("backends", &format!("[{:?}]", self.url))
            .upstream("protocol", "\"http2\"")
    }
}

/// A head of 200 that may be stored.
fn head(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&[(":status", "200"), ("cache-control", "max-age=60")], more].concat();
    frame(HEADERS, END_HEADERS, stream, block(&fields))
}

fn data(stream: u32, flags: u8, bytes: &str) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// A whole answer.
fn whole(stream: u32, body: &str) -> Vec<u8> {
    [head(stream, &[]), data(stream, END_STREAM, body)].concat()
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, payload)
}

/// The body of a request.
fn body(peer: &mut Peer, stream: u32) -> String {
    let mut body = Vec::new();
    while let Some(frame) = peer.attend(|frame| frame.kind == DATA && frame.stream == stream) {
        body.extend(&frame.payload);
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
    String::from_utf8(body).unwrap()
}

#[test]
fn a_request_that_was_refused_is_sent_again_whatever_it_is() {
    let origin = Frames::playing(|_, peer, notes| {
        for refused in [true, false] {
            let stream = peer.request().unwrap().stream;
            let body = body(peer, stream);
            notes.lock().unwrap().push(body);
            let answer = match refused {
                true => reset(stream, REFUSED_STREAM),
                false => whole(stream, "done"),
            };
            peer.send(&answer);
        }
        peer.request();
    });
    let scene = origin.setup().start();
    let answer = scene.ask("POST", "/a", &[], b"the body");
    answer.is(200).sees("done");
    assert_eq!(origin.notes(), ["the body", "the body"]);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_request_that_is_refused_twice_is_503() {
    let origin = Frames::saying(|stream| reset(stream, REFUSED_STREAM));
    let scene = origin.setup().start();
    let answer = scene.get("/a");
    answer
        .is(503)
        .proxy_error("destination_unavailable")
        .not_stored();
}

#[test]
fn a_body_that_is_too_long_to_be_kept_is_sent_once() {
    let origin = Frames::playing(|_, peer, notes| {
        while let Some(request) = peer.request() {
            let more = window_update(request.stream, 1 << 20);
            peer.send(&[more, window_update(0, 1 << 20)].concat());
            let body = body(peer, request.stream);
            notes.lock().unwrap().push(body.len().to_string());
            peer.send(&reset(request.stream, REFUSED_STREAM));
        }
    });
    let scene = origin.setup().start();
    let body = vec![b'x'; 200_000];
    scene.ask("POST", "/a", &[], &body).is(503);
    assert_eq!(origin.notes(), ["200000"]);
}

#[test]
fn a_request_above_the_last_stream_of_a_goaway_is_sent_again_elsewhere() {
    let origin = Frames::playing(|number, peer, _| {
        let stream = peer.request().unwrap().stream;
        match number {
            1 => drop(peer.send(&goaway(0, NO_ERROR))),
            _ => drop(peer.send(&whole(stream, "done"))),
        }
        peer.request();
    });
    let scene = origin.setup().start();
    scene.ask("POST", "/a", &[], b"").is(200).sees("done");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_request_below_the_last_stream_is_answered_and_the_next_goes_elsewhere() {
    let origin = Frames::playing(|number, peer, _| {
        let stream = peer.request().unwrap().stream;
        if number == 1 {
            peer.send(&goaway(stream, NO_ERROR));
        }
        peer.send(&whole(stream, &format!("from {number}")));
        peer.request();
    });
    let scene = origin.setup().start();
    scene.get("/a").is(200).sees("from 1").stored();
    scene.get("/b").is(200).sees("from 2").stored();
    assert_eq!(origin.connections(), 2);
    scene.get("/a").by("hit").sees("from 1");
}

/// What comes of an answer whose body breaks off: it is cut, and the next request asks again.
#[track_caller]
fn is_cut(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) {
    let asked = AtomicUsize::new(0);
    let origin = Frames::playing(move |_, peer, _| {
        while let Some(request) = peer.request() {
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => drop(peer.send(&answer(request.stream))),
                _ => drop(peer.send(&whole(request.stream, "whole"))),
            }
        }
    });
    let scene = origin.setup().start();
    scene.get("/a").is_cut();
    let answer = scene.get("/a");
    answer.is(200).sees("whole").by("uri-miss").stored();
}

#[test]
fn a_body_whose_stream_is_reset_is_never_whole() {
    for code in [NO_ERROR, CANCEL, REFUSED_STREAM, 2] {
        is_cut(move |stream| {
            let begun = [head(stream, &[]), data(stream, 0, "hell")].concat();
            [begun, reset(stream, code)].concat()
        });
    }
}

#[test]
fn a_body_of_another_length_than_declared_is_never_whole() {
    let declared = [("content-length", "5")];
    is_cut(move |stream| [head(stream, &declared), data(stream, END_STREAM, "hell")].concat());
    is_cut(move |stream| [head(stream, &declared), data(stream, END_STREAM, "hello!")].concat());
}

#[test]
fn what_follows_a_body_that_was_whole_by_its_length_leaves_nothing_stored() {
    let asked = AtomicUsize::new(0);
    let origin = Frames::playing(move |_, peer, _| {
        while let Some(request) = peer.request() {
            let stream = request.stream;
            let declared = [("content-length", "5")];
            let mut bytes = [head(stream, &declared), data(stream, 0, "hello")].concat();
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => bytes.extend(data(stream, END_STREAM, "!")),
                _ => bytes.extend(data(stream, END_STREAM, "")),
            }
            peer.send(&bytes);
        }
    });
    let scene = origin.setup().start();
    // All that was declared had gone on to the client before it was known.
    scene.get("/a").is(200);
    scene
        .get("/a")
        .is(200)
        .sees("hello")
        .by("uri-miss")
        .stored();
    scene.get("/a").is(200).sees("hello").by("hit");
}

#[test]
fn a_body_whose_length_came_without_its_end_is_whole_when_the_end_comes() {
    let origin = Frames::saying(|stream| {
        let begun = [
            head(stream, &[("content-length", "5")]),
            data(stream, 0, "hello"),
        ];
        [begun.concat(), data(stream, END_STREAM, "")].concat()
    });
    let scene = origin.setup().start();
    scene.get("/a").is(200).whole().sees("hello").stored();
    scene.get("/a").by("hit").sees("hello");
}

#[test]
fn a_connection_that_dies_in_the_middle_leaves_nothing() {
    let origin = Frames::playing(|number, peer, _| {
        let stream = peer.request().unwrap().stream;
        if number > 1 {
            peer.send(&whole(stream, "whole"));
            peer.request();
            return;
        }
        let declared = [("content-length", "5")];
        peer.send(&[head(stream, &declared), data(stream, 0, "hell")].concat());
    });
    let scene = origin.setup().start();
    scene.get("/a").is_cut();
    scene
        .get("/a")
        .is(200)
        .sees("whole")
        .by("uri-miss")
        .stored();
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_goaway_with_an_error_cuts_what_was_begun() {
    let origin = Frames::playing(|number, peer, _| {
        let stream = peer.request().unwrap().stream;
        if number > 1 {
            peer.send(&whole(stream, "whole"));
            peer.request();
            return;
        }
        peer.send(&[head(stream, &[]), data(stream, 0, "hell")].concat());
        peer.send(&goaway(stream, 2));
    });
    let scene = origin.setup().start();
    scene.get("/a").is_cut();
    scene.get("/a").is(200).sees("whole").stored();
}

#[test]
fn a_connection_that_dies_before_an_answer_is_502() {
    let origin = Frames::playing(|_, peer, _| drop(peer.request()));
    let scene = origin.setup().start();
    let answer = scene.get("/a");
    answer
        .is(502)
        .proxy_error("connection_terminated")
        .not_stored();
}

#[test]
fn a_connection_that_was_used_before_and_closes_is_tried_once_more_for_what_is_idempotent() {
    let origin = Frames::playing(|number, peer, _| {
        let stream = peer.request().unwrap().stream;
        peer.send(&whole(stream, &format!("from {number}")));
        peer.request();
    });
    let scene = origin.setup().start();
    scene.get("/a").sees("from 1");
    scene.get("/b").is(200).sees("from 2");
    scene.ask("POST", "/c", &[], b"").is(502);
}

/// What an answer is told as, that has no body to speak of.
#[track_caller]
fn is_refused(error: &str, answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) {
    let origin = Frames::saying(answer);
    let scene = origin.setup().start();
    scene.get("/a").is(502).proxy_error(error).not_stored();
}

fn malformed(fields: &'static [(&'static str, &'static str)]) {
    let answer = move |stream| frame(HEADERS, WHOLE, stream, block(fields));
    is_refused("http_protocol_error", answer);
}

#[test]
fn heads_that_are_malformed_are_refused() {
    malformed(&[("cache-control", "max-age=60")]);
    malformed(&[(":status", "200"), ("connection", "close")]);
    malformed(&[(":status", "200"), ("transfer-encoding", "chunked")]);
    malformed(&[(":status", "200"), ("Upper-Case", "x")]);
    malformed(&[
        (":status", "200"),
        ("content-length", "1"),
        ("content-length", "2"),
    ]);
    malformed(&[(":status", "200"), ("content-length", "-1")]);
    malformed(&[(":status", "200"), ("content-length", "7")]);
}

#[test]
fn an_upgrade_that_http_2_does_not_have_is_refused() {
    is_refused("http_protocol_error", |stream| {
        frame(HEADERS, END_HEADERS, stream, block(&[(":status", "101")]))
    });
}

#[test]
fn a_head_with_too_many_fields_is_refused() {
    is_refused("http_response_header_section_size", |stream| {
        let more = vec![("x", "y"); 1_000];
        let fields = [&[(":status", "200")], more.as_slice()].concat();
        frame(HEADERS, WHOLE, stream, block(&fields))
    });
}

#[test]
fn a_head_without_end_is_refused() {
    is_refused("http_protocol_error", |stream| {
        let piece = block(&[("x-more", &"y".repeat(10_000))]);
        let mut bytes = frame(HEADERS, END_STREAM, stream, block(&[(":status", "200")]));
        for _ in 0..100 {
            bytes.extend(frame(CONTINUATION, 0, stream, &piece));
        }
        bytes
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    is_refused("http_protocol_error", |stream| {
        let fields = block(&[(":status", "200"), ("x", &"y".repeat(15_000))]);
        let mut bytes = frame(HEADERS, END_STREAM, stream, fields);
        let piece = block(&[("x-more", &"y".repeat(15_000))]);
        for _ in 0..8 {
            bytes.extend(frame(CONTINUATION, 0, stream, &piece));
        }
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, &piece));
        bytes
    });
}

#[test]
fn frames_that_break_the_connection_are_told() {
    // A push although it was switched off, DATA before HEADERS, a frame that is too large, a window
    // that grows by nothing.
    is_refused("http_protocol_error", |stream| {
        let promised = [&2_u32.to_be_bytes()[..], &block(&[(":method", "GET")])].concat();
        frame(PUSH_PROMISE, END_HEADERS, stream, promised)
    });
    is_refused("http_protocol_error", |stream| data(stream, 0, "hello"));
    is_refused("http_protocol_error", |stream| {
        frame(DATA, 0, stream, vec![0; 20_000])
    });
    is_refused("http_protocol_error", |_| window_update(0, 0));
    is_refused("http_protocol_error", |_| frame(PING, 0, 0, b"short"));
}

#[test]
fn settings_that_cannot_be_are_told_before_a_request_is_at_stake() {
    for settings in [&[(2, 2)], &[(4, 1 << 31)], &[(5, 1)]] {
        let origin = Frames::with(settings, |_, peer, notes| {
            while peer.request().is_some() {
                notes.lock().unwrap().push(String::from("asked"));
            }
        });
        let scene = origin.setup().start();
        let answer = scene.ask("POST", "/a", &[], b"x");
        answer.is(502).proxy_error("http_protocol_error");
        assert_eq!(origin.notes(), Vec::<String>::new());
    }
}

#[test]
fn who_does_not_speak_http_2_is_found_out_and_told() {
    let scene = Scene::new().upstream("protocol", "\"http2\"").start();
    scene.origin.says("*", crate::origin::Reply::ok("v1"));
    let answer = scene.get("/a");
    answer
        .is(502)
        .proxy_error("http_protocol_error")
        .not_stored();
    let said = scene.stderr();
    assert!(said.contains("no HTTP/2"), "{said}");
}

#[test]
fn a_backend_that_does_not_greet_is_given_up_in_time() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let scene = Scene::new()
        .upstream("backends", &format!("[{url:?}]"))
        .upstream("protocol", "\"http2\"")
        .upstream("connect_timeout", "\"300ms\"")
        .start();
    let begun = Instant::now();
    let crowd = scene.crowd(10, "/a");
    for answer in crowd.answers() {
        answer.is(504).proxy_error("connection_timeout");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn more_than_the_window_is_an_error_of_the_connection_or_the_stream() {
    let origin = Frames::playing(|_, peer, notes| {
        let stream = peer.request().unwrap().stream;
        let mut bytes = head(stream, &[]);
        for _ in 0..1_000 {
            bytes.extend(frame(DATA, 0, stream, vec![b'x'; 16_000]));
        }
        peer.send(&bytes);
        while let Some(frame) = peer.next() {
            let code = match frame.kind {
                GOAWAY => frame.goaway(),
                RST_STREAM => frame.number(),
                _ => continue,
            };
            notes.lock().unwrap().push(code.to_string());
        }
    });
    let setup = origin.setup().upstream("stream_window_bytes", "\"64KiB\"");
    let scene = setup.start();
    scene.get("/a").is_cut();
    eventually("the error", || {
        origin.notes().contains(&FLOW_CONTROL_ERROR.to_string())
    });
}

#[test]
fn interim_responses_are_counted_and_go_no_further() {
    let origin = Frames::saying(|stream| {
        let early = [(":status", "103"), ("link", "</a.css>")];
        let early = frame(HEADERS, END_HEADERS, stream, block(&early));
        [early.clone(), early, whole(stream, "v1")].concat()
    });
    let scene = origin.setup().start();
    let answer = scene.get("/a");
    answer.is(200).sees("v1").lacks("link").stored();
    assert_eq!(scene.stat("interim_responses"), 2);
}

#[test]
fn interim_responses_without_end_are_cut() {
    is_refused("http_protocol_error", |stream| {
        let early = block(&[(":status", "103")]);
        frame(HEADERS, END_HEADERS, stream, early).repeat(2_000)
    });
}

#[test]
fn trailers_end_a_body_and_go_no_further() {
    let origin = Frames::saying(|stream| {
        let trailers = frame(HEADERS, WHOLE, stream, block(&[("x-sum", "1")]));
        [head(stream, &[]), data(stream, 0, "hello"), trailers].concat()
    });
    let scene = origin.setup().start();
    scene.get("/a").is(200).whole().sees("hello").lacks("x-sum");
    scene.get("/a").by("hit").sees("hello").lacks("x-sum");
}

#[test]
fn a_connection_that_falls_silent_is_asked_and_given_up() {
    let origin = Frames::playing(|number, peer, notes| {
        let stream = peer.request().unwrap().stream;
        if number > 1 {
            peer.send(&whole(stream, "v1"));
            peer.request();
            return;
        }
        // Not even a PING is answered.
        while let Some(frame) = peer.next() {
            if frame.kind == PING {
                notes.lock().unwrap().push(String::from("ping"));
            }
        }
    });
    let setup = origin.setup().upstream("ping_interval", "\"200ms\"");
    let scene = setup.upstream("ping_timeout", "\"200ms\"").start();
    let begun = Instant::now();
    let answer = scene.get("/a");
    answer.is(502).proxy_error("connection_terminated");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(origin.notes(), ["ping"]);
    scene.get("/b").is(200).sees("v1");
}

#[test]
fn a_connection_that_answers_pings_may_be_slow() {
    let origin = Frames::playing(|_, peer, _| {
        let stream = peer.request().unwrap().stream;
        for _ in 0..3 {
            let ping = peer.attend(|frame| frame.kind == PING).unwrap();
            peer.send(&frame(PING, 1, 0, ping.payload));
        }
        peer.send(&whole(stream, "v1"));
        peer.request();
    });
    let setup = origin.setup().upstream("ping_interval", "\"100ms\"");
    let scene = setup.upstream("ping_timeout", "\"5s\"").start();
    scene.get("/a").is(200).sees("v1");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_idle_connection_is_closed_with_a_goodbye() {
    let origin = Frames::playing(|_, peer, notes| {
        let stream = peer.request().unwrap().stream;
        peer.send(&whole(stream, "v1"));
        let code = peer.farewell();
        notes.lock().unwrap().push(format!("{code:?}"));
    });
    let scene = origin.setup().upstream("idle_timeout", "\"200ms\"").start();
    scene.get("/a").is(200).sees("v1");
    eventually("the goodbye", || origin.notes() == ["Some(0)"]);
}

#[test]
fn an_answer_that_comes_before_the_request_has_is_whole() {
    let origin = Frames::playing(|_, peer, _| {
        let stream = peer.request().unwrap().stream;
        let refusal = [(":status", "413"), ("content-length", "5")];
        let refusal = frame(HEADERS, END_HEADERS, stream, block(&refusal));
        let stop = reset(stream, NO_ERROR);
        peer.send(&[refusal, data(stream, END_STREAM, "large"), stop].concat());
        let after = peer.request().unwrap().stream;
        peer.send(&whole(after, "v1"));
        peer.request();
    });
    let scene = origin.setup().start();
    let mut client = scene.connect();
    client.send(b"POST /a HTTP/1.1\r\nHost: scene.test\r\nContent-Length: 1000000\r\n\r\nbegun");
    client.answer("POST").is(413).whole().sees("large");
    scene.get("/b").is(200).sees("v1");
    assert_eq!(origin.connections(), 1);
}
