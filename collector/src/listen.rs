//! Connections: TCP with mutual TLS, and a unix socket that asks the kernel who is there.
//!
//! Both kinds come out of one stream, each connection already with the [`Peer`] behind it. A peer
//! that cannot be told is never served. Handshakes run beside each other and are bounded in number
//! and time, so that neither garbage nor silence on the port holds up anyone else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::identity::{IdentityError, Peer, own_host, serial_of};
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX};
use crate::revocation::{Certificate, Revocations};

/// A connection whose peer is known.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    peer: Peer,
    /// Ready when the peer's certificate is revoked.
    revoked: Revoked,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Channel {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Waits until a certificate is revoked.
struct Revoked(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for Revoked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Revoked")
    }
}

/// Where connections come out.
pub type Connections = mpsc::Receiver<io::Result<Connection>>;

/// Puts connections in.
#[derive(Clone, Debug)]
pub struct Acceptor {
    places: Arc<Semaphore>,
    connections: mpsc::Sender<io::Result<Connection>>,
}

/// Both ends of the stream of connections.
pub fn acceptor() -> (Acceptor, Connections) {
    let (connections, receiver) = mpsc::channel(HANDSHAKES_MAX);
    (Acceptor { places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), connections }, receiver)
}

impl Acceptor {
    /// Accepts on a TCP port until the stream of connections is dropped.
    pub async fn tcp(
        self,
        listener: TcpListener,
        config: Arc<ServerConfig>,
        revocations: Revocations,
    ) {
        let tls = TlsAcceptor::from(config);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Some(place) = self.place().await {
            let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        pause(&error).await;
                        continue;
                    }
                },
                () = self.connections.closed() => return,
            };
            let (tls, connections) = (tls.clone(), self.connections.clone());
            let revocations = revocations.clone();
            tokio::spawn(async move {
                let _handshake = handshake;
                let shaken = time::timeout(HANDSHAKE_TIME_MAX, shake_hands(stream, tls)).await;
                match shaken {
                    Ok(Ok((_, peer, certificate))) if revocations.refuse(&certificate) => {
                        let serial = certificate.serial;
                        tracing::warn!(%address, %peer, serial, "connection refused: revoked");
                    }
                    Ok(Ok((stream, peer, certificate))) => {
                        let (channel, peer) = (Channel::Tls(Box::new(stream)), peer.at(address));
                        let revoked = Revoked(Box::pin(revocations.refused(certificate)));
                        let connection = Connection { channel, peer, revoked, _place: place };
                        let _ = connections.send(Ok(connection)).await;
                    }
                    Ok(Err(reason)) => tracing::warn!(%address, reason, "connection refused"),
                    Err(_) => tracing::warn!(%address, "connection refused: no TLS in time"),
                }
            });
        }
    }

    /// Accepts on a unix socket; root and `own_uid` may enter.
    pub async fn unix(self, listener: UnixListener, own_uid: u32) {
        let host = own_host();
        while let Some(place) = self.place().await {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        pause(&error).await;
                        continue;
                    }
                },
                () = self.connections.closed() => return,
            };
            let uid = match stream.peer_cred() {
                Ok(credentials) => credentials.uid(),
                Err(error) => {
                    tracing::warn!(%error, "unix socket: the kernel does not say who it is");
                    continue;
                }
            };
            let Some(peer) = Peer::from_local_uid(uid, own_uid, &host) else {
                tracing::warn!(uid, "unix socket: only root and the collector's user may enter");
                continue;
            };
            let channel = Channel::Unix(stream);
            let revoked = Revoked(Box::pin(std::future::pending()));
            let connection = Connection { channel, peer, revoked, _place: place };
            if self.connections.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => place.ok(),
            () = self.connections.closed() => None,
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: TlsAcceptor,
) -> Result<(TlsStream<TcpStream>, Peer, Certificate), String> {
    // Acknowledgements are small and awaited.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = tls.accept(stream).await.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|list| list.first());
    let certificate = certificate.ok_or_else(|| IdentityError::NoCertificate.to_string())?;
    let peer = Peer::from_certificate(certificate).map_err(|error| error.to_string())?;
    let serial = serial_of(certificate).map_err(|error| error.to_string())?;
    let certificate = Certificate { identity: peer.identity().unwrap_or_default(), serial };
    Ok((stream, peer, certificate))
}

/// `accept` fails when the process is out of descriptors: others must close first.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    time::sleep(ACCEPT_PAUSE).await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.revoked.0.as_mut().poll(context).is_ready() {
            tracing::warn!(peer = %this.peer, "connection ended: its certificate is revoked");
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut this.channel {
            Channel::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Channel::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().channel {
            Channel::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Channel::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Tls(stream) => Pin::new(stream).poll_flush(context),
            Channel::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Channel::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
