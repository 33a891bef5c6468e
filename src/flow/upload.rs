//! A request's body on its way to the origin: bounded, without trailers, and able to say why it
//! ended.

use crate::rules::request::RequestBody as Framing;
use crate::upstream::RequestBody;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt;
use http_body_util::Empty;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

/// The error that a body ends with when it cannot go on.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What became of a client's body; read when the exchange it was sent with has failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<OnceLock<StatusCode>>);

impl Fate {
    /// The status the client has earned: 413, 408, or 400.
    pub(super) fn status(&self) -> StatusCode {
        self.0.get().copied().unwrap_or(StatusCode::BAD_REQUEST)
    }
}

/// No body, for requests that have none.
pub(super) fn no_body() -> RequestBody {
    Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The body to send on, at most `bytes_max` long, and its fate.
pub(super) fn sent_on(framing: Framing, body: RequestBody, bytes_max: u64) -> (RequestBody, Fate) {
    let fate = Fate::default();
    let body = match framing {
        Framing::Empty => no_body(),
        Framing::Chunked | Framing::Length(_) => Upload {
            body,
            left: bytes_max,
            fate: fate.clone(),
        }
        .boxed_unsync(),
    };
    (body, fate)
}

struct Upload {
    body: RequestBody,
    left: u64,
    fate: Fate,
}

impl Upload {
    fn end(&self, status: StatusCode, fault: Fault) -> Fault {
        // The first fault is the one that counts.
        self.fate.0.get_or_init(|| status);
        fault
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        while let Some(Ok(frame)) = &polled
            && frame.is_trailers()
        {
            // Trailer fields may be discarded, and must not be taken for header fields
            // (RFC 9110 §6.5.1).
            polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        }
        let frame = match polled {
            None => return Poll::Ready(None),
            Some(Err(fault)) => {
                let late = fault
                    .downcast_ref::<io::Error>()
                    .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
                let status = match late {
                    true => StatusCode::REQUEST_TIMEOUT,
                    false => StatusCode::BAD_REQUEST,
                };
                return Poll::Ready(Some(Err(self.end(status, fault))));
            }
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(bytes) else {
            let fault = Fault::from("the request body is too large");
            let fault = self.end(StatusCode::PAYLOAD_TOO_LARGE, fault);
            return Poll::Ready(Some(Err(fault)));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    async fn send(bytes: &'static [u8], bytes_max: u64) -> (bool, StatusCode) {
        let body = Full::new(Bytes::from_static(bytes))
            .map_err(|never| match never {})
            .boxed_unsync();
        let (body, fate) = sent_on(Framing::Chunked, body, bytes_max);
        (body.collect().await.is_ok(), fate.status())
    }

    #[tokio::test]
    async fn a_body_of_the_longest_length_goes_through() {
        assert!(send(b"12345", 5).await.0);
    }

    #[tokio::test]
    async fn a_longer_body_ends_in_413() {
        assert_eq!(
            send(b"12345", 4).await,
            (false, StatusCode::PAYLOAD_TOO_LARGE)
        );
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_ends_in_408() {
        struct Late;
        impl Body for Late {
            type Data = Bytes;
            type Error = Fault;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                Poll::Ready(Some(Err(late.into())))
            }
        }
        let (body, fate) = sent_on(Framing::Chunked, Late.boxed_unsync(), 5);
        assert!(body.collect().await.is_err());
        assert_eq!(fate.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_sent_without_one() {
        let (body, _) = sent_on(Framing::Empty, no_body(), 5);
        assert!(body.is_end_stream());
    }
}
