//! Shares as the mount table shows them: what kind of file system, and whose.

/// Types of file systems of other machines (`file_system_type.name` in the kernel).
const NETWORK: [&[u8]; 12] = [
    b"nfs",
    b"nfs4",
    b"cifs",
    b"smb3",
    b"9p",
    b"ceph",
    b"afs",
    b"coda",
    b"orangefs",
    b"lustre",
    b"vboxsf",
    b"virtiofs",
];
/// File systems of programs: `fuse`, `fuse.sshfs`, and on a block device `fuseblk`.
const FUSE: &[u8] = b"fuse";
/// The switches of FUSE itself.
const FUSE_CONTROL: &[u8] = b"fusectl";

/// A file system that writes to another machine or to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// As the mount table calls it: `nfs4`, `fuse.sshfs`.
    pub file_system: String,
    /// What was mounted: `server:/export`.
    pub source: String,
    /// It can be written to.
    pub(super) writable: bool,
}

impl Share {
    /// From the last three fields of a line: type, source, options of the file system. `None` for
    /// other file systems.
    pub(super) fn parse(mut fields: impl Iterator<Item = Vec<u8>>) -> Option<Self> {
        let file_system = fields.next()?;
        let fuse = file_system.starts_with(FUSE) && file_system != FUSE_CONTROL;
        if !fuse && !NETWORK.contains(&file_system.as_slice()) {
            return None;
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let source = text(fields.next()?);
        let options = fields.next().unwrap_or_default();
        let writable = options.split(|byte| *byte == b',').next() != Some(b"ro");
        Some(Self { file_system: text(file_system), source, writable })
    }
}
