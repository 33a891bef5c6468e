//! The body of `POST /purge`: the items of one purge, of any kinds.
//!
//! ```text
//! {"urls": ["https://host/path"], "tags": ["news"], "prefixes": ["host/blog/"], "hosts": ["host"],
//!  "regexes": ["\\.css$"], "sites": ["host"], "site": "host", "soft": true, "refresh": 10}
//! {"all": true}
//! ```
//!
//! `site` narrows tags and regexes. What is given twice, for nothing or not known is refused: a purge
//! that does less than was meant would be found out too late.

use super::super::admin::AdminError;
use super::given;
use super::object;
use crate::flow::Manner;
use crate::flow::PURGE_ITEMS_MAX;
use crate::flow::Purge;
use crate::flow::What;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    #[serde(deserialize_with = "given")]
    urls: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    tags: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    prefixes: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    hosts: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    regexes: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    sites: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    all: Option<bool>,
    #[serde(deserialize_with = "given")]
    site: Option<String>,
    soft: bool,
    refresh: usize,
}

/// Reads what to purge, and how many of its URLs are to be fetched anew.
pub(super) fn read(body: &[u8]) -> Result<(Purge, usize), AdminError> {
    let malformed = |why: String| Err(AdminError::Malformed(why));
    let body: Body = match object(body) {
        Ok(body) => body,
        Err(error) => return malformed(format!("not a purge: {error}")),
    };
    for (name, list) in body.lists() {
        if list.as_ref().is_some_and(Vec::is_empty) {
            return malformed(format!("{name} is empty"));
        }
    }
    if body.all == Some(false) {
        return malformed("all can only be true".to_owned());
    }
    if body.all.is_some() && body.lists().iter().any(|(_, list)| list.is_some()) {
        return malformed("give all or items, not both".to_owned());
    }
    if body.site.is_some() && body.tags.is_none() && body.regexes.is_none() {
        return malformed("site narrows tags and regexes; there are none".to_owned());
    }
    if body.refresh > 0 && body.urls.is_none() {
        return malformed("refresh fetches urls anew; there are none".to_owned());
    }
    let refresh = body.refresh;
    if refresh > PURGE_ITEMS_MAX {
        return malformed(format!("refresh is at most {PURGE_ITEMS_MAX}"));
    }
    let purge = body.purge();
    match purge.what.len() {
        0 => malformed("give urls, tags, prefixes, hosts, regexes, sites or all".to_owned()),
        items if items > PURGE_ITEMS_MAX => {
            malformed(format!("at most {PURGE_ITEMS_MAX} items in one purge"))
        }
        _ => Ok((purge, refresh)),
    }
}

impl Body {
    fn lists(&self) -> [(&'static str, &Option<Vec<String>>); 6] {
        [
            ("urls", &self.urls),
            ("tags", &self.tags),
            ("prefixes", &self.prefixes),
            ("hosts", &self.hosts),
            ("regexes", &self.regexes),
            ("sites", &self.sites),
        ]
    }

    fn purge(self) -> Purge {
        let site = self.site;
        let each = |list: Option<Vec<String>>| list.into_iter().flatten();
        let tag = |text| What::Tag {
            site: site.clone(),
            text,
        };
        let regex = |text| What::Regex {
            site: site.clone(),
            text,
        };
        let all = self.all.map(|_| What::All);
        let what = each(self.urls)
            .map(What::Url)
            .chain(each(self.tags).map(tag))
            .chain(each(self.prefixes).map(What::Prefix))
            .chain(each(self.hosts).map(What::Host))
            .chain(each(self.regexes).map(regex))
            .chain(each(self.sites).map(What::Site))
            .chain(all);
        Purge {
            what: what.collect(),
            manner: match self.soft {
                true => Manner::Soft,
                false => Manner::Hard,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(body: &str) -> String {
        match read(body.as_bytes()) {
            Err(AdminError::Malformed(why)) => why,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn items_of_every_kind_make_one_purge() {
        let body = r#"{"urls": ["http://a/"], "tags": ["t"], "prefixes": ["a/b"], "hosts": ["h"],
            "regexes": ["r$"], "sites": ["s"], "site": "n", "soft": true, "refresh": 5}"#;
        let (purge, refresh) = read(body.as_bytes()).unwrap();
        let text = |text: &str| text.to_owned();
        let site = Some(text("n"));
        let expected = [
            What::Url(text("http://a/")),
            What::Tag {
                site: site.clone(),
                text: text("t"),
            },
            What::Prefix(text("a/b")),
            What::Host(text("h")),
            What::Regex {
                site,
                text: text("r$"),
            },
            What::Site(text("s")),
        ];
        assert_eq!(purge.what, expected);
        assert_eq!((purge.manner, refresh), (Manner::Soft, 5));
    }

    #[test]
    fn everything_is_purged_alone() {
        let (purge, _) = read(br#"{"all": true}"#).unwrap();
        assert_eq!(purge.what, [What::All]);
        assert_eq!(purge.manner, Manner::Hard);
        assert_eq!(refused(r#"{"all": false}"#), "all can only be true");
        let both = refused(r#"{"all": true, "tags": ["a"]}"#);
        assert_eq!(both, "give all or items, not both");
    }

    #[test]
    fn a_purge_that_says_nothing_or_too_little_is_refused() {
        let nothing = "give urls, tags, prefixes, hosts, regexes, sites or all";
        assert_eq!(refused("{}"), nothing);
        assert_eq!(refused(r#"{"soft": true}"#), nothing);
        assert_eq!(refused(r#"{"urls": []}"#), "urls is empty");
        assert_eq!(refused(r#"{"tags": [], "urls": ["u"]}"#), "tags is empty");
        let narrow = refused(r#"{"site": "s", "urls": ["u"]}"#);
        assert!(narrow.starts_with("site narrows"), "{narrow}");
        let refresh = refused(r#"{"refresh": 1, "tags": ["u"]}"#);
        assert!(refresh.starts_with("refresh fetches"), "{refresh}");
        let refresh = refused(r#"{"refresh": 1001, "urls": ["u"]}"#);
        assert_eq!(refresh, "refresh is at most 1000");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let why = refused(r#"{"al": true}"#);
        assert!(why.contains("unknown field `al`"), "{why}");
    }

    #[test]
    fn a_purge_has_at_most_a_thousand_items_of_all_kinds() {
        let body = |tags: usize| {
            let tags = vec!["t"; tags];
            serde_json::json!({"tags": tags, "hosts": ["h"]}).to_string()
        };
        assert!(read(body(999).as_bytes()).is_ok());
        assert_eq!(refused(&body(1000)), "at most 1000 items in one purge");
    }

    #[test]
    fn what_is_no_purge_is_refused() {
        for body in [
            "",
            "[]",
            "7",
            "{\"urls\": \"a\"}",
            "{\"urls\": null}",
            "{\"all\": null}",
            "{\"site\": null}",
            "{\"refresh\": -1}",
            "{\"soft\": 1}",
            "{\"all\": true} x",
        ] {
            assert!(refused(body).starts_with("not a purge"), "{body}");
        }
        assert!(read(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body in "[\\[\\]{}\"a-z:, 0-9]{0,60}") {
            let _refused_or_not = read(body.as_bytes());
        }
    }
}
