//! Not yet.
use super::Run;
pub const ALL: &[(&str, Run)] = &[];
