//! A connection as the SMTP client wants it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::SMTP_BYTES_MAX;

/// What the client waits for first, and a server does not say again behind STARTTLS.
const GREETING: &[u8] = b"220 encrypted\r\n";

/// Reads no more than a mail server has to say: the client itself looks at the length of a line
/// when it has all of it.
pub(super) struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    /// Is read before the stream.
    ahead: &'static [u8],
    /// Bytes that may still be read.
    left: usize,
}

impl<S> Bounded<S> {
    /// A connection whose server speaks first.
    pub(super) const fn new(stream: S, peer: SocketAddr) -> Bounded<S> {
        Bounded { stream, peer, ahead: &[], left: SMTP_BYTES_MAX }
    }

    /// A connection whose server greeted before it was encrypted.
    pub(super) const fn greeted(stream: S, peer: SocketAddr) -> Bounded<S> {
        Bounded { stream, peer, ahead: GREETING, left: SMTP_BYTES_MAX }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let (now, later) = this.ahead.split_at(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.ahead = later;
            return Poll::Ready(Ok(()));
        }
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other("the mail server says too much")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.left = this.left.saturating_sub(buffer.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> AsyncTokioStream for Bounded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S> fmt::Debug for Bounded<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Bounded({})", self.peer)
    }
}
