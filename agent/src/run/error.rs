//! Why the agent does not run.

use super::PolicyError;
use crate::control::ControlError;
use crate::kernel::KernelError;
use crate::spool::SpoolError;

/// Why the agent could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing to load.
    #[error("this agent was built without the kernel programs; build it with `cargo xtask build`")]
    Stub,
    /// No place for events.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No good policy at the start.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The kernel does not take the programs.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel does not tell of devices.
    #[error("cannot listen to device events: {0}")]
    Devices(std::io::Error),
    /// The process's signals cannot be had.
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
}

impl RunError {
    /// The process's exit code: 1 failed, 64 configuration or policy, 69 kernel, 77 permission.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Policy(_) => 64,
            Self::Stub | Self::Kernel(KernelError::Unsupported(_)) => 69,
            Self::Kernel(KernelError::Permission(_)) => 77,
            Self::Spool(SpoolError::Storage { source, .. })
            | Self::Control(ControlError::Bind { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                77
            }
            _ => 1,
        }
    }
}
