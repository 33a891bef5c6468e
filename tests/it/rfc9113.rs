//! What a client may not do by RFC 9113, section by section, and what it may although it is odd.
//!
//! Each case is a connection of its own: the preface, SETTINGS, then the case's bytes. What must come
//! of it is the connection's end with one of some codes, the end of a stream, an answer, or nothing.
//! RFC 9113 §5.4 lets an endpoint treat any stream error as a connection error.

#![expect(clippy::too_many_lines, reason = "a section is one table")]

use crate::client::HOST;
use crate::frames::*;
use crate::origin::Reply;
use crate::scene::Scene;

/// What must come of a case.
enum Then {
    /// GOAWAY with one of these codes, and the connection ends.
    Ends(&'static [u32]),
    /// Stream 1 is reset with one of these codes and the connection lives, or that ends with one.
    Fails(&'static [u32]),
    /// Stream 1 is answered with this status; the connection lives.
    Answers(u16),
    /// The connection lives, as if nothing had been sent.
    Nothing,
}

use Then::Answers;
use Then::Ends;
use Then::Fails;
use Then::Nothing;

/// A case: its section, what the client does, the bytes, and what must come of them.
type Case = (&'static str, &'static str, Vec<u8>, Then);

/// The usual error, and the only one.
const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
const SIZE: &[u32] = &[FRAME_SIZE_ERROR];
/// For cases that RFC 9113 names two codes for.
const SIZE_OR_PROTOCOL: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
/// `h2` has one code for all that HPACK cannot read, and for a window that is too wide from the start.
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
const WINDOW: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
const CLOSED_OR_PROTOCOL: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

/// A POST on stream 1 whose body is to come.
fn post() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, request("POST", "/a", &[]))
}

/// A whole request on stream 1 with these lines and nothing else.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, block(fields))
}

/// A whole GET on stream 1 with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, request("GET", "/a", &[(name, value)]))
}

fn check(cases: Vec<Case>) {
    let setup = Scene::new().server("h2c", "true");
    let scene = setup.server("http2_streams_max", "10").start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let wrong: Vec<String> = cases
        .into_iter()
        .filter_map(|(section, what, bytes, then)| {
            let found = try_one(&scene, &bytes, &then).err()?;
            Some(format!("§{section}: {what}: {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.get("/a").is(200);
}

fn try_one(scene: &Scene, bytes: &[u8], then: &Then) -> Result<(), String> {
    let mut peer = Peer::connect(scene.front());
    peer.send(bytes);
    let of_stream = |frame: &Frame| frame.stream == 1 && frame.kind != WINDOW_UPDATE;
    let event = match then {
        Nothing => None,
        Ends(_) => peer.find(|frame| frame.kind == GOAWAY && frame.goaway() != NO_ERROR),
        Fails(_) | Answers(_) => peer.find(|frame| {
            frame.kind == GOAWAY
                || (of_stream(frame) && [HEADERS, RST_STREAM].contains(&frame.kind))
        }),
    };
    let found = match &event {
        None => "nothing".to_owned(),
        Some(frame) if frame.kind == GOAWAY => format!("GOAWAY {}", frame.goaway()),
        Some(frame) if frame.kind == RST_STREAM => format!("RST_STREAM {}", frame.number()),
        Some(frame) => format!("status {}", status(&frame.payload)),
    };
    let ended = event.as_ref().filter(|frame| frame.kind == GOAWAY);
    let reset = event.as_ref().filter(|frame| frame.kind == RST_STREAM);
    let right = match then {
        Nothing => true,
        Ends(codes) => ended.is_some_and(|frame| codes.contains(&frame.goaway())),
        Fails(codes) => ended
            .map(Frame::goaway)
            .or(reset.map(Frame::number))
            .is_some_and(|code| codes.contains(&code)),
        Answers(code) => event
            .as_ref()
            .is_some_and(|frame| frame.kind == HEADERS && status(&frame.payload) == *code),
    };
    if !right {
        return Err(found);
    }
    if ended.is_some() {
        return match peer.farewell() {
            None => Ok(()),
            Some(code) => Err(format!("{found}, and a second one with {code}")),
        };
    }
    if !peer.is_alive() {
        return Err(format!("{found}, and the connection ends"));
    }
    match peer.get(101, "/a") {
        Ok((200, body)) if body == b"v1" => Ok(()),
        other => Err(format!("{found}, then {other:?}")),
    }
}

#[test]
fn section_4_frames_and_field_blocks() {
    check(vec![
        (
            "4.1",
            "a frame of an unknown type",
            frame(0x42, 0, 0, b"?"),
            Nothing,
        ),
        (
            "4.1",
            "a flag nobody knows",
            frame(PING, 0xf0, 0, [0; 8]),
            Nothing,
        ),
        (
            "4.1",
            "the reserved bit",
            frame(PING, 0, 0x8000_0000, [0; 8]),
            Nothing,
        ),
        (
            "4.2",
            "DATA larger than announced",
            [post(), frame(DATA, 0, 1, vec![0; 16_385])].concat(),
            Fails(SIZE),
        ),
        (
            "4.2",
            "HEADERS larger than announced",
            frame(HEADERS, WHOLE, 1, vec![0; 16_385]),
            Ends(SIZE),
        ),
        (
            "4.2",
            "SETTINGS larger than announced",
            frame(SETTINGS, 0, 0, vec![0; 16_386]),
            Ends(SIZE),
        ),
        (
            "4.3",
            "an index that is not in the table",
            frame(HEADERS, WHOLE, 1, [0xff, 0xff, 0x00]),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "index zero",
            frame(HEADERS, WHOLE, 1, [0x80]),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "a block that stops within a field",
            frame(HEADERS, WHOLE, 1, &request("GET", "/a", &[])[..20]),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "a table larger than allowed",
            frame(HEADERS, WHOLE, 1, [0x3f, 0xff, 0xff, 0x01]),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "an integer that never ends",
            frame(
                HEADERS,
                WHOLE,
                1,
                [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "a Huffman code that is not padded with ones",
            frame(HEADERS, WHOLE, 1, [0x00, 0x81, 0x00, 0x01, b'a']),
            Ends(COMPRESSION),
        ),
        (
            "4.3",
            "a PING within a field block",
            [
                frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])),
                frame(PING, 0, 0, [0; 8]),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "4.3",
            "CONTINUATION of another stream",
            [
                frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])),
                frame(CONTINUATION, END_HEADERS, 3, []),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "4.3",
            "HEADERS within a field block",
            [
                frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])),
                get(3, "/a"),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "4.3",
            "a field block in three frames",
            {
                let block = request("GET", "/a", &[]);
                [
                    frame(HEADERS, END_STREAM, 1, &block[..7]),
                    frame(CONTINUATION, 0, 1, &block[7..30]),
                    frame(CONTINUATION, END_HEADERS, 1, &block[30..]),
                ]
                .concat()
            },
            Answers(200),
        ),
    ]);
}

#[test]
fn section_5_streams() {
    check(vec![
        (
            "5.1",
            "DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"x"),
            Ends(CLOSED_OR_PROTOCOL),
        ),
        (
            "5.1",
            "RST_STREAM on an idle stream",
            reset(1, CANCEL),
            Ends(PROTOCOL),
        ),
        (
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            window_update(1, 1),
            Ends(PROTOCOL),
        ),
        (
            "5.1",
            "PRIORITY on an idle stream",
            frame(PRIORITY, 0, 3, [0, 0, 0, 0, 1]),
            Nothing,
        ),
        (
            "5.1",
            "DATA after the end of a stream",
            [get(1, "/held"), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Fails(CLOSED_OR_PROTOCOL),
        ),
        (
            "5.1",
            "HEADERS after the end of a stream",
            [get(1, "/held"), get(1, "/a")].concat(),
            Fails(CLOSED_OR_PROTOCOL),
        ),
        (
            "5.1",
            "CONTINUATION after the end of a stream",
            [get(1, "/held"), frame(CONTINUATION, END_HEADERS, 1, [])].concat(),
            Ends(CLOSED_OR_PROTOCOL),
        ),
        (
            "5.1",
            "WINDOW_UPDATE after the end of a stream",
            [get(1, "/a"), window_update(1, 1)].concat(),
            Answers(200),
        ),
        (
            "5.1",
            "PRIORITY after the end of a stream",
            [get(1, "/a"), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])].concat(),
            Answers(200),
        ),
        (
            "5.1",
            "RST_STREAM after RST_STREAM",
            [post(), reset(1, CANCEL), reset(1, CANCEL)].concat(),
            Nothing,
        ),
        (
            "5.1.1",
            "a stream of the server's",
            get(2, "/a"),
            Ends(PROTOCOL),
        ),
        (
            "5.1.1",
            "a stream below the last one",
            [get(5, "/a"), get(3, "/a")].concat(),
            Ends(CLOSED_OR_PROTOCOL),
        ),
        ("5.1.1", "stream 0", get(0, "/a"), Ends(PROTOCOL)),
        ("5.1.1", "streams that are left out", get(99, "/a"), Nothing),
        (
            "5.1.2",
            "one stream more than allowed",
            {
                let post = |stream| frame(HEADERS, END_HEADERS, stream, request("POST", "/a", &[]));
                let eleven: Vec<_> = (0..10).map(|n| post(3 + 2 * n)).collect();
                // Stream 1 cannot come later: what is refused is the last one.
                [eleven.concat(), post(23), reset(3, CANCEL)].concat()
            },
            Nothing,
        ),
        (
            "5.5",
            "an unknown frame within a field block",
            [
                frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])),
                frame(0x42, 0, 1, []),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
    ]);
}

#[test]
fn a_stream_over_the_limit_is_refused_and_the_others_go_on() {
    let setup = Scene::new().server("h2c", "true");
    let scene = setup.server("http2_streams_max", "2").start();
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    for stream in [1, 3, 5] {
        peer.send(&frame(
            HEADERS,
            END_HEADERS,
            stream,
            request("POST", "/a", &[]),
        ));
    }
    assert_eq!(peer.answer(5), Err(REFUSED_STREAM));
    peer.send(&frame(DATA, END_STREAM, 1, b"x"));
    assert_eq!(peer.answer(1), Ok((200, b"v1".to_vec())));
    peer.send(&frame(DATA, END_STREAM, 3, b"x"));
    assert_eq!(peer.answer(3), Ok((200, b"v1".to_vec())));
}

#[test]
fn section_6_1_to_6_4_data_headers_priority_reset() {
    check(vec![
        (
            "6.1",
            "DATA on stream 0",
            frame(DATA, 0, 0, b"x"),
            Ends(PROTOCOL),
        ),
        (
            "6.1",
            "padding as long as its frame",
            [post(), frame(DATA, PADDED | END_STREAM, 1, [5, 0, 0, 0, 0])].concat(),
            Ends(PROTOCOL),
        ),
        (
            "6.1",
            "PADDED without a length",
            [post(), frame(DATA, PADDED | END_STREAM, 1, [])].concat(),
            Fails(SIZE_OR_PROTOCOL),
        ),
        (
            "6.1",
            "padded DATA",
            [post(), frame(DATA, PADDED | END_STREAM, 1, [2, b'x', 0, 0])].concat(),
            Answers(200),
        ),
        (
            "6.2",
            "HEADERS on stream 0",
            frame(HEADERS, WHOLE, 0, request("GET", "/a", &[])),
            Ends(PROTOCOL),
        ),
        (
            "6.2",
            "padding longer than its frame",
            frame(
                HEADERS,
                WHOLE | PADDED,
                1,
                [&[200], &request("GET", "/a", &[])[..]].concat(),
            ),
            Ends(PROTOCOL),
        ),
        (
            "6.2",
            "padded HEADERS",
            frame(
                HEADERS,
                WHOLE | PADDED,
                1,
                [&[3], &request("GET", "/a", &[])[..], &[0; 3]].concat(),
            ),
            Answers(200),
        ),
        (
            "6.2",
            "HEADERS too short for their priority",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, [0, 0, 0]),
            Ends(SIZE_OR_PROTOCOL),
        ),
        (
            "6.2",
            "HEADERS with a priority",
            frame(
                HEADERS,
                WHOLE | WITH_PRIORITY,
                1,
                [&[0, 0, 0, 0, 15], &request("GET", "/a", &[])[..]].concat(),
            ),
            Answers(200),
        ),
        (
            "6.3",
            "PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, [0; 5]),
            Ends(PROTOCOL),
        ),
        (
            "6.3",
            "PRIORITY of four bytes",
            [post(), frame(PRIORITY, 0, 1, [0; 4])].concat(),
            Fails(SIZE),
        ),
        (
            "6.4",
            "RST_STREAM on stream 0",
            reset(0, CANCEL),
            Ends(PROTOCOL),
        ),
        (
            "6.4",
            "RST_STREAM of three bytes",
            [post(), frame(RST_STREAM, 0, 1, [0; 3])].concat(),
            Ends(SIZE),
        ),
        (
            "6.4",
            "RST_STREAM with a code nobody knows",
            [post(), reset(1, 0xffff)].concat(),
            Nothing,
        ),
    ]);
}

#[test]
fn section_6_5_to_6_8_settings_push_ping_goaway() {
    check(vec![
        (
            "6.5",
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, []),
            Ends(PROTOCOL),
        ),
        (
            "6.5",
            "an acknowledgement with a payload",
            frame(SETTINGS, ACK, 0, [0; 6]),
            Ends(SIZE),
        ),
        (
            "6.5",
            "SETTINGS of five bytes",
            frame(SETTINGS, 0, 0, [0; 5]),
            Ends(SIZE),
        ),
        (
            "6.5.2",
            "ENABLE_PUSH of 2",
            settings(&[(2, 2)]),
            Ends(PROTOCOL),
        ),
        (
            "6.5.2",
            "a window of 2³¹",
            settings(&[(4, 1 << 31)]),
            Ends(WINDOW),
        ),
        (
            "6.5.2",
            "frames smaller than 2¹⁴",
            settings(&[(5, 16_383)]),
            Ends(PROTOCOL),
        ),
        (
            "6.5.2",
            "frames larger than 2²⁴ − 1",
            settings(&[(5, 1 << 24)]),
            Ends(PROTOCOL),
        ),
        (
            "6.5.2",
            "a setting nobody knows",
            settings(&[(0x4242, 7)]),
            Nothing,
        ),
        (
            "6.5.2",
            "no streams for the server",
            settings(&[(3, 0)]),
            Nothing,
        ),
        (
            "6.5.3",
            "the same setting twice",
            settings(&[(4, 1), (4, 65_535)]),
            Nothing,
        ),
        (
            "6.6",
            "PUSH_PROMISE from a client",
            [post(), frame(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])].concat(),
            Ends(PROTOCOL),
        ),
        (
            "6.7",
            "PING on a stream",
            frame(PING, 0, 1, [0; 8]),
            Ends(PROTOCOL),
        ),
        (
            "6.7",
            "PING of six bytes",
            frame(PING, 0, 0, [0; 6]),
            Ends(SIZE),
        ),
        (
            "6.7",
            "an answer to no PING",
            frame(PING, ACK, 0, [7; 8]),
            Nothing,
        ),
        (
            "6.8",
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, [0; 8]),
            Ends(PROTOCOL),
        ),
        (
            "6.8",
            "GOAWAY of four bytes",
            frame(GOAWAY, 0, 0, [0; 4]),
            Ends(SIZE_OR_PROTOCOL),
        ),
    ]);
}

#[test]
fn section_6_9_and_6_10_windows_and_continuation() {
    check(vec![
        (
            "6.9",
            "the connection's window widened by nothing",
            window_update(0, 0),
            Ends(PROTOCOL),
        ),
        (
            "6.9",
            "a stream's window widened by nothing",
            [post(), window_update(1, 0)].concat(),
            Fails(PROTOCOL),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, [0; 3]),
            Ends(SIZE),
        ),
        (
            "6.9.1",
            "the connection's window wider than 2³¹ − 1",
            [window_update(0, 0x7fff_ffff), window_update(0, 0x7fff_ffff)].concat(),
            Ends(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.1",
            "a stream's window wider than 2³¹ − 1",
            [
                post(),
                window_update(1, 0x7fff_ffff),
                window_update(1, 0x7fff_ffff),
            ]
            .concat(),
            Fails(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.2",
            "SETTINGS that make a window wider than 2³¹ − 1",
            [
                post(),
                window_update(1, 0x7fff_0000),
                settings(&[(4, 0x7fff_ffff)]),
            ]
            .concat(),
            Fails(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.10",
            "CONTINUATION without HEADERS",
            frame(CONTINUATION, END_HEADERS, 1, request("GET", "/a", &[])),
            Ends(PROTOCOL),
        ),
        (
            "6.10",
            "CONTINUATION after END_HEADERS",
            [post(), frame(CONTINUATION, END_HEADERS, 1, [])].concat(),
            Ends(PROTOCOL),
        ),
        (
            "6.10",
            "CONTINUATION after DATA",
            [
                post(),
                frame(DATA, 0, 1, b"x"),
                frame(CONTINUATION, END_HEADERS, 1, []),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
        (
            "6.10",
            "CONTINUATION on stream 0",
            [
                frame(HEADERS, END_STREAM, 1, request("GET", "/a", &[])),
                frame(CONTINUATION, END_HEADERS, 0, []),
            ]
            .concat(),
            Ends(PROTOCOL),
        ),
    ]);
}

#[test]
fn section_6_9_1_a_client_that_sends_more_than_its_window_is_cut() {
    let setup = Scene::new().server("h2c", "true");
    let setup = setup.server("http2_stream_window", "\"64KiB\"");
    let scene = setup.server("http2_connection_window", "\"64KiB\"").start();
    scene.origin.says("/a", Reply::ok("v1"));
    let mut peer = Peer::connect(scene.front());
    // Far more at once than can be read on between two looks at the socket.
    let data = frame(DATA, 0, 1, vec![0; 16_384]).repeat(500);
    peer.send(&[post(), data].concat());
    let end = peer.find(|frame| [GOAWAY, RST_STREAM].contains(&frame.kind));
    // None when the reset that follows what was sent in vain has overtaken it.
    if let Some(end) = end {
        let code = match end.kind {
            GOAWAY => end.goaway(),
            _ => end.number(),
        };
        assert_eq!(code, FLOW_CONTROL_ERROR);
    }
    scene.get("/a").is(200);
}

#[test]
fn section_8_1_messages() {
    let trailers =
        |flags, fields: &[(&str, &str)]| [post(), frame(HEADERS, flags, 1, block(fields))].concat();
    let sized = |length: &str, bytes: &[u8]| {
        let head = request("POST", "/a", &[("content-length", length)]);
        [
            frame(HEADERS, END_HEADERS, 1, head),
            frame(DATA, END_STREAM, 1, bytes),
        ]
        .concat()
    };
    check(vec![
        (
            "8.1",
            "trailers that do not end the stream",
            trailers(END_HEADERS, &[("x-a", "b")]),
            Fails(PROTOCOL),
        ),
        (
            "8.1",
            "trailers",
            trailers(WHOLE, &[("x-a", "b")]),
            Answers(200),
        ),
        // `h2` drops it without a word; of trailers nothing goes on anyway.
        (
            "8.1",
            "a pseudo-header field in trailers",
            trailers(WHOLE, &[(":method", "GET")]),
            Answers(200),
        ),
        (
            "8.1.1",
            "more than Content-Length says",
            sized("1", b"two"),
            Fails(PROTOCOL),
        ),
        (
            "8.1.1",
            "less than Content-Length says",
            sized("9", b"two"),
            Fails(PROTOCOL),
        ),
        (
            "8.1.1",
            "nothing although Content-Length says something",
            with("content-length", "3"),
            Fails(PROTOCOL),
        ),
        (
            "8.1.1",
            "two Content-Lengths",
            frame(
                HEADERS,
                WHOLE,
                1,
                request(
                    "GET",
                    "/a",
                    &[("content-length", "0"), ("content-length", "1")],
                ),
            ),
            Fails(PROTOCOL),
        ),
        (
            "8.1.1",
            "a Content-Length that is no number",
            with("content-length", "+0"),
            Fails(PROTOCOL),
        ),
        (
            "8.1.1",
            "just what Content-Length says",
            sized("3", b"two"),
            Answers(200),
        ),
    ]);
}

#[test]
fn section_8_2_fields() {
    check(vec![
        (
            "8.2",
            "a name with an upper-case letter",
            with("X-a", "b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a name with a space",
            with("x a", "b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a name with a colon",
            with("x:a", "b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a name with a NUL",
            with("x\0a", "b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a name without a letter",
            with("", "b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a value with a NUL",
            with("x-a", "b\0"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a value with a line feed",
            with("x-a", "b\nc: d"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a value with a carriage return",
            with("x-a", "b\rc"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a value that begins with a space",
            with("x-a", " b"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.1",
            "a value that ends with a tab",
            with("x-a", "b\t"),
            Fails(PROTOCOL),
        ),
        ("8.2.1", "an empty value", with("x-a", ""), Answers(200)),
        (
            "8.2.2",
            "Connection",
            with("connection", "keep-alive"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.2",
            "Keep-Alive",
            with("keep-alive", "timeout=5"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.2",
            "Proxy-Connection",
            with("proxy-connection", "keep-alive"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.2",
            "Transfer-Encoding",
            with("transfer-encoding", "chunked"),
            Fails(PROTOCOL),
        ),
        (
            "8.2.2",
            "Upgrade",
            with("upgrade", "websocket"),
            Fails(PROTOCOL),
        ),
        ("8.2.2", "TE for gzip", with("te", "gzip"), Fails(PROTOCOL)),
        (
            "8.2.2",
            "TE for trailers",
            with("te", "trailers"),
            Answers(200),
        ),
    ]);
}

#[test]
fn section_8_3_pseudo_header_fields() {
    let (method, scheme, path) = ((":method", "GET"), (":scheme", "http"), (":path", "/a"));
    let host = (":authority", HOST);
    let path_of = |path: &'static str| fields(&[method, scheme, host, (":path", path)]);
    check(vec![
        (
            "8.3",
            "a pseudo-header field after a regular one",
            fields(&[method, scheme, host, ("x-a", "b"), path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            "a pseudo-header field nobody knows",
            fields(&[method, scheme, host, path, (":x", "b")]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            "a response's pseudo-header field",
            fields(&[method, scheme, host, path, (":status", "200")]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            ":method twice",
            fields(&[method, method, scheme, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            ":scheme twice",
            fields(&[method, scheme, scheme, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            ":path twice",
            fields(&[method, scheme, host, path, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3",
            ":authority twice",
            fields(&[method, scheme, host, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "no :method",
            fields(&[scheme, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "no :scheme",
            fields(&[method, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "no :path",
            fields(&[method, scheme, host]),
            Fails(PROTOCOL),
        ),
        ("8.3.1", "an empty :path", path_of(""), Fails(PROTOCOL)),
        (
            "8.3.1",
            "a :method with a space",
            fields(&[(":method", "GE T"), scheme, host, path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "a :path that begins with no slash",
            path_of("a"),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "a :path with a space",
            path_of("/a b"),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "a :path that is an absolute URI",
            path_of("http://evil.test/a"),
            Fails(PROTOCOL),
        ),
        ("8.3.1", "* without OPTIONS", path_of("*"), Answers(400)),
        (
            "8.3.1",
            "neither :authority nor Host",
            fields(&[method, scheme, path]),
            Answers(400),
        ),
        (
            "8.3.1",
            "Host alone",
            fields(&[method, scheme, path, ("host", HOST)]),
            Answers(200),
        ),
        (
            "8.3.1",
            "Host as in :authority",
            fields(&[method, scheme, host, path, ("host", HOST)]),
            Answers(200),
        ),
        (
            "8.3.1",
            "Host other than :authority",
            fields(&[method, scheme, host, path, ("host", "evil.test")]),
            Answers(400),
        ),
        (
            "8.3.1",
            "Host twice",
            fields(&[method, scheme, host, path, ("host", HOST), ("host", HOST)]),
            Answers(400),
        ),
        (
            "8.3.1",
            ":authority with userinfo",
            fields(&[method, scheme, (":authority", "me@scene.test"), path]),
            Answers(400),
        ),
        (
            "8.3.1",
            "an :authority that is none",
            fields(&[method, scheme, (":authority", "a b"), path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "an empty :authority",
            fields(&[method, scheme, (":authority", ""), path]),
            Fails(PROTOCOL),
        ),
        (
            "8.3.1",
            "a :scheme of something else",
            fields(&[method, (":scheme", "ftp"), host, path]),
            Answers(400),
        ),
        (
            "8.3.1",
            "a :scheme that is none",
            fields(&[method, (":scheme", "h t"), host, path]),
            Fails(PROTOCOL),
        ),
    ]);
}

#[test]
fn section_8_5_and_10_5_connect_and_too_much() {
    let many = vec![("x-a", "b"); 101];
    let long = "x".repeat(70_000);
    let block = request("GET", "/a", &[("x-long", &long)]);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for (n, piece) in block.chunks(16_000).enumerate() {
        let last = if (n + 1) * 16_000 >= block.len() {
            END_HEADERS
        } else {
            0
        };
        pieces.push(match n {
            0 => frame(HEADERS, END_STREAM | last, 1, piece),
            _ => frame(CONTINUATION, last, 1, piece),
        });
    }
    let target = format!("/{}", "a".repeat(17_000));
    let protocol = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", HOST),
        (":path", "/a"),
    ];
    check(vec![
        (
            "8.5",
            "CONNECT",
            fields(&[(":method", "CONNECT"), (":authority", "a.test:443")]),
            Answers(405),
        ),
        (
            "8.5",
            "CONNECT with a :path",
            fields(&[
                (":method", "CONNECT"),
                (":authority", "a.test:443"),
                (":path", "/a"),
            ]),
            Fails(PROTOCOL),
        ),
        (
            "8.5",
            "CONNECT with a :scheme",
            fields(&[
                (":method", "CONNECT"),
                (":scheme", "http"),
                (":authority", "a.test:443"),
            ]),
            Fails(PROTOCOL),
        ),
        (
            "8.5",
            "extended CONNECT, which was not offered",
            fields(&protocol),
            Fails(PROTOCOL),
        ),
        (
            "8.1",
            "TRACE",
            fields(&[
                (":method", "TRACE"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", "/a"),
            ]),
            Answers(405),
        ),
        (
            "10.5.1",
            "a field list larger than announced",
            pieces.concat(),
            Answers(431),
        ),
        (
            "10.5.1",
            "more fields than allowed",
            frame(HEADERS, WHOLE, 1, request("GET", "/a", &many)),
            Answers(431),
        ),
        (
            "10.5.1",
            "a :path longer than allowed",
            [
                frame(
                    HEADERS,
                    END_STREAM,
                    1,
                    &request("GET", &target, &[])[..16_000],
                ),
                frame(
                    CONTINUATION,
                    END_HEADERS,
                    1,
                    &request("GET", &target, &[])[16_000..],
                ),
            ]
            .concat(),
            Answers(414),
        ),
    ]);
}

#[test]
fn section_3_4_what_is_no_preface_is_read_as_http_1() {
    let setup = Scene::new().server("h2c", "true");
    let scene = setup.start();
    for (bytes, status) in [
        (&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], "400"),
        (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", "4"),
        (
            b"PRXYZ / HTTP/1.1\r\nHost: scene.test\r\nConnection: close\r\n\r\n",
            "404",
        ),
    ] {
        let mut client = scene.connect();
        client.send(bytes);
        let answer = client.begin("GET").finish();
        assert!(
            answer.status.to_string().starts_with(status),
            "{}",
            answer.status
        );
    }
}

#[test]
fn section_3_4_settings_come_first_from_both_sides() {
    let scene = Scene::new().server("h2c", "true").start();
    let mut peer = Peer::silent(scene.front());
    peer.send(PREFACE);
    let first = peer.next().unwrap();
    assert_eq!(
        (first.kind, first.flags & ACK, first.stream),
        (SETTINGS, 0, 0)
    );
    peer.send(&get(1, "/a"));
    assert_eq!(peer.farewell(), Some(PROTOCOL_ERROR));
    scene.origin.saw("/a", 0);
}

#[test]
fn section_6_5_3_settings_are_acknowledged() {
    let scene = Scene::new().server("h2c", "true").start();
    let mut peer = Peer::connect(scene.front());
    let ack = |frame: &Frame| frame.kind == SETTINGS && frame.flags & ACK != 0;
    assert!(peer.find(ack).unwrap().payload.is_empty());
    peer.send(&settings(&[(4, 1000)]));
    assert!(peer.find(ack).is_some());
}

#[test]
fn section_6_7_a_ping_comes_back_as_it_was() {
    let scene = Scene::new().server("h2c", "true").start();
    let mut peer = Peer::connect(scene.front());
    peer.send(&frame(PING, 0, 0, b"12345678"));
    let pong = peer.find(|frame| frame.kind == PING).unwrap();
    assert_eq!(
        (pong.flags & ACK, &pong.payload[..]),
        (ACK, &b"12345678"[..])
    );
}

#[test]
fn section_6_9_2_a_window_that_shrinks_holds_the_body_back() {
    let scene = Scene::new().server("h2c", "true").start();
    scene.origin.says("/a", Reply::ok("0123456789").fresh());
    let mut peer = Peer::with(scene.front(), &[(4, 4)]);
    peer.send(&get(1, "/a"));
    let data = |frame: &Frame| frame.kind == DATA;
    assert_eq!(peer.find(data).unwrap().payload, b"0123");
    peer.send(&settings(&[(4, 1)])); // three less than nothing is left
    peer.send(&window_update(1, 4));
    assert_eq!(peer.find(data).unwrap().payload, b"4");
    peer.send(&window_update(1, 100));
    assert_eq!(peer.find(data).unwrap().payload, b"56789");
}
