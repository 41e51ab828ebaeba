//! The wall clock as policies see it.

/// A moment in the time zone of the policies, as plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

impl PolicyTime {
    /// UTC.
    #[must_use]
    pub fn utc(wall_ms: i64) -> Self {
        Self::at_offset(wall_ms, 0)
    }

    /// In a zone that is `offset_ms` ahead of UTC at that moment.
    #[must_use]
    pub fn at_offset(wall_ms: i64, offset_ms: i64) -> Self {
        let local_ms = wall_ms.saturating_add(offset_ms);
        let days = local_ms.div_euclid(DAY_MS);
        let minutes = local_ms.rem_euclid(DAY_MS) / MINUTE_MS;
        Self {
            hour: small(minutes / 60),
            minute: small(minutes % 60),
            // 1 January 1970 was a Thursday.
            weekday: small((days + 3).rem_euclid(7) + 1),
            date: date(days),
        }
    }
}

fn small(number: i64) -> u8 {
    u8::try_from(number).unwrap_or(0)
}

/// Days since 1 January 1970 to year, month and day, in the Gregorian calendar. Years are counted
/// from March, so that the day that some years have more comes last.
fn date(days: i64) -> u32 {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    u32::try_from(year * 10_000 + month * 100 + day).unwrap_or(0)
}
