//! What the collector is sent, and what it makes for others.

use std::io::Cursor;

use prost::Message as _;
use rcgen::{CertificateParams, DnType};
use sekimori_evidence::case::{CaseWriter, Manifest};
use sekimori_evidence::{Chain, Head, digest};
use sekimori_proto::v1::{
    CaseRecord, Checkpoint, Destination, Device, EnrollRequest, Event, File, IngestRequest, Kind,
    Loss, Name, NameSource, Operation, PolicyStatement, PolicyText, Process, SmtpEnvelope, Verdict,
};
use sha2::{Digest as _, Sha256};

use crate::{certificates, proof};

const BOOT: [u8; 16] = [0xb0; 16];

fn event(sequence: u64, kind: Kind) -> Event {
    let kind = kind.into();
    let time_ns = 1_795_782_600_000_000_000 + sequence as i64;
    Event { boot: BOOT.to_vec(), sequence, kind, time_ns, ..Event::default() }
}

/// Events with most of the parts that one can have.
#[must_use]
pub fn events() -> Vec<Event> {
    let file = |path: &[u8]| File { path: path.to_vec(), ..File::default() };
    let stick = Device {
        class: "usb".into(),
        serial: "SEKI0001".into(),
        vendor: "0951".into(),
        ..Device::default()
    };
    let process = Process {
        pid: 77,
        exe: b"/bin/\xfecp".to_vec(),
        argv: vec!["cp".into(), "-r".into(), "/srv/顧客".into()],
        user: "root".into(),
        login_user: "花子".into(),
        login_uid: Some(1000),
        parent: Some(Box::new(Process { exe: "/bin/bash".into(), ..Process::default() })),
        ..Process::default()
    };
    let denied = Event {
        operation: Operation::Close.into(),
        verdict: Verdict::Denied.into(),
        rule: "no-usb".into(),
        bytes: Some(7_000_000),
        process: Some(process.clone()),
        file: Some(File { device: Some(stick.clone()), ..file("/mnt/usb/台帳.xlsx".as_bytes()) }),
        sources: vec![file(b"/srv/a.txt"), file(b"/home/b")],
        ..event(1, Kind::UsbWrite)
    };
    let sent = Event {
        process: Some(process),
        bytes: Some(u64::MAX),
        destination: Some(Destination {
            ip: "203.0.113.9".into(),
            port: 443,
            names: vec![Name { name: "files.example".into(), source: NameSource::Tls.into() }],
            smtp: Some(SmtpEnvelope { to: vec!["b@c".into()], ..SmtpEnvelope::default() }),
            ..Destination::default()
        }),
        ..event(2, Kind::NetUpload)
    };
    let loss = Loss { stage: "ring".into(), count: u64::MAX, ..Loss::default() };
    let lost = Event { loss: Some(loss), time_ns: i64::MAX, ..event(4, Kind::Loss) };
    vec![
        Event { sequence: 6, ..sent.clone() },
        Event { sequence: 7, ..lost.clone() },
        denied,
        sent,
        Event { device: Some(stick), ..event(3, Kind::Device) },
        lost,
        Event { time_ns: i64::MIN, sequence: i64::MAX as u64, ..event(5, Kind::Exec) },
        Event::default(),
    ]
}

/// Batches of them, and single ones.
#[must_use]
pub fn batches() -> Vec<Vec<u8>> {
    let mut bodies: Vec<_> = events().iter().map(prost::Message::encode_to_vec).collect();
    bodies.pop();
    let request = |batch, events: &[Vec<u8>]| {
        let events = events.iter().map(|it| it.clone().into()).collect();
        IngestRequest { batch, events, state: None }.encode_to_vec()
    };
    // Some of these are stored.
    let numbers = 1..=16;
    bodies
        .iter()
        .cloned()
        .chain(numbers.clone().map(|it| request(it, &bodies)))
        .chain(numbers.map(|it| request(it, &[&bodies[..], &bodies[..2]].concat())))
        .collect()
}

/// Filters of every form.
#[must_use]
pub fn expressions() -> Vec<Vec<u8>> {
    [
        "kind == 'usb.write' && verdict == 'denied'",
        "kind in ['usb.write', 'share.write'] || host == 'desk-12'",
        "bytes > 5000000 && process.login_user == '花子'",
        "process.parent.login_uid == -1 && process.exe == '/bin/\\\\xfecp'",
        "file.path.startsWith('/mnt/') && file.path.contains('台帳')",
        "file.path.matches('台帳.*[.]xlsx$') && file.path.lowerAscii().endsWith('.xlsx')",
        "sources.filter(x, x.path.startsWith('/home/')).size() == 1",
        "size(sources) == 2 && sources[1].path == '/home/b'",
        "destination.names.exists(n, n.name == 'files.example' && n.source == 'tls')",
        "'-r' in process.argv && process.argv.all(x, x != '')",
        "!process.argv.exists_one(x, x == 'a')",
        "time > timestamp('2026-11-27T12:00:00Z')",
        "time - timestamp('2026-11-27T12:00:00Z') > duration('29m')",
        "time.getHours('Asia/Tokyo') == 21 || time.getDayOfWeek() == 0",
        "!(rule == 'other') && (bytes > 1 ? true : false)",
        "bytes / 1000 * 1000 + 1 % 7 > -6999000 - bytes",
        "string(bytes) == '7' && int('7') == 7 && 1.5 < 2.0",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What the owner of the key signs.
#[must_use]
pub fn statements() -> Vec<Vec<u8>> {
    let text = include_bytes!("../../../../agent/dist/policies/demo.yaml");
    let all = PolicyStatement {
        epoch: 8,
        name: "demo".into(),
        text_zstd: zstd::bulk::compress(text, 1).unwrap_or_default(),
        sha256: Sha256::digest(text).to_vec(),
        percent: 100,
        reason: "新規".into(),
        by: "admin jiro".into(),
        ..PolicyStatement::default()
    };
    let hosts = vec!["pc-*".into(), "[a-c]?".into(), "**".into()];
    let some = PolicyStatement { hosts, percent: 10, epoch: i64::MAX as u64, ..all.clone() };
    vec![all.encode_to_vec(), some.encode_to_vec()]
}

/// A case, and members of one as the target reads them.
#[must_use]
pub fn cases() -> Vec<Vec<u8>> {
    let mut chain = Chain::new(&BOOT, Head::default(), 1);
    let text_zstd = zstd::bulk::compress(b"rules: []\n", 1).unwrap_or_default();
    let policy = PolicyText { name: "p".into(), sha256: vec![5; 32], text_zstd };
    let policy = Event { policy: Some(policy), ..event(2, Kind::Agent) };
    let mut bodies = Vec::new();
    for event in [events().swap_remove(2), policy] {
        let body = event.encode_to_vec();
        chain.note(event.sequence, digest(&[&body], 0));
        bodies.push(body);
    }
    let (checkpoint, _): (Checkpoint, _) = chain.sign(proof::key(), 2, 0, 0);
    let checkpoint = Event { checkpoint: Some(checkpoint), ..event(3, Kind::Checkpoint) };
    let record = |cursor, event| CaseRecord { host: "営業".into(), cursor, event };
    let [first, second] = bodies.try_into().unwrap_or_default();
    let records = [record(1, first)];
    let proofs = [record(2, second), record(3, checkpoint.encode_to_vec())];
    let mut writer = CaseWriter::new(Cursor::new(Vec::new()), Cursor::new(Vec::new()));
    records.iter().for_each(|it| writer.record(it, 0).expect("memory"));
    proofs.iter().for_each(|it| writer.proof(it).expect("memory"));
    let whole = writer.finish(Manifest::default(), proof::key(), Cursor::new(Vec::new()));
    let join = |records: &[CaseRecord]| {
        records.iter().flat_map(prost::Message::encode_length_delimited_to_vec).collect::<Vec<_>>()
    };
    let (records, proofs) = (join(&records), join(&proofs));
    vec![
        whole.expect("memory").into_inner(),
        proof::parts(&[b"", &records, &proofs]),
        proof::parts(&[br#"{"format":"sekimori-case-1"}"#, &records, &proofs]),
    ]
}

/// Requests for certificates: whole, in their message, and the part that is signed.
#[must_use]
pub fn requests() -> Vec<Vec<u8>> {
    let mut params =
        CertificateParams::new(vec!["pc-1.example".into(), "192.0.2.1".into()]).unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, "営業");
    let requests = [CertificateParams::default(), params].map(|params| {
        let request = params.serialize_request(certificates::key()).expect("a request");
        request.der().to_vec()
    });
    let hexadecimal = |count| "0a".repeat(count);
    let token = ["sekimori", &hexadecimal(8), &hexadecimal(32), &hexadecimal(32)].join("-");
    let [csr, _] = requests.clone();
    let message = EnrollRequest { token, csr }.encode_to_vec();
    let infos = requests.clone().map(|it| certificates::signed_part(&it).unwrap_or_default());
    [&requests[..], &infos[..], &[message]].concat()
}
