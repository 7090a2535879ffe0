//! Operators: one type for each thing that a rank may do.
//!
//! A handler asks for the least rank that may do its work, and hands the value on to what does it.
//! A higher one becomes a lower one by `into`; the other way there is only a question
//! ([`Viewer::analyst`]).

use std::fmt;
use std::net::SocketAddr;

use tonic::{Request, Status};

use super::{Peer, Rank, Shown};

/// Someone who asks the collector. This says who they are, not what they may do: what a handler
/// can be given by a request is a [`Viewer`], an [`Analyst`] or an [`Admin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    name: String,
    rank: Rank,
    address: Option<SocketAddr>,
    shown: Option<Shown>,
}

/// May see how the hosts stand, and counts that tell nothing of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer(Operator);

/// May read every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analyst(Operator);

/// May change things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin(Operator);

impl Operator {
    pub(super) fn new(name: &str, rank: Rank) -> Operator {
        Operator { name: name.to_owned(), rank, address: None, shown: None }
    }

    pub(super) fn showing(self, shown: Shown) -> Operator {
        Operator { shown: Some(shown), ..self }
    }

    /// The collector itself, which reads what it countersigns and shows nobody.
    pub(crate) fn collector() -> Operator {
        Operator::new("collector", Rank::Admin)
    }

    /// An operator out of nothing, for tests of the store.
    #[cfg(test)]
    pub(crate) fn for_test() -> Operator {
        Operator::new("test", Rank::Admin)
    }

    pub(super) fn at(self, address: SocketAddr) -> Operator {
        let shown = self.shown.map(|shown| Shown { address: Some(address), ..shown });
        Operator { address: Some(address), shown, ..self }
    }

    /// The name in their certificate, or `uid N` on the unix socket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What their certificate lets them do.
    pub const fn rank(&self) -> Rank {
        self.rank
    }

    /// Where they connected from; nothing on the unix socket.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The certificate that they showed; none on the unix socket.
    pub const fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// The operator that makes this call, if they have this rank or a higher one.
    fn of<T>(request: &Request<T>, least: Rank) -> Result<Operator, Status> {
        let peer = Peer::of(request)?;
        match peer {
            Peer::Operator(operator) | Peer::Local(operator, _) if operator.rank >= least => {
                Ok(operator.clone())
            }
            peer => Err(refusal(peer, least)),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.rank, self.name)
    }
}

fn refusal(who: &dyn fmt::Display, least: Rank) -> Status {
    let what = match least {
        Rank::Viewer => "ask how the hosts stand",
        Rank::Analyst => "read records",
        Rank::Admin => "change anything",
    };
    Status::permission_denied(format!(
        "{who} may not {what}: that takes a certificate with the role {least} or a higher one \
         (`sekimori-collector enroll NAME --role {least}`)"
    ))
}

impl Viewer {
    /// The operator that makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is no operator.
    pub fn of<T>(request: &Request<T>) -> Result<Viewer, Status> {
        Operator::of(request, Rank::Viewer).map(Viewer)
    }

    /// The same one as an analyst.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when they are none.
    pub fn analyst(&self) -> Result<Analyst, Status> {
        if self.0.rank >= Rank::Analyst {
            return Ok(Analyst(self.0.clone()));
        }
        Err(refusal(&self.0, Rank::Analyst))
    }

    /// Who they are.
    pub const fn operator(&self) -> &Operator {
        &self.0
    }
}

impl Analyst {
    /// The operator that makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is no analyst.
    pub fn of<T>(request: &Request<T>) -> Result<Analyst, Status> {
        Operator::of(request, Rank::Analyst).map(Analyst)
    }

    /// Who they are.
    pub const fn operator(&self) -> &Operator {
        &self.0
    }
}

impl Admin {
    /// The operator that makes this call.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it is no admin.
    pub fn of<T>(request: &Request<T>) -> Result<Admin, Status> {
        Operator::of(request, Rank::Admin).map(Admin)
    }

    /// Who they are.
    pub const fn operator(&self) -> &Operator {
        &self.0
    }
}

impl From<Admin> for Analyst {
    fn from(admin: Admin) -> Analyst {
        Analyst(admin.0)
    }
}

impl From<Admin> for Viewer {
    fn from(admin: Admin) -> Viewer {
        Viewer(admin.0)
    }
}

impl From<Analyst> for Viewer {
    fn from(analyst: Analyst) -> Viewer {
        Viewer(analyst.0)
    }
}
