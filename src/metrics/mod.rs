//! What is counted and measured, and how Prometheus is told. Parts keep their own numbers; all of
//! them come together in [`AgentStatus`](crate::api::AgentStatus), of which the text is made when
//! somebody asks.

mod histogram;
mod minute;
mod process;
mod render;
mod text;

pub use histogram::{Histogram, buckets};
pub use minute::Minute;
pub use process::Process;
pub use render::render;
pub use text::CONTENT_TYPE;
