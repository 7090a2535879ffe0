//! The pipeline from ring bytes to what the collector would be sent, without a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use sekimori_abi::event::{counter, flag, kind, operation, verdict};
use sekimori_abi::table::Accounts;
use sekimori_proto::v1::{Event, Kind, Verdict};

use super::pipeline::Pipeline;
use super::policy::Keeper;
use super::*;
use crate::decode::sample;
use crate::kernel::KernelError;
use crate::record::Counters;
use crate::spool::{Lane, Reader};

const POLICY: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: head-office }
mode: enforce
labels:
  - { name: secret, paths: ['/srv/secret/**'] }
rules:
  - { id: r0, on: file.open, when: { label: secret }, action: alert }
  - { id: no-usb, on: usb.write, action: deny, tell: { user: 'Not here.' } }
";

struct Bench {
    _directory: tempfile::TempDir,
    spool: SharedSpool,
    pipeline: Pipeline,
    keeper: Keeper,
    policy: std::path::PathBuf,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let (spool, report) =
        Spool::open(&directory.path().join("spool"), SpoolConfig::default()).unwrap();
    assert!(report.fresh);
    let spool = SharedSpool::new(spool);
    let mut pipeline =
        Pipeline::new(spool.clone(), Enricher::new(), Tell::new(), Accounts::default());
    let mut keeper = Keeper::new(policy.clone(), 1 << kind::EXEC);
    let loaded = keeper.load().unwrap();
    keeper.took(loaded, &mut pipeline.rules);
    Bench { _directory: directory, spool, pipeline, keeper, policy }
}

/// Everything that waits for the collector, both lanes, in order of sequence.
fn spooled(spool: &SharedSpool) -> Vec<(Lane, Event)> {
    let mut reader: Reader = spool.reader();
    let mut events = Vec::new();
    while let Some(batch) = spool.next_batch(&mut reader) {
        for entry in &batch.entries {
            events.push((batch.lane, batch.event(entry).unwrap()));
        }
    }
    events.sort_by_key(|(_, event)| event.sequence);
    events
}

/// A process that `/proc` does not have.
fn made(kind: u8, operation: u8, sequence: u64, time_ns: u64) -> sekimori_abi::event::Event {
    let mut event = sample::event(kind, operation);
    event.process.tgid = u32::MAX - 7;
    event.process.start_ns = 5;
    event.sequence = sequence;
    event.time_ns = time_ns;
    event.inode = 9;
    event
}

#[test]
fn a_denial_read_before_its_launch_still_knows_the_program() {
    let mut bench = bench();
    let mut denial = made(kind::USB_WRITE, operation::OPEN, 1, 200);
    (denial.ring, denial.verdict) = (1, verdict::DENIED);
    (denial.rule, denial.generation) = (2, 1);
    let path = sample::components("/mnt/x");
    bench.pipeline.take(&sample::record(denial, [&path, b"", b""]));
    let launch = made(kind::EXEC, operation::EXEC, 1, 100);
    let program = sample::components("/usr/bin/cp");
    bench.pipeline.take(&sample::record(launch, [&program, b"", b"cp\0"]));
    bench.pipeline.process();

    let events = spooled(&bench.spool);
    let kinds: Vec<_> = events.iter().map(|(lane, event)| (*lane, event.kind())).collect();
    assert_eq!(kinds, [(Lane::Telemetry, Kind::Exec), (Lane::Alerts, Kind::UsbWrite)]);
    let (_, denial) = &events[1];
    assert_eq!((denial.verdict(), denial.rule.as_str()), (Verdict::Denied, "no-usb"));
    assert_eq!(denial.process.as_ref().unwrap().exe, b"/usr/bin/cp");
    assert_eq!(denial.boot, bench.spool.boot());
    assert_eq!(bench.pipeline.told().written, 0, "the process had no terminal");
}

#[test]
fn what_is_lost_becomes_a_record() {
    let mut bench = bench();
    bench.pipeline.take(b"garbage");
    bench.pipeline.process();
    let mut counters = Counters::default();
    counters[usize::from(kind::FILE_OPEN)][counter::LOST_RING as usize] = 4;
    bench.pipeline.poll(&counters, &[0; sekimori_abi::event::kind::COUNT]);
    let events = spooled(&bench.spool);
    let losses: Vec<_> = events
        .iter()
        .map(|(_, event)| event.loss.clone().unwrap())
        .map(|loss| (loss.stage.clone(), loss.kind(), loss.count))
        .collect();
    let expected =
        [("ring".to_owned(), Kind::FileOpen, 4), ("decode".to_owned(), Kind::Unspecified, 1)];
    assert_eq!(losses, expected);
    assert!(events.iter().all(|(lane, _)| *lane == Lane::Alerts));
}

#[test]
fn the_policy_says_which_failed_opens_and_kinds_are_stored() {
    let mut bench = bench();
    let mut failed = made(kind::FILE_OPEN, operation::OPEN, 1, 1);
    (failed.flags, failed.errno) = (flag::OPEN_FAILED, -13);
    bench.pipeline.take(&sample::record(failed, [b"", b"", b"/srv/secret/a"]));
    bench.pipeline.take(&sample::record(failed, [b"", b"", b"/srv/public/a"]));
    bench.pipeline.take(&sample::record(made(kind::EXIT, operation::EXIT, 2, 2), [b"", b"", b""]));
    bench.pipeline.process();
    let paths: Vec<_> =
        spooled(&bench.spool).into_iter().map(|(_, event)| event.file.unwrap().path).collect();
    assert_eq!(paths, [b"/srv/secret/a".to_vec()]);
}

#[test]
fn a_bad_policy_is_refused_with_its_place_and_the_last_one_stays() {
    let mut bench = bench();
    assert_eq!((bench.keeper.status().generation, bench.keeper.status().rules > 1), (1, true));
    std::fs::write(&bench.policy, POLICY.replace("usb.write", "usb.wrote")).unwrap();
    let error = bench.keeper.load().err().unwrap();
    let text = error.to_string();
    assert!(text.contains("policy.yaml:9:") && text.contains("usb.wrote"), "{text}");
    assert_eq!(bench.keeper.status().name, "head-office");
    assert_eq!(bench.pipeline.rules.id(1, 2), "no-usb");
    std::fs::write(&bench.policy, POLICY.replace("head-office", "second")).unwrap();
    let loaded = bench.keeper.load().unwrap();
    bench.keeper.took(loaded, &mut bench.pipeline.rules);
    assert_eq!(
        (bench.keeper.status().generation, bench.keeper.status().name.as_str()),
        (2, "second")
    );
    assert_eq!(bench.pipeline.rules.id(1, 2), "no-usb", "records of the old one are still named");
}

#[test]
fn a_policy_that_is_not_there_says_so() {
    let error = check_policy(Path::new("/nonexistent/policy.yaml")).unwrap_err();
    assert!(error.to_string().contains("cannot read the policy /nonexistent/policy.yaml"));
    assert_eq!(RunError::from(error).exit_code(), 64);
}

#[test]
fn errors_end_with_the_promised_codes() {
    let unsupported = KernelError::Unsupported(String::new());
    assert_eq!(RunError::from(unsupported).exit_code(), 69);
    let permission = KernelError::Permission(String::new());
    assert_eq!(RunError::from(permission).exit_code(), 77);
    assert_eq!(RunError::from(KernelError::Other(String::new())).exit_code(), 1);
}

#[test]
fn a_stop_that_was_not_orderly_is_told_with_its_time() {
    let clean = RecoveryReport { clean: true, ..RecoveryReport::default() };
    assert_eq!(gap(&clean, false), None);
    let known = RecoveryReport {
        last_record_time_ns: Some(1_772_382_600_123_456_789),
        ..RecoveryReport::default()
    };
    let text = gap(&known, false).unwrap();
    assert!(text.contains("from 2026-03-01T16:30:00.123Z until now"), "{text}");
    assert!(gap(&RecoveryReport::default(), false).unwrap().contains("an unknown time"));
}

/// Without the kernel programs the agent says so instead of pretending to watch.
#[tokio::test]
async fn a_stubbed_agent_refuses_to_run() {
    if !kernel::OBJECT.is_empty() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let at = directory.path().display();
    let text = format!(
        "policy: {}\nspool: {{ directory: {at}/spool }}\n\
         collector: {{ address: 'unix:{at}/c.sock' }}\ncontrol: {{ socket: {at}/a.sock }}\n",
        policy.display()
    );
    let config = Config::parse(&text, Path::new("agent.yaml")).unwrap();
    let error = run(config, Options::default()).await.unwrap_err();
    assert_eq!(error.exit_code(), 69);
    assert!(error.to_string().contains("cargo xtask build"), "{error}");
}
