//! Signing of webhook requests by Standard Webhooks, version `v1`
//! (<https://github.com/standard-webhooks/standard-webhooks>, "Signature scheme").

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A symmetric key; never shown.
pub struct SigningKey(Hmac<Sha256>);

/// Why a configured secret is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 after the prefix.
    #[error("the signing secret is not whsec_ followed by base64: make one with `openssl rand -base64 32`")]
    NotBase64,
    /// Shorter than the specification allows.
    #[error("the signing secret holds fewer than 24 bytes: make one with `openssl rand -base64 32`")]
    TooShort,
}

/// The specification's lower bound for a symmetric secret, in bytes.
const SHORTEST_KEY: usize = 24;

impl SigningKey {
    /// From `whsec_<base64>`; the prefix may be left out, as the specification's libraries allow.
    ///
    /// # Errors
    /// When what follows is not base64, or too short to be a secret.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        let secret = secret.trim();
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(encoded).map_err(|_| KeyError::NotBase64)?;
        if key.len() < SHORTEST_KEY {
            return Err(KeyError::TooShort);
        }
        Hmac::new_from_slice(&key).map(Self).map_err(|_| KeyError::TooShort)
    }

    /// `v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`. The timestamp is in seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The value of `webhook-signature`: one signature a key, separated by spaces, so that a receiver
/// that knows any one of them accepts.
pub fn header(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    keys.iter().map(|key| key.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    /// The vector that the specification's reference libraries test themselves with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn signs_as_the_reference_libraries_do() {
        assert_eq!(SigningKey::parse(SECRET).unwrap().sign(ID, AT, BODY), SIGNATURE);
    }

    #[test]
    fn the_prefix_may_be_left_out() {
        let bare = SECRET.trim_start_matches("whsec_");
        assert_eq!(SigningKey::parse(bare).unwrap().sign(ID, AT, BODY), SIGNATURE);
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let old = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let keys = [SigningKey::parse(SECRET).unwrap(), SigningKey::parse(old).unwrap()];
        let value = header(&keys, ID, AT, BODY);
        let parts: Vec<_> = value.split(' ').collect();
        assert_eq!(parts, [SIGNATURE.to_owned(), keys[1].sign(ID, AT, BODY)]);
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_never_shown() {
        assert_eq!(SigningKey::parse("whsec_no base64!").unwrap_err(), KeyError::NotBase64);
        assert_eq!(SigningKey::parse("whsec_c2hvcnQ=").unwrap_err(), KeyError::TooShort);
        assert_eq!(SigningKey::parse("").unwrap_err(), KeyError::TooShort);
        assert_eq!(format!("{:?}", SigningKey::parse(SECRET).unwrap()), "SigningKey(..)");
    }
}
