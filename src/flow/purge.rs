//! Purges: what an operator removes, at once and for good.

use super::Engine;
use super::Params;
use super::Site;
use super::shelf::lock;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Pattern;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::request::Scheme;
use crate::rules::request::parse_url;
use crate::rules::stored::StoredResponse;
use crate::rules::tag::TagKey;
use crate::state::marks::Covered;
use crate::state::marks::PATTERNS_MAX;
use crate::state::takeover::message::SELECTORS_BYTES_MAX;
use crate::state::takeover::message::selectors_bytes;
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
    /// Its items are too long altogether.
    #[error("the items of one purge may take {0} bytes altogether")]
    TooLarge(usize),
}

impl Engine {
    /// Purges. When this returns, nothing older is served as it was, whatever happens next.
    pub async fn purge(&self, purge: Purge) -> Result<Receipt, PurgeError> {
        let selectors = self.selectors(&purge.what)?;
        let purged = self.shelf.try_purge(purge.manner, &selectors);
        let (mark, entries) = purged.ok_or(PurgeError::PatternsFull(PATTERNS_MAX))?;
        let durable = self.settle(mark, &selectors).await;
        Ok(Receipt {
            sequence: mark.sequence,
            at: mark.at,
            entries,
            durable,
        })
    }

    /// How many entries the purge of this sequence has covered, as far as they were looked for. `None`
    /// when that is not known any more, or was by the receipt.
    pub fn covered(&self, sequence: Sequence) -> Option<Covered> {
        self.shelf.covered(sequence)
    }

    /// Purges by the way. Dropped half-way, it holds until a restart.
    pub(super) async fn forget(&self, selectors: &[Selector]) -> u64 {
        let (mark, entries) = self.shelf.purge(Manner::Hard, selectors);
        self.settle(mark, selectors).await;
        entries.unwrap_or_default()
    }

    /// As [`forget`](Self::forget), by a response that is to be kept as its own target's next one.
    /// Returns the sequence to keep it under; see [`Shelves::supersede`](super::shelves::Shelves).
    pub(super) async fn supersede(
        &self,
        selectors: &[Selector],
        heir: &StoredResponse,
        since: Sequence,
    ) -> Option<Sequence> {
        let (mark, next) = self.shelf.supersede(selectors, heir, since);
        self.settle(mark, selectors).await;
        next
    }

    /// Lets nobody join the trips of what was purged, and says whether the purge is durable.
    async fn settle(&self, mark: Mark, selectors: &[Selector]) -> bool {
        self.leave_trips(mark, selectors);
        self.shelf.record_purge(mark, selectors).await
    }

    /// Lets nobody join the trips of purged targets any more. Who joins one of another purge, or a soft
    /// one, finds out by what it brings.
    pub(super) fn leave_trips(&self, mark: Mark, selectors: &[Selector]) {
        if mark.soft {
            return;
        }
        if selectors.contains(&Selector::All) {
            lock(&self.trips).clear();
            return;
        }
        let keys = selectors.iter().filter_map(|selector| match selector {
            Selector::Url(key) => Some(*key),
            Selector::All
            | Selector::Prefix(_)
            | Selector::Regex(..)
            | Selector::Site(_)
            | Selector::Tag(..) => None,
        });
        let purged: HashSet<PrimaryKey> = keys.collect();
        if !purged.is_empty() {
            lock(&self.trips).finish_where(|trip| {
                purged.contains(&trip.key) || purged.contains(&trip.key.family())
            });
        }
    }

    /// What is covered, as marks know it.
    fn selectors(&self, what: &[What]) -> Result<Vec<Selector>, PurgeError> {
        if what.is_empty() {
            return Err(PurgeError::Nothing);
        }
        if what.len() > PURGE_ITEMS_MAX {
            return Err(PurgeError::TooMany(PURGE_ITEMS_MAX));
        }
        let mut selectors = Vec::new();
        for what in what {
            self.select(what, &mut selectors)?;
        }
        if selectors_bytes(&selectors) > SELECTORS_BYTES_MAX {
            return Err(PurgeError::TooLarge(SELECTORS_BYTES_MAX));
        }
        Ok(selectors)
    }

    fn select(&self, what: &What, selectors: &mut Vec<Selector>) -> Result<(), PurgeError> {
        match what {
            What::All => selectors.push(Selector::All),
            What::Host(host) => {
                let of_host = Selector::host(host);
                selectors.extend(of_host.ok_or_else(|| PurgeError::BadHost(host.clone()))?);
            }
            What::Prefix(text) => {
                let prefix = Selector::prefix(text);
                selectors.push(prefix.ok_or_else(|| PurgeError::BadPrefix(text.clone()))?);
            }
            What::Regex { site, text } => {
                let bad = |reason| PurgeError::BadPattern(format!("{text:?}: {reason}"));
                let pattern = Pattern::new(text).map_err(bad)?;
                selectors.push(Selector::Regex(self.site_tag(site.as_deref())?, pattern));
            }
            What::Site(name) => selectors.extend(self.site_tag(Some(name))?.map(Selector::Site)),
            What::Tag { site, text } => {
                let tag = TagKey::of_text(text.as_bytes());
                let tag = tag.ok_or_else(|| PurgeError::BadTag(text.clone()))?;
                selectors.push(Selector::Tag(self.site_tag(site.as_deref())?, tag));
            }
            What::Url(url) => {
                selectors.extend(self.keys_of_url(url)?.into_iter().map(Selector::Url))
            }
        }
        Ok(())
    }

    /// The site of this name, as responses bear it.
    fn site_tag(&self, name: Option<&str>) -> Result<Option<TagKey>, PurgeError> {
        let Some(name) = name else {
            return Ok(None);
        };
        let setup = self.setup.load();
        let known = setup.params.sites.iter().any(|site| site.name == name);
        let tag = known.then(|| TagKey::of_site(name));
        tag.map(Some)
            .ok_or_else(|| PurgeError::NoSite(name.to_owned()))
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
