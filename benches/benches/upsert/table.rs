//! The table that is measured, behind the sink's own seam.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use millrace_core::batch::ChangeBatch;
use millrace_core::cut::Cut;
use millrace_core::environment::Environment;
use millrace_core::position::{Order, Position};
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Sink};
use millrace_delta::{DeltaConfig, DeltaSink, Mode};
use millrace_server::environment::TokioEnvironment;
use tokio::runtime::Runtime;

use crate::rows::{Ids, inserts, source};

pub(crate) struct Lake {
    runtime: Runtime,
    folder: tempfile::TempDir,
    sink: Option<DeltaSink>,
    epoch: u64,
}

impl Lake {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mut lake = Self { runtime, folder: tempfile::tempdir().expect("a folder"), sink: None, epoch: 0 };
        lake.restart();
        lake
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.folder.path().join("public/orders")
    }

    /// A new host: nothing of the table is in memory.
    pub(crate) fn restart(&mut self) {
        self.epoch += 1;
        self.sink = None;
        let config = DeltaConfig {
            mode: Mode::Upsert,
            ..DeltaConfig::new(format!("{}/{{namespace}}/{{table}}", self.folder.path().display()))
        };
        let environment = Arc::new(TokioEnvironment::default()) as Arc<dyn Environment>;
        let mut sink = DeltaSink::new(config, "bench", environment).expect("a sink");
        let tables: BTreeSet<TableName> = [TableName::new("public", "orders")].into();
        let claim = Claim { pipeline: "bench".into(), incarnation: "1".into(), epoch: self.epoch, tables };
        self.runtime.block_on(sink.fence(&claim)).expect("a fence");
        self.sink = Some(sink);
    }

    /// Writes `rows` rows in `files` files.
    pub(crate) fn fill(&mut self, rows: u64, files: u64, ids: Ids) {
        let mut commit = 0;
        for file in 0..files {
            let each = rows / files;
            let batches = inserts(file * each, each, ids, &mut commit);
            self.commit(batches);
        }
    }

    pub(crate) fn commit(&mut self, batches: Vec<ChangeBatch>) {
        let last = batches.last().and_then(|b| b.origin.orders.last()).copied().expect("changes");
        let cut = Cut {
            number: 1,
            position: Some(Position { order: Order::new(last.commit(), i64::MAX), token: Default::default() }),
            last: [(source(), last)].into(),
            snapshot: BTreeMap::new(),
            rows: 1,
            bytes: 1,
            commit_time: 0,
            end: false,
        };
        let sink = self.sink.as_mut().expect("a sink");
        self.runtime.block_on(async {
            for batch in batches {
                sink.write(batch).await.expect("written");
            }
            // An update of a row that an earlier cut deleted, less a value, is refused: a few in a thousand.
            sink.prepare(&cut).await.expect("prepared");
            sink.commit(&cut).await.expect("committed");
        });
    }
}
