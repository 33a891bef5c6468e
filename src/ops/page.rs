//! The dashboard's files, compiled in: what is where, and what a browser may do with it.
//!
//! They hold no figures and no secrets, so they are served to whoever asks; what they show is asked
//! for as anybody asks the admin listener. The browser runs and loads nothing but these files, and
//! talks to nobody but the listener they came from.

use super::answer::Answer;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::header;

/// One file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

impl Asset {
    /// The file at a path, if there is one.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    /// The file as a response.
    pub(super) fn respond(&self) -> Response<Answer> {
        let mut response = Response::new(Answer::from(self.text.to_owned()));
        let fields = [
            (header::CONTENT_TYPE, self.content_type),
            // Another version of larder has other files under the same names.
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (OPENER_POLICY, "same-origin"),
            (RESOURCE_POLICY, "same-origin"),
        ];
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

const ASSETS: &[Asset] = &[
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        text: include_str!("dashboard/index.html"),
    },
    Asset {
        path: "/dashboard/dashboard.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("dashboard/dashboard.css"),
    },
    Asset {
        path: "/dashboard/dashboard.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/dashboard.js"),
    },
    Asset {
        path: "/dashboard/icon.svg",
        content_type: "image/svg+xml",
        text: include_str!("dashboard/icon.svg"),
    },
    Asset {
        path: "/dashboard/uplot.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("dashboard/uplot/uPlot.min.css"),
    },
    Asset {
        path: "/dashboard/uplot.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("dashboard/uplot/uPlot.iife.min.js"),
    },
];

/// Everything from the listener itself, and nothing from anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there() {
        let page = Asset::at("/").unwrap().text;
        let named = page
            .split('"')
            .filter(|text| text.starts_with("/dashboard/"));
        let named: Vec<&str> = named.collect();
        assert_eq!(named.len(), ASSETS.len() - 1);
        for path in named {
            assert!(Asset::at(path).is_some(), "{path}");
        }
    }

    #[test]
    fn the_page_has_no_script_or_style_in_itself() {
        let page = Asset::at("/").unwrap().text;
        for banned in [
            "<style",
            " style=",
            "<script>",
            "javascript:",
            " onclick",
            "http://www",
            "https://",
        ] {
            assert!(!page.contains(banned), "{banned}");
        }
        let script = Asset::at("/dashboard/dashboard.js").unwrap().text;
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "eval(",
            "document.write",
        ] {
            assert!(!script.contains(banned), "{banned}");
        }
    }

    #[test]
    fn a_browser_is_told_to_load_nothing_from_elsewhere() {
        for asset in ASSETS {
            let response = asset.respond();
            let policy = &response.headers()["content-security-policy"];
            assert!(policy.to_str().unwrap().starts_with("default-src 'none';"));
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
        assert_eq!(Asset::at("/dashboard/"), None);
    }
}
