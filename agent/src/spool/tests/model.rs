//! Random use against a list in memory. The rules it holds the spool to: what was flushed is
//! delivered in order until it is acknowledged, also after kills and power cuts; what is neither
//! acknowledged nor there any more was dropped, and the losses say exactly how many of what.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::spool::segment::{ENTRY_HEAD_BYTES, HEADER_BYTES, Piece, Scan, SegmentId};

#[derive(Clone, Debug)]
enum Step {
    Append {
        alert: bool,
        exec: bool,
        size: usize,
    },
    Flush,
    Read {
        batches: usize,
    },
    Acknowledge {
        batches: usize,
    },
    Rewind,
    Kill,
    Stop,
    /// The newest segment of a lane loses its last bytes.
    PowerCut {
        alert: bool,
        bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (any::<bool>(), any::<bool>(), 0usize..400)
            .prop_map(|(alert, exec, size)| Step::Append { alert, exec, size }),
        12 => Just(Step::Flush),
        8 => (1usize..4).prop_map(|batches| Step::Read { batches }),
        6 => (1usize..4).prop_map(|batches| Step::Acknowledge { batches }),
        2 => Just(Step::Rewind),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => (any::<bool>(), 1usize..600)
            .prop_map(|(alert, bytes)| Step::PowerCut { alert, bytes }),
    ]
}

type Key = (Lane, Position);

#[derive(Clone, Debug)]
struct Known {
    event: Event,
    size: usize,
}

struct Model {
    directory: tempfile::TempDir,
    spool: Option<Spool>,
    reader: Reader,
    epoch: u64,
    pending: Vec<(Key, Known)>,
    /// Flushed and neither dropped nor cut off.
    present: BTreeMap<Key, Known>,
    acknowledged: BTreeMap<Lane, Position>,
    read: BTreeMap<Lane, Position>,
    outstanding: VecDeque<BatchEnd>,
    lost: BTreeMap<i32, u64>,
    next_time: i64,
}

fn lane_of(alert: bool) -> Lane {
    if alert { Lane::Alerts } else { Lane::Telemetry }
}

fn segments(directory: &Path) -> Vec<(PathBuf, SegmentId)> {
    let id = |path: PathBuf| {
        let id = SegmentId::parse(path.file_name()?.to_str()?)?;
        Some((path, id))
    };
    files(directory, ".seg").into_iter().filter_map(id).collect()
}

fn on_disk(directory: &Path) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for (path, id) in segments(directory) {
        let bytes = fs::read(path).unwrap();
        for piece in Scan::segment(&id, &bytes) {
            if let Piece::Entry(entry) = piece {
                keys.insert((id.lane, id.position(entry.sequence)));
            }
        }
    }
    keys
}

impl Model {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Self {
            directory,
            spool: None,
            reader: Reader::default(),
            epoch: 0,
            pending: Vec::new(),
            present: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            read: BTreeMap::new(),
            outstanding: VecDeque::new(),
            lost: BTreeMap::new(),
            next_time: 1,
        };
        model.start(true);
        model
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn start(&mut self, clean: bool) {
        let (spool, report) = open(self.directory.path(), SMALL);
        self.epoch += 1;
        assert_eq!(spool.epoch, self.epoch);
        assert_eq!(report.clean, clean);
        assert_eq!(report.damaged_bytes, 0);
        let waiting = self.waiting(Lane::Telemetry).len() + self.waiting(Lane::Alerts).len();
        assert_eq!(report.waiting_events, waiting as u64);
        self.reader = Reader::new(&spool);
        self.spool = Some(spool);
        self.read = self.acknowledged.clone();
        self.outstanding.clear();
        self.pending.clear();
    }

    fn done(&self, lane: Lane) -> Position {
        self.acknowledged.get(&lane).copied().unwrap_or_default()
    }

    /// Present, not acknowledged, in order.
    fn waiting(&self, lane: Lane) -> Vec<(Position, &Known)> {
        let done = self.done(lane);
        let lane = self.present.iter().filter(|((known, _), _)| *known == lane);
        lane.filter(|((_, at), _)| *at > done).map(|((_, at), known)| (*at, known)).collect()
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { alert, exec, size } => self.append(lane_of(*alert), *exec, *size),
            Step::Flush => self.flush(),
            Step::Read { batches } => (0..*batches).for_each(|_| {
                self.read_one();
            }),
            Step::Acknowledge { batches } => (0..*batches).for_each(|_| self.acknowledge()),
            Step::Rewind => self.rewind(),
            Step::Kill => {
                self.spool = None;
                self.start(false);
            }
            Step::Stop => {
                self.flush();
                self.spool.take().unwrap().close().unwrap();
                self.start(true);
            }
            Step::PowerCut { alert, bytes } => self.power_cut(lane_of(*alert), *bytes),
        }
        let lost = self.lost.clone();
        let spool = self.spool();
        assert_eq!(losses(spool), lost);
        let stats = spool.stats();
        assert!(stats.telemetry_bytes <= SMALL.telemetry_bytes_max, "{stats:?}");
        assert!(stats.alert_bytes <= SMALL.alert_bytes_max, "{stats:?}");
    }

    fn append(&mut self, lane: Lane, exec: bool, size: usize) {
        let kind = if exec { Kind::Exec } else { Kind::NetUpload };
        let event = event(kind, self.next_time, size);
        self.next_time += 1;
        let sequence = self.spool().append(lane, &event).unwrap();
        let size = ENTRY_HEAD_BYTES + event.encoded_len();
        let position = Position { epoch: self.epoch, sequence };
        self.pending.push(((lane, position), Known { event, size }));
    }

    fn flush(&mut self) {
        self.spool().flush().unwrap();
        self.present.extend(self.pending.drain(..));
        let there = on_disk(self.directory.path());
        let done = self.acknowledged.clone();
        let lost = &mut self.lost;
        self.present.retain(|key, known| {
            let (lane, position) = key;
            let finished = *position <= done.get(lane).copied().unwrap_or_default();
            if !there.contains(key) && !finished {
                *lost.entry(known.event.kind).or_default() += 1;
            }
            there.contains(key)
        });
    }

    fn read_one(&mut self) -> bool {
        let mut reader = std::mem::take(&mut self.reader);
        let batch = reader.next_batch(self.spool());
        self.reader = reader;
        let Some(batch) = batch else {
            for lane in Lane::ALL {
                let read = self.read.get(&lane).copied().unwrap_or_default();
                assert!(self.waiting(lane).iter().all(|(at, _)| *at <= read), "{lane:?}");
            }
            return false;
        };
        let lane = batch.lane;
        let read = self.read.get(&lane).copied().unwrap_or_default();
        let expected: Vec<(u64, Event)> = self
            .waiting(lane)
            .into_iter()
            .filter(|(at, _)| *at > read)
            .map(|(at, known)| (at.sequence, known.event.clone()))
            .take(batch.entries.len())
            .collect();
        let got: Vec<(u64, Event)> = batch
            .entries
            .iter()
            .map(|entry| (entry.sequence, Event::decode(&*entry.payload).unwrap()))
            .collect();
        assert_eq!(got, expected);
        assert!(!got.is_empty());
        self.read.insert(lane, batch.end.position);
        self.outstanding.push_back(batch.end);
        true
    }

    fn acknowledge(&mut self) {
        let Some(end) = self.outstanding.pop_front() else {
            return;
        };
        self.spool().acknowledge(end).unwrap();
        let done = self.acknowledged.entry(end.lane).or_default();
        *done = (*done).max(end.position);
    }

    fn rewind(&mut self) {
        let mut reader = std::mem::take(&mut self.reader);
        reader.rewind(self.spool());
        self.reader = reader;
        self.read = self.acknowledged.clone();
        self.outstanding.clear();
    }

    fn power_cut(&mut self, lane: Lane, bytes: usize) {
        self.spool = None;
        let newest = segments(self.directory.path())
            .into_iter()
            .rfind(|(_, id)| id.lane == lane && id.epoch == self.epoch);
        if let Some((path, id)) = newest {
            let length = fs::metadata(&path).unwrap().len() as usize;
            let length = length.saturating_sub(bytes);
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
            let mut end = HEADER_BYTES;
            let (lane, first) = (id.lane, id.position(id.first_sequence));
            self.present.retain(|(known_lane, at), known| {
                let inside = *known_lane == lane && *at >= first;
                end += if inside { known.size } else { 0 };
                !inside || end <= length
            });
        }
        self.start(false);
    }

    /// In the end everything that is left is delivered and can be acknowledged.
    fn finish(&mut self) {
        self.apply(&Step::Flush);
        self.rewind();
        while self.read_one() {}
        while !self.outstanding.is_empty() {
            self.acknowledge();
        }
        for lane in Lane::ALL {
            assert!(self.waiting(lane).is_empty());
            assert!(self.spool().lane(lane).segments.len() <= 1, "{lane:?}");
        }
        assert_eq!(self.spool().stats().unacknowledged_bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_the_model_does(steps in prop::collection::vec(step(), 1..250)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.finish();
    }
}
