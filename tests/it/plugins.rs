//! The requests to purge that plugins of content management systems send, word by word.
//!
//! `docs/purge.md` says whose they are and what each needs to be set up.

use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

/// A site that plugins on this machine may purge on the front.
fn open() -> Setup {
    Scene::new()
        .site("purge_from", "[\"127.0.0.1/32\"]")
        .site("purge_kinds", "\"all\"")
}

/// Stores targets, each with its tags in a field.
fn fill(scene: &Scene, field: &str, tagged: &[(&str, &str)]) {
    for (target, tags) in tagged {
        let reply = Reply::ok("v1").fresh().header(field, tags);
        scene.origin.says(target, reply);
        scene.get(target).stored();
    }
}

/// Asserts which targets are stored.
#[track_caller]
fn left(scene: &Scene, stored: &[&str], gone: &[&str]) {
    for target in stored {
        scene.get(target).by("hit");
    }
    for target in gone {
        scene.get(target).by("uri-miss");
    }
}

#[test]
fn wordpress_nginx_helper_purges_by_a_get() {
    let scene = open().site("purge_path", "\"/purge\"").start();
    fill(&scene, "X-Tags", &[("/hello-world/", ""), ("/feed/", "")]);
    let agent = [
        ("User-Agent", "WordPress/6.8.2; http://scene.test"),
        ("Connection", "close"),
    ];
    scene.ask("GET", "/purge/hello-world/", &agent, b"").is(200);
    left(&scene, &["/feed/"], &["/hello-world/"]);
    // Which the plugin logs as "is currently not cached".
    scene.ask("GET", "/purge/never-seen/", &agent, b"").is(404);
    scene.origin.saw("/purge/hello-world/", 0);
}

#[test]
fn a_get_from_elsewhere_purges_nothing() {
    let scene = Scene::new()
        .site("purge_from", "[\"192.0.2.0/24\"]")
        .site("purge_path", "\"/purge\"")
        .start();
    fill(&scene, "X-Tags", &[("/a", "")]);
    scene.ask("GET", "/purge/a", &[], b"").is(405);
    left(&scene, &["/a"], &[]);
}

#[test]
fn wordpress_proxy_cache_purge_purges_urls() {
    let scene = open().start();
    fill(&scene, "X-Tags", &[("/a/", ""), ("/a/?x", ""), ("/b/", "")]);
    let method = [
        ("X-Purge-Method", "default"),
        ("User-Agent", "WordPress/6.8.2"),
    ];
    scene.ask("PURGE", "/a/", &method, b"").is(200);
    left(&scene, &["/a/?x", "/b/"], &["/a/"]);
}

#[test]
fn a_site_that_lets_urls_be_purged_refuses_the_rest() {
    let scene = Scene::new()
        .site("purge_from", "[\"127.0.0.1/32\"]")
        .start();
    fill(&scene, "xkey", &[("/a", "t")]);
    scene.ask("PURGE", "/", &[("xkey-purge", "t")], b"").is(403);
    scene
        .ask("PURGE", "/.*", &[("X-Purge-Method", "regex")], b"")
        .is(403);
    scene.origin.says("/", Reply::ok("the origin's"));
    scene
        .ask("BAN", "/", &[("xkey-purge", "t")], b"")
        .sees("the origin's");
    left(&scene, &["/a"], &[]);
    scene.ask("PURGE", "/a", &[], b"").is(200);
    left(&scene, &[], &["/a"]);
}

#[test]
fn a_plugin_elsewhere_is_refused() {
    let scene = Scene::new()
        .site("purge_from", "[\"192.0.2.0/24\"]")
        .site("purge_kinds", "\"all\"")
        .start();
    fill(&scene, "xkey", &[("/a", "t")]);
    for method in ["PURGE", "BAN", "PURGEKEYS"] {
        scene.ask(method, "/", &[("xkey-purge", "t")], b"").is(405);
    }
    left(&scene, &["/a"], &[]);
}
