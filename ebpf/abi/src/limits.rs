//! Every bound that both sides of the ring rely on.

/// Path components the kernel walks before it gives up; the path then counts as unknown.
pub const PATH_DEPTH_MAX: usize = 48;
/// Mounts of one file system that are looked through in one step.
pub const MOUNTS_PER_STEP: usize = 512;
/// Such steps: more mounts than every namespace may hold (`fs.mount-max` is 100,000).
pub const MOUNT_STEPS_MAX: usize = 512;
/// Bytes of one path's text in a record behind which no further name is appended.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of one path component, terminator included (`NAME_MAX` is 255).
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a process's argument area copied at exec; longer ones are flagged.
pub const ARGUMENT_BYTES_MAX: usize = 4096;
/// Pieces of a new program's environment that are looked at: a variable, or so much of a long one as
/// fits [`NAME_BYTES_MAX`].
pub const ENVIRONMENT_PIECES_MAX: usize = 256;
/// Bytes of one variable copied, terminator included; longer ones are cut and flagged.
pub const VARIABLE_BYTES_MAX: usize = 1024;
/// Bytes of all variables copied, behind which no further one is appended.
pub const ENVIRONMENT_BYTES_MAX: usize = 2048;
/// Bytes of text behind the fixed part of a record.
pub const TEXT_BYTES_MAX: usize = 4 * 4096;
/// Bytes of a USB serial number (a USB string descriptor holds at most 126 characters).
pub const SERIAL_BYTES_MAX: usize = 64;
/// Bytes of a terminal's name (`pts0`, `ttyS0`).
pub const TTY_BYTES_MAX: usize = 16;
/// Bytes of a task's `comm`, terminator included (`TASK_COMM_LEN`).
pub const COMM_BYTES_MAX: usize = 16;

/// States of the path automaton in one policy.
pub const STATES_MAX: u32 = 1 << 16;
/// Distinct sets of labels and programs that one file can carry.
pub const SETS_MAX: u32 = 1 << 15;
/// Rules of one compiled policy, synthetic ones included.
pub const RULES_MAX: u32 = 1 << 14;
/// Rules that can apply to one (kind, label set) pair.
pub const CANDIDATES_MAX: usize = 32;
/// Named groups of programs, of users, of devices, of destinations: each kind is one 64-bit mask.
pub const GROUPS_MAX: usize = 64;
/// Edges of the path automaton, both slots together.
pub const EDGES_MAX: u32 = 1 << 18;
/// Rule buckets, both slots together.
pub const BUCKETS_MAX: u32 = 1 << 16;
/// Users named in a policy, both slots together.
pub const USERS_MAX: u32 = 1 << 14;
/// Device patterns, both slots together.
pub const DEVICE_PATTERNS_MAX: u32 = 1 << 14;
/// CIDR blocks, both slots together.
pub const NETWORKS_MAX: u32 = 1 << 15;
/// Ports named in a policy, both slots together.
pub const PORTS_MAX: u32 = 1 << 14;

/// Open files being written on removable media and shares that are accounted at one time.
pub const OPEN_FILES_MAX: u32 = 1 << 14;
/// Sockets that are accounted at one time.
pub const SOCKETS_MAX: u32 = 1 << 15;
/// Bytes of a flow's beginning that are looked at for the name of its destination.
pub const FLOW_BYTES_MAX: u32 = 4096;
/// Bytes of an HTTP request: what follows its first lines is nobody's business.
pub const HTTP_BYTES_MAX: u32 = 1024;
/// Bytes of each datagram that are looked at for it.
pub const DATAGRAM_BYTES_MAX: u32 = 2048;
/// Superblocks whose device is known at one time.
pub const SUPERBLOCKS_MAX: u32 = 1 << 10;
/// Processes that have files on removable media open for write, at one time.
pub const WRITERS_MAX: u32 = 1 << 13;
/// Descriptors of a process that are looked at when it opens a file on removable media for write.
pub const SOURCE_DESCRIPTORS_MAX: u32 = 64;
/// Sources that are reported when a process opens one file.
pub const SOURCES_PER_OPEN_MAX: u32 = 16;
/// Descriptors of a process that are looked at for the pipe by which it feeds a writer.
pub const FEED_DESCRIPTORS_MAX: u32 = 16;
/// Children of a writer's parent, the youngest first, that are looked at for that pipe.
pub const SIBLINGS_MAX: usize = 16;
/// Processes that hold a pipe whose open files are looked at.
pub const FEEDERS_MAX: usize = 4;
/// Block devices whose names are known at one time.
pub const DISKS_MAX: u32 = 1 << 13;
/// Bytes of a block device's name, terminator included (`BDEVNAME_SIZE`).
pub const DISK_NAME_BYTES_MAX: usize = 32;
/// Block devices that one file system's device may stand on, all layers together.
pub const LOWER_DEVICES_MAX: usize = 32;
/// Device nodes of removable media that are known at one time.
pub const DEVICE_NODES_MAX: u32 = 1 << 12;
/// Bytes of the telemetry ring.
pub const TELEMETRY_RING_BYTES: u32 = 8 << 20;
/// Bytes of the ring for denials and alerts.
pub const DENIAL_RING_BYTES: u32 = 1 << 20;
/// Buffers per CPU in which records are built: a program that is preempted keeps its own.
pub const SCRATCH_PER_CPU: u32 = 4;
/// Literal beginnings of labelled patterns, both slots together.
pub const PLACES_MAX: u32 = 1 << 15;
