//! Events of every kind.

use sekimori_proto::v1::{
    ActPhase, AlertGroup, AlertRaised, Checkpoint, Countersigned, Custody, Destination, Device,
    Event, File, HostChange, HostTurn, HttpRequest, Kind, Loss, Name, NameSource, Operation,
    OperatorAct, PolicyText, Process, Removed, SmtpEnvelope, Verdict,
};
use sekimori_proto::words::Word as _;

/// 2026-03-01T16:30:00.123456789Z.
const TIME_NS: i64 = 1_772_382_600_123_456_789;

fn event(kind: Kind, operation: Operation, verdict: Verdict) -> Event {
    Event {
        host: "営業部-12".into(),
        boot: vec![0xb0; 16],
        sequence: 1042,
        time_ns: TIME_NS,
        kind: kind.into(),
        operation: operation.into(),
        verdict: verdict.into(),
        cursor: 9001,
        ..Event::default()
    }
}

/// What a person did with a program.
fn done(kind: Kind, operation: Operation, verdict: Verdict) -> Event {
    Event { process: Some(process()), ..event(kind, operation, verdict) }
}

fn process() -> Process {
    let shell = Process {
        pid: 4000,
        start_ns: TIME_NS - 60_000_000_000,
        exe: b"/usr/bin/bash".to_vec(),
        argv: vec![b"-bash".to_vec()],
        uid: 1000,
        user: "佐藤".into(),
        comm: b"bash".to_vec(),
        parent: Some(Box::new(Process { pid: 1, comm: b"systemd".to_vec(), ..Process::default() })),
        ..Process::default()
    };
    Process {
        pid: 4242,
        tid: 4243,
        start_ns: TIME_NS - 1_000_000_001,
        exe: "/opt/道具/複写".into(),
        exe_inode: 77,
        argv: vec!["複写".into(), "顧客 名簿.xlsx".into(), b"/media/\xff".to_vec()],
        cwd: "/home/佐藤".into(),
        uid: 0,
        user: "root".into(),
        gid: 0,
        login_uid: Some(1000),
        login_user: "佐藤".into(),
        session_id: Some(3),
        tty: "pts/0".into(),
        comm: "複写".into(),
        cgroup_id: 5555,
        environment: vec!["LD_PRELOAD=/tmp/影.so".into()],
        parent: Some(Box::new(shell)),
        ..Process::default()
    }
}

fn stick() -> Device {
    Device {
        class: "usb".into(),
        vendor: "0951".into(),
        product: "1666".into(),
        serial: "E0D55".into(),
        major: 8,
        minor: 17,
        ..Device::default()
    }
}

fn file(path: &str) -> File {
    File { path: path.into(), inode: 812, size: 4096, mode: 0o100_640, ..File::default() }
}

fn peer() -> Destination {
    Destination {
        ip: "2001:db8::7".into(),
        port: 443,
        protocol: "tcp".into(),
        names: vec![
            Name { name: "倉庫.example".into(), source: NameSource::Tls.into() },
            Name { name: "cdn.example".into(), source: NameSource::Dns.into() },
        ],
        ..Destination::default()
    }
}

/// Name of the golden file and event.
pub fn golden() -> Vec<(&'static str, Event)> {
    let mut all = on_files();
    all.extend(of_processes());
    all.extend(over_the_network());
    all.extend(about_the_monitor());
    all.push(("alert", alert()));
    all
}

fn alert() -> Event {
    let mut alert = event(Kind::Alert, Operation::Unspecified, Verdict::Allowed);
    alert.host = "collector:本社".into();
    alert.alert = Some(AlertRaised {
        id: 17,
        rule: "大量コピー".into(),
        severity: "high".into(),
        title: "[high] 大量コピー: 営業部-12, 佐藤: 500 events".into(),
        group: vec![AlertGroup { field: "user".into(), value: "佐藤".into() }],
        count: 500,
        bytes: 7,
        first_ns: TIME_NS,
        cursor: 8999,
        silenced: false,
    });
    alert
}

fn on_files() -> Vec<(&'static str, Event)> {
    let mut open = done(Kind::FileOpen, Operation::Open, Verdict::Denied);
    open.file = Some(File { open_flags: 0o101, ..file("/srv/顧客/名簿.xlsx") });
    (open.rule, open.errno) = ("顧客名簿".into(), Some(13));
    let mut moved = done(Kind::FileOpen, Operation::Rename, Verdict::Alerted);
    moved.file =
        Some(File { new_path: "/tmp/無題.xlsx".into(), ..file("/srv/顧客/名簿.xlsx") });
    moved.rule = "顧客名簿".into();
    let mut receipt = done(Kind::UsbWrite, Operation::Receipt, Verdict::Allowed);
    receipt.file = Some(File { device: Some(stick()), ..file("/media/usb/名簿.xlsx") });
    receipt.sources = vec![file("/srv/顧客/名簿.xlsx")];
    (receipt.bytes, receipt.calls, receipt.sha256) = (Some(4096), Some(3), vec![0xa5; 32]);
    let mut attribute = done(Kind::UsbWrite, Operation::Setxattr, Verdict::WouldDeny);
    let named = b"user.\xe7\xa7\x98\xe5\xaf\x86".to_vec();
    attribute.file =
        Some(File { attribute: named, device: Some(stick()), ..file("/media/usb/a\\b") });
    (attribute.bytes, attribute.rule) = (Some(65), "usb-社用".into());
    let mut share = done(Kind::ShareWrite, Operation::Close, Verdict::Allowed);
    let server = Device {
        class: "network".into(),
        file_system: "cifs".into(),
        source: "//共有/部門".into(),
        ..Device::default()
    };
    share.file = Some(File { device: Some(server), ..file("/mnt/共有/議事録.txt") });
    (share.bytes, share.calls) = (Some(u64::MAX), Some(1));
    let mut mount = done(Kind::UsbMount, Operation::Mount, Verdict::Denied);
    let at = File { mode: 0o040_755, device: Some(stick()), ..file("/media/外付け") };
    (mount.file, mount.rule, mount.errno) = (Some(at), "usb-社用".into(), Some(1));
    vec![
        ("file.open", open),
        ("file.open-rename", moved),
        ("usb.write-receipt", receipt),
        ("usb.write-setxattr", attribute),
        ("share.write", share),
        ("usb.mount", mount),
    ]
}

fn of_processes() -> Vec<(&'static str, Event)> {
    let mut exec = done(Kind::Exec, Operation::Exec, Verdict::Allowed);
    exec.file = Some(File { inode: 77, ..file("/opt/道具/複写") });
    let mut refused = done(Kind::Exec, Operation::Exec, Verdict::Denied);
    refused.file = Some(file("/tmp/抜け道"));
    (refused.rule, refused.errno) = ("tmp-実行禁止".into(), Some(13));
    let mut load = done(Kind::Exec, Operation::Load, Verdict::Alerted);
    (load.file, load.rule) = (Some(file("/tmp/影.so")), "tmp-実行禁止".into());
    let mut exit = done(Kind::Exit, Operation::Exit, Verdict::Allowed);
    exit.exit_code = Some(3);
    let mut killed = done(Kind::Exit, Operation::Exit, Verdict::Allowed);
    killed.signal = Some(9);
    let mut tamper = done(Kind::Tamper, Operation::Signal, Verdict::Denied);
    (tamper.signal, tamper.errno) = (Some(9), Some(1));
    let mut replaced = done(Kind::Tamper, Operation::Replace, Verdict::Alerted);
    replaced.file = Some(file("/usr/bin/sekimori-agent"));
    vec![
        ("exec", exec),
        ("exec-denied", refused),
        ("exec-load", load),
        ("exit", exit),
        ("exit-signal", killed),
        ("tamper-signal", tamper),
        ("tamper-replace", replaced),
    ]
}

fn over_the_network() -> Vec<(&'static str, Event)> {
    let mut connect = done(Kind::NetConnect, Operation::Connect, Verdict::Denied);
    (connect.destination, connect.rule) = (Some(peer()), "外部禁止".into());
    connect.errno = Some(1);
    let mut upload = done(Kind::NetUpload, Operation::Close, Verdict::Alerted);
    let http = HttpRequest { method: "POST".into(), path: "/送信/\\".into() };
    let smtp = SmtpEnvelope {
        from: "佐藤@example.jp".into(),
        to: vec!["a@example.net".into(), "b@example.net".into()],
        more: true,
    };
    upload.destination = Some(Destination { http: Some(http), smtp: Some(smtp), ..peer() });
    (upload.bytes, upload.bytes_in, upload.calls) = (Some(1 << 40), Some(512), Some(9));
    (upload.rule, upload.late) = ("大量送信".into(), true);
    let mut unix = done(Kind::NetConnect, Operation::Connect, Verdict::Allowed);
    let path = "/run/代理.sock".into();
    unix.destination = Some(Destination { protocol: "unix".into(), path, ..Default::default() });
    let mut socket = done(Kind::NetSocket, Operation::Create, Verdict::Allowed);
    let protocol = "bluetooth".into();
    socket.destination = Some(Destination { protocol, ..Destination::default() });
    vec![
        ("net.connect", connect),
        ("net.connect-unix", unix),
        ("net.upload", upload),
        ("net.socket", socket),
    ]
}

fn about_the_monitor() -> Vec<(&'static str, Event)> {
    let plain = |kind| event(kind, Operation::Unspecified, Verdict::Allowed);
    let mut device = event(Kind::Device, Operation::Plug, Verdict::Allowed);
    device.device = Some(Device {
        port: "1-2".into(),
        vendor_name: "Kingston".into(),
        product_name: "データ旅行者".into(),
        functions: vec!["storage".into(), "input".into()],
        ..stick()
    });
    let mut loss = plain(Kind::Loss);
    let (stage, reason) = ("ring".into(), "the ring was full".into());
    loss.loss = Some(Loss { stage, kind: Kind::FileOpen.into(), count: 37, reason });
    let mut agent = plain(Kind::Agent);
    agent.message = "方針「社内」 is in force".into();
    let policy = PolicyText { name: "社内".into(), sha256: vec![7; 32], text_zstd: vec![1] };
    agent.policy = Some(policy);
    let mut operator = plain(Kind::Operator);
    operator.host = "collector:本社".into();
    operator.act = Some(OperatorAct {
        name: "監査 花子".into(),
        role: "analyst".into(),
        method: "Search".into(),
        question: "--user 佐藤".into(),
        answered: 12,
        address: "[2001:db8::9]:51234".into(),
        phase: ActPhase::Continued.into(),
    });
    let mut checkpoint = plain(Kind::Checkpoint);
    checkpoint.checkpoint =
        Some(Checkpoint { statement: Vec::new(), key: vec![9; 32], signature: vec![8; 64] });
    let mut custody = plain(Kind::Custody);
    custody.custody = Some(Custody {
        countersigned: vec![Countersigned {
            host: "営業部-12".into(),
            number: 7,
            statement_sha256: vec![6; 32],
            cursor: 900,
        }],
        through_cursor: 901,
        removed: None,
    });
    let mut removed = plain(Kind::Custody);
    let gone = Removed { through_cursor: 100, events: 99, reason: "30 days".into() };
    removed.custody = Some(Custody { removed: Some(gone), ..Custody::default() });
    vec![
        ("device", device),
        ("loss", loss),
        ("agent", agent),
        ("operator", operator),
        ("checkpoint", checkpoint),
        ("custody", custody),
        ("custody-removed", removed),
        ("host", host_change(HostTurn::Enrolled)),
        ("host-isolated", host_change(HostTurn::Isolated)),
    ]
}

fn host_change(turn: HostTurn) -> Event {
    let mut host = event(Kind::Host, Operation::Unspecified, Verdict::Allowed);
    host.host = "collector:本社".into();
    let enrolled = turn == HostTurn::Enrolled;
    let mut change = HostChange {
        turn: turn.into(),
        name: "営業部-12".into(),
        role: "agent".into(),
        ..HostChange::default()
    };
    if enrolled {
        change.address = "192.0.2.7:40000".into();
        (change.serial, change.token) = ("0a:1b".into(), "t7".into());
        (change.token_by, change.valid_until_ns) = ("管理 太郎".into(), TIME_NS + 1);
    } else {
        (change.ordered_by, change.reason) = ("管理 太郎".into(), "ウイルス".into());
    }
    host.host_change = Some(change);
    host
}

/// Each kind with each operation, the verdicts by turns, and every part of an event in it.
pub fn every() -> Vec<Event> {
    let all = golden();
    let verdicts = Verdict::WORDS;
    let mut events = Vec::new();
    for (kind, _) in Kind::WORDS {
        let base = all.iter().map(|(_, event)| event).find(|event| event.kind() == *kind).unwrap();
        let unspecified = (Operation::Unspecified, "");
        for (operation, _) in Operation::WORDS.iter().chain([&unspecified]) {
            let (verdict, _) = verdicts[events.len() % verdicts.len()];
            let mut event = base.clone();
            (event.operation, event.verdict) = ((*operation).into(), verdict.into());
            if events.len() % 2 == 0 {
                event.process = event.process.or_else(|| Some(process()));
                event.file = Some(File {
                    new_path: "/新".into(),
                    attribute: b"security.ima".to_vec(),
                    unlinked: true,
                    ..file("/旧/名前")
                });
                event.truncated = true;
                (event.errno, event.lane, event.more_sources) = (Some(28), 1, true);
                (event.bytes, event.bytes_in) = (Some(7), Some(8));
            }
            events.push(event);
        }
    }
    events
}
