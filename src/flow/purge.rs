//! Purges: what an operator removes, at once and for good.

use super::Engine;
use super::Params;
use super::Purge;
use super::PurgeError;
use super::Receipt;
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

impl Engine {
    /// Purges. When this returns, nothing older is served, whatever happens next.
    pub async fn purge(&self, purge: Purge) -> Result<Receipt, PurgeError> {
        let (sequence, entries, durable) = match purge {
            Purge::All => {
                let sequence = self.shelf.purge_all();
                lock(&self.trips).clear();
                let durable = self.shelf.record_purge(sequence, &[Selector::All]).await;
                (sequence, None, durable)
            }
            Purge::Urls(urls) if urls.len() > URLS_MAX => {
                return Err(PurgeError::TooMany(URLS_MAX));
            }
            Purge::Urls(urls) => {
                let keys = urls.iter().map(|url| self.keys_of_url(url));
                let keys = keys.collect::<Result<Vec<_>, _>>()?.concat();
                let (sequence, entries, durable) = self.forget(&keys, &[]).await;
                (sequence, Some(entries), durable)
            }
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
        let purged: HashSet<PrimaryKey> = keys.iter().copied().collect();
        lock(&self.trips)
            .finish_where(|trip| purged.contains(&trip.key) || purged.contains(&trip.key.family()));
        let urls = keys.iter().copied().map(Selector::Url);
        let selectors: Vec<Selector> = urls
            .chain(tags.iter().copied().map(Selector::Tag))
            .collect();
        self.shelf.record_purge(sequence, &selectors).await
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

    fn read_url(&self, url: &str) -> Result<(&Site, Scheme, String, String), PurgeError> {
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

const URLS_MAX: usize = 1000;
