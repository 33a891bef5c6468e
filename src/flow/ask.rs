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
    pub(super) key: PrimaryKey,
    pub(super) directives: RequestDirectives,
}
