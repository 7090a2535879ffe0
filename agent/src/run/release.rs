//! Ending enforcement by hand.

use nix::unistd::getuid;
use procfs::process::Process;

use super::RunError;
use super::left::Left;
use crate::config::Config;
use crate::enrich::Enricher;
use crate::kernel;
use crate::record::agent_event;
use crate::spool::{Lane, RecoveryReport, SharedSpool, Spool, SpoolConfig, SpoolError};

/// Takes the kernel programs off their hooks and records who did it and why. The agent must have
/// been stopped; its next start enforces again. Answers what was done.
///
/// # Errors
/// When an agent runs, or the programs cannot be taken off. That it could not be recorded is no
/// reason not to do it, and is said in the answer.
pub fn release(config: &Config, reason: &str) -> Result<String, RunError> {
    let spool = Spool::open(&config.spool.directory, SpoolConfig::from(&config.spool));
    if let Err(error @ SpoolError::Locked { .. }) = spool {
        return Err(error.into());
    }
    let released = kernel::release()?;
    // Nobody shall wonder at the next start where they went.
    let forgotten = Left { in_force: String::new(), ..Left::read(&config.spool.directory) };
    if let Err(error) = forgotten.write(&config.spool.directory) {
        tracing::debug!(%error, "nothing is left behind");
    }
    let message = if released == 0 {
        "nothing was in force".to_owned()
    } else {
        format!("enforcement was ended by {} until the agent starts again: {reason}", person())
    };
    match spool.and_then(|(spool, report)| keep(spool, &report, &message)) {
        Ok(()) => Ok(message),
        Err(error) => Ok(format!("{message}\n  this could not be recorded: {error}")),
    }
}

fn keep(spool: Spool, report: &RecoveryReport, message: &str) -> Result<(), SpoolError> {
    let spool = SharedSpool::new(spool);
    let now_ns = Enricher::new().clock.now_ns();
    spool.append(Lane::Alerts, &agent_event(now_ns, message))?;
    spool.flush(now_ns)?;
    // An agent that died before this must still be told of by the next one.
    if report.clean { spool.close() } else { spool.sync() }
}

/// Whoever runs this process: uid, and login uid where the session has one.
fn person() -> String {
    let uid = getuid();
    let login = Process::myself().and_then(|myself| myself.loginuid());
    match login {
        Ok(login) if login != u32::MAX => format!("uid {uid} (login uid {login})"),
        _ => format!("uid {uid}"),
    }
}
