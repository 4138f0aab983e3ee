//! How far a pipeline has got, by its replication slot.

use std::time::{Duration, Instant};

use crate::host::Host;
use crate::place::Lake;
use crate::servers::postgres::Postgres;
use crate::servers::wait_for;

/// Up to where the pipeline's slot was acknowledged, in bytes of the write-ahead log; none: there is no slot yet.
pub fn acknowledged(server: &Postgres, pipeline: &str) -> Option<i64> {
    let slots = "select confirmed_flush_lsn - '0/0'::pg_lsn from pg_replication_slots where slot_name = ";
    server.sql(&format!("{slots}'millrace_{pipeline}'")).parse().ok()
}

/// The end of the write-ahead log now, in bytes.
pub fn written(server: &Postgres) -> i64 {
    server.sql("select pg_current_wal_lsn() - '0/0'::pg_lsn").parse().expect("a number of bytes")
}

/// Waits until so many snapshots are complete, and everything that was committed by now is stored, recorded and
/// acknowledged.
///
/// # Panics
/// If the host ends meanwhile, or it takes longer than `limit`.
pub fn catch_up(server: &Postgres, host: &Host, lake: &Lake, snapshots: usize, limit: Duration) {
    let target = written(server);
    // A slot that was just created is at its end: only the record says that the snapshots are stored.
    let is_read = || lake.record().is_some_and(|record| record.snapshots() >= snapshots);
    let reached = || {
        assert!(host.is_running(), "the host ended by itself:\n{}", host.log());
        (is_read() && acknowledged(server, &lake.pipeline).is_some_and(|at| at >= target)).then_some(())
    };
    let detail = || format!("acknowledged {:?} of {target}\n{}", acknowledged(server, &lake.pipeline), host.log());
    wait_for("catching up", limit, detail, reached);
}

/// How long it takes until what is committed now is stored, recorded and acknowledged.
///
/// # Panics
/// If the host ends meanwhile, or it takes longer than `limit`.
pub fn lag(server: &Postgres, host: &Host, lake: &Lake, limit: Duration) -> Duration {
    let target = written(server);
    let start = Instant::now();
    while acknowledged(server, &lake.pipeline).is_none_or(|at| at < target) {
        assert!(host.is_running(), "the host ended by itself:\n{}", host.log());
        assert!(start.elapsed() < limit, "the lake is more than {limit:?} behind");
    }
    start.elapsed()
}
