//! The hinge: what is not here is not sent, what is here is not lost. The only place that knows
//! sled. One writer thread; generations; group commit with our own fdatasync; history by day.
//!
//! ```text
//!            store (the handle)
//!              | command, prepared by encode        | job
//!              v                                    v
//!            writer --(settled generation)------> history
//!     stages in book, outbox                      archive, lookup, seek
//!     hands out (due) from schedule             into days (day)
//!              |                                    |
//!              '-------> pool, engine (sled) <------'
//! ```
//! The format on disk is written down in `format`; how a head is read and made, in `head`.

mod answer;
mod archive;
mod book;
mod bundle;
mod command;
mod compact;
mod day;
mod deletes;
mod due;
mod encode;
mod engine;
mod fault_point;
mod format;
mod forward;
mod generations;
mod head;
mod history;
mod import;
mod kill_point;
mod known;
mod limit;
mod lookup;
mod months;
mod offline;
mod open;
mod outbox;
mod pack;
mod pool;
mod reopen;
mod replay;
mod rewrite;
mod salvage;
mod schedule;
mod seek;
mod shared;
mod space;
mod staged;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod view;
mod witness;
mod writer;

pub use offline::{Findings, Offline, Part, PartKind, Salvageable};
pub use store::Journal;
pub use types::{
    Batch, Counters, DeadLetter, DeletedDays, Delivery, DeliveryKey, Dropped, HistoryFilter, Imported,
    JournalError, JournalOptions, JournalStatus, LegRecord, Outgoing, Payload, Recovered, Replayed, RouteId,
    RouteStatus, Selection, Settlement, Trace, TraceDelivery, TraceMessage, Traced,
};
