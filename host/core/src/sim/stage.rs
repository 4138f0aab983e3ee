//! The simulated plugin: rejects, drops, routes and merges by the value, differently in odd and even versions.

use std::sync::Arc;

use arrow_array::Int64Array;
use arrow_array::cast::AsArray;
use async_trait::async_trait;

use super::executor::SimEnvironment;
use crate::batch::ChangeBatch;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::outcome::{From, Outcome, Routing, RowReject, TransformPlan, Written, resolve};
use crate::pipeline::ConfiguredStage;
use crate::schema::{Column, ColumnType, TableName, TableSchema};
use crate::stage::{Grants, OnFailure, Stage, StageLoader, StageOutput, StagePlan, StageSpec};

/// Odd versions reject x and drop z, even ones reject y and drop x.
pub(super) fn rejects(version: i64, value: char) -> bool {
    value == if version % 2 == 1 { 'x' } else { 'y' }
}

pub(super) fn drops(version: i64, value: char) -> bool {
    value == if version % 2 == 1 { 'z' } else { 'x' }
}

/// Every third version can not stand an h: its table halts.
pub(super) fn halts(version: i64, value: char) -> bool {
    version % 3 == 2 && value == 'h'
}

/// Nor can the sink stand one of every third version.
pub(super) fn sink_halts(version: i64, value: char) -> bool {
    version % 3 == 0 && value == 'h'
}

/// S and T are merged into M; R is routed by its value, the other way round in even versions.
pub(super) fn table(version: i64, source: &str, value: char) -> &'static str {
    match source {
        "S" | "T" => "M",
        _ if (value == 'b') == (version % 2 == 1) => "B",
        _ => "A",
    }
}

pub(super) fn configured(version: i64) -> ConfiguredStage {
    let spec = StageSpec {
        name: "sim".into(),
        digest: format!("{version:016}"),
        config: String::new(),
        grants: Grants::default(),
        tables: Vec::new(),
        on_failure: OnFailure::DeadLetter,
        limits: String::new(),
    };
    ConfiguredStage { spec, artifact: version.to_be_bytes().to_vec().into() }
}

pub(super) struct SimLoader(pub(super) SimEnvironment);

#[async_trait]
impl StageLoader for SimLoader {
    async fn load(&self, spec: &StageSpec, artifact: &[u8]) -> Result<Box<dyn Stage>> {
        let version = artifact.try_into().map_or(0, i64::from_be_bytes);
        Ok(Box::new(SimStage { spec: spec.clone(), version, env: self.0.clone() }))
    }
}

struct SimStage {
    spec: StageSpec,
    version: i64,
    env: SimEnvironment,
}

impl SimStage {
    fn output(&self, schema: &TableSchema) -> Arc<TableSchema> {
        let mut columns = schema.columns.clone();
        columns.push(Column::new("version", ColumnType::Int64));
        let name = if &*schema.name.table == "R" { "A" } else { "M" };
        Arc::new(TableSchema::new(TableName::new("", name), columns, schema.images))
    }
}

#[async_trait]
impl Stage for SimStage {
    fn spec(&self) -> &StageSpec {
        &self.spec
    }

    async fn plan(&mut self, schema: &Arc<TableSchema>) -> Result<Option<StagePlan>> {
        let output = self.output(schema);
        Ok(Some(StagePlan {
            reads: Vec::new(),
            writes: Vec::new(),
            effects: Vec::new(),
            output,
            shapes: Vec::new(),
            parses: false,
        }))
    }

    async fn apply(&mut self, batch: &ChangeBatch) -> Result<StageOutput> {
        let values: Vec<char> = batch.columns[1]
            .as_string::<i32>()
            .iter()
            .map(|v| v.and_then(|v| v.chars().next()).unwrap_or(' '))
            .collect();
        if values.iter().any(|v| halts(self.version, *v)) {
            return Err(Error::halt_table("sim.halts", "h"));
        }
        // A question mark stands for a slow row: a time-out on one run, and not on the next.
        let slow = |value: char| value == '?' && self.env.random().is_multiple_of(3);
        let reject = |(row, value): (usize, &char)| {
            (batch.change_types[row] as u8 != 4
                && batch.change_types[row].decides()
                && (rejects(self.version, *value) || slow(*value)))
            .then(|| RowReject { row: row as u32, code: "sim.reject".into(), reason: value.to_string(), column: None })
        };
        let source = batch.origin.source.table.clone();
        let names: Vec<String> = ["M", "A", "B"].map(String::from).into();
        let by_row = values
            .iter()
            .map(|v| names.iter().position(|n| n == table(self.version, &source, *v)).unwrap_or(0) as u16)
            .collect();
        let plan = TransformPlan {
            output: self.output(&batch.schema),
            columns: vec![From::Input(0), From::Input(1), From::Written { index: 0, replaces: None }],
            reads: vec![1],
            writes_key: false,
            shapes: Vec::new(),
        };
        let versions = Int64Array::from(vec![self.version; batch.rows()]);
        let outcome = Outcome {
            keep: Some(values.iter().map(|v| !drops(self.version, *v)).collect()),
            columns: vec![Some(Written { cells: Arc::new(versions), unavailable: None })],
            rejects: values.iter().enumerate().filter_map(reject).collect(),
            emissions: Vec::new(),
            routing: Some(Routing { names, by_row }),
        };
        resolve(batch, &plan, outcome)
    }
}
