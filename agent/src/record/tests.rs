//! Whole events from ring records, without a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod hostile;

use prost::Message as _;
use rstest::rstest;
use sekimori_abi::event::{self as abi, counter, device_class, flag, kind, operation, verdict};
use sekimori_proto::v1::{Event, Kind, Operation, Process, Verdict};

use super::event::{kind_of, operation_of};
use super::*;
use crate::decode::{decode, sample};
use crate::enrich::{
    Clock, Enricher, Found, MountLocator, Mounts, ProcessKey, ProcessTable, Processes, Users,
};
use crate::limits::{GAP_POLLS, GENERATIONS_KEPT_MAX};

struct Nobody;

impl Processes for Nobody {
    fn find(&self, _: u32) -> Option<Found> {
        None
    }

    fn all(&self) -> Vec<Found> {
        Vec::new()
    }
}

struct OneStick(bool);

impl MountLocator for OneStick {
    fn changed(&mut self) -> Option<Vec<u8>> {
        let first = std::mem::take(&mut self.0);
        first.then(|| b"40 22 8:17 / /media/usb rw - vfat /dev/sdb1 rw\n".to_vec())
    }
}

fn enricher() -> Enricher {
    Enricher {
        clock: Clock::at(0, 1_700_000_000_000_000_000),
        processes: ProcessTable::new(Box::new(Nobody)),
        users: Users::asking(Box::new(|uid| (uid == 1000).then(|| "alice".to_owned()))),
        mounts: Mounts::new(Box::new(OneStick(true))),
    }
}

fn rules() -> RuleBook {
    let mut book = RuleBook::default();
    let fact = |id: &str| RuleFact { id: id.to_owned(), tell_user: None };
    book.add(1, vec![fact("old")]);
    book.add(2, vec![fact("first"), fact("usb-only-company")]);
    book
}

fn made(kind: u8, operation: u8) -> abi::Event {
    let mut event = sample::event(kind, operation);
    event.process.tgid = 77;
    event.process.tid = 78;
    event.process.start_ns = 5_000;
    event.process.parent_tgid = 70;
    event.process.parent_start_ns = 4_000;
    event.process.uid = 1000;
    event.process.tty = sample::fixed("pts2");
    event.process.comm = sample::fixed("cp");
    event.time_ns = 9_000;
    event.inode = 12;
    event
}

fn on_stick(mut event: abi::Event) -> abi::Event {
    event.device.dev = 8 << 20 | 17;
    event.device.class = device_class::USB;
    event.device.vendor = 0x0951;
    event.device.product = 0x1666;
    event.device.serial = sample::fixed("E0D55");
    event
}

fn record(event: abi::Event, texts: [&[u8]; 3], enricher: &mut Enricher) -> Option<Event> {
    let bytes = sample::record(event, texts);
    let recorded = super::event(&decode(&bytes).unwrap(), enricher, &rules())?;
    Some(encoded(&recorded))
}

fn encoded(recorded: &Recorded) -> Event {
    let mut bytes = Vec::new();
    recorded.encode(&mut bytes);
    Event::decode(bytes.as_slice()).unwrap()
}

#[test]
fn a_denied_copy_to_a_stick_says_who_what_where_and_which_rule() {
    let mut enricher = enricher();
    let mut exec = made(kind::EXEC, operation::EXEC);
    exec.size = 3;
    let exe = sample::components("/usr/bin/cp");
    let home = sample::components("/home/alice");
    let exec = record(exec, [&exe, &home, b"cp\0a\0b\0"], &mut enricher).unwrap();
    assert_eq!(exec.file.unwrap().path, b"/usr/bin/cp");
    assert_eq!((exec.bytes, exec.errno, exec.lane), (None, None, LANE_TELEMETRY));

    let mut from = on_stick(made(kind::USB_WRITE, operation::CREATE));
    from.flags = flag::PATH_IN_FILE_SYSTEM;
    (from.verdict, from.ring) = (verdict::DENIED, 1);
    (from.rule, from.generation) = (2, 2);
    let path = sample::components("/写真/x");
    let event = record(from, [&path, b"", b""], &mut enricher).unwrap();
    assert_eq!(event.time_ns, 1_700_000_000_000_009_000);
    assert_eq!((event.kind(), event.operation()), (Kind::UsbWrite, Operation::Create));
    assert_eq!((event.verdict(), event.rule.as_str()), (Verdict::Denied, "usb-only-company"));
    assert_eq!((event.errno, event.lane, event.truncated), (Some(1), LANE_ALERT, false));
    let process = event.process.unwrap();
    assert_eq!((process.pid, process.tid, process.uid), (77, 78, 1000));
    assert_eq!((process.user.as_str(), process.tty.as_str()), ("alice", "pts/2"));
    assert_eq!(process.start_ns, 1_700_000_000_000_005_000);
    assert_eq!(process.exe, b"/usr/bin/cp");
    assert_eq!(process.cwd, b"/home/alice");
    assert_eq!(process.argv, [&b"cp"[..], b"a", b"b"]);
    assert_eq!((process.login_uid, process.session_id), (None, None));
    assert_eq!(process.parent.unwrap().pid, 70);
    let file = event.file.unwrap();
    assert_eq!(file.path, "/media/usb/写真/x".as_bytes());
    let device = file.device.unwrap();
    assert_eq!((device.class.as_str(), device.serial.as_str()), ("usb", "E0D55"));
    assert_eq!((device.vendor.as_str(), device.product.as_str()), ("0951", "1666"));
    assert_eq!((device.major, device.minor), (8, 17));
}

/// A shell that started `cp`, and what `cp` opens.
fn opened(enricher: &mut Enricher, change: impl Fn(&mut abi::Event)) -> Process {
    let mut shell = made(kind::EXEC, operation::EXEC);
    (shell.process.tgid, shell.process.start_ns, shell.size) = (70, 4_000, 2);
    shell.process.parent_tgid = 0;
    shell.process.comm = sample::fixed("bash");
    let mut copy = made(kind::EXEC, operation::EXEC);
    (copy.size, copy.flags) = (3, flag::ENVIRONMENT_TRUNCATED);
    let launches: [(_, _, &[u8], &[u8]); 2] = [
        (shell, "/bin/bash", b"bash\0-i\0", b""),
        (copy, "/bin/cp", b"cp\0\0xyz\0", b"LD_PRELOAD=/x.so\0LD_AUDIT=\0"),
    ];
    for (exec, exe, argv, environment) in launches {
        if enricher.processes.get(ProcessKey::of(&exec.process)).is_none() {
            let (exe, home) = (sample::components(exe), sample::components("/srv"));
            let bytes = sample::launch(exec, [&exe, &home, argv, environment]);
            super::event(&decode(&bytes).unwrap(), enricher, &rules()).unwrap();
        }
    }
    let mut open = made(kind::FILE_OPEN, operation::OPEN);
    (open.process.gid, open.process.login_uid, open.process.session_id) = (50, 1000, 3);
    (open.process.cgroup_id, open.process.exe_inode) = (1 << 40, 77);
    change(&mut open);
    record(open, [&sample::components("/srv/x"), b"", b""], enricher).unwrap().process.unwrap()
}

/// The numbers that are written by hand are those of `event.proto`.
#[test]
fn a_process_comes_back_with_all_its_fields() {
    let parent = Process {
        pid: 70,
        start_ns: 1_700_000_000_000_004_000,
        exe: b"/bin/bash".to_vec(),
        argv: vec![b"bash".to_vec(), b"-i".to_vec()],
        uid: 1000,
        user: "alice".to_owned(),
        comm: b"bash".to_vec(),
        ..Process::default()
    };
    let expected = Process {
        pid: 77,
        start_ns: 1_700_000_000_000_005_000,
        exe: b"/bin/cp".to_vec(),
        argv: vec![b"cp".to_vec(), Vec::new(), b"xyz".to_vec()],
        cwd: b"/srv".to_vec(),
        uid: 1000,
        user: "alice".to_owned(),
        gid: 50,
        login_uid: Some(1000),
        login_user: "alice".to_owned(),
        session_id: Some(3),
        tty: "pts/2".to_owned(),
        comm: b"cp".to_vec(),
        cgroup_id: 1 << 40,
        parent: Some(Box::new(parent)),
        tid: 78,
        exe_inode: 77,
        environment: vec![b"LD_PRELOAD=/x.so".to_vec(), b"LD_AUDIT=".to_vec()],
        environment_truncated: true,
    };
    let mut enricher = enricher();
    for _ in 0..2 {
        assert_eq!(opened(&mut enricher, |_| {}), expected);
    }
}

#[test]
fn what_changes_while_a_program_runs_is_as_it_is_now() {
    let mut enricher = enricher();
    let first = opened(&mut enricher, |_| {});
    let root = opened(&mut enricher, |open| (open.process.uid, open.process.gid) = (0, 0));
    let now = Process { uid: 0, user: "0".to_owned(), gid: 0, ..first.clone() };
    assert_eq!(root, now);
    let thread = opened(&mut enricher, |open| {
        (open.process.tid, open.process.comm) = (99, sample::fixed("worker"));
    });
    assert_eq!(thread, Process { tid: 99, comm: b"worker".to_vec(), ..first.clone() });
    let nobody = opened(&mut enricher, |open| {
        (open.process.login_uid, open.process.session_id) = (u32::MAX, 0);
    });
    let (login_uid, login_user, session_id) = (None, String::new(), Some(0));
    assert_eq!(nobody, Process { login_uid, login_user, session_id, ..first });
}

#[test]
fn a_close_carries_the_sums() {
    let mut from = on_stick(made(kind::USB_WRITE, operation::CLOSE));
    (from.bytes, from.calls, from.size) = (1_048_576, 8, 1_048_576);
    let path = sample::components("/media/usb/x");
    let event = record(from, [&path, b"", b""], &mut enricher()).unwrap();
    assert_eq!((event.bytes, event.calls, event.bytes_in), (Some(1_048_576), Some(8), None));
    assert_eq!(event.file.unwrap().size, 1_048_576);
}

#[rstest]
#[case::v4("::ffff:192.0.2.7", abi::family::INET, 6, ("192.0.2.7", "tcp"))]
#[case::v6("2001:db8::7", abi::family::INET6, 17, ("2001:db8::7", "udp"))]
#[case::other("2001:db8::7", abi::family::INET6, 132, ("2001:db8::7", "132"))]
fn a_connection_names_its_peer(
    #[case] address: std::net::Ipv6Addr,
    #[case] family: u16,
    #[case] protocol: u16,
    #[case] expected: (&str, &str),
) {
    let mut from = made(kind::NET_CONNECT, operation::CONNECT);
    (from.address, from.port) = (address.octets(), 443);
    (from.family, from.protocol) = (family, protocol);
    let event = record(from, [b"", b"", b""], &mut enricher()).unwrap();
    let peer = event.destination.unwrap();
    assert_eq!((peer.ip.as_str(), peer.protocol.as_str()), expected);
    assert_eq!((peer.port, event.file), (443, None));
}

#[rstest]
#[case::named(b"/run/x.sock\0", b"/run/x.sock")]
#[case::abstract_name(b"\0bus", b"@bus")]
fn a_local_socket_has_a_path(#[case] text: &[u8], #[case] path: &[u8]) {
    let mut from = made(kind::NET_CONNECT, operation::CONNECT);
    from.family = abi::family::UNIX;
    let event = record(from, [b"", b"", text], &mut enricher()).unwrap();
    let peer = event.destination.unwrap();
    assert_eq!((peer.ip.as_str(), peer.protocol.as_str()), ("", "unix"));
    assert_eq!(peer.path, path);
}

#[test]
fn a_refused_launch_names_the_program_and_who_tried() {
    let mut enricher = enricher();
    let shell = sample::components("/bin/bash");
    let mut exec = made(kind::EXEC, operation::EXEC);
    record(exec, [&shell, b"", b"bash\0-i\0"], &mut enricher).unwrap();
    exec.verdict = verdict::DENIED;
    let program = sample::components("/usr/bin/rclone");
    let event = record(exec, [&program, b"", b"rclone\0"], &mut enricher).unwrap();
    assert_eq!(event.file.unwrap().path, b"/usr/bin/rclone");
    let process = event.process.unwrap();
    assert_eq!(process.exe, b"/bin/bash");
    assert_eq!(process.argv, [b"bash".to_vec(), b"-i".to_vec()]);
}

#[test]
fn a_fork_is_not_stored_but_the_child_is_known() {
    let mut enricher = enricher();
    assert_eq!(record(made(kind::FORK, operation::FORK), [b"", b"", b""], &mut enricher), None);
    assert_eq!(enricher.processes.len(), 1);
}

#[test]
fn an_exit_still_knows_who_ended() {
    let mut enricher = enricher();
    let exe = sample::components("/usr/bin/cp");
    record(made(kind::EXEC, operation::EXEC), [&exe, b"", b""], &mut enricher).unwrap();
    let mut exit = made(kind::EXIT, operation::EXIT);
    exit.exit_code = 256;
    let event = record(exit, [b"", b"", b""], &mut enricher).unwrap();
    assert_eq!((event.exit_code, event.signal, event.kind()), (Some(1), None, Kind::Exit));
    assert_eq!(event.process.unwrap().exe, b"/usr/bin/cp");
    exit.exit_code = 0x80 | 11;
    let event = record(exit, [b"", b"", b""], &mut enricher).unwrap();
    assert_eq!((event.exit_code, event.signal), (None, Some(11)));
}

#[rstest]
#[case::relative("/srv/a", "../secret/x", "/srv/secret/x")]
#[case::absolute("", "/srv//secret/./x", "/srv/secret/x")]
#[case::above_the_root("/", "../../x", "/x")]
fn a_failed_open_shows_the_resolved_name(
    #[case] directory: &str,
    #[case] name: &str,
    #[case] path: &str,
) {
    let mut from = made(kind::FILE_OPEN, operation::OPEN);
    (from.flags, from.errno, from.inode) = (flag::OPEN_FAILED, -13, 0);
    let directory = sample::components(directory);
    let event = record(from, [b"", &directory, name.as_bytes()], &mut enricher()).unwrap();
    assert_eq!((event.errno, event.file.unwrap().path), (Some(13), path.as_bytes().to_vec()));
}

#[test]
fn a_failed_open_outside_labelled_places_is_not_stored() {
    let mut from = made(kind::FILE_OPEN, operation::OPEN);
    (from.flags, from.errno) = (flag::OPEN_FAILED, -2);
    let labelled: PathTest = Box::new(|path| path.starts_with(b"/srv/"));
    let mut rules = RuleBook::default();
    (rules.labelled, rules.recorded_kinds) = (labelled, 0);
    let stored = |name: &[u8]| {
        let bytes = sample::record(from, [b"", b"", name]);
        super::event(&decode(&bytes).unwrap(), &mut enricher(), &rules).is_some()
    };
    assert_eq!((stored(b"/srv/x"), stored(b"/etc/x")), (true, false));
}

#[rstest]
#[case::asked_for(1 << kind::EXIT, 0, verdict::ALLOWED, true)]
#[case::not_asked_for(0, 0, verdict::ALLOWED, false)]
#[case::by_rule(0, 1, verdict::ALLOWED, true)]
#[case::refused(0, 0, verdict::DENIED, true)]
fn allowed_events_are_stored_when_asked_for(
    #[case] recorded_kinds: u32,
    #[case] rule: u32,
    #[case] verdict: u8,
    #[case] stored: bool,
) {
    let mut from = made(kind::EXIT, operation::EXIT);
    (from.rule, from.verdict) = (rule, verdict);
    let bytes = sample::record(from, [b"", b"", b""]);
    let raw = decode(&bytes).unwrap();
    let mut rules = RuleBook::default();
    rules.recorded_kinds = recorded_kinds;
    assert_eq!(super::event(&raw, &mut enricher(), &rules).is_some(), stored);
}

#[test]
fn a_mount_names_its_place_and_a_refused_one_has_none() {
    let mut from = on_stick(made(kind::USB_MOUNT, operation::MOUNT));
    from.inode = 0;
    let event = record(from, [b"", b"", b""], &mut enricher()).unwrap();
    assert_eq!((event.file.unwrap().path, event.truncated), (b"/media/usb".to_vec(), false));
    from.verdict = verdict::DENIED;
    let event = record(from, [b"", b"", b""], &mut enricher()).unwrap();
    assert_eq!(event.file.unwrap().path, b"");
}

#[test]
fn the_root_directory_has_a_path_and_a_file_without_a_name_has_none() {
    let mut from = made(kind::FILE_OPEN, operation::OPEN);
    let root = record(from, [b"", b"", b""], &mut enricher()).unwrap();
    assert_eq!(root.file.unwrap().path, b"/");
    from.flags = flag::UNLINKED;
    let file = record(from, [b"", b"", b""], &mut enricher()).unwrap().file.unwrap();
    assert_eq!((file.path.as_slice(), file.unlinked), (&b""[..], true));
}

#[test]
fn a_path_in_an_unknown_file_system_does_not_look_like_the_hosts() {
    let mut from = on_stick(made(kind::USB_WRITE, operation::RENAME));
    from.device.dev = 1;
    from.flags = flag::PATH_IN_FILE_SYSTEM | flag::SECOND_PATH_IN_FILE_SYSTEM;
    let (old, new) = (sample::components("/a"), sample::components("/b"));
    let event = record(from, [&old, &new, b""], &mut enricher()).unwrap();
    assert!(event.truncated);
    let file = event.file.unwrap();
    assert_eq!((file.path, file.new_path), (b".../a".to_vec(), b".../b".to_vec()));
}

#[test]
fn numbers_of_ring_and_wire_agree() {
    for (number, wire) in [
        (kind::FILE_OPEN, Kind::FileOpen),
        (kind::USB_WRITE, Kind::UsbWrite),
        (kind::USB_MOUNT, Kind::UsbMount),
        (kind::NET_CONNECT, Kind::NetConnect),
        (kind::NET_UPLOAD, Kind::NetUpload),
        (kind::EXEC, Kind::Exec),
        (kind::EXIT, Kind::Exit),
        (kind::TAMPER, Kind::Tamper),
        (kind::NET_SOCKET, Kind::NetSocket),
        (kind::SHARE_WRITE, Kind::ShareWrite),
    ] {
        assert_eq!(kind_of(number), wire);
    }
    for (number, wire) in [
        (operation::OPEN, Operation::Open),
        (operation::SIGNAL, Operation::Signal),
        (operation::TRACE, Operation::Trace),
        (operation::MAP_OPEN, Operation::MapOpen),
        (operation::UNPIN, Operation::Unpin),
        (operation::UNMOUNT, Operation::Unmount),
        (operation::HOOKS_OFF, Operation::HooksOff),
        (operation::CREATE, Operation::Create),
        (operation::RENAME, Operation::Rename),
        (operation::LINK, Operation::Link),
        (operation::UNLINK, Operation::Unlink),
        (operation::MKDIR, Operation::Mkdir),
        (operation::RMDIR, Operation::Rmdir),
        (operation::SYMLINK, Operation::Symlink),
        (operation::MKNOD, Operation::Mknod),
        (operation::TRUNCATE, Operation::Truncate),
        (operation::WRITE, Operation::Write),
        (operation::CLOSE, Operation::Close),
        (operation::CONNECT, Operation::Connect),
        (operation::EXEC, Operation::Exec),
        (operation::MOUNT, Operation::Mount),
        (operation::EXIT, Operation::Exit),
        (operation::SETXATTR, Operation::Setxattr),
        (operation::REMOVEXATTR, Operation::Removexattr),
        (operation::LOAD, Operation::Load),
        (operation::REPLACE, Operation::Replace),
        (operation::FREEZE, Operation::Freeze),
        (operation::LIMIT, Operation::Limit),
        (operation::COMMAND, Operation::Command),
    ] {
        assert_eq!(operation_of(number), wire);
    }
}

#[rstest]
#[case(2, 2, "usb-only-company")]
#[case(1, 1, "old")]
#[case(2, 0, "")]
#[case(9, 3, "generation 9 rule 2")]
#[case(2, 3, "generation 2 rule 2")]
fn rules_are_named_by_their_own_generation(
    #[case] generation: u32,
    #[case] rule: u32,
    #[case] id: &str,
) {
    assert_eq!(rules().id(generation, rule), id);
}

#[test]
fn only_the_last_policies_are_kept() {
    let mut book = RuleBook::default();
    for generation in 1..=20 {
        book.add(generation, vec![RuleFact { id: format!("r{generation}"), tell_user: None }]);
    }
    let kept = (1..=20).filter(|generation| book.fact(*generation, 1).is_some()).count();
    assert_eq!(kept, GENERATIONS_KEPT_MAX);
    assert_eq!(book.id(20, 1), "r20");
}

#[test]
fn counted_losses_are_recorded_once_and_exactly() {
    let mut losses = Losses::default();
    let mut table = losses::Table::default();
    assert_eq!(losses.poll(&table, &NONE), []);
    let (file_open, ring) = (usize::from(kind::FILE_OPEN), counter::LOST_RING as usize);
    table[file_open][ring] = 7;
    table[usize::from(kind::USB_WRITE)][counter::LOST_TABLE as usize] = 1;
    let lost =
        losses.poll(&table, &NONE).into_iter().map(|lost| (lost.stage, lost.kind, lost.count));
    let lost: Vec<_> = lost.collect();
    assert_eq!(lost, [("ring", Kind::FileOpen, 7), ("table", Kind::UsbWrite, 1)]);
    assert_eq!(losses.poll(&table, &NONE), []);
    table[file_open][ring] = 10;
    let lost = losses.poll(&table, &NONE).remove(0);
    assert_eq!(lost.count, 3);
    let event = lost.event(5);
    assert_eq!((event.kind(), event.lane, event.time_ns), (Kind::Loss, LANE_ALERT, 5));
    let loss = event.loss.unwrap();
    assert_eq!((loss.stage.as_str(), loss.kind(), loss.count), ("ring", Kind::FileOpen, 3));
}

#[test]
fn a_gap_that_no_counter_explains_is_a_loss_once_it_stays() {
    let mut losses = Losses::default();
    let mut table = losses::Table::default();
    table[usize::from(kind::EXEC)][counter::LOST_RING as usize] = 2;
    for sequence in [1, 2, 5, 6, 9] {
        losses.received(0, sequence);
    }
    let counted: u64 = losses.poll(&table, &NONE).iter().map(|lost| lost.count).sum();
    assert_eq!(counted, 2);
    for _ in 2..GAP_POLLS {
        assert_eq!(losses.poll(&table, &NONE), []);
    }
    let lost = losses.poll(&table, &NONE);
    assert_eq!(
        lost.iter().map(|lost| lost.count).sum::<u64>(),
        2,
        "numbers 3, 4, 7, 8 are missing"
    );
    for _ in 0..2 * GAP_POLLS {
        assert_eq!(losses.poll(&table, &NONE), []);
    }
}

#[test]
fn a_record_that_came_late_is_no_loss() {
    let mut losses = Losses::default();
    losses.received(1, 2);
    assert_eq!(losses.poll(&losses::Table::default(), &NONE), []);
    losses.received(1, 1);
    for _ in 0..2 * GAP_POLLS {
        assert_eq!(losses.poll(&losses::Table::default(), &NONE), []);
    }
}

#[test]
fn a_record_that_cannot_be_read_is_a_loss_and_explains_its_gap() {
    let mut losses = Losses::default();
    losses.received(0, 1);
    losses.undecodable("bad".to_owned());
    losses.received(0, 3);
    let lost = losses.poll(&losses::Table::default(), &NONE);
    assert_eq!(lost.iter().map(|l| (l.stage, l.count)).collect::<Vec<_>>(), [("decode", 1)]);
    for _ in 0..2 * GAP_POLLS {
        assert_eq!(losses.poll(&losses::Table::default(), &NONE), []);
    }
}

const NONE: Skipped = [0; kind::COUNT];

#[test]
fn what_is_not_stored_is_no_loss_of_its_kind() {
    assert_eq!(kind_of(kind::NOTE), Kind::Unspecified);
}

#[test]
fn programs_that_were_not_called_are_losses() {
    let mut losses = Losses::default();
    let mut skipped = NONE;
    skipped[usize::from(kind::EXIT)] = 3;
    let table = losses::Table::default();
    let lost = losses.poll(&table, &skipped).remove(0);
    assert_eq!((lost.stage, lost.kind, lost.count), ("hook", Kind::Exit, 3));
    assert_eq!(losses.poll(&table, &skipped), []);
    // Once they could not be asked.
    assert_eq!(losses.poll(&table, &NONE), []);
    assert_eq!(losses.poll(&table, &skipped), []);
    skipped[usize::from(kind::EXIT)] = 4;
    assert_eq!(losses.poll(&table, &skipped).remove(0).count, 1);
}
