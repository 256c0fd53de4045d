//! Calls of which the agent heard nothing, or not the end, beside a real Asterisk that writes them into
//! Master.csv: each has its one create all the same. See `real_asterisk`.

use crate::agent::Agent;
use crate::asterisk;
use crate::lab::{AMI, ends, pause, takes};
use crate::real_asterisk::beside_asterisk_in_share;
use crate::real_asterisk_recovery::Line;
use crate::sip::State;
use crate::site::Site;
use crate::story::{created, told, until_created, until_over};

/// The site's configuration with Asterisk's own records; calls that ended 3 s ago have settled.
fn config(site: &Site) -> String {
    let source = asterisk::root().join("var/log/asterisk/cdr-csv/Master.csv");
    format!("{}\n[cdr]\nsource = \"csv://{}\"\nreconcile_after = \"3 s\"\n", site.config(), source.display())
}

/// So often the store was looked through, since the agent's start.
async fn looked(agent: &mut Agent, runs: u64) -> u64 {
    let status = agent.until("reconciled", |status| status.reconciliation.runs >= runs).await;
    assert_eq!(status.reconciliation.away, None);
    status.reconciliation.missing
}

#[test]
fn calls_of_which_a_stopped_agent_heard_nothing_have_a_create_each() {
    beside_asterisk_in_share("1", async || {
        let site = Site::open().await;
        let (before, answered, missed) = ("584140000041", "584140000042", "584140000043");
        let agent = site.agent_with(&config(&site)).await;
        let (outside, ana) = site.talks(before).await;
        pause(1.3).await;
        ends(&outside, &ana).await;
        site.one_create(before).await;
        agent.stop().await;

        let (outside, ana) = site.talks(answered).await;
        pause(2.3).await;
        ends(&outside, &ana).await;
        let (outside, ana) = site.rings(missed).await;
        pause(1.3).await;
        outside.cancel().await;
        ana.becomes(State::Over).await;
        site.lab.settle().await;

        let mut agent = site.agent_with(&config(&site)).await;
        assert_eq!(looked(&mut agent, 2).await, 2);
        for number in [answered, missed] {
            until_created(&site.receiver, number).await;
            assert_eq!(told(&site.receiver, number), [], "nobody is told of states long past");
        }
        assert!((2..=4).contains(&created(&site.receiver, answered)[0].duration));
        agent.stop().await;
        // again: all is known
        let mut agent = site.agent_with(&config(&site)).await;
        assert_eq!(looked(&mut agent, 2).await, 0);
        for number in [before, answered, missed] {
            assert_eq!(created(&site.receiver, number).len(), 1, "{number}");
        }
        site.ends(agent).await;
    });
}

#[test]
fn a_call_that_was_answered_and_ended_while_the_line_was_cut_has_one_create() {
    beside_asterisk_in_share("2", async || {
        let site = Site::open().await;
        let (ringing, whole) = ("584140000044", "584140000045");
        let line = Line::open().await;
        let mut agent = site.agent_with(&config(&site).replace(AMI, &line.address)).await;
        let (outside, ana) = site.rings(ringing).await;
        site.told(ringing, "ringing").await;
        line.cut();
        takes(&ana, &outside).await;
        pause(2.3).await;
        ends(&outside, &ana).await;
        // begun and ended unheard
        let (outside, ana) = site.talks(whole).await;
        pause(1.3).await;
        ends(&outside, &ana).await;
        site.lab.settle().await;
        let logins = agent.client().status().await.unwrap().ami.logins;
        line.mend();
        agent.until("back", |status| status.ami.logins > logins && status.ami.connected).await;
        let end = until_over(&site.receiver, ringing).await;
        assert_eq!(end.info, "recovered");
        for number in [ringing, whole] {
            until_created(&site.receiver, number).await;
        }
        // both looks that follow a login
        pause(8.0).await;
        let [create] = created(&site.receiver, ringing).try_into().unwrap();
        assert!((2..=6).contains(&create.duration), "{create:?}");
        assert_eq!(created(&site.receiver, whole).len(), 1);
        assert_eq!(told(&site.receiver, whole), []);
        site.ends(agent).await;
    });
}
