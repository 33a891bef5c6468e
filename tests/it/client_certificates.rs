//! Client certificates: who comes in where, and what origins are told of it.

use std::fs;
use std::io;
use std::sync::Arc;

use http::Request;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Client;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::dial::Issued;
use crate::origin::DEADLINE;
use crate::origin::Reply;
use crate::scene::Scene;

const SUBJECT: &str = "X-Client-Cert-Subject";
const NAMES: &str = "X-Client-Cert-San";

/// Four sites on one TLS listener: `open.test`, `closed.test` for clients of the first authority,
/// `other.test` for those of the second, and `optional.test` for those of the first or nobody.
struct House {
    scene: Scene,
    first: Authority,
    second: Authority,
}

impl House {
    fn new() -> Self {
        Self::with("")
    }

    /// With more keys for `closed.test`.
    fn with(more: &str) -> Self {
        let (first, second) = (Authority::new("First"), Authority::new("Second"));
        let setup = Scene::new()
            .server("https", "[\"127.0.0.1:0\"]")
            .site("hosts", "[\"open.test\"]");
        let names = ["open.test", "closed.test", "other.test", "optional.test"];
        Authority::new("Servers")
            .server(&names)
            .write(setup.dir(), "server");
        fs::write(setup.dir().join("first.pem"), &first.pem).unwrap();
        fs::write(setup.dir().join("second.pem"), &second.pem).unwrap();
        let mut toml =
            "[[tls.certificate]]\ncert = \"server.pem\"\nkey = \"server.key\"\n".to_owned();
        for (host, wanted, authority, more) in [
            ("closed", "required", "first", more),
            ("other", "required", "second", ""),
            ("optional", "optional", "first", ""),
        ] {
            toml.push_str(&format!(
                "[[site]]\nhosts = [\"{host}.test\"]\nclient_certificate = \"{wanted}\"\n\
                 client_authorities = \"{authority}.pem\"\n{more}"
            ));
        }
        let scene = setup.more(&toml).start();
        scene.origin.does("/", |request| {
            let told = |name| request.header(name).unwrap_or("nobody").to_owned();
            Reply::ok(format!("{} / {}", told(SUBJECT), told(NAMES))).fresh()
        });
        Self {
            scene,
            first,
            second,
        }
    }

    /// A connection for `host`.
    fn connect(&self, dial: &Dial, host: &str) -> Client {
        let line = dial.connect(self.scene.tls_front(), host);
        line.expect("a handshake").client()
    }

    /// The error when a connection for `host` is not let in.
    fn refusal(&self, dial: &Dial, host: &str) -> io::Error {
        match dial.connect(self.scene.tls_front(), host) {
            Ok(line) => line.fails(),
            Err(error) => error,
        }
    }
}

fn alice(authority: &Authority) -> Dial {
    Dial::showing(&authority.client("alice"))
}

#[track_caller]
fn ask<'c>(client: &'c mut Client, host: &str) -> &'c mut Client {
    client.ask("GET", "/", &[("Host", host)], b"")
}

const NOBODY: &str = "nobody / nobody";

#[test]
fn the_origin_is_told_the_verified_name() {
    let house = House::new();
    let mut client = house.connect(&alice(&house.first), "closed.test");
    let answer = ask(&mut client, "closed.test").answer("GET");
    answer.is(200);
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("CN=alice"), "{body}");
    assert!(body.ends_with("/ DNS:alice.clients.test"), "{body}");
}

#[test]
fn who_has_no_certificate_does_not_come_in() {
    let house = House::new();
    let error = house.refusal(&Dial::new(), "closed.test");
    assert!(error.to_string().contains("ertificate"), "{error}");
    let failures = "handshakes.failures.client-certificate";
    house.scene.await_stat(failures, |count| count == 1);
    house.scene.origin.saw("/", 0);
}

#[test]
fn nor_does_who_has_one_of_another_authority() {
    let house = House::new();
    house.refusal(&alice(&house.second), "closed.test");
    // One that is not an authority's own and signed by nobody we know.
    house.refusal(&alice(&Authority::new("First")), "closed.test");
    house.refusal(&alice(&house.second), "optional.test");
    let failures = "handshakes.failures.client-certificate";
    house.scene.await_stat(failures, |count| count == 3);
}

#[test]
fn where_it_is_optional_the_origin_learns_only_what_was_shown() {
    let house = House::new();
    let mut nobody = house.connect(&Dial::new(), "optional.test");
    ask(&mut nobody, "optional.test").answer("GET").sees(NOBODY);
    let mut client = house.connect(&alice(&house.first), "optional.test");
    let answer = ask(&mut client, "optional.test").answer("GET");
    answer.by("vary-miss");
    assert_ne!(answer.body, NOBODY.as_bytes());
}

#[test]
fn nobody_can_write_the_name_but_we() {
    let house = House::new();
    let forged = [
        ("Host", "optional.test"),
        (SUBJECT, "CN=admin"),
        (NAMES, "DNS:admin"),
        ("X_Client_Cert_Subject", "CN=admin"),
        ("X-Client-Cert-Verified", "SUCCESS"),
        ("Client-Cert", ":AAAA:"),
        ("Client-Cert-Chain", ":AAAA:"),
        ("Connection", "X-Client-Cert-San, X-Client-Cert-Subject"),
    ];
    let mut nobody = house.connect(&Dial::new(), "optional.test");
    nobody
        .ask("GET", "/", &forged, b"")
        .answer("GET")
        .sees(NOBODY);
    let mut open = house.scene.connect();
    let mut plain = forged;
    plain[0].1 = "open.test";
    open.ask("GET", "/", &plain, b"").answer("GET").sees(NOBODY);
    let mut client = house.connect(&alice(&house.first), "optional.test");
    let answer = client.ask("GET", "/", &forged, b"").answer("GET");
    assert!(answer.body.starts_with(b"CN=alice"), "{answer}");
    for request in house.scene.origin.seen("/") {
        for name in [
            "X_Client_Cert_Subject",
            "X-Client-Cert-Verified",
            "Client-Cert",
            "Client-Cert-Chain",
        ] {
            assert_eq!(request.header(name), None);
        }
    }
}

#[test]
fn a_connection_made_for_another_site_is_misdirected() {
    let house = House::new();
    // It is stored, and that makes no difference.
    let mut insider = house.connect(&alice(&house.first), "closed.test");
    ask(&mut insider, "closed.test").answer("GET").is(200);
    for (dial, name) in [
        (Dial::new(), "open.test"),
        (Dial::new(), "optional.test"),
        (alice(&house.first), "optional.test"),
        (alice(&house.second), "other.test"),
        (Dial::new(), "127.0.0.1"),
    ] {
        for method in ["GET", "HEAD", "POST", "PURGE", "OPTIONS"] {
            let mut client = house.connect(&dial, name);
            let host = [("Host", "closed.test")];
            let answer = client.ask(method, "/", &host, b"").answer(method);
            answer.is(421);
            let status = answer.header("Cache-Status").unwrap();
            assert!(status.ends_with("detail=misdirected-request"), "{status}");
        }
    }
    let mut clear = house.scene.connect();
    ask(&mut clear, "closed.test").answer("GET").is(421);
    house.scene.origin.saw("/", 1);
    assert_eq!(house.scene.stat("refused.misdirected-request"), 26);
}

/// GETs `/` of each host on one HTTP/2 connection made for `name`; returns the statuses.
async fn over_http2(house: &House, name: &'static str, hosts: &[&str]) -> Vec<u16> {
    let tcp = TcpStream::connect(house.scene.tls_front()).await.unwrap();
    let dial = Dial::offering(&["h2"]);
    let tls = TlsConnector::from(Arc::clone(dial.config()));
    let tls = tls.connect(ServerName::try_from(name).unwrap(), tcp);
    let (client, connection) = h2::client::handshake(tls.await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client;
    let mut statuses = Vec::new();
    for host in hosts {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        statuses.push(answer.await.unwrap().status().as_u16());
    }
    drop(client);
    connection.abort();
    statuses
}

#[test]
fn over_http_2_a_stream_for_another_site_is_misdirected_and_the_others_go_on() {
    let house = House::new();
    let hosts = ["open.test", "closed.test", "optional.test", "open.test"];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let statuses = runtime.block_on(async {
        let asking = over_http2(&house, "open.test", &hosts);
        tokio::time::timeout(DEADLINE, asking).await.unwrap()
    });
    assert_eq!(statuses, [200, 421, 421, 200]);
}

#[test]
fn a_site_without_rules_is_open_to_connections_made_for_any() {
    let house = House::new();
    let mut client = house.connect(&alice(&house.first), "closed.test");
    ask(&mut client, "open.test").answer("GET").sees(NOBODY);
}

#[test]
fn responses_are_kept_apart_by_client_unless_the_site_says_otherwise() {
    for (more, by) in [("", "vary-miss"), ("key_client = false\n", "hit")] {
        let house = House::with(more);
        let (alice, bob) = (
            house.first.client("alice"),
            Dial::showing(&house.first.client("bob")),
        );
        for (dial, by) in [(&Dial::showing(&alice), "uri-miss"), (&bob, by)] {
            let mut client = house.connect(dial, "closed.test");
            ask(&mut client, "closed.test").answer("GET").by(by);
        }
        // Another connection, the same certificate.
        let mut again = house.connect(&Dial::showing(&alice), "closed.test");
        let answer = ask(&mut again, "closed.test").answer("GET");
        answer.by("hit");
        assert!(answer.body.starts_with(b"CN=alice"), "{answer}");
    }
}

#[test]
fn connections_with_certificates_are_never_resumed() {
    let house = House::new();
    let alice = alice(&house.first);
    for _ in 0..2 {
        let kind = alice.visits(house.scene.tls_front(), "closed.test");
        assert_eq!(kind, HandshakeKind::Full);
    }
}

#[test]
fn new_authorities_are_taken_up_and_connections_stay() {
    let house = House::new();
    let old: Issued = house.first.client("alice");
    let mut before = house.connect(&Dial::showing(&old), "closed.test");
    ask(&mut before, "closed.test").answer("GET").is(200);

    let third = Authority::new("Third");
    let file = house.scene.dir().join("first.pem");
    fs::write(&file, "nothing").unwrap();
    house.scene.signal("HUP");
    house
        .scene
        .await_stat("tls.files_refused", |refused| refused > 0);
    assert!(
        house
            .scene
            .stderr()
            .contains("the old authorities stay in use")
    );
    alice(&house.first).visits(house.scene.tls_front(), "closed.test");

    let taken = house.scene.stat("tls.files_taken");
    fs::write(&file, &third.pem).unwrap();
    house.scene.signal("HUP");
    // Both sites that name the file have it now, and the certificate was read again too.
    house
        .scene
        .await_stat("tls.files_taken", |now| now >= taken + 3);
    house.refusal(&Dial::showing(&old), "closed.test");
    alice(&third).visits(house.scene.tls_front(), "closed.test");
    ask(&mut before, "closed.test").answer("GET").is(200);
}
