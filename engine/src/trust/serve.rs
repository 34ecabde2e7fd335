//! The connections of a server: how many there are, and how long one may keep a place without asking anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_service::Service as _;

use super::listen::{Clients, Peer, TlsListener};
use super::tls::Tls;

/// Connections of a server at once: ten for each of 1,000 executors. Others wait in the operating system's queue.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// From the beginning of a connection to the end of its first request's head, and between two requests of HTTP/1.1. Prometheus, which asks every 15 s, keeps its
/// connection.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Time without a new request after which a connection of HTTP/2 is asked to go; what is under way on it ends first. Executors send a heartbeat
/// every minute.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// How many connections, and how long each may be silent.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections: usize,
    head: Duration,
    idle: Duration,
}

const BOUNDS: Bounds = Bounds { connections: CONNECTIONS_MAX, head: HEAD_TIMEOUT, idle: IDLE_MAX };

/// Serves `routes` on a port until `stopped`, and then until answers under way are sent. Each request carries its [`Peer`]; `tune` sets what
/// sockets need.
///
/// Dropping the future closes all connections.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    tls: Option<Arc<Tls>>,
    tune: fn(&mut TcpStream),
    stopped: impl Future<Output = ()>,
) {
    match tls {
        None => accept(Plain { listener, tune }, routes, BOUNDS, stopped).await,
        Some(tls) => accept(TlsListener::new(listener, tls, Clients::Any, tune), routes, BOUNDS, stopped).await,
    }
}

/// A port without TLS.
struct Plain {
    listener: TcpListener,
    tune: fn(&mut TcpStream),
}

impl Listener for Plain {
    type Io = TcpStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (TcpStream, Peer) {
        // Of the trait, not of the socket: it goes on after a refused connection.
        let (mut stream, address) = Listener::accept(&mut self.listener).await;
        (self.tune)(&mut stream);
        (stream, Peer { address, certificate: None })
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer { address: self.listener.local_addr()?, certificate: None })
    }
}

async fn accept(mut listener: impl Listener<Addr = Peer>, routes: Router, bounds: Bounds, stopped: impl Future<Output = ()>) {
    let turns = Arc::new(Semaphore::new(bounds.connections));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stopped);
    loop {
        let next = async {
            if turns.available_permits() == 0 {
                tracing::warn!(most = bounds.connections, "as many connections are open as this server takes; others wait");
            }
            // Never closed, so never refused.
            let turn = Arc::clone(&turns).acquire_owned().await.ok();
            (listener.accept().await, turn)
        };
        let ((io, peer), turn) = tokio::select! {
            next = next => next,
            () = &mut stopped => break,
        };
        while connections.try_join_next().is_some() {}
        let (routes, stopping) = (routes.clone(), stopping.clone());
        connections.spawn(async move {
            keep(io, peer, routes, bounds, stopping).await;
            drop(turn);
        });
    }
    drop((listener, stopping));
    stop.send_replace(());
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
async fn keep<I>(io: I, peer: Peer, routes: Router, bounds: Bounds, mut stopping: watch::Receiver<()>)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (begun, address) = (Instant::now(), peer.address);
    let newest = Arc::new(Mutex::new(None));
    let last_asked = || *newest.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = Arc::clone(&newest);
    let service = service_fn(move |mut request: Request<Incoming>| {
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let answer = routes.clone().call(request.map(Body::new));
        async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    loop {
        let newest = last_asked();
        let patience = newest.map_or(begun + bounds.head, |newest| newest + bounds.idle);
        tokio::select! {
            ended = &mut connection => return told(address, ended),
            () = tokio::time::sleep_until(patience) => {
                if last_asked() != newest {
                    continue;
                }
                if newest.is_none() {
                    tracing::debug!(%address, "a connection asked nothing in time");
                    return;
                }
                break;
            }
            // The sender is gone, too, when the server was dropped.
            _ = stopping.changed() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    told(address, connection.await);
}

fn told(address: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%address, error, "a connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::runtime::{Spawned, spawn_io};

    const ASKS: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    /// A server with these bounds, its address, and what stops it.
    async fn server(bounds: Bounds) -> (SocketAddr, oneshot::Sender<()>, Spawned<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<Peer>| async move { peer.address.to_string() }));
        let (stop, stopped) = oneshot::channel();
        let served = accept(Plain { listener, tune: |_| {} }, routes, bounds, async { drop(stopped.await) });
        (address, stop, spawn_io(served).unwrap())
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(ASKS).await.unwrap();
        let mut answer = Vec::new();
        let own = stream.local_addr().unwrap().to_string();
        while !String::from_utf8_lossy(&answer).ends_with(&own) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_a_place() {
        let (address, _stop, _served) = server(Bounds { connections: 2, ..BOUNDS }).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(TcpStream::connect(address).await.unwrap());
        }
        let [first, second, third] = &mut streams[..] else { panic!("three") };
        assert!(ask(first).await.contains("200 OK") && ask(second).await.contains("200 OK"));
        third.write_all(ASKS).await.unwrap();
        let mut byte = [0];
        let waited = tokio::time::timeout(Duration::from_millis(200), third.read(&mut byte)).await;
        assert!(waited.is_err(), "{waited:?}");
        streams.remove(0);
        assert_eq!(streams[1].read(&mut byte).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_server_that_is_stopped_closes_what_is_idle_and_ends() {
        let (address, stop, served) = server(BOUNDS).await;
        let mut kept = TcpStream::connect(address).await.unwrap();
        ask(&mut kept).await;
        stop.send(()).unwrap();
        assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
        served.join().await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// How long it takes until a connection which begins so is closed.
    async fn closed_after(address: SocketAddr, beginning: &[u8]) -> Duration {
        // Before the server may have begun to count.
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        // An error is an end as well: something that was sent was not read.
        drop(stream.read_to_end(&mut rest).await);
        begun.elapsed()
    }

    #[tokio::test]
    async fn who_asks_nothing_or_ends_no_head_loses_its_place() {
        let head = Duration::from_millis(300);
        let (address, _stop, _served) = server(Bounds { head, ..BOUNDS }).await;
        for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost: he"] {
            let took = closed_after(address, beginning.as_bytes()).await;
            assert!(took >= head, "{beginning:?}: {took:?}");
        }
        // A second request that does not come.
        assert!(closed_after(address, ASKS).await >= head);
    }

    #[tokio::test]
    async fn who_has_asked_long_ago_is_asked_to_go() {
        let idle = Duration::from_millis(300);
        let (address, _stop, _served) = server(Bounds { idle, ..BOUNDS }).await;
        assert!(closed_after(address, ASKS).await >= idle);
    }
}
