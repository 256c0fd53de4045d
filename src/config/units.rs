//! Durations and sizes as people write them: `30 days`, `75 h`, `1 GiB`.

use std::time::Duration;

const DURATIONS: [(&[&str], u64); 6] = [
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["min", "m", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 604_800_000),
];

const SIZES: [(&[&str], u64); 8] = [
    (&["B", "byte", "bytes"], 1),
    (&["kB", "KB"], 1_000),
    (&["KiB"], 1 << 10),
    (&["MB"], 1_000_000),
    (&["MiB"], 1 << 20),
    (&["GB"], 1_000_000_000),
    (&["GiB"], 1 << 30),
    (&["TiB"], 1 << 40),
];

/// A duration with its unit: `30 days`, `1.5h`, `250 ms`. `None` if it is not one.
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATIONS).map(Duration::from_millis)
}

/// A number of bytes with its unit: `1 GiB`, `500MB`. `None` if it is not one.
pub fn size(text: &str) -> Option<u64> {
    scaled(text, &SIZES)
}

/// The duration in its largest whole unit, as [`duration`] reads it.
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (names, unit) = DURATIONS
        .iter()
        .rev()
        .skip(1) // "75 h" and "30 days" say more than weeks
        .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit))
        .unwrap_or(&DURATIONS[0]);
    let count = millis / unit;
    match names[0] {
        "d" if count == 1 => "1 day".to_owned(),
        "d" => format!("{count} days"),
        short => format!("{count} {short}"),
    }
}

/// The size in its largest whole binary unit, as [`size`] reads it.
pub fn size_text(bytes: u64) -> String {
    let (names, unit) = SIZES
        .iter()
        .rev()
        .filter(|(_, unit)| unit.is_power_of_two())
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .unwrap_or(&SIZES[0]);
    format!("{} {}", bytes / unit, names[0])
}

/// `amount unit` in the smallest unit; at most three decimals.
fn scaled(text: &str, units: &[(&[&str], u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (amount, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let (_, unit) = units.iter().find(|(names, _)| names.contains(&unit))?;
    let (whole, decimals) = amount.split_once('.').unwrap_or((amount, ""));
    if decimals.len() > 3 || (amount.contains('.') && decimals.is_empty()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = if decimals.is_empty() { 0 } else { format!("{decimals:0<3}").parse().ok()? };
    let scaled = u128::from(whole) * 1_000 + u128::from(thousandths);
    u64::try_from(scaled * u128::from(*unit) / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30 days", Some(2_592_000_000)),
            ("75 h", Some(270_000_000)),
            ("75h", Some(270_000_000)),
            ("1.5 s", Some(1_500)),
            ("250ms", Some(250)),
            (" 1 week ", Some(604_800_000)),
            ("0.001 s", Some(1)),
            ("30", None),
            ("days", None),
            ("-3 s", None),
            ("3 fortnights", None),
            ("1. s", None),
            (".5 s", None),
            ("1.2.3 s", None),
            ("99999999999999999999 s", None),
            ("9999999999999999999 days", None),
            ("", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), millis, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1 GiB", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("0.5 GiB", Some(1 << 29)),
            ("500 MB", Some(500_000_000)),
            ("64 B", Some(64)),
            ("1 gib", None),
            ("1", None),
            ("99999999 TiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..10_000_000_000, bytes in 0_u64..1 << 50) {
            prop_assert_eq!(duration(&duration_text(Duration::from_millis(millis))), Some(Duration::from_millis(millis)));
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
