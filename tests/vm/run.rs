//! Runs scenarios one after the other under one agent and one collector.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::daemons::Daemons;
use crate::records::{self, Records};
use crate::scenario::{self, Scenario};

const DIRECTORY: &str = "/run/sekimori-scenarios";
const POLICY: &str = include_str!("scenario/policy.yaml");

/// How often a scenario is run in which the kernel does not call our programs.
const ATTEMPTS_MAX: u32 = 3;
/// The agent asks once a second how often that was.
const SKIPPED_TIME: Duration = Duration::from_secs(3);

/// What scenarios work with.
#[derive(Debug)]
pub struct World {
    /// Agent and collector.
    pub daemons: Daemons,
    /// What was stored since the scenario began.
    pub records: Records,
    /// Programs and open files that are older than the agent.
    pub older: scenario::Older,
    changed_policy: bool,
    special_agent: bool,
}

impl World {
    fn start() -> Result<Self> {
        let older = scenario::prepare().context("the files of the scenarios")?;
        let mut daemons = Daemons::prepare(Path::new(DIRECTORY))?;
        daemons.write_policy(POLICY)?;
        daemons.start_collector()?;
        let ordinary = daemons.ordinary();
        daemons.start_agent(&ordinary)?;
        let records = Records::of(daemons.collector_address());
        Ok(Self { daemons, records, older, changed_policy: false, special_agent: false })
    }

    /// Puts another policy in force until the scenario ends.
    ///
    /// # Errors
    /// When the agent refuses it.
    pub fn policy(&mut self, policy: &str) -> Result<()> {
        self.changed_policy = true;
        self.daemons.write_policy(policy)?;
        let output = self.daemons.reload()?;
        crate::check::ok(&output)
    }

    /// The policy file is no longer the usual one.
    pub fn policy_was_changed(&mut self) {
        self.changed_policy = true;
    }

    /// The agent was started with other options than the usual ones.
    pub fn special_agent(&mut self) {
        self.special_agent = true;
    }

    /// The usual policy with `rules` added to it, lines of YAML below `rules:`.
    #[must_use]
    pub fn usual_policy_and(rules: &str) -> String {
        format!("{POLICY}{rules}")
    }

    /// Brings back what a scenario may have left ended or changed.
    fn restore(&mut self) -> Result<()> {
        self.daemons.start_collector()?;
        if std::mem::take(&mut self.special_agent) {
            self.daemons.end_agent(Signal::SIGTERM)?;
        }
        if std::mem::take(&mut self.changed_policy) {
            self.daemons.write_policy(POLICY)?;
            if self.daemons.agent_lives() {
                crate::check::ok(&self.daemons.reload()?)?;
            }
        }
        self.restore_agent()
    }

    /// Starts the usual agent again when it ended.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restore_agent(&mut self) -> Result<()> {
        if self.daemons.agent_lives() {
            return Ok(());
        }
        let _ = self.daemons.end_agent(Signal::SIGTERM);
        let ordinary = self.daemons.ordinary();
        self.daemons.start_agent(&ordinary)
    }

    fn run(&mut self, scenario: &Scenario) -> Result<()> {
        self.restore().context("before the scenario")?;
        self.records.forget()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(self)));
        outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the scenario itself panicked")))?;
        // Some scenarios end their own agent.
        let lives = self.special_agent || self.daemons.agent_lives();
        crate::check::that(lives, "the agent ended during the scenario")
    }

    /// Runs it again when it failed while the kernel did not call programs of ours: what they would
    /// have seen is accounted as lost, and a scenario cannot do without it.
    fn run_undisturbed(&mut self, scenario: &Scenario) -> Result<()> {
        for attempt in 1.. {
            let Err(error) = self.run(scenario) else { break };
            if attempt == ATTEMPTS_MAX || !self.was_disturbed() {
                return Err(error);
            }
            println!(
                "scenario: AGAIN {}, as the kernel skipped programs: {error:#}",
                scenario.name
            );
        }
        Ok(())
    }

    fn was_disturbed(&self) -> bool {
        std::thread::sleep(SKIPPED_TIME);
        let losses = self.records.search(&["--kind", "loss"]).unwrap_or_default();
        losses.iter().any(|it| records::text(it, "/loss/stage") == "hook")
    }
}

/// A share of the scenarios: every `of`th from the `first`th on, which counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    first: usize,
    of: usize,
}

impl Part {
    /// From `I/N`.
    ///
    /// # Errors
    /// When it is not that, or I is not within 1 and N.
    pub fn parse(text: &str) -> Result<Self> {
        let (first, of) = text.split_once('/').context("give it as 1/2")?;
        let part = Self { first: first.parse()?, of: of.parse()? };
        anyhow::ensure!((1..=part.of).contains(&part.first), "{text} is no part");
        Ok(part)
    }
}

/// The scenarios with one of `names` in their name; all when there is none.
pub fn chosen(names: &[String], part: Option<Part>) -> Vec<Scenario> {
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let all = scenario::all().into_iter().filter(|scenario| wanted(&scenario.name));
    let Part { first, of } = part.unwrap_or(Part { first: 1, of: 1 });
    all.skip(first - 1).step_by(of).collect()
}

/// Runs scenarios; prints one line each and the sums.
pub fn scenarios(names: &[String], part: Option<Part>) -> ExitCode {
    let chosen = chosen(names, part);
    if chosen.is_empty() {
        eprintln!("no scenario has {names:?} in its name: see --list");
        return ExitCode::from(64);
    }
    let (mut passed, mut failed) = (0, 0);
    match World::start() {
        Ok(mut world) => {
            for scenario in &chosen {
                let started = Instant::now();
                let name = &scenario.name;
                match world.run_undisturbed(scenario) {
                    Ok(()) => {
                        passed += 1;
                        println!(
                            "scenario: PASS {name} ({:.1} s)",
                            started.elapsed().as_secs_f32()
                        );
                    }
                    Err(error) => {
                        failed += 1;
                        let why = format!("{error:#}").replace('\n', " / ");
                        println!("scenario: FAIL {name}: {why}");
                    }
                }
            }
            if failed > 0 {
                eprintln!("--- the end of the agent's log\n{}", world.daemons.log("agent.log"));
            }
        }
        Err(error) => {
            failed += 1;
            let why = format!("{error:#}").replace('\n', " / ");
            println!("scenario: FAIL start: {why}");
        }
    }
    println!("scenarios: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
