//! Requests that go to the origin on their own, and whose responses are for their client only.
//!
//! ```text
//! pass ───────► origin ─► the client
//! pass_unsafe ► origin ─► invalidate ─┬─► the client
//!                                     └─► a POST's answer that is the target's next one:
//!                                         Fill ─► the client, and the store for later GETs
//! ```
//!
//! One that may change things goes on a task that no client owns: whether or not the client waits
//! for the answer, what it made invalid is forgotten. Such tasks are bounded as exchanges are, by
//! the upstream's connections, its queue and its time limits.

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::deliver;
use super::lookup::failed;
use super::lookup::not_kept;
use super::lookup::remaining;
use super::origin::FetchError;
use super::shelf::lock;
use super::synth;
use super::trip::Active;
use super::trip::pour;
use super::upload::sent_on;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::cache_status::Outcome;
use crate::rules::invalidate::Selector;
use crate::rules::invalidate::invalidated_groups;
use crate::rules::invalidate::invalidated_targets;
use crate::rules::invalidate::is_safe;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::RequestBody as Framing;
use crate::rules::storable::BodyEnd;
use crate::rules::storable::Storable;
use crate::rules::stored::StoredResponse;
use crate::upstream::Body;
use crate::upstream::RequestBody;
use crate::upstream::UpstreamError;
use http::Method;
use http::response::Parts;
use std::sync::Arc;
use std::time::SystemTime;

impl Engine {
    /// Passes a request without a body.
    pub(super) async fn pass(self: &Arc<Self>, ask: Box<Ask>, outcome: Outcome) -> Answer {
        let headers = self.forwarded_fields(&ask);
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
        ask: Box<Ask>,
        body: RequestBody,
        outcome: Outcome,
    ) -> Answer {
        let bytes_max = ask.setup.params.request.body_bytes_max;
        let (body, fate) = sent_on(ask.request.body(), body, bytes_max);
        let engine = Arc::clone(self);
        let change = tokio::spawn(async move { engine.change(&ask, body, outcome).await });
        match change.await.unwrap_or(Err(FetchError::Abandoned)) {
            Err(FetchError::Upstream(UpstreamError::ClientBody)) => Answer {
                error: Some(ProxyError::HttpRequestError),
                ..Answer::new(synth::bad_body(fate.status()), outcome)
            },
            Err(error) => failed(&error, outcome),
            Ok(answer) => answer,
        }
    }

    /// Sends a request that may change things, and forgets what it made invalid.
    async fn change(
        self: &Arc<Self>,
        ask: &Ask,
        body: RequestBody,
        outcome: Outcome,
    ) -> Result<Answer, FetchError> {
        let headers = self.forwarded_fields(ask);
        // The sequence is taken before the request goes out: a purge from here on covers it.
        let since = self.shelf.next_sequence();
        let request_time = clock::now();
        let exchanged = match ask.request.body() {
            Framing::Empty => self.exchange(ask, ask.request.method(), &headers).await,
            Framing::Chunked | Framing::Length(_) => self.exchange_body(ask, &headers, body).await,
        };
        let exchange = match exchanged {
            Ok(exchange) => exchange,
            Err(error) => {
                // Nobody knows what the origin made of it.
                if error.may_have_arrived() && !is_safe(ask.request.method()) {
                    let request = &ask.request;
                    let (authority, target) = (request.authority(), request.target());
                    let site = ask.site();
                    let keys = self.keys_of_target(site, authority, target, request.scheme());
                    let selectors: Vec<Selector> = keys.into_iter().map(Selector::Url).collect();
                    self.forget(&selectors).await;
                }
                return Err(error);
            }
        };
        let (head, body) = exchange.response.into_parts();
        let next = self.next_stored(ask, &head, &body, request_time);
        let sequence = self.invalidate(ask, &head, next.as_ref(), since).await;
        let answer = match (next, sequence) {
            (Some(next), Some(sequence)) => {
                lock(&self.hit_for_miss).clear(ask.key);
                self.note_crowd(ask, &next);
                self.fill_posted(&head, next, body, sequence, outcome)
            }
            _ => Answer::new(deliver::private(&head, body), outcome),
        };
        Ok(answer.by(exchange.backend))
    }

    /// What a response to POST leaves in the store for later GETs, if anything (RFC 9110 §9.3.3).
    fn next_stored(
        &self,
        ask: &Ask,
        head: &Parts,
        body: &Body,
        request_time: SystemTime,
    ) -> Option<StoredResponse> {
        let too_large = |bytes| bytes > self.shelf.body_bytes_max(ask.key);
        if *ask.request.method() != Method::POST || body.length().is_some_and(too_large) {
            return None;
        }
        // The origin saw what no key contains.
        if !ask.request.counts_whole(&ask.site().key) {
            return None;
        }
        let verdict = Storable::decide(
            ask.key,
            &ask.request,
            head,
            BodyEnd::of(body.framed()),
            &ask.site().store,
            request_time,
            clock::now(),
        );
        match verdict {
            Storable::Store(mut stored) => {
                self.name(ask, &mut stored);
                stored.names = ask.names(&stored.headers);
                Some(*stored)
            }
            Storable::Refuse(_) => None,
        }
    }

    /// Sends a POST's response to its client while it is stored. Nobody else waits for it.
    fn fill_posted(
        self: &Arc<Self>,
        head: &Parts,
        stored: StoredResponse,
        mut body: Body,
        sequence: Sequence,
        outcome: Outcome,
    ) -> Answer {
        let (fill, mut writer) = self.start_fill(sequence, stored, body.length());
        let outcome = Outcome {
            stored: fill.not_kept.is_none(),
            ttl: Some(remaining(&fill.response)),
            detail: fill.not_kept.map(not_kept),
            ..outcome
        };
        let Some(response) = deliver::filling(head, &fill) else {
            return failed(&FetchError::Abandoned, outcome);
        };
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let _active = Active::new(&engine);
            if pour(&mut writer, &mut body).await {
                // Why it was not kept, if so, is in the store's own counts.
                drop(writer.finish().await);
            }
        });
        Answer::new(response, outcome)
    }

    /// Forgets what a non-error response to an unsafe method makes invalid (RFC 9111 §4.4,
    /// RFC 9875 §3).
    ///
    /// Returns the sequence under which `next`, what is to be stored of the response, may be kept:
    /// it is newer than what was just forgotten, and none when a purge came since the request went.
    async fn invalidate(
        &self,
        ask: &Ask,
        head: &Parts,
        next: Option<&StoredResponse>,
        since: Sequence,
    ) -> Option<Sequence> {
        let (status, headers) = (head.status, &head.headers);
        let site = ask.site();
        let (authority, scheme) = (ask.request.authority(), ask.request.scheme());
        let mut selectors: Vec<Selector> = invalidated_targets(&ask.request, status, headers)
            .iter()
            .flat_map(|target| self.keys_of_target(site, authority, target, scheme))
            .map(Selector::Url)
            .collect();
        let scope = ask.tag_scope();
        selectors.extend(invalidated_groups(&ask.request, status, headers, &scope));
        match next {
            Some(next) => self.supersede(&selectors, next, since).await,
            None if selectors.is_empty() => None,
            None => {
                self.forget(&selectors).await;
                None
            }
        }
    }
}
