//! The programs at work, as the rest of the agent sees them.

use std::path::PathBuf;
use std::time::Duration;

use aya::maps::Array;
use sekimori_abi::{
    event::{Device, kind},
    table::Accounts,
};
use sekimori_policy::Tables;

use super::{
    GuardMode, KernelError, disks, guard, load, log,
    maps::Maps,
    modules::Modules,
    own::{self, Own},
    pinned,
    pins::{Root, Set},
    plan::{self, Feature, Open, Present},
    ring::{Drained, Enough, Rings},
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
    found: Found,
    open: Open,
    /// The policy in force judges loads.
    loads: bool,
    /// The agent's own files, as the programs know them.
    own: own::Files,
    /// Somebody looks at them.
    guarded: bool,
    /// Files on removable media and shares that are open for write.
    files: pinned::Table,
    /// Shares that are mounted.
    shares: pinned::Table,
    modules: Modules,
    set: Set,
    _root: Root,
}

/// What a start found at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Programs of the same build, which were taken over; and those that had been taken off their
    /// hooks and are back on them.
    Same {
        /// Hooks, each with what was done.
        put_back: Vec<String>,
    },
    /// Programs of another build, which were replaced.
    Other(Vec<LeftBehind>),
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
    same: Option<Set>,
    variant: String,
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
        let variant = load::variant(program_logs)?;
        let mut same = root.ours(&variant);
        if let Some(set) = same.take_if(|set| !plan::is_whole(set) || Maps::open(set).is_err()) {
            tracing::error!("the programs that are at work are not all there: they are replaced");
            let mut set = set;
            set.discard()?;
        }
        Ok(Self { root, same, variant, program_logs })
    }

    /// Generation of the newest policy that programs of this build have in force; 0 for none.
    ///
    /// # Errors
    /// When they cannot be asked.
    pub fn generation(&self) -> Result<u32, KernelError> {
        match &self.same {
            Some(set) => tables::generation(&mut Maps::open(set)?),
            None => Ok(0),
        }
    }

    /// Puts the policy in force: in the programs that are at work already, or in new ones, which
    /// then take the place of those of another build. All of them stand on their hooks, those for
    /// removable media and shares too, until [`Sensor::watch`]. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel or the permissions do not suffice; what was in force stays in force.
    pub fn start(self, tables: &Tables) -> Result<Sensor, KernelError> {
        let Self { root, same, variant, program_logs } = self;
        let (set, mut found) = match same {
            Some(set) => {
                tables::install(&mut Maps::open(&set)?, tables)?;
                (set, Found::Same { put_back: Vec::new() })
            }
            None => (put_to_work(&root, &variant, tables, program_logs)?, Found::Nothing),
        };
        let others = root.others(&set)?;
        if found == Found::Nothing && !others.is_empty() {
            found = Found::Other(Vec::new());
        }
        for other in others {
            let left = retire(other)?;
            if let Found::Other(behind) = &mut found {
                behind.extend(left);
            }
        }
        if program_logs {
            log::follow(&set);
        }
        let (mut open, features, gone) = plan::survey(&set);
        let loads = tables.head.judges_loads != 0;
        let missing = follow_loads(&set, &mut open, loads);
        missing.iter().for_each(|what| tracing::error!(what, "loads are not judged"));
        disks::show_mounted();
        disks::show_loops();
        if let Found::Same { put_back } = &mut found {
            *put_back = gone;
        }
        let (maps, rings) = (Maps::open(&set)?, Rings::open(&set)?);
        let files = pinned::Table::open(&set.map_path("FILES"))?;
        let shares = pinned::Table::open(&set.map_path("SHARES"))?;
        let modules = Modules::default();
        let own = own::Files::open(&set.map_path("OWN"))?;
        Ok(Sensor {
            maps,
            rings,
            features,
            found,
            open,
            loads,
            own,
            guarded: false,
            files,
            shares,
            modules,
            set,
            _root: root,
        })
    }
}

/// Puts the programs for loads on their hooks or takes them off, and leaves the others as they are.
fn follow_loads(set: &Set, open: &mut Open, loads: bool) -> Vec<String> {
    let present = Present { loads, ..open.watched() };
    plan::follow(set, open, present)
}

/// Loads, fills, attaches and pins a new set.
fn put_to_work(
    root: &Root,
    variant: &str,
    tables: &Tables,
    program_logs: bool,
) -> Result<Set, KernelError> {
    let mut set = root.begin(variant)?;
    let put = || -> Result<(), KernelError> {
        let mut loaded = load::load(program_logs)?;
        load::pin_maps(&loaded, &set)?;
        let mut maps = Maps::open(&set)?;
        tables::install(&mut maps, tables)?;
        // Who looks again tells what could not be found.
        let _ = Modules::default().tell(&mut maps);
        plan::install(&mut loaded, &set)
    };
    let done = put();
    give_memory_back();
    match done.and_then(|()| set.complete()) {
        Ok(()) => Ok(set),
        Err(error) => {
            // The reason counts more than what could not be cleaned up.
            let _ = set.remove();
            Err(error)
        }
    }
}

/// Gives the machine what was freed. The kernel's types, which only loading needs, take tens of
/// megabytes in small pieces, and a flood some; the allocator keeps them unless it is told.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function has no preconditions (malloc_trim(3)).
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Removes programs of another build. What nobody read from their rings is counted; a set that was
/// never complete, or whose maps are not as ours, has nothing that could be counted.
fn retire(set: Set) -> Result<Option<LeftBehind>, KernelError> {
    let (maps, rings) = (Maps::open_some(&set), Rings::open(&set));
    set.remove()?;
    let count = |mut rings: Rings| {
        let mut records = 0;
        rings.drain(Enough::ALL, &mut |_| records += 1);
        let recorded = accounts(&maps).map(|it| Counters { per_kind: it.reported }.lost());
        let lost = stats::read(&maps).map(|counters| counters.lost());
        let losses = match (recorded, lost) {
            (Ok(recorded), Ok(lost)) => lost.saturating_sub(recorded),
            _ => 0,
        };
        LeftBehind { records, losses }
    };
    let left = rings.map(count).ok();
    Ok(left.filter(|left| left.records > 0 || left.losses > 0))
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
    /// When a table cannot be written, or a program is missing on its hook; the old policy stays in
    /// force.
    pub fn install(&mut self, tables: &Tables) -> Result<(), KernelError> {
        let loads = tables.head.judges_loads != 0;
        // The programs stand there before the policy that needs them, and leave after it.
        if loads && !self.loads {
            let failed = follow_loads(&self.set, &mut self.open, true);
            if !failed.is_empty() {
                return Err(KernelError::Other(failed.join("; ")));
            }
        }
        tables::install(&mut self.maps, tables)?;
        self.loads = loads;
        if !loads {
            follow_loads(&self.set, &mut self.open, false);
        }
        Ok(())
    }

    /// What the start found at work.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Whether the programs were at work before this agent.
    pub const fn took_over(&self) -> bool {
        matches!(self.found, Found::Same { .. })
    }

    /// Puts the programs for removable media and shares on their hooks, or takes them off: without
    /// such they cost and see nothing. They stay as long as a file that can be written there is
    /// open. `shares`: some are mounted; those that were mounted since the programs are there, the
    /// programs know themselves. `btrfs`: the kernel has it. Answers what could not be put there.
    pub fn watch(&mut self, removable: bool, shares: bool, btrfs: bool) -> Vec<String> {
        let watched = self.open.watched();
        let open = self.files.holds_any();
        let removable = removable || (open && watched.removable);
        let present = Present {
            removable,
            btrfs: removable && btrfs,
            shares: shares || self.shares.holds_any() || (open && watched.shares),
            loads: self.loads,
        };
        // Sums begin only while somebody ends them.
        let mut failed = Vec::new();
        if !present.shares {
            failed.extend(self.begin_sums_on_shares(false).err());
        }
        failed.extend(plan::follow(&self.set, &mut self.open, present));
        if present.shares {
            failed.extend(self.begin_sums_on_shares(true).err());
        }
        failed
    }

    fn begin_sums_on_shares(&mut self, wanted: bool) -> Result<(), String> {
        Array::<_, Plain<u32>>::try_from(
            self.maps.get("SHARES_WATCHED").map_err(|it| it.to_string())?,
        )
        .and_then(|mut cell| cell.set(0, Plain(u32::from(wanted)), 0))
        .map_err(|error| KernelError::from_aya("writing SHARES_WATCHED", &error).to_string())
    }

    /// Tells the programs which device nodes lead to removable media, instead of those before.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn know_nodes(&mut self, nodes: &[(u64, Device)]) -> Result<(), KernelError> {
        tables::replace(&mut self.maps, "NODES", nodes)
    }

    /// Tells the programs where fields of modules stand, as far as they are there by now.
    ///
    /// # Errors
    /// When a module is not as expected, or the table cannot be written; said once for each.
    pub fn know_modules(&mut self) -> Result<(), KernelError> {
        self.modules.tell(&mut self.maps)
    }

    /// Guards this process, the maps and the pins from here on.
    ///
    /// # Errors
    /// When what belongs to them cannot be found out.
    pub fn guard(&mut self, mode: GuardMode) -> Result<(), KernelError> {
        self.guarded = mode != GuardMode::Off;
        guard::begin(&mut self.maps, &self.set, mode)
    }

    /// Tells the programs which files are the agent's own by now: others may have come to their
    /// places.
    ///
    /// # Errors
    /// When the programs cannot be told.
    pub fn know_own(&mut self, files: &[(PathBuf, Own)]) -> Result<(), KernelError> {
        if self.guarded { self.own.look(files) } else { Ok(()) }
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
    pub fn drain(&mut self, enough: Enough, each: &mut dyn FnMut(&[u8])) -> Drained {
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

    /// How often the kernel did not call a program, by kind of what was missed.
    pub fn skipped(&self) -> [u64; kind::COUNT] {
        self.open.skipped()
    }

    /// What is attached and what is lost.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }
}
