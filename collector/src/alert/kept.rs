//! Alerts, what waits to be sent, and how far each rule has looked: `alerts.db` in the store's
//! directory.
//!
//! How far a rule has come is written together with the alerts that it found on the way, and with the
//! notices of them: after a crash nothing is missing. The records of the alerts follow, and are made
//! up for at the next start.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use sekimori_proto::v1::{Alert, AlertGroup, SilenceRequest, StandingSilence};

use crate::limits::{ALERT_NOTICES_MAX, ALERTS_KEPT};
use crate::store::{StoreError, open_side};

const FILE: &str = "alerts.db";
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS rules (
        name     TEXT    PRIMARY KEY NOT NULL,
        position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS marks (
        time_ns  INTEGER PRIMARY KEY,
        position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS seen (
        rule    TEXT    NOT NULL,
        value   TEXT    NOT NULL,
        last_ns INTEGER NOT NULL,
        PRIMARY KEY (rule, value)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS alerts (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        rule         TEXT    NOT NULL,
        severity     TEXT    NOT NULL,
        title        TEXT    NOT NULL,
        groups       TEXT    NOT NULL,
        count        INTEGER NOT NULL,
        bytes        INTEGER NOT NULL,
        first_ns     INTEGER NOT NULL,
        last_ns      INTEGER NOT NULL,
        first_cursor INTEGER NOT NULL,
        last_cursor  INTEGER NOT NULL,
        opened_ns    INTEGER NOT NULL,
        hit_ns       INTEGER NOT NULL,
        told_ns      INTEGER NOT NULL,
        closed_ns    INTEGER NOT NULL,
        acked_by     TEXT    NOT NULL,
        acked_ns     INTEGER NOT NULL,
        note         TEXT    NOT NULL,
        silenced     INTEGER NOT NULL,
        recorded     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS alerts_open ON alerts (rule, groups) WHERE closed_ns = 0;
    CREATE INDEX IF NOT EXISTS alerts_unrecorded ON alerts (id) WHERE recorded = 0;
    CREATE TABLE IF NOT EXISTS notices (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        endpoint TEXT    NOT NULL,
        alert    INTEGER NOT NULL,
        made_ns  INTEGER NOT NULL,
        due_ns   INTEGER NOT NULL,
        tries    INTEGER NOT NULL,
        body     TEXT    NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS notices_due ON notices (endpoint, due_ns);
    CREATE TABLE IF NOT EXISTS silences (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        rule     TEXT    NOT NULL,
        host     TEXT    NOT NULL,
        user     TEXT    NOT NULL,
        until_ns INTEGER NOT NULL,
        reason   TEXT    NOT NULL,
        by       TEXT    NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

const COLUMNS: &str = "id, rule, severity, title, groups, count, bytes, first_ns, last_ns, \
    first_cursor, last_cursor, opened_ns, closed_ns, acked_by, acked_ns, note, silenced";

/// The open file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    connection: Connection,
}

/// An alert that is open, as far as the engine has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Its id.
    pub id: u64,
    /// When it was told last, UTC ns since 1970.
    pub told_ns: i64,
    /// Somebody looks after it.
    pub acknowledged: bool,
    /// It tells nobody.
    pub silenced: bool,
}

/// A notice that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its number; the same with each try.
    pub id: u64,
    /// When it was made, UTC ns since 1970.
    pub made_ns: i64,
    /// Tries before this one.
    pub tries: u32,
    /// What it says, as JSON.
    pub body: String,
}

/// Changes of one step of a rule, all or none.
pub struct Change<'a>(Transaction<'a>);

impl Kept {
    /// Opens or makes it. It is never put aside: notices that wait are in it.
    ///
    /// # Errors
    /// When it cannot be used, with its path.
    pub fn open(store: &Path) -> Result<Kept, StoreError> {
        let path = store.join(FILE);
        match open_side(&path, VERSION, TABLES) {
            Ok(connection) => Ok(Kept { path, connection }),
            Err(source) => Err(StoreError::Sqlite { path, source }),
        }
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }

    /// Makes changes, all or none.
    ///
    /// # Errors
    /// When they could not be written; then none was.
    pub fn change<T>(
        &mut self,
        make: impl FnOnce(&Change<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let run = |connection: &mut Connection| {
            let change = Change(connection.transaction()?);
            let made = make(&change)?;
            change.0.commit()?;
            Ok(made)
        };
        run(&mut self.connection).map_err(|source| self.failed(source))
    }

    /// How far a rule has looked.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn position(&self, rule: &str) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT position FROM rules WHERE name = ?1";
        let read = self.connection.query_row(sql, [rule], |row| row.get::<_, i64>(0)).optional();
        read.map(|it| it.map(i64::cast_unsigned)).map_err(|source| self.failed(source))
    }

    /// How far the store was at this time, or before it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn position_at(&self, time_ns: i64) -> Result<u64, StoreError> {
        let sql = "SELECT position FROM marks WHERE time_ns <= ?1 ORDER BY time_ns DESC LIMIT 1";
        let read = self.connection.query_row(sql, [time_ns], |row| row.get::<_, i64>(0)).optional();
        read.map(|it| it.map_or(0, i64::cast_unsigned)).map_err(|source| self.failed(source))
    }

    /// A page of alerts, the newest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn alerts(
        &self,
        open: bool,
        below: u64,
        rules: &[String],
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let read = || {
            let below = if below == 0 { i64::MAX } else { below.cast_signed() };
            let sql = format!(
                "SELECT {COLUMNS} FROM alerts WHERE id < ?1 AND (NOT ?2 OR closed_ns = 0) \
                 ORDER BY id DESC"
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![below, open], alert)?;
            let wanted = |alert: &rusqlite::Result<Alert>| {
                alert.as_ref().map_or(true, |it| rules.is_empty() || rules.contains(&it.rule))
            };
            rows.filter(wanted).take(limit).collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// Alerts that no record tells of yet.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn unrecorded(&self, limit: usize) -> Result<Vec<Alert>, StoreError> {
        let read = || {
            let sql =
                format!("SELECT {COLUMNS} FROM alerts WHERE recorded = 0 ORDER BY id LIMIT ?1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], alert)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// Silences that stand.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn silences(&self, now_ns: i64) -> Result<Vec<StandingSilence>, StoreError> {
        let read = || {
            let sql = "SELECT id, rule, host, user, until_ns, reason, by FROM silences \
                       WHERE until_ns > ?1 ORDER BY id";
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map([now_ns], |row| {
                let what = SilenceRequest {
                    rule: row.get(1)?,
                    host: row.get(2)?,
                    user: row.get(3)?,
                    until_ns: row.get(4)?,
                    reason: row.get(5)?,
                };
                let id = row.get::<_, i64>(0)?.cast_unsigned();
                Ok(StandingSilence { id, what: Some(what), by: row.get(6)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// The notice of an endpoint that is due first, and when it is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_notice(&self, endpoint: &str) -> Result<Option<(i64, Due)>, StoreError> {
        let sql = "SELECT due_ns, id, made_ns, tries, body FROM notices WHERE endpoint = ?1 \
                   ORDER BY due_ns, id LIMIT 1";
        let read = self.connection.query_row(sql, [endpoint], |row| {
            let due = Due {
                id: row.get::<_, i64>(1)?.cast_unsigned(),
                made_ns: row.get(2)?,
                tries: row.get(3)?,
                body: row.get(4)?,
            };
            Ok((row.get(0)?, due))
        });
        read.optional().map_err(|source| self.failed(source))
    }

    /// How many notices of an endpoint wait.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn waiting(&self, endpoint: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM notices WHERE endpoint = ?1";
        let read = self.connection.query_row(sql, [endpoint], |row| row.get::<_, i64>(0));
        read.map(i64::cast_unsigned).map_err(|source| self.failed(source))
    }
}

impl Change<'_> {
    /// A rule has looked at everything up to here.
    pub fn position(&self, rule: &str, position: u64) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rules VALUES (?1, ?2)";
        self.0.prepare_cached(sql)?.execute(params![rule, position.cast_signed()])?;
        Ok(())
    }

    /// The store is this far now; what was noted before `forget_ns` is not needed any more.
    pub fn mark(&self, now_ns: i64, position: u64, forget_ns: i64) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO marks VALUES (?1, ?2)";
        self.0.prepare_cached(sql)?.execute(params![now_ns, position.cast_signed()])?;
        // One of those from before must stay.
        let sql = "DELETE FROM marks WHERE time_ns < \
                   (SELECT max(time_ns) FROM marks WHERE time_ns <= ?1)";
        self.0.prepare_cached(sql)?.execute([forget_ns])?;
        Ok(())
    }

    /// A value was seen; answers when it was before.
    pub fn saw(&self, rule: &str, value: &str, time_ns: i64) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT last_ns FROM seen WHERE rule = ?1 AND value = ?2";
        let before: Option<i64> =
            self.0.prepare_cached(sql)?.query_row([rule, value], |row| row.get(0)).optional()?;
        let last = before.map_or(time_ns, |before| before.max(time_ns));
        let sql = "INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3)";
        self.0.prepare_cached(sql)?.execute(params![rule, value, last])?;
        Ok(before)
    }

    /// The open alert of a rule and group.
    pub fn open(&self, rule: &str, groups: &str) -> rusqlite::Result<Option<Open>> {
        let sql = "SELECT id, told_ns, acked_ns, silenced FROM alerts \
                   WHERE rule = ?1 AND groups = ?2 AND closed_ns = 0";
        let read = |row: &Row<'_>| {
            Ok(Open {
                id: row.get::<_, i64>(0)?.cast_unsigned(),
                told_ns: row.get(1)?,
                acknowledged: row.get::<_, i64>(2)? != 0,
                silenced: row.get(3)?,
            })
        };
        self.0.prepare_cached(sql)?.query_row([rule, groups], read).optional()
    }

    /// How many alerts of a rule are open.
    pub fn count_open(&self, rule: &str) -> rusqlite::Result<u64> {
        let sql = "SELECT count(*) FROM alerts WHERE rule = ?1 AND closed_ns = 0";
        let count: i64 = self.0.prepare_cached(sql)?.query_row([rule], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// A new one; answers its id.
    pub fn raise(&self, alert: &Alert, groups: &str) -> rusqlite::Result<u64> {
        let sql = "INSERT INTO alerts (rule, severity, title, groups, count, bytes, first_ns, \
                   last_ns, first_cursor, last_cursor, opened_ns, hit_ns, told_ns, closed_ns, \
                   acked_by, acked_ns, note, silenced, recorded) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?11, 0, '', 0, '', \
                   ?12, 0)";
        self.0.prepare_cached(sql)?.execute(params![
            alert.rule,
            alert.severity,
            alert.title,
            groups,
            alert.count.cast_signed(),
            alert.bytes.cast_signed(),
            alert.first_ns,
            alert.last_ns,
            alert.first_cursor.cast_signed(),
            alert.last_cursor.cast_signed(),
            alert.opened_ns,
            alert.silenced,
        ])?;
        Ok(self.0.last_insert_rowid().cast_unsigned())
    }

    /// An open alert goes on; `told` when it is told again. Answers it as it is now.
    pub fn goes_on(
        &self,
        id: u64,
        now_ns: i64,
        more: &Alert,
        told: bool,
    ) -> rusqlite::Result<Option<Alert>> {
        let sql = "UPDATE alerts SET count = count + ?2, bytes = bytes + ?3, \
                   first_ns = min(first_ns, ?4), last_ns = max(last_ns, ?5), last_cursor = ?6, \
                   hit_ns = ?7, told_ns = iif(?8, ?7, told_ns) WHERE id = ?1";
        self.0.prepare_cached(sql)?.execute(params![
            id.cast_signed(),
            more.count.cast_signed(),
            more.bytes.cast_signed(),
            more.first_ns,
            more.last_ns,
            more.last_cursor.cast_signed(),
            now_ns,
            told,
        ])?;
        self.alert(id)
    }

    /// One alert.
    pub fn alert(&self, id: u64) -> rusqlite::Result<Option<Alert>> {
        let sql = format!("SELECT {COLUMNS} FROM alerts WHERE id = ?1");
        self.0.prepare_cached(&sql)?.query_row([id.cast_signed()], alert).optional()
    }

    /// Alerts of a rule to which nothing was added since then are over. Of rules that are no more,
    /// all are.
    pub fn close(&self, rule: &str, hit_before_ns: i64, now_ns: i64) -> rusqlite::Result<usize> {
        let sql = "UPDATE alerts SET closed_ns = ?3 \
                   WHERE rule = ?1 AND closed_ns = 0 AND hit_ns < ?2";
        self.0.prepare_cached(sql)?.execute(params![rule, hit_before_ns, now_ns])
    }

    /// Alerts of other rules than these are over: nobody looks any more.
    pub fn close_others(&self, rules: &[String], now_ns: i64) -> rusqlite::Result<usize> {
        let names = serde_json::Value::from(rules.to_vec()).to_string();
        let sql = "UPDATE alerts SET closed_ns = ?2 WHERE closed_ns = 0 \
                   AND rule NOT IN (SELECT value FROM json_each(?1))";
        self.0.prepare_cached(sql)?.execute(params![names, now_ns])
    }

    /// The oldest alerts beyond the limit that are over are not kept.
    pub fn forget(&self, seen_before_ns: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM alerts WHERE closed_ns > 0 AND recorded = 1 \
                   AND id <= (SELECT max(id) FROM alerts) - ?1";
        let kept = i64::try_from(ALERTS_KEPT).unwrap_or(i64::MAX);
        self.0.prepare_cached(sql)?.execute([kept])?;
        self.0.prepare_cached("DELETE FROM seen WHERE last_ns < ?1")?.execute([seen_before_ns])?;
        self.0
            .prepare_cached("DELETE FROM silences WHERE until_ns < ?1")?
            .execute([seen_before_ns])?;
        Ok(())
    }

    /// A record tells of an alert.
    pub fn recorded(&self, id: u64) -> rusqlite::Result<()> {
        let sql = "UPDATE alerts SET recorded = 1 WHERE id = ?1";
        self.0.prepare_cached(sql)?.execute([id.cast_signed()])?;
        Ok(())
    }

    /// Somebody looks after alerts; answers how many there are.
    pub fn acknowledge(
        &self,
        id: u64,
        by: &str,
        note: &str,
        now_ns: i64,
    ) -> rusqlite::Result<usize> {
        let sql = "UPDATE alerts SET acked_by = ?2, note = ?3, acked_ns = ?4 WHERE id = ?1";
        self.0.prepare_cached(sql)?.execute(params![id.cast_signed(), by, note, now_ns])
    }

    /// A silence; answers its id.
    pub fn silence(&self, what: &SilenceRequest, by: &str) -> rusqlite::Result<u64> {
        let SilenceRequest { rule, host, user, until_ns, reason } = what;
        let sql = "INSERT INTO silences (rule, host, user, until_ns, reason, by) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.0.prepare_cached(sql)?.execute(params![rule, host, user, until_ns, reason, by])?;
        Ok(self.0.last_insert_rowid().cast_unsigned())
    }

    /// Takes a silence back; answers whether there was one.
    pub fn unsilence(&self, id: u64) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM silences WHERE id = ?1";
        Ok(self.0.prepare_cached(sql)?.execute([id.cast_signed()])? > 0)
    }

    /// A notice for an endpoint. Answers how many older ones had to make room for it.
    pub fn notice(
        &self,
        endpoint: &str,
        alert: u64,
        body: &str,
        now_ns: i64,
    ) -> rusqlite::Result<usize> {
        let sql = "INSERT INTO notices (endpoint, alert, made_ns, due_ns, tries, body) \
                   VALUES (?1, ?2, ?3, ?3, 0, ?4)";
        self.0.prepare_cached(sql)?.execute(params![
            endpoint,
            alert.cast_signed(),
            now_ns,
            body
        ])?;
        let sql = "DELETE FROM notices WHERE endpoint = ?1 AND id <= \
                   (SELECT id FROM notices WHERE endpoint = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        let most = i64::try_from(ALERT_NOTICES_MAX).unwrap_or(i64::MAX);
        self.0.prepare_cached(sql)?.execute(params![endpoint, most])
    }

    /// A notice was sent, or never will be.
    pub fn done(&self, id: u64) -> rusqlite::Result<()> {
        self.0.prepare_cached("DELETE FROM notices WHERE id = ?1")?.execute([id.cast_signed()])?;
        Ok(())
    }

    /// A notice is tried again, then.
    pub fn again(&self, id: u64, due_ns: i64) -> rusqlite::Result<()> {
        let sql = "UPDATE notices SET tries = tries + 1, due_ns = ?2 WHERE id = ?1";
        self.0.prepare_cached(sql)?.execute(params![id.cast_signed(), due_ns])?;
        Ok(())
    }
}

/// The group of an alert as it is kept.
pub fn groups_text(group: &[AlertGroup]) -> String {
    let pairs: Vec<(&str, &str)> =
        group.iter().map(|it| (it.field.as_str(), it.value.as_str())).collect();
    serde_json::json!(pairs).to_string()
}

fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let groups: String = row.get(4)?;
    let pairs: Vec<(String, String)> = serde_json::from_str(&groups).unwrap_or_default();
    let number = |place| row.get::<_, i64>(place).map(i64::cast_unsigned);
    Ok(Alert {
        id: number(0)?,
        rule: row.get(1)?,
        severity: row.get(2)?,
        title: row.get(3)?,
        group: pairs.into_iter().map(|(field, value)| AlertGroup { field, value }).collect(),
        count: number(5)?,
        bytes: number(6)?,
        first_ns: row.get(7)?,
        last_ns: row.get(8)?,
        first_cursor: number(9)?,
        last_cursor: number(10)?,
        opened_ns: row.get(11)?,
        closed_ns: row.get(12)?,
        acknowledged_by: row.get(13)?,
        acknowledged_ns: row.get(14)?,
        note: row.get(15)?,
        silenced: row.get(16)?,
    })
}
