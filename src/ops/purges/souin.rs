//! Purges in the words of Souin's API, below `/souin-api/souin`.
//!
//! ```text
//! PURGE /souin-api/souin          Surrogate-Key: a, b              204
//! PURGE /souin-api/souin/flush    everything                       204
//! PURGE /souin-api/souin/KEY      what is stored under the key     204
//! POST  /souin-api/souin          {"type": "group", "groups": ["a"], "purge": true}    200
//! ```
//!
//! A key is a method, a scheme, a host and a path with dashes between. The body is that of the draft
//! on cache invalidation: `uri`, `uri-prefix`, `origin` or `group`, and soft unless `purge` is true.
//! Keys are not listed: `larder store list` tells what is stored.

use super::super::admin::AdminError;
use super::object;
use crate::flow::Manner;
use crate::flow::Purge;
use crate::flow::What;
use crate::flow::dialect::words;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Wish {
    /// Everything.
    Flush,
    /// What the body says.
    Invalidation,
    /// What is stored under a key.
    Key(String),
    /// What bears some tags.
    Keys,
    /// To tidy what it does not have.
    Mapping,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    selectors: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    purge: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Group,
    Origin,
    Uri,
    UriPrefix,
}

/// What follows the path of the API.
pub(super) fn path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/souin-api/souin")?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

impl Wish {
    /// Finds out what is asked for by a method and what follows the path of the API.
    pub(super) fn read(method: &Method, rest: &str) -> Result<Self, AdminError> {
        match (method.as_str(), rest) {
            ("PURGE", "") => Ok(Self::Keys),
            ("PURGE", "flush") => Ok(Self::Flush),
            ("PURGE", "mapping") => Ok(Self::Mapping),
            ("PURGE", key) => Ok(Self::Key(key.to_owned())),
            ("POST", "") => Ok(Self::Invalidation),
            (_, "") => Err(AdminError::Method {
                allow: "PURGE, POST",
            }),
            _ => Err(AdminError::Method { allow: "PURGE" }),
        }
    }

    /// What to purge, if anything.
    pub(super) fn purge(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Purge>, AdminError> {
        let (what, manner) = match self {
            Self::Flush => (vec![What::All], Manner::Hard),
            Self::Invalidation => invalidation(body)?,
            Self::Key(key) => (vec![of_key(key)?], Manner::Hard),
            Self::Keys => (keys(headers)?, Manner::Hard),
            Self::Mapping => return Ok(None),
        };
        Ok(Some(Purge { what, manner }))
    }

    /// The status that says that it was done.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Invalidation => StatusCode::OK,
            Self::Flush | Self::Key(_) | Self::Keys | Self::Mapping => StatusCode::NO_CONTENT,
        }
    }
}

fn keys(headers: &HeaderMap) -> Result<Vec<What>, AdminError> {
    let malformed = |why: &str| AdminError::Malformed(why.to_owned());
    let mut tags = Vec::new();
    for name in ["surrogate-key", "surrogate-keys"] {
        for value in headers.get_all(name) {
            let value = std::str::from_utf8(value.as_bytes());
            tags.extend(words(
                value.map_err(|_| malformed("surrogate-key is not readable"))?,
            ));
        }
    }
    if tags.is_empty() {
        return Err(malformed("give Surrogate-Key, or a key in the path"));
    }
    let tags = tags.into_iter();
    Ok(tags.map(|text| What::Tag { site: None, text }).collect())
}

/// Reads a key such as `GET-https-a.example-/path?query`.
fn of_key(key: &str) -> Result<What, AdminError> {
    let bad = || AdminError::Malformed(format!("not a key such as GET-https-host-/path: {key}"));
    let key = percent_decode_str(key).decode_utf8().map_err(|_| bad())?;
    let rest = ["GET-", "HEAD-"].iter();
    let rest = rest.filter_map(|method| key.strip_prefix(method)).next();
    let (scheme, rest) = rest.and_then(|rest| rest.split_once('-')).ok_or_else(bad)?;
    // A host may have dashes; a path begins with a slash.
    let (host, target) = rest.split_once("-/").ok_or_else(bad)?;
    Ok(What::Url(format!("{scheme}://{host}/{target}")))
}

fn invalidation(body: &[u8]) -> Result<(Vec<What>, Manner), AdminError> {
    let body: Body = object(body)
        .map_err(|error| AdminError::Malformed(format!("not an invalidation: {error}")))?;
    let urls = |selector: String| match selector.contains("://") {
        true => vec![What::Url(selector)],
        false => ["http", "https"]
            .map(|scheme| What::Url(format!("{scheme}://{}", selector.trim_start_matches('/'))))
            .to_vec(),
    };
    let host = |selector: String| {
        let bare = selector
            .split_once("://")
            .map_or(selector.as_str(), |(_, rest)| rest);
        What::Host(bare.trim_matches('/').to_owned())
    };
    let selectors = body.selectors.into_iter();
    let what: Vec<What> = match body.kind {
        Kind::Group => {
            let groups = body.groups.into_iter();
            groups.map(|text| What::Tag { site: None, text }).collect()
        }
        Kind::Origin => selectors.map(host).collect(),
        Kind::Uri => selectors.flat_map(urls).collect(),
        Kind::UriPrefix => selectors.map(What::Prefix).collect(),
    };
    let manner = match body.purge {
        true => Manner::Hard,
        false => Manner::Soft,
    };
    match what.is_empty() {
        true => Err(AdminError::Malformed(
            "give selectors, or groups for a group".to_owned(),
        )),
        false => Ok((what, manner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: &str, path_and_more: &str) -> Result<Wish, AdminError> {
        Wish::read(&method.parse().unwrap(), path(path_and_more).unwrap())
    }

    fn invalidated(body: &str) -> (Vec<What>, Manner) {
        invalidation(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_path_says_what_is_asked_for() {
        assert_eq!(wish("PURGE", "/souin-api/souin").unwrap(), Wish::Keys);
        assert_eq!(
            wish("PURGE", "/souin-api/souin/flush").unwrap(),
            Wish::Flush
        );
        assert_eq!(
            wish("PURGE", "/souin-api/souin/mapping").unwrap(),
            Wish::Mapping
        );
        assert_eq!(
            wish("POST", "/souin-api/souin/").unwrap(),
            Wish::Invalidation
        );
        assert!(matches!(
            wish("GET", "/souin-api/souin"),
            Err(AdminError::Method { .. })
        ));
        assert_eq!(path("/souin-api/souinx"), None);
    }

    #[test]
    fn a_key_is_a_method_a_scheme_a_host_and_a_path() {
        let url = What::Url("https://my-site.example/a-b/c?d".to_owned());
        assert_eq!(of_key("GET-https-my-site.example-/a-b/c?d").unwrap(), url);
        for bad in [
            "",
            "GET",
            "GET-http",
            "GET-http-host",
            "POST-http-host-/",
            "/.+",
        ] {
            assert!(of_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_stand_in_either_field() {
        let mut headers = HeaderMap::new();
        assert!(keys(&headers).is_err());
        headers.insert("surrogate-keys", http::HeaderValue::from_static("a, b"));
        assert_eq!(keys(&headers).unwrap().len(), 2);
    }

    #[test]
    fn an_invalidation_is_soft_unless_it_is_a_purge() {
        let tag = What::Tag {
            site: None,
            text: "a".to_owned(),
        };
        let soft = invalidated(r#"{"type": "group", "groups": ["a"]}"#);
        assert_eq!(soft, (vec![tag], Manner::Soft));
        let (what, manner) = invalidated(
            r#"{"type": "uri", "selectors": ["a.test/x", "http://a.test/y"], "purge": true}"#,
        );
        assert_eq!((what.len(), manner), (3, Manner::Hard));
        let (what, _) = invalidated(r#"{"type": "uri-prefix", "selectors": ["a.test/x"]}"#);
        assert_eq!(what, [What::Prefix("a.test/x".to_owned())]);
        let (what, _) = invalidated(r#"{"type": "origin", "selectors": ["https://a.test/"]}"#);
        assert_eq!(what, [What::Host("a.test".to_owned())]);
    }

    #[test]
    fn what_is_no_invalidation_is_refused() {
        for body in [
            "",
            "{}",
            r#"{"type": "x"}"#,
            r#"{"type": "uri"}"#,
            r#"{"type": "group", "x": 1}"#,
        ] {
            assert!(invalidation(body.as_bytes()).is_err(), "{body}");
        }
    }
}
