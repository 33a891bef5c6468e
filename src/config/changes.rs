//! What another config changes, and what of that a running process cannot take up.
//!
//! Keys are compared as they are written, so one that is only written otherwise counts as changed;
//! what cannot change is compared by what it means. An upstream has changed with the files it names.

use super::Problem;
use super::file::File;
use super::file::Section;
use super::plan::Plan;
use super::plan::site_name;
use crate::ops::reload::Change;
use crate::ops::reload::Changes;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Lists what the config `after` changes, each with its plan.
pub fn between(before: (&File, &Plan), after: (&File, &Plan)) -> Changes {
    let mut changes = between_files(before.0, after.0);
    let before = &before.1.flow.upstreams;
    for (name, params) in &after.1.flow.upstreams {
        let mut before = before.iter().filter(|(before, _)| before == name);
        let listed = &mut changes.upstreams.changed;
        if before.any(|(_, before)| before != params) && !listed.contains(name) {
            listed.push(name.clone());
        }
    }
    changes
}

fn between_files(before: &File, after: &File) -> Changes {
    let mut keys = Vec::new();
    for (path, before, after) in [
        ("server", one(&before.server), one(&after.server)),
        ("tls", one(&before.tls), one(&after.tls)),
        ("tls.acme", one(&before.acme), one(&after.acme)),
        ("cache", one(&before.cache), one(&after.cache)),
        ("admin", one(&before.admin), one(&after.admin)),
        ("log", one(&before.log), one(&after.log)),
        ("traces", one(&before.traces), one(&after.traces)),
    ] {
        keys.extend(compare(path, &before, &after).1);
    }
    let mut kind = |path: &str, of: fn(&File) -> Sections| {
        let (change, changed) = compare(path, &of(before), &of(after));
        keys.extend(changed);
        change
    };
    Changes {
        certificates: kind("tls.certificate", certificates),
        upstreams: kind("upstream", upstreams),
        sites: kind("site", sites),
        keys,
    }
}

/// Finds every key that has another meaning in `after` and that a running process cannot take up.
pub fn refused(before: &Plan, file: &File, after: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |same: bool, line: Option<usize>, key: &str| {
        if !same {
            problems.push(Problem {
                line,
                key: key.to_owned(),
                reason: NEEDS_PROCESS.to_owned(),
            });
        }
    };
    let (server, cache) = (&file.server, &file.cache);
    refuse(
        before.workers == after.workers,
        server.workers.line,
        "server.workers",
    );
    refuse(
        before.runtime == after.runtime,
        server.runtime.line,
        "server.runtime",
    );
    let fill = before.flow.fill_bytes_max == after.flow.fill_bytes_max;
    refuse(fill, cache.fill_bytes_max.line, "cache.fill_bytes_max");
    match cache.dirs.value.is_empty() {
        false => refuse(before.store == after.store, cache.dirs.line, "cache.dirs"),
        true => {
            let dir = dirs(before).eq(dirs(after));
            refuse(dir, cache.dir.line, "cache.dir");
            let limit = limits(before).eq(limits(after));
            refuse(limit, cache.disk_bytes_max.line, "cache.disk_bytes_max");
        }
    }
    problems
}

fn dirs(plan: &Plan) -> impl Iterator<Item = &PathBuf> {
    plan.store.iter().map(|store| &store.dir)
}

fn limits(plan: &Plan) -> impl Iterator<Item = u64> {
    plan.store.iter().map(|store| store.disk_bytes_max)
}

/// Sections of a kind by their names, each with its keys and how their values are written.
type Sections = BTreeMap<String, Vec<(&'static str, String)>>;

fn certificates(file: &File) -> Sections {
    let all = file.certificates.iter();
    all.map(|own| (own.cert.value.clone(), written(own)))
        .collect()
}

fn upstreams(file: &File) -> Sections {
    let all = file.upstreams.iter();
    all.map(|(name, own)| (name.clone(), written(own)))
        .collect()
}

fn sites(file: &File) -> Sections {
    let all = file.sites.iter();
    all.map(|own| (site_name(own), written(own))).collect()
}

fn one(section: &impl Section) -> Sections {
    Sections::from([(String::new(), written(section))])
}

fn written(section: &impl Section) -> Vec<(&'static str, String)> {
    let literals = section.literals().into_iter();
    literals
        .map(|(name, literal, _)| (name, literal.to_owned()))
        .collect()
}

/// What has become of the sections of a kind, and the paths of the keys that differ in those that are
/// still there.
fn compare(path: &str, before: &Sections, after: &Sections) -> (Change, Vec<String>) {
    let mut change = Change::default();
    let mut keys = Vec::new();
    for (name, after) in after {
        let Some(before) = before.get(name) else {
            change.added.push(name.clone());
            continue;
        };
        let differ = before.iter().zip(after).filter(|(one, other)| one != other);
        let differ: Vec<String> = differ
            .map(|(_, (key, _))| match name.is_empty() {
                true => format!("{path}.{key}"),
                false => format!("{path}.{name}.{key}"),
            })
            .collect();
        if !differ.is_empty() {
            change.changed.push(name.clone());
            keys.extend(differ);
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    change.removed.extend(gone.cloned());
    (change, keys)
}

const NEEDS_PROCESS: &str = "cannot change while running: it needs a restart or SIGUSR2";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BEFORE: &str = "[server]\nworkers = 2\n[upstream.main]\nbackends = [\"http://a:1\"]\n\
        [[site]]\nhosts = [\"a.test\"]\n[[site]]\nhosts = [\"b.test\"]\n";

    fn read(text: &str) -> (File, Plan) {
        let (file, mut problems) = File::read(text);
        let plan = Plan::check(&file, Path::new("/nowhere"), &mut problems);
        assert_eq!(problems, []);
        (file, plan)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_as_before_is_no_change() {
        let (file, plan) = read(BEFORE);
        let same = (&file, &plan);
        assert_eq!(between(same, same), Changes::default());
        assert_eq!(refused(&plan, &file, &plan), []);
    }

    #[test]
    fn sites_and_upstreams_are_told_by_name_wherever_they_stand() {
        let (before, plan) = read(BEFORE);
        let (after, next) = read(
            "[server]\nworkers = 2\n[log]\nlevel = \"warn\"\n\
             [tls.acme]\nask_per_hour = 7\n\
             [upstream.main]\nbackends = [\"http://a:2\"]\n\
             [upstream.more]\nbackends = [\"http://b:1\"]\n\
             [[site]]\nhosts = [\"c.test\"]\n\
             [[site]]\nhosts = [\"a.test\"]\nhsts = \"1d\"\n",
        );
        let changes = between((&before, &plan), (&after, &next));
        let sites = Change {
            added: names(&["c.test"]),
            changed: names(&["a.test"]),
            removed: names(&["b.test"]),
        };
        assert_eq!(changes.sites, sites);
        let upstreams = Change {
            added: names(&["more"]),
            changed: names(&["main"]),
            removed: Vec::new(),
        };
        assert_eq!(changes.upstreams, upstreams);
        let keys = [
            "tls.acme.ask_per_hour",
            "log.level",
            "upstream.main.backends",
            "site.a.test.hsts",
        ];
        assert_eq!(changes.keys, keys);
    }

    #[test]
    fn what_cannot_change_is_refused_with_its_line() {
        let (_, before) = read(BEFORE);
        let text = BEFORE.replace("workers = 2", "runtime = \"shared\"")
            + "[cache]\ndir = \"x\"\ndisk_bytes_max = \"1GiB\"\nfill_bytes_max = \"9MiB\"\n";
        let (file, after) = read(&text);
        let refused = refused(&before, &file, &after);
        let told: Vec<_> = refused.iter().map(|p| (p.line, p.key.as_str())).collect();
        let expected = [
            (None, "server.workers"),
            (Some(2), "server.runtime"),
            (Some(12), "cache.fill_bytes_max"),
            (Some(10), "cache.dir"),
            (Some(11), "cache.disk_bytes_max"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_value_that_is_only_written_otherwise_is_not_refused() {
        let (_, before) = read(BEFORE);
        let (file, after) = read(&format!("{BEFORE}[cache]\ndisk_bytes_max = \"10240MiB\"\n"));
        assert_eq!(refused(&before, &file, &after), []);
    }
}
