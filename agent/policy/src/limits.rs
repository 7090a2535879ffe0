//! Bounds of a policy text and of its compilation. Bounds of the kernel tables are in
//! `sekimori_abi::limits`; tables that hold two policies give each of them one half.

use sekimori_abi::limits;

/// Bytes of a policy text.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// Nesting of mappings and sequences in a policy text.
pub const DEPTH_MAX: usize = 32;
/// Findings kept; later ones are counted and not shown.
pub const FINDINGS_MAX: usize = 1000;
/// Findings for which a similar name is looked for: the search reads every name.
pub const SUGGESTIONS_MAX: usize = 50;
/// Bytes of a name or rule id.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of the text shown to a person.
pub const TELL_BYTES_MAX: usize = 1024;
/// Components of a path that the kernel can walk: its last step finds the root. Each mount that is
/// crossed takes a step too, so on a mounted file system it is fewer.
pub const PATH_COMPONENTS_MAX: usize = limits::PATH_DEPTH_MAX - 1;
/// Entries of one list in a policy text.
pub const LIST_MAX: usize = 1 << 14;

/// Rules of one policy text; the rest of the rule table is for synthetic rules.
pub const RULES_MAX: usize = limits::RULES_MAX as usize - 256;
/// Edges of one policy's automaton.
pub const EDGES_MAX: usize = limits::EDGES_MAX as usize / 2;
/// Buckets of one policy.
pub const BUCKETS_MAX: usize = limits::BUCKETS_MAX as usize / 2;
/// Uids of one policy.
pub const USERS_MAX: usize = limits::USERS_MAX as usize / 2;
/// Device patterns of one policy.
pub const DEVICE_PATTERNS_MAX: usize = limits::DEVICE_PATTERNS_MAX as usize / 2;
/// CIDR blocks of one policy.
pub const NETWORKS_MAX: usize = limits::NETWORKS_MAX as usize / 2;
/// Ports of one policy, ranges expanded.
pub const PORTS_MAX: usize = limits::PORTS_MAX as usize / 2;
/// Literal beginnings of labelled paths of one policy.
pub const PLACES_MAX: usize = limits::PLACES_MAX as usize / 2;
/// Bytes of a device serial: the kernel's buffer ends with a zero byte.
pub const SERIAL_BYTES_MAX: usize = limits::SERIAL_BYTES_MAX - 1;

/// Members of all subsets while the automaton is built (4 bytes each).
pub const SUBSET_MEMBERS_MAX: usize = 8 << 20;
/// Labels in all sets of one policy together (4 bytes each).
pub const SET_MEMBERS_MAX: usize = 4 << 20;
/// Candidates up to which the search for rules that cannot matter compares each with each.
pub const DOMINANCE_MAX: usize = 512;
/// Overfull buckets that are reported per kind; more would say the same again.
pub const OVERFLOWS_REPORTED_MAX: usize = 3;

/// Bytes of a policy as a collector gives it to hosts, with all that belongs to it.
pub const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// Patterns of host names that it may have.
pub const BUNDLE_HOSTS_MAX: usize = 200;
/// Bytes of the reason for it, and of who gave it.
pub const BUNDLE_REASON_BYTES_MAX: usize = 4 << 10;
