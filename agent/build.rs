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
    let bytes = fs::read(&object).map_err(|error| {
        format!("cannot read the kernel programs from {}: {error}", object.display())
    })?;
    let kept = without_debug_information(&bytes)
        .ok_or_else(|| format!("{} is no 64-bit ELF object", object.display()))?;
    fs::write(&target, kept)?;
    Ok(())
}

/// DWARF is most of the object, and nobody reads it at run time: the agent has all of it in memory
/// when it starts. The kernel and the loader look at the types (BTF), which stay. Its sections stay
/// too, without content, so that no number of a section changes (ELF-64 Object File Format, 1.5).
fn without_debug_information(object: &[u8]) -> Option<Vec<u8>> {
    let table = number(object, 0x28, 8)?;
    let (entry, count, names) =
        (number(object, 0x3a, 2)?, number(object, 0x3c, 2)?, number(object, 0x3e, 2)?);
    let names = number(object, table + names * entry + 24, 8)?;
    let mut headers = object.get(table..table + count * entry)?.to_vec();
    let mut kept = object.get(..0x40)?.to_vec();
    for header in headers.chunks_exact_mut(entry) {
        let name = object.get(names + number(header, 0, 4)?..)?;
        let debug = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
        let (offset, size) = (number(header, 24, 8)?, number(header, 32, 8)?);
        let takes_room = number(header, 4, 4)? != SHT_NOBITS;
        kept.resize(kept.len().next_multiple_of(8), 0);
        set(header, 24, kept.len())?;
        if debug {
            set(header, 32, 0)?;
        } else if takes_room {
            kept.extend_from_slice(object.get(offset..offset + size)?);
        }
    }
    kept.resize(kept.len().next_multiple_of(8), 0);
    let table = kept.len();
    set(&mut kept, 0x28, table)?;
    kept.extend_from_slice(&headers);
    Some(kept)
}

/// A section without bytes in the file.
const SHT_NOBITS: usize = 8;

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let mut number = [0; 8];
    number.get_mut(..length)?.copy_from_slice(bytes.get(at..at + length)?);
    usize::try_from(u64::from_le_bytes(number)).ok()
}

fn set(bytes: &mut [u8], at: usize, number: usize) -> Option<()> {
    bytes.get_mut(at..at + 8)?.copy_from_slice(&(number as u64).to_le_bytes());
    Some(())
}
