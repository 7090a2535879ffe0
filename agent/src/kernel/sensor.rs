//! The programs at work, as the rest of the agent sees them.

use std::time::Duration;

use aya::maps::Array;
use sekimori_abi::table::Accounts;
use sekimori_policy::Tables;

use super::{
    GuardMode, KernelError, guard, load, log,
    maps::Maps,
    pins::{Root, Set},
    plan::{self, Feature, Links},
    ring::Rings,
    stats::{self, Counters},
    tables::{self, Plain},
};

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print the programs' debug logs.
    pub program_logs: bool,
}

/// Programs in place, rings open, a policy in force. Dropping it leaves the programs at work:
/// [`super::release`] takes them away.
pub struct Sensor {
    maps: Maps,
    rings: Rings,
    features: Vec<Feature>,
    took_over: bool,
    links: Links,
    set: Set,
    _root: Root,
}

/// What programs of another build had not been asked for yet when they were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Records on their rings.
    pub records: u64,
    /// Losses that they counted and nobody recorded.
    pub losses: u64,
}

/// Programs that may be at work already, held by this process.
pub struct Held {
    root: Root,
    found: Option<Set>,
    variant: &'static str,
    program_logs: bool,
}

impl Held {
    /// Takes hold of the programs' place, before anything is changed.
    ///
    /// # Errors
    /// When the kernel or the permissions do not suffice, or another agent runs; the text says what
    /// to do.
    pub fn take(options: &Options) -> Result<Self, KernelError> {
        load::check_lsm()?;
        let root = Root::take()?;
        let program_logs = options.program_logs;
        let variant = if program_logs { "logs" } else { "" };
        let found = root.ours(variant);
        Ok(Self { root, found, variant, program_logs })
    }

    /// Generation of the newest policy that programs of this build have in force; 0 for none.
    ///
    /// # Errors
    /// When they cannot be asked.
    pub fn generation(&self) -> Result<u32, KernelError> {
        match &self.found {
            Some(set) => tables::generation(&mut Maps::open(set)?),
            None => Ok(0),
        }
    }

    /// Puts the policy in force: in the programs that are at work already, or in new ones, which
    /// then take the place of those of another build. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel or the permissions do not suffice; what was in force stays in force.
    pub fn start(self, tables: &Tables) -> Result<(Sensor, Vec<LeftBehind>), KernelError> {
        let Self { root, found, variant, program_logs } = self;
        let took_over = found.is_some();
        let set = match found {
            Some(set) => {
                tables::install(&mut Maps::open(&set)?, tables)?;
                set
            }
            None => {
                let mut set = root.begin(variant)?;
                match put_to_work(&set, tables, program_logs).and_then(|()| set.complete()) {
                    Ok(()) => set,
                    Err(error) => {
                        // The reason counts more than what could not be cleaned up.
                        let _ = set.remove();
                        return Err(error);
                    }
                }
            }
        };
        let mut left_behind = Vec::new();
        for other in root.others(&set)? {
            left_behind.extend(retire(&other)?);
        }
        if program_logs {
            log::follow(&set);
        }
        let (links, features) = plan::survey(&set);
        let (maps, rings) = (Maps::open(&set)?, Rings::open(&set)?);
        let sensor = Sensor { maps, rings, features, took_over, links, set, _root: root };
        Ok((sensor, left_behind))
    }
}

/// Loads, fills and attaches a new set.
fn put_to_work(set: &Set, tables: &Tables, program_logs: bool) -> Result<(), KernelError> {
    let mut loaded = load::load(program_logs)?;
    load::pin_maps(&loaded, set)?;
    tables::install(&mut Maps::open(set)?, tables)?;
    plan::install(&mut loaded, set)
}

/// Removes programs of another build. What nobody read from their rings is counted; a set that was
/// never complete, or whose maps are not as ours, has nothing that could be counted.
fn retire(set: &Set) -> Result<Option<LeftBehind>, KernelError> {
    let open = Maps::open(set).and_then(|maps| Ok((maps, Rings::open(set)?)));
    set.remove()?;
    let Ok((maps, mut rings)) = open else {
        return Ok(None);
    };
    let recorded = Counters { per_kind: accounts(&maps)?.reported }.lost();
    let losses = stats::read(&maps)?.lost().saturating_sub(recorded);
    let mut records = 0;
    rings.drain(usize::MAX, &mut |_| records += 1);
    Ok((records > 0 || losses > 0).then_some(LeftBehind { records, losses }))
}

fn accounts(maps: &Maps) -> Result<Accounts, KernelError> {
    Array::<_, Plain<Accounts>>::try_from(maps.read("ACCOUNTS")?)
        .and_then(|accounts| accounts.get(&0, 0))
        .map(|Plain(accounts)| accounts)
        .map_err(|error| KernelError::from_aya("reading ACCOUNTS", &error))
}

impl Sensor {
    /// Replaces the policy: each event is judged by the old one or by the new one, whole.
    ///
    /// # Errors
    /// When a table cannot be written; the old policy stays in force.
    pub fn install(&mut self, tables: &Tables) -> Result<(), KernelError> {
        tables::install(&mut self.maps, tables)
    }

    /// Whether the programs were at work before this agent.
    pub const fn took_over(&self) -> bool {
        self.took_over
    }

    /// Puts the programs for USB memory on their hooks, or takes them off: without USB memory they
    /// cost and see nothing. Answers what could not be put there.
    pub fn watch_usb(&mut self, wanted: bool) -> Vec<String> {
        plan::with_usb(&self.set, &mut self.links, wanted)
    }

    /// Guards this process, the maps and the pins from here on.
    ///
    /// # Errors
    /// When what belongs to them cannot be found out.
    pub fn guard(&mut self, mode: GuardMode) -> Result<(), KernelError> {
        guard::begin(&mut self.maps, &self.set, mode)
    }

    /// Ends the guard, for an orderly stop.
    ///
    /// # Errors
    /// When the programs cannot be told.
    pub fn unguard(&mut self) -> Result<(), KernelError> {
        guard::end(&mut self.maps)
    }

    /// How many opens the programs have seen.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn opens_seen(&self) -> Result<u64, KernelError> {
        stats::opens_seen(&self.maps)
    }

    /// Waits until a ring has something or `patience` is over.
    ///
    /// # Errors
    /// When the rings cannot be waited for.
    pub async fn ready(&self, patience: Duration) -> Result<(), KernelError> {
        self.rings.ready(patience).await
    }

    /// Gives each waiting record to `each`, denials first, until `enough` were given; answers how
    /// many there were.
    pub fn drain(&mut self, enough: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        self.rings.drain(enough, each)
    }

    /// What agents have accounted for since the programs were loaded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn accounts(&self) -> Result<Accounts, KernelError> {
        accounts(&self.maps)
    }

    /// Notes what was accounted for, for the next agent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_accounts(&mut self, accounts: &Accounts) -> Result<(), KernelError> {
        Array::<_, Plain<Accounts>>::try_from(self.maps.get("ACCOUNTS")?)
            .and_then(|mut kept| kept.set(0, Plain(*accounts), 0))
            .map_err(|error| KernelError::from_aya("writing ACCOUNTS", &error))
    }

    /// The programs' counters.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        stats::read(&self.maps)
    }

    /// What is attached and what is lost.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }
}
