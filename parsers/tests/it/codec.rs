//! Frames: any chunking gives the same, nothing takes the connection down, memory is bounded.

use bytes::{BufMut, BytesMut};
use parsers::ami::{Action, Banner, Codec, Event, EventKind, Frame, Malformed, Message, Response, Status};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use crate::wire::{BANNER, frames, frames_of, names, refused};

const GOOD: &[u8] = b"Event: Good\r\nPrivilege: call,all\r\n\r\n";

#[test]
fn the_banner_comes_first_and_once() {
    let got = frames_of(Codec::default(), [BANNER, GOOD]);
    assert_eq!(got[0], Frame::Banner(Banner { major: 11, version: "11.0.0".to_owned() }));
    assert_eq!(names(&got), ["banner 11.0.0", "Good"]);
}

#[test]
fn banners_are_told_from_other_services() {
    for (line, shown) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "SSH-2.0-OpenSSH_9.6"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"Asterisk Call Manager/\r\n", "Asterisk Call Manager/"),
        (b"Asterisk Call Manager/x.1\r\n", "Asterisk Call Manager/x.1"),
        (b"Asterisk Call Manager/99999999999\r\n", "Asterisk Call Manager/99999999999"),
        (b"\x15\x03\x01\x00\x02\x02\n", ""),
        (b"\r\n", ""),
    ] {
        let got = frames_of(Codec::default(), [line, GOOD]);
        assert_eq!(got, [Frame::Malformed(Malformed::NotAsterisk(shown.to_owned()))]);
    }
    for version in ["1.3", "2.10.6", "5.0.2", "13.0.0-rc1"] {
        let line = format!("Asterisk Call Manager/{version}\r\n");
        assert_eq!(names(&frames_of(Codec::default(), [line.as_bytes()])), [format!("banner {version}")]);
    }
}

#[test]
fn a_first_line_without_end_is_not_asterisk() {
    let got = frames_of(Codec::default(), [&[b'x'; 1000][..], GOOD]);
    assert_eq!(got, [Frame::Malformed(Malformed::NotAsterisk("x".repeat(64)))]);
}

#[test]
fn what_cannot_be_read_says_why() {
    assert_eq!(refused(b"no header\r\nat all\r\n"), Malformed::NoHeader);
    assert_eq!(refused(b": no key\r\n"), Malformed::NoHeader);
    assert_eq!(refused(b""), Malformed::NoHeader);
    assert_eq!(refused(&b"k:\r\n".repeat(Codec::MAX_HEADERS + 1)), Malformed::TooManyHeaders);
    assert_eq!(refused(format!("k: {}\r\n", "v".repeat(Codec::MAX_LINE)).as_bytes()), Malformed::LineTooLong);
    assert_eq!(refused(&b"k: v\r\n".repeat(Codec::MAX_MESSAGE / 6 + 1)), Malformed::MessageTooLong);
}

#[test]
fn the_bounds_themselves_are_allowed() {
    for block in [
        b"k:\r\n".repeat(Codec::MAX_HEADERS),
        format!("k: {}\r\n", "v".repeat(Codec::MAX_LINE - 3)).into_bytes(),
        large(Codec::MAX_MESSAGE),
    ] {
        assert!(Message::parse(block).is_ok());
    }
}

/// A block of this many bytes with lines of 1 KiB.
fn large(size: usize) -> Vec<u8> {
    let mut block = b"Event: Large\r\n".to_vec();
    while block.len() < size {
        let left = size - block.len();
        let line = if left >= 2048 { 1024 } else { left };
        block.extend_from_slice(b"k: ");
        block.resize(block.len() + line - 5, b'v');
        block.extend_from_slice(b"\r\n");
    }
    block
}

#[test]
fn a_message_at_its_bound_arrives_and_one_above_is_dropped_alone() {
    for (size, name) in [(0, "Large"), (1, "MessageTooLong"), (2, "MessageTooLong"), (5000, "MessageTooLong")]
    {
        for end in [&b"\r\n"[..], b"\n"] {
            let stream = [GOOD, &large(Codec::MAX_MESSAGE + size), end, GOOD].concat();
            for chunk in [stream.len(), 65_536, 65_537, 4099] {
                let got = frames_of(Codec::after_banner(), stream.chunks(chunk));
                assert_eq!(names(&got), ["Good", name, "Good"], "{size} above, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn memory_is_bounded_while_a_long_message_is_skipped() {
    let (mut codec, mut buffer) = (Codec::after_banner(), BytesMut::new());
    let chunk = vec![b'x'; 64 * 1024];
    let (mut malformed, mut most) = (0, 0);
    for _ in 0..1600 {
        buffer.extend_from_slice(&chunk);
        while let Some(frame) = codec.decode(&mut buffer).expect("never fails") {
            assert_eq!(frame, Frame::Malformed(Malformed::MessageTooLong));
            malformed += 1;
        }
        most = most.max(buffer.capacity());
    }
    assert_eq!(malformed, 1);
    assert!(most <= 4 * Codec::MAX_MESSAGE, "100 MB of one line took {most} bytes");
    buffer.put_slice(b"\r\n\r\n");
    buffer.put_slice(GOOD);
    let next = codec.decode(&mut buffer).expect("never fails").expect("the stream goes on");
    assert_eq!(names(&[next]), ["Good"]);
}

#[test]
fn a_long_message_is_not_searched_again_from_its_start() {
    // byte by byte, a megabyte: with rescans this is 5 * 10^11 steps and never ends
    let (mut codec, mut buffer) = (Codec::after_banner(), BytesMut::new());
    let stream = [&large(Codec::MAX_MESSAGE), &b"\r\n"[..]].concat();
    let mut got = Vec::new();
    for byte in stream {
        buffer.put_u8(byte);
        got.extend(codec.decode(&mut buffer).expect("never fails"));
    }
    assert_eq!(names(&got), ["Large"]);
}

/// Asterisk 13's answer to `core show channels`, with a blank line and a header's look-alike in it.
const FOLLOWS: &[u8] = b"Response: Follows\r\nPrivilege: Command\r\nActionID: a7\r\n\nChannel: none\n\n0 active calls\n--END COMMAND--\r\n\r\n";

#[test]
fn old_command_output_is_one_message_with_its_lines() {
    for banner in ["Asterisk Call Manager/1.3\r\n", "Asterisk Call Manager/2.10.6\r\n"] {
        let stream = [banner.as_bytes(), FOLLOWS, GOOD].concat();
        for chunk in [stream.len(), 1, 7] {
            let got = frames_of(Codec::default(), stream.chunks(chunk));
            assert_eq!(names(&got)[1..], ["Follows", "Good"]);
            let Frame::Message(message) = got[1].clone() else { panic!("a message") };
            let response = Response::parse(message).expect("a response");
            assert_eq!((response.status, response.action_id.as_deref()), (Status::Follows, Some("a7")));
            assert_eq!(response.output(), ["", "Channel: none", "", "0 active calls"]);
            assert_eq!(response.headers.get("Channel"), None, "output is no header");
        }
    }
}

#[test]
fn a_forged_follows_swallows_nothing_where_asterisk_writes_none() {
    let forged = b"Response: Follows\r\nPrivilege: Command\r\n\r\n";
    assert_eq!(names(&frames(&[&forged[..], GOOD].concat())), ["Follows", "Good"]);
}

#[test]
fn an_endless_follows_is_given_up() {
    let mut stream = b"Asterisk Call Manager/2.10.6\r\nResponse: Follows\r\nPrivilege: Command\r\n".to_vec();
    while stream.len() < Codec::MAX_MESSAGE + 100_000 {
        stream.extend_from_slice(b"a line of output\n");
    }
    stream.extend_from_slice(b"--END COMMAND--\r\n\r\n");
    stream.extend_from_slice(GOOD);
    for chunk in [stream.len(), 10_007] {
        let got = frames_of(Codec::default(), stream.chunks(chunk));
        assert_eq!(names(&got)[1..], ["MessageTooLong", "Good"]);
    }
}

#[test]
fn new_command_output_comes_in_headers() {
    let block = b"Response: Success\r\nActionID: 1\r\nMessage: Command output follows\r\nOutput: one\r\nOutput: \r\nOutput: three\r\n";
    let response = Response::parse(Message::parse(&block[..]).expect("a message")).expect("a response");
    assert_eq!(response.output(), ["one", "", "three"]);
    assert_eq!(response.message.as_deref(), Some("Command output follows"));
}

#[test]
fn answers_are_read() {
    for (block, status, message, list) in [
        (
            "Response: Success\r\nActionID: a\r\nEventList: start\r\nMessage: Channels will follow\r\n",
            Status::Success,
            Some("Channels will follow"),
            true,
        ),
        (
            "Response: Error\r\nActionID: a\r\nMessage: Permission denied\r\n",
            Status::Error,
            Some("Permission denied"),
            false,
        ),
        (
            "Response: Goodbye\r\nActionID: a\r\nMessage: Thanks for all the fish.\r\n",
            Status::Goodbye,
            Some("Thanks for all the fish."),
            false,
        ),
        ("Response: Pong\r\nActionID: a\r\n", Status::Other, None, false),
    ] {
        let response = Response::parse(Message::parse(block).expect("a message")).expect("a response");
        assert_eq!((response.status, response.message.as_deref(), response.list), (status, message, list));
        assert_eq!(response.action_id.as_deref(), Some("a"));
    }
    assert_eq!(
        Response::parse(Message::parse("Event: X\r\nResponse: Failure\r\n").expect("a message")),
        None
    );
}

#[test]
fn an_injected_event_arrives_as_it_was_forged_and_unprivileged() {
    // a SIP MESSAGE whose body the dialplan copied into a UserEvent
    let stream = b"Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: PlainSMS\r\nText: hola\r\n\r\nEvent: Hangup\r\nChannel: PJSIP/1001-00000001\r\nUniqueid: 999.9\r\n\r\nEvent: Evil\r\n\r\nEvent: Newexten\r\nPrivilege: dialplan,all\r\n\r\n";
    let events: Vec<_> = frames(stream)
        .iter()
        .map(|frame| match frame {
            Frame::Message(message) => Event::parse(message).expect("an event"),
            other @ (Frame::Banner(_) | Frame::Malformed(_)) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(events.iter().map(|event| event.privileged).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(matches!(&events[1].kind, EventKind::Hangup { .. }), "the tracker must tell by `privileged`");
}

/// Pieces of streams, well-formed and not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(GOOD.to_vec()),
        Just(FOLLOWS.to_vec()),
        Just(b"Event: Odd\r\nX: 1\nY\r\n\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        "[A-Za-z: \r\n]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

fn banner() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(BANNER.to_vec()),
        4 => Just(b"Asterisk Call Manager/2.10.6\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        banner in banner(),
        pieces in prop::collection::vec(piece(), 0..20),
        sizes in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let stream = [banner, pieces.concat()].concat();
        let (mut rest, mut chunks) = (stream.as_slice(), Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (chunk, next) = rest.split_at(rest.len().min(*size));
            chunks.push(chunk);
            rest = next;
        }
        let whole = frames_of(Codec::default(), [stream.as_slice()]);
        prop_assert_eq!(&frames_of(Codec::default(), chunks), &whole);
        prop_assert_eq!(&frames_of(Codec::default(), stream.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..4000)) {
        for frame in frames(&stream) {
            if let Frame::Message(message) = frame {
                let _ = Event::parse(&message);
                let _ = format!("{message:?} {:?} {}", message.kind(), message.name());
                let _ = Response::parse(message).map(|response| response.output().len());
            }
        }
    }

    #[test]
    fn well_formed_messages_survive_garbage(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        // whatever stands between, one empty line ends it
        let stream = [GOOD, &garbage, b"\r\n\r\n", GOOD].concat();
        let got = names(&frames(&stream));
        prop_assert_eq!(got.first().map(String::as_str), Some("Good"));
        prop_assert_eq!(got.last().map(String::as_str), Some("Good"));
    }

    #[test]
    fn a_message_read_again_from_its_bytes_is_the_same(
        headers in prop::collection::vec(("[A-Za-z()/;_-]{1,20}", "[^\r\n]{0,40}"), 1..30),
    ) {
        let block: String = headers.iter().map(|(key, value)| format!("{key}: {value}\r\n")).collect();
        let got = frames(format!("{block}\r\n").as_bytes());
        let [Frame::Message(message)] = got.as_slice() else { panic!("one message: {got:?}") };
        prop_assert_eq!(message.as_bytes(), block.as_bytes());
        let read: Vec<_> = message.headers().map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned())).collect();
        prop_assert_eq!(&read, &headers);
        for (key, _) in &headers {
            let first = headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_bytes());
            prop_assert_eq!(message.get(&key.to_uppercase()), first);
            let all = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(key)).count();
            prop_assert_eq!(message.get_all(&key.to_lowercase()).count(), all);
        }
        prop_assert_eq!(Message::parse(message.as_bytes().to_vec()), Ok(message.clone()));
    }

    #[test]
    fn what_is_encoded_is_decoded(values in prop::collection::vec("[^\r\n\0]{0,60}", 0..20)) {
        let mut action = Action::new("Test").with_id("a1").expect("an id");
        for value in &values {
            action = action.header("Variable", value.as_str()).expect("no line break");
        }
        let mut bytes = BytesMut::new();
        Codec::default().encode(action, &mut bytes).expect("never fails");
        let got = frames(&bytes);
        let [Frame::Message(message)] = got.as_slice() else { panic!("one message: {got:?}") };
        prop_assert_eq!((message.get("Action"), message.get("ActionID")), (Some(&b"Test"[..]), Some(&b"a1"[..])));
        let read: Vec<_> = message.get_all("Variable").collect();
        prop_assert_eq!(read, values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
    }
}
