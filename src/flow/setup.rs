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
    /// Of each site, its name, for reports.
    names: Vec<Arc<str>>,
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
        let names = sites.clone().map(|site| Arc::from(site.name.as_str()));
        let eras = sites.map(|site| era(site, origins.get(site.upstream)));
        Self {
            eras: eras.collect(),
            names: names.collect(),
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

    /// An upstream by its name.
    pub(super) fn origin_called(&self, name: &str) -> Option<&Arc<Origin>> {
        let mut named = self.params.upstreams.iter().zip(&self.origins);
        let (_, origin) = named.find(|((upstream, _), _)| upstream == name)?;
        Some(origin)
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

    /// A site's name.
    pub(super) fn name(&self, id: SiteId) -> Option<Arc<str>> {
        self.names.get(usize::from(id.0)).cloned()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::forwarded::ForwardedPolicy;
    use crate::rules::forwarded::Told;
    use crate::rules::guard::GuardPolicy;
    use crate::rules::key::KeyPolicy;
    use crate::rules::part::RangePolicy;
    use crate::rules::request;
    use crate::rules::reuse::ClientCacheControl;
    use crate::rules::route::Routes;
    use crate::rules::storable::StorePolicy;
    use crate::rules::tag::TagPolicy;
    use crate::state::eviction;
    use crate::state::eviction::Favour;
    use crate::upstream;
    use crate::upstream::Backend;
    use std::time::Duration;

    /// Upstreams `u0`, `u1`, … and a site of each, `s0`, `s1`, ….
    fn params(upstreams: usize) -> Params {
        let second = Duration::from_secs(1);
        Params {
            identifier: "larder".to_owned(),
            forwarded: ForwardedPolicy::default(),
            hops_max: 3,
            https_port: 443,
            via_response: true,
            cache_status_key: false,
            debug: None,
            upstreams: (0..upstreams).map(upstream).collect(),
            sites: (0..upstreams).map(site).collect(),
            routes: Routes::default(),
            request: request::Params {
                body_bytes_max: 1,
                target_bytes_max: 1,
            },
            memory_bytes_max: 0,
            fill_bytes_max: 0,
            scrub_bytes_per_second: 0,
            followers_max: 0,
            hit_for_miss: second,
            tries_max: 1,
            upgrades_max: 0,
            upgrade_idle_timeout: second,
            traces: None,
            variants_max: 1,
            eviction: eviction::Params {
                favour: Favour::default(),
                second_request_over: 0,
            },
        }
    }

    fn upstream(number: usize) -> (String, upstream::Params) {
        let second = Duration::from_secs(1);
        let backend = Backend::Http {
            host: "127.0.0.1".to_owned(),
            port: 1,
        };
        let params = upstream::Params {
            backends: vec![backend],
            protocol: upstream::Protocol::default(),
            connect_timeout: second,
            first_byte_timeout: second,
            between_bytes_timeout: second,
            connections_max: 1,
            queue_max: 1,
            idle_max: 1,
            refreshes_max: 1,
            idle_timeout: second,
            headers_max: 1,
            header_bytes_max: 1,
            streams_max: 1,
            stream_window_bytes: 1,
            ping_interval: second,
            ping_timeout: second,
        };
        (format!("u{number}"), params)
    }

    fn site(upstream: usize) -> Site {
        Site {
            name: format!("s{upstream}"),
            upstream,
            key: KeyPolicy::default(),
            guard: GuardPolicy::default(),
            hsts: None,
            store: StorePolicy::default(),
            targeted_pass: false,
            tags: TagPolicy::default(),
            client_cache_control: ClientCacheControl::default(),
            range_fetch: RangePolicy::default(),
            upgrades: Vec::new(),
        }
    }

    fn first(params: &Params) -> Setup {
        Setup::first(params, "instance".to_owned())
    }

    /// The era of each site.
    fn eras(setup: &Setup) -> Vec<u64> {
        let sites = 0..u16::try_from(setup.params.sites.len()).unwrap();
        sites.map(|number| setup.era(SiteId(number))).collect()
    }

    #[test]
    fn what_is_as_before_lives_on() {
        let params = params(2);
        let before = first(&params);
        let next = before.next(&params).next(&params);
        for (before, next) in before.origins().iter().zip(next.origins()) {
            assert!(Arc::ptr_eq(before, next));
        }
        assert_eq!(eras(&next), [0, 0]);
        assert!(next.sites_are_old());
        assert_eq!(next.hop.instance, "instance");
    }

    #[test]
    fn an_upstream_that_has_changed_is_a_new_one_and_its_sites_begin_anew() {
        let mut params = params(2);
        let before = first(&params);
        params.upstreams[1].1.queue_max = 2;
        let next = before.next(&params);
        assert!(Arc::ptr_eq(&before.origins()[0], &next.origins()[0]));
        assert!(!Arc::ptr_eq(&before.origins()[1], &next.origins()[1]));
        assert_eq!(eras(&next), [0, 1]);
        assert!(!next.sites_are_old());
        // From then on it is as before.
        let after = next.next(&params);
        assert!(Arc::ptr_eq(&next.origins()[1], &after.origins()[1]));
        assert_eq!(eras(&after), [0, 1]);
        assert!(after.sites_are_old());
    }

    #[test]
    fn an_upstream_under_another_name_is_another() {
        let mut params = params(1);
        let before = first(&params);
        params.upstreams[0].0 = "other".to_owned();
        let next = before.next(&params);
        assert!(!Arc::ptr_eq(&before.origins()[0], &next.origins()[0]));
        assert_eq!(eras(&next), [1]);
    }

    #[test]
    fn places_in_the_lists_do_not_count() {
        let params = params(3);
        let before = first(&params);
        let mut turned = params;
        turned.upstreams.reverse();
        turned.sites.reverse();
        for site in &mut turned.sites {
            site.upstream = 2 - site.upstream;
        }
        let next = before.next(&turned);
        for (number, origin) in before.origins().iter().rev().enumerate() {
            assert!(Arc::ptr_eq(origin, &next.origins()[number]), "{number}");
        }
        assert_eq!(eras(&next), [0, 0, 0]);
        for number in 0..3_u16 {
            let (was, is) = (SiteId(number), SiteId(2 - number));
            assert_eq!(before.site(was).name, next.site(is).name);
            assert!(std::ptr::eq(before.origin(was), next.origin(is)));
        }
    }

    #[test]
    fn a_site_that_has_changed_or_moved_or_is_new_begins_anew_and_no_other_does() {
        let mut params = params(4);
        let before = first(&params);
        params.sites[1].store.set_cookie = true;
        params.sites[2].upstream = 3;
        params.sites.push(Site {
            name: "new".to_owned(),
            ..site(0)
        });
        let next = before.next(&params);
        assert_eq!(eras(&next), [0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_site_that_comes_back_begins_anew() {
        let params = params(2);
        let mut fewer = params.clone();
        fewer.sites.pop();
        let back = first(&params).next(&fewer).next(&params);
        assert_eq!(eras(&back), [0, 2]);
    }

    #[test]
    fn where_origins_are_told_otherwise_every_site_begins_anew() {
        let before = params(2);
        let told = |change: &dyn Fn(&mut Params)| {
            let mut params = before.clone();
            change(&mut params);
            eras(&first(&before).next(&params))
        };
        assert_eq!(told(&|params| params.forwarded.told = Told::Append), [1, 1]);
        assert_eq!(told(&|params| params.identifier.push('2')), [1, 1]);
        assert_eq!(told(&|params| params.hops_max = 4), [1, 1]);
        // What only clients are told, or what bounds requests, is no reason.
        assert_eq!(told(&|params| params.via_response = false), [0, 0]);
        assert_eq!(told(&|params| params.request.body_bytes_max = 9), [0, 0]);
    }
}
