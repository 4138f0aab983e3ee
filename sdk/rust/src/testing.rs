//! Runs plugin logic natively, through the same code as in the sandbox, with a stand-in for the host.
//!
//! Rows are JSON objects: a key that is absent was not sent, `null` is NULL. Text, json and decimals are strings, uuids too,
//! binary is hexadecimal, timestamps and dates are the numbers that the contract sends. Row `n`, counted from 1, has the position
//! `n` and was committed `n` seconds after 1970.

mod raw;

use std::cell::RefCell;
use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value as Json};

use crate::batch::ChangeType;
use crate::bindings::types::{self, Cells, FixedData};
use crate::bindings::{exports_transform, exports_validator};
use crate::cell::{Cell, Uuid, Value};
use crate::column::{Any, Column, Reader};
use crate::error::Error;
use crate::export::{TransformSlot, ValidatorSlot};
use crate::host::Level;
use crate::out::Out;
use crate::schema::{ColumnDef, DataType};
use crate::transform::Transform;
use crate::validator::Validator;

pub use raw::{Ending, Messages};

/// What the plugin logged and counted.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Seen {
    /// lines of the log
    pub log: Vec<(Level, String)>,
    /// sums by name
    pub counters: BTreeMap<String, u64>,
    /// values by name
    pub observations: BTreeMap<String, Vec<f64>>,
}

#[derive(Default)]
struct Host {
    keys: BTreeMap<String, Vec<u8>>,
    seen: Seen,
}

thread_local!(static HOST: RefCell<Host> = RefCell::default());

pub(crate) fn log(level: Level, message: &str, _: &[(&str, &str)]) {
    HOST.with_borrow_mut(|host| host.seen.log.push((level, message.to_string())));
}

pub(crate) fn count(name: &str, _: &[(&str, &str)], add: u64) {
    HOST.with_borrow_mut(|host| *host.seen.counters.entry(name.to_string()).or_default() += add);
}

pub(crate) fn observe(name: &str, _: &[(&str, &str)], value: f64) {
    HOST.with_borrow_mut(|host| host.seen.observations.entry(name.to_string()).or_default().push(value));
}

pub(crate) fn hmac(key: &str, input: &types::Column) -> Result<types::Column, Error> {
    let key = HOST.with_borrow(|host| host.keys.get(key).cloned()).ok_or_else(|| crate::host::not_granted(key))?;
    let Cells::Vars(vars) = &input.cells else { return Err(Error::bug("hmac: the column is not of text or bytes")) };
    let mut data = Vec::with_capacity(32 * vars.offsets.len());
    for cell in vars.offsets.windows(2) {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).map_err(|e| Error::bug(e.to_string()))?;
        mac.update(&vars.data[cell[0] as usize..cell[1] as usize]);
        data.extend_from_slice(&mac.finalize().into_bytes());
    }
    Ok(types::Column { presence: input.presence.clone(), cells: Cells::Fixed(FixedData { width: 32, data }) })
}

/// A table, a config and rows, for one run of a plugin.
#[derive(Debug, Clone)]
pub struct Case {
    schema: types::TableSchema,
    config: Json,
    keys: BTreeMap<String, Vec<u8>>,
    rows: Vec<(ChangeType, Map<String, Json>)>,
}

/// What became of a row image.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It goes on, with these cells; those that were not sent are absent.
    Kept(Map<String, Json>),
    /// It was left out.
    Dropped,
    /// It was refused, with this code and reason.
    Rejected {
        /// "area.reason"
        code: String,
        /// for people
        reason: String,
    },
}

/// What a run answered, a row image each.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// what became of each row image
    pub fates: Vec<Fate>,
    /// the table that each row image leaves for
    pub tables: Vec<String>,
    /// what the plugin logged and counted
    pub seen: Seen,
}

/// What a validator said of a row image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// the row image's place in the case
    pub row: usize,
    /// the rule's name
    pub rule: String,
    /// what is wrong
    pub message: String,
}

impl Case {
    /// A table "public.NAME" without columns, an empty config.
    pub fn table(name: &str) -> Self {
        let schema = types::TableSchema {
            connector: "test".to_string(),
            namespace: "public".to_string(),
            table: name.to_string(),
            registry_ref: None,
            images: 2,
            ext: Vec::new(),
            columns: Vec::new(),
        };
        Case { schema, config: Json::Object(Map::new()), keys: BTreeMap::new(), rows: Vec::new() }
    }

    /// Adds a key column.
    pub fn key(mut self, name: &str, ty: DataType) -> Self {
        let column = ColumnDef { key: true, nullable: false, ..ColumnDef::new(name, ty) };
        self.schema.columns.push(column.into());
        self
    }

    /// Adds a nullable column.
    pub fn column(mut self, name: &str, ty: DataType) -> Self {
        self.schema.columns.push(ColumnDef::new(name, ty).into());
        self
    }

    /// Sets the config document.
    pub fn config(mut self, config: Json) -> Self {
        self.config = config;
        self
    }

    /// Grants a key of `crypto`.
    pub fn crypto(mut self, name: &str, material: &[u8]) -> Self {
        self.keys.insert(name.to_string(), material.to_vec());
        self
    }

    /// Adds an inserted row.
    pub fn insert(self, row: Json) -> Self {
        self.image(ChangeType::Insert, row)
    }

    /// Adds a row image.
    ///
    /// # Panics
    /// The row is no JSON object.
    pub fn image(mut self, change: ChangeType, row: Json) -> Self {
        let Json::Object(row) = row else { panic!("a row is a JSON object, not {row}") };
        self.rows.push((change, row));
        self
    }

    /// Runs a transform on all rows as one batch.
    ///
    /// # Errors
    /// What `configure`, `plan` or `apply` answered.
    pub fn transform<P: Transform>(&self) -> Result<Answer, String> {
        self.transform_cut::<P>(usize::MAX)
    }

    /// Runs a transform on the rows cut into batches of `size`, as the host may cut them.
    ///
    /// # Errors
    /// What `configure`, `plan` or `apply` answered.
    pub fn transform_cut<P: Transform>(&self, size: usize) -> Result<Answer, String> {
        self.start();
        let slot = TransformSlot::<P>::new();
        slot.configure(self.config.to_string(), "test".to_string()).map_err(show)?;
        let plan = slot.plan(1, self.schema.clone()).map_err(show)?;
        let mut answer = Answer { fates: Vec::new(), tables: Vec::new(), seen: Seen::default() };
        for rows in self.rows.chunks(size.min(self.rows.len()).max(1)) {
            match &plan {
                None => answer.pass(self, rows),
                Some(plan) => {
                    let meta = plan.meta.iter().map(|name| meta(name, answer.fates.len(), rows.len()));
                    let batch = types::Batch { meta: meta.collect(), ..self.batch(&plan.reads, rows) };
                    let outcome = slot.apply(batch).map_err(show)?;
                    answer.add(self, plan, &outcome, rows)?;
                }
            }
        }
        answer.seen = seen();
        Ok(answer)
    }

    /// Runs a validator on all rows as one batch.
    ///
    /// # Errors
    /// What `configure`, `plan` or `check` answered.
    pub fn validate<P: Validator>(&self) -> Result<Vec<Violation>, String> {
        self.start();
        let slot = ValidatorSlot::<P>::new();
        slot.configure(self.config.to_string(), "test".to_string()).map_err(show)?;
        let Some(plan) = slot.plan(1, self.schema.clone()).map_err(show)? else { return Ok(Vec::new()) };
        let violations = slot.check(self.batch(&plan.reads, &self.rows)).map_err(show)?;
        let named = |v: exports_validator::Violation| Violation {
            row: v.row as usize,
            rule: plan.rules[usize::from(v.rule)].name.clone(),
            message: v.message,
        };
        Ok(violations.into_iter().map(named).collect())
    }

    fn start(&self) {
        HOST.set(Host { keys: self.keys.clone(), seen: Seen::default() });
    }

    fn batch(&self, reads: &[u16], rows: &[(ChangeType, Map<String, Json>)]) -> types::Batch {
        let columns = reads.iter().map(|&i| cells_of(&self.schema.columns[usize::from(i)], rows).0).collect();
        let change_types = rows.iter().map(|(change, _)| change.code()).collect();
        types::Batch {
            schema: 1,
            partition: 0,
            snapshot: false,
            rows: rows.len() as u32,
            change_types,
            changes: None,
            meta: Vec::new(),
            columns,
        }
    }
}

fn show(error: types::StageError) -> String {
    match error {
        types::StageError::RetryLater(retry) => format!("retry later: {}", retry.reason),
        types::StageError::UnsupportedSchema(m) => format!("unsupported schema: {m}"),
        types::StageError::InvalidConfig(m) => format!("invalid config: {m}"),
        types::StageError::Bug(m) => format!("bug: {m}"),
    }
}

fn seen() -> Seen {
    HOST.with_borrow(|host| host.seen.clone())
}

fn meta(name: &str, before: usize, rows: usize) -> types::Column {
    let ty = if name == "position" { DataType::Text } else { DataType::Int64 };
    let mut out = Out::new(&ty, rows, None);
    for n in before + 1..=before + rows {
        match ty {
            DataType::Text => out.push_str(&n.to_string()),
            _ => out.set(Value::Int(n as i64 * 1_000_000)).unwrap_or_default(),
        }
        out.end_row();
    }
    out.finish().0
}

fn cells_of(definition: &types::ColumnDef, rows: &[(ChangeType, Map<String, Json>)]) -> Column {
    let ty = DataType::from(definition.ty.clone());
    let mut out = Out::new(&ty, rows.len(), None);
    for (_, row) in rows {
        match row.get(&definition.name) {
            None => out.set_not_sent(),
            Some(Json::Null) => out.set_null(),
            Some(value) => put(&mut out, value, &ty)
                .unwrap_or_else(|| panic!("column {} cannot hold {value} as {ty:?}", definition.name)),
        }
        out.end_row();
    }
    out.finish()
}

fn put(out: &mut Out, value: &Json, ty: &DataType) -> Option<()> {
    match ty {
        DataType::Boolean => out.set_bool(value.as_bool()?),
        DataType::Float32 | DataType::Float64 => out.set_float(value.as_f64()?),
        DataType::UInt64 => out.set(Value::UInt(value.as_u64()?)).ok()?,
        DataType::Decimal64 { scale, .. } => {
            out.set_int(crate::cell::scaled_text(value.as_str()?.as_bytes(), u8::try_from(*scale).ok()?)?).ok()?;
        }
        DataType::Uuid => out.push_bytes(&value.as_str()?.parse::<Uuid>().ok()?.0),
        DataType::Binary => {
            let text = value.as_str()?;
            for at in (0..text.len()).step_by(2) {
                out.push_bytes(&[u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?]);
            }
        }
        DataType::Json => out.push_str(&value.to_string()),
        DataType::Text | DataType::Decimal { .. } | DataType::Other(_) => out.push_str(value.as_str()?),
        _ => out.set_int(value.as_i64()?).ok()?,
    }
    Some(())
}

fn json(value: Value<'_>) -> Json {
    match value {
        Value::Bool(v) => v.into(),
        Value::Int(v) | Value::Time(v) => v.into(),
        Value::UInt(v) => v.into(),
        Value::Float(v) => v.into(),
        Value::Date(v) => v.to_i32().into(),
        Value::Timestamp(v) | Value::TimestampTz(v) => v.to_i64().into(),
        Value::Json(v) => serde_json::from_str(v).unwrap_or(Json::Null),
        other => other.to_string().into(),
    }
}

impl Answer {
    /// The cells of a row image that goes on.
    ///
    /// # Panics
    /// It was dropped or rejected.
    pub fn kept(&self, row: usize) -> &Map<String, Json> {
        match &self.fates[row] {
            Fate::Kept(cells) => cells,
            other => panic!("row {row} is not kept but {other:?}"),
        }
    }

    fn pass(&mut self, case: &Case, rows: &[(ChangeType, Map<String, Json>)]) {
        self.fates.extend(rows.iter().map(|(_, row)| Fate::Kept(row.clone())));
        self.tables.extend(rows.iter().map(|_| case.schema.table.clone()));
    }

    fn add(
        &mut self,
        case: &Case,
        plan: &exports_transform::TransformPlan,
        outcome: &exports_transform::Outcome,
        rows: &[(ChangeType, Map<String, Json>)],
    ) -> Result<(), String> {
        let written = written(plan, outcome);
        let readers = written
            .iter()
            .map(|(name, ty, column)| Ok((*name, Reader::<Any>::new(column, ty).map_err(|e| e.to_string())?)))
            .collect::<Result<Vec<_>, String>>()?;
        let usual = plan.rename_table.as_ref().unwrap_or(&case.schema.table);
        for (at, (_, row)) in rows.iter().enumerate() {
            let rejected = outcome.rejects.iter().find(|r| r.row as usize == at);
            let dropped = outcome.fates.as_ref().is_some_and(|f| f[at] == 1);
            self.fates.push(match rejected {
                Some(r) => Fate::Rejected { code: r.code.clone(), reason: r.reason.clone() },
                None if dropped => Fate::Dropped,
                None => {
                    let mut cells = unwritten(case, plan, row);
                    for (name, reader) in &readers {
                        match reader.get(at) {
                            Cell::Value(value) => cells.insert((*name).to_string(), json(value)),
                            Cell::Null => cells.insert((*name).to_string(), Json::Null),
                            Cell::NotSent => None,
                        };
                    }
                    Fate::Kept(cells)
                }
            });
            let route = outcome.routing.as_ref().map(|r| &r.names[usize::from(r.by_row[at])]);
            self.tables.push(route.filter(|name| !name.is_empty()).unwrap_or(usual).clone());
        }
        Ok(())
    }
}

type Written<'a> = Vec<(&'a str, DataType, Column)>;

fn written<'a>(plan: &'a exports_transform::TransformPlan, outcome: &exports_transform::Outcome) -> Written<'a> {
    let pairs = plan.writes.iter().zip(&outcome.columns);
    pairs
        .filter_map(|(write, column)| {
            let column = Column(column.clone()?);
            Some((write.output.name.as_str(), DataType::from(write.output.ty.clone()), column))
        })
        .collect()
}

/// The cells that the plan leaves as they are, under the names that it gives them.
fn unwritten(case: &Case, plan: &exports_transform::TransformPlan, row: &Map<String, Json>) -> Map<String, Json> {
    let mut cells = Map::new();
    for (index, column) in case.schema.columns.iter().enumerate() {
        let index = index as u16;
        if plan.drops.contains(&index) || plan.writes.iter().any(|w| w.replaces == Some(index)) {
            continue;
        }
        let name = plan.renames.iter().find(|r| r.column == index).map_or(&column.name, |r| &r.to);
        if let Some(value) = row.get(&column.name) {
            cells.insert(name.clone(), value.clone());
        }
    }
    cells
}
