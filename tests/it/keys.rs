//! What counts in a key: the site's policy, and what the origin says by No-Vary-Search.

use crate::client::Answer;
use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

/// An origin that answers each target with its own name.
fn echoing(setup: Setup) -> Scene {
    let scene = setup.start();
    scene
        .origin
        .does("*", |request| Reply::ok(request.target.clone()).fresh());
    scene
}

/// An origin that answers each target with its own name and this No-Vary-Search.
fn saying(field: &'static str) -> Scene {
    let scene = Scene::usual();
    scene.origin.does("*", move |request| {
        Reply::ok(request.target.clone())
            .fresh()
            .header("No-Vary-Search", field)
    });
    scene
}

#[test]
fn dropped_parameters_count_neither_in_the_key_nor_for_the_origin() {
    let scene = echoing(Scene::new().site("key_query_drop", "[\"ref\", \"utm_*\"]"));
    scene
        .get("/a?utm_source=x&b=1&ref")
        .sees("/a?b=1")
        .by("uri-miss")
        .stored();
    scene.get("/a?b=1").sees("/a?b=1").by("hit");
    scene.get("/a?ref=2&b=1").sees("/a?b=1").by("hit");
    scene.get("/a?b=2&ref=2").sees("/a?b=2").by("uri-miss");
    scene.get("/a?utm_id=1").sees("/a").by("uri-miss");
    scene.get("/a").sees("/a").by("hit");
    assert_eq!(scene.origin.requests(), 3);
}

#[test]
fn what_a_post_was_told_beyond_its_key_is_for_no_get() {
    let scene = Scene::new()
        .site("key_query_drop", "[\"ref\"]")
        .site("key_port", "false")
        .start();
    scene.origin.does("*", |request| {
        let told = format!(
            "{} {}",
            request.header("Host").unwrap_or(""),
            request.target
        );
        let told = Reply::ok(told).fresh();
        match request.method.as_str() {
            "POST" => told.header("Content-Location", &request.target),
            _ => told,
        }
    });
    scene
        .ask("POST", "/a?ref=evil", &[], b"x")
        .is(200)
        .not_stored();
    scene.get("/a").by("uri-miss").sees("scene.test /a");
    let port = [("Host", "scene.test:81")];
    scene.ask("POST", "/b", &port, b"x").is(200).not_stored();
    scene.get("/b").by("uri-miss").sees("scene.test /b");
    scene.ask("POST", "/c?b=1", &[], b"x").stored();
    scene.get("/c?ref=1&b=1").by("hit");
}

#[test]
fn cache_status_names_what_is_left_of_a_target() {
    let setup = Scene::new().server("cache_status_key", "true");
    let scene = echoing(setup.site("key_query_drop", "[\"ref\"]"));
    let key = scene.get("/a?ref=1&b").stored().cache_status("key");
    assert_eq!(key.as_deref(), Some("http://scene.test/a?b"));
}

#[test]
fn a_purge_and_an_invalidation_drop_the_same_parameters() {
    let scene = echoing(Scene::new().site("key_query_drop", "[\"ref\"]"));
    scene.get("/a?b&ref=1").stored();
    assert_eq!(scene.purge(&["/a?ref=9&b"])["entries"], 1);
    scene.get("/a?b").by("uri-miss").stored();
    scene.ask("POST", "/a?b&ref=3", &[], b"x").is(200);
    // What is not cached goes on as it was sent.
    scene.origin.saw("/a?b&ref=3", 1);
    scene.get("/a?b").by("uri-miss");
}

#[test]
fn tracking_parameters_count_unless_the_site_drops_them() {
    let plain = echoing(Scene::new());
    plain.get("/a?gclid=1").sees("/a?gclid=1").stored();
    plain.get("/a").sees("/a").by("uri-miss");
    let dropping = echoing(Scene::new().site("key_query_drop_tracking", "true"));
    dropping.get("/a?gclid=1&utm_id=2").sees("/a").stored();
    dropping.get("/a?fbclid=3").sees("/a").by("hit");
    dropping.get("/a?id=3").sees("/a?id=3").by("uri-miss");
}

#[test]
fn a_sorted_query_is_one_whatever_its_order() {
    let scene = echoing(Scene::new().site("key_query", "\"sort\""));
    scene.get("/a?b=2&a=1&b=1").sees("/a?a=1&b=2&b=1").stored();
    scene.get("/a?b=2&b=1&a=1").by("hit");
    scene.get("/a?b=1&b=2&a=1").by("uri-miss");
    scene.purge(&["/a?b=2&b=1&a=1"]);
    scene.get("/a?a=1&b=2&b=1").by("uri-miss");
}

#[test]
fn a_dropped_query_counts_nowhere() {
    let scene = echoing(Scene::new().site("key_query", "\"drop\""));
    scene.get("/a?b").sees("/a").stored();
    scene.get("/a").by("hit");
    scene.get("/a?c").sees("/a").by("hit");
}

#[test]
fn ports_that_do_not_count_are_kept_from_the_origin() {
    for (counts, how) in [("true", "uri-miss"), ("false", "hit")] {
        let scene = Scene::new().site("key_port", counts).start();
        scene.origin.does("/a", |request| {
            Reply::ok(request.header("Host").unwrap_or_default().to_owned()).fresh()
        });
        let ask = |host| scene.get_with("/a", &[("Host", host)]);
        let seen = if counts == "true" {
            "scene.test:81"
        } else {
            "scene.test"
        };
        ask("scene.test:81").sees(seen).stored();
        ask("scene.test:82").by(how);
        let url = "{\"urls\":[\"http://scene.test:81/a\"]}";
        scene.operate("POST", "/purge", url).is(200);
        ask("scene.test:81").by("uri-miss");
    }
}

/// An origin that greets by the cookie `plan` and the field `X-Tier`.
fn greeting(setup: Setup) -> Scene {
    let scene = setup.start();
    scene.origin.does("/a", |request| {
        let cookies = request.header("Cookie").unwrap_or_default().to_owned();
        let tier = request.header("X-Tier").unwrap_or("-");
        Reply::ok(format!("{cookies} {tier}")).fresh()
    });
    scene
}

fn with_cookie(scene: &Scene, cookies: &str) -> Answer {
    scene.get_with("/a", &[("Cookie", cookies)])
}

#[test]
fn a_cookie_of_the_sites_choice_selects_a_variant() {
    let mut scene = greeting(Scene::new().site("key_cookies", "[\"Plan\"]"));
    with_cookie(&scene, "x=1; Plan=a")
        .sees("x=1; Plan=a -")
        .stored();
    with_cookie(&scene, "Plan=b")
        .sees("Plan=b -")
        .by("vary-miss");
    with_cookie(&scene, "plan=b")
        .sees("plan=b -")
        .by("vary-miss");
    with_cookie(&scene, "Plan=").sees("Plan= -").by("vary-miss");
    // Some origins read the first and some the last: who sends two is nobody's like.
    with_cookie(&scene, "Plan=a;Plan=b; y=2")
        .sees("Plan=a;Plan=b; y=2 -")
        .by("vary-miss");
    with_cookie(&scene, "Plan=a; y=2")
        .sees("x=1; Plan=a -")
        .by("hit");
    scene.get("/a").sees("plan=b -").by("hit");
    scene.await_durable(4);
    scene.restart();
    with_cookie(&scene, "Plan=b; z=1")
        .sees("Plan=b -")
        .by("hit");
    assert_eq!(scene.purge(&["/a"])["entries"], 4);
    with_cookie(&scene, "Plan=a").by("uri-miss");
    with_cookie(&scene, "Plan=b").by("vary-miss");
}

#[test]
fn a_field_of_the_sites_choice_selects_beside_those_of_vary() {
    let scene = Scene::new().site("key_headers", "[\"X-Tier\"]").start();
    scene.origin.does("/a", |request| {
        let word = |name| request.header(name).unwrap_or("-").to_owned();
        Reply::ok(format!("{} {}", word("X-Tier"), word("Accept")))
            .fresh()
            .header("Vary", "Accept")
    });
    let ask = |tier, accept| scene.get_with("/a", &[("X-Tier", tier), ("Accept", accept)]);
    ask("gold", "a/b").sees("gold a/b").stored();
    ask("lead", "a/b").sees("lead a/b").by("vary-miss");
    ask("gold", "c/d").sees("gold c/d").by("vary-miss");
    ask("gold", "A/B").sees("gold a/b").by("hit");
    ask("lead", "a/b").sees("lead a/b").by("hit");
}

#[test]
fn a_redirect_to_what_has_its_own_key_is_for_who_asked() {
    let setup = Scene::new().server("trusted_proxies", "[\"127.0.0.0/8\"]");
    let scene = setup.site("key_query_drop", "[\"ref\"]").start();
    let moved = |to: &str| Reply::status(301).fresh().header("Location", to);
    scene.origin.does("*", move |request| {
        let secure = request.header("X-Forwarded-Proto") == Some("https");
        match request.target.as_str() {
            "/a" if !secure => moved("https://scene.test/a"),
            "/varies" if !secure => {
                moved("https://scene.test/varies").header("Vary", "X-Forwarded-Proto")
            }
            "/marked" => moved("/marked?ref=x"),
            "/elsewhere" => moved("/marked"),
            _ => Reply::ok("v1").fresh(),
        }
    });
    let https = [("X-Forwarded-Proto", "https")];
    scene.get("/a").is(301).detail("redirect-to-itself");
    scene.get_with("/a", &https).is(200).by("uri-miss").stored();
    scene.get("/marked").is(301).not_stored();
    scene.get("/varies").is(301).stored();
    scene.get_with("/varies", &https).is(200).by("vary-miss");
    scene.get("/varies").is(301).by("hit");
    scene.get("/elsewhere").is(301).stored();
}

#[test]
fn what_looks_like_a_field_of_the_sites_choice_reaches_no_origin() {
    let scene = Scene::new().site("key_headers", "[\"X-Tier\"]").start();
    scene.origin.does("/a", |request| {
        let spellings = ["X-Tier", "X_Tier", "X-Other_Tier"];
        let found = spellings.map(|name| request.header(name).unwrap_or("-").to_owned());
        Reply::ok(found.join(" ")).fresh()
    });
    let ask = |fields: &[(&str, &str)]| scene.ask("GET", "/a", fields, b"");
    ask(&[("X_Tier", "lead"), ("X-Other_Tier", "o")]).sees("- - o");
    ask(&[("X-Tier", "gold"), ("X_Tier", "lead")]).sees("gold - -");
    scene.get("/a").sees("- - o").by("hit");
}

#[test]
fn a_cookie_that_is_given_twice_is_another_cookie() {
    let scene = Scene::new().site("key_cookies", "[\"plan\"]").start();
    // As origins do who keep the last of a name.
    scene.origin.does("*", |request| {
        let cookies = request.header("Cookie").unwrap_or("");
        let last = cookies.rsplit("plan=").next().unwrap_or("");
        Reply::ok(last.to_owned()).fresh()
    });
    let ask = |cookies: &str| scene.ask("GET", "/a", &[("Cookie", cookies)], b"");
    ask("plan=a; plan=b").sees("b").stored();
    ask("plan=a").sees("a").by("vary-miss");
    ask("plan=a; plan=b").sees("b").by("hit");
}

#[test]
fn those_who_wait_get_only_the_variant_of_their_own_cookie() {
    let scene = Scene::new().site("key_cookies", "[\"plan\"]").start();
    let gate = Gate::new();
    let held = gate.clone();
    scene.origin.does("/a", move |request| {
        let cookies = request.header("Cookie").unwrap_or_default().to_owned();
        Reply::ok(cookies).fresh().held(&held)
    });
    let plans = ["plan=a", "plan=b", "plan=a", "plan=b"];
    let mut clients: Vec<_> = plans.iter().map(|_| scene.connect()).collect();
    for (client, plan) in clients.iter_mut().zip(plans) {
        client.ask("GET", "/a", &[("Cookie", plan)], b"");
    }
    scene.origin.await_requests("/a", 2);
    gate.open();
    for (client, plan) in clients.iter_mut().zip(plans) {
        client.answer("GET").sees(plan);
    }
    scene.origin.saw("/a", 2);
}

#[test]
fn a_changed_choice_finds_nothing_that_was_stored_without_it() {
    let mut scene = greeting(Scene::new());
    with_cookie(&scene, "plan=a").stored();
    scene.await_durable(1);
    scene.terminate();
    assert!(scene.wait().success());
    let config = std::fs::read_to_string(scene.config()).unwrap();
    let config = config.replace("[[site]]\n", "[[site]]\nkey_cookies = [\"plan\"]\n");
    std::fs::write(scene.config(), config).unwrap();
    scene.start();
    with_cookie(&scene, "plan=b")
        .sees("plan=b -")
        .by("uri-miss");
}

#[test]
fn names_that_cannot_be_in_a_key_are_refused() {
    let scene = Scene::new()
        .site("key_cookies", "[\"a b\"]")
        .site("key_headers", "[\"Via\", \"cookie#a\"]")
        .site("key_query_drop", "[\"a=b\"]")
        .site("key_query", "\"sorted\"")
        .stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked.exits(2);
    for word in ["key_cookies", "key_headers", "key_query_drop", "\"sort\""] {
        checked.complains(word);
    }
}

#[test]
fn targets_that_the_origin_calls_equivalent_share_a_response() {
    let scene = saying("params=(\"u\" \"v\"), key-order");
    scene
        .get("/p?id=1&u=2")
        .sees("/p?id=1&u=2")
        .by("uri-miss")
        .stored();
    for target in ["/p?id=1&u=2", "/p?id=1", "/p?v&id=%31&u=7", "/p?&id=1&"] {
        scene.get(target).sees("/p?id=1&u=2").by("hit");
    }
    scene.get("/p?b&a").sees("/p?b&a").by("uri-miss");
    scene.get("/p?a=&b").sees("/p?b&a").by("hit");
    for target in ["/p?id=2", "/p?id=1&w", "/p", "/q?id=1"] {
        scene.get(target).sees(target).by("uri-miss").stored();
    }
    assert_eq!(scene.origin.requests(), 6);
}

#[test]
fn only_excepted_parameters_count_when_the_origin_says_so() {
    let scene = saying("params, except=(\"id\")");
    scene.get("/p?id=1&x=1").stored();
    scene.get("/p?y&id=1").sees("/p?id=1&x=1").by("hit");
    scene.get("/p?id=2").sees("/p?id=2").by("uri-miss");
    scene.get("/p").sees("/p").by("uri-miss");
    scene.get("/p?x=3").sees("/p").by("hit");
}

#[test]
fn what_cannot_be_read_makes_nothing_equivalent() {
    for field in [
        "params=(u)",
        "params, except=?1",
        "params=(\"u\"",
        "key-order=?0",
    ] {
        let scene = saying(field);
        scene.get("/p?a&u").stored();
        scene.get("/p?a").sees("/p?a").by("uri-miss");
        scene.get("/p?u&a").sees("/p?u&a").by("uri-miss");
    }
}

#[test]
fn a_site_can_do_without_no_vary_search() {
    let scene = Scene::new().site("no_vary_search", "false").start();
    let reply = Reply::ok("x").fresh().header("No-Vary-Search", "params");
    scene.origin.says("*", reply);
    scene.get("/p?a").stored();
    scene.get("/p?b").by("uri-miss");
    scene.get("/p?a").by("hit");
}

#[test]
fn a_purge_of_any_equivalent_target_takes_the_response() {
    let scene = saying("params=(\"u\")");
    for purged in ["/p?id=1", "/p?u=5&id=1", "/p?id=1&u=1"] {
        scene.get("/p?id=1&u=1").by("uri-miss").stored();
        scene.get("/p?id=1&u=2").by("hit");
        scene.purge(&[purged]);
    }
    scene.get("/p?id=1&u=1").by("uri-miss").stored();
    scene.ask("POST", "/p?id=1&u=3", &[], b"x").is(200);
    scene.get("/p?id=1&u=1").by("uri-miss").stored();
    scene.purge_all();
    scene.get("/p?id=1&u=1").by("uri-miss");
}

#[test]
fn equivalent_targets_are_found_again_after_a_restart_once_the_path_has_spoken() {
    let mut scene = saying("params=(\"u\")");
    scene.get("/p?id=1&u=1").stored();
    scene.get("/p?id=2&u=1").stored();
    scene.await_durable(2);
    scene.kill9_and_start();
    scene.get("/p?id=3").sees("/p?id=3").by("uri-miss").stored();
    scene.get("/p?id=1&u=2").sees("/p?id=1&u=1").by("hit");
    scene.get("/p?id=2").sees("/p?id=2&u=1").by("hit");
}

#[test]
fn a_purge_after_a_restart_covers_what_the_path_said_before() {
    let mut scene = saying("params=(\"u\")");
    scene.get("/p?id=1&u=1").stored();
    scene.await_durable(1);
    scene.kill9_and_start();
    scene.purge(&["/p?id=1"]);
    scene.get("/p?id=3").stored();
    scene.get("/p?id=1&u=1").by("uri-miss").stored();
    scene.purge(&["/p?id=1"]);
    scene.kill9_and_start();
    scene.get("/p?id=4").stored();
    scene.get("/p?id=1&u=1").by("uri-miss");
}

#[test]
fn a_response_under_way_when_an_equivalent_target_is_purged_is_not_stored() {
    let scene = saying("params=(\"u\")");
    scene.get("/p?id=9").stored();
    let gate = Gate::new();
    let reply = Reply::ok("old")
        .fresh()
        .header("No-Vary-Search", "params=(\"u\")");
    scene.origin.says_once("/p?id=1&u=1", reply.held(&gate));
    let crowd = scene.crowd(1, "/p?id=1&u=1");
    scene.origin.await_requests("/p?id=1&u=1", 1);
    scene.purge(&["/p?id=1&u=2"]);
    scene.get("/p?id=1&u=3").sees("/p?id=1&u=3").by("uri-miss");
    gate.open();
    for answer in crowd.answers() {
        answer.sees("old");
    }
    scene.get("/p?id=1").sees("/p?id=1&u=3").by("hit");
}

#[test]
fn those_who_wait_for_an_equivalent_target_get_it_only_if_it_still_is_one() {
    let scene = saying("params=(\"u\")");
    scene.get("/p?id=9").stored();
    for (id, field) in [(1, "params=(\"u\")"), (2, "key-order")] {
        let gate = Gate::new();
        let target = |u: u32| format!("/p?id={id}&u={u}");
        let reply = Reply::ok("first").fresh().header("No-Vary-Search", field);
        scene.origin.says_once(&target(1), reply.held(&gate));
        let mut clients = [scene.connect(), scene.connect()];
        clients[0].get(&target(1));
        scene.origin.await_requests(&target(1), 1);
        clients[1].get(&target(2));
        scene.fence();
        gate.open();
        clients[0].answer("GET").sees("first");
        let other = if id == 1 {
            "first".to_owned()
        } else {
            target(2)
        };
        clients[1].answer("GET").sees(other);
    }
}

#[test]
fn a_stale_response_is_validated_for_an_equivalent_target() {
    let scene = Scene::usual();
    scene.origin.does("*", |request| {
        let reply = Reply::ok(request.target.clone())
            .tagged("\"1\"")
            .header("No-Vary-Search", "params=(\"u\")");
        match request.header("If-None-Match") {
            Some(_) => reply.fresh(),
            None => reply.cache("max-age=60").aged(100),
        }
    });
    scene.get("/p?id=1&u=1").stored();
    scene.get("/p?id=1&u=2").sees("/p?id=1&u=1").by("stale");
    scene.get("/p?id=1").sees("/p?id=1&u=1").by("hit");
}

#[test]
fn the_newest_word_of_a_path_counts_and_older_responses_keep_to_theirs() {
    let scene = Scene::usual();
    let says = |target, field| {
        let reply = Reply::ok(target).fresh();
        scene
            .origin
            .says(target, reply.header("No-Vary-Search", field));
    };
    says("/p?a=1&u=1", "params=(\"u\")");
    says("/p?b&a", "key-order");
    says("/p?a=1&u=2", "params");
    scene.get("/p?a=1&u=1").stored();
    scene.get("/p?b&a").stored();
    // Under the newest word nothing is stored for this one.
    scene.get("/p?a=1&u=2").sees("/p?a=1&u=2").by("uri-miss");
    scene.get("/p?whatever").sees("/p?a=1&u=2").by("hit");
}

#[test]
fn a_no_vary_search_that_is_not_kept_counts_for_nothing() {
    let scene = Scene::usual();
    scene.origin.does("*", |request| {
        Reply::ok(request.target.clone())
            .fresh()
            .header("No-Vary-Search", "params")
            .header("Connection", "No-Vary-Search")
    });
    scene.get("/p?a").sees("/p?a").by("uri-miss").stored();
    scene.get("/p?b").sees("/p?b").by("uri-miss").stored();
    scene.get("/p?a").sees("/p?a").by("hit");
    assert_eq!(scene.origin.requests(), 2);
}
