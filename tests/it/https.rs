//! What a site says about https: Strict-Transport-Security, and redirects to it.

use crate::client::Client;
use crate::client::HOST;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

const HSTS: &str = "Strict-Transport-Security";

fn encrypted() -> Setup {
    let setup = Scene::new()
        .server("https", "[\"127.0.0.1:0\"]")
        .more("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"c.key\"\n");
    Authority::new("Scene")
        .server(&[HOST])
        .write(setup.dir(), "c");
    setup
}

fn connect(scene: &Scene) -> Client {
    let line = Dial::new().connect(scene.tls_front(), HOST);
    line.expect("a connection").client()
}

#[test]
fn every_response_by_https_tells_clients_to_stay_there() {
    let setup = encrypted()
        .site("hsts", "\"365d\"")
        .site("hsts_subdomains", "true")
        .site("hsts_preload", "true");
    let scene = setup.start();
    scene
        .origin
        .says("/", Reply::ok("v1").fresh().header(HSTS, "max-age=1"));
    let value = "max-age=31536000; includeSubDomains; preload";
    let mut client = connect(&scene);
    for by in ["uri-miss", "hit"] {
        let answer = client.get("/").answer("GET");
        answer.by(by);
        assert_eq!(answer.all(HSTS), [value]);
    }
    let answer = client.get("/missing").answer("GET");
    assert_eq!((answer.status, answer.all(HSTS)), (404, vec![value]));
    let answer = client.ask("TRACE", "/", &[], b"").answer("TRACE");
    assert_eq!((answer.status, answer.all(HSTS)), (405, vec![value]));
    // RFC 6797 §7.2: not in clear text.
    assert_eq!(scene.get("/").by("hit").all(HSTS), Vec::<&str>::new());
}

#[test]
fn a_site_that_says_nothing_leaves_it_to_the_origin() {
    let scene = encrypted().start();
    scene
        .origin
        .says("/", Reply::ok("v1").fresh().header(HSTS, "max-age=1"));
    let answer = connect(&scene).get("/").answer("GET");
    assert_eq!(answer.all(HSTS), ["max-age=1"]);
}

#[test]
fn clear_text_is_sent_to_https_with_all_of_its_target() {
    let setup = encrypted()
        .site("redirect_https", "true")
        .site("key_query", "\"drop\"")
        .site("purge_from", "[\"127.0.0.0/8\"]");
    let scene = setup.start();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let answer = scene.ask(method, "/a?q=1", &[("Host", "Scene.Test:8080")], b"");
        answer
            .is(308)
            .has("Location", "https://scene.test/a?q=1")
            .has("Cache-Control", "no-store");
    }
    let mut client = connect(&scene);
    client.get("/a").answer("GET").is(200).sees("v1");
    scene.origin.saw("/a", 1);
    scene.ask("PURGE", "/a", &[], b"").is(200);
    client.get("/a").answer("GET").by("uri-miss");
    let mut star = scene.connect();
    star.ask("OPTIONS", "*", &[], b"").answer("OPTIONS");
    scene.origin.saw("*", 1);
}

#[test]
fn redirects_name_the_port_that_clients_reach_https_at() {
    let setup = encrypted()
        .server("https_port", "8443")
        .site("redirect_https", "true");
    let scene = setup.start();
    let answer = scene.get("/a");
    answer
        .is(308)
        .has("Location", &format!("https://{HOST}:8443/a"));
}

#[test]
fn what_came_by_https_to_a_trusted_proxy_is_not_redirected() {
    let setup = encrypted()
        .server("trusted_proxies", "[\"127.0.0.0/8\"]")
        .site("redirect_https", "true")
        .site("hsts", "\"1d\"");
    let scene = setup.start();
    scene.origin.says("/", Reply::ok("v1").fresh());
    let by = |scheme| {
        let told = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", scheme),
        ];
        scene.get_with("/", &told)
    };
    by("http").is(308);
    by("https").is(200).has(HSTS, "max-age=86400");
}
