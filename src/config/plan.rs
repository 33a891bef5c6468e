//! What the program is to be, from a config file that has been checked.
//!
//! Asks whether the values of a [`File`] make sense together (names that must exist, addresses,
//! files that must be readable) and fills every module's `Params`. A [`Plan`] comes from nowhere
//! else, so what holds one need not check again.

use super::Problem;
use super::acme::Acme;
use super::file::File;
use super::file::Given;
use super::keys;
use super::kinds::nearest;
use crate::flow;
use crate::net;
use crate::net::tls;
use crate::net::tls::Protocol;
use crate::ops::access_log;
use crate::ops::access_log::Collector;
use crate::ops::access_log::Destination;
use crate::ops::access_log::Facility;
use crate::ops::access_log::Field;
use crate::ops::admin::Token;
use crate::ops::traces;
use crate::rules::forwarded::ForwardedPolicy;
use crate::rules::guard::GuardPolicy;
use crate::rules::guard::Network;
use crate::rules::identity;
use crate::rules::identity::CertificatePolicy;
use crate::rules::key::KeyPolicy;
use crate::rules::key::is_unseen;
use crate::rules::request;
use crate::rules::reuse::ClientCacheControl;
use crate::rules::route::Routes;
use crate::rules::route::SiteId;
use crate::rules::secret::SecretField;
use crate::rules::selecting::cookie_field;
use crate::rules::selecting::is_own_name;
use crate::rules::storable::StorePolicy;
use crate::rules::tag::TagPolicy;
use crate::rules::target::QueryPolicy;
use crate::rules::target::TRACKING;
use crate::rules::targeted::Targeted;
use crate::rules::trace::TracePolicy;
use crate::rules::upgrade;
use crate::state::eviction;
use crate::store;
use crate::upstream;
use crate::upstream::Backend;
use crate::upstream::Security;
use crate::upstream::tls::SecurityError;
use crate::upstream::tls::Settings;
use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use http::uri::Scheme;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses for clear text.
    pub http: Vec<SocketAddr>,
    /// Addresses for TLS; not empty only when there is a certificate or one can be obtained.
    pub https: Vec<SocketAddr>,
    /// Where certificates are obtained, if they are.
    pub acme: Option<Acme>,
    // Private, so that a plan can only be made here.
    tls: tls::Params,
    /// How often certificate files are looked at.
    pub files_interval: Duration,
    /// How long each step of a process that takes over may take.
    pub takeover_timeout: Duration,
    /// Threads that serve clients; 0: one a core.
    pub workers: usize,
    /// How the threads share the work.
    pub runtime: Runtime,
    /// Bounds on clients.
    pub net: net::Params,
    /// The admin listener, if there is one.
    pub admin: Option<Admin>,
    /// The engine.
    pub flow: flow::Params,
    /// The store's directories, at least one.
    pub store: Vec<store::Params>,
    /// Logs.
    pub log: Log,
    /// Where spans go, if there are any.
    pub traces: Option<traces::Params>,
}

/// How worker threads share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// Each worker has a runtime and listeners of its own; a connection stays on its core.
    #[default]
    PerCore,
    /// One runtime over all workers.
    Shared,
}

/// Whether a site asks clients for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No.
    #[default]
    Off,
    /// Who has none comes in without a name.
    Optional,
    /// Who has none does not come in.
    Required,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address.
    pub listen: SocketAddr,
    /// Where the bearer token is.
    pub token_file: Option<PathBuf>,
    /// What requests must bring; none only on a loopback address.
    pub token: Option<Token>,
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe events.
    pub level: Level,
    /// The access log.
    pub access: access_log::Params,
}

/// How severe an event must be to be logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// What an operator must act on.
    Error,
    /// What an operator may want to act on.
    Warn,
    /// Milestones.
    #[default]
    Info,
    /// The rest.
    Debug,
    /// Everything, libraries included.
    Trace,
}

impl Plan {
    /// Checks a file as a whole and adds what is wrong to `problems`. Relative paths start at
    /// `folder`. The plan is only good for use when there are no problems at all.
    pub fn check(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Self {
        let admin = Admin::check(&file.admin, folder, problems);
        let http = addresses(&file.server.http, "server.http", problems);
        let https = addresses(&file.server.https, "server.https", problems);
        listeners_apart(&http, &https, admin.as_ref(), file, problems);
        let acme = Acme::check(file, folder, problems);
        if !https.is_empty() && file.certificates.is_empty() && !file.acme.enabled.value {
            problem(
                problems,
                &file.server.https,
                "server.https",
                "needs at least one [[tls.certificate]], or [tls.acme]",
            );
        }
        let debug = debug(file, admin.as_ref(), folder, problems);
        let flow = flow::Params {
            debug,
            ..flow_params(file, folder, problems)
        };
        Self {
            http,
            https,
            acme,
            tls: tls_params(file, folder, &flow, problems),
            files_interval: file.tls.files_interval.value,
            takeover_timeout: file.server.takeover_timeout.value,
            workers: file.server.workers.value,
            runtime: file.server.runtime.value,
            net: net_params(file, problems),
            admin,
            flow,
            store: store_dirs(&file.cache, folder, problems),
            log: log(&file.log, folder, problems),
            traces: traces(&file.traces, problems),
        }
    }
}

impl Plan {
    /// What TLS listeners are to be.
    pub fn tls(&self) -> &tls::Params {
        &self.tls
    }
}

impl Admin {
    /// Checks the `[admin]` section; none when there is to be no listener.
    pub fn check(admin: &keys::Admin, folder: &Path, problems: &mut Vec<Problem>) -> Option<Self> {
        if admin.listen.value.is_empty() {
            return None;
        }
        let listen = address(&admin.listen.value)
            .map_err(|reason| problem(problems, &admin.listen, "admin.listen", &reason))
            .ok()?;
        let token_file = &admin.token_file;
        if token_file.value.is_empty() {
            if !listen.ip().is_loopback() {
                let reason = "is not loopback: give token_file too";
                problem(problems, &admin.listen, "admin.listen", reason);
            }
            return Some(Self {
                listen,
                token_file: None,
                token: None,
            });
        }
        let path = folder.join(&token_file.value);
        let token = Token::read(&path)
            .map_err(|error| problem(problems, token_file, "admin.token_file", &error.to_string()))
            .ok();
        Some(Self {
            listen,
            token_file: Some(path),
            token,
        })
    }
}

/// The field that asks for explanations, and the token for it, if there is one.
fn debug(
    file: &File,
    admin: Option<&Admin>,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<SecretField> {
    let (field, token_file) = (&file.admin.debug_field, &file.admin.debug_token_file);
    let token = match token_file.value.as_str() {
        "" => admin.and_then(|admin| admin.token.clone()),
        own => Token::read(&folder.join(own))
            .map_err(|error| {
                let reason = error.to_string();
                problem(problems, token_file, "admin.debug_token_file", &reason);
            })
            .ok(),
    };
    if field.value.is_empty() {
        return None;
    }
    match field.value.parse() {
        Ok(name) => Some(SecretField {
            name,
            secret: token.map(Token::into_secret),
        }),
        Err(_) => {
            let reason = format!("{:?} is not a field name", field.value);
            problem(problems, field, "admin.debug_field", &reason);
            None
        }
    }
}

fn net_params(file: &File, problems: &mut Vec<Problem>) -> net::Params {
    let server = &file.server;
    let mut upgrades = file.sites.iter().flat_map(|site| &site.upgrades.value);
    net::Params {
        connections_max: server.connections_max.value,
        headers_max: server.headers_max.value,
        header_bytes_max: bytes(server.header_bytes_max.value),
        header_timeout: server.header_timeout.value,
        idle_timeout: server.idle_timeout.value,
        body_read_timeout: server.body_read_timeout.value,
        write_timeout: server.write_timeout.value,
        handshake_timeout: server.handshake_timeout.value,
        drain_timeout: server.drain_timeout.value,
        proxy_protocol_from: networks(
            &server.proxy_protocol_from,
            "server.proxy_protocol_from",
            problems,
        ),
        http2: net::Http2 {
            clear_text: server.h2c.value,
            streams_max: count(server.http2_streams_max.value),
            stream_window: window(server.http2_stream_window.value),
            connection_window: window(server.http2_connection_window.value),
            resets_max: count(server.http2_resets_max.value),
            control_frames_max: count(server.http2_control_frames_max.value),
            extended_connect: upgrades.any(|name| name.eq_ignore_ascii_case("websocket")),
        },
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Windows end at 2³¹ − 1 (RFC 9113 §6.9.1).
fn window(bytes: u64) -> u32 {
    u32::try_from(bytes)
        .unwrap_or(u32::MAX)
        .min(i32::MAX as u32)
}

fn flow_params(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> flow::Params {
    let identifier = &file.server.identifier;
    if !is_token(&identifier.value) {
        let reason = "must be a letter followed by letters, digits and .:/_- only";
        problem(problems, identifier, "server.identifier", reason);
    }
    flow::Params {
        identifier: identifier.value.clone(),
        forwarded: ForwardedPolicy {
            trusted: networks(
                &file.server.trusted_proxies,
                "server.trusted_proxies",
                problems,
            ),
            told: file.server.forwarded.value,
            forwarded_field: file.server.forwarded_field.value,
        },
        https_port: u16::try_from(file.server.https_port.value).unwrap_or(u16::MAX),
        hops_max: file.server.hops_max.value,
        via_response: file.server.via_response.value,
        cache_status_key: file.server.cache_status_key.value,
        debug: None,
        upstreams: upstreams(file, folder, problems),
        sites: sites(file, problems),
        routes: routes(file, problems),
        request: request::Params {
            body_bytes_max: file.server.body_bytes_max.value,
            target_bytes_max: bytes(file.server.target_bytes_max.value),
        },
        memory_bytes_max: file.cache.memory_bytes_max.value,
        fill_bytes_max: file.cache.fill_bytes_max.value,
        scrub_bytes_per_second: file.cache.scrub_bytes_per_second.value,
        followers_max: file.cache.followers_max.value,
        hit_for_miss: file.cache.hit_for_miss.value,
        tries_max: file.server.tries_max.value,
        upgrades_max: file.server.upgrades_max.value,
        upgrade_idle_timeout: file.server.upgrade_idle_timeout.value,
        traces: file.traces.enabled.value.then_some(TracePolicy {
            one_in: file.traces.one_in.value as u64,
        }),
        variants_max: file.cache.variants_max.value,
        eviction: eviction_params(&file.cache),
    }
}

fn eviction_params(cache: &keys::Cache) -> eviction::Params {
    let percent = cache.second_request_percent.value as u64;
    eviction::Params {
        favour: cache.favour.value,
        second_request_over: disk_bytes_max(cache) / 100 * percent,
    }
}

/// The limits of all directories together.
fn disk_bytes_max(cache: &keys::Cache) -> u64 {
    match cache.dirs.value.as_slice() {
        [] => cache.disk_bytes_max.value,
        dirs => dirs
            .iter()
            .fold(0, |sum, dir| sum.saturating_add(dir.disk_bytes_max)),
    }
}

/// The store's directories: `dirs`, or else the one that `dir` names.
fn store_dirs(
    cache: &keys::Cache,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<store::Params> {
    if cache.dirs.value.is_empty() {
        return vec![store::Params {
            dir: folder.join(&cache.dir.value),
            disk_bytes_max: cache.disk_bytes_max.value,
        }];
    }
    let key = "cache.dirs";
    if cache.dir.line.is_some() || cache.disk_bytes_max.line.is_some() {
        let reason = "takes the place of cache.dir and cache.disk_bytes_max: leave these out";
        problem(problems, &cache.dirs, key, reason);
    }
    let dirs = cache.dirs.value.iter().map(|dir| store::Params {
        dir: folder.join(&dir.path),
        disk_bytes_max: dir.disk_bytes_max,
    });
    let dirs: Vec<store::Params> = dirs.collect();
    for (number, dir) in dirs.iter().enumerate() {
        let own = settled(&dir.dir);
        for other in dirs.iter().skip(number + 1) {
            let other = settled(&other.dir);
            if own.starts_with(&other) || other.starts_with(&own) {
                let reason = format!(
                    "{} and {} are the same directory, or one lies in the other",
                    own.display(),
                    other.display()
                );
                problem(problems, &cache.dirs, key, &reason);
            }
        }
    }
    dirs
}

/// A path without links and detours, as far as it exists.
fn settled(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => settled(parent).join(name),
        (Some(parent), Some(Component::ParentDir)) => {
            let mut above = settled(parent);
            above.pop();
            above
        }
        (Some(parent), Some(Component::CurDir)) => settled(parent),
        _ => path.to_path_buf(),
    }
}

fn sites(file: &File, problems: &mut Vec<Problem>) -> Vec<flow::Site> {
    if file.sites.is_empty() {
        missing(problems, "site", "there must be at least one [[site]]");
    }
    let mut sites = Vec::new();
    for (number, site) in file.sites.iter().enumerate() {
        let purge_from = networks(
            &site.purge_from,
            &format!("site[{number}].purge_from"),
            problems,
        );
        sites.push(flow::Site {
            name: site_name(site),
            hsts: hsts(site, number, problems),
            upstream: upstream_of(file, site, number, problems),
            key: key_policy(site, number, problems),
            guard: GuardPolicy {
                purge_from,
                purge_kinds: site.purge_kinds.value,
                purge_path: purge_path(site, number, problems),
                certificate: certificate_policy(site),
                redirect_https: site.redirect_https.value,
            },
            store: store_policy(file, site, number, problems),
            targeted_pass: site.targeted_pass.value,
            tags: tag_policy(site, number, problems),
            client_cache_control: site.client_cache_control.value,
            range_fetch: site.range_fetch.value,
            upgrades: protocols(site, number, problems),
        });
    }
    sites
}

/// The path under which a GET purges.
fn purge_path(site: &keys::Site, number: usize, problems: &mut Vec<Problem>) -> String {
    let path = site.purge_path.value.clone();
    let plain = |c: char| c.is_ascii_graphic() && !"?#%".contains(c);
    let good = path.is_empty()
        || (path.starts_with('/') && !path.ends_with('/') && path.chars().all(plain));
    if !good {
        problems.push(Problem {
            line: site.purge_path.line,
            key: format!("site[{number}].purge_path"),
            reason: "must be a path such as \"/purge\", without a slash at its end".to_owned(),
        });
    }
    path
}

/// A site goes by the first of its hosts; no other has that one.
pub(super) fn site_name(site: &keys::Site) -> String {
    let first = site.hosts.value.first();
    first
        .map(|host| host.to_ascii_lowercase())
        .unwrap_or_default()
}

fn certificate_policy(site: &keys::Site) -> Option<CertificatePolicy> {
    let required = match site.client_certificate.value {
        ClientCertificate::Off => return None,
        ClientCertificate::Optional => false,
        ClientCertificate::Required => true,
    };
    let site = site_name(site).into();
    Some(CertificatePolicy { site, required })
}

/// The protocols that a site lets through.
fn protocols(
    site: &keys::Site,
    number: usize,
    problems: &mut Vec<Problem>,
) -> Vec<upgrade::Protocol> {
    let key = format!("site[{number}].upgrades");
    let mut protocols = Vec::new();
    for name in &site.upgrades.value {
        match upgrade::Protocol::new(name) {
            Some(protocol) => protocols.push(protocol),
            None => {
                let reason = format!("{name:?} is not a protocol that can be let through");
                problem(problems, &site.upgrades, &key, &reason);
            }
        }
    }
    protocols
}

/// What the site says in Strict-Transport-Security (RFC 6797 §6.1).
fn hsts(site: &keys::Site, number: usize, problems: &mut Vec<Problem>) -> Option<HeaderValue> {
    let (subdomains, preload) = (&site.hsts_subdomains, &site.hsts_preload);
    if site.hsts.value.is_zero() {
        let lost = [(subdomains, "hsts_subdomains"), (preload, "hsts_preload")];
        for (flag, name) in lost.into_iter().filter(|(flag, _)| flag.value) {
            let key = format!("site[{number}].{name}");
            problem(problems, flag, &key, "means nothing without hsts");
        }
        return None;
    }
    let mut text = format!("max-age={}", site.hsts.value.as_secs());
    if subdomains.value {
        text.push_str("; includeSubDomains");
    }
    if preload.value {
        text.push_str("; preload");
    }
    HeaderValue::from_str(&text).ok()
}

fn store_policy(
    file: &File,
    site: &keys::Site,
    number: usize,
    problems: &mut Vec<Problem>,
) -> StorePolicy {
    let key = format!("site[{number}].targeted");
    let identifier = &file.server.identifier.value;
    let targeted = field_names(&site.targeted, &key, problems)
        .into_iter()
        .map(|name| Targeted::new(name, identifier));
    StorePolicy {
        set_cookie: site.store_set_cookie.value,
        close_delimited: site.store_close_delimited.value,
        heuristic_max: site.heuristic_max.value,
        stale_while_revalidate: site.stale_while_revalidate.value,
        stale_if_error: site.stale_if_error.value,
        spent: site.client_cache_control.value == ClientCacheControl::Honour,
        targeted: targeted.collect(),
    }
}

/// What a site takes for tags.
fn tag_policy(site: &keys::Site, number: usize, problems: &mut Vec<Problem>) -> TagPolicy {
    let key = format!("site[{number}].tag_fields");
    TagPolicy {
        fields: field_names(&site.tag_fields, &key, problems),
        pass: site.tag_fields_pass.value,
    }
}

/// What goes into a site's keys.
fn key_policy(site: &keys::Site, number: usize, problems: &mut Vec<Problem>) -> KeyPolicy {
    let mut drop = site.key_query_drop.value.clone();
    for name in &drop {
        if name.is_empty() || name.contains(['&', '=', '?', '#']) {
            let reason = format!("{name:?} is not the name of a parameter");
            let key = format!("site[{number}].key_query_drop");
            problem(problems, &site.key_query_drop, &key, &reason);
        }
    }
    if site.key_query_drop_tracking.value {
        drop.extend(TRACKING.iter().map(|name| (*name).to_owned()));
    }
    let key = format!("site[{number}].key_headers");
    let mut selecting = field_names(&site.key_headers, &key, problems);
    let unseen = |name: &&HeaderName| is_unseen(name) || is_own_name(name);
    if let Some(unseen) = selecting.iter().find(unseen) {
        let reason = format!("requests cannot be told apart by {unseen}");
        problem(problems, &site.key_headers, &key, &reason);
    }
    for cookie in &site.key_cookies.value {
        match cookie_field(cookie) {
            Some(field) => selecting.push(field),
            None => {
                let reason = format!("{cookie:?} is not the name of a cookie");
                let key = format!("site[{number}].key_cookies");
                problem(problems, &site.key_cookies, &key, &reason);
            }
        }
    }
    if site.client_certificate.value != ClientCertificate::Off && site.key_client.value {
        selecting.extend([identity::SUBJECT, identity::ALTERNATIVES]);
    }
    selecting.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    selecting.dedup();
    KeyPolicy {
        scheme: site.key_scheme.value,
        port: site.key_port.value,
        query: QueryPolicy {
            query: site.key_query.value,
            drop,
        },
        selecting,
        best_language: site.select_by_content_language.value,
        no_vary_search: site.no_vary_search.value,
    }
}

/// Finds the place of a site's upstream in the list.
fn upstream_of(
    file: &File,
    site: &keys::Site,
    number: usize,
    problems: &mut Vec<Problem>,
) -> usize {
    let wanted = site.upstream.value.as_str();
    let names = || file.upstreams.iter().map(|(name, _)| name.as_str());
    if let Some(place) = names().position(|name| name == wanted) {
        return place;
    }
    // Without any upstream there is a problem that says so already.
    if !file.upstreams.is_empty() {
        let hint = match nearest(wanted, names()) {
            Some(name) => format!("; did you mean {name:?}?"),
            None => format!("; there is {}", names().collect::<Vec<_>>().join(", ")),
        };
        let line = site.upstream.line.or(site.line);
        let reason = format!("there is no [upstream.{wanted}]{hint}");
        problems.push(Problem {
            line,
            key: format!("site[{number}].upstream"),
            reason,
        });
    }
    0
}

fn routes(file: &File, problems: &mut Vec<Problem>) -> Routes {
    let mut first_use = HashMap::new();
    let mut patterns = Vec::new();
    for (number, site) in file.sites.iter().enumerate() {
        let key = format!("site[{number}].hosts");
        let Ok(id) = u16::try_from(number) else {
            problem(problems, &site.hosts, &key, "there are too many sites");
            break;
        };
        for host in &site.hosts.value {
            let host = host.to_ascii_lowercase();
            if let Some(before) = first_use.insert(host.clone(), number) {
                let reason = format!("{host:?} is a host of site[{before}] already");
                problem(problems, &site.hosts, &key, &reason);
                continue;
            }
            match Routes::new([(host.clone(), SiteId(id))]) {
                Ok(_) => patterns.push((host, SiteId(id))),
                Err(_) => {
                    let reason = format!("{host:?} is not a host name, \"*.example.com\" or \"*\"");
                    problem(problems, &site.hosts, &key, &reason);
                }
            }
        }
    }
    Routes::new(patterns).unwrap_or_else(|pattern| {
        missing(
            problems,
            "site.hosts",
            &format!("{pattern:?} cannot be a host"),
        );
        Routes::default()
    })
}

fn networks(given: &Given<Vec<String>>, key: &str, problems: &mut Vec<Problem>) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in &given.value {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(_) => {
                let reason = format!("{text:?} is not an address block such as \"10.0.0.0/8\"");
                problem(problems, given, key, &reason);
            }
        }
    }
    networks
}

fn field_names(
    given: &Given<Vec<String>>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for text in &given.value {
        match text.parse() {
            Ok(name) => names.push(name),
            Err(_) => problem(
                problems,
                given,
                key,
                &format!("{text:?} is not a field name"),
            ),
        }
    }
    names
}

fn upstreams(
    file: &File,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<(String, upstream::Params)> {
    if file.upstreams.is_empty() {
        missing(
            problems,
            "upstream",
            "there must be at least one [upstream.NAME]",
        );
    }
    let mut upstreams = Vec::new();
    for (name, upstream) in &file.upstreams {
        let key = format!("upstream.{name}.backends");
        let security = security(name, upstream, folder, problems);
        let params = upstream::Params {
            backends: backends(
                &upstream.backends,
                security.as_ref(),
                &key,
                folder,
                problems,
            ),
            connect_timeout: upstream.connect_timeout.value,
            first_byte_timeout: upstream.first_byte_timeout.value,
            between_bytes_timeout: upstream.between_bytes_timeout.value,
            connections_max: upstream.connections_max.value,
            queue_max: upstream.queue_max.value,
            idle_max: upstream.idle_max.value,
            refreshes_max: upstream.refreshes_max.value,
            idle_timeout: upstream.idle_timeout.value,
            headers_max: upstream.headers_max.value,
            header_bytes_max: bytes(upstream.header_bytes_max.value),
            protocol: upstream.protocol.value,
            streams_max: upstream.streams_max.value,
            stream_window_bytes: u32::try_from(upstream.stream_window_bytes.value)
                .unwrap_or(u32::MAX),
            ping_interval: upstream.ping_interval.value,
            ping_timeout: upstream.ping_timeout.value,
        };
        upstreams.push((name.clone(), params));
    }
    upstreams
}

/// Reads what TLS to an upstream's backends takes; none when no backend is spoken to with TLS, or
/// when something is wrong with it.
fn security(
    name: &str,
    upstream: &keys::Upstream,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Security>> {
    let secured = |text: &String| text.starts_with("https://");
    let mut refuse = |given: &Given<String>, key: &str, reason: &str| {
        problem(problems, given, &format!("upstream.{name}.{key}"), reason);
    };
    let (chain, key) = (&upstream.client_certificate, &upstream.client_key);
    if !upstream.backends.value.iter().any(secured) {
        for (given, key) in [
            (&upstream.ca, "ca"),
            (&upstream.server_name, "server_name"),
            (chain, "client_certificate"),
            (key, "client_key"),
        ] {
            if !given.value.is_empty() {
                refuse(given, key, "means nothing without an https backend");
            }
        }
        return None;
    }
    match (chain.value.is_empty(), key.value.is_empty()) {
        (false, true) => refuse(chain, "client_certificate", "needs client_key"),
        (true, false) => refuse(key, "client_key", "needs client_certificate"),
        (true, true) | (false, false) => {}
    }
    let given = |given: &Given<String>| Some(given.value.clone()).filter(|text| !text.is_empty());
    let file = |text: &Given<String>| given(text).map(|text| folder.join(text));
    let made = Security::new(Settings {
        authorities: file(&upstream.ca),
        server_name: given(&upstream.server_name),
        client: file(chain).zip(file(key)),
        verify: upstream.verify.value,
    });
    match made {
        Ok(security) => return Some(Arc::new(security)),
        Err(error) => {
            let (given, key) = match &error {
                SecurityError::Authorities(_) => (&upstream.ca, "ca"),
                SecurityError::Client(_) => (chain, "client_certificate"),
                SecurityError::ServerName(_) => (&upstream.server_name, "server_name"),
            };
            refuse(given, key, &error.to_string());
        }
    }
    None
}

fn backends(
    given: &Given<Vec<String>>,
    security: Option<&Arc<Security>>,
    key: &str,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Vec<Backend> {
    let mut backends = Vec::new();
    for text in &given.value {
        match backend(text, security, folder) {
            // What TLS takes is wrong, and has been reported.
            Ok(None) => {}
            Ok(Some(backend)) if backends.contains(&backend) => {
                problem(problems, given, key, &format!("{text:?} is there twice"));
            }
            Ok(Some(backend)) => backends.push(backend),
            Err(reason) => problem(problems, given, key, &reason),
        }
    }
    let files = backends
        .iter()
        .filter(|backend| matches!(backend, Backend::File(_)));
    if files.count() > 0 && backends.len() > 1 {
        problem(problems, given, key, "a file: backend must be the only one");
    }
    backends
}

/// Reads `http://host:port`, `http://host`, the same with `https`, or `file:PATH`.
fn backend(
    text: &str,
    security: Option<&Arc<Security>>,
    folder: &Path,
) -> Result<Option<Backend>, String> {
    if let Some(path) = text.strip_prefix("file:") {
        let path = folder.join(path);
        return match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Some(Backend::File(path))),
            Ok(_) => Err(format!("{} is not a folder", path.display())),
            Err(error) => Err(format!(
                "could not open the folder {}: {error}",
                path.display()
            )),
        };
    }
    let malformed =
        || format!("{text:?} is not \"http://host:port\", \"https://host:port\" or \"file:PATH\"");
    let (rest, usual_port) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        (None, Some(rest)) => (rest, 443),
        (None, None) => return Err(malformed()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: http::uri::Authority = rest.parse().map_err(|_| malformed())?;
    if authority.as_str().contains('@') {
        return Err(malformed());
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let port_given = authority.as_str().len() > authority.host().len();
    let port = match authority.port_u16() {
        Some(0) => return Err(malformed()),
        Some(port) => port,
        None if port_given => return Err(malformed()),
        None => usual_port,
    };
    if host.is_empty() {
        return Err(malformed());
    }
    let host = host.to_owned();
    if text.starts_with("http://") {
        return Ok(Some(Backend::Http { host, port }));
    }
    Ok(security.map(|security| Backend::Https {
        host,
        port,
        security: Arc::clone(security),
    }))
}

fn tls_params(
    file: &File,
    folder: &Path,
    flow: &flow::Params,
    problems: &mut Vec<Problem>,
) -> tls::Params {
    let tls = &file.tls;
    tls::Params {
        certificates: certificates(file, folder, problems),
        obtains: file.acme.enabled.value,
        unknown_name: tls.unknown_name.value,
        alpn: alpn(&tls.alpn, problems),
        version_min: tls.version_min.value,
        ticket_rotation: tls.ticket_rotation.value,
        handshakes_max: tls.handshakes_max.value,
        routes: flow.routes.clone(),
        clients: client_rules(file, folder, flow, problems),
    }
}

fn alpn(given: &Given<Vec<String>>, problems: &mut Vec<Problem>) -> Vec<Protocol> {
    let mut protocols = Vec::new();
    for text in &given.value {
        let known = [Protocol::Http1, Protocol::Http2]
            .into_iter()
            .find(|protocol| protocol.as_str() == text);
        match known {
            Some(protocol) if !protocols.contains(&protocol) => protocols.push(protocol),
            Some(_) => problem(
                problems,
                given,
                "tls.alpn",
                &format!("{text:?} is there twice"),
            ),
            None => {
                let reason = format!("{text:?} is neither \"h2\" nor \"http/1.1\"");
                problem(problems, given, "tls.alpn", &reason);
            }
        }
    }
    protocols
}

fn certificates(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Vec<tls::Files> {
    let mut sets = Vec::new();
    for (number, certificate) in file.certificates.iter().enumerate() {
        let (cert, key) = (&certificate.cert.value, &certificate.key.value);
        let ocsp = Some(&certificate.ocsp.value).filter(|ocsp| !ocsp.is_empty());
        let files = tls::Files {
            cert: folder.join(cert),
            key: folder.join(key),
            staple: ocsp.map(|ocsp| folder.join(ocsp)),
        };
        // Files that were not named have been reported when the section was read.
        if !cert.is_empty()
            && !key.is_empty()
            && let Err(error) = tls::check_files(&files)
        {
            let key = format!("tls.certificate[{number}]");
            problems.push(Problem {
                line: certificate.line,
                key,
                reason: error.to_string(),
            });
        }
        sets.push(files);
    }
    sets
}

fn client_rules(
    file: &File,
    folder: &Path,
    flow: &flow::Params,
    problems: &mut Vec<Problem>,
) -> Vec<(SiteId, tls::ClientRules)> {
    let mut all = Vec::new();
    for (number, (site, planned)) in file.sites.iter().zip(&flow.sites).enumerate() {
        let authorities = &site.client_authorities;
        let place = format!("site[{number}].client_authorities");
        let Some(policy) = planned.guard.certificate.clone() else {
            if !authorities.value.is_empty() {
                let reason = "means nothing while client_certificate is \"off\"";
                problem(problems, authorities, &place, reason);
            }
            continue;
        };
        let rules = tls::ClientRules {
            policy,
            authorities: folder.join(&authorities.value),
        };
        let given = &site.client_certificate;
        let key = format!("site[{number}].client_certificate");
        if authorities.value.is_empty() {
            problem(problems, given, &key, "needs client_authorities");
        } else if let Err(error) = tls::check_authorities(&rules) {
            problem(problems, authorities, &place, &error.to_string());
        }
        if file.server.https.value.is_empty() {
            problem(problems, given, &key, "needs an address in server.https");
        }
        if let Ok(number) = u16::try_from(number) {
            all.push((SiteId(number), rules));
        }
    }
    all
}

fn log(log: &keys::Log, folder: &Path, problems: &mut Vec<Problem>) -> Log {
    let mut fields = Vec::new();
    for name in &log.fields.value {
        match Field::named(name) {
            Some(field) => fields.push(field),
            None => {
                let known = Field::ALL.iter().map(|field| field.name);
                let hint = match nearest(name, known) {
                    Some(field) => format!("; did you mean {field:?}?"),
                    None => String::new(),
                };
                let reason = format!("{name:?} is no field of the w3c form{hint}");
                problem(problems, &log.fields, "log.fields", &reason);
            }
        }
    }
    let destination = destination(&log.access.value, log.syslog_facility.value, folder);
    let destination = destination.unwrap_or_else(|reason| {
        problem(problems, &log.access, "log.access", &reason);
        Destination::Off
    });
    Log {
        level: log.level.value,
        access: access_log::Params {
            destination,
            format: log.format.value,
            fields,
        },
    }
}

/// Reads where spans go; nowhere unless there are any.
fn traces(traces: &keys::Traces, problems: &mut Vec<Problem>) -> Option<traces::Params> {
    if !traces.enabled.value {
        return None;
    }
    let endpoint = traces.endpoint.value.parse::<Uri>().ok();
    let http = |endpoint: &Uri| {
        endpoint.scheme() == Some(&Scheme::HTTP)
            && endpoint.host().is_some_and(|host| !host.is_empty())
    };
    let Some(endpoint) = endpoint.filter(http) else {
        let reason = "is not a url like \"http://127.0.0.1:4318/v1/traces\"";
        problem(problems, &traces.endpoint, "traces.endpoint", reason);
        return None;
    };
    Some(traces::Params {
        endpoint,
        service: traces.service.value.clone(),
    })
}

/// Reads where the access log goes.
fn destination(access: &str, facility: Facility, folder: &Path) -> Result<Destination, String> {
    let Some(collector) = access.strip_prefix("syslog:") else {
        return Ok(match access {
            "off" | "" => Destination::Off,
            "stdout" => Destination::Stdout,
            path => Destination::File(folder.join(path)),
        });
    };
    let collector = match collector.strip_prefix("//") {
        None if collector.starts_with('/') => Collector::Socket(PathBuf::from(collector)),
        Some(name) if is_host_and_port(name) => Collector::Udp(name.to_owned()),
        None | Some(_) => {
            let forms = "\"syslog:/dev/log\" nor \"syslog://host:514\"";
            return Err(format!("{access:?} is neither like {forms}"));
        }
    };
    Ok(Destination::Syslog(collector, facility))
}

/// Does it name a host, or an address, and a port?
fn is_host_and_port(name: &str) -> bool {
    let Some((host, port)) = name.rsplit_once(':') else {
        return false;
    };
    let bare = !host.contains([':', '/', '@', ' ']);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    !host.is_empty() && (bare || bracketed) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn addresses(
    given: &Given<Vec<String>>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for text in &given.value {
        match address(text) {
            Ok(address) => addresses.push(address),
            Err(reason) => problem(problems, given, key, &reason),
        }
    }
    addresses
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address with a port, such as \"127.0.0.1:8080\""))
}

/// Reports addresses that two listeners want. Port 0 is a different port each time.
fn listeners_apart(
    http: &[SocketAddr],
    https: &[SocketAddr],
    admin: Option<&Admin>,
    file: &File,
    problems: &mut Vec<Problem>,
) {
    let mut taken = HashSet::new();
    let http = http
        .iter()
        .map(|address| (address, "server.http", file.server.http.line));
    let https = https
        .iter()
        .map(|address| (address, "server.https", file.server.https.line));
    let admin = admin.map(|admin| (&admin.listen, "admin.listen", file.admin.listen.line));
    for (address, key, line) in http.chain(https).chain(admin) {
        if address.port() != 0 && !taken.insert(*address) {
            let reason = format!("{address} is listened on twice");
            problems.push(Problem {
                line,
                key: key.to_owned(),
                reason,
            });
        }
    }
}

pub(super) fn problem<T>(problems: &mut Vec<Problem>, given: &Given<T>, key: &str, reason: &str) {
    let problem = Problem {
        line: given.line,
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    problems.push(problem);
}

fn missing(problems: &mut Vec<Problem>, key: &str, reason: &str) {
    let problem = Problem {
        line: None,
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    problems.push(problem);
}

/// Is this a token of structured fields (RFC 8941 §3.3.4), as Cache-Status needs?
fn is_token(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || ".:/_-".contains(c))
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "[upstream.main]\nbackends = [\"http://127.0.0.1:3000\"]\n[[site]]\n";

    fn check(text: &str) -> (Plan, Vec<String>) {
        let (file, mut problems) = File::read(text);
        let plan = Plan::check(&file, Path::new("/nowhere"), &mut problems);
        let texts = problems
            .iter()
            .map(|problem| problem.in_file("t".as_ref()))
            .collect();
        (plan, texts)
    }

    fn problems(text: &str) -> Vec<String> {
        check(text).1
    }

    /// The problems of a config that would be right without `text`.
    fn problems_with(text: &str) -> Vec<String> {
        problems(&format!("{text}\n{SITE}"))
    }

    /// What is wrong with one backend.
    fn problem_of_backend(backend: &str) -> String {
        problems(&format!(
            "[upstream.main]\nbackends = [{backend:?}]\n[[site]]\n"
        ))
        .concat()
    }

    #[test]
    fn a_field_of_the_access_log_that_does_not_exist_suggests_the_nearest() {
        let found = problems_with("[log]\nfields = [\"c-ip\", \"sc-statis\"]");
        let expected = "t:2: log.fields: \"sc-statis\" is no field of the w3c form; \
                        did you mean \"sc-status\"?";
        assert_eq!(found, [expected]);
        let found = problems_with("[log]\nfields = [\"cs(Cookie)\"]").concat();
        assert!(found.contains("\"cs(Cookie)\" is no field"), "{found}");
    }

    #[test]
    fn the_access_log_goes_to_a_file_or_a_syslog() {
        let to = |access: &str| {
            let (plan, problems) = check(&format!("[log]\naccess = {access:?}\n{SITE}"));
            (plan.log.access.destination, problems.concat())
        };
        let syslog = |collector| Destination::Syslog(collector, Facility::Local7);
        for (access, expected) in [
            ("off", Destination::Off),
            ("stdout", Destination::Stdout),
            ("a.log", Destination::File(PathBuf::from("/nowhere/a.log"))),
            (
                "syslog:/dev/log",
                syslog(Collector::Socket("/dev/log".into())),
            ),
            ("syslog://h:514", syslog(Collector::Udp("h:514".to_owned()))),
            (
                "syslog://[::1]:514",
                syslog(Collector::Udp("[::1]:514".to_owned())),
            ),
        ] {
            assert_eq!(to(access), (expected, String::new()));
        }
        for access in [
            "syslog:",
            "syslog:log",
            "syslog://",
            "syslog://h",
            "syslog://h:0",
            "syslog://::1:5",
        ] {
            let (_, problems) = to(access);
            assert!(problems.contains("log.access"), "{access}: {problems}");
        }
    }

    #[test]
    fn two_sections_are_enough() {
        let (plan, problems) = check(SITE);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(plan.http, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(plan.store[0].dir, Path::new("/nowhere/cache-dir"));
        assert_eq!(plan.admin.unwrap().listen.port(), 8081);
        assert_eq!(plan.flow.sites.len(), 1);
        let backend = Backend::Http {
            host: "127.0.0.1".to_owned(),
            port: 3000,
        };
        assert_eq!(plan.flow.upstreams.first().unwrap().1.backends, [backend]);
    }

    #[test]
    fn an_empty_file_lacks_an_upstream_and_a_site() {
        assert_eq!(
            problems(""),
            [
                "t: upstream: there must be at least one [upstream.NAME]",
                "t: site: there must be at least one [[site]]",
            ]
        );
    }

    #[test]
    fn an_unknown_upstream_suggests_the_nearest() {
        assert_eq!(
            problems(&format!("{SITE}upstream = \"mian\"\n")),
            ["t:4: site[0].upstream: there is no [upstream.mian]; did you mean \"main\"?"]
        );
        assert_eq!(
            problems(&format!("{SITE}upstream = \"x\"\n")),
            ["t:4: site[0].upstream: there is no [upstream.x]; there is main"]
        );
    }

    #[test]
    fn a_host_belongs_to_one_site() {
        let hosts = "hosts = [\"a.example\"]\n[[site]]\nhosts = [\"A.EXAMPLE\", \"b.example\"]\n";
        assert_eq!(
            problems(&format!("{SITE}{hosts}")),
            ["t:6: site[1].hosts: \"a.example\" is a host of site[0] already"]
        );
    }

    #[test]
    fn what_is_no_host_is_a_problem() {
        let found = problems(&format!("{SITE}hosts = [\"*.*\", \"a b\", \"http://a\"]\n"));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn an_admin_listener_that_others_can_reach_needs_a_token() {
        assert_eq!(
            problems_with("[admin]\nlisten = \"0.0.0.0:8081\""),
            ["t:2: admin.listen: is not loopback: give token_file too"]
        );
    }

    #[test]
    fn whoever_may_ask_how_a_response_came_about_needs_a_token() {
        let found = problems_with("[admin]\ndebug_token_file = \"token\"").concat();
        let wanted = "t:2: admin.debug_token_file: could not read /nowhere/token";
        assert!(found.starts_with(wanted), "{found}");
        assert_eq!(
            problems_with("[admin]\ndebug_field = \"a b\""),
            ["t:2: admin.debug_field: \"a b\" is not a field name"]
        );
    }

    #[test]
    fn a_token_file_must_be_readable() {
        let found = problems_with("[admin]\ntoken_file = \"token\"").concat();
        assert!(
            found.starts_with("t:2: admin.token_file: could not read /nowhere/token"),
            "{found}"
        );
    }

    #[test]
    fn there_may_be_no_admin_listener() {
        let (plan, problems) = check(&format!("[admin]\nlisten = \"\"\n{SITE}"));
        assert_eq!(problems, Vec::<String>::new());
        assert!(plan.admin.is_none());
    }

    #[test]
    fn https_needs_a_certificate() {
        assert_eq!(
            problems_with("[server]\nhttps = [\"127.0.0.1:8443\"]"),
            ["t:2: server.https: needs at least one [[tls.certificate]], or [tls.acme]"]
        );
    }

    #[test]
    fn a_certificate_must_be_readable() {
        let found =
            problems_with("[[tls.certificate]]\ncert = \"c.pem\"\nkey = \"k.pem\"").concat();
        assert!(found.starts_with("t:1: tls.certificate[0]: "), "{found}");
        assert!(found.contains("/nowhere/c.pem"), "{found}");
    }

    #[test]
    fn what_clients_are_asked_for_needs_authorities_and_tls() {
        let found = problems(&format!("{SITE}client_certificate = \"required\"\n"));
        assert_eq!(
            found,
            [
                "t:4: site[0].client_certificate: needs client_authorities",
                "t:4: site[0].client_certificate: needs an address in server.https",
            ]
        );
        let found = problems(&format!("{SITE}client_authorities = \"ca.pem\"\n"));
        assert_eq!(
            found,
            ["t:4: site[0].client_authorities: means nothing while client_certificate is \"off\""]
        );
    }

    #[test]
    fn strict_transport_security_is_written_as_its_rfc_says() {
        let said = |text: &str| {
            let (plan, problems) = check(&format!("{SITE}{text}"));
            assert_eq!(problems, Vec::<String>::new());
            plan.flow.sites.first().unwrap().hsts.clone()
        };
        assert_eq!(said(""), None);
        assert_eq!(said("hsts = \"1h\"\n").unwrap(), "max-age=3600");
        assert_eq!(
            said("hsts = \"1d\"\nhsts_subdomains = true\nhsts_preload = true\n").unwrap(),
            "max-age=86400; includeSubDomains; preload"
        );
        assert_eq!(
            problems(&format!("{SITE}hsts_preload = true\n")),
            ["t:4: site[0].hsts_preload: means nothing without hsts"]
        );
    }

    #[test]
    fn protocols_are_offered_in_the_order_given() {
        let (plan, _) = check(&format!("[tls]\nalpn = [\"http/1.1\", \"h2\"]\n{SITE}"));
        assert_eq!(plan.tls().alpn, [Protocol::Http1, Protocol::Http2]);
        assert_eq!(
            problems_with("[tls]\nalpn = [\"h3\", \"h2\"]"),
            ["t:2: tls.alpn: \"h3\" is neither \"h2\" nor \"http/1.1\""]
        );
        assert_eq!(
            problems_with("[tls]\nalpn = [\"h2\", \"h2\"]"),
            ["t:2: tls.alpn: \"h2\" is there twice"]
        );
    }

    #[test]
    fn an_address_is_listened_on_once() {
        assert_eq!(
            problems_with(
                "[server]\nhttp = [\"127.0.0.1:8081\", \"127.0.0.1:0\", \"127.0.0.1:0\"]"
            ),
            ["t: admin.listen: 127.0.0.1:8081 is listened on twice"]
        );
    }

    #[test]
    fn an_address_has_a_port() {
        let found = problems_with("[server]\nhttp = [\"localhost\", \":80\"]");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn http_2_is_spoken_in_clear_text_where_it_is_asked_for() {
        assert!(!check(SITE).0.net.http2.clear_text);
        let (plan, problems) = check(&format!("[server]\nh2c = true\n{SITE}"));
        assert_eq!(problems, Vec::<String>::new());
        assert!(plan.net.http2.clear_text);
    }

    #[test]
    fn tags_are_read_from_the_fields_that_a_site_names() {
        let text = "tag_fields = [\"X-Magento-Tags\", \"xkey\"]\ntag_fields_pass = true\n";
        let (plan, problems) = check(&format!("{SITE}{text}"));
        assert_eq!(problems, Vec::<String>::new());
        let tags = &plan.flow.sites.first().unwrap().tags;
        assert_eq!(tags.fields, ["x-magento-tags", "xkey"]);
        assert!(tags.pass);
        let (plan, _) = check(SITE);
        assert_eq!(plan.flow.sites.first().unwrap().tags, TagPolicy::default());
        assert_eq!(
            check(&format!("{SITE}tag_fields = [\"a b\"]\n")).1,
            ["t:4: site[0].tag_fields: \"a b\" is not a field name"]
        );
    }

    #[test]
    fn targeted_fields_know_what_origins_call_us() {
        let text = "targeted = [\"Surrogate-Control\", \"x-cache-control\"]\n";
        let (plan, problems) = check(&format!("[server]\nidentifier = \"edge\"\n{SITE}{text}"));
        assert_eq!(problems, Vec::<String>::new());
        let site = plan.flow.sites.first().unwrap();
        let wanted = ["surrogate-control", "x-cache-control"]
            .map(|name| Targeted::new(HeaderName::from_static(name), "edge"));
        assert_eq!(site.store.targeted, wanted);
        assert!(site.targeted_pass);
        let text = format!("{SITE}targeted = [\"a b\"]\n");
        assert_eq!(
            check(&text).1,
            ["t:4: site[0].targeted: \"a b\" is not a field name"]
        );
    }

    #[test]
    fn only_clients_that_are_honoured_are_kept_spent_responses_for() {
        let spent = |text: &str| {
            let (plan, _) = check(&format!("{SITE}{text}"));
            plan.flow.sites.first().unwrap().store.spent
        };
        assert!(!spent(""));
        assert!(spent("client_cache_control = \"honour\"\n"));
    }

    #[test]
    fn an_identifier_is_a_token() {
        for bad in ["", "a b", "1a", "a\u{e9}"] {
            assert_eq!(
                problems_with(&format!("[server]\nidentifier = {bad:?}")).len(),
                1,
                "{bad}"
            );
        }
    }

    #[test]
    fn backends_are_read_in_every_spelling() {
        let read = |text: &str| backend(text, None, Path::new("/nowhere"));
        let http = |host: &str, port| {
            Ok(Some(Backend::Http {
                host: host.to_owned(),
                port,
            }))
        };
        assert_eq!(read("http://a.example"), http("a.example", 80));
        assert_eq!(read("http://a.example:81/"), http("a.example", 81));
        assert_eq!(read("http://[::1]:82"), http("::1", 82));
    }

    #[test]
    fn what_is_no_backend_is_a_problem() {
        let cases = [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "http://a/path",
            "http://u@a",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://[::1",
            "http://a b",
            "https://",
            "https://a:",
            "https//a",
        ];
        for case in cases {
            let problem = problem_of_backend(case);
            assert!(
                problem.starts_with("t:2: upstream.main.backends: "),
                "{case}: {problem}"
            );
        }
    }

    /// An upstream with TLS that takes no file.
    fn secured(more: &str) -> String {
        format!(
            "[upstream.main]\nbackends = [\"https://a\", \"https://[::1]:9\"]\n{more}\n[[site]]\n"
        )
    }

    #[test]
    fn backends_with_tls_share_what_tls_takes() {
        let text = secured("verify = false\nserver_name = \"b\"");
        let (plan, problems) = check(&text);
        assert_eq!(problems, Vec::<String>::new());
        let mut found = Vec::new();
        for backend in &plan.flow.upstreams.first().unwrap().1.backends {
            let Backend::Https {
                host,
                port,
                security,
            } = backend
            else {
                panic!("{backend:?}");
            };
            assert!(!security.verifies());
            found.push((host.as_str(), *port));
        }
        assert_eq!(found, [("a", 443), ("::1", 9)]);
    }

    #[test]
    fn what_is_wrong_with_tls_is_told_of_its_key_and_once() {
        for (key, reason) in [
            (
                "ca = \"missing.pem\"",
                "ca: could not use /nowhere/missing.pem",
            ),
            (
                "server_name = \"a b\"",
                "server_name: \"a b\" is not a name",
            ),
            (
                "client_key = \"a.key\"",
                "client_key: needs client_certificate",
            ),
            (
                "client_certificate = \"a\"",
                "client_certificate: needs client_key",
            ),
        ] {
            let found = problems(&secured(&format!(
                "{key}\nverify = {}",
                key.starts_with("ca")
            )));
            assert_eq!(found.len(), 1, "{found:?}");
            let found = found.concat();
            assert!(
                found.starts_with(&format!("t:3: upstream.main.{reason}")),
                "{found}"
            );
        }
    }

    #[test]
    fn keys_of_tls_mean_nothing_in_clear_text() {
        let found = problems(&format!(
            "{SITE}[upstream.b]\nbackends = [\"http://b\"]\nca = \"a\"\n"
        ));
        assert_eq!(
            found,
            ["t:6: upstream.b.ca: means nothing without an https backend"]
        );
    }

    #[test]
    fn a_folder_must_be_there() {
        let problem = problem_of_backend("file:fixtures");
        assert!(
            problem.contains("could not open the folder /nowhere/fixtures: "),
            "{problem}"
        );
    }

    /// What is wrong with directories; `more` goes into the same section.
    fn problems_of_dirs(dirs: &str, more: &str) -> String {
        problems_with(&format!("[cache]\ndirs = [{dirs}]\n{more}")).concat()
    }

    fn one(path: &str) -> String {
        format!("{{ path = {path:?}, disk_bytes_max = \"64MiB\" }}")
    }

    #[test]
    fn several_directories_have_each_its_limit() {
        let dirs = format!("{}, {}", one("one"), one("/other"));
        let (plan, problems) = check(&format!("[cache]\ndirs = [{dirs}]\n{SITE}"));
        assert_eq!(problems, Vec::<String>::new());
        let paths: Vec<_> = plan.store.iter().map(|store| store.dir.as_path()).collect();
        assert_eq!(paths, [Path::new("/nowhere/one"), Path::new("/other")]);
        assert!(
            plan.store
                .iter()
                .all(|store| store.disk_bytes_max == 64 << 20)
        );
        assert_eq!(
            plan.flow.eviction.second_request_over,
            (128 << 20) / 100 * 10
        );
    }

    #[test]
    fn several_directories_take_the_place_of_the_one() {
        for more in ["dir = \"a\"", "disk_bytes_max = \"1GiB\""] {
            let found = problems_of_dirs(&one("one"), more);
            assert!(
                found.contains("cache.dirs: takes the place of cache.dir"),
                "{found}"
            );
        }
    }

    #[test]
    fn no_directory_is_there_twice_or_lies_in_another() {
        for (own, other) in [
            ("a", "a"),
            ("a", "b/../a"),
            ("a", "a/b"),
            ("/tmp/b/c", "/tmp/./b"),
        ] {
            let found = problems_of_dirs(&format!("{}, {}", one(own), one(other)), "");
            assert!(
                found.contains("the same directory, or one lies in the other"),
                "{found}"
            );
        }
        assert_eq!(
            problems_of_dirs(&format!("{}, {}", one("a"), one("ab")), ""),
            ""
        );
    }

    #[test]
    fn a_directory_has_a_path_and_a_limit() {
        for (dir, reason) in [
            ("{ path = \"a\" }", "must have a path and disk_bytes_max"),
            (
                "{ path = \"\", disk_bytes_max = \"64MiB\" }",
                "must have a path",
            ),
            (
                "{ path = \"a\", disk_bytes_max = \"1MiB\" }",
                "disk_bytes_max: 1MiB is out of bounds",
            ),
            ("{ path = \"a\", size = 1 }", "size: a directory has only"),
            ("\"a\"", "a list of directories"),
        ] {
            let found = problems_of_dirs(dir, "");
            assert!(found.contains(reason), "{found}");
        }
        assert!(
            problems_with("[cache]\ndirs = 1")
                .concat()
                .contains("a list of directories")
        );
    }

    #[test]
    fn a_folder_is_the_only_backend() {
        let text = "[upstream.main]\nbackends = [\"file:/\", \"http://a\"]\n[[site]]\n";
        assert_eq!(
            problems(text),
            ["t:2: upstream.main.backends: a file: backend must be the only one"]
        );
    }

    #[test]
    fn a_path_for_purges_is_a_path_without_its_last_slash() {
        for bad in ["purge", "/", "/purge/", "/pur ge", "/purge?x"] {
            let found = problems(&format!("{SITE}purge_path = {bad:?}\n"));
            assert!(
                found
                    .concat()
                    .contains("site[0].purge_path: must be a path"),
                "{bad}"
            );
        }
        assert_eq!(
            problems(&format!("{SITE}purge_path = \"/purge\"\n")),
            [""; 0]
        );
    }

    #[test]
    fn upgrades_are_to_protocols_that_carry_no_requests_past_us() {
        let found = problems(&format!("{SITE}upgrades = [\"websocket\", \"h2c\"]\n"));
        let expected = "t:4: site[0].upgrades: \"h2c\" is not a protocol that can be let through";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn balancers_are_address_blocks() {
        let found = problems_with("[server]\nproxy_protocol_from = [\"10.0.0.0/8\", \"lb\"]");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found
                .concat()
                .contains("server.proxy_protocol_from: \"lb\" is not")
        );
    }

    #[test]
    fn purges_come_from_address_blocks() {
        let found = problems(&format!(
            "{SITE}purge_from = [\"10.0.0.0/8\", \"::1\", \"ten\"]\n"
        ));
        assert_eq!(
            found,
            ["t:4: site[0].purge_from: \"ten\" is not an address block such as \"10.0.0.0/8\""]
        );
    }

    #[test]
    fn problems_of_values_and_between_values_are_found_together() {
        let found =
            problems_with("[server]\nworkers = -1\nhttp = [\"x\"]\n[admin]\nlisten = \"y\"");
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
