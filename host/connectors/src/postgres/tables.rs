//! Which tables are read: `public.orders`, `billing.*`.

use millrace_core::error::{Error, Result};

/// One pattern: schema and table, `*` for any characters in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) schema: String,
    pub(super) table: String,
}

impl Pattern {
    pub(super) fn matches(&self, schema: &str, table: &str) -> bool {
        glob(self.schema.as_bytes(), schema.as_bytes()) && glob(self.table.as_bytes(), table.as_bytes())
    }

    /// Whether it names one table.
    pub(super) fn is_exact(&self) -> bool {
        !self.schema.contains('*') && !self.table.contains('*')
    }

    pub(super) fn text(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// At least one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patterns(Vec<Pattern>);

impl Patterns {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        let wrong = |message: String| {
            Error::config("postgres.tables", message).hint("schema.table: `public.orders`, `billing.*`")
        };
        if texts.is_empty() {
            return Err(wrong("`tables` names no table".into()));
        }
        let patterns = texts.iter().map(|text| match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
                Ok(Pattern { schema: schema.into(), table: table.into() })
            }
            _ => Err(wrong(format!("`{text}` is not schema.table"))),
        });
        Ok(Self(patterns.collect::<Result<_>>()?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

/// Whether `text` is `pattern` with any characters in the place of each `*`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a match fails: after the last star, one more character given to it.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
            }
            (Some(c), _) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            (_, Some((after, from))) => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters_in_schema_and_table() {
        let patterns = Patterns::parse(&["public.orders".into(), "billing.*".into(), "*.a*b*c".into()]).unwrap();
        let matches = |schema: &str, table: &str| patterns.iter().any(|p| p.matches(schema, table));
        let matching = [("public", "orders"), ("billing", "x"), ("billing", "x.y"), ("s", "abc"), ("s", "aXbYbZc")];
        for (schema, table) in matching {
            assert!(matches(schema, table), "{schema}.{table}");
        }
        for (schema, table) in [("public", "orders2"), ("billing2", "x"), ("s", "ab"), ("s", "abcd"), ("s", "xabc")] {
            assert!(!matches(schema, table), "{schema}.{table}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for wrong in ["orders", ".orders", "public."] {
            assert_eq!(Patterns::parse(&[wrong.into()]).unwrap_err().code, "postgres.tables", "{wrong}");
        }
        assert_eq!(Patterns::parse(&[]).unwrap_err().code, "postgres.tables");
    }
}
