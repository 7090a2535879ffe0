//! What somebody does who may write the store's files, for tests of what finds it.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use rusqlite::Connection;
use sekimori_proto::v1::Event;

use super::block::{Block, Placed, pack};
use super::entry::Entry;
use super::table;

/// An event of the store, and what names it there.
pub struct Row {
    /// Its place.
    pub cursor: u64,
    /// Whose it is.
    pub host: String,
    /// As its author sent it.
    pub body: Bytes,
}

/// Rewrites each block of a closed store with valid checksums.
pub fn tamper(dir: &Path, mut change: impl FnMut(Vec<Row>) -> Vec<Row>) {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.include_checksum(true).unwrap();
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|it| it == "db")) {
        let connection = Connection::open(path).unwrap();
        let mut listed = Vec::new();
        table::each_block(&connection, i64::MIN, i64::MAX, |block| {
            listed.push(block);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        for block in listed {
            let body = table::body(&connection, block.block).unwrap().unwrap();
            let placed = Block::unpack(&body).unwrap().placed().unwrap();
            let rows = placed.into_iter().map(|Placed { cursor, host, entry }| Row {
                cursor,
                host: host.to_string(),
                body: entry.body,
            });
            let changed: Vec<Placed> = change(rows.collect())
                .into_iter()
                .map(|Row { cursor, host, body }| {
                    let event = Event::decode(body.as_ref()).unwrap();
                    let entry = Entry::new(&event, body).unwrap();
                    Placed { cursor, host: host.into(), entry }
                })
                .collect();
            table::delete_block(&connection, block.block).unwrap();
            if !changed.is_empty() {
                let events: Vec<&Placed> = changed.iter().collect();
                let packed = pack(&mut compressor, &events).unwrap();
                table::insert_block(&connection, block.run, true, &packed).unwrap();
            }
        }
    }
}
