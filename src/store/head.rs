//! A stored response's head as bytes: versioned, bound to its entry, BLAKE3-checked.
//!
//! ```text
//! magic 8 │ version 4 │ length 4 │ sequence 8 │ … fields … │ BLAKE3 of everything before 32
//! ```
//!
//! The sequence and the key in it tie a head to its entry, so a head read from a wrong place is
//! found out by the caller. Times keep their microseconds; finer parts are cut.

use super::codec::Cursor;
use super::codec::length;
use super::codec::put_run;
use crate::rules::address::Digest;
use crate::rules::address::Sequence;
use crate::rules::freshness::Timing;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::part::Part;
use crate::rules::range::Span;
use crate::rules::stored::StaleWindow;
use crate::rules::stored::StoredResponse;
use crate::rules::tag::Names;
use crate::rules::tag::TagKey;
use crate::rules::validation::Validators;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use std::time::Duration;
use std::time::SystemTime;

/// Encodes a head for the pack.
pub fn encode(sequence: Sequence, response: &StoredResponse) -> Bytes {
    let fields = response.headers.iter();
    let fields: usize = fields.map(|(n, v)| n.as_str().len() + v.len() + 8).sum();
    let names = response.names.url.len() + response.names.tags.len() * 16;
    let mut out = Vec::with_capacity(512_usize.saturating_add(fields).saturating_add(names));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.0.to_le_bytes());
    out.extend_from_slice(&response.key.0);
    out.extend_from_slice(&response.variant.0.to_le_bytes());
    out.extend_from_slice(&response.body.0);
    out.extend_from_slice(&response.body_bytes.to_le_bytes());
    out.extend_from_slice(&response.status.as_u16().to_le_bytes());
    let flags = (u8::from(response.validate_always) * VALIDATE_ALWAYS)
        | (u8::from(response.must_revalidate) * MUST_REVALIDATE);
    out.push(flags);
    put_time(&mut out, response.timing.request_time);
    put_time(&mut out, response.timing.response_time);
    put_time(&mut out, response.timing.date_value);
    put_duration(&mut out, response.timing.age_value);
    put_duration(&mut out, response.lifetime);
    put_duration(&mut out, response.stale.while_revalidate);
    put_duration(&mut out, response.stale.if_error);
    put_validators(&mut out, response.validators.as_ref());
    put_part(&mut out, response.part.as_ref());
    out.extend_from_slice(&length(response.vary.len()).to_le_bytes());
    for name in &response.vary {
        put_run(&mut out, name.as_str().as_bytes());
    }
    out.extend_from_slice(&response.names.site.0);
    put_run(&mut out, response.names.url.as_bytes());
    out.extend_from_slice(&length(response.names.tags.len()).to_le_bytes());
    for tag in &response.names.tags {
        out.extend_from_slice(&tag.0);
    }
    out.extend_from_slice(&length(response.headers.len()).to_le_bytes());
    for (name, value) in &response.headers {
        put_run(&mut out, name.as_str().as_bytes());
        put_run(&mut out, value.as_bytes());
    }
    let total = length(out.len().saturating_add(CHECK_BYTES));
    if let Some(slot) = out.get_mut(LENGTH_AT..LENGTH_AT + 4) {
        slot.copy_from_slice(&total.to_le_bytes());
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(check.as_bytes());
    Bytes::from(out)
}

/// Decodes and checks a head. `None` when any bit of it is not as it was written, or it is of
/// another version.
pub fn decode(bytes: &[u8]) -> Option<(Sequence, StoredResponse)> {
    let (checked, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    let mut cursor = Cursor::new(checked);
    let known = cursor.array::<8>()? == MAGIC && cursor.u32()? == VERSION;
    if !known || usize::try_from(cursor.u32()?).ok()? != bytes.len() {
        return None;
    }
    if blake3::hash(checked) != blake3::Hash::from_bytes(*check) {
        return None;
    }
    let sequence = Sequence(cursor.u64()?);
    let response = fields(&mut cursor)?;
    cursor.is_empty().then_some((sequence, response))
}

fn fields(cursor: &mut Cursor<'_>) -> Option<StoredResponse> {
    let key = PrimaryKey(cursor.array()?);
    let variant = VariantKey(cursor.u64()?);
    let body = Digest(cursor.array()?);
    let body_bytes = cursor.u64()?;
    let status = StatusCode::from_u16(cursor.u16()?).ok()?;
    let flags = cursor.u8()?;
    let timing = Timing {
        request_time: time(cursor)?,
        response_time: time(cursor)?,
        date_value: time(cursor)?,
        age_value: duration(cursor)?,
    };
    Some(StoredResponse {
        key,
        variant,
        status,
        timing,
        lifetime: duration(cursor)?,
        stale: StaleWindow {
            while_revalidate: duration(cursor)?,
            if_error: duration(cursor)?,
        },
        validate_always: flags & VALIDATE_ALWAYS != 0,
        must_revalidate: flags & MUST_REVALIDATE != 0,
        validators: validators(cursor)?,
        part: part(cursor)?,
        vary: vary(cursor)?,
        names: names(cursor)?,
        headers: headers(cursor)?,
        body_bytes,
        body,
    })
}

fn put_validators(out: &mut Vec<u8>, validators: Option<&Validators>) {
    match validators {
        None => out.push(0),
        Some(Validators::ETag(etag)) => {
            out.push(1);
            put_run(out, etag.as_bytes());
        }
        Some(Validators::LastModified(date)) => {
            out.push(2);
            put_run(out, date.as_bytes());
        }
        Some(Validators::Both {
            etag,
            last_modified,
        }) => {
            out.push(3);
            put_run(out, etag.as_bytes());
            put_run(out, last_modified.as_bytes());
        }
    }
}

fn validators(cursor: &mut Cursor<'_>) -> Option<Option<Validators>> {
    Some(match cursor.u8()? {
        0 => None,
        1 => Some(Validators::ETag(value(cursor)?)),
        2 => Some(Validators::LastModified(value(cursor)?)),
        3 => Some(Validators::Both {
            etag: value(cursor)?,
            last_modified: value(cursor)?,
        }),
        _ => return None,
    })
}

fn put_part(out: &mut Vec<u8>, part: Option<&Part>) {
    let Some(part) = part else {
        return out.push(0);
    };
    out.push(1);
    // No fill has the sequence zero.
    let series = part.series.unwrap_or_default().0;
    for number in [part.span.first(), part.span.last(), part.complete, series] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn part(cursor: &mut Cursor<'_>) -> Option<Option<Part>> {
    if cursor.u8()? == 0 {
        return Some(None);
    }
    let (first, last, complete) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let series = Some(Sequence(cursor.u64()?)).filter(|series| series.0 > 0);
    Some(Some(Part {
        span: Span::new(first, last, complete)?,
        complete,
        series,
    }))
}

fn vary(cursor: &mut Cursor<'_>) -> Option<Vec<HeaderName>> {
    // Each name takes more than four bytes, so a false count ends with the bytes.
    (0..cursor.u32()?).map(|_| name(cursor)).collect()
}

fn names(cursor: &mut Cursor<'_>) -> Option<Names> {
    Some(Names {
        site: TagKey(cursor.array()?),
        url: std::str::from_utf8(cursor.run()?).ok()?.into(),
        // Each takes bytes of its own, so a false count ends with the bytes.
        tags: (0..cursor.u32()?)
            .map(|_| Some(TagKey(cursor.array()?)))
            .collect::<Option<Vec<TagKey>>>()?,
    })
}

fn headers(cursor: &mut Cursor<'_>) -> Option<HeaderMap> {
    let count = cursor.u32()?;
    let most = cursor.len() / 8;
    let mut headers = HeaderMap::try_with_capacity(usize::try_from(count).ok()?.min(most)).ok()?;
    for _ in 0..count {
        let name = name(cursor)?;
        headers.try_append(name, value(cursor)?).ok()?;
    }
    Some(headers)
}

fn name(cursor: &mut Cursor<'_>) -> Option<HeaderName> {
    HeaderName::from_lowercase(cursor.run()?).ok()
}

fn value(cursor: &mut Cursor<'_>) -> Option<HeaderValue> {
    HeaderValue::from_bytes(cursor.run()?).ok()
}

fn put_time(out: &mut Vec<u8>, time: SystemTime) {
    let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros())
            .map_or(i64::MIN, |micros| micros.saturating_neg()),
    };
    out.extend_from_slice(&micros.to_le_bytes());
}

fn time(cursor: &mut Cursor<'_>) -> Option<SystemTime> {
    let micros = cursor.i64()?;
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.extend_from_slice(&duration.as_secs().to_le_bytes());
    out.extend_from_slice(&duration.subsec_nanos().to_le_bytes());
}

fn duration(cursor: &mut Cursor<'_>) -> Option<Duration> {
    let seconds = cursor.u64()?;
    let nanos = cursor.u32()?;
    // More would carry into the seconds, and a carry past the last second would panic.
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

const MAGIC: [u8; 8] = *b"ldr-head";
const VERSION: u32 = 3;
const LENGTH_AT: usize = 12;
const CHECK_BYTES: usize = 32;
const VALIDATE_ALWAYS: u8 = 1;
const MUST_REVALIDATE: u8 = 2;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::store) fn sample() -> StoredResponse {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("text/css"));
        headers.append("link", HeaderValue::from_static("</a>; rel=preload"));
        headers.append("link", HeaderValue::from_static("</b>; rel=preload"));
        headers.append("x-bytes", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        StoredResponse {
            key: PrimaryKey([7; 16]),
            variant: VariantKey(9),
            vary: vec![HeaderName::from_static("accept-encoding")],
            names: Names {
                site: TagKey([9; 16]),
                url: "a.test/style.css?v=1".into(),
                tags: vec![TagKey([1; 16]), TagKey([2; 16])],
            },
            status: StatusCode::OK,
            headers,
            timing: Timing {
                request_time: at,
                response_time: at + Duration::from_millis(20),
                date_value: SystemTime::UNIX_EPOCH - Duration::from_secs(3),
                age_value: Duration::new(4, 5),
            },
            lifetime: Duration::MAX,
            stale: StaleWindow {
                while_revalidate: Duration::from_secs(30),
                if_error: Duration::ZERO,
            },
            validate_always: false,
            must_revalidate: true,
            validators: Some(Validators::Both {
                etag: HeaderValue::from_static("\"v1\""),
                last_modified: HeaderValue::from_static("Tue, 15 Nov 1994 12:45:26 GMT"),
            }),
            body_bytes: 12,
            body: Digest::of(b"body"),
            part: None,
        }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let bytes = encode(Sequence(42), &sample());
        let (sequence, response) = decode(&bytes).unwrap();
        assert_eq!(sequence, Sequence(42));
        assert_eq!(response, sample());
        let links: Vec<_> = response.headers.get_all("link").iter().collect();
        assert_eq!(links, ["</a>; rel=preload", "</b>; rel=preload"]);
    }

    #[test]
    fn every_changed_bit_is_found() {
        let bytes = encode(Sequence(1), &sample());
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "bit in byte {at}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = encode(Sequence(1), &sample());
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
    }

    /// Puts a valid check behind `fields`, so that what is inside is really decoded.
    fn sealed(fields: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&length(16 + fields.len() + CHECK_BYTES).to_le_bytes());
        out.extend_from_slice(fields);
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    #[test]
    fn a_false_count_takes_no_memory() {
        let bytes = encode(Sequence(1), &sample());
        let fields = &bytes[16..bytes.len() - CHECK_BYTES];
        for at in 0..fields.len().saturating_sub(4) {
            let mut changed = fields.to_vec();
            changed[at..at + 4].copy_from_slice(&[0xff; 4]);
            drop(decode(&sealed(&changed)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(decode(&bytes), None);
            drop(decode(&sealed(&bytes)));
        }

        #[test]
        fn no_mutation_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let bytes = encode(Sequence(1), &sample());
            let mut fields = bytes[16..bytes.len() - CHECK_BYTES].to_vec();
            for (index, value) in changes {
                let at = index.index(fields.len());
                fields[at] = value;
            }
            if let Some((sequence, response)) = decode(&sealed(&fields)) {
                prop_assert_eq!(decode(&encode(sequence, &response)), Some((sequence, response)));
            }
        }
    }
}
