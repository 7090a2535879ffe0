//! Inputs to begin with: small, good, and made anew for each run.

mod collector;

use std::path::PathBuf;

use sekimori_abi::event::{Event, flag, kind, operation, verdict};

pub use collector::{batches, cases, events, expressions, requests, statements};

use crate::{sample, tls, types};

/// Names the directory into which a target writes its seeds before it reads it.
const DIRECTORY: &str = "SEKIMORI_FUZZ_SEEDS";

/// Where a piece of a flow goes, in the low bits of its first byte.
pub mod piece {
    /// Follows the last one of the same TCP flow.
    pub const STREAM: u8 = 0;
    /// Belongs to a TCP flow at the offset in its first two bytes.
    pub const STREAM_AT: u8 = 1;
    /// A datagram.
    pub const DATAGRAM: u8 = 2;
    /// The frames of a QUIC packet, which is a datagram once it is encrypted.
    pub const FRAMES: u8 = 3;
    /// A DNS answer.
    pub const ANSWER: u8 = 4;
    /// The end of a flow.
    pub const CLOSE: u8 = 5;
    /// Number of these words.
    pub const COUNT: u8 = 6;
}

/// Writes inputs into the directory that the environment names, if it names one.
pub fn write(inputs: Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    for (number, input) in inputs.into_iter().enumerate() {
        let path = directory.join(format!("seed-{number}"));
        if let Err(error) = std::fs::write(&path, input) {
            eprintln!("cannot write {}: {error}", path.display());
        }
    }
}

fn record(event: Event, path: &str, second: &str, third: &[u8]) -> Vec<u8> {
    let (path, second) = (sample::components(path), sample::components(second));
    sample::record(event, [&path, &second, third])
}

/// Ring records of several kinds.
#[must_use]
pub fn records() -> Vec<Vec<u8>> {
    let event = |kind, operation| {
        let mut event = sample::event(kind, operation);
        (event.sequence, event.time_ns, event.inode) = (1, 9_000, 12);
        (event.process.tgid, event.process.start_ns) = (7, 5_000);
        (event.process.parent_tgid, event.process.parent_start_ns) = (6, 4_000);
        (event.process.tty, event.process.comm) = (sample::fixed("pts2"), sample::fixed("cp"));
        event
    };
    let mut exec = event(kind::EXEC, operation::EXEC);
    exec.size = 3;
    let mut parent = event(kind::EXEC, operation::EXEC);
    (parent.process.tgid, parent.process.start_ns) = (6, 4_000);
    let mut denied = event(kind::USB_WRITE, operation::RENAME);
    (denied.verdict, denied.ring, denied.rule, denied.generation) = (verdict::DENIED, 1, 1, 1);
    denied.flags = flag::PATH_IN_FILE_SYSTEM | flag::SECOND_PATH_TRUNCATED;
    (denied.device.dev, denied.device.class) = (8 << 20 | 17, 2);
    denied.device.serial = sample::fixed("E0D55");
    let mut failed = event(kind::FILE_OPEN, operation::OPEN);
    (failed.flags, failed.errno, failed.inode) = (flag::OPEN_FAILED, -13, 0);
    let mut sent = event(kind::NET_UPLOAD, operation::CLOSE);
    (sent.family, sent.protocol, sent.port) = (2, 6, 443);
    (sent.address, sent.bytes, sent.calls) = ([0xff; 16], 4096, 2);
    let mut local = event(kind::NET_CONNECT, operation::CONNECT);
    local.family = 1;
    let payload = event(kind::NET_UPLOAD, operation::PAYLOAD);
    let mut signal = event(kind::TAMPER, operation::SIGNAL);
    signal.size = 9;
    let mut exit = event(kind::EXIT, operation::EXIT);
    exit.exit_code = 256;
    vec![
        record(parent, "/bin/bash", "/", b"bash\0"),
        record(event(kind::FORK, operation::FORK), "", "", b""),
        record(exec, "/usr/bin/cp", "/home/alice", b"cp\0a\0b\0"),
        record(denied, "/写真/x", "/b", b""),
        record(failed, "", "/srv/a", b"../x"),
        record(sent, "", "", b""),
        record(local, "", "", b"\0bus"),
        record(payload, "", "", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        record(event(kind::USB_MOUNT, operation::MOUNT), "", "", b""),
        record(signal, "", "", b""),
        record(exit, "", "", b""),
    ]
}

/// The same records in a row.
#[must_use]
pub fn rows_of_records() -> Vec<Vec<u8>> {
    let records = records();
    let pairs: Vec<_> = records.windows(2).map(<[_]>::concat).collect();
    [vec![records.concat()], pairs].concat()
}

/// Type information of a kernel, whole and in small.
#[must_use]
pub fn kernels() -> Vec<Vec<u8>> {
    let mut small = types::Types::new();
    let union = small.members("", types::UNION, 16, &[("f_inode", 0, 0), ("f_path", 0, 8)]);
    let named = small.add("other", (types::TYPEDEF, 0), union, &[]);
    let constant = small.add("", (types::CONST, 0), named, &[]);
    small.members("file", types::STRUCT, 64, &[("", constant, 8), ("f_mode", 0, 40)]);
    vec![small.bytes(), types::kernel().bytes()]
}

/// One piece of a flow as the target reads it.
fn piece(to: u8, bytes: &[u8]) -> Vec<u8> {
    [&[to][..], &(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

/// Flows of every protocol that is looked at.
#[must_use]
pub fn flows() -> Vec<Vec<u8>> {
    let hello = tls::hello("www.example.jp").unwrap_or_default();
    let frame = tls::first_frame("www.example.jp").unwrap_or_default();
    let (begin, end) = hello.split_at(hello.len() / 2);
    let request = b"GET http://a:b@example.jp:80/%E6?b HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
    let mail = b"EHLO a\r\nMAIL FROM:<\"a\\\"\"@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    let answer = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x02jp\0\0\x01\0\x01\
        \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    vec![
        [piece(piece::STREAM, begin), piece(piece::STREAM, end)].concat(),
        [piece(piece::FRAMES, &frame), piece(piece::CLOSE, b"")].concat(),
        piece(piece::DATAGRAM, &tls::initial(&frame).unwrap_or_default()),
        piece(piece::STREAM, request),
        piece(piece::STREAM, b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"),
        piece(piece::STREAM, mail),
        piece(piece::STREAM_AT, b"\0\0GET / HTTP/1.1\r\n"),
        piece(piece::ANSWER, answer),
    ]
}

/// The policies that come with the agent.
#[must_use]
pub fn policies() -> Vec<Vec<u8>> {
    [
        include_str!("../../../agent/dist/policies/demo.yaml"),
        include_str!("../../../agent/dist/policies/observe-everything.yaml"),
        include_str!("../../../agent/dist/policies/office.yaml"),
    ]
    .map(|policy| policy.as_bytes().to_vec())
    .to_vec()
}
