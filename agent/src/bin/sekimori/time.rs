//! Times as people give them and read them.

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp, Zoned, tz::TimeZone};

/// A time on the command line: RFC 3339, a local date or time, or a distance into the past.
pub fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<i64, String> {
    let text = text.trim();
    let zone = now.time_zone();
    let time = if text == "now" {
        Some(now.timestamp())
    } else if text == "today" {
        local(now.date().at(0, 0, 0, 0), zone)
    } else if text == "yesterday" {
        now.date().yesterday().ok().and_then(|date| local(date.at(0, 0, 0, 0), zone))
    } else if let Ok(time) = text.parse::<Timestamp>() {
        Some(time)
    } else if let Ok(time) = text.parse::<DateTime>() {
        local(time, zone)
    } else if let Ok(date) = text.parse::<Date>() {
        local(date.at(0, 0, 0, 0), zone)
    } else {
        past(text, now)
    };
    let ns = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    ns.ok_or_else(|| {
        format!(
            "{text:?} is no time; give RFC 3339 (2026-01-31T12:00:00Z), a local date or time \
             (2026-01-31, 2026-01-31T12:00), today, yesterday, or a distance (-10m, '2 hours ago')"
        )
    })
}

fn local(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    time.to_zoned(zone.clone()).ok().map(|time| time.timestamp())
}

/// Only what says that it means the past: a bare `10m` could be meant either way.
fn past(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    if !span.is_negative() {
        return None;
    }
    now.checked_add(span).ok().map(|time| time.timestamp())
}

/// Time of day to the millisecond in `zone`, after the date when asked for.
pub fn show(ns: i64, dated: bool, zone: &TimeZone) -> String {
    let Ok(time) = Timestamp::from_nanosecond(ns.into()) else { return "?".to_owned() };
    let format = if dated { "%Y-%m-%d %H:%M:%S%.3f" } else { "%H:%M:%S%.3f" };
    time.to_zoned(zone.clone()).strftime(format).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rstest::rstest;

    use super::*;

    fn now() -> Zoned {
        "2026-03-02T01:30:00+09:00[Asia/Tokyo]".parse().unwrap()
    }

    #[rstest]
    #[case("2026-03-01T16:00:00Z", "2026-03-01T16:00:00Z")]
    #[case("2026-03-02T01:00:00+09:00", "2026-03-01T16:00:00Z")]
    #[case("2026-03-02T01:00", "2026-03-01T16:00:00Z")]
    #[case("2026-03-02 01:00:00.5", "2026-03-01T16:00:00.5Z")]
    #[case("2026-03-02", "2026-03-01T15:00:00Z")]
    #[case("-10m", "2026-03-01T16:20:00Z")]
    #[case("10 minutes ago", "2026-03-01T16:20:00Z")]
    #[case("1h 30m ago", "2026-03-01T15:00:00Z")]
    #[case("2 days ago", "2026-02-27T16:30:00Z")]
    #[case("now", "2026-03-01T16:30:00Z")]
    #[case("today", "2026-03-01T15:00:00Z")]
    #[case("yesterday", "2026-02-28T15:00:00Z")]
    fn times_are_read(#[case] text: &str, #[case] time: Timestamp) {
        let ns = i64::try_from(time.as_nanosecond()).unwrap();
        assert_eq!(parse_at(text, &now()), Ok(ns));
    }

    #[rstest]
    #[case("10m")]
    #[case("yesterday-ish")]
    #[case("2026-13-01")]
    #[case("")]
    fn what_is_no_time_is_refused(#[case] text: &str) {
        assert!(parse_at(text, &now()).unwrap_err().contains("is no time"));
    }

    #[test]
    fn times_are_shown_in_the_zone() {
        let ns = 1_772_382_600_123_456_789;
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        assert_eq!(show(ns, false, &zone), "01:30:00.123");
        assert_eq!(show(ns, true, &zone), "2026-03-02 01:30:00.123");
        assert_eq!(show(ns, true, &TimeZone::UTC), "2026-03-01 16:30:00.123");
    }
}
