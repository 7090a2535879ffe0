//! Data beside the content of a file on a stick: extended attributes and access control lists.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::usb_denied::denied;
use super::usb_mounts::permit_other;
use crate::run::World;
use crate::{check, guest};
use guest::{OTHER, OTHER_SERIAL};

pub const ALL: &[(&str, Run)] = &[("recorded", recorded), ("refused", refused)];

/// A value, and a list of five entries as it is stored.
const VALUES: &str = r#"
path, name = sys.argv[1], "user.機密"
value = b"leak" * 150
entries = [(1, 6, 0xffffffff), (2, 4, 4242), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 4, 0xffffffff)]
list_name = "system.posix_acl_access"
stored = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
"#;

fn recorded(world: &mut World) -> Result<()> {
    permit_other(world)?;
    let path = format!("{OTHER}/there.txt");
    let script = r#"
os.setxattr(path, name, value)
same("the value", os.getxattr(path, name), value)
os.removexattr(path, name)
os.setxattr(path, list_name, stored)
os.removexattr(path, list_name)
# By a descriptor that is open for reading.
os.setxattr(os.open(path, os.O_RDONLY), "user.second", b"")
os.removexattr(path, "user.second")
"#;
    check::ok(&guest::calls(&format!("{VALUES}{script}"), &[&path])?)?;
    for (operation, attribute, bytes) in [
        ("setxattr", "user.機密", json!(600)),
        ("removexattr", "user.機密", json!(null)),
        ("setxattr", "system.posix_acl_access", json!(44)),
        ("removexattr", "system.posix_acl_access", json!(null)),
        ("setxattr", "user.second", json!(0)),
    ] {
        let fields = [
            ("/operation", json!(operation)),
            ("/file/path", json!(path)),
            ("/file/attribute", json!(attribute)),
            ("/file/device/serial", json!(OTHER_SERIAL)),
            ("/bytes", bytes),
            ("/process/comm", json!("python3")),
            ("/verdict", json!("allowed")),
        ];
        world.records.expect("usb.write", &fields)?;
    }
    // What lies elsewhere is nobody's business.
    let elsewhere = "import os\nos.setxattr('/tmp', 'trusted.x', b'y')";
    check::ok(&guest::python::<&str>(elsewhere, &[])?)?;
    check::ok(&guest::bash("touch \"$1/after.txt\"; rm \"$1/after.txt\"", &[OTHER])?)?;
    let after =
        [("/operation", json!("unlink")), ("/file/path", json!(format!("{OTHER}/after.txt")))];
    world.records.expect("usb.write", &after)?;
    let set = world.records.all("usb.write", &[("/operation", json!("setxattr"))])?;
    check::equal("records of attributes that were set", set.len(), 3)
}

fn refused(world: &mut World) -> Result<()> {
    let path = format!("{OTHER}/there.txt");
    let script = r#"
descriptor = os.open(path, os.O_RDONLY)
refused("setxattr", lambda: os.setxattr(path, name, value))
refused("fsetxattr", lambda: os.setxattr(descriptor, name, value))
refused("removexattr", lambda: os.removexattr(path, name))
refused("a list", lambda: os.setxattr(path, list_name, stored))
refused("no list", lambda: os.removexattr(path, list_name))
same("attributes", os.listxattr(path), [])
"#;
    check::ok(&guest::calls(&format!("{VALUES}{script}"), &[&path])?)?;
    denied(world, "setxattr", &path)?;
    denied(world, "removexattr", &path)?;
    for attribute in ["user.機密", "system.posix_acl_access"] {
        let fields = [
            ("/operation", json!("setxattr")),
            ("/file/attribute", json!(attribute)),
            ("/verdict", json!("denied")),
        ];
        world.records.expect("usb.write", &fields)?;
    }
    Ok(())
}
