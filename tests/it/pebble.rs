//! An ACME authority for scenes: Debian's `pebble`, with a name server that sends it everywhere to
//! the loopback.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::dial::Authority;
use crate::dial::Dial;
use crate::scene::Setup;
use crate::scene::eventually;
use crate::scene::free_port;

/// An authority that is not running yet.
pub(crate) struct Pebble {
    dir: TempDir,
    port: u16,
    management: u16,
    http: u16,
    https: u16,
    config: Value,
    running: Vec<Child>,
    starts: usize,
}

impl Pebble {
    /// Sets one up that looks for proofs at ports of its own.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder for the authority");
        let trust = Authority::new("Whoever vouches for pebble");
        fs::write(dir.path().join("roots.pem"), &trust.pem).expect("a root");
        trust.server(&["127.0.0.1"]).write(dir.path(), "own");
        let [port, management, http, https] = [(); 4].map(|()| free_port());
        let file = |name: &str| dir.path().join(name);
        let config = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("own.pem"),
            "privateKey": file("own.key"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        });
        Self {
            port,
            management,
            http,
            https,
            config,
            dir,
            running: Vec::new(),
            starts: 0,
        }
    }

    /// Sets a key of its config.
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// Looks for proofs where another does, and shows the same certificate as it does itself.
    pub(crate) fn looks_where(&mut self, other: &Self) {
        for key in ["httpPort", "tlsPort", "certificate", "privateKey"] {
            self.config[key] = other.config[key].clone();
        }
    }

    /// A scene whose binary listens where the authority looks, and orders from it.
    pub(crate) fn scene(&self, setup: Setup) -> Setup {
        let url = format!("{:?}", self.directory());
        let roots = format!("{:?}", self.dir.path().join("roots.pem"));
        setup
            .server("http", &format!("[\"127.0.0.1:{}\"]", self.http))
            .server("https", &format!("[\"127.0.0.1:{}\"]", self.https))
            .set("tls.acme", "enabled", "true")
            .set("tls.acme", "terms_agreed", "true")
            .set("tls.acme", "directory", &url)
            .set("tls.acme", "ca_file", &roots)
            .set("tls.acme", "retry_min", "\"100ms\"")
            .set("tls.acme", "retry_max", "\"1s\"")
    }

    /// Starts it, and waits until it listens. It knows nothing of an earlier run.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_empty(), "it runs already");
        self.starts += 1;
        let [names, control] = [(); 2].map(|()| free_port());
        let names = format!("127.0.0.1:{names}");
        let control = format!("127.0.0.1:{control}");
        let config = self.dir.path().join("pebble.json");
        let text = json!({ "pebble": self.config }).to_string();
        fs::write(&config, text).expect("a config for pebble");
        let mut resolver = installed("pebble-challtestsrv");
        resolver
            .args(["-dns01", &names, "-management", &control])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        self.run(resolver, "names");
        listens(control.parse().expect("an address"));
        let mut pebble = installed("pebble");
        pebble
            .arg("-config")
            .arg(&config)
            .args(["-strict", "-dnsserver", &names])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", "0");
        self.run(pebble, "log");
        listens(SocketAddr::from(([127, 0, 0, 1], self.port)));
        listens(SocketAddr::from(([127, 0, 0, 1], self.management)));
    }

    /// Takes it away.
    pub(crate) fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// What it has said since it was started.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log("log")).unwrap_or_default()
    }

    /// How many certificates it has issued since it was started.
    pub(crate) fn issued(&self) -> usize {
        self.said().matches("Issued certificate serial").count()
    }

    /// The root of what it issues.
    #[track_caller]
    pub(crate) fn roots(&self) -> RootCertStore {
        let management = SocketAddr::from(([127, 0, 0, 1], self.management));
        let line = Dial::new().connect(management, "localhost");
        let mut client = line.expect("its management").client();
        let answer = client.get("/roots/0").answer("GET");
        let root = CertificateDer::from_pem_slice(&answer.is(200).body).expect("a root");
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        roots
    }

    fn run(&mut self, mut command: Command, name: &str) {
        let log = File::create(self.log(name)).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.running.push(child);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}-{}", self.starts))
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pebble:\n{}---", self.said());
        }
        self.stop();
    }
}

/// A program of Debian's package.
fn installed(program: &str) -> Command {
    let path = Path::new("/usr/bin").join(program);
    assert!(
        path.exists(),
        "these scenes need an ACME authority: apt-get install pebble (there is no {})",
        path.display()
    );
    Command::new(path)
}

#[track_caller]
fn listens(address: SocketAddr) {
    eventually(&format!("a listener at {address}"), || {
        TcpStream::connect(address).is_ok()
    });
}
