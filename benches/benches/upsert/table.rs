//! The table that is measured, behind the sink's own seam.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use millrace_core::batch::ChangeBatch;
use millrace_core::cut::Cut;
use millrace_core::environment::Environment;
use millrace_core::position::{Order, Position};
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Sink};
use millrace_delta::{DeltaConfig, DeltaSink, IndexKind, Mode};
use millrace_server::environment::TokioEnvironment;
use tokio::runtime::Runtime;

use crate::rows::{Ids, inserts, source};

pub(crate) struct Lake {
    runtime: Runtime,
    sink: DeltaSink,
}

impl Lake {
    /// A new host of the table in this folder: nothing of it is in memory. `compaction`: beside the cuts. `exact`: rows are
    /// found by an exact index, which stays on disk.
    pub(crate) fn open(folder: &Path, compaction: bool, exact: bool) -> Self {
        Self::open_with(folder, |config| {
            config.compaction = compaction;
            if exact {
                config.index = IndexKind::Exact;
                config.index_dir = Some(folder.join("index"));
            }
        })
    }

    /// As [`Lake::open`], with other settings.
    pub(crate) fn open_with(folder: &Path, set: impl FnOnce(&mut DeltaConfig)) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mut config = DeltaConfig::new(format!("{}/{{namespace}}/{{table}}", folder.display()));
        config.mode = Mode::Upsert;
        set(&mut config);
        let environment = Arc::new(TokioEnvironment::new()) as Arc<dyn Environment>;
        let mut sink = DeltaSink::new(config, "bench", environment).expect("a sink");
        let tables: BTreeSet<TableName> = [TableName::new("public", "orders")].into();
        let claim = Claim { pipeline: "bench".into(), incarnation: "1".into(), epoch: 1, tables };
        runtime.block_on(sink.fence(&claim)).expect("a fence");
        Self { runtime, sink }
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
        let sink = &mut self.sink;
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
