//! `cargo xtask test`: unit tests on this machine, then the scenarios on every kernel.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::setup::kernels::{Matrix, Series};
use crate::vm::{self, Lines, Request, Show, Stick};
use crate::{build, process, setup};

/// The guest program of the crate `tests`.
pub const SCENARIOS: &str = "sekimori-scenarios";
/// The sticks that the scenarios find plugged.
const STICKS: [&str; 2] = ["64M:SEKI0001:vfat", "64M:SEKI0002:ext4"];
/// All scenarios of one kernel, under the translator, on a busy machine.
const GUEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// The longest of them, and more: a guest that hangs does not hold up the others for an hour.
const GUEST_SILENCE: Duration = Duration::from_secs(900);

/// Which tests to run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Only this kernel series; may be given several times
    #[arg(long, value_name = "SERIES")]
    pub kernel: Vec<String>,
    /// No VM
    #[arg(long)]
    pub unit_only: bool,
    /// Kernels that run at the same time; each guest takes one processor of this machine [default:
    /// as many as there are processors]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Only scenarios with this in their name, and no unit tests
    #[arg(long, value_name = "NAME", conflicts_with = "unit_only")]
    pub scenario: Option<String>,
}

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    passed: usize,
    failed: usize,
}

/// One line of the final table.
#[derive(Debug)]
struct Row {
    name: String,
    result: Outcome,
    took: Duration,
}

/// How one row went.
#[derive(Debug, Default)]
struct Outcome {
    count: Count,
    note: String,
    /// What failed and why, one line each.
    failures: Vec<String>,
}

impl Outcome {
    /// Something did not get far enough to count its own tests.
    fn not_run(note: String) -> Self {
        Self { count: Count { passed: 0, failed: 1 }, note, failures: Vec::new() }
    }
}

/// Runs the tests; the last line on stdout is `N passed, M failed`. Returns the exit status.
///
/// # Errors
/// When the matrix cannot be read. Everything else that goes wrong is counted as a failure.
pub fn run(options: &Options) -> Result<u8> {
    let repository = process::repository()?;
    let matrix = Matrix::read()?;
    for name in &options.kernel {
        matrix.series(Some(name))?;
    }
    let wanted = setup::Options { refresh: false, kernel: options.kernel.clone() };
    if let Err(error) = setup::run(&wanted) {
        // What is missing shows up below as failures of what needs it.
        eprintln!("setup: {error:#}");
    }
    let kernel_programs = build::kernel_programs(&repository);
    let programs = programs(&repository, options);
    let mut rows = Vec::new();
    if options.scenario.is_none() {
        rows.push(row("unit tests", || unit_tests(&repository)));
    }
    if !options.unit_only {
        let built = kernel_programs.and(programs);
        rows.extend(on_every_kernel(&matrix, options, &built));
    } else if let Err(error) = kernel_programs {
        rows.push(row("kernel programs", || Outcome::not_run(format!("not built: {error:#}"))));
    }
    Ok(report(&rows))
}

/// Boots the chosen kernels, a few at a time.
fn on_every_kernel(matrix: &Matrix, options: &Options, built: &Result<()>) -> Vec<Row> {
    let chosen =
        |series: &&Series| options.kernel.is_empty() || options.kernel.contains(&series.series);
    let chosen: Vec<_> = matrix.kernel.iter().filter(chosen).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(processors).max(1);
    let one = |guest: &Guest<'_>| {
        row(&guest.name(), || match built {
            Ok(()) => scenarios(guest, options.scenario.as_deref()),
            Err(error) => Outcome::not_run(format!("not built: {error:#}")),
        })
    };
    let waiting = Mutex::new(guests(&chosen, jobs, options.scenario.is_none()).into_iter());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let work = || std::iter::from_fn(&next).map(|guest| one(&guest)).collect::<Vec<_>>();
    let mut rows = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let crashed = || vec![row("linux", || Outcome::not_run("crashed".to_owned()))];
        let done = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| crashed()));
        done.flatten().collect::<Vec<_>>()
    });
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

/// One boot of one kernel, with all scenarios or a part of them.
#[derive(Debug)]
struct Guest<'a> {
    series: &'a Series,
    /// Which part, of how many.
    part: (usize, usize),
}

impl Guest<'_> {
    fn name(&self) -> String {
        match self.part {
            (_, 1) => format!("linux {}", self.series.series),
            (part, of) => format!("linux {} {part}/{of}", self.series.series),
        }
    }

    /// What the guest is told.
    fn part(&self) -> Option<String> {
        let (part, of) = self.part;
        (of > 1).then(|| format!("{part}/{of}"))
    }
}

/// One guest for each kernel. The last kernels, which would leave processors idle, are parted.
fn guests<'a>(chosen: &[&'a Series], jobs: usize, parted: bool) -> Vec<Guest<'a>> {
    let rest = chosen.len() % jobs;
    let whole = chosen.len() - rest;
    let of = |index| if parted && index >= whole { jobs / rest } else { 1 };
    let parts = |(index, series): (usize, &&'a Series)| {
        let (series, of) = (*series, of(index));
        (1..=of).map(move |part| Guest { series, part: (part, of) })
    };
    chosen.iter().enumerate().flat_map(parts).collect()
}

/// Builds what the tests need; unit tests that do not build leave the scenarios a chance.
fn programs(repository: &Path, options: &Options) -> Result<()> {
    if options.scenario.is_none() && build::user_programs_and_tests(repository).is_ok() {
        return Ok(());
    }
    if options.unit_only {
        return Ok(());
    }
    build::user_programs(repository, false)
}

fn row(name: &str, tests: impl FnOnce() -> Outcome) -> Row {
    let started = Instant::now();
    let result = tests();
    Row { name: name.to_owned(), result, took: started.elapsed() }
}

fn report(rows: &[Row]) -> u8 {
    let mut sum = Count::default();
    println!("\n{:<16} {:>6} {:>6} {:>7}", "", "passed", "failed", "time");
    for Row { name, result: Outcome { count, note, .. }, took } in rows {
        let (passed, failed) = (count.passed, count.failed);
        let line = format!("{name:<16} {passed:>6} {failed:>6} {:>5} s  {note}", took.as_secs());
        println!("{}", line.trim_end());
        sum.passed += passed;
        sum.failed += failed;
    }
    // Once more at the end, where whoever reads a long log looks first.
    for Row { name, result, .. } in rows {
        result.failures.iter().for_each(|failure| println!("{name}: {failure}"));
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    u8::from(sum.failed > 0)
}

fn unit_tests(repository: &Path) -> Outcome {
    println!("test   unit tests");
    match nextest(repository) {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Outcome::not_run("they do not build".to_owned()),
        Err(error) => Outcome::not_run(format!("{error:#}")),
    }
}

/// Runs the unit tests and reads the summary; there is none when they do not build.
fn nextest(repository: &Path) -> Result<Option<Outcome>> {
    let mut cargo = build::cargo(repository);
    cargo.args(["nextest", "run", "--no-fail-fast", "--color", "never"]);
    cargo.args(["--status-level", "fail", "--final-status-level", "fail"]);
    let mut child = cargo
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cargo nextest: run `cargo xtask setup`")?;
    let mut count = None;
    let mut failures = Vec::new();
    let stderr = child.stderr.take().context("cargo has no stderr")?;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        println!("{line}");
        count = unit_summary(&line).or(count);
        if count.is_some() && is_unit_failure(&line) {
            failures.push(line.trim().to_owned());
        }
    }
    let status = child.wait()?;
    Ok(count.map(|count| Outcome {
        count: at_least_one_failure(count, status.success()),
        failures,
        ..Outcome::default()
    }))
}

/// The final list names each failed test once more, behind the summary.
fn is_unit_failure(line: &str) -> bool {
    let first = line.split_whitespace().next();
    first.is_some_and(|word| ["FAIL", "SIGABRT", "SIGSEGV", "TIMEOUT"].contains(&word))
}

/// Reads `Summary [ 1.2s] 5 tests run: 3 passed, 2 failed, 0 skipped`. What did not pass failed,
/// whatever nextest calls it.
fn unit_summary(line: &str) -> Option<Count> {
    let (_, rest) = line.trim_start().strip_prefix("Summary [")?.split_once(']')?;
    let (run, results) = rest.split_once(" run: ")?;
    let run = run.split_whitespace().next()?;
    // `3/5` when the run was cut short: the others did not pass either.
    let run: usize = run.rsplit('/').next()?.parse().ok()?;
    let words: Vec<_> = results.split_whitespace().collect();
    let passed = words
        .windows(2)
        .find(|pair| matches!(pair, [_, word] if word.starts_with("passed")))
        .and_then(|pair| pair.first()?.parse().ok())
        .unwrap_or(0);
    Some(Count { passed, failed: run.saturating_sub(passed) })
}

/// Boots a guest and has it run its scenarios.
fn scenarios(guest: &Guest<'_>, filter: Option<&str>) -> Outcome {
    let series = guest.series;
    println!("test   scenarios on {}", guest.name());
    let kernel = match series.ensure(false) {
        Ok(kernel) => kernel,
        Err(error) => return Outcome::not_run(format!("no kernel: {error:#}")),
    };
    let lines = Lines::default();
    let outcome = sticks().and_then(|sticks| {
        let show = Show::Prefixed(format!("{} | ", series.series), Arc::clone(&lines));
        let part = guest.part();
        let filter = filter.map(|name| ["--scenario", name]);
        let part = part.as_deref().map(|part| ["--part", part]);
        let arguments = filter.into_iter().chain(part).flatten();
        let command = std::iter::once(SCENARIOS).chain(arguments).map(str::to_owned).collect();
        vm::boot(&Request {
            timeout: Some(GUEST_TIMEOUT),
            silence: Some(GUEST_SILENCE),
            command,
            ..Request::new(series.series.clone(), sticks, show)
        })
    });
    let (mut count, mut failures) = scenario_results(&lines);
    let note = match outcome {
        Ok(outcome) => {
            count = at_least_one_failure(count, outcome.status == 0 && count.passed > 0);
            format!("{}, booted in {} s", kernel.release, outcome.boot.as_secs())
        }
        Err(error) => {
            count.failed += 1;
            failures.push(format!("{error:#}"));
            kernel.release
        }
    };
    Outcome { count, note, failures }
}

/// The sticks that scenarios and the demonstration find plugged.
///
/// # Errors
/// Never, unless the table above is wrong.
pub fn sticks() -> Result<Vec<Stick>> {
    STICKS.iter().map(|text| text.parse()).collect()
}

/// A run that says it failed has a failure, even when it counted none.
fn at_least_one_failure(count: Count, success: bool) -> Count {
    let failed = if success { count.failed } else { count.failed.max(1) };
    Count { failed, ..count }
}

/// Counts `scenario: PASS …` and `scenario: FAIL …`, and gives the latter without that word.
fn scenario_results(lines: &Mutex<Vec<String>>) -> (Count, Vec<String>) {
    let Ok(lines) = lines.lock() else {
        return (Count { passed: 0, failed: 1 }, Vec::new());
    };
    let passed = lines.iter().filter(|line| line.starts_with("scenario: PASS")).count();
    let failures: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("scenario: FAIL "))
        .map(str::to_owned)
        .collect();
    (Count { passed, failed: failures.len() }, failures)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{
        Count, Guest, Series, at_least_one_failure, guests, scenario_results, unit_summary,
    };

    #[test]
    fn summaries_are_read() {
        let cases = [
            ("     Summary [   0.1s] 12 tests run: 12 passed, 3 skipped", Some((12, 0))),
            (
                "     Summary [ 61.2s] 5 tests run: 3 passed (1 slow), 2 failed, 0 skipped",
                Some((3, 2)),
            ),
            ("     Summary [   1s] 3/9 tests run: 2 passed, 1 timed out, 0 skipped", Some((2, 7))),
            ("     Summary [   1s] 1 test run: 0 passed, 1 failed, 0 skipped", Some((0, 1))),
            ("        PASS [   0.004s] xtask", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(passed, failed)| Count { passed, failed });
            assert_eq!(unit_summary(line), expected, "{line}");
        }
    }

    #[test]
    fn kernels_that_would_leave_processors_idle_are_parted() {
        let series = ["6.1", "6.12", "7"]
            .map(|name| Series { series: name.to_owned(), package: String::new() });
        let chosen: Vec<_> = series.iter().collect();
        let names = |kernels: usize, jobs| {
            let guests = guests(&chosen[..kernels], jobs, true);
            guests.iter().map(Guest::name).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(names(3, 2), "linux 6.1, linux 6.12, linux 7 1/2, linux 7 2/2");
        assert_eq!(names(2, 2), "linux 6.1, linux 6.12");
        assert_eq!(names(3, 1), "linux 6.1, linux 6.12, linux 7");
        assert_eq!(names(1, 2), "linux 6.1 1/2, linux 6.1 2/2");
        assert_eq!(names(3, 8).matches("1/2").count(), 3);
        assert_eq!(names(0, 2), "");
    }

    #[test]
    fn scenarios_are_counted_from_their_lines() {
        let lines = ["scenario: PASS a", "x scenario: PASS no", "scenario: FAIL b: why"];
        let lines = Mutex::new(lines.map(str::to_owned).to_vec());
        let expected = (Count { passed: 1, failed: 1 }, vec!["b: why".to_owned()]);
        assert_eq!(scenario_results(&lines), expected);
    }

    #[test]
    fn a_failing_status_without_failures_is_one() {
        let count = Count { passed: 4, failed: 0 };
        assert_eq!(at_least_one_failure(count, true), count);
        assert_eq!(at_least_one_failure(count, false), Count { passed: 4, failed: 1 });
    }
}
