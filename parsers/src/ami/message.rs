//! One AMI block: an ordered multimap of headers over the bytes as they came.

use std::borrow::Cow;

use bytes::Bytes;

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

/// One message, borrowed from the read buffer's bytes.
#[derive(Clone, Debug)]
pub struct Message {
    _bytes: Bytes,
}

impl Message {
    /// By the first header alone (`OriginateResponse` has both).
    pub fn kind(&self) -> Kind {
        Kind::Other
    }

    /// The first header's value: an event's name, a response's status.
    pub fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// Raw value of the first header with this key, case ignored.
    pub fn get(&self, _key: &str) -> Option<&[u8]> {
        None
    }

    /// Value as text: UTF-8, else Windows-1252; unescaped where Asterisk escapes that key.
    pub fn text(&self, _key: &str) -> Option<Cow<'_, str>> {
        None
    }

    /// Every header in order, raw.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        std::iter::empty()
    }

    /// The whole block as it came, without its empty line.
    pub fn as_bytes(&self) -> &[u8] {
        &self._bytes
    }
}
