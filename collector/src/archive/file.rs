//! One Parquet file: rows are gathered and written in groups, and summed as they go to the disk.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use sha2::{Digest as _, Sha256};

use super::columns::{COLUMNS, Cell, EVENT};
use crate::limits::{ARCHIVE_GROUP_BYTES, ARCHIVE_GROUP_ROWS, ARCHIVE_ZSTD_LEVEL};

/// Writes one file.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<Summed<W>>,
    /// What is to be written, column by column.
    waiting: [Vec<Cell>; COLUMNS.len()],
    rows: usize,
    bytes: usize,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(out: W) -> Result<ParquetFile<W>> {
        let declared = format!("message event {{ {}; }}", COLUMNS.join("; "));
        let schema = Arc::new(parse_message_type(&declared)?);
        let event = || ColumnPath::from(EVENT);
        let level = ZstdLevel::try_new(ARCHIVE_ZSTD_LEVEL)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Each is another one, and nobody looks for one by its bytes.
            .set_column_dictionary_enabled(event(), false)
            .set_column_encoding(event(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_statistics_enabled(event(), EnabledStatistics::None);
        let properties = ["cursor", "time", "sequence"].into_iter().fold(properties, |it, name| {
            it.set_column_dictionary_enabled(ColumnPath::from(name), false)
                .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED)
        });
        let out = Summed { out, sum: Sha256::new(), bytes: 0 };
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()))?;
        let waiting = std::array::from_fn(|_| Vec::new());
        Ok(ParquetFile { writer, waiting, rows: 0, bytes: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn push(&mut self, row: [Cell; COLUMNS.len()]) -> Result<()> {
        for (waiting, cell) in self.waiting.iter_mut().zip(row) {
            self.bytes += cell.len();
            waiting.push(cell);
        }
        self.rows += 1;
        if self.rows >= ARCHIVE_GROUP_ROWS || self.bytes >= ARCHIVE_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the rest and the end of the file; what it was written to comes back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Result<(W, Sum)> {
        self.flush()?;
        let Summed { out, sum, bytes } = self.writer.into_inner()?;
        Ok((out, Sum { sha256: sum.finalize().into(), bytes }))
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut columns = self.waiting.iter_mut();
        while let Some(mut column) = group.next_column()? {
            let waiting = columns.next().map(std::mem::take).unwrap_or_default();
            write(column.untyped(), waiting)?;
            column.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

/// Writes the cells of a column. Cells of another type than the column's are a fault of ours.
fn write(column: &mut ColumnWriter<'_>, cells: Vec<Cell>) -> Result<()> {
    // A column that is required has no levels, and takes no notice of them.
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(*cell != Cell::Null)).collect();
    let levels = Some(levels.as_slice());
    let written = match column {
        ColumnWriter::BoolColumnWriter(column) => {
            let flag = |cell| if let Cell::Flag(flag) = cell { Some(flag) } else { None };
            column.write_batch(&values(cells, flag)?, levels, None)
        }
        ColumnWriter::Int32ColumnWriter(column) => {
            let number =
                |cell| if let Cell::Small(it) = cell { Some(it.cast_signed()) } else { None };
            column.write_batch(&values(cells, number)?, levels, None)
        }
        ColumnWriter::Int64ColumnWriter(column) => {
            let number =
                |cell| if let Cell::Number(it) = cell { Some(it.cast_signed()) } else { None };
            column.write_batch(&values(cells, number)?, levels, None)
        }
        ColumnWriter::ByteArrayColumnWriter(column) => {
            let bytes = |cell| if let Cell::Bytes(it) = cell { Some(array(it)) } else { None };
            column.write_batch(&values(cells, bytes)?, levels, None)
        }
        _ => Err(ParquetError::General("a column of a type that none has".to_owned())),
    };
    written.map(|_| ())
}

fn array(bytes: Bytes) -> ByteArray {
    ByteArray::from(bytes)
}

/// All that are not NULL.
fn values<T>(cells: Vec<Cell>, value: impl Fn(Cell) -> Option<T>) -> Result<Vec<T>> {
    let cells = cells.into_iter().filter(|cell| *cell != Cell::Null);
    let values: Option<Vec<T>> = cells.map(value).collect();
    values.ok_or_else(|| ParquetError::General("a cell of another type than its column".to_owned()))
}

/// Sums what goes through it.
struct Summed<W> {
    out: W,
    sum: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.sum.update(bytes.get(..count).unwrap_or(bytes));
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
