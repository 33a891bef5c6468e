//! Does a stored response that varies answer a request with other fields (RFC 9111 §4.1)?

use crate::arrival;
use crate::normal;
use crate::policy;
use crate::tally::Known;
use crate::tally::Tally;
use crate::tally::compare_all;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::request;
use http::response;
use http_cache_semantics::CacheOptions;
use http_cache_semantics::CachePolicy;
use larder::rules::key::PrimaryKey;
use larder::rules::key::VariantKey;
use larder::rules::storable::BodyEnd;
use larder::rules::storable::Storable;
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::sample::select;
use std::collections::BTreeSet;

const CASES: u32 = 20_000;

type Fields = Vec<(&'static str, &'static str)>;

/// A response that varies, the request that it answered, and another one.
#[derive(Debug)]
struct Pair {
    vary: Vec<&'static str>,
    first: Fields,
    second: Fields,
    ours: bool,
    oracle: bool,
}

impl Pair {
    fn new((vary, first, second): (Vec<&'static str>, Fields, Fields)) -> Self {
        let lines: Fields = vary.iter().map(|line| ("vary", *line)).collect();
        let response = response(&lines);
        let oracle = CachePolicy::new_options(
            &request(&first),
            &response,
            arrival(),
            CacheOptions::default(),
        );
        let again = oracle.before_request(&request(&second), arrival());
        Self {
            ours: ours(&first, &response, &second),
            oracle: again.satisfies_without_revalidation(),
            vary,
            first,
            second,
        }
    }

    /// The names in Vary.
    fn names(&self) -> BTreeSet<String> {
        let members = self.vary.iter().flat_map(|line| line.split(','));
        members
            .map(|name| name.trim().to_ascii_lowercase())
            .collect()
    }

    /// Whether a field that counts says the same things in both requests: its members, without
    /// white space, case, or order, and preferences without repeats.
    fn says_the_same(&self) -> bool {
        let said = |fields: &Fields, name: &str| {
            let lines: Vec<_> = fields.iter().filter(|(n, _)| *n == name).collect();
            let text = lines
                .iter()
                .map(|(_, value)| *value)
                .collect::<Vec<_>>()
                .join(",");
            let text = text.replace(' ', "").to_ascii_lowercase();
            let mut members: Vec<_> = text.split(',').map(str::to_owned).collect();
            members.sort_unstable();
            if name.starts_with("accept") {
                members.dedup();
            }
            (!lines.is_empty()).then_some(members)
        };
        let names = self.names();
        let mut names = names.iter();
        names.all(|name| said(&self.first, name) == said(&self.second, name))
    }

    /// Whether a field that counts comes on several lines, of which the oracle reads one.
    fn has_repeated_lines(&self) -> bool {
        let repeated = |fields: &Fields| {
            let mut names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
            let counts = self.names();
            names.retain(|name| counts.contains(*name));
            let all = names.len();
            names.dedup();
            all != names.len()
        };
        repeated(&self.first) || repeated(&self.second)
    }
}

/// Whether our stored response answers the second request.
fn ours(first: &Fields, response: &response::Parts, second: &Fields) -> bool {
    let verdict = Storable::decide(
        PrimaryKey([0; 16]),
        &normal(request(first)),
        response,
        BodyEnd::Framed,
        &policy(),
        arrival(),
        arrival(),
    );
    match verdict {
        Storable::Store(stored) => {
            VariantKey::new(&stored.vary, &request(second).headers) == stored.variant
        }
        // `Vary: *` answers nobody.
        Storable::Refuse(_) => false,
    }
}

fn request(fields: &Fields) -> request::Parts {
    let builder = Request::builder().method(Method::GET).uri("/a");
    let mut parts = builder.body(()).expect("a request").into_parts().0;
    parts.headers = headers(fields);
    parts
        .headers
        .insert("host", HeaderValue::from_static("example.com"));
    parts
}

fn response(fields: &Fields) -> response::Parts {
    let mut parts = Response::new(()).into_parts().0;
    parts.headers = headers(fields);
    parts
        .headers
        .insert("cache-control", HeaderValue::from_static("max-age=60"));
    parts
}

fn headers(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

const KNOWN: &[Known<Pair>] = &[
    Known {
        name: "another spelling of the same",
        because: "9111 §4.1: \"normalizing both header field values in a way that is known to have \
                  identical semantics\"",
        applies: |pair| pair.ours && pair.says_the_same(),
    },
    Known {
        name: "a field on several lines",
        because: "9111 §4.1: \"combining multiple header field lines with the same field name\"",
        applies: |pair| pair.oracle && pair.has_repeated_lines() && !pair.says_the_same(),
    },
];

#[test]
fn requests_select_the_same_responses() {
    let tally = Tally::new(KNOWN);
    compare_all(CASES, &pairs(), |pair| {
        let pair = Pair::new(pair);
        tally.compare(&pair, pair.ours == pair.oracle)
    });
    tally.close(&format!("selecting, {CASES} pairs of requests"));
}

fn pairs() -> impl Strategy<Value = (Vec<&'static str>, Fields, Fields)> {
    let vary = select(vec![
        "accept-language",
        "accept-encoding",
        "Accept-Language, x-kind",
        "x-kind",
        "x-other",
        "*",
        "x-kind, *",
        "",
    ]);
    let field = || {
        select(vec![
            ("accept-encoding", "gzip"),
            ("accept-encoding", "gzip, br"),
            ("accept-encoding", "br,gzip"),
            ("accept-encoding", "GZIP"),
            ("accept-encoding", "gzip;q=0"),
            ("accept-language", "en"),
            ("accept-language", "EN"),
            ("accept-language", "en, fr"),
            ("accept-language", "fr,en"),
            ("accept-language", "fr;q=0.5"),
            ("x-kind", "1"),
            ("x-kind", "2"),
            ("x-kind", "1, 2"),
            ("x-kind", ""),
            ("x-other", "1"),
        ])
    };
    let fields = || {
        vec(field(), 0..4).prop_map(|mut fields| {
            fields.sort_by_key(|(name, _)| *name);
            fields
        })
    };
    (vec(vary, 1..3), fields(), fields()).prop_map(|(mut vary, first, second)| {
        vary.retain(|line| !line.is_empty());
        (vary, first, second)
    })
}
