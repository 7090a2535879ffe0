//! Entries of the policy tables. A policy compiles to these and nothing else.
//!
//! Two policies fit at once, in slot 0 and slot 1; every key names its slot. A reload fills the idle
//! slot and then writes [`Active`] once, so no event ever sees half a policy.

use crate::{
    event::{counter, kind},
    limits::{CANDIDATES_MAX, SERIAL_BYTES_MAX},
};

/// The only mutable cell of a reload: `generation << 1 | slot`. 0 means no policy yet.
pub type Active = u64;

/// The state of a path that cannot match anything.
pub const STATE_DEAD: u32 = 0;
/// The state of `/` in every policy.
pub const STATE_ROOT: u32 = 1;
/// The set of a file that carries no label and is in no program group.
pub const SET_NONE: u32 = 0;
/// The set of a file whose path could not be walked to the root. Deny rules that name a label apply.
pub const SET_UNKNOWN: u32 = 1;
/// The component that stands for "any other name" in an [`Edge`].
pub const COMPONENT_ANY: u64 = 0;

/// One edge of the path automaton: in `state`, a component with hash `component` leads to the value
/// (`u32` state). `COMPONENT_ANY` is tried when there is no exact edge. No edge: [`STATE_DEAD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Slot.
    pub slot: u32,
    /// From which state.
    pub state: u32,
    /// Hash of the name, see `sekimori_decide::path::component_hash`.
    pub component: u64,
}

/// What a state says of the path that ends in it. Array index: `slot * STATES_MAX + state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Set of labels and programs of exactly this path.
    pub set: u32,
    /// Set of everything that can lie at or below it: what a rename of this directory would move.
    pub below: u32,
}

/// Array index: `slot * SETS_MAX + set`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Program groups that a process running this file belongs to.
    pub programs: u64,
    /// Kinds (bit `1 << kind`) for which this set has a bucket of its own; for the others the
    /// bucket of [`SET_NONE`] applies.
    pub own_buckets: u32,
    /// Zero.
    pub reserved: u32,
}

/// Which rules could apply.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketKey {
    /// Slot.
    pub slot: u32,
    /// One of `event::kind`.
    pub kind: u32,
    /// Set of the file (exec: of the executable; network: [`SET_NONE`]).
    pub set: u32,
}

/// Set in a candidate when its `unless` names a label that the set does not carry: the exception
/// can never apply.
pub const CANDIDATE_UNLESS_VOID: u32 = 1 << 31;

/// The rules that could apply to a (kind, set): conditions on labels are already resolved.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// How many of `candidates` are in use.
    pub count: u32,
    /// Rule indexes, perhaps with [`CANDIDATE_UNLESS_VOID`].
    pub candidates: [u32; CANDIDATES_MAX],
}

/// Conditions of one side (`when` or `unless`): a mask of groups per subject, 0 when not asked.
/// All asked subjects must hit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Program groups.
    pub programs: u64,
    /// User groups.
    pub users: u64,
    /// Device groups.
    pub devices: u64,
    /// Destination groups.
    pub destinations: u64,
}

/// Strength of a rule's action; the strongest matching rule decides.
pub mod action {
    /// Write a record.
    pub const RECORD: u32 = 1;
    /// Write a record marked as an alert.
    pub const ALERT: u32 = 2;
    /// A deny rule in observe mode: allow, and say that it would have been refused.
    pub const WOULD_DENY: u32 = 3;
    /// Refuse.
    pub const DENY: u32 = 4;
}

/// One rule. Array index: `slot * RULES_MAX + rule`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// All of it must hold.
    pub when: Condition,
    /// If it asks anything and all of it holds, the rule does not apply.
    pub unless: Condition,
    /// One of [`action`].
    pub action: u32,
    /// 1 when `unless` asks anything, labels included.
    pub has_unless: u32,
}

/// Facts of one slot. Array index: the slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Generation of the policy in this slot.
    pub generation: u32,
    /// Kinds (bit `1 << kind`) that have a bucket for [`SET_NONE`]: every event of them is judged.
    pub judged_kinds: u32,
    /// Kinds that are recorded even when no rule matches.
    pub recorded_kinds: u32,
    /// 1 when a label is named by any `file.open` rule: failed opens in labelled places are reported.
    pub failed_opens: u32,
    /// Destination groups that do not ask for a port.
    pub any_port: u64,
    /// Program groups that an `exec` rule names in its `when`: a file in one of them is judged
    /// wherever it is loaded.
    pub load_programs: u64,
    /// 1 when any file could be judged when it is loaded.
    pub judges_loads: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of the uid table; the value is a mask of user groups.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey {
    /// Slot.
    pub slot: u32,
    /// The login uid when set, else the real uid.
    pub uid: u32,
}

/// In [`DeviceKey::vendor`] and [`DeviceKey::product`]: any.
pub const DEVICE_ANY: u32 = 1 << 16;

/// Added to a class (`event::device_class`) in [`DeviceKey::vendor`]: every device of that class.
pub const DEVICE_CLASS: u32 = 1 << 17;

/// In the key of a device node: it is a character device. Below it is the kernel's device number.
pub const NODE_IS_CHARACTER: u64 = 1 << 32;

/// Key of the device table; the value is a mask of device groups. The kernel looks up all eight
/// combinations of a device's own values and "any", and [`DEVICE_CLASS`], and joins the masks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// Slot.
    pub slot: u32,
    /// USB vendor id or [`DEVICE_ANY`].
    pub vendor: u32,
    /// USB product id or [`DEVICE_ANY`].
    pub product: u32,
    /// 1 when `serial` is asked for; 0: any serial, `serial` is zero.
    pub has_serial: u32,
    /// Serial, zero-padded.
    pub serial: [u8; SERIAL_BYTES_MAX],
}

/// Key of the longest-prefix table of destinations, behind the prefix length: 32 bits of slot
/// (big endian), 128 bits of address. The value is a mask of destination groups, joined over all
/// shorter prefixes that hold the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkKey {
    /// Slot, big endian.
    pub slot: [u8; 4],
    /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Bits of [`NetworkKey::slot`], to be added to an address's prefix length.
pub const NETWORK_SLOT_BITS: u32 = 32;

/// Key of the port table; the value is a mask of destination groups that name the port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Slot.
    pub slot: u32,
    /// Port, host order.
    pub port: u32,
}

/// Bytes of a path that decide whether a failed open is worth a look.
pub const PLACE_BYTES: usize = 64;

/// Key of the longest-prefix table of labelled places, behind the prefix length: 32 bits of slot
/// (big endian), then the literal beginning of a label's pattern. The value is 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceKey {
    /// Slot, big endian.
    pub slot: [u8; 4],
    /// First bytes of an absolute path.
    pub prefix: [u8; PLACE_BYTES],
}

/// Bits of [`PlaceKey::slot`], to be added to a prefix's length in bits.
pub const PLACE_SLOT_BITS: u32 = 32;

/// What guards the monitor itself. All zero: nothing does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// [`action::DENY`], [`action::ALERT`], or 0 for no guard.
    pub action: u32,
    /// The agent, which may do everything; 0 when it has ended, after which nothing is guarded.
    pub agent_tgid: u32,
    /// Kernel number of the BPF file system that holds the pins.
    pub pins_dev: u32,
    /// Zero.
    pub reserved: u32,
    /// Inode of the directory that all pins lie below.
    pub pins_inode: u64,
    /// Address of the agent's task. The programs put it there, when the agent opens a map.
    pub agent_task: u64,
}

/// What a file is to the agent, in the lower half of a word that is kept with its inode; in the upper
/// half is the process id of the agent that says so.
pub mod own {
    /// It is the agent's.
    pub const FILE: u64 = 1;
    /// It is a directory, and all names in it are the agent's, too.
    pub const DIRECTORY: u64 = 2;
}

/// Maps and mounts that a [`Guard`] speaks of.
pub const GUARDED_MAX: u32 = 128;

/// Which records and losses user space has accounted for. The kernel programs never touch it; it
/// lives beside them, so that the next agent goes on where the last one stopped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Highest number received from each ring.
    pub newest: [u64; 2],
    /// Records received from each ring.
    pub received: [u64; 2],
    /// Missing numbers that were recorded as a loss although no counter explained them.
    pub unexplained: u64,
    /// Calls of programs that the kernel skipped, up to which losses were recorded, by kind.
    pub skipped: [u64; kind::COUNT],
    /// The counters up to which losses were recorded.
    pub reported: [[u64; counter::COUNT as usize]; kind::COUNT],
}
