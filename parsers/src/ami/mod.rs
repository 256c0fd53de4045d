//! The Asterisk Manager Interface (`main/manager.c`): boundary first, then parse.
//!
//! [`codec`] cuts the stream into frames, [`message`] gives a frame's headers, [`response`] and
//! [`event`] give values, [`action`] writes what we ask.

pub mod action;
pub mod codec;
pub mod event;
pub mod message;
pub mod response;

pub use action::Action;
pub use codec::{Banner, Codec, Frame, Malformed};
pub use event::{Bridge, Channel, ChannelState, Dial, DialStatus, Event, EventKind};
pub use message::{Kind, Message};
pub use response::{Response, Status};
