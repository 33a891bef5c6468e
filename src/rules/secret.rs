//! Does a request bring the secret that lets its sender do more than others?
//!
//! ```text
//! configured secret ─► digest ─┐
//! presented bytes ───► digest ─┴─► compared in constant time
//! ```
//!
//! Only the digest is kept. Where the secret is configured is left to `config`, what it allows to
//! whoever asks. Of the fields that others bring, [`is_hidden`] says whose values nobody is shown.

use http::HeaderMap;
use http::HeaderName;
use std::fmt;
use subtle::ConstantTimeEq;

/// A secret of which only the digest is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// A request field that carries a secret. It ends here, whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretField {
    /// Its name.
    pub name: HeaderName,
    /// What it must carry; none when nothing will do.
    pub secret: Option<Secret>,
}

impl Secret {
    /// Keeps the digest of a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(*blake3::hash(secret).as_bytes())
    }

    /// Compares what was presented. Digests of fixed length are compared in constant time, so
    /// neither content nor length of the secret shows in how long it takes.
    pub fn matches(&self, presented: &[u8]) -> bool {
        blake3::hash(presented).as_bytes().ct_eq(&self.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretField {
    /// Takes the field off a request, with all its lines, and says whether it carried the secret. Two
    /// lines carry nothing.
    pub fn take(&self, headers: &mut HeaderMap) -> bool {
        let mut lines = headers.get_all(&self.name).iter();
        let carried = match (lines.next(), lines.next()) {
            (None, _) => return false,
            (Some(line), None) => {
                let presented = line.as_bytes().trim_ascii();
                let secret = self.secret.as_ref();
                secret.is_some_and(|secret| secret.matches(presented))
            }
            (Some(_), Some(_)) => false,
        };
        headers.remove(&self.name);
        carried
    }
}

/// Does a field carry what only its sender and its recipient are to know? Then its value is shown to
/// nobody else, operators included. Names that only sound like it count too.
pub fn is_hidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    HIDDEN.iter().any(|part| name.contains(part))
}

/// Parts of the names of such fields: Authorization, Proxy-Authorization, Cookie, Set-Cookie, and
/// what applications call their own.
const HIDDEN: [&str; 8] = [
    "api-key", "apikey", "auth", "cookie", "password", "secret", "session", "token",
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn field() -> SecretField {
        SecretField {
            name: HeaderName::from_static("larder-debug"),
            secret: Some(Secret::new(b"word")),
        }
    }

    fn take(values: &[&'static str]) -> (bool, bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("larder-debug", HeaderValue::from_static(value));
        }
        let carried = field().take(&mut headers);
        (carried, headers.is_empty())
    }

    #[test]
    fn the_right_word_is_recognised_and_taken_off() {
        assert_eq!(take(&["word"]), (true, true));
        assert_eq!(take(&[" word "]), (true, true));
    }

    #[test]
    fn a_wrong_word_is_taken_off_too() {
        for wrong in ["", "wor", "words", "Word"] {
            assert_eq!(take(&[wrong]), (false, true), "{wrong:?}");
        }
    }

    #[test]
    fn a_field_with_two_lines_carries_nothing() {
        assert_eq!(take(&["word", "word"]), (false, true));
    }

    #[test]
    fn where_there_is_no_secret_the_field_is_taken_off_all_the_same() {
        let field = SecretField {
            secret: None,
            ..field()
        };
        let word = HeaderValue::from_static("word");
        let mut headers = HeaderMap::from_iter([(field.name.clone(), word)]);
        assert!(!field.take(&mut headers));
        assert!(headers.is_empty());
    }

    #[test]
    fn a_request_without_the_field_carries_nothing() {
        assert_eq!(take(&[]), (false, true));
    }

    #[test]
    fn credentials_by_any_name_are_hidden_and_other_fields_are_not() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "cookie#session",
            "x-api-key",
            "x-csrf-token",
        ] {
            assert!(is_hidden(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["accept-language", "vary", "etag", "x-country"] {
            assert!(!is_hidden(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", field());
        assert!(printed.contains("Secret(…)"), "{printed}");
    }
}
