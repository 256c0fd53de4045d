//! A receiver on the loopback that does byte for byte what a test tells it, and keeps what it got.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What to do with one request.
#[derive(Clone)]
pub enum Reply {
    /// Writes this and keeps the connection.
    Say(Vec<u8>),
    /// Writes this and closes.
    SayAndClose(Vec<u8>),
    /// Writes this and then nothing more.
    SayAndHang(Vec<u8>),
    /// Writes the first, then the second over and over.
    Forever(Vec<u8>, Vec<u8>, Duration),
    /// 200 with this body, after so long.
    Later(String, Duration),
    /// Says nothing.
    Silence,
    /// Closes without an answer.
    Close,
    /// Resets the connection.
    Reset,
}

impl Reply {
    /// 200 with this body.
    pub fn ok(body: &str) -> Self {
        Self::Say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    /// A status without a body.
    pub fn status(status: &str) -> Self {
        let length = if status.starts_with("204") { "" } else { "content-length: 0\r\n" };
        Self::Say(format!("HTTP/1.1 {status}\r\n{length}\r\n").into_bytes())
    }

    pub fn raw(text: &str) -> Self {
        Self::SayAndHang(text.as_bytes().to_vec())
    }

    /// One header more.
    pub fn header(self, line: &str) -> Self {
        let Self::Say(bytes) = self else { panic!("not a plain answer") };
        let text = String::from_utf8(bytes).unwrap();
        let (first, rest) = text.split_once("\r\n").unwrap();
        Self::Say(format!("{first}\r\n{line}\r\n{rest}").into_bytes())
    }

    /// Closes that many bytes before the end.
    pub fn cut_body(self, bytes: usize) -> Self {
        let Self::Say(mut all) = self else { panic!("not a plain answer") };
        all.truncate(all.len() - bytes);
        Self::SayAndClose(all)
    }

    /// Stops that many bytes before the end.
    pub fn hang_body(self, bytes: usize) -> Self {
        let Self::Say(mut all) = self else { panic!("not a plain answer") };
        all.truncate(all.len() - bytes);
        Self::SayAndHang(all)
    }

    pub fn endless() -> Self {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Self::Forever(head.into(), format!("400\r\n{}\r\n", "x".repeat(1024)).into(), Duration::ZERO)
    }

    /// A header line every 50 ms, without end.
    pub fn dribble() -> Self {
        Self::Forever("HTTP/1.1 200 OK\r\n".into(), "x-a: b\r\n".into(), Duration::from_millis(50))
    }

    pub fn endless_headers() -> Self {
        let line = format!("x-a: {}\r\n", "b".repeat(1000));
        Self::Forever("HTTP/1.1 200 OK\r\n".into(), line.into(), Duration::ZERO)
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

type Script = Arc<dyn Fn(usize) -> Reply + Send + Sync>;

pub struct Receiver {
    port: u16,
    tls: bool,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
    count: watch::Sender<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// `script` is asked with the request's number, from 0.
    pub async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(script)).await
    }

    pub async fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(TlsAcceptor::from(tls)), Arc::new(script)).await
    }

    async fn listen(tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (count, _) = watch::channel(0);
        let served = Served { requests: Arc::clone(&requests), count: count.clone(), script };
        let is_tls = tls.is_some();
        let accepted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                *accepted.lock().unwrap() += 1;
                let (served, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => {
                            served.plain(socket).await;
                        }
                        Some(tls) => {
                            if let Ok(mut stream) = tls.accept(socket).await {
                                served.serve(&mut stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, tls: is_tls, requests, connections, count, task }
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", if self.tls { "https" } else { "http" }, self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn request(&self, n: usize) -> Request {
        self.requests()[n].clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Until so many requests have come, however long it takes in a time that is paused.
    pub async fn until(&self, requests: usize) {
        self.count.subscribe().wait_for(|count| *count >= requests).await.unwrap();
    }
}

#[derive(Clone)]
struct Served {
    requests: Arc<Mutex<Vec<Request>>>,
    count: watch::Sender<usize>,
    script: Script,
}

impl Served {
    async fn plain(&self, mut socket: TcpStream) {
        if self.serve(&mut socket).await {
            // a socket that lingers for no time resets its connection when it is closed
            let _ = socket.set_zero_linger();
        }
    }

    /// True: the connection is to be reset.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let mut seen = Vec::new();
        loop {
            let Some(request) = read(stream, &mut seen).await else { return false };
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(request);
                requests.len() - 1
            };
            self.count.send_replace(number + 1);
            match (self.script)(number) {
                Reply::Say(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return false;
                    }
                }
                Reply::SayAndClose(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    return false;
                }
                Reply::SayAndHang(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    hang(stream).await;
                    return false;
                }
                Reply::Forever(head, more, pause) => {
                    let mut alive = stream.write_all(&head).await.is_ok();
                    while alive {
                        alive = stream.write_all(&more).await.is_ok();
                        if !pause.is_zero() {
                            tokio::time::sleep(pause).await;
                        }
                    }
                    return false;
                }
                Reply::Later(body, pause) => {
                    tokio::time::sleep(pause).await;
                    let Reply::Say(bytes) = Reply::ok(&body) else { return false };
                    if stream.write_all(&bytes).await.is_err() {
                        return false;
                    }
                }
                Reply::Silence => {
                    hang(stream).await;
                    return false;
                }
                Reply::Close => return false,
                Reply::Reset => return true,
            }
        }
    }
}

/// Until the other side closes.
async fn hang<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap().to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
            if seen.len() >= end + 4 + length {
                let body = String::from_utf8(seen[end + 4..end + 4 + length].to_vec()).unwrap();
                seen.drain(..end + 4 + length);
                return Some(Request { line, headers, body });
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => seen.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Certificates made for one test.
pub mod tls {
    use std::path::PathBuf;
    use std::sync::Arc;

    use base64::Engine as _;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    pub struct Site {
        directory: TempDir,
        ca: CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    }

    impl Site {
        pub fn new(name: &str) -> Self {
            Self::valid_until(name, 4096)
        }

        pub fn expired(name: &str) -> Self {
            Self::valid_until(name, 2020)
        }

        fn valid_until(name: &str, year: i32) -> Self {
            let directory = TempDir::new().unwrap();
            let mut ca = CertificateParams::new(Vec::new()).unwrap();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
            let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
            leaf.not_after = date_time_ymd(year, 1, 1);
            leaf.not_before = date_time_ymd(2019, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = leaf.signed_by(&key, &issuer).unwrap();
            let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
            write("ca.pem", &issuer.pem());
            write("cert.pem", &certificate.pem());
            write("key.pem", &key.serialize_pem());
            Self { ca: issuer.der().clone(), certificate: certificate.der().clone(), key, directory }
        }

        pub fn ca_file(&self) -> PathBuf {
            self.directory.path().join("ca.pem")
        }

        /// Certificate and key.
        pub fn files(&self) -> (PathBuf, PathBuf) {
            (self.directory.path().join("cert.pem"), self.directory.path().join("key.pem"))
        }

        pub fn pin(&self) -> String {
            use rcgen::PublicKeyData as _;
            base64::engine::general_purpose::STANDARD
                .encode(Sha256::digest(self.key.subject_public_key_info()))
        }

        /// As [`Self::server`], and it offers HTTP/2.
        pub fn server_h2(&self) -> Arc<rustls::ServerConfig> {
            let mut config = Arc::unwrap_or_clone(self.server(None));
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        }

        /// `clients`: whose certificates are demanded.
        pub fn server(&self, clients: Option<&Self>) -> Arc<rustls::ServerConfig> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap();
            let builder = match clients {
                None => builder.with_no_client_auth(),
                Some(clients) => {
                    let mut roots = rustls::RootCertStore::empty();
                    roots.add(clients.ca.clone()).unwrap();
                    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                        Arc::new(roots),
                        provider,
                    );
                    builder.with_client_cert_verifier(verifier.build().unwrap())
                }
            };
            let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
            Arc::new(builder.with_single_cert(vec![self.certificate.clone()], key).unwrap())
        }
    }
}
