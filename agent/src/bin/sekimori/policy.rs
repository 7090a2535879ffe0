//! `sekimori policy`.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sekimori_abi::event::device_class;
use sekimori_agent::control::{self, Request, SOCKET_PATH};
use sekimori_agent::limits::POLICY_BYTES_MAX;
use sekimori_policy::{
    Directory as _, Finding, Peer, PluggedDevice, Question, Severity, SystemDirectory, Word,
    explain, lint_bytes, load_bytes,
};
use serde_json::json;

use crate::failure::{FINDING, Failure};
use crate::{in_runtime, replay, rollout};

/// Checks, explains and reloads policies, and gives them to the hosts.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Report everything that is wrong in a policy, with line and column. Exit code 2 on errors.
    Lint(LintArgs),
    /// Say what a policy does with an event, and why.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Tell the running agent to read its policy file again.
    Reload(ReloadArgs),
    /// Give a policy to the hosts that take theirs from the collector.
    Put(rollout::PutArgs),
    /// Show the versions that were given and the hosts that run them, or give one to more hosts.
    Rollout(rollout::RolloutArgs),
    /// Give an earlier version's text again, as another version.
    Rollback(rollout::RollbackArgs),
    /// Say what a policy would have stopped of what is stored.
    Replay(replay::Args),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sekimori policy explain policy.yaml --on usb.write --path /media/usb/x --device 0951:1666:E0D55
  sekimori policy explain policy.yaml --on net.connect --exe /usr/bin/curl \\
      --destination 203.0.113.9:443 --user alice
  sekimori policy explain policy.yaml --on exec --path /usr/bin/rclone";

#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Policy, or - for standard input.
    file: PathBuf,
    /// One JSON object a line for each finding.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// Policy, or - for standard input.
    file: PathBuf,
    /// What happens: a word of a policy's `on:`.
    #[arg(long, value_name = "WORD", value_parser = word)]
    on: Word,
    /// The file acted on; for exec the program to be launched.
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// The acting program.
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
    /// The acting person: name or uid.
    #[arg(long)]
    user: Option<String>,
    /// The USB device: vendor and product in hexadecimal, and the serial; or `sd`, `thunderbolt`,
    /// `optical`, `network`, `fuse`.
    #[arg(long, value_name = "VENDOR:PRODUCT:SERIAL", value_parser = device)]
    device: Option<PluggedDevice>,
    /// Where to.
    #[arg(long, value_name = "IP:PORT")]
    destination: Option<SocketAddr>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    socket: PathBuf,
}

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Lint(args) => lint(&args),
        Command::Explain(args) => explained(&args),
        Command::Reload(args) => reload(&args),
        Command::Put(args) => in_runtime(rollout::put(args)),
        Command::Rollout(args) => in_runtime(rollout::rollout(args)),
        Command::Rollback(args) => in_runtime(rollout::rollback(args)),
        Command::Replay(args) => in_runtime(replay::run(args)),
    }
}

fn word(text: &str) -> Result<Word, String> {
    Word::from_text(text).ok_or_else(|| {
        let words: Vec<&str> = Word::ALL.iter().map(|word| word.text()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

fn device(text: &str) -> Result<PluggedDevice, String> {
    let class = match text {
        "sd" => device_class::SD,
        "thunderbolt" => device_class::THUNDERBOLT,
        "optical" => device_class::OPTICAL,
        "network" => device_class::NETWORK,
        "fuse" => device_class::FUSE,
        _ => device_class::USB,
    };
    if class != device_class::USB {
        return Ok(PluggedDevice { class, ..PluggedDevice::default() });
    }
    let expected = || {
        format!(
            "expected VENDOR:PRODUCT:SERIAL as in 0951:1666:E0D55, `sd`, `thunderbolt`, `optical`, \
             `network` or `fuse`, got {text:?}"
        )
    };
    let mut parts = text.splitn(3, ':');
    let mut number = || {
        let part = parts.next().filter(|part| part.len() == 4);
        part.and_then(|part| u16::from_str_radix(part, 16).ok()).ok_or_else(expected)
    };
    let (vendor, product) = (number()?, number()?);
    let serial = parts.next().unwrap_or_default().to_owned();
    Ok(PluggedDevice { class, vendor, product, serial })
}

/// A policy's text, from a file or, for `-`, standard input.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut source = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().lock().take(POLICY_BYTES_MAX + 1).read_to_end(&mut source)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(POLICY_BYTES_MAX + 1).read_to_end(&mut source))
    };
    let name = path.display();
    result.map_err(|error| Failure::usage(format!("cannot read the policy {name}: {error}")))?;
    if source.len() as u64 > POLICY_BYTES_MAX {
        return Err(Failure::usage(format!("{name} is longer than {POLICY_BYTES_MAX} bytes")));
    }
    Ok(source)
}

fn lint(args: &LintArgs) -> Result<(), Failure> {
    let findings = lint_bytes(&read(&args.file)?);
    let mut out = anstream::stdout().lock();
    for finding in &findings {
        if args.json {
            let line = json!({
                "file": args.file.to_string_lossy(),
                "severity": finding.severity,
                "line": finding.line,
                "column": finding.column,
                "message": finding.message,
                "hint": finding.hint,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}:{finding}", args.file.display())?;
        }
    }
    if !args.json && findings.is_empty() {
        writeln!(out, "{}: no errors", args.file.display())?;
    }
    if has_errors(&findings) { Err(Failure::told(FINDING)) } else { Ok(()) }
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

fn explained(args: &ExplainArgs) -> Result<(), Failure> {
    let question = Question {
        kind: args.on,
        path: args.path.as_deref().map(absolute).transpose()?,
        exe: args.exe.as_deref().map(absolute).transpose()?,
        user: args.user.as_deref().map(uid).transpose()?,
        device: args.device.clone(),
        peer: args.destination.map(|it| Peer { address: it.ip(), port: it.port() }),
    };
    let (compiled, _) = match load_bytes(&read(&args.file)?, &SystemDirectory, 1) {
        Ok(loaded) => loaded,
        Err(findings) => {
            for finding in &findings {
                anstream::eprintln!("{}:{finding}", args.file.display());
            }
            return Err(Failure::told(FINDING));
        }
    };
    let explanation = explain(&compiled, &question);
    let mut out = anstream::stdout().lock();
    if args.json {
        let text = serde_json::to_string(&explanation)
            .map_err(|error| Failure::failed(format!("cannot write the answer: {error}")))?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{explanation}")?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.is_absolute() {
        return Ok(path.as_os_str().as_encoded_bytes().to_vec());
    }
    Err(Failure::usage(format!("{} is not an absolute path", path.display())))
}

fn uid(user: &str) -> Result<u32, Failure> {
    let known = user.parse().ok().or_else(|| SystemDirectory.uid_of(user));
    known.ok_or_else(|| Failure::usage(format!("nobody is called {user:?} here; give a uid")))
}

fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let answer = control::ask(&args.socket, Request::Reload).map_err(|error| match error {
        control::ControlError::Permission { .. } => Failure::permission(error.to_string()),
        _ => Failure::failed(error.to_string()),
    })?;
    for finding in &answer.findings {
        anstream::eprintln!("{finding}");
    }
    if !answer.ok {
        anstream::eprintln!("sekimori: {}", answer.message);
        return Err(Failure::told(if answer.findings.is_empty() { 1 } else { FINDING }));
    }
    writeln!(anstream::stdout(), "{}", answer.message)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0951:1666:E0D55", 0x0951, 0x1666, "E0D55")]
    #[case("abcd:EF01:a:b", 0xabcd, 0xef01, "a:b")]
    #[case("0951:1666", 0x0951, 0x1666, "")]
    fn devices_are_read(
        #[case] text: &str,
        #[case] vendor: u16,
        #[case] product: u16,
        #[case] serial: &str,
    ) {
        let serial = serial.to_owned();
        let class = device_class::USB;
        assert_eq!(device(text), Ok(PluggedDevice { class, vendor, product, serial }));
        assert_eq!(device("sd").map(|it| it.class), Ok(device_class::SD));
    }

    #[rstest]
    #[case("")]
    #[case("951:1666:x")]
    #[case("zzzz:1666:x")]
    fn wrong_devices_are_refused(#[case] text: &str) {
        assert!(device(text).unwrap_err().contains("VENDOR:PRODUCT:SERIAL"));
    }

    #[test]
    fn people_are_found_by_name_or_number() {
        assert_eq!(uid("root"), Ok(0));
        assert_eq!(uid("1234"), Ok(1234));
        assert!(uid("no-such-login-here").unwrap_err().to_string().contains("give a uid"));
    }
}
