//! From channels to calls as people understand them. A pure state machine: time is passed in,
//! nothing is awaited, nobody asks it anything; what it decides leaves as [`Step`].

mod call;
mod direction;
mod identity;
mod leg;
mod tracker;

pub use call::{
    CallKey, CdrGroup, CdrRow, CdrSource, Context, Direction, EventName, LegState, LegUpdate, ObjectKey,
    Party, SmsUpdate, Step, TerminatedBy, Update, UpdateBody, UpdateId,
};
pub use tracker::{Input, Snapshot, SnapshotChannel, SnapshotEntry, Tracker};
