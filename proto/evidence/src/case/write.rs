//! Making a case.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use prost::Message as _;
use sekimori_proto::json;
use sekimori_proto::v1::{CaseRecord, Event};
use sha2::{Digest as _, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::read::each_record;
use super::{
    CONTEXT, CaseError, FORMAT, MANIFEST, Manifest, Member, PROOF, READABLE, RECORD_BYTES_MAX,
    RECORDS, SIGNATURE,
};
use crate::SigningKey;
use crate::text::hex;

/// Bytes of a policy's text.
const POLICY_BYTES_MAX: u64 = 64 << 20;

/// Takes records and proofs, in files of `scratch` kind, and then writes the archive.
#[derive(Debug)]
pub struct CaseWriter<F> {
    records: F,
    /// Time, cursor, place and bytes of each record.
    index: Vec<(i64, u64, u64, usize)>,
    end: u64,
    proof: F,
}

impl<F: Read + Write + Seek> CaseWriter<F> {
    /// With two empty files to keep records and proofs in.
    pub fn new(records: F, proof: F) -> CaseWriter<F> {
        CaseWriter { records, index: Vec::new(), end: 0, proof }
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.index.len() as u64
    }

    /// One record that was asked for, in any order.
    ///
    /// # Errors
    /// [`CaseError`].
    pub fn record(&mut self, record: &CaseRecord, time_ns: i64) -> Result<(), CaseError> {
        let bytes = put(&mut self.records, record)?;
        self.index.push((time_ns, record.cursor, self.end, bytes));
        self.end += bytes as u64;
        Ok(())
    }

    /// One record that proves others.
    ///
    /// # Errors
    /// [`CaseError`].
    pub fn proof(&mut self, record: &CaseRecord) -> Result<(), CaseError> {
        put(&mut self.proof, record).map(drop)
    }

    /// Writes the archive to `out`. What `manifest` says of the format, the key, the number of
    /// records and the members is filled in.
    ///
    /// # Errors
    /// [`CaseError`].
    pub fn finish<W: Write + Seek>(
        mut self,
        mut manifest: Manifest,
        key: &SigningKey,
        out: W,
    ) -> Result<W, CaseError> {
        let mut archive = Archive { zip: ZipWriter::new(out), manifest: &mut manifest };
        self.index.sort_unstable();
        let mut in_order = InOrder { records: self.records, places: self.index.iter(), left: 0 };
        archive.begin(READABLE)?;
        let mut readable = Summed::new(&mut archive.zip);
        each_record(&mut in_order, RECORDS, |record| {
            // What cannot be read is in `records.bin`, and its verification says so.
            if let Ok(mut event) = Event::decode(record.event.as_slice()) {
                event.host = record.host;
                event.cursor = record.cursor;
                serde_json::to_writer(&mut readable, &json::event(&event))?;
                readable.write_all(b"\n")?;
            }
            Ok(())
        })?;
        let member = readable.done();
        archive.end(READABLE, member);
        in_order.places = self.index.iter();
        archive.copy(RECORDS, &mut in_order)?;
        self.proof.seek(SeekFrom::Start(0))?;
        archive.copy(PROOF, &mut self.proof)?;
        self.proof.seek(SeekFrom::Start(0))?;
        let mut known = BTreeSet::new();
        each_record(&mut self.proof, PROOF, |record| {
            let event = Event::decode(record.event.as_slice()).unwrap_or_default();
            let Some(policy) = event.policy.filter(|it| known.insert(it.sha256.clone())) else {
                return Ok(());
            };
            let text = zstd::Decoder::new(policy.text_zstd.as_slice())?.take(POLICY_BYTES_MAX);
            // The name is the policy's own word and is not used as one of a file.
            archive.copy(&format!("policies/{}", known.len()), &mut { text })
        })?;
        let Archive { mut zip, .. } = archive;
        FORMAT.clone_into(&mut manifest.format);
        manifest.collector_key = hex(&key.public());
        manifest.records = self.index.len() as u64;
        let described = serde_json::to_vec_pretty(&manifest)?;
        zip.start_file(MANIFEST, options())?;
        zip.write_all(&described)?;
        zip.start_file(SIGNATURE, options())?;
        zip.write_all(&key.sign(&[CONTEXT, &described].concat()))?;
        Ok(zip.finish()?)
    }
}

fn put(file: &mut impl Write, record: &CaseRecord) -> Result<usize, CaseError> {
    let bytes = record.encode_length_delimited_to_vec();
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(CaseError::TooLarge(bytes.len()));
    }
    file.write_all(&bytes)?;
    Ok(bytes.len())
}

/// The records by time.
struct InOrder<'a, F> {
    records: F,
    places: std::slice::Iter<'a, (i64, u64, u64, usize)>,
    /// Bytes of the record that is being read.
    left: usize,
}

impl<F: Read + Seek> Read for InOrder<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some((_, _, place, bytes)) = self.places.next() else { return Ok(0) };
            self.records.seek(SeekFrom::Start(*place))?;
            self.left = *bytes;
        }
        let most = buffer.len().min(self.left);
        let read = self.records.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().large_file(true)
}

struct Archive<'a, W: Write + Seek> {
    zip: ZipWriter<W>,
    manifest: &'a mut Manifest,
}

impl<W: Write + Seek> Archive<'_, W> {
    fn begin(&mut self, name: &str) -> Result<(), CaseError> {
        Ok(self.zip.start_file(name, options())?)
    }

    fn end(&mut self, name: &str, member: Member) {
        self.manifest.files.insert(name.to_owned(), member);
    }

    fn copy(&mut self, name: &str, from: &mut impl Read) -> Result<(), CaseError> {
        self.begin(name)?;
        let mut to = Summed::new(&mut self.zip);
        io::copy(from, &mut to)?;
        let member = to.done();
        self.end(name, member);
        Ok(())
    }
}

/// Hashes and counts what is written through it.
struct Summed<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Summed<W> {
    fn new(to: W) -> Summed<W> {
        Summed { to, hash: Sha256::new(), bytes: 0 }
    }

    fn done(self) -> Member {
        Member { sha256: hex(&self.hash.finalize()), bytes: self.bytes }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
