//! Whether USB memory is plugged in, and when that changes.

use std::io;
use std::path::Path;

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::NETLINK_KOBJECT_UEVENT,
};

/// Every block device but partitions.
const BLOCK_DEVICES: &str = "/sys/block";
/// Multicast group of the kernel's own messages (udev's are group 2).
const KERNEL_GROUP: u32 = 1;

/// Hears of block devices that come and go.
pub struct UsbWatch(TokioSocket);

impl UsbWatch {
    /// Listens to the kernel's device events. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no such socket.
    pub fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.socket_mut().bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits until something happened to a block device, or events were missed.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.0.recv_from_full().await {
                Ok((message, _)) if !is_block(&message) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message is `ACTION@PATH`, then `NAME=VALUE`, each ended by a zero byte.
fn is_block(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).any(|field| field == b"SUBSYSTEM=block")
}

/// Whether a block device stands on the USB bus. What cannot be read counts as yes.
#[must_use]
pub fn is_plugged() -> bool {
    is_plugged_in(Path::new(BLOCK_DEVICES))
}

fn is_plugged_in(devices: &Path) -> bool {
    let Ok(entries) = devices.read_dir() else {
        return true;
    };
    // The links lead to where the device stands: …/pci0000:00/0000:00:04.0/usb1/1-1/…
    entries.flatten().any(|entry| {
        entry.path().read_link().is_ok_and(|target| {
            target.components().any(|part| {
                let name = part.as_os_str().to_string_lossy();
                let digits = name.strip_prefix("usb");
                digits.is_some_and(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()))
            })
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::{is_block, is_plugged_in};

    #[rstest]
    #[case::usb("../devices/pci0000:00/0000:00:04.0/usb1/1-1/1-1:1.0/host2/block/sda", true)]
    #[case::virtual_disk("../devices/pci0000:00/0000:00:05.0/virtio2/block/vda", false)]
    #[case::loop_device("../devices/virtual/block/loop0", false)]
    #[case::name_that_begins_so("../devices/usbless/block/sda", false)]
    fn sticks_are_told_by_their_place(#[case] target: &str, #[case] usb: bool) {
        let directory = tempfile::tempdir().unwrap();
        symlink(target, directory.path().join("sda")).unwrap();
        assert_eq!(is_plugged_in(directory.path()), usb);
    }

    #[test]
    fn what_cannot_be_read_counts_as_plugged() {
        assert!(is_plugged_in(std::path::Path::new("/nonexistent")));
    }

    #[test]
    fn messages_name_their_subsystem() {
        assert!(is_block(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0SEQNUM=7\0"));
        assert!(!is_block(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=usb\0"));
        assert!(!is_block(b""));
    }
}
