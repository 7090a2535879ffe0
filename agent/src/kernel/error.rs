//! What can go wrong with the kernel side.

use thiserror::Error;

use crate::causes::causes;

/// Why the kernel side does not work. The text says what to do next.
#[derive(Debug, Error)]
pub enum KernelError {
    /// This kernel (or this build of the agent) cannot do the job.
    #[error("{0}")]
    Unsupported(String),
    /// The agent may not do it.
    #[error("{0}")]
    Permission(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl KernelError {
    /// An error of aya's while doing `what`.
    pub(crate) fn from_aya(what: &str, error: &dyn std::error::Error) -> Self {
        let text = shortened(error);
        let denied = text.contains("Operation not permitted") || text.contains("os error 13");
        if denied {
            Self::Permission(format!(
                "{what}: {text}\n  run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and \
                 CAP_DAC_OVERRIDE"
            ))
        } else {
            Self::Other(format!("{what}: {text}"))
        }
    }
}

/// An error and all its causes; of a verifier's log only the end, which says why.
pub(crate) fn shortened(error: &dyn std::error::Error) -> String {
    const LINES_MAX: usize = 24;
    let text = causes(error);
    let lines: Vec<&str> = text.lines().collect();
    // Newer kernels explain themselves behind this line and end with figures.
    let reason = lines.iter().position(|line| line.starts_with("Verification failed"));
    let from = reason.unwrap_or_else(|| lines.len().saturating_sub(LINES_MAX));
    if from == 0 {
        return text;
    }
    let kept = lines.iter().skip(from).take(LINES_MAX).copied().collect::<Vec<_>>().join("\n");
    format!("{}\n  … {from} lines …\n{kept}", lines.first().unwrap_or(&""))
}
