//! Streams and what comes out of them.

use bytes::BytesMut;
use parsers::ami::{Codec, Event, EventKind, Frame, Malformed, Message};
use tokio_util::codec::Decoder;

pub const BANNER: &[u8] = b"Asterisk Call Manager/11.0.0\r\n";

/// Every frame of a stream that arrives in these pieces and then ends.
pub fn frames_of<'a>(mut codec: Codec, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(frame) = codec.decode(&mut buffer).expect("decoding never fails") {
            frames.push(frame);
        }
    }
    while let Some(frame) = codec.decode_eof(&mut buffer).expect("the end never fails") {
        frames.push(frame);
    }
    assert!(buffer.is_empty(), "the end leaves nothing");
    frames
}

/// Every frame of a stream that has no banner.
pub fn frames(stream: &[u8]) -> Vec<Frame> {
    frames_of(Codec::after_banner(), [stream])
}

/// The messages' names, and each malformed one's reason.
pub fn names(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| match frame {
            Frame::Banner(banner) => format!("banner {}", banner.version),
            Frame::Message(message) => message.name().into_owned(),
            Frame::Malformed(reason) => format!("{reason:?}"),
        })
        .collect()
}

/// One block's message.
pub fn message(block: &str) -> Message {
    Message::parse(block.replace('\n', "\r\n").into_bytes()).expect("a block with headers")
}

/// One block's event.
pub fn event(block: &str) -> Event {
    Event::parse(&message(block)).expect("an event")
}

/// What one block's event says.
pub fn kind(block: &str) -> EventKind {
    event(block).kind
}

/// What a block is refused for.
pub fn refused(block: &[u8]) -> Malformed {
    Message::parse(block.to_vec()).expect_err("a block that cannot be read")
}
