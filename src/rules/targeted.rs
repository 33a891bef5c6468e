//! Which field of a response tells this cache what to do? (RFC 9213, W3C Edge Architecture)
//!
//! A site lists the targeted fields it obeys, the most particular first. The first of them that is
//! there, valid and not empty decides alone: Cache-Control and Expires are not looked at (RFC 9213
//! §2.2). A field that is empty or cannot be parsed counts as absent (§2.1). All of them are
//! dictionaries of structured fields (RFC 8941) but Surrogate-Control, which is older and has a
//! grammar of its own. What the directives mean is the same everywhere and is said in
//! [`directives`](super::directives).

use super::directives::Argument;
use super::directives::Cover;
use super::directives::DELTA_SECONDS_MAX;
use super::directives::Member;
use super::directives::Members;
use super::directives::ResponseDirectives;
use super::directives::field_list;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use sfv::BareItem;
use sfv::Dictionary;
use sfv::ListEntry;
use sfv::Parser;
use sfv::Version;
use std::time::Duration;

/// A response field that stands before Cache-Control and Expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targeted {
    name: HeaderName,
    grammar: Grammar,
}

/// How the value of a targeted field is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grammar {
    /// A dictionary of structured fields (RFC 9213 §2.1).
    Dictionary,
    /// Edge Architecture §2.2: a list like Cache-Control's, whose members may be meant for one
    /// device.
    Surrogate {
        /// Our device token.
        device: String,
        /// How we introduce ourselves to the origin.
        capability: HeaderValue,
    },
}

impl Targeted {
    /// The field called `name`; `identifier` is what origins may call us in Surrogate-Control.
    pub fn new(name: HeaderName, identifier: &str) -> Self {
        if name != SURROGATE_CONTROL {
            let grammar = Grammar::Dictionary;
            return Self { name, grammar };
        }
        // An identifier may have characters that a token may not.
        let device = identifier.replace([':', '/'], "-");
        let capability = format!("{device}=\"Surrogate/1.0\"");
        let capability = HeaderValue::try_from(capability)
            .unwrap_or(HeaderValue::from_static("cache=\"Surrogate/1.0\""));
        let grammar = Grammar::Surrogate { device, capability };
        Self { name, grammar }
    }

    /// Its name.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The Surrogate-Capability field that goes with it on requests to the origin, if any: without
    /// it no directive could be meant for us (Edge Architecture §2.1).
    pub fn capability(&self) -> Option<&HeaderValue> {
        match &self.grammar {
            Grammar::Dictionary => None,
            Grammar::Surrogate { capability, .. } => Some(capability),
        }
    }

    /// Reads all lines of the field; `None` when it is absent, invalid or empty.
    fn read(&self, headers: &HeaderMap) -> Option<ResponseDirectives> {
        let mut lines = headers.get_all(&self.name).iter().peekable();
        lines.peek()?;
        let read = match &self.grammar {
            Grammar::Dictionary => dictionary(lines),
            Grammar::Surrogate { device, .. } => surrogate(lines, device.as_bytes()),
        };
        read.map(|directives| ResponseDirectives {
            targeted: true,
            ..directives
        })
    }
}

impl ResponseDirectives {
    /// Reads the first of the `targeted` fields that is valid and not empty; where none is, falls
    /// back on Cache-Control (RFC 9213 §2.2).
    pub fn read_targeted(headers: &HeaderMap, targeted: &[Targeted]) -> Self {
        Self::read_speaking(headers, targeted).0
    }

    /// As [`read_targeted`](Self::read_targeted), and says which of the fields it was; none where it
    /// fell back on Cache-Control.
    pub fn read_speaking<'t>(
        headers: &HeaderMap,
        targeted: &'t [Targeted],
    ) -> (Self, Option<&'t HeaderName>) {
        let read = |field: &'t Targeted| Some((field.read(headers)?, Some(&field.name)));
        targeted
            .iter()
            .find_map(read)
            .unwrap_or_else(|| (Self::read(headers), None))
    }
}

/// Reads a dictionary; of a key that is repeated the last value counts (RFC 8941 §3.2).
///
/// Parameters are ignored, as RFC 9213 §2.1 has it. There an implementation "SHOULD NOT consume
/// values that violate" a directive's type. Such a value is never taken for what it may have meant:
/// seconds that are no integer are none, so that the response is stale (RFC 9111 §4.2.1), a
/// directive that restricts does so with any value, and one that loosens only with its own.
fn dictionary<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<ResponseDirectives> {
    // One field in several lines is one value (RFC 8941 §4.2).
    let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    let value = lines.join(b", ".as_slice());
    // RFC 9213 refers to RFC 8941, which has no dates and no display strings.
    let members: Dictionary = Parser::new(&value)
        .with_version(Version::Rfc8941)
        .parse()
        .ok()?;
    if members.is_empty() {
        return None;
    }
    let mut directives = ResponseDirectives::default();
    for (key, value) in &members {
        directives.add(key.as_str().as_bytes(), value);
    }
    Some(directives)
}

impl Argument for ListEntry {
    fn is_absent(&self) -> bool {
        matches!(value(self), Some(BareItem::Boolean(true)))
    }

    fn seconds(&self) -> Option<Duration> {
        match value(self) {
            Some(BareItem::Integer(seconds)) => {
                let seconds = u64::try_from(i64::from(*seconds)).ok()?;
                Some(Duration::from_secs(seconds).min(DELTA_SECONDS_MAX))
            }
            _ => None,
        }
    }

    fn cover(&self) -> Cover {
        match value(self) {
            Some(BareItem::String(list)) => field_list(list.as_str().as_bytes()),
            _ => Cover::Whole,
        }
    }
}

/// The value of a member, when it is a single one.
fn value(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// Reads Surrogate-Control (Edge Architecture §2.2, §2.3).
///
/// Directives meant for another device are not for us. Those meant for us stand before those for
/// everybody. `content` and `no-store-remote` are passed over: nothing is processed here, and an
/// accelerator is not remote from its origin.
fn surrogate<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
    device: &[u8],
) -> Option<ResponseDirectives> {
    let mut ours = ResponseDirectives::default();
    let mut everybodys = ResponseDirectives::default();
    let mut empty = true;
    for line in lines {
        for member in Members::with_devices(line.as_bytes()) {
            let member = member.ok()?;
            let directives = match member.device {
                None => &mut everybodys,
                Some(named) if named == device => &mut ours,
                Some(_) => continue,
            };
            empty = false;
            add_surrogate(directives, &member);
        }
    }
    let said_to_us = ours != ResponseDirectives::default();
    (!empty).then_some(if said_to_us { ours } else { everybodys })
}

/// `max-age=600+60` is fresh for 600 seconds, and for another 60 "the stale entity may be served"
/// (Edge Architecture §2.2.3); here it is validated behind the client's back meanwhile.
fn add_surrogate(directives: &mut ResponseDirectives, member: &Member<'_>) {
    let argument = member.argument.as_deref().unwrap_or_default();
    let plus = argument.iter().position(|byte| *byte == b'+');
    match plus.and_then(|plus| argument.split_at_checked(plus)) {
        Some((fresh, extension)) if member.is_named(b"max-age") => {
            let seconds = |digits| Member::with_argument(b"max-age", digits);
            directives.add(b"max-age", &seconds(fresh));
            let extension = extension.get(1..).unwrap_or_default();
            directives.add(b"stale-while-revalidate", &seconds(extension));
        }
        _ => member.add_to(directives),
    }
}

/// The field for caches that act for the origin's side (RFC 9213 §3).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// The one field with a grammar of its own.
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn list(names: &[&'static str]) -> Vec<Targeted> {
        let field = |name: &&'static str| Targeted::new(HeaderName::from_static(name), "larder");
        names.iter().map(field).collect()
    }

    fn read(lines: &[(&'static str, &str)], targeted: &[&'static str]) -> ResponseDirectives {
        ResponseDirectives::read_targeted(&fields(lines), &list(targeted))
    }

    /// What CDN-Cache-Control says beside a Cache-Control of `no-store`.
    fn cdn(value: &str) -> ResponseDirectives {
        let lines = [("cache-control", "no-store"), ("cdn-cache-control", value)];
        read(&lines, &["cdn-cache-control"])
    }

    /// What Surrogate-Control says beside a Cache-Control of `no-store`.
    fn edge(value: &str) -> ResponseDirectives {
        let lines = [("cache-control", "no-store"), ("surrogate-control", value)];
        read(&lines, &["surrogate-control"])
    }

    fn targeted() -> ResponseDirectives {
        ResponseDirectives {
            targeted: true,
            ..ResponseDirectives::default()
        }
    }

    fn fresh_for(seconds: u64) -> ResponseDirectives {
        ResponseDirectives {
            max_age: Some(secs(seconds)),
            ..targeted()
        }
    }

    #[test]
    fn a_targeted_field_takes_the_place_of_cache_control() {
        assert_eq!(cdn("max-age=60"), fresh_for(60));
        assert_eq!(edge("max-age=60"), fresh_for(60));
    }

    #[test]
    fn every_directive_is_known_in_a_targeted_field_too() {
        let said = cdn(
            "max-age=1, s-maxage=2, no-store, no-cache, private, public, must-revalidate, \
             proxy-revalidate, must-understand, no-transform, immutable, \
             stale-while-revalidate=3, stale-if-error=4",
        );
        let wanted = ResponseDirectives {
            max_age: Some(secs(1)),
            s_maxage: Some(secs(2)),
            no_store: true,
            no_cache: Cover::Whole,
            private: Cover::Whole,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            stale_while_revalidate: Some(secs(3)),
            stale_if_error: Some(secs(4)),
            malformed: false,
            targeted: true,
        };
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_field_that_is_no_dictionary_is_ignored_whole() {
        let broken = [
            "",
            " ",
            "max-age=60,",
            ", max-age=60",
            "max-age=60, &&&",
            "max-age=60; no-store=",
            "max-age =60",
            "max-age= 60",
            "max-age=",
            "max-age=60 public",
            "max-age=\"60",
            "Max-Age=60",
            "max-age=1234567890123456",
            "max-age=@60",
            "max-age=60, x=\u{e9}",
            "no-cache='set-cookie'",
        ];
        for value in broken {
            let said = cdn(value);
            assert!(said.no_store && !said.targeted, "{value}");
        }
    }

    #[test]
    fn lines_are_one_dictionary_in_which_the_last_value_of_a_key_counts() {
        let lines = [
            ("cdn-cache-control", "max-age=60, x"),
            ("cdn-cache-control", "max-age=5"),
        ];
        assert_eq!(read(&lines, &["cdn-cache-control"]), fresh_for(5));
        let broken = [lines[0], ("cdn-cache-control", "&")];
        assert!(!read(&broken, &["cdn-cache-control"]).targeted);
    }

    #[test]
    fn a_member_that_nobody_knows_makes_the_field_valid_and_says_nothing() {
        assert_eq!(cdn("none"), targeted());
        assert_eq!(cdn("x=(1 2);a=?0, y=:eA==:, max-age=60"), fresh_for(60));
    }

    #[test]
    fn parameters_are_ignored() {
        assert_eq!(cdn("max-age=60;for=\"you\";x=1"), fresh_for(60));
        assert!(cdn("no-store;x").no_store);
    }

    #[test]
    fn seconds_of_another_type_are_none() {
        for value in [
            "max-age",
            "max-age=\"60\"",
            "max-age=60.0",
            "max-age=-60",
            "max-age=soon",
            "max-age=?1",
            "max-age=(60)",
            "max-age=:NjA=:",
        ] {
            assert_eq!(cdn(value), fresh_for(0), "{value}");
        }
    }

    #[test]
    fn seconds_too_large_to_count_are_the_largest() {
        let said = cdn("max-age=999999999999999");
        assert_eq!(said.max_age, Some(DELTA_SECONDS_MAX));
    }

    #[test]
    fn what_restricts_does_so_with_any_value_and_what_loosens_only_with_its_own() {
        let said = cdn("no-store=1, must-revalidate=\"x\", private=(a), no-cache=a");
        assert!(said.no_store && said.must_revalidate);
        assert!(said.private.is_whole() && said.no_cache.is_whole());
        let said = cdn("public=1, must-understand=?0, immutable=yes, max-age=60");
        assert_eq!(said, fresh_for(60));
    }

    #[test]
    fn a_string_may_name_fields() {
        let said = cdn("private=\"x-user, set-cookie\", max-age=60");
        assert!(said.withhold(&HeaderName::from_static("x-user")));
        assert!(!said.private.is_whole());
    }

    #[test]
    fn the_first_usable_field_of_the_list_wins() {
        let lines = [("b-cache-control", "max-age=2"), ("a-cache-control", "")];
        let both = ["a-cache-control", "b-cache-control"];
        assert_eq!(read(&lines, &both), fresh_for(2));
        let lines = [lines[0], ("a-cache-control", "max-age=1")];
        assert_eq!(read(&lines, &both), fresh_for(1));
    }

    #[test]
    fn a_field_that_is_not_on_the_list_says_nothing() {
        let lines = [("cache-control", "no-store"), ("x-cache-control", "public")];
        assert!(!read(&lines, &["cdn-cache-control"]).targeted);
    }

    #[test]
    fn surrogate_control_has_a_grammar_of_its_own() {
        assert_eq!(edge("MAX-Age=\"60\" ,, x"), fresh_for(60));
        assert!(edge("no-store, content=\"ESI/1.0\"").no_store);
        assert_eq!(edge("content=\"ESI/1.0\", no-store-remote"), targeted());
        for broken in [
            "max-age =60",
            "max-age=60 ;larder",
            "no-store;",
            "no-store;a b",
        ] {
            assert!(!edge(broken).targeted, "{broken}");
        }
    }

    #[test]
    fn a_freshness_extension_is_a_stale_window() {
        let wanted = ResponseDirectives {
            stale_while_revalidate: Some(secs(30)),
            ..fresh_for(60)
        };
        assert_eq!(edge("max-age=60+30"), wanted);
        let none = ResponseDirectives {
            stale_while_revalidate: Some(secs(0)),
            ..fresh_for(60)
        };
        assert_eq!(edge("max-age=60+"), none);
        assert_eq!(edge("max-age=60+30+1"), none);
        assert_eq!(edge("max-age=+30").max_age, Some(secs(0)));
    }

    #[test]
    fn what_is_meant_for_us_stands_before_what_is_meant_for_everybody() {
        assert_eq!(edge("max-age=60;larder, no-store"), fresh_for(60));
        assert!(edge("max-age=60, no-store;larder").no_store);
        assert_eq!(edge("max-age=60, content=\"x\";larder"), fresh_for(60));
    }

    #[test]
    fn what_is_meant_for_others_is_not_for_us() {
        assert_eq!(edge("max-age=60, no-store;other"), fresh_for(60));
        let said = edge("max-age=60;other");
        assert!(said.no_store && !said.targeted);
    }

    #[test]
    fn only_surrogate_control_has_us_introduce_ourselves() {
        let capability = |name: &'static str, identifier: &str| {
            let field = Targeted::new(HeaderName::from_static(name), identifier);
            field.capability().cloned()
        };
        assert_eq!(capability("cdn-cache-control", "larder"), None);
        let wanted = HeaderValue::from_static("a-b-c.d_e=\"Surrogate/1.0\"");
        assert_eq!(capability("surrogate-control", "a:b/c.d_e"), Some(wanted));
    }

    proptest! {
        #[test]
        fn no_value_makes_the_reader_panic(value in any::<Vec<u8>>(), more in "[a-z=;,+0-9\" ()?*:-]*") {
            for name in ["cdn-cache-control", "surrogate-control"] {
                for bytes in [value.as_slice(), more.as_bytes()] {
                    if let Ok(value) = HeaderValue::from_bytes(bytes) {
                        let mut headers = HeaderMap::new();
                        headers.append(name, value);
                        let said = ResponseDirectives::read_targeted(&headers, &list(&[name]));
                        prop_assert!(said.max_age.is_none_or(|age| age <= DELTA_SECONDS_MAX));
                        prop_assert!(!(said.targeted && said.malformed));
                    }
                }
            }
        }

        #[test]
        fn both_grammars_agree_on_what_both_can_say(
            age in 0_u32..,
            stale in 0_u32..,
            no_store in any::<bool>(),
        ) {
            let forbid = if no_store { ", no-store" } else { "" };
            let value = format!("max-age={age}, stale-if-error={stale}{forbid}");
            let plain = read(&[("cache-control", &value)], &[]);
            let wanted = ResponseDirectives { targeted: true, ..plain };
            prop_assert!(cdn(&value) == wanted && edge(&value) == wanted);
        }
    }
}
