//! The versions on disk: `policies.db` in the store's directory, each as it was signed.

use std::path::{Path, PathBuf};

use prost::Message as _;
use rusqlite::{Connection, params};
use sekimori_proto::v1::PolicyBundle;

use crate::fleet::put_aside;
use crate::store::{StoreError, open_side};

const FILE: &str = "policies.db";
/// Of the table below; another one is put aside.
const VERSION: i64 = 1;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS policies (
        epoch  INTEGER PRIMARY KEY NOT NULL,
        bundle BLOB NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

/// The open file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    connection: Connection,
}

impl Kept {
    /// Opens it, and reads what is in it. A file that cannot be read is put aside: the hosts keep
    /// what they have, and say which epoch that is.
    pub fn open(store: &Path) -> Result<(Kept, Vec<PolicyBundle>), StoreError> {
        let path = store.join(FILE);
        match begin(&path) {
            Ok((connection, bundles)) => Ok((Kept { path, connection }, bundles)),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "the policies for the hosts cannot be read; the file is put aside, the hosts \
                     keep what they have, and the next one that is put goes on behind it"
                );
                put_aside(&path)
                    .map_err(|source| StoreError::File { path: path.clone(), source })?;
                let begun = begin(&path);
                let (connection, bundles) =
                    begun.map_err(|source| StoreError::Sqlite { path: path.clone(), source })?;
                Ok((Kept { path, connection }, bundles))
            }
        }
    }

    /// Writes a version, and forgets another one, in one transaction.
    pub fn write(
        &mut self,
        epoch: u64,
        bundle: &PolicyBundle,
        gone: Option<u64>,
    ) -> Result<(), StoreError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO policies VALUES (?1, ?2)",
                params![epoch.cast_signed(), bundle.encode_to_vec()],
            )?;
            if let Some(gone) = gone {
                let gone = gone.cast_signed();
                transaction.execute("DELETE FROM policies WHERE epoch = ?1", [gone])?;
            }
            transaction.commit()
        };
        write(&mut self.connection)
            .map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

fn begin(path: &Path) -> rusqlite::Result<(Connection, Vec<PolicyBundle>)> {
    // A version is answered when it is kept.
    let connection = open_side(path, VERSION, TABLE)?;
    let bundles = read(&connection)?;
    Ok((connection, bundles))
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<PolicyBundle>> {
    let mut statement = connection.prepare("SELECT bundle FROM policies ORDER BY epoch")?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    let mut bundles = Vec::new();
    for row in rows {
        // What does not decode has no signature that holds either.
        bundles.push(PolicyBundle::decode(row?.as_slice()).unwrap_or_default());
    }
    Ok(bundles)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn bundle(text: &'static str) -> PolicyBundle {
        PolicyBundle { statement: text.into(), signature: vec![1; 64] }
    }

    #[test]
    fn they_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, bundles) = Kept::open(dir.path()).unwrap();
        assert!(bundles.is_empty());
        kept.write(1, &bundle("one"), None).unwrap();
        kept.write(2, &bundle("two"), None).unwrap();
        kept.write(2, &bundle("two, for more"), None).unwrap();
        kept.write(3, &bundle("three"), Some(1)).unwrap();
        drop(kept);
        let (_, bundles) = Kept::open(dir.path()).unwrap();
        assert_eq!(bundles, [bundle("two, for more"), bundle("three")]);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "no database ".repeat(1000)).unwrap();
        let (mut kept, bundles) = Kept::open(dir.path()).unwrap();
        assert!(bundles.is_empty() && dir.path().join("policies.db.unreadable").exists());
        kept.write(1, &bundle("one"), None).unwrap();
    }
}
