//! Explanations: what is foreseen is what then happens, and asking changes nothing.

use std::fs;

use serde_json::Value;
use serde_json::json;

use crate::client::Answer;
use crate::client::Client;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::json;
use crate::scene::url;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Asks what would become of a request.
#[track_caller]
fn ask(scene: &Scene, question: &Value) -> Value {
    json(
        scene
            .operate("POST", "/explain", &question.to_string())
            .is(200),
    )
}

#[track_caller]
fn explain(scene: &Scene, method: &str, target: &str, headers: Headers<'_>) -> Value {
    let headers: serde_json::Map<String, Value> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
        .collect();
    let question = json!({"url": url(target), "method": method, "headers": headers});
    ask(scene, &question)
}

/// Says whether an origin's answer would be stored.
#[track_caller]
fn fetch(scene: &Scene, target: &str, headers: Headers<'_>) -> Value {
    let headers: serde_json::Map<String, Value> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
        .collect();
    let question = json!({"url": url(target), "headers": headers, "fetch": true});
    ask(scene, &question)["fetched"].clone()
}

/// As [`fetch`], asked by an operator with these fields.
#[track_caller]
fn fetch_as(scene: &Scene, target: &str, operator: Headers<'_>) -> Value {
    let question = json!({"url": url(target), "fetch": true}).to_string();
    let answer = Client::connect(scene.admin())
        .ask("POST", "/explain", operator, question.as_bytes())
        .answer("POST");
    json(answer.is(200))["fetched"].clone()
}

fn word<'v>(told: &'v Value, path: &str) -> &'v str {
    told.pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What was foreseen is what came: the act, and each word of Cache-Status that was known before.
#[track_caller]
fn holds(told: &Value, act: &str, answer: &Answer) {
    assert_eq!(word(told, "/would/act"), act, "{told:#}");
    let said = answer.header("cache-status").unwrap_or_default();
    let foreseen = word(told, "/would/cache_status");
    for part in foreseen
        .split("; ")
        .filter(|part| !part.starts_with("ttl="))
    {
        assert!(
            said.split("; ").any(|came| came == part),
            "{part:?} of {foreseen:?} in {said:?}"
        );
    }
    let reason = word(told, "/would/reason");
    if let Some(detail) = answer.cache_status("detail")
        && foreseen.contains("detail=")
    {
        assert_eq!(reason, detail);
    }
    if let Some(status) = told["would"]["status"].as_u64() {
        answer.is(u16::try_from(status).unwrap());
    }
}

/// Explains a request, makes it, and compares.
#[track_caller]
fn foreseen(scene: &Scene, act: &str, method: &str, target: &str, headers: Headers<'_>) -> Value {
    let told = explain(scene, method, target, headers);
    let answer = scene.ask(method, target, headers, b"");
    holds(&told, act, &answer);
    told
}

/// All numbers that a request counts in.
fn counts(scene: &Scene) -> (usize, u64, u64, u64) {
    (
        scene.origin.requests(),
        scene.stat("requests"),
        scene.stat("store.entries"),
        scene.stat("memory.bytes"),
    )
}

#[test]
fn a_miss_and_a_hit_are_foreseen() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("max-age=60"));
    let told = foreseen(&scene, "miss", "GET", "/a", &[]);
    assert_eq!(word(&told, "/would/reason"), "uri-miss");
    assert_eq!(told["stored"], json!([]));
    let told = foreseen(&scene, "hit", "GET", "/a", &[]);
    assert_eq!(word(&told, "/would/reason"), "fresh");
    assert_eq!(word(&told, "/would/section"), "RFC 9111 §4.2");
    assert_eq!(told["would"]["status"], 200);
    let stored = &told["stored"][0];
    assert_eq!(stored["chosen"], true);
    assert_eq!(stored["bytes"], 2);
    scene.origin.saw("/a", 1);
}

#[test]
fn asking_changes_nothing() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    let before = counts(&scene);
    for target in ["/a", "/never"] {
        for method in ["GET", "HEAD", "POST", "PURGE"] {
            explain(&scene, method, target, &[]);
        }
    }
    assert_eq!(counts(&scene), before);
    scene.get("/a").by("hit");
}

#[test]
fn every_number_of_the_age_is_told_and_adds_up() {
    let mut scene = Scene::new().own_clock().start();
    let aged = Reply::ok("v1").cache("max-age=100, s-maxage=90");
    scene.origin.says("/a", aged.aged(30).tagged("\"1\""));
    scene.get("/a").stored();
    scene.clock_moves(20);
    let told = foreseen(&scene, "hit", "GET", "/a", &[]);
    let steps = told["stored"][0]["freshness"].as_array().unwrap().clone();
    let seconds = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name);
        step.unwrap_or_else(|| panic!("no {name}"))["seconds"]
            .as_f64()
            .unwrap()
    };
    assert!((seconds("age_value") - 30.0).abs() < f64::EPSILON);
    assert!(seconds("resident_time") >= 19.0);
    let age = seconds("corrected_initial_age") + seconds("resident_time");
    assert!((seconds("current_age") - age).abs() < 0.01);
    assert!((seconds("lifetime") - 90.0).abs() < f64::EPSILON);
    assert!((seconds("fresh_for") + seconds("current_age") - 90.0).abs() < 0.01);
    let lifetime = steps
        .iter()
        .find(|step| step["name"] == "lifetime")
        .unwrap();
    assert_eq!(word(lifetime, "/section"), "RFC 9111 §5.2.2.10");
    assert_eq!(word(lifetime, "/says"), "s-maxage in cache-control");
    for step in &steps {
        assert!(word(step, "/section").starts_with("RFC 911"), "{step}");
    }
}

#[test]
fn what_grants_a_lifetime_is_named() {
    let scene = Scene::new()
        .site("targeted", "[\"CDN-Cache-Control\"]")
        .start();
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let says = |target: &str, reply: Reply, source: &str| {
        scene.origin.says(target, reply);
        scene.get(target).stored();
        let told = explain(&scene, "GET", target, &[]);
        let steps = told["stored"][0]["freshness"].as_array().unwrap();
        let lifetime = steps.iter().find(|step| step["name"] == "lifetime");
        assert_eq!(word(lifetime.unwrap(), "/says"), source);
    };
    let targeted = Reply::ok("v1")
        .cache("max-age=5")
        .header("CDN-Cache-Control", "max-age=60");
    says("/targeted", targeted, "max-age in cdn-cache-control");
    let expires = Reply::ok("v1").header("Expires", "Tue, 01 Jan 2999 00:00:00 GMT");
    says("/expires", expires, "Expires - date_value");
    let guessed = Reply::ok("v1").header("Last-Modified", date);
    let source = "a tenth of date_value - Last-Modified, at most the site's heuristic_max";
    says("/guessed", guessed, source);
}

#[test]
fn stale_responses_are_foreseen() {
    let mut scene = Scene::new().own_clock().start();
    let window = "max-age=10, stale-while-revalidate=30";
    scene.origin.says("/window", Reply::ok("v1").cache(window));
    scene.origin.says(
        "/tagged",
        Reply::ok("v1").cache("max-age=10").tagged("\"1\""),
    );
    scene.origin.says(
        "/bare",
        Reply::ok("v1").cache("max-age=10, stale-if-error=60"),
    );
    for target in ["/window", "/tagged", "/bare"] {
        scene.get(target).stored();
    }
    scene.clock_moves(20);
    let told = foreseen(&scene, "stale-hit", "GET", "/window", &[]);
    assert_eq!(word(&told, "/would/reason"), "stale-while-revalidate");
    assert_eq!(told["stored"][0]["stale_while_revalidate"], 30);
    let told = foreseen(&scene, "revalidate", "GET", "/tagged", &[]);
    assert_eq!(word(&told, "/would/reason"), "stale");
    assert!(word(&told, "/would/remedy").contains("stale-while-revalidate"));
    let told = foreseen(&scene, "miss", "GET", "/bare", &[]);
    assert_eq!(word(&told, "/would/reason"), "stale");
    assert_eq!(word(&told, "/stored/0/may/reason"), "expired");
}

#[test]
fn what_must_be_validated_says_why_here_and_in_cache_status() {
    let mut scene = Scene::new()
        .own_clock()
        .site("client_cache_control", "\"honour\"")
        .start();
    let tagged = |cache: &str| Reply::ok("v1").cache(cache).tagged("\"1\"");
    scene.origin.says("/no-cache", tagged("no-cache"));
    let must = "max-age=10, must-revalidate, stale-while-revalidate=60";
    scene.origin.says("/must", tagged(must));
    scene.origin.says("/a", tagged("max-age=100"));
    for target in ["/no-cache", "/must", "/a"] {
        scene.get(target).stored();
    }
    scene.clock_moves(20);
    let reason = |target: &str, wish: &str| {
        let wish = [("Cache-Control", wish)];
        let headers: Headers<'_> = if wish[0].1.is_empty() { &[] } else { &wish };
        let told = foreseen(&scene, "revalidate", "GET", target, headers);
        word(&told, "/would/reason").to_owned()
    };
    assert_eq!(reason("/no-cache", ""), "no-cache");
    assert_eq!(reason("/must", ""), "must-revalidate");
    assert_eq!(reason("/a", "no-cache"), "request-no-cache");
    assert_eq!(reason("/a", "max-age=0"), "request-max-age");
    assert_eq!(reason("/a", "min-fresh=1000"), "request-min-fresh");
}

#[test]
fn requests_that_go_past_the_store_are_foreseen() {
    let scene = Scene::usual();
    scene.origin.says("*", Reply::ok("v1").fresh());
    let told = foreseen(&scene, "pass", "POST", "/a", &[]);
    assert_eq!(word(&told, "/would/reason"), "method");
    let no_store: Headers<'_> = &[("Cache-Control", "no-store")];
    let told = foreseen(&scene, "pass", "GET", "/b", no_store);
    assert_eq!(word(&told, "/would/reason"), "request-no-store");
    let told = foreseen(&scene, "pass", "HEAD", "/c", &[]);
    assert_eq!(word(&told, "/would/reason"), "method");
    let cached: Headers<'_> = &[("Cache-Control", "only-if-cached")];
    let told = foreseen(&scene, "unavailable", "GET", "/d", cached);
    assert_eq!(word(&told, "/would/reason"), "only-if-cached");
}

#[test]
fn requests_that_are_answered_here_are_foreseen() {
    let scene = Scene::new().site("redirect_https", "true").start();
    let told = foreseen(&scene, "redirect", "GET", "/a", &[]);
    assert_eq!(told["would"]["status"], 308);
    let told = foreseen(&scene, "refuse", "TRACE", "/a", &[]);
    assert_eq!(word(&told, "/would/reason"), "trace-method");
    foreseen(&scene, "answer", "OPTIONS", "/a", &[("Max-Forwards", "0")]);
    let sites = Scene::new().site("hosts", "[\"other.test\"]").start();
    let told = explain(&sites, "GET", "/a", &[]);
    holds(&told, "no-site", &sites.get("/a"));
}

#[test]
fn what_is_not_storable_is_remembered_and_said() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("private"));
    foreseen(&scene, "miss", "GET", "/a", &[]);
    let told = foreseen(&scene, "pass", "GET", "/a", &[]);
    assert_eq!(word(&told, "/would/reason"), "hit-for-miss");
    assert!(word(&told, "/would/remedy").contains("asking the origin"));
}

#[test]
fn a_fetch_says_whether_the_answer_would_be_stored_as_it_then_is() {
    let scene = Scene::usual();
    let mut replies = vec![
        ("/good", Reply::ok("v1").cache("max-age=60"), None),
        (
            "/no-store",
            Reply::ok("v1").cache("no-store"),
            Some("no-store"),
        ),
        (
            "/private",
            Reply::ok("v1").cache("private"),
            Some("private"),
        ),
        ("/nothing", Reply::ok("v1"), Some("no-freshness")),
        (
            "/broken",
            Reply::ok("v1").cache("max-age =1"),
            Some("malformed-cache-control"),
        ),
    ];
    let cookie = Reply::ok("v1").fresh().header("Set-Cookie", "session=word");
    replies.push(("/cookie", cookie, Some("set-cookie")));
    replies.push((
        "/vary",
        Reply::ok("v1").fresh().header("Vary", "*"),
        Some("vary-any"),
    ));
    replies.push((
        "/close",
        Reply::ok("v1").fresh().until_close(),
        Some("close-delimited"),
    ));
    for (target, reply, reason) in replies {
        scene.origin.says(target, reply);
        let fetched = fetch(&scene, target, &[]);
        assert_eq!(fetched["would_store"], reason.is_none(), "{fetched:#}");
        assert_eq!(
            word(&fetched, "/not_stored/reason"),
            reason.unwrap_or_default()
        );
        assert!(!fetched.to_string().contains("word"), "{fetched:#}");
        // It was not stored, nor was it remembered that it could not be.
        let answer = scene.get(target);
        answer.by("uri-miss");
        match reason {
            None => answer.stored(),
            Some(reason) => answer.not_stored().detail(reason),
        };
        scene.origin.saw(target, 2);
    }
}

#[test]
fn a_fetch_with_authorization_is_judged_with_it() {
    let scene = Scene::usual();
    let bearer: Headers<'_> = &[("Authorization", "Bearer word")];
    scene.origin.says("/a", Reply::ok("v1").cache("max-age=60"));
    scene
        .origin
        .says("/public", Reply::ok("v1").cache("public, max-age=60"));
    let fetched = fetch(&scene, "/a", bearer);
    assert_eq!(word(&fetched, "/not_stored/reason"), "authorization");
    scene
        .get_with("/a", bearer)
        .not_stored()
        .detail("authorization");
    assert_eq!(fetch(&scene, "/public", bearer)["would_store"], true);
    scene.get_with("/public", bearer).stored();
    let told = explain(&scene, "GET", "/a", bearer);
    assert!(!told.to_string().contains("word"), "{told:#}");
}

#[test]
fn a_fetch_that_fails_says_how() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::nothing());
    let fetched = fetch(&scene, "/a", &[]);
    let reason = word(&fetched, "/reason");
    scene.get("/a").is(502).detail(reason);
    assert!(!word(&fetched, "/error").is_empty(), "{fetched:#}");
}

#[test]
fn only_what_changes_nothing_can_be_fetched() {
    let scene = Scene::usual();
    let question = json!({"url": url("/a"), "method": "POST", "fetch": true});
    scene
        .operate("POST", "/explain", &question.to_string())
        .is(400);
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn variants_are_listed_with_what_the_request_has_in_their_fields() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        let language = request
            .header("accept-language")
            .unwrap_or("none")
            .to_owned();
        Reply::ok(language)
            .fresh()
            .header("Vary", "Accept-Language, Cookie")
    });
    let german: Headers<'_> = &[("Accept-Language", "de"), ("Cookie", "a=word")];
    let english: Headers<'_> = &[("Accept-Language", "en")];
    scene.get_with("/a", german).stored();
    scene.get_with("/a", english).stored();
    let told = foreseen(&scene, "hit", "GET", "/a", german);
    assert!(!told.to_string().contains("word"), "{told:#}");
    let stored = told["stored"].as_array().unwrap();
    assert_eq!(stored.len(), 2);
    let chosen: Vec<&Value> = stored
        .iter()
        .filter(|entry| entry["chosen"] == true)
        .collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0]["selected"], true);
    let wanted = json!([
        {"field": "accept-language", "present": true, "value": "de"},
        {"field": "cookie", "present": true, "hidden": true},
    ]);
    assert_eq!(chosen[0]["vary"], wanted);
    let told = foreseen(&scene, "miss", "GET", "/a", &[("Accept-Language", "fr")]);
    assert_eq!(word(&told, "/would/reason"), "vary-miss");
}

#[test]
fn the_key_says_what_is_in_it_and_what_is_not() {
    let scene = Scene::new()
        .site("key_query_drop", "[\"utm_*\"]")
        .site("key_query", "\"sort\"")
        .site("key_cookies", "[\"currency\"]")
        .start();
    scene.origin.says("*", Reply::ok("v1").fresh());
    let cookie: Headers<'_> = &[("Cookie", "currency=eur; session=word")];
    let told = foreseen(&scene, "miss", "GET", "/a?b=2&utm_x=1&a=1", cookie);
    assert_eq!(told["key"]["dropped"], json!(["utm_x=1"]));
    assert_eq!(word(&told, "/key/parts/target"), "/a?a=1&b=2");
    assert_eq!(word(&told, "/key/parts/authority"), "scene.test");
    assert_eq!(word(&told, "/request/url"), url("/a?a=1&b=2"));
    let selecting = json!([{"field": "cookie currency", "present": true, "hidden": true}]);
    assert_eq!(told["key"]["selecting"], selecting);
    assert_eq!(word(&told, "/site/pattern"), "*");
    assert_eq!(word(&told, "/site/upstream"), "main");
    foreseen(&scene, "hit", "GET", "/a?a=1&b=2&utm_y=9", cookie);
}

#[test]
fn a_purge_is_seen_at_once() {
    let scene = Scene::usual();
    let grouped = Reply::ok("v1").fresh().header("Cache-Groups", "\"news\"");
    scene.origin.says("/a", grouped);
    scene.origin.says("/b", Reply::ok("v1").fresh());
    let invalidation = Reply::ok("").header("Cache-Group-Invalidation", "\"news\"");
    scene.origin.says("/change", invalidation);
    scene.get("/a").stored();
    scene.get("/b").stored();
    let told = foreseen(&scene, "hit", "GET", "/a", &[]);
    assert!(!told["stored"][0]["tags"].as_array().unwrap().is_empty());
    scene.ask("POST", "/change", &[], b"").is(200);
    let told = explain(&scene, "GET", "/a", &[]);
    // Its space may have come back already.
    assert!(
        ["", "purged"].contains(&word(&told, "/stored/0/state")),
        "{told:#}"
    );
    // It is looked for meanwhile: a miss is one of the URI as soon as it was found.
    assert_eq!(word(&told, "/would/act"), "miss", "{told:#}");
    scene.get("/a").stored();
    scene.purge(&["/b"]);
    foreseen(&scene, "miss", "GET", "/b", &[]);
    scene.purge_all();
    foreseen(&scene, "miss", "GET", "/b", &[]);
}

#[test]
fn what_a_soft_purge_made_stale_is_foreseen() {
    let scene = Scene::usual();
    let window = "max-age=600, stale-while-revalidate=600";
    scene.origin.says("/window", Reply::ok("v1").cache(window));
    let tagged = Reply::ok("v1").cache("max-age=600").tagged("\"1\"");
    scene.origin.says("/tagged", tagged);
    for target in ["/window", "/tagged"] {
        scene.get(target).stored();
    }
    let body = json!({"urls": [url("/window"), url("/tagged")], "soft": true});
    let receipt = json(scene.operate("POST", "/purge", &body.to_string()).is(200));
    for (target, act) in [("/window", "stale-hit"), ("/tagged", "revalidate")] {
        let told = foreseen(&scene, act, "GET", target, &[]);
        assert_eq!(word(&told, "/would/reason"), "soft-purged");
        assert_eq!(word(&told, "/stored/0/state"), "soft-purged");
        assert!(!word(&told, "/stored/0/soft_purged_at").is_empty());
        let purges = &told["stored"][0]["purges"];
        assert_eq!(purges.as_array().unwrap().len(), 1, "{purges}");
        assert_eq!(
            (&purges[0]["id"], &purges[0]["kind"]),
            (&receipt["id"], &json!("url"))
        );
        assert_eq!(purges[0]["soft"], true);
    }
}

#[test]
fn conditions_and_ranges_are_foreseen() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("0123456789").fresh().tagged("\"1\""));
    scene.get("/a").stored();
    let told = foreseen(&scene, "hit", "GET", "/a", &[("If-None-Match", "\"1\"")]);
    assert_eq!(told["would"]["status"], 304);
    let told = foreseen(&scene, "hit", "GET", "/a", &[("Range", "bytes=2-3")]);
    assert_eq!(told["would"]["status"], 206);
    let told = foreseen(&scene, "hit", "GET", "/a", &[("Range", "bytes=20-")]);
    assert_eq!(told["would"]["status"], 416);
}

#[test]
fn a_fetch_under_way_is_told() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says("/a", Reply::ok("v1").fresh().held(&gate));
    let crowd = scene.crowd(1, "/a");
    scene.origin.await_requests("/a", 1);
    let told = explain(&scene, "GET", "/a", &[]);
    assert_eq!(told["would"]["underway"], true);
    gate.open();
    for answer in crowd.answers() {
        answer.is(200);
    }
    let told = explain(&scene, "GET", "/a", &[]);
    assert_eq!(told["would"]["underway"], false);
}

#[test]
fn what_is_no_question_is_refused() {
    let scene = Scene::usual();
    for body in [
        "",
        "{}",
        "{\"url\":\"/a\"}",
        "{\"url\":\"ftp://a/\"}",
        "{\"url\":\"http://a/\",\"else\":1}",
    ] {
        scene.operate("POST", "/explain", body).is(400);
    }
    scene.operate("GET", "/explain", "").is(405);
}

#[test]
fn the_command_prints_for_people_and_for_programs() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").cache("max-age=60"));
    scene.get("/a").stored();
    let config = scene.found_config();
    let told = scene.larder(&["explain", "--config", &config, &url("/a")]);
    told.exits(0)
        .prints("would come to: hit")
        .prints("RFC 9111 §4.2")
        .prints("max-age in cache-control");
    assert!(!told.stdout.contains('\x1b'), "{}", told.stdout);
    let fetch = [
        "explain",
        "--config",
        &config,
        "--fetch",
        "--json",
        "-H",
        "Accept: a",
        &url("/new"),
    ];
    scene.origin.says("/new", Reply::ok("v1").cache("no-store"));
    let told = scene.larder(&fetch);
    let told: Value = serde_json::from_str(&told.exits(0).stdout).unwrap();
    assert_eq!(word(&told, "/fetched/not_stored/reason"), "no-store");
    assert_eq!(scene.origin.last("/new").header("accept"), Some("a"));
    scene
        .larder(&["explain", "--config", &config, "nonsense"])
        .exits(1)
        .complains("not an absolute http or https url");
}

/// A scene with a token, and a site that stores.
fn with_token(own: bool) -> Scene {
    let setup = Scene::new();
    let (token, other) = (setup.dir().join("token"), setup.dir().join("other"));
    fs::write(&token, "a-secret-word\n").unwrap();
    fs::write(&other, "another-word\n").unwrap();
    let log = setup.dir().join("access.log");
    let setup = setup
        .set("admin", "token_file", &format!("{token:?}"))
        .set("log", "access", &format!("{log:?}"))
        .set("log", "format", "\"json\"");
    match own {
        true => setup.set("admin", "debug_token_file", &format!("{other:?}")),
        false => setup,
    }
    .start()
}

#[test]
fn who_knows_the_token_is_told_on_the_response() {
    let scene = with_token(false);
    scene.origin.says("/a", Reply::ok("v1").cache("max-age=60"));
    scene.origin.says("/mine", Reply::ok("v1").cache("private"));
    let debug: Headers<'_> = &[("Larder-Debug", "a-secret-word")];
    let told = |answer: &Answer| answer.header("larder-debug").unwrap_or_default().to_owned();
    let miss = told(scene.get_with("/a", debug).stored());
    assert!(miss.starts_with("miss; reason=uri-miss; "), "{miss}");
    let hit = told(scene.get_with("/a", debug).by("hit"));
    assert!(hit.starts_with("hit; reason=fresh; "), "{hit}");
    for part in ["lifetime=60", "from=max-age", "site=\"*\"", "variants=1"] {
        assert!(hit.contains(part), "no {part} in {hit}");
    }
    let refused = told(&scene.get_with("/mine", debug));
    assert!(refused.starts_with("miss; reason=private; "), "{refused}");
    let long = format!("/{}", "x".repeat(5000));
    let long = told(&scene.get_with(&long, debug));
    assert!(!long.is_empty() && long.len() <= 2048, "{}", long.len());
}

#[test]
fn the_token_goes_no_further_and_nobody_else_is_told() {
    let scene = with_token(true);
    scene.origin.says("*", Reply::ok("v1").fresh());
    for wrong in ["a-secret-word", "", "another-wor", "another-word2"] {
        scene
            .get_with("/a", &[("Larder-Debug", wrong)])
            .lacks("larder-debug");
    }
    let twice: Headers<'_> = &[
        ("Larder-Debug", "another-word"),
        ("Larder-Debug", "another-word"),
    ];
    scene.get_with("/b", twice).lacks("larder-debug");
    scene.get("/a").by("hit").lacks("larder-debug");
    let right: Headers<'_> = &[("Larder-Debug", "another-word")];
    let told = scene.get_with("/c", right);
    assert!(told.header("larder-debug").is_some(), "{told}");
    for target in ["/a", "/b", "/c"] {
        let seen = scene.origin.last(target);
        assert_eq!(seen.header("larder-debug"), None);
    }
    // Nor is it in the log, of this run or another.
    let mut scene = scene;
    scene.terminate();
    scene.wait();
    let log = fs::read_to_string(scene.dir().join("access.log")).unwrap();
    assert!(log.contains("\"/c\""), "{log}");
    for said in [log, scene.stderr()] {
        assert!(!said.contains("another-word"), "{said}");
    }
}

#[test]
fn the_log_has_the_same_word_as_cache_status_and_the_explanation() {
    let mut scene = with_token(false);
    scene.origin.says("/a", Reply::ok("v1").cache("no-store"));
    let fetched = fetch_as(&scene, "/a", &[("Authorization", "Bearer a-secret-word")]);
    let word = word(&fetched, "/not_stored/reason").to_owned();
    scene.get("/a").detail(&word);
    scene.terminate();
    scene.wait();
    let log = fs::read_to_string(scene.dir().join("access.log")).unwrap();
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["detail"], word.as_str());
    assert_eq!(line["cache"], "uri-miss");
}

#[test]
fn without_a_token_nobody_is_told() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene
        .get_with("/a", &[("Larder-Debug", "")])
        .lacks("larder-debug");
}

#[test]
fn explanations_need_the_token_of_the_admin_listener() {
    let scene = with_token(false);
    let body = json!({"url": url("/a")}).to_string();
    let ask = |headers: Headers<'_>| {
        Client::connect(scene.admin())
            .ask("POST", "/explain", headers, body.as_bytes())
            .answer("POST")
    };
    ask(&[]).is(401);
    ask(&[("Authorization", "Bearer a-secret-word")]).is(200);
}
