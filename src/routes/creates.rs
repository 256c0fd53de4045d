//! From the parts of a call to NiMbox creates: the exact strings, computed once.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use parsers::cdr::Disposition;
use parsers::{Micros, Uniqueid};

use crate::calls::{CallKey, UpdateId};
use crate::cdr::{DropReason, Dropped, Numbers, Part, initiated, url};
use crate::config::{InboundDestination, Initiated, Mode, Nimbox, Pbx, Recordings};
use crate::digest;
use crate::hex::hex;
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
    /// In the order of the parts.
    pub creates: Vec<Create>,
    /// A reason for each part left out.
    pub skipped: Vec<&'static str>,
}

/// One create.
#[derive(Clone, Debug)]
pub struct Create {
    /// The id that goes with every attempt.
    pub id: UpdateId,
    /// Party A.
    pub party: Option<Uniqueid>,
    /// When the part began.
    pub start: Micros,
    /// What is sent.
    pub payload: Payload,
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
            let payload = Payload::Nimbox { initiated, source, destination, duration, url };
            let party = part.uniqueid.clone();
            made.creates.push(Create { id, party, start: part.start, payload });
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
        let start = part.start.0.to_string();
        let party_a = match (&part.uniqueid, &part.channel) {
            (Some(uniqueid), _) => [uniqueid.as_str(), ""],
            (None, Some(channel)) => [channel.as_str(), &start],
            (None, None) => ["", &start],
        };
        let ordinal = part.part.to_string();
        let hash = digest::of_texts(&[&self.pbx.name, "cdr", &call.0, party_a[0], party_a[1], &ordinal]);
        UpdateId(format!("{}.{}.{}", self.pbx.name, hex(&hash[..7]), part.part).into())
    }
}

fn by_worth(a: &Part, b: &Part) -> Ordering {
    let worth = |part: &Part| (part.disposition == Disposition::Answered, part.billsec, part.duration);
    worth(a).cmp(&worth(b))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use parsers::ChannelName;

    use super::*;
    use crate::config::{Config, Environment, load_text};

    fn config(nimbox: &str) -> Config {
        let text = format!(
            r#"
            [pbx]
            name = "hq"
            timezone = "America/Caracas"
            trunks = ["PJSIP/trunk"]
            [numbers]
            min_length = 7
            rules = [ {{ match = '^9(\d{{7}})$', replace = '0212$1' }}, {{ match = '^9(.+)$', replace = '$1' }} ]
            [recordings]
            url = "https://pbx.example.com/rec/{{path}}"
            [[nimbox]]
            name = "crm"
            url = "https://nimbox.example.com"
            token = "t"
            {nimbox}
            "#
        );
        load_text(&text, "test", &Environment::default()).unwrap().config
    }

    fn creates(nimbox: &str) -> Creates {
        let config = config(nimbox);
        let pbx = Arc::new(config.pbx.clone());
        Creates::new(&config.nimbox[0], &config.numbers, &config.recordings, &pbx)
    }

    /// 2026-11-21 13:19:27 UTC, 09:19:27 in Caracas.
    fn part() -> Part {
        Part {
            start: Micros::from_secs(1_795_267_167),
            start_local: Some("2026-11-21 09:19:27".into()),
            duration: 42,
            billsec: 30,
            disposition: Disposition::Answered,
            source: Some("04145550100".into()),
            destination: Some("1001".into()),
            did: Some("02125550101".into()),
            outbound: false,
            uniqueid: Some(Uniqueid::new("1795267167.7")),
            part: 0,
            linkedid: None,
            channel: Some(ChannelName::new("PJSIP/trunk-00000007")),
            recordingfile: None,
        }
    }

    fn outbound(dialled: &str) -> Part {
        Part {
            outbound: true,
            source: Some("1001".into()),
            destination: Some(dialled.into()),
            did: None,
            ..part()
        }
    }

    fn make(creates: &Creates, parts: &[Part]) -> (Vec<String>, Vec<&'static str>) {
        let made = creates.make(&CallKey("call".into()), parts);
        assert_eq!(made.creates.len() + made.skipped.len(), parts.len(), "every part is accounted for");
        let lines = made.creates.iter().map(|made| match &made.payload {
            Payload::Nimbox { initiated, source, destination, duration, .. } => {
                format!("{initiated} {source} {destination} {}", duration.unwrap_or_default())
            }
            Payload::Webhook { .. } => unreachable!(),
        });
        (lines.collect(), made.skipped)
    }

    #[test]
    fn initiated_is_written_as_configured() {
        for (form, expected) in [
            ("local-z", "2026-11-21T09:19:27Z"),
            ("local", "2026-11-21T09:19:27"),
            ("utc-z", "2026-11-21T13:19:27Z"),
            ("offset", "2026-11-21T09:19:27-04:00"),
        ] {
            let made = make(&creates(&format!("initiated = \"{form}\"")), &[part()]);
            assert_eq!(made.0, [format!("{expected} 04145550100 02125550101 42")], "{form}");
        }
    }

    #[test]
    fn an_inbound_destination_is_the_configured_one_or_the_next_best() {
        let unknown = Part { source: None, did: None, destination: Some("04245550199".into()), ..part() };
        let s = Part { did: Some("s".into()), ..unknown.clone() };
        for (what, of_part, of_unknown) in [
            ("did", "02125550101", "04245550199"),
            ("dst", "", "04245550199"),
            ("caller", "04145550100", "04245550199"),
        ] {
            let creates = creates(&format!("inbound_destination = \"{what}\""));
            let (made, skipped) = make(&creates, &[part()]);
            match of_part {
                "" => assert_eq!(skipped, ["destination shorter than min_length"], "{what}"),
                number => assert_eq!(made, [format!("2026-11-21T09:19:27Z 04145550100 {number} 42")]),
            }
            for part in [&unknown, &s] {
                let (made, _) = make(&creates, std::slice::from_ref(part));
                assert_eq!(made, [format!("2026-11-21T09:19:27Z anonymous {of_unknown} 42")], "{what}");
            }
        }
    }

    #[test]
    fn rules_rewrite_what_was_dialled_and_never_what_called_in() {
        let creates = creates("");
        for (dialled, expected) in
            [("95550102", "02125550102"), ("904145550103", "04145550103"), ("04145550103", "04145550103")]
        {
            let (made, _) = make(&creates, &[outbound(dialled)]);
            assert_eq!(made, [format!("2026-11-21T09:19:27Z 1001 {expected} 42")], "{dialled}");
        }
        let (made, _) = make(&creates, &[Part { did: Some("95550102".into()), ..part() }]);
        assert_eq!(made, ["2026-11-21T09:19:27Z 04145550100 95550102 42"]);
    }

    #[test]
    fn length_is_of_the_number_as_dialled() {
        let creates = creates("");
        // 9 and six digits are seven as dialled and six after the rules
        assert_eq!(make(&creates, &[outbound("9555010")]).0, ["2026-11-21T09:19:27Z 1001 555010 42"]);
        assert_eq!(make(&creates, &[outbound("555010")]).1, ["destination shorter than min_length"]);
        let nobody = Part { destination: None, ..outbound("") };
        assert_eq!(make(&creates, &[nobody]).1, ["no destination"]);
    }

    #[test]
    fn a_route_may_have_rules_of_its_own() {
        let creates = creates("numbers = { min_length = 3, rules = [] }");
        assert_eq!(make(&creates, &[outbound("911")]).0, ["2026-11-21T09:19:27Z 1001 911 42"]);
    }

    #[test]
    fn of_equal_keys_the_best_is_sent() {
        let missed = Part { disposition: Disposition::NoAnswer, billsec: 0, duration: 60, ..part() };
        let talked = Part { billsec: 31, duration: 50, part: 1, ..part() };
        let short = Part { billsec: 2, duration: 3, part: 2, ..part() };
        for order in [[&missed, &talked, &short], [&short, &talked, &missed], [&talked, &missed, &short]] {
            let parts: Vec<Part> = order.into_iter().cloned().collect();
            let (made, skipped) = make(&creates(""), &parts);
            assert_eq!(made, ["2026-11-21T09:19:27Z 04145550100 02125550101 50"]);
            assert_eq!(skipped, ["same time, source and destination as another record"; 2]);
        }
    }

    #[test]
    fn an_id_is_of_the_call_party_a_and_part_and_of_nothing_that_may_change() {
        let id = |call: &str, part: &Part| {
            let made = creates("").make(&CallKey(call.into()), std::slice::from_ref(part));
            made.creates[0].id.0.to_string()
        };
        let of_part = id("call", &part());
        insta::assert_snapshot!(of_part, @"hq.f0070a56ac9554.0");
        let later = Part { duration: 99, source: None, recordingfile: Some("x.wav".into()), ..part() };
        assert_eq!(id("call", &later), of_part);
        let others = [
            id("other", &part()),
            id("call", &Part { part: 1, ..part() }),
            id("call", &Part { uniqueid: Some(Uniqueid::new("1795267167.8")), ..part() }),
            id("call", &Part { uniqueid: None, ..part() }),
            id("call", &Part { uniqueid: None, channel: None, ..part() }),
        ];
        for (n, other) in others.iter().enumerate() {
            assert!(*other != of_part && !others[n + 1..].contains(other), "{other}");
        }
    }

    #[test]
    fn a_create_links_the_recording() {
        let recorded = Part { recordingfile: Some("in-1-2-20261121-091927-1.7.wav".into()), ..part() };
        let made = creates("").make(&CallKey("call".into()), &[recorded]);
        let Payload::Nimbox { url, .. } = &made.creates[0].payload else { unreachable!() };
        let expected = "https://pbx.example.com/rec/2026/11/21/in-1-2-20261121-091927-1.7.wav";
        assert_eq!(url.as_deref(), Some(expected));
    }
}
