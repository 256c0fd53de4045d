//! A receiver that speaks HTTP/2 over TLS, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Default)]
pub struct Counted {
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
    pub at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

/// Answers each request with 204; the port it listens on. `tls` must offer `h2`.
pub async fn start(tls: Arc<rustls::ServerConfig>) -> (u16, Arc<Counted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = Arc::new(Counted::default());
    let shared = Arc::clone(&counted);
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                counted.connections.fetch_add(1, Ordering::SeqCst);
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond, Arc::clone(&counted)));
                }
            });
        }
    });
    (port, counted)
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    counted: Arc<Counted>,
) {
    let now = counted.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    counted.most_at_once.fetch_max(now, Ordering::SeqCst);
    let mut body = request.into_body();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    // as a receiver that does something
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    counted.requests.fetch_add(1, Ordering::SeqCst);
    counted.at_once.fetch_sub(1, Ordering::SeqCst);
    let response = http::Response::builder().status(204).body(()).unwrap();
    let _ = respond.send_response(response, true);
}
