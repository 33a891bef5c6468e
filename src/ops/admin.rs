//! The admin listener's handler: purging, counters, health.
//!
//! ```text
//! POST  /purge, GET /purges, PURGE, BAN, …   what is purged, and was, see `purges`
//! GET   /stats     counters and sizes as JSON
//! POST  /explain   a request  ─► what would become of it now, and why; see [`explain`](super::explain)
//! GET   /          the dashboard, see `page`; its files need no token
//! GET   /live      what goes on now, see `picture`
//! GET   /metrics   the same and more, for Prometheus: text, or OpenMetrics for whoever accepts it
//! GET   /certificates   every certificate, and every name that one is obtained for, as JSON
//! POST  /store/stat | list | verify | export   what is stored, see `inventory`  ─► told piece by piece
//! POST  /reload    reads the config again  ─► what has changed, or 422 with everything that is wrong
//! GET   /openapi.json   all of this for machines, as OpenAPI 3.1
//! GET   /healthz   200 while the process answers
//! GET   /readyz    200, or 503 with the reason why no traffic should come
//! ```
//!
//! With a token, everything but the two health questions needs `Authorization: Bearer TOKEN`, or the
//! token in one of the fields that clients of others put theirs in.
//! Without one (only on a loopback listener) a request that another's web page sent is refused, see
//! `browser`, so a browser on the same machine cannot be tricked into purging, or into telling what is
//! stored: that is asked for by POST, because with a GET a browser need not say where it comes from.

use super::answer::Answer;
use super::answer::Telling;
use super::browser;
use super::explain;
use super::inventory;
use super::inventory::Question;
use super::inventory::Topic;
use super::live::Live;
use super::metrics::Certificates;
use super::metrics::Metrics;
use super::metrics::exposition::Form;
use super::openapi;
use super::page::Asset;
use super::picture;
use super::picture::Picture;
use super::purges::Accent;
use super::purges::Wish;
use super::purges::object;
use super::reload::Reloads;
use crate::clock;
use crate::flow::Engine;
use crate::flow::PurgeError;
use crate::flow::StoreError;
use crate::flow::dialect::Misspoken;
use crate::flow::explain::Unanswerable;
use crate::rules::secret::Secret;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
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
use serde_json::Value;
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
    seen: Seen,
    reloads: Reloads,
    token: ArcSwapOption<Token>,
    draining: AtomicBool,
    /// One permit a telling of the store; verifications have their own.
    tellings: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    explanations: Semaphore,
}

/// What is seen of the process beside the engine.
pub struct Seen {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What requests are for.
    pub live: Arc<Live>,
    /// What TLS listeners show.
    pub certificates: Look,
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
    #[error("requests from other web pages need a token")]
    ForeignOrigin,
    /// The JSON, or a parameter, is not what it must be.
    #[error("{0}")]
    Malformed(String),
    /// Another method is needed.
    #[error("only {allow} is possible here")]
    Method {
        /// The methods that are possible.
        allow: &'static str,
    },
    /// A purge in the words of others that cannot be done.
    #[error(transparent)]
    Misspoken(#[from] Misspoken),
    /// No purge goes by this, or it was too long ago.
    #[error("there is no such receipt, or no longer")]
    NoReceipt,
    /// No such resource.
    #[error("there is no such resource; /openapi.json lists all")]
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
    Live,
    Metrics,
    OpenApi,
    Page(&'static Asset),
    Purges(Wish),
    Ready,
    Reload,
    Stats,
    Store(Topic),
}

impl Admin {
    /// Makes the handler.
    pub fn new(engine: Arc<Engine>, seen: Seen, reloads: Reloads, token: Option<Token>) -> Self {
        Self {
            engine,
            seen,
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
            Err(error) => error.respond(Accent::of(parts.uri.path())),
        }
    }

    async fn answer<B>(&self, parts: &Parts, body: B) -> Result<Response<Answer>, AdminError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ask = Ask::read(parts)?;
        if !matches!(ask, Ask::Health | Ask::Page(_) | Ask::Ready) {
            let token = self.token.load();
            authorise(&parts.headers, token.as_deref())?;
            // A page that may not read another's answers may read those it thinks are its own.
            if ask == Ask::Live && token.is_none() && browser::is_by_name(&parts.headers) {
                return Err(AdminError::ForeignOrigin);
            }
        }
        match ask {
            Ask::Certificates => {
                let certificates = (self.seen.certificates)().render(clock::now());
                Ok(respond(StatusCode::OK, &certificates))
            }
            Ask::Explain => self.explain(&collect(body).await?).await,
            Ask::Health => Ok(text(StatusCode::OK, "ok\n")),
            Ask::Live => {
                let (seen, now) = (&self.seen, clock::now());
                let picture = Picture::new(&seen.live, &seen.metrics, &self.engine, now);
                Ok(respond(StatusCode::OK, &json!(picture)))
            }
            Ask::Metrics => {
                let form = Form::chosen_by(&parts.headers);
                let (sizes, certificates) = (self.engine.stats(), (self.seen.certificates)());
                let curve = self.seen.live.curve();
                let metrics = &self.seen.metrics;
                let page = metrics.expose(form, &sizes, &certificates, &curve);
                Ok(build(StatusCode::OK, form.content_type(), page.into()))
            }
            Ask::Page(asset) => Ok(asset.respond()),
            Ask::OpenApi => Ok(respond(StatusCode::OK, &openapi::DOCUMENT)),
            Ask::Purges(wish) => {
                let body = collect(body).await?;
                wish.answer(&self.engine, parts, &body).await
            }
            Ask::Ready => Ok(self.ready()),
            Ask::Reload => self.reload().await,
            Ask::Stats => {
                let (sizes, certificates) = (self.engine.stats(), (self.seen.certificates)());
                let metrics = &self.seen.metrics;
                let mut stats = metrics.render(&sizes, &certificates, clock::now());
                if let Value::Object(stats) = &mut stats {
                    let curve = json!(picture::Curve::new(&self.seen.live));
                    stats.insert("curve".to_owned(), curve);
                }
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
        if let Some(wish) = Wish::read(parts) {
            return wish.map(Self::Purges);
        }
        let (ask, allow) = match parts.uri.path() {
            "/certificates" => (Self::Certificates, READ),
            "/explain" => (Self::Explain, "POST"),
            "/healthz" => (Self::Health, READ),
            "/live" => (Self::Live, READ),
            "/metrics" => (Self::Metrics, READ),
            "/openapi.json" => (Self::OpenApi, READ),
            "/readyz" => (Self::Ready, READ),
            "/reload" => (Self::Reload, "POST"),
            "/stats" => (Self::Stats, READ),
            "/store/export" => (Self::Store(Topic::Export), "POST"),
            "/store/list" => (Self::Store(Topic::List), "POST"),
            "/store/stat" => (Self::Store(Topic::Stat), "POST"),
            "/store/verify" => (Self::Store(Topic::Verify), "POST"),
            path => match Asset::at(path) {
                Some(asset) => (Self::Page(asset), READ),
                None => return Err(AdminError::NotFound),
            },
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
    fn respond(&self, accent: Accent) -> Response<Answer> {
        let status = match self {
            Self::Body | Self::Malformed(_) | Self::Misspoken(_) | Self::Unanswerable(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::BadToken { .. } | Self::Store(_) | Self::Unreadable { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Busy | Self::BusyExplaining | Self::ReloadLate | Self::Unreloadable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ForeignOrigin => StatusCode::FORBIDDEN,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoReceipt | Self::NotFound | Self::Purge(PurgeError::NoSite(_)) => {
                StatusCode::NOT_FOUND
            }
            Self::Purge(PurgeError::PatternsFull(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Purge(_) => StatusCode::BAD_REQUEST,
            Self::OtherStore => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
        };
        let mut response = respond(status, &accent.error(status, self));
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
        return match browser::is_foreign(headers) {
            true => Err(AdminError::ForeignOrigin),
            false => Ok(()),
        };
    };
    let field = |name| headers.get(name).map(HeaderValue::as_bytes);
    let bearer = field(header::AUTHORIZATION).and_then(|value| {
        let (scheme, secret) = value.split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER).then_some(secret)
    });
    let secret = bearer.or_else(|| TOKEN_FIELDS.iter().find_map(|name| field(name.clone())));
    match secret.is_some_and(|secret| token.matches(secret.trim_ascii())) {
        true => Ok(()),
        false => Err(AdminError::Unauthorised),
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

/// Reads the JSON of a question about the store; nothing at all asks for everything.
fn read_question(body: &[u8]) -> Result<Question, AdminError> {
    if body.trim_ascii().is_empty() {
        return Ok(Question::default());
    }
    let malformed = |error: String| AdminError::Malformed(format!("not a question: {error}"));
    let question: Question = object(body).map_err(malformed)?;
    match question.selected() {
        Ok(_) => Ok(question),
        Err(error) => Err(malformed(error.to_string())),
    }
}

pub(super) fn respond(status: StatusCode, body: &impl fmt::Display) -> Response<Answer> {
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

pub(super) fn build(
    status: StatusCode,
    content_type: &'static str,
    body: Answer,
) -> Response<Answer> {
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
/// Where clients of Fastly and Cloudflare put their token.
const TOKEN_FIELDS: [HeaderName; 2] = [
    HeaderName::from_static("fastly-key"),
    HeaderName::from_static("x-auth-key"),
];
pub(super) const READ: &str = "GET, HEAD";

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

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
    fn a_token_is_taken_from_the_fields_of_others() {
        let token = Token::new(b"s3cret");
        for field in ["Fastly-Key", "X-Auth-Key"] {
            let with = |value: &str| parts(Request::get("/").header(field, value)).headers;
            assert!(authorise(&with("s3cret"), Some(&token)).is_ok(), "{field}");
            assert!(authorise(&with("s3cre"), Some(&token)).is_err(), "{field}");
            assert!(authorise(&with(""), Some(&token)).is_err(), "{field}");
        }
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
        let response = AdminError::Unauthorised.respond(Accent::Own);
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
    fn requests_find_their_answers() {
        let ask = |request| Ask::read(&parts(request));
        assert_eq!(ask(Request::get("/stats")).unwrap(), Ask::Stats);
        assert_eq!(ask(Request::get("/live")).unwrap(), Ask::Live);
        assert!(matches!(ask(Request::get("/")).unwrap(), Ask::Page(_)));
        let certificates = ask(Request::get("/certificates")).unwrap();
        assert_eq!(certificates, Ask::Certificates);
        assert_eq!(ask(Request::head("/healthz?x")).unwrap(), Ask::Health);
        assert_eq!(
            ask(Request::post("/purge")).unwrap(),
            Ask::Purges(Wish::Body)
        );
        let list = ask(Request::post("/store/list")).unwrap();
        assert_eq!(list, Ask::Store(Topic::List));
        assert!(ask(Request::get("/store/list")).is_err());
        assert!(matches!(
            ask(Request::get("/nothing")),
            Err(AdminError::NotFound)
        ));
        let refused = |request| ask(request).unwrap_err().respond(Accent::Own);
        assert_eq!(refused(Request::get("/purge")).headers()["allow"], "POST");
        let refused = refused(Request::delete("/stats"));
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
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
