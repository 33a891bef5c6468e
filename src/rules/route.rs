//! Which site a request belongs to.

/// The number of a site: its place in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

/// Host patterns and their sites. Exact beats `*.example.com` beats `*`; longer wildcards first.
#[derive(Clone, Debug, Default)]
pub struct Routes {}

impl Routes {
    /// Builds the table. Fails with the offending pattern when one is malformed or given twice.
    pub fn new(_patterns: impl IntoIterator<Item = (String, SiteId)>) -> Result<Self, String> {
        todo!()
    }
    /// Finds the site for a host (lower case, without port).
    pub fn site(&self, _host: &str) -> Option<SiteId> {
        todo!()
    }
}
