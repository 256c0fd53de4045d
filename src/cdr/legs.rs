//! The webhooks of a past call: how each user's part in it ended, as far as its CDR rows tell.
//!
//! A row is a pair of channels: a phone as party B is a leg that was called, a phone as party A beside an
//! outside line one that called out. Rows of one phone are one leg where it rang in vain several times
//! and where it was one channel. What no row tells, who hung up and the exact cause, stays unknown, and
//! queue visits are in no row.
//!
//! `src_hash`, and `call_id` of a leg that called out, are those of the live path. The ids of phones that
//! were called come from channels that no CDR names, and the number in an event's id counts what went
//! before, so those are ids of their own: the same whenever the same rows are read.

use std::sync::Arc;

use parsers::cdr::Disposition;
use parsers::{ChannelName, Micros};

use super::fold::{Dropped, line_number, read, withheld};
use super::row::{Key, Party, Row};
use super::rules::Group;
use crate::calls::{
    CdrGroup, Context, Direction, EventName, LegState, LegUpdate, Party as Side, Update, UpdateBody,
    calling_leg, past_leg, user,
};
use crate::config::Pbx;

/// A phone that stops ringing so soon after another party answered stopped because of it.
const AT_ONCE: i64 = 2_000;
/// In `info`: the live path says it of what was not seen as it happened.
const RECOVERED: &str = "recovered";

/// A user's part.
struct Leg<'r, 'a> {
    kind: Kind<'a>,
    /// In order of time; at least one.
    rows: Vec<&'r Row<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// The phone, as `PJSIP/1001`.
    Called(&'a str),
    /// Party A.
    Calling(Key<'a>),
}

/// One update for each user's part, with the state after its end, in order of time. `unreached`: a call
/// that came in and reached nobody is missed by nobody in particular.
pub fn ends(group: &CdrGroup, pbx: &Pbx, unreached: bool) -> Vec<Update> {
    let rows = read(group, pbx, &mut Dropped::default());
    let about = Group::new(&rows);
    let call = Call { group, rows: &rows, about, pbx };
    let mut updates: Vec<Update> = call.legs().iter().map(|leg| call.end(leg)).collect();
    if updates.is_empty() && unreached {
        updates.extend(call.unreached());
    }
    updates.sort_by(|a, b| (a.at, &a.id.0).cmp(&(b.at, &b.id.0)));
    updates
}

struct Call<'r, 'a> {
    group: &'r CdrGroup,
    rows: &'r [Row<'a>],
    about: Group<'r, 'a>,
    pbx: &'r Pbx,
}

impl<'r, 'a> Call<'r, 'a> {
    fn legs(&self) -> Vec<Leg<'r, 'a>> {
        let mut legs: Vec<Leg<'r, 'a>> = Vec::new();
        for row in self.rows {
            let Some(kind) = self.kind(row) else { continue };
            let same = |leg: &&mut Leg<'r, 'a>| leg.kind == kind && leg.takes(row);
            match legs.iter_mut().find(same) {
                Some(leg) => leg.rows.push(row),
                None => legs.push(Leg { kind, rows: vec![row] }),
            }
        }
        // what rang in vain before or after it was answered is the same part
        let taken: Vec<Kind<'a>> = legs.iter().filter(|leg| leg.answered()).map(|leg| leg.kind).collect();
        legs.retain(|leg| leg.answered() || !taken.contains(&leg.kind));
        legs
    }

    fn kind(&self, row: &'r Row<'a>) -> Option<Kind<'a>> {
        let conference = matches!(row.cdr.lastapp.as_deref(), Some("ConfBridge" | "MeetMe"));
        if conference || row.a == Party::Message || row.b == Some(Party::Message) {
            return None;
        }
        if row.b == Some(Party::User) {
            let phone = row.cdr.dstchannel.as_ref().map(ChannelName::endpoint);
            return phone.or_else(|| row.cdr.dst.as_deref()).map(Kind::Called);
        }
        let caller = self.about.caller(row);
        let calls_out = row.outbound() && caller.a == Party::User && !self.about.dialled(caller);
        calls_out.then(|| Kind::Calling(caller.party()))
    }

    fn end(&self, leg: &Leg<'r, 'a>) -> Update {
        let (first, start, end) = leg.span();
        let caller = self.about.caller(first);
        let connected = leg.rows.iter().filter(|row| row.answered()).filter_map(|row| row.answer).min();
        let elsewhere = connected.is_none() && self.taken(leg);
        let (event, state) = match (connected, leg.kind) {
            (Some(_), _) => (EventName::Hangup, LegState::Hangup),
            (None, _) if elsewhere => (EventName::Hangup, LegState::Hangup),
            (None, Kind::Called(_)) => (EventName::Missed, LegState::Hangup),
            (None, Kind::Calling(_)) => (EventName::Failed, LegState::Failed),
        };
        let cause = if elsewhere { "Answered elsewhere" } else { cause(leg.disposition()) };
        let (direction, dst) = match leg.kind {
            Kind::Called(phone) => (Direction::In, self.called(phone, caller)),
            Kind::Calling(_) => (Direction::Out, Side { number: text(first.dst()), ..Side::default() }),
        };
        let channel = first.cdr.dstchannel.as_ref().map_or("", ChannelName::as_str);
        let (own, id) = past_leg(&self.pbx.name, &self.group.call, &party(first), channel, start);
        let call_id = match (&caller.cdr.uniqueid, leg.kind) {
            (Some(uniqueid), Kind::Calling(_)) => calling_leg(&self.pbx.name, uniqueid),
            _ => own,
        };
        let talked = connected.map_or(0, |at| u64::try_from(end.secs_since(at)).unwrap_or(0));
        let body = LegUpdate {
            event,
            call_id,
            parent_id: None,
            state,
            context: Context::LocalUser,
            direction,
            start,
            connected,
            duration: talked,
            cause: cause.to_owned(),
            clid: text(caller.cdr.clid.as_ref()),
            src: self.source(caller),
            dst,
            info: if elsewhere { format!("answered elsewhere; {RECOVERED}") } else { RECOVERED.to_owned() },
            terminated_by: None,
            digit: None,
        };
        Update { id, call: self.group.call.clone(), at: end, body: UpdateBody::Leg(Box::new(body)) }
    }

    /// The user of a phone; who called from outside did so by the number of the line.
    fn called(&self, phone: &str, caller: &'r Row<'a>) -> Side {
        let user = user(self.pbx, phone, None);
        let line = (caller.a == Party::Outside).then(|| self.line(caller)).flatten();
        Side { number: line.unwrap_or(user.number), ..user }
    }

    /// The number that was called from outside.
    fn line(&self, caller: &'r Row<'a>) -> Option<String> {
        let did = self.about.did(caller).cloned().or_else(|| line_number(caller, self.pbx));
        did.as_ref()
            .or(caller.dst())
            .filter(|number| number.bytes().any(|b| b.is_ascii_digit()))
            .map(ToString::to_string)
    }

    /// Whether another party took the call while this phone rang, or was called, for it.
    fn taken(&self, leg: &Leg<'r, 'a>) -> bool {
        let (first, start, end) = leg.span();
        let caller = self.about.caller(first).party();
        self.rows.iter().any(|row| {
            let answered = row.answer.filter(|_| row.answered() && row.b.is_some());
            let at = answered.is_some_and(|at| start <= at && at <= end.plus_millis(AT_ONCE));
            // one that was called when this one had given up is another attempt
            let beside = row.start < end || row.start <= start;
            at && beside && self.about.caller(row).party() == caller
        })
    }

    fn unreached(&self) -> Option<Update> {
        let first = self.rows.iter().find(|row| row.a == Party::Outside && row.b.is_none())?;
        if self.rows.iter().any(Row::answered) {
            return None;
        }
        let leg =
            Leg { kind: Kind::Called(""), rows: self.rows.iter().filter(|row| row.b.is_none()).collect() };
        let mut update = self.end(&leg);
        if let UpdateBody::Leg(body) = &mut update.body {
            body.dst = Side { number: self.line(first).unwrap_or_default(), ..Side::default() };
        }
        Some(update)
    }

    fn source(&self, caller: &Row<'a>) -> Side {
        let name = caller.cdr.clid.as_deref().and_then(name);
        if let (Party::User, Some(channel)) = (caller.a, &caller.cdr.channel) {
            return user(self.pbx, channel.endpoint(), name);
        }
        let number = caller.cdr.src.as_ref().filter(|number| !withheld(number));
        Side { number: text(number), id: 0, name: name.unwrap_or_default().to_owned() }
    }
}

impl<'r, 'a> Leg<'r, 'a> {
    /// Whether a row of the same phone, or party A, is of this part of it.
    fn takes(&self, row: &Row<'a>) -> bool {
        match self.kind {
            Kind::Calling(_) => true,
            Kind::Called(_) => {
                let same = |known: &&Row<'a>| known.cdr.dstchannel == row.cdr.dstchannel;
                !self.answered() && !row.answered() || self.rows.iter().any(same)
            }
        }
    }

    fn answered(&self) -> bool {
        self.rows.iter().any(|row| row.answered())
    }

    /// Its first row, its begin, its end.
    fn span(&self) -> (&'r Row<'a>, Micros, Micros) {
        let (first, rest) = self.rows.split_first().unwrap_or_else(|| unreachable!("a leg has a row"));
        let end = rest.iter().map(|row| row.end).fold(first.end, Ord::max);
        (first, first.start, end)
    }

    fn disposition(&self) -> Disposition {
        let answered = self.rows.iter().find(|row| row.answered());
        answered.or(self.rows.last()).map_or(Disposition::Unknown, |row| row.cdr.disposition)
    }
}

/// As Asterisk words the cause that goes with it, where one does.
const fn cause(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Answered => "Normal Clearing",
        Disposition::NoAnswer => "No answer",
        Disposition::Busy => "User busy",
        Disposition::Congestion => "Circuit/channel congestion",
        Disposition::Cancel => "Originator Cancel",
        Disposition::Failed | Disposition::Unknown => "",
    }
}

/// `Ana` of `"Ana" <1001>`.
fn name(clid: &str) -> Option<&str> {
    let name = clid.rsplit_once('<')?.0.trim();
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

fn party(row: &Row<'_>) -> String {
    match row.party() {
        Key::Text(text) => text.to_owned(),
        Key::Row(_) => text(row.cdr.src.as_ref()),
    }
}

fn text(text: Option<&Arc<str>>) -> String {
    text.map_or_else(String::new, |text| text.to_string())
}
