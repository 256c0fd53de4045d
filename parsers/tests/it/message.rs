//! Headers, and values as text.

use parsers::ami::text::{decode, unescape};
use parsers::ami::{Kind, Message};
use proptest::prelude::*;

use crate::wire::message;

#[test]
fn the_first_header_tells_the_kind() {
    for (block, kind, name) in [
        ("Response: Success\nActionID: 1\n", Kind::Response, "Success"),
        (
            "Event: OriginateResponse\nPrivilege: call,all\nResponse: Failure\n",
            Kind::Event,
            "OriginateResponse",
        ),
        ("stray line\nEvent: X\n", Kind::Event, "X"),
        ("Foo: bar\nEvent: X\n", Kind::Other, "bar"),
    ] {
        let message = message(block);
        assert_eq!((message.kind(), &*message.name()), (kind, name));
    }
}

#[test]
fn a_last_line_may_lack_its_end() {
    let message = Message::parse("Event: X\r\nA: 1").expect("a message");
    assert_eq!(message.get("A"), Some(&b"1"[..]));
}

#[test]
fn only_what_asterisk_escapes_is_unescaped() {
    let escaped = r#"Ana O\'Hara \"x\" \\ \? \t"#;
    let plain = "Ana O'Hara \"x\" \\ ? \t";
    for (event, key, is_escaped) in [
        ("Newchannel", "CallerIDName", true),
        ("Newchannel", "ConnectedLineName", true),
        ("DialBegin", "DestCallerIDName", true),
        ("BlindTransfer", "TransfererConnectedLineName", true),
        ("AttendedTransfer", "OrigTransfererCallerIDName", true),
        ("AttendedTransfer", "SecondTransfererCallerIDName", true),
        ("AttendedTransfer", "TransferTargetCallerIDName", true),
        ("LocalBridge", "LocalOneCallerIDName", true),
        ("LocalBridge", "LocalTwoConnectedLineName", true),
        ("ParkedCall", "ParkeeCallerIDName", true),
        ("UnParkedCall", "RetrieverCallerIDName", true),
        ("Pickup", "TargetConnectedLineName", true),
        ("LocalOptimizationBegin", "SourceCallerIDName", true),
        ("Newstate", "ChanVariable", true),
        ("DialEnd", "DestChanVariable", true),
        ("NewCallerid", "CID-CallingPres", true),
        ("VarSet", "Value", true),
        ("PresenceStateChange", "Message", true),
        ("Status", "CallerIDName", true),
        ("Status", "EffectiveConnectedLineName", false),
        ("Status", "Variable", false),
        ("QueueEntry", "CallerIDName", false),
        ("OriginateResponse", "CallerIDName", false),
        ("OriginateResponse", "ChanVariable(PJSIP/1001-00000019)", false),
        ("CEL", "CallerIDname", false),
        ("Cdr", "CallerID", false),
        ("Newexten", "AppData", false),
        ("Newchannel", "CallerIDNum", false),
        ("Getvar", "Value", false),
        ("UserEvent", "Text", false),
        ("DongleNewSMS", "MessageLine0", false),
    ] {
        let message = message(&format!("Event: {event}\nPrivilege: call,all\n{key}: {escaped}\n"));
        let wanted = if is_escaped { plain } else { escaped };
        assert_eq!(message.text(key).as_deref(), Some(wanted), "{event} {key}");
    }
    let answer = message(&format!(
        "Response: Success\nValue: {escaped}\nMessage: {escaped}\nCallerIDName: {escaped}\n"
    ));
    for key in ["Value", "Message", "CallerIDName"] {
        assert_eq!(answer.text(key).as_deref(), Some(escaped), "an answer's {key}");
    }
}

#[test]
fn other_backslashes_stay() {
    for (escaped, plain) in [
        (r"\a\b\f\n\r\t\v", "\x07\x08\x0c\n\r\t\x0b"),
        (r"C:\dir", r"C:\dir"),
        (r"end\", r"end\"),
        (r"\\n", r"\n"),
        (r"\\\'", r"\'"),
        ("plain", "plain"),
    ] {
        assert_eq!(unescape(escaped.into()), plain);
    }
}

/// `ast_escape_c` as Asterisk has it.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        let letter = match char {
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0c' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\x0b' => 'v',
            '\\' | '\'' | '"' | '?' => char,
            _ => {
                out.push(char);
                continue;
            }
        };
        out.push('\\');
        out.push(letter);
    }
    out
}

proptest! {
    #[test]
    fn what_asterisk_escapes_comes_back(text in any::<String>()) {
        prop_assert_eq!(unescape(escape(&text).into()), text);
    }

    #[test]
    fn valid_utf8_is_never_changed(text in any::<String>()) {
        prop_assert_eq!(decode(text.as_bytes()), text.as_str());
    }

    #[test]
    fn other_bytes_give_a_character_each(mut bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        bytes.push(0xff);
        prop_assert_eq!(decode(&bytes).chars().count(), bytes.len());
    }
}
