//! A mirror of a PostgreSQL table: keys that wait behind a dead letter (I15), and a new snapshot beside the stream.

use std::process::Command;
use std::time::Duration;

use millrace_tests::chance::Chance;
use millrace_tests::host::{Host, binary};
use millrace_tests::place::{Lake, Place};
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::Postgres;
use millrace_tests::servers::wait_for;
use millrace_tests::slot;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

const PIPELINE: &str = "pipeline: shop
source: { postgres: { url: '${env:DB}', tables: [public.orders, public.customers] } }
stages:
  - plugin: rules
    tables: [public.orders]
    grant: { read: [total] }
    config: { orders: { total: { range: '<= 1000' } } }
sink: { delta: { path: './lake/{namespace}/{table}', mode: upsert } }
settings:
  cut: { interval: 50ms }
  record: { interval: 100ms }
";

struct Scene {
    server: Postgres,
    place: Place,
    lake: Lake,
}

impl Scene {
    fn open(orders: u32) -> Scene {
        let server = Postgres::start(17);
        server.sql(&format!(
            "create table orders (id int primary key, total int); create table customers (id bigserial primary key, note text);
             insert into orders select i, i % 1000 from generate_series(1, {orders}) i",
        ));
        let place = Place::new();
        let lake = place.lake("shop");
        place.write("p.yaml", PIPELINE);
        Scene { server, place, lake }
    }

    fn start(&self) -> Host {
        self.place.start(&[("DB", &self.server.url())])
    }

    fn catch_up(&self, host: &Host) {
        slot::catch_up(&self.server, host, &self.lake, 2, PATIENCE);
    }

    /// What a verb says on the pipeline; standard error where it fails.
    fn verb(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary());
        let file = self.place.path().join("p.yaml");
        command.args(args.iter().map(|arg| if *arg == "p.yaml" { file.as_os_str() } else { arg.as_ref() }));
        let output = command.env("DB", self.server.url()).output().expect("the binary");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn letters(&self) -> Value {
        let listed = self.verb(&["dlq", "ls", "p.yaml", "--table", "public.orders", "--json"]).expect("letters");
        serde_json::from_str(&listed).expect("JSON")
    }

    /// Ids and totals, as an independent reader finds them in the lake.
    fn mirrored(&self) -> Vec<(i64, i64)> {
        let path = self.lake.table("public", "orders");
        let sql = format!("select id, total from delta_scan('{}') order by id", path.display());
        let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
        DeltaReader::start().query(&sql).iter().map(|row| (number(row, "id"), number(row, "total"))).collect()
    }

    /// The same at the source.
    fn at_source(&self) -> Vec<(i64, i64)> {
        let rows = self.server.sql("select id || ' ' || total from orders order by id");
        let number = |text: &str| text.parse().expect("a number");
        rows.lines()
            .map(|row| row.split_once(' ').map(|(id, total)| (number(id), number(total))).expect("two"))
            .collect()
    }
}

#[test]
fn later_changes_of_a_refused_key_wait_until_the_table_has_a_new_snapshot() {
    let scene = Scene::open(3);
    let host = scene.start();
    scene.catch_up(&host);
    scene.server.sql("update orders set total = 5000 where id = 2");
    scene.server.sql("update orders set total = 7 where id = 2; update orders set total = 30 where id = 3");
    scene.catch_up(&host);
    assert_eq!(scene.mirrored(), [(1, 1), (2, 2), (3, 30)], "the key that waits stays as it was");
    let letters = scene.letters();
    assert_eq!((&letters["total"], &letters["waiting"], &letters["keys_waiting"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(letters["letters"][0]["code"], "rule.violated", "{letters}");
    assert_eq!(letters["letters"][1]["code"], "key.quarantined", "{letters}");
    assert_eq!(letters["letters"][1]["keys"], json!(["[2]"]), "{letters}");

    // Another start knows it from the letters; a row that moves takes its new key along.
    host.kill();
    let host = scene.start();
    scene.server.sql("update orders set id = 20 where id = 2");
    scene.server.sql("update orders set total = 21 where id = 20; insert into orders values (4, 4)");
    scene.catch_up(&host);
    assert_eq!(scene.mirrored(), [(1, 1), (2, 2), (3, 30), (4, 4)]);
    assert_eq!(scene.letters()["keys_waiting"], 2);

    let asked = scene.verb(&["resnapshot", "p.yaml", "public.orders", "--wait"]).expect("a new snapshot");
    assert!(asked.ends_with("public.orders: the new snapshot is complete\n"), "{asked}");
    scene.server.sql("update orders set total = 22 where id = 20");
    scene.catch_up(&host);
    assert_eq!(scene.mirrored(), scene.at_source());
    assert_eq!((&scene.letters()["total"], &scene.letters()["keys_waiting"]), (&json!(4), &json!(0)));
    host.stop(PATIENCE);
}

#[test]
fn without_quarantine_the_next_change_of_a_key_makes_it_right() {
    let scene = Scene::open(3);
    scene.place.write("p.yaml", &format!("{PIPELINE}dead_letters: {{ quarantine: false }}\n"));
    let host = scene.start();
    scene.catch_up(&host);
    scene.server.sql("update orders set total = 5000 where id = 2");
    scene.server.sql("update orders set total = 7 where id = 2");
    scene.catch_up(&host);
    assert_eq!(scene.mirrored(), [(1, 1), (2, 7), (3, 3)]);
    host.stop(PATIENCE);
}

#[test]
fn a_table_is_halted_where_more_letters_wait_than_may() {
    let scene = Scene::open(3);
    scene.place.write("p.yaml", &format!("{PIPELINE}dead_letters: {{ max_waiting: 2 }}\n"));
    let host = scene.start();
    scene.catch_up(&host);
    scene.server.sql("update orders set total = 5000 where id = 2; update orders set total = 7 where id = 2");
    scene.catch_up(&host);
    scene.server.sql("update orders set total = 8 where id = 2");
    let halted = || {
        let record = scene.lake.record()?;
        (record.json["behind"]["public.orders@0"]["halted"]["code"] == "key.quarantine_full").then_some(())
    };
    wait_for("the table is halted", PATIENCE, || host.log(), halted);
    assert_eq!(scene.letters()["total"], 2);
}

#[test]
fn maintenance_by_hand_merges_files_beside_a_host_and_needs_none() {
    let scene = Scene::open(3_000);
    let host = scene.start();
    scene.catch_up(&host);
    for _ in 0..3 {
        scene.server.sql("update orders set total = (total + 1) % 1000 where id % 2 = 1");
        scene.catch_up(&host);
    }
    let maintain = || -> Value {
        let said = scene.verb(&["maintain", "p.yaml", "--table", "public.orders", "--json"]).expect("maintenance");
        serde_json::from_str(&said).expect("JSON")
    };
    let done = &maintain()["tables"][0];
    assert!(done["files_before"].as_u64() > Some(1), "{done}");
    assert_eq!(done["files"], 1, "{done}");
    scene.server.sql("update orders set total = 7 where id % 3 = 1; delete from orders where id % 3 = 2");
    scene.catch_up(&host);
    assert_eq!(scene.mirrored(), scene.at_source());
    let report = host.stop(PATIENCE);
    assert_eq!(report["restarts"], 0, "{report}");

    assert_eq!(maintain()["tables"][0]["files"], 1);
    assert_eq!(scene.mirrored(), scene.at_source());
    let refused = scene.verb(&["maintain", "p.yaml", "--table", "public.none"]).expect_err("no such table");
    assert!(refused.contains("maintain.no_table") && refused.contains("public.orders"), "{refused}");
}

#[test]
fn a_new_snapshot_is_taken_beside_the_stream_whenever_the_host_dies() {
    let mut chance = Chance::announced("resnapshot");
    let scene = Scene::open(50_000);
    let mut host = scene.start();
    scene.catch_up(&host);
    let before = |scene: &Scene| scene.lake.record().expect("a record").json["snapshots"]["public.orders@0"].clone();
    for _ in 0..4 {
        let snapshot = before(&scene);
        scene.verb(&["resnapshot", "p.yaml", "public.orders"]).expect("a request");
        let change = "update orders set total = (total * 7 + 1) % 1000 where id % 50 = 1;
             delete from orders where id % 1000 = 3; insert into orders select max(id) + 1, 5 from orders;
             insert into customers (note) select 'x' from generate_series(1, 100)";
        scene.server.sql(change);
        host.work(chance.millis(0, 1500));
        host.kill();
        scene.server.sql(change);
        host = scene.start();
        let taken = || (before(&scene) != snapshot).then_some(());
        wait_for("the new snapshot", PATIENCE, || host.log(), taken);
        scene.server.sql(change);
    }
    scene.catch_up(&host);
    let customers = DeltaReader::start().count(&scene.lake.table("public", "customers"));
    assert_eq!(customers, 1200);
    assert_eq!(scene.mirrored(), scene.at_source());
    let refused = scene.verb(&["resnapshot", "p.yaml", "public.none"]).expect_err("no such table");
    assert!(refused.contains("resnapshot.no_table"), "{refused}");
    let report = host.stop(PATIENCE);
    assert_eq!(report["halted"], json!([]), "{report}");
}
