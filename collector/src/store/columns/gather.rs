//! Making columns.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use prost::{DecodeError, Message as _};
use sekimori_proto::v1::Event;
use zstd::bulk::Compressor;

use super::parts::{self, Parts};
use super::{Body, Coded, Column, width};
use crate::limits::COLUMN_DECODED_MAX;
use crate::store::block::{DamagedBlock, Placed};
use crate::store::groups::{bytes_in_of, bytes_of};

/// Makes the columns of one block after the other, and keeps its memory.
#[derive(Debug, Default)]
pub struct Gatherer {
    columns: [Gathered; Column::COUNT],
    body: Body,
    time_ns: i64,
    decoded: usize,
}

/// One column under way.
#[derive(Debug, Default)]
struct Gathered {
    places: HashMap<Vec<u8>, u16, RandomState>,
    values: Vec<bytes::Bytes>,
    codes: Vec<u16>,
    key: Vec<u8>,
    /// Key and code of the row before, which is often the same.
    before: (Vec<u8>, u16),
}

impl Gatherer {
    /// The columns of these events, packed. `None`: too many of the events would have to be decoded,
    /// for which the writer has no time; whoever sends such events has slower answers for it.
    ///
    /// # Errors
    /// When an event cannot be decoded, or for want of memory.
    pub fn pack(
        &mut self,
        compressor: &mut Compressor<'_>,
        events: &[&Placed],
    ) -> Result<Option<Vec<u8>>, DamagedBlock> {
        self.columns.iter_mut().for_each(Gathered::clear);
        self.body = Body::default();
        (self.time_ns, self.decoded) = (0, 0);
        for placed in events {
            self.add(placed)?;
            if self.decoded > COLUMN_DECODED_MAX {
                return Ok(None);
            }
        }
        let mut body = std::mem::take(&mut self.body);
        body.columns = self.columns.iter_mut().map(Gathered::coded).collect();
        Ok(Some(compressor.compress(&body.encode_to_vec())?))
    }

    fn add(&mut self, Placed { host, entry, .. }: &Placed) -> Result<(), DamagedBlock> {
        let columns = Column::ALL.into_iter().zip(&mut self.columns);
        let (bytes, bytes_in) = if let Some(parts) = Parts::of(host, &entry.body) {
            for (column, gathered) in columns {
                gathered.key.push(IN_PARTS);
                parts.key(column, &mut gathered.key);
                gathered.add(|| parts.value(column))?;
            }
            parts.bytes()
        } else {
            self.decoded += 1;
            let event = Event { host: host.to_string(), ..Event::decode(entry.body.as_ref())? };
            for (column, gathered) in columns {
                let value = parts::value_of(column, &event);
                gathered.key.push(DECODED);
                gathered.key.extend_from_slice(&value.encode_to_vec());
                gathered.add(|| Ok(value))?;
            }
            (bytes_of(&event), bytes_in_of(&event))
        };
        self.body.time_steps.push(entry.time_ns.wrapping_sub(self.time_ns));
        self.time_ns = entry.time_ns;
        self.body.bytes.push(bytes);
        self.body.bytes_in.push(bytes_in);
        Ok(())
    }
}

/// How a key begins. The same value may have one of each; it has two numbers then.
const IN_PARTS: u8 = 0;
const DECODED: u8 = 1;

impl Gathered {
    /// Adds the value whose key was written.
    fn add(
        &mut self,
        value: impl FnOnce() -> Result<Event, DecodeError>,
    ) -> Result<(), DamagedBlock> {
        let (key_before, code_before) = &self.before;
        let code = if !self.values.is_empty() && *key_before == self.key {
            *code_before
        } else if let Some(code) = self.places.get(&self.key) {
            *code
        } else {
            let code = u16::try_from(self.values.len()).map_err(|_| DamagedBlock::Columns)?;
            self.values.push(value()?.encode_to_vec().into());
            self.places.insert(self.key.clone(), code);
            code
        };
        self.codes.push(code);
        std::mem::swap(&mut self.before.0, &mut self.key);
        self.before.1 = code;
        self.key.clear();
        Ok(())
    }

    fn coded(&mut self) -> Coded {
        let codes = match width(self.values.len()) {
            0 => Vec::new(),
            1 => self.codes.iter().map(|code| code.to_le_bytes()[0]).collect(),
            _ => self.codes.iter().flat_map(|code| code.to_le_bytes()).collect(),
        };
        Coded { values: std::mem::take(&mut self.values), codes: codes.into() }
    }

    fn clear(&mut self) {
        self.places.clear();
        self.values.clear();
        self.codes.clear();
        self.key.clear();
    }
}
