//! A real store, rewritten by somebody who may write its files.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Cursor, Write as _};
use std::path::Path;

use prost::Message as _;
use sekimori_evidence::{Chain, Head, Name, SigningKey, case, digest};
use sekimori_proto::v1::{
    Event, EvidenceSummary, Finding, FindingKind, HostEvidence, Kind, PolicyText, Removed,
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

use super::*;
use crate::identity::{Agent, Caller, Peer};
use crate::limits::{EVIDENCE_BYTES_MAX, PEER_NAME_MAX};
use crate::store::tamper::{Row, tamper};
use crate::store::{Batch, Entry, Store};

const HOST: &str = "pc-1";

#[test]
fn a_request_with_as_many_links_as_are_taken_fits() {
    let host = "a".repeat("collector:".len() + PEER_NAME_MAX);
    let head = sekimori_proto::v1::Head { host, number: u64::MAX, sha256: vec![0xff; 32] };
    let expected = vec![head; HEADS_MAX];
    let request = VerifyRequest { hosts: Vec::new(), expected };
    assert!(request.encoded_len() <= EVIDENCE_BYTES_MAX, "{}", request.encoded_len());
}

/// A host that records and signs.
struct Host {
    key: SigningKey,
    chain: Chain,
    waiting: Vec<Entry>,
}

impl Host {
    fn new(dir: &Path) -> Host {
        let key = SigningKey::open(&dir.join("host.key")).unwrap();
        Host { key, chain: Chain::new(&[1; 16], Head::default(), 1), waiting: Vec::new() }
    }

    fn record(&mut self, event: Event) {
        let (sequence, boot) = (self.chain.next(), self.chain.boot().to_vec());
        let mut body = event.encode_to_vec();
        Name { boot: &boot, sequence, lane: event.lane }.encode(&mut body);
        self.chain.note(sequence, digest(&[&body], event.lane));
        let event = Event::decode(body.as_slice()).unwrap();
        self.waiting.push(Entry::new(&event, body.into()).unwrap());
    }

    fn exec(&mut self, message: &str) {
        let time_ns = i64::try_from(self.chain.next()).unwrap();
        let message = message.to_owned();
        self.record(Event { kind: Kind::Exec.into(), time_ns, message, ..Event::default() });
    }

    fn sign(&mut self) {
        let count = self.chain.digests().len();
        let (checkpoint, head) = self.chain.sign(&self.key, count, 0, 0);
        self.chain.signed(head, count);
        let (kind, checkpoint) = (Kind::Checkpoint.into(), Some(checkpoint));
        self.record(Event { kind, checkpoint, ..Event::default() });
    }

    async fn deliver(&mut self, store: &Store) {
        let batch = Batch::new(&Agent::for_test(HOST), std::mem::take(&mut self.waiting));
        store.writer().submit(batch).await.unwrap().await.unwrap().unwrap();
    }
}

struct Run {
    store: Store,
    author: Author,
    custodian: Custodian,
    evidence: Evidence,
}

impl Run {
    async fn new(dir: &Path) -> Run {
        let store = Store::open(&dir.join("store"), None).unwrap();
        let author = Author::open(dir, &store).await.unwrap();
        let (readers, committed) = (store.readers().clone(), store.committed().clone());
        let custodian = Custodian::new(author.clone(), readers.clone(), committed.clone()).unwrap();
        let (author_too, custodian_too) = (author.clone(), custodian.clone());
        let evidence = Evidence::new(readers, author_too, custodian_too, committed, dir.to_owned());
        Run { store, author, custodian, evidence }
    }

    async fn end(self) {
        self.custodian.countersign().await.unwrap();
        self.author.sign().await.unwrap();
        self.store.close().await;
    }

    async fn verify(&self, hosts: &[&str]) -> Answer {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let answers = self
            .evidence
            .verify(admin(VerifyRequest { hosts, ..VerifyRequest::default() }))
            .await
            .unwrap();
        let mut answers = answers.into_inner();
        let mut answer = Answer::default();
        while let Some(part) = answers.next().await {
            match part.unwrap().part.unwrap() {
                Part::LookedAt(_) => {}
                Part::Finding(finding) => answer.findings.push(finding),
                Part::Host(host) => answer.hosts.push(host),
                Part::Summary(summary) => answer.summary = Some(summary),
            }
        }
        answer
    }

    async fn export(&self, filter: Filter) -> Vec<u8> {
        let (filter, reason) = (Some(filter), "退職前の確認".to_owned());
        let answers = self.evidence.export(admin(ExportRequest { filter, reason })).await.unwrap();
        let mut answers = answers.into_inner();
        let mut bytes = Vec::new();
        let mut size = 0;
        while let Some(part) = answers.next().await {
            let ExportResponse { chunk, size: all } = part.unwrap();
            size += all;
            bytes.write_all(&chunk).unwrap();
        }
        assert_eq!(bytes.len() as u64, size);
        bytes
    }
}

#[derive(Debug, Default)]
struct Answer {
    findings: Vec<Finding>,
    hosts: Vec<HostEvidence>,
    summary: Option<EvidenceSummary>,
}

impl Answer {
    fn problems(&self) -> Vec<(FindingKind, &str, u64, u64)> {
        let problems = self.findings.iter().filter(|it| it.problem);
        problems.map(|it| (it.kind(), it.host.as_str(), it.first, it.last)).collect()
    }

    fn host(&self, name: &str) -> &HostEvidence {
        self.hosts.iter().find(|it| it.host.starts_with(name)).unwrap()
    }
}

fn admin<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::Known(Peer::from_local_uid(0, 0, "h").unwrap()));
    request
}

/// A store with two links of a host, countersigned and closed.
async fn sound() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(dir.path()).await;
    let mut host = Host::new(dir.path());
    let policy = PolicyText {
        name: "office".into(),
        sha256: vec![5; 32],
        text_zstd: zstd::encode_all(&b"rules: []\n"[..], 1).unwrap(),
    };
    host.record(Event { kind: Kind::Agent.into(), policy: Some(policy), ..Event::default() });
    (0..5).for_each(|number| host.exec(&format!("第{number}")));
    host.sign();
    host.deliver(&run.store).await;
    (5..9).for_each(|number| host.exec(&format!("第{number}")));
    host.sign();
    host.deliver(&run.store).await;
    run.end().await;
    dir
}

async fn problems_after(
    change: impl FnMut(Vec<Row>) -> Vec<Row>,
) -> Vec<(FindingKind, String, u64, u64)> {
    let dir = sound().await;
    tamper(&dir.path().join("store"), change);
    let run = Run::new(dir.path()).await;
    let answer = run.verify(&[]).await;
    let problems = answer.problems().into_iter();
    problems.map(|(kind, host, first, last)| (kind, host.to_owned(), first, last)).collect()
}

fn named(kind: FindingKind, first: u64, last: u64) -> (FindingKind, String, u64, u64) {
    (kind, HOST.to_owned(), first, last)
}

fn is(row: &Row, sequences: std::ops::RangeInclusive<u64>) -> bool {
    let event = Event::decode(row.body.as_ref()).unwrap();
    row.host == HOST && sequences.contains(&event.sequence)
}

#[tokio::test]
async fn what_is_sound_is_proven_over_restarts() {
    let dir = sound().await;
    for _ in 0..3 {
        let run = Run::new(dir.path()).await;
        let answer = run.verify(&[]).await;
        assert_eq!(answer.problems(), [], "{answer:?}");
        let host = answer.host(HOST);
        assert_eq!((host.records, host.proven, host.head_number), (12, 12, 2));
        // Killed: neither signed nor countersigned.
        run.store.close().await;
    }
    let run = Run::new(dir.path()).await;
    run.author.sign().await.unwrap();
    let answer = run.verify(&[HOST]).await;
    assert_eq!(answer.problems(), []);
    let own = answer.host("collector:");
    // The record of this very verification is not signed yet.
    assert!(own.proven > 3 && own.records - own.proven <= 2, "{own:?}");
}

#[tokio::test]
async fn whoever_writes_the_files_is_found() {
    let unchanged = problems_after(|rows| rows).await;
    assert_eq!(unchanged, []);
    let removed = problems_after(|rows| rows.into_iter().filter(|it| !is(it, 3..=4)).collect());
    assert_eq!(removed.await, [named(FindingKind::Removed, 3, 4)]);
    let changed = problems_after(|mut rows| {
        for row in rows.iter_mut().filter(|row| is(row, 5..=5)) {
            let mut event = Event::decode(row.body.as_ref()).unwrap();
            event.message = "別の".to_owned();
            row.body = event.encode_to_vec().into();
        }
        rows
    });
    assert_eq!(changed.await, [named(FindingKind::Changed, 5, 5)]);
    let swapped = problems_after(|mut rows| {
        for row in rows.iter_mut().filter(|row| is(row, 8..=9)) {
            let mut event = Event::decode(row.body.as_ref()).unwrap();
            event.sequence = 17 - event.sequence;
            row.body = event.encode_to_vec().into();
        }
        rows
    });
    let expected = [named(FindingKind::Changed, 9, 9), named(FindingKind::Changed, 8, 8)];
    let mut found = swapped.await;
    found.sort_by_key(|it| std::cmp::Reverse(it.2));
    assert_eq!(found, expected);
    let cut = problems_after(|rows| rows.into_iter().filter(|it| !is(it, 8..=12)).collect());
    assert_eq!(cut.await, [named(FindingKind::CheckpointMissing, 2, 2)]);
}

#[tokio::test]
async fn an_inserted_record_is_found() {
    let mut done = false;
    let inserted = problems_after(move |mut rows| {
        let first = rows.iter().position(|row| is(row, 2..=2));
        if let Some(first) = first.filter(|_| !std::mem::replace(&mut done, true)) {
            let event = Event { boot: vec![7; 16], sequence: 1, kind: 6, ..Event::default() };
            let (cursor, host) = (rows[first].cursor, HOST.to_owned());
            rows.push(Row { cursor, host, body: event.encode_to_vec().into() });
        }
        rows
    });
    assert_eq!(inserted.await, [named(FindingKind::Inserted, 1, 1)]);
}

#[tokio::test]
async fn the_collectors_own_records_are_no_exception() {
    let removed = problems_after(|rows| {
        let own = |row: &Row| row.host.starts_with("collector:");
        let custody = |row: &Row| Event::decode(row.body.as_ref()).unwrap().custody.is_some();
        rows.into_iter().filter(|row| !(own(row) && custody(row))).collect()
    });
    let removed = removed.await;
    assert_eq!((removed.len(), removed[0].0), (1, FindingKind::Removed), "{removed:?}");
    assert!(removed[0].1.starts_with("collector:"), "{removed:?}");
}

#[tokio::test]
async fn what_retention_took_is_told_and_no_problem() {
    let dir = sound().await;
    let run = Run::new(dir.path()).await;
    let removed = Removed { through_cursor: 3, events: 3, reason: "30 days".into() };
    assert!(run.custodian.removed(removed).await);
    run.end().await;
    let old = |row: &Row| is(row, 1..=3);
    tamper(&dir.path().join("store"), |rows| rows.into_iter().filter(|it| !old(it)).collect());
    let run = Run::new(dir.path()).await;
    let answer = run.verify(&[]).await;
    assert_eq!(answer.problems(), []);
    let kinds: Vec<_> = answer.findings.iter().map(Finding::kind).collect();
    assert!(kinds.contains(&FindingKind::Expired), "{kinds:?}");
}

#[tokio::test]
async fn a_case_is_checked_without_the_collector() {
    let dir = sound().await;
    let run = Run::new(dir.path()).await;
    let filter = Filter { since_ns: Some(9), until_ns: Some(11), ..Filter::default() };
    let bytes = run.export(Filter { kinds: vec![6], ..filter }).await;
    let case::Opened { manifest, outcome } = case::open(Cursor::new(&bytes)).unwrap();
    assert_eq!((manifest.records, manifest.reason.as_str()), (2, "退職前の確認"));
    assert_eq!(manifest.exported_by, "admin uid 0");
    assert!(manifest.question.starts_with("--kind exec --since 1970-"), "{}", manifest.question);
    assert_eq!(manifest.collector_key, sekimori_evidence::hex(&run.author.key().public()));
    let policies = manifest.files.keys().filter(|it| it.starts_with("policies/")).count();
    assert_eq!(policies, 1);
    let problems = outcome.findings.iter().filter(|it| it.problem).collect::<Vec<_>>();
    assert_eq!(problems, Vec::<&Finding>::new());
    // Two records, the policy, two links, the countersignature and its link.
    assert_eq!(outcome.summary.records, outcome.summary.proven);
    assert!(outcome.summary.records >= 7, "{:?}", outcome.summary);
    let acts = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let (reader, acts) = (Operator::for_test(), Arc::new(Condition::new(Some(&acts)).unwrap()));
    let last = run.store.readers().last(&reader, acts);
    let act = last.await.unwrap().unwrap().act.unwrap();
    assert_eq!((act.method.as_str(), act.answered, act.phase()), ("Export", 2, ActPhase::End));
    assert!(act.question.ends_with("--reason \"退職前の確認\""), "{}", act.question);
}

#[tokio::test]
async fn a_case_needs_a_reason_and_an_admin() {
    let dir = sound().await;
    let run = Run::new(dir.path()).await;
    let request = ExportRequest { filter: None, reason: " ".to_owned() };
    let refused = run.evidence.export(admin(request)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let refused = run.evidence.export(Request::new(ExportRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}
