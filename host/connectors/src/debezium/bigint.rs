//! Decimals as Kafka Connect has them: a big-endian two's complement integer, and a scale beside it.

/// The longest integer that is read: 147,455 digits, which is more than PostgreSQL's numeric has (131,072 + 16,383 would
/// be the utmost).
const LONGEST: usize = 61_232;

/// The scale that is read at most: PostgreSQL's greatest.
const GREATEST_SCALE: i32 = 16_383;

/// The unscaled value; `None` where it needs more than 16 bytes.
pub(super) fn to_i128(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let significant = bytes.iter().position(|b| *b != fill).map_or(&[][..], |at| &bytes[at..]);
    if significant.len() > 16 {
        return None;
    }
    let mut wide = [fill; 16];
    wide[16 - significant.len()..].copy_from_slice(significant);
    let value = i128::from_be_bytes(wide);
    // The sign bit may have been in what was cut.
    ((value < 0) == (fill == 0xff)).then_some(value)
}

/// Canonical text: no exponent, no leading zeros, as many decimals as the scale says.
pub(super) fn to_text(bytes: &[u8], scale: i32) -> Option<String> {
    if bytes.len() > LONGEST || !(-GREATEST_SCALE..=GREATEST_SCALE).contains(&scale) {
        return None;
    }
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    Some(place_point(&digits(magnitude(bytes, negative)), negative, scale))
}

fn place_point(digits: &str, negative: bool, scale: i32) -> String {
    let sign = if negative { "-" } else { "" };
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() as usize };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let scale = scale as usize;
    let padded = format!("{}{digits}", "0".repeat((scale + 1).saturating_sub(digits.len())));
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Little-endian limbs of 32 bits.
fn magnitude(bytes: &[u8], negative: bool) -> Vec<u32> {
    let mut limbs: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| chunk.iter().fold(if negative { u32::MAX } else { 0 }, |limb, byte| limb << 8 | u32::from(*byte)))
        .collect();
    if negative {
        let mut carry = true;
        for limb in &mut limbs {
            let (negated, overflow) = (!*limb).overflowing_add(u32::from(carry));
            (*limb, carry) = (negated, overflow);
        }
        if carry {
            limbs.push(1);
        }
    }
    limbs
}

fn digits(mut limbs: Vec<u32>) -> String {
    const GROUP: u64 = 1_000_000_000;
    let mut groups = Vec::new();
    while let Some(last) = limbs.last() {
        if *last == 0 {
            limbs.pop();
            continue;
        }
        let mut rest = 0;
        for limb in limbs.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / GROUP) as u32;
            rest = value % GROUP;
        }
        groups.push(rest);
    }
    let mut text = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        text.push_str(&format!("{group:09}"));
    }
    text
}

/// The unscaled value of a decimal's text at this scale; `None` where it is no number, or has more decimals.
pub(super) fn unscaled(text: &str, scale: i32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let negative = whole.starts_with('-');
    let whole = whole.trim_start_matches(['-', '+']);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let shift = scale.checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    for _ in 0..shift.unsigned_abs().min(64) {
        if shift > 0 {
            value = value.checked_mul(10)?;
        } else if value % 10 == 0 {
            value /= 10;
        } else {
            return None;
        }
    }
    Some(if negative { -value } else { value })
}

/// The bytes of an unscaled value, as few as hold it: what Kafka Connect writes.
pub(super) fn from_i128(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0 };
    let mut start = 0;
    while start < 15 && bytes[start] == fill && (bytes[start + 1] & 0x80 != 0) == (value < 0) {
        start += 1;
    }
    bytes[start..].to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_survive_their_bytes(value in any::<i128>(), shift in 0u32..128) {
            let value = value >> shift;
            let bytes = from_i128(value);
            prop_assert_eq!(to_i128(&bytes), Some(value));
            prop_assert_eq!(to_text(&bytes, 0), Some(value.to_string()));
        }

        #[test]
        fn text_at_a_scale_is_read_back(value in any::<i64>(), scale in 0i32..30) {
            let text = to_text(&from_i128(value.into()), scale).expect("in range");
            prop_assert_eq!(unscaled(&text, scale), Some(i128::from(value)));
        }

        #[test]
        fn arbitrary_bytes_and_texts_never_panic(bytes in any::<Vec<u8>>(), scale in any::<i32>(), text in "[-+0-9.eE]{0,12}") {
            to_i128(&bytes);
            to_text(&bytes, scale);
            unscaled(&text, scale);
        }
    }

    #[test]
    fn more_than_sixteen_bytes_are_text_only() {
        let bytes = [&[1u8][..], &[0; 16]].concat();
        assert_eq!(to_i128(&bytes), None);
        assert_eq!(to_text(&bytes, 2).as_deref(), Some("3402823669209384634633746074317682114.56"));
        let negative = [&[0xffu8][..], &[0; 16]].concat();
        assert_eq!(to_text(&negative, 0).as_deref(), Some("-340282366920938463463374607431768211456"));
        assert_eq!(to_text(&[5], -2).as_deref(), Some("500"));
        assert_eq!(to_text(&[0xff], 3).as_deref(), Some("-0.001"));
    }
}
