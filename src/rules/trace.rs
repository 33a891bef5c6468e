//! Which trace a request belongs to (W3C Trace Context, level 1), and whether it is told of.
//!
//! The ids come from the client where it sent a `traceparent` that holds, else from chance, which is an
//! argument. Whether spans are told is decided by the trace's id alone, so that everybody on the way who
//! samples alike decides alike; only a proxy that is trusted may ask for it. What comes of the decision is
//! `flow`'s.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use std::fmt;

/// A trace's id; not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span's id; not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// How a request is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePolicy {
    /// One trace in so many is told of; at least one.
    pub one_in: u64,
}

/// The trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span of whoever asks us.
    pub parent: Option<SpanId>,
    /// The span of the request itself.
    pub span: SpanId,
    /// Its spans are told.
    pub sampled: bool,
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    id: TraceId,
    span: SpanId,
    sampled: bool,
}

impl Trace {
    /// Decides for a request with these fields. `trusted`: a proxy sent it whose word counts. `chance` is
    /// 24 bytes that nobody can know beforehand.
    pub fn decide(
        headers: &HeaderMap,
        policy: TracePolicy,
        trusted: bool,
        chance: [u8; 24],
    ) -> Self {
        let (id, span) = chance.split_at(16);
        let span = SpanId(nonzero(span));
        let Some(parent) = Parent::read(headers) else {
            let id = TraceId(nonzero(id));
            return Self {
                id,
                parent: None,
                span,
                sampled: policy.samples(id),
            };
        };
        let sampled = match trusted {
            true => parent.sampled,
            false => policy.samples(parent.id),
        };
        Self {
            id: parent.id,
            parent: Some(parent.span),
            span,
            sampled,
        }
    }

    /// Writes on a request to an origin that it is part of the trace, by our span `span`. What came in
    /// `tracestate` goes on when it belongs to this trace.
    pub fn tell(&self, headers: &mut HeaderMap, span: SpanId) {
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
        let flags = u8::from(self.sampled);
        let value = format!("00-{}-{span}-{flags:02x}", self.id);
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl TracePolicy {
    /// Decides by the half of the id that is random even where the other is a time.
    fn samples(self, TraceId(id): TraceId) -> bool {
        let mut half = [0; 8];
        half.iter_mut()
            .zip(id.iter().skip(8))
            .for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(half) <= u64::MAX / self.one_in.max(1)
    }
}

impl Parent {
    /// Reads the one field there may be (§3.2).
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let (field, None) = (fields.next()?, fields.next()) else {
            return None;
        };
        let mut parts = field.as_bytes().split(|byte| *byte == b'-');
        let [version] = hex(parts.next()?)?;
        let id = TraceId(hex(parts.next()?)?);
        let span = SpanId(hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        // Later versions may say more behind it; there is none of this number (§3.2.2.1).
        let more = parts.next().is_some();
        let known = version != 0xff && (version != 0 || !more);
        let some = id.0 != [0; 16] && span.0 != [0; 8];
        (known && some).then_some(Self {
            id,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// Bytes from so many lower-case digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The first bytes of `chance`, which are not all zero but once in an eternity.
fn nonzero<const N: usize>(chance: &[u8]) -> [u8; N] {
    let mut id = [0; N];
    id.iter_mut().zip(chance).for_each(|(to, from)| *to = *from);
    if id == [0; N] {
        id.fill(1);
    }
    id
}

impl SpanId {
    /// Makes one of bytes that nobody can know beforehand.
    pub fn of(chance: &[u8]) -> Self {
        Self(nonzero(chance))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ALL: TracePolicy = TracePolicy { one_in: 1 };
    const CHANCE: [u8; 24] = [7; 24];

    fn fields(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn decide(traceparent: &str, policy: TracePolicy, trusted: bool) -> Trace {
        Trace::decide(
            &fields(&[("traceparent", traceparent)]),
            policy,
            trusted,
            CHANCE,
        )
    }

    #[test]
    fn a_request_goes_on_in_the_trace_it_came_in() {
        let trace = decide(PARENT, ALL, false);
        assert_eq!(trace.id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert_eq!(trace.span, SpanId([7; 8]));
        assert!(trace.sampled);
    }

    #[test]
    fn what_is_no_trace_context_begins_a_trace() {
        let long = format!("{PARENT}-00");
        for broken in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &long,
        ] {
            let trace = decide(broken, ALL, true);
            assert_eq!(
                (trace.id, trace.parent),
                (TraceId([7; 16]), None),
                "{broken}"
            );
        }
        let twice = fields(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        assert_eq!(Trace::decide(&twice, ALL, true, CHANCE).parent, None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00", "cc", 1) + "-what-else";
        assert!(decide(&later, ALL, false).parent.is_some());
    }

    #[test]
    fn only_a_trusted_proxy_decides_what_is_told() {
        let none = TracePolicy { one_in: u64::MAX };
        let unsampled = PARENT.replace("-01", "-00");
        assert!(decide(PARENT, none, true).sampled);
        assert!(!decide(PARENT, none, false).sampled);
        assert!(!decide(&unsampled, ALL, true).sampled);
        assert!(decide(&unsampled, ALL, false).sampled);
    }

    #[test]
    fn one_in_so_many_is_told_of() {
        let policy = TracePolicy { one_in: 10 };
        let id = |number: u64| {
            let mut id = [1; 16];
            // Spread over the whole range.
            let half = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            id[8..].copy_from_slice(&half.to_be_bytes());
            TraceId(id)
        };
        let sampled = (0..10_000).filter(|number| policy.samples(id(*number)));
        assert!((900..1100).contains(&sampled.count()));
    }

    #[test]
    fn an_origin_is_told_the_trace_and_our_span() {
        let mut headers = fields(&[("traceparent", PARENT), ("tracestate", "a=b")]);
        let trace = Trace::decide(&headers, ALL, false, CHANCE);
        trace.tell(&mut headers, SpanId([1; 8]));
        let told = "00-0af7651916cd43dd8448eb211c80319c-0101010101010101-01";
        assert_eq!(headers["traceparent"], told);
        assert_eq!(headers["tracestate"], "a=b");
        // A state without its trace is nobody's (§3.3).
        let mut headers = fields(&[("tracestate", "a=b")]);
        let trace = Trace::decide(&headers, ALL, false, CHANCE);
        trace.tell(&mut headers, SpanId([1; 8]));
        assert!(!headers.contains_key("tracestate"));
    }

    #[test]
    fn ids_are_never_zero() {
        let trace = Trace::decide(&HeaderMap::new(), ALL, false, [0; 24]);
        assert_ne!(trace.id, TraceId([0; 16]));
        assert_ne!(trace.span, SpanId([0; 8]));
    }

    proptest! {
        #[test]
        fn no_field_is_too_odd(value in "[ -~]{0,80}") {
            decide(&value, ALL, false);
        }

        #[test]
        fn what_is_told_reads_back(chance: [u8; 24], span: [u8; 8], one_in: u64) {
            let mut headers = HeaderMap::new();
            let trace = Trace::decide(&headers, TracePolicy { one_in }, false, chance);
            trace.tell(&mut headers, SpanId::of(&span));
            let parent = Parent::read(&headers).unwrap();
            prop_assert_eq!(parent.id, trace.id);
            prop_assert_eq!(parent.sampled, trace.sampled);
            prop_assert_eq!(parent.span, SpanId::of(&span));
        }
    }
}
