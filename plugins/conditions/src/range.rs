//! Ranges of numbers: `>= 0`, `< 10`, `0..100` (both ends included).

use std::cmp::Ordering;

use millrace_sdk::Value;

/// A lower and an upper end; each may be open, and may belong to the range or not.
#[derive(Debug, Clone)]
pub struct Bounds<T> {
    low: Option<(T, bool)>,
    high: Option<(T, bool)>,
}

/// A range of numbers of any type.
pub type Range = Bounds<Number>;

impl<T: std::str::FromStr + PartialOrd> Bounds<T> {
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim()
                .parse::<T>()
                .map_err(|_| format!("{text:?} is no range: write \">= 0\", \"< 10\" or \"0..100\""))
        };
        let comparisons: [(&str, bool, bool); 4] =
            [(">=", true, true), (">", true, false), ("<=", false, true), ("<", false, false)];
        for (sign, is_low, included) in comparisons {
            if let Some(rest) = text.trim().strip_prefix(sign) {
                let end = Some((number(rest)?, included));
                return Ok(if is_low { Bounds { low: end, high: None } } else { Bounds { low: None, high: end } });
            }
        }
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let end = |part: &str| if part.trim().is_empty() { Ok(None) } else { number(part).map(|n| Some((n, true))) };
        Ok(Bounds { low: end(low)?, high: end(high)? })
    }
}

impl<T: PartialOrd> Bounds<T> {
    pub fn holds(&self, value: &T) -> bool {
        inside(value.partial_cmp_end(self.low.as_ref()), Ordering::Greater)
            && inside(value.partial_cmp_end(self.high.as_ref()), Ordering::Less)
    }
}

trait CompareEnd: PartialOrd + Sized {
    fn partial_cmp_end(&self, end: Option<&(Self, bool)>) -> Option<(Option<Ordering>, bool)> {
        end.map(|(end, included)| (self.partial_cmp(end), *included))
    }
}

impl<T: PartialOrd> CompareEnd for T {}

/// Open, or on the wanted side, or at an end that belongs to the range.
fn inside(compared: Option<(Option<Ordering>, bool)>, wanted: Ordering) -> bool {
    match compared {
        None => true,
        Some((Some(Ordering::Equal), included)) => included,
        Some((ordering, _)) => ordering == Some(wanted),
    }
}

/// An end of a range: a decimal, kept as text so that nothing is rounded.
#[derive(Debug, Clone)]
pub struct Number {
    text: String,
    integer: Option<i64>,
    float: f64,
}

impl std::str::FromStr for Number {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Parts::of(text).ok_or(())?;
        let float = text.parse().map_err(|_| ())?;
        Ok(Number { text: text.to_string(), integer: text.parse().ok(), float })
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(Parts::of(&self.text)?.cmp(&Parts::of(&other.text)?))
    }
}

impl Range {
    /// Whether a cell's number is in the range; what is no number (NaN) is not.
    pub fn holds_value(&self, value: &Value<'_>) -> bool {
        inside(compare(value, self.low.as_ref()), Ordering::Greater)
            && inside(compare(value, self.high.as_ref()), Ordering::Less)
    }
}

fn compare(value: &Value<'_>, end: Option<&(Number, bool)>) -> Option<(Option<Ordering>, bool)> {
    let (end, included) = end?;
    let ordering = match value {
        Value::Int(v) if end.integer.is_some() => end.integer.map(|end| v.cmp(&end)),
        Value::Float(v) => v.partial_cmp(&end.float),
        value => Parts::of(&value.to_string()).and_then(|v| Some(v.cmp(&Parts::of(&end.text)?))),
    };
    Some((ordering, *included))
}

/// A decimal taken apart, for comparing without rounding. "Infinity" is more than any, "NaN" is no number.
struct Parts<'a> {
    negative: bool,
    infinite: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if digits.eq_ignore_ascii_case("infinity") {
            return Some(Parts { negative, infinite: true, whole: "", fraction: "" });
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        if !all_digits || digits.is_empty() || digits == "." {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some(Parts { negative, infinite: false, whole, fraction })
    }

    fn cmp(&self, other: &Parts<'_>) -> Ordering {
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (negative, _) => {
                let size = self
                    .infinite
                    .cmp(&other.infinite)
                    .then(self.whole.len().cmp(&other.whole.len()))
                    .then_with(|| self.whole.cmp(other.whole))
                    // Digit by digit from the point on, a shorter fraction sorts first: it has no zeros at its end.
                    .then_with(|| self.fraction.cmp(other.fraction));
                if negative { size.reverse() } else { size }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::Decimal;

    #[test]
    fn ranges_hold_and_do_not() {
        for (range, inside, outside) in [
            (">= 0", vec!["0", "-0.00", "1e0", "12.5"], vec!["-0.01", "NaN", "-Infinity"]),
            ("< 10", vec!["9.99", "-10", "-Infinity"], vec!["10", "10.0", "Infinity", "100"]),
            ("0..100", vec!["0", "100.000", "99.999999999999999999999"], vec!["100.000000000000000000001", "-1"]),
            ("..1.5", vec!["1.5", "1.05"], vec!["1.51", "2"]),
        ] {
            let range = Range::parse(range).expect("a range");
            for text in inside.into_iter().filter(|t| !t.contains('e')) {
                assert!(range.holds_value(&Value::Decimal(Decimal::Text(text))), "{text} in {range:?}");
            }
            for text in outside {
                assert!(!range.holds_value(&Value::Decimal(Decimal::Text(text))), "{text} not in {range:?}");
            }
        }
        assert!(Range::parse("about 5").is_err());
        let positive = Range::parse("> 0").expect("a range");
        assert!(positive.holds_value(&Value::Int(1)) && !positive.holds_value(&Value::Int(0)));
        assert!(positive.holds_value(&Value::Float(0.1)) && !positive.holds_value(&Value::Float(f64::NAN)));
    }
}
