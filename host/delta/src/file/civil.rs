//! Days and microseconds to civil dates, for statistics and partition values.

use std::fmt::Write as _;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Proleptic Gregorian year, month and day (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// `YYYY-MM-DD`; `None` outside the years 1 to 9999, for which readers do not agree on a text.
pub(crate) fn date(days: i32) -> Option<String> {
    let (year, month, day) = civil(i64::from(days));
    (1..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// Date and time of day with six digits of fraction, joined by `separator`; `None` outside the years 1 to 9999.
pub(crate) fn timestamp(micros: i64, separator: char) -> Option<String> {
    let days = i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok()?;
    let mut text = date(days)?;
    let of_day = micros.rem_euclid(MICROS_A_DAY);
    let seconds = of_day / 1_000_000;
    let (hour, minute, second, micro) = (seconds / 3600, seconds / 60 % 60, seconds % 60, of_day % 1_000_000);
    write!(text, "{separator}{hour:02}:{minute:02}:{second:02}.{micro:06}").ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, text) in [
            (0, Some("1970-01-01")),
            (-1, Some("1969-12-31")),
            (19_782, Some("2024-02-29")),
            (2_932_896, Some("9999-12-31")),
            (2_932_897, None),
            (-719_162, Some("0001-01-01")),
            (i32::MAX, None),
        ] {
            assert_eq!(date(days).as_deref(), text, "{days}");
        }
    }

    #[test]
    fn micros_become_timestamps() {
        assert_eq!(timestamp(-1, 'T').unwrap(), "1969-12-31T23:59:59.999999");
        assert_eq!(timestamp(i64::MAX, 'T'), None);
    }
}
