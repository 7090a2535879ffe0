//! The collector's certificates while it runs: other files are taken up without a restart, its own
//! is renewed before it ends, and whoever should do something about it is told so every day.
//!
//! Each connection is accepted with the certificates of that moment; those that are open keep
//! theirs. Files that cannot be used change nothing.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant};

use crate::limits::{
    AUTHORITY_DAYS_LEFT, CERTIFICATE_DAYS_LEFT, CERTIFICATES_INTERVAL, SECONDS_A_DAY,
};
use crate::pki::{self, CA_FILE, SERVER_FILE, SERVER_KEY_FILE};
use crate::tls::{self, Loaded, TlsError, Validity};

/// What new connections are accepted with.
pub type Certificates = watch::Receiver<Arc<ServerConfig>>;

/// Keeps them up to date.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    seen: Seen,
    /// The files are being changed: they are read when they have been still for a moment.
    moving: bool,
    sender: watch::Sender<Arc<ServerConfig>>,
    validity: Validity,
    authority: Validity,
    look_at_end: Instant,
}

/// What tells that a file is another one: inode, size, time of the last change.
type Seen = [Option<(u64, u64, i64, i64)>; 3];

/// What is to be done about the end of the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Nothing yet.
    Nothing,
    /// A new one, for less than a third of its life is left.
    Renewal,
}

/// Reads the files for the first time.
///
/// # Errors
/// [`TlsError`] says which file is missing or bad.
pub fn begin(dir: &Path) -> Result<(Certificates, Follower), TlsError> {
    let seen = look(dir);
    let Loaded { config, validity, authority } = tls::load(dir)?;
    let (sender, receiver) = watch::channel(config);
    let (dir, look_at_end, moving) = (dir.to_owned(), Instant::now(), false);
    let follower = Follower { dir, seen, moving, sender, validity, authority, look_at_end };
    Ok((receiver, follower))
}

impl Follower {
    /// Looks at the files until nobody wants to know.
    pub async fn follow(mut self) {
        loop {
            if Instant::now() >= self.look_at_end {
                self.look_at_end = Instant::now() + Duration::from_secs(SECONDS_A_DAY);
                self.mind_the_end().await;
            }
            tokio::select! {
                () = time::sleep(CERTIFICATES_INTERVAL) => {}
                () = self.sender.closed() => return,
            }
            let seen = look(&self.dir);
            if seen != self.seen {
                (self.seen, self.moving) = (seen, true);
            } else if std::mem::take(&mut self.moving) {
                self.read();
            }
        }
    }

    fn read(&mut self) {
        match tls::load(&self.dir) {
            Ok(Loaded { validity, .. })
                if validity.until_s <= jiff::Timestamp::now().as_second() =>
            {
                let until = validity.until();
                tracing::error!("the new certificate ENDED at {until}: the one before stays");
            }
            Ok(Loaded { config, validity, authority }) => {
                tracing::info!(
                    until = %validity.until(),
                    "the collector has other certificates; new connections are shown them"
                );
                (self.validity, self.authority) = (validity, authority);
                self.sender.send_replace(config);
            }
            Err(error) => tracing::error!(
                %error,
                "the new certificates CANNOT BE USED and those before stay: mend the files; a \
                 restart would fail"
            ),
        }
    }

    /// Renews the collector's own certificate, or tells of its end.
    async fn mind_the_end(&mut self) {
        let now = jiff::Timestamp::now().as_second();
        let left = days(self.authority.until_s.saturating_sub(now));
        if left < AUTHORITY_DAYS_LEFT {
            let until = self.authority.until();
            tracing::warn!(
                "the authority ends in {left} days, at {until}, and every certificate with it: put \
                 a new one in front of it in {CA_FILE}, so that hosts hear of it in time"
            );
        }
        if due(&self.validity, now) == Due::Nothing {
            return;
        }
        let dir = self.dir.clone();
        let renewed = spawn_blocking(move || pki::renew_server(&dir)).await;
        let reason = match renewed {
            Ok(Ok(certified)) => {
                let serial = certified.serial;
                tracing::info!(serial, "the collector's own certificate was renewed");
                self.seen = look(&self.dir);
                return self.read();
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let days = days(self.validity.until_s.saturating_sub(now));
        let until = self.validity.until();
        if days < CERTIFICATE_DAYS_LEFT {
            tracing::warn!(
                reason,
                "the collector's certificate ends in {days} days, at {until}, and cannot be renewed \
                 here: NO HOST WILL DELIVER AFTER THAT. Put {CA_FILE}'s key back for a day, or \
                 replace {SERVER_FILE} and {SERVER_KEY_FILE}"
            );
        } else {
            tracing::info!(
                reason,
                "the collector's certificate ends at {until}; it is not renewed"
            );
        }
    }
}

const fn days(seconds: i64) -> i64 {
    seconds / SECONDS_A_DAY.cast_signed()
}

fn due(validity: &Validity, now_s: i64) -> Due {
    let life = validity.until_s.saturating_sub(validity.from_s);
    let left = validity.until_s.saturating_sub(now_s);
    if left < life / 3 { Due::Renewal } else { Due::Nothing }
}

fn look(dir: &Path) -> Seen {
    [CA_FILE, SERVER_FILE, SERVER_KEY_FILE].map(|name| {
        let file = metadata(dir.join(name)).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, Due::Nothing)]
    #[case(200, Due::Nothing)]
    #[case(201, Due::Renewal)]
    #[case(400, Due::Renewal)]
    fn a_third_of_its_life(#[case] now_s: i64, #[case] expected: Due) {
        assert_eq!(due(&Validity { from_s: 0, until_s: 300 }, now_s), expected);
    }

    #[test]
    fn a_renewed_certificate_has_the_same_names_and_key() {
        let dir = tempfile::tempdir().unwrap();
        pki::init(dir.path(), &["花.example".to_owned()]).unwrap_err();
        pki::init(dir.path(), &["collector.example".to_owned(), "2001:db8::7".to_owned()]).unwrap();
        let names = || {
            let text = std::fs::read(dir.path().join(SERVER_FILE)).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            let key = certificate.public_key().raw.to_vec();
            (format!("{:?}", names.value.general_names), key)
        };
        let before = names();
        let key = std::fs::read(dir.path().join(SERVER_KEY_FILE)).unwrap();
        let text = std::fs::read(dir.path().join(SERVER_FILE)).unwrap();
        pki::renew_server(dir.path()).unwrap();
        assert_eq!(names(), before);
        assert_eq!(std::fs::read(dir.path().join(SERVER_KEY_FILE)).unwrap(), key);
        assert_ne!(std::fs::read(dir.path().join(SERVER_FILE)).unwrap(), text);
        tls::load(dir.path()).unwrap();
    }
}
