//! One AMI block: an ordered multimap of headers over the bytes as they came.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use nom::Offset;

use super::codec::{Codec, Malformed};
use super::{grammar, text};

/// A block that begins with `Response:`, with `Event:`, or with neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An answer to an action.
    Response,
    /// Something that happened, or an item of a list.
    Event,
    /// Anything else.
    Other,
}

/// One message, borrowed from the read buffer's bytes. It has at least one header.
#[derive(Clone)]
pub struct Message {
    bytes: Bytes,
    headers: Vec<Header>,
    output: Option<Range<usize>>,
}

/// Where one header stands in the message's bytes.
#[derive(Clone, Copy)]
struct Header {
    start: u32,
    key_len: u32,
    value: u32,
    end: u32,
}

impl Message {
    /// Reads one block: lines that end in CRLF, with or without the last one's. Lines that are no
    /// header are passed over.
    ///
    /// # Errors
    /// When the block or a line is too long, has too many headers, or none.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, Malformed> {
        let bytes = bytes.into();
        if bytes.len() > Codec::MAX_MESSAGE {
            return Err(Malformed::MessageTooLong);
        }
        match grammar::follows(&bytes) {
            Ok((_, (head, output))) => {
                let headers = index(head)?;
                let start = bytes.offset(output);
                let output = Some(start..start + output.len());
                Ok(Self { bytes, headers, output })
            }
            Err(_) => Ok(Self { headers: index(&bytes)?, bytes, output: None }),
        }
    }

    /// By the first header alone (`OriginateResponse` has both).
    pub fn kind(&self) -> Kind {
        match self.headers().next() {
            Some((key, _)) if key.eq_ignore_ascii_case(b"Response") => Kind::Response,
            Some((key, _)) if key.eq_ignore_ascii_case(b"Event") => Kind::Event,
            _ => Kind::Other,
        }
    }

    /// The first header's value: an event's name, a response's status.
    pub fn name(&self) -> Cow<'_, str> {
        text::decode(self.raw_name())
    }

    pub(super) fn raw_name(&self) -> &[u8] {
        self.headers().next().map_or(b"", |(_, value)| value)
    }

    /// Raw value of the first header with this key, case ignored.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.find("", key)
    }

    /// Raw values of every header with this key, in order, case ignored.
    pub fn get_all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.find_all("", key)
    }

    /// As [`Self::get`], for the key `{prefix}{key}`.
    pub(super) fn find(&self, prefix: &str, key: &str) -> Option<&[u8]> {
        self.find_all(prefix, key).next()
    }

    /// As [`Self::get_all`], for the key `{prefix}{key}`.
    pub(super) fn find_all(&self, prefix: &str, key: &str) -> impl Iterator<Item = &[u8]> {
        let len = prefix.len() + key.len();
        self.headers.iter().filter(move |header| header.key_len as usize == len).filter_map(move |header| {
            let (head, tail) = self.key(header).split_at_checked(prefix.len())?;
            let same =
                tail.eq_ignore_ascii_case(key.as_bytes()) && head.eq_ignore_ascii_case(prefix.as_bytes());
            same.then(|| self.value(header))
        })
    }

    /// Value as text: UTF-8, else Windows-1252; unescaped where Asterisk escapes that key.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        let text = text::decode(self.get(key)?);
        let escaped = self.kind() == Kind::Event && text::is_escaped(self.raw_name(), key);
        Some(if escaped { text::unescape(text) } else { text })
    }

    /// Every header in order, raw.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|header| (self.key(header), self.value(header)))
    }

    /// The raw output of a command, of an answer `Response: Follows`.
    pub fn output(&self) -> Option<&[u8]> {
        self.bytes.get(self.output.clone()?)
    }

    /// The whole block as it came, each line with its CRLF, without the empty line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn key(&self, header: &Header) -> &[u8] {
        let start = header.start as usize;
        &self.bytes[start..start + header.key_len as usize]
    }

    fn value(&self, header: &Header) -> &[u8] {
        &self.bytes[header.value as usize..header.end as usize]
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.bytes, f)
    }
}

/// `message = 1*( line )`: finds the headers among a block's lines.
fn index(block: &[u8]) -> Result<Vec<Header>, Malformed> {
    // a header of Asterisk is some 24 bytes long
    let mut headers = Vec::with_capacity(block.len() / 20 + 1);
    let mut rest = block;
    while !rest.is_empty() {
        let Ok((next, line)) = grammar::line(rest) else { break };
        if line.len() > Codec::MAX_LINE {
            return Err(Malformed::LineTooLong);
        }
        if let Ok((_, (key, value))) = grammar::header(line) {
            if headers.len() == Codec::MAX_HEADERS {
                return Err(Malformed::TooManyHeaders);
            }
            let (start, end) = (block.offset(line), block.offset(line) + line.len());
            headers.push(Header::new(start, key.len(), end - value.len(), end)?);
        }
        rest = next;
    }
    if headers.is_empty() { Err(Malformed::NoHeader) } else { Ok(headers) }
}

impl Header {
    /// Offsets fit, since no message is longer than [`Codec::MAX_MESSAGE`].
    fn new(start: usize, key_len: usize, value: usize, end: usize) -> Result<Self, Malformed> {
        let fit = |at| u32::try_from(at).map_err(|_| Malformed::MessageTooLong);
        Ok(Self { start: fit(start)?, key_len: fit(key_len)?, value: fit(value)?, end: fit(end)? })
    }
}
