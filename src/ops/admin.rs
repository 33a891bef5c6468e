//! The admin listener's handler: purging, counters, health.
//!
//! ```text
//! POST  /purge     {"urls": ["http://host/path", …]} or {"all": true}  ─► receipt
//! PURGE URL        the same for one URL (absolute, or Host and path)   ─► receipt
//! GET   /stats     counters and sizes as JSON
//! POST  /explain   a request  ─► what would become of it now, and why; see [`explain`](super::explain)
//! GET   /certificates   every certificate, and every name that one is obtained for, as JSON
//! POST  /store/stat | list | verify | export   what is stored, see `inventory`  ─► told piece by piece
//! POST  /reload    reads the config again  ─► what has changed, or 422 with everything that is wrong
//! GET   /healthz   200 while the process answers
//! GET   /readyz    200, or 503 with the reason why no traffic should come
//! ```
//!
//! With a token, everything but the two health questions needs `Authorization: Bearer TOKEN`.
//! Without one (only on a loopback listener) a request that a web page sent is refused, so a
//! browser on the same machine cannot be tricked into purging, or into telling what is stored: that is
//! asked for by POST, because with a GET a browser need not say where it comes from.

use super::answer::Answer;
use super::answer::Telling;
use super::explain;
use super::inventory;
use super::inventory::Question;
use super::inventory::Topic;
use super::metrics::Certificates;
use super::metrics::Metrics;
use super::reload::Reloads;
use crate::clock;
use crate::flow::Engine;
use crate::flow::Manner;
use crate::flow::Purge;
use crate::flow::PurgeError;
use crate::flow::Receipt;
use crate::flow::StoreError;
use crate::flow::What;
use crate::flow::explain::Unanswerable;
use crate::rules::secret::Secret;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Answers admin requests.
pub struct Admin {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    certificates: Look,
    reloads: Reloads,
    token: ArcSwapOption<Token>,
    draining: AtomicBool,
    /// One permit a telling of the store; verifications have their own.
    tellings: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    explanations: Semaphore,
}

/// Looks at the certificates that TLS listeners show now.
pub type Look = Box<dyn Fn() -> Certificates + Send + Sync>;

/// The secret that admin requests must bring; only its digest is kept.
#[derive(Clone, Debug)]
pub struct Token(Secret);

/// Why an admin request, or the token it needs, was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The token file holds no usable token.
    #[error("{} {reason}", file.display())]
    BadToken {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Others are being told already.
    #[error("the store is being told or verified for others; try again later")]
    Busy,
    /// Others are being explained to already.
    #[error("too much is being explained at once; try again later")]
    BusyExplaining,
    /// The request's body broke off.
    #[error("the request body could not be read")]
    Body,
    /// A web page sent it, and there is no token to tell friend from foe.
    #[error("requests from web pages need a token")]
    ForeignOrigin,
    /// The JSON is not a purge.
    #[error("{0}")]
    Malformed(String),
    /// Another method is needed.
    #[error("only {allow} is possible here")]
    Method {
        /// The methods that are possible.
        allow: &'static str,
    },
    /// No such resource.
    #[error(
        "there is only /explain, /purge, /reload, /stats, /certificates, /store/…, /healthz and /readyz"
    )]
    NotFound,
    /// The question has no answer.
    #[error(transparent)]
    Unanswerable(#[from] Unanswerable),
    /// Another store is meant.
    #[error("this larder runs on another store")]
    OtherStore,
    /// The engine refused the purge.
    #[error(transparent)]
    Purge(#[from] PurgeError),
    /// The config is still being read.
    #[error("the reload takes long; the log will say what came of it")]
    ReloadLate,
    /// The store cannot be looked at.
    #[error("the store cannot be looked at: {}", inventory::explain(.0))]
    Store(#[from] StoreError),
    /// The body is too large.
    #[error("the request body is over {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The token is missing or wrong.
    #[error("a bearer token is needed")]
    Unauthorised,
    /// Nobody can reload now.
    #[error("too many reloads are waiting, or the process is about to end")]
    Unreloadable,
    /// The token file cannot be read.
    #[error("could not read {}: {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    Certificates,
    Explain,
    Health,
    PurgeBody,
    PurgeUrl(String),
    Ready,
    Reload,
    Stats,
    Store(Topic),
}

/// The body of `POST /purge`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeBody {
    urls: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    prefixes: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    regexes: Option<Vec<String>>,
    sites: Option<Vec<String>>,
    site: Option<String>,
    all: Option<bool>,
    #[serde(default)]
    soft: bool,
}

impl Admin {
    /// Makes the handler.
    pub fn new(
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        certificates: Look,
        reloads: Reloads,
        token: Option<Token>,
    ) -> Self {
        Self {
            engine,
            metrics,
            certificates,
            reloads,
            token: ArcSwapOption::from_pointee(token),
            draining: AtomicBool::new(false),
            tellings: Arc::new(Semaphore::new(TELLINGS_MAX)),
            verifications: Arc::new(Semaphore::new(1)),
            explanations: Semaphore::new(EXPLANATIONS_MAX),
        }
    }

    /// Wants another token from now on, or none.
    pub fn want(&self, token: Option<Token>) {
        self.token.store(token.map(Arc::new));
    }

    /// Makes `/readyz` say that the process is about to end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request. A purge whose future is dropped may or may not have taken hold.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        match self.answer(&parts, body).await {
            Ok(response) => response,
            Err(error) => error.respond(),
        }
    }

    async fn answer<B>(&self, parts: &Parts, body: B) -> Result<Response<Answer>, AdminError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ask = Ask::read(parts)?;
        if !matches!(ask, Ask::Health | Ask::Ready) {
            authorise(&parts.headers, self.token.load().as_deref())?;
        }
        match ask {
            Ask::Certificates => {
                let certificates = (self.certificates)().render(clock::now());
                Ok(respond(StatusCode::OK, &certificates))
            }
            Ask::Explain => self.explain(&collect(body).await?).await,
            Ask::Health => Ok(text(StatusCode::OK, "ok\n")),
            Ask::PurgeBody => self.purge(read_purge(&collect(body).await?)?).await,
            Ask::PurgeUrl(url) => self.purge(urls(vec![url])).await,
            Ask::Ready => Ok(self.ready()),
            Ask::Reload => self.reload().await,
            Ask::Stats => {
                let (sizes, certificates) = (self.engine.stats(), (self.certificates)());
                let stats = self.metrics.render(&sizes, &certificates, clock::now());
                Ok(respond(StatusCode::OK, &stats))
            }
            Ask::Store(topic) => {
                let question = read_question(&collect(body).await?)?;
                self.tell(topic, question).await
            }
        }
    }

    /// Explains what would become of a request. Dropped half-way, nothing has changed.
    async fn explain(&self, body: &[u8]) -> Result<Response<Answer>, AdminError> {
        let question = explain::read(body).map_err(AdminError::Malformed)?;
        // Each may hold a connection to an origin, or wait for a disk.
        let permit = self.explanations.try_acquire();
        let _permit = permit.map_err(|_| AdminError::BusyExplaining)?;
        let told = self.engine.explain(question).await?;
        Ok(respond(StatusCode::OK, &explain::render(&told)))
    }

    /// Tells of the store from a thread that may block, as fast as it is listened to.
    /// Dropped half-way, nothing is told.
    async fn tell(&self, topic: Topic, question: Question) -> Result<Response<Answer>, AdminError> {
        let permits = match topic {
            Topic::Verify => &self.verifications,
            Topic::Export | Topic::List | Topic::Stat => &self.tellings,
        };
        let permit = Arc::clone(permits).try_acquire_owned();
        let permit = permit.map_err(|_| AdminError::Busy)?;
        let (engine, meant) = (Arc::clone(&self.engine), question.store.clone());
        // A disk that hangs may be asked; nobody else is to wait for it.
        let found = tokio::task::spawn_blocking(move || engine.catalog(meant.as_deref()));
        let found = found.await.map_err(|_| AdminError::Busy)?;
        let catalog = found.ok_or(AdminError::OtherStore)?;
        let (telling, answer) = Telling::new();
        // The running store has requests to serve as well.
        let rate = question.bytes_per_second.or(Some(VERIFY_BYTES_PER_SECOND));
        let question = Question {
            bytes_per_second: rate,
            ..question
        };
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            telling.run(&catalog, topic, &question);
        });
        let content_type = match topic {
            Topic::Export => "application/octet-stream",
            Topic::List | Topic::Stat | Topic::Verify => "application/x-ndjson",
        };
        Ok(build(StatusCode::OK, content_type, answer))
    }

    async fn purge(&self, purge: Purge) -> Result<Response<Answer>, AdminError> {
        let items = purge.what.len();
        let kind = match purge.what.first() {
            Some(What::All) => "all",
            Some(_) | None => "url",
        };
        let receipt = self.engine.purge(purge).await?;
        tracing::info!(kind, items, sequence = receipt.sequence.0, "purged");
        Ok(respond(
            StatusCode::OK,
            &render_receipt(&receipt, kind, items),
        ))
    }

    /// Has the config read again and says what came of it. Dropped half-way, it goes on.
    async fn reload(&self) -> Result<Response<Answer>, AdminError> {
        let told = self.reloads.ask().ok_or(AdminError::Unreloadable)?;
        match timeout(RELOAD_WAIT, told).await {
            Err(_) => Err(AdminError::ReloadLate),
            Ok(Err(_)) => Err(AdminError::Unreloadable),
            Ok(Ok(Ok(changes))) => Ok(respond(StatusCode::OK, &json!({"reloaded": changes}))),
            Ok(Ok(Err(problems))) => {
                let error = "the config was not taken up: nothing has changed";
                let body = json!({"error": error, "problems": problems});
                Ok(respond(StatusCode::UNPROCESSABLE_ENTITY, &body))
            }
        }
    }

    fn ready(&self) -> Response<Answer> {
        if self.draining.load(Ordering::Relaxed) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let stats = self.engine.stats();
        if self.engine.ready() {
            // Others serve in its place: traffic may come.
            let out = stats.dirs.iter().filter_map(|dir| {
                let reason = dir.out.as_deref()?;
                Some(format!(
                    "degraded: {} is out: {reason}\n",
                    dir.path.display()
                ))
            });
            return text(
                StatusCode::OK,
                &format!("ready\n{}", out.collect::<String>()),
            );
        }
        let reason = match stats.pass_through {
            Some(reason) => format!("the store passes through: {reason}\n"),
            None => "not ready\n".to_owned(),
        };
        text(StatusCode::SERVICE_UNAVAILABLE, &reason)
    }
}

impl Token {
    /// Makes a token of a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(Secret::new(secret))
    }

    /// Reads a token from a file; white space around it does not count.
    pub fn read(file: &Path) -> Result<Self, AdminError> {
        Ok(Self::new(Self::read_secret(file)?.as_bytes()))
    }

    /// Reads the secret itself, for those who must send it.
    pub fn read_secret(file: &Path) -> Result<String, AdminError> {
        let text = fs::read_to_string(file).map_err(|source| AdminError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        let bad = |reason| AdminError::BadToken {
            file: file.to_owned(),
            reason,
        };
        match text.trim() {
            "" => Err(bad("is empty")),
            token if token.len() > TOKEN_BYTES_MAX => Err(bad("is too long for a token")),
            token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.to_owned()),
            _ => Err(bad("must hold one word of printable ASCII")),
        }
    }

    /// Compares a presented secret with this one, in constant time.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.matches(presented)
    }

    /// The secret, for what else it opens.
    pub fn into_secret(self) -> Secret {
        self.0
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Ask {
    /// Finds out what a request head asks for.
    fn read(parts: &Parts) -> Result<Self, AdminError> {
        if parts.method.as_str() == "PURGE" {
            return Ok(Self::PurgeUrl(url_of(parts)?));
        }
        let (ask, allow) = match parts.uri.path() {
            "/certificates" => (Self::Certificates, READ),
            "/explain" => (Self::Explain, "POST"),
            "/healthz" => (Self::Health, READ),
            "/purge" => (Self::PurgeBody, "POST"),
            "/readyz" => (Self::Ready, READ),
            "/reload" => (Self::Reload, "POST"),
            "/stats" => (Self::Stats, READ),
            "/store/export" => (Self::Store(Topic::Export), "POST"),
            "/store/list" => (Self::Store(Topic::List), "POST"),
            "/store/stat" => (Self::Store(Topic::Stat), "POST"),
            "/store/verify" => (Self::Store(Topic::Verify), "POST"),
            _ => return Err(AdminError::NotFound),
        };
        let method = &parts.method;
        let read = matches!(*method, Method::GET | Method::HEAD);
        if (read && allow == READ) || method.as_str() == allow {
            return Ok(ask);
        }
        Err(AdminError::Method { allow })
    }
}

impl AdminError {
    fn respond(&self) -> Response<Answer> {
        let status = match self {
            Self::Body | Self::Malformed(_) | Self::Unanswerable(_) => StatusCode::BAD_REQUEST,
            Self::BadToken { .. } | Self::Store(_) | Self::Unreadable { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Busy | Self::BusyExplaining | Self::ReloadLate | Self::Unreloadable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound | Self::Purge(PurgeError::NoSite(_)) => StatusCode::NOT_FOUND,
            Self::Purge(_) => StatusCode::BAD_REQUEST,
            Self::OtherStore => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
        };
        let mut response = respond(status, &json!({"error": self.to_string()}));
        let headers = response.headers_mut();
        if let Self::Method { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if matches!(self, Self::Unauthorised) {
            let scheme = HeaderValue::from_static("Bearer realm=\"larder\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Checks that the sender may do more than ask for health.
fn authorise(headers: &HeaderMap, token: Option<&Token>) -> Result<(), AdminError> {
    let Some(token) = token else {
        // Browsers put Origin on every request that a page sends elsewhere with an effect.
        return match headers.contains_key(header::ORIGIN) {
            true => Err(AdminError::ForeignOrigin),
            false => Ok(()),
        };
    };
    let value = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let Some((scheme, secret)) = value.split_at_checked(BEARER.len()) else {
        return Err(AdminError::Unauthorised);
    };
    match scheme.eq_ignore_ascii_case(BEARER) && token.matches(secret.trim_ascii()) {
        true => Ok(()),
        false => Err(AdminError::Unauthorised),
    }
}

/// Finds the URL of a `PURGE` request: its target when absolute, else from Host and path.
fn url_of(parts: &Parts) -> Result<String, AdminError> {
    if parts.uri.scheme().is_some() {
        return Ok(parts.uri.to_string());
    }
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    match (host, parts.uri.path_and_query()) {
        (Some(host), Some(path)) if !host.is_empty() => Ok(format!("http://{host}{path}")),
        _ => Err(AdminError::Malformed(
            "PURGE needs a host and a path".to_owned(),
        )),
    }
}

/// Reads a body up to the limit.
async fn collect<B>(body: B) -> Result<Bytes, AdminError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::TooLarge),
        Err(_) => Err(AdminError::Body),
    }
}

/// Reads the JSON of a purge.
fn read_purge(body: &[u8]) -> Result<Purge, AdminError> {
    let malformed = |reason: &str| Err(AdminError::Malformed(reason.to_owned()));
    let body: PurgeBody = serde_json::from_slice(body)
        .map_err(|error| AdminError::Malformed(format!("not a purge: {error}")))?;
    let (what, manner) = (body.what(), body.manner());
    match (body.all, what.is_empty()) {
        (Some(false), _) => malformed("all can only be true"),
        (Some(true), false) => malformed("give items or all, not both"),
        (None, true) => malformed("give items or all"),
        (Some(true), true) => Ok(Purge {
            what: vec![What::All],
            manner,
        }),
        (None, false) => Ok(Purge { what, manner }),
    }
}

impl PurgeBody {
    fn what(&self) -> Vec<What> {
        let each = |list: &Option<Vec<String>>| list.clone().into_iter().flatten();
        let site = &self.site;
        let tag = |text| What::Tag {
            site: site.clone(),
            text,
        };
        let regex = |text| What::Regex {
            site: site.clone(),
            text,
        };
        each(&self.urls)
            .map(What::Url)
            .chain(each(&self.tags).map(tag))
            .chain(each(&self.prefixes).map(What::Prefix))
            .chain(each(&self.hosts).map(What::Host))
            .chain(each(&self.regexes).map(regex))
            .chain(each(&self.sites).map(What::Site))
            .collect()
    }

    fn manner(&self) -> Manner {
        match self.soft {
            true => Manner::Soft,
            false => Manner::Hard,
        }
    }
}

fn urls(urls: Vec<String>) -> Purge {
    Purge {
        what: urls.into_iter().map(What::Url).collect(),
        manner: Manner::Hard,
    }
}

/// Reads the JSON of a question about the store; nothing at all asks for everything.
fn read_question(body: &[u8]) -> Result<Question, AdminError> {
    if body.trim_ascii().is_empty() {
        return Ok(Question::default());
    }
    let malformed = |error: String| AdminError::Malformed(format!("not a question: {error}"));
    let question: Question =
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    match question.selected() {
        Ok(_) => Ok(question),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// A receipt as JSON; the names are an interface.
#[derive(Serialize)]
struct ReceiptJson<'k> {
    id: String,
    sequence: u64,
    kind: &'k str,
    items: usize,
    entries: Option<u64>,
    at: String,
    durable: bool,
}

fn render_receipt(receipt: &Receipt, kind: &str, items: usize) -> String {
    let receipt = ReceiptJson {
        id: format!("p-{}", receipt.sequence.0),
        sequence: receipt.sequence.0,
        kind,
        items,
        entries: receipt.entries,
        at: humantime::format_rfc3339_millis(receipt.at).to_string(),
        durable: receipt.durable,
    };
    // No key or value of these types can fail to serialise.
    serde_json::to_string(&receipt).unwrap_or_default()
}

fn respond(status: StatusCode, body: &impl fmt::Display) -> Response<Answer> {
    build(
        status,
        "application/json",
        Answer::from(format!("{body}\n")),
    )
}

fn text(status: StatusCode, body: &str) -> Response<Answer> {
    let body = Answer::from(body.to_owned());
    build(status, "text/plain; charset=utf-8", body)
}

fn build(status: StatusCode, content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Largest accepted body; a thousand URLs of a kilobyte.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Who asks for a reload hears of it within this time.
const RELOAD_WAIT: Duration = Duration::from_secs(25);
/// What a verification reads a second, unless it is told otherwise.
const VERIFY_BYTES_PER_SECOND: u64 = 64 << 20;
/// Tellings at a time: each keeps a thread and a few parts of a body.
const TELLINGS_MAX: usize = 4;
/// Most explanations at a time.
const EXPLANATIONS_MAX: usize = 8;
/// Longest accepted token.
const TOKEN_BYTES_MAX: usize = 4096;
const BEARER: &[u8] = b"bearer ";
const READ: &str = "GET, HEAD";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::address::Sequence;
    use http_body_util::Full;
    use std::time::Duration;
    use std::time::SystemTime;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn bearing(value: &str) -> HeaderMap {
        parts(Request::get("/").header("authorization", value)).headers
    }

    #[test]
    fn only_the_right_token_matches() {
        let token = Token::new(b"s3cret");
        assert!(token.matches(b"s3cret"));
        for wrong in ["", "s3cre", "s3cret ", "S3cret", "s3cret-and-more"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_token_never_shows_itself() {
        let printed = format!("{:?}", Token::new(b"s3cret"));
        assert_eq!(printed, "Token(Secret(…))");
    }

    #[test]
    fn a_token_is_taken_from_a_bearer_field() {
        let token = Token::new(b"s3cret");
        assert!(authorise(&bearing("Bearer s3cret"), Some(&token)).is_ok());
        assert!(authorise(&bearing("bearer  s3cret"), Some(&token)).is_ok());
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer x",
            "Basic s3cret",
            "s3cret",
            "",
        ] {
            assert!(authorise(&bearing(wrong), Some(&token)).is_err(), "{wrong}");
        }
        assert!(authorise(&HeaderMap::new(), Some(&token)).is_err());
    }

    #[test]
    fn without_a_token_only_web_pages_are_refused() {
        assert!(authorise(&HeaderMap::new(), None).is_ok());
        let page = parts(Request::post("/purge").header("origin", "http://evil.example"));
        assert!(matches!(
            authorise(&page.headers, None),
            Err(AdminError::ForeignOrigin)
        ));
    }

    #[test]
    fn a_refusal_for_want_of_a_token_says_which_scheme() {
        let response = AdminError::Unauthorised.respond();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=\"larder\""
        );
    }

    #[test]
    fn token_files_hold_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "  s3cret\n").unwrap();
        assert!(Token::read(&file).unwrap().matches(b"s3cret"));
        for bad in ["", "\n", "two words", "schl\u{fc}ssel"] {
            fs::write(&file, bad).unwrap();
            assert!(Token::read(&file).is_err(), "{bad}");
        }
        assert!(Token::read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_purge_names_urls_or_everything() {
        let urls = urls(vec!["http://a/".to_owned()]);
        assert_eq!(read_purge(br#"{"urls": ["http://a/"]}"#).unwrap(), urls);
        let all = read_purge(br#"{"all": true}"#).unwrap();
        assert_eq!(all.what, [What::All]);
    }

    #[test]
    fn anything_else_is_no_purge() {
        let cases: [&[u8]; 9] = [
            b"",
            b"{}",
            b"[]",
            b"{\"all\": false}",
            b"{\"urls\": []}",
            b"{\"urls\": \"a\"}",
            b"{\"urls\": [\"a\"], \"all\": true}",
            b"{\"all\": true} x",
            b"\xff",
        ];
        for case in cases {
            assert!(
                matches!(read_purge(case), Err(AdminError::Malformed(_))),
                "{case:?}"
            );
        }
    }

    #[test]
    fn a_question_is_json_or_nothing() {
        assert_eq!(read_question(b" \n").unwrap().from, 0);
        assert_eq!(read_question(br#"{"from": 7}"#).unwrap().from, 7);
        for case in [
            &b"x"[..],
            b"7",
            br#"{"from": -1}"#,
            br#"{"keys": ["x"]}"#,
            b"{\"a\":1}",
        ] {
            let refused = read_question(case);
            assert!(matches!(refused, Err(AdminError::Malformed(_))), "{case:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = read_purge(br#"{"al": true}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `al`"), "{error}");
    }

    #[test]
    fn requests_find_their_answers() {
        let ask = |request| Ask::read(&parts(request));
        assert_eq!(ask(Request::get("/stats")).unwrap(), Ask::Stats);
        let certificates = ask(Request::get("/certificates")).unwrap();
        assert_eq!(certificates, Ask::Certificates);
        assert_eq!(ask(Request::head("/healthz?x")).unwrap(), Ask::Health);
        assert_eq!(ask(Request::post("/purge")).unwrap(), Ask::PurgeBody);
        let list = ask(Request::post("/store/list")).unwrap();
        assert_eq!(list, Ask::Store(Topic::List));
        assert!(ask(Request::get("/store/list")).is_err());
        assert!(matches!(ask(Request::get("/")), Err(AdminError::NotFound)));
        let error = ask(Request::get("/purge")).unwrap_err();
        assert_eq!(error.respond().headers()["allow"], "POST");
        let error = ask(Request::delete("/stats")).unwrap_err();
        assert_eq!(error.respond().status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_purge_method_names_its_url_either_way() {
        let purge = |uri: &str| Request::builder().method("PURGE").uri(uri);
        let url = |request| Ask::read(&parts(request));
        let expected = Ask::PurgeUrl("http://a.example/x?y".to_owned());
        assert_eq!(url(purge("http://a.example/x?y")).unwrap(), expected);
        assert_eq!(
            url(purge("/x?y").header("host", "a.example")).unwrap(),
            expected
        );
        assert!(url(purge("/x?y")).is_err());
    }

    #[test]
    fn a_receipt_says_what_when_and_how_durably() {
        let receipt = Receipt {
            sequence: Sequence(7),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            entries: Some(2),
            durable: true,
        };
        assert_eq!(
            render_receipt(&receipt, "url", 1),
            r#"{"id":"p-7","sequence":7,"kind":"url","items":1,"entries":2,"at":"1970-01-01T00:00:01.500Z","durable":true}"#
        );
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let body = Full::from(vec![b' '; BODY_BYTES_MAX + 1]);
        assert!(matches!(
            runtime.block_on(collect(body)),
            Err(AdminError::TooLarge)
        ));
    }
}
