//! Why a response of ours is an error, as `Proxy-Status` tells it (RFC 9209).
//!
//! Only the names on the wire are here. Which failure is which type, and the status that goes with
//! it, is decided in `flow/synth`.

use super::cache_status::Item;
use http::HeaderValue;

/// Error types of RFC 9209 §2.3 that Larder generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyError {
    /// `connection_limit_reached`: too many connections to the backend, or too many waiting for one.
    ConnectionLimitReached,
    /// `connection_refused`: nobody listens there.
    ConnectionRefused,
    /// `connection_terminated`: it was closed before any of the response came.
    ConnectionTerminated,
    /// `connection_timeout`: it could not be opened in time.
    ConnectionTimeout,
    /// `destination_ip_unroutable`: no way leads there.
    DestinationIpUnroutable,
    /// `destination_not_found`: no site serves the host that was asked for.
    DestinationNotFound,
    /// `destination_unavailable`: no backend may be asked.
    DestinationUnavailable,
    /// `dns_error`: the backend's name could not be resolved.
    DnsError,
    /// `http_protocol_error`: the response broke the protocol.
    HttpProtocolError,
    /// `http_request_error`: the client's request was refused.
    HttpRequestError,
    /// `http_response_header_section_size`: the response's head is too large.
    HttpResponseHeaderSectionSize,
    /// `http_response_incomplete`: the response ended early.
    HttpResponseIncomplete,
    /// `http_response_timeout`: the response did not come in time.
    HttpResponseTimeout,
    /// `proxy_internal_error`: a fault of our own.
    ProxyInternalError,
    /// `proxy_internal_response`: made here, without asking the origin.
    ProxyInternalResponse,
    /// `proxy_loop_detected`: the request came through here too often.
    ProxyLoopDetected,
    /// `tls_alert_received`: the backend ended TLS with an alert.
    TlsAlertReceived,
    /// `tls_certificate_error`: the backend's certificate could not be verified.
    TlsCertificateError,
    /// `tls_protocol_error`: the TLS handshake or session failed.
    TlsProtocolError,
}

impl ProxyError {
    /// Every type there is here, for the tables of counters.
    pub const ALL: &'static [Self] = &[
        Self::ConnectionLimitReached,
        Self::ConnectionRefused,
        Self::ConnectionTerminated,
        Self::ConnectionTimeout,
        Self::DestinationIpUnroutable,
        Self::DestinationNotFound,
        Self::DestinationUnavailable,
        Self::DnsError,
        Self::HttpProtocolError,
        Self::HttpRequestError,
        Self::HttpResponseHeaderSectionSize,
        Self::HttpResponseIncomplete,
        Self::HttpResponseTimeout,
        Self::ProxyInternalError,
        Self::ProxyInternalResponse,
        Self::ProxyLoopDetected,
        Self::TlsAlertReceived,
        Self::TlsCertificateError,
        Self::TlsProtocolError,
    ];

    /// The registered name (RFC 9209 §2.3).
    pub fn token(self) -> &'static str {
        match self {
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionTimeout => "connection_timeout",
            Self::DestinationIpUnroutable => "destination_ip_unroutable",
            Self::DestinationNotFound => "destination_not_found",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DnsError => "dns_error",
            Self::HttpProtocolError => "http_protocol_error",
            Self::HttpRequestError => "http_request_error",
            Self::HttpResponseHeaderSectionSize => "http_response_header_section_size",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::ProxyInternalResponse => "proxy_internal_response",
            Self::ProxyLoopDetected => "proxy_loop_detected",
            Self::TlsAlertReceived => "tls_alert_received",
            Self::TlsCertificateError => "tls_certificate_error",
            Self::TlsProtocolError => "tls_protocol_error",
        }
    }

    /// Writes the field value, `identifier` first.
    pub fn field_value(self, identifier: &str) -> HeaderValue {
        let mut item = Item::new(identifier);
        item.token("error", self.token());
        item.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_names_us_and_the_error() {
        let value = ProxyError::ConnectionRefused.field_value("larder");
        assert_eq!(value, "larder; error=connection_refused");
    }

    #[test]
    fn a_name_that_is_no_token_is_a_string() {
        let value = ProxyError::DnsError.field_value("edge 1");
        assert_eq!(value, "\"edge 1\"; error=dns_error");
    }

    #[test]
    fn every_error_has_a_name_of_its_own() {
        let mut names: Vec<_> = ProxyError::ALL.iter().map(|error| error.token()).collect();
        assert!(names.is_sorted());
        names.dedup();
        assert_eq!(names.len(), ProxyError::ALL.len());
    }
}
