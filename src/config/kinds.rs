//! The kinds of value a key can have: how each is read, and what it may be.
//!
//! A kind sees one TOML value and returns what it means or why it cannot be; where the value
//! stands in the file is [`file`](super::file)'s business.

use bytesize::ByteSize;
use std::time::Duration;
use toml::de::DeValue;

/// A kind of value.
pub trait Kind {
    /// What a value of this kind means to the program.
    type Value: Clone + Default;

    /// Reads a value, or says why it is none of this kind.
    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String>;

    /// Says which values are allowed, where the name of the key does not.
    fn allowed(&self) -> Option<String> {
        None
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug)]
pub struct Flag();

impl Kind for Flag {
    type Value = bool;

    fn read(&self, value: &DeValue<'_>) -> Result<bool, String> {
        value
            .as_bool()
            .ok_or_else(|| wanted("true or false", value))
    }
}

/// A whole number from the first bound to the second.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub usize, pub usize);

impl Kind for Count {
    type Value = usize;

    fn read(&self, value: &DeValue<'_>) -> Result<usize, String> {
        let DeValue::Integer(number) = value else {
            return Err(wanted("a whole number", value));
        };
        let digits = number.to_string();
        let Ok(count) = usize::from_str_radix(number.as_str(), number.radix()) else {
            return Err(out_of_bounds(&digits, self));
        };
        match (self.0..=self.1).contains(&count) {
            true => Ok(count),
            false => Err(out_of_bounds(&digits, self)),
        }
    }

    fn allowed(&self) -> Option<String> {
        Some(format!("{} to {}", self.0, self.1))
    }
}

/// A number of bytes such as `"64KiB"`, from the first bound to the second, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64, pub u64);

impl Kind for Size {
    type Value = u64;

    fn read(&self, value: &DeValue<'_>) -> Result<u64, String> {
        let Some(text) = value.as_str() else {
            return Err(wanted("a size in quotes, such as \"64KiB\"", value));
        };
        let Ok(size) = text.trim().parse::<ByteSize>() else {
            return Err(format!("{text:?} is not a size such as \"64KiB\""));
        };
        match (self.0..=self.1).contains(&size.0) {
            true => Ok(size.0),
            false => Err(out_of_bounds(text, self)),
        }
    }

    fn allowed(&self) -> Option<String> {
        match (self.0, self.1) {
            (0, u64::MAX) => None,
            (least, u64::MAX) => Some(format!("at least {}", SpelledBytes(least))),
            (least, most) => Some(format!("{} to {}", SpelledBytes(least), SpelledBytes(most))),
        }
    }
}

/// A span of time such as `"10s"`, from the first bound to the second.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Duration, pub Duration);

impl Kind for Time {
    type Value = Duration;

    fn read(&self, value: &DeValue<'_>) -> Result<Duration, String> {
        let Some(text) = value.as_str() else {
            return Err(wanted("a time in quotes, such as \"10s\"", value));
        };
        let Ok(time) = humantime::parse_duration(text.trim()) else {
            return Err(format!(
                "{text:?} is not a time such as \"10s\", \"5m\" or \"1d\""
            ));
        };
        match (self.0..=self.1).contains(&time) {
            true => Ok(time),
            false => Err(out_of_bounds(text, self)),
        }
    }

    fn allowed(&self) -> Option<String> {
        Some(format!("{} to {}", Spelled(self.0), Spelled(self.1)))
    }
}

/// Text without control characters.
#[derive(Clone, Copy, Debug)]
pub struct Text();

impl Kind for Text {
    type Value = String;

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let Some(text) = value.as_str() else {
            return Err(wanted("text in quotes", value));
        };
        if text.chars().any(char::is_control) {
            return Err(format!("{text:?} has a control character in it"));
        }
        Ok(text.to_owned())
    }
}

/// A list of texts, of at least and at most so many.
#[derive(Clone, Copy, Debug)]
pub struct List(pub usize, pub usize);

impl Kind for List {
    type Value = Vec<String>;

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let Some(items) = value.as_array() else {
            return Err(wanted("a list of texts, such as [\"a\", \"b\"]", value));
        };
        if items.len() < self.0 {
            return Err(match items.len() {
                0 => "must not be empty".to_owned(),
                _ => format!("must have at least {} items", self.0),
            });
        }
        if items.len() > self.1 {
            return Err(format!(
                "has {} items, at most {} are allowed",
                items.len(),
                self.1
            ));
        }
        items
            .iter()
            .map(|item| Text().read(item.get_ref()))
            .collect()
    }
}

/// A directory of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    /// Its path, as it is given.
    pub path: String,
    /// Its limit in bytes.
    pub disk_bytes_max: u64,
}

/// A list of directories, at most so many, each with a limit of at least so many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Dirs(pub usize, pub u64);

impl Dirs {
    fn read_one(self, value: &DeValue<'_>) -> Result<Dir, String> {
        let Some(table) = value.as_table() else {
            return Err(wanted(DIRS_EXAMPLE, value));
        };
        let mut dir = (None, None);
        for (name, value) in table {
            let within = |reason| format!("{}: {reason}", name.get_ref());
            let value = value.get_ref();
            match name.get_ref().as_ref() {
                "path" => dir.0 = Some(Text().read(value).map_err(within)?),
                "disk_bytes_max" => {
                    let size = Size(self.1, u64::MAX).read(value);
                    dir.1 = Some(size.map_err(within)?);
                }
                _ => {
                    return Err(within(
                        "a directory has only path and disk_bytes_max".to_owned(),
                    ));
                }
            }
        }
        match dir {
            (Some(path), Some(disk_bytes_max)) if !path.is_empty() => Ok(Dir {
                path,
                disk_bytes_max,
            }),
            _ => Err("each directory must have a path and disk_bytes_max".to_owned()),
        }
    }
}

impl Kind for Dirs {
    type Value = Vec<Dir>;

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Dir>, String> {
        let Some(items) = value.as_array() else {
            return Err(wanted(DIRS_EXAMPLE, value));
        };
        if items.len() > self.0 {
            return Err(format!(
                "has {} items, at most {} are allowed",
                items.len(),
                self.0
            ));
        }
        items
            .iter()
            .map(|item| self.read_one(item.get_ref()))
            .collect()
    }

    fn allowed(&self) -> Option<String> {
        Some(format!(
            "at most {}, each with at least {}",
            self.0,
            SpelledBytes(self.1)
        ))
    }
}

/// One of a few words, each with its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Clone + Default> Kind for Choice<T> {
    type Value = T;

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let words = || {
            self.0
                .iter()
                .map(|(word, _)| format!("{word:?}"))
                .collect::<Vec<_>>()
        };
        let Some(text) = value.as_str() else {
            return Err(wanted(&format!("one of {}", words().join(", ")), value));
        };
        let meaning = self.0.iter().find(|(word, _)| *word == text);
        meaning.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
            let hint = match nearest(text, self.0.iter().map(|(word, _)| *word)) {
                Some(word) => format!("; did you mean {word:?}?"),
                None => String::new(),
            };
            format!("{text:?} is not one of {}{hint}", words().join(", "))
        })
    }

    fn allowed(&self) -> Option<String> {
        let words = self.0.iter().map(|(word, _)| format!("{word:?}"));
        Some(words.collect::<Vec<_>>().join(", "))
    }
}

/// Finds the known name that a misspelt one most likely meant.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let mut best = None;
    for candidate in known {
        let score = strsim::jaro_winkler(name, candidate);
        if score > NEAR && best.is_none_or(|(best_score, _)| score > best_score) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A duration that prints the way the config spells it.
struct Spelled(Duration);

impl std::fmt::Display for Spelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis();
        for (unit, length) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
        ] {
            if millis >= length && millis.is_multiple_of(length) {
                return write!(f, "{}{unit}", millis / length);
            }
        }
        match millis {
            0 => f.write_str("0s"),
            _ => write!(f, "{millis}ms"),
        }
    }
}

/// A number of bytes that prints the way the config spells it.
struct SpelledBytes(u64);

impl std::fmt::Display for SpelledBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let count = self.0 >> shift;
            if count > 0 && count << shift == self.0 {
                return write!(f, "{count}{unit}");
            }
        }
        write!(f, "{}B", self.0)
    }
}

fn out_of_bounds(text: &str, kind: &impl Kind) -> String {
    let allowed = kind.allowed().unwrap_or_default();
    format!("{text} is out of bounds: {allowed}")
}

fn wanted(what: &str, value: &DeValue<'_>) -> String {
    format!("must be {what}, not {}", article(value.type_str()))
}

/// Puts an article before the name of a TOML type.
fn article(noun: &str) -> String {
    match noun.starts_with(['a', 'i']) {
        true => format!("an {noun}"),
        false => format!("a {noun}"),
    }
}

const DIRS_EXAMPLE: &str =
    "a list of directories, such as [{ path = \"/disk1\", disk_bytes_max = \"100GiB\" }]";

/// Names less alike than this (Jaro-Winkler, 0 to 1) are no misspelling of each other.
const NEAR: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: Kind>(kind: &K, literal: &str) -> Result<K::Value, String> {
        kind.read(DeValue::parse(literal).unwrap().get_ref())
    }

    fn any_time() -> Time {
        Time(Duration::ZERO, Duration::from_secs(86_400 * 365))
    }

    #[test]
    fn sizes_count_in_powers_of_two_or_of_ten() {
        let any = Size(0, u64::MAX);
        assert_eq!(read(&any, r#""0B""#), Ok(0));
        assert_eq!(read(&any, r#""64KiB""#), Ok(65_536));
        assert_eq!(read(&any, r#""64KB""#), Ok(64_000));
        assert_eq!(read(&any, r#""10GiB""#), Ok(10 << 30));
    }

    #[test]
    fn a_size_outside_its_bounds_names_them() {
        let error = read(&Size(1024, 4096), r#""1MiB""#).unwrap_err();
        assert_eq!(error, "1MiB is out of bounds: 1KiB to 4KiB");
    }

    #[test]
    fn a_number_is_no_size() {
        let error = read(&Size(0, 10), "5").unwrap_err();
        assert_eq!(
            error,
            "must be a size in quotes, such as \"64KiB\", not an integer"
        );
    }

    #[test]
    fn nonsense_is_no_size() {
        for literal in [r#""""#, r#""-1KiB""#, r#""ten""#, r#""1 furlong""#] {
            assert!(read(&Size(0, u64::MAX), literal).is_err(), "{literal}");
        }
    }

    #[test]
    fn times_come_in_the_usual_units() {
        assert_eq!(read(&any_time(), r#""10s""#), Ok(Duration::from_secs(10)));
        assert_eq!(read(&any_time(), r#""5m""#), Ok(Duration::from_secs(300)));
        assert_eq!(
            read(&any_time(), r#""1d""#),
            Ok(Duration::from_secs(86_400))
        );
        assert_eq!(
            read(&any_time(), r#""250ms""#),
            Ok(Duration::from_millis(250))
        );
        assert_eq!(read(&any_time(), r#""0s""#), Ok(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_no_time() {
        for literal in [r#""""#, r#""10""#, r#""-1s""#, r#""soon""#, "10"] {
            assert!(read(&any_time(), literal).is_err(), "{literal}");
        }
    }

    #[test]
    fn bounds_of_times_are_spelled_as_the_config_spells_them() {
        let hour = Time(Duration::from_millis(100), Duration::from_secs(3600));
        assert_eq!(hour.allowed().unwrap(), "100ms to 1h");
        assert_eq!(
            read(&hour, r#""2h""#).unwrap_err(),
            "2h is out of bounds: 100ms to 1h"
        );
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(read(&Count(1, 9), "9"), Ok(9));
        assert_eq!(read(&Count(1, 9), "0x9"), Ok(9));
        for literal in ["0", "10", "-1", "99999999999999999999"] {
            assert!(
                read(&Count(1, 9), literal)
                    .unwrap_err()
                    .ends_with("is out of bounds: 1 to 9")
            );
        }
    }

    #[test]
    fn a_choice_suggests_the_nearest_word() {
        let choice = Choice(&[("honour", 1), ("ignore", 2)]);
        assert_eq!(read(&choice, r#""ignore""#), Ok(2));
        let error = read(&choice, r#""honor""#).unwrap_err();
        assert_eq!(
            error,
            r#""honor" is not one of "honour", "ignore"; did you mean "honour"?"#
        );
    }

    #[test]
    fn a_list_may_demand_an_item() {
        assert_eq!(read(&List(1, 2), "[]").unwrap_err(), "must not be empty");
        assert!(read(&List(1, 2), r#"["a", "b", "c"]"#).is_err());
        assert!(read(&List(1, 2), r#"["a", 1]"#).is_err());
        assert_eq!(read(&List(1, 2), r#"["a"]"#), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn control_characters_are_no_text() {
        assert!(read(&Text(), r#""a\u0000b""#).is_err());
    }

    #[test]
    fn the_nearest_name_is_none_when_all_are_far() {
        assert_eq!(
            nearest("header_timout", ["idle_timeout", "header_timeout"]),
            Some("header_timeout")
        );
        assert_eq!(nearest("zzz", ["idle_timeout", "header_timeout"]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in ".*") {
            let value = DeValue::String(text.into());
            let _unused = Size(1, 2).read(&value);
            let _unused = any_time().read(&value);
            let _unused = Choice(&[("a", 1)]).read(&value);
            let _unused = Text().read(&value);
        }
    }
}
