//! `EvidenceService`: whether the records are what was signed, and cases.
//!
//! Both read all of the store, one at a time, and are recorded before they begin and when they end.

mod case;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sekimori_evidence::{Scope, TooMuch, Verifier};
use sekimori_proto::v1::evidence_service_server::EvidenceService;
use sekimori_proto::v1::verify_response::Part;
use sekimori_proto::v1::{
    ActPhase, ExportRequest, ExportResponse, Filter, Head, VerifyRequest, VerifyResponse,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::case::Export;
use crate::audit::{Act, Audit};
use crate::author::Author;
use crate::bus::Committed;
use crate::custody::Custodian;
use crate::identity::{Admin, Analyst, Operator};
use crate::limits::{CASE_REASON_BYTES_MAX, EVIDENCE_PROGRESS, EVIDENCE_RUNNING_MAX, HEADS_MAX};
use crate::question;
use crate::store::{Condition, Gap, ReadError, Readers, Stored, Verified};

/// Verifies and exports.
#[derive(Debug)]
pub struct Evidence {
    readers: Readers,
    audit: Audit,
    author: Author,
    custodian: Custodian,
    committed: Committed,
    /// Where cases are put together.
    dir: PathBuf,
    running: Arc<Semaphore>,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

impl Evidence {
    /// Reads through `readers` and records by `author`.
    pub fn new(
        readers: Readers,
        author: Author,
        custodian: Custodian,
        committed: Committed,
        dir: PathBuf,
    ) -> Evidence {
        let audit = Audit::new(author.clone());
        let running = Arc::new(Semaphore::new(EVIDENCE_RUNNING_MAX));
        Evidence { readers, audit, author, custodian, committed, dir, running }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.running).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "a verification or an export is running already, and each reads all of the store: \
                 wait until it has ended",
            )
        })
    }
}

#[tonic::async_trait]
impl EvidenceService for Evidence {
    type VerifyStream = Answers<VerifyResponse>;
    type ExportStream = Answers<ExportResponse>;

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<Answers<VerifyResponse>>, Status> {
        let analyst = Analyst::of(&request)?;
        let VerifyRequest { hosts, expected } = request.into_inner();
        let filter = Filter { hosts: hosts.clone(), ..Filter::default() };
        let bad = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        Condition::new(Some(&filter)).map_err(|error| bad(&error))?;
        let question = question::of_filter(Some(&filter)).map_err(|error| bad(&error))?;
        if expected.len() > HEADS_MAX {
            return Err(bad(&format!("expected: at most {HEADS_MAX} links")));
        }
        let place = self.place()?;
        let upper = self.committed.get();
        let work = Verification {
            readers: self.readers.clone(),
            audit: self.audit.clone(),
            operator: analyst.operator().clone(),
            question,
            own: self.author.host().to_owned(),
            hosts,
            expected,
            upper,
        };
        work.record(ActPhase::Begin, 0).await?;
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = work.run(&answers).await {
                // Whoever asked may have gone.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Answers<ExportResponse>>, Status> {
        let admin = Admin::of(&request)?;
        let ExportRequest { filter, reason } = request.into_inner();
        let bad = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let condition = Condition::new(filter.as_ref()).map_err(|error| bad(&error))?;
        let question = question::of_filter(filter.as_ref()).map_err(|error| bad(&error))?;
        if reason.trim().is_empty() {
            return Err(bad(&"reason: say why; it is recorded and stands in the case"));
        }
        if reason.len() > CASE_REASON_BYTES_MAX {
            return Err(bad(&format!("reason: at most {CASE_REASON_BYTES_MAX} bytes")));
        }
        let place = self.place()?;
        // What came last is countersigned too, and that is signed.
        let ready = async {
            self.custodian.countersign().await.map_err(|error| error.to_string())?;
            self.author.sign().await.map_err(|error| error.to_string())
        };
        ready.await.map_err(Status::unavailable)?;
        let export = Export {
            readers: self.readers.clone(),
            audit: self.audit.clone(),
            author: self.author.clone(),
            operator: admin.operator().clone(),
            condition: Arc::new(condition),
            upper: self.committed.get(),
            question,
            reason,
            dir: self.dir.clone(),
        };
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = export.run(&answers).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Verification {
    readers: Readers,
    audit: Audit,
    operator: Operator,
    question: String,
    hosts: Vec<String>,
    expected: Vec<Head>,
    /// The collector's own host, whose records say what was received of others.
    own: String,
    upper: u64,
}

impl Verification {
    async fn record(&self, phase: ActPhase, answered: u64) -> Result<(), Status> {
        let question = self.question.clone();
        self.audit.record(&self.operator, Act { method: "Verify", question, answered, phase }).await
    }

    async fn run(
        &self,
        answers: &mpsc::Sender<Result<VerifyResponse, Status>>,
    ) -> Result<(), Status> {
        let verifier = Verifier::new(Scope::Whole).of(self.hosts.iter().cloned());
        let work = Arc::new(Mutex::new(Work { verifier, full: false }));
        let found = tokio::select! {
            found = self.look(&work, answers) => Some(found?),
            () = answers.closed() => None,
        };
        let work = std::mem::take(&mut *work.lock().unwrap_or_else(PoisonError::into_inner));
        let Work { mut verifier, full } = work;
        let Some(found) = found else {
            // Whoever asked has gone.
            return self.record(ActPhase::End, verifier.records()).await;
        };
        if full {
            return Err(Status::resource_exhausted(TooMuch.to_string()));
        }
        for Gap { first, last, reason } in &found.gaps {
            verifier.unreadable(*first, *last, reason);
        }
        for Gap { first, last, reason } in &found.falsified {
            verifier.falsified(*first, *last, reason);
        }
        self.expected.iter().for_each(|head| verifier.expect(head.clone()));
        let outcome = verifier.finish();
        self.record(ActPhase::End, outcome.summary.records).await?;
        let findings = outcome.findings.into_iter().map(Part::Finding);
        let hosts = outcome.hosts.into_iter().map(Part::Host);
        let parts = findings.chain(hosts).chain([Part::Summary(outcome.summary)]);
        for part in parts {
            if answers.send(Ok(VerifyResponse { part: Some(part) })).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn look(
        &self,
        work: &Arc<Mutex<Work>>,
        answers: &mpsc::Sender<Result<VerifyResponse, Status>>,
    ) -> Result<Verified, Status> {
        let (work, progress) = (Arc::clone(work), answers.clone());
        let each = move |stored: &Stored<'_>| {
            let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
            if work.verifier.look(stored.host, stored.cursor, stored.body).is_err() {
                work.full = true;
                return ControlFlow::Break(());
            }
            let looked_at = work.verifier.records();
            if looked_at.is_multiple_of(EVIDENCE_PROGRESS) {
                let part = Some(Part::LookedAt(looked_at));
                // One that reads slowly is told less.
                let _ = progress.try_send(Ok(VerifyResponse { part }));
            }
            ControlFlow::Continue(())
        };
        let mut hosts: BTreeSet<String> = self.hosts.iter().cloned().collect();
        if !hosts.is_empty() {
            hosts.insert(self.own.clone());
        }
        let verified = self.readers.verify(&self.operator, hosts, self.upper, each).await;
        verified.map_err(|error| read_status(&error))
    }
}

struct Work {
    verifier: Verifier,
    full: bool,
}

impl Default for Work {
    fn default() -> Work {
        Work { verifier: Verifier::new(Scope::Whole), full: false }
    }
}

fn read_status(error: &ReadError) -> Status {
    tracing::error!(%error, "reading for a verification or a case failed");
    Status::unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
