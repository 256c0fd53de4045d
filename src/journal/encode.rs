//! From what is appended to the payloads of records, on the caller's side of the channel: the
//! writer thread only places them.

use parsers::Uniqueid;
use serde::{Deserialize, Serialize};

use super::compact;
use super::format::{OBJECT_PART, PAYLOAD_CAP, Reader};
use super::known::Create;
use super::pack;
use super::types::{Batch, JournalError, Outgoing, Payload, RouteId, Settlement, TraceMessage};
use crate::calls::{CallKey, ObjectKey, Update, UpdateId};

/// Largest open object.
const OBJECT_CAP: usize = 256 * 1024;
/// Longest name, call or object key: a record's key is at most 255 bytes.
pub(super) const NAME_CAP: usize = 200;
/// Reasons longer than this are cut.
const REASON_CAP: usize = 100;
/// Longest reason or answer of a settlement.
pub(super) const ANSWER_CAP: usize = 1024;
/// What precedes a delivery's JSON: its sequence in its call, and when it was accepted.
pub(super) const ENTRY_HEAD: usize = 16;

/// Bytes for each name that a create is known by, its key included.
const NAME: usize = 16;

/// A batch ready to be placed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) messages: Vec<(Vec<CallKey>, Vec<u8>)>,
    pub(super) updates: Vec<Update>,
    /// One for each update.
    pub(super) update_payloads: Vec<Vec<u8>>,
    pub(super) cdrs: Vec<(CallKey, Vec<u8>)>,
    /// Each merger under both of its calls.
    pub(super) mergers: Vec<(CallKey, Vec<u8>)>,
    pub(super) outbox: Vec<PreparedEntry>,
    /// The parts of each object, or none when it is gone.
    pub(super) objects: Vec<(ObjectKey, Vec<Vec<u8>>)>,
    pub(super) ended: Vec<CallKey>,
    pub(super) skipped: Vec<(RouteId, String)>,
    /// Records it makes, roughly.
    pub(super) records: usize,
    /// Payload bytes.
    pub(super) bytes: usize,
}

/// One delivery: what the writer must know of it, and its packed JSON.
#[derive(Debug)]
pub(super) struct PreparedEntry {
    pub(super) route: RouteId,
    pub(super) call: CallKey,
    pub(super) ordered: bool,
    pub(super) packed: Vec<u8>,
    /// Where it is a create.
    pub(super) create: Option<Create>,
}

/// A delivery as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) route: RouteId,
    pub(super) id: UpdateId,
    pub(super) call: CallKey,
    pub(super) ordered: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) party: Option<Uniqueid>,
    pub(super) payload: Payload,
}

/// A delivery as read back.
#[derive(Clone, Debug)]
pub(super) struct StoredEntry {
    pub(super) sequence: u64,
    pub(super) accepted: i64,
    pub(super) entry: Entry,
}

/// How the last attempt ended, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredOutcome {
    pub(super) at: i64,
    pub(super) attempts: u32,
    pub(super) settlement: Settlement,
}

impl StoredEntry {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader(bytes);
        let sequence = read.u64()?;
        let accepted = read.i64()?;
        Some(Self { sequence, accepted, entry: pack::read(read.0)? })
    }
}

impl PreparedEntry {
    pub(super) fn new(entry: &Entry) -> Result<Self, JournalError> {
        let json = json(entry)?;
        if json.len() + ENTRY_HEAD > PAYLOAD_CAP {
            return Err(JournalError::TooLarge(json.len() + ENTRY_HEAD));
        }
        name_fits(&entry.call.0)?;
        name_fits(&entry.route.0)?;
        let packed = pack::pack(json);
        let create = Create::of(entry);
        let (route, call) = (entry.route.clone(), entry.call.clone());
        Ok(Self { route, call, ordered: entry.ordered, packed, create })
    }

    /// As it comes from a route.
    pub(super) fn of(outgoing: Outgoing) -> Result<Self, JournalError> {
        let Outgoing { route, id, call, ordered, party, start, payload } = outgoing;
        let mut entry = Self::new(&Entry { route, id, call, ordered, party, payload })?;
        if let Some(create) = &mut entry.create {
            create.start = start;
        }
        Ok(entry)
    }

    /// Payload bytes it makes.
    pub(super) fn bytes(&self) -> usize {
        self.packed.len() + self.names() * NAME
    }

    /// Records it makes.
    pub(super) fn records(&self) -> usize {
        2 + self.names()
    }

    fn names(&self) -> usize {
        self.create.as_ref().map_or(0, |create| create.names().count())
    }

    /// The payload of its record.
    pub(super) fn payload(&self, sequence: u64, accepted: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_HEAD + self.packed.len());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&accepted.to_be_bytes());
        out.extend_from_slice(&self.packed);
        out
    }
}

/// Writes a batch as payloads and holds it to the limits.
pub(super) fn prepare(batch: Batch) -> Result<Prepared, JournalError> {
    let mut out = Prepared::default();
    for traced in batch.messages {
        for call in &traced.calls {
            name_fits(&call.0)?;
        }
        let payload = message_payload(traced.message)?;
        out.bytes += payload.len() * traced.calls.len();
        // those of the same calls share a record
        let known = out.messages.iter_mut().rfind(|(calls, _)| *calls == traced.calls);
        match known.filter(|(_, known)| known.len() + payload.len() <= PAYLOAD_CAP) {
            Some((_, known)) => known.extend_from_slice(&payload[1..]),
            None => {
                out.records += traced.calls.len();
                out.messages.push((traced.calls, payload));
            }
        }
    }
    for update in batch.updates {
        name_fits(&update.call.0)?;
        let payload = pack::pack(capped(json(&update)?)?);
        out.bytes += payload.len();
        out.records += 1;
        out.updates.push(update);
        out.update_payloads.push(payload);
    }
    for (call, cdr) in batch.cdrs {
        name_fits(&call.0)?;
        let payload = pack::pack(capped(json(&cdr)?)?);
        out.bytes += payload.len();
        out.records += 1;
        out.cdrs.push((call, payload));
    }
    for merger in batch.mergers {
        let payload = pack::pack(json(&merger)?);
        for call in [merger.from, merger.into] {
            name_fits(&call.0)?;
            out.bytes += payload.len();
            out.records += 1;
            out.mergers.push((call, payload.clone()));
        }
    }
    for outgoing in batch.outbox {
        let entry = PreparedEntry::of(outgoing)?;
        out.bytes += entry.bytes();
        out.records += entry.records();
        out.outbox.push(entry);
    }
    for (name, value) in batch.objects {
        name_fits(&name.0)?;
        let parts = value.map(|value| object_parts(&value)).transpose()?.unwrap_or_default();
        out.bytes += parts.iter().map(Vec::len).sum::<usize>();
        out.records += parts.len().max(1);
        out.objects.push((name, parts));
    }
    for call in &batch.ended {
        name_fits(&call.0)?;
    }
    out.ended = batch.ended;
    for (route, reason) in batch.skipped {
        name_fits(&route.0)?;
        out.skipped.push((route, cut(&reason, REASON_CAP).to_owned()));
    }
    Ok(out)
}

/// Puts an object together again; `None` when parts are missing.
pub(super) fn join_object(parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in parts {
        let mut read = Reader(part);
        if usize::from(read.u16()?) != parts.len() {
            return None;
        }
        out.extend_from_slice(read.0);
    }
    Some(out)
}

/// Holds a name to what a key can carry.
pub(super) fn name_fits(name: &str) -> Result<(), JournalError> {
    if name.len() > NAME_CAP { Err(JournalError::TooLarge(name.len())) } else { Ok(()) }
}

/// Holds a payload to what a record may carry.
pub(super) fn capped(payload: Vec<u8>) -> Result<Vec<u8>, JournalError> {
    if payload.len() > PAYLOAD_CAP { Err(JournalError::TooLarge(payload.len())) } else { Ok(payload) }
}

/// At most so many bytes of a text, cut between characters.
pub(super) fn cut(text: &str, cap: usize) -> &str {
    let mut end = text.len().min(cap);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A value as JSON. Our own types cannot fail to be written; were one to, the batch is refused.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value)
        .map_err(|error| JournalError::Io { path: std::path::PathBuf::new(), why: error.to_string() })
}

/// A trace is there to be read: a message too large for a record loses its last headers.
fn message_payload(mut message: TraceMessage) -> Result<Vec<u8>, JournalError> {
    loop {
        let mut payload = vec![compact::COMPACT];
        compact::add(&message, &mut payload);
        if payload.len() <= PAYLOAD_CAP {
            return Ok(payload);
        }
        if message.headers.is_empty() {
            return Err(JournalError::TooLarge(payload.len()));
        }
        message.headers.truncate(message.headers.len() / 2);
    }
}

fn object_parts(value: &[u8]) -> Result<Vec<Vec<u8>>, JournalError> {
    if value.len() > OBJECT_CAP {
        return Err(JournalError::TooLarge(value.len()));
    }
    let count = u16::try_from(value.len().div_ceil(OBJECT_PART).max(1)).unwrap_or(u16::MAX);
    let part = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(2 + bytes.len());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(bytes);
        out
    };
    if value.is_empty() {
        return Ok(vec![part(&[])]);
    }
    Ok(value.chunks(OBJECT_PART).map(part).collect())
}
