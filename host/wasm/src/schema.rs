//! Between the types of the core and those of the contract.

use millrace_core::schema::{ColumnType, Images};

use crate::bindings::types::{DataTypeParam, DataTypeResult, DecimalType};

/// More digits than an i64 holds travel as text.
const DIGITS_64: u8 = 18;
/// More than Arrow's Decimal128 holds are kept as text.
const DIGITS_128: u8 = 38;

pub(crate) fn images(images: Images) -> u8 {
    match images {
        Images::None => 0,
        Images::Key => 1,
        Images::Full => 2,
    }
}

/// The inverse of [`images`].
pub(crate) fn images_of(code: u8) -> Option<Images> {
    [Images::None, Images::Key, Images::Full].into_iter().find(|known| images(*known) == code)
}

/// As the plugin is told it.
pub(crate) fn data_type(ty: &ColumnType) -> DataTypeParam<'_> {
    match ty {
        ColumnType::Boolean => DataTypeParam::Boolean,
        ColumnType::Int8 => DataTypeParam::Int8,
        ColumnType::Int16 => DataTypeParam::Int16,
        ColumnType::Int32 => DataTypeParam::Int32,
        ColumnType::Int64 => DataTypeParam::Int64,
        ColumnType::UInt64 => DataTypeParam::Uint64,
        ColumnType::Float32 => DataTypeParam::Float32,
        ColumnType::Float64 => DataTypeParam::Float64,
        ColumnType::Decimal { precision, scale } => {
            let decimal = DecimalType { precision: *precision, scale: *scale };
            if *precision <= DIGITS_64 { DataTypeParam::Decimal64(decimal) } else { DataTypeParam::Decimal(decimal) }
        }
        ColumnType::BigDecimal => DataTypeParam::Decimal(DecimalType { precision: 0, scale: 0 }),
        ColumnType::Text => DataTypeParam::Text,
        ColumnType::Binary => DataTypeParam::Binary,
        ColumnType::Uuid => DataTypeParam::Uuid,
        ColumnType::Date => DataTypeParam::Date,
        ColumnType::Time => DataTypeParam::Time,
        ColumnType::Timestamp => DataTypeParam::Timestamp,
        ColumnType::TimestampTz => DataTypeParam::TimestampTz,
        ColumnType::Json => DataTypeParam::Json,
        ColumnType::Other(name) => DataTypeParam::Other(name),
    }
}

/// As the plugin declares it, or what is wrong with that.
pub(crate) fn column_type(ty: &DataTypeResult) -> Result<ColumnType, String> {
    Ok(match ty {
        DataTypeResult::Boolean => ColumnType::Boolean,
        DataTypeResult::Int8 => ColumnType::Int8,
        DataTypeResult::Int16 => ColumnType::Int16,
        DataTypeResult::Int32 => ColumnType::Int32,
        DataTypeResult::Int64 => ColumnType::Int64,
        DataTypeResult::Uint64 => ColumnType::UInt64,
        DataTypeResult::Float32 => ColumnType::Float32,
        DataTypeResult::Float64 => ColumnType::Float64,
        DataTypeResult::Decimal64(d) if (1..=DIGITS_64).contains(&d.precision) => decimal(*d)?,
        DataTypeResult::Decimal64(d) => {
            return Err(format!("decimal64 has 1 to {DIGITS_64} digits, not {}", d.precision));
        }
        DataTypeResult::Decimal(d) if d.precision == 0 || d.precision > DIGITS_128 => ColumnType::BigDecimal,
        DataTypeResult::Decimal(d) if d.precision > DIGITS_64 => decimal(*d)?,
        DataTypeResult::Decimal(d) => return Err(format!("a decimal of {} digits is a decimal64", d.precision)),
        DataTypeResult::Text => ColumnType::Text,
        DataTypeResult::Binary => ColumnType::Binary,
        DataTypeResult::Uuid => ColumnType::Uuid,
        DataTypeResult::Date => ColumnType::Date,
        DataTypeResult::Time => ColumnType::Time,
        DataTypeResult::Timestamp => ColumnType::Timestamp,
        DataTypeResult::TimestampTz => ColumnType::TimestampTz,
        DataTypeResult::Json => ColumnType::Json,
        DataTypeResult::Other(name) => ColumnType::Other(name.as_str().into()),
    })
}

fn decimal(d: DecimalType) -> Result<ColumnType, String> {
    let DecimalType { precision, scale } = d;
    match i16::from(scale) <= i16::from(precision) {
        true => Ok(ColumnType::Decimal { precision, scale }),
        false => Err(format!("decimal({precision},{scale}) has more digits after the point than digits")),
    }
}

/// `-1250` with scale 2 is `-12.50`; a negative scale adds zeros.
pub(crate) fn decimal_text(unscaled: i128, scale: i8, out: &mut String) {
    use std::fmt::Write;
    let width = usize::from(scale.unsigned_abs());
    // Writing to a String can not fail.
    if scale <= 0 {
        write!(out, "{unscaled}").ok();
        if unscaled != 0 {
            out.extend(std::iter::repeat_n('0', width));
        }
        return;
    }
    if unscaled < 0 {
        out.push('-');
    }
    let start = out.len();
    write!(out, "{:0>1$}", unscaled.unsigned_abs(), width + 1).ok();
    let point = out.len() - width;
    debug_assert!(point > start);
    out.insert(point, '.');
}

/// The inverse of [`decimal_text`]: exactly `scale` digits after the point. None: it is something else.
pub(crate) fn decimal_value(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let value = if scale > 0 {
        if fraction.len() != usize::from(scale.unsigned_abs()) || fraction.starts_with(['-', '+']) {
            return None;
        }
        let negative = whole.starts_with('-');
        let whole: i128 = whole.parse().ok()?;
        let part: i128 = fraction.parse().ok()?;
        let scaled = whole.checked_mul(10i128.checked_pow(u32::from(scale.unsigned_abs()))?)?;
        if negative { scaled.checked_sub(part)? } else { scaled.checked_add(part)? }
    } else {
        let whole: i128 = text.parse().ok()?;
        let power = 10i128.checked_pow(u32::from(scale.unsigned_abs()))?;
        (whole % power == 0).then_some(whole / power)?
    };
    (value.unsigned_abs() < 10u128.checked_pow(u32::from(precision))?).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_the_same_as_text_and_as_numbers() {
        for (unscaled, scale, text) in [
            (-1250, 2, "-12.50"),
            (5, 2, "0.05"),
            (-5, 1, "-0.5"),
            (0, 3, "0.000"),
            (12, 0, "12"),
            (12, -3, "12000"),
            (0, -3, "0"),
            (i128::MAX / 10, 10, "1701411834604692317316873037.1588410572"),
        ] {
            let mut written = String::new();
            decimal_text(unscaled, scale, &mut written);
            assert_eq!(written, text);
            assert_eq!(decimal_value(text, 38, scale), Some(unscaled), "{text}");
        }
        for (text, precision, scale) in
            [("12.5", 20, 2), ("12", 20, 2), ("100.00", 4, 2), ("NaN", 20, 2), ("1.-5", 20, 2), ("125", 20, -1)]
        {
            assert_eq!(decimal_value(text, precision, scale), None, "{text}");
        }
    }
}
