//! A table's columns follow those of its source by policy.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::error::Kind;
use millrace_core::position::Order;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};
use millrace_core::sink::{Prepared, Sink};

use super::mirror::current;
use super::others::by_duckdb;
use super::support::*;
use crate::config::{Mode, SchemaChange, SchemaEvolution, SchemaRule};
use crate::sink::DeltaSink;
use SchemaEvolution::{Evolve, Exception, Ignore, Lenient, TryEvolve};

fn schema(columns: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    let others = columns.iter().map(|(name, ty)| Column::new(*name, ty.clone()));
    let columns = std::iter::once(Column::new("id", ColumnType::Int64).key()).chain(others).collect();
    Arc::new(TableSchema::new(orders(), columns, Images::Full))
}

fn decimal(precision: u8, scale: i8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

/// Inserts of rows with these ids; numbers are the id, texts `t`, and with `nulls` they are NULL.
fn rows(schema: &Arc<TableSchema>, ids: std::ops::RangeInclusive<i64>, nulls: bool) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source(), Arc::clone(schema), false, 8).unwrap();
    for id in ids {
        rows.begin_change(Order::new(id, 1), 0);
        rows.begin_row(ChangeType::Insert);
        for (place, column) in rows.columns().iter_mut().enumerate() {
            match &mut column.cells {
                _ if nulls && place > 0 => column.append_null(),
                Cells::Int64(cells) => cells.append_value(id),
                Cells::Int32(cells) => cells.append_value(id as i32),
                Cells::Float32(cells) => cells.append_value(id as f32 / 2.0),
                Cells::Float64(cells) => cells.append_value(id as f64 / 2.0),
                Cells::Decimal(cells) => cells.append_value(i128::from(id)),
                Cells::Text(cells) => cells.append_value("t"),
                other => panic!("{other:?}"),
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

async fn put_rows(sink: &mut DeltaSink, batch: ChangeBatch) -> millrace_core::Result<Prepared> {
    let cut = cut_of(&[(source(), batch.origin.orders.last().unwrap().commit())]);
    sink.write(batch).await?;
    let prepared = sink.prepare(&cut).await?;
    sink.commit(&cut).await?;
    Ok(prepared)
}

/// Names and types of the table's columns, less ours.
fn columns(lake: &Lake) -> String {
    let log = lake.path("public/orders/_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(&log).unwrap().map(|f| f.unwrap().path()).collect();
    commits.retain(|p| p.extension().is_some_and(|e| e == "json"));
    commits.sort();
    let texts = commits.iter().map(|p| std::fs::read_to_string(p).unwrap());
    let lines: Vec<String> = texts.flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let metadata = lines.iter().rfind(|l| l.starts_with(r#"{"metaData""#)).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
    let schema =
        crate::log::schema::DeltaSchema::parse("t", metadata["metaData"]["schemaString"].as_str().unwrap()).unwrap();
    let ours = |name: &str| name.starts_with(crate::META_PREFIX);
    let shown = schema
        .fields
        .iter()
        .filter(|f| !ours(&f.name))
        .map(|f| format!("{} {}{}", f.name, f.ty, if f.nullable { "" } else { " NOT NULL" }));
    shown.collect::<Vec<_>>().join(", ")
}

/// What becomes of rows of another form.
async fn outcome(mode: Mode, policy: SchemaEvolution, after: &[(&str, ColumnType)]) -> String {
    let mut lake = Lake::new(mode);
    lake.config.schema_evolution = policy;
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put_rows(&mut sink, rows(&schema(&[("n", ColumnType::Int32)]), 1..=1, false)).await.unwrap();
    match put_rows(&mut sink, rows(&schema(after), 2..=2, false)).await {
        Err(error) => {
            assert_eq!((error.kind, error.code), (Kind::HaltTable, "sink.schema_changed"), "{error}");
            assert!(error.message.contains("public.orders") && error.hint.is_some(), "{error}");
            "stands".into()
        }
        Ok(prepared) if !prepared.refused.is_empty() => {
            assert_eq!(prepared.refused[0].code, "sink.type_mismatch");
            "letters".into()
        }
        Ok(_) => columns(&lake),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_does_with_each_change_what_the_book_says() {
    let added = [("n", ColumnType::Int32), ("more", ColumnType::Text)];
    let (wider, other, dropped) = ([("n", ColumnType::Int64)], [("n", ColumnType::Text)], []);
    let (same, grown, long) = ("id long, n integer", "id long, n integer, more string", "id long, n long");
    for mode in [Mode::Upsert, Mode::Append, Mode::Changelog] {
        for (policy, expected) in [
            (Exception, ["stands", "stands", "stands", "stands"]),
            (Evolve, [grown, long, "stands", "stands"]),
            (TryEvolve, [grown, long, "letters", same]),
            (Lenient, [grown, "letters", "letters", same]),
            (Ignore, [same, "letters", "letters", same]),
        ] {
            for (after, expected) in [&added[..], &wider, &other, &dropped].into_iter().zip(expected) {
                assert_eq!(outcome(mode, policy, after).await, expected, "{mode:?}, {policy:?}, {after:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_for_a_column_and_a_change_comes_before_the_policy() {
    let mut lake = Lake::new(Mode::Upsert);
    let rule = |changes: &[SchemaChange], column: &str, policy| SchemaRule {
        changes: changes.to_vec(),
        columns: vec![column.into()],
        policy,
    };
    lake.config.schema_rules = vec![
        rule(&[SchemaChange::AddColumn], "public.orders.secret", Ignore),
        rule(&[SchemaChange::ChangeType], "public.orders.*", Evolve),
        rule(&[], "public.orders.n", Exception),
    ];
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put_rows(&mut sink, rows(&schema(&[("n", ColumnType::Int32)]), 1..=1, false)).await.unwrap();
    let wider = schema(&[("n", ColumnType::Int64), ("secret", ColumnType::Text), ("open", ColumnType::Text)]);
    put_rows(&mut sink, rows(&wider, 2..=2, false)).await.unwrap();
    assert_eq!(columns(&lake), "id long, n long, open string");
    let error = put_rows(&mut sink, rows(&schema(&[("open", ColumnType::Text)]), 3..=3, false)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "sink.schema_changed"));
    assert!(error.message.contains("`n`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn widened_columns_keep_the_values_of_old_files_and_of_the_cut_that_widened_them() {
    let before = schema(&[("n", ColumnType::Int32), ("f", ColumnType::Float32), ("d", decimal(10, 2))]);
    let after = schema(&[("n", ColumnType::Int64), ("f", ColumnType::Float64), ("d", decimal(14, 4))]);
    let mut lakes: Vec<Lake> = Lake::of_current_rows().into();
    lakes.push(Lake::new(Mode::Append));
    for mut lake in lakes {
        lake.config.schema_evolution = Evolve;
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        put_rows(&mut sink, rows(&before, 1..=4, false)).await.unwrap();
        // In one cut: the old form, then the new one, then the old one again.
        sink.write(rows(&before, 5..=6, false)).await.unwrap();
        sink.write(rows(&after, 7..=8, false)).await.unwrap();
        put_rows(&mut sink, rows(&before, 9..=9, false)).await.unwrap();
        let mut next = lake.sink();
        fenced(&mut next, 2, &[orders()]).await;
        put_rows(&mut next, rows(&before, 10..=10, false)).await.unwrap();
        assert_eq!(columns(&lake), "id long, n long, f double, d decimal(14,4)");
        let table = lake.path("public/orders");
        let names = ["id", "n", "f", "d"];
        let mut expected: Vec<Vec<String>> = (1..=10)
            .map(|id: i64| {
                let digits = if matches!(id, 7 | 8) { id } else { id * 100 };
                let half = format!("{:.1}", id as f64 / 2.0);
                vec![id.to_string(), id.to_string(), half, format!("{}.{:04}", digits / 10_000, digits % 10_000)]
            })
            .collect();
        expected.sort();
        assert_eq!(current(&lake, &table, &names).await, expected);
        // Others refuse tables of which a type was widened.
        assert!(by_duckdb(&table, &names).is_none_or(|found| found == expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_widens_still_finds_its_rows() {
    // Files whose keys are known from their writing alone, and files that an earlier cut looked into.
    let lakes = Lake::of_current_rows().into_iter().map(|lake| (lake, false));
    for (mut lake, looks) in lakes.chain(Lake::of_current_rows().into_iter().map(|lake| (lake, true))) {
        lake.config.schema_evolution = Evolve;
        let form = |ty| {
            let columns = vec![Column::new("id", ty).key(), Column::new("note", ColumnType::Text)];
            Arc::new(TableSchema::new(orders(), columns, Images::Full))
        };
        let again = |ids: std::ops::RangeInclusive<i64>, at: i64, ty: ColumnType| {
            let mut batch = RowsBuilder::new(source(), form(ty), false, 8).unwrap();
            for id in ids {
                batch.begin_change(Order::new(at, id), 0);
                batch.begin_row(ChangeType::UpdatePostimage);
                match &mut batch.column(0).cells {
                    Cells::Int64(cells) => cells.append_value(id),
                    Cells::Int32(cells) => cells.append_value(id as i32),
                    _ => unreachable!(),
                }
                if let Cells::Text(cells) = &mut batch.column(1).cells {
                    cells.append_value(format!("{at}"));
                }
            }
            batch.finish().unwrap().unwrap()
        };
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        put_rows(&mut sink, again(1..=6, 1, ColumnType::Int32)).await.unwrap();
        if looks {
            sink.write(again(1..=2, 2, ColumnType::Int32)).await.unwrap();
        }
        put_rows(&mut sink, again(2..=4, 3, ColumnType::Int64)).await.unwrap();
        put_rows(&mut sink, again(5..=5, 4, ColumnType::Int32)).await.unwrap();
        let found = current(&lake, &lake.path("public/orders"), &["id", "note"]).await;
        let first = if looks { "2" } else { "1" };
        assert_eq!(found, [["1", first], ["2", "3"], ["3", "3"], ["4", "3"], ["5", "4"], ["6", "1"]]);
    }
}

/// A table that others made, with a column that is NOT NULL.
fn make_strict(lake: &Lake) {
    let field = |name: &str, ty: &str, nullable: bool| serde_json::json!({ "name": name, "type": ty, "nullable": nullable, "metadata": {} });
    let fields = [field("id", "long", false), field("n", "integer", false)];
    let schema = serde_json::json!({ "type": "struct", "fields": fields }).to_string();
    let metadata = serde_json::json!({ "metaData": {
        "id": "5b0dd3b2-7d6b-4f1c-8d5e-0c9d6b1f6b1e", "format": { "provider": "parquet", "options": {} },
        "schemaString": schema, "partitionColumns": [], "configuration": {},
    }});
    let protocol = serde_json::json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 }});
    let log = lake.path("public/orders/_delta_log");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join(format!("{:020}.json", 0)), format!("{protocol}\n{metadata}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_not_null_in_the_table_becomes_nullable_or_refuses_null_by_policy() {
    for (mode, policy, expected) in [
        (Mode::Upsert, Exception, "stands"),
        (Mode::Upsert, Lenient, "id long NOT NULL, n integer"),
        (Mode::Upsert, Ignore, "id long NOT NULL, n integer NOT NULL"),
        (Mode::Append, Evolve, "id long NOT NULL, n integer"),
        (Mode::Append, Ignore, "stands"),
    ] {
        let mut lake = Lake::new(mode);
        make_strict(&lake);
        (lake.config.upgrade_protocol, lake.config.schema_evolution) = (true, policy);
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let form = schema(&[("n", ColumnType::Int32)]);
        sink.write(rows(&form, 1..=1, false)).await.map_or_else(
            |error| assert_eq!((error.kind, expected), (Kind::HaltTable, "stands"), "{mode:?}, {policy:?}"),
            |()| assert_ne!(expected, "stands", "{mode:?}, {policy:?}"),
        );
        if expected == "stands" {
            continue;
        }
        let prepared = put_rows(&mut sink, rows(&form, 2..=2, true)).await.unwrap();
        let codes: Vec<&str> = prepared.refused.iter().map(|r| r.code).collect();
        // Others made it: its name enters the record all the same.
        assert!(prepared.new_tables.contains(&orders()), "{mode:?}, {policy:?}");
        assert_eq!(codes, if policy == Ignore { vec!["sink.null"] } else { vec![] }, "{mode:?}, {policy:?}");
        assert_eq!(columns(&lake), expected, "{mode:?}, {policy:?}");
        let ids = if policy == Ignore { vec![["1"]] } else { vec![["1"], ["2"]] };
        assert_eq!(current(&lake, &lake.path("public/orders"), &["id"]).await, ids);
    }
}
