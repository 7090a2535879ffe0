//! Puts the kernel programs where the agent embeds them: the object that `cargo xtask build` made,
//! or an empty file, so that everything but the sensor builds and tests without a BPF toolchain.

use std::{env, error::Error, fs, path::PathBuf};

/// Where `cargo xtask build` leaves the object, from this crate's directory.
const OBJECT: &str = "../target/bpf/bpfel-unknown-none/bpf/sekimori";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SEKIMORI_EBPF_OBJECT");
    let target =
        PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gave no OUT_DIR")?).join("ebpf.o");
    let named = env::var_os("SEKIMORI_EBPF_OBJECT").filter(|name| !name.is_empty());
    let object = match &named {
        Some(name) => PathBuf::from(name),
        None => PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?)
            .join(OBJECT),
    };
    println!("cargo:rerun-if-changed={}", object.display());
    if named.is_none() && !object.exists() {
        fs::write(&target, [])?;
        return Ok(());
    }
    fs::copy(&object, &target).map_err(|error| {
        format!("cannot copy the kernel programs from {}: {error}", object.display())
    })?;
    Ok(())
}
