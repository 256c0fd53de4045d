//! What we write, and what we refuse to write.

use bytes::BytesMut;
use parsers::ami::{Action, ActionError, Codec};
use proptest::prelude::*;
use tokio_util::codec::Encoder;

fn written(action: Action) -> String {
    let mut bytes = BytesMut::new();
    Codec::default().encode(action, &mut bytes).expect("never fails");
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn actions_are_written_line_by_line() {
    let key = "0123456789abcdef0123456789abcdef";
    let table: Vec<(Result<Action, ActionError>, &str)> = vec![
        (Ok(Action::challenge()), "Action: Challenge\r\nAuthType: MD5\r\n\r\n"),
        (
            Action::login_md5("callpost", key),
            "Action: Login\r\nAuthType: MD5\r\nEvents: system\r\nUsername: callpost\r\nKey: 0123456789abcdef0123456789abcdef\r\n\r\n",
        ),
        (
            Action::login_plain("callpost", "s"),
            "Action: Login\r\nEvents: system\r\nUsername: callpost\r\nSecret: s\r\n\r\n",
        ),
        (Action::events("on"), "Action: Events\r\nEventMask: on\r\n\r\n"),
        (Action::ping().with_id("p1"), "Action: Ping\r\nActionID: p1\r\n\r\n"),
        (Ok(Action::logoff()), "Action: Logoff\r\n\r\n"),
        (Ok(Action::core_settings()), "Action: CoreSettings\r\n\r\n"),
        (Ok(Action::core_status()), "Action: CoreStatus\r\n\r\n"),
        (Ok(Action::core_show_channels()), "Action: CoreShowChannels\r\n\r\n"),
        (
            Action::status(&["CDR(start,u)", "FROM_DID"]),
            "Action: Status\r\nVariables: CDR(start,u),FROM_DID\r\n\r\n",
        ),
        (Action::status(&[]), "Action: Status\r\n\r\n"),
        (Ok(Action::bridge_list()), "Action: BridgeList\r\n\r\n"),
        (Ok(Action::queue_status()), "Action: QueueStatus\r\n\r\n"),
        (Ok(Action::pjsip_show_endpoints()), "Action: PJSIPShowEndpoints\r\n\r\n"),
        (
            Action::originate("PJSIP/1001", "from-internal", "92125551234"),
            "Action: Originate\r\nAsync: true\r\nPriority: 1\r\nChannel: PJSIP/1001\r\nContext: from-internal\r\nExten: 92125551234\r\n\r\n",
        ),
        (
            Action::redirect("PJSIP/1001-00000001", "c", "2002"),
            "Action: Redirect\r\nPriority: 1\r\nChannel: PJSIP/1001-00000001\r\nContext: c\r\nExten: 2002\r\n\r\n",
        ),
        (
            Action::blind_transfer("PJSIP/1001-00000001", "c", "2002"),
            "Action: BlindTransfer\r\nChannel: PJSIP/1001-00000001\r\nContext: c\r\nExten: 2002\r\n\r\n",
        ),
        (Action::hangup("PJSIP/1001-00000001"), "Action: Hangup\r\nChannel: PJSIP/1001-00000001\r\n\r\n"),
        (Action::getvar(Some("PJSIP/1"), "X"), "Action: Getvar\r\nChannel: PJSIP/1\r\nVariable: X\r\n\r\n"),
        (
            Action::getvar(None, "DIALPLAN_EXISTS(a,b,1)"),
            "Action: Getvar\r\nVariable: DIALPLAN_EXISTS(a,b,1)\r\n\r\n",
        ),
    ];
    for (action, wanted) in table {
        assert_eq!(written(action.expect("allowed")), wanted);
    }
}

#[test]
fn nothing_from_outside_adds_a_header_or_an_action() {
    for evil in ["1\r\nAction: Originate", "1\nX: y", "1\rX: y", "1\0", "\r\n\r\nAction: Logoff\r\n\r\n"] {
        assert_eq!(Action::redirect("PJSIP/1", "c", evil), Err(ActionError::LineBreak("Exten")));
        assert_eq!(Action::hangup(evil), Err(ActionError::LineBreak("Channel")));
        assert_eq!(Action::ping().with_id(evil), Err(ActionError::BadActionId));
        assert_eq!(Action::ping().header("ActionID", evil), Err(ActionError::BadActionId));
        assert_eq!(Action::status(&["X", evil]), Err(ActionError::LineBreak("Variables")));
    }
    assert_eq!(Action::hangup("/.*/"), Err(ActionError::Pattern));
}

#[test]
fn asterisks_limits_are_ours() {
    let fits = "v".repeat(Action::MAX_LINE - "Data: \r\n".len());
    assert!(Action::new("X").header("Data", fits.clone()).is_ok());
    assert_eq!(Action::new("X").header("Data", fits + "v"), Err(ActionError::TooLong("Data")));
    let mut action = Action::new("X").with_id("1").expect("an id");
    for _ in 0..Action::MAX_HEADERS - 2 {
        action = action.header("Variable", "a=1").expect("below the limit");
    }
    assert_eq!(action.headers().count(), Action::MAX_HEADERS);
    assert_eq!(action.header("Variable", "a=1"), Err(ActionError::TooManyHeaders));
    for bad in ["", "with blank", "ünï", &"x".repeat(33)] {
        assert_eq!(Action::ping().with_id(bad), Err(ActionError::BadActionId));
    }
}

#[test]
fn secrets_are_not_shown() {
    let plain = Action::login_plain("callpost", "hunter2").expect("allowed");
    let md5 = Action::login_md5("callpost", "hunter2").expect("allowed");
    for shown in [format!("{plain:?}"), format!("{md5:#?}")] {
        assert!(!shown.contains("hunter2") && shown.contains("callpost"), "{shown}");
    }
}

proptest! {
    #[test]
    fn no_value_makes_a_second_action(value in any::<String>()) {
        if let Ok(action) = Action::new("X").header("Data", value) {
            let text = written(action);
            prop_assert_eq!(text.matches("\r\n").count(), 3);
            prop_assert!(text.ends_with("\r\n\r\n"));
        }
    }
}
