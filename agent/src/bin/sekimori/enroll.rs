//! `sekimori enroll`.

use std::io::Write as _;
use std::path::PathBuf;

use sekimori_agent::credentials::{self, Enrolment};

use crate::collector::CollectorArgs;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  export SEKIMORI_COLLECTOR=https://collector.example:7443
  export SEKIMORI_CA=~/.sekimori/ca.pem SEKIMORI_CERT=~/.sekimori/cert.pem
  export SEKIMORI_KEY=~/.sekimori/key.pem
  sekimori enroll --token-file token

The key is made here and never leaves this machine. Your certificate is renewed by itself when you
use it in the last third of its life.";

/// Makes a key, and gets the certificate for it with a token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File with the token, for its owner only; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Give up the key that is there.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let (address, tls) = args.collector.enrolment()?;
    let failed = |error: credentials::CredentialsError| match () {
        () if error.is_usage() => Failure::usage(error.to_string()),
        () if error.is_permission() => Failure::permission(error.to_string()),
        () => Failure::failed(error.to_string()),
    };
    let token = credentials::read_token(&args.token_file).map_err(failed)?;
    let (token, replace) = (&token, args.replace);
    let enrolment = Enrolment { address, tls: &tls, token, replace, policy_key: None };
    let who = credentials::enroll(enrolment).await.map_err(failed)?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "enrolled as {who}; the certificate is {}", tls.cert.display())?;
    Ok(())
}
