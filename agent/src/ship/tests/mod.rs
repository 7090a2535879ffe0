//! Delivery against collectors that behave badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod collector;
mod delivery;
mod tls;

use std::path::Path;
use std::time::Duration;

use sekimori_proto::v1::{Event, Kind};

use super::*;
use crate::config::Address;
use crate::spool::{Lane, Spool, SpoolConfig};

/// Time of flushes, later than any event.
const NOW_NS: i64 = 1 << 40;
/// Longest wait of a test; nothing normal comes near it.
const PATIENCE: Duration = Duration::from_secs(30);

fn spool(directory: &Path) -> SharedSpool {
    SharedSpool::new(Spool::open(directory, SpoolConfig::default()).unwrap().0)
}

fn unix(path: &Path) -> Collector {
    Collector { address: Address::Unix(path.into()), tls: None }
}

fn event(number: u64) -> Event {
    let message = format!("出来事 {number}");
    Event { kind: Kind::Exec.into(), time_ns: number as i64, message, ..Event::default() }
}

/// Appends events with these numbers as their times, every tenth as an alert.
fn fill(spool: &SharedSpool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let lane = if number % 10 == 0 { Lane::Alerts } else { Lane::Telemetry };
        spool.append(lane, &event(number)).unwrap();
    }
    spool.flush(NOW_NS).unwrap();
}

/// Waits until `good` holds for the status.
async fn until(shipper: &Shipper, good: impl FnMut(&ShipStatus) -> bool) -> ShipStatus {
    let mut status = shipper.status();
    if let Ok(good) = tokio::time::timeout(PATIENCE, status.wait_for(good)).await {
        return good.expect("the shipper lives").clone();
    }
    panic!("too late: {:?}", *shipper.status().borrow())
}
