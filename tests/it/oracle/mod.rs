//! The oracle: a stand-in PBX that knows every call it plays, receivers that fail in every way and
//! keep account of what is owed, and the real agent between the two, as a process of its own.
//!
//! What a call owes is found by a tracker that sees that call alone, so a call that another one
//! disturbs shows as a difference. A call whose events went by while no agent listened owes less:
//! what was announced must end, once, and nothing may be invented.

mod call;
mod ledger;
mod pbx;
mod run;
mod server;

pub use ledger::Faults;
pub use run::{Plan, Run, Trouble};
