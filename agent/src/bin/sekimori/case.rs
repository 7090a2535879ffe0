//! `sekimori case`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use sekimori_evidence::case::{self, Opened};
use sekimori_proto::v1::ExportRequest;
use sekimori_proto::v1::evidence_service_client::EvidenceServiceClient;

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::filter::FilterArgs;
use crate::line::bytes;

const EXAMPLES: &str = "\
Examples:
  sekimori case --user suzuki --since '30 days ago' --reason '退職前の確認 第12号' --out suzuki.zip
  sekimori verify suzuki.zip

The case holds the records, what their hosts and the collector signed, and the policies in force. \
That you made it, and why, is a record.";

/// Write the records that match into one file, with what proves them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where the case goes; a file that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Why; it is recorded, and stands in the case.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot write {}: {error}", args.out.display()))
    };
    let channel = args.collector.connect().await?;
    let refused = |status: tonic::Status| args.collector.refused(&status);
    let request = ExportRequest { filter: Some(args.filter.filter()), reason: args.reason.clone() };
    let answers = EvidenceServiceClient::new(channel).export(request).await.map_err(refused)?;
    let mut answers = answers.into_inner();
    // It is readable for whoever makes it and for nobody else.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    let mut file = file.map_err(|error| failed(&error))?;
    let written = async {
        let (mut size, mut written) = (0, 0);
        while let Some(part) = answers.message().await.map_err(refused)? {
            size += part.size;
            written += part.chunk.len() as u64;
            file.write_all(&part.chunk).map_err(|error| failed(&error))?;
        }
        if written != size || size == 0 {
            return Err(Failure::failed("the collector ended the case before it was whole"));
        }
        file.sync_all().map_err(|error| failed(&error))?;
        let whole = File::open(&args.out).map_err(|error| failed(&error))?;
        case::open(whole).map_err(|error| failed(&error)).map(|opened| (size, opened))
    };
    let (size, Opened { manifest, outcome }) = match written.await {
        Ok(written) => written,
        Err(failure) => {
            // Half a case is none.
            let _ = std::fs::remove_file(&args.out);
            return Err(failure);
        }
    };
    let (out, problems) = (args.out.display(), outcome.summary.problems);
    anstream::println!("{out}: {} records, {}", manifest.records, bytes(size));
    anstream::println!("signed by the collector with {}", manifest.collector_key);
    if problems > 0 {
        anstream::eprintln!(
            "sekimori: {problems} of what is in it is not as it was signed; sekimori verify {out} \
             says what"
        );
    }
    Ok(())
}
