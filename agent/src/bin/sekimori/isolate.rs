//! `sekimori isolate` and `sekimori release`.

use std::io::Write as _;

use clap::builder::NonEmptyStringValueParser;
use sekimori_proto::v1::fleet_service_client::FleetServiceClient;
use sekimori_proto::v1::{IsolateRequest, ReleaseRequest};

use crate::collector::CollectorArgs;
use crate::failure::Failure;

const EXAMPLES: &str = "\
For admins. Who and why is a record (`sekimori search --kind operator`), and so is that it was done
(`--kind host`). A host that is away does it when it comes; `sekimori fleet HOST` says whether it was
done. The host's own programs, and the collector, can still be reached from it.

Examples:
  sekimori isolate desk-12 --reason 'ticket 4711: mail with malware was opened'
  sekimori release desk-12 --reason 'ticket 4711: installed again'";

/// Which host, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The host.
    host: String,
    /// Why; it is recorded together with who.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn isolate(args: Args) -> Result<(), Failure> {
    let Args { host, reason, collector } = args;
    let mut client = FleetServiceClient::new(collector.connect().await?);
    let answer = client.isolate(IsolateRequest { host: host.clone(), reason }).await;
    answer.map_err(|status| collector.refused(&status))?;
    told(&host, "is to be cut off")
}

pub async fn release(args: Args) -> Result<(), Failure> {
    let Args { host, reason, collector } = args;
    let mut client = FleetServiceClient::new(collector.connect().await?);
    let answer = client.release(ReleaseRequest { host: host.clone(), reason }).await;
    answer.map_err(|status| collector.refused(&status))?;
    told(&host, "is to be let back onto the network")
}

fn told(host: &str, what: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{host} {what}; `sekimori fleet {host}` says whether it was done")?;
    Ok(())
}
