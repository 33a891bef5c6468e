//! How much an HTTP/2 client may make us do beside its requests.
//!
//! Every frame costs us something, and flow control bounds only the bytes of bodies: a client may
//! send PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE and empty frames for as long as it likes
//! (RFC 9113 §10.5). So a connection has two budgets. Frames that ask for nothing are paid out of the
//! one, cancelled streams out of the other; both are earned back by responses that arrive, and slowly
//! by time. A client whose budget is used up is told `ENHANCE_YOUR_CALM` and cut.
//!
//! ```text
//! bytes ─► Frames (heads only, payloads are skipped) ─► cost ─► Budget ◄─ earned: bytes the client took
//!                                                                ▲
//!                                                                └─ refilled by time
//! ```
//!
//! From the bytes as they come and from what `http2` says it has sent. What the frames mean, and
//! nearly every rule about them, is the `h2` crate's, which also bounds CONTINUATION frames, small
//! DATA frames and streams that it must reset itself. Here are the two rules of heads that it does
//! not keep: what comes first (RFC 9113 §3.4), and the code for frames of a wrong size (§4.2). Here is
//! no clock: time passed is an argument.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use h2::Reason;

/// What a frame is paid out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// It is part of a request.
    Nothing,
    /// It asks for nothing.
    Control,
    /// It takes a request back.
    Reset,
}

/// Reads the heads of frames (RFC 9113 §4.1) in bytes that come in pieces of any size.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes of payload, or of the connection preface, that are still to come.
    skip: usize,
    block: Block,
    /// The first frame has begun.
    begun: bool,
    /// Frames that ended and left no header block open.
    whole: u64,
}

/// Where in a header block the bytes are (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Outside,
    /// More frames of it are to come.
    Open,
    /// This frame is its last.
    Last,
}

impl Frames {
    /// Starts before the connection preface.
    pub(super) fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            have: 0,
            skip: PREFACE.len(),
            block: Block::Outside,
            begun: false,
            whole: 0,
        }
    }

    /// Reads on and hands `each` the cost of every frame whose head ends in `bytes`, or the reason why
    /// it may not come.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Result<Cost, Reason>)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            if skipped > 0 {
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                self.end_frame();
                continue;
            }
            let rest = self.head.get_mut(self.have..).unwrap_or_default();
            let taken = rest.len().min(bytes.len());
            let (head, after) = bytes.split_at(taken);
            for (to, from) in rest.iter_mut().zip(head) {
                *to = *from;
            }
            bytes = after;
            self.have += taken;
            if self.have == HEAD_BYTES {
                self.have = 0;
                each(self.begin_frame());
                self.end_frame();
            }
        }
    }

    /// Whether a frame's head or a header block has begun and not ended.
    pub(super) fn owes_head(&self) -> bool {
        self.have > 0 || self.block != Block::Outside
    }

    /// How many frames ended and left no header block open.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    fn begin_frame(&mut self) -> Result<Cost, Reason> {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let first = !std::mem::replace(&mut self.begun, true);
        if first && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let right = match kind {
            PRIORITY => self.skip == 5,
            RST_STREAM | WINDOW_UPDATE => self.skip == 4,
            SETTINGS if flags & ACK != 0 => self.skip == 0,
            SETTINGS => self.skip.is_multiple_of(6),
            PING => self.skip == 8,
            GOAWAY => self.skip >= 8,
            _ => true,
        };
        if !right {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        Ok(match kind {
            HEADERS | CONTINUATION => {
                self.block = match flags & END_HEADERS {
                    0 => Block::Open,
                    _ => Block::Last,
                };
                Cost::Nothing
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Cost::Nothing,
            RST_STREAM => Cost::Reset,
            _ => Cost::Control,
        })
    }

    fn end_frame(&mut self) {
        if self.skip > 0 {
            return;
        }
        if self.block == Block::Last {
            self.block = Block::Outside;
        }
        if self.block == Block::Outside {
            self.whole = self.whole.wrapping_add(1);
        }
    }
}

/// What one client may still do beside its requests. Shared by a connection's reader and streams.
#[derive(Debug)]
pub(super) struct Budget {
    control: Purse,
    resets: Purse,
}

impl Budget {
    /// Starts with so many control frames and cancelled streams.
    pub(super) fn new(control: u32, resets: u32) -> Self {
        Self {
            control: Purse::new(control),
            resets: Purse::new(resets),
        }
    }

    /// Pays for a frame; false when there is nothing left to pay with.
    pub(super) fn pay(&self, cost: Cost) -> bool {
        match cost {
            Cost::Nothing => true,
            Cost::Control => self.control.pay(),
            Cost::Reset => self.resets.pay(),
        }
    }

    /// Adds what the time that passed is worth: all of it in [`REFILL`].
    pub(super) fn refill(&self, passed: Duration) {
        for purse in [&self.control, &self.resets] {
            let share = u128::from(purse.max) * passed.as_millis() / REFILL.as_millis();
            purse.add(u32::try_from(share).unwrap_or(u32::MAX));
        }
    }

    /// A response went out whole.
    pub(super) fn earn_response(&self) {
        self.control.add(CONTROL_FOR_RESPONSE);
        self.resets.add(1);
    }

    /// A piece of a body went out that was not made small by the client's own window.
    pub(super) fn earn_data(&self) {
        self.control.add(CONTROL_FOR_DATA);
    }
}

/// A counter between zero and its bound.
#[derive(Debug)]
struct Purse {
    max: u32,
    left: AtomicU32,
}

impl Purse {
    fn new(max: u32) -> Self {
        Self {
            max,
            left: AtomicU32::new(max),
        }
    }

    fn pay(&self) -> bool {
        self.change(|left| left.checked_sub(1))
    }

    fn add(&self, more: u32) {
        self.change(|left| Some(left.saturating_add(more).min(self.max)));
    }

    fn change(&self, by: impl Fn(u32) -> Option<u32>) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, by)
            .is_ok()
    }
}

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's head: length, type, flags, stream (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How long it takes an empty budget to be full again by time alone.
const REFILL: Duration = Duration::from_secs(10);

/// Control frames earned by a response: its windows, and a change of its priority or two.
const CONTROL_FOR_RESPONSE: u32 = 8;

/// Control frames earned by a piece of a body: clients may widen both windows every 4 KiB.
const CONTROL_FOR_DATA: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    fn costs(frames: &mut Frames, bytes: &[u8]) -> Vec<Result<Cost, Reason>> {
        let mut costs = Vec::new();
        frames.read(bytes, |cost| costs.push(cost));
        costs
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        assert_eq!(costs(&mut frames, PREFACE), []);
        assert_eq!(
            costs(&mut frames, &frame(SETTINGS, 0, 0)),
            [Ok(Cost::Control)]
        );
        frames
    }

    #[test]
    fn what_belongs_to_a_request_costs_nothing() {
        for (kind, flags, payload) in [
            (HEADERS, END_HEADERS, 20),
            (CONTINUATION, END_HEADERS, 0),
            (DATA, 0, 1),
            (DATA, END_STREAM, 0),
        ] {
            let frame = frame(kind, flags, payload);
            assert_eq!(costs(&mut begun(), &frame), [Ok(Cost::Nothing)], "{kind}");
        }
    }

    #[test]
    fn what_asks_for_nothing_costs_and_a_reset_costs_of_its_own() {
        for (kind, payload) in [
            (DATA, 0),
            (2, 5),
            (4, 6),
            (5, 4),
            (6, 8),
            (7, 8),
            (8, 4),
            (99, 3),
        ] {
            let frame = frame(kind, 0, payload);
            assert_eq!(costs(&mut begun(), &frame), [Ok(Cost::Control)], "{kind}");
        }
        assert_eq!(
            costs(&mut begun(), &frame(RST_STREAM, 0, 4)),
            [Ok(Cost::Reset)]
        );
    }

    #[test]
    fn settings_come_first() {
        for (kind, flags) in [(HEADERS, END_HEADERS), (PING, 0), (SETTINGS, ACK), (99, 0)] {
            let mut frames = Frames::new();
            frames.read(PREFACE, |_| {});
            let payload = if kind == PING { 8 } else { 0 };
            let found = costs(&mut frames, &frame(kind, flags, payload));
            assert_eq!(found, [Err(Reason::PROTOCOL_ERROR)], "{kind}");
        }
    }

    #[test]
    fn frames_of_a_wrong_size_are_told() {
        for (kind, flags, payload) in [
            (PRIORITY, 0, 4),
            (RST_STREAM, 0, 5),
            (SETTINGS, 0, 7),
            (SETTINGS, ACK, 6),
            (PING, 0, 9),
            (GOAWAY, 0, 7),
            (WINDOW_UPDATE, 0, 3),
        ] {
            let found = costs(&mut begun(), &frame(kind, flags, payload));
            assert_eq!(found, [Err(Reason::FRAME_SIZE_ERROR)], "{kind}");
        }
    }

    #[test]
    fn a_header_block_is_owed_until_its_last_frame_has_ended() {
        let mut frames = begun();
        assert!(!frames.owes_head());
        for (flags, kind) in [(0, HEADERS), (0, CONTINUATION), (END_HEADERS, CONTINUATION)] {
            let whole = frames.whole();
            let bytes = frame(kind, flags, 3);
            frames.read(&bytes[..11], |_| {});
            assert!(frames.owes_head());
            frames.read(&bytes[11..], |_| {});
            assert_eq!(frames.owes_head(), flags == 0);
            assert_eq!(frames.whole() > whole, flags != 0);
        }
        frames.read(&frame(6, 0, 8)[..1], |_| {});
        assert!(
            frames.owes_head(),
            "a head that stops within its nine bytes"
        );
    }

    #[test]
    fn a_budget_is_used_up_and_earned_back() {
        let budget = Budget::new(2, 1);
        assert!(budget.pay(Cost::Control) && budget.pay(Cost::Control));
        assert!(!budget.pay(Cost::Control));
        assert!(budget.pay(Cost::Reset), "it is another budget");
        assert!(!budget.pay(Cost::Reset));
        assert!(budget.pay(Cost::Nothing));
        budget.earn_response();
        assert!(budget.pay(Cost::Reset) && !budget.pay(Cost::Reset));
        assert!(budget.pay(Cost::Control));
    }

    #[test]
    fn earning_stops_at_the_bound() {
        let budget = Budget::new(3, 0);
        budget.earn_data();
        budget.refill(Duration::MAX);
        let paid = (0..10).take_while(|_| budget.pay(Cost::Control)).count();
        assert_eq!(paid, 3);
        assert!(!budget.pay(Cost::Reset), "nothing of nothing");
    }

    #[test]
    fn time_refills_a_budget_bit_by_bit() {
        let budget = Budget::new(100, 10);
        while budget.pay(Cost::Control) {}
        budget.refill(Duration::from_millis(99));
        assert!(!budget.pay(Cost::Control));
        budget.refill(REFILL / 2);
        let paid = (0..100).take_while(|_| budget.pay(Cost::Control)).count();
        assert_eq!(paid, 50);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_are_read_as_the_whole_is(
            frames in vec((0_u8..12, any::<u8>(), 0_usize..40), 0..20),
            cuts in vec(1_usize..30, 1..20),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, payload) in &frames {
                bytes.extend(frame(*kind, *flags, *payload));
            }
            let mut at_once = Frames::new();
            let expected = costs(&mut at_once, &bytes);
            prop_assert_eq!(expected.len(), frames.len());
            let mut pieces = Frames::new();
            let mut found = Vec::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                found.extend(costs(&mut pieces, piece));
                rest = after;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(pieces.owes_head(), at_once.owes_head());
        }

        #[test]
        fn no_bytes_at_all_upset_it(bytes in vec(any::<u8>(), 0..2000)) {
            costs(&mut Frames::new(), &bytes);
        }
    }
}
