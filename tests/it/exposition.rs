//! A strict reader of what scrapers get: everything the two formats forbid is a failure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A page of samples.
pub(crate) struct Page {
    /// What each family is, by name.
    pub(crate) kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

/// One number.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    /// Reads the text format of Prometheus, version 0.0.4.
    #[track_caller]
    pub(crate) fn text(text: &str) -> Self {
        Self::read(text, false)
    }

    /// Reads OpenMetrics, version 1.0.
    #[track_caller]
    pub(crate) fn open_metrics(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("the end of the page");
        Self::read(text, true)
    }

    #[track_caller]
    fn read(text: &str, open: bool) -> Self {
        assert!(text.ends_with('\n'), "the last line is not ended");
        let mut page = Self {
            kinds: BTreeMap::new(),
            samples: Vec::new(),
        };
        let (mut family, mut helped, mut seen) = (String::new(), String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && help.ends_with('.'), "{line}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(is_name(name), "{line}");
                assert_eq!(name, helped, "help and type stand together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let before = page.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} comes twice");
                family = name.to_owned();
            } else {
                let sample = Sample::read(line);
                let suffix = sample.name.strip_prefix(&family).expect(line);
                let suffixes: &[&str] = match (page.kinds[&family].as_str(), open) {
                    ("counter", true) => &["_total"],
                    ("histogram", _) => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line} in {family}");
                let series = line.rsplit_once(' ').expect(line).0.to_owned();
                assert!(seen.insert(series), "{line} comes twice");
                page.samples.push(sample);
            }
        }
        page.check_histograms();
        page
    }

    /// Steps grow, the last is all there are, and the sum has the same sign as the count.
    fn check_histograms(&self) {
        let kinds = self.kinds.iter();
        for (family, _) in kinds.filter(|(_, kind)| *kind == "histogram") {
            let mut steps: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.of(&format!("{family}_bucket")) {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le").expect("a bound");
                let bound = bound.replace("+Inf", "inf").parse().expect("a bound");
                steps.entry(labels).or_default().push((bound, sample.value));
            }
            for (labels, steps) in steps {
                assert!(steps.is_sorted_by(|one, next| one.0 < next.0), "{family}");
                assert!(steps.is_sorted_by(|one, next| one.1 <= next.1), "{family}");
                let last = *steps.last().expect("a step");
                let count = self.exactly(&format!("{family}_count"), &labels);
                assert_eq!(last, (f64::INFINITY, count), "{family} {labels:?}");
                let sum = self.exactly(&format!("{family}_sum"), &labels);
                assert_eq!(sum > 0.0, count > 0.0, "{family} {labels:?}");
            }
        }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
    }

    fn exactly(&self, name: &str, labels: &BTreeMap<String, String>) -> f64 {
        let mut found = self.of(name).filter(|sample| sample.labels == *labels);
        found
            .next()
            .unwrap_or_else(|| panic!("no {name} {labels:?}"))
            .value
    }

    /// The sum of all samples of this name that have these labels; zero when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            let mut labels = labels.iter();
            labels.all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value))
        };
        self.of(name).filter(has).map(|sample| sample.value).sum()
    }

    /// Every name that a sample of these families can have.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let kinds = self.kinds.iter();
        kinds
            .flat_map(|(name, kind)| match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .map(|end| format!("{name}{end}"))
                    .to_vec(),
                _ => vec![name.clone()],
            })
            .collect()
    }

    /// Every value that a label has.
    pub(crate) fn values(&self, label: &str) -> BTreeSet<&str> {
        let values = self
            .samples
            .iter()
            .filter_map(|sample| sample.labels.get(label));
        values.map(String::as_str).collect()
    }
}

impl Sample {
    #[track_caller]
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let mut sample = Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            value,
        };
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = unquote(after).expect(line);
            let before = sample.labels.insert(label.to_owned(), value);
            assert!(before.is_none(), "{line}");
            rest = match after {
                "" => "",
                _ => after
                    .strip_prefix(',')
                    .filter(|rest| !rest.is_empty())
                    .expect(line),
            };
        }
        sample
    }
}

/// What stands up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                quoted @ ('"' | '\\') => quoted,
                _ => return None,
            }),
            _ => value.push(character),
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(fits)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit())
}
