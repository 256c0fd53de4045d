//! What most tests beside a real Asterisk begin and end with: a lab, a receiver, an agent.

use tempfile::TempDir;

use callpost::config::{Config, Environment, load_text};
use callpost::receiver::{Options, Receiver};

use crate::agent::Agent;
use crate::lab::{AMI, Lab, rings, takes};
use crate::real_asterisk::config;
use crate::sip::{Call, State};
use crate::story::{Told, created, until_created, until_over, until_told};

/// A lab, a receiver, and the place of an agent's journal.
pub struct Site {
    pub lab: Lab,
    pub receiver: Receiver,
    pub home: TempDir,
}

impl Site {
    pub async fn open() -> Site {
        let lab = Lab::open().await;
        lab.begin().await;
        let receiver = Receiver::start(Options::default()).await.unwrap();
        Site { lab, receiver, home: tempfile::tempdir().unwrap() }
    }

    /// The reference configuration for this place.
    pub fn config(&self) -> String {
        config(self.home.path(), self.receiver.address())
    }

    /// An agent, the first or the next, logged in to Asterisk.
    pub async fn agent(&self) -> Agent {
        self.agent_with(&self.config()).await
    }

    /// The same, for an agent that finds Asterisk at this address.
    pub async fn agent_through(&self, address: &str) -> Agent {
        self.agent_with(&self.config().replace(AMI, address)).await
    }

    /// The same with another configuration.
    pub async fn agent_with(&self, config: &str) -> Agent {
        let mut agent = Agent::start(self.home.path(), config);
        agent.connected().await;
        agent
    }

    /// The configuration for an agent within this process.
    pub fn loaded(&self, address: &str) -> Config {
        let text = self.config().replace(AMI, address);
        let loaded = load_text(&text, "callpost.toml", &Environment::default());
        loaded.unwrap_or_else(|faults| panic!("{faults:?}")).config
    }

    pub async fn calls(&self, number: &str) -> Call {
        self.lab.trunk.call_for(format!("<sip:{number}@127.0.0.1>").as_bytes(), "5551000").await
    }

    /// An outside call with this number of its own rings at Ana's.
    pub async fn rings(&self, number: &str) -> (Call, Call) {
        let outside = self.calls(number).await;
        let ana = rings(&self.lab.ana).await;
        outside.becomes(State::Ringing).await;
        (outside, ana)
    }

    pub async fn talks(&self, number: &str) -> (Call, Call) {
        let (outside, ana) = self.rings(number).await;
        takes(&ana, &outside).await;
        (outside, ana)
    }

    pub async fn told(&self, number: &str, event: &str) -> Told {
        until_told(&self.receiver, number, event).await
    }

    /// This number's one create, and the end of its leg: either may come first.
    pub async fn one_create(&self, number: &str) {
        until_over(&self.receiver, number).await;
        until_created(&self.receiver, number).await;
        assert_eq!(created(&self.receiver, number).len(), 1, "{number}");
    }

    /// Whether Asterisk has a session of the agent.
    pub async fn has_session(&self) -> bool {
        let connected = self.lab.command("manager show connected").await;
        connected.lines().any(|line| line.trim_start().starts_with("callpost "))
    }

    /// Ends the test: all is delivered, and no delivery was wrong.
    pub async fn ends(self, mut agent: Agent) {
        self.lab.settle().await;
        let status = agent.delivered().await;
        for route in &status.journal.routes {
            let counters = &route.counters;
            assert_eq!(counters.accepted, counters.delivered, "{route:?}");
        }
        assert_eq!((status.ami.malformed, status.journal.lost, status.journal.quarantined), (0, 0, 0));
        self.nothing_was_wrong();
        agent.stop().await;
    }

    /// No delivery came out of its order, or differed from the one before with its id.
    pub fn nothing_was_wrong(&self) {
        let counts = self.receiver.counts();
        assert_eq!((counts.conflicts, counts.out_of_order, counts.failed), (0, 0, 0), "{counts:?}");
    }
}
