//! What the stand-in PBX holds right now, for those who ask after a login.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::recording::{header, headers};

/// Live channels by uniqueid.
#[derive(Debug, Default)]
pub(super) struct Channels {
    live: BTreeMap<String, Live>,
}

#[derive(Debug, Default)]
struct Live {
    /// The channel's headers, as its last event had them.
    block: Vec<(String, String)>,
    bridge: String,
    /// Another channel dialled it.
    dialled: bool,
}

/// The headers of a channel block (`manager_channels.c`).
const BLOCK: [&str; 15] = [
    "Channel",
    "ChannelState",
    "ChannelStateDesc",
    "CallerIDNum",
    "CallerIDName",
    "ConnectedLineNum",
    "ConnectedLineName",
    "Language",
    "AccountCode",
    "Context",
    "Exten",
    "Priority",
    "Uniqueid",
    "Linkedid",
    "ChanVariable",
];

impl Channels {
    /// Takes note of an event that is about to be sent.
    pub fn see(&mut self, message: &str) {
        let (Some(event), Some(uniqueid)) = (header(message, "Event"), header(message, "Uniqueid")) else {
            return;
        };
        if event == "Hangup" {
            self.live.remove(uniqueid);
            return;
        }
        if event == "DialBegin"
            && let Some(dialled) = header(message, "DestUniqueid").and_then(|id| self.live.get_mut(id))
        {
            dialled.dialled = true;
        }
        if event == "Newchannel" && !header(message, "Channel").unwrap_or_default().starts_with("Message/") {
            self.live.insert(uniqueid.to_owned(), Live::default());
        }
        let Some(live) = self.live.get_mut(uniqueid) else { return };
        let own = headers(message).filter(|(key, _)| BLOCK.contains(key));
        live.block = own.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        if event == "BridgeEnter" {
            header(message, "BridgeUniqueid").unwrap_or_default().clone_into(&mut live.bridge);
        } else if event == "BridgeLeave" {
            live.bridge.clear();
        }
    }

    /// One item for each live channel: `CoreShowChannel` or `Status`.
    pub fn items(&self, event: &str, action_id: &str) -> Vec<String> {
        self.live.values().map(|live| live.item(event, action_id)).collect()
    }
}

impl Live {
    fn item(&self, event: &str, action_id: &str) -> String {
        let mut item = format!("Event: {event}\r\n");
        for (key, value) in &self.block {
            let _ = write!(item, "{key}: {value}\r\n");
        }
        let (application, data) = if self.dialled { ("AppDial", "(Outgoing Line)") } else { ("Dial", "") };
        let bridge = if event == "Status" { "BridgeID" } else { "BridgeId" };
        let _ = write!(
            item,
            "{bridge}: {}\r\nApplication: {application}\r\nApplicationData: {data}\r\nDuration: 00:00:00\r\nActionID: {action_id}\r\n\r\n",
            self.bridge
        );
        item
    }
}
