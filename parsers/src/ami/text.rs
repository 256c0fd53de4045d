//! Values as text. Asterisk passes on what carriers send, so a value need not be UTF-8, and it escapes
//! a few kinds of value and no others (`main/utils.c:ast_escape_c`).

use std::borrow::Cow;

/// UTF-8, else Windows-1252: never fails, and never changes valid UTF-8.
pub fn decode(raw: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(raw) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(raw.iter().map(|&byte| windows_1252(byte)).collect()),
    }
}

/// As the WHATWG has it: its five unassigned bytes are C1 controls.
fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

/// Undoes `ast_escape_c`: `\a \b \f \n \r \t \v \\ \' \" \?`. Other backslashes stay.
pub fn unescape(text: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        let escaped = if char == '\\' { rest.clone().next().and_then(escaped) } else { None };
        match escaped {
            Some(meant) => {
                rest.next();
                plain.push(meant);
            }
            None => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

/// What stands for the character after a backslash.
const fn escaped(letter: char) -> Option<char> {
    Some(match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '\'' | '"' | '?' => letter,
        _ => return None,
    })
}

/// Whether Asterisk escapes this key's value in this event. Exactly four kinds of field:
/// - caller and connected names of a channel block with any prefix. Not `EffectiveConnectedLineName`,
///   and not the names in QueueEntry, CEL and OriginateResponse, which look the same but are raw;
/// - `ChanVariable` with any prefix (not the key `ChanVariable(channel)` of old-style events);
/// - `Value` of VarSet;
/// - the texts of `CID-CallingPres` and of a presence's `Message`.
pub(super) fn is_escaped(event: &[u8], key: &str) -> bool {
    if let Some(prefix) = strip_suffix(key, "CallerIDName").or_else(|| strip_suffix(key, "ConnectedLineName"))
    {
        return !prefix.eq_ignore_ascii_case("Effective")
            && !matches!(event, b"QueueEntry" | b"CEL" | b"OriginateResponse");
    }
    if strip_suffix(key, "ChanVariable").is_some() || key.eq_ignore_ascii_case("CID-CallingPres") {
        return true;
    }
    match event {
        b"VarSet" => key.eq_ignore_ascii_case("Value"),
        b"PresenceStateChange" | b"PresenceStatus" => key.eq_ignore_ascii_case("Message"),
        _ => false,
    }
}

fn strip_suffix<'a>(key: &'a str, suffix: &str) -> Option<&'a str> {
    let (head, tail) = key.split_at_checked(key.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(head)
}
