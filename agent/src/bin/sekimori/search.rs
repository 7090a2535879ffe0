//! `sekimori search`.

use std::io::Write as _;

use jiff::tz::TimeZone;
use sekimori_proto::v1::SearchRequest;
use sekimori_proto::v1::query_service_client::QueryServiceClient;

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::filter::{FilterArgs, warn_of_gaps};
use crate::format::FormatArgs;
use crate::line;

/// Events of one page; the collector's own limit.
const PAGE_EVENTS_MAX: u32 = 1000;
/// Bytes of one page.
const PAGE_BYTES_MAX: usize = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  sekimori search --verdict denied --since -1h
  sekimori search --kind net.upload --text 198.51.100.7 --json | jq .bytes
  sekimori search --kind usb.write --user alice --newest --limit 1
  sekimori search --format ecs --since -1d --limit 0 > yesterday.ndjson";

/// Finds stored events, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many events; 0: all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Newest first.
    #[arg(long)]
    newest: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let channel = args.collector.connect().await?;
    let mut client = QueryServiceClient::new(channel).max_decoding_message_size(PAGE_BYTES_MAX);
    // Finding it reads the directory of all zones.
    let format = args.format.chosen();
    let zone = format.is_none().then(TimeZone::system).unwrap_or(TimeZone::UTC);
    let mut out = anstream::stdout().lock();
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    let mut page = String::new();
    let mut shown: u64 = 0;
    loop {
        let request = SearchRequest {
            filter: Some(args.filter.filter()),
            limit: u32::try_from(left).unwrap_or(PAGE_EVENTS_MAX).min(PAGE_EVENTS_MAX),
            page,
            newest_first: args.newest,
        };
        let response = client.search(request).await;
        let response = response.map_err(|status| args.collector.refused(&status))?.into_inner();
        for event in &response.events {
            if let Some(format) = format {
                writeln!(out, "{}", format.line(event))?;
            } else if args.filter.shows(event) {
                writeln!(out, "{}", line::show(event, true, &zone))?;
            }
        }
        warn_of_gaps(&response.gaps);
        let count = response.events.len() as u64;
        shown += count;
        left = left.saturating_sub(count);
        page = response.next_page;
        if page.is_empty() || left == 0 {
            break;
        }
    }
    out.flush()?;
    if format.is_none() && shown == 0 {
        anstream::eprintln!("no event matches");
    } else if format.is_none() && !page.is_empty() {
        anstream::eprintln!("there are more; --limit 0 shows all");
    }
    Ok(())
}
