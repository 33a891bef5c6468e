//! Which part of a query does the origin say makes no difference? (No-Vary-Search)
//!
//! `No-Vary-Search` (draft-ietf-httpbis-no-vary-search) is a dictionary of structured fields with
//! `params`, `except` and `key-order`. [`SearchVariance::read`] makes of it what the draft calls a
//! URL search variance, and [`significant`](SearchVariance::significant) what is left of a query
//! under one; two queries of the same path that leave the same are equivalent. What cannot be read,
//! and what says nothing, gives no variance: then targets are compared as they are spelled.
//!
//! How equivalent targets come to share a key is in [`key`](super::key).

use http::HeaderMap;
use http::HeaderName;
use percent_encoding::percent_decode;
use sfv::BareItem;
use sfv::Dictionary;
use sfv::InnerList;
use sfv::ListEntry;
use sfv::Parser;
use std::borrow::Cow;

/// What a response says about the queries it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchVariance {
    pub(super) parameters: Parameters,
    /// The order of parameters with different names counts.
    pub(super) order: bool,
}

/// Which parameters count; names are decoded, sorted and without repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    /// Those that are not named.
    AllBut(Vec<String>),
    /// Those that are named.
    Only(Vec<String>),
}

impl SearchVariance {
    /// Reads the field of a response (section 4 of the draft). `None` when there is none, when it
    /// is malformed, when all of the query counts, or when it is over [`NAMES_MAX`] or
    /// [`NAMES_BYTES_MAX`].
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(NO_VARY_SEARCH).iter();
        let mut value = lines.next()?.as_bytes().to_vec();
        for line in lines {
            value.extend_from_slice(b", ");
            value.extend_from_slice(line.as_bytes());
        }
        let members: Dictionary = Parser::new(&value).parse().ok()?;
        let order = match members.get("key-order") {
            None => true,
            Some(entry) => !boolean(entry)?,
        };
        let except = members.get("except");
        let parameters = match members.get("params") {
            Some(ListEntry::InnerList(list)) if except.is_none() => {
                Parameters::AllBut(names(list)?)
            }
            Some(entry) if boolean(entry)? => match except {
                Some(ListEntry::InnerList(list)) => Parameters::Only(names(list)?),
                Some(ListEntry::Item(_)) => return None,
                None => Parameters::Only(Vec::new()),
            },
            Some(_) | None if except.is_none() => Parameters::AllBut(Vec::new()),
            Some(_) | None => return None,
        };
        let default = order && parameters == Parameters::AllBut(Vec::new());
        (!default).then_some(Self { parameters, order })
    }

    /// What counts of a query: names and values, decoded, in the order in which they are compared.
    pub fn significant<'q>(&self, query: &'q str) -> Vec<(Cow<'q, str>, Cow<'q, str>)> {
        let has = |names: &[String], name: &str| {
            names
                .binary_search_by(|known| known.as_str().cmp(name))
                .is_ok()
        };
        let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| match &self.parameters {
                Parameters::AllBut(names) => !has(names, name),
                Parameters::Only(names) => has(names, name),
            })
            .collect();
        if !self.order {
            // Stable: parameters of equal names keep their order.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        pairs
    }
}

/// Reads a boolean; its own parameters have no meaning here.
fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => item.bare_item.as_boolean(),
        ListEntry::InnerList(_) => None,
    }
}

/// Reads the names in a list, all of which must be strings.
fn names(list: &InnerList) -> Option<Vec<String>> {
    if list.items.len() > NAMES_MAX {
        return None;
    }
    let mut names = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let BareItem::String(written) = &item.bare_item else {
            return None;
        };
        names.push(decoded(written.as_str()));
    }
    let bytes: usize = names.iter().map(String::len).sum();
    names.sort_unstable();
    names.dedup();
    (bytes <= NAMES_BYTES_MAX).then_some(names)
}

/// "Parse a key" (section 5.3 of the draft): as a name in a query would be decoded.
fn decoded(name: &str) -> String {
    let name = name.replace('+', " ");
    percent_decode(name.as_bytes())
        .decode_utf8_lossy()
        .into_owned()
}

/// Most names in a variance.
pub const NAMES_MAX: usize = 64;
/// Most bytes in the names of a variance, all together.
pub const NAMES_BYTES_MAX: usize = 2048;

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn read(lines: &[&str]) -> Option<SearchVariance> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NO_VARY_SEARCH, HeaderValue::from_str(line).unwrap());
        }
        SearchVariance::read(&headers)
    }

    fn all_but(names: &[&str]) -> Parameters {
        Parameters::AllBut(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn only(names: &[&str]) -> Parameters {
        Parameters::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn variance(parameters: Parameters, order: bool) -> Option<SearchVariance> {
        Some(SearchVariance { parameters, order })
    }

    fn equivalent(field: &str, one: &str, other: &str) -> bool {
        let variance = read(&[field]).unwrap();
        variance.significant(one) == variance.significant(other)
    }

    #[test]
    fn the_members_of_the_dictionary_are_read() {
        assert_eq!(read(&["params"]), variance(only(&[]), true));
        assert_eq!(
            read(&["params=(\"b\" \"a\" \"b\")"]),
            variance(all_but(&["a", "b"]), true)
        );
        assert_eq!(
            read(&["params, except=(\"x\")"]),
            variance(only(&["x"]), true)
        );
        assert_eq!(read(&["key-order"]), variance(all_but(&[]), false));
        assert_eq!(
            read(&["params, key-order, except=(\"x\"), future=1"]),
            variance(only(&["x"]), false)
        );
    }

    #[test]
    fn lines_are_one_dictionary() {
        assert_eq!(read(&["params", "key-order"]), variance(only(&[]), false));
    }

    #[test]
    fn what_says_nothing_is_no_variance() {
        for value in ["params=?0", "params=()", "key-order=?0", "unknown-key", ""] {
            assert_eq!(read(&[value]), None, "{value}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn what_is_malformed_is_no_variance() {
        for value in [
            "key-order=\"not a boolean\"",
            "params=\"not a boolean or inner list\"",
            "params=(not-a-string)",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=?0, except=(\"x\")",
            "params, except=(not-a-string)",
            "params, except=\"not an inner list\"",
            "params, except=?1",
            "except=(\"x\")",
            "except=()",
            "params=(\"a\"",
            "params,, key-order",
            "Params",
            "key-order=1, params",
        ] {
            assert_eq!(read(&[value]), None, "{value}");
        }
    }

    #[test]
    fn names_are_decoded() {
        let names = read(&["params=(\"%C3%A9+%E6%B0%97\")"]);
        assert_eq!(names, variance(all_but(&["é 気"]), true));
        for query in ["%C3%A9+%E6%B0%97=4", "%C3%A9%20%e6%b0%97=3", "é+気=2"] {
            assert!(
                equivalent("params=(\"%C3%A9+%E6%B0%97\")", query, ""),
                "{query}"
            );
        }
    }

    #[test]
    fn queries_that_decode_to_the_same_are_equivalent() {
        for (one, other) in [
            ("a=x", "%61=%78"),
            ("a=%f6", "a=%ef%bf%bd"),
            ("a=x&&&&", "a=x"),
            ("a=", "a"),
            ("a=%20", "a=+"),
            ("b=1&a=2&b=0", "a=2&b=1&b=0"),
        ] {
            assert!(equivalent("key-order", one, other), "{one} {other}");
        }
        for (one, other) in [("a=x", "a=y"), ("a", ""), ("b=1&b=0", "b=0&b=1")] {
            assert!(!equivalent("key-order", one, other), "{one} {other}");
        }
    }

    #[test]
    fn order_counts_unless_it_is_said_not_to() {
        assert!(!equivalent("params=(\"u\")", "a=1&b=2", "b=2&a=1"));
        assert!(equivalent("params=(\"u\")", "a=1&u&b=2&u=1", "a=1&b=2"));
    }

    #[test]
    fn of_all_parameters_only_the_excepted_count() {
        assert!(equivalent("params", "a=1&b=2", ""));
        assert!(equivalent("params, except=(\"id\")", "a=1&id=2", "id=2&b"));
        assert!(!equivalent("params, except=(\"id\")", "id=1", "id=2"));
        assert!(!equivalent("params, except=(\"id\")", "id=1", "Id=1"));
    }

    #[test]
    fn more_names_than_allowed_are_no_variance() {
        let list = |count: usize, bytes: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("\"{n:0bytes$}\"")).collect();
            read(&[&format!("params=({})", names.join(" "))])
        };
        assert!(list(NAMES_MAX, 4).is_some());
        assert!(list(NAMES_MAX + 1, 4).is_none());
        assert!(list(2, NAMES_BYTES_MAX / 2).is_some());
        assert!(list(2, NAMES_BYTES_MAX / 2 + 1).is_none());
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in "[ -~\t]{0,60}", query in "[ -~é]{0,40}") {
            if let Some(variance) = read(&[&value]) {
                drop(variance.significant(&query));
            }
        }

        #[test]
        fn values_like_the_drafts_never_panic(
            value in "(params|except|key-order)(=(\\?[01]|\\(\"[a%+]{0,3}\"\\)))?(, (params|except|key-order)(=\\(\"x\"\\))?)?",
            query in "[a-c%+=&0-9]{0,30}",
        ) {
            if let Some(variance) = read(&[&value]) {
                let significant = variance.significant(&query);
                prop_assert!(significant.len() <= query.len());
            }
        }
    }
}
