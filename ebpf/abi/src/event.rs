//! One record of a ring: a fixed [`Event`] followed by up to four texts.

use crate::limits::{COMM_BYTES_MAX, SERIAL_BYTES_MAX, TTY_BYTES_MAX};

/// Version of this layout; the agent refuses a record with another one.
pub const ABI_VERSION: u16 = 4;

/// What a record is about. The numbers are also the classes of rules and counters.
pub mod kind {
    /// A file was opened, or an open was refused.
    pub const FILE_OPEN: u8 = 1;
    /// Something on a mounted USB file system was opened for write, written, created, renamed, …
    pub const USB_WRITE: u8 = 2;
    /// A file system on a USB device was mounted.
    pub const USB_MOUNT: u8 = 3;
    /// A socket was connected.
    pub const NET_CONNECT: u8 = 4;
    /// Bytes left through a socket.
    pub const NET_UPLOAD: u8 = 5;
    /// A program was launched.
    pub const EXEC: u8 = 6;
    /// A process ended. No rule can name it.
    pub const EXIT: u8 = 7;
    /// A process was forked. Feeds the agent's process table and is not stored.
    pub const FORK: u8 = 8;
    /// Somebody laid hands on the monitor itself. No rule can name it.
    pub const TAMPER: u8 = 9;
    /// What receipts and the names of flows are made from. Feeds the agent and is not stored.
    pub const NOTE: u8 = 10;
    /// A socket was asked for that is neither of the Internet nor local: packet, vsock, Bluetooth, …
    pub const NET_SOCKET: u8 = 11;
    /// Something on a network or FUSE file system was opened for write, written, created, …
    pub const SHARE_WRITE: u8 = 12;
    /// Number of classes, for tables indexed by class.
    pub const COUNT: usize = 13;
}

/// What was done, within a kind.
pub mod operation {
    /// Opened (`file.open`: any open; `usb.write`, `share.write`: an open for write).
    pub const OPEN: u8 = 1;
    /// A regular file was created; `net.socket`: a socket.
    pub const CREATE: u8 = 2;
    /// Renamed; the second text is the new name.
    pub const RENAME: u8 = 3;
    /// A hard link was made; the second text is the new name.
    pub const LINK: u8 = 4;
    /// A file was removed.
    pub const UNLINK: u8 = 5;
    /// A directory was made.
    pub const MKDIR: u8 = 6;
    /// A directory was removed.
    pub const RMDIR: u8 = 7;
    /// A symbolic link was made; the third text is its target.
    pub const SYMLINK: u8 = 8;
    /// A device node, fifo or socket was made.
    pub const MKNOD: u8 = 9;
    /// The size was set.
    pub const TRUNCATE: u8 = 10;
    /// The first bytes were written or sent.
    pub const WRITE: u8 = 11;
    /// The last descriptor was closed; the record carries the totals.
    pub const CLOSE: u8 = 12;
    /// A socket was connected.
    pub const CONNECT: u8 = 13;
    /// A program was launched.
    pub const EXEC: u8 = 14;
    /// A file system was mounted; as a note: a share was seen for the first time.
    pub const MOUNT: u8 = 15;
    /// The process ended.
    pub const EXIT: u8 = 16;
    /// The process was forked.
    pub const FORK: u8 = 17;
    /// A signal to the agent that it cannot answer in order; `size` is its number.
    pub const SIGNAL: u8 = 18;
    /// A debugger's access to the agent (ptrace, /proc/PID/mem, pidfd_getfd).
    pub const TRACE: u8 = 19;
    /// One of the programs' maps was opened; `size` is its id.
    pub const MAP_OPEN: u8 = 20;
    /// A pin that holds the programs on their hooks was removed or renamed.
    pub const UNPIN: u8 = 21;
    /// A file system was to be unmounted: one on removable media, or that of the pins or one above
    /// it.
    pub const UNMOUNT: u8 = 22;
    /// The switch that takes all programs off their hooks was opened for write.
    pub const HOOKS_OFF: u8 = 23;
    /// A file that was open for reading, or was opened, while the process could write to removable
    /// media; without an inode: there are more than were looked at.
    pub const SOURCE: u8 = 24;
    /// The first bytes that are sent over a socket.
    pub const PAYLOAD: u8 = 28;
    /// A datagram that came from the port of DNS.
    pub const ANSWER: u8 = 29;
    /// An extended attribute or an access control list was set; the third text is its name, `bytes`
    /// the size of its value.
    pub const SETXATTR: u8 = 30;
    /// One was removed; the third text is its name.
    pub const REMOVEXATTR: u8 = 31;
    /// A command that carries data was sent to a device past its file system and its block layer,
    /// through a node that was opened for reading.
    pub const COMMAND: u8 = 32;
    /// A file that is no launched program was mapped to be executed, or a mapping of it was made so.
    pub const LOAD: u8 = 33;
    /// One of the agent's own files was opened for write, renamed, replaced or removed.
    pub const REPLACE: u8 = 34;
    /// A switch that freezes or kills the agent's control group, or one above it, was opened for
    /// write.
    pub const FREEZE: u8 = 35;
    /// A limit on the agent's resources was to be set by somebody else.
    pub const LIMIT: u8 = 36;
}

/// What was decided.
pub mod verdict {
    /// Nothing forbade it.
    pub const ALLOWED: u8 = 0;
    /// Allowed, and an alert rule matched.
    pub const ALERTED: u8 = 1;
    /// Refused with `EPERM`.
    pub const DENIED: u8 = 2;
    /// A deny rule matched, but its mode is observe.
    pub const WOULD_DENY: u8 = 3;
}

/// Bits of [`Event::flags`].
pub mod flag {
    /// The first path text stops before the root: too deep or too long.
    pub const PATH_TRUNCATED: u16 = 1;
    /// The first path is relative to its file system's root, not to the host's.
    pub const PATH_IN_FILE_SYSTEM: u16 = 2;
    /// The second path is relative to its file system's root.
    pub const SECOND_PATH_IN_FILE_SYSTEM: u16 = 4;
    /// The argument area was longer than what was copied.
    pub const ARGUMENTS_TRUNCATED: u16 = 8;
    /// The second path text is incomplete.
    pub const SECOND_PATH_TRUNCATED: u16 = 16;
    /// The open failed before the file system opened anything; `errno` says why and the third text
    /// is the name as the caller gave it.
    pub const OPEN_FAILED: u16 = 32;
    /// The file has no name any more (unlinked, or memfd).
    pub const UNLINKED: u16 = 64;
    /// The sum began before the file or socket was known: bytes before the agent are missing.
    pub const LATE: u16 = 128;
    /// The first path is one text from the root on, ended by NUL, as the kernel itself writes it.
    pub const PATH_WHOLE: u16 = 256;
    /// Not all variables of the environment were looked at, or not all of one was copied.
    pub const ENVIRONMENT_TRUNCATED: u16 = 512;
}

/// What a file system or device stands on, found by walking the device tree.
pub mod device_class {
    /// No block device below, and all of it on this machine (tmpfs, proc, overlay).
    pub const VIRTUAL: u8 = 0;
    /// A block device that is not on a removable bus.
    pub const FIXED: u8 = 1;
    /// A block device below a USB device. This class and those up to [`NETWORK`] are removable
    /// media.
    pub const USB: u8 = 2;
    /// A memory card in a slot that is not on the USB bus.
    pub const SD: u8 = 3;
    /// A disk on PCI Express outside of the case: Thunderbolt, USB4, ExpressCard.
    pub const THUNDERBOLT: u8 = 4;
    /// A drive for optical discs that is not on the USB bus.
    pub const OPTICAL: u8 = 5;
    /// A file system of another machine (NFS, SMB, 9p, Ceph, AFS, …). This class and those above
    /// are shares.
    pub const NETWORK: u8 = 16;
    /// A file system in user space without a block device (sshfs, rclone, cloud folders).
    pub const FUSE: u8 = 17;
}

/// Address families and protocols of [`Event::family`] and [`Event::protocol`] are the kernel's:
/// `AF_INET` 2, `AF_INET6` 10, `AF_UNIX` 1; `IPPROTO_TCP` 6, `IPPROTO_UDP` 17.
pub mod family {
    /// None (`AF_UNSPEC`).
    pub const UNSPECIFIED: u16 = 0;
    /// Local sockets; the third text is the path.
    pub const UNIX: u16 = 1;
    /// IPv4, held as an IPv4-mapped IPv6 address.
    pub const INET: u16 = 2;
    /// IPv6.
    pub const INET6: u16 = 10;
    /// Keys of IPsec on this machine.
    pub const KEY: u16 = 15;
    /// Messages to this machine's kernel.
    pub const NETLINK: u16 = 16;
    /// The kernel's ciphers.
    pub const ALG: u16 = 38;
}

/// The identity of a device, as it says of itself on the bus.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Device {
    /// Kernel device number (`major << 20 | minor`), 0 when there is none.
    pub dev: u32,
    /// USB `idVendor`, 0 when not USB.
    pub vendor: u16,
    /// USB `idProduct`.
    pub product: u16,
    /// One of [`device_class`].
    pub class: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// USB serial string, zero-padded; empty when the device has none.
    pub serial: [u8; SERIAL_BYTES_MAX],
}

impl Device {
    /// Whether a person can carry it away.
    #[must_use]
    pub const fn is_removable(&self) -> bool {
        self.class >= device_class::USB && self.class < device_class::NETWORK
    }

    /// Whether what is written there may leave the machine through a network or a program.
    #[must_use]
    pub const fn is_share(&self) -> bool {
        self.class >= device_class::NETWORK
    }

    /// The kind of a write to it; `None` when nobody asks for such writes.
    #[must_use]
    pub const fn kind_of_write(&self) -> Option<u8> {
        if self.is_share() {
            Some(kind::SHARE_WRITE)
        } else if self.is_removable() {
            Some(kind::USB_WRITE)
        } else {
            None
        }
    }
}

/// Who acted. Read from `task_struct` at the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Process {
    /// Process id in the initial pid namespace (`task.tgid`).
    pub tgid: u32,
    /// Thread id (`task.pid`).
    pub tid: u32,
    /// Start of the thread group leader, ns of `CLOCK_BOOTTIME` (`start_boottime`).
    /// (tgid, start) is never reused within one boot.
    pub start_ns: u64,
    /// `real_parent`'s tgid.
    pub parent_tgid: u32,
    /// Real uid.
    pub uid: u32,
    /// Start of the parent, as `start_ns`.
    pub parent_start_ns: u64,
    /// Real gid.
    pub gid: u32,
    /// Login uid (`task.loginuid`), `u32::MAX` when unset.
    pub login_uid: u32,
    /// Audit session id, `u32::MAX` when unset.
    pub session_id: u32,
    /// Device number of the executable's file system.
    pub exe_dev: u32,
    /// Inode of the executable.
    pub exe_inode: u64,
    /// Cgroup v2 id.
    pub cgroup_id: u64,
    /// Name of the controlling terminal (`pts0`, `tty1`), empty when none.
    pub tty: [u8; TTY_BYTES_MAX],
    /// `task.comm`.
    pub comm: [u8; COMM_BYTES_MAX],
}

/// The fixed part of every record. Fields that a kind does not use are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Event {
    /// Bytes of the whole record, texts included.
    pub record_bytes: u32,
    /// [`ABI_VERSION`].
    pub abi: u16,
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`operation`].
    pub operation: u8,
    /// Number of this record on its ring, from 1, taken before the reserve: a gap is a loss.
    pub sequence: u64,
    /// When, ns of `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// One of [`verdict`].
    pub verdict: u8,
    /// Which ring: 0 telemetry, 1 denials.
    pub ring: u8,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Index of the rule that decided, plus one; 0 when none did.
    pub rule: u32,
    /// Generation of the policy that decided; rule numbers belong to it.
    pub generation: u32,
    /// Negative errno of a failed open; else 0.
    pub errno: i32,
    /// Who acted.
    pub process: Process,
    /// The device below the file system of `inode`.
    pub device: Device,
    /// Inode number of the file acted on (exec: of the executable; net.upload and its notes: a number
    /// that tells the flow from all others).
    pub inode: u64,
    /// Open flags (`file.f_flags`), or the mode of a created file.
    pub open_flags: u32,
    /// Inode's mode.
    pub mode: u32,
    /// Bytes written, or sent; of a source, the number of the pipe by which it may reach the writer
    /// (0: the process, or its parent, is the writer).
    pub bytes: u64,
    /// Bytes received (sockets).
    pub bytes_in: u64,
    /// Write or send calls summed.
    pub calls: u64,
    /// File size at the time of the record; exec: number of arguments.
    pub size: u64,
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Destination port, host order.
    pub port: u16,
    /// Address family of [`family`], 0 when no socket is involved.
    pub family: u16,
    /// IP protocol.
    pub protocol: u16,
    /// Exit code of an `exit` record, as `wait` gives it.
    pub exit_code: u16,
    /// Bytes of the four texts, in order, behind this struct.
    ///
    /// 0: path of the file, 1: second path (new name; exec: working directory), both as
    /// NUL-terminated components from the leaf to the root (0: unless [`flag::PATH_WHOLE`]); 2: raw
    /// bytes (exec: the argument area, NUL-separated; unix socket: its path; symlink: its target;
    /// failed open: the name given; extended attribute: its name); 3: exec: the variables of the
    /// environment that tell the loader what else to load, `NAME=value`, each NUL-terminated.
    pub text_bytes: [u16; 4],
}

/// Bytes of [`Event`].
pub const EVENT_BYTES: usize = core::mem::size_of::<Event>();

/// Index of a counter in the per-CPU counter table: `kind * COUNTERS + counter`.
pub mod counter {
    /// Times a hook looked at something of this kind.
    pub const SEEN: u32 = 0;
    /// Records written to a ring.
    pub const EMITTED: u32 = 1;
    /// Operations refused.
    pub const DENIED: u32 = 2;
    /// Records that found no room in the ring.
    pub const LOST_RING: u32 = 3;
    /// Records that found no free buffer to be built in.
    pub const LOST_SCRATCH: u32 = 4;
    /// Sums that found no room in their table.
    pub const LOST_TABLE: u32 = 5;
    /// Counters per kind.
    pub const COUNT: u32 = 8;
}
