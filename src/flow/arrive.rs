//! How far a request comes before the store is asked, and which way it goes from there.
//!
//! ```text
//! rules/request ─► a proof of ours? ─► rules/hops ─► rules/route ─► rules/guard ─► Ask, Course
//! ```
//!
//! Nothing is done here: [`Engine::handle`](super::Engine::handle) acts on what comes out, and an
//! explanation tells it.

use super::Engine;
use super::ask::Ask;
use super::setup::Setup;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use crate::rules::challenge;
use crate::rules::directives::RequestDirectives;
use crate::rules::forwarded::Sender;
use crate::rules::guard::Guard;
use crate::rules::identity::Identity;
use crate::rules::key::PrimaryKey;
use crate::rules::request::NormalRequest;
use crate::rules::request::Refusal;
use crate::rules::route::SiteId;
use crate::rules::upgrade::Protocol;
use http::Method;
use http::request::Parts;
use std::sync::Arc;
use std::sync::PoisonError;

/// How far a request came.
pub(super) enum Arrival {
    /// Its site lets it in.
    Admitted(Box<Ask>, Course),
    /// No site has its host.
    NoSite,
    /// It asks for this proof of ours.
    Proof(Arc<str>),
    /// It is refused before any site counts.
    Refused(Refusal),
    /// Its site does not let it in.
    TurnedAway(SiteId, NormalRequest, Turn),
}

/// What its site does with a request that it does not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Obeys it as a purge.
    Purge,
    /// Sends it to the same target by `https`.
    Redirect,
    /// Refuses it.
    Refuse(Refusal),
}

/// Which way an admitted request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It is answered here: an OPTIONS that goes no further.
    Options,
    /// Past the store, as this.
    Pass(Outcome),
    /// It is refused.
    Refuse(Refusal),
    /// The store is asked.
    Serve,
    /// Past the store, and the connection is upgraded.
    Upgrade(Protocol),
}

impl Engine {
    /// Finds out how far a request comes.
    pub(super) fn arrive(
        &self,
        setup: &Arc<Setup>,
        parts: Parts,
        sender: Sender,
        identity: Option<&Identity>,
    ) -> Arrival {
        let request = match NormalRequest::new(parts, sender.scheme, &setup.params.request) {
            Ok(request) => request,
            Err(refusal) => return Arrival::Refused(refusal),
        };
        if let Some(answer) = self.proof(&request) {
            return Arrival::Proof(answer);
        }
        if setup.hop.seen(request.headers()) {
            return Arrival::Refused(Refusal::LoopDetected);
        }
        let Some(site_id) = setup.params.routes.site(request.host()) else {
            return Arrival::NoSite;
        };
        let Some(site) = setup.params.sites.get(usize::from(site_id.0)) else {
            return Arrival::NoSite;
        };
        let course = match Guard::decide(&request, sender.address, identity, &site.guard) {
            Guard::Redirect => return Arrival::TurnedAway(site_id, request, Turn::Redirect),
            Guard::Refuse(refusal) => {
                return Arrival::TurnedAway(site_id, request, Turn::Refuse(refusal));
            }
            Guard::Admit => None,
            Guard::Answer => Some(Course::Options),
            Guard::Purge => return Arrival::TurnedAway(site_id, request, Turn::Purge),
        };
        // A handshake by another site's rules is nothing to this site's origin.
        let name = identity.filter(|_| site.guard.certificate.is_some());
        let request = match name.and_then(|identity| identity.name.as_ref()) {
            Some(name) => request.from_client(name),
            None => request,
        };
        let request = request.reduced(&site.key);
        // Boxed: it is handed on several times.
        let ask = Box::new(Ask {
            alike: self.alike(site, &request),
            key: PrimaryKey::new(&site.name, &request, &site.key),
            directives: RequestDirectives::read(request.headers()),
            sender,
            trace: None,
            site: site_id,
            setup: Arc::clone(setup),
            request,
        });
        let course = course.unwrap_or_else(|| Course::of(&ask));
        Arrival::Admitted(ask, course)
    }

    /// The answer to a request for a proof that we control its host. That comes before every rule of
    /// the site: it is not of the site, and must not end in a redirect to a certificate not yet there.
    fn proof(&self, request: &NormalRequest) -> Option<Arc<str>> {
        let token = challenge::token(request.target())?;
        if *request.method() != Method::GET && *request.method() != Method::HEAD {
            return None;
        }
        let challenges = self.challenges.read();
        let challenges = challenges.unwrap_or_else(PoisonError::into_inner);
        challenges.answer(token)
    }
}

impl Course {
    /// Which way a request goes that its site lets in.
    fn of(ask: &Ask) -> Self {
        let request = &ask.request;
        if let Some(protocol) = request.upgrade(&ask.site().upgrades) {
            return Self::Upgrade(protocol.clone());
        }
        if request.connects() {
            return Self::Refuse(Refusal::ConnectMethod);
        }
        if request.cacheable() {
            return Self::Serve;
        }
        let method = request.method();
        // A GET with a body has no such meaning: it is we who do not look (RFC 9110 §9.3.1).
        let (fwd, detail) = match *method == Method::GET || *method == Method::HEAD {
            true => (Forward::Bypass, Some(Detail::RequestBody)),
            false => (Forward::Method, None),
        };
        Self::Pass(Outcome {
            fwd: Some(fwd),
            detail,
            ..Outcome::default()
        })
    }
}
