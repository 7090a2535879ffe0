//! Who is at the other end.
//!
//! A peer's certificate carries exactly one URI name, `sekimori:ROLE:NAME` with one of the roles
//! agent, viewer, analyst and admin; nothing in a message says who someone is. [`Agent`],
//! [`Operator`], [`Viewer`], [`Analyst`] and [`Admin`] can be made only here, and what reads or
//! writes asks for one of them: a handler that forgets to ask who is calling, or whether they may,
//! does not compile. Whoever shows no certificate is a [`Stranger`], of whom none of these is made.

mod holder;
mod operator;
mod role;

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::limits::PEER_NAME_MAX;
pub use holder::{Caller, Holder, Shown, Stranger};
pub use operator::{Admin, Analyst, Operator, Viewer};
pub use role::{Rank, RankError, Role, RoleError};

/// A host that delivers events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    name: String,
    shown: Option<Shown>,
}

/// Whoever opened the connection, by certificate or on the unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Certificate of an agent.
    Agent(Agent),
    /// Certificate of an operator, whatever their rank.
    Operator(Operator),
    /// Root or the collector's own user on the unix socket, who are admins. Root may also deliver
    /// this host's own events: it could write the store itself.
    Local(Operator, Option<Agent>),
}

/// A name that cannot be an agent's or operator's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "name {name:?}: a name is 1 to {PEER_NAME_MAX} characters of a-z A-Z 0-9 . _ - and begins with \
     a letter or digit, as host names do"
)]
pub struct NameError {
    name: String,
}

/// A certificate, or its lack, that says nothing of who the peer is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Nothing was presented.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Not parsable as X.509.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(String),
    /// Not exactly one identity inside.
    #[error(
        "the peer's certificate holds {0} names of the form sekimori:ROLE:NAME, with a role of \
         agent, viewer, analyst or admin, expected 1: was it made by `sekimori-collector enroll`?"
    )]
    Count(usize),
    /// The name inside is not one that `enroll` gives.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// This host's name, as far as it is one; it names the events that root delivers on the unix socket.
pub fn own_host() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Refuses what is not 1 to 64 host-name characters: the name becomes a file name, a URI and the
/// `host` of every event.
///
/// # Errors
/// [`NameError`] says what is allowed.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= PEER_NAME_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(NameError { name: name.chars().take(2 * PEER_NAME_MAX).collect() })
}

impl Peer {
    /// Reads the peer from its DER certificate. The chain was verified by TLS before.
    ///
    /// # Errors
    /// [`IdentityError`] when there is not exactly one identity inside.
    pub fn from_certificate(der: &[u8]) -> Result<Peer, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris.as_slice() else {
            return Err(IdentityError::Count(uris.len()));
        };
        let (role, name) = Role::from_uri(uri).ok_or(IdentityError::Count(0))?;
        check_name(name)?;
        let shown = Shown::new(&certificate);
        Ok(match role {
            Role::Agent => Peer::Agent(Agent { name: name.to_owned(), shown: Some(shown) }),
            Role::Operator(rank) => Peer::Operator(Operator::new(name, rank).showing(shown)),
        })
    }

    /// The same peer, and where it connected from.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Peer {
        match self {
            Peer::Operator(operator) => Peer::Operator(operator.at(address)),
            Peer::Agent(mut agent) => {
                if let Some(shown) = &mut agent.shown {
                    shown.address = Some(address);
                }
                Peer::Agent(agent)
            }
            peer @ Peer::Local(..) => peer,
        }
    }

    /// The certificate that they showed; none on the unix socket.
    pub fn shown(&self) -> Option<&Shown> {
        match self {
            Peer::Agent(agent) => agent.shown(),
            Peer::Operator(operator) => operator.shown(),
            Peer::Local(..) => None,
        }
    }

    /// What a revocation calls the peer's certificate; none on the unix socket.
    pub fn identity(&self) -> Option<String> {
        match self {
            Peer::Agent(agent) => Some(Role::Agent.uri(&agent.name)),
            Peer::Operator(operator) => Some(Role::Operator(operator.rank()).uri(operator.name())),
            Peer::Local(..) => None,
        }
    }

    /// Someone on the unix socket: an admin if it is root or runs as `own_uid`, else nobody. Root is
    /// also the agent of `host`.
    pub fn from_local_uid(uid: u32, own_uid: u32, host: &str) -> Option<Peer> {
        let operator = Operator::new(&format!("uid {uid}"), Rank::Admin);
        let agent = || Agent { name: host.to_owned(), shown: None };
        (uid == 0 || uid == own_uid).then(|| Peer::Local(operator, (uid == 0).then(agent)))
    }

    fn of<T>(request: &Request<T>) -> Result<&Peer, Status> {
        match request.extensions().get() {
            Some(Caller::Known(peer)) => Ok(peer),
            Some(Caller::Stranger(_)) | None => Err(Status::unauthenticated(
                "this connection carries no identity: show a certificate (`sekimori-collector \
                 token NAME`, then enrol with it)",
            )),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Agent(agent) => write!(formatter, "agent {}", agent.name),
            Peer::Operator(operator) | Peer::Local(operator, _) => {
                write!(formatter, "{operator}")
            }
        }
    }
}

impl Agent {
    /// The agent that makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is someone else.
    pub fn of<T>(request: &Request<T>) -> Result<Agent, Status> {
        match Peer::of(request)? {
            Peer::Agent(agent) | Peer::Local(_, Some(agent)) => Ok(agent.clone()),
            peer => Err(Status::permission_denied(format!(
                "{peer} may not deliver events: only an agent's certificate may \
                 (`sekimori-collector enroll NAME`)"
            ))),
        }
    }

    /// The name in its certificate, which is the `host` of its events.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate that it showed; none on the unix socket.
    pub const fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// The collector itself on this host, as the author of its own records. The colon keeps it apart
    /// from every agent: no certificate is given for such a name.
    pub fn collector() -> Agent {
        Agent { name: format!("collector:{}", own_host()), shown: None }
    }

    /// An agent out of nothing, for tests of the store.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str) -> Agent {
        Agent { name: name.to_owned(), shown: None }
    }
}

#[cfg(test)]
mod tests;
