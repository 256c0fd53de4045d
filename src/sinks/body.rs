//! The bodies of webhooks: the attributes of VoIPstudio's sample in its order, then ours.

use jiff::Timestamp;
use parsers::Micros;
use serde::Serialize;

use crate::calls::{
    CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, SmsUpdate, TerminatedBy, Update,
    UpdateBody, UpdateId,
};
use crate::config::Webhook;

/// The journal takes records of up to 16 KiB; the rest of one needs far less than 4.
const MOST: usize = 12 * 1024;

/// The event and the JSON text, if this webhook is subscribed to it.
pub fn render(config: &Webhook, update: &Update) -> Option<(&'static str, String)> {
    match &update.body {
        UpdateBody::Leg(leg) => {
            let event = event_name(leg.event)?;
            wants(&config.events, event, leg.context)
                .then(|| (event, leg_body(update, leg, event, config.dtmf_mask)))
        }
        UpdateBody::Sms(sms) => {
            let event = "sms.received";
            config.events.iter().any(|e| e == event).then(|| (event, sms_body(update, sms)))
        }
    }
}

/// A complete sample with `event_name` `test`.
pub fn test_body(id: &UpdateId, at: Micros) -> String {
    let leg = LegUpdate {
        event: EventName::Hangup,
        call_id: 139_543_232,
        parent_id: None,
        state: LegState::Hangup,
        context: Context::LocalUser,
        direction: Direction::In,
        start: at.plus_millis(-18_000),
        connected: Some(at.plus_millis(-11_000)),
        duration: 11,
        cause: "Normal Clearing".to_owned(),
        clid: "\"442035141598\" <2035141598>".to_owned(),
        src: Party { number: "447854740947".to_owned(), id: 0, name: "442035141598".to_owned() },
        dst: Party { number: "441183211001".to_owned(), id: 10_002, name: "John Smith".to_owned() },
        info: "test".to_owned(),
        terminated_by: Some(TerminatedBy::Caller),
        digit: None,
    };
    let call = CallKey("fe5935cefbc82fc4e924bdaa21342a49c18c5dd9".into());
    let update = Update { id: id.clone(), call, at, body: UpdateBody::Leg(Box::new(leg.clone())) };
    leg_body(&update, &leg, "test", false)
}

/// `None`: an update that has no webhook.
const fn event_name(event: EventName) -> Option<&'static str> {
    match event {
        EventName::Initial => Some("call.initial"),
        EventName::Ringing => Some("call.ringing"),
        EventName::Missed => Some("call.missed"),
        EventName::Connected => Some("call.connected"),
        EventName::Failed => Some("call.failed"),
        EventName::Hangup => Some("call.hangup"),
        EventName::Hold => Some("call.hold"),
        EventName::Unhold => Some("call.unhold"),
        EventName::Dtmf => Some("call.dtmf"),
        EventName::Accepted => None,
    }
}

/// A name brings the events of users' legs; `call.state` every state change, those of queues too.
fn wants(events: &[String], event: &str, context: Context) -> bool {
    let is_state = event != "call.dtmf";
    events.iter().any(|wanted| match wanted.as_str() {
        "call.state" => is_state,
        name => name == event && context == Context::LocalUser,
    })
}

/// The attributes in the order in which they are sent.
#[derive(Serialize)]
struct LegBody<'a> {
    id: &'a str,
    event_time: String,
    event_name: &'a str,
    call_id: u64,
    state: LegState,
    connected_at: Option<String>,
    start_time: String,
    context: Context,
    destination: Direction,
    duration: u64,
    t_cause: &'a str,
    src: &'a str,
    src_id: String,
    src_name: String,
    src_hash: &'a str,
    dst: &'a str,
    dst_id: String,
    dst_name: &'a str,
    clid: &'a str,
    info: &'a str,
    terminated_by: &'static str,
    parent_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digit: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digit_by: Option<TerminatedBy>,
}

#[derive(Serialize)]
struct SmsBody<'a> {
    id: &'a str,
    event_time: String,
    event_name: &'static str,
    customer_id: u64,
    user_id: Option<u64>,
    from_no: &'a str,
    to_no: &'a str,
    text: &'a str,
}

fn leg_body(update: &Update, leg: &LegUpdate, event: &str, mask: bool) -> String {
    bounded(|most| {
        let src_name = src_name(leg);
        json(&LegBody {
            id: &update.id.0,
            event_time: utc(update.at),
            event_name: event,
            call_id: leg.call_id,
            state: leg.state,
            connected_at: leg.connected.map(utc),
            start_time: utc(leg.start),
            context: leg.context,
            destination: leg.direction,
            duration: leg.duration,
            t_cause: cut(&leg.cause, most),
            src: cut(&leg.src.number, most),
            src_id: leg.src.id.to_string(),
            src_name: cut(&src_name, most).to_owned(),
            src_hash: &update.call.0,
            dst: cut(&leg.dst.number, most),
            dst_id: leg.dst.id.to_string(),
            dst_name: cut(&leg.dst.name, most),
            clid: cut(&leg.clid, most),
            info: cut(&leg.info, most),
            terminated_by: terminated_by(leg),
            parent_id: leg.parent_id,
            digit: leg.digit.map(|(digit, _)| if mask { '*' } else { digit }),
            digit_by: leg.digit.map(|(_, side)| side),
        })
    })
}

fn sms_body(update: &Update, sms: &SmsUpdate) -> String {
    bounded(|most| {
        json(&SmsBody {
            id: &update.id.0,
            event_time: utc(update.at),
            event_name: "sms.received",
            customer_id: sms.customer_id,
            user_id: sms.user_id,
            from_no: cut(&sms.from, most),
            to_no: cut(&sms.to, most),
            text: cut(&sms.text, most),
        })
    })
}

/// An outside caller's name has the sample's form; users have plain names.
fn src_name(leg: &LegUpdate) -> String {
    let outside = leg.direction == Direction::In && leg.src.id == 0;
    if outside && !leg.src.name.is_empty() {
        format!("\"{}\" <{}>", leg.src.name, leg.src.number)
    } else {
        leg.src.name.clone()
    }
}

fn terminated_by(leg: &LegUpdate) -> &'static str {
    let over = matches!(leg.event, EventName::Missed | EventName::Failed | EventName::Hangup);
    match leg.terminated_by.filter(|_| over) {
        Some(TerminatedBy::Caller) => "caller",
        Some(TerminatedBy::Callee) => "callee",
        Some(TerminatedBy::System) => "system",
        None => "",
    }
}

fn utc(at: Micros) -> String {
    match Timestamp::from_microsecond(at.0) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => String::new(),
    }
}

/// The text, with each value cut shorter until it fits.
fn bounded(body: impl Fn(usize) -> String) -> String {
    let mut most = MOST;
    loop {
        let text = body(most);
        if text.len() <= MOST || most == 0 {
            return text;
        }
        most /= 2;
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn json(body: &impl Serialize) -> String {
    // text keys and plain values: there is nothing that could fail
    serde_json::to_string(body).unwrap_or_default()
}
