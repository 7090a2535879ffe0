//! How long events are kept. What goes are whole files, the oldest first; the one that is written
//! to stays.

use std::sync::Arc;

use jiff::ToSpan as _;
use jiff::civil::Date;
use tokio::time;

use super::files::{Files, StoreFile, today};
use crate::limits::RETENTION_INTERVAL;

/// What is kept; everything without limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Days before today whose events are kept, counted by the day on which they arrived (UTC).
    pub days: Option<u32>,
    /// Bytes on the disk.
    pub bytes: Option<u64>,
}

/// Looks after the files for ever.
pub async fn retain(files: Files, keep: Keep) {
    if keep == Keep::default() {
        return std::future::pending().await;
    }
    let mut ticks = time::interval(RETENTION_INTERVAL);
    loop {
        ticks.tick().await;
        let files = files.clone();
        // Removing a large file takes the file system a while.
        let _ = tokio::task::spawn_blocking(move || remove_one(&files, keep, today())).await;
    }
}

/// Removes the oldest file when it is too old, or when there are too many bytes. One at a time: when
/// a clock jumps by years, there is time to notice before much is gone.
fn remove_one(files: &Files, keep: Keep, today: Date) {
    let list = files.list();
    let [oldest, _, ..] = list.as_slice() else { return };
    let Some(reason) = too_many(&list, keep).or_else(|| too_old(oldest, keep, today)) else {
        return;
    };
    let path = oldest.path.display();
    match files.remove(oldest.number) {
        Ok(()) => tracing::info!(%path, reason, "a file of the store was removed"),
        Err(error) => tracing::error!(%path, %error, "a file of the store cannot be removed"),
    }
}

fn too_old(oldest: &StoreFile, keep: Keep, today: Date) -> Option<String> {
    let days = keep.days?;
    let first = today.checked_sub(i64::from(days).days()).ok()?;
    (oldest.day < first).then(|| format!("{} is more than {days} days ago", oldest.day))
}

fn too_many(list: &[Arc<StoreFile>], keep: Keep) -> Option<String> {
    let most = keep.bytes?;
    let bytes: u64 = list.iter().map(|file| file.bytes()).sum();
    (bytes > most).then(|| format!("the store has {bytes} bytes, at most {most}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn files(dir: &std::path::Path) -> Files {
        for name in ["000001-2026-11-01.db", "000002-2026-11-02.db", "000003-2026-11-09.db"] {
            std::fs::write(dir.join(name), [0; 1000]).unwrap();
        }
        Files::of(dir).unwrap()
    }

    fn left(keep: Keep, today: &str) -> Vec<u64> {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        for _ in 0..5 {
            remove_one(&files, keep, today.parse().unwrap());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files.list().len());
        files.list().iter().map(|file| file.number).collect()
    }

    #[test]
    fn days() {
        let keep = |days| Keep { days: Some(days), bytes: None };
        assert_eq!(left(keep(8), "2026-11-09"), [1, 2, 3]);
        assert_eq!(left(keep(7), "2026-11-09"), [2, 3]);
        assert_eq!(left(keep(0), "2026-11-10"), [3], "the last one stays");
        assert_eq!(left(keep(1), "2026-10-01"), [1, 2, 3], "a clock that went back");
        assert_eq!(left(Keep::default(), "2026-11-09"), [1, 2, 3]);
    }

    #[test]
    fn bytes() {
        let keep = |bytes| Keep { days: None, bytes: Some(bytes) };
        assert_eq!(left(keep(3000), "2026-11-09"), [1, 2, 3]);
        assert_eq!(left(keep(2999), "2026-11-09"), [2, 3]);
        assert_eq!(left(keep(10), "2026-11-09"), [3]);
    }

    #[test]
    fn one_file_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        remove_one(&files, Keep { days: Some(1), bytes: None }, "2036-11-09".parse().unwrap());
        assert_eq!(files.list().len(), 2);
    }
}
