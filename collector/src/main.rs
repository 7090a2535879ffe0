//! `sekimori-collector`: the daemon, and the commands that make certificates and tokens.
#![forbid(unsafe_code)]

#[path = "archive_command.rs"]
mod archive;
#[path = "policy_command.rs"]
mod policy;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sekimori_collector::alert::{Rules, RulesError};
use sekimori_collector::archive::ArchiveError;
use sekimori_collector::config::{Config, LISTEN_DEFAULT};
use sekimori_collector::desk::{self, Note, Phase};
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::limits::{PEER_DAYS_MAX, SILENT_AFTER_MIN, TOKEN_TIME_MAX, TOKEN_TIME_MIN};
use sekimori_collector::otlp::OtlpConfig;
use sekimori_collector::pki::{self, Life, Offer, PEER_DAYS, PkiError};
use sekimori_collector::policy::Keys;
use sekimori_collector::question::of_command;
use sekimori_collector::server::{Collector, ServerError};
use sekimori_collector::store::{Keep, StoreError};
use sekimori_collector::tls::TlsError;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 64;
const EXIT_NO_PERMISSION: u8 = 77;

const AFTER_HELP: &str = "\
First `init` once, then `run`. `token NAME` prints a token, with which a host enrols by itself \
(`sekimori-agent enroll`), or with --role someone who asks (`sekimori enroll`). `enroll NAME` makes \
key and certificate here instead.

Roles: a viewer sees how the hosts stand and counts that tell nothing of people, an analyst reads \
every record, an admin may also change things. What they read is a record itself \
(`sekimori search --kind operator`).

Exit codes: 0 done, 1 failed, 64 wrong usage or configuration, 77 no permission.
SEKIMORI_LOG sets what is logged, for instance `debug` or `sekimori_collector=trace`.";

#[derive(Debug, Parser)]
#[command(version, about = "Receives, stores and serves the records of many hosts")]
#[command(after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority and the collector's own certificate. Overwrites nothing.
    Init {
        /// Directory for certificates, keys and the store; made for its owner only.
        #[arg(long)]
        dir: PathBuf,
        /// Host name or IP address at which agents reach the collector, besides localhost and this
        /// host's name. May be repeated.
        #[arg(long = "name", value_name = "HOST_OR_IP")]
        names: Vec<String>,
    },
    /// Make the certificate of one agent or operator.
    Enroll {
        /// Name of the host, or of the operator: 1 to 64 of a-z A-Z 0-9 . _ -
        name: String,
        /// Directory that `init` made.
        #[arg(long)]
        dir: PathBuf,
        /// Where ca.pem, cert.pem and key.pem go [default: agents/NAME or ROLEs/NAME in DIR].
        #[arg(long)]
        out: Option<PathBuf>,
        /// For someone who asks, not for a host that delivers: viewer, analyst or admin.
        #[arg(long)]
        role: Option<Rank>,
        /// Days that the certificate is valid. Agents and operators renew theirs by themselves.
        #[arg(long, default_value_t = PEER_DAYS, value_parser = days())]
        days: u32,
    },
    /// Print a token, with which one host or operator can enrol once. It is shown once and kept
    /// nowhere. A collector that runs takes it without a restart.
    Token {
        /// Name of the host, or of the operator: 1 to 64 of a-z A-Z 0-9 . _ -
        name: String,
        /// Directory that `init` made.
        #[arg(long)]
        dir: PathBuf,
        /// What the certificate lets its holder do: agent, viewer, analyst or admin.
        #[arg(long, default_value_t = Role::Agent)]
        role: Role,
        /// How long the token is good for, from 1m to 30d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = token_time)]
        valid: Duration,
        /// Days that the certificate will be valid.
        #[arg(long, default_value_t = PEER_DAYS, value_parser = days())]
        days: u32,
    },
    /// Refuse every certificate that an agent or operator was given up to now. A collector that runs
    /// ends their connections within seconds; `enroll` makes a new one.
    Revoke {
        /// Name of the host, or of the operator.
        name: String,
        /// Directory that `init` made.
        #[arg(long)]
        dir: PathBuf,
        /// For the certificates that the name was given with this role: viewer, analyst or admin.
        #[arg(long)]
        role: Option<Rank>,
        /// Why, for those who ask later.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Policies for the hosts.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Receive, store and serve until SIGTERM or SIGINT.
    Run {
        /// Directory that `init` made.
        #[arg(long)]
        dir: PathBuf,
        /// Address and port; port 0 takes a free one. Everyone needs a certificate here.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN_DEFAULT)]
        listen: SocketAddr,
        /// Also listen on this unix socket, without certificates: root and the collector's own user
        /// are admins there, and root may deliver this host's own events.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// The store's directory [default: store in DIR].
        #[arg(long, value_name = "PATH")]
        store: Option<PathBuf>,
        /// Remove events that arrived more than so many days ago [default: keep them].
        #[arg(long, value_name = "DAYS")]
        keep_days: Option<u32>,
        /// Remove the oldest events when the store is larger than so many GiB [default: keep them].
        #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
        keep_gib: Option<u64>,
        /// A host that gives no sign of life for so long is silent, which is a record.
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = silent_time)]
        silent_after: Duration,
        /// Rules of alerts and whom they tell [default: alerts.yaml in DIR, if there is one].
        #[arg(long, value_name = "FILE")]
        alerts: Option<PathBuf>,
        /// Bus on which several collectors are [default: bus.yaml in DIR, if there is one].
        #[arg(long, value_name = "FILE")]
        bus: Option<PathBuf>,
        /// Send every stored event as OTLP logs over gRPC: https://HOST:PORT, or http:// and an
        /// address of this machine.
        #[arg(long, value_name = "URL")]
        otlp: Option<String>,
        /// Authorities that may vouch for it [default: those of the system].
        #[arg(long, value_name = "FILE", requires = "otlp")]
        otlp_ca: Option<PathBuf>,
        /// Headers for it, lines of NAME: VALUE; nobody else may read the file.
        #[arg(long, value_name = "FILE", requires = "otlp")]
        otlp_headers: Option<PathBuf>,
    },
    /// Say whether a file of alert rules is right; what it refers to is read, nothing is sent.
    CheckAlerts {
        /// The file.
        file: PathBuf,
    },
    /// Write the files of the store as Parquet, for other tools and for years: all but the newest,
    /// which is still written to. The store is only read; a collector may run. What the archive has
    /// is not written again.
    Archive(archive::Arguments),
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(PEER_DAYS_MAX))
}

fn token_time(text: &str) -> Result<Duration, String> {
    time_between(text, TOKEN_TIME_MIN, TOKEN_TIME_MAX)
}

fn silent_time(text: &str) -> Result<Duration, String> {
    time_between(text, SILENT_AFTER_MIN, TOKEN_TIME_MAX)
}

/// A time as `90s`, `5m`, `1h 30m` or `2d`.
fn time_between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let time = time.ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| (least..=most).contains(time)).ok_or_else(|| {
        format!("expected {} s to {} days", least.as_secs(), most.as_secs() / 86_400)
    })
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // Nothing is left to say when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match execute(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            // The errors of this crate tell their causes themselves.
            eprintln!("sekimori-collector: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init { dir, names } => {
            pki::init(&dir, &names)?;
            Keys::open(&dir)?;
            println!("made the authority and the collector's certificate in {}", dir.display());
            println!("next: sekimori-collector token NAME --dir {}", dir.display());
        }
        Command::Enroll { name, dir, out, role, days } => {
            let role = role.map_or(Role::Agent, Role::Operator);
            let out = pki::enroll_for(&dir, &name, role, Life::days(days), out.as_deref())?;
            let options = [("--role", Some(role.to_string())), ("--days", Some(days.to_string()))];
            note_if_possible(&dir, "Enroll", of_command(Some(&name), &options));
            println!("made the certificate of {role} {name} in {}", out.display());
        }
        Command::Token { name, dir, role, valid, days } => {
            let offer = Offer { name: &name, role, valid, days, by: &person() };
            let token = pki::issue_token(&dir, &offer)?;
            let options = [
                ("--role", Some(role.to_string())),
                ("--days", Some(days.to_string())),
                ("--valid", Some(format!("{}s", valid.as_secs()))),
            ];
            note(&dir, "Token", of_command(Some(&name), &options))?;
            println!("{token}");
            let program = if role == Role::Agent { "sudo sekimori-agent" } else { "sekimori" };
            eprintln!(
                "a token for {role} {name}, good once and for {} minutes; with it in a file there: \
                 {program} enroll --collector https://HOST:PORT --token-file FILE",
                valid.as_secs() / 60,
            );
        }
        Command::Revoke { name, dir, role, reason } => {
            let role = role.map_or(Role::Agent, Role::Operator);
            pki::revoke(&dir, &name, role, &reason)?;
            let reason = Some(reason).filter(|it| !it.is_empty());
            let options = [("--role", Some(role.to_string())), ("--reason", reason)];
            note_if_possible(&dir, "Revoke", of_command(Some(&name), &options));
            println!("the certificates of {role} {name} are refused from now on");
            if !dir.join(format!("{role}s")).join(&name).exists() {
                eprintln!(
                    "note: no certificate was made in {} for that name; one that came by token is \
                     refused all the same",
                    dir.display()
                );
            }
            let option = match role {
                Role::Agent => String::new(),
                Role::Operator(rank) => format!(" --role {rank}"),
            };
            println!(
                "to let it in again: sekimori-collector token {name}{option} --dir {}, and there \
                 enroll with --replace",
                dir.display()
            );
        }
        Command::Policy(command) => policy::run(command)?,
        Command::Run {
            dir,
            listen,
            socket,
            store,
            keep_days,
            keep_gib,
            silent_after,
            alerts,
            bus,
            otlp,
            otlp_ca,
            otlp_headers,
        } => {
            let keep = Keep { days: keep_days, bytes: keep_gib.map(|it| it << 30) };
            let mut config =
                Config { keep, silent_after, ..Config::new(dir, listen, socket, store) };
            config.alerts = alerts.unwrap_or(config.alerts);
            config.bus = bus.unwrap_or(config.bus);
            config.otlp = otlp.map(|url| OtlpConfig { url, ca: otlp_ca, headers: otlp_headers });
            run(&config)?;
        }
        Command::CheckAlerts { file } => {
            let Rules { rules, endpoints } = Rules::read(&file)?;
            println!("{} rules and {} endpoints are right", rules.len(), endpoints.len());
            for rule in rules.iter().filter(|rule| rule.to.is_empty()) {
                eprintln!("note: {} tells nobody: it has no `to`", rule.name);
            }
        }
        Command::Archive(arguments) => return archive::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the collector record what was done here.
fn note(dir: &Path, method: &str, question: String) -> Result<(), PkiError> {
    note_part(dir, method, question, (Phase::Whole, 0))
}

/// The same of a part of it, with how many events were given.
fn note_part(
    dir: &Path,
    method: &str,
    question: String,
    (phase, answered): (Phase, u64),
) -> Result<(), PkiError> {
    let method = method.to_owned();
    desk::leave(dir, Note { by: person(), method, question, answered, phase })
}

/// The same of what is done and holds whatever becomes of the note.
fn note_if_possible(dir: &Path, method: &str, question: String) {
    if let Err(error) = note(dir, method, question) {
        eprintln!("sekimori-collector: what follows holds, and is not recorded: {error}");
    }
}

/// Whoever runs this process, for the record of what they do: uid, and login uid where
/// the session has one.
fn person() -> String {
    let uid = nix::unistd::getuid();
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    match login.trim().parse::<u32>() {
        Ok(login) if login != u32::MAX => format!("uid {uid} (login uid {login})"),
        _ => format!("uid {uid}"),
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("SEKIMORI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is bound, so that no signal can come too early.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let collector = Collector::bind(config).await?;
        let stop = collector.stopper();
        match &config.socket {
            None => tracing::info!("listening on {}", collector.address()),
            Some(path) => {
                tracing::info!("listening on {} and {}", collector.address(), path.display());
            }
        }
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "the service manager could not be told that all is ready");
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            stop.stop();
        });
        collector.serve().await?;
        tracing::info!("stopped; everything acknowledged is stored");
        Ok(())
    })
}

/// What the caller did wrong is 64, what he may not do is 77, the rest is 1.
fn exit_code(error: &anyhow::Error) -> u8 {
    let denied = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    let tls = error.downcast_ref::<ServerError>().is_some_and(
        |error| matches!(error, ServerError::Tls(error) if error.is_permission_denied()),
    );
    let bucket = error.downcast_ref::<ArchiveError>().is_some_and(archive::is_permission_denied);
    if denied || tls || bucket {
        return EXIT_NO_PERMISSION;
    }
    let pki = error.downcast_ref::<PkiError>().is_some_and(|error| {
        !matches!(error, PkiError::File { .. } | PkiError::Certificate { .. })
    });
    let server = error.downcast_ref::<ServerError>().is_some_and(|error| {
        matches!(
            error,
            ServerError::Tls(TlsError::Missing { .. })
                | ServerError::Bus(_)
                | ServerError::Otlp(_)
                | ServerError::Store(StoreError::Foreign(_) | StoreError::Newer { .. })
        )
    });
    let rules = error.downcast_ref::<RulesError>().is_some();
    let policy = error.downcast_ref::<policy::Unusable>().is_some();
    let archive = error.downcast_ref::<ArchiveError>().is_some_and(archive::is_usage);
    if pki || server || rules || policy || archive { EXIT_USAGE } else { EXIT_FAILED }
}
