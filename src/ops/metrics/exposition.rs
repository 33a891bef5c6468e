//! Families of samples as text: what Prometheus has scraped since 2014, and OpenMetrics 1.0.
//!
//! Which of the two is decided by what a scraper accepts. What is written is the same but for the
//! names of counters in comments and the last line; so dashboards need not know which was asked for.

use crate::flow::meter::BOUNDS;
use crate::flow::meter::Reading;
use http::HeaderMap;
use http::header;
use std::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

/// How samples are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sums that only grow. Its samples' names end in `_total`.
    Counter,
    /// Numbers that come and go.
    Gauge,
    /// Counts by steps.
    Histogram,
}

/// The page that a scraper gets.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    form: Form,
}

/// A family whose samples are being written.
#[derive(Debug)]
pub(super) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
    suffix: &'static str,
}

/// Labels and their values; the names are fixed, the values from the config or fixed vocabularies.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

impl Form {
    /// Chooses by the Accept fields of a scraper: OpenMetrics for whoever likes it no less.
    pub fn chosen_by(headers: &HeaderMap) -> Self {
        let (mut open, mut text) = (0, 0);
        let fields = headers.get_all(header::ACCEPT);
        let members = fields.iter().filter_map(|field| field.to_str().ok());
        for member in members.flat_map(|field| field.split(',')) {
            let mut parts = member.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut known) = (1000, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = thousandths(value),
                    "version" => known = OPEN_METRICS_VERSIONS.contains(&value),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if known => open = open.max(weight),
                "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        match open > 0 && open >= text {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// What Content-Type says of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A weight (RFC 9110 §12.4.2) in thousandths; what is none weighs nothing.
fn thousandths(weight: &str) -> u32 {
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{whole}{rest:0<3}");
    match digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().unwrap_or(0).min(1000),
        false => 0,
    }
}

impl Page {
    /// An empty page.
    pub(super) fn new(form: Form) -> Self {
        let text = String::with_capacity(PAGE_BYTES);
        Self { text, form }
    }

    /// Begins a family. `name` is without `_total`; `help` has neither a quote nor a backslash.
    pub(super) fn family(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
    ) -> Family<'_> {
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        let told = match self.form {
            Form::Text => suffix,
            // There a counter's family goes without what its samples end in.
            Form::OpenMetrics => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name}{told} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{told} {kind}");
        Family {
            page: self,
            name,
            suffix,
        }
    }

    /// One number without labels, in a family of its own.
    pub(super) fn single(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        value: impl Display,
    ) {
        self.family(kind, name, help).sample(&[], value);
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line(self.suffix, labels, None, value);
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, reading: &Reading) {
        let mut count = 0;
        let steps = BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for (step, bound) in reading.counts.iter().zip(steps) {
            count += step;
            self.line("_bucket", labels, Some(bound), count);
        }
        let sum = Duration::from_nanos(reading.nanos).as_secs_f64();
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let labels = labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)));
        let mut before = '{';
        for (name, value) in labels {
            text.push(before);
            before = ',';
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
        }
        if before == ',' {
            text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, " {value}");
    }
}

/// Writes a label's value so that it stays within its quotes and its line.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
}

const OPEN_METRICS_VERSIONS: [&str; 2] = ["0.0.1", "1.0.0"];
/// What most pages fit into.
const PAGE_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::meter::Histogram;

    fn chosen(accept: &[&str]) -> Form {
        let mut headers = HeaderMap::new();
        for field in accept {
            headers.append(header::ACCEPT, field.parse().unwrap());
        }
        Form::chosen_by(&headers)
    }

    #[test]
    fn who_accepts_open_metrics_gets_it_unless_text_is_liked_better() {
        // What Prometheus 2 and 3 send.
        let open = "application/openmetrics-text;version=1.0.0;q=0.5,\
                    application/openmetrics-text;version=0.0.1;q=0.4,\
                    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(chosen(&[open]), Form::OpenMetrics);
        let escaping = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2";
        assert_eq!(chosen(&[escaping]), Form::OpenMetrics);
        let apart = ["text/plain;q=0.2", "application/openmetrics-text; q=0.3"];
        assert_eq!(chosen(&apart), Form::OpenMetrics);
    }

    #[test]
    fn everybody_else_gets_text() {
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html, */*;q=0.8"],
            &["application/openmetrics-text;q=0.2, text/plain"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=x"],
            &["application/openmetrics-text;version=2.0.0"],
            &["application/vnd.google.protobuf"],
            &[",;q=,="],
        ] {
            assert_eq!(chosen(accept), Form::Text, "{accept:?}");
        }
    }

    #[test]
    fn weights_are_read_in_thousandths() {
        for (weight, expected) in [
            ("1", 1000),
            ("1.000", 1000),
            ("0.5", 500),
            ("0.125", 125),
            ("0", 0),
            ("9", 1000),
            ("", 0),
            ("0.1234", 0),
            ("-1", 0),
        ] {
            assert_eq!(thousandths(weight), expected, "{weight}");
        }
    }

    fn page(form: Form) -> String {
        let mut page = Page::new(form);
        page.family(Kind::Counter, "larder_a", "What a is.")
            .sample(&[("x", "1"), ("y", "q\"b\\n\n")], 7);
        page.single(Kind::Gauge, "larder_b", "What b is.", 0.5);
        page.finish()
    }

    #[test]
    fn text_is_as_prometheus_reads_it() {
        assert_eq!(
            page(Form::Text),
            "# HELP larder_a_total What a is.\n\
             # TYPE larder_a_total counter\n\
             larder_a_total{x=\"1\",y=\"q\\\"b\\\\n\\n\"} 7\n\
             # HELP larder_b What b is.\n\
             # TYPE larder_b gauge\n\
             larder_b 0.5\n"
        );
    }

    #[test]
    fn open_metrics_names_families_and_ends() {
        assert_eq!(
            page(Form::OpenMetrics),
            "# HELP larder_a What a is.\n\
             # TYPE larder_a counter\n\
             larder_a_total{x=\"1\",y=\"q\\\"b\\\\n\\n\"} 7\n\
             # HELP larder_b What b is.\n\
             # TYPE larder_b gauge\n\
             larder_b 0.5\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_histogram_counts_all_up_to_each_bound() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(30));
        histogram.record(Duration::from_millis(2));
        histogram.record(Duration::from_secs(60));
        let mut page = Page::new(Form::Text);
        page.family(Kind::Histogram, "larder_h", "What h is.")
            .histogram(&[("x", "1")], &histogram.read());
        let text = page.finish();
        for line in [
            "larder_h_bucket{x=\"1\",le=\"0.000025\"} 0",
            "larder_h_bucket{x=\"1\",le=\"0.00005\"} 1",
            "larder_h_bucket{x=\"1\",le=\"0.001\"} 1",
            "larder_h_bucket{x=\"1\",le=\"0.0025\"} 2",
            "larder_h_bucket{x=\"1\",le=\"30.0\"} 2",
            "larder_h_bucket{x=\"1\",le=\"+Inf\"} 3",
            "larder_h_sum{x=\"1\"} 60.00203",
            "larder_h_count{x=\"1\"} 3",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_accept_field_chooses_one(accept in "[ -~]{0,80}") {
            chosen(&[&accept]);
        }

        #[test]
        fn any_value_of_a_label_stays_on_its_line(value: String) {
            let mut page = Page::new(Form::Text);
            page.family(Kind::Gauge, "larder_g", "g").sample(&[("x", &value)], 1);
            proptest::prop_assert_eq!(page.finish().matches('\n').count(), 3);
        }
    }
}
