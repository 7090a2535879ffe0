//! `cargo xtask setup`: everything that building and testing need and the machine lacks.

pub mod apt;
pub mod rust_src;
