//! What the host tells without being asked.

use super::conf::bytes_of;
use super::host::Host;
use super::site::Site;
use super::{cdr_events, store, trunks};
use crate::cli::exit::CliError;

/// Cdr events, stores, lines, a name.
pub(super) struct Found {
    pub cdr_events: bool,
    pub stores: Vec<store::Found>,
    trunks: Vec<String>,
    hostname: String,
}

impl Found {
    pub fn look(host: &Host) -> Result<Self, CliError> {
        let hostname = bytes_of(&host.root.join("etc/hostname"))?.unwrap_or_default();
        Ok(Self {
            cdr_events: cdr_events::are_on(host)?,
            stores: store::find(host)?,
            trunks: trunks::find(host),
            hostname: String::from_utf8_lossy(&hostname).into_owned(),
        })
    }

    /// The name that setup proposes: that of before, else the host's.
    pub fn name(&self, site: &Site) -> String {
        if let Some(pbx) = &site.earlier.pbx {
            return pbx.name.clone();
        }
        let short = self.hostname.trim().split('.').next().unwrap_or_default().to_lowercase();
        let name: String =
            short.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
        let name = name.trim_matches('-');
        if name.is_empty() { "pbx".to_owned() } else { name.to_owned() }
    }

    pub fn trunks(&self, site: &Site) -> Vec<String> {
        match &site.earlier.pbx {
            Some(pbx) if !pbx.trunks.is_empty() => pbx.trunks.clone(),
            _ => self.trunks.clone(),
        }
    }
}
