//! Client certificates: what a site asks for, and the name in what a client showed.
//!
//! rustls verifies chain, validity and signature against the site's own authorities; here only the
//! names are read, from a certificate that has passed.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::net::NetError;
use crate::net::tls::certificate;
use crate::net::tls::files;
use crate::rules::identity::CertificatePolicy;
use crate::rules::identity::ClientName;

/// What one site asks of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRules {
    /// Whose rules they are, and whether a certificate must be shown.
    pub policy: CertificatePolicy,
    /// PEM file with the authorities whose certificates are taken.
    pub authorities: PathBuf,
}

impl ClientRules {
    /// Makes what verifies clients. Reads the file.
    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, NetError> {
        let roots = authorities(&self.authorities)?;
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = match self.policy.required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        builder
            .build()
            .map_err(|error| files::refuse(&self.authorities, &error))
    }
}

/// Reads the authorities in a PEM file; at least one.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    for authority in files::chain(file)? {
        roots
            .add(authority)
            .map_err(|error| files::refuse(file, &error))?;
    }
    Ok(roots)
}

/// Reads the names in a client's own certificate; none when it cannot be read or they are too long.
pub(super) fn name(certificate: &CertificateDer<'_>) -> Option<ClientName> {
    let parsed = certificate::parse(certificate)?;
    let tbs = &parsed.tbs_certificate;
    let names = match tbs.get::<SubjectAltName>().ok()? {
        Some((_, SubjectAltName(names))) => names,
        None => Vec::new(),
    };
    let alternatives: Vec<(&str, String)> = names.iter().filter_map(alternative).collect();
    ClientName::new(&tbs.subject.to_string(), &alternatives).ok()
}

fn alternative(name: &GeneralName) -> Option<(&'static str, String)> {
    match name {
        GeneralName::DnsName(name) => Some(("DNS", name.as_str().to_owned())),
        GeneralName::Rfc822Name(name) => Some(("email", name.as_str().to_owned())),
        GeneralName::UniformResourceIdentifier(name) => Some(("URI", name.as_str().to_owned())),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| v6()).ok()?;
            Some(("IP", address.to_string()))
        }
        GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::OtherName(_)
        | GeneralName::RegisteredId(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::CertificateParams;
    use rcgen::DistinguishedName;
    use rcgen::DnType;
    use rcgen::KeyPair;
    use rcgen::SanType;

    fn told(common_name: &str, names: Vec<SanType>) -> Vec<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let issued = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let name = name(issued.der()).unwrap();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        name.fields()
            .map(|(field, value)| (field.to_string(), text(value)))
            .collect()
    }

    #[test]
    fn subject_and_alternative_names_are_told() {
        let names = vec![
            SanType::DnsName("a.test".try_into().unwrap()),
            SanType::Rfc822Name("alice@a.test".try_into().unwrap()),
            SanType::URI("spiffe://a.test/alice".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
        let all = "DNS:a.test, email:alice@a.test, URI:spiffe://a.test/alice, IP:192.0.2.1, \
                   IP:2001:db8::1";
        assert_eq!(
            told("alice", names),
            [
                ("x-client-cert-subject", "CN=alice,O=Example"),
                ("x-client-cert-san", all),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_subject_that_looks_like_two_parts_is_escaped() {
        let told = told("alice,O=Admins\r\nX: y\u{e9}", Vec::new());
        assert_eq!(
            told[0].1,
            "CN=alice\\,O=Admins\\0d\\0aX: y\\C3\\A9,O=Example"
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        assert_eq!(name(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
