//! Which certificate a client is shown, by the name it asks for.
//!
//! ```text
//! name asked for ─► whole name ─► "*." for its first label ─► the first certificate of all
//!                   one of several for the same name: the first whose key the client can verify
//! ```
//!
//! A lookup costs a hash or two, however many certificates there are. They come from *owners*: the
//! files in the config are one; whoever obtains certificates while the process runs is another and
//! replaces its own without touching the rest. A handshake under way keeps what it was given.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use rustls::SignatureScheme;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::net::tls::certificate::Certificate;

/// Certificates by name. Shared by all listeners and workers.
#[derive(Debug, Default)]
pub struct Table(RwLock<Content>);

#[derive(Debug, Default)]
struct Content {
    /// In the order of the owners' first appearance: the earlier owner wins a name.
    owners: Vec<(&'static str, Vec<Arc<Certificate>>)>,
    lookup: Lookup,
}

/// Keys by name; none of the lists is empty.
#[derive(Debug, Default)]
struct Lookup {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// `example.com` for `*.example.com`, which stands for exactly one label (RFC 9525 §6.3).
    below: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Shown to who asks for no name, or for one that none is for.
    first: Option<Arc<CertifiedKey>>,
}

impl Table {
    /// Replaces all certificates of an owner. Takes time in proportion to all there are, unless
    /// they are the same as before.
    pub fn replace(&self, owner: &'static str, certificates: Vec<Arc<Certificate>>) {
        if self.holds(owner, &certificates) {
            return;
        }
        let mut content = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match content.owners.iter_mut().find(|(name, _)| *name == owner) {
            Some((_, before)) => *before = certificates,
            None => content.owners.push((owner, certificates)),
        }
        content.lookup = Lookup::new(content.owners.iter().flat_map(|(_, all)| all));
    }

    /// Lists every certificate.
    pub fn all(&self) -> Vec<Arc<Certificate>> {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = content.owners.iter().flat_map(|(_, all)| all);
        all.cloned().collect()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        content.lookup.first.is_none()
    }

    /// Returns those of `names` (lower case) that only certificates of `owner` are for, or none.
    pub fn left_to(&self, owner: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let others = content.owners.iter().filter(|(known, _)| *known != owner);
        let others = Lookup::new(others.flat_map(|(_, all)| all));
        let left = names.iter().filter(|name| others.named(name).is_none());
        left.cloned().collect()
    }

    /// Whether a certificate is for this name (lower case).
    pub fn knows(&self, name: &str) -> bool {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        content.lookup.named(name).is_some()
    }

    fn holds(&self, owner: &str, certificates: &[Arc<Certificate>]) -> bool {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let before = content.owners.iter().find(|(name, _)| *name == owner);
        before.is_some_and(|(_, before)| {
            before.len() == certificates.len()
                && before
                    .iter()
                    .zip(certificates)
                    .all(|(one, other)| Arc::ptr_eq(one, other))
        })
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let lookup = &content.lookup;
        let Some(keys) = name.and_then(|name| lookup.named(name)) else {
            return lookup.first.clone();
        };
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys.iter().find(fits).or_else(|| keys.first()).cloned()
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.choose(name.as_deref(), hello.signature_schemes())
    }
}

impl Lookup {
    fn new<'c>(certificates: impl Iterator<Item = &'c Arc<Certificate>>) -> Self {
        let mut lookup = Self::default();
        for certificate in certificates {
            let key = certificate.key();
            lookup.first.get_or_insert_with(|| Arc::clone(key));
            for name in certificate.names() {
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => lookup.below.entry(parent.to_owned()),
                    None => lookup.exact.entry(name.clone()),
                };
                keys.or_default().push(Arc::clone(key));
            }
        }
        lookup
    }

    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.exact.get(name).or_else(|| {
            let (label, parent) = name.split_once('.')?;
            (!label.is_empty())
                .then(|| self.below.get(parent))
                .flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::KeyPair;
    use rcgen::SignatureAlgorithm;
    use rustls::crypto::aws_lc_rs;

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const ED25519: &[SignatureScheme] = &[SignatureScheme::ED25519];

    fn certificate(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Arc<Certificate> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let issued = params.self_signed(&key).unwrap();
        let provider = aws_lc_rs::default_provider();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![issued.der().clone()];
        Arc::new(Certificate::new("test".to_owned(), chain, key, &provider).unwrap())
    }

    fn ecdsa(names: &[&str]) -> Arc<Certificate> {
        certificate(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// The place of the certificate that is shown.
    fn chosen(table: &Table, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<usize> {
        let key = table.choose(name, schemes)?;
        let all = table.all();
        all.iter().position(|one| Arc::ptr_eq(one.key(), &key))
    }

    fn table(certificates: &[Arc<Certificate>]) -> Table {
        let table = Table::default();
        table.replace("files", certificates.to_vec());
        table
    }

    #[test]
    fn the_whole_name_comes_before_a_wildcard_and_that_before_the_first() {
        let all = [&["z.test"][..], &["*.B.test"], &["www.b.test", "a.test"]];
        let table = table(&all.map(ecdsa));
        for (name, expected) in [
            (Some("a.test"), 2),
            (Some("www.b.test"), 2),
            (Some("x.b.test"), 1),
            (Some("b.test"), 0),
            (Some("x.y.b.test"), 0),
            (Some(".b.test"), 0),
            (Some("c.test"), 0),
            (None, 0),
        ] {
            assert_eq!(chosen(&table, name, ECDSA), Some(expected), "{name:?}");
            assert_eq!(name.is_some_and(|name| table.knows(name)), expected != 0);
        }
    }

    #[test]
    fn of_two_for_a_name_the_one_is_shown_that_the_client_can_verify() {
        let table = table(&[
            ecdsa(&["z.test"]),
            certificate(&["a.test"], &rcgen::PKCS_ED25519),
            ecdsa(&["a.test"]),
        ]);
        assert_eq!(chosen(&table, Some("a.test"), ED25519), Some(1));
        assert_eq!(chosen(&table, Some("a.test"), ECDSA), Some(2));
        assert_eq!(chosen(&table, Some("a.test"), &[]), Some(1));
    }

    #[test]
    fn an_owner_replaces_its_own_and_the_earlier_owner_wins() {
        let table = table(&[ecdsa(&["a.test"])]);
        table.replace("obtained", vec![ecdsa(&["a.test", "b.test"])]);
        assert_eq!(chosen(&table, Some("a.test"), ECDSA), Some(0));
        assert_eq!(chosen(&table, Some("b.test"), ECDSA), Some(1));
        table.replace("files", vec![ecdsa(&["c.test"])]);
        assert_eq!(chosen(&table, Some("a.test"), ECDSA), Some(1));
        table.replace("obtained", Vec::new());
        assert!(!table.knows("b.test"));
    }

    #[test]
    fn an_empty_table_shows_nothing() {
        assert_eq!(chosen(&Table::default(), Some("a.test"), ECDSA), None);
    }
}
