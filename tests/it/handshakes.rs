//! Handshakes: names, versions, protocols, tickets, OCSP responses, and their bounds.

use std::fs;
use std::io::Read;
use std::time::Duration;
use std::time::SystemTime;

use rustls::HandshakeKind;
use rustls::NamedGroup;
use rustls::ProtocolVersion;
use rustls::version::TLS12;
use rustls::version::TLS13;
use x509_cert::der::Encode;
use x509_cert::der::asn1::BitString;
use x509_cert::der::asn1::Null;
use x509_cert::der::asn1::OctetString;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::BasicOcspResponse;
use x509_ocsp::CertId;
use x509_ocsp::CertStatus;
use x509_ocsp::OcspResponse;
use x509_ocsp::ResponderId;
use x509_ocsp::ResponseData;
use x509_ocsp::SingleResponse;

use crate::client::HOST;
use crate::client::tcp;
use crate::dial::Authority;
use crate::dial::Dial;
use crate::dial::Issued;
use crate::dial::SERIAL;
use crate::origin::Reply;
use crate::scene::Scene;
use crate::scene::Setup;

/// A scene with a TLS listener, and with certificates for these lists of names in this order.
fn scene(certificates: &[&[&str]]) -> (Setup, Vec<Issued>) {
    let authority = Authority::new("Scene");
    let mut setup = Scene::new().server("https", "[\"127.0.0.1:0\"]");
    let mut all = Vec::new();
    for (number, names) in certificates.iter().enumerate() {
        let issued = authority.server(names);
        issued.write(setup.dir(), &format!("c{number}"));
        setup = setup.more(&format!(
            "[[tls.certificate]]\ncert = \"c{number}.pem\"\nkey = \"c{number}.key\"\n"
        ));
        all.push(issued);
    }
    (setup, all)
}

/// A scene with one certificate for the usual host, serving `/`.
fn usual() -> Setup {
    let (setup, _) = scene(&[&[HOST]]);
    setup.origin().says("/", Reply::ok("v1").fresh());
    setup
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let (setup, issued) = scene(&[&["a.test"], &["*.b.test"], &["www.b.test", "c.test"]]);
    let scene = setup.start();
    for (name, expected) in [
        ("a.test", 0),
        ("c.test", 2),
        ("www.b.test", 2),
        ("other.b.test", 1),
        ("b.test", 0),
        ("x.y.b.test", 0),
        ("unknown.test", 0),
        // An address is no name: the client asks for none.
        ("127.0.0.1", 0),
    ] {
        let line = Dial::new().connect(scene.tls_front(), name).unwrap();
        assert_eq!(line.certificate(), &issued[expected].der, "{name}");
    }
    scene.await_stat("handshakes.full", |full| full == 8);
}

#[test]
fn who_asks_for_an_unknown_name_is_refused_where_that_is_wanted() {
    let (setup, issued) = scene(&[&["a.test"], &["*.b.test"]]);
    let scene = setup.set("tls", "unknown_name", "\"refuse\"").start();
    for name in ["c.test", "b.test", "127.0.0.1"] {
        let error = Dial::new().connect(scene.tls_front(), name).err().unwrap();
        let said = error.to_string().to_lowercase();
        assert!(said.contains("unrecogni"), "{name}: {said}");
    }
    let line = Dial::new().connect(scene.tls_front(), "x.b.test").unwrap();
    assert_eq!(line.certificate(), &issued[1].der);
    scene.await_stat("handshakes.failures.unknown-name", |count| count == 3);
}

#[test]
fn tls_1_3_is_spoken_with_post_quantum_key_exchange_and_tls_1_2_too() {
    let scene = usual().start();
    let line = Dial::new().connect(scene.tls_front(), HOST).unwrap();
    let session = line.session();
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let line = Dial::version(&TLS12).connect(scene.tls_front(), HOST);
    let version = line.unwrap().session().protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
}

#[test]
fn tls_1_2_can_be_switched_off() {
    let scene = usual().set("tls", "version_min", "\"1.3\"").start();
    assert!(
        Dial::version(&TLS12)
            .connect(scene.tls_front(), HOST)
            .is_err()
    );
    scene.await_stat("handshakes.failures.incompatible", |count| count == 1);
    Dial::version(&TLS13)
        .connect(scene.tls_front(), HOST)
        .unwrap();
}

#[test]
fn the_config_decides_which_protocols_are_offered() {
    let both = &["http/1.1", "h2"];
    let chosen = |scene: &Scene, offered: &[&str]| {
        let line = Dial::offering(offered).connect(scene.tls_front(), HOST);
        let line = line.ok()?;
        let name = line.session().alpn_protocol().unwrap_or_default();
        Some(String::from_utf8(name.to_vec()).unwrap())
    };
    let scene = usual().start();
    assert_eq!(chosen(&scene, both).as_deref(), Some("h2"));
    assert_eq!(chosen(&scene, &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(chosen(&scene, &[]).as_deref(), Some(""));
    assert_eq!(chosen(&scene, &["h3", "spdy/1"]), None);
    scene.await_stat("handshakes.failures.alpn", |count| count == 1);
    let scene = usual().set("tls", "alpn", "[\"http/1.1\"]").start();
    assert_eq!(chosen(&scene, both).as_deref(), Some("http/1.1"));
    assert_eq!(chosen(&scene, &["h2"]), None);
}

#[test]
fn a_ticket_is_good_with_every_worker() {
    let scene = usual().server("workers", "4").start();
    for version in [&TLS13, &TLS12] {
        let dial = Dial::version(version);
        assert_eq!(dial.visits(scene.tls_front(), HOST), HandshakeKind::Full);
        for _ in 0..24 {
            let kind = dial.visits(scene.tls_front(), HOST);
            assert_eq!(kind, HandshakeKind::Resumed);
        }
    }
    scene.await_stat("handshakes.resumed", |resumed| resumed == 48);
    assert_eq!(scene.stat("handshakes.full"), 2);
}

#[test]
fn a_ticket_lives_for_two_turns_of_its_key() {
    let setup = usual().set("tls", "ticket_rotation", "\"1h\"");
    let mut scene = setup.own_clock().start();
    let (short, long) = (Dial::new(), Dial::new());
    assert_eq!(short.visits(scene.tls_front(), HOST), HandshakeKind::Full);
    assert_eq!(long.visits(scene.tls_front(), HOST), HandshakeKind::Full);
    scene.clock_moves(3700);
    let kind = short.visits(scene.tls_front(), HOST);
    assert_eq!(kind, HandshakeKind::Resumed);
    scene.clock_moves(3700);
    // This ticket is from the last turn, the other one from the turn before.
    let kind = short.visits(scene.tls_front(), HOST);
    assert_eq!(kind, HandshakeKind::Resumed);
    assert_eq!(long.visits(scene.tls_front(), HOST), HandshakeKind::Full);
}

#[test]
fn without_tickets_nothing_is_resumed() {
    let scene = usual().set("tls", "ticket_rotation", "\"0s\"").start();
    for version in [&TLS13, &TLS12] {
        let dial = Dial::version(version);
        for _ in 0..2 {
            assert_eq!(dial.visits(scene.tls_front(), HOST), HandshakeKind::Full);
        }
    }
}

#[test]
fn a_ticket_is_for_its_own_name_only() {
    let (setup, _) = scene(&[&["a.test", "b.test"]]);
    let scene = setup.start();
    let dial = Dial::new();
    dial.visits(scene.tls_front(), "a.test");
    let kind = dial.visits(scene.tls_front(), "b.test");
    assert_eq!(kind, HandshakeKind::Full);
}

/// An OCSP response about the certificates of this scene, which nobody signed.
fn staple(hours: u64) -> Vec<u8> {
    let now = SystemTime::now();
    let algorithm = AlgorithmIdentifierOwned {
        oid: "1.3.14.3.2.26".parse().unwrap(),
        parameters: None,
    };
    let hash = OctetString::new(vec![0; 20]).unwrap();
    let single = SingleResponse {
        cert_id: CertId {
            hash_algorithm: algorithm.clone(),
            issuer_name_hash: hash.clone(),
            issuer_key_hash: hash.clone(),
            serial_number: SerialNumber::new(SERIAL).unwrap(),
        },
        cert_status: CertStatus::Good(Null),
        this_update: now.try_into().unwrap(),
        next_update: Some(
            (now + Duration::from_secs(3600 * hours))
                .try_into()
                .unwrap(),
        ),
        single_extensions: None,
    };
    let basic = BasicOcspResponse {
        tbs_response_data: ResponseData {
            version: x509_ocsp::Version::V1,
            responder_id: ResponderId::ByKey(hash),
            produced_at: now.try_into().unwrap(),
            responses: vec![single],
            response_extensions: None,
        },
        signature_algorithm: algorithm,
        signature: BitString::from_bytes(&[0]).unwrap(),
        certs: None,
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

#[test]
fn an_ocsp_response_is_stapled_until_it_is_over() {
    let response = staple(2);
    let setup = usual();
    fs::write(setup.dir().join("c0.ocsp"), &response).unwrap();
    let setup = setup.more("ocsp = \"c0.ocsp\"\n");
    let mut scene = setup.own_clock().start();
    let seen = |scene: &Scene| {
        let dial = Dial::new();
        dial.connect(scene.tls_front(), HOST).unwrap();
        dial.staple()
    };
    assert_eq!(seen(&scene), response);
    assert_eq!(scene.stats()["tls"]["expire_first"][0]["stapled"], true);
    scene.clock_moves(3 * 3600);
    scene.signal("HUP");
    scene.await_stat("tls.troubled", |troubled| troubled == 1);
    assert_eq!(seen(&scene), b"");
    let renewed = staple(9);
    fs::write(scene.dir().join("c0.ocsp"), &renewed).unwrap();
    scene.signal("HUP");
    scene.await_stat("tls.troubled", |troubled| troubled == 0);
    assert_eq!(seen(&scene), renewed);
}

#[test]
fn a_client_that_does_not_go_on_is_cut() {
    let scene = usual().server("handshake_timeout", "\"300ms\"").start();
    let mut silent = tcp(scene.tls_front());
    let mut stalling = tcp(scene.tls_front());
    Dial::new().session(HOST).write_tls(&mut stalling).unwrap();
    for wire in [&mut silent, &mut stalling] {
        // The end, after whatever the server had to say.
        drop(wire.read_to_end(&mut Vec::new()));
    }
    scene.await_stat("handshakes.failures.timeout", |count| count == 2);
    Dial::new().visits(scene.tls_front(), HOST);
}

#[test]
fn handshakes_wait_for_a_place_among_the_allowed() {
    let scene = usual().set("tls", "handshakes_max", "1").start();
    let mut stalling = tcp(scene.tls_front());
    Dial::new().session(HOST).write_tls(&mut stalling).unwrap();
    // It has its place when the server has answered it.
    stalling.read_exact(&mut [0]).unwrap();
    let mut waiting = tcp(scene.tls_front());
    let mut session = Dial::new().session(HOST);
    session.write_tls(&mut waiting).unwrap();
    waiting
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(waiting.read_exact(&mut [0]).is_err(), "there was a place");
    waiting.set_read_timeout(None).unwrap();
    drop(stalling);
    while session.is_handshaking() {
        session.complete_io(&mut waiting).unwrap();
    }
    scene.await_stat("handshakes.failures.closed", |count| count == 1);
}

#[test]
fn what_is_no_tls_is_counted_as_that() {
    let scene = usual().start();
    let mut wire = tcp(scene.tls_front());
    std::io::Write::write_all(&mut wire, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(wire.read_to_end(&mut Vec::new()));
    scene.await_stat("handshakes.failures.malformed", |count| count == 1);
    assert_eq!(scene.stat("handshakes.failed"), 1);
}
