//! The bodies of webhooks: the attributes of VoIPstudio's sample in its order, then ours.

use jiff::Timestamp;
use parsers::Micros;
use serde::Serialize;

use crate::calls::{
    CONCEALED, CallKey, Context, Direction, EventName, LegState, LegUpdate, Party, SmsUpdate, TerminatedBy,
    Update, UpdateBody, UpdateId,
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
        src: Party {
            number: "447854740947".to_owned(),
            id: 0,
            name: "\"442035141598\" <2035141598>".to_owned(),
        },
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
            digit: leg.digit.map(|(digit, _)| if mask { CONCEALED } else { digit }),
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

/// An outside caller's name has the sample's form, unless it comes so; users have plain names.
fn src_name(leg: &LegUpdate) -> String {
    let outside = leg.direction == Direction::In && leg.src.id == 0;
    let formed = leg.src.name.starts_with('"') && leg.src.name.ends_with('>');
    if outside && !formed && !leg.src.name.is_empty() {
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

/// The text, with each value cut shorter until it fits. It is kept as a text within JSON, where its
/// quotes and backslashes count twice.
fn bounded(body: impl Fn(usize) -> String) -> String {
    let kept = |text: &str| text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let mut most = MOST;
    loop {
        let text = body(most);
        if kept(&text) <= MOST || most == 0 {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Delivery;

    fn webhook(events: &[&str]) -> Webhook {
        Webhook {
            name: "helpdesk".to_owned(),
            delivery: Delivery {
                enabled: true,
                url: url::Url::parse("https://hooks.example.com/").unwrap_or_else(|_| unreachable!()),
                concurrency: 4,
                timeout: Duration::from_secs(15),
                retry_for: Duration::from_secs(75 * 3600),
                rate: None,
                ca_file: None,
                pin: None,
                public_only: false,
                allow_http: false,
                headers: Vec::new(),
            },
            events: events.iter().map(|&event| event.to_owned()).collect(),
            secret: None,
            secret_previous: None,
            dtmf_mask: false,
            verify: true,
            client_cert_file: None,
            client_key_file: None,
        }
    }

    /// 2021-04-28 08:46:13 UTC.
    const AT: Micros = Micros(1_619_599_573_900_000);

    /// The sample of VoIPstudio's documentation.
    fn sample() -> LegUpdate {
        LegUpdate {
            event: EventName::Hangup,
            call_id: 139_543_232,
            parent_id: None,
            state: LegState::Hangup,
            context: Context::LocalUser,
            direction: Direction::In,
            start: AT.plus_millis(-18_000),
            connected: Some(AT.plus_millis(-11_000)),
            duration: 11,
            cause: "Normal Clearing".to_owned(),
            clid: "\"442035141598\" <2035141598>".to_owned(),
            src: Party { number: "2035141598".to_owned(), id: 0, name: "442035141598".to_owned() },
            dst: Party { number: "441183211001".to_owned(), id: 10_002, name: "John Smith".to_owned() },
            info: String::new(),
            terminated_by: Some(TerminatedBy::Callee),
            digit: None,
        }
    }

    fn update(body: UpdateBody) -> Update {
        Update {
            id: UpdateId("uk003.608920d55f7ac3.77053295".into()),
            call: CallKey("fe5935cefbc82fc4e924bdaa21342a49c18c5dd9".into()),
            at: AT,
            body,
        }
    }

    fn leg(events: &[&str], leg: LegUpdate) -> Option<(&'static str, String)> {
        render(&webhook(events), &update(UpdateBody::Leg(Box::new(leg))))
    }

    fn body(update: LegUpdate) -> String {
        leg(&["call.state", "call.dtmf"], update).map(|(_, body)| body).unwrap_or_default()
    }

    #[test]
    fn an_ended_call_has_every_attribute_in_the_order_of_the_sample() {
        insta::assert_snapshot!(body(sample()), @r#"{"id":"uk003.608920d55f7ac3.77053295","event_time":"2021-04-28 08:46:13","event_name":"call.hangup","call_id":139543232,"state":"HANGUP","connected_at":"2021-04-28 08:46:02","start_time":"2021-04-28 08:45:55","context":"LOCAL_USER","destination":"in","duration":11,"t_cause":"Normal Clearing","src":"2035141598","src_id":"0","src_name":"\"442035141598\" <2035141598>","src_hash":"fe5935cefbc82fc4e924bdaa21342a49c18c5dd9","dst":"441183211001","dst_id":"10002","dst_name":"John Smith","clid":"\"442035141598\" <2035141598>","info":"","terminated_by":"callee","parent_id":null}"#);
    }

    #[test]
    fn what_is_unknown_is_empty_and_what_has_not_happened_is_null_or_0() {
        let update = LegUpdate {
            event: EventName::Initial,
            state: LegState::Initial,
            parent_id: Some(7),
            connected: None,
            duration: 0,
            cause: String::new(),
            clid: String::new(),
            src: Party::default(),
            dst: Party { number: "1001".to_owned(), ..Party::default() },
            // said too early by whoever made the update
            terminated_by: Some(TerminatedBy::Caller),
            ..sample()
        };
        insta::assert_snapshot!(body(update), @r#"{"id":"uk003.608920d55f7ac3.77053295","event_time":"2021-04-28 08:46:13","event_name":"call.initial","call_id":139543232,"state":"INITIAL","connected_at":null,"start_time":"2021-04-28 08:45:55","context":"LOCAL_USER","destination":"in","duration":0,"t_cause":"","src":"","src_id":"0","src_name":"","src_hash":"fe5935cefbc82fc4e924bdaa21342a49c18c5dd9","dst":"1001","dst_id":"0","dst_name":"","clid":"","info":"","terminated_by":"","parent_id":7}"#);
    }

    #[test]
    fn digits_carry_who_pressed_them_and_can_be_masked() {
        let dtmf = LegUpdate {
            event: EventName::Dtmf,
            state: LegState::Connected,
            direction: Direction::Out,
            duration: 0,
            cause: String::new(),
            src: Party { number: "1001".to_owned(), id: 10_001, name: "Ana Pérez".to_owned() },
            dst: Party { number: "04145550100".to_owned(), ..Party::default() },
            clid: String::new(),
            terminated_by: None,
            digit: Some(('#', TerminatedBy::Callee)),
            ..sample()
        };
        insta::assert_snapshot!(body(dtmf.clone()), @r##"{"id":"uk003.608920d55f7ac3.77053295","event_time":"2021-04-28 08:46:13","event_name":"call.dtmf","call_id":139543232,"state":"CONNECTED","connected_at":"2021-04-28 08:46:02","start_time":"2021-04-28 08:45:55","context":"LOCAL_USER","destination":"out","duration":0,"t_cause":"","src":"1001","src_id":"10001","src_name":"Ana Pérez","src_hash":"fe5935cefbc82fc4e924bdaa21342a49c18c5dd9","dst":"04145550100","dst_id":"0","dst_name":"","clid":"","info":"","terminated_by":"","parent_id":null,"digit":"#","digit_by":"callee"}"##);
        let masked = Webhook { dtmf_mask: true, ..webhook(&["call.dtmf"]) };
        let update = update(UpdateBody::Leg(Box::new(dtmf)));
        let body = render(&masked, &update).map(|(_, body)| body).unwrap_or_default();
        assert!(body.ends_with(r#""digit":"*","digit_by":"callee"}"#), "{body}");
    }

    #[test]
    fn a_text_received_has_its_own_attributes() {
        let sms = SmsUpdate {
            customer_id: 17,
            user_id: None,
            from: "+584145550100".to_owned(),
            to: "02125550101".to_owned(),
            text: "¿mañana?\n\"sí\"".to_owned(),
        };
        let update = update(UpdateBody::Sms(sms));
        assert_eq!(render(&webhook(&["call.state"]), &update), None);
        let (event, body) = render(&webhook(&["sms.received"]), &update).unwrap_or_default();
        assert_eq!(event, "sms.received");
        insta::assert_snapshot!(body, @r#"{"id":"uk003.608920d55f7ac3.77053295","event_time":"2021-04-28 08:46:13","event_name":"sms.received","customer_id":17,"user_id":null,"from_no":"+584145550100","to_no":"02125550101","text":"¿mañana?\n\"sí\""}"#);
    }

    #[test]
    fn a_text_of_quotes_fits_into_the_journal_where_each_counts_twice() {
        let sms = SmsUpdate {
            customer_id: 17,
            user_id: None,
            from: "\"".repeat(256),
            to: "\\".repeat(256),
            text: "\"".repeat(4096),
        };
        let update = update(UpdateBody::Sms(sms));
        let (_, body) = render(&webhook(&["sms.received"]), &update).unwrap_or_default();
        assert!(body.contains("sms.received"));
        let kept = serde_json::to_string(&body).unwrap_or_default();
        assert!(kept.len() < 13 * 1024, "{} bytes", kept.len());
    }

    #[test]
    fn the_test_event_is_a_complete_sample() {
        let id = UpdateId("hq.00000000000000.0".into());
        insta::assert_snapshot!(test_body(&id, AT), @r#"{"id":"hq.00000000000000.0","event_time":"2021-04-28 08:46:13","event_name":"test","call_id":139543232,"state":"HANGUP","connected_at":"2021-04-28 08:46:02","start_time":"2021-04-28 08:45:55","context":"LOCAL_USER","destination":"in","duration":11,"t_cause":"Normal Clearing","src":"447854740947","src_id":"0","src_name":"\"442035141598\" <2035141598>","src_hash":"fe5935cefbc82fc4e924bdaa21342a49c18c5dd9","dst":"441183211001","dst_id":"10002","dst_name":"John Smith","clid":"\"442035141598\" <2035141598>","info":"test","terminated_by":"caller","parent_id":null}"#);
    }

    #[test]
    fn who_gets_what() {
        use Context::{LocalUser, Queue};
        let state = ["call.state"];
        let all = [
            "call.initial",
            "call.ringing",
            "call.missed",
            "call.connected",
            "call.failed",
            "call.hangup",
            "call.hold",
            "call.unhold",
            "call.dtmf",
            "sms.received",
        ];
        let table: [(EventName, Context, bool, bool); 12] = [
            // event, context, state subscribers, subscribers to every name
            (EventName::Initial, LocalUser, true, true),
            (EventName::Ringing, LocalUser, true, true),
            (EventName::Missed, LocalUser, true, true),
            (EventName::Connected, LocalUser, true, true),
            (EventName::Failed, LocalUser, true, true),
            (EventName::Hangup, LocalUser, true, true),
            (EventName::Hold, LocalUser, true, true),
            (EventName::Unhold, LocalUser, true, true),
            (EventName::Dtmf, LocalUser, false, true),
            (EventName::Accepted, LocalUser, false, false),
            (EventName::Missed, Queue, true, false),
            (EventName::Dtmf, Queue, false, false),
        ];
        for (event, context, by_state, by_name) in table {
            let update = LegUpdate { event, context, ..sample() };
            assert_eq!(
                leg(&state, update.clone()).is_some(),
                by_state,
                "{event:?} {context:?} by call.state"
            );
            assert_eq!(leg(&all, update.clone()).is_some(), by_name, "{event:?} {context:?} by name");
            assert_eq!(leg(&[], update), None);
        }
    }

    #[test]
    fn no_body_is_above_what_the_journal_takes() {
        let long = "\u{1}ñ".repeat(50_000);
        let party = Party { number: long.clone(), id: 1, name: long.clone() };
        let update_of = LegUpdate {
            cause: long.clone(),
            clid: long.clone(),
            src: party.clone(),
            dst: party,
            info: long.clone(),
            ..sample()
        };
        assert!(body(update_of).len() <= MOST);
        let sms =
            SmsUpdate { customer_id: 0, user_id: None, from: long.clone(), to: long.clone(), text: long };
        let text = render(&webhook(&["sms.received"]), &update(UpdateBody::Sms(sms)));
        assert!(text.is_some_and(|(_, body)| body.len() <= MOST));
    }

    #[test]
    fn a_long_text_is_whole_where_it_fits() {
        let sms = SmsUpdate {
            customer_id: 0,
            user_id: None,
            from: String::new(),
            to: String::new(),
            text: "x".repeat(10_000),
        };
        let (_, body) =
            render(&webhook(&["sms.received"]), &update(UpdateBody::Sms(sms))).unwrap_or_default();
        assert!(body.contains(&"x".repeat(10_000)));
    }
}
