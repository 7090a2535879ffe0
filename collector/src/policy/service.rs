//! `PolicyService`: versions put, extended, taken back and listed; and the past asked.

use std::sync::Arc;

use jiff::Timestamp;
use prost::Message as _;
use sekimori_evidence::SigningKey;
use sekimori_policy::bundle::{self, BundleError};
use sekimori_policy::limits::{BUNDLE_BYTES_MAX, DOCUMENT_BYTES_MAX};
use sekimori_policy::{Finding, NoDirectory, Replay, Severity, lint_bytes, load_bytes};
use sekimori_proto::v1::policy_service_server::PolicyService;
use sekimori_proto::v1::replay_response::Part;
use sekimori_proto::v1::{
    ActPhase, HostState, ListPoliciesRequest, ListPoliciesResponse, PolicyBundle, PolicyFinding,
    PolicyHost, PolicyStatement, PolicyTurn, PolicyVersion, PromotePolicyRequest,
    PromotePolicyResponse, PutPolicyRequest, PutPolicyResponse, ReplayAnswer, ReplayRequest,
    ReplayResponse, RollbackPolicyRequest,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{KEY_FILE, KeepError, Policies, Version};
use crate::access::Access;
use crate::audit::{Act, Audit};
use crate::bus::Committed;
use crate::identity::{Admin, Analyst, Viewer};
use crate::limits::{
    POLICY_FINDINGS_MAX, POLICY_HOSTS_SHOWN_MAX, REPLAY_PROGRESS_INTERVAL, REPLAYS_RUNNING_MAX,
    SENTENCE_BYTES_MAX,
};
use crate::question;
use crate::store::Condition;

/// What the records call these calls.
const PUT: &str = "PutPolicy";
const PROMOTE: &str = "PromotePolicy";
const ROLLBACK: &str = "RollbackPolicy";

/// Looks after the policies of the hosts.
#[derive(Debug)]
pub struct PolicyAnswers {
    policies: Policies,
    audit: Audit,
    access: Access,
    committed: Committed,
    replaying: Arc<Semaphore>,
}

/// What is to become a version.
struct Draft {
    text: Vec<u8>,
    hosts: Vec<String>,
    percent: u32,
    reason: String,
}

/// A policy that was looked at as an agent would.
struct Looked {
    name: String,
    sha256: Vec<u8>,
    findings: Vec<PolicyFinding>,
    good: bool,
}

fn bad(reason: impl std::fmt::Display) -> Status {
    Status::invalid_argument(reason.to_string())
}

impl PolicyAnswers {
    /// Records by `audit`, and reads the past through `access`.
    pub fn new(
        policies: Policies,
        audit: Audit,
        access: Access,
        committed: Committed,
    ) -> PolicyAnswers {
        let replaying = Arc::new(Semaphore::new(REPLAYS_RUNNING_MAX));
        PolicyAnswers { policies, audit, access, committed, replaying }
    }

    /// The key, when it is here.
    fn key(&self) -> Result<&SigningKey, Status> {
        self.policies.0.keys.own().ok_or_else(|| {
            Status::failed_precondition(match self.policies.public_key() {
                Some(_) => format!(
                    "{KEY_FILE} is not at this collector: sign where it is, with \
                     `sekimori-collector policy sign`, and give that to `sekimori policy put --signed`"
                ),
                None => "this collector has no key for policies; its log says why".to_owned(),
            })
        })
    }

    /// A text becomes the next version.
    async fn put(&self, admin: &Admin, method: &'static str, draft: Draft) -> PutResult {
        let Draft { text, hosts, percent, reason } = draft;
        let reason = sentence(&reason)?.to_owned();
        let key = self.key()?;
        let (text, looked) = look(text).await?;
        if !looked.good {
            return Ok(looked.answer(0, 0));
        }
        let making = self.making().await;
        let statement = PolicyStatement {
            epoch: self.policies.next_epoch(),
            name: looked.name.clone(),
            text_zstd: zstd::encode_all(text.as_slice(), 0)
                .map_err(|error| Status::internal(error.to_string()))?,
            sha256: looked.sha256.clone(),
            hosts,
            percent,
            reason,
            by: admin.operator().to_string(),
            time_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        };
        bundle::check(&statement).map_err(bad)?;
        let bundle = bundle::sign(key, &statement);
        let (epoch, hosts) = self.take(admin, making, (method, ""), bundle).await?;
        Ok(looked.answer(epoch, hosts))
    }

    /// Something that was signed elsewhere becomes the next version, or is the last one for more.
    async fn put_signed(&self, admin: &Admin, signed: PolicyBundle, reason: &str) -> PutResult {
        let key = self.policies.public_key().ok_or_else(|| {
            Status::failed_precondition("this collector has no key for policies; its log says why")
        })?;
        let statement = bundle::open(&signed, key).map_err(bad)?;
        let (_, looked) = look(bundle::text(&statement).map_err(bad)?).await?;
        if !looked.good {
            return Ok(looked.answer(0, 0));
        }
        let making = self.making().await;
        {
            let versions = self.policies.versions();
            let last = versions.last_key_value().map(|(_, version)| &version.statement);
            let more = |last: &PolicyStatement| {
                let same = (&last.sha256, &last.hosts) == (&statement.sha256, &statement.hosts);
                statement.epoch == last.epoch && same && statement.percent > last.percent
            };
            if last.is_some_and(|last| statement.epoch <= last.epoch && !more(last)) {
                let last = last.map_or(0, |last| last.epoch);
                return Err(bad(format!(
                    "epoch {}: it must be higher than {last}, the last one, or be that one for more \
                     of its hosts",
                    statement.epoch
                )));
            }
        }
        let (epoch, hosts) = self.take(admin, making, (PUT, reason), signed).await?;
        Ok(looked.answer(epoch, hosts))
    }

    /// One version is made at a time.
    async fn making(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.policies.0.making).lock_owned().await
    }

    /// Records who gives what to whom, and why, then does it: to the end, also when whoever asked
    /// goes away.
    async fn take(
        &self,
        admin: &Admin,
        making: OwnedMutexGuard<()>,
        (method, why): (&'static str, &str),
        bundle: PolicyBundle,
    ) -> Result<(u64, u64), Status> {
        let size = bundle.encoded_len();
        if size > BUNDLE_BYTES_MAX {
            return Err(bad(format!(
                "text: compressed and signed it has {size} bytes, at most {BUNDLE_BYTES_MAX}"
            )));
        }
        let key = self.policies.public_key().unwrap_or_default();
        let version = Version::of(bundle, key)
            .ok_or_else(|| Status::internal("what was signed does not hold"))?;
        let mut question = told(&version.statement);
        if !why.is_empty() {
            question.push_str(&format!(" --because {why:?}"));
        }
        let phase = ActPhase::Unspecified;
        let act = Act { method, question: question.clone(), answered: 0, phase };
        let (operator, policies) = (admin.operator().clone(), self.policies.clone());
        let audit = self.audit.clone();
        let work = tokio::spawn(async move {
            let _making = making;
            audit.record(&operator, act).await?;
            tracing::warn!(%operator, method, policy = question, "a policy for hosts");
            let epoch = version.statement.epoch;
            let hosts = policies.keep(version).await.map_err(|error| match error {
                KeepError::Full => Status::resource_exhausted(error.to_string()),
                KeepError::Store(_) => Status::unavailable(error.to_string()),
            })?;
            Ok((epoch, hosts))
        });
        work.await.map_err(|error| Status::internal(error.to_string()))?
    }

    /// A version's statement with its text.
    fn statement(&self, epoch: u64) -> Result<PolicyStatement, Status> {
        let versions = self.policies.versions();
        let version = match epoch {
            0 => versions.last_key_value().map(|(_, version)| version),
            epoch => versions.get(&epoch),
        };
        let none = || Status::not_found("there is no version of this epoch; List has all of them");
        let bundle = version.ok_or_else(none)?.bundle.clone();
        PolicyStatement::decode(bundle.statement)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

type PutResult = Result<PutPolicyResponse, Status>;

impl Looked {
    fn answer(self, epoch: u64, hosts: u64) -> PutPolicyResponse {
        let Looked { name, sha256, findings, .. } = self;
        PutPolicyResponse { epoch, name, sha256, findings, hosts }
    }
}

/// Looks at a policy as an agent would that knows nobody.
async fn look(text: Vec<u8>) -> Result<(Vec<u8>, Looked), Status> {
    if text.is_empty() || text.len() > DOCUMENT_BYTES_MAX {
        return Err(bad(format!("text: 1 to {DOCUMENT_BYTES_MAX} bytes")));
    }
    let work = move || {
        let findings = lint_bytes(&text);
        let compiled = load_bytes(&text, &NoDirectory, 1);
        let name = compiled.as_ref().map_or_else(|_| String::new(), |it| it.0.name.clone());
        let errors = findings.iter().any(|finding| finding.severity == Severity::Error);
        let good = compiled.is_ok() && !errors;
        let sha256 = Sha256::digest(&text).to_vec();
        (text, Looked { name, sha256, findings: shown(findings), good })
    };
    spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

fn shown(findings: Vec<Finding>) -> Vec<PolicyFinding> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut findings = findings;
    // Errors are what must be seen.
    findings.sort_by_key(|finding| finding.severity);
    let shown = findings.into_iter().take(POLICY_FINDINGS_MAX).map(|finding| PolicyFinding {
        error: finding.severity == Severity::Error,
        line: number(finding.line),
        column: number(finding.column),
        message: finding.message,
        hint: finding.hint.unwrap_or_default(),
    });
    shown.collect()
}

/// A version in the options of the command line.
fn told(statement: &PolicyStatement) -> String {
    let PolicyStatement { epoch, name, sha256, hosts, percent, reason, by, .. } = statement;
    let hash = sekimori_evidence::hex(sha256);
    let mut told = format!("{name:?} --epoch {epoch} --sha256 {hash}");
    if !hosts.is_empty() {
        told.push_str(&format!(" --hosts {}", hosts.join(",")));
    }
    told.push_str(&format!(" --canary {percent} --reason {reason:?} --by {by:?}"));
    told
}

fn sentence(reason: &str) -> Result<&str, Status> {
    if reason.trim().is_empty() || reason.len() > SENTENCE_BYTES_MAX {
        return Err(bad(format!(
            "reason: 1 to {SENTENCE_BYTES_MAX} bytes, for those who ask later"
        )));
    }
    Ok(reason)
}

#[tonic::async_trait]
impl PolicyService for PolicyAnswers {
    type ReplayStream = ReceiverStream<Result<ReplayResponse, Status>>;

    async fn put(
        &self,
        request: Request<PutPolicyRequest>,
    ) -> Result<Response<PutPolicyResponse>, Status> {
        let admin = Admin::of(&request)?;
        let PutPolicyRequest { text, hosts, percent, reason, signed } = request.into_inner();
        if let Some(signed) = signed {
            sentence(&reason)?;
            if !text.is_empty() || !hosts.is_empty() || percent != 0 {
                return Err(bad("signed: text, hosts and percent stand in it and nowhere else"));
            }
            return self.put_signed(&admin, signed, &reason).await.map(Response::new);
        }
        let percent = if percent == 0 { 100 } else { percent };
        let draft = Draft { text, hosts, percent, reason };
        self.put(&admin, PUT, draft).await.map(Response::new)
    }

    async fn promote(
        &self,
        request: Request<PromotePolicyRequest>,
    ) -> Result<Response<PromotePolicyResponse>, Status> {
        let admin = Admin::of(&request)?;
        let PromotePolicyRequest { epoch, percent, reason } = request.into_inner();
        let reason = sentence(&reason)?;
        let key = self.key()?;
        let making = self.making().await;
        let statement = self.statement(epoch)?;
        let now = statement.percent;
        if !(now + 1..=100).contains(&percent) {
            return Err(bad(format!(
                "percent {percent}: epoch {} is for {now} % of its hosts, and can be for more of \
                 them; the way back is another version (Rollback)",
                statement.epoch
            )));
        }
        let bundle = bundle::sign(key, &PolicyStatement { percent, ..statement });
        let (epoch, hosts) = self.take(&admin, making, (PROMOTE, reason), bundle).await?;
        Ok(Response::new(PromotePolicyResponse { epoch, hosts }))
    }

    async fn rollback(
        &self,
        request: Request<RollbackPolicyRequest>,
    ) -> Result<Response<PutPolicyResponse>, Status> {
        let admin = Admin::of(&request)?;
        let RollbackPolicyRequest { epoch, hosts, all_hosts, reason } = request.into_inner();
        if epoch == 0 {
            return Err(bad("epoch: whose text it is to be"));
        }
        let earlier = self.statement(epoch)?;
        let text = bundle::text(&earlier)
            .map_err(|error: BundleError| Status::internal(error.to_string()))?;
        let hosts = match (all_hosts, hosts.is_empty()) {
            (true, true) => Vec::new(),
            (true, false) => return Err(bad("hosts: none of them with all_hosts")),
            (false, true) => earlier.hosts,
            (false, false) => hosts,
        };
        let draft = Draft { text, hosts, percent: 100, reason };
        self.put(&admin, ROLLBACK, draft).await.map(Response::new)
    }

    async fn list(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Viewer::of(&request)?;
        let only = request.into_inner().epoch;
        let versions = self.policies.list(only);
        if only != 0 && versions.is_empty() {
            return Err(Status::not_found("there is no version of this epoch"));
        }
        Ok(Response::new(ListPoliciesResponse {
            versions,
            key: self.policies.public_key().unwrap_or_default().to_vec(),
            signed_elsewhere: self.policies.0.keys.own().is_none()
                && self.policies.public_key().is_some(),
        }))
    }

    async fn replay(
        &self,
        request: Request<ReplayRequest>,
    ) -> Result<Response<Self::ReplayStream>, Status> {
        let analyst = Analyst::of(&request)?;
        let ReplayRequest { text, filter } = request.into_inner();
        let condition = Condition::new(filter.as_ref()).map_err(bad)?;
        let filter = question::of_filter(filter.as_ref()).map_err(bad)?;
        let (text, looked) = look(text).await?;
        let good = looked.good;
        let replay = spawn_blocking(move || good.then(|| Replay::new(&text)));
        let replay = replay.await.map_err(|error| Status::internal(error.to_string()))?;
        let (answers, stream) = mpsc::channel(4);
        let Some(Ok((replay, _))) = replay else {
            let answer = ReplayAnswer { findings: looked.findings, ..ReplayAnswer::default() };
            let part = Some(Part::Answer(answer));
            // The channel is empty, so there is room.
            let _ = answers.send(Ok(ReplayResponse { part })).await;
            return Ok(Response::new(ReceiverStream::new(stream)));
        };
        let place = Arc::clone(&self.replaying).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(
                "another policy is being replayed, and that reads much of the store: wait until it \
                 has ended",
            )
        })?;
        let hash = sekimori_evidence::hex(&looked.sha256);
        let question = format!("{:?} --sha256 {hash} {filter}", looked.name);
        let question = question.trim_end().to_owned();
        let (access, upper) = (self.access.clone(), self.committed.get());
        let findings = looked.findings;
        tokio::spawn(async move {
            let _place = place;
            let (work, looked_at) = access.replay(&analyst, question, condition, upper, replay);
            tokio::pin!(work);
            let mut ticks = interval(REPLAY_PROGRESS_INTERVAL);
            ticks.tick().await;
            let answer = loop {
                tokio::select! {
                    answer = &mut work => break answer,
                    // Whoever asked has gone: the question goes with this task.
                    () = answers.closed() => return,
                    _ = ticks.tick() => {
                        let part = Some(Part::LookedAt(*looked_at.borrow()));
                        let _ = answers.try_send(Ok(ReplayResponse { part }));
                    }
                }
            };
            let answer = answer.map(|answer| ReplayResponse {
                part: Some(Part::Answer(ReplayAnswer { findings, ..answer })),
            });
            let _ = answers.send(answer).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Policies {
    /// Newest first: all, or one with each of its hosts.
    fn list(&self, only: u64) -> Vec<PolicyVersion> {
        let versions: Vec<Version> = self.versions().values().rev().cloned().collect();
        let states = self.0.fleet.states(|host, state| {
            let known = state.policy_from_collector || state.policy_epoch != 0;
            known.then(|| (host.to_owned(), state.clone()))
        });
        let mut shown: Vec<PolicyVersion> =
            versions.iter().map(|it| version(&it.statement)).collect();
        for (host, state) in states {
            let wanted = versions.iter().position(|version| version.audience.has(&host));
            let wanted = wanted.filter(|_| state.policy_from_collector);
            for (at, version) in shown.iter_mut().enumerate() {
                let runs = state.policy_epoch == version.epoch;
                if wanted != Some(at) {
                    version.also_running += u64::from(runs);
                    continue;
                }
                let told = turn(&host, &state, version.epoch);
                version.wanted += 1;
                match told.turn() {
                    PolicyTurn::Running => version.running += 1,
                    PolicyTurn::Refused => version.refused += 1,
                    _ => version.waiting += 1,
                }
                if only == version.epoch {
                    version.each.push(told);
                }
            }
        }
        shown.retain(|version| only == 0 || version.epoch == only);
        for version in &mut shown {
            let refused = |it: &PolicyHost| it.turn() != PolicyTurn::Refused;
            version.each.sort_by(|a, b| (refused(a), &a.host).cmp(&(refused(b), &b.host)));
            version.each.truncate(POLICY_HOSTS_SHOWN_MAX);
        }
        shown
    }
}

fn version(statement: &PolicyStatement) -> PolicyVersion {
    let PolicyStatement { epoch, name, sha256, hosts, percent, reason, by, time_ns, .. } =
        statement.clone();
    PolicyVersion {
        epoch,
        name,
        sha256,
        by,
        time_ns,
        reason,
        hosts,
        percent,
        ..PolicyVersion::default()
    }
}

/// How a host that is to run a version stands to it.
fn turn(host: &str, state: &HostState, epoch: u64) -> PolicyHost {
    let (turn, refusal) = if state.policy_epoch == epoch {
        (PolicyTurn::Running, String::new())
    } else if state.policy_refused_epoch == epoch {
        (PolicyTurn::Refused, state.policy_refusal.clone())
    } else {
        (PolicyTurn::Waiting, String::new())
    };
    PolicyHost { host: host.to_owned(), turn: turn.into(), refusal }
}
