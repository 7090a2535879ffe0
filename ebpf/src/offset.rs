//! Constants that the loader sets before the programs are loaded.
//!
//! Each is frozen read-only data: `read_volatile` keeps rustc from folding the zero that stands
//! here, and the verifier folds the value that the loader put in its place, so a load through a
//! typed pointer stays a checked BTF load and a branch on a missing field costs nothing.

use core::ptr::read_volatile;

/// A constant set by the loader.
#[repr(transparent)]
pub struct Constant(u32);

impl Constant {
    /// Its value.
    #[inline(always)]
    pub fn get(&'static self) -> usize {
        // SAFETY: a plain, initialised static.
        unsafe { read_volatile(&self.0) as usize }
    }

    /// Whether this kernel has the field.
    #[inline(always)]
    pub fn exists(&'static self) -> bool {
        self.get() != sekimori_abi::offsets::MISSING as usize
    }
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => { $(
        #[allow(missing_docs, reason = "named after the kernel field, see sekimori_abi::offsets")]
        #[unsafe(no_mangle)]
        pub static $name: Constant = Constant(0);
    )* }
}

constants!(
    FILE_INODE,
    FILE_PATH,
    FILE_MODE,
    FILE_FLAGS,
    PATH_DENTRY,
    PATH_MNT,
    VFSMOUNT_ROOT,
    VFSMOUNT_SB,
    MOUNT_MNT,
    MOUNT_PARENT,
    MOUNT_POINT,
    MOUNT_NAMESPACE,
    MOUNT_INSTANCE,
    MOUNT_NEXT,
    DENTRY_SB,
    DENTRY_ALIAS,
    DENTRY_PARENT,
    DENTRY_NAME,
    DENTRY_INODE,
    DENTRY_HASH,
    HASH_NODE_BEFORE,
    INODE_SB,
    INODE_DENTRIES,
    INODE_NUMBER,
    INODE_MODE,
    INODE_RDEV,
    INODE_SIZE,
    INODE_LINKS,
    SB_ROOT,
    SB_MOUNTS,
    SB_USER_NAMESPACE,
    USER_NAMESPACE_PARENT,
    SB_FLAGS,
    SB_DEV,
    SB_BDEV,
    SB_ID,
    BDEV_NUMBER,
    BDEV_DISK,
    DISK_PART0,
    BDEV_DEVICE,
    DISK_SLAVES,
    KOBJECT_NODE,
    KOBJECT_NAME,
    NODE_RB,
    NODE_DIR,
    NODE_LINK,
    NODE_OBJECT,
    DIR_CHILDREN,
    LINK_TARGET,
    RB_LEFT,
    RB_RIGHT,
    DEVICE_KOBJECT,
    DEVICE_PARENT,
    DEVICE_BUS,
    DEVICE_REMOVABLE,
    BUS_NAME,
    DEVICE_TYPE,
    DEVICE_TYPE_NAME,
    USB_DEVICE,
    USB_DESCRIPTOR,
    USB_SERIAL,
    TASK_TGID,
    TASK_PID,
    TASK_LEADER,
    TASK_START,
    TASK_PARENT,
    TASK_CHILDREN,
    TASK_SIBLING,
    LIST_PREVIOUS,
    TASK_CRED,
    TASK_EXEC_ID,
    TASK_COMM,
    TASK_SIGNAL,
    TASK_MM,
    TASK_FS,
    TASK_EXIT_CODE,
    TASK_LOGIN_UID,
    TASK_SESSION_ID,
    FS_PWD,
    FS_ROOT,
    CRED_UID,
    CRED_GID,
    SIGNAL_TTY,
    SIGNAL_LIVE,
    SIGNAL_EXIT_CODE,
    TTY_NAME,
    MM_EXE_FILE,
    MM_ARG_START,
    MM_ARG_END,
    MM_ENV_START,
    MM_ENV_END,
    MM_START_CODE,
    VMA_FILE,
    BACKING_USER_PATH,
    BPRM_FILE,
    BPRM_ARGC,
    BPRM_FILENAME,
    KIOCB_FILE,
    IATTR_VALID,
    KIOCB_FLAGS,
    REQUEST_FILE,
    REQUEST_RESULT,
    RESULT_VALUE,
    ACL_COUNT,
    DIO_KIOCB,
    DIO_SIZE,
    DIO_FLAGS,
    DIO_ERROR,
    SOCKET_SK,
    SOCK_FAMILY,
    SOCK_STATE,
    SOCK_DADDR,
    SOCK_DPORT,
    SOCK_V6_DADDR,
    SOCK_TYPE,
    SOCK_PROTOCOL,
    MSG_NAME,
    MSG_FLAGS,
    MSG_NAME_LENGTH,
    MSG_ITER,
    ITER_TYPE,
    ITER_OFFSET,
    ITER_COUNT,
    ITER_ADDRESS,
    ITER_VECTOR,
    ITER_VECTOR_BEFORE,
    ITER_UBUF,
    ITER_IOVEC,
    SKB_DATA,
    SKB_LENGTH,
    SKB_FRAGMENTS_LENGTH,
    TCP_BYTES_RECEIVED,
    NAMEIDATA_NAME,
    NAMEIDATA_DFD,
    FILENAME_NAME,
    TASK_FILES,
    FILES_TABLE,
    TABLE_FILES,
    TABLE_SIZE,
    SB_MAGIC,
    MOUNT_ID,
    NAMESPACE_COMMON,
    NAMESPACE_EVENT,
    COMMON_NUMBER,
    MAP_ID,
    TASK_CONTROL_GROUPS,
    GROUPS_DEFAULT,
    GROUP_SELF,
    GROUP_NODE,
    GROUP_STATE_PARENT,
    NODE_ID,
    // Not fields, but set the same way.
    ROOT_DEVICE,
    ROOT_UPPER_DEVICE,
    HOST_NAMESPACE,
    PROGRAM_LOGS,
);
