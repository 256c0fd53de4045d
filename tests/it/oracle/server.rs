//! Receivers over HTTP: one port a route, answering as the ledger says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::call::{create_content, create_key};
use super::ledger::{Answer, Fault, Ledger};

/// How a port behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Takes connections.
    Open,
    /// Refuses them, and has dropped those it had.
    Refused,
}

/// One route's receiver; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    port: watch::Sender<Port>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `route`: its number in the ledger. `patience`: how long the agent waits for an answer.
    pub async fn start(ledger: Arc<Mutex<Ledger>>, route: usize, patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (port, told) = watch::channel(Port::Open);
        let serve = Serve { ledger, route, patience };
        Self { address, port, task: tokio::spawn(serve.listen(listener, told)) }
    }

    /// Behaves otherwise from now on.
    pub fn set(&self, port: Port) {
        self.port.send_replace(port);
    }
}

#[derive(Clone)]
struct Serve {
    ledger: Arc<Mutex<Ledger>>,
    route: usize,
    patience: Duration,
}

/// A request as far as it matters.
struct Request {
    id: String,
    content: String,
    sequence: Option<u64>,
}

impl Serve {
    async fn listen(self, listener: TcpListener, mut told: watch::Receiver<Port>) {
        let address = listener.local_addr().unwrap();
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = accept => {
                    let Ok((stream, _)) = accepted else { continue };
                    connections.spawn(self.clone().serve(stream));
                }
                Some(_) = connections.join_next() => {}
                changed = told.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let port = *told.borrow_and_update();
                    match port {
                        Port::Refused => {
                            drop(listener.take());
                            connections.shutdown().await;
                        }
                        Port::Open => listener = Some(TcpListener::bind(address).await.unwrap()),
                    }
                }
            }
        }
    }

    async fn serve(self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut seen = Vec::new();
        loop {
            let Some((head, body)) = read(&mut stream, &mut seen).await else { return };
            let request = request(&head, body);
            let answer = match &request {
                Some(Request { id, content, sequence }) => {
                    self.ledger.lock().unwrap().request(self.route, id, content, *sequence)
                }
                // a test event, or a look
                None => Answer::Taken,
            };
            let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"error\":false}";
            let text = match answer {
                Answer::Taken => ok.to_owned(),
                Answer::Failed(Fault::Status(status)) => {
                    format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n")
                }
                Answer::Failed(Fault::Throttled) => {
                    "HTTP/1.1 429 Slow Down\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                Answer::Failed(Fault::Slow) => {
                    tokio::time::sleep(self.patience / 4).await;
                    if let Some(Request { id, content, sequence }) = &request {
                        self.ledger.lock().unwrap().late(self.route, id, content, *sequence);
                    }
                    ok.to_owned()
                }
                Answer::Failed(Fault::Cut) => {
                    let _ = stream.write_all(&ok.as_bytes()[..ok.len() - 5]).await;
                    return;
                }
                Answer::Failed(Fault::Silence) => {
                    tokio::time::sleep(self.patience * 2).await;
                    return;
                }
                Answer::Failed(Fault::Close) => return,
                Answer::Failed(Fault::Reset | Fault::Lost) => {
                    // a socket that lingers for no time resets its connection when it is closed
                    let _ = stream.set_zero_linger();
                    return;
                }
            };
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// `None`: nothing that is owed.
fn request(head: &str, body: String) -> Option<Request> {
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let target = head.split(' ').nth(1)?;
    if let Some((_, query)) = target.split_once("/create?") {
        let (mut initiated, mut source, mut destination) = (String::new(), String::new(), String::new());
        let (mut duration, mut url) = (None, None);
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "initiated" => initiated = value.into_owned(),
                "source" => source = value.into_owned(),
                "destination" => destination = value.into_owned(),
                "duration" => duration = Some(value.parse().unwrap()),
                "url" => url = Some(value.into_owned()),
                _ => {}
            }
        }
        return Some(Request {
            id: create_key(&initiated, &source, &destination),
            content: create_content(duration, url.as_deref()),
            sequence: None,
        });
    }
    let sequence = header("callpost-sequence")?.parse().unwrap();
    Some(Request { id: header("webhook-id")?, content: body, sequence: Some(sequence) })
}

/// Head and body of the next request.
async fn read(stream: &mut TcpStream, seen: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let all = end + 4 + length.unwrap_or(0);
            if seen.len() >= all {
                let body = String::from_utf8(seen[end + 4..all].to_vec()).unwrap();
                seen.drain(..all);
                return Some((head, body));
            }
        }
        if stream.read_buf(seen).await.ok()? == 0 {
            return None;
        }
    }
}
