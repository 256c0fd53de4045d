//! `callpost setup`: looks at the PBX on this host, shows what it would write, writes it after consent,
//! and ends with `check`. Looking and writing are here too; what lies between is plain functions.

mod account;
mod ask;
mod cdr_events;
mod change;
mod conf;
mod console;
mod diff;
mod edit;
mod found;
mod host;
mod language;
mod plan;
mod run;
mod scan;
mod show;
mod site;
mod store;
mod trunks;

pub(super) use run::setup;
