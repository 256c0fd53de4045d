//! Identities and times.

use std::cmp::Ordering;

use parsers::{ChannelName, Linkedid, Micros, Uniqueid};
use proptest::prelude::*;

#[test]
fn times_are_read_to_the_microsecond() {
    for (text, micros) in [
        ("1795252767.935415", Some(1_795_252_767_935_415)),
        ("1795252767", Some(1_795_252_767_000_000)),
        ("1795252767.5", Some(1_795_252_767_500_000)),
        ("0.000000", Some(0)),
        ("0.000001", Some(1)),
        ("", None),
        (".5", None),
        ("1.", None),
        ("1.1234567", None),
        ("1.12a", None),
        ("-1.5", None),
        ("+1.5", None),
        (" 1.5", None),
        ("1 5", None),
        ("99999999999999999999.0", None),
        ("9223372036854775807.0", None),
    ] {
        assert_eq!(Micros::parse(text), micros.map(Micros), "{text:?}");
    }
}

#[test]
fn ids_have_an_epoch_where_asterisk_made_them() {
    for (id, epoch) in [
        ("1795252767.0", Some((1_795_252_767, 0))),
        ("pbx-1-1795252767.42", Some((1_795_252_767, 42))),
        ("999999999.1", Some((999_999_999, 1))),
        ("callpost-c2c-1", None),
        ("-1795252767.1", None),
        ("1795252767", None),
        ("1795252767.", None),
        ("1795252767.1x", None),
        ("12345.1", None),
        ("17952527670.1", None),
        ("", None),
    ] {
        assert_eq!(Uniqueid::new(id).epoch(), epoch, "{id:?}");
        assert_eq!(Linkedid::new(id).epoch(), epoch, "{id:?}");
    }
}

#[test]
fn ids_are_ordered_by_number() {
    let mut ids =
        ["b", "1795252767.10", "a", "1795252766.99", "1795252767.9", "x-1795252767.9"].map(Uniqueid::new);
    ids.sort();
    assert_eq!(
        ids.each_ref().map(Uniqueid::as_str),
        ["1795252766.99", "1795252767.9", "x-1795252767.9", "1795252767.10", "a", "b"]
    );
}

#[test]
fn channels_have_technology_endpoint_and_halves() {
    for (name, tech, endpoint, pair) in [
        ("PJSIP/1001-0000002a", "PJSIP", "PJSIP/1001", None),
        ("PJSIP/my-trunk-00000012", "PJSIP", "PJSIP/my-trunk", None),
        ("PJSIP/my-trunk", "PJSIP", "PJSIP/my-trunk", None),
        ("SIP/out-0000abcd", "SIP", "SIP/out", None),
        ("DAHDI/i1/5551000-3", "DAHDI", "DAHDI/i1/5551000", None),
        ("IAX2/provider-1234", "IAX2", "IAX2/provider", None),
        ("Dongle/dongle0-0100000001", "Dongle", "Dongle/dongle0", None),
        (
            "Local/1001@from-queue-0000001b;1",
            "Local",
            "Local/1001@from-queue",
            Some("Local/1001@from-queue-0000001b"),
        ),
        (
            "Local/1001@from-queue-0000001b;2",
            "Local",
            "Local/1001@from-queue",
            Some("Local/1001@from-queue-0000001b"),
        ),
        ("Local/a;b@c-0000001b;2", "Local", "Local/a;b@c", Some("Local/a;b@c-0000001b")),
        ("Message/ast_msg_queue", "Message", "Message/ast_msg_queue", None),
        ("odd", "odd", "odd", None),
        ("", "", "", None),
    ] {
        let channel = ChannelName::new(name);
        assert_eq!(
            (channel.tech(), channel.endpoint(), channel.local_pair()),
            (tech, endpoint, pair),
            "{name:?}"
        );
    }
}

fn id() -> impl Strategy<Value = Uniqueid> {
    prop_oneof!["[a-z]{0,3}", "(x-)?179525276[0-9]\\.[0-9]{1,2}", "179525276[0-9]\\.0{0,2}[0-9]"]
        .prop_map(Uniqueid::new)
}

proptest! {
    #[test]
    fn ids_have_one_order(a in id(), b in id(), c in id()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        if let (Some(one), Some(other)) = (a.epoch(), b.epoch()) {
            prop_assert_eq!(a.cmp(&b), one.cmp(&other).then_with(|| a.as_str().cmp(b.as_str())));
        }
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }

    #[test]
    fn times_come_back(micros in 0_i64..4_000_000_000_000_000) {
        let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        prop_assert_eq!(Micros::parse(&text), Some(Micros(micros)));
    }

    #[test]
    fn any_text_is_an_id(text in any::<String>()) {
        let _ = Micros::parse(&text);
        let _ = Uniqueid::new(text.as_str()).epoch();
        let channel = ChannelName::new(text.as_str());
        prop_assert!(text.starts_with(channel.endpoint()) && text.starts_with(channel.tech()));
    }
}
