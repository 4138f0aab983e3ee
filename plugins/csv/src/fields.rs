//! The fields of CSV, as RFC 4180 has it: quotes around a field, and twice within it.

use std::borrow::Cow;

/// One field of a line.
#[derive(Debug, PartialEq)]
pub struct Field<'a> {
    pub text: Cow<'a, str>,
    /// Written in quotes: it is never NULL.
    pub quoted: bool,
}

/// The lines of a text; empty ones are skipped.
#[derive(Debug)]
pub struct Fields<'a> {
    rest: &'a str,
    delimiter: u8,
}

impl<'a> Fields<'a> {
    pub fn new(text: &'a str, delimiter: u8) -> Self {
        Fields { rest: text, delimiter }
    }

    /// # Errors
    /// A quote is not closed, or something stands behind one that is.
    pub fn next_line(&mut self) -> Result<Option<Vec<Field<'a>>>, String> {
        self.rest = self.rest.trim_start_matches(['\r', '\n']);
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            let (field, after) = match self.rest.strip_prefix('"') {
                Some(inner) => quoted(inner)?,
                None => {
                    let ends = |b: &u8| *b == self.delimiter || matches!(b, b'\n' | b'\r');
                    let end = self.rest.bytes().position(|b| ends(&b)).unwrap_or(self.rest.len());
                    let (text, after) = self.rest.split_at(end);
                    (Field { text: text.into(), quoted: false }, after)
                }
            };
            fields.push(field);
            match after.as_bytes().first() {
                Some(b) if *b == self.delimiter => self.rest = &after[1..],
                None | Some(b'\n' | b'\r') => {
                    self.rest = after;
                    return Ok(Some(fields));
                }
                Some(_) => return Err(format!("something stands behind the closing quote of field {}", fields.len())),
            }
        }
    }
}

fn quoted(inner: &str) -> Result<(Field<'_>, &str), String> {
    let mut text = Cow::Borrowed("");
    let mut rest = inner;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote is never closed")?;
        text += part;
        match after.strip_prefix('"') {
            Some(after) => {
                text += "\"";
                rest = after;
            }
            None => return Ok((Field { text, quoted: true }, after)),
        }
    }
}
