//! `host[:port]`, read strictly and spelled one way (RFC 3986 §3.2, RFC 9110 §4.2.3).
//!
//! Who may ask for which host is decided elsewhere; here a host is only told from what is none.

use super::request::Refusal;
use super::request::Scheme;
use std::net::Ipv6Addr;

/// Reads `host[:port]` strictly and returns it in lower case without the scheme's own port.
///
/// Refuses user information, white space, control characters and everything else RFC 3986 §3.2.2
/// does not allow in a host, an empty host, a port over 65535, and more than 255 bytes.
pub(super) fn normal_authority(authority: &[u8], scheme: Scheme) -> Result<String, Refusal> {
    if authority.len() > AUTHORITY_BYTES_MAX {
        return Err(Refusal::BadHost);
    }
    let authority = std::str::from_utf8(authority).map_err(|_| Refusal::BadHost)?;
    // Inside brackets a colon belongs to the address.
    let from = authority.find(']').unwrap_or(0);
    let colon = authority
        .get(from..)
        .and_then(|rest| rest.find(':'))
        .map(|at| at + from);
    let (host, port) = match colon {
        Some(at) => authority.split_at(at),
        None => (authority, ""),
    };
    let mut normal = normal_host(host).ok_or(Refusal::BadHost)?;
    match port_number(port.strip_prefix(':').unwrap_or_default())? {
        Some(number) if number != scheme.default_port() => {
            normal.push(':');
            normal.push_str(&number.to_string());
        }
        _ => {}
    }
    Ok(normal)
}

/// The authority without its port; an IPv6 address keeps its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    let end = match authority.rfind([':', ']']) {
        Some(at) if authority.as_bytes().get(at) == Some(&b':') => at,
        _ => authority.len(),
    };
    authority.get(..end).unwrap_or_default()
}

/// Returns a registered name or IPv4 address in lower case, or a bracketed IPv6 address in its
/// canonical spelling; `None` for anything else (RFC 3986 §3.2.2).
pub(super) fn normal_host(host: &str) -> Option<String> {
    if let Some(inside) = host.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => {
                let hex = |digit: Option<u8>| digit.is_some_and(|d| d.is_ascii_hexdigit());
                hex(bytes.next()) && hex(bytes.next())
            }
            _ => byte.is_ascii_alphanumeric() || HOST_PUNCTUATION.contains(&byte),
        };
        if !fits {
            return None;
        }
    }
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Reads the digits after the colon; none mean the default port (RFC 3986 §3.2.3).
fn port_number(digits: &str) -> Result<Option<u16>, Refusal> {
    if digits.is_empty() {
        return Ok(None);
    }
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Refusal::BadHost);
    }
    digits.parse().map(Some).map_err(|_| Refusal::BadHost)
}

/// Longest host and port together, in bytes: what DNS allows, and some room for the port.
const AUTHORITY_BYTES_MAX: usize = 255;

/// `unreserved` and `sub-delims` of RFC 3986 §2.2 and §2.3 beside letters and digits.
const HOST_PUNCTUATION: &[u8] = b"-._~!$&'()*+,;=";
