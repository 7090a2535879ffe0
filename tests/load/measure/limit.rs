//! What SQLite alone can do with the same events, durable as in the collector: one row for each
//! event with indexes, and one for each thousand, compressed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use prost::Message as _;
use prost::bytes::BufMut as _;
use rusqlite::{Connection, Transaction, params};
use sekimori_proto::v1::Event;

use super::ingest;
use crate::bench::{Bench, HOSTS};
use crate::cores;
use crate::events::{FIRST_NS, host_name};
use crate::figures::Figures;
use crate::meter::{in_seconds, thread_cpu_s};
use crate::wire::Stamp;

/// How long each of the two is measured.
const SECONDS: u64 = 8;
/// Events of one host that come one after the other, as in a batch of an agent.
const BATCH: u64 = 1000;
/// Batches that are committed together.
const COMMIT: u64 = 8;
const STEP_NS: i64 = 50_000_000;
/// Of zstd.
const LEVEL: i32 = 1;

/// One row for each event, with what questions filter by, each findable by an index.
const ROWS: &str = "
    CREATE TABLE events (
        cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
        host       TEXT    NOT NULL,
        boot       BLOB    NOT NULL,
        sequence   INTEGER NOT NULL,
        time_ns    INTEGER NOT NULL,
        kind       INTEGER NOT NULL,
        verdict    INTEGER NOT NULL,
        user       TEXT    NOT NULL,
        login_user TEXT    NOT NULL,
        rule       TEXT    NOT NULL,
        text       BLOB    NOT NULL,
        body       BLOB    NOT NULL,
        UNIQUE (host, boot, sequence)
    ) STRICT;
    CREATE INDEX events_time    ON events (time_ns, cursor, kind, verdict, host);
    CREATE INDEX events_kind    ON events (kind, time_ns, cursor);
    CREATE INDEX events_host    ON events (host, time_ns, cursor);
    CREATE INDEX events_verdict ON events (verdict, time_ns, cursor);";
const INSERT_ROW: &str = "
    INSERT INTO events (host, boot, sequence, time_ns, kind, verdict, user, login_user, rule, text,
        body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (host, boot, sequence) DO NOTHING";
const BLOCKS: &str = "
    CREATE TABLE blocks (
        cursor   INTEGER PRIMARY KEY,
        host     TEXT    NOT NULL,
        first_ns INTEGER NOT NULL,
        last_ns  INTEGER NOT NULL,
        body     BLOB    NOT NULL
    ) STRICT;";
const INSERT_BLOCK: &str =
    "INSERT INTO blocks (host, first_ns, last_ns, body) VALUES (?1, ?2, ?3, ?4)";

pub async fn measure(bench: &Bench) -> Result<()> {
    if ingested(bench).is_none() {
        ingest::measure(bench).await?;
    }
    let mut all = Vec::new();
    let flavours: [(&str, &str, Flavour); 2] = [
        ("one row an event, 5 indexes", ROWS, rows),
        ("one row 1000 events, zstd 1", BLOCKS, blocks),
    ];
    for (name, schema, flavour) in flavours {
        let done = std::thread::scope(|scope| {
            let work = || {
                cores::stay_on(bench.cores.collector)?;
                insert(bench, schema, flavour)
            };
            scope.spawn(work).join().ok().context("the thread panicked")?
        })?;
        all.push((name, done));
    }
    // Before and after: a machine that others use too is not equally fast all the time.
    ingest::measure(bench).await?;
    for (name, done) in all {
        let per_cpu_second = done.events as f64 / done.cpu_s;
        let ratio = ingested(bench).map(|collector| collector / per_cpu_second);
        Figures::new("limit", name)
            .number("events", done.events)
            .number("events/s", done.events as f64 / done.wall_s)
            .number("events/CPU s", per_cpu_second)
            .number("CPU µs/event", 1e6 / per_cpu_second)
            .number("disk B/event", done.bytes as f64 / done.events as f64)
            .number("collector/limit", ratio)
            .print();
    }
    Ok(())
}

/// What the collector did in a second of its CPU, on average.
fn ingested(bench: &Bench) -> Option<f64> {
    let rates = bench.ingested.lock().ok()?;
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// Inserts batches; what it does is counted.
type Flavour = fn(&Transaction<'_>, &[Prepared]) -> Result<()>;

/// A batch, and all that is made of it before the database sees it.
struct Prepared {
    host: String,
    stamps: Vec<Stamp>,
    events: Vec<Event>,
    texts: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    /// All bodies, each behind its length.
    joined: Vec<u8>,
}

#[derive(Debug, Default)]
struct Done {
    events: u64,
    cpu_s: f64,
    wall_s: f64,
    bytes: u64,
}

fn insert(bench: &Bench, schema: &str, flavour: Flavour) -> Result<Done> {
    let directory = tempfile::tempdir_in(bench.directory())?;
    let path = directory.path().join("limit.db");
    let mut connection = open(&path, schema)?;
    let mut done = Done::default();
    let until = in_seconds(SECONDS * 2);
    for number in 0.. {
        let batches: Result<Vec<_>> =
            (number * COMMIT..(number + 1) * COMMIT).map(|batch| prepared(bench, batch)).collect();
        let batches = batches?;
        let (began, before_s) = (Instant::now(), thread_cpu_s()?);
        let transaction = connection.transaction()?;
        flavour(&transaction, &batches)?;
        transaction.commit()?;
        done.wall_s += began.elapsed().as_secs_f64();
        done.cpu_s += thread_cpu_s()? - before_s;
        done.events += BATCH * COMMIT;
        if done.wall_s > SECONDS as f64 || Instant::now() > until {
            break;
        }
    }
    // The last connection that closes moves the log into the database.
    connection.close().map_err(|(_, error)| error)?;
    done.bytes = std::fs::metadata(&path)?.len();
    Ok(done)
}

/// Opens a database as the collector does.
fn open(path: &Path, schema: &str) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.execute_batch(schema)?;
    Ok(connection)
}

/// The batch with this number; hosts take turns.
fn prepared(bench: &Bench, number: u64) -> Result<Prepared> {
    let (host, turn) = (number % HOSTS, number / HOSTS);
    let encoded = bench.events(host);
    let mut events = Vec::new();
    let mut stamps = Vec::new();
    for sequence in turn * BATCH + 1..=(turn + 1) * BATCH {
        let at = usize::try_from(sequence)? % encoded.len();
        let event = encoded.get(at).context("no events were prepared")?;
        let time_ns = FIRST_NS + STEP_NS * sequence.cast_signed();
        let stamp = Stamp { boot: [u8::try_from(host)?; 16], sequence, time_ns };
        let (boot, host) = (stamp.boot.to_vec(), host_name(host));
        let event = Event::decode(event.as_slice())?;
        events.push(Event { boot, sequence, time_ns, host, ..event });
        stamps.push(stamp);
    }
    let bodies: Vec<Vec<u8>> = events.iter().map(Event::encode_to_vec).collect();
    let mut joined = Vec::new();
    for body in &bodies {
        prost::encoding::encode_varint(body.len() as u64, &mut joined);
        joined.put_slice(body);
    }
    let texts = events.iter().map(searched_text).collect();
    Ok(Prepared { host: host_name(host), stamps, events, texts, bodies, joined })
}

/// What a filter's text is looked for in.
fn searched_text(event: &Event) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if let Some(file) = &event.file {
        parts.push(&file.path);
        parts.extend(file.device.as_ref().map(|device| device.serial.as_bytes()));
    }
    parts.extend(event.sources.iter().map(|source| source.path.as_slice()));
    parts.extend(event.process.as_ref().map(|process| process.exe.as_slice()));
    if let Some(destination) = &event.destination {
        parts.push(destination.ip.as_bytes());
        parts.extend(destination.names.iter().map(|name| name.name.as_bytes()));
    }
    parts.join(&0)
}

fn rows(transaction: &Transaction<'_>, batches: &[Prepared]) -> Result<()> {
    let mut statement = transaction.prepare_cached(INSERT_ROW)?;
    for batch in batches {
        let rest = batch.texts.iter().zip(&batch.bodies);
        for ((event, stamp), (text, body)) in batch.events.iter().zip(&batch.stamps).zip(rest) {
            let process = event.process.as_ref();
            statement.execute(params![
                batch.host,
                stamp.boot,
                stamp.sequence.cast_signed(),
                stamp.time_ns,
                event.kind,
                event.verdict,
                process.map_or("", |process| process.user.as_str()),
                process.map_or("", |process| process.login_user.as_str()),
                event.rule,
                text,
                body,
            ])?;
        }
    }
    Ok(())
}

fn blocks(transaction: &Transaction<'_>, batches: &[Prepared]) -> Result<()> {
    let mut statement = transaction.prepare_cached(INSERT_BLOCK)?;
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    for batch in batches {
        let time = |stamp: Option<&Stamp>| stamp.map_or(0, |stamp| stamp.time_ns);
        let (first_ns, last_ns) = (time(batch.stamps.first()), time(batch.stamps.last()));
        let body = compressor.compress(&batch.joined)?;
        statement.execute(params![batch.host, first_ns, last_ns, body])?;
    }
    Ok(())
}
