//! `millrace resnapshot`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use millrace_core::position::{Order, SourceKey};
use millrace_core::record::{Record, RecordStore};
use millrace_core::{Error, Result};

use super::{Outcome, say, validate};
use crate::config;
use crate::environment::TokioEnvironment;
use crate::wiring;

/// Takes a new snapshot of a table, beside the stream
///
/// The host that runs the pipeline, or its next start, lets the table stand, reads its rows as they are then, puts them
/// in place of those that it holds in one commit, and goes on from there. The other tables go on meanwhile.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace resnapshot shop.yaml public.orders --wait\n  public.orders: a new snapshot is asked for\n  public.orders: the new snapshot is complete"
)]
pub(super) struct Args {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The source table, as SCHEMA.TABLE
    table: String,
    /// Wait until it is complete; a host has to run the pipeline
    #[arg(long)]
    wait: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    let loaded = match config::load(&args.file) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(validate::refused(&problems, false)),
    };
    let records = wiring::records(&loaded, Arc::new(TokioEnvironment::new()))?;
    let before = place(records.as_ref(), &loaded.config.pipeline, &args.table).await?;
    records.request_snapshot(&args.table).await?;
    say(format_args!("{}: a new snapshot is asked for", args.table));
    if args.wait { wait(records.as_ref(), &args.table, before).await } else { Ok(Outcome::Done) }
}

/// The place of the snapshot that the table has.
async fn place(records: &dyn RecordStore, pipeline: &str, table: &str) -> Result<Order> {
    let record = Record::latest(records).await?.ok_or_else(|| {
        Error::config("resnapshot.never_ran", format!("pipeline {pipeline} has no resume record"))
            .hint("its first start takes a snapshot of every table")
    })?;
    record.snapshots.get(&SourceKey::new(table)).copied().ok_or_else(|| {
        let tables: Vec<&str> = record.snapshots.keys().map(|source| &*source.table).collect();
        Error::config("resnapshot.no_table", format!("pipeline {pipeline} has no snapshot of `{table}`"))
            .hint(format!("it has one of: {}", tables.join(", ")))
    })
}

/// How often the record is looked at; the host writes it every few seconds.
const LOOK: Duration = Duration::from_millis(500);

async fn wait(records: &dyn RecordStore, table: &str, before: Order) -> Result<Outcome> {
    let source = SourceKey::new(table);
    loop {
        tokio::time::sleep(LOOK).await;
        let asked = records.snapshot_requests().await?.iter().any(|wanted| wanted == table);
        let Some(record) = Record::latest(records).await? else { continue };
        if record.snapshots.get(&source).is_some_and(|order| *order != before) {
            say(format_args!("{table}: the new snapshot is complete"));
            return Ok(Outcome::Done);
        }
        let under_way = record.behind.get(&source).is_some_and(|b| b.resnapshot) || record.pending.is_some();
        if !asked && !under_way {
            return Err(Error::halt("resnapshot.refused", format!("no new snapshot of {table} was taken"))
                .hint("the log of the host that runs the pipeline says why"));
        }
    }
}
