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

#[cfg(test)]
mod tests {
    use super::*;

    use tempfile::TempDir;

    /// What a config comes to whose `[tls.acme]` has these keys beside those that it needs.
    fn check(keys: &str, hosts: &str) -> (Option<Acme>, Vec<String>) {
        let dir = TempDir::new().unwrap();
        let root = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        fs::write(dir.path().join("roots.pem"), root.cert.pem()).unwrap();
        fs::write(dir.path().join("good.key"), "AQID_-8=\n").unwrap();
        fs::write(dir.path().join("bad.key"), "?secret?").unwrap();
        let text = format!(
            "[server]\nhttps = [\"127.0.0.1:0\"]\n[tls.acme]\nenabled = true\n\
             terms_agreed = true\nca_file = \"roots.pem\"\n{keys}\n[[site]]\nhosts = {hosts}\n"
        );
        let (file, mut problems) = File::read(&text);
        let acme = Acme::check(&file, dir.path(), &mut problems);
        let reasons = problems.into_iter();
        let reasons = reasons.map(|problem| format!("{}: {}", problem.key, problem.reason));
        (acme, reasons.collect())
    }

    #[test]
    fn whole_names_of_sites_are_ordered() {
        let hosts = "[\"B.test\", \"a.test\", \"*.c.test\", \"localhost\", \"192.0.2.1\", \"*\"]";
        let (acme, problems) = check("", hosts);
        assert_eq!(problems, Vec::<String>::new());
        let acme = acme.unwrap();
        assert_eq!(acme.names.iter().collect::<Vec<_>>(), ["a.test", "b.test"]);
        assert!(acme.ask.is_empty());
        assert!(acme.authority.directory.contains("staging"));
    }

    #[test]
    fn clients_may_ask_for_what_is_listed() {
        let (acme, problems) = check("ask = [\"*.Shops.test\", \"one.test\"]", "[\"*\"]");
        assert_eq!(problems, Vec::<String>::new());
        let ask = acme.unwrap().ask;
        for (name, allowed) in [
            ("a.shops.test", true),
            ("a.b.shops.test", true),
            ("shops.test", false),
            ("one.test", true),
            ("two.test", false),
        ] {
            assert_eq!(ask.site(name).is_some(), allowed, "{name}");
        }
    }

    #[test]
    fn a_key_of_a_binding_is_decoded_and_never_repeated() {
        let keys = |file: &str| format!("eab_key_id = \"kid\"\neab_key_file = \"{file}\"");
        let (acme, problems) = check(&keys("good.key"), "[\"*\"]");
        assert_eq!(problems, Vec::<String>::new());
        let binding = acme.unwrap().authority.binding.unwrap();
        assert_eq!(binding.key, [1, 2, 3, 0xff, 0xef]);
        assert!(!format!("{binding:?}").contains("255"));
        for file in ["bad.key", "missing.key"] {
            let (_, problems) = check(&keys(file), "[\"*\"]");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(file) && !problems[0].contains("secret"));
        }
    }

    #[test]
    fn contacts_are_addresses_of_mail() {
        for good in ["mailto:a@b.test", "mailto:a+c@b"] {
            let (_, problems) = check(&format!("contact = [{good:?}]"), "[\"*\"]");
            assert_eq!(problems, Vec::<String>::new());
        }
        for bad in ["a@b.test", "mailto:", "mailto:a", "mailto:a @b", "tel:1"] {
            let (_, problems) = check(&format!("contact = [{bad:?}]"), "[\"*\"]");
            assert_eq!(problems.len(), 1, "{bad}");
        }
    }

    #[test]
    fn nothing_is_checked_while_it_is_switched_off() {
        let (file, mut problems) = File::read("[tls.acme]\ncontact = [\"x\"]\n");
        assert!(Acme::check(&file, Path::new("/nowhere"), &mut problems).is_none());
        assert!(problems.is_empty());
    }
}
