//! How often somebody may do what costs the collector something: by address or by name.
//!
//! Nobody waits here: what comes too early is refused. The state of one is a single time, so that
//! many can be known at once, and whoever was idle is forgotten first, which costs nothing: they
//! would be free again anyway.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// The pace of many.
#[derive(Debug)]
pub struct Paces<K: Hash + Eq> {
    interval: Duration,
    burst: u32,
    next: Mutex<LruCache<K, Instant>>,
}

impl<K: Hash + Eq> Paces<K> {
    /// One each `interval` in the long run, `burst` at one go; `kept` are known at one time.
    pub fn new(interval: Duration, burst: u32, kept: usize) -> Paces<K> {
        let kept = std::num::NonZeroUsize::new(kept).unwrap_or(std::num::NonZeroUsize::MIN);
        Paces { interval, burst, next: Mutex::new(LruCache::new(kept)) }
    }

    /// Whether it may be now; if so it counts.
    pub fn allows(&self, key: K, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.get(&key).map_or(now, |next| (*next).max(now));
        if due.duration_since(now) > self.interval * self.burst.saturating_sub(1) {
            return false;
        }
        next.put(key, due + self.interval);
        true
    }

    /// The last one did not cost anything after all.
    pub fn give_back(&self, key: &K) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = next.get_mut(key) {
            *next = next.checked_sub(self.interval).unwrap_or(*next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_and_then_one_by_one() {
        let paces = Paces::new(SECOND, 3, 2);
        let now = Instant::now();
        let allowed = |key, now| paces.allows(key, now);
        assert_eq!([0; 4].map(|_| allowed("a", now)), [true, true, true, false]);
        assert!(allowed("b", now), "another one is not held up");
        assert_eq!([0; 2].map(|_| allowed("a", now + SECOND)), [true, false]);
        paces.give_back(&"a");
        assert_eq!([0; 2].map(|_| allowed("a", now + SECOND)), [true, false]);
    }

    #[test]
    fn who_is_forgotten_is_free() {
        let paces = Paces::new(SECOND, 1, 1);
        let now = Instant::now();
        assert!(paces.allows(1, now) && !paces.allows(1, now));
        assert!(paces.allows(2, now) && paces.allows(1, now));
    }
}
