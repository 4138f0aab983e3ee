//! The scenario of the exactly-once tests: a shop's four tables in PostgreSQL, a pipeline that merges two of them, routes
//! one by value, masks one and refuses rows, and what its lake must hold in the end.

mod expect;
mod stored;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::component::{build, first_party, replace};
use crate::host::Host;
use crate::oracle::Oracle;
use crate::place::{Lake, Place};
use crate::servers::postgres::{Options, Postgres};
use crate::slot;
use crate::workload::{self, Writers};

pub use verify::Verdict;

/// How long what takes milliseconds may take on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "a key of the tests";

/// A source table: its columns, where its rows go to, and which of the rows there are its own.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    sinks: &'static [&'static str],
    own: &'static str,
}

const TABLES: [Table; 4] = [
    Table { name: "customers", columns: &["id", "email", "phone", "balance"], sinks: &["customers"], own: "true" },
    Table { name: "orders_eu", columns: &["id", "customer", "total", "status"], sinks: &["orders"], own: "id % 2 = 0" },
    Table { name: "orders_us", columns: &["id", "customer", "total", "status"], sinks: &["orders"], own: "id % 2 = 1" },
    Table {
        name: "events",
        columns: &["id", "kind", "customer", "payload"],
        sinks: &["events_a", "events_b"],
        own: "true",
    },
];

/// The rows of a source table: by key, the columns joined as text.
type Rows = BTreeMap<String, Vec<Option<String>>>;

/// The server, its oracle, and the pipeline's folder.
#[derive(Debug)]
pub struct Shop {
    pub server: Postgres,
    pub place: Place,
    pub lake: Lake,
    oracle: Oracle,
    /// As they were when the oracle's slot was created.
    first: BTreeMap<&'static str, Rows>,
    mask: Vec<u8>,
}

impl Shop {
    /// Starts a server with `rows` customers and several times as many rows in the other tables, and writes the pipeline
    /// in its first version.
    pub fn open(version: u32, rows: u32) -> Shop {
        let server = settings(Postgres::options(version)).start();
        workload::create_tables(&server);
        workload::grow(&server, rows);
        let oracle = Oracle::create(&server);
        let first = TABLES.iter().map(|table| (table.name, stored::first_rows(&server, table))).collect();
        let place = Place::new();
        let lake = place.lake("shop");
        let shop = Shop { server, place, lake, oracle, first, mask: first_party("mask") };
        shop.set_version(0);
        shop
    }

    /// Replaces the plugin's file, and the line of the pipeline file that says how it masks: which version made a row
    /// shows in the length of its phone number. Two builds of the plugin take turns.
    pub fn set_version(&self, version: u64) {
        self.set_build(version);
        self.place.write("p.yaml", &pipeline(1 + version % 4));
    }

    /// Replaces the plugin's file alone.
    pub fn set_build(&self, version: u64) {
        replace(&self.place.path().join("mask.wasm"), &build(&self.mask, (version % 2) as u8));
    }

    /// No transaction is split over cuts: what a stop leaves is at one place, however large the transaction that it cuts
    /// short. (The parts of one that is split are stored before a record may name its end: read again, and dropped.)
    pub fn keep_transactions_whole(&self) {
        self.place.write("p.yaml", &pipeline(1).replace(", split_rows: 2000", ""));
    }

    pub fn start(&self) -> Host {
        self.place.start(&[("SHOP_DB", &self.server.url()), ("PII_KEY", KEY)])
    }

    pub fn write(&self, clients: u32) -> Writers {
        Writers::start_mixed(&self.server, clients)
    }

    /// Up to where the slot was acknowledged, in bytes of the write-ahead log; none: there is no slot yet.
    pub fn acknowledged(&self) -> Option<i64> {
        slot::acknowledged(&self.server, "shop")
    }

    /// Nothing may be acknowledged that no record holds (I3): what was acknowledged by now is in the latest record.
    pub fn check_acknowledged(&self) {
        let Some(acknowledged) = self.acknowledged() else { return };
        let Some(record) = self.lake.record() else { return };
        let recorded = record.order().unwrap_or_else(|| panic!("a record without a position: {}", record.json));
        // The record's order is the byte before its token (`Lsn::order_before`).
        assert!(
            acknowledged <= recorded.commit() + 1,
            "the slot was acknowledged up to {acknowledged}, and the latest record is at {}",
            record.json["position"]
        );
    }

    /// Waits until everything that was committed by now is in the lake, recorded and acknowledged.
    pub fn catch_up(&self, host: &Host) {
        slot::catch_up(&self.server, host, &self.lake, TABLES.len(), PATIENCE);
    }
}

/// Large transactions are streamed from 64 kB on; writers that wait for each other are told soon.
fn settings(options: Options) -> Options {
    options.setting("logical_decoding_work_mem", "64kB").setting("deadlock_timeout", "100ms")
}

/// Small batches and cuts, so that a kill finds many places to hit; large transactions are split over cuts.
fn pipeline(phone: u64) -> String {
    format!(
        r#"
pipeline: shop
source:
  postgres: {{ url: "${{env:SHOP_DB}}", tables: [public.customers, public.orders_eu, public.orders_us, public.events] }}
stages:
  - plugin: cast-rename
    tables: [public.orders_eu, public.orders_us]
    config: {{ rename_table: orders }}
  - plugin: cast-rename
    tables: [public.events]
    grant: {{ read: [kind] }}
    config: {{ route: {{ column: kind, to: {{ a: events_a, b: events_b }} }} }}
  - plugin: ./mask.wasm
    tables: [public.customers]
    grant: {{ columns: [email, phone], crypto: [pii] }}
    config: {{ email: hash, phone: {{ last: {phone} }} }}
  - plugin: rules
    tables: [public.orders, public.events_a, public.events_b]
    grant: {{ read: [total, customer] }}
    config:
      orders: {{ total: "<= 990" }}
      events_a: {{ customer: "<= 495" }}
      events_b: {{ customer: "<= 495" }}
sink:
  delta: {{ path: "./lake/{{namespace}}/{{table}}", mode: changelog }}
keys: {{ pii: "${{env:PII_KEY}}" }}
settings:
  batch: {{ rows: 500 }}
  cut: {{ interval: 100ms, max_rows: 5000, split_rows: 2000 }}
  record: {{ interval: 300ms }}
"#
    )
}
