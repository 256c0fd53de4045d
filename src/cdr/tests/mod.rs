//! The fold as a whole: every scenario of the catalogue, and its promises.

#![expect(clippy::unwrap_used, reason = "a fixture that does not read fails the test")]

mod catalogue;
mod promises;

use std::sync::{Arc, LazyLock};

use parsers::cdr::Disposition;
use parsers::{Cdr, ChannelName, Linkedid, Micros, Uniqueid};

use super::Numbers;
use crate::calls::{CallKey, CdrGroup, CdrRow, CdrSource};
use crate::config::{NumberRule, Pbx, Trunk};

pub(super) fn pbx() -> Pbx {
    static PBX: LazyLock<Pbx> = LazyLock::new(|| Pbx {
        name: "hq".to_owned(),
        timezone: jiff::tz::TimeZone::UTC,
        trunks: vec![Trunk { channel: "PJSIP/trunk".to_owned(), number: None }],
        inbound_contexts: vec!["from-trunk".to_owned()],
        extensions: regex::Regex::new(r"^\d{2,6}$").unwrap(),
        users: Vec::new(),
    });
    PBX.clone()
}

fn numbers() -> &'static Numbers {
    static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
        let rule = |pattern: &str, replace: &str| NumberRule {
            pattern: regex::Regex::new(pattern).unwrap(),
            replace: replace.to_owned(),
        };
        let rules = vec![rule(r"^9(\d{7})$", "0212$1"), rule("^9(.+)$", "$1")];
        Numbers::new(&crate::config::Numbers { min_length: 7, rules })
    });
    &NUMBERS
}

fn group(rows: Vec<CdrRow>) -> CdrGroup {
    CdrGroup { call: CallKey(Arc::from("test")), rows, source: CdrSource::Events }
}

/// A row with what the fold reads, from the fields of the fixture.
pub(super) fn row(text: &str) -> CdrRow {
    let fields: Vec<&str> = text.split('|').collect();
    let [
        uniqueid,
        linkedid,
        sequence,
        src,
        dst,
        channel,
        dstchannel,
        lastapp,
        start,
        start_epoch,
        answer_epoch,
        end_epoch,
        duration,
        billsec,
        disposition,
        recordingfile,
    ] = fields[..]
    else {
        unreachable!("{} fields in {text}", fields.len());
    };
    let text = |value: &str| (!value.is_empty()).then(|| Arc::<str>::from(value));
    let cdr = Cdr {
        uniqueid: text(uniqueid).map(Uniqueid::new),
        linkedid: text(linkedid).map(Linkedid::new),
        sequence: sequence.parse().ok(),
        src: text(src),
        dst: text(dst),
        dcontext: None,
        clid: None,
        channel: text(channel).map(ChannelName::new),
        dstchannel: text(dstchannel).map(ChannelName::new),
        lastapp: text(lastapp),
        lastdata: None,
        start: text(start),
        answer: None,
        end: None,
        start_epoch: Micros::parse(start_epoch),
        answer_epoch: Micros::parse(answer_epoch),
        end_epoch: Micros::parse(end_epoch),
        duration: duration.parse().unwrap(),
        billsec: billsec.parse().unwrap(),
        disposition: Disposition::parse(disposition),
        did: None,
        recordingfile: text(recordingfile),
        accountcode: None,
        peeraccount: None,
        userfield: None,
    };
    CdrRow { cdr, did: None }
}
