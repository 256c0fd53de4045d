//! Connections, on the socket and over TCP: how many, how long, how large. Whoever is slow, greedy
//! or silent costs a connection for a while and nobody else anything.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Connections at once on each listener; more wait in the system's own queue.
const MOST: usize = 64;
/// A request's head must be there so soon after the connection or the answer before it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A request's head, bytes; 431 above.
const LARGEST_HEAD: usize = 16 << 10;
/// Whoever does not read any of an answer for so long is gone.
const READS_WITHIN: Duration = Duration::from_secs(30);
/// After an error of accept, such as no descriptors left.
const AFTER_ERROR: Duration = Duration::from_millis(200);
/// What answers under way get when the agent stops; a client that does not read gets no more.
const GRACE: Duration = Duration::from_secs(1);

/// Accepts and answers until told to stop, then lets answers under way end.
pub(super) async fn serve<S, A, F>(mut accept: A, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: FnMut() -> F,
    F: Future<Output = io::Result<(S, Router)>>,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = accept(), if open.len() < MOST => match accepted {
                Ok((stream, router)) => {
                    open.spawn(connection(stream, router, stop.clone()));
                }
                Err(why) => {
                    tracing::debug!(reason = %why, "a connection could not be accepted");
                    sleep(AFTER_ERROR).await;
                }
            },
        }
    }
    // what does not end by itself is cut off when the set is dropped
    let _ = timeout(GRACE, async { while open.join_next().await.is_some() {} }).await;
}

async fn connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(why) = ended {
        tracing::debug!(reason = %why, "a connection ended early");
    }
}

/// A stream whose writes fail once the other side has taken nothing for a while.
struct Impatient<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Impatient<S> {
    const fn new(stream: S) -> Self {
        Self { stream, deadline: None }
    }

    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.stream), context) {
            self.deadline = None;
            return Poll::Ready(done);
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + READS_WITHIN)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.within(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.within(context, |stream, context| stream.poll_shutdown(context))
    }
}

/// What a stream of lines cannot fail with.
pub(super) type Never = Infallible;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    /// Connections to a server that answers `/` with 1 MiB.
    fn server(stop: &CancellationToken) -> mpsc::UnboundedSender<DuplexStream> {
        let (sender, receiver) = mpsc::unbounded_channel::<DuplexStream>();
        let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
        let accept = move || {
            let receiver = std::sync::Arc::clone(&receiver);
            async move {
                let stream = receiver.lock().await.recv().await;
                let router = Router::new().route("/", get(async || "x".repeat(1 << 20)));
                stream.map(|stream| (stream, router)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
            }
        };
        tokio::spawn(serve(accept, stop.clone()));
        sender
    }

    async fn answer(mut client: DuplexStream) -> String {
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_too_slowly_ends_the_connection() {
        let connections = server(&CancellationToken::new());
        let (mut client, served) = duplex(1 << 16);
        connections.send(served).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        let began = Instant::now();
        let slow = async {
            loop {
                sleep(Duration::from_secs(3)).await;
                if client.write_all(b"X-Slow: 1\r\n").await.is_err() {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(60), slow).await.unwrap();
        assert!(began.elapsed() <= HEAD_WITHIN + Duration::from_secs(6), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let connections = server(&CancellationToken::new());
        let (mut client, served) = duplex(1 << 20);
        connections.send(served).unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(LARGEST_HEAD));
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = answer(client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:.80}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut_off() {
        let connections = server(&CancellationToken::new());
        let (mut client, served) = duplex(1 << 10);
        connections.send(served).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        sleep(READS_WITHIN * 2).await;
        let answer = answer(client).await;
        assert!(answer.len() < 1 << 20, "{} bytes", answer.len());
    }

    #[tokio::test(start_paused = true)]
    async fn one_too_many_waits_until_another_is_done() {
        let stop = CancellationToken::new();
        let connections = server(&stop);
        let mut silent = Vec::new();
        for _ in 0..MOST {
            let (client, served) = duplex(1 << 10);
            connections.send(served).unwrap();
            silent.push(client);
        }
        let (mut client, served) = duplex(2 << 20);
        connections.send(served).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut first = [0];
        let asked = timeout(HEAD_WITHIN / 2, client.read_exact(&mut first)).await;
        assert!(asked.is_err(), "there is no room for it yet");
        silent.pop();
        assert!(answer(client).await.contains("200 OK"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_who_is_silent() {
        let stop = CancellationToken::new();
        let connections = server(&stop);
        let (client, served) = duplex(1 << 10);
        connections.send(served).unwrap();
        sleep(Duration::from_millis(10)).await;
        let began = Instant::now();
        stop.cancel();
        assert_eq!(answer(client).await, "");
        assert!(began.elapsed() <= GRACE + Duration::from_millis(100), "{:?}", began.elapsed());
    }
}
