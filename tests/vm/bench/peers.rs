//! What other monitors cost that record the same operations: Debian's packages, unpacked somewhere
//! and not installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::BEFORE;
use super::clock::Clocks;
use super::operations::{BUSYBOX, LISTENER, OPENED, Operation, Places};
use crate::guest::Background;

const DIRECTORY: &str = "/run/sekimori-peers";
/// Until its programs are in the kernel, or its rules are.
const START: Duration = Duration::from_secs(20);
/// Until the rest of its output is written.
const END: Duration = Duration::from_secs(5);

/// A way to record with what Debian has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// auditd with a rule that nothing here meets.
    AuditWatch,
    /// auditd with rules on the system calls that are measured.
    AuditCalls,
    /// The tools of libbpf-tools, one for each operation.
    Tools,
}

/// Those who see every program.
const TRACERS: [Peer; 1] = [Peer::Tools];
/// Those who only see programs that were started after auditing began.
const AUDITORS: [Peer; 2] = [Peer::AuditWatch, Peer::AuditCalls];
pub const OPERATIONS: [Operation; 5] =
    [Operation::Open, Operation::Exec, Operation::Connect, Operation::UdpSend, Operation::TcpSend];
const TOOLS: [&str; 3] = ["opensnoop", "execsnoop", "tcpconnect"];

/// `auditd.conf`: everything is kept, nothing is rotated, nobody is told.
const AUDITD: &str = "local_events = yes\nwrite_logs = yes\nlog_file = /run/sekimori-peers/audit.log\n\
log_group = root\nlog_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 4000\n\
max_log_file_action = IGNORE\nspace_left = 2\nspace_left_action = IGNORE\nadmin_space_left = 1\n\
admin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n\
plugin_dir = /run/sekimori-peers/plugins\n";

/// Measures all of them; prints one JSON object for each of them and operation.
pub fn measure(packages: &Path, places: &Places) -> Result<()> {
    std::fs::create_dir_all(Path::new(DIRECTORY).join("plugins"))?;
    std::fs::write(Path::new(DIRECTORY).join("auditd.conf"), AUDITD)?;
    measure_some(&TRACERS, packages, places)?;
    audit(packages, "-e 1")?;
    let program = std::env::current_exe()?;
    let mut auditee = Command::new(program);
    auditee.args(["bench", "--audited", "--peers"]).arg(packages);
    ensure!(auditee.status()?.success(), "what auditd costs could not be measured");
    Ok(())
}

/// The part that must be in a program of its own.
pub fn measure_audited(packages: &Path, places: &Places) -> Result<()> {
    measure_some(&AUDITORS, packages, places)
}

fn measure_some(peers: &[Peer], packages: &Path, places: &Places) -> Result<()> {
    for peer in peers {
        for operation in OPERATIONS {
            let running = Running::start(*peer, packages)?;
            let outcome = running.measure(operation, places);
            let log = running.end(packages)?;
            let (own, peers) = outcome?;
            let done = BEFORE + operation.count();
            let lost = peer.records(operation, &log).map(|found| done.saturating_sub(found));
            println!(
                "{}",
                json!({
                    "setup": peer.name(),
                    "operation": operation.name(),
                    "count": operation.count(),
                    "kernel": own,
                    "agent": peers,
                    "collector": 0.0,
                    "lost": lost,
                })
            );
        }
    }
    Ok(())
}

impl Peer {
    const fn name(self) -> &'static str {
        match self {
            Self::AuditWatch => "auditd, one unrelated watch",
            Self::AuditCalls => "auditd, rules on calls",
            Self::Tools => "opensnoop, execsnoop, tcpconnect",
        }
    }

    /// How many records of an operation are in a log; nothing where it makes none.
    fn records(self, operation: Operation, log: &str) -> Option<u64> {
        let needle = match (self, operation) {
            (Self::AuditCalls, Operation::Open) => format!("name=\"{OPENED}\""),
            (Self::AuditCalls, Operation::Exec) => "type=EXECVE".to_owned(),
            // AF_INET and a port, in hexadecimal digits, and then the address.
            (Self::AuditCalls, Operation::Connect) => "7F000005".to_owned(),
            (Self::Tools, Operation::Open) => OPENED.to_owned(),
            (Self::Tools, Operation::Exec) => BUSYBOX.to_owned(),
            (Self::Tools, Operation::Connect) => LISTENER.to_string(),
            _ => return None,
        };
        Some(log.lines().filter(|line| line.contains(&needle)).count() as u64)
    }
}

/// A peer at work, with its own kernel thread where it has one.
struct Running {
    processes: Vec<Background>,
    pids: Vec<u32>,
    logs: Vec<PathBuf>,
}

impl Running {
    fn start(peer: Peer, packages: &Path) -> Result<Self> {
        let mut running = Self { processes: Vec::new(), pids: Vec::new(), logs: Vec::new() };
        match peer {
            Peer::AuditWatch | Peer::AuditCalls => running.audit(peer, packages)?,
            Peer::Tools => {
                for tool in TOOLS {
                    let log = Path::new(DIRECTORY).join(format!("{tool}.log"));
                    running.launch(program(packages, &format!("usr/sbin/{tool}")), log)?;
                }
            }
        }
        std::thread::sleep(START);
        for process in &mut running.processes {
            ensure!(process.lives()?, "{} has ended; its output is in {DIRECTORY}", peer.name());
        }
        Ok(running)
    }

    fn audit(&mut self, peer: Peer, packages: &Path) -> Result<()> {
        let log = Path::new(DIRECTORY).join("audit.log");
        let _ = std::fs::remove_file(&log);
        let mut daemon = program(packages, "sbin/auditd");
        daemon.args(["-n", "-c", DIRECTORY]);
        self.launch(daemon, Path::new(DIRECTORY).join("auditd.out"))?;
        self.logs = vec![log];
        std::thread::sleep(START);
        let calls: &[&str] = match peer {
            Peer::AuditWatch => &["-w /etc/shadow -p wa"],
            _ => &[
                "-a always,exit -F arch=b64 -S open,openat,openat2",
                "-a always,exit -F arch=b64 -S execve,execveat",
                "-a always,exit -F arch=b64 -S connect",
                "-a always,exit -F arch=b64 -S sendto,sendmsg,sendmmsg",
            ],
        };
        for rule in ["-D", "-b 65536", "-r 0", "-e 1"].iter().chain(calls) {
            audit(packages, rule)?;
        }
        self.pids.extend(kernel_thread("kauditd"));
        Ok(())
    }

    fn launch(&mut self, command: Command, log: PathBuf) -> Result<()> {
        let process = Background::start(command, &log)?;
        self.pids.push(process.pid());
        self.processes.push(process);
        self.logs.push(log);
        Ok(())
    }

    /// Instructions each, of the operation's own context and of the peer.
    fn measure(&self, operation: Operation, places: &Places) -> Result<(f64, f64)> {
        places.run(operation, BEFORE)?;
        let clocks = Clocks::of(&self.pids)?;
        let cost = clocks.cost_of(|| places.run(operation, operation.count()))?;
        let each = |total: u64| total as f64 / operation.count() as f64;
        Ok((each(cost.kernel), each(cost.processes.iter().sum())))
    }

    /// Ends it; answers what it wrote.
    fn end(mut self, packages: &Path) -> Result<String> {
        let _ = program(packages, "sbin/auditctl").arg("-D").output();
        for process in &mut self.processes {
            process.interrupt()?;
        }
        std::thread::sleep(END);
        let mut text = String::new();
        for log in &self.logs {
            let bytes = std::fs::read(log).with_context(|| log.display().to_string())?;
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(text)
    }
}

fn audit(packages: &Path, arguments: &str) -> Result<()> {
    let output = program(packages, "sbin/auditctl").args(arguments.split(' ')).output()?;
    ensure!(output.status.success(), "auditctl {arguments}: {output:?}");
    Ok(())
}

/// One of the unpacked programs, with the libraries that were unpacked beside it.
fn program(packages: &Path, name: &str) -> Command {
    let mut command = Command::new(packages.join(name));
    let libraries = ["lib", "usr/lib"].map(|it| packages.join(it).join("x86_64-linux-gnu"));
    let libraries = libraries.map(|it| it.to_string_lossy().into_owned());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    // The tools print times of day.
    command.env("TZ", "UTC0");
    command
}

/// The process id of a thread of the kernel's.
fn kernel_thread(name: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok())?
    })
}
