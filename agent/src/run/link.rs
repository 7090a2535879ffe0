//! What connects the agent with its collector: delivery, renewal, and the word both ways.

use std::net::SocketAddr;

use sekimori_proto::v1::{HostState, Isolation, PolicyBundle};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Collector;
use crate::credentials;
use crate::ship::{News, Peers, Shipper};
use crate::spool::SharedSpool;

/// The tasks that run, and the ends of their channels.
pub(super) struct Link {
    pub shipper: Shipper,
    /// Renews the certificate; ends with the agent.
    pub renewing: JoinHandle<()>,
    /// How the agent stands, for the collector.
    pub states: watch::Sender<Option<HostState>>,
    /// The collector's order to cut this host off, or to let it be, as it comes.
    pub ordered: watch::Receiver<Option<Isolation>>,
    /// The collector's policy for this host, as it comes.
    pub offered: watch::Receiver<Option<PolicyBundle>>,
    /// Where the collector was found last.
    pub peers: Peers,
}

impl Link {
    /// Starts them. `known` is where an earlier agent found the collector.
    pub fn start(collector: &Collector, spool: &SharedSpool, known: Vec<SocketAddr>) -> Self {
        let (states, state) = watch::channel(None);
        let (renewals, renewed) = watch::channel(());
        let (orders, ordered) = watch::channel(None);
        let peers = Peers::known(known);
        let (policies, offered) = watch::channel(None);
        let news = News { state, renewed, orders, policies, peers: peers.clone() };
        let shipper = Shipper::start(collector.clone(), spool.clone(), news);
        let renewing = credentials::keep(collector.clone(), peers.clone(), renewals);
        Self { shipper, renewing: tokio::spawn(renewing), states, ordered, offered, peers }
    }
}
