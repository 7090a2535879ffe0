//! `sekimori doctor`.

use std::io::Write as _;
use std::path::PathBuf;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use sekimori_agent::control::SOCKET_PATH;
use sekimori_agent::kernel::{self, Check, DoctorReport};
use serde::Serialize;

use crate::attack;
use crate::failure::{Failure, PERMISSION, UNSUPPORTED};

const EXAMPLES: &str = "\
Loads and attaches every program for a moment, without a policy: nothing is refused or recorded.
Run it as root.

With --attack it tries harmless ways around the agent that runs here (launches, connections and
uploads over loopback, writes to a stick, attacks on the agent) and says what was refused, what was
recorded, and what nobody saw. Rules can refuse such tries, and people who watch can see them.

Exit codes: 0 this kernel can do the job, 69 it cannot, 77 not tried for lack of permission.
With --attack: 0 everything was seen, 1 something was not.

Examples:
  sudo sekimori doctor
  sudo sekimori doctor --attack --stick /media/suzuki/USB";

/// Tries out whether this kernel can do the job.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Tries ways around the agent that runs on this machine.
    #[arg(long)]
    attack: bool,
    /// Mount point of a stick to write to; a directory is made there and removed.
    #[arg(long, value_name = "DIR", requires = "attack")]
    stick: Option<PathBuf>,
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH, requires = "attack")]
    socket: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    if args.attack {
        return attack::run(&args.socket, args.stick, args.json);
    }
    let report = kernel::doctor();
    let mut out = anstream::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_of(&report)?)?;
    } else {
        writeln!(out, "{}", table(&report))?;
        writeln!(out, "{}", verdict(&report))?;
    }
    match (report.ok, report.permission) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::told(PERMISSION)),
        (false, false) => Err(Failure::told(UNSUPPORTED)),
    }
}

/// A table with this header, as wide as the terminal.
pub fn table_of<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if let Some((columns, _)) = terminal_size::terminal_size() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns.0);
    }
    table.set_header(header);
    table
}

/// The report, as one JSON object or value on a line.
pub fn json_of(report: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(report)
        .map_err(|error| Failure::failed(format!("cannot write the report: {error}")))
}

fn table(report: &DoctorReport) -> Table {
    let mut table = table_of(["what", "where", "", "detail"]);
    let mut check = |what: &str, place: &str, check: &Check| {
        table.add_row([what, place, if check.ok { "ok" } else { "NO" }, check.detail.as_str()]);
    };
    check("kernel types", "BTF", &report.btf);
    check("BPF may decide", "lsm list", &report.bpf_lsm);
    check("programs", "load", &report.load);
    for feature in &report.features {
        let state = match (feature.attached, feature.required) {
            (true, _) => "ok",
            (false, true) => "NO",
            (false, false) => "lost",
        };
        table.add_row([feature.name, feature.hook, state, feature.detail.as_str()]);
    }
    table
}

fn verdict(report: &DoctorReport) -> String {
    let kernel = &report.kernel;
    if report.permission {
        return format!("Linux {kernel}: not tried, run `sudo sekimori doctor`.");
    }
    if !report.ok {
        return format!("Linux {kernel} cannot do the job: see the rows marked NO.");
    }
    match report.features.iter().filter(|feature| !feature.attached).count() {
        0 => format!("Linux {kernel} can do the job."),
        lost => format!("Linux {kernel} can do the job, without {lost} optional parts."),
    }
}
