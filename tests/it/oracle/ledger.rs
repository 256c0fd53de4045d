//! What is owed, what came, and how each request is to be answered.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::call::{Call, Owed};

/// What was written before a kill may be read this much later, milliseconds.
const READ_LATE: u32 = 2_000;

/// Of what is wrong so much is shown.
const KEPT_FAULTS: usize = 20;

/// What is wanted of the receivers; shares are of a delivery's first attempts.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// So many in a thousand fail once, in one of [`Fault::EVERY`].
    pub per_mille: u64,
    /// So many in a hundred thousand fail twice.
    pub stubborn: u64,
    /// So many in a hundred thousand are found fault with until forgiven.
    pub doomed: u64,
}

/// How one request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A status, before anything was kept.
    Status(u16),
    /// 429 with `Retry-After: 1`.
    Throttled,
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Close,
    /// No answer, longer than the agent waits.
    Silence,
    /// Kept, but the connection is reset before the answer: one more is right.
    Lost,
    /// Kept, but the answer breaks off: done for a webhook, tried again for NiMbox.
    Cut,
    /// Kept and answered late.
    Slow,
}

impl Fault {
    const EVERY: [Self; 16] = [
        Self::Status(500),
        Self::Status(500),
        Self::Status(408),
        Self::Status(503),
        Self::Throttled,
        Self::Reset,
        Self::Reset,
        Self::Close,
        Self::Close,
        Self::Silence,
        Self::Lost,
        Self::Lost,
        Self::Cut,
        Self::Cut,
        Self::Slow,
        Self::Slow,
    ];
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Taken,
    Failed(Fault),
}

/// One delivery that is owed.
#[derive(Debug)]
struct Entry {
    call: u32,
    content: u64,
    /// Its place among the call's on this route.
    place: u16,
    ordered: bool,
    attempts: u8,
    taken: u8,
    /// It was the so manieth that was taken.
    arrival: u32,
    /// Milliseconds since the beginning.
    first: u32,
    /// Answers that were withheld although it was kept: so many more may come.
    excused: u8,
    stubborn: bool,
    doomed: bool,
}

#[derive(Debug, Default)]
struct Known {
    hash: String,
    number: String,
    /// Some of its events went by while nobody listened.
    straddles: bool,
    /// By route: the last sequence.
    last: [u64; 4],
}

/// Something that no call owed when it was seen alone.
#[derive(Clone, Debug)]
pub struct Surprise {
    pub route: usize,
    pub id: String,
    /// A webhook's body; a create's key and content.
    pub body: String,
}

/// The books.
#[derive(Debug)]
pub struct Ledger {
    pub routes: Vec<String>,
    owed: HashMap<(usize, Box<str>), Entry>,
    calls: HashMap<u32, Known>,
    hashes: HashMap<String, u32>,
    surprises: Vec<Surprise>,
    /// Route, id, first time, this time.
    again: Vec<(usize, Box<str>, u32, u32)>,
    kills: Vec<u32>,
    faults: Vec<String>,
    pub wanted: Faults,
    pub unauthorized: [bool; 4],
    forgiven: bool,
    random: u64,
    began: Instant,
    pub requests: u64,
    pub taken: u64,
    pub failed: HashMap<&'static str, u64>,
}

impl Ledger {
    pub fn new(routes: &[&str], wanted: Faults, seed: u64) -> Self {
        Self {
            routes: routes.iter().map(|name| (*name).to_owned()).collect(),
            owed: HashMap::new(),
            calls: HashMap::new(),
            hashes: HashMap::new(),
            surprises: Vec::new(),
            again: Vec::new(),
            kills: Vec::new(),
            faults: Vec::new(),
            wanted,
            unauthorized: [false; 4],
            forgiven: false,
            random: seed | 1,
            began: Instant::now(),
            requests: 0,
            taken: 0,
            failed: HashMap::new(),
        }
    }

    /// A number below `most`: xorshift64*, Vigna 2014.
    pub fn chance(&mut self, most: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }

    fn now(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// A call is about to be played.
    pub fn owe(&mut self, index: u32, call: &Call) {
        let mut places = [0u16; 4];
        for Owed { route, id, content, ordered } in &call.owed {
            let route = self.routes.iter().position(|name| name == route).unwrap();
            places[route] += 1;
            let entry = Entry {
                call: index,
                content: digest(content),
                place: places[route],
                ordered: *ordered,
                attempts: 0,
                taken: 0,
                arrival: 0,
                first: 0,
                excused: 0,
                stubborn: self.chance(100_000) < self.wanted.stubborn,
                doomed: self.chance(100_000) < self.wanted.doomed,
            };
            let twice = self.owed.insert((route, id.as_str().into()), entry);
            assert!(twice.is_none(), "two deliveries of one id: {id}");
        }
        let known = Known { hash: call.hash.clone(), number: call.number.clone(), ..Known::default() };
        self.hashes.insert(call.hash.clone(), index);
        self.calls.insert(index, known);
    }

    /// Some of this call's events went by while nobody listened.
    pub fn straddles(&mut self, call: u32) {
        self.calls.get_mut(&call).unwrap().straddles = true;
    }

    pub fn killed(&mut self) {
        let now = self.now();
        self.kills.push(now);
    }

    /// From now on nothing is found fault with.
    pub fn forgive(&mut self) {
        self.forgiven = true;
        self.wanted.per_mille = 0;
        self.unauthorized = [false; 4];
    }

    /// How a request is answered; books it.
    pub fn request(&mut self, route: usize, id: &str, content: &str, sequence: Option<u64>) -> Answer {
        self.requests += 1;
        let answer = self.choose(route, id);
        let kept = match answer {
            Answer::Taken => true,
            Answer::Failed(fault) => {
                *self.failed.entry(name(fault)).or_default() += 1;
                matches!(fault, Fault::Lost | Fault::Cut)
            }
        };
        if kept {
            self.keep(route, id, content, sequence, answer);
        }
        answer
    }

    /// A slow request that is answered now.
    pub fn late(&mut self, route: usize, id: &str, content: &str, sequence: Option<u64>) {
        self.keep(route, id, content, sequence, Answer::Taken);
    }

    fn choose(&mut self, route: usize, id: &str) -> Answer {
        if self.unauthorized[route] {
            return Answer::Failed(Fault::Status(401));
        }
        let draw = self.chance(1000);
        let kind = usize::try_from(self.chance(Fault::EVERY.len() as u64)).unwrap();
        let (share, forgiven) = (self.wanted.per_mille, self.forgiven);
        let Some(entry) = self.owed.get_mut(&(route, id.into())) else { return Answer::Taken };
        entry.attempts = entry.attempts.saturating_add(1);
        if forgiven {
            return Answer::Taken;
        }
        if entry.doomed {
            return Answer::Failed(Fault::Status(400));
        }
        if (entry.attempts == 1 && draw < share) || (entry.stubborn && entry.attempts <= 2) {
            return Answer::Failed(Fault::EVERY[kind]);
        }
        Answer::Taken
    }

    fn keep(&mut self, route: usize, id: &str, content: &str, sequence: Option<u64>, answer: Answer) {
        self.taken += 1;
        let now = self.now();
        let Some(entry) = self.owed.get_mut(&(route, id.into())) else {
            let (id, body) = (id.to_owned(), content.to_owned());
            self.surprises.push(Surprise { route, id, body });
            return;
        };
        let known = self.calls.get_mut(&entry.call).unwrap();
        let mut wrong = Vec::new();
        if entry.content != digest(content) && !known.straddles {
            wrong.push(format!("{id} with other content: {content}"));
        }
        if entry.taken == 0 {
            entry.first = now;
            entry.arrival = u32::try_from(self.taken).unwrap();
            let last = known.last[route];
            if entry.ordered && !entry.doomed {
                if sequence.unwrap() <= last {
                    wrong.push(format!("{id}, sequence {sequence:?}, after {last} of its call"));
                }
                known.last[route] = sequence.unwrap();
            }
        } else if entry.excused > 0 {
            entry.excused -= 1;
        } else {
            self.again.push((route, id.into(), entry.first, now));
        }
        entry.taken = entry.taken.saturating_add(1);
        entry.excused += u8::from(matches!(answer, Answer::Failed(Fault::Lost | Fault::Cut)));
        for one in wrong {
            self.fault(one);
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// What exact calls owe that has not come yet, dead ones left out.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.owed.iter().filter(|(_, entry)| {
            entry.taken == 0 && (self.forgiven || !entry.doomed) && !self.calls[&entry.call].straddles
        });
        missing
            .map(|((route, id), entry)| format!("{} {id} of call {}", self.routes[*route], entry.call))
            .collect()
    }

    /// Ids that are to be dead letters: route and id of exact calls.
    pub fn doomed(&self) -> Vec<(String, String)> {
        let doomed = self
            .owed
            .iter()
            .filter(|(_, entry)| entry.doomed && entry.attempts > 0 && !self.calls[&entry.call].straddles);
        doomed.map(|((route, id), _)| (self.routes[*route].clone(), id.to_string())).collect()
    }

    pub fn size(&self) -> usize {
        self.owed.len()
    }

    /// Hashes of the calls that straddle, and what came of each that its events alone do not explain.
    pub fn straddling(&self) -> Vec<(u32, String)> {
        let calls = self.calls.iter().filter(|(_, known)| known.straddles);
        calls.map(|(index, known)| (*index, known.hash.clone())).collect()
    }

    /// Whether this webhook came, by route and id.
    pub fn came(&self, route: usize, id: &str) -> bool {
        self.owed.get(&(route, id.into())).is_some_and(|entry| entry.taken > 0)
            || self.surprises.iter().any(|one| one.route == route && one.id == id)
    }

    /// The verdict. `in_flight`: requests that the agent has under way at once, at most.
    /// What is wrong otherwise.
    pub fn verdict(&mut self, in_flight: usize) -> Result<String, String> {
        let missing = self.missing();
        let mut faults = std::mem::take(&mut self.faults);
        faults.extend(missing.iter().map(|one| format!("missing: {one}")));
        self.check_order(&mut faults);
        self.check_surprises(&mut faults);
        let mut by_kill: HashMap<u32, usize> = HashMap::new();
        for (route, id, first, again) in &self.again {
            let by = |kill: &u32| *first <= kill + READ_LATE && kill <= again;
            match self.kills.iter().copied().filter(by).max() {
                Some(kill) => *by_kill.entry(kill).or_default() += 1,
                None => faults.push(format!(
                    "doubled without a kill: {} {id}, at {first} and {again} ms",
                    self.routes[*route]
                )),
            }
        }
        for (kill, count) in &by_kill {
            if *count > in_flight {
                faults.push(format!("{count} doubles of the kill at {} s", kill / 1000));
            }
        }
        let straddling = self.calls.values().filter(|known| known.straddles).count();
        let withheld = ["Lost", "Cut"].iter().filter_map(|kind| self.failed.get(kind)).sum::<u64>();
        let mut said = format!(
            "{} calls ({straddling} with events that nobody heard), {} deliveries owed, {} requests, {} taken, \
             {withheld} answers withheld, {} kills, {} doubles by them (at most {} of one), {} not owed, faults {:?}",
            self.calls.len(),
            self.owed.len(),
            self.requests,
            self.taken,
            self.kills.len(),
            self.again.len(),
            by_kill.values().max().unwrap_or(&0),
            self.surprises.len(),
            self.failed,
        );
        if !faults.is_empty() {
            let _ = write!(said, "\n{} wrong:", faults.len());
            for fault in faults.iter().take(KEPT_FAULTS) {
                let _ = write!(said, "\n  {fault}");
            }
            return Err(said);
        }
        Ok(said)
    }

    /// What nobody owed may come of calls that straddle only; what was announced there ends, once.
    fn check_surprises(&self, faults: &mut Vec<String>) {
        let mut contents: HashMap<(usize, &str), &str> = HashMap::new();
        for one in &self.surprises {
            let known = contents.insert((one.route, &one.id), &one.body);
            if known.is_some_and(|known| known != one.body) {
                faults.push(format!("{} came with two contents", one.id));
            }
            let call = self.call_of(one);
            match call.map(|call| &self.calls[&call]) {
                Some(known) if known.straddles => {}
                Some(_) | None => faults.push(format!(
                    "not owed: {} {} of call {call:?}: {}",
                    self.routes[one.route], one.id, one.body
                )),
            }
        }
    }

    /// Within a leg everything came in the order in which it happened. Between the legs of a call the
    /// order of what timers decide depends on the agent's load; the sequence tells it, and rises.
    fn check_order(&self, faults: &mut Vec<String>) {
        let mut legs: HashMap<(usize, &str), Vec<(u16, u32)>> = HashMap::new();
        let ordered = self.owed.iter().filter(|(_, entry)| entry.ordered && !entry.doomed && entry.taken > 0);
        for ((route, id), entry) in ordered {
            let leg = id.rsplit_once('.').unwrap().0;
            legs.entry((*route, leg)).or_default().push((entry.place, entry.arrival));
        }
        for ((route, leg), mut places) in legs {
            places.sort_unstable();
            if !places.is_sorted_by_key(|(_, arrival)| *arrival) {
                faults.push(format!("{} {leg} out of order: {places:?}", self.routes[route]));
            }
        }
    }

    fn call_of(&self, one: &Surprise) -> Option<u32> {
        if let Ok(body) = serde_json::from_str::<serde_json::Value>(&one.body)
            && let Some(call) = body["src_hash"].as_str().and_then(|hash| self.hashes.get(hash))
        {
            return Some(*call);
        }
        let owner = self.calls.iter().find(|(_, known)| one.id.contains(&known.number));
        owner.map(|(index, _)| *index)
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Status(400) => "400",
        Fault::Status(401) => "401",
        Fault::Status(408) => "408",
        Fault::Status(503) => "503",
        Fault::Status(_) => "500",
        Fault::Throttled => "429",
        Fault::Reset => "Reset",
        Fault::Close => "Close",
        Fault::Silence => "Silence",
        Fault::Lost => "Lost",
        Fault::Cut => "Cut",
        Fault::Slow => "Slow",
    }
}

fn digest(content: &str) -> u64 {
    u64::from_be_bytes(Sha256::digest(content)[..8].try_into().unwrap())
}
