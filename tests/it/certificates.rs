//! Certificate files that change while the binary runs, and what the figures say of them.

use std::fs;

use crate::client::HOST;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::dial::Issued;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;

fn scene(interval: &str) -> (Setup, Authority, Issued) {
    let authority = Authority::new("Scene");
    let issued = authority.server(&[HOST, "*.scene.test"]);
    let setup = Scene::new()
        .server("https", "[\"127.0.0.1:0\"]")
        .set("tls", "files_interval", interval)
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    issued.write(setup.dir(), "c");
    setup.origin().says("/", Reply::ok("v1").fresh());
    (setup, authority, issued)
}

fn shown(scene: &Scene) -> Vec<u8> {
    let line = Dial::new().connect(scene.tls_front(), HOST).unwrap();
    line.certificate().to_vec()
}

#[test]
fn new_files_are_found_and_no_connection_ends() {
    let (setup, authority, before) = scene("\"100ms\"");
    let scene = setup.start();
    let line = Dial::new().connect(scene.tls_front(), HOST).unwrap();
    assert_eq!(line.certificate(), &before.der);
    let mut client = line.client();
    client.get("/").answer("GET").sees("v1");
    let after = authority.server(&[HOST]);
    after.write(scene.dir(), "c");
    eventually("the new certificate", || {
        shown(&scene) == after.der.to_vec()
    });
    client.get("/").answer("GET").sees("v1").by("hit");
}

#[test]
fn sighup_has_them_read_at_once() {
    let (setup, authority, _) = scene("\"1d\"");
    let scene = setup.start();
    let after = authority.server(&[HOST]);
    after.write(scene.dir(), "c");
    scene.signal("HUP");
    scene.await_stat("tls.files_taken", |taken| taken == 1);
    assert_eq!(shown(&scene), after.der.to_vec());
}

#[test]
fn a_bad_file_keeps_the_old_certificate_and_says_so() {
    let (setup, authority, before) = scene("\"100ms\"");
    let scene = setup.start();
    let file = scene.dir().join("c.pem");
    for bad in ["nothing", &authority.server(&[HOST]).pem] {
        let refused = scene.stat("tls.files_refused");
        fs::write(&file, bad).unwrap();
        scene.await_stat("tls.files_refused", |now| now > refused);
        assert_eq!(scene.stat("tls.troubled"), 1);
        assert_eq!(shown(&scene), before.der.to_vec());
    }
    let stats = scene.stats();
    let trouble = stats["tls"]["expire_first"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("c.key is not its key"), "{trouble}");
    let said = scene.stderr();
    assert!(said.contains("the old certificate stays in use"), "{said}");
    assert!(said.contains("no certificate in it"), "{said}");
    fs::write(&file, &before.pem).unwrap();
    scene.await_stat("tls.troubled", |troubled| troubled == 0);
}

#[test]
fn the_figures_tell_names_and_expiry() {
    let (setup, _, _) = scene("\"1d\"");
    let mut scene = setup.own_clock().start();
    let told = || scene.stats()["tls"]["expire_first"][0].clone();
    let first = told();
    assert_eq!(first["names"][0], HOST);
    assert_eq!(first["names"][1], "*.scene.test");
    assert!(first["source"].as_str().unwrap().ends_with("c.pem"));
    assert_eq!(first["not_after"], "4096-01-01T00:00:00Z");
    let left = first["expires_in_s"].as_i64().unwrap();
    assert_eq!(scene.stat("tls.certificates"), 1);
    scene.clock_moves(86_400);
    let now = scene.stats()["tls"]["expires_in_s"].as_i64().unwrap();
    assert!((left - now - 86_400).abs() < 60, "{left} then {now}");
}

#[test]
fn a_config_with_a_bad_file_is_refused() {
    let (setup, _, _) = scene("\"1d\"");
    let setup = setup.more("ocsp = \"missing.ocsp\"\n").more(
        "[[site]]\nhosts = [\"a.test\"]\nclient_certificate = \"required\"\n\
         client_authorities = \"c.key\"\n",
    );
    let scene = setup.stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked
        .exits(2)
        .complains("missing.ocsp")
        .complains("site[1].client_authorities");
}
