//! Origins behind TLS: who is believed, what is shown to them, what is told when it fails, and that
//! their connections and sessions are used again.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::NamedGroup;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::dial::Authority;
use crate::dial::Issued;
use crate::origin::Origin;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

/// The name of the origin in its certificate.
const NAME: &str = "origin.test";

/// A server of the protocols, with a certificate, that asks for those of `clients` if it does.
fn server(
    issued: &Issued,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Authority>,
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = vec![issued.der.clone()];
    builder.with_single_cert(chain, issued.key()).unwrap()
}

/// A scene whose origin has a certificate for `names`, and its authority in `ca.pem`.
fn scene_with(names: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Setup {
    let authority = Authority::new("Origins");
    let config = server(&authority.server(names), versions, None);
    let setup = Scene::new().with_origin(Origin::secured(config));
    fs::write(setup.dir().join("ca.pem"), &authority.pem).unwrap();
    let setup = setup.upstream("ca", "\"ca.pem\"");
    setup.origin().says("/a", Reply::ok("v1").fresh());
    setup
}

/// The usual one: it is asked for by name.
fn usual() -> Setup {
    scene_with(&[NAME], rustls::ALL_VERSIONS).upstream("server_name", &format!("{NAME:?}"))
}

#[test]
fn a_response_by_tls_is_stored_like_any_other() {
    let scene = usual().start();
    scene.get("/a").is(200).sees("v1").by("uri-miss").stored();
    scene.get("/a").sees("v1").by("hit");
    scene.origin.saw("/a", 1);
    let handshake = scene.origin.handshakes().remove(0);
    assert_eq!(handshake.name.as_deref(), Some(NAME));
    assert_eq!(handshake.group, Some(NamedGroup::X25519MLKEM768));
    assert!(!handshake.certified);
}

#[test]
fn tls_1_2_is_spoken_with_whom_has_nothing_newer() {
    let setup = scene_with(&[NAME], &[&TLS12]);
    let scene = setup.upstream("server_name", &format!("{NAME:?}")).start();
    scene.get("/a").is(200).sees("v1").stored();
}

#[test]
fn a_backend_by_address_is_verified_by_its_address() {
    let scene = scene_with(&["127.0.0.1"], rustls::ALL_VERSIONS).start();
    scene.get("/a").is(200).sees("v1").stored();
    // An address is no name that could be asked for (RFC 6066 §3).
    assert_eq!(scene.origin.handshakes().remove(0).name, None);
}

#[test]
fn a_certificate_for_another_name_is_refused_and_told() {
    let scene = scene_with(&[NAME], rustls::ALL_VERSIONS).start();
    scene
        .get("/a")
        .is(502)
        .proxy_error("tls_certificate_error")
        .not_stored();
    assert_eq!(scene.origin.requests(), 0);
    let said = scene.stderr();
    assert!(said.contains("the certificate does not hold"), "{said}");
    assert!(said.contains(&scene.origin.url()), "{said}");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let setup = usual();
    fs::write(setup.dir().join("ca.pem"), Authority::new("Other").pem).unwrap();
    let scene = setup.start();
    scene
        .get("/a")
        .is(502)
        .proxy_error("tls_certificate_error")
        .not_stored();
    // Nor is it of any that the system trusts, where it has some.
    assert_eq!(scene.origin.requests(), 0);
}

#[test]
fn who_wants_no_verification_gets_it_and_a_warning() {
    let setup =
        scene_with(&["elsewhere.test"], rustls::ALL_VERSIONS).without("upstream.main", "ca");
    let scene = setup.upstream("verify", "false").start();
    scene.get("/a").is(200).sees("v1").stored();
    let said = scene.stderr();
    assert!(said.contains("verify = false"), "{said}");
}

#[test]
fn an_origin_without_tls_is_told_apart() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let backends = format!("[\"https://{}\"]", plain.local_addr().unwrap());
    let scene = usual().upstream("backends", &backends).start();
    let answering = thread::spawn(move || {
        let (mut wire, _) = plain.accept().unwrap();
        wire.read_exact(&mut [0; 16]).unwrap();
        wire.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        wire
    });
    scene
        .get("/a")
        .is(502)
        .proxy_error("tls_protocol_error")
        .not_stored();
    drop(answering.join());
}

#[test]
fn a_handshake_is_within_the_time_to_connect() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let backends = format!("[\"https://{}\"]", silent.local_addr().unwrap());
    let scene = usual()
        .upstream("backends", &backends)
        .upstream("connect_timeout", "\"300ms\"")
        .start();
    let begun = Instant::now();
    scene.get("/a").is(504).proxy_error("connection_timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_origin_that_asks_for_our_certificate_gets_it() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Both");
        let config = server(&authority.server(&[NAME]), &[version], Some(&authority));
        let setup = usual().with_origin(Origin::secured(config));
        fs::write(setup.dir().join("ca.pem"), &authority.pem).unwrap();
        authority.client("larder").write(setup.dir(), "us");
        let setup = setup
            .upstream("client_certificate", "\"us.pem\"")
            .upstream("client_key", "\"us.key\"");
        let scene = setup.start();
        scene.origin.says("/a", Reply::ok("v1").fresh());
        scene.get("/a").is(200).sees("v1").stored();
        assert!(scene.origin.handshakes().remove(0).certified);
    }
}

#[test]
fn an_origin_that_refuses_us_without_a_certificate_is_quoted() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new("Both");
        let config = server(&authority.server(&[NAME]), &[version], Some(&authority));
        let setup = usual().with_origin(Origin::secured(config));
        fs::write(setup.dir().join("ca.pem"), &authority.pem).unwrap();
        let scene = setup.start();
        scene
            .get("/a")
            .is(502)
            .proxy_error("tls_alert_received")
            .not_stored();
        let said = scene.stderr();
        assert!(
            said.contains("CertificateRequired")
                || said.contains("HandshakeFailure")
                || said.contains("alert"),
            "{said}"
        );
    }
}

#[test]
fn a_connection_carries_one_request_after_the_other() {
    for versions in [&[&TLS12], &[&TLS13]] {
        let setup = scene_with(&[NAME], versions);
        let setup = setup.upstream("server_name", &format!("{NAME:?}"));
        let scene = setup.start();
        for n in 0..20 {
            let target = format!("/{n}");
            scene
                .origin
                .says(&target, Reply::ok(target.clone()).fresh());
            scene.get(&target).is(200).sees(&target).stored();
        }
        assert_eq!(scene.origin.connections(), 1);
    }
}

#[test]
fn a_connection_that_said_goodbye_is_not_used_and_its_session_is_resumed() {
    for versions in [&[&TLS12], &[&TLS13]] {
        let setup = scene_with(&[NAME], versions);
        let setup = setup.upstream("server_name", &format!("{NAME:?}"));
        let scene = setup.start();
        scene
            .origin
            .says("/last", Reply::ok("v1").fresh().then_closes());
        scene.get("/last").is(200).sees("v1").stored();
        // Once only, since a POST is not sent twice.
        scene.origin.says("/post", Reply::ok("done"));
        scene.ask("POST", "/post", &[], b"").is(200).sees("done");
        scene.origin.saw("/post", 1);
        let resumed: Vec<_> = scene
            .origin
            .handshakes()
            .iter()
            .map(|made| made.resumed)
            .collect();
        assert_eq!(resumed, [false, true]);
    }
}

#[test]
fn a_body_that_ends_with_tls_is_whole_only_after_a_goodbye() {
    let setup = usual().site("store_close_delimited", "true");
    let scene = setup.start();
    scene
        .origin
        .says("/whole", Reply::ok("0123456789").fresh().until_close());
    scene.get("/whole").is(200).whole().sees("0123456789");
    scene.get("/whole").by("hit").sees("0123456789");
    scene.origin.says_once(
        "/cut",
        Reply::ok("0123456789").fresh().until_close().cut_after(4),
    );
    scene.get("/cut").is_cut();
    scene.origin.says("/cut", Reply::ok("0123456789").fresh());
    scene.get("/cut").is(200).sees("0123456789").by("uri-miss");
    scene.origin.saw("/cut", 2);
}

#[test]
fn a_connection_by_tls_can_be_upgraded() {
    let scene = usual().site("upgrades", "[\"websocket\"]").start();
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\r\nfrom the origin";
    scene.origin.says("/live", Reply::raw(switching));
    let mut wire = crate::client::tcp(scene.front());
    let asking = "GET /live HTTP/1.1\r\nHost: scene.test\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\n\r\n";
    wire.write_all(asking.as_bytes()).unwrap();
    let mut got = Vec::new();
    wire.read_to_end(&mut got).unwrap_or_default();
    let got = String::from_utf8(got).unwrap();
    assert!(got.starts_with("HTTP/1.1 101 "), "{got}");
    assert!(got.ends_with("\r\n\r\nfrom the origin"), "{got}");
}
