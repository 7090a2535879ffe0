//! What a policy would have said of an event that is on record.
//!
//! The kernel's own decision function is asked, with what the record says. Where the record does not
//! say what a rule asks for, the answer is given only if it is the same whatever the missing part
//! was. Users are known by the names in the record: uids mean something on their host only, and who
//! was in a group of the system's user database then is not on record at all.

use std::cell::RefCell;
use std::collections::HashMap;

use sekimori_abi::{
    event::verdict,
    table::{CANDIDATE_UNLESS_VOID, Rule, SET_NONE, action},
};
use sekimori_decide::{Facts, Outcome, applies, outcome, score};

use crate::{
    Compiled, Directory, Finding, Peer, PluggedDevice, Word, load_bytes,
    model::{RESERVED, Subject},
};

/// Uids that stand for the names in the policy, and for its groups of the user database. Hosts give
/// such uids to nobody.
const NAMED_UIDS: u32 = 0xe000_0000;
const GROUP_UIDS: u32 = 0xf000_0000;

/// What a record says of an operation.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What happened.
    pub kind: Word,
    /// It began a connection: whether anything may be sent there was asked as well.
    pub connects: bool,
    /// The file acted on (exec: the program). `None`: the record does not say it whole.
    pub path: Option<Vec<u8>>,
    /// The acting program. `None`: the record does not say it.
    pub exe: Option<Vec<u8>>,
    /// Uid of the person, and the name that the host had for it.
    pub user: (u32, String),
    /// The device below the file.
    pub device: Option<PluggedDevice>,
    /// Where to.
    pub peer: Option<Peer>,
}

/// What a rule asks and a record does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unknown {
    /// Whether somebody is in a group of the system's user database.
    Group,
    /// Where the file lies.
    Path,
    /// Which program acts.
    Program,
}

impl Unknown {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Group => "whether the user was in a group of the system's user database",
            Self::Path => "the whole path of the file",
            Self::Program => "the path of the acting program",
        }
    }
}

/// What a policy says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// One of `event::verdict`, and the rule that decided.
    Known(u8, Option<String>),
    /// It depends on what is not on record.
    Unknown(Unknown),
}

/// A policy that is asked about the past.
#[derive(Debug)]
pub struct Replay {
    compiled: Compiled,
    named: HashMap<String, u32>,
    /// User groups that somebody could be in by the system's user database.
    by_group: u64,
}

/// Names of the policy, each with a uid of its own.
#[derive(Debug, Default)]
struct Written {
    named: RefCell<HashMap<String, u32>>,
    groups: RefCell<HashMap<String, u32>>,
}

impl Directory for Written {
    fn uid_of(&self, name: &str) -> Option<u32> {
        let mut named = self.named.borrow_mut();
        let next = NAMED_UIDS.saturating_add(u32::try_from(named.len()).ok()?);
        Some(*named.entry(name.to_owned()).or_insert(next))
    }

    fn members_of(&self, group: &str) -> Option<Vec<u32>> {
        let mut groups = self.groups.borrow_mut();
        let next = GROUP_UIDS.saturating_add(u32::try_from(groups.len()).ok()?);
        Some(vec![*groups.entry(group.to_owned()).or_insert(next)])
    }
}

/// Bits that certainly hold, and those that may.
#[derive(Clone, Copy)]
struct Mask {
    sure: Facts,
    may: Facts,
}

impl Replay {
    /// Reads a policy. Also gives what is doubtful in it.
    ///
    /// # Errors
    /// As [`load_bytes`].
    pub fn new(source: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let written = Written::default();
        let (compiled, warnings) = load_bytes(source, &written, 1)?;
        let groups = written.groups.into_inner();
        let by_group = groups.values().fold(0, |mask, uid| mask | compiled.tables.users_of(*uid));
        Ok((Self { compiled, named: written.named.into_inner(), by_group }, warnings))
    }

    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.compiled.name
    }

    /// What the policy says.
    pub fn judge(&self, seen: &Seen) -> Judged {
        let own = self.judge_as(seen.kind, seen);
        if !seen.connects || seen.kind != Word::NetConnect {
            return own;
        }
        // A peer that nothing may be sent to needs no connection.
        match (&own, self.judge_as(Word::NetUpload, seen)) {
            (Judged::Known(verdict::DENIED, _), _) => own,
            (_, refused @ (Judged::Known(verdict::DENIED, _) | Judged::Unknown(_))) => refused,
            _ => own,
        }
    }

    fn judge_as(&self, word: Word, seen: &Seen) -> Judged {
        let tables = &self.compiled.tables;
        let kind = word.kind();
        let set = match (&seen.path, Subject::Label.fits(word)) {
            (_, false) => SET_NONE,
            (Some(path), true) => tables.set_of(path),
            (None, true) if self.labels_matter(kind) => return Judged::Unknown(Unknown::Path),
            (None, true) => SET_NONE,
        };
        let (program, no_program) = match (&seen.exe, word) {
            (_, Word::Exec) => (set, seen.path.is_none()),
            (Some(path), _) => (tables.set_of(path), false),
            (None, _) => (SET_NONE, true),
        };
        let (uid, name) = &seen.user;
        let named = self.named.get(name).map_or(0, |uid| tables.users_of(*uid));
        let device = seen.device.as_ref().filter(|_| Subject::Device.fits(word));
        let sure = Facts {
            programs: tables.programs_of(program),
            users: tables.users_of(*uid) | named,
            devices: device.map_or(0, |it| {
                tables.devices_of(it.class, it.vendor, it.product, it.serial.as_bytes())
            }),
            destinations: seen
                .peer
                .filter(|_| Subject::Destination.fits(word))
                .map_or(0, |peer| tables.destinations_of(peer.address, peer.port)),
        };
        let programs = if no_program { u64::MAX } else { sure.programs };
        let may = Facts { programs, users: sure.users | self.by_group, ..sure };
        match self.outcome(kind, set, Mask { sure, may }) {
            Some(outcome) => {
                let at = outcome.rule.checked_sub(1);
                let rule = at.and_then(|at| self.compiled.rules.get(at as usize));
                let rule = rule.filter(|rule| !rule.id.starts_with(RESERVED));
                Judged::Known(outcome.verdict(), rule.map(|rule| rule.id.clone()))
            }
            None if no_program => Judged::Unknown(Unknown::Program),
            None => Judged::Unknown(Unknown::Group),
        }
    }

    /// Whether rules on this kind ask for labels.
    fn labels_matter(&self, kind: u8) -> bool {
        self.compiled.tables.sets.iter().any(|set| set.own_buckets >> kind & 1 != 0)
    }

    /// What is decided, if that is the same for all that may hold.
    fn outcome(&self, kind: u8, set: u32, mask: Mask) -> Option<Outcome> {
        let tables = &self.compiled.tables;
        let Some(bucket) = tables.bucket(kind, set) else {
            return Some(Outcome::default());
        };
        let (mut surely, mut possibly) = (0, 0);
        for candidate in bucket.candidates.iter().take(bucket.count as usize) {
            let void = candidate & CANDIDATE_UNLESS_VOID != 0;
            let Some(rule) = tables.rules.get((candidate & !CANDIDATE_UNLESS_VOID) as usize) else {
                continue;
            };
            // Both sides grow with what holds, so the extremes are at the ends.
            let when = |facts| applies(rule, true, facts);
            let unless = Rule { when: rule.unless, ..*rule };
            let unless = |facts| !void && rule.has_unless != 0 && applies(&unless, true, facts);
            let strength = score(*candidate | CANDIDATE_UNLESS_VOID, rule, &mask.may);
            if when(&mask.may) && !unless(&mask.sure) {
                possibly = possibly.max(strength);
            }
            if when(&mask.sure) && !unless(&mask.may) {
                surely = surely.max(strength);
            }
        }
        let (surely, possibly) = (outcome(surely), outcome(possibly));
        // Whether a rule had it recorded makes no difference to anybody.
        let silent = possibly.action < action::ALERT;
        (surely.action == possibly.action || silent).then_some(surely)
    }
}
