//! What becomes of calls when the agent, the connection or Asterisk itself goes away: nothing is
//! lost that Asterisk still says, nothing is told twice, nothing is invented, and what nobody saw
//! is marked. Beside a real Asterisk; see `real_asterisk`.

use std::time::Duration;

use callpost::clock;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::asterisk;
use crate::lab::{AMI, ends, pause, rings, takes};
use crate::real_asterisk::beside_asterisk_in_share;
use crate::sip::State;
use crate::site::Site;
use crate::story::{Told, created, is_whole, told, until_created};

/// `t_cause` of what ended while nobody looked.
const UNSEEN: &str = "Unknown (agent was disconnected)";
/// `t_cause` of what a killed Asterisk took along.
const RESTART: &str = "Lost (PBX restart)";
/// How long Asterisk may take to give a client up that does not read: `writetimeout` and some.
const CUT: Duration = Duration::from_secs(40);

/// A line to Asterisk that can be cut.
pub struct Line {
    pub address: String,
    whole: watch::Sender<bool>,
}

impl Line {
    pub async fn open() -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (whole, _) = watch::channel(true);
        let state = whole.clone();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut state = state.subscribe();
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(AMI).await.unwrap();
                    tokio::select! {
                        _ = state.wait_for(|whole| !whole) => {}
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Line { address, whole }
    }

    /// Nothing passes any more, and whoever comes is turned away.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

/// The second it is, and whether another one is about the same.
fn second() -> i64 {
    clock::now().secs()
}

fn about(told: Option<i64>, second: i64) -> bool {
    told.is_some_and(|told| (told - second).abs() <= 1)
}

fn nothing_recovered(told: &[Told]) {
    assert!(told.iter().all(|told| told.info.is_empty()), "{told:#?}");
}

#[test]
fn an_agent_that_is_killed_goes_on_with_its_calls() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let number = "584140000001";

        // Killed at each stage, and back before the next.
        let agent = site.agent().await;
        let (outside, ana) = site.rings(number).await;
        site.told(number, "ringing").await;
        agent.kill().await;
        let agent = site.agent().await;
        takes(&ana, &outside).await;
        let answered = second();
        site.told(number, "connected").await;
        agent.kill().await;
        let agent = site.agent().await;
        ana.hold().await;
        site.told(number, "hold").await;
        agent.kill().await;
        pause(1.5).await;
        let agent = site.agent().await;
        ana.unhold().await;
        site.told(number, "unhold").await;
        ends(&outside, &ana).await;
        site.told(number, "hangup").await;
        // The CDRs are here, the create is not yet made.
        agent.kill().await;
        let agent = site.agent().await;
        site.one_create(number).await;

        let all = told(&site.receiver, number);
        is_whole(&all, &["initial", "ringing", "connected", "hold", "unhold", "hangup"]);
        nothing_recovered(&all);
        assert!(about(all[2].connected, answered), "{all:#?}");
        assert_eq!((all[5].cause.as_str(), all[5].by.as_str()), ("Normal Clearing", "caller"));
        site.ends(agent).await;
    });
}

#[test]
fn an_agent_that_is_killed_at_once_tells_everything_once() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let mut agent = site.agent().await;
        let numbers: Vec<String> = (0..5).map(|n| format!("58414000010{n}")).collect();
        for number in &numbers {
            // While the webhook is on its way.
            let (outside, ana) = site.rings(number).await;
            agent.kill().await;
            agent = site.agent().await;
            takes(&ana, &outside).await;
            site.told(number, "connected").await;
            ends(&ana, &outside).await;
            site.told(number, "hangup").await;
        }
        for number in &numbers {
            site.one_create(number).await;
            is_whole(&told(&site.receiver, number), &["initial", "ringing", "connected", "hangup"]);
        }
        site.ends(agent).await;
    });
}

#[test]
fn what_happened_while_the_agent_was_dead_is_told_and_marked() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let number = "584140000002";

        let agent = site.agent().await;
        let (outside, ana) = site.rings(number).await;
        site.told(number, "ringing").await;
        agent.kill().await;
        takes(&ana, &outside).await;
        let answered = second();
        pause(3.2).await;
        let agent = site.agent().await;
        let connected = site.told(number, "connected").await;
        assert!(about(connected.connected, answered), "{connected:?}");
        assert_eq!(connected.info, "recovered");
        ends(&ana, &outside).await;
        site.told(number, "hangup").await;
        site.one_create(number).await;
        let all = told(&site.receiver, number);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        assert_eq!(all[3].by, "callee");
        site.ends(agent).await;
    });
}

#[test]
fn calls_that_were_up_before_the_agent_are_taken_in() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (inbound, outbound, queued) = ("584140000003", "92125550003", "584140000004");
        site.agent().await.stop().await;

        let (outside, ana) = site.talks(inbound).await;
        let answered = second();
        let beto = site.lab.beto.call(outbound).await;
        let carrier = rings(&site.lab.trunk).await;
        beto.becomes(State::Ringing).await;
        let waiting = format!("<sip:{queued}@127.0.0.1>");
        let waiting = site.lab.trunk.call_for(waiting.as_bytes(), "5552000").await;
        waiting.becomes(State::Up).await;
        pause(2.2).await;

        let agent = site.agent().await;
        let connected = site.told(inbound, "connected").await;
        assert!(about(connected.connected, answered), "{connected:?}");
        site.told(outbound, "ringing").await;
        site.told(queued, "initial").await;
        takes(&carrier, &beto).await;
        site.told(outbound, "connected").await;
        ends(&outside, &ana).await;
        ends(&beto, &carrier).await;
        waiting.hang_up().await;
        site.told(queued, "missed").await;
        site.one_create(inbound).await;
        site.one_create(queued).await;
        // A create has the number that the carrier was given.
        site.told(outbound, "hangup").await;
        until_created(&site.receiver, &outbound[1..]).await;
        assert_eq!(created(&site.receiver, &outbound[1..]).len(), 1);

        let all = told(&site.receiver, inbound);
        is_whole(&all, &["initial", "connected", "hangup"]);
        assert!(all[..2].iter().all(|told| told.info == "recovered"), "{all:#?}");
        let all = told(&site.receiver, outbound);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        assert!(all[..2].iter().all(|told| told.info == "recovered"), "{all:#?}");
        site.ends(agent).await;
    });
}

#[test]
fn a_call_that_ended_in_a_gap_is_ended_and_one_that_was_in_it_alone_is_not_invented() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (ended, goes_on, unseen, later) =
            ("584140000005", "584140000006", "584140000007", "584140000008");

        let line = Line::open().await;
        let mut agent = site.agent_through(&line.address).await;
        let (ended_outside, ended_ana) = site.rings(ended).await;
        site.told(ended, "ringing").await;
        line.cut();
        takes(&ended_ana, &ended_outside).await;
        ends(&ended_outside, &ended_ana).await;
        line.mend();
        let end = site.told(ended, "missed").await;
        assert_eq!((end.cause.as_str(), end.info.as_str(), end.by.as_str()), (UNSEEN, "recovered", "system"));
        is_whole(&told(&site.receiver, ended), &["initial", "ringing", "missed"]);

        let (outside, ana) = site.rings(goes_on).await;
        site.told(goes_on, "ringing").await;
        line.cut();
        takes(&ana, &outside).await;
        let answered = second();
        pause(2.2).await;
        line.mend();
        let connected = site.told(goes_on, "connected").await;
        assert_eq!(connected.info, "recovered");
        assert!(about(connected.connected, answered), "{connected:?}");
        ends(&outside, &ana).await;
        site.one_create(goes_on).await;
        is_whole(&told(&site.receiver, goes_on), &["initial", "ringing", "connected", "hangup"]);

        line.cut();
        let (outside, ana) = site.talks(unseen).await;
        ends(&outside, &ana).await;
        site.lab.hangups("trunk", 3).await;
        line.mend();
        agent.until("back", |status| status.ami.connected && status.ami.logins >= 4).await;
        let (outside, ana) = site.talks(later).await;
        ends(&outside, &ana).await;
        site.one_create(later).await;
        is_whole(&told(&site.receiver, later), &["initial", "ringing", "connected", "hangup"]);
        nothing_recovered(&told(&site.receiver, later));

        assert_eq!(told(&site.receiver, unseen), []);
        assert_eq!(created(&site.receiver, unseen), []);
        // Nobody saw an answer nor a CDR, so there is nothing true to create; it is counted.
        assert_eq!(created(&site.receiver, ended), []);
        site.ends(agent).await;
    });
}

#[test]
fn an_agent_that_was_paused_catches_up() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (before, within, missed, after) =
            ("584140000009", "584140000010", "584140000011", "584140000012");

        let agent = site.agent().await;
        let (outside, ana) = site.talks(before).await;
        site.told(before, "connected").await;
        agent.signal("STOP").await;
        let begin = Instant::now();
        ends(&outside, &ana).await;
        let (outside, ana) = site.talks(within).await;
        let answered = second();
        pause(2.3).await;
        ends(&ana, &outside).await;
        let (outside, ana) = site.rings(missed).await;
        // of a call of five milliseconds a busy Asterisk 16 sometimes posts no CDR
        pause(0.5).await;
        outside.cancel().await;
        ana.becomes(State::Over).await;
        let (outside, ana) = site.talks(after).await;
        sleep(Duration::from_secs(20).saturating_sub(begin.elapsed())).await;
        agent.signal("CONT").await;

        site.told(after, "connected").await;
        ends(&outside, &ana).await;
        for number in [before, within, missed, after] {
            site.one_create(number).await;
        }
        for number in [before, within, after] {
            let all = told(&site.receiver, number);
            is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
            nothing_recovered(&all);
        }
        let all = told(&site.receiver, within);
        assert!(about(all[2].connected, answered), "{all:#?}");
        assert!((2..=3).contains(&all[3].duration), "{all:#?}");
        let all = told(&site.receiver, missed);
        is_whole(&all, &["initial", "ringing", "missed"]);
        assert_eq!(all[2].cause, "Originator Cancel");
        site.ends(agent).await;
    });
}

#[test]
fn an_agent_whose_connection_was_cut_while_it_was_paused_tells_what_it_knows() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (whole, open, unseen, taken) = ("584140000013", "584140000014", "584140000015", "584140000016");

        let mut agent = site.agent().await;
        let (open_outside, open_ana) = site.talks(open).await;
        site.told(open, "connected").await;
        agent.signal("STOP").await;
        let (outside, ana) = site.talks(whole).await;
        ends(&outside, &ana).await;
        pause(0.5).await;
        // Asterisk writes into a full socket for writetimeout, and gives the client up.
        let begin = Instant::now();
        let text = "x".repeat(900);
        while site.has_session().await {
            assert!(begin.elapsed() < CUT, "Asterisk does not give up");
            for _ in 0..200 {
                site.lab.action(&[("Action", "UserEvent"), ("UserEvent", "Flood"), ("Text", &text)]).await;
            }
        }
        let (outside, ana) = site.talks(unseen).await;
        ends(&outside, &ana).await;
        let (outside, ana) = site.talks(taken).await;
        let answered = second();
        pause(2.3).await;
        agent.signal("CONT").await;
        agent.until("back", |status| status.ami.connected && status.ami.logins >= 2).await;
        site.told(taken, "connected").await;
        ends(&outside, &ana).await;
        ends(&open_outside, &open_ana).await;
        for number in [whole, open, taken] {
            site.one_create(number).await;
        }
        for number in [whole, open] {
            let all = told(&site.receiver, number);
            is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
            nothing_recovered(&all);
        }
        let all = told(&site.receiver, taken);
        is_whole(&all, &["initial", "connected", "hangup"]);
        assert!(about(all[1].connected, answered), "{all:#?}");
        assert!(all[..2].iter().all(|told| told.info == "recovered"), "{all:#?}");
        assert_eq!(told(&site.receiver, unseen), []);
        assert_eq!(created(&site.receiver, unseen), []);
        site.ends(agent).await;
    });
}

#[test]
fn an_asterisk_that_stops_ends_its_calls_and_the_next_one_is_followed() {
    beside_asterisk_in_share("1", async || {
        let mut site = Site::open().await;
        let (before, after) = ("584140000017", "584140000018");

        let mut agent = site.agent().await;
        let (_outside, _ana) = site.talks(before).await;
        site.told(before, "connected").await;
        pause(1.3).await;
        asterisk::stop().await;
        site.one_create(before).await;
        asterisk::start().await;
        site.lab.login_again().await;
        agent.until("back", |status| status.ami.connected && status.ami.logins >= 2).await;
        let (outside, ana) = site.talks(after).await;
        ends(&outside, &ana).await;
        site.one_create(after).await;

        let all = told(&site.receiver, before);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        // Asterisk hung up before it went: that was seen.
        nothing_recovered(&all);
        assert_eq!(all[3].by, "system", "{all:#?}");
        let all = told(&site.receiver, after);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        nothing_recovered(&all);
        site.ends(agent).await;
    });
}

#[test]
fn an_asterisk_that_is_killed_takes_its_calls_along_and_the_next_one_is_followed() {
    beside_asterisk_in_share("1", async || {
        let mut site = Site::open().await;
        let (talking, ringing, after) = ("584140000019", "584140000020", "584140000021");

        let mut agent = site.agent().await;
        let (_outside, _ana) = site.talks(talking).await;
        site.told(talking, "connected").await;
        let (_outside, _ana) = site.rings(ringing).await;
        site.told(ringing, "ringing").await;
        pause(1.3).await;
        asterisk::kill().await;
        let killed = second();
        pause(3.0).await;
        asterisk::start().await;
        site.lab.login_again().await;
        agent.until("back", |status| status.ami.connected && status.ami.logins >= 2).await;
        let (outside, ana) = site.talks(after).await;
        ends(&outside, &ana).await;
        site.one_create(after).await;

        let all = told(&site.receiver, talking);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        let end = &all[3];
        assert_eq!(
            (end.cause.as_str(), end.info.as_str(), end.by.as_str()),
            (RESTART, "recovered", "system"),
            "{end:?}"
        );
        // It talked until Asterisk was lost, not until that was known.
        let talked = killed - end.connected.unwrap();
        assert!(i64::try_from(end.duration).unwrap().abs_diff(talked) <= 1, "{end:?}, {talked} s");
        let all = told(&site.receiver, ringing);
        is_whole(&all, &["initial", "ringing", "missed"]);
        assert_eq!((all[2].cause.as_str(), all[2].info.as_str()), (RESTART, "recovered"));
        is_whole(&told(&site.receiver, after), &["initial", "ringing", "connected", "hangup"]);
        // No CDR of them was ever written.
        assert_eq!(created(&site.receiver, talking), []);
        assert_eq!(created(&site.receiver, ringing), []);
        site.ends(agent).await;
    });
}
