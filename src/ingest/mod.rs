//! Between the connection and the journal: feeds the tracker, renders what routes want, appends.
//! The only place where a decision of the tracker becomes a fact on disk.

mod pipeline;
mod trace;

pub use pipeline::{Asked, Ingest, IngestHealth, Question, Rules};
pub use trace::trace_message;
