//! TLS to backends: whom to trust, who we are, one handshake, and what it means when it fails.
//!
//! ```text
//! files, the system's roots ─► Security ─► handshake ─► TlsStream, the protocol chosen by ALPN
//!                                              └──────► ConnectFailure: certificate, alert, protocol
//! ```
//!
//! TLS 1.2 and 1.3 with rustls's own choice of suites and X25519MLKEM768 before other key exchanges.
//! Sessions are resumed, also across connections of several backends that go by one name. Files are
//! read when a [`Security`] is made and never again: other files take a new one. Time limits are
//! [`connect`](super::connect)'s.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ConnectFailure;

/// What TLS to the backends of one upstream is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// PEM file with the authorities that backends' certificates come from; none: the system's.
    pub authorities: Option<PathBuf>,
    /// The name to ask for (RFC 6066 §3) and to find in the certificate; none: the backend's host.
    pub server_name: Option<String>,
    /// PEM files with the certificate chain we show when we are asked for one, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether certificates are looked at. If not, anybody on the way can be the backend.
    pub verify: bool,
}

/// Why there can be no TLS as it was set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// The authorities cannot be read, or there is none.
    #[error("{0}")]
    Authorities(String),
    /// The certificate of ours, or its key, cannot be used.
    #[error("{0}")]
    Client(String),
    /// It is neither a DNS name nor an address.
    #[error("{0:?} is not a name that a certificate can have")]
    ServerName(String),
}

/// What it takes to speak TLS with the backends of one upstream.
///
/// Equal to another that was made from the same settings and files.
#[derive(Clone)]
pub struct Security {
    settings: Settings,
    /// What was in the files; not told to anybody.
    files: Vec<Vec<u8>>,
    name: Option<ServerName<'static>>,
    config: ClientConfig,
}

impl Security {
    /// Reads the files, or the system's roots.
    pub fn new(settings: Settings) -> Result<Self, SecurityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let name = match &settings.server_name {
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| SecurityError::ServerName(name.clone()))?,
            ),
            None => None,
        };
        let mut files = Vec::new();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| SecurityError::Authorities(error.to_string()))?;
        let builder = if settings.verify {
            let roots = match &settings.authorities {
                Some(file) => authorities(file, &mut files)?,
                None => system_roots()?,
            };
            builder.with_root_certificates(roots)
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        };
        let config = match &settings.client {
            Some((chain, key)) => {
                let (chain, key) = client(chain, key, &mut files)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| SecurityError::Client(error.to_string()))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            settings,
            files,
            name,
            config,
        })
    }

    /// Whether backends' certificates are looked at.
    pub fn verifies(&self) -> bool {
        self.settings.verify
    }

    /// What makes handshakes with the backend `host` (a name, or an address without brackets) that
    /// offer these protocols by ALPN. Sessions are shared with every other one made here.
    pub(crate) fn connector(&self, host: &str, protocols: &[&[u8]]) -> Connector {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = match &self.name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()),
        };
        Connector {
            name: name.ok(),
            tls: TlsConnector::from(Arc::new(config)),
        }
    }
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.files == other.files
    }
}

impl Eq for Security {}

impl fmt::Debug for Security {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Security")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Makes handshakes with one backend.
#[derive(Clone)]
pub(crate) struct Connector {
    /// None: the host is not one that a certificate could be for.
    name: Option<ServerName<'static>>,
    tls: TlsConnector,
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Makes a handshake over `stream`. Dropping the future closes it.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectFailure> {
        let Some(name) = self.name.clone() else {
            let reason = Arc::from("the backend's host is no name for a certificate");
            return Err(ConnectFailure::TlsCertificate(reason));
        };
        let made = self.tls.connect(name, stream).await;
        made.map_err(|error| {
            failure(&error).unwrap_or_else(|| {
                // The other side closed or reset the connection: a handshake that was not finished.
                ConnectFailure::TlsProtocol(Arc::from(format!("in the handshake: {error}")))
            })
        })
    }
}

/// Reads why TLS failed from an error of its stream; none when it was the stream beneath.
pub(crate) fn failure(error: &io::Error) -> Option<ConnectFailure> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let told: Arc<str> = Arc::from(error.to_string());
    let failure = if matches!(
        error,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
    ) {
        ConnectFailure::TlsCertificate(told)
    } else if matches!(error, rustls::Error::AlertReceived(_)) {
        ConnectFailure::TlsAlert(told)
    } else {
        ConnectFailure::TlsProtocol(told)
    };
    Some(failure)
}

fn authorities(file: &Path, files: &mut Vec<Vec<u8>>) -> Result<RootCertStore, SecurityError> {
    let refuse = |reason: String| SecurityError::Authorities(about(file, &reason));
    let pem = fs::read(file).map_err(|error| refuse(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&pem) {
        let authority = authority.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(authority)
            .map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse(String::from("no certificate in it")));
    }
    files.push(pem);
    Ok(roots)
}

/// The roots that the system trusts; those that cannot be read are left out.
fn system_roots() -> Result<RootCertStore, SecurityError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_taken, _left_out) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| String::from("it has none"));
        return Err(SecurityError::Authorities(format!(
            "could not read the system's certificate authorities: {why}"
        )));
    }
    Ok(roots)
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client(
    chain: &Path,
    key: &Path,
    files: &mut Vec<Vec<u8>>,
) -> Result<Credentials, SecurityError> {
    let refuse = |file: &Path, reason: String| SecurityError::Client(about(file, &reason));
    let pem = fs::read(chain).map_err(|error| refuse(chain, error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(refuse(chain, String::from("no certificate in it")));
    }
    files.push(pem);
    let pem = fs::read(key).map_err(|error| refuse(key, error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| refuse(key, error.to_string()))?;
    files.push(pem);
    Ok((certificates, key))
}

fn about(file: &Path, reason: &str) -> String {
    format!("could not use {}: {reason}", file.display())
}

/// Takes every certificate; that the other side has its key is checked all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::CertificateParams;
    use rcgen::KeyPair;

    fn settings() -> Settings {
        Settings {
            authorities: None,
            server_name: None,
            client: None,
            verify: true,
        }
    }

    /// Files with a certificate and its key.
    fn issued(folder: &Path) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![String::from("a.test")])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let (chain, secret) = (folder.join("a.pem"), folder.join("a.key"));
        fs::write(&chain, certificate.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        (chain, secret)
    }

    #[test]
    fn files_that_hold_no_authority_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        let empty = folder.path().join("empty.pem");
        let broken = folder.path().join("broken.pem");
        fs::write(&empty, "").unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&broken, pem).unwrap();
        for file in [missing, empty, broken] {
            let made = Security::new(Settings {
                authorities: Some(file.clone()),
                ..settings()
            });
            let Err(SecurityError::Authorities(reason)) = made else {
                panic!("{made:?}");
            };
            assert!(reason.contains(&file.display().to_string()), "{reason}");
        }
    }

    #[test]
    fn a_certificate_of_ours_needs_its_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = issued(folder.path());
        let with = |chain: &Path, key: &Path| {
            Security::new(Settings {
                authorities: Some(folder.path().join("a.pem")),
                client: Some((chain.to_owned(), key.to_owned())),
                ..settings()
            })
        };
        assert!(with(&chain, &key).is_ok());
        let other = tempfile::tempdir().unwrap();
        let (_, foreign) = issued(other.path());
        for (chain, key) in [(&chain, &foreign), (&key, &key), (&chain, &chain)] {
            let made = with(chain, key);
            assert!(matches!(made, Err(SecurityError::Client(_))), "{made:?}");
        }
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_refused() {
        let made = Security::new(Settings {
            server_name: Some(String::from("no name")),
            ..settings()
        });
        assert_eq!(
            made,
            Err(SecurityError::ServerName(String::from("no name")))
        );
    }

    #[test]
    fn it_is_the_same_while_settings_and_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, _) = issued(folder.path());
        let made = || {
            Security::new(Settings {
                authorities: Some(chain.clone()),
                ..settings()
            })
            .unwrap()
        };
        let before = made();
        assert_eq!(before, made());
        issued(folder.path());
        assert_ne!(before, made());
    }

    #[test]
    fn nothing_that_is_printed_has_the_key_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = issued(folder.path());
        let security = Security::new(Settings {
            authorities: Some(chain.clone()),
            client: Some((chain, key)),
            ..settings()
        });
        let printed = format!("{:?}", security.unwrap());
        assert!(printed.len() < 400, "{printed}");
    }
}
