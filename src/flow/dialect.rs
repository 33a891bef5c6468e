//! What a PURGE, BAN or PURGEKEYS request asks for, in the words that Varnish's configurations have
//! taught the plugins of content management systems.
//!
//! ```text
//! tags               xkey, xkey-purge, xkey-softpurge, Surrogate-Key(s), Cache-Tag ─► each one
//! pattern on tags    X-Magento-Tags-Pattern, (X-)Cache-Tags, Purge-Cache-Tags ─────► each one that it lists
//! X-Purge-Method: regex              the target is a pattern, under this host ────► host, prefix or regex
//! pattern on targets X-Ban-Url, X-Ban-Regex, X-Url; on hosts X-Ban-Host, X-Host ──► regex
//! none of these ──────────────────────────────────────────────────────────────────► this URL
//! ```
//!
//! From the request's head alone. A pattern on tags must list whole tags: then each is purged by a
//! mark, which a true pattern could not be. What cannot be done as asked is refused, since a purge of
//! something else would pass for done. Who may purge is decided before, what it does after; which
//! plugin says what is in `docs/purge.md`.

use super::Manner;
use super::Purge;
use super::What;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;

/// The head of a request to purge, as far as it counts.
#[derive(Clone, Copy, Debug)]
pub struct Spoken<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields, all of them.
    pub headers: &'a HeaderMap,
    /// The scheme, when its target is absolute; none: it may be either.
    pub scheme: Option<&'a str>,
    /// Its authority.
    pub authority: &'a str,
    /// Its path and query.
    pub target: &'a str,
}

/// Why nobody knows what to purge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misspoken {
    /// A pattern that must be read in another place than it was written for, and cannot.
    #[error("this pattern on {of} cannot be taken over: {pattern}")]
    BadPattern {
        /// What it is matched with.
        of: &'static str,
        /// Itself.
        pattern: String,
    },
    /// Tags, of some hosts or targets only.
    #[error("tags and a pattern on hosts or urls cannot be joined")]
    Both,
    /// A ban by the type of content.
    #[error("responses are not told apart by their content type")]
    ContentType,
    /// A field that is no text.
    #[error("{0} is not readable")]
    Field(&'static str),
    /// A PURGEKEYS without keys, or a field of tags without tags.
    #[error("no tags are given")]
    NoTags,
    /// The tags are too many.
    #[error("at most {TAGS_MAX} tags in one purge")]
    TooMany,
}

/// Is this a method that purges?
pub fn is_spoken(method: &Method) -> bool {
    matches!(method.as_str(), "BAN" | "PURGE" | "PURGEKEYS")
}

impl Spoken<'_> {
    /// Finds out what to purge.
    pub fn purge(&self) -> Result<Purge, Misspoken> {
        let manner = self.manner();
        let (tags, patterns) = (self.tags()?, self.tag_patterns()?);
        if (tags.is_some() || patterns.is_some()) && self.is_narrowed()? {
            return Err(Misspoken::Both);
        }
        let what = match (tags, patterns) {
            (None, None) => match self.method.as_str() {
                "PURGEKEYS" => return Err(Misspoken::NoTags),
                _ => self.targets()?,
            },
            (_, Some(Tags::All)) => vec![What::All],
            (some, Some(Tags::Each(more))) => each(some.into_iter().flatten().chain(more))?,
            (Some(tags), None) => each(tags.into_iter())?,
        };
        Ok(Purge { what, manner })
    }

    fn manner(&self) -> Manner {
        let soft = match self.headers.get(FASTLY_SOFT_PURGE) {
            Some(value) => value.as_bytes() == b"1",
            None => false,
        };
        let softly = self.headers.contains_key(XKEY_SOFT) && !self.headers.contains_key(XKEY_HARD);
        match soft || softly {
            true => Manner::Soft,
            false => Manner::Hard,
        }
    }

    /// The tags that are listed, if any field lists some.
    fn tags(&self) -> Result<Option<Vec<String>>, Misspoken> {
        let mut tags: Option<Vec<String>> = None;
        for &name in TAGS {
            for value in self.headers.get_all(name) {
                let (list, tags) = (text(value, name)?, tags.get_or_insert_default());
                match name.starts_with("surrogate-") {
                    true => tags.extend(spaced(list)),
                    false => tags.extend(words(list)),
                }
            }
        }
        Ok(tags)
    }

    /// What patterns on tags list, if there is such a pattern.
    fn tag_patterns(&self) -> Result<Option<Tags>, Misspoken> {
        let mut found: Option<Tags> = None;
        for &name in TAG_PATTERNS {
            for value in self.headers.get_all(name) {
                let more = Tags::of_pattern(text(value, name)?)?;
                found = Some(match found {
                    Some(before) => before.and(more),
                    None => more,
                });
            }
        }
        Ok(found)
    }

    /// What is purged by the target, or by a pattern on targets.
    fn targets(&self) -> Result<Vec<What>, Misspoken> {
        let authority = self.authority.to_ascii_lowercase();
        let method = self.field("x-purge-method")?.unwrap_or_default();
        if method.eq_ignore_ascii_case("regex") {
            return by_pattern(&Hosts::Exactly(&authority), self.target);
        }
        match self.field("x-content-type")? {
            None | Some(".*") => {}
            Some(_) => return Err(Misspoken::ContentType),
        }
        let (on_hosts, on_targets) = (self.first(HOST_PATTERNS)?, self.first(TARGET_PATTERNS)?);
        let hosts = match on_hosts {
            Some(pattern) if EVERYTHING.contains(&pattern) => Hosts::Any,
            Some(pattern) => Hosts::Like(pattern),
            // A pattern from a plugin that is bound to its own host.
            None if method.eq_ignore_ascii_case("ban-regex") => Hosts::Exactly(&authority),
            None => Hosts::Any,
        };
        match on_targets {
            Some(pattern) => by_pattern(&hosts, pattern),
            None if on_hosts.is_some() && self.method.as_str() == "BAN" => by_pattern(&hosts, ".*"),
            None => Ok(self.urls(&authority)),
        }
    }

    /// Are there patterns on hosts or targets that leave something out?
    fn is_narrowed(&self) -> Result<bool, Misspoken> {
        let patterns = [self.first(HOST_PATTERNS)?, self.first(TARGET_PATTERNS)?];
        let mut patterns = patterns.into_iter().flatten();
        Ok(patterns.any(|pattern| !EVERYTHING.contains(&pattern)))
    }

    /// The request's own URL; under both schemes unless it names one, since a plugin does not use
    /// the one that clients do.
    fn urls(&self, authority: &str) -> Vec<What> {
        let schemes = match self.scheme {
            Some(scheme) => vec![scheme],
            None => vec!["http", "https"],
        };
        let schemes = schemes.into_iter();
        let urls = schemes.map(|scheme| format!("{scheme}://{authority}{}", self.target));
        urls.map(What::Url).collect()
    }

    /// The first of these fields that is there.
    fn first(&self, names: &[&'static str]) -> Result<Option<&str>, Misspoken> {
        let found = names.iter().find(|name| self.headers.contains_key(**name));
        found.map_or(Ok(None), |name| self.field(name))
    }

    fn field(&self, name: &'static str) -> Result<Option<&str>, Misspoken> {
        let value = self.headers.get(name);
        value.map(|value| text(value, name)).transpose()
    }
}

impl Purge {
    /// The same, of nothing but this site.
    #[must_use]
    pub fn within(self, site: &str) -> Self {
        let own = || Some(site.to_owned());
        let what = self.what.into_iter().map(|what| match what {
            What::All => What::Site(site.to_owned()),
            What::Tag { text, .. } => What::Tag { site: own(), text },
            What::Regex { text, .. } => What::Regex { site: own(), text },
            What::Host(_) | What::Prefix(_) | What::Site(_) | What::Url(_) => what,
        });
        Self {
            what: what.collect(),
            manner: self.manner,
        }
    }

    /// Does it name single URLs and nothing else?
    pub fn is_by_url(&self) -> bool {
        self.what.iter().all(|what| matches!(what, What::Url(_)))
    }
}

/// What a pattern on tags comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// Whatever there is.
    All,
    /// These.
    Each(Vec<String>),
}

impl Tags {
    fn and(self, more: Self) -> Self {
        match (self, more) {
            (Self::Each(mut tags), Self::Each(more)) => {
                tags.extend(more);
                Self::Each(tags)
            }
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    /// Reads a pattern that lists whole tags: `a|b`, or `((^|,)a(,|$))|((^|,)b(,|$))` and its kin.
    fn of_pattern(pattern: &str) -> Result<Self, Misspoken> {
        let pattern = pattern.trim();
        if EVERYTHING.contains(&pattern) {
            return Ok(Self::All);
        }
        let bad = || Misspoken::BadPattern {
            of: "tags",
            pattern: pattern.to_owned(),
        };
        let mut tags = Vec::new();
        if pattern.contains(['(', ')', '^', '$', '\\']) {
            list(pattern, 0, &mut tags).ok_or_else(bad)?;
        } else {
            let words = pattern.split(|c: char| "|,".contains(c) || c.is_whitespace());
            for word in words.filter(|word| !word.is_empty()) {
                tags.push(literal(word).ok_or_else(bad)?);
            }
        }
        Ok(Self::Each(tags))
    }
}

/// Adds the tags that a pattern lists; nothing when it does anything else.
fn list(pattern: &str, depth: usize, tags: &mut Vec<String>) -> Option<()> {
    if depth > DEPTH_MAX || tags.len() > TAGS_MAX {
        return None;
    }
    for alternative in alternatives(pattern)? {
        let bare = without_anchors(alternative);
        match group(bare) {
            Some(inside) => list(inside, depth.saturating_add(1), tags)?,
            None => tags.push(literal(bare)?),
        }
    }
    Some(())
}

/// Splits a pattern at every `|` that is in no group.
fn alternatives(pattern: &str) -> Option<Vec<&str>> {
    let (mut depth, mut start, mut escaped) = (0_usize, 0_usize, false);
    let mut parts = Vec::new();
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.checked_sub(1)?,
            '|' if depth == 0 => {
                parts.push(pattern.get(start..at)?);
                start = at.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.push(pattern.get(start..)?);
    (depth == 0 && !escaped).then_some(parts)
}

/// Takes off what only says that a tag begins or ends here.
fn without_anchors(mut pattern: &str) -> &str {
    loop {
        let begins = BEGINS.iter().find_map(|mark| pattern.strip_prefix(mark));
        let rest = begins.unwrap_or(pattern);
        let ends = ENDS.iter().find_map(|mark| rest.strip_suffix(mark));
        let rest = ends.unwrap_or(rest);
        if rest.len() == pattern.len() {
            return rest;
        }
        pattern = rest;
    }
}

/// The inside of a pattern that is one group.
fn group(pattern: &str) -> Option<&str> {
    let inside = pattern.strip_prefix('(')?.strip_suffix(')')?;
    // Not `(a)(b)`: what is between must be whole in itself.
    alternatives(inside)?;
    Some(inside.strip_prefix("?:").unwrap_or(inside))
}

/// The one text that a pattern matches. A lone `.` is taken for itself: plugins do not escape it.
fn literal(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| !c.is_alphanumeric())?),
            '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => return None,
            c if c.is_whitespace() || c == ',' => return None,
            c => text.push(c),
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Which hosts a pattern on targets is for.
enum Hosts<'a> {
    Any,
    /// The one of this authority.
    Exactly(&'a str),
    /// Those that a pattern finds something in.
    Like(&'a str),
}

impl Hosts<'_> {
    /// A pattern for what stands before the first slash.
    fn pattern(&self) -> Result<String, Misspoken> {
        match self {
            Self::Any => Ok("[^/]+".to_owned()),
            Self::Exactly(authority) => Ok(format!("{}{PORT}", escaped(without_port(authority)))),
            Self::Like(pattern) => {
                let begun = pattern.strip_prefix('^');
                let inner = begun.unwrap_or(pattern);
                let ended = inner.strip_suffix('$').filter(|rest| !rest.ends_with('\\'));
                let inner = ended.unwrap_or(inner);
                if is_anchored(inner) || alternatives(inner).is_none_or(|parts| parts.len() > 1) {
                    return Err(Misspoken::BadPattern {
                        of: "hosts",
                        pattern: (*pattern).to_owned(),
                    });
                }
                let before = if begun.is_some() { "" } else { "[^/]*" };
                let after = if ended.is_some() { PORT } else { "[^/]*" };
                Ok(format!("{before}(?:{inner}){after}"))
            }
        }
    }
}

/// What a pattern on targets purges: it was written for paths with their queries, and is matched with
/// host, path and query in one.
fn by_pattern(hosts: &Hosts<'_>, pattern: &str) -> Result<Vec<What>, Misspoken> {
    let bad = || Misspoken::BadPattern {
        of: "urls",
        pattern: pattern.to_owned(),
    };
    let everything = EVERYTHING.contains(&pattern) || ["/.*", "^/.*", "/", "^/"].contains(&pattern);
    match hosts {
        Hosts::Exactly(authority) if everything => {
            return Ok(vec![What::Host(without_port(authority).to_owned())]);
        }
        Hosts::Any if everything => return Ok(vec![What::All]),
        Hosts::Exactly(authority) => {
            let begin = pattern.strip_prefix('^').unwrap_or(pattern);
            let folder = begin.strip_suffix(".*").and_then(literal);
            // Without the slash it would end within a name.
            if let Some(folder) = folder.filter(|f| f.starts_with('/') && f.ends_with('/')) {
                return Ok(vec![What::Prefix(format!("{authority}{folder}"))]);
            }
        }
        Hosts::Any | Hosts::Like(_) => {}
    }
    let hosts = hosts.pattern()?;
    let mut what = Vec::new();
    for one in alternatives(pattern).ok_or_else(bad)? {
        let begun = one.strip_prefix('^');
        let inner = begun.unwrap_or(one);
        if is_anchored(inner) {
            return Err(bad());
        }
        let from_slash = inner.starts_with('/') || inner.starts_with("\\/");
        let text = match begun {
            // A target begins with a slash, so nothing else can follow the host.
            Some(_) if from_slash || inner.starts_with('(') => format!("(?:{inner})"),
            Some(_) if inner.starts_with('.') => format!("/.*(?:{inner})"),
            Some(_) => return Err(bad()),
            None if from_slash => format!("(?:/.*)?(?:{inner})"),
            None => format!("/.*(?:{inner})"),
        };
        let text = format!("^{hosts}{text}");
        what.push(What::Regex { site: None, text });
    }
    Ok(what)
}

/// Is there a `^` that stands for a beginning? It would never match behind a host.
fn is_anchored(pattern: &str) -> bool {
    let (mut escaped, mut class) = (false, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            '^' if !class => return true,
            _ => {}
        }
    }
    false
}

/// The host of an authority.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // What has brackets ends with one, unless a port follows.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

/// A pattern that matches this text alone.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if ".[]:-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn each(tags: impl Iterator<Item = String>) -> Result<Vec<What>, Misspoken> {
    let what: Vec<What> = tags.map(|text| What::Tag { site: None, text }).collect();
    match what.len() {
        0 => Err(Misspoken::NoTags),
        tags if tags > TAGS_MAX => Err(Misspoken::TooMany),
        _ => Ok(what),
    }
}

/// The words of a list with blanks or commas between them.
pub fn words(list: &str) -> impl Iterator<Item = String> {
    let words = list.split(|c: char| c == ',' || c.is_whitespace());
    words.filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The words of a list with blanks between them, in which a comma may be part of a word; one that
/// ends a word is not.
pub fn spaced(list: &str) -> impl Iterator<Item = String> {
    let words = list
        .split_whitespace()
        .map(|word| word.trim_end_matches(','));
    words.filter(|word| !word.is_empty()).map(str::to_owned)
}

fn text<'v>(value: &'v HeaderValue, name: &'static str) -> Result<&'v str, Misspoken> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Misspoken::Field(name))
}

/// A port that may be there.
const PORT: &str = "(?::[0-9]+)?";
/// How deep groups in a pattern may lie.
const DEPTH_MAX: usize = 8;
/// As many as one purge may name.
const TAGS_MAX: usize = 1000;
const XKEY_HARD: &str = "xkey-purge";
const XKEY_SOFT: &str = "xkey-softpurge";
/// "1" asks for a soft purge.
pub const FASTLY_SOFT_PURGE: &str = "fastly-soft-purge";
const TAGS: &[&str] = &[
    XKEY_HARD,
    XKEY_SOFT,
    "xkey",
    "surrogate-key",
    "surrogate-keys",
    "cache-tag",
];
const TAG_PATTERNS: &[&str] = &[
    "cache-tags",
    "purge-cache-tags",
    "x-cache-tags",
    "x-magento-tags-pattern",
];
const HOST_PATTERNS: &[&str] = &["x-ban-host", "x-host"];
const TARGET_PATTERNS: &[&str] = &["x-ban-url", "x-ban-regex", "x-url"];
const EVERYTHING: &[&str] = &[".*", ".+", ".", "*", "^.*", "^.*$", ".*$", "^.+$"];
/// Longer ones first, where one begins with another.
const BEGINS: &[&str] = &[
    "(^|[\\s,])",
    "(^|\\s)",
    "(^| )",
    "(^|,)",
    "(?:^|,)",
    "(?:^|\\s)",
    "\\b",
    "^",
];
const ENDS: &[&str] = &[
    "([\\s,]|$)",
    "(\\s|$)",
    "( |$)",
    "(,|$)",
    "($|,)",
    "($|\\s)",
    "(?:,|$)",
    "(?:\\s|$)",
    "(,.+)?$",
    "\\b",
    "$",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a request for `http://a.test` and a target purges.
    fn spoken(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Purge, Misspoken> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Spoken {
            method: &method.parse().unwrap(),
            headers: &headers,
            scheme: Some("http"),
            authority: "A.test",
            target,
        }
        .purge()
    }

    fn what(method: &str, target: &str, fields: &[(&str, &str)]) -> Vec<What> {
        spoken(method, target, fields).unwrap().what
    }

    fn tags(names: &[&str]) -> Vec<What> {
        each(names.iter().map(ToString::to_string)).unwrap()
    }

    fn regex(text: &str) -> Vec<What> {
        let text = text.to_owned();
        vec![What::Regex { site: None, text }]
    }

    #[test]
    fn a_purge_without_such_fields_is_of_its_url() {
        let url = vec![What::Url("http://a.test/x?y".to_owned())];
        assert_eq!(what("PURGE", "/x?y", &[]), url);
        assert_eq!(what("PURGE", "/x?y", &[("X-Purge-Method", "default")]), url);
        assert_eq!(what("PURGE", "/x?y", &[("X-Purge-Method", "exact")]), url);
        assert_eq!(what("BAN", "/x?y", &[]), url);
    }

    #[test]
    fn a_url_without_a_scheme_is_purged_under_both() {
        let spoken = Spoken {
            method: &"PURGE".parse().unwrap(),
            headers: &HeaderMap::new(),
            scheme: None,
            authority: "a.test",
            target: "/",
        };
        let urls = ["http://a.test/", "https://a.test/"];
        let urls = urls.map(|url| What::Url(url.to_owned()));
        assert_eq!(spoken.purge().unwrap().what, urls);
    }

    #[test]
    fn fields_of_tags_list_them_with_blanks_or_commas() {
        for field in ["xkey-purge", "xkey", "Surrogate-Key", "Cache-Tag"] {
            let found = what("PURGE", "/", &[(field, "c52 l2"), (field, "ct3,")]);
            assert_eq!(found, tags(&["c52", "l2", "ct3"]), "{field}");
        }
        assert_eq!(what("PURGEKEYS", "/", &[("xkey-purge", "a")]), tags(&["a"]));
        let fastly = what("PURGE", "/", &[("Surrogate-Key", "lang:en,path:a b, c")]);
        assert_eq!(fastly, tags(&["lang:en,path:a", "b", "c"]));
    }

    #[test]
    fn a_purge_is_soft_when_it_says_so() {
        let manner = |fields: &[_]| spoken("PURGE", "/", fields).unwrap().manner;
        assert_eq!(manner(&[]), Manner::Hard);
        assert_eq!(manner(&[("xkey-softpurge", "a")]), Manner::Soft);
        assert_eq!(manner(&[("Fastly-Soft-Purge", "1")]), Manner::Soft);
        assert_eq!(manner(&[("Fastly-Soft-Purge", "0")]), Manner::Hard);
        let both = [("xkey-softpurge", "a"), ("xkey-purge", "b")];
        assert_eq!(manner(&both), Manner::Hard);
    }

    #[test]
    fn a_list_without_tags_is_refused() {
        for fields in [&[][..], &[("xkey-purge", " , ")], &[("x-cache-tags", "")]] {
            let refused = spoken("PURGEKEYS", "/", fields);
            assert_eq!(refused, Err(Misspoken::NoTags), "{fields:?}");
        }
        let many = "a ".repeat(TAGS_MAX + 1);
        let refused = spoken("PURGE", "/", &[("xkey", &many)]);
        assert_eq!(refused, Err(Misspoken::TooMany));
    }

    #[test]
    fn magentos_pattern_lists_whole_tags() {
        let pattern = "((^|,)cat_p_1(,|$))|((^|,)cat_p(,|$))";
        let found = what("PURGE", "/", &[("X-Magento-Tags-Pattern", pattern)]);
        assert_eq!(found, tags(&["cat_p_1", "cat_p"]));
        let found = what("PURGE", "/", &[("X-Magento-Tags-Pattern", ".*")]);
        assert_eq!(found, [What::All]);
    }

    #[test]
    fn the_patterns_of_symfony_and_drupal_list_whole_tags() {
        for pattern in [
            "(^|,)(node\\-1|a\\.b)(,|$)",
            "(node\\-1|a\\.b)(,.+)?$",
            "node-1|a.b",
            "node-1 a.b",
            "(^|\\s)node-1($|\\s)|(^|\\s)a.b($|\\s)",
        ] {
            let found = what("BAN", "/", &[("X-Cache-Tags", pattern)]);
            assert_eq!(found, tags(&["node-1", "a.b"]), "{pattern}");
        }
        let found = what("BAN", "/", &[("Cache-Tags", "config:system.site")]);
        assert_eq!(found, tags(&["config:system.site"]));
    }

    #[test]
    fn a_pattern_that_lists_no_whole_tags_is_refused() {
        for pattern in [
            "node:.*",
            "node:[0-9]",
            "(a|b",
            "a)",
            "(a)(b)",
            "a\\d",
            "(a|)",
            "^$",
        ] {
            let refused = spoken("BAN", "/", &[("Cache-Tags", pattern)]);
            let bad = matches!(refused, Err(Misspoken::BadPattern { of: "tags", .. }));
            assert!(bad, "{pattern}: {refused:?}");
        }
        let deep = format!("{}a{}", "(".repeat(10), ")".repeat(10));
        assert!(spoken("BAN", "/", &[("Cache-Tags", &deep)]).is_err());
    }

    #[test]
    fn a_target_that_is_a_pattern_is_of_its_host() {
        let by = [("X-Purge-Method", "regex")];
        assert_eq!(what("PURGE", "/.*", &by), [What::Host("a.test".to_owned())]);
        let blog = What::Prefix("a.test/blog/".to_owned());
        assert_eq!(what("PURGE", "/blog/.*", &by), [blog]);
        let within = regex("^a\\.test(?::[0-9]+)?(?:/.*)?(?:/blog.*)");
        assert_eq!(what("PURGE", "/blog.*", &by), within);
    }

    #[test]
    fn a_ban_is_by_a_pattern_on_targets_and_one_on_hosts() {
        let ban = |fields: &[_]| what("BAN", "/", fields);
        let found = ban(&[("X-Ban-Url", "^/a/.*\\.css$"), ("X-Ban-Host", "^a\\.test$")]);
        let expected = "^(?:a\\.test)(?::[0-9]+)?(?:/a/.*\\.css$)";
        assert_eq!(found, regex(expected));
        let found = ban(&[("X-Url", "png"), ("X-Host", ".*"), ("X-Content-Type", ".*")]);
        assert_eq!(found, regex("^[^/]+/.*(?:png)"));
        assert_eq!(ban(&[("X-Ban-Url", ".*")]), [What::All]);
        assert_eq!(ban(&[("X-Url", "^/a|^/b")]).len(), 2);
        let of_host = ban(&[("X-Ban-Host", "a.test")]);
        assert_eq!(of_host, regex("^[^/]*(?:a.test)[^/]*/.*(?:.*)"));
    }

    #[test]
    fn what_cannot_be_taken_over_is_refused() {
        for fields in [
            [("X-Url", "(^/a|^/b)"), ("X-Host", ".*")],
            [("X-Url", "^a"), ("X-Host", ".*")],
            [("X-Url", "(a"), ("X-Host", ".*")],
            [("X-Url", "/a"), ("X-Host", "^a$|^b$")],
        ] {
            assert!(spoken("BAN", "/", &fields).is_err(), "{fields:?}");
        }
        let refused = spoken("BAN", "/", &[("X-Content-Type", "image/.*")]);
        assert_eq!(refused, Err(Misspoken::ContentType));
        let both = [("xkey", "a"), ("X-Ban-Url", "^/b")];
        assert_eq!(spoken("BAN", "/", &both), Err(Misspoken::Both));
        let refused = spoken("PURGE", "/", &[("xkey", "\u{fc}")]);
        assert!(refused.is_ok(), "UTF-8 is text: {refused:?}");
    }

    #[test]
    fn within_a_site_nothing_else_is_purged() {
        let text = || "t".to_owned();
        let (all, tag) = (
            What::All,
            What::Tag {
                site: None,
                text: text(),
            },
        );
        let regex = What::Regex {
            site: None,
            text: text(),
        };
        let purge = Purge {
            what: vec![all, tag, regex],
            manner: Manner::Soft,
        };
        let site = || Some("s".to_owned());
        let within = purge.within("s");
        assert_eq!(within.manner, Manner::Soft);
        let expected = [
            What::Site("s".to_owned()),
            What::Tag {
                site: site(),
                text: text(),
            },
            What::Regex {
                site: site(),
                text: text(),
            },
        ];
        assert_eq!(within.what, expected);
    }

    proptest! {
        #[test]
        fn no_pattern_makes_the_reader_panic(pattern in "[a(|)^$,.*+\\[\\]\\\\ü ]{0,40}") {
            for field in ["x-cache-tags", "x-ban-url", "x-ban-host", "xkey"] {
                let _refused_or_not = spoken("BAN", "/", &[(field, &pattern)]);
            }
        }

        #[test]
        fn whole_tags_are_found_in_every_form(
            names in proptest::collection::vec("[a-z0-9_:.-]{1,12}", 1..5),
        ) {
            let magento: Vec<String> =
                names.iter().map(|name| format!("((^|,){name}(,|$))")).collect();
            let plain = names.join("|");
            let expected = Tags::Each(names);
            prop_assume!(plain != ".");
            prop_assert_eq!(&Tags::of_pattern(&magento.join("|")).unwrap(), &expected);
            prop_assert_eq!(&Tags::of_pattern(&plain).unwrap(), &expected);
        }
    }
}
