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
