//! The config file: from TOML to a [`Plan`] that the house is built from.
//!
//! ```text
//! keys ── the one list of keys
//!   ├─► file: text ─► File (typed values with their lines)      problems with single values
//!   ├─► file::reference: the documented defaults
//!   ├─► plan: File ─► Plan (every module's Params)              problems between values
//!   └─► changes: what another File changes, and what of it needs another process
//! ```
//!
//! Problems are collected, never returned one by one. The environment is not read.

pub mod acme;
pub mod changes;
pub mod file;
pub mod keys;
pub mod kinds;
pub mod plan;

use file::File;
use plan::Admin;
use plan::Plan;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// One thing that is wrong with a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line it is on, from 1; none when it is about what is not there.
    pub line: Option<usize>,
    /// The key's path, such as `server.http`; empty when it is about the file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A config file that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong, in the file's order.
    pub problems: Vec<Problem>,
}

/// Reads a file and checks it.
pub fn load(path: &Path) -> Result<(File, Plan), ConfigError> {
    let (file, mut problems) = read(path)?;
    let plan = Plan::check(&file, &folder(path), &mut problems);
    finish(path, problems)?;
    Ok((file, plan))
}

/// Reads a file for its `[admin]` section only; what is wrong elsewhere does not matter.
pub fn load_admin(path: &Path) -> Result<Option<Admin>, ConfigError> {
    let (file, mut problems) = read(path)?;
    problems.retain(|problem| problem.key.starts_with("admin") || problem.key.is_empty());
    let admin = Admin::check(&file.admin, &folder(path), &mut problems);
    finish(path, problems)?;
    Ok(admin)
}

fn read(path: &Path) -> Result<(File, Vec<Problem>), ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(File::read(&text)),
        Err(error) => {
            let reason = format!("could not read the file: {error}");
            let problem = Problem {
                line: None,
                key: String::new(),
                reason,
            };
            Err(ConfigError {
                file: path.to_owned(),
                problems: vec![problem],
            })
        }
    }
}

/// Returns the folder that relative paths in a config file start from.
fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn finish(path: &Path, mut problems: Vec<Problem>) -> Result<(), ConfigError> {
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    Err(ConfigError {
        file: path.to_owned(),
        problems,
    })
}

impl Problem {
    /// Writes the problem as compilers do: file, line, key, reason.
    pub fn in_file(&self, file: &Path) -> String {
        let mut out = file.display().to_string();
        if let Some(line) = self.line {
            out.push_str(&format!(":{line}"));
        }
        if !self.key.is_empty() {
            out.push_str(&format!(": {}", self.key));
        }
        format!("{out}: {}", self.reason)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.in_file(&self.file))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_one_problem() {
        let error = load("/nowhere/larder.toml".as_ref()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/larder.toml: could not read the file: ")
        );
    }

    #[test]
    fn the_admin_section_can_be_read_from_a_file_that_is_wrong_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.toml");
        fs::write(
            &path,
            "[server]\nnonsense = 1\n[admin]\nlisten = \"127.0.0.1:9\"\n",
        )
        .unwrap();
        let admin = load_admin(&path).unwrap().unwrap();
        assert_eq!(admin.listen.port(), 9);
        assert!(load(&path).is_err());
    }
}
