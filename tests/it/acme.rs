//! Certificates from an ACME authority, which is a real one: `pebble`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use serde_json::Value;
use serde_json::json;

use crate::client::Client;
use crate::client::HOST;
use crate::client::tcp;
use crate::dial::Dial;
use crate::origin::Reply;
use crate::pebble::Pebble;
use crate::scene::Scene;
use crate::scene::Setup;
use crate::scene::eventually;
use crate::scene::json;

/// A scene with a site for the usual host.
fn usual(pebble: &Pebble) -> Setup {
    let hosts = format!("[{HOST:?}]");
    let setup = pebble.scene(Scene::new()).site("hosts", &hosts);
    setup.origin().says("/", Reply::ok("v1").fresh());
    setup
}

fn shown(scene: &Scene, name: &str) -> Option<CertificateDer<'static>> {
    let line = Dial::new().connect(scene.tls_front(), name).ok()?;
    Some(line.certificate().clone())
}

/// Connects as a browser does that trusts `roots`.
fn trusting(scene: &Scene, roots: RootCertStore, name: &'static str) -> Client {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    Client::over(StreamOwned::new(session, tcp(scene.tls_front())))
}

/// What the operator is told of a name.
fn told(scene: &Scene, name: &str) -> Value {
    let all = json(scene.operate("GET", "/certificates", "").is(200));
    let names = all["acme"]["names"].as_array().unwrap().clone();
    let found = names.into_iter().find(|told| told["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all}"))
}

/// Every file and folder below, with its mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(folder.to_owned(), mode(folder))];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(modes(&path)),
            false => found.push((path.clone(), mode(&path))),
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_site_gets_its_certificate_by_tls_and_keeps_it_over_a_restart() {
    let mut pebble = Pebble::new();
    pebble.start();
    let mut scene = usual(&pebble).start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    let roots = pebble.roots();
    let mut client = trusting(&scene, roots.clone(), HOST);
    client.get("/").answer("GET").is(200).sees("v1");
    assert!(scene.stat("handshakes.proofs") > 0);
    let first = shown(&scene, HOST).unwrap();
    // The authority is not needed, and is not asked.
    pebble.stop();
    scene.restart();
    assert_eq!(shown(&scene, HOST).unwrap(), first);
    let mut client = trusting(&scene, roots, HOST);
    client.get("/").answer("GET").is(200).sees("v1").by("hit");
    assert_eq!(pebble.issued(), 1);
    assert_eq!(scene.stat("acme.failed"), 0);
    let due = told(&scene, HOST)["next_order_in_s"].as_i64().unwrap();
    let life = scene.stats()["tls"]["expires_in_s"].as_i64().unwrap();
    assert!(due > life / 2 && due < life * 3 / 4, "{due} of {life}");
}

#[test]
fn nobody_else_can_read_what_is_kept() {
    let mut pebble = Pebble::new();
    pebble.start();
    let scene = usual(&pebble).start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    let all = modes(&scene.dir().join("acme-dir"));
    assert!(all.iter().any(|(path, _)| path.ends_with("account.json")));
    assert!(all.iter().any(|(path, _)| path.ends_with("scene.test.pem")));
    for (path, mode) in all {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[test]
fn a_site_gets_its_certificate_by_http_though_it_sends_clients_to_https() {
    let mut pebble = Pebble::new();
    pebble.start();
    let setup = usual(&pebble).set("tls.acme", "challenge", "\"http-01\"");
    let scene = setup.site("redirect_https", "true").start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    assert_eq!(scene.stat("handshakes.proofs"), 0);
    let mut client = trusting(&scene, pebble.roots(), HOST);
    client.get("/").answer("GET").is(200).sees("v1");
    // What nobody has asked us to prove is the site's again.
    scene.get("/.well-known/acme-challenge/unknown").is(308);
}

#[test]
fn a_token_that_is_not_ours_is_the_origin_s() {
    let mut pebble = Pebble::new();
    pebble.start();
    let scene = usual(&pebble).start();
    let target = "/.well-known/acme-challenge/theirs";
    scene.origin.says(target, Reply::ok("theirs.thumb"));
    scene.get(target).is(200).sees("theirs.thumb");
}

#[test]
fn a_certificate_is_renewed_in_time_and_no_connection_ends() {
    let mut pebble = Pebble::new().set("certificateValidityPeriod", json!(6));
    pebble.start();
    let scene = usual(&pebble).start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    let line = Dial::new().connect(scene.tls_front(), HOST).unwrap();
    let first = line.certificate().clone();
    let mut client = line.client();
    client.get("/").answer("GET").sees("v1");
    let began = Instant::now();
    scene.await_stat("acme.issued", |issued| issued == 2);
    // Two thirds of six seconds, less what it took to look.
    assert!(began.elapsed().as_secs() >= 2, "{:?}", began.elapsed());
    assert_ne!(shown(&scene, HOST).unwrap(), first);
    client.get("/").answer("GET").sees("v1").by("hit");
}

#[test]
fn without_its_authority_it_serves_on_and_backs_off_until_it_is_back() {
    let mut pebble = Pebble::new().set("certificateValidityPeriod", json!(4));
    pebble.start();
    let scene = usual(&pebble).start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    let first = shown(&scene, HOST).unwrap();
    pebble.stop();
    scene.await_stat("acme.outages", |outages| outages >= 4);
    // 100, 200, 400 and 800 ms, each halved at most.
    assert_eq!(shown(&scene, HOST).unwrap(), first);
    let trouble = told(&scene, HOST)["trouble"].clone();
    assert!(trouble.as_str().unwrap().contains("onnect"), "{trouble}");
    assert_eq!(scene.stat("acme.troubled"), 1);
    let said = scene.stderr();
    assert!(
        said.contains("could not obtain a certificate; next try in"),
        "{said}"
    );
    // It comes back and has forgotten the account: another is made.
    pebble.start();
    scene.await_stat("acme.issued", |issued| issued >= 2);
    assert_ne!(shown(&scene, HOST).unwrap(), first);
    assert_eq!(scene.stat("acme.outages"), 0);
    assert_eq!(scene.stat("acme.troubled"), 0);
    assert!(scene.stderr().contains("does not know the account"));
}

#[test]
fn it_starts_and_serves_in_clear_text_while_there_is_no_certificate() {
    let mut pebble = Pebble::new();
    let scene = usual(&pebble).start();
    scene.get("/").sees("v1");
    assert!(shown(&scene, HOST).is_none());
    scene.await_stat("acme.outages", |outages| outages >= 1);
    pebble.start();
    eventually("a certificate", || shown(&scene, HOST).is_some());
    let mut client = trusting(&scene, pebble.roots(), HOST);
    client.get("/").answer("GET").sees("v1").by("hit");
}

#[test]
fn a_client_gets_a_certificate_for_an_allowed_name_by_asking_for_it() {
    let mut pebble = Pebble::new();
    pebble.start();
    let setup = pebble.scene(Scene::new()).site("hosts", "[\"*\"]");
    setup.origin().says("/", Reply::ok("v1").fresh());
    let scene = setup
        .set("tls", "unknown_name", "\"refuse\"")
        .set("tls.acme", "ask", "[\"*.shops.test\"]")
        .start();
    for name in ["other.test", "shops.test", "a.b.example", "x_y.shops.test"] {
        assert!(shown(&scene, name).is_none(), "{name}");
    }
    // The very handshake that asks waits for it.
    let mut client = trusting(&scene, pebble.roots(), "one.shops.test");
    let asked = [("Host", "one.shops.test")];
    client.ask("GET", "/", &asked, b"").answer("GET").sees("v1");
    assert_eq!(scene.stat("acme.issued"), 1);
    assert_eq!(told(&scene, "one.shops.test")["asked_for"], true);
    shown(&scene, "one.shops.test").unwrap();
    assert_eq!(pebble.issued(), 1);
    for name in ["other.test", "a.b.example", "x_y"] {
        assert!(!pebble.said().contains(name), "{name}");
    }
}

#[test]
fn clients_that_ask_at_once_share_an_order_and_have_an_allowance() {
    let mut pebble = Pebble::new();
    pebble.start();
    let setup = pebble.scene(Scene::new()).site("hosts", "[\"*\"]");
    let scene = setup
        .set("tls", "unknown_name", "\"refuse\"")
        .set("tls.acme", "ask", "[\"*.shops.test\"]")
        .set("tls.acme", "ask_per_hour", "1")
        .start();
    std::thread::scope(|scope| {
        let ask = || shown(&scene, "one.shops.test");
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for asking in asking {
            assert!(asking.join().unwrap().is_some());
        }
    });
    assert_eq!(pebble.issued(), 1);
    assert!(shown(&scene, "two.shops.test").is_none());
    assert_eq!(scene.stat("acme.refused"), 1);
    // What was obtained for a client is kept as well.
    let mut scene = scene;
    scene.restart();
    assert!(shown(&scene, "one.shops.test").is_some());
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn a_name_that_the_authority_refuses_holds_no_other_up() {
    let mut pebble = Pebble::new().set("domainBlocklist", json!(["bad.test"]));
    pebble.start();
    let hosts = format!("[\"bad.test\", {HOST:?}]");
    let scene = usual(&pebble).site("hosts", &hosts);
    let scene = scene.set("tls.acme", "orders_max", "1").start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    scene.await_stat("acme.failed", |failed| failed >= 2);
    let bad = told(&scene, "bad.test");
    assert!(bad["failures"].as_u64() >= Some(2), "{bad}");
    let trouble = bad["trouble"].as_str().unwrap();
    assert!(trouble.contains("rejectedIdentifier"), "{trouble}");
    assert_eq!(scene.stat("acme.outages"), 0);
    assert_eq!(told(&scene, HOST)["trouble"], Value::Null);
}

#[test]
fn a_proof_that_cannot_be_seen_is_explained() {
    let mut pebble = Pebble::new();
    pebble.start();
    // The authority looks for https at a port where nobody listens.
    let setup = usual(&pebble).server("https", "[\"127.0.0.1:0\"]");
    let scene = setup.start();
    scene.await_stat("acme.failed", |failed| failed >= 1);
    let trouble = told(&scene, HOST)["trouble"].clone();
    let told = trouble.as_str().unwrap();
    assert!(told.contains("tls-alpn-01 challenge"), "{told}");
    assert_eq!(scene.stat("acme.outages"), 0);
}

#[test]
fn an_account_can_be_tied_to_one_outside() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let mut pebble = Pebble::new()
        .set("externalAccountBindingRequired", json!(true))
        .set("externalAccountMACKeys", json!({ "kid-1": key }));
    pebble.start();
    let setup = usual(&pebble)
        .set("tls.acme", "eab_key_id", "\"kid-1\"")
        .set("tls.acme", "eab_key_file", "\"eab\"");
    fs::write(setup.dir().join("eab"), format!("{key}\n")).unwrap();
    let scene = setup.start();
    scene.await_stat("acme.issued", |issued| issued == 1);
}

#[test]
fn a_damaged_certificate_is_ordered_again() {
    let mut pebble = Pebble::new();
    pebble.start();
    let mut scene = usual(&pebble).start();
    scene.await_stat("acme.issued", |issued| issued == 1);
    let all = modes(&scene.dir().join("acme-dir"));
    let (file, _) = all
        .iter()
        .find(|(path, _)| path.ends_with("scene.test.pem"))
        .unwrap();
    fs::write(file, "nothing").unwrap();
    scene.restart();
    scene.await_stat("acme.issued", |issued| issued == 1);
    assert_eq!(pebble.issued(), 2);
    assert!(
        scene
            .stderr()
            .contains("a kept certificate is ordered again")
    );
}

#[test]
fn a_config_that_cannot_work_is_refused_with_every_reason() {
    let scene = Scene::new()
        .set("tls.acme", "enabled", "true")
        .set("tls.acme", "directory", "\"http://acme.test/dir\"")
        .set("tls.acme", "contact", "[\"admin@a.test\"]")
        .set("tls.acme", "ask", "[\"*\", \"localhost\", \"ok.test\"]")
        .set("tls.acme", "ca_file", "\"missing.pem\"")
        .set("tls.acme", "eab_key_id", "\"kid-1\"")
        .set("tls.acme", "retry_min", "\"1h\"")
        .set("tls.acme", "retry_max", "\"1m\"")
        .stopped();
    let checked = scene.larder(&["check", "--config", &scene.config()]);
    checked
        .exits(2)
        .complains("tls.acme.enabled: needs an address in server.https")
        .complains("tls.acme.terms_agreed: must be true")
        .complains("tls.acme.directory: is not an https url")
        .complains("tls.acme.contact: \"admin@a.test\" is not like \"mailto:admin@example.com\"")
        .complains("tls.acme.ask: \"*\" is neither")
        .complains("tls.acme.ask: \"localhost\" is neither")
        .complains("missing.pem")
        .complains("tls.acme.eab_key_file: and eab_key_id belong together")
        .complains("tls.acme.retry_min: is longer than retry_max");
    assert!(!checked.stderr.contains("ok.test"));
}
