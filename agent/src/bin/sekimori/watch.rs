//! `sekimori watch`.

use std::io::Write as _;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{Event, Filter, StatusRequest, SubscribeRequest};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::filter::{FilterArgs, warn_of_gaps};
use crate::format::{Format, FormatArgs};
use crate::line;

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Events on their way when `--until` is over.
const UNTIL_GRACE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Each line: time, host, mark (· allowed, ! alerted, ✗ denied, ~ would be denied), kind, operation,
user, program, what it was done to, and the rule.

Examples:
  sekimori watch --verdict denied,would-deny
  sekimori watch --kind usb.write,usb.mount --host desk-12
  sekimori watch --json --cursor 1042 >> events.jsonl
  sekimori watch --format ocsf | your-shipper";

/// Shows events as they happen. A broken connection is taken up again where it broke.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on behind this cursor (`cursor` of the last event seen, with --json).
    #[arg(long, value_name = "N", conflicts_with = "from_start")]
    cursor: Option<u64>,
    /// Show everything stored first.
    #[arg(long)]
    from_start: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let filter = args.filter.filter();
    let Some(left) = filter.until_ns.map(time_left) else { return follow(&args, filter).await };
    timeout(left, follow(&args, filter)).await.unwrap_or(Ok(()))
}

fn time_left(until_ns: i64) -> Duration {
    let now_ns = Timestamp::now().as_nanosecond();
    let left_ns = u64::try_from(i128::from(until_ns) - now_ns).unwrap_or(0);
    Duration::from_nanos(left_ns) + UNTIL_GRACE
}

/// How a connection ended.
enum End {
    Broken(Status),
    Fatal(Failure),
}

async fn follow(args: &Args, filter: Filter) -> Result<(), Failure> {
    let format = args.format.chosen();
    let mut screen = Screen { format, filter: &args.filter, zone: TimeZone::system() };
    let mut cursor = args.cursor;
    // Everything since a time lies behind no cursor that could be known here.
    if args.from_start || (cursor.is_none() && filter.since_ns.is_some()) {
        cursor = Some(0);
    }
    let mut connected_once = false;
    let mut wait = RETRY_MIN;
    loop {
        let before = cursor;
        match connection(args, &filter, &mut cursor, &mut screen, &mut connected_once).await {
            Ok(()) => {}
            Err(End::Fatal(failure)) if !connected_once || failure.code() != 1 => {
                return Err(failure);
            }
            Err(End::Fatal(failure)) => anstream::eprintln!("sekimori: {failure}; trying again"),
            Err(End::Broken(status)) => {
                let message = status.message();
                anstream::eprintln!("sekimori: the connection broke ({message}); trying again");
            }
        }
        wait = if cursor == before { (wait * 2).min(RETRY_MAX) } else { RETRY_MIN };
        sleep(wait).await;
    }
}

async fn connection(
    args: &Args,
    filter: &Filter,
    cursor: &mut Option<u64>,
    screen: &mut Screen<'_>,
    connected_once: &mut bool,
) -> Result<(), End> {
    let channel = args.collector.connect().await.map_err(End::Fatal)?;
    let refused = |status: Status| match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown => End::Broken(status),
        _ => End::Fatal(args.collector.refused(&status)),
    };
    // "From now on" as a cursor, so that a break before the first event leaves no gap either.
    let behind = match *cursor {
        Some(cursor) => cursor,
        None => {
            let status = QueryServiceClient::new(channel.clone()).status(StatusRequest {}).await;
            status.map_err(refused)?.into_inner().last_cursor
        }
    };
    *cursor = Some(behind);
    let request = SubscribeRequest { filter: Some(filter.clone()), cursor: Some(behind) };
    let answer = WatchServiceClient::new(channel).subscribe(request).await;
    let mut stream = answer.map_err(refused)?.into_inner();
    *connected_once = true;
    while let Some(message) = stream.message().await.map_err(refused)? {
        warn_of_gaps(message.gap.as_slice());
        let Some(event) = message.event else { continue };
        screen.show(&event).map_err(End::Fatal)?;
        if event.cursor != 0 {
            *cursor = Some(event.cursor);
        }
    }
    Err(End::Broken(Status::unavailable("the collector ended the stream")))
}

struct Screen<'a> {
    format: Option<Format>,
    filter: &'a FilterArgs,
    zone: TimeZone,
}

impl Screen<'_> {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        if let Some(format) = self.format {
            writeln!(out, "{}", format.line(event))?;
        } else if self.filter.shows(event) {
            writeln!(out, "{}", line::show(event, false, &self.zone))?;
        }
        out.flush()?;
        Ok(())
    }
}
