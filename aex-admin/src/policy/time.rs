//! What policies know of the time: plain numbers of the clock in a time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyTime {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 1 to 7, Monday is 1.
    pub weekday: u8,
    /// `20260131`.
    pub date: u32,
}

impl PolicyTime {
    /// What a clock in `zone` shows; zeros for a time beyond the calendar.
    #[must_use]
    pub fn at(zone: &TimeZone, wall_ms: i64) -> Self {
        let Ok(now) = Timestamp::from_millisecond(wall_ms) else {
            return Self::default();
        };
        let now = now.to_zoned(zone.clone());
        let small = |number: i8| u8::try_from(number).unwrap_or(0);
        let date =
            i32::from(now.year()) * 10_000 + i32::from(now.month()) * 100 + i32::from(now.day());
        Self {
            hour: small(now.hour()),
            minute: small(now.minute()),
            weekday: small(now.weekday().to_monday_one_offset()),
            date: u32::try_from(date).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::period;

    #[test]
    fn the_clock_shows_what_its_zone_has() {
        let at_ms = "2026-11-29T23:30:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_millisecond();
        for (zone, hour, minute, weekday, date) in [
            ("UTC", 23, 30, 7, 20_261_129),
            ("Europe/Berlin", 0, 30, 1, 20_261_130),
            ("Asia/Kolkata", 5, 0, 1, 20_261_130),
        ] {
            let time = PolicyTime::at(&period::zone(zone).unwrap(), at_ms);
            let expected = PolicyTime {
                hour,
                minute,
                weekday,
                date,
            };
            assert_eq!(time, expected, "{zone}");
        }
        assert_eq!(
            PolicyTime::at(&TimeZone::UTC, i64::MAX),
            PolicyTime::default()
        );
    }
}
