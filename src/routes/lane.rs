//! The two lanes of a sink: calls as they happen, and history behind them. Which may take how many
//! slots now. Pure: time is passed in; the worker acts.

use std::time::Duration;

use parsers::Micros;

use super::gate::Take;

/// While whoever counts reports is behind, history looks again after this, milliseconds.
const REPORTS_WAIT: i64 = 50;
/// Creates of history a second while calls go out: each takes the disk, and a call may have to wait for it.
const BESIDE_CALLS: f64 = 50.0;
/// Calls are said to go out for so long after each delivery, milliseconds.
const CALLS_LAST: i64 = 10_000;

/// One of a sink's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Calls as they happen: first in everything.
    Live,
    /// Calls of the past, in what the live lane leaves.
    History,
}

/// What the lanes have out, and when something of them may be due.
#[derive(Clone, Debug)]
pub struct Lanes {
    live: Side,
    history: Side,
    /// Creates of history a second, as it was asked for.
    rate: Option<f64>,
    /// Until then history goes out no faster than [`BESIDE_CALLS`].
    calls_until: Micros,
    /// Nothing of history goes out before: its pace.
    next_slot: Micros,
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Deliveries out or being settled.
    out: usize,
    due: Due,
}

/// When something of a lane may be due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    /// Now; the journal knows.
    #[default]
    Maybe,
    /// At this time, or when the journal says that there is something new.
    At(Micros),
    /// When the journal says so.
    Nothing,
}

impl Due {
    const fn by(self, now: Micros) -> bool {
        match self {
            Self::Maybe => true,
            Self::At(at) => at.0 <= now.0,
            Self::Nothing => false,
        }
    }
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Asks the journal for what is due.
    Ask(Ask),
    /// Nothing before this time; `None`: before something else happens.
    Wait(Option<Micros>),
}

/// Up to so many deliveries of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whose turn it is.
    pub lane: Lane,
    /// At least 1.
    pub limit: usize,
    /// It goes out to see whether the receiver is back.
    pub probe: bool,
}

impl Lanes {
    /// Nothing is out, something may be due.
    pub const fn new(rate: Option<f64>) -> Self {
        let side = Side { out: 0, due: Due::Maybe };
        let never = Micros(i64::MIN);
        Self { live: side, history: side, rate, calls_until: never, next_slot: never }
    }

    /// Deliveries out or being settled, of both.
    pub const fn busy(&self) -> usize {
        self.live.out + self.history.out
    }

    /// Another rate for history.
    pub fn limit(&mut self, rate: Option<f64>) {
        self.rate = rate;
        self.next_slot = Micros(i64::MIN);
    }

    /// A delivery goes out.
    pub fn started(&mut self, lane: Lane, now: Micros) {
        self.side(lane).out += 1;
        match (lane, self.pace(now)) {
            (Lane::Live, _) => self.calls_until = now.plus_millis(CALLS_LAST),
            (Lane::History, Some(pace)) => self.next_slot = next_slot(self.next_slot, pace, now),
            (Lane::History, None) => {}
        }
    }

    /// A delivery is settled.
    pub fn ended(&mut self, lane: Lane) {
        let side = self.side(lane);
        side.out = side.out.saturating_sub(1);
    }

    /// The journal handed out all that was due; the next will be at that time.
    pub fn drained(&mut self, lane: Lane, next: Option<Micros>) {
        self.side(lane).due = next.map_or(Due::Nothing, Due::At);
    }

    /// The journal says that something may be due.
    pub fn woken(&mut self, lane: Lane) {
        self.side(lane).due = Due::Maybe;
    }

    /// Whether the journal is to say when something may be due.
    pub fn is_quiet(&self, lane: Lane) -> bool {
        let side = match lane {
            Lane::Live => &self.live,
            Lane::History => &self.history,
        };
        side.due != Due::Maybe
    }

    /// Whose turn it is. `take`: what the sink bears now. `slots`: requests under way at once, at most.
    /// `reports`: how many ends of history can be told.
    pub fn turn(&self, take: Take, slots: usize, reports: usize, now: Micros) -> Turn {
        let (free, probe) = match take {
            Take::Wait(at) => return Turn::Wait(at),
            Take::Probe => (1, true),
            Take::UpTo(free) => (free, false),
        };
        if self.live.due.by(now) {
            return Turn::Ask(Ask { lane: Lane::Live, limit: free, probe });
        }
        match self.history(slots, reports, probe, now) {
            Ok(limit) => Turn::Ask(Ask { lane: Lane::History, limit: limit.min(free), probe }),
            Err(at) => Turn::Wait(earlier(self.live.due, at)),
        }
    }

    /// How many of history may go out, at least one, or when to look again.
    fn history(&self, slots: usize, reports: usize, probe: bool, now: Micros) -> Result<usize, Due> {
        if !self.history.due.by(now) {
            return Err(self.history.due);
        }
        // the next call finds a slot free, and half of them once calls come
        let most = if self.live.out == 0 { slots.saturating_sub(1).max(1) } else { slots / 2 };
        let room = if probe { 1 } else { most.saturating_sub(self.history.out) };
        let told = reports.saturating_sub(self.history.out);
        if room == 0 {
            Err(Due::Nothing)
        } else if told == 0 {
            Err(Due::At(now.plus_millis(REPORTS_WAIT)))
        } else if self.pace(now).is_none() {
            Ok(room.min(told))
        } else if self.next_slot > now {
            Err(Due::At(self.next_slot))
        } else {
            Ok(1)
        }
    }

    /// Creates of history a second, at most, now.
    fn pace(&self, now: Micros) -> Option<f64> {
        let courteous = (now < self.calls_until).then_some(BESIDE_CALLS);
        match (self.rate, courteous) {
            (Some(rate), Some(courteous)) => Some(rate.min(courteous)),
            (rate, courteous) => rate.or(courteous),
        }
    }

    const fn side(&mut self, lane: Lane) -> &mut Side {
        match lane {
            Lane::Live => &mut self.live,
            Lane::History => &mut self.history,
        }
    }
}

/// When the next may go out at so many a second; idle time is not saved up.
pub(super) fn next_slot(slot: Micros, rate: f64, now: Micros) -> Micros {
    let longest = Duration::from_secs(3600);
    let gap = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(longest).min(longest);
    let gap = i64::try_from(gap.as_micros()).unwrap_or(i64::MAX);
    Micros(slot.max(now).0.saturating_add(gap))
}

fn earlier(a: Due, b: Due) -> Option<Micros> {
    match (a, b) {
        (Due::At(a), Due::At(b)) => Some(a.min(b)),
        (Due::At(at), _) | (_, Due::At(at)) => Some(at),
        (Due::Maybe | Due::Nothing, Due::Maybe | Due::Nothing) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Micros = Micros(1_000_000_000);
    const MANY: usize = usize::MAX;

    /// So many out of each lane, and whether something is due.
    fn lanes((live, live_due): (usize, bool), (history, history_due): (usize, bool)) -> Lanes {
        let side = |out: usize, due: bool| Side { out, due: if due { Due::Maybe } else { Due::Nothing } };
        Lanes { live: side(live, live_due), history: side(history, history_due), ..Lanes::new(None) }
    }

    /// As the gate has it while nothing holds it.
    fn turn(lanes: &Lanes, slots: usize) -> Turn {
        let free = slots.saturating_sub(lanes.busy());
        let take = if free == 0 { Take::Wait(None) } else { Take::UpTo(free) };
        lanes.turn(take, slots, MANY, NOW)
    }

    const fn ask(lane: Lane, limit: usize) -> Turn {
        Turn::Ask(Ask { lane, limit, probe: false })
    }

    #[test]
    fn the_table_of_slots() {
        // slots, live out and due, history out and due: who may take how many
        let table = [
            (16, (0, true), (0, true), Some((Lane::Live, 16))),
            (16, (15, true), (0, true), Some((Lane::Live, 1))),
            (16, (0, false), (0, true), Some((Lane::History, 15))),
            (16, (0, false), (15, true), None),
            (16, (0, true), (15, true), Some((Lane::Live, 1))),
            (16, (1, false), (0, true), Some((Lane::History, 8))),
            (16, (1, false), (8, true), None),
            (16, (1, false), (12, true), None),
            (16, (12, false), (0, true), Some((Lane::History, 4))),
            (16, (0, false), (0, false), None),
            (5, (1, false), (0, true), Some((Lane::History, 2))),
            (2, (0, false), (0, true), Some((Lane::History, 1))),
            (2, (0, false), (1, true), None),
            (2, (0, true), (1, true), Some((Lane::Live, 1))),
            (2, (1, false), (0, true), Some((Lane::History, 1))),
            (2, (1, true), (0, true), Some((Lane::Live, 1))),
            (1, (0, false), (0, true), Some((Lane::History, 1))),
            (1, (0, true), (0, true), Some((Lane::Live, 1))),
            (1, (1, false), (0, true), None),
            (1, (0, true), (1, true), None),
        ];
        for (slots, live, history, expected) in table {
            let got = match turn(&lanes(live, history), slots) {
                Turn::Ask(ask) => {
                    assert!(!ask.probe);
                    Some((ask.lane, ask.limit))
                }
                Turn::Wait(_) => None,
            };
            assert_eq!(got, expected, "{slots} slots, live {live:?}, history {history:?}");
        }
    }

    #[test]
    fn whoever_has_something_due_asks_whether_the_receiver_is_back_live_first() {
        let probe = |lane| Turn::Ask(Ask { lane, limit: 1, probe: true });
        let ask = |lanes: &Lanes| lanes.turn(Take::Probe, 1, MANY, NOW);
        assert_eq!(ask(&lanes((0, true), (0, true))), probe(Lane::Live));
        assert_eq!(ask(&lanes((0, false), (0, true))), probe(Lane::History));
        assert_eq!(ask(&lanes((1, false), (1, true))), probe(Lane::History), "what is out may hang");
        assert_eq!(ask(&lanes((0, false), (0, false))), Turn::Wait(None));
    }

    #[test]
    fn history_keeps_its_rate_and_live_has_none() {
        let mut lanes = lanes((0, false), (0, true));
        lanes.limit(Some(4.0));
        assert_eq!(turn(&lanes, 16), ask(Lane::History, 1));
        lanes.started(Lane::History, NOW);
        let quarter = Micros(NOW.0 + Micros::SECOND / 4);
        assert_eq!(turn(&lanes, 16), Turn::Wait(Some(quarter)));
        lanes.drained(Lane::Live, Some(NOW.plus_millis(100)));
        assert_eq!(turn(&lanes, 16), Turn::Wait(Some(NOW.plus_millis(100))), "live is due sooner");
        lanes.woken(Lane::Live);
        assert_eq!(turn(&lanes, 16), ask(Lane::Live, 15));
        lanes.drained(Lane::Live, None);
        lanes.limit(None);
        assert_eq!(turn(&lanes, 16), ask(Lane::History, 14));
    }

    #[test]
    fn history_is_slow_while_calls_go_out() {
        for (asked, milliseconds) in [(None, 20), (Some(1000.0), 20), (Some(4.0), 250)] {
            let mut lanes = lanes((0, false), (0, true));
            lanes.limit(asked);
            lanes.started(Lane::Live, NOW);
            lanes.ended(Lane::Live);
            assert_eq!(turn(&lanes, 16), ask(Lane::History, 1));
            lanes.started(Lane::History, NOW);
            assert_eq!(turn(&lanes, 16), Turn::Wait(Some(NOW.plus_millis(milliseconds))), "{asked:?}");
            lanes.limit(None);
            let later = lanes.turn(Take::UpTo(15), 16, MANY, NOW.plus_millis(CALLS_LAST));
            assert_eq!(
                later,
                ask(Lane::History, 14),
                "as fast as it can once no call has gone out for a while"
            );
        }
    }

    #[test]
    fn history_waits_for_whoever_counts_how_it_ended() {
        let lanes = lanes((0, false), (3, true));
        let turn = |reports| lanes.turn(Take::UpTo(13), 16, reports, NOW);
        assert_eq!(turn(10), ask(Lane::History, 7));
        assert_eq!(turn(3), Turn::Wait(Some(NOW.plus_millis(REPORTS_WAIT))));
    }

    #[derive(Clone, Copy, Debug)]
    enum Happens {
        /// So many are appended.
        Calls(usize),
        Past(usize),
        /// One that is out ends, whichever is meant.
        Ends(Lane),
        /// The receiver bears so many.
        Bears(usize),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let lane = prop_oneof![Just(Lane::Live), Just(Lane::History)];
        prop_oneof![
            (1usize..4).prop_map(Happens::Calls),
            (1usize..40).prop_map(Happens::Past),
            lane.prop_map(Happens::Ends),
            (1usize..17).prop_map(Happens::Bears),
        ]
    }

    proptest! {
        #[test]
        fn history_never_takes_what_a_call_needs_and_is_never_starved(
            first in 1usize..17,
            story in proptest::collection::vec(happens(), 1..200),
        ) {
            let (mut lanes, mut slots) = (Lanes::new(None), first);
            let (mut calls, mut past) = (0usize, 0usize);
            for next in story {
                let was_idle = lanes.live.out == 0 && calls == 0;
                match next {
                    Happens::Calls(more) => {
                        calls += more;
                        lanes.woken(Lane::Live);
                        prop_assert!(
                            !was_idle || slots == 1 || lanes.busy() < slots,
                            "a call after a pause finds a slot: {lanes:?}"
                        );
                    }
                    Happens::Past(more) => {
                        past += more;
                        lanes.woken(Lane::History);
                    }
                    Happens::Ends(lane) => lanes.ended(lane),
                    // never fewer than are out: those that are out are let end
                    Happens::Bears(now) => slots = now.max(lanes.busy() + 1),
                }
                while let Turn::Ask(Ask { lane, limit, .. }) = turn(&lanes, slots) {
                    prop_assert!(limit >= 1 && lanes.busy() + limit <= slots);
                    let waiting = if lane == Lane::Live { &mut calls } else { &mut past };
                    let handed = limit.min(*waiting);
                    *waiting -= handed;
                    (0..handed).for_each(|_| lanes.started(lane, NOW));
                    if handed < limit {
                        lanes.drained(lane, None);
                    }
                    if lane == Lane::History && handed > 0 {
                        prop_assert_eq!(calls, 0, "calls go first");
                        let most = if lanes.live.out > 0 { slots / 2 } else { (slots - 1).max(1) };
                        prop_assert!(lanes.history.out <= most, "{lanes:?} of {slots}");
                    }
                }
                if lanes.live.out == 0 && calls == 0 && past > 0 && lanes.next_slot <= NOW {
                    prop_assert!(lanes.history.out > 0, "starved: {lanes:?}, {past} wait");
                }
                if calls > 0 {
                    prop_assert!(lanes.busy() >= slots, "a call waits beside a free slot: {lanes:?}");
                }
            }
        }
    }
}
