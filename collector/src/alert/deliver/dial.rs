//! From a name to a connection, by the egress list. No proxy is asked, whatever the environment
//! says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::egress::Egress;
use super::error::{Fault, SendError};
use super::target::{Host, Target};
use crate::limits::{ADDRESSES_TRIED_MAX, CONNECT_TIME_MAX};

/// A way to one host that the list has.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) target: Target,
    egress: Egress,
}

impl Dial {
    /// Refuses what the list does not have.
    pub(super) fn new(target: Target, egress: &Egress) -> Result<Dial, Fault> {
        if !egress.permits(&target) {
            return Err(Fault::Egress(target));
        }
        Ok(Dial { target, egress: egress.clone() })
    }

    /// Connects to the first address that answers.
    pub(super) async fn connect(&self) -> Result<TcpStream, SendError> {
        let mut reasons = Vec::new();
        for address in self.addresses().await? {
            match timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => reasons.push(format!("{}: {error}", address.ip())),
                Err(_) => reasons.push(format!("{}: no answer", address.ip())),
            }
        }
        let reasons = reasons.join("; ");
        Err(SendError::retry(format!("cannot connect to {} ({reasons})", self.target)))
    }

    /// The addresses that may be connected to, in the resolver's order.
    ///
    /// # Errors
    /// The name is not known, or leads nowhere but to where nothing may be sent.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, SendError> {
        let Target { host, port } = &self.target;
        let found = match host {
            Host::Address(address) => vec![SocketAddr::new(*address, *port)],
            Host::Name(name) => lookup_host((name.as_str(), *port))
                .await
                .map_err(|error| SendError::retry(format!("cannot resolve {name}: {error}")))?
                .collect(),
        };
        self.admitted(&found)
    }

    /// What is left of them by the list.
    pub(super) fn admitted(&self, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, SendError> {
        let Target { port, .. } = self.target;
        let mut addresses = Vec::new();
        let mut refused = None;
        for address in found {
            match self.egress.admits(&self.target, address.ip()) {
                Ok(()) if addresses.len() < ADDRESSES_TRIED_MAX => addresses.push(*address),
                Ok(()) => {}
                Err(what) => refused = Some((address.ip(), what)),
            }
        }
        match (addresses.is_empty(), refused) {
            (false, _) => Ok(addresses),
            (true, None) => Err(SendError::retry(format!("{} has no address", self.target))),
            (true, Some((address, what))) => {
                let entry = match address {
                    IpAddr::V4(it) => format!("{it}:{port}"),
                    IpAddr::V6(it) => format!("[{it}]:{port}"),
                };
                Err(SendError::retry(format!(
                    "{} leads to {address}, which is {what}: add `{entry}` to `egress` if that is \
                     meant",
                    self.target
                )))
            }
        }
    }
}

/// Runs `sending` to its end, or to the end of its time.
pub(super) async fn within<T>(
    time_max: Duration,
    target: &Target,
    sending: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    timeout(time_max, sending).await.unwrap_or_else(|_| Err(SendError::late(target, time_max)))
}
