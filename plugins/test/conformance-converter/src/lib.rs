//! The conformance kit's converter; `sdk/conformance/README.md` says what it does.

use millrace_sdk::prelude::*;
use millrace_sdk::{Conversion, Converter};

const CONFIG_SCHEMA: &str = r#"{ "type": "object", "properties": { "op": { "type": "string" } } }"#;

#[derive(Deserialize)]
struct Kit {
    op: String,
}

impl Converter for Kit {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let kit: Kit = config.parse()?;
        match kit.op.as_str() {
            "refuse-config" => Err(Error::config("the kit refuses this config")),
            _ => Ok(kit),
        }
    }

    fn plan(&self, column: &ColumnDef) -> Result<Option<Conversion>, Error> {
        Ok(match (self.op.as_str(), &column.ty) {
            ("refuse-plan", _) => return Err(Error::schema("the kit refuses this column")),
            ("show", ty) if *ty != DataType::Text => Some(Conversion::new(column, DataType::Text, |value, out| {
                out.push_str(&value.to_string());
                Ok(())
            })),
            ("upper", DataType::Text) => Some(Conversion::of::<Text>(column, DataType::Text, |text, out| {
                match text {
                    "throw" => panic!("thrown on purpose"),
                    text => out.push_str(&text.to_uppercase()),
                }
                Ok(())
            })),
            ("parse", DataType::Text) => {
                Some(Conversion::of::<Text>(column, DataType::Int64, |text, out| out.set_text(text)))
            }
            _ => None,
        })
    }
}

millrace_sdk::converter!(Kit);
