//! Tables that are replaced, leave and come back, inherit, or hide rows: nothing is missed without a word.

use std::time::Duration;

use millrace_tests::host::Host;
use millrace_tests::place::{Lake, Place};
use millrace_tests::servers::delta_reader::DeltaReader;
use millrace_tests::servers::postgres::Postgres;
use millrace_tests::slot;

const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    server: Postgres,
    place: Place,
    lake: Lake,
}

impl Scene {
    fn open() -> Scene {
        let server = Postgres::start(16);
        server.sql("create table a (id int primary key, v text); create table b (id int primary key, v text); insert into a values (1, 'old')");
        let place = Place::new();
        let lake = place.lake("p");
        Scene { server, place, lake }
    }

    fn start(&self, tables: &str) -> Host {
        self.start_as(tables, &self.server.url())
    }

    fn start_as(&self, tables: &str, url: &str) -> Host {
        self.place.write(
            "p.yaml",
            &format!(
                "pipeline: p\nsource: {{ postgres: {{ url: '${{env:DB}}', tables: [{tables}] }} }}\n\
                 sink: {{ delta: {{ path: './lake/{{namespace}}/{{table}}' }} }}\n\
                 settings: {{ record: {{ interval: 100ms }} }}\n"
            ),
        );
        self.place.start(&[("DB", url)])
    }

    fn catch_up(&self, host: &Host, snapshots: usize) {
        slot::catch_up(&self.server, host, &self.lake, snapshots, PATIENCE);
    }

    /// The ids that a table of the lake has rows of.
    fn ids(&self, table: &str) -> Vec<i64> {
        let path = self.lake.table("public", table);
        let sql = format!("select distinct id from delta_scan('{}') order by id", path.display());
        DeltaReader::start().query(&sql).iter().map(|r| r["id"].as_i64().expect("an id")).collect()
    }
}

#[test]
fn a_table_that_is_dropped_and_made_again_gets_a_new_snapshot() {
    let scene = Scene::open();
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    scene
        .server
        .sql("drop table a; create table a (id int primary key, v text); insert into a values (10, 'x'), (11, 'y')");
    host.stop(PATIENCE);
    let host = scene.start("public.a");
    scene.server.sql("update a set v = 'z' where id = 10; insert into a values (12, 'later')");
    host.says("a new snapshot", 1, PATIENCE);
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    assert_eq!(scene.ids("a"), [1, 10, 11, 12]);
}

#[test]
fn a_table_that_takes_the_place_of_another_by_its_name_gets_a_new_snapshot() {
    let scene = Scene::open();
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    scene.server.sql(
        "begin; create table a_new (id int primary key, v text); insert into a_new select * from a; insert into a_new values (5, 'new');
         alter table a rename to a_old; alter table a_new rename to a; commit; insert into a values (6, 'after')",
    );
    host.stop(PATIENCE);
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    assert_eq!(scene.ids("a"), [1, 5, 6]);
}

#[test]
fn a_table_that_was_left_out_for_a_while_gets_a_new_snapshot_when_it_comes_back() {
    let scene = Scene::open();
    for (tables, snapshots, id) in [("public.a, public.b", 2, 1), ("public.a", 1, 2), ("public.a, public.b", 2, 3)] {
        let host = scene.start(tables);
        scene.catch_up(&host, snapshots);
        scene.server.sql(&format!("insert into b values ({id}, 'x')"));
        scene.catch_up(&host, snapshots);
        host.stop(PATIENCE);
    }
    assert_eq!(scene.ids("b"), [1, 2, 3]);
    scene.server.sql("alter publication millrace_p drop table b; insert into b values (4, 'x')");
    let host = scene.start("public.a, public.b");
    scene.catch_up(&host, 2);
    host.stop(PATIENCE);
    assert_eq!(scene.ids("b"), [1, 2, 3, 4]);
}

#[test]
fn a_renamed_table_is_read_on_under_its_new_name() {
    let scene = Scene::open();
    let host = scene.start("public.b");
    scene.catch_up(&host, 1);
    scene.server.sql("insert into b values (1, 'x'); alter table b rename to b2; insert into b2 values (2, 'x')");
    let error = host.fail(PATIENCE);
    assert_eq!(error["code"], "postgres.table_renamed", "{error}");
    let host = scene.start("public.b2");
    scene.catch_up(&host, 1);
    scene.server.sql("insert into b2 values (3, 'x')");
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    assert_eq!(scene.ids("b2"), [1, 2, 3]);
}

#[test]
fn rows_of_tables_that_inherit_are_read_once_and_as_their_own() {
    let scene = Scene::open();
    scene.server.sql("create table child (primary key (id)) inherits (a); insert into child values (2, 'child')");
    let host = scene.start("public.a, public.child");
    scene.catch_up(&host, 2);
    host.stop(PATIENCE);
    assert_eq!((scene.ids("a"), scene.ids("child")), (vec![1], vec![2]));
}

#[test]
fn a_table_whose_policies_would_hide_rows_from_the_snapshot_is_refused() {
    let scene = Scene::open();
    scene.server.sql(
        "create role reader login replication; grant select on a to reader; create publication millrace_p for table a;
         alter table a enable row level security; create policy p on a using (v = 'mine')",
    );
    let error = scene.start_as("public.a", &scene.server.url_as("reader", None, "postgres")).fail(PATIENCE);
    assert_eq!(error["code"], "postgres.privilege_missing", "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("row-level security")), "{error}");
}

#[test]
fn a_table_that_is_removed_from_the_lake_is_not_begun_anew_in_silence() {
    let scene = Scene::open();
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    std::fs::remove_dir_all(scene.lake.table("public", "a")).expect("the table's folder");
    for _ in 0..2 {
        let error = scene.start("public.a").fail(PATIENCE);
        assert_eq!(error["code"], "position.gap", "{error}");
    }
}

#[test]
fn a_sink_that_would_begin_other_tables_under_the_same_name_is_refused() {
    let scene = Scene::open();
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    for (was, is) in [("{table}'", "x_{table}'"), ("{table}'", "{table}', mode: append")] {
        let text = std::fs::read_to_string(scene.place.path().join("p.yaml")).expect("the file");
        scene.place.write("p.yaml", &text.replace(was, is));
        let error = scene.place.start(&[("DB", &scene.server.url())]).fail(PATIENCE);
        assert_eq!(error["code"], "sink.changed", "{error}");
        scene.place.write("p.yaml", &text);
    }
    scene.server.sql("insert into a values (2, 'x')");
    let host = scene.start("public.a");
    scene.catch_up(&host, 1);
    host.stop(PATIENCE);
    assert_eq!(scene.ids("a"), [1, 2]);
}
