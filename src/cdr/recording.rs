//! The link to a recording: `[recordings] url`, a template, filled in from a part.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use jiff::tz::TimeZone;
use regex::Regex;

use super::fold::Part;
use super::zone;
use crate::config::Recordings;

/// The file of a recording and the day in whose directory it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Relative to the directory of recordings, `2026/11/21/in-….wav`; never absolute, never with `..`.
    pub path: String,
    /// The name alone.
    pub file: String,
    /// Year, month, day, as digits: FreePBX's, in the name.
    pub day: Option<[String; 3]>,
}

impl Recording {
    /// From `recordingfile`, which may be a bare name (FreePBX), a relative or an absolute path. `None`
    /// without a file, or when its name leads out of the directory.
    pub fn read(recordingfile: &str, config: &Recordings) -> Option<Self> {
        let given = recordingfile.trim();
        let relative = config.directory.as_deref().and_then(|root| Path::new(given).strip_prefix(root).ok());
        let relative = relative.and_then(Path::to_str).unwrap_or(given);
        let file = relative.rsplit('/').next()?.to_owned();
        // An absolute path elsewhere says nothing about the directory served: only the name is used.
        let relative = if relative.starts_with('/') { file.as_str() } else { relative };
        if file.is_empty() || relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return None;
        }
        let day = day(&file);
        let path = match &day {
            Some([yyyy, mm, dd]) if relative == file => format!("{yyyy}/{mm}/{dd}/{file}"),
            Some(_) | None => relative.to_owned(),
        };
        Some(Self { path, file, day })
    }
}

/// `[recordings] url` for a part: `{path}`, `{recordingfile}`, `{channel}`, `{uniqueid}`, `{yyyy}`, `{mm}`,
/// `{dd}`, each percent-encoded but for `/`. Anything else in braces stays as it is. `None` without
/// a template, or when the part lacks what the template asks for: no link is better than a dead one.
/// The day is the recording's own, else the part's local day.
pub fn url(config: &Recordings, part: &Part, zone: &TimeZone) -> Option<String> {
    let template = config.url.as_deref()?;
    let recording = part.recordingfile.as_deref().and_then(|file| Recording::read(file, config));
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        let value = match name {
            "path" => recording.as_ref()?.path.clone(),
            "recordingfile" => recording.as_ref()?.file.clone(),
            "channel" => part.channel.as_ref()?.as_str().to_owned(),
            "uniqueid" => part.uniqueid.as_ref()?.as_str().to_owned(),
            "yyyy" => date(recording.as_ref(), part, zone)?[0].clone(),
            "mm" => date(recording.as_ref(), part, zone)?[1].clone(),
            "dd" => date(recording.as_ref(), part, zone)?[2].clone(),
            _ => {
                out.push('{');
                rest = after;
                continue;
            }
        };
        escape(&value, &mut out);
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

fn date(recording: Option<&Recording>, part: &Part, zone: &TimeZone) -> Option<[String; 3]> {
    if let Some(day) = recording.and_then(|recording| recording.day.clone()) {
        return Some(day);
    }
    let text =
        part.start_local.as_deref().map(str::to_owned).or_else(|| zone::local_text(part.start, zone))?;
    let day = zone::civil(&text)?;
    Some([format!("{:04}", day.year()), format!("{:02}", day.month()), format!("{:02}", day.day())])
}

/// The day in FreePBX's name, `out-71222-002-20241105-091730-1730780250.107.wav`: numbers in it may
/// contain `-`, so it is found by its form and not by counting.
fn day(file: &str) -> Option<[String; 3]> {
    static DAY: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"-([0-9]{4})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])-[0-9]{6}-").ok());
    let found = DAY.as_ref()?.captures_iter(file).last()?;
    Some([found[1].to_owned(), found[2].to_owned(), found[3].to_owned()])
}

/// RFC 3986: all but unreserved characters, and `/`.
fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use parsers::cdr::Disposition;
    use parsers::{ChannelName, Micros, Uniqueid};

    use super::*;

    fn part(recordingfile: Option<&str>) -> Part {
        Part {
            start: Micros::from_secs(1_795_252_767),
            start_local: Some("2026-11-21 05:19:27".into()),
            duration: 3,
            billsec: 2,
            disposition: Disposition::Answered,
            source: None,
            destination: None,
            did: None,
            outbound: false,
            uniqueid: Some(Uniqueid::new("1795252767.0")),
            part: 0,
            linkedid: None,
            channel: Some(ChannelName::new("Local/1001@from-queue-0000001b;1")),
            recordingfile: recordingfile.map(Into::into),
        }
    }

    fn link(template: &str, file: Option<&str>) -> Option<String> {
        let config = Recordings {
            directory: Some("/var/spool/asterisk/monitor".into()),
            url: Some(template.to_owned()),
        };
        url(&config, &part(file), &TimeZone::UTC)
    }

    #[test]
    fn freepbx_s_day_comes_from_the_name_by_its_form() {
        for (name, path) in [
            ("out-71222-002-20241105-091730-1730780250.107.wav", "2024/11/05/"),
            ("in-555-1000-+58-414-20241231-235959-1735689599.1.wav", "2024/12/31/"),
            ("exten-1001-1002-20240229-000000-pbx-2-1709164800.3.mp3", "2024/02/29/"),
            ("out-20201301-1001-20241105-091730-1730780250.107.wav", "2024/11/05/"),
        ] {
            assert_eq!(
                link("https://pbx/r/{path}", Some(name)),
                Some(format!("https://pbx/r/{path}{}", name.replace('+', "%2B")))
            );
        }
    }

    #[test]
    fn templates() {
        let freepbx = Some("out-71222-002-20241105-091730-1730780250.107.wav");
        let table = [
            (
                "{yyyy}/{mm}/{dd}/{recordingfile}",
                freepbx,
                Some("2024/11/05/out-71222-002-20241105-091730-1730780250.107.wav"),
            ),
            ("{yyyy}/{mm}/{dd}/{recordingfile}", Some("in 1.wav"), Some("2026/11/21/in%201.wav")),
            ("{yyyy}-{mm}-{dd}", None, Some("2026-11-21")),
            ("{path}", Some("2014/02/03/q-é.wav"), Some("2014/02/03/q-%C3%A9.wav")),
            ("{path}", Some("/var/spool/asterisk/monitor/2014/a.wav"), Some("2014/a.wav")),
            ("{path}", Some("/home/x/secret/a.wav"), Some("a.wav")),
            ("{path}", Some("../../etc/shadow"), None),
            ("{path}", Some("/var/spool/asterisk/monitor/../x.wav"), None),
            ("{path}", Some("2014/"), None),
            ("{path}", Some(".."), None),
            ("{path}", None, None),
            ("{recordingfile}", None, None),
            (
                "https://pbx/call?{channel}",
                None,
                Some("https://pbx/call?Local/1001%40from-queue-0000001b%3B1"),
            ),
            ("{uniqueid}", None, Some("1795252767.0")),
            ("a{b}c{", None, Some("a{b}c{")),
            ("{{uniqueid}", None, Some("{1795252767.0")),
        ];
        for (template, file, expected) in table {
            assert_eq!(link(template, file).as_deref(), expected, "{template} of {file:?}");
        }
        assert_eq!(url(&Recordings::default(), &part(None), &TimeZone::UTC), None);
    }

    #[test]
    fn what_the_pbx_wrote_cannot_break_out_of_the_link() {
        let file = "a?b#c&d=e f%2e\r\n\"{uniqueid}.wav";
        assert_eq!(
            link("https://pbx/{recordingfile}", Some(file)).as_deref(),
            Some("https://pbx/a%3Fb%23c%26d%3De%20f%252e%0D%0A%22%7Buniqueid%7D.wav")
        );
    }
}
