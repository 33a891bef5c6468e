//! What is not a visit: who asks whether we control a name, and who asks for a name that has no
//! certificate yet.
//!
//! ```text
//! ALPN is acme-tls/1 and nothing else ─► the name's proof, and nothing more is said (RFC 8737 §3)
//! a name without a certificate ─► allowed ─► Demand ─► whoever obtains certificates ─► look again
//! ```
//!
//! Proofs are shown by whoever orders a certificate, for as long as the order needs them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::rules::challenge::is_provable;
use crate::rules::route::Routes;

/// A name that a client asks for and no certificate is for.
#[derive(Debug)]
pub struct Demand {
    /// The name, in lower case.
    pub name: String,
    /// To be dropped when there is nothing more to wait for.
    pub answered: oneshot::Sender<()>,
}

/// Who obtains certificates for names that clients ask for.
#[derive(Clone, Debug)]
pub struct OnDemand {
    /// The names it may be asked for.
    pub allowed: Arc<Routes>,
    /// Where to ask; what finds no room there is not asked for.
    pub ask: mpsc::Sender<Demand>,
}

/// Proofs by name, and who may be asked for more certificates.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    shown: RwLock<HashMap<String, Arc<ServerConfig>>>,
    on_demand: RwLock<Option<OnDemand>>,
}

impl Proofs {
    /// Shows a certificate to whoever asks for a proof of `name`. It is not looked at: what it
    /// carries is for nobody else, and no verifier would take it (RFC 8737 §3).
    pub(super) fn show(
        &self,
        name: String,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(), rustls::Error> {
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        let key = provider.key_provider.load_private_key(key)?;
        let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(BOTH)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.insert(name, Arc::new(config));
        Ok(())
    }

    /// Shows it no longer.
    pub(super) fn clear(&self, name: &str) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.remove(name);
    }

    /// Returns what to answer a client with that only wants a proof of `name`; none when it wants
    /// something else or there is none.
    pub(super) fn asked(
        &self,
        hello: &ClientHello<'_>,
        name: Option<&str>,
    ) -> Option<Arc<ServerConfig>> {
        let mut offered = hello.alpn()?;
        if (offered.next(), offered.next()) != (Some(ACME_TLS), None) {
            return None;
        }
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.get(name?).cloned()
    }

    /// From now on asks this one for certificates; or nobody.
    pub(super) fn ask_from_now_on(&self, whom: Option<OnDemand>) {
        *self
            .on_demand
            .write()
            .unwrap_or_else(PoisonError::into_inner) = whom;
    }

    /// Asks for a certificate for `name`. Returns what ends when there is nothing more to wait for,
    /// or none when nobody is to be asked.
    pub(super) fn demand(&self, name: &str) -> Option<oneshot::Receiver<()>> {
        let on_demand = self.on_demand.read();
        let on_demand = on_demand.unwrap_or_else(PoisonError::into_inner);
        let whom = on_demand.as_ref()?;
        if !is_provable(name) || whom.allowed.site(name).is_none() {
            return None;
        }
        let (answered, answer) = oneshot::channel();
        let name = name.to_owned();
        whom.ask.try_send(Demand { name, answered }).ok()?;
        Some(answer)
    }
}

/// Its name in ALPN (RFC 8737 §6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

#[cfg(test)]
mod tests {
    use super::*;

    use crate::rules::route::SiteId;

    fn asking(room: usize) -> (Proofs, mpsc::Receiver<Demand>) {
        let (ask, asked) = mpsc::channel(room);
        let allowed = [("*.test".to_owned(), SiteId(0))];
        let allowed = Arc::new(Routes::new(allowed).unwrap());
        let proofs = Proofs::default();
        proofs.ask_from_now_on(Some(OnDemand { allowed, ask }));
        (proofs, asked)
    }

    #[test]
    fn only_names_that_are_allowed_are_asked_for() {
        let (proofs, mut asked) = asking(9);
        assert!(proofs.demand("a.example").is_none());
        assert!(proofs.demand("a_b.test").is_none());
        assert!(proofs.demand("a.test").is_some());
        assert_eq!(asked.try_recv().unwrap().name, "a.test");
        assert!(asked.try_recv().is_err());
        proofs.ask_from_now_on(None);
        assert!(proofs.demand("a.test").is_none());
    }

    #[test]
    fn what_finds_no_room_is_not_waited_for() {
        let (proofs, _asked) = asking(1);
        assert!(proofs.demand("a.test").is_some());
        assert!(proofs.demand("b.test").is_none());
    }
}
