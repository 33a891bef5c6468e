//! Why a response of ours is an error, as `Proxy-Status` tells it (RFC 9209).

use http::HeaderValue;

/// Error types of RFC 9209 §2.3 that Larder generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyError {
    /// `connection_refused`.
    ConnectionRefused,
}

impl ProxyError {
    /// Writes the field value, `identifier` first.
    pub fn field_value(self, _identifier: &str) -> HeaderValue {
        todo!()
    }
}
