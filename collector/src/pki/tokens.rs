//! Tokens of enrolments that nobody used yet: the directory `tokens` in the collector's, with a
//! file for each, named by the token's identifier.
//!
//! The file has the SHA-256 of the secret, never the secret. It comes by a rename and goes by an
//! unlink: of two that use a token at the same time one unlinks, and the other finds nothing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sekimori_proto::token::Token;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::files::{Mode, create_own_directory, file_error, replace, sync_directory};
use super::server::issuer_hash;
use super::{PkiError, check_initialised};
use crate::identity::{Role, check_name};
use crate::limits::{TOKEN_FILE_BYTES_MAX, TOKENS_MAX};

/// Name of the directory, within the collector's.
const TOKENS_DIRECTORY: &str = "tokens";

/// What a token is to be good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Name of the host or operator.
    pub name: &'a str,
    /// Role of the certificate.
    pub role: Role,
    /// How long the token is good for.
    pub valid: Duration,
    /// Days that the certificate will be valid.
    pub days: u32,
    /// Who makes it, for the record of the enrolment.
    pub by: &'a str,
}

/// What a token was good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name of the host or operator.
    pub name: String,
    /// Role of the certificate.
    pub role: Role,
    /// Days that it is to be valid.
    pub days: u32,
    /// Who made the token.
    pub by: String,
}

/// The content of a file.
#[derive(Debug, Deserialize, Serialize)]
struct Document {
    secret_sha256: [u8; 32],
    name: String,
    role: String,
    days: u32,
    /// Milliseconds since 1970.
    expires_ms: i64,
    by: String,
}

/// Makes a token.
///
/// # Errors
/// A bad name, no authority in `dir`, too many tokens, or a file that cannot be written.
pub fn issue_token(dir: &Path, offer: &Offer<'_>) -> Result<Token, PkiError> {
    check_name(offer.name)?;
    check_initialised(dir)?;
    let mut token = Token { id: [0; 8], secret: [0; 32], authority: issuer_hash(dir)? };
    getrandom::fill(&mut token.id).map_err(PkiError::Random)?;
    getrandom::fill(&mut token.secret).map_err(PkiError::Random)?;
    let directory = dir.join(TOKENS_DIRECTORY);
    create_own_directory(dir, &directory)?;
    let now = Timestamp::now();
    if sweep(&directory, now)? >= TOKENS_MAX {
        return Err(PkiError::Tokens(directory));
    }
    let valid_ms = i64::try_from(offer.valid.as_millis()).unwrap_or(i64::MAX);
    let document = Document {
        secret_sha256: Sha256::digest(token.secret).into(),
        name: offer.name.to_owned(),
        role: offer.role.to_string(),
        days: offer.days,
        expires_ms: now.as_millisecond().saturating_add(valid_ms),
        by: offer.by.to_owned(),
    };
    let path = directory.join(token.name());
    let text = serde_json::to_string(&document);
    let text = text.map_err(|error| file_error("write", &path)(error.into()))?;
    replace(&path, &text, Mode::Secret)?;
    Ok(token)
}

/// Takes a token away, for good, and answers what it was good for.
///
/// # Errors
/// [`PkiError::Token`] when it is good for nothing, or a file that cannot be read or removed.
pub fn use_up(dir: &Path, token: &Token) -> Result<Grant, PkiError> {
    let refused = |reason: &str| {
        tracing::warn!(token = token.name(), reason, "a token was refused");
        PkiError::Token
    };
    let directory = dir.join(TOKENS_DIRECTORY);
    let path = directory.join(token.name());
    let document = match read(&path) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused("unknown")),
        Err(error) => return Err(file_error("read", &path)(error)),
    };
    // Before anything is taken away: who knows the identifier alone must not use it up.
    let hash: [u8; 32] = Sha256::digest(token.secret).into();
    if !bool::from(hash.ct_eq(&document.secret_sha256)) {
        return Err(refused("another secret"));
    }
    if document.expires_ms < Timestamp::now().as_millisecond() {
        return Err(refused("out of date"));
    }
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused("used by somebody else at the same time"));
        }
        Err(error) => return Err(file_error("remove", &path)(error)),
    }
    // A collector whose machine dies now must not find it again.
    sync_directory(&directory)?;
    let role = document.role.parse().map_err(|_| refused("its role is none"))?;
    check_name(&document.name)?;
    let Document { name, days, by, .. } = document;
    Ok(Grant { name, role, days, by })
}

/// Removes what is out of date and what cannot be read, and counts the rest.
fn sweep(directory: &Path, now: Timestamp) -> Result<usize, PkiError> {
    let failed = || file_error("read", directory);
    let mut count = 0;
    for entry in fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        // Another process may be about to write it.
        let unfinished = path.extension().is_some();
        if unfinished
            || read(&path).is_ok_and(|document| document.expires_ms >= now.as_millisecond())
        {
            count += 1;
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(count)
}

fn read(path: &Path) -> io::Result<Document> {
    let mut text = Vec::new();
    File::open(path)?.take(TOKEN_FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::Rank;
    use crate::pki::init;

    fn offer(name: &str) -> Offer<'_> {
        let valid = Duration::from_secs(3600);
        Offer { name, role: Role::Agent, valid, days: 30, by: "uid 0" }
    }

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[]).unwrap();
        dir
    }

    #[test]
    fn it_is_used_once_and_its_secret_is_nowhere() {
        let dir = dir();
        let token = issue_token(dir.path(), &offer("pc-1")).unwrap();
        let path = dir.path().join("tokens").join(token.name());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let secret = token.to_string();
        let secret = secret.split('-').nth(2).unwrap();
        assert!(!text.contains(secret) && text.contains("pc-1"), "{text}");
        let grant = use_up(dir.path(), &token).unwrap();
        let by = "uid 0".to_owned();
        assert_eq!(grant, Grant { name: "pc-1".into(), role: Role::Agent, days: 30, by });
        assert!(matches!(use_up(dir.path(), &token), Err(PkiError::Token)));
    }

    #[test]
    fn another_secret_leaves_it_and_time_does_not() {
        let dir = dir();
        let token = issue_token(dir.path(), &offer("pc-1")).unwrap();
        let wrong = Token { secret: [0; 32], ..token.clone() };
        assert!(matches!(use_up(dir.path(), &wrong), Err(PkiError::Token)));
        use_up(dir.path(), &token).unwrap();
        let role = Role::Operator(Rank::Admin);
        let past = Offer { valid: Duration::ZERO, role, ..offer("jiro") };
        let token = issue_token(dir.path(), &past).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(matches!(use_up(dir.path(), &token), Err(PkiError::Token)));
        // The next one takes it away.
        issue_token(dir.path(), &offer("pc-2")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tokens")).unwrap().count(), 1);
    }

    #[test]
    fn of_many_at_the_same_time_one_gets_it() {
        let dir = dir();
        for _ in 0..20 {
            let token = issue_token(dir.path(), &offer("pc-1")).unwrap();
            let got = std::thread::scope(|scope| {
                let tries: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| use_up(dir.path(), &token).is_ok())).collect();
                tries.into_iter().map(|it| it.join().unwrap()).filter(|it| *it).count()
            });
            assert_eq!(got, 1);
        }
    }

    #[test]
    fn a_bad_name_gets_none() {
        let dir = dir();
        let error = issue_token(dir.path(), &offer("端末")).unwrap_err();
        assert!(matches!(error, PkiError::Name(_)), "{error}");
        let missing = issue_token(&dir.path().join("x"), &offer("pc-1")).unwrap_err();
        assert!(missing.to_string().contains("sekimori-collector init"), "{missing}");
    }
}
