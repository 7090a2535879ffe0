//! What is known of the hosts, on disk: `fleet.db` in the store's directory.
//!
//! A minute of signs of life is lost when the machine dies; no order is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message as _;
use rusqlite::{Connection, params};
use sekimori_proto::v1::{HostState, Isolation};

use super::hosts::Host;
use crate::store::{StoreError, open_side};

const FILE: &str = "fleet.db";
/// Of the table below; another one is put aside.
const VERSION: i64 = 1;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS hosts (
        host                TEXT    PRIMARY KEY NOT NULL,
        first_seen_ns       INTEGER NOT NULL,
        last_seen_ns        INTEGER NOT NULL,
        state               BLOB,
        state_ns            INTEGER NOT NULL,
        serial              TEXT    NOT NULL,
        certificate_until_s INTEGER NOT NULL,
        address             TEXT    NOT NULL,
        told_silent         INTEGER NOT NULL,
        isolation           BLOB,
        told_order          INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// The open file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    connection: Connection,
}

impl Kept {
    pub fn open(store: &Path) -> Result<(Kept, BTreeMap<String, Host>), StoreError> {
        let path = store.join(FILE);
        match begin(&path) {
            Ok((connection, hosts)) => Ok((Kept { path, connection }, hosts)),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "what was known of the hosts cannot be read; it is put aside, and they are \
                     known again when they come"
                );
                put_aside(&path)
                    .map_err(|source| StoreError::File { path: path.clone(), source })?;
                let begun = begin(&path);
                let (connection, hosts) =
                    begun.map_err(|source| StoreError::Sqlite { path: path.clone(), source })?;
                Ok((Kept { path, connection }, hosts))
            }
        }
    }

    /// Writes what changed, in one transaction.
    pub fn write(&mut self, changed: &[(String, Host)], gone: &[String]) -> Result<(), StoreError> {
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (name, host) in changed {
                insert(&transaction, name, host)?;
            }
            for name in gone {
                transaction.prepare_cached("DELETE FROM hosts WHERE host = ?1")?.execute([name])?;
            }
            transaction.commit()
        };
        write(&mut self.connection)
            .map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

fn insert(connection: &Connection, name: &str, host: &Host) -> rusqlite::Result<()> {
    let (state, state_ns) = match &host.state {
        Some((state, ns)) => (Some(state.encode_to_vec()), *ns),
        None => (None, 0),
    };
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO hosts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    statement.execute(params![
        name,
        host.first_seen_ns,
        host.last_seen_ns,
        state,
        state_ns,
        host.serial,
        host.certificate_until_s,
        host.address,
        host.told_silent,
        host.order.as_ref().map(Isolation::encode_to_vec),
        host.told_order.cast_signed(),
    ])?;
    Ok(())
}

fn begin(path: &Path) -> rusqlite::Result<(Connection, BTreeMap<String, Host>)> {
    // An order to cut a host off is answered when it is kept.
    let connection = open_side(path, VERSION, TABLE)?;
    let hosts = read(&connection)?;
    Ok((connection, hosts))
}

fn read(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Host>> {
    let mut statement = connection.prepare("SELECT * FROM hosts")?;
    let rows = statement.query_map([], |row| {
        let state: Option<Vec<u8>> = row.get(3)?;
        let state = state.and_then(|it| HostState::decode(it.as_slice()).ok());
        let (state_ns, order) = (row.get(4)?, row.get::<_, Option<Vec<u8>>>(9)?);
        let host = Host {
            first_seen_ns: row.get(1)?,
            last_seen_ns: row.get(2)?,
            state: state.map(|state| (state, state_ns)),
            serial: row.get(5)?,
            certificate_until_s: row.get(6)?,
            address: row.get(7)?,
            told_silent: row.get(8)?,
            order: order.and_then(|it| Isolation::decode(it.as_slice()).ok()),
            told_order: row.get::<_, i64>(10)?.cast_unsigned(),
            ..Host::default()
        };
        Ok((row.get(0)?, host))
    })?;
    rows.collect()
}

/// Moves a database out of the way of the next one.
pub fn put_aside(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(with(suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::rename(path, with(".unreadable")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn it_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let state =
            HostState {
                version: "1".into(), policy: "持出し禁止".into(), ..HostState::default()
            };
        let host = Host {
            first_seen_ns: 1,
            last_seen_ns: 2,
            state: Some((state, 3)),
            serial: "0a:0b".to_owned(),
            certificate_until_s: 4,
            address: "192.0.2.1".to_owned(),
            told_silent: true,
            order: Some(Isolation { order: 7, isolated: true, ..Isolation::default() }),
            told_order: 6,
            ..Host::default()
        };
        let (mut kept, hosts) = Kept::open(dir.path()).unwrap();
        assert!(hosts.is_empty());
        let pc2 = ("pc-2".to_owned(), Host::default());
        kept.write(&[("pc-1".to_owned(), host.clone()), pc2], &[]).unwrap();
        kept.write(&[], &["pc-2".to_owned()]).unwrap();
        drop(kept);
        let (_, hosts) = Kept::open(dir.path()).unwrap();
        assert_eq!(hosts.keys().collect::<Vec<_>>(), ["pc-1"]);
        assert_eq!(format!("{:?}", hosts["pc-1"]), format!("{host:?}"));
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "no database ".repeat(1000)).unwrap();
        let (mut kept, hosts) = Kept::open(dir.path()).unwrap();
        assert!(hosts.is_empty() && dir.path().join("fleet.db.unreadable").exists());
        kept.write(&[("pc-1".to_owned(), Host::default())], &[]).unwrap();
    }
}
