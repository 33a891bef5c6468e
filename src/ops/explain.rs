//! An explanation as JSON, and the JSON that asks for one; the names are an interface.
//!
//! ```text
//! {"url": …, "method": "GET", "headers": {"Accept": "…"}, "fetch": false} ─► Question
//! Explanation ─► {"request", "site", "key", "would", "stored": […], "fetched"}
//! ```
//!
//! Everything comes from what [`Engine::explain`](crate::flow::Engine::explain) returns; nothing is
//! decided here. No value of Cookie, Authorization, Set-Cookie or their kin is written.

use crate::flow::explain::Answered;
use crate::flow::explain::Explanation;
use crate::flow::explain::Fetched;
use crate::flow::explain::Kept;
use crate::flow::explain::KeyShown;
use crate::flow::explain::Question;
use crate::flow::explain::SiteShown;
use crate::flow::explain::Variant;
use crate::flow::explain::View;
use crate::flow::explain::Whole;
use crate::flow::receipt_id;
use crate::rules::cache_status::Detail;
use crate::rules::freshness::Ages;
use crate::rules::freshness::Freshness;
use crate::rules::freshness::Lifetime;
use crate::rules::freshness::LifetimeSource;
use crate::rules::freshness::Timing;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::reason::Meaning;
use crate::rules::secret::is_hidden;
use crate::rules::selecting::Shown;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::Validators;
use crate::state::marks::Verdict;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::SystemTime;

/// The JSON of a question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Lines>,
    #[serde(default)]
    fetch: bool,
}

/// One line of a field, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Lines {
    One(String),
    Many(Vec<String>),
}

/// Reads a question; what is wrong with it otherwise.
pub fn read(body: &[u8]) -> Result<Question, String> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|error| format!("not a question: {error}"))?;
    let method = asked.method.as_deref().unwrap_or("GET");
    let method = Method::from_bytes(method.as_bytes());
    let mut headers = HeaderMap::new();
    for (name, lines) in asked.headers {
        let lines = match lines {
            Lines::One(line) => vec![line],
            Lines::Many(lines) => lines,
        };
        for line in lines {
            if headers.len() >= FIELDS_MAX {
                return Err(format!("at most {FIELDS_MAX} fields"));
            }
            // The value may be a secret: it is not repeated.
            let bad = || format!("{name:?} is no field name, or its value is none");
            let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            let line = HeaderValue::from_str(&line).map_err(|_| bad())?;
            headers.append(field, line);
        }
    }
    Ok(Question {
        url: asked.url,
        method: method.map_err(|_| "that is no method".to_owned())?,
        headers,
        fetch: asked.fetch,
    })
}

/// Writes an explanation.
pub fn render(told: &Explanation) -> Value {
    let stored = told.variants.iter().map(|variant| entry(variant, told.at));
    json!({
        "at": time(told.at),
        "request": {
            "method": told.method.as_str(),
            "target": told.asked,
            "url": told.key.as_ref().map(|key| &key.url),
        },
        "site": told.site.as_ref().map(site),
        "key": told.key.as_ref().map(key),
        "would": would(told),
        "stored": stored.collect::<Vec<Value>>(),
        "fetched": told.fetched.as_ref().map(fetched),
    })
}

fn site(site: &SiteShown) -> Value {
    json!({"name": site.name, "pattern": site.pattern, "upstream": site.upstream})
}

fn key(key: &KeyShown) -> Value {
    let parts = key.parts.iter();
    let parts = parts.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
    json!({
        "key": hex(&key.key.0),
        "alike": key.alike.map(|key| hex(&key.0)),
        "parts": parts.collect::<Map<String, Value>>(),
        "dropped": key.dropped,
        "selecting": fields(&key.selecting),
    })
}

fn would(told: &Explanation) -> Value {
    let line = told.outcome.field_value(&told.identifier, None);
    let mut would = reason(told.reason(), &told.meaning());
    would.extend([
        ("act".to_owned(), Value::from(told.act.token())),
        (
            "status".to_owned(),
            told.status.map(|status| status.as_u16()).into(),
        ),
        (
            "cache_status".to_owned(),
            Value::from(String::from_utf8_lossy(line.as_bytes())),
        ),
        ("underway".to_owned(), Value::from(told.underway)),
    ]);
    Value::Object(would)
}

/// A word of the vocabulary with what it means.
fn reason(word: &str, meaning: &Meaning) -> Map<String, Value> {
    Map::from_iter([
        ("reason".to_owned(), Value::from(word)),
        ("because".to_owned(), Value::from(&*meaning.because)),
        ("section".to_owned(), meaning.section.into()),
        ("remedy".to_owned(), meaning.remedy.into()),
    ])
}

fn entry(variant: &Variant, now: SystemTime) -> Value {
    let mut entry = match &variant.view {
        View::Hidden => Map::from_iter([("state".to_owned(), Value::from("purged"))]),
        View::Unreadable => Map::from_iter([("state".to_owned(), Value::from("unreadable"))]),
        View::Whole(whole) => whole_entry(whole, now),
    };
    entry.extend([
        ("sequence".to_owned(), variant.found.sequence.0.into()),
        ("key".to_owned(), hex(&variant.found.key.0).into()),
        (
            "variant".to_owned(),
            format!("{:016x}", variant.found.variant.0).into(),
        ),
    ]);
    Value::Object(entry)
}

fn whole_entry(whole: &Whole, now: SystemTime) -> Map<String, Value> {
    let response = &whole.response;
    let (state, since) = match whole.purged {
        Verdict::Clear => ("stored", None),
        Verdict::Stale(since) => ("soft-purged", Some(time(since))),
        Verdict::Gone => ("purged", None),
    };
    let (word, meaning) = (whole.weighed.basis.token(), whole.weighed.basis.meaning());
    let mut steps = ages(&response.timing, &whole.ages, now);
    steps.extend(lifetime(
        response,
        whole.lifetime.as_ref(),
        whole.field.as_ref(),
    ));
    steps.push(match whole.weighed.freshness {
        Freshness::Fresh { ttl } => {
            step("fresh_for", ttl, "RFC 9111 §4.2", "lifetime - current_age")
        }
        Freshness::Stale { by } => step("stale_for", by, "RFC 9111 §4.2", "current_age - lifetime"),
    });
    let mut entry = head(response, &whole.vary);
    entry.extend([
        ("state".to_owned(), Value::from(state)),
        ("soft_purged_at".to_owned(), since.into()),
        (
            "purges".to_owned(),
            whole.marks.iter().map(purge).collect::<Vec<_>>().into(),
        ),
        ("selected".to_owned(), Value::from(whole.selected)),
        ("chosen".to_owned(), Value::from(whole.chosen)),
        (
            "age".to_owned(),
            Value::from(whole.ages.current_age.as_secs()),
        ),
        ("freshness".to_owned(), Value::from(steps)),
        ("may".to_owned(), Value::Object(reason(word, &meaning))),
    ]);
    entry
}

/// A purge that covers an entry, by what its receipt goes by.
fn purge((mark, selector): &(Mark, Selector)) -> Value {
    json!({
        "id": receipt_id(mark.sequence),
        "kind": selector.kind(),
        "soft": mark.soft,
        "at": time(mark.at),
    })
}

/// What can be said of the head of a stored response.
fn head(response: &StoredResponse, vary: &[(String, Shown)]) -> Map<String, Value> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (etag, last_modified) = match &response.validators {
        None => (None, None),
        Some(Validators::ETag(etag)) => (Some(text(etag)), None),
        Some(Validators::LastModified(date)) => (None, Some(text(date))),
        Some(Validators::Both {
            etag,
            last_modified,
        }) => (Some(text(etag)), Some(text(last_modified))),
    };
    let tags = response.names.tags.iter().map(|tag| hex(&tag.0));
    let part = response.part.map(
        |part| json!({"first": part.span.first(), "last": part.span.last(), "of": part.complete}),
    );
    let members = [
        ("status", Value::from(response.status.as_u16())),
        ("bytes", response.body_bytes.into()),
        ("part", part.into()),
        ("vary", fields(vary)),
        ("url", (*response.names.url).into()),
        ("tags", tags.collect::<Vec<String>>().into()),
        ("etag", etag.into()),
        ("last_modified", last_modified.into()),
        ("validate_always", response.validate_always.into()),
        ("must_revalidate", response.must_revalidate.into()),
        (
            "stale_while_revalidate",
            response.stale.while_revalidate.as_secs().into(),
        ),
        ("stale_if_error", response.stale.if_error.as_secs().into()),
        ("headers", shown_fields(&response.headers)),
    ];
    let members = members.map(|(name, value)| (name.to_owned(), value));
    members.into_iter().collect()
}

/// The fields that decide about storing and reuse, and those that tell variants apart.
fn shown_fields(headers: &HeaderMap) -> Value {
    let decides = |name: &HeaderName| {
        let name = name.as_str();
        name.ends_with("cache-control") || DECISIVE.contains(&name)
    };
    let lines = headers.iter().filter(|(name, _)| decides(name));
    let lines = lines.map(|(name, value)| match is_hidden(name) {
        true => json!([name.as_str(), null]),
        false => {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text: String = text.chars().take(VALUE_CHARS_MAX).collect();
            json!([name.as_str(), text])
        }
    });
    lines.collect()
}

/// Every step of the age (RFC 9111 §4.2.3).
fn ages(timing: &Timing, ages: &Ages, now: SystemTime) -> Vec<Value> {
    let at = |name, at, section, says| json!({"name": name, "time": time(at), "section": section, "says": says});
    vec![
        at(
            "date_value",
            timing.date_value,
            "RFC 9110 §6.6.1",
            "Date, or the time of arrival",
        ),
        at(
            "request_time",
            timing.request_time,
            AGE,
            "the request went out",
        ),
        at(
            "response_time",
            timing.response_time,
            AGE,
            "the response came",
        ),
        at("now", now, AGE, ""),
        step("age_value", timing.age_value, "RFC 9111 §5.1", "Age"),
        step(
            "apparent_age",
            ages.apparent_age,
            AGE,
            "response_time - date_value, not less than 0",
        ),
        step(
            "response_delay",
            ages.response_delay,
            AGE,
            "response_time - request_time",
        ),
        step(
            "corrected_age_value",
            ages.corrected_age_value,
            AGE,
            "age_value + response_delay",
        ),
        step(
            "corrected_initial_age",
            ages.corrected_initial_age,
            AGE,
            "the greater of apparent_age and corrected_age_value",
        ),
        step(
            "resident_time",
            ages.resident_time,
            AGE,
            "now - response_time",
        ),
        step(
            "current_age",
            ages.current_age,
            AGE,
            "corrected_initial_age + resident_time",
        ),
    ]
}

/// The freshness lifetime and where it comes from (RFC 9111 §4.2.1).
fn lifetime(
    response: &StoredResponse,
    granted: Option<&Lifetime>,
    field: Option<&HeaderName>,
) -> Vec<Value> {
    let Some(granted) = granted else {
        let says = "nothing in the fields grants one";
        return vec![step("lifetime", response.lifetime, "RFC 9111 §4.2.1", says)];
    };
    let source = granted.source;
    let field = field.map_or("cache-control", HeaderName::as_str);
    let says = match source {
        LifetimeSource::SMaxage | LifetimeSource::MaxAge => {
            format!("{} in {field}", source.token())
        }
        LifetimeSource::Expires => "Expires - date_value".to_owned(),
        LifetimeSource::Heuristic => {
            "a tenth of date_value - Last-Modified, at most the site's heuristic_max".to_owned()
        }
    };
    let mut steps = vec![step("lifetime", response.lifetime, source.section(), &says)];
    if granted.length != response.lifetime {
        let says = format!("{says}: what the config of now would grant it");
        steps.push(step(
            "lifetime_now",
            granted.length,
            source.section(),
            &says,
        ));
    }
    steps
}

fn step(name: &str, length: Duration, section: &str, says: &str) -> Value {
    let seconds = (length.as_secs_f64() * 1000.0).round() / 1000.0;
    json!({"name": name, "seconds": seconds, "section": section, "says": says})
}

fn fetched(fetched: &Fetched) -> Value {
    match fetched {
        Fetched::Failed(detail, error) => {
            let mut failed = reason(detail.token(), &detail.meaning());
            failed.insert("error".to_owned(), Value::from(error.as_str()));
            Value::Object(failed)
        }
        Fetched::Answered(answered) => answer(answered),
    }
}

fn answer(answered: &Answered) -> Value {
    let (storable, kept) = match &answered.verdict {
        Ok(kept) => (Map::new(), Some(kept_entry(kept))),
        Err(detail) => (refusal(*detail), None),
    };
    let range = answered.fetch.field();
    let range = range.map(|range| String::from_utf8_lossy(range.as_bytes()).into_owned());
    json!({
        "backend": &*answered.backend,
        "range": range,
        "took_ms": u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX),
        "status": answered.status.as_u16(),
        "bytes": answered.body_bytes,
        "headers": shown_fields(&answered.headers),
        "would_store": kept.is_some(),
        "as": kept,
        "not_stored": (!storable.is_empty()).then_some(storable),
    })
}

fn refusal(detail: Detail) -> Map<String, Value> {
    reason(detail.token(), &detail.meaning())
}

fn kept_entry(kept: &Kept) -> Value {
    let response = &kept.response;
    let mut steps = ages(&response.timing, &kept.ages, response.timing.response_time);
    steps.extend(lifetime(
        response,
        kept.lifetime.as_ref(),
        kept.field.as_ref(),
    ));
    let mut entry = head(response, &kept.vary);
    // They are beside it, and the length is not known before the body has come.
    entry.remove("headers");
    entry.remove("bytes");
    entry.extend([
        ("key".to_owned(), hex(&response.key.0).into()),
        (
            "variant".to_owned(),
            format!("{:016x}", response.variant.0).into(),
        ),
        ("freshness".to_owned(), Value::from(steps)),
    ]);
    Value::Object(entry)
}

/// Fields to select by, and what the request has in them.
fn fields(fields: &[(String, Shown)]) -> Value {
    let field = |(name, shown): &(String, Shown)| match shown {
        Shown::Absent => json!({"field": name, "present": false}),
        Shown::Hidden => json!({"field": name, "present": true, "hidden": true}),
        Shown::Value(value) => json!({"field": name, "present": true, "value": value}),
    };
    fields.iter().map(field).collect()
}

/// A time between 1970 and the year 9999; others are the nearest of these.
fn time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().min(LAST_TIME);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where ages are defined.
const AGE: &str = "RFC 9111 §4.2.3";
/// Most lines of fields in a question.
const FIELDS_MAX: usize = 256;
/// From 1970 to the last second of the year 9999.
const LAST_TIME: Duration = Duration::from_secs(253_402_300_799);
/// Longest value that is shown.
const VALUE_CHARS_MAX: usize = 1000;
/// Fields beside Cache-Control and its targeted kin that explain what becomes of a response.
const DECISIVE: [&str; 20] = [
    "age",
    "cache-groups",
    "cache-status",
    "cache-tag",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "no-vary-search",
    "pragma",
    "set-cookie",
    "surrogate-control",
    "surrogate-key",
    "vary",
    "xkey",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_needs_no_more_than_a_url() {
        let question = read(b"{\"url\": \"http://a.test/\"}").unwrap();
        assert_eq!(question.url, "http://a.test/");
        assert_eq!(question.method, Method::GET);
        assert!(question.headers.is_empty() && !question.fetch);
    }

    #[test]
    fn a_question_may_have_fields_of_one_line_or_several() {
        let question = read(
            b"{\"url\": \"u\", \"method\": \"HEAD\", \"fetch\": true, \
              \"headers\": {\"Accept\": \"a\", \"x-a\": [\"1\", \"2\"]}}",
        );
        let question = question.unwrap();
        assert_eq!(question.method, Method::HEAD);
        assert_eq!(question.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(question.headers["accept"], "a");
        assert!(question.fetch);
    }

    #[test]
    fn what_is_no_question_is_refused_without_a_word_of_its_secrets() {
        for body in [
            "",
            "{}",
            "[]",
            "{\"url\": 1}",
            "{\"url\": \"u\", \"else\": 1}",
            "{\"url\": \"u\", \"method\": \"G T\"}",
            "{\"url\": \"u\", \"headers\": {\"a b\": \"word\"}}",
            "{\"url\": \"u\", \"headers\": {\"cookie\": \"word\\n\"}}",
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert!(!error.contains("word"), "{error}");
        }
    }

    #[test]
    fn a_question_has_a_bounded_number_of_fields() {
        let of = |count: usize| {
            let lines = vec!["1"; count];
            read(
                json!({"url": "u", "headers": {"a": lines}})
                    .to_string()
                    .as_bytes(),
            )
        };
        assert!(of(FIELDS_MAX).is_ok());
        assert!(of(FIELDS_MAX + 1).is_err());
    }

    #[test]
    fn no_secret_of_a_response_is_shown() {
        let lines = [
            ("set-cookie", "session=word"),
            ("cache-control", "no-cache"),
            ("x-other", "y"),
        ];
        let headers = lines.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let shown = shown_fields(&HeaderMap::from_iter(headers));
        let wanted = json!([["set-cookie", null], ["cache-control", "no-cache"]]);
        assert_eq!(shown, wanted);
    }

    #[test]
    fn times_that_cannot_be_written_are_the_nearest_that_can() {
        let day = Duration::from_secs(86_400);
        let early = SystemTime::UNIX_EPOCH - day;
        assert_eq!(time(early), "1970-01-01T00:00:00.000Z");
        let late = SystemTime::UNIX_EPOCH + LAST_TIME + day;
        assert_eq!(time(late), "9999-12-31T23:59:59.000Z");
    }

    proptest! {
        #[test]
        fn no_question_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..80)) {
            drop(read(&body));
        }

        #[test]
        fn whatever_a_field_is_it_is_read_or_refused(name in "\\PC{0,20}", value in "\\PC{0,20}") {
            let body = json!({"url": "u", "headers": {&name: &value}}).to_string();
            if let Ok(question) = read(body.as_bytes()) {
                prop_assert_eq!(question.headers.len(), 1);
            }
        }
    }
}
