//! Dialling: which legs DialBegin opens, and which ones DialEnd connects.
//!
//! | dialled | by | leg |
//! |---|---|---|
//! | a user's phone | anyone | called, of the phone |
//! | a user's phone | an Originate | click to call, of the phone |
//! | outside | a user, directly or through Local | calling, of the user |
//! | outside | outside, an Originate | none |

use std::sync::Arc;

use parsers::Uniqueid;
use parsers::ami::Dial;

use super::call::{Direction, Party};
use super::channels::Origin;
use super::direction::{Side, clid};
use super::leg::Begin;
use super::objects::{Chan, LegKey, LegKind, Outcome, clip};
use super::state::State;

impl State {
    /// DialBegin: a called leg, a calling leg, a click to call, or none.
    pub(super) fn dial_begin(&mut self, dial: &Dial) {
        if !self.note_dial(dial) {
            return;
        }
        let Some(dest) = self.channels.get(&dial.dest.uniqueid).cloned() else { return };
        let origin = self.origin(&dest);
        match (dest.side, &origin) {
            (Side::Local, _) => {}
            (Side::User, Origin::Originated) => self.open_click(&dest),
            (Side::User, Origin::Channel(_) | Origin::Unknown) => {
                let from = match &origin {
                    Origin::Channel(id) => self.channels.get(id).cloned(),
                    Origin::Originated | Origin::Unknown => None,
                };
                self.open_called(&dest, from.as_ref());
                if let Some(from) = from.filter(|from| self.counts_as_outgoing(from)) {
                    self.dial_out(&from, &dest, dial);
                }
            }
            (Side::Outside, Origin::Channel(id)) => {
                if let Some(from) = self.channels.get(id).cloned().filter(|from| from.side == Side::User) {
                    self.dial_out(&from, &dest, dial);
                }
            }
            (Side::Outside, Origin::Originated | Origin::Unknown) => {}
        }
    }

    /// A user who calls another user has a leg of the own only when asked for, or after a click.
    fn counts_as_outgoing(&self, from: &Chan) -> bool {
        from.side == Side::User
            && (self.who.calls.internal_caller_leg
                || self.legs_on(&from.id).iter().any(|leg| leg.kind == LegKind::Click))
    }

    fn open_called(&mut self, dest: &Chan, from: Option<&Chan>) {
        let visit = from.and_then(|from| self.waiting_visit(&from.id));
        let again = visit.as_ref().is_some_and(|visit| self.another_attempt(&visit.key, dest));
        if again || dest.legs > 0 {
            return;
        }
        let begin = self.called_by(dest, from, visit.map(|visit| visit.key));
        self.open(&dest.id, begin);
    }

    /// How a leg of a called user begins.
    pub(super) fn called_by(&self, dest: &Chan, from: Option<&Chan>, parent: Option<LegKey>) -> Begin {
        let user = self.who.party(dest);
        let did = from.and_then(|from| self.did(from));
        let number = did.as_deref().map_or_else(|| user.number.clone(), str::to_owned);
        Begin {
            kind: LegKind::Called,
            start: self.at,
            direction: Direction::In,
            parent,
            origin: from.map(|from| from.id.clone()),
            src: from.map(|from| self.who.party(from)).unwrap_or_default(),
            dst: Party { number, ..user },
            clid: from.map(|from| clid(&from.caller)).unwrap_or_default(),
        }
    }

    fn open_click(&mut self, dest: &Chan) {
        if dest.legs > 0 {
            return;
        }
        let begin = Begin {
            kind: LegKind::Click,
            start: self.at,
            direction: Direction::Out,
            parent: None,
            origin: Some(dest.id.clone()),
            src: self.who.party(dest),
            dst: Party::default(),
            clid: clid(&dest.caller),
        };
        self.open(&dest.id, begin);
    }

    /// A user's channel dials a destination: its calling leg, new or the one it has.
    fn dial_out(&mut self, from: &Chan, dest: &Chan, dial: &Dial) {
        let open = self.legs_on(&from.id).into_iter().next();
        let dst = self.dialled(from, dest, dial);
        let key = match open {
            Some(leg) if matches!(leg.kind, LegKind::Calling | LegKind::Click) => {
                self.legs.edit(&leg.key, |leg| {
                    if leg.dst.number.is_empty() {
                        leg.dst = dst;
                    }
                });
                leg.key
            }
            Some(_) => return,
            None => {
                let begin = Begin {
                    kind: LegKind::Calling,
                    start: self.at,
                    direction: Direction::Out,
                    parent: None,
                    origin: Some(from.id.clone()),
                    src: self.who.party(from),
                    dst,
                    clid: clid(&from.caller),
                };
                let Some(key) = self.open(&from.id, begin) else { return };
                key
            }
        };
        self.legs.edit(&key, |leg| leg.peer = Some(dest.id.clone()));
        self.channels.edit(&dest.id, |chan| {
            if let Some(dial) = &mut chan.dial {
                dial.leg = Some(key);
            }
        });
    }

    /// What was dialled: the first extension of a channel that called, else the present one, else
    /// the number in the dial string; and which user that rings.
    fn dialled(&self, from: &Chan, dest: &Chan, dial: &Dial) -> Party {
        let block = dial.caller.as_ref();
        // Page() names no caller
        let caller = block.map_or(Some(from), |block| self.channels.get(&block.uniqueid));
        let first = caller.filter(|caller| caller.incoming).and_then(|caller| caller.exten.clone());
        let now = block.and_then(|block| block.exten.clone());
        let number = [first, now].into_iter().flatten().find(|exten| is_number(exten));
        if dest.side == Side::User {
            let user = self.who.party(dest);
            let number =
                number.as_ref().map_or_else(|| user.number.clone(), |number| clip(number).to_string());
            return Party { number, ..user };
        }
        let number = number.or_else(|| dial.dial_string.as_deref().map(sent_number).map(Arc::from));
        let number = number.as_ref().map(clip);
        Party {
            number: number.as_deref().unwrap_or_default().to_owned(),
            id: 0,
            name: from.connected.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// DialEnd: answered, or not.
    pub(super) fn dial_end(&mut self, dial: &Dial) {
        let id = &dial.dest.uniqueid;
        let Some(outcome) = self.note_dial_end(dial) else { return };
        if let Some(caller) = &dial.caller {
            self.caller_changed(id, &caller.uniqueid);
        }
        if outcome != Outcome::Answer {
            return;
        }
        self.pick_up(id);
        for leg in self.legs_on(id) {
            match leg.kind {
                LegKind::Called => self.connect(&leg.key),
                LegKind::Click => self.accept(&leg.key),
                LegKind::Calling | LegKind::Conference | LegKind::Queue => {}
            }
        }
        let calling = self.channels.get(id).and_then(|chan| chan.dial.as_ref()?.leg.clone());
        if let Some(key) = calling {
            let from = self.legs.get(&key).and_then(|leg| self.channels.get(&leg.cur));
            let answered = from.zip(self.channels.get(id)).map(|(from, dest)| self.dialled(from, dest, dial));
            self.legs.edit(&key, |leg| {
                leg.peer = Some(id.clone());
                // of several that were dialled, the one that answered counts
                if let Some(dst) = answered.filter(|_| leg.connected.is_none())
                    && (&dst.number, dst.id) != (&leg.dst.number, leg.dst.id)
                {
                    leg.dst = dst;
                }
            });
            self.connect(&key);
        }
    }

    /// A transfer while it rang: DialEnd names another caller than DialBegin.
    fn caller_changed(&mut self, dest: &Uniqueid, caller: &Uniqueid) {
        let Some(from) = self.channels.get(caller).filter(|from| from.side != Side::Local).cloned() else {
            return;
        };
        for leg in self.legs_on(dest) {
            if leg.kind == LegKind::Called && leg.origin.as_ref() != Some(caller) {
                self.new_origin(&leg.key, &from);
            }
        }
    }
}

/// An extension that somebody can have dialled, not a place in the dialplan.
fn is_number(exten: &str) -> bool {
    exten.len() > 1 && exten.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'*' | b'#'))
}

/// The number in a dial string: `2125551234@trunk`, `trunk/2125551234`, `g1/2125551234`.
fn sent_number(dial_string: &str) -> &str {
    let user = dial_string.split_once('@').map_or(dial_string, |(user, _)| user);
    let user = user.rsplit_once('/').map_or(user, |(_, user)| user);
    user.strip_prefix("sip:").unwrap_or(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_in_every_form_of_dial_string() {
        for (dial_string, number) in [
            ("2125551234@trunk", "2125551234"),
            ("trunk/2125551234", "2125551234"),
            ("g1/2125551234", "2125551234"),
            ("trunk/sip:2125551234@host:5060", "2125551234"),
            ("1001", "1001"),
        ] {
            assert_eq!(sent_number(dial_string), number, "{dial_string}");
        }
    }
}
