//! Files of programs (FUSE, sshfs) and of SMB servers.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::shares::{AT, MOUNT_NFS, Share, all_refused, all_ways, link, names, watched, with};
use crate::run::World;
use crate::{check, guest};

pub const ALL: &[(&str, Run)] = &[
    ("fuse", fuse),
    ("fuse-refused", fuse_refused),
    ("sshfs", sshfs),
    ("sshfs-refused", sshfs_refused),
    ("smb", smb),
    ("smb-refused", smb_refused),
    ("rules-tell-classes", classes),
];

const FUSE: Share = Share { class: "fuse", file_system: "fuse", source: "cloud" };
const SSHFS: Share = Share { class: "fuse", file_system: "fuse.sshfs", source: "host:/srv/remote" };
const SMB: Share = Share { class: "network", file_system: "cifs", source: "//127.0.0.1/shelf" };

/// The server of SFTP without a network below it.
const MOUNT_SSHFS: &str = r#"
set -e
modprobe fuse || true
mkdir -p /srv/remote
mountpoint -q /srv/remote || mount -t tmpfs tmpfs /srv/remote
printf '#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n' >/run/without-ssh
chmod 755 /run/without-ssh
sshfs -o ssh_command=/run/without-ssh host:/srv/remote "$1"
"#;

/// The kernel's own SMB server.
const MOUNT_SMB: &str = r#"
set -e
if ! mountpoint -q /srv/smb; then
    modprobe ksmbd
    modprobe cifs
    mkdir -p /srv/smb /run/smb
    mount -t tmpfs tmpfs /srv/smb
    printf '[global]\nbind interfaces only = yes\ninterfaces = lo\n' >/run/smb/smb.conf
    printf '[shelf]\npath = /srv/smb\nread only = no\n' >>/run/smb/smb.conf
    ksmbd.adduser -c /run/smb/smb.conf -i /run/smb/users.db -a guest-user -p secret
    ksmbd.mountd -c /run/smb/smb.conf -u /run/smb/users.db </dev/null >/run/smb/log 2>&1
fi
python3 -I -S - "$1" <<'END'
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
options = rb"ip=127.0.0.1,unc=\\127.0.0.1\shelf,user=guest-user,pass=secret,vers=3.1.1"
for _ in range(100):
    if libc.mount(b"//127.0.0.1/shelf", sys.argv[1].encode(), b"cifs", 0, options) == 0:
        sys.exit(0)
    time.sleep(0.2)
sys.exit("mount: " + os.strerror(ctypes.get_errno()))
END
"#;

/// Writes through a file system of our own. Answers the result and how many bytes it got.
fn written() -> Result<String> {
    let _ = guest::run("modprobe", &["fuse"])?;
    std::fs::create_dir_all(AT)?;
    let link = link()?;
    let arguments = ["cloud", AT, &link.to_string_lossy()];
    let output = guest::python(include_str!("../fuse.py"), &arguments);
    let _ = guest::run("umount", &["-l", AT])?;
    let output = output?;
    check::ok(&output)?;
    Ok(output.text())
}

fn fuse(world: &mut World) -> Result<()> {
    check::equal("result and bytes", written()?, "0 5003".to_owned())?;
    FUSE.written(world, "new.bin", 5003)?;
    FUSE.expect(world, "new.bin", &[("/operation", json!("create"))]).map(drop)
}

fn fuse_refused(world: &mut World) -> Result<()> {
    let rule = "  - { id: no-shares, on: share.write, action: deny }\n";
    world.policy(&World::usual_policy_and(rule))?;
    check::equal("result and bytes", written()?, "-1 0".to_owned())?;
    FUSE.denied(world, "new.bin", "create")
}

fn sshfs(world: &mut World) -> Result<()> {
    with(world, MOUNT_SSHFS, |world| {
        all_ways(world, &SSHFS, "")?;
        names(world, &SSHFS)
    })
}

fn sshfs_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_SSHFS, |world| all_refused(world, &SSHFS))
}

fn smb(world: &mut World) -> Result<()> {
    with(world, MOUNT_SMB, |world| {
        all_ways(world, &SMB, "direct")?;
        names(world, &SMB)
    })
}

fn smb_refused(world: &mut World) -> Result<()> {
    with(world, MOUNT_SMB, |world| all_refused(world, &SMB))
}

/// What a rule says of file systems of programs does not hold for those of other machines.
fn classes(world: &mut World) -> Result<()> {
    let rule = "  - { id: no-shares, on: share.write, unless: { device: nas }, action: deny }\n";
    let policy = World::usual_policy_and(rule);
    let group = "devices:\n  - { name: nas, class: [network] }";
    world.policy(&policy.replacen("devices:", group, 1))?;
    with(world, MOUNT_NFS, |_| check::ok(&guest::bash("echo x >\"$1/allowed\"", &[AT])?))?;
    with(world, MOUNT_SSHFS, |world| {
        watched(world)?;
        check::refused(&guest::bash("echo x >\"$1/refused\"", &[AT])?)
    })?;
    SSHFS.denied(world, "refused", "create")
}
