//! PostgreSQL into nothing: the stream beside `pg_recvlogical` on the same changes, and the snapshot of rows of 430 bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::process::Stdio;
use std::time::Instant;

use millrace_benches::pipeline::{Run, Took, measure};
use millrace_benches::{Measured, in_turns, median, micros};
use millrace_connectors::postgres::{self, PostgresConfig};
use millrace_tests::servers::postgres::Postgres;
use serde_json::json;

const ROWS: u64 = 200_000;
const TURNS: usize = 5;

/// Rows of some 430 bytes, as those that the peers were measured with.
const TABLE: &str = "create table public.load (id bigint primary key, customer bigint, quantity int, price numeric(12,2), \
    paid bool, at timestamptz, status text, city text, street text, note text, payload text)";
const COLUMNS: &str = "i, i % 1000, (i % 7)::int, (i % 100000) / 100.0, i % 2 = 0, timestamptz '2026-01-01' + i * interval '1 second', \
    'shipped', 'Rotterdam', 'Coolsingel ' || i, repeat('leave it with the neighbours ', 3), repeat(md5(i::text), 6)";

struct Server {
    server: Postgres,
    slots: u32,
    spill: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let server = Postgres::start(15);
        server.sql(TABLE);
        server.sql("create publication bench for table public.load");
        Self { server, slots: 0, spill: tempfile::tempdir().expect("a temporary folder") }
    }

    fn fill(&self) {
        self.server.sql("truncate public.load");
        self.server.sql(&format!("insert into public.load select {COLUMNS} from generate_series(1, {ROWS}) i"));
    }

    fn slot(&mut self) -> String {
        self.slots += 1;
        let name = format!("bench_{}", self.slots);
        self.server.sql(&format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
        name
    }

    fn run(&self, slot: &str, snapshot: &str, until: u64) -> Took {
        let config = json!({"url": self.server.url(), "tables": ["public.load"], "slot": slot, "publication": "bench", "snapshot": snapshot});
        let config: PostgresConfig = serde_json::from_value(config).expect("a configuration");
        let state = self.spill.path().to_path_buf();
        measure(Run {
            source: Box::new(move || postgres::build(&config, "bench", &state)),
            sink: None,
            stages: Vec::new(),
            until: Some(until),
        })
    }

    fn drop_slot(&self, slot: &str) {
        self.server.sql(&format!("select pg_drop_replication_slot('{slot}')"));
    }

    /// Seconds that `pg_recvlogical` takes for what the slot holds.
    fn recvlogical(&self, slot: &str) -> f64 {
        let end = self.server.sql("select pg_current_wal_lsn()");
        let port = self.server.port().to_string();
        let start = Instant::now();
        let mut receive = self.server.tool("pg_recvlogical");
        receive.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            "postgres",
            "--slot",
            slot,
            "--start",
            "--no-loop",
        ]);
        receive.args([
            "-f",
            "/dev/null",
            "-o",
            "proto_version=2",
            "-o",
            "streaming=on",
            "-o",
            "publication_names=bench",
            "--endpos",
            end.trim(),
        ]);
        let ended = receive.stdout(Stdio::null()).status().expect("pg_recvlogical");
        assert!(ended.success(), "pg_recvlogical: {ended}");
        start.elapsed().as_secs_f64()
    }
}

fn stream(server: &mut Server) {
    let (mut cpu, mut pairs) = (Vec::new(), Vec::new());
    let mut own = Vec::new();
    for _ in 0..TURNS {
        let (ours, theirs) = (server.slot(), server.slot());
        server.fill();
        // The truncate of the fill is a row image too.
        let took = server.run(&ours, "never", ROWS);
        let reference = server.recvlogical(&theirs);
        server.drop_slot(&ours);
        server.drop_slot(&theirs);
        cpu.push(micros(took.cpu) / ROWS as f64);
        own.push(ROWS as f64 / took.wall.as_secs_f64());
        pairs.push((ROWS as f64 / took.wall.as_secs_f64(), ROWS as f64 / reference));
    }
    let half = |start: usize| median(own.iter().skip(start).step_by(2).copied().collect());
    let aa = Some(half(0) / half(1));
    let reference = median(pairs.iter().map(|p| p.1).collect());
    let result =
        |metric, unit, value, baseline| Measured { bench: "postgres", metric, unit, value, baseline, aa }.report();
    result("stream_changes_per_s", "changes/s", median(own.clone()), Some(reference));
    result("stream_vs_pg_recvlogical", "ratio", median(pairs.iter().map(|p| p.0 / p.1).collect()), Some(1.0));
    result("stream_cpu_us", "cpu us/change", median(cpu), None);
}

fn snapshot(server: &mut Server) {
    server.fill();
    let mut rates = Vec::new();
    let mut number = 0;
    let mut once = |server: &Server| {
        number += 1;
        let slot = format!("bench_snapshot_{number}");
        let took = server.run(&slot, "initial", ROWS);
        server.drop_slot(&slot);
        rates.push(ROWS as f64 / took.wall.as_secs_f64());
        micros(took.cpu) / ROWS as f64
    };
    let shared: &Server = server;
    let once = std::cell::RefCell::new(&mut once);
    let (cpu, again, aa) = in_turns(TURNS, || (once.borrow_mut())(shared), || (once.borrow_mut())(shared));
    let result = |metric, unit, value| {
        Measured { bench: "postgres", metric, unit, value, baseline: None, aa: Some(aa) }.report()
    };
    result("snapshot_cpu_us", "cpu us/row", f64::midpoint(cpu, again));
    result("snapshot_rows_per_s", "rows/s", median(rates.clone()));
}

fn main() {
    let mut server = Server::start();
    stream(&mut server);
    snapshot(&mut server);
}
