//! What can go wrong with the kernel side.

use thiserror::Error;

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
        let text = chain(error);
        let denied = text.contains("Operation not permitted") || text.contains("os error 13");
        if denied {
            Self::Permission(format!(
                "{what}: {text}\n  run as root, with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"
            ))
        } else {
            Self::Other(format!("{what}: {text}"))
        }
    }
}

/// An error and all its causes, in one line each; a verifier's log keeps only its end.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    const LINES_MAX: usize = 24;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LINES_MAX);
    if skipped == 0 {
        return text;
    }
    let end = lines.get(skipped..).unwrap_or_default().join("\n");
    format!("{}\n  … {skipped} lines …\n{end}", lines.first().unwrap_or(&""))
}
