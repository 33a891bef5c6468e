//! Purges: what an operator removes, at once and for good.

use super::Engine;
use super::Params;
use super::Site;
use super::shelf::lock;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::request::Scheme;
use crate::rules::request::parse_url;
use crate::rules::stored::StoredResponse;
use crate::rules::tag::TagKey;
use std::collections::HashSet;
use std::time::SystemTime;

/// A purge: what it covers, and how. Several make one purge, under one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it covers, at least one and at most [`PURGE_ITEMS_MAX`].
    pub what: Vec<What>,
    /// How.
    pub manner: Manner,
}

/// What a purge covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An absolute URL, with all its variants.
    Url(String),
    /// All that bears this tag, on one site or on every site.
    Tag {
        /// The site's name.
        site: Option<String>,
        /// The tag as the origin wrote it.
        text: String,
    },
    /// All whose host and path begin so: `host/path`, or a URL.
    Prefix(String),
    /// All of one host, whatever the port.
    Host(String),
    /// All whose host, path and query this matches somewhere.
    Regex {
        /// The site's name.
        site: Option<String>,
        /// The regular expression.
        text: String,
    },
    /// All of one site, by its name.
    Site(String),
    /// Everything.
    All,
}

/// What becomes of what a purge covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Nothing older is served.
    #[default]
    Hard,
    /// What is older is stale from that moment on.
    Soft,
}

/// What a purge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place among fills and purges; fills with a smaller one are covered. Names the purge.
    pub sequence: Sequence,
    /// When it took hold.
    pub at: SystemTime,
    /// How many entries it covered; unknown for what is counted later.
    pub entries: Option<u64>,
    /// It is in the journal: it holds after a crash. False while the disk has failed.
    pub durable: bool,
}

/// Why a purge was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// Not a host name.
    #[error("not a host: {0}")]
    BadHost(String),
    /// Not a regular expression, or too large a one.
    #[error("not a regular expression that can be used: {0}")]
    BadPattern(String),
    /// Nothing that a host and a path can begin with.
    #[error("not the beginning of a host and a path: {0}")]
    BadPrefix(String),
    /// No response can bear this tag.
    #[error("not a tag: {0}")]
    BadTag(String),
    /// Not an absolute http or https URL.
    #[error("not an absolute http or https url: {0}")]
    BadUrl(String),
    /// No site has this host.
    #[error("no site serves {0}")]
    NoSite(String),
    /// It covers nothing.
    #[error("nothing to purge")]
    Nothing,
    /// So many regular expressions are being tested already.
    #[error("{0} regular expressions are being tested already; try again later")]
    PatternsFull(usize),
    /// Too many in one call.
    #[error("at most {0} items in one purge")]
    TooMany(usize),
    /// This kind is not known yet.
    #[error("this kind of purge is not there yet")]
    Unsupported,
}

impl Engine {
    /// Purges. When this returns, nothing older is served, whatever happens next.
    pub async fn purge(&self, purge: Purge) -> Result<Receipt, PurgeError> {
        if purge.what.is_empty() {
            return Err(PurgeError::Nothing);
        }
        if purge.what.len() > PURGE_ITEMS_MAX {
            return Err(PurgeError::TooMany(PURGE_ITEMS_MAX));
        }
        if purge.manner == Manner::Soft {
            return Err(PurgeError::Unsupported);
        }
        let mut keys = Vec::new();
        let mut all = false;
        for what in &purge.what {
            match what {
                What::All => all = true,
                What::Url(url) => keys.extend(self.keys_of_url(url)?),
                What::Tag { .. }
                | What::Prefix(_)
                | What::Host(_)
                | What::Regex { .. }
                | What::Site(_) => return Err(PurgeError::Unsupported),
            }
        }
        let (sequence, entries, durable) = if all {
            let sequence = self.shelf.purge_all();
            lock(&self.trips).clear();
            let durable = self.shelf.record_purge(sequence, &[Selector::All]).await;
            (sequence, None, durable)
        } else {
            let (sequence, entries, durable) = self.forget(&keys, &[]).await;
            (sequence, Some(entries), durable)
        };
        Ok(Receipt {
            sequence,
            at: clock::now(),
            entries,
            durable,
        })
    }

    /// Removes all variants of some keys and all that bears some tags, and lets nobody join a fill
    /// of theirs that is under way (who joins one finds out by its tags when they are known).
    /// Dropped half-way, it holds until a restart.
    pub(super) async fn forget(
        &self,
        keys: &[PrimaryKey],
        tags: &[TagKey],
    ) -> (Sequence, u64, bool) {
        let (sequence, entries) = self.shelf.purge(keys, tags);
        let durable = self.settle(sequence, keys, tags).await;
        (sequence, entries, durable)
    }

    /// As [`forget`](Self::forget), by a response that is to be kept as its own target's next one.
    /// Returns the sequence to keep it under; see [`Shelf::supersede`](super::shelf::Shelf).
    pub(super) async fn supersede(
        &self,
        keys: &[PrimaryKey],
        tags: &[TagKey],
        heir: &StoredResponse,
        since: Sequence,
    ) -> Option<Sequence> {
        let (sequence, next) = self.shelf.supersede(keys, tags, heir, since);
        self.settle(sequence, keys, tags).await;
        next
    }

    /// Lets nobody join the trips of purged keys, and says whether the purge is durable.
    async fn settle(&self, sequence: Sequence, keys: &[PrimaryKey], tags: &[TagKey]) -> bool {
        self.leave_trips(keys);
        let urls = keys.iter().copied().map(Selector::Url);
        let selectors: Vec<Selector> = urls
            .chain(tags.iter().copied().map(Selector::Tag))
            .collect();
        self.shelf.record_purge(sequence, &selectors).await
    }

    /// Lets nobody join the trips of some keys any more.
    pub(super) fn leave_trips(&self, keys: &[PrimaryKey]) {
        let purged: HashSet<PrimaryKey> = keys.iter().copied().collect();
        lock(&self.trips)
            .finish_where(|trip| purged.contains(&trip.key) || purged.contains(&trip.key.family()));
    }

    fn keys_of_url(&self, url: &str) -> Result<Vec<PrimaryKey>, PurgeError> {
        let setup = self.setup.load_full();
        let (site, scheme, authority, target) = setup.params.read_url(url)?;
        Ok(self.keys_of_target(site, &authority, &target, scheme))
    }
}

impl Params {
    /// The key of a URL's responses, unless they are shared by what No-Vary-Search says.
    pub fn key_of_url(&self, url: &str) -> Result<PrimaryKey, PurgeError> {
        let (site, scheme, authority, target) = self.read_url(url)?;
        let (name, policy) = (&site.name, &site.key);
        Ok(PrimaryKey::for_target(
            name, &authority, &target, scheme, policy,
        ))
    }

    pub(super) fn read_url(
        &self,
        url: &str,
    ) -> Result<(&Site, Scheme, String, String), PurgeError> {
        let bad = || PurgeError::BadUrl(url.to_owned());
        let (scheme, authority, target) = parse_url(url).map_err(|_| bad())?;
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &authority,
        };
        let site = self
            .routes
            .site(host)
            .and_then(|id| self.sites.get(usize::from(id.0)))
            .ok_or_else(|| PurgeError::NoSite(host.to_owned()))?;
        Ok((site, scheme, authority, target))
    }
}

/// Most items of one purge.
pub const PURGE_ITEMS_MAX: usize = 1000;
