//! Every map. Tables of a policy hold two policies at once, told apart by their slot.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type},
    btf_maps::InodeStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use core::ptr::null;
use sekimori_abi::{
    event::{Device, Event, Process, counter, kind},
    limits::*,
    offsets::module_field,
    table::{
        Accounts, Active, Bucket, BucketKey, DeviceKey, Edge, GUARDED_MAX, Guard, Head, NetworkKey,
        PlaceKey, PortKey, Rule, Set, State, UserKey,
    },
};

use sekimori_decide::Facts;

use crate::task::Actor;

/// The cell that says which slot is in force.
#[map]
pub static ACTIVE: Array<Active> = Array::with_max_entries(1, 0);
#[map]
pub static HEADS: Array<Head> = Array::with_max_entries(2, 0);
#[map]
pub static EDGES: HashMap<Edge, u32> = HashMap::with_max_entries(EDGES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static STATES: Array<State> = Array::with_max_entries(2 * STATES_MAX, 0);
#[map]
pub static SETS: Array<Set> = Array::with_max_entries(2 * SETS_MAX, 0);
#[map]
pub static BUCKETS: HashMap<BucketKey, Bucket> =
    HashMap::with_max_entries(BUCKETS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(2 * RULES_MAX, 0);
#[map]
pub static USERS: HashMap<UserKey, u64> = HashMap::with_max_entries(USERS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static DEVICE_GROUPS: HashMap<DeviceKey, u64> =
    HashMap::with_max_entries(DEVICE_PATTERNS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static NETWORKS: LpmTrie<NetworkKey, u64> =
    LpmTrie::with_max_entries(NETWORKS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static PORTS: HashMap<PortKey, u64> = HashMap::with_max_entries(PORTS_MAX, BPF_F_NO_PREALLOC);

/// Literal beginnings of labelled paths.
#[map]
pub static PLACES: LpmTrie<PlaceKey, u32> =
    LpmTrie::with_max_entries(PLACES_MAX, BPF_F_NO_PREALLOC);

/// What is known of an inode: a stamp and a set, written and read in one go (`path::remember`).
#[btf_map]
pub static LABELS: InodeStorage<u64> = InodeStorage::new();

/// What an inode is to the agent (`table::own`), which writes it.
#[btf_map]
pub static OWN: InodeStorage<u64> = InodeStorage::new();

/// Counts moves of directories that labels depend on.
#[map]
pub static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// The mount through which a file system belongs to the host's tree.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostMount {
    /// Its address.
    pub mount: u64,
    /// Address of its namespace, by which another mount at the same address is told apart.
    pub namespace: u64,
    /// What it is, as far as that never changes: [`PLAIN`] and [`HOST_ROOT`].
    pub traits: u64,
}
/// In [`HostMount::traits`]: it stands in the namespace of process 1, and nobody mounted the file
/// system in a user namespace.
pub const PLAIN: u64 = 1;
/// In [`HostMount::traits`]: the file system is the host's root.
pub const HOST_ROOT: u64 = 2;
/// Key: address of the superblock.
#[map]
pub static HOST_MOUNTS: LruHashMap<u64, HostMount> =
    LruHashMap::with_max_entries(SUPERBLOCKS_MAX, 0);

/// A mount whose paths the kernel tells as the host has them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PlainMount {
    /// Address of its namespace, and of the last change there that it was true after.
    pub namespace: u64,
    pub event: u64,
    /// Addresses of the mount and the dentry of the host's root.
    pub root_mount: u64,
    pub root: u64,
}
/// Key: address of the mount.
#[map]
pub static PLAIN_MOUNTS: LruHashMap<u64, PlainMount> =
    LruHashMap::with_max_entries(SUPERBLOCKS_MAX, 0);

/// What is known of what a file system stands on, by `s_dev`: its block device, or that it is a
/// share. Also what a node is that is opened for write, by its number and `NODE_IS_CHARACTER`. What
/// is forgotten is found again, so nobody gains by filling the table.
#[map]
pub static DEVICES: LruHashMap<u64, Device> = LruHashMap::with_max_entries(SUPERBLOCKS_MAX, 0);

/// Name of a block device, zero-padded.
pub type DiskName = [u64; DISK_NAME_BYTES_MAX / 8];
/// The block device that was opened last by this name. Nothing is forgotten to make room: whose
/// device is not found after its mount counts as having none.
#[map]
pub static DISKS: HashMap<DiskName, u64> = HashMap::with_max_entries(DISKS_MAX, BPF_F_NO_PREALLOC);

/// The block device that was opened last under this kernel device number.
#[map]
pub static NUMBERS: HashMap<u32, u64> = HashMap::with_max_entries(DISKS_MAX, BPF_F_NO_PREALLOC);

/// Where fields stand that modules have, by `offsets::module_field`: the offset plus one, 0 while it
/// is not known. Filled by user space when a module is there.
#[map]
pub static MODULE_OFFSETS: Array<u32> = Array::with_max_entries(module_field::COUNT, 0);

/// Device nodes of removable media, by kernel device number and `NODE_IS_CHARACTER`. Filled by user
/// space, which hears of devices when the kernel announces them.
#[map]
pub static NODES: HashMap<u64, Device> =
    HashMap::with_max_entries(DEVICE_NODES_MAX, BPF_F_NO_PREALLOC);

/// Shares that can be written to: the superblock's address and its `s_dev`. Filled at the mount or
/// at the first open for write; the agent asks whether there are any.
#[map]
pub static SHARES: HashMap<u64, u32> =
    HashMap::with_max_entries(SUPERBLOCKS_MAX, BPF_F_NO_PREALLOC);

/// 1 while the programs that see writes to shares stand on their hooks. Written by user space.
#[map]
pub static SHARES_WATCHED: Array<u32> = Array::with_max_entries(1, 0);

/// The sum over one open file on a removable device or a share.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileSum {
    pub bytes: u64,
    pub calls: u64,
    pub flags: u64,
    /// Kind of the records, of `event::kind`.
    pub kind: u64,
    /// The key: address of the file.
    pub file: u64,
    /// Address of the inode: an entry left by an open that failed later does not fit another file.
    pub inode: u64,
    pub process: Process,
}
/// Key: address of the `struct file`; it is removed before the file is freed.
#[map]
pub static FILES: HashMap<u64, FileSum> =
    HashMap::with_max_entries(OPEN_FILES_MAX, BPF_F_NO_PREALLOC);

/// A process that has files on removable media open for write.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Writer {
    /// How many. It may be too many, never too few, until the process ends.
    pub files: u64,
    /// Number of the pipe that is its standard input; 0 for none.
    pub pipe: u64,
}
/// By process id. Who is forgotten has receipts that name too little.
#[map]
pub static WRITERS: LruHashMap<u32, Writer> = LruHashMap::with_max_entries(WRITERS_MAX, 0);
/// Writers by the number of the pipe that is their standard input.
#[map]
pub static PIPES: LruHashMap<u64, u32> = LruHashMap::with_max_entries(WRITERS_MAX, 0);
/// How many writers have one; too many when some were forgotten. As long as there is none, nobody's
/// descriptors are looked at.
#[map]
pub static FED: Array<u64> = Array::with_max_entries(1, 0);

/// Where bytes go.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: [u64; 2],
    pub port: u16,
    pub family: u16,
    pub protocol: u16,
    pub reserved: u16,
}
/// The sum over one socket and its present peer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketSum {
    /// The key: address of the socket.
    pub sk: u64,
    /// A number of its own: addresses are used again.
    pub flow: u64,
    pub bytes: u64,
    pub bytes_in: u64,
    pub calls: u64,
    pub flags: u64,
    /// Generation that allowed uploads to `peer`; 0 when it was not judged yet.
    pub allowed_by: u64,
    /// Whom it allowed them: a socket can be handed over.
    pub allowed_to: Actor,
    pub peer: Peer,
    /// How many bytes of the beginning the agent is given; 0 when that was not asked yet, `NAMED`
    /// when it has all.
    pub wanted: u32,
    /// How many more sends are looked at.
    pub pieces: u32,
    pub process: Process,
}
/// Key: address of the `struct sock`; it is removed when the socket is released.
#[map]
pub static SOCKETS: HashMap<u64, SocketSum> =
    HashMap::with_max_entries(SOCKETS_MAX, BPF_F_NO_PREALLOC);

/// What a task has to remember between two hooks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TaskNote {
    /// Address of the `linux_binprm` that `exec_action` and `exec_rule` belong to.
    pub bprm: u64,
    pub exec_action: u32,
    pub exec_rule: u32,
    pub exec_generation: u32,
    /// 1 after `file_open` refused: the failed open that follows is already on record.
    pub open_refused: u32,
}
#[btf_map]
pub static NOTES: TaskStorage<TaskNote> = TaskStorage::new();

/// aya-ebpf 0.2.1 has no task storage; this is the shape of its inode storage.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}
// SAFETY: never read in user space's sense; the kernel synchronises.
unsafe impl<T> Sync for TaskStorage<T> {}
impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }
}

/// Bytes of text, with room for one more piece of any kind behind the last allowed start.
pub const TEXT_ROOM: usize = TEXT_BYTES_MAX + 4096;

/// A buffer in which one record is built. It belongs to whoever set `busy`: hooks can be preempted,
/// so a plain per-CPU buffer could be written by two at once.
#[repr(C)]
pub struct Scratch {
    pub busy: u64,
    /// Where a walk stands. Loop state lives here and not in registers: what the verifier does not
    /// remember cannot multiply its paths.
    pub dentry: u64,
    pub mount: u64,
    /// What the walk is for (`path::HASHES`, `path::TEXT`).
    pub wanted: u64,
    pub state: u64,
    /// Of the file system that the walk is in: where and through which mount it is left (0: not at
    /// all), and how the walk ends there.
    pub superblock: u64,
    pub top: u64,
    pub cross: u64,
    pub end: u64,
    /// 1 when the walk came through the host's root file system.
    pub home: u64,
    /// 1 when it came through a file system that somebody mounted in a user namespace.
    pub stranger: u64,
    /// 1 when it left a file system through the mount that the file was reached by.
    pub own: u64,
    /// What is remembered of the mount in `cross` (`HostMount::traits`), what it hangs below, and
    /// where.
    pub traits: u64,
    pub up: u64,
    pub point: u64,
    /// Of the search for a superblock's mount: its root, what comes next, what was found.
    pub whole: u64,
    pub next_mount: u64,
    pub found: u64,
    /// 1 when what was found stands in the host's own mount namespace.
    pub found_home: u64,
    /// Bytes of `text` in use.
    pub used: u64,
    /// 1 when a walk found no room for a name.
    pub cut: u64,
    /// Of a search through an environment: where it is and where it ends, whether that is within a
    /// variable, bytes of what was kept, and 1 when not all of it was.
    pub variable: u64,
    pub variables_end: u64,
    pub within: u64,
    pub variables_kept: u64,
    pub variables_cut: u64,
    /// What is being judged, and the best score so far.
    pub facts: Facts,
    pub best: u64,
    /// A key too large for a program's stack.
    pub device_key: DeviceKey,
    /// Steps of the walk: so many of the hashes are its own.
    pub steps: u64,
    pub hashes: [u64; 64],
    /// The device that is being looked at, and what it stands on that has not been looked at yet.
    pub device: Device,
    pub lower: [u64; LOWER_DEVICES_MAX],
    pub lower_count: u64,
    pub name: [u64; NAME_BYTES_MAX / 8],
    pub disk_name: DiskName,
    /// Sums under construction: too large for a program's stack.
    pub file_sum: FileSum,
    pub socket_sum: SocketSum,
    /// The record: `event`, directly followed by `text`.
    pub event: Event,
    pub text: [u8; TEXT_ROOM],
}
/// `SCRATCH_PER_CPU` buffers for each CPU; the loader sets the number of entries.
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(SCRATCH_PER_CPU, 0);

#[map]
pub static TELEMETRY: RingBuf = RingBuf::with_byte_size(TELEMETRY_RING_BYTES, 0);
#[map]
pub static DENIALS: RingBuf = RingBuf::with_byte_size(DENIAL_RING_BYTES, 0);
/// Last sequence number given out, by ring.
#[map]
pub static SEQUENCES: Array<u64> = Array::with_max_entries(2, 0);
/// Index: `kind * counter::COUNT + counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(kind::COUNT as u32 * counter::COUNT, 0);
/// How the monitor itself is guarded.
#[map]
pub static GUARD: Array<Guard> = Array::with_max_entries(1, 0);
/// Ids of our maps; the value is 1.
#[map]
pub static GUARDED_MAPS: HashMap<u32, u32> =
    HashMap::with_max_entries(GUARDED_MAX, BPF_F_NO_PREALLOC);
/// Ids of the pins' mount (the value is 1) and of those it hangs below (2).
#[map]
pub static GUARDED_MOUNTS: HashMap<u32, u32> =
    HashMap::with_max_entries(GUARDED_MAX, BPF_F_NO_PREALLOC);

/// Kept by user space alone.
#[map]
pub static ACCOUNTS: Array<Accounts> = Array::with_max_entries(1, 0);
