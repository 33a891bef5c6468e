//! Is a 304 about a stored response (RFC 9111 §4.3.4), and what are its fields then (§3.2)?

use crate::arrival;
use crate::normal;
use crate::policy;
use crate::tally::Known;
use crate::tally::Tally;
use crate::tally::compare_all;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::request;
use http::response;
use http_cache_semantics::AfterResponse;
use http_cache_semantics::CacheOptions;
use http_cache_semantics::CachePolicy;
use larder::rules::key::PrimaryKey;
use larder::rules::storable::BodyEnd;
use larder::rules::storable::Storable;
use larder::rules::stored::StoredResponse;
use larder::rules::validation::freshen;
use larder::rules::validation::selects;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::Strategy;
use proptest::sample::select;

const CASES: u32 = 20_000;

type Fields = Vec<(&'static str, &'static str)>;

/// A stored response and a 304 that came when it was validated.
#[derive(Debug)]
struct Answers {
    stored: Fields,
    update: Fields,
    ours: bool,
    oracle: bool,
}

/// One field of a response that a 304 freshened.
#[derive(Debug)]
struct Merged {
    name: &'static str,
    stored: Vec<&'static str>,
    update: Vec<&'static str>,
    ours: Vec<String>,
    oracle: Vec<String>,
}

fn tag(fields: &Fields) -> Option<&'static str> {
    values(fields, "etag").first().copied()
}

fn values(fields: &Fields, name: &str) -> Vec<&'static str> {
    let named = fields.iter().filter(|(field, _)| *field == name);
    named.map(|(_, value)| *value).collect()
}

const SELECTING: &[Known<Answers>] = &[
    Known {
        name: "a strong tag against a weak one",
        because: "9111 §4.3.4: where no response has \"at least one of the same strong validators\", \
                  none is updated",
        applies: |a| {
            let weak = |tag: &str| tag.starts_with("W/");
            let strong = tag(&a.update).is_some_and(|tag| !weak(tag));
            a.oracle && strong && tag(&a.stored).is_some_and(weak)
        },
    },
    Known {
        name: "a 304 without a validator",
        because: "9111 §4.3.4: it answers the condition we sent, which only one response gave",
        applies: |a| {
            let says = |name| !values(&a.update, name).is_empty();
            a.ours && !says("etag") && !says("last-modified")
        },
    },
    Known {
        name: "a tag where none was stored",
        because: "9111 §4.3.4: nothing stored has that validator, whatever its date",
        applies: |a| a.oracle && tag(&a.update).is_some() && tag(&a.stored).is_none(),
    },
];

const FIELDS: &[Known<Merged>] = &[
    Known {
        name: "a field that was not there",
        because: "9111 §3.2: \"the cache MUST add each header field in the provided response\"",
        applies: |m| m.stored.is_empty() && m.ours == m.update && m.oracle.is_empty(),
    },
    Known {
        name: "a field on several lines",
        because: "9110 §5.3: lines of a name are a list, and all of them are the value",
        applies: |m| {
            // What describes the stored bytes stays as it was.
            let kept = m.update.is_empty() || m.name == "content-encoding";
            let now = if kept { &m.stored } else { &m.update };
            now.len() > 1 && m.ours == *now && m.oracle.len() < now.len()
        },
    },
];

#[test]
fn a_304_is_about_the_same_responses_and_changes_the_same_fields() {
    let (selecting, fields) = (Tally::new(SELECTING), Tally::new(FIELDS));
    compare_all(CASES, &validations(), |(stored, update)| {
        let (before, not_modified) = (response(200, &stored), response(304, &update));
        let ours = stored_response(&before);
        let oracle = oracle(&before, &not_modified);
        let answers = Answers {
            ours: selects(&not_modified, &ours),
            oracle: oracle.is_some(),
            stored,
            update,
        };
        selecting.compare(&answers, answers.ours == answers.oracle)?;
        let Some(oracle) = oracle.filter(|_| answers.ours) else {
            return Ok(());
        };
        let ours = freshen(&ours, &not_modified, &policy(), arrival(), arrival());
        for name in COMPARED {
            let merged = Merged {
                name,
                stored: values(&answers.stored, name),
                update: values(&answers.update, name),
                ours: text(&ours.headers, name),
                oracle: text(&oracle.headers, name),
            };
            fields.compare(&merged, merged.ours == merged.oracle)?;
        }
        Ok(())
    });
    selecting.close(&format!("304s, {CASES}"));
    fields.close("fields of what both freshen");
}

/// What the oracle makes of the stored response, if the 304 is about it.
fn oracle(before: &response::Parts, not_modified: &response::Parts) -> Option<response::Parts> {
    let request = request();
    let policy = CachePolicy::new_options(&request, before, arrival(), CacheOptions::default());
    match policy.after_response(&request, not_modified, arrival()) {
        AfterResponse::NotModified(_, parts) => Some(parts),
        AfterResponse::Modified(..) => None,
    }
}

fn stored_response(before: &response::Parts) -> StoredResponse {
    let verdict = Storable::decide(
        PrimaryKey([0; 16]),
        &normal(request()),
        before,
        BodyEnd::Framed,
        &policy(),
        arrival(),
        arrival(),
    );
    match verdict {
        Storable::Store(stored) => *stored,
        Storable::Refuse(reason) => panic!("not stored: {reason:?}"),
    }
}

fn request() -> request::Parts {
    let builder = Request::builder().uri("/a").header("host", "example.com");
    builder.body(()).expect("a request").into_parts().0
}

fn response(status: u16, fields: &Fields) -> response::Parts {
    let builder = Response::builder().status(status);
    let mut parts = builder.body(()).expect("a response").into_parts().0;
    for (name, value) in fields {
        parts.headers.append(*name, HeaderValue::from_static(value));
    }
    let fresh = HeaderValue::from_static("max-age=60");
    parts.headers.append("cache-control", fresh);
    parts
}

fn text(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect()
}

/// Fields whose values after a 304 are compared. Content-Length is not stored as a field.
const COMPARED: [&str; 6] = [
    "cache-control",
    "content-encoding",
    "content-type",
    "link",
    "x-one",
    "x-two",
];

fn validations() -> impl Strategy<Value = (Fields, Fields)> {
    let validators = || {
        let tags = select(vec!["\"1\"", "\"1\"", "\"2\"", "W/\"1\"", "W/\"2\""]);
        let dates = select(vec![
            "Tue, 15 Nov 2022 10:20:00 GMT",
            "Tue, 15 Nov 2022 11:20:00 GMT",
        ]);
        (weighted(0.6, tags), weighted(0.5, dates))
    };
    let field = || {
        select(vec![
            ("content-encoding", "gzip"),
            ("content-encoding", "br"),
            ("content-type", "text/plain"),
            ("content-type", "text/html"),
            ("link", "<one>"),
            ("link", "<two>"),
            ("x-one", "a"),
            ("x-one", "b"),
            ("x-two", "c"),
        ])
    };
    let fields = || {
        (validators(), vec(field(), 0..4)).prop_map(|((tag, date), mut fields)| {
            fields.extend(tag.map(|tag| ("etag", tag)));
            fields.extend(date.map(|date| ("last-modified", date)));
            fields
        })
    };
    (fields(), fields())
}
