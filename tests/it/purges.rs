//! Purges of every kind over the admin listener: receipts, their history, refreshes, the command.

use serde_json::Value;
use serde_json::json;

use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Finished;
use crate::scene::Scene;
use crate::scene::eventually;
use crate::scene::json as parsed;
use crate::scene::url;

/// A running scene where these targets are stored.
fn stored(targets: &[&str]) -> Scene {
    let scene = Scene::usual();
    fill(&scene, targets);
    scene
}

fn fill(scene: &Scene, targets: &[&str]) {
    for target in targets {
        scene.origin.says(target, Reply::ok("v1").fresh());
        scene.get(target).stored();
    }
}

/// Purges what the body says and returns the receipt.
#[track_caller]
fn purge(scene: &Scene, body: &Value) -> Value {
    parsed(scene.operate("POST", "/purge", &body.to_string()).is(200))
}

/// A receipt as it is told now.
#[track_caller]
fn told(scene: &Scene, receipt: &Value) -> Value {
    let id = receipt["id"].as_str().unwrap();
    parsed(scene.operate("GET", &format!("/purges/{id}"), "").is(200))
}

/// A receipt when nothing waits to be refreshed any more.
#[track_caller]
fn refreshed(scene: &Scene, receipt: &Value) -> Value {
    let mut latest = Value::Null;
    eventually("a refresh to end", || {
        latest = told(scene, receipt);
        latest["refresh"]["waiting"] == 0
    });
    latest
}

#[test]
fn a_receipt_says_what_was_purged_and_is_told_again() {
    let scene = stored(&["/a", "/b"]);
    let receipt = purge(&scene, &json!({"urls": [url("/a"), url("/b"), url("/c")]}));
    assert_eq!(receipt["kind"], "url");
    assert_eq!(receipt["kinds"], json!({"url": 3}));
    assert_eq!(
        (&receipt["items"], &receipt["entries"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(receipt["durable"], true);
    assert_eq!(receipt["front"], Value::Null);
    assert_eq!(receipt["refresh"], Value::Null);
    assert_eq!(told(&scene, &receipt), receipt);
    for unknown in ["p-999999", "7", "p-", "p-x"] {
        scene
            .operate("GET", &format!("/purges/{unknown}"), "")
            .is(404);
    }
}

#[test]
fn the_history_tells_the_newest_purges_first() {
    let scene = Scene::usual();
    let ids: Vec<Value> = (0..3).map(|_| scene.purge_all()["id"].clone()).collect();
    let history = |query: &str| {
        let target = format!("/purges{query}");
        let told = parsed(scene.operate("GET", &target, "").is(200));
        let told = told["purges"].as_array().unwrap().iter();
        told.map(|receipt| receipt["id"].clone())
            .collect::<Vec<Value>>()
    };
    let newest: Vec<Value> = ids.iter().rev().cloned().collect();
    assert_eq!(history(""), newest);
    assert_eq!(history("?limit=2"), newest[..2]);
    scene.operate("GET", "/purges?limit=0", "").is(400);
    scene.operate("POST", "/purges", "").is(405);
}

#[test]
fn a_purge_on_the_front_is_told_of_with_its_site() {
    let scene = Scene::new()
        .site("purge_from", "[\"127.0.0.1/32\"]")
        .start();
    fill(&scene, &["/a"]);
    scene.ask("PURGE", "/a", &[], b"").is(200);
    let history = parsed(scene.operate("GET", "/purges", "").is(200));
    assert_eq!(history["purges"][0]["front"], "*");
    assert_eq!(history["purges"][0]["entries"], 1);
}

#[test]
fn a_purge_that_is_not_understood_whole_is_refused_and_says_why() {
    let scene = stored(&["/a"]);
    let all: Vec<String> = (0..1001).map(|n| url(&format!("/{n}"))).collect();
    for (body, why) in [
        (json!({"all": true, "ulrs": []}), "unknown field `ulrs`"),
        (json!({"urls": all}), "at most 1000 items"),
        (json!({"urls": []}), "urls is empty"),
        (json!({"all": true, "urls": [url("/a")]}), "not both"),
        (json!({"urls": [url("/a")], "site": "x"}), "site narrows"),
        (
            json!({"hosts": ["scene.test"], "refresh": 1}),
            "refresh fetches",
        ),
        (json!({"urls": [url("/a"), "no url"]}), "not an absolute"),
    ] {
        let refused = scene.operate("POST", "/purge", &body.to_string());
        let error = parsed(refused.is(400))["error"].to_string();
        assert!(error.contains(why), "{body}: {error}");
    }
    scene.get("/a").by("hit");
    let history = parsed(scene.operate("GET", "/purges", "").is(200));
    assert_eq!(history["purges"], json!([]));
}

#[test]
fn a_refresh_fetches_the_first_purged_urls_before_anybody_asks() {
    let scene = stored(&["/a", "/b", "/c"]);
    for target in ["/a", "/b", "/c"] {
        scene.origin.says(target, Reply::ok("v2").fresh());
    }
    let urls = ["/a", "/b", "/c"].map(url);
    let receipt = purge(&scene, &json!({"urls": urls, "refresh": 2}));
    assert_eq!(receipt["refresh"]["wanted"], 2);
    let receipt = refreshed(&scene, &receipt);
    assert_eq!(receipt["refresh"]["done"], 2);
    scene.origin.saw("/a", 2).saw("/b", 2).saw("/c", 1);
    scene.get("/a").sees("v2").by("hit");
    scene.get("/b").sees("v2").by("hit");
    scene.get("/c").sees("v2").by("uri-miss");
}

#[test]
fn a_refresh_asks_an_upstream_for_no_more_at_a_time_than_it_may() {
    let scene = Scene::new().upstream("refreshes_max", "1").start();
    let targets = ["/a", "/b", "/c"];
    fill(&scene, &targets);
    let gate = Gate::new();
    for target in targets {
        scene
            .origin
            .says(target, Reply::ok("v2").fresh().held(&gate));
    }
    let receipt = purge(&scene, &json!({"urls": targets.map(url), "refresh": 3}));
    scene.origin.await_requests("/a", 2);
    // A client is not held back, and what it brings is not fetched once more.
    let crowd = scene.crowd(1, "/c");
    scene.origin.await_requests("/c", 2);
    scene.origin.saw("/b", 1);
    assert_eq!(told(&scene, &receipt)["refresh"]["waiting"], 3);
    gate.open();
    for answer in crowd.answers() {
        answer.is(200).sees("v2");
    }
    let receipt = refreshed(&scene, &receipt);
    assert_eq!(receipt["refresh"]["done"], 3);
    scene.origin.saw("/a", 2).saw("/b", 2).saw("/c", 2);
    scene.get("/b").sees("v2").by("hit");
}

#[test]
fn a_refresh_says_what_could_not_be_fetched_and_what_not_stored() {
    let scene = stored(&["/a", "/b"]);
    scene.origin.says("/a", Reply::nothing());
    scene.origin.says("/b", Reply::ok("v2").cache("no-store"));
    let urls = ["/a", "/b"].map(url);
    let receipt = purge(&scene, &json!({"urls": urls, "refresh": 9}));
    let refresh = &refreshed(&scene, &receipt)["refresh"];
    assert_eq!(refresh["wanted"], 2, "{refresh}");
    assert_eq!(
        (&refresh["failed"], &refresh["not_stored"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn a_url_that_is_named_again_is_fetched_once() {
    let scene = stored(&["/a"]);
    let urls = vec![url("/a"); 3];
    let receipt = purge(&scene, &json!({"urls": urls, "refresh": 3}));
    assert_eq!(receipt["refresh"]["wanted"], 1);
    assert_eq!(refreshed(&scene, &receipt)["refresh"]["done"], 1);
}

#[test]
fn the_command_waits_until_all_is_counted_and_fetched() {
    let scene = stored(&["/a", "/b"]);
    scene.origin.says("/a", Reply::ok("v2").fresh());
    let config = scene.found_config();
    let purge = |more: &[&str]| -> Finished {
        let arguments = [&["purge", "--config", &config], more].concat();
        scene.larder(&arguments)
    };
    let (a, b) = (url("/a"), url("/b"));
    let purged = purge(&["--url", &a, &b, "--refresh", "1", "--wait"]);
    let receipt: Value = serde_json::from_str(&purged.exits(0).stdout).unwrap();
    assert_eq!(receipt["entries"], 2);
    // URLs without a flag come first.
    assert_eq!(receipt["refresh"]["done"], 1);
    assert_eq!(receipt["refresh"]["waiting"], 0);
    scene.get("/b").by("hit");
    purge(&["--url", "no url"])
        .exits(1)
        .complains("not an absolute");
}

#[test]
fn the_document_of_the_api_is_served() {
    let scene = Scene::usual();
    let document = scene.operate("GET", "/openapi.json", "");
    document.is(200).has("Content-Type", "application/json");
    let document = parsed(&document);
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/purge"]["post"].is_object());
}
