//! `sekimori-agent`: the daemon.
#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sekimori_agent::config::{Address, CONFIG_PATH, Config, PolicyFrom};
use sekimori_agent::credentials::{self, Enrolment};
use sekimori_agent::run::{self, Options};
use tracing_subscriber::EnvFilter;

/// Exit code for a command line, configuration or policy that makes no sense.
const USAGE: u8 = 64;
/// Exit code for a lack of permission.
const NO_PERMISSION: u8 = 77;

/// Sees, stops, tells and records what leaves this machine.
#[derive(Debug, Parser)]
#[command(name = "sekimori-agent", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// What to log on stderr: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM, which leaves the policy in force. SIGHUP reads the policy again.
    Run(RunArgs),
    /// Check the configuration and its policy without starting anything.
    Check(FileArgs),
    /// Get this host's certificate from the collector, with a token of `sekimori-collector token`.
    Enroll(EnrollArgs),
    /// End enforcement, in an emergency: take the kernel programs off their hooks.
    Release(ReleaseArgs),
}

#[derive(Debug, clap::Args)]
struct ReleaseArgs {
    /// Configuration, for the place of the record.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Why; it is recorded together with who.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

#[derive(Debug, clap::Args)]
struct EnrollArgs {
    /// Configuration: it says where key and certificates go.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// https://HOST:PORT, when it is not the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    collector: Option<Address>,
    /// File with the token, for its owner only; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Give up the key that is there.
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Policy, instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Log lines of the kernel programs, for debugging them.
    #[arg(long)]
    program_logs: bool,
}

const EXAMPLES: &str = "\
Examples:
  sudo sekimori-agent run --config /etc/sekimori/agent.yaml
  sudo sekimori-agent enroll --token-file /root/token
  sekimori-agent check --config agent.yaml --policy policy.yaml
  sudo systemctl stop sekimori-agent && sudo sekimori-agent release --reason 'ticket 4711'

What the policy forbids stays forbidden when the agent ends, in whatever way; `release` ends it.

Exit codes: 0 stopped in order, 1 failed, 2 the policy has errors (check), 64 wrong usage,
configuration or policy, 69 this kernel cannot do it, 77 no permission.";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if let Err(error) = log_to_stderr(&cli.log) {
        return fail(USAGE, &format!("--log {:?}: {error}", cli.log));
    }
    match cli.command {
        Command::Run(args) => run_agent(args),
        Command::Check(args) => check(&args),
        Command::Enroll(args) => enroll(&args),
        Command::Release(args) => release(&args),
    }
}

fn log_to_stderr(level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

fn run_agent(args: RunArgs) -> ExitCode {
    let config = match Config::load(&args.files.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    // The kernel would fill the holes in what was freed after the start, in pages of 2 MiB.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sekimori")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    let FileArgs { config: path, policy } = args.files;
    let options = Options { config: path, policy, program_logs: args.program_logs };
    match runtime.block_on(run::run(config, options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn check(args: &FileArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    if config.policy_from == PolicyFrom::Collector {
        let missing = config.policy_key.iter().find(|path| !path.exists());
        if let Some(path) = missing {
            let path = path.display();
            eprintln!("note: without {path} nothing is taken from the collector: enrol again");
        }
    }
    let path = args.policy.as_ref().unwrap_or(&config.policy);
    match run::check_policy(path) {
        Ok((name, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            println!("{}: good; policy {name} in {}", args.config.display(), path.display());
            ExitCode::SUCCESS
        }
        Err(error @ run::PolicyError::Findings { .. }) => fail(2, &error.to_string()),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn enroll(args: &EnrollArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    let Some(tls) = &config.collector.tls else {
        let path = args.config.display();
        let reason = "collector.address needs no certificates: nothing to enrol for";
        return fail(USAGE, &format!("{path}: {reason}"));
    };
    let address = args.collector.as_ref().unwrap_or(&config.collector.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    let enrolled = credentials::read_token(&args.token_file).and_then(|token| {
        let policy_key = config.policy_key.as_deref();
        let (token, replace) = (&token, args.replace);
        let enrolment = Enrolment { address, tls, token, replace, policy_key };
        runtime.block_on(credentials::enroll(enrolment))
    });
    match enrolled {
        Ok(who) => {
            println!("enrolled as {who}; the certificate is {}", tls.cert.display());
            if *address != config.collector.address {
                let (path, set) = (args.config.display(), &config.collector.address);
                println!("note: {path} has collector.address {set}: change it to {address}");
            }
            ExitCode::SUCCESS
        }
        Err(error) if error.is_usage() => fail(USAGE, &error.to_string()),
        Err(error) if error.is_permission() => fail(NO_PERMISSION, &error.to_string()),
        Err(error) => fail(1, &error.to_string()),
    }
}

fn release(args: &ReleaseArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    match run::release(&config, &args.reason) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("sekimori-agent: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
