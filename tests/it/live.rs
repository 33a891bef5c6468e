//! What goes on now: `GET /live`, which the dashboard and `larder top` show.

use serde_json::Value;

use crate::client::Client;
use crate::client::HOST;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::eventually;
use crate::scene::json;

/// What is seen now.
#[track_caller]
fn live(scene: &Scene) -> Value {
    json(scene.operate("GET", "/live", "").is(200))
}

/// Looks until so many requests are in it: a response is counted when it was sent, not before.
#[track_caller]
fn live_of(scene: &Scene, requests: u64) -> Value {
    let mut seen = live(scene);
    eventually("requests to be counted", || {
        seen = live(scene);
        seen["totals"]["requests"] == requests
    });
    seen
}

/// The rows of a list, as URL, count and reason.
fn rows(seen: &Value, list: &str) -> Vec<(String, u64, String)> {
    let rows = seen["top"][list].as_array().expect("a list");
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (
            text("url"),
            row["count"].as_u64().expect("a count"),
            text("reason"),
        )
    };
    rows.iter().map(row).collect()
}

fn row(target: &str, count: u64, reason: &str) -> (String, u64, String) {
    (format!("{HOST}{target}"), count, reason.to_owned())
}

#[test]
fn the_heaviest_urls_are_told_with_the_reason_why_they_are_not_cached() {
    let scene = Scene::usual();
    scene.origin.says("/often", Reply::ok("often").fresh());
    scene
        .origin
        .says("/large", Reply::ok("x".repeat(5000)).fresh());
    let private = Reply::ok("me").header("Cache-Control", "private");
    scene.origin.says("/me", private);
    for _ in 0..4 {
        scene.get("/often").is(200);
    }
    scene.get("/large").is(200);
    scene.get("/me").is(200);
    scene.get("/me").is(200);
    let seen = live_of(&scene, 7);
    assert_eq!(
        rows(&seen, "requests"),
        [
            row("/often", 4, ""),
            row("/me", 2, ""),
            row("/large", 1, "")
        ]
    );
    assert_eq!(rows(&seen, "misses")[0], row("/me", 2, ""));
    assert_eq!(rows(&seen, "bytes")[0], row("/large", 5000, ""));
    let reasons = rows(&seen, "not_cached");
    assert!(reasons.contains(&row("/me", 1, "private")), "{reasons:?}");
    let waited: u64 = reasons.iter().map(|(_, count, _)| count).sum();
    assert_eq!(waited, 2, "{reasons:?}");
}

#[test]
fn counts_and_sizes_are_those_of_the_other_figures() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.get("/a").by("hit");
    scene.get("/a").by("hit");
    scene.await_durable(1);
    let seen = live_of(&scene, 3);
    assert_eq!(seen["totals"]["hits"], 2);
    assert_eq!(seen["totals"]["bytes"], 6);
    assert_eq!(seen["totals"]["hit_bytes"], 4);
    assert_eq!(seen["store"]["entries"], 1);
    assert_eq!(seen["store"]["limit"], scene.stat("store.limit"));
    assert_eq!(seen["origins"][0]["name"], scene.origin.url().as_str());
    assert_eq!(seen["origins"][0]["usable"], true);
    let (at, since) = (seen["at_ms"].as_u64(), seen["since_ms"].as_u64());
    assert!(at > since, "{at:?} {since:?}");
}

#[test]
fn the_curve_has_four_sizes_and_today_s_ratio_is_the_one_that_was_counted() {
    let scene = Scene::usual();
    for n in 0..20 {
        let target = format!("/{n}");
        scene.origin.says(&target, Reply::ok("body").fresh());
        scene.get(&target).is(200);
        scene.get(&target).by("hit");
    }
    let seen = live_of(&scene, 40);
    let curve = &scene.stats()["curve"];
    assert_eq!(*curve, seen["curve"]);
    let points = curve["points"].as_array().expect("points");
    let told = |name: &str| -> Vec<f64> {
        let points = points.iter().map(|point| &point[name]);
        points
            .map(|told| told.as_f64().expect("a number"))
            .collect()
    };
    assert_eq!(told("times"), [0.5, 1.0, 2.0, 4.0]);
    // Everything fits into half of it.
    assert_eq!(told("hit_ratio"), [0.5; 4]);
    assert_eq!(points[3]["bytes"], 4 * scene.stat("store.limit"));
    assert_eq!(points[3]["full"], false);
}

#[test]
fn a_backend_that_is_down_is_told_to_be() {
    let closed = crate::scene::ClosedPort::new();
    let scene = Scene::new()
        .upstream("backends", &format!("[{:?}]", closed.url()))
        .start();
    for _ in 0..20 {
        scene.get("/a").is_one_of(&[502, 503]);
    }
    let seen = live(&scene);
    assert_eq!(seen["origins"][0]["usable"], false);
    let errors = seen["totals"]["errors"].as_u64();
    assert!(errors > Some(0), "{errors:?}");
}

#[test]
fn a_web_page_under_another_name_is_told_nothing() {
    let scene = Scene::usual();
    let port = scene.admin().port();
    let ask = |host: &str| {
        let mut admin = Client::connect(scene.admin());
        admin
            .ask("GET", "/live", &[("Host", host)], b"")
            .answer("GET")
    };
    ask(&format!("127.0.0.1:{port}")).is(200);
    ask(&format!("localhost:{port}")).is(200);
    // A name that its owner lets lead to this machine.
    ask(&format!("rebound.example:{port}")).is(403);
}

#[test]
fn a_purge_is_taken_from_the_listener_s_own_page_and_from_no_other() {
    let scene = Scene::usual();
    let purge = |origin: &str| {
        let host = scene.admin().to_string();
        let headers = [("Host", host.as_str()), ("Origin", origin)];
        let mut admin = Client::connect(scene.admin());
        let asked = admin.ask("POST", "/purge", &headers, b"{\"all\":true}");
        asked.answer("POST")
    };
    purge(&format!("http://{}", scene.admin())).is(200);
    purge("http://evil.example").is(403);
    purge("null").is(403);
}
