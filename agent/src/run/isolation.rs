//! The last order of the collector to cut this host off, or to let it be: a file beside the spool.
//!
//! It is on the disk before the order is carried out, so that neither a kill nor a restart of the
//! machine lets the host back onto the network. A file that cannot be read counts as no order: the
//! collector, which knows better, sends the order again.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

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
