//! Cases around any bytes, by somebody who has a key.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::sync::LazyLock;

use sekimori_evidence::case::{FORMAT, Manifest, Member};
use sekimori_evidence::{SigningKey, hex};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    SigningKey::open(&dir.path().join("key")).expect("a key")
});

/// A key that signs whatever it is given.
#[must_use]
pub fn key() -> &'static SigningKey {
    &KEY
}

/// Three members in a row, each but the last behind its length.
#[must_use]
pub fn parts(parts: &[&[u8]; 3]) -> Vec<u8> {
    let [manifest, records, proofs] = parts;
    let length = |part: &[u8]| (part.len() as u16).to_le_bytes();
    [&length(manifest)[..], manifest, &length(records), records, proofs].concat()
}

/// A case of such members. What is no description becomes one that fits.
#[must_use]
pub fn signed_case(bytes: &[u8]) -> Option<Vec<u8>> {
    let (manifest, rest) = part(bytes)?;
    let (records, proofs) = part(rest)?;
    let members = [("records.bin", records), ("proof.bin", proofs)];
    let described = match serde_json::from_slice::<Map<String, Value>>(manifest) {
        Ok(mut manifest) => {
            manifest.insert("collector_key".to_owned(), hex(&key().public()).into());
            serde_json::to_vec(&manifest).ok()?
        }
        Err(_) => fitting(&members),
    };
    let signature = key().sign(&[b"sekimori case 1\n", &described[..]].concat());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let own = [("case.json", &described[..]), ("case.sig", &signature)];
    for (name, content) in own.into_iter().chain(members) {
        archive.start_file(name, options).ok()?;
        archive.write_all(content).ok()?;
    }
    Some(archive.finish().ok()?.into_inner())
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some(rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len())))
}

fn fitting(members: &[(&str, &[u8])]) -> Vec<u8> {
    let member = |content: &[u8]| Member {
        sha256: hex(&Sha256::digest(content)),
        bytes: content.len() as u64,
    };
    let files: BTreeMap<_, _> =
        members.iter().map(|(name, content)| ((*name).to_owned(), member(content))).collect();
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        collector_key: hex(&key().public()),
        files,
        ..Manifest::default()
    };
    serde_json::to_vec(&manifest).unwrap_or_default()
}
