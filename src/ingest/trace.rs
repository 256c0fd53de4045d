//! What is kept of an AMI message for its call's ladder.

use std::borrow::Cow;

use parsers::Micros;
use parsers::ami::Message;

use crate::journal::TraceMessage;

/// A value's length in a trace, bytes.
const MAX_VALUE: usize = 512;

/// Prefixes of the channel and bridge blocks.
const PREFIXES: [&str; 15] = [
    "OrigTransferer",
    "SecondTransferer",
    "TransferTarget",
    "Transferer",
    "Transferee",
    "Retriever",
    "LocalOne",
    "LocalTwo",
    "Parkee",
    "Source",
    "Target",
    "Second",
    "Dest",
    "Orig",
    "From",
];

/// Headers that the tracker or the ladder reads, without prefix, in small letters and in order.
/// Neither `Digit`, which may be part of a PIN, nor a text's words are among them.
const KEPT: [&str; 60] = [
    "answerepoch",
    "answertime",
    "billableseconds",
    "bridgetype",
    "bridgeuniqueid",
    "callerid",
    "calleridname",
    "calleridnum",
    "cause",
    "cause-txt",
    "channel",
    "channelstatedesc",
    "conference",
    "connectedlinename",
    "connectedlinenum",
    "context",
    "destination",
    "destinationchannel",
    "destinationcontext",
    "desttype",
    "dialstatus",
    "dialstring",
    "did",
    "direction",
    "disposition",
    "duration",
    "durationms",
    "endepoch",
    "endtime",
    "exten",
    "extension",
    "forward",
    "from",
    "holdtime",
    "interface",
    "lastapplication",
    "lastdata",
    "linkedid",
    "localoptimization",
    "membername",
    "newname",
    "originalposition",
    "parkerdialstring",
    "parkingspace",
    "position",
    "queue",
    "reason",
    "recordingfile",
    "response",
    "result",
    "ringtime",
    "sequence",
    "source",
    "startepoch",
    "starttime",
    "swapuniqueid",
    "talktime",
    "techcause",
    "to",
    "uniqueid",
];

/// The message as its call's trace keeps it.
pub fn trace_message(message: &Message, at: Micros) -> TraceMessage {
    let mut headers = Vec::new();
    for (key, _) in message.headers().skip(1) {
        let Ok(key) = std::str::from_utf8(key) else { continue };
        if !is_kept(key)
            || headers.iter().any(|(known, _): &(String, String)| known.eq_ignore_ascii_case(key))
        {
            continue;
        }
        if let Some(value) = message.text(key) {
            headers.push((key.to_owned(), cut(value)));
        }
    }
    TraceMessage { at, name: message.name().into_owned(), headers }
}

fn is_kept(key: &str) -> bool {
    let among = |base: &str| {
        let small = || base.bytes().map(|byte| byte.to_ascii_lowercase());
        KEPT.binary_search_by(|kept| kept.bytes().cmp(small())).is_ok()
    };
    among(key) || PREFIXES.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(among))
}

fn cut(value: Cow<'_, str>) -> String {
    if value.len() <= MAX_VALUE {
        return value.into_owned();
    }
    let end = (0..=MAX_VALUE).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    value.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found() {
        assert!(KEPT.is_sorted());
        assert!(KEPT.iter().all(|key| is_kept(key)));
        for key in ["Uniqueid", "UniqueID", "DestUniqueid", "SecondTransfererChannel", "LocalOneContext"] {
            assert!(is_kept(key), "{key}");
        }
        for key in ["Digit", "DestDigit", "Text", "Dest", "Language", "", "Uniqueidx"] {
            assert!(!is_kept(key), "{key}");
        }
    }
}
