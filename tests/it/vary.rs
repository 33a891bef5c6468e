//! One target, several representations (RFC 9111 §4.1).

use crate::origin::Reply;
use crate::scene::Scene;

/// A scene whose `/a` speaks the language it is asked for.
fn polyglot() -> Scene {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        let language = request
            .header("Accept-Language")
            .unwrap_or("none")
            .to_owned();
        Reply::ok(language)
            .fresh()
            .header("Vary", "Accept-Language")
    });
    scene
}

fn ask(scene: &Scene, language: &str) -> crate::client::Answer {
    scene.get_with("/a", &[("Accept-Language", language)])
}

#[test]
fn each_variant_is_stored_by_itself() {
    let scene = polyglot();
    ask(&scene, "en").sees("en").by("uri-miss").stored();
    ask(&scene, "de").sees("de").by("vary-miss").stored();
    scene.get("/a").sees("none").by("vary-miss").stored();
    ask(&scene, "en").sees("en").by("hit");
    ask(&scene, "de").sees("de").by("hit");
    scene.get("/a").sees("none").by("hit");
    scene.origin.saw("/a", 3);
}

#[test]
fn variants_outlive_a_restart() {
    let mut scene = polyglot();
    ask(&scene, "en").stored();
    ask(&scene, "de").stored();
    scene.restart();
    ask(&scene, "en").sees("en").by("hit");
    ask(&scene, "de").sees("de").by("hit");
    ask(&scene, "fr").sees("fr").by("vary-miss");
}

#[test]
fn a_purge_takes_every_variant() {
    let scene = polyglot();
    ask(&scene, "en").stored();
    ask(&scene, "de").stored();
    scene.purge(&["/a"]);
    ask(&scene, "en").sees("en").by("uri-miss");
    ask(&scene, "de").sees("de").by("vary-miss");
}

#[test]
fn what_depends_on_the_clients_address_is_never_shared() {
    let scene = Scene::usual();
    let reply = Reply::ok("for 127.0.0.1").fresh();
    scene
        .origin
        .says("/a", reply.header("Vary", "X-Forwarded-For"));
    scene.get("/a").by("uri-miss").not_stored();
    scene.get("/a").by("uri-miss");
    scene.origin.saw("/a", 2);
}

#[test]
fn vary_on_everything_never_hits() {
    let scene = Scene::usual();
    scene
        .origin
        .says("/a", Reply::ok("v1").fresh().header("Vary", "Accept, *"));
    for _ in 0..2 {
        scene.get("/a").sees("v1").not_stored();
    }
    scene.origin.saw("/a", 2);
}

#[test]
fn two_vary_lines_count_as_one() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        let word = |name| request.header(name).unwrap_or("-").to_owned();
        Reply::ok(format!("{} {}", word("X-One"), word("X-Two")))
            .fresh()
            .header("Vary", "X-One")
            .header("Vary", "X-Two")
    });
    let ask = |one: &str, two: &str| scene.get_with("/a", &[("X-One", one), ("X-Two", two)]);
    ask("1", "1").sees("1 1").stored();
    ask("1", "2").sees("1 2").by("vary-miss");
    ask("2", "1").sees("2 1").by("vary-miss");
    ask("1", "1").sees("1 1").by("hit");
}

#[test]
fn each_variant_is_validated_with_its_own_tag() {
    let scene = Scene::usual();
    scene.origin.does("/a", |request| {
        let language = request
            .header("Accept-Language")
            .unwrap_or("none")
            .to_owned();
        let tag = format!("\"{language}\"");
        let aged = if request.header("If-None-Match").is_some() {
            0
        } else {
            100
        };
        Reply::ok(language)
            .cache("max-age=60")
            .aged(aged)
            .tagged(&tag)
            .header("Vary", "Accept-Language")
    });
    ask(&scene, "en").sees("en").stored();
    ask(&scene, "de").sees("de").stored();
    ask(&scene, "en").is(200).sees("en").by("stale");
    let asked = scene.origin.last("/a");
    assert!(
        asked
            .header("If-None-Match")
            .unwrap_or_default()
            .contains("\"en\""),
        "{asked:?}"
    );
    ask(&scene, "en").sees("en").by("hit");
    ask(&scene, "de").is(200).sees("de").by("stale");
}

#[test]
fn languages_select_by_what_they_mean() {
    let scene = polyglot();
    ask(&scene, "en, de;q=0.5").stored();
    for same in ["EN,de;q=0.500", "de ; q=0.5 , en;q=1.0", "en;q=1,,de;q=.5,"] {
        let answer = ask(&scene, same);
        // The last one is malformed: it is compared as it is spelled.
        match same.contains("=.5") {
            false => answer.sees("en, de;q=0.5").by("hit"),
            true => answer.sees(same).by("vary-miss"),
        };
    }
    for other in ["en, de;q=0", "en, de", "en;q=0.5, de", "en"] {
        ask(&scene, other).sees(other).by("vary-miss");
    }
}

#[test]
fn lines_and_the_list_they_make_select_the_same() {
    let scene = polyglot();
    ask(&scene, "en, de").stored();
    let lines = [("Accept-Language", "de"), ("Accept-Language", "en")];
    scene.get_with("/a", &lines).sees("en, de").by("hit");
}

#[test]
fn an_empty_field_selects_another_variant_than_none() {
    let scene = polyglot();
    ask(&scene, "").sees("").stored();
    scene.get("/a").sees("none").by("vary-miss");
    ask(&scene, "").sees("").by("hit");
}

#[test]
fn variants_with_the_same_bytes_have_one_body() {
    let scene = Scene::usual();
    let reply = Reply::ok("the same for all").fresh();
    scene.origin.says("/a", reply.header("Vary", "User-Agent"));
    for agent in ["a", "b", "c"] {
        scene.get_with("/a", &[("User-Agent", agent)]).stored();
    }
    assert_eq!(scene.stat("store.entries"), 3);
    assert_eq!(scene.stat("store.bodies"), 1);
}

#[test]
fn too_many_variants_push_out_those_nobody_uses_and_the_operator_is_told() {
    let scene = Scene::new().cache("variants_max", "4").start();
    scene.origin.does("/a", |request| {
        let agent = request.header("User-Agent").unwrap_or_default().to_owned();
        Reply::ok(agent).fresh().header("Vary", "User-Agent")
    });
    let ask = |agent: &str| scene.get_with("/a", &[("User-Agent", agent)]);
    for agent in ["one", "two"] {
        ask(agent).stored();
        ask(agent).by("hit");
    }
    for n in 0..20 {
        let agent = format!("flood {n}");
        ask(&agent).sees(&agent).by("vary-miss").stored();
    }
    for agent in ["one", "two", "flood 19"] {
        ask(agent).sees(agent).by("hit");
    }
    assert_eq!(scene.stat("store.entries"), 4);
    assert_eq!(scene.stat("variants.pushed_out"), 18);
    let crowded = &scene.stats()["variants"]["crowded"];
    assert_eq!(crowded[0]["target"], "scene.test/a");
    assert_eq!(crowded[0]["vary"][0], "user-agent");
    assert_eq!(crowded[0]["pushed_out"], 18);
    let told = scene.stderr();
    let lines = told.lines().filter(|line| line.contains("more variants"));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1, "{told}");
    for word in ["scene.test", "/a", "user-agent"] {
        assert!(lines[0].contains(word), "no {word} in {}", lines[0]);
    }
}

/// An origin with a German and an English page that chooses by weight, German first.
fn bilingual(select: &str) -> Scene {
    let scene = Scene::new()
        .site("select_by_content_language", select)
        .start();
    scene.origin.does("/a", |request| {
        let wanted = request.header("Accept-Language").unwrap_or_default();
        let language = if wanted.contains("de") { "de" } else { "en" };
        Reply::ok(format!("{language} for {wanted}"))
            .fresh()
            .header("Vary", "Accept-Language")
            .header("Content-Language", language)
    });
    scene
}

#[test]
fn the_language_of_a_response_answers_those_who_like_it_best_if_the_operator_says_so() {
    let mut scene = bilingual("true");
    ask(&scene, "en, de").sees("de for en, de").stored();
    for best in ["fr;q=0.5, de;q=1.0", "DE", "de;q=0.3, *;q=0.2"] {
        ask(&scene, best).sees("de for en, de").by("hit");
    }
    for other in ["fr, de;q=0.9", "de, fr", "*", "de-AT, fr;q=0.1"] {
        ask(&scene, other).by("vary-miss");
    }
    scene.await_durable(2);
    scene.restart();
    ask(&scene, "de, en;q=0.1")
        .sees("de for de-AT, fr;q=0.1")
        .by("hit");
    scene.purge(&["/a"]);
    ask(&scene, "de").sees("de for de").by("uri-miss");
}

#[test]
fn the_language_of_a_response_selects_nothing_by_itself() {
    let scene = bilingual("false");
    ask(&scene, "en, de").stored();
    ask(&scene, "de").sees("de for de").by("vary-miss");
}

#[test]
fn a_default_response_without_vary_does_not_stand_before_a_fresh_variant() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("default").fresh());
    for language in ["en", "old"] {
        let reply = Reply::ok(language).header("Vary", "Accept-Language");
        let reply = match language {
            "en" => reply.fresh(),
            _ => reply.cache("max-age=60").aged(100).tagged("\"old\""),
        };
        scene.origin.says_once("/a", reply);
        ask(&scene, language).sees(language).stored();
    }
    scene.get("/a").sees("default").by("vary-miss").stored();
    ask(&scene, "en").sees("en").by("hit");
    ask(&scene, "fr").sees("default").by("hit");
    // Its variant is stale, and what the origin said since then is not.
    ask(&scene, "old").sees("default").by("hit");
    scene.origin.saw("/a", 3);
}
