//! One certificate with its key, and what has to be known of it: names, expiry, OCSP response.
//!
//! From DER, wherever it came from. Which certificate a client is shown is
//! [`table`](super::table)'s; whether a client trusts it is the client's.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use x509_cert::certificate::CertificateInner;
use x509_cert::certificate::Raw;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_ocsp::BasicOcspResponse;
use x509_ocsp::CertStatus;
use x509_ocsp::OcspResponse;
use x509_ocsp::OcspResponseStatus;

/// A certificate, its chain and its private key.
#[derive(Debug)]
pub struct Certificate {
    source: String,
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    serial: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Until when the OCSP response in `key` holds; none when there is none.
    staple_until: Option<SystemTime>,
}

impl Certificate {
    /// Puts together a chain, the server's own certificate first, and its private key. `source`
    /// says to people where it came from.
    pub fn new(
        source: String,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let Some(leaf) = chain.first() else {
            return Err(CertificateError::Empty);
        };
        let parsed = parse(leaf).ok_or(CertificateError::Unreadable)?;
        let names = dns_names(&parsed);
        let tbs = &parsed.tbs_certificate;
        let serial = tbs.serial_number.as_bytes().to_vec();
        let not_before = tbs.validity.not_before.to_system_time();
        let not_after = tbs.validity.not_after.to_system_time();
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                CertificateError::OtherKey
            } else {
                CertificateError::Tls(error)
            }
        })?;
        Ok(Self {
            source,
            key: Arc::new(key),
            names,
            serial,
            not_before,
            not_after,
            staple_until: None,
        })
    }

    /// Adds an OCSP response (DER) for clients that ask for one (RFC 6066 §8). Its signature is for
    /// them to check; what is no good answer about this certificate is refused.
    pub fn staple(&mut self, response: Vec<u8>) -> Result<(), StapleError> {
        let until = good_until(&response, &self.serial)?;
        self.key = Arc::new(CertifiedKey {
            ocsp: Some(response),
            ..CertifiedKey::clone(&self.key)
        });
        self.staple_until = Some(until);
        Ok(())
    }

    /// The same certificate without its OCSP response.
    #[must_use]
    pub fn unstapled(&self) -> Self {
        Self {
            source: self.source.clone(),
            key: Arc::new(CertifiedKey {
                ocsp: None,
                ..CertifiedKey::clone(&self.key)
            }),
            names: self.names.clone(),
            serial: self.serial.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            staple_until: None,
        }
    }

    /// Where it came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What rustls signs with.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The DNS names it is for, in lower case; `*.` stands for one label.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Until when its OCSP response holds, if it has one.
    pub fn staple_until(&self) -> Option<SystemTime> {
        self.staple_until
    }
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("no certificate in it")]
    Empty,
    /// The private key belongs to another one.
    #[error("the key is not its key")]
    OtherKey,
    /// rustls cannot use the certificate or the key.
    #[error("{0}")]
    Tls(rustls::Error),
    /// Not the DER of an X.509 certificate.
    #[error("not an X.509 certificate")]
    Unreadable,
}

/// Why an OCSP response is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StapleError {
    /// It was good once.
    #[error("the OCSP response has expired")]
    Expired,
    /// The responder could not tell.
    #[error("the OCSP response has no answer")]
    NoAnswer,
    /// It does not say that the certificate is good.
    #[error("the OCSP response does not say that the certificate is good")]
    NotGood,
    /// It is about other certificates.
    #[error("the OCSP response is about another certificate")]
    OtherCertificate,
    /// Not the DER of an OCSP response.
    #[error("not an OCSP response in DER")]
    Unreadable,
}

/// Reads an X.509 certificate; strict in form, and lenient about serial numbers that RFC 5280 no
/// longer allows.
pub(super) fn parse(certificate: &CertificateDer<'_>) -> Option<CertificateInner<Raw>> {
    CertificateInner::from_der(certificate).ok()
}

fn dns_names(certificate: &CertificateInner<Raw>) -> Vec<String> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = found else {
        return Vec::new();
    };
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::OtherName(_)
        | GeneralName::RegisteredId(_)
        | GeneralName::UniformResourceIdentifier(_) => None,
    });
    dns.collect()
}

/// Finds out until when an OCSP response says that the certificate with this serial is good. One
/// that does not say when the next comes is good for a day.
fn good_until(response: &[u8], serial: &[u8]) -> Result<SystemTime, StapleError> {
    let response = OcspResponse::from_der(response).map_err(|_| StapleError::Unreadable)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(StapleError::NoAnswer);
    }
    let bytes = response.response_bytes.ok_or(StapleError::NoAnswer)?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
        .map_err(|_| StapleError::Unreadable)?;
    let answers = basic.tbs_response_data.responses;
    let answer = answers
        .iter()
        .find(|answer| answer.cert_id.serial_number.as_bytes() == serial)
        .ok_or(StapleError::OtherCertificate)?;
    if !matches!(answer.cert_status, CertStatus::Good(_)) {
        return Err(StapleError::NotGood);
    }
    Ok(match &answer.next_update {
        Some(next) => next.0.to_system_time(),
        None => answer.this_update.0.to_system_time() + STAPLE_LIFE,
    })
}

/// How long an OCSP response is passed on that does not say when the next one comes.
const STAPLE_LIFE: std::time::Duration = std::time::Duration::from_secs(86_400);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use std::time::Duration;

    use proptest::prelude::*;
    use rustls::crypto::aws_lc_rs;
    use x509_cert::der::Encode;
    use x509_cert::der::asn1::BitString;
    use x509_cert::der::asn1::Null;
    use x509_cert::der::asn1::OctetString;
    use x509_cert::serial_number::SerialNumber;
    use x509_cert::spki::AlgorithmIdentifierOwned;
    use x509_ocsp::CertId;
    use x509_ocsp::OcspGeneralizedTime;
    use x509_ocsp::ResponderId;
    use x509_ocsp::ResponseData;
    use x509_ocsp::SingleResponse;

    const SERIAL: &[u8] = &[7, 1, 2, 3];

    fn time(seconds: u64) -> OcspGeneralizedTime {
        (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .try_into()
            .unwrap()
    }

    /// An OCSP response that nobody signed: `next` is when the next one comes, in Unix seconds.
    pub(in crate::net::tls) fn response(
        serial: &[u8],
        status: CertStatus,
        next: Option<u64>,
    ) -> Vec<u8> {
        let algorithm = AlgorithmIdentifierOwned {
            oid: "1.3.14.3.2.26".parse().unwrap(),
            parameters: None,
        };
        let hash = OctetString::new(vec![0; 20]).unwrap();
        let single = SingleResponse {
            cert_id: CertId {
                hash_algorithm: algorithm.clone(),
                issuer_name_hash: hash.clone(),
                issuer_key_hash: hash.clone(),
                serial_number: SerialNumber::new(serial).unwrap(),
            },
            cert_status: status,
            this_update: time(100),
            next_update: next.map(time),
            single_extensions: None,
        };
        let basic = BasicOcspResponse {
            tbs_response_data: ResponseData {
                version: x509_ocsp::Version::V1,
                responder_id: ResponderId::ByKey(hash),
                produced_at: time(100),
                responses: vec![single],
                response_extensions: None,
            },
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&[0]).unwrap(),
            certs: None,
        };
        OcspResponse::successful(basic).unwrap().to_der().unwrap()
    }

    fn good() -> CertStatus {
        CertStatus::Good(Null)
    }

    fn until(seconds: u64) -> Result<SystemTime, StapleError> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn an_answer_is_good_until_the_next_one_comes() {
        assert_eq!(
            good_until(&response(SERIAL, good(), Some(900)), SERIAL),
            until(900)
        );
        assert_eq!(
            good_until(&response(SERIAL, good(), None), SERIAL),
            until(100 + 86_400)
        );
    }

    #[test]
    fn an_answer_that_is_not_good_is_refused() {
        let unknown = CertStatus::Unknown(Null);
        for (response, error) in [
            (
                response(&[9], good(), Some(900)),
                StapleError::OtherCertificate,
            ),
            (response(SERIAL, unknown, Some(900)), StapleError::NotGood),
            (
                OcspResponse::try_later().to_der().unwrap(),
                StapleError::NoAnswer,
            ),
            (b"-----BEGIN".to_vec(), StapleError::Unreadable),
            (Vec::new(), StapleError::Unreadable),
        ] {
            assert_eq!(good_until(&response, SERIAL), Err(error));
        }
    }

    #[test]
    fn names_and_expiry_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["A.test".to_owned(), "*.b.test".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let issued = params.self_signed(&key).unwrap();
        let provider = aws_lc_rs::default_provider();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![issued.der().clone()];
        let certificate = Certificate::new("here".to_owned(), chain, key, &provider).unwrap();
        assert_eq!(certificate.names(), ["a.test", "*.b.test"]);
        let date = humantime::format_rfc3339_seconds(certificate.not_after());
        assert_eq!(date.to_string(), "2031-02-03T00:00:00Z");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in 0_usize..200, byte: u8) {
            prop_assert!(parse(&CertificateDer::from(bytes.clone())).is_none());
            prop_assert!(good_until(&bytes, SERIAL).is_err());
            let mut damaged = response(SERIAL, good(), Some(900));
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            // Whatever it says now, it says something.
            prop_assert!(good_until(&damaged, SERIAL).map_or(true, |until| until >= SystemTime::UNIX_EPOCH));
        }
    }
}
