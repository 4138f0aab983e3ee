//! Parses CSV (RFC 4180) to rows of a declared table; a message is a line, or several. Config:
//!
//! ```yaml
//! config:
//!   table: public.orders
//!   columns: [{ name: id, type: int64, key: true }, { name: total, type: "decimal(10,2)" }, note, op]   # text is the default
//!   header: true                   # a line of exactly these names is ignored
//!   null: ""                       # what NULL is written as, without quotes
//!   delimiter: ","
//!   op: op                         # the column that says insert, update or delete (I, U, D); without it all lines are inserts
//! ```

use millrace_sdk::prelude::*;
use millrace_sdk::{ChangeType, Form, Images, Message, Parsed, Parser};

mod fields;

use fields::{Field, Fields};

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    table: String,
    columns: Vec<Declared>,
    #[serde(default)]
    header: bool,
    #[serde(default)]
    null: String,
    #[serde(default = "comma")]
    delimiter: char,
    op: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Declared {
    Text(String),
    Typed {
        name: String,
        #[serde(rename = "type", default = "text")]
        ty: String,
        #[serde(default)]
        key: bool,
        #[serde(default)]
        required: bool,
    },
}

fn comma() -> char {
    ','
}

fn text() -> String {
    "text".to_string()
}

struct Csv {
    /// Of the table: those of the lines but `op`.
    schema: Schema,
    names: Vec<String>,
    header: bool,
    null: String,
    delimiter: u8,
    /// Its place in a line.
    op: Option<usize>,
    form: Option<Form>,
}

impl Parser for Csv {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let written: Written = config.parse()?;
        let columns = written.columns.into_iter().map(Declared::read).collect::<Result<Vec<_>, _>>();
        let mut columns = columns.map_err(|e| Error::config(format!("columns: {e}")))?;
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let op = written.op.map(|op| {
            let place = names.iter().position(|name| *name == op);
            place.ok_or_else(|| Error::config(format!("op: there is no column {op} among `columns`")))
        });
        let op = op.transpose()?;
        if let Some(place) = op {
            columns.remove(place);
            if !columns.iter().any(|c| c.key) {
                return Err(Error::config("op: updates and deletes need a key: give a column `key: true`"));
            }
        }
        if !written.delimiter.is_ascii() || matches!(written.delimiter, '"' | '\n' | '\r') {
            return Err(Error::config(format!("delimiter: {:?} is none: take one ASCII character", written.delimiter)));
        }
        let (namespace, table) = written.table.split_once('.').unwrap_or(("", &written.table));
        let images = if op.is_some() { Images::Key } else { Images::None };
        let (namespace, table) = (namespace.to_string(), table.to_string());
        let schema = Schema { connector: String::new(), namespace, table, images, columns };
        let delimiter = written.delimiter as u8;
        Ok(Csv { schema, names, header: written.header, null: written.null, delimiter, op, form: None })
    }

    fn parse(&mut self, message: &Message<'_>, rows: &mut Parsed) -> Result<(), Reject> {
        let Some(value) = message.value else { return Ok(()) };
        let value = std::str::from_utf8(value).map_err(|e| Reject::new("csv.utf8", format!("it is no UTF-8: {e}")))?;
        let form = *self.form.get_or_insert_with(|| rows.declare(self.schema.clone()));
        let mut lines = Fields::new(value, self.delimiter);
        while let Some(line) = lines.next_line().map_err(|e| Reject::new("csv.quote", e))? {
            let is_header = self.header && line.len() == self.names.len();
            if is_header && line.iter().zip(&self.names).all(|(field, name)| field.text == *name) {
                continue;
            }
            self.line(&line, form, rows)?;
        }
        Ok(())
    }
}

impl Csv {
    fn line(&self, line: &[Field<'_>], form: Form, rows: &mut Parsed) -> Result<(), Reject> {
        if line.len() != self.names.len() {
            let reason = format!("the line has {} fields, {} columns are declared", line.len(), self.names.len());
            return Err(Reject::new("csv.fields", reason));
        }
        let change = match self.op.map(|place| line[place].text.as_ref()) {
            None => ChangeType::Insert,
            Some(op) => change(op)?,
        };
        rows.row(form, change, |cells| {
            let fields = line.iter().enumerate().filter(|(place, _)| Some(*place) != self.op);
            for ((cell, column), (_, field)) in cells.iter_mut().zip(&self.schema.columns).zip(fields) {
                let is_null = !field.quoted && field.text == self.null;
                if is_null && !column.nullable {
                    return Err(Reject::new("csv.null", format!("{} is NULL, and it is required", column.name)));
                }
                match is_null {
                    true => cell.set_null(),
                    false => cell
                        .set_text(&field.text)
                        .map_err(|e| Reject::new("csv.value", format!("{}: {}", column.name, e.reason)))?,
                }
            }
            Ok(())
        })
    }
}

impl Declared {
    fn read(self) -> Result<ColumnDef, String> {
        let (name, ty, key, required) = match self {
            Declared::Text(name) => (name, text(), false, false),
            Declared::Typed { name, ty, key, required } => (name, ty, key, required),
        };
        let parsed = DataType::parse(&ty).ok_or_else(|| format!("{name}: there is no type {ty:?}"))?;
        Ok(ColumnDef { key, nullable: !key && !required, ..ColumnDef::new(name, parsed) })
    }
}

fn change(op: &str) -> Result<ChangeType, Reject> {
    match op.to_ascii_lowercase().as_str() {
        "i" | "insert" | "c" | "r" => Ok(ChangeType::Insert),
        "u" | "update" => Ok(ChangeType::UpdatePostimage),
        "d" | "delete" => Ok(ChangeType::Delete),
        _ => Err(Reject::new("csv.op", format!("{op:?} is no change: I, U and D are, and insert, update and delete"))),
    }
}

millrace_sdk::parser!(Csv);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Ending, Messages};
    use serde_json::{Value as Json, json};

    fn orders(more: Json) -> Messages {
        let mut config = json!({
            "table": "public.orders",
            "columns": [{ "name": "id", "type": "int64", "key": true }, { "name": "total", "type": "decimal(10,2)" }, "note"],
        });
        config.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        Messages::new(config)
    }

    fn row(change: &str, row: Json) -> Json {
        json!({ "table": "public.orders", "change": change, "row": row })
    }

    fn code(ending: &Ending) -> &str {
        match ending {
            Ending::Rejected { code, .. } => code,
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn lines_become_rows_of_the_declared_table() {
        let endings = orders(json!({ "header": true }))
            .value("id,total,note")
            .value("1,12.5,\"a, \"\"b\"\"\nc\"\r\n2,,\n\n3,-1,\"\"")
            .message(Some(b"k"), None)
            .value("")
            .parse::<Csv>()
            .expect("parsed");
        let rows = vec![
            row("insert", json!({ "id": 1, "total": "12.50", "note": "a, \"b\"\nc" })),
            row("insert", json!({ "id": 2, "total": null, "note": null })),
            row("insert", json!({ "id": 3, "total": "-1.00", "note": "" })),
        ];
        assert_eq!(endings, [Ending::Ignored, Ending::Rows(rows), Ending::Ignored, Ending::Ignored]);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_its_neighbours_are_read() {
        let endings = orders(json!({ "null": "NULL", "delimiter": ";" }))
            .value("1;2.005;x")
            .value("1;2")
            .value("NULL;1;x")
            .value(b"1;1;\xff")
            .value("1;1;\"x")
            .value("4;NULL;\"NULL\"")
            .value("5;1;x\n6;y;x")
            .parse::<Csv>()
            .expect("parsed");
        let codes: Vec<&str> = endings.iter().filter(|e| !matches!(e, Ending::Rows(_))).map(code).collect();
        assert_eq!(codes, ["csv.value", "csv.fields", "csv.null", "csv.utf8", "csv.quote", "csv.value"]);
        assert_eq!(endings[5], Ending::Rows(vec![row("insert", json!({ "id": 4, "total": null, "note": "NULL" }))]));
    }

    #[test]
    fn a_column_says_what_happened() {
        let config = json!({
            "table": "t", "columns": ["op", { "name": "id", "type": "int32", "key": true }, "note"], "op": "op",
        });
        let endings = Messages::new(config).value("I,1,a\nU,1,b\nD,1,").value("X,1,a").parse::<Csv>().expect("parsed");
        let row =
            |change: &str, note: Json| json!({ "table": "t", "change": change, "row": { "id": 1, "note": note } });
        let rows = vec![row("insert", json!("a")), row("update_postimage", json!("b")), row("delete", Json::Null)];
        assert_eq!(endings[0], Ending::Rows(rows));
        assert_eq!(code(&endings[1]), "csv.op");
    }

    #[test]
    fn configs_that_make_no_sense_are_refused() {
        for (more, part) in [
            (json!({ "columns": [{ "name": "id", "type": "number" }] }), "columns: id: there is no type \"number\""),
            (json!({ "op": "what" }), "op: there is no column what"),
            (json!({ "columns": ["op"], "op": "op" }), "need a key"),
            (json!({ "delimiter": "\"" }), "delimiter: '\"' is none"),
        ] {
            let error = orders(more.clone()).value("1").parse::<Csv>().expect_err("refused");
            assert!(error.contains(part), "{more}: {error}");
        }
    }
}
