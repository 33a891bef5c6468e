//! Where certificates are obtained, and for which names: `[tls.acme]` made sense of.

use super::Problem;
use super::file::File;
use super::plan::problem;
use crate::acme;
use crate::acme::Binding;
use crate::rules::challenge::is_provable;
use crate::rules::route::Routes;
use crate::rules::route::SiteId;
use crate::state::orders;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// What is obtained, where, and within which bounds.
#[derive(Clone, Debug)]
pub struct Acme {
    /// The authority.
    pub authority: acme::Params,
    /// Bounds on orders.
    pub orders: orders::Params,
    /// The sites' names.
    pub names: BTreeSet<String>,
    /// More names that clients may ask for.
    pub ask: Arc<Routes>,
}

impl Acme {
    /// Checks the section; none when nothing is to be obtained.
    pub(super) fn check(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Option<Self> {
        let keys = &file.acme;
        if !keys.enabled.value {
            return None;
        }
        if file.server.https.value.is_empty() {
            let reason = "needs an address in server.https";
            problem(problems, &keys.enabled, "tls.acme.enabled", reason);
        }
        if !keys.terms_agreed.value {
            let reason = "must be true: read the terms of service that the authority names";
            problem(
                problems,
                &keys.terms_agreed,
                "tls.acme.terms_agreed",
                reason,
            );
        }
        let directory = &keys.directory;
        let url = directory.value.parse::<http::Uri>().ok();
        let https = url.filter(|url| url.scheme_str() == Some("https") && url.host().is_some());
        if https.is_none() {
            problem(
                problems,
                directory,
                "tls.acme.directory",
                "is not an https url",
            );
        }
        for contact in &keys.contact.value {
            if !contact.strip_prefix("mailto:").is_some_and(is_mailbox) {
                let reason = format!("{contact:?} is not like \"mailto:admin@example.com\"");
                problem(problems, &keys.contact, "tls.acme.contact", &reason);
            }
        }
        if keys.retry_min.value > keys.retry_max.value {
            let reason = "is longer than retry_max";
            problem(problems, &keys.retry_min, "tls.acme.retry_min", reason);
        }
        if file.server.http.value.is_empty() && keys.challenge.value == acme::Challenge::Http01 {
            let reason = "\"http-01\" needs an address in server.http";
            problem(problems, &keys.challenge, "tls.acme.challenge", reason);
        }
        let hosts = file.sites.iter().flat_map(|site| &site.hosts.value);
        let hosts = hosts.map(|host| host.to_ascii_lowercase());
        Some(Self {
            authority: acme::Params {
                directory: directory.value.clone(),
                contact: keys.contact.value.clone(),
                dir: folder.join(&keys.dir.value),
                challenge: keys.challenge.value,
                roots: roots(file, folder, problems),
                binding: binding(file, folder, problems),
                order_timeout: keys.order_timeout.value,
            },
            orders: orders::Params {
                names_max: keys.names_max.value,
                orders_max: keys.orders_max.value,
                wait_min: keys.retry_min.value,
                wait_max: keys.retry_max.value,
                asked_per_hour: keys.ask_per_hour.value,
            },
            names: hosts.filter(|host| is_provable(host)).collect(),
            ask: Arc::new(ask(file, problems)),
        })
    }
}

/// Has one `@` with something that is no space on both sides; the authority knows better.
fn is_mailbox(text: &str) -> bool {
    let sides = text.split_once('@');
    sides.is_some_and(|(user, host)| {
        let fits =
            |side: &str| !side.is_empty() && side.bytes().all(|byte| byte.is_ascii_graphic());
        fits(user) && fits(host)
    })
}

fn ask(file: &File, problems: &mut Vec<Problem>) -> Routes {
    let given = &file.acme.ask;
    let names: BTreeSet<String> = given
        .value
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let sound = |name: &String| {
        let whole = name.strip_prefix("*.").unwrap_or(name);
        // Whatever `*.` may stand for is a label or more before it.
        is_provable(whole) || (whole != name && is_provable(&format!("a.{whole}")))
    };
    for wrong in names.iter().filter(|name| !sound(name)) {
        let reason = format!("{wrong:?} is neither a whole host name nor like \"*.example.com\"");
        problem(problems, given, "tls.acme.ask", &reason);
    }
    let names = names.into_iter().filter(sound);
    let routes = Routes::new(names.map(|name| (name, SiteId(0))));
    routes.unwrap_or_else(|reason| {
        problem(problems, given, "tls.acme.ask", &reason);
        Routes::default()
    })
}

fn roots(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Option<std::path::PathBuf> {
    let given = &file.acme.ca_file;
    let roots = Some(&given.value).filter(|text| !text.is_empty());
    let roots = roots.map(|text| folder.join(text));
    if let Err(error) = acme::check_roots(roots.as_deref()) {
        problem(problems, given, "tls.acme.ca_file", &error.to_string());
    }
    roots
}

fn binding(file: &File, folder: &Path, problems: &mut Vec<Problem>) -> Option<Binding> {
    let (id, key) = (&file.acme.eab_key_id, &file.acme.eab_key_file);
    let place = "tls.acme.eab_key_file";
    match (id.value.is_empty(), key.value.is_empty()) {
        (true, true) => return None,
        (false, false) => {}
        (true, false) | (false, true) => {
            problem(problems, key, place, "and eab_key_id belong together");
            return None;
        }
    }
    let path = folder.join(&key.value);
    let text = fs::read_to_string(&path).map_err(|error| {
        let reason = format!("could not read {}: {error}", path.display());
        problem(problems, key, place, &reason);
    });
    let text = text.ok()?;
    // Nothing of it is repeated: it is a secret.
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    match decoded {
        Ok(decoded) if !decoded.is_empty() => Some(Binding {
            id: id.value.clone(),
            key: decoded,
        }),
        Ok(_) | Err(_) => {
            let reason = format!("{} does not hold a key in base64url", path.display());
            problem(problems, key, place, &reason);
            None
        }
    }
}
