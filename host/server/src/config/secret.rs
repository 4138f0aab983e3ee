//! Secrets that can not be printed.

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// A secret's content. No formatting shows it, and it can not be serialised.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(content: impl Into<String>) -> Self {
        Self(content.into())
    }

    /// The content, for whoever needs it to do its work.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A secret, by reference: `${env:NAME}` or `${file:PATH}`." })
    }
}

/// Contents of references in places where secrets stand: the last line of defence for messages of other crates.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Shorter ones would blot out ordinary words.
const SHORTEST: usize = 4;

/// From now on [`redact`] blots this out.
pub(super) fn remember(content: &str) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for part in [content].into_iter().chain(url_password(content)) {
        if part.len() >= SHORTEST && !known.iter().any(|k| k == part) {
            known.push(part.to_owned());
        }
    }
}

/// The text without any secret that this process has read.
pub fn redact(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut clean = Cow::Borrowed(text);
    for secret in known.iter() {
        if clean.contains(secret.as_str()) {
            clean = Cow::Owned(clean.replace(secret.as_str(), "[secret]"));
        }
    }
    clean
}

/// The password of a URL such as `scheme://user:password@host`, as it is written there.
pub(super) fn url_password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let login = authority.rsplit_once('@').map(|(login, _)| login);
    let parameter = || rest.split(['?', '&']).skip(1).find_map(|p| p.strip_prefix("password="));
    let password = login.and_then(|l| l.split_once(':')).map(|(_, password)| password).or_else(parameter);
    password.filter(|p| !p.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some([secret])");
    }

    #[test]
    fn the_password_of_a_url_is_found() {
        assert_eq!(url_password("postgres://u:p@h/d"), Some("p"));
        assert_eq!(url_password("postgres://u@h/d?x=1&password=p"), Some("p"));
        assert_eq!(url_password("postgres://u@h/d"), None);
        assert_eq!(url_password("no url: at all@"), None);
    }

    #[test]
    fn what_was_remembered_is_blotted_out_also_as_part_of_a_url() {
        remember("postgres://u:tops3cret@h/d");
        assert_eq!(redact("login of tops3cret refused"), "login of [secret] refused");
    }
}
