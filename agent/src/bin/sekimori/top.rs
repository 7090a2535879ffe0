//! `sekimori top`.

use std::io::Write as _;

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sekimori_proto::json::time as json_time;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{AggregateRequest, AggregateResponse, Field, Group, Order};
use sekimori_proto::words::Word as _;
use serde_json::{Map, Value, json};

use crate::collector::CollectorArgs;
use crate::failure::Failure;
use crate::filter::{FilterArgs, warn_of_gaps, word};
use crate::line::bytes;
use crate::time;

/// Fields that events are told apart by; the collector's own limit.
const FIELDS_MAX: usize = 4;

const EXAMPLES: &str = "\
Examples:
  sekimori top --by user,device --kind usb.write --order bytes --since '30 days ago'
  sekimori top --by user,destination --kind net.upload --order bytes --since -24h
  sekimori top --by host --text E0D55EA574
  sekimori top --by user --distinct file --kind file.open --since -1h --order distinct
  sekimori top --by hour --user suzuki --order values --json";

/// Counts events in groups.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to tell events apart by, at most four: host, user, device, destination, program, rule,
    /// kind, verdict, hour, day, file.
    #[arg(
        long, value_name = "FIELD", value_parser = word::<Field>, value_delimiter = ',',
        required = true
    )]
    by: Vec<Field>,
    /// Which groups come first: count, bytes, distinct, values.
    #[arg(long, value_name = "ORDER", value_parser = word::<Order>, default_value = "count")]
    order: Order,
    /// Also count how many different values of this field a group has.
    #[arg(long, value_name = "FIELD", value_parser = word::<Field>)]
    distinct: Option<Field>,
    /// At most this many groups.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    if args.by.len() > FIELDS_MAX {
        return Err(Failure::usage(format!("--by: at most {FIELDS_MAX} fields")));
    }
    if args.order == Order::Distinct && args.distinct.is_none() {
        return Err(Failure::usage("--order distinct needs --distinct FIELD"));
    }
    let zone = TimeZone::system();
    let request = AggregateRequest {
        filter: Some(args.filter.filter()),
        by: args.by.iter().map(|field| (*field).into()).collect(),
        limit: args.limit,
        order: args.order.into(),
        distinct: args.distinct.unwrap_or(Field::Unspecified).into(),
        zone_offset_s: zone.to_offset(Timestamp::now()).seconds(),
    };
    let channel = args.collector.connect().await?;
    let answer = QueryServiceClient::new(channel).aggregate(request).await;
    let answer = answer.map_err(|status| args.collector.refused(&status))?.into_inner();
    let mut out = anstream::stdout().lock();
    if args.json {
        for group in &answer.groups {
            writeln!(out, "{}", object(&args, group))?;
        }
    } else if !answer.groups.is_empty() {
        writeln!(out, "{}", table(&args, &answer, &zone))?;
    }
    out.flush()?;
    warn_of_gaps(&answer.gaps);
    let shown = answer.groups.len() as u64;
    if !args.json && shown == 0 {
        anstream::eprintln!("no event matches");
    } else if !args.json && shown < answer.all_groups {
        anstream::eprintln!("{shown} of {} groups; --limit shows more", answer.all_groups);
    }
    Ok(())
}

fn object(args: &Args, group: &Group) -> Value {
    let values = args.by.iter().zip(&group.values);
    let mut object: Map<String, Value> = values
        .map(|(field, value)| {
            let value = if value.is_empty() { Value::Null } else { json!(value) };
            (field.word().to_owned(), value)
        })
        .collect();
    object.insert("count".to_owned(), json!(group.count));
    object.insert("bytes".to_owned(), json!(group.bytes));
    object.insert("bytes_in".to_owned(), json!(group.bytes_in));
    if args.distinct.is_some() {
        object.insert("distinct".to_owned(), json!(group.distinct));
    }
    object.insert("first".to_owned(), json_time(group.first_ns));
    object.insert("last".to_owned(), json_time(group.last_ns));
    Value::Object(object)
}

fn table(args: &Args, answer: &AggregateResponse, zone: &TimeZone) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let distinct = args.distinct.map(|field| format!("{}s", field.word()));
    let mut header: Vec<String> = args.by.iter().map(|field| field.word().to_owned()).collect();
    let numbers = header.len()..header.len() + 2 + usize::from(distinct.is_some());
    header.extend(["count".to_owned(), "bytes".to_owned()]);
    header.extend(distinct);
    header.extend(["first".to_owned(), "last".to_owned()]);
    table.set_header(header);
    for group in &answer.groups {
        let mut row: Vec<String> = group.values.iter().map(|value| shown(value)).collect();
        row.push(group.count.to_string());
        row.push(if group.bytes == 0 { String::new() } else { bytes(group.bytes) });
        row.extend(args.distinct.map(|_| group.distinct.to_string()));
        row.extend([group.first_ns, group.last_ns].map(|ns| time::show(ns, true, zone)));
        table.add_row(row);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A value as a terminal may show it.
fn shown(value: &str) -> String {
    if value.is_empty() {
        return "-".to_owned();
    }
    sekimori_agent::decode::printable(value.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Only::try_parse_from(words).map(|only| only.args).unwrap_or_else(|error| panic!("{error}"))
    }

    fn group() -> Group {
        Group {
            values: vec!["花子".into(), "\x1b[31musb".into()],
            count: 3,
            bytes: 2048,
            distinct: 2,
            first_ns: 1,
            ..Group::default()
        }
    }

    #[test]
    fn a_table_has_what_was_asked_for_and_no_control_characters() {
        let args = args("--by user,device --distinct file");
        let answer =
            AggregateResponse { groups: vec![group()], events: 3, all_groups: 1, gaps: Vec::new() };
        let text = table(&args, &answer, &TimeZone::UTC);
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            lines.next().unwrap(),
            ["user", "device", "count", "bytes", "files", "first", "last"]
        );
        let row = lines.next().unwrap().join(" ");
        assert!(row.starts_with("花子 ") && row.contains(" 3 2.0 KiB 2 1970-01-01"), "{row}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn json_has_a_name_for_each_field() {
        let object = object(&args("--by user,device"), &group());
        assert_eq!(object.pointer("/user"), Some(&json!("花子")));
        assert_eq!(object.pointer("/bytes"), Some(&json!(2048)));
        assert_eq!(object.pointer("/distinct"), None);
        assert_eq!(object.pointer("/first"), Some(&json!("1970-01-01T00:00:00.000000001Z")));
    }
}
