//! An HTTP/2 client frame by frame: it writes what it is told, right or wrong, and reads what comes.
//!
//! Field blocks are written without compression. Of those that come, only `:status` is read.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;

use crate::client::HOST;
use crate::client::tcp;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// END_STREAM, and ACK of SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;
/// A request without a body, in one frame.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Error codes (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number in the first four bytes of the payload: an error code, a window.
    pub(crate) fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }

    /// The error code of a GOAWAY.
    pub(crate) fn goaway(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().expect("eight bytes"))
    }
}

/// Writes a frame, whatever it says.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len())
        .expect("a payload")
        .to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, payload)
}

pub(crate) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// A field block of these lines, none of them compressed (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).expect("seven bits"));
        return;
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128 + 128).expect("eight bits"));
        value /= 128;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
}

/// The field block of a request: the four pseudo-header fields, then `more`.
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", HOST),
        (":path", path),
    ];
    fields.extend(more);
    block(&fields)
}

/// A whole GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, request("GET", path, &[]))
}

/// One connection.
pub(crate) struct Peer {
    wire: TcpStream,
    buffer: Vec<u8>,
    /// Streams that were reset, and with which code.
    resets: BTreeMap<u32, u32>,
}

impl Peer {
    /// Connects and says nothing.
    #[track_caller]
    pub(crate) fn silent(address: SocketAddr) -> Self {
        Self {
            wire: tcp(address),
            buffer: Vec::new(),
            resets: BTreeMap::new(),
        }
    }

    /// Connects, begins with these settings and acknowledges the other side's. There is no table for
    /// what comes, so that a status can be read by itself.
    #[track_caller]
    pub(crate) fn with(address: SocketAddr, ours: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(address);
        let ours = [&[(1, 0)], ours].concat();
        peer.send(&[PREFACE, &settings(&ours), &frame(SETTINGS, ACK, 0, [])].concat());
        peer
    }

    /// The other end of a connection: reads a client's preface and begins with these settings.
    pub(crate) fn accepted(mut wire: TcpStream, ours: &[(u16, u32)]) -> Option<Self> {
        let mut preface = [0; PREFACE.len()];
        wire.read_exact(&mut preface).ok()?;
        let mut peer = Self {
            wire,
            buffer: Vec::new(),
            resets: BTreeMap::new(),
        };
        peer.send(&settings(ours));
        Some(peer)
    }

    /// The HEADERS of a client's next request; settings and pings before it are answered. `None` at
    /// the end of the connection.
    pub(crate) fn request(&mut self) -> Option<Frame> {
        self.attend(|frame| frame.kind == HEADERS)
    }

    /// The next frame that `wanted` likes; settings and pings before it are answered.
    pub(crate) fn attend(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if wanted(&frame) {
                return Some(frame);
            }
            if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                let payload = if frame.kind == PING {
                    &frame.payload[..]
                } else {
                    &[]
                };
                self.send(&self::frame(frame.kind, ACK, 0, payload));
            }
        }
    }

    /// Connects and begins as most clients do.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    /// Sends these bytes. That the other side has closed is seen when reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.wire.write_all(bytes).is_ok()
    }

    /// The next frame; `None` when the connection has ended, however it did.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parse() {
                if frame.kind == RST_STREAM {
                    self.resets.insert(frame.stream, frame.number());
                }
                return Some(frame);
            }
            let mut piece = [0; 16 * 1024];
            match self.wire.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the other side neither speaks nor closes");
                }
                Err(_) => return None,
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes")) & 0x7fff_ffff;
        if self.buffer.len() < 9 + length {
            return None;
        }
        let payload = self.buffer.drain(..9 + length).skip(9).collect();
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Reads up to a frame that `wanted` likes; `None` when the connection ends before it.
    pub(crate) fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Reads up to the end of a stream: its status and body, or the code it was reset with.
    #[track_caller]
    pub(crate) fn answer(&mut self, stream: u32) -> Result<(u16, Vec<u8>), u32> {
        let (mut answer, mut body) = (0, Vec::new());
        loop {
            // It may have come while another stream was read.
            if let Some(code) = self.resets.get(&stream) {
                return Err(*code);
            }
            let frame = self.next().expect("an answer before the connection ends");
            if frame.kind == GOAWAY && frame.goaway() != NO_ERROR {
                panic!("GOAWAY {}", frame.goaway());
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS if answer < 200 => answer = status(&frame.payload),
                DATA => {
                    body.extend(&frame.payload);
                    let more = u32::try_from(frame.payload.len()).expect("a frame's length");
                    if more > 0 && frame.flags & END_STREAM == 0 {
                        self.send(&[window_update(0, more), window_update(stream, more)].concat());
                    }
                }
                _ => {}
            }
            if frame.flags & END_STREAM != 0 {
                return Ok((answer, body));
            }
        }
    }

    /// Asks for `path` on `stream` and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, stream: u32, path: &str) -> Result<(u16, Vec<u8>), u32> {
        self.send(&get(stream, path));
        self.answer(stream)
    }

    /// Whether a PING comes back, which says that everything sent before has been dealt with.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.send(&frame(PING, 0, 0, b"are you?"));
        self.find(|frame| frame.kind == PING && frame.payload == b"are you?")
            .is_some()
    }

    /// Reads to the end of the connection and returns the code of the last GOAWAY.
    pub(crate) fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.goaway());
            }
        }
        code
    }
}

/// Reads `:status`, which stands first, in any form that an encoder may choose (RFC 7541 §6).
pub(crate) fn status(block: &[u8]) -> u16 {
    // Updates of the table's size come before the first field.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20);
    let block = &block[at.expect("a field")..];
    if block[0] & 0x80 != 0 {
        let known = [200, 204, 206, 304, 400, 404, 500];
        return known[usize::from(block[0] & 0x7f) - 8];
    }
    let digits = &block[2..2 + usize::from(block[1] & 0x7f)];
    let text = match block[1] & 0x80 {
        0 => String::from_utf8_lossy(digits).into_owned(),
        _ => huffman_digits(digits),
    };
    text.parse().expect("a status")
}

/// Three digits in the static Huffman code (RFC 7541 Appendix B): 0 to 2 have five bits, 3 to 9 six.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u32> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)))
        .collect();
    let (mut text, mut rest) = (String::new(), &bits[..]);
    while text.len() < 3 {
        let number = |bits: &[u32]| bits.iter().fold(0, |number, bit| number * 2 + bit);
        let short = number(&rest[..5]);
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => (number(&rest[..6]) - 0b01_1001 + 3, 6),
        };
        text.push(char::from_digit(digit, 10).expect("a digit"));
        rest = &rest[length..];
    }
    text
}

#[test]
fn a_status_is_read_in_every_form() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8d]), 404);
    assert_eq!(status(b"\x48\x03431"), 431);
    // 505 in the static code: 011011 00000 011011, and ones to the end of the byte.
    assert_eq!(
        status(&[0x48, 0x83, 0b0110_1100, 0b0000_1101, 0b1111_1111]),
        505
    );
}
