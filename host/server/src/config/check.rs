//! A tree against a JSON Schema: every mismatch as a problem with its place and what would be right.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::problem::{Problems, alternatives, nearest};
use super::quantity::{DURATION_PATTERN, SIZE_PATTERN};
use super::tree::{Data, Node, Origin, plain};
use super::{model, schema};

/// Checks `root[prefix]` against a schema.
///
/// A value that came through a reference is a text; where the schema wants a number or a boolean, it is read as one.
pub fn check(root: &mut Node, prefix: &[String], form: &Value, problems: &mut Problems) -> Result<(), String> {
    let validator = jsonschema::validator_for(form).map_err(|e| e.to_string())?;
    let Some(node) = root.at_mut(prefix) else { return Ok(()) };
    let mut json = node.to_json();
    if read_referenced(node, &validator, &json) {
        json = node.to_json();
    }
    let node = &*node;
    for error in validator.iter_errors(&json) {
        let finding = Finding { node, prefix, form, path: segments(&error) };
        // What does not resolve has been said.
        if !node.at(finding.path()).is_some_and(|n| n.origin == Origin::Unresolved) {
            finding.report(&error, problems);
        }
    }
    Ok(())
}

fn segments(error: &ValidationError<'_>) -> Vec<String> {
    let pointer = error.instance_path().as_str();
    pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect()
}

/// Whether a value was read anew.
fn read_referenced(node: &mut Node, validator: &Validator, json: &Value) -> bool {
    let mistyped: Vec<Vec<String>> = validator
        .iter_errors(json)
        .filter(|e| matches!(e.kind(), ValidationErrorKind::Type { .. }))
        .map(|e| segments(&e))
        .collect();
    let mut read = false;
    for path in mistyped {
        let Some(found) = node.at_mut(&path).filter(|n| n.origin == Origin::Reference) else { continue };
        let value = found.as_str().map(plain);
        if let Some(value) = value.filter(|v| !v.is_string()) {
            found.data = Data::Scalar(value);
            read = true;
        }
    }
    read
}

struct Finding<'a> {
    node: &'a Node,
    prefix: &'a [String],
    form: &'a Value,
    path: Vec<String>,
}

impl Finding<'_> {
    fn path(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// `stages[0].grant`, or "the file".
    fn shown(&self) -> String {
        dotted(self.prefix.iter().chain(&self.path).map(String::as_str))
    }

    fn report(&self, error: &ValidationError<'_>, problems: &mut Problems) {
        let place = self.node.place_of(&self.path());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                self.unknown_keys(unexpected, error, problems);
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let hint = match self.about(error, key) {
                    Some(about) => format!("add it: {about}"),
                    None => "add it".into(),
                };
                problems.error(place, "config.missing_key", format!("{} lacks the key `{key}`", self.shown()), hint);
            }
            ValidationErrorKind::MinProperties { .. } | ValidationErrorKind::MaxProperties { .. } => {
                let known = self.known_keys(error);
                let count = if matches!(error.kind(), ValidationErrorKind::MinProperties { .. }) {
                    "no"
                } else {
                    "more than one"
                };
                let message = format!("{} names {count} component", self.shown());
                problems.error(place, "config.choice", message, format!("name exactly one: {}", alternatives(known)));
            }
            ValidationErrorKind::Type { kind } => self.mistyped(kind, error, problems),
            ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context }
                if self.meant_form(context).is_some() =>
            {
                for error in self.meant_form(context).into_iter().flatten() {
                    Finding { path: segments(error), ..*self }.report(error, problems);
                }
            }
            kind => {
                let expected = expectation(kind).unwrap_or_else(|| error.masked().to_string());
                let message = format!("{} is {}", self.shown(), self.found());
                problems.error(place, "config.value", message, expected);
            }
        }
    }

    /// Out of several forms the one that was meant: it is right but for something further down.
    fn meant_form<'e>(&self, forms: &'e [Vec<ValidationError<'static>>]) -> Option<&'e [ValidationError<'static>]> {
        let is_below = |error: &ValidationError<'_>| segments(error).len() > self.path.len();
        forms.iter().find(|errors| !errors.is_empty() && errors.iter().all(is_below)).map(Vec::as_slice)
    }

    fn unknown_keys(&self, unexpected: &[String], error: &ValidationError<'_>, problems: &mut Problems) {
        let known = self.known_keys(error);
        for key in unexpected {
            let mut path = self.path();
            path.push(key);
            let hint = match nearest(key, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => "no key is known here".into(),
                None => format!("known here: {}", known.join(", ")),
            };
            let message = format!("{} has no key `{key}`", self.shown());
            problems.error(self.node.key_place(&path), "config.unknown_key", message, hint);
        }
    }

    fn mistyped(&self, kind: &TypeKind, error: &ValidationError<'_>, problems: &mut Problems) {
        let pattern = self.mapping(error).and_then(|form| form.get("pattern")?.as_str()).and_then(pattern_meaning);
        let names: Vec<&str> = match kind {
            TypeKind::Single(one) => vec![type_name(one.as_str())],
            TypeKind::Multiple(set) => set.iter().map(|t| type_name(t.as_str())).collect(),
        };
        let expected = pattern.unwrap_or_else(|| format!("it must be {}", alternatives(names)));
        let is_empty = self.node.at(self.path()).is_some_and(|n| matches!(n.data, Data::Scalar(Value::Null)));
        let hint = if is_empty { format!("{expected}; leave the key out for its default") } else { expected };
        let message = format!("{} is {}", self.shown(), self.found());
        problems.error(self.node.place_of(&self.path()), "config.type", message, hint);
    }

    /// What stands there; the value of a reference is not shown.
    fn found(&self) -> String {
        let Some(node) = self.node.at(self.path()) else { return "absent".into() };
        match &node.data {
            Data::Scalar(Value::Null) => "empty".into(),
            Data::Scalar(_) if node.origin != Origin::Literal => format!("{} (from its reference)", node.kind()),
            Data::Scalar(value) if value.to_string().len() <= 40 => format!("{} ({value})", node.kind()),
            _ => node.kind().into(),
        }
    }

    /// The schema that the error's keyword stands in.
    fn mapping(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let (parent, _keyword) = error.schema_path().as_str().rsplit_once('/')?;
        Some(schema::target(self.form, self.form.pointer(parent)?))
    }

    fn known_keys(&self, error: &ValidationError<'_>) -> Vec<&str> {
        let properties = self.mapping(error).and_then(|m| m.get("properties")).and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// The first sentence of what a key means.
    fn about(&self, error: &ValidationError<'_>, key: &str) -> Option<String> {
        let property = self.mapping(error)?.get("properties")?.get(key)?;
        let form = schema::target(self.form, property);
        let about = [property, form].iter().find_map(|s| s.get("description").and_then(Value::as_str))?;
        let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(about.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned())
    }
}

/// `stages[0].grant`, or "the file".
pub fn dotted<'p>(path: impl Iterator<Item = &'p str>) -> String {
    let mut text = String::new();
    for step in path {
        if step.bytes().all(|b| b.is_ascii_digit()) {
            text += &format!("[{step}]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += step;
        }
    }
    if text.is_empty() { "the file".into() } else { format!("`{text}`") }
}

fn type_name(json: &str) -> &'static str {
    match json {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        _ => "empty",
    }
}

fn pattern_meaning(pattern: &str) -> Option<String> {
    let meaning = match pattern {
        DURATION_PATTERN => "it must be a duration such as 100ms, 5s or 1m",
        SIZE_PATTERN => "it must be a size such as 500kB or 4MiB",
        model::NAME_PATTERN => {
            "it must be lower-case letters, digits, `-` and `_`, at most 63, the first a letter or digit"
        }
        model::DIGEST_PATTERN => "it must be the 64 lower-case hexadecimal digits of a SHA-256",
        _ => return None,
    };
    Some(meaning.to_owned())
}

/// What would be right; `None`: the library's own words do.
fn expectation(kind: &ValidationErrorKind) -> Option<String> {
    Some(match kind {
        ValidationErrorKind::Pattern { pattern } => {
            pattern_meaning(pattern).unwrap_or_else(|| format!("it must match {pattern}"))
        }
        ValidationErrorKind::Enum { options } => one_of(options.as_array()?.iter()),
        ValidationErrorKind::Constant { expected_value } => one_of([&**expected_value].into_iter()),
        ValidationErrorKind::Minimum { limit } => format!("it must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("it must be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("it must be more than {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("it must be less than {limit}"),
        ValidationErrorKind::MinItems { limit } => {
            format!("it must have at least {limit} {}", if *limit == 1 { "entry" } else { "entries" })
        }
        ValidationErrorKind::MinLength { .. } => "it must not be empty".into(),
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => of_forms(context)?,
        _ => return None,
    })
}

/// Out of several forms: the values that they name, else what the closest of them wants.
fn of_forms(forms: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let mut values = Vec::new();
    for error in forms.iter().flatten() {
        match error.kind() {
            ValidationErrorKind::Constant { expected_value } => values.push((**expected_value).clone()),
            ValidationErrorKind::Enum { options } => values.extend(options.as_array().into_iter().flatten().cloned()),
            _ => {}
        }
    }
    if !values.is_empty() {
        return Some(one_of(values.iter()));
    }
    let wanted: Vec<String> = forms.iter().filter_map(|form| form.first()).map(|e| wanted(e)).collect();
    (!wanted.is_empty()).then(|| format!("it must be {}", alternatives(wanted.iter().map(String::as_str))))
}

fn wanted(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Type { kind: TypeKind::Single(one) } => type_name(one.as_str()).into(),
        _ => format!("one for which not: {}", error.masked()),
    }
}

fn one_of<'v>(values: impl Iterator<Item = &'v Value>) -> String {
    let names: Vec<String> = values.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    format!("it must be {}", alternatives(names.iter().map(String::as_str)))
}
