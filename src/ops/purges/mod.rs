//! Purges over the admin listener, in our own words and in those of others.
//!
//! ```text
//! POST  /purge            the items of one purge, see `body`                     ─► receipt
//! GET   /purges           the latest receipts, the newest first (`?limit=N`)
//! GET   /purges/ID        one receipt, with what was counted and refreshed since
//! PURGE, BAN, PURGEKEYS   in the words of Varnish, see `flow::dialect`           ─► receipt
//! POST  /service/ID/…     in those of Fastly, see `fastly`; POST /purge/HOST/PATH too
//! POST  /client/v4/zones/ID/purge_cache   in those of Cloudflare, see `cloudflare`
//! PURGE /souin-api/souin…                 in those of Souin, see `souin`
//! ```
//!
//! From a request that may purge, its head and its body; an error is told in the words that it was
//! asked in. What a purge does is left to `flow`, and who may ask to `admin`.

mod body;
mod cloudflare;
mod fastly;
mod souin;

use super::admin::AdminError;
use super::admin::READ;
use super::admin::build;
use super::admin::respond;
use super::answer::Answer;
use crate::flow::Engine;
use crate::flow::Manner;
use crate::flow::Purge;
use crate::flow::Receipt;
use crate::flow::RefreshProgress;
use crate::flow::TOLD_MAX;
use crate::flow::Told;
use crate::flow::dialect;
use crate::flow::dialect::Spoken;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// What a request wants of purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A purge, by its body.
    Body,
    /// A purge, as Cloudflare has it; the zone.
    Cloudflare(String),
    /// A purge, as Fastly has it.
    Fastly(fastly::Wish),
    /// So many of the latest receipts.
    History(usize),
    /// The receipt that goes by this.
    One(String),
    /// A purge, as Souin has it.
    Souin(souin::Wish),
    /// A purge, as Varnish's configurations have it.
    Spoken,
}

/// The words that an answer is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accent {
    Cloudflare,
    Fastly,
    Own,
}

impl Wish {
    /// Finds out what a request head wants; `None` when it is not about purges.
    pub(super) fn read(parts: &Parts) -> Option<Result<Self, AdminError>> {
        let path = parts.uri.path();
        if let Some(rest) = souin::path(path) {
            return Some(souin::Wish::read(&parts.method, rest).map(Self::Souin));
        }
        if dialect::is_spoken(&parts.method) {
            return Some(Ok(Self::Spoken));
        }
        if let Some(zone) = cloudflare::zone(path) {
            let wish = Self::Cloudflare(zone.to_owned());
            return Some(allowed(&parts.method, "POST, DELETE", wish));
        }
        if let Some(wish) = fastly::Wish::read(&parts.uri) {
            return Some(allowed(&parts.method, "POST", Self::Fastly(wish)));
        }
        if let Some(id) = path.strip_prefix("/purges/") {
            return Some(allowed(&parts.method, READ, Self::One(id.to_owned())));
        }
        match path {
            "/purge" => Some(allowed(&parts.method, "POST", Self::Body)),
            "/purges" => {
                let limit = limit(parts.uri.query().unwrap_or_default());
                let history = limit.map(Self::History);
                Some(history.and_then(|wish| allowed(&parts.method, READ, wish)))
            }
            _ => None,
        }
    }

    /// Does what is wished for. Dropped half-way, it may have purged.
    pub(super) async fn answer(
        self,
        engine: &Engine,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Response<Answer>, AdminError> {
        match self {
            Self::Body => {
                let (purge, refresh) = body::read(body)?;
                tell(&engine.obey(purge, refresh, None).await?)
            }
            Self::Cloudflare(zone) => {
                let purge = scoped(engine, &zone, cloudflare::read(body)?);
                let told = engine.obey(purge, 0, None).await?;
                Ok(respond(StatusCode::OK, &cloudflare::tell(&told)))
            }
            Self::Fastly(wish) => {
                let (purge, service) = wish.purge(&parts.headers, body)?;
                let purge = scoped(engine, &service, purge);
                let told = engine.obey(purge.clone(), 0, None).await?;
                Ok(respond(StatusCode::OK, &wish.tell(&purge, &told)))
            }
            Self::History(limit) => {
                let told = engine.purges(limit);
                let told: Vec<ReceiptJson<'_>> = told.iter().map(ReceiptJson::of).collect();
                Ok(respond(StatusCode::OK, &json!({ "purges": told })))
            }
            Self::One(id) => {
                let told = Receipt::sequence_of(&id).and_then(|id| engine.purge_told(id));
                tell(&told.ok_or(AdminError::NoReceipt)?)
            }
            Self::Souin(wish) => {
                if let Some(purge) = wish.purge(&parts.headers, body)? {
                    engine.obey(purge, 0, None).await?;
                }
                let mut response = build(wish.status(), "application/json", Answer::empty());
                response.headers_mut().remove(header::CONTENT_TYPE);
                Ok(response)
            }
            Self::Spoken => tell(&engine.obey(spoken(parts)?, 0, None).await?),
        }
    }
}

impl Accent {
    /// Finds the words that a path is asked in.
    pub(super) fn of(path: &str) -> Self {
        if cloudflare::zone(path).is_some() {
            return Self::Cloudflare;
        }
        let fastly = ["/service/", "/purge/"];
        match fastly.iter().any(|begin| path.starts_with(begin)) {
            true => Self::Fastly,
            false => Self::Own,
        }
    }

    /// Tells an error.
    pub(super) fn error(self, status: StatusCode, error: &AdminError) -> Value {
        let error = error.to_string();
        match self {
            Self::Cloudflare => cloudflare::error(status, &error),
            Self::Fastly => json!({"msg": status.canonical_reason(), "detail": error}),
            Self::Own => json!({ "error": error }),
        }
    }
}

fn allowed<T>(method: &Method, allow: &'static str, wish: T) -> Result<T, AdminError> {
    match allow.split(", ").any(|one| one == method.as_str()) {
        true => Ok(wish),
        false => Err(AdminError::Method { allow }),
    }
}

/// Reads how many receipts are wanted.
fn limit(query: &str) -> Result<usize, AdminError> {
    let bad = |why: &str| Err(AdminError::Malformed(why.to_owned()));
    let mut limit = HISTORY;
    for (number, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let value = pair.strip_prefix("limit=").filter(|_| number == 0);
        match value.map(str::parse) {
            Some(Ok(value)) if (1..=TOLD_MAX).contains(&value) => limit = value,
            Some(_) => return bad("limit must be a number from 1 to 1000"),
            None => return bad("the only parameter is limit, once"),
        }
    }
    Ok(limit)
}

/// Reads a PURGE, BAN or PURGEKEYS.
fn spoken(parts: &Parts) -> Result<Purge, AdminError> {
    let malformed = |why: &str| AdminError::Malformed(why.to_owned());
    let host = parts.headers.get(header::HOST);
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| malformed("host is malformed"))?,
        (None, None) => "",
    };
    let target = parts.uri.path_and_query();
    if authority.is_empty() {
        return Err(malformed("a purge needs a host"));
    }
    let spoken = Spoken {
        method: &parts.method,
        headers: &parts.headers,
        scheme: parts.uri.scheme_str(),
        authority,
        target: target.map_or("/", |target| target.as_str()),
    };
    Ok(spoken.purge()?)
}

/// Narrows a purge to a site, where what others call a zone or a service is one.
fn scoped(engine: &Engine, id: &str, purge: Purge) -> Purge {
    match engine.has_site(id) {
        true => purge.within(id),
        false => purge,
    }
}

fn tell(told: &Told) -> Result<Response<Answer>, AdminError> {
    // No key or value of these types can fail to serialise.
    let receipt = serde_json::to_string(&ReceiptJson::of(told)).unwrap_or_default();
    Ok(respond(StatusCode::OK, &receipt))
}

/// A receipt as JSON; the names are an interface.
#[derive(Serialize)]
struct ReceiptJson<'t> {
    id: String,
    sequence: u64,
    kind: &'t str,
    kinds: BTreeMap<&'t str, usize>,
    items: usize,
    soft: bool,
    front: Option<&'t str>,
    entries: Option<u64>,
    at: String,
    durable: bool,
    refresh: Option<RefreshJson>,
}

/// How far a refresh has come.
#[derive(Serialize)]
struct RefreshJson {
    wanted: u64,
    waiting: u64,
    done: u64,
    not_stored: u64,
    failed: u64,
    skipped: u64,
}

impl<'t> ReceiptJson<'t> {
    fn of(told: &'t Told) -> Self {
        let receipt = &told.receipt;
        Self {
            id: receipt.id(),
            sequence: receipt.sequence.0,
            kind: match told.kinds.as_slice() {
                [(kind, _)] => kind,
                _ => "mixed",
            },
            kinds: told.kinds.iter().copied().collect(),
            items: told.kinds.iter().map(|(_, items)| items).sum(),
            soft: told.manner == Manner::Soft,
            front: told.front.as_deref(),
            entries: receipt.entries,
            at: humantime::format_rfc3339_millis(receipt.at).to_string(),
            durable: receipt.durable,
            refresh: told.refresh.as_deref().map(RefreshJson::of),
        }
    }
}

impl RefreshJson {
    fn of(progress: &RefreshProgress) -> Self {
        // Before the counts it is made of: what ends meanwhile may be told as waiting, not twice.
        let waiting = progress.waiting();
        Self {
            wanted: progress.wanted.load(Ordering::Relaxed),
            waiting,
            done: progress.done.load(Ordering::Relaxed),
            not_stored: progress.not_stored.load(Ordering::Relaxed),
            failed: progress.failed.load(Ordering::Relaxed),
            skipped: progress.skipped.load(Ordering::Relaxed),
        }
    }
}

/// Reads a JSON object. The fields of a type may be read from a list too, which nobody means.
pub(super) fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("it must be a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Reads what must not be `null` where it is given.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// How many receipts are told unless it is said.
const HISTORY: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::What;
    use crate::rules::address::Sequence;
    use http::Request;
    use std::time::Duration;
    use std::time::SystemTime;

    fn parts(method: &str, uri: &str) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("host", "a.example");
        request.body(()).unwrap().into_parts().0
    }

    fn wish(method: &str, uri: &str) -> Option<Wish> {
        Wish::read(&parts(method, uri)).map(Result::unwrap)
    }

    #[test]
    fn requests_about_purges_are_told_from_others() {
        assert_eq!(wish("POST", "/purge"), Some(Wish::Body));
        assert_eq!(wish("GET", "/purges"), Some(Wish::History(HISTORY)));
        assert_eq!(wish("GET", "/purges?limit=3"), Some(Wish::History(3)));
        assert_eq!(
            wish("HEAD", "/purges/p-7"),
            Some(Wish::One("p-7".to_owned()))
        );
        for method in ["PURGE", "BAN", "PURGEKEYS"] {
            assert_eq!(wish(method, "/purges"), Some(Wish::Spoken));
        }
        let zone = Some(Wish::Cloudflare("z".to_owned()));
        assert_eq!(wish("POST", "/client/v4/zones/z/purge_cache"), zone);
        assert_eq!(wish("DELETE", "/zones/z/purge_cache"), zone);
        for other in ["/", "/stats", "/purged", "/zones/z", "/service"] {
            assert_eq!(wish("GET", other), None, "{other}");
        }
    }

    #[test]
    fn another_method_is_refused_by_name() {
        for (method, uri, expected) in [
            ("GET", "/purge", "POST"),
            ("POST", "/purges", READ),
            ("POST", "/purges/p-1", READ),
            ("GET", "/service/s/purge_all", "POST"),
            ("GET", "/zones/z/purge_cache", "POST, DELETE"),
        ] {
            let refused = Wish::read(&parts(method, uri)).unwrap();
            match refused {
                Err(AdminError::Method { allow }) => assert_eq!(allow, expected, "{uri}"),
                other => panic!("{uri}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_history_is_asked_for_in_bounds() {
        assert_eq!(limit("").unwrap(), HISTORY);
        assert_eq!(limit("limit=1000").unwrap(), TOLD_MAX);
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=",
            "l=1",
            "limit=1&limit=2",
        ] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_purge_by_its_method_names_its_url_either_way() {
        let url = |parts| spoken(&parts).unwrap().what;
        let expected = |url: &str| What::Url(url.to_owned());
        let both = [
            expected("http://a.example/x?y"),
            expected("https://a.example/x?y"),
        ];
        assert_eq!(url(parts("PURGE", "/x?y")), both);
        assert_eq!(
            url(parts("PURGE", "http://b.example/")),
            [expected("http://b.example/")]
        );
        let mut without = parts("PURGE", "/");
        without.headers.clear();
        assert!(matches!(spoken(&without), Err(AdminError::Malformed(_))));
    }

    #[test]
    fn a_receipt_says_what_when_and_how_durably() {
        let progress = RefreshProgress::default();
        progress.wanted.store(3, Ordering::Relaxed);
        progress.done.store(1, Ordering::Relaxed);
        let told = Told {
            receipt: Receipt {
                sequence: Sequence(7),
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
                entries: Some(2),
                durable: true,
            },
            kinds: vec![("url", 2), ("tag", 1)],
            manner: Manner::Soft,
            front: None,
            refresh: Some(progress.into()),
        };
        let expected = r#"{"id":"p-7","sequence":7,"kind":"mixed","kinds":{"tag":1,"url":2},"items":3,"soft":true,"front":null,"entries":2,"at":"1970-01-01T00:00:01.500Z","durable":true,"refresh":{"wanted":3,"waiting":2,"done":1,"not_stored":0,"failed":0,"skipped":0}}"#;
        assert_eq!(
            serde_json::to_string(&ReceiptJson::of(&told)).unwrap(),
            expected
        );
    }

    #[test]
    fn errors_are_told_in_the_words_they_were_asked_in() {
        let told = |path| Accent::of(path).error(StatusCode::NOT_FOUND, &AdminError::NoReceipt);
        assert!(told("/purges/x")["error"].is_string());
        assert_eq!(told("/service/s/purge")["msg"], "Not Found");
        assert_eq!(told("/zones/z/purge_cache")["success"], false);
    }
}
