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
            .map_err(|error| refuse(first, error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificates(keys)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| refuse(first, error))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Does the handshake. Dropping this half-way drops the connection.
    pub(super) async fn handshake(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        self.acceptor.accept(socket).await
    }
}

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
        .map_err(|error| refuse(cert, pem_reason(error, "no certificate in it")))?;
    if chain.is_empty() {
        return Err(refuse(cert, "no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| refuse(key, pem_reason(error, "no unencrypted private key in it")))?;
    let keyed = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            refuse(cert, format_args!("{} is not its key", key.display()))
        }
        other => refuse(cert, format_args!("{other} (key {})", key.display())),
    })?;
    Ok(Arc::new(keyed))
}

/// Says what is wrong with a PEM file without repeating any of it: it may be a key.
fn pem_reason(error: pem::Error, nothing: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => nothing.to_owned(),
        _ => "not a PEM file".to_owned(),
    }
}

fn refuse(file: &Path, reason: impl ToString) -> NetError {
    NetError::Certificate {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}
