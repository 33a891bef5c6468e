//! A TLS client that trusts everybody and remembers what it was shown, and certificates to show.
//!
//! Whether a certificate is to be trusted is not the server's business; one scene in `tls` has a
//! client that checks it. Here it only counts which one came.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SerialNumber;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::HandshakeKind;
use rustls::SignatureScheme;
use rustls::StreamOwned;
use rustls::SupportedProtocolVersion;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

use crate::client::Client;
use crate::client::tcp;

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    pub(crate) der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Issued {
    /// The private key.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }

    /// Writes `NAME.pem` and `NAME.key` into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), &self.pem).expect("a certificate file");
        fs::write(folder.join(format!("{name}.key")), &self.key_pem).expect("a key file");
    }
}

/// The serial number of every certificate that an authority issues to servers.
pub(crate) const SERIAL: &[u8] = &[7, 1, 2, 3];

/// Issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("an authority");
        Self {
            issuer: Issuer::new(params, key),
            pem: own.pem(),
            der: own.der().clone(),
        }
    }

    /// Its own certificate.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// A certificate for a server of these names.
    pub(crate) fn server(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.serial_number = Some(SerialNumber::from_slice(SERIAL));
        self.issue(&params)
    }

    /// A certificate for a client of this name.
    pub(crate) fn client(&self, name: &str) -> Issued {
        let alternative = format!("{name}.clients.test");
        let mut params = CertificateParams::new([alternative]).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            pem: issued.pem(),
            key_pem: key.serialize_pem(),
            der: issued.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

/// How to connect. Tickets are remembered over its connections.
pub(crate) struct Dial {
    config: Arc<ClientConfig>,
    shown: Arc<Shown>,
}

impl Dial {
    /// TLS 1.3 and 1.2, without ALPN and certificate.
    pub(crate) fn new() -> Self {
        Self::with(rustls::ALL_VERSIONS, None, &[])
    }

    /// Only this version.
    pub(crate) fn version(version: &'static SupportedProtocolVersion) -> Self {
        Self::with(&[version], None, &[])
    }

    /// Offers these protocols.
    pub(crate) fn offering(protocols: &[&str]) -> Self {
        Self::with(rustls::ALL_VERSIONS, None, protocols)
    }

    /// Shows this certificate when it is asked for one.
    pub(crate) fn showing(client: &Issued) -> Self {
        Self::with(rustls::ALL_VERSIONS, Some(client), &[])
    }

    fn with(
        versions: &[&'static SupportedProtocolVersion],
        client: Option<&Issued>,
        protocols: &[&str],
    ) -> Self {
        let shown = Arc::new(Shown::default());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&shown) as _);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivatePkcs8KeyDer::from(issued.key_der.clone()).into();
                let chain = vec![issued.der.clone()];
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("a client's certificate")
            }
        };
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Self {
            config: Arc::new(config),
            shown,
        }
    }

    /// What rustls needs to know.
    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Begins a handshake for `name` and does nothing more.
    pub(crate) fn session(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        ClientConnection::new(Arc::clone(&self.config), name).expect("a session")
    }

    /// Does a handshake. In TLS 1.3 a client is done before the server has seen its certificate.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Line> {
        let mut session = self.session(name);
        let mut wire = tcp(address);
        while session.is_handshaking() {
            session.complete_io(&mut wire)?;
        }
        Ok(Line(StreamOwned::new(session, wire)))
    }

    /// Connects and asks for `/` of `host`; returns how the handshake went.
    #[track_caller]
    pub(crate) fn visits(&self, address: SocketAddr, host: &str) -> HandshakeKind {
        let line = self.connect(address, host).expect("a connection");
        let kind = line.0.conn.handshake_kind().expect("a kind");
        let mut client = line.client();
        client.ask("GET", "/", &[("Host", host)], b"").answer("GET");
        kind
    }

    /// The OCSP response that came with the latest certificate.
    pub(crate) fn staple(&self) -> Vec<u8> {
        self.shown.0.lock().expect("no panic").clone()
    }
}

/// A connection.
pub(crate) struct Line(StreamOwned<ClientConnection, TcpStream>);

impl Line {
    pub(crate) fn session(&self) -> &ClientConnection {
        &self.0.conn
    }

    /// The server's own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        let chain = self.0.conn.peer_certificates().expect("a certificate");
        chain.first().expect("its own")
    }

    /// Speaks HTTP/1.1 on it.
    pub(crate) fn client(self) -> Client {
        Client::over(self.0)
    }

    /// Sends a request and says why nothing came back.
    pub(crate) fn fails(mut self) -> io::Error {
        let request = b"GET / HTTP/1.1\r\nHost: scene.test\r\n\r\n";
        let mut byte = [0];
        let sent = self.0.write_all(request);
        match sent.and_then(|()| self.0.read(&mut byte)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => panic!("an answer came"),
            Err(error) => error,
        }
    }
}

/// Trusts everybody, and keeps the OCSP response.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<u8>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().expect("no panic") = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
