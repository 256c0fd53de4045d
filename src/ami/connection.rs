//! One connection: TCP or TLS, a reader that never waits for anything else, a writer, and the
//! answers brought back to who asked.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parsers::Uniqueid;
use parsers::ami::{
    Action, Banner, Codec, Event, EventKind, Frame, Kind, Malformed, Message, Response, Status,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::AmiError;
use super::session::FeedSender;
use crate::config;
use crate::tls::{TlsSettings, client_config};

/// How long a connection, a banner or one answer may take.
const STEP: Duration = Duration::from_secs(10);
/// Socket buffer: what Asterisk may write while this host is busy elsewhere.
const RECEIVE_BUFFER: u32 = 2 << 20;
/// Items of one list; above, the list is cut and the session goes on.
const MAX_LIST: usize = 100_000;

/// The bytes, whatever carries them.
trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for T {}

/// A connection with its reader task.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    writer: FramedWrite<WriteHalf<Box<dyn Stream>>, Codec>,
    desk: Arc<Mutex<Desk>>,
    reader: JoinHandle<AmiError>,
    next_id: u64,
    /// An action is on its way out. Still set when the next one comes: it was cut off half-way, and
    /// what follows would be read as its rest.
    writing: bool,
    /// What Asterisk said of itself first.
    pub(super) banner: Banner,
}

/// Where answers wait for who asked, shared with the reader.
#[derive(Debug, Default)]
struct Desk {
    waiting: HashMap<String, Waiting>,
    /// Order of the requests: an error without an id belongs to the oldest.
    order: Vec<String>,
    /// Why the reader ended.
    ended: Option<AmiError>,
}

#[derive(Debug)]
struct Waiting {
    wants: Wants,
    answer: Option<Response>,
    items: Vec<Event>,
    /// Uniqueids of an audit's items.
    listed: Vec<Uniqueid>,
    done: oneshot::Sender<(Response, List)>,
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// One response.
    Answer,
    /// A response, and items for who asked.
    List,
    /// A response, and items whose uniqueids go into the feed where the list ends.
    Audit,
}

/// Items of a list.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) items: Vec<Event>,
    /// As many came as Asterisk says it wrote.
    pub(super) whole: bool,
}

/// Where an event goes.
enum Item {
    /// Into the feed.
    Event(Event),
    /// Into the feed: a whole audit.
    Audit(Vec<Uniqueid>),
    /// To who asked.
    Taken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Connection {
    /// Connects, reads the banner, starts the reader.
    pub(super) async fn open(config: &config::Ami, feed: FeedSender) -> Result<Self, AmiError> {
        let stream = step(&config.address, "connection", connect(config)).await??;
        Self::over(stream, &config.address, feed).await
    }

    /// Over a stream that is connected.
    async fn over(stream: Box<dyn Stream>, address: &str, feed: FeedSender) -> Result<Self, AmiError> {
        let (read, write) = tokio::io::split(stream);
        let mut frames = FramedRead::with_capacity(read, Codec::default(), 64 * 1024);
        let banner = step(address, "banner", banner(address, &mut frames)).await??;
        if banner.major < 2 {
            return Err(AmiError::TooOld { version: banner.version });
        }
        let desk = Arc::new(Mutex::new(Desk::default()));
        let reader = tokio::spawn(read_all(frames, Arc::clone(&desk), feed));
        Ok(Self {
            address: address.to_owned(),
            writer: FramedWrite::new(write, Codec::default()),
            desk,
            reader,
            next_id: 1,
            writing: false,
            banner,
        })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, action: Action) -> Result<Response, AmiError> {
        Ok(self.send(action, Wants::Answer).await?.0)
    }

    /// Asks, and waits for the answer and all its items. An error answer has no items.
    pub(super) async fn ask_list(&mut self, action: Action) -> Result<(Response, List), AmiError> {
        self.send(action, Wants::List).await
    }

    /// Asks for every channel; the list goes into the feed between the events that came before its
    /// end and those that came after.
    pub(super) async fn audit(&mut self) -> Result<Response, AmiError> {
        Ok(self.send(Action::core_show_channels(), Wants::Audit).await?.0)
    }

    /// Waits until the reader ends, and says why.
    pub(super) async fn ended(&mut self) -> AmiError {
        match (&mut self.reader).await {
            Ok(why) => why,
            Err(_) => AmiError::Closed(Some("the reader was stopped".to_owned())),
        }
    }

    async fn send(&mut self, action: Action, wants: Wants) -> Result<(Response, List), AmiError> {
        let id = format!("cp{}", self.next_id);
        self.next_id += 1;
        let action =
            action.header("ActionID", id.clone()).map_err(|why| AmiError::Action(format!("{why:?}")))?;
        let (done, answer) = oneshot::channel();
        if std::mem::replace(&mut self.writing, true) {
            return Err(cut_off());
        }
        {
            let mut desk = lock(&self.desk);
            if let Some(why) = &desk.ended {
                return Err(why.clone());
            }
            desk.order.push(id.clone());
            let waiting = Waiting { wants, answer: None, items: Vec::new(), listed: Vec::new(), done };
            desk.waiting.insert(id.clone(), waiting);
        }
        let written = timeout(STEP, self.writer.send(action)).await;
        match written {
            Ok(Ok(())) => self.writing = false,
            Ok(Err(why)) => return Err(AmiError::Closed(Some(why.to_string()))),
            // Not `Silent`, which a session bears: this connection is of no more use.
            Err(_) => return Err(cut_off()),
        }
        // A list of a busy PBX takes its time; an answer does not.
        let patience = if wants == Wants::Answer { STEP } else { STEP * 3 };
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(lock(&self.desk).ended.clone().unwrap_or(AmiError::Closed(None))),
            Err(_) => {
                lock(&self.desk).forget(&id);
                Err(self.silent("answer"))
            }
        }
    }

    fn silent(&self, waiting_for: &'static str) -> AmiError {
        AmiError::Silent { address: self.address.clone(), waiting_for, seconds: STEP.as_secs() }
    }
}

impl Desk {
    fn forget(&mut self, id: &str) {
        self.waiting.remove(id);
        self.order.retain(|other| other != id);
    }

    fn response(&mut self, response: Response) {
        let id = match &response.action_id {
            Some(id) => id.clone(),
            // Raised before the action was read: it belongs to the oldest that waits.
            None => match self.order.first() {
                Some(id) => id.clone(),
                None => return,
            },
        };
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        if waiting.wants != Wants::Answer && response.status == Status::Success {
            waiting.answer = Some(response);
            return;
        }
        self.finish(&id, Some(response), false);
    }

    /// Takes a list's item; gives back an event that belongs to no list, or an audit that is whole.
    fn item(&mut self, event: Event) -> Item {
        let Some(id) = event.action_id.clone() else { return Item::Event(event) };
        let Some(waiting) = self.waiting.get_mut(&*id) else { return Item::Event(event) };
        match (waiting.wants, event.kind) {
            (Wants::Answer, kind) => return Item::Event(Event { kind, ..event }),
            (_, EventKind::ListComplete { items, .. }) => {
                let count = (waiting.items.len() + waiting.listed.len()) as u64;
                let whole = items.is_none_or(|items| items == count);
                let listed = (waiting.wants == Wants::Audit && whole && waiting.answer.is_some())
                    .then(|| std::mem::take(&mut waiting.listed));
                self.finish(&id, None, whole);
                return listed.map_or(Item::Taken, Item::Audit);
            }
            (Wants::Audit, EventKind::CoreShowChannel { channel, .. }) if waiting.listed.len() < MAX_LIST => {
                waiting.listed.push(channel.uniqueid);
            }
            (Wants::List, kind) if waiting.items.len() < MAX_LIST => {
                waiting.items.push(Event { kind, ..event });
            }
            (Wants::List | Wants::Audit, _) => {}
        }
        Item::Taken
    }

    fn finish(&mut self, id: &str, answer: Option<Response>, whole: bool) {
        self.order.retain(|other| other != id);
        let Some(waiting) = self.waiting.remove(id) else { return };
        if let Some(answer) = answer.or(waiting.answer) {
            // Who asked may have stopped waiting.
            let _ = waiting.done.send((answer, List { items: waiting.items, whole }));
        }
    }
}

fn cut_off() -> AmiError {
    let seconds = STEP.as_secs();
    AmiError::Closed(Some(format!("it took no action within {seconds} s, so the connection was given up")))
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the connection ends. Waits for the socket alone: what it reads goes into memory,
/// bounded by [`FeedSender`], or to who asked.
async fn read_all(
    mut frames: FramedRead<ReadHalf<Box<dyn Stream>>, Codec>,
    desk: Arc<Mutex<Desk>>,
    feed: FeedSender,
) -> AmiError {
    let why = loop {
        let frame = match frames.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(why)) => break AmiError::Closed(Some(why.to_string())),
            None => break AmiError::Closed(None),
        };
        match frame {
            Frame::Banner(_) => {}
            Frame::Malformed(malformed) => {
                feed.count_malformed();
                tracing::warn!(?malformed, "a message of Asterisk could not be read and was skipped");
            }
            Frame::Message(message) => {
                if let Err(why) = take(message, &desk, &feed) {
                    break why;
                }
            }
        }
    };
    let mut desk = lock(&desk);
    desk.ended = Some(why.clone());
    desk.waiting.clear();
    desk.order.clear();
    why
}

fn take(message: Message, desk: &Mutex<Desk>, feed: &FeedSender) -> Result<(), AmiError> {
    match message.kind() {
        Kind::Response => {
            if let Some(response) = Response::parse(message) {
                lock(desk).response(response);
            }
            Ok(())
        }
        Kind::Event => {
            feed.count_event();
            let Some(event) = Event::parse(&message) else { return Ok(()) };
            let item = if event.action_id.is_some() { lock(desk).item(event) } else { Item::Event(event) };
            match item {
                Item::Event(event) => feed.event(event, message, crate::clock::now()),
                Item::Audit(listed) => {
                    feed.audit(listed);
                    Ok(())
                }
                Item::Taken => Ok(()),
            }
        }
        Kind::Other => {
            feed.count_malformed();
            Ok(())
        }
    }
}

async fn connect(config: &config::Ami) -> Result<Box<dyn Stream>, AmiError> {
    let address = &config.address;
    let resolved = tokio::net::lookup_host(address)
        .await
        .map_err(|why| AmiError::Resolve { address: address.clone(), why: why.to_string() })?;
    let mut refused = None;
    for candidate in resolved {
        match connect_to(candidate).await {
            Ok(stream) if config.tls => return tls(config, stream).await,
            Ok(stream) => return Ok(Box::new(stream)),
            Err(why) => refused = Some(why),
        }
    }
    Err(match refused {
        Some(why) => AmiError::Connect { address: address.clone(), why: why.to_string() },
        None => AmiError::Resolve { address: address.clone(), why: "the name has no address".to_owned() },
    })
}

async fn connect_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_keepalive(true)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn tls(config: &config::Ami, stream: TcpStream) -> Result<Box<dyn Stream>, AmiError> {
    let failed = |why: String| AmiError::Tls { address: config.address.clone(), why };
    let host = match &config.server_name {
        Some(name) => name.clone(),
        None => host_of(&config.address).to_owned(),
    };
    let name = ServerName::try_from(host).map_err(|why| failed(why.to_string()))?;
    let settings = TlsSettings { ca_file: config.ca_file.clone(), ..TlsSettings::default() };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&settings).map_err(failed)?));
    let stream = connector.connect(name, stream).await.map_err(|why| failed(why.to_string()))?;
    Ok(Box::new(stream))
}

/// The host of `host:port` or `[v6]:port`.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}

async fn banner(
    address: &str,
    frames: &mut FramedRead<ReadHalf<Box<dyn Stream>>, Codec>,
) -> Result<Banner, AmiError> {
    match frames.next().await {
        Some(Ok(Frame::Banner(banner))) => Ok(banner),
        Some(Ok(Frame::Malformed(Malformed::NotAsterisk(begins)))) => {
            Err(AmiError::NotAsterisk { address: address.to_owned(), begins })
        }
        Some(Ok(_)) => Err(AmiError::NotAsterisk { address: address.to_owned(), begins: String::new() }),
        Some(Err(why)) => Err(AmiError::Closed(Some(why.to_string()))),
        None => Err(AmiError::Closed(Some("before it said anything".to_owned()))),
    }
}

async fn step<T>(
    address: &str,
    waiting_for: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, AmiError> {
    timeout(STEP, work).await.map_err(|_| AmiError::Silent {
        address: address.to_owned(),
        waiting_for,
        seconds: STEP.as_secs(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_no_action_is_given_up_and_never_written_to_again() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let (hub, _feed) = crate::ami::feed();
        let peer = async {
            theirs.write_all(b"Asterisk Call Manager/7.0.3\r\n").await.unwrap();
        };
        let (connection, ()) = tokio::join!(Connection::over(Box::new(ours), "pbx:5038", hub.sender()), peer);
        let mut connection = connection.unwrap();
        let why = connection.ask(Action::new("Ping")).await.unwrap_err();
        assert!(matches!(&why, AmiError::Closed(Some(why)) if why.contains("10 s")), "{why}");
        let why = connection.ask(Action::new("Ping")).await.unwrap_err();
        assert!(matches!(why, AmiError::Closed(_)), "{why}");
        drop(connection);
        let mut got = String::new();
        theirs.read_to_string(&mut got).await.unwrap();
        assert_eq!(got.matches("Action").count(), 1, "{got:?}");
    }
}
