//! The way of an operator to stored records; no handler has another.
//!
//! It asks for the rank that a read takes, reads, and records who read what and how much before it
//! gives the answer. What cannot be recorded is not answered. A read that failed gave nothing and is
//! not recorded.
//!
//! Each page of a search is a record with the whole question, the later ones marked as continued: a
//! page may be asked for with any filter, and somebody could otherwise leave out the first page, and
//! with it the record of what they looked for. A page has up to a thousand events and costs one
//! commit.
//!
//! Nobody gets more than their share of this: see [`crate::turns`].
//!
//! A replay is two records, as what it tells of its progress is a number already. A live stream is
//! two records: its beginning, before anything is sent, and its end with the number
//! of events. What it shows makes no records, so that a stream on which records of reads appear does
//! not feed itself.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use sekimori_policy::Replay;
use sekimori_proto::v1::{
    ActPhase, AggregateRequest, AggregateResponse, Field, Filter, HostStatus, Order, ReplayAnswer,
};
use sekimori_proto::words::Word as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use crate::audit::{Act, Audit};
use crate::identity::{Analyst, Viewer};
use crate::limits::{REPLAY_GROUPS_MAX, REPLAY_PROGRESS, REPLAY_TIME_MAX};
use crate::policy::Past;
use crate::query::gaps;
use crate::store::{
    Condition, Encoded, Groups, Meter, Page, ReadError, Readers, Search, Step, Stored,
};
use crate::turns::Turns;

/// Reads for operators.
#[derive(Clone, Debug)]
pub struct Access {
    readers: Readers,
    audit: Audit,
    turns: Turns,
    meter: Meter,
}

/// What counts in groups ask for.
#[derive(Debug)]
pub struct Count {
    /// Which events.
    pub condition: Condition,
    /// The last cursor that counts.
    pub upper: u64,
    /// How they are told apart.
    pub groups: Groups,
    /// Which groups come first.
    pub order: Order,
    /// Groups at most.
    pub limit: usize,
}

impl Access {
    /// Reads through `readers`, records by `audit` and counts by `meter`.
    pub fn new(readers: Readers, audit: Audit, meter: Meter) -> Access {
        Access { readers, audit, turns: Turns::default(), meter }
    }

    /// One page of the events that match. `question` says in words what is asked.
    ///
    /// # Errors
    /// When they ask too much at a time, or it cannot be read or recorded.
    pub async fn search(
        &self,
        analyst: &Analyst,
        question: String,
        search: Search,
    ) -> Result<Page, Status> {
        let _asked = self.meter.asked("Search");
        let _turn = self.turns.question(analyst.operator()).await?;
        let first = search.position.last.is_none();
        let phase = if first { ActPhase::Unspecified } else { ActPhase::Continued };
        let page = self.readers.search(analyst.operator(), search).await;
        let page = page.map_err(|error| read_status(&error))?;
        let answered = page.events.len() as u64;
        let act = Act { method: "Search", question, answered, phase };
        self.audit.record(analyst.operator(), act).await?;
        Ok(page)
    }

    /// Counts in groups; `count` is what `request` asks for. Viewers are given counts that tell
    /// nothing of people; all others take an analyst.
    ///
    /// # Errors
    /// When they may not ask this, ask too much at a time, or it cannot be read or recorded.
    pub async fn aggregate(
        &self,
        viewer: &Viewer,
        question: String,
        request: &AggregateRequest,
        count: Count,
    ) -> Result<AggregateResponse, Status> {
        if let Some(personal) = personal(request) {
            viewer.analyst().map_err(|refusal| {
                Status::new(refusal.code(), format!("{personal}; {}", refusal.message()))
            })?;
        }
        let operator = viewer.operator();
        let _asked = self.meter.asked("Aggregate");
        let _turn = self.turns.question(operator).await?;
        let Count { condition, upper, groups, order, limit } = count;
        let read = self.readers.aggregate(operator, condition, upper, groups).await;
        let (groups, unread) = read.map_err(|error| read_status(&error))?;
        let answer = groups.answer(order, limit);
        let answered = answer.groups.len() as u64;
        let phase = ActPhase::Unspecified;
        let act = Act { method: "Aggregate", question, answered, phase };
        self.audit.record(operator, act).await?;
        Ok(AggregateResponse { gaps: gaps(unread), ..answer })
    }

    /// Asks a policy about the events that match, up to cursor `upper`. Also gives what tells how
    /// many were looked at.
    ///
    /// # Errors
    /// When they ask too much at a time, or it cannot be read or recorded.
    pub fn replay(
        &self,
        analyst: &Analyst,
        question: String,
        condition: Condition,
        upper: u64,
        replay: Replay,
    ) -> (impl Future<Output = Result<ReplayAnswer, Status>> + Send + use<>, watch::Receiver<u64>)
    {
        let (progress, looked_at) = watch::channel(0);
        let (access, operator) = (self.clone(), analyst.operator().clone());
        let work = async move {
            let _asked = access.meter.asked("Replay");
            let _turn = access.turns.question(&operator).await?;
            let record = async |phase, answered| {
                let act = Act { method: "Replay", question: question.clone(), answered, phase };
                access.audit.record(&operator, act).await
            };
            // How far it has come tells how many there are.
            record(ActPhase::Begin, 0).await?;
            let past = Arc::new(Mutex::new(Some(Past::new(replay))));
            let (asked, condition) = (Arc::clone(&past), Arc::new(condition));
            let wanted = Arc::clone(&condition);
            let each = move |stored: &Stored<'_>| {
                let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(past) = asked.as_mut() else { return ControlFlow::Break(()) };
                // What does not decode was refused when it came, and is a gap for whoever reads it.
                if let Ok(event) = stored.event()
                    && wanted.matches(&event)
                {
                    past.look(&event);
                    if past.looked_at().is_multiple_of(REPLAY_PROGRESS) {
                        progress.send_replace(past.looked_at());
                    }
                }
                if past.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let range = (0, upper);
            let scan =
                access.readers.scan_within(REPLAY_TIME_MAX, &operator, condition, range, each);
            let unread = scan.await.map_err(|error| match error {
                ReadError::TooLong => Status::deadline_exceeded(format!(
                    "the replay took longer than {} s and was stopped: ask for a shorter time \
                     range, or for a host or kind",
                    REPLAY_TIME_MAX.as_secs()
                )),
                error => read_status(&error),
            })?;
            let past = past.lock().unwrap_or_else(PoisonError::into_inner).take();
            let past = past.ok_or_else(|| Status::internal("the replay was lost"))?;
            if past.is_full() {
                return Err(Status::resource_exhausted(format!(
                    "there are more than {REPLAY_GROUPS_MAX} different users and rules: ask for a \
                     shorter time range, or for a host or kind"
                )));
            }
            record(ActPhase::End, past.groups()).await?;
            Ok(ReplayAnswer { gaps: gaps(unread), ..past.answer() })
        };
        (work, looked_at)
    }

    /// Every host in the store. Tells nothing of people and is not recorded.
    ///
    /// # Errors
    /// When they ask too much at a time.
    pub async fn hosts(&self, viewer: &Viewer) -> Result<Vec<HostStatus>, Status> {
        let _turn = self.turns.question(viewer.operator()).await?;
        Ok(self.readers.hosts(viewer.operator()))
    }

    /// The host of the collector's own records.
    pub fn own_host(&self) -> &str {
        self.audit.host()
    }

    /// The last cursor whose events are kept no longer.
    pub fn removed_up_to(&self) -> u64 {
        self.readers.removed_up_to()
    }

    /// Begins a live stream. `question` says in words what is asked.
    ///
    /// # Errors
    /// When they have too many, or it cannot be recorded.
    pub async fn follow(
        &self,
        analyst: Analyst,
        question: String,
        condition: Condition,
    ) -> Result<Following, Status> {
        let place = self.turns.stream(analyst.operator())?;
        let turn = self.turns.question(analyst.operator()).await?;
        let (access, condition) = (self.clone(), Arc::new(condition));
        let following = Following { access, analyst, question, condition, given: 0, _place: place };
        following.record(ActPhase::Begin).await?;
        drop(turn);
        Ok(following)
    }
}

/// A live stream of which it is recorded that it began.
#[derive(Debug)]
pub struct Following {
    access: Access,
    analyst: Analyst,
    question: String,
    condition: Arc<Condition>,
    given: u64,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The matching events behind `position`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn step(&self, position: u64) -> Result<Step<Encoded>, Status> {
        let (operator, condition) = (self.analyst.operator(), Arc::clone(&self.condition));
        let step = self.access.readers.step(operator, condition, position).await;
        step.map_err(|error| read_status(&error))
    }

    /// So many more events are sent.
    pub fn gave(&mut self, events: usize) {
        self.given = self.given.saturating_add(events as u64);
    }

    /// Records that the stream is closed, and how much went over it. When that cannot be stored,
    /// the log says so.
    pub async fn end(self) {
        // It was logged, and there is nothing left that could be refused.
        let _ = self.record(ActPhase::End).await;
    }

    async fn record(&self, phase: ActPhase) -> Result<(), Status> {
        let (question, answered) = (self.question.clone(), self.given);
        let act = Act { method: "Subscribe", question, answered, phase };
        self.access.audit.record(self.analyst.operator(), act).await
    }
}

/// What in a question tells of people, if anything does. Not only what groups are named by: who may
/// choose a file or a person learns from a bare number whether there was something.
fn personal(request: &AggregateRequest) -> Option<String> {
    let by = request.by.iter().chain((request.distinct != 0).then_some(&request.distinct));
    let field = by.copied().filter_map(|number| Field::try_from(number).ok()).find(tells_of_people);
    if let Some(field) = field {
        return Some(format!("counts by {} tell of people", field.word()));
    }
    // By name, so that it must be said of a condition that is new, too.
    let Filter {
        users,
        text,
        destinations,
        programs,
        expression,
        kinds: _,
        hosts: _,
        verdicts: _,
        since_ns: _,
        until_ns: _,
        rules: _,
        serials: _,
    } = request.filter.as_ref()?;
    let chosen = [
        ("user", !users.is_empty()),
        ("text", !text.is_empty()),
        ("destination", !destinations.is_empty()),
        ("program", !programs.is_empty()),
        ("expression", !expression.is_empty()),
    ];
    let (word, _) = chosen.into_iter().find(|(_, chosen)| *chosen)?;
    Some(format!("a filter by {word} tells of people"))
}

fn tells_of_people(field: &Field) -> bool {
    match field {
        Field::Host
        | Field::Device
        | Field::Rule
        | Field::Kind
        | Field::Verdict
        | Field::Hour
        | Field::Day => false,
        Field::Unspecified | Field::User | Field::Destination | Field::Program | Field::File => {
            true
        }
    }
}

/// A failed read, as the caller sees it.
fn read_status(error: &ReadError) -> Status {
    let message = error.to_string();
    match error {
        ReadError::TooLong => Status::deadline_exceeded(message),
        ReadError::Cancelled => Status::cancelled(message),
        ReadError::Groups(_) => Status::resource_exhausted(message),
        ReadError::Expression(_) => Status::invalid_argument(message),
        ReadError::Sqlite(_) | ReadError::Task(_) => {
            tracing::error!(error = message, "reading failed");
            Status::unavailable(message)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;
    use tonic::{Code, Request};

    use super::*;
    use crate::author::Author;
    use crate::identity::{Caller, Peer};
    use crate::store::{Position, Store};

    #[tokio::test]
    async fn what_cannot_be_recorded_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("events"), None).unwrap();
        let author = Author::open(dir.path(), &store).await.unwrap();
        let audit = Audit::new(author);
        let access = Access::new(store.readers().clone(), audit, store.meter().clone());
        let mut request = Request::new(());
        request.extensions_mut().insert(Caller::Known(Peer::from_local_uid(0, 0, "h").unwrap()));
        let analyst = Analyst::of(&request).unwrap();
        let search = || Search {
            condition: Condition::new(None).unwrap(),
            position: Position { upper: 9, last: None },
            limit: 9,
            newest_first: false,
        };
        let first = access.search(&analyst, "first".to_owned(), search()).await.unwrap();
        assert_eq!(first.events, []);
        store.writer().stop().await;
        let refused = access.search(&analyst, "second".to_owned(), search()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains("cannot be recorded"), "{refused}");
        let refused = access
            .follow(analyst.clone(), String::new(), Condition::new(None).unwrap())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let by = vec![Field::Host.into()];
        let request = AggregateRequest { by: by.clone(), ..AggregateRequest::default() };
        let count = Count {
            condition: Condition::new(None).unwrap(),
            upper: 9,
            groups: Groups::new(&by, 0, 0).unwrap(),
            order: Order::Count,
            limit: 9,
        };
        let refused = access.aggregate(&analyst.into(), String::new(), &request, count).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    }

    #[rstest]
    #[case(&[Field::Host, Field::Kind, Field::Verdict, Field::Rule], 0, None)]
    #[case(&[Field::Hour, Field::Day, Field::Device], Field::Host.into(), None)]
    #[case(&[Field::Host, Field::User], 0, Some("counts by user"))]
    #[case(&[Field::Program], 0, Some("counts by program"))]
    #[case(&[Field::Destination], 0, Some("counts by destination"))]
    #[case(&[Field::Host], Field::File.into(), Some("counts by file"))]
    fn what_tells_of_people(
        #[case] by: &[Field],
        #[case] distinct: i32,
        #[case] expected: Option<&str>,
    ) {
        let by = by.iter().map(|field| (*field).into()).collect();
        let request = AggregateRequest { by, distinct, ..AggregateRequest::default() };
        let found = personal(&request);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }

    #[rstest]
    #[case(Filter { users: vec!["u".into()], ..Filter::default() }, true)]
    #[case(Filter { text: "/home/u".into(), ..Filter::default() }, true)]
    #[case(Filter { programs: vec!["/bin/x".into()], ..Filter::default() }, true)]
    #[case(Filter { destinations: vec!["x".into()], ..Filter::default() }, true)]
    #[case(Filter { expression: "bytes > 1".into(), ..Filter::default() }, true)]
    #[case(Filter { hosts: vec!["h".into()], since_ns: Some(1), ..Filter::default() }, false)]
    #[case(Filter { serials: vec!["S".into()], ..Filter::default() }, false)]
    fn a_number_tells_of_people_too(#[case] filter: Filter, #[case] expected: bool) {
        let by = vec![Field::Host.into()];
        let request = AggregateRequest { by, filter: Some(filter), ..AggregateRequest::default() };
        assert_eq!(personal(&request).is_some(), expected);
    }
}
