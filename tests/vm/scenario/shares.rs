//! Files of another machine (9p, NFS): what is written to them is recorded and can be refused.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Run;
use super::prepare::PLAIN;
use crate::guest::Output;
use crate::run::World;
use crate::{check, guest, limits};

pub const ALL: &[(&str, Run)] = &[
    ("plan-9", plan_9),
    ("plan-9-refused", plan_9_refused),
    ("nfs", nfs),
    ("nfs-refused", nfs_refused),
    ("read-only-share-is-not-looked-at", read_only),
    ("hooks-follow-the-share", follow_the_share),
];

/// Where shares are mounted.
pub(super) const AT: &str = "/mnt/share";

/// A share as records name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub class: &'static str,
    pub file_system: &'static str,
    pub source: &'static str,
}

pub(super) const PLAN_9: Share = Share { class: "network", file_system: "9p", source: "shelf" };
pub(super) const NFS: Share =
    Share { class: "network", file_system: "nfs4", source: "127.0.0.1:/" };

impl Share {
    /// Waits for a record of `path` below the share.
    pub(super) fn expect(
        &self,
        world: &World,
        path: &str,
        fields: &[(&str, Value)],
    ) -> Result<Value> {
        let mut all = vec![
            ("/file/path", json!(format!("{AT}/{path}"))),
            ("/file/device/class", json!(self.class)),
            ("/file/device/file_system", json!(self.file_system)),
            ("/file/device/source", json!(self.source)),
        ];
        all.extend(fields.iter().cloned());
        world.records.expect("share.write", &all)
    }

    /// The open, the first write and the sum of a file are on record, and nothing of it twice.
    pub(super) fn written(&self, world: &World, path: &str, bytes: u64) -> Result<()> {
        for operation in ["open", "write"] {
            self.expect(world, path, &[("/operation", json!(operation))])?;
        }
        let sum = [
            ("/operation", json!("close")),
            ("/bytes", json!(bytes)),
            ("/verdict", json!("allowed")),
            ("/late", Value::Null),
        ];
        self.expect(world, path, &sum)?;
        let path = [("/file/path", json!(format!("{AT}/{path}")))];
        let closes = world.records.all("share.write", &path)?;
        let closes = closes.iter().filter(|it| it.pointer("/operation") == Some(&json!("close")));
        check::equal("closes", closes.count(), 1)
    }

    pub(super) fn denied(&self, world: &World, path: &str, operation: &str) -> Result<()> {
        let fields = [
            ("/operation", json!(operation)),
            ("/verdict", json!("denied")),
            ("/rule", json!("no-shares")),
            ("/errno", json!(1)),
        ];
        self.expect(world, path, &fields).map(drop)
    }
}

/// The pin of a program that stands on its hook only while there are shares.
pub(super) fn link() -> Result<PathBuf> {
    let set = super::outlives::sets()?;
    let set = set.first().context("no programs are pinned")?;
    Ok(Path::new("/sys/fs/bpf/sekimori").join(set).join("links/share_write"))
}

/// Waits until the programs for shares are at work.
pub(super) fn watched(world: &World) -> Result<()> {
    let link = link()?;
    guest::until("the programs for shares come", limits::STOP_TIMEOUT, || Ok(link.exists()))?;
    // The agent answers when it has done what it was doing.
    world.daemons.ask().map(drop)
}

/// Mounts a share by a script, has `then` work with it, and unmounts it.
pub(super) fn with(
    world: &mut World,
    mount: &str,
    then: impl FnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    std::fs::create_dir_all(AT)?;
    let mounted = guest::bash(mount, &[AT]).and_then(|it| check::ok(&it));
    let outcome = mounted.and_then(|()| watched(world)).and_then(|()| then(world));
    let unmounted = guest::run("umount", &[AT])?;
    outcome?;
    check::ok(&unmounted)
}

pub(super) const MOUNT_PLAN_9: &str =
    "mount -t 9p -o trans=virtio,version=9p2000.L,cache=none shelf \"$1\" && rm -rf \"$1\"/*";

/// A server and a client on this machine; the server's files are in memory.
pub(super) const MOUNT_NFS: &str = r#"
set -e
if ! mountpoint -q /srv/exported; then
    modprobe nfsd
    modprobe nfsv4
    mkdir -p /srv/exported /var/lib/nfs/v4recovery
    mount -t tmpfs tmpfs /srv/exported
    mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
    touch /var/lib/nfs/etab /var/lib/nfs/rmtab
    exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 127.0.0.1:/srv/exported
    # Nobody has locks of an earlier server to claim again.
    echo 10 >/proc/fs/nfsd/nfsv4gracetime
    rpc.mountd -N 2 -N 3
    rpc.nfsd -N 3 2
    # Linux 7.x may say that there is no such time to be ended.
    echo Y >/proc/fs/nfsd/v4_end_grace || true
fi
mount -t nfs4 -o vers=4.2,proto=tcp,soft,timeo=600 127.0.0.1:/ "$1"
"#;

/// Puts bytes into files of the directory `$1` by whatever way; prints name and bytes of each.
const WAYS: &str = r#"
at = sys.argv[1]
done = {}


def new(name, size, flags=0):
    done[name] = size
    return os.open(f"{at}/{name}", os.O_CREAT | os.O_RDWR | flags, 0o644)


fd = new("write", 70001 + 5)
same("write", os.write(fd, b"w" * 70001), 70001)
same("pwrite", os.pwrite(fd, b"12345", 3), 5)
os.close(fd)
fd = new("writev", 777 + 33)
same("writev", os.writev(fd, [b"a" * 700, b"b" * 77]), 777)
same("pwritev2", os.pwritev(fd, [b"c" * 33], 0, os.RWF_SYNC), 33)
os.close(fd)
fd = new("splice", 5000)
read, write = os.pipe()
os.write(write, b"s" * 5000)
left = 5000
while left:
    left -= os.splice(read, fd, left)
os.close(fd)
fd = new("sendfile", 6000)
memory = os.memfd_create("source")
os.write(memory, b"m" * 6000)
left = 6000
while left:
    left -= os.sendfile(fd, memory, 6000 - left, left)
os.close(fd)
fd = new("ring", 4321)
data = ctypes.create_string_buffer(b"u" * 4321)
same("io_uring", submit(23, fd, 0, ctypes.addressof(data), 4321), 4321)
os.close(fd)


def aio(name, size, flags):
    context = ctypes.c_ulong()
    same("io_setup", call(206, 4, ctypes.byref(context)), 0)
    fd = new(name, size, flags)
    memory = mmap.mmap(-1, size)
    memory.write(b"a" * size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    block = ctypes.create_string_buffer(
        struct.pack("<QIiHhIQQqQII", 7, 0, 0, 1, 0, fd, address, size, 0, 0, 0, 0), 64)
    same("io_submit", call(209, context, 1, (ctypes.c_void_p * 1)(ctypes.addressof(block))), 1)
    event = (ctypes.c_longlong * 4)()
    same("io_getevents", call(208, context, 1, 1, event, None), 1)
    same("bytes", event[2], size)
    os.close(fd)


aio("aio", 70001, 0)
if "direct" in sys.argv:
    aio("aio-direct", 131072, os.O_DIRECT)
for name, size in done.items():
    print(name, size)
"#;

/// Writes by all ways and checks what is recorded of each.
pub(super) fn all_ways(world: &World, share: &Share, more: &str) -> Result<()> {
    let script = format!("{}{WAYS}", include_str!("../ring.py"));
    let output = guest::calls(&script, &[AT, more])?;
    check::ok(&output)?;
    for line in output.text().lines() {
        let (name, bytes) = line.split_once(' ').context("a line without bytes")?;
        share.written(world, name, bytes.parse()?).context(name.to_owned())?;
    }
    Ok(())
}

fn plan_9(world: &mut World) -> Result<()> {
    with(world, MOUNT_PLAN_9, |world| {
        all_ways(world, &PLAN_9, "")?;
        names(world, &PLAN_9)
    })
}

/// Changes of names on a share.
pub(super) fn names(world: &World, share: &Share) -> Result<()> {
    let script = "cd \"$1\"; mkdir new; echo x >new/a; mv new/a new/b; rm new/b; rmdir new";
    check::ok(&guest::bash(script, &[AT])?)?;
    for (operation, path) in [
        ("mkdir", "new"),
        ("create", "new/a"),
        ("rename", "new/a"),
        ("unlink", "new/b"),
        ("rmdir", "new"),
    ] {
        share.expect(
            world,
            path,
            &[("/operation", json!(operation)), ("/verdict", json!("allowed"))],
        )?;
    }
    Ok(())
}

/// Forbids shares, and tries everything on one that has a file already.
pub(super) fn all_refused(world: &mut World, share: &Share) -> Result<()> {
    guest::write(format!("{AT}/there.txt"), PLAIN)?;
    let rule = "  - { id: no-shares, on: share.write, action: deny }\n";
    world.policy(&World::usual_policy_and(rule))?;
    let refused = |script: &str| check::refused(&guest::bash(script, &[AT])?);
    refused("cp /srv/personal/a.txt \"$1/new.txt\"")?;
    refused("mkdir \"$1/new\"")?;
    refused("mv \"$1/there.txt\" \"$1/elsewhere.txt\"")?;
    refused("rm -f \"$1/there.txt\"")?;
    refused("echo x >>\"$1/there.txt\"")?;
    check::that(!Path::new(&format!("{AT}/new.txt")).exists(), "something arrived")?;
    check::equal("reading", std::fs::read_to_string(format!("{AT}/there.txt"))?, PLAIN.into())?;
    for (path, operation) in [
        ("new.txt", "create"),
        ("new", "mkdir"),
        ("there.txt", "rename"),
        ("there.txt", "unlink"),
        ("there.txt", "open"),
    ] {
        share.denied(world, path, operation).with_context(|| operation.to_owned())?;
    }
    Ok(())
}

fn plan_9_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_PLAN_9, |world| all_refused(world, &PLAN_9))
}

fn nfs(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| {
        all_ways(world, &NFS, "direct")?;
        names(world, &NFS)
    })
}

fn nfs_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_NFS, |world| all_refused(world, &NFS))
}

/// The guest's own files lie on such shares: the programs are not there because of them.
fn read_only(_: &mut World) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let shares: Vec<_> = table.lines().filter(|line| line.contains(" - 9p ")).collect();
    check::that(!shares.is_empty(), "there is no share at all")?;
    let link = link()?;
    guest::until("the programs are gone", limits::STOP_TIMEOUT, || Ok(!link.exists()))
}

fn follow_the_share(world: &mut World) -> Result<()> {
    let link = link()?;
    let gone =
        || guest::until("the programs are gone", limits::STOP_TIMEOUT, || Ok(!link.exists()));
    gone()?;
    with(world, MOUNT_PLAN_9, |_| check::that(link.exists(), "the programs are not there"))?;
    gone()?;
    // In a mount namespace of its own, which the agent does not see.
    let script = r#"
set -e
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none shelf "$1"
until [ -e "$2" ]; do sleep 0.1; done
sleep 1
echo 12345 >"$1/hidden"
umount "$1"
"#;
    let link_text = link.to_string_lossy().into_owned();
    let hidden: Output =
        guest::run("unshare", &["-m", "bash", "-c", script, "bash", AT, &link_text])?;
    check::ok(&hidden)?;
    let fields = [
        ("/operation", json!("close")),
        ("/bytes", json!(6)),
        ("/file/device/class", json!("network")),
        ("/file/device/source", json!("shelf")),
    ];
    world.records.expect("share.write", &fields)?;
    gone()
}
