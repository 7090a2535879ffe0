//! The unix socket's file.
//!
//! Clients on the gRPC C core (Python, C++) send the socket's path as HTTP/2 `:authority`, which
//! the h2 crate refuses as malformed; they need the channel argument
//! `grpc.default_authority=localhost`.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket file that goes away with this value, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, i64, i64),
}

/// Inode numbers are used again at once; together with the time of the last change they are not.
fn identity(path: &Path) -> io::Result<(u64, i64, i64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Binds `path` for its owner only. What a dead collector left there is replaced; a socket that
/// someone listens on, or any other file, is not.
///
/// # Errors
/// As bind(2), or `AddrInUse`.
pub fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(metadata) = path.symlink_metadata() {
        let abandoned = metadata.file_type().is_socket()
            && UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if !abandoned {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "the path is taken by a living socket or another file",
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let identity = identity(path)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Nothing can be done about a file that does not go.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn only_an_abandoned_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        // Longer than the clock of a file system ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (_listener, second) = bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the first one's end leaves the second one's file");
        drop(second);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
