//! Event A, an odd B, event C: all three arrive, whatever real PBXs and modules have done to B.

use bytes::BytesMut;
use parsers::ami::{Codec, Frame};
use tokio_util::codec::Decoder;

use crate::wire::{frames, frames_of, names};

const A: &[u8] = b"Event: A\r\nPrivilege: call,all\r\n\r\n";
const C: &[u8] = b"Event: C\r\nPrivilege: call,all\r\nUniqueid: 1.1\r\n\r\n";

/// What the wire does, where it was seen, B as it comes, and a header of B with its value.
struct Probe {
    seen: &'static str,
    b: Vec<u8>,
    key: &'static str,
    value: String,
}

fn probe(seen: &'static str, b: impl Into<Vec<u8>>, key: &'static str, value: impl Into<String>) -> Probe {
    Probe { seen, b: b.into(), key, value: value.into() }
}

fn probes() -> Vec<Probe> {
    let long =
        |length: usize| (format!("Event: B\r\nAppData: {}\r\n\r\n", "x".repeat(length)), "x".repeat(length));
    let (kb20, kb20_value) = long(20_000);
    let (kb60, kb60_value) = long(60_000);
    vec![
        probe(
            "latin-1 byte in a name (panoramisk #106)",
            b"Event: B\r\nCallerIDName: Jos\xe9\r\n\r\n",
            "CallerIDName",
            "José",
        ),
        probe(
            "windows-1252 byte in a name",
            b"Event: B\r\nCallerIDName: \x93Ana\x94\r\n\r\n",
            "CallerIDName",
            "“Ana”",
        ),
        probe(
            "utf-8 name (python-ami #3)",
            "Event: B\r\nCallerIDName: María\r\n\r\n",
            "CallerIDName",
            "María",
        ),
        probe("one extra blank line (reactphp-ami #49)", b"Event: B\r\nX: 1\r\n\r\n\r\n", "X", "1"),
        probe(
            "two extra blank lines (asterisk-chan-dongle #53)",
            b"Event: B\r\nX: 1\r\n\r\n\r\n\r\n",
            "X",
            "1",
        ),
        probe("header ended by a bare LF (PAMI #89)", b"Event: B\r\nX: 1\nY: 2\r\nZ: 3\r\n\r\n", "Z", "3"),
        probe("frame ended CR LF LF (asterisk #761)", b"Event: B\r\nX: 1\r\n\n", "X", "1"),
        probe("frame ended CR LF LF and an empty line", b"Event: B\r\nX: 1\r\n\n\r\n", "X", "1"),
        probe("line without a colon", b"Event: B\r\nno colon here\r\nX: 1\r\n\r\n", "X", "1"),
        probe("key without a space (reactphp-ami #28)", b"Event: B\r\nReportBlock:\r\nX:1\r\n\r\n", "X", "1"),
        probe("20 KB value", kb20, "AppData", kb20_value),
        probe("60 KB value", kb60, "AppData", kb60_value),
        probe(
            "odd key characters",
            b"Event: B\r\nChanVariable(SIP/a-1): v=1\r\nA B[0]_c: 2\r\n\r\n",
            "A B[0]_c",
            "2",
        ),
        probe(
            "repeated headers",
            b"Event: B\r\nChanVariable: a=1\r\nChanVariable: b=2\r\nX: 1\r\n\r\n",
            "X",
            "1",
        ),
        probe("blanks around a value", b"Event: B\r\nX:  two words \r\n\r\n", "X", " two words "),
        probe("colons in a value", b"Event: B\r\nX: sip:a@b:5060\r\n\r\n", "X", "sip:a@b:5060"),
        probe("empty value", b"Event: B\r\nX: \r\n\r\n", "X", ""),
        probe("keys in other letter case", b"Event: B\r\nuNIQUEid: 1.2\r\n\r\n", "Uniqueid", "1.2"),
    ]
}

#[test]
fn every_probe_arrives_between_its_neighbours() {
    for Probe { seen, b, key, value } in probes() {
        let got = frames(&[A, &b, C].concat());
        assert_eq!(names(&got), ["A", "B", "C"], "{seen}");
        let Frame::Message(message) = &got[1] else { panic!("{seen}: B is a message") };
        assert_eq!(message.text(key).as_deref(), Some(value.as_str()), "{seen}");
    }
}

#[test]
fn every_probe_arrives_byte_by_byte() {
    for Probe { seen, b, .. } in probes().into_iter().filter(|probe| probe.b.len() < 5_000) {
        let stream = [A, &b, C].concat();
        let got = frames_of(Codec::after_banner(), stream.chunks(1));
        assert_eq!(got, frames(&stream), "{seen}");
    }
}

#[test]
fn a_value_over_the_bound_costs_its_message_only() {
    let b = format!("Event: B\r\nAppData: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(names(&frames(&[A, b.as_bytes(), C].concat())), ["A", "LineTooLong", "C"]);
}

#[test]
fn a_bare_lf_takes_the_next_line_into_the_value() {
    let got = frames(b"Event: B\r\nX: 1\nY: 2\r\n\r\n");
    let Frame::Message(message) = &got[0] else { panic!("a message") };
    assert_eq!((message.get("X"), message.get("Y")), (Some(&b"1\nY: 2"[..]), None));
}

#[test]
fn a_torn_tail_gives_nothing() {
    let whole = [A, C].concat();
    for end in A.len()..whole.len() {
        assert_eq!(names(&frames(&whole[..end])), ["A"], "cut at {end}");
    }
}

#[test]
fn a_codec_goes_on_after_an_end() {
    let (mut codec, mut buffer) = (Codec::after_banner(), BytesMut::from(&C[..40]));
    assert_eq!(codec.decode(&mut buffer).expect("never fails"), None);
    assert_eq!(codec.decode_eof(&mut buffer).expect("never fails"), None);
    let mut got = Vec::new();
    for byte in A {
        buffer.extend_from_slice(&[*byte]);
        got.extend(codec.decode(&mut buffer).expect("never fails"));
    }
    assert_eq!(names(&got), ["A"]);
}
