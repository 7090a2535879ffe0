//! Which kernel fields the programs read. The agent looks every one up in the running kernel's BTF
//! and gives its offset to the programs as a constant before they are loaded.

/// Value of an offset whose field this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// One field: the constant in the programs, and where to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the constant in the programs.
    pub constant: &'static str,
    /// Kernel struct.
    pub structure: &'static str,
    /// Member; members of anonymous unions and structs are found by their own name.
    pub member: &'static str,
    /// Without it the programs cannot work at all.
    pub required: bool,
}

const fn field(constant: &'static str, structure: &'static str, member: &'static str) -> Field {
    Field { constant, structure, member, required: true }
}

const fn optional(constant: &'static str, structure: &'static str, member: &'static str) -> Field {
    Field { constant, structure, member, required: false }
}

/// Every field that some program reads.
pub const FIELDS: &[Field] = &[
    field("FILE_INODE", "file", "f_inode"),
    field("FILE_PATH", "file", "f_path"),
    field("FILE_MODE", "file", "f_mode"),
    field("FILE_FLAGS", "file", "f_flags"),
    field("FILE_MAPPING", "file", "f_mapping"),
    field("MAPPING_HOST", "address_space", "host"),
    field("PATH_DENTRY", "path", "dentry"),
    field("PATH_MNT", "path", "mnt"),
    field("VFSMOUNT_ROOT", "vfsmount", "mnt_root"),
    field("VFSMOUNT_SB", "vfsmount", "mnt_sb"),
    field("MOUNT_MNT", "mount", "mnt"),
    field("MOUNT_PARENT", "mount", "mnt_parent"),
    field("MOUNT_POINT", "mount", "mnt_mountpoint"),
    field("MOUNT_NAMESPACE", "mount", "mnt_ns"),
    optional("MOUNT_INSTANCE", "mount", "mnt_instance"),
    optional("MOUNT_NEXT", "mount", "mnt_next_for_sb"),
    field("DENTRY_SB", "dentry", "d_sb"),
    optional("DENTRY_ALIAS", "dentry", "d_u"),
    field("DENTRY_PARENT", "dentry", "d_parent"),
    field("DENTRY_NAME", "dentry", "d_name"),
    field("DENTRY_INODE", "dentry", "d_inode"),
    field("DENTRY_HASH", "dentry", "d_hash"),
    field("HASH_NODE_BEFORE", "hlist_bl_node", "pprev"),
    field("INODE_SB", "inode", "i_sb"),
    field("INODE_DENTRIES", "inode", "i_dentry"),
    field("INODE_NUMBER", "inode", "i_ino"),
    field("INODE_MODE", "inode", "i_mode"),
    field("INODE_RDEV", "inode", "i_rdev"),
    field("INODE_SIZE", "inode", "i_size"),
    field("INODE_LINKS", "inode", "i_nlink"),
    field("SB_ROOT", "super_block", "s_root"),
    field("SB_MOUNTS", "super_block", "s_mounts"),
    field("SB_USER_NAMESPACE", "super_block", "s_user_ns"),
    field("USER_NAMESPACE_PARENT", "user_namespace", "parent"),
    field("SB_FLAGS", "super_block", "s_flags"),
    field("SB_DEV", "super_block", "s_dev"),
    field("SB_BDEV", "super_block", "s_bdev"),
    field("SB_ID", "super_block", "s_id"),
    field("BDEV_NUMBER", "block_device", "bd_dev"),
    field("BDEV_DISK", "block_device", "bd_disk"),
    field("DISK_PART0", "gendisk", "part0"),
    field("BDEV_DEVICE", "block_device", "bd_device"),
    field("BDEV_INODE", "bdev_inode", "vfs_inode"),
    field("DISK_MAJOR", "gendisk", "major"),
    field("DISK_PRIVATE", "gendisk", "private_data"),
    optional("DISK_SLAVES", "gendisk", "slave_dir"),
    field("KOBJECT_NODE", "kobject", "sd"),
    field("KOBJECT_NAME", "kobject", "name"),
    field("NODE_RB", "kernfs_node", "rb"),
    field("NODE_DIR", "kernfs_node", "dir"),
    field("NODE_LINK", "kernfs_node", "symlink"),
    field("NODE_OBJECT", "kernfs_node", "priv"),
    field("DIR_CHILDREN", "kernfs_elem_dir", "children"),
    field("LINK_TARGET", "kernfs_elem_symlink", "target_kn"),
    field("RB_LEFT", "rb_node", "rb_left"),
    field("RB_RIGHT", "rb_node", "rb_right"),
    field("DEVICE_KOBJECT", "device", "kobj"),
    field("DEVICE_PARENT", "device", "parent"),
    field("DEVICE_BUS", "device", "bus"),
    optional("DEVICE_REMOVABLE", "device", "removable"),
    field("BUS_NAME", "bus_type", "name"),
    field("DEVICE_TYPE", "device", "type"),
    field("DEVICE_TYPE_NAME", "device_type", "name"),
    field("USB_DEVICE", "usb_device", "dev"),
    field("USB_DESCRIPTOR", "usb_device", "descriptor"),
    field("USB_SERIAL", "usb_device", "serial"),
    field("TASK_TGID", "task_struct", "tgid"),
    field("TASK_PID", "task_struct", "pid"),
    field("TASK_LEADER", "task_struct", "group_leader"),
    field("TASK_START", "task_struct", "start_boottime"),
    field("TASK_PARENT", "task_struct", "real_parent"),
    field("TASK_CHILDREN", "task_struct", "children"),
    field("TASK_SIBLING", "task_struct", "sibling"),
    field("LIST_PREVIOUS", "list_head", "prev"),
    field("TASK_CRED", "task_struct", "real_cred"),
    field("TASK_EXEC_ID", "task_struct", "self_exec_id"),
    field("TASK_COMM", "task_struct", "comm"),
    field("TASK_SIGNAL", "task_struct", "signal"),
    field("TASK_MM", "task_struct", "mm"),
    field("TASK_FS", "task_struct", "fs"),
    field("TASK_EXIT_CODE", "task_struct", "exit_code"),
    optional("TASK_LOGIN_UID", "task_struct", "loginuid"),
    optional("TASK_SESSION_ID", "task_struct", "sessionid"),
    field("FS_PWD", "fs_struct", "pwd"),
    field("FS_ROOT", "fs_struct", "root"),
    field("CRED_UID", "cred", "uid"),
    field("CRED_GID", "cred", "gid"),
    field("SIGNAL_TTY", "signal_struct", "tty"),
    field("SIGNAL_LIVE", "signal_struct", "live"),
    field("SIGNAL_EXIT_CODE", "signal_struct", "group_exit_code"),
    field("TTY_NAME", "tty_struct", "name"),
    field("MM_EXE_FILE", "mm_struct", "exe_file"),
    field("MM_ARG_START", "mm_struct", "arg_start"),
    field("MM_ARG_END", "mm_struct", "arg_end"),
    field("MM_ENV_START", "mm_struct", "env_start"),
    field("MM_ENV_END", "mm_struct", "env_end"),
    field("MM_START_CODE", "mm_struct", "start_code"),
    field("VMA_FILE", "vm_area_struct", "vm_file"),
    optional("BACKING_USER_PATH", "backing_file", "user_path"),
    field("BPRM_FILE", "linux_binprm", "file"),
    field("BPRM_ARGC", "linux_binprm", "argc"),
    field("BPRM_FILENAME", "linux_binprm", "filename"),
    field("KIOCB_FILE", "kiocb", "ki_filp"),
    field("IATTR_VALID", "iattr", "ia_valid"),
    field("KIOCB_FLAGS", "kiocb", "ki_flags"),
    optional("REQUEST_FILE", "io_kiocb", "file"),
    optional("REQUEST_RESULT", "io_kiocb", "cqe"),
    optional("RESULT_VALUE", "io_cqe", "res"),
    optional("ACL_COUNT", "posix_acl", "a_count"),
    optional("DIO_KIOCB", "iomap_dio", "iocb"),
    optional("DIO_SIZE", "iomap_dio", "size"),
    optional("DIO_FLAGS", "iomap_dio", "flags"),
    optional("DIO_ERROR", "iomap_dio", "error"),
    field("SOCKET_SK", "socket", "sk"),
    field("SOCK_FAMILY", "sock_common", "skc_family"),
    field("SOCK_STATE", "sock_common", "skc_state"),
    field("SOCK_DADDR", "sock_common", "skc_daddr"),
    field("SOCK_DPORT", "sock_common", "skc_dport"),
    optional("SOCK_V6_DADDR", "sock_common", "skc_v6_daddr"),
    field("SOCK_TYPE", "sock", "sk_type"),
    field("SOCK_PROTOCOL", "sock", "sk_protocol"),
    field("MSG_NAME", "msghdr", "msg_name"),
    field("MSG_FLAGS", "msghdr", "msg_flags"),
    field("MSG_NAME_LENGTH", "msghdr", "msg_namelen"),
    field("MSG_ITER", "msghdr", "msg_iter"),
    field("ITER_TYPE", "iov_iter", "iter_type"),
    field("ITER_OFFSET", "iov_iter", "iov_offset"),
    field("ITER_COUNT", "iov_iter", "count"),
    optional("ITER_ADDRESS", "iov_iter", "ubuf"),
    optional("ITER_VECTOR", "iov_iter", "__iov"),
    optional("ITER_VECTOR_BEFORE", "iov_iter", "iov"),
    field("SKB_DATA", "sk_buff", "data"),
    field("SKB_LENGTH", "sk_buff", "len"),
    field("SKB_FRAGMENTS_LENGTH", "sk_buff", "data_len"),
    field("TCP_BYTES_RECEIVED", "tcp_sock", "bytes_received"),
    optional("NAMEIDATA_NAME", "nameidata", "name"),
    optional("NAMEIDATA_DFD", "nameidata", "dfd"),
    field("FILENAME_NAME", "filename", "name"),
    field("TASK_FILES", "task_struct", "files"),
    field("FILES_TABLE", "files_struct", "fdt"),
    field("TABLE_FILES", "fdtable", "fd"),
    field("TABLE_SIZE", "fdtable", "max_fds"),
    field("SB_MAGIC", "super_block", "s_magic"),
    field("MOUNT_ID", "mount", "mnt_id"),
    field("NAMESPACE_COMMON", "mnt_namespace", "ns"),
    optional("NAMESPACE_EVENT", "mnt_namespace", "event"),
    field("COMMON_NUMBER", "ns_common", "inum"),
    field("MAP_ID", "bpf_map", "id"),
    field("TASK_CONTROL_GROUPS", "task_struct", "cgroups"),
    field("GROUPS_DEFAULT", "css_set", "dfl_cgrp"),
    field("GROUP_SELF", "cgroup", "self"),
    field("GROUP_NODE", "cgroup", "kn"),
    field("GROUP_STATE_PARENT", "cgroup_subsys_state", "parent"),
    field("NODE_ID", "kernfs_node", "id"),
];

/// Places in the table of offsets that belong to modules.
pub mod module_field {
    /// The file that a loop device shows.
    pub const LOOP_FILE: u32 = 0;
    /// The device of a memory card.
    pub const CARD_DEVICE: u32 = 1;
    /// What sort of card it is.
    pub const CARD_TYPE: u32 = 2;
    /// What it says of itself.
    pub const CARD_IDENTITY: u32 = 3;
    /// The serial number among that.
    pub const IDENTITY_SERIAL: u32 = 4;
    /// Number of places.
    pub const COUNT: u32 = 5;
}

/// One field of a structure that a module has types for, and its place in the table. The table holds
/// its offset plus one, and 0 as long as the module is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleField {
    /// One of [`module_field`].
    pub place: u32,
    /// The module.
    pub module: &'static str,
    /// Its struct.
    pub structure: &'static str,
    /// Member of that.
    pub member: &'static str,
}

const fn of_module(
    place: u32,
    module: &'static str,
    structure: &'static str,
    member: &'static str,
) -> ModuleField {
    ModuleField { place, module, structure, member }
}

/// Every field of a module that some program reads.
pub const MODULE_FIELDS: &[ModuleField] = &[
    of_module(module_field::LOOP_FILE, "loop", "loop_device", "lo_backing_file"),
    of_module(module_field::CARD_DEVICE, "mmc_core", "mmc_card", "dev"),
    of_module(module_field::CARD_TYPE, "mmc_core", "mmc_card", "type"),
    of_module(module_field::CARD_IDENTITY, "mmc_core", "mmc_card", "cid"),
    of_module(module_field::IDENTITY_SERIAL, "mmc_core", "mmc_cid", "serial"),
];

/// One enumerator of a kernel enum: the constant in the programs, and where to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator {
    /// Name of the constant in the programs, and of the enumerator in the kernel.
    pub constant: &'static str,
    /// Kernel enum.
    pub enumeration: &'static str,
}

/// Every enumerator that some program compares with: their values differ from kernel to kernel.
pub const ENUMERATORS: &[Enumerator] = &[
    Enumerator { constant: "ITER_UBUF", enumeration: "iter_type" },
    Enumerator { constant: "ITER_IOVEC", enumeration: "iter_type" },
];
