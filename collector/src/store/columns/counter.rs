//! Counting by columns.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use prost::{DecodeError, Message as _};
use sekimori_proto::v1::{Event, Field};

use super::{Column, Columns};
use crate::limits::{COLUMN_BYTES_KEPT, COLUMN_NUMBERS_KEPT, GROUP_FIELDS_MAX};
use crate::store::block::DamagedBlock;
use crate::store::filter::Condition;
use crate::store::groups::{GroupError, Groups};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Puts the events of one block after the other into the groups of one question.
///
/// Values are decoded, asked and turned into text once for the question, whichever blocks they are in,
/// and have a number for it.
#[derive(Debug)]
pub struct Counter<'q> {
    condition: &'q Condition,
    by: Vec<Key>,
    distinct: Option<Key>,
    zone_offset_s: i32,
    columns: [Known; Column::COUNT],
    /// Groups by the numbers of their values.
    places: Map<[i64; GROUP_FIELDS_MAX], usize>,
    /// What was counted once, by the place of the group.
    different: HashSet<(usize, i64), RandomState>,
}

/// Where columns have a field.
#[derive(Clone, Copy, Debug)]
struct Key {
    field: Field,
    part: Part,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Column(Column),
    /// Parts of the time, of so many ns.
    Time(i64),
}

const HOUR_NS: i64 = 3_600_000_000_000;

impl Key {
    /// `None`: columns do not have it.
    fn of(field: Field) -> Option<Key> {
        let part = match field {
            Field::Unspecified | Field::File => return None,
            Field::Host => Part::Column(Column::Host),
            Field::User => Part::Column(Column::User),
            Field::Device => Part::Column(Column::Device),
            Field::Destination => Part::Column(Column::Destination),
            Field::Program => Part::Column(Column::Program),
            Field::Rule | Field::Kind | Field::Verdict => Part::Column(Column::Act),
            Field::Hour => Part::Time(HOUR_NS),
            Field::Day => Part::Time(24 * HOUR_NS),
        };
        Some(Key { field, part })
    }
}

/// The values of a column that were met.
#[derive(Debug, Default)]
struct Known {
    numbers: Map<Arc<[u8]>, usize>,
    values: Vec<Value>,
    /// Memory that the values take, about.
    bytes: usize,
}

/// Bytes of memory for a value besides its own.
const VALUE_BYTES: usize = 128;

#[derive(Debug)]
struct Value {
    /// An event, which is decoded again where its words are wanted: decoded it takes ten times as
    /// much memory.
    encoded: Arc<[u8]>,
    /// Whether the condition holds as far as this column is concerned.
    holds: bool,
}

impl Known {
    /// The number of a value.
    fn number(&mut self, of: Column, value: &[u8], asks: &Condition) -> Result<usize, DecodeError> {
        if let Some(number) = self.numbers.get(value) {
            return Ok(*number);
        }
        let event = Event::decode(value)?;
        let (number, holds) = (self.values.len(), asks.holds(of, &event));
        let encoded: Arc<[u8]> = value.into();
        self.numbers.insert(Arc::clone(&encoded), number);
        self.values.push(Value { encoded, holds });
        self.bytes += VALUE_BYTES + value.len();
        Ok(number)
    }
}

/// A column of a block with the numbers of its values.
struct Numbered {
    codes: Vec<u16>,
    /// By code.
    numbers: Vec<usize>,
}

impl Numbered {
    fn at(&self, row: usize) -> usize {
        let code = self.codes.get(row).copied().unwrap_or_default();
        self.numbers.get(usize::from(code)).copied().unwrap_or_default()
    }
}

/// The columns of a block that a question is about.
type Needed = [Option<Numbered>; Column::COUNT];

impl<'q> Counter<'q> {
    /// For a question; `None` when columns do not have all that it asks.
    pub fn new(condition: &'q Condition, groups: &Groups) -> Option<Counter<'q>> {
        if !condition.is_of_columns() {
            return None;
        }
        let by = groups.by().iter().map(|field| Key::of(*field)).collect::<Option<_>>()?;
        let distinct = match groups.distinct() {
            None => None,
            Some(field) => Some(Key::of(field)?),
        };
        let (columns, places, different) = Default::default();
        let zone_offset_s = groups.zone_offset_s();
        Some(Counter { condition, by, distinct, zone_offset_s, columns, places, different })
    }

    /// Puts those events of a block that match into their groups.
    ///
    /// # Errors
    /// When a column is damaged; nothing was counted then. Within, when there are too many groups.
    pub fn add(
        &mut self,
        block: &Columns,
        groups: &mut Groups,
    ) -> Result<Result<(), GroupError>, DamagedBlock> {
        let bytes: usize = self.columns.iter().map(|known| known.bytes).sum();
        let numbers = self.places.len().max(self.different.len());
        if bytes > COLUMN_BYTES_KEPT || numbers > COLUMN_NUMBERS_KEPT {
            self.forget();
        }
        let needed = self.needed(block)?;
        let rows = self.matching(block, &needed);
        Ok(self.count(block, &needed, &rows, groups))
    }

    /// Begins anew with the numbers: groups are found again by their values.
    pub(super) fn forget(&mut self) {
        self.columns = Default::default();
        self.places.clear();
        self.different.clear();
    }

    fn needed(&mut self, block: &Columns) -> Result<Needed, DamagedBlock> {
        let mut needed = Needed::default();
        let fields = || self.by.iter().chain(&self.distinct);
        for (slot, column) in needed.iter_mut().zip(Column::ALL) {
            let grouped = fields().any(|it| matches!(it.part, Part::Column(it) if it == column));
            if !grouped && !self.condition.asks(column) {
                continue;
            }
            let (codes, values) = block.column(column)?;
            let Some(known) = self.columns.get_mut(column as usize) else { continue };
            let number = |value: &Bytes| known.number(column, value, self.condition);
            let numbers = values.iter().map(number).collect::<Result<_, _>>()?;
            *slot = Some(Numbered { codes, numbers });
        }
        Ok(needed)
    }

    /// The rows that match.
    fn matching(&self, block: &Columns, needed: &Needed) -> Vec<usize> {
        let times = block.times_ns.iter().enumerate();
        let in_time = times.filter(|(_, ns)| self.condition.may_match_times(**ns, **ns));
        let mut rows: Vec<usize> = in_time.map(|(row, _)| row).collect();
        for ((column, numbered), known) in Column::ALL.into_iter().zip(needed).zip(&self.columns) {
            let Some(numbered) = numbered else { continue };
            if self.condition.asks(column) {
                let holds = |number: usize| known.values.get(number).is_some_and(|it| it.holds);
                rows.retain(|row| holds(numbered.at(*row)));
            }
        }
        rows
    }

    fn count(
        &mut self,
        block: &Columns,
        needed: &Needed,
        rows: &[usize],
        groups: &mut Groups,
    ) -> Result<(), GroupError> {
        for &row in rows {
            let of = |numbers: &[u64]| numbers.get(row).copied().unwrap_or_default();
            let time_ns = block.times_ns.get(row).copied().unwrap_or_default();
            let mut numbers = [0; GROUP_FIELDS_MAX];
            for (number, by) in numbers.iter_mut().zip(&self.by) {
                *number = self.number(*by, needed, row, time_ns);
            }
            let known = &self.columns;
            let place = match self.places.entry(numbers) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(vacant) => {
                    let by = self.by.iter().zip(numbers);
                    let values = by.map(|(by, it)| text(known, *by, it, time_ns, groups));
                    let values = values.collect();
                    *vacant.insert(groups.place(values, time_ns)?)
                }
            };
            if let Some(distinct) = self.distinct {
                let number = self.number(distinct, needed, row, time_ns);
                if self.different.insert((place, number)) {
                    groups.note(place, text(known, distinct, number, time_ns, groups))?;
                }
            }
            groups.count(place, time_ns, of(&block.bytes), of(&block.bytes_in));
        }
        Ok(())
    }

    /// The number of what an event has in a field.
    fn number(&self, Key { part, .. }: Key, needed: &Needed, row: usize, time_ns: i64) -> i64 {
        let number = match part {
            Part::Column(column) => {
                let numbered = needed.get(column as usize).and_then(Option::as_ref);
                numbered.and_then(|it| i64::try_from(it.at(row)).ok())
            }
            Part::Time(part_ns) => {
                let zone_ns = i128::from(self.zone_offset_s) * 1_000_000_000;
                let part = (i128::from(time_ns) + zone_ns).div_euclid(i128::from(part_ns));
                i64::try_from(part).ok()
            }
        };
        number.unwrap_or_default()
    }
}

/// What a number stands for, in words.
fn text(
    known: &[Known],
    Key { field, part }: Key,
    number: i64,
    time_ns: i64,
    groups: &Groups,
) -> String {
    match part {
        Part::Time(_) => groups.value(field, &Event { time_ns, ..Event::default() }),
        Part::Column(column) => {
            let values = known.get(column as usize).map(|known| &known.values);
            let number = usize::try_from(number).ok();
            let value = values.zip(number).and_then(|(values, number)| values.get(number));
            let event = value.and_then(|value| Event::decode(&*value.encoded).ok());
            event.map(|event| groups.value(field, &event)).unwrap_or_default()
        }
    }
}
