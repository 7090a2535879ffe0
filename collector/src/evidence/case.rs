//! Making a case out of the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sekimori_evidence::Signed;
use sekimori_evidence::case::{CaseError, CaseWriter, Manifest};
use sekimori_proto::v1::{ActPhase, CaseRecord, Event, ExportResponse, Filter, Kind};
use tokio::sync::mpsc;
use tonic::Status;

use super::read_status;
use crate::audit::{Act, Audit};
use crate::author::Author;
use crate::identity::Operator;
use crate::limits::{CASE_BYTES_MAX, CASE_CHUNK_BYTES, CASE_RECORDS_MAX, EVENT_BYTES_MAX};
use crate::store::{Condition, Gap, Readers, Stored};

/// What is asked for.
pub(super) struct Export {
    pub readers: Readers,
    pub audit: Audit,
    pub author: Author,
    pub operator: Operator,
    pub condition: Arc<Condition>,
    pub upper: u64,
    pub question: String,
    pub reason: String,
    /// Where it is put together.
    pub dir: PathBuf,
}

/// Sequences whose signatures are wanted, by host and boot.
#[derive(Debug, Default)]
struct Wanted(HashMap<String, HashMap<Vec<u8>, BTreeSet<u64>>>);

impl Wanted {
    fn add(&mut self, host: &str, event: &Event) {
        let boots = self.0.entry(host.to_owned()).or_default();
        boots.entry(event.boot.clone()).or_default().insert(event.sequence);
    }

    /// Whether a link signs one of them.
    fn is_signed_by(&self, host: &str, signed: &Signed) -> bool {
        let statement = &signed.statement;
        let sequences = self.0.get(host).and_then(|boots| boots.get(&statement.boot));
        let range = statement.first..statement.first.saturating_add(signed.count());
        sequences.is_some_and(|it| it.range(range).next().is_some())
    }
}

struct Work {
    writer: CaseWriter<File>,
    wanted: Wanted,
    bytes: u64,
    /// Time of the first record of each host, UTC ns.
    begins: BTreeMap<String, i64>,
    /// The policy in force at that time, of each host.
    policies: BTreeMap<String, (i64, CaseRecord)>,
    /// Links that are in the case.
    links: HashSet<(String, u64, Vec<u8>)>,
    failed: Option<CaseError>,
    too_much: bool,
}

type Shared = Arc<Mutex<Work>>;

fn with<T>(work: &Shared, change: impl FnOnce(&mut Work) -> T) -> T {
    change(&mut work.lock().unwrap_or_else(PoisonError::into_inner))
}

fn record_of(stored: &Stored<'_>) -> CaseRecord {
    CaseRecord { host: stored.host.to_owned(), cursor: stored.cursor, event: stored.body.to_vec() }
}

impl Export {
    pub async fn run(
        self,
        answers: &mpsc::Sender<Result<ExportResponse, Status>>,
    ) -> Result<(), Status> {
        self.record(ActPhase::Begin, 0).await?;
        let scratch = || scratch(&self.dir);
        let work = Arc::new(Mutex::new(Work {
            writer: CaseWriter::new(scratch()?, scratch()?),
            wanted: Wanted::default(),
            bytes: 0,
            begins: BTreeMap::new(),
            policies: BTreeMap::new(),
            links: HashSet::new(),
            failed: None,
            too_much: false,
        }));
        let gaps = self.records(&work).await?;
        self.policies(&work).await?;
        let hosts = with(&work, |work| work.wanted.0.keys().cloned().collect::<Vec<_>>());
        // A filter has a bounded number of hosts.
        for hosts in hosts.chunks(crate::limits::FILTER_VALUES_MAX) {
            self.links(&work, hosts.to_vec()).await?;
        }
        self.countersignatures(&work).await?;
        self.links(&work, vec![self.author.host().to_owned()]).await?;
        let file = self.finish(&work, gaps).await?;
        send(file, answers).await
    }

    async fn record(&self, phase: ActPhase, answered: u64) -> Result<(), Status> {
        let question = format!("{} --reason {:?}", self.question, self.reason);
        let question = question.trim_start().to_owned();
        self.audit.record(&self.operator, Act { method: "Export", question, answered, phase }).await
    }

    async fn scan(
        &self,
        work: &Shared,
        filter: Option<Filter>,
        each: impl Fn(&mut Work, &Stored<'_>) -> Result<(), CaseError> + Send + 'static,
    ) -> Result<Vec<Gap>, Status> {
        let condition = match filter {
            None => Arc::clone(&self.condition),
            Some(filter) => Condition::new(Some(&filter))
                .map(Arc::new)
                .map_err(|error| Status::internal(error.to_string()))?,
        };
        let inside = Arc::clone(work);
        let each = move |stored: &Stored<'_>| {
            with(&inside, |work| match each(work, stored) {
                Ok(()) if work.too_much => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    work.failed = Some(error);
                    ControlFlow::Break(())
                }
            })
        };
        let scan = self.readers.scan(&self.operator, condition, (0, self.upper), each).await;
        let gaps = scan.map_err(|error| read_status(&error))?;
        with(work, |work| match work.failed.take() {
            Some(error) => Err(disk(&error)),
            None if work.too_much => Err(Status::resource_exhausted(format!(
                "a case has at most {CASE_RECORDS_MAX} records and {} GiB: ask for a shorter time, \
                 or for fewer hosts or kinds",
                CASE_BYTES_MAX >> 30
            ))),
            None => Ok(gaps),
        })
    }

    /// What was asked for.
    async fn records(&self, work: &Shared) -> Result<Vec<Gap>, Status> {
        let condition = Arc::clone(&self.condition);
        let asked = Arc::clone(&condition);
        let gaps = self
            .scan(work, None, move |work, stored| {
                let Ok(event) = stored.event() else { return Ok(()) };
                if !condition.matches(&event) {
                    return Ok(());
                }
                work.wanted.add(stored.host, &event);
                let begin = work.begins.entry(stored.host.to_owned()).or_insert(i64::MAX);
                *begin = (*begin).min(event.time_ns);
                work.bytes += stored.body.len() as u64;
                work.writer.record(&record_of(stored), event.time_ns)?;
                work.too_much =
                    work.writer.records() > CASE_RECORDS_MAX || work.bytes > CASE_BYTES_MAX;
                Ok(())
            })
            .await?;
        match asked.failure() {
            Some(error) => Err(Status::invalid_argument(format!("filter.expression: {error}"))),
            None => Ok(gaps),
        }
    }

    /// The policy that each host had when its first record was made, and those that followed.
    async fn policies(&self, work: &Shared) -> Result<(), Status> {
        let filter = Filter { kinds: vec![Kind::Agent.into()], ..Filter::default() };
        self.scan(work, Some(filter), |work, stored| {
            let Ok(event) = stored.event() else { return Ok(()) };
            let Some(begin) = work.begins.get(stored.host).copied() else { return Ok(()) };
            if event.policy.is_none() {
                return Ok(());
            }
            if event.time_ns > begin {
                work.wanted.add(stored.host, &event);
                return work.writer.proof(&record_of(stored));
            }
            let known = work.policies.get(stored.host);
            if known.is_none_or(|(time_ns, _)| *time_ns <= event.time_ns) {
                let found = (event.time_ns, record_of(stored));
                work.policies.insert(stored.host.to_owned(), found);
            }
            Ok(())
        })
        .await?;
        with(work, |work| {
            for (host, (_, record)) in std::mem::take(&mut work.policies) {
                let event = prost::Message::decode(record.event.as_slice()).unwrap_or_default();
                work.wanted.add(&host, &event);
                work.writer.proof(&record).map_err(|error| disk(&error))?;
            }
            Ok(())
        })
    }

    /// The checkpoints of what is in the case.
    async fn links(&self, work: &Shared, hosts: Vec<String>) -> Result<(), Status> {
        let filter = Filter { hosts, kinds: vec![Kind::Checkpoint.into()], ..Filter::default() };
        self.scan(work, Some(filter), |work, stored| {
            let signed =
                stored.event().ok().and_then(|event| Signed::open(&event.checkpoint?).ok());
            let Some(signed) = signed.filter(|it| work.wanted.is_signed_by(stored.host, it)) else {
                return Ok(());
            };
            let link = (stored.host.to_owned(), signed.statement.number, signed.sha256.to_vec());
            if work.links.insert(link) {
                work.writer.proof(&record_of(stored))?;
            }
            Ok(())
        })
        .await
        .map(drop)
    }

    /// The collector's word for these checkpoints.
    async fn countersignatures(&self, work: &Shared) -> Result<(), Status> {
        let host = self.author.host().to_owned();
        let kinds = vec![Kind::Custody.into()];
        let filter = Filter { hosts: vec![host], kinds, ..Filter::default() };
        self.scan(work, Some(filter), |work, stored| {
            let Ok(event) = stored.event() else { return Ok(()) };
            let Some(custody) = &event.custody else { return Ok(()) };
            let wanted = custody.countersigned.iter().any(|it| {
                let link = (it.host.clone(), it.number, it.statement_sha256.clone());
                work.links.contains(&link)
            });
            if wanted {
                work.wanted.add(stored.host, &event);
                work.writer.proof(&record_of(stored))?;
            }
            Ok(())
        })
        .await
        .map(drop)
    }

    /// The file, and the record of it.
    async fn finish(&self, work: &Shared, gaps: Vec<Gap>) -> Result<File, Status> {
        let scratch = || scratch(&self.dir);
        let empty = CaseWriter::new(scratch()?, scratch()?);
        let writer = with(work, |work| std::mem::replace(&mut work.writer, empty));
        let records = writer.records();
        let gap = |Gap { first, last, reason }: Gap| format!("cursors {first} to {last}: {reason}");
        let manifest = Manifest {
            made: Timestamp::now().to_string(),
            collector: self.author.host().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            exported_by: self.operator.to_string(),
            exported_from: self.operator.address().map(|it| it.to_string()).unwrap_or_default(),
            reason: self.reason.clone(),
            question: self.question.clone(),
            unreadable: gaps.into_iter().map(gap).collect(),
            ..Manifest::default()
        };
        let (author, out) = (self.author.clone(), scratch()?);
        let made = tokio::task::spawn_blocking(move || writer.finish(manifest, author.key(), out));
        let made = made.await.map_err(|error| Status::internal(error.to_string()))?;
        let file = made.map_err(|error| disk(&error))?;
        self.record(ActPhase::End, records).await?;
        Ok(file)
    }
}

/// A file without a name.
fn scratch(dir: &Path) -> Result<File, Status> {
    tempfile::tempfile_in(dir).map_err(|error| disk(&error.into()))
}

fn disk(error: &CaseError) -> Status {
    tracing::error!(%error, "a case cannot be made");
    Status::resource_exhausted(format!("the case cannot be made: {error}"))
}

async fn send(
    mut file: File,
    answers: &mpsc::Sender<Result<ExportResponse, Status>>,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| disk(&error.into());
    let mut size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    loop {
        let mut chunk = vec![0; CASE_CHUNK_BYTES];
        let read = file.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        chunk.truncate(read);
        if answers
            .send(Ok(ExportResponse { chunk, size: std::mem::take(&mut size) }))
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}

const _: () = assert!(EVENT_BYTES_MAX < 1 << 20, "a record of a case has at most 1 MiB");
