//! Removable media as sysfs shows them: whether any is plugged in, and which device nodes lead to
//! them past their file systems. The kernel programs find out by themselves what a mounted file
//! system stands on; this is for what has no file system.

mod survey;
mod watch;

pub use self::{
    survey::{Survey, survey},
    watch::Watch,
};
