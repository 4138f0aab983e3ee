//! PostgreSQL's text form of values, read byte by byte into what Arrow stores, without allocating.
//!
//! The session fixes the formats (`DateStyle=ISO`, `TimeZone=UTC`, `bytea_output=hex`): see `connection.rs`.

mod array;
mod datetime;
mod number;

pub(super) use array::{Element, json_array};
pub(super) use datetime::{date, time, timestamp};
pub(super) use number::{decimal, float32, float64, integer};

/// Why a value can not be represented: the change becomes a dead letter. Never quotes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit {
    /// Stable: the dead letter's code.
    pub(super) code: &'static str,
    pub(super) reason: &'static str,
}

impl Unfit {
    const fn new(code: &'static str, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

pub(super) const NAN: Unfit =
    Unfit::new("type.numeric_nan", "NaN in a numeric column with a precision: a decimal has no such value");
pub(super) const DECIMAL_OVERFLOW: Unfit =
    Unfit::new("type.decimal_overflow", "more digits than the column's precision and scale");
pub(super) const OUT_OF_RANGE: Unfit =
    Unfit::new("type.out_of_range", "outside of what 64 bits of microseconds since 1970 hold (years after 294246)");
pub(super) const MALFORMED: Unfit = Unfit::new("type.malformed", "not the text form that PostgreSQL gives this type");
pub(super) const NOT_UTF8: Unfit =
    Unfit::new("type.not_utf8", "not UTF-8: the database has the encoding SQL_ASCII and holds other bytes");

/// `t` or `f`.
pub(super) fn boolean(text: &[u8]) -> Result<bool, Unfit> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(MALFORMED),
    }
}

pub(super) fn utf8(text: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(text).map_err(|_| NOT_UTF8)
}

/// `\x` and two hexadecimal digits a byte, appended to `out`.
pub(super) fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let digits = text.strip_prefix(b"\\x").ok_or(MALFORMED)?;
    let (pairs, []) = digits.as_chunks::<2>() else { return Err(MALFORMED) };
    out.reserve(pairs.len());
    for pair in pairs {
        out.push(hex_byte(pair).ok_or(MALFORMED)?);
    }
    Ok(())
}

/// `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`
pub(super) fn uuid(text: &[u8]) -> Result<[u8; 16], Unfit> {
    /// Where the sixteen pairs of digits begin.
    const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().map_err(|_| MALFORMED)?;
    if [text[8], text[13], text[18], text[23]] != *b"----" {
        return Err(MALFORMED);
    }
    let mut bytes = [0; 16];
    for (byte, at) in bytes.iter_mut().zip(AT) {
        *byte = hex_byte(&[text[at], text[at + 1]]).ok_or(MALFORMED)?;
    }
    Ok(bytes)
}

#[inline]
fn hex_byte(pair: &[u8; 2]) -> Option<u8> {
    const NONE: u8 = 0xff;
    const DIGITS: [u8; 256] = {
        let mut table = [NONE; 256];
        let mut i = 0;
        while i < 10 {
            table[b'0' as usize + i] = i as u8;
            i += 1;
        }
        let mut i = 0;
        while i < 6 {
            table[b'a' as usize + i] = 10 + i as u8;
            table[b'A' as usize + i] = 10 + i as u8;
            i += 1;
        }
        table
    };
    let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
    (high != NONE && low != NONE).then_some(high << 4 | low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytea_comes_back_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text: String = "\\x".chars().chain(bytes.iter().flat_map(|b| format!("{b:02x}").chars().collect::<Vec<_>>())).collect();
            let mut out = Vec::new();
            bytea(text.as_bytes(), &mut out).unwrap();
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            every_parser(&bytes);
        }

        #[test]
        fn bytes_of_the_right_alphabet_never_panic(
            bytes in prop::collection::vec(prop::sample::select(b"0123456789-:. +TBCinfyNa{}\",\\ef".to_vec()), 0..40),
        ) {
            every_parser(&bytes);
        }
    }

    fn every_parser(bytes: &[u8]) {
        let mut out = Vec::new();
        let any = [
            boolean(bytes).is_ok(),
            utf8(bytes).is_ok(),
            bytea(bytes, &mut out).is_ok(),
            uuid(bytes).is_ok(),
            integer(bytes).is_ok(),
            float32(bytes).is_ok(),
            float64(bytes).is_ok(),
            decimal(bytes, 38, 10).is_ok(),
            date(bytes).is_ok(),
            time(bytes).is_ok(),
            timestamp(bytes).is_ok(),
            json_array(bytes, Element::Number, b',', &mut String::new()).is_ok(),
            json_array(bytes, Element::Text, b',', &mut String::new()).is_ok(),
        ];
        assert!(any.iter().filter(|ok| **ok).count() <= any.len());
    }

    #[test]
    fn uuids_are_read_and_what_is_none_is_not() {
        let bytes = uuid(b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").unwrap();
        assert_eq!(bytes[..4], [0xa0, 0xee, 0xbc, 0x99]);
        assert_eq!(bytes[15], 0x11);
        assert_eq!(uuid(b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"), Err(MALFORMED));
        assert_eq!(uuid(b"a0eebc99_9c0b-4ef8-bb6d-6bb9bd380a11"), Err(MALFORMED));
    }
}
