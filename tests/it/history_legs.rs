//! A past call's webhooks, from its CDR rows alone, beside what the tracker said of the same recorded call
//! while it lasted.
#![expect(clippy::print_stdout, reason = "what differs is said")]

use std::collections::BTreeMap;

use callpost::calls::{Context, EventName, Update, UpdateBody};
use callpost::journal::Payload;
use callpost::routes::Routes;
use serde_json::Value;

use crate::replay::{config, feed, fixture, names, replay};

/// What rows cannot tell as the tracker saw it.
const OTHERS: [(&str, &str); 9] = [
    ("l06", "a phone that sent a call on has a row like one that lost it to another"),
    ("n113", "a page: its Local channels hide who paged"),
    ("o04", "an originated call has its phone as party B"),
    ("o05", "an originated call to an application has no party B"),
    ("p04", "after an attended transfer the row keeps the number that was called first"),
    ("s21", "an attended transfer: src is who consulted, and the consultation has another src_hash"),
    ("s22", "the same while the target rang"),
    ("s25", "an attended transfer by feature code, as p04"),
    ("s26", "a pickup: the row of the phone that rang does not say that another took the call"),
];

/// Event, the whole call, direction, origin, destination; how often.
type Ends = BTreeMap<(String, String, String, String, String), usize>;

fn live(updates: &[Update]) -> Ends {
    let mut ends = Ends::new();
    for update in updates {
        let UpdateBody::Leg(leg) = &update.body else { continue };
        let event = match leg.event {
            EventName::Missed => "call.missed",
            EventName::Failed => "call.failed",
            EventName::Hangup => "call.hangup",
            _ => continue,
        };
        if leg.context == Context::LocalUser {
            let direction = serde_json::to_value(leg.direction).unwrap().as_str().unwrap().to_owned();
            let (src, dst) = (leg.src.number.clone(), leg.dst.number.clone());
            *ends.entry((event.to_owned(), update.call.0.to_string(), direction, src, dst)).or_default() += 1;
        }
    }
    ends
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap().to_owned()
}

#[test]
fn legs_of_cdr_rows_end_as_they_were_seen_to_end() {
    let routes = Routes::history(config(), Some("all")).unwrap();
    let (mut same, mut differing) = (0, Vec::new());
    for directory in ["22", "16"] {
        for name in names(directory) {
            let run = replay(&feed(&fixture(directory, &name)));
            if run.groups.is_empty() {
                continue;
            }
            let mut past = Ends::new();
            for outgoing in run.groups.iter().flat_map(|group| routes.past(group).0) {
                let Payload::Webhook { event, body } = outgoing.payload else { panic!("a create") };
                let body: Value = serde_json::from_str(&body).unwrap();
                let [call, direction, src, dst] =
                    ["src_hash", "destination", "src", "dst"].map(|name| text(&body, name));
                *past.entry((event, call, direction, src, dst)).or_default() += 1;
            }
            let live = live(&run.updates);
            if live == past {
                same += 1;
            } else {
                println!("{directory}/{name}\n  live {live:#?}\n  past {past:#?}");
                differing.push(name);
            }
        }
    }
    println!("{same} calls alike, {} differ: {differing:?}", differing.len());
    differing.retain(|name| !OTHERS.iter().any(|(prefix, _)| name.starts_with(prefix)));
    assert!(differing.is_empty(), "{differing:?}");
    assert!(same >= 150, "{same}");
}
