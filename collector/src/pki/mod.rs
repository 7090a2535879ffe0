//! The collector's own certificate authority: `init` makes it, `enroll` uses it.
//!
//! Layout of the directory (mode 0700; keys 0600):
//! `ca.pem ca.key` the authority, `server.pem server.key` the collector, and by default
//! `agents/NAME/`, `viewers/NAME/`, `analysts/NAME/` and `admins/NAME/` with `ca.pem cert.pem
//! key.pem` for one peer each; `revoked` says whose certificates are refused.
//! `policy.key policy.pub` is the key that policies for the hosts are signed with.
//! `tokens/` has a file for each token of an enrolment that was not used yet.
//! `run` reads `ca.key` only when somebody enrols by token or renews, or for its own certificate;
//! it may be kept elsewhere when nobody does.

pub(crate) mod files;
mod issue;
mod revoked;
mod server;
mod tokens;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::{NameError, Role, check_name, own_host};
use crate::limits::{SENTENCE_BYTES_MAX, TOKENS_MAX};
use crate::policy::PUBLIC_FILE;
use files::{Mode, create_directory, read_text, write_new};
pub use issue::{Authority, Certified, Life, SigningRequest};
pub use revoked::{REVOKED_FILE, Revoked, let_in, let_in_after, revoke, supersede};
pub use server::renew_server;
pub use tokens::{Grant, Offer, issue_token, use_up};

/// Days that a peer's certificate is valid unless it is said: about two years.
pub const PEER_DAYS: u32 = 825;

/// Certificate of the authority, within the directory.
pub const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
/// The collector's certificate, within the directory.
pub const SERVER_FILE: &str = "server.pem";
/// The collector's key, within the directory.
pub const SERVER_KEY_FILE: &str = "server.key";

/// What `init` and `enroll` can stumble over.
#[derive(Debug, Error)]
pub enum PkiError {
    /// Nothing is ever overwritten.
    #[error(
        "{0} exists already and nothing is overwritten: choose another directory, or move the old \
         one away if its certificates are no longer wanted"
    )]
    Exists(PathBuf),
    /// `init` was not run there.
    #[error(
        "{0} does not exist: run `sekimori-collector init --dir {dir}` first",
        dir = .1.display()
    )]
    NotInitialised(PathBuf, PathBuf),
    /// The peer's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A `--name` that can be neither a host name nor an IP address.
    #[error("--name {0:?} is neither a host name nor an IP address")]
    ServerName(String),
    /// A file or directory.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The list of revoked certificates has a line that is none.
    #[error("{path}, line {line}: {source}", path = .path.display())]
    Revoked {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A reason that is too long.
    #[error("--reason has {0} bytes, at most {SENTENCE_BYTES_MAX}")]
    Reason(usize),
    /// `ca.key` belongs to no certificate in `ca.pem`.
    #[error(
        "the key of the authority ({CA_KEY_FILE}) belongs to no certificate in {CA_FILE}: put the \
         authority's certificate back beside those that others are to trust besides"
    )]
    OtherKey,
    /// A request for a certificate that is none.
    #[error("the request for a certificate cannot be used: {0}")]
    Request(String),
    /// A token that opens nothing. Which of the three it is, is nobody's business but the log's.
    #[error(
        "this token is unknown, was used before, or is out of date: make another one with \
         `sekimori-collector token NAME`"
    )]
    Token,
    /// Whoever wants to renew was refused in the meantime.
    #[error("the certificate that was to be renewed is revoked")]
    Refused,
    /// Too many tokens wait to be used.
    #[error(
        "there are {TOKENS_MAX} tokens that nobody used yet, which is the most: remove those that \
         are not needed from {dir}", dir = .0.display()
    )]
    Tokens(PathBuf),
    /// The collector's certificate was made by none of the authorities that peers trust.
    #[error("{SERVER_FILE} is signed by no certificate in {CA_FILE}: hosts would refuse it")]
    ServerUnsigned,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A key or certificate could not be made or understood.
    #[error("{what}: {source}")]
    Certificate {
        /// Which one.
        what: String,
        /// Why not.
        source: rcgen::Error,
    },
}

/// Makes the authority and the collector's certificate in `dir`, for localhost, this host's name
/// and `names` (host names or IP addresses).
///
/// # Errors
/// [`PkiError::Exists`] when there is one already; nothing is overwritten.
pub fn init(dir: &Path, names: &[String]) -> Result<(), PkiError> {
    let files = [CA_KEY_FILE, SERVER_KEY_FILE, SERVER_FILE, CA_FILE].map(|name| dir.join(name));
    for path in &files {
        if path.symlink_metadata().is_ok() {
            return Err(PkiError::Exists(path.clone()));
        }
    }
    let authority = Authority::new(&own_host())?;
    let server = authority.issue_server(&server_names(names))?;
    create_directory(dir)?;
    let [ca_key_path, server_key_path, server_path, ca_path] = &files;
    write_new(ca_key_path, &authority.key_pem(), Mode::Secret)?;
    write_new(server_key_path, &server.key_pem, Mode::Secret)?;
    write_new(server_path, &server.certified.certificate_pem, Mode::Public)?;
    write_new(ca_path, authority.bundle_pem(), Mode::Public)?;
    Ok(())
}

/// The authority of `dir` with its key.
///
/// # Errors
/// When it is not there, or not to be read.
pub fn authority(dir: &Path) -> Result<Authority, PkiError> {
    let (certificate, key) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
    for path in [&certificate, &key] {
        // What may not be looked at is there; reading it then says that it is not permitted.
        if path.try_exists().is_ok_and(|exists| !exists) {
            return Err(PkiError::NotInitialised(path.clone(), dir.to_owned()));
        }
    }
    Authority::load(&read_text(&certificate)?, &read_text(&key)?)
}

/// Makes a certificate for one peer and returns the directory that holds `ca.pem`, `cert.pem` and
/// `key.pem`: `out`, or `agents/NAME`, `analysts/NAME` and so on below `dir`.
///
/// # Errors
/// A bad name, no authority in `dir`, or a file in the way.
pub fn enroll(dir: &Path, name: &str, role: Role, out: Option<&Path>) -> Result<PathBuf, PkiError> {
    enroll_for(dir, name, role, Life::days(PEER_DAYS), out)
}

/// The same for another life than [`PEER_DAYS`].
///
/// # Errors
/// As [`enroll`].
pub fn enroll_for(
    dir: &Path,
    name: &str,
    role: Role,
    life: Life,
    out: Option<&Path>,
) -> Result<PathBuf, PkiError> {
    check_name(name)?;
    let authority = authority(dir)?;
    let out = out.map_or_else(|| dir.join(format!("{role}s")).join(name), Path::to_owned);
    let paths = ["key.pem", "cert.pem", "ca.pem"].map(|file| out.join(file));
    for path in &paths {
        if path.symlink_metadata().is_ok() {
            return Err(PkiError::Exists(path.clone()));
        }
    }
    let peer = authority.issue_peer(name, role, life)?;
    create_directory(&out)?;
    let [key_path, certificate_path, ca_path] = &paths;
    write_new(key_path, &peer.key_pem, Mode::Secret)?;
    write_new(certificate_path, &peer.certified.certificate_pem, Mode::Public)?;
    write_new(ca_path, authority.bundle_pem(), Mode::Public)?;
    if let (Role::Agent, Ok(key)) = (role, std::fs::read_to_string(dir.join(PUBLIC_FILE))) {
        publish(&out.join(PUBLIC_FILE), &key)?;
    }
    let_in(dir, name, role, &peer.certified.serial)?;
    Ok(out)
}

/// Whether `init` has made the directory.
///
/// # Errors
/// [`PkiError::NotInitialised`].
pub(crate) fn check_initialised(dir: &Path) -> Result<(), PkiError> {
    let authority = dir.join(CA_FILE);
    if authority.try_exists().is_ok_and(|exists| !exists) {
        return Err(PkiError::NotInitialised(authority, dir.to_owned()));
    }
    Ok(())
}

/// Puts a text that everybody may read into the place of `path`.
///
/// # Errors
/// When it cannot be written.
pub fn publish(path: &Path, text: &str) -> Result<(), PkiError> {
    files::replace(path, text, Mode::Public)
}

/// Gives a file to the owner of its directory: the collector must be able to read what root made.
///
/// # Errors
/// When it cannot be given.
pub fn belongs_to_owner(path: &Path) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { action: "give away", path: path.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(files::NO_LINK).open(path).map_err(failed)?;
    files::give_to_owner(&file, path.parent().unwrap_or(Path::new("."))).map_err(failed)
}

fn server_names(more: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for name in std::iter::once(own_host()).chain(more.iter().cloned()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests;
