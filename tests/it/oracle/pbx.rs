//! Plays calls into the stand-in PBX, as fast as they were recorded, many at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callpost::config::Config;
use callpost::demo::Pbx;
use callpost::routes::Routes;
use parsers::Micros;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::call::{Call, Scenes};
use super::ledger::Ledger;

/// How often calls are begun.
const TICK: Duration = Duration::from_millis(10);
/// A frozen call stops before a silence of at least this: longer than any timer of the tracker that
/// decides about a call which goes on, so that a longer silence tells nothing else.
const SAFE: u64 = 300_000;

/// Of a thousand messages so many come after something odd.
const ODD: u64 = 20;

/// What real PBXs and modules have been seen to send, each of which has cost some client its neighbours.
fn odd() -> Vec<Vec<u8>> {
    let long =
        |length| format!("Event: B\r\nPrivilege: dialplan,all\r\nAppData: {}\r\n\r\n", "x".repeat(length));
    let mut odd: Vec<Vec<u8>> = [
        &b"\r\n"[..],
        b"\r\n\r\n",
        b"Event: B\r\nPrivilege: call,all\r\nCallerIDName: Jos\xe9\r\n\r\n",
        b"Event: B\r\nPrivilege: call,all\r\nX: 1\nY: 2\r\n\r\n",
        b"Event: B\r\nPrivilege: call,all\r\nX: 1\r\n\n",
        b"Event: B\r\nno colon here\r\nReportBlock:\r\nX:1\r\n\r\n",
        b"Event: B\r\nChanVariable(SIP/a-1): v=1\r\nA B[0]_c: 2\r\nX: 1\r\nX: 2\r\n\r\n",
        b"Event: Newchannel\r\nPrivilege: call,all\r\n\r\n",
        b"Event: Hangup\r\nPrivilege: call,all\r\nUniqueid: \r\nCause: x\r\n\r\n",
        b"Event: Reload\r\nPrivilege: system,all\r\nModule: All\r\nStatus: 0\r\n\r\n",
        b"Response: Success\r\nActionID: somebody's\r\n\r\n",
        b"\xff\xfe\0\r\n\r\n",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    odd.extend([20_000, 100_000].map(|length| long(length).into_bytes()));
    odd
}

/// What the player is told, and tells.
#[derive(Debug)]
pub struct Stage {
    /// Calls begun a second.
    pub rate: f64,
    /// No more calls are begun once so many deliveries are owed.
    pub target: usize,
    /// Begin none for now.
    pub hold: bool,
    /// Calls stop where it is safe.
    pub freeze: bool,
    /// Nobody listens: calls that begin or go on meanwhile are noted.
    pub away: bool,
    pub begun: u32,
    pub messages: u64,
    odd: Vec<Vec<u8>>,
    /// Number, last message's time, of calls that ended lately or are live.
    live: BTreeMap<u32, Live>,
    ended: Vec<(Instant, u32)>,
}

#[derive(Debug)]
struct Live {
    call: Call,
    next: usize,
    due: Instant,
    parked: bool,
}

/// The player; it ends when dropped.
#[derive(Debug)]
pub struct Player {
    pub stage: Arc<Mutex<Stage>>,
    task: JoinHandle<()>,
}

impl Drop for Player {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Player {
    pub fn start(
        pbx: Arc<Pbx>,
        config: Config,
        ledger: Arc<Mutex<Ledger>>,
        rate: f64,
        target: usize,
    ) -> Self {
        let stage = Stage {
            rate,
            target,
            hold: false,
            freeze: false,
            away: false,
            begun: 0,
            messages: 0,
            odd: odd(),
            live: BTreeMap::new(),
            ended: Vec::new(),
        };
        let stage = Arc::new(Mutex::new(stage));
        let task = tokio::spawn(play(pbx, config, ledger, Arc::clone(&stage)));
        Self { stage, task }
    }

    /// Whether the player still plays.
    pub fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Nothing more comes until [`Player::thaw`]; returns once every call stands still.
    pub async fn freeze(&self) {
        self.stage.lock().unwrap().freeze = true;
        while self.stage.lock().unwrap().live.values().any(|live| !live.parked) {
            assert!(self.is_alive(), "the player failed");
            sleep(TICK).await;
        }
    }

    /// Goes on where it stopped.
    pub fn thaw(&self) {
        self.stage.lock().unwrap().freeze = false;
    }

    /// Calls that are live; with `margin`, those too that ended so short a time ago.
    pub fn unheard(&self, margin: Duration) -> Vec<u32> {
        let stage = self.stage.lock().unwrap();
        let lately = stage.ended.iter().filter(|(at, _)| at.elapsed() < margin).map(|(_, call)| *call);
        stage.live.keys().copied().chain(lately).collect()
    }

    /// Live calls whose state cannot be listed whole.
    pub fn unlisted(&self) -> Vec<u32> {
        let stage = self.stage.lock().unwrap();
        stage.live.iter().filter(|(_, live)| !live.call.listed).map(|(call, _)| *call).collect()
    }

    /// Every call that was to be played is over.
    pub fn is_done(&self) -> bool {
        let stage = self.stage.lock().unwrap();
        stage.live.is_empty() && stage.rate == 0.0
    }
}

async fn play(pbx: Arc<Pbx>, config: Config, ledger: Arc<Mutex<Ledger>>, stage: Arc<Mutex<Stage>>) {
    let scenes = Scenes::new();
    let routes = Routes::new(&config);
    let mut due: BinaryHeap<Reverse<(Instant, u32)>> = BinaryHeap::new();
    let (mut credit, mut last) = (0.0, Instant::now());
    loop {
        let begin = {
            let mut stage = stage.lock().unwrap();
            let now = Instant::now();
            let full = ledger.lock().unwrap().size() >= stage.target;
            if full {
                stage.rate = 0.0;
            }
            credit = if stage.hold || stage.freeze {
                0.0
            } else {
                (credit + stage.rate * (now - last).as_secs_f64()).min(200.0)
            };
            last = now;
            stage.thaw(&mut due);
            credit >= 1.0
        };
        if begin {
            credit -= 1.0;
            let index = stage.lock().unwrap().begun + 1;
            let now = Micros(jiff::Timestamp::now().as_microsecond());
            let call = scenes.call(index, now, &config, &routes);
            ledger.lock().unwrap().owe(index, &call);
            let mut stage = stage.lock().unwrap();
            stage.begun = index;
            let begin = Instant::now() + call.wait;
            stage.live.insert(index, Live { call, next: 0, due: begin, parked: false });
            due.push(Reverse((begin, index)));
        }
        stage.lock().unwrap().emit(&pbx, &ledger, &mut due);
        if credit < 1.0 {
            let wait =
                due.peek().map_or(TICK, |Reverse((at, _))| at.saturating_duration_since(Instant::now()));
            sleep(wait.clamp(Duration::from_millis(1), TICK)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

impl Stage {
    /// Calls that stood still go on after the silence that was to come.
    fn thaw(&mut self, due: &mut BinaryHeap<Reverse<(Instant, u32)>>) {
        if self.freeze {
            return;
        }
        for (index, live) in self.live.iter_mut().filter(|(_, live)| live.parked) {
            live.parked = false;
            live.due = Instant::now() + Duration::from_millis(300);
            due.push(Reverse((live.due, *index)));
        }
    }

    /// Everything that is due.
    fn emit(&mut self, pbx: &Pbx, ledger: &Mutex<Ledger>, due: &mut BinaryHeap<Reverse<(Instant, u32)>>) {
        let now = Instant::now();
        while let Some(Reverse((at, index))) = due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            due.pop();
            let Some(live) = self.live.get_mut(&index) else { continue };
            let messages = &live.call.messages;
            let since = |n: usize| messages[n].0 - messages[n.max(1) - 1].0;
            if self.freeze && (live.next == 0 || since(live.next) >= SAFE) {
                live.parked = true;
                continue;
            }
            if self.away {
                ledger.lock().unwrap().straddles(index);
            }
            if ledger.lock().unwrap().chance(1000) < ODD {
                let kind = usize::try_from(self.messages).unwrap() % self.odd.len();
                pbx.emit_raw(&self.odd[kind]);
            }
            pbx.emit(&messages[live.next].1);
            self.messages += 1;
            live.next += 1;
            if live.next == messages.len() {
                self.live.remove(&index);
                self.ended.push((now, index));
                continue;
            }
            live.due = at + Duration::from_micros(since(live.next));
            due.push(Reverse((live.due, index)));
        }
        if self.ended.len() > 10_000 {
            self.ended.drain(..5_000);
        }
    }
}
