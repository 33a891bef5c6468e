//! Which stored response may answer a request: the primary key, and the variant by `Vary`.
//!
//! ```text
//! site, [scheme], authority, target ───────────────► PrimaryKey   names a target
//! response's Vary ─► Vary::{Any, Fields} ─┐
//! request's fields ───────────────────────┴────────► VariantKey   one of its variants
//! ```
//!
//! Both are BLAKE3 over parts that carry their lengths in front, so no two lists of parts run
//! together into the same bytes. The target goes in exactly as it is forwarded: two spellings that
//! an origin may tell apart never share a key (RFC 9111 §2). What the keys lead to is kept in
//! `state/index`.

use super::request::NormalRequest;
use super::request::Scheme;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

/// Names the target a response answers: BLAKE3 of site, authority, path and query.
///
/// 128 bits: two targets out of a million million share a key with a chance below one in 10¹⁴,
/// and nobody can construct such a pair with less than 2⁶⁴ tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey(pub [u8; 16]);

/// Names one variant of a target by the values of the fields that `Vary` selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantKey(pub u64);

/// What goes into a site's primary keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// `http` and `https` have separate responses.
    pub scheme: bool,
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
    /// among the client's: what they select by cannot be seen in a request.
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
                let unseen = WRITTEN_FOR_ORIGIN.contains(&name.as_str());
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
        let scheme = if policy.scheme { scheme.as_str() } else { "" };
        let mut hasher = blake3::Hasher::new();
        for part in [site, scheme, authority, target] {
            add_part(&mut hasher, part.as_bytes());
        }
        Self(leading(&hasher))
    }
}

impl VariantKey {
    /// The only variant of a response without `Vary`.
    pub const ONLY: Self = Self(0);

    /// Computes the variant that `request_headers` select among responses that vary by `fields`.
    ///
    /// Repeated lines count as one list, and white space round a value does not count
    /// (RFC 9111 §4.1). In Accept-Encoding and Accept-Language neither case nor white space
    /// inside the list counts. An absent field differs from an empty one.
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

/// Joins the lines of a field into the form that is compared; `None` when it has none.
fn selecting_value(name: &HeaderName, headers: &HeaderMap) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .map(<[u8]>::trim_ascii)
        .collect();
    if lines.is_empty() {
        return None;
    }
    let value = lines.join(b", ".as_slice());
    if *name == header::ACCEPT_ENCODING || *name == header::ACCEPT_LANGUAGE {
        return Some(fold_list(&value));
    }
    Some(value)
}

/// Lower-cases a list and takes out the white space beside its delimiters; white space elsewhere,
/// which no valid member has, becomes one space.
fn fold_list(value: &[u8]) -> Vec<u8> {
    let mut folded: Vec<u8> = Vec::with_capacity(value.len());
    let mut space = false;
    for byte in value {
        if byte.is_ascii_whitespace() {
            space = true;
            continue;
        }
        let beside = delimits(*byte) || folded.last().is_none_or(|last| delimits(*last));
        if space && !beside {
            folded.push(b' ');
        }
        space = false;
        folded.push(byte.to_ascii_lowercase());
    }
    folded
}

/// Separates members of a list, their parameters, and a parameter's name from its value.
fn delimits(byte: u8) -> bool {
    matches!(byte, b',' | b';' | b'=')
}

/// Most names in the `Vary` of a response that can be found again.
pub const VARY_FIELDS_MAX: usize = 32;

/// Fields that `flow` writes from the connection when it asks an origin. `X-Forwarded-Host` is none
/// of them: what it says is in the key.
const WRITTEN_FOR_ORIGIN: [&str; 4] = ["cdn-loop", "forwarded", "via", "x-forwarded-for"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::Params;
    use http::Method;
    use http::Request;
    use proptest::prelude::*;

    const ANY_SCHEME: KeyPolicy = KeyPolicy { scheme: false };
    const BY_SCHEME: KeyPolicy = KeyPolicy { scheme: true };

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
        PrimaryKey::new("site", &request, &ANY_SCHEME)
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
        let head = PrimaryKey::new("site", &head, &ANY_SCHEME);
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
        let other = PrimaryKey::new("other", &request, &ANY_SCHEME);
        assert_ne!(other, key("a.test", "/x"));
    }

    #[test]
    fn the_scheme_does_not_count_unless_the_site_says_so() {
        let tls = request(Method::GET, "a.test", "/x", Scheme::Https);
        let tls = PrimaryKey::new("site", &tls, &ANY_SCHEME);
        assert_eq!(tls, key("a.test", "/x"));
    }

    #[test]
    fn the_scheme_counts_when_the_site_says_so() {
        let of = |scheme| PrimaryKey::for_target("site", "a.test", "/x", scheme, &BY_SCHEME);
        assert_ne!(of(Scheme::Http), of(Scheme::Https));
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |site, authority| {
            PrimaryKey::for_target(site, authority, "/", Scheme::Http, &ANY_SCHEME)
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
    fn order_counts_in_accept_encoding() {
        let of = |value| variant(&["accept-encoding"], &[("accept-encoding", value)]);
        assert_ne!(of("gzip, br"), of("br, gzip"));
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

        #[test]
        fn folding_a_folded_list_changes_nothing(value in "[ -~\t]{0,60}") {
            let folded = fold_list(value.as_bytes());
            prop_assert_eq!(fold_list(&folded), folded);
        }
    }
}
