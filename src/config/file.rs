//! Reads a config file into typed values, and writes such values as TOML.
//!
//! The list of keys is in [`keys`](super::keys); this file knows the shape of the document (which
//! sections there are and how often) and finds every problem in one pass, each with its line.
//! Whether the values make sense together is asked in [`plan`](super::plan).

use super::Problem;
use super::keys::Acme;
use super::keys::Admin;
use super::keys::Cache;
use super::keys::Certificate;
use super::keys::Log;
use super::keys::Server;
use super::keys::Site;
use super::keys::Tls;
use super::keys::Traces;
use super::keys::Upstream;
use super::kinds::Kind;
use super::kinds::nearest;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// A config file, value by value.
#[derive(Clone, Debug)]
pub struct File {
    /// `[server]`.
    pub server: Server,
    /// `[tls]`.
    pub tls: Tls,
    /// `[tls.acme]`.
    pub acme: Acme,
    /// Every `[[tls.certificate]]`.
    pub certificates: Vec<Certificate>,
    /// `[cache]`.
    pub cache: Cache,
    /// `[admin]`.
    pub admin: Admin,
    /// Every `[upstream.NAME]` by its name, in the file's order.
    pub upstreams: Vec<(String, Upstream)>,
    /// Every `[[site]]`.
    pub sites: Vec<Site>,
    /// `[log]`.
    pub log: Log,
    /// `[traces]`.
    pub traces: Traces,
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// What it means.
    pub value: T,
    /// Its line in the file; none when it is the default.
    pub line: Option<usize>,
    /// How it is written in TOML.
    pub literal: String,
}

/// What the list of keys says about one of them.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is for, a line each.
    pub docs: &'static [&'static str],
    /// Its default in TOML; none when it must be given.
    pub default: Option<&'static str>,
    /// An example in TOML, for a key without default.
    pub example: Option<&'static str>,
    /// Which values are allowed.
    pub allowed: Option<String>,
}

/// A section of the file: a struct with one field a key.
pub trait Section: Sized {
    /// How it begins in a file.
    const HEADER: &'static str;
    /// What it is for, a line each.
    const ABOUT: &'static [&'static str];

    /// Lists its keys.
    fn keys() -> Vec<Key>;

    /// Reads it; problems go to the reader, and defaults stand in for what is wrong.
    fn read(reader: &mut Reader<'_>, place: &Place<'_>) -> Self;

    /// Lists its keys with their values in TOML, and whether the value is the default.
    fn literals(&self) -> Vec<(&'static str, &str, bool)>;
}

/// Where in the document a section stands.
#[derive(Clone, Debug)]
pub struct Place<'d> {
    /// Its path, such as `upstream.main`.
    pub path: String,
    /// The line of its header.
    pub line: Option<usize>,
    /// Its keys; none when the section is not in the file.
    pub table: Option<&'d DeTable<'d>>,
}

/// Reads one document and collects what is wrong with it.
#[derive(Debug)]
pub struct Reader<'d> {
    text: &'d str,
    problems: Vec<Problem>,
}

impl File {
    /// Reads a document. When there are problems the file is only good for finding more of them.
    pub fn read(text: &str) -> (Self, Vec<Problem>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            text,
            problems: Vec::new(),
        };
        for error in errors {
            let line = error.span().map(|span| reader.line(span.start));
            reader.problem(line, String::new(), error.message().to_owned());
        }
        let root = document.get_ref();
        reader.refuse_unknown_sections(root);
        let (tls, acme, certificates) = reader.tls(root);
        let file = Self {
            server: reader.section(root, "server"),
            tls,
            acme,
            certificates,
            cache: reader.section(root, "cache"),
            admin: reader.section(root, "admin"),
            upstreams: reader.upstreams(root),
            sites: reader.sections(root, "site", "site"),
            log: reader.section(root, "log"),
            traces: reader.section(root, "traces"),
        };
        (file, reader.problems)
    }

    /// Writes every key with the value in effect; defaults are marked.
    pub fn effective(&self) -> String {
        let mut out = String::new();
        effective(&mut out, "[server]", &self.server);
        effective(&mut out, Tls::HEADER, &self.tls);
        for certificate in &self.certificates {
            effective(&mut out, Certificate::HEADER, certificate);
        }
        effective(&mut out, Acme::HEADER, &self.acme);
        effective(&mut out, Cache::HEADER, &self.cache);
        effective(&mut out, Admin::HEADER, &self.admin);
        for (name, upstream) in &self.upstreams {
            effective(&mut out, &format!("[upstream.{name}]"), upstream);
        }
        for site in &self.sites {
            effective(&mut out, Site::HEADER, site);
        }
        effective(&mut out, Log::HEADER, &self.log);
        effective(&mut out, Traces::HEADER, &self.traces);
        out
    }
}

/// Writes the reference: every key with its explanation and default, as a config that works.
pub fn reference() -> String {
    let mut out = String::from(PREFACE);
    reference_section::<Server>(&mut out, Server::HEADER, "");
    reference_section::<Tls>(&mut out, Tls::HEADER, "");
    reference_section::<Certificate>(&mut out, Certificate::HEADER, "# ");
    reference_section::<Acme>(&mut out, Acme::HEADER, "");
    reference_section::<Cache>(&mut out, Cache::HEADER, "");
    reference_section::<Admin>(&mut out, Admin::HEADER, "");
    reference_section::<Upstream>(&mut out, "[upstream.main]", "");
    reference_section::<Site>(&mut out, Site::HEADER, "");
    reference_section::<Log>(&mut out, Log::HEADER, "");
    reference_section::<Traces>(&mut out, Traces::HEADER, "");
    out
}

impl<'d> Reader<'d> {
    /// Reads one key of a section, or its default.
    pub fn take<K: Kind>(
        &mut self,
        place: &Place<'_>,
        name: &str,
        kind: &K,
        default: Option<&str>,
    ) -> Given<K::Value> {
        if let Some(spanned) = place.table.and_then(|table| table.get(name)) {
            let span = spanned.span();
            let line = Some(self.line(span.start));
            match kind.read(spanned.get_ref()) {
                Ok(value) => {
                    let literal = self.text.get(span).unwrap_or_default().to_owned();
                    return Given {
                        value,
                        line,
                        literal,
                    };
                }
                Err(reason) => self.problem(line, join(&place.path, name), reason),
            }
        } else if default.is_none() {
            self.problem(
                place.line,
                join(&place.path, name),
                "must be given".to_owned(),
            );
        }
        let literal = default.unwrap_or_default().to_owned();
        let value = DeValue::parse(&literal).ok();
        let value = value.and_then(|value| kind.read(value.get_ref()).ok());
        Given {
            value: value.unwrap_or_default(),
            line: None,
            literal,
        }
    }

    /// Reports every key of a section that is not in the list.
    pub fn refuse_unknown<S: Section>(&mut self, place: &Place<'_>) {
        let keys = S::keys();
        let known = || keys.iter().map(|key| key.name);
        for name in place.table.into_iter().flat_map(DeTable::keys) {
            if !known().any(|key| key == name.get_ref()) {
                let line = Some(self.line(name.span().start));
                let hint = hint(nearest(name.get_ref(), known()), name.get_ref());
                self.problem(
                    line,
                    join(&place.path, name.get_ref()),
                    format!("unknown key{hint}"),
                );
            }
        }
    }

    fn refuse_unknown_sections(&mut self, root: &DeTable<'_>) {
        for name in root.keys() {
            if !SECTIONS.contains(&name.get_ref().as_ref()) {
                let line = Some(self.line(name.span().start));
                let hint = hint(
                    nearest(name.get_ref(), SECTIONS.iter().copied()),
                    name.get_ref(),
                );
                self.problem(
                    line,
                    name.get_ref().to_string(),
                    format!("unknown key{hint}"),
                );
            }
        }
    }

    /// Reads a section that is there at most once.
    fn section<S: Section>(&mut self, root: &DeTable<'_>, name: &str) -> S {
        let spanned = root.get(name);
        let place = Place {
            path: name.to_owned(),
            line: spanned.map(|spanned| self.line(spanned.span().start)),
            table: spanned.and_then(|spanned| self.table(spanned, name)),
        };
        S::read(self, &place)
    }

    /// Reads a section that is there any number of times.
    fn sections<S: Section>(&mut self, table: &DeTable<'_>, name: &str, path: &str) -> Vec<S> {
        let Some(spanned) = table.get(name) else {
            return Vec::new();
        };
        let Some(items) = spanned.get_ref().as_array() else {
            let line = Some(self.line(spanned.span().start));
            self.problem(
                line,
                path.to_owned(),
                format!("must be written as [[{path}]]"),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let path = format!("{path}[{number}]");
            let line = Some(self.line(item.span().start));
            let table = self.table(item, &path);
            sections.push(S::read(self, &Place { path, line, table }));
        }
        sections
    }

    /// Reads `[tls]`, which has the certificates in it.
    fn tls(&mut self, root: &DeTable<'_>) -> (Tls, Acme, Vec<Certificate>) {
        let spanned = root.get("tls");
        let table = spanned.and_then(|spanned| self.table(spanned, "tls"));
        let mut keys = table.cloned();
        if let Some(keys) = &mut keys {
            keys.remove("acme");
            keys.remove("certificate");
        }
        let place = Place {
            path: "tls".to_owned(),
            line: spanned.map(|spanned| self.line(spanned.span().start)),
            table: keys.as_ref(),
        };
        let tls = Tls::read(self, &place);
        let certificates =
            table.map(|table| self.sections(table, "certificate", "tls.certificate"));
        let spanned = table.and_then(|table| table.get("acme"));
        let place = Place {
            path: "tls.acme".to_owned(),
            line: spanned.map(|spanned| self.line(spanned.span().start)),
            table: spanned.and_then(|spanned| self.table(spanned, "tls.acme")),
        };
        let acme = Acme::read(self, &place);
        (tls, acme, certificates.unwrap_or_default())
    }

    fn upstreams(&mut self, root: &DeTable<'_>) -> Vec<(String, Upstream)> {
        let Some(table) = root
            .get("upstream")
            .and_then(|spanned| self.table(spanned, "upstream"))
        else {
            return Vec::new();
        };
        let mut found: Vec<_> = table.iter().collect();
        found.sort_by_key(|(name, _)| name.span().start);
        let mut upstreams = Vec::new();
        for (name, spanned) in found {
            let path = join("upstream", name.get_ref());
            let line = Some(self.line(name.span().start));
            let Some(table) = self.table(spanned, &path) else {
                continue;
            };
            if !name
                .get_ref()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            {
                let reason = "names are made of letters, digits, - and _".to_owned();
                self.problem(line, path.clone(), reason);
            }
            let place = Place {
                path,
                line,
                table: Some(table),
            };
            upstreams.push((name.get_ref().to_string(), Upstream::read(self, &place)));
        }
        upstreams
    }

    /// Finds the table in a value, or reports that there is none.
    fn table<'t>(
        &mut self,
        value: &'t Spanned<DeValue<'t>>,
        path: &str,
    ) -> Option<&'t DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let line = Some(self.line(value.span().start));
            self.problem(line, path.to_owned(), format!("must be a table: [{path}]"));
        }
        table
    }

    fn problem(&mut self, line: Option<usize>, key: String, reason: String) {
        self.problems.push(Problem { line, key, reason });
    }

    /// Counts lines up to a byte of the text; the first is 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.bytes().take(offset);
        before
            .filter(|byte| *byte == b'\n')
            .count()
            .saturating_add(1)
    }
}

/// Says what an unknown key may have been meant to be.
fn hint(near: Option<&str>, name: &str) -> String {
    match (home_of(name), near) {
        (Some(header), _) => format!("; it belongs to {header}"),
        (None, Some(near)) => format!("; did you mean {near}?"),
        (None, None) => String::new(),
    }
}

/// Finds the section that has a key of this name.
fn home_of(name: &str) -> Option<&'static str> {
    fn has<S: Section>(name: &str) -> Option<&'static str> {
        S::keys()
            .iter()
            .any(|key| key.name == name)
            .then_some(S::HEADER)
    }
    has::<Server>(name)
        .or_else(|| has::<Tls>(name))
        .or_else(|| has::<Certificate>(name))
        .or_else(|| has::<Cache>(name))
        .or_else(|| has::<Admin>(name))
        .or_else(|| has::<Upstream>(name))
        .or_else(|| has::<Site>(name))
        .or_else(|| has::<Log>(name))
        .or_else(|| has::<Traces>(name))
}

fn join(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}

fn effective<S: Section>(out: &mut String, header: &str, section: &S) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(header);
    out.push('\n');
    for (name, literal, default) in section.literals() {
        let mark = if default { "  # default" } else { "" };
        out.push_str(&format!("{name} = {literal}{mark}\n"));
    }
}

fn reference_section<S: Section>(out: &mut String, header: &str, prefix: &str) {
    out.push('\n');
    for line in S::ABOUT {
        out.push_str(&format!("#{line}\n"));
    }
    out.push_str(&format!("{prefix}{header}\n"));
    for key in S::keys() {
        for line in key.docs {
            out.push_str(&format!("{prefix}#{line}\n"));
        }
        if let Some(allowed) = &key.allowed {
            out.push_str(&format!("{prefix}# Allowed: {allowed}.\n"));
        }
        let literal = key.default.or(key.example).unwrap_or_default();
        out.push_str(&format!("{prefix}{} = {literal}\n", key.name));
    }
}

/// Names at the top of a document.
const SECTIONS: &[&str] = &[
    "server", "tls", "cache", "admin", "upstream", "site", "log", "traces",
];

const PREFACE: &str = "\
# Larder's configuration: every key, what it is for and its default.
# Only [upstream.NAME] and [[site]] must be there; leave out what you do not change.
# Sizes are written \"64KiB\", \"512MiB\", \"10GiB\"; times \"250ms\", \"10s\", \"5m\", \"1h\", \"1d\".
# Written by `larder check --print-default`; `larder check --config FILE` shows what is in effect.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let (_, problems) = File::read(text);
        problems
            .iter()
            .map(|problem| problem.in_file("t.toml".as_ref()))
            .collect()
    }

    #[test]
    fn the_reference_reads_without_a_problem() {
        assert_eq!(problems(&reference()), Vec::<String>::new());
    }

    #[test]
    fn the_reference_with_the_tls_section_switched_on_reads_without_a_problem() {
        let text = reference()
            .replace("\n# [[tls", "\n[[tls")
            .replace("\n# cert =", "\ncert =");
        assert_eq!(
            problems(&text.replace("\n# key =", "\nkey =")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_example_in_the_repository_is_the_reference() {
        assert_eq!(include_str!("../../config.example.toml"), reference());
    }

    #[test]
    fn every_default_reads_as_its_kind() {
        let (file, _) = File::read("");
        let text = format!(
            "{}{}",
            file.effective(),
            "[upstream.main]\nbackends = [\"file:x\"]\n"
        );
        assert_eq!(problems(&text), Vec::<String>::new());
        assert_eq!(file.cache.disk_bytes_max.value, 10 << 30);
        assert_eq!(file.server.http.value, vec!["127.0.0.1:8080"]);
    }

    #[test]
    fn the_effective_config_reads_back_as_itself() {
        let (file, _) = File::read(&reference());
        let (again, problems) = File::read(&file.effective());
        assert_eq!(problems, Vec::new());
        assert_eq!(again.effective(), file.effective());
    }

    #[test]
    fn the_effective_config_marks_defaults() {
        let (file, _) = File::read("[cache]\ndir = 'elsewhere'\n");
        let text = file.effective();
        assert!(text.contains("dir = 'elsewhere'\n"));
        assert!(text.contains("hit_for_miss = \"10s\"  # default\n"));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        assert_eq!(
            problems("[server]\n\nheader_timout = \"10s\"\n"),
            ["t.toml:3: server.header_timout: unknown key; did you mean header_timeout?"],
        );
    }

    #[test]
    fn an_unknown_key_of_another_section_names_that_section() {
        assert_eq!(
            problems("[server]\nfill_bytes_max = \"64MiB\"\n"),
            ["t.toml:2: server.fill_bytes_max: unknown key; it belongs to [cache]"],
        );
    }

    #[test]
    fn an_unknown_section_names_the_nearest_one() {
        assert_eq!(
            problems("[sever]\n"),
            ["t.toml:1: sever: unknown key; did you mean server?"],
        );
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_lines() {
        let text = "[server]\nworkers = -1\nheader_timeout = 10\nhtpp = []\n[cache]\n\
                    disk_bytes_max = \"1MiB\"\n[upstream.main]\n[[site]]\nhosts = []\n";
        assert_eq!(
            problems(text),
            [
                "t.toml:4: server.htpp: unknown key; did you mean http?",
                "t.toml:2: server.workers: -1 is out of bounds: 0 to 1024",
                "t.toml:3: server.header_timeout: must be a time in quotes, such as \"10s\", not an integer",
                "t.toml:6: cache.disk_bytes_max: 1MiB is out of bounds: at least 32MiB",
                "t.toml:7: upstream.main.backends: must be given",
                "t.toml:9: site[0].hosts: must not be empty",
            ],
        );
    }

    #[test]
    fn several_syntax_errors_are_reported_with_their_lines() {
        let found = problems("[server]\nworkers = \n[cache]\ndir = = 1\n");
        assert!(
            found
                .iter()
                .any(|problem| problem.starts_with("t.toml:2: ")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|problem| problem.starts_with("t.toml:4: ")),
            "{found:?}"
        );
    }

    #[test]
    fn a_key_given_twice_is_a_problem() {
        let found = problems("[server]\nworkers = 1\nworkers = 2\n");
        assert!(
            found
                .iter()
                .any(|problem| problem.starts_with("t.toml:3: ")),
            "{found:?}"
        );
    }

    #[test]
    fn a_section_of_the_wrong_shape_is_a_problem() {
        assert_eq!(
            problems("server = 1\n"),
            ["t.toml:1: server: must be a table: [server]"]
        );
        assert_eq!(
            problems("[site]\n"),
            ["t.toml:1: site: must be written as [[site]]"]
        );
        assert_eq!(
            problems("[tls.certificate]\n"),
            ["t.toml:1: tls.certificate: must be written as [[tls.certificate]]"],
        );
    }

    #[test]
    fn upstreams_keep_the_order_of_the_file() {
        let (file, _) =
            File::read("[upstream.z]\nbackends=['file:z']\n[upstream.a]\nbackends=['file:a']\n");
        let names: Vec<_> = file
            .upstreams
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["z", "a"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z.=\"' \n0-9#]*") {
            let _unused = File::read(&text);
        }
    }
}
