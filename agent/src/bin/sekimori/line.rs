//! One event on one line, for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use nix::errno::Errno;
use prost::Message as _;
use sekimori_agent::decode::printable;
use sekimori_evidence::DIGEST_BYTES;
use sekimori_proto::v1::{
    ActPhase, CheckpointStatement, Device, Event, HostChange, HostTurn, Kind, Operation,
    OperatorAct, Process, Removed, Verdict,
};
use sekimori_proto::words::Word as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::time;

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

const HOST_COLUMNS: usize = 10;
const KIND_COLUMNS: usize = 11;
const OPERATION_COLUMNS: usize = 8;
const USER_COLUMNS: usize = 8;
const PROGRAM_COLUMNS: usize = 12;
/// Columns of a command line; the rest is in `--json`.
const ARGUMENTS_COLUMNS_MAX: usize = 120;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// The line, with colours: the stream it is written to takes them off where they do not belong.
pub fn show(event: &Event, dated: bool, zone: &TimeZone) -> String {
    let (mark, style) = mark(event);
    let process = event.process.clone().unwrap_or_default();
    let mut line = String::new();
    paint(&mut line, DIM, &time::show(event.time_ns, dated, zone));
    line.push(' ');
    line.push_str(&fit(&printable(event.host.as_bytes()), HOST_COLUMNS));
    line.push(' ');
    paint(&mut line, style, mark);
    line.push(' ');
    paint(&mut line, style, &fit(event.kind().word(), KIND_COLUMNS));
    line.push(' ');
    if let (Kind::Operator, Some(act)) = (event.kind(), &event.act) {
        line.push_str(&act_of_operator(act));
        return line;
    }
    if let (Kind::Host, Some(change)) = (event.kind(), &event.host_change) {
        line.push_str(&change_of_host(change, dated, zone));
        return line;
    }
    if let (Kind::Alert, Some(alert)) = (event.kind(), &event.alert) {
        line.push_str(&printable(alert.title.as_bytes()));
        line.push_str(&format!("  (alert {}, cursor {})", alert.id, alert.cursor));
        return line;
    }
    if let Some(text) = evidence(event) {
        line.push_str(&text);
        return line;
    }
    if matches!(event.kind(), Kind::Loss | Kind::Agent) {
        line.push_str(&about_the_monitor(event));
        return line;
    }
    line.push_str(&fit(operation(event), OPERATION_COLUMNS));
    line.push(' ');
    paint(&mut line, BOLD, &fit(&user(&process), USER_COLUMNS));
    line.push(' ');
    paint(&mut line, CYAN, &fit(&program(&process), PROGRAM_COLUMNS));
    line.push(' ');
    line.push_str(&object(event, &process));
    for detail in details(event) {
        line.push_str("  ");
        line.push_str(&detail);
    }
    if !event.rule.is_empty() {
        line.push_str("  ");
        paint(&mut line, style, &format!("[{}]", printable(event.rule.as_bytes())));
    }
    line.trim_end().to_owned()
}

const fn mark_of(verdict: Verdict) -> (&'static str, Style) {
    match verdict {
        Verdict::Denied => ("✗", RED),
        Verdict::Alerted => ("!", YELLOW),
        Verdict::WouldDeny => ("~", YELLOW),
        Verdict::Allowed | Verdict::Unspecified => ("·", Style::new()),
    }
}

fn mark(event: &Event) -> (&'static str, Style) {
    match event.kind() {
        Kind::Loss => ("!", RED),
        _ => mark_of(event.verdict()),
    }
}

fn paint(line: &mut String, style: Style, text: &str) {
    let _ = write!(line, "{style}{text}{style:#}");
}

fn operation(event: &Event) -> &'static str {
    match event.operation() {
        Operation::Unspecified => "",
        operation => operation.word(),
    }
}

fn user(process: &Process) -> String {
    let login = &process.login_user;
    let mut text =
        if process.user.is_empty() { process.uid.to_string() } else { process.user.clone() };
    // Who became root is what one wants to know.
    if !login.is_empty() && *login != text {
        text = format!("{login}→{text}");
    }
    printable(text.as_bytes())
}

fn program(process: &Process) -> String {
    let name = process.exe.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    printable(if name.is_empty() { &process.comm } else { name })
}

/// What it was done to.
fn object(event: &Event, process: &Process) -> String {
    if let Some(peer) = &event.destination {
        return match (peer.ip.as_str(), peer.ip.contains(':')) {
            ("", _) if peer.path.is_empty() => peer.protocol.clone(),
            ("", _) => printable(&peer.path),
            (ip, true) => format!("[{ip}]:{}/{}", peer.port, peer.protocol),
            (ip, false) => format!("{ip}:{}/{}", peer.port, peer.protocol),
        };
    }
    if let Some(device) = &event.device {
        return plugged(device);
    }
    if event.kind() == Kind::Exit {
        return match (event.signal, event.exit_code) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, code) => format!("exit {}", code.unwrap_or(0)),
        };
    }
    let Some(file) = &event.file else { return String::new() };
    let launched = event.operation() == Operation::Exec && event.verdict() != Verdict::Denied;
    if launched && !process.argv.is_empty() {
        return command_line(&process.environment, &process.argv);
    }
    let mut text =
        if file.path.is_empty() { "(no name)".to_owned() } else { printable(&file.path) };
    if !file.new_path.is_empty() {
        text.push_str(" → ");
        text.push_str(&printable(&file.new_path));
    }
    if !file.attribute.is_empty() {
        text.push_str(" # ");
        text.push_str(&printable(&file.attribute));
    }
    text
}

/// What a device says that it is.
fn plugged(device: &Device) -> String {
    let functions = device.functions.join(", ");
    let parts = [&device.vendor_name, &device.product_name, &functions];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    let text = parts.map(|part| printable(part.as_bytes())).collect::<Vec<_>>().join(" ");
    format!("{text} at {}", printable(device.port.as_bytes()))
}

/// As it would be typed, cut to one glance.
fn command_line(environment: &[Vec<u8>], argv: &[Vec<u8>]) -> String {
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"-_./=:,+@%".contains(byte);
    let quoted = environment.iter().chain(argv).map(|part| {
        let text = printable(part);
        if !part.is_empty() && part.iter().all(plain) { text } else { format!("'{text}'") }
    });
    let text = quoted.collect::<Vec<_>>().join(" ");
    if text.width() <= ARGUMENTS_COLUMNS_MAX {
        return text;
    }
    cut(&text, ARGUMENTS_COLUMNS_MAX)
}

fn details(event: &Event) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(count) = event.bytes {
        let incoming = event.bytes_in.filter(|count| *count > 0);
        details.push(match incoming {
            Some(incoming) => format!("{} out, {} in", bytes(count), bytes(incoming)),
            None => bytes(count),
        });
    }
    let below = event.file.as_ref().and_then(|file| file.device.as_ref());
    if let Some(device) = event.device.as_ref().or(below) {
        let serial = if device.serial.is_empty() { "-" } else { &device.serial };
        let serial = printable(serial.as_bytes());
        match device.class.as_str() {
            "usb" => {
                let (vendor, product) = (device.vendor.as_bytes(), device.product.as_bytes());
                let (vendor, product) = (printable(vendor), printable(product));
                details.push(format!("usb {vendor}:{product} {serial}"));
            }
            "sd" | "thunderbolt" | "optical" => details.push(format!("{} {serial}", device.class)),
            "network" | "fuse" => details.push(share(device)),
            _ => {}
        }
    }
    details.extend(sources(event));
    if !event.sha256.is_empty() {
        let beginning: String =
            event.sha256.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        details.push(format!("sha256 {beginning}…"));
    }
    if !event.sha256_missing.is_empty() {
        details.push(format!("(no sha256: {})", printable(event.sha256_missing.as_bytes())));
    }
    if let Some(errno) = event.errno.filter(|_| event.verdict() != Verdict::Denied) {
        details.push(format!("{:?}", Errno::from_raw(errno)));
    }
    details.extend(named(event));
    if event.late {
        details.push("(began before the agent)".to_owned());
    }
    if event.truncated {
        details.push("(incomplete)".to_owned());
    }
    details
}

/// What kind of share it is, and whose.
fn share(device: &Device) -> String {
    let words = [&device.file_system, &device.source].map(|it| printable(it.as_bytes()));
    let known: Vec<&str> = words.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
    if known.is_empty() { device.class.clone() } else { known.join(" ") }
}

/// What the destination is called, and what was asked of it or sent to whom.
fn named(event: &Event) -> Vec<String> {
    let Some(peer) = &event.destination else { return Vec::new() };
    let mut details = Vec::new();
    if let Some(name) = peer.names.first() {
        details.push(format!("{} ({})", printable(name.name.as_bytes()), name.source().word()));
    }
    if let Some(http) = &peer.http {
        let method = printable(http.method.as_bytes());
        details.push(format!("{method} {}", printable(&http.path)));
    }
    if let Some(smtp) = &peer.smtp {
        let mut parts: Vec<String> =
            smtp.to.iter().map(|it| format!("<{}>", printable(it.as_bytes()))).collect();
        if smtp.more {
            parts.push("…".to_owned());
        }
        let from = printable(smtp.from.as_bytes());
        details.push(format!("mail from <{from}> to {}", parts.join(", ")));
    }
    details
}

/// Where it may have come from.
fn sources(event: &Event) -> Option<String> {
    let first = event.sources.first()?;
    let mut text = format!("from {}", printable(&first.path));
    match (event.sources.len() - 1, event.more_sources) {
        (0, false) => {}
        (0, true) => text.push_str(" and more"),
        (others, false) => text.push_str(&format!(" and {others} more")),
        (others, true) => text.push_str(&format!(" and more than {others} more")),
    }
    Some(text)
}

/// What was signed, or became of it.
fn evidence(event: &Event) -> Option<String> {
    if let Some(checkpoint) = &event.checkpoint {
        let statement = CheckpointStatement::decode(checkpoint.statement.as_slice()).ok()?;
        let count = (statement.digests.len() / DIGEST_BYTES) as u64;
        let (first, last) = (statement.first, (statement.first + count).saturating_sub(1));
        return Some(format!("{} signs records {first} to {last}", statement.number));
    }
    let custody = event.custody.as_ref()?;
    if let Some(removed) = &custody.removed {
        let Removed { through_cursor, events, reason } = removed;
        let reason = printable(reason.as_bytes());
        return Some(format!("removed {events} events, up to cursor {through_cursor}: {reason}"));
    }
    let countersigned = custody.countersigned.len();
    let mut hosts: Vec<&str> = custody.countersigned.iter().map(|it| it.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let hosts = printable(hosts.join(", ").as_bytes());
    Some(cut(
        &format!("countersigned {countersigned} checkpoints of {hosts}"),
        ARGUMENTS_COLUMNS_MAX,
    ))
}

fn about_the_monitor(event: &Event) -> String {
    let Some(loss) = &event.loss else { return printable(event.message.as_bytes()) };
    let kind = match loss.kind() {
        Kind::Unspecified => "events".to_owned(),
        kind => kind.word().to_owned(),
    };
    let (stage, reason) = (printable(loss.stage.as_bytes()), printable(loss.reason.as_bytes()));
    format!("{} × {kind} lost at {stage}: {reason}", loss.count)
}

/// Who asked the collector, for what, and how much they were answered.
/// What became of a host or a certificate.
fn change_of_host(change: &HostChange, dated: bool, zone: &TimeZone) -> String {
    let text = |text: &str| printable(text.as_bytes());
    let mut line =
        format!("{} {} {}", change.turn().word(), text(&change.role), text(&change.name));
    if !change.address.is_empty() {
        line.push_str(&format!(" from {}", text(&change.address)));
    }
    if !change.serial.is_empty() {
        let until = time::show(change.valid_until_ns, true, zone);
        line.push_str(&format!("  certificate {} until {until}", text(&change.serial)));
    }
    if change.superseded {
        line.push_str("; earlier ones are refused");
    }
    if !change.token.is_empty() {
        line.push_str(&format!("  token {} by {}", text(&change.token), text(&change.token_by)));
    }
    if !change.ordered_by.is_empty() {
        let (by, reason) = (text(&change.ordered_by), text(&change.reason));
        line.push_str(&format!("  by order of {by}: {reason}"));
    }
    if change.last_seen_ns != 0 && change.turn() == HostTurn::Silent {
        line.push_str(&format!("  last seen {}", time::show(change.last_seen_ns, dated, zone)));
    }
    line
}

fn act_of_operator(act: &OperatorAct) -> String {
    let text = |text: &str| printable(text.as_bytes());
    let mut line = format!("{} {}", text(&act.role), text(&act.name));
    if !act.address.is_empty() {
        line.push_str(&format!(" from {}", text(&act.address)));
    }
    line.push_str(&format!(": {}", text(&act.method)));
    let question = text(&act.question);
    if !question.is_empty() {
        line.push(' ');
        if question.width() <= ARGUMENTS_COLUMNS_MAX {
            line.push_str(&question);
        } else {
            line.push_str(&cut(&question, ARGUMENTS_COLUMNS_MAX));
        }
    }
    let what = if act.method == "Aggregate" { "groups" } else { "events" };
    let answered = act.answered;
    line.push_str(&match act.phase() {
        ActPhase::Unspecified => format!(" → {answered} {what}"),
        ActPhase::Continued => format!(" → {answered} {what} more"),
        ActPhase::Begin => " → begins".to_owned(),
        ActPhase::End => format!(" → ended after {answered} {what}"),
    });
    line
}

/// In powers of 1024 with one decimal.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in UNITS.iter().skip(1) {
        // What would be shown as 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// Padded or cut to exactly so many columns on the screen: Japanese characters take two.
fn fit(text: &str, columns: usize) -> String {
    let mut text = if text.width() > columns { cut(text, columns) } else { text.to_owned() };
    let missing = columns.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    let mut kept = String::new();
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used + 1 > columns {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}
