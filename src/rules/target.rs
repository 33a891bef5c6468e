//! Which part of a target counts? The site's policy on queries, applied to path and query.
//!
//! What is left out of the key is left out of the request to the origin too: an origin that read a
//! parameter which no key contains would let one client decide what the others get. So a target is
//! reduced once, before its key is computed, and goes on reduced. Nothing is decoded here: a name
//! that is spelled otherwise than the policy spells it stays, and has a key of its own.

use std::borrow::Cow;

/// What a site lets count of its queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPolicy {
    /// What is done about those that are not dropped.
    pub query: Query,
    /// Names of parameters that are dropped; a `*` at the end stands for any continuation.
    pub drop: Vec<String>,
}

/// What is done about a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// It counts as it is spelled.
    #[default]
    Keep,
    /// Its parameters are sorted by name; those of equal names keep their order.
    Sort,
    /// It does not count.
    Drop,
}

impl QueryPolicy {
    /// Reduces path and query to what counts. Reducing twice changes nothing more.
    pub fn reduce<'t>(&self, target: &'t str) -> Cow<'t, str> {
        let Some((path, query)) = target.split_once('?') else {
            return Cow::Borrowed(target);
        };
        if self.query == Query::Drop {
            return Cow::Borrowed(path);
        }
        if self.query == Query::Keep && self.drop.is_empty() {
            return Cow::Borrowed(target);
        }
        let mut parameters: Vec<&str> = query.split('&').collect();
        let before = parameters.len();
        parameters.retain(|parameter| !self.drops(name(parameter)));
        if self.query == Query::Sort {
            parameters.sort_by_key(|parameter| name(parameter));
        }
        if parameters.is_empty() {
            return Cow::Borrowed(path);
        }
        if parameters.len() == before && self.query == Query::Keep {
            return Cow::Borrowed(target);
        }
        Cow::Owned(format!("{path}?{}", parameters.join("&")))
    }

    /// The parameters of a target, as they are spelled, that do not count.
    pub fn dropped<'t>(&self, target: &'t str) -> Vec<&'t str> {
        let query = target.split_once('?').map(|(_, query)| query);
        let parameters = query.into_iter().flat_map(|query| query.split('&'));
        parameters
            .filter(|parameter| self.query == Query::Drop || self.drops(name(parameter)))
            .collect()
    }

    fn drops(&self, name: &str) -> bool {
        self.drop
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    }
}

/// The name of a parameter, as it is spelled.
fn name(parameter: &str) -> &str {
    parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name)
}

/// Parameters by which advertisers and mailers follow clients, and which origins do not read.
pub const TRACKING: &[&str] = &[
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "dclid",
    "fbclid",
    "gad_source",
    "gbraid",
    "gclid",
    "gclsrc",
    "igshid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "msclkid",
    "oly_anon_id",
    "oly_enc_id",
    "ttclid",
    "twclid",
    "utm_*",
    "vero_id",
    "wbraid",
    "yclid",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(query: Query, drop: &[&str]) -> QueryPolicy {
        QueryPolicy {
            query,
            drop: drop.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_query_counts_as_it_is_spelled_unless_the_site_says_otherwise() {
        for target in ["/a", "/a?", "/a?b&&a=1&b", "/a?a=1?b", "*"] {
            assert_eq!(QueryPolicy::default().reduce(target), target);
        }
    }

    #[test]
    fn a_dropped_query_goes_with_its_question_mark() {
        let policy = policy(Query::Drop, &[]);
        assert_eq!(policy.reduce("/a?b=1?c"), "/a");
        assert_eq!(policy.reduce("/a?"), "/a");
    }

    #[test]
    fn sorting_keeps_the_order_of_equal_names() {
        let policy = policy(Query::Sort, &[]);
        assert_eq!(policy.reduce("/a?b=2&a=9&b=1&a"), "/a?a=9&a&b=2&b=1");
        assert_eq!(policy.reduce("/a?a-=1&a=2"), "/a?a=2&a-=1");
    }

    #[test]
    fn named_parameters_are_dropped_and_the_rest_stays_as_it_is() {
        let policy = policy(Query::Keep, &["utm_*", "ref"]);
        let reduced = policy.reduce("/a?z=1&utm_source=x&ref&&refs=2&utm_=&a=ref&utm");
        assert_eq!(reduced, "/a?z=1&&refs=2&a=ref&utm");
        assert_eq!(policy.reduce("/a?ref=1&utm_x"), "/a");
    }

    #[test]
    fn a_name_that_is_spelled_otherwise_is_not_dropped() {
        let policy = policy(Query::Keep, &["ref"]);
        for target in ["/a?re%66=1", "/a?Ref=1", "/a?x;ref=1", "/a?%72ef"] {
            assert_eq!(policy.reduce(target), target);
        }
    }

    #[test]
    fn the_tracking_parameters_are_in_order_and_once_each() {
        assert!(TRACKING.is_sorted());
        assert!(TRACKING.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn what_does_not_count_can_be_told() {
        let some = policy(Query::Sort, &["utm_*", "b"]);
        assert_eq!(some.dropped("/?a=1&utm_x=2&b&b=3"), ["utm_x=2", "b", "b=3"]);
        assert!(some.dropped("/?a=1").is_empty());
        assert!(some.dropped("/").is_empty());
        let all = policy(Query::Drop, &[]);
        assert_eq!(all.dropped("/?a=1&b"), ["a=1", "b"]);
    }

    proptest! {
        #[test]
        fn reducing_twice_changes_nothing_more(target in "/[a-c?&=*]{0,30}") {
            for query in [Query::Keep, Query::Sort, Query::Drop] {
                let policy = policy(query, &["a", "b*"]);
                let once = policy.reduce(&target).into_owned();
                prop_assert_eq!(policy.reduce(&once), once.as_str());
            }
        }

        #[test]
        fn what_counts_does_not_depend_on_the_order_of_different_names(
            names in prop::collection::btree_set("[a-f]{1,3}", 0..6),
            seed in any::<u64>(),
        ) {
            let policy = policy(Query::Sort, &[]);
            let mut shuffled: Vec<String> = names.iter().cloned().collect();
            shuffled.sort_by_key(|name| blake3::hash(format!("{seed}{name}").as_bytes()).to_string());
            let target = |names: &[String]| format!("/?{}", names.join("&"));
            let sorted: Vec<String> = names.into_iter().collect();
            let (one, other) = (target(&sorted), target(&shuffled));
            prop_assert_eq!(policy.reduce(&one), policy.reduce(&other));
        }
    }
}
