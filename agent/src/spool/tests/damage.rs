use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::spool::segment::{ENTRY_HEAD_BYTES, HEADER_BYTES};

/// One sealed segment and a part of a second one, of a boot that was killed.
fn two_segments(directory: &Path) -> Vec<PathBuf> {
    let (mut spool, _) = open(directory, SMALL);
    for time in 0..20 {
        spool.append(Lane::Telemetry, &event(Kind::Exec, time, 30)).unwrap();
    }
    spool.flush().unwrap();
    let paths = files(directory, ".seg");
    assert_eq!(paths.len(), 2);
    paths
}

fn entry_bytes() -> usize {
    ENTRY_HEAD_BYTES + event(Kind::Exec, 5, 30).encoded_len()
}

fn corrupt(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_entry_in_the_middle_is_counted_and_the_rest_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    // The first event has time 0, which is not encoded.
    let second = HEADER_BYTES + ENTRY_HEAD_BYTES + event(Kind::Exec, 0, 30).encoded_len();
    let third = second + entry_bytes();
    corrupt(&paths[0], |bytes| bytes[third - 2] ^= 0x40);
    let (mut spool, report) = open(directory.path(), SMALL);
    assert_eq!(report.damaged_bytes, entry_bytes() as u64);
    assert_eq!(report.losses.len(), 1);
    assert_eq!((report.losses[0].count, report.losses[0].kind), (1, 0));
    let mut reader = Reader::new(&spool);
    let kept = sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry);
    assert_eq!(kept, [1].into_iter().chain(3..=20).collect::<Vec<u64>>());
    // The damaged copy stays for a person; the loss is told once.
    assert_eq!(files(directory.path(), ".corrupt-unreported").len(), 1);
    spool.record_losses(1).unwrap();
    spool.flush().unwrap();
    assert_eq!(files(directory.path(), ".corrupt-unreported").len(), 0);
    assert_eq!(files(directory.path(), ".corrupt"), report.quarantined);
    drop(spool);
    assert_eq!(open(directory.path(), SMALL).1.losses, []);
}

#[test]
fn damage_that_was_not_recorded_yet_is_told_again_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    corrupt(&paths[0], |bytes| bytes[HEADER_BYTES + 30] ^= 1);
    let first = open(directory.path(), SMALL).1;
    let second = open(directory.path(), SMALL).1;
    assert_eq!(first.losses, second.losses);
    assert_eq!(first.losses[0].count, 1);
}

#[test]
fn a_damaged_header_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    corrupt(&paths[0], |bytes| bytes[20] ^= 0xff);
    let (mut spool, report) = open(directory.path(), SMALL);
    assert_eq!(report.losses, []);
    let mut reader = Reader::new(&spool);
    let kept = sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry);
    assert_eq!(kept, (1..=20).collect::<Vec<u64>>());
}

#[rstest]
#[case::inside_an_entry(1, true)]
#[case::one_byte_of_an_entry(entry_bytes() - 1, true)]
#[case::at_a_border(entry_bytes(), false)]
fn a_torn_end_is_cut_at_the_last_whole_entry(#[case] cut: usize, #[case] reported: bool) {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    corrupt(&paths[1], |bytes| bytes.truncate(bytes.len() - cut));
    let (mut spool, report) = open(directory.path(), SMALL);
    assert_eq!(report.torn_bytes, if reported { (entry_bytes() - cut) as u64 } else { 0 });
    assert_eq!(report.losses.len(), usize::from(reported));
    assert_eq!(report.last_record_time_ns, Some(18));
    assert_eq!(report.quarantined, Vec::<PathBuf>::new());
    let mut reader = Reader::new(&spool);
    let kept = sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry);
    assert_eq!(kept, (1..=19).collect::<Vec<u64>>());
}

#[test]
fn zeros_behind_the_end_after_a_power_cut_are_no_events() {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    corrupt(&paths[1], |bytes| bytes.extend([0; 700]));
    let (mut spool, report) = open(directory.path(), SMALL);
    assert_eq!(report.torn_bytes, 700);
    let mut reader = Reader::new(&spool);
    assert_eq!(sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry).len(), 20);
}

#[test]
fn an_entry_inside_the_text_of_another_is_not_taken_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let paths = two_segments(directory.path());
    // A whole entry of another file, as a hostile file name could carry it.
    let foreign = fs::read(&paths[1]).unwrap()[HEADER_BYTES..].to_vec();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = two_segments(elsewhere.path());
    corrupt(&other[1], |bytes| bytes.extend(foreign));
    let (mut spool, report) = open(elsewhere.path(), SMALL);
    assert!(report.torn_bytes > 0);
    let mut reader = Reader::new(&spool);
    assert_eq!(sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry).len(), 20);
}

#[test]
fn damage_while_running_is_stepped_over_and_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), SMALL);
    for time in 0..20 {
        spool.append(Lane::Telemetry, &event(Kind::Exec, time, 30)).unwrap();
    }
    spool.flush().unwrap();
    let path = &files(directory.path(), ".seg")[0];
    // In place: the spool has the file open.
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 90], HEADER_BYTES as u64 + 100)
        .unwrap();
    let mut reader = Reader::new(&spool);
    let kept = sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry);
    let lost = 20 - kept.len() as u64;
    assert!((1..=3).contains(&lost), "{kept:?}");
    assert_eq!(losses(&spool), BTreeMap::from([(0, lost)]));
    reader.rewind(&spool);
    assert_eq!(sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry), kept);
    assert_eq!(losses(&spool), BTreeMap::from([(0, lost)]));
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["メモ.txt", "x.seg", "dropped-", "dropped-a-b", "z.corrupt-unreported"];
    names.iter().for_each(|name| fs::write(directory.path().join(name), "?").unwrap());
    let (_spool, report) = open(directory.path(), SMALL);
    assert_eq!(report.losses, []);
    assert!(names.iter().all(|name| directory.path().join(name).exists()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Bytes changed anywhere: never a panic, never a wrong event, and what is missing is counted,
    /// exactly unless the end of a file without seal is hit.
    #[test]
    fn random_damage_is_accounted(
        spots in prop::collection::vec((0usize..2, any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let paths = two_segments(directory.path());
        for (file, place, value) in spots {
            corrupt(&paths[file], |bytes| {
                let place = place.index(bytes.len());
                bytes[place] = value;
            });
        }
        let (mut spool, report) = open(directory.path(), SMALL);
        let mut reader = Reader::new(&spool);
        let batches = read_all(&mut spool, &mut reader);
        for event in batches.iter().flat_map(|(_, events)| events) {
            prop_assert_eq!(event.time_ns as u64 + 1, event.sequence);
            prop_assert_eq!(&event.message, &"関".repeat(10));
        }
        let kept = sequences(&batches, Lane::Telemetry);
        prop_assert!(kept.is_sorted());
        let counted: u64 = spool.waiting_losses().iter().map(|loss| loss.count).sum();
        let unknown = spool.waiting_losses().iter().any(|loss| loss.count == 0);
        let missing = 20 - kept.len() as u64;
        if unknown {
            prop_assert!(counted <= missing);
        } else {
            prop_assert_eq!(counted, missing);
        }
        prop_assert_eq!(report.losses, spool.waiting_losses());
    }

    /// Any bytes at all under a segment's name.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let directory = tempfile::tempdir().unwrap();
        let paths = two_segments(directory.path());
        fs::write(&paths[0], &bytes).unwrap();
        let (mut spool, report) = open(directory.path(), SMALL);
        let mut reader = Reader::new(&spool);
        let kept = sequences(&read_all(&mut spool, &mut reader), Lane::Telemetry);
        prop_assert!(kept.iter().all(|sequence| *sequence > 10));
        prop_assert!(!report.losses.is_empty());
    }
}
