//! TLS at the front: the same answers over an encrypted line.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;

use rcgen::CertifiedKey;
use rcgen::KeyPair;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;

use crate::client::Client;
use crate::client::HOST;
use crate::client::tcp;
use crate::origin::Reply;
use crate::origin::noise;
use crate::scene::Scene;

/// A running scene with a listener for TLS beside the one in clear text, and its certificate.
fn encrypted() -> (Scene, CertifiedKey<KeyPair>) {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let setup = Scene::new().server("https", "[\"127.0.0.1:0\"]");
    let (cert, key) = (setup.dir().join("cert.pem"), setup.dir().join("key.pem"));
    fs::write(&cert, made.cert.pem()).expect("a certificate file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a key file");
    let table = format!("[[tls.certificate]]\ncert = {cert:?}\nkey = {key:?}\n");
    (setup.more(&table).start(), made)
}

fn connect(scene: &Scene, made: &CertifiedKey<KeyPair>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(HOST).expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    Client::over(StreamOwned::new(session, tcp(scene.tls_front())))
}

#[test]
fn a_client_with_tls_gets_the_same_answers() {
    let (scene, made) = encrypted();
    let body = noise(81, 1_500_000);
    scene.origin.says("/a", Reply::ok(body.clone()).fresh());
    let mut client = connect(&scene, &made);
    client
        .get("/a")
        .answer("GET")
        .is(200)
        .sees(&body)
        .by("uri-miss")
        .stored();
    client.get("/a").answer("GET").is(200).sees(&body).by("hit");
    scene.get("/a").sees(&body).by("hit");
    scene.origin.saw("/a", 1);
}

#[test]
fn an_answer_that_varies_by_the_scheme_is_not_given_across_schemes() {
    let (scene, made) = encrypted();
    scene.origin.does("/a", |request| {
        let scheme = request.header("X-Forwarded-Proto").unwrap_or_default();
        let reply = Reply::ok(scheme.to_owned()).fresh();
        reply.header("Vary", "X-Forwarded-Proto")
    });
    let mut client = connect(&scene, &made);
    scene.get("/a").sees("http").stored();
    client.get("/a").answer("GET").sees("https").by("vary-miss");
    scene.get("/a").sees("http").by("hit");
    client.get("/a").answer("GET").sees("https").by("hit");
    scene.origin.saw("/a", 2);
}

#[test]
fn clear_text_on_the_tls_listener_is_turned_away() {
    let (scene, made) = encrypted();
    let mut wire = tcp(scene.tls_front());
    wire.write_all(b"GET /a HTTP/1.1\r\nHost: scene.test\r\n\r\n")
        .unwrap();
    let mut came = Vec::new();
    // A TLS alert or nothing, then the end.
    drop(wire.read_to_end(&mut came));
    assert!(!came.starts_with(b"HTTP/1.1 200"));
    assert_eq!(scene.origin.requests(), 0);
    scene.origin.says("/a", Reply::ok("v1").fresh());
    connect(&scene, &made).get("/a").answer("GET").sees("v1");
}

#[test]
fn a_site_may_keep_the_schemes_apart() {
    let (scene, made) = encrypted();
    scene.origin.says("/a", Reply::ok("v1").fresh());
    scene.get("/a").by("uri-miss");
    connect(&scene, &made).get("/a").answer("GET").by("hit");
}
