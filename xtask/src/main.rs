//! Set-up, build, VM, demo and tests: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod cache;
mod demo;
mod fuzz;
mod process;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Fetch what the machine lacks: tools, the core library's source, kernels
    Setup(setup::Options),
    /// Build the kernel programs and the programs that use them
    Build(build::Options),
    /// Run a command, or a shell, in a VM with this machine's programs and USB sticks
    Vm(vm::Options),
    /// Run every test: unit tests here, scenarios in a VM on every kernel of the matrix
    Test(test::Options),
    /// Show in a VM how a leak is seen, stopped and recorded
    Demo,
    /// Count in a VM how many instructions operations take without and with the monitor; with
    /// `collector`, measure here what the collector bears
    Bench(bench::Options),
    /// Feed any bytes to what reads records, kernel types, traffic and policies
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Vm(options) => vm::run(options).map(ExitCode::from),
        Task::Test(options) => test::run(&options).map(ExitCode::from),
        Task::Bench(options) => bench::run(&options).map(ExitCode::from),
        Task::Fuzz(options) => fuzz::run(&options).map(ExitCode::from),
        Task::Demo => demo::run().map(ExitCode::from),
        Task::Build(options) => build::run(options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(1)
    })
}
