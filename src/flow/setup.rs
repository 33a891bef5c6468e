//! What a config decides about requests: one whole, which another takes the place of.
//!
//! ```text
//! request ─► the setup of now ─► kept to its end, and by the trip it leads
//! reload  ─► a new setup ─┬─ upstreams that are as before: the same ones, with pools and health
//!                         ├─ sites that are as before: their requests share trips across the change
//!                         └─ upstreams that are gone: what is under way ends, nothing is kept idle
//! ```
//!
//! No request sees two setups. What holds state (index, memory, trips, what is not storable, what
//! paths said) is the engine's and outlives them all. Keys name what an origin was asked: the site,
//! the authority and the target as they went out, and the fields that select. So a response is found
//! under another setup only by a request that would go out the same; a host that moved to another
//! site, or a policy that lets more or less into keys, finds nothing of what was stored before.

use super::Params;
use super::Site;
use super::origin::Origin;
use crate::rules::hops::Hop;
use crate::rules::route::SiteId;
use http::HeaderValue;
use http::Version;
use std::sync::Arc;

/// What counts for a request from its start to its end.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) params: Params,
    pub(super) hop: Hop,
    /// What responses say in Via, if anything.
    pub(super) via: Option<HeaderValue>,
    /// In the order of the params' upstreams.
    origins: Vec<Arc<Origin>>,
    /// Of each site, the number of the setup since which it is as it is.
    eras: Vec<u64>,
    number: u64,
}

impl Setup {
    /// The first setup. `instance` names the process (CDN-Loop).
    pub(super) fn first(params: &Params, instance: String) -> Self {
        let upstreams = params.upstreams.iter();
        let origins = upstreams.map(|(_, params)| Arc::new(Origin::new(params.clone())));
        let origins = origins.collect();
        Self::build(params, instance, origins, 0, |_, _| 0)
    }

    /// The setup that comes after this one: what is as before lives on.
    pub(super) fn next(&self, params: &Params) -> Self {
        let number = self.number.saturating_add(1);
        let upstreams = params.upstreams.iter();
        let origins = upstreams.map(|wanted| {
            let mut before = self.params.upstreams.iter().zip(&self.origins);
            match before.find(|(upstream, _)| *upstream == wanted) {
                Some((_, origin)) => Arc::clone(origin),
                None => Arc::new(Origin::new(wanted.1.clone())),
            }
        });
        let origins: Vec<Arc<Origin>> = origins.collect();
        let told_alike = params.forwarded == self.params.forwarded
            && params.identifier == self.params.identifier
            && params.hops_max == self.params.hops_max;
        let era = |site: &Site, origin: Option<&Arc<Origin>>| {
            let mut before = self.params.sites.iter().zip(&self.eras);
            let before = before.find(|(before, _)| before.name == site.name);
            let same_origin = |before: &Site| match (self.origins.get(before.upstream), origin) {
                (Some(before), Some(origin)) => Arc::ptr_eq(before, origin),
                _ => false,
            };
            match before {
                Some((before, era))
                    if told_alike && before.is_like(site) && same_origin(before) =>
                {
                    *era
                }
                Some(_) | None => number,
            }
        };
        let instance = self.hop.instance.clone();
        Self::build(params, instance, origins, number, era)
    }

    fn build(
        params: &Params,
        instance: String,
        origins: Vec<Arc<Origin>>,
        number: u64,
        era: impl Fn(&Site, Option<&Arc<Origin>>) -> u64,
    ) -> Self {
        let hop = Hop {
            identifier: params.identifier.clone(),
            instance,
            passes_max: params.hops_max,
        };
        let sites = params.sites.iter();
        let eras = sites.map(|site| era(site, origins.get(site.upstream)));
        Self {
            eras: eras.collect(),
            via: hop.via(Version::HTTP_11).filter(|_| params.via_response),
            hop,
            origins,
            number,
            params: params.clone(),
        }
    }

    /// Every upstream.
    pub(super) fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }

    pub(super) fn site(&self, id: SiteId) -> &Site {
        // A site's number comes from the list it is looked up in.
        let number = usize::from(id.0).min(self.params.sites.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "bounded the line before")]
        &self.params.sites[number]
    }

    pub(super) fn origin(&self, id: SiteId) -> &Origin {
        let number = self.site(id).upstream.min(self.origins.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "bounded the line before")]
        &self.origins[number]
    }

    /// Tells trips for a site apart that were made under different setups of it.
    pub(super) fn era(&self, id: SiteId) -> u64 {
        self.eras
            .get(usize::from(id.0))
            .copied()
            .unwrap_or(self.number)
    }

    /// Is every site of this setup as it was in the one before?
    pub(super) fn sites_are_old(&self) -> bool {
        self.eras.iter().all(|era| *era < self.number)
    }
}

impl Site {
    /// Are they served alike, wherever their upstream stands in the list?
    fn is_like(&self, other: &Self) -> bool {
        let upstream = other.upstream;
        let moved = Self {
            upstream,
            ..self.clone()
        };
        moved == *other
    }
}
