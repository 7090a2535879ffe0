//! `sekimori fleet`.

use std::io::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets::NOTHING};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sekimori_agent::decode::printable;
use sekimori_proto::json::time as json_time;
use sekimori_proto::v1::fleet_service_client::FleetServiceClient;
use sekimori_proto::v1::{FleetHost, HostState, ListHostsRequest};
use serde_json::{Value, json};

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::line::bytes;
use crate::time;

const NS_A_DAY: i64 = 86_400 * 1_000_000_000;
/// How far a clock may be off before that is told; the collector's metrics count the same.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
A host is `silent` when it gave no sign of life for the collector's --silent-after, `away` before
that. Losses are counted since the agent's start. The last column is what the agent says that does
not work there.

Examples:
  sekimori fleet
  sekimori fleet desk-12 desk-13
  sekimori fleet --json | jq -r 'select(.silent) | .host'";

/// Says how every host stands.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only these hosts.
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut client = FleetServiceClient::new(args.collector.connect().await?);
    let (mut page, mut hosts) = (String::new(), Vec::new());
    loop {
        let request = ListHostsRequest { limit: 0, page, hosts: args.hosts.clone() };
        let answer = client.list(request).await;
        let answer = answer.map_err(|status| args.collector.refused(&status))?.into_inner();
        hosts.extend(answer.hosts);
        page = answer.next_page;
        if page.is_empty() {
            break;
        }
    }
    let mut out = anstream::stdout().lock();
    if args.json {
        for host in &hosts {
            writeln!(out, "{}", as_json(host))?;
        }
        return Ok(());
    }
    if hosts.is_empty() {
        writeln!(out, "no host delivered or enrolled yet")?;
        return Ok(());
    }
    let now = Timestamp::now().as_nanosecond().try_into().unwrap_or(i64::MAX);
    writeln!(out, "{}", table(&hosts, now, &TimeZone::system()))?;
    Ok(())
}

fn table(hosts: &[FleetHost], now_ns: i64, zone: &TimeZone) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "host",
        "state",
        "version",
        "kernel",
        "policy",
        "mode",
        "last seen",
        "lost",
        "spool",
        "certificate",
        "what does not work",
    ]);
    for host in hosts {
        let state = host.state.clone().unwrap_or_default();
        let text = |text: &str| match text {
            "" => "-".to_owned(),
            text => printable(text.as_bytes()),
        };
        table.add_row([
            text(&host.host),
            format!("{}{}", standing(host), isolation(host)),
            text(&state.version),
            text(&state.kernel),
            policy(&state),
            text(&state.mode),
            match host.last_seen_ns {
                0 => "never".to_owned(),
                ns => time::show(ns, true, zone),
            },
            lost(&state).to_string(),
            match state.spool_bytes_max {
                0 => "-".to_owned(),
                most => format!("{} ({} %)", bytes(state.spool_bytes), percent(&state, most)),
            },
            certificate(host, now_ns),
            findings(host),
        ]);
    }
    table
}

/// The first thing that does not work, and how many there are.
fn findings(host: &FleetHost) -> String {
    let told = host.state.iter().flat_map(|state| &state.findings);
    let all: Vec<String> = told.map(|it| printable(it.as_bytes())).chain(clock(host)).collect();
    match all.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    }
}

/// What is wrong with its clock, if anything is.
fn clock(host: &FleetHost) -> Option<String> {
    let ahead_ns = host.clock_ahead_ns?;
    let off = Duration::from_nanos(ahead_ns.unsigned_abs());
    let side = if ahead_ns > 0 { "ahead of" } else { "behind" };
    (off > CLOCK_OFF_MAX).then(|| {
        format!(
            "its clock is {} s {side} the collector's: its events stand at wrong times",
            off.as_secs()
        )
    })
}

/// Its name, and which of the collector's it is.
fn policy(state: &HostState) -> String {
    let name = match state.policy.as_str() {
        "" => "-".to_owned(),
        name => printable(name.as_bytes()),
    };
    match (state.policy_epoch, state.policy_refused_epoch) {
        (0, 0) => name,
        (0, refused) => format!("{name}, {refused} REFUSED"),
        (epoch, refused) if refused > epoch => format!("{name} ({epoch}, {refused} REFUSED)"),
        (epoch, _) => format!("{name} ({epoch})"),
    }
}

const fn standing(host: &FleetHost) -> &'static str {
    match (host.last_seen_ns, host.silent, host.connected) {
        (0, ..) => "enrolled",
        (_, true, _) => "silent",
        (_, false, true) => "there",
        (_, false, false) => "away",
    }
}

/// Whether it is cut off, and whether that is as it was ordered.
fn isolation(host: &FleetHost) -> &'static str {
    let state = host.state.as_ref();
    let is = state.is_some_and(|state| state.isolated);
    let done = state.map_or(0, |state| state.isolation_order);
    let open = host.isolation.as_ref().filter(|order| order.order != done);
    match (is, open.map(|order| order.isolated)) {
        (false, None | Some(false)) => "",
        (true, None | Some(true)) => ", ISOLATED",
        (false, Some(true)) => ", to be isolated",
        (true, Some(false)) => ", ISOLATED, to be released",
    }
}

fn lost(state: &HostState) -> u64 {
    state.lost.iter().fold(0, |sum, it| sum.saturating_add(it.count))
}

fn percent(state: &HostState, most: u64) -> u64 {
    let share = u128::from(state.spool_bytes) * 100 / u128::from(most.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn certificate(host: &FleetHost, now_ns: i64) -> String {
    match (host.certificate_end_ns, host.certificate_end_ns.saturating_sub(now_ns)) {
        (0, _) => "-".to_owned(),
        (_, ..=0) => "ENDED".to_owned(),
        (_, left) => format!("{} days", left / NS_A_DAY),
    }
}

fn as_json(host: &FleetHost) -> Value {
    let time_or_null = |ns| if ns == 0 { Value::Null } else { json_time(ns) };
    json!({
        "host": host.host,
        "first_seen": time_or_null(host.first_seen_ns),
        "last_seen": time_or_null(host.last_seen_ns),
        "connected": host.connected,
        "silent": host.silent,
        "address": host.address,
        "certificate_end": time_or_null(host.certificate_end_ns),
        "certificate_serial": host.certificate_serial,
        "isolation": host.isolation.as_ref().map(|order| json!({
            "isolated": order.isolated,
            "by": order.by,
            "reason": order.reason,
            "done": host.state.as_ref().is_some_and(|it| it.isolation_order == order.order),
        })),
        "clock_ahead_s": host.clock_ahead_ns.map(|ns| ns as f64 / 1e9),
        "state_at": time_or_null(host.state_ns),
        "state": host.state.as_ref().map(state_json),
    })
}

fn state_json(state: &HostState) -> Value {
    let hash: String = state.policy_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let lost: serde_json::Map<String, Value> =
        state.lost.iter().map(|it| (it.stage.clone(), it.count.into())).collect();
    json!({
        "version": state.version,
        "kernel": state.kernel,
        "policy": state.policy,
        "policy_sha256": hash,
        "mode": state.mode,
        "started": json_time(state.started_ns),
        "spool_bytes": state.spool_bytes,
        "spool_bytes_max": state.spool_bytes_max,
        "lost": lost,
        "findings": state.findings,
        "isolated": state.isolated,
        "policy_from": if state.policy_from_collector { "collector" } else { "file" },
        "policy_epoch": (state.policy_epoch != 0).then_some(state.policy_epoch),
        "policy_refused": (!state.policy_refusal.is_empty()).then(|| json!({
            "epoch": state.policy_refused_epoch,
            "reason": state.policy_refusal,
        })),
    })
}

#[cfg(test)]
mod tests {
    use sekimori_proto::v1::{Isolation, StageLoss};

    use super::*;

    fn host() -> FleetHost {
        FleetHost {
            host: "desk-12".to_owned(),
            first_seen_ns: 1,
            last_seen_ns: NS_A_DAY,
            connected: true,
            state: Some(HostState {
                version: "0.1.0".to_owned(),
                kernel: "6.12.1".to_owned(),
                policy: "持出し禁止".to_owned(),
                mode: "enforce".to_owned(),
                spool_bytes: 1 << 20,
                spool_bytes_max: 4 << 20,
                lost: ["ring", "spool"]
                    .map(|stage| StageLoss { stage: stage.to_owned(), count: 2 })
                    .to_vec(),
                findings: vec!["a\u{1b}[2J".to_owned(), "b".to_owned()],
                ..HostState::default()
            }),
            certificate_end_ns: 11 * NS_A_DAY,
            ..FleetHost::default()
        }
    }

    #[test]
    fn a_row_says_it_all_and_no_control_character() {
        let silent = FleetHost { silent: true, certificate_end_ns: 1, ..host() };
        let enrolled = FleetHost { host: "new".to_owned(), ..FleetHost::default() };
        let text = table(&[host(), silent, enrolled], NS_A_DAY, &TimeZone::UTC).to_string();
        for part in
            ["desk-12", "there", "持出し禁止", "1970-01-02", "(25 %)", "10 days", "and 1 more"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        for part in ["silent", "ENDED", "enrolled", "never"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_clock_that_is_wrong_is_told() {
        let told = |seconds: i64| {
            let clock_ahead_ns = Some(seconds * 1_000_000_000);
            findings(&FleetHost { clock_ahead_ns, ..FleetHost::default() })
        };
        assert_eq!((told(60), told(-60)), (String::new(), String::new()));
        assert!(told(61).starts_with("its clock is 61 s ahead of the collector's"));
        assert!(told(-90_000).starts_with("its clock is 90000 s behind the collector's"));
        let both = FleetHost { clock_ahead_ns: Some(i64::MIN), ..host() };
        assert!(findings(&both).ends_with("(and 2 more)"));
    }

    #[test]
    fn an_order_is_shown_until_it_is_done() {
        let order = |isolated| Some(Isolation { order: 7, isolated, ..Isolation::default() });
        let state = |isolation_order, isolated| {
            Some(HostState { isolation_order, isolated, ..HostState::default() })
        };
        for (wanted, state, expected) in [
            (None, state(0, false), ""),
            (order(true), None, ", to be isolated"),
            (order(true), state(7, true), ", ISOLATED"),
            (order(false), state(6, true), ", ISOLATED, to be released"),
            (order(false), state(7, false), ""),
        ] {
            let host = FleetHost { isolation: wanted, state, ..FleetHost::default() };
            assert_eq!(isolation(&host), expected);
        }
    }

    #[test]
    fn its_json_has_every_part() {
        let json = as_json(&host());
        assert_eq!(json["state"]["lost"]["ring"], 2);
        assert_eq!(json["state"]["policy"], "持出し禁止");
        assert_eq!(json["certificate_end"], "1970-01-12T00:00:00.000000000Z");
    }
}
