//! The one list of keys: name, kind, bounds, default and a line of explanation each.
//!
//! The structs that hold the values, the reader that checks them, the reference that
//! `check --print-default` prints and the effective config that `check` prints are all made from
//! this list. `key: Kind(bounds) = default;` has a default; `key: Kind(bounds), as in example;` must
//! be given. Defaults and examples are TOML.

use super::file::Given;
use super::file::Key;
use super::file::Place;
use super::file::Reader;
use super::file::Section;
use super::kinds::Choice;
use super::kinds::Count;
use super::kinds::Dirs;
use super::kinds::Flag;
use super::kinds::Kind;
use super::kinds::List;
use super::kinds::Size;
use super::kinds::Text;
use super::kinds::Time;
use super::plan::ClientCertificate;
use super::plan::Level;
use super::plan::Runtime;
use crate::acme::Challenge;
use crate::net::tls::INTERVAL_MAX;
use crate::net::tls::UnknownName;
use crate::net::tls::Version;
use crate::ops::access_log::Facility;
use crate::ops::access_log::Format;
use crate::rules::forwarded::Told;
use crate::rules::guard::PurgeKinds;
use crate::rules::part::RangePolicy;
use crate::rules::reuse::ClientCacheControl;
use crate::rules::target::Query;
use crate::state::eviction::Favour;
use crate::state::spread::DIRS_MAX;
use crate::upstream::Protocol;
use std::time::Duration;

macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $section:ident in $header:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:ident : $kind:ident $(<$of:ty>)? ($($bounds:expr),*)
                $(= $default:tt)? $(, as in $example:tt)? ;
            )+
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $section {
            /// The line of its header; none when the section is not in the file.
            pub line: Option<usize>,
            $(
                $(#[doc = $doc])+
                pub $key: Given<<$kind $(<$of>)? as Kind>::Value>,
            )+
        }

        impl Section for $section {
            const HEADER: &'static str = $header;
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn keys() -> Vec<Key> {
                vec![$(Key {
                    name: stringify!($key),
                    docs: &[$($doc),+],
                    default: None $(.or(Some(stringify!($default))))?,
                    example: None $(.or(Some(stringify!($example))))?,
                    allowed: ($kind $(::<$of>)? ($($bounds),*)).allowed(),
                }),+]
            }

            fn read(reader: &mut Reader<'_>, place: &Place<'_>) -> Self {
                reader.refuse_unknown::<Self>(place);
                Self {
                    line: place.line,
                    $($key: reader.take(
                        place,
                        stringify!($key),
                        &($kind $(::<$of>)? ($($bounds),*)),
                        None $(.or(Some(stringify!($default))))?,
                    )),+
                }
            }

            fn literals(&self) -> Vec<(&'static str, &str, bool)> {
                vec![$((
                    stringify!($key),
                    self.$key.literal.as_str(),
                    self.$key.line.is_none(),
                )),+]
            }
        }
    )+};
}

sections! {
    /// Clients: where they connect, and what one of them may cost.
    Server in "[server]" {
        /// Addresses for HTTP/1.1 in clear text, and HTTP/2 if h2c is true.
        http: List(0, 64) = ["127.0.0.1:8080"];
        /// Addresses for HTTP/1.1 and HTTP/2 over TLS; they need a [[tls.certificate]] or [tls.acme].
        https: List(0, 64) = [];
        /// HTTP/2 by prior knowledge on plain listeners, beside HTTP/1.1.
        h2c: Flag() = false;
        /// HTTP/2: most streams open at a time on one connection; more are refused.
        http2_streams_max: Count(1, 10_000) = 100;
        /// HTTP/2: bytes of one request's body that may be under way unread.
        http2_stream_window: Size(64 * KIB, 16 * MIB) = "256KiB";
        /// HTTP/2: the same for all requests of a connection together.
        http2_connection_window: Size(64 * KIB, 64 * MIB) = "1MiB";
        /// HTTP/2: streams a client may cancel beyond one for each response that reached it; refilled within 10s.
        /// A client that cancels more is cut (rapid reset); so is one with more streams that break the protocol.
        http2_resets_max: Count(10, 1_000_000) = 200;
        /// HTTP/2: PING, SETTINGS and other frames that ask for nothing, beyond what responses explain; refilled within 10s.
        http2_control_frames_max: Count(100, 1_000_000) = 1000;
        /// Port that clients reach https at, for redirects to it.
        https_port: Count(1, 65_535) = 443;
        /// Threads that serve clients; 0: one a core. A reload cannot change it.
        workers: Count(0, 1024) = 0;
        /// per-core: each worker is a runtime of its own; shared: one runtime, work moves between threads.
        /// A reload cannot change it.
        runtime: Choice<Runtime>(RUNTIMES) = "per-core";
        /// Name in Cache-Status, Proxy-Status, Via and CDN-Loop.
        identifier: Text() = "larder";
        /// Address blocks of proxies in front: what they say in X-Forwarded-For and -Proto is believed.
        /// They must write both themselves. From anyone else the connection alone counts.
        trusted_proxies: List(0, 256) = [];
        /// Address blocks of balancers whose connections begin with a PROXY protocol header, version 1 or 2. Without
        /// one they are cut; from anyone else such a header is a bad request. What it says is the client's address.
        proxy_protocol_from: List(0, 256) = [];
        /// X-Forwarded-For to origins. "set": the client alone; "append": and the trusted proxies after it.
        forwarded: Choice<Told>(FORWARDED) = "set";
        /// Send origins Forwarded (RFC 7239) beside X-Forwarded-For, -Host and -Proto.
        forwarded_field: Flag() = false;
        /// How many others of this identifier a request may come through (CDN-Loop, RFC 8586); more: 508.
        hops_max: Count(0, 100) = 8;
        /// Say in the Via field of responses that they came through here; requests always say so.
        via_response: Flag() = false;
        /// Name the URL that a response is stored under in Cache-Status.
        cache_status_key: Flag() = false;
        /// Most open client connections; more wait to be accepted.
        connections_max: Count(1, 1_000_000) = 16384;
        /// Most fields in a request head; more are refused with 431.
        headers_max: Count(8, 4096) = 100;
        /// Largest request head; larger is refused with 431.
        header_bytes_max: Size(8 * KIB, 16 * MIB) = "64KiB";
        /// Longest request target; longer is refused with 414.
        target_bytes_max: Size(KIB, 60 * KIB) = "16KiB";
        /// Largest request body; larger is refused with 413.
        body_bytes_max: Size(0, u64::MAX) = "1GiB";
        /// Longest time from the first byte of a request head to its last.
        header_timeout: Time(millis(100), HOUR) = "10s";
        /// Longest silence between two requests of a connection.
        idle_timeout: Time(millis(100), DAY) = "60s";
        /// Longest wait for the next part of a request body.
        body_read_timeout: Time(millis(100), HOUR) = "20s";
        /// Longest time a response may make no progress because the client does not read.
        write_timeout: Time(millis(100), HOUR) = "30s";
        /// Longest TLS handshake.
        handshake_timeout: Time(millis(100), HOUR) = "10s";
        /// Longest wait for responses under way after SIGTERM.
        drain_timeout: Time(millis(0), HOUR) = "30s";
        /// Longest wait for each step of a process that takes over (SIGUSR2); after it this one goes on.
        takeover_timeout: Time(millis(100), HOUR) = "60s";
        /// Most tries over the backends of an upstream for one request.
        tries_max: Count(1, 16) = 3;
        /// Most upgraded connections at a time (upgrades of a site); more are refused with 503.
        upgrades_max: Count(0, 1_000_000) = 1024;
        /// How long an upgraded connection may carry nothing before it is cut.
        upgrade_idle_timeout: Time(millis(100), DAY) = "5m";
    }

    /// Handshakes on the https addresses.
    Tls in "[tls]" {
        /// Protocols offered by ALPN, the preferred first: "h2" and "http/1.1".
        alpn: List(1, 2) = ["h2", "http/1.1"];
        /// Oldest version spoken.
        version_min: Choice<Version>(VERSIONS) = "1.2";
        /// Who asks for no name, or for one that no certificate is for: shown the first certificate, or refused.
        unknown_name: Choice<UnknownName>(UNKNOWN_NAMES) = "first";
        /// How long a key of session tickets is used; it is accepted once as long after. "0s": no tickets.
        ticket_rotation: Time(millis(0), INTERVAL_MAX) = "1h";
        /// Most handshakes under way once the client has said hello; more wait within handshake_timeout.
        handshakes_max: Count(1, 1_000_000) = 2048;
        /// How often files are looked at; what has changed is taken up. A reload does so at once.
        files_interval: Time(millis(100), DAY) = "5s";
    }

    /// A certificate for https, chosen by the names in it. Relative paths start at this file's folder.
    /// Changed files are taken up while running; what is bad is logged, and the old stays in use.
    Certificate in "[[tls.certificate]]" {
        /// The certificate, followed by its chain (PEM).
        cert: Text(), as in "cert.pem";
        /// Its private key (PEM).
        key: Text(), as in "key.pem";
        /// An OCSP response to staple (DER); "" for none. Without a good one the certificate is used without.
        ocsp: Text() = "";
    }

    /// Certificates from an ACME authority (RFC 8555), renewed after two thirds of their life: one for each whole
    /// name among the sites' hosts that no [[tls.certificate]] is for. Wildcards need a [[tls.certificate]].
    Acme in "[tls.acme]" {
        /// Obtain certificates.
        enabled: Flag() = false;
        /// The authority's directory. This one is for trying out: browsers do not trust what it issues.
        /// Let's Encrypt's own is the same without "-staging".
        directory: Text() = "https://acme-staging-v02.api.letsencrypt.org/directory";
        /// You have read the authority's terms of service and agree. Without that it issues nothing.
        terms_agreed: Flag() = false;
        /// Whom the authority may write to, such as "mailto:admin@example.com".
        contact: List(0, 8) = [];
        /// Folder of the account, keys and certificates; made when missing, closed to others. Relative to this file's
        /// folder. Keep it: without it everything is ordered again, and authorities limit how often.
        dir: Text() = "acme-dir";
        /// How names are proven. "tls-alpn-01": clients reach https at port 443; "http-01": clients reach http at port 80.
        challenge: Choice<Challenge>(CHALLENGES) = "tls-alpn-01";
        /// Other names that a client may get a certificate for by asking, such as "*.customers.example": its first
        /// handshake waits for it, within handshake_timeout.
        ask: List(0, 1024) = [];
        /// Most orders an hour for names that clients ask for.
        ask_per_hour: Count(0, 1000) = 20;
        /// Most names that are looked after; more get no certificate.
        names_max: Count(1, 10_000) = 1000;
        /// Most orders under way at a time.
        orders_max: Count(1, 100) = 4;
        /// Longest time of one order.
        order_timeout: Time(SECOND, HOUR) = "2m";
        /// Wait after a first failure; it doubles with each further one. The certificate in use stays.
        retry_min: Time(millis(100), DAY) = "1m";
        /// Longest wait between two tries.
        retry_max: Time(SECOND, WEEK) = "6h";
        /// The authorities that the directory's own certificate may come from (PEM); "": the system's.
        ca_file: Text() = "";
        /// Identifier of the key that ties the account to one with the authority (EAB); "" for none.
        eab_key_id: Text() = "";
        /// File with that key in base64url, as the authority gives it.
        eab_key_file: Text() = "";
    }

    /// The store of responses. A reload cannot change dir, dirs, disk_bytes_max and fill_bytes_max.
    Cache in "[cache]" {
        /// Folder of the store; made when missing. A relative path starts at this file's folder.
        dir: Text() = "cache-dir";
        /// Hard limit on what the folder takes up on disk.
        disk_bytes_max: Size(32 * MIB, u64::MAX) = "10GiB";
        /// Several directories instead, one a disk, each with its limit; responses are spread over them. One that
        /// fails is left out until it works again. [{ path = "/disk1", disk_bytes_max = "100GiB" }, ...]
        dirs: Dirs(DIRS_MAX, 32 * MIB) = [];
        /// What to keep when room is short: what saves most bytes, or what answers most requests.
        favour: Choice<Favour>(FAVOURS) = "bytes";
        /// A body over this part of disk_bytes_max, in percent, is stored at its second request; 100: at the first.
        second_request_percent: Count(0, 100) = 10;
        /// Hot responses kept in memory.
        memory_bytes_max: Size(0, u64::MAX) = "512MiB";
        /// Responses on their way from origin to store and clients, all together, in memory.
        fill_bytes_max: Size(8 * MIB, u64::MAX) = "128MiB";
        /// Most requests that wait for one response; more go to the origin on their own.
        followers_max: Count(0, 1_000_000) = 10000;
        /// How long a target that was not storable is fetched without waiting for others.
        hit_for_miss: Time(millis(0), DAY) = "10s";
        /// How much of the store is read each second to find damage before a request does; "0B" for none.
        scrub_bytes_per_second: Size(0, u64::MAX) = "0B";
        /// Most variants of one target; one more pushes out the oldest that was not asked for lately.
        variants_max: Count(1, 1024) = 32;
    }

    /// Purging, reloading, counters and health.
    Admin in "[admin]" {
        /// Address of the admin listener; "" for none.
        listen: Text() = "127.0.0.1:8081";
        /// File with the bearer token; needed unless the listener is loopback. Relative to this file's folder.
        token_file: Text() = "";
        /// Request field by which who knows the token is told how a response came about, in a response field of the
        /// same name. It never goes on to an origin, nor into a log; "" for none.
        debug_field: Text() = "Larder-Debug";
        /// File with a token of its own for that field; "": the one of token_file. Without either nobody is told.
        debug_token_file: Text() = "";
    }

    /// An origin: one or more backends, asked in turn.
    Upstream in "[upstream.NAME]" {
        /// "http://host:port", "https://host:port", or one "file:PATH": a folder served as an origin (relative to this file's folder).
        backends: List(1, 256), as in ["file:fixtures/site"];
        /// The authorities that issue the certificates of https backends (PEM; relative to this file's folder); "": the system's.
        ca: Text() = "";
        /// The name that https backends are asked for and must have in their certificates; "": the host of each.
        server_name: Text() = "";
        /// The certificate that https backends are shown when they ask for one, with its chain (PEM); "": none.
        client_certificate: Text() = "";
        /// Its private key (PEM).
        client_key: Text() = "";
        /// Whether the certificates of https backends are looked at. If not, whoever is on the way can be the origin.
        verify: Flag() = true;
        /// What backends are spoken to in: what ALPN comes to over TLS and HTTP/1.1 in clear text (auto); "http1"; "http2", in clear text by prior knowledge.
        protocol: Choice<Protocol>(PROTOCOLS) = "auto";
        /// Most requests at once on one HTTP/2 connection; a backend may allow less.
        streams_max: Count(1, 10_000) = 100;
        /// What is taken in of one HTTP/2 response before it is read; a connection costs at most this times streams_max.
        stream_window_bytes: Size(64 * KIB, 16 * MIB) = "1MiB";
        /// After how long a silence an HTTP/2 connection is asked for a sign of life; "0s": never.
        ping_interval: Time(millis(0), HOUR) = "20s";
        /// How long that sign may take before the connection is given up.
        ping_timeout: Time(millis(10), HOUR) = "10s";
        /// Longest wait for a name, a connection, TLS and the greeting of HTTP/2.
        connect_timeout: Time(millis(10), HOUR) = "2s";
        /// Longest wait for the head of a response.
        first_byte_timeout: Time(millis(10), HOUR) = "20s";
        /// Longest wait for the next part of a response body.
        between_bytes_timeout: Time(millis(10), HOUR) = "10s";
        /// Most connections to one backend.
        connections_max: Count(1, 65_536) = 1024;
        /// Most requests that wait for a connection to one backend; more fail at once.
        queue_max: Count(0, 1_000_000) = 1024;
        /// Most idle connections kept to one backend.
        idle_max: Count(0, 65_536) = 256;
        /// Most requests at a time that only refresh what was purged.
        refreshes_max: Count(1, 1024) = 4;
        /// How long an idle connection is kept.
        idle_timeout: Time(millis(0), HOUR) = "30s";
        /// Most fields in a response head.
        headers_max: Count(8, 4096) = 200;
        /// Largest response head.
        header_bytes_max: Size(8 * KIB, 16 * MIB) = "128KiB";
    }

    /// What is served, and how. The most specific host wins, whatever the order.
    Site in "[[site]]" {
        /// Host names without port: exact, "*.example.com", or "*" for every other.
        hosts: List(1, 1024) = ["*"];
        /// The upstream's name.
        upstream: Text() = "main";
        /// Protocols that clients may upgrade a connection to, such as "websocket".
        upgrades: List(0, 16) = [];
        /// stale-while-revalidate for responses that do not say (RFC 5861).
        stale_while_revalidate: Time(millis(0), YEAR) = "0s";
        /// stale-if-error for responses that do not say (RFC 5861).
        stale_if_error: Time(millis(0), YEAR) = "0s";
        /// Whether no-cache, max-age and the like in requests count.
        client_cache_control: Choice<ClientCacheControl>(CLIENT_CACHE_CONTROL) = "ignore";
        /// Response fields that stand before Cache-Control and Expires, first one first (RFC 9213).
        /// With "surrogate-control" among them, requests to the origin carry Surrogate-Capability.
        targeted: List(0, 8) = ["cdn-cache-control"];
        /// Pass those fields on, for caches on the way to the client; false takes them off.
        targeted_pass: Flag() = true;
        /// Response fields whose words are tags to purge by: "cache-groups" (RFC 9875); "surrogate-key" and
        /// "xkey", between spaces; "cache-tag", between commas; any other between either.
        tag_fields: List(0, 8) = ["cache-groups", "cache-tag", "surrogate-key", "xkey"];
        /// Pass those fields on to clients; false takes them off, but for Cache-Groups.
        tag_fields_pass: Flag() = false;
        /// Address blocks whose PURGE requests on the front are obeyed, such as "10.0.0.0/8".
        purge_from: List(0, 256) = [];
        /// What they may purge: single URLs, or anything of the site, by BAN, PURGEKEYS and the fields that
        /// plugins of content management systems send (docs/purge.md).
        purge_kinds: Choice<PurgeKinds>(PURGE_KINDS) = "urls";
        /// A GET from there for this path with another behind it purges that one; "/purge" is nginx-helper's.
        purge_path: Text() = "";
        /// Ask clients for a certificate in the handshake. Origins read who it is in X-Client-Cert-Subject
        /// and X-Client-Cert-San, which clients cannot write. Connections made for other hosts get 421.
        client_certificate: Choice<ClientCertificate>(CLIENT_CERTIFICATES) = "off";
        /// The authorities that issue them (PEM; relative to this file's folder).
        client_authorities: Text() = "";
        /// Keep the responses for different client certificates apart.
        key_client: Flag() = true;
        /// Send requests in clear text to https (308).
        redirect_https: Flag() = false;
        /// max-age of Strict-Transport-Security on every response by https (RFC 6797); "0s": the origin's own.
        hsts: Time(millis(0), TEN_YEARS) = "0s";
        /// Add includeSubDomains to it.
        hsts_subdomains: Flag() = false;
        /// Add preload to it.
        hsts_preload: Flag() = false;
        /// Store responses that carry Set-Cookie.
        store_set_cookie: Flag() = false;
        /// Store bodies that end with the connection; a cut one cannot be told from a whole one.
        store_close_delimited: Flag() = false;
        /// Upper bound on a freshness lifetime guessed from Last-Modified (RFC 9111 section 4.2.2).
        heuristic_max: Time(millis(0), YEAR) = "1d";
        /// For a range of what is not stored, ask for: slices of 1 MiB, and the rest if short (by-size); slices only; the whole.
        range_fetch: Choice<RangePolicy>(RANGE_FETCH) = "by-size";
        /// Keep the responses for http and https apart.
        key_scheme: Flag() = false;
        /// Keep the responses for different ports apart; if not, origins are not told the port either.
        key_port: Flag() = true;
        /// Whether queries count: as they are, sorted by name, or not at all. Origins are asked for what counts.
        key_query: Choice<Query>(QUERIES) = "keep";
        /// Query parameters that do not count and are not sent on, such as "ref" or "utm_*".
        key_query_drop: List(0, 256) = [];
        /// The same for some two dozen parameters that only follow clients around (utm_*, gclid, fbclid).
        key_query_drop_tracking: Flag() = false;
        /// Cookies whose value selects a variant of every response.
        key_cookies: List(0, 8) = [];
        /// Request fields whose value selects a variant of every response, as if Vary named them.
        key_headers: List(0, 8) = [];
        /// Let a response in one language answer whoever likes that one best. RFC 9111 wants equal Accept-Language: only for origins that choose by weight.
        select_by_content_language: Flag() = false;
        /// Let responses say by No-Vary-Search which parts of a query make no difference to them.
        no_vary_search: Flag() = true;
    }

    /// Events go to stderr; the access log has one line a request.
    Log in "[log]" {
        /// Least severe events that are logged.
        level: Choice<Level>(LEVELS) = "info";
        /// "off", "stdout", "syslog:/dev/log" (a socket), "syslog://host:514" (UDP), or a file that is appended to
        /// (relative to this file's folder). A reload opens it anew, and so does SIGUSR1.
        access: Text() = "off";
        /// Form of the access log; "w3c" has the fields below.
        format: Choice<Format>(FORMATS) = "combined";
        /// Fields of the w3c form, in order; docs/logs.md lists them all.
        fields: List(1, 64) = ["date", "time", "c-ip", "cs-method", "cs-host", "cs-uri", "sc-status", "sc-bytes", "time-taken", "x-cache", "cs(User-Agent)"];
        /// What a syslog takes the lines to be of.
        syslog_facility: Choice<Facility>(FACILITIES) = "local7";
    }

    /// What single requests do, step by step, for OpenTelemetry: OTLP as JSON over HTTP.
    Traces in "[traces]" {
        /// Belong to traces (W3C Trace Context), pass them on to origins, and tell a collector.
        enabled: Flag() = false;
        /// Where the collector takes traces, in clear text: it is meant to be near.
        endpoint: Text() = "http://127.0.0.1:4318/v1/traces";
        /// One trace in so many is told. A trusted proxy decides it for the requests it passes on.
        one_in: Count(1, 1_000_000_000) = 100;
        /// What the collector is told we are (service.name).
        service: Text() = "larder";
    }
}

const VERSIONS: &[(&str, Version)] = &[("1.2", Version::Tls12), ("1.3", Version::Tls13)];

const UNKNOWN_NAMES: &[(&str, UnknownName)] = &[
    ("first", UnknownName::First),
    ("refuse", UnknownName::Refuse),
];

const CHALLENGES: &[(&str, Challenge)] = &[
    ("tls-alpn-01", Challenge::TlsAlpn01),
    ("http-01", Challenge::Http01),
];

const CLIENT_CERTIFICATES: &[(&str, ClientCertificate)] = &[
    ("off", ClientCertificate::Off),
    ("optional", ClientCertificate::Optional),
    ("required", ClientCertificate::Required),
];

const RUNTIMES: &[(&str, Runtime)] = &[("per-core", Runtime::PerCore), ("shared", Runtime::Shared)];

const FORWARDED: &[(&str, Told)] = &[("set", Told::Set), ("append", Told::Append)];

const CLIENT_CACHE_CONTROL: &[(&str, ClientCacheControl)] = &[
    ("ignore", ClientCacheControl::Ignore),
    ("honour", ClientCacheControl::Honour),
];

const PURGE_KINDS: &[(&str, PurgeKinds)] = &[("urls", PurgeKinds::Urls), ("all", PurgeKinds::All)];

const QUERIES: &[(&str, Query)] = &[
    ("keep", Query::Keep),
    ("sort", Query::Sort),
    ("drop", Query::Drop),
];

const RANGE_FETCH: &[(&str, RangePolicy)] = &[
    ("by-size", RangePolicy::BySize),
    ("slices", RangePolicy::Slices),
    ("whole", RangePolicy::Whole),
];

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("auto", Protocol::Auto),
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
];

const FAVOURS: &[(&str, Favour)] = &[("bytes", Favour::Bytes), ("objects", Favour::Objects)];

const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

const FORMATS: &[(&str, Format)] = &[
    ("combined", Format::Combined),
    ("json", Format::Json),
    ("w3c", Format::W3c),
];

const FACILITIES: &[(&str, Facility)] = &[
    ("user", Facility::User),
    ("daemon", Facility::Daemon),
    ("local0", Facility::Local0),
    ("local1", Facility::Local1),
    ("local2", Facility::Local2),
    ("local3", Facility::Local3),
    ("local4", Facility::Local4),
    ("local5", Facility::Local5),
    ("local6", Facility::Local6),
    ("local7", Facility::Local7),
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
