//! The operator's listener: figures that add up, and nothing for anyone else.

use crate::origin::Gate;
use crate::origin::Reply;
use crate::scene::Scene;

#[test]
fn figures_count_what_happened() {
    let scene = Scene::usual();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").is(200);
    scene.get("/a").by("hit");
    scene.get("/a").by("hit");
    scene.await_durable(1);
    scene.await_stat("requests", |requests| requests == 3);
    assert_eq!(scene.stat("hits"), 2);
    assert_eq!(scene.stat("misses"), 1);
    assert_eq!(scene.stat("store.entries"), 1);
    assert!(scene.stat("store.bytes") > 0);
    assert!(scene.stat("store.packs") > 0);
    assert!(scene.stat("memory.bytes") > 0);
}

#[test]
fn a_fill_is_counted_while_it_runs() {
    let scene = Scene::usual();
    let gate = Gate::new();
    scene
        .origin
        .says("/a", Reply::ok("firstsecond").fresh().held_after(5, &gate));
    let mut client = scene.connect();
    let mut reading = client.get("/a").begin("GET");
    reading.up_to(5);
    assert_eq!(scene.stat("fills_active"), 1);
    gate.open();
    reading.finish().sees("firstsecond");
    scene.await_stat("fills_active", |fills| fills == 0);
}

#[test]
fn what_the_listener_does_not_know_is_not_found() {
    let scene = Scene::usual();
    scene.operate("GET", "/nothing", "").is(404);
    scene.operate("POST", "/stats", "").is(405);
    scene.origin.saw("/nothing", 0);
}

#[test]
fn the_front_does_not_answer_for_the_operator() {
    let scene = Scene::usual();
    for target in ["/stats", "/healthz", "/readyz"] {
        scene.get(target).is(404);
        scene.origin.saw(target, 1);
    }
}
