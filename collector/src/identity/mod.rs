//! Who is at the other end.
//!
//! A peer's certificate carries exactly one URI name, `sekimori:agent:NAME` or
//! `sekimori:operator:NAME`; nothing in a message says who someone is. [`Agent`] and [`Operator`]
//! can be made only here, and the store asks for one of them wherever it is written or read: a
//! handler that forgets to ask who is calling does not compile.

use std::fmt;

use thiserror::Error;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::limits::PEER_NAME_MAX;

const AGENT_PREFIX: &str = "sekimori:agent:";
const OPERATOR_PREFIX: &str = "sekimori:operator:";

/// A host that delivers events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    name: String,
}

/// Someone who may read every event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    name: String,
}

/// Whoever opened the connection. The listener attaches it to every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Certificate of an agent.
    Agent(Agent),
    /// Certificate of an operator.
    Operator(Operator),
    /// Root or the collector's own user on the unix socket. Root may also deliver this host's own
    /// events: it could write the store itself.
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
        "the peer's certificate holds {0} names of the form sekimori:agent:NAME or \
         sekimori:operator:NAME, expected 1: was it made by `sekimori-collector enroll`?"
    )]
    Count(usize),
    /// The name inside is not one that `enroll` gives.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Role that a certificate gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Delivers events.
    Agent,
    /// Reads events.
    Operator,
}

impl Role {
    /// The URI that stands in a certificate.
    pub fn uri(self, name: &str) -> String {
        match self {
            Role::Agent => format!("{AGENT_PREFIX}{name}"),
            Role::Operator => format!("{OPERATOR_PREFIX}{name}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Role::Agent => "agent",
            Role::Operator => "operator",
        })
    }
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

/// The serial number of a DER certificate.
///
/// # Errors
/// [`IdentityError::Unreadable`].
pub fn serial_of(der: &[u8]) -> Result<String, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    Ok(certificate.raw_serial_as_string())
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
        if let Some(name) = uri.strip_prefix(AGENT_PREFIX) {
            check_name(name)?;
            return Ok(Peer::Agent(Agent { name: name.to_owned() }));
        }
        if let Some(name) = uri.strip_prefix(OPERATOR_PREFIX) {
            check_name(name)?;
            return Ok(Peer::Operator(Operator { name: name.to_owned() }));
        }
        Err(IdentityError::Count(0))
    }

    /// What a revocation calls the peer's certificate; none on the unix socket.
    pub fn identity(&self) -> Option<String> {
        match self {
            Peer::Agent(agent) => Some(Role::Agent.uri(&agent.name)),
            Peer::Operator(operator) => Some(Role::Operator.uri(&operator.name)),
            Peer::Local(..) => None,
        }
    }

    /// Someone on the unix socket: an operator if it is root or runs as `own_uid`, else nobody.
    /// Root is also the agent of `host`.
    pub fn from_local_uid(uid: u32, own_uid: u32, host: &str) -> Option<Peer> {
        let operator = Operator { name: format!("uid {uid}") };
        let agent = || Agent { name: host.to_owned() };
        (uid == 0 || uid == own_uid).then(|| Peer::Local(operator, (uid == 0).then(agent)))
    }

    fn of<T>(request: &Request<T>) -> Result<&Peer, Status> {
        request.extensions().get().ok_or_else(|| {
            Status::unauthenticated("this connection carries no identity; use a certificate")
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Agent(agent) => write!(formatter, "agent {}", agent.name),
            Peer::Operator(operator) | Peer::Local(operator, _) => {
                write!(formatter, "operator {}", operator.name)
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

    /// An agent out of nothing, for tests of the store.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str) -> Agent {
        Agent { name: name.to_owned() }
    }
}

impl Operator {
    /// The operator that makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is someone else.
    pub fn of<T>(request: &Request<T>) -> Result<Operator, Status> {
        match Peer::of(request)? {
            Peer::Operator(operator) | Peer::Local(operator, _) => Ok(operator.clone()),
            peer @ Peer::Agent(_) => Err(Status::permission_denied(format!(
                "{peer} may not read events: only an operator's certificate may \
                 (`sekimori-collector enroll NAME --operator`)"
            ))),
        }
    }

    /// The name in its certificate, or `uid N` on the unix socket.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    proptest! {
        #[test]
        fn garbage_is_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Peer::from_certificate(&bytes).is_err());
        }
    }

    #[rstest]
    #[case::plain("host-1.example_x", true)]
    #[case::longest(&"a".repeat(64), true)]
    #[case::empty("", false)]
    #[case::too_long(&"a".repeat(65), false)]
    #[case::up("..", false)]
    #[case::hidden(".ssh", false)]
    #[case::slash("a/b", false)]
    #[case::space("a b", false)]
    #[case::other_letters("端末", false)]
    #[case::colon("a:b", false)]
    fn names(#[case] name: &str, #[case] good: bool) {
        assert_eq!(check_name(name).is_ok(), good);
    }

    #[rstest]
    #[case::agent(&["sekimori:agent:h1"], Ok(Peer::Agent(Agent { name: "h1".into() })))]
    #[case::operator(
        &["sekimori:operator:o"],
        Ok(Peer::Operator(Operator { name: "o".into() }))
    )]
    #[case::none(&[], Err(IdentityError::Count(0)))]
    #[case::two(&["sekimori:agent:a", "sekimori:operator:b"], Err(IdentityError::Count(2)))]
    #[case::other(&["https://h1.example"], Err(IdentityError::Count(0)))]
    #[case::bad_name(
        &["sekimori:agent:../x"],
        Err(IdentityError::Name(NameError { name: "../x".into() }))
    )]
    fn certificates(#[case] uris: &[&str], #[case] expected: Result<Peer, IdentityError>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(Peer::from_certificate(certificate.der()), expected);
    }

    #[test]
    fn no_certificate_at_all() {
        let error = Peer::from_certificate(b"\x30\x03junk").unwrap_err();
        assert!(matches!(error, IdentityError::Unreadable(_)), "{error}");
    }

    #[test]
    fn only_root_and_the_own_user_are_local_operators() {
        assert!(Peer::from_local_uid(0, 990, "h").is_some());
        assert!(Peer::from_local_uid(990, 990, "h").is_some());
        assert_eq!(Peer::from_local_uid(1000, 990, "h"), None);
    }

    #[test]
    fn roles_do_not_mix() {
        let mut request = Request::new(());
        assert_eq!(Agent::of(&request).unwrap_err().code(), tonic::Code::Unauthenticated);
        request.extensions_mut().insert(Peer::Agent(Agent { name: "h1".into() }));
        assert_eq!(Agent::of(&request).unwrap().name(), "h1");
        assert_eq!(Operator::of(&request).unwrap_err().code(), tonic::Code::PermissionDenied);
        request.extensions_mut().insert(Peer::from_local_uid(0, 990, "h2").unwrap());
        assert_eq!(Operator::of(&request).unwrap().name(), "uid 0");
        assert_eq!(Agent::of(&request).unwrap().name(), "h2");
        request.extensions_mut().insert(Peer::from_local_uid(990, 990, "h2").unwrap());
        assert_eq!(Operator::of(&request).unwrap().name(), "uid 990");
        assert_eq!(Agent::of(&request).unwrap_err().code(), tonic::Code::PermissionDenied);
    }
}
