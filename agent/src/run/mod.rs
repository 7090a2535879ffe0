//! The daemon: everything wired together, and its loop.
//!
//! Order of the start: spool, policy, control socket, kernel programs, `/proc`, loop. Nothing is
//! refused before the policy is known to be good, and nothing is recorded before it can be kept.

mod canary;
mod distributed;
mod error;
mod isolation;
mod left;
mod link;
mod own;
mod pipeline;
mod policy;
mod release;
mod status;
mod taken;
#[cfg(test)]
mod tests;
mod word;

pub use self::{
    error::RunError,
    policy::{PolicyError, check_policy},
    release::release,
};

use std::path::{Path, PathBuf};
use std::time::Duration;

use sekimori_proto::v1::Kind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use self::canary::Canary;
use self::distributed::Distributed;
use self::isolation::Order;
use self::left::Left;
use self::link::Link;
use self::pipeline::Pipeline;
use self::policy::{Keeper, Loaded};
use crate::config::Config;
use crate::control::{self, Answer, Command, PolicyStatus, Request, Status};
use crate::enrich::Enricher;
use crate::kernel::{self, Enough, Found, Held, LeftBehind, Own, Sensor};
use crate::limits::{
    CONTROL_CLIENTS_MAX, DEVICES_INTERVAL, DRAIN_PATIENCE, GIVE_BACK_BYTES, POLL_INTERVAL,
    SHIP_DRAIN_TIMEOUT, STATE_INTERVAL, STOP_TURNS_MAX,
};
use crate::record::Lost;
use crate::removable::{Plugged, Watch, kernel_has_btrfs, survey};
use crate::spool::{RecoveryReport, SharedSpool, Spool, SpoolConfig};
use crate::tell::Tell;

/// What the command line says on top of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the configuration was read.
    pub config: PathBuf,
    /// Another policy file than the configuration's.
    pub policy: Option<PathBuf>,
    /// Debug logs of the kernel programs.
    pub program_logs: bool,
}

/// Runs the agent until SIGTERM or SIGINT. Must be called in a tokio runtime with timers and I/O.
///
/// # Errors
/// When it cannot start, or the kernel's rings cannot be read any more. What was recorded until
/// then is on disk.
pub async fn run(config: Config, options: Options) -> Result<(), RunError> {
    if kernel::OBJECT.is_empty() {
        return Err(RunError::Stub);
    }
    let (mut spool, report) =
        Spool::open(&config.spool.directory, SpoolConfig::from(&config.spool))?;
    spool.sign()?;
    let spool = SharedSpool::new(spool);
    let result = run_with(config, options, spool.clone(), &report).await;
    if result.is_err() && report.clean {
        // A start that failed leaves no gap: nothing was recorded before it either. After one that
        // was not clean the mark stays off, so that the next start still tells of the gap.
        let _ = spool.close();
    }
    result
}

async fn run_with(
    config: Config,
    options: Options,
    spool: SharedSpool,
    report: &RecoveryReport,
) -> Result<(), RunError> {
    let mut distributed = Distributed::new(&config, options.policy.is_some());
    let policy_path = options.policy.unwrap_or_else(|| config.policy.clone());
    let own = own::files(&config, &[&options.config, &policy_path]);
    let mut keeper = Keeper::new(policy_path, config.record.kinds_mask());
    let order = Order::read(&config.spool.directory);
    keeper.isolate(order.isolation());
    let mut loaded = distributed.load(&keeper)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let listener = control::bind(&config.control.socket)?;
    let _socket = SocketFile(config.control.socket.clone());
    let program_logs = options.program_logs || config.record.kernel_log;
    let held = Held::take(&kernel::Options { program_logs })?;
    keeper.continue_from(held.generation()?, &mut loaded);
    let sensor = held.start(&loaded.compiled.tables)?;
    let left = Left::read(&config.spool.directory);

    let accounts = sensor.accounts()?;
    let mut pipeline = Pipeline::new(spool.clone(), Enricher::new(), Tell::new(), accounts);
    let Pipeline { enricher, rules, .. } = &mut pipeline;
    let running = enricher.processes.scan(&enricher.clock);
    let started_ns = enricher.clock.now_ns();
    let removed = left.expects_programs() && *sensor.found() == Found::Nothing;
    if sensor.took_over() {
        rules.remember(left.rules);
    }
    keeper.took(loaded, rules);
    tracing::debug!(running, "processes read from /proc");

    let link = Link::start(&config.collector, &spool, order.collector.clone());
    let (commands, asked) = mpsc::channel(CONTROL_CLIENTS_MAX);
    let control = tokio::spawn(control::serve(listener, commands));
    let sync = sync_now_and_then(spool.clone(), config.spool.sync_interval_ms);
    let devices = Watch::new().map_err(RunError::Devices)?;
    let mut agent = Agent {
        config,
        spool,
        pipeline,
        keeper,
        distributed,
        sensor,
        devices,
        plugged: true,
        present: Plugged::default(),
        looked_at: Instant::now(),
        link,
        carried_out: order.clone(),
        order,
        started_ns,
        canary: Canary::new(),
        watch_failed: false,
        own,
        own_failed: false,
        // Of the start, at the first poll.
        worked: GIVE_BACK_BYTES,
    };
    let signals = Signals::listen()?;
    agent.sensor.guard(agent.config.guard)?;
    agent.know_own();
    agent.look_at_devices();
    agent.leave_word();
    agent.say_started(report, removed);
    let result = agent.turn(asked, signals).await;
    control.abort();
    sync.abort();
    agent.stop(result).await
}

/// Takes the control socket away when the agent ends, however it ends.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Everything that lives while the agent runs.
struct Agent {
    config: Config,
    spool: SharedSpool,
    pipeline: Pipeline,
    keeper: Keeper,
    distributed: Distributed,
    sensor: Sensor,
    devices: Watch,
    /// There are removable media.
    plugged: bool,
    present: Plugged,
    /// When they were looked at last.
    looked_at: Instant,
    link: Link,
    /// The last order, which is on the disk, and the last one that is in force.
    order: Order,
    carried_out: Order,
    started_ns: i64,
    canary: Canary,
    /// That programs for removable media or shares are missing was said.
    watch_failed: bool,
    /// Its own files.
    own: Vec<(PathBuf, Own)>,
    /// That the programs do not know them was said.
    own_failed: bool,
    /// Bytes of records since memory was given back.
    worked: usize,
}

/// The signals the agent listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

impl Agent {
    /// Tells whoever comes after this agent what it leaves in force.
    fn leave_word(&self) {
        let left = Left { in_force: left::boot(), rules: self.pipeline.rules.known().clone() };
        if let Err(error) = left.write(&self.config.spool.directory) {
            tracing::error!(%error, "the names of the rules could not be kept for the next start");
        }
    }

    fn say_started(&mut self, report: &RecoveryReport, removed: bool) {
        let policy = self.keeper.status();
        let mut message = format!(
            "sekimori-agent {} started; policy {} with {} rules is in force",
            env!("CARGO_PKG_VERSION"),
            policy.name,
            policy.rules,
        );
        if let Some(epoch) = self.distributed.in_force() {
            message.push_str(&format!("; it is the collector's, epoch {epoch}"));
        }
        let lost: Vec<&str> = self
            .sensor
            .features()
            .iter()
            .filter(|feature| !feature.attached)
            .map(|feature| feature.name)
            .collect();
        if !lost.is_empty() {
            message.push_str(&format!("; not on this kernel: {}", lost.join(", ")));
        }
        if self.sensor.took_over() {
            message.push_str("; the kernel programs were at work all along");
        }
        self.pipeline.say_policy(message, self.keeper.text());
        if let Some(gap) = gap(report, self.sensor.took_over()) {
            self.pipeline.say(gap);
        }
        if let Some(trouble) = self.distributed.trouble.clone() {
            self.pipeline.alert(format!(
                "the collector's policy that was kept cannot be used, and the host's own file is in \
                 force until the collector gives another one: {trouble}"
            ));
        }
        if removed {
            self.pipeline.alert(
                "an earlier agent left the policy in force, and its kernel programs are gone: \
                 somebody removed them, and nothing was enforced until now",
            );
        }
        match self.sensor.found().clone() {
            Found::Nothing => {}
            Found::Same { put_back } => {
                for hook in put_back {
                    self.pipeline
                        .alert(format!("somebody had taken a program off its hook: {hook}"));
                }
            }
            Found::Other(behind) => {
                for LeftBehind { records, losses } in behind {
                    self.pipeline.lost(Lost {
                        stage: "ring",
                        kind: Kind::Unspecified,
                        count: records + losses,
                        reason: "kernel programs of another build were replaced while nobody \
                                 read them"
                            .to_owned(),
                    });
                }
            }
        }
        // A boot with one signature is told from one that somebody made up.
        self.pipeline.sign_off();
        notify(&[sd_notify::NotifyState::Ready]);
    }

    /// The loop, until a signal says stop.
    async fn turn(
        &mut self,
        mut asked: mpsc::Receiver<Command>,
        mut signals: Signals,
    ) -> Result<(), RunError> {
        let mut poll = every(POLL_INTERVAL);
        // Told by this loop: when it hangs, the collector hears nothing.
        let mut word = every(STATE_INTERVAL);
        let mut patience = DRAIN_PATIENCE;
        // When to look at the devices, some of which changed.
        let mut look_at = None;
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => {
                    self.reload();
                }
                Some(command) = asked.recv() => self.answer(command),
                changed = self.devices.changed() => {
                    changed.map_err(RunError::Devices)?;
                    look_at = look_at.or(Some(self.looked_at + DEVICES_INTERVAL));
                }
                () = until(look_at) => {
                    look_at = None;
                    self.look_at_devices();
                }
                () = self.pipeline.receipt() => {}
                _ = poll.tick() => self.poll(),
                _ = word.tick() => {
                    self.carry_out();
                    self.say_word();
                }
                Ok(()) = self.link.ordered.changed() => self.take_order().await,
                Ok(()) = self.link.offered.changed() => self.take_policy(),
                ready = self.sensor.ready(patience) => ready?,
            }
            patience = if self.drain() { Duration::ZERO } else { DRAIN_PATIENCE };
        }
    }

    /// Records what the rings hold, as much as can be done before somebody else must have a turn.
    /// Answers whether there may be more at once.
    fn drain(&mut self) -> bool {
        let Self { sensor, pipeline, .. } = self;
        let taken = sensor.drain(Enough::TURN, &mut |record| pipeline.take(record));
        let waited = pipeline.waits();
        pipeline.process();
        self.worked = self.worked.saturating_add(taken.bytes);
        if self.pipeline.take_new_share() {
            self.watch();
        }
        if taken.records > 0 || waited {
            self.keep_accounts();
        }
        taken.more
    }

    /// What removable media there are now.
    fn look_at_devices(&mut self) {
        self.looked_at = Instant::now();
        let sys = Path::new("/sys");
        if let Err(error) = self.sensor.know_modules() {
            self.pipeline
                .alert(format!("what loop devices and memory cards are may not be known: {error}"));
        }
        let survey = survey(sys, Path::new("/proc"));
        if let Err(error) = self.sensor.know_nodes(&survey.nodes) {
            self.pipeline.alert(format!(
                "the programs could not be told of the device nodes of removable media: {error}"
            ));
        }
        self.plugged = survey.plugged;
        self.watch();
        self.pipeline.devices(self.present.look(sys));
    }

    /// The programs for removable media and shares stand on their hooks only while there are any.
    fn watch(&mut self) {
        let shares = self.pipeline.enricher.mounts.has_shares();
        let btrfs = self.plugged && kernel_has_btrfs(Path::new("/proc"));
        self.watch_for(self.plugged, shares, btrfs);
    }

    fn watch_for(&mut self, removable: bool, shares: bool, btrfs: bool) {
        let failed = self.sensor.watch(removable, shares, btrfs);
        if !failed.is_empty() && !std::mem::replace(&mut self.watch_failed, true) {
            self.pipeline.alert(format!(
                "programs for removable media or shares are not on their hooks: {}",
                failed.join("; ")
            ));
        } else if failed.is_empty() {
            self.watch_failed = false;
        }
    }

    /// An upgrade, or an editor, puts other files in the place of the agent's own.
    fn know_own(&mut self) {
        match self.sensor.know_own(&self.own) {
            Ok(()) => self.own_failed = false,
            Err(error) if !std::mem::replace(&mut self.own_failed, true) => {
                self.pipeline.alert(format!("the agent's own files are not watched: {error}"));
            }
            Err(_) => {}
        }
    }

    /// Tells whoever comes after this agent what is on disk.
    fn keep_accounts(&mut self) {
        if let Err(error) = self.sensor.keep_accounts(&self.pipeline.accounts()) {
            tracing::error!(%error, "what was recorded could not be noted for the next start");
        }
    }

    fn poll(&mut self) {
        match self.canary.sing(&self.sensor) {
            Ok(Some(sentence)) => self.pipeline.alert(sentence),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the kernel's counters cannot be read"),
        }
        match self.sensor.counters() {
            Ok(counters) => {
                self.pipeline.poll(&counters.per_kind, &self.sensor.skipped());
                self.keep_accounts();
            }
            Err(error) => tracing::error!(%error, "the kernel's counters cannot be read"),
        }
        // Files that kept the programs there may be closed by now, and shares unmounted.
        self.watch();
        self.know_own();
        if self.worked >= GIVE_BACK_BYTES {
            self.worked = 0;
            kernel::give_memory_back();
        }
        if let Some(loaded) = self.keeper.load_for_changed_people() {
            tracing::info!("users or groups changed: the policy's names are looked up again");
            let _ = self.take(loaded);
        }
    }

    fn answer(&mut self, command: Command) {
        let answer = match command.request {
            Request::Status => Answer {
                ok: true,
                message: "running".to_owned(),
                status: Some(Box::new(self.status())),
                ..Answer::default()
            },
            Request::Reload => self.reload(),
        };
        // Whoever asked may have gone.
        let _ = command.answer.send(answer);
    }

    fn reload(&mut self) -> Answer {
        // The collector's policy is not the file's to change; the names in it are looked up again.
        let loaded = match self.distributed.epoch {
            0 => self.keeper.load(),
            _ => self.keeper.again(),
        };
        match self.take(loaded) {
            Ok(warnings) => {
                let policy = self.keeper.status();
                let mut message = format!(
                    "policy {} with {} rules is in force, generation {}",
                    policy.name, policy.rules, policy.generation
                );
                if self.distributed.epoch != 0 {
                    message.push_str(&format!(
                        "; it is the collector's, epoch {}, and no file of this host was read",
                        self.distributed.epoch
                    ));
                }
                self.pipeline.say_policy(message.clone(), self.keeper.text());
                Answer { ok: true, message, findings: warnings, status: None }
            }
            Err((reason, findings)) => {
                let name = self.keeper.status().name.clone();
                let message =
                    format!("the new policy was refused, {name} stays in force: {reason}");
                self.pipeline.say(message.clone());
                Answer { ok: false, message, findings, status: None }
            }
        }
    }

    /// Puts a policy in force, or says why not and keeps the one before.
    fn take(
        &mut self,
        loaded: Result<Loaded, PolicyError>,
    ) -> Result<Vec<String>, (String, Vec<String>)> {
        let refused = match loaded {
            Ok(mut loaded) => match self.sensor.install(&loaded.compiled.tables) {
                Ok(()) => {
                    let warnings = std::mem::take(&mut loaded.warnings);
                    self.keeper.took(loaded, &mut self.pipeline.rules);
                    self.leave_word();
                    return Ok(warnings);
                }
                Err(error) => (error.to_string(), Vec::new()),
            },
            Err(PolicyError::Findings { findings, .. }) => {
                let first = findings.first().cloned().unwrap_or_default();
                (format!("{first} ({} findings)", findings.len()), findings)
            }
            Err(error) => (error.to_string(), Vec::new()),
        };
        tracing::error!(reason = refused.0, "a policy was refused");
        self.keeper.refused(refused.0.clone());
        Err(refused)
    }

    fn status(&self) -> Status {
        let counters = self.sensor.counters().unwrap_or_default();
        let policy = self.keeper.status().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            boot: self.spool.boot().iter().map(|byte| format!("{byte:02x}")).collect(),
            started_ns: self.started_ns,
            policy: PolicyStatus { epoch: self.distributed.in_force(), ..policy },
            hooks_called: self.canary.alive,
            features: status::features(self.sensor.features()),
            counters: status::counters(&counters),
            spool: status::spool(&self.spool.stats()),
            collector: status::collector(
                &self.config.collector,
                &self.link.shipper.status().borrow(),
            ),
            processes: self.pipeline.enricher.processes.len() as u64,
            told: self.pipeline.told(),
        }
    }

    /// What the rings hold by now is recorded, losses are counted a last time, and the collector
    /// gets [`SHIP_DRAIN_TIMEOUT`] to take the rest; what it does not take stays on disk. The
    /// programs stay on their hooks, and what they write from here on waits for the next agent.
    async fn stop(mut self, result: Result<(), RunError>) -> Result<(), RunError> {
        notify(&[sd_notify::NotifyState::Stopping]);
        for _ in 0..STOP_TURNS_MAX {
            if !self.drain() {
                break;
            }
        }
        self.pipeline.finish();
        self.pipeline.finish_receipts().await;
        self.poll();
        // Nobody will be there to see a stick or a share come.
        self.watch_for(true, true, true);
        if let Err(error) = self.sensor.unguard() {
            tracing::error!(%error, "the guard could not be ended");
        }
        let reason = match &result {
            Ok(()) => "stopped".to_owned(),
            Err(error) => format!("stopped because of an error: {error}"),
        };
        self.pipeline.say(format!(
            "sekimori-agent {reason}; what the policy forbids stays forbidden, and the kernel \
             programs keep records for the next start as far as they have room"
        ));
        self.pipeline.sign_off();
        self.link.renewing.abort();
        let shipped = self.link.shipper.drain(SHIP_DRAIN_TIMEOUT).await;
        if shipped.unacknowledged_bytes > 0 {
            let bytes = shipped.unacknowledged_bytes;
            tracing::warn!(bytes, "not all events were delivered; they wait on disk");
        }
        result.and(self.spool.close().map_err(RunError::from))
    }
}

/// The sentence about what was not recorded before this start.
fn gap(report: &RecoveryReport, took_over: bool) -> Option<String> {
    if report.clean {
        return None;
    }
    let since = report
        .last_record_time_ns
        .and_then(|ns| jiff::Timestamp::from_nanosecond(ns.into()).ok())
        .map_or_else(|| "an unknown time".to_owned(), |time| format!("{time:.3}"));
    let meanwhile = if took_over {
        "the policy stayed in force; what the rings had no room for is recorded as lost"
    } else {
        "nothing was recorded or enforced"
    };
    Some(format!(
        "the agent before this one did not stop in order: from {since} until now {meanwhile}"
    ))
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Waits until then, or for ever.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Makes what is flushed survive the machine, away from the loop: a disk may take its time.
fn sync_now_and_then(spool: SharedSpool, interval_ms: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = every(Duration::from_millis(interval_ms));
        loop {
            ticks.tick().await;
            let spool = spool.clone();
            match tokio::task::spawn_blocking(move || spool.sync()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the spool could not be synced"),
                Err(_) => return,
            }
        }
    })
}
