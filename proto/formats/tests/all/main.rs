//! The forms of OCSF and ECS: golden files, the schemas of others, and that nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod ecs_schema;
mod events;
mod golden;
mod lossless;
mod ocsf_schema;

use std::path::PathBuf;

/// Where `cargo xtask setup` keeps what it installed.
fn cache(name: &str) -> PathBuf {
    let cache = std::env::var_os("SEKIMORI_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let user = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
        user.map_or_else(home, PathBuf::from).join("sekimori")
    });
    let path = cache.join(name);
    let missing = "is not there: run `cargo xtask setup`";
    assert!(path.exists(), "{} {missing}", path.display());
    path
}
