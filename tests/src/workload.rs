//! Writes at full speed over four tables, by `pgbench`, for the tests of the whole way.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::servers::postgres::Postgres;
use crate::servers::process::Process;
use crate::servers::wait_for;

/// Two tables to merge into one (`orders_eu`, `orders_us`: their keys are apart), one to route by the value of `kind`
/// (`events`), and one to mask (`customers`). All have full before-images.
const SCHEMA: &str = "
create table customers (id int primary key, email text not null, phone text, balance numeric(12,2) not null default 0);
create table orders_eu (id bigint primary key, customer int not null, total numeric(12,2) not null, status text not null);
create table orders_us (id bigint primary key, customer int not null, total numeric(12,2) not null, status text not null);
create table events (id bigserial primary key, kind text not null, customer int not null, payload jsonb);
alter table customers replica identity full;
alter table orders_eu replica identity full;
alter table orders_us replica identity full;
alter table events replica identity full;
insert into customers select i, 'c' || i || '@example.com', '+49 170 ' || i, 0 from generate_series(1, 500) i;
insert into orders_eu select i * 2, i, i, 'open' from generate_series(1, 500) i;
insert into orders_us select i * 2 + 1, i, i, 'open' from generate_series(1, 500) i;
insert into events (kind, customer, payload) select case when i % 2 = 0 then 'a' else 'b' end, i, '{}' from generate_series(1, 500) i;
";

/// A transaction over all four tables: inserts, updates (some of the routing value), deletes.
const TRANSACTION: &str = r"
\set customer random(1, 500)
\set order random(1, 2000)
\set event random(1, 4000)
\set amount random(1, 100000)
begin;
update customers set balance = balance + :amount / 100.0, phone = '+49 170 ' || :amount where id = :customer;
insert into orders_eu values (:order * 2, :customer, :amount / 100.0, 'open')
  on conflict (id) do update set total = excluded.total, status = 'changed';
delete from orders_us where id = (:order / 2) * 2 + 1 and :amount % 5 = 0;
insert into orders_us values (:order * 2 + 1, :customer, :amount / 100.0, 'open') on conflict (id) do nothing;
insert into events (kind, customer, payload) values
  (case when :amount % 2 = 0 then 'a' else 'b' end, :customer, jsonb_build_object('amount', :amount));
update events set kind = case when kind = 'a' then 'b' else 'a' end where id = :event;
delete from events where id = :event - 2000;
commit;
";

/// Keys change, to a region that nothing else writes to; the lock keeps two of these from moving to one place.
const KEY_CHANGES: &str = r"
\set order random(1, 2000)
begin;
select pg_advisory_xact_lock(7);
update orders_eu set id = id + 1000000 where id = :order * 2
  and not exists (select from orders_eu o where o.id = :order * 2 + 1000000);
delete from orders_eu where id = 1000000 + ((:order + 7) % 2000) * 2;
update orders_us set id = id + 1000000 where id = :order * 2 + 1
  and not exists (select from orders_us o where o.id = :order * 2 + 1000001);
commit;
";

/// Half of it never happened.
const HALF_ROLLED_BACK: &str = r"
\set customer random(1, 500)
\set amount random(1, 100000)
begin;
insert into events (kind, customer, payload) values ('a', :customer, jsonb_build_object('amount', :amount));
savepoint half;
update customers set balance = balance - 1 where id = :customer;
insert into events (kind, customer, payload) values ('b', :customer, '[]');
rollback to savepoint half;
update customers set phone = '+49 30 ' || :amount, email = 'm' || :amount || '@example.org' where id = :customer;
commit;
";

/// None of it happened.
const ROLLED_BACK: &str = r"
\set order random(1, 2000)
begin;
delete from orders_us where id = :order * 2 + 1;
insert into events (kind, customer, payload) select 'a', i, '{}' from generate_series(1, 50) i;
update orders_eu set status = 'never' where id = :order * 2;
rollback;
";

/// A tenth of the events in one transaction: with a small `logical_decoding_work_mem` the server streams it.
const LARGE: &str = r"
\set part random(0, 9)
\set amount random(1, 100000)
update events set payload = jsonb_build_object('part', :part, 'amount', :amount) where id % 10 = :part and id <= 60000;
";

const LARGE_ROLLED_BACK: &str = r"
\set part random(0, 9)
begin;
update events set payload = null where id % 10 = :part and id <= 60000;
rollback;
";

/// The tables, as `schema.table`.
pub const TABLES: [&str; 4] = ["public.customers", "public.orders_eu", "public.orders_us", "public.events"];

/// Creates the tables with 500 rows each.
pub fn create_tables(server: &Postgres) {
    server.sql(SCHEMA);
}

/// Adds rows, so that reading them takes a while: `rows` customers, twice as many orders of each kind, three times as many
/// events.
pub fn grow(server: &Postgres, rows: u32) {
    server.sql(&format!(
        "insert into customers select i, 'c' || i || '@example.com', '+49 170 ' || i, i % 700 from generate_series(501, 500 + {rows}) i;
         insert into orders_eu select i * 2, i % 500 + 1, i % 1000 + 0.25, 'open' from generate_series(501, 500 + 2 * {rows}) i;
         insert into orders_us select i * 2 + 1, i % 500 + 1, i % 1000 + 0.5, 'open' from generate_series(501, 500 + 2 * {rows}) i;
         insert into events (kind, customer, payload)
           select case when i % 3 = 0 then 'a' else 'b' end, i % 500 + 1, jsonb_build_object('i', i) from generate_series(1, 3 * {rows}) i;"
    ));
}

/// Writers at work; dropping it stops them.
#[derive(Debug)]
pub struct Writers {
    process: Process,
    _dir: tempfile::TempDir,
}

impl Writers {
    /// Lets `clients` write `transactions` each, as fast as the server takes them.
    pub fn start(server: &Postgres, clients: u32, transactions: u32) -> Writers {
        Self::launch(server, clients, &["-t".to_owned(), transactions.to_string()])
    }

    /// Lets `clients` write for this long, at `rate` transactions a second in all, or as fast as possible.
    pub fn start_for(server: &Postgres, clients: u32, time: Duration, rate: Option<u32>) -> Writers {
        let mut args = vec!["-T".to_owned(), time.as_secs().max(1).to_string()];
        args.extend(rate.iter().flat_map(|rate| ["-R".to_owned(), rate.to_string()]));
        Self::launch(server, clients, &args)
    }

    /// Lets `clients` write everything that a database sees, at full speed until they are stopped: rows over all tables,
    /// keys that change, transactions that are rolled back whole or in part, and large ones.
    pub fn start_mixed(server: &Postgres, clients: u32) -> Writers {
        let scripts = [
            ("transaction", TRANSACTION, 800),
            ("keys", KEY_CHANGES, 80),
            ("half", HALF_ROLLED_BACK, 80),
            ("none", ROLLED_BACK, 40),
            ("large", LARGE, 2),
            ("large-none", LARGE_ROLLED_BACK, 1),
        ];
        Self::launch_scripts(server, clients, &scripts, &["-T".to_owned(), "3600".to_owned()])
    }

    fn launch(server: &Postgres, clients: u32, how_long: &[String]) -> Writers {
        Self::launch_scripts(server, clients, &[("transaction", TRANSACTION, 1)], how_long)
    }

    /// `scripts`: name, text, weight. `args`: of pgbench, how long and how fast.
    pub(crate) fn launch_scripts(
        server: &Postgres,
        clients: u32,
        scripts: &[(&str, &str, u32)],
        args: &[String],
    ) -> Writers {
        let dir = tempfile::Builder::new().prefix("mr-writers-").tempdir().expect("a temporary folder");
        let mut command = server.tool("pgbench");
        // Tries: two writers may wait for each other's rows.
        command.args(["-n", "--max-tries", "100", "-c", &clients.to_string(), "-j", "1"]).args(args);
        for (name, text, weight) in scripts {
            let script: PathBuf = dir.path().join(format!("{name}.sql"));
            fs::write(&script, text).expect("the transaction's file");
            command.arg("-f").arg(format!("{}@{weight}", script.display()));
        }
        let log = dir.path().join("pgbench.log");
        Writers { process: Process::start_command(&command, &log, "TERM"), _dir: dir }
    }

    /// Whether they still write.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Stops them wherever they are; a transaction under way is rolled back by the server. Waits until none commits any
    /// more.
    ///
    /// # Panics
    /// If they had ended by themselves: the load was not there.
    pub fn stop(self, server: &Postgres) {
        let log = String::from_utf8_lossy(&fs::read(self.process.log()).unwrap_or_default()).into_owned();
        assert!(self.process.is_running(), "the writers ended by themselves:\n{log}");
        drop(self);
        let busy = "select count(*) from pg_stat_activity where application_name = 'pgbench'";
        wait_for("the writers' end", Duration::from_secs(60), String::new, || (server.sql(busy) == "0").then_some(()));
    }

    /// Waits until all have written all, and answers pgbench's report.
    ///
    /// # Panics
    /// If a transaction failed, or they take longer than `limit`.
    pub fn finish(self, limit: Duration) -> String {
        let log = || String::from_utf8_lossy(&fs::read(self.process.log()).unwrap_or_default()).into_owned();
        wait_for("writing", limit, log, || (!self.process.is_running()).then_some(()));
        let report = log();
        assert!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
        report
    }
}
