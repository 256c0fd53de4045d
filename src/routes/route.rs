//! What a route wants of an update or a CDR group, rendered once into what will be sent.

use std::fmt;
use std::sync::Arc;

use super::creates::Creates;
use super::retry::Policy;
use super::worker::WorkerSetup;
use crate::calls::{CdrGroup, Update};
use crate::cdr::{ends, fold};
use crate::config::{self, Config, Pbx};
use crate::journal::{Journal, JournalError, Outgoing, Payload, RouteId};
use crate::sinks::{NimboxSink, Sink, WebhookSink, render};

/// Every configured route.
#[derive(Debug, Default)]
pub struct Routes {
    /// In the order of the configuration: NiMbox first, then webhooks.
    pub routes: Vec<Route>,
}

/// One route.
pub struct Route {
    /// Its name.
    pub id: RouteId,
    pbx: Arc<Pbx>,
    kind: RouteKind,
    /// `[calls] report_unreached`.
    unreached: bool,
}

/// The ends of a leg; history has no other webhooks.
const ENDS: [&str; 4] = ["call.state", "call.missed", "call.failed", "call.hangup"];

enum RouteKind {
    Nimbox(Box<(config::Nimbox, Creates)>),
    Webhook(Box<config::Webhook>),
}

impl Routes {
    /// From the configuration; disabled sinks make no route.
    pub fn new(config: &Config) -> Self {
        let pbx = Arc::new(config.pbx.clone());
        let nimbox = config.nimbox.iter().filter(|n| n.delivery.enabled).map(|n| {
            let creates = Creates::new(n, &config.numbers, &config.recordings, &pbx);
            (&n.name, RouteKind::Nimbox(Box::new((n.clone(), creates))))
        });
        let webhooks = config
            .webhooks
            .iter()
            .filter(|w| w.delivery.enabled)
            .map(|w| (&w.name, RouteKind::Webhook(Box::new(w.clone()))));
        let routes = nimbox
            .chain(webhooks)
            .map(|(name, kind)| Route {
                id: RouteId(name.as_str().into()),
                pbx: Arc::clone(&pbx),
                kind,
                unreached: config.calls.report_unreached,
            })
            .collect();
        Self { routes }
    }

    /// The NiMbox routes of a configuration, or the one route that is named, which history goes to.
    ///
    /// # Errors
    /// What is wrong and what to do, where there is none.
    pub fn history(config: &Config, route: Option<&str>) -> Result<Self, (String, String)> {
        let mut routes = Self::new(config);
        routes.routes.retain(|known| match route {
            Some(route) => *known.id.0 == *route,
            None => known.kind() == "nimbox",
        });
        if let Some(known) = routes.routes.iter().find(|known| !known.tells_ends()) {
            let what =
                format!("{:?} wants no end of a call, and of the past nothing else is known", known.id.0);
            return Err((what, format!("add one of {} to its events", ENDS.join(", "))));
        }
        if !routes.routes.is_empty() {
            return Ok(routes);
        }
        let webhooks = config.webhooks.iter().map(|sink| sink.name.as_str()).filter(|_| route.is_some());
        let names: Vec<_> = config.nimbox.iter().map(|sink| sink.name.as_str()).chain(webhooks).collect();
        let what = match route {
            Some(route) => format!("no sink {route:?} is configured and enabled"),
            None => "no NiMbox sink is configured and enabled, so history goes nowhere".to_owned(),
        };
        let remedy = if names.is_empty() {
            "add a [[nimbox]]".to_owned()
        } else {
            format!("name one of {}", names.join(", "))
        };
        Err((what, remedy))
    }

    /// Creates of history that wait in the journal.
    ///
    /// # Errors
    /// When the journal cannot be asked.
    pub async fn waiting_history(&self, journal: &Journal) -> Result<u64, JournalError> {
        let mut waiting = 0;
        for route in &self.routes {
            waiting += journal.pending(&route.id.history()).await?;
        }
        Ok(waiting)
    }

    /// Without webhooks.
    pub fn only_nimbox(mut self) -> Self {
        self.routes.retain(|route| matches!(route.kind, RouteKind::Nimbox(_)));
        self
    }

    /// One entry for each route that wants this update.
    pub fn select(&self, update: &Update) -> Vec<Outgoing> {
        self.routes.iter().filter_map(|route| route.select(update)).collect()
    }

    /// The creates of a complete CDR group for each NiMbox route, and what was left out and why.
    pub fn creates(&self, group: &CdrGroup) -> (Vec<Outgoing>, Vec<(RouteId, String)>) {
        let mut outgoing = Vec::new();
        let mut skipped = Vec::new();
        for route in &self.routes {
            let RouteKind::Nimbox(nimbox) = &route.kind else { continue };
            let folded = fold(group, nimbox.0.mode, &route.pbx);
            let made = nimbox.1.make(&group.call, &folded.parts);
            outgoing.extend(made.creates.into_iter().map(|made| Outgoing {
                route: route.id.clone(),
                id: made.id,
                call: group.call.clone(),
                ordered: false,
                party: made.party,
                start: Some(made.start),
                payload: made.payload,
            }));
            let dropped = folded.dropped.iter().map(|(_, why)| why.text());
            skipped.extend(dropped.chain(made.skipped).map(|why| (route.id.clone(), why.to_owned())));
        }
        (outgoing, skipped)
    }

    /// What a past call comes to: creates for NiMbox, and for a webhook the end of each user's part.
    pub fn past(&self, group: &CdrGroup) -> (Vec<Outgoing>, Vec<(RouteId, String)>) {
        let (mut outgoing, mut skipped) = self.creates(group);
        for route in self.routes.iter().filter(|route| route.kind() == "webhook") {
            let updates = ends(group, &route.pbx, route.unreached);
            if updates.is_empty() {
                skipped.push((route.id.clone(), "call without a part of a user".to_owned()));
            }
            for update in updates {
                match route.select(&update) {
                    Some(end) => outgoing.push(end),
                    None => skipped.push((route.id.clone(), "end that the webhook does not want".to_owned())),
                }
            }
        }
        (outgoing, skipped)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the URL may be secret
        f.debug_struct("Route").field("id", &self.id).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Route {
    /// `nimbox` or `webhook`.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            RouteKind::Nimbox(_) => "nimbox",
            RouteKind::Webhook(_) => "webhook",
        }
    }

    /// Where to, without secrets: scheme, host and port.
    pub fn to(&self) -> String {
        self.delivery().url.origin().ascii_serialization()
    }

    /// The sink that this route delivers to; nothing is connected yet.
    pub fn sink(&self) -> Sink {
        match &self.kind {
            RouteKind::Nimbox(nimbox) => Sink::Nimbox(Box::new(NimboxSink::new(&nimbox.0))),
            RouteKind::Webhook(webhook) => Sink::Webhook(Box::new(WebhookSink::new(webhook))),
        }
    }

    /// How patiently it delivers.
    pub fn policy(&self) -> Policy {
        let delivery = self.delivery();
        Policy {
            retry_for: delivery.retry_for,
            concurrency: delivery.concurrency.max(1),
            rate: delivery.rate,
            zone: self.pbx.timezone.clone(),
        }
    }

    /// What its worker needs.
    pub fn setup(&self) -> WorkerSetup {
        WorkerSetup {
            pbx: self.pbx.name.clone(),
            sink: Arc::new(self.sink()),
            verify: self.must_verify().cloned(),
            policy: self.policy(),
        }
    }

    /// The URL that must answer a test event before anything is delivered to it.
    pub fn must_verify(&self) -> Option<&url::Url> {
        match &self.kind {
            RouteKind::Webhook(webhook) if webhook.verify => Some(&webhook.delivery.url),
            RouteKind::Webhook(_) | RouteKind::Nimbox(_) => None,
        }
    }

    fn tells_ends(&self) -> bool {
        match &self.kind {
            RouteKind::Webhook(webhook) => webhook.events.iter().any(|event| ENDS.contains(&event.as_str())),
            RouteKind::Nimbox(_) => true,
        }
    }

    fn delivery(&self) -> &config::Delivery {
        match &self.kind {
            RouteKind::Nimbox(nimbox) => &nimbox.0.delivery,
            RouteKind::Webhook(webhook) => &webhook.delivery,
        }
    }

    fn select(&self, update: &Update) -> Option<Outgoing> {
        let RouteKind::Webhook(webhook) = &self.kind else { return None };
        let (event, body) = render(webhook, update)?;
        Some(Outgoing {
            route: self.id.clone(),
            id: update.id.clone(),
            call: update.call.clone(),
            ordered: true,
            party: None,
            start: None,
            payload: Payload::Webhook { event: event.to_owned(), body },
        })
    }
}
