//! Which stored response may answer a request: the primary key, and the variant by `Vary`.

use super::request::NormalRequest;
use http::HeaderMap;
use http::HeaderName;

/// Names the target a response answers: BLAKE3 of site, authority, path and query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey(pub [u8; 16]);

/// Names one variant of a target by the values of the fields that `Vary` selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantKey(pub u64);

impl VariantKey {
    /// The only variant of a response without `Vary`.
    pub const ONLY: Self = Self(0);
}

/// What goes into a site's primary keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// `http` and `https` have separate responses.
    pub scheme: bool,
}

/// What a response says about which requests it answers (RFC 9110 §12.5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, or a value that cannot be read: matches no later request.
    Any,
    /// The named fields, lower case, sorted, without repeats; often none.
    Fields(Vec<HeaderName>),
}

impl Vary {
    /// Reads all `Vary` lines of a response.
    pub fn read(_headers: &HeaderMap) -> Self {
        todo!()
    }
}

impl PrimaryKey {
    /// Computes the key of a request to the site called `site`.
    pub fn new(_site: &str, _request: &NormalRequest, _policy: &KeyPolicy) -> Self {
        todo!()
    }
}

impl VariantKey {
    /// Computes the variant that `request_headers` select among responses that vary by `fields`.
    pub fn new(_fields: &[HeaderName], _request_headers: &HeaderMap) -> Self {
        todo!()
    }
}
