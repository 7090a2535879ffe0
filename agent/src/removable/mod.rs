//! What is plugged in, as sysfs shows it: whether there are removable media, which device nodes lead
//! to them past their file systems, and what came and went. The kernel programs find out by
//! themselves what a mounted file system stands on; this is for what has no file system.

mod plugged;
mod survey;
mod sysfs;
mod watch;

pub use self::{
    plugged::{Change, Plugged},
    survey::{Survey, survey},
    watch::Watch,
};

/// Whether the kernel has btrfs, which comes as a module, by now. `proc` is where procfs is mounted.
pub fn kernel_has_btrfs(proc: &std::path::Path) -> bool {
    std::fs::read_to_string(proc.join("filesystems"))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "btrfs"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::kernel_has_btrfs;

    #[test]
    fn file_systems_are_known_by_their_whole_name() {
        let proc = tempfile::tempdir().unwrap();
        assert!(!kernel_has_btrfs(proc.path()));
        let list = proc.path().join("filesystems");
        std::fs::write(&list, "nodev\tsysfs\n\text4\n\tbtrfs2\n").unwrap();
        assert!(!kernel_has_btrfs(proc.path()));
        std::fs::write(&list, "nodev\tsysfs\n\tbtrfs\n").unwrap();
        assert!(kernel_has_btrfs(proc.path()));
    }
}
