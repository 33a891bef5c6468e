//! Who a client is by its certificate, and whether that is enough for a site.
//!
//! The net room verifies certificates in the handshake, by the rules of the site that the client
//! asked for there; what it found is an [`Identity`]. Requests name their site again, in Host, and
//! many may come on one connection. So a site with rules of its own takes only requests whose
//! handshake followed these very rules: [`admits`] decides, [`guard`](super::guard) asks.
//!
//! Origins read who it is from two fields, [`SUBJECT`] and [`ALTERNATIVES`], which are dropped from
//! what clients send ([`request`](super::request)). Names come out of certificates, and whoever
//! got one signed may have chosen some of the letters: everything outside printable ASCII and every
//! separator is escaped, so that no name looks like two.

use http::HeaderName;
use http::HeaderValue;
use std::fmt::Write as _;
use std::sync::Arc;

/// A site's rules for client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePolicy {
    /// The site's name: handshakes that followed its rules carry it.
    pub site: Arc<str>,
    /// Nobody comes in without a certificate.
    pub required: bool,
}

/// What a handshake found out about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The site whose rules it followed.
    pub site: Arc<str>,
    /// The verified name; none when the client showed no certificate.
    pub name: Option<ClientName>,
}

/// The names in a verified certificate, as origins are told them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName {
    subject: Option<HeaderValue>,
    alternatives: Option<HeaderValue>,
}

/// Names that are longer than [`NAME_BYTES_MAX`] when they are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the names in the client's certificate are too long")]
pub struct NameTooLong;

impl ClientName {
    /// Makes a name of a subject in the form of RFC 4514 and of subject alternative names, each
    /// with its kind (`DNS`, `email`, `URI`, `IP`).
    pub fn new(subject: &str, alternatives: &[(&str, String)]) -> Result<Self, NameTooLong> {
        let mut written = String::new();
        escape(subject, &[], &mut written);
        let subject = value(&written)?;
        written.clear();
        for (kind, name) in alternatives {
            if !written.is_empty() {
                written.push_str(", ");
            }
            written.push_str(kind);
            written.push(':');
            escape(name, b" ,\\", &mut written);
        }
        let alternatives = value(&written)?;
        Ok(Self {
            subject,
            alternatives,
        })
    }

    /// The fields that tell an origin.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        let subject = self.subject.iter().map(|value| (SUBJECT, value));
        let alternatives = self.alternatives.iter();
        subject.chain(alternatives.map(|value| (ALTERNATIVES, value)))
    }
}

/// Whether a site with these rules takes a request from this client.
pub fn admits(policy: Option<&CertificatePolicy>, identity: Option<&Identity>) -> bool {
    let Some(policy) = policy else {
        return true;
    };
    identity.is_some_and(|identity| {
        identity.site == policy.site && (identity.name.is_some() || !policy.required)
    })
}

/// Writes `text` with `\XX` for every byte that is not printable ASCII or is one of `separators`.
fn escape(text: &str, separators: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && !separators.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\{byte:02X}");
        }
    }
}

fn value(text: &str) -> Result<Option<HeaderValue>, NameTooLong> {
    if text.len() > NAME_BYTES_MAX {
        return Err(NameTooLong);
    }
    if text.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(text)
        .map(Some)
        .map_err(|_| NameTooLong)
}

/// The certificate's subject, such as `CN=alice,O=Example` (RFC 4514).
pub const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");

/// Its alternative names, such as `DNS:alice.test, URI:spiffe://test/alice`.
pub const ALTERNATIVES: HeaderName = HeaderName::from_static("x-client-cert-san");

/// What the names of every field begin with that only we may write.
pub(super) const RESERVED: &str = "x-client-cert-";

/// Longest value of either field in bytes.
pub const NAME_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(site: &str, required: bool) -> CertificatePolicy {
        CertificatePolicy {
            site: site.into(),
            required,
        }
    }

    fn identity(site: &str, named: bool) -> Identity {
        Identity {
            site: site.into(),
            name: named.then(|| ClientName::new("CN=alice", &[]).unwrap()),
        }
    }

    fn written(subject: &str, alternatives: &[(&str, String)]) -> Vec<(String, String)> {
        ClientName::new(subject, alternatives)
            .unwrap()
            .fields()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn a_site_without_rules_takes_everybody() {
        assert!(admits(None, None));
        assert!(admits(None, Some(&identity("b", true))));
    }

    #[test]
    fn a_site_with_rules_takes_only_whose_handshake_followed_them() {
        for required in [false, true] {
            let policy = policy("a", required);
            assert!(admits(Some(&policy), Some(&identity("a", true))));
            assert!(!admits(Some(&policy), Some(&identity("b", true))));
            assert!(!admits(Some(&policy), None));
        }
    }

    #[test]
    fn without_a_certificate_only_an_optional_site_is_open() {
        let nobody = identity("a", false);
        assert!(admits(Some(&policy("a", false)), Some(&nobody)));
        assert!(!admits(Some(&policy("a", true)), Some(&nobody)));
    }

    #[test]
    fn names_are_told_in_two_fields() {
        let alternatives = [("DNS", "a.test".to_owned()), ("URI", "x:y".to_owned())];
        assert_eq!(
            written("CN=alice,O=Example", &alternatives),
            [
                ("x-client-cert-subject", "CN=alice,O=Example"),
                ("x-client-cert-san", "DNS:a.test, URI:x:y"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_a_certificate_does_not_say_has_no_field() {
        assert_eq!(written("", &[]), []);
    }

    #[test]
    fn a_name_cannot_pass_for_two() {
        let forged = [("URI", "x:y, DNS:admin\\2C".to_owned())];
        let fields = written("", &forged);
        assert_eq!(fields[0].1, "URI:x:y\\2C\\20DNS:admin\\5C2C");
    }

    #[test]
    fn names_longer_than_the_bound_are_no_names() {
        let long = "a".repeat(NAME_BYTES_MAX);
        assert!(ClientName::new(&long, &[]).is_ok());
        assert_eq!(
            ClientName::new(&(long.clone() + "a"), &[]),
            Err(NameTooLong)
        );
        assert_eq!(ClientName::new("", &[("DNS", long)]), Err(NameTooLong));
    }

    proptest! {
        #[test]
        fn every_name_makes_fields_of_printable_ascii(subject in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", san in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            for (_, value) in written(&subject, &[("URI", san)]) {
                prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
