//! The Asterisk Manager Interface (`main/manager.c`): boundary first, then parse.
//!
//! [`codec`] cuts the stream into frames, [`message`] gives a frame's headers by the rules in `grammar`,
//! [`text`] reads values as text, [`response`] and [`event`] are what they mean (`dispatch` reads events,
//! with the groups of headers in `block`), [`action`] writes what we ask.

pub mod action;
mod block;
pub mod codec;
mod dispatch;
pub mod event;
mod grammar;
pub mod message;
pub mod response;
pub mod text;

pub use action::{Action, ActionError};
pub use codec::{Banner, Codec, Frame, Malformed};
pub use event::{Bridge, Channel, ChannelState, Dial, DialStatus, Event, EventKind};
pub use message::{Kind, Message};
pub use response::{Response, Status};
