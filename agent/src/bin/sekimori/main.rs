//! `sekimori`: the operator's command line.
#![forbid(unsafe_code)]

mod alerts;
mod attack;
mod case;
mod collector;
mod doctor;
mod enroll;
mod failure;
mod filter;
mod fleet;
mod format;
mod isolate;
mod line;
mod policy;
mod replay;
mod rollout;
mod search;
mod status;
mod time;
mod top;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Watch what leaves this fleet, ask what left it, and look after policies.
#[derive(Debug, Parser)]
#[command(name = "sekimori", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show events as they happen.
    Watch(watch::Args),
    /// Find stored events.
    Search(search::Args),
    /// Count stored events in groups: by user, device, destination, hour and more.
    Top(top::Args),
    /// Say whether records are what their hosts signed: those of the collector, or of a case.
    Verify(verify::Args),
    /// Write records into one file, with what proves them.
    Case(case::Args),
    /// Say how the agent and the collector stand.
    Status(status::Args),
    /// Say how every host stands: version, policy, last sign of life, losses, certificate.
    Fleet(fleet::Args),
    /// Cut a host off from every peer but itself and the collector.
    Isolate(isolate::Args),
    /// Let a host that was cut off back onto the network.
    Release(isolate::Args),
    /// Get your certificate from the collector, with a token that somebody made for you.
    Enroll(enroll::Args),
    /// Try out whether this kernel can do the job.
    Doctor(doctor::Args),
    Alerts(alerts::Args),
    /// Check, explain and reload policies, and give them to the hosts.
    #[command(subcommand)]
    Policy(policy::Command),
}

const EXAMPLES: &str = "\
Examples:
  sekimori watch --verdict denied
  sekimori search --kind usb.write --user alice --since '2 hours ago'
  sekimori search --text 顧客 --newest --limit 20 --json
  sekimori top --by user,device --kind usb.write --order bytes --since '30 days ago'
  sekimori search --where 'file.size > 1000000 && process.uid != 0'
  sekimori alerts --open
  sekimori verify
  sekimori policy lint policy.yaml
  sekimori doctor

Exit codes: 0 done, 1 failed, 2 a policy has errors or records are not as they were signed, 64 wrong usage, 69 this kernel cannot do it,
77 no permission.";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; everything else is wrong usage.
            let code = if error.use_stderr() { failure::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Watch(args) => in_runtime(watch::run(args)),
        Command::Search(args) => in_runtime(search::run(args)),
        Command::Top(args) => in_runtime(top::run(args)),
        Command::Verify(args) => in_runtime(verify::run(args)),
        Command::Case(args) => in_runtime(case::run(args)),
        Command::Status(args) => in_runtime(status::run(args)),
        Command::Fleet(args) => in_runtime(fleet::run(args)),
        Command::Alerts(args) => in_runtime(alerts::run(args)),
        Command::Isolate(args) => in_runtime(isolate::isolate(args)),
        Command::Release(args) => in_runtime(isolate::release(args)),
        Command::Enroll(args) => in_runtime(enroll::run(args)),
        Command::Doctor(args) => doctor::run(args),
        Command::Policy(command) => policy::run(command),
    }
}

fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
