//! What can go wrong between us and an origin, and what follows from it.
//!
//! A caller asks four questions of a failure: may the request be repeated, was it a time limit,
//! does it speak against the backend, and which `Proxy-Status` error type is it (RFC 9209 §2.3).
//! They are answered here. The status code is chosen by `flow`.

use crate::rules::proxy_status::ProxyError;
use std::io;
use std::sync::Arc;

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The client's request body failed or timed out while it was being sent.
    #[error("the client's request body failed")]
    ClientBody,
    /// No connection within the time, or refused.
    #[error("could not connect to {address}: {reason}")]
    Connect {
        /// Whom.
        address: String,
        /// Why; decides the Proxy-Status type.
        reason: ConnectFailure,
    },
    /// The backend closed or reset the connection before the head.
    #[error("the connection closed before the response")]
    Closed,
    /// The backend did not take the request up: it refused the stream, or closed the connection
    /// before it came to it (RFC 9113 §8.7).
    #[error("the backend did not take the request")]
    Unprocessed,
    /// TLS failed after its handshake was done on our side, before the head. A backend may refuse
    /// our certificate as late as that (RFC 8446 §4.4.2.4).
    #[error("TLS failed before the response: {0}")]
    Tls(ConnectFailure),
    /// The response broke the protocol.
    #[error("the response broke the protocol: {0}")]
    Protocol(Arc<str>),
    /// The body ended before its length or last chunk.
    #[error("the response body is incomplete")]
    Incomplete,
    /// The head is larger than allowed.
    #[error("the response head is too large")]
    HeadTooLarge,
    /// Too many requests wait for this backend, or one waited too long for a connection.
    #[error("too many requests wait for this backend")]
    Saturated,
    /// No head within the time.
    #[error("no response within the time")]
    FirstByteTimeout,
    /// The body stalled.
    #[error("the response body stalled")]
    BetweenBytesTimeout,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The name could not be resolved.
    #[error("name not resolved")]
    Dns,
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// It took too long.
    #[error("timed out")]
    Timeout,
    /// No route leads to the address.
    #[error("no route")]
    Unroutable,
    /// This host has no descriptor, port or memory left for one more connection.
    #[error("this host is out of {0}")]
    Exhausted(Arc<str>),
    /// The backend's certificate could not be verified.
    #[error("the certificate does not hold: {0}")]
    TlsCertificate(Arc<str>),
    /// The backend refused to speak TLS with us.
    #[error("the TLS handshake was refused: {0}")]
    TlsAlert(Arc<str>),
    /// What the backend speaks is no TLS, or none that we have in common.
    #[error("the TLS handshake failed: {0}")]
    TlsProtocol(Arc<str>),
    /// The backend does not speak HTTP/2, which it was to be spoken to in.
    #[error("no HTTP/2: {0}")]
    Http2(Arc<str>),
    /// Anything else the system said.
    #[error("{0}")]
    Other(Arc<str>),
}

impl ConnectFailure {
    /// Is it for an operator to mend, and not to be seen from its name alone?
    pub(crate) fn is_for_operators(&self) -> bool {
        matches!(
            self,
            Self::TlsCertificate(_) | Self::TlsAlert(_) | Self::TlsProtocol(_) | Self::Http2(_)
        )
    }

    /// The error type that Proxy-Status gives it (RFC 9209 §2.3).
    fn proxy_error(&self) -> ProxyError {
        match self {
            Self::Dns => ProxyError::DnsError,
            Self::Refused => ProxyError::ConnectionRefused,
            Self::Timeout => ProxyError::ConnectionTimeout,
            Self::Unroutable => ProxyError::DestinationIpUnroutable,
            Self::Exhausted(_) => ProxyError::ConnectionLimitReached,
            Self::TlsCertificate(_) => ProxyError::TlsCertificateError,
            Self::TlsAlert(_) => ProxyError::TlsAlertReceived,
            Self::TlsProtocol(_) => ProxyError::TlsProtocolError,
            Self::Http2(_) => ProxyError::HttpProtocolError,
            Self::Other(_) => ProxyError::DestinationUnavailable,
        }
    }
}

impl UpstreamError {
    /// The error type that Proxy-Status gives it (RFC 9209 §2.3).
    pub fn proxy_error(&self) -> ProxyError {
        match self {
            Self::ClientBody => ProxyError::HttpRequestError,
            Self::Connect { reason, .. } | Self::Tls(reason) => reason.proxy_error(),
            Self::Closed => ProxyError::ConnectionTerminated,
            Self::Unprocessed => ProxyError::DestinationUnavailable,
            Self::Protocol(_) => ProxyError::HttpProtocolError,
            Self::Incomplete => ProxyError::HttpResponseIncomplete,
            Self::HeadTooLarge => ProxyError::HttpResponseHeaderSectionSize,
            Self::Saturated => ProxyError::ConnectionLimitReached,
            Self::FirstByteTimeout | Self::BetweenBytesTimeout => ProxyError::HttpResponseTimeout,
        }
    }

    /// May the same request be sent to another backend? Only when no byte of it can have been
    /// acted on, or the method is idempotent and the body empty (`safe_to_repeat`).
    ///
    /// A head that is too large would come again from any backend, and a client whose body failed
    /// has nothing left to repeat.
    pub fn retry(&self, safe_to_repeat: bool) -> bool {
        match self {
            Self::Connect { .. } | Self::Saturated | Self::Unprocessed => true,
            Self::ClientBody | Self::HeadTooLarge => false,
            Self::Closed
            | Self::Tls(_)
            | Self::Protocol(_)
            | Self::Incomplete
            | Self::FirstByteTimeout
            | Self::BetweenBytesTimeout => safe_to_repeat,
        }
    }

    /// May the backend have seen some of the request? Not before there was a connection.
    pub fn may_have_arrived(&self) -> bool {
        !matches!(
            self,
            Self::Connect { .. } | Self::Saturated | Self::Unprocessed
        )
    }

    /// Was it a time limit (504) rather than a fault (502)?
    pub fn timed_out(&self) -> bool {
        match self {
            Self::FirstByteTimeout | Self::BetweenBytesTimeout => true,
            Self::Connect { reason, .. } => *reason == ConnectFailure::Timeout,
            Self::ClientBody
            | Self::Closed
            | Self::Unprocessed
            | Self::Tls(_)
            | Self::Protocol(_)
            | Self::Incomplete
            | Self::HeadTooLarge
            | Self::Saturated => false,
        }
    }

    /// Does it speak against the backend (counted by state/health)?
    ///
    /// Not when the client failed, when we would not ask, or when this host ran out of something.
    pub fn blames_backend(&self) -> bool {
        match self {
            Self::ClientBody | Self::Saturated => false,
            Self::Connect { reason, .. } => !matches!(reason, ConnectFailure::Exhausted(_)),
            Self::Closed
            | Self::Unprocessed
            | Self::Tls(_)
            | Self::Protocol(_)
            | Self::Incomplete
            | Self::HeadTooLarge
            | Self::FirstByteTimeout
            | Self::BetweenBytesTimeout => true,
        }
    }

    /// A response that broke the protocol, and how.
    pub(crate) fn protocol(reason: &str) -> Self {
        Self::Protocol(Arc::from(reason))
    }
}

impl From<&io::Error> for ConnectFailure {
    fn from(error: &io::Error) -> Self {
        let is = |kind| error.kind() == kind;
        if is(io::ErrorKind::ConnectionRefused) {
            Self::Refused
        } else if is(io::ErrorKind::TimedOut) {
            Self::Timeout
        } else if is(io::ErrorKind::HostUnreachable) || is(io::ErrorKind::NetworkUnreachable) {
            Self::Unroutable
        } else if is(io::ErrorKind::AddrNotAvailable) {
            Self::Exhausted(Arc::from("ports"))
        } else if is(io::ErrorKind::OutOfMemory) {
            Self::Exhausted(Arc::from("memory"))
        } else if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
            Self::Exhausted(Arc::from("file descriptors"))
        } else {
            Self::Other(Arc::from(error.to_string()))
        }
    }
}

/// The system's table of open files is full; the standard library has no kind for it.
const ENFILE: i32 = 23;
/// The process has as many open files as it may.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(reason: ConnectFailure) -> UpstreamError {
        UpstreamError::Connect {
            address: String::from("http://origin:80"),
            reason,
        }
    }

    fn every_kind() -> Vec<UpstreamError> {
        vec![
            UpstreamError::ClientBody,
            connect(ConnectFailure::Dns),
            connect(ConnectFailure::Refused),
            connect(ConnectFailure::Timeout),
            connect(ConnectFailure::Unroutable),
            connect(ConnectFailure::Exhausted(Arc::from("ports"))),
            connect(ConnectFailure::TlsCertificate(Arc::from("expired"))),
            connect(ConnectFailure::TlsAlert(Arc::from("no"))),
            connect(ConnectFailure::TlsProtocol(Arc::from("what"))),
            connect(ConnectFailure::Http2(Arc::from("closed"))),
            connect(ConnectFailure::Other(Arc::from("broken"))),
            UpstreamError::Closed,
            UpstreamError::Unprocessed,
            UpstreamError::Tls(ConnectFailure::TlsAlert(Arc::from("no"))),
            UpstreamError::protocol("nonsense"),
            UpstreamError::Incomplete,
            UpstreamError::HeadTooLarge,
            UpstreamError::Saturated,
            UpstreamError::FirstByteTimeout,
            UpstreamError::BetweenBytesTimeout,
        ]
    }

    fn those(question: impl Fn(&UpstreamError) -> bool) -> Vec<UpstreamError> {
        every_kind().into_iter().filter(question).collect()
    }

    #[test]
    fn an_unsafe_request_is_repeated_only_when_nothing_was_sent() {
        for error in those(|error| error.retry(false)) {
            assert!(
                matches!(
                    error,
                    UpstreamError::Connect { .. }
                        | UpstreamError::Saturated
                        | UpstreamError::Unprocessed
                ),
                "{error}"
            );
        }
        assert!(connect(ConnectFailure::Refused).retry(false));
        assert!(UpstreamError::Saturated.retry(false));
    }

    #[test]
    fn a_repeatable_request_is_not_repeated_for_a_failed_client_or_an_oversized_head() {
        assert_eq!(
            those(|error| !error.retry(true)),
            [UpstreamError::ClientBody, UpstreamError::HeadTooLarge]
        );
    }

    #[test]
    fn only_time_limits_count_as_timed_out() {
        assert_eq!(
            those(UpstreamError::timed_out),
            [
                connect(ConnectFailure::Timeout),
                UpstreamError::FirstByteTimeout,
                UpstreamError::BetweenBytesTimeout
            ]
        );
    }

    #[test]
    fn a_backend_is_not_blamed_for_the_client_or_for_this_host() {
        assert_eq!(
            those(|error| !error.blames_backend()),
            [
                UpstreamError::ClientBody,
                connect(ConnectFailure::Exhausted(Arc::from("ports"))),
                UpstreamError::Saturated
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_tls_is_told_in_its_own_words() {
        let certificate = ConnectFailure::TlsCertificate(Arc::from("expired"));
        let alert = ConnectFailure::TlsAlert(Arc::from("no"));
        let protocol = ConnectFailure::TlsProtocol(Arc::from("what"));
        for (failure, expected) in [
            (certificate, ProxyError::TlsCertificateError),
            (alert, ProxyError::TlsAlertReceived),
            (protocol, ProxyError::TlsProtocolError),
        ] {
            assert_eq!(connect(failure.clone()).proxy_error(), expected);
            assert_eq!(UpstreamError::Tls(failure).proxy_error(), expected);
        }
    }

    #[test]
    fn system_errors_become_reasons() {
        let of = |code| ConnectFailure::from(&io::Error::from_raw_os_error(code));
        assert_eq!(of(111), ConnectFailure::Refused);
        assert_eq!(of(110), ConnectFailure::Timeout);
        assert_eq!(of(113), ConnectFailure::Unroutable);
        assert_eq!(
            of(EMFILE),
            ConnectFailure::Exhausted(Arc::from("file descriptors"))
        );
        assert!(matches!(of(13), ConnectFailure::Other(_)));
    }
}
