//! Security rules: which requests may come in at all, by method, address and path.

use super::request::NormalRequest;
use super::request::Refusal;
use std::net::IpAddr;

/// What a site allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardPolicy {
    /// Addresses whose `PURGE` requests on the front are obeyed.
    pub purge_from: Vec<Network>,
}

/// An address block, as in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Guard {
    /// Handle the request.
    Admit,
    /// Obey it as a purge of its target.
    Purge,
    /// Answer with the refusal's status.
    Refuse(Refusal),
}

impl Guard {
    /// Decides about a request from `client`.
    pub fn decide(_request: &NormalRequest, _client: IpAddr, _policy: &GuardPolicy) -> Self {
        todo!()
    }
}
