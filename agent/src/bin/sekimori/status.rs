//! `sekimori status`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{Table, presets::NOTHING};
use jiff::tz::TimeZone;
use sekimori_agent::control::{self, ControlError, Request, SOCKET_PATH, Status};
use sekimori_agent::decode::printable;
use sekimori_proto::json::time as json_time;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{StatusRequest, StatusResponse};
use serde_json::json;
use tokio::time::timeout;

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::line::bytes;
use crate::time;

const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Fails (exit code 1) when neither an agent nor a collector answers.

Examples:
  sudo sekimori status
  sekimori status --json | jq .agent.spool.unacknowledged_bytes";

/// Says how the agent on this machine and the collector stand.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    socket: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let agent = agent(&args.socket);
    let collector = match timeout(COLLECTOR_TIMEOUT, collector(&args)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::failed("the collector does not answer")),
    };
    let mut out = anstream::stdout().lock();
    if args.json {
        let line = json!({
            "agent": agent.as_ref().ok(),
            "agent_error": agent.as_ref().err().map(ToString::to_string),
            "collector": collector.as_ref().ok().map(collector_json),
            "collector_error": collector.as_ref().err().map(ToString::to_string),
        });
        writeln!(out, "{line}")?;
    } else {
        match &agent {
            Ok(status) => write!(out, "{}", agent_text(status))?,
            Err(failure) => writeln!(out, "agent      {failure}")?,
        }
        match &collector {
            Ok(status) => write!(out, "{}", collector_text(status, &args.collector.address()))?,
            Err(failure) => writeln!(out, "collector  {failure}")?,
        }
    }
    match (agent, collector) {
        (Err(failure), Err(_)) => Err(Failure::told(failure.code())),
        _ => Ok(()),
    }
}

/// What the agent behind this socket says of itself.
pub fn agent(socket: &Path) -> Result<Box<Status>, Failure> {
    let answer = control::ask(socket, Request::Status).map_err(|error| match error {
        ControlError::Permission { .. } => Failure::permission(error.to_string()),
        _ => Failure::failed(error.to_string()),
    })?;
    answer.status.ok_or_else(|| Failure::failed(answer.message))
}

async fn collector(args: &Args) -> Result<StatusResponse, Failure> {
    let channel = args.collector.connect().await?;
    let answer = QueryServiceClient::new(channel).status(StatusRequest {}).await;
    Ok(answer.map_err(|status| args.collector.refused(&status))?.into_inner())
}

fn collector_json(status: &StatusResponse) -> serde_json::Value {
    let hosts: Vec<_> = status
        .hosts
        .iter()
        .map(|host| {
            json!({
                "host": host.host,
                "events": host.events,
                "last_event": json_time(host.last_event_ns),
                "lost": host.lost,
                "connected": host.connected,
            })
        })
        .collect();
    json!({
        "version": status.version,
        "events": status.events,
        "last_cursor": status.last_cursor,
        "hosts": hosts,
    })
}

fn agent_text(status: &Status) -> String {
    let zone = TimeZone::system();
    let policy = &status.policy;
    let spool = &status.spool;
    let mut text = format!(
        "agent      {} (pid {}) since {}\n\
         policy     {} with {} rules, generation {}, from {}\n",
        status.version,
        status.pid,
        time::show(status.started_ns, true, &zone),
        printable(policy.name.as_bytes()),
        policy.rules,
        policy.generation,
        policy.file.display(),
    );
    if let Some(epoch) = policy.epoch {
        text.push_str(&format!("           the collector's, epoch {epoch}\n"));
    }
    if let Some(reason) = &policy.refused {
        text.push_str(&format!("           the last one was refused: {reason}\n"));
    }
    if !status.hooks_called {
        text.push_str(
            "ENFORCES   NOTHING: the kernel does not call the programs' hooks; see `sekimori search \
             --kind agent --newest`\n",
        );
    }
    for feature in status.features.iter().filter(|feature| !feature.attached) {
        text.push_str(&format!(
            "lost       {} ({}): {}\n",
            feature.name, feature.hook, feature.detail
        ));
    }
    text.push_str(&format!(
        "spool      {} events since the start, {} wait, {} dropped\n",
        spool.appended,
        bytes(spool.unacknowledged_bytes),
        spool.dropped,
    ));
    let link = &status.collector;
    let state = if link.connected { "connected to" } else { "NOT connected to" };
    text.push_str(&format!(
        "delivery   {state} {}, {} events acknowledged\n",
        link.address, link.acknowledged
    ));
    if !link.connected && !link.last_error.is_empty() {
        text.push_str(&format!("           {}\n", link.last_error));
    }
    text.push_str(&format!("kernel\n{}\n", counters(status)));
    text
}

fn counters(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["          kind", "seen", "recorded", "denied", "lost"]);
    for row in &status.counters {
        table.add_row([
            format!("          {}", row.kind),
            row.seen.to_string(),
            row.emitted.to_string(),
            row.denied.to_string(),
            row.lost.to_string(),
        ]);
    }
    table
}

fn collector_text(status: &StatusResponse, address: &str) -> String {
    let zone = TimeZone::system();
    let mut text = format!(
        "collector  {} on {address}: {} events, cursor {}\n",
        status.version, status.events, status.last_cursor
    );
    for host in &status.hosts {
        let state = if host.connected { "connected" } else { "not connected" };
        text.push_str(&format!(
            "           {}: {state}, {} events, newest {}, {} lost\n",
            printable(host.host.as_bytes()),
            host.events,
            time::show(host.last_event_ns, true, &zone),
            host.lost,
        ));
    }
    text
}
