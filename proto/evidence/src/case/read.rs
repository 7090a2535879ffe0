//! Checking a case. Nothing is unpacked onto the disk, and no name in it is used as one.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Read, Seek};

use prost::Message as _;
use sekimori_proto::v1::CaseRecord;
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::{
    CONTEXT, CaseError, FORMAT, MANIFEST, MANIFEST_BYTES_MAX, Manifest, Member, PROOF,
    RECORD_BYTES_MAX, RECORDS, SIGNATURE,
};
use crate::key::is_signed;
use crate::text::{hex, unhex};
use crate::verify::{Outcome, Scope, Verifier};

/// A case that is what its collector made.
#[derive(Debug)]
pub struct Opened {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Whether its records are what their hosts signed.
    pub outcome: Outcome,
}

/// Checks everything about a case. Whose key the collector's is must be known from elsewhere.
///
/// # Errors
/// [`CaseError`] when it is not what a collector made; what is wrong with records that a collector
/// put into it is in the outcome.
pub fn open(file: impl Read + Seek) -> Result<Opened, CaseError> {
    let mut archive = ZipArchive::new(file)?;
    let described = small(&mut archive, MANIFEST, MANIFEST_BYTES_MAX)?;
    let signature = small(&mut archive, SIGNATURE, 64)?;
    let manifest: Manifest = serde_json::from_slice(&described)?;
    if manifest.format != FORMAT {
        return Err(CaseError::Format(manifest.format));
    }
    let key = unhex(&manifest.collector_key).unwrap_or_default();
    if !is_signed(&key, &[CONTEXT, &described].concat(), &signature) {
        return Err(CaseError::Signature);
    }
    let names = archive.file_names().map(|name| name.map(Cow::into_owned));
    for name in names.collect::<Result<Vec<String>, ZipError>>()? {
        let described = [MANIFEST, SIGNATURE].contains(&name.as_str());
        if !described && !manifest.files.contains_key(&name) {
            return Err(CaseError::Added(name));
        }
    }
    for (name, member) in &manifest.files {
        if summed(&mut archive, name, member.bytes)? != *member {
            return Err(CaseError::Changed(name.clone()));
        }
    }
    let mut verifier = Verifier::new(Scope::Selection);
    for name in [RECORDS, PROOF] {
        if !manifest.files.contains_key(name) {
            return Err(CaseError::Missing(name));
        }
        each_record(&mut archive.by_name(name)?, name, |record| {
            Ok(verifier.look(&record.host, record.cursor, &record.event)?)
        })?;
    }
    Ok(Opened { manifest, outcome: verifier.finish() })
}

fn small<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &'static str,
    bytes_max: u64,
) -> Result<Vec<u8>, CaseError> {
    let member = match archive.by_name(name) {
        Ok(member) => member,
        Err(ZipError::FileNotFound) => return Err(CaseError::Missing(name)),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    member.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(CaseError::Changed(name.to_owned()));
    }
    Ok(bytes)
}

/// What a member is, as far as `bytes` and one more.
fn summed<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    bytes: u64,
) -> Result<Member, CaseError> {
    let member = match archive.by_name(name) {
        Ok(member) => member,
        Err(ZipError::FileNotFound) => return Err(CaseError::Changed(name.to_owned())),
        Err(error) => return Err(error.into()),
    };
    let mut hash = Sha256::new();
    let mut reader = BufReader::new(member.take(bytes.saturating_add(1)));
    let mut read = 0;
    loop {
        // A checksum of the archive that does not fit is a change like any other.
        let Ok(part) = reader.fill_buf() else {
            return Err(CaseError::Changed(name.to_owned()));
        };
        if part.is_empty() {
            break;
        }
        hash.update(part);
        let count = part.len();
        read += count as u64;
        reader.consume(count);
    }
    Ok(Member { sha256: hex(&hash.finalize()), bytes: read })
}

/// Hands each record of a member on.
pub(super) fn each_record(
    file: &mut impl Read,
    name: &'static str,
    mut each: impl FnMut(CaseRecord) -> Result<(), CaseError>,
) -> Result<(), CaseError> {
    let mut file = BufReader::new(file);
    let mut bytes = Vec::new();
    while !file.fill_buf()?.is_empty() {
        let length = varint(&mut file)?.ok_or(CaseError::Record(name))?;
        let length = usize::try_from(length).ok().filter(|it| *it <= RECORD_BYTES_MAX);
        bytes.resize(length.ok_or(CaseError::Record(name))?, 0);
        file.read_exact(&mut bytes)?;
        let record = CaseRecord::decode(bytes.as_slice());
        each(record.map_err(|_| CaseError::Record(name))?)?;
    }
    Ok(())
}

/// A base-128 varint of at most 32 bits.
fn varint(file: &mut impl Read) -> io::Result<Option<u32>> {
    let mut value: u32 = 0;
    for shift in [0, 7, 14, 21, 28] {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        let [byte] = byte;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
