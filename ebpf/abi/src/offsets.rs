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
    field("PATH_DENTRY", "path", "dentry"),
    field("PATH_MNT", "path", "mnt"),
    field("VFSMOUNT_ROOT", "vfsmount", "mnt_root"),
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
    field("INODE_SB", "inode", "i_sb"),
    field("INODE_DENTRIES", "inode", "i_dentry"),
    field("INODE_NUMBER", "inode", "i_ino"),
    field("INODE_MODE", "inode", "i_mode"),
    field("INODE_SIZE", "inode", "i_size"),
    field("INODE_LINKS", "inode", "i_nlink"),
    field("SB_ROOT", "super_block", "s_root"),
    field("SB_MOUNTS", "super_block", "s_mounts"),
    field("SB_USER_NAMESPACE", "super_block", "s_user_ns"),
    field("USER_NAMESPACE_PARENT", "user_namespace", "parent"),
    field("SB_FLAGS", "super_block", "s_flags"),
    field("SB_DEV", "super_block", "s_dev"),
    field("SB_BDEV", "super_block", "s_bdev"),
    field("BDEV_DISK", "block_device", "bd_disk"),
    field("DISK_PART0", "gendisk", "part0"),
    field("BDEV_DEVICE", "block_device", "bd_device"),
    field("DEVICE_PARENT", "device", "parent"),
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
    field("TASK_CRED", "task_struct", "real_cred"),
    field("TASK_COMM", "task_struct", "comm"),
    field("TASK_SIGNAL", "task_struct", "signal"),
    field("TASK_MM", "task_struct", "mm"),
    field("TASK_FS", "task_struct", "fs"),
    field("TASK_EXIT_CODE", "task_struct", "exit_code"),
    optional("TASK_LOGIN_UID", "task_struct", "loginuid"),
    optional("TASK_SESSION_ID", "task_struct", "sessionid"),
    field("FS_PWD", "fs_struct", "pwd"),
    field("CRED_UID", "cred", "uid"),
    field("CRED_GID", "cred", "gid"),
    field("SIGNAL_TTY", "signal_struct", "tty"),
    field("SIGNAL_LIVE", "signal_struct", "live"),
    field("SIGNAL_EXIT_CODE", "signal_struct", "group_exit_code"),
    field("TTY_NAME", "tty_struct", "name"),
    field("MM_EXE_FILE", "mm_struct", "exe_file"),
    field("MM_ARG_START", "mm_struct", "arg_start"),
    field("MM_ARG_END", "mm_struct", "arg_end"),
    field("BPRM_FILE", "linux_binprm", "file"),
    field("BPRM_ARGC", "linux_binprm", "argc"),
    field("BPRM_FILENAME", "linux_binprm", "filename"),
    field("KIOCB_FILE", "kiocb", "ki_filp"),
    field("IATTR_VALID", "iattr", "ia_valid"),
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
    field("COMMON_NUMBER", "ns_common", "inum"),
    field("MAP_ID", "bpf_map", "id"),
];
