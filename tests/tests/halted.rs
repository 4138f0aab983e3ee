//! A table that can not go on stands, and the others go on (I12).

use std::time::Duration;

use millrace_tests::host::Host;
use millrace_tests::place::{Lake, Place};
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::Postgres;
use millrace_tests::servers::wait_for;
use millrace_tests::slot;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Orders with a rule that halts their table, and customers without one.
fn pipeline(range: &str, held_log: &str) -> String {
    format!(
        "pipeline: shop
source: {{ postgres: {{ url: '${{env:DB}}', tables: [public.orders, public.customers] }} }}
stages:
  - plugin: rules
    tables: [public.orders]
    grant: {{ read: [total] }}
    config: {{ orders: {{ total: {{ range: '{range}', severity: quarantine }} }} }}
sink: {{ delta: {{ path: './lake/{{namespace}}/{{table}}', mode: changelog }} }}
settings:
  cut: {{ interval: 50ms }}
  record: {{ interval: 100ms, held_log: {held_log} }}
"
    )
}

struct Scene {
    server: Postgres,
    place: Place,
    lake: Lake,
}

impl Scene {
    fn open() -> Scene {
        let server = Postgres::start(17);
        server.sql(
            "create table orders (id int primary key, total int); create table customers (id bigserial primary key, note text);
             insert into orders select i, i from generate_series(1, 10) i",
        );
        let place = Place::new();
        let lake = place.lake("shop");
        Scene { server, place, lake }
    }

    fn start(&self, range: &str, held_log: &str) -> Host {
        self.place.write("p.yaml", &pipeline(range, held_log));
        self.place.start(&[("DB", &self.server.url())])
    }

    /// What the record says of the orders that are behind.
    fn behind(&self) -> Option<Value> {
        self.lake.record().and_then(|record| record.json["behind"].get("public.orders@0").cloned())
    }

    fn wait_until(&self, what: &str, host: &Host, reached: impl Fn() -> bool) {
        wait_for(what, PATIENCE, || host.log(), || reached().then_some(()));
    }

    fn acknowledged(&self) -> i64 {
        slot::acknowledged(&self.server, "shop").expect("a slot")
    }

    /// Ids and change types of a table, in the order of their positions.
    fn stored(&self, table: &str) -> Vec<(i64, String)> {
        let path = self.lake.table("public", table);
        let sql = format!(
            "select id, _millrace_change_type as t from delta_scan('{}') order by _millrace_position",
            path.display()
        );
        let rows = DeltaReader::start().query(&sql);
        rows.iter().map(|r| (r["id"].as_i64().expect("an id"), r["t"].as_str().expect("a type").to_owned())).collect()
    }
}

fn inserts(ids: std::ops::RangeInclusive<i64>) -> Vec<(i64, String)> {
    ids.map(|id| (id, "insert".to_owned())).collect()
}

#[test]
fn a_halted_table_holds_its_place_and_goes_on_without_a_loss_once_its_rule_is_mended() {
    let scene = Scene::open();
    let host = scene.start("<= 1000", "1GiB");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    scene.server.sql("insert into orders values (11, 11)");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);

    scene.server.sql("insert into orders values (12, 5000)");
    scene.wait_until("the orders are halted", &host, || {
        scene.behind().is_some_and(|b| b["halted"]["code"] == "rule.quarantine")
    });
    let held = scene.acknowledged();
    scene.server.sql(
        "insert into orders values (13, 13); insert into customers (note) select 'x' from generate_series(1, 2000)",
    );
    let customers = scene.lake.table("public", "customers");
    let mut reader = DeltaReader::start();
    scene.wait_until("the customers go on", &host, || reader_count(&customers) == 2000);
    assert_eq!(scene.acknowledged(), held, "what the orders need is not acknowledged");
    assert_eq!(scene.stored("orders"), inserts(1..=11));

    // A process that recovers, and one that starts, find it as it is: the customers are not stored twice.
    let report = host.stop(PATIENCE);
    assert_eq!(report["halted"][0]["table"], "public.orders", "{report}");
    assert_eq!(report["halted"][0]["needs_snapshot"], false, "{report}");
    let host = scene.start("<= 1000", "1GiB");
    scene.wait_until("the orders are halted again", &host, || {
        scene.behind().is_some_and(|b| b["halted"]["code"] == "rule.quarantine")
    });
    scene.server.sql("insert into customers (note) values ('y')");
    scene.wait_until("the customers go on", &host, || reader_count(&customers) == 2001);

    // The file is mended while it runs.
    scene.place.write("p.yaml", &pipeline("<= 10000", "1GiB"));
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    assert!(scene.acknowledged() > held);
    scene.server.sql("delete from orders where id = 13");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    let report = host.stop(PATIENCE);
    assert_eq!(report["halted"], serde_json::json!([]), "{report}");
    let mut expected = inserts(1..=13);
    expected.push((13, "delete".to_owned()));
    assert_eq!(scene.stored("orders"), expected);
    assert_eq!(reader.count(&customers), 2001);
}

/// None before the table's first commit.
fn reader_count(table: &std::path::Path) -> u64 {
    let is_there = table.join("_delta_log/00000000000000000000.json").exists();
    if is_there { DeltaReader::start().count(table) } else { 0 }
}

#[test]
fn a_halted_table_that_holds_too_much_is_let_go_and_comes_back_with_a_new_snapshot() {
    let scene = Scene::open();
    let host = scene.start("<= 1000", "1MiB");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    scene.server.sql("insert into orders values (12, 5000)");
    scene.wait_until("the orders are halted", &host, || scene.behind().is_some());
    let held = scene.acknowledged();
    scene.server.sql("insert into customers (note) select repeat('x', 200) from generate_series(1, 20000)");
    scene.wait_until("the slot moves on", &host, || scene.acknowledged() > held + (2 << 20));
    assert_eq!(scene.behind().expect("still halted")["from"], Value::Null);

    scene.server.sql("insert into orders values (14, 14); delete from orders where id = 1");
    scene.place.write("p.yaml", &pipeline("<= 10000", "1MiB"));
    scene.wait_until("the orders have a new snapshot", &host, || {
        scene.behind().is_none() && scene.lake.record().is_some_and(|record| record.snapshots() == 2)
    });
    scene.server.sql("insert into orders values (15, 15)");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    host.stop(PATIENCE);
    let stored = scene.stored("orders");
    let mut after: Vec<i64> = stored[10..].iter().map(|(id, _)| *id).collect();
    after.sort_unstable();
    assert_eq!(stored[..10], inserts(1..=10), "what was stored before");
    assert_eq!(after, [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15], "the snapshot, and the stream after it");
}

#[test]
fn a_table_whose_snapshot_is_refused_stands_while_the_others_go_on() {
    let scene = Scene::open();
    scene.server.sql("insert into orders values (12, 5000); insert into customers (note) values ('x')");
    let host = scene.start("<= 1000", "1GiB");
    scene.wait_until("the orders are halted", &host, || scene.behind().is_some());
    slot::catch_up(&scene.server, &host, &scene.lake, 1, PATIENCE);
    assert_eq!(reader_count(&scene.lake.table("public", "customers")), 1);
    assert!(!scene.lake.table("public", "orders").join("_delta_log").exists(), "nothing of it is committed");
    scene.place.write("p.yaml", &pipeline("<= 10000", "1GiB"));
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    let report = host.stop(PATIENCE);
    assert_eq!(report["halted"], serde_json::json!([]), "{report}");
    let mut ids: Vec<i64> = scene.stored("orders").iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]);
}

#[test]
fn a_table_whose_columns_may_not_change_stands_where_they_did_and_goes_on_once_they_may() {
    let scene = Scene::open();
    let start = |policy: &str| {
        let mode = format!("mode: changelog, schema_evolution: {policy}");
        scene.place.write("p.yaml", &pipeline("<= 1000", "1GiB").replace("mode: changelog", &mode));
        scene.place.start(&[("DB", &scene.server.url())])
    };
    let mut host = start("exception");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    scene.server.sql("insert into orders values (11, 11)");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    scene.server.sql("alter table orders add column note text; insert into orders values (12, 12, 'x')");
    scene.server.sql("insert into customers (note) values ('y')");
    let customers = scene.lake.table("public", "customers");
    // The stream goes on around it, and a host that is killed meanwhile finds the place again.
    let stands = |host: &Host| {
        host.says("the table is halted; the others go on", 1, PATIENCE);
        scene.wait_until("that is recorded", host, || {
            scene.behind().is_some_and(|b| b["halted"]["code"] == "sink.schema_changed")
        });
    };
    for _ in 0..2 {
        stands(&host);
        scene.wait_until("the customers go on", &host, || reader_count(&customers) == 1);
        host.kill();
        host = start("exception");
    }
    // A stop that comes while the sink is met again ends the host.
    host.says("changes flow", 1, PATIENCE);
    host.stop(PATIENCE);
    host = start("exception");
    stands(&host);
    assert_eq!(scene.stored("orders"), inserts(1..=11));
    assert_eq!(host.stop(PATIENCE)["halted"][0]["table"], "public.orders");

    let host = start("lenient");
    slot::catch_up(&scene.server, &host, &scene.lake, 2, PATIENCE);
    assert_eq!(scene.stored("orders"), inserts(1..=12));
    let report = host.stop(PATIENCE);
    assert_eq!(report["halted"], serde_json::json!([]), "{report}");
}
