//! Purges in the words of Fastly's API.
//!
//! ```text
//! POST /service/ID/purge/KEY    one tag                        {"status": "ok", "id": …}
//! POST /service/ID/purge        Surrogate-Key: a b, or {"surrogate_keys": ["a", "b"]}   {"a": id, "b": id}
//! POST /service/ID/purge_all    everything                     {"status": "ok"}
//! POST /purge/HOST/PATH         one URL                        {"status": "ok", "id": …}
//! ```
//!
//! `Fastly-Soft-Purge: 1` makes any of them soft. A service that is a site's name narrows tags and
//! everything to it; any other means all sites. `PURGE` is heard as everybody's.

use super::super::admin::AdminError;
use super::given;
use super::object;
use crate::flow::Manner;
use crate::flow::Purge;
use crate::flow::Told;
use crate::flow::What;
use crate::flow::dialect::FASTLY_SOFT_PURGE;
use crate::flow::dialect::spaced;
use http::HeaderMap;
use http::Uri;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Wish {
    /// Everything of a service.
    All { service: String },
    /// One tag.
    Key { service: String, key: String },
    /// Tags, in a field or in the body.
    Keys { service: String },
    /// A URL without its scheme.
    Url(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    surrogate_keys: Option<Vec<String>>,
}

impl Wish {
    /// Finds out what a target asks for.
    pub(super) fn read(uri: &Uri) -> Option<Self> {
        let path = uri.path();
        if let Some(url) = path.strip_prefix("/purge/").filter(|url| !url.is_empty()) {
            let query = uri.query().map(|query| format!("?{query}"));
            return Some(Self::Url(format!("{url}{}", query.unwrap_or_default())));
        }
        let (service, rest) = path.strip_prefix("/service/")?.split_once('/')?;
        let service = service.to_owned();
        match rest.strip_prefix("purge/") {
            // A key may have slashes.
            Some(key) => {
                let key = percent_decode_str(key).decode_utf8().ok()?.into_owned();
                Some(Self::Key { service, key })
            }
            None if rest == "purge" => Some(Self::Keys { service }),
            None if rest == "purge_all" => Some(Self::All { service }),
            None => None,
        }
    }

    /// What to purge, and the service that it is for.
    pub(super) fn purge(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Purge, String), AdminError> {
        let tag = |text| What::Tag { site: None, text };
        let (what, service) = match self {
            Self::All { service } => (vec![What::All], service.clone()),
            Self::Key { service, key } => (vec![tag(key.clone())], service.clone()),
            Self::Keys { service } => {
                let what = keys(headers, body)?.into_iter().map(tag);
                (what.collect(), service.clone())
            }
            Self::Url(url) => {
                let urls = ["http", "https"].map(|scheme| What::Url(format!("{scheme}://{url}")));
                (urls.to_vec(), String::new())
            }
        };
        let soft = headers.get(FASTLY_SOFT_PURGE);
        let manner = match soft.map(http::HeaderValue::as_bytes) {
            Some(b"1") => Manner::Soft,
            Some(_) | None => Manner::Hard,
        };
        Ok((Purge { what, manner }, service))
    }

    /// Tells that it was done.
    pub(super) fn tell(&self, purge: &Purge, told: &Told) -> Value {
        let id = told.receipt.id();
        match self {
            Self::All { .. } => json!({"status": "ok"}),
            Self::Key { .. } | Self::Url(_) => json!({"status": "ok", "id": id}),
            Self::Keys { .. } => {
                let each = purge.what.iter().filter_map(|what| match what {
                    What::Tag { text, .. } => Some((text.clone(), json!(id))),
                    What::All
                    | What::Host(_)
                    | What::Prefix(_)
                    | What::Regex { .. }
                    | What::Site(_)
                    | What::Url(_) => None,
                });
                Value::Object(each.collect::<Map<String, Value>>())
            }
        }
    }
}

/// The tags that a field or a body lists.
fn keys(headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, AdminError> {
    let malformed = |why: &str| AdminError::Malformed(why.to_owned());
    let mut keys = Vec::new();
    for value in headers.get_all("surrogate-key") {
        let value = std::str::from_utf8(value.as_bytes());
        keys.extend(spaced(
            value.map_err(|_| malformed("surrogate-key is not readable"))?,
        ));
    }
    if keys.is_empty() && !body.trim_ascii().is_empty() {
        let body: Body =
            object(body).map_err(|error| AdminError::Malformed(format!("not a purge: {error}")))?;
        keys = body.surrogate_keys.unwrap_or_default();
    }
    match keys.is_empty() {
        true => Err(malformed("give Surrogate-Key or surrogate_keys")),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Option<Wish> {
        Wish::read(&target.parse().unwrap())
    }

    fn purge(target: &str, fields: &[(&'static str, &'static str)], body: &str) -> Purge {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        let wish = read(target).unwrap();
        wish.purge(&headers, body.as_bytes()).unwrap().0
    }

    fn tags(names: &[&str]) -> Vec<What> {
        let names = names.iter().map(ToString::to_string);
        names.map(|text| What::Tag { site: None, text }).collect()
    }

    #[test]
    fn a_key_stands_in_the_path_and_may_have_slashes() {
        assert_eq!(
            purge("/service/s/purge/topics/7%20b", &[], "").what,
            tags(&["topics/7 b"])
        );
        assert_eq!(read("/service/s/purge/%ff"), None);
    }

    #[test]
    fn keys_stand_in_a_field_or_in_the_body() {
        let by_field = purge(
            "/service/s/purge",
            &[("surrogate-key", "a b"), ("surrogate-key", "c")],
            "",
        );
        assert_eq!(by_field.what, tags(&["a", "b", "c"]));
        let by_body = purge(
            "/service/s/purge",
            &[],
            r#"{"surrogate_keys": ["a b", "c"]}"#,
        );
        assert_eq!(by_body.what, tags(&["a b", "c"]));
        let keys = read("/service/s/purge").unwrap();
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"surrogate_keys": []}"#,
            r#"{"keys": ["a"]}"#,
        ] {
            let refused = keys.purge(&HeaderMap::new(), bad.as_bytes());
            assert!(matches!(refused, Err(AdminError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn everything_and_one_url_are_purged_softly_if_so_asked() {
        let soft = [("fastly-soft-purge", "1")];
        let all = purge("/service/s/purge_all", &soft, "");
        assert_eq!((all.what, all.manner), (vec![What::All], Manner::Soft));
        let url = purge("/purge/a.test/x?y", &[], "");
        let urls = ["http://a.test/x?y", "https://a.test/x?y"];
        assert_eq!(url.what, urls.map(|url| What::Url(url.to_owned())));
        assert_eq!(url.manner, Manner::Hard);
    }

    #[test]
    fn other_paths_are_none_of_fastlys() {
        for other in [
            "/purge",
            "/purge/",
            "/service/s",
            "/service/s/version",
            "/service/",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
