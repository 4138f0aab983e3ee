//! What DuckDB, delta-rs and polars read of our tables.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::Order;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};
use millrace_core::sink::Sink;

use super::support::*;
use crate::config::Mode;

fn every_type() -> Arc<TableSchema> {
    let types = [
        ("boolean", ColumnType::Boolean),
        ("int8", ColumnType::Int8),
        ("int16", ColumnType::Int16),
        ("int32", ColumnType::Int32),
        ("int64", ColumnType::Int64),
        ("uint64", ColumnType::UInt64),
        ("float32", ColumnType::Float32),
        ("float64", ColumnType::Float64),
        ("money", ColumnType::Decimal { precision: 10, scale: 2 }),
        ("wide", ColumnType::Decimal { precision: 38, scale: 9 }),
        ("hundreds", ColumnType::Decimal { precision: 3, scale: -2 }),
        ("numeric", ColumnType::BigDecimal),
        ("text", ColumnType::Text),
        ("binary", ColumnType::Binary),
        ("uuid", ColumnType::Uuid),
        ("date", ColumnType::Date),
        ("time", ColumnType::Time),
        ("timestamp", ColumnType::Timestamp),
        ("timestamptz", ColumnType::TimestampTz),
        ("json", ColumnType::Json),
        ("inet", ColumnType::Other("inet".into())),
    ];
    let columns = types.into_iter().map(|(name, ty)| Column::new(name, ty)).collect();
    Arc::new(TableSchema::new(orders(), columns, Images::Full))
}

fn append_value(cells: &mut Cells, row: i64) {
    let greatest = row == 1;
    match cells {
        Cells::Boolean(c) => c.append_value(greatest),
        Cells::Int16(c) => c.append_value(if greatest { i16::MAX } else { i16::MIN }),
        Cells::Int32(c) => c.append_value(if greatest { i32::MAX } else { i32::MIN }),
        Cells::Int64(c) => c.append_value(if greatest { i64::MAX } else { i64::MIN }),
        Cells::UInt64(c) => c.append_value(if greatest { u64::MAX } else { 0 }),
        Cells::Float32(c) => c.append_value(if greatest { f32::INFINITY } else { 1.5 }),
        Cells::Float64(c) => c.append_value(if greatest { f64::NAN } else { -0.25 }),
        Cells::Decimal(c) => c.append_value(if greatest { 999 } else { -5 }),
        Cells::Text(c) => c.append_value(if greatest { "ü\u{10ffff}'\"" } else { "" }),
        Cells::Binary(c) => c.append_value(if greatest { &b"\x00\xff"[..] } else { b"" }),
        Cells::Uuid(c) => c.append_value([if greatest { 0xff } else { 0x01 }; 16]).unwrap(),
        Cells::Date(c) => c.append_value(if greatest { 2_932_896 } else { -719_162 }),
        Cells::Time(c) => c.append_value(if greatest { 86_399_999_999 } else { 0 }),
        // 9999-12-31 23:59:59.999999 and 0001-01-01.
        Cells::Timestamp(c) => c.append_value(if greatest { 253_402_300_799_999_999 } else { -62_135_596_800_000_000 }),
    }
}

/// Row 1 has greatest values, row 2 least, row 3 NULLs, row 4 unavailable ones.
fn batch(schema: &Arc<TableSchema>) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source(), Arc::clone(schema), false, 4).unwrap();
    for row in 1..=4 {
        rows.begin_change(Order::new(row, 1), row * 1_000_001);
        rows.begin_row(if row == 4 { ChangeType::Delete } else { ChangeType::Insert });
        for column in rows.columns() {
            match row {
                1 | 2 => append_value(&mut column.cells, row),
                3 => column.append_null(),
                _ => column.append_unavailable(),
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

const READ: &str = r#"
import glob, json, os, sys, sysconfig
import duckdb, polars
from deltalake import DeltaTable, QueryBuilder
path = sys.argv[1]
site = sysconfig.get_paths()["purelib"]
(extension,) = glob.glob(site + "/duckdb_extension_delta/extensions/*/delta.duckdb_extension")
c = duckdb.connect()
c.execute("set timezone = 'UTC'")
c.execute("set enable_progress_bar = false")
c.execute(f"load '{extension}'")
c.execute(f"create view t as select * from delta_scan('{path}')")
columns = [r[0] for r in c.execute("describe t").fetchall()]
shown = ", ".join(f'"{n}"::varchar' for n in columns)
duck = c.execute(f"select {shown} from t order by _millrace_position").fetchall()
counts = {
    "duckdb": c.execute("select count(*) from t").fetchone()[0],
    "polars": polars.read_delta(path).height,
    "deltalake": QueryBuilder().register("t", DeltaTable(path)).execute("select count(*) c from t").read_all()["c"][0].as_py(),
}
filters = {}
for where in sys.argv[2:]:
    filters[where] = [
        c.execute(f"select count(*) from t where {where}").fetchone()[0],
        QueryBuilder().register("t", DeltaTable(path)).execute(f"select count(*) c from t where {where}").read_all()["c"][0].as_py(),
    ]
p = polars.read_delta(path).sort("_millrace_position")
print(json.dumps({"columns": columns, "duck": duck, "counts": counts, "filters": filters,
                  "polars": {n: str(p[n][0]) for n in p.columns}}))
"#;

fn read(table: &std::path::Path, filters: &[&str]) -> Option<serde_json::Value> {
    let Some(python) = python() else {
        eprintln!("skipped: `cargo xtask setup test` installs the readers");
        return None;
    };
    let path = table.display().to_string();
    let args: Vec<&str> = std::iter::once(path.as_str()).chain(filters.iter().copied()).collect();
    Some(serde_json::from_str(&run_python(&python, READ, &args)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_read_back_as_it_was_written() {
    let lake = Lake::new(Mode::Changelog);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    sink.write(batch(&every_type())).await.unwrap();
    let cut = cut_of(&[(source(), 4)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    let Some(found) = read(
        &lake.path("public/orders"),
        &[
            "int64 > 5",
            "text >= 'a'",
            "timestamptz > timestamp '2020-01-01'",
            "money < 0",
            "date < date '1970-01-01'",
            "float64 < 0",
        ],
    ) else {
        return;
    };
    let cell = |row: usize, column: &str| {
        let index = found["columns"].as_array().unwrap().iter().position(|c| c == column).unwrap();
        found["duck"][row][index].as_str().map(str::to_owned)
    };
    for (column, greatest, least) in [
        ("boolean", "true", "false"),
        ("int8", "32767", "-32768"),
        ("int32", "2147483647", "-2147483648"),
        ("int64", "9223372036854775807", "-9223372036854775808"),
        ("uint64", "18446744073709551615", "0"),
        ("float32", "inf", "1.5"),
        ("float64", "nan", "-0.25"),
        ("money", "9.99", "-0.05"),
        ("wide", "0.000000999", "-0.000000005"),
        ("hundreds", "99900", "-500"),
        ("numeric", "ü\u{10ffff}'\"", ""),
        ("text", "ü\u{10ffff}'\"", ""),
        ("binary", "\\x00\\xFF", ""),
        ("uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff", "01010101-0101-0101-0101-010101010101"),
        ("date", "9999-12-31", "0001-01-01"),
        ("time", "23:59:59.999999", "00:00:00.000000"),
        ("timestamp", "9999-12-31 23:59:59.999999", "0001-01-01 00:00:00"),
        ("timestamptz", "9999-12-31 23:59:59.999999+00", "0001-01-01 00:00:00+00"),
        ("inet", "ü\u{10ffff}'\"", ""),
    ] {
        assert_eq!(cell(0, column).as_deref(), Some(greatest), "{column}");
        assert_eq!(cell(1, column).as_deref(), Some(least), "{column}");
        assert_eq!(cell(2, column), None, "{column}");
        assert_eq!(cell(3, column), None, "{column}");
    }
    assert_eq!(cell(2, "_millrace_unavailable"), None);
    assert!(cell(3, "_millrace_unavailable").unwrap().contains("uuid"));
    assert_eq!(cell(3, "_millrace_change_type").as_deref(), Some("delete"));
    assert_eq!(cell(0, "_millrace_commit_time").as_deref(), Some("1970-01-01 00:00:01.000001+00"));
    assert_eq!(cell(0, "_millrace_position"), Some(Order::new(1, 1).to_sortable()));
    assert_eq!(found["counts"], serde_json::json!({"duckdb": 4, "polars": 4, "deltalake": 4}));
    for (filter, counts) in found["filters"].as_object().unwrap() {
        assert_eq!(counts, &serde_json::json!([1, 1]), "{filter}");
    }
    assert_eq!(found["polars"]["int64"], "9223372036854775807");
    assert_eq!(found["polars"]["timestamp"], "9999-12-31 23:59:59.999999");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infinities_are_read_as_such_by_duckdb() {
    let lake = Lake::new(Mode::Changelog);
    let columns = vec![Column::new("date", ColumnType::Date), Column::new("at", ColumnType::TimestampTz)];
    let schema = Arc::new(TableSchema::new(orders(), columns, Images::Full));
    let mut rows = RowsBuilder::new(source(), Arc::clone(&schema), false, 2).unwrap();
    for (order, date, at) in [(1, i32::MIN, i64::MIN), (2, i32::MAX, i64::MAX)] {
        rows.begin_change(Order::new(order, 1), 0);
        rows.begin_row(ChangeType::Insert);
        if let Cells::Date(cells) = &mut rows.column(0).cells {
            cells.append_value(date);
        }
        if let Cells::Timestamp(cells) = &mut rows.column(1).cells {
            cells.append_value(at);
        }
    }
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    sink.write(rows.finish().unwrap().unwrap()).await.unwrap();
    let cut = cut_of(&[(source(), 2)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    let Some(python) = python() else { return };
    let script = READ.split("counts = ").next().unwrap().to_owned() + "print(json.dumps([r[:2] for r in duck]))";
    let found = run_python(&python, &script, &[&lake.path("public/orders").display().to_string()]);
    assert_eq!(found.trim(), r#"[["-infinity", "-infinity"], ["infinity", "infinity"]]"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_grown_and_checkpointed_table_is_read_alike_by_all() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.partition_by = vec!["note".into()];
    lake.config.checkpoint_interval = 3;
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let grown = Arc::new(TableSchema::new(
        orders(),
        vec![
            Column::new("id", ColumnType::Int64).key(),
            Column::new("note", ColumnType::Text),
            Column::new("more", ColumnType::Text),
            Column::new("at", ColumnType::Timestamp),
        ],
        Images::Full,
    ));
    for at in 1..=8 {
        let schema = if at > 4 { Arc::clone(&grown) } else { orders_schema() };
        sink.write(inserts(&schema, source(), at..=at)).await.unwrap();
        let cut = cut_of(&[(source(), at)]);
        sink.prepare(&cut).await.unwrap();
        sink.commit(&cut).await.unwrap();
    }
    let Some(found) = read(&lake.path("public/orders"), &["note = 'n 7'", "more is null", "id > 6"]) else { return };
    assert_eq!(found["counts"], serde_json::json!({"duckdb": 8, "polars": 8, "deltalake": 8}));
    assert_eq!(found["filters"], serde_json::json!({"note = 'n 7'": [1, 1], "more is null": [4, 4], "id > 6": [2, 2]}));
}
