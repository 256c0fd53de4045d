//! Another configuration for a running agent: what changes now, what after a restart, what is
//! refused. Nothing is lost or overtaken: the journal stands between those who write and those who
//! send, and a delivery under way keeps the sink that it began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Agent;
use crate::api::{AgentStatus, Reloaded};
use crate::config::{Change, Config, Environment, Facts, Fault, Loaded, goes_into_nimbox_keys, load};
use crate::ingest::Rules;
use crate::routes::{Orders, Routes};

/// Tables whose parts cannot be exchanged while they work.
const AFTER_RESTART: [&str; 3] = ["api", "cdr", "journal"];
/// How long the answer waits for ingest, which may wait for a disk.
const INGEST_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the file again, as `callpost run` did.
pub(super) async fn read(file: PathBuf) -> Result<Loaded, Vec<Fault>> {
    let whole = Path::to_path_buf(&file);
    let read = tokio::task::spawn_blocking(move || load(&file, &Environment::of_process())).await;
    match read {
        Ok(loaded) => loaded.map_err(|faults| faults.0),
        Err(why) => Err(vec![Fault {
            file: whole.display().to_string(),
            line: None,
            key: String::new(),
            problem: format!("cannot be read: {why}"),
            remedy: "this is a fault of callpost: report it".to_owned(),
        }]),
    }
}

impl Agent {
    /// What changes, where this agent followed nothing yet and nothing waits: then a configuration
    /// takes effect whole, also where a running agent would refuse it or want a restart. `None`
    /// where [`Agent::reload`] does as well.
    pub(super) async fn first_configuration(&self, config: &Config) -> Option<Vec<Change>> {
        if self.view().config.ami.is_some() {
            return None;
        }
        let changes = self.facts.difference(&Facts::of(config));
        let needed = |change: &Change| {
            change.key == "pbx.name" || AFTER_RESTART.iter().any(|table| change.is_of(table))
        };
        let status = self.view().status().await.ok()?;
        let pending: u64 = status.journal.routes.iter().map(|route| route.counters.pending).sum();
        (pending == 0 && changes.iter().any(needed)).then_some(changes)
    }

    /// Goes on with another configuration, or with the one before where this one may not take its
    /// place. Returns once it is in force.
    pub async fn reload(&mut self, mut config: Config) -> Reloaded {
        let facts = Facts::of(&config);
        let changes = self.facts.difference(&facts);
        let status = self.view().status().await.unwrap_or_default();
        if let Some(refused) = refused(&self.view().config, &config, &changes, &status) {
            return refused;
        }
        let (restart, changes): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| AFTER_RESTART.iter().any(|table| change.is_of(table)));
        // What the agent goes by until then stays what it says of itself.
        let before = Arc::clone(&self.view().config);
        config.journal = before.journal.clone();
        config.api = before.api.clone();
        config.cdr = before.cdr.clone();
        let mut warnings = warnings(&config, &changes, &status);
        self.facts = Facts::of(&config);
        let config = Arc::new(config);
        let routes = Arc::new(Routes::new(&config));
        self.order(&routes, &changes);
        self.number += 1;
        let rules = Rules { number: self.number, config: Arc::clone(&config), routes: Arc::clone(&routes) };
        self.rules.send_replace(rules);
        if changes.iter().any(|change| change.is_of("ami")) {
            self.ami_settings.send_replace(config.ami.clone());
        }
        let views = self.views(&routes);
        self.view.send_modify(|view| {
            view.config = Arc::clone(&config);
            view.routes = views;
        });
        let number = self.number;
        let followed = self.followed.wait_for(|followed| *followed >= number);
        if timeout(INGEST_PATIENCE, followed).await.is_err() {
            warnings.push("calls follow it once the journal can be written again".to_owned());
        }
        self.keep_keys().await;
        Reloaded::Applied { changes, restart, warnings }
    }

    /// Tells each worker what to do from now on; new routes get one.
    fn order(&mut self, routes: &Routes, changes: &[Change]) {
        for task in &mut self.routes {
            let Some(route) = routes.routes.iter().find(|route| route.id == task.id) else {
                task.orders.send_replace(Orders { setup: None });
                continue;
            };
            let table = format!("{}.{}", route.kind(), route.id.0);
            let own = |change: &Change| change.is_of(&table) || change.is_of("pbx");
            if changes.iter().any(own) || task.orders.borrow().setup.is_none() {
                task.orders.send_replace(Orders { setup: Some(Arc::new(route.setup())) });
            } else {
                // the same: a paused route asks again
                let same = task.orders.borrow().clone();
                task.orders.send_replace(same);
            }
        }
        for route in &routes.routes {
            if self.routes.iter().all(|task| task.id != route.id) {
                self.start_worker(route);
            }
        }
    }
}

/// Why the agent cannot go on with this one, if so.
fn refused(old: &Config, new: &Config, changes: &[Change], status: &AgentStatus) -> Option<Reloaded> {
    let pending: u64 = status.journal.routes.iter().map(|route| route.counters.pending).sum();
    if changes.iter().any(|change| change.key == "pbx.name") {
        return Some(Reloaded::Refused {
            key: "pbx.name".to_owned(),
            why: format!(
                "it goes into every id, so calls that go on and deliveries that wait ({pending} now) would be known by two"
            ),
            remedy: format!(
                "set it back to \"{}\"; or stop callpost when nothing waits, change it and start again",
                old.pbx.name
            ),
        });
    }
    let webhook = |config: &Config, name: &str| config.webhooks.iter().any(|sink| sink.name == name);
    let nimbox = |config: &Config, name: &str| config.nimbox.iter().any(|sink| sink.name == name);
    for route in status.journal.routes.iter().filter(|route| route.counters.pending > 0) {
        let sink = route.route.sink();
        let name = &*sink.0;
        if webhook(old, name) && nimbox(new, name) || nimbox(old, name) && webhook(new, name) {
            return Some(Reloaded::Refused {
                key: name.to_owned(),
                why: format!(
                    "{} deliveries wait for the sink of this name, and one of the other kind cannot take them",
                    route.counters.pending
                ),
                remedy: "give the new sink a name of its own".to_owned(),
            });
        }
    }
    None
}

/// What follows and is not seen at once.
fn warnings(new: &Config, changes: &[Change], status: &AgentStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    let routes = Routes::new(new);
    for route in &status.routes {
        let waiting = status.journal.routes.iter().find(|known| known.route == route.route);
        let waiting = waiting.map_or(0, |route| route.counters.pending);
        let gone = routes.routes.iter().all(|known| known.id != route.route);
        if gone && route.kind != "none" && waiting > 0 {
            warnings.push(format!(
                "{}: {waiting} deliveries wait and are held, until a sink of this name is enabled again",
                route.route.0
            ));
        }
    }
    for sink in new.webhooks.iter().filter(|sink| sink.delivery.enabled && sink.verify) {
        let url = format!("webhook.{}.url", sink.name);
        if changes.iter().any(|change| change.key == url) {
            warnings.push(format!("{}: delivers once its new URL has answered a test event", sink.name));
        }
    }
    if !new.nimbox.is_empty() {
        let keys = changes.iter().map(|change| change.key.as_str()).filter(|key| goes_into_nimbox_keys(key));
        warnings.extend(keys.map(about_keys));
    }
    warnings
}

/// What another value of this key does.
pub(super) fn about_keys(key: &str) -> String {
    format!(
        "{key}: NiMbox tells calls apart by initiated, source and destination, which calls that end from now on get by the new value; what waits keeps its own. A call sent before and sent again (backfill) would be another call to NiMbox"
    )
}
