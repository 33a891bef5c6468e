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

/// Answers a request from the folder. A folder that cannot be opened is a failure to connect;
/// everything below that is a response.
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
        reason: match error.kind() {
            io::ErrorKind::NotFound => ConnectFailure::Other(Arc::from("no such folder")),
            _ => ConnectFailure::from(&error),
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
    /// Looks the path up; fails only when the folder itself cannot be opened.
    fn visit(&self) -> io::Result<Found> {
        let root = self.folder.root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let found = parts(&self.path).map_or(Ok(Found::Nothing), |parts| self.look(&root, &parts));
        Ok(found.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Found::Unreadable,
            _ => Found::Nothing,
        }))
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
/// Bytes read at a time.
const PIECE_BYTES: u64 = 256 * 1024;
/// 9999-12-31T23:59:59Z plus one, in seconds since 1970: HTTP dates have four digits for the year.
const SECONDS_MAX: u64 = 253_402_300_800;
