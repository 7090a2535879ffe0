//! Commands to a device past its file system and its block layer, through nodes that are open for
//! reading: the kernel lets root send them.

use anyhow::Result;
use serde_json::json;

use super::Run;
use super::below::{CARD_AT, LISTED, UNLISTED, denied_as, with_card, with_stick};
use crate::run::World;
use crate::{check, guest, records};

pub const ALL: &[(&str, Run)] =
    &[("recorded", recorded), ("refused", refused), ("card-refused", card_refused)];

/// `write10` and `inquiry` by SG_IO, with either header; each answers the error, or the status.
pub(super) const COMMANDS: &str = r#"
import fcntl
def command(node, cdb, direction, data, bsg=False):
    place = lambda it: ctypes.addressof(it)
    cdb, sense = ctypes.create_string_buffer(cdb, len(cdb)), ctypes.create_string_buffer(64)
    if bsg:
        out, into = (len(data), 0) if direction == -2 else (0, len(data))
        header = struct.pack("=4sIIIQQIIIIQIIIIQQIIII", b"Q\0\0\0", 0, 0, len(cdb), place(cdb), 0,
            0, 0, 0, 64, place(sense), 0, out, 0, into, place(data) if out else 0,
            place(data) if into else 0, 20000, 0, 0, 0)
        header += b"\0" * (160 - len(header))
    else:
        header = struct.pack("iiBBHIPPPIIiPBBBBHHiII", ord("S"), direction, len(cdb), 64, 0,
            len(data), place(data), place(cdb), place(sense), 20000, 0, 0, 0, *[0] * 9)
    # A drive may be empty.
    fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, 0x2285, bytearray(header))
        return 0
    except OSError as error:
        return -error.errno
    finally:
        os.close(fd)
def write10(node, block, text, bsg=False):
    data = ctypes.create_string_buffer(text.ljust(512, b"."), 512)
    return command(node, struct.pack(">BBIBHB", 0x2a, 0, block, 0, 1, 0), -2, data, bsg)
def inquiry(node, bsg=False):
    data = ctypes.create_string_buffer(96)
    return command(node, bytes([0x12, 0, 0, 0, 96, 0]), -3, data, bsg)
def nodes(disk):
    at = os.path.realpath("/sys/block/" + os.path.basename(disk) + "/device")
    yield disk, False
    for name in os.listdir(at + "/scsi_generic"):
        yield "/dev/" + name, False
    for name in os.listdir(at + "/bsg"):
        yield "/dev/bsg/" + name, True
def block(disk, number):
    fd = os.open(disk, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, 4, number * 512)
"#;

fn recorded(world: &mut World) -> Result<()> {
    with_stick(LISTED, |device| {
        let script = r#"
disk = sys.argv[1]
for number, (node, bsg) in enumerate(nodes(disk), 1000):
    same("inquiry at " + node, inquiry(node, bsg), 0)
    same("write at " + node, write10(node, number, b"leak", bsg), 0)
    same("what is there", block(disk, number), b"leak")
    print(node)
"#;
        let output = guest::calls(&format!("{COMMANDS}{script}"), &[device])?;
        check::ok(&output)?;
        let nodes = output.text();
        check::equal("nodes", nodes.lines().count(), 3)?;
        for node in nodes.lines() {
            for operation in ["command", "close"] {
                let fields = [
                    ("/operation", json!(operation)),
                    ("/file/path", json!(node)),
                    ("/file/device/serial", json!(LISTED)),
                    ("/bytes", json!(512)),
                    ("/process/comm", json!("python3")),
                    ("/verdict", json!("allowed")),
                ];
                world.records.expect("usb.write", &fields)?;
            }
            // What only asks is no write.
            let commands = [("/operation", json!("command")), ("/file/path", json!(node))];
            let commands = world.records.all("usb.write", &commands)?;
            check::equal("records of commands", commands.len(), 1)?;
        }
        Ok(())
    })
}

fn refused(world: &mut World) -> Result<()> {
    with_stick(UNLISTED, |device| {
        let script = r#"
disk = sys.argv[1]
before = block(disk, 1000)
for node, bsg in nodes(disk):
    same("inquiry at " + node, inquiry(node, bsg), 0)
    same("write at " + node, write10(node, 1000, b"leak", bsg), -errno.EPERM)
    fd = os.open(node, os.O_RDONLY)
    # SCSI_IOCTL_SEND_COMMAND with 512 bytes, CDROM_SEND_PACKET.
    old = struct.pack("II", 512, 0) + struct.pack(">BBIBHB", 0x2a, 0, 1000, 0, 1, 0) + b"leak" * 128
    refused("the old command", lambda: fcntl.ioctl(fd, 1, bytearray(old)))
    refused("the packet", lambda: fcntl.ioctl(fd, 0x5393, bytearray(64)))
    os.close(fd)
    print(node)
same("what is there", block(disk, 1000), before)
"#;
        let output = guest::calls(&format!("{COMMANDS}{script}"), &[device])?;
        check::ok(&output)?;
        let nodes = output.text();
        check::equal("nodes", nodes.lines().count(), 3)?;
        nodes.lines().try_for_each(|node| denied_as(world, "command", UNLISTED, node))
    })
}

/// A memory card takes commands by a call of its own.
fn card_refused(world: &mut World) -> Result<()> {
    let script = r#"
import fcntl
fd = os.open(sys.argv[1], os.O_RDONLY)
data = ctypes.create_string_buffer(b"leak" * 128, 512)
def ask(writes, opcode, argument, flags, blocks):
    asked = struct.pack("=iiII16xIII20xQ", writes, 0, opcode, argument, flags, 512, blocks,
        ctypes.addressof(data))
    fcntl.ioctl(fd, 0xc048b300, bytearray(asked))
refused("a write", lambda: ask(1, 24, 1000, 0xb5, 1))
refused("several", lambda: fcntl.ioctl(fd, 0xc008b301, bytearray(8)))
"#;
    let mut node = String::new();
    with_card(|| {
        node = guest::run("findmnt", &["-no", "SOURCE", CARD_AT])?.text();
        check::ok(&guest::calls(script, &[&node])?)
    })?;
    let fields = [
        ("/operation", json!("command")),
        ("/file/path", json!(node)),
        ("/file/device/class", json!("sd")),
        ("/verdict", json!("denied")),
        ("/rule", json!("usb-only-company")),
    ];
    let record = world.records.expect("usb.write", &fields)?;
    check::equal("bytes", records::number(&record, "/bytes"), 512)
}
