//! What a certificate lets its holder do.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What every identity begins with.
const PREFIX: &str = "sekimori:";

/// What an operator may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Sees how the hosts stand, and counts that tell nothing of people.
    Viewer,
    /// Reads every record.
    Analyst,
    /// Changes things.
    Admin,
}

/// Role that a certificate gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Delivers events.
    Agent,
    /// Asks the collector.
    Operator(Rank),
}

/// A word that is no rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected viewer, analyst or admin")]
pub struct RankError;

impl Rank {
    /// All of them, the least first.
    pub const ALL: [Rank; 3] = [Rank::Viewer, Rank::Analyst, Rank::Admin];

    /// The word in a certificate and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Rank::Viewer => "viewer",
            Rank::Analyst => "analyst",
            Rank::Admin => "admin",
        }
    }
}

impl FromStr for Rank {
    type Err = RankError;

    fn from_str(text: &str) -> Result<Rank, RankError> {
        Rank::ALL.into_iter().find(|rank| rank.word() == text).ok_or(RankError)
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl Role {
    /// The URI that stands in a certificate.
    pub fn uri(self, name: &str) -> String {
        format!("{PREFIX}{self}:{name}")
    }

    /// The role in such a URI, and the name, which may still be any text.
    pub(super) fn from_uri(uri: &str) -> Option<(Role, &str)> {
        let (role, name) = uri.strip_prefix(PREFIX)?.split_once(':')?;
        Some((role.parse().ok()?, name))
    }
}

/// A word that is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected agent, viewer, analyst or admin")]
pub struct RoleError;

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        match text {
            "agent" => Ok(Role::Agent),
            rank => rank.parse().map(Role::Operator).map_err(|RankError| RoleError),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Agent => formatter.write_str("agent"),
            Role::Operator(rank) => rank.fmt(formatter),
        }
    }
}
