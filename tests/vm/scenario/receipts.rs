//! Receipts: what was copied to a stick, from where, and that it is what is there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Run;
use crate::run::World;
use crate::{check, guest, records};
use guest::{USB, USB_SERIAL};

pub const ALL: &[(&str, Run)] = &[
    ("copy", copy),
    ("archive-names-all-its-sources", archive),
    ("file-that-is-changed-again", changed),
    ("file-whose-name-is-taken", renamed),
    ("stick-that-is-gone", gone),
    ("pipe-and-file-that-is-open-for-both", piped),
    ("compressor-names-what-it-is-fed", |world| one_of_three(world, fed)),
    ("pipeline-names-what-goes-in", |world| one_of_three(world, pipeline)),
    ("file-that-its-process-left-open", left_open),
    ("unmount-is-asked-and-not-hindered-for-long", unmounted),
    ("random-copies", random),
];

fn receipt(world: &World, path: &str) -> Result<Value> {
    let fields = [
        ("/operation", json!("receipt")),
        ("/file/path", json!(path)),
        ("/file/device/serial", json!(USB_SERIAL)),
    ];
    world.records.expect("usb.write", &fields)
}

fn sources(receipt: &Value) -> Vec<String> {
    let list = receipt.pointer("/sources").and_then(Value::as_array);
    let paths = list.into_iter().flatten().map(|it| records::text(it, "/path").to_owned());
    let mut paths: Vec<String> = paths.collect();
    paths.sort();
    paths
}

fn sum(path: &str) -> Result<String> {
    let text = guest::run("sha256sum", &[path])?.text();
    let text = text.trim_start_matches('\\');
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn copy(world: &mut World) -> Result<()> {
    let (from, to) = ("/srv/personal/見積書.txt", format!("{USB}/見積書の写し.txt"));
    guest::write(from, vec![b'x'; 70_001])?;
    check::ok(&guest::run("cp", &[from, &to])?)?;
    let receipt = receipt(world, &to)?;
    check::equal("sources", sources(&receipt), vec![from.to_owned()])?;
    check::equal("bytes", records::number(&receipt, "/bytes"), 70_001)?;
    check::equal("size", records::number(&receipt, "/file/size"), 70_001)?;
    check::equal("program", records::text(&receipt, "/process/exe"), "/usr/bin/cp")?;
    check::equal("sha256", records::text(&receipt, "/sha256"), sum(&to)?.as_str())?;
    check::that(!records::text(&receipt, "/process/parent/exe").is_empty(), "no parent")
}

fn archive(world: &mut World) -> Result<()> {
    let to = format!("{USB}/all.tar");
    for number in 1..=5 {
        guest::write(format!("/srv/outside/part-{number}.txt"), format!("part {number}"))?;
    }
    let script = "cd /srv/outside && tar cf \"$1\" part-*.txt";
    check::ok(&guest::bash(script, &[&to])?)?;
    let receipt = receipt(world, &to)?;
    let parts: Vec<String> = (1..=5).map(|it| format!("/srv/outside/part-{it}.txt")).collect();
    // tar looks names of people up.
    let looked_up =
        |it: &String| !["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].contains(&it.as_str());
    let named: Vec<String> = sources(&receipt).into_iter().filter(looked_up).collect();
    check::equal("sources", named, parts)?;
    check::equal("sha256", records::text(&receipt, "/sha256"), sum(&to)?.as_str())
}

/// Closed and at once written again: the first receipt must not vouch for the second content.
fn changed(world: &mut World) -> Result<()> {
    let to = format!("{USB}/changed.bin");
    let script = "head -c 9000 /dev/zero >\"$1\"; head -c 9001 /dev/urandom >\"$1\"";
    check::ok(&guest::bash(script, &[&to])?)?;
    let last = sum(&to)?;
    let fields = [("/operation", json!("receipt")), ("/file/path", json!(to))];
    let all = world.records.wait("two receipts", &["--kind", "usb.write"], |all| {
        all.iter().filter(|it| records::fits(it, &fields)).count() == 2
    })?;
    for one in all.iter().filter(|it| records::fits(it, &fields)) {
        let hash = records::text(one, "/sha256");
        let size = records::number(one, "/file/size");
        let good = if size == 9001 { hash == last } else { hash != last };
        check::that(good, format!("a receipt of {size} bytes has the hash {hash:?}"))?;
        let missing = records::text(one, "/sha256_missing");
        check::that(hash.is_empty() != missing.is_empty(), "hash and reason exclude each other")?;
    }
    Ok(())
}

/// Another file takes its name as soon as it is closed: the receipt vouches for what was written, or
/// says that it cannot.
fn renamed(world: &mut World) -> Result<()> {
    let to = format!("{USB}/renamed.bin");
    let script = "cd \"$1\" && head -c 3001 /dev/zero >renamed.bin && mv renamed.bin kept.bin && \
                  head -c 3001 /dev/urandom >other.bin && mv other.bin renamed.bin";
    check::ok(&guest::bash(script, &[USB])?)?;
    let receipt = receipt(world, &to)?;
    let hash = records::text(&receipt, "/sha256");
    let missing = records::text(&receipt, "/sha256_missing");
    check::that(hash.is_empty() != missing.is_empty(), "hash and reason exclude each other")?;
    let written = sum(&format!("{USB}/kept.bin"))?;
    check::that(hash.is_empty() || hash == written, "the hash is that of another file")
}

/// The stick is gone before anybody could hash.
fn gone(world: &mut World) -> Result<()> {
    let (serial, at) = ("SEKI0003", "/mnt/gone");
    check::ok(&guest::run("sekimori-stick", &["plug", serial, "64M:vfat"])?)?;
    guest::mount(serial, at)?;
    let script = "exec 3>\"$1/gone.bin\"; head -c 3000 /dev/zero >&3; umount -l \"$1\"; exec 3>&-";
    let output = guest::bash(script, &[at]);
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    check::ok(&output?)?;
    let fields = [("/operation", json!("receipt")), ("/file/device/serial", json!(serial))];
    let receipt = world.records.expect("usb.write", &fields)?;
    check::equal("sha256", records::text(&receipt, "/sha256"), "")?;
    check::that(!records::text(&receipt, "/sha256_missing").is_empty(), "no reason is given")
}

fn piped(world: &mut World) -> Result<()> {
    let script = "echo piped | cat >\"$1/piped.txt\"; exec 4<>/srv/outside/both.txt; \
                  echo both >&4; cat /proc/self/fd/4 >\"$1/both.txt\"";
    check::ok(&guest::bash(script, &[USB])?)?;
    let pipe = sources(&receipt(world, &format!("{USB}/piped.txt"))?);
    let [pipe] = pipe.as_slice() else { anyhow::bail!("sources: {pipe:?}") };
    check::that(pipe.starts_with("pipe:["), format!("source: {pipe}"))?;
    let both = sources(&receipt(world, &format!("{USB}/both.txt"))?);
    check::equal("sources", both, vec!["/srv/outside/both.txt".to_owned()])
}

/// More than a pipe holds: who reads it waits for who writes to the stick.
const LARGE: &str = "/srv/outside/fed-1.bin";

/// What one end of a pipe opens in the very moment in which the other end is looked at is seen by
/// nobody: neither is it open yet, nor is it known where it goes. That is a known gap of receipts, and
/// rare.
fn one_of_three(world: &mut World, attempt: fn(&mut World) -> Result<()>) -> Result<()> {
    for _ in 0..2 {
        match attempt(world) {
            Ok(()) => return Ok(()),
            Err(error) => println!("again, for the moment that is not seen: {error:#}"),
        }
        world.records.forget()?;
    }
    attempt(world)
}

fn named_without_pipe(receipt: &Value) -> Vec<String> {
    let looked_up = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"];
    let other = |it: &String| !it.starts_with("pipe:[") && !looked_up.contains(&it.as_str());
    sources(receipt).into_iter().filter(other).collect()
}

/// `tar` reads the files; its child, which becomes `gzip`, has the archive open.
fn fed(world: &mut World) -> Result<()> {
    let to = format!("{USB}/fed.tgz");
    let parts: Vec<String> = (1..=4).map(|it| format!("/srv/outside/fed-{it}.bin")).collect();
    let script = "head -c 300000 /dev/urandom >\"$1\"; for part in 2 3 4; do \
                  echo $part >/srv/outside/fed-$part.bin; done; \
                  cd /srv/outside && tar czf \"$2\" fed-*.bin";
    check::ok(&guest::bash(script, &[LARGE, &to])?)?;
    let receipt = receipt(world, &to)?;
    check::equal("sources", named_without_pipe(&receipt), parts)?;
    let pipe = sources(&receipt).iter().any(|it| it.starts_with("pipe:["));
    check::that(pipe, "the pipe is not named")?;
    check::equal("sha256", records::text(&receipt, "/sha256"), sum(&to)?.as_str())
}

/// The shell makes both ends, and what one end starts has the pipe from it.
fn pipeline(world: &mut World) -> Result<()> {
    let script = "head -c 300000 /dev/urandom >\"$1\"; echo 2 >/srv/outside/fed-2.bin; \
                  rm -f \"$2/both.gz\"; \
                  cat \"$1\" | gzip >\"$2/cat.gz\"; \
                  cat <\"$1\" | gzip >\"$2/input.gz\"; \
                  (until [ -e \"$2/both.gz\" ]; do sleep 0.1; done; sleep 1; \
                  cat <\"$1\"; cat /srv/outside/fed-2.bin) | gzip >\"$2/both.gz\"; \
                  cat /srv/outside/fed-2.bin | wc -c >/srv/outside/fed.count";
    check::ok(&guest::bash(script, &[LARGE, USB])?)?;
    for name in ["cat.gz", "input.gz"] {
        let one = receipt(world, &format!("{USB}/{name}"))?;
        check::equal("sources", named_without_pipe(&one), vec![LARGE.to_owned()])?;
    }
    let both = receipt(world, &format!("{USB}/both.gz"))?;
    let expected = vec![LARGE.to_owned(), "/srv/outside/fed-2.bin".to_owned()];
    check::equal("sources", named_without_pipe(&both), expected)
}

/// Who ends with `_exit` closes nothing itself.
fn left_open(world: &mut World) -> Result<()> {
    let (from, to) = ("/srv/outside/left-open.txt", format!("{USB}/left-open.txt"));
    guest::write(from, "left open")?;
    let script = r#"
import os, sys
to = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
os.write(to, os.read(os.open(sys.argv[1], os.O_RDWR), 100))
os._exit(0)
"#;
    check::ok(&guest::python(script, &[from, to.as_str()])?)?;
    let receipt = receipt(world, &to)?;
    check::equal("sources", sources(&receipt), vec![from.to_owned()])?;
    check::equal("more", receipt.pointer("/more_sources").cloned(), None)?;
    check::equal("sha256", records::text(&receipt, "/sha256"), sum(&to)?.as_str())
}

/// What is being hashed is let go.
fn unmounted(world: &mut World) -> Result<()> {
    let (serial, at) = ("SEKI0003", "/mnt/leaving");
    check::ok(&guest::run("sekimori-stick", &["plug", serial, "256M:vfat"])?)?;
    guest::mount(serial, at)?;
    // It may be busy in the very moment in which the file is read.
    let script = "head -c 200M /dev/zero >\"$1/large.bin\"; sleep 0.05; \
                  for _ in 1 2 3; do umount \"$1\" && exit 0; sleep 0.2; done; exit 1";
    let output = guest::bash(script, &[at]);
    check::ok(&guest::run("sekimori-stick", &["unplug", serial])?)?;
    check::ok(&output?)?;
    let asked = [("/operation", json!("unmount")), ("/file/device/serial", json!(serial))];
    let asked = world.records.expect("usb.mount", &asked)?;
    check::equal("path", records::text(&asked, "/file/path"), at)?;
    check::equal("program", records::text(&asked, "/process/comm"), "umount")?;
    let fields = [("/operation", json!("receipt")), ("/file/device/serial", json!(serial))];
    let receipt = world.records.expect("usb.write", &fields)?;
    check::equal("bytes", records::number(&receipt, "/bytes"), 200 << 20)
}

/// Arguments: how many, the stick, a seed. Prints a line per copy: source, destination.
const RANDOM: &str = r#"
import os, random, shutil, subprocess, sys
count, stick, seed = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
os.makedirs("/srv/outside/random", exist_ok=True)
os.makedirs(stick + "/random", exist_ok=True)
letters = "abcXYZ09-_ .見積書顧客é"
def name(number):
    return ("%d %s" % (number, "".join(chance.choice(letters) for _ in range(chance.randint(1, 20))))).strip(" .")
ways = [
    lambda a, b: ["cp", a, b],
    lambda a, b: ["dd", "if=" + a, "of=" + b, "bs=" + str(chance.choice([1000, 4096, 65536])), "status=none"],
    lambda a, b: ["sh", "-c", 'cat "$1" >"$2"', "sh", a, b],
    lambda a, b: ["install", "-m", "644", a, b],
    lambda a, b: ["busybox", "cp", a, b],
    lambda a, b: ["python3", "-I", "-S", "-c", "import shutil, sys; shutil.copyfile(*sys.argv[1:])", a, b],
]
for number in range(count):
    a = "/srv/outside/random/" + name(number)
    b = stick + "/random/" + name(number)
    with open(a, "wb") as file:
        file.write(chance.randbytes(chance.choice([1, 17, 4096, 5000, 131072, 200001])))
    subprocess.run(chance.choice(ways)(a, b), check=True)
    print(a + "\t" + b)
"#;
/// So many in each run of the tests; `SEKIMORI_COPIES` in the environment makes it another number.
const COPIES: usize = 24;
/// So many at a time: more might not end in time, or fill the stick.
const BATCH: usize = 50;

fn random(world: &mut World) -> Result<()> {
    let copies = std::env::var("SEKIMORI_COPIES").ok().map(|it| it.parse()).transpose()?;
    let mut left = copies.unwrap_or(COPIES);
    for seed in 7_u32.. {
        random_batch(world, left.min(BATCH), seed)?;
        left = left.saturating_sub(BATCH);
        if left == 0 {
            break;
        }
        world.records.forget()?;
    }
    Ok(())
}

fn random_batch(world: &World, count: usize, seed: u32) -> Result<()> {
    let output = guest::python(RANDOM, &[&count.to_string(), USB, &seed.to_string()])?;
    check::ok(&output)?;
    let fields = [("/operation", json!("receipt"))];
    let all = world.records.wait("all receipts", &["--kind", "usb.write"], |all| {
        let random = |it: &&Value| {
            records::fits(it, &fields) && records::text(it, "/file/path").contains("/random/")
        };
        all.iter().filter(random).count() >= count
    })?;
    let by_path: BTreeMap<&str, &Value> = all
        .iter()
        .filter(|it| records::fits(it, &fields))
        .map(|it| (records::text(it, "/file/path"), it))
        .collect();
    for line in output.text().lines() {
        let (from, to) = line.split_once('\t').context("no tabulator")?;
        let receipt = by_path.get(to).with_context(|| format!("no receipt of {to}"))?;
        check::equal("sources", sources(receipt), vec![from.to_owned()])?;
        let size = std::fs::metadata(to)?.len();
        check::equal("bytes", records::number(receipt, "/bytes"), size)?;
        check::equal("sha256", records::text(receipt, "/sha256"), sum(to)?.as_str())?;
    }
    check::ok(&guest::bash("rm -r /srv/outside/random \"$1/random\"", &[USB])?)
}
