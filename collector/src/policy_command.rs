//! `sekimori-collector policy sign`: where the key is, which need not be where the collector is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use prost::Message as _;
use sekimori_collector::pki::PkiError;
use sekimori_collector::policy::open_key;
use sekimori_policy::limits::BUNDLE_BYTES_MAX;
use sekimori_policy::{NoDirectory, bundle, lint_bytes, load_bytes};
use sekimori_proto::v1::PolicyStatement;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Commands about policies.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Sign a policy for `sekimori policy put --signed`, with a key that is not at the collector.
    ///
    /// Move policy.key away from the collector's directory and leave policy.pub there: from then on
    /// the collector gives out what is signed with it and can make up nothing.
    Sign(SignArgs),
}

/// What is signed, and by which key.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// Policy.
    file: PathBuf,
    /// The key: policy.key of the collector's directory.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Higher than the last one (`sekimori policy rollout` shows it), or the last one's for more of
    /// its hosts.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epoch: u64,
    /// Only hosts with such a name; `*` is any text. May be repeated.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    hosts: Vec<String>,
    /// So many of a hundred of them.
    #[arg(
        long, value_name = "PERCENT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    canary: u32,
    /// Why; it is told to the hosts.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// Where the signed policy goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A policy that nobody should sign.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unusable(String);

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

/// Runs it.
pub fn run(command: Command) -> anyhow::Result<()> {
    let Command::Sign(args) = command;
    let text = fs::read(&args.file).map_err(failed("read", &args.file))?;
    let findings = lint_bytes(&text);
    for finding in &findings {
        eprintln!("{}:{finding}", args.file.display());
    }
    let Ok((compiled, _)) = load_bytes(&text, &NoDirectory, 1) else {
        return Err(Unusable(format!("{} has errors", args.file.display())).into());
    };
    // A key that is not there must not come into being by a wrong path.
    fs::metadata(&args.key).map_err(failed("read", &args.key))?;
    let key = open_key(&args.key)?;
    let statement = PolicyStatement {
        epoch: args.epoch,
        name: compiled.name,
        text_zstd: zstd::encode_all(text.as_slice(), 0)?,
        sha256: Sha256::digest(&text).to_vec(),
        hosts: args.hosts,
        percent: args.canary,
        reason: args.reason,
        by: format!("{}, signed elsewhere", crate::person()),
        time_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
    };
    bundle::check(&statement).map_err(|error| Unusable(error.to_string()))?;
    let signed = bundle::sign(&key, &statement).encode_to_vec();
    if signed.len() > BUNDLE_BYTES_MAX {
        let size = signed.len();
        let reason =
            format!("compressed and signed it has {size} bytes, at most {BUNDLE_BYTES_MAX}");
        return Err(Unusable(reason).into());
    }
    fs::write(&args.out, signed).map_err(failed("write", &args.out))?;
    println!(
        "signed epoch {} by the key {}; next: sekimori policy put --signed {} --reason …",
        args.epoch,
        bundle::key_text(&key.public()).trim(),
        args.out.display()
    );
    Ok(())
}
