//! Purges of many responses at once: by tag, prefix, host, pattern and site, hard and soft.

use crate::origin::Gate;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;
use crate::scene::json;
use serde_json::Value;
use serde_json::json;

/// What each page of [`pages`] is called, the field its tags are in, and the tags.
const PAGES: [(&str, &str, &str); 5] = [
    ("/news/1", "Cache-Tag", "news, front page"),
    ("/news/2", "Surrogate-Key", "news other"),
    ("/blog/1?a=b", "xkey", "blog front,page"),
    ("/blog/2", "Cache-Groups", "\"blog\""),
    ("/plain", "X-Nothing", "news"),
];

fn page(body: &str, field: &str, tags: &str) -> Reply {
    Reply::ok(body).fresh().header(field, tags)
}

/// A running scene in which every page is stored and says `v1`; the origin says `v2` by now.
fn pages(setup: Setup) -> Scene {
    let scene = setup.start();
    for (target, field, tags) in PAGES {
        scene.origin.says(target, page("v1", field, tags));
        scene.get(target).sees("v1").stored();
        scene.origin.says(target, page("v2", field, tags));
    }
    scene
}

#[track_caller]
fn purge(scene: &Scene, purge: &Value) -> Value {
    json(scene.operate("POST", "/purge", &purge.to_string()).is(200))
}

/// Of all pages these are gone, and no other.
#[track_caller]
fn only_gone(scene: &Scene, gone: &[&str]) {
    for (target, ..) in PAGES {
        let answer = scene.get(target);
        if gone.contains(&target) {
            answer.sees("v2").stored();
            scene.get(target).sees("v2").by("hit");
        } else {
            answer.sees("v1").by("hit");
        }
    }
}

#[test]
fn a_tag_covers_what_bears_it_in_any_field() {
    let scene = pages(Scene::new());
    let receipt = purge(&scene, &json!({"tags": ["news"]}));
    assert_eq!(receipt["durable"], true, "{receipt}");
    only_gone(&scene, &["/news/1", "/news/2"]);
    let scene = pages(Scene::new());
    purge(&scene, &json!({"tags": ["blog", "front page"]}));
    only_gone(&scene, &["/news/1", "/blog/1?a=b", "/blog/2"]);
}

#[test]
fn a_tag_is_compared_by_every_character() {
    let scene = pages(Scene::new());
    purge(
        &scene,
        &json!({"tags": ["New", "NEWS", "new", "front", "page", "front,pag"]}),
    );
    only_gone(&scene, &[]);
    purge(&scene, &json!({"tags": ["front,page"]}));
    only_gone(&scene, &["/blog/1?a=b"]);
}

#[test]
fn a_prefix_covers_hosts_and_paths_that_begin_so() {
    for prefix in ["scene.test/news/", "http://Scene.TEST/news", "scene.test/n"] {
        let scene = pages(Scene::new());
        purge(&scene, &json!({"prefixes": [prefix]}));
        only_gone(&scene, &["/news/1", "/news/2"]);
    }
    let scene = pages(Scene::new());
    purge(
        &scene,
        &json!({"prefixes": ["scene.test/blog/1?a", "other.test/", "scene.test/NEWS"]}),
    );
    only_gone(&scene, &["/blog/1?a=b"]);
}

#[test]
fn a_host_covers_its_responses_and_no_others() {
    let scene = pages(Scene::new());
    purge(
        &scene,
        &json!({"hosts": ["cene.test", "scene.tes", "other.test"]}),
    );
    only_gone(&scene, &[]);
    purge(&scene, &json!({"hosts": ["SCENE.test"]}));
    only_gone(&scene, &PAGES.map(|(target, ..)| target));
}

#[test]
fn a_host_covers_every_port() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    let with_port = [("Host", "scene.test:8080")];
    scene.get_with("/a", &with_port).stored();
    scene.get("/a").stored();
    purge(&scene, &json!({"hosts": ["scene.test"]}));
    scene.get_with("/a", &with_port).stored();
    scene.get("/a").stored();
}

#[test]
fn a_pattern_covers_urls_that_it_matches_anywhere() {
    let scene = pages(Scene::new());
    purge(&scene, &json!({"regexes": ["^scene[.]test/.*/1($|\\?)"]}));
    only_gone(&scene, &["/news/1", "/blog/1?a=b"]);
    let scene = pages(Scene::new());
    purge(&scene, &json!({"regexes": ["a=b$", "^/plain"]}));
    only_gone(&scene, &["/blog/1?a=b"]);
}

#[test]
fn a_site_covers_its_responses_and_narrows_tags_and_patterns() {
    let other = "[[site]]\nhosts = [\"other.test\"]\nupstream = \"main\"\n";
    let setup = || Scene::new().more(other);
    let host = [("Host", "other.test")];
    let both = |scene: &Scene| {
        scene.origin.says("/a", page("v1", "xkey", "t"));
        scene.get("/a").stored();
        scene.get_with("/a", &host).stored();
    };
    for narrow in [
        json!({"sites": ["other.test"]}),
        json!({"tags": ["t"], "site": "other.test"}),
        json!({"regexes": ["."], "site": "other.test"}),
    ] {
        let scene = setup().start();
        both(&scene);
        purge(&scene, &narrow);
        scene.get("/a").by("hit");
        scene.get_with("/a", &host).stored();
    }
    let scene = setup().start();
    both(&scene);
    purge(&scene, &json!({"tags": ["t"]}));
    scene.get("/a").stored();
    scene.get_with("/a", &host).stored();
}

#[test]
fn what_is_stored_after_a_purge_is_not_covered_by_it() {
    let scene = pages(Scene::new());
    let everything = json!({"tags": ["news", "blog"], "prefixes": ["s"], "regexes": ["."]});
    purge(&scene, &everything);
    for _ in 0..3 {
        for (target, ..) in PAGES {
            scene.get(target).sees("v2");
        }
    }
    for (target, ..) in PAGES {
        scene.origin.saw(target, 2);
    }
}

#[test]
fn purges_of_every_kind_outlive_a_kill_and_a_restart() {
    for kind in [
        json!({"tags": ["news"]}),
        json!({"prefixes": ["scene.test/news"]}),
        json!({"regexes": ["/news/[12]$"]}),
    ] {
        let mut scene = pages(Scene::new());
        scene.await_durable(5);
        purge(&scene, &kind);
        scene.kill9_and_start();
        only_gone(&scene, &["/news/1", "/news/2"]);
        scene.restart();
        scene.get("/news/1").sees("v2").by("hit");
        scene.get("/plain").sees("v1").by("hit");
    }
    let mut scene = pages(Scene::new());
    scene.await_durable(5);
    purge(&scene, &json!({"hosts": ["scene.test"]}));
    scene.kill9_and_start();
    only_gone(&scene, &PAGES.map(|(target, ..)| target));
}

#[test]
fn what_was_on_its_way_when_it_was_purged_is_not_stored() {
    for kind in [
        json!({"urls": ["http://scene.test/a"]}),
        json!({"tags": ["t"]}),
        json!({"prefixes": ["scene.test/a"]}),
        json!({"hosts": ["scene.test"]}),
        json!({"regexes": ["a$"]}),
        json!({"sites": ["*"]}),
        json!({"all": true}),
    ] {
        let scene = Scene::usual();
        let gate = Gate::new();
        let reply = page("v1", "xkey", "t");
        scene.origin.says_once("/a", reply.held_after(1, &gate));
        scene.origin.says("/a", page("v2", "xkey", "t"));
        let crowd = scene.crowd(1, "/a");
        scene.origin.await_requests("/a", 1);
        eventually("the fill", || scene.stat("fills_active") == 1);
        purge(&scene, &kind);
        // Who comes after the purge gets nothing older.
        scene.get("/a").sees("v2");
        gate.open();
        for answer in crowd.answers() {
            answer.is(200).sees("v1");
        }
        scene.get("/a").sees("v2").by("hit");
        scene.origin.saw("/a", 2);
    }
}

#[test]
fn what_was_on_its_way_at_a_soft_purge_is_not_stored_as_fresh() {
    for kind in ["tags", "all"] {
        let scene = Scene::usual();
        let gate = Gate::new();
        let reply = |body: &str| page(body, "xkey", "t").tagged(&format!("\"{body}\""));
        scene
            .origin
            .says_once("/a", reply("v1").held_after(1, &gate));
        scene.origin.says("/a", reply("v2"));
        let crowd = scene.crowd(1, "/a");
        scene.origin.await_requests("/a", 1);
        eventually("the fill", || scene.stat("fills_active") == 1);
        purge(
            &scene,
            &match kind {
                "tags" => json!({"tags": ["t"], "soft": true}),
                _ => json!({"all": true, "soft": true}),
            },
        );
        gate.open();
        for answer in crowd.answers() {
            answer.is(200).sees("v1");
        }
        scene.get("/a").sees("v2").by("stale").detail("soft-purged");
    }
}

/// A page that may be served stale for a minute.
fn lasting(body: &str) -> Reply {
    let reply = page(body, "xkey", "t").tagged(&format!("\"{body}\""));
    reply.instead("Cache-Control", "max-age=600, stale-while-revalidate=60")
}

fn kinds_of_soft_purge() -> [Value; 6] {
    [
        json!({"urls": ["http://scene.test/a"], "soft": true}),
        json!({"tags": ["t"], "soft": true}),
        json!({"prefixes": ["scene.test/"], "soft": true}),
        json!({"regexes": ["/a$"], "soft": true}),
        json!({"sites": ["*"], "soft": true}),
        json!({"all": true, "soft": true}),
    ]
}

#[test]
fn what_was_purged_softly_is_served_stale_while_the_origin_is_asked() {
    for kind in kinds_of_soft_purge() {
        let scene = Scene::usual();
        scene.origin.says("/a", lasting("v1"));
        scene.get("/a").stored();
        scene.get("/a").by("hit");
        scene.origin.says("/a", lasting("v2"));
        purge(&scene, &kind);
        let answer = scene.get("/a");
        answer.sees("v1").by("hit").detail("soft-purged");
        assert!(answer.ttl() <= 0, "{answer}");
        scene.origin.await_requests("/a", 2);
        eventually("the new response", || scene.get("/a").body == b"v2");
        let answer = scene.get("/a");
        answer.sees("v2").by("hit");
        assert!(answer.ttl() > 0, "{answer}");
        scene.origin.saw("/a", 2);
    }
}

#[test]
fn what_was_purged_softly_is_fresh_again_after_a_validation() {
    let scene = Scene::usual();
    let reply = || page("v1", "xkey", "t").tagged("\"1\"");
    scene.origin.says("/a", reply());
    scene.get("/a").stored();
    purge(&scene, &json!({"tags": ["t"], "soft": true}));
    let answer = scene.get("/a");
    answer.sees("v1").by("stale").detail("soft-purged");
    assert_eq!(
        scene.origin.last("/a").header("If-None-Match"),
        Some("\"1\"")
    );
    scene.get("/a").sees("v1").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn what_was_purged_softly_stands_in_for_an_error_and_what_was_purged_does_not() {
    let scene = Scene::new().site("stale_if_error", "\"10m\"").start();
    for target in ["/soft", "/hard"] {
        scene.origin.says(target, page("v1", "xkey", &target[1..]));
        scene.get(target).stored();
        scene.origin.says(target, Reply::status(503));
    }
    purge(&scene, &json!({"tags": ["soft"], "soft": true}));
    purge(&scene, &json!({"tags": ["hard"]}));
    scene
        .get("/soft")
        .is(200)
        .sees("v1")
        .detail("stale-if-error");
    scene.get("/hard").is(503);
}

#[test]
fn a_soft_purge_counts_from_its_moment_also_after_a_kill() {
    let mut scene = Scene::new().own_clock().start();
    for target in ["/a", "/b"] {
        scene.origin.says(target, lasting("v1"));
        scene.get(target).stored();
        scene.origin.says(target, lasting("v2"));
    }
    scene.await_durable(2);
    purge(&scene, &json!({"tags": ["t"], "soft": true}));
    scene.clock_moves(30);
    scene.kill9_and_start();
    let answer = scene.get("/a");
    answer.sees("v1").by("hit").detail("soft-purged");
    assert!((-40..=-30).contains(&answer.ttl()), "{answer}");
    // Past the window that the origin granted.
    scene.clock_moves(40);
    scene.get("/b").sees("v2").by("stale").detail("soft-purged");
}

#[test]
fn a_hard_purge_outdoes_a_soft_one() {
    let scene = Scene::usual();
    scene.origin.says("/a", lasting("v1"));
    scene.get("/a").stored();
    scene.origin.says("/a", lasting("v2"));
    purge(&scene, &json!({"tags": ["t"], "soft": true}));
    purge(&scene, &json!({"prefixes": ["scene.test/"]}));
    purge(&scene, &json!({"tags": ["t"], "soft": true}));
    scene.get("/a").sees("v2").by("miss");
}

#[test]
fn what_was_purged_by_tag_is_looked_for_and_its_space_given_back() {
    let scene = Scene::usual();
    for n in 0..3_u64 {
        let target = format!("/{n}");
        let reply = Reply::ok(noise(n, 5_000_000)).fresh();
        scene.origin.says(&target, reply.header("xkey", "t"));
        scene.get(&target).stored();
    }
    scene.origin.says("/kept", page("kept", "xkey", "u"));
    scene.get("/kept").stored();
    scene.await_durable(4);
    purge(&scene, &json!({"tags": ["t"]}));
    // Nobody asks for any of them.
    scene.await_stat("store.entries", |entries| entries == 1);
    scene.await_stat("store.bytes", |bytes| bytes < 5_000_000);
    scene.get("/kept").sees("kept").by("hit");
}

#[test]
fn operators_tags_stay_here_unless_the_site_passes_them_on() {
    let fields = ["Cache-Tag", "Surrogate-Key", "xkey"];
    let tagged = || {
        let reply = Reply::ok("v1").fresh().header("Cache-Groups", "\"g\"");
        fields
            .iter()
            .fold(reply, |reply, field| reply.header(field, "t"))
    };
    for (pass, setup) in [
        (false, Scene::new()),
        (true, Scene::new().site("tag_fields_pass", "true")),
    ] {
        let scene = setup.start();
        scene.origin.says("/a", tagged());
        scene
            .origin
            .says("/b", tagged().instead("Cache-Control", "no-store"));
        for answer in [scene.get("/a"), scene.get("/a"), scene.get("/b")] {
            for field in fields {
                assert_eq!(answer.header(field).is_some(), pass, "{field}: {answer}");
            }
            assert_eq!(answer.header("Cache-Groups"), Some("\"g\""));
        }
    }
}

#[test]
fn a_site_chooses_the_fields_that_are_tags() {
    let setup = Scene::new().site("tag_fields", "[\"X-Magento-Tags\"]");
    let scene = setup.start();
    scene
        .origin
        .says("/a", page("v1", "X-Magento-Tags", "cat_1,cat_2"));
    scene.origin.says("/b", page("v1", "xkey", "cat_2"));
    for target in ["/a", "/b"] {
        let answer = scene.get(target);
        answer.stored();
        assert_eq!(answer.header("X-Magento-Tags"), None);
        assert_eq!(answer.header("xkey").is_some(), target == "/b");
    }
    purge(&scene, &json!({"tags": ["cat_2"]}));
    scene.get("/a").by("miss");
    scene.get("/b").by("hit");
}

#[test]
fn a_response_with_too_many_tags_goes_with_any_of_its_site() {
    let scene = Scene::usual();
    let many: Vec<String> = (0..600).map(|n| n.to_string()).collect();
    scene
        .origin
        .says("/many", page("v1", "xkey", &many.join(" ")));
    scene
        .origin
        .says("/long", page("v1", "xkey", &"x".repeat(1025)));
    scene.origin.says("/few", page("v1", "xkey", "1 2 3"));
    for target in ["/many", "/long", "/few"] {
        scene.get(target).stored();
    }
    purge(&scene, &json!({"tags": ["unheard-of"]}));
    scene.get("/many").by("miss");
    scene.get("/long").by("miss");
    scene.get("/few").by("hit");
}

#[test]
fn what_covers_nothing_or_too_much_is_refused() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").stored();
    for body in [
        json!({"tags": [""]}),
        json!({"tags": ["x".repeat(1025)]}),
        json!({"prefixes": [""]}),
        json!({"prefixes": ["a b/"]}),
        json!({"hosts": ["a/b"]}),
        json!({"hosts": ["a:80"]}),
        json!({"regexes": [""]}),
        json!({"regexes": ["("]}),
        json!({"regexes": ["(?:x{1000}){1000}"]}),
        json!({"regexes": ["x".repeat(1025)]}),
        json!({"tags": vec!["t"; 1001]}),
        json!({"prefixes": vec!["x".repeat(2000); 100]}),
    ] {
        scene.operate("POST", "/purge", &body.to_string()).is(400);
    }
    for body in [
        json!({"sites": ["none"]}),
        json!({"tags": ["t"], "site": "none"}),
    ] {
        scene.operate("POST", "/purge", &body.to_string()).is(404);
    }
    scene.get("/a").by("hit");
}

#[test]
fn a_purge_of_any_kind_at_the_process_that_took_over_holds_at_the_one_before() {
    for kind in [
        json!({"tags": ["t"]}),
        json!({"prefixes": ["scene.test/a"]}),
        json!({"regexes": ["a$"]}),
        json!({"hosts": ["scene.test"], "sites": ["*"]}),
    ] {
        let mut scene = Scene::usual();
        scene.origin.says("/a", page("v1", "xkey", "t"));
        scene.get("/a").stored();
        let gate = Gate::new();
        scene.origin.says("/slow", Reply::ok("slow").held(&gate));
        // One request keeps the connection, and with it the process before, for another behind it.
        let mut client = scene.connect();
        client.get("/slow");
        scene.origin.await_requests("/slow", 1);
        client.get("/a");
        scene.signal("USR2");
        scene.await_taken_over();
        scene.origin.says("/a", page("v2", "xkey", "t"));
        assert_eq!(purge(&scene, &kind)["durable"], true);
        gate.open();
        client.answer("GET").sees("slow");
        if let Some(reading) = client.try_begin("GET") {
            reading.finish().sees("v2");
        }
        scene.get("/a").sees("v2");
        scene.await_elders();
        scene.restart();
        scene.get("/a").sees("v2").by("hit");
    }
}
