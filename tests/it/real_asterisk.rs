//! Tests beside a real Asterisk: `tests/asterisk/start 22 -- IT real_asterisk --nocapture`, where
//! IT is this binary. Elsewhere they say that they are skipped.
//!
//! `scenarios::chosen` says how to play a part of the scenarios only. With
//! `CALLPOST_RECORD=fixtures/ami/22` what the account `callpost` was sent is kept there, a file a
//! scenario.
#![expect(clippy::print_stderr, reason = "who runs these for minutes wants to see them go on")]

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;

use crate::lab::{Ami, Lab, Message, Recorder};
use crate::scenarios;

/// Runs a test when an Asterisk is beside us. Its ports are fixed and it is one for all tests, so
/// each waits for its turn, and the runtime with its sockets is gone before the next one's.
fn beside_asterisk(test: impl AsyncFnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var_os("CALLPOST_ASTERISK").is_none() {
        eprintln!("skipped: no Asterisk here; `tests/asterisk/start 22 -- ...` brings one");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test());
}

#[test]
fn every_scenario_plays_and_is_heard_by_the_recommended_account() {
    beside_asterisk(async || {
        let directory = std::env::var_os("CALLPOST_RECORD").map(PathBuf::from);
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory).unwrap();
        }
        let lab = Lab::open().await;
        let mut failed = Vec::new();
        for scenario in scenarios::chosen() {
            let begin = Instant::now();
            let play = async {
                let recorder = Recorder::start("callpost").await;
                lab.begin().await;
                (scenario.play)(&lab).await;
                lab.settle().await;
                let heard = recorder.finish().await;
                heard_what_it_asked_for(scenario.name, &heard);
                heard
            };
            let played = AssertUnwindSafe(play).catch_unwind().await;
            let seconds = begin.elapsed().as_secs_f64();
            if let Ok(heard) = played {
                eprintln!("{:40} {seconds:4.1} s {:6} bytes", scenario.name, heard.len());
                if let Some(directory) = &directory {
                    std::fs::write(directory.join(scenario.name).with_extension("ami"), heard).unwrap();
                }
            } else {
                eprintln!("{:40} {seconds:4.1} s FAILED", scenario.name);
                failed.push(scenario.name);
                lab.clear().await;
            }
        }
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

/// The account's classes and filters work, and the recording is whole messages.
fn heard_what_it_asked_for(scenario: &str, heard: &[u8]) {
    let text = String::from_utf8_lossy(heard);
    assert!(text.is_empty() || text.ends_with("\r\n\r\n"), "the recording ends within a message");
    if scenario == "z01_injection_message" {
        assert!(text.contains("\r\n\r\nEvent: Hangup\r\n"), "the forged event was not let through");
        return;
    }
    let wanted = ["call,all", "agent,all", "dtmf,all", "cdr,all", "user,all", "system,all"];
    let unwanted =
        ["QueueMemberStatus", "DeviceStateChange", "MusicOnHoldStart", "DTMFBegin", "Newexten", "VarSet"];
    for message in text.split_terminator("\r\n\r\n").map(Message::parse) {
        assert!(wanted.contains(&message.get("Privilege")), "{message:?}");
        assert!(!unwanted.contains(&message.get("Event")), "{message:?}");
    }
}

/// What `callpost check` has to find: Asterisk refuses without saying which right is missing.
#[test]
fn an_account_with_too_few_rights_is_refused() {
    beside_asterisk(async || {
        let poor = Ami::login("poor").await;
        for action in ["CoreShowChannels", "CoreStatus", "CoreSettings", "Status"] {
            let answer = poor.action(&[("Action", action)]).await;
            assert_eq!(answer.get("Message"), "Permission denied", "{action}");
        }
        let heard = poor.heard();
        assert!(!heard.iter().any(|message| message.get("Event") == "FullyBooted"));
    });
}
