//! One call in a terminal: who it was between, its channels as columns with what happened between
//! them, the deliveries made of it in a column of their own, its CDR rows.

mod canvas;
mod deliveries;
mod draw;
mod heading;
mod line;
mod story;

pub use draw::{Look, ladder};
pub use line::Line;
pub(super) use line::{clean, columns, natural_width};
