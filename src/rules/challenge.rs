//! What proves to an ACME server that a name is ours, and which names can be proven.
//!
//! From a path to the token it asks for (HTTP-01, RFC 8555 §8.3), and from a host to whether a
//! certificate for it can be asked for at all. What the answers are is left to whoever orders; over TLS the question is put by ALPN (RFC 8737), which is `net::tls`'s.

/// Returns the token that a request's path and query asks about, if it is such a request.
pub fn token(target: &str) -> Option<&str> {
    let token = target.strip_prefix(WELL_KNOWN)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ((1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(fits)).then_some(token)
}

/// Returns whether an authority on the internet could issue a certificate for a host (lower case)
/// when it is asked over HTTP or TLS: a whole DNS name of two labels or more. Wildcards are proven
/// by DNS records only (RFC 8555 §8.4, RFC 8737 §3), and addresses are nobody's by name.
pub fn is_provable(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= NAME_BYTES_MAX
        && host.contains('.')
        && host.split('.').all(sound)
        // An IPv4 address ends in a number; no top-level domain is one (RFC 3696 §2).
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where HTTP-01 asks (RFC 8555 §8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// Tokens have at least 128 bits in base64url (RFC 8555 §8.1), so 22 bytes; 43 are usual.
const TOKEN_BYTES_MAX: usize = 256;

/// Longest label, and longest name without its last dot (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_challenge_path_has_its_token() {
        let target = "/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
        assert_eq!(
            token(target),
            Some("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0")
        );
    }

    #[test]
    fn no_other_path_has_one() {
        let long = format!("/.well-known/acme-challenge/{}", "a".repeat(257));
        for target in [
            "/",
            "*",
            "/.well-known/acme-challenge",
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/a/b",
            "/.well-known/acme-challenge/a?b",
            "/.well-known/acme-challenge/%41",
            "/x/.well-known/acme-challenge/a",
            &long,
        ] {
            assert_eq!(token(target), None, "{target}");
        }
    }

    #[test]
    fn whole_names_of_the_dns_can_be_proven() {
        for name in ["a.test", "www.example.com", "xn--bcher-kva.example", "1.a2"] {
            assert!(is_provable(name), "{name}");
        }
    }

    #[test]
    fn nothing_else_can() {
        let long = format!("{}.test", "a.".repeat(126));
        let label = format!("{}.test", "a".repeat(64));
        for name in [
            "",
            "*",
            "localhost",
            "*.example.com",
            "192.0.2.1",
            "[2001:db8::1]",
            "a..test",
            ".test",
            "a.test.",
            "-a.test",
            "a-.test",
            "a_b.test",
            "A.test",
            "a/b.test",
            "../x.test",
            &long,
            &label,
        ] {
            assert!(!is_provable(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_provable_name_is_a_safe_file_name(name in "\\PC{0,300}") {
            if is_provable(&name) {
                prop_assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= 253);
            }
        }

        #[test]
        fn a_token_is_the_end_of_its_path(target in "(/.well-known/acme-challenge/)?\\PC{0,300}") {
            if let Some(token) = token(&target) {
                prop_assert!(target.ends_with(token) && token.len() <= TOKEN_BYTES_MAX);
            }
        }
    }
}
