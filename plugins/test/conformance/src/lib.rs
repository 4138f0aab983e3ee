//! The conformance kit's transform, by the Rust SDK. `sdk/conformance/README.md` says what each operation does.

use millrace_sdk::prelude::*;
use millrace_sdk::{Decimal, serde_json::Value as Json};

const CONFIG_SCHEMA: &str = r#"{"type":"object","required":["op"],"properties":{"op":{"type":"string"}}}"#;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kit {
    op: Op,
    #[serde(default)]
    column: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    not: String,
    #[serde(default)]
    value: Json,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    ty: String,
    #[serde(default)]
    key: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Op {
    Pass,
    Copy,
    CopyColumns,
    Show,
    Kinds,
    Drop,
    Rename,
    RenameTable,
    Add,
    Cast,
    Cents,
    Increase,
    Filter,
    FilterNull,
    FilterRows,
    Route,
    RouteRows,
    RejectRows,
    Hash,
    Log,
    Fail,
    Retry,
    RefuseConfig,
    RefusePlan,
    ThrowInConfigure,
    ThrowInPlan,
}

impl Transform for Kit {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let kit: Kit = config.parse()?;
        match kit.op {
            Op::RefuseConfig => Err(Error::config("the kit refuses this config")),
            Op::ThrowInConfigure => panic!("thrown on purpose"),
            _ => Ok(kit),
        }
    }

    fn plan(&self, schema: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        match self.op {
            Op::Pass | Op::RefuseConfig | Op::ThrowInConfigure => {}
            Op::RefusePlan => return Err(Error::schema("the kit refuses this table")),
            Op::ThrowInPlan => panic!("thrown on purpose"),
            Op::Copy => copy(schema, plan),
            Op::CopyColumns => {
                data(schema).filter_map(|c| plan.column(c)).collect::<Vec<_>>().into_iter().for_each(|c| {
                    plan.map::<Any>(c, |value, out| out.set(value));
                })
            }
            Op::Show => show(schema, plan),
            Op::Kinds => kinds(plan),
            Op::RenameTable => plan.rename_table(&self.to),
            Op::Add => self.add(plan)?,
            Op::Retry => {
                let Some(first) = plan.column("id") else { return Ok(()) };
                plan.inspect(first, |_| Err(Error::RetryLater { after_ms: 5, reason: "not now".into() }));
            }
            _ => self.on_column(plan)?,
        }
        Ok(())
    }
}

/// The columns beside the key.
fn data(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.columns.iter().map(|c| c.name.as_str()).filter(|name| *name != "id")
}

fn copy(schema: &Schema, plan: &mut TransformPlan) {
    let mut pairs = Vec::new();
    for column in data(schema).filter_map(|c| plan.column(c)).collect::<Vec<_>>() {
        let ty = plan.definition(column).ty.clone();
        pairs.push((plan.read(column), plan.write(column, ty)));
    }
    plan.each_row(move |row, out| {
        for (input, output) in &pairs {
            match row.get(*input) {
                Cell::Value(value) => out.cell(*output).set(value)?,
                Cell::Null => out.cell(*output).set_null(),
                Cell::NotSent => out.cell(*output).set_not_sent(),
            }
        }
        Ok(())
    });
}

fn show(schema: &Schema, plan: &mut TransformPlan) {
    let columns: Vec<_> = data(schema).filter_map(|c| plan.column(c)).collect();
    let inputs: Vec<_> = columns.into_iter().map(|c| plan.read(c)).collect();
    let shown = plan.add_column(ColumnDef::new("shown", DataType::Text));
    plan.each_row(move |row, out| {
        let cells: Vec<String> = inputs
            .iter()
            .map(|input| match row.get(*input) {
                Cell::Value(value) => value.to_string(),
                Cell::Null => "null".to_string(),
                Cell::NotSent => "not sent".to_string(),
            })
            .collect();
        out.cell(shown).push_str(&cells.join(";"));
        Ok(())
    });
}

fn kinds(plan: &mut TransformPlan) {
    let kind = plan.add_column(ColumnDef::new("kind", DataType::Text));
    plan.each_row(move |row, out| {
        out.cell(kind).push_str(row.change_type().name());
        Ok(())
    });
}

impl Kit {
    fn add(&self, plan: &mut TransformPlan) -> Result<(), Error> {
        let ty = DataType::parse(&self.ty).ok_or_else(|| Error::config(format!("no type {}", self.ty)))?;
        let added = plan.add_column(ColumnDef::new(&self.name, ty));
        let value = self.value.clone();
        plan.each_row(move |_, out| {
            if let Some(text) = value.as_str() {
                out.cell(added).push_str(text);
            }
            Ok(())
        });
        Ok(())
    }

    fn on_column(&self, plan: &mut TransformPlan) -> Result<(), Error> {
        let Some(column) = plan.column(&self.column) else { return Ok(()) };
        let (not, key) = (self.not.clone(), self.key.clone());
        match self.op {
            Op::Drop => plan.drop_column(column),
            Op::Rename => plan.rename(column, &self.to),
            Op::Cast => {
                let to = DataType::parse(&self.to).ok_or_else(|| Error::config(format!("no type {}", self.to)))?;
                plan.convert::<Any>(column, to, |value, out| {
                    out.push_str(&value.to_string());
                    Ok(())
                });
            }
            Op::Cents => {
                plan.convert::<Text>(column, DataType::Int64, |text, out| match Decimal::Text(text).scaled(2) {
                    Some(cents) => out.set_int(cents),
                    None => Err(Reject::new("decimal.parse", format!("{text:?} is no amount"))),
                })
            }
            Op::Filter => plan.filter::<Text>(column, move |text| text != not),
            Op::FilterNull => plan.filter_cells::<Text>(column, |cell| cell.value().is_some()),
            Op::Route => plan.route::<Text>(column, |text| Some(format!("to_{text}"))),
            Op::Hash => {
                plan.map_column(column, DataType::Text, move |cells| host::hmac_sha256(&key, cells)?.into_hex());
            }
            _ => self.by_row(column, plan),
        }
        Ok(())
    }

    fn by_row(&self, column: millrace_sdk::Col, plan: &mut TransformPlan) {
        let (op, not, value) = (self.op, self.not.clone(), self.value.clone());
        let increased =
            (op == Op::Increase).then(|| plan.definition(column).ty.clone()).map(|ty| plan.write(column, ty));
        let input = plan.read(column);
        match op {
            Op::FilterRows => plan.may_drop(),
            Op::RouteRows => plan.may_route(),
            _ => {}
        }
        plan.each_row(move |row, out| {
            if let (Some(output), Cell::Value(Value::Int(v))) = (increased, row.get(input)) {
                let more =
                    v.checked_add(1).ok_or_else(|| Reject::new("int.overflow", format!("{v} is the greatest")))?;
                return out.cell(output).set_int(more);
            }
            let Cell::Value(Value::Text(text)) = row.get(input) else { return Ok(()) };
            match op {
                Op::FilterRows if text == not => out.drop_row(),
                Op::RouteRows => out.route(format!("to_{text}")),
                Op::RejectRows if value == *text => return Err(Reject::new("kit.refused", "not this one")),
                Op::Log => host::log(host::Level::Info, &format!("saw {text}"), &[]),
                Op::Fail => fail(text),
                _ => {}
            }
            Ok(())
        });
    }
}

fn fail(how: &str) {
    match how {
        "throw" => panic!("thrown on purpose"),
        "spin" => {
            let mut turns = 0u64;
            while std::hint::black_box(turns) < u64::MAX {
                turns += 1;
            }
        }
        "memory" => {
            let mut held = Vec::new();
            while std::hint::black_box(&held).len() < 1 << 20 {
                held.push(vec![1u8; 1 << 20]);
            }
        }
        "recursion" => {
            std::hint::black_box(recurse(0));
        }
        _ => {}
    }
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

millrace_sdk::transform!(Kit);
