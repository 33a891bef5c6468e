//! Whom a message has come through: `Via`, and `CDN-Loop` against requests that go in circles.
//!
//! Every request that is sent on says in both that it has come through here (RFC 9110 §7.6.3,
//! RFC 8586 §2). One that comes back is refused: a backend that leads back to us would cost every
//! connection there is, and a request that shares its own trip would wait for itself.
//!
//! ```text
//! CDN-Loop: larder; id=5f1c…    this very process: refused at once
//! CDN-Loop: larder; id=…        another one of the same name, as in tiers: refused after a few
//! ```
//!
//! `Via` names protocols and is written by proxies of all kinds; only `CDN-Loop` is looked at.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;

/// Who we are on a message's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The name that is shared by all that are configured alike: a token.
    pub identifier: String,
    /// What tells this process from all others: letters and digits.
    pub instance: String,
    /// How often a request may have come through others of our name.
    pub passes_max: usize,
}

impl Hop {
    /// The `Via` member for a message received by this version of HTTP; `None` for an identifier
    /// that no field can hold.
    pub fn via(&self, version: Version) -> Option<HeaderValue> {
        let version = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        HeaderValue::from_str(&format!("{version} {}", self.identifier)).ok()
    }

    /// Says that a request has come through here.
    pub fn sign(&self, headers: &mut HeaderMap, version: Version) {
        if let Some(via) = self.via(version) {
            headers.append(header::VIA, via);
        }
        let member = format!("{}; id={}", self.identifier, self.instance);
        if let Ok(member) = HeaderValue::from_str(&member) {
            headers.append(CDN_LOOP, member);
        }
    }

    /// Whether a request has come through here before, or too often through others of our name.
    ///
    /// A comma or semicolon in a quoted parameter counts as one outside: what a client adds by that
    /// brings only its own request to its end, and a quotation mark that it leaves open hides
    /// nothing.
    pub fn seen(&self, headers: &HeaderMap) -> bool {
        let mut passes = 0_usize;
        let lines = headers.get_all(CDN_LOOP).iter();
        for member in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            if parts.next() != Some(self.identifier.as_bytes()) {
                continue;
            }
            passes = passes.saturating_add(1);
            let ids = parts.filter_map(|part| part.strip_prefix(b"id="));
            let here = ids.into_iter().any(|id| id == self.instance.as_bytes());
            if here || passes > self.passes_max {
                return true;
            }
        }
        false
    }
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn hop() -> Hop {
        Hop {
            identifier: "larder".to_owned(),
            instance: "1f".to_owned(),
            passes_max: 2,
        }
    }

    fn seen(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CDN_LOOP, HeaderValue::from_str(line).unwrap());
        }
        hop().seen(&headers)
    }

    #[test]
    fn a_request_says_that_it_came_through_here() {
        let mut headers = HeaderMap::new();
        headers.append("via", HeaderValue::from_static("1.0 fred"));
        hop().sign(&mut headers, Version::HTTP_11);
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("via"), ["1.0 fred", "1.1 larder"]);
        assert_eq!(all("cdn-loop"), ["larder; id=1f"]);
    }

    #[test]
    fn via_names_the_version_that_the_message_came_by() {
        assert_eq!(hop().via(Version::HTTP_10).unwrap(), "1.0 larder");
        assert_eq!(hop().via(Version::HTTP_2).unwrap(), "2 larder");
    }

    #[test]
    fn a_request_that_was_here_is_known() {
        assert!(seen(&["larder; id=1f"]));
        assert!(seen(&["fred, larder;id=1f;x=y , bar"]));
        assert!(!seen(&[]));
        assert!(!seen(&["fred; id=1f", "larder; id=1f0", "larder; id=2"]));
    }

    #[test]
    fn others_of_our_name_may_be_passed_up_to_a_bound() {
        assert!(!seen(&["larder, larder; id=2"]));
        assert!(seen(&["larder", "larder; id=2, larder;id=3"]));
    }

    #[test]
    fn other_names_do_not_count() {
        assert!(!seen(&[
            "larder2, Larder, my.larder, foo; larder",
            "larder.2"
        ]));
    }

    #[test]
    fn an_open_quotation_hides_nothing() {
        assert!(seen(&["foo; x=\"", "larder; id=1f"]));
        assert!(seen(&["foo; x=\", larder; id=1f"]));
    }

    proptest! {
        #[test]
        fn whatever_was_there_a_signature_is_seen(lines in vec("[ -~]{0,40}", 0..4)) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(CDN_LOOP, HeaderValue::from_str(line).unwrap());
            }
            hop().sign(&mut headers, Version::HTTP_11);
            prop_assert!(hop().seen(&headers));
        }
    }
}
