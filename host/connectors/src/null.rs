//! Sink `null`: counts what it gets and keeps nothing.

use std::collections::BTreeMap;

use async_trait::async_trait;
use millrace_core::Result;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::Cut;
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Prepared, Sink, Stored};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Drops every row, to measure what comes before the sink. At least once: it has no positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NullConfig {}

impl NullConfig {
    pub fn build(&self) -> NullSink {
        NullSink::default()
    }
}

/// The sink; made by [`NullConfig::build`].
#[derive(Debug, Default)]
pub struct NullSink {
    pending: BTreeMap<TableName, u64>,
    committed: BTreeMap<TableName, u64>,
}

#[async_trait]
impl Sink for NullSink {
    async fn fence(&mut self, _claim: &Claim) -> Result<Stored> {
        self.pending.clear();
        Ok(Stored::new())
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        count(&mut self.pending, &batch.schema.name, batch.rows() as u64);
        Ok(())
    }

    async fn prepare(&mut self, _cut: &Cut) -> Result<Prepared> {
        Ok(Prepared::default())
    }

    async fn commit(&mut self, _cut: &Cut) -> Result<()> {
        for (table, rows) in std::mem::take(&mut self.pending) {
            count(&mut self.committed, &table, rows);
        }
        Ok(())
    }

    fn committed(&self) -> BTreeMap<TableName, u64> {
        self.committed.clone()
    }
}

/// Adds without cloning a name that is there.
pub(crate) fn count(counts: &mut BTreeMap<TableName, u64>, table: &TableName, rows: u64) {
    match counts.get_mut(table) {
        Some(count) => *count += rows,
        None => {
            counts.insert(table.clone(), rows);
        }
    }
}
