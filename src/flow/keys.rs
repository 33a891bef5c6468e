//! Which keys a request may be answered under, and which ones a URL's responses are stored under.
//!
//! ```text
//! request ─► its own key, and the one it shares by what its path last said (No-Vary-Search)
//! response ─► the request's own key, or the one it shares by what the response itself says
//! URL to purge ─► its own key, the shared one, and the family of all shared keys of its path
//! ```
//!
//! What is remembered of a path only decides where to look: a response is always stored, and handed
//! to others, under the key that its own fields give it.

use super::Engine;
use super::Site;
use super::ask::Ask;
use super::shelf::lock;
use super::trip::selects_variant;
use crate::clock;
use crate::rules::invalidate::redirected_to;
use crate::rules::key::PrimaryKey;
use crate::rules::request::NormalRequest;
use crate::rules::request::Scheme;
use crate::rules::search::SearchVariance;
use crate::rules::selecting::ALIKE;
use crate::rules::stored::StoredResponse;
use http::HeaderMap;
use http::HeaderName;
use http::response::Parts;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Engine {
    /// The key that a request shares with others by what its path last said.
    pub(super) fn alike(&self, site: &Site, request: &NormalRequest) -> Option<PrimaryKey> {
        self.alike_target(
            site,
            request.authority(),
            request.target(),
            request.scheme(),
        )
    }

    fn alike_target(
        &self,
        site: &Site,
        authority: &str,
        target: &str,
        scheme: Scheme,
    ) -> Option<PrimaryKey> {
        // Most sites never see the field: then a hit pays for one load of a flag.
        if !site.key.no_vary_search || !self.any_variance.load(Ordering::Relaxed) {
            return None;
        }
        let family = PrimaryKey::family_of(&site.name, authority, target, scheme, &site.key);
        let variances = self
            .variances
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let variance = Arc::clone(variances.of(family)?);
        drop(variances);
        let (name, policy) = (&site.name, &site.key);
        Some(PrimaryKey::alike(
            name, authority, target, scheme, policy, &variance,
        ))
    }

    /// The key under which a response with these fields is stored for whoever asked for it.
    pub(super) fn key_for(&self, ask: &Ask, headers: &HeaderMap) -> PrimaryKey {
        let site = ask.site();
        if !site.key.no_vary_search {
            return ask.key;
        }
        let Some(variance) = SearchVariance::read(headers) else {
            return ask.key;
        };
        let request = &ask.request;
        PrimaryKey::alike(
            &site.name,
            request.authority(),
            request.target(),
            request.scheme(),
            &site.key,
            &variance,
        )
    }

    /// Remembers what a response that is stored said about the queries of its path.
    fn learn_variance(&self, ask: &Ask, headers: &HeaderMap) {
        let site = ask.site();
        let Some(variance) = SearchVariance::read(headers) else {
            return;
        };
        let request = &ask.request;
        let family = PrimaryKey::family_of(
            &site.name,
            request.authority(),
            request.target(),
            request.scheme(),
            &site.key,
        );
        let mut variances = self
            .variances
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        variances.learn(family, variance);
        drop(variances);
        self.any_variance.store(true, Ordering::Relaxed);
    }

    /// Gives a response that is to be stored its key and its variant, and remembers what it says
    /// about the queries of its path.
    pub(super) fn name(&self, ask: &Ask, response: &mut StoredResponse) {
        let request_headers = ask.request.headers();
        response.select_by(&ask.site().key.selecting, request_headers);
        response.key = self.key_for(ask, &response.headers);
        if response.key != ask.key {
            response.select_by(&[ALIKE], request_headers);
            self.learn_variance(ask, &response.headers);
        }
    }

    /// Does a redirect lead to another URL under the key that it would be stored under? Then it would
    /// be the answer there too, for ever: one from `http` to `https`, where the site does not tell
    /// them apart and the response does not by `Vary`.
    pub(super) fn leads_back(&self, ask: &Ask, head: &Parts, response: &StoredResponse) -> bool {
        let (site, request) = (ask.site(), &ask.request);
        redirected_to(request, head.status, &head.headers).is_some_and(
            |(scheme, authority, target)| {
                let (name, policy) = (&site.name, &site.key);
                let key = PrimaryKey::for_target(name, &authority, &target, scheme, policy);
                key == ask.key && !(scheme != request.scheme() && varies_by_scheme(response))
            },
        )
    }

    /// May a response that another request brought answer this one, as far as keys go?
    pub(super) fn answers(&self, ask: &Ask, response: &StoredResponse) -> bool {
        let same_target = ask.keys().any(|key| key == response.key)
            || self.key_for(ask, &response.headers) == response.key;
        same_target && selects_variant(response, ask.request.headers())
    }

    /// The fields by which requests for this target are told apart, as far as is known.
    pub(super) fn known_vary(&self, ask: &Ask) -> Vec<HeaderName> {
        let mut known = ask.keys().map(|key| self.shelf.known_vary(key));
        match known.find(|fields| !fields.is_empty()) {
            Some(fields) => fields,
            None => ask.site().key.selecting.clone(),
        }
    }

    /// Every key under which a response for this target may be stored.
    pub(super) fn keys_of_target(
        &self,
        site: &Site,
        authority: &str,
        target: &str,
        scheme: Scheme,
    ) -> Vec<PrimaryKey> {
        let (name, policy) = (&site.name, &site.key);
        let own = PrimaryKey::for_target(name, authority, target, scheme, policy);
        let mut keys = vec![own];
        if policy.no_vary_search {
            keys.extend(self.alike_target(site, authority, target, scheme));
            keys.push(PrimaryKey::family_of(
                name, authority, target, scheme, policy,
            ));
        }
        keys
    }

    /// Counts a response that will push out another variant of its target, and says so at times.
    pub(super) fn note_crowd(&self, ask: &Ask, response: &StoredResponse) {
        if !self.shelf.is_crowded(response) {
            return;
        }
        let (authority, target) = (ask.request.authority(), ask.request.target());
        let mut crowds = lock(&self.crowds);
        let tell = crowds.count(authority, target, &response.vary, clock::now());
        drop(crowds);
        if tell {
            let fields: Vec<&str> = response.vary.iter().map(HeaderName::as_str).collect();
            tracing::warn!(
                host = authority,
                target,
                vary = fields.join(", "),
                variants_max = ask.setup.params.variants_max,
                "a target has more variants than are kept"
            );
        }
    }
}

fn varies_by_scheme(response: &StoredResponse) -> bool {
    response.vary.iter().any(|name| name == "x-forwarded-proto")
}
