//! A pipeline file as a tree in which every key and value knows its place.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use super::problem::{Place, Problems};

/// More than a thousand times what a long pipeline file holds; stops files that multiply by aliases.
const MAX_NODES: usize = 200_000;
/// Deeper than any pipeline file, shallow enough for a thread's stack.
const MAX_DEPTH: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub data: Data,
    pub origin: Origin,
}

/// How a value came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// It stands in the file.
    #[default]
    Literal,
    /// Through a reference (`${env:…}`): it is never shown.
    Reference,
    /// Through a reference that did not resolve, which has been said: nothing more is said of it.
    Unresolved,
}

#[derive(Clone, Debug)]
pub enum Data {
    /// Null, boolean, number or string.
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub place: Place,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.data {
            Data::Mapping(entries) => entries.iter().find(|(k, _)| k.name == key),
            _ => None,
        }
    }

    /// The node at a path of keys and indices.
    pub fn at<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Option<&Node> {
        path.into_iter().try_fold(self, |node, step| match &node.data {
            Data::Mapping(_) => node.get(step),
            Data::Sequence(items) => items.get(step.parse::<usize>().ok()?),
            Data::Scalar(_) => None,
        })
    }

    pub fn at_mut(&mut self, path: &[String]) -> Option<&mut Node> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        let child = match &mut self.data {
            Data::Mapping(entries) => entries.iter_mut().find(|(k, _)| k.name == *step).map(|(_, n)| n),
            Data::Sequence(items) => items.get_mut(step.parse::<usize>().ok()?),
            Data::Scalar(_) => None,
        };
        child?.at_mut(rest)
    }

    /// Where to point for something at this path: the value, or the deepest part of the path that is there.
    pub fn place_of(&self, path: &[&str]) -> Place {
        (0..=path.len()).rev().find_map(|n| self.at(path[..n].iter().copied())).map_or(Place::START, |n| n.place)
    }

    /// Where the key at the end of the path stands.
    pub fn key_place(&self, path: &[&str]) -> Place {
        let key = path.split_last().and_then(|(key, parents)| self.at(parents.iter().copied())?.entry(key));
        key.map_or_else(|| self.place_of(path), |(k, _)| k.place)
    }

    /// Whether a reference in it did not resolve.
    pub fn has_unresolved(&self) -> bool {
        match &self.data {
            Data::Scalar(_) => self.origin == Origin::Unresolved,
            Data::Sequence(items) => items.iter().any(Node::has_unresolved),
            Data::Mapping(entries) => entries.iter().any(|(_, node)| node.has_unresolved()),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::Sequence(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Mapping(entries) => {
                Value::Object(entries.iter().map(|(k, n)| (k.name.clone(), n.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Sequence(_) => "a list",
            Data::Mapping(_) => "a mapping",
            Data::Scalar(value) => scalar_kind(value),
        }
    }
}

fn scalar_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        _ => "a text",
    }
}

/// Reads the text of a pipeline file. `None`: it is no YAML, and `problems` says why.
pub fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, problems };
    match reader.document() {
        Ok(root) => root,
        Err(Syntax { place, message }) => {
            let hint = syntax_hint(text, place);
            problems.error(place, "yaml.syntax", message, hint);
            None
        }
    }
}

fn syntax_hint(text: &str, place: Place) -> String {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or("");
    let before: String = line.chars().take(place.column.max(1)).collect();
    let is_tabbed = line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') || before.contains('\t');
    if is_tabbed {
        "indent with spaces: YAML allows no tab there".into()
    } else if line.contains("${") || line.contains("{") {
        "put a text that holds { } : or # in quotes".into()
    } else {
        "check the indentation, the quotes and the space after each colon here and in the line above".into()
    }
}

struct Syntax {
    place: Place,
    message: String,
}

struct Reader<'t, 'p> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: &'p mut Problems,
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

fn syntax(span: Span, message: &str) -> Syntax {
    Syntax { place: place(span.start), message: message.into() }
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Syntax> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Syntax { place: place(*error.marker()), message: error.info().to_owned() }),
            None => Err(Syntax { place: Place::START, message: "the file ends early".into() }),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Syntax> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err(syntax(span, "a second document begins; a pipeline file holds one")),
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        if root.is_none() {
            self.problems.error(Place::START, "yaml.empty", "the file is empty", "start with `pipeline: NAME`");
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Syntax> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(syntax(span, "the file is nested too deeply or grows too large by its aliases"));
        }
        let (anchor, data) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|t| t.suffix == "str");
                (anchor, Data::Scalar(if is_text { Value::String(text.into_owned()) } else { plain(&text) }))
            }
            Event::SequenceStart(anchor, _) => (anchor, Data::Sequence(self.items(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Data::Mapping(self.entries(depth)?)),
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(syntax(span, "a value is missing here")),
        };
        let node = Node { place: place(span.start), data, origin: Origin::Literal };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Syntax> {
        let node = self
            .anchors
            .get(&anchor)
            .cloned()
            .ok_or_else(|| syntax(span, "an alias of an anchor that is not complete"))?;
        self.nodes += size(&node);
        Ok(Node { place: place(span.start), ..node })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Syntax> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Syntax> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, ..), span) => Key { name: text.into_owned(), place: place(span.start) },
                (_, span) => return Err(syntax(span, "a key must be a plain text")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            match entries.iter().find(|(k, _)| k.name == key.name) {
                Some((first, _)) => {
                    let message = format!("`{}` is given twice; first in line {}", key.name, first.place.line);
                    self.problems.error(key.place, "yaml.duplicate_key", message, "remove one of them");
                }
                None => entries.push((key, node)),
            }
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::Scalar(_) => 0,
        Data::Sequence(items) => items.iter().map(size).sum(),
        Data::Mapping(entries) => entries.iter().map(|(_, n)| size(n)).sum(),
    }
}

/// A plain scalar by YAML 1.2's core schema. What JSON can not hold (`.nan`) stays a text.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let radix = |prefix, radix| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    if let Some(n) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(n.into());
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    if let Ok(n) = text.parse::<u64>() {
        return Some(n.into());
    }
    let is_float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if is_float && digits.bytes().any(|b| b.is_ascii_digit()) {
        text.parse().ok().and_then(Number::from_f64)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn tree(text: &str) -> (Option<Node>, Vec<String>) {
        let mut problems = Problems::new(Path::new("p.yaml"));
        let node = parse(text, &mut problems);
        (node, problems.into_sorted().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        let (node, problems) =
            tree("[1, -2, 0x1F, 1.5, 1e3, true, ~, no, \"1\", 2026-11-25, 1.2.3, 007a, 18446744073709551615]");
        assert_eq!(problems, Vec::<String>::new());
        let expected = json!([1, -2, 31, 1.5, 1000.0, true, null, "no", "1", "2026-11-25", "1.2.3", "007a", u64::MAX]);
        assert_eq!(node.unwrap().to_json(), expected);
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let (node, _) = tree("a:\n  - b: 1\n    c: two\n");
        let node = node.unwrap();
        assert_eq!(node.place_of(&["a", "0", "c"]), Place { line: 3, column: 8 });
        assert_eq!(node.key_place(&["a", "0", "c"]), Place { line: 3, column: 5 });
        assert_eq!(node.place_of(&["a", "0", "absent"]), Place { line: 2, column: 5 });
    }

    #[test]
    fn duplicate_keys_are_reported_beside_each_other() {
        let (node, problems) = tree("a: 1\na: 2\nb: { c: 1, c: 2 }\n");
        assert!(node.is_some());
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("p.yaml:2:1: error[yaml.duplicate_key]: `a` is given twice; first in line 1"));
    }

    #[test]
    fn a_tab_in_the_indentation_is_named() {
        let (node, problems) = tree("a:\n\tb: 1\n");
        assert!(node.is_none());
        assert!(problems[0].contains("yaml.syntax") && problems[0].contains("indent with spaces"), "{problems:?}");
    }

    #[test]
    fn aliases_that_multiply_are_stopped() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..8 {
            let last = level - 1;
            text += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 10].join(", "));
        }
        let (node, problems) = tree(&text);
        assert!(node.is_none() && problems[0].contains("aliases"), "{problems:?}");
    }

    #[test]
    fn aliases_stand_for_their_anchor() {
        let (node, problems) = tree("a: &x {b: 1}\nc: *x\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(node.unwrap().to_json(), json!({"a": {"b": 1}, "c": {"b": 1}}));
    }
}
