//! What all the scenarios before have recorded, over kills, floods, damage and full disks, is what
//! was signed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Run;
use crate::daemons::HOST;
use crate::guest::Background;
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] = &[
    ("all-is-as-it-was-signed", all),
    ("a-case-is-checked-offline", case),
    ("what-is-taken-out-of-the-store-is-named", taken_out),
];

/// `sekimori verify --json` with these options: its exit code and what it told.
fn verify(collector: &str, options: &[&str]) -> Result<(i32, Vec<Value>)> {
    let arguments = [&["verify", "--json", "--collector", collector], options].concat();
    told(&guest::run("sekimori", &arguments)?)
}

fn told(output: &guest::Output) -> Result<(i32, Vec<Value>)> {
    let lines = output.text();
    let lines = lines.lines().map(serde_json::from_str);
    let told = lines.collect::<Result<Vec<_>, _>>().with_context(|| output.errors())?;
    let code = output.status;
    check::that(!told.is_empty(), format!("it told nothing: {}", output.errors()))?;
    Ok((code, told))
}

fn problems(told: &[Value]) -> Vec<&Value> {
    let findings = told.iter().filter_map(|it| it.get("finding"));
    findings.filter(|it| it.get("problem") == Some(&json!(true))).collect()
}

/// Both are killed once more, so that others sign and countersign what they left.
fn all(world: &mut World) -> Result<()> {
    world.daemons.end_agent(Signal::SIGKILL)?;
    world.daemons.end_collector(Signal::SIGKILL)?;
    world.daemons.start_collector()?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    world.daemons.settle(&world.records)?;
    // It signs everything when it ends.
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let (code, told) = verify(&world.daemons.collector_address(), &[])?;
    check::equal("problems", problems(&told), Vec::new())?;
    check::equal("exit code", code, 0)?;
    let host = told.iter().filter_map(|it| it.get("host"));
    let host = host.into_iter().find(|it| records::text(it, "/host") == HOST);
    let host = host.context("the host is not told")?;
    let (all, proven) = (records::number(host, "/records"), records::number(host, "/proven"));
    println!("scenario: {proven} of {all} records of {HOST} are proven");
    // Floods lose checkpoints too.
    check::that(all > 0 && proven * 10 >= all * 9, format!("{proven} of {all} are proven"))
}

fn case(world: &mut World) -> Result<()> {
    let marker = "退職前の持出し";
    check::ok(&guest::run("/bin/true", &[marker])?)?;
    let launched = [("/process/argv/1", json!(marker))];
    world.records.expect("exec", &launched)?;
    // It signs everything when it ends.
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let collector = world.daemons.collector_address();
    let file = world.daemons.path("事件.zip");
    let _ = std::fs::remove_file(&file);
    let file = file.to_string_lossy().into_owned();
    let since = "-5m";
    let reason = "情報漏えいの疑い 第1号";
    let make = [
        "case",
        "--kind",
        "exec",
        "--host",
        HOST,
        "--since",
        since,
        "--reason",
        reason,
        "--out",
        &file,
        "--collector",
        &collector,
    ];
    check::ok(&guest::run("sekimori", &make)?)?;
    let (code, told) = self::told(&guest::run("sekimori", &["verify", "--json", &file])?)?;
    check::equal("problems", problems(&told), Vec::new())?;
    check::equal("exit code", code, 0)?;
    let manifest = told.iter().find_map(|it| it.get("case")).context("no manifest")?;
    check::equal("reason", records::text(manifest, "/reason"), reason)?;
    check::that(records::number(manifest, "/records") > 0, "the case is empty")?;
    let policy = manifest.pointer("/files/policies~11").is_some();
    check::that(policy, format!("no policy is in the case: {manifest}"))?;
    let read = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
                print(z.read('records.jsonl').decode())";
    let output = guest::python(read, &[&file])?;
    check::ok(&output)?;
    check::that(output.text().contains(marker), "the record is not in the case")?;
    // Somebody makes it another case.
    let change = "
import sys, zipfile
source = zipfile.ZipFile(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], 'w') as changed:
    for name in source.namelist():
        content = source.read(name)
        if name == 'records.jsonl':
            content = content.replace(sys.argv[3].encode(), '何でもない'.encode())
        changed.writestr(name, content)
";
    let changed = world.daemons.path("changed.zip").to_string_lossy().into_owned();
    check::ok(&guest::python(change, &[&file, &changed, marker])?)?;
    let output = guest::run("sekimori", &["verify", &changed])?;
    check::fails_with(&output, "records.jsonl is not what case.json describes")?;
    // Who made the case and why is a record.
    let acts = world.records.wait("the record of the case", &["--kind", "operator"], |all| {
        all.iter().any(|it| records::text(it, "/act/method") == "Export")
    })?;
    let told = acts.iter().any(|it| records::text(it, "/act/question").contains(reason));
    check::that(told, format!("the reason is not recorded: {acts:?}"))
}

/// A copy of the collector's directory, out of which somebody takes a block of records with the
/// means of SQLite, and a collector that serves it.
fn taken_out(world: &mut World) -> Result<()> {
    let noted = world.daemons.path("heads.jsonl").to_string_lossy().into_owned();
    let (code, told) = verify(&world.daemons.collector_address(), &["--note", &noted])?;
    check::equal("problems", problems(&told), Vec::new())?;
    check::equal("exit code", code, 0)?;
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    world.daemons.end_collector(Signal::SIGTERM)?;
    let copy = world.daemons.path("copy");
    let _ = std::fs::remove_dir_all(&copy);
    let (from, to) = (world.daemons.path("collector"), copy.to_string_lossy().into_owned());
    check::ok(&guest::run("cp", &["-a", &from.to_string_lossy(), &to])?)?;
    let script = "
import glob, sqlite3, sys
for path in sorted(glob.glob(sys.argv[1] + '/store/0*.db')):
    store = sqlite3.connect(path)
    # The largest block: records of the agent.
    row = store.execute('SELECT block FROM blocks ORDER BY events DESC LIMIT 1').fetchone()
    if row:
        store.execute('DELETE FROM blocks WHERE block = ?', row)
        store.execute('DELETE FROM bodies WHERE block = ?', row)
        store.commit()
";
    check::ok(&guest::python(script, &[&to])?)?;
    let socket = world.daemons.path("copy.sock");
    let mut command = Command::new("sekimori-collector");
    command.args(["run", "--listen", "127.0.0.1:0", "--dir", &to]).arg("--socket").arg(&socket);
    let log = world.daemons.path("copy.log");
    let mut other = Background::start(command, &log)?;
    guest::until("the other collector listens", crate::limits::START_TIMEOUT, || {
        check::that(other.lives()?, "the other collector ended")?;
        Ok(Path::new(&socket).exists())
    })?;
    let address = format!("unix:{}", socket.display());
    let (code, told) = verify(&address, &["--expect", &noted])?;
    let found = problems(&told);
    check::equal("exit code", code, 2)?;
    let named = |it: &&&Value| records::text(it, "/host") == HOST;
    let removed = found.iter().filter(named).any(|it| {
        matches!(records::text(it, "/kind"), "removed" | "checkpoint_missing" | "inserted")
    });
    check::that(removed, format!("what was taken out is not named: {found:?}"))
}
