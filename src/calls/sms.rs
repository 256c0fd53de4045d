//! Texts received: the `CallpostSMS` user event and those of GSM modems.
//!
//! The event's text is in base64, because `UserEvent()` splits at commas and raw CRLF would forge
//! events; so may be the addresses, since a display name may hold a comma.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parsers::ami::event::ModemSms;

use super::call::{CallKey, SmsUpdate, Update, UpdateBody};
use super::identity::{hash_id, src_hash, update_id};
use super::objects::MAX_TEXT;
use super::state::State;

/// The user event's name.
const CONVENTION: &str = "CallpostSMS";
/// Bytes kept of a text, so that its update fits into a record of the journal: 26 joined SMS.
const MAX_SMS: usize = 4096;

impl State {
    /// UserEvent: only the convention is a text; raw `Text:` fields are not believed.
    pub(super) fn user_event(&mut self, name: &str, headers: &[(Arc<str>, Arc<str>)]) {
        if name != CONVENTION {
            return;
        }
        let get = |key: &str| {
            let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            found.map_or("", |(_, value)| &**value)
        };
        let Some(text) = decode_base64(get("TextB64")) else {
            self.out.skipped.push("CallpostSMS whose TextB64 is not base64");
            return;
        };
        let address = |plain: &str, base64: &str| {
            let decoded = Some(get(base64)).filter(|text| !text.is_empty()).and_then(decode_base64);
            let text = decoded
                .map_or_else(|| get(plain).to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
            user_part(&text).to_owned()
        };
        let (from, to) = (address("From", "FromB64"), address("To", "ToB64"));
        self.text(from, to, String::from_utf8_lossy(&text).into_owned());
    }

    /// A modem's text; the receiver is the modem's own number.
    pub(super) fn modem_sms(&mut self, sms: &ModemSms) {
        let own = self.who.sms.devices.iter().find(|(device, _)| *device == *sms.device);
        let to = own.map(|(_, number)| number.clone()).unwrap_or_default();
        self.text(sms.from.to_string(), to, sms.text.clone());
    }

    fn text(&mut self, from: String, to: String, text: String) {
        let text = printable(&text, MAX_SMS);
        let (from, to) = (printable(&from, MAX_TEXT), printable(&to, MAX_TEXT));
        let pbx = self.who.pbx.name.clone();
        let when = self.at.0.to_string();
        let parts = [&*pbx, "sms", &when, &from, &to, &text];
        let (_, hex) = hash_id(&parts);
        let key = CallKey(src_hash(&pbx, &parts.join("\0")));
        self.out.calls.push(key.clone());
        self.out.updates.push(Update {
            id: update_id(&pbx, &hex, 0),
            call: key.clone(),
            at: self.at,
            body: UpdateBody::Sms(SmsUpdate {
                customer_id: self.who.sms.customer_id,
                user_id: self.who.user_id(&to),
                from,
                to,
                text,
            }),
        });
        self.out.ended.push(key);
    }
}

/// Cut to so many bytes, control characters but line breaks and tabs left out.
fn printable(text: &str, most: usize) -> String {
    let cut = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    cut.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).collect()
}

/// The user of `"Name" <sip:1001@host>`, `pjsip:1002@host` or a plain number.
fn user_part(address: &str) -> &str {
    let inner = match (address.rfind('<'), address.rfind('>')) {
        (Some(open), Some(close)) if open < close => address.get(open + 1..close).unwrap_or_default(),
        _ => address,
    };
    let inner = inner.trim();
    let user = inner.split_once(':').map_or(inner, |(_, user)| user);
    // what is left of an address in `${MESSAGE(from)}` of Asterisk 16
    let user = if matches!(user, "sip" | "sips" | "pjsip" | "tel") { "" } else { user };
    user.split(['@', ';']).next().unwrap_or_default()
}

/// RFC 4648 section 4, with or without padding; white space is skipped.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, lenient).decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_rfc_4648_section_10_has_it() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Zm9vYmE", "fooba"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(plain.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64("Zm9vY"), None);
        assert_eq!(decode_base64("hola, mundo"), None);
    }

    #[test]
    fn the_user_part_is_found_in_every_form_of_address() {
        for (address, user) in [
            ("<sip:1001@127.0.0.1>", "1001"),
            ("\"Ana\" <sip:1001@host;transport=udp>", "1001"),
            ("pjsip:1002@127.0.0.1", "1002"),
            ("584141234567", "584141234567"),
            ("<sip>", ""),
            ("", ""),
        ] {
            assert_eq!(user_part(address), user, "{address}");
        }
    }
}
