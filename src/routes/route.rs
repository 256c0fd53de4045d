//! What a route wants of an update or a CDR group, rendered once into what will be sent.

use crate::calls::{CdrGroup, Update};
use crate::config::Config;
use crate::journal::{Outgoing, RouteId};

/// Every configured route.
#[derive(Debug, Default)]
pub struct Routes {
    /// In the order of the configuration.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub id: RouteId,
}

impl Route {
    /// `nimbox` or `webhook`.
    pub fn kind(&self) -> &'static str {
        ""
    }

    /// Where to, without secrets: scheme, host and port.
    pub fn to(&self) -> String {
        String::new()
    }
}

impl Routes {
    /// From the configuration; disabled sinks make no route.
    pub fn new(_config: &Config) -> Self {
        Self::default()
    }

    /// One entry for each route that wants this update.
    pub fn select(&self, _update: &Update) -> Vec<Outgoing> {
        Vec::new()
    }

    /// The creates of a complete CDR group for each NiMbox route, and what was left out and why.
    pub fn creates(&self, _group: &CdrGroup) -> (Vec<Outgoing>, Vec<(RouteId, String)>) {
        (Vec::new(), Vec::new())
    }
}
