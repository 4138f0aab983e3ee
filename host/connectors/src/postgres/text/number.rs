//! Integers, floats and decimals.

use super::{DECIMAL_OVERFLOW, MALFORMED, NAN, Unfit};

/// Sign and digits of a whole number.
#[inline]
pub(in crate::postgres) fn integer(text: &[u8]) -> Result<i64, Unfit> {
    let (negative, digits) = signed(text);
    // 19 digits fit into a u64 whatever they are.
    if digits.is_empty() || digits.len() > 19 {
        return Err(MALFORMED);
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(MALFORMED);
        }
        value = value * 10 + u64::from(digit);
    }
    if negative {
        0i64.checked_sub_unsigned(value).ok_or(MALFORMED)
    } else {
        i64::try_from(value).map_err(|_| MALFORMED)
    }
}

#[inline]
fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    }
}

/// Also `NaN`, `Infinity` and `-Infinity`, which PostgreSQL and Rust write alike.
pub(in crate::postgres) fn float64(text: &[u8]) -> Result<f64, Unfit> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(MALFORMED)
}

pub(in crate::postgres) fn float32(text: &[u8]) -> Result<f32, Unfit> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(MALFORMED)
}

/// The unscaled value with `scale` digits after the point: `-12.50` with scale 2 is -1250.
///
/// `precision` ≤ 38; digits beyond the scale must be zeros.
pub(in crate::postgres) fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, Unfit> {
    if text == b"NaN" {
        return Err(NAN);
    }
    let (negative, digits) = signed(text);
    let mut value = 0i128;
    let mut places: Option<u8> = None;
    let mut seen = false;
    for &byte in digits {
        if byte == b'.' && places.is_none() {
            places = Some(0);
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(if text.ends_with(b"Infinity") { DECIMAL_OVERFLOW } else { MALFORMED });
        }
        seen = true;
        match &mut places {
            Some(places) if *places == scale => {
                if digit != 0 {
                    return Err(DECIMAL_OVERFLOW);
                }
                continue;
            }
            Some(places) => *places += 1,
            None => {}
        }
        value = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit))).ok_or(DECIMAL_OVERFLOW)?;
    }
    if !seen {
        return Err(MALFORMED);
    }
    let missing = scale - places.unwrap_or(0);
    let unscaled = POWERS.get(usize::from(missing)).and_then(|p| value.checked_mul(*p)).ok_or(DECIMAL_OVERFLOW)?;
    match POWERS.get(usize::from(precision)) {
        Some(limit) if unscaled < *limit => Ok(if negative { -unscaled } else { unscaled }),
        _ => Err(DECIMAL_OVERFLOW),
    }
}

/// 10^0 to 10^38.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_comes_back(n: i64, small in -1000i64..1000) {
            prop_assert_eq!(integer(n.to_string().as_bytes()), Ok(n));
            prop_assert_eq!(integer(small.to_string().as_bytes()), Ok(small));
        }

        #[test]
        fn every_float_comes_back(x: f64, y: f32) {
            prop_assert_eq!(float64(x.to_string().as_bytes()), Ok(x));
            prop_assert_eq!(float32(y.to_string().as_bytes()), Ok(y));
        }

        #[test]
        fn every_decimal_comes_back(unscaled in -99_999_999_999_999_999_999_999_999_999_999_999_999i128..=99_999_999_999_999_999_999_999_999_999_999_999_999, scale in 0u8..=38) {
            let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if unscaled < 0 { "-" } else { "" };
            let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Ok(unscaled));
        }
    }

    #[test]
    fn the_ends_of_the_integers_are_read_and_what_is_beyond_is_not() {
        assert_eq!(integer(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), Err(MALFORMED));
        for wrong in ["", "-", "1-", "+1", "99999999999999999999"] {
            assert_eq!(integer(wrong.as_bytes()), Err(MALFORMED), "{wrong}");
        }
    }

    #[test]
    fn special_floats_are_read() {
        assert!(float64(b"NaN").unwrap().is_nan());
        assert_eq!(float64(b"-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(float64(b"1e-300"), Ok(1e-300));
        assert_eq!(float64(b"-0").unwrap().to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn decimals_that_do_not_fit_are_refused_by_name() {
        assert_eq!(decimal(b"-12.5", 4, 2), Ok(-1250));
        assert_eq!(decimal(b"12.50000", 4, 2), Ok(1250));
        assert_eq!(decimal(b"12.501", 4, 2), Err(DECIMAL_OVERFLOW));
        assert_eq!(decimal(b"100", 4, 2), Err(DECIMAL_OVERFLOW));
        assert_eq!(decimal(b"NaN", 4, 2), Err(NAN));
        assert_eq!(decimal(b"-Infinity", 4, 2), Err(DECIMAL_OVERFLOW));
        for wrong in ["", ".", "1.2.3", "1e5", "-"] {
            assert_eq!(decimal(wrong.as_bytes(), 38, 5), Err(MALFORMED), "{wrong}");
        }
    }
}
