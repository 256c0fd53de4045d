//! The text format of Prometheus, version 0.0.4: what every scraper reads, Prometheus, Zabbix and
//! Telegraf among them. A family is written whole, its HELP and TYPE first.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};

use super::histogram::Histogram;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of a sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// The text as it grows. Writing to a string cannot fail.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A number that only rises; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "counter")
    }

    /// A number that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    /// Times in seconds.
    pub fn histogram(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, "histogram")
    }

    /// All of it.
    pub fn into_string(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> Family<'_> {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name: name.to_owned() }
    }
}

/// One family's samples.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Family<'_> {
    /// One sample.
    pub fn add(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.sample("", labels, None, value);
        self
    }

    /// One histogram, from microseconds.
    pub fn times(&mut self, labels: Labels<'_>, histogram: &Histogram, bounds: &[u64]) -> &mut Self {
        for (bound, below) in histogram.cumulative(bounds) {
            self.sample("_bucket", labels, Some(&seconds(bound)), below);
        }
        let count = histogram.count();
        self.sample("_bucket", labels, Some("+Inf"), count);
        self.sample("_sum", labels, None, seconds(histogram.sum()));
        self.sample("_count", labels, None, count);
        self
    }

    fn sample(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (at, (name, value)) in all.enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            escape(value, self.text);
            self.text.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Microseconds as seconds, exactly: `0.00025`, `30`.
pub fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(value: &str, into: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_has_them() {
        let mut text = Text::default();
        text.counter("a_total", "Of a.").add(&[("route", "x\"y\\z\n"), ("class", "gone")], 3);
        text.gauge("b", "Of b.").add(&[], -1);
        let mut histogram = Histogram::default();
        histogram.observe(&[250, 1_000_000], 300);
        text.histogram("c_seconds", "Of c.").times(&[("route", "r")], &histogram, &[250, 1_000_000]);
        insta::assert_snapshot!(text.into_string(), @r##"
        # HELP a_total Of a.
        # TYPE a_total counter
        a_total{route="x\"y\\z\n",class="gone"} 3
        # HELP b Of b.
        # TYPE b gauge
        b -1
        # HELP c_seconds Of c.
        # TYPE c_seconds histogram
        c_seconds_bucket{route="r",le="0.00025"} 0
        c_seconds_bucket{route="r",le="1"} 1
        c_seconds_bucket{route="r",le="+Inf"} 1
        c_seconds_sum{route="r"} 0.0003
        c_seconds_count{route="r"} 1
        "##);
    }

    #[test]
    fn seconds_are_exact() {
        for (micros, text) in
            [(0, "0"), (250, "0.00025"), (1_000_000, "1"), (2_500_000, "2.5"), (10_000_000, "10")]
        {
            assert_eq!(seconds(micros), text);
        }
    }
}
