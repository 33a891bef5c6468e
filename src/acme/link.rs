//! The line to an authority: HTTPS, bounded in time and size.
//!
//! `instant-acme` brings a client, but one that reads bodies of any length, waits for ever, and does
//! not tell of Retry-After. Redirects are not followed, as RFC 8555 asks for none.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::header;
use http_body_util::Limited;
use hyper_rustls::HttpsConnector;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::Error;
use instant_acme::HttpClient;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::timeout;

use crate::acme::AcmeError;

/// The line. A clone is the same line.
#[derive(Clone)]
pub(super) struct Link {
    now: fn() -> SystemTime,
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    /// What the latest answer said about asking again.
    retry_at: Arc<Mutex<Option<SystemTime>>>,
}

impl Link {
    /// Reads the roots; see [`roots`].
    pub(super) fn new(file: Option<&Path>, now: fn() -> SystemTime) -> Result<Self, AcmeError> {
        let store = roots(file)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(file, error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .build();
        Ok(Self {
            now,
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(CONNECTIONS_IDLE_MAX)
                .pool_idle_timeout(IDLE_MAX)
                .build(https),
            retry_at: Arc::default(),
        })
    }

    /// When the authority wants to be asked again, if its latest answer said so.
    pub(super) fn retry_at(&self) -> Option<SystemTime> {
        *self.retry_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpClient for Link {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let call = self.client.request(request);
        let (now, retry_at) = (self.now, Arc::clone(&self.retry_at));
        Box::pin(async move {
            let mut told = None;
            let answer = match timeout(CALL_MAX, call).await {
                Ok(Ok(response)) => {
                    if response.status().is_client_error() || response.status().is_server_error() {
                        told = retry_after(response.headers(), now());
                    }
                    Ok(BytesResponse::from(
                        response.map(|body| Limited::new(body, BODY_BYTES_MAX)),
                    ))
                }
                Ok(Err(error)) => Err(Error::Other(Box::new(error))),
                Err(_) => {
                    let late = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                    Err(Error::Other(Box::new(late)))
                }
            };
            *retry_at.lock().unwrap_or_else(PoisonError::into_inner) = told;
            answer
        })
    }
}

/// Reads the roots that the authority's own certificate must come from: those in a PEM file, or the
/// system's.
pub(super) fn roots(file: Option<&Path>) -> Result<RootCertStore, AcmeError> {
    let found = match file {
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(Some(file), error.to_string()))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut store = RootCertStore::empty();
    let (taken, _) = store.add_parsable_certificates(found);
    match taken {
        0 => Err(failed(file, "no certificate in it".to_owned())),
        _ => Ok(store),
    }
}

fn failed(file: Option<&Path>, reason: String) -> AcmeError {
    AcmeError::File {
        action: "use",
        file: file
            .unwrap_or(Path::new("the system's authorities"))
            .to_owned(),
        reason,
    }
}

/// Reads Retry-After (RFC 9110 §10.2.3; RFC 8555 §6.6 asks for it with what is too often).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match u64::from_str(value) {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

/// Chains have a few kilobytes; nothing else is longer.
const BODY_BYTES_MAX: usize = 256 << 10;
/// An authority that does not begin to answer for so long does not work.
const CALL_MAX: Duration = Duration::from_secs(30);
const CONNECTIONS_IDLE_MAX: usize = 2;
const IDLE_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;
    use proptest::prelude::*;

    const BORN: SystemTime = SystemTime::UNIX_EPOCH;

    fn after(value: &[u8]) -> Option<SystemTime> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(value).ok()?);
        retry_after(&headers, BORN)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after(b"120"), Some(BORN + Duration::from_secs(120)));
        let date = after(b"Thu, 01 Jan 1970 00:01:00 GMT");
        assert_eq!(date, Some(BORN + Duration::from_secs(60)));
        assert_eq!(after(b"soon"), None);
        assert_eq!(after(b"18446744073709551615"), None);
    }

    proptest! {
        #[test]
        fn no_retry_after_makes_a_panic(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(after(&value).is_none_or(|then| then >= BORN));
        }
    }
}
