//! Signing of webhook requests by Standard Webhooks: `v1` (HMAC-SHA256) with a secret that both sides
//! hold, `v1a` (ed25519) with a key whose public half the receiver holds
//! (<https://github.com/standard-webhooks/standard-webhooks>, "Signature scheme").

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::Sha256;

/// A key to sign with; never shown.
pub struct SigningKey(Scheme);

enum Scheme {
    /// `whsec_`: `v1`.
    Symmetric(Hmac<Sha256>),
    /// `whsk_`: `v1a`.
    Asymmetric(Box<Ed25519KeyPair>),
}

/// Why a configured secret is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 after the prefix.
    #[error(
        "the signing secret is not whsec_ or whsk_ followed by base64: make one with `openssl rand -base64 32`"
    )]
    NotBase64,
    /// Shorter than the specification allows.
    #[error("the signing secret holds fewer than 24 bytes: make one with `openssl rand -base64 32`")]
    TooShort,
    /// After `whsk_`, neither a seed nor a seed with its public key.
    #[error(
        "the signing key whsk_ is no ed25519 key: 32 random bytes, or those and the public key they make, 64 bytes"
    )]
    NotEd25519,
    /// What the receiver is to have.
    #[error("whpk_ is a public key, which verifies and cannot sign: give the whsk_ that belongs to it")]
    Public,
}

/// The specification's lower bound for a symmetric secret, in bytes.
const SHORTEST_KEY: usize = 24;
/// An ed25519 private key (RFC 8032).
const SEED: usize = 32;

impl SigningKey {
    /// From `whsec_<base64>`, whose prefix may be left out, as the specification's libraries allow, or
    /// `whsk_<base64>`: the 32 bytes of an ed25519 private key, or those and its public key.
    ///
    /// # Errors
    /// When what follows is not base64, or no key.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        let secret = secret.trim();
        if secret.starts_with("whpk_") {
            return Err(KeyError::Public);
        }
        if let Some(encoded) = secret.strip_prefix("whsk_") {
            let key = STANDARD.decode(encoded).map_err(|_| KeyError::NotBase64)?;
            return match key.split_at_checked(SEED) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
                Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
                None => return Err(KeyError::NotEd25519),
            }
            .map(|pair| Self(Scheme::Asymmetric(Box::new(pair))))
            .map_err(|_| KeyError::NotEd25519);
        }
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(encoded).map_err(|_| KeyError::NotBase64)?;
        if key.len() < SHORTEST_KEY {
            return Err(KeyError::TooShort);
        }
        let mac = Hmac::new_from_slice(&key).map_err(|_| KeyError::TooShort)?;
        Ok(Self(Scheme::Symmetric(mac)))
    }

    /// Over `id.timestamp.body`, in base64: `v1,<HMAC-SHA256>` or `v1a,<ed25519>`. The timestamp is in
    /// seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        match &self.0 {
            Scheme::Symmetric(key) => {
                let mut mac = key.clone();
                mac.update(head.as_bytes());
                mac.update(body);
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            }
            Scheme::Asymmetric(pair) => {
                let signed = [head.as_bytes(), body].concat();
                format!("v1a,{}", STANDARD.encode(pair.sign(&signed)))
            }
        }
    }

    /// `whpk_<base64>`, what a receiver verifies `v1a` by; a symmetric key has none.
    pub fn public(&self) -> Option<String> {
        match &self.0 {
            Scheme::Symmetric(_) => None,
            Scheme::Asymmetric(pair) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key()))),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The value of `webhook-signature`: one signature a key, separated by spaces, so that a receiver
/// that knows any one of them accepts.
pub fn header<'a>(
    keys: impl IntoIterator<Item = &'a SigningKey>,
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> String {
    keys.into_iter().map(|key| key.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
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

    /// Each of them was made by another implementation; its source is in the file.
    #[test]
    fn signs_as_the_vectors_of_the_repository_say() {
        let text = include_str!("../../fixtures/signatures/vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert!(vectors.len() >= 5);
        for vector in vectors {
            let field = |name: &str| vector[name].as_str().unwrap();
            let key = SigningKey::parse(field("key")).unwrap();
            let at = vector["timestamp"].as_i64().unwrap();
            assert_eq!(key.sign(field("id"), at, field("body").as_bytes()), field("signature"), "{vector}");
            assert_eq!(key.public().as_deref(), vector["public"].as_str(), "{vector}");
        }
    }

    #[test]
    fn a_private_key_may_carry_its_public_half_if_they_belong_together() {
        let seed = [7; 32];
        let bare = SigningKey::parse(&format!("whsk_{}", STANDARD.encode(seed))).unwrap();
        let public = STANDARD.decode(bare.public().unwrap().trim_start_matches("whpk_")).unwrap();
        let whole = [&seed[..], &public].concat();
        let whole = SigningKey::parse(&format!("whsk_{}", STANDARD.encode(whole))).unwrap();
        assert_eq!(whole.sign(ID, AT, BODY), bare.sign(ID, AT, BODY));
        let wrong = STANDARD.encode([[7; 32], [8; 32]].concat());
        assert_eq!(SigningKey::parse(&format!("whsk_{wrong}")).unwrap_err(), KeyError::NotEd25519);
        let short = STANDARD.encode([7; 31]);
        assert_eq!(SigningKey::parse(&format!("whsk_{short}")).unwrap_err(), KeyError::NotEd25519);
        assert_eq!(SigningKey::parse(&bare.public().unwrap()).unwrap_err(), KeyError::Public);
        assert_eq!(format!("{bare:?}"), "SigningKey(..)");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_never_shown() {
        assert_eq!(SigningKey::parse("whsec_no base64!").unwrap_err(), KeyError::NotBase64);
        assert_eq!(SigningKey::parse("whsec_c2hvcnQ=").unwrap_err(), KeyError::TooShort);
        assert_eq!(SigningKey::parse("").unwrap_err(), KeyError::TooShort);
        assert_eq!(format!("{:?}", SigningKey::parse(SECRET).unwrap()), "SigningKey(..)");
    }
}
