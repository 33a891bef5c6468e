//! The requests to purge that plugins of content management systems send, word by word.
//!
//! `docs/purge.md` says whose they are and what each needs to be set up.

use std::fs;

use crate::client::Answer;
use crate::client::Client;
use crate::client::HOST;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::json;

const SECRET: &str = "a-long-and-secret-word";

/// A site that plugins on this machine may purge on the front.
fn open() -> Setup {
    Scene::new()
        .site("purge_from", "[\"127.0.0.1/32\"]")
        .site("purge_kinds", "\"all\"")
}

/// A site behind an admin listener with a token.
fn guarded() -> Scene {
    let setup = Scene::new().set("admin", "listen", "\"0.0.0.0:0\"");
    let token = setup.dir().join("token");
    fs::write(&token, SECRET).unwrap();
    setup
        .set("admin", "token_file", &format!("{token:?}"))
        .start()
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
        scene.get(target).stored();
    }
}

#[track_caller]
fn operate(
    scene: &Scene,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    Client::connect(scene.admin())
        .ask(method, target, headers, body.as_bytes())
        .answer(method)
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
fn wordpress_proxy_cache_purge_flushes_its_host() {
    let scene = open().start();
    fill(
        &scene,
        "X-Tags",
        &[("/a/", ""), ("/blog/b/", ""), ("/blogs", "")],
    );
    scene.origin.says("/other", Reply::ok("v1").fresh());
    let other = [("Host", "other.test")];
    scene.get_with("/other", &other).stored();
    let regex = [("X-Purge-Method", "regex")];
    scene.ask("PURGE", "/blog/.*", &regex, b"").is(200);
    left(&scene, &["/a/", "/blogs"], &["/blog/b/"]);
    scene.ask("PURGE", "/.*", &regex, b"").is(200);
    left(&scene, &[], &["/a/", "/blogs", "/blog/b/"]);
    scene.get_with("/other", &other).by("hit");
}

#[test]
fn wordpress_proxy_cache_purge_bans_by_a_pattern() {
    let scene = open().start();
    fill(&scene, "X-Tags", &[("/a/1.css", ""), ("/a/1.js", "")]);
    let ban = [("X-Purge-Method", "ban-regex"), ("X-Ban-Regex", "\\.css$")];
    scene.ask("PURGE", "/", &ban, b"").is(200);
    left(&scene, &["/a/1.js"], &["/a/1.css"]);
}

#[test]
fn drupals_bundled_purger_bans_tags() {
    for field in ["Cache-Tags", "Purge-Cache-Tags", "X-Cache-Tags"] {
        let fields = format!("[\"{field}\"]");
        let scene = open().site("tag_fields", &fields).start();
        let tagged = [
            ("/1", "node:1 node_list config:system.site"),
            ("/10", "node:10"),
            ("/2", "node_list"),
        ];
        fill(&scene, field, &tagged);
        let tags = [(field, "node:1|node_view")];
        scene.ask("BAN", "/", &tags, b"").is(200);
        left(&scene, &["/10", "/2"], &["/1"]);
        operate(
            &scene,
            "BAN",
            "/",
            &[(field, "node_list|config:system.site")],
            "",
        )
        .is(200);
        left(&scene, &["/10"], &["/2", "/1"]);
    }
}

#[test]
fn magento_purges_tags_by_a_pattern() {
    let scene = open().site("tag_fields", "[\"X-Magento-Tags\"]").start();
    let tagged = [
        ("/1", "cat_p,cat_p_1,store"),
        ("/12", "cat_p_12,store"),
        ("/c", "cat_c,store"),
    ];
    fill(&scene, "X-Magento-Tags", &tagged);
    // What its socket adapter writes.
    let pattern = "((^|,)cat_p_1(,|$))|((^|,)cat_c(,|$))";
    let request = format!(
        "PURGE / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Magento-Tags-Pattern: {pattern}\r\n\
         Connection: close\r\n\r\n"
    );
    for address in [scene.front(), scene.admin()] {
        let mut client = Client::connect(address);
        client.send(request.as_bytes());
        client.answer("PURGE").is(200);
        left(&scene, &["/12"], &["/1", "/c"]);
    }
    let all = [("X-Magento-Tags-Pattern", ".*")];
    scene.ask("PURGE", "/", &all, b"").is(200);
    left(&scene, &[], &["/1", "/12", "/c"]);
}

#[test]
fn symfonys_client_bans_by_patterns_on_hosts_and_urls() {
    let scene = open().start();
    fill(
        &scene,
        "X-Tags",
        &[("/news/1", ""), ("/news/2", ""), ("/about", "")],
    );
    let ban = |host, url| {
        let fields = [("X-Host", host), ("X-Url", url), ("X-Content-Type", ".*")];
        scene.ask("BAN", "/", &fields, b"")
    };
    ban("^(other.test)$", "^/news/.*").is(200);
    left(&scene, &["/news/1", "/about"], &[]);
    ban("^(other.test|scene.test)$", "^/news/1").is(200);
    left(&scene, &["/news/2", "/about"], &["/news/1"]);
    ban(".*", ".*").is(200);
    left(&scene, &[], &["/news/1", "/news/2", "/about"]);
    let images = [
        ("X-Host", ".*"),
        ("X-Url", ".*"),
        ("X-Content-Type", "image/.*"),
    ];
    scene.ask("BAN", "/", &images, b"").is(400);
    left(&scene, &["/about"], &[]);
}

#[test]
fn symfonys_client_purges_tags_either_way() {
    let scene = open()
        .site("tag_fields", "[\"xkey\", \"X-Cache-Tags\"]")
        .start();
    fill(
        &scene,
        "X-Cache-Tags",
        &[("/1", "node-1,list"), ("/2", "node-2")],
    );
    let tags = [
        ("X-Cache-Tags", "(^|,)(node\\-1|node\\-3)(,|$)"),
        ("X-Host", ".*"),
        ("X-Url", ".*"),
    ];
    scene.ask("BAN", "/", &tags, b"").is(200);
    left(&scene, &["/2"], &["/1"]);
    fill(&scene, "xkey", &[("/3", "c52 l2"), ("/4", "c53 l2")]);
    scene
        .ask("PURGEKEYS", "/", &[("xkey-purge", "c52 c54")], b"")
        .is(200);
    left(&scene, &["/4"], &["/3"]);
    scene.ask("PURGEKEYS", "/", &[], b"").is(400);
}

#[test]
fn ibexa_purges_tags_softly() {
    let scene = open().site("stale_while_revalidate", "\"1h\"").start();
    fill(&scene, "xkey", &[("/1", "c52 l2"), ("/2", "c53")]);
    let stale = scene.get("/1").ttl();
    assert!(stale > 0);
    scene
        .ask("PURGEKEYS", "/", &[("xkey-softpurge", "l2")], b"")
        .is(200);
    scene.get("/1").by("hit").detail("soft-purged");
    scene.origin.await_requests("/1", 2);
    left(&scene, &["/2"], &[]);
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

#[test]
fn nothing_of_another_site_is_purged_on_the_front() {
    let scene = open()
        .more("[[site]]\nhosts = [\"other.test\"]\nupstream = \"main\"\n")
        .start();
    fill(&scene, "xkey", &[("/a", "t")]);
    let other = [("Host", "other.test")];
    scene.get_with("/a", &other).stored();
    scene.ask("PURGE", "/", &[("xkey-purge", "t")], b"").is(200);
    scene
        .ask(
            "BAN",
            "/",
            &[("X-Ban-Url", "/a"), ("X-Ban-Host", ".*")],
            b"",
        )
        .is(200);
    scene
        .ask("BAN", "/", &[("X-Url", ".*"), ("X-Host", ".*")], b"")
        .is(200);
    left(&scene, &[], &["/a"]);
    scene.get_with("/a", &other).by("hit");
    // That site lets nobody purge.
    scene.ask("PURGE", "/a", &other, b"").is(405);
}

#[test]
fn fastlys_clients_purge_tags_and_everything() {
    let scene = guarded();
    fill(
        &scene,
        "Surrogate-Key",
        &[
            ("/1", "a b"),
            ("/2", "b/c"),
            ("/3", "lang:en,x"),
            ("/4", "d"),
        ],
    );
    let key = [("Fastly-Key", SECRET), ("Accept", "application/json")];
    let asked = |target: &str, more: &[(&str, &str)], body: &str| {
        operate(&scene, "POST", target, &[&key, more].concat(), body)
    };
    let refused = operate(
        &scene,
        "POST",
        "/service/SU1Z0isxPaozGVKXdv0eY/purge/a",
        &[],
        "",
    );
    assert!(json(refused.is(401))["msg"].is_string());
    let done = json(asked("/service/SU1Z0isxPaozGVKXdv0eY/purge/a", &[], "").is(200));
    assert_eq!(done["status"], "ok");
    left(&scene, &["/2", "/3", "/4"], &["/1"]);
    asked("/service/SU1Z0isxPaozGVKXdv0eY/purge/b/c", &[], "").is(200);
    left(&scene, &["/1", "/3", "/4"], &["/2"]);
    let body = "{\"surrogate_keys\":[\"lang:en,x\",\"nobody\"]}";
    let many = [("Content-Type", "application/json")];
    let done = json(asked("/service/SU1Z0isxPaozGVKXdv0eY/purge", &many, body).is(200));
    assert!(done["lang:en,x"].is_string() && done["nobody"].is_string());
    left(&scene, &["/1", "/2", "/4"], &["/3"]);
    asked(
        "/service/SU1Z0isxPaozGVKXdv0eY/purge",
        &[("Surrogate-Key", "d b")],
        "",
    )
    .is(200);
    left(&scene, &["/2", "/3"], &["/1", "/4"]);
    asked("/service/SU1Z0isxPaozGVKXdv0eY/purge_all", &[], "").is(200);
    left(&scene, &[], &["/1", "/2", "/3", "/4"]);
    asked(&format!("/purge/{HOST}/1"), &[], "").is(200);
    left(&scene, &["/2"], &["/1"]);
}

#[test]
fn fastlys_soft_purge_makes_it_stale() {
    let scene = Scene::new()
        .site("stale_while_revalidate", "\"1h\"")
        .start();
    fill(&scene, "Surrogate-Key", &[("/1", "a")]);
    let soft = [("Fastly-Soft-Purge", "1")];
    operate(&scene, "POST", "/service/s/purge/a", &soft, "").is(200);
    scene.get("/1").by("hit").detail("soft-purged");
}

#[test]
fn cloudflares_clients_purge_all_their_kinds() {
    let scene = guarded();
    fill(
        &scene,
        "Cache-Tag",
        &[("/1", "a,b"), ("/2", "c"), ("/blog/3", "d"), ("/4", "e")],
    );
    let bearer = format!("Bearer {SECRET}");
    let key = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let zone = "/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/purge_cache";
    let purge = |body: String| operate(&scene, "POST", zone, &key, &body);
    let refused = json(operate(&scene, "POST", zone, &[], "{}").is(401));
    assert_eq!(refused["errors"][0]["code"], 10_000);
    let done = json(purge(format!("{{\"files\":[\"http://{HOST}/4\"]}}")).is(200));
    assert_eq!(
        (&done["success"], &done["errors"]),
        (&true.into(), &serde_json::json!([]))
    );
    assert!(done["result"]["id"].is_string());
    left(&scene, &["/1", "/2", "/blog/3"], &["/4"]);
    purge("{\"tags\":[\"a\",\"c\"]}".to_owned()).is(200);
    left(&scene, &["/blog/3", "/4"], &["/1", "/2"]);
    purge(format!("{{\"prefixes\":[\"{HOST}/blog\"]}}")).is(200);
    left(&scene, &["/1", "/2", "/4"], &["/blog/3"]);
    purge(format!("{{\"hosts\":[\"{HOST}\"]}}")).is(200);
    left(&scene, &[], &["/1", "/2", "/blog/3", "/4"]);
    purge("{\"purge_everything\":true}".to_owned()).is(200);
    left(&scene, &[], &["/1", "/2"]);
    let refused = json(purge("{\"everything\":true}".to_owned()).is(400));
    assert_eq!(refused["success"], false);
    left(&scene, &["/1"], &[]);
}

#[test]
fn a_zone_that_is_a_site_is_all_that_is_purged() {
    let scene = Scene::new()
        .more("[[site]]\nhosts = [\"other.test\"]\nupstream = \"main\"\n")
        .start();
    fill(&scene, "Cache-Tag", &[("/1", "a")]);
    let other = [("Host", "other.test")];
    scene.get_with("/1", &other).stored();
    let zone = "/zones/other.test/purge_cache";
    operate(&scene, "POST", zone, &[], "{\"purge_everything\":true}").is(200);
    scene.get_with("/1", &other).stored();
    left(&scene, &["/1"], &[]);
    operate(&scene, "POST", zone, &[], "{\"tags\":[\"a\"]}").is(200);
    scene.get_with("/1", &other).stored();
    left(&scene, &["/1"], &[]);
}

#[test]
fn souins_clients_purge_tags_keys_and_everything() {
    let scene = Scene::usual();
    fill(
        &scene,
        "Surrogate-Key",
        &[("/1", "a b"), ("/2", "c"), ("/3", "d"), ("/4", "e")],
    );
    let api = "/souin-api/souin";
    operate(&scene, "PURGE", api, &[("Surrogate-Key", "a, x")], "")
        .is(204)
        .sees("");
    left(&scene, &["/2", "/3", "/4"], &["/1"]);
    operate(&scene, "PURGE", api, &[("Surrogate-Keys", "c, x")], "").is(204);
    left(&scene, &["/1", "/3", "/4"], &["/2"]);
    let key = format!("{api}/GET-http-{HOST}-/3");
    operate(&scene, "PURGE", &key, &[], "").is(204);
    left(&scene, &["/1", "/2", "/4"], &["/3"]);
    let group = "{\"type\":\"group\",\"groups\":[\"e\"],\"purge\":true}";
    operate(&scene, "POST", api, &[], group).is(200);
    left(&scene, &["/1", "/2", "/3"], &["/4"]);
    operate(&scene, "PURGE", &format!("{api}/flush"), &[], "").is(204);
    left(&scene, &[], &["/1", "/2", "/3", "/4"]);
    operate(&scene, "PURGE", api, &[], "").is(400);
    operate(&scene, "GET", api, &[], "").is(405);
}
