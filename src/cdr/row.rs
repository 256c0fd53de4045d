//! One CDR row, read: when it was, who the two parties are.

use std::cmp::Reverse;
use std::sync::Arc;

use parsers::cdr::Disposition;
use parsers::{Cdr, ChannelName, Micros};

use super::zone;
use crate::calls::CdrRow;
use crate::config::{Pbx, Trunk};

/// What kind of party a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// An outside line, and whatever is nobody's phone.
    Outside,
    /// A user's phone.
    User,
    /// Half of a Local channel.
    Local,
    /// Texts, not calls.
    Message,
}

impl Party {
    /// By the first rule that matches: a trunk's prefix, a configured user, `came_in`, the look of an extension.
    fn of(channel: &ChannelName, came_in: bool, pbx: &Pbx) -> Self {
        if channel.tech().eq_ignore_ascii_case("Message") {
            return Self::Message;
        }
        if channel.local_half().is_some() {
            return Self::Local;
        }
        if trunk(channel, pbx).is_some() {
            return Self::Outside;
        }
        let endpoint = channel.endpoint();
        if pbx.users.iter().any(|user| user.channel == endpoint) {
            return Self::User;
        }
        let device = endpoint.split_once('/').map_or(endpoint, |(_, device)| device);
        if !came_in && pbx.extensions.is_match(device) { Self::User } else { Self::Outside }
    }

    /// Both parties of a row. Tables without channels leave only the numbers to go by.
    fn both(row: &CdrRow, pbx: &Pbx) -> (Self, Option<Self>) {
        let cdr = &row.cdr;
        let extension =
            |number: &Option<Arc<str>>| number.as_deref().is_some_and(|n| pbx.extensions.is_match(n));
        if cdr.channel.is_none() && cdr.dstchannel.is_none() {
            return match (extension(&cdr.src), extension(&cdr.dst)) {
                (true, true) => (Self::User, Some(Self::User)),
                (true, false) => (Self::User, Some(Self::Outside)),
                (false, _) => (Self::Outside, Some(Self::User)),
            };
        }
        let context = cdr.dcontext.as_deref();
        let came_in = row.did.is_some()
            || cdr.did.is_some()
            || context.is_some_and(|context| pbx.inbound_contexts.iter().any(|known| known == context));
        let a = cdr.channel.as_ref().map_or(Self::Outside, |name| Self::of(name, came_in, pbx));
        (a, cdr.dstchannel.as_ref().map(|name| Self::of(name, false, pbx)))
    }
}

/// One row with what the rules ask of it.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    /// Its place in the group.
    pub index: usize,
    pub cdr: &'a Cdr,
    /// What the tracker knows of party A.
    pub tracked: Option<&'a Arc<str>>,
    pub start: Micros,
    pub answer: Option<Micros>,
    pub end: Micros,
    pub a: Party,
    pub b: Option<Party>,
}

impl<'a> Row<'a> {
    /// `None`: nothing says when it was.
    pub fn read(index: usize, row: &'a CdrRow, pbx: &Pbx) -> Option<Self> {
        let cdr = &row.cdr;
        let born = born(cdr);
        let read = |text: &Option<Arc<str>>, not_before: Option<Micros>| {
            zone::instant(text.as_deref()?, &pbx.timezone, not_before)
        };
        let start = set(cdr.start_epoch).or_else(|| read(&cdr.start, born)).or(born)?;
        let end = set(cdr.end_epoch).or_else(|| read(&cdr.end, Some(start)));
        let lasted = plus(start, cdr.duration);
        let (a, b) = Party::both(row, pbx);
        Some(Self {
            index,
            cdr,
            tracked: row.did.as_ref(),
            start,
            answer: answer(cdr, start),
            end: end
                .filter(|end| end.0.abs_diff(lasted.0) <= 2 * Micros::SECOND.unsigned_abs())
                .unwrap_or(lasted),
            a,
            b,
        })
    }

    /// Party A: its channel id; by name or by itself in stores that do not keep the id.
    pub fn party(&self) -> Key<'a> {
        match (&self.cdr.uniqueid, &self.cdr.channel) {
            (Some(id), _) => Key::Text(id.as_str()),
            (None, Some(name)) => Key::Text(name.as_str()),
            (None, None) => Key::Row(self.index),
        }
    }

    /// Party A called out. Who meets an outside line in a conference did not.
    pub fn outbound(&self) -> bool {
        self.b == Some(Party::Outside)
            && !matches!(self.cdr.lastapp.as_deref(), Some("ConfBridge" | "MeetMe"))
    }

    pub fn answered(&self) -> bool {
        self.cdr.disposition == Disposition::Answered
    }

    pub fn dst(&self) -> Option<&'a Arc<str>> {
        self.cdr.dst.as_ref().filter(|dst| !dst.trim().is_empty())
    }

    /// The last application says that this channel was dialled, not that it dialled.
    pub fn app_dial(&self) -> bool {
        matches!(self.cdr.lastapp.as_deref(), Some("AppDial" | "AppDial2" | "AppQueue"))
    }

    /// A tail that Asterisk writes when a channel runs on for an instant after a failed dial.
    pub fn tail(&self) -> bool {
        self.b.is_none() && self.cdr.duration == 0 && self.cdr.lastapp.as_deref() == Some("Hangup")
    }

    /// An order over everything that tells two rows apart: the result must not hang on the order of arrival.
    pub fn order(&self) -> impl Ord + use<'a> {
        let cdr = self.cdr;
        (
            (self.start, cdr.sequence, cdr.uniqueid.as_ref(), cdr.channel.as_ref(), cdr.dstchannel.as_ref()),
            (cdr.dst.as_deref(), cdr.src.as_deref(), cdr.lastapp.as_deref(), cdr.disposition.as_str()),
            (Reverse(cdr.billsec), Reverse(cdr.duration), self.end, self.answer, cdr.start.as_deref()),
            (cdr.did.as_deref(), cdr.recordingfile.as_deref(), self.tracked.map(|did| &**did)),
        )
    }

    /// The same record read twice: natural key, or all that stores without a sequence keep of it.
    pub fn same_record(&self, other: &Self) -> bool {
        let (a, b) = (self.cdr, other.cdr);
        if a.uniqueid != b.uniqueid || a.uniqueid.is_none() && a.channel != b.channel {
            return false;
        }
        if let (Some(x), Some(y)) = (a.sequence, b.sequence) {
            return x == y;
        }
        self.start.secs() == other.start.secs()
            && (&a.dstchannel, &a.dst, &a.lastapp) == (&b.dstchannel, &b.dst, &b.lastapp)
            && (a.duration, a.billsec, a.disposition) == (b.duration, b.billsec, b.disposition)
    }
}

/// Names a party A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Text(&'a str),
    Row(usize),
}

/// The configured trunk that a channel belongs to.
pub(super) fn trunk<'p>(channel: &ChannelName, pbx: &'p Pbx) -> Option<&'p Trunk> {
    pbx.trunks.iter().find(|trunk| channel.as_str().starts_with(trunk.channel.as_str()))
}

/// Asterisk writes 0 for what never was.
fn set(epoch: Option<Micros>) -> Option<Micros> {
    epoch.filter(|epoch| epoch.0 > 0)
}

/// When party A's channel was made.
fn born(cdr: &Cdr) -> Option<Micros> {
    let (secs, _) = cdr.uniqueid.as_ref()?.epoch()?;
    i64::try_from(secs).ok().map(Micros::from_secs)
}

fn answer(cdr: &Cdr, start: Micros) -> Option<Micros> {
    if let Some(answer) = set(cdr.answer_epoch) {
        return Some(answer);
    }
    (cdr.disposition == Disposition::Answered).then(|| plus(start, cdr.duration.saturating_sub(cdr.billsec)))
}

fn plus(start: Micros, secs: u64) -> Micros {
    start.plus_millis(i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000))
}
