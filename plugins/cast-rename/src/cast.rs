//! From one type to another, value by value; what does not fit is rejected as `cast.invalid`.

use millrace_sdk::{Any, Bytes, Col, DataType, Decimal, Error, Out, Reject, TransformPlan, Value, scaled_text};

pub fn is_target(ty: &DataType) -> bool {
    use DataType as T;
    matches!(
        ty,
        T::Text
            | T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::Float32
            | T::Float64
            | T::Boolean
            | T::Decimal64 { .. }
            | T::Decimal { .. }
    )
}

fn is_integer(ty: &DataType) -> bool {
    matches!(ty, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// Plans the cast of a column; `scale` digits after the point become part of an integer.
pub fn plan(plan: &mut TransformPlan, column: Col, to: &DataType, scale: u8) -> Result<(), Error> {
    let from = plan.definition(column).ty.clone();
    if scale > 0 && !is_integer(to) {
        return Err(Error::config(format!("cast: scale is for integers, not {to:?}")));
    }
    match (&from, to) {
        // The usual one, straight from the bytes.
        (DataType::Text | DataType::Decimal { .. }, to) if is_integer(to) => {
            plan.convert::<Bytes>(column, to.clone(), move |text, out| match scaled_text(text, scale) {
                Some(value) => out.set_int(value),
                None => Err(invalid(&String::from_utf8_lossy(text), "an integer", scale)),
            });
        }
        _ => {
            let target = to.clone();
            plan.convert::<Any>(column, to.clone(), move |value, out| cast(&value, &target, scale, out));
        }
    }
    Ok(())
}

fn cast(value: &Value<'_>, to: &DataType, scale: u8, out: &mut Out) -> Result<(), Reject> {
    match to {
        DataType::Text => out.push_str(&value.to_string()),
        DataType::Boolean => out.set_bool(boolean(value).ok_or_else(|| invalid(&value.to_string(), "a boolean", 0))?),
        DataType::Float32 | DataType::Float64 => {
            out.set_float(float(value).ok_or_else(|| invalid(&value.to_string(), "a number", 0))?);
        }
        DataType::Decimal64 { scale, .. } => {
            let digits = u8::try_from(*scale).unwrap_or(0);
            let unscaled = integer(value, digits).ok_or_else(|| invalid(&value.to_string(), "a decimal", digits))?;
            return out.set_int(unscaled);
        }
        DataType::Decimal { scale, .. } => {
            let text = value.to_string();
            let digits = u8::try_from(*scale).unwrap_or(0);
            match scaled_text(text.as_bytes(), digits) {
                Some(unscaled) => out.push_str(&Decimal::Unscaled { unscaled, scale: *scale }.to_string()),
                None => return Err(invalid(&text, "a decimal", digits)),
            }
        }
        _ => {
            return out.set_int(integer(value, scale).ok_or_else(|| invalid(&value.to_string(), "an integer", scale))?);
        }
    }
    Ok(())
}

fn integer(value: &Value<'_>, digits: u8) -> Option<i64> {
    match value {
        Value::Bool(v) => scaled_text(if *v { b"1" } else { b"0" }, digits),
        Value::Decimal(v) => v.scaled(digits),
        Value::Float(v) if v.fract() == 0.0 && digits == 0 && v.abs() < 9e15 => Some(*v as i64),
        value => scaled_text(value.to_string().as_bytes(), digits),
    }
}

fn float(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Text(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    }
}

fn boolean(value: &Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(v) => Some(*v),
        Value::Int(v) => (0..=1).contains(v).then_some(*v == 1),
        Value::Text("true" | "t" | "1" | "yes") => Some(true),
        Value::Text("false" | "f" | "0" | "no") => Some(false),
        _ => None,
    }
}

fn invalid(text: &str, what: &str, digits: u8) -> Reject {
    let digits = if digits == 0 { String::new() } else { format!(" with at most {digits} digits after the point") };
    Reject::new("cast.invalid", format!("{text:?} is not {what}{digits}"))
}
