//! TLS at the front: rustls server configs from certificate files.
//!
//! Answers which certificate a client is shown and does the handshake; HTTP starts above it. TLS
//! 1.2 and 1.3 with rustls's own choice of suites, HTTP/1.1 by ALPN, session tickets.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ParsedCertificate;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::net::NetError;
use crate::net::io::Carrier;
use crate::net::io::Socket;

/// What TLS listeners share: certificates, keys and the keys of session tickets.
pub struct Front {
    acceptor: TlsAcceptor,
}

impl Front {
    /// Reads `certificates`, each a PEM file with a chain (the server's own first) and a PEM file
    /// with its private key.
    ///
    /// A client is shown the first that is valid for the name it asks for, else the first of all.
    pub fn new(certificates: &[(PathBuf, PathBuf)]) -> Result<Self, NetError> {
        let Some((first, _)) = certificates.first() else {
            return Err(refuse(Path::new(""), "none is given"));
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let keys = certificates
            .iter()
            .map(|(cert, key)| load(cert, key, &provider))
            .collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(first, &error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificates(keys)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| refuse(first, &error))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Does the handshake. Dropping this half-way drops the connection.
    pub(super) async fn handshake(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        self.acceptor.accept(socket).await
    }
}

/// What HTTP/2 is called in ALPN (RFC 9113 §3.2).
pub(super) const HTTP_2: &[u8] = b"h2";

impl Carrier for TlsStream<Socket> {
    fn socket(&self) -> &Socket {
        self.get_ref().0
    }
}

/// At least one certificate, in the operator's order.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name
            .filter(|_| self.0.len() > 1)
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| self.0.iter().find(|key| covers(key, &name)));
        named.or_else(|| self.0.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

fn covers(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|cert| rustls::client::verify_server_name(&cert, name).is_ok())
}

fn load(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, NetError> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(cert, &pem_reason(&error, "no certificate in it")))?;
    if chain.is_empty() {
        return Err(refuse(cert, "no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| refuse(key, &pem_reason(&error, "no unencrypted private key in it")))?;
    let keyed = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            refuse(cert, &format_args!("{} is not its key", key.display()))
        } else {
            refuse(cert, &format_args!("{error} (key {})", key.display()))
        }
    })?;
    Ok(Arc::new(keyed))
}

/// Says what is wrong with a PEM file without repeating any of it: it may be a key.
fn pem_reason(error: &pem::Error, nothing: &str) -> String {
    if let pem::Error::Io(error) = error {
        error.to_string()
    } else if matches!(error, pem::Error::NoItemsFound) {
        nothing.to_owned()
    } else {
        "not a PEM file".to_owned()
    }
}

fn refuse(file: &Path, reason: &(impl ToString + ?Sized)) -> NetError {
    NetError::Certificate {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use std::fs;
    use tempfile::TempDir;
    use tokio::net::TcpStream;

    /// A client that offers HTTP/1.1 and trusts one front's certificate.
    pub(in crate::net) struct Client(tokio_rustls::TlsConnector);

    impl Client {
        pub(in crate::net) async fn connect(
            &self,
            tcp: TcpStream,
        ) -> tokio_rustls::client::TlsStream<TcpStream> {
            let name = ServerName::try_from("a.test").unwrap();
            let stream = self.0.connect(name, tcp).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            stream
        }
    }

    /// Makes a front for `a.test` and a client for it.
    pub(in crate::net) fn front_and_client() -> (Arc<Front>, Client) {
        let dir = TempDir::new().unwrap();
        let (cert, key) = issue(&dir, &["a.test"]);
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&cert).unwrap())
            .unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let front = Front::new(&[(cert, key)]).unwrap();
        (Arc::new(front), Client(Arc::new(config).into()))
    }

    /// Writes a certificate for `names` and its key.
    fn issue(dir: &TempDir, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let stem = names[0].replace('*', "any");
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        let cert = dir.path().join(format!("{stem}.pem"));
        let key = dir.path().join(format!("{stem}.key"));
        fs::write(&cert, issued.cert.pem()).unwrap();
        fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    fn refusal(cert: &Path, key: &Path) -> String {
        let Err(error) = Front::new(&[(cert.to_owned(), key.to_owned())]) else {
            panic!("{} was taken", cert.display());
        };
        error.to_string()
    }

    #[test]
    fn a_certificate_with_its_key_is_taken() {
        let dir = TempDir::new().unwrap();
        assert!(Front::new(&[issue(&dir, &["a.test"])]).is_ok());
    }

    #[test]
    fn the_first_certificate_with_the_name_is_chosen_else_the_first() {
        let dir = TempDir::new().unwrap();
        let provider = aws_lc_rs::default_provider();
        let all = [&["a.test"][..], &["b.test", "*.b.test"], &["b.test"]];
        let keys: Vec<_> = all
            .iter()
            .map(|names| issue(&dir, names))
            .map(|(cert, key)| load(&cert, &key, &provider).unwrap())
            .collect();
        let certificates = Certificates(keys.clone());
        for (name, expected) in [
            (None, 0),
            (Some("a.test"), 0),
            (Some("b.test"), 1),
            (Some("www.b.test"), 1),
            (Some("c.test"), 0),
        ] {
            let chosen = certificates.choose(name).unwrap();
            assert!(Arc::ptr_eq(&chosen, &keys[expected]), "{name:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = issue(&dir, &["a.test"]);
        let missing = dir.path().join("missing.pem");
        assert!(refusal(&missing, &key).contains("missing.pem: No such file"));
        assert!(refusal(&cert, &missing).contains("missing.pem: No such file"));
    }

    #[test]
    fn a_file_without_what_is_looked_for_is_named() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = issue(&dir, &["a.test"]);
        assert!(refusal(&key, &key).contains("a.test.key: no certificate in it"));
        assert!(refusal(&cert, &cert).contains("no unencrypted private key in it"));
    }

    #[test]
    fn a_broken_certificate_is_refused_without_a_panic() {
        let dir = TempDir::new().unwrap();
        let (cert, key) = issue(&dir, &["a.test"]);
        for text in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&cert, text).unwrap();
            assert!(refusal(&cert, &key).starts_with("could not use certificate"));
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dir = TempDir::new().unwrap();
        let (cert, _) = issue(&dir, &["a.test"]);
        let (_, key) = issue(&dir, &["b.test"]);
        assert!(refusal(&cert, &key).contains("b.test.key is not its key"));
    }

    #[test]
    fn no_certificate_at_all_is_an_error() {
        assert!(Front::new(&[]).is_err());
    }
}
