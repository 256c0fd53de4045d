//! The hinge: what is not here is not sent, what is here is not lost. The only place that knows
//! sled. One writer thread; generations; group commit with our own fdatasync; history by day.

mod format;
mod store;
mod types;

pub use store::Journal;
pub use types::{
    Batch, Counters, DeadLetter, Delivery, DeliveryKey, HistoryFilter, JournalError, JournalOptions,
    JournalStatus, LegRecord, Outgoing, Payload, Recovered, RouteId, RouteStatus, Settlement, Trace,
    TraceDelivery, TraceMessage, Traced,
};
