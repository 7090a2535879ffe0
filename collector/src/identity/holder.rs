//! Certificates: who shows one, and who shows none yet.
//!
//! A [`Stranger`] is whoever opened a connection without a certificate. Nothing but an enrolment
//! takes one, and no other identity is ever made of it.

use std::fmt;
use std::net::SocketAddr;

use tonic::{Request, Status};
use x509_parser::prelude::X509Certificate;

use super::{Peer, Role};

/// Facts of a certificate that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its serial number, as a revocation names it.
    pub serial: String,
    /// Seconds since 1970 from which on it is valid.
    pub from_s: i64,
    /// Seconds since 1970 of its end.
    pub until_s: i64,
    /// Where whoever shows it connected from.
    pub address: Option<SocketAddr>,
}

impl Shown {
    pub(super) fn new(certificate: &X509Certificate<'_>) -> Shown {
        let validity = certificate.validity();
        Shown {
            serial: certificate.raw_serial_as_string(),
            from_s: validity.not_before.timestamp(),
            until_s: validity.not_after.timestamp(),
            address: None,
        }
    }
}

/// Whoever has a certificate, whatever its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    name: String,
    role: Role,
    shown: Shown,
}

impl Holder {
    /// Who makes this call, by their certificate.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when they have none.
    pub fn of<T>(request: &Request<T>) -> Result<Holder, Status> {
        let (name, role, shown) = match Peer::of(request)? {
            Peer::Agent(agent) => (agent.name(), Role::Agent, agent.shown()),
            Peer::Operator(operator) => {
                (operator.name(), Role::Operator(operator.rank()), operator.shown())
            }
            Peer::Local(..) => return Err(none("this is the collector's unix socket")),
        };
        let shown = shown.ok_or_else(|| none("none was shown"))?.clone();
        Ok(Holder { name: name.to_owned(), role, shown })
    }

    /// The name in the certificate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The role in it.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What else it says.
    pub const fn shown(&self) -> &Shown {
        &self.shown
    }
}

fn none(why: &str) -> Status {
    Status::permission_denied(format!("a renewal takes the certificate that is renewed: {why}"))
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.role, self.name)
    }
}

/// Someone who showed no certificate. The listener attaches it instead of a [`Peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    address: SocketAddr,
}

impl Stranger {
    pub(super) const fn new(address: SocketAddr) -> Stranger {
        Stranger { address }
    }

    /// Who makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when they have an identity already.
    pub fn of<T>(request: &Request<T>) -> Result<Stranger, Status> {
        match request.extensions().get() {
            Some(Caller::Stranger(stranger)) => Ok(*stranger),
            _ => Err(Status::permission_denied(
                "whoever has a certificate, or asks on the unix socket, does not enrol: `Renew` \
                 makes a new certificate",
            )),
        }
    }

    /// Where they connected from.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Who is at the other end of a connection, as the listener attaches it to every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Someone who is known.
    Known(Peer),
    /// Someone without a certificate.
    Stranger(Stranger),
}

impl Caller {
    /// Someone without a certificate.
    pub const fn stranger(address: SocketAddr) -> Caller {
        Caller::Stranger(Stranger::new(address))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Known(peer) => peer.fmt(formatter),
            Caller::Stranger(stranger) => write!(formatter, "a stranger at {}", stranger.address),
        }
    }
}
