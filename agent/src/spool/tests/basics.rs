use super::*;

#[test]
fn events_come_back_in_order_alerts_first() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, report) = open(directory.path(), SpoolConfig::default());
    assert!(report.fresh && report.clean);
    assert_eq!(spool.append(Lane::Telemetry, &event(Kind::Exec, 7, 9)).unwrap(), 1);
    assert_eq!(spool.append(Lane::Alerts, &event(Kind::UsbWrite, 8, 9)).unwrap(), 2);
    assert_eq!(spool.append(Lane::Telemetry, &event(Kind::Exit, 9, 9)).unwrap(), 3);
    let mut reader = Reader::new(&spool);
    assert_eq!(reader.next_batch(&mut spool), None, "nothing is flushed yet");
    spool.flush().unwrap();
    let batches = read_all(&mut spool, &mut reader);
    let lanes: Vec<Lane> = batches.iter().map(|(batch, _)| batch.lane).collect();
    assert_eq!(lanes, [Lane::Alerts, Lane::Telemetry]);
    assert_eq!(sequences(&batches, Lane::Telemetry), [1, 3]);
    let alert = &batches[0].1[0];
    assert_eq!((alert.sequence, alert.lane, alert.time_ns), (2, 1, 8));
    assert_eq!(alert.boot, spool.boot());
    assert_eq!(alert.message, "関関関");
}

#[test]
fn acknowledged_events_are_not_seen_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    for time in 0..40 {
        spool.append(Lane::Telemetry, &event(Kind::Exec, time, 60)).unwrap();
    }
    spool.flush().unwrap();
    let boot = spool.boot();
    let mut reader = Reader::new(&spool);
    let first = reader.next_batch(&mut spool).unwrap();
    let before = files(directory.path(), ".seg").len();
    spool.acknowledge(first.end).unwrap();
    assert_eq!(files(directory.path(), ".seg").len(), before - 1, "one segment is done");
    let done = first.entries.len() as u64;
    spool.close().unwrap();

    let (mut spool, report) = open(directory.path(), SMALL);
    assert!(report.clean && !report.fresh);
    assert_eq!(report.waiting_events, 40 - done);
    assert_eq!(report.last_record_time_ns, Some(39));
    assert_eq!(report.losses, []);
    assert_ne!(spool.boot(), boot);
    spool.append(Lane::Telemetry, &event(Kind::Exec, 99, 0)).unwrap();
    spool.flush().unwrap();
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    let expected: Vec<u64> = (done + 1..=40).chain([1]).collect();
    assert_eq!(sequences(&batches, Lane::Telemetry), expected);
    assert_eq!(batches.last().unwrap().0.boot, spool.boot());
    for (batch, _) in &batches {
        spool.acknowledge(batch.end).unwrap();
    }
    assert_eq!(files(directory.path(), ".seg").len(), 1, "only the active one is left");
    assert_eq!(spool.stats().unacknowledged_bytes, 0);
}

#[test]
fn a_killed_agent_loses_nothing_that_was_flushed_and_the_gap_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    spool.append(Lane::Alerts, &event(Kind::FileOpen, 5, 10)).unwrap();
    spool.flush().unwrap();
    spool.append(Lane::Alerts, &event(Kind::FileOpen, 6, 10)).unwrap();
    drop(spool);
    let (mut spool, report) = open(directory.path(), SMALL);
    assert!(!report.clean && !report.fresh);
    assert_eq!(report.last_record_time_ns, Some(5));
    assert_eq!((report.waiting_events, report.torn_bytes), (1, 0));
    let mut reader = Reader::new(&spool);
    assert_eq!(sequences(&read_all(&mut spool, &mut reader), Lane::Alerts), [1]);
    // A second crash is a crash too, although the first start was looked at.
    drop(spool);
    assert!(!open(directory.path(), SMALL).1.clean);
}

#[test]
fn two_agents_on_one_spool_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _) = open(directory.path(), SMALL);
    let error = Spool::open(directory.path(), SMALL).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }));
    let text = error.to_string();
    assert!(text.contains("another sekimori-agent") && text.contains("spool.directory"), "{text}");
}

#[test]
fn a_full_lane_drops_its_oldest_telemetry_and_says_how_many_of_what() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    spool.append(Lane::Alerts, &event(Kind::FileOpen, 1, 30)).unwrap();
    for time in 0..400 {
        let kind = if time % 3 == 0 { Kind::Exec } else { Kind::NetUpload };
        spool.append(Lane::Telemetry, &event(kind, time, 60)).unwrap();
        spool.flush().unwrap();
        let stats = spool.stats();
        assert!(stats.telemetry_bytes <= SMALL.telemetry_bytes_max, "{stats:?}");
    }
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    let kept = sequences(&batches, Lane::Telemetry);
    assert_eq!(sequences(&batches, Lane::Alerts), [1]);
    let first = kept[0];
    assert_eq!(kept, (first..=401).collect::<Vec<u64>>(), "the newest are left");
    let gone = |rest: &dyn Fn(i64) -> bool| {
        (0..first as i64 - 2).filter(|time| rest(*time)).count() as u64
    };
    let expected = BTreeMap::from([
        (i32::from(Kind::Exec), gone(&|time| time % 3 == 0)),
        (i32::from(Kind::NetUpload), gone(&|time| time % 3 != 0)),
    ]);
    assert_eq!(losses(&spool), expected);
    assert_eq!(spool.stats().dropped, first - 2);
    let bytes: u64 =
        files(directory.path(), ".seg").iter().map(|path| path.metadata().unwrap().len()).sum();
    let stats = spool.stats();
    assert_eq!(bytes, stats.telemetry_bytes + stats.alert_bytes);

    // The losses become events, once, and only then their files go.
    assert!(!files(directory.path(), "dropped-").is_empty());
    spool.record_losses(77).unwrap();
    spool.flush().unwrap();
    assert_eq!(files(directory.path(), "dropped-"), Vec::<PathBuf>::new());
    let batches = read_all(&mut spool, &mut reader);
    let recorded: BTreeMap<i32, u64> = batches
        .iter()
        .flat_map(|(_, events)| events)
        .map(|event| (event.time_ns, event.kind(), event.loss.clone().unwrap()))
        .inspect(|(time, kind, _)| assert_eq!((*time, *kind), (77, Kind::Loss)))
        .map(|(_, _, loss)| (loss.kind, loss.count))
        .collect();
    assert_eq!(recorded, expected);
    assert_eq!(spool.record_losses(78).unwrap(), 0);
}

#[test]
fn a_drop_before_a_crash_is_still_counted_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    for time in 0..200 {
        spool.append(Lane::Telemetry, &event(Kind::Exec, time, 60)).unwrap();
        spool.flush().unwrap();
    }
    let before = losses(&spool);
    assert!(before[&Kind::Exec.into()] > 0);
    drop(spool);
    let (spool, report) = open(directory.path(), SMALL);
    assert_eq!(losses(&spool), before);
    assert_eq!(report.losses, spool.waiting_losses());
}

#[test]
fn alerts_that_drop_loss_events_keep_what_these_said() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    let loss = SpoolLoss { stage: "ring".into(), kind: 6, reason: "full".into(), count: 1234 };
    spool.note_loss(loss.clone());
    spool.record_losses(1).unwrap();
    for time in 0..200 {
        spool.append(Lane::Alerts, &event(Kind::FileOpen, time, 60)).unwrap();
        spool.flush().unwrap();
    }
    assert!(spool.waiting_losses().contains(&loss), "{:?}", spool.waiting_losses());
    assert!(spool.stats().alert_bytes <= SMALL.alert_bytes_max);
}

#[test]
fn telemetry_is_not_starved_by_alerts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SpoolConfig::default());
    for time in 0..5000 {
        spool.append(Lane::Alerts, &event(Kind::FileOpen, time, 0)).unwrap();
    }
    spool.append(Lane::Telemetry, &event(Kind::Exec, 1, 0)).unwrap();
    spool.flush().unwrap();
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    let turn = batches.iter().position(|(batch, _)| batch.lane == Lane::Telemetry).unwrap();
    assert_eq!(turn, limits::ALERT_BATCHES_IN_ROW_MAX as usize);
    assert!(batches.iter().all(|(batch, _)| batch.entries.len() <= limits::BATCH_EVENTS_MAX));
    assert_eq!(sequences(&batches, Lane::Alerts), (1..=5000).collect::<Vec<u64>>());
}

#[test]
fn batches_are_bounded_in_bytes_and_one_large_event_fits() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SpoolConfig::default());
    let large = event(Kind::Exec, 1, limits::EVENT_BYTES_MAX - 64);
    for _ in 0..9 {
        spool.append(Lane::Telemetry, &large).unwrap();
    }
    let huge = event(Kind::Exit, 1, limits::EVENT_BYTES_MAX + 64);
    let error = spool.append(Lane::Telemetry, &huge).unwrap_err();
    assert!(matches!(error, SpoolError::TooLarge { .. }));
    spool.flush().unwrap();
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    assert!(batches.iter().all(|(batch, _)| batch.payload_bytes() <= limits::BATCH_BYTES_MAX));
    assert!(batches.iter().all(|(batch, _)| !batch.entries.is_empty()));
    assert_eq!(sequences(&batches, Lane::Telemetry).len(), 9);
    assert_eq!(losses(&spool), BTreeMap::from([(Kind::Exit.into(), 1)]));
}

#[test]
fn a_reader_can_be_made_to_take_one_event_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    for time in 0..30 {
        spool.append(Lane::Telemetry, &event(Kind::Exec, time, 60)).unwrap();
    }
    spool.flush().unwrap();
    let mut reader = Reader::new(&spool);
    reader.set_events_max(1);
    let batches = read_all(&mut spool, &mut reader);
    assert_eq!(batches.len(), 30);
    assert_eq!(sequences(&batches, Lane::Telemetry), (1..=30).collect::<Vec<u64>>());
    spool.acknowledge(batches[4].0.end).unwrap();
    reader.rewind(&spool);
    assert_eq!(reader.next_batch(&mut spool).unwrap().entries[0].sequence, 6);
}

/// A directory that cannot take files stands for a disk that takes no more.
#[test]
fn a_disk_that_takes_nothing_loses_counted_events_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("spool");
    let (mut spool, _) = open(&place, SMALL);
    fs::rename(&place, directory.path().join("away")).unwrap();
    let loss = SpoolLoss { stage: "ring".into(), kind: 6, reason: "full".into(), count: 5 };
    spool.note_loss(loss.clone());
    spool.append(Lane::Telemetry, &event(Kind::Exec, 1, 9)).unwrap();
    spool.append(Lane::Alerts, &event(Kind::FileOpen, 1, 9)).unwrap();
    spool.record_losses(2).unwrap();
    assert!(matches!(spool.flush(), Err(SpoolError::Storage { .. })));
    assert!(spool.waiting_losses().contains(&loss), "{:?}", spool.waiting_losses());
    let exec: BTreeMap<i32, u64> =
        [(Kind::Exec.into(), 1), (Kind::FileOpen.into(), 1), (6, 6)].into_iter().collect();
    assert_eq!(losses(&spool), exec, "kind 6 is exec: five of the ring, one of the spool");

    fs::rename(directory.path().join("away"), &place).unwrap();
    spool.record_losses(3).unwrap();
    spool.append(Lane::Alerts, &event(Kind::FileOpen, 4, 9)).unwrap();
    spool.flush().unwrap();
    assert_eq!(spool.waiting_losses(), []);
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    let told: u64 =
        batches[0].1.iter().filter_map(|event| event.loss.as_ref()).map(|l| l.count).sum();
    assert_eq!(told, 7);
}
