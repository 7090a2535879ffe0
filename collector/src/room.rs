//! Room for connections: not all of it for one address, nor for one certificate.

use std::net::IpAddr;

use crate::crowd::{Crowd, Place};
use crate::enroll::network;
use crate::limits::{HANDSHAKES_MAX, PEER_CONNECTIONS_MAX, STRANGERS_MAX, STRANGERS_OF_ONE_MAX};

/// Whoever shakes hands.
#[derive(Clone, Debug, Default)]
pub struct Handshakes(Crowd<IpAddr>);

/// Whoever showed no certificate: there are few of them.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Crowd<IpAddr>);

/// Whoever showed one.
#[derive(Clone, Debug, Default)]
pub struct Peers(Crowd<String>);

/// A place of a connection.
#[derive(Debug)]
pub enum Room {
    /// Of a stranger.
    Stranger { _place: Place<IpAddr> },
    /// Of a peer.
    Peer { _place: Place<String> },
}

impl Handshakes {
    /// A place for someone from this address, who may have as many as are left for all others: so
    /// nobody can take the last one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(&self, address: IpAddr) -> Result<Place<IpAddr>, String> {
        self.0.enter(network(address), |own, all| {
            if own < HANDSHAKES_MAX.saturating_sub(all) {
                return Ok(());
            }
            Err(format!("{own} connections from there shake hands already"))
        })
    }
}

impl Strangers {
    /// A place for someone from this address.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(&self, address: IpAddr) -> Result<Room, String> {
        let place = self.0.enter(network(address), |own, all| {
            if all >= STRANGERS_MAX {
                return Err(format!("{STRANGERS_MAX} connections have no certificate already"));
            }
            if own >= STRANGERS_OF_ONE_MAX {
                return Err(format!(
                    "{STRANGERS_OF_ONE_MAX} connections from there have no certificate already"
                ));
            }
            Ok(())
        });
        place.map(|_place| Room::Stranger { _place })
    }
}

impl Peers {
    /// A place for someone with a certificate of this identity.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(&self, identity: &str) -> Result<Room, String> {
        let place = self.0.enter(identity.to_owned(), |own, _| {
            if own < PEER_CONNECTIONS_MAX {
                return Ok(());
            }
            Err(format!("{identity} has {PEER_CONNECTIONS_MAX} connections already"))
        });
        place.map(|_place| Room::Peer { _place })
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

    #[test]
    fn whoever_shakes_hands_leaves_as_many_places_as_they_take() {
        let handshakes = Handshakes::default();
        let enter = |address: &str| handshakes.enter(address.parse().unwrap());
        let fill = |address| std::iter::from_fn(|| enter(address).ok()).collect::<Vec<_>>();
        let first = fill("192.0.2.1");
        assert_eq!(first.len(), HANDSHAKES_MAX / 2);
        let second = fill("192.0.2.2");
        assert_eq!(second.len(), HANDSHAKES_MAX / 4);
        enter("192.0.2.3").unwrap();
        drop(first);
        enter("192.0.2.1").unwrap();
    }

    #[test]
    fn one_certificate_does_not_take_all_places() {
        let peers = Peers::default();
        let kept: Vec<_> =
            (0..PEER_CONNECTIONS_MAX).map(|_| peers.enter("sekimori:agent:a").unwrap()).collect();
        let full = peers.enter("sekimori:agent:a").unwrap_err();
        assert_eq!(full, "sekimori:agent:a has 64 connections already");
        peers.enter("sekimori:agent:b").unwrap();
        drop(kept);
        peers.enter("sekimori:agent:a").unwrap();
    }
}
