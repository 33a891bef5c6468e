//! Requests that go to the origin on their own, and whose responses are for their client only.
//!
//! One that may change things goes on a task that no client owns: whether or not the client waits
//! for the answer, what it made invalid is forgotten. Such tasks are bounded as exchanges are, by
//! the upstream's connections, its queue and its time limits.

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::deliver;
use super::lookup::failed;
use super::origin::Exchange;
use super::origin::FetchError;
use super::origin::forwarded_fields;
use super::synth;
use super::upload::sent_on;
use crate::rules::cache_status::Outcome;
use crate::rules::invalidate::invalidated_groups;
use crate::rules::invalidate::invalidated_targets;
use crate::rules::invalidate::is_safe;
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
        let bytes_max = self.params.request.body_bytes_max;
        let (body, fate) = sent_on(ask.request.body(), body, bytes_max);
        let engine = Arc::clone(self);
        let change = tokio::spawn(async move { engine.change(&ask, body).await });
        match change.await.unwrap_or(Err(FetchError::Abandoned)) {
            Err(FetchError::Upstream(UpstreamError::ClientBody)) => Answer {
                error: Some(ProxyError::HttpRequestError),
                ..Answer::new(synth::bad_body(fate.status()), outcome)
            },
            Err(error) => failed(&error, outcome),
            Ok(exchange) => {
                let (head, body) = exchange.response.into_parts();
                let response = deliver::private(&head, body);
                Answer::new(response, outcome).by(exchange.backend)
            }
        }
    }

    /// Sends a request that may change things, and forgets what it made invalid.
    async fn change(&self, ask: &Ask, body: RequestBody) -> Result<Exchange, FetchError> {
        let headers = forwarded_fields(ask, &self.params.identifier);
        let exchanged = match ask.request.body() {
            Framing::Empty => self.exchange(ask, ask.request.method(), &headers).await,
            Framing::Chunked | Framing::Length(_) => self.exchange_body(ask, &headers, body).await,
        };
        match &exchanged {
            Ok(exchange) => {
                let response = &exchange.response;
                self.invalidate(ask, response.status(), response.headers())
                    .await;
            }
            // Nobody knows what the origin made of it.
            Err(error) if error.may_have_arrived() && !is_safe(ask.request.method()) => {
                let (target, site) = (&ask.request, self.site(ask));
                let (authority, scheme) = (target.authority(), target.scheme());
                let keys = self.keys_of_target(site, authority, target.target(), scheme);
                self.forget(&keys, &[]).await;
            }
            Err(_) => {}
        }
        exchanged
    }

    /// Forgets what a non-error response to an unsafe method makes invalid (RFC 9111 §4.4,
    /// RFC 9875 §3).
    async fn invalidate(&self, ask: &Ask, status: StatusCode, headers: &HeaderMap) {
        let site = self.site(ask);
        let (authority, scheme) = (ask.request.authority(), ask.request.scheme());
        let keys: Vec<PrimaryKey> = invalidated_targets(&ask.request, status, headers)
            .iter()
            .flat_map(|target| self.keys_of_target(site, authority, target, scheme))
            .collect();
        let groups = invalidated_groups(&ask.request, status, headers, &self.tag_scope(ask));
        if !keys.is_empty() || !groups.is_empty() {
            self.forget(&keys, &groups).await;
        }
    }
}
