//! The tries.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, copy_file_range};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;

/// Where scratch directories are made.
const PARENT: &str = "/var/tmp";
/// A program that does nothing, well.
const PROGRAM: &str = "/bin/true";
const PINS: &str = "/sys/fs/bpf/sekimori";
const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";
const SENT: &[u8] = b"sekimori doctor --attack\n";
const NO_STICK: &str = "no stick: name its mount point with --stick";

/// How a try went.
pub enum Outcome {
    Happened,
    Failed(io::Error),
    NotTried(&'static str),
}

impl<T> From<io::Result<T>> for Outcome {
    fn from(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Happened,
            Err(error) => Self::Failed(error),
        }
    }
}

/// One way.
pub struct Try {
    pub channel: &'static str,
    pub tried: &'static str,
    pub kind: &'static str,
    pub run: fn(&Scratch) -> Outcome,
}

/// What the tries work on. Its directories go when it goes.
pub struct Scratch {
    directory: PathBuf,
    /// A directory on the stick.
    stick: Option<PathBuf>,
    agent: u32,
}

impl Scratch {
    pub fn make(agent: u32, stick: Option<PathBuf>) -> io::Result<Self> {
        let name = format!("sekimori-attack-{}", std::process::id());
        let directory = Path::new(PARENT).join(&name);
        fs::create_dir(&directory)?;
        let stick = stick.map(|stick| stick.join(name));
        Ok(Self { directory, stick, agent })
    }

    fn on_stick(&self, run: impl FnOnce(&Path) -> io::Result<()>) -> Outcome {
        match &self.stick {
            Some(stick) => run(stick).into(),
            None => Outcome::NotTried(NO_STICK),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for directory in [Some(&self.directory), self.stick.as_ref()].into_iter().flatten() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

macro_rules! tries {
    ($($channel:literal $kind:literal { $($tried:literal: $run:expr;)* })*) => {
        &[$($(Try { channel: $channel, tried: $tried, kind: $kind, run: $run }),*),*]
    };
}

pub const ALL: &[Try] = tries! {
    "launches" "exec" {
        "a program": |_| started(PROGRAM.as_ref());
        "a script by #!": script;
        "a program in memory (memfd)": in_memory;
        "a program that was deleted": deleted;
    }
    "connections" "net.connect" {
        "TCP over IPv4": |_| connection("127.0.0.1:0").map(|_| ()).into();
        "TCP over IPv6": |_| connection("[::1]:0").map(|_| ()).into();
        "a local socket": local;
    }
    "uploads" "net.upload" {
        "TCP, write": |_| write_tcp().into();
        "TCP, sendfile": |scratch| send_file(scratch).into();
        "UDP without connect": |_| datagram().into();
    }
    "writes to removable media" "usb.write" {
        "directory": |it| it.on_stick(|at| fs::create_dir(at));
        "new file": |it| it.on_stick(|at| fs::write(at.join("a"), SENT));
        "append": |it| it.on_stick(append);
        "direct write": |it| it.on_stick(direct);
        "copy_file_range": |it| it.on_stick(copy_range);
        "truncation": |it| it.on_stick(truncate);
        "rename": |it| it.on_stick(|at| fs::rename(at.join("a"), at.join("b")));
        "hard link": |it| it.on_stick(|at| fs::hard_link(at.join("b"), at.join("c")));
        "symbolic link": |it| it.on_stick(|at| symlink("text in a link", at.join("d")));
        "removal": |it| it.on_stick(|at| fs::remove_file(at.join("b")));
    }
    "the monitor itself" "tamper" {
        "the agent's memory": |it| File::open(format!("/proc/{}/mem", it.agent)).into();
        "removing its pins": |_| fs::remove_dir(PINS).into();
        "the switch of all hooks": |_| OpenOptions::new().write(true).open(SWITCH).into();
    }
};

fn started(program: &Path) -> Outcome {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().into()
}

fn script(scratch: &Scratch) -> Outcome {
    let path = scratch.directory.join("script");
    let made = fs::write(&path, "#!/bin/sh\nexit 0\n")
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o700)));
    match made {
        Ok(()) => started(&path),
        Err(error) => Outcome::Failed(error),
    }
}

fn in_memory(_: &Scratch) -> Outcome {
    let file = memfd_create("sekimori-attack", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from);
    let filled = file.and_then(|file| {
        let mut file = File::from(file);
        io::copy(&mut File::open(PROGRAM)?, &mut file)?;
        Ok(file)
    });
    match filled {
        Ok(file) => started(&by_descriptor(&file)),
        Err(error) => Outcome::Failed(error),
    }
}

fn deleted(scratch: &Scratch) -> Outcome {
    let path = scratch.directory.join("deleted");
    let copied = fs::copy(PROGRAM, &path).and_then(|_| {
        let file = File::open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    });
    match copied {
        Ok(file) => started(&by_descriptor(&file)),
        Err(error) => Outcome::Failed(error),
    }
}

fn by_descriptor(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

fn connection(address: &str) -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(address)?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

fn local(scratch: &Scratch) -> Outcome {
    let path = scratch.directory.join("socket");
    UnixListener::bind(&path).and_then(|_listener| UnixStream::connect(&path)).into()
}

fn write_tcp() -> io::Result<()> {
    let (mut client, _server) = connection("127.0.0.1:0")?;
    client.write_all(SENT)
}

fn send_file(scratch: &Scratch) -> io::Result<()> {
    let path = scratch.directory.join("sent");
    fs::write(&path, SENT)?;
    let (client, _server) = connection("127.0.0.1:0")?;
    sendfile(&client, File::open(path)?, None, SENT.len())?;
    Ok(())
}

fn datagram() -> io::Result<()> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(SENT, receiver.local_addr()?)?;
    Ok(())
}

fn append(at: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).open(at.join("a"))?.write_all(SENT)
}

fn direct(at: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(OFlag::O_DIRECT.bits());
    options.open(at.join("direct")).map(drop)
}

fn copy_range(at: &Path) -> io::Result<()> {
    let from = File::open(at.join("a"))?;
    let to = File::create(at.join("range"))?;
    copy_file_range(&from, None, &to, None, SENT.len())?;
    Ok(())
}

fn truncate(at: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(at.join("a"))?.set_len(1)
}
