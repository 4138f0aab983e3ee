//! What a row costs on its way into a Delta table: CPU and wall time by rows a cut, on the disk under the given folder.
//!
//! `cargo run --release -p millrace-delta --example append -- FOLDER [ROWS]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::cut::Cut;
use millrace_core::environment::{Abort, Environment, Task};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::{Claim, Sink};
use millrace_delta::{DeltaConfig, DeltaSink};

struct Machine {
    started: Instant,
    numbers: AtomicU64,
}

struct Handle(tokio::task::AbortHandle);

impl Abort for Handle {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Environment for Machine {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        Task(Box::new(Handle(tokio::spawn(task).abort_handle())))
    }

    fn random(&self) -> u64 {
        let n = self.numbers.fetch_add(1, Ordering::Relaxed);
        (n ^ (std::process::id() as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

const BATCH: i64 = 1_000;

fn schema() -> Arc<TableSchema> {
    let mut columns = vec![Column::new("id", ColumnType::Int64).key()];
    columns.extend((0..3).map(|i| Column::new(format!("int{i}"), ColumnType::Int64)));
    columns.push(Column::new("float", ColumnType::Float64));
    columns.push(Column::new("flag", ColumnType::Boolean));
    columns.extend((0..6).map(|i| Column::new(format!("text{i}"), ColumnType::Text)));
    Arc::new(TableSchema::new(TableName::new("public", "rows"), columns, Images::Full))
}

/// Integers of three magnitudes, texts of some dozen bytes of which two columns are names from a small pool.
fn batch(schema: &Arc<TableSchema>, first: i64) -> Result<ChangeBatch> {
    let mut rows = RowsBuilder::new(SourceKey::new("public.rows"), Arc::clone(schema), false, BATCH as usize)?;
    for n in first..first + BATCH {
        let mixed = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        rows.begin_change(Order::new(n, 1), 1_700_000_000_000_000 + n * 50);
        rows.begin_row(ChangeType::Insert);
        for (index, column) in rows.columns().iter_mut().enumerate() {
            match &mut column.cells {
                Cells::Int64(cells) if index == 0 => cells.append_value(n),
                Cells::Int64(cells) => cells.append_value((mixed % 10_u64.pow(2 * index as u32)) as i64),
                Cells::Float64(cells) => cells.append_value(mixed as f64 / 100.0),
                Cells::Boolean(cells) => cells.append_value(mixed.is_multiple_of(3)),
                Cells::Text(cells) if index < 8 => {
                    cells.append_value(["Ada", "Grace", "Edsger", "Barbara"][(mixed % 4) as usize])
                }
                Cells::Text(cells) => cells.append_value(format!("{:x}@{index}.example", mixed % 1_000_000)),
                other => other.append_null(),
            }
        }
    }
    rows.finish()?.ok_or_else(|| millrace_core::Error::bug("an empty batch"))
}

fn cut(number: u64, last: i64) -> Cut {
    let order = Order::new(last, 1);
    Cut {
        number,
        position: Some(Position { order, token: Default::default() }),
        last: BTreeMap::from([(SourceKey::new("public.rows"), order)]),
        snapshot: BTreeMap::new(),
        rows: 0,
        bytes: 0,
        commit_time: 0,
        end: false,
    }
}

/// User and system seconds of this process, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let ticks = |i: usize| after.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

async fn measure(folder: &str, rows_a_cut: i64, batches: &[ChangeBatch]) -> Result<()> {
    let mut config = DeltaConfig::new(format!("{folder}/{rows_a_cut}/{{namespace}}/{{table}}"));
    config.checkpoint_interval = 100;
    let machine = Arc::new(Machine { started: Instant::now(), numbers: AtomicU64::new(1) });
    let mut sink = DeltaSink::new(config, "append", machine)?;
    let claim = Claim { pipeline: "append".into(), incarnation: "x".into(), epoch: 1, tables: Default::default() };
    sink.fence(&claim).await?;
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let mut commits = Vec::new();
    let mut rows = 0;
    for (number, part) in batches.chunks((rows_a_cut / BATCH) as usize).enumerate() {
        for batch in part {
            rows += batch.rows();
            sink.write(batch.clone()).await?;
        }
        let last = part.last().map_or(0, |b| b.order(b.rows() - 1).commit());
        let end = cut(number as u64, last);
        let started = Instant::now();
        sink.prepare(&end).await?;
        sink.commit(&end).await?;
        commits.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    commits.sort_by(f64::total_cmp);
    let percentile = |p: f64| commits[((commits.len() - 1) as f64 * p) as usize];
    println!(
        "{rows_a_cut:>7} rows a cut: {:.2} CPU µs a row, {:.2} µs wall, prepare + commit {:.1} / {:.1} ms (median / 99 %), {} cuts",
        cpu * 1e6 / rows as f64,
        wall * 1e6 / rows as f64,
        percentile(0.5),
        percentile(0.99),
        commits.len()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = arguments.get(1).map_or("/tmp/append", String::as_str);
    let rows: i64 = arguments.get(2).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let schema = schema();
    let batches = (0..rows / BATCH).map(|i| batch(&schema, i * BATCH + 1)).collect::<Result<Vec<_>>>()?;
    for rows_a_cut in [1_000, 10_000, 100_000] {
        measure(folder, rows_a_cut, &batches).await?;
    }
    Ok(())
}
