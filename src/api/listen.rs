//! HTTP over TCP (`api.listen`): open to whoever has the token, and to health probes.

use std::fmt;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::probes::Trusted;
use super::server::ApiError;

/// The token, as its hash: those of any two lengths compare alike.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    pub(super) fn new(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    /// `Authorization: Bearer TOKEN` (RFC 6750, 2.1). Takes as long whatever is wrong with it.
    fn opens(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
        });
        given.is_some_and(|given| bool::from(Sha256::digest(given).ct_eq(&self.0)))
    }
}

/// Binds the address.
pub(super) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), ApiError> {
    let failed = |why: std::io::Error| ApiError::Listen { address: address.to_owned(), why: why.to_string() };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// `closed` with the token alone; `open` to all, who are trusted if they have it.
pub(super) fn guarded(open: Router, closed: Router, token: Token) -> Router {
    let open = open.layer(middleware::from_fn_with_state(token.clone(), look));
    closed.layer(middleware::from_fn_with_state(token, guard)).merge(open)
}

async fn look(State(token): State<Token>, mut request: Request, next: Next) -> Response {
    if token.opens(request.headers()) {
        request.extensions_mut().insert(Trusted);
    }
    next.run(request).await
}

async fn guard(State(token): State<Token>, mut request: Request, next: Next) -> Response {
    if !token.opens(request.headers()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"callpost\"")];
        let why = "give the token of [api]: Authorization: Bearer TOKEN\n";
        return (StatusCode::UNAUTHORIZED, challenge, why).into_response();
    }
    request.extensions_mut().insert(Trusted);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    #[test]
    fn the_token_alone_opens() {
        let token = Token::new(&SecretString::from("s3cret"));
        for (given, opens) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer  s3cret ", true),
            ("Bearer s3cre", false),
            ("Bearer s3crets", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic s3cret", false),
            ("s3cret", false),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, given.parse().unwrap())]);
            assert_eq!(token.opens(&headers), opens, "{given}");
        }
        assert!(!token.opens(&HeaderMap::new()));
    }
}
