//! A second opinion on RFC 9111: `http-cache-semantics` is asked about the same messages.
//!
//! Generated header sets go to both. Each must give the same answers: may the response be stored,
//! and may it be served some time later without asking the origin (here)? Does it answer a request
//! with other fields ([`selecting`])? Is a 304 about it, and what does that make of its fields
//! ([`freshening`])? Where the answers differ, the difference must be in a table: known, with the
//! sentence that decides it, and with a condition narrow enough that nothing else hides behind it.
//! A listed difference that no message brings out fails the test too.
#![expect(
    clippy::expect_used,
    reason = "a message that cannot be built should stop the test"
)]

mod freshening;
mod selecting;
mod tally;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::request;
use http::response;
use http_cache_semantics::CacheOptions;
use http_cache_semantics::CachePolicy;
use larder::rules::directives::RequestDirectives;
use larder::rules::key::PrimaryKey;
use larder::rules::request::NormalRequest;
use larder::rules::request::Params;
use larder::rules::request::Scheme;
use larder::rules::reuse::ClientCacheControl;
use larder::rules::reuse::Reuse;
use larder::rules::storable::BodyEnd;
use larder::rules::storable::NotStorable;
use larder::rules::storable::Storable;
use larder::rules::storable::StorePolicy;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::Strategy;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::time::Duration;
use std::time::SystemTime;
use tally::Known;
use tally::Tally;
use tally::compare_all;

const CASES: u32 = 20_000;

/// One exchange, and how long after it the same request comes again.
#[derive(Clone, Debug)]
struct Scene {
    method: Method,
    status: u16,
    /// Request fields besides Cache-Control and Pragma.
    authorization: bool,
    /// Cache-Control and Pragma of the second request; the first has them only to forbid storing.
    wishes: Vec<&'static str>,
    request_no_store: Option<&'static str>,
    pragma: bool,
    client: ClientCacheControl,
    /// Lines of Cache-Control, each a list.
    cache_control: Vec<Vec<&'static str>>,
    targeted: Option<&'static str>,
    /// Other response fields, each a name and a value.
    fields: Vec<(&'static str, &'static str)>,
    later: u64,
}

impl Scene {
    fn directives(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.cache_control.iter().flatten().copied()
    }

    fn says(&self, start: &str) -> bool {
        self.directives().any(|text| text.starts_with(start))
    }

    fn wishes(&self, start: &str) -> bool {
        self.client == ClientCacheControl::Honour
            && self.wishes.iter().any(|text| text.starts_with(start))
    }

    fn values(&self, name: &str) -> Vec<&'static str> {
        let named = self.fields.iter().filter(|(field, _)| *field == name);
        named.map(|(_, value)| *value).collect()
    }

    fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    fn request(&self, cache_control: &str, pragma: bool) -> request::Parts {
        let mut builder = Request::builder().method(self.method.clone()).uri("/a");
        builder = builder.header("host", "example.com");
        if !cache_control.is_empty() {
            builder = builder.header("cache-control", cache_control);
        }
        if pragma {
            builder = builder.header("pragma", "no-cache");
        }
        if self.authorization {
            builder = builder.header("authorization", "Basic eA==");
        }
        builder.body(()).expect("a request").into_parts().0
    }

    /// The request that fetched the response.
    fn first_request(&self) -> request::Parts {
        self.request(self.request_no_store.unwrap_or_default(), false)
    }

    /// The request that comes later, as far as the client is listened to.
    fn second_request(&self) -> request::Parts {
        match self.client {
            ClientCacheControl::Ignore => self.request("", false),
            ClientCacheControl::Honour => self.request(&self.wishes.join(", "), self.pragma),
        }
    }

    fn response(&self) -> response::Parts {
        let mut headers = HeaderMap::new();
        for line in &self.cache_control {
            let value = HeaderValue::from_str(&line.join(", ")).expect("a value");
            headers.append("cache-control", value);
        }
        if let Some(value) = self.targeted {
            headers.append("cdn-cache-control", HeaderValue::from_static(value));
        }
        for (name, value) in &self.fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let builder = Response::builder().status(self.status);
        let mut parts = builder.body(()).expect("a response").into_parts().0;
        parts.headers = headers;
        parts
    }
}

/// What both sides answer.
#[derive(Debug)]
struct Answers {
    scene: Scene,
    ours: Storable,
    oracle_stores: bool,
    /// Asked only where both store.
    serving: Option<Serving>,
    /// The oracle would serve it the moment it arrived.
    oracle_serves_at_once: bool,
}

#[derive(Debug)]
struct Serving {
    ours: Reuse,
    oracle: bool,
}

impl Answers {
    fn new(scene: Scene) -> Self {
        let (first, second, response) = (
            scene.first_request(),
            scene.second_request(),
            scene.response(),
        );
        let oracle =
            CachePolicy::new_options(&first, &response, arrival(), CacheOptions::default());
        let now = arrival() + Duration::from_secs(scene.later);
        let serves = |request: &request::Parts, at| {
            oracle
                .before_request(request, at)
                .satisfies_without_revalidation()
        };
        let ours = ours(&scene);
        let oracle_stores = oracle.is_storable();
        let serving = match &ours {
            Storable::Store(stored) if oracle_stores => Some(Serving {
                ours: Reuse::decide(
                    stored,
                    &RequestDirectives::read(&second.headers),
                    scene.client,
                    now,
                ),
                oracle: serves(&second, now),
            }),
            Storable::Store(_) | Storable::Refuse(_) => None,
        };
        Self {
            oracle_serves_at_once: serves(&scene.request("", false), arrival()),
            ours,
            oracle_stores,
            serving,
            scene,
        }
    }

    fn refused_as(&self, reason: NotStorable) -> bool {
        self.ours == Storable::Refuse(reason) && self.oracle_stores
    }

    fn only_ours_stores(&self) -> bool {
        matches!(self.ours, Storable::Store(_)) && !self.oracle_stores
    }

    fn only_ours_serves(&self) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|serving| serves(&serving.ours) && !serving.oracle)
    }

    fn only_oracle_serves(&self) -> bool {
        self.serving
            .as_ref()
            .is_some_and(|serving| !serves(&serving.ours) && serving.oracle)
    }
}

/// Our verdict on storing the response of the first request.
fn ours(scene: &Scene) -> Storable {
    Storable::decide(
        PrimaryKey([0; 16]),
        &normal(scene.first_request()),
        &scene.response(),
        BodyEnd::Framed,
        &policy(),
        arrival(),
        arrival(),
    )
}

fn serves(reuse: &Reuse) -> bool {
    matches!(
        reuse,
        Reuse::Serve { .. } | Reuse::ServeStaleAndValidate { .. }
    )
}

fn normal(parts: request::Parts) -> NormalRequest {
    let params = Params {
        body_bytes_max: 0,
        target_bytes_max: 100,
    };
    NormalRequest::new(parts, Scheme::Http, &params).expect("a request we accept")
}

/// Guesses unbounded like the oracle's; otherwise what a site gets that says nothing.
fn policy() -> StorePolicy {
    StorePolicy {
        heuristic_max: Duration::MAX,
        ..StorePolicy::default()
    }
}

/// When the response arrives; the request was sent in the same moment.
fn arrival() -> SystemTime {
    httpdate::parse_http_date("Tue, 15 Nov 2022 12:00:00 GMT").expect("a date")
}

const STORING: &[Known<Answers>] = &[
    Known {
        name: "names of directives in another case",
        because: "9111 §5.2: directives are \"compared case-insensitively\"",
        applies: |a| {
            (a.refused_as(NotStorable::NoStore) && a.scene.says("No-Store"))
                || (a.refused_as(NotStorable::Private) && a.scene.says("PRIVATE"))
                || (a.only_ours_stores() && a.scene.says("MAX-AGE"))
                || (a.refused_as(NotStorable::RequestNoStore)
                    && a.scene.request_no_store == Some("NO-STORE"))
        },
    },
    Known {
        name: "a directive inside a quoted-string",
        because: "9110 §5.6.4: a quoted-string is one value",
        applies: |a| a.only_ours_stores() && a.scene.says("ext=\"a, no-store"),
    },
    Known {
        name: "private for some fields only",
        because: "9111 §5.2.2.7: the cache \"MAY store the remainder of the response\"",
        applies: |a| a.only_ours_stores() && a.scene.says("private=\"x-user\""),
    },
    Known {
        name: "no-store beside must-understand",
        because: "9111 §5.2.2.3: \"SHOULD ignore the no-store directive if it understands\"",
        applies: |a| {
            a.only_ours_stores() && a.scene.says("must-understand") && a.scene.says("no-store")
        },
    },
    Known {
        name: "a status that needs no understanding",
        because: "9111 §3: only for 206, 304 and must-understand must the cache understand it",
        applies: |a| {
            let (scene, unknown) = (&a.scene, [299, 400, 500, 503, 599]);
            a.only_ours_stores()
                && unknown.contains(&scene.status)
                && !scene.says("must-understand")
        },
    },
    Known {
        name: "must-understand for a status the oracle does not",
        because: "9111 §5.2.2.3: it limits caching to those that understand the status, as we do",
        applies: |a| {
            let understood = [400, 500, 503];
            a.only_ours_stores()
                && understood.contains(&a.scene.status)
                && a.scene.says("must-understand")
        },
    },
    Known {
        name: "a targeted field",
        because: "9213 §2.2: it \"MUST ignore the Cache-Control and Expires header fields\"",
        applies: |a| a.scene.targeted.is_some_and(|value| !value.is_empty()),
    },
    Known {
        name: "a field that breaks the grammar",
        because: "9110 §5.6.2: the rest of the list cannot be told; it may have been no-store",
        applies: |a| {
            let broken = |text: &str| BROKEN.contains(&text);
            a.refused_as(NotStorable::Malformed) && a.scene.directives().any(broken)
        },
    },
    Known {
        name: "methods other than GET",
        because: "9111 §3: a cache may decline to understand a method",
        applies: |a| a.refused_as(NotStorable::Method) && a.scene.method != Method::GET,
    },
    Known {
        name: "Vary: *",
        because: "9111 §4.1: it \"always fails to match\", so storing is of no use",
        applies: |a| a.refused_as(NotStorable::VaryAny) && !a.oracle_serves_at_once,
    },
    Known {
        name: "cookies",
        because: "9111 §7.3: caching Set-Cookie is allowed; the oracle wants public or immutable",
        applies: |a| {
            let opened = a.scene.says("public") || a.scene.says("immutable");
            a.refused_as(NotStorable::SetCookie) && (opened || !a.oracle_serves_at_once)
        },
    },
    Known {
        name: "a must-revalidate that nobody sent",
        because: "9111 §3.5: a response directive has to allow it; the oracle adds one of its own",
        applies: |a| a.refused_as(NotStorable::Authorization) && adds_must_revalidate(&a.scene),
    },
    Known {
        name: "nothing to reuse",
        because: "9111 §3 permits storing, §4.2 gives it no freshness and §4.3 no validator",
        applies: |a| {
            let useless = [NotStorable::NoFreshness, NotStorable::NoCache];
            useless.iter().any(|reason| a.refused_as(*reason)) && !a.oracle_serves_at_once
        },
    },
    Known {
        name: "immutable as a lifetime",
        because: "8246 §2: immutable says nothing about how long a response is fresh",
        applies: |a| a.refused_as(NotStorable::NoFreshness) && a.scene.says("immutable"),
    },
    Known {
        name: "spent on arrival, by its date",
        because: "9111 §4.2.3: apparent_age counts, so it was stale when it came",
        applies: |a| a.refused_as(NotStorable::NoFreshness) && dated_early(&a.scene),
    },
    Known {
        name: "spent on arrival, by what was said twice or badly",
        because: "9111 §4.2.1: invalid freshness information is stale, the most restrictive holds",
        applies: |a| a.refused_as(NotStorable::NoFreshness) && invalid_or_twice(&a.scene),
    },
    Known {
        name: "spent on arrival, by an Age the oracle cannot read",
        because: "9111 §5.1: \"use the first member\"; §1.2.2: too large is 2147483648",
        applies: |a| a.refused_as(NotStorable::NoFreshness) && aged_unreadably(&a.scene),
    },
];

const SERVING: &[Known<Answers>] = &[
    Known {
        name: "names of directives in another case",
        because: "9111 §5.2: directives are \"compared case-insensitively\"",
        applies: |a| a.scene.says("MAX-AGE") && (a.only_ours_serves() || a.only_oracle_serves()),
    },
    Known {
        name: "a directive inside a quoted-string",
        because: "9110 §5.6.4: a quoted-string is one value",
        applies: |a| a.scene.says("ext=\"a, max-age=0") && a.only_ours_serves(),
    },
    Known {
        name: "a targeted field",
        because: "9213 §2.2: it \"MUST ignore the Cache-Control and Expires header fields\"",
        applies: |a| a.scene.targeted.is_some_and(|value| !value.is_empty()),
    },
    Known {
        name: "apparent age",
        because: "9111 §4.2.3: corrected_initial_age = max(apparent_age, corrected_age_value)",
        applies: |a| dated_early(&a.scene) && a.only_oracle_serves(),
    },
    Known {
        name: "an Age the oracle cannot read",
        because: "9111 §5.1: \"use the first member\"; §1.2.2: too large is 2147483648",
        applies: |a| aged_unreadably(&a.scene) && a.only_oracle_serves(),
    },
    Known {
        name: "seconds too large to count",
        because: "9111 §1.2.2: it \"MUST consider the value to be 2147483648\"",
        applies: |a| {
            let huge = |text: &str| text.ends_with(HUGE);
            a.only_ours_serves() && a.scene.directives().any(huge)
        },
    },
    Known {
        name: "dates in the obsolete forms",
        because: "9110 §5.6.7: a recipient \"MUST accept all three HTTP-date formats\"",
        applies: |a| {
            let dated = ["expires", "last-modified", "date"].map(|name| a.scene.values(name));
            let obsolete = dated.iter().flatten().any(|date| OBSOLETE.contains(date));
            obsolete && (a.only_ours_serves() || a.only_oracle_serves())
        },
    },
    Known {
        name: "freshness said twice or badly",
        because: "9111 §4.2.1: invalid freshness information is stale, the most restrictive holds",
        applies: |a| invalid_or_twice(&a.scene) && a.only_oracle_serves(),
    },
    Known {
        name: "a must-revalidate that nobody sent",
        because: "9111 §4.2.1: what is said twice may be stale; it is not forbidden to be",
        applies: |a| {
            let wished = a.scene.wishes("max-stale") && adds_must_revalidate(&a.scene);
            wished && a.only_ours_serves()
        },
    },
    Known {
        name: "proxy-revalidate while fresh",
        because: "9111 §5.2.2.8: it forbids only what is stale",
        applies: |a| a.scene.says("proxy-revalidate") && a.only_ours_serves(),
    },
    Known {
        name: "no-cache for some fields only",
        because: "9111 §5.2.2.4: only the listed fields may not be sent unvalidated",
        applies: |a| a.scene.says("no-cache=\"set-cookie\"") && a.only_ours_serves(),
    },
    Known {
        name: "Pragma in a response",
        because: "9111 §5.4: Pragma is deprecated, and was never specified for responses",
        applies: |a| a.scene.has("pragma") && a.only_ours_serves(),
    },
    Known {
        name: "Pragma beside Cache-Control in a request",
        because: "9111 §5.4: Pragma speaks to those who do not know Cache-Control",
        applies: |a| a.scene.pragma && !a.scene.wishes.is_empty() && a.only_ours_serves(),
    },
    Known {
        name: "immutable as a lifetime",
        because: "8246 §2: immutable says nothing about how long a response is fresh",
        applies: |a| a.scene.says("immutable") && a.only_oracle_serves(),
    },
    Known {
        name: "the last second of max-stale",
        because: "9111 §5.2.1.2: \"by no more than the specified number of seconds\"",
        applies: |a| {
            let Some(Serving {
                ours: Reuse::ServeStaleAndValidate { stale_by },
                ..
            }) = a.serving
            else {
                return false;
            };
            let last = Duration::from_secs(30);
            a.scene.wishes("max-stale=30") && stale_by == last && a.only_ours_serves()
        },
    },
    Known {
        name: "max-stale that cannot be read",
        because: "9111 §4.2.1: what cannot be read must not make more stale responses usable",
        applies: |a| a.scene.wishes("max-stale=x") && a.only_oracle_serves(),
    },
    Known {
        name: "max-stale against the origin's word",
        because: "9111 §4.2.4: not if \"prohibited by an explicit in-protocol directive\"",
        applies: |a| {
            let forbidden = ["no-cache", "proxy-revalidate", "s-maxage"];
            a.scene.wishes("max-stale")
                && forbidden.iter().any(|text| a.scene.says(text))
                && a.only_oracle_serves()
        },
    },
    Known {
        name: "stale-while-revalidate",
        because: "5861 §3: \"caches MAY serve the response ... after it becomes stale\"",
        applies: |a| a.scene.says("stale-while-revalidate") && a.only_ours_serves(),
    },
];

/// The same name twice with different seconds, seconds that cannot be read, two Expires.
fn invalid_or_twice(scene: &Scene) -> bool {
    let of = |name: &str| {
        let mut said: Vec<_> = scene
            .directives()
            .filter(|text| text.to_ascii_lowercase().starts_with(name))
            .collect();
        said.sort_unstable();
        said.dedup();
        said
    };
    let twice = of("max-age").len() > 1 || of("s-maxage").len() > 1;
    let unreadable = scene.says("max-age=x") || of("max-age").contains(&"max-age");
    twice || unreadable || scene.values("expires").len() > 1
}

/// The oracle takes every directive whose argument comes in two spellings for a `must-revalidate`.
fn adds_must_revalidate(scene: &Scene) -> bool {
    let mut first = BTreeMap::new();
    scene
        .directives()
        .flat_map(|text| text.split(','))
        .any(|part| {
            let (name, argument) = match part.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(argument.trim())),
                None => (part.trim(), None),
            };
            let unquoted = argument.map(|argument| argument.trim_matches('"'));
            match first.get(name) {
                Some(said) => *said != argument,
                None => {
                    first.insert(name, unquoted);
                    false
                }
            }
        })
}

/// Its Age is a list, or too large for 64 bits.
fn aged_unreadably(scene: &Scene) -> bool {
    let unreadable = |age: &&str| age.contains(',') || *age == HUGE;
    scene.values("age").iter().any(unreadable)
}

/// Its date makes the response ten minutes old on arrival.
fn dated_early(scene: &Scene) -> bool {
    let early = [OLD, OBSOLETE[3]];
    scene.values("date").iter().any(|date| early.contains(date))
}

const HUGE: &str = "18446744073709551616";
/// Ten minutes before the arrival.
const OLD: &str = "Tue, 15 Nov 2022 11:50:00 GMT";
/// Values in the forms of RFC 850 and asctime.
const OBSOLETE: [&str; 4] = [
    "Tuesday, 15-Nov-22 12:10:00 GMT",
    "Tue Nov 15 12:10:00 2022",
    "Tuesday, 15-Nov-22 02:20:00 GMT",
    "Tue Nov 15 11:50:00 2022",
];
const BROKEN: [&str; 3] = ["max-age =60", "max-age=60; public", "x=\"no end"];

fn directive() -> impl Strategy<Value = &'static str> {
    let often = select(vec![
        "max-age=0",
        "max-age=60",
        "max-age=60",
        "max-age=600",
        "s-maxage=0",
        "s-maxage=60",
        "s-maxage=600",
        "public",
        "must-revalidate",
        "no-transform",
        "stale-while-revalidate=30",
        "stale-if-error=30",
        "ext",
        "ext=1",
    ]);
    let rarely = select(vec![
        "No-Store",
        "no-store",
        "PRIVATE",
        "private",
        "private=\"x-user\"",
        "no-cache",
        "no-cache=\"set-cookie\"",
        "proxy-revalidate",
        "must-understand",
        "immutable",
        "MAX-AGE=60",
        "max-age=\"60\"",
        "max-age=x",
        "max-age",
        "max-age=2147483648",
        "max-age=18446744073709551616",
        "s-maxage=18446744073709551616",
        "ext=\"a, no-store, b\"",
        "ext=\"a, max-age=0, b\"",
        BROKEN[0],
        BROKEN[1],
        BROKEN[2],
    ]);
    proptest::prop_oneof![3 => often, 2 => rarely]
}

fn field(
    name: &'static str,
    chance: f64,
    values: Vec<&'static str>,
) -> impl Strategy<Value = Option<(&'static str, &'static str)>> {
    weighted(chance, select(values)).prop_map(move |value| value.map(|value| (name, value)))
}

fn expires(chance: f64) -> impl Strategy<Value = Option<(&'static str, &'static str)>> {
    field(
        "expires",
        chance,
        vec![
            "Tue, 15 Nov 2022 12:10:00 GMT",
            "Tue, 15 Nov 2022 12:01:00 GMT",
            "Tue, 15 Nov 2022 11:00:00 GMT",
            OBSOLETE[0],
            OBSOLETE[1],
            "0",
            "-1",
        ],
    )
}

fn fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let now = "Tue, 15 Nov 2022 12:00:00 GMT";
    let future = "Tue, 15 Nov 2022 12:05:00 GMT";
    let date = vec![now, now, now, OLD, future, OBSOLETE[3], "today"];
    // Ten and a hundred minutes of guessed freshness, and none.
    let modified = vec![
        "Tue, 15 Nov 2022 10:20:00 GMT",
        "Mon, 14 Nov 2022 19:20:00 GMT",
        "Tue, 15 Nov 2022 13:00:00 GMT",
        OBSOLETE[2],
        "yesterday",
    ];
    let age = vec!["0", "10", "59", "60", "abc", "10, 20", HUGE];
    (
        field("date", 0.7, date),
        field("age", 0.3, age),
        (expires(0.3), expires(0.1)),
        field("last-modified", 0.3, modified),
        field("etag", 0.3, vec!["\"a\"", "W/\"a\""]),
        field("vary", 0.1, vec!["accept-language", "*"]),
        field("set-cookie", 0.1, vec!["a=b"]),
        field("pragma", 0.05, vec!["no-cache"]),
    )
        .prop_map(
            |(date, age, (one, two), modified, etag, vary, cookie, pragma)| {
                [date, age, one, two, modified, etag, vary, cookie, pragma]
                    .into_iter()
                    .flatten()
                    .collect()
            },
        )
}

fn scenes() -> impl Strategy<Value = Scene> {
    let get = || Method::GET;
    let methods = vec![
        get(),
        get(),
        get(),
        get(),
        get(),
        get(),
        Method::HEAD,
        Method::POST,
    ];
    let statuses = vec![
        200, 200, 200, 200, 200, 204, 206, 299, 301, 302, 304, 400, 404, 410, 416, 500, 503, 599,
    ];
    let wish = select(vec![
        "no-cache",
        "max-age=0",
        "max-age=30",
        "min-fresh=30",
        "max-stale",
        "max-stale=30",
        "max-stale=x",
        "no-transform",
    ]);
    let request = (
        select(methods),
        proptest::bool::weighted(0.1),
        // One wish of a kind: which of several counts is not what is compared.
        vec(wish, 0..3).prop_map(|mut wishes| {
            let name = |text: &'static str| text.split('=').next();
            wishes.dedup_by_key(|text| name(text));
            wishes
        }),
        weighted(0.05, select(vec!["no-store", "NO-STORE"])),
        proptest::bool::weighted(0.05),
        select(vec![ClientCacheControl::Ignore, ClientCacheControl::Honour]),
    );
    let response = (
        select(statuses),
        vec(vec(directive(), 0..4), 0..3),
        weighted(0.05, select(vec!["max-age=600", "no-store", ""])),
        fields(),
    );
    let later = select(vec![
        0, 1, 29, 30, 31, 50, 59, 60, 61, 90, 599, 600, 601, 86_400,
    ]);
    (request, response, later).prop_map(|(request, response, later)| {
        let (method, authorization, wishes, request_no_store, pragma, client) = request;
        let (status, cache_control, targeted, fields) = response;
        Scene {
            method,
            status,
            authorization,
            wishes,
            request_no_store,
            pragma,
            client,
            cache_control,
            targeted,
            fields,
            later,
        }
    })
}

#[test]
fn the_oracle_and_we_differ_only_where_the_rfc_says_so() {
    let (storing, serving) = (Tally::new(STORING), Tally::new(SERVING));
    compare_all(CASES, &scenes(), |scene| {
        let answers = Answers::new(scene);
        let ours = matches!(answers.ours, Storable::Store(_));
        storing.compare(&answers, ours == answers.oracle_stores)?;
        match &answers.serving {
            Some(Serving { ours, oracle }) => serving.compare(&answers, serves(ours) == *oracle),
            None => Ok(()),
        }
    });
    storing.close(&format!("storing, {CASES} exchanges"));
    serving.close("serving what both store");
}

/// The oracle adds to the largest Age as it stands and panics, so it is not asked; RFC 9111 §1.2.2
/// caps it: "if any of its subsequent calculations overflows".
#[test]
fn an_age_that_overflows_is_no_more_than_stale() {
    let scene = Scene {
        method: Method::GET,
        status: 200,
        authorization: false,
        wishes: Vec::new(),
        request_no_store: None,
        pragma: false,
        client: ClientCacheControl::Ignore,
        cache_control: vec![vec!["max-age=60"]],
        targeted: None,
        fields: vec![("age", "18446744073709551615"), ("etag", "\"a\"")],
        later: 0,
    };
    let Storable::Store(stored) = ours(&scene) else {
        panic!("it has a validator");
    };
    let asked = RequestDirectives::default();
    let verdict = Reuse::decide(&stored, &asked, scene.client, arrival());
    assert!(matches!(verdict, Reuse::Validate { .. }));
}
