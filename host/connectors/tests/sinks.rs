//! The sinks `stdout` and `null`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use millrace_connectors::null::NullConfig;
use millrace_connectors::stdout::{StdoutConfig, StdoutSink};
use millrace_core::batch::ChangeType;
use millrace_core::builder::Cells;
use millrace_core::cut::{BatchLimits, Cut, CutBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::{Claim, Sink};

/// A writer that can be read.
#[derive(Clone, Debug, Default)]
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    fault: Option<io::ErrorKind>,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        self.text.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn claim() -> Claim {
    Claim { pipeline: "p".into(), incarnation: "i".into(), epoch: 1, tables: BTreeSet::new() }
}

/// An insert, an update with both images, one with its postimage alone, a key-only delete and a truncate.
fn changes() -> (Vec<millrace_core::batch::ChangeBatch>, Cut) {
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("big", ColumnType::Text)];
    let schema = Arc::new(TableSchema::new(TableName::new("shop", "t"), columns, Images::Full));
    let source = SourceKey::new("shop.t");
    let mut cut = CutBuilder::new(BatchLimits::default());
    let builder = cut.table(&source, &schema, false).expect("a builder");
    let changes: [&[(ChangeType, Option<&str>)]; 4] = [
        &[(ChangeType::Insert, Some("a"))],
        &[(ChangeType::UpdatePreimage, Some("a")), (ChangeType::UpdatePostimage, Some("b"))],
        &[(ChangeType::UpdatePostimage, None)],
        &[(ChangeType::Delete, None)],
    ];
    for (order, images) in (1..).zip(changes) {
        builder.begin_change(Order::new(order, 1), 1_500_000);
        for (change_type, text) in images {
            builder.begin_row(*change_type);
            if let Cells::Int64(ids) = &mut builder.column(0).cells {
                ids.append_value(1);
            }
            match (text, &mut builder.column(1).cells) {
                (Some(text), Cells::Text(texts)) => texts.append_value(text),
                _ => builder.column(1).append_unavailable(),
            }
        }
    }
    cut.truncate(&source, &schema, Order::new(5, 1), 1_500_000).expect("is truncated");
    cut.finish().expect("finishes")
}

fn run(sink: &mut dyn Sink) -> millrace_core::Result<()> {
    let (batches, cut) = changes();
    sink.fence(&claim()).now_or_never().expect("at once").expect("is fenced");
    for batch in batches {
        sink.write(batch).now_or_never().expect("at once")?;
    }
    let prepared = sink.prepare(&cut).now_or_never().expect("at once")?;
    assert!(prepared.refused.is_empty() && prepared.new_tables.is_empty());
    assert_eq!(sink.committed(), BTreeMap::new(), "nothing is committed before the commit");
    sink.commit(&cut).now_or_never().expect("at once")
}

#[test]
fn stdout_writes_a_change_a_line() {
    let paper = Paper::default();
    let mut sink = StdoutSink::new(Box::new(paper.clone()));
    run(&mut sink).expect("is committed");
    let text = String::from_utf8(paper.text.lock().expect("not poisoned").clone()).expect("UTF-8");
    let expected = concat!(
        r#"{"table":"shop.t","op":"insert","position":"1/1","commit_time":"1970-01-01T00:00:01.500000Z","after":{"id":1,"big":"a"}}"#,
        "\n",
        r#"{"table":"shop.t","op":"update","position":"2/1","commit_time":"1970-01-01T00:00:01.500000Z","before":{"id":1,"big":"a"},"after":{"id":1,"big":"b"}}"#,
        "\n",
        r#"{"table":"shop.t","op":"update","position":"3/1","commit_time":"1970-01-01T00:00:01.500000Z","after":{"id":1},"unavailable":{"after":["big"]}}"#,
        "\n",
        r#"{"table":"shop.t","op":"delete","position":"4/1","commit_time":"1970-01-01T00:00:01.500000Z","before":{"id":1},"unavailable":{"before":["big"]}}"#,
        "\n",
        r#"{"table":"shop.t","op":"truncate","position":"5/1","commit_time":"1970-01-01T00:00:01.500000Z"}"#,
        "\n",
    );
    assert_eq!(text, expected);
    assert_eq!(sink.committed(), BTreeMap::from([(TableName::new("shop", "t"), 6)]));
}

#[test]
fn what_was_written_and_not_committed_is_forgotten_at_the_next_fence() {
    let paper = Paper::default();
    let mut sink = StdoutSink::new(Box::new(paper.clone()));
    for batch in changes().0 {
        sink.write(batch).now_or_never().expect("at once").expect("is written");
    }
    run(&mut sink).expect("is committed");
    assert_eq!(paper.text.lock().expect("not poisoned").iter().filter(|b| **b == b'\n').count(), 5);
    assert_eq!(sink.committed().values().sum::<u64>(), 6);
}

#[test]
fn an_unreadable_stdout_halts_and_a_full_one_is_tried_again() {
    for (fault, code, kind) in [
        (io::ErrorKind::BrokenPipe, "stdout.closed", millrace_core::error::Kind::Halt),
        (io::ErrorKind::StorageFull, "stdout.write", millrace_core::error::Kind::Retry),
    ] {
        let mut sink = StdoutSink::new(Box::new(Paper { fault: Some(fault), ..Paper::default() }));
        let error = run(&mut sink).expect_err("nothing can be written");
        assert_eq!((error.code, error.kind), (code, kind));
        assert_eq!(sink.committed(), BTreeMap::new());
    }
}

#[test]
fn null_counts_what_is_committed() {
    let mut sink = NullConfig::default().build();
    run(&mut sink).expect("is committed");
    assert_eq!(sink.committed(), BTreeMap::from([(TableName::new("shop", "t"), 6)]));
    assert!(serde_json::from_str::<StdoutConfig>(r#"{"pretty": true}"#).is_err(), "an unknown field");
}
