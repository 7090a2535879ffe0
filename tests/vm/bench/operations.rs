//! What is measured: each operation many times, on memory and loopback, so that nothing waits for a
//! device.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

const BLOCK: usize = 4 << 10;
const LARGE: usize = 64 << 10;
const DATAGRAM: usize = 1 << 10;
/// Linked statically: what it does itself is little.
pub const BUSYBOX: &str = "/run/sekimori-bin/busybox";

/// What is opened by the operation of that name, and by nothing else.
pub const OPENED: &str = "/dev/shm/opened";
/// A label is on it whose rule speaks of somebody else.
const QUIET: &str = "/dev/shm/quiet/file";
/// A rule records each open of it.
const RECORDED: &str = "/dev/shm/labelled/file";
const WRITTEN: &str = "/dev/shm/written";
/// Only connections that are measured as such go there.
pub const LISTENER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

/// One thing that programs do all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    OpenQuiet,
    OpenLabelled,
    WritePlain,
    WriteStick,
    Exec,
    Connect,
    TcpSend,
    UdpSend,
    UdpBoth,
    Stat,
    Pipe,
}

impl Operation {
    pub const ALL: &[Self] = &[
        Self::Open,
        Self::OpenQuiet,
        Self::OpenLabelled,
        Self::WritePlain,
        Self::WriteStick,
        Self::Exec,
        Self::Connect,
        Self::TcpSend,
        Self::UdpSend,
        Self::UdpBoth,
        Self::Stat,
        Self::Pipe,
    ];
    /// What the agent has work with.
    pub const RECORDED: &[Self] = &[Self::OpenLabelled, Self::Exec, Self::Connect];
    pub const WITH_STICK: &[Self] = &[Self::Open, Self::WritePlain, Self::WriteStick];

    /// What needs no USB memory.
    pub fn without_stick() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|it| *it != Self::WriteStick).collect()
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open+close, uninteresting file",
            Self::OpenQuiet => "open+close, labelled, no record",
            Self::OpenLabelled => "open+close, recorded",
            Self::WritePlain => "write 4 KiB, plain file",
            Self::WriteStick => "write 4 KiB, USB memory",
            Self::Exec => "fork+exec+wait",
            Self::Connect => "TCP connect+accept+close",
            Self::TcpSend => "TCP send 64 KiB+receive",
            Self::UdpSend => "UDP send 1 KiB",
            Self::UdpBoth => "UDP send 1 KiB+receive",
            Self::Stat => "stat",
            Self::Pipe => "pipe write+read, 1 byte",
        }
    }

    /// The hook that an empty program is put on to see what a program there costs at least.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::Open | Self::OpenQuiet | Self::OpenLabelled => "file_open",
            Self::WritePlain | Self::WriteStick | Self::Pipe => "file_permission",
            Self::Exec => "bprm_check_security",
            Self::Connect => "socket_connect",
            Self::TcpSend | Self::UdpSend | Self::UdpBoth => "socket_sendmsg",
            Self::Stat => "inode_permission",
        }
    }

    /// How often, for figures that repeat.
    pub const fn count(self) -> u64 {
        match self {
            Self::Exec => 1_000,
            Self::Connect => 2_000,
            Self::OpenLabelled => 10_000,
            Self::TcpSend => 1_000,
            _ => 5_000,
        }
    }
}

/// Files that the operations work on.
#[derive(Debug)]
pub struct Places {
    stick: PathBuf,
}

impl Places {
    pub fn prepare(stick: &str) -> Result<Self> {
        for path in [OPENED, QUIET, RECORDED, WRITTEN] {
            crate::guest::write(path, [0; BLOCK])?;
        }
        Ok(Self { stick: PathBuf::from(stick).join("file") })
    }

    /// Does it `count` times.
    pub fn run(&self, operation: Operation, count: u64) -> Result<()> {
        match operation {
            Operation::Open => open(OPENED, count),
            Operation::OpenQuiet => open(QUIET, count),
            Operation::OpenLabelled => open(RECORDED, count),
            Operation::WritePlain => write(Path::new(WRITTEN), count),
            Operation::WriteStick => write(&self.stick, count),
            Operation::Exec => exec(count),
            Operation::Connect => connect(count),
            Operation::TcpSend => tcp_send(count),
            Operation::UdpSend => udp_send(count),
            Operation::UdpBoth => udp_both(count),
            Operation::Stat => stat(OPENED, count),
            Operation::Pipe => pipe(count),
        }
    }
}

fn open(path: &str, count: u64) -> Result<()> {
    for _ in 0..count {
        drop(File::open(path)?);
    }
    Ok(())
}

fn stat(path: &str, count: u64) -> Result<()> {
    for _ in 0..count {
        std::fs::metadata(path)?;
    }
    Ok(())
}

/// The same block over and over: the page is in memory after the first time.
fn write(path: &Path, count: u64) -> Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    let block = [7; BLOCK];
    for _ in 0..count {
        file.write_all_at(&block, 0)?;
    }
    Ok(())
}

fn exec(count: u64) -> Result<()> {
    for _ in 0..count {
        let status = Command::new(BUSYBOX).arg("true").status()?;
        anyhow::ensure!(status.success(), "busybox true: {status}");
    }
    Ok(())
}

fn connect(count: u64) -> Result<()> {
    let listener = TcpListener::bind((LISTENER, 0))?;
    let address = listener.local_addr()?;
    for _ in 0..count {
        let client = TcpStream::connect(address)?;
        drop(listener.accept()?);
        drop(client);
    }
    Ok(())
}

fn tcp_send(count: u64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let sent = vec![7; LARGE];
    let mut received = vec![0; LARGE];
    for _ in 0..count {
        client.write_all(&sent)?;
        server.read_exact(&mut received)?;
    }
    Ok(())
}

/// To somebody whose buffer is full.
fn udp_send(count: u64) -> Result<()> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.connect(receiver.local_addr()?)?;
    for _ in 0..count {
        sender.send(&[7; DATAGRAM])?;
    }
    Ok(())
}

fn udp_both(count: u64) -> Result<()> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.connect(receiver.local_addr()?)?;
    let mut buffer = [0; DATAGRAM];
    for _ in 0..count {
        sender.send(&[7; DATAGRAM])?;
        receiver.recv(&mut buffer).context("receiving")?;
    }
    Ok(())
}

fn pipe(count: u64) -> Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let mut byte = [0];
    for _ in 0..count {
        writer.write_all(&[7])?;
        reader.read_exact(&mut byte)?;
    }
    Ok(())
}
