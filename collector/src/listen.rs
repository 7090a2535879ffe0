//! Connections: TCP with mutual TLS, and a unix socket that asks the kernel who is there.
//!
//! Both kinds come out of one stream, each connection already with the [`Caller`] behind it.
//! Whoever shows no certificate is a stranger: there is room for few of them, and not for long.
//! Handshakes run beside each other and are bounded in number and time, in all and for each
//! address, so that neither garbage nor silence on the port holds up anyone else.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{self, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::identity::{Caller, Peer, own_host};
use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX, PREFACE_TIME_MAX,
    STRANGER_TIME_MAX,
};
use crate::revocation::{Certificate, Revocations};
use crate::room::{Handshakes, Peers, Room, Strangers};

/// A connection whose peer is known.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    caller: Caller,
    /// Ready when it must end.
    end: End,
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
    _room: Option<Room>,
}

#[derive(Debug)]
enum Channel {
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// What a peer has to say first, so that the transport begins to ask whether it is there.
#[derive(Debug)]
struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

/// Bytes of it (RFC 9113, 3.4).
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

impl Preface {
    fn new() -> Preface {
        let deadline = Box::pin(time::sleep(PREFACE_TIME_MAX));
        Preface { missing: PREFACE_BYTES, deadline }
    }
}

/// Waits until a connection must end, and says why.
struct End(Pin<Box<dyn Future<Output = &'static str> + Send>>);

impl std::fmt::Debug for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("End")
    }
}

/// Connections that were refused, by why: no TLS with an own certificate (`handshake`), no place left
/// (`room`), or a certificate that says nothing or is revoked, and a stranger at the unix socket
/// (`identity`).
pub type Refusals = Family<[(&'static str, &'static str); 1], Counter>;

/// Why a connection is refused, for the log and for the count.
#[derive(Debug)]
enum Refusal {
    Handshake(String),
    Room(String),
    Identity(String),
}

impl Refusal {
    fn tell(&self, refusals: &Refusals, address: &dyn std::fmt::Display) {
        let (kind, reason) = match self {
            Refusal::Handshake(reason) => ("handshake", reason),
            Refusal::Room(reason) => ("room", reason),
            Refusal::Identity(reason) => ("identity", reason),
        };
        refusals.get_or_create(&[("reason", kind)]).inc();
        tracing::warn!(%address, reason, "connection refused");
    }
}

/// Where connections come out.
pub type Connections = mpsc::Receiver<io::Result<Connection>>;

/// Puts connections in.
#[derive(Clone, Debug)]
pub struct Acceptor {
    places: Arc<Semaphore>,
    connections: mpsc::Sender<io::Result<Connection>>,
    refusals: Refusals,
}

/// Both ends of the stream of connections.
pub fn acceptor(refusals: Refusals) -> (Acceptor, Connections) {
    let (connections, receiver) = mpsc::channel(HANDSHAKES_MAX);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    (Acceptor { places, connections, refusals }, receiver)
}

impl Acceptor {
    /// Accepts on a TCP port until the stream of connections is dropped.
    pub async fn tcp(
        self,
        listener: TcpListener,
        config: watch::Receiver<Arc<ServerConfig>>,
        revocations: Revocations,
    ) {
        let (shaking, strangers, peers) =
            (Handshakes::default(), Strangers::default(), Peers::default());
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
            // The certificates may be others than those of the connection before.
            let tls = TlsAcceptor::from(Arc::clone(&config.borrow()));
            let connections = self.connections.clone();
            let own = match shaking.enter(address.ip()) {
                Ok(own) => own,
                Err(reason) => {
                    Refusal::Room(reason).tell(&self.refusals, &address);
                    continue;
                }
            };
            let refusals = self.refusals.clone();
            let guards = (revocations.clone(), strangers.clone(), peers.clone());
            tokio::spawn(async move {
                let _handshake = (handshake, own);
                let shaken = time::timeout(HANDSHAKE_TIME_MAX, shake_hands(stream, tls)).await;
                let shaken =
                    shaken.unwrap_or_else(|_| Err(Refusal::Handshake("no TLS in time".to_owned())));
                let stream = match shaken {
                    Ok(stream) => stream,
                    Err(refusal) => return refusal.tell(&refusals, &address),
                };
                match admit(&stream, address, &guards) {
                    Ok(Admitted { caller, end, room }) => {
                        let connection = Connection {
                            channel: Channel::Tls(Box::new(stream)),
                            caller,
                            end,
                            preface: Some(Preface::new()),
                            _place: place,
                            _room: Some(room),
                        };
                        let _ = connections.send(Ok(connection)).await;
                    }
                    Err(refusal) => refusal.tell(&refusals, &address),
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
                    let reason = format!("the kernel does not say who it is: {error}");
                    Refusal::Identity(reason).tell(&self.refusals, &"unix socket");
                    continue;
                }
            };
            let Some(peer) = Peer::from_local_uid(uid, own_uid, &host) else {
                let reason = format!("uid {uid}: only root and the collector's user may enter");
                Refusal::Identity(reason).tell(&self.refusals, &"unix socket");
                continue;
            };
            let channel = Channel::Unix(stream);
            let connection = Connection {
                channel,
                caller: Caller::Known(peer),
                end: End(Box::pin(std::future::pending())),
                preface: Some(Preface::new()),
                _place: place,
                _room: None,
            };
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

async fn shake_hands(stream: TcpStream, tls: TlsAcceptor) -> Result<TlsStream<TcpStream>, Refusal> {
    let failed = |error: io::Error| Refusal::Handshake(error.to_string());
    // Acknowledgements are small and awaited.
    stream.set_nodelay(true).map_err(failed)?;
    tls.accept(stream).await.map_err(failed)
}

/// Who has come in, and until when.
struct Admitted {
    caller: Caller,
    end: End,
    room: Room,
}

fn admit(
    stream: &TlsStream<TcpStream>,
    address: SocketAddr,
    (revocations, strangers, peers): &(Revocations, Strangers, Peers),
) -> Result<Admitted, Refusal> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|list| list.first());
    let Some(certificate) = certificate else {
        let room = strangers.enter(address.ip()).map_err(Refusal::Room)?;
        let end = End(Box::pin(async {
            time::sleep(STRANGER_TIME_MAX).await;
            "it showed no certificate and had its time"
        }));
        return Ok(Admitted { caller: Caller::stranger(address), end, room });
    };
    let peer = Peer::from_certificate(certificate);
    let peer = peer.map_err(|error| Refusal::Identity(error.to_string()))?.at(address);
    let nothing = || Refusal::Identity("its certificate says nothing".to_owned());
    let shown = peer.shown().ok_or_else(nothing)?;
    let (identity, serial) = (peer.identity().unwrap_or_default(), shown.serial.clone());
    let certificate = Certificate { identity, serial };
    if revocations.refuse(&certificate) {
        let reason = format!("the certificate {} of {peer} is revoked", certificate.serial);
        return Err(Refusal::Identity(reason));
    }
    let room = peers.enter(&certificate.identity).map_err(Refusal::Room)?;
    let (revoked, left) = (revocations.clone().refused(certificate), time_left(shown.until_s));
    let end = End(Box::pin(async move {
        tokio::select! {
            () = revoked => "its certificate is revoked",
            () = time::sleep(left) => "its certificate has ended",
        }
    }));
    Ok(Admitted { caller: Caller::Known(peer), end, room })
}

fn time_left(until_s: i64) -> Duration {
    let left = until_s.saturating_sub(jiff::Timestamp::now().as_second());
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

/// `accept` fails when the process is out of descriptors: others must close first.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    time::sleep(ACCEPT_PAUSE).await;
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let late = this.preface.as_mut().map(|it| it.deadline.as_mut().poll(context).is_ready());
        let end = match late {
            Some(true) => Poll::Ready("it began no HTTP/2 in time"),
            _ => this.end.0.as_mut().poll(context),
        };
        if let Poll::Ready(reason) = end {
            tracing::warn!(caller = %this.caller, "connection ended: {reason}");
            // A future that is done is not asked again.
            this.preface = None;
            this.end = End(Box::pin(std::future::ready(reason)));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let polled = match &mut this.channel {
            Channel::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Channel::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if let Some(preface) = &mut this.preface {
            let read = buffer.filled().len().saturating_sub(before);
            preface.missing = preface.missing.saturating_sub(read);
            if preface.missing == 0 {
                this.preface = None;
            }
        }
        polled
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
