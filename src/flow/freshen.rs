//! What one answer of the origin says of stored responses beside the one it was asked about, and
//! what a HEAD says of those that have no validator (RFC 9111 §4.3.4, §4.3.5).
//!
//! ```text
//! 304 ─────────► those that bear "one of those same strong validators" are freshened too
//! HEAD ── 200 ─► each that could have been chosen: freshened when it describes it, else removed
//! ```

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::deliver;
use super::lookup::failed;
use super::origin::FetchError;
use super::shelf::Stored;
use crate::clock;
use crate::rules::address::Sequence;
use crate::rules::cache_status::Outcome;
use crate::rules::directives::ResponseDirectives;
use crate::rules::stored::StoredResponse;
use crate::rules::validation::describes;
use crate::rules::validation::freshen;
use crate::rules::validation::selects_strongly;
use crate::state::index::Found;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::response::Parts;
use std::sync::Arc;
use std::time::SystemTime;

impl Engine {
    /// Freshens what else a 304 speaks of, among the responses that could have answered `ask`: at
    /// most as many as a target may have variants, mostly none. What was stored `since` it was asked
    /// for is newer than what it says. Dropped half-way, some have been freshened.
    pub(super) async fn freshen_others(
        self: &Arc<Self>,
        ask: &Ask,
        asked_about: Found,
        head: &Parts,
        request_time: SystemTime,
        since: Sequence,
    ) {
        for found in self.shelf.candidates(ask.keys(), ask.request.headers()) {
            if found == asked_about || found.sequence > since {
                continue;
            }
            // Taken before the look, so that a purge from here on covers what is kept.
            let sequence = self.shelf.next_sequence();
            let Some(stored) = self.shelf.load(found).await else {
                continue;
            };
            if selects_strongly(head, &stored.response) {
                self.refresh(ask, &stored, head, sequence, request_time)
                    .await;
            }
        }
    }

    /// Passes a HEAD for which there is a stored response that no conditional request can validate,
    /// and heeds what the answer says of it.
    pub(super) async fn head(
        self: &Arc<Self>,
        ask: Box<Ask>,
        stale: Stored,
        outcome: Outcome,
    ) -> Answer {
        let headers = self.forwarded_fields(&ask);
        let since = self.shelf.next_sequence();
        let request_time = clock::now();
        let error = match self.exchange(&ask, &Method::HEAD, &headers).await {
            Err(error) => error,
            Ok(exchange) if self.covers(&ask, exchange.response.status(), &stale) => {
                FetchError::Status(exchange.response.status())
            }
            Ok(exchange) => {
                let (head, body) = exchange.response.into_parts();
                if head.status == StatusCode::OK && self.speaks_for_all(&ask, &head.headers) {
                    self.heed_head(&ask, &head, request_time, since).await;
                }
                let response = deliver::private(&head, body);
                return Answer::new(response, outcome).by(exchange.backend);
            }
        };
        let stand_in = self.stand_in(&ask, &stale, outcome);
        stand_in.unwrap_or_else(|| failed(&error, outcome))
    }

    async fn heed_head(
        self: &Arc<Self>,
        ask: &Ask,
        head: &Parts,
        request_time: SystemTime,
        since: Sequence,
    ) {
        for found in self.shelf.candidates(ask.keys(), ask.request.headers()) {
            if found.sequence > since {
                continue;
            }
            let sequence = self.shelf.next_sequence();
            let Some(stored) = self.shelf.load(found).await else {
                continue;
            };
            match describes(head, &stored.response) {
                Some(true) => {
                    self.refresh(ask, &stored, head, sequence, request_time)
                        .await;
                }
                Some(false) => self.shelf.remove(found),
                None => {}
            }
        }
    }

    /// Keeps what a new head makes of a stored response, or removes it when it must not be kept.
    async fn refresh(
        self: &Arc<Self>,
        ask: &Ask,
        stored: &Stored,
        head: &Parts,
        sequence: Sequence,
        request_time: SystemTime,
    ) {
        let now = clock::now();
        let fresh = self.freshen(ask, &stored.response, head, request_time, now);
        if fresh.worth_keeping(now) {
            // Not kept for want of room or because of a purge: then it is what it was, or gone.
            drop(
                self.shelf
                    .keep_head(sequence, stored, Arc::new(fresh))
                    .await,
            );
        } else {
            self.shelf.remove(stored.found);
        }
    }

    /// What a new head makes of a stored response.
    pub(super) fn freshen(
        &self,
        ask: &Ask,
        stored: &StoredResponse,
        head: &Parts,
        request_time: SystemTime,
        now: SystemTime,
    ) -> StoredResponse {
        let mut fresh = freshen(stored, head, &ask.site().store, request_time, now);
        fresh.names = ask.names(&fresh.headers);
        self.name(ask, &mut fresh);
        fresh.detach();
        fresh
    }

    /// What the origin says to one who has credentials is for others only if it says so
    /// (RFC 9111 §3.5).
    pub(super) fn speaks_for_all(&self, ask: &Ask, headers: &HeaderMap) -> bool {
        let targeted = &ask.site().store.targeted;
        !ask.request.headers().contains_key(AUTHORIZATION)
            || ResponseDirectives::read_targeted(headers, targeted).allow_authorized()
    }
}
