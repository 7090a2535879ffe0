//! Opening a spool: what earlier starts left is checked, repaired and kept for sending.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::assess::{Assessment, assess};
use super::cursor::{self, TEMPORARY_SUFFIX};
use super::drop::parse_tombstone;
use super::loss::{Ledger, SpoolLoss, Stand};
use super::segment::{ENTRY_HEAD_BYTES, Entry, HEADER_BYTES, Piece, Scan, SegmentId};
use super::store::{LaneState, Segment, Spool};
use super::{Boot, Lane, Position, SpoolConfig, SpoolError};
use crate::limits;

const LOCK_FILE: &str = "lock";
const UNREPORTED_SUFFIX: &str = ".corrupt-unreported";
const CORRUPT_SUFFIX: &str = ".corrupt";

/// What was found when a spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The directory had never been used.
    pub fresh: bool,
    /// The last start ended in order (or there was none). When false, nothing was recorded from
    /// `last_record_time_ns` until now: that gap is to be recorded.
    pub clean: bool,
    /// Time of the newest event found, UTC ns since 1970. None when everything was acknowledged.
    pub last_record_time_ns: Option<i64>,
    /// What is known to be lost. It already waits for [`Spool::record_losses`]; do not record it
    /// a second time.
    pub losses: Vec<SpoolLoss>,
    /// Events of earlier starts that are still to be sent.
    pub waiting_events: u64,
    /// Bytes cut off behind the last whole entry of a segment that was being written.
    pub torn_bytes: u64,
    /// Bytes that were neither entries nor such an end.
    pub damaged_bytes: u64,
    /// Copies of damaged segments, kept for a person to look at.
    pub quarantined: Vec<PathBuf>,
}

/// Names found in the directory.
#[derive(Default)]
struct Found {
    segments: Vec<SegmentId>,
    tombstones: Vec<(PathBuf, Vec<(i32, u64)>)>,
    unreported: Vec<(PathBuf, SegmentId)>,
    corrupt: Vec<PathBuf>,
}

impl Spool {
    /// Opens the spool in `directory`, which is made when it does not exist, and begins a new boot.
    ///
    /// # Errors
    /// Another agent uses it, or the directory cannot be used at all. Damaged files are no error;
    /// they are in the report.
    pub fn open(
        directory: &Path,
        config: SpoolConfig,
    ) -> Result<(Self, RecoveryReport), SpoolError> {
        let lock = lock(directory)?;
        let found = list(directory)?;
        let last_epoch = cursor::read_epoch(directory);
        let clean = cursor::take_clean(directory);
        let mut report = RecoveryReport {
            fresh: last_epoch == 0 && found.segments.is_empty(),
            ..RecoveryReport::default()
        };
        report.clean = report.fresh || clean.is_some_and(|mark| mark.epoch == last_epoch);
        let mut lanes = [LaneState::default(), LaneState::default()];
        let mut epoch = found.segments.iter().fold(last_epoch, |epoch, id| epoch.max(id.epoch));
        for (lane, state) in Lane::ALL.into_iter().zip(&mut lanes) {
            state.acknowledged = cursor::read_acknowledged(directory, lane);
            state.sent = state.acknowledged;
            epoch = epoch.max(state.acknowledged.epoch);
        }
        let epoch = epoch.saturating_add(1);
        // A full disk must not keep the agent from starting. The number is then found again from
        // the segments and the acknowledged positions.
        if let Err(error) = cursor::write_epoch(directory, epoch) {
            tracing::warn!(%error, "the spool's start cannot be written down");
        }
        let mut recovery = Recovery { directory, report, ledger: Ledger::default(), newest: None };
        recovery.segments(&found.segments, &mut lanes);
        recovery.losses(&found, &lanes);
        let Recovery { mut report, ledger, newest, .. } = recovery;
        report.losses = ledger.waiting();
        report.last_record_time_ns = newest.and_then(|(_, time_ns)| time_ns);
        let mut spool = Self {
            directory: directory.into(),
            config,
            _lock: lock,
            epoch,
            boot: random_boot()?,
            next_sequence: 1,
            lanes,
            ledger,
            directory_changed: true,
            dropped: 0,
            signer: None,
        };
        Lane::ALL.into_iter().for_each(|lane| spool.reap(lane));
        Ok((spool, report))
    }
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(SpoolError::storage("make the directory", directory))?;
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(SpoolError::storage("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked { directory: directory.into() }),
        Err(TryLockError::Error(source)) => {
            Err(SpoolError::Storage { action: "lock", path, source })
        }
    }
}

fn random_boot() -> Result<Boot, SpoolError> {
    let mut boot = Boot::default();
    getrandom::fill(&mut boot)
        .map_err(|error| SpoolError::Random { message: error.to_string() })?;
    Ok(boot)
}

fn list(directory: &Path) -> Result<Found, SpoolError> {
    let error = || SpoolError::storage("list", directory);
    let mut found = Found::default();
    for entry in fs::read_dir(directory).map_err(error())? {
        let entry = entry.map_err(error())?;
        let (name, path) = (entry.file_name(), entry.path());
        // Whatever is not named as we name things is not ours.
        let Some(name) = name.to_str() else { continue };
        if let Some(id) = SegmentId::parse(name) {
            found.segments.push(id);
        } else if let Some(counts) = parse_tombstone(name) {
            found.tombstones.push((path, counts));
        } else if let Some(base) = name.strip_suffix(UNREPORTED_SUFFIX) {
            found.unreported.extend(SegmentId::parse(base).map(|id| (path, id)));
        } else if name.ends_with(CORRUPT_SUFFIX) {
            found.corrupt.push(path);
        } else if name.ends_with(TEMPORARY_SUFFIX) {
            let _ = fs::remove_file(path);
        }
    }
    found.segments.sort_by_key(|id| (id.epoch, id.lane, id.first_sequence));
    found.corrupt.sort();
    Ok(found)
}

/// State while segments are checked.
struct Recovery<'a> {
    directory: &'a Path,
    report: RecoveryReport,
    ledger: Ledger,
    newest: Option<(Position, Option<i64>)>,
}

impl Recovery<'_> {
    fn segments(&mut self, ids: &[SegmentId], lanes: &mut [LaneState; 2]) {
        for (lane, state) in Lane::ALL.into_iter().zip(lanes) {
            let mut ids = ids.iter().filter(|id| id.lane == lane).peekable();
            while let Some(id) = ids.next() {
                let newest = ids.peek().is_none_or(|next| next.epoch != id.epoch);
                let path = self.directory.join(id.file_name());
                match self.segment(id, &path, state.acknowledged, newest) {
                    Ok(Some(segment)) => {
                        state.bytes += segment.length;
                        state.segments.push_back(segment);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "unreadable spool segment");
                        let reason = format!("spool segment unreadable: {}", error.kind());
                        self.ledger.add_spool(0, 0, reason);
                    }
                }
            }
        }
    }

    /// Checks one segment. `newest`: it was the one being written when its boot ended.
    fn segment(
        &mut self,
        id: &SegmentId,
        path: &Path,
        acknowledged: Position,
        newest: bool,
    ) -> std::io::Result<Option<Segment>> {
        let (file, bytes) = read(path)?;
        let mut found = assess(id, &bytes, acknowledged);
        self.seen(id, &found);
        let torn = bytes.len() as u64 - found.good_bytes;
        let only_torn = match found.damage.as_slice() {
            [] => !found.damaged,
            [damage] => newest && damage.entries.is_none() && damage.offset == found.good_bytes,
            _ => false,
        };
        if only_torn && torn > 0 {
            self.report.torn_bytes += torn;
            if found.good_bytes > 0 {
                let reason = "cut off in the middle of a write, number of events unknown";
                self.ledger.add_spool(0, 0, reason);
            }
            file.set_len(found.good_bytes)?;
        }
        if !newest && !found.sealed && !found.damaged {
            // Its end is missing although a later segment is there; a power cut can do that.
            let reason = "a segment ended early, number of events unknown";
            self.ledger.add_spool(0, 0, reason);
            let mut seal = &file;
            seal.seek(SeekFrom::End(0))?;
            let sequence = found.last.map_or(id.first_sequence, |(last, _)| last + 1);
            seal.write_all(&id.seal(sequence, found.next_ordinal))?;
            found.good_bytes += ENTRY_HEAD_BYTES as u64;
        }
        if found.last.is_none() && only_torn {
            fs::remove_file(path)?;
            return Ok(None);
        }
        let mut damage = Vec::new();
        if !only_torn {
            match self.repair(id, path, &bytes) {
                Ok(None) => return Ok(None),
                Ok(Some(repaired)) => {
                    let (file, bytes) = read(path)?;
                    found = assess(id, &bytes, acknowledged);
                    return Ok(Some(keep(id, path, file, &found, repaired)));
                }
                // No room for a repaired copy: the reader finds its way through the damage.
                Err(error) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "a damaged spool segment cannot be repaired");
                    found.damage.iter().for_each(|damage| damage.count(&mut self.ledger));
                    damage = found.damage.iter().map(|damage| damage.offset).collect();
                    found.good_bytes = bytes.len() as u64;
                }
            }
        }
        let length = found.good_bytes;
        let mut segment = keep(id, path, file, &found, length);
        segment.damage = damage;
        Ok(Some(segment))
    }

    fn seen(&mut self, id: &SegmentId, found: &Assessment) {
        self.report.waiting_events += found.counts.values().sum::<u64>();
        if let Some((sequence, time_ns)) = found.last {
            self.newest = self.newest.max(Some((id.position(sequence), time_ns)));
        }
    }

    /// Puts a copy of a damaged segment aside and leaves its whole entries under its name.
    /// Returns the new length; none when nothing was left.
    fn repair(
        &mut self,
        id: &SegmentId,
        path: &Path,
        bytes: &[u8],
    ) -> std::io::Result<Option<u64>> {
        let aside = with_suffix(path, UNREPORTED_SUFFIX);
        match fs::hard_link(path, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut good = id.header().to_vec();
        let (mut ordinal, mut last) = (0, id.first_sequence);
        for piece in Scan::segment(id, bytes) {
            let Piece::Entry(entry) = piece else { continue };
            id.encode(&mut good, &Entry { ordinal, ..entry });
            ordinal += 1;
            last = entry.sequence;
        }
        if ordinal == 0 {
            fs::remove_file(path)?;
            return Ok(None);
        }
        good.extend_from_slice(&id.seal(last + 1, ordinal));
        let temporary = with_suffix(path, TEMPORARY_SUFFIX);
        fs::write(&temporary, &good)?;
        File::open(&temporary)?.sync_data()?;
        fs::rename(&temporary, path)?;
        Ok(Some(good.len() as u64))
    }

    /// Losses that stand in the directory: dropped segments and damaged ones whose Loss events
    /// were not on disk yet, those of this start included.
    fn losses(&mut self, found: &Found, lanes: &[LaneState; 2]) {
        for (path, counts) in &found.tombstones {
            for (kind, count) in counts {
                self.ledger.add_spool(*kind, *count, "dropped before the agent was restarted");
            }
            self.ledger.stand(Stand::Remove(path.clone()));
        }
        let mut unreported = found.unreported.clone();
        for id in &found.segments {
            let path = with_suffix(&self.directory.join(id.file_name()), UNREPORTED_SUFFIX);
            let new = unreported.iter().all(|(known, _)| *known != path);
            if new && path.exists() {
                unreported.push((path, *id));
            }
        }
        let mut corrupt = found.corrupt.clone();
        for (path, id) in unreported {
            let acknowledged = match (id.lane, lanes) {
                (Lane::Telemetry, [telemetry, _]) => telemetry.acknowledged,
                (Lane::Alerts, [_, alerts]) => alerts.acknowledged,
            };
            match read(&path) {
                Ok((_, bytes)) => {
                    for damage in assess(&id, &bytes, acknowledged).damage {
                        self.report.damaged_bytes += damage.bytes;
                        damage.count(&mut self.ledger);
                    }
                }
                Err(error) => {
                    let reason = format!("spool segment unreadable: {}", error.kind());
                    self.ledger.add_spool(0, 0, reason);
                }
            }
            let kept = with_suffix(&self.directory.join(id.file_name()), CORRUPT_SUFFIX);
            self.ledger.stand(Stand::Rename(path, kept.clone()));
            self.report.quarantined.push(kept.clone());
            corrupt.push(kept);
        }
        let surplus = corrupt.len().saturating_sub(limits::CORRUPT_FILES_MAX);
        for path in corrupt.iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

fn keep(id: &SegmentId, path: &Path, file: File, found: &Assessment, length: u64) -> Segment {
    Segment {
        id: *id,
        path: path.into(),
        file: Arc::new(file),
        length: length.max(HEADER_BYTES as u64),
        last_sequence: found.last.map_or(id.first_sequence.saturating_sub(1), |(last, _)| last),
        next_ordinal: found.next_ordinal,
        // An earlier boot's segment is never continued.
        sealed: true,
        unsynced: false,
        acknowledged_bytes: found.acknowledged_bytes,
        created: Instant::now(),
        damage: Vec::new(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read(path: &Path) -> std::io::Result<(File, Vec<u8>)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    // More than any segment we wrote: what is behind cannot be ours.
    (&file).take(2 * limits::SEGMENT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}
