//! `sekimori alerts`.

use std::io::Write as _;

use clap::builder::NonEmptyStringValueParser;
use comfy_table::{Table, presets::NOTHING};
use jiff::tz::TimeZone;
use sekimori_agent::decode::printable;
use sekimori_proto::json::time as json_time;
use sekimori_proto::v1::alert_service_client::AlertServiceClient;
use sekimori_proto::v1::{
    AcknowledgeRequest, Alert, AlertEndpoint, AlertRule, ListAlertsRequest, ListAlertsResponse,
    SilenceRequest, StandingSilence, TestEndpointRequest, UnsilenceRequest,
};
use serde_json::{Map, Value, json};

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::line::bytes;
use crate::time;

const EXAMPLES: &str = "\
Rules and endpoints are in alerts.yaml in the collector's directory; `sekimori-collector check-alerts`
says whether such a file is right. For analysts; silence, unsilence and test are for admins.

Examples:
  sekimori alerts --open
  sekimori alerts --rule mass-copy --json | jq -r .title
  sekimori alerts ack 17 18 --note 'talked to Suzuki: approved, ticket 4711'
  sekimori alerts silence --rule mass-copy --host backup-1 --for 8h --reason 'monthly backup'
  sekimori alerts rules
  sekimori alerts test soc-mail";

/// Says what the collector's alert rules found.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those that still go on.
    #[arg(long)]
    open: bool,
    /// Only of this rule.
    #[arg(long = "rule", value_name = "NAME", value_delimiter = ',')]
    rules: Vec<String>,
    /// Alerts at most, the newest first.
    #[arg(long, value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says that you look after alerts: they remind nobody any more.
    Ack {
        /// Their numbers.
        #[arg(value_name = "ALERT", required = true)]
        ids: Vec<u64>,
        /// What is known of it; kept with the alert.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        note: String,
        #[command(flatten)]
        collector: CollectorArgs,
    },
    /// Lets what matches tell nobody for a while. It is an alert and a record nevertheless.
    Silence {
        /// Of this rule.
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        rule: String,
        /// On this host.
        #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
        host: String,
        /// By this user or login user.
        #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
        user: String,
        /// For how long: 30m, 8h, 7d.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        time: jiff::SignedDuration,
        /// Why; it is recorded together with who.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        #[command(flatten)]
        collector: CollectorArgs,
    },
    /// Takes a silence back.
    Unsilence {
        /// Its number.
        id: u64,
        #[command(flatten)]
        collector: CollectorArgs,
    },
    /// Says how rules, endpoints and silences stand.
    Rules {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        collector: CollectorArgs,
    },
    /// Sends a notice to an endpoint, to see whether it arrives.
    Test {
        /// Its name in alerts.yaml.
        endpoint: String,
        #[command(flatten)]
        collector: CollectorArgs,
    },
}

fn span(text: &str) -> Result<jiff::SignedDuration, String> {
    let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    time.map_err(|error| error.to_string())
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match args.command {
        None => list(args.list).await,
        Some(Command::Ack { ids, note, collector }) => {
            let mut client = AlertServiceClient::new(collector.connect().await?);
            let answer = client.acknowledge(AcknowledgeRequest { ids, note }).await;
            answer.map_err(|status| collector.refused(&status))?;
            Ok(writeln!(out, "acknowledged")?)
        }
        Some(Command::Silence { rule, host, user, time, reason, collector }) => {
            let until = jiff::Timestamp::now().checked_add(time);
            let until = until.map_err(|error| Failure::usage(format!("--for: {error}")))?;
            let until_ns = i64::try_from(until.as_nanosecond()).unwrap_or(i64::MAX);
            let mut client = AlertServiceClient::new(collector.connect().await?);
            let request = SilenceRequest { rule, host, user, until_ns, reason };
            let answer = client.silence(request).await;
            let id = answer.map_err(|status| collector.refused(&status))?.into_inner().id;
            Ok(writeln!(out, "silence {id} stands until {}", zoned(until_ns))?)
        }
        Some(Command::Unsilence { id, collector }) => {
            let mut client = AlertServiceClient::new(collector.connect().await?);
            let answer = client.unsilence(UnsilenceRequest { id }).await;
            answer.map_err(|status| collector.refused(&status))?;
            Ok(writeln!(out, "silence {id} is taken back")?)
        }
        Some(Command::Rules { json, collector }) => {
            let request = ListAlertsRequest { limit: 1, open: true, ..Default::default() };
            let mut client = AlertServiceClient::new(collector.connect().await?);
            let answer = client.list(request).await;
            let answer = answer.map_err(|status| collector.refused(&status))?.into_inner();
            if json {
                return Ok(writeln!(out, "{}", standing_json(&answer))?);
            }
            Ok(write!(out, "{}", standing(&answer))?)
        }
        Some(Command::Test { endpoint, collector }) => {
            let mut client = AlertServiceClient::new(collector.connect().await?);
            let answer = client.test(TestEndpointRequest { endpoint: endpoint.clone() }).await;
            answer.map_err(|status| collector.refused(&status))?;
            Ok(writeln!(out, "{endpoint} took it")?)
        }
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let ListArgs { open, rules, limit, json, collector } = args;
    let mut client = AlertServiceClient::new(collector.connect().await?);
    let (mut below, mut alerts) = (0, Vec::new());
    let silenced = loop {
        let left = limit.saturating_sub(u32::try_from(alerts.len()).unwrap_or(u32::MAX));
        let request =
            ListAlertsRequest { open, limit: left.min(1000), below, rules: rules.clone() };
        let answer = client.list(request).await;
        let answer = answer.map_err(|status| collector.refused(&status))?.into_inner();
        for AlertRule { name, error, .. } in answer.rules.iter().filter(|it| !it.error.is_empty()) {
            if below == 0 {
                anstream::eprintln!("sekimori: {name}: {error}");
            }
        }
        alerts.extend(answer.alerts);
        below = answer.next_below;
        if below == 0 || alerts.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            break answer.silences.len();
        }
    };
    let mut out = anstream::stdout().lock();
    if json {
        for alert in &alerts {
            writeln!(out, "{}", as_json(alert))?;
        }
        return Ok(());
    }
    if alerts.is_empty() {
        writeln!(out, "no {}alerts", if open { "open " } else { "" })?;
    } else {
        writeln!(out, "{}", table(&alerts))?;
    }
    if silenced > 0 {
        writeln!(out, "{silenced} silences stand; `sekimori alerts rules` lists them")?;
    }
    Ok(())
}

fn table(alerts: &[Alert]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["alert", "last", "severity", "rule", "of", "events", "bytes", "state"]);
    for alert in alerts {
        let of: Vec<String> = alert.group.iter().map(|it| printable(it.value.as_bytes())).collect();
        let size = if alert.bytes == 0 { String::new() } else { bytes(alert.bytes) };
        table.add_row([
            alert.id.to_string(),
            zoned(alert.last_ns),
            printable(alert.severity.as_bytes()),
            printable(alert.rule.as_bytes()),
            of.join(" "),
            alert.count.to_string(),
            size,
            state(alert),
        ]);
    }
    table
}

fn state(alert: &Alert) -> String {
    let mut words = vec![if alert.closed_ns == 0 { "open".to_owned() } else { "over".to_owned() }];
    if alert.silenced {
        words.push("silenced".to_owned());
    }
    if !alert.acknowledged_by.is_empty() {
        let by = printable(alert.acknowledged_by.as_bytes());
        let note = printable(alert.note.as_bytes());
        words.push(if note.is_empty() {
            format!("with {by}")
        } else {
            format!("with {by}: {note}")
        });
    }
    words.join(", ")
}

fn standing(answer: &ListAlertsResponse) -> String {
    let mut text = String::new();
    let mut line = |it: String| text.push_str(&(it + "\n"));
    for AlertRule { name, description, severity, error, .. } in &answer.rules {
        let what = if error.is_empty() { description } else { error };
        let mark = if error.is_empty() { ' ' } else { '!' };
        let named = printable(name.as_bytes());
        line(format!("{mark} rule {named}  {severity}  {}", printable(what.as_bytes())));
    }
    for AlertEndpoint { name, waiting, sent, failed, error } in &answer.endpoints {
        let mark = if error.is_empty() { ' ' } else { '!' };
        let name = printable(name.as_bytes());
        let error = printable(error.as_bytes());
        line(format!(
            "{mark} endpoint {name}  {waiting} wait, {sent} sent, {failed} lost  {error}"
        ));
    }
    for StandingSilence { id, what, by } in &answer.silences {
        let SilenceRequest { rule, host, user, until_ns, reason } =
            what.clone().unwrap_or_default();
        let of: Vec<String> = [("rule", rule), ("host", host), ("user", user)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name} {}", printable(value.as_bytes())))
            .collect();
        line(format!(
            "  silence {id}  {} until {}  {}: {}",
            of.join(", "),
            zoned(until_ns),
            printable(by.as_bytes()),
            printable(reason.as_bytes())
        ));
    }
    if text.is_empty() {
        text.push_str("no rules: write alerts.yaml in the collector's directory\n");
    }
    text
}

fn standing_json(answer: &ListAlertsResponse) -> Value {
    let rules = answer.rules.iter().map(|it| {
        json!({ "name": it.name, "description": it.description, "severity": it.severity,
                "position": it.position, "error": it.error })
    });
    let endpoints = answer.endpoints.iter().map(|it| {
        json!({ "name": it.name, "waiting": it.waiting, "sent": it.sent, "failed": it.failed,
                "error": it.error })
    });
    let silences = answer.silences.iter().map(|it| {
        let what = it.what.clone().unwrap_or_default();
        json!({ "id": it.id, "rule": what.rule, "host": what.host, "user": what.user,
                "until": json_time(what.until_ns), "reason": what.reason, "by": it.by })
    });
    json!({
        "rules": rules.collect::<Vec<_>>(), "endpoints": endpoints.collect::<Vec<_>>(),
        "silences": silences.collect::<Vec<_>>(),
    })
}

fn as_json(alert: &Alert) -> Value {
    let time_or_null = |ns: i64| if ns == 0 { Value::Null } else { json_time(ns) };
    let group = alert.group.iter().map(|it| (it.field.clone(), it.value.as_str().into()));
    json!({
        "id": alert.id, "rule": alert.rule, "severity": alert.severity, "title": alert.title,
        "group": group.collect::<Map<String, Value>>(), "count": alert.count,
        "bytes": alert.bytes, "first": json_time(alert.first_ns), "last": json_time(alert.last_ns),
        "first_cursor": alert.first_cursor, "last_cursor": alert.last_cursor,
        "opened": json_time(alert.opened_ns), "closed": time_or_null(alert.closed_ns),
        "acknowledged_by": alert.acknowledged_by,
        "acknowledged": time_or_null(alert.acknowledged_ns), "note": alert.note,
        "silenced": alert.silenced,
    })
}

fn zoned(ns: i64) -> String {
    time::show(ns, true, &TimeZone::system())
}
