//! Certificates from an ACME authority (RFC 8555): one order, from a name to a chain and a key.
//!
//! ```text
//! name ─► account (made once, kept) ─► order ─► authorization ─► Stage::show ─► the authority asks
//!      ─► Stage::clear ─► key and request ─► chain ─► Issued, kept in a file
//! ```
//!
//! `instant-acme` speaks the protocol. Here is what it talks through (bounded in time and size), what
//! is kept on disk, and whose fault a failure is. When to order, which names, and what waits how long
//! is `state::orders`'; the challenges are answered by whoever listens, behind [`Stage`].

mod files;
mod link;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use instant_acme::Account;
use instant_acme::AuthorizationStatus;
use instant_acme::ChallengeType;
use instant_acme::ExternalAccountKey;
use instant_acme::Identifier;
use instant_acme::KeyAuthorization;
use instant_acme::NewAccount;
use instant_acme::NewOrder;
use instant_acme::Order;
use instant_acme::OrderStatus;
use instant_acme::RetryPolicy;
use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::acme::files::Folder;
use crate::acme::files::Kept;
use crate::acme::link::Link;

/// An authority, and how to deal with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Its directory, an https URL (RFC 8555 §7.1.1).
    pub directory: String,
    /// Whom it may write to: `mailto:` URLs.
    pub contact: Vec<String>,
    /// Where the account and the certificates are kept.
    pub dir: PathBuf,
    /// How names are proven.
    pub challenge: Challenge,
    /// The authorities (PEM) that its own certificate may come from; none: the system's.
    pub roots: Option<PathBuf>,
    /// What ties the account to one that exists outside (RFC 8555 §7.3.4).
    pub binding: Option<Binding>,
    /// Longest time of one order.
    pub order_timeout: Duration,
}

/// How a name is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Challenge {
    /// By a file at port 80 (RFC 8555 §8.3).
    Http01,
    /// By a certificate at port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
}

/// A key that an authority gave to a customer.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its name.
    pub id: String,
    /// The key itself, decoded.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What has to be shown so that the authority can see it.
#[derive(Debug)]
pub enum Proof {
    /// At `/.well-known/acme-challenge/TOKEN` of the name.
    Http {
        /// The token.
        token: String,
        /// The answer to it.
        answer: String,
    },
    /// To a TLS client that asks for the name and speaks only `acme-tls/1`.
    Tls {
        /// The name.
        name: String,
        /// The certificate.
        certificate: CertificateDer<'static>,
        /// Its key.
        key: PrivateKeyDer<'static>,
    },
}

/// Where proofs are shown.
pub trait Stage: Send + Sync {
    /// Shows a proof from now on.
    fn show(&self, proof: Proof) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    /// Takes away what was shown: a token, or a name.
    fn clear(&self, challenge: Challenge, what: &str);
}

/// A certificate as it came, or as it was kept.
#[derive(Debug)]
pub struct Issued {
    /// The name it was ordered for.
    pub name: String,
    /// The file it is kept in.
    pub source: String,
    /// The server's own certificate, then its chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// Why it could not be kept, if so. It is good until the end of the process.
    pub unkept: Option<AcmeError>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority cannot be reached or does not work.
    #[error("{reason}")]
    Authority {
        /// What happened.
        reason: String,
        /// When the authority wants to be asked again.
        retry_at: Option<SystemTime>,
    },
    /// A file is not what it should be.
    #[error("could not {action} {}: {reason}", file.display())]
    File {
        /// A verb: what was being done.
        action: &'static str,
        /// To which file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The authority does not issue for this name, or not now.
    #[error("{reason}")]
    Refused {
        /// What it said.
        reason: String,
        /// When the authority wants to be asked again.
        retry_at: Option<SystemTime>,
    },
}

impl AcmeError {
    /// Whether no order at all would do, rather than this one.
    pub fn is_authority(&self) -> bool {
        matches!(self, Self::Authority { .. } | Self::File { .. })
    }

    /// When the authority wants to be asked again, if it said so.
    pub fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::Authority { retry_at, .. } | Self::Refused { retry_at, .. } => *retry_at,
            Self::File { .. } => None,
        }
    }
}

/// An authority that can be ordered from. Shared by all orders.
pub struct Authority {
    params: Params,
    folder: Folder,
    link: Link,
    /// None until the first order of this process.
    account: Mutex<Option<Account>>,
}

impl Authority {
    /// Opens the folder and reads the roots. Does not talk to the authority.
    pub fn new(params: Params, now: fn() -> SystemTime) -> Result<Self, AcmeError> {
        let folder = Folder::open(&params.dir, &params.directory)?;
        let link = Link::new(params.roots.as_deref(), now)?;
        Ok(Self {
            params,
            folder,
            link,
            account: Mutex::new(None),
        })
    }

    /// How it is dealt with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Lists the names that have kept certificates, at most so many. Blocking.
    pub fn kept(&self, most: usize) -> Vec<String> {
        self.folder.names(most)
    }

    /// Reads a kept certificate; none when there is none. Blocking.
    pub fn read(&self, name: &str) -> Result<Option<Issued>, AcmeError> {
        self.folder.certificate(name)
    }

    /// Orders a certificate, within the time limit, and keeps it. Dropped half-way, nothing is shown
    /// any longer, and the order expires at the authority.
    pub async fn order(&self, name: &str, stage: &dyn Stage) -> Result<Issued, AcmeError> {
        let limit = self.params.order_timeout;
        match timeout(limit, self.try_order(name, stage)).await {
            Ok(done) => done,
            Err(_) => Err(AcmeError::Refused {
                reason: format!("the order took longer than {limit:?}"),
                retry_at: None,
            }),
        }
    }

    async fn try_order(&self, name: &str, stage: &dyn Stage) -> Result<Issued, AcmeError> {
        let account = self.account().await?;
        let done = self.take_order(&account, name, stage).await;
        if let Err(error) = &done
            && type_of(error) == Some(NO_ACCOUNT)
        {
            // It has forgotten us (RFC 8555 §6.7): the next order makes another account.
            *self.account.lock().await = None;
            self.folder.forget_account();
        }
        let (key, chain) = done.map_err(|error| self.blame(&error))?;
        self.folder.keep(name, &key, &chain)
    }

    async fn take_order(
        &self,
        account: &Account,
        name: &str,
        stage: &dyn Stage,
    ) -> Result<(String, String), instant_acme::Error> {
        let identifiers = [Identifier::Dns(name.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let mut shown = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            // An order before may have proved it (RFC 8555 §7.1.3).
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if authorization.status != AuthorizationStatus::Pending {
                return Err("the authorization is not pending".into());
            }
            let kind = self.params.challenge;
            let Some(mut challenge) = authorization.challenge(kind.kind()) else {
                return Err(instant_acme::Error::Unsupported(kind.as_str()));
            };
            let answer = challenge.key_authorization();
            shown.push(Shown::new(stage, kind, name, &challenge.token, &answer)?);
            challenge.set_ready().await?;
        }
        let patience = self.patience();
        let ready = match order.poll_ready(&patience).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err("the name could not be proven".into()),
            Err(error) => Err(error),
        };
        if let Err(error) = ready {
            // The challenge says more than the order does.
            return Err(failure(&mut order).await.unwrap_or(error));
        }
        drop(shown);
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&patience).await?;
        Ok((key, chain))
    }

    /// Polls a little slower each time; the whole order has its own limit.
    fn patience(&self) -> RetryPolicy {
        RetryPolicy::new()
            .initial_delay(Duration::from_millis(250))
            .backoff(1.5)
            .timeout(self.params.order_timeout)
    }

    /// The account: the one in use, or the kept one, or a new one. Only one is made.
    async fn account(&self) -> Result<Account, AcmeError> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let account = match self.folder.account()? {
            Some(kept) => self.known_account(kept).await?,
            None => self.new_account().await?,
        };
        *held = Some(account.clone());
        Ok(account)
    }

    async fn known_account(&self, kept: Kept) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(self.link.clone()));
        let account = builder.from_credentials(kept.credentials).await;
        let account = account.map_err(|error| self.blame(&error))?;
        if kept.contact != self.params.contact {
            let contact: Vec<&str> = self.params.contact.iter().map(String::as_str).collect();
            let updated = account.update_contacts(&contact).await;
            match updated {
                Ok(()) => self.folder.told_contact(&self.params.contact)?,
                Err(error) => {
                    let error = self.blame(&error);
                    tracing::warn!(%error, "could not tell the ACME authority of the new contact");
                }
            }
        }
        Ok(account)
    }

    async fn new_account(&self) -> Result<Account, AcmeError> {
        let contact: Vec<&str> = self.params.contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            // Nobody gets here who has not said so in the config.
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let binding = self.params.binding.as_ref();
        let binding = binding.map(|bound| ExternalAccountKey::new(bound.id.clone(), &bound.key));
        let directory = self.params.directory.clone();
        let builder = Account::builder_with_http(Box::new(self.link.clone()));
        let made = builder.create(&wanted, directory, binding.as_ref()).await;
        // Without an account nothing can be ordered, whosever fault it is.
        let (account, credentials) = made.map_err(|error| AcmeError::Authority {
            reason: reason(&error),
            retry_at: self.link.retry_at(),
        })?;
        self.folder.keep_account(&Kept {
            credentials,
            contact: self.params.contact.clone(),
        })?;
        tracing::info!(directory = %self.params.directory, "made an ACME account");
        Ok(account)
    }

    fn blame(&self, error: &instant_acme::Error) -> AcmeError {
        let retry_at = self.link.retry_at();
        let reason = reason(error);
        let own = if let instant_acme::Error::Api(problem) = error {
            problem.status.is_none_or(|status| status < 500)
        } else {
            matches!(
                error,
                instant_acme::Error::Str(_)
                    | instant_acme::Error::Timeout(_)
                    | instant_acme::Error::Unsupported(_)
            )
        };
        match own && type_of(error) != Some(NO_ACCOUNT) {
            true => AcmeError::Refused { reason, retry_at },
            false => AcmeError::Authority { reason, retry_at },
        }
    }
}

impl Challenge {
    /// Its name in RFC 8555 and RFC 8737.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }

    fn kind(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

/// Reads the roots that an authority's own certificate may come from, and says what is wrong.
pub fn check_roots(roots: Option<&Path>) -> Result<(), AcmeError> {
    link::roots(roots).map(|_| ())
}

/// A proof that is shown until this is dropped.
struct Shown<'s> {
    stage: &'s dyn Stage,
    challenge: Challenge,
    what: String,
}

impl<'s> Shown<'s> {
    fn new(
        stage: &'s dyn Stage,
        challenge: Challenge,
        name: &str,
        token: &str,
        answer: &KeyAuthorization,
    ) -> Result<Self, instant_acme::Error> {
        let (what, proof) = match challenge {
            Challenge::Http01 => {
                let answer = answer.as_str().to_owned();
                let token = token.to_owned();
                (token.clone(), Proof::Http { token, answer })
            }
            Challenge::TlsAlpn01 => (name.to_owned(), speaking(name, answer.digest().as_ref())?),
        };
        stage.show(proof).map_err(instant_acme::Error::Other)?;
        Ok(Self {
            stage,
            challenge,
            what,
        })
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.stage.clear(self.challenge, &self.what);
    }
}

/// Makes the certificate that carries an answer (RFC 8737 §3).
fn speaking(name: &str, digest: &[u8]) -> Result<Proof, instant_acme::Error> {
    let failed = |error: rcgen::Error| instant_acme::Error::Other(Box::new(error));
    let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    let extension = CustomExtension::new_acme_identifier(digest);
    params.custom_extensions = vec![extension];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Proof::Tls {
        name: name.to_owned(),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    })
}

/// Finds out which challenge failed, and why.
async fn failure(order: &mut Order) -> Option<instant_acme::Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        let mut challenges = state.challenges.iter();
        if let Some(problem) = challenges.find_map(|challenge| challenge.error.clone()) {
            return Some(instant_acme::Error::Api(problem));
        }
    }
    None
}

/// The type of an error that the authority told of.
fn type_of(error: &instant_acme::Error) -> Option<&str> {
    let instant_acme::Error::Api(problem) = error else {
        return None;
    };
    problem.r#type.as_deref()
}

/// Says what went wrong in one bounded line, with what lies behind it.
fn reason(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_said = inner.to_string();
        // Some say what their source says already.
        if !said.contains(&inner_said) {
            said = format!("{said}: {inner_said}");
        }
        source = inner.source();
    }
    // Half of it comes from the authority.
    said.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect()
}

const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const REASON_CHARS_MAX: usize = 500;
