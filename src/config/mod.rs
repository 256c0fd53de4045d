//! The configuration: the named file, `conf.d/*.toml` beside it in name order, `CALLPOST_`
//! variables; every fault reported at once with file, line, key and remedy.

mod check;
mod difference;
mod fault;
mod load;
mod merge;
mod read;
mod rules;
mod secret;
mod sinks;
mod types;
mod units;

pub use difference::{Became, Change, Facts, goes_into_nimbox_keys};
pub use fault::{Fault, Faults};
pub use load::{DEFAULT_FILE, Environment, Loaded, load, load_text};
pub use types::{
    Ami, Api, Calls, CdrStore, Config, Delivery, InboundDestination, Initiated, Journal, Mode, Nimbox,
    NumberRule, Numbers, Pbx, Queue, Reconcile, Recordings, Sms, Trunk, User, Webhook,
};
pub use units::{duration, duration_text, size, size_text};
