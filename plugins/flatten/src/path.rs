//! Paths into JSON documents: `customer.name`, `items[0].sku`, `tags["a.b"]`.

use std::borrow::Cow;
use std::fmt;

use millrace_sdk::serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no path: write a.b, a[0] or a[\"b.c\"]");
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('[') {
                Some(inner) => bracket(inner).ok_or_else(wrong)?,
                None => {
                    let key = if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(wrong)? };
                    let end = key.find(['.', '[']).unwrap_or(key.len());
                    if end == 0 {
                        return Err(wrong());
                    }
                    (Step::Key(key[..end].to_string()), &key[end..])
                }
            };
            steps.push(step);
            rest = after;
        }
        match steps.is_empty() {
            true => Err(wrong()),
            false => Ok(Path { text: text.to_string(), steps }),
        }
    }

    /// The column that it becomes: letters and digits, joined by `_`.
    pub fn name(&self) -> String {
        let words = self.text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_")
    }

    /// The part of the document that it leads to, as it stands there.
    ///
    /// # Errors
    /// The document is no JSON, as far as it was read.
    pub fn find<'a>(&self, document: &'a str) -> Result<Option<&'a str>, serde_json::Error> {
        let mut found = serde_json::from_str::<&RawValue>(document)?.get();
        for step in &self.steps {
            let mut json = serde_json::Deserializer::from_str(found);
            let inner = match (step, found.as_bytes().first()) {
                (Step::Key(_), Some(b'{')) => json.deserialize_map(Pick(step))?,
                (Step::Index(_), Some(b'[')) => json.deserialize_seq(Pick(step))?,
                _ => None,
            };
            match inner {
                Some(inner) => found = inner.get(),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }
}

/// `0]…` or `"key"]…`.
fn bracket(inner: &str) -> Option<(Step, &str)> {
    match inner.strip_prefix('"') {
        Some(quoted) => {
            let (key, after) = quoted.split_once("\"]")?;
            Some((Step::Key(key.to_string()), after))
        }
        None => {
            let (index, after) = inner.split_once(']')?;
            Some((Step::Index(index.parse().ok()?), after))
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The one member that is wanted; of members with the same name the last, as everywhere.
struct Pick<'p>(&'p Step);

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.0 {
                Step::Key(wanted) if *wanted == key => found = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Step::Index(wanted) = self.0 else { return Ok(None) };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_stands_there() {
        let document = r#" {"a": {"b": [1, {"c": "x"}], "d.e": null}, "ä\"": 2.50, "a\u0062": 3, "b": 1, "b": 2} "#;
        for (path, found) in [
            ("a.b[0]", Some("1")),
            ("a.b[1].c", Some("\"x\"")),
            ("a.b[2]", None),
            ("a.b", Some(r#"[1, {"c": "x"}]"#)),
            ("a[\"d.e\"]", Some("null")),
            ("a.x", None),
            ("a.b.c", None),
            ("a[0]", None),
            ("ab", Some("3")),
            ("ä\"", Some("2.50")),
            ("b", Some("2")),
        ] {
            let path = Path::parse(path).expect("path");
            assert_eq!(path.find(document).expect("JSON"), found, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a[\"b]", "a]b[0"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_column_is_named_by_its_path() {
        for (path, name) in [("a.b", "a_b"), ("items[0].sku", "items_0_sku"), ("t[\"a.b\"]", "t_a_b")] {
            assert_eq!(Path::parse(path).map(|p| p.name()).as_deref(), Ok(name));
        }
    }
}
