//! Field offsets from the running kernel's own type information.
//!
//! Types that contradict themselves are an error or a missing field. Whatever the bytes are, the
//! look-up ends, and takes time and memory in proportion to them. btfparse only reads the types:
//! its own search follows a type that contains itself without end; the one here looks at each type
//! once.

#[cfg(test)]
pub(super) mod sample;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};

use btfparse::{Integer32Value, Member, Offset, Readable, TypeInformation, TypeVariant};
use sekimori_abi::offsets::{ENUMERATORS, Enumerator, FIELDS, Field, MISSING};

use super::KernelError;

/// Where the kernel publishes its types.
pub(crate) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The type information of today's kernels is 4 to 8 MB.
const BTF_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read for each byte of type information: a name is read wherever it is referred
/// to. Today's kernels take 1.1.
const READS_PER_BYTE_MAX: usize = 8;

/// Every constant the programs are given, by name.
pub(crate) struct Offsets {
    /// Constants and their values; [`MISSING`] where this kernel has no such field.
    pub(crate) values: Vec<(&'static str, u32)>,
    /// Fields this kernel does not have.
    pub(crate) missing: Vec<&'static Field>,
    /// `inode_setattr` has an idmap before the dentry (from 6.10 on).
    pub(crate) setattr_takes_idmap: bool,
}

impl Offsets {
    /// Looks up every field in the running kernel.
    ///
    /// # Errors
    /// When the kernel has no type information, or a required field is missing.
    pub(crate) fn resolve() -> Result<Self, KernelError> {
        let bytes = std::fs::read(BTF_PATH).map_err(|error| {
            KernelError::Unsupported(format!(
                "{BTF_PATH}: {error}; this kernel has no type information: \
                 a kernel with CONFIG_DEBUG_INFO_BTF=y is needed"
            ))
        })?;
        Self::of_btf(bytes)
    }

    /// Looks up every field in the given type information.
    ///
    /// # Errors
    /// When it cannot be read, or a required field is missing.
    pub(crate) fn of_btf(bytes: Vec<u8>) -> Result<Self, KernelError> {
        if bytes.len() > BTF_BYTES_MAX {
            return Err(KernelError::Unsupported(format!("{BTF_PATH}: larger than 64 MiB")));
        }
        let types = Types::parse(bytes)?;
        let mut values = Vec::with_capacity(FIELDS.len());
        let mut missing = Vec::new();
        for field in FIELDS {
            let offset = types.offset_of(field);
            if offset.is_none() {
                missing.push(field);
            }
            values.push((field.constant, offset.unwrap_or(MISSING)));
        }
        for enumerator in ENUMERATORS {
            let value = types.value_of(enumerator);
            values.push((enumerator.constant, value.unwrap_or(MISSING)));
        }
        let required: Vec<String> = missing
            .iter()
            .filter(|field| field.required)
            .map(|field| format!("{}.{}", field.structure, field.member))
            .collect();
        if !required.is_empty() {
            return Err(KernelError::Unsupported(format!(
                "this kernel's types lack {}; please report the output of `uname -a`",
                required.join(", ")
            )));
        }
        let mapped = types.parameter("bpf_lsm_inode_setattr", "dentry") == Some(1);
        Ok(Self { values, missing, setattr_takes_idmap: mapped })
    }
}

/// The kernel's types, with names told apart by kind: `struct mount` is not the function `mount`.
struct Types {
    all: TypeInformation,
    structures: HashMap<String, u32>,
    functions: HashMap<String, u32>,
    enumerations: HashMap<String, u32>,
}

impl Types {
    fn parse(bytes: Vec<u8>) -> Result<Self, KernelError> {
        let all = TypeInformation::new(&Bytes::new(bytes)).map_err(|error| {
            KernelError::Unsupported(format!("{BTF_PATH} cannot be read: {}", error.message()))
        })?;
        let mut structures = HashMap::new();
        let mut functions = HashMap::new();
        let mut enumerations = HashMap::new();
        for (id, kind) in all.get() {
            let map = match kind {
                TypeVariant::Struct(_) => &mut structures,
                TypeVariant::Func(_) => &mut functions,
                TypeVariant::Enum(_) => &mut enumerations,
                _ => continue,
            };
            if let Some(name) = all.name_of(*id) {
                map.entry(name).or_insert(*id);
            }
        }
        Ok(Self { all, structures, functions, enumerations })
    }

    /// The offset of a member of the struct, or of an anonymous struct or union within it.
    fn offset_of(&self, field: &Field) -> Option<u32> {
        let id = *self.structures.get(field.structure)?;
        let TypeVariant::Struct(whole) = self.all.get().get(&id)? else { return None };
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(id, 0_u32)];
        while let Some((id, start)) = waiting.pop() {
            // What was not found in a type is not in it at another place either.
            if !seen.insert(id) {
                continue;
            }
            for member in self.members(id, start, &mut waiting) {
                let Offset::ByteOffset(offset) = member.offset() else { continue };
                let Some(offset) = start.checked_add(offset) else { continue };
                match member.name() {
                    None => waiting.push((member.tid(), offset)),
                    Some(name) if name == field.member => {
                        return usize::try_from(offset)
                            .is_ok_and(|it| it < *whole.size())
                            .then_some(offset);
                    }
                    Some(_) => {}
                }
            }
        }
        None
    }

    /// The members of a struct or union. Another name of a type has none; what it refers to waits.
    fn members(&self, id: u32, start: u32, waiting: &mut Vec<(u32, u32)>) -> &[Member] {
        let referred = match self.all.get().get(&id) {
            Some(TypeVariant::Struct(found)) => return found.member_list(),
            Some(TypeVariant::Union(found)) => return found.member_list(),
            Some(TypeVariant::Typedef(name)) => *name.tid(),
            Some(TypeVariant::Const(name)) => *name.tid(),
            Some(TypeVariant::Volatile(name)) => *name.tid(),
            _ => return &[],
        };
        waiting.push((referred, start));
        &[]
    }

    fn value_of(&self, enumerator: &Enumerator) -> Option<u32> {
        let id = *self.enumerations.get(enumerator.enumeration)?;
        let TypeVariant::Enum(found) = self.all.from_id(id)? else { return None };
        let named = |it: &&btfparse::NamedValue32| it.name == enumerator.constant;
        match found.named_value_list().iter().find(named)?.value {
            Integer32Value::Unsigned(value) => Some(value),
            Integer32Value::Signed(value) => u32::try_from(value).ok(),
        }
    }

    /// Position of a function's parameter.
    fn parameter(&self, function: &str, parameter: &str) -> Option<u32> {
        let TypeVariant::Func(found) = self.all.from_id(*self.functions.get(function)?)? else {
            return None;
        };
        let TypeVariant::FuncProto(prototype) = self.all.from_id(*found.prototype_tid())? else {
            return None;
        };
        let at = prototype
            .parameter_list()
            .iter()
            .position(|candidate| candidate.name().as_deref() == Some(parameter))?;
        u32::try_from(at).ok()
    }
}

/// Bytes in memory as btfparse wants them: reads outside are errors, and so is reading the same
/// names so often that they would fill the memory.
struct Bytes {
    bytes: Vec<u8>,
    /// Bytes that may still be read.
    left: Cell<usize>,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        let left = Cell::new(bytes.len().saturating_mul(READS_PER_BYTE_MAX));
        Self { bytes, left }
    }
}

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let error = |message| btfparse::Error::new(btfparse::ErrorKind::IOError, message);
        let outside = || error("read behind the end of the types");
        let left = self.left.get().checked_sub(buffer.len());
        self.left.set(left.ok_or_else(|| error("long names are referred to again and again"))?);
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(buffer.len()).ok_or_else(outside)?;
        buffer.copy_from_slice(self.bytes.get(start..end).ok_or_else(outside)?);
        Ok(())
    }
}
