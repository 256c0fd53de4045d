//! One HTTP exchange of a sink: bounded in time and size, to an address that may be connected to.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;
use url::{Host as UrlHost, Position};

use super::address::{self, Host, Refusal};
use crate::config::Delivery;
use crate::tls::{TlsSettings, client_config};

/// Connecting takes longer than this only where nobody will answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer than this says nothing that we would act on.
const MAX_ANSWER: usize = 16 * 1024;
/// Headers above this are refused: over HTTP/2 while they come, over HTTP/1 once hyper has read them,
/// which it does up to about 400 KiB.
const MAX_HEADERS: u32 = 16 * 1024;
const IDLE: Duration = Duration::from_secs(60);

/// What a receiver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The header's value, as it came.
    pub retry_after: Option<String>,
    /// At most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
    /// Whether that is all of it; not where it was longer, or broke off.
    pub whole: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client cannot be made as configured.
    Unusable(String),
    /// The address policy refuses to connect.
    Forbidden(String),
    /// The receiver's certificate was not accepted.
    Certificate(String),
    /// DNS, connect, TLS handshake, timeout, reset.
    Unreachable(String),
}

/// A client for one sink, made at its first use.
pub struct Http {
    settings: Arc<Settings>,
    client: OnceCell<Client>,
}

struct Settings {
    delivery: Delivery,
    tls: TlsSettings,
    /// One cookie jar for the client's life.
    cookies: bool,
    /// Plain http only to a loopback address that the URL itself names.
    http_to_loopback_only: bool,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("host", &self.host()).finish_non_exhaustive()
    }
}

impl Http {
    /// For NiMbox: cookies are kept where `cookies` says so; plain http wherever it is allowed.
    pub fn for_nimbox(delivery: Delivery, cookies: bool) -> Self {
        let tls = TlsSettings { ca_file: delivery.ca_file.clone(), pin: delivery.pin.clone(), client: None };
        Self::new(Settings { delivery, tls, cookies, http_to_loopback_only: false })
    }

    /// For webhooks: plain http only to a literal loopback address.
    pub fn for_webhook(delivery: Delivery, client: Option<(std::path::PathBuf, std::path::PathBuf)>) -> Self {
        let tls = TlsSettings { ca_file: delivery.ca_file.clone(), pin: delivery.pin.clone(), client };
        Self::new(Settings { delivery, tls, cookies: false, http_to_loopback_only: true })
    }

    fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), client: OnceCell::new() }
    }

    /// Host and port, for logs: the rest of a URL may be secret.
    pub fn host(&self) -> String {
        let url = &self.settings.delivery.url;
        match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        }
    }

    /// Takes out what a receiver or an error may repeat of the URL and the configured headers.
    pub fn redact(&self, text: &str) -> String {
        let delivery = &self.settings.delivery;
        let url = &delivery.url;
        let text = without(text, url.as_str(), "[url]");
        let mut text = without(&text, &url[Position::BeforePath..], "[url]");
        for (_, value) in &delivery.headers {
            text = without(&text, value.expose_secret(), "[header]");
        }
        text
    }

    /// Makes one exchange. The whole of it, the answer's body included, ends within the timeout.
    /// A body that is too long, too slow or breaks off is an answer that is not whole.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn exchange(&self, request: impl FnOnce(&Client) -> RequestBuilder) -> Result<Answer, Failure> {
        let client = self.client().await.map_err(|e| match e {
            Unusable::Configuration(why) => Failure::Unusable(why),
            Unusable::Address(why) => Failure::Forbidden(why),
        })?;
        let deadline = tokio::time::Instant::now() + self.settings.delivery.timeout;
        let mut response = match tokio::time::timeout_at(deadline, request(client).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failure(error)),
            Err(_) => return Err(Failure::Unreachable("no answer within the timeout".to_owned())),
        };
        let headers = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        if headers.sum::<usize>() > MAX_HEADERS as usize {
            return Err(Failure::Unreachable("the answer's headers are longer than 16 KiB".to_owned()));
        }
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        let mut whole = false;
        while let Ok(Ok(chunk)) = tokio::time::timeout_at(deadline, response.chunk()).await {
            let Some(chunk) = chunk else {
                whole = true;
                break;
            };
            let room = MAX_ANSWER - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                break;
            }
        }
        // dropping an answer that is not read to its end closes its connection
        Ok(Answer { status, retry_after, body, whole })
    }

    async fn client(&self) -> Result<&Client, Unusable> {
        self.client
            .get_or_try_init(|| async {
                let settings = Arc::clone(&self.settings);
                // reads certificate files
                let built = tokio::task::spawn_blocking(move || build(&settings)).await;
                built.unwrap_or_else(|e| Err(Unusable::Configuration(format!("the HTTP client: {e}"))))
            })
            .await
    }
}

enum Unusable {
    Configuration(String),
    Address(String),
}

fn build(settings: &Settings) -> Result<Client, Unusable> {
    let delivery = &settings.delivery;
    let host = check_url(settings)?;
    let mut tls = client_config(&settings.tls).map_err(Unusable::Configuration)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut headers = HeaderMap::new();
    for (name, value) in &delivery.headers {
        let (name, value) = header(name, value).map_err(Unusable::Configuration)?;
        headers.insert(name, value);
    }
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Guarded { host, public_only: delivery.public_only })
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .cookie_store(settings.cookies)
        .user_agent(concat!("callpost/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(CONNECT_TIMEOUT.min(delivery.timeout))
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(delivery.concurrency.max(1))
        .http2_max_header_list_size(MAX_HEADERS)
        .tcp_keepalive(IDLE)
        .build()
        .map_err(|e| Unusable::Configuration(format!("the HTTP client: {}", chain(&e.without_url()))))
}

/// Scheme and, where the host is an address already, the address.
fn check_url(settings: &Settings) -> Result<Host, Unusable> {
    let url = &settings.delivery.url;
    let literal = match url.host() {
        Some(UrlHost::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(UrlHost::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(UrlHost::Domain(_)) => None,
        None => return Err(Unusable::Configuration("the url has no host".to_owned())),
    };
    match url.scheme() {
        "https" => {}
        "http" if !settings.delivery.allow_http => {
            return Err(Unusable::Configuration(
                "the url is plain http: use https, or set allow_http = true on this sink".to_owned(),
            ));
        }
        "http" if settings.http_to_loopback_only && !literal.is_some_and(|ip| ip.is_loopback()) => {
            return Err(Unusable::Configuration(
                "a webhook over plain http is allowed only to a loopback address: use https".to_owned(),
            ));
        }
        "http" => {}
        other => return Err(Unusable::Configuration(format!("the url's scheme is {other}, not https"))),
    }
    let host =
        if literal.is_some() || url.host_str() == Some("localhost") { Host::Literal } else { Host::Name };
    if let Some(ip) = literal {
        address::check(ip, host, settings.delivery.public_only)
            .map_err(|refusal| Unusable::Address(Forbidden { address: ip, refusal }.to_string()))?;
    }
    Ok(host)
}

fn header(name: &str, value: &SecretString) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("headers: {name:?} is not a header's name"))?;
    let mut value = HeaderValue::from_str(value.expose_secret())
        .map_err(|_| format!("headers: the value of {name} holds characters that no header may"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Resolves with the system's resolver and passes on only what may be connected to.
struct Guarded {
    host: Host,
    public_only: bool,
}

/// An address that the policy refuses.
#[derive(Debug)]
struct Forbidden {
    address: IpAddr,
    refusal: Refusal,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host is at {}, {}", self.address, self.refusal)
    }
}

impl StdError for Forbidden {}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, public_only) = (self.host, self.public_only);
        Box::pin(async move {
            let mut allowed = Vec::new();
            let mut forbidden = None;
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match address::check(address.ip(), host, public_only) {
                    Ok(()) => allowed.push(address),
                    Err(refusal) => forbidden = Some(Forbidden { address: address.ip(), refusal }),
                }
            }
            match forbidden {
                Some(forbidden) if allowed.is_empty() => Err(forbidden.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// The text without this secret. What is shorter than four bytes is in any text, and no secret.
pub(super) fn without(text: &str, secret: &str, shown: &str) -> String {
    if secret.len() < 4 { text.to_owned() } else { text.replace(secret, shown) }
}

fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(forbidden) = current.downcast_ref::<Forbidden>() {
            return Failure::Forbidden(forbidden.to_string());
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = current.downcast_ref() {
            return Failure::Certificate(format!("the receiver's certificate is not accepted: {why}"));
        }
        cause = inner(current);
    }
    if error.is_builder() || error.is_request() && error.is_redirect() {
        return Failure::Unusable(chain(&error));
    }
    Failure::Unreachable(chain(&error))
}

/// The cause; an `io::Error` that wraps another error hides it from `source`.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// The error with its causes, each said once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = inner(error);
    while let Some(current) = cause {
        let said = current.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner(current);
    }
    text
}
