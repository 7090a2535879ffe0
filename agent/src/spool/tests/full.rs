//! Disks that take no more, for real: the second test is run by the first in a process of its own.

use std::process::Command;

use super::*;

/// Where the child writes; it expects to lose nothing when `SPOOL_TEST_KEEPS_ALL` is set.
const DIRECTORY: &str = "SPOOL_TEST_DIRECTORY";
const KEEPS_ALL: &str = "SPOOL_TEST_KEEPS_ALL";
const COUNT: u64 = 4000;

/// Every write fails half-way once a file has 32 KiB.
#[test]
fn a_write_that_fails_half_way_goes_on_in_the_next_segment() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact --ignored --nocapture \"$1\"";
    let module = module_path!().split_once("::").unwrap().1;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("{module}::child_on_a_full_disk"))
        .env(DIRECTORY, directory.path())
        .env(KEEPS_ALL, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    let paths = files(directory.path(), ".seg");
    assert!(paths.len() > 10, "{}", paths.len());
    let lengths = paths.iter().map(|path| path.metadata().unwrap().len());
    assert!(lengths.into_iter().all(|length| length <= 32 << 10));
}

#[test]
#[ignore = "run by the test above, which limits what can be written"]
fn child_on_a_full_disk() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let config = SpoolConfig {
        telemetry_bytes_max: 4 << 20,
        alert_bytes_max: 4 << 20,
        segment_bytes_max: 64 << 10,
    };
    let (mut spool, _) = open(&directory, config);
    let mut errors = 0;
    for number in 1..=COUNT {
        let lane = if number % 10 == 0 { Lane::Alerts } else { Lane::Telemetry };
        spool.append(lane, &event(Kind::Exec, number as i64, 90)).unwrap();
        if number % 50 == 0 {
            errors += u64::from(spool.flush().is_err());
        }
    }
    let lost = losses(&spool).remove(&Kind::Exec.into()).unwrap_or(0);
    let mut reader = Reader::new(&spool);
    let batches = read_all(&mut spool, &mut reader);
    let alerts = sequences(&batches, Lane::Alerts);
    let kept = (sequences(&batches, Lane::Telemetry).len() + alerts.len()) as u64;
    println!("kept {kept}, alerts {}, lost {lost}, errors {errors}", alerts.len());
    assert_eq!(kept + lost, COUNT);
    assert_eq!(spool.stats().dropped, lost);
    assert_eq!(alerts.len() as u64, COUNT / 10, "an alert is worth more than telemetry");
    if std::env::var_os(KEEPS_ALL).is_some() {
        assert_eq!((lost, errors), (0, 0));
    } else {
        assert!(lost > 0);
    }
    drop(spool);
    let (_, report) = open(&directory, config);
    assert_eq!(report.waiting_events, kept);
    assert_eq!((report.torn_bytes, report.damaged_bytes), (0, 0));
}
