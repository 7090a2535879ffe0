//! Local commands: one JSON line up, one JSON line down, over a unix socket that only root may use.

mod client;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub use self::{
    client::ask,
    protocol::{
        Answer, CollectorStatus, FeatureStatus, KindCounters, PolicyStatus, Request, SpoolStatus,
        Status,
    },
    server::{Command, bind, serve},
};

use std::path::PathBuf;

/// Where the agent listens unless its configuration says otherwise.
pub const SOCKET_PATH: &str = "/run/sekimori/agent.sock";

/// What can go wrong on the control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket could not be made.
    #[error(
        "cannot listen for local commands on {}: {source}; check `control.socket` in the \
         configuration", path.display()
    )]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another agent answers there.
    #[error("another sekimori-agent answers on {}; stop that one first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// No agent answers.
    #[error(
        "no agent answers on {}: {source}; is sekimori-agent running (systemctl status \
         sekimori-agent)?", path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Only root may ask.
    #[error("the agent's socket {} is root's; run this command with sudo", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The agent's answer makes no sense.
    #[error("the agent on {} gave no proper answer: {reason}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
