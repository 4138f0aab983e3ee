//! Arrays as JSON: `{1,NULL,"a b"}` becomes `[1,null,"a b"]`.

use super::{MALFORMED, NOT_UTF8, Unfit};

/// How an array's elements are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum Element {
    /// A JSON number with the digits as sent; `NaN` and infinities as strings, since JSON has none.
    Number,
    Boolean,
    /// A document of its own.
    Json,
    /// A string.
    Text,
}

/// PostgreSQL nests arrays to a depth of 6 (`MAXDIM`).
const MAX_DEPTH: usize = 6;

/// Reads an array's text (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>) and appends JSON to
/// `out`. Lower bounds other than 1 (`[0:1]={a,b}`) are left out: JSON arrays have none. `delimiter` is `,` but
/// for `box`, where it is `;`.
pub(in crate::postgres) fn json_array(
    text: &[u8],
    element: Element,
    delimiter: u8,
    out: &mut String,
) -> Result<(), Unfit> {
    let text = std::str::from_utf8(text).map_err(|_| NOT_UTF8)?;
    let text = match text.strip_prefix('[') {
        Some(_) => text.split_once('=').ok_or(MALFORMED)?.1,
        None => text,
    };
    let mut parser = Parser { bytes: text.as_bytes(), at: 0, element, delimiter, value: Vec::new() };
    parser.array(0, out)?;
    if parser.at == text.len() { Ok(()) } else { Err(MALFORMED) }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    element: Element,
    delimiter: u8,
    /// The element's text without quotes and escapes.
    value: Vec<u8>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Unfit> {
        let byte = self.peek().ok_or(MALFORMED)?;
        self.at += 1;
        Ok(byte)
    }

    fn array(&mut self, depth: usize, out: &mut String) -> Result<(), Unfit> {
        if self.next()? != b'{' || depth >= MAX_DEPTH {
            return Err(MALFORMED);
        }
        out.push('[');
        if self.peek() == Some(b'}') {
            self.at += 1;
            out.push(']');
            return Ok(());
        }
        loop {
            match self.peek().ok_or(MALFORMED)? {
                b'{' => self.array(depth + 1, out)?,
                b'"' => {
                    self.quoted()?;
                    self.write(out)?;
                }
                _ => {
                    self.bare()?;
                    // Only the bare word is NULL; a text of that name stands in quotes.
                    if self.value == b"NULL" { out.push_str("null") } else { self.write(out)? }
                }
            }
            match self.next()? {
                b'}' => break,
                byte if byte == self.delimiter => out.push(','),
                _ => return Err(MALFORMED),
            }
        }
        out.push(']');
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), Unfit> {
        self.value.clear();
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => {
                    let escaped = self.next()?;
                    self.value.push(escaped);
                }
                byte => self.value.push(byte),
            }
        }
    }

    fn bare(&mut self) -> Result<(), Unfit> {
        self.value.clear();
        while let Some(byte) = self.peek() {
            match byte {
                b'}' => break,
                byte if byte == self.delimiter => break,
                b'\\' => {
                    self.at += 1;
                    let escaped = self.next()?;
                    self.value.push(escaped);
                    continue;
                }
                byte => self.value.push(byte),
            }
            self.at += 1;
        }
        if self.value.is_empty() { Err(MALFORMED) } else { Ok(()) }
    }

    fn write(&self, out: &mut String) -> Result<(), Unfit> {
        let text = std::str::from_utf8(&self.value).map_err(|_| NOT_UTF8)?;
        match self.element {
            Element::Number if is_json_number(text) => out.push_str(text),
            Element::Boolean if text == "t" => out.push_str("true"),
            Element::Boolean if text == "f" => out.push_str("false"),
            Element::Json => out.push_str(text),
            Element::Boolean => return Err(MALFORMED),
            Element::Number | Element::Text => json_string(text, out),
        }
        Ok(())
    }
}

/// What PostgreSQL prints for a finite number is a JSON number; `NaN`, `Infinity`, `-Infinity` are not.
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
}

/// Appends a JSON string (RFC 8259 section 7).
fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                out.push_str("\\u00");
                out.push(char::from(b"01"[(c as usize) >> 4]));
                out.push(char::from(b"0123456789abcdef"[(c as usize) & 15]));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str, element: Element) -> Result<String, Unfit> {
        let mut out = String::new();
        json_array(text.as_bytes(), element, b',', &mut out).map(|()| out)
    }

    proptest! {
        #[test]
        fn any_texts_come_back_through_json(texts in prop::collection::vec(prop::option::of(any::<String>()), 0..8)) {
            let quoted = |t: &Option<String>| match t {
                Some(t) => format!("\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\"")),
                None => "NULL".to_owned(),
            };
            let text = format!("{{{}}}", texts.iter().map(quoted).collect::<Vec<_>>().join(","));
            let back: Vec<Option<String>> = serde_json::from_str(&json(&text, Element::Text).unwrap()).unwrap();
            prop_assert_eq!(back, texts);
        }
    }

    #[test]
    fn elements_keep_their_kind() {
        assert_eq!(json("{1,-2.50,NULL,1e+30}", Element::Number).unwrap(), "[1,-2.50,null,1e+30]");
        assert_eq!(json("{NaN,-Infinity,0.1}", Element::Number).unwrap(), "[\"NaN\",\"-Infinity\",0.1]");
        assert_eq!(json("{t,f,NULL}", Element::Boolean).unwrap(), "[true,false,null]");
        assert_eq!(json(r#"{"{\"a\": [1, null]}",NULL}"#, Element::Json).unwrap(), r#"[{"a": [1, null]},null]"#);
        assert_eq!(json(r#"{a,"NULL",NULL,"x,y"}"#, Element::Text).unwrap(), r#"["a","NULL",null,"x,y"]"#);
    }

    #[test]
    fn empty_nested_and_bounded_arrays_are_read() {
        assert_eq!(json("{}", Element::Number).unwrap(), "[]");
        assert_eq!(json("{{1,2},{3,4}}", Element::Number).unwrap(), "[[1,2],[3,4]]");
        assert_eq!(json("[0:1]={7,8}", Element::Number).unwrap(), "[7,8]");
        let mut boxes = String::new();
        json_array(b"{(1,1),(0,0);(2,2),(1,1)}", Element::Text, b';', &mut boxes).unwrap();
        assert_eq!(boxes, r#"["(1,1),(0,0)","(2,2),(1,1)"]"#);
    }

    #[test]
    fn broken_arrays_are_refused() {
        for wrong in ["", "{", "}", "{1", "{1,}", "{,1}", "{1}x", "{\"a}", "[1:2]{1}", "{{{{{{{1}}}}}}}"] {
            assert!(json(wrong, Element::Number).is_err(), "{wrong}");
        }
    }
}
