//! Who is there now, and how many of them are alike.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everybody who has a place, told apart by what they have in common.
#[derive(Clone, Debug)]
pub struct Crowd<K>(Arc<Mutex<HashMap<K, usize>>>);

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    crowd: Crowd<K>,
    who: K,
}

impl<K> Default for Crowd<K> {
    fn default() -> Crowd<K> {
        Crowd(Arc::default())
    }
}

impl<K> Crowd<K> {
    fn places(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// A place, if `may` says so, which is told how many of those that are alike have one, and how
    /// many there are in all.
    ///
    /// # Errors
    /// What `may` says.
    pub fn enter<E>(
        &self,
        who: K,
        may: impl FnOnce(usize, usize) -> Result<(), E>,
    ) -> Result<Place<K>, E> {
        let mut places = self.places();
        may(places.get(&who).copied().unwrap_or(0), places.values().sum())?;
        *places.entry(who.clone()).or_default() += 1;
        drop(places);
        Ok(Place { crowd: self.clone(), who })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = self.crowd.places();
        if let Some(own) = places.get_mut(&self.who) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                places.remove(&self.who);
            }
        }
    }
}
