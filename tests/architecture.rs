//! The house stands: every floor names only what lies below it, the two lowest floors are values in,
//! verdicts out, and the table of RFC sections names what is there.
//!
//! The sources are read as text. That is cruder than a parser and is why two habits are asked for:
//! one `use` a line, and no list of modules in braces behind `crate::`.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources should stop"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A module right under `src/` and the modules of this crate it may name.
const FLOORS: &[(&str, &[&str])] = &[
    ("rules", &["rules"]),
    ("state", &["state", "rules"]),
    ("clock", &["clock"]),
    ("net", &["net", "rules"]),
    ("upstream", &["upstream", "rules"]),
    ("acme", &["acme", "rules"]),
    ("store", &["store", "rules"]),
    (
        "flow",
        &["flow", "store", "upstream", "clock", "state", "rules"],
    ),
    ("ops", &["ops", "flow", "clock", "state", "rules"]),
];

/// The top floor wires everything together, so it may name anything; `lib` only lists modules.
const TOP_FLOOR: &[&str] = &["cli", "config", "lib", "main"];

/// Nobody below the top floor names these.
const ONLY_FROM_THE_TOP: &[&str] = &["cli", "config", "main"];

/// Words that mean IO, time, chance or concurrency; the two lowest floors have none of them.
const SANS_IO: &[&str] = &[
    "::now()",
    "Mutex",
    "RwLock",
    "async fn",
    "hyper",
    "rand::",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "tokio",
    "tracing",
];

/// Third-party crates that stay in their room: the crate, and the paths under `src/` that may name
/// it.
const ROOMS: &[(&str, &[&str])] = &[
    ("anyhow::", &["cli", "main.rs"]),
    ("base64::", &["config", "rules"]),
    ("cacache::", &["store"]),
    ("clap::", &["cli", "main.rs"]),
    ("instant_acme::", &["acme"]),
    ("ratatui::", &["cli"]),
    ("rustls::", &["acme", "net", "upstream"]),
    ("tokio_rustls::", &["net", "upstream"]),
    ("toml::", &["config"]),
];

#[test]
fn each_floor_names_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = FLOORS.iter().find(|(floor, _)| *floor == source.module) else {
            continue;
        };
        for named in source.crate_modules() {
            if !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: may not name crate::{named}", source.place()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let known: BTreeSet<&str> = FLOORS
        .iter()
        .map(|(floor, _)| *floor)
        .chain(TOP_FLOOR.iter().copied())
        .collect();
    for source in sources() {
        assert!(
            known.contains(source.module.as_str()),
            "{}: say in FLOORS what `{}` may name",
            source.place(),
            source.module
        );
    }
}

#[test]
fn the_floors_below_do_not_know_the_top_one() {
    for (floor, allowed) in FLOORS {
        for top in ONLY_FROM_THE_TOP {
            assert!(!allowed.contains(top), "{floor} may not name {top}");
        }
    }
}

#[test]
fn the_two_lowest_floors_touch_no_io_and_read_no_clock() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module != "rules" && source.module != "state" {
            continue;
        }
        for (number, line) in source.code() {
            for word in SANS_IO.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!(
                    "{}:{number}: `{word}` in: {}",
                    source.place(),
                    line.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_use_of_our_own_modules_names_one_thing_a_line() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            if line.contains("use crate::{") || line.contains("use crate::*") {
                wrong.push(format!("{}:{number}: {}", source.place(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn third_party_crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, rooms) in ROOMS {
            let at_home = rooms.iter().any(|room| source.path.starts_with(room))
                || (source.module == "main" && rooms.contains(&"main.rs"));
            if at_home {
                continue;
            }
            for (number, line) in source.code() {
                if names_crate(line, name) {
                    wrong.push(format!("{}:{number}: {}", source.place(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// In a row of `docs/rfc.md` what ends in `.rs` is a file, and everything else in backquotes is a
/// test in the file before it.
#[test]
fn every_file_and_test_in_the_table_of_rfcs_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/rfc.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| §"));
    let (mut wrong, mut tests) = (Vec::new(), 0);
    for row in rows {
        let mut file = String::new();
        let mut named = 0;
        for name in row.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                file = fs::read_to_string(root.join(name)).unwrap_or_else(|error| {
                    wrong.push(format!("{name}: {error}"));
                    String::new()
                });
            } else {
                named += 1;
                if !file.contains(&format!("fn {name}(")) {
                    wrong.push(format!("no test {name} in: {row}"));
                }
            }
        }
        if named == 0 {
            wrong.push(format!("no test in: {row}"));
        }
        tests += named;
    }
    assert!(tests > 0, "the table is empty");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `line` names the crate `name` itself, and not one whose name ends like it.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|start| start.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// One file under `src/`.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// The folder or the file's stem right under `src/`.
    module: String,
    text: String,
}

impl Source {
    fn place(&self) -> String {
        format!("src/{}", self.path.display())
    }

    /// The lines that are not comments, numbered from one.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Every word that follows `crate::`, in comments too: a link in a doc comment is a name.
    fn crate_modules(&self) -> BTreeSet<String> {
        self.text
            .split("crate::")
            .skip(1)
            .map(|rest| {
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            })
            .filter(|word: &String| !word.is_empty())
            .collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(read(&root, &path));
            }
        }
    }
    assert!(!found.is_empty(), "no sources under {}", root.display());
    found
}

fn read(root: &Path, path: &Path) -> Source {
    let relative = path.strip_prefix(root).unwrap();
    let first = Path::new(relative.iter().next().unwrap());
    Source {
        path: relative.to_path_buf(),
        module: first.file_stem().unwrap().to_string_lossy().into_owned(),
        text: fs::read_to_string(path).unwrap(),
    }
}
