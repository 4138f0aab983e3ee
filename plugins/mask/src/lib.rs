//! Masks personal data. Config, a rule a column, for every table that has the column:
//!
//! ```yaml
//! config: { email: hash, phone: last4, iban: { last: 6 }, name: redact, notes: { redact: "(removed)" } }
//! grant: { columns: [email, phone, iban, name, notes], crypto: [pii] }
//! ```
//! `hash` is the HMAC-SHA-256 under the granted key `pii` (another: `{ hash: KEY }`) as hexadecimal text: equal values stay
//! equal, so joins still work, and nobody without the key can try values.

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;

/// `millrace plugin inspect` shows this, and the host checks the config by it.
const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");
const KEY: &str = "pii";
const MASK: &str = "*";

struct Mask(BTreeMap<String, Rule>);

/// `hash`, or `{ hash: KEY }`.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Rule {
    Named(Named),
    With(With),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Named {
    Hash,
    Redact,
    Last4,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "lowercase")]
enum With {
    Hash(String),
    Redact(String),
    First(usize),
    Last(usize),
}

impl Transform for Mask {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        config.parse().map(Mask)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        for (name, rule) in &self.0 {
            let Some(column) = plan.column(name) else { continue };
            match rule.clone().into() {
                With::Hash(key) => {
                    plan.map_column(column, DataType::Text, move |cells| host::hmac_sha256(&key, cells)?.into_hex());
                }
                With::Redact(text) => plan.map::<Text>(column, move |_, out| {
                    out.push_str(&text);
                    Ok(())
                }),
                With::First(n) => plan.map::<Text>(column, move |text, out| {
                    out.push_str(&text[..text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)]);
                    Ok(())
                }),
                With::Last(n) => plan.map::<Text>(column, move |text, out| {
                    out.push_str(last(text, n));
                    Ok(())
                }),
            }
        }
        Ok(())
    }
}

impl From<Rule> for With {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::With(with) => with,
            Rule::Named(Named::Hash) => With::Hash(KEY.to_string()),
            Rule::Named(Named::Redact) => With::Redact(MASK.to_string()),
            Rule::Named(Named::Last4) => With::Last(4),
        }
    }
}

/// The last `n` characters; a shorter text is all of it, so it is cut to half instead: nothing leaves unmasked.
fn last(text: &str, n: usize) -> &str {
    let keep = n.min(text.chars().count() / 2);
    let at = text.char_indices().rev().take(keep).last().map_or(text.len(), |(at, _)| at);
    &text[at..]
}

millrace_sdk::transform!(Mask);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::Case;
    use serde_json::json;

    fn customers() -> Case {
        Case::table("customers")
            .key("id", DataType::Int64)
            .column("email", DataType::Text)
            .column("phone", DataType::Text)
            .crypto("pii", b"secret")
    }

    #[test]
    fn each_column_is_masked_by_its_rule() {
        let answer = customers()
            .config(json!({ "email": "hash", "phone": "last4" }))
            .insert(json!({ "id": 1, "email": "a@b.c", "phone": "+49 170 1234567" }))
            .transform::<Mask>()
            .expect("masked");
        assert_eq!(answer.kept(0)["phone"], "4567");
        assert_eq!(answer.kept(0)["id"], 1);
        assert_eq!(answer.kept(0)["email"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn null_and_not_sent_stay_what_they_are() {
        let answer = customers()
            .config(json!({ "email": "hash", "phone": { "redact": "none of your business" } }))
            .insert(json!({ "id": 1, "email": null }))
            .transform::<Mask>()
            .expect("masked");
        assert_eq!(serde_json::Value::from(answer.kept(0).clone()), json!({ "id": 1, "email": null }));
    }

    #[test]
    fn a_text_shorter_than_what_may_stay_is_cut_all_the_same() {
        assert_eq!(["", "1", "12", "12345", "äöüäöü"].map(|t| last(t, 4)), ["", "", "2", "45", "äöü"]);
    }

    #[test]
    fn a_key_that_is_not_granted_is_named() {
        let error = customers()
            .config(json!({ "email": { "hash": "other" } }))
            .insert(json!({ "id": 1, "email": "a" }))
            .transform::<Mask>()
            .expect_err("no such key");
        assert!(error.contains("other"), "{error}");
    }

    #[test]
    fn a_rule_that_does_not_exist_is_refused() {
        let error = customers().config(json!({ "email": "scramble" })).transform::<Mask>().expect_err("no such rule");
        assert!(error.starts_with("invalid config"), "{error}");
    }
}
