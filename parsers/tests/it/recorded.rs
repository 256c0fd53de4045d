//! Streams on disk: those made by hand, and those recorded from a real Asterisk.

use std::path::{Path, PathBuf};

use parsers::ami::{Codec, Event, EventKind, Frame};

use crate::wire::{frames_of, names};

/// Every stream under `fixtures/ami/{folder}`, by file name.
fn streams(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/ami").join(folder);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "ami")).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
}

fn read(stream: &[u8], chunk: usize) -> Vec<Frame> {
    let codec = if stream.starts_with(b"Asterisk") { Codec::default() } else { Codec::after_banner() };
    frames_of(codec, stream.chunks(chunk))
}

#[test]
fn streams_made_by_hand_arrive() {
    let expected = [
        ("bare_lf.ami", "Newexten Hangup"),
        ("crlf_lf.ami", "Newchannel Hangup"),
        ("dongle_blank_lines.ami", "DongleNewSMS Newchannel"),
        ("follows_13.ami", "banner 2.10.6 Follows Hangup"),
        ("forged_events.ami", "UserEvent Hangup Evil Hangup"),
        (
            "kinds.ami",
            "DialBegin AttendedTransfer LocalBridge UnParkedCall AgentComplete BridgeMerge Cdr \
             QuectelNewSMSBase64 OriginateResponse Status QueueEntry",
        ),
        ("latin1_name.ami", "Newchannel Hangup"),
        (
            "login.ami",
            "banner 11.0.0 Success Success FullyBooted Success CoreShowChannel CoreShowChannelsComplete",
        ),
        ("no_colon.ami", "Newchannel Hangup"),
        ("noise.ami", "TestEvent VarSet Hangup"),
        ("torn_event.ami", "Newchannel"),
    ];
    let streams = streams("wire");
    let got: Vec<_> = streams
        .iter()
        .map(|(path, stream)| {
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            (file, names(&read(stream, stream.len().max(1))).join(" "))
        })
        .collect();
    assert_eq!(got, expected.map(|(file, names)| (file.to_owned(), names.to_owned())));
}

#[test]
fn streams_on_disk_are_the_same_in_any_chunks() {
    for (path, stream) in [streams("wire"), streams("catalogue")].concat() {
        let whole = read(&stream, stream.len().max(1));
        for chunk in [1, 7, 1000, 4096] {
            assert_eq!(read(&stream, chunk), whole, "{} in chunks of {chunk}", path.display());
        }
    }
}

#[test]
fn no_event_of_a_call_is_left_untyped() {
    let ours = [
        "Newchannel",
        "Newstate",
        "Hangup",
        "DialBegin",
        "DialEnd",
        "BridgeEnter",
        "BridgeLeave",
        "BridgeMerge",
        "AttendedTransfer",
        "LocalBridge",
        "UnParkedCall",
        "AgentComplete",
        "OriginateResponse",
        "Status",
        "Cdr",
    ];
    let mut seen = 0;
    for (path, stream) in [streams("wire"), streams("catalogue")].concat() {
        for frame in read(&stream, stream.len().max(1)) {
            let message = match frame {
                Frame::Message(message) => message,
                Frame::Banner(_) => continue,
                Frame::Malformed(why) => panic!("{}: {why:?}", path.display()),
            };
            let Some(event) = Event::parse(&message) else { continue };
            if event.privileged && ours.contains(&&*message.name()) {
                assert!(!matches!(event.kind, EventKind::Other(_)), "{}: {message:?}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= ours.len(), "the streams hold events of calls: {seen}");
}
