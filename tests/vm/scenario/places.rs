//! One file, other names: mounts, namespaces, other roots, and moves into a labelled place.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use super::Run;
use super::prepare::SECRET;
use crate::check;
use crate::guest::{self, Background, Output};
use crate::limits::PROGRAM_TIMEOUT;
use crate::run::World;

pub const ALL: &[(&str, Run)] = &[
    ("shared-memory", shared_memory),
    ("bind-mount", bind_mount),
    ("bind-mount-of-the-file", bind_mount_of_file),
    ("mount-namespace-of-a-user", user_namespace),
    ("chroot", other_root),
    ("overlay-of-a-user", user_overlay),
    ("forged-program-path", forged_program),
    ("exempted-program-reads-through-bind-mount", exempted),
    ("hard-link-opened-first", hard_link_first),
    ("file-moved-in", file_moved_in),
    ("directory-moved-in", directory_moved_in),
    ("program-on-a-mount-of-a-user", program_on_mount),
    ("exchange-refused", exchange),
    ("renamed-in-the-upper-layer-of-a-user", upper_layer),
    ("many-mounts", many_mounts),
];

/// Files in `/srv/secret`, one for each scenario.
pub const NEVER_OPENED: [&str; 13] = [
    "bind.txt",
    "file.txt",
    "user.txt",
    "root.txt",
    "overlay.txt",
    "forged.txt",
    "many.txt",
    "exempted.txt",
    "tmpfs.txt",
    "contained.txt",
    "compat.txt",
    "filled.txt",
    "filled-too.txt",
];
/// Runs `$1` as nobody, who is root in a user namespace of his own and has mounts of his own.
const IN_NAMESPACE: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups \
                            unshare --user --map-root-user --mount bash -c \"$1\"";

fn refused(output: &Output) -> Result<()> {
    check::that(!output.text().contains(SECRET), "the secret was given away")?;
    check::refused(output)
}

/// The record names the file by its own place.
fn recorded(world: &World, path: &str) -> Result<()> {
    let fields = [
        ("/file/path", json!(path)),
        ("/verdict", json!("denied")),
        ("/rule", json!("secret-no-open")),
        ("/truncated", json!(false)),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

/// devtmpfs, which `/dev/shm` hangs on, has a mount in a namespace of the kernel's that is older
/// than the host's.
fn shared_memory(world: &mut World) -> Result<()> {
    let path = "/dev/shm/labelled/memory.txt";
    guest::write(path, SECRET)?;
    let labelled = World::usual_policy_and("").replace("/srv/secret/**", "/dev/shm/labelled/**");
    world.policy(&labelled)?;
    refused(&guest::run("cat", &[path])?)?;
    recorded(world, path)
}

fn bind_mount(world: &mut World) -> Result<()> {
    let script = "mkdir -p /tmp/bound && mount --bind /srv/secret /tmp/bound && \
                  { cat /tmp/bound/bind.txt; status=$?; umount /tmp/bound; exit $status; }";
    refused(&guest::bash(script, &[])?)?;
    recorded(world, "/srv/secret/bind.txt")
}

fn bind_mount_of_file(world: &mut World) -> Result<()> {
    let script = "touch /tmp/bound.txt && mount --bind /srv/secret/file.txt /tmp/bound.txt && \
                  { cat /tmp/bound.txt; status=$?; umount /tmp/bound.txt; exit $status; }";
    refused(&guest::bash(script, &[])?)?;
    recorded(world, "/srv/secret/file.txt")
}

fn user_namespace(world: &mut World) -> Result<()> {
    let inner = "mount --bind /srv/secret /mnt && cat /mnt/user.txt";
    refused(&guest::bash(IN_NAMESPACE, &[inner])?)?;
    recorded(world, "/srv/secret/user.txt")?;
    // What was looked at through the mount is known by its own name afterwards, too.
    refused(&guest::run("cat", &["/srv/secret/user.txt"])?)
}

fn other_root(world: &mut World) -> Result<()> {
    let script = "cp /run/sekimori-bin/busybox /srv/busybox && \
                  chroot /srv /busybox cat /secret/root.txt";
    refused(&guest::bash(script, &[])?)?;
    recorded(world, "/srv/secret/root.txt")
}

fn user_overlay(world: &mut World) -> Result<()> {
    let inner = "mount -t overlay -o lowerdir=/srv/secret:/srv/outside overlay /mnt && \
                 cat /mnt/overlay.txt";
    refused(&guest::bash(IN_NAMESPACE, &[inner])?)?;
    recorded(world, "/srv/secret/overlay.txt")?;
    refused(&guest::run("cat", &["/srv/secret/overlay.txt"])?)
}

/// `/opt/backup/**` may read secrets; a program that only seems to lie there may not.
fn forged_program(world: &mut World) -> Result<()> {
    let inner = "mount -t tmpfs tmpfs /mnt && mkdir -p /mnt/opt/backup /mnt/s /mnt/old && \
                 cp /run/sekimori-bin/busybox /mnt/opt/backup/cat && \
                 mount --bind /srv/secret /mnt/s && cd /mnt && pivot_root . old && \
                 exec /opt/backup/cat /s/forged.txt";
    refused(&guest::bash(IN_NAMESPACE, &[inner])?)?;
    recorded(world, "/srv/secret/forged.txt")
}

/// A file system of the user's own over the place of the exempted program.
fn program_on_mount(world: &mut World) -> Result<()> {
    let inner = "mount -t tmpfs tmpfs /opt/backup && \
                 cp /run/sekimori-bin/busybox /opt/backup/cat && \
                 exec /opt/backup/cat /srv/secret/tmpfs.txt";
    refused(&guest::bash(IN_NAMESPACE, &[inner])?)?;
    recorded(world, "/srv/secret/tmpfs.txt")
}

/// `RENAME_EXCHANGE`: the labelled directory is the second of the two.
fn exchange(world: &mut World) -> Result<()> {
    std::fs::create_dir_all("/srv/outside/decoy")?;
    let script = r#"
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
one, two = (name.encode() for name in sys.argv[1:])
result = libc.renameat2(-100, one, -100, two, 2)
if result != -1 or ctypes.get_errno() != errno.EPERM:
    sys.exit(f"it was not refused: {result} {ctypes.get_errno()}")
"#;
    let decoy = "/srv/outside/decoy";
    for pair in [[decoy, "/srv/secret/directory"], ["/srv/secret/directory", decoy]] {
        check::ok(&guest::python(script, &pair)?)?;
    }
    let fields = [
        ("/operation", json!("rename")),
        ("/file/path", json!("/srv/secret/directory")),
        ("/verdict", json!("denied")),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

/// overlayfs moves the real file in a call that no hook on paths sees.
fn upper_layer(world: &mut World) -> Result<()> {
    // A tmpfs: the guest's own root is an overlay, which cannot be an upper layer.
    let prepare = "mkdir -p /srv/upper && mount -t tmpfs -o mode=0777 tmpfs /srv/upper && \
                   mkdir -m 0777 /srv/upper/e /srv/upper/w /srv/upper/home && \
                   mkdir /srv/upper/home/secret && echo TOP-SECRET >/srv/upper/home/secret/a && \
                   chown -R 65534:65534 /srv/upper/home";
    check::ok(&guest::bash(prepare, &[])?)?;
    let label = "paths: [\"/srv/secret/**\"";
    let policy = World::usual_policy_and("")
        .replace(label, &format!("{label}, \"/srv/upper/home/secret/**\""));
    world.policy(&policy)?;
    let inner = "mount -t overlay -o \
                 userxattr,lowerdir=/srv/upper/e,upperdir=/srv/upper/home,workdir=/srv/upper/w \
                 overlay /mnt && mv /mnt/secret/a /mnt/free";
    let moved = guest::bash(IN_NAMESPACE, &[inner])?;
    let read = guest::bash("cat /srv/upper/home/free", &[])?;
    let _ = guest::run("umount", &["-l", "/srv/upper"])?;
    check::that(moved.status != 0, "the file was moved")?;
    check::that(!read.text().contains("TOP-SECRET"), "the secret was given away")?;
    let fields = [
        ("/file/path", json!("/srv/upper/home/secret/a")),
        ("/file/new_path", json!("/srv/upper/home/free")),
        ("/verdict", json!("denied")),
    ];
    world.records.expect("file.open", &fields)?;
    Ok(())
}

fn exempted(_: &mut World) -> Result<()> {
    let inner = "mount --bind /srv/secret /mnt && /opt/backup/cat /mnt/exempted.txt";
    let output = guest::bash(IN_NAMESPACE, &[inner])?;
    check::ok(&output)?;
    check::equal("what it read", output.text(), SECRET.to_owned())
}

/// The file has two names since before the agent. First opened by the one that no label is on.
fn hard_link_first(world: &mut World) -> Result<()> {
    check::ok(&guest::run("cat", &["/srv/outside/hardlink-too.txt"])?)?;
    refused(&guest::run("cat", &["/srv/secret/linked-too.txt"])?)?;
    recorded(world, "/srv/secret/linked-too.txt")?;
    refused(&guest::run("cat", &["/srv/outside/hardlink-too.txt"])?)?;
    recorded(world, "/srv/outside/hardlink-too.txt")
}

fn file_moved_in(world: &mut World) -> Result<()> {
    guest::write("/srv/outside/moves-in.txt", SECRET)?;
    check::ok(&guest::run("cat", &["/srv/outside/moves-in.txt"])?)?;
    let (from, to) = ("/srv/outside/moves-in.txt", "/srv/secret/moved-in.txt");
    check::ok(&guest::run("mv", &[from, to])?)?;
    refused(&guest::run("cat", &[to])?)?;
    recorded(world, to)
}

fn directory_moved_in(world: &mut World) -> Result<()> {
    guest::write("/srv/outside/moves-in/内/a.txt", SECRET)?;
    check::ok(&guest::run("cat", &["/srv/outside/moves-in/内/a.txt"])?)?;
    let (from, to) = ("/srv/outside/moves-in", "/srv/secret/moved-in");
    check::ok(&guest::run("mv", &[from, to])?)?;
    refused(&guest::run("cat", &["/srv/secret/moved-in/内/a.txt"])?)?;
    recorded(world, "/srv/secret/moved-in/内/a.txt")
}

/// The host's own mount is found among thousands, by an agent that is younger than they are.
fn many_mounts(world: &mut World) -> Result<()> {
    let (ready, go) = ("/tmp/many-mounts-ready", "/tmp/many-mounts-go");
    for path in [ready, go] {
        let _ = std::fs::remove_file(path);
    }
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "python3",
        "-I",
        "-S",
        "-c",
        MANY_MOUNTS,
    ]);
    command.args([ready, go]);
    let log = Path::new("/run/sekimori-many-mounts.log");
    let mut program = Background::start(command, log)?;
    guest::until("the mounts are there", PROGRAM_TIMEOUT, || Ok(Path::new(ready).exists()))?;
    world.special_agent();
    world.daemons.end_agent(Signal::SIGTERM)?;
    let ordinary = world.daemons.ordinary();
    world.daemons.start_agent(&ordinary)?;
    guest::write(go, "")?;
    program.wait()?;
    check::equal("what it got", std::fs::read_to_string(log)?.trim(), "refused")?;
    recorded(world, "/srv/secret/many.txt")
}

const MANY_MOUNTS: &str = r#"
import ctypes, os, sys, time
mount = ctypes.CDLL(None, use_errno=True).mount
# Each copies all that is there (MS_BIND | MS_REC), the copies before it included.
for _ in range(8):
    if mount(b"/", b"/mnt", None, 4096 | 16384, None) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
open(sys.argv[1], "w").close()
while not os.path.exists(sys.argv[2]):
    time.sleep(0.1)
try:
    print(open("/mnt/srv/secret/many.txt").read())
except PermissionError:
    print("refused")
"#;
