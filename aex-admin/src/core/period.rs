//! Calendar periods: where an hour, a day, a week or a month begins and ends in a time zone. Pure; the time
//! zones are the ones that are built in, whatever the machine has.

use aex_admin_proto::limit::Span;
use jiff::civil::Weekday;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// A time zone by its IANA name; nothing when there is none of that name.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// When the period around `wall_ms` began and when the next begins, Unix milliseconds. Where the clock is
/// set back an hour lasts as long as it shows; a span that is no calendar period has no bounds, as a time
/// beyond the calendar.
#[must_use]
pub fn around(span: Span, zone: &TimeZone, wall_ms: i64) -> Option<(i64, i64)> {
    let now = Timestamp::from_millisecond(wall_ms).ok()?;
    let now = now.to_zoned(zone.clone());
    let begin = begin(span, &now)?;
    let next = match span {
        Span::Hour => begin.checked_add(SignedDuration::from_hours(1)),
        Span::Day => begin.checked_add(1.day()),
        Span::Week => begin.checked_add(1.week()),
        Span::Month => begin.checked_add(1.month()),
        _ => return None,
    };
    let next = next.ok()?.start_of(span)?;
    Some((
        begin.timestamp().as_millisecond(),
        next.timestamp().as_millisecond(),
    ))
}

fn begin(span: Span, now: &Zoned) -> Option<Zoned> {
    match span {
        Span::Hour => {
            // By the instant, not by what the clock shows: an hour that is shown twice is two hours.
            let into = SignedDuration::new(
                i64::from(now.minute()) * 60 + i64::from(now.second()),
                now.subsec_nanosecond(),
            );
            now.checked_sub(into).ok()
        }
        Span::Day => now.start_of_day().ok(),
        Span::Week => {
            let monday = now.weekday().since(Weekday::Monday);
            now.checked_sub(i64::from(monday).days())
                .ok()?
                .start_of_day()
                .ok()
        }
        Span::Month => now.first_of_month().ok()?.start_of_day().ok(),
        _ => None,
    }
}

trait StartOf: Sized {
    fn start_of(self, span: Span) -> Option<Self>;
}

impl StartOf for Zoned {
    /// A day may begin later than midnight.
    fn start_of(self, span: Span) -> Option<Self> {
        match span {
            Span::Hour => Some(self),
            _ => self.start_of_day().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn periods_begin_and_end_by_the_calendar() {
        for (span, name, at, begin, end) in [
            (
                Span::Hour,
                "UTC",
                "2026-11-26T19:47:27.5Z",
                "2026-11-26T19:00:00Z",
                "2026-11-26T20:00:00Z",
            ),
            (
                Span::Day,
                "UTC",
                "2026-11-26T00:00:00Z",
                "2026-11-26T00:00:00Z",
                "2026-11-27T00:00:00Z",
            ),
            (
                Span::Week,
                "UTC",
                "2026-11-26T19:00:00Z",
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            (
                Span::Month,
                "UTC",
                "2028-02-29T23:59:59Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            // A day of 25 hours, and one of 23.
            (
                Span::Day,
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                Span::Day,
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            // The hour that is shown twice.
            (
                Span::Hour,
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-25T01:00:00Z",
            ),
            (
                Span::Hour,
                "Europe/Berlin",
                "2026-10-25T01:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T02:00:00Z",
            ),
            (
                Span::Hour,
                "Asia/Kolkata",
                "2026-11-26T10:10:00Z",
                "2026-11-26T09:30:00Z",
                "2026-11-26T10:30:00Z",
            ),
            (
                Span::Week,
                "America/New_York",
                "2026-11-30T03:00:00Z",
                "2026-11-23T05:00:00Z",
                "2026-11-30T05:00:00Z",
            ),
        ] {
            let zone = zone(name).unwrap();
            let found = around(span, &zone, ms(at)).unwrap();
            assert_eq!(found, (ms(begin), ms(end)), "{span:?} {name} {at}");
        }
        assert_eq!(around(Span::Minute, &TimeZone::UTC, 0), None);
        assert_eq!(around(Span::Day, &TimeZone::UTC, i64::MAX), None);
        assert!(zone("Mars/Olympus").is_none());
    }
}
