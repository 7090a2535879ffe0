//! Offsets of fields that belong to modules, for the programs' table.
//!
//! A module's types continue those of the kernel: its numbers go on behind the kernel's, and so do
//! the places of its names. A name that the kernel has too, as many members' are, stands among the
//! kernel's. Only the module's own types are looked through.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use aya::maps::Array;
use sekimori_abi::offsets::MODULE_FIELDS;

use super::{KernelError, maps::Maps, offsets::BTF_PATH, tables::Plain};

/// The types of the largest modules of today are 1 MB; so are the names of a kernel.
const BTF_BYTES_MAX: u64 = 16 << 20;
/// `struct btf_header` (include/uapi/linux/btf.h); its first two bytes.
const HEADER_BYTES: usize = 24;
const MAGIC: u32 = 0xeb9f;
/// `struct btf_type`, and `struct btf_member` behind it.
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
const STRUCT: u32 = 4;
/// Bytes behind each kind of type, by its number: once, and for each of its parts.
const BEHIND: [(usize, usize); 20] = [
    (0, 0),
    (4, 0),
    (0, 0),
    (12, 0),
    (0, 12),
    (0, 12),
    (0, 8),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 8),
    (4, 0),
    (0, 12),
    (0, 0),
    (4, 0),
    (0, 0),
    (0, 12),
];

/// Which modules the programs know by now.
#[derive(Debug, Default)]
pub(super) struct Modules {
    known: BTreeSet<&'static str>,
}

impl Modules {
    /// Tells the programs of the fields of modules that are there and were not yet looked at.
    ///
    /// # Errors
    /// When the table cannot be written, or a module's types lack a field.
    pub(super) fn tell(&mut self, maps: &mut Maps) -> Result<(), KernelError> {
        let modules: BTreeSet<_> = MODULE_FIELDS.iter().map(|field| field.module).collect();
        for module in modules {
            let at = Path::new("/sys/kernel/btf").join(module);
            if !self.known.contains(module) && at.exists() {
                // What cannot be read now cannot be read later.
                self.known.insert(module);
                tell_of(module, &at, maps)?;
            }
        }
        Ok(())
    }
}

fn tell_of(module: &str, at: &Path, maps: &mut Maps) -> Result<(), KernelError> {
    let types = read(at, 0, BTF_BYTES_MAX)?;
    let kernel = Path::new(BTF_PATH);
    let (from, bytes) = place_of_names(&read(kernel, 0, HEADER_BYTES as u64)?)
        .ok_or_else(|| KernelError::Other(format!("{} has no header", kernel.display())))?;
    let names = read(kernel, from, bytes.min(BTF_BYTES_MAX))?;
    for field in MODULE_FIELDS.iter().filter(|field| field.module == module) {
        let offset = offset_of(&types, &names, field.structure, field.member).ok_or_else(|| {
            let missing = format!("{}.{}", field.structure, field.member);
            KernelError::Other(format!("{} lacks {missing}", at.display()))
        })?;
        Array::<_, Plain<u32>>::try_from(maps.get("MODULE_OFFSETS")?)
            .and_then(|mut table| table.set(field.place, Plain(offset.saturating_add(1)), 0))
            .map_err(|error| KernelError::from_aya("writing MODULE_OFFSETS", &error))?;
    }
    Ok(())
}

fn read(at: &Path, from: u64, most: u64) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    File::open(at)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.take(most).read_to_end(&mut bytes)
        })
        .map_err(|error| KernelError::from_aya(&at.display().to_string(), &error))?;
    Ok(bytes)
}

/// Four bytes at a place, in the order of this machine.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A part of the types, by the places of its offset and its length in the header.
fn section(bytes: &[u8], offset_at: usize, length_at: usize) -> Option<&[u8]> {
    let header = usize::try_from(word(bytes, 4)?).ok()?;
    let start = header.checked_add(usize::try_from(word(bytes, offset_at)?).ok()?)?;
    bytes.get(start..start.checked_add(usize::try_from(word(bytes, length_at)?).ok()?)?)
}

/// Where the kernel's names begin and how many bytes they are, from the header of its types.
fn place_of_names(header: &[u8]) -> Option<(u64, u64)> {
    (word(header, 0)? & 0xffff == MAGIC).then_some(())?;
    let from = u64::from(word(header, 4)?).checked_add(word(header, 16)?.into())?;
    Some((from, word(header, 20)?.into()))
}

/// The offset in bytes of a member of a struct that the module has.
fn offset_of(types: &[u8], kernel_names: &[u8], structure: &str, member: &str) -> Option<u32> {
    (word(types, 0)? & 0xffff == MAGIC).then_some(())?;
    let names = section(types, 16, 20)?;
    let types = section(types, 8, 12)?;
    let is = |name: u32, wanted: &str| {
        let Ok(at) = usize::try_from(name) else { return false };
        let text = match at.checked_sub(kernel_names.len()) {
            Some(own) => names.get(own..),
            None => kernel_names.get(at..),
        };
        text.and_then(|text| text.split(|byte| *byte == 0).next()) == Some(wanted.as_bytes())
    };
    let mut at = 0_usize;
    while let Some(info) = word(types, at.checked_add(4)?) {
        let (kind, parts) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
        let behind = at.checked_add(TYPE_BYTES)?;
        if kind == STRUCT && is(word(types, at)?, structure) {
            let members =
                (0..parts).map(|part| behind.checked_add(part.checked_mul(MEMBER_BYTES)?));
            for place in members {
                let place = place?;
                if is(word(types, place)?, member) {
                    // With the uppermost bit the offset is in the lower 24, beside a width.
                    let bits = word(types, place.checked_add(8)?)?;
                    let bits = if info >> 31 == 0 { bits } else { bits & 0xff_ffff };
                    return Some(bits / 8);
                }
            }
        }
        let (once, each) = BEHIND.get(usize::try_from(kind).ok()?)?;
        at = behind.checked_add(*once)?.checked_add(each.checked_mul(parts)?)?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::offsets::sample::{HEADER_BYTES, STRUCT, Types, UNION};
    use super::{offset_of, place_of_names};

    /// What a module publishes, where the kernel's names take no room.
    fn module() -> Vec<u8> {
        let mut types = Types::new();
        // An array, a prototype with one parameter, a union.
        types.add("", (3, 0), 0, &[1, 2, 3]);
        types.add("", (13, 1), 0, &[0, 0]);
        types.members("loop_device", UNION, 8, &[("lo_backing_file", 0, 4)]);
        let members = [("lo_number", 0, 0), ("lo_backing_file", 0, 96)];
        types.members("loop_device", STRUCT, 400, &members);
        types.bytes()
    }

    #[test]
    fn a_field_of_a_module_is_found() {
        let found = |structure, member| offset_of(&module(), &[], structure, member);
        assert_eq!(found("loop_device", "lo_backing_file"), Some(96));
        assert_eq!(found("loop_device", "lo_device"), None);
        assert_eq!(found("mmc_card", "lo_number"), None);
    }

    #[test]
    fn names_go_on_behind_those_of_the_kernel() {
        let mut bytes = module();
        let (from, length) = place_of_names(&bytes).unwrap();
        assert_eq!(from + length, bytes.len() as u64);
        // The last struct has its name behind 1,000 bytes of the kernel's; its second member is
        // called as something in the kernel is.
        let mut kernel = vec![0; 1000];
        kernel[500..504].copy_from_slice(b"dev\0");
        assert_eq!(offset_of(&bytes, &kernel, "loop_device", "lo_backing_file"), None);
        let types = u32::from_le_bytes(*bytes[12..].first_chunk().unwrap()) as usize;
        let end = HEADER_BYTES + types;
        let name = u32::from_le_bytes(*bytes[end - 36..].first_chunk().unwrap()) + 1000;
        bytes[end - 36..end - 32].copy_from_slice(&name.to_le_bytes());
        bytes[end - 12..end - 8].copy_from_slice(&500_u32.to_le_bytes());
        assert_eq!(offset_of(&bytes, &kernel, "loop_device", "dev"), Some(96));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            names in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = (offset_of(&bytes, &names, "s", "m"), place_of_names(&bytes));
            for (to, from) in bytes.iter_mut().zip([0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0]) {
                *to = from;
            }
            let _ = offset_of(&bytes, &[], "", "");
        }

        #[test]
        fn a_module_that_lies_does_no_harm(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = module();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = offset_of(&bytes, &[], "loop_device", "lo_backing_file");
        }
    }
}
