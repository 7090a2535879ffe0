//! What the guest prints, one JSON object a line.

use serde::{Deserialize, Serialize};

/// The setup that others are compared with.
pub const BASE: &str = "nothing";
/// What a program on the operation's hook costs at least.
pub const FLOOR: &str = "an empty program";
/// Agent and collector at work, with the smallest of the policies.
pub const USUAL: &str = "10 rules";
/// The same without delivery.
pub const TO_THE_SPOOL: &str = "10 rules, to the spool";
/// The same with USB memory plugged.
pub const STICK: &str = "10 rules, stick";
/// With as many rules as a policy may well have.
pub const MANY: &str = "10000 rules";

/// Instructions for one operation in one setup.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Measured {
    pub setup: String,
    pub operation: String,
    /// How often it was done.
    pub count: u64,
    /// Instructions each, in the operation's own context.
    pub kernel: f64,
    /// Instructions each of the agent.
    pub agent: f64,
    /// Instructions each of the collector.
    pub collector: f64,
    /// Records that were lost meanwhile, where it is known.
    pub lost: Option<u64>,
}

/// What monitors need beside the operations, and how much they bear.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Idle {
        setup: String,
        /// Of one CPU.
        agent_percent: f64,
        agent_resident_kib: u64,
        agent_anonymous_kib: u64,
        agent_shared_kib: u64,
        agent_peak_kib: u64,
        collector_resident_kib: Option<u64>,
    },
    /// Recorded opens, as fast as one program can.
    Flood { setup: String, opens: u64, emitted: u64, lost: u64, agent_peak_kib: u64 },
    /// As many programs at once as it takes until something is lost, or as were tried.
    FirstLoss { setup: String, rounds: Vec<Round> },
    Verifier {
        setup: String,
        /// Hook and instructions, most first.
        verified: Vec<(String, u64)>,
    },
}

/// Opens by several programs at once.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct Round {
    pub writers: u64,
    pub opens: u64,
    pub lost: u64,
}

/// All figures of one run.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    pub operations: Vec<Measured>,
    pub states: Vec<State>,
}

impl Measured {
    /// Everything that the operation makes somebody do.
    pub fn total(&self) -> f64 {
        self.kernel + self.agent + self.collector
    }
}

impl Figures {
    /// Takes what can be read of the lines.
    pub fn add(&mut self, lines: &[String]) {
        self.operations.extend(lines.iter().filter_map(|line| serde_json::from_str(line).ok()));
        self.states.extend(lines.iter().filter_map(|line| serde_json::from_str(line).ok()));
    }

    pub fn of(&self, operation: &str, setup: &str) -> Option<&Measured> {
        self.operations.iter().find(|one| one.operation == operation && one.setup == setup)
    }

    /// Names in the order in which they were measured.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for one in &self.operations {
            if !names.contains(&one.operation.as_str()) {
                names.push(one.operation.as_str());
            }
        }
        names
    }

    /// What `figure` of a setup has more than an operation without a monitor.
    pub fn added(
        &self,
        operation: &str,
        setup: &str,
        base: &str,
        figure: impl Fn(&Measured) -> f64,
    ) -> Option<f64> {
        Some(figure(self.of(operation, setup)?) - self.of(operation, base)?.kernel)
    }
}
