//! Type information made by hand, as the kernel publishes it (include/uapi/linux/btf.h).

use std::collections::BTreeMap;

use sekimori_abi::offsets::{ENUMERATORS, FIELDS};

/// `BTF_KIND_STRUCT`.
pub(crate) const STRUCT: u32 = 4;
/// `BTF_KIND_UNION`.
pub(crate) const UNION: u32 = 5;
const ENUM: u32 = 6;
/// `BTF_KIND_TYPEDEF`.
pub(crate) const TYPEDEF: u32 = 8;
/// `BTF_KIND_CONST`.
pub(crate) const CONST: u32 = 10;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 24;

/// Type information that grows.
pub(crate) struct Types {
    types: Vec<u32>,
    names: Vec<u8>,
    count: u32,
}

impl Types {
    /// None.
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), names: vec![0], count: 0 }
    }

    /// The number that the type that is added next gets.
    pub(crate) fn next(&self) -> u32 {
        self.count + 1
    }

    /// Where a name stands; an empty one stands at 0.
    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.names.len() as u32;
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        at
    }

    /// A type as it is written: name, kind and number of parts, size or type, what follows.
    /// Answers its number.
    pub(crate) fn add(&mut self, name: &str, info: (u32, u32), size: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, info.0 << 24 | info.1, size]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    /// A struct or union with these members: name, type, offset in bytes.
    pub(crate) fn members(
        &mut self,
        name: &str,
        kind: u32,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let mut rest = Vec::new();
        for (member, id, offset) in members {
            rest.extend([self.name(member), *id, offset * 8]);
        }
        self.add(name, (kind, members.len() as u32), size, &rest)
    }

    /// Header, types, names.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (types, names) = (self.types.len() as u32 * 4, self.names.len() as u32);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let header = [HEADER_BYTES as u32, 0, types, types, names];
        header.iter().chain(&self.types).for_each(|it| bytes.extend_from_slice(&it.to_le_bytes()));
        bytes.extend_from_slice(&self.names);
        bytes
    }
}

/// A kernel that has every field. Members stand 8 bytes apart in the order of `FIELDS`, from 16 on,
/// and each second one in an anonymous union of its own.
pub(crate) fn kernel() -> Types {
    let mut types = Types::new();
    let mut structures: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for field in FIELDS {
        structures.entry(field.structure).or_default().push(field.member);
    }
    for (structure, fields) in structures {
        let mut members = Vec::new();
        for (index, member) in fields.iter().enumerate() {
            let offset = 16 + 8 * index as u32;
            members.push(match index % 2 {
                0 => (*member, 0, offset),
                _ => ("", types.members("", UNION, 8, &[(*member, 0, 0)]), offset),
            });
        }
        types.members(structure, STRUCT, 24 + 8 * fields.len() as u32, &members);
    }
    let mut values = Vec::new();
    for (value, enumerator) in ENUMERATORS.iter().enumerate() {
        values.extend([types.name(enumerator.constant), value as u32]);
    }
    types.add("iter_type", (ENUM, ENUMERATORS.len() as u32), 4, &values);
    let parameters = [types.name("idmap"), 0, types.name("dentry"), 0];
    let prototype = types.add("", (FUNC_PROTO, 2), 0, &parameters);
    types.add("bpf_lsm_inode_setattr", (FUNC, 0), prototype, &[]);
    types
}
