//! Runs in the guest: scenarios that drive real programs under a real agent and collector, and
//! the demonstration.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod daemons;
mod demo;
mod disk;
mod flood;
mod guest;
mod ledger;
mod limits;
mod query;
mod records;
mod run;
mod scenario;
mod sink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Scenarios of Sekimori, run by root in a throw-away virtual machine.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios, one after the other
    Run(RunArgs),
    /// Show a leak that is seen, stopped, explained and recorded
    Demo,
    /// Count the instructions that operations take without and with the monitor
    Bench {
        /// Of other monitors, whose packages are unpacked there
        #[arg(long, value_name = "DIR")]
        peers: Option<std::path::PathBuf>,
        /// Only those that see no program that was there before them
        #[arg(long, hide = true)]
        audited: bool,
        /// Only operations with this in their name, and only with few rules
        #[arg(long, value_name = "TEXT", conflicts_with = "peers")]
        operation: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Only scenarios with one of these in their name
    names: Vec<String>,
    /// The same
    #[arg(long = "scenario", value_name = "NAME")]
    scenario: Vec<String>,
    /// Only every Nth scenario from the Ith on, for N guests that share the work
    #[arg(long, value_name = "I/N", value_parser = run::Part::parse)]
    part: Option<run::Part>,
    /// List the names and run nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let args = match cli.command {
        Some(Command::Demo) => return demo::main(),
        Some(Command::Bench { peers, audited, operation }) => {
            return bench::main(peers.as_deref(), audited, operation.as_deref());
        }
        Some(Command::Run(args)) => args,
        None => cli.run,
    };
    let names: Vec<String> = args.names.into_iter().chain(args.scenario).collect();
    if args.list {
        for scenario in run::chosen(&names, args.part) {
            println!("{}", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    run::scenarios(&names, args.part)
}
