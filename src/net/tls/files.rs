//! Certificates from files, and what becomes of them when the files change.
//!
//! ```text
//! refresh ─► the files' stamps are as before ──────────────► nothing
//!         ├► cert and key are readable and fit each other ─► the new certificate
//!         └► they do not ──────────────────────────────────► the old one stays, and says why
//! ```
//!
//! A file that is written while it is read changes its stamp again, so it is read again. Files are
//! looked at whenever [`refresh`](Watched::refresh) is called; when that is is the caller's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;

use crate::net::NetError;
use crate::net::tls::certificate::Certificate;
use crate::net::tls::certificate::CertificateError;
use crate::net::tls::certificate::StapleError;

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: the server's own certificate, then its chain.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// DER: an OCSP response to staple.
    pub staple: Option<PathBuf>,
}

/// What a file set holds.
pub(super) struct Loaded {
    pub(super) certificate: Certificate,
    /// Why the OCSP response is not passed on. That is no reason to do without the certificate.
    pub(super) trouble: Option<NetError>,
}

impl Files {
    /// Reads them.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Loaded, NetError> {
        let chain = chain(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            refuse(
                &self.key,
                &pem_reason(&error, "no unencrypted private key in it"),
            )
        })?;
        let source = self.cert.display().to_string();
        let mut certificate =
            Certificate::new(source, chain, key, provider).map_err(|error| match error {
                CertificateError::OtherKey => {
                    let reason = format!("{} is not its key", self.key.display());
                    refuse(&self.cert, &reason)
                }
                CertificateError::Tls(error) => {
                    let reason = format!("{error} (key {})", self.key.display());
                    refuse(&self.cert, &reason)
                }
                CertificateError::Empty | CertificateError::Unreadable => {
                    refuse(&self.cert, &error)
                }
            })?;
        let trouble = self.staple.as_ref().and_then(|file| {
            let response = fs::read(file).map_err(|error| refuse(file, &error));
            response
                .and_then(|response| {
                    let stapled = certificate.staple(response);
                    stapled.map_err(|error| refuse(file, &error))
                })
                .err()
        });
        Ok(Loaded {
            certificate,
            trouble,
        })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let all = [Some(&self.cert), Some(&self.key), self.staple.as_ref()];
        all.into_iter().flatten().map(|file| stamp(file)).collect()
    }
}

/// What tells a file from what it was; none when it is not there.
pub(super) type Stamp = Option<[i128; 7]>;

/// Looks at a file; what a link points at counts, not the link.
pub(super) fn stamp(file: &Path) -> Stamp {
    let about = fs::metadata(file).ok()?;
    Some([
        about.dev().into(),
        about.ino().into(),
        about.size().into(),
        about.mtime().into(),
        about.mtime_nsec().into(),
        about.ctime().into(),
        about.ctime_nsec().into(),
    ])
}

/// The certificates of all file sets, as they were when they were last good.
#[derive(Debug)]
pub(super) struct Watched {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    files: Files,
    stamps: Vec<Stamp>,
    current: Arc<Certificate>,
    trouble: Option<String>,
}

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// File sets whose new content is in use.
    pub taken: u64,
    /// File sets whose new content could not be used.
    pub refused: u64,
}

impl Watched {
    /// Reads every file set; all must be good.
    pub(super) fn new(sets: &[Files], provider: &CryptoProvider) -> Result<Self, NetError> {
        let mut entries = Vec::new();
        for files in sets {
            let stamps = files.stamps();
            let Loaded {
                certificate,
                trouble,
            } = files.load(provider)?;
            if let Some(trouble) = &trouble {
                tracing::warn!(%trouble, "no OCSP response is stapled");
            }
            entries.push(Entry {
                files: files.clone(),
                stamps,
                current: Arc::new(certificate),
                trouble: trouble.map(|trouble| trouble.to_string()),
            });
        }
        Ok(Self { entries })
    }

    /// Reads what has changed since, or everything if `all`. Takes OCSP responses off that are over
    /// at `now`. Returns `None` when the certificates are what they were.
    pub(super) fn refresh(
        &mut self,
        all: bool,
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Refreshed {
        let mut refreshed = Refreshed::default();
        for entry in &mut self.entries {
            let stamps = entry.files.stamps();
            if all || stamps != entry.stamps {
                entry.stamps = stamps;
                match entry.reload(provider) {
                    true => refreshed.taken += 1,
                    false => refreshed.refused += 1,
                }
            }
            if entry
                .current
                .staple_until()
                .is_some_and(|until| until <= now)
            {
                let error = StapleError::Expired;
                let source = entry.current.source();
                tracing::warn!(source, "{error}; none is stapled until there is a new one");
                entry.current = Arc::new(entry.current.unstapled());
                entry.trouble = Some(error.to_string());
            }
        }
        refreshed
    }

    /// The certificates, in the order of the file sets, each with what is wrong with its files.
    pub(super) fn current(&self) -> impl Iterator<Item = (&Arc<Certificate>, Option<&str>)> {
        let entries = self.entries.iter();
        entries.map(|entry| (&entry.current, entry.trouble.as_deref()))
    }
}

impl Entry {
    /// Returns whether the new content is in use.
    fn reload(&mut self, provider: &CryptoProvider) -> bool {
        match self.files.load(provider) {
            Ok(Loaded {
                certificate,
                trouble,
            }) => {
                let same = certificate.key().cert == self.current.key().cert;
                if let Some(trouble) = &trouble {
                    tracing::warn!(%trouble, "the new OCSP response is not stapled");
                }
                // The old answer about the same certificate is better than none.
                if !(same && trouble.is_some()) {
                    tracing::info!(source = certificate.source(), "read a certificate again");
                    self.current = Arc::new(certificate);
                }
                self.trouble = trouble.map(|trouble| trouble.to_string());
                self.trouble.is_none()
            }
            Err(error) => {
                tracing::warn!(%error, "the old certificate stays in use");
                self.trouble = Some(error.to_string());
                false
            }
        }
    }
}

/// Reads the certificates in a PEM file; at least one.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(file, &pem_reason(&error, "no certificate in it")))?;
    match chain.is_empty() {
        true => Err(refuse(file, &CertificateError::Empty)),
        false => Ok(chain),
    }
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

pub(super) fn refuse(file: impl AsRef<Path>, reason: &(impl ToString + ?Sized)) -> NetError {
    NetError::Certificate {
        file: file.as_ref().to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::net::tls::certificate;
    use crate::net::tls::certificate::tests::response;
    use crate::net::tls::tests::BORN;
    use crate::net::tls::tests::issue;
    use rustls::crypto::aws_lc_rs;
    use tempfile::TempDir;
    use x509_cert::der::asn1::Null;
    use x509_ocsp::CertStatus;

    const TAKEN: Refreshed = Refreshed {
        taken: 1,
        refused: 0,
    };
    const REFUSED: Refreshed = Refreshed {
        taken: 0,
        refused: 1,
    };

    struct Rig {
        dir: TempDir,
        files: Files,
        watched: Watched,
    }

    impl Rig {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let files = issue(&dir, &["a.test"]);
            Self::with(dir, files)
        }

        fn with(dir: TempDir, files: Files) -> Self {
            let provider = aws_lc_rs::default_provider();
            let watched = Watched::new(std::slice::from_ref(&files), &provider).unwrap();
            Self {
                dir,
                files,
                watched,
            }
        }

        /// A certificate and an OCSP response that holds until second 900.
        fn stapled() -> Self {
            let dir = TempDir::new().unwrap();
            let mut files = issue(&dir, &["a.test"]);
            let leaf = chain(&files.cert).unwrap().remove(0);
            let parsed = certificate::parse(&leaf).unwrap();
            let serial = parsed.tbs_certificate.serial_number;
            let good = response(serial.as_bytes(), CertStatus::Good(Null), Some(900));
            let staple = dir.path().join("a.ocsp");
            fs::write(&staple, good).unwrap();
            files.staple = Some(staple);
            Self::with(dir, files)
        }

        fn look(&mut self, now: u64) -> Refreshed {
            let provider = aws_lc_rs::default_provider();
            let now = BORN + Duration::from_secs(now);
            self.watched.refresh(false, now, &provider)
        }

        fn current(&self) -> Arc<Certificate> {
            Arc::clone(self.watched.current().next().unwrap().0)
        }

        fn trouble(&self) -> Option<&str> {
            self.watched.current().next().unwrap().1
        }
    }

    #[test]
    fn what_has_not_changed_is_left_alone() {
        let mut rig = Rig::new();
        let before = rig.current();
        assert_eq!(rig.look(0), Refreshed::default());
        assert!(Arc::ptr_eq(&before, &rig.current()));
    }

    #[test]
    fn a_new_certificate_is_taken_up() {
        let mut rig = Rig::new();
        let before = rig.current();
        issue(&rig.dir, &["a.test"]);
        assert_eq!(rig.look(0), TAKEN);
        assert_ne!(before.key().cert, rig.current().key().cert);
        assert_eq!(rig.look(0), Refreshed::default());
    }

    #[test]
    fn a_bad_file_keeps_the_old_one_and_is_told_until_it_is_mended() {
        let mut rig = Rig::new();
        let before = rig.current();
        let good = fs::read(&rig.files.cert).unwrap();
        fs::write(&rig.files.cert, "nothing").unwrap();
        assert_eq!(rig.look(0), REFUSED);
        assert!(Arc::ptr_eq(&before, &rig.current()));
        assert!(rig.trouble().unwrap().contains("a.test.pem"));
        assert_eq!(rig.look(0), Refreshed::default());
        fs::remove_file(&rig.files.cert).unwrap();
        assert_eq!(rig.look(0), REFUSED);
        fs::write(&rig.files.cert, good).unwrap();
        assert_eq!(rig.look(0), TAKEN);
        assert_eq!(rig.trouble(), None);
    }

    #[test]
    fn a_certificate_without_its_new_key_waits_for_it() {
        let mut rig = Rig::new();
        let old_key = fs::read(&rig.files.key).unwrap();
        issue(&rig.dir, &["a.test"]);
        let new_key = fs::read(&rig.files.key).unwrap();
        fs::write(&rig.files.key, old_key).unwrap();
        assert_eq!(rig.look(0), REFUSED);
        fs::write(&rig.files.key, new_key).unwrap();
        assert_eq!(rig.look(0), TAKEN);
    }

    #[test]
    fn an_ocsp_response_is_stapled_until_it_is_over() {
        let mut rig = Rig::stapled();
        assert!(rig.current().key().ocsp.is_some());
        rig.look(899);
        assert!(rig.current().key().ocsp.is_some());
        rig.look(900);
        assert!(rig.current().key().ocsp.is_none());
        assert_eq!(rig.trouble(), Some("the OCSP response has expired"));
    }

    #[test]
    fn a_bad_ocsp_response_is_no_reason_to_do_without_the_old_one() {
        let mut rig = Rig::stapled();
        fs::write(rig.files.staple.as_ref().unwrap(), "nothing").unwrap();
        assert_eq!(rig.look(0), REFUSED);
        assert!(rig.current().key().ocsp.is_some());
        assert!(rig.trouble().unwrap().contains("a.ocsp"));
    }

    #[test]
    fn a_new_certificate_does_not_wait_for_its_ocsp_response() {
        let mut rig = Rig::stapled();
        let before = rig.current();
        issue(&rig.dir, &["a.test"]);
        assert_eq!(rig.look(0), REFUSED);
        assert_ne!(before.key().cert, rig.current().key().cert);
        assert!(rig.current().key().ocsp.is_none());
        assert!(rig.trouble().unwrap().contains("about another certificate"));
    }

    #[test]
    fn an_ocsp_response_that_is_not_there_is_told() {
        let rig = Rig::stapled();
        let mut files = rig.files.clone();
        files.staple = Some(rig.dir.path().join("missing.ocsp"));
        let rig = Rig::with(rig.dir, files);
        assert!(rig.current().key().ocsp.is_none());
        assert!(rig.trouble().unwrap().contains("missing.ocsp: No such"));
    }
}
