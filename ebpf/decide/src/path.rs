//! The path automaton's alphabet: names as 64-bit hashes.

use sekimori_abi::limits::NAME_BYTES_MAX;

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
/// 64-bit words of a zero-padded name.
pub const NAME_WORDS: usize = NAME_BYTES_MAX / 8;

/// Hash of one path component, given as its zero-padded little-endian words. Never 0, which stands
/// for "any name" in the tables.
#[inline(always)]
pub fn words_hash(words: &[u64; NAME_WORDS]) -> u64 {
    let mut hash = SEED;
    for word in words {
        hash = (hash.rotate_left(5) ^ *word).wrapping_mul(FACTOR);
    }
    hash | 1
}

/// Hash of one path component. `None` when it is longer than a file name can be.
pub fn component_hash(name: &[u8]) -> Option<u64> {
    if name.len() >= NAME_BYTES_MAX {
        return None;
    }
    let mut words = [0u64; NAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
        let mut padded = [0u8; 8];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = *from;
        }
        *word = u64::from_le_bytes(padded);
    }
    Some(words_hash(&words))
}
