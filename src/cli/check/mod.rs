//! `callpost check`: looks at everything an agent needs; each line says what to do.

mod asterisk;
mod host;
mod report;
mod run;
mod sinks;
mod store;

pub(super) use run::{check, check_in};
