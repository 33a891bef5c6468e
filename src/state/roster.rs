//! Which directories held all that was stored and purged, up to the end: after a start only these
//! may be believed.
//!
//! Each directory has a *roster*: who it is, and which directories were in use together. Whenever one
//! is taken out or in, a roster with the next number is written to all that are in. So the roster
//! with the greatest number names those that were in last, and a directory that it does not name has
//! missed purges and replacements: it begins empty. What is purged is written to all that are in, so
//! a purge could only be undone when all of those are lost at once.
//!
//! A roster is text, its last line a check of all before:
//!
//! ```text
//! larder roster, version 1
//! self 00d1f3c5a7b9e8d0
//! number 7
//! since 1234
//! in 00d1f3c5a7b9e8d0
//! in 8f6a4b2c0d1e3f57
//! check 3c5a7b9e8d000d1f
//! ```

use super::spread::DIRS_MAX;
use crate::rules::address::Sequence;

/// Who a directory is: drawn by chance when it is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirId(pub u64);

/// One directory's roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The directory it lies in.
    pub own: DirId,
    /// Who was in.
    pub company: Company,
}

/// Directories that were in use together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// Counts the changes.
    pub number: u64,
    /// The sequence from which on they were.
    pub since: Sequence,
    /// Who they are, sorted.
    pub members: Vec<DirId>,
}

/// What the rosters found at a start come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The newest company.
    pub company: Company,
    /// For each directory who it is, if its contents may be believed; else it begins empty.
    pub believed: Vec<Option<DirId>>,
}

impl Roster {
    /// Reads a roster. `None` for what is damaged or of another version.
    pub fn read(text: &str) -> Option<Self> {
        let (body, check) = text.split_at_checked(text.rfind("check ")?)?;
        if check.trim_end() != check_line(body) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let own = DirId(hex(lines.next()?.strip_prefix("self ")?)?);
        let number = lines.next()?.strip_prefix("number ")?.parse().ok()?;
        let since = Sequence(lines.next()?.strip_prefix("since ")?.parse().ok()?);
        let members: Option<Vec<DirId>> = lines
            .map(|line| line.strip_prefix("in ").and_then(hex).map(DirId))
            .collect();
        let members = members.filter(|members| members.len() <= DIRS_MAX)?;
        let company = Company {
            number,
            since,
            members,
        };
        Some(Self { own, company })
    }

    /// Writes it.
    pub fn text(&self) -> String {
        let Company {
            number,
            since,
            members,
        } = &self.company;
        let mut text = format!(
            "{HEADER}\nself {:016x}\nnumber {number}\nsince {}\n",
            self.own.0, since.0
        );
        for member in members {
            text.push_str(&format!("in {:016x}\n", member.0));
        }
        let check = check_line(&text);
        text.push_str(&check);
        text.push('\n');
        text
    }
}

impl Verdict {
    /// Judges the rosters of all directories, in their order; `None` where there is none that can
    /// be read. Where no directory has one, as an older larder leaves it, the first is believed.
    /// A directory that says it is another one, as a copy does, is not.
    pub fn of(rosters: &[Option<Roster>], fresh: impl Fn(usize) -> DirId) -> Self {
        let newest = rosters
            .iter()
            .flatten()
            .max_by_key(|roster| roster.company.number);
        let Some(newest) = newest else {
            let believed = (0..rosters.len()).map(|place| (place == 0).then(|| fresh(place)));
            return Self {
                company: Company::default(),
                believed: believed.collect(),
            };
        };
        let company = newest.company.clone();
        let mut seen: Vec<DirId> = Vec::new();
        let believed = rosters.iter().map(|roster| {
            let own = roster.as_ref()?.own;
            if seen.contains(&own) || !company.members.contains(&own) {
                return None;
            }
            seen.push(own);
            Some(own)
        });
        Self {
            believed: believed.collect(),
            company,
        }
    }
}

fn check_line(body: &str) -> String {
    let digest = blake3::hash(body.as_bytes());
    let bytes = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    format!("check {:016x}", u64::from_be_bytes(bytes))
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

const HEADER: &str = "larder roster, version 1";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roster(own: u64, number: u64, members: &[u64]) -> Option<Roster> {
        Some(Roster {
            own: DirId(own),
            company: Company {
                number,
                since: Sequence(number * 10),
                members: members.iter().copied().map(DirId).collect(),
            },
        })
    }

    fn believed(rosters: &[Option<Roster>]) -> Vec<bool> {
        let verdict = Verdict::of(rosters, |place| DirId(place as u64));
        verdict.believed.iter().map(Option::is_some).collect()
    }

    #[test]
    fn who_was_in_to_the_end_is_believed() {
        let both = [roster(1, 3, &[1, 2]), roster(2, 3, &[1, 2])];
        assert_eq!(believed(&both), [true, true]);
    }

    #[test]
    fn who_was_out_at_the_end_begins_empty() {
        let one_out = [roster(1, 4, &[1, 3]), roster(2, 3, &[1, 2, 3]), None];
        assert_eq!(believed(&one_out), [true, false, false]);
        // Taken out of the config for a while is out too.
        let alone = [roster(1, 9, &[1]), roster(2, 8, &[1, 2])];
        assert_eq!(believed(&alone), [true, false]);
    }

    #[test]
    fn who_is_there_alone_is_believed_by_its_own_word() {
        assert_eq!(believed(&[None, roster(2, 3, &[1, 2])]), [false, true]);
    }

    #[test]
    fn stores_that_were_apart_do_not_come_together() {
        let apart = [roster(1, 3, &[1]), roster(2, 5, &[2])];
        assert_eq!(believed(&apart), [false, true]);
        assert_eq!(believed(&[None, None]), [true, false]);
    }

    #[test]
    fn a_copy_of_a_directory_is_not_believed_beside_it() {
        let copied = [roster(1, 3, &[1, 2]), roster(1, 3, &[1, 2])];
        assert_eq!(believed(&copied), [true, false]);
    }

    #[test]
    fn the_newest_company_counts() {
        let rosters = [roster(1, 3, &[1, 2]), roster(2, 4, &[2])];
        let verdict = Verdict::of(&rosters, |_| DirId(0));
        assert_eq!(verdict.company, rosters[1].clone().unwrap().company);
    }

    #[test]
    fn a_damaged_roster_is_none() {
        let text = roster(1, 3, &[1, 2]).unwrap().text();
        assert_eq!(Roster::read(&text), roster(1, 3, &[1, 2]));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(Roster::read(&String::from_utf8(bytes).unwrap()), None);
        }
        for at in 0..text.len() - 1 {
            assert_eq!(Roster::read(&text[..at]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(
            own: u64,
            number: u64,
            since: u64,
            members in proptest::collection::vec(any::<u64>(), 0..DIRS_MAX),
        ) {
            let members = members.into_iter().map(DirId).collect();
            let since = Sequence(since);
            let company = Company { number, since, members };
            let roster = Roster { own: DirId(own), company };
            prop_assert_eq!(Roster::read(&roster.text()), Some(roster));
        }

        #[test]
        fn no_text_is_too_strange(text: String) {
            prop_assert_eq!(Roster::read(&text), None);
        }
    }
}
