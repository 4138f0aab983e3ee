//! What goes wrong outside is said with its code and a hint, and once it is mended nothing is missing.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use millrace_tests::disk::Disk;
use millrace_tests::host::Host;
use millrace_tests::place::Place;
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::{Auth, Postgres};
use millrace_tests::slot;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

const PIPELINE: &str = "
pipeline: shop
source: { postgres: { url: '${env:SHOP_DB}', tables: [public.orders] } }
sink: { delta: { path: './lake/{namespace}/{table}' } }
settings: { cut: { interval: 50ms }, record: { interval: 200ms } }
";

fn place() -> Place {
    let place = Place::new();
    place.write("p.yaml", PIPELINE);
    place
}

fn create(server: &Postgres) {
    server.sql("create table orders (id int primary key, note text); insert into orders select i, 'n' || i from generate_series(1, 100) i");
}

/// Waits until everything that was committed by now is acknowledged.
fn catch_up(place: &Place, server: &Postgres, host: &Host) {
    slot::catch_up(server, host, &place.lake("shop"), 1, PATIENCE);
}

/// The lake's table holds exactly these ids, each once.
fn holds(place: &Place, ids: std::ops::RangeInclusive<i64>) {
    let table = place.lake("shop").table("public", "orders");
    let sql = format!("select id from delta_scan('{}') order by id", table.display());
    let found: Vec<i64> =
        DeltaReader::start().query(&sql).iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    assert_eq!(found, ids.collect::<Vec<_>>());
}

/// A refusal has its code, says where, and what to do.
fn check(error: &Value, code: &str, says: &str) {
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "`{says}`: {error}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
}

/// Starts once more what was refused, now that it is mended.
fn completes(place: &Place, server: &Postgres, url: &str, ids: std::ops::RangeInclusive<i64>) {
    let host = place.start(&[("SHOP_DB", url)]);
    catch_up(place, server, &host);
    host.stop(PATIENCE);
    holds(place, ids);
}

#[test]
fn a_server_that_is_away_is_tried_again_until_it_is_back() {
    let mut server = Postgres::start(15);
    create(&server);
    let (place, url) = (place(), server.url());
    server.stop();
    let host = place.start(&[("SHOP_DB", &url)]);
    host.says("postgres.unreachable", 2, PATIENCE);
    server.start_again();
    catch_up(&place, &server, &host);
    // Once more, in the middle of the stream.
    server.sql("insert into orders select i, 'x' from generate_series(101, 150) i");
    server.stop();
    host.says("starting again from the resume record", 3, PATIENCE);
    server.start_again();
    server.sql("insert into orders select i, 'y' from generate_series(151, 200) i");
    catch_up(&place, &server, &host);
    let report = host.stop(PATIENCE);
    assert!(report["restarts"].as_u64() >= Some(3), "{report}");
    holds(&place, 1..=200);
}

#[test]
fn a_wrong_password_ends_the_start_and_is_not_shown() {
    let server = Postgres::options(16).auth(Auth::ScramSha256).start();
    create(&server);
    server.sql("create role app login replication password 'right1'; alter table orders owner to app; grant create on database postgres to app");
    let place = place();
    let wrong = server.url_as("app", Some("wrong1"), "postgres");
    let host = place.start(&[("SHOP_DB", &wrong)]);
    let log = host.process().log().to_owned();
    check(&host.fail(PATIENCE), "postgres.password_rejected", "app");
    let said = std::fs::read_to_string(log).expect("a log");
    assert!(!said.contains("wrong1"), "{said}");
    completes(&place, &server, &server.url_as("app", Some("right1"), "postgres"), 1..=100);
}

#[test]
fn a_missing_table_and_a_missing_privilege_end_the_start() {
    let server = Postgres::start(17);
    server.sql("create role app login replication; grant create on database postgres to app");
    let (place, url) = (place(), server.url_as("app", None, "postgres"));
    check(&place.start(&[("SHOP_DB", &url)]).fail(PATIENCE), "postgres.table_missing", "public.orders");
    create(&server);
    check(&place.start(&[("SHOP_DB", &url)]).fail(PATIENCE), "postgres.privilege_missing", "orders");
    assert_eq!(server.sql("select count(*) from pg_replication_slots"), "0", "a refusal leaves no slot behind");
    server.sql("alter table orders owner to app");
    completes(&place, &server, &url, 1..=100);
}

#[test]
fn a_slot_that_another_process_reads_is_waited_for() {
    let server = Postgres::start(18);
    create(&server);
    let (place, url) = (place(), server.url());
    let hung = place.start(&[("SHOP_DB", &url)]);
    catch_up(&place, &server, &hung);
    hung.process().signal("STOP");
    server.sql("insert into orders select i, 'x' from generate_series(101, 200) i");
    let host = place.start(&[("SHOP_DB", &url)]);
    host.says("postgres.slot_in_use", 1, PATIENCE);
    hung.kill();
    catch_up(&place, &server, &host);
    host.stop(PATIENCE);
    holds(&place, 1..=200);
}

#[test]
fn a_full_disk_is_waited_for_until_there_is_space() {
    let server = Postgres::start(15);
    create(&server);
    let place = place();
    let lake = place.lake("shop").root;
    let disk = Disk::mount(&lake, 4);
    let host = match &disk {
        Some(_) => place.start(&[("SHOP_DB", &server.url())]),
        None => with_small_files(&place, &server.url()),
    };
    catch_up(&place, &server, &host);
    // Some 8 MB that do not compress.
    server.sql("insert into orders select i, (select string_agg(md5(i::text || j), '') from generate_series(1, 25) j) from generate_series(101, 10000) i");
    // By the code where the disk is full, by another one where it is the file's size.
    host.says(if disk.is_some() { "store.full" } else { "store." }, 2, PATIENCE);
    match &disk {
        Some(disk) => disk.remount("size=200m"),
        None => lift(&host),
    }
    catch_up(&place, &server, &host);
    let report = host.stop(PATIENCE);
    assert!(report["restarts"].as_u64() >= Some(1), "{report}");
    holds(&place, 1..=10_000);
}

/// For users who may not mount: a limit on the size of files, which says the same in another word.
fn with_small_files(place: &Place, url: &str) -> Host {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 2000; exec \"$@\"", "limited"]).arg(millrace_tests::host::binary());
    command.arg("run").arg(place.path().join("p.yaml")).arg("--json").env("SHOP_DB", url);
    Host::launch(&command, &place.path().join("limited.log"))
}

fn lift(host: &Host) {
    let pid = host.process().pid().to_string();
    let lifted = std::process::Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid]).status();
    assert!(lifted.is_ok_and(|status| status.success()), "prlimit");
}

#[test]
fn a_folder_that_can_not_be_written_stops_the_pipeline_before_anything_is_acknowledged() {
    let server = Postgres::start(16);
    create(&server);
    let place = place();
    let lake = place.lake("shop").root;
    let disk = Disk::mount(&lake, 100);
    let writable = |writable: bool| match &disk {
        Some(disk) => disk.remount(if writable { "rw" } else { "ro" }),
        None => {
            let mode = std::fs::Permissions::from_mode(if writable { 0o755 } else { 0o555 });
            std::fs::set_permissions(&lake, mode).expect("a mode");
        }
    };
    writable(false);
    check(&place.start(&[("SHOP_DB", &server.url())]).fail(PATIENCE), "store.unusable", "lake");
    writable(true);
    let host = place.start(&[("SHOP_DB", &server.url())]);
    catch_up(&place, &server, &host);
    // And in the middle of the stream, where it is another disk.
    if disk.is_some() {
        writable(false);
        server.sql("insert into orders select i, 'x' from generate_series(101, 200) i");
        check(&host.fail(PATIENCE), "store.read_only", "lake");
        writable(true);
    } else {
        host.stop(PATIENCE);
        server.sql("insert into orders select i, 'x' from generate_series(101, 200) i");
    }
    completes(&place, &server, &server.url(), 1..=200);
}

#[test]
fn a_wrong_file_is_refused_with_every_problem_at_its_place() {
    let place = Place::new();
    place.write("p.yaml", "pipeline: shop\nsource: { postgres: { url: '${env:SHOP_DB}', tabels: [public.orders] } }\nsink: { detla: {} }\n");
    let host = place.start(&[("SHOP_DB", "postgres://127.0.0.1:1/d")]);
    let log = host.process().log().to_owned();
    let (code, _) = host.end(PATIENCE);
    let said = std::fs::read_to_string(log).expect("what it said");
    assert_eq!(code, 1, "{said}");
    for problem in ["tabels", "tables", "detla", "delta", "p.yaml", "config.unknown_key"] {
        assert!(said.contains(problem), "`{problem}`: {said}");
    }
}
