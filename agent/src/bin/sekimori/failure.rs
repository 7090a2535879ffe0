//! How a command ends when it does not end well.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Exit code for a command line or file that makes no sense.
pub const USAGE: u8 = 64;
/// Exit code for a policy with errors, and for records that are not as they were signed.
pub const FINDING: u8 = 2;
/// Exit code for a kernel that cannot do the job.
pub const UNSUPPORTED: u8 = 69;
/// Exit code for a lack of permission.
pub const PERMISSION: u8 = 77;

/// What went wrong and the exit code that says so. An empty message was already told.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    pub fn permission(message: impl Into<String>) -> Self {
        Self { code: PERMISSION, message: message.into() }
    }

    /// The reason is on the screen already.
    pub const fn told(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    pub const fn code(&self) -> u8 {
        self.code
    }

    /// Says it on stderr.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            anstream::eprintln!("sekimori: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Only from writing results. Whoever reads them may stop when they have seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::told(0),
            _ => Self::failed(format!("cannot write the result: {error}")),
        }
    }
}
