//! A new snapshot of a table that has one, beside the stream: the table stands (I12) while its rows are staged at a
//! consistent point after the place where it stopped, and catches up from there. The others go on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::chain::{Passed, SharedQuarantine};
use super::committer::{Committer, Tables};
use super::keeper::Keeper;
use super::replay::Replay;
use super::stand::Stops;
use super::swap::{Code, load};
use super::{Ahead, Counts, Pipeline, Summary, ended, spawn_ahead};
use crate::environment::Task;
use crate::error::{Error, Result};
use crate::position::SourceKey;
use crate::record::Pending;
use crate::schema::TableName;

/// How a snapshot ended: staged, or why not.
pub(super) type Ended = (SourceKey, Result<Taken>);

/// A snapshot that is staged, and how to commit it (I9).
pub(super) struct Taken {
    pub pending: Pending,
    /// That it makes: their names enter the record with it (I13).
    pub new_tables: BTreeSet<TableName>,
    pub counts: Counts,
}

/// Takes the snapshots that the record asks for, one after the other. `None`: it asks for none.
pub(super) fn take_beside(pipeline: &Pipeline, keeper: &Keeper) -> Option<(Task, mpsc::Receiver<Ended>)> {
    let wanted = keeper.to_snapshot().next()?.clone();
    let (out, taken) = mpsc::channel(1);
    let (pipeline, keeper) = (pipeline.clone(), keeper.clone());
    let env = Arc::clone(&pipeline.env);
    let work = async move {
        let result = take(&pipeline, keeper, &wanted).await;
        if out.send((wanted.clone(), result)).await.is_err() {
            tracing::debug!(table = %wanted, "the pipeline ended before its new snapshot was complete");
        }
    };
    Some((env.spawn("resnapshot", Box::pin(work)), taken))
}

/// Reads the table through stages and sinks of its own, up to where the commit would come.
async fn take(pipeline: &Pipeline, keeper: Keeper, wanted: &SourceKey) -> Result<Taken> {
    let mut source = pipeline.parts.source()?;
    let opened = source.open_snapshot(wanted).await?;
    let (mut sink, mut letters) = (pipeline.parts.sink()?, pipeline.parts.letters()?);
    // The same epoch as the stream's: nothing is taken from it.
    sink.fence(&keeper.claimed()).await?;
    letters.fence(&keeper.claimed_letters()).await?;
    tracing::info!(pipeline = %pipeline.name, table = %wanted, "a new snapshot is being taken; the table stands meanwhile");

    let code = Code { stages: load(pipeline.loader.as_ref(), &pipeline.stages).await?, waiting: None };
    let quarantine = SharedQuarantine::default();
    let (halted, stops) = (BTreeSet::new(), Stops::default());
    let ahead = Ahead { source, opened, code, replay: Replay::of_nothing(), halted, stops, quarantine };
    let (mut running, ends) = spawn_ahead(pipeline, ahead);
    let mut summary = Summary::default();
    let mut committer = Committer::new(pipeline, Tables { sink, letters, keeper }, ends, &mut summary);
    while let Some(passed) = running.from_stages.recv().await {
        match passed {
            Passed::Cut { cut, counts, .. } if cut.is_snapshot() => return committer.stage(&cut, counts).await,
            Passed::HaltedInSnapshot(halt) => return Err(halt.error),
            // Where the sink can not take them, the snapshot is not taken, and nothing stands anew.
            Passed::Rows(batch) => committer.write_rows(batch).await?,
            letters => {
                committer.take(letters).await?;
            }
        }
    }
    ended(&mut running.stages_done).await?;
    ended(&mut running.reader_done).await?;
    Err(Error::bug("a snapshot without an end"))
}
