//! What a purge can find a stored response by, besides its key: its site, its URL, and its tags.
//!
//! ```text
//! Cache-Groups: "a", "b"   ─┐
//! Cache-Tag: a,b            ├─► TagKey, TagKey ─┐
//! Surrogate-Key, xkey: a b ─┘                   ├─► Names, in the stored head
//! the request: site, host, path, query ─────────┘     └─► Signature, in the index
//! a mark on a TagKey ─► every response that bears it and is older is gone, or stale
//! ```
//!
//! Operators' tags belong to a site, but a purge may mean them on every site. The groups of RFC 9875
//! are such tags too, and once more as what they are for origins: bound to one site and one origin, so
//! what one origin invalidates never touches another's. Marks are kept in `state/marks`; which answer
//! sets one is decided in [`invalidate`](super::invalidate).

use super::authority::host_of;
use super::key::KeyPolicy;
use super::request::Scheme;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use sfv::List;
use sfv::ListEntry;
use sfv::Parser;

/// Names a tag or a site: BLAKE3 of what it is and its text; 128 bits, as in a
/// [`PrimaryKey`](super::key::PrimaryKey).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagKey(pub [u8; 16]);

/// What a purge can find a response by, besides its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its site's.
    pub site: TagKey,
    /// The host (with its port, where that counts), path and query of the request that it was stored
    /// for.
    pub url: Box<str>,
    /// The tags it bears, sorted, without repeats; at most [`TAGS_MAX`].
    pub tags: Vec<TagKey>,
}

/// Which names something may have: of each two of 64 bits. What has a name has its bits; what has its
/// bits need not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signature(pub u64);

/// What a site takes for tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPolicy {
    /// The fields they are read from.
    pub fields: Vec<HeaderName>,
    /// These fields go on to clients; `Cache-Groups` always does, since caches there may heed it.
    pub pass: bool,
}

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
    /// What a response bears that has more tags than are kept, or longer ones: a mark on any tag of
    /// its site covers it.
    pub const EVERY: Self = Self([0; 16]);

    /// Names a site.
    pub fn of_site(name: &str) -> Self {
        Self::of(&[b"site", name.as_bytes()])
    }

    /// Names an operator's tag, as origins write it. `None` for what no response can bear.
    pub fn of_text(text: &[u8]) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= TAG_BYTES_MAX;
        fits.then(|| Self::of(&[b"tag", text]))
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            // usize is at most 64 bits wide wherever this compiles.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

impl Names {
    /// The bits of all its names.
    pub fn signature(&self) -> Signature {
        let (authority, _) = split(&self.url);
        let mut signature = Signature::of(self.site).and(Signature::of_host(authority));
        for end in folders(&self.url) {
            signature = signature.and(Signature::of_folder(self.url.get(..end)));
        }
        for tag in &self.tags {
            signature = signature.and(match *tag {
                TagKey::EVERY => Signature(u64::MAX),
                tag => Signature::of(tag),
            });
        }
        signature
    }

    /// Does it bear this tag, or more than are kept?
    pub fn bears(&self, tag: TagKey) -> bool {
        self.tags.binary_search(&tag).is_ok() || self.bears_every()
    }

    /// Does it bear more tags than are kept?
    pub fn bears_every(&self) -> bool {
        // It is the smallest, and alone.
        self.tags.first() == Some(&TagKey::EVERY)
    }
}

impl Signature {
    /// The bits of one name.
    pub fn of(name: TagKey) -> Self {
        let [one, other, ..] = name.0;
        Self(1 << (one & 63) | 1 << (other & 63))
    }

    /// The bits of what every URL that begins with `prefix` has.
    pub fn of_prefix(prefix: &str) -> Self {
        let (authority, rest) = split(prefix);
        let has_port = host_of(authority).len() < authority.len();
        let is_open = authority.starts_with('[') && !authority.contains(']');
        if rest.is_empty() && (!has_port || is_open) {
            // The host may go on.
            return Self::default();
        }
        let folder = folders(prefix).last().and_then(|end| prefix.get(..end));
        Self::of_host(authority).and(folder.map_or(Self::default(), |f| Self::of_folder(Some(f))))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Does what has these bits have all of `wanted`?
    pub fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    fn of_host(authority: &str) -> Self {
        Self::of(TagKey::of(&[b"host", host_of(authority).as_bytes()]))
    }

    fn of_folder(folder: Option<&str>) -> Self {
        let text = folder.unwrap_or_default();
        Self::of(TagKey::of(&[b"folder", text.as_bytes()]))
    }
}

/// The authority, and what follows it.
fn split(url: &str) -> (&str, &str) {
    url.split_at(url.find('/').unwrap_or(url.len()))
}

/// Where the first folders of a URL end, behind their slashes: `/a/`, `/a/b/`. The root is none.
fn folders(url: &str) -> impl Iterator<Item = usize> {
    let path = url.find('?').and_then(|end| url.get(..end)).unwrap_or(url);
    let slashes = path.match_indices('/').map(|(at, _)| at + 1);
    slashes.skip(1).take(FOLDERS_MAX)
}

impl TagPolicy {
    /// Is this a field that clients do not get?
    pub fn withholds(&self, name: &HeaderName) -> bool {
        !self.pass && *name != CACHE_GROUPS && self.fields.contains(name)
    }
}

impl Default for TagPolicy {
    /// All that is in use, and none of it for clients.
    fn default() -> Self {
        Self {
            fields: TAG_FIELDS.map(HeaderName::from_static).to_vec(),
            pass: false,
        }
    }
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

    /// Its site's name as a tag.
    pub fn site(&self) -> TagKey {
        TagKey::of_site(self.site)
    }

    /// What a response to a request for `target` can be found by.
    pub fn names(&self, target: &str, headers: &HeaderMap, policy: &TagPolicy) -> Names {
        Names {
            site: self.site(),
            url: format!("{}{target}", self.authority).into(),
            tags: self.tags(headers, policy),
        }
    }

    /// The tags of a response, sorted, without repeats: those that the policy's fields list.
    ///
    /// `Cache-Groups` is a List of Strings (RFC 9875 §2); each counts as a tag and as a group of its
    /// origin. `Surrogate-Key` and `xkey` list words between white space, other fields what is between
    /// commas, without the white space round it; every character counts. More than [`TAGS_MAX`] come
    /// to [`TagKey::EVERY`] alone, as does one longer than [`TAG_BYTES_MAX`].
    pub fn tags(&self, headers: &HeaderMap, policy: &TagPolicy) -> Vec<TagKey> {
        let mut tags = Vec::new();
        for name in &policy.fields {
            if *name == CACHE_GROUPS {
                for text in groups(headers, name) {
                    tags.push(self.group(&text));
                    tags.push(TagKey::of_text(text.as_bytes()).unwrap_or(TagKey::EVERY));
                }
                continue;
            }
            let words = *name == "surrogate-key" || *name == "xkey";
            for line in headers.get_all(name) {
                for text in members(line, words).take(TAGS_MAX + 1) {
                    tags.push(TagKey::of_text(text).unwrap_or(TagKey::EVERY));
                }
            }
        }
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > TAGS_MAX || tags.first() == Some(&TagKey::EVERY) {
            tags = vec![TagKey::EVERY];
        }
        tags
    }

    /// The groups that a field lists, sorted, without repeats.
    pub(super) fn groups(&self, headers: &HeaderMap, name: &HeaderName) -> Vec<TagKey> {
        let texts = groups(headers, name);
        let mut groups: Vec<TagKey> = texts.iter().map(|text| self.group(text)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn group(&self, text: &str) -> TagKey {
        let parts = [self.site, "group", self.scheme, self.authority, text];
        TagKey::of(&parts.map(str::as_bytes))
    }
}

/// The texts of the groups that a field lists.
///
/// "These Strings are opaque": they are compared "character by character". Parameters are ignored; a
/// field that is no List of Strings is ignored whole (RFC 9651 §4.2). It is bounded by the head it
/// came in.
fn groups(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
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
        ListEntry::Item(item) => Some(item.bare_item.as_string()?.as_str().to_owned()),
        ListEntry::InnerList(_) => None,
    };
    let groups: Option<Vec<String>> = list.iter().map(group).collect();
    groups.unwrap_or_default()
}

/// What one line of a field lists: words, or what stands between commas.
fn members(line: &HeaderValue, words: bool) -> impl Iterator<Item = &[u8]> {
    let splits = move |byte: &u8| match words {
        true => byte.is_ascii_whitespace(),
        false => *byte == b',',
    };
    let members = line.as_bytes().split(splits).map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Most tags that are kept of one response, of which each group makes two; RFC 9875 §2 asks for 32.
pub const TAGS_MAX: usize = 512;
/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 1024;
/// Folders of a path that have bits in a signature.
const FOLDERS_MAX: usize = 3;

/// The fields that tags are read from where a site does not say otherwise.
pub const TAG_FIELDS: [&str; 4] = ["cache-groups", "cache-tag", "surrogate-key", "xkey"];
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

    fn all_of(fields: &[(&'static str, &str)]) -> Vec<TagKey> {
        let mut headers = HeaderMap::new();
        for (name, line) in fields {
            headers.append(*name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        scope("site", Scheme::Http, "a.test").tags(&headers, &TagPolicy::default())
    }

    /// The groups among the tags of Cache-Groups; each is a tag too.
    fn tags_of(lines: &[&str]) -> Vec<TagKey> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append("cache-groups", value);
        }
        let scope = scope("site", Scheme::Http, "a.test");
        let groups = scope.groups(&headers, &CACHE_GROUPS);
        let tags = scope.tags(&headers, &TagPolicy::default());
        assert!(groups.iter().all(|group| tags.contains(group)) || tags == [TagKey::EVERY]);
        groups
    }

    fn text(text: &str) -> TagKey {
        TagKey::of_text(text.as_bytes()).unwrap()
    }

    fn sorted(texts: &[&str]) -> Vec<TagKey> {
        let mut tags: Vec<TagKey> = texts.iter().map(|word| text(word)).collect();
        tags.sort();
        tags
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
    fn as_many_tags_as_are_promised_are_kept_however_long() {
        let words: Vec<String> = (0..TAGS_MAX).map(|n| format!("{n:0>1024}")).collect();
        assert_eq!(all_of(&[("xkey", &words.join(" "))]).len(), TAGS_MAX);
        let names: Vec<String> = (0..TAGS_MAX / 2)
            .map(|n| format!("\"{n:0>200}\""))
            .collect();
        let tags = all_of(&[("cache-groups", &names.join(", "))]);
        assert_eq!(tags.len(), TAGS_MAX, "a group and a tag each");
    }

    #[test]
    fn a_response_with_more_or_longer_ones_bears_every_tag() {
        let words: Vec<String> = (0..=TAGS_MAX).map(|n| n.to_string()).collect();
        assert_eq!(all_of(&[("xkey", &words.join(" "))]), [TagKey::EVERY]);
        assert_eq!(all_of(&[("cache-tag", &words.join(","))]), [TagKey::EVERY]);
        let long = format!("a {}", "x".repeat(TAG_BYTES_MAX + 1));
        assert_eq!(all_of(&[("surrogate-key", &long)]), [TagKey::EVERY]);
    }

    #[test]
    fn each_field_lists_its_tags_in_its_own_way() {
        let wanted = sorted(&["a", "b", "c d"]);
        assert_eq!(all_of(&[("cache-tag", "a, b ,, c d,a")]), wanted);
        let wanted = sorted(&["a", "b,c"]);
        assert_eq!(all_of(&[("surrogate-key", " a  b,c\ta ")]), wanted);
        assert_eq!(all_of(&[("xkey", "a"), ("xkey", "b,c")]), wanted);
        assert_eq!(
            all_of(&[("xkey", "a"), ("cache-tag", "b"), ("surrogate-key", "c d")]),
            sorted(&["a", "b", "c", "d"])
        );
        let groups = all_of(&[("cache-groups", "\"a\"")]);
        assert!(groups.contains(&text("a")) && groups.contains(&group("a")));
    }

    #[test]
    fn only_the_fields_that_are_chosen_are_read_and_withheld() {
        let mut headers = HeaderMap::new();
        headers.append("xkey", HeaderValue::from_static("a"));
        headers.append("x-magento-tags", HeaderValue::from_static("b,c"));
        let policy = TagPolicy {
            fields: vec![HeaderName::from_static("x-magento-tags")],
            pass: false,
        };
        let tags = scope("site", Scheme::Http, "a.test").tags(&headers, &policy);
        assert_eq!(tags, sorted(&["b", "c"]));
        assert!(policy.withholds(&HeaderName::from_static("x-magento-tags")));
        assert!(!policy.withholds(&HeaderName::from_static("xkey")));
        assert!(!TagPolicy::default().withholds(&CACHE_GROUPS));
        let pass = TagPolicy {
            pass: true,
            ..policy
        };
        assert!(!pass.withholds(&HeaderName::from_static("x-magento-tags")));
    }

    fn at(url: &str) -> Names {
        Names {
            site: TagKey::of_site("site"),
            url: url.into(),
            tags: vec![text("a"), text("b")],
        }
    }

    #[test]
    fn a_signature_has_the_bits_of_every_prefix_and_tag() {
        for url in [
            "a.test:81/one/two/three/four?q=/x/",
            "a.test/?/",
            "[::1]:81/one",
            "[::1]/one/two",
            "a.test//one///two",
        ] {
            let signature = at(url).signature();
            for end in 0..=url.len() {
                let prefix = Signature::of_prefix(&url[..end]);
                assert!(signature.has(prefix), "{}", &url[..end]);
            }
        }
        let signature = at("a.test/one/two").signature();
        assert!(signature.has(Signature::of(text("b"))));
        assert!(signature.has(Signature::of(TagKey::of_site("site"))));
        let none = Signature::of_prefix("a.te");
        assert_eq!(none, Signature::default(), "the host may go on");
        assert_ne!(Signature::of_prefix("a.test/"), Signature::default());
    }

    #[test]
    fn few_have_the_bits_of_what_they_have_not() {
        let others = (0..1000).filter(|n| {
            let other = at(&format!("a.test/{n}/page"));
            other.signature().has(Signature::of(text("z")))
        });
        assert!(others.count() < 200);
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
                for name in TAG_FIELDS {
                    headers.append(name, headers["cache-groups"].clone());
                }
                let tags = scope("s", Scheme::Http, "a").tags(&headers, &TagPolicy::default());
                prop_assert!(tags.len() <= TAGS_MAX);
            }
        }

        #[test]
        fn every_string_is_one_group(text in "[ !#-Z^-~]{0,40}") {
            prop_assert_eq!(tags_of(&[&format!("\"{text}\"")]), [group(&text)]);
        }
    }
}
