//! Who is refused, while the collector runs: the file is looked at again and again, and whoever
//! was revoked loses the connections that are open.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time;

use crate::limits::REVOKED_INTERVAL;
use crate::pki::{PkiError, REVOKED_FILE, Revoked};

/// A certificate, as a revocation names it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// `sekimori:ROLE:NAME`.
    pub identity: String,
    /// Its serial number, as hexadecimal digits.
    pub serial: String,
}

/// Who is refused now.
#[derive(Clone, Debug)]
pub struct Revocations(watch::Receiver<Arc<Revoked>>);

/// Keeps [`Revocations`] up to date.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    seen: Seen,
    sender: watch::Sender<Arc<Revoked>>,
}

/// What tells that the file is another one, or longer: inode, size, time of the last change.
type Seen = Option<(u64, u64, i64, i64)>;

/// Reads the file for the first time.
///
/// # Errors
/// When it is not understood: nobody is let in by mistake.
pub fn begin(dir: &Path) -> Result<(Revocations, Follower), PkiError> {
    let seen = look(dir);
    let (sender, receiver) = watch::channel(Arc::new(Revoked::read(dir)?));
    Ok((Revocations(receiver), Follower { dir: dir.to_owned(), seen, sender }))
}

impl Revocations {
    /// Whether a certificate is refused.
    pub fn refuse(&self, certificate: &Certificate) -> bool {
        self.0.borrow().refuses(&certificate.identity, &certificate.serial)
    }

    /// Returns when the certificate is refused.
    pub async fn refused(mut self, certificate: Certificate) {
        let refuses =
            |list: &Arc<Revoked>| list.refuses(&certificate.identity, &certificate.serial);
        if self.0.wait_for(refuses).await.is_err() {
            // Nobody looks any more, since the collector stops.
            std::future::pending::<()>().await;
        }
    }
}

impl Follower {
    /// Looks at the file until nobody wants to know.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                () = time::sleep(REVOKED_INTERVAL) => {}
                () = self.sender.closed() => return,
            }
            let seen = look(&self.dir);
            if seen == self.seen {
                continue;
            }
            self.seen = seen;
            match Revoked::read(&self.dir) {
                Ok(revoked) => {
                    tracing::info!("the list of revoked certificates is another one");
                    self.sender.send_replace(Arc::new(revoked));
                }
                Err(error) => {
                    tracing::error!(%error, "who was revoked before stays so, and nobody else is");
                }
            }
        }
    }
}

fn look(dir: &Path) -> Seen {
    let file = metadata(dir.join(REVOKED_FILE)).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}
