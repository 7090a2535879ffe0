//! Field offsets from the running kernel's own type information.

use std::collections::HashMap;

use btfparse::{Integer32Value, Offset, Readable, TypeInformation, TypeVariant};
use sekimori_abi::offsets::{ENUMERATORS, Enumerator, FIELDS, Field, MISSING};

use super::KernelError;

/// Where the kernel publishes its types.
pub(crate) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// The type information of today's kernels is 4 to 8 MB.
const BTF_BYTES_MAX: usize = 64 << 20;

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
        let all = TypeInformation::new(&Bytes(bytes)).map_err(|error| {
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

    fn offset_of(&self, field: &Field) -> Option<u32> {
        let id = *self.structures.get(field.structure)?;
        match self.all.offset_of(id, field.member).ok()? {
            (_, Offset::ByteOffset(bytes)) => Some(bytes),
            _ => None,
        }
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

/// Bytes in memory as btfparse wants them: reads outside are errors.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let outside = || {
            btfparse::Error::new(btfparse::ErrorKind::IOError, "read behind the end of the types")
        };
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(buffer.len()).ok_or_else(outside)?;
        buffer.copy_from_slice(self.0.get(start..end).ok_or_else(outside)?);
        Ok(())
    }
}
