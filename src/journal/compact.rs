//! AMI messages made small without being deflated, which costs more than all else that is done with
//! one: their headers' names are few, and are written as numbers.
//!
//! Messages are a 2, then each of them: time:8, name, number of headers:2, headers. A header is its
//! name and its value. A name is a 0 and a text, or 1 and more: its place in [`NAMES`]; with
//! [`DEST`] on top where `Dest` stands before it. A text is its length in bytes and itself; a
//! length is one byte, or 255 and two.

use parsers::Micros;

use super::format::Reader;
use super::types::TraceMessage;

/// What messages begin with: neither JSON nor deflated JSON does (`pack.rs`).
pub(super) const COMPACT: u8 = 2;

/// Part of the format: only ever added to, at the end.
const NAMES: [&str; 62] = [
    "AnswerEpoch",
    "AnswerTime",
    "BillableSeconds",
    "BridgeType",
    "BridgeUniqueid",
    "CallerID",
    "CallerIDName",
    "CallerIDNum",
    "Cause",
    "Cause-txt",
    "Channel",
    "ChannelStateDesc",
    "Conference",
    "ConnectedLineName",
    "ConnectedLineNum",
    "Context",
    "DID",
    "DestType",
    "Destination",
    "DestinationChannel",
    "DestinationContext",
    "DialStatus",
    "DialString",
    "Direction",
    "Disposition",
    "Duration",
    "DurationMs",
    "EndEpoch",
    "EndTime",
    "Exten",
    "Extension",
    "Forward",
    "From",
    "HoldTime",
    "Interface",
    "LastApplication",
    "LastData",
    "LinkedID",
    "Linkedid",
    "LocalOptimization",
    "MemberName",
    "Newname",
    "OriginalPosition",
    "ParkerDialString",
    "ParkingSpace",
    "Position",
    "Queue",
    "Reason",
    "RecordingFile",
    "Response",
    "Result",
    "RingTime",
    "Sequence",
    "Source",
    "StartEpoch",
    "StartTime",
    "SwapUniqueid",
    "TalkTime",
    "TechCause",
    "To",
    "UniqueID",
    "Uniqueid",
];
/// Added to a name's number.
const DEST: u8 = 128;

/// Adds a message to others of the same record, which begin with [`COMPACT`].
pub(super) fn add(message: &TraceMessage, to: &mut Vec<u8>) {
    to.extend_from_slice(&message.at.0.to_be_bytes());
    put_text(&message.name, to);
    let count = u16::try_from(message.headers.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&count.to_be_bytes());
    for (name, value) in message.headers.iter().take(usize::from(count)) {
        put_name(name, to);
        put_text(value, to);
    }
}

/// The messages of a record; those before a damaged one.
pub(super) fn read(record: &[u8]) -> Vec<TraceMessage> {
    let mut messages = Vec::new();
    let Some((&COMPACT, rest)) = record.split_first() else { return messages };
    let mut rest = Reader(rest);
    while let Some(message) = take_message(&mut rest) {
        messages.push(message);
    }
    messages
}

fn take_message(rest: &mut Reader<'_>) -> Option<TraceMessage> {
    let at = Micros(rest.i64()?);
    let name = take_text(rest)?;
    let count = rest.u16()?;
    // the bytes there are bound what a damaged number can ask for
    let headers = (0..count).map(|_| Some((take_name(rest)?, take_text(rest)?))).collect::<Option<_>>()?;
    Some(TraceMessage { at, name, headers })
}

fn put_name(name: &str, to: &mut Vec<u8>) {
    let number = |name: &str| NAMES.binary_search(&name).ok().and_then(|at| u8::try_from(at + 1).ok());
    let dest = || name.strip_prefix("Dest").and_then(number).map(|number| number + DEST);
    match number(name).or_else(dest) {
        Some(number) => to.push(number),
        None => {
            to.push(0);
            put_text(name, to);
        }
    }
}

fn take_name(rest: &mut Reader<'_>) -> Option<String> {
    let number = rest.u8()?;
    if number == 0 {
        return take_text(rest);
    }
    let name = NAMES.get(usize::from(number % DEST).checked_sub(1)?)?;
    Some(if number > DEST { format!("Dest{name}") } else { (*name).to_owned() })
}

fn put_text(text: &str, to: &mut Vec<u8>) {
    let text = super::encode::cut(text, usize::from(u16::MAX));
    match u8::try_from(text.len()) {
        Ok(len) if len < u8::MAX => to.push(len),
        Ok(_) | Err(_) => {
            to.push(u8::MAX);
            to.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    to.extend_from_slice(text.as_bytes());
}

fn take_text(rest: &mut Reader<'_>) -> Option<String> {
    let len = match rest.u8()? {
        u8::MAX => usize::from(rest.u16()?),
        len => usize::from(len),
    };
    let (text, after) = rest.0.split_at_checked(len)?;
    rest.0 = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = TraceMessage> {
        let name = prop_oneof![
            prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
            prop::sample::select(&NAMES[..]).prop_map(|name| format!("Dest{name}")),
            any::<String>()
        ];
        let value = prop_oneof![any::<String>(), "a{250,260}", "é{500}"];
        let headers = prop::collection::vec((name, value), 0..20);
        (any::<i64>(), any::<String>(), headers).prop_map(|(at, name, headers)| TraceMessage {
            at: Micros(at),
            name,
            headers,
        })
    }

    proptest! {
        #[test]
        fn messages_come_back(messages in prop::collection::vec(message(), 0..4)) {
            let mut record = vec![COMPACT];
            messages.iter().for_each(|message| add(message, &mut record));
            prop_assert_eq!(read(&record), messages);
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut record = vec![COMPACT];
            record.extend(bytes);
            prop_assert!(read(&record).len() < record.len());
        }
    }

    #[test]
    fn names_are_in_order() {
        assert!(NAMES.is_sorted() && NAMES.len() < usize::from(DEST));
    }
}
