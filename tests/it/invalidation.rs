//! What an unsafe request makes invalid (RFC 9111 §4.4), and groups (RFC 9875).

use crate::client::HOST;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::eventually;

/// A fresh page in some groups.
fn page(body: &str, groups: &str) -> Reply {
    Reply::ok(body).fresh().header("Cache-Groups", groups)
}

/// An answer that invalidates some groups.
fn changed(groups: &str) -> Reply {
    Reply::ok("done").header("Cache-Group-Invalidation", groups)
}

/// A scene with pages in groups, all of them stored; `POST /change` invalidates the group `a`.
fn grouped() -> Scene {
    let scene = Scene::usual();
    for (target, groups) in [
        ("/a", "\"a\""),
        ("/ab", "\"b\", \"a\";note=1"),
        ("/b", "\"b\""),
        ("/upper", "\"A\""),
        ("/token", "a"),
    ] {
        scene.origin.says(target, page("v1", groups));
        scene.get(target).stored();
    }
    scene.origin.says("/plain", Reply::ok("v1").fresh());
    scene.get("/plain").stored();
    scene.origin.says("/change", changed("\"a\""));
    scene
}

/// What was made invalid by `POST /change` in [`grouped`] is gone and the rest is there.
#[track_caller]
fn only_the_group_is_gone(scene: &Scene) {
    for target in ["/b", "/upper", "/token", "/plain"] {
        scene.get(target).sees("v1").by("hit");
    }
    for target in ["/a", "/ab"] {
        scene.origin.says(target, page("v2", "\"a\""));
        scene.get(target).sees("v2").stored();
        scene.get(target).sees("v2").by("hit");
    }
}

#[test]
fn what_the_answer_names_on_the_same_origin_is_invalidated() {
    let scene = Scene::usual();
    for target in ["/form", "/d/new", "/moved?q", "/same", "/other"] {
        scene.origin.says(target, Reply::ok("v1").fresh());
        scene.get(target).stored();
    }
    let names = |location: &str, content_location: &str| {
        Reply::status(201)
            .header("Location", location)
            .header("Content-Location", content_location)
    };
    let url = format!("http://{HOST}/moved?q");
    scene.origin.says_once("/form", names("d/new", &url));
    scene.ask("POST", "/form", &[], b"x").is(201);
    for target in ["/form", "/d/new", "/moved?q"] {
        scene.get(target).by("uri-miss");
    }
    let elsewhere = names("http://other.test/other", &format!("https://{HOST}/same"));
    scene.origin.says_once("/form", elsewhere);
    scene.ask("POST", "/form", &[], b"x").is(201);
    scene.get("/other").by("hit");
    scene.get("/same").by("hit");
}

#[test]
fn a_client_that_leaves_does_not_save_what_it_made_invalid() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene.origin.says_once("/a", Reply::ok("v1").fresh());
    scene.origin.says_once("/a", Reply::ok("done").held(&gate));
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v1").stored();
    let mut client = scene.connect();
    client.ask("POST", "/a", &[], b"change");
    scene.origin.await_requests("/a", 2);
    drop(client);
    scene.fence();
    scene.get("/a").sees("v1").by("hit");
    gate.open();
    eventually("the change to take hold", || {
        scene.get("/a").is(200).body == b"v2"
    });
}

#[test]
fn a_body_that_breaks_off_invalidates_its_target() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", Reply::ok("v1").fresh());
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v1").stored();
    let mut client = scene.connect();
    let head = format!("POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nhalf");
    client.send(head.as_bytes());
    scene.fence();
    drop(client);
    eventually("the change to take hold", || {
        scene.get("/a").is(200).body == b"v2"
    });
}

#[test]
fn an_origin_that_does_not_answer_may_have_changed_all_the_same() {
    let scene = Scene::usual();
    scene.origin.says_once("/a", Reply::ok("v1").fresh());
    scene.origin.says_once("/a", Reply::nothing());
    scene.origin.says("/a", Reply::ok("v2").fresh());
    scene.get("/a").sees("v1").stored();
    scene.ask("POST", "/a", &[], b"change").is(502);
    scene.get("/a").sees("v2").by("uri-miss");
}

#[test]
fn what_never_reached_an_origin_invalidates_nothing() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    scene.origin.close();
    scene
        .ask("POST", "/a", &[], b"change")
        .is_one_of(&[502, 503]);
    scene.get("/a").sees("v1").by("hit");
}

#[test]
fn a_group_is_invalidated_and_nothing_else() {
    let scene = grouped();
    scene.ask("POST", "/change", &[], b"x").is(200);
    only_the_group_is_gone(&scene);
}

#[test]
fn an_invalidated_group_stays_so_after_a_restart() {
    let mut scene = grouped();
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.restart();
    only_the_group_is_gone(&scene);
}

#[test]
fn an_invalidated_group_stays_so_after_a_kill() {
    let mut scene = grouped();
    scene.await_durable(6);
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.kill9_and_start();
    only_the_group_is_gone(&scene);
}

#[test]
fn groups_are_known_after_a_restart() {
    let mut scene = grouped();
    scene.restart();
    scene.ask("POST", "/change", &[], b"x").is(200);
    only_the_group_is_gone(&scene);
}

#[test]
fn what_goes_with_a_group_takes_no_other_group_with_it() {
    let scene = grouped();
    scene.origin.says("/ab", changed("\"none\""));
    // The target is invalidated by its name, and is in the groups `a` and `b`.
    scene.ask("POST", "/ab", &[], b"x").is(200);
    scene.get("/a").by("hit");
    scene.get("/b").by("hit");
}

#[test]
fn safe_requests_and_errors_invalidate_no_group() {
    let scene = grouped();
    scene.get("/change").is(200);
    scene.head("/change").is(200);
    scene.ask("OPTIONS", "/change", &[], b"").is(200);
    let error = Reply::status(500).header("Cache-Group-Invalidation", "\"a\"");
    scene.origin.says("/change", error);
    scene.ask("POST", "/change", &[], b"x").is(500);
    scene.origin.says("/change", changed("a"));
    scene.ask("POST", "/change", &[], b"x").is(200);
    for target in ["/a", "/ab"] {
        scene.get(target).by("hit");
    }
}

#[test]
fn another_origins_group_of_the_same_name_is_left_alone() {
    let scene = grouped();
    let other = [("Host", "other.test")];
    scene.get_with("/a", &other).stored();
    scene.ask("POST", "/change", &other, b"x").is(200);
    scene.get("/a").by("hit");
    scene.get_with("/a", &other).stored();
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get_with("/a", &other).by("hit");
}

#[test]
fn a_large_body_on_disk_goes_with_its_group() {
    let setup = Scene::new().cache("memory_bytes_max", "\"0B\"");
    let scene = setup.start();
    let body = noise(5, 3_000_000);
    scene.origin.says(
        "/large",
        Reply::ok(body.clone())
            .fresh()
            .header("Cache-Groups", "\"a\""),
    );
    scene.origin.says("/change", changed("\"x\", \"a\""));
    scene.get("/large").sees(&body).stored();
    scene.await_durable(1);
    scene.get("/large").sees(&body).by("hit");
    scene.ask("DELETE", "/change", &[], b"").is(200);
    scene.get("/large").sees(&body).stored();
    scene.origin.saw("/large", 2);
}

#[test]
fn a_fill_under_way_when_its_group_is_invalidated_is_joined_by_nobody_and_not_kept() {
    let scene = Scene::usual();
    let gate = Gate::new();
    let held = page("old and slow", "\"a\"").held_after(3, &gate);
    scene.origin.says_once("/slow", held);
    scene.origin.says("/slow", page("new", "\"a\""));
    scene.origin.says("/change", changed("\"a\""));
    let mut first = scene.connect();
    let mut reading = first.get("/slow").begin("GET");
    assert_eq!(reading.up_to(3), b"old");
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/slow").sees("new").stored();
    gate.open();
    reading.finish().sees("old and slow");
    scene.get("/slow").sees("new").by("hit");
    scene.origin.saw("/slow", 2);
}

#[test]
fn a_validation_does_not_bring_back_what_its_group_took_away() {
    let scene = Scene::usual();
    let stale = page("v1", "\"a\"").tagged("\"1\"").aged(100);
    scene.origin.says("/a", stale);
    scene.origin.says("/change", changed("\"a\""));
    scene.get("/a").stored();
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/a").sees("v1");
    assert_eq!(scene.origin.last("/a").header("If-None-Match"), None);
}

#[test]
fn a_304_can_put_a_response_into_other_groups() {
    let scene = Scene::usual();
    let stale = page("v1", "\"old\"").tagged("\"1\"").aged(100);
    scene.origin.says_once("/a", stale);
    scene
        .origin
        .says("/a", page("v1", "\"new\"").tagged("\"1\""));
    scene.get("/a").stored();
    scene.get("/a").by("stale").stored();
    scene.origin.says("/change", changed("\"old\""));
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/a").by("hit");
    scene.origin.says("/change", changed("\"new\""));
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/a").stored();
}

#[test]
fn a_response_with_more_groups_than_are_kept_goes_with_any() {
    let scene = Scene::usual();
    let list = |count: usize| {
        let groups: Vec<String> = (0..count).map(|n| format!("\"group {n:0>32}\"")).collect();
        groups.join(", ")
    };
    scene.origin.says("/most", page("v1", &list(256)));
    scene.origin.says("/more", page("v1", &list(257)));
    scene.origin.says("/change", changed("\"unheard of\""));
    scene.get("/most").stored();
    scene.get("/more").stored();
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/most").by("hit");
    scene.get("/more").stored();
    scene.origin.says("/change", changed(&list(64)));
    scene.ask("POST", "/change", &[], b"x").is(200);
    scene.get("/most").stored();
}
