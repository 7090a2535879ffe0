//! The policy file: read, compiled, and compiled again when the people it names change.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sekimori_abi::table::SET_NONE;
use sekimori_policy::{
    Action, Compiled, Finding, Isolation, Mode, RESERVED, RuleFacts, SystemDirectory,
};
use sekimori_proto::v1::PolicyText;
use sha2::{Digest as _, Sha256};

use crate::control::PolicyStatus;
use crate::limits::{POLICY_BYTES_MAX, POLICY_TEXT_BYTES_MAX};
use crate::record::{RuleBook, RuleFact};

/// Files whose change may give a name in the policy another uid.
const PEOPLE: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file could not be read.
    #[error("cannot read the policy {}: {source}; give its path with --policy", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too long to be a policy.
    #[error("the policy {} is longer than {POLICY_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It has errors.
    #[error("the policy {} has errors:\n{}", path.display(), findings.join("\n"))]
    Findings {
        /// The file.
        path: PathBuf,
        /// `FILE:LINE:COLUMN: …`.
        findings: Vec<String>,
    },
}

/// A policy that compiled, and its warnings.
pub(super) struct Loaded {
    pub compiled: Compiled,
    pub warnings: Vec<String>,
    source: Vec<u8>,
    /// Where it comes from.
    origin: PathBuf,
    people: [Option<SystemTime>; 2],
}

/// The policy in force and where it comes from.
pub(super) struct Keeper {
    path: PathBuf,
    recorded_kinds: u32,
    generation: u32,
    source: Vec<u8>,
    origin: PathBuf,
    people: [Option<SystemTime>; 2],
    status: PolicyStatus,
    mode: &'static str,
    /// The host is cut off, whatever the policy says.
    isolation: Option<Isolation>,
}

impl Keeper {
    pub fn new(path: PathBuf, recorded_kinds: u32) -> Self {
        let status = PolicyStatus { file: path.clone(), ..PolicyStatus::default() };
        Self {
            origin: path.clone(),
            path,
            recorded_kinds,
            generation: 0,
            source: Vec::new(),
            people: [None; 2],
            status,
            mode: mode(&[]),
            isolation: None,
        }
    }

    /// Other agents have had policies in force up to this generation; the next is numbered behind
    /// it, and so is one that was loaded already.
    pub fn continue_from(&mut self, generation: u32, loaded: &mut Loaded) {
        self.generation = generation;
        loaded.compiled.tables.set_generation(generation.saturating_add(1));
    }

    /// Reads and compiles the file as the next generation. Nothing is in force yet.
    pub fn load(&self) -> Result<Loaded, PolicyError> {
        self.compile(read(&self.path)?, &self.path)
    }

    /// Compiles a text that is not the file's as the next generation; `origin` is for messages.
    pub fn load_text(&self, text: Vec<u8>, origin: &Path) -> Result<Loaded, PolicyError> {
        self.compile(text, origin)
    }

    /// What is compiled from here on cuts the host off, or does not any more.
    pub fn isolate(&mut self, isolation: Option<Isolation>) {
        self.isolation = isolation;
    }

    /// Compiles the policy in force once more.
    pub fn again(&self) -> Result<Loaded, PolicyError> {
        self.compile(self.source.clone(), &self.origin)
    }

    /// Compiles the policy in force once more when the user database has changed since.
    pub fn load_for_changed_people(&mut self) -> Option<Result<Loaded, PolicyError>> {
        let people = PEOPLE.map(changed_at);
        if people == self.people {
            return None;
        }
        self.people = people;
        Some(self.compile(self.source.clone(), &self.origin))
    }

    fn compile(&self, source: Vec<u8>, origin: &Path) -> Result<Loaded, PolicyError> {
        // Taken first: a change while names are looked up makes one more compilation.
        let people = PEOPLE.map(changed_at);
        let generation = self.generation.saturating_add(1);
        let shown = |findings: &[Finding]| {
            findings.iter().map(|it| format!("{}:{it}", origin.display())).collect()
        };
        let isolation = self.isolation.as_ref();
        match sekimori_policy::load_isolated(&source, &SystemDirectory, generation, isolation) {
            Ok((mut compiled, warnings)) => {
                compiled.tables.head.recorded_kinds = self.recorded_kinds;
                let (warnings, origin) = (shown(&warnings), origin.to_owned());
                Ok(Loaded { compiled, warnings, source, origin, people })
            }
            Err(findings) => {
                Err(PolicyError::Findings { path: origin.into(), findings: shown(&findings) })
            }
        }
    }

    /// `loaded` is in force now: its names are used from here on.
    pub fn took(&mut self, loaded: Loaded, rules: &mut RuleBook) {
        let Loaded { compiled, source, origin, people, .. } = loaded;
        self.generation = compiled.tables.generation;
        self.source = source;
        self.origin = origin;
        self.people = people;
        self.mode = mode(&compiled.rules);
        self.status = PolicyStatus {
            name: compiled.name.clone(),
            file: self.origin.clone(),
            generation: self.generation,
            rules: compiled.rules.len() as u64,
            ..PolicyStatus::default()
        };
        let facts = compiled
            .rules
            .iter()
            .map(|rule| RuleFact { id: rule.id.clone(), tell_user: rule.tell_user.clone() });
        rules.add(self.generation, facts.collect());
        rules.recorded_kinds = self.recorded_kinds;
        let Compiled { tables, set_labels, .. } = compiled;
        rules.labelled = Box::new(move |path| {
            let set = tables.set_of(path);
            let labels = usize::try_from(set).ok().and_then(|set| set_labels.get(set));
            set != SET_NONE && labels.is_none_or(|labels| !labels.is_empty())
        });
    }

    /// A new policy was refused; the one before it stays.
    pub fn refused(&mut self, reason: String) {
        self.status.refused = Some(reason);
    }

    /// The policy in force, word for word, for the record. Without its text when that is too long for
    /// an event.
    pub fn text(&self) -> PolicyText {
        let text_zstd = zstd::encode_all(self.source.as_slice(), 0).unwrap_or_default();
        let fits = text_zstd.len() <= POLICY_TEXT_BYTES_MAX;
        PolicyText {
            name: self.status.name.clone(),
            sha256: Sha256::digest(&self.source).to_vec(),
            text_zstd: if fits { text_zstd } else { Vec::new() },
        }
    }

    pub const fn status(&self) -> &PolicyStatus {
        &self.status
    }

    /// Whether its denials are real: enforce, observe, or mixed.
    pub const fn mode(&self) -> &'static str {
        self.mode
    }

    /// SHA-256 of the text in force.
    pub fn sha256(&self) -> Vec<u8> {
        Sha256::digest(&self.source).to_vec()
    }
}

/// Of the rules that deny; alerts are the same in every mode.
fn mode(rules: &[RuleFacts]) -> &'static str {
    let denials = rules.iter().filter(|rule| rule.action == Action::Deny);
    // Those that the agent made itself are not of the policy.
    let mut denials = denials.filter(|rule| !rule.id.starts_with(RESERVED)).map(|it| it.mode);
    let Some(first) = denials.next() else {
        return "none";
    };
    match (denials.all(|mode| mode == first), first) {
        (false, _) => "mixed",
        (true, Mode::Enforce) => "enforce",
        (true, Mode::Observe) => "observe",
    }
}

/// Checks a policy file as the agent would at its start. Gives the policy's name and what is
/// doubtful in it.
///
/// # Errors
/// What a start of the agent would stumble over.
pub fn check_policy(path: &Path) -> Result<(String, Vec<String>), PolicyError> {
    let loaded = Keeper::new(path.into(), 0).load()?;
    Ok((loaded.compiled.name, loaded.warnings))
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mut source = Vec::new();
    file.take(POLICY_BYTES_MAX + 1).read_to_end(&mut source).map_err(failed)?;
    if source.len() as u64 > POLICY_BYTES_MAX {
        return Err(PolicyError::TooLong { path: path.into() });
    }
    Ok(source)
}

fn changed_at(path: &str) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}
