//! Room for connections without a certificate: little, and not all of it for one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::enroll::network;
use crate::limits::{STRANGERS_MAX, STRANGERS_OF_ONE_MAX};

/// Who is there now.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub struct StrangerPlace {
    strangers: Strangers,
    network: IpAddr,
}

impl Strangers {
    /// A place for someone from this address, or why there is none.
    pub fn enter(&self, address: IpAddr) -> Result<StrangerPlace, String> {
        let network = network(address);
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.values().sum::<usize>() >= STRANGERS_MAX {
            return Err(format!("{STRANGERS_MAX} connections have no certificate already"));
        }
        let own = places.entry(network).or_default();
        if *own >= STRANGERS_OF_ONE_MAX {
            return Err(format!(
                "{STRANGERS_OF_ONE_MAX} connections from there have no certificate already"
            ));
        }
        *own += 1;
        Ok(StrangerPlace { strangers: self.clone(), network })
    }
}

impl Drop for StrangerPlace {
    fn drop(&mut self) {
        let mut places = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.network) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                places.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_address_does_not_take_all_places() {
        let strangers = Strangers::default();
        let enter = |address: &str| strangers.enter(address.parse().unwrap());
        let mut kept: Vec<_> =
            (0..STRANGERS_OF_ONE_MAX).map(|_| enter("192.0.2.1").unwrap()).collect();
        enter("192.0.2.1").unwrap_err();
        for last in 2..=4 {
            let own = (0..STRANGERS_OF_ONE_MAX).map(|_| enter(&format!("192.0.2.{last}")).unwrap());
            kept.extend(own);
        }
        let full = enter("192.0.2.9").unwrap_err();
        assert_eq!(full, "64 connections have no certificate already");
        kept.pop();
        enter("192.0.2.9").unwrap();
    }
}
