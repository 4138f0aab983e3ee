//! The conformance kit's parser; `sdk/conformance/README.md` says what it does.

use millrace_sdk::prelude::*;
use millrace_sdk::{ChangeType, Images, Message, Parsed, Parser};

const CONFIG_SCHEMA: &str = r#"{ "type": "object", "properties": { "op": { "type": "string" } } }"#;

#[derive(Deserialize)]
struct Kit {
    #[serde(default)]
    op: String,
}

/// A message is words: `TABLE CHANGE ID TEXT`, several of them with `;` between; `-` for a TEXT is NULL, `?` was not sent.
impl Parser for Kit {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;
    const META: &'static [&'static str] = &["commit-time", "topic"];

    fn configure(config: &Config) -> Result<Self, Error> {
        let kit: Kit = config.parse()?;
        match kit.op.as_str() {
            "refuse-config" => Err(Error::config("the kit refuses this config")),
            _ => Ok(kit),
        }
    }

    fn parse(&mut self, message: &Message<'_>, rows: &mut Parsed) -> Result<(), Reject> {
        let Some(value) = message.value else { return Ok(()) };
        let text = std::str::from_utf8(value).map_err(|_| Reject::new("kit.utf8", "no UTF-8"))?;
        for part in text.split(';').filter(|part| !part.is_empty()) {
            self.row(part, message, rows)?;
        }
        Ok(())
    }
}

impl Kit {
    fn row(&self, part: &str, message: &Message<'_>, rows: &mut Parsed) -> Result<(), Reject> {
        let words: Vec<&str> = part.split(' ').collect();
        let [table, change, id, text] = words[..] else {
            return Err(Reject::new("kit.words", format!("{} words", words.len())));
        };
        let change = match change {
            "insert" => ChangeType::Insert,
            "before" => ChangeType::UpdatePreimage,
            "after" => ChangeType::UpdatePostimage,
            "delete" => ChangeType::Delete,
            "throw" => panic!("thrown on purpose"),
            other => return Err(Reject::new("kit.change", format!("no change {other}"))),
        };
        // A table written with a + has a column more.
        let mut columns = vec![ColumnDef { key: true, nullable: false, ..ColumnDef::new("id", DataType::Int64) }];
        columns.push(ColumnDef::new("text", DataType::Text));
        columns.push(ColumnDef::new("key", DataType::Binary));
        columns.push(ColumnDef::new("topic", DataType::Text));
        let name = table.trim_end_matches('+');
        if table.ends_with('+') {
            columns.push(ColumnDef::new("more", DataType::Boolean));
        }
        let (connector, namespace, images) = (String::new(), "kit".to_string(), Images::Full);
        let form = rows.declare(Schema { connector, namespace, table: name.to_string(), images, columns });
        rows.row(form, change, |cells| {
            cells[0].set_text(id)?;
            match text {
                "-" => cells[1].set_null(),
                "?" => cells[1].set_not_sent(),
                text => cells[1].push_str(text),
            }
            match message.key {
                Some(key) => cells[2].push_bytes(key),
                None => cells[2].set_null(),
            }
            match message.meta(1) {
                Cell::Value(topic) => cells[3].set(topic)?,
                _ => cells[3].set_null(),
            }
            cells.get_mut(4).into_iter().for_each(|cell| cell.set_bool(true));
            Ok(())
        })
    }
}

millrace_sdk::parser!(Kit);
