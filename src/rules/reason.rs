//! What does a word of the vocabulary mean, who says so, and what would change it?
//!
//! Cache-Status, the access log, metrics and explanations use one set of words: those of
//! [`Forward`], and those of [`Detail`] with the reasons in it. This file has a sentence for each, for
//! people to read. What is decided by, and when, is in the files that return the words.

use super::cache_status::Detail;
use super::cache_status::Forward;
use super::reuse::Basis;
use super::reuse::NotReusable;
use super::storable::NotStorable;
use std::borrow::Cow;

/// What a word means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The reason, in a sentence without its full stop.
    pub because: Cow<'static, str>,
    /// The section that says so; none where it is this cache's own rule.
    pub section: Option<&'static str>,
    /// What would change it, if anything that is somebody's to choose.
    pub remedy: Option<&'static str>,
}

impl Meaning {
    fn new(because: &'static str, section: &'static str) -> Self {
        Self {
            because: Cow::Borrowed(because),
            section: Some(section),
            remedy: None,
        }
    }

    fn own(because: &'static str) -> Self {
        Self {
            because: Cow::Borrowed(because),
            section: None,
            remedy: None,
        }
    }

    fn but(self, remedy: &'static str) -> Self {
        Self {
            remedy: Some(remedy),
            ..self
        }
    }
}

impl Forward {
    /// Why a request goes to the origin.
    pub fn meaning(self) -> Meaning {
        match self {
            Self::Bypass => Meaning::new("the store is not asked for such a request", FORWARD),
            Self::Method => Meaning::new(
                "the store answers GET and HEAD; other methods go to the origin",
                "RFC 9111 §4",
            ),
            Self::UriMiss => Meaning::new("nothing is stored under the target's key", FORWARD),
            Self::VaryMiss => Meaning::new(
                "something is stored for the target, but for other values of the fields it varies by",
                "RFC 9111 §4.1",
            )
            .but(
                "let the origin's Vary, or the site's key_headers and key_cookies, name fewer fields",
            ),
            Self::Miss => Meaning::new("what is stored cannot be read", FORWARD),
            Self::Request => Meaning::new(
                "what is stored is fresh, but may not be served unasked",
                FORWARD,
            ),
            Self::Stale => Meaning::new("what is stored is stale", "RFC 9111 §4.2"),
            Self::Partial => Meaning::new(
                "only a part of what is asked for is stored",
                "RFC 9111 §3.3",
            ),
        }
    }
}

impl Basis {
    /// Why a stored response is served unasked, or is not.
    pub fn meaning(self) -> Meaning {
        match self {
            Self::Fresh => Meaning::new(
                "it is fresh: its lifetime is greater than its age",
                "RFC 9111 §4.2",
            ),
            Self::MaxStale => Detail::MaxStale.meaning(),
            Self::NotReusable(reason) => reason.meaning(),
            Self::StaleWhileRevalidate => Detail::StaleWhileRevalidate.meaning(),
        }
    }

    /// The word for it.
    pub fn token(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::MaxStale | Self::NotReusable(_) | Self::StaleWhileRevalidate => {
                self.detail().map_or("", Detail::token)
            }
        }
    }

    /// The detail it comes to; none for what goes without saying.
    pub fn detail(self) -> Option<Detail> {
        match self {
            Self::Fresh => None,
            Self::MaxStale => Some(Detail::MaxStale),
            Self::NotReusable(reason) => Some(Detail::NotReusable(reason)),
            Self::StaleWhileRevalidate => Some(Detail::StaleWhileRevalidate),
        }
    }
}

impl NotReusable {
    /// Why a stored response may not be served unasked.
    pub fn meaning(self) -> Meaning {
        match self {
            Self::ClockSetBack => Meaning::own(
                "the clock was set back since the response arrived, so its age is not known",
            ),
            Self::Expired => Meaning::new(
                "its freshness lifetime is over, and no window lets it be served stale",
                "RFC 9111 §4.2.4",
            )
            .but(
                "let the origin grant a longer max-age or s-maxage, or stale-while-revalidate; a \
                 site can give stale_while_revalidate to responses that do not say",
            ),
            Self::MustRevalidate => Meaning::new(
                "must-revalidate, proxy-revalidate or s-maxage forbids to serve it stale",
                "RFC 9111 §5.2.2.2",
            )
            .but("leave the directive off, or grant a longer lifetime"),
            Self::NoCache => Meaning::new(
                "no-cache in the response: it must be validated before each use",
                "RFC 9111 §5.2.2.4",
            )
            .but("let the origin say max-age instead of no-cache"),
            Self::RequestMaxAge => Meaning::new(
                "the client's max-age accepts nothing so old",
                "RFC 9111 §5.2.1.1",
            )
            .but(CLIENTS),
            Self::RequestMaxStale => Meaning::new(
                "the client's max-stale accepts nothing that has been stale for so long",
                "RFC 9111 §5.2.1.2",
            )
            .but(CLIENTS),
            Self::RequestMinFresh => Meaning::new(
                "the client's min-fresh wants it to stay fresh for longer",
                "RFC 9111 §5.2.1.3",
            )
            .but(CLIENTS),
            Self::RequestNoCache => Meaning::new(
                "the client's no-cache wants the origin to be asked",
                "RFC 9111 §5.2.1.4",
            )
            .but(CLIENTS),
            Self::RequestNoStore => Meaning::new(
                "the client's no-store wants to go past every cache",
                "RFC 9111 §5.2.1.5",
            )
            .but(CLIENTS),
        }
    }
}

impl NotStorable {
    /// Why a response may not be stored, and what would let it be.
    #[expect(clippy::too_many_lines, reason = "a table of sentences")]
    pub fn meaning(self) -> Meaning {
        match self {
            Self::Authorization => Meaning::new(
                "the request carries Authorization, and nothing opens the response to others",
                "RFC 9111 §3.5",
            )
            .but("if it is for everybody, let the origin say public, s-maxage or must-revalidate"),
            Self::CloseDelimited => Meaning::own(
                "the body ends when the connection closes, so nobody knows whether it is whole",
            )
            .but(
                "let the origin send Content-Length or chunks; or set the site's \
                 store_close_delimited",
            ),
            Self::Malformed => Meaning::new(
                "Cache-Control cannot be read, so it may forbid storing",
                "RFC 9111 §4.2.1",
            )
            .but("mend the field: directives are name[=value], with commas between them"),
            Self::Method => Meaning::new(
                "the method is not GET, nor POST with a response that GET would bring too",
                "RFC 9111 §3",
            )
            .but("ask with GET; a HEAD brings no body to store"),
            Self::MustUnderstand => Meaning::new(
                "must-understand with a status whose caching rules are not known here",
                "RFC 9111 §5.2.2.3",
            )
            .but("leave must-understand off, or answer with a status of RFC 9110"),
            Self::NoCache => Meaning::new(
                "no-cache without a validator: it could never be used",
                "RFC 9111 §5.2.2.4",
            )
            .but("let the origin send ETag or Last-Modified, or max-age instead of no-cache"),
            Self::NoFreshness => Meaning::new(
                "nothing grants it a freshness lifetime, or the lifetime is over already",
                "RFC 9111 §3",
            )
            .but(
                "let the origin send Cache-Control with max-age or s-maxage, or Expires; with \
                 Last-Modified a site's heuristic_max lets a lifetime be guessed",
            ),
            Self::NoStore => Meaning::new("no-store in the response", "RFC 9111 §5.2.2.5")
                .but("let the origin leave no-store off, or say otherwise in CDN-Cache-Control"),
            Self::Private => Meaning::new(
                "private in the response: it is for one client",
                "RFC 9111 §5.2.2.7",
            )
            .but("let the origin leave private off, or name the private fields: private=\"x-user\""),
            Self::Range => Meaning::new(
                "the 206 does not say which part it is, or is not the part that was asked for",
                "RFC 9110 §15.3.7",
            )
            .but("let the origin send a Content-Range that agrees with its body"),
            Self::RedirectToItself => Meaning::own(
                "it redirects to a URL with the same key, so it would be the answer there too",
            )
            .but("set the site's key_scheme, or let the redirect vary by X-Forwarded-Proto"),
            Self::RequestBody => Meaning::new(
                "the request has a body, which is in no key",
                "RFC 9110 §9.3.1",
            )
            .but("ask without a body"),
            Self::RequestNoStore => Meaning::new("no-store in the request", "RFC 9111 §5.2.1.5")
                .but("ask without no-store"),
            Self::SetCookie => Meaning::own("the response sets cookies, which are for one client")
                .but(
                    "let the origin leave Set-Cookie off, or say no-cache=\"set-cookie\"; or set the \
                     site's store_set_cookie",
                ),
            Self::Status => Meaning::new(
                "its status is not final, or its response answers one request only",
                "RFC 9111 §3",
            ),
            Self::VaryAny => Meaning::new(
                "Vary is *, cannot be read, or names what cannot be seen in a request",
                "RFC 9111 §4.1",
            )
            .but("let Vary name the request fields that the response depends on"),
        }
    }
}

impl Detail {
    /// Why it came out so.
    pub fn meaning(self) -> Meaning {
        match self {
            Self::BodyTooLarge => {
                Meaning::own("its body is longer than the store takes: half of its limit")
                    .but("raise cache.disk_bytes_max")
            }
            Self::CollapseFull => Meaning::own(
                "too many wait for the same response, or it turned out not to be for this request",
            )
            .but("raise cache.followers_max"),
            Self::FillFailed => Meaning::own("the fetch that it waited for was given up"),
            Self::FirstRequest => Meaning::own("a body this long is stored at its second request")
                .but("ask again, or raise cache.second_request_percent"),
            Self::HitForMiss => Meaning::own(
                "a response for this target was not storable lately, so nobody waits for another's",
            )
            .but("see why by asking the origin; cache.hit_for_miss says for how long that counts"),
            Self::MaxStale => Meaning::new(
                "it is stale, and the client accepts that by max-stale",
                "RFC 9111 §5.2.1.2",
            ),
            Self::NoBackend => Meaning::own("no backend may be asked now"),
            Self::NoRoom => Meaning::own("the store has no room for it"),
            Self::NotReusable(reason) => reason.meaning(),
            Self::NotStorable(reason) => reason.meaning(),
            Self::OnlyIfCached => Meaning::new(
                "only-if-cached in the request, and nothing that is stored will do",
                "RFC 9111 §5.2.1.7",
            )
            .but("ask without only-if-cached"),
            Self::OriginError => {
                Meaning::own("the origin could not be asked, or answered an error")
            }
            Self::OriginProtocol => Meaning::own("the origin broke the protocol"),
            Self::OriginTimeout => Meaning::own("the origin did not answer in time"),
            Self::PurgedDuringFill => {
                Meaning::own("a purge, or a newer response, came while it was on its way")
            }
            Self::Refused(refusal) => Meaning {
                because: Cow::Owned(refusal.to_string()),
                section: None,
                remedy: None,
            },
            Self::RequestBody => NotStorable::RequestBody.meaning(),
            Self::SoftPurged => Meaning::own("a soft purge made it stale")
                .but("the next answer of the origin that is stored takes its place"),
            Self::StaleIfError => Meaning::new("it is stale, and the origin failed", "RFC 5861 §4"),
            Self::StaleWhileRevalidate => Meaning::new(
                "it is stale, but in the window of stale-while-revalidate",
                "RFC 5861 §3",
            ),
            Self::StoreFailed => Meaning::own("the store failed to take it"),
            Self::Synthetic => Meaning::own("the answer is made here, not by the origin"),
            Self::Upgrade => Meaning::own("an upgrade of the connection goes past the store"),
        }
    }
}

const FORWARD: &str = "RFC 9211 §2.2";

const CLIENTS: &str = "ask without the directive; or let the site ignore clients: \
                       client_cache_control = \"ignore\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::Refusal;
    use std::collections::HashSet;

    /// Everything that has a word, with its meaning.
    fn all() -> Vec<(&'static str, Meaning)> {
        let mut all = Vec::new();
        all.extend(Forward::ALL.iter().map(|fwd| (fwd.token(), fwd.meaning())));
        all.extend(NotStorable::ALL.map(|reason| (reason.token(), reason.meaning())));
        all.extend(NotReusable::ALL.map(|reason| (reason.token(), reason.meaning())));
        let refused = Refusal::ALL.iter().map(|refusal| Detail::Refused(*refusal));
        all.extend(refused.map(|detail| (detail.token(), detail.meaning())));
        all
    }

    #[test]
    fn every_meaning_is_one_plain_line() {
        for (word, meaning) in all() {
            let texts = [Some(&*meaning.because), meaning.section, meaning.remedy];
            for text in texts.into_iter().flatten() {
                assert!(!text.is_empty(), "{word}");
                assert!(
                    !text.ends_with('.') && !text.contains("  "),
                    "{word}: {text}"
                );
                assert!(!text.contains('\n'), "{word}: {text}");
            }
        }
    }

    #[test]
    fn reasons_that_differ_do_not_read_the_same() {
        let storable = NotStorable::ALL.map(NotStorable::meaning);
        let reusable = NotReusable::ALL.map(NotReusable::meaning);
        let sentences = storable.iter().chain(&reusable);
        let sentences: HashSet<&str> = sentences.map(|meaning| &*meaning.because).collect();
        assert_eq!(sentences.len(), storable.len() + reusable.len());
    }

    #[test]
    fn a_word_that_stands_for_two_reasons_has_one_word_for_both() {
        // The same directive may forbid to store a response, and to use it unasked.
        let storable: HashSet<&str> = NotStorable::ALL.map(NotStorable::token).into();
        let reusable: HashSet<&str> = NotReusable::ALL.map(NotReusable::token).into();
        let mut both: Vec<&str> = storable.intersection(&reusable).copied().collect();
        both.sort_unstable();
        assert_eq!(both, ["no-cache", "request-no-store"]);
    }

    #[test]
    fn whoever_can_change_something_is_told_what() {
        for reason in NotStorable::ALL {
            let remedy = reason.meaning().remedy;
            assert_eq!(
                remedy.is_none(),
                reason == NotStorable::Status,
                "{reason:?}"
            );
        }
    }
}
