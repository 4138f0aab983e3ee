//! Dates and times in `DateStyle=ISO`, `TimeZone=UTC`: `2026-11-25 10:00:00.5+00`, `0044-03-15 BC`, `infinity`.

use super::{MALFORMED, OUT_OF_RANGE, Unfit};

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01; `i32::MAX` and `i32::MIN` for infinity and -infinity.
pub(in crate::postgres) fn date(text: &[u8]) -> Result<i32, Unfit> {
    match text {
        b"infinity" => return Ok(i32::MAX),
        b"-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let (text, before_christ) = era(text);
    let mut at = Cursor(text);
    let days = at.day(before_christ)?;
    at.end()?;
    i32::try_from(days).map_err(|_| OUT_OF_RANGE)
}

/// Microseconds since midnight; `24:00:00` is allowed.
pub(in crate::postgres) fn time(text: &[u8]) -> Result<i64, Unfit> {
    let mut at = Cursor(text);
    let micros = at.time()?;
    at.end()?;
    if micros <= MICROS_A_DAY { Ok(micros) } else { Err(MALFORMED) }
}

/// Microseconds since 1970-01-01, with or without a zone (`+00`); `i64::MAX` and `i64::MIN` for infinity and
/// -infinity.
pub(in crate::postgres) fn timestamp(text: &[u8]) -> Result<i64, Unfit> {
    match text {
        b"infinity" => return Ok(i64::MAX),
        b"-infinity" => return Ok(i64::MIN),
        _ => {}
    }
    let (text, before_christ) = era(text);
    let mut at = Cursor(text);
    let days = at.day(before_christ)?;
    at.expect(b' ')?;
    let time = at.time()?;
    let zone = at.zone()?;
    at.end()?;
    let micros = days.checked_mul(MICROS_A_DAY).and_then(|d| d.checked_add(time - zone)).ok_or(OUT_OF_RANGE)?;
    // The ends mean infinity.
    if micros == i64::MAX || micros == i64::MIN { Err(OUT_OF_RANGE) } else { Ok(micros) }
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, which is PostgreSQL's.
/// <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn end(&self) -> Result<(), Unfit> {
        if self.0.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }

    fn accept(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unfit> {
        if self.accept(byte) { Ok(()) } else { Err(MALFORMED) }
    }

    #[inline]
    fn digit(&mut self) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        let digit = first.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        self.0 = rest;
        Some(i64::from(digit))
    }

    #[inline]
    fn two(&mut self) -> Result<i64, Unfit> {
        match (self.digit(), self.digit()) {
            (Some(tens), Some(ones)) => Ok(tens * 10 + ones),
            _ => Err(MALFORMED),
        }
    }

    /// `YYYY-MM-DD`; the year has four to seven digits.
    fn day(&mut self, before_christ: bool) -> Result<i64, Unfit> {
        let mut year = 0;
        let mut digits = 0;
        while let Some(digit) = self.digit() {
            year = year * 10 + digit;
            digits += 1;
            if digits > 7 {
                return Err(MALFORMED);
            }
        }
        self.expect(b'-')?;
        let month = self.two()?;
        self.expect(b'-')?;
        let day = self.two()?;
        if digits < 4 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(MALFORMED);
        }
        // There is no year 0: 1 BC is the astronomers' 0.
        Ok(days_from_civil(if before_christ { 1 - year } else { year }, month, day))
    }

    /// `HH:MM:SS[.ffffff]` in microseconds.
    fn time(&mut self) -> Result<i64, Unfit> {
        let hours = self.two()?;
        self.expect(b':')?;
        let minutes = self.two()?;
        self.expect(b':')?;
        let seconds = self.two()?;
        let mut micros = 0;
        if self.accept(b'.') {
            let mut unit = 1_000_000;
            while let Some(digit) = self.digit() {
                if unit == 1 {
                    return Err(MALFORMED);
                }
                unit /= 10;
                micros += digit * unit;
            }
        }
        Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
    }

    /// `+HH[:MM[:SS]]` in microseconds, 0 where there is none.
    fn zone(&mut self) -> Result<i64, Unfit> {
        let sign = if self.accept(b'+') {
            1
        } else if self.accept(b'-') {
            -1
        } else {
            return Ok(0);
        };
        let mut seconds = self.two()? * 3_600;
        if self.accept(b':') {
            seconds += self.two()? * 60;
            if self.accept(b':') {
                seconds += self.two()?;
            }
        }
        Ok(sign * seconds * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The inverse of `days_from_civil`, from the same page.
    fn civil(days: i64) -> (i64, i64, i64) {
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
    }

    fn iso(days: i64, clock: &str) -> String {
        let (year, month, day) = civil(days);
        if year > 0 {
            format!("{year:04}-{month:02}-{day:02}{clock}")
        } else {
            format!("{:04}-{month:02}-{day:02}{clock} BC", 1 - year)
        }
    }

    proptest! {
        #[test]
        fn every_date_of_postgresql_comes_back(days in -2_440_588i32..=2_145_042_905) {
            prop_assert_eq!(date(iso(i64::from(days), "").as_bytes()), Ok(days));
        }

        #[test]
        fn every_timestamp_of_postgresql_comes_back(micros in -210_863_520_000_000_000i64..9_223_371_331_200_000_000, zoned: bool) {
            let (days, clock) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
            let (seconds, fraction) = (clock / 1_000_000, clock % 1_000_000);
            let mut text = format!(" {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            if fraction > 0 {
                text += format!(".{fraction:06}").trim_end_matches('0');
            }
            if zoned {
                text += "+00";
            }
            prop_assert_eq!(timestamp(iso(days, &text).as_bytes()), Ok(micros));
        }
    }

    #[test]
    fn known_days_are_where_they_belong() {
        assert_eq!(date(b"1970-01-01"), Ok(0));
        assert_eq!(date(b"2000-02-29"), Ok(11_016));
        assert_eq!(date(b"0001-12-31 BC"), Ok(-719_163));
        assert_eq!(date(b"5874897-12-31"), Ok(2_145_042_905));
        assert_eq!(date(b"4714-11-24 BC"), Ok(-2_440_588));
        assert_eq!(date(b"infinity"), Ok(i32::MAX));
        assert_eq!(date(b"-infinity"), Ok(i32::MIN));
    }

    #[test]
    fn times_and_zones_are_read() {
        assert_eq!(time(b"23:59:59.999999"), Ok(MICROS_A_DAY - 1));
        assert_eq!(time(b"24:00:00"), Ok(MICROS_A_DAY));
        assert_eq!(time(b"24:00:01"), Err(MALFORMED));
        assert_eq!(timestamp(b"1970-01-01 02:00:00+02"), Ok(0));
        assert_eq!(timestamp(b"1969-12-31 22:29:50-01:30:10"), Ok(0));
        assert_eq!(timestamp(b"2026-11-25 10:00:00.5"), Ok(1_795_600_800_500_000));
    }

    #[test]
    fn what_is_beyond_64_bits_is_refused_and_not_wrapped() {
        assert_eq!(timestamp(b"294276-12-31 23:59:59.999999"), Err(OUT_OF_RANGE));
        assert_eq!(timestamp(b"294247-01-10 04:00:54.775807"), Err(OUT_OF_RANGE));
        assert_eq!(timestamp(b"294247-01-10 04:00:54.775806"), Ok(i64::MAX - 1));
        for wrong in
            ["", "2026", "2026-13-01", "2026-01-01T00:00:00", "2026-01-01 00:00", "2026-01-01 00:00:00.1234567"]
        {
            assert_eq!(timestamp(wrong.as_bytes()), Err(MALFORMED), "{wrong}");
        }
    }
}
