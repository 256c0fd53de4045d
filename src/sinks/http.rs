//! One HTTP exchange of a sink: bounded in time and size, to an address that may be connected to.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
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
/// Shorter parts of a URL are words.
const LIKE_A_TOKEN: usize = 12;
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
    names: Names,
}

/// Who says which addresses a name has.
#[derive(Clone, Default)]
enum Names {
    /// The system's resolver.
    #[default]
    System,
    /// A test: the next answer to each question.
    #[cfg(test)]
    Told(Arc<std::sync::Mutex<std::collections::VecDeque<Vec<IpAddr>>>>),
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
        Self::new(Settings { delivery, tls, cookies, http_to_loopback_only: false, names: Names::System })
    }

    /// For webhooks: plain http only to a literal loopback address.
    pub fn for_webhook(delivery: Delivery, client: Option<(std::path::PathBuf, std::path::PathBuf)>) -> Self {
        let tls = TlsSettings { ca_file: delivery.ca_file.clone(), pin: delivery.pin.clone(), client };
        Self::new(Settings {
            delivery,
            tls,
            cookies: false,
            http_to_loopback_only: true,
            names: Names::System,
        })
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
        let mut text = text.to_owned();
        for part in [url.as_str(), &url[Position::BeforePath..], url.path(), url.query().unwrap_or_default()]
        {
            text = without(&text, part, "[url]");
        }
        // a token alone, as many receivers have one in the path or the query
        let values: Vec<_> = url.query_pairs().map(|(_, value)| value).collect();
        let segments = url.path_segments().into_iter().flatten();
        for part in segments.chain(values.iter().map(AsRef::as_ref)).filter(|part| part.len() >= LIKE_A_TOKEN)
        {
            text = without(&text, part, "[url]");
        }
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
        .dns_resolver(Guarded { host, public_only: delivery.public_only, names: settings.names.clone() })
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

/// Passes on only what may be connected to. The connection goes to the very address that was judged:
/// the name is not looked up a second time.
struct Guarded {
    host: Host,
    public_only: bool,
    names: Names,
}

impl Names {
    async fn look_up(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            // the connector puts the URL's port in place of 0
            Self::System => Ok(tokio::net::lookup_host((name, 0)).await?.collect()),
            #[cfg(test)]
            Self::Told(answers) => {
                let next = answers.lock().ok().and_then(|mut answers| answers.pop_front());
                Ok(next.unwrap_or_default().into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
            }
        }
    }
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
        let (host, public_only, names) = (self.host, self.public_only, self.names.clone());
        Box::pin(async move {
            let mut allowed = Vec::new();
            let mut forbidden = None;
            for address in names.look_up(name.as_str()).await? {
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{Environment, load_text};

    /// A sink at `https://hooks.example.com:PORT/`, whose name has these addresses, question by question.
    fn http(port: u16, more: &str, answers: &[&[&str]]) -> Http {
        let text = format!(
            "[pbx]\nname = \"hq\"\ntimezone = \"UTC\"\n[[webhook]]\nname = \"desk\"\n\
             url = \"https://hooks.example.com:{port}/\"\nevents = [\"call.state\"]\ntimeout = \"1 s\"\n{more}"
        );
        let delivery =
            load_text(&text, "test", &Environment::default()).unwrap().config.webhooks.remove(0).delivery;
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let told = Names::Told(Arc::new(Mutex::new(answers.iter().map(parse).collect())));
        let tls = TlsSettings { pin: delivery.pin.clone(), ..TlsSettings::default() };
        Http::new(Settings { delivery, tls, cookies: false, http_to_loopback_only: true, names: told })
    }

    async fn get(http: &Http) -> Result<Answer, Failure> {
        http.exchange(|client| client.get(http.settings.delivery.url.clone())).await
    }

    /// Counts connections.
    async fn listener() -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn no_name_leads_to_an_address_that_svix_refuses() {
        let (port, count) = listener().await;
        // is_allowed_test of svix-webhooks, webhook_http_client.rs
        let refused = [
            "10.254.0.0",
            "192.168.10.65",
            "172.16.10.65",
            "0.1.2.3",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.45.1",
            "255.255.255.255",
            "192.0.2.255",
            "198.51.100.65",
            "203.0.113.6",
            "100.100.0.0",
            "192.0.0.0",
            "192.0.0.255",
            "250.10.20.30",
            "198.18.0.0",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.1",
            "fe80::1",
            "fc00::1",
            "2001:db8::1",
            "::",
            "ff02::1",
        ];
        for address in refused {
            let answer = get(&http(port, "public_only = true", &[&[address]])).await;
            assert!(matches!(answer, Err(Failure::Forbidden(_))), "{address}: {answer:?}");
            // without it, private ranges are the administrator's choice, and loopback is not
            let ip: IpAddr = address.parse().unwrap();
            if ip.to_canonical().is_loopback() || ip.is_unspecified() || ip.is_multicast() {
                let answer = get(&http(port, "", &[&[address]])).await;
                assert!(matches!(answer, Err(Failure::Forbidden(_))), "{address}: {answer:?}");
            }
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 0);
        for address in ["1.1.1.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"] {
            assert_eq!(address::check(address.parse().unwrap(), Host::Name, true), Ok(()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_turns_to_another_address_is_judged_each_time_and_leads_nowhere() {
        let (port, count) = listener().await;
        // TEST-NET-3 stands for a public address: nobody answers there
        let rebinding = http(port, "", &[&["203.0.113.1"], &["127.0.0.1"], &["169.254.169.254"], &["::1"]]);
        let first = get(&rebinding).await;
        assert!(matches!(first, Err(Failure::Unreachable(_))), "{first:?}");
        for turn in 0..3 {
            let answer = get(&rebinding).await;
            assert!(matches!(answer, Err(Failure::Forbidden(_))), "turn {turn}: {answer:?}");
        }
        // among several, the forbidden ones are not tried
        let mixed = get(&http(port, "", &[&["127.0.0.1", "203.0.113.1"]])).await;
        assert!(matches!(mixed, Err(Failure::Unreachable(_))), "{mixed:?}");
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 0, "no connection was made");
    }
}
