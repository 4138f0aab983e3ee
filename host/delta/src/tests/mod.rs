//! The sink as a whole, on real files.

mod evolution;
mod exactly_once;
mod faults;
mod feed;
mod foreign;
mod key_kinds;
mod mirror;
mod modes;
mod others;
mod readers;
mod s3;
mod schemas;
mod simulator;
mod support;
mod upsert;
mod upsert_compaction;
mod upsert_errors;
mod upsert_faults;
mod upsert_foreign;
mod upsert_index;
mod upsert_late;
mod upsert_property;
mod upsert_race;
mod upsert_spark;
