//! Requests that go to the origin on their own, and whose responses are for their client only.

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::deliver;
use super::lookup::failed;
use super::origin::FetchError;
use super::origin::forwarded_fields;
use super::synth;
use super::upload::sent_on;
use crate::rules::cache_status::Outcome;
use crate::rules::invalidate::invalidated_targets;
use crate::rules::key::PrimaryKey;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::RequestBody as Framing;
use crate::upstream::RequestBody;
use crate::upstream::UpstreamError;
use http::HeaderMap;
use http::StatusCode;
use std::sync::Arc;

impl Engine {
    /// Passes a request without a body.
    pub(super) async fn pass(self: &Arc<Self>, ask: Ask, outcome: Outcome) -> Answer {
        let headers = forwarded_fields(&ask, &self.params.identifier);
        let exchanged = self.exchange(&ask, ask.request.method(), &headers).await;
        match exchanged {
            Err(error) => failed(&error, outcome),
            Ok(exchange) => {
                let (head, body) = exchange.response.into_parts();
                let response = deliver::private(&head, body);
                Answer::new(response, outcome).by(exchange.backend)
            }
        }
    }

    /// Passes a request that may change things, and forgets what it made invalid.
    pub(super) async fn pass_unsafe(
        self: &Arc<Self>,
        ask: Ask,
        body: RequestBody,
        outcome: Outcome,
    ) -> Answer {
        let headers = forwarded_fields(&ask, &self.params.identifier);
        let bytes_max = self.params.request.body_bytes_max;
        let (body, fate) = sent_on(ask.request.body(), body, bytes_max);
        let exchanged = match ask.request.body() {
            Framing::Empty => self.exchange(&ask, ask.request.method(), &headers).await,
            Framing::Chunked | Framing::Length(_) => self.exchange_body(&ask, &headers, body).await,
        };
        match exchanged {
            Err(FetchError::Upstream(UpstreamError::ClientBody)) => Answer {
                error: Some(ProxyError::HttpRequestError),
                ..Answer::new(synth::bad_body(fate.status()), outcome)
            },
            Err(error) => failed(&error, outcome),
            Ok(exchange) => {
                let (head, body) = exchange.response.into_parts();
                self.invalidate(&ask, head.status, &head.headers).await;
                let response = deliver::private(&head, body);
                Answer::new(response, outcome).by(exchange.backend)
            }
        }
    }

    /// Forgets what a non-error response to an unsafe method makes invalid (RFC 9111 §4.4).
    async fn invalidate(&self, ask: &Ask, status: StatusCode, headers: &HeaderMap) {
        let site = self.site(ask);
        let (authority, scheme) = (ask.request.authority(), ask.request.scheme());
        let keys: Vec<PrimaryKey> = invalidated_targets(&ask.request, status, headers)
            .iter()
            .flat_map(|target| self.keys_of_target(site, authority, target, scheme))
            .collect();
        if !keys.is_empty() {
            self.purge_keys(&keys).await;
        }
    }
}
