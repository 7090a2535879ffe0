//! Signatures over what is spooled.
//!
//! Each event is noted when it gets its number. After some hundred of them, or a minute, what is
//! noted is signed, and the signature is an event itself ([`sekimori_evidence`] says how they
//! make a chain). What is noted and not signed yet lies in the file `chain`, which is written behind
//! each flush: the next start signs what an agent that was killed has left. It is
//!
//! ```text
//! header  magic 8 | version u32 | epoch u64 | boot 16 | link number u64 | link SHA-256 32
//!         | first sequence u64 | crc u32
//! entry   digest 16 | crc u32
//! ```
//!
//! with all numbers little-endian; an entry's CRC-32 goes over its sequence and digest. The key is
//! in `evidence.key`. Where there is a key and no chain, the chain was lost, and a new one begins
//! with a new key: two links of one key never have the same number.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use sekimori_evidence::{Chain, DIGEST_BYTES, Digest, Head, Name, Signed, SigningKey, digest};
use sekimori_proto::v1::{Event, Kind, Verdict};

use super::cursor::TEMPORARY_SUFFIX;
use super::segment::{Piece, Scan};
use super::store::{Spool, write_at};
use super::{Boot, Lane, SpoolError};
use crate::limits::{CHECKPOINT_AGE_MAX, CHECKPOINT_EVENTS, CHECKPOINT_EVENTS_MAX};

const KEY_FILE: &str = "evidence.key";
const KEY_BEFORE_FILE: &str = "evidence.key.before";
const CHAIN_FILE: &str = "chain";
const MAGIC: &[u8; 8] = b"SEKICHN\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 88;
const ENTRY_BYTES: usize = DIGEST_BYTES + 4;

/// Notes and signs.
#[derive(Debug)]
pub(super) struct Signer {
    key: SigningKey,
    epoch: u64,
    chain: Chain,
    /// Of earlier starts, to be signed first.
    left: VecDeque<Chain>,
    /// When the first event came that is not signed yet and is more than a signature.
    since: Option<Instant>,
    directory: PathBuf,
    /// The file, and how many of the chain's digests are in it; none when it is to be made anew.
    file: Option<(Arc<File>, usize)>,
    unsynced: bool,
    buffer: Vec<u8>,
}

impl Signer {
    fn note(&mut self, sequence: u64, (lane, kind): (Lane, i32), payload: &[u8]) {
        self.buffer.clear();
        let lane = lane.number();
        Name { boot: self.chain.boot(), sequence, lane }.encode(&mut self.buffer);
        self.chain.note(sequence, digest(&[payload, &self.buffer], lane));
        if self.since.is_none() && kind != i32::from(Kind::Checkpoint) {
            self.since = Some(Instant::now());
        }
    }

    fn is_due(&self) -> bool {
        let old = self.since.is_some_and(|since| since.elapsed() >= CHECKPOINT_AGE_MAX);
        !self.left.is_empty() || old || self.chain.digests().len() >= CHECKPOINT_EVENTS
    }

    /// What is noted is in the file when this returns, unless the disk refuses.
    fn keep(&mut self) -> io::Result<()> {
        if !self.left.is_empty() {
            return Ok(());
        }
        let (file, kept) = match self.file.take() {
            Some(open) => open,
            None => (Arc::new(self.begin_file()?), 0),
        };
        self.buffer.clear();
        let first = self.chain.first() + kept as u64;
        for (sequence, digest) in (first..).zip(self.chain.digests().iter().skip(kept)) {
            self.buffer.extend_from_slice(digest);
            self.buffer.extend_from_slice(&entry_sum(sequence, digest).to_le_bytes());
        }
        let offset = (HEADER_BYTES + kept * ENTRY_BYTES) as u64;
        let (_, result) = write_at(&file, &self.buffer, offset);
        result?;
        self.unsynced |= !self.buffer.is_empty();
        self.file = Some((file, self.chain.digests().len()));
        Ok(())
    }

    fn begin_file(&mut self) -> io::Result<File> {
        let path = self.directory.join(CHAIN_FILE);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY_SUFFIX);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        write_at(&file, &header(self.epoch, &self.chain), 0).1?;
        fs::rename(&temporary, &path)?;
        self.unsynced = true;
        Ok(file)
    }
}

impl Spool {
    /// From here on what is appended is signed. Call it before anything is; what earlier starts
    /// left unsigned is signed at the first flush.
    ///
    /// # Errors
    /// There is no key and none can be made, or the spool cannot be read.
    pub fn sign(&mut self) -> Result<(), SpoolError> {
        let chain_path = self.directory.join(CHAIN_FILE);
        let kept = match fs::read(&chain_path) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(SpoolError::storage("read", chain_path)(error)),
        };
        let key_path = self.directory.join(KEY_FILE);
        if kept.is_none() && key_path.exists() {
            tracing::warn!("the chain of signatures was lost: a new one begins, with a new key");
            let before = self.directory.join(KEY_BEFORE_FILE);
            fs::rename(&key_path, before).map_err(SpoolError::storage("move", &key_path))?;
        }
        let key = SigningKey::open(&key_path)?;
        let (head, left) = match kept {
            None => (Head::default(), VecDeque::new()),
            Some(kept) => self.left_unsigned(&key, kept),
        };
        self.signer = Some(Signer {
            key,
            epoch: self.epoch,
            chain: Chain::new(&self.boot, head, 1),
            left,
            since: None,
            directory: self.directory.clone(),
            file: None,
            unsynced: false,
            buffer: Vec::new(),
        });
        Ok(())
    }

    /// What is in the segments behind what the chain knows: the last flush of a killed agent, and
    /// whole starts that were killed at their first.
    fn left_unsigned(&self, key: &SigningKey, kept: Kept) -> (Head, VecDeque<Chain>) {
        let Kept { epoch, boot, mut chain } = kept;
        let mut found = Vec::new();
        for segment in self.lanes.iter().flat_map(|lane| &lane.segments) {
            let own = segment.id.boot == boot && segment.last_sequence >= chain.next();
            if own || segment.id.epoch > epoch {
                found.push((segment.id.epoch, segment));
            }
        }
        found.sort_by_key(|(epoch, _)| *epoch);
        let mut boots: Vec<(Boot, Vec<Noted>)> = vec![(boot, Vec::new())];
        for (_, segment) in found {
            if boots.last().is_none_or(|(boot, _)| *boot != segment.id.boot) {
                boots.push((segment.id.boot, Vec::new()));
            }
            let Some((_, noted)) = boots.last_mut() else { continue };
            // What cannot be read is reported by those who look for damage.
            let bytes = segment.read(0, u64::MAX).unwrap_or_default();
            for piece in Scan::segment(&segment.id, &bytes) {
                let Piece::Entry(entry) = piece else { continue };
                let (sequence, lane) = (entry.sequence, segment.id.lane.number());
                let name = Name { boot: &segment.id.boot, sequence, lane }.encoded();
                let digest = digest(&[entry.payload, &name], lane);
                let link = (entry.kind == i32::from(Kind::Checkpoint))
                    .then(|| Event::decode(entry.payload).ok()?.checkpoint)
                    .flatten()
                    .and_then(|it| Signed::open(&it).ok())
                    .filter(|it| it.key == key.public());
                noted.push(Noted { sequence, digest, link });
            }
        }
        let mut head = chain.head();
        let mut left = VecDeque::new();
        for (index, (boot, mut noted)) in boots.into_iter().enumerate() {
            noted.sort_by_key(|it| it.sequence);
            if index > 0 {
                left.push_back(chain);
                chain = Chain::new(&boot, head, 1);
            }
            for Noted { sequence, digest, link } in noted {
                let next = chain.next();
                if sequence >= next {
                    chain.note(sequence, digest);
                }
                let Some(link) = link.filter(|it| it.statement.number == head.number + 1) else {
                    continue;
                };
                head = Head { number: link.statement.number, sha256: link.sha256 };
                let count = usize::try_from(link.count()).unwrap_or(usize::MAX);
                // It may sign what an earlier start has left.
                let all = left.iter_mut().chain(std::iter::once(&mut chain));
                for signed in all.filter(|it| it.boot() == link.statement.boot) {
                    signed.signed(head, count);
                }
            }
        }
        left.push_back(chain);
        left.retain(|it| !it.digests().is_empty());
        (head, left)
    }

    /// Notes what was appended under this number, from `start` of the lane's buffer on.
    pub(super) fn note(&mut self, sequence: u64, (lane, kind): (Lane, i32), start: usize) {
        let [telemetry, alerts] = &self.lanes;
        let state = match lane {
            Lane::Telemetry => telemetry,
            Lane::Alerts => alerts,
        };
        if let Some(signer) = &mut self.signer {
            let payload = state.buffer.get(start..).unwrap_or_default();
            signer.note(sequence, (lane, kind), payload);
        }
    }

    /// Appends a signature over what was appended so far, when it is time for one, or `now`.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn checkpoint(&mut self, time_ns: i64, now: bool) -> Result<(), SpoolError> {
        loop {
            let Some(signer) = &mut self.signer else { return Ok(()) };
            let due = signer.is_due() || (now && signer.since.is_some());
            if !due {
                return Ok(());
            }
            let head = signer.chain.head();
            let (chain, dropped) = match signer.left.front_mut() {
                Some(left) => (left, 0),
                None => (&mut signer.chain, self.dropped),
            };
            chain.signed(head, 0);
            let count = chain.digests().len().min(CHECKPOINT_EVENTS_MAX);
            let (checkpoint, head) = chain.sign(&signer.key, count, time_ns, dropped);
            chain.signed(head, count);
            if signer.left.front().is_some_and(|left| left.digests().is_empty()) {
                signer.left.pop_front();
            }
            signer.chain.signed(head, 0);
            if signer.chain.digests().is_empty() {
                signer.since = None;
            }
            signer.file = None;
            let event = Event {
                time_ns,
                kind: Kind::Checkpoint.into(),
                verdict: Verdict::Allowed.into(),
                lane: Lane::Alerts.number(),
                checkpoint: Some(checkpoint),
                ..Event::default()
            };
            self.append(Lane::Alerts, &event)?;
        }
    }

    /// What is noted survives this agent.
    pub(super) fn keep_chain(&mut self) {
        if let Some(signer) = &mut self.signer
            && let Err(error) = signer.keep()
        {
            // The next flush tries again, with a new file.
            tracing::warn!(%error, "what is to be signed could not be noted on disk");
        }
    }

    /// The file with what is noted, when it is to be synced.
    pub(super) fn unsynced_chain(&mut self) -> Option<Arc<File>> {
        let signer = self.signer.as_mut()?;
        let unsynced = std::mem::take(&mut signer.unsynced);
        let (file, _) = signer.file.as_ref().filter(|_| unsynced)?;
        Some(Arc::clone(file))
    }
}

/// An entry of a segment.
struct Noted {
    sequence: u64,
    digest: Digest,
    link: Option<Signed>,
}

fn header(epoch: u64, chain: &Chain) -> [u8; HEADER_BYTES] {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    bytes.extend_from_slice(chain.boot());
    bytes.extend_from_slice(&chain.head().number.to_le_bytes());
    bytes.extend_from_slice(&chain.head().sha256);
    bytes.extend_from_slice(&chain.first().to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let mut header = [0; HEADER_BYTES];
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    header
}

fn entry_sum(sequence: u64, digest: &Digest) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&sequence.to_le_bytes());
    crc.update(digest);
    crc.finalize()
}

/// What the file says.
struct Kept {
    epoch: u64,
    boot: Boot,
    chain: Chain,
}

/// The chain in a file, as far as it is whole; none when its header is not.
fn parse(bytes: &[u8]) -> Option<Kept> {
    let (header, entries) = bytes.split_at_checked(HEADER_BYTES)?;
    let (fields, crc) = header.split_last_chunk::<4>()?;
    if crc32fast::hash(fields) != u32::from_le_bytes(*crc) {
        return None;
    }
    let rest = fields.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (epoch, rest) = rest.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (sha256, rest) = rest.split_first_chunk::<32>()?;
    let first = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    let head = Head { number: u64::from_le_bytes(*number), sha256: *sha256 };
    let mut chain = Chain::new(boot, head, first);
    for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
        let (digest, crc) = entry.split_first_chunk::<DIGEST_BYTES>()?;
        let sequence = chain.next();
        if entry_sum(sequence, digest).to_le_bytes() != crc {
            break;
        }
        chain.note(sequence, *digest);
    }
    Some(Kept { epoch: u64::from_le_bytes(*epoch), boot: *boot, chain })
}
