//! Where CDRs are not as recommended: none, late and in batches, without mappings, of a call whose
//! end nobody heard, with a system name. Beside a real Asterisk; see `real_asterisk`.
//!
//! An answered call waits 310 s for its CDR: Asterisk's longest batch. `CALLPOST_CDR_HOLD=310` waits
//! so long; the quick form shortens that wait, and that alone.

use std::time::Duration;

use callpost::agent as service;
use callpost::api::{AgentStatus, Client};
use callpost::calls::CdrSource;
use callpost::config::Config;
use tokio::time::{Instant, sleep};

use crate::asterisk;
use crate::lab::{AMI, ends, pause};
use crate::real_asterisk::{AT_ONCE, Show, beside_asterisk_in_share};
use crate::real_asterisk_recovery::Line;
use crate::scenarios;
use crate::sip::State;
use crate::site::Site;
use crate::story::{created, is_whole, told, until_created_within, until_over};

/// A forked call, an unanswered one, a queue, Local channels, a transfer: each has several rows.
const SEVERAL: &[&str] = &[
    "s01_in_answered_caller_hangs",
    "s04_in_noanswer_timeout",
    "s08_out_answered",
    "s17_forked_answered",
    "l14_ringgroup_local_rtp_callee_hangs",
    "s19_blind_by_callee",
    "s21_attended_by_callee",
    "q01_queue_answered_caller_hangs",
    "q03_queue_abandon_ringing",
];

/// Longer than anything is late that is not held.
const SOON: Duration = Duration::from_secs(6);

fn hold() -> Duration {
    let asked = std::env::var("CALLPOST_CDR_HOLD").ok();
    Duration::from_secs(asked.map_or(10, |seconds| seconds.parse().expect("CALLPOST_CDR_HOLD is seconds")))
}

/// An agent within this process, where alone its patience can be another.
async fn start(mut config: Config) -> service::Agent {
    config.calls.cdr_hold = hold();
    let agent = service::Agent::start(config).await.unwrap();
    let begin = Instant::now();
    while !agent.view().ami.health().connected {
        assert!(begin.elapsed() < Duration::from_secs(30), "not connected: {:?}", agent.view().ami.health());
        sleep(Duration::from_millis(50)).await;
    }
    agent
}

async fn status(site: &Site) -> AgentStatus {
    Client::new(&site.home.path().join("callpost.sock")).status().await.unwrap()
}

/// A talk of two seconds and some; gives when it was over.
async fn talk(site: &Site, number: &str) -> Instant {
    let (outside, ana) = site.talks(number).await;
    pause(2.3).await;
    ends(&outside, &ana).await;
    Instant::now()
}

/// Its create came, once, that long after its end.
async fn created_after(site: &Site, number: &str, over: Instant, least: Duration, most: Duration) {
    until_created_within(&site.receiver, number, most.saturating_sub(over.elapsed())).await;
    let waited = over.elapsed();
    assert!(waited + Duration::from_secs(1) >= least, "{number}: a create after {waited:?} already");
    let made = created(&site.receiver, number);
    assert_eq!(made.len(), 1, "{made:?}");
}

#[test]
fn an_answered_call_whose_cdr_fell_into_a_gap_has_its_one_create_after_the_wait() {
    beside_asterisk_in_share("2", async || {
        let site = Site::open().await;
        let (before, unheard, after) = ("584140000031", "584140000032", "584140000033");
        let line = Line::open().await;
        let agent = start(site.loaded(&line.address)).await;
        let over = talk(&site, before).await;
        created_after(&site, before, over, Duration::ZERO, SOON).await;

        let (outside, ana) = site.talks(unheard).await;
        site.told(unheard, "connected").await;
        pause(2.3).await;
        line.cut();
        ends(&outside, &ana).await;
        // Asterisk writes the CDR while nobody listens.
        site.lab.settle().await;
        line.mend();
        let end = until_over(&site.receiver, unheard).await;
        let over = Instant::now();
        assert_eq!((end.event.as_str(), end.info.as_str()), ("hangup", "recovered"));
        // A restart does not forget what is waited for.
        agent.stop().await;
        let agent = start(site.loaded(&line.address)).await;
        assert!(status(&site).await.journal.objects > 0, "something waits");
        let other = talk(&site, after).await;
        created_after(&site, after, other, Duration::ZERO, SOON).await;
        assert_eq!(created(&site.receiver, unheard), [], "it waits for a CDR");
        created_after(&site, unheard, over, hold(), hold() + SOON).await;
        pause(5.0).await;

        let [create] = created(&site.receiver, unheard).try_into().unwrap();
        let all = told(&site.receiver, unheard);
        is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
        assert!((create.initiated - all[0].at).abs() <= 1, "{create:?}, {all:#?}");
        // It was heard of last at its answer or while it talked, and was gone soon after.
        assert!((2..=10).contains(&create.duration), "{create:?}");
        assert_eq!(created(&site.receiver, before).len() + created(&site.receiver, after).len(), 2);
        site.nothing_was_wrong();
        agent.stop().await;
    });
}

#[test]
fn without_cdr_events_creates_come_from_what_was_seen() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (first, second, missed, third) = ("584140000034", "584140000035", "584140000036", "584140000037");
        let off = |text: &str| text.replacen("enabled = yes", "enabled = no", 1);
        let before = asterisk::configure("cdr_manager.conf", off);
        site.lab.command("module reload cdr_manager.so").await;
        let agent = start(site.loaded(AMI)).await;
        // A CDR might come yet.
        let over = talk(&site, first).await;
        created_after(&site, first, over, hold(), hold() + SOON).await;
        assert_eq!(status(&site).await.ingest.cdr_source, Some(CdrSource::Tracker));
        // None comes here, as is known now.
        let over = talk(&site, second).await;
        let (outside, ana) = site.rings(missed).await;
        outside.cancel().await;
        ana.becomes(State::Over).await;
        created_after(&site, second, over, Duration::ZERO, SOON + SOON).await;
        until_over(&site.receiver, missed).await;
        site.lab.settle().await;
        pause(3.0).await;
        // Asterisk would have written one of the missed call, but perhaps of another: it is counted.
        assert_eq!(created(&site.receiver, missed), []);
        let left_out = status(&site).await.journal.routes.into_iter().flat_map(|route| route.skipped);
        assert_eq!(left_out.collect::<Vec<_>>(), [("unanswered call without a CDR".to_owned(), 1)]);
        for number in [first, second] {
            let all = told(&site.receiver, number);
            is_whole(&all, &["initial", "ringing", "connected", "hangup"]);
            let [create] = created(&site.receiver, number).try_into().unwrap();
            assert!((create.initiated - all[0].at).abs() <= 1, "{create:?}, {all:#?}");
            assert!((2..=4).contains(&create.duration), "{create:?}");
        }
        // An administrator sees to it.
        asterisk::configure("cdr_manager.conf", |_| before);
        site.lab.command("module reload cdr_manager.so").await;
        let over = talk(&site, third).await;
        created_after(&site, third, over, Duration::ZERO, SOON).await;
        pause(3.0).await;
        assert_eq!(status(&site).await.ingest.cdr_source, Some(CdrSource::Events));
        assert_eq!(created(&site.receiver, third).len(), 1);
        site.nothing_was_wrong();
        agent.stop().await;
    });
}

#[test]
fn without_mappings_the_same_creates_are_made() {
    beside_asterisk_in_share("1", async || {
        let mappings = |text: &str| text.split("[mappings]").next().unwrap_or_default().to_owned();
        let before = asterisk::configure("cdr_manager.conf", mappings);
        let site = Site::open().await;
        site.lab.command("module reload cdr_manager.so").await;
        let agent = site.agent().await;
        let show = Show::play(&site, scenarios::named(SEVERAL), None).await;
        asterisk::configure("cdr_manager.conf", |_| before);
        site.lab.command("module reload cdr_manager.so").await;
        show.judge(&site, agent, "22", AT_ONCE).await;
    });
}

#[test]
fn cdrs_in_batches_make_the_same_creates() {
    beside_asterisk_in_share("2", async || {
        let batch = Duration::from_secs(20);
        let keys = format!("[general]\nbatch = yes\nsize = 100\ntime = {}\n", batch.as_secs());
        let before = asterisk::configure("cdr.conf", |text| text.replacen("[general]\n", &keys, 1));
        let site = Site::open().await;
        site.lab.command("module reload cdr").await;
        assert!(site.lab.command("cdr show status").await.contains("Batch"));
        let agent = site.agent().await;
        let show = Show::play(&site, scenarios::named(SEVERAL), None).await;
        let source = agent.client().status().await.unwrap().ingest.cdr_source;
        assert_eq!(source, Some(CdrSource::Events));
        show.judge(&site, agent, "22", batch).await;
        asterisk::configure("cdr.conf", |_| before);
        site.lab.command("module reload cdr").await;
    });
}

#[test]
fn with_a_system_name_calls_are_the_same() {
    beside_asterisk_in_share("2", async || {
        asterisk::stop().await;
        let named = |text: &str| text.replacen("[options]\n", "[options]\nsystemname = pbx2\n", 1);
        let before = asterisk::configure("asterisk.conf", named);
        asterisk::start().await;
        let site = Site::open().await;
        let agent = site.agent().await;
        let show = Show::play(&site, scenarios::named(SEVERAL), None).await;
        let new = site.lab.event("Newchannel", &[]).await;
        assert!(new.get("Uniqueid").starts_with("pbx2-"), "{new:?}");
        show.judge(&site, agent, "22", AT_ONCE).await;
        drop(site);
        asterisk::stop().await;
        asterisk::configure("asterisk.conf", |_| before);
        asterisk::start().await;
    });
}
