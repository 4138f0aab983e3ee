//! Each real server starts, answers and stops: when one of these fails, look here before anywhere else.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use millrace_tests::oracle::{Op, Oracle, Row};
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::{Auth, Postgres, VERSIONS};
use millrace_tests::servers::seaweed::Seaweed;
use millrace_tests::servers::wait_for;
use millrace_tests::workload::{self, Writers};

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn every_postgres_version_starts_answers_and_stops() {
    for version in VERSIONS {
        let server = Postgres::start(version);
        let major: u32 = server.sql("show server_version_num").parse().expect("a number");
        assert_eq!(major / 10_000, version);
        assert_eq!(server.sql("show wal_level"), "logical");
        let port = server.port();
        assert!(listens(port));
        drop(server);
        assert!(!listens(port), "PostgreSQL {version} still listens after its handle is gone");
    }
}

#[test]
fn a_postgres_that_stopped_starts_again_with_its_data_on_its_port() {
    let mut server = Postgres::start(18);
    let port = server.port();
    server.sql("create table t (id int primary key); insert into t values (1)");
    server.stop();
    assert!(!listens(port));
    server.start_again();
    assert_eq!((server.port(), server.sql("select id from t").as_str()), (port, "1"));
}

#[test]
fn a_server_whose_test_panics_is_stopped() {
    let port = std::thread::spawn(|| {
        let server = Postgres::start(15);
        std::panic::panic_any(server.port());
    })
    .join()
    .expect_err("the panic");
    let port = *port.downcast::<u16>().expect("the port");
    assert!(!listens(port));
}

#[test]
fn test_decoding_shows_what_was_committed() {
    for version in VERSIONS {
        let server = Postgres::start(version);
        server.sql("create table t (id int primary key, name text)");
        server.sql("select pg_create_logical_replication_slot('oracle', 'test_decoding')");
        server.sql("insert into t values (1, 'a')");
        let changes = server.decoded("oracle");
        assert!(changes.iter().any(|line| line.contains("INSERT: id[integer]:1 name[text]:'a'")), "{changes:?}");
        assert_eq!(server.decoded("oracle"), changes, "looking does not consume");
    }
}

#[test]
fn a_postgres_with_tls_and_scram_lets_in_who_knows_the_password() {
    let server = Postgres::options(16).auth(Auth::ScramSha256).tls_only().tls().start();
    server.sql("create role app login password 'secret1'");
    let root = server.authority().certificate().display().to_string();
    let log_in = |password: &str, mode: &str| {
        let target =
            format!("host=127.0.0.1 port={} user=app dbname=postgres sslmode={mode} sslrootcert={root}", server.port());
        std::process::Command::new("psql")
            .args(["-X", "-A", "-t", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()", &target])
            .env("PGPASSWORD", password)
            .output()
            .expect("psql with TLS")
    };
    let inside = log_in("secret1", "verify-full");
    assert_eq!(String::from_utf8_lossy(&inside.stdout).trim(), "t", "{}", String::from_utf8_lossy(&inside.stderr));
    assert!(!log_in("wrong", "verify-full").status.success());
    assert!(!log_in("secret1", "disable").status.success());
}

#[test]
fn the_client_tools_run_against_the_server() {
    let server = Postgres::start(17);
    let ran = server.tool("pgbench").args(["-i", "-q", "-s", "1"]).output().expect("pgbench");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(server.sql("select count(*) from pgbench_accounts"), "100000");
    assert!(server.tool("pg_recvlogical").arg("--version").output().expect("pg_recvlogical").status.success());
}

#[test]
fn a_delta_table_on_s3_is_written_and_read_back_by_other_readers() {
    let server = Seaweed::start();
    server.create_bucket("lake");
    let mut reader = DeltaReader::start();
    let storage = server.storage_options();
    reader.write_sample("s3://lake/t", &storage);
    let rows = reader.query_deltalake("s3://lake/t", &storage, "select * from t order by id");
    assert_eq!(rows, [serde_json::json!({ "id": 1, "name": "a" }), serde_json::json!({ "id": 2, "name": null })]);
}

#[test]
fn a_delta_table_on_disk_is_read_by_duckdb_with_every_kind_of_value() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut reader = DeltaReader::start();
    let table = dir.path().join("t");
    reader.write_sample(table.to_str().expect("UTF-8"), &[]);
    assert_eq!(reader.count(&table), 2);
    let rows = reader.query("select 1.50::decimal(9,2) d, 'NaN'::double f, date '2026-11-25' t, '\\xAB'::blob b");
    assert_eq!(rows, [serde_json::json!({ "d": "1.50", "f": "nan", "t": "2026-11-25", "b": "ab" })]);
    assert!(reader.try_query("select * from delta_scan('/nowhere')").is_err());
    assert_eq!(reader.count(&table), 2, "a refused question does not end the reader");
}

#[test]
fn the_oracle_holds_what_the_writers_committed() {
    let server = Postgres::start(15);
    workload::create_tables(&server);
    let oracle = Oracle::create(&server);
    let report = Writers::start(&server, 4, 50).finish(Duration::from_secs(60));
    assert!(report.contains("200/200"), "{report}");
    let changes = oracle.changes(&server);
    let last = changes.last().expect("changes");
    assert_eq!(last.transaction, 199, "each transaction writes at least its event");
    for table in workload::TABLES {
        assert!(changes.iter().any(|change| change.table == table), "nothing of {table}");
    }
    // Folding all changes of a table over its first rows gives the table as it is now.
    let mut events: BTreeSet<String> = (1..=500).map(|id| id.to_string()).collect();
    let id = |row: &Row| row["id"].clone().expect("a key");
    for change in changes.iter().filter(|change| change.table == "public.events") {
        match &change.op {
            Op::Insert { after } => assert!(events.insert(id(after))),
            Op::Update { before, after } => assert_eq!(before.as_ref().map(id), Some(id(after))),
            Op::Delete { before } => assert!(events.remove(&id(before))),
            Op::Truncate => events.clear(),
        }
    }
    let now: BTreeSet<String> = server.sql("select id from events").lines().map(str::to_owned).collect();
    assert_eq!(events, now);
}

#[test]
fn writers_stop_with_their_handle() {
    let server = Postgres::start(18);
    workload::create_tables(&server);
    let writers = Writers::start_for(&server, 2, Duration::from_secs(600), Some(100));
    let busy = "select count(*) from pg_stat_activity where application_name = 'pgbench'";
    let limit = Duration::from_secs(30);
    wait_for("the writers' start", limit, String::new, || (server.sql(busy) != "0").then_some(()));
    drop(writers);
    wait_for("the writers' end", limit, String::new, || (server.sql(busy) == "0").then_some(()));
}

#[test]
fn the_shop_of_the_compose_file_is_set_up_for_a_role_with_replication_alone() {
    let server = Postgres::start(18);
    let compose = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose");
    server.script(&compose.join("shop.sql"));
    assert_eq!(server.sql("select count(*) from orders"), "5000");
    let replicates = "select rolreplication, rolsuper from pg_roles where rolname = 'millrace'";
    assert_eq!(server.sql(replicates), "t|f");
    let tables = "select tablename from pg_publication_tables where pubname = 'millrace' order by 1";
    assert_eq!(server.sql(tables), "customers\norders");
    let identities = std::fs::read_to_string(compose.join("identities.json")).expect("the S3 server's identities");
    serde_json::from_str::<serde_json::Value>(&identities).expect("JSON");
}
