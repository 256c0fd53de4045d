//! One AMI block: an ordered multimap of headers over the bytes as they came.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

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
///
/// Most messages of a busy PBX are looked at for their name only, so the headers are found when the first
/// one is asked for.
#[derive(Clone)]
pub struct Message {
    bytes: Bytes,
    /// Length of the header lines.
    head: usize,
    output: Option<Range<usize>>,
    index: OnceLock<Vec<Header>>,
}

/// Where one header stands in the message's bytes.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// [`tag`] of the key: most look-ups are settled by it.
    tag: u64,
    key: u32,
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
        let (head, output) = match grammar::follows(&bytes) {
            Ok((_, (head, output))) => {
                let start = bytes.offset(output);
                (head.len(), Some(start..start + output.len()))
            }
            Err(_) => (bytes.len(), None),
        };
        check(&bytes[..head])?;
        Ok(Self { bytes, head, output, index: OnceLock::new() })
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
        self.get_all(key).next()
    }

    /// Raw values of every header with this key, in order, case ignored.
    pub fn get_all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.find("", key).map(|header| &self.bytes[header.value()])
    }

    /// Every header with the key `{prefix}{key}`, in order, case ignored.
    pub(super) fn find(&self, prefix: &str, key: &str) -> impl Iterator<Item = &Header> {
        let wanted = tag(prefix.as_bytes(), key.as_bytes());
        let index = self.index.get_or_init(|| index(&self.bytes[..self.head]));
        index.iter().filter(move |header| header.tag == wanted && self.has_key(header, prefix, key))
    }

    fn has_key(&self, header: &Header, prefix: &str, key: &str) -> bool {
        let (start, len) = (header.key as usize, prefix.len() + key.len());
        self.bytes.get(start..start + len).is_some_and(|found| {
            let (head, tail) = found.split_at(prefix.len());
            same(tail, key.as_bytes()) && same(head, prefix.as_bytes())
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
        headers(&self.bytes[..self.head])
    }

    /// The raw output of a command, of an answer `Response: Follows`.
    pub fn output(&self) -> Option<&[u8]> {
        self.bytes.get(self.output.clone()?)
    }

    /// The whole block as it came, each line with its CRLF, without the empty line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
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

impl Header {
    /// Where the value stands.
    pub(super) const fn value(&self) -> Range<usize> {
        self.value as usize..self.end as usize
    }
}

/// `lines = *( line )`
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (next, line) = grammar::line(rest).ok().filter(|_| !rest.is_empty())?;
        rest = next;
        Some(line)
    })
}

/// The headers among a block's lines.
fn headers(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(block).filter_map(|line| Some(grammar::header(line).ok()?.1))
}

/// Finds what makes a block unreadable.
fn check(block: &[u8]) -> Result<(), Malformed> {
    // too short for any bound: a header takes at least `k:` and CRLF
    if block.len() < Codec::MAX_HEADERS
        && lines(block).next().is_some_and(|line| grammar::header(line).is_ok())
    {
        return Ok(());
    }
    if lines(block).any(|line| line.len() > Codec::MAX_LINE) {
        return Err(Malformed::LineTooLong);
    }
    match headers(block).take(Codec::MAX_HEADERS + 1).count() {
        0 => Err(Malformed::NoHeader),
        count if count > Codec::MAX_HEADERS => Err(Malformed::TooManyHeaders),
        _ => Ok(()),
    }
}

fn index(block: &[u8]) -> Vec<Header> {
    // a header of Asterisk is some 24 bytes long
    let mut index = Vec::with_capacity(block.len() / 20 + 1);
    index.extend(headers(block).filter_map(|(key, value)| {
        let at = |offset: usize| u32::try_from(offset).ok();
        let value_at = block.offset(value);
        Some(Header {
            tag: tag(b"", key),
            key: at(block.offset(key))?,
            value: at(value_at)?,
            end: at(value_at + value.len())?,
        })
    }));
    index
}

/// Equal, case ignored; most often it is equal to the letter.
fn same(found: &[u8], wanted: &[u8]) -> bool {
    found == wanted || found.eq_ignore_ascii_case(wanted)
}

/// Length, first and last letter of the key `{prefix}{key}`, case ignored.
fn tag(prefix: &[u8], key: &[u8]) -> u64 {
    let letter = |byte: Option<&u8>| u64::from(byte.copied().unwrap_or_default() | 0x20);
    let len = (prefix.len() + key.len()) as u64;
    len << 16 | letter(prefix.first().or(key.first())) << 8 | letter(key.last())
}
