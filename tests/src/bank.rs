//! The scenario of the mirror's tests: accounts in PostgreSQL between which money moves, and a pipeline that mirrors them
//! by `mode: upsert`. No transaction changes the sum of all balances: part of one in the mirror shows at once.

use std::time::Duration;

use crate::host::Host;
use crate::place::{Lake, Place};
use crate::servers::delta_reader::DeltaReader;
use crate::servers::postgres::Postgres;
use crate::slot;
use crate::workload::Writers;

/// How long what takes milliseconds may take on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What every account begins with.
const START: u64 = 1_000;

/// A quarter of the notes lie outside of their row, and an update of the balance does not send them.
const SCHEMA: &str = "
create table accounts (id bigint primary key, balance bigint not null, note text);
alter table accounts alter column note set storage external;";

/// Accounts up to 100 are never closed or moved: what others held goes to them.
const SCRIPTS: [(&str, &str, u32); 4] = [
    (
        "transfer",
        r"
\set a random(101, :accounts)
\set b random(1, 100)
\set amount random(1, 100)
begin;
with paid as (update accounts set balance = balance - :amount where id = :a returning 1)
update accounts set balance = balance + :amount * (select count(*) from paid) where id = :b;
commit;
",
        6,
    ),
    (
        "open",
        r"
\set a random(101, 2 * :accounts)
\set b random(1, 100)
begin;
with opened as (insert into accounts values (:a, 10, repeat(md5(:a::text), 1 + 69 * (:a % 4 / 3)))
  on conflict (id) do update set balance = accounts.balance + 10, note = md5(:b::text) returning 1)
update accounts set balance = balance - 10 * (select count(*) from opened) where id = :b;
commit;
",
        3,
    ),
    (
        "close",
        r"
\set a random(101, 2 * :accounts)
\set b random(1, 100)
begin;
with closed as (delete from accounts where id = :a returning balance)
update accounts set balance = balance + coalesce((select sum(balance) from closed), 0) where id = :b;
commit;
",
        2,
    ),
    (
        "move",
        r"
\set a random(101, :accounts)
update accounts set id = id + 1000000 where id = :a
  and not exists (select from accounts o where o.id = :a + 1000000);
",
        1,
    ),
];

/// Changes of a hundred random keys, as far as they are there: seven of ten update, two open, one closes. What is paid goes to one account more.
const LOAD: &str = r"
\set b random(1, 100)
\set amount random(1, 100)
begin;
with paid as (update accounts set balance = balance - :amount where id = any (array(
    select 101 + (random() * (:accounts - 101))::bigint from generate_series(1, 70))) returning 1),
opened as (insert into accounts select 101 + (random() * (2 * :accounts - 101))::bigint, 10, md5(:amount::text)
    from generate_series(1, 20) on conflict do nothing returning 1)
update accounts set balance = balance + :amount * (select count(*) from paid) - 10 * (select count(*) from opened) where id = :b;
with closed as (delete from accounts where id = any (array(
    select 101 + (random() * (2 * :accounts - 101))::bigint from generate_series(1, 10))) returning balance)
update accounts set balance = balance + coalesce((select sum(balance) from closed), 0) where id = :b;
commit;
";

/// The server, and the pipeline's folder.
#[derive(Debug)]
pub struct Bank {
    pub server: Postgres,
    pub place: Place,
    pub lake: Lake,
    accounts: u64,
    reader: DeltaReader,
}

impl Bank {
    /// A server with so many accounts, and the pipeline. `settings`: of the pipeline, as YAML in braces.
    pub fn open(accounts: u64, settings: &str) -> Bank {
        let server = Postgres::options(17).setting("deadlock_timeout", "100ms").start();
        server.sql(SCHEMA);
        server.sql(&format!(
            "insert into accounts select i, {START}, repeat(md5(i::text), 1 + 69 * (i % 4 / 3)) from generate_series(1, {accounts}) i"
        ));
        let place = Place::new();
        place.write(
            "p.yaml",
            &format!(
                r#"
pipeline: bank
source: {{ postgres: {{ url: "${{env:BANK_DB}}", tables: [public.accounts] }} }}
sink: {{ delta: {{ path: "./lake/{{namespace}}/{{table}}", mode: upsert }} }}
settings: {settings}
"#
            ),
        );
        Bank { server, lake: place.lake("bank"), place, accounts, reader: DeltaReader::start() }
    }

    pub fn start(&self) -> Host {
        self.place.start(&[("BANK_DB", &self.server.url())])
    }

    /// Lets `clients` move money at full speed until they are stopped.
    pub fn write(&self, clients: u32) -> Writers {
        Writers::launch_scripts(&self.server, clients, &SCRIPTS, &self.args())
    }

    /// Lets one client change up to a hundred accounts in each of `rate` transactions a second until it is stopped.
    pub fn write_at(&self, rate: u32) -> Writers {
        let args = [self.args(), vec!["-R".to_owned(), rate.to_string()]].concat();
        Writers::launch_scripts(&self.server, 1, &[("load", LOAD, 1)], &args)
    }

    fn args(&self) -> Vec<String> {
        vec!["-T".to_owned(), "36000".to_owned(), "-D".to_owned(), format!("accounts={}", self.accounts)]
    }

    /// Waits until everything that was committed by now is in the mirror, recorded and acknowledged.
    pub fn catch_up(&self, host: &Host) {
        slot::catch_up(&self.server, host, &self.lake, 1, PATIENCE);
    }

    pub fn table(&self) -> std::path::PathBuf {
        self.lake.table("public", "accounts")
    }

    /// The mirror as it is now, with whatever else lies in its folder, is the source at some moment: each key once, and no
    /// money lost or made. Nothing is checked before the first commit.
    pub fn check_moment(&mut self) {
        if !self.table().join("_delta_log/00000000000000000000.json").exists() {
            return;
        }
        let scan = format!("delta_scan('{}')", self.table().display());
        let sql = format!("select count(*) n, count(distinct id) ids, sum(balance)::bigint total from {scan}");
        let found = &self.reader.query(&sql)[0];
        assert_eq!(found["n"], found["ids"], "a key is there more than once");
        if found["n"] != 0 {
            assert_eq!(found["total"], self.accounts * START, "part of a transaction is there");
        }
    }

    /// The mirror's rows are the source's. The writers have stopped, and the host has caught up. Answers their number.
    pub fn check_equal(&mut self) -> usize {
        let row = "concat_ws('|', id::text, balance::text, md5(note))";
        let source = self.server.sql(&format!("select {row} from accounts"));
        let mut source: Vec<&str> = source.lines().collect();
        source.sort_unstable();
        let rows = self.reader.query(&format!("select {row} r from delta_scan('{}')", self.table().display()));
        let mut mirror: Vec<&str> = rows.iter().map(|r| r["r"].as_str().expect("a text")).collect();
        mirror.sort_unstable();
        let apart = source.iter().zip(&mirror).find(|(a, b)| a != b);
        assert!(source == mirror, "{} rows, mirrored {}; first apart: {apart:?}", source.len(), mirror.len());
        mirror.len()
    }
}
