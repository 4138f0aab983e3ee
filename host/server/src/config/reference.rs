//! References in a pipeline file: `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}`; `$${` stands for `${`.

use std::path::Path;

use serde_json::Value;

use super::problem::{Place, Problems, nearest};
use super::secret::{remember, url_password};
use super::tree::{Data, Node, Origin};

/// Keys in whose values secrets stand, in the parts of the file that connect to something.
const SECRET_KEYS: [&str; 7] =
    ["url", "password", "secret", "token", "secret_access_key", "access_key_id", "session_token"];

/// What the references of a file are resolved against.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The folder of the pipeline file.
    pub folder: &'a Path,
    pub env: fn(&str) -> Option<String>,
}

impl<'a> Surroundings<'a> {
    pub fn of_process(folder: &'a Path) -> Self {
        Self { folder, env: |name| std::env::var(name).ok() }
    }
}

/// Resolves every reference of the file and refuses secrets that stand there literally.
///
/// `tests` is left as it is: rows may hold any text. In a stage's `config` references are refused: it is stored in
/// the resume record and enters the sandbox, where no secret belongs.
pub fn resolve(root: &mut Node, around: &Surroundings<'_>, problems: &mut Problems) {
    let mut walk = Walk { around, problems };
    let Data::Mapping(entries) = &mut root.data else { return };
    for (key, node) in entries {
        match key.name.as_str() {
            "tests" => {}
            "stages" => walk.stages(node),
            "keys" => walk.keys(node),
            name => {
                let connects = matches!(name, "source" | "sink" | "dead_letters");
                walk.node(node, Context { connects, ..Context::default() });
            }
        }
    }
}

struct Walk<'w, 'a> {
    around: &'w Surroundings<'a>,
    problems: &'w mut Problems,
}

/// A text whose references have been put in.
struct Resolved {
    text: String,
    /// All of them.
    is_whole: bool,
}

#[derive(Clone, Copy, Default)]
struct Context {
    /// Inside a component that logs in somewhere.
    connects: bool,
    /// The value of a key in which a secret is expected.
    secret: bool,
    refused: bool,
}

impl Walk<'_, '_> {
    fn stages(&mut self, node: &mut Node) {
        let Data::Sequence(stages) = &mut node.data else { return };
        for stage in stages {
            let Data::Mapping(entries) = &mut stage.data else { continue };
            for (key, value) in entries {
                self.node(value, Context { refused: key.name == "config", ..Context::default() });
            }
        }
    }

    fn keys(&mut self, node: &mut Node) {
        let Data::Mapping(entries) = &mut node.data else { return };
        for (key, value) in entries {
            let is_reference = value.as_str().is_some_and(|t| t.starts_with("${") && t.ends_with('}'));
            if !is_reference && !matches!(value.data, Data::Mapping(_) | Data::Sequence(_)) {
                let message = format!("the key `{}` stands here literally", key.name);
                self.problems.error(value.place, "secret.literal", message, "write ${env:NAME} or ${file:PATH}");
                value.origin = Origin::Unresolved;
                continue;
            }
            self.node(value, Context { secret: true, ..Context::default() });
        }
    }

    fn node(&mut self, node: &mut Node, context: Context) {
        match &mut node.data {
            Data::Sequence(items) => items.iter_mut().for_each(|item| self.node(item, context)),
            Data::Mapping(entries) => {
                for (key, value) in entries {
                    let is_secret = context.connects && SECRET_KEYS.contains(&key.name.as_str());
                    self.node(value, Context { secret: context.secret || is_secret, ..context });
                    if is_secret && key.name != "url" {
                        self.refuse_literal(&key.name, value);
                    }
                }
            }
            Data::Scalar(Value::String(text)) => {
                let place = node.place;
                if context.connects {
                    self.refuse_literal_password(text, place);
                }
                if context.refused {
                    self.refuse_references(text, place);
                } else if let Some(resolved) = self.text(text, place) {
                    if context.secret {
                        remember(&resolved.text);
                    }
                    node.data = Data::Scalar(Value::String(resolved.text));
                    node.origin = if resolved.is_whole { Origin::Reference } else { Origin::Unresolved };
                }
            }
            Data::Scalar(_) => {}
        }
    }

    fn refuse_literal(&mut self, key: &str, value: &mut Node) {
        if value.origin == Origin::Literal && matches!(&value.data, Data::Scalar(v) if !v.is_null()) {
            let message = format!("the secret `{key}` stands here literally");
            self.problems.error(value.place, "secret.literal", message, "write ${env:NAME} or ${file:PATH}");
            value.origin = Origin::Unresolved;
        }
    }

    fn refuse_literal_password(&mut self, text: &str, place: Place) {
        if url_password(text).is_some_and(|password| !password.contains("${")) {
            let hint = "put the whole url or its password into the environment: ${env:NAME}";
            self.problems.error(place, "secret.literal", "the url holds its password literally", hint);
        }
    }

    fn refuse_references(&mut self, text: &str, place: Place) {
        if text.contains("${env:") || text.contains("${file:") {
            let message =
                "a reference in a plugin's config: the config is stored and enters the sandbox, a secret must not";
            self.problems.error(
                place,
                "reference.in_config",
                message,
                "name a key of `keys:` and grant it by `crypto`",
            );
        }
    }

    /// `None`: there is no reference in it.
    fn text(&mut self, text: &str, place: Place) -> Option<Resolved> {
        if !text.contains("${") {
            return None;
        }
        let mut resolved = String::with_capacity(text.len());
        let mut is_whole = true;
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let before = &rest[..start];
            if let Some(escaped) = before.strip_suffix('$') {
                resolved.push_str(escaped);
                resolved.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            resolved.push_str(before);
            let Some(length) = rest[start..].find('}') else {
                self.problems.error(
                    place,
                    "reference.syntax",
                    "a `${` without its `}`",
                    "write ${env:NAME} or ${file:PATH}",
                );
                return Some(Resolved { text: resolved, is_whole: false });
            };
            let reference = &rest[start + 2..start + length];
            match self.reference(reference, place) {
                Some(content) => resolved.push_str(&content),
                None => is_whole = false,
            }
            rest = &rest[start + length + 1..];
        }
        resolved.push_str(rest);
        Some(Resolved { text: resolved, is_whole })
    }

    fn reference(&mut self, reference: &str, place: Place) -> Option<String> {
        match reference.split_once(':') {
            Some(("env", name)) => self.environment(name, place),
            Some(("file", path)) => self.file(path, place),
            _ => {
                let kind = reference.split(':').next().unwrap_or_default();
                let hint = match nearest(kind, ["env", "file"]) {
                    Some(known) => format!("did you mean ${{{known}:…}}?"),
                    None => {
                        format!("write ${{env:{kind}}} for a variable, ${{file:PATH}} for a file, $${{ for the text")
                    }
                };
                self.problems.error(place, "reference.unknown", format!("`${{{kind}…}}` is no reference"), hint);
                None
            }
        }
    }

    fn environment(&mut self, name: &str, place: Place) -> Option<String> {
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (name, None),
        };
        let found = (self.around.env)(name).or_else(|| default.map(str::to_owned));
        if found.is_none() {
            let message = format!("the environment variable {name} is not set");
            self.problems.error(
                place,
                "reference.env_unset",
                message,
                format!("set it, or write ${{env:{name}:-default}}"),
            );
        }
        found
    }

    fn file(&mut self, path: &str, place: Place) -> Option<String> {
        let path = self.around.folder.join(path);
        match std::fs::read_to_string(&path) {
            // An editor's line end is no part of a secret.
            Ok(content) => Some(content.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                let message = format!("{}: {}", path.display(), io_reason(&error));
                self.problems.error(
                    place,
                    "reference.file",
                    message,
                    "the path counts from the pipeline file's folder",
                );
                None
            }
        }
    }
}

/// Why a file could not be used, without the number of the error.
pub fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a folder".into(),
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
            "a part of the path is no folder".into()
        }
        std::io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        std::io::ErrorKind::StorageFull => "the disk is full".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tree::parse;
    use super::*;

    fn resolved(text: &str) -> (Value, Vec<String>) {
        let mut problems = Problems::new(Path::new("p.yaml"));
        let mut root = parse(text, &mut problems).unwrap();
        let env = |name: &str| match name {
            "DB" => Some("postgres://u:p4ssw0rd@h/d".to_owned()),
            "PW" => Some("p4ssw0rd".to_owned()),
            _ => None,
        };
        resolve(&mut root, &Surroundings { folder: Path::new("/nowhere"), env }, &mut problems);
        (root.to_json(), problems.into_sorted().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn references_are_resolved_alone_and_within_a_text() {
        let (value, problems) =
            resolved("source: { a: '${env:DB}', b: 'x${env:PW}y', c: '$${env:PW}', d: '${env:NO:-7}' }");
        assert_eq!(problems, Vec::<String>::new());
        let expected = json!({"a": "postgres://u:p4ssw0rd@h/d", "b": "xp4ssw0rdy", "c": "${env:PW}", "d": "7"});
        assert_eq!(value["source"], expected);
    }

    #[test]
    fn a_literal_password_is_refused_and_not_shown() {
        let text = "source: { postgres: { url: 'postgres://u:hunter2@h/d' } }\nsink: { s3: { secret_access_key: hunter2 } }\n\
                    keys: { pii: hunter2 }\n";
        let (_, problems) = resolved(text);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().all(|p| p.contains("secret.literal") && !p.contains("hunter2")), "{problems:?}");
    }

    #[test]
    fn a_url_whose_password_is_a_reference_is_fine() {
        let (value, problems) = resolved("source: { postgres: { url: 'postgres://u:${env:PW}@h/d' } }");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(value["source"]["postgres"]["url"], "postgres://u:p4ssw0rd@h/d");
    }

    #[test]
    fn what_can_not_be_resolved_is_said_with_what_would_be_right() {
        let (_, problems) = resolved("a: '${env:GONE}'\nb: '${evn:X}'\nc: '${file:gone}'\nd: '${env:X'\n");
        let codes = ["reference.env_unset", "reference.unknown", "reference.file", "reference.syntax"];
        assert_eq!(problems.len(), codes.len());
        assert!(problems.iter().zip(codes).all(|(p, code)| p.contains(code)), "{problems:?}");
        assert!(problems[1].contains("did you mean ${env:…}?"));
    }

    #[test]
    fn tests_keep_their_text_and_a_plugin_config_gets_no_secret() {
        let (value, problems) =
            resolved("tests: [{ name: '${env:PW}' }]\nstages: [{ plugin: m, config: { a: '${env:PW}' } }]\n");
        assert_eq!(value["tests"][0]["name"], "${env:PW}");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("reference.in_config"));
    }
}
