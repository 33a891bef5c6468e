//! Which stored response may answer a request: the primary key, and the variant by `Vary`.
//!
//! ```text
//! site, [scheme], authority, target ───────────────► PrimaryKey   names a target
//!        with No-Vary-Search: path, what counts ───► PrimaryKey   names equivalent targets
//! site's fields, response's Vary ─► fields ─┐
//! request's fields ────────────────────────┴───────► VariantKey   one of its variants
//! ```
//!
//! Both are BLAKE3 over parts that carry their lengths in front, so no two lists of parts run
//! together into the same bytes. The target goes in exactly as it is forwarded: two spellings that
//! an origin may tell apart never share a key (RFC 9111 §2). What the keys lead to is kept in
//! `state/index`.
//!
//! A response that came with No-Vary-Search is stored under a key of another make: one half is
//! computed from what it says and what that leaves of the query, the other half from the path. So
//! only targets that are equivalent by its own word share the key, and the keys of all queries of a
//! path are one [`family`](PrimaryKey::family), which a purge can cover without knowing them.

use super::authority::host_of;
use super::request::NormalRequest;
use super::request::Scheme;
use super::search::Parameters;
use super::search::SearchVariance;
use super::selecting::BEST_LANGUAGE;
use super::selecting::is_own_name;
use super::selecting::selecting_value;
use super::target::QueryPolicy;
use http::HeaderMap;
use http::HeaderName;
use http::header;

/// Names the target a response answers: BLAKE3 of site, authority, path and query.
///
/// 128 bits: two targets out of a million million share a key with a chance below one in 10¹⁴,
/// and nobody can construct such a pair with less than 2⁶⁴ tries. The keys of a family differ in 64
/// bits: who tries 2³² queries of one path finds two of them that share a key, but a query that
/// shares it with a given one only in 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey(pub [u8; 16]);

/// Names one variant of a target by the values of the fields that `Vary` selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantKey(pub u64);

/// What goes into a site's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    /// `http` and `https` have separate responses.
    pub scheme: bool,
    /// Ports have separate responses. When they have not, origins are not told the port either.
    pub port: bool,
    /// What counts of a query.
    pub query: QueryPolicy,
    /// Fields, and cookies as [`cookie_field`](super::selecting::cookie_field) writes them, that
    /// select variants of every target, as if each response's `Vary` named them. Sorted, without
    /// repeats.
    pub selecting: Vec<HeaderName>,
    /// A response in one language answers whoever likes that one best. RFC 9111 §4.1 does not have
    /// it so: it is the operator's word that the origin chooses by weight.
    pub best_language: bool,
    /// Responses may say by No-Vary-Search which targets they answer.
    pub no_vary_search: bool,
}

impl KeyPolicy {
    /// Leaves the port off an authority when it does not count.
    pub fn authority<'a>(&self, authority: &'a str) -> &'a str {
        match self.port {
            true => authority,
            false => host_of(authority),
        }
    }
}

impl Default for KeyPolicy {
    /// One response for both schemes; ports and queries count as they are; No-Vary-Search counts.
    fn default() -> Self {
        Self {
            scheme: false,
            port: true,
            query: QueryPolicy::default(),
            selecting: Vec::new(),
            best_language: false,
            no_vary_search: true,
        }
    }
}

/// What goes into a primary key beside the names of the site's selecting fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// The site's name.
    pub site: &'a str,
    /// Empty where `http` and `https` share responses.
    pub scheme: &'static str,
    /// Without its port where ports do not tell responses apart.
    pub authority: &'a str,
    /// Path and query, as far as they count.
    pub target: &'a str,
}

impl<'a> KeyParts<'a> {
    /// The parts for a `target` that the policy on queries has reduced already.
    pub fn new(
        site: &'a str,
        authority: &'a str,
        target: &'a str,
        scheme: Scheme,
        policy: &KeyPolicy,
    ) -> Self {
        Self {
            site,
            scheme: if policy.scheme { scheme.as_str() } else { "" },
            authority: policy.authority(authority),
            target,
        }
    }
}

/// What a response says about which requests it answers (RFC 9110 §12.5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or a value that cannot be read: matches no later request.
    Any,
    /// The named fields, lower case, sorted, without repeats; often none.
    Fields(Vec<HeaderName>),
}

impl Vary {
    /// Reads all `Vary` lines of a response.
    ///
    /// More than [`VARY_FIELDS_MAX`] names come to [`Vary::Any`]: such a response would hardly
    /// ever be found again. So do names of fields that are written for the origin and are not
    /// among the client's, since what they select by cannot be seen in a request, and names that
    /// stand for something else here.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut fields = Vec::new();
        for line in headers.get_all(header::VARY) {
            for member in line.as_bytes().split(|byte| *byte == b',') {
                let member = member.trim_ascii();
                if member.is_empty() {
                    continue;
                }
                // `*` is a token too, so it must be told apart before the name is read.
                let Ok(name) = HeaderName::from_bytes(member) else {
                    return Self::Any;
                };
                let unseen = is_unseen(&name) || is_own_name(&name);
                if member == b"*" || unseen || fields.len() == VARY_FIELDS_MAX {
                    return Self::Any;
                }
                fields.push(name);
            }
        }
        fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        fields.dedup();
        Self::Fields(fields)
    }
}

impl PrimaryKey {
    /// Computes the key of a request to the site called `site`.
    pub fn new(site: &str, request: &NormalRequest, policy: &KeyPolicy) -> Self {
        let (authority, target) = (request.authority(), request.target());
        Self::for_target(site, authority, target, request.scheme(), policy)
    }

    /// Computes the key that a request for `target` on `authority` has; both as
    /// [`NormalRequest`] or [`parse_url`](super::request::parse_url) returns them.
    pub fn for_target(
        site: &str,
        authority: &str,
        target: &str,
        scheme: Scheme,
        policy: &KeyPolicy,
    ) -> Self {
        let target = policy.query.reduce(target);
        Self(leading(&hasher(site, authority, &target, scheme, policy)))
    }

    /// Computes the key that `target` shares with all targets that are equivalent to it under
    /// `variance`, as the response that says so has it.
    pub fn alike(
        site: &str,
        authority: &str,
        target: &str,
        scheme: Scheme,
        policy: &KeyPolicy,
        variance: &SearchVariance,
    ) -> Self {
        let target = policy.query.reduce(target);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut hasher = hasher(site, authority, path, scheme, policy);
        add_part(&mut hasher, b"no-vary-search");
        let family: [u8; 8] = leading(&hasher);
        let (kind, names) = match &variance.parameters {
            Parameters::AllBut(names) => (b"all but".as_slice(), names),
            Parameters::Only(names) => (b"only".as_slice(), names),
        };
        add_part(&mut hasher, kind);
        hasher.update(&[u8::from(variance.order)]);
        hasher.update(&(names.len() as u64).to_le_bytes());
        for name in names {
            add_part(&mut hasher, name.as_bytes());
        }
        for (name, value) in variance.significant(query) {
            add_part(&mut hasher, name.as_bytes());
            add_part(&mut hasher, value.as_bytes());
        }
        Self::of_halves(leading(&hasher), family)
    }

    /// What the keys under No-Vary-Search have in common with which all queries of a path are
    /// stored. Nothing is stored under it; other keys have families too, but they mean nothing.
    #[must_use]
    pub fn family(self) -> Self {
        let half = self.0.last_chunk().copied().unwrap_or_default();
        Self::of_halves([0; 8], half)
    }

    /// The family of the keys that a path's responses with No-Vary-Search are stored under.
    pub fn family_of(
        site: &str,
        authority: &str,
        target: &str,
        scheme: Scheme,
        policy: &KeyPolicy,
    ) -> Self {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let mut hasher = hasher(site, authority, path, scheme, policy);
        add_part(&mut hasher, b"no-vary-search");
        Self::of_halves([0; 8], leading(&hasher))
    }

    fn of_halves(own: [u8; 8], family: [u8; 8]) -> Self {
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(own.into_iter().chain(family)) {
            *to = from;
        }
        Self(key)
    }
}

/// Begins a primary key. The site's selecting fields go in, so that what was stored before they
/// were chosen is not found by requests that nothing was selected for.
fn hasher(
    site: &str,
    authority: &str,
    target: &str,
    scheme: Scheme,
    policy: &KeyPolicy,
) -> blake3::Hasher {
    let parts = KeyParts::new(site, authority, target, scheme, policy);
    let mut hasher = blake3::Hasher::new();
    for part in [parts.site, parts.scheme, parts.authority, parts.target] {
        add_part(&mut hasher, part.as_bytes());
    }
    for name in &policy.selecting {
        add_part(&mut hasher, name.as_str().as_bytes());
    }
    if policy.best_language {
        add_part(&mut hasher, BEST_LANGUAGE.as_str().as_bytes());
    }
    hasher
}

impl VariantKey {
    /// The only variant of a response without `Vary`.
    pub const ONLY: Self = Self(0);

    /// Computes the variant that `request_headers` select among responses that vary by `fields`.
    ///
    /// Values count in their normal form (see [`selecting`](super::selecting)). An absent field
    /// differs from an empty one.
    pub fn new(fields: &[HeaderName], request_headers: &HeaderMap) -> Self {
        if fields.is_empty() {
            return Self::ONLY;
        }
        let mut hasher = blake3::Hasher::new();
        for name in fields {
            add_part(&mut hasher, name.as_str().as_bytes());
            match selecting_value(name, request_headers) {
                Some(value) => {
                    hasher.update(&[1]);
                    add_part(&mut hasher, &value);
                }
                None => {
                    hasher.update(&[0]);
                }
            }
        }
        // Zero is taken: it says that nothing was selected by.
        Self(u64::from_le_bytes(leading(&hasher)).max(1))
    }
}

/// Adds one part with its length in front.
fn add_part(hasher: &mut blake3::Hasher, part: &[u8]) {
    // usize is at most 64 bits wide wherever this compiles.
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// Returns the first bytes of the digest.
fn leading<const BYTES: usize>(hasher: &blake3::Hasher) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Most names in the `Vary` of a response that can be found again.
pub const VARY_FIELDS_MAX: usize = 32;

/// Is this a field that requests cannot be told apart by, because it is written anew for the
/// origin?
pub fn is_unseen(name: &HeaderName) -> bool {
    WRITTEN_FOR_ORIGIN.contains(&name.as_str())
}

/// Fields that `flow` writes from the connection when it asks an origin. `X-Forwarded-Host` is none
/// of them: what it says is in the key.
const WRITTEN_FOR_ORIGIN: [&str; 4] = ["cdn-loop", "forwarded", "via", "x-forwarded-for"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::Params;
    use crate::rules::selecting::cookie_field;
    use crate::rules::target::Query;
    use http::HeaderValue;
    use http::Method;
    use http::Request;
    use proptest::prelude::*;

    fn any_scheme() -> KeyPolicy {
        KeyPolicy::default()
    }

    fn by_scheme() -> KeyPolicy {
        KeyPolicy {
            scheme: true,
            ..KeyPolicy::default()
        }
    }

    fn request(method: Method, host: &str, target: &str, scheme: Scheme) -> NormalRequest {
        let request = Request::builder().method(method).uri(target);
        let parts = request.header("host", host).body(()).unwrap().into_parts();
        let params = Params {
            body_bytes_max: 0,
            target_bytes_max: 100,
        };
        NormalRequest::new(parts.0, scheme, &params).unwrap()
    }

    fn key(host: &str, target: &str) -> PrimaryKey {
        let request = request(Method::GET, host, target, Scheme::Http);
        PrimaryKey::new("site", &request, &any_scheme())
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn vary(lines: &[&str]) -> Vary {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::read(&headers(&lines))
    }

    fn fields(names: &[&'static str]) -> Vec<HeaderName> {
        names.iter().map(|n| HeaderName::from_static(n)).collect()
    }

    fn variant(names: &[&'static str], lines: &[(&'static str, &str)]) -> VariantKey {
        VariantKey::new(&fields(names), &headers(lines))
    }

    #[test]
    fn the_same_request_has_the_same_key() {
        assert_eq!(key("a.test", "/x?y"), key("A.test:80", "/x?y"));
    }

    #[test]
    fn head_shares_the_key_of_get() {
        let head = request(Method::HEAD, "a.test", "/x", Scheme::Http);
        let head = PrimaryKey::new("site", &head, &any_scheme());
        assert_eq!(head, key("a.test", "/x"));
    }

    #[test]
    fn other_targets_have_other_keys() {
        for target in ["/x/", "/X", "/%78", "/x?", "/x?y", "/x;y", "/y/../x", "//x"] {
            assert_ne!(key("a.test", "/x"), key("a.test", target), "{target}");
        }
    }

    #[test]
    fn what_varies_by_the_clients_address_matches_no_later_request() {
        assert_eq!(vary(&["accept, X-Forwarded-For"]), Vary::Any);
        assert_eq!(vary(&["via"]), Vary::Any);
    }

    #[test]
    fn what_varies_by_the_forwarded_scheme_is_apart_for_http_and_https() {
        let names = fields(&["x-forwarded-proto"]);
        let variant = |scheme| {
            let request = request(Method::GET, "a.test", "/", scheme);
            VariantKey::new(&names, request.headers())
        };
        assert_ne!(variant(Scheme::Http), variant(Scheme::Https));
    }

    #[test]
    fn another_authority_has_another_key() {
        assert_ne!(key("a.test", "/x"), key("b.test", "/x"));
    }

    #[test]
    fn another_port_has_another_key() {
        assert_ne!(key("a.test", "/x"), key("a.test:1337", "/x"));
    }

    #[test]
    fn another_site_has_another_key() {
        let request = request(Method::GET, "a.test", "/x", Scheme::Http);
        let other = PrimaryKey::new("other", &request, &any_scheme());
        assert_ne!(other, key("a.test", "/x"));
    }

    #[test]
    fn the_scheme_does_not_count_unless_the_site_says_so() {
        let tls = request(Method::GET, "a.test", "/x", Scheme::Https);
        let tls = PrimaryKey::new("site", &tls, &any_scheme());
        assert_eq!(tls, key("a.test", "/x"));
    }

    #[test]
    fn the_scheme_counts_when_the_site_says_so() {
        let of = |scheme| PrimaryKey::for_target("site", "a.test", "/x", scheme, &by_scheme());
        assert_ne!(of(Scheme::Http), of(Scheme::Https));
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |site, authority| {
            PrimaryKey::for_target(site, authority, "/", Scheme::Http, &any_scheme())
        };
        assert_ne!(of("a", "b.test"), of("ab", ".test"));
    }

    #[test]
    fn a_key_stays_the_same_between_releases() {
        // Keys are in the journal: were they to change, a store would come back empty.
        let PrimaryKey(bytes) = key("a.test", "/x");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7ee915014bff951e9c0e057d44d86aed");
        let VariantKey(number) = variant(&["accept"], &[("accept", "a")]);
        assert_eq!(format!("{number:016x}"), "0705b33b75af4c6b");
    }

    #[test]
    fn a_response_without_vary_varies_by_nothing() {
        assert_eq!(vary(&[]), Vary::Fields(Vec::new()));
    }

    #[test]
    fn vary_is_read_over_all_lines_sorted_and_without_repeats() {
        let read = vary(&["Cookie, accept ,,", "ACCEPT,Accept-Encoding"]);
        let names = fields(&["accept", "accept-encoding", "cookie"]);
        assert_eq!(read, Vary::Fields(names));
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        assert_eq!(vary(&["accept, *"]), Vary::Any);
        assert_eq!(vary(&["accept", "*"]), Vary::Any);
    }

    #[test]
    fn a_malformed_vary_matches_nothing() {
        for value in ["accept encoding", "a:b", "\"accept\"", "accept; x", "a/b"] {
            assert_eq!(vary(&[value]), Vary::Any, "{value:?}");
        }
    }

    #[test]
    fn as_many_names_as_allowed_are_read() {
        let names: Vec<_> = (0..VARY_FIELDS_MAX).map(|n| format!("x-{n}")).collect();
        assert!(matches!(vary(&[&names.join(",")]), Vary::Fields(read) if read.len() == 32));
    }

    #[test]
    fn more_names_than_allowed_match_nothing() {
        let names: Vec<_> = (0..=VARY_FIELDS_MAX).map(|n| format!("x-{n}")).collect();
        assert_eq!(vary(&[&names.join(",")]), Vary::Any);
    }

    #[test]
    fn nothing_to_select_by_gives_the_only_variant() {
        assert_eq!(variant(&[], &[("accept", "a")]), VariantKey::ONLY);
    }

    #[test]
    fn absent_fields_do_not_give_the_only_variant() {
        assert_ne!(variant(&["accept"], &[]), VariantKey::ONLY);
    }

    #[test]
    fn another_value_selects_another_variant() {
        let of = |value| variant(&["accept"], &[("accept", value)]);
        assert_ne!(of("a"), of("b"));
    }

    #[test]
    fn fields_that_vary_does_not_name_do_not_count() {
        let one = variant(&["accept"], &[("accept", "a"), ("cookie", "1")]);
        let other = variant(&["accept"], &[("accept", "a"), ("cookie", "2")]);
        assert_eq!(one, other);
    }

    #[test]
    fn an_absent_field_differs_from_an_empty_one() {
        let empty = variant(&["accept"], &[("accept", "")]);
        assert_ne!(empty, variant(&["accept"], &[]));
    }

    #[test]
    fn which_of_two_fields_is_absent_counts() {
        let names = ["accept", "cookie"];
        let one = variant(&names, &[("accept", "a")]);
        assert_ne!(one, variant(&names, &[("cookie", "a")]));
    }

    #[test]
    fn repeated_lines_equal_the_list() {
        let lines = variant(&["accept"], &[("accept", "a"), ("accept", "b")]);
        assert_eq!(lines, variant(&["accept"], &[("accept", "a, b")]));
    }

    #[test]
    fn white_space_round_a_value_does_not_count() {
        let padded = variant(&["accept"], &[("accept", " a\t")]);
        assert_eq!(padded, variant(&["accept"], &[("accept", "a")]));
    }

    #[test]
    fn case_counts_in_most_fields() {
        let of = |value| variant(&["cookie"], &[("cookie", value)]);
        assert_ne!(of("a"), of("A"));
    }

    #[test]
    fn case_and_white_space_do_not_count_in_accept_encoding() {
        let of = |value| variant(&["accept-encoding"], &[("accept-encoding", value)]);
        assert_eq!(of("gzip,br;q=0.5"), of("GZip , br ; q=0.5"));
    }

    #[test]
    fn case_and_white_space_do_not_count_in_accept_language() {
        let of = |value| variant(&["accept-language"], &[("accept-language", value)]);
        assert_eq!(of("de-DE, en;q=0.5"), of("de-de,en;Q=0.5"));
    }

    #[test]
    fn order_does_not_count_in_accept_language() {
        let of = |value| variant(&["accept-language"], &[("accept-language", value)]);
        assert_eq!(of("en, de"), of("de, en"));
        assert_ne!(of("en, de"), of("en, de;q=0"));
    }

    #[test]
    fn white_space_inside_a_member_is_not_taken_out() {
        let of = |value| variant(&["accept-encoding"], &[("accept-encoding", value)]);
        assert_ne!(of("g zip"), of("gzip"));
    }

    proptest! {
        #[test]
        fn no_vary_makes_it_panic_and_fields_are_sorted(line in "[ -~\t]{0,60}") {
            if let Vary::Fields(names) = vary(&[&line]) {
                let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
                prop_assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }

    fn with(policy: &KeyPolicy, authority: &str, target: &str) -> PrimaryKey {
        PrimaryKey::for_target("site", authority, target, Scheme::Http, policy)
    }

    #[test]
    fn a_reduced_query_counts_as_it_is_reduced() {
        let mut policy = KeyPolicy::default();
        policy.query.query = Query::Sort;
        policy.query.drop = vec!["utm_*".to_owned()];
        let of = |target| with(&policy, "a.test", target);
        assert_eq!(of("/x?b&a&utm_id=1"), of("/x?a&b"));
        assert_eq!(of("/x?a&b"), key("a.test", "/x?a&b"));
        assert_ne!(of("/x?a"), of("/x?a&b"));
    }

    #[test]
    fn the_port_counts_unless_the_site_says_otherwise() {
        let policy = KeyPolicy {
            port: false,
            ..KeyPolicy::default()
        };
        let of = |authority| with(&policy, authority, "/x");
        assert_eq!(of("a.test:1"), of("a.test"));
        assert_eq!(of("[::1]:80"), of("[::1]"));
        assert_ne!(of("a.test"), of("b.test"));
    }

    #[test]
    fn other_selecting_fields_of_the_site_give_another_key() {
        let policy = KeyPolicy {
            selecting: vec![cookie_field("a").unwrap()],
            ..KeyPolicy::default()
        };
        assert_ne!(with(&policy, "a.test", "/x"), key("a.test", "/x"));
    }

    #[test]
    fn a_vary_cannot_name_what_only_a_site_can() {
        assert_eq!(vary(&["cookie#a"]), Vary::Any);
        assert_eq!(vary(&["Accept-Language#best"]), Vary::Any);
    }

    fn alike(target: &str, field: &'static str) -> PrimaryKey {
        let variance = SearchVariance::read(&headers(&[("no-vary-search", field)])).unwrap();
        let policy = KeyPolicy::default();
        PrimaryKey::alike("site", "a.test", target, Scheme::Http, &policy, &variance)
    }

    #[test]
    fn equivalent_targets_share_a_key_and_others_do_not() {
        let shared = alike("/x?a=1&u=2", "params=(\"u\")");
        assert_eq!(shared, alike("/x?u=3&a=%31", "params=(\"u\")"));
        assert_ne!(shared, alike("/x?a=2&u=2", "params=(\"u\")"));
        assert_ne!(shared, alike("/y?a=1&u=2", "params=(\"u\")"));
        assert_ne!(shared, alike("/x?a=1&u=2", "params=(\"v\")"));
        assert_ne!(shared, alike("/x?a=1&u=2", "params=(\"u\"), key-order"));
        assert_ne!(shared, key("a.test", "/x?a=1"));
    }

    #[test]
    fn all_queries_of_a_path_are_one_family() {
        let of = |target| {
            let policy = KeyPolicy::default();
            PrimaryKey::family_of("site", "a.test", target, Scheme::Http, &policy)
        };
        assert_eq!(alike("/x?a=1", "params").family(), of("/x"));
        assert_eq!(alike("/x?b", "key-order").family(), of("/x?c"));
        assert_ne!(alike("/y?b", "key-order").family(), of("/x"));
        assert_eq!(of("/x").family(), of("/x"));
    }
}
