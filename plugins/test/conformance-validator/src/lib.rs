//! The conformance kit's validator, by the Rust SDK. `sdk/conformance/README.md` says what each kind of rule does.

use millrace_sdk::prelude::*;

#[derive(Deserialize)]
struct Kit {
    rules: Vec<Rule>,
}

#[derive(Deserialize, Clone)]
struct Rule {
    name: String,
    kind: Kind,
    severity: Level,
    #[serde(default)]
    column: String,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Required,
    Not,
    Throw,
    Differ,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Warn,
    Reject,
    Quarantine,
}

impl Validator for Kit {
    fn configure(config: &Config) -> Result<Self, Error> {
        config.parse()
    }

    fn plan(&self, _: &Schema, plan: &mut CheckPlan) -> Result<(), Error> {
        for rule in &self.rules {
            rule.plan(plan);
        }
        Ok(())
    }
}

impl Rule {
    fn plan(&self, plan: &mut CheckPlan) {
        let severity = match self.severity {
            Level::Warn => Severity::Warn,
            Level::Reject => Severity::Reject,
            Level::Quarantine => Severity::Quarantine,
        };
        if let Kind::Differ = self.kind {
            let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
            let names = self.columns.join(" and ");
            plan.rule_on_rows(&self.name, &columns, severity, move |row, inputs| {
                match (row.text(inputs[0]), row.text(inputs[1])) {
                    (Cell::Value(a), Cell::Value(b)) if a == b => Err(format!("{names} are both {a}")),
                    _ => Ok(()),
                }
            });
            return;
        }
        let Some(rule) = plan.rule(&self.name, &self.column, severity) else { return };
        let (kind, value) = (self.kind, self.value.clone());
        match kind {
            Kind::Required => rule.required(),
            _ => rule.check::<Text>(move |text| match kind {
                Kind::Throw if text == value => panic!("thrown on purpose"),
                Kind::Not if text == value => Err(format!("is {text}")),
                _ => Ok(()),
            }),
        }
    }
}

millrace_sdk::validator!(Kit);
