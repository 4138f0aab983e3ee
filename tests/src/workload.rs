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

/// The tables, as `schema.table`.
pub const TABLES: [&str; 4] = ["public.customers", "public.orders_eu", "public.orders_us", "public.events"];

/// Creates the tables with 500 rows each.
pub fn create_tables(server: &Postgres) {
    server.sql(SCHEMA);
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

    fn launch(server: &Postgres, clients: u32, how_long: &[String]) -> Writers {
        let dir = tempfile::Builder::new().prefix("mr-writers-").tempdir().expect("a temporary folder");
        let script: PathBuf = dir.path().join("transaction.sql");
        fs::write(&script, TRANSACTION).expect("the transaction's file");
        let mut command = server.tool("pgbench");
        // Tries: two writers may wait for each other's rows.
        command.args(["-n", "--max-tries", "100", "-c", &clients.to_string(), "-j", "1", "-f"]).arg(&script);
        command.args(how_long);
        let log = dir.path().join("pgbench.log");
        Writers { process: Process::start_command(&command, &log, "TERM"), _dir: dir }
    }

    /// Whether they still write.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
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
