//! A request on its way through the house, with what was found out about it once.

use crate::rules::directives::RequestDirectives;
use crate::rules::forwarded::Sender;
use crate::rules::key::PrimaryKey;
use crate::rules::request::NormalRequest;
use crate::rules::route::SiteId;

/// An admitted request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) request: NormalRequest,
    pub(super) sender: Sender,
    pub(super) site: SiteId,
    /// The key of its own target.
    pub(super) key: PrimaryKey,
    /// The key it shares with equivalent targets, when there is such a one.
    pub(super) alike: Option<PrimaryKey>,
    pub(super) directives: RequestDirectives,
}

impl Ask {
    /// Every key under which it may be answered.
    pub(super) fn keys(&self) -> impl Iterator<Item = PrimaryKey> {
        std::iter::once(self.key).chain(self.alike)
    }

    /// The key by which it shares trips to the origin at first.
    pub(super) fn shared_key(&self) -> PrimaryKey {
        self.alike.unwrap_or(self.key)
    }
}
