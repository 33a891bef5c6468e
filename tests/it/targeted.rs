//! Fields that speak to this cache and not to others (RFC 9213, Edge Architecture).

use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

fn surrogate() -> Setup {
    Scene::new().site("targeted", "[\"cdn-cache-control\", \"Surrogate-Control\"]")
}

/// Asks twice and says whether the second was a hit.
#[track_caller]
fn is_kept(scene: &Scene, target: &str, lines: &[(&str, &str)]) -> bool {
    let add = |reply: Reply, line: &(&str, &str)| reply.header(line.0, line.1);
    scene
        .origin
        .says(target, lines.iter().fold(Reply::ok("v1"), add));
    scene.get(target).is(200).sees("v1");
    let hit = scene.get(target).is(200).cache_status("hit").is_some();
    scene.origin.saw(target, if hit { 1 } else { 2 });
    hit
}

#[test]
fn a_valid_targeted_field_decides_alone() {
    let scene = Scene::usual();
    let field = "CDN-Cache-Control";
    let long_ago = ("Expires", "Mon, 01 Jan 2024 00:00:00 GMT");
    let far = ("Expires", "Fri, 01 Jan 2100 00:00:00 GMT");
    let no_store = ("Cache-Control", "no-store");
    assert!(is_kept(
        &scene,
        "/a",
        &[no_store, (field, "max-age=60"), long_ago]
    ));
    assert!(!is_kept(
        &scene,
        "/b",
        &[("Cache-Control", "max-age=60"), (field, "none")]
    ));
    assert!(!is_kept(&scene, "/c", &[(field, "none"), far]));
    assert!(!is_kept(&scene, "/d", &[(field, "max-age=60, no-store")]));
    assert!(!is_kept(&scene, "/e", &[(field, "max-age=60, private")]));
}

#[test]
fn a_targeted_field_that_is_no_dictionary_is_as_good_as_absent() {
    let scene = Scene::usual();
    let broken = [
        "",
        "max-age=60, &&&",
        "Max-Age=60",
        "max-age=60,",
        "max-age =60",
    ];
    for (number, value) in broken.iter().enumerate() {
        let field = ("CDN-Cache-Control", *value);
        let kept = [field, ("Cache-Control", "max-age=60")];
        assert!(
            is_kept(&scene, &format!("/kept/{number}"), &kept),
            "{value}"
        );
        let not = [field, ("Cache-Control", "no-store")];
        assert!(!is_kept(&scene, &format!("/not/{number}"), &not), "{value}");
    }
}

#[test]
fn a_lifetime_of_the_wrong_type_is_none() {
    let scene = Scene::usual();
    for (number, value) in ["max-age=\"60\"", "max-age=60.0", "max-age=-60"]
        .iter()
        .enumerate()
    {
        let lines = [
            ("CDN-Cache-Control", *value),
            ("Cache-Control", "max-age=60"),
            ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ];
        let target = format!("/{number}");
        let reply = lines
            .iter()
            .fold(Reply::ok("v1"), |reply, l| reply.header(l.0, l.1));
        scene.origin.says(&target, reply);
        scene.get(&target).sees("v1");
        scene.get(&target).by("stale");
    }
    assert!(is_kept(
        &scene,
        "/parameter",
        &[("CDN-Cache-Control", "max-age=60;x=1")]
    ));
}

#[test]
fn two_lines_of_a_targeted_field_are_one_dictionary() {
    let scene = Scene::usual();
    let lines = [
        ("CDN-Cache-Control", "max-age=0"),
        ("CDN-Cache-Control", "max-age=60"),
    ];
    assert!(is_kept(&scene, "/a", &lines));
}

#[test]
fn targeted_fields_are_passed_on_unless_the_site_takes_them_off() {
    let reply = Reply::ok("v1").header("CDN-Cache-Control", "max-age=60");
    let scene = Scene::usual();
    scene.origin.says("/a", reply.clone());
    scene
        .get("/a")
        .stored()
        .has("CDN-Cache-Control", "max-age=60");
    scene
        .get("/a")
        .by("hit")
        .has("CDN-Cache-Control", "max-age=60");
    let scene = surrogate().site("targeted_pass", "false").start();
    let reply = reply
        .header("Surrogate-Control", "max-age=60")
        .header("Example-Cache-Control", "max-age=60")
        .tagged("\"1\"");
    scene.origin.says("/a", reply);
    let condition = [("If-None-Match", "\"1\"")];
    for answer in [
        scene.get("/a"),
        scene.get("/a"),
        scene.head("/a"),
        scene.get_with("/a", &condition),
    ] {
        assert_eq!(answer.header("CDN-Cache-Control"), None, "{answer}");
        assert_eq!(answer.header("Surrogate-Control"), None, "{answer}");
    }
    // What is not on the list is none of our business.
    scene
        .get("/a")
        .by("hit")
        .has("Example-Cache-Control", "max-age=60");
    scene.origin.says(
        "/b",
        Reply::ok("v1").header("Surrogate-Control", "no-store"),
    );
    assert_eq!(
        scene.get("/b").not_stored().header("Surrogate-Control"),
        None
    );
}

#[test]
fn surrogate_control_counts_where_it_is_listed() {
    let scene = surrogate().start();
    let no_store = ("Cache-Control", "no-store");
    let says = |value| ("Surrogate-Control", value);
    assert!(is_kept(&scene, "/a", &[no_store, says("Max-Age=60")]));
    assert!(is_kept(
        &scene,
        "/b",
        &[no_store, says("max-age=60+600, content=\"ESI/1.0\"")]
    ));
    assert!(is_kept(
        &scene,
        "/c",
        &[no_store, says("no-store, max-age=60;larder")]
    ));
    assert!(!is_kept(
        &scene,
        "/d",
        &[no_store, says("max-age=60;other")]
    ));
    let fresh = ("Cache-Control", "max-age=60");
    assert!(!is_kept(&scene, "/e", &[fresh, says("no-store")]));
    assert!(is_kept(&scene, "/f", &[fresh, says("no-store;other")]));
    let first = ("CDN-Cache-Control", "max-age=60");
    assert!(is_kept(&scene, "/g", &[first, says("no-store")]));
    assert!(is_kept(&Scene::usual(), "/a", &[fresh, says("no-store")]));
}

#[test]
fn a_freshness_extension_is_time_to_validate_behind_the_clients_back() {
    let scene = surrogate().start();
    let reply = |body| Reply::ok(body).header("Surrogate-Control", "max-age=60+600");
    scene.origin.says_once("/a", reply("v1").aged(100));
    scene.origin.says("/a", reply("v2"));
    scene.get("/a").sees("v1").stored();
    scene
        .get("/a")
        .sees("v1")
        .by("hit")
        .detail("stale-while-revalidate");
    scene.origin.await_requests("/a", 2);
}

#[test]
fn the_origin_learns_who_asks_only_where_surrogate_control_counts() {
    let theirs = [("Surrogate-Capability", "x=\"ESI/1.0\"")];
    let scene = surrogate().start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get_with("/a", &theirs).sees("v1");
    scene.ask("POST", "/a", &theirs, b"x");
    for seen in scene.origin.seen("/a") {
        let all: Vec<_> = seen
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("surrogate-capability"))
            .collect();
        assert_eq!(all.len(), 1, "{seen:?}");
        let said = seen.header("Surrogate-Capability");
        assert_eq!(said, Some("larder=\"Surrogate/1.0\""));
    }
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get_with("/a", &theirs).sees("v1");
    assert_eq!(scene.origin.last("/a").header("Surrogate-Capability"), None);
}
