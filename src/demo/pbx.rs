//! A stand-in PBX: speaks enough of AMI for an agent to log in, look around and listen.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use jiff::tz::TimeZone;
use md5::{Digest, Md5};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::channels::Channels;
use crate::clock;

/// The account's name.
pub(super) const USERNAME: &str = "callpost";
/// As Asterisk's own (`get_input`).
const MAX_LINE: usize = 1024;
const MAX_HEADERS: usize = 128;
/// Events that a client may be behind; far above what is ever played at once.
const QUEUE: usize = 16_384;

/// A running stand-in; it ends when dropped.
#[derive(Debug)]
pub struct Pbx {
    address: SocketAddr,
    shared: Arc<Shared>,
    ready: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    secret: String,
    started: String,
    channels: Mutex<Channels>,
    events: broadcast::Sender<Arc<[u8]>>,
    ready: watch::Sender<u64>,
    /// Rises when every client is cut off.
    cut: watch::Sender<u64>,
    listeners: watch::Sender<usize>,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pbx {
    /// Listens on a free port of this host.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn start(secret: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (events, _) = broadcast::channel(QUEUE);
        let (told, ready) = watch::channel(0);
        let started = jiff::Timestamp::now().to_zoned(TimeZone::UTC);
        let shared = Arc::new(Shared {
            secret: secret.to_owned(),
            started: started
                .strftime("CoreStartupDate: %Y-%m-%d\r\nCoreStartupTime: %H:%M:%S\r\n")
                .to_string(),
            channels: Mutex::default(),
            events,
            ready: told,
            cut: watch::Sender::new(0),
            listeners: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, ready, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until a client has logged in and looked around.
    pub async fn ready(&self) {
        // the sender lives as long as `self`
        let _ = self.ready.clone().wait_for(|clients| *clients > 0).await;
    }

    /// How many times clients have asked for events.
    pub fn listeners(&self) -> usize {
        *self.shared.listeners.borrow()
    }

    /// Sends one event, whole and with its empty line, to everybody who listens.
    pub fn emit(&self, message: &str) {
        self.shared.channels().see(message);
        // nobody listening is no fault: Asterisk talks to itself too
        let _ = self.shared.events.send(message.as_bytes().into());
    }

    /// Sends bytes as they are, whatever they are.
    pub fn emit_raw(&self, bytes: &[u8]) {
        // as in `emit`
        let _ = self.shared.events.send(bytes.into());
    }

    /// Cuts every connection; clients may come back at once.
    pub fn hang_up(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Pbx {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let session = Session { shared: Arc::clone(&shared), user: false, listening: false, challenge: String::new() };
                sessions.spawn(async move {
                    if let Err(why) = session.run(stream).await {
                        tracing::debug!(reason = %why, "a client of the stand-in PBX is gone");
                    }
                });
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

struct Session {
    shared: Arc<Shared>,
    user: bool,
    listening: bool,
    challenge: String,
}

/// The headers of one action, names in lower case.
type Asked = Vec<(String, String)>;

fn field<'a>(asked: &'a Asked, key: &str) -> &'a str {
    asked.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
}

impl Session {
    async fn run(mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE));
        let mut events = self.shared.events.subscribe();
        let mut cut = self.shared.cut.subscribe();
        write.write_all(b"Asterisk Call Manager/11.0.0\r\n").await?;
        let mut asked = Asked::new();
        loop {
            tokio::select! {
                _ = cut.changed() => return Ok(()),
                event = events.recv() => match event {
                    Ok(event) if self.listening => write.write_all(&event).await?,
                    Ok(_) => {}
                    Err(_) => return Err(io::Error::other("the client reads too slowly")),
                },
                line = lines.next() => match line {
                    None => return Ok(()),
                    Some(Err(why)) => return Err(io::Error::other(why)),
                    Some(Ok(line)) if line.is_empty() && asked.is_empty() => {}
                    Some(Ok(line)) if line.is_empty() => {
                        let answer = self.answer(&std::mem::take(&mut asked));
                        write.write_all(answer.as_bytes()).await?;
                        if answer.starts_with("Response: Goodbye") {
                            return Ok(());
                        }
                    }
                    Some(Ok(line)) => {
                        if let Some((key, value)) = line.split_once(':').filter(|_| asked.len() < MAX_HEADERS) {
                            asked.push((key.to_lowercase(), value.trim_start().to_owned()));
                        }
                    }
                }
            }
        }
    }

    fn answer(&mut self, asked: &Asked) -> String {
        let id = field(asked, "actionid");
        let action = field(asked, "action").to_lowercase();
        let success = |rest: &str| format!("Response: Success\r\nActionID: {id}\r\n{rest}\r\n");
        let error = |why: &str| format!("Response: Error\r\nActionID: {id}\r\nMessage: {why}\r\n\r\n");
        match action.as_str() {
            "challenge" => {
                self.challenge = getrandom::u32().unwrap_or(1).to_string();
                success(&format!("Challenge: {}\r\n", self.challenge))
            }
            "login" => self.login(
                asked,
                &success("Message: Authentication accepted\r\n"),
                &error("Authentication failed"),
            ),
            "logoff" => {
                format!("Response: Goodbye\r\nActionID: {id}\r\nMessage: Thanks for all the fish.\r\n\r\n")
            }
            _ if !self.user => error("Permission denied"),
            "ping" => {
                let now = clock::now();
                success(&format!(
                    "Ping: Pong\r\nTimestamp: {}.{:06}\r\n",
                    now.secs(),
                    now.0.rem_euclid(1_000_000)
                ))
            }
            "events" => {
                self.listening = field(asked, "eventmask") != "off";
                self.shared.listeners.send_modify(|clients| *clients += usize::from(self.listening));
                success(if self.listening { "Events: On\r\n" } else { "Events: Off\r\n" })
            }
            "coresettings" => success(
                "AMIversion: 11.0.0\r\nAsteriskVersion: 22.10.1\r\nSystemName: \r\nCoreMaxCalls: 0\r\nCoreCDRenabled: Yes\r\n",
            ),
            "corestatus" => success(&self.shared.started),
            "coreshowchannels" => {
                list(id, "CoreShowChannels", &self.shared.channels().items("CoreShowChannel", id))
            }
            "status" => list(id, "Status", &self.shared.channels().items("Status", id)),
            "bridgelist" => list(id, "BridgeList", &[]),
            "queuestatus" => {
                self.shared.ready.send_modify(|clients| *clients += 1);
                list(id, "QueueStatus", &[])
            }
            _ => error(&format!(
                "Invalid/unknown command: {action}. Use Action: ListCommands to show available commands."
            )),
        }
    }

    fn login(&mut self, asked: &Asked, accepted: &str, refused: &str) -> String {
        let secret = self.shared.secret.as_str();
        let key: String =
            Md5::digest(format!("{}{secret}", self.challenge)).iter().map(|b| format!("{b:02x}")).collect();
        let md5 = field(asked, "authtype").eq_ignore_ascii_case("md5");
        let proven = if md5 {
            field(asked, "key") == key && !self.challenge.is_empty()
        } else {
            field(asked, "secret") == secret
        };
        if field(asked, "username") != USERNAME || !proven {
            return refused.to_owned();
        }
        self.user = true;
        let mask = field(asked, "events");
        self.listening = mask == "on" || mask.is_empty();
        let booted = "Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 1\r\nLastReload: 1\r\nStatus: Fully Booted\r\n\r\n";
        format!("{accepted}{}", if mask == "off" { "" } else { booted })
    }
}

fn list(id: &str, name: &str, items: &[String]) -> String {
    let start = format!(
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: {name} will follow\r\n\r\n"
    );
    let end = format!(
        "Event: {name}Complete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {}\r\n\r\n",
        items.len()
    );
    format!("{start}{}{end}", items.concat())
}
