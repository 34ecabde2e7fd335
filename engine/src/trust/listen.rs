//! A port which speaks TLS, and the front of one which cannot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use futures::Stream;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::Tls;

/// Handshakes under way at once. Others wait in the operating system's queue.
pub(crate) const HANDSHAKES_MAX: usize = 512;

/// A handshake that takes longer is given up.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refused client may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Pause after the operating system has refused a connection, for lack of descriptors mostly.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate, which an authority of ours has signed.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Whether clients without a certificate may come in, to be asked by the [guard](super::guard).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// They may.
    Any,
    /// They may not.
    Certified,
}

/// A listener whose connections have finished their TLS handshake. Each handshake uses the files of its moment.
#[derive(Debug)]
pub struct TlsListener {
    listener: TcpListener,
    tls: Arc<Tls>,
    clients: Clients,
    tune: fn(&mut TcpStream),
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, Peer)>>,
}

impl TlsListener {
    /// Puts TLS before a listener; `tune` sets what its sockets need.
    pub fn new(listener: TcpListener, tls: Arc<Tls>, clients: Clients, tune: fn(&mut TcpStream)) -> Self {
        Self { listener, tls, clients, tune, handshakes: JoinSet::new() }
    }

    /// Its connections as tonic takes them.
    pub fn incoming(self) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send {
        futures::stream::unfold(self, |mut listener| async { Some((Ok(listener.accept().await.0), listener)) })
    }

    fn begin(&mut self, mut stream: TcpStream, address: SocketAddr) {
        (self.tune)(&mut stream);
        // A server has a certificate, or it would not have begun.
        let side = self.tls.current().ok().and_then(|loaded| loaded.server().cloned());
        let Some(side) = side else { return };
        let config = match self.clients {
            Clients::Any => side.asks,
            Clients::Certified => side.demands,
        };
        self.handshakes.spawn(async move {
            let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err((error, stream))) => {
                    // At this level, because the scheduler looks in plain whether the port of an executor is there.
                    tracing::debug!(%address, %error, "a TLS handshake failed");
                    drop(tokio::time::timeout(FAREWELL, say_goodbye(stream)).await);
                    return None;
                }
                Err(_elapsed) => {
                    tracing::debug!(%address, "a TLS handshake took too long");
                    return None;
                }
            };
            let certificate =
                stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
            Some((stream, Peer { address, certificate }))
        });
    }
}

/// Ends a connection in a way that what was sent last arrives: if what the client has sent meanwhile were left unread, the operating system would
/// reset the connection, and the client might see that in place of the reason.
async fn say_goodbye(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, address)) => self.begin(stream, address),
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be accepted");
                        tokio::time::sleep(REFUSED_PAUSE).await;
                    }
                },
                Some(done) = self.handshakes.join_next() => if let Ok(Some(connection)) = done {
                    return connection;
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { address: self.listener.local_addr()?, certificate: None })
    }
}

/// Passes connections of peers which are `admitted` on to a plain port of this machine, until it is dropped.
pub async fn front(mut listener: TlsListener, inner: SocketAddr, admitted: impl Fn(&Peer) -> bool) {
    let mut connections = JoinSet::new();
    loop {
        let (mut outer, peer) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if !admitted(&peer) {
            tracing::warn!(address = %peer.address, "refused: only members of the fleet may give an executor tasks");
            continue;
        }
        connections.spawn(async move {
            let mut plain = TcpStream::connect(inner).await?;
            plain.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut outer, &mut plain).await
        });
    }
}
