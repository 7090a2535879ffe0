//! The hooks: what happens when the kernel comes by.

mod attribute;
mod command;
mod connect;
mod disk;
mod exec;
mod failed_open;
mod guard;
mod load;
mod mount;
mod name;
mod open;
mod process;
mod relabel;
mod send;
mod share;
mod socket;
mod source;
mod tree;
mod write;

/// `-EPERM`, what a refused operation answers.
pub const REFUSED: i32 = -1;
/// Nothing to object to.
pub const ALLOWED: i32 = 0;
