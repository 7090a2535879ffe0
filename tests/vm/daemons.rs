//! The agent and the collector of the scenarios.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::guest;
use crate::limits::{FLOOD_TIMEOUT, RECORD_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT};
use crate::records::{self, Records};

/// The host's name in the collector.
pub const HOST: &str = "sekimori-guest";
/// As in agent/dist/sekimori-agent.service.
const CAPABILITIES: &str = "-all,+bpf,+perfmon,+sys_ptrace,+dac_override";
const ADDRESS: &str = "127.0.0.1:7443";

/// What differs between agents.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Its program.
    pub program: &'static str,
    /// Bounds and place of the spool, lines of YAML below `spool:`.
    pub spool: String,
    /// Directory with ca.pem, cert.pem and key.pem; without one, the collector's unix socket.
    pub certificates: Option<PathBuf>,
    /// What guards the agent: `deny`, `alert` or `off`.
    pub guard: &'static str,
    /// Whose policy it takes: `file` or `collector`.
    pub policy_from: &'static str,
    /// Further arguments.
    pub arguments: &'static [&'static str],
}

/// Both daemons, in one directory.
#[derive(Debug)]
pub struct Daemons {
    directory: PathBuf,
    collector: Option<Child>,
    agent: Option<Child>,
}

impl Daemons {
    /// Makes the directory and the certificates; nothing runs yet.
    ///
    /// # Errors
    /// When the collector's commands fail.
    pub fn prepare(directory: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir_all(directory)?;
        let daemons = Self { directory: directory.into(), collector: None, agent: None };
        let state = daemons.path("collector");
        let state = state.to_string_lossy();
        let certificates = daemons.path("tls");
        let certificates = certificates.to_string_lossy();
        succeed("sekimori-collector", &["init", "--dir", &state])?;
        succeed("sekimori-collector", &["enroll", HOST, "--dir", &state, "--out", &certificates])?;
        Ok(daemons)
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The options of an ordinary agent.
    #[must_use]
    pub fn ordinary(&self) -> AgentOptions {
        AgentOptions {
            program: "sekimori-agent",
            spool: String::new(),
            certificates: Some(self.path("tls")),
            // Most scenarios are about other things, and some end the agent by force.
            guard: "off",
            policy_from: "file",
            arguments: &[],
        }
    }

    /// The collector's address for commands.
    #[must_use]
    pub fn collector_address(&self) -> String {
        format!("unix:{}", self.path("collector.sock").display())
    }

    /// Starts the collector and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_collector(&mut self) -> Result<()> {
        if self.collector.is_some() {
            return Ok(());
        }
        let mut command = Command::new("sekimori-collector");
        command.arg("run").arg("--dir").arg(self.path("collector"));
        command.args(["--listen", ADDRESS]).arg("--socket").arg(self.path("collector.sock"));
        self.collector = Some(self.spawn(command, "collector.log")?);
        guest::until("the collector answers", START_TIMEOUT, || {
            let log = self.log("collector.log");
            alive("the collector", self.collector.as_mut(), &log)?;
            Ok(self.status()?.get("collector").is_some_and(|it| !it.is_null()))
        })
    }

    /// Starts the agent with the policy in force and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_agent(&mut self, options: &AgentOptions) -> Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        let config = self.write_config(options)?;
        // With what the unit gives it, and no more.
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={CAPABILITIES}")).arg(options.program);
        command.args(["run", "--config"]).arg(config).args(options.arguments);
        self.agent = Some(self.spawn(command, "agent.log")?);
        guest::until("the agent answers", START_TIMEOUT, || {
            let log = self.log("agent.log");
            alive("the agent", self.agent.as_mut(), &log)?;
            Ok(self.status()?.get("agent").is_some_and(|it| !it.is_null()))
        })
    }

    /// Writes a configuration for the agent.
    ///
    /// # Errors
    /// When that fails.
    pub fn write_config(&self, options: &AgentOptions) -> Result<PathBuf> {
        let directory = self.directory.display();
        let mut spool = options.spool.clone();
        if !spool.contains("directory:") {
            spool.push_str(&format!("  directory: {directory}/spool\n"));
        }
        let collector = match &options.certificates {
            Some(tls) => {
                let tls = tls.display();
                format!(
                    "  address: https://localhost:7443\n  ca: {tls}/ca.pem\n  \
                     cert: {tls}/cert.pem\n  key: {tls}/key.pem\n"
                )
            }
            None => format!("  address: \"{}\"\n", self.collector_address()),
        };
        let text = format!(
            "policy: {directory}/policy.yaml\nspool:\n{spool}\
             collector:\n{collector}control:\n  socket: {directory}/agent.sock\nguard: {}\n\
             policy_from: {}\n",
            options.guard, options.policy_from
        );
        let path = self.path("agent.yaml");
        guest::write(&path, text)?;
        Ok(path)
    }

    fn spawn(&self, mut command: Command, log: &str) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path(log))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {command:?}"))
    }

    /// Writes the policy that the next start or reload takes.
    ///
    /// # Errors
    /// When that fails.
    pub fn write_policy(&self, policy: &str) -> Result<()> {
        guest::write(self.path("policy.yaml"), policy)
    }

    /// Asks the agent to take the policy file.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn reload(&self) -> Result<guest::Output> {
        let socket = self.path("agent.sock");
        guest::run("sekimori", &["policy", "reload", "--socket", &socket.to_string_lossy()])
    }

    /// What `sekimori status --json` says.
    ///
    /// # Errors
    /// When it prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let socket = self.path("agent.sock");
        let output = guest::run(
            "sekimori",
            &[
                "status",
                "--json",
                "--socket",
                &socket.to_string_lossy(),
                "--collector",
                &self.collector_address(),
            ],
        )?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status printed {:?} {}", output.text(), output.errors()))
    }

    /// What the agent says of itself. It is asked without another program: of ours there is one
    /// connection, and nothing else.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self) -> Result<Value> {
        let mut stream = UnixStream::connect(self.path("agent.sock"))?;
        stream.set_read_timeout(Some(STOP_TIMEOUT))?;
        stream.write_all(b"{\"command\":\"status\"}\n")?;
        stream.shutdown(Shutdown::Write)?;
        serde_json::from_reader(stream).context("the agent answered no JSON")
    }

    /// Waits until everything that was recorded is stored: a launch that comes after it is.
    /// (Bytes that wait are no measure, since asking makes records too.) As the record of a launch
    /// may find the ring full, there is another one whenever none was stored for a while.
    ///
    /// # Errors
    /// When no such launch is stored in time.
    pub fn settle(&self, records: &Records) -> Result<()> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let marker = format!("settle-marker-{}", TURN.fetch_add(1, Ordering::Relaxed));
        let marked = |it: &Value| records::text(it, "/process/argv/1") == marker;
        let mut launched: Option<Instant> = None;
        guest::until("records are delivered", FLOOD_TIMEOUT, || {
            if launched.is_none_or(|at| at.elapsed() > RECORD_TIMEOUT) {
                guest::run("/bin/true", &[&marker])?;
                launched = Some(Instant::now());
            }
            let newest = ["--kind", "exec", "--newest", "--limit", "40"];
            Ok(records.search(&newest)?.iter().any(marked))
        })
    }

    /// Whether the agent runs.
    #[must_use]
    pub fn agent_lives(&mut self) -> bool {
        matches!(self.agent.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// The agent's process id.
    #[must_use]
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, Child::id)
    }

    /// The collector's process id, while it runs.
    #[must_use]
    pub fn collector_pid(&self) -> Option<u32> {
        self.collector.as_ref().map(Child::id)
    }

    /// Ends the agent with this signal. Answers its exit code, or 128 and the signal.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_agent(&mut self, signal: Signal) -> Result<i32> {
        end(self.agent.take(), signal)
    }

    /// Ends the collector with this signal. Answers its exit code, or 128 and the signal.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_collector(&mut self, signal: Signal) -> Result<i32> {
        end(self.collector.take(), signal)
    }

    /// A daemon's log, the last part of it.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Copies the logs to where the host keeps them.
    pub fn keep_logs(&self) {
        let _ = std::fs::create_dir_all("/run/sekimori");
        for name in ["agent.log", "collector.log"] {
            let _ = std::fs::copy(self.path(name), Path::new("/run/sekimori").join(name));
        }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let _ = self.end_agent(Signal::SIGTERM);
        let _ = self.end_collector(Signal::SIGTERM);
        self.keep_logs();
    }
}

fn succeed(program: &str, arguments: &[&str]) -> Result<()> {
    let output = guest::run(program, arguments)?;
    if output.status != 0 {
        bail!("{}: {} {}", output.command, output.text(), output.errors());
    }
    Ok(())
}

fn alive(what: &str, child: Option<&mut Child>, log: &str) -> Result<()> {
    if let Some(status) = child.map(Child::try_wait).transpose()?.flatten() {
        bail!("{what} ended with {status}:\n{log}");
    }
    Ok(())
}

fn end(child: Option<Child>, signal: Signal) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(mut child) = child else { return Ok(0) };
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    let mut status = None;
    let ended = guest::until("a daemon ends", STOP_TIMEOUT, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended?;
    Ok(status.map_or(-1, |it| it.code().unwrap_or_else(|| 128 + it.signal().unwrap_or(0))))
}
