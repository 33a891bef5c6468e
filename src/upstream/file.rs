//! A folder served as an origin: content types, validators, no way out of the folder.
//!
//! A path is split at its slashes, each part is percent-decoded once, and the parts are joined to
//! the folder. What can name anything but a plain entry is not found: `..`, a leading dot, a
//! slash, backslash or NUL that was encoded. Symbolic links are followed while they stay inside.
//!
//! Finding, opening and reading the first piece is one visit to the blocking threads, so a small
//! file costs one. Whether the response may be stored is said by its Cache-Control and left to
//! `rules`; ranges are cut by `flow` from the whole.

use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body::Frame;
use percent_encoding::percent_decode_str;
use tokio::task::JoinHandle;

use super::Body;
use super::ConnectFailure;
use super::UpstreamError;

/// A folder that is served.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Names a folder; looks at nothing yet, so it may come into being later.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

/// Answers a request from the folder. What is missing or forbidden in it is a response; a folder
/// that is missing, or a system that fails, is a failure to connect.
pub(crate) async fn respond(
    folder: &Arc<Folder>,
    name: &str,
    request: &Parts,
) -> Result<Response<Body>, UpstreamError> {
    let head_only = request.method == Method::HEAD;
    if !head_only && request.method != Method::GET {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "no-store");
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return Ok(response);
    }
    let target = Target {
        folder: Arc::clone(folder),
        path: String::from(request.uri.path()),
        conditions: Conditions::read(&request.headers),
        head_only,
    };
    let visit = tokio::task::spawn_blocking(move || target.visit());
    let found = visit
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    let found = found.map_err(|error| UpstreamError::Connect {
        address: String::from(name),
        reason: if error.kind() == io::ErrorKind::NotFound {
            ConnectFailure::Other(Arc::from("no such folder"))
        } else {
            ConnectFailure::from(&error)
        },
    })?;
    let mut response = match found {
        Found::Nothing => refusal(StatusCode::NOT_FOUND, REFUSAL_CACHE_CONTROL),
        Found::Unreadable => refusal(StatusCode::FORBIDDEN, REFUSAL_CACHE_CONTROL),
        Found::Folder => moved(&request.uri),
        Found::Unchanged(about) => described(StatusCode::NOT_MODIFIED, &about, Body::empty()),
        Found::File(about, body) => described(StatusCode::OK, &about, body),
    };
    if head_only {
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

/// What is asked for, ready to be taken to a blocking thread.
struct Target {
    folder: Arc<Folder>,
    path: String,
    conditions: Conditions,
    head_only: bool,
}

/// What a path leads to.
enum Found {
    Nothing,
    Unreadable,
    /// A folder whose path lacks the last slash.
    Folder,
    /// The client has it already.
    Unchanged(About),
    File(About, Body),
}

impl Target {
    /// Looks the path up; fails when the folder is missing, or when the system does.
    fn visit(&self) -> io::Result<Found> {
        let root = self.folder.root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(parts) = parts(&self.path) else {
            return Ok(Found::Nothing);
        };
        match self.look(&root, &parts) {
            Err(error) if names_nothing(&error) => Ok(Found::Nothing),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Found::Unreadable),
            found => found,
        }
    }

    fn look(&self, root: &Path, parts: &[String]) -> io::Result<Found> {
        let path = inside(
            root,
            &parts
                .iter()
                .fold(root.to_owned(), |path, part| path.join(part)),
        )?;
        let as_folder = self.path.ends_with('/');
        let path = match (path.is_dir(), as_folder) {
            (true, false) => return Ok(Found::Folder),
            (true, true) => inside(root, &path.join(INDEX))?,
            (false, true) => return Ok(Found::Nothing),
            (false, false) => path,
        };
        // A pipe or a device would block when it is opened.
        if !path.metadata()?.is_file() {
            return Ok(Found::Nothing);
        }
        let file = File::open(&path)?;
        let about = About::new(&path, &file.metadata()?)?;
        if self.conditions.unchanged(&about) {
            return Ok(Found::Unchanged(about));
        }
        if self.head_only || about.length == 0 {
            return Ok(Found::File(about, Body::empty()));
        }
        let (first, file) = piece(file, about.length);
        let body = match first {
            Ok(first) if u64::try_from(first.len()) == Ok(about.length) => Body::bytes(first),
            first => Body::file(Reader::new(file, about.length, first)),
        };
        Ok(Found::File(about, body))
    }
}

/// Splits and decodes a path; `None` when a part could name anything but a plain, visible entry.
fn parts(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(part).collect()
}

fn part(encoded: &str) -> Option<String> {
    let part = percent_decode_str(encoded).decode_utf8().ok()?;
    let plain = !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
    plain.then(|| part.into_owned())
}

/// Follows links and makes sure that they lead to a visible place inside the root.
fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let target = path.canonicalize()?;
    let visible = target.strip_prefix(root).is_ok_and(|below| {
        below.components().all(|component| {
            matches!(component, Component::Normal(name)
                if !name.as_encoded_bytes().starts_with(b"."))
        })
    });
    if visible {
        Ok(target)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The path is at fault, not the system.
fn names_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    ) || error.raw_os_error() == Some(ELOOP)
}

/// What the head says about a file.
#[derive(Debug)]
struct About {
    length: u64,
    tag: String,
    content_type: String,
    /// Absent when the file's time has no HTTP date: before 1970 or after 9999.
    modified: Option<SystemTime>,
}

impl About {
    fn new(path: &Path, metadata: &Metadata) -> io::Result<Self> {
        let modified = metadata.modified()?;
        let since = modified.duration_since(UNIX_EPOCH);
        let nanoseconds = since.as_ref().map_or(0, Duration::as_nanos);
        let length = metadata.len();
        Ok(Self {
            length,
            tag: format!("\"{length:x}-{nanoseconds:x}\""),
            content_type: content_type(path),
            modified: since
                .is_ok_and(|since| since.as_secs() < SECONDS_MAX)
                .then_some(modified),
        })
    }
}

fn content_type(path: &Path) -> String {
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    if mime.type_() == mime_guess::mime::TEXT {
        format!("{mime}; charset=utf-8")
    } else {
        mime.to_string()
    }
}

/// The conditions of a request that a file can meet (RFC 9110 §13.1).
struct Conditions {
    none_match: Vec<HeaderValue>,
    modified_since: Option<SystemTime>,
}

impl Conditions {
    fn read(headers: &HeaderMap) -> Self {
        let since = headers
            .get(header::IF_MODIFIED_SINCE)
            .and_then(|value| value.to_str().ok());
        Self {
            none_match: headers
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .cloned()
                .collect(),
            modified_since: since.and_then(|date| httpdate::parse_http_date(date).ok()),
        }
    }

    /// The tag decides when there is one (RFC 9110 §13.2.2).
    fn unchanged(&self, about: &About) -> bool {
        if self.none_match.is_empty() {
            return match (self.modified_since, about.modified) {
                (Some(since), Some(modified)) => seconds(modified) <= seconds(since),
                _ => false,
            };
        }
        // Our tags have no commas, so a foreign tag cut at its comma cannot look like ours.
        self.none_match
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == b"*" || tag == about.tag.as_bytes())
    }
}

/// HTTP dates have whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn described(status: StatusCode, about: &About, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if status == StatusCode::OK {
        set(header::CONTENT_TYPE, &about.content_type);
        set(header::CONTENT_LENGTH, &about.length.to_string());
    }
    set(header::ETAG, &about.tag);
    if let Some(modified) = about.modified {
        set(header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
    set(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}

fn moved(uri: &http::Uri) -> Response<Body> {
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let location = format!("{}/{query}", uri.path());
    let mut response = refusal(StatusCode::MOVED_PERMANENTLY, CACHE_CONTROL);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A short answer in words.
fn refusal(status: StatusCode, cache_control: &'static str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = Bytes::from(format!("{} {reason}\n", status.as_str()));
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::bytes(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static(cache_control),
    );
    response
}

/// Reads a file piece by piece, never more than was announced.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Bytes still to be handed out.
    remaining: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A piece has been read.
    Ready(io::Result<Bytes>, File),
    /// A blocking thread reads the next.
    Reading(JoinHandle<(io::Result<Bytes>, File)>),
    Over,
}

impl Reader {
    fn new(file: File, length: u64, first: io::Result<Bytes>) -> Self {
        Self {
            remaining: length,
            stage: Stage::Ready(first, file),
        }
    }

    /// Bytes still to come.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Hands out the next piece; a file that has become shorter is incomplete.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let (piece, file) = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return Poll::Ready(None),
            Stage::Ready(piece, file) => (piece, file),
            Stage::Reading(mut reading) => match Pin::new(&mut reading).poll(context) {
                Poll::Pending => {
                    self.stage = Stage::Reading(reading);
                    return Poll::Pending;
                }
                Poll::Ready(Ok((piece, file))) => (piece, file),
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(UpstreamError::Incomplete))),
            },
        };
        let wanted = self.remaining.min(PIECE_BYTES);
        let piece = piece
            .ok()
            .filter(|piece| u64::try_from(piece.len()) == Ok(wanted));
        let Some(piece) = piece else {
            return Poll::Ready(Some(Err(UpstreamError::Incomplete)));
        };
        self.remaining = self.remaining.saturating_sub(wanted);
        if self.remaining > 0 {
            let remaining = self.remaining;
            // Read ahead by one piece while the reader is busy with this one.
            let reading = tokio::task::spawn_blocking(move || self::piece(file, remaining));
            self.stage = Stage::Reading(reading);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// Reads the next piece; a short one means that the file has ended.
fn piece(file: File, remaining: u64) -> (io::Result<Bytes>, File) {
    let wanted = remaining.min(PIECE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
    let read = (&file).take(wanted).read_to_end(&mut bytes);
    (read.map(|_| Bytes::from(bytes)), file)
}

/// The file that stands for a folder.
const INDEX: &str = "index.html";
/// What is said of files: shared caches may keep them for five minutes.
const CACHE_CONTROL: &str = "public, max-age=300";
/// What is said of entries that are missing or unreadable: they may appear soon.
const REFUSAL_CACHE_CONTROL: &str = "max-age=10";
/// Links that lead in a circle; the standard library's kind for it is not stable.
const ELOOP: i32 = 40;
/// Bytes read at a time.
const PIECE_BYTES: u64 = 256 * 1024;
/// 9999-12-31T23:59:59Z plus one, in seconds since 1970: HTTP dates have four digits for the year.
const SECONDS_MAX: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::Upstream;
    use super::super::script::*;
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A site: a page, a style, a folder with an index, a dotfile, and something outside.
    fn site() -> TempDir {
        let place = TempDir::new().unwrap();
        let root = place.path().join("site");
        fs::create_dir_all(root.join("sub/.git")).unwrap();
        fs::write(root.join("index.html"), "front").unwrap();
        fs::write(root.join("a page.txt"), "page").unwrap();
        fs::write(root.join("style.css"), "style").unwrap();
        fs::write(root.join("empty.bin"), "").unwrap();
        fs::write(root.join("sub/index.html"), "inner").unwrap();
        fs::write(root.join("sub/.git/config"), "secret").unwrap();
        fs::write(root.join(".env"), "secret").unwrap();
        fs::write(place.path().join("outside.txt"), "secret").unwrap();
        place
    }

    fn served(place: &TempDir) -> Upstream {
        folder(place.path().join("site"))
    }

    fn folder(path: PathBuf) -> Upstream {
        Upstream::new(super::super::Params {
            backends: vec![Backend::File(path)],
            ..params(0)
        })
    }

    async fn ask(place: &TempDir, method: &str, path: &str) -> Response<Body> {
        let sent = request(method, path);
        served(place).exchange(0, sent).await.unwrap()
    }

    async fn ask_if(place: &TempDir, field: &'static str, value: &HeaderValue) -> Response<Body> {
        let mut sent = request("GET", "/style.css");
        sent.headers_mut().insert(field, value.clone());
        served(place).exchange(0, sent).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_is_served_with_what_a_cache_wants_to_know() {
        let place = site();
        let response = ask(&place, "GET", "/style.css").await;
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/css; charset=utf-8");
        assert_eq!(headers["content-length"], "5");
        assert_eq!(headers["cache-control"], "public, max-age=300");
        assert!(headers["etag"].to_str().unwrap().starts_with("\"5-"));
        assert!(headers.contains_key("last-modified"));
        assert_eq!(response.body().length(), Some(5));
        assert!(response.body().framed());
        assert_eq!(read(response).await.unwrap(), "style");
    }

    #[tokio::test]
    async fn head_answers_like_get_without_the_body() {
        let place = site();
        let got = ask(&place, "GET", "/style.css").await;
        let headed = ask(&place, "HEAD", "/style.css").await;
        assert_eq!(got.headers(), headed.headers());
        assert_eq!(headed.body().length(), Some(0));
        assert_eq!(read(headed).await.unwrap(), "");
    }

    #[tokio::test]
    async fn other_methods_are_not_allowed() {
        let place = site();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PURGE"] {
            let response = ask(&place, method, "/style.css").await;
            assert_eq!(response.status(), 405);
            assert_eq!(response.headers()["allow"], "GET, HEAD");
        }
    }

    #[tokio::test]
    async fn paths_are_decoded_once() {
        let place = site();
        fs::write(place.path().join("site/50%25.txt"), "sign").unwrap();
        let response = ask(&place, "GET", "/a%20page.txt?version=2").await;
        assert_eq!(read(response).await.unwrap(), "page");
        let response = ask(&place, "GET", "/50%2525.txt").await;
        assert_eq!(read(response).await.unwrap(), "sign");
        assert_eq!(ask(&place, "GET", "/50%25.txt").await.status(), 404);
    }

    #[tokio::test]
    async fn a_folder_is_its_index() {
        let place = site();
        let front = ask(&place, "GET", "/").await;
        assert_eq!(read(front).await.unwrap(), "front");
        let inner = ask(&place, "GET", "/sub/").await;
        assert_eq!(inner.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(read(inner).await.unwrap(), "inner");
    }

    #[tokio::test]
    async fn a_folder_without_its_last_slash_is_moved_there() {
        let place = site();
        let response = ask(&place, "GET", "/sub?a=b").await;
        assert_eq!(response.status(), 301);
        assert_eq!(response.headers()["location"], "/sub/?a=b");
    }

    #[tokio::test]
    async fn what_is_missing_is_not_found_and_soon_asked_again() {
        let place = site();
        fs::create_dir(place.path().join("site/bare")).unwrap();
        let long = format!("/{}", "a".repeat(300));
        for path in ["/none", "/style.css/", "/style.css/more", "/bare/", &long] {
            let response = ask(&place, "GET", path).await;
            assert_eq!(response.status(), 404, "{path}");
            assert_eq!(response.headers()["cache-control"], "max-age=10");
            assert_eq!(read(response).await.unwrap(), "404 Not Found\n");
        }
    }

    #[tokio::test]
    async fn nothing_leads_out_of_the_folder_or_to_what_is_hidden() {
        let place = site();
        for path in [
            "/../outside.txt",
            "/%2e%2e/outside.txt",
            "/.%2e/outside.txt",
            "/..%2foutside.txt",
            "/sub/../../outside.txt",
            "/sub%2findex.html",
            "/sub%5cindex.html",
            "/..%5coutside.txt",
            "/style.css%00",
            "/style.css%00.txt",
            "/.env",
            "/%2eenv",
            "/sub/.git/config",
            "//outside.txt",
            "//style.css",
            "/./style.css",
            "/sub//index.html",
            "/%ff",
            "*",
        ] {
            let response = ask(&place, "GET", path).await;
            assert_eq!(response.status(), 404, "{path}");
        }
    }

    #[tokio::test]
    async fn links_are_followed_only_inside_and_to_what_is_visible() {
        let place = site();
        let root = place.path().join("site");
        symlink("../outside.txt", root.join("out.txt")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink(".env", root.join("env.txt")).unwrap();
        symlink("round.txt", root.join("round.txt")).unwrap();
        symlink("sub/index.html", root.join("in.html")).unwrap();
        for path in ["/out.txt", "/up/outside.txt", "/env.txt", "/round.txt"] {
            assert_eq!(ask(&place, "GET", path).await.status(), 404, "{path}");
        }
        let inside = ask(&place, "GET", "/in.html").await;
        assert_eq!(read(inside).await.unwrap(), "inner");
    }

    #[tokio::test]
    async fn a_folder_may_itself_be_a_link() {
        let place = site();
        let link = place.path().join("link");
        symlink("site", &link).unwrap();
        let served = folder(link);
        assert_eq!(get(&served, "/style.css").await.unwrap(), "style");
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_opened() {
        let place = site();
        let socket = place.path().join("site/socket");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        assert_eq!(ask(&place, "GET", "/socket").await.status(), 404);
    }

    #[tokio::test]
    async fn an_unreadable_file_is_forbidden() {
        let place = site();
        let path = place.path().join("site/style.css");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        let status = ask(&place, "GET", "/style.css").await.status();
        // The superuser reads everything.
        let privileged = File::open(&path).is_ok();
        assert_eq!(status, if privileged { 200 } else { 403 });
    }

    #[tokio::test]
    async fn a_missing_folder_is_a_failure_to_connect() {
        let place = site();
        let served = folder(place.path().join("none"));
        let error = get(&served, "/").await.unwrap_err();
        assert!(
            error.to_string().contains("/none: no such folder"),
            "{error}"
        );
        assert!(error.retry(false));
    }

    #[tokio::test]
    async fn a_client_that_has_the_file_is_told_so() {
        let place = site();
        let whole = ask(&place, "GET", "/style.css").await;
        let tag = whole.headers()["etag"].clone();
        let weak = format!("\"x,y\", W/{}", tag.to_str().unwrap());
        for condition in ["*", tag.to_str().unwrap(), &weak] {
            let condition = HeaderValue::from_str(condition).unwrap();
            let response = ask_if(&place, "if-none-match", &condition).await;
            assert_eq!(response.status(), 304, "{condition:?}");
            assert_eq!(response.headers()["etag"], tag);
            assert!(!response.headers().contains_key("content-length"));
            assert_eq!(read(response).await.unwrap(), "");
        }
        let modified = whole.headers()["last-modified"].clone();
        let response = ask_if(&place, "if-modified-since", &modified).await;
        assert_eq!(response.status(), 304);
    }

    #[tokio::test]
    async fn a_client_that_has_another_version_gets_this_one() {
        let place = site();
        let foreign = HeaderValue::from_static("\"5-0\", \"\"");
        let response = ask_if(&place, "if-none-match", &foreign).await;
        assert_eq!(response.status(), 200);
        let old = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        let response = ask_if(&place, "if-modified-since", &old).await;
        assert_eq!(response.status(), 200);
    }

    #[tokio::test]
    async fn the_tag_decides_over_the_date() {
        let place = site();
        let whole = ask(&place, "GET", "/style.css").await;
        let mut sent = request("GET", "/style.css");
        let headers = sent.headers_mut();
        headers.insert("if-none-match", HeaderValue::from_static("\"other\""));
        headers.insert(
            "if-modified-since",
            whole.headers()["last-modified"].clone(),
        );
        let response = served(&place).exchange(0, sent).await.unwrap();
        assert_eq!(response.status(), 200);
    }

    #[tokio::test]
    async fn a_change_of_the_same_length_changes_the_tag() {
        let place = site();
        let before = ask(&place, "GET", "/style.css").await;
        let file = File::options()
            .write(true)
            .open(place.path().join("site/style.css"))
            .unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_nanos(1))
            .unwrap();
        let after = ask(&place, "GET", "/style.css").await;
        assert_ne!(before.headers()["etag"], after.headers()["etag"]);
    }

    #[tokio::test]
    async fn a_file_from_before_all_dates_is_served_without_one() {
        let place = site();
        let file = File::options()
            .write(true)
            .open(place.path().join("site/style.css"))
            .unwrap();
        file.set_modified(UNIX_EPOCH - Duration::from_secs(9))
            .unwrap();
        let response = ask(&place, "GET", "/style.css").await;
        assert!(!response.headers().contains_key("last-modified"));
        assert_eq!(read(response).await.unwrap(), "style");
    }

    #[tokio::test]
    async fn an_empty_file_is_an_empty_body() {
        let place = site();
        let response = ask(&place, "GET", "/empty.bin").await;
        assert_eq!(response.headers()["content-length"], "0");
        assert_eq!(read(response).await.unwrap(), "");
    }

    fn large(place: &TempDir) -> (Vec<u8>, File) {
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let path = place.path().join("site/large.bin");
        fs::write(&path, &bytes).unwrap();
        (bytes, File::options().append(true).open(path).unwrap())
    }

    #[tokio::test]
    async fn a_large_file_comes_in_pieces() {
        let place = site();
        let (bytes, _) = large(&place);
        let response = ask(&place, "GET", "/large.bin").await;
        let mut body = response.into_body();
        let mut received = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(u64::try_from(piece.len()).unwrap() <= PIECE_BYTES);
            received.extend_from_slice(&piece);
        }
        assert!(received == bytes);
        assert!(http_body::Body::is_end_stream(&body));
    }

    #[tokio::test]
    async fn a_file_that_shrinks_while_it_is_read_is_incomplete() {
        let place = site();
        let (_, file) = large(&place);
        let response = ask(&place, "GET", "/large.bin").await;
        file.set_len(3_000_000).unwrap();
        assert_eq!(read(response).await, Err(UpstreamError::Incomplete));
    }

    #[tokio::test]
    async fn a_file_that_grows_while_it_is_read_ends_where_it_was_announced() {
        let place = site();
        let (bytes, mut file) = large(&place);
        let response = ask(&place, "GET", "/large.bin").await;
        file.write_all(b"more").unwrap();
        assert!(read(response).await.unwrap() == bytes);
    }

    proptest! {
        #[test]
        fn no_path_names_anything_but_plain_entries(path in "[/a.%25fec0\\\\]{0,12}") {
            for part in parts(&path).into_iter().flatten() {
                prop_assert!(!part.starts_with('.') && !part.is_empty());
                prop_assert!(!part.contains(['/', '\\', '\0']));
            }
        }
    }
}
