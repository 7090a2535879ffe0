//! The TCP connection to the collector.
//!
//! Whoever is cut off from the network cannot ask for the address of a name any more. The addresses
//! that were found last are kept, and tried when no better ones are to be had.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::limits;

/// Addresses of the collector that were found last.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// The one that was connected last.
    used: Option<SocketAddr>,
}

impl Peers {
    /// Those that an earlier agent found.
    #[must_use]
    pub fn known(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(Known { addresses, used: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    #[must_use]
    pub fn get(&self) -> Vec<SocketAddr> {
        self.lock().addresses.clone()
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
        self.lock().addresses.clone_from(&found);
        found
    }

    /// Puts the address that was connected last behind all others: whoever connects again was refused
    /// there, or cut off.
    fn others_first(&self, addresses: &mut [SocketAddr]) {
        let used = self.lock().used;
        addresses.sort_by_key(|address| Some(*address) == used);
    }
}

/// Connects to the first address that answers, of several to another one than the last time.
pub(super) async fn dial(host: &str, port: u16, peers: &Peers) -> io::Result<TcpStream> {
    let mut last =
        io::Error::new(io::ErrorKind::NotFound, format!("no address of {host} is known"));
    let mut addresses = peers.look_up(host, port).await;
    peers.others_first(&mut addresses);
    for address in addresses {
        match timeout(limits::DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Batches are large, and their answers awaited.
                stream.set_nodelay(true)?;
                peers.lock().used = Some(address);
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
    /// A collector whose disk is full answers, and refuses what it is sent.
    #[tokio::test]
    async fn who_comes_again_goes_to_another_one() {
        let here = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (first, second) = (here().await, here().await);
        let addresses = [&first, &second].map(|it| it.local_addr().unwrap());
        let peers = Peers::known(addresses.to_vec());
        let mut seen = Vec::new();
        for _ in 0..4 {
            let stream = dial("no-such-host.invalid", 1, &peers).await.unwrap();
            seen.push(stream.peer_addr().unwrap());
        }
        assert_eq!(seen, [addresses[0], addresses[1], addresses[0], addresses[1]]);
        drop(second);
        for _ in 0..2 {
            let stream = dial("no-such-host.invalid", 1, &peers).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addresses[0]);
        }
    }
}
