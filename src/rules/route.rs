//! Which site a request belongs to.
//!
//! The table is made once, from the config's host patterns; a lookup costs one hash for the host
//! and one for each dot in it. What a site is and does is left to `flow`.

use super::authority::normal_host;
use std::collections::HashMap;

/// The number of a site: its place in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

/// The pattern by which a host has its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<'r> {
    /// The whole host.
    Exact,
    /// `*.` and this name.
    Below(&'r str),
    /// `*`.
    Any,
}

/// Host patterns and their sites. Exact beats `*.example.com` beats `*`; longer wildcards first.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Whole hosts.
    exact: HashMap<String, SiteId>,
    /// `example.com` for `*.example.com`, which stands for one label or more.
    below: HashMap<String, SiteId>,
    /// `*`.
    any: Option<SiteId>,
}

impl Routes {
    /// Builds the table. Fails with the offending pattern when one is malformed or given twice.
    ///
    /// A pattern is a host name, an IPv4 address or a bracketed IPv6 address, without a port; or
    /// `*.` and a host name; or `*`. Case does not count.
    pub fn new(patterns: impl IntoIterator<Item = (String, SiteId)>) -> Result<Self, String> {
        let mut routes = Self::default();
        for (pattern, site) in patterns {
            let before = if pattern == "*" {
                routes.any.replace(site)
            } else if let Some(suffix) = pattern.strip_prefix("*.") {
                let suffix = name(suffix).ok_or_else(|| malformed(&pattern))?;
                routes.below.insert(suffix, site)
            } else {
                let host = host(&pattern).ok_or_else(|| malformed(&pattern))?;
                routes.exact.insert(host, site)
            };
            if before.is_some() {
                return Err(format!("host pattern \"{pattern}\" is given twice"));
            }
        }
        Ok(routes)
    }

    /// Whether no host has a site.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.any.is_none()
    }

    /// Finds the site for a host (lower case, without port).
    pub fn site(&self, host: &str) -> Option<SiteId> {
        self.find(host).map(|(site, _)| site)
    }

    /// As [`site`](Self::site), and says by which pattern.
    pub fn find<'h>(&self, host: &'h str) -> Option<(SiteId, Pattern<'h>)> {
        if let Some(site) = self.exact.get(host) {
            return Some((*site, Pattern::Exact));
        }
        if !self.below.is_empty() {
            // Every host has been through `normal_host`: at most 255 bytes, so at most 255 dots.
            let mut rest = host;
            while let Some((label, suffix)) = rest.split_once('.') {
                match self.below.get(suffix) {
                    Some(site) if !label.is_empty() => {
                        return Some((*site, Pattern::Below(suffix)));
                    }
                    _ => rest = suffix,
                }
            }
        }
        Some((self.any?, Pattern::Any))
    }
}

/// Says what a pattern may be.
fn malformed(pattern: &str) -> String {
    format!("host pattern \"{pattern}\" is neither a host, nor \"*.\" and a host name, nor \"*\"")
}

/// Reads an exact pattern: a name or a bracketed address.
fn host(pattern: &str) -> Option<String> {
    if pattern.starts_with('[') {
        return normal_host(pattern);
    }
    name(pattern)
}

/// Reads a name of labels that are letters, digits, `-` and `_`; stricter than what a request may
/// carry, because a pattern outside DNS is a slip of the pen.
fn name(pattern: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let labels = pattern.strip_suffix('.').unwrap_or(pattern).split('.');
    let sound = labels
        .clone()
        .all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(fits));
    (sound && pattern.len() <= NAME_BYTES_MAX).then(|| pattern.to_ascii_lowercase())
}

/// Longest label of a DNS name (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Longest DNS name in text form (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table of the patterns, numbered as given.
    fn table(patterns: &[&str]) -> Result<Routes, String> {
        let numbered = (0_u16..).map(SiteId);
        Routes::new(patterns.iter().map(ToString::to_string).zip(numbered))
    }

    fn site(patterns: &[&str], host: &str) -> Option<u16> {
        table(patterns).unwrap().site(host).map(|SiteId(n)| n)
    }

    #[test]
    fn a_host_says_by_which_pattern_it_has_its_site() {
        let patterns = [("a.test", 0), ("*.a.test", 1), ("*", 2)];
        let patterns = patterns.map(|(pattern, site)| (pattern.to_owned(), SiteId(site)));
        let routes = Routes::new(patterns).unwrap();
        assert_eq!(routes.find("a.test"), Some((SiteId(0), Pattern::Exact)));
        let below = Pattern::Below("a.test");
        assert_eq!(routes.find("x.y.a.test"), Some((SiteId(1), below)));
        assert_eq!(routes.find("b.test"), Some((SiteId(2), Pattern::Any)));
        assert_eq!(Routes::default().find("b.test"), None);
    }

    #[test]
    fn an_exact_host_is_found() {
        assert_eq!(site(&["a.test", "b.test"], "b.test"), Some(1));
    }

    #[test]
    fn an_unknown_host_has_no_site() {
        assert_eq!(site(&["a.test"], "b.test"), None);
    }

    #[test]
    fn a_star_takes_every_host() {
        assert_eq!(site(&["*"], "b.test"), Some(0));
    }

    #[test]
    fn an_exact_host_beats_a_wildcard() {
        assert_eq!(site(&["*.test", "a.test", "*"], "a.test"), Some(1));
    }

    #[test]
    fn a_wildcard_beats_the_star() {
        assert_eq!(site(&["*", "*.test"], "a.test"), Some(1));
    }

    #[test]
    fn a_longer_wildcard_beats_a_shorter() {
        assert_eq!(site(&["*.test", "*.a.test"], "x.a.test"), Some(1));
    }

    #[test]
    fn a_wildcard_stands_for_several_labels() {
        assert_eq!(site(&["*.test"], "x.y.z.test"), Some(0));
    }

    #[test]
    fn a_wildcard_does_not_stand_for_nothing() {
        assert_eq!(site(&["*.a.test"], "a.test"), None);
    }

    #[test]
    fn a_wildcard_does_not_stand_for_an_empty_label() {
        assert_eq!(site(&["*.a.test"], ".a.test"), None);
    }

    #[test]
    fn a_wildcard_begins_at_a_dot() {
        assert_eq!(site(&["*.a.test"], "xa.test"), None);
    }

    #[test]
    fn case_does_not_count_in_patterns() {
        assert_eq!(site(&["A.Test", "*.B.Test"], "x.b.test"), Some(1));
    }

    #[test]
    fn addresses_are_hosts() {
        assert_eq!(site(&["127.0.0.1", "[0:0::1]"], "[::1]"), Some(1));
    }

    #[test]
    fn a_pattern_given_twice_is_named() {
        let error = table(&["a.test", "A.TEST"]).unwrap_err();
        assert_eq!(error, "host pattern \"A.TEST\" is given twice");
    }

    #[test]
    fn a_wildcard_given_twice_is_named() {
        let error = table(&["*.a.test", "*.a.test"]).unwrap_err();
        assert_eq!(error, "host pattern \"*.a.test\" is given twice");
    }

    #[test]
    fn a_second_star_is_named() {
        let error = table(&["*", "*"]).unwrap_err();
        assert_eq!(error, "host pattern \"*\" is given twice");
    }

    #[test]
    fn a_wildcard_and_its_host_are_not_the_same_pattern() {
        assert!(table(&["*.a.test", "a.test"]).is_ok());
    }

    #[test]
    fn malformed_patterns_are_named() {
        for pattern in [
            "",
            ".",
            "*.",
            "**",
            "*a.test",
            "a.*.test",
            "a.*",
            "*.*.test",
            "a..test",
            ".a.test",
            "a.test:80",
            "http://a.test",
            "a test",
            "::1",
            "[::1]:80",
            "*.[::1]",
        ] {
            let error = table(&[pattern]).unwrap_err();
            assert!(
                error.contains(&format!("\"{pattern}\" is neither")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_pattern_longer_than_dns_allows_is_malformed() {
        assert!(table(&["a.".repeat(128).as_str()]).is_err());
        assert!(table(&["a".repeat(64).as_str()]).is_err());
    }

    proptest! {
        #[test]
        fn a_host_below_a_wildcard_is_found(labels in "[a-z]{1,5}([.][a-z]{1,5}){0,3}") {
            prop_assert_eq!(site(&["*.test"], &format!("{labels}.test")), Some(0));
        }

        #[test]
        fn no_host_makes_a_lookup_panic(host in "[a.:\\[]{0,10}|\\PC{0,40}") {
            prop_assert_eq!(site(&["*.b.test"], &host), None);
        }
    }
}
