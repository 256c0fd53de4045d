//! Identities: newtypes made at the parser's edge, so that no bare id string passes it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC: the one form of time inside the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// One second.
    pub const SECOND: i64 = 1_000_000;

    /// From whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(Self::SECOND))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(Self::SECOND)
    }

    /// This much later.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Whole seconds from `earlier` to here; 0 when the clock went back.
    pub const fn secs_since(self, earlier: Self) -> i64 {
        let micros = self.0.saturating_sub(earlier.0);
        if micros < 0 { 0 } else { micros / Self::SECOND }
    }

    /// Reads `1795252767.935415`: seconds, and up to six digits of fraction.
    /// The form of AMI's `Timestamp` header and of `CDR(start,u)`.
    pub fn parse(text: &str) -> Option<Self> {
        let (secs, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if fraction.len() > 6 || !is_digits(secs) || !is_digits(fraction) {
            return None;
        }
        let secs: i64 = secs.parse().ok()?;
        let scale = 10_i64.pow(6_u32.saturating_sub(u32::try_from(fraction.len()).ok()?));
        let micros = fraction.parse::<i64>().ok()?.checked_mul(scale)?;
        Some(Self(secs.checked_mul(Self::SECOND)?.checked_add(micros)?))
    }
}

macro_rules! id_string {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes any text: Asterisk lets others choose it.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text as Asterisk wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_string! {
    /// A channel's `Uniqueid`: `[systemname-]epoch.sequence`, or any text that a client chose.
    /// Ordered by epoch and sequence where it has them (`…67.9` before `…67.10`).
    Uniqueid
}

id_string! {
    /// A `Linkedid`: the uniqueid of the oldest channel of a call.
    Linkedid
}

id_string! {
    /// A channel's name, `PJSIP/1001-0000002a` or `Local/1001@ctx-0000001b;1`.
    ChannelName
}

impl Uniqueid {
    /// The channel's creation time and number, if the id has Asterisk's own form
    /// (`^(?:.+-)?(\d{9,10})\.\d+$`).
    pub fn epoch(&self) -> Option<(u64, u64)> {
        epoch(&self.0)
    }
}

impl Linkedid {
    /// As [`Uniqueid::epoch`].
    pub fn epoch(&self) -> Option<(u64, u64)> {
        epoch(&self.0)
    }
}

impl PartialOrd for Uniqueid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Uniqueid {
    fn cmp(&self, other: &Self) -> Ordering {
        by_epoch(&self.0, &other.0)
    }
}

impl PartialOrd for Linkedid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Linkedid {
    fn cmp(&self, other: &Self) -> Ordering {
        by_epoch(&self.0, &other.0)
    }
}

impl PartialOrd for ChannelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChannelName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

fn epoch(id: &str) -> Option<(u64, u64)> {
    let (head, sequence) = id.rsplit_once('.')?;
    let seconds = match head.rsplit_once('-') {
        Some(("", _)) => return None,
        Some((_, seconds)) => seconds,
        None => head,
    };
    if !(9..=10).contains(&seconds.len()) || !is_digits(seconds) || !is_digits(sequence) {
        return None;
    }
    Some((seconds.parse().ok()?, sequence.parse().ok()?))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn by_epoch(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    if let (Some(a), Some(b)) = (plain(a), plain(b)) {
        return a.cmp(&b);
    }
    match (epoch(a), epoch(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// The parts of `1795252767.12`, numbers of one length being in the order of their bytes. `None` for
/// what has another form, although [`epoch`] may read it.
fn plain(id: &str) -> Option<(&[u8], usize, &[u8])> {
    let (seconds, sequence) = id.as_bytes().split_at_checked(10)?;
    let (dot, sequence) = sequence.split_first()?;
    let is_number = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit) && bytes.first() != Some(&b'0');
    let zero = sequence == b"0";
    let plain = *dot == b'.' && is_number(seconds) && (1..19).contains(&sequence.len());
    (plain && (zero || is_number(sequence))).then_some((seconds, sequence.len(), sequence))
}

/// Which half of a Local channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalHalf {
    /// `;1`, the side that was dialled.
    One,
    /// `;2`, the side that runs the dialplan.
    Two,
}

impl ChannelName {
    /// The technology, `PJSIP` of `PJSIP/1001-0000002a`; the whole text without a slash.
    pub fn tech(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(tech, _)| tech)
    }

    /// Which half, for a Local channel.
    pub fn local_half(&self) -> Option<LocalHalf> {
        if !self.tech().eq_ignore_ascii_case("Local") {
            return None;
        }
        match self.0.rsplit_once(';')?.1 {
            "1" => Some(LocalHalf::One),
            "2" => Some(LocalHalf::Two),
            _ => None,
        }
    }

    /// A Local channel's name without its half, equal for both.
    pub fn local_pair(&self) -> Option<&str> {
        self.local_half()?;
        Some(self.0.rsplit_once(';')?.0)
    }

    /// Technology and endpoint without the instance: `PJSIP/my-trunk` of `PJSIP/my-trunk-00000012`.
    /// An instance is a last `-` and 8 hex digits for PJSIP, SIP and Local; other technologies (DAHDI,
    /// IAX2, Dongle) lose what follows their last `-`.
    pub fn endpoint(&self) -> &str {
        let name = self.local_pair().unwrap_or(&self.0);
        let Some((endpoint, instance)) = name.rsplit_once('-') else { return name };
        let hex = matches!(self.tech(), "PJSIP" | "SIP" | "Local");
        let is_instance = instance.len() == 8 && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex && !is_instance { name } else { endpoint }
    }
}

/// A caller's number and name. `<unknown>` and the empty text are `None`; a bare `unknown` is what some
/// trunk really sent, and stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallerId {
    /// The number as presented.
    pub num: Option<Arc<str>>,
    /// The name as presented, unescaped.
    pub name: Option<Arc<str>>,
}
