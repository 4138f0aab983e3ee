//! Stops, idle databases, and two hosts at once (I3, I6, I12, I13).

use millrace_tests::chance::Chance;
use millrace_tests::place::Place;
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::Postgres;
use millrace_tests::servers::wait_for;
use millrace_tests::shop::{PATIENCE, Shop};
use millrace_tests::slot;

#[test]
fn a_stop_commits_records_and_acknowledges_what_was_read_and_a_restart_repeats_nothing() {
    let mut chance = Chance::announced("drain");
    let shop = Shop::open(17, 500);
    shop.keep_transactions_whole();
    let writers = shop.write(2);
    for _ in 0..3 {
        let host = shop.start();
        host.says("changes flow", 1, PATIENCE);
        host.work(chance.millis(300, 1_200));
        let report = host.stop(PATIENCE);
        // What an orderly stop left is at one place: record, acknowledgement and tables agree.
        assert_eq!(report["already_stored"], 0, "{report}");
        assert_eq!(report["restarts"], 0, "{report}");
        reconcile(&report);
        let record = shop.lake.record().expect("a record");
        assert_eq!(record.json["released"], true, "the lease is given back");
        let recorded = record.order().expect("a position").commit() + 1;
        assert_eq!(shop.acknowledged(), Some(recorded), "{}", record.json["position"]);
    }
    let host = shop.start();
    writers.stop(&shop.server);
    shop.catch_up(&host);
    let report = host.stop(PATIENCE);
    assert_eq!(report["already_stored"], 0, "{report}");
    println!("result: {}", shop.verify());
}

fn reconcile(report: &serde_json::Value) {
    let count = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    let out = count("images_out") + count("dropped") + count("dead_letters") + count("already_stored") + count("held");
    assert_eq!(count("images_in") + count("emitted"), out, "{report}");
}

#[test]
fn an_idle_tables_slot_advances_while_others_write() {
    let server = Postgres::start(18);
    server.sql("create table ours (id int primary key); insert into ours values (1); create table theirs (id bigserial, note text)");
    let place = Place::new();
    place.write(
        "p.yaml",
        "pipeline: idle\nsource: { postgres: { url: '${env:DB}', tables: [public.ours] } }\nsink: { delta: { path: ./lake } }\n\
         settings: { record: { interval: 200ms } }\n",
    );
    let host = place.start(&[("DB", &server.url())]);
    let lake = place.lake("idle");
    let table = lake.table("public", "ours");
    let commits = || std::fs::read_dir(table.join("_delta_log")).expect("a log").count();
    slot::catch_up(&server, &host, &lake, 1, PATIENCE);
    let before = commits();
    for _ in 0..3 {
        server.sql("insert into theirs (note) select repeat('x', 100) from generate_series(1, 5000)");
        slot::catch_up(&server, &host, &lake, 1, PATIENCE);
    }
    assert_eq!(commits(), before, "nothing of ours happened: nothing is committed");
    server.sql("insert into ours values (2)");
    slot::catch_up(&server, &host, &lake, 1, PATIENCE);
    host.stop(PATIENCE);
    assert_eq!(DeltaReader::start().count(&table), 2);
}

const EVENTS: u64 = 60_000;

fn generated(lake: &str, rate: &str) -> String {
    format!(
        "pipeline: shop\nsource: {{ generator: {{ events: {EVENTS}, seed: 11{rate} }} }}\nsink: {{ delta: {{ path: ./{lake} }} }}\n\
         settings: {{ cut: {{ interval: 50ms, max_rows: 2000 }}, record: {{ interval: 200ms }} }}\n"
    )
}

#[test]
fn a_second_host_takes_over_and_the_first_lets_go() {
    let place = Place::new();
    place.write("p.yaml", &generated("lake", ", rate: 20000"));
    place.write("alone.yaml", &generated("alone", ""));
    let customers = place.lake("shop").table("shop", "customers");
    let first = place.start_with(&["p.yaml"], &["--instance", "first"], &[]);
    let commits = || std::fs::read_dir(customers.join("_delta_log")).into_iter().flatten().count();
    wait_for("some commits of the first host", PATIENCE, || first.log(), || (commits() > 5).then_some(()));
    let second = place.start_with(&["p.yaml"], &["--instance", "second", "--take-over"], &[]);
    let error = first.fail(PATIENCE);
    assert_eq!(error["kind"], "let-go", "{error}");
    assert!(matches!(error["code"].as_str(), Some("record.taken" | "epoch.superseded")), "{error}");
    let report = second.finish(PATIENCE);
    reconcile(&report);
    assert!(report["images_out"].as_u64() > Some(0), "{report}");
    // The same events, written by one host alone.
    let alone = place.start_with(&["alone.yaml"], &[], &[]).finish(PATIENCE);
    same_rows(&place, &alone);
}

#[test]
fn a_host_that_is_not_told_to_take_over_waits_for_the_lease() {
    let place = Place::new();
    place.write("p.yaml", &generated("lake", ", rate: 20000"));
    place.write("alone.yaml", &generated("alone", ""));
    let first = place.start_with(&["p.yaml"], &["--instance", "first"], &[]);
    first.says("changes flow", 1, PATIENCE);
    let second = place.start_with(&["p.yaml"], &["--instance", "second"], &[]);
    second.says("waiting for the lease of another host", 1, PATIENCE);
    // The first ends in order and gives the lease back; the second goes on from there.
    let report = first.stop(PATIENCE);
    assert_eq!(report["already_stored"], 0, "{report}");
    let report = second.finish(PATIENCE);
    assert_eq!(report["already_stored"], 0, "{report}");
    let alone = place.start_with(&["alone.yaml"], &[], &[]).finish(PATIENCE);
    same_rows(&place, &alone);
}

/// The tables below `lake` and `alone` hold the same rows, each as often.
fn same_rows(place: &Place, alone: &serde_json::Value) {
    let mut reader = DeltaReader::start();
    let mut rows = 0;
    for table in ["customers", "orders", "payments"] {
        let at = |lake: &str| format!("delta_scan('{}')", place.path().join(lake).join("shop").join(table).display());
        let (ours, theirs) = (at("lake"), at("alone"));
        let count = |rows: Vec<serde_json::Value>| rows[0]["n"].as_u64().expect("a count");
        let differ = format!(
            "select count(*) as n from ((from {ours} except all from {theirs}) union all (from {theirs} except all from {ours}))"
        );
        assert_eq!(count(reader.query(&differ)), 0, "{table}");
        rows += count(reader.query(&format!("select count(*) as n from {ours}")));
    }
    assert_eq!(Some(rows), alone["images_out"].as_u64(), "{alone}");
}
