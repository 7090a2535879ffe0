//! Columns: what questions that count want of the events of a block, without the events.
//!
//! Of each event they have the time, the bytes, and by numbers the few things that groups are made
//! by. What a number stands for is in the block's columns as well, once, and is an encoded event that
//! has nothing else in it: what holds for that holds for every event with the number. So a question is
//! asked of some hundred values instead of a thousand events, and none of those is decoded.
//!
//! They are made when blocks are joined. A block without them, or with damaged ones, is read itself.

mod counter;
mod gather;
mod parts;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;
use sekimori_proto::v1::Event;

pub use counter::Counter;
pub use gather::Gatherer;

use super::block::{Block, DamagedBlock, Unpacker};
use super::groups::{bytes_in_of, bytes_of};

/// What events are told apart by. The order is that of the columns in a block, so it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Whose event it is.
    Host,
    /// Name, login name, uid and login uid of the process.
    User,
    /// Path of its executable.
    Program,
    /// Of the file, and the one that came or went.
    Device,
    /// Address, path and names.
    Destination,
    /// Kind, operation, verdict and rule.
    Act,
}

impl Column {
    /// How many there are.
    const COUNT: usize = 6;
    /// All of them, in their order.
    pub const ALL: [Column; Column::COUNT] = [
        Column::Host,
        Column::User,
        Column::Program,
        Column::Device,
        Column::Destination,
        Column::Act,
    ];
}

/// What is compressed. All but the values have one element for each event, in the order of the block.
#[derive(Clone, PartialEq, Message)]
struct Body {
    /// In the order of [`Column::ALL`].
    #[prost(message, repeated, tag = "1")]
    columns: Vec<Coded>,
    /// UTC ns since 1970, each less the one before.
    #[prost(sint64, repeated, tag = "2")]
    time_steps: Vec<i64>,
    /// See [`super::groups::bytes_of`].
    #[prost(uint64, repeated, tag = "3")]
    bytes: Vec<u64>,
    /// Those that came in.
    #[prost(uint64, repeated, tag = "4")]
    bytes_in: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Coded {
    /// Encoded events.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    values: Vec<Bytes>,
    /// Places in `values`: nothing when there is one value, a byte each up to 256, else two of them
    /// in little endian.
    #[prost(bytes = "bytes", tag = "2")]
    codes: Bytes,
}

/// Bytes of a code when there are so many values.
const fn width(values: usize) -> usize {
    match values {
        0 | 1 => 0,
        2..=256 => 1,
        _ => 2,
    }
}

impl Coded {
    /// The code of each row; `None` when one stands for no value.
    fn codes(&self, rows: usize) -> Option<Vec<u16>> {
        let codes: Vec<u16> = match width(self.values.len()) {
            0 => vec![0; rows],
            1 => self.codes.iter().map(|code| u16::from(*code)).collect(),
            _ => {
                let pairs = self.codes.as_chunks::<2>();
                pairs
                    .1
                    .is_empty()
                    .then(|| pairs.0.iter().map(|it| u16::from_le_bytes(*it)))?
                    .collect()
            }
        };
        let known = codes.iter().all(|code| usize::from(*code) < self.values.len());
        (codes.len() == rows && known).then_some(codes)
    }
}

/// The columns of a block.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<Coded>,
    /// UTC ns since 1970.
    times_ns: Vec<i64>,
    /// See [`super::groups::bytes_of`].
    bytes: Vec<u64>,
    /// Those that came in.
    bytes_in: Vec<u64>,
}

impl Columns {
    /// Unpacks the columns of a block with so many events.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn unpack(
        packed: &[u8],
        events: u32,
        unpacker: &mut Unpacker,
    ) -> Result<Columns, DamagedBlock> {
        let body = unpacker.unpack(packed)?;
        let Body { columns, time_steps, bytes, bytes_in } = Body::decode(Bytes::from(body))?;
        let rows = events as usize;
        let whole = columns.len() == Column::COUNT
            && [time_steps.len(), bytes.len(), bytes_in.len()] == [rows; 3];
        if !whole {
            return Err(DamagedBlock::Columns);
        }
        let mut time_ns = 0_i64;
        let times_ns = time_steps.into_iter().map(|step| {
            time_ns = time_ns.wrapping_add(step);
            time_ns
        });
        Ok(Columns { columns, times_ns: times_ns.collect(), bytes, bytes_in })
    }

    /// Whether they say what the events of their block say.
    ///
    /// # Errors
    /// When one of either is damaged.
    pub fn agree_with(&self, block: &Block) -> Result<bool, DamagedBlock> {
        let events: Vec<Event> =
            block.entries().map(|stored| stored.event()).collect::<Result<_, _>>()?;
        let numbers = events.iter().map(|it| (it.time_ns, (bytes_of(it), bytes_in_of(it))));
        let own = self.times_ns.iter().copied();
        let own = own.zip(self.bytes.iter().copied().zip(self.bytes_in.iter().copied()));
        if !numbers.eq(own) {
            return Ok(false);
        }
        for column in Column::ALL {
            let (codes, values) = self.column(column)?;
            let values = values.iter().map(|value| Event::decode(value.as_ref()));
            let values: Vec<Event> = values.collect::<Result<_, _>>()?;
            let same = |(code, event): (u16, &Event)| {
                values.get(usize::from(code)) == Some(&parts::value_of(column, event))
            };
            if !codes.into_iter().zip(&events).all(same) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One of them: of each row the place in the values, and the values, encoded.
    ///
    /// # Errors
    /// When it is damaged.
    fn column(&self, column: Column) -> Result<(Vec<u16>, &[Bytes]), DamagedBlock> {
        let coded = self.columns.get(column as usize).ok_or(DamagedBlock::Columns)?;
        let codes = coded.codes(self.times_ns.len()).ok_or(DamagedBlock::Columns)?;
        Ok((codes, &coded.values))
    }
}
