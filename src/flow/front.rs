//! Purges that are asked for on the front, where a site lets some addresses purge.
//!
//! Whatever is asked for, nothing of another site is purged. Who may ask is decided in
//! [`guard`](crate::rules::guard), what is asked for in [`dialect`](super::dialect).

use super::Answer;
use super::Engine;
use super::PurgeError;
use super::Site;
use super::dialect::Spoken;
use super::synth;
use super::synthetic;
use crate::rules::guard::PurgeKinds;
use crate::rules::request::NormalRequest;
use http::HeaderMap;
use http::Method;
use http::StatusCode;

impl Engine {
    /// Answers a request to purge from somebody who may; `headers` are its fields as they came.
    /// Dropped half-way, it may have purged.
    pub(super) async fn obey_front(
        &self,
        site: &Site,
        request: &NormalRequest,
        headers: Option<&HeaderMap>,
    ) -> Answer {
        let by_path = site.guard.purged_target(request.target());
        let by_path = by_path.filter(|_| *request.method() == Method::GET);
        // A GET that purges its path says no more.
        let nothing = HeaderMap::new();
        let spoken = Spoken {
            method: request.method(),
            headers: headers.unwrap_or(&nothing),
            scheme: None,
            authority: request.authority(),
            target: by_path.unwrap_or(request.target()),
        };
        let purge = match spoken.purge() {
            Ok(purge) => purge.within(&site.name),
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        if site.guard.purge_kinds == PurgeKinds::Urls && !purge.is_by_url() {
            return refused(StatusCode::FORBIDDEN, "only urls may be purged here");
        }
        match self.obey(purge, 0, Some(&site.name)).await {
            // Who asks by a path takes this for "was not stored".
            Ok(told) if by_path.is_some() && told.receipt.entries == Some(0) => {
                refused(StatusCode::NOT_FOUND, "nothing to purge")
            }
            Ok(told) => Answer::new(synth::purged(&told.receipt), synthetic()),
            Err(error @ PurgeError::PatternsFull(_)) => {
                refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
            }
            Err(error) => refused(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
}

fn refused(status: StatusCode, why: &str) -> Answer {
    Answer::new(synth::not_purged(status, why), synthetic())
}
