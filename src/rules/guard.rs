//! Security rules: which requests may come in at all, by method and address.
//!
//! ```text
//! without the certificate that the site wants ─► Refuse, or Redirect when it came in clear text
//! a purge from a listed address ───────────────► Purge
//! a purge from any other, TRACE ───────────────► Refuse
//! OPTIONS, Max-Forwards: 0 ────────────────────► Answer
//! in clear text, to a site that wants TLS ─────► Redirect
//! everything else ─────────────────────────────► Admit
//! ```
//!
//! TRACE is refused whatever its Max-Forwards: it would show a script the credentials that its own
//! browser added (RFC 9110 §9.3.8).
//! Methods are case-sensitive (RFC 9110 §9.1); one that is not known is the origin's business and
//! is admitted. Malformed requests and CONNECT never come this far:
//! [`request`](super::request) refuses them. Which site's policy applies is asked in
//! [`route`](super::route).

use super::identity::CertificatePolicy;
use super::identity::Identity;
use super::identity::admits;
use super::request::NormalRequest;
use super::request::Refusal;
use super::request::Scheme;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// What a site allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardPolicy {
    /// Addresses whose `PURGE` requests on the front are obeyed.
    pub purge_from: Vec<Network>,
    /// What they may purge.
    pub purge_kinds: PurgeKinds,
    /// A GET for this path with another behind it purges that one; empty: none does.
    pub purge_path: String,
    /// Its rules for client certificates; none when it asks for none.
    pub certificate: Option<CertificatePolicy>,
    /// Requests in clear text are sent to `https`.
    pub redirect_https: bool,
}

/// What may be purged on the front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PurgeKinds {
    /// Anything of the site, and by BAN and PURGEKEYS too.
    All,
    /// One URL at a time.
    #[default]
    Urls,
}

/// An address block, as in `10.0.0.0/8`.
///
/// Bits behind the prefix are zero, and a block of IPv4-mapped IPv6 addresses is an IPv4 block, so
/// equal blocks are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What stands before the slash is no address.
    #[error("not an ip address")]
    Address,
    /// What stands behind the slash is no number of bits that the address has.
    #[error("not a prefix length from 0 to {bits}")]
    Prefix {
        /// How many bits the address has: 32 or 128.
        bits: u8,
    },
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Guard {
    /// Handle the request.
    Admit,
    /// Answer an OPTIONS as its final recipient (RFC 9110 §7.6.2).
    Answer,
    /// Obey it as a purge of its target.
    Purge,
    /// Send the client to the same target by `https`.
    Redirect,
    /// Answer with the refusal's status.
    Refuse(Refusal),
}

impl Guard {
    /// Decides about a request from `client`, whose handshake, if there was one, found out
    /// `identity`.
    pub fn decide(
        request: &NormalRequest,
        client: IpAddr,
        identity: Option<&Identity>,
        policy: &GuardPolicy,
    ) -> Self {
        // `OPTIONS *` asks about the server and has no URL to be sent to.
        let redirect =
            policy.redirect_https && request.scheme() == Scheme::Http && request.target() != "*";
        if !admits(policy.certificate.as_ref(), identity) {
            return match redirect {
                true => Self::Redirect,
                false => Self::Refuse(Refusal::MisdirectedRequest),
            };
        }
        if policy.purges(request) {
            return match policy.purge_from.iter().any(|net| net.contains(client)) {
                true => Self::Purge,
                false => Self::Refuse(Refusal::PurgeMethod),
            };
        }
        match request.method().as_str() {
            "TRACE" => Self::Refuse(Refusal::TraceMethod),
            "OPTIONS" if request.last_hop() => Self::Answer,
            _ if redirect => Self::Redirect,
            _ => Self::Admit,
        }
    }
}

impl GuardPolicy {
    /// Finds what a GET for this target would purge.
    pub fn purged_target<'t>(&self, target: &'t str) -> Option<&'t str> {
        if self.purge_path.is_empty() {
            return None;
        }
        let rest = target.strip_prefix(self.purge_path.as_str())?;
        rest.starts_with('/').then_some(rest)
    }

    /// Is this a request to purge something?
    fn purges(&self, request: &NormalRequest) -> bool {
        match request.method().as_str() {
            "PURGE" => true,
            "BAN" | "PURGEKEYS" => self.purge_kinds == PurgeKinds::All,
            "GET" => self.purged_target(request.target()).is_some(),
            _ => false,
        }
    }
}

impl Network {
    /// Returns the block of the addresses that share the first `prefix` bits with `address`.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if prefix > bits {
            return Err(NetworkError::Prefix { bits });
        }
        if let (IpAddr::V4(mapped), IpAddr::V6(_)) = (address.to_canonical(), address)
            && let Some(prefix) = prefix.checked_sub(96)
        {
            return Self::new(IpAddr::V4(mapped), prefix);
        }
        let address = keep_bits(address, prefix);
        Ok(Self { address, prefix })
    }

    /// Whether `address` is in the block. An IPv4-mapped IPv6 address counts as the IPv4 address,
    /// which is how IPv4 clients appear on a dual-stack socket.
    pub fn contains(self, address: IpAddr) -> bool {
        keep_bits(address.to_canonical(), self.prefix) == self.address
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `ADDRESS/BITS`, or `ADDRESS` for that address alone.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        match prefix {
            None => Self::new(address, bits),
            Some(digits) if !digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                Err(NetworkError::Prefix { bits })
            }
            Some(digits) => {
                let prefix = digits.parse().map_err(|_| NetworkError::Prefix { bits })?;
                Self::new(address, prefix)
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Clears all bits but the first `prefix`; more than the address has leave it as it is.
fn keep_bits(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = !u32::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = !u128::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::Params;
    use crate::rules::request::Scheme;
    use http::Request;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn contains(text: &str, address: &str) -> bool {
        network(text).contains(address.parse().unwrap())
    }

    fn request(method: &str, target: &str, scheme: Scheme, hops: &str) -> NormalRequest {
        let request = Request::builder().method(method).uri(target);
        let request = request.header("host", "a.test");
        let request = request.header("max-forwards", hops).body(()).unwrap();
        let params = Params {
            body_bytes_max: 0,
            target_bytes_max: 10,
        };
        NormalRequest::new(request.into_parts().0, scheme, &params).unwrap()
    }

    /// What becomes of a request with `method` from `client` when 10.0.0.0/8 may purge.
    fn decide(method: &str, client: &str) -> Guard {
        let policy = GuardPolicy {
            purge_from: vec![network("192.0.2.1"), network("10.0.0.0/8")],
            ..GuardPolicy::default()
        };
        let request = request(method, "/", Scheme::Http, "1");
        Guard::decide(&request, client.parse().unwrap(), None, &policy)
    }

    /// What becomes of a request to a site that wants TLS and, maybe, a certificate.
    fn decide_by(method: &str, target: &str, scheme: Scheme, certificate: bool) -> Guard {
        let policy = GuardPolicy {
            purge_from: vec![network("10.0.0.0/8")],
            certificate: certificate.then(|| CertificatePolicy {
                site: "a.test".into(),
                required: false,
            }),
            redirect_https: true,
            ..GuardPolicy::default()
        };
        let request = request(method, target, scheme, "1");
        Guard::decide(&request, "10.1.2.3".parse().unwrap(), None, &policy)
    }

    #[test]
    fn a_get_is_admitted() {
        assert_eq!(decide("GET", "10.1.2.3"), Guard::Admit);
    }

    #[test]
    fn an_unknown_method_is_admitted() {
        assert_eq!(decide("BREW", "10.1.2.3"), Guard::Admit);
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(decide("purge", "10.1.2.3"), Guard::Admit);
    }

    #[test]
    fn a_purge_from_a_listed_address_is_obeyed() {
        assert_eq!(decide("PURGE", "10.1.2.3"), Guard::Purge);
    }

    #[test]
    fn a_ban_is_the_origins_business_unless_all_kinds_may_be_purged() {
        let mut policy = GuardPolicy {
            purge_from: vec![network("10.0.0.0/8")],
            ..GuardPolicy::default()
        };
        let decide = |policy: &GuardPolicy, method, client: &str| {
            let request = request(method, "/", Scheme::Http, "1");
            Guard::decide(&request, client.parse().unwrap(), None, policy)
        };
        for method in ["BAN", "PURGEKEYS"] {
            assert_eq!(decide(&policy, method, "10.1.2.3"), Guard::Admit);
        }
        policy.purge_kinds = PurgeKinds::All;
        for method in ["BAN", "PURGEKEYS"] {
            assert_eq!(decide(&policy, method, "10.1.2.3"), Guard::Purge);
            let refused = Guard::Refuse(Refusal::PurgeMethod);
            assert_eq!(decide(&policy, method, "192.0.2.9"), refused);
        }
    }

    #[test]
    fn a_get_purges_what_follows_the_path_for_purges() {
        let policy = GuardPolicy {
            purge_from: vec![network("10.0.0.0/8")],
            purge_path: "/purge".to_owned(),
            ..GuardPolicy::default()
        };
        let decide = |target, client: &str| {
            let request = request("GET", target, Scheme::Http, "1");
            Guard::decide(&request, client.parse().unwrap(), None, &policy)
        };
        assert_eq!(decide("/purge/a", "10.1.2.3"), Guard::Purge);
        let refused = Guard::Refuse(Refusal::PurgeMethod);
        assert_eq!(decide("/purge/a", "192.0.2.9"), refused);
        for other in ["/purge", "/purged/a", "/a/purge/"] {
            assert_eq!(decide(other, "10.1.2.3"), Guard::Admit, "{other}");
        }
        assert_eq!(policy.purged_target("/purge/a?b"), Some("/a?b"));
        assert_eq!(GuardPolicy::default().purged_target("/a"), None);
    }

    #[test]
    fn a_purge_from_a_listed_address_on_a_dual_stack_socket_is_obeyed() {
        assert_eq!(decide("PURGE", "::ffff:10.1.2.3"), Guard::Purge);
    }

    #[test]
    fn a_purge_from_elsewhere_is_refused() {
        let refused = Guard::Refuse(Refusal::PurgeMethod);
        assert_eq!(decide("PURGE", "11.1.2.3"), refused);
    }

    #[test]
    fn trace_is_refused() {
        let refused = Guard::Refuse(Refusal::TraceMethod);
        assert_eq!(decide("TRACE", "10.1.2.3"), refused);
    }

    #[test]
    fn an_options_that_goes_no_further_is_answered_here() {
        let request = request("OPTIONS", "/", Scheme::Http, "0");
        let client = "10.1.2.3".parse().unwrap();
        let verdict = Guard::decide(&request, client, None, &GuardPolicy::default());
        assert_eq!(verdict, Guard::Answer);
        assert_eq!(decide("OPTIONS", "10.1.2.3"), Guard::Admit);
    }

    #[test]
    fn clear_text_is_sent_to_https_where_the_site_says_so() {
        let decide = |method, target, scheme| decide_by(method, target, scheme, false);
        assert_eq!(decide("GET", "/a", Scheme::Http), Guard::Redirect);
        assert_eq!(decide("POST", "/a", Scheme::Http), Guard::Redirect);
        assert_eq!(decide("GET", "/a", Scheme::Https), Guard::Admit);
        assert_eq!(decide("OPTIONS", "*", Scheme::Http), Guard::Admit);
        assert_eq!(decide("PURGE", "/a", Scheme::Http), Guard::Purge);
    }

    #[test]
    fn without_its_certificate_rules_a_site_is_not_reached() {
        let misdirected = Guard::Refuse(Refusal::MisdirectedRequest);
        for method in ["GET", "PURGE", "OPTIONS"] {
            assert_eq!(decide_by(method, "/", Scheme::Https, true), misdirected);
        }
        assert_eq!(decide_by("GET", "/", Scheme::Http, true), Guard::Redirect);
        assert_eq!(decide_by("OPTIONS", "*", Scheme::Http, true), misdirected);
    }

    #[test]
    fn nobody_may_purge_by_default() {
        assert!(GuardPolicy::default().purge_from.is_empty());
    }

    #[test]
    fn a_block_contains_its_first_and_last_address() {
        assert!(contains("10.0.0.0/8", "10.0.0.0"));
        assert!(contains("10.0.0.0/8", "10.255.255.255"));
    }

    #[test]
    fn a_block_ends_where_it_ends() {
        assert!(!contains("10.0.0.0/8", "9.255.255.255"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
    }

    #[test]
    fn a_bare_address_contains_only_itself() {
        assert!(contains("192.0.2.1", "192.0.2.1"));
        assert!(!contains("192.0.2.1", "192.0.2.0"));
    }

    #[test]
    fn a_prefix_of_zero_contains_every_address_of_its_family() {
        assert!(contains("0.0.0.0/0", "255.1.2.3"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn an_ipv6_block_contains_its_addresses() {
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::1"));
    }

    #[test]
    fn an_ipv6_block_does_not_contain_ipv4_clients() {
        assert!(!contains("::/0", "10.0.0.1"));
    }

    #[test]
    fn a_mapped_block_is_the_ipv4_block() {
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
    }

    #[test]
    fn bits_behind_the_prefix_do_not_count() {
        assert_eq!(network("10.1.2.3/8"), network("10.0.0.0/8"));
    }

    #[test]
    fn a_block_prints_as_it_is_written() {
        assert_eq!(network("10.0.0.0/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn malformed_addresses_are_errors() {
        for text in [
            "",
            "/8",
            "10.0.0/8",
            "a.test",
            "[::1]",
            "10.0.0.0:80",
            " 10.0.0.1",
        ] {
            assert_eq!(
                text.parse::<Network>(),
                Err(NetworkError::Address),
                "{text:?}"
            );
        }
    }

    #[test]
    fn malformed_prefixes_are_errors() {
        for text in [
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
        ] {
            let error = NetworkError::Prefix { bits: 32 };
            assert_eq!(text.parse::<Network>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn ipv6_has_more_bits() {
        let error = NetworkError::Prefix { bits: 128 };
        assert_eq!("::1/129".parse::<Network>(), Err(error));
    }

    proptest! {
        #[test]
        fn a_block_contains_the_address_it_is_made_of(bits: u128, prefix in 0_u8..=128) {
            let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
            prop_assert!(Network::new(address, prefix).unwrap().contains(address));
        }

        #[test]
        fn a_printed_block_reads_back(bits: u32, prefix in 0_u8..=32) {
            let block = Network::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix).unwrap();
            prop_assert_eq!(block.to_string().parse(), Ok(block));
        }
    }
}
