//! How much happened in the last while, in bounded memory.
//!
//! A window is cut into parts; what happened is counted by part. So it is a part longer at most than
//! it is said to be, and its size does not depend on how much happens.

use std::collections::VecDeque;
use std::time::Duration;

/// Parts of a window.
const PARTS: i64 = 64;

/// How much is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Events.
    Count(u64),
    /// Bytes that were written or sent.
    Bytes(u64),
}

/// Events and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Events.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Limit {
    fn is_reached(self, amount: Amount) -> bool {
        match self {
            Limit::Count(count) => amount.count >= count,
            Limit::Bytes(bytes) => amount.bytes >= bytes,
        }
    }
}

/// What happened lately.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Number of the part, from 1970 on, and what happened in it; in order.
    parts: VecDeque<(i64, Amount)>,
}

impl Window {
    /// Something happened; answers how much did in the window that ends with it. What is older than
    /// what is known of by a whole window is not kept.
    pub fn add(&mut self, time_ns: i64, within: Duration, amount: Amount) -> Amount {
        let length = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
        let part = time_ns.div_euclid((length / PARTS).max(1));
        match self.parts.binary_search_by_key(&part, |(part, _)| *part) {
            Ok(place) => {
                if let Some((_, known)) = self.parts.get_mut(place) {
                    known.add(amount);
                }
            }
            Err(place) => self.parts.insert(place, (part, amount)),
        }
        let newest = self.parts.back().map_or(part, |(part, _)| *part);
        while self.parts.front().is_some_and(|(part, _)| *part < newest - PARTS) {
            self.parts.pop_front();
        }
        let mut sum = Amount::default();
        let of_window = self.parts.iter().filter(|(it, _)| (part - PARTS..=part).contains(it));
        of_window.for_each(|(_, amount)| sum.add(*amount));
        sum
    }
}

/// How far a sequence has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    windows: Vec<Window>,
    /// When each stage was met last, UTC ns since 1970.
    met: Vec<Option<i64>>,
}

impl Progress {
    /// An event belongs to a stage. Answers how much happened there when with it all stages are met
    /// in their order, within the time.
    pub fn add(
        &mut self,
        limits: &[Limit],
        stage: usize,
        time_ns: i64,
        within: Duration,
        amount: Amount,
    ) -> Option<Amount> {
        self.windows.resize_with(limits.len(), Window::default);
        self.met.resize(limits.len(), None);
        let sum = self.windows.get_mut(stage)?.add(time_ns, within, amount);
        if !limits.get(stage)?.is_reached(sum) {
            return None;
        }
        *self.met.get_mut(stage)? = Some(time_ns);
        let length = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
        let mut before = None;
        for met in &self.met {
            let met = (*met)?;
            if before.is_some_and(|before| before > met) {
                return None;
            }
            before = Some(met);
        }
        let (first, last) = (self.met.first()?.as_ref()?, before?);
        (last.saturating_sub(*first) <= length).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const MINUTE: Duration = Duration::from_secs(60);

    fn one(bytes: u64) -> Amount {
        Amount { count: 1, bytes }
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let mut window = Window::default();
        assert_eq!(window.add(1000 * SECOND, MINUTE, one(5)).count, 1);
        assert_eq!(window.add(1030 * SECOND, MINUTE, one(5)), Amount { count: 2, bytes: 10 });
        assert_eq!(window.add(1080 * SECOND, MINUTE, one(5)).count, 2);
        assert_eq!(window.add(1200 * SECOND, MINUTE, one(5)).count, 1);
    }

    #[test]
    fn what_comes_late_counts_where_it_belongs() {
        let mut window = Window::default();
        window.add(1000 * SECOND, MINUTE, one(0));
        window.add(1050 * SECOND, MINUTE, one(0));
        assert_eq!(window.add(1010 * SECOND, MINUTE, one(0)).count, 2);
        assert_eq!(window.add(1052 * SECOND, MINUTE, one(0)).count, 4);
    }

    #[test]
    fn a_sequence_is_in_its_order() {
        let limits = [Limit::Count(2), Limit::Bytes(10)];
        let at = |progress: &mut Progress, stage, second: i64, bytes| {
            progress.add(&limits, stage, second * SECOND, MINUTE, one(bytes)).is_some()
        };
        let mut progress = Progress::default();
        assert!(!at(&mut progress, 1, 1, 50), "nothing came before it");
        assert!(!at(&mut progress, 0, 2, 0));
        assert!(!at(&mut progress, 0, 3, 0), "the second stage was before the first");
        assert!(at(&mut progress, 1, 4, 1), "the bytes before it count too");
        let mut progress = Progress::default();
        assert!(!at(&mut progress, 0, 1, 0) && !at(&mut progress, 0, 2, 0));
        assert!(!at(&mut progress, 1, 70, 50), "too late");
        let mut progress = Progress::default();
        assert!(!at(&mut progress, 1, 30, 50));
        assert!(!at(&mut progress, 0, 10, 0));
        assert!(at(&mut progress, 0, 11, 0), "its events arrived in another order");
    }

    proptest! {
        /// A window is never shorter than it is said to be, and a part longer at most.
        #[test]
        fn a_window_is_what_it_is_said_to_be(times in prop::collection::vec(0..500_i64, 1..60)) {
            let mut times = times;
            times.sort_unstable();
            let mut window = Window::default();
            for (place, time) in times.iter().enumerate() {
                let sum = window.add(time * SECOND, MINUTE, one(1)).count;
                let before = |seconds: i64| {
                    times[..=place].iter().filter(|it| **it > time - seconds).count() as u64
                };
                prop_assert!((before(60)..=before(63)).contains(&sum), "{sum}");
            }
        }
    }
}
