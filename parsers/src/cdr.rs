//! A call detail record: one pairing of a party A channel with a party B (Asterisk's
//! `include/asterisk/cdr.h`), from the `Cdr` event or from any CDR store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ident::{ChannelName, Linkedid, Micros, Uniqueid};

/// One record. A text that is empty in the source is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdr {
    /// Party A's channel id.
    pub uniqueid: Option<Uniqueid>,
    /// The call's oldest channel; only with a mapping or a column for it.
    pub linkedid: Option<Linkedid>,
    /// Counts records of one Asterisk run; unique only together with `uniqueid`.
    pub sequence: Option<u64>,
    /// Party A's number.
    pub src: Option<Arc<str>>,
    /// Party A's extension at the record's last update: racy after transfers.
    pub dst: Option<Arc<str>>,
    /// Party A's context.
    pub dcontext: Option<Arc<str>>,
    /// `"name" <number>` of party A, unescaped.
    pub clid: Option<Arc<str>>,
    /// Party A's channel.
    pub channel: Option<ChannelName>,
    /// Party B's channel.
    pub dstchannel: Option<ChannelName>,
    /// Last application that party A ran.
    pub lastapp: Option<Arc<str>>,
    /// Its arguments.
    pub lastdata: Option<Arc<str>>,
    /// Start, as written: local time or UTC by the source's settings, `%Y-%m-%d %H:%M:%S`.
    pub start: Option<Arc<str>>,
    /// Answer, as written.
    pub answer: Option<Arc<str>>,
    /// End, as written.
    pub end: Option<Arc<str>>,
    /// `CDR(start,u)`: free of zones.
    pub start_epoch: Option<Micros>,
    /// `CDR(answer,u)`.
    pub answer_epoch: Option<Micros>,
    /// `CDR(end,u)`.
    pub end_epoch: Option<Micros>,
    /// Whole seconds from start to end.
    pub duration: u64,
    /// Whole seconds from answer to end.
    pub billsec: u64,
    /// How it ended.
    pub disposition: Disposition,
    /// `CDR(did)`, set by FreePBX.
    pub did: Option<Arc<str>>,
    /// `CDR(recordingfile)`.
    pub recordingfile: Option<Arc<str>>,
    /// Account code.
    pub accountcode: Option<Arc<str>>,
    /// Party B's account code.
    pub peeraccount: Option<Arc<str>>,
    /// Free field.
    pub userfield: Option<Arc<str>>,
}

/// A record's disposition (`main/cdr.c:ast_cdr_disp2str`), also in cdr_odbc's numeric form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// 0 and 1.
    NoAnswer,
    /// 2.
    Failed,
    /// 4.
    Busy,
    /// 8.
    Answered,
    /// 16.
    Congestion,
    /// 32, only with `canceldispositionenabled`.
    Cancel,
    /// Any other text.
    Unknown,
}

impl Disposition {
    /// From the text or the number that the stores hold.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "NO ANSWER" | "0" | "1" => Self::NoAnswer,
            "FAILED" | "2" => Self::Failed,
            "BUSY" | "4" => Self::Busy,
            "ANSWERED" | "ANSWER" | "8" => Self::Answered,
            "CONGESTION" | "16" => Self::Congestion,
            "CANCEL" | "32" => Self::Cancel,
            _ => Self::Unknown,
        }
    }

    /// Asterisk's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "NO ANSWER",
            Self::Failed => "FAILED",
            Self::Busy => "BUSY",
            Self::Answered => "ANSWERED",
            Self::Congestion => "CONGESTION",
            Self::Cancel => "CANCEL",
            Self::Unknown => "",
        }
    }
}
