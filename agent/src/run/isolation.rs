//! The last order of the collector to cut this host off, or to let it be: a file beside the spool.
//!
//! It is on the disk before the order is carried out, so that neither a kill nor a restart of the
//! machine lets the host back onto the network. A file that cannot be read counts as no order: the
//! collector, which knows better, sends the order again.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use sekimori_proto::v1::Isolation;
use serde::{Deserialize, Serialize};

use super::{Agent, word};
use crate::config::Address;
use crate::limits::ORDER_BYTES_MAX;

const NAME: &str = "isolation.json";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Order {
    /// The collector's number of it.
    pub order: u64,
    /// The host is to be cut off.
    pub isolated: bool,
    /// Why.
    pub reason: String,
    /// Who ordered it.
    pub by: String,
    /// Where the collector is: nobody can look that up any more.
    pub collector: Vec<SocketAddr>,
}

impl Order {
    /// Reads the file.
    pub fn read(directory: &Path) -> Self {
        let path = directory.join(NAME);
        match read_bounded(&path) {
            Ok(order) => order,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::error!(%error, "{} cannot be read: the host counts as not cut off until \
                    the collector orders it again", path.display());
                Self::default()
            }
        }
    }

    /// What it means for the policy.
    pub fn isolation(&self) -> Option<sekimori_policy::Isolation> {
        let collector = self.collector.clone();
        self.isolated.then_some(sekimori_policy::Isolation { collector })
    }

    /// Replaces the file, and waits until the disk has it.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("isolation.json.tmp");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, directory.join(NAME))?;
        File::open(directory)?.sync_all()
    }
}

impl Agent {
    /// Tells the collector how the agent stands.
    pub(super) fn say_word(&self) {
        self.link.states.send_replace(Some(word::state(self)));
    }

    /// The collector orders to cut this host off, or to let it be.
    pub(super) async fn take_order(&mut self) {
        let Some(order) = self.link.ordered.borrow_and_update().clone() else {
            return;
        };
        let Isolation { order, isolated, reason, by } = order;
        // One that came again, or an old one: the collector is told which is in force.
        if order > self.order.order {
            let collector = match &self.config.collector.address {
                Address::Https(_) if isolated => self.link.peers.get(),
                _ => Vec::new(),
            };
            let order = Order { order, isolated, reason, by, collector };
            if let Err(error) = order.write(&self.config.spool.directory) {
                // It comes again, and meanwhile it is carried out all the same.
                tracing::error!(%error, "the collector's order cannot be kept over a restart");
            }
            self.order = order;
        }
        self.carry_out();
        self.say_word();
    }

    /// Puts the policy in force with the last order, if that is not in force yet.
    pub(super) fn carry_out(&mut self) {
        if self.order == self.carried_out {
            return;
        }
        self.keeper.isolate(self.order.isolation());
        match self.take(self.keeper.again()) {
            Ok(_) => {
                self.carried_out = self.order.clone();
                let Order { isolated, reason, by, .. } = &self.order;
                let what = if *isolated {
                    "this host is cut off from every peer but the collector"
                } else {
                    "this host is not cut off any more"
                };
                self.pipeline.alert(format!("{what}, by order of {by}: {reason}"));
            }
            Err((reason, _)) => {
                self.keeper.isolate(self.carried_out.isolation());
                self.pipeline.alert(format!(
                    "the order about the isolation of this host could not be carried out, and is \
                     tried again: {reason}"
                ));
            }
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Order> {
    let mut text = Vec::new();
    File::open(path)?.take(ORDER_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Order;

    #[test]
    fn it_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Order::read(directory.path()), Order::default());
        let order = Order {
            order: 7,
            isolated: true,
            reason: "マルウェアの疑い".to_owned(),
            by: "admin jiro".to_owned(),
            collector: vec!["[2001:db8::7]:7443".parse().unwrap()],
        };
        order.write(directory.path()).unwrap();
        assert_eq!(Order::read(directory.path()), order);
        std::fs::write(directory.path().join("isolation.json"), "{").unwrap();
        assert_eq!(Order::read(directory.path()), Order::default());
    }
}
