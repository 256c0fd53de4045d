//! `callpost demo`: no PBX and nothing to configure. A stand-in PBX plays recorded streams of a real
//! Asterisk into the real agent, which delivers to a receiver.

mod channels;
mod pbx;
mod play;
mod recording;
mod scenes;
mod summary;

pub use pbx::Pbx;
pub use play::{DemoError, News, Setup, run};
pub use recording::{Recording, Shift};
pub use scenes::{SCENES, Scene};
pub use summary::Summary;
