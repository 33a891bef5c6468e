//! Who sent a request, when proxies stand between the client and us, and how origins are told.
//!
//! ```text
//! peer is no trusted proxy ─► the peer is the client; what it says of others does not count
//! peer is a trusted proxy ──► X-Forwarded-For from its end: the first address that is no trusted
//!                             proxy's is the client; X-Forwarded-Proto is how it came
//! ```
//!
//! Each proxy writes at the list's end whom it was asked by, so only what trusted proxies wrote is
//! believed, and a client cannot put an address in front of its own. The fields are dropped from
//! the request by [`request`](super::request) and written anew from the [`Sender`]. A proxy's
//! `Forwarded` (RFC 7239) is not read: one that writes only X-Forwarded-For lets its client's own
//! through. Loops are told in [`hops`](super::hops).

use super::guard::Network;
use super::request::Scheme;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// Whom to believe, and what to tell origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedPolicy {
    /// Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    pub trusted: Vec<Network>,
    /// What X-Forwarded-For lists.
    pub told: Told,
    /// Tell the same in `Forwarded` (RFC 7239).
    pub forwarded_field: bool,
}

/// What origins are told of the way a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// The client's address, and after it those of the trusted proxies.
    Append,
    /// The client's address alone.
    #[default]
    Set,
}

/// Where a request came from, as far as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The client's address.
    pub address: IpAddr,
    /// How it reached the first who is trusted: a proxy, or us.
    pub scheme: Scheme,
    /// The trusted proxies between it and us, ours last; at most [`PROXIES_MAX`].
    pub proxies: Vec<IpAddr>,
}

impl Sender {
    /// Finds the sender of a request that came from `peer` by `scheme`.
    pub fn read(headers: &HeaderMap, peer: IpAddr, scheme: Scheme, trusted: &[Network]) -> Self {
        let is_trusted = |address| trusted.iter().any(|block| block.contains(address));
        let mut sender = Self {
            address: peer.to_canonical(),
            scheme,
            proxies: Vec::new(),
        };
        if !is_trusted(sender.address) {
            return sender;
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let members = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for member in members.take(PROXIES_MAX) {
            // What stands before something unreadable was not written by its neighbour.
            let Some(address) = node_address(member) else {
                break;
            };
            sender.proxies.push(sender.address);
            sender.address = address;
            if !is_trusted(address) {
                break;
            }
        }
        sender.proxies.reverse();
        sender.scheme = told_scheme(headers).unwrap_or(scheme);
        sender
    }

    /// Tells an origin whom the request for `authority` came from.
    pub fn tell(&self, headers: &mut HeaderMap, authority: &str, policy: &ForwardedPolicy) {
        let proxies = match policy.told {
            Told::Append => self.proxies.as_slice(),
            Told::Set => &[],
        };
        let mut list = self.address.to_string();
        for proxy in proxies {
            // Writing to a String cannot fail.
            let _ = write!(list, ", {proxy}");
        }
        put(headers, X_FORWARDED_FOR, &list);
        put(headers, X_FORWARDED_HOST, authority);
        put(headers, X_FORWARDED_PROTO, self.scheme.as_str());
        if policy.forwarded_field {
            put(headers, FORWARDED, &self.forwarded(authority, proxies));
        }
    }

    /// The value of `Forwarded`: an element for each address, the nearest to the client first and
    /// with what it was asked for (RFC 7239 §4).
    fn forwarded(&self, authority: &str, proxies: &[IpAddr]) -> String {
        let scheme = self.scheme.as_str();
        let mut value = node(self.address);
        // An authority has no quotation mark and no backslash.
        let _ = write!(value, ";host=\"{authority}\";proto={scheme}");
        for proxy in proxies {
            let _ = write!(value, ", {}", node(*proxy));
        }
        value
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Writes a `for` parameter; what has a colon must be quoted (RFC 7239 §6).
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    }
}

/// Reads an address as proxies write it: with or without a port, IPv6 with or without brackets.
fn node_address(member: &[u8]) -> Option<IpAddr> {
    let member = std::str::from_utf8(member.trim_ascii()).ok()?;
    let bracketed = || -> Option<Ipv6Addr> {
        let inside = member.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse().ok()
    };
    let address = member
        .parse::<IpAddr>()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| member.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    Some(address.to_canonical())
}

/// Reads X-Forwarded-Proto; more than one value says nothing.
fn told_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut lines = headers.get_all(X_FORWARDED_PROTO).iter();
    let line = lines.next()?.as_bytes().trim_ascii();
    if lines.next().is_some() {
        return None;
    }
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find(|scheme| line.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
}

/// Most proxies in a row that are looked through.
pub const PROXIES_MAX: usize = 32;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Tells the origin the scheme that the client reached us by.
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// The sender of a request from `peer` when 10.0.0.0/8 and 2001:db8::/32 are trusted.
    fn sender(peer: &str, lines: &[(&'static str, &str)]) -> Sender {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|block| block.parse().unwrap());
        Sender::read(&fields(lines), ip(peer), Scheme::Http, &trusted)
    }

    fn told(sender: &Sender, policy: &ForwardedPolicy) -> HeaderMap {
        let mut headers = HeaderMap::new();
        sender.tell(&mut headers, "a.test:8080", policy);
        headers
    }

    #[test]
    fn a_stranger_is_the_client_whatever_it_says() {
        let lines = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ];
        let sender = sender("203.0.113.9", &lines);
        assert_eq!(sender.address, ip("203.0.113.9"));
        assert_eq!(sender.scheme, Scheme::Http);
        assert!(sender.proxies.is_empty());
    }

    #[test]
    fn a_trusted_proxy_says_who_the_client_is() {
        let lines = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "HTTPS"),
        ];
        let sender = sender("10.1.1.1", &lines);
        assert_eq!(sender.address, ip("192.0.2.1"));
        assert_eq!(sender.scheme, Scheme::Https);
        assert_eq!(sender.proxies, [ip("10.1.1.1")]);
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        let list = "10.9.9.9, 127.0.0.1, 192.0.2.1, 10.2.2.2";
        let sender = sender("10.1.1.1", &[("x-forwarded-for", list)]);
        assert_eq!(sender.address, ip("192.0.2.1"));
        assert_eq!(sender.proxies, [ip("10.2.2.2"), ip("10.1.1.1")]);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "203.0.113.7, 192.0.2.1"),
            ("x-forwarded-for", "10.2.2.2"),
        ];
        assert_eq!(sender("10.1.1.1", &lines).address, ip("192.0.2.1"));
    }

    #[test]
    fn nothing_before_what_cannot_be_read_counts() {
        for list in [
            "192.0.2.1, unknown",
            "192.0.2.1,",
            "192.0.2.1, _hidden",
            "192.0.2.1, 10.2.2",
        ] {
            let sender = sender("10.1.1.1", &[("x-forwarded-for", list)]);
            assert_eq!(sender.address, ip("10.1.1.1"), "{list}");
        }
    }

    #[test]
    fn a_request_that_only_trusted_proxies_handled_is_from_the_outermost() {
        let sender = sender("10.1.1.1", &[("x-forwarded-for", "10.3.3.3, 10.2.2.2")]);
        assert_eq!(sender.address, ip("10.3.3.3"));
    }

    #[test]
    fn a_trusted_proxy_that_says_nothing_is_the_client() {
        let sender = sender("10.1.1.1", &[]);
        assert_eq!((sender.address, sender.proxies), (ip("10.1.1.1"), vec![]));
    }

    #[test]
    fn addresses_are_read_with_and_without_port_and_brackets() {
        for (written, meant) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            (" 192.0.2.1\t", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db9::1", "2001:db9::1"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
        ] {
            let sender = sender("10.1.1.1", &[("x-forwarded-for", written)]);
            assert_eq!(sender.address, ip(meant), "{written}");
        }
    }

    #[test]
    fn proxies_are_looked_through_up_to_a_bound() {
        let list = format!("192.0.2.1{}", ", 10.2.2.2".repeat(PROXIES_MAX - 1));
        let lines = [("x-forwarded-for", list.as_str())];
        assert_eq!(sender("10.1.1.1", &lines).address, ip("192.0.2.1"));
        let list = format!("192.0.2.1{}", ", 10.2.2.2".repeat(PROXIES_MAX));
        let lines = [("x-forwarded-for", list.as_str())];
        let sender = sender("10.1.1.1", &lines);
        assert_eq!(sender.address, ip("10.2.2.2"));
        assert_eq!(sender.proxies.len(), PROXIES_MAX);
    }

    #[test]
    fn a_scheme_that_is_not_one_word_says_nothing() {
        for value in ["https, http", "ftp", "", "wss"] {
            let sender = sender("10.1.1.1", &[("x-forwarded-proto", value)]);
            assert_eq!(sender.scheme, Scheme::Http, "{value:?}");
        }
        let lines = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(sender("10.1.1.1", &lines).scheme, Scheme::Http);
    }

    #[test]
    fn origins_are_told_the_client_host_and_scheme() {
        let sender = sender("10.1.1.1", &[("x-forwarded-for", "192.0.2.1")]);
        let headers = told(&sender, &ForwardedPolicy::default());
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-host"], "a.test:8080");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn origins_are_told_the_whole_way_where_the_policy_says_so() {
        let policy = ForwardedPolicy {
            told: Told::Append,
            forwarded_field: true,
            ..ForwardedPolicy::default()
        };
        let list = "127.0.0.1, 2001:db9::1, 10.2.2.2";
        let sender = sender("2001:db8::1", &[("x-forwarded-for", list)]);
        let headers = told(&sender, &policy);
        assert_eq!(
            headers["x-forwarded-for"],
            "2001:db9::1, 10.2.2.2, 2001:db8::1"
        );
        let forwarded = "for=\"[2001:db9::1]\";host=\"a.test:8080\";proto=http, for=10.2.2.2, \
                         for=\"[2001:db8::1]\"";
        assert_eq!(headers["forwarded"], forwarded);
    }

    proptest! {
        #[test]
        fn any_list_leads_to_a_sender(list in "[ -~]{0,80}", more in vec(any::<u8>(), 0..40)) {
            let mut headers = fields(&[("x-forwarded-for", &list)]);
            if let Ok(more) = HeaderValue::from_bytes(&more) {
                headers.append("x-forwarded-for", more);
            }
            let trusted = ["0.0.0.0/0".parse().unwrap()];
            let sender = Sender::read(&headers, ip("10.1.1.1"), Scheme::Http, &trusted);
            prop_assert!(sender.proxies.len() <= PROXIES_MAX);
            prop_assert_eq!(sender.proxies.last().copied().unwrap_or(sender.address), ip("10.1.1.1"));
        }

        #[test]
        fn a_client_cannot_choose_its_address(claimed: u32, real: u32) {
            let (claimed, real) = (IpAddr::V4(claimed.into()), IpAddr::V4(real.into()));
            let list = format!("{claimed}, {real}");
            let sender = sender("10.1.1.1", &[("x-forwarded-for", &list)]);
            let trusted: Network = "10.0.0.0/8".parse().unwrap();
            prop_assume!(!trusted.contains(real));
            prop_assert_eq!(sender.address, real);
        }
    }
}
