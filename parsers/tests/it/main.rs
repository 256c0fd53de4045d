//! Bytes and values, both ways.

mod action;
mod codec;
mod event;
mod ident;
mod message;
mod probes;
mod wire;
