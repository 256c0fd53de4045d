//! Answers to actions: `Response: Success|Error|Goodbye|Follows`.

use std::borrow::Cow;

use super::text::decode;
use super::{Kind, Message};

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
#[derive(Clone, Debug, PartialEq)]
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
    pub fn parse(message: Message) -> Option<Self> {
        if message.kind() != Kind::Response {
            return None;
        }
        let text = |key| message.text(key).map(Cow::into_owned);
        Some(Self {
            status: status(message.raw_name()),
            action_id: text("ActionID"),
            message: text("Message"),
            list: message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"start")),
            headers: message,
        })
    }

    /// The lines of a command's output, in either of the forms it has: `Output` headers (AMI 3 and later),
    /// raw lines before.
    pub fn output(&self) -> Vec<Cow<'_, str>> {
        match self.headers.output() {
            Some(output) => {
                let output = output.strip_suffix(b"\n").unwrap_or(output);
                output
                    .split(|&byte| byte == b'\n')
                    .map(|line| decode(line.strip_suffix(b"\r").unwrap_or(line)))
                    .collect()
            }
            None => self.headers.get_all("Output").map(decode).collect(),
        }
    }
}

fn status(word: &[u8]) -> Status {
    let known = [
        ("Success", Status::Success),
        ("Error", Status::Error),
        ("Goodbye", Status::Goodbye),
        ("Follows", Status::Follows),
    ];
    known
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map_or(Status::Other, |(_, status)| status)
}
