//! Connections: how many, and how long each may take for what it does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::members;
use super::context::Gateway;
use super::patience::Patient;
use super::serve::serve;
use super::tls::Tls;
use crate::core::gateway::problem::{Kind, Problem};
use crate::runtime::telemetry::Repeated;

/// How long a client may take for the head of a request, and be idle between two.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes that a head may have: tokens have several thousand.
const HEAD_BYTES: usize = 64 << 10;
/// Headers that it may have.
const HEADERS: usize = 100;
/// How long a write may wait for the client, and how long what was written may stay unacknowledged.
const WRITE: Duration = Duration::from_secs(20);
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long what is refused is told so, and how many at once.
const TELLING: (Duration, usize) = (Duration::from_secs(1), 256);
/// The pause after a connection could not be taken, as when there are no more files.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until `closed`, and returns when all of them have ended. They are asked to end when the gateway stops.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    gateway: Arc<Gateway>,
    connections: u32,
    closed: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(connections as usize));
    let telling = Arc::new(Semaphore::new(TELLING.1));
    let (tasks, mut failures) = (TaskTracker::new(), Repeated::default());
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = closed.cancelled() => break,
        };
        let (socket, peer) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                if failures.is_to_be_said(Instant::now()) {
                    tracing::warn!(%error, "taking a connection failed; trying again");
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = room.clone().try_acquire_owned() else {
            gateway.metrics.refused.inc();
            if let (None, Ok(turn)) = (&tls, telling.clone().try_acquire_owned()) {
                tasks.spawn(async move {
                    let _ = timeout(TELLING.0, refuse(socket)).await;
                    drop(turn);
                });
            }
            continue;
        };
        let (tls, gateway) = (tls.clone(), gateway.clone());
        tasks.spawn(async move {
            gateway.metrics.connections.inc();
            talk(socket, peer, tls, &gateway).await;
            gateway.metrics.connections.dec();
            drop(seat);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Tells a client that there is no room, without reading what it wants.
async fn refuse(mut socket: TcpStream) -> std::io::Result<()> {
    let problem =
        members(&Problem::new(Kind::Overloaded, "this replica has as many connections as it may")).to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\n\
                connection: close\r\ncontent-length:";
    socket.write_all(format!("{head} {}\r\n\r\n{problem}", problem.len()).as_bytes()).await?;
    socket.shutdown().await?;
    // Closing with bytes unread would take the answer from the client.
    while socket.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

async fn talk(socket: TcpStream, peer: SocketAddr, tls: Option<Tls>, gateway: &Arc<Gateway>) {
    let millis = u32::try_from(WRITE.as_millis()).unwrap_or(u32::MAX);
    // Both are for speed and for clients that are gone; a connection works without.
    let _ = socket.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, millis);
    let socket = Patient::new(socket, WRITE);
    match tls {
        None => answer(socket, peer, gateway).await,
        Some(tls) => match timeout(HANDSHAKE, tls.acceptor().accept(socket)).await {
            Ok(Ok(socket)) => answer(socket, peer, gateway).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "a client did not agree on TLS"),
            Err(_) => tracing::debug!(%peer, "a client took too long to agree on TLS"),
        },
    }
}

/// Answers the requests of one connection.
async fn answer(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, gateway: &Arc<Gateway>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answered = serve(gateway.clone(), peer, request.map(Body::new));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = gateway.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}
