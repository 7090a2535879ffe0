//! Puts the kernel programs where the agent embeds them: the object named by
//! `SEKIMORI_EBPF_OBJECT`, or an empty file, so that everything but the sensor builds and tests
//! without a BPF toolchain.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SEKIMORI_EBPF_OBJECT");
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gave no OUT_DIR")?)
        .join("ebpf.o");
    let Some(object) = env::var_os("SEKIMORI_EBPF_OBJECT").filter(|name| !name.is_empty()) else {
        fs::write(&target, [])?;
        return Ok(());
    };
    let object = PathBuf::from(object);
    if !object.is_absolute() {
        return Err(format!(
            "SEKIMORI_EBPF_OBJECT is {}: give an absolute path, `cargo xtask build` does",
            object.display()
        )
        .into());
    }
    println!("cargo:rerun-if-changed={}", object.display());
    fs::copy(&object, &target).map_err(|error| {
        format!("cannot copy the kernel programs from {}: {error}", object.display())
    })?;
    Ok(())
}
