//! The JSON Schema of a pipeline file, for `validate`, for editors, and for the reference in the book.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::model::PipelineFile;

/// The schema as `validate` uses it and editors show it.
pub fn pipeline_schema() -> Value {
    let mut schema = Value::from(schemars::schema_for!(PipelineFile));
    without_null(&mut schema);
    schema
}

/// A key that may be absent may not be null: an empty value in YAML is mostly a slip, and one plain type makes a plain
/// message.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            drop_null_type(object);
            drop_null_alternative(object);
            object.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

fn drop_null_type(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
}

fn drop_null_alternative(object: &mut Map<String, Value>) {
    let Some(Value::Array(forms)) = object.get_mut("anyOf") else { return };
    forms.retain(|form| *form != json!({"type": "null"}));
    if let [Value::Object(only)] = forms.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// The definition that a schema refers to, or itself.
pub fn target<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// The pipeline reference as Markdown: one section for each mapping of the file.
pub fn reference_markdown() -> String {
    let root = pipeline_schema();
    let mut text = String::from(
        "# Pipeline reference\n\n<!-- Generated from the schema by `millrace schema --markdown`: do not edit. -->\n\n\
         Every key of a pipeline file, with its type, its default and what it means. `millrace schema` prints the same as JSON \
         Schema for editors.\n",
    );
    let mut open = vec![(String::new(), root.clone())];
    while !open.is_empty() {
        let (path, schema) = open.remove(0);
        let children = section(&root, &path, &schema, &mut text);
        // Depth first: what belongs together stands together.
        open.splice(0..0, children);
    }
    text
}

/// The keys of the file as people write them; elsewhere what is required comes first.
const ORDER: [&str; 11] = [
    "pipeline",
    "source",
    "stages",
    "sink",
    "dead_letters",
    "keys",
    "settings",
    "hot_reload",
    "metrics",
    "state_dir",
    "tests",
];

/// Writes the section of one mapping and answers the mappings below it.
fn section(root: &Value, path: &str, schema: &Value, text: &mut String) -> Vec<(String, Value)> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
    // Writing to a String never fails.
    write!(text, "\n## {title}\n\n").unwrap_or_default();
    if let Some(about) = schema.get("description").and_then(Value::as_str) {
        write!(text, "{about}\n\n").unwrap_or_default();
    }
    if properties.is_empty() {
        return Vec::new();
    }
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut below = Vec::new();
    let mut properties: Vec<(&String, &Value)> = properties.iter().collect();
    properties.sort_by_key(|(name, _)| {
        let written = ORDER.iter().position(|known| path.is_empty() && known == name).unwrap_or(ORDER.len());
        (written, !required.contains(&name.as_str()), *name)
    });
    for (name, property) in properties {
        let form = target(root, property);
        let default = match property.get("default") {
            _ if required.contains(&name.as_str()) => "**required**".to_owned(),
            Some(value) if is_plain(value) => format!("`{value}`"),
            _ => String::new(),
        };
        let about =
            [property, form].iter().find_map(|s| s.get("description").and_then(Value::as_str)).unwrap_or_default();
        let meaning = format!("{}{}", one_line(about), choices(form));
        writeln!(text, "| `{name}` | {} | {default} | {meaning} |", type_name(root, form)).unwrap_or_default();
        let child = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        below.extend(mapping_below(root, &child, property));
    }
    below
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn mapping_below(root: &Value, path: &str, schema: &Value) -> Option<(String, Value)> {
    let form = target(root, schema);
    if form.get("properties").is_some() {
        return Some((path.to_owned(), form.clone()));
    }
    if let Some(items) = form.get("items") {
        return mapping_below(root, &format!("{path}[]"), items);
    }
    form.get("additionalProperties")
        .filter(|v| v.is_object())
        .and_then(|v| mapping_below(root, &format!("{path}.NAME"), v))
}

fn type_name(root: &Value, form: &Value) -> String {
    let name = form.get("type").and_then(Value::as_str).unwrap_or_default();
    match name {
        "array" => format!(
            "list of {}",
            form.get("items").map_or_else(|| "anything".into(), |i| type_name(root, target(root, i)))
        ),
        "object" => "mapping".into(),
        "string" => match form.get("pattern").and_then(Value::as_str) {
            Some(super::quantity::DURATION_PATTERN) => "duration".into(),
            Some(super::quantity::SIZE_PATTERN) => "size".into(),
            _ => "text".into(),
        },
        "integer" => "whole number".into(),
        "" if form.get("oneOf").or(form.get("anyOf")).is_some() => "one of".into(),
        other => other.into(),
    }
}

/// The values of an enumeration with what each means.
fn choices(form: &Value) -> String {
    if let Some(values) = form.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().map(|v| format!("`{}`", v.as_str().unwrap_or_default())).collect();
        return format!(" One of {}.", values.join(", "));
    }
    let alternatives = form.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let mut text = String::new();
    for form in alternatives {
        let about = one_line(form.get("description").and_then(Value::as_str).unwrap_or_default());
        let names =
            form.get("const").into_iter().chain(form.get("enum").and_then(Value::as_array).into_iter().flatten());
        for name in names.filter_map(Value::as_str) {
            let end = if about.is_empty() { ";" } else { ":" };
            write!(text, " `{name}`{end} {about}").unwrap_or_default();
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_the_schema_may_be_null() {
        fn look(value: &Value) {
            match value {
                Value::Array(items) => items.iter().for_each(look),
                Value::Object(object) => {
                    assert_ne!(object.get("type"), Some(&json!("null")));
                    object.values().for_each(look);
                }
                _ => {}
            }
        }
        look(&pipeline_schema());
    }

    #[test]
    fn every_key_says_what_it_means() {
        let root = pipeline_schema();
        let definitions = root["$defs"].as_object().unwrap().values().chain([&root]);
        for definition in definitions {
            for (name, property) in definition.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let about = property.get("description").or_else(|| target(&root, property).get("description"));
                assert!(about.is_some() || name == "after" || name == "region", "`{name}` has no doc line: {property}");
            }
        }
    }
}
