use std::collections::BTreeSet;

use rstest::rstest;

use super::collector::{Fake, Manner};
use super::*;

const COUNT: u64 = 6000;

fn expected(count: u64) -> Vec<i64> {
    (1..=count as i64).collect()
}

#[rstest]
#[case::friendly(Manner::default())]
#[case::slow(Manner { delay: Duration::from_millis(30), ..Manner::default() })]
#[case::breaks_off(Manner { breaks_after: Some(3), breaks: 3, ..Manner::default() })]
#[case::breaks_at_once(Manner { breaks_after: Some(1), breaks: 2, ..Manner::default() })]
#[case::repeats_itself(Manner { twice: true, ..Manner::default() })]
#[case::answers_late(Manner { late: true, ..Manner::default() })]
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_stored_once_and_forgotten_after(#[case] manner: Manner) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let spool = spool(&directory.path().join("spool"));
    fill(&spool, 1..COUNT / 2);
    let collector = Fake::new(manner.clone());
    let _server = collector.serve(&path);
    let shipper = Shipper::start(unix(&path), spool.clone(), News::default());
    fill(&spool, COUNT / 2..COUNT + 1);
    let status = until(&shipper, |status| status.acknowledged >= COUNT).await;
    assert_eq!(collector.times(), expected(COUNT));
    assert_eq!(status.acknowledged, COUNT);
    assert_eq!((status.refused, status.unacknowledged_bytes), (0, 0));
    let status = shipper.drain(PATIENCE).await;
    assert_eq!(status.state, ShipState::Stopped);
    let store = collector.store.lock().unwrap();
    assert_eq!(store.streams, manner.breaks + 1);
    assert_eq!(store.received > COUNT, manner.breaks > 0, "{}", store.received);
    assert!(store.largest_batch <= limits::BATCH_EVENTS_MAX);
    assert!(store.events.values().all(|event| event.boot == spool.boot()));
    assert!(store.events.values().all(|event| (event.lane == 1) == (event.time_ns % 10 == 0)));
    assert_eq!(spool.next_batch(&mut spool.reader()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_out_of_order_forget_nothing_early() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let spool = spool(&directory.path().join("spool"));
    let collector = Fake::new(Manner { swapped: true, ..Manner::default() });
    let _server = collector.serve(&path);
    fill(&spool, 1..1001);
    // 100 alerts and 900 others: three batches, of which the third stays unanswered.
    let shipper = Shipper::start(unix(&path), spool.clone(), News::default());
    let status = until(&shipper, |status| status.acknowledged == 600).await;
    assert_eq!(status.in_flight, 1);
    let left = spool.next_batch(&mut spool.reader()).unwrap();
    assert_eq!(left.entries.len(), 400);
    drop(shipper);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_late_gets_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let spool = spool(&directory.path().join("spool"));
    fill(&spool, 1..301);
    let shipper = Shipper::start(unix(&path), spool.clone(), News::default());
    let status = until(&shipper, |status| matches!(status.state, ShipState::Retrying { .. })).await;
    let ShipState::Retrying { error, delay_ms } = status.state else { panic!() };
    assert!(error.contains("c.sock") && error.contains("No such file"), "{error}");
    assert!((250..=1000).contains(&delay_ms), "{delay_ms}");
    let collector = Fake::new(Manner::default());
    let _server = collector.serve(&path);
    let status = shipper.drain(PATIENCE).await;
    assert_eq!(status.acknowledged, 300);
    assert_eq!(collector.times(), expected(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_comes_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    let spool = spool(&place);
    fill(&spool, 1..301);
    let shipper =
        Shipper::start(unix(&directory.path().join("none.sock")), spool.clone(), News::default());
    let begun = Instant::now();
    let status = shipper.drain(Duration::from_millis(300)).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!((status.state, status.acknowledged), (ShipState::Stopped, 0));
    spool.close().unwrap();
    let (_, report) = Spool::open(&place, SpoolConfig::default()).unwrap();
    assert_eq!(report.waiting_events, 300);
}

#[rstest]
#[case::one(&[777])]
#[case::first_and_last(&[1, 1500])]
#[case::neighbours_and_an_alert(&[41, 42, 43, 50])]
#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_found_recorded_and_passed(#[case] poison: &[i64]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let spool = spool(&directory.path().join("spool"));
    let poison: BTreeSet<i64> = poison.iter().copied().collect();
    let collector = Fake::new(Manner { poison: poison.clone(), ..Manner::default() });
    let _server = collector.serve(&path);
    fill(&spool, 1..1501);
    let shipper = Shipper::start(unix(&path), spool.clone(), News::default());
    let refused = poison.len() as u64;
    until(&shipper, |status| status.acknowledged >= 1500).await;
    let status = shipper.drain(PATIENCE).await;
    assert_eq!(status.refused, refused);
    assert_eq!(status.acknowledged, 1500, "each Loss event stands for a refused one");
    let good: Vec<i64> = expected(1500).into_iter().filter(|time| !poison.contains(time)).collect();
    assert_eq!(collector.times(), good);
    let losses = collector.losses();
    assert!(losses.iter().all(|loss| loss.stage == "ship" && loss.kind() == Kind::Exec));
    assert!(losses.iter().all(|loss| loss.reason.contains("InvalidArgument")), "{losses:?}");
    assert_eq!(losses.iter().map(|loss| loss.count).sum::<u64>(), refused);
    let store = collector.store.lock().unwrap();
    let times = store.events.values().filter(|event| event.loss.is_some());
    assert!(times.map(|event| event.time_ns).all(|time| time == NOW_NS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_everything_does_not_keep_delivery_busy_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let spool = spool(&directory.path().join("spool"));
    let collector = Fake::new(Manner { refuses: true, ..Manner::default() });
    let _server = collector.serve(&path);
    fill(&spool, 1..21);
    let shipper = Shipper::start(unix(&path), spool.clone(), News::default());
    let status = shipper.drain(PATIENCE).await;
    assert_eq!(status.refused, 40, "each event, and each record of that");
    assert_eq!((status.acknowledged, status.unacknowledged_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_goes_on_where_the_acknowledgements_ended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.sock");
    let place = directory.path().join("spool");
    let collector = Fake::new(Manner { delay: Duration::from_millis(100), ..Manner::default() });
    let _server = collector.serve(&path);
    let first = spool(&place);
    fill(&first, 1..3001);
    let shipper = Shipper::start(unix(&path), first.clone(), News::default());
    until(&shipper, |status| status.acknowledged > 0).await;
    // As a kill would: nothing is drained, closed or marked.
    shipper.task.abort();
    let _ = shipper.task.await;
    drop(first);
    collector.manner.lock().unwrap().delay = Duration::ZERO;
    let second = spool(&place);
    fill(&second, 3001..3101);
    let shipper = Shipper::start(unix(&path), second.clone(), News::default());
    until(&shipper, |status| status.unacknowledged_bytes == 0 && status.acknowledged > 0).await;
    assert_eq!(collector.times(), expected(3100));
    let store = collector.store.lock().unwrap();
    let boots: BTreeSet<&Vec<u8>> = store.events.keys().map(|(boot, _)| boot).collect();
    assert_eq!(boots.len(), 2);
}

#[test]
fn delays_grow_to_the_limit_and_no_further() {
    let delays: Vec<Duration> = delays().take(40).collect();
    assert!(delays[0] >= limits::RETRY_DELAY_MIN && delays[0] <= 2 * limits::RETRY_DELAY_MIN);
    assert!(delays.iter().all(|delay| *delay <= limits::RETRY_DELAY_MAX));
    assert_eq!(delays[39], limits::RETRY_DELAY_MAX);
}
