//! Spans as an `ExportTraceServiceRequest` in OTLP's JSON: ids in hex, 64-bit numbers as strings.
//!
//! Attributes have the names of OpenTelemetry's conventions for HTTP where there are such. What clients
//! sent is told as far as the access log tells it: no query, no Authorization, Cookie or Set-Cookie.

use crate::flow::Report;
use crate::flow::Span;
use crate::flow::Step;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use http::HeaderValue;
use http::Method;
use http::Version;
use serde_json::Value;
use serde_json::json;
use std::time::Duration;
use std::time::SystemTime;

/// Writes a batch.
pub(super) fn render(service: &str, batch: &[Span]) -> String {
    let spans: Vec<Value> = batch.iter().map(span).collect();
    let resource = [
        text("service.name", service),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "larder"}, "spans": spans}],
    }]})
    .to_string()
}

fn span(span: &Span) -> Value {
    let (parent, kind) = match &span.step {
        Step::Request(_) => (span.trace.parent, SERVER),
        Step::Lookup(_) => (Some(span.trace.span), INTERNAL),
        Step::Exchange { .. } => (Some(span.trace.span), CLIENT),
    };
    let (name, attributes, failed) = match &span.step {
        Step::Request(report) => request(report),
        Step::Lookup(outcome) => ("lookup".to_owned(), cache(outcome), None),
        Step::Exchange {
            method,
            backend,
            result,
        } => {
            let mut attributes = vec![
                text("http.request.method", method_name(method)),
                text("larder.backend", backend),
            ];
            let failed = match result {
                Ok(status) => {
                    attributes.push(number("http.response.status_code", status.as_u16()));
                    status.is_server_error().then(|| status.as_str().to_owned())
                }
                Err(error) => Some(error.token().to_owned()),
            };
            (
                format!("{} origin", method_name(method)),
                attributes,
                failed,
            )
        }
    };
    let mut attributes = attributes;
    attributes.extend(failed.as_deref().map(|failed| text("error.type", failed)));
    let status = match failed {
        Some(_) => json!({"code": FAILED}),
        None => json!({}),
    };
    json!({
        "traceId": span.trace.id.to_string(),
        "spanId": span.id.to_string(),
        "parentSpanId": parent.map_or(String::new(), |parent| parent.to_string()),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanos(span.at).to_string(),
        "endTimeUnixNano": nanos(span.at.checked_add(span.took).unwrap_or(span.at)).to_string(),
        "attributes": attributes,
        "status": status,
    })
}

/// The name, the attributes, and what went wrong, of a request.
fn request(report: &Report) -> (String, Vec<Value>, Option<String>) {
    let method = method_name(&report.method);
    let status = report.status;
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.path", report.uri.path()),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version(report.version)),
        text("client.address", &report.client.ip().to_string()),
        number("http.response.status_code", status.as_u16()),
        number("http.response.body.size", report.body_bytes),
    ];
    let field = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = report.host.as_ref().map(field);
    attributes.extend(host.map(|host| text("server.address", &host)));
    let agent = report.user_agent.as_ref().map(field);
    attributes.extend(agent.map(|agent| text("user_agent.original", &agent)));
    attributes.extend(report.site.iter().map(|site| text("larder.site", site)));
    let cipher = report.cipher.as_ref();
    attributes.extend(cipher.map(|cipher| text("tls.cipher", cipher.suite)));
    attributes.extend(cache(&report.outcome));
    let error = report.error.map(|error| error.token().to_owned());
    let failed = status.is_server_error().then(|| {
        let status = status.as_str().to_owned();
        error.unwrap_or(status)
    });
    (method.to_owned(), attributes, failed)
}

/// How the cache handled it.
fn cache(outcome: &Outcome) -> Vec<Value> {
    let mut attributes = vec![flag("larder.cache.hit", outcome.hit)];
    let forward = outcome.fwd.map(Forward::token);
    attributes.extend(forward.map(|forward| text("larder.cache.fwd", forward)));
    let detail = outcome.detail.map(Detail::token);
    attributes.extend(detail.map(|detail| text("larder.cache.detail", detail)));
    if let Some(ttl) = outcome.ttl {
        attributes.push(number("larder.cache.ttl", ttl));
    }
    if outcome.stored {
        attributes.push(flag("larder.cache.stored", true));
    }
    if outcome.collapsed {
        attributes.push(flag("larder.cache.collapsed", true));
    }
    attributes
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: impl ToString) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn flag(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// A method that everybody knows, or the word that stands for all others.
fn method_name(method: &Method) -> &str {
    match KNOWN_METHODS.contains(&method.as_str()) {
        true => method.as_str(),
        false => "_OTHER",
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "unknown",
    }
}

fn nanos(at: SystemTime) -> u128 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_nanos)
}

const KNOWN_METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// Kinds of spans, and a status, by their numbers in OTLP.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const FAILED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::access_log::tests::report;
    use crate::rules::proxy_status::ProxyError;
    use crate::rules::trace::SpanId;
    use crate::rules::trace::Trace;
    use crate::rules::trace::TraceId;
    use http::StatusCode;
    use std::sync::Arc;

    fn told(step: Step) -> Value {
        let span = Span {
            trace: Trace {
                id: TraceId([0xab; 16]),
                parent: Some(SpanId([1; 8])),
                span: SpanId([2; 8]),
                sampled: true,
            },
            id: SpanId([3; 8]),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            took: Duration::from_nanos(5),
            step,
        };
        let all: Value = serde_json::from_str(&render("shop", &[span])).unwrap();
        let resource = &all["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!(resource["value"]["stringValue"], "shop");
        all["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
    }

    fn attribute(span: &Value, key: &str) -> Value {
        let all = span["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        found.map_or(Value::Null, |attribute| attribute["value"].clone())
    }

    #[test]
    fn a_request_is_a_server_span_under_whoever_asked() {
        let span = told(Step::Request(Box::new(report())));
        assert_eq!(span["traceId"], "abababababababababababababababab");
        assert_eq!(span["spanId"], "0303030303030303");
        assert_eq!(span["parentSpanId"], "0101010101010101");
        assert_eq!((&span["name"], &span["kind"]), (&json!("GET"), &json!(2)));
        assert_eq!(span["startTimeUnixNano"], "1000000000");
        assert_eq!(span["endTimeUnixNano"], "1000000005");
        assert_eq!(attribute(&span, "url.path"), json!({"stringValue": "/a"}));
        let status = attribute(&span, "http.response.status_code");
        assert_eq!(status, json!({"intValue": "200"}));
        assert_eq!(
            attribute(&span, "larder.cache.hit"),
            json!({"boolValue": true})
        );
        assert_eq!(span["status"], json!({}));
    }

    #[test]
    fn an_exchange_is_a_client_span_under_the_request_and_says_what_went_wrong() {
        let exchange = |result| Step::Exchange {
            method: Method::GET,
            backend: Arc::from("http://a:1"),
            result,
        };
        let span = told(exchange(Ok(StatusCode::OK)));
        assert_eq!(span["parentSpanId"], "0202020202020202");
        assert_eq!(span["kind"], 3);
        assert_eq!(attribute(&span, "error.type"), Value::Null);
        let span = told(exchange(Err(ProxyError::HttpResponseTimeout)));
        assert_eq!(span["status"]["code"], 2);
        let error = json!({"stringValue": "http_response_timeout"});
        assert_eq!(attribute(&span, "error.type"), error);
    }

    #[test]
    fn a_method_of_the_clients_own_is_not_told() {
        let strange = Report {
            method: Method::from_bytes(b"SECRET").unwrap(),
            ..report()
        };
        let span = told(Step::Request(Box::new(strange)));
        assert_eq!(span["name"], "_OTHER");
    }
}
