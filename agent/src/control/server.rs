//! The agent's end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Answer, ControlError, Request};
use crate::limits::{CONTROL_CLIENTS_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_TIMEOUT};

/// A request on its way to the agent's loop, and the way back.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// Makes the socket. A socket file on which nobody answers is left from a crash and replaced.
///
/// # Errors
/// When another agent answers there, or the file cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::InUse { path: path.into() });
    }
    let failed = |source| ControlError::Bind { path: path.into(), source };
    match fs::symlink_metadata(path) {
        Ok(facts) if std::os::unix::fs::FileTypeExt::is_socket(&facts.file_type()) => {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => return Err(failed(io::Error::other("there is a file that is no socket"))),
        Err(_) => {}
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Until this line others may connect; the check of the peer refuses them.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers until the other end of `commands` is gone. More than [`CONTROL_CLIENTS_MAX`] callers
/// wait in the listener's own queue.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let places = Arc::new(Semaphore::new(CONTROL_CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a local command could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if commands.is_closed() {
            return;
        }
        let commands = commands.clone();
        tokio::spawn(async move {
            let _place = place;
            match timeout(CONTROL_TIMEOUT, one(stream, commands)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a local command broke off"),
                Err(_) => tracing::debug!("a local command took too long"),
            }
        });
    }
}

async fn one(stream: UnixStream, commands: mpsc::Sender<Command>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    let answer = if peer == 0 || peer == nix::unistd::geteuid().as_raw() {
        let limit = u64::try_from(CONTROL_REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
        let mut line = Vec::new();
        BufReader::new(read.take(limit + 1)).read_until(b'\n', &mut line).await?;
        answer_to(&line, commands).await
    } else {
        refused(format!("uid {peer} may not command the agent, only root may"))
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    write.shutdown().await
}

async fn answer_to(line: &[u8], commands: mpsc::Sender<Command>) -> Answer {
    if line.len() > CONTROL_REQUEST_BYTES_MAX {
        return refused(format!("a request has at most {CONTROL_REQUEST_BYTES_MAX} bytes"));
    }
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return refused(format!("not a request: {error}")),
    };
    let (answer, wait) = oneshot::channel();
    if commands.send(Command { request, answer }).await.is_err() {
        return refused("the agent is stopping".to_owned());
    }
    wait.await.unwrap_or_else(|_| refused("the agent is stopping".to_owned()))
}

fn refused(message: String) -> Answer {
    Answer { ok: false, message, ..Answer::default() }
}
