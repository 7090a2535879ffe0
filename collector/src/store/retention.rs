//! How long events are kept. What goes are whole files, the oldest first; the one that is written
//! to stays.

use std::sync::Arc;

use jiff::ToSpan as _;
use jiff::civil::Date;
use sekimori_proto::v1::Removed;
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
pub async fn retain<T, F>(files: Files, keep: Keep, mut tell: T)
where
    T: FnMut(Removed) -> F,
    F: Future<Output = bool>,
{
    if keep == Keep::default() {
        return std::future::pending().await;
    }
    let mut ticks = time::interval(RETENTION_INTERVAL);
    loop {
        ticks.tick().await;
        retain_once(&files, keep, today(), &mut tell).await;
    }
}

async fn retain_once<T, F>(files: &Files, keep: Keep, today: Date, tell: &mut T)
where
    T: FnMut(Removed) -> F,
    F: Future<Output = bool>,
{
    let Some((oldest, reason)) = due(files, keep, today) else { return };
    let span = oldest.span();
    let events = span.last.saturating_sub(span.before);
    let removed = Removed { through_cursor: span.last, events, reason: reason.clone() };
    // A full disk has no room for the record: it is written when there is.
    let told = tell(removed.clone()).await;
    let files = files.clone();
    // Removing a large file takes the file system a while.
    let _ = tokio::task::spawn_blocking(move || remove(&files, &oldest, &reason)).await;
    if !told && !tell(removed).await {
        tracing::error!("that events were removed could not be recorded");
    }
}

/// The oldest file and why it is to go: it is too old, or there are too many bytes. One at a time:
/// when a clock jumps by years, there is time to notice before much is gone.
fn due(files: &Files, keep: Keep, today: Date) -> Option<(Arc<StoreFile>, String)> {
    let list = files.list();
    let [oldest, _, ..] = list.as_slice() else { return None };
    let reason = too_many(&list, keep).or_else(|| too_old(oldest, keep, today))?;
    Some((Arc::clone(oldest), reason))
}

fn remove(files: &Files, oldest: &StoreFile, reason: &str) {
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
    use crate::store::files::Span;

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
            if let Some((oldest, reason)) = due(&files, keep, today.parse().unwrap()) {
                remove(&files, &oldest, &reason);
            }
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

    #[tokio::test]
    async fn one_file_a_time_and_told_before() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        for (index, file) in files.list().iter().enumerate() {
            file.set_span(Span { last: 10 * (index as u64 + 1), ..Span::empty(10 * index as u64) });
        }
        let mut told = Vec::new();
        let mut tell = |removed: Removed| {
            let first = files.list().first().map(|it| it.number);
            told.push((removed.through_cursor, removed.events, first));
            // The disk is full as long as the file is there.
            std::future::ready(first != Some(1))
        };
        let keep = Keep { days: Some(1), bytes: None };
        let today = "2036-11-09".parse().unwrap();
        retain_once(&files, keep, today, &mut tell).await;
        retain_once(&files, keep, today, &mut tell).await;
        // The first is told again, now that there is room, and the last one stays.
        retain_once(&files, keep, today, &mut tell).await;
        assert_eq!(told, [(10, 10, Some(1)), (10, 10, Some(2)), (20, 10, Some(2))]);
    }
}
