//! Upgrades of a connection to another protocol (RFC 9110 §7.8): what a client asks for, which of
//! it goes on, and whether an origin granted that.
//!
//! From the fields of a request or a response and the protocols that a site lets through. One
//! protocol is asked for at a time, in the site's spelling, so the origin sees nothing that the
//! client made up. Carrying the bytes after a 101 is left to `flow`.
//!
//! Protocols that frame requests of their own never go through: whoever spoke HTTP in a tunnel
//! would be heard by the origin past every rule there is here.

use super::request::RequestBody;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Version;
use http::header;

/// A protocol that a site lets through, by its name in the registry of upgrade tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(HeaderValue);

impl Protocol {
    /// Takes a name; `None` for what is no name, and for HTTP and TLS, which would carry requests
    /// past us.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let token = !name.is_empty() && name.bytes().all(is_token_byte);
        if !token || NEVER.contains(&name.as_str()) {
            return None;
        }
        HeaderValue::from_str(&name).ok().map(Self)
    }

    /// The name, as it stands in Upgrade.
    pub fn field(&self) -> &HeaderValue {
        &self.0
    }

    fn is(&self, name: &[u8]) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(name)
    }
}

/// Returns the Upgrade lines of a request that may ask for an upgrade; none for all others.
///
/// Only HTTP/1.1 has the field, and only with `upgrade` among the connection's options is it meant
/// for us. It is heeded with a GET without a body: where a body ends and the protocol begins is
/// then no question.
pub fn asked(
    method: &Method,
    version: Version,
    body: RequestBody,
    headers: &HeaderMap,
) -> Vec<HeaderValue> {
    let able = *method == Method::GET && version == Version::HTTP_11 && body == RequestBody::Empty;
    if !able || !headers.contains_key(header::UPGRADE) || !is_option(headers) {
        return Vec::new();
    }
    headers.get_all(header::UPGRADE).iter().cloned().collect()
}

/// Picks the protocol to ask the origin for: the first in the client's order that is allowed.
pub fn choose<'p>(asked: &[HeaderValue], allowed: &'p [Protocol]) -> Option<&'p Protocol> {
    members(asked).find_map(|name| allowed.iter().find(|protocol| protocol.is(name)))
}

/// Whether a 101 switches to exactly the protocol that was asked for.
pub fn granted(asked: &HeaderValue, headers: &HeaderMap) -> bool {
    let mut names = members(headers.get_all(header::UPGRADE));
    let same = |name: &[u8]| name.eq_ignore_ascii_case(asked.as_bytes());
    names.next().is_some_and(same) && names.next().is_none() && is_option(headers)
}

/// Whether Connection says that Upgrade is meant for who receives it.
fn is_option(headers: &HeaderMap) -> bool {
    members(headers.get_all(header::CONNECTION)).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

fn members<'h>(lines: impl IntoIterator<Item = &'h HeaderValue>) -> impl Iterator<Item = &'h [u8]> {
    lines
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A byte of a token (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What would carry requests past us.
const NEVER: [&str; 5] = ["h2", "h2c", "h3", "http", "tls"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn lines(lines: &[&str]) -> Vec<HeaderValue> {
        let lines = lines
            .iter()
            .map(|line| HeaderValue::from_str(line).unwrap());
        lines.collect()
    }

    fn websocket() -> Vec<Protocol> {
        vec![Protocol::new("WebSocket").unwrap()]
    }

    const ASKING: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "websocket")];

    fn of_get(fields: &[(&'static str, &str)]) -> Vec<HeaderValue> {
        let headers = headers(fields);
        asked(&Method::GET, Version::HTTP_11, RequestBody::Empty, &headers)
    }

    #[test]
    fn protocols_that_would_carry_requests_past_us_cannot_be_named() {
        for name in [
            "h2c", "H2C", "h2", "HTTP", "HTTP/2.0", "TLS", "TLS/1.0", "", "a b", "a,b",
        ] {
            assert_eq!(Protocol::new(name), None, "{name}");
        }
        assert_eq!(websocket()[0].field(), "websocket");
    }

    #[test]
    fn an_upgrade_needs_the_connections_word_for_it() {
        assert_eq!(of_get(&ASKING), lines(&["websocket"]));
        let among = [("connection", "keep-alive, UPGRADE"), ("upgrade", "a, b")];
        assert_eq!(of_get(&among), lines(&["a, b"]));
        assert!(of_get(&[("upgrade", "websocket")]).is_empty());
        assert!(of_get(&[("connection", "upgrade")]).is_empty());
        assert!(of_get(&[("connection", "upgrades"), ("upgrade", "websocket")]).is_empty());
    }

    #[test]
    fn only_a_get_of_http_1_1_without_a_body_asks() {
        let headers = headers(&ASKING);
        let of = |method, version, body| asked(&method, version, body, &headers);
        let (get, none) = (Method::GET, RequestBody::Empty);
        assert!(of(Method::POST, Version::HTTP_11, none).is_empty());
        assert!(of(Method::HEAD, Version::HTTP_11, none).is_empty());
        assert!(of(get.clone(), Version::HTTP_10, none).is_empty());
        assert!(of(get.clone(), Version::HTTP_2, none).is_empty());
        assert!(of(get.clone(), Version::HTTP_11, RequestBody::Length(1)).is_empty());
        assert!(of(get, Version::HTTP_11, RequestBody::Chunked).is_empty());
    }

    #[test]
    fn the_first_that_is_allowed_is_asked_for_in_the_sites_spelling() {
        let allowed = [Protocol::new("a").unwrap(), Protocol::new("b").unwrap()];
        let chosen = |asked: &[&str]| choose(&lines(asked), &allowed).map(Protocol::field);
        assert_eq!(chosen(&["h2c, B, a"]).unwrap(), "b");
        assert_eq!(chosen(&["h2c", ", ,A"]).unwrap(), "a");
        assert_eq!(chosen(&["a/1", "h2c", "ab", "\"a\""]), None);
        assert_eq!(choose(&lines(&["websocket"]), &[]), None);
    }

    #[test]
    fn a_101_grants_what_was_asked_for_and_nothing_else() {
        let asked = HeaderValue::from_static("websocket");
        let grants = |fields: &[(&'static str, &str)]| granted(&asked, &headers(fields));
        assert!(grants(&[
            ("upgrade", "WebSocket"),
            ("connection", "Upgrade")
        ]));
        let others: [&[(&str, &str)]; 6] = [
            &[],
            &[("upgrade", "websocket")],
            &[("connection", "upgrade")],
            &[("upgrade", "h2c"), ("connection", "upgrade")],
            &[("upgrade", "websocket, h2c"), ("connection", "upgrade")],
            &[("upgrade", "websocket/13"), ("connection", "upgrade")],
        ];
        for fields in others {
            assert!(!grants(fields), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_field_makes_the_readers_panic(bytes in vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert("upgrade", value.clone());
                headers.insert("connection", value.clone());
                let _unused = choose(std::slice::from_ref(&value), &websocket());
                let _unused = granted(&value, &headers);
            }
        }
    }
}
