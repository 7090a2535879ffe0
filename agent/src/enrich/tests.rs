//! Processes, clocks, mounts, names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::VecDeque;

use rstest::rstest;
use sekimori_abi::event::{Event, kind, operation, verdict};

use super::*;
use crate::decode::{Raw, decode, sample};
use crate::limits::{ANCESTORS_MAX, EXITED_KEPT_MAX};

/// Processes that `/proc` would show.
#[derive(Default)]
struct Fixed(Vec<Found>);

impl Processes for Fixed {
    fn find(&self, tgid: u32) -> Option<Found> {
        self.0.iter().find(|found| found.tgid == tgid).cloned()
    }

    fn all(&self) -> Vec<Found> {
        self.0.clone()
    }
}

const CLOCK: Clock = Clock::at(0, 1_000);

fn found(tgid: u32, start_ticks: u64, parent_tgid: u32, exe: &str) -> Found {
    let image = Image { exe: exe.into(), argv: vec![exe.into()], ..Image::default() };
    Found { tgid, start_ticks, parent_tgid, uid: 0, image }
}

fn raw(kind: u8, of: (u32, u64), parent: (u32, u64)) -> Raw<'static> {
    let mut event: Event = sample::event(kind, operation::EXEC);
    (event.process.tgid, event.process.start_ns) = of;
    (event.process.parent_tgid, event.process.parent_start_ns) = parent;
    event.size = 2;
    decode(sample::record(event, [b"", b"", b"cp\0x\0"]).leak()).unwrap()
}

fn key((tgid, start_ns): (u32, u64)) -> ProcessKey {
    ProcessKey { tgid, start_ns }
}

#[test]
fn a_child_runs_what_its_parent_ran_until_it_executes() {
    let (shell, child) = ((10, 111), (11, 222));
    let mut table = ProcessTable::new(Box::<Fixed>::default());
    table.learn(&raw(kind::EXEC, shell, (1, 1)), b"/bin/bash", b"/home", &CLOCK);
    table.learn(&raw(kind::FORK, child, shell), b"", b"", &CLOCK);
    let before = table.find(key(child), &CLOCK).unwrap().clone();
    assert_eq!(before.image.exe, b"/bin/bash");
    assert_eq!(before.start_utc_ns, 1_222);
    table.learn(&raw(kind::EXEC, child, shell), b"/bin/cp", b"/tmp", &CLOCK);
    let after = table.find(key(child), &CLOCK).unwrap();
    assert_eq!(after.image.exe, b"/bin/cp");
    assert_eq!(after.image.argv, [b"cp".to_vec(), b"x".to_vec()]);
    assert_eq!(after.image.cwd, b"/tmp");
    assert_eq!(table.find(key(shell), &CLOCK).unwrap().image.exe, b"/bin/bash");
    assert_eq!(table.ancestors(key(child)).first().unwrap().key, key(shell));
}

#[test]
fn a_refused_launch_changes_nothing() {
    let mut table = ProcessTable::new(Box::<Fixed>::default());
    table.learn(&raw(kind::EXEC, (10, 1), (1, 0)), b"/bin/bash", b"/", &CLOCK);
    let mut refused = raw(kind::EXEC, (10, 1), (1, 0));
    refused.event.verdict = verdict::DENIED;
    table.learn(&refused, b"/bin/rclone", b"/", &CLOCK);
    assert_eq!(table.find(key((10, 1)), &CLOCK).unwrap().image.exe, b"/bin/bash");
}

#[test]
fn what_is_loaded_is_not_what_runs() {
    let mut table = ProcessTable::new(Box::<Fixed>::default());
    table.learn(&raw(kind::EXEC, (10, 1), (1, 0)), b"/bin/bash", b"/", &CLOCK);
    let mut loaded = raw(kind::EXEC, (10, 1), (1, 0));
    loaded.event.operation = operation::LOAD;
    table.learn(&loaded, b"/opt/x.so", b"/", &CLOCK);
    assert_eq!(table.find(key((10, 1)), &CLOCK).unwrap().image.exe, b"/bin/bash");
}

#[rstest]
#[case::same_tick(20, 1_234_567_890, true)]
#[case::last_of_tick(20, 1_239_999_999, true)]
#[case::next_tick(20, 1_240_000_000, false)]
#[case::other_process(21, 1_234_567_890, false)]
fn a_running_process_is_found_by_its_rounded_start(
    #[case] tgid: u32,
    #[case] start_ns: u64,
    #[case] hit: bool,
) {
    let mut table = ProcessTable::new(Box::new(Fixed(vec![found(20, 123, 1, "/usr/sbin/sshd")])));
    assert_eq!(table.scan(&CLOCK), 1);
    let known = table.find(key((tgid, start_ns)), &CLOCK);
    assert_eq!(known.is_some(), hit);
    if let Some(known) = known {
        let start_utc_ns = i64::try_from(start_ns).unwrap() + 1_000;
        assert_eq!((known.key.start_ns, known.start_utc_ns), (start_ns, start_utc_ns));
    }
}

#[test]
fn scanned_processes_know_their_parents() {
    let processes = vec![found(1, 5, 0, "/init"), found(9, 50, 1, "/sh"), found(12, 70, 9, "/vi")];
    let mut table = ProcessTable::new(Box::new(Fixed(processes)));
    table.scan(&CLOCK);
    let vi = key((12, 700_000_123));
    let parents = table.ancestors(vi).into_iter().map(|known| known.image.exe.clone());
    let parents: Vec<_> = parents.collect();
    assert_eq!(parents, [b"/sh".to_vec(), b"/init".to_vec()]);
}

#[test]
fn an_unknown_process_is_looked_up_while_it_runs() {
    let mut table = ProcessTable::new(Box::new(Fixed(vec![found(20, 123, 1, "/bin/tar")])));
    assert!(table.is_empty());
    let known = table.find(key((20, 1_230_000_001)), &CLOCK).unwrap();
    assert_eq!(known.image.exe, b"/bin/tar");
    assert_eq!(table.len(), 1);
}

#[test]
fn the_line_of_parents_ends_at_sixteen() {
    let mut table = ProcessTable::new(Box::<Fixed>::default());
    table.learn(&raw(kind::EXEC, (1, 1), (0, 0)), b"/init", b"/", &CLOCK);
    for tgid in 2..40 {
        let parent = (tgid - 1, u64::from(tgid) - 1);
        table.learn(&raw(kind::FORK, (tgid, u64::from(tgid)), parent), b"", b"", &CLOCK);
    }
    let parents = table.ancestors(key((39, 39)));
    assert_eq!(parents.len(), ANCESTORS_MAX);
    assert_eq!(parents.last().unwrap().key, key((23, 23)));
}

#[test]
fn ended_processes_are_kept_a_while() {
    let mut table = ProcessTable::new(Box::<Fixed>::default());
    let count = u32::try_from(EXITED_KEPT_MAX).unwrap() + 10;
    for tgid in 1..=count {
        table.learn(&raw(kind::FORK, (tgid, 7), (0, 0)), b"", b"", &CLOCK);
        table.learn(&raw(kind::EXIT, (tgid, 7), (0, 0)), b"", b"", &CLOCK);
    }
    assert_eq!(table.len(), EXITED_KEPT_MAX);
    assert!(table.find(key((10, 7)), &CLOCK).is_none());
    assert!(table.find(key((11, 7)), &CLOCK).is_some());
    assert_eq!(table.evicted, 0);
}

#[test]
fn this_process_is_in_proc() {
    let own = ProcFileSystem.find(std::process::id()).unwrap();
    let exe = std::env::current_exe().unwrap();
    assert_eq!(own.image.exe, exe.as_os_str().as_encoded_bytes());
    let name = std::env::args_os().next().unwrap();
    assert_eq!(own.image.argv.first().unwrap(), name.as_encoded_bytes());
    assert!(own.start_ticks > 0);
    assert!(ProcFileSystem.all().iter().any(|found| found.tgid == std::process::id()));
}

#[rstest]
#[case::jitter(500, None, 0)]
#[case::drift(3_000_000, None, 3_000_000)]
#[case::forward(3_600_000_000_000, Some(3_600_000_000_000), 3_600_000_000_000)]
#[case::back(-5_000_000_000, Some(-5_000_000_000), -5_000_000_000)]
fn the_clock_follows_and_tells_steps(
    #[case] moved: i64,
    #[case] step: Option<i64>,
    #[case] followed: i64,
) {
    let mut clock = Clock::at(10, 1_000_010);
    assert_eq!(clock.observe(20, 1_000_020 + moved), step.map(|by_ns| Step { by_ns }));
    assert_eq!(clock.utc_ns(100), 1_000_100 + followed);
    assert_eq!(clock.observe(30, 1_000_030 + moved), None, "a step is told once");
}

#[rstest]
#[case(b"pts0\0\0\0", "pts/0")]
#[case(b"pts12\0", "pts/12")]
#[case(b"tty1\0", "tty1")]
#[case(b"ttyS0\0", "ttyS0")]
#[case(b"\0\0", "")]
#[case(b"pts", "pts")]
#[case(b"../x\0", "")]
fn terminals_are_named_as_dev_has_them(#[case] name: &[u8], #[case] text: &str) {
    assert_eq!(terminal(name), text);
}

/// Mount tables one after the other.
struct Tables(VecDeque<Vec<u8>>);

impl MountLocator for Tables {
    fn changed(&mut self) -> Option<Vec<u8>> {
        self.0.pop_front()
    }
}

const TABLE: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
    40 22 8:17 / /media/USB\\040\xe9\x9b\xbb\xff rw - vfat /dev/sdb1 rw\n\
    41 22 8:1 /srv/data /data rw - ext4 /dev/sda1 rw\n\
    42 22 8:33 /sub /mnt/sub rw - btrfs /dev/sdc1 rw\n\
    damaged line\n";

#[rstest]
#[case::escaped_and_not_utf8(17, b"/a/b", b"/media/USB \xe9\x9b\xbb\xff/a/b")]
#[case::its_root(17, b"/", b"/media/USB \xe9\x9b\xbb\xff")]
#[case::root_file_system(1, b"/srv/data/x", b"/srv/data/x")]
#[case::bind_mount_only(33, b"/sub/x", b"/mnt/sub/x")]
#[case::outside_the_bind_mount(33, b"/subway/x", b"")]
#[case::not_mounted(99, b"/x", b"")]
fn a_path_gets_its_mount_point(#[case] minor: u32, #[case] path: &[u8], #[case] host: &[u8]) {
    let mut mounts = Mounts::new(Box::new(Tables([TABLE.to_vec()].into())));
    let found = mounts.locate(8 << 20 | minor, path);
    assert_eq!(found.unwrap_or_default(), host);
}

#[test]
fn an_unmounted_stick_keeps_its_place_until_another_takes_the_number() {
    let gone = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_vec();
    let other = b"50 22 8:17 / /mnt/b rw - vfat /dev/sdb1 rw\n".to_vec();
    let tables = [TABLE.to_vec(), gone.clone(), gone, other];
    let mut mounts = Mounts::new(Box::new(Tables(tables.into())));
    let stick = 8 << 20 | 17;
    let first = mounts.locate(stick, b"/x");
    assert!(first.is_some());
    assert!(!mounts.is_mounted(stick));
    assert_eq!(mounts.locate(stick, b"/x"), first);
    assert_eq!(mounts.locate(stick, b"/x").as_deref(), Some(b"/mnt/b/x".as_slice()));
}

/// A table, and that of a process in another mount namespace.
struct Namespaces(Option<Vec<u8>>);

impl MountLocator for Namespaces {
    fn changed(&mut self) -> Option<Vec<u8>> {
        self.0.take()
    }

    fn of_process(&self, tgid: u32) -> Option<Vec<u8>> {
        let theirs = b"90 1 0:61 / /tmp/mnt rw - fuse.sshfs host:/a\\040b rw,user_id=1000\n";
        (tgid == 7).then(|| theirs.to_vec())
    }
}

const SHARES: &str = "22 1 0:30 / / rw - 9p root rw\n\
    40 22 0:50 / /mnt/nas rw,relatime shared:7 - nfs4 filer:/home rw,vers=4.2\n\
    41 22 0:51 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n\
    42 22 0:52 / /mnt/read-only rw - cifs //server/share ro,vers=3.1.1\n";

#[rstest]
#[case::network(50, 1, Some(("nfs4", "filer:/home")))]
#[case::read_only(52, 1, Some(("cifs", "//server/share")))]
#[case::no_share(51, 1, None)]
#[case::of_another_namespace(61, 7, Some(("fuse.sshfs", "host:/a b")))]
#[case::that_nobody_sees(61, 8, None)]
fn a_share_is_told_by_the_mount_table(
    #[case] minor: u32,
    #[case] tgid: u32,
    #[case] expected: Option<(&str, &str)>,
) {
    let mut mounts = Mounts::new(Box::new(Namespaces(Some(SHARES.into()))));
    let found = mounts.share(minor, tgid, false);
    assert_eq!(found.map(|it| (it.file_system.as_str(), it.source.as_str())), expected);
}

#[rstest]
#[case::nas(SHARES, true)]
#[case::root_only("22 1 0:30 / / rw - 9p root rw\n", false)]
#[case::read_only("42 22 0:52 / /mnt rw - cifs //server/share ro,vers=3.1.1\n", false)]
#[case::on_a_block_device("42 22 8:17 / /mnt rw - fuseblk /dev/sdb1 rw\n", true)]
#[case::disk("42 22 8:17 / /mnt rw - ext4 /dev/sdb1 rw\n", false)]
fn shares_that_can_be_written_to_are_looked_for(#[case] table: &str, #[case] expected: bool) {
    let mut mounts = Mounts::new(Box::new(Namespaces(Some(table.into()))));
    assert_eq!(mounts.has_shares(), expected);
}

#[test]
fn users_are_asked_once() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = std::sync::Arc::clone(&asked);
    let mut users = Users::asking(Box::new(move |uid| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (uid == 1000).then(|| "花子".to_owned())
    }));
    assert_eq!(users.name(1000), "花子");
    assert_eq!(users.name(1000), "花子");
    assert_eq!(users.name(4242), "4242");
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
}
