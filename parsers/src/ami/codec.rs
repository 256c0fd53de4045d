//! Cuts the byte stream into frames: any chunking gives the same frames, and a malformed or
//! over-long message costs that message only.
//!
//! ```text
//!   Banner --line--> Messages --longer than MAX_MESSAGE--> Skipping
//!      |                 ^                                    |
//!      '--not Asterisk   '-----------the next empty line------'
//!         --> Foreign
//! ```

use bytes::{Buf, BytesMut};
use memchr::{memchr, memmem};
use tokio_util::codec::{Decoder, Encoder};

use super::{Action, Message, grammar, text};

/// What one side of the socket says next.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug)]
pub struct Codec {
    state: State,
    /// Bytes of the unfinished message that were searched for its end already.
    searched: usize,
    /// Whether Command is answered by `Response: Follows`: AMI 1 and 2 (Asterisk 11, 13). Elsewhere
    /// nobody may swallow the stream by forging that line.
    follows: bool,
    blank_line: memmem::Finder<'static>,
    blank_lf: memmem::Finder<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Banner,
    Messages,
    Skipping,
    Foreign,
}

/// Where a block ends, and where what comes after it begins.
#[derive(Clone, Copy)]
struct End {
    /// Length of the block with its last CRLF.
    block: usize,
    /// Length with the empty line as well.
    with_blank: usize,
}

impl Codec {
    /// Bytes of one header line.
    pub const MAX_LINE: usize = 64 * 1024;
    /// Bytes of one message.
    pub const MAX_MESSAGE: usize = 1024 * 1024;
    /// Header lines of one message.
    pub const MAX_HEADERS: usize = 4096;
    /// Bytes of the banner's line.
    const MAX_BANNER: usize = 256;
    /// The longest end of a block: CRLF and an empty line.
    const LONGEST_END: usize = 4;

    /// For a recording that begins after the banner, of AMI 3 or later (Asterisk 14).
    pub fn after_banner() -> Self {
        Self { state: State::Messages, ..Self::default() }
    }

    fn banner(&mut self, src: &mut BytesMut) -> Option<Frame> {
        let Some(lf) = memchr(b'\n', &src[..src.len().min(Self::MAX_BANNER)]) else {
            return (src.len() >= Self::MAX_BANNER).then(|| self.foreign(src));
        };
        let line = src[..lf].trim_ascii_end();
        let Some((major, version)) =
            std::str::from_utf8(line).ok().and_then(|line| Some(grammar::banner(line).ok()?.1))
        else {
            return Some(self.foreign(src));
        };
        let banner = Banner { major, version: version.to_owned() };
        self.follows = major <= 2;
        self.state = State::Messages;
        src.advance(lf + 1);
        Some(Frame::Banner(banner))
    }

    /// Gives the first line's start, and nothing else for the rest of the connection.
    fn foreign(&mut self, src: &mut BytesMut) -> Frame {
        let start = &src[..src.len().min(Self::MAX_BANNER)];
        let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let shown: String = text::decode(line).chars().filter(|char| !char.is_control()).take(64).collect();
        self.state = State::Foreign;
        src.clear();
        Frame::Malformed(Malformed::NotAsterisk(shown))
    }

    fn message(&mut self, src: &mut BytesMut) -> Option<Frame> {
        if self.searched == 0 {
            let blanks = grammar::blank(src).map_or(0, |(_, blanks)| blanks);
            src.advance(blanks);
        }
        let end = self.find_end(src);
        let Some(end) = end.filter(|end| end.block <= Self::MAX_MESSAGE) else {
            if end.is_none() && src.len() < Self::MAX_MESSAGE + Self::LONGEST_END {
                self.searched = src.len();
                return None;
            }
            return Some(self.too_long(src));
        };
        self.searched = 0;
        let mut block = src.split_to(end.with_blank);
        block.truncate(end.block);
        Some(Message::parse(block).map_or_else(Frame::Malformed, Frame::Message))
    }

    /// Gives a message up. Its end is sought from where it became too long, however much of it is here.
    fn too_long(&mut self, src: &mut BytesMut) -> Frame {
        self.searched = 0;
        self.state = State::Skipping;
        src.advance(Self::MAX_MESSAGE - Self::LONGEST_END);
        Frame::Malformed(Malformed::MessageTooLong)
    }

    /// Drops what is there, up to and with the next empty line if there is one.
    fn skip(&mut self, src: &mut BytesMut) {
        match self.find_blank(src, 0) {
            Some(end) => {
                src.advance(end.with_blank);
                self.state = State::Messages;
            }
            None => src.advance(src.len().saturating_sub(Self::LONGEST_END - 1)),
        }
    }

    fn find_end(&self, src: &[u8]) -> Option<End> {
        if self.follows && grammar::follows_line(src).is_ok() {
            return self.find_command_end(src);
        }
        self.find_blank(src, self.searched.saturating_sub(Self::LONGEST_END - 1))
    }

    /// `CRLF CRLF`, or `CRLF LF` as some modules end their events.
    fn find_blank(&self, src: &[u8], from: usize) -> Option<End> {
        let crlf = self.blank_line.find(&src[from..]).map(|at| from + at);
        let before = &src[from..crlf.unwrap_or(src.len())];
        // two LF in a row are rare, so that looking for them costs little
        let mut lf = self.blank_lf.find_iter(before).map(|at| from + at);
        match (lf.find(|&at| at > 0 && src[at - 1] == b'\r'), crlf) {
            (Some(at), _) => Some(End { block: at + 1, with_blank: at + 2 }),
            (None, Some(at)) => Some(End { block: at + 2, with_blank: at + 4 }),
            (None, None) => None,
        }
    }

    /// `--END COMMAND-- CRLF CRLF`; the output before it may hold empty lines.
    fn find_command_end(&self, src: &[u8]) -> Option<End> {
        const END: &[u8] = b"--END COMMAND--\r\n\r\n";
        let from = self.searched.saturating_sub(END.len() - 1);
        let at = from + memmem::find(&src[from..], END)?;
        Some(End { block: at + END.len() - 2, with_blank: at + END.len() })
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            state: State::Banner,
            searched: 0,
            follows: false,
            blank_line: memmem::Finder::new(b"\r\n\r\n"),
            blank_lf: memmem::Finder::new(b"\n\n"),
        }
    }
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = std::io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, std::io::Error> {
        if self.state == State::Skipping {
            self.skip(src);
        }
        Ok(match self.state {
            State::Banner => self.banner(src),
            State::Messages => self.message(src),
            State::Skipping => None,
            State::Foreign => {
                src.clear();
                None
            }
        })
    }

    /// A torn tail is a lost connection, not a message and not an error.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, std::io::Error> {
        let frame = self.decode(src)?;
        if frame.is_none() {
            src.clear();
            self.searched = 0;
        }
        Ok(frame)
    }
}

impl Encoder<Action> for Codec {
    type Error = std::io::Error;

    fn encode(&mut self, action: Action, dst: &mut BytesMut) -> Result<(), std::io::Error> {
        action.write(dst);
        Ok(())
    }
}
