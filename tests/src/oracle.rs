//! What PostgreSQL itself says was committed: a second slot, decoded by `test_decoding` after the fact.

use std::collections::BTreeMap;

use crate::servers::postgres::Postgres;

/// A row's values as PostgreSQL prints them; `None` is NULL. A column without a value (unchanged TOAST) is absent.
pub type Row = BTreeMap<String, Option<String>>;

/// What happened to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Insert {
        after: Row,
    },
    /// `before` is the old key, or with `REPLICA IDENTITY FULL` the whole old row less its NULLs; absent where neither
    /// was logged.
    Update {
        before: Option<Row>,
        after: Row,
    },
    Delete {
        before: Row,
    },
    Truncate,
}

/// One committed change, in commit order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Counts transactions from 0, in commit order.
    pub transaction: usize,
    /// `schema.table`.
    pub table: String,
    pub op: Op,
}

/// The slot that notes everything committed from its creation on.
#[derive(Debug)]
pub struct Oracle {
    slot: String,
}

impl Oracle {
    /// Creates the slot: what commits before is not in it.
    pub fn create(server: &Postgres) -> Oracle {
        let slot = "oracle".to_owned();
        server.sql(&format!("select pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
        Oracle { slot }
    }

    /// All changes committed since, without consuming them.
    pub fn changes(&self, server: &Postgres) -> Vec<Change> {
        parse(&server.decoded(&self.slot))
    }

    /// Where the commit record of each of their transactions ends, in bytes of the write-ahead log.
    pub fn commit_ends(&self, server: &Postgres) -> Vec<u64> {
        let ends = server.sql(&format!(
            "select lsn - '0/0'::pg_lsn from pg_logical_slot_peek_changes('{}', null, null, 'skip-empty-xacts', '1') \
             where data like 'COMMIT%'",
            self.slot
        ));
        ends.lines().map(|end| end.parse().expect("a number of bytes")).collect()
    }
}

/// Reads the messages of `test_decoding`.
///
/// # Panics
/// On a message that is none.
pub fn parse(messages: &[String]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut transactions = 0;
    for message in joined(messages) {
        if message.starts_with("BEGIN") {
            continue;
        }
        if message.starts_with("COMMIT") {
            transactions += 1;
            continue;
        }
        let rest = message.strip_prefix("table ").unwrap_or_else(|| panic!("not of test_decoding: {message}"));
        let (tables, rest) = rest.split_once(": ").unwrap_or_else(|| panic!("no table: {message}"));
        for table in tables.split(", ") {
            changes.push(Change { transaction: transactions, table: table.to_owned(), op: op(rest) });
        }
    }
    changes
}

/// psql prints a value with line breaks on several lines: what starts no message goes on with the one before.
fn joined(lines: &[String]) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for line in lines {
        let starts = ["BEGIN", "COMMIT", "table "].iter().any(|word| line.starts_with(word));
        match messages.last_mut() {
            Some(last) if !starts || in_quotes(last) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => messages.push(line.clone()),
        }
    }
    messages
}

/// Whether the text ends inside a literal: a doubled quote counts twice.
fn in_quotes(text: &str) -> bool {
    text.matches('\'').count() % 2 == 1
}

fn op(text: &str) -> Op {
    let (word, rest) = text.split_once(':').unwrap_or((text, ""));
    let rest = rest.trim_start();
    match word {
        "INSERT" => Op::Insert { after: row(rest) },
        "DELETE" => Op::Delete { before: row(rest) },
        "UPDATE" => match rest.strip_prefix("old-key: ").and_then(split_new_tuple) {
            Some((before, after)) => Op::Update { before: Some(row(before)), after: row(after) },
            None => Op::Update { before: None, after: row(rest) },
        },
        "TRUNCATE" => Op::Truncate,
        _ => panic!("an operation that test_decoding does not have: {text}"),
    }
}

/// At the ` new-tuple: ` that stands outside of literals.
fn split_new_tuple(text: &str) -> Option<(&str, &str)> {
    const MARK: &str = " new-tuple: ";
    text.match_indices(MARK)
        .find(|(at, _)| !in_quotes(&text[..*at]))
        .map(|(at, _)| (&text[..at], &text[at + MARK.len()..]))
}

/// `id[integer]:1 "odd name"[text]:'it''s' gone[text]:null`.
fn row(mut text: &str) -> Row {
    let mut row = Row::new();
    if text == "(no-tuple-data)" {
        return row;
    }
    while !text.is_empty() {
        let (name, rest) = name(text);
        let (_, rest) = rest.split_once("]:").unwrap_or_else(|| panic!("a column without a type: {text}"));
        // `numeric[]`: an array's type ends with brackets of its own, and `]:` follows the last of them.
        let (value, rest) = value(rest);
        if value.as_deref() != Some("unchanged-toast-datum") || rest.1 {
            row.insert(name, value);
        }
        text = rest.0.trim_start_matches(' ');
    }
    row
}

fn name(text: &str) -> (String, &str) {
    match text.strip_prefix('"') {
        Some(quoted) => {
            let end = quoted.find("\"[").unwrap_or_else(|| panic!("a name without an end: {text}"));
            (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
        }
        None => {
            let end = text.find('[').unwrap_or_else(|| panic!("a column without a type: {text}"));
            (text[..end].to_owned(), &text[end..])
        }
    }
}

/// The value, and (what follows it, whether it was a literal).
fn value(text: &str) -> (Option<String>, (&str, bool)) {
    let quoted = text.strip_prefix('\'').or_else(|| text.strip_prefix("B'"));
    let Some(literal) = quoted else {
        let end = text.find(' ').unwrap_or(text.len());
        let word = &text[..end];
        return ((word != "null").then(|| word.to_owned()), (&text[end..], false));
    };
    let mut end = 0;
    loop {
        end += literal[end..].find('\'').unwrap_or_else(|| panic!("a literal without an end: {text}"));
        if literal[end + 1..].starts_with('\'') {
            end += 2;
        } else {
            break;
        }
    }
    (Some(literal[..end].replace("''", "'")), (&literal[end + 1..], true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(&str, Option<&str>)]) -> Row {
        values.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn changes_are_counted_by_transaction_and_read_with_their_images() {
        let changes = parse(&lines(
            "BEGIN 7\ntable public.t: INSERT: id[integer]:1 name[text]:'it''s' note[text]:null\nCOMMIT 7\n\
             BEGIN 8\ntable public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 name[text]:' new-tuple: '\n\
             table public.t: DELETE: id[integer]:2\nCOMMIT 8",
        ));
        let table = || "public.t".to_owned();
        let after = row(&[("id", Some("1")), ("name", Some("it's")), ("note", None)]);
        let update = Op::Update {
            before: Some(row(&[("id", Some("1"))])),
            after: row(&[("id", Some("2")), ("name", Some(" new-tuple: "))]),
        };
        let expected = [
            Change { transaction: 0, table: table(), op: Op::Insert { after } },
            Change { transaction: 1, table: table(), op: update },
            Change { transaction: 1, table: table(), op: Op::Delete { before: row(&[("id", Some("2"))]) } },
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_value_over_several_lines_stays_one_value() {
        let changes = parse(&lines(
            "BEGIN 7\ntable public.t: INSERT: a[text]:'BEGIN\nCOMMIT x\n' b[numeric[]]:'{1,2}'\nCOMMIT 7",
        ));
        let after = row(&[("a", Some("BEGIN\nCOMMIT x\n")), ("b", Some("{1,2}"))]);
        assert_eq!(changes, [Change { transaction: 0, table: "public.t".to_owned(), op: Op::Insert { after } }]);
    }

    #[test]
    fn a_column_whose_value_was_not_logged_is_absent() {
        let change = op("UPDATE: id[integer]:1 big[text]:unchanged-toast-datum said[text]:'unchanged-toast-datum'");
        let after = row(&[("id", Some("1")), ("said", Some("unchanged-toast-datum"))]);
        assert_eq!(change, Op::Update { before: None, after });
    }

    #[test]
    fn a_truncate_of_several_tables_is_a_change_of_each() {
        let changes = parse(&lines("BEGIN 7\ntable public.a, public.b: TRUNCATE: (no-flags)\nCOMMIT 7"));
        let tables: Vec<&str> = changes.iter().map(|change| change.table.as_str()).collect();
        assert_eq!(tables, ["public.a", "public.b"]);
    }
}
