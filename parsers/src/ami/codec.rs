//! Cuts the byte stream into frames: any chunking gives the same frames, and a malformed or
//! over-long message costs that message only.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::{Action, Message};

/// What one side of the socket says next.
#[derive(Debug)]
pub enum Frame {
    /// The first line of a connection.
    Banner(Banner),
    /// One block of header lines.
    Message(Message),
    /// One block that could not be read; an item, not an error.
    Malformed(Malformed),
}

/// `Asterisk Call Manager/11.0.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banner {
    /// AMI's own version, major (not Asterisk's).
    pub major: u32,
    /// The version as written.
    pub version: String,
}

/// Why a block was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first line was not Asterisk's banner; its start is kept for the error text.
    NotAsterisk(String),
    /// A header line above [`Codec::MAX_LINE`].
    LineTooLong,
    /// A block above [`Codec::MAX_MESSAGE`].
    MessageTooLong,
    /// A block above [`Codec::MAX_HEADERS`] lines.
    TooManyHeaders,
    /// No line of the block is a header.
    NoHeader,
}

/// The codec of one connection, seen from the client.
#[derive(Debug, Default)]
pub struct Codec {
    _state: (),
}

impl Codec {
    /// Bytes of one header line.
    pub const MAX_LINE: usize = 64 * 1024;
    /// Bytes of one message.
    pub const MAX_MESSAGE: usize = 1024 * 1024;
    /// Header lines of one message.
    pub const MAX_HEADERS: usize = 4096;
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, _src: &mut BytesMut) -> Result<Option<Frame>, std::io::Error> {
        Ok(None)
    }
}

impl Encoder<Action> for Codec {
    type Error = std::io::Error;

    fn encode(&mut self, _action: Action, _dst: &mut BytesMut) -> Result<(), std::io::Error> {
        Ok(())
    }
}
