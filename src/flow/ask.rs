//! A request on its way through the house, with what was found out about it once.

use super::Site;
use super::origin::Origin;
use super::setup::Setup;
use crate::rules::directives::RequestDirectives;
use crate::rules::forwarded::Sender;
use crate::rules::key::PrimaryKey;
use crate::rules::request::NormalRequest;
use crate::rules::route::SiteId;
use crate::rules::tag::Names;
use crate::rules::tag::TagScope;
use crate::rules::trace::Trace;
use http::HeaderMap;
use std::sync::Arc;

/// An admitted request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) request: NormalRequest,
    pub(super) sender: Sender,
    /// The trace it belongs to, where there are such.
    pub(super) trace: Option<Trace>,
    pub(super) site: SiteId,
    /// What counted when it came.
    pub(super) setup: Arc<Setup>,
    /// The key of its own target.
    pub(super) key: PrimaryKey,
    /// The key it shares with equivalent targets, when there is such a one.
    pub(super) alike: Option<PrimaryKey>,
    pub(super) directives: RequestDirectives,
}

impl Ask {
    /// How it is served.
    pub(super) fn site(&self) -> &Site {
        self.setup.site(self.site)
    }

    /// Who is asked for what is not stored.
    pub(super) fn origin(&self) -> &Origin {
        self.setup.origin(self.site)
    }

    /// Tells trips apart that were made for the site when it was served otherwise.
    pub(super) fn era(&self) -> u64 {
        self.setup.era(self.site)
    }

    /// Whose tags a response to it bears.
    pub(super) fn tag_scope(&self) -> TagScope<'_> {
        let site = self.site();
        let (scheme, authority) = (self.request.scheme(), self.request.authority());
        TagScope::new(&site.name, scheme, authority, &site.key)
    }

    /// What purges find a response by that is stored for it.
    pub(super) fn names(&self, headers: &HeaderMap) -> Names {
        let policy = &self.site().tags;
        self.tag_scope()
            .names(self.request.target(), headers, policy)
    }

    /// Every key under which it may be answered.
    pub(super) fn keys(&self) -> impl Iterator<Item = PrimaryKey> {
        std::iter::once(self.key).chain(self.alike)
    }

    /// The key by which it shares trips to the origin at first.
    pub(super) fn shared_key(&self) -> PrimaryKey {
        self.alike.unwrap_or(self.key)
    }
}
