//! How much one operator may ask at a time, so that nobody keeps the others from asking.
//!
//! Three bounds, each per role and name: on questions that are not answered yet (what goes beyond is
//! refused), on those that read the store at one time, and on how fast they follow each other (both
//! wait for their turn). A search that pages through a large answer is thus slowed down and not cut
//! off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};
use tonic::Status;

use crate::identity::Operator;
use crate::limits::{
    OPERATORS_KEPT_MAX, QUESTION_INTERVAL, QUESTIONS_BURST, QUESTIONS_READING_MAX,
    QUESTIONS_RUNNING_MAX, SUBSCRIBERS_OF_ONE_MAX,
};

/// Gives everyone their turn.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    operators: Arc<Mutex<HashMap<String, Arc<Own>>>>,
}

/// A question that may run; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _running: OwnedSemaphorePermit,
    _reading: OwnedSemaphorePermit,
}

/// What one operator has in use.
#[derive(Debug)]
struct Own {
    running: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

impl Turns {
    /// Waits until this operator may read.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many questions of theirs wait already.
    pub async fn question(&self, operator: &Operator) -> Result<Turn, Status> {
        let own = self.own(operator);
        let running = Arc::clone(&own.running).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{operator} has {QUESTIONS_RUNNING_MAX} questions open already, which is the most: \
                 wait for an answer before asking again"
            ))
        })?;
        let wait = own.pace.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now());
        time::sleep(wait).await;
        let reading = Arc::clone(&own.reading).acquire_owned().await;
        let reading = reading.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Turn { _running: running, _reading: reading })
    }

    /// A place for a live stream of this operator.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when they have too many.
    pub fn stream(&self, operator: &Operator) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.own(operator).streams).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{operator} has {SUBSCRIBERS_OF_ONE_MAX} live streams open already, which is the \
                 most: close one first"
            ))
        })
    }

    fn own(&self, operator: &Operator) -> Arc<Own> {
        let mut operators = self.operators.lock().unwrap_or_else(PoisonError::into_inner);
        if operators.len() >= OPERATORS_KEPT_MAX {
            operators.retain(|_, own| Arc::strong_count(own) > 1 || own.is_in_use());
        }
        Arc::clone(operators.entry(operator.to_string()).or_insert_with(|| Arc::new(Own::new())))
    }
}

impl Own {
    fn new() -> Own {
        Own {
            running: Arc::new(Semaphore::new(QUESTIONS_RUNNING_MAX)),
            reading: Arc::new(Semaphore::new(QUESTIONS_READING_MAX)),
            streams: Arc::new(Semaphore::new(SUBSCRIBERS_OF_ONE_MAX)),
            pace: Mutex::default(),
        }
    }

    fn is_in_use(&self) -> bool {
        self.running.available_permits() < QUESTIONS_RUNNING_MAX
            || self.streams.available_permits() < SUBSCRIBERS_OF_ONE_MAX
    }
}

/// When the next question would come if all had kept to [`QUESTION_INTERVAL`].
#[derive(Debug, Default)]
struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// How long a question that comes now has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let due = self.next.map_or(now, |next| next.max(now));
        self.next = Some(due + QUESTION_INTERVAL);
        due.duration_since(now).saturating_sub(QUESTION_INTERVAL * QUESTIONS_BURST)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tonic::{Code, Request};

    use super::*;
    use crate::identity::{Admin, Caller, Peer};

    fn operator(uid: u32) -> Operator {
        let mut request = Request::new(());
        request
            .extensions_mut()
            .insert(Caller::Known(Peer::from_local_uid(uid, uid, "h").unwrap()));
        Admin::of(&request).unwrap().operator().clone()
    }

    #[test]
    fn a_burst_is_free_and_what_follows_keeps_to_the_interval() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for _ in 0..=QUESTIONS_BURST {
            assert_eq!(pace.wait(start), Duration::ZERO);
        }
        assert_eq!(pace.wait(start), QUESTION_INTERVAL);
        assert_eq!(pace.wait(start), QUESTION_INTERVAL * 2);
        // Who keeps to it does not wait, and a rest gives the burst back.
        let mut now = start + QUESTION_INTERVAL * (QUESTIONS_BURST + 3);
        for _ in 0..1000 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            now += QUESTION_INTERVAL;
        }
    }

    #[tokio::test]
    async fn one_operator_cannot_take_everything() {
        let turns = Turns::default();
        let (busy, other) = (operator(1), operator(2));
        let mut reading = Vec::new();
        for _ in 0..QUESTIONS_READING_MAX {
            reading.push(turns.question(&busy).await.unwrap());
        }
        let waiting: Vec<_> = (QUESTIONS_READING_MAX..QUESTIONS_RUNNING_MAX)
            .map(|_| {
                let (turns, busy) = (turns.clone(), busy.clone());
                tokio::spawn(async move { turns.question(&busy).await.map(drop) })
            })
            .collect();
        let full = || turns.own(&busy).running.available_permits() == 0;
        while !full() {
            tokio::task::yield_now().await;
        }
        let refused = turns.question(&busy).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().starts_with("admin uid 1 has 20 questions open"), "{refused}");
        turns.question(&other).await.unwrap();
        assert!(waiting.iter().all(|task| !task.is_finished()));
        drop(reading);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        turns.question(&busy).await.unwrap();

        let streams: Vec<_> =
            (0..SUBSCRIBERS_OF_ONE_MAX).map(|_| turns.stream(&busy).unwrap()).collect();
        assert_eq!(turns.stream(&busy).unwrap_err().code(), Code::ResourceExhausted);
        drop(turns.stream(&other).unwrap());
        drop(streams);
        drop(turns.stream(&busy).unwrap());
    }

    #[test]
    fn who_is_idle_is_forgotten_when_there_are_too_many() {
        let turns = Turns::default();
        let kept = turns.stream(&operator(1)).unwrap();
        for uid in 2..4000 {
            drop(turns.stream(&operator(uid)).unwrap());
        }
        let known = turns.operators.lock().unwrap().len();
        assert!(known <= OPERATORS_KEPT_MAX, "{known}");
        assert_eq!(turns.own(&operator(1)).streams.available_permits(), SUBSCRIBERS_OF_ONE_MAX - 1);
        drop(kept);
    }
}
