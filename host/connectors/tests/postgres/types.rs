//! Every type of docs/src/postgres-types.md, read by the snapshot and by the stream.

use millrace_core::batch::ChangeType;
use millrace_core::schema::ColumnType;
use serde_json::json;

use crate::feed::Feed;
use crate::servers::postgres::{Postgres, VERSIONS};

/// SQL type, SQL value, column type, what the cell shows.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("bool", "true", "boolean", "true"),
    ("int2", "-32768", "int16", "-32768"),
    ("int4", "2147483647", "int32", "2147483647"),
    ("int8", "-9223372036854775808", "int64", "-9223372036854775808"),
    ("oid", "4294967295", "int64", "4294967295"),
    ("float4", "'NaN'", "float32", "NaN"),
    ("float4", "3.4028235e38", "float32", "340282350000000000000000000000000000000"),
    ("float8", "'-Infinity'", "float64", "-inf"),
    ("float8", "0.1", "float64", "0.1"),
    ("numeric(10,2)", "-12345678.90", "decimal(10,2)", "-1234567890e-2"),
    (
        "numeric(38,10)",
        "9999999999999999999999999999.0123456789",
        "decimal(38,10)",
        "99999999999999999999999999990123456789e-10",
    ),
    ("numeric(5,-2)", "1234567", "decimal(7,0)", "1234600e-0"),
    ("numeric(2,4)", "0.0012", "decimal(4,4)", "12e-4"),
    ("numeric(40,1)", "1.5", "decimal", "1.5"),
    ("numeric", "'NaN'", "decimal", "NaN"),
    ("numeric", "'-Infinity'", "decimal", "-Infinity"),
    ("numeric", "1e40", "decimal", "10000000000000000000000000000000000000000"),
    ("money", "1234.5", "other(money)", "$1,234.50"),
    ("text", "'naïve \\ \"q\" 日本'", "text", "naïve \\ \"q\" 日本"),
    ("text", "''", "text", ""),
    ("varchar(10)", "E'tab\\tnl\\n'", "text", "tab\tnl\n"),
    ("char(4)", "'ab'", "text", "ab  "),
    ("\"char\"", "'x'", "text", "x"),
    ("name", "'n'", "text", "n"),
    ("bytea", "'\\x00ff10'", "binary", "00ff10"),
    ("bytea", "''", "binary", ""),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11"),
    ("date", "'2026-11-25'", "date", "20782"),
    ("date", "'infinity'", "date", "2147483647"),
    ("date", "'-infinity'", "date", "-2147483648"),
    ("date", "'4714-11-24 BC'", "date", "-2440588"),
    ("date", "'5874897-12-31'", "date", "2145042905"),
    ("time", "'23:59:59.999999'", "time", "86399999999"),
    ("time", "'24:00'", "time", "86400000000"),
    ("time(0)", "'01:02:03'", "time", "3723000000"),
    ("timetz", "'10:00:00+02'", "other(timetz)", "10:00:00+02"),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "timestamp", "-1"),
    ("timestamp", "'infinity'", "timestamp", "9223372036854775807"),
    ("timestamp", "'0044-03-15 12:00 BC'", "timestamp", "-63517780800000000"),
    ("timestamptz", "'2026-11-25 11:00+01'", "timestamp-tz", "1795600800000000"),
    ("timestamptz", "'-infinity'", "timestamp-tz", "-9223372036854775808"),
    ("timestamptz", "'4714-11-24 00:00:00+00 BC'", "timestamp-tz", "-210866803200000000"),
    ("interval", "'1 year 2 days 03:04:05.6'", "other(interval)", "P1Y2DT3H4M5.6S"),
    ("json", "'{\"a\": [1, null]}'", "json", "{\"a\": [1, null]}"),
    ("jsonb", "'{\"b\": 1.50, \"a\": null}'", "json", "{\"a\": null, \"b\": 1.50}"),
    ("xml", "'<a>b</a>'", "other(xml)", "<a>b</a>"),
    ("bit(4)", "B'1010'", "other(bit)", "1010"),
    ("varbit", "B'101'", "other(varbit)", "101"),
    ("inet", "'10.0.0.1/8'", "other(inet)", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "other(cidr)", "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "other(macaddr)", "08:00:2b:01:02:03"),
    ("point", "'(1,2)'", "other(point)", "(1,2)"),
    ("int4range", "'[1,5)'", "other(int4range)", "[1,5)"),
    ("int4multirange", "'{[1,3),[5,7)}'", "other(int4multirange)", "{[1,3),[5,7)}"),
    ("tsvector", "'a b'", "other(tsvector)", "'a' 'b'"),
    ("pg_lsn", "'16/B374D848'", "other(pg_lsn)", "16/B374D848"),
    ("mood", "'so so'", "text", "so so"),
    ("price", "12.5", "decimal(8,2)", "1250e-2"),
    ("pair", "'(1,\"a b\")'", "other(pair)", "(1,\"a b\")"),
    ("int4[]", "'{1,NULL,3}'", "json", "[1,null,3]"),
    ("int4[]", "'{{1,2},{3,4}}'", "json", "[[1,2],[3,4]]"),
    ("int4[]", "'[0:1]={7,8}'", "json", "[7,8]"),
    ("text[]", "array['a,b', '\"', 'NULL', null]", "json", "[\"a,b\",\"\\\"\",\"NULL\",null]"),
    ("bool[]", "'{t,f}'", "json", "[true,false]"),
    ("float8[]", "'{1.5,NaN}'", "json", "[1.5,\"NaN\"]"),
    ("numeric(10,2)[]", "'{1.50}'", "json", "[1.50]"),
    ("jsonb[]", "array['{\"a\": 1}'::jsonb]", "json", "[{\"a\": 1}]"),
    ("mood[]", "'{happy}'", "json", "[\"happy\"]"),
    ("price[]", "'{2}'", "json", "[2.00]"),
    ("timestamptz[]", "'{\"2026-11-25 10:00:00+00\"}'", "json", "[\"2026-11-25 10:00:00+00\"]"),
    ("int2vector", "'1 2'", "other(int2vector)", "1 2"),
];

const TYPES: &str = "create type mood as enum ('happy', 'so so'); create domain price as numeric(8,2) check (value >= 0); \
    create type pair as (a int, b text);";

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_read_alike_by_snapshot_and_stream_of_every_version() {
    for version in VERSIONS {
        let server = Postgres::start(version);
        server.sql(TYPES);
        let columns: Vec<String> = CASES.iter().enumerate().map(|(i, c)| format!("c{i} {}", c.0)).collect();
        let values: Vec<&str> = CASES.iter().map(|c| c.1).collect();
        server.sql(&format!("create table t (id int primary key, {})", columns.join(", ")));
        let insert = |id: i32| server.sql(&format!("insert into t values ({id}, {})", values.join(", ")));
        insert(1);
        // A role whose own settings would change the text of nearly every type.
        server.sql(
            "alter role postgres set datestyle = 'German'; alter role postgres set timezone = 'Asia/Tokyo'; \
            alter role postgres set bytea_output = 'escape'; alter role postgres set intervalstyle = 'sql_standard'; \
            alter role postgres set extra_float_digits = -5",
        );
        let mut feed = Feed::open(&server, &["public.t"], json!({})).await;
        feed.until_snapshots(1).await;
        insert(2);
        server.sql("insert into t (id) values (3)");
        feed.until_images(3).await;
        let [snapshot, streamed, nulls] = &feed.images[..] else { panic!("{:?}", feed.lines()) };
        assert!(snapshot.snapshot && !streamed.snapshot);
        for (i, (sql_type, _, ty, expected)) in CASES.iter().enumerate() {
            let name = format!("c{i}");
            let column = snapshot.schema.column(&name).unwrap().1;
            assert_eq!(column.ty.to_string(), *ty, "{version}: {sql_type}");
            assert_eq!(snapshot.get(&name), *expected, "{version}: {sql_type} in the snapshot");
            assert_eq!(streamed.get(&name), *expected, "{version}: {sql_type} in the stream");
            assert_eq!(nulls.get(&name), "NULL", "{version}: {sql_type}");
        }
        assert_eq!(snapshot.schema, streamed.schema);
        let source_type = |name: &str| snapshot.schema.column(name).unwrap().1.source_type.to_string();
        assert_eq!((source_type("c9").as_str(), source_type("id").as_str()), ("numeric(10,2)", "integer"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_no_column_type_holds_become_rejects_of_their_change_alone() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key, d numeric(10,2), ts timestamptz)");
    server.sql("insert into t values (1, 'NaN', null), (2, 1, '294276-12-31 23:59:59+00'), (3, 3, null)");
    let mut feed = Feed::open(&server, &["public.t"], json!({})).await;
    feed.until_snapshots(1).await;
    server.sql("insert into t values (4, 'NaN', null)");
    server.sql("update t set d = 5 where id = 4");
    server.sql("alter table t replica identity full");
    server.sql("update t set d = 'NaN' where id = 3");
    server.sql("update t set d = 6 where id = 3");
    server.sql("insert into t values (5, 5, null)");
    feed.until_images(10).await;
    let reject = |code: &str, column: &str| Some((code.to_owned(), column.to_owned()));
    let found: Vec<_> = feed.images.iter().map(|i| (i.line(), i.reject.clone())).collect();
    let nan = || reject("type.numeric_nan", "d");
    let expected = [
        ("insert id=1 d=NULL ts=NULL", nan()),
        ("insert id=2 d=100e-2 ts=NULL", reject("type.out_of_range", "ts")),
        ("insert id=3 d=300e-2 ts=NULL", None),
        ("insert id=4 d=NULL ts=NULL", nan()),
        ("update_postimage id=4 d=500e-2 ts=NULL", None),
        ("update_preimage id=3 d=300e-2 ts=NULL", nan()),
        ("update_postimage id=3 d=NULL ts=NULL", nan()),
        // The old value counts as not sent: the change itself is sound.
        ("update_preimage id=3 d=? ts=NULL", None),
        ("update_postimage id=3 d=600e-2 ts=NULL", None),
        ("insert id=5 d=500e-2 ts=NULL", None),
    ];
    for ((line, reject), found) in expected.iter().zip(found.iter()) {
        assert_eq!((*line, reject), (found.0.as_str(), &found.1));
    }
    assert_eq!(feed.images[0].kind, ChangeType::Insert);
    assert_eq!(feed.images[0].schema.column("d").unwrap().1.ty, ColumnType::Decimal { precision: 10, scale: 2 });
}
