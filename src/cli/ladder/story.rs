//! What of a call's AMI messages is worth a row, and between which channels it happened.

use std::collections::{HashMap, HashSet};

use anstyle::Style;
use parsers::Micros;

use super::line::{clean, cut};
use crate::cli::style;
use crate::journal::TraceMessage;

/// A message that says the same as another within this time needs no row of its own.
const SAME: i64 = 1_000_000;
/// Longest word from a message.
const MAX_WORD: usize = 32;
/// Channels beyond these are not drawn: paging a hundred phones is one row a phone already.
const MAX_CHANNELS: usize = 200;

/// A column.
#[derive(Debug)]
pub(super) struct Channel {
    /// As Asterisk names it.
    pub name: String,
    /// As the column is headed.
    pub short: String,
    /// Whose it is, as Asterisk presents it: a name, else a number; empty if the heading says it already.
    pub who: String,
    /// Half of a Local pair.
    pub local: bool,
    /// The row it is first there.
    pub first: usize,
    /// The row it hangs up in.
    pub last: Option<usize>,
}

/// Where a row's mark is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// At one channel.
    At(usize),
    /// From one to another.
    Arrow(usize, usize),
    /// Those who hear each other.
    Link(Vec<usize>),
}

/// One thing that happened.
#[derive(Debug)]
pub(super) struct Row {
    pub at: Micros,
    pub mark: Mark,
    pub text: String,
    pub style: Style,
}

/// Columns and rows.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub channels: Vec<Channel>,
    pub rows: Vec<Row>,
    by_id: HashMap<String, usize>,
    /// Who dialled it.
    dialler: HashMap<usize, usize>,
    /// Its dialling is over.
    ended: HashSet<usize>,
    held: HashSet<usize>,
    bridges: Vec<(String, Vec<usize>)>,
}

impl Story {
    pub(super) fn of(messages: &[TraceMessage]) -> Self {
        let mut story = Self::default();
        for (index, message) in messages.iter().enumerate() {
            let near = Near { messages, index };
            let Some((mark, text, style)) = story.tell(message, &near) else { continue };
            let text = if text.is_empty() { message.name.clone() } else { text };
            story.rows.push(Row { at: message.at, mark, text, style });
        }
        story.head();
        story
    }

    /// The channel of a block, a new column if it is not known.
    fn channel(&mut self, message: &TraceMessage, prefix: &str) -> Option<usize> {
        let id = get(message, &format!("{prefix}Uniqueid"))?;
        if let Some(known) = self.by_id.get(id).copied() {
            if let Some(channel) = self.channels.get_mut(known).filter(|channel| channel.who.is_empty()) {
                channel.who = who(message, prefix, &channel.short);
            }
            return Some(known);
        }
        let name = clean(get(message, &format!("{prefix}Channel"))?);
        if self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        let local = name.starts_with("Local/");
        let short = short(&name);
        let who = if local { String::new() } else { who(message, prefix, &short) };
        let channel = Channel { short, name, who, local, first: self.rows.len(), last: None };
        self.channels.push(channel);
        self.by_id.insert(id.to_owned(), self.channels.len() - 1);
        Some(self.channels.len() - 1)
    }

    fn arrow(&mut self, message: &TraceMessage, from: &str, to: &str) -> Option<Mark> {
        match (self.channel(message, from), self.channel(message, to)) {
            (Some(from), Some(to)) => Some(Mark::Arrow(from, to)),
            (Some(one), None) | (None, Some(one)) => Some(Mark::At(one)),
            (None, None) => None,
        }
    }

    /// What a message means, if it is worth a row.
    fn tell(&mut self, message: &TraceMessage, near: &Near<'_>) -> Option<(Mark, String, Style)> {
        let word = |key: &str| get(message, key).map(|text| cut(&clean(text), MAX_WORD)).unwrap_or_default();
        let plain = Style::new();
        let told = match message.name.as_str() {
            "Newchannel" | "Newstate" | "DialBegin" | "DialState" | "DialEnd" => {
                return self.dialling(message, near);
            }
            "BridgeEnter" | "BridgeLeave" | "Hold" | "Unhold" | "Hangup" => {
                return self.talking(message, near);
            }
            "LocalBridge" => {
                let (one, two) = (self.channel(message, "LocalOne")?, self.channel(message, "LocalTwo")?);
                (Mark::Link(vec![one, two]), "one Local".to_owned(), style::DIM)
            }
            "LocalOptimizationEnd" => {
                (Mark::At(self.channel(message, "LocalOne")?), "Local optimized away".to_owned(), style::DIM)
            }
            "HangupRequest" => (Mark::At(self.channel(message, "")?), "hangs up".to_owned(), style::BOLD),
            "Rename" => {
                (Mark::At(self.channel(message, "")?), format!("becomes {}", word("Newname")), style::DIM)
            }
            "BlindTransfer" => (
                self.arrow(message, "Transferer", "Transferee")?,
                result(message, format!("blind transfer to {}", word("Extension"))),
                style::WARN,
            ),
            "AttendedTransfer" => {
                let mark = self.arrow(message, "Transferee", "TransferTarget");
                let mark = mark.or_else(|| self.arrow(message, "OrigTransferer", "SecondTransferer"))?;
                (mark, result(message, "attended transfer".to_owned()), style::WARN)
            }
            "Pickup" => (self.arrow(message, "", "Target")?, "picks up".to_owned(), style::WARN),
            "ParkedCall" => (
                Mark::At(self.channel(message, "Parkee")?),
                format!("parked at {}", word("ParkingSpace")),
                style::WARN,
            ),
            "UnParkedCall" => {
                let text = format!("takes from park {}", word("ParkingSpace"));
                (self.arrow(message, "Retriever", "Parkee")?, text, style::WARN)
            }
            "ParkedCallTimeOut" => {
                (Mark::At(self.channel(message, "Parkee")?), "parked too long".to_owned(), style::WARN)
            }
            "ParkedCallGiveUp" => {
                (Mark::At(self.channel(message, "Parkee")?), "gives up, parked".to_owned(), style::BAD)
            }
            "ConfbridgeJoin" | "ConfbridgeLeave" => {
                let verb = if message.name == "ConfbridgeJoin" { "joins" } else { "leaves" };
                let text = format!("{verb} conference {}", word("Conference"));
                (Mark::At(self.channel(message, "")?), text, plain)
            }
            "MixMonitorStart" => (Mark::At(self.channel(message, "")?), "recording".to_owned(), style::DIM),
            "DTMFEnd" => (Mark::At(self.channel(message, "")?), "digit".to_owned(), style::DIM),
            "OriginateResponse" => {
                let text = format!("originate: {}", word("Response").to_lowercase());
                (Mark::At(self.channel(message, "")?), text, plain)
            }
            name if name.starts_with("Queue") || name.starts_with("Agent") => {
                return self.queue(message, near);
            }
            name if is_noise(name) => {
                // it may still show a channel that nothing else has shown
                self.channel(message, "");
                return None;
            }
            _ => (Mark::At(self.channel(message, "")?), clean(&message.name), style::DIM),
        };
        Some(told)
    }

    fn dialling(&mut self, message: &TraceMessage, near: &Near<'_>) -> Option<(Mark, String, Style)> {
        let word = |key: &str| get(message, key).map(|text| cut(&clean(text), MAX_WORD)).unwrap_or_default();
        let state = get(message, "ChannelStateDesc").unwrap_or_default();
        match message.name.as_str() {
            "Newchannel" => {
                let channel = self.channel(message, "")?;
                let calls = state == "Ring" && !self.channels.get(channel)?.local;
                calls.then(|| (Mark::At(channel), format!("calls {}", word("Exten")), style::BOLD))
            }
            "Newstate" => {
                let channel = self.channel(message, "")?;
                match (state, self.dialler.get(&channel)) {
                    ("Ringing", Some(by)) => {
                        Some((Mark::Arrow(channel, *by), "ringing".to_owned(), style::DIM))
                    }
                    ("Ringing", None) => Some((Mark::At(channel), "ringing".to_owned(), style::DIM)),
                    ("Up", None) if near.has("DialEnd", "Uniqueid", get(message, "Uniqueid")) => None,
                    ("Up", None) => Some((Mark::At(channel), "up".to_owned(), style::GOOD)),
                    _ => None,
                }
            }
            "DialBegin" => {
                let mark = self.arrow(message, "", "Dest")?;
                if let Mark::Arrow(from, to) = mark {
                    self.dialler.insert(to, from);
                    self.ended.remove(&to);
                }
                if near.has("AgentCalled", "DestUniqueid", get(message, "DestUniqueid")) {
                    return None;
                }
                Some((mark, format!("dial {}", word("DialString")).trim_end().to_owned(), Style::new()))
            }
            "DialState" => {
                let mark = self.arrow(message, "Dest", "")?;
                (get(message, "DialStatus") == Some("PROGRESS"))
                    .then(|| (mark, "progress".to_owned(), style::DIM))
            }
            _ => {
                // a queue says twice that it gave up
                let again = self.channel(message, "Dest").is_some_and(|to| !self.ended.insert(to));
                let (text, style) = match get(message, "DialStatus").unwrap_or_default() {
                    "ANSWER" => ("answers".to_owned(), style::GOOD),
                    "CANCEL" | "ABORT" if again => return None,
                    "CANCEL" | "ABORT" => {
                        return Some((self.arrow(message, "", "Dest")?, "cancel".to_owned(), style::WARN));
                    }
                    "NOANSWER" => ("no answer".to_owned(), style::WARN),
                    "CHANUNAVAIL" => ("unavailable".to_owned(), style::BAD),
                    other => (clean(&other.to_lowercase()), style::BAD),
                };
                let forward =
                    get(message, "Forward").map(|to| format!(", on to {}", cut(&clean(to), MAX_WORD)));
                Some((self.arrow(message, "Dest", "")?, text + &forward.unwrap_or_default(), style))
            }
        }
    }

    fn talking(&mut self, message: &TraceMessage, near: &Near<'_>) -> Option<(Mark, String, Style)> {
        let channel = self.channel(message, "")?;
        let bridge = get(message, "BridgeUniqueid");
        let plain = Style::new();
        match message.name.as_str() {
            "BridgeEnter" => {
                let bridge = bridge?;
                let place = self.bridges.iter().position(|(id, _)| id == bridge).unwrap_or_else(|| {
                    self.bridges.push((bridge.to_owned(), Vec::new()));
                    self.bridges.len() - 1
                });
                let number = if place == 0 { String::new() } else { format!(" {}", place + 1) };
                let members = &mut self.bridges.get_mut(place)?.1;
                members.retain(|member| *member != channel);
                members.push(channel);
                if members.len() > 1 {
                    return Some((Mark::Link(members.clone()), format!("bridge{number}"), style::GOOD));
                }
                let soon = near.later("BridgeEnter", "BridgeUniqueid", Some(bridge));
                (!soon).then(|| (Mark::At(channel), format!("enters bridge{number}"), plain))
            }
            "BridgeLeave" => {
                for (_, members) in &mut self.bridges {
                    members.retain(|member| *member != channel);
                }
                let ends = near.later("Hangup", "Uniqueid", get(message, "Uniqueid"));
                (!ends).then(|| (Mark::At(channel), "leaves bridge".to_owned(), plain))
            }
            "Hold" => {
                self.held.insert(channel);
                Some((Mark::At(channel), "holds".to_owned(), style::WARN))
            }
            // phones also say so when a call begins
            "Unhold" => {
                self.held.remove(&channel).then(|| (Mark::At(channel), "resumes".to_owned(), style::WARN))
            }
            _ => {
                let cause = get(message, "Cause").unwrap_or_default();
                let text = get(message, "Cause-txt").map(|text| format!(": {}", cut(&clean(text), MAX_WORD)));
                let normal = matches!(cause, "0" | "16" | "26" | "127" | "");
                let style = if normal { plain } else { style::BAD };
                self.channels.get_mut(channel)?.last = Some(self.rows.len());
                let text = format!("hangup {}{}", clean(cause), text.unwrap_or_default());
                Some((Mark::At(channel), text, style))
            }
        }
    }

    fn queue(&mut self, message: &TraceMessage, near: &Near<'_>) -> Option<(Mark, String, Style)> {
        let word = |key: &str| get(message, key).map(|text| cut(&clean(text), MAX_WORD)).unwrap_or_default();
        let told = match message.name.as_str() {
            "QueueCallerJoin" => {
                let text = format!("joins queue {}, place {}", word("Queue"), word("Position"));
                (Mark::At(self.channel(message, "")?), text, style::BOLD)
            }
            "QueueCallerLeave" => {
                if near.has("QueueCallerAbandon", "Uniqueid", get(message, "Uniqueid"))
                    || near.has("AgentConnect", "Uniqueid", get(message, "Uniqueid"))
                {
                    return None;
                }
                (Mark::At(self.channel(message, "")?), format!("leaves queue {}", word("Queue")), style::WARN)
            }
            "QueueCallerAbandon" => {
                let text = format!("gives up queue {}, waited {} s", word("Queue"), word("HoldTime"));
                (Mark::At(self.channel(message, "")?), text, style::BAD)
            }
            "AgentCalled" => (
                self.arrow(message, "", "Dest")?,
                format!("queue calls {}", word("MemberName")),
                Style::new(),
            ),
            "AgentConnect" => {
                let text = format!("agent takes it, waited {} s", word("HoldTime"));
                (self.arrow(message, "Dest", "")?, text, style::GOOD)
            }
            "AgentRingNoAnswer" => {
                (self.arrow(message, "Dest", "")?, "agent does not answer".to_owned(), style::WARN)
            }
            "AgentComplete" => {
                let text = format!("agent done, talked {} s", word("TalkTime"));
                (self.arrow(message, "Dest", "")?, text, style::DIM)
            }
            _ => (Mark::At(self.channel(message, "")?), clean(&message.name), style::DIM),
        };
        Some(told)
    }

    /// Where two channels would have one heading, the later ones are counted.
    fn head(&mut self) {
        let mut known: HashMap<String, usize> = HashMap::new();
        for channel in &mut self.channels {
            let count = known.entry(channel.short.clone()).or_default();
            *count += 1;
            if *count > 1 {
                channel.short = format!("{} #{count}", channel.short);
            }
        }
    }
}

/// The messages around one.
struct Near<'a> {
    messages: &'a [TraceMessage],
    index: usize,
}

impl Near<'_> {
    /// Such a message comes soon.
    fn later(&self, name: &str, key: &str, value: Option<&str>) -> bool {
        let now = self.messages.get(self.index).map_or(0, |message| message.at.0);
        let soon = self.messages.iter().skip(self.index + 1).take_while(|message| message.at.0 - now < SAME);
        soon.into_iter().any(|message| message.name == name && get(message, key) == value)
    }

    /// Such a message comes soon, or came just now.
    fn has(&self, name: &str, key: &str, value: Option<&str>) -> bool {
        let now = self.messages.get(self.index).map_or(0, |message| message.at.0);
        let before = self.messages.iter().take(self.index).rev();
        self.later(name, key, value)
            || before
                .take_while(|message| now - message.at.0 < SAME)
                .any(|message| message.name == name && get(message, key) == value)
    }
}

/// A header that says something.
fn get<'a>(message: &'a TraceMessage, key: &str) -> Option<&'a str> {
    let value = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1.as_str();
    (!value.is_empty() && value != "<unknown>").then_some(value)
}

/// Whose a channel is: the name that goes with its own number, else what a caller presents. A line
/// that was dialled carries somebody else's name.
fn who(message: &TraceMessage, prefix: &str, short: &str) -> String {
    let of = |key: &str| get(message, &format!("{prefix}{key}"));
    let (name, number) = (of("CallerIDName"), of("CallerIDNum"));
    let own = number.is_some_and(|number| short.ends_with(number));
    let calls = of("ChannelStateDesc") == Some("Ring");
    let named = name.or(number.filter(|_| !own)).filter(|_| own || calls);
    let named = clean(named.unwrap_or_default());
    if short.starts_with("Local/") || short.ends_with(&named) { String::new() } else { cut(&named, MAX_WORD) }
}

/// A transfer that failed says so.
fn result(message: &TraceMessage, text: String) -> String {
    match get(message, "Result") {
        Some("Success") | None => text,
        Some(other) => format!("{text}: {}", clean(other)),
    }
}

/// `PJSIP/1001`, `Local/1001;1`.
pub(super) fn short(name: &str) -> String {
    let (base, half) = name.split_once(';').map_or((name, ""), |(base, half)| (base, half));
    let counted = base
        .rsplit_once('-')
        .filter(|(_, count)| count.len() >= 8 && count.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let base = counted.map_or(base, |(base, _)| base);
    if !name.starts_with("Local/") {
        return base.to_owned();
    }
    let base = base.split('@').next().unwrap_or(base);
    if half.is_empty() { base.to_owned() } else { format!("{base};{half}") }
}

/// What says nothing to a person, or what another message says better.
fn is_noise(name: &str) -> bool {
    name.starts_with("MusicOnHold")
        || name.starts_with("RTCP")
        || matches!(
            name,
            "BridgeCreate"
                | "BridgeDestroy"
                | "BridgeMerge"
                | "BridgeVideoSourceUpdate"
                | "CEL"
                | "Cdr"
                | "ChannelTalkingStart"
                | "ChannelTalkingStop"
                | "ConfbridgeEnd"
                | "ConfbridgeStart"
                | "DTMFBegin"
                | "LocalOptimizationBegin"
                | "MixMonitorStop"
                | "NewAccountCode"
                | "NewCallerid"
                | "NewConnectedLine"
                | "Newexten"
                | "SoftHangupRequest"
                | "VarSet"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_headed_by_what_people_call_the_channel() {
        for (name, expected) in [
            ("PJSIP/1001-00000013", "PJSIP/1001"),
            ("PJSIP/trunk-out-0000001a", "PJSIP/trunk-out"),
            ("Local/1001@from-internal-00000000;2", "Local/1001;2"),
            ("SIP/my-trunk", "SIP/my-trunk"),
            ("DAHDI/i1/555-1", "DAHDI/i1/555-1"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
