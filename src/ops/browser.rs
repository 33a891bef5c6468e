//! Did somebody else's web page have a browser send this?
//!
//! From a request's fields. A browser says in Origin which page sent a request with an effect; in Host
//! it says the name by which it came here. A page of the listener's own has both alike. That alone is
//! not enough: a stranger's name can be made to lead to this machine, and then the stranger's page is
//! alike too. So where no token tells friend from foe, what comes by a name of the network is a
//! stranger's; only addresses and `localhost` are ours.

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http::uri::Authority;
use std::net::IpAddr;

/// Was it sent by a page that is not the listener's own?
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let own = origin.as_bytes().strip_prefix(b"http://");
        own.is_none() || own != host || is_by_name(headers)
    })
}

/// Did it come by a name of the network? What has no Host was not sent by a browser.
pub fn is_by_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return true;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_err() && !host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    #[test]
    fn the_listener_s_own_page_is_no_stranger() {
        for host in [
            "127.0.0.1:8081",
            "localhost:8081",
            "LOCALHOST",
            "[::1]:8081",
        ] {
            let origin = format!("http://{host}");
            assert!(!is_foreign(&sent(host, Some(&origin))), "{host}");
        }
        assert!(!is_foreign(&sent("127.0.0.1:8081", None)));
        assert!(!is_foreign(&HeaderMap::new()));
    }

    #[test]
    fn every_other_page_is() {
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:8082",
            "https://127.0.0.1:8081",
            "null",
            "",
        ] {
            assert!(
                is_foreign(&sent("127.0.0.1:8081", Some(origin))),
                "{origin}"
            );
        }
        let mut two = sent("127.0.0.1:8081", Some("http://127.0.0.1:8081"));
        two.append(
            header::ORIGIN,
            HeaderValue::from_static("http://evil.example"),
        );
        assert!(is_foreign(&two));
    }

    #[test]
    fn a_stranger_s_name_that_leads_here_is_a_stranger_s() {
        let host = "evil.example:8081";
        assert!(is_foreign(&sent(host, Some("http://evil.example:8081"))));
        assert!(is_by_name(&sent(host, None)));
        assert!(is_by_name(&sent("localhost.evil.example", None)));
        assert!(is_by_name(&sent("127.0.0.1.evil.example", None)));
        assert!(is_by_name(&sent("", None)));
        assert!(!is_by_name(&sent("127.0.0.1", None)));
    }
}
