//! Answers to actions: `Response: Success|Error|Goodbye|Follows`.

use super::Message;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done, or queued.
    Success,
    /// Refused; the message says why.
    Error,
    /// The answer to Logoff.
    Goodbye,
    /// 11 and 13: raw command output follows.
    Follows,
    /// Any other word.
    Other,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// How it ended.
    pub status: Status,
    /// The action's id; absent on errors raised before parsing.
    pub action_id: Option<String>,
    /// `Message`.
    pub message: Option<String>,
    /// `EventList: start`: items follow.
    pub list: bool,
    /// Everything else.
    pub headers: Message,
}

impl Response {
    /// Reads a message that begins with `Response:`.
    pub fn parse(_message: Message) -> Option<Self> {
        None
    }
}
