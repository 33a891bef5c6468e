//! Purges in the words of Cloudflare's API: `POST /client/v4/zones/ID/purge_cache`, with or without
//! `/client/v4`.
//!
//! ```text
//! {"files": ["https://host/path", {"url": …}], "prefixes": ["host/path"], "tags": […], "hosts": […]}
//! {"purge_everything": true}
//! ```
//!
//! A zone that is a site's name narrows what is not of one host anyway; any other means all sites.
//! The fields that a file may be given with select a variant there; here all variants go.

use super::super::admin::AdminError;
use super::given;
use super::object;
use crate::flow::Manner;
use crate::flow::Purge;
use crate::flow::Told;
use crate::flow::What;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    files: Vec<Value>,
    hosts: Vec<String>,
    prefixes: Vec<String>,
    #[serde(deserialize_with = "given")]
    purge_everything: Option<bool>,
    tags: Vec<String>,
}

/// The zone in the path of a purge.
pub(super) fn zone(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/client/v4").unwrap_or(path);
    let zone = rest.strip_prefix("/zones/")?.strip_suffix("/purge_cache")?;
    (!zone.is_empty() && !zone.contains('/')).then_some(zone)
}

/// Reads what to purge.
pub(super) fn read(body: &[u8]) -> Result<Purge, AdminError> {
    let malformed = |why: &str| Err(AdminError::Malformed(why.to_owned()));
    let body: Body =
        object(body).map_err(|error| AdminError::Malformed(format!("not a purge: {error}")))?;
    let Some(files) = body
        .files
        .into_iter()
        .map(url)
        .collect::<Option<Vec<What>>>()
    else {
        return malformed("a file is a url, or an object with url and headers");
    };
    let tags = body.tags.into_iter();
    let tags = tags.map(|text| What::Tag { site: None, text });
    let items = files
        .into_iter()
        .chain(tags)
        .chain(body.hosts.into_iter().map(What::Host))
        .chain(body.prefixes.into_iter().map(What::Prefix));
    let items: Vec<What> = items.collect();
    let what = match (body.purge_everything, items.is_empty()) {
        (Some(true), true) => vec![What::All],
        (None, false) => items,
        (Some(true), false) => return malformed("give purge_everything or items, not both"),
        (Some(false), _) => return malformed("purge_everything can only be true"),
        (None, true) => {
            return malformed("give files, tags, hosts, prefixes or purge_everything");
        }
    };
    Ok(Purge {
        what,
        manner: Manner::Hard,
    })
}

/// The URL of a file, which may say for which fields of a request.
fn url(file: Value) -> Option<What> {
    match file {
        Value::String(url) => Some(What::Url(url)),
        Value::Object(mut fields) => {
            let url = fields.remove("url")?;
            let headers = fields.remove("headers");
            let sound = fields.is_empty() && headers.is_none_or(|headers| headers.is_object());
            url.as_str()
                .filter(|_| sound)
                .map(|url| What::Url(url.to_owned()))
        }
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) => None,
    }
}

/// Tells that it was done.
pub(super) fn tell(told: &Told) -> Value {
    let result = json!({"id": told.receipt.id()});
    json!({"success": true, "errors": [], "messages": [], "result": result})
}

/// Tells an error.
pub(super) fn error(status: StatusCode, message: &str) -> Value {
    let code = match status {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        _ => status.as_u16(),
    };
    let errors = json!([{"code": code, "message": message}]);
    json!({"success": false, "errors": errors, "messages": [], "result": null})
}

/// What Cloudflare's clients know a missing or wrong token by.
const UNAUTHENTICATED: u16 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn what(body: &str) -> Vec<What> {
        read(body.as_bytes()).unwrap().what
    }

    #[test]
    fn files_are_urls_with_or_without_fields() {
        let body = r#"{"files": ["http://a/1", {"url": "http://a/2", "headers": {"CF-IPCountry": "US"}}]}"#;
        let url = |url: &str| What::Url(url.to_owned());
        assert_eq!(what(body), [url("http://a/1"), url("http://a/2")]);
    }

    #[test]
    fn tags_hosts_and_prefixes_may_come_together() {
        let body = r#"{"tags": ["t"], "hosts": ["h"], "prefixes": ["h/p"]}"#;
        let (host, text) = ("h".to_owned(), "t".to_owned());
        let tag = What::Tag { site: None, text };
        assert_eq!(
            what(body),
            [tag, What::Host(host), What::Prefix("h/p".to_owned())]
        );
        assert_eq!(what(r#"{"purge_everything": true}"#), [What::All]);
    }

    #[test]
    fn what_is_no_purge_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"purge_everything": false}"#,
            r#"{"purge_everything": null}"#,
            r#"{"files": "x"}"#,
            r#"{"files": [{"uri": "x"}]}"#,
            r#"{"files": [["x"]]}"#,
            r#"{"files": [{"url": "x", "headers": 1}]}"#,
            r#"[["x"]]"#,
            r#"{"everything": true}"#,
            r#"{"tags": []}"#,
            r#"{"purge_everything": true, "tags": ["t"]}"#,
        ] {
            assert!(
                matches!(read(body.as_bytes()), Err(AdminError::Malformed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn a_zone_stands_in_the_path() {
        assert_eq!(zone("/client/v4/zones/z/purge_cache"), Some("z"));
        assert_eq!(zone("/zones/z/purge_cache"), Some("z"));
        for other in [
            "/zones//purge_cache",
            "/zones/a/b/purge_cache",
            "/zones/z",
            "/client/v4/z",
        ] {
            assert_eq!(zone(other), None, "{other}");
        }
    }

    #[test]
    fn a_wrong_token_is_told_as_cloudflare_does() {
        let told = error(StatusCode::UNAUTHORIZED, "no");
        assert_eq!(told["errors"][0]["code"], 10_000);
        assert_eq!(told["result"], Value::Null);
    }
}
