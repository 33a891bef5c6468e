//! Which tags a stored response bears: names under which many responses are made invalid at once.
//!
//! ```text
//! Cache-Groups: "a", "b" ─► TagKey, TagKey   in the stored head
//! a mark on a TagKey     ─► every response that bears it and is older is gone
//! ```
//!
//! The groups of RFC 9875 are tags; each is bound to one site and one origin, so what one origin
//! says never touches another's. Marks are kept in `state/index`; which answer sets one is decided
//! in [`invalidate`](super::invalidate).

use super::key::KeyPolicy;
use super::request::Scheme;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use sfv::List;
use sfv::ListEntry;
use sfv::Parser;

/// Names a tag: BLAKE3 of site, kind, origin and text; 128 bits, as in a
/// [`PrimaryKey`](super::key::PrimaryKey).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagKey(pub [u8; 16]);

/// Whose tags they are: one site, one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagScope<'a> {
    site: &'a str,
    /// Empty where the site's keys do not tell schemes apart: then both share responses.
    scheme: &'static str,
    /// Without its port where ports do not tell responses apart.
    authority: &'a str,
}

impl TagKey {
    /// What a response bears that has more tags than are kept: a mark on any tag covers it. A mark
    /// on this one covers every response that bears a tag at all.
    pub const EVERY: Self = Self([0; 16]);
}

impl<'a> TagScope<'a> {
    /// The origin of a request to the site called `site`.
    pub fn new(site: &'a str, scheme: Scheme, authority: &'a str, policy: &KeyPolicy) -> Self {
        Self {
            site,
            scheme: if policy.scheme { scheme.as_str() } else { "" },
            authority: policy.authority(authority),
        }
    }

    /// The tags of a response: its `Cache-Groups` (RFC 9875 §2), sorted, without repeats.
    ///
    /// More than [`TAGS_MAX`] come to [`TagKey::EVERY`] alone.
    pub fn tags(&self, headers: &HeaderMap) -> Vec<TagKey> {
        let mut tags = self.groups(headers, &CACHE_GROUPS);
        if tags.len() > TAGS_MAX {
            tags = vec![TagKey::EVERY];
        }
        tags
    }

    /// The groups that a field lists, sorted, without repeats.
    ///
    /// "These Strings are opaque": they are compared "character by character". Parameters are
    /// ignored; a field that is no List of Strings is ignored whole (RFC 9651 §4.2). It is bounded
    /// by the head it came in.
    pub(super) fn groups(&self, headers: &HeaderMap, name: &HeaderName) -> Vec<TagKey> {
        if !headers.contains_key(name) {
            return Vec::new();
        }
        let lines: Vec<&[u8]> = headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let Ok(list) = Parser::new(&lines.join(b", ".as_slice())).parse::<List>() else {
            return Vec::new();
        };
        let group = |member: &ListEntry| match member {
            ListEntry::Item(item) => {
                let text = item.bare_item.as_string()?;
                Some(self.group(text.as_str()))
            }
            ListEntry::InnerList(_) => None,
        };
        let groups: Option<Vec<TagKey>> = list.iter().map(group).collect();
        let mut groups = groups.unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn group(&self, text: &str) -> TagKey {
        let mut hasher = blake3::Hasher::new();
        for part in [self.site, "group", self.scheme, self.authority, text] {
            // usize is at most 64 bits wide wherever this compiles.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        TagKey(key)
    }
}

/// Most tags that are kept of one response; RFC 9875 §2 asks for 32.
pub const TAGS_MAX: usize = 64;

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(scheme: bool) -> KeyPolicy {
        KeyPolicy {
            scheme,
            ..KeyPolicy::default()
        }
    }

    fn scope(site: &'static str, scheme: Scheme, authority: &'static str) -> TagScope<'static> {
        TagScope::new(site, scheme, authority, &policy(true))
    }

    fn tags_of(lines: &[&str]) -> Vec<TagKey> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append("cache-groups", value);
        }
        scope("site", Scheme::Http, "a.test").tags(&headers)
    }

    fn group(text: &str) -> TagKey {
        scope("site", Scheme::Http, "a.test").group(text)
    }

    #[test]
    fn a_response_without_the_field_has_no_tags() {
        assert!(tags_of(&[]).is_empty());
        assert!(tags_of(&[""]).is_empty());
    }

    #[test]
    fn groups_are_read_over_all_lines_without_order_and_repeats() {
        let mut wanted = vec![group("a"), group("b")];
        wanted.sort();
        assert_eq!(tags_of(&["\"b\", \"a\""]), wanted);
        assert_eq!(tags_of(&["\"a\"", "\"b\",\"a\""]), wanted);
    }

    #[test]
    fn case_and_every_character_count() {
        for text in ["A", "a ", " a", "a,b", "\\\"a"] {
            let tags = tags_of(&[&format!("\"{text}\"")]);
            assert_eq!(tags.len(), 1, "{text:?}");
            assert_ne!(tags, [group("a")], "{text:?}");
        }
    }

    #[test]
    fn parameters_are_ignored() {
        assert_eq!(tags_of(&["\"a\";x=1;y"]), [group("a")]);
    }

    #[test]
    fn what_is_no_list_of_strings_is_ignored_whole() {
        for value in [
            "a",
            "\"a\", b",
            "\"a\" \"b\"",
            "(\"a\" \"b\")",
            "\"a\", 1",
            "\"a",
            "\"a\",",
            "\"caf\u{e9}\"",
            "?1",
        ] {
            assert!(tags_of(&[value]).is_empty(), "{value:?}");
        }
    }

    #[test]
    fn as_many_groups_as_are_asked_for_are_kept_however_long() {
        let names: Vec<String> = (0..TAGS_MAX).map(|n| format!("\"{n:0>200}\"")).collect();
        assert_eq!(tags_of(&[&names.join(", ")]).len(), TAGS_MAX);
    }

    #[test]
    fn a_response_with_more_bears_every_tag() {
        let names: Vec<String> = (0..=TAGS_MAX).map(|n| format!("\"{n}\"")).collect();
        assert_eq!(tags_of(&[&names.join(", ")]), [TagKey::EVERY]);
    }

    #[test]
    fn the_same_text_of_another_origin_or_site_is_another_tag() {
        let key = |site, scheme, authority| scope(site, scheme, authority).group("a");
        assert_ne!(key("site", Scheme::Https, "a.test"), group("a"));
        assert_ne!(key("site", Scheme::Http, "b.test"), group("a"));
        assert_ne!(key("site", Scheme::Http, "a.test:81"), group("a"));
        assert_ne!(key("other", Scheme::Http, "a.test"), group("a"));
    }

    #[test]
    fn schemes_and_ports_that_share_responses_share_tags() {
        let policy = KeyPolicy {
            port: false,
            ..policy(false)
        };
        let key = |scheme, authority| TagScope::new("site", scheme, authority, &policy).group("a");
        let here = key(Scheme::Http, "a.test");
        assert_eq!(key(Scheme::Https, "a.test"), here);
        assert_eq!(key(Scheme::Http, "a.test:81"), here);
    }

    #[test]
    fn a_tag_stays_the_same_between_releases() {
        // Tags are in heads and in the journal: were they to change, a mark would cover nothing.
        let hex: String = group("a").0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "604b9ebf0e344fe8b436a7152957457b");
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.append("cache-groups", value);
                prop_assert!(scope("s", Scheme::Http, "a").tags(&headers).len() <= TAGS_MAX);
            }
        }

        #[test]
        fn every_string_is_one_group(text in "[ !#-Z^-~]{0,40}") {
            prop_assert_eq!(tags_of(&[&format!("\"{text}\"")]), [group(&text)]);
        }
    }
}
