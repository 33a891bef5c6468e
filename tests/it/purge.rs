//! Purges: at once, for good, with a receipt, and only for those who may.

use std::fs;

use crate::client::Client;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::url;

/// A running scene where `/a` and `/b` are stored.
fn stored() -> Scene {
    let scene = Scene::usual();
    fill(&scene);
    scene
}

fn fill(scene: &Scene) {
    for target in ["/a", "/b"] {
        scene.origin.says(target, Reply::ok(target).fresh());
        scene.get(target).stored();
    }
}

#[test]
fn a_purged_url_is_a_miss_and_its_neighbour_a_hit() {
    let scene = stored();
    let receipt = scene.purge(&["/a"]);
    scene.get("/a").sees("/a").by("uri-miss").stored();
    scene.get("/b").sees("/b").by("hit");
    scene.get("/a").by("hit");
    for field in ["id", "sequence", "kind", "at"] {
        assert!(receipt.get(field).is_some(), "no {field} in {receipt}");
    }
}

#[test]
fn purging_everything_leaves_nothing() {
    let scene = stored();
    scene.purge_all();
    scene.get("/a").sees("/a").by("uri-miss");
    scene.get("/b").sees("/b").by("uri-miss");
}

#[test]
fn a_validation_under_way_brings_nothing_back() {
    let scene = Scene::usual();
    for (target, purge_all) in [("/a", false), ("/b", true)] {
        let gate = Gate::new();
        let tagged = || Reply::ok("v1").tagged("\"1\"");
        let stale = tagged().cache("max-age=60").aged(100);
        scene.origin.says_once(target, stale);
        scene.origin.says(target, tagged().fresh().held(&gate));
        scene.get(target).by("uri-miss").stored();
        let before = scene.origin.seen(target).len();
        let crowd = scene.crowd(1, target);
        scene.origin.await_requests(target, before + 1);
        if purge_all {
            scene.purge_all();
        } else {
            scene.purge(&[target]);
        }
        gate.open();
        for answer in crowd.answers() {
            answer.is(200).sees("v1");
        }
        scene.origin.says(target, Reply::ok("v2").fresh());
        scene.get(target).sees("v2").by("uri-miss");
    }
}

#[test]
fn sequences_of_receipts_rise() {
    let scene = stored();
    let sequence = |receipt: serde_json::Value| receipt["sequence"].as_u64().unwrap();
    let first = sequence(scene.purge(&["/a"]));
    assert!(sequence(scene.purge_all()) > first);
}

#[test]
fn a_purge_outlives_a_kill() {
    let mut scene = stored();
    scene.await_durable(2);
    scene.purge(&["/a"]);
    scene.kill9_and_start();
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("hit");
    scene.purge_all();
    scene.kill9_and_start();
    scene.get("/b").by("uri-miss");
}

#[test]
fn one_request_may_purge_many_urls() {
    let scene = stored();
    scene.purge(&["/a", "/b", "/never-seen"]);
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("uri-miss");
}

#[test]
fn a_url_is_normalised_before_it_is_purged() {
    let scene = stored();
    let body = serde_json::json!({ "urls": ["HTTP://Scene.TEST:80/a"] }).to_string();
    scene.operate("POST", "/purge", &body).is(200);
    scene.get("/a").by("uri-miss");
}

#[test]
fn a_purge_that_says_nothing_or_nonsense_is_refused() {
    let scene = stored();
    for body in [
        "",
        "{",
        "{}",
        "[]",
        "{\"urls\":\"not a list\"}",
        "{\"urls\":[\"no url\"]}",
        "{\"everything\":true}",
    ] {
        scene.operate("POST", "/purge", body).is(400);
    }
    scene.get("/a").by("hit");
    scene.operate("GET", "/purge", "").is(405);
}

#[test]
fn the_admin_listener_takes_the_purge_method() {
    let scene = stored();
    scene.operate("PURGE", &url("/a"), "").is(200);
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("hit");
}

#[test]
fn the_front_takes_the_purge_method_from_where_the_site_allows_it() {
    let scene = Scene::new()
        .site("purge_from", "[\"127.0.0.1/32\"]")
        .start();
    fill(&scene);
    scene.ask("PURGE", "/a", &[], b"").is(200);
    scene.get("/a").by("uri-miss");
    scene.get("/b").by("hit");
    assert!(
        scene
            .origin
            .seen("/a")
            .iter()
            .all(|seen| seen.method == "GET")
    );
}

#[test]
fn the_front_refuses_the_purge_method_from_anywhere_else() {
    for allowed in [None, Some("[\"192.0.2.0/24\"]")] {
        let setup = Scene::new();
        let scene = match allowed {
            Some(addresses) => setup.site("purge_from", addresses),
            None => setup,
        }
        .start();
        fill(&scene);
        scene.ask("PURGE", "/a", &[], b"").is_one_of(&[403, 405]);
        scene.get("/a").by("hit");
        assert!(
            scene
                .origin
                .seen("/a")
                .iter()
                .all(|seen| seen.method == "GET")
        );
    }
}

#[test]
fn a_listener_in_the_open_asks_for_the_token() {
    let setup = Scene::new().set("admin", "listen", "\"0.0.0.0:0\"");
    let token = setup.dir().join("token");
    fs::write(&token, "a-long-and-secret-word\n").unwrap();
    let scene = setup
        .set("admin", "token_file", &format!("{token:?}"))
        .start();
    fill(&scene);
    let purge = |headers: &[(&str, &str)]| {
        Client::connect(scene.admin())
            .ask("POST", "/purge", headers, b"{\"all\":true}")
            .answer("POST")
    };
    let refused = purge(&[]);
    let challenge = refused
        .is(401)
        .header("WWW-Authenticate")
        .unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{refused}");
    purge(&[("Authorization", "Bearer a-wrong-word")]).is(401);
    purge(&[("Authorization", "Bearer a-long-and-secret-word-and-more")]).is(401);
    purge(&[("Authorization", "Basic a-long-and-secret-word")]).is(401);
    scene.get("/a").by("hit");
    purge(&[("Authorization", "Bearer a-long-and-secret-word")]).is(200);
    scene.get("/a").by("uri-miss");
}

#[test]
fn purged_space_is_given_back() {
    let scene = Scene::usual();
    scene.origin.does("*", |request| {
        let seed = request.target.len() as u64;
        Reply::ok(crate::origin::noise(seed, 5_000_000)).fresh()
    });
    for target in ["/1", "/22", "/333"] {
        scene.get(target).stored();
    }
    scene.await_durable(3);
    assert!(scene.stat("store.bytes") >= 15_000_000);
    scene.purge_all();
    scene.await_stat("store.entries", |entries| entries == 0);
    scene.await_stat("store.bytes", |bytes| bytes < 5_000_000);
}
