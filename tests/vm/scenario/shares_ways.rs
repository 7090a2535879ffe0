//! Writes to shares of which no bytes are seen, or whose beginning nobody saw.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Run;
use super::shares::{AT, MOUNT_NFS, MOUNT_PLAN_9, NFS, PLAN_9, with};
use crate::run::World;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("mapping-and-fallocate", mapped),
    ("mapping-and-fallocate-refused", mapped_refused),
    ("copy-by-the-server", copied),
    ("copy-by-the-server-refused", copied_refused),
    ("first-moment", first_moment),
];

/// `fallocate` (x86-64), and what a shared mapping stores.
const MAPPED: &str = r#"
at = sys.argv[1]
fd = os.open(f"{at}/mapped.bin", os.O_CREAT | os.O_RDWR, 0o644)
same("fallocate", call(285, fd, 0, 0, 8192), 0)
memory = mmap.mmap(fd, 8192)
memory[100:106] = b"secret"
memory.flush()
memory.close()
os.close(fd)
"#;

/// No bytes of it are on record: only that it was opened for write.
fn opened_only(world: &World, path: &str) -> Result<()> {
    NFS.expect(world, path, &[("/operation", json!("open")), ("/verdict", json!("allowed"))])?;
    let fields = [("/file/path", json!(format!("{AT}/{path}")))];
    let all = world.records.all("share.write", &fields)?;
    let bytes = all.iter().filter_map(|it| it.pointer("/bytes").and_then(Value::as_u64));
    check::equal("bytes", bytes.sum::<u64>(), 0)
}

fn forbid(world: &mut World) -> Result<()> {
    let rule = "  - { id: no-shares, on: share.write, action: deny }\n";
    world.policy(&World::usual_policy_and(rule))
}

fn mapped(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| {
        check::ok(&guest::calls(MAPPED, &[AT])?)?;
        let arrived = std::fs::read("/srv/exported/mapped.bin")?;
        check::equal("what the server has", arrived.get(100..106), Some(b"secret".as_slice()))?;
        opened_only(world, "mapped.bin")
    })
}

fn mapped_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| {
        let _ = std::fs::remove_file("/srv/exported/mapped.bin");
        guest::write("/srv/exported/mapped.bin", "before")?;
        forbid(world)?;
        let output = guest::calls(MAPPED, &[AT])?;
        check::that(output.errors().contains("Operation not permitted"), output.errors())?;
        check::equal("the file", std::fs::read("/srv/exported/mapped.bin")?, b"before".to_vec())?;
        NFS.denied(world, "mapped.bin", "open")
    })
}

/// One file of the share into another: the client asks, and the server copies (NFS 4.2, COPY).
const COPIED: &str = r#"
at = sys.argv[1]
source = os.open(f"{at}/source.bin", os.O_RDONLY)
to = os.open(f"{at}/copied.bin", os.O_CREAT | os.O_WRONLY, 0o644)
left = 50000
while left:
    left -= os.copy_file_range(source, to, left)
os.close(to)
"#;

fn source() -> Result<()> {
    let _ = std::fs::remove_file("/srv/exported/copied.bin");
    guest::write("/srv/exported/source.bin", vec![b'c'; 50_000])
}

fn copied(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| {
        source()?;
        check::ok(&guest::calls(COPIED, &[AT])?)?;
        let arrived = std::fs::metadata("/srv/exported/copied.bin")?.len();
        check::equal("what the server has", arrived, 50_000)?;
        NFS.expect(world, "copied.bin", &[("/operation", json!("open"))]).map(drop)
    })
}

fn copied_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| {
        source()?;
        forbid(world)?;
        let output = guest::calls(COPIED, &[AT])?;
        check::that(output.errors().contains("Operation not permitted"), output.errors())?;
        let there = std::path::Path::new("/srv/exported/copied.bin").exists();
        check::that(!there, "something arrived")?;
        NFS.denied(world, "copied.bin", "create")
    })
}

/// The agent cannot put the programs on their hooks yet: the open is on record all the same, and
/// the sum begins when they are there, and says so.
fn first_moment(world: &mut World) -> Result<()> {
    let agent = Pid::from_raw(i32::try_from(world.daemons.agent_pid())?);
    let link = super::shares::link()?;
    let no_link = || Ok(!link.exists());
    guest::until("no share is watched", crate::limits::STOP_TIMEOUT, no_link)?;
    kill(agent, Signal::SIGSTOP)?;
    let script = r#"
at, link, agent = sys.argv[1], sys.argv[2], int(sys.argv[3])
import signal, time
fd = os.open(f"{at}/early.bin", os.O_CREAT | os.O_WRONLY, 0o644)
os.write(fd, b"x" * 1000)
os.kill(agent, signal.SIGCONT)
while not os.path.exists(link):
    time.sleep(0.1)
time.sleep(2)
os.write(fd, b"y" * 500)
os.close(fd)
"#;
    std::fs::create_dir_all(AT)?;
    let mounted = guest::bash(MOUNT_PLAN_9, &[AT]);
    let arguments = [AT.to_owned(), link.to_string_lossy().into_owned(), agent.to_string()];
    let output = guest::calls(script, &arguments);
    kill(agent, Signal::SIGCONT)?;
    let unmounted = guest::run("umount", &[AT])?;
    check::ok(&mounted?)?;
    check::ok(&output?)?;
    check::ok(&unmounted)?;
    PLAN_9.expect(world, "early.bin", &[("/operation", json!("open"))])?;
    let sum = [("/operation", json!("close")), ("/bytes", json!(500)), ("/late", json!(true))];
    PLAN_9.expect(world, "early.bin", &sum).map(drop)
}
