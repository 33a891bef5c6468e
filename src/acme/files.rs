//! The account and the certificates of one authority on disk.
//!
//! ```text
//! DIR/                                        0700 when made here
//!   acme-v02.api.example-directory/           0700; one a directory URL, so that what a test
//!     account.json                            0600  authority issued is never taken for the real
//!     certificates/NAME.pem                   0600  the key, then the chain
//! ```
//!
//! A key and its certificate are one file, so they cannot come apart. A file is written beside its
//! place, synced, renamed and its folder synced: after a crash it is the old one or the new one.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use instant_acme::AccountCredentials;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::Serialize;

use crate::acme::AcmeError;
use crate::acme::Issued;
use crate::rules::challenge::is_provable;

/// The folder of one authority.
#[derive(Debug)]
pub(super) struct Folder {
    own: PathBuf,
    certificates: PathBuf,
}

/// An account as it is kept.
#[derive(Deserialize, Serialize)]
pub(super) struct Kept {
    /// What `instant-acme` needs to go on.
    pub(super) credentials: AccountCredentials,
    /// The contact that the authority was last told of.
    pub(super) contact: Vec<String>,
}

impl Folder {
    /// Makes what is missing, and takes what is there from everybody else's eyes.
    pub(super) fn open(dir: &Path, directory: &str) -> Result<Self, AcmeError> {
        let own = dir.join(folder_name(directory));
        let certificates = own.join("certificates");
        for folder in [dir, &own, &certificates] {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(folder);
            made.map_err(|error| failed("make", folder, &error))?;
        }
        for folder in [&own, &certificates] {
            let closed = fs::set_permissions(folder, Permissions::from_mode(0o700));
            closed.map_err(|error| failed("close to others", folder, &error))?;
        }
        Ok(Self { own, certificates })
    }

    /// Reads the account; none when there is none.
    pub(super) fn account(&self) -> Result<Option<Kept>, AcmeError> {
        let file = self.account_file();
        let Some(text) = read(&file)? else {
            return Ok(None);
        };
        // Nothing of the content is repeated: it is a key.
        let kept = serde_json::from_slice(&text)
            .map_err(|_| failed("use", &file, &"it is not an account as it was kept"))?;
        Ok(Some(kept))
    }

    /// Keeps the account.
    pub(super) fn keep_account(&self, kept: &Kept) -> Result<(), AcmeError> {
        let file = self.account_file();
        let text = serde_json::to_vec(kept).map_err(|error| failed("write", &file, &error))?;
        write(&file, &text)
    }

    /// Remembers what the authority was told.
    pub(super) fn told_contact(&self, contact: &[String]) -> Result<(), AcmeError> {
        let Some(kept) = self.account()? else {
            return Ok(());
        };
        self.keep_account(&Kept {
            contact: contact.to_vec(),
            ..kept
        })
    }

    /// Puts the account out of the way; the authority does not know it.
    pub(super) fn forget_account(&self) {
        let file = self.account_file();
        let aside = file.with_extension("unknown.json");
        match fs::rename(&file, &aside) {
            Ok(()) => {
                let aside = aside.display();
                tracing::warn!(%aside, "the ACME authority does not know the account; it is put aside");
            }
            Err(error) => tracing::warn!(%error, "could not put the unknown ACME account aside"),
        }
    }

    /// Lists the names that have certificates, at most so many.
    pub(super) fn names(&self, most: usize) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.certificates) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| {
            let file = entry.ok()?.file_name();
            let name = file.to_str()?.strip_suffix(".pem")?;
            is_provable(name).then(|| name.to_owned())
        });
        names.take(most).collect()
    }

    /// Reads the certificate for a name.
    pub(super) fn certificate(&self, name: &str) -> Result<Option<Issued>, AcmeError> {
        let file = self.certificate_file(name);
        let Some(pem) = read(&file)? else {
            return Ok(None);
        };
        parse(name, &file, &pem).map(Some)
    }

    /// Keeps a certificate as the authority and the request for it gave it (PEM).
    pub(super) fn keep(&self, name: &str, key: &str, chain: &str) -> Result<Issued, AcmeError> {
        let file = self.certificate_file(name);
        let pem = format!("{}\n{}\n", key.trim_end(), chain.trim_end());
        let mut issued = parse(name, &file, pem.as_bytes())?;
        // It is good all the same, and was hard to come by.
        issued.unkept = write(&file, pem.as_bytes()).err();
        Ok(issued)
    }

    fn account_file(&self) -> PathBuf {
        self.own.join("account.json")
    }

    fn certificate_file(&self, name: &str) -> PathBuf {
        self.certificates.join(format!("{name}.pem"))
    }
}

fn parse(name: &str, file: &Path, pem: &[u8]) -> Result<Issued, AcmeError> {
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| failed("use", file, &"no private key in it"))?;
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| failed("use", file, &"no certificate in it"))?;
    Ok(Issued {
        name: name.to_owned(),
        source: file.display().to_string(),
        chain,
        key,
        unkept: None,
    })
}

/// Reads a file that is no longer than ours are; none when there is none. One that others may read
/// is closed to them.
fn read(file: &Path) -> Result<Option<Vec<u8>>, AcmeError> {
    let refuse = |error: io::Error| failed("read", file, &error);
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let mode = opened.metadata().map_err(refuse)?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = file.display();
        tracing::warn!(file = %shown, "others could read this key; closing it to them");
        let closed = opened.set_permissions(Permissions::from_mode(0o600));
        closed.map_err(|error| failed("close to others", file, &error))?;
    }
    let mut bytes = Vec::new();
    let mut bounded = opened.take(FILE_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(refuse)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(failed("read", file, &"it is too long")),
        false => Ok(Some(bytes)),
    }
}

/// Writes a file so that it is always whole.
fn write(file: &Path, bytes: &[u8]) -> Result<(), AcmeError> {
    let refuse = |error: io::Error| failed("write", file, &error);
    let beside = file.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refuse(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600);
    let mut new = opened.open(&beside).map_err(refuse)?;
    let written = new.write_all(bytes).and_then(|()| new.sync_all());
    written.map_err(refuse)?;
    fs::rename(&beside, file).map_err(refuse)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(refuse)
}

/// Makes a folder's name of a directory URL.
fn folder_name(directory: &str) -> String {
    let rest = directory.strip_prefix("https://").unwrap_or(directory);
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == '.' {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let name: String = rest.chars().map(plain).take(FOLDER_CHARS_MAX).collect();
    // No name of dots alone.
    format!("of-{}", name.trim_end_matches('-'))
}

fn failed(action: &'static str, file: &Path, reason: &impl ToString) -> AcmeError {
    AcmeError::File {
        action,
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

/// Keys and chains have a few kilobytes.
const FILE_BYTES_MAX: u64 = 512 << 10;
const FOLDER_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    use tempfile::TempDir;

    const URL: &str = "https://acme.example/dir";

    fn folder() -> (TempDir, Folder) {
        let dir = TempDir::new().unwrap();
        let folder = Folder::open(&dir.path().join("acme"), URL).unwrap();
        (dir, folder)
    }

    fn pair(name: &str) -> (String, String) {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (issued.signing_key.serialize_pem(), issued.cert.pem())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let (_dir, folder) = folder();
        let (key, chain) = pair("a.test");
        assert!(folder.certificate("a.test").unwrap().is_none());
        let kept = folder.keep("a.test", &key, &chain).unwrap();
        assert!(kept.unkept.is_none());
        let read = folder.certificate("a.test").unwrap().unwrap();
        assert_eq!(read.chain, kept.chain);
        assert_eq!(read.key, kept.key);
        assert_eq!(folder.names(9), ["a.test"]);
        assert!(folder.names(0).is_empty());
    }

    #[test]
    fn nobody_else_can_read_anything() {
        let (dir, folder) = folder();
        let (key, chain) = pair("a.test");
        folder.keep("a.test", &key, &chain).unwrap();
        let file = folder.certificate_file("a.test");
        assert_eq!(mode(&file), 0o600);
        for folder in [&folder.own, &folder.certificates, &dir.path().join("acme")] {
            assert_eq!(mode(folder), 0o700);
        }
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&folder.own, Permissions::from_mode(0o755)).unwrap();
        assert!(folder.certificate("a.test").unwrap().is_some());
        assert_eq!(mode(&file), 0o600);
        let again = Folder::open(&dir.path().join("acme"), URL).unwrap();
        assert_eq!(mode(&again.own), 0o700);
    }

    #[test]
    fn a_half_written_file_of_a_crash_is_in_nobody_s_way() {
        let (_dir, folder) = folder();
        let beside = folder.certificates.join("a.new");
        fs::write(folder.certificates.join("a.test.new"), "half").unwrap();
        fs::write(beside, "half").unwrap();
        let (key, chain) = pair("a.test");
        assert!(
            folder
                .keep("a.test", &key, &chain)
                .unwrap()
                .unkept
                .is_none()
        );
        assert_eq!(folder.names(9), ["a.test"]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_tells_nothing_of_it() {
        let (_dir, folder) = folder();
        let file = folder.certificate_file("a.test");
        let (key, _) = pair("a.test");
        let long = "x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
        for text in ["", "nothing", &key[..key.len() / 2], &long] {
            fs::write(&file, text).unwrap();
            let error = folder.certificate("a.test").unwrap_err().to_string();
            assert!(error.contains("a.test.pem"), "{error}");
            assert!(error.len() < 300, "{error}");
        }
        fs::write(folder.account_file(), "{\"credentials\":7}").unwrap();
        assert!(folder.account().is_err());
    }

    #[test]
    fn authorities_have_folders_of_their_own() {
        assert_eq!(folder_name(URL), "of-acme.example-dir");
        assert_eq!(folder_name("https://[::1]:14000/dir"), "of----1--14000-dir");
        assert_ne!(
            folder_name("https://a.test/x"),
            folder_name("https://b.test/x")
        );
        assert!(folder_name(&"/x".repeat(999)).len() < 255);
    }

    #[test]
    fn a_certificate_that_cannot_be_kept_is_good_all_the_same() {
        let (_dir, folder) = folder();
        let (key, chain) = pair("a.test");
        fs::create_dir(folder.certificate_file("a.test")).unwrap();
        assert!(
            folder
                .keep("a.test", &key, &chain)
                .unwrap()
                .unkept
                .is_some()
        );
    }
}
