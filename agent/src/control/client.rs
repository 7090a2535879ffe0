//! The operator's end of the control socket.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Answer, ControlError, Request};
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_TIMEOUT};

/// Asks the agent that listens on `path`.
///
/// # Errors
/// When no agent answers within [`CONTROL_TIMEOUT`], or the answer is none. A command that the
/// agent refused is an answer, not an error.
pub fn ask(path: &Path, request: Request) -> Result<Answer, ControlError> {
    let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Permission { path: path.into() },
        _ => ControlError::Connect { path: path.into(), source },
    })?;
    let wrong = |reason: String| ControlError::Answer { path: path.into(), reason };
    let line = exchange(stream, request).map_err(|error| match error.kind() {
        // It listens before the kernel has checked its programs, and answers after that.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => wrong(format!(
            "nothing within {} s; it may still be starting",
            CONTROL_TIMEOUT.as_secs()
        )),
        _ => wrong(error.to_string()),
    })?;
    serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))
}

fn exchange(mut stream: UnixStream, request: Request) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
    stream.set_write_timeout(Some(CONTROL_TIMEOUT))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)?;
    let limit = u64::try_from(CONTROL_ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    stream.take(limit).read_to_end(&mut answer)?;
    Ok(answer)
}
