//! From channels to calls as people understand them. A pure state machine: time is passed in,
//! nothing is awaited, nobody asks it anything; what it decides leaves as [`Step`].
//!
//! ```text
//!            .--> channels: who is there, who dialled whom, who hears whom --> identity: one call
//! Input --> tracker --> dialling, leg, ending, queue, transfer: what a user's part is --> Update
//!            |--> cdr_group: rows until they are complete ------------------> CdrGroup
//!            |--> sms ------------------------------------------------------> Update
//!            '--> snapshot: what Asterisk holds, against what is known
//! objects, state: what these rules know, and which of it changed -------------------> objects
//! ```

mod call;
mod cdr_group;
mod channels;
mod dialling;
mod direction;
mod ending;
mod identity;
mod leg;
mod limits;
mod objects;
mod queue;
mod sms;
mod snapshot;
mod state;
mod tracker;
mod transfer;

pub(crate) use call::CONCEALED;
pub use call::{
    CallKey, CdrGroup, CdrRow, CdrSource, Context, Direction, EventName, LegState, LegUpdate, Merger,
    ObjectKey, Party, SmsUpdate, Step, TerminatedBy, Update, UpdateBody, UpdateId,
};
pub(crate) use direction::user;
pub use identity::call_key;
pub(crate) use identity::{calling_leg, past_leg};
pub use tracker::{Input, Snapshot, SnapshotChannel, SnapshotEndpoint, SnapshotEntry, Tracker};
