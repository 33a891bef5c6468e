//! What does a request field say, apart from how it is spelled? (RFC 9111 §4.1)
//!
//! Two requests select the same variant when their selecting fields have the same *normal form*:
//! lines combined, white space taken out where the field's grammar allows it, and what the field's
//! own definition calls the same spelled the same way.
//!
//! ```text
//! Accept-Charset, -Encoding, -Language   name in lower case, weight in its shortest form; sorted
//! Accept                                 the same, with parameters in their order
//! fields that are one value              untouched inside
//! other fields                           no white space round commas outside quotes
//! ```
//!
//! Sorting is right because the order of members has no meaning of its own: "this behavior cannot
//! be relied upon" (RFC 9110 §12.5.4 on those who read a preference into it). A value that its
//! grammar does not allow is compared byte by byte. Nothing is concluded from what a value means
//! beyond that: a range that is refused stays apart from one that is not mentioned.
//!
//! A site can also select by one cookie, or by the one language that a client likes best. Each is
//! written as a field name of its own kind, which no `Vary` can bring about, so that it is stored
//! and compared as any other.

use super::secret::is_hidden;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

/// Returns the normal form of a field; `None` when the request does not have it.
pub(super) fn selecting_value(name: &HeaderName, headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(cookie) = cookie_of(name) {
        return cookie_values(&cookie, headers);
    }
    if *name == ALIKE {
        return None;
    }
    if *name == BEST_LANGUAGE {
        return best_language(&selecting_value(&header::ACCEPT_LANGUAGE, headers)?);
    }
    let grammar = Grammar::of(name);
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut value = lines.next()?.trim_ascii().to_vec();
    for line in lines {
        // Lines of a list are one list (RFC 9110 §5.3). Of what is no list, two lines are not the
        // same as one with a comma in it, and no value has a line break.
        value.extend_from_slice(match grammar {
            Grammar::Single => b"\n",
            Grammar::Unknown | Grammar::Weighted(_) => b", ",
        });
        value.extend_from_slice(line.trim_ascii());
    }
    let normal = match grammar {
        Grammar::Single => None,
        Grammar::Unknown => without_list_space(&value),
        Grammar::Weighted(member) => weighted_list(&value, member),
    };
    Some(normal.unwrap_or(value))
}

/// What a request selects by one field, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The request does not have it.
    Absent,
    /// It has one that is shown to nobody.
    Hidden,
    /// Its normal form, shortened where it is long.
    Value(String),
}

impl Shown {
    /// Looks at a request.
    pub fn of(name: &HeaderName, headers: &HeaderMap) -> Self {
        match selecting_value(name, headers) {
            None => Self::Absent,
            Some(_) if is_hidden(name) => Self::Hidden,
            Some(value) => {
                let text = String::from_utf8_lossy(&value);
                Self::Value(text.chars().take(SHOWN_CHARS_MAX).collect())
            }
        }
    }
}

/// What a name to select by stands for, for people to read.
pub fn shown_name(name: &HeaderName) -> String {
    if let Some(cookie) = cookie_of(name) {
        return format!("cookie {}", String::from_utf8_lossy(&cookie));
    }
    if *name == BEST_LANGUAGE {
        return "accept-language, the best".to_owned();
    }
    if *name == ALIKE {
        return "no-vary-search".to_owned();
    }
    name.as_str().to_owned()
}

/// Writes the name of a cookie as a field name to select by.
///
/// `None` for what is no cookie name, or too long for a field name.
pub fn cookie_field(cookie: &str) -> Option<HeaderName> {
    let valid = !cookie.is_empty() && cookie.len() <= COOKIE_NAME_BYTES_MAX;
    if !valid || !cookie.bytes().all(is_token_byte) {
        return None;
    }
    let mut name = String::from(COOKIE_FIELD);
    for byte in cookie.bytes() {
        // Field names are in lower case; cookie names are not.
        if byte.is_ascii_uppercase() || byte == b'%' {
            name.push_str(&format!("%{byte:02x}"));
        } else {
            name.push(char::from(byte));
        }
    }
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// Does this name stand for something else than a field of that name?
pub fn is_own_name(name: &HeaderName) -> bool {
    name.as_str().contains('#')
}

/// Reads back what [`cookie_field`] wrote.
fn cookie_of(name: &HeaderName) -> Option<Vec<u8>> {
    let mut written = name.as_str().strip_prefix(COOKIE_FIELD)?.bytes();
    let mut cookie = Vec::new();
    while let Some(byte) = written.next() {
        if byte != b'%' {
            cookie.push(byte);
            continue;
        }
        let digits = [written.next()?, written.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        cookie.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(cookie)
}

/// The values of all cookies of a name, each as it stands behind the name; `None` without one.
///
/// Where a name is repeated, or has no value, "servers SHOULD NOT rely upon the order" (RFC 6265
/// §4.2.2): some origins read the first and some the last, so all select. The head's own size bounds
/// how many there are.
fn cookie_values(cookie: &[u8], headers: &HeaderMap) -> Option<Vec<u8>> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let values = pairs.filter_map(|pair| {
        let behind = pair.trim_ascii().strip_prefix(cookie)?.trim_ascii_start();
        (behind.is_empty() || behind.starts_with(b"=")).then_some(behind)
    });
    let values: Vec<&[u8]> = values.collect();
    (!values.is_empty()).then(|| values.join(b";".as_slice()))
}

/// Finds the one language that weighs more than all others in an Accept-Language in its normal form.
///
/// `None` when there is no such one: none at all, two of the same weight, any language (`*`), or a
/// list that is malformed.
fn best_language(normal: &[u8]) -> Option<Vec<u8>> {
    let mut members = normal.split(|byte| *byte == b',');
    let (best, weight) = split_weight(members.next()?)?;
    let range = language_range(best).filter(|range| range != b"*")?;
    let alone = match members.next() {
        Some(next) => split_weight(next).is_some_and(|(_, second)| second < weight),
        None => true,
    };
    // What is malformed is in no normal form: it would not come out of it unchanged.
    let well_formed = weighted_list(normal, language_range).is_some_and(|list| list == normal);
    (alone && weight > 0 && well_formed).then_some(range)
}

/// Reads the Content-Language of a response in one language (RFC 9110 §8.5).
pub(super) fn content_language(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(header::CONTENT_LANGUAGE).iter();
    let one = lines.next().filter(|_| lines.next().is_none())?;
    let tag = language_range(one.as_bytes().trim_ascii())?;
    (tag != b"*").then_some(one)
}

/// How the values of a field are read.
enum Grammar {
    /// One value, in which commas separate nothing.
    Single,
    /// A list, as far as one can tell (RFC 9110 §5.5).
    Unknown,
    /// A list of members with weights (RFC 9110 §12.4.2), read by this function.
    Weighted(fn(&[u8]) -> Option<Vec<u8>>),
}

impl Grammar {
    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "accept" => Self::Weighted(media_range),
            "accept-charset" | "accept-encoding" => Self::Weighted(token),
            "accept-language" => Self::Weighted(language_range),
            "authorization" | "cookie" | "from" | "host" | "origin" | "referer" | "user-agent" => {
                Self::Single
            }
            _ => Self::Unknown,
        }
    }
}

/// Writes a list of weighted members in its normal form: heaviest first, then by name, and equal
/// ones once. `None` when it is malformed.
fn weighted_list(value: &[u8], member: fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    if value.contains(&b'"') {
        // Commas and semicolons in quotes would have to be told apart from the others.
        return None;
    }
    let mut members = Vec::new();
    for written in value.split(|byte| *byte == b',') {
        let written = written.trim_ascii();
        // "A recipient MUST parse and ignore a reasonable number of empty list elements"
        // (RFC 9110 §5.6.1.2).
        if !written.is_empty() {
            let (name, weight) = split_weight(written)?;
            members.push((1000 - weight, member(name)?));
        }
    }
    members.sort_unstable();
    members.dedup();
    let mut normal = Vec::with_capacity(value.len());
    for (lightness, name) in members {
        if !normal.is_empty() {
            normal.push(b',');
        }
        normal.extend_from_slice(&name);
        if lightness > 0 {
            let thousandths = format!("{:03}", 1000 - lightness);
            let digits = thousandths.trim_end_matches('0');
            let written = if digits.is_empty() {
                ";q=0".to_owned()
            } else {
                format!(";q=0.{digits}")
            };
            normal.extend_from_slice(written.as_bytes());
        }
    }
    Some(normal)
}

/// Takes the weight off a member; thousandths, 1000 when there is none (RFC 9110 §12.4.2).
fn split_weight(member: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = member.iter().rposition(|byte| *byte == b';') else {
        return Some((member, 1000));
    };
    let (name, parameter) = member.split_at_checked(at)?;
    let parameter = parameter.get(1..)?.trim_ascii();
    match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => Some((name.trim_ascii(), thousandths(weight)?)),
        // A parameter of the member's own.
        _ => Some((member, 1000)),
    }
}

/// Reads a weight: at most 1, with at most three decimals (RFC 9110 §12.4.2).
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, decimals) = match weight {
        [whole @ (b'0' | b'1')] => (*whole, [].as_slice()),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] => (*whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 {
        return None;
    }
    let mut read = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = *decimals.get(place).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        read = read * 10 + u16::from(digit - b'0');
    }
    (read <= 1000).then_some(read)
}

/// A coding, a charset or `*`: case does not count (RFC 9110 §8.4.1, §8.3.2).
fn token(name: &[u8]) -> Option<Vec<u8>> {
    is_token(name).then(|| name.to_ascii_lowercase())
}

/// A language range (RFC 4647 §2.1): case does not count.
fn language_range(range: &[u8]) -> Option<Vec<u8>> {
    let subtag = |subtag: &[u8]| {
        (1..=8).contains(&subtag.len()) && subtag.iter().all(u8::is_ascii_alphanumeric)
    };
    let valid = range == b"*" || range.split(|byte| *byte == b'-').all(subtag);
    valid.then(|| range.to_ascii_lowercase())
}

/// A media range with its parameters (RFC 9110 §12.5.1). Case counts in the values of parameters
/// only.
fn media_range(range: &[u8]) -> Option<Vec<u8>> {
    let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let media = parts.next()?;
    let (kind, subtype) = split_at_first(media, b'/')?;
    if !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut normal = media.to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = split_at_first(parameter, b'=')?;
        // A weight that is not the last is none.
        if !is_token(name) || !is_token(value) || name.eq_ignore_ascii_case(b"q") {
            return None;
        }
        normal.push(b';');
        normal.extend_from_slice(&name.to_ascii_lowercase());
        normal.push(b'=');
        normal.extend_from_slice(value);
    }
    Some(normal)
}

/// Takes out the white space round the commas that are not in quotes. `None` when a quote is left
/// open: then it cannot be told which are.
fn without_list_space(value: &[u8]) -> Option<Vec<u8>> {
    let mut normal: Vec<u8> = Vec::with_capacity(value.len());
    let (mut quoted, mut escaped, mut after_comma) = (false, false, false);
    for byte in value {
        let blank = matches!(byte, b' ' | b'\t');
        if blank && after_comma {
            continue;
        }
        if *byte == b',' && !quoted {
            normal.truncate(normal.trim_ascii_end().len());
        }
        normal.push(*byte);
        after_comma = *byte == b',' && !quoted;
        if *byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && *byte == b'\\' && !escaped;
    }
    (!quoted).then_some(normal)
}

fn split_at_first(bytes: &[u8], delimiter: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == delimiter)?;
    let (before, after) = bytes.split_at_checked(at)?;
    Some((before, after.get(1..)?))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Longest name of a cookie that can be selected by, in bytes.
pub const COOKIE_NAME_BYTES_MAX: usize = 256;

/// Longest value that is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// Says that a response is stored under the key of equivalent targets. It selects nothing.
pub const ALIKE: HeaderName = HeaderName::from_static("no-vary-search#");

/// Stands for the language that a client likes best.
pub(super) const BEST_LANGUAGE: HeaderName = HeaderName::from_static("accept-language#best");

/// How the name of a cookie begins when it is written as a field name.
const COOKIE_FIELD: &str = "cookie#";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(name: &'static str, lines: &[&str]) -> Option<String> {
        let name = HeaderName::from_static(name);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_str(line).unwrap());
        }
        let value = selecting_value(&name, &headers)?;
        Some(String::from_utf8(value).unwrap())
    }

    fn one(name: &'static str, line: &str) -> String {
        normal(name, &[line]).unwrap()
    }

    fn cookie(name: &str, lines: &[&'static str]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        selecting_value(&cookie_field(name).unwrap(), &headers)
    }

    #[test]
    fn order_does_not_count_among_equal_weights() {
        assert_eq!(one("accept-language", "en, de"), "de,en");
        assert_eq!(one("accept-encoding", "gzip, br"), "br,gzip");
        assert_eq!(one("accept-charset", "utf-8, latin1"), "latin1,utf-8");
    }

    #[test]
    fn weights_order_the_list_and_are_spelled_one_way() {
        let languages = one("accept-language", "fr;q=0.50, DE-at ; Q=1.000 ,en;q=0.8");
        assert_eq!(languages, "de-at,en;q=0.8,fr;q=0.5");
        assert_eq!(
            one("accept-encoding", "br;q=0.001,*;q=0.000"),
            "br;q=0.001,*;q=0"
        );
    }

    #[test]
    fn what_is_refused_differs_from_what_is_wanted_or_not_mentioned() {
        let codings = [
            "gzip",
            "gzip;q=0",
            "gzip, identity",
            "gzip, identity;q=0",
            "gzip, *",
        ];
        let normal: Vec<String> = codings.map(|value| one("accept-encoding", value)).into();
        for (n, value) in normal.iter().enumerate() {
            assert!(!normal[n + 1..].contains(value), "{value}");
        }
    }

    #[test]
    fn empty_members_and_repeats_do_not_count() {
        assert_eq!(one("accept-encoding", ", gzip ,, GZIP,br,"), "br,gzip");
        assert_eq!(one("accept-encoding", "gzip;q=0.5,gzip"), "gzip,gzip;q=0.5");
    }

    #[test]
    fn an_empty_list_is_a_value() {
        assert_eq!(normal("accept-encoding", &[""]), Some(String::new()));
        assert_eq!(normal("accept-encoding", &[]), None);
    }

    #[test]
    fn lines_are_one_list() {
        let lines = normal("accept-language", &["en;q=0.5", "de"]);
        assert_eq!(lines, normal("accept-language", &["de, en;q=0.5"]));
    }

    #[test]
    fn malformed_members_leave_the_value_as_it_is() {
        for value in [
            "gzip;q=2",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;q=-1",
            "gzip;q=1.001",
            "gzip;q=0x",
            "g zip, br",
            "gzip;level=9",
            "\"gzip\", br",
            "gzip;q=1;q=0",
        ] {
            assert_eq!(one("accept-encoding", value), value);
        }
        for value in ["en_GB, de", "abcdefghi", "en-, de", "-en", "*-de"] {
            assert_eq!(one("accept-language", value), value);
        }
    }

    #[test]
    fn media_ranges_are_compared_by_type_parameters_and_weight() {
        let wanted = one("accept", "text/html, application/xml;q=0.9, */*;q=0.8");
        assert_eq!(
            wanted,
            one("accept", "*/*;q=0.80,Text/HTML,application/xml ; q=0.9")
        );
        let level = one("accept", "text/html; Level=1;q=0.5, text/html");
        assert_eq!(level, "text/html,text/html;level=1;q=0.5");
        assert_ne!(
            one("accept", "text/html;level=a"),
            one("accept", "text/html;level=A")
        );
    }

    #[test]
    fn media_ranges_that_are_none_leave_the_value_as_it_is() {
        for value in [
            "text, b/c",
            "a/b;q=1;x=y",
            "a/b;x",
            "a/b;x=\"1,2\"",
            "b/c, /a",
        ] {
            assert_eq!(one("accept", value), value);
        }
    }

    #[test]
    fn white_space_round_commas_does_not_count_in_fields_nobody_knows() {
        assert_eq!(one("foo", " 1 ,\t2 "), "1,2");
        assert_eq!(normal("foo", &["1", "2"]), Some("1,2".to_owned()));
    }

    #[test]
    fn white_space_in_quotes_or_inside_members_counts() {
        assert_eq!(
            one("foo", "a b, \"c, d\\\" , e\" , f"),
            "a b,\"c, d\\\" , e\",f"
        );
        assert_eq!(one("foo", "a, \"b, c"), "a, \"b, c");
    }

    #[test]
    fn commas_separate_nothing_in_fields_that_are_one_value() {
        for name in ["cookie", "user-agent", "referer"] {
            assert_eq!(one(name, "a, b"), "a, b");
        }
    }

    #[test]
    fn cookies_are_found_by_their_exact_name_wherever_they_stand() {
        let lines = ["a=1; Session=x ;session=y", "session=z;A=2"];
        assert_eq!(cookie("session", &lines), Some(b"=y;=z".to_vec()));
        assert_eq!(cookie("Session", &lines), Some(b"=x".to_vec()));
        assert_eq!(cookie("A", &lines), Some(b"=2".to_vec()));
        assert_eq!(cookie("essio", &lines), None);
        assert_eq!(cookie("sess", &lines), None);
    }

    #[test]
    fn each_cookie_of_a_name_counts_and_so_does_their_order() {
        let of = |line| cookie("a", &[line]);
        assert_ne!(of("a=1"), of("a=1; a=2"));
        assert_ne!(of("a=2"), of("a=1; a=2"));
        assert_ne!(of("a=2; a=1"), of("a=1; a=2"));
        assert_ne!(of("a=1"), of("a; a=1"));
        assert_eq!(of("b=1; a=1"), of("a =1;b=2"));
    }

    #[test]
    fn two_lines_of_what_is_no_list_are_not_one_with_a_comma() {
        assert_ne!(
            normal("cookie", &["a=1", "b=2"]),
            normal("cookie", &["a=1, b=2"])
        );
        assert_eq!(normal("x-a", &["1", "2"]), normal("x-a", &["1, 2"]));
    }

    #[test]
    fn an_empty_cookie_differs_from_none() {
        assert_eq!(cookie("a", &["a="]), Some(b"=".to_vec()));
        assert_eq!(cookie("a", &["a"]), Some(Vec::new()));
        assert_eq!(cookie("a", &["b", "b=a"]), None);
    }

    fn best(value: &'static str) -> Option<String> {
        let value = HeaderValue::from_static(value);
        let headers = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value)]);
        let best = selecting_value(&BEST_LANGUAGE, &headers)?;
        Some(String::from_utf8(best).unwrap())
    }

    #[test]
    fn the_best_language_is_the_only_one_of_the_greatest_weight() {
        assert_eq!(best("fr;q=0.5, DE;q=1.0"), Some("de".to_owned()));
        assert_eq!(best("de-AT;q=0.2,*;q=0.1"), Some("de-at".to_owned()));
        for none in [
            "en, de",
            "*",
            "*, de;q=0.5",
            "de;q=0",
            "",
            "de, e_n;q=0.1",
            "de;q=2",
        ] {
            assert_eq!(best(none), None, "{none}");
        }
    }

    #[test]
    fn a_content_language_is_one_tag() {
        let of = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| HeaderValue::from_static(line));
            let lines = lines.map(|line| (header::CONTENT_LANGUAGE, line));
            content_language(&HeaderMap::from_iter(lines)).is_some()
        };
        assert!(of(&["de-AT"]));
        assert!(!of(&["de, en"]) && !of(&["*"]) && !of(&[""]) && !of(&[]));
    }

    #[test]
    fn what_is_selected_by_is_shown_but_no_cookie() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("Session=word"));
        headers.insert("accept-language", HeaderValue::from_static("fr;q=0.5, DE"));
        let shown = |name: &HeaderName| Shown::of(name, &headers);
        let session = cookie_field("Session").unwrap();
        assert_eq!(shown(&session), Shown::Hidden);
        assert_eq!(shown_name(&session), "cookie Session");
        assert_eq!(shown(&header::COOKIE), Shown::Hidden);
        assert_eq!(shown(&cookie_field("other").unwrap()), Shown::Absent);
        let language = shown(&header::ACCEPT_LANGUAGE);
        assert_eq!(language, Shown::Value("de,fr;q=0.5".to_owned()));
        let long = HeaderValue::try_from("a".repeat(5000)).unwrap();
        let headers = HeaderMap::from_iter([(header::USER_AGENT, long)]);
        let Shown::Value(value) = Shown::of(&header::USER_AGENT, &headers) else {
            panic!("it is there");
        };
        assert_eq!(value.len(), SHOWN_CHARS_MAX);
    }

    #[test]
    fn what_is_no_cookie_name_cannot_be_selected_by() {
        let long = "a".repeat(COOKIE_NAME_BYTES_MAX + 1);
        for name in ["", "a b", "a=b", "a;b", "ä", &long] {
            assert_eq!(cookie_field(name), None, "{name:?}");
        }
        let longest = "A".repeat(COOKIE_NAME_BYTES_MAX);
        assert!(cookie_field(&longest).is_some());
    }

    /// Members as they are meant: name and thousandths.
    fn meaning() -> impl Strategy<Value = Vec<(String, u16)>> {
        let member = (
            "[a-c]{1,2}",
            prop_oneof![Just(0u16), Just(1000), 0..=1000u16],
        );
        prop::collection::vec(member, 0..5)
    }

    fn spelled(members: &[(String, u16)]) -> String {
        let member = |(name, weight): &(String, u16)| match weight {
            1000 => name.clone(),
            _ => format!("{name} ; q=0.{weight:03}"),
        };
        members.iter().map(member).collect::<Vec<_>>().join(" , ")
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(value in "[ -~\t]{0,60}") {
            for name in ["accept", "accept-encoding", "accept-language", "foo", "cookie"] {
                let once = one(name, &value);
                prop_assert_eq!(one(name, &once), once);
            }
        }

        #[test]
        fn normal_forms_of_lists_are_equal_just_when_their_meanings_are(
            first in meaning(),
            second in meaning(),
        ) {
            let set = |members: &[(String, u16)]| {
                members.iter().cloned().collect::<std::collections::BTreeSet<_>>()
            };
            for name in ["accept-encoding", "accept-language"] {
                let same = one(name, &spelled(&first)) == one(name, &spelled(&second));
                prop_assert_eq!(same, set(&first) == set(&second));
            }
        }

        #[test]
        fn a_cookies_name_is_read_back_as_it_was(name in "[!#-'*+.0-9A-Z^-z|~-]{1,40}") {
            if let Some(field) = cookie_field(&name) {
                prop_assert_eq!(cookie_of(&field), Some(name.into_bytes()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in ["accept", "accept-language", "foo", "cookie", "cookie#a"] {
                    let name = HeaderName::from_static(name);
                    let mut headers = HeaderMap::new();
                    headers.insert(&name, value.clone());
                    headers.insert(header::COOKIE, value.clone());
                    drop(selecting_value(&name, &headers));
                }
            }
        }
    }
}
