//! From the parts of a call to NiMbox creates: the exact strings, computed once.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use parsers::cdr::Disposition;
use sha2::{Digest, Sha256};

use crate::calls::{CallKey, UpdateId};
use crate::cdr::{DropReason, Dropped, Numbers, Part, initiated, url};
use crate::config::{InboundDestination, Initiated, Mode, Nimbox, Pbx, Recordings};
use crate::journal::Payload;

/// One NiMbox route's rules.
#[derive(Debug)]
pub struct Creates {
    pbx: Arc<Pbx>,
    initiated: Initiated,
    mode: Mode,
    inbound_destination: InboundDestination,
    withheld_source: String,
    numbers: Numbers,
    recordings: Recordings,
}

/// What became of a call's parts: every part is in one of the two.
#[derive(Debug, Default)]
pub struct Made {
    /// Id and create.
    pub creates: Vec<(UpdateId, Payload)>,
    /// A reason for each part left out.
    pub skipped: Vec<&'static str>,
}

/// What NiMbox tells calls apart by: `initiated`, `source`, `destination`.
type Key = (String, String, String);

impl Creates {
    /// `numbers`: the global rules, where the route has none of its own.
    pub fn new(
        config: &Nimbox,
        numbers: &crate::config::Numbers,
        recordings: &Recordings,
        pbx: &Arc<Pbx>,
    ) -> Self {
        Self {
            pbx: Arc::clone(pbx),
            initiated: config.initiated,
            mode: config.mode,
            inbound_destination: config.inbound_destination,
            withheld_source: config.withheld_source.clone(),
            numbers: Numbers::new(config.numbers.as_ref().unwrap_or(numbers)),
            recordings: recordings.clone(),
        }
    }

    /// Of equal keys the best part is kept, in the place of the first.
    pub fn make(&self, call: &CallKey, parts: &[Part]) -> Made {
        let mut made = Made::default();
        let mut kept: Vec<(Key, &Part)> = Vec::new();
        let mut places: HashMap<Key, usize> = HashMap::new();
        for part in parts {
            let key = match self.key(part) {
                Ok(key) => key,
                Err(why) => {
                    made.skipped.push(why);
                    continue;
                }
            };
            match places.get(&key) {
                None => {
                    places.insert(key.clone(), kept.len());
                    kept.push((key, part));
                }
                Some(&place) => {
                    made.skipped.push(DropReason::SameKey.text());
                    if by_worth(part, kept[place].1) == Ordering::Greater {
                        kept[place].1 = part;
                    }
                }
            }
        }
        for ((initiated, source, destination), part) in kept {
            let id = self.id(call, part);
            let duration = Some(part.duration);
            let url = url(&self.recordings, part, &self.pbx.timezone);
            made.creates.push((id, Payload::Nimbox { initiated, source, destination, duration, url }));
        }
        made
    }

    fn key(&self, part: &Part) -> Result<Key, &'static str> {
        let chosen = self.destination(part).ok_or(DropReason::NoDestination.text())?;
        let destination = if part.outbound {
            self.numbers.apply(chosen).map_err(Dropped::text)?.into_owned()
        } else {
            self.numbers.accept(chosen).map_err(Dropped::text)?;
            chosen.to_owned()
        };
        let initiated = initiated(part, self.initiated, &self.pbx.timezone);
        if initiated.is_empty() {
            return Err(DropReason::NoTime.text());
        }
        let source = part.source.as_deref().unwrap_or(&self.withheld_source).to_owned();
        Ok((initiated, source, destination))
    }

    /// The number dialled; inbound, what the configuration says, and where that is unknown the next
    /// best: the DID, then the row's `dst`.
    fn destination<'a>(&self, part: &'a Part) -> Option<&'a str> {
        let dst = part.destination.as_deref().filter(|dst| !dst.is_empty());
        if part.outbound || self.mode == Mode::Raw {
            return dst;
        }
        // Asterisk's `s` is an extension without a number
        let did = part.did.as_deref().filter(|did| did.bytes().any(|b| b.is_ascii_digit()));
        match self.inbound_destination {
            InboundDestination::Did => did.or(dst),
            InboundDestination::Dst => dst.or(did),
            InboundDestination::Caller => part.source.as_deref().or(did).or(dst),
        }
    }

    /// `<pbx>.<14 hex digits>.<part>`, from the call, party A and the part.
    fn id(&self, call: &CallKey, part: &Part) -> UpdateId {
        let mut hash = Sha256::new();
        let start = part.start.0.to_string();
        let party_a = match (&part.uniqueid, &part.channel) {
            (Some(uniqueid), _) => [uniqueid.as_str(), ""],
            (None, Some(channel)) => [channel.as_str(), &start],
            (None, None) => ["", &start],
        };
        let ordinal = part.part.to_string();
        for text in [&self.pbx.name, "cdr", &call.0, party_a[0], party_a[1], &ordinal] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        let hash = hash.finalize();
        let hex: String = hash.iter().take(7).map(|byte| format!("{byte:02x}")).collect();
        UpdateId(format!("{}.{hex}.{}", self.pbx.name, part.part).into())
    }
}

fn by_worth(a: &Part, b: &Part) -> Ordering {
    let worth = |part: &Part| (part.disposition == Disposition::Answered, part.billsec, part.duration);
    worth(a).cmp(&worth(b))
}
