//! A recorded stream, moved to another time. Pure.
//!
//! All that tells the time moves by the same whole number of seconds, so that what belongs together
//! still does: `Timestamp`, the epochs in uniqueids and linkedids, a Cdr's epochs and local times.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use parsers::Micros;

/// One recorded stream.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Messages in order, each with its time.
    pub messages: Vec<(Micros, &'static str)>,
    /// The linkedid that the call has from its first event on.
    pub linkedid: String,
    /// `StartTime` and `Source` of each Cdr.
    pub cdrs: Vec<(String, String)>,
}

/// How far a recording is moved.
#[derive(Clone, Debug)]
pub struct Shift {
    /// Later by so much.
    pub seconds: i64,
    /// Added to the numbers of uniqueids, channels and bridges, so that no two plays share any.
    pub offset: u32,
    /// Of the local times in Cdrs.
    pub zone: TimeZone,
}

impl Recording {
    /// Reads a stream that `timestampevents` stamped; messages without a time are left out.
    pub fn new(stream: &'static [u8]) -> Self {
        let text = std::str::from_utf8(stream).unwrap_or_default();
        let stamped = |message: &'static str| Some((Micros::parse(header(message, "Timestamp")?)?, message));
        let messages: Vec<_> = text.split("\r\n\r\n").filter_map(stamped).collect();
        let linkedid =
            messages.first().and_then(|(_, message)| header(message, "Linkedid")).unwrap_or_default();
        let cdr = |(_, message): &(Micros, &'static str)| {
            let field = |key| header(message, key).unwrap_or_default().to_owned();
            (header(message, "Event") == Some("Cdr")).then(|| (field("StartTime"), field("Source")))
        };
        let cdrs = messages.iter().filter_map(cdr).collect();
        Self { linkedid: linkedid.to_owned(), cdrs, messages }
    }

    /// The first message's time.
    pub fn first(&self) -> Micros {
        self.messages.first().map_or(Micros(0), |(at, _)| *at)
    }
}

/// The first value of that header.
pub(super) fn header<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    headers(message).find(|(name, _)| *name == key).map(|(_, value)| value)
}

pub(super) fn headers(message: &str) -> impl Iterator<Item = (&str, &str)> {
    message.split("\r\n").filter_map(|line| line.split_once(": "))
}

impl Shift {
    /// A whole message with its empty line, moved.
    pub fn message(&self, message: &str) -> String {
        let mut moved = String::with_capacity(message.len() + 16);
        for (key, value) in headers(message) {
            moved.push_str(key);
            moved.push_str(": ");
            moved.push_str(&self.value(key, value).unwrap_or_else(|| value.to_owned()));
            moved.push_str("\r\n");
        }
        moved.push_str("\r\n");
        moved
    }

    /// A time moved.
    pub fn time(&self, at: Micros) -> Micros {
        Micros(at.0 + self.seconds * Micros::SECOND)
    }

    /// `None`: stays as it is.
    fn value(&self, key: &str, value: &str) -> Option<String> {
        let ends = |end: &str| {
            key.len() >= end.len()
                && key.is_char_boundary(key.len() - end.len())
                && key[key.len() - end.len()..].eq_ignore_ascii_case(end)
        };
        if key == "Timestamp" || key.ends_with("Epoch") {
            let (seconds, fraction) = value.split_once('.')?;
            return Some(format!("{}.{fraction}", seconds.parse::<i64>().ok()? + self.seconds));
        }
        if matches!(key, "StartTime" | "AnswerTime" | "EndTime") {
            return self.local(value);
        }
        if ends("BridgeUniqueid") || ends("BridgeId") {
            return self.bridge(value);
        }
        if ends("uniqueid") || ends("linkedid") {
            return self.uniqueid(value);
        }
        if ends("channel") {
            return self.channel(value);
        }
        None
    }

    /// `1795252767.3`: seconds, and a number.
    pub fn uniqueid(&self, value: &str) -> Option<String> {
        let (seconds, number) = value.split_once('.')?;
        let (seconds, number) = (seconds.parse::<i64>().ok()?, number.parse::<u32>().ok()?);
        Some(format!("{}.{}", seconds + self.seconds, number + self.offset))
    }

    /// `2026-11-21 09:19:27`, recorded in UTC.
    pub fn local(&self, value: &str) -> Option<String> {
        let recorded = DateTime::strptime("%Y-%m-%d %H:%M:%S", value).ok()?;
        let recorded = recorded.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        let moved = Timestamp::from_second(recorded + self.seconds).ok()?.to_zoned(self.zone.clone());
        Some(moved.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// `PJSIP/trunk-0000001a`: a number in eight hex digits.
    fn channel(&self, value: &str) -> Option<String> {
        let (name, half) = value.split_once(';').map_or((value, None), |(name, half)| (name, Some(half)));
        let (name, number) = name.rsplit_once('-').filter(|(_, number)| number.len() == 8)?;
        let number = u32::from_str_radix(number, 16).ok()?;
        let half = half.map(|half| format!(";{half}")).unwrap_or_default();
        Some(format!("{name}-{:08x}{half}", number.wrapping_add(self.offset)))
    }

    /// A UUID: its first part.
    fn bridge(&self, value: &str) -> Option<String> {
        let (first, rest) = value.split_once('-')?;
        let first = u32::from_str_radix(first, 16).ok()?;
        Some(format!("{:08x}-{rest}", first.wrapping_add(self.offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shift() -> Shift {
        Shift { seconds: 10, offset: 1000, zone: TimeZone::fixed(jiff::tz::offset(-4)) }
    }

    #[test]
    fn everything_that_tells_the_time_moves_together() {
        for (before, after) in [
            ("Timestamp: 1795252767.930913", "Timestamp: 1795252777.930913"),
            ("Uniqueid: 1795252767.0", "Uniqueid: 1795252777.1000"),
            ("DestLinkedid: 1795252767.3", "DestLinkedid: 1795252777.1003"),
            ("UniqueID: 1795252767.0", "UniqueID: 1795252777.1000"),
            ("StartEpoch: 1795252767.931813", "StartEpoch: 1795252777.931813"),
            ("StartTime: 2026-11-21 09:19:27", "StartTime: 2026-11-21 05:19:37"),
            ("AnswerTime: ", "AnswerTime: "),
            ("AnswerEpoch: ", "AnswerEpoch: "),
            ("Channel: PJSIP/my-trunk-0000001f", "Channel: PJSIP/my-trunk-00000407"),
            ("DestChannel: Local/1@x-00000001;2", "DestChannel: Local/1@x-000003e9;2"),
            ("DestinationChannel: ", "DestinationChannel: "),
            (
                "BridgeUniqueid: 89f600ab-ce48-4328-af34-719c35036df7",
                "BridgeUniqueid: 89f60493-ce48-4328-af34-719c35036df7",
            ),
            ("CallerIDNum: 1795252767", "CallerIDNum: 1795252767"),
            ("Duration: 3", "Duration: 3"),
        ] {
            assert_eq!(shift().message(before), format!("{after}\r\n\r\n"));
        }
    }

    #[test]
    fn every_scene_is_a_stamped_stream_with_a_call() {
        for scene in super::super::SCENES {
            let recording = Recording::new(scene.stream);
            assert!(recording.messages.len() >= 2, "{}", scene.name);
            assert!(recording.messages.is_sorted_by_key(|(at, _)| at.0 / 10_000), "{}", scene.name);
            assert!(recording.linkedid.contains('.'), "{}", scene.name);
            assert_eq!(recording.cdrs.is_empty(), scene.name == "sms", "{}", scene.name);
        }
    }

    #[test]
    fn a_moved_stream_keeps_its_durations() {
        for scene in super::super::SCENES {
            for (_, message) in Recording::new(scene.stream).messages {
                let moved = shift().message(message);
                let seconds = |text: &str, key: &str| header(text, key).and_then(Micros::parse);
                assert_eq!(
                    seconds(&moved, "Timestamp").map(|at| at.0),
                    seconds(message, "Timestamp").map(|at| at.0 + 10 * Micros::SECOND)
                );
                assert_eq!(headers(&moved).count(), headers(message).count());
            }
        }
    }
}
