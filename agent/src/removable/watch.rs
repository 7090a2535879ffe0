//! Hearing of devices that come and go.

use std::io;

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::NETLINK_KOBJECT_UEVENT,
};

/// Multicast group of the kernel's own messages (udev's are group 2).
const KERNEL_GROUP: u32 = 1;
/// Subsystems with nodes that [`super::survey`] looks at, and modules, whose types the kernel
/// programs are told of.
const SUBSYSTEMS: [&[u8]; 5] = [
    b"SUBSYSTEM=block",
    b"SUBSYSTEM=scsi_generic",
    b"SUBSYSTEM=bsg",
    b"SUBSYSTEM=usb",
    b"SUBSYSTEM=module",
];

/// Hears of devices that come and go.
pub struct Watch(TokioSocket);

impl Watch {
    /// Listens to the kernel's device events. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no such socket.
    pub fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.socket_mut().bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits until something happened to a device that matters, or events were missed.
    ///
    /// # Errors
    /// When the socket cannot be waited for.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.0.recv_from_full().await {
                Ok((message, _)) if !matters(&message) => {}
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
fn matters(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).any(|field| SUBSYSTEMS.contains(&field))
}

#[cfg(test)]
mod tests {
    use super::matters;

    #[test]
    fn messages_name_their_subsystem() {
        assert!(matters(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0SEQNUM=7\0"));
        assert!(matters(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=usb\0"));
        assert!(matters(b"add@/module/loop\0ACTION=add\0SUBSYSTEM=module\0"));
        assert!(!matters(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=input\0"));
        assert!(!matters(b""));
    }
}
