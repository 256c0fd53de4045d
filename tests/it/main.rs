//! The agent's one integration binary; each module says what it proves.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it did not expect has failed"
)]

mod agent;
mod ami;
mod asterisk;
mod canary;
mod cli;
mod config;
mod conservation;
mod delivery;
mod digits;
mod docs;
mod expect;
mod h2;
mod history;
mod history_dst;
mod history_legs;
mod history_send;
mod history_stores;
mod journal_commands;
mod lab;
mod ladder;
mod operate;
mod operate_http;
mod options;
mod oracle;
mod outage;
mod promises;
mod real_asterisk;
mod real_asterisk_cdr;
mod real_asterisk_history;
mod real_asterisk_recovery;
mod real_asterisk_setup;
mod real_asterisk_storm;
mod receiver;
mod reload;
mod replay;
mod scenarios;
mod setup;
mod sinks;
mod sip;
mod site;
mod soak;
mod story;
mod tracker;
mod variants;
mod workers;
