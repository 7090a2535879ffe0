//! The TCP connection to the collector.
//!
//! Whoever is cut off from the network cannot ask for the address of a name any more. The addresses
//! that were found last are kept, and tried when no better ones are to be had.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::limits;

/// Addresses of the collector that were found last.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Mutex<Vec<SocketAddr>>>);

impl Peers {
    /// Those that an earlier agent found.
    #[must_use]
    pub fn known(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(addresses)))
    }

    /// All of them.
    #[must_use]
    pub fn get(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks the host up afresh; what was known stays when that fails.
    pub async fn look_up(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        let found = timeout(limits::LOOKUP_TIMEOUT, lookup_host((host, port))).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.take(limits::PEERS_MAX).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        if found.is_empty() {
            return self.get();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }
}

/// Connects to the first address that answers.
pub(super) async fn dial(host: &str, port: u16, peers: &Peers) -> io::Result<TcpStream> {
    let mut last =
        io::Error::new(io::ErrorKind::NotFound, format!("no address of {host} is known"));
    for address in peers.look_up(host, port).await {
        match timeout(limits::DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Batches are large, and their answers awaited.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_resolver_the_last_addresses_are_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Peers::known(vec![address]);
        let stream = dial("no-such-host.invalid", 1, &peers).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert_eq!(peers.get(), [address]);
        let nobody = dial("no-such-host.invalid", 1, &Peers::default()).await.unwrap_err();
        assert!(nobody.to_string().contains("no-such-host.invalid"), "{nobody}");
    }
}
