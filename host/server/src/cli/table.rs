//! Plain tables for people.

use std::fmt::Write as _;

/// Columns as wide as their widest cell; numbers to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([head[i].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number =
        |i: usize| !rows.is_empty() && rows.iter().all(|row| row[i].bytes().all(|b| b.is_ascii_digit() || b == b','));
    let right: Vec<bool> = (0..head.len()).map(is_number).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let gap = widths[i] - cell.chars().count();
            let (before, after) = if right[i] { (gap, 0) } else { (0, gap) };
            // Writing to a String never fails.
            write!(line, "{}{cell}{}  ", " ".repeat(before), " ".repeat(after)).unwrap_or_default();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let rows = vec![vec!["public.orders".into(), thousands(1_234_567)], vec!["t".into(), thousands(7)]];
        let expected = "table               rows\npublic.orders  1,234,567\nt                      7\n";
        assert_eq!(table(&["table", "rows"], &rows), expected);
    }
}
